/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* Inflight tracking of a packed queue: what it writes, and what it makes of a region that somebody else wrote. */
#include "ringhelp.h"

#include <pthread.h>
#include "vring/inflight.h"

#define NUM	5u /* any number is allowed */
#define ENTRIES 7u

struct track {
	struct rig r;
	uint8_t *page;
	struct lv_inflight_packed *region; /* ends where memory ends */
	int rc;
};

static void restart(struct track *t)
{
	libvhost_vq_free(t->r.dev);
	rig_device(&t->r);
	t->rc = lv_inflight_attach(t->r.dev, t->region, ENTRIES);
}

static struct track track_new(void)
{
	struct track t = {0};

	rig_memory(&t.r, NUM, LV_F_RING_PACKED);
	rig_driver(&t.r);
	t.page = guarded(PAGE);
	t.region = (void *)(t.page + PAGE - sizeof(*t.region) - ENTRIES * sizeof(t.region->desc[0]));
	restart(&t);
	CHECK_EQ(t.rc, 0);
	return t;
}

static void track_free(struct track *t)
{
	rig_free(&t->r);
	munmap(t->page - PAGE, 3 * PAGE);
}

/* Requests of so many descriptors each. */
static void add(struct track *t, uint32_t count, uint32_t descs)
{
	const struct libvhost_buf bufs[3] = {
		{.gpa = DATA, .len = 64}, {.gpa = DATA + 64, .len = 64}, {.gpa = DATA + 128, .len = 64}};

	for (uint32_t i = 0; i < count; i++)
		CHECK_EQ(libvhost_vq_add(t->r.drv, bufs, 0, descs, i), 0);
	CHECK(libvhost_vq_kick(t->r.drv) >= 0);
}

static uint32_t pop(struct track *t)
{
	struct libvhost_chain c;

	CHECK_EQ(rig_pop(&t->r, &c), 1);
	return c.head;
}

static void push(struct track *t, uint32_t id)
{
	CHECK_EQ(libvhost_vq_push(t->r.dev, id, 0), 0);
}

static uint32_t used(struct track *t)
{
	struct libvhost_used u[NUM];
	uint32_t n = NUM;

	CHECK(libvhost_vq_flush(t->r.dev) >= 0);
	CHECK_EQ(libvhost_vq_get_used(t->r.drv, u, &n), 0);
	return n;
}

TEST(vring_inflight_packed, notes_descriptors_and_gives_entries_back)
{
	struct track t = track_new();
	struct lv_inflight_packed *r = t.region;
	uint32_t a, b;

	CHECK_EQ(r->desc_num, ENTRIES);
	CHECK_EQ(r->used_wrap_counter, 1);
	CHECK_EQ(r->old_used_wrap_counter, 1);
	add(&t, 2, 2);
	a = pop(&t);
	b = pop(&t);
	CHECK_EQ(r->desc[0].inflight, 1);
	CHECK_EQ(r->desc[0].num, 2);
	CHECK_EQ(r->desc[0].last, 1);
	CHECK_EQ(r->desc[1].addr, DATA + 64);
	CHECK_EQ(r->desc[1].id, a);
	CHECK_EQ(r->desc[2].inflight, 1);
	CHECK_EQ(r->desc[2].counter, r->desc[0].counter + 1);
	CHECK_EQ(r->free_head, 4);
	CHECK_EQ(r->old_free_head, 4);
	push(&t, b);
	CHECK_EQ(used(&t), 1);
	CHECK_EQ(r->desc[2].inflight, 0);
	CHECK_EQ(r->free_head, 2);
	CHECK_EQ(r->desc[3].next, 4);
	CHECK_EQ(r->used_idx, 2);
	CHECK_EQ(r->old_used_idx, 2);
	push(&t, a);
	CHECK_EQ(used(&t), 1);
	track_free(&t);
}

/* Out of order, over the end of the ring, many times: what is taken again is what was not used, in its old order. */
TEST(vring_inflight_packed, what_was_in_flight_comes_again_in_order)
{
	struct track t = track_new();

	for (int round = 0; round < 50; round++) {
		uint32_t ids[3];

		add(&t, 2, 1);
		add(&t, 1, 3);
		for (int i = 0; i < 3; i++)
			ids[i] = pop(&t);
		push(&t, ids[round % 3]);
		CHECK_EQ(used(&t), 1);
		restart(&t);
		CHECK_EQ(t.rc, 0);
		CHECK_EQ(vq_info(t.r.dev).in_flight, 2);
		CHECK_EQ(libvhost_vq_notify_enable(t.r.dev, 1), 1);
		for (int i = 0; i < 3; i++)
			if (i != round % 3)
				CHECK_EQ(pop(&t), ids[i]);
		for (int i = 2; i >= 0; i--)
			if (i != round % 3)
				push(&t, ids[i]);
		CHECK_EQ(used(&t), 2);
	}
	track_free(&t);
}

/*
 * Killed when all but the first descriptor of a batch was written: those behind it must not count once the first place
 * is used by a smaller batch.
 */
TEST(vring_inflight_packed, used_descriptors_that_were_never_published_are_withdrawn)
{
	struct track t = track_new();
	uint32_t first, second;

	add(&t, 2, 1);
	first = pop(&t);
	second = pop(&t);
	lv_packed_store(&t.r.packed, LV_POS_WRAP | 1,
			lv_packed_meta(0, (uint16_t)second, lv_used_bits(LV_POS_WRAP | 1)));
	restart(&t);
	CHECK_EQ(t.rc, 0);
	CHECK_EQ(pop(&t), first);
	push(&t, first);
	CHECK_EQ(used(&t), 1);
	CHECK_EQ(pop(&t), second);
	push(&t, second);
	CHECK_EQ(used(&t), 1);
	track_free(&t);
}

/* Entry 0 and 1 are one request, 2 another, 3 to 6 are free; the used position is slot 1 of the first lap. */
static struct track half_done(void)
{
	struct track t = track_new();

	add(&t, 1, 1);
	push(&t, pop(&t));
	CHECK_EQ(used(&t), 1);
	add(&t, 1, 2);
	add(&t, 1, 1);
	pop(&t);
	pop(&t);
	return t;
}

struct damage {
	const char *what;
	uint32_t offset, bytes;
	uint64_t value;
};

#define FIELD(name) offsetof(struct lv_inflight_packed, name), sizeof(((struct lv_inflight_packed *)0)->name)
#define ENTRY(i, field)                                                                                                \
	offsetof(struct lv_inflight_packed, desc[i].field), sizeof(((struct lv_inflight_packed_desc *)0)->field)

TEST(vring_inflight_packed, r129_fields_out_of_range)
{
	static const struct damage damages[] = {
		{"version 2", FIELD(version), 2},
		{"features 0x8", FIELD(features), 8},
		{"used index 5", FIELD(used_idx), NUM},
		{"before at 65535", FIELD(old_used_idx), 65535},
		{"wrap counter 7", FIELD(used_wrap_counter), 7},
		{"before at 1 (7)", FIELD(old_used_wrap_counter), 7},
		{"0 free", FIELD(old_free_head), 65535},
		{"0 free", FIELD(old_free_head), ENTRIES},
		{"comes back to entry 4", ENTRY(5, next), 4},
		{"comes back to entry 3", ENTRY(3, next), 3},
		{"not at 6", ENTRY(0, last), 6},
		{"not at 65535", ENTRY(0, last), 65535},
		{"0 descriptors end", ENTRY(0, num), 0},
		{"leads to entry", ENTRY(0, num), 65535},
		{"leads to entry 7", ENTRY(0, next), ENTRIES},
		{"leads to entry 0", ENTRY(0, next), 0},
		{"leads to entry 4", ENTRY(0, next), 4}, /* a free one */
	};
	struct track t = half_done();
	uint8_t good[sizeof(*t.region) + ENTRIES * sizeof(t.region->desc[0])], bad[sizeof(good)];

	lv_test_deadline(60); /* a list that comes back to itself */
	memcpy(good, t.region, sizeof(good));
	for (unsigned i = 0; i < sizeof(damages) / sizeof(*damages); i++) {
		const struct damage *d = &damages[i];

		memcpy((uint8_t *)t.region + d->offset, &d->value, d->bytes);
		memcpy(bad, t.region, sizeof(bad));
		restart(&t);
		if (t.rc != -EBADMSG || !strstr(vq_error(t.r.dev).text, d->what))
			lv_test_fail(__FILE__, __LINE__, "damage %u (%s): %d %s", i, d->what, t.rc,
				     vq_error(t.r.dev).text);
		CHECK_MEM(t.region, bad, sizeof(bad)); /* refused before a byte was written */
		memcpy(t.region, good, sizeof(good));
	}
	t.region->desc_num = 65535; /* what was agreed counts */
	restart(&t);
	CHECK_EQ(t.rc, 0);
	push(&t, pop(&t));
	push(&t, pop(&t));
	CHECK_EQ(used(&t), 2);
	track_free(&t);
}

/* Descriptors in the region are the front-end's word, too. */
TEST(vring_inflight_packed, r129_descriptors_that_no_driver_offered)
{
	static const struct damage damages[] = {
		{"does not exist", ENTRY(1, id), NUM},
		{"address and length wrap", ENTRY(0, addr), UINT64_MAX - 3},
		{"guest memory", ENTRY(1, len), 1 << 30},
		{"ends after 1 of 2", ENTRY(0, flags), LV_DESC_WRITE},
		{"chain does not end", ENTRY(1, flags), LV_DESC_NEXT | LV_DESC_WRITE},
	};

	for (unsigned i = 0; i < sizeof(damages) / sizeof(*damages); i++) {
		struct track t = half_done();
		struct libvhost_chain c;

		memcpy((uint8_t *)t.region + damages[i].offset, &damages[i].value, damages[i].bytes);
		restart(&t);
		CHECK_EQ(t.rc, 0);
		CHECK_EQ(rig_pop(&t.r, &c), -EBADMSG);
		CHECK_HAS(vq_error(t.r.dev).text, damages[i].what);
		track_free(&t);
	}
}

static _Atomic bool done;

static void *scribble(void *arg)
{
	uint16_t *words = arg;
	uint64_t seed = 88172645463325252ull;

	while (!done) {
		seed ^= seed << 13;
		seed ^= seed >> 7;
		seed ^= seed << 17;
		__atomic_store_n(&words[(seed >> 32) % 128], seed & 3 ? (uint16_t)(seed >> 8) % 9 : (uint16_t)seed,
				 __ATOMIC_RELAXED);
	}
	return NULL;
}

TEST(vring_inflight_packed, r129_region_rewritten_while_it_is_read)
{
	struct track t = half_done();
	struct libvhost_chain c;
	pthread_t thread;

	done = false;
	CHECK_EQ(pthread_create(&thread, NULL, scribble, t.region), 0);
	for (int i = 0; i < 3000; i++) {
		__atomic_store_n(&t.region->features, 0, __ATOMIC_RELAXED);
		__atomic_store_n(&t.region->version, i % 10 ? 1 : 0, __ATOMIC_RELAXED);
		restart(&t);
		for (uint32_t n = 0; t.rc == 0 && n < NUM && rig_pop(&t.r, &c) > 0; n++)
			if (n % 2 == 0)
				push(&t, c.head);
		if (t.rc == 0)
			libvhost_vq_flush(t.r.dev);
	}
	done = true;
	pthread_join(thread, NULL);
	track_free(&t);
}
