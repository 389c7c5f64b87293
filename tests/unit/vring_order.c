/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* IN_ORDER: devices that report only the last request of a batch, and what ours may not do. */
#include "ringhelp.h"

#define SIZE 32u /* of a writable buffer */

static void offer_some(struct rig *r, uint64_t *token, uint32_t n)
{
	const struct libvhost_buf b[] = {{.gpa = DATA, .len = 8}, {.gpa = DATA + 64, .len = SIZE}};

	for (uint32_t i = 0; i < n; i++, ++*token)
		CHECK_EQ(libvhost_vq_add(r->drv, b + (*token % 3 == 0), *token % 3 != 0, 1, *token), 0);
	CHECK(libvhost_vq_kick(r->drv) >= 0);
}

static uint32_t descs_of(uint64_t token)
{
	return token % 3 ? 2 : 1;
}

/* Takes everything there is, at most two at a time. All but those in lens were skipped. */
static void expect(struct rig *r, uint64_t *done, uint32_t n, uint32_t last_len)
{
	struct libvhost_used u[2];

	while (n) {
		uint32_t count = 2;

		CHECK_EQ(libvhost_vq_get_used(r->drv, u, &count), 0);
		CHECK_EQ(count, n < 2 ? n : 2);
		for (uint32_t i = 0; i < count; i++, n--) {
			CHECK_EQ(u[i].token, (*done)++);
			CHECK_EQ(u[i].len, n > 1 ? SIZE : last_len);
		}
	}
}

/* The device's used element for a batch: at the place of its first request, with the head of its last. */
static void batch_split(struct rig *r, uint32_t n, uint32_t len)
{
	const uint16_t idx = lv_ring_idx(&r->ring, r->ring.used);
	const uint16_t head = lv_avail_get(&r->ring, (uint16_t)(idx + n - 1));

	lv_used_put(&r->ring, idx, (struct lv_used_elem){.id = head, .len = len});
	lv_ring_set_idx(&r->ring, r->ring.used, (uint16_t)(idx + n));
}

TEST(vring_order, split_driver_accepts_skipped_completions)
{
	uint64_t token = 0, done = 0;
	struct rig r;

	rig_memory(&r, 16, F_ORDERED);
	rig_driver(&r);
	for (uint32_t round = 0; round < 50000; round++) {
		const uint32_t n = 1 + round % 8, len = round % 40;

		offer_some(&r, &token, n);
		CHECK_EQ(libvhost_vq_notify_enable(r.drv, 1), 0);
		batch_split(&r, n, len);
		CHECK_EQ(libvhost_vq_notify_enable(r.drv, 1), 1);
		expect(&r, &done, n, len < SIZE ? len : SIZE);
		CHECK_EQ(vq_info(r.drv).base, (uint16_t)done);
		CHECK_EQ(vq_info(r.drv).in_flight, 0);
	}
	rig_free(&r);
}

TEST(vring_order, split_driver_uses_descriptors_in_ring_order)
{
	uint64_t token = 0, done = 0;
	uint32_t at = 0;
	struct rig r;

	rig_memory(&r, 16, F_ORDERED);
	rig_driver(&r);
	for (uint32_t round = 0; round < 100; round++) {
		const uint32_t n = 1 + round % 5;

		offer_some(&r, &token, n);
		for (uint64_t t = token - n; t < token; t++) {
			CHECK_EQ(lv_avail_get(&r.ring, (uint16_t)t), at);
			for (uint32_t i = 0; i < descs_of(t); i++, at = (at + 1) % 16)
				if (i + 1 < descs_of(t))
					CHECK_EQ(r.ring.desc[at].next, (at + 1) % 16);
		}
		batch_split(&r, n, SIZE);
		expect(&r, &done, n, SIZE);
	}
	rig_free(&r);
}

TEST(vring_order, resumed_ring_goes_on_in_ring_order)
{
	struct libvhost_used u[8];
	struct libvhost_vq *first;
	uint64_t token = 0;
	uint32_t n = 8;
	struct rig r;

	rig_memory(&r, 8, F_ORDERED);
	rig_driver(&r);
	offer_some(&r, &token, 3); /* descriptors 0, 1 and 2, 3 and 4 */
	batch_split(&r, 1, 4);
	first = r.drv;
	r.opts.flags |= LIBVHOST_VQ_RESUME;
	rig_driver(&r);
	libvhost_vq_free(first);
	offer_some(&r, &token, 1); /* token 3: one descriptor */
	CHECK_EQ(lv_avail_get(&r.ring, 3), 5);
	batch_split(&r, 3, 7);
	CHECK_EQ(libvhost_vq_get_used(r.drv, u, &n), 0);
	CHECK_EQ(n, 3);
	CHECK(u[0].token == 1 && u[0].flags == LIBVHOST_USED_RESUMED && u[0].len == 0);
	CHECK(u[1].token == 3 && u[1].flags == LIBVHOST_USED_RESUMED && u[1].len == 0);
	CHECK(u[2].token == 3 && u[2].flags == 0 && u[2].len == 7);
	rig_free(&r);
}

static void check_broken(struct rig *r, const char *why)
{
	struct libvhost_used u;
	uint32_t n = 1;

	CHECK_EQ(libvhost_vq_get_used(r->drv, &u, &n), -EBADMSG);
	CHECK_HAS(vq_error(r->drv).text, why);
	rig_free(r);
}

TEST(vring_order, split_batches_that_cannot_be)
{
	uint64_t token = 0;
	struct rig r;

	rig_memory(&r, 16, F_ORDERED);
	rig_driver(&r);
	offer_some(&r, &token, 4);
	lv_used_put(&r.ring, 0, (struct lv_used_elem){.id = lv_avail_get(&r.ring, 2)});
	lv_ring_set_idx(&r.ring, r.ring.used, 2); /* the third, but only two are said to be complete */
	check_broken(&r, "not in flight");
	token = 0;
	rig_memory(&r, 16, F_ORDERED);
	rig_driver(&r);
	offer_some(&r, &token, 4);
	lv_used_put(&r.ring, 0, (struct lv_used_elem){.id = 2}); /* inside a chain */
	lv_ring_set_idx(&r.ring, r.ring.used, 2);
	check_broken(&r, "not in flight");
}

TEST(vring_order, packed_driver_accepts_skipped_completions)
{
	uint64_t token = 0, done = 0;
	uint16_t pos = LV_POS_WRAP;
	struct rig r;

	rig_memory(&r, 19, F_ORDERED | F_PACKED);
	rig_driver(&r);
	for (uint32_t round = 0; round < 50000; round++) {
		const uint32_t n = 1 + round % 8, len = round % 40;

		offer_some(&r, &token, n);
		CHECK_EQ(libvhost_vq_notify_enable(r.drv, 1), 0);
		slot_complete(&r, pos, (uint32_t)((token - 1) % 19), len);
		for (uint64_t t = token - n; t < token; t++)
			pos = lv_pos_next(pos, descs_of(t), 19);
		CHECK_EQ(vq_info(r.drv).base, lv_pos_base(pos));
		CHECK_EQ(libvhost_vq_notify_enable(r.drv, 1), 1);
		expect(&r, &done, n, len < SIZE ? len : SIZE);
		CHECK_EQ(vq_info(r.drv).base, lv_pos_base(pos));
		CHECK_EQ(vq_info(r.drv).in_flight, 0);
	}
	rig_free(&r);
}

TEST(vring_order, packed_batches_that_cannot_be)
{
	static const uint32_t ids[] = {5, 3, 19, 65535}; /* not added, not kicked, outside */

	for (size_t i = 0; i < sizeof(ids) / sizeof(*ids); i++) {
		const struct libvhost_buf b = {.gpa = DATA, .len = 8};
		uint64_t token = 0;
		struct rig r;

		rig_memory(&r, 19, F_ORDERED | F_PACKED);
		rig_driver(&r);
		offer_some(&r, &token, 3);
		CHECK_EQ(libvhost_vq_add(r.drv, &b, 1, 0, token), 0);
		slot_complete(&r, LV_POS_WRAP, ids[i], 0);
		check_broken(&r, "not in flight");
	}
}

/* Completes what the device took in the given order; how many the driver sees after each. */
static void pushed_in_any_order(uint64_t features)
{
	static const uint32_t order[] = {2, 1, 0, 4, 5, 3}, seen[] = {0, 0, 3, 3, 3, 6};
	struct libvhost_chain c;
	uint32_t heads[6], got = 0;
	uint64_t token = 0;
	struct rig r;

	rig_new(&r, 16, features);
	for (uint32_t round = 0; round < 100; round++, got = 0) {
		offer_some(&r, &token, 6);
		for (uint32_t i = 0; i < 6; i++) {
			CHECK_EQ(rig_pop(&r, &c), 1);
			heads[i] = c.head;
		}
		for (uint32_t i = 0; i < 6; i++) {
			struct libvhost_used u[8];
			uint32_t n = 8;

			CHECK_EQ(libvhost_vq_push(r.dev, heads[order[i]], order[i]), 0);
			CHECK_EQ(vq_info(r.dev).in_flight, 5 - i);
			CHECK(libvhost_vq_flush(r.dev) >= 0);
			CHECK_EQ(libvhost_vq_get_used(r.drv, u, &n), 0);
			for (uint32_t k = 0; k < n; k++, got++) {
				CHECK_EQ(u[k].token, token - 6 + got);
				CHECK_EQ(u[k].len, got);
			}
			CHECK_EQ(got, seen[i]);
		}
	}
	rig_free(&r);
}

TEST(vring_order, devices_publish_in_order_whatever_is_pushed)
{
	pushed_in_any_order(F_ORDERED);
	pushed_in_any_order(F_ORDERED | F_EVENT | F_INDIRECT);
	pushed_in_any_order(F_ORDERED | F_PACKED);
	pushed_in_any_order(F_ORDERED | F_PACKED | F_EVENT);
}

/* Pops and pushes n requests and publishes them together. */
static void serve_all(struct rig *r, uint32_t n)
{
	struct libvhost_chain c;

	for (uint32_t i = 0; i < n; i++) {
		CHECK_EQ(rig_pop(r, &c), 1);
		CHECK_EQ(libvhost_vq_push(r->dev, c.head, c.write_len), 0);
	}
	CHECK(libvhost_vq_flush(r->dev) >= 0);
}

static bool is_used(const struct rig *r, uint16_t pos)
{
	return lv_meta_is(lv_packed_load(&r->packed, pos), lv_used_bits(pos));
}

/* Requests without writable buffers are skipped up to the next one with some, or to the last: of five, of which the
 * third can be written, two have a used descriptor. A ring of 7, so that batches wrap. */
TEST(vring_order, packed_device_skips_what_it_only_reads)
{
	static const struct libvhost_buf out = {.gpa = DATA, .len = 8}, in = {.gpa = DATA + 64, .len = SIZE};
	uint64_t token = 0, done = 0;
	uint16_t pos = LV_POS_WRAP;
	struct rig r;

	rig_new(&r, 7, F_ORDERED | F_PACKED);
	for (uint32_t round = 0; round < 100; round++) {
		struct libvhost_used u[8];
		uint16_t at[5];
		uint32_t n = 8;

		for (uint32_t i = 0; i < 5; i++, token++, pos = lv_pos_next(pos, 1, 7)) {
			at[i] = pos;
			CHECK_EQ(libvhost_vq_add(r.drv, i == 2 ? &in : &out, i != 2, i == 2, token), 0);
		}
		CHECK(libvhost_vq_kick(r.drv) >= 0);
		serve_all(&r, 5);
		for (uint32_t i = 0; i < 5; i++)
			CHECK_EQ(is_used(&r, at[i]), i == 0 || i == 3);
		CHECK_EQ(libvhost_vq_get_used(r.drv, u, &n), 0);
		CHECK_EQ(n, 5);
		for (uint32_t i = 0; i < n; i++) {
			CHECK_EQ(u[i].token, done++);
			CHECK_EQ(u[i].len, i == 2 ? SIZE : 0);
		}
		CHECK_EQ(vq_info(r.dev).base, lv_pos_base(pos));
	}
	rig_free(&r);
}
