/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/*
 * Tracking of a packed ring's requests. The region holds their descriptors, because a used descriptor may be written
 * over those of another request; its entries form a list of free ones and one list for each request. Links are followed
 * in private only.
 *
 * The specification updates old_free_head, old_used_idx and old_used_wrap_counter one by one and compares indexes to
 * learn whether a batch was being completed. A batch of a whole lap leaves the index as it was, and a death between the
 * last two leaves an index of one lap with the counter of another. Here the four fields of the used position, which lie
 * in one word, are stored at once, and positions are compared with their counters. What other back-ends leave is
 * understood all the same.
 */
#include "vring/inflight.h"

#include <errno.h>
#include <stdlib.h>

#include "vring/vring.h"

/* How the region lies in memory: words that change at once. */
union used_word {
	struct {
		uint16_t idx, old_idx;
		uint8_t wrap, old_wrap, zero[2];
	};
	uint64_t word;
};
_Static_assert(offsetof(struct lv_inflight_packed, used_idx) == 16 &&
		       offsetof(struct lv_inflight_packed, old_used_wrap_counter) == 21,
	       "used_word");

union head_word {
	struct {
		uint16_t head, old_head;
	};
	uint32_t word;
};
_Static_assert(offsetof(struct lv_inflight_packed, free_head) == 12, "head_word");

static uint16_t position(uint16_t idx, uint8_t wrap)
{
	return (uint16_t)(idx | (wrap ? LV_POS_WRAP : 0));
}

static void store_used(struct lv_inflight *t, uint16_t used, uint16_t old)
{
	const union used_word u = {.idx = used & LV_POS_SLOT,
				   .old_idx = old & LV_POS_SLOT,
				   .wrap = (uint8_t)(used >> 15),
				   .old_wrap = (uint8_t)(old >> 15)};

	__atomic_store_n((uint64_t *)(void *)&t->packed->used_idx, u.word, __ATOMIC_RELEASE);
}

static union used_word load_used(const struct lv_inflight *t)
{
	return (union used_word){
		.word = __atomic_load_n((const uint64_t *)(const void *)&t->packed->used_idx, __ATOMIC_ACQUIRE)};
}

/* Both: nothing is under way. */
static void store_free_head(struct lv_inflight *t)
{
	const union head_word h = {.head = t->free_head, .old_head = t->free_head};

	__atomic_store_n((uint32_t *)(void *)&t->packed->free_head, h.word, __ATOMIC_RELEASE);
}

/* Until old_free_head moves, a successor takes these entries for free. */
void lv_inflight_packed_take(struct libvhost_vq *vq, uint32_t id, uint32_t first, uint32_t descs)
{
	const struct lv_packed_device *dev = &vq->pdev;
	struct lv_inflight *t = vq->inflight;
	const uint16_t head = t->free_head;
	struct lv_inflight_packed_desc *e = &t->packed->desc[head], *d;
	uint16_t at = head, last = head;

	for (uint32_t i = 0, copy = first; i < descs; i++, copy = dev->link[copy]) {
		const uint64_t meta = dev->copies[copy].meta;

		d = &t->packed->desc[at];
		__atomic_store_n(&d->addr, dev->copies[copy].addr, __ATOMIC_RELEASE);
		__atomic_store_n(&d->len, lv_meta_len(meta), __ATOMIC_RELEASE);
		__atomic_store_n(&d->flags, lv_meta_flags(meta), __ATOMIC_RELEASE);
		__atomic_store_n(&d->id, lv_meta_id(meta), __ATOMIC_RELEASE);
		last = at;
		at = t->own[at].next;
	}
	t->own[head].last = last;
	t->own[head].num = (uint16_t)descs;
	t->entry_of[id] = head;
	t->free_head = at;
	__atomic_store_n(&e->last, last, __ATOMIC_RELEASE);
	__atomic_store_n(&e->num, (uint16_t)descs, __ATOMIC_RELEASE);
	__atomic_store_n(&e->counter, t->counter++, __ATOMIC_RELEASE);
	__atomic_store_n(&e->inflight, 1, __ATOMIC_RELEASE);
	store_free_head(t);
}

/* The position is that of the last commit until this. */
void lv_inflight_packed_batch(struct lv_inflight *t, const struct lv_used_elem *done, uint32_t n, uint16_t used)
{
	const union used_word now = load_used(t);

	for (uint32_t i = 0; i < n; i++) {
		const uint16_t head = t->entry_of[done[i].id], last = t->own[head].last;

		t->own[last].next = t->free_head;
		__atomic_store_n(&t->packed->desc[last].next, t->free_head, __ATOMIC_RELEASE);
		t->free_head = head;
	}
	__atomic_store_n(&t->packed->free_head, t->free_head, __ATOMIC_RELEASE);
	store_used(t, used, position(now.old_idx & LV_POS_SLOT, now.old_wrap));
}

void lv_inflight_packed_commit(struct lv_inflight *t, const struct lv_used_elem *done, uint32_t n, uint16_t used)
{
	for (uint32_t i = 0; i < n; i++)
		__atomic_store_n(&t->packed->desc[t->entry_of[done[i].id]].inflight, 0, __ATOMIC_RELEASE);
	__atomic_store_n(&t->packed->old_free_head, t->free_head, __ATOMIC_RELEASE);
	store_used(t, used, used);
}

/* The ring's position is what the front-end said. The version comes last. */
static void init(struct libvhost_vq *vq, struct lv_inflight *t)
{
	struct lv_inflight_packed *r = t->packed;

	for (uint32_t i = 0; i < t->num; i++) {
		t->own[i].next = (uint16_t)(i + 1);
		__atomic_store_n(&r->desc[i].next, (uint16_t)(i + 1), __ATOMIC_RELEASE);
		__atomic_store_n(&r->desc[i].inflight, 0, __ATOMIC_RELEASE);
	}
	t->free_head = 0;
	__atomic_store_n(&r->features, 0, __ATOMIC_RELEASE);
	__atomic_store_n(&r->desc_num, (uint16_t)t->num, __ATOMIC_RELEASE);
	store_free_head(t);
	store_used(t, vq->pdev.used, vq->pdev.used);
	__atomic_store_n(&r->version, LV_INFLIGHT_VERSION, __ATOMIC_RELEASE);
}

/* What recovery works on: the region as it was read, and what each entry turned out to belong to. */
struct recovery {
	struct libvhost_vq *vq;
	struct lv_inflight *t;
	struct lv_inflight_mark *marks;
	bool *known; /* free, or part of a request */
	uint16_t used;
	uint32_t n_free, n_used; /* entries */
};

static void read_entries(const struct recovery *r)
{
	for (uint32_t i = 0; i < r->t->num; i++) {
		const struct lv_inflight_packed_desc *d = &r->t->packed->desc[i];

		r->t->own[i] = (struct lv_inflight_entry){.next = __atomic_load_n(&d->next, __ATOMIC_RELAXED),
							  .last = __atomic_load_n(&d->last, __ATOMIC_RELAXED),
							  .num = __atomic_load_n(&d->num, __ATOMIC_RELAXED)};
		r->marks[i] = (struct lv_inflight_mark){.counter = __atomic_load_n(&d->counter, __ATOMIC_RELAXED),
							.index = (uint16_t)i,
							.marked = __atomic_load_n(&d->inflight, __ATOMIC_RELAXED)};
	}
}

/* Decides whether the last batch was published, that is whether its first descriptor is no longer as the driver made
 * it available. Finds the position and the free list that hold. */
static int settle(struct recovery *r)
{
	const union head_word h = {
		.word = __atomic_load_n((uint32_t *)(void *)&r->t->packed->free_head, __ATOMIC_RELAXED)};
	const union used_word u = load_used(r->t);
	const uint32_t num = r->vq->opts.num;
	const uint16_t now = position(u.idx, u.wrap), old = position(u.old_idx, u.old_wrap);
	bool published = false;

	if (u.idx >= num || u.old_idx >= num || u.wrap > 1 || u.old_wrap > 1)
		return lv_vq_break(r->vq,
				   "the inflight region is at used index %u (wrap counter %u), before at %u (%u)",
				   u.idx, u.wrap, u.old_idx, u.old_wrap);
	if (now != old)
		published = !lv_meta_is(lv_packed_load(&r->vq->packed, old), lv_avail_bits(old));
	r->used = published ? now : old;
	r->t->free_head = published ? h.head : h.old_head;
	return 0;
}

/* The list ends with an index that does not exist. */
static int walk_free(struct recovery *r)
{
	for (uint32_t i = r->t->free_head; i < r->t->num; i = r->t->own[i].next) {
		if (r->known[i])
			return lv_vq_break(r->vq, "the inflight region's free list comes back to entry %u", i);
		r->known[i] = true;
		r->marks[i].marked = false;
		r->n_free++;
	}
	return 0;
}

/* The entries of one request. */
static int walk_request(struct recovery *r, uint32_t head)
{
	const struct lv_inflight_entry *own = r->t->own;
	uint32_t i = head;

	for (uint32_t n = 1;; n++, i = own[i].next) {
		if (i >= r->t->num || r->known[i])
			return lv_vq_break(r->vq, "entry %u of the inflight region: link %u leads to entry %u", head, n,
					   i);
		r->known[i] = true;
		r->n_used++;
		if (n >= own[head].num)
			break;
	}
	if (i != own[head].last || !own[head].num)
		return lv_vq_break(r->vq, "entry %u of the inflight region: %u descriptors end at %u, not at %u", head,
				   own[head].num, i, own[head].last);
	return 0;
}

static int check(struct recovery *r)
{
	const uint32_t num = r->vq->opts.num;
	int rc = settle(r);

	if (rc == 0)
		rc = walk_free(r);
	for (uint32_t i = 0; i < r->t->num && rc == 0; i++)
		if (r->marks[i].marked)
			rc = walk_request(r, i);
	if (rc < 0)
		return rc;
	if (r->n_used > num || r->n_free < num - r->n_used)
		return lv_vq_break(r->vq, "%u entries of the inflight region are in use and %u free, the ring has %u",
				   r->n_used, r->n_free, num);
	return 0;
}

/* Descriptors of requests to be served again lie ready as copies 0, 1 …; the others are free. */
static void load_copies(struct recovery *r)
{
	struct lv_packed_device *d = &r->vq->pdev;
	const uint32_t num = r->vq->opts.num;
	uint32_t copy = 0;

	for (uint32_t i = 0; i < r->t->n_again; i++) {
		uint16_t at = r->t->again[i];

		for (uint32_t n = r->t->own[at].num; n; n--, at = r->t->own[at].next) {
			const struct lv_inflight_packed_desc *e = &r->t->packed->desc[at];

			d->copies[copy++] =
				(struct lv_copy){.addr = __atomic_load_n(&e->addr, __ATOMIC_RELAXED),
						 .meta = lv_packed_meta(__atomic_load_n(&e->len, __ATOMIC_RELAXED),
									__atomic_load_n(&e->id, __ATOMIC_RELAXED),
									__atomic_load_n(&e->flags, __ATOMIC_RELAXED))};
		}
	}
	for (uint32_t i = 0; i < num; i++)
		d->link[i] = (uint16_t)(i + 1);
	d->free_head = d->stage_at = copy;
	d->free_count = num - copy;
	d->free_tail = num - 1;
	d->staged = 0;
	d->used = r->used;
	d->avail = d->ahead = lv_pos_next(r->used, copy, num);
	r->vq->in_flight = r->t->n_again;
}

/*
 * A batch that was not published may have left used descriptors behind its first place. They would be taken for
 * completions as soon as what is before them is published, so they become available again: with their flags only, since
 * the requests they belonged to are in the region.
 */
static void withdraw(struct recovery *r)
{
	uint16_t pos = r->used;

	for (uint32_t n = 0; n < r->n_used; n++, pos = lv_pos_next(pos, 1, r->vq->opts.num)) {
		const uint64_t meta = lv_packed_load(&r->vq->packed, pos);
		const uint16_t flags = lv_meta_flags(meta) & (uint16_t) ~(LV_PACKED_AVAIL | LV_PACKED_USED);

		if (!lv_meta_is(meta, lv_avail_bits(pos)))
			lv_packed_store(
				&r->vq->packed, pos,
				lv_packed_meta(lv_meta_len(meta), lv_meta_id(meta), flags | lv_avail_bits(pos)));
	}
}

/* Nothing was under way: marks of free entries go first, then the heads and positions that hold. */
static void put_in_order(struct recovery *r)
{
	for (uint32_t i = r->t->free_head; i < r->t->num; i = r->t->own[i].next)
		if (__atomic_load_n(&r->t->packed->desc[i].inflight, __ATOMIC_RELAXED))
			__atomic_store_n(&r->t->packed->desc[i].inflight, 0, __ATOMIC_RELEASE);
	store_free_head(r->t);
	store_used(r->t, r->used, r->used);
}

static int recover(struct recovery *r)
{
	int rc;

	read_entries(r);
	rc = check(r);
	if (rc < 0)
		return rc;
	withdraw(r);
	put_in_order(r);
	lv_inflight_line_up(r->t, r->marks);
	load_copies(r);
	return 0;
}

int lv_inflight_packed_begin(struct libvhost_vq *vq, struct lv_inflight *t)
{
	const uint16_t version = __atomic_load_n(&t->packed->version, __ATOMIC_ACQUIRE);
	const uint64_t features = __atomic_load_n(&t->packed->features, __ATOMIC_RELAXED);
	struct recovery r = {.vq = vq, .t = t};
	int rc = -ENOMEM;

	if (!version) {
		init(vq, t);
		return 0;
	}
	if (version != LV_INFLIGHT_VERSION || features)
		return lv_vq_break(vq, "inflight region of version %u, features %#llx; known are version 1, none",
				   version, (unsigned long long)features);
	r.marks = calloc(t->num, sizeof(*r.marks));
	r.known = calloc(t->num, sizeof(*r.known));
	if (r.marks && r.known)
		rc = recover(&r);
	free(r.marks);
	free(r.known);
	return rc;
}
