/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/*
 * The packed ring in memory (virtio 1.2, 2.8) and the only code that touches it. A descriptor is two words: its
 * address, and length, id and flags, which are loaded and stored at once, so that a descriptor whose flags are seen is
 * seen whole.
 */
#ifndef LV_VRING_PACKED_H
#define LV_VRING_PACKED_H

#include "vring/ring.h"

struct lv_packed_desc {
	uint64_t addr;
	uint32_t len;
	uint16_t id, flags;
};
_Static_assert(sizeof(struct lv_packed_desc) == 16, "packed descriptor");

/* What one side wants to be notified of: the driver says it in the driver area, the device in the device area. */
struct lv_packed_event {
	uint16_t off_wrap, flags;
};
_Static_assert(sizeof(struct lv_packed_event) == 4, "event suppression structure");

enum { LV_PACKED_AVAIL = 1 << 7, LV_PACKED_USED = 1 << 15 };
enum { LV_EVENT_ENABLE = 0, LV_EVENT_DISABLE = 1, LV_EVENT_DESC = 2 };

/* Host addresses of the three areas. Packed rings exist with VERSION_1 only: they are little-endian. */
struct lv_packed_ring {
	struct lv_packed_desc *desc;
	struct lv_packed_event *driver, *device;
	uint32_t num;
};

/*
 * A place in the ring, as bases and event structures have it: bits 0..14 the slot, bit 15 the wrap counter, which turns
 * over with each lap.
 */
#define LV_POS_SLOT    0x7fffu
#define LV_POS_WRAP    0x8000u
#define LV_PACKED_BASE 0x80008000u /* of a fresh ring: both sides at slot 0 of their first lap */

/* n places further, n <= num. */
static inline uint16_t lv_pos_next(uint16_t pos, uint32_t n, uint32_t num)
{
	const uint32_t slot = (pos & LV_POS_SLOT) + n;

	return (uint16_t)(slot < num ? (pos & LV_POS_WRAP) | slot : ((pos & LV_POS_WRAP) ^ LV_POS_WRAP) | (slot - num));
}

/* Base of a ring on which nothing is in flight. */
static inline uint32_t lv_pos_base(uint16_t pos)
{
	return pos | (uint32_t)pos << 16;
}

/* How many descriptors are in flight at a base; negative: no ring of num entries can be there. */
static inline int lv_packed_distance(uint32_t base, uint32_t num)
{
	const uint32_t avail = base & LV_POS_SLOT, used = base >> 16 & LV_POS_SLOT;
	const bool lapped = (base ^ base >> 16) & LV_POS_WRAP;

	if (avail >= num || used >= num || (lapped ? avail > used : avail < used))
		return -1;
	return (int)(lapped ? num + avail - used : avail - used);
}

/* AVAIL and USED in the flags of a descriptor made available, or used, at pos. */
static inline uint16_t lv_avail_bits(uint16_t pos)
{
	return pos & LV_POS_WRAP ? LV_PACKED_AVAIL : LV_PACKED_USED;
}

static inline uint16_t lv_used_bits(uint16_t pos)
{
	return pos & LV_POS_WRAP ? LV_PACKED_AVAIL | LV_PACKED_USED : 0;
}

/* Length, id and flags in one word. */
static inline uint64_t lv_packed_meta(uint32_t len, uint16_t id, uint16_t flags)
{
	return len | (uint64_t)id << 32 | (uint64_t)flags << 48;
}

static inline uint16_t lv_meta_id(uint64_t meta)
{
	return (uint16_t)(meta >> 32);
}

static inline uint16_t lv_meta_flags(uint64_t meta)
{
	return (uint16_t)(meta >> 48);
}

static inline bool lv_meta_is(uint64_t meta, uint16_t bits)
{
	return (lv_meta_flags(meta) & (LV_PACKED_AVAIL | LV_PACKED_USED)) == bits;
}

static inline uint64_t *lv_packed_word(const struct lv_packed_ring *r, uint16_t pos, int word)
{
	return (uint64_t *)(void *)&r->desc[pos & LV_POS_SLOT] + word;
}

/* What is loaded after it was written before the flags that are seen in it. */
static inline uint64_t lv_packed_load(const struct lv_packed_ring *r, uint16_t pos)
{
	return lv_ring64(true, __atomic_load_n(lv_packed_word(r, pos, 1), __ATOMIC_ACQUIRE));
}

static inline void lv_packed_store(const struct lv_packed_ring *r, uint16_t pos, uint64_t meta)
{
	__atomic_store_n(lv_packed_word(r, pos, 1), lv_ring64(true, meta), __ATOMIC_RELAXED);
}

/* The same for the first of a burst: makes the whole burst visible. */
static inline void lv_packed_publish(const struct lv_packed_ring *r, uint16_t pos, uint64_t meta)
{
	__atomic_store_n(lv_packed_word(r, pos, 1), lv_ring64(true, meta), __ATOMIC_RELEASE);
}

static inline uint64_t lv_packed_addr(const struct lv_packed_ring *r, uint16_t pos)
{
	return lv_ring64(true, __atomic_load_n(lv_packed_word(r, pos, 0), __ATOMIC_RELAXED));
}

static inline void lv_packed_set_addr(const struct lv_packed_ring *r, uint16_t pos, uint64_t addr)
{
	__atomic_store_n(lv_packed_word(r, pos, 0), lv_ring64(true, addr), __ATOMIC_RELAXED);
}

static inline struct lv_packed_event lv_packed_event_get(const struct lv_packed_event *e)
{
	const uint32_t v = lv_ring32(true, __atomic_load_n((const uint32_t *)(const void *)e, __ATOMIC_RELAXED));

	return (struct lv_packed_event){.off_wrap = (uint16_t)v, .flags = (uint16_t)(v >> 16)};
}

static inline void lv_packed_event_set(struct lv_packed_event *e, uint16_t flags, uint16_t pos)
{
	__atomic_store_n((uint32_t *)(void *)e, lv_ring32(true, pos | (uint32_t)flags << 16), __ATOMIC_RELAXED);
}

/*
 * Whether the side that wrote e wants to hear of the last moved descriptors, which end at pos. Without EVENT_IDX
 * nobody waits for a descriptor, so whatever is not DISABLE asks for everything.
 */
static inline bool lv_packed_wanted(const struct lv_packed_ring *r, const struct lv_packed_event *e, bool event_idx,
				    uint16_t pos, uint32_t moved)
{
	const struct lv_packed_event want = lv_packed_event_get(e);
	const uint16_t now = pos & LV_POS_SLOT;
	uint16_t event = want.off_wrap & LV_POS_SLOT;

	if (want.flags != LV_EVENT_DESC || !event_idx)
		return want.flags != LV_EVENT_DISABLE;
	if ((want.off_wrap ^ pos) & LV_POS_WRAP) /* a place of the lap before */
		event = (uint16_t)(event - r->num);
	return lv_need_event(event, now, (uint16_t)(now - moved));
}

#endif
