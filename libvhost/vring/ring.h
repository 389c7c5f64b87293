/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/*
 * The split ring in memory (virtio 1.2, 2.7; the packed one: packed.h) and the only code that touches it. Both sides
 * write while we read, so every access is one sized atomic load or store: a field is read once into a local, checked
 * there and used from there.
 */
#ifndef LV_VRING_RING_H
#define LV_VRING_RING_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/fence.h"

#define LV_F_INDIRECT_DESC (1ull << 28)
#define LV_F_EVENT_IDX	   (1ull << 29)
#define LV_F_VERSION_1	   (1ull << 32)
#define LV_F_RING_PACKED   (1ull << 34)
#define LV_F_USED_IN_ORDER (1ull << 35)

#define LV_RING_MAX 32768u

enum { LV_DESC_NEXT = 1, LV_DESC_WRITE = 2, LV_DESC_INDIRECT = 4 };
enum { LV_AVAIL_NO_INTERRUPT = 1, LV_USED_NO_NOTIFY = 1 };

struct lv_desc {
	uint64_t addr;
	uint32_t len;
	uint16_t flags, next;
};
_Static_assert(sizeof(struct lv_desc) == 16, "split descriptor");

struct lv_used_elem {
	uint32_t id, len;
};
_Static_assert(sizeof(struct lv_used_elem) == 8, "used element");

/* Start of both rings; the entries and the event index of the other side follow. */
struct lv_ring_hdr {
	uint16_t flags, idx;
};
_Static_assert(sizeof(struct lv_ring_hdr) == 4, "ring header");

/* Host addresses of the three areas. swap: the ring is little-endian (VERSION_1) and this host is not. */
struct lv_split_ring {
	struct lv_desc *desc;
	struct lv_ring_hdr *avail, *used;
	uint32_t num;
	bool swap;
};

#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
#define LV_HOST_BIG 0
#else
#define LV_HOST_BIG 1
#endif

static inline uint16_t lv_ring16(bool swap, uint16_t v)
{
	return LV_HOST_BIG && swap ? __builtin_bswap16(v) : v;
}

static inline uint32_t lv_ring32(bool swap, uint32_t v)
{
	return LV_HOST_BIG && swap ? __builtin_bswap32(v) : v;
}

static inline uint64_t lv_ring64(bool swap, uint64_t v)
{
	return LV_HOST_BIG && swap ? __builtin_bswap64(v) : v;
}

/* Orders our store of an index before our load of the other side's wish to be notified, and the reverse: the one place
 * where acquire and release do not suffice. */
static inline void lv_ring_fence(void)
{
	lv_fence();
}

/* virtio 1.2, 2.7.7.1: does moving an index from old to now pass the event index? */
static inline bool lv_need_event(uint16_t event, uint16_t now, uint16_t old)
{
	return (uint16_t)(now - event - 1) < (uint16_t)(now - old);
}

static inline uint16_t lv_ring_idx(const struct lv_split_ring *r, const struct lv_ring_hdr *hdr)
{
	return lv_ring16(r->swap, __atomic_load_n(&hdr->idx, __ATOMIC_ACQUIRE));
}

static inline void lv_ring_set_idx(const struct lv_split_ring *r, struct lv_ring_hdr *hdr, uint16_t idx)
{
	__atomic_store_n(&hdr->idx, lv_ring16(r->swap, idx), __ATOMIC_RELEASE);
}

static inline uint16_t lv_ring_flags(const struct lv_split_ring *r, const struct lv_ring_hdr *hdr)
{
	return lv_ring16(r->swap, __atomic_load_n(&hdr->flags, __ATOMIC_RELAXED));
}

static inline void lv_ring_set_flags(const struct lv_split_ring *r, struct lv_ring_hdr *hdr, uint16_t flags)
{
	__atomic_store_n(&hdr->flags, lv_ring16(r->swap, flags), __ATOMIC_RELAXED);
}

static inline uint16_t *lv_avail_slot(const struct lv_split_ring *r, uint16_t idx)
{
	return (uint16_t *)(void *)(r->avail + 1) + (idx & (r->num - 1));
}

static inline struct lv_used_elem *lv_used_slot(const struct lv_split_ring *r, uint16_t idx)
{
	return (struct lv_used_elem *)(void *)(r->used + 1) + (idx & (r->num - 1));
}

static inline uint16_t lv_avail_get(const struct lv_split_ring *r, uint16_t idx)
{
	return lv_ring16(r->swap, __atomic_load_n(lv_avail_slot(r, idx), __ATOMIC_RELAXED));
}

/* A slot that already holds the value is not written again: its cache line stays shared with the device. */
static inline void lv_avail_put(const struct lv_split_ring *r, uint16_t idx, uint16_t head)
{
	uint16_t *slot = lv_avail_slot(r, idx), v = lv_ring16(r->swap, head);

	if (__atomic_load_n(slot, __ATOMIC_RELAXED) != v)
		__atomic_store_n(slot, v, __ATOMIC_RELAXED);
}

static inline struct lv_used_elem lv_used_get(const struct lv_split_ring *r, uint16_t idx)
{
	const struct lv_used_elem *slot = lv_used_slot(r, idx);

	return (struct lv_used_elem){.id = lv_ring32(r->swap, __atomic_load_n(&slot->id, __ATOMIC_RELAXED)),
				     .len = lv_ring32(r->swap, __atomic_load_n(&slot->len, __ATOMIC_RELAXED))};
}

static inline void lv_used_put(const struct lv_split_ring *r, uint16_t idx, struct lv_used_elem e)
{
	struct lv_used_elem *slot = lv_used_slot(r, idx);

	__atomic_store_n(&slot->id, lv_ring32(r->swap, e.id), __ATOMIC_RELAXED);
	__atomic_store_n(&slot->len, lv_ring32(r->swap, e.len), __ATOMIC_RELAXED);
}

/* Event indexes, only with EVENT_IDX: used_event lies behind the avail ring, avail_event behind the used ring. */
static inline uint16_t *lv_used_event(const struct lv_split_ring *r)
{
	return (uint16_t *)(void *)(r->avail + 1) + r->num;
}

static inline uint16_t *lv_avail_event(const struct lv_split_ring *r)
{
	return (uint16_t *)(void *)((struct lv_used_elem *)(void *)(r->used + 1) + r->num);
}

static inline uint16_t lv_event_get(const struct lv_split_ring *r, const uint16_t *event)
{
	return lv_ring16(r->swap, __atomic_load_n(event, __ATOMIC_RELAXED));
}

static inline void lv_event_set(const struct lv_split_ring *r, uint16_t *event, uint16_t idx)
{
	__atomic_store_n(event, lv_ring16(r->swap, idx), __ATOMIC_RELAXED);
}

/*
 * A descriptor of either ring format as it was read, once: its address, and length, flags and next (packed: length, id
 * and flags, see packed.h) from the low end of one word. Two registers; a struct lv_desc is put together piece by
 * piece.
 */
struct lv_copy {
	uint64_t addr, meta;
};

static inline uint32_t lv_meta_len(uint64_t meta)
{
	return (uint32_t)meta;
}

static inline uint64_t lv_split_meta(uint32_t len, uint16_t flags, uint16_t next)
{
	return len | (uint64_t)flags << 32 | (uint64_t)next << 48;
}

static inline uint16_t lv_split_flags(uint64_t meta)
{
	return (uint16_t)(meta >> 32);
}

static inline uint16_t lv_split_next(uint64_t meta)
{
	return (uint16_t)(meta >> 48);
}

/* Descriptors move as two words: two loads, and no field is read twice. d must be 8-aligned. */
static inline struct lv_copy lv_desc_load(bool swap, const struct lv_desc *d)
{
	const uint64_t *from = (const void *)d;
	const uint64_t addr = __atomic_load_n(&from[0], __ATOMIC_RELAXED);
	const uint64_t word = __atomic_load_n(&from[1], __ATOMIC_RELAXED);

	if (LV_HOST_BIG && !swap) /* the first field is at the high end */
		return (struct lv_copy){addr,
					lv_split_meta((uint32_t)(word >> 32), (uint16_t)(word >> 16), (uint16_t)word)};
	return (struct lv_copy){lv_ring64(swap, addr), lv_ring64(swap, word)};
}

static inline struct lv_desc lv_desc_get(bool swap, const struct lv_desc *d)
{
	const struct lv_copy c = lv_desc_load(swap, d);

	return (struct lv_desc){.addr = c.addr,
				.len = lv_meta_len(c.meta),
				.flags = lv_split_flags(c.meta),
				.next = lv_split_next(c.meta)};
}

static inline void lv_desc_put(bool swap, struct lv_desc *d, struct lv_desc value)
{
	uint64_t *to = (void *)d, word = lv_ring64(swap, lv_split_meta(value.len, value.flags, value.next));

	if (LV_HOST_BIG && !swap)
		word = (uint64_t)value.len << 32 | (uint64_t)value.flags << 16 | value.next;
	__atomic_store_n(&to[0], lv_ring64(swap, value.addr), __ATOMIC_RELAXED);
	__atomic_store_n(&to[1], word, __ATOMIC_RELAXED);
}

#endif
