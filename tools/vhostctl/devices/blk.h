/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* The block device, for serve and for its tests. */
#ifndef VHOSTCTL_DEVICES_BLK_H
#define VHOSTCTL_DEVICES_BLK_H

#include <errno.h>
#include <stdlib.h>

#include "blk_wire.h"
#include "devices/device.h"

#define BLK_SECTOR	512u
#define BLK_ZEROES_MAX	8192u /* sectors of one request: memory is cleared on the worker */
#define BLK_DISCARD_MAX 0x3fffffu
#define BLK_PIECES	256u
#define BLK_REQUESTS	128u /* under way per queue */

struct blk_queue;

/* A request under way. */
struct blk_request {
	struct libvhost_io io; /* first: done() gets it */
	struct libvhost_iov iov[BLK_PIECES];
	struct blk_queue *queue;
	struct blk_request *next; /* free ones */
	uint32_t head;
	uint64_t room, data;	  /* bytes the guest gave to write; read for it */
	uint8_t *status, nowhere; /* where the answer goes; for requests without a place for it */
};

struct blk_queue {
	struct blk_request *free;
	struct blk_request requests[BLK_REQUESTS];
};

struct blk {
	struct device device; /* first */
	/* where data is: in files[0] of the worker, [1] for buffers that files[0] cannot take, if there are files; else
	 * in ram; without either nothing is kept */
	uint8_t *ram;
	uint64_t size;	/* bytes, multiple of 512 */
	uint32_t align; /* of buffers for files[0] */
	bool read_only;
	char id[20]; /* what GET_ID answers, not NUL-terminated when full */
	/* how often a read or write of each sector was begun: shared, so that it outlives a kill; NULL = not counted */
	_Atomic uint32_t *journal;
	struct blk_queue *queues;
};

/* Memory for the requests of so many queues. 0 or -ENOMEM. */
static inline int blk_make_queues(struct blk *b, uint32_t n)
{
	b->queues = calloc(n, sizeof(*b->queues));
	if (!b->queues)
		return -ENOMEM;
	for (uint32_t q = 0; q < n; q++)
		for (uint32_t i = 0; i < BLK_REQUESTS; i++) {
			struct blk_request *r = &b->queues[q].requests[i];

			r->queue = &b->queues[q];
			r->next = r->queue->free;
			r->queue->free = r;
		}
	return 0;
}

int blk_serve(void *arg, uint32_t queue, struct libvhost_vq *vq);

#endif
