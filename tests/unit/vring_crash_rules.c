/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/*
 * What holds at every moment of a ring with an inflight region:
 *  1 from its first moment the region knows where the ring is;
 *  2 a request has its counter and its mark before the handler sees it, and keeps the mark until it is used;
 *  3 the list of a batch is whole before the used index moves;
 *  4 what is used and still marked can be told from what is in flight.
 * The device that comes after
 *  5 takes again what is marked and not used, all of it, in the order of the counters;
 *  6 and continues behind it.
 */
#include "vring_crash.h"

#ifdef LV_STORES
static uint32_t id_of(const struct scene *x, uint32_t head)
{
	return (uint32_t)((x->ring.desc[head].addr - AT - BUFFERS) / 64);
}

static void look_at_split(const struct scene *x, struct state *s)
{
	const uint16_t start = (uint16_t)(x->plan.start + x->first);

	s->used = lv_ring_idx(&x->ring, x->ring.used);
	s->published = (uint16_t)(s->used - start);
	CHECK(s->published <= x->plan.n);
	for (uint16_t i = 0; i < s->published; i++)
		s->times[id_of(x, lv_used_get(&x->ring, (uint16_t)(start + i)).id)]++;
	for (uint32_t head = 0; head < NUM; head++) {
		if (!x->split->desc[head].inflight)
			continue;
		CHECK_EQ(x->split->desc[head].inflight, 1);
		s->marked[id_of(x, head)] = true;
		s->n_marked++;
	}
}

/* The driver's buffer ids are its own; this life's requests got theirs in the order of x->ids. */
static uint32_t id_of_buffer(const struct scene *x, uint32_t buffer)
{
	for (uint32_t i = 0; i < x->plan.n; i++)
		if (x->ids[i] == buffer)
			return x->first + i;
	lv_test_fail(__FILE__, __LINE__, "buffer id %u was not offered", buffer);
}

/* Used descriptors as a driver finds them: from where it is, each two further. */
static void look_at_packed(const struct scene *x, struct state *s)
{
	uint16_t pos = x->begun;

	while (s->published < x->plan.n) {
		const uint64_t meta = lv_packed_load(&x->pring, pos);

		if (!lv_meta_is(meta, lv_used_bits(pos)))
			break;
		s->times[id_of_buffer(x, lv_meta_id(meta))]++;
		s->published++;
		pos = lv_pos_next(pos, 2, NUM);
	}
	s->used = pos;
	for (uint32_t i = 0; i < ENTRIES; i++) {
		const struct lv_inflight_packed_desc *d = &x->region->desc[i];

		if (!d->inflight || !x->region->version)
			continue;
		CHECK_EQ(d->inflight, 1);
		s->marked[(d->addr - AT - BUFFERS) / 64] = true;
		s->n_marked++;
	}
}

struct state scene_look(const struct scene *x)
{
	struct state s = {.journal = *x->journal};

	if (x->plan.packed)
		look_at_packed(x, &s);
	else
		look_at_split(x, &s);
	return s;
}

static void check_split(const struct scene *x, const struct state *s)
{
	const struct lv_inflight_split *r = x->split;
	uint16_t behind = (uint16_t)(s->used - r->used_idx), head = r->last_batch_head;
	bool in_batch[2 * MOST] = {false};

	if (!r->version) {
		CHECK_EQ(s->n_marked, 0);
		return;
	}
	CHECK(behind <= s->published);		/* 1 */
	for (uint16_t i = 0; i < behind; i++) { /* 3 */
		const uint32_t id = lv_used_get(&x->ring, (uint16_t)(s->used - 1 - i)).id;

		CHECK_EQ(head, id);
		in_batch[id_of(x, head)] = true;
		head = r->desc[head].next;
	}
	for (uint32_t id = x->first; id < x->first + x->plan.n; id++) {
		if (s->journal.seen[id] && !s->times[id])
			CHECK(s->marked[id]); /* 2 */
		if (s->times[id] && s->marked[id])
			CHECK(in_batch[id]); /* 4 */
	}
	for (uint32_t a = 0; a < NUM; a++)
		for (uint32_t b = a + 1; b < NUM; b++)
			if (r->desc[a].inflight && r->desc[b].inflight)
				CHECK(r->desc[a].counter != r->desc[b].counter); /* 2 */
}

/* The same rules in a packed region: what counts as in flight is marked and outside the free list that holds. */
static void check_packed(const struct scene *x, const struct state *s)
{
	const struct lv_inflight_packed *r = x->region;
	const uint16_t old = (uint16_t)(r->old_used_idx | r->old_used_wrap_counter << 15);
	const uint16_t now = (uint16_t)(r->used_idx | r->used_wrap_counter << 15);
	bool free[ENTRIES] = {false}, held[2 * MOST] = {false};
	const bool published = now != old && s->used == now;

	if (!r->version)
		return;
	CHECK(s->used == old || s->used == now); /* 1, 3: or where it will be */
	for (uint16_t i = published ? r->free_head : r->old_free_head; i < ENTRIES; i = r->desc[i].next) {
		CHECK(!free[i]);
		free[i] = true;
	}
	for (uint32_t i = 0; i < ENTRIES; i++)
		if (r->desc[i].inflight && !free[i])
			held[(r->desc[i].addr - AT - BUFFERS) / 64] = true;
	for (uint32_t id = x->first; id < x->first + x->plan.n; id++) {
		if (x->journal->seen[id] && !s->times[id])
			CHECK(held[id]);	   /* 2 */
		CHECK(!s->times[id] || !held[id]); /* 4 */
	}
	for (uint32_t a = 0; a < ENTRIES; a++)
		for (uint32_t b = a + 1; b < ENTRIES; b++)
			if (r->desc[a].inflight && !free[a] && r->desc[b].inflight && !free[b])
				CHECK(r->desc[a].counter != r->desc[b].counter);
}

void scene_check_memory(const struct scene *x, const struct state *s)
{
	if (x->plan.packed)
		check_packed(x, s);
	else
		check_split(x, s);
}

/* 5, 6, and every place between the used and the available position says available, so that the driver takes nothing
 * there for used. */
static void check_packed_successor(const struct scene *x, const struct state *s)
{
	const struct lv_inflight *t = x->dev->inflight;
	uint16_t pos = s->used;

	for (uint32_t i = 0; i < t->n_again; i++) {
		const struct lv_inflight_packed_desc *d = &x->region->desc[t->again[i]];
		const uint64_t id = (d->addr - AT - BUFFERS) / 64;

		CHECK(s->marked[id] && !s->times[id]);
		if (i)
			CHECK(x->region->desc[t->again[i - 1]].counter < d->counter);
		for (int n = 0; n < 2; n++, pos = lv_pos_next(pos, 1, NUM))
			CHECK(lv_meta_is(lv_packed_load(&x->pring, pos), lv_avail_bits(pos)));
	}
	CHECK_EQ(vq_info(x->dev).base, pos | (uint32_t)s->used << 16);
	for (uint32_t id = x->first; id < x->first + x->plan.n; id++)
		CHECK(!x->journal->seen[id] || s->times[id] || t->n_again);
}

void scene_check_successor(const struct scene *x, const struct state *s)
{
	const struct lv_inflight *t = x->dev->inflight;
	const uint16_t avail = lv_ring_idx(&x->ring, x->ring.avail);
	uint32_t expect = 0;

	if (x->plan.packed) {
		check_packed_successor(x, s);
		return;
	}
	for (uint32_t id = x->first; id < x->first + x->plan.n; id++)
		expect += s->marked[id] && !s->times[id];
	CHECK_EQ(t->n_again, expect); /* 5 */
	for (uint32_t i = 0; i < t->n_again; i++) {
		CHECK(s->marked[id_of(x, t->again[i])]);
		if (i)
			CHECK(t->split->desc[t->again[i - 1]].counter < t->split->desc[t->again[i]].counter);
	}
	CHECK_EQ(vq_info(x->dev).base, (uint16_t)(s->used + expect)); /* 6 */
	CHECK((uint16_t)(avail - s->used) >= expect);
}

void scene_check_end(const struct scene *x, const struct state *at)
{
	const struct state s = scene_look(x);

	CHECK_EQ(s.published, x->plan.n);
	CHECK_EQ(s.n_marked, 0);
	if (x->plan.packed)
		CHECK_EQ(x->region->used_idx, s.used & LV_POS_SLOT);
	else
		CHECK_EQ(x->split->used_idx, s.used);
	for (uint32_t id = x->first; id < x->first + x->plan.n; id++) {
		const uint32_t again = s.journal.executed[id] - at->journal.executed[id];

		CHECK_EQ(s.times[id], 1);
		CHECK_EQ(again, !at->times[id]);
		if (again && at->journal.executed[id])
			CHECK(at->marked[id]);
	}
}
#endif
