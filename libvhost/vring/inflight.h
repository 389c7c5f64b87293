/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/*
 * The inflight region (vhost-user specification, "Inflight I/O tracking"): layouts, and one queue's part of it. Memory
 * that the front-end can write at any time, so every field is read once into a local and bounded by the size that was
 * agreed, never by the region's own desc_num.
 *
 * A killed process leaves exactly the stores it had executed, in program order. Therefore every store here is a
 * release: the compiler may not move an earlier one behind it.
 */
#ifndef LV_VRING_INFLIGHT_H
#define LV_VRING_INFLIGHT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define LV_INFLIGHT_VERSION 1

struct libvhost_vq;
struct lv_used_elem;

struct lv_inflight_split_desc {
	uint8_t inflight, padding[5];
	uint16_t next;	  /* link of the batch being completed */
	uint64_t counter; /* order in which requests were taken */
};
struct lv_inflight_split {
	uint64_t features;
	uint16_t version; /* 1; 0 = never used */
	uint16_t desc_num;
	uint16_t last_batch_head;
	uint16_t used_idx;
	struct lv_inflight_split_desc desc[];
};
_Static_assert(sizeof(struct lv_inflight_split) == 16 && sizeof(struct lv_inflight_split_desc) == 16, "specification");

struct lv_inflight_packed_desc {
	uint8_t inflight, padding;
	uint16_t next, last, num;
	uint64_t counter;
	uint16_t id, flags;
	uint32_t len;
	uint64_t addr;
};
struct lv_inflight_packed {
	uint64_t features;
	uint16_t version;
	uint16_t desc_num;
	uint16_t free_head, old_free_head;
	uint16_t used_idx, old_used_idx;
	uint8_t used_wrap_counter, old_used_wrap_counter;
	uint8_t padding[10];
	struct lv_inflight_packed_desc desc[];
};
_Static_assert(sizeof(struct lv_inflight_packed) == 32 && sizeof(struct lv_inflight_packed_desc) == 32,
	       "specification; 7 bytes of padding there, natural alignment makes them 10");

/* Bytes of one queue's part, a multiple of 64 as back-ends in the field lay it out, and of a whole region. */
static inline uint64_t lv_inflight_queue_bytes(uint32_t num, int packed)
{
	const uint64_t bytes =
		packed ? sizeof(struct lv_inflight_packed) + num * (uint64_t)sizeof(struct lv_inflight_packed_desc)
		       : sizeof(struct lv_inflight_split) + num * (uint64_t)sizeof(struct lv_inflight_split_desc);

	return (bytes + 63) & ~63ull;
}

/* Private copy of what a packed region's entry says about others. */
struct lv_inflight_entry {
	uint16_t next, last, num;
};

/* One queue's tracker, made by attach and freed with the queue. The region stays the back-end's. */
struct lv_inflight {
	union {
		struct lv_inflight_split *split;
		struct lv_inflight_packed *packed;
	};
	uint32_t num;	  /* entries that are used: split: the ring's size; packed: the region's */
	uint64_t counter; /* of the next request */
	/* Requests in flight when tracking began, oldest first, each to be served once more before new ones: head
	 * descriptors; packed: first entries. */
	uint16_t *again;
	uint32_t n_again, next_again;
	/* packed: the region's lists are followed in private */
	struct lv_inflight_entry *own;
	uint16_t *entry_of; /* by buffer id */
	uint16_t free_head;
	uint32_t again_copy; /* the device's copy of the first descriptor of again[next_again] */
};

/* A region's mark as it was read, and in what order it was set. */
struct lv_inflight_mark {
	uint64_t counter;
	uint16_t index;
	bool marked;
};
/* What is marked, oldest first, is to be served again. Reorders marks. */
void lv_inflight_line_up(struct lv_inflight *t, struct lv_inflight_mark *marks);

static inline bool lv_inflight_again(const struct lv_inflight *t)
{
	return t && t->next_again < t->n_again;
}

/*
 * Begins tracking in a queue's part of the region, which has room for entries descriptors and must outlive the queue.
 * The device-role queue has served nothing yet. An empty region is initialised; otherwise the last batch is finished,
 * what is still marked will be popped again, and the ring continues behind it, wherever the queue was told to. 0;
 * -EBADMSG (the region contradicts the ring or itself: nothing was written to it), -ENOMEM; the error is in the queue.
 */
int lv_inflight_attach(struct libvhost_vq *vq, void *region, uint32_t entries);
void lv_inflight_free(struct lv_inflight *t); /* NULL is allowed */

/* The request is about to be handed out. */
static inline void lv_inflight_split_take(struct lv_inflight *t, uint32_t head)
{
	struct lv_inflight_split_desc *d = &t->split->desc[head];

	__atomic_store_n(&d->counter, t->counter++, __ATOMIC_RELEASE);
	__atomic_store_n(&d->inflight, 1, __ATOMIC_RELEASE);
}

/* Split. Before used.idx: which entries the next value of it completes. */
void lv_inflight_split_batch(struct lv_inflight *t, const struct lv_used_elem *done, uint32_t n);
/* After it. */
void lv_inflight_split_commit(struct lv_inflight *t, const struct lv_used_elem *done, uint32_t n, uint16_t used_idx);

/* inflight_packed.c: the same for packed rings. */
int lv_inflight_packed_begin(struct libvhost_vq *vq, struct lv_inflight *t);
/* The request is about to be handed out: copies from first on are its descriptors. */
void lv_inflight_packed_take(struct libvhost_vq *vq, uint32_t id, uint32_t first, uint32_t descs);
/* Served once more: it has this buffer id. */
static inline void lv_inflight_packed_retake(struct lv_inflight *t, uint32_t id)
{
	t->entry_of[id] = t->again[t->next_again];
}
/* Before the first of the used descriptors is stored: where the next one goes. And after it. */
void lv_inflight_packed_batch(struct lv_inflight *t, const struct lv_used_elem *done, uint32_t n, uint16_t used);
void lv_inflight_packed_commit(struct lv_inflight *t, const struct lv_used_elem *done, uint32_t n, uint16_t used);

#endif
