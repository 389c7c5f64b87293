/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* Driver and device of this library on one ring, with well-behaved peers. */
#include "ringhelp.h"

/* Slot i of the data area: 16 bytes to the device, 32 from it. */
static void three_bufs(struct libvhost_buf *b, uint32_t i)
{
	uint64_t at = DATA + i * 64ull;

	b[0] = (struct libvhost_buf){.gpa = at, .len = 8};
	b[1] = (struct libvhost_buf){.gpa = at + 8, .len = 8};
	b[2] = (struct libvhost_buf){.gpa = at + 16, .len = 32};
}

/* Offers as many requests as fit, at most depth, with consecutive tokens. */
static uint32_t offer_some(struct rig *r, uint64_t *token, uint32_t depth)
{
	uint32_t n_read = r->opts.num < 3 ? 0 : 2, first = r->opts.num < 3 ? 2 : 0, n = 0;
	struct libvhost_buf b[3];

	for (; n < depth; n++) {
		uint32_t slot = (uint32_t)(*token % 4096);
		int rc;

		three_bufs(b, slot);
		memcpy(at(&r->g, b[0].gpa), token, 8);
		rc = libvhost_vq_add(r->drv, b + first, n_read, 1, *token);
		if (rc == -ENOSPC)
			break;
		CHECK_EQ(rc, 0);
		++*token;
	}
	CHECK(libvhost_vq_kick(r->drv) >= 0);
	return n;
}

/* Serves all there is: copies what it reads to what it writes. */
static uint32_t serve(struct rig *r)
{
	struct libvhost_chain c;
	uint32_t n = 0;
	int rc;

	while ((rc = rig_pop(r, &c)) == 1) {
		CHECK_EQ(c.n_write, 1);
		CHECK_EQ(c.write_len, 32);
		CHECK_EQ(c.read_len, c.n_read ? 16 : 0);
		if (c.n_read)
			memcpy(c.iov[c.n_read].base, c.iov[0].base, 8);
		CHECK_EQ(libvhost_vq_push(r->dev, c.head, 8 + c.head % 16), 0);
		n++;
	}
	CHECK_EQ(rc, 0);
	CHECK(libvhost_vq_flush(r->dev) >= 0);
	return n;
}

static void collect(struct rig *r, uint64_t *done, uint32_t expect)
{
	struct libvhost_used u[16];
	uint32_t n = 16, total = 0;

	while (n == 16) {
		CHECK_EQ(libvhost_vq_get_used(r->drv, u, &n), 0);
		for (uint32_t i = 0; i < n; i++, ++*done) {
			uint64_t *out = at(&r->g, DATA + (*done % 4096) * 64 + 16);

			CHECK_EQ(u[i].token, *done);
			CHECK(u[i].len >= 8 && u[i].len < 24 && !u[i].flags);
			if (r->opts.num >= 3)
				CHECK_EQ(*out, *done);
		}
		total += n;
	}
	CHECK_EQ(total, expect);
}

static void flow(uint32_t num, uint64_t features, uint64_t requests, uint16_t base)
{
	struct lv_ledger before = lv_ledger_take();
	uint64_t token = 0, done = 0;
	struct rig r;

	rig_memory(&r, num, features);
	r.opts.base = base;
	rig_driver(&r);
	rig_device(&r);
	for (uint32_t round = 0; done < requests; round++) {
		uint32_t n = offer_some(&r, &token, 1 + round % num);

		CHECK(n > 0);
		CHECK_EQ(vq_info(r.drv).in_flight, n);
		CHECK_EQ(serve(&r), n);
		collect(&r, &done, n);
		if (features & F_PACKED) {
			CHECK_EQ(vq_info(r.drv).base, vq_info(r.dev).base);
			continue;
		}
		CHECK_EQ(vq_info(r.dev).base, (uint16_t)(base + done));
		CHECK_EQ(vq_info(r.drv).base, (uint16_t)(base + done));
	}
	CHECK_EQ(vq_info(r.dev).requests, done);
	CHECK_EQ(vq_info(r.drv).in_flight + vq_info(r.dev).in_flight, 0);
	rig_free(&r);
	CHECK_LEDGER(before);
}

TEST(vring, data_flows_at_all_sizes_and_features)
{
	for (uint32_t num = 1; num <= 1024; num *= 2)
		for (uint64_t f = 0; f < 4; f++)
			flow(num, (f & 1 ? F_EVENT : 0) | (f & 2 ? F_INDIRECT : 0), 3 * num + 2, 0);
}

TEST(vring, data_flows_in_packed_rings_of_any_size)
{
	for (uint32_t num = 1; num <= 1024; num += 1 + num / 8)
		for (uint64_t f = 0; f < 8; f++)
			flow(num, F_PACKED | (f & 1 ? F_EVENT : 0) | (f & 2 ? F_INDIRECT : 0) | (f & 4 ? F_ORDERED : 0),
			     5 * num + 2, 0);
}

TEST(vring, indexes_wrap_at_65536)
{
	flow(256, 0, 200000, 0);
	flow(256, F_EVENT, 200000, 0);
	flow(64, F_EVENT | F_INDIRECT, 70000, 65530);
	flow(1, F_EVENT, 70000, 0);
	flow(255, F_PACKED | F_EVENT, 200000, 0);
	flow(1, F_PACKED, 70000, 0);
}

static void largest(uint64_t features)
{
	struct libvhost_buf b = {.gpa = DATA, .len = 32};
	struct libvhost_used u;
	uint32_t n = 1;
	struct rig r;

	rig_new(&r, 32768, features);
	for (uint32_t i = 0; i < 32768; i++)
		CHECK_EQ(libvhost_vq_add(r.drv, &b, 0, 1, i), 0);
	CHECK_EQ(libvhost_vq_add(r.drv, &b, 0, 1, 0), -ENOSPC);
	CHECK_EQ(libvhost_vq_kick(r.drv), 1);
	CHECK_EQ(serve(&r), 32768);
	for (uint32_t i = 0; i < 32768; i++) {
		CHECK_EQ(libvhost_vq_get_used(r.drv, &u, &n), 0);
		CHECK_EQ(n, 1);
		CHECK_EQ(u.token, i);
	}
	rig_free(&r);
}

TEST(vring, largest_ring_takes_32768_requests)
{
	largest(F_EVENT);
	largest(F_EVENT | F_PACKED);
}

static void out_of_order(uint64_t features)
{
	struct libvhost_used u[8];
	struct libvhost_buf b[3];
	struct libvhost_chain c;
	uint32_t heads[8], n = 8;
	struct rig r;

	rig_new(&r, 32, features);
	for (uint32_t round = 0; round < 100; round++) {
		for (uint32_t i = 0; i < 8; i++) {
			three_bufs(b, i);
			CHECK_EQ(libvhost_vq_add(r.drv, b, 2, 1, 100 * round + i), 0);
		}
		CHECK(libvhost_vq_kick(r.drv) >= 0);
		for (uint32_t i = 0; i < 8; i++) {
			CHECK_EQ(rig_pop(&r, &c), 1);
			heads[i] = c.head;
		}
		for (uint32_t i = 8; i-- > 0;)
			CHECK_EQ(libvhost_vq_push(r.dev, heads[i ^ (round & 7)], i), 0);
		CHECK(libvhost_vq_flush(r.dev) >= 0);
		n = 8;
		CHECK_EQ(libvhost_vq_get_used(r.drv, u, &n), 0);
		CHECK_EQ(n, 8);
		for (uint32_t i = 0; i < 8; i++)
			CHECK_EQ(u[i].token, 100 * round + ((7 - i) ^ (round & 7)));
	}
	rig_free(&r);
}

TEST(vring, completions_out_of_order_keep_their_tokens)
{
	out_of_order(F_EVENT);
	out_of_order(F_EVENT | F_PACKED);
}
