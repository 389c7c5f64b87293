/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/*
 * A device that dies after each of its stores to ring and inflight region, and its successor on what it left: every
 * request completes in the ring exactly once, what was published is not executed again, and what is executed again was
 * marked. Before the successor comes, the memory itself is held against the rules of the region's format.
 */
#include "vring_crash.h"

#ifdef LV_STORES
static uint32_t die_everywhere(struct scene *x, uint32_t deaths);

/* The memory holds what a crash left. */
static uint32_t succeed(struct scene *x, uint32_t deaths)
{
	const struct state s = scene_look(x);
	uint32_t runs = 1;

	scene_check_memory(x, &s);
	if (deaths) {
		struct scene again = *x;

		again.dev = NULL;
		stores_init(&again.stores, x->mem, JOURNAL, BUFFERS, COPIES);
		runs += die_everywhere(&again, deaths - 1);
		libvhost_vq_free(again.dev);
		stores_restore(&again.stores, 0);
		stores_free(&again.stores);
	}
	CHECK_EQ(scene_begin(x), 0);
	scene_check_successor(x, &s);
	scene_live(x);
	scene_check_end(x, &s);
	return runs;
}

/* One life, and from each moment of it another. Returns how many successors there were. */
static uint32_t die_everywhere(struct scene *x, uint32_t deaths)
{
	uint32_t runs = 0;

	stores_begin(&x->stores);
	CHECK_EQ(scene_begin(x), 0);
	scene_live(x);
	stores_end(&x->stores);
	for (uint32_t i = 0; i < x->stores.count; i++) {
		stores_restore(&x->stores, i);
		runs += succeed(x, deaths);
	}
	return runs;
}

static uint32_t run(const struct plan *plan, uint32_t deaths)
{
	struct scene x;
	uint32_t runs;

	scene_open(&x, plan);
	runs = die_everywhere(&x, deaths);
	scene_close(&x);
	return runs;
}

/* The next order, or false after the last. */
static bool next_order(uint8_t *order, uint32_t n)
{
	uint32_t i = n - 1, j = n - 1;
	uint8_t swap;

	while (i && order[i - 1] >= order[i])
		i--;
	if (!i)
		return false;
	while (order[j] <= order[i - 1])
		j--;
	swap = order[i - 1];
	order[i - 1] = order[j];
	order[j] = swap;
	for (j = n - 1; i < j; i++, j--) {
		swap = order[i];
		order[i] = order[j];
		order[j] = swap;
	}
	return true;
}

/* All orders and batches of n requests. */
static uint32_t all_orders(struct plan plan, uint32_t deaths)
{
	uint32_t runs = 0;

	for (plan.batch = 1; plan.batch <= plan.n; plan.batch++) {
		for (uint8_t i = 0; i < plan.n; i++)
			plan.order[i] = i;
		do
			runs += run(&plan, deaths);
		while (plan.n > 1 && next_order(plan.order, plan.n));
	}
	return runs;
}

TEST(vring_crash, r132_a_split_ring_at_every_store)
{
	static const struct plan kinds[] = {
		{.start = 0, .depth = MOST},
		{.start = 3, .depth = MOST}, /* a fresh region for a ring in use */
		{.start = 65534, .depth = MOST, .warm = true},
		{.start = 65533, .depth = 2, .warm = true, .event_idx = true},
	};
	uint32_t runs = 0;

	for (unsigned k = 0; k < sizeof(kinds) / sizeof(*kinds); k++) {
		struct plan plan = kinds[k];

		for (plan.n = 1; plan.n <= MOST; plan.n++)
			runs += all_orders(plan, 0);
	}
	printf("# split ring: %u crash points\n", runs);
	CHECK(runs > 10000);
}

/*
 * The driver's stores: a device that comes at any of them finds the requests that are published, whole, besides the one
 * that its predecessor had in flight, and nothing else.
 */
TEST(vring_crash, a_successor_between_the_stores_of_the_driver)
{
	const struct plan plan = {.n = MOST, .batch = 1, .depth = MOST, .start = 65534, .order = {0, 1, 2, 3}};
	struct libvhost_used used[MOST];
	struct taken t = {.count = 0};
	uint32_t last = 0, n = MOST;
	struct scene x;

	scene_open(&x, &plan);
	CHECK_EQ(scene_begin(&x), 0);
	for (uint32_t i = 0; i < MOST; i++)
		CHECK(scene_take(&x, &t));
	for (uint32_t i = 0; i < MOST - 1; i++)
		scene_complete(&x, &t);
	CHECK(libvhost_vq_flush(x.dev) >= 0);
	CHECK_EQ(libvhost_vq_get_used(x.drv, used, &n), 0);
	x.first = MOST;
	x.plan.n = n; /* there is room for as many */
	stores_begin(&x.stores);
	scene_offer(&x);
	stores_end(&x.stores);
	for (uint32_t i = 0; i < x.stores.count; i++) {
		uint32_t published, served = 0;

		stores_restore(&x.stores, i);
		published = (uint16_t)(lv_ring_idx(&x.ring, x.ring.avail) - lv_ring_idx(&x.ring, x.ring.used)) - 1;
		CHECK(published >= last && published <= n);
		last = published;
		CHECK_EQ(scene_begin(&x), 0);
		CHECK_EQ(x.dev->inflight->n_again, 1);
		scene_live(&x);
		for (uint32_t id = MOST; id < MOST + n; id++) {
			CHECK(x.journal->executed[id] <= 1);
			served += x.journal->executed[id];
		}
		CHECK_EQ(served, published);
		CHECK_EQ(x.journal->executed[MOST - 1], 1);
	}
	CHECK_EQ(last, n);
	scene_close(&x);
}

TEST(vring_crash, r132_a_split_ring_that_dies_twice)
{
	struct plan plan = {.start = 65534, .depth = MOST, .warm = true};
	uint32_t runs = 0;

	for (plan.n = 1; plan.n <= 3; plan.n++)
		runs += all_orders(plan, 1);
	printf("# split ring, killed twice: %u crash points\n", runs);
	CHECK(runs > 10000);
}

#define FRESH LV_POS_WRAP /* slot 0 of the first lap */

TEST(vring_crash, r132_a_packed_ring_at_every_store)
{
	static const struct plan kinds[] = {
		{.packed = true, .start = FRESH, .depth = MOST},
		{.packed = true, .start = FRESH | 5, .depth = MOST, .warm = true},
		{.packed = true, .start = 7, .depth = 2, .warm = true, .event_idx = true},
	};
	uint32_t runs = 0;

	for (unsigned k = 0; k < sizeof(kinds) / sizeof(*kinds); k++) {
		struct plan plan = kinds[k];

		for (plan.n = 1; plan.n <= MOST; plan.n++)
			runs += all_orders(plan, 0);
	}
	printf("# packed ring: %u crash points\n", runs);
	CHECK(runs > 10000);
}

TEST(vring_crash, r132_a_packed_ring_that_dies_twice)
{
	struct plan plan = {.packed = true, .start = FRESH | 5, .depth = MOST, .warm = true};
	uint32_t runs = 0;

	for (plan.n = 1; plan.n <= 3; plan.n++)
		runs += all_orders(plan, 1);
	printf("# packed ring, killed twice: %u crash points\n", runs);
	CHECK(runs > 10000);
}
#endif
