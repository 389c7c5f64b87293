/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* A virtio block device: the handler that a sandboxed worker runs, over RAM or an open file. */
#ifndef VHOSTCTL_BLK_DEVICE_H
#define VHOSTCTL_BLK_DEVICE_H

#include <stdbool.h>
#include <vhost/libvhost.h>

#include "blk_wire.h"

struct blk_device {
	int fd;	       /* file, when ram is NULL */
	uint8_t *ram;  /* RAM disk */
	uint64_t size; /* bytes, multiple of 512 */
	char id[20];   /* what GET_ID answers, not NUL-terminated when full */
	/* how often a read or write of each sector was begun: shared, so that it outlives a kill; NULL = not counted */
	_Atomic uint32_t *journal;
};

/* libvhost_backend_ops.serve; arg is a struct blk_device. */
int blk_device_serve(void *arg, uint32_t queue, struct libvhost_vq *vq);

#endif
