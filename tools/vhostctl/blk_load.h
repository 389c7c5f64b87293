/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* Load for a block driver: whole passes of one kind of request, with a pattern that follows from a seed. */
#ifndef VHOSTCTL_BLK_LOAD_H
#define VHOSTCTL_BLK_LOAD_H

#include "blk_driver.h"
#include "histogram.h"

struct blk_phase {
	const char *name;
	uint32_t type;
	uint64_t next, end; /* byte offsets */
	uint64_t requests, bytes;
	double seconds, until;
	struct histogram latency;
};

struct blk_load {
	struct blk_driver driver;
	uint64_t seed;
	double duration_s; /* of each phase that moves data; 0 = once over the size */
	bool verify, show_progress;
	struct blk_phase *phase; /* under way */
	uint64_t verified;	 /* bytes */
};

/* Offers as many requests of the phase under way as there are free slots, one queue after the other. 0, or 1 after
 * printing why. */
int blk_load_feed(struct blk_load *load);
/* A blk_done_fn; arg is the load: checks status and data. */
int blk_load_done(void *arg, const struct blk_slot *slot, uint8_t *data, uint8_t status);
/* From phase->next to the end. 0, or 1 after printing why. */
int blk_load_run(struct blk_load *load, struct blk_phase *phase);

#endif
