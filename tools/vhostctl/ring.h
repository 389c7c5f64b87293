/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* What the drivers of all device types share. */
#ifndef VHOSTCTL_RING_H
#define VHOSTCTL_RING_H

#include <vhost/libvhost.h>

/* The driver's view of queue q, set up as setup says, on freshly initialised ring memory, in place of *vq. 0, or 1 with
 * a complaint. */
int open_driver_ring(struct libvhost_ctx *ctx, struct libvhost_dev *dev, uint32_t q, uint64_t features,
		     struct libvhost_mem *mem, const struct libvhost_queue *setup, struct libvhost_vq **vq);

/* The same on a ring that another driver left: a split one with the requests in it, a packed one empty, where the
 * device says that it continues. */
int resume_driver_ring(struct libvhost_ctx *ctx, struct libvhost_dev *dev, uint32_t q, uint64_t features,
		       struct libvhost_mem *mem, const struct libvhost_queue *setup, struct libvhost_vq **vq);

#endif
