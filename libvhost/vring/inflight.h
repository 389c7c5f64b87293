/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/*
 * The inflight region (vhost-user specification, "Inflight I/O tracking"): layouts, and one queue's part of it. Memory
 * that the front-end can write at any time, so every field is read once into a local and bounded by the size that was
 * agreed, never by the region's own desc_num.
 */
#ifndef LV_VRING_INFLIGHT_H
#define LV_VRING_INFLIGHT_H

#include <stddef.h>
#include <stdint.h>

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

#endif
