/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/*
 * A small virtio network driver over the library: one device, some queue pairs, as many buffers per queue as the ring
 * has entries. It survives its back-end: after a disconnect it lays the rings out anew and says so to its user, who
 * sends again what did not come back.
 */
#ifndef VHOSTCTL_NET_DRIVER_H
#define VHOSTCTL_NET_DRIVER_H

#include <stdbool.h>
#include <vhost/libvhost.h>

#include "net_wire.h"

struct net_driver_opts {
	const char *uri;
	uint32_t pairs, depth; /* depth: entries of each ring, a power of two */
	uint32_t timeout_ms;   /* per control operation, and longest time without any frame */
	uint32_t reconnect_ms; /* how long a lost back-end may stay away; 0 = a disconnect is an error */
	bool packed;
	bool poll; /* spin instead of sleeping */
	/* A frame arrived. Returns non-zero to stop with an error it has printed. */
	int (*on_frame)(void *arg, uint32_t pair, const uint8_t *frame, uint32_t bytes);
	/* All rings are new: nothing sent before arrives any more. */
	int (*on_restart)(void *arg);
	void *arg;
};

/* One ring and its buffers; queue 2n receives, 2n + 1 sends. */
struct net_queue {
	struct libvhost_vq *vq;
	struct libvhost_queue setup;
	uint64_t buffers_gpa;
	uint8_t *buffers;
	bool *busy; /* the device has the buffer */
};

struct net_driver {
	struct net_driver_opts opts;
	struct libvhost_ctx *ctx;
	struct libvhost_mem *mem;
	struct libvhost_dev *dev;
	struct net_queue *queues;
	int epoll;
	uint64_t features;
	double connect_to_running_s, slowest_reconnect_s;
	uint64_t reconnects;
};

/* 0, or 1 after printing why. */
int net_driver_open(struct net_driver *d, const struct net_driver_opts *opts);
void net_driver_close(struct net_driver *d);

/* Where the frame of a sending slot (0..depth-1) goes, FRAME_MAX bytes; NULL while the device has it. */
uint8_t *net_driver_slot(struct net_driver *d, uint32_t pair, uint32_t slot);
int net_driver_send(struct net_driver *d, uint32_t pair, uint32_t slot, uint32_t bytes);

/* Kicks, waits until something happens, hands received frames over. 0, or 1 after printing why. */
int net_driver_run(struct net_driver *d);

/* Stops the device, closes the connection and begins again on a new one, as after a back-end's death. */
int net_driver_reopen(struct net_driver *d);

#endif
