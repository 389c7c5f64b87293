/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* One queue's inflight tracking: what it writes, and what it makes of a region that somebody else wrote. */
#include "ringhelp.h"

#include <pthread.h>
#include "vring/inflight.h"

#define NUM 8u

/* The region ends where memory ends. */
struct track {
	struct rig r;
	uint8_t *page;
	struct lv_inflight_split *split;
	int rc;
};

static struct track track_new(uint32_t num)
{
	struct track t = {0};

	rig_memory(&t.r, num, 0);
	rig_driver(&t.r);
	t.page = guarded(PAGE);
	t.split = (void *)(t.page + PAGE - sizeof(*t.split) - num * sizeof(t.split->desc[0]));
	return t;
}

/* Another back-end: nothing but ring and region is left of the old one. */
static void restart(struct track *t)
{
	libvhost_vq_free(t->r.dev);
	rig_device(&t->r);
	t->rc = lv_inflight_attach(t->r.dev, t->split, t->r.opts.num);
}

static void track_free(struct track *t)
{
	rig_free(&t->r);
	munmap(t->page - PAGE, 3 * PAGE);
}

static void add(struct track *t, uint32_t count)
{
	const struct libvhost_buf buf = {.gpa = DATA, .len = 64};

	for (uint32_t i = 0; i < count; i++)
		CHECK_EQ(libvhost_vq_add(t->r.drv, &buf, 0, 1, i), 0);
	CHECK(libvhost_vq_kick(t->r.drv) >= 0);
}

static uint32_t pop(struct track *t)
{
	struct libvhost_chain c;

	CHECK_EQ(rig_pop(&t->r, &c), 1);
	return c.head;
}

static void nothing_left(struct track *t)
{
	struct libvhost_chain c;

	CHECK_EQ(rig_pop(&t->r, &c), 0);
}

/* All are completed; the driver gets count of them. */
static void finish(struct track *t, uint32_t count)
{
	struct libvhost_used used[NUM];
	uint32_t n = NUM;
	struct libvhost_chain c;

	while (rig_pop(&t->r, &c) > 0)
		CHECK_EQ(libvhost_vq_push(t->r.dev, c.head, 0), 0);
	CHECK(libvhost_vq_flush(t->r.dev) >= 0);
	CHECK_EQ(libvhost_vq_get_used(t->r.drv, used, &n), 0);
	CHECK_EQ(n, count);
}

TEST(vring_inflight, sizes_of_the_region)
{
	CHECK_EQ(lv_inflight_queue_bytes(1, 0), 64);
	CHECK_EQ(lv_inflight_queue_bytes(3, 0), 64);
	CHECK_EQ(lv_inflight_queue_bytes(4, 0), 128);
	CHECK_EQ(lv_inflight_queue_bytes(128, 0), 16 + 128 * 16 + 48);
	CHECK_EQ(lv_inflight_queue_bytes(128, 1), 32 + 128 * 32 + 32);
	CHECK_EQ(lv_inflight_queue_bytes(32768, 1), 32 + 32768 * 32 + 32);
}

TEST(vring_inflight, notes_what_is_taken_and_forgets_what_is_used)
{
	struct track t = track_new(NUM);
	struct lv_inflight_split *s = t.split;

	restart(&t);
	CHECK_EQ(t.rc, 0);
	CHECK_EQ(s->version, 1);
	CHECK_EQ(s->desc_num, NUM);
	add(&t, 3);
	for (uint32_t i = 0; i < 3; i++)
		CHECK_EQ(pop(&t), i);
	for (uint32_t i = 0; i < NUM; i++)
		CHECK_EQ(s->desc[i].inflight, i < 3);
	CHECK_EQ(s->desc[1].counter, s->desc[0].counter + 1);
	CHECK_EQ(s->desc[2].counter, s->desc[0].counter + 2);
	CHECK_EQ(libvhost_vq_push(t.r.dev, 2, 0), 0);
	CHECK_EQ(libvhost_vq_push(t.r.dev, 0, 0), 0);
	CHECK_EQ(s->desc[2].inflight, 1); /* not before the driver can see it */
	CHECK(libvhost_vq_flush(t.r.dev) >= 0);
	CHECK_EQ(s->desc[0].inflight + s->desc[2].inflight, 0);
	CHECK_EQ(s->desc[1].inflight, 1);
	CHECK_EQ(s->last_batch_head, 0);
	CHECK_EQ(s->desc[0].next, 2);
	CHECK_EQ(s->used_idx, 2);
	track_free(&t);
}

TEST(vring_inflight, what_was_in_flight_comes_again_in_order_then_what_is_new)
{
	struct track t = track_new(NUM);

	restart(&t);
	add(&t, 6);
	for (int i = 0; i < 4; i++)
		pop(&t);
	CHECK_EQ(libvhost_vq_push(t.r.dev, 1, 0), 0);
	CHECK(libvhost_vq_flush(t.r.dev) >= 0);
	CHECK_EQ(libvhost_vq_push(t.r.dev, 2, 0), 0); /* and never flushed */
	for (int again = 0; again < 3; again++) {
		restart(&t);
		CHECK_EQ(t.rc, 0);
		CHECK_EQ(vq_info(t.r.dev).base, 4);
		CHECK_EQ(vq_info(t.r.dev).in_flight, 3);
		CHECK_EQ(libvhost_vq_notify_enable(t.r.dev, 1), 1);
		CHECK_EQ(pop(&t), 0);
		if (again == 1)
			continue; /* and killed once more: nothing changes */
		CHECK_EQ(pop(&t), 2);
		CHECK_EQ(pop(&t), 3);
	}
	CHECK_EQ(pop(&t), 4);
	CHECK_EQ(pop(&t), 5);
	CHECK_EQ(vq_info(t.r.dev).in_flight, 5);
	CHECK_EQ(vq_info(t.r.dev).base, 6);
	nothing_left(&t);
	for (uint32_t head = 0; head < 6; head++)
		if (head != 1)
			CHECK_EQ(libvhost_vq_push(t.r.dev, head, 0), 0);
	finish(&t, 6);
	CHECK_EQ(vq_info(t.r.dev).in_flight, 0);
	restart(&t);
	nothing_left(&t);
	track_free(&t);
}

/* The order is the region's, not the table's: heads come back to the driver in any order. */
TEST(vring_inflight, order_is_by_counter)
{
	struct track t = track_new(NUM);

	restart(&t);
	add(&t, 4);
	for (int i = 0; i < 4; i++)
		pop(&t);
	t.split->desc[0].counter = 90;
	t.split->desc[1].counter = UINT64_MAX;
	t.split->desc[2].counter = 7;
	t.split->desc[3].counter = 90;
	restart(&t);
	CHECK_EQ(t.rc, 0);
	CHECK_EQ(pop(&t), 2);
	CHECK_EQ(pop(&t), 0);
	CHECK_EQ(pop(&t), 3);
	CHECK_EQ(pop(&t), 1);
	track_free(&t);
}

/* A new region for a ring that has been in use for long: head 0 must not look completed. */
TEST(vring_inflight, a_fresh_region_knows_where_the_ring_is)
{
	struct track t = track_new(NUM);

	rig_device(&t.r);
	for (int i = 0; i < 13; i++) {
		add(&t, 5);
		finish(&t, 5);
	}
	libvhost_vq_free(t.r.dev);
	t.r.opts.base = 65;
	rig_device(&t.r);
	CHECK_EQ(lv_inflight_attach(t.r.dev, t.split, NUM), 0);
	CHECK_EQ(t.split->used_idx, 65);
	add(&t, 1);
	pop(&t);
	restart(&t);
	CHECK_EQ(t.rc, 0);
	CHECK_EQ(vq_info(t.r.dev).in_flight, 1);
	finish(&t, 1);
	track_free(&t);
}

/* used.idx is out, the marks are not cleared: killed in the middle of a flush. */
TEST(vring_inflight, finishes_the_last_batch)
{
	struct track t = track_new(NUM);
	struct lv_inflight_split *s = t.split;

	restart(&t);
	add(&t, 5);
	for (int i = 0; i < 5; i++)
		pop(&t);
	for (uint32_t head = 1; head < 4; head++)
		CHECK_EQ(libvhost_vq_push(t.r.dev, head, 0), 0);
	CHECK(libvhost_vq_flush(t.r.dev) >= 0);
	s->desc[1].inflight = s->desc[2].inflight = 1;
	s->used_idx = 0;
	restart(&t);
	CHECK_EQ(t.rc, 0);
	CHECK_EQ(s->used_idx, 3);
	CHECK_EQ(pop(&t), 0);
	CHECK_EQ(pop(&t), 4);
	nothing_left(&t);
	track_free(&t);
}

/* The number of entries is what was agreed; the region's own word for it is not looked at. */
TEST(vring_inflight, r125_desc_num_65535)
{
	struct track t = track_new(NUM);

	restart(&t);
	add(&t, 2);
	pop(&t);
	t.split->desc_num = 65535;
	restart(&t);
	CHECK_EQ(t.rc, 0);
	finish(&t, 2);
	track_free(&t);
}

static void refused(struct track *t, const char *why)
{
	const struct lv_inflight_split before = *t->split;

	restart(t);
	CHECK_EQ(t->rc, -EBADMSG);
	CHECK_HAS(vq_error(t->r.dev).text, why);
	CHECK_MEM(t->split, &before, sizeof(before));
}

TEST(vring_inflight, r125_regions_that_contradict_the_ring)
{
	struct track t = track_new(NUM);
	struct lv_inflight_split *s = t.split;

	restart(&t);
	add(&t, 2);
	pop(&t);
	CHECK_EQ(libvhost_vq_push(t.r.dev, 0, 0), 0);
	CHECK(libvhost_vq_flush(t.r.dev) >= 0);
	s->used_idx = 2; /* ahead of the ring */
	refused(&t, "the inflight region ends at used index 2, the ring at 1");
	s->used_idx = (uint16_t)(1 - NUM - 1);
	refused(&t, "the inflight region ends at");
	s->used_idx = 0;
	s->last_batch_head = NUM;
	refused(&t, "names head 8");
	s->last_batch_head = 0xffff;
	refused(&t, "names head 65535");
	s->last_batch_head = 0;
	s->used_idx = (uint16_t)-1;
	s->desc[0].next = NUM;
	refused(&t, "names head 8");
	s->used_idx = 1;
	s->version = 2;
	refused(&t, "version 2");
	s->version = 1;
	s->features = 1;
	refused(&t, "features 0x1");
	s->features = 0;
	restart(&t);
	CHECK_EQ(t.rc, 0);
	track_free(&t);
}

/* A batch that loops ends with its length. */
TEST(vring_inflight, r125_a_looping_batch)
{
	struct track t = track_new(NUM);

	restart(&t);
	add(&t, NUM);
	for (uint32_t i = 0; i < NUM; i++)
		CHECK_EQ(libvhost_vq_push(t.r.dev, pop(&t), 0), 0);
	CHECK(libvhost_vq_flush(t.r.dev) >= 0);
	for (uint32_t i = 0; i < NUM; i++)
		t.split->desc[i].next = 3;
	t.split->last_batch_head = 3;
	t.split->used_idx = 0;
	restart(&t);
	CHECK_EQ(t.rc, 0);
	nothing_left(&t);
	track_free(&t);
}

TEST(vring_inflight, r128_more_marked_than_the_driver_offered)
{
	struct track t = track_new(NUM);

	restart(&t);
	add(&t, 3);
	pop(&t);
	for (uint32_t i = 0; i < NUM; i++)
		t.split->desc[i].inflight = 0xff;
	refused(&t, "8 requests are marked in the inflight region, the driver awaits 3");
	for (uint32_t i = 3; i < NUM; i++)
		t.split->desc[i].inflight = 0;
	restart(&t); /* any mark counts */
	CHECK_EQ(t.rc, 0);
	finish(&t, 3);
	track_free(&t);
}

/* Entries of heads that the driver never offered lead to a chain that is checked as any other. */
TEST(vring_inflight, r128_marks_on_the_wrong_heads)
{
	struct track t = track_new(NUM);
	struct libvhost_chain c;

	restart(&t);
	add(&t, 1);
	pop(&t);
	t.split->desc[0].inflight = 0;
	t.split->desc[6].inflight = 1;
	desc(&t.r, 6, UINT64_MAX - 3, 64, LV_DESC_NEXT, 9);
	restart(&t);
	CHECK_EQ(t.rc, 0);
	CHECK_EQ(rig_pop(&t.r, &c), -EBADMSG);
	track_free(&t);
}

/* The driver cannot offer what is still to be served again. */
TEST(vring_inflight, a_head_offered_while_it_waits_to_be_served_again)
{
	struct track t = track_new(NUM);
	struct libvhost_chain c;

	restart(&t);
	add(&t, 1);
	pop(&t);
	offer(&t.r, 0);
	restart(&t);
	CHECK_EQ(pop(&t), 0);
	CHECK_EQ(rig_pop(&t.r, &c), -EBADMSG);
	track_free(&t);
}

static _Atomic bool done;

static void *scribble(void *arg)
{
	uint64_t *words = arg, seed = 88172645463325252ull;

	while (!done) {
		seed ^= seed << 13;
		seed ^= seed >> 7;
		seed ^= seed << 17;
		__atomic_store_n(&words[seed >> 32 & 15], seed & 1 ? 1 : seed, __ATOMIC_RELAXED);
	}
	return NULL;
}

/* Everything is read once: whatever is written meanwhile, the queue stays within its memory. */
TEST(vring_inflight, r125_region_rewritten_while_it_is_read)
{
	struct track t = track_new(NUM);
	struct libvhost_chain c;
	pthread_t thread;

	restart(&t);
	add(&t, NUM);
	done = false;
	CHECK_EQ(pthread_create(&thread, NULL, scribble, t.split), 0);
	for (int i = 0; i < 3000; i++) {
		restart(&t);
		for (uint32_t n = 0; t.rc == 0 && n < NUM && rig_pop(&t.r, &c) > 0; n++)
			;
	}
	done = true;
	pthread_join(thread, NULL);
	track_free(&t);
}

TEST(vring_inflight, draining_takes_nothing_new)
{
	struct track t = track_new(NUM);

	restart(&t);
	add(&t, 2);
	pop(&t);
	restart(&t);
	t.r.dev->draining = true;
	CHECK_EQ(libvhost_vq_notify_enable(t.r.dev, 1), 1); /* what was in flight */
	CHECK_EQ(pop(&t), 0);
	CHECK_EQ(libvhost_vq_notify_enable(t.r.dev, 1), 0); /* else a worker would spin until the stop */
	nothing_left(&t);
	CHECK_EQ(vq_info(t.r.dev).base, 1);
	track_free(&t);
}
