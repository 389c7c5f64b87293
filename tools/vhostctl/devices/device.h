/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/*
 * A device of "vhostctl serve": one file in this folder each, which ends with the part that runs on the sandboxed
 * worker. Nothing there is allocated, opened or printed.
 */
#ifndef VHOSTCTL_DEVICE_H
#define VHOSTCTL_DEVICE_H

#include <stdbool.h>
#include <vhost/libvhost.h>

struct argp;

struct device {
	const char *name;	 /* as in "vhostctl serve NAME" */
	const struct argp *argp; /* its options; NULL = none */
	uint32_t virtio_id, role;
	uint32_t queues, max_queues, queue_step;
	/* Opens what the options say. 0, or 1 with a complaint. */
	int (*open)(struct device *d, uint32_t queues);
	/* Binds descriptors that queues wait for, once the back-end exists. NULL = none. */
	int (*bind)(struct device *d, struct libvhost_backend *backend);
	int (*serve)(void *arg, uint32_t queue, struct libvhost_vq *vq); /* arg is the device */
	/* What a migration takes along; NULL = nothing. As in struct libvhost_backend_ops. */
	int64_t (*save_state)(void *arg, void *buf, uint64_t cap);
	int (*load_state)(void *arg, const void *buf, uint64_t len);
	void (*close)(struct device *d);
	/* set by open */
	char summary[80]; /* what is served */
	uint64_t features;
	const void *config;
	uint32_t config_len;
	int32_t files[2];
	uint32_t num_files;
};

extern struct device *const blk_device, *const net_device, *const rng_device, *const console_device;

/* All of them, NULL at the end. */
struct device *device_at(unsigned n);

#endif
