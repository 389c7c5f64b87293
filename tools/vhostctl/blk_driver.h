/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/*
 * A small virtio block driver over the library: one device, some queues, a fixed number of request slots per queue. It
 * survives its back-end: after a disconnect it lays the rings out anew, offers what was in flight again and reconnects;
 * or, with an inflight region, it just reconnects.
 */
#ifndef VHOSTCTL_BLK_DRIVER_H
#define VHOSTCTL_BLK_DRIVER_H

#include <stdbool.h>
#include <vhost/libvhost.h>

#include "blk_wire.h"

#define BLK_HEADER_BYTES 64u /* header and status byte of one request, on a cache line of their own */
#define BLK_CHAIN	 3u  /* header, data, status */

struct blk_driver_opts {
	const char *uri;
	struct libvhost_transport *transport; /* instead of uri */
	uint32_t queues, depth, block_bytes;
	uint32_t timeout_ms;   /* per control operation, and longest time without any completion */
	uint32_t reconnect_ms; /* how long a lost back-end may stay away; 0 = a disconnect is an error */
	bool poll;	       /* spin instead of sleeping */
	bool packed;	       /* packed rings, or failure */
	bool inflight; /* leave what was in flight at a death to an inflight region, instead of offering it again */
};

struct blk_slot {
	uint32_t type;
	uint32_t bytes;
	uint64_t sector;
	double started;
	bool busy;
};

struct blk_queue {
	struct libvhost_vq *vq;
	struct libvhost_queue setup;
	uint64_t requests_gpa; /* headers, status bytes, data blocks */
	uint8_t *requests;
	struct blk_slot *slots;
	uint32_t *free;
	uint32_t free_count;
	uint32_t *resumed; /* slot by first descriptor of what was in the ring of a snapshot; NULL = none was */
};

struct blk_driver {
	struct blk_driver_opts opts;
	struct libvhost_ctx *ctx;
	struct libvhost_mem *mem;
	struct libvhost_dev *dev;
	struct libvhost_dev_info info; /* as negotiated */
	struct blk_queue *queues;
	int epoll;
	uint64_t features, capacity_sectors;
	double connect_to_running_s; /* measured around init and start */
	uint64_t in_flight, reconnects, resubmitted, resumed;
	double back_at;	   /* when a restarted back-end could be reached, until its first completion; 0 = long ago */
	double stalls[64]; /* from there to the first completion, seconds, of the first 64 restarts */
	uint32_t stalls_count;
	double longest_stall;
};

/* Called for each completed request; data is its block. Returns non-zero to stop with an error it has printed. */
typedef int (*blk_done_fn)(void *arg, const struct blk_slot *slot, uint8_t *data, uint8_t status);

/* All of these: 0, or 1 after printing why. */
int blk_driver_open(struct blk_driver *d, const struct blk_driver_opts *opts);
/* Instead of open, for a snapshot: memory first, which the caller fills; then the device; then it starts and goes on
 * with what is in its rings. */
int blk_driver_prepare(struct blk_driver *d, const struct blk_driver_opts *opts);
int blk_driver_thaw(struct blk_driver *d, uint64_t features, const void *blob, size_t blob_len);
int blk_driver_resume(struct blk_driver *d);
void blk_driver_close(struct blk_driver *d);
/* All of the guest's memory. */
uint8_t *blk_driver_memory(struct blk_driver *d, uint64_t *bytes);

/* A free slot's data block on queue q, NULL when all are busy. Fill it (writes), then submit. */
uint8_t *blk_driver_slot(struct blk_driver *d, uint32_t q, uint32_t *slot);
int blk_driver_submit(struct blk_driver *d, uint32_t q, uint32_t slot, uint32_t type, uint64_t sector, uint32_t bytes);

/* Publishes what was submitted. */
int blk_driver_kick(struct blk_driver *d);
/* Reports completions that are there. */
int blk_driver_reap(struct blk_driver *d, blk_done_fn done, void *arg, uint32_t *total);
/* Kicks, waits for completions (unless some are there already), reports them. */
int blk_driver_run(struct blk_driver *d, blk_done_fn done, void *arg);

/* ---- blk_open.c to blk_driver.c ---- */

/* A new, empty ring. */
int blk_driver_open_ring(struct blk_driver *d, uint32_t q);

#endif
