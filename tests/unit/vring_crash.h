/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/*
 * A driver, a device with an inflight region, and the memory between them, in which each store of the device can be its
 * last. What the handler did is kept with the memory, so that it dies with it.
 */
#ifndef LV_TESTS_VRING_CRASH_H
#define LV_TESTS_VRING_CRASH_H

#include "ringhelp.h"
#include "stores.h"
#include "vring/inflight.h"

#ifdef LV_STORES
#define NUM	8u
#define MOST	4u /* requests of one life */
#define AT	0x100000ull
#define REGION	PAGE /* offsets in the scene's memory */
#define JOURNAL (2 * PAGE)
#define BUFFERS (3 * PAGE)
#define END	(4 * PAGE)
#define COPIES	256u
#define ENTRIES 11u /* of a packed region: more than the ring has */

/* What the handler leaves behind it. */
struct journal {
	uint32_t seen[2 * MOST], executed[2 * MOST];
};

struct plan {
	uint32_t n;	      /* requests */
	uint8_t order[MOST];  /* in which they are completed */
	uint32_t batch;	      /* completions per flush */
	uint32_t depth;	      /* taken before the first is completed */
	uint16_t start;	      /* ring index */
	bool warm, event_idx; /* the ring was in use before; with event indexes */
	bool packed;
};

struct scene {
	struct plan plan;
	struct guest g;
	uint8_t *mem;
	struct libvhost_vq *drv, *dev;
	struct libvhost_vq_opts opts;
	struct lv_split_ring ring;
	struct lv_packed_ring pring;
	uint16_t begun; /* packed: where this life's requests begin */
	union {
		struct lv_inflight_split *split;
		struct lv_inflight_packed *region;
	};
	struct journal *journal;
	uint32_t first;	    /* id of the first request of this life */
	uint16_t ids[MOST]; /* packed: the buffer ids of its requests */
	struct stores stores;
};

struct taken {
	uint32_t head[2 * MOST], id[2 * MOST], count;
};

/* The driver has offered the plan's requests, and if the plan says so served as many before. */
void scene_open(struct scene *x, const struct plan *plan);
void scene_close(struct scene *x);
void scene_offer(struct scene *x);
/* A device on what is there. */
int scene_begin(struct scene *x);
/* Serves everything there is. */
void scene_live(struct scene *x);
bool scene_take(struct scene *x, struct taken *t);
/* Executes the taken request that comes first in the plan's order. */
void scene_complete(struct scene *x, struct taken *t);

/* What can be said about memory at rest; heads and ids are read from the ring itself. */
struct state {
	uint16_t used, published; /* used.idx; how many of this life's requests are used */
	uint32_t times[2 * MOST]; /* in the used ring */
	bool marked[2 * MOST];
	struct journal journal;
	uint32_t n_marked;
};

struct state scene_look(const struct scene *x);
/* Memory as a crash left it. */
void scene_check_memory(const struct scene *x, const struct state *s);
/* The device that began on it. */
void scene_check_successor(const struct scene *x, const struct state *s);
/* Everything completed once, and executed no more often than a crash at this state explains. */
void scene_check_end(const struct scene *x, const struct state *at);
#endif

#endif
