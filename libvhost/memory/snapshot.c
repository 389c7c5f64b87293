/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* Immutable maps: life, lookup, difference, merging. Nothing here locks. */
#include <stdlib.h>
#include <string.h>

#include "memory/backing.h"
#include "memory/mem.h"

/* Insertion sort: user addresses mostly rise with gpa, and 512 entries are the most there are. */
static void sort_by_user(const struct lv_map *maps, uint16_t *order, uint32_t count)
{
	for (uint32_t i = 0; i < count; i++) {
		uint32_t at = i;

		for (; at && maps[order[at - 1]].user_addr > maps[i].user_addr; at--)
			order[at] = order[at - 1];
		order[at] = (uint16_t)i;
	}
}

struct lv_snapshot *lv_snapshot_new(const struct lv_map *maps, uint32_t count, uint64_t generation)
{
	struct lv_snapshot *snap = calloc(1, sizeof(*snap) + count * (sizeof(*maps) + sizeof(uint16_t)));
	uint16_t *order;

	if (!snap)
		return NULL;
	atomic_init(&snap->refs, 1);
	snap->generation = generation;
	snap->count = count;
	if (count)
		memcpy(snap->maps, maps, count * sizeof(*maps));
	for (uint32_t i = 0; i < count; i++)
		lv_backing_ref(snap->maps[i].backing);
	order = (uint16_t *)(snap->maps + count);
	sort_by_user(snap->maps, order, count);
	snap->by_user = order;
	return snap;
}

struct lv_snapshot *lv_snapshot_ref(struct lv_snapshot *snap)
{
	atomic_fetch_add(&snap->refs, 1);
	return snap;
}

void lv_snapshot_put(struct lv_snapshot *snap)
{
	if (!snap || atomic_fetch_sub(&snap->refs, 1) != 1)
		return;
	for (uint32_t i = 0; i < snap->count; i++)
		lv_backing_put(snap->maps[i].backing);
	free(snap);
}

const struct lv_map *lv_snapshot_cut(const struct lv_snapshot *snap)
{
	for (uint32_t i = 0; i < snap->count; i++)
		if (snap->maps[i].backing && lv_sigbus_is_cut(snap->maps[i].backing->guarded))
			return &snap->maps[i];
	return NULL;
}

/*
 * The last region that begins at or below gpa, or the first one: halving without a branch on the comparison, because a
 * random address makes that branch a coin toss.
 */
static uint32_t search_gpa(const struct lv_map *maps, uint32_t count, uint64_t gpa)
{
	const struct lv_map *base = maps;

	while (count > 1) {
		uint32_t half = count / 2;

		base = base[half].gpa <= gpa ? base + half : base;
		count -= half;
	}
	return (uint32_t)(base - maps);
}

static inline bool holds(uint64_t start, uint64_t size, uint64_t addr, uint64_t len)
{
	return addr - start < size && len <= size - (addr - start);
}

const struct lv_map *lv_tlb_miss(const struct lv_snapshot *snap, struct lv_tlb *tlb, uint64_t gpa)
{
	uint32_t at;

	if (!snap->count)
		return NULL;
	at = search_gpa(snap->maps, snap->count, gpa);
	if (gpa - snap->maps[at].gpa >= snap->maps[at].size)
		return NULL;
	tlb->last = at;
	return &snap->maps[at];
}

void *lv_translate(const struct lv_snapshot *snap, struct lv_tlb *tlb, uint64_t gpa, uint64_t len)
{
	const struct lv_map *m = lv_tlb_find(snap, tlb, gpa);

	return m && len <= m->size - (gpa - m->gpa) ? m->hva + (gpa - m->gpa) : NULL;
}

void *lv_translate_some(const struct lv_snapshot *snap, struct lv_tlb *tlb, uint64_t gpa, uint64_t *len)
{
	const struct lv_map *m = lv_tlb_find(snap, tlb, gpa);

	*len = m ? m->size - (gpa - m->gpa) : 0;
	return m ? m->hva + (gpa - m->gpa) : NULL;
}

const struct lv_map *lv_find_gpa(const struct lv_snapshot *snap, uint64_t gpa, uint64_t len)
{
	const struct lv_map *m = snap->maps;

	if (!snap->count)
		return NULL;
	m += search_gpa(snap->maps, snap->count, gpa);
	return holds(m->gpa, m->size, gpa, len) ? m : NULL;
}

const struct lv_map *lv_find_user(const struct lv_snapshot *snap, uint64_t addr, uint64_t len)
{
	const uint16_t *base = snap->by_user;
	const struct lv_map *m;

	if (!snap->count)
		return NULL;
	for (uint32_t count = snap->count; count > 1;) {
		uint32_t half = count / 2;

		base = snap->maps[base[half]].user_addr <= addr ? base + half : base;
		count -= half;
	}
	m = &snap->maps[*base];
	return holds(m->user_addr, m->size, addr, len) ? m : NULL;
}

static bool same_file(const struct lv_map *a, const struct lv_map *b)
{
	if (a->backing && b->backing)
		return a->backing->extent.dev == b->backing->extent.dev &&
		       a->backing->extent.ino == b->backing->extent.ino;
	return a->fd == b->fd;
}

static bool same_region(const struct lv_map *a, const struct lv_map *b)
{
	return a->gpa == b->gpa && a->size == b->size && a->mmap_offset == b->mmap_offset &&
	       a->user_addr == b->user_addr && a->flags == b->flags && (a->hva == b->hva || !a->hva || !b->hva) &&
	       same_file(a, b);
}

void lv_mem_diff(const struct lv_snapshot *old, const struct lv_snapshot *now, struct lv_mem_diff *diff)
{
	uint32_t i = 0, k = 0;

	diff->removed = diff->added = 0;
	/* Both are sorted by gpa: one pass. */
	while (i < old->count || k < now->count) {
		if (i < old->count && k < now->count && same_region(&old->maps[i], &now->maps[k])) {
			i++;
			k++;
		} else if (k == now->count || (i < old->count && old->maps[i].gpa <= now->maps[k].gpa)) {
			diff->removed_at[diff->removed++] = (uint16_t)i++;
		} else {
			diff->added_at[diff->added++] = (uint16_t)k++;
		}
	}
}

static bool continues(const struct lv_map *a, const struct lv_map *b)
{
	if (a->gpa + a->size != b->gpa || a->user_addr + a->size != b->user_addr || a->flags != b->flags)
		return false;
	if (a->fd < 0 || b->fd < 0)
		return a->fd < 0 && b->fd < 0 && a->hva && a->hva + a->size == b->hva;
	return same_file(a, b) && a->mmap_offset + a->size == b->mmap_offset;
}

uint32_t lv_maps_merge(const struct lv_map *maps, uint32_t count, struct lv_map *out, uint32_t cap)
{
	struct lv_map run = {0};
	uint32_t n = 0;

	for (uint32_t i = 0; i < count; i++) {
		const struct lv_map *m = &maps[i];

		if (i && continues(&run, m)) {
			if (run.hva && run.hva + run.size != m->hva)
				run.hva = NULL;
			run.size += m->size;
		} else {
			run = *m;
			n++;
		}
		if (n <= cap)
			out[n - 1] = run;
	}
	return n;
}

uint32_t lv_mem_merge(const struct lv_snapshot *snap, struct lv_map *out, uint32_t cap)
{
	return lv_maps_merge(snap->maps, snap->count, out, cap);
}
