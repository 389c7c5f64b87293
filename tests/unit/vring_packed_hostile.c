/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* Packed rings under a hostile driver and a hostile device. Names carry the numbers of the catalogue of hostile cases.
 */
#include "ringhelp.h"

enum { NEXT = LV_DESC_NEXT, WRITE = LV_DESC_WRITE, INDIRECT = LV_DESC_INDIRECT, NUM = 7 };
#define LAP LV_POS_WRAP

static void attack(struct rig *r, uint64_t features)
{
	rig_memory(r, NUM, features | F_PACKED);
	rig_device(r);
}

static void put_slot(struct rig *r, uint32_t n, uint64_t addr, uint32_t len, uint32_t id, uint32_t flags)
{
	slot_offer(r, (uint16_t)(LAP | n), addr, len, id, flags);
}

TEST(vring_packed_hostile, R214_buffer_ids)
{
	struct libvhost_chain c;
	struct rig r;

	attack(&r, 0);
	put_slot(&r, 0, DATA, 16, NUM, 0);
	rig_broken(&r, "slot 0: request with buffer id 7, which does not exist");
	attack(&r, 0);
	put_slot(&r, 0, DATA, 16, 0xffff, 0);
	rig_broken(&r, "buffer id 65535");
	attack(&r, 0); /* the id of the last descriptor counts, those of the others say nothing */
	put_slot(&r, 1, DATA, 16, 3, 0);
	put_slot(&r, 0, DATA, 16, 0xffff, NEXT);
	CHECK_EQ(rig_pop(&r, &c), 1);
	CHECK_EQ(c.head, 3);
	put_slot(&r, 2, DATA, 16, 3, 0);
	rig_broken(&r, "slot 2: request with buffer id 3, which is still in flight");
	attack(&r, 0); /* pushed, but the driver cannot know yet */
	put_slot(&r, 0, DATA, 16, 3, 0);
	CHECK_EQ(rig_pop(&r, &c), 1);
	CHECK_EQ(libvhost_vq_push(r.dev, 3, 0), 0);
	put_slot(&r, 1, DATA, 16, 3, 0);
	CHECK_EQ(rig_pop(&r, &c), -EBADMSG);
	rig_free(&r);
}

TEST(vring_packed_hostile, R215_bits_of_other_laps_are_not_available)
{
	static const uint16_t flags[] = {0, LV_PACKED_USED, LV_PACKED_AVAIL | LV_PACKED_USED};
	struct libvhost_chain c;
	struct rig r;

	for (size_t i = 0; i < sizeof(flags) / sizeof(*flags); i++) {
		attack(&r, 0);
		slot(&r, 0, DATA, 16, 0, flags[i]);
		CHECK_EQ(rig_pop(&r, &c), 0);
		CHECK_EQ(libvhost_vq_notify_enable(r.dev, 1), 0);
		rig_free(&r);
		attack(&r, 0); /* a chain must not go on in the lap before */
		slot(&r, 1, DATA, 16, 0, flags[i]);
		put_slot(&r, 0, DATA, 16, 0, NEXT);
		rig_broken(&r, "slot 0, descriptor 1 (address 0x300000, length 16, flags 0x81, id 0): chain goes on "
			       "with a descriptor that is not available");
	}
}

TEST(vring_packed_hostile, R188_R203_more_descriptors_than_the_ring_has)
{
	struct libvhost_chain c;
	struct rig r;

	attack(&r, 0);
	for (uint32_t i = 0; i < NUM; i++)
		put_slot(&r, i, DATA, 16, i, 0);
	for (uint32_t i = 0; i < NUM; i++)
		CHECK_EQ(rig_pop(&r, &c), 1);
	for (uint32_t i = 0; i < NUM; i++) /* the next lap, though nothing was completed: never looked at */
		slot_offer(&r, (uint16_t)i, DATA, 16, i, 0);
	CHECK_EQ(rig_pop(&r, &c), 0);
	CHECK_EQ(vq_info(r.dev).in_flight, NUM);
	CHECK_EQ(libvhost_vq_push(r.dev, 2, 0), 0);
	CHECK_EQ(libvhost_vq_flush(r.dev), 1);
	slot_offer(&r, 0, DATA, 16, 2, NEXT); /* one is free, so a chain of two is one too many */
	slot_offer(&r, 1, DATA, 16, 2, 0);
	rig_broken(&r, "descriptors are offered that are still in flight");
}

TEST(vring_packed_hostile, R191_chains_that_do_not_end)
{
	struct libvhost_chain c;
	struct rig r;

	attack(&r, 0);
	for (uint32_t i = 0; i < NUM; i++)
		put_slot(&r, i, DATA, 16, 0, NEXT);
	rig_broken(&r, "chain does not end");
	attack(&r, 0); /* nor around the end, where another lap would begin */
	for (uint32_t i = 0; i < NUM; i++) {
		put_slot(&r, i, DATA, 16, i, i ? NEXT : 0);
		slot_offer(&r, 0, DATA, 16, 0, i ? NEXT : 0);
		if (!i) {
			put_slot(&r, 0, DATA, 16, 0, 0);
			CHECK_EQ(rig_pop(&r, &c), 1);
			CHECK_EQ(libvhost_vq_push(r.dev, 0, 0), 0);
			CHECK_EQ(libvhost_vq_flush(r.dev), 1);
		}
	}
	rig_broken(&r, "chain does not end");
	attack(&r, 0); /* empty ones give no piece but count */
	for (uint32_t i = 0; i < NUM; i++)
		put_slot(&r, i, 0, 0, 0, NEXT);
	rig_broken(&r, "chain does not end");
	attack(&r, 0); /* the longest that is legal */
	for (uint32_t i = 0; i < NUM; i++)
		put_slot(&r, i, DATA + 16 * i, 16, 5, (i < NUM - 1 ? NEXT : 0) | (i < 3 ? 0 : WRITE));
	CHECK_EQ(rig_pop(&r, &c), 1);
	CHECK(c.head == 5 && c.n_read == 3 && c.n_write == NUM - 3 && c.write_len == 16 * (NUM - 3));
	rig_free(&r);
}

TEST(vring_packed_hostile, R193_R195_buffers_outside_and_empty)
{
	static const struct {
		uint64_t addr;
		uint32_t len;
		const char *why;
	} bad[] = {
		{0, 16, "not (completely) in guest memory"}, {DATA + HALF - 8, 9, "not (completely)"},
		{UINT64_MAX, 2, "address and length wrap"},  {UINT64_MAX, 1, "not (completely)"},
		{1ull << 63, 4096, "not (completely)"},
	};
	struct libvhost_chain c;
	struct rig r;

	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++)
		for (uint32_t flags = 0; flags <= WRITE; flags += WRITE) {
			attack(&r, 0);
			put_slot(&r, 0, bad[i].addr, bad[i].len, 0, flags);
			rig_broken(&r, bad[i].why);
		}
	attack(&r, 0);
	put_slot(&r, 1, 0xdead, 0, 0, WRITE);
	put_slot(&r, 0, DATA - 3, 8, 0, NEXT);
	CHECK_EQ(rig_pop(&r, &c), 1);
	CHECK(c.n_read == 2 && c.n_write == 0 && c.read_len == 8);
	CHECK(c.iov[0].base == r.maps[0] + HALF - 3 && c.iov[1].base == r.maps[1]);
	rig_free(&r);
}

TEST(vring_packed_hostile, R192_R196_R198_shapes)
{
	struct libvhost_chain c;
	struct rig r;

	attack(&r, 0);
	put_slot(&r, 1, DATA, 16, 0, 0);
	put_slot(&r, 0, DATA, 16, 0, NEXT | WRITE);
	rig_broken(&r, "readable buffer after a writable");
	attack(&r, 0);
	put_slot(&r, 2, DATA, 16, 0, 0);
	put_slot(&r, 1, DATA, 16, 0, NEXT);
	put_slot(&r, 0, DATA, 16, 0, NEXT);
	c = rig_chain(&r);
	c.iov_cap = 2;
	CHECK_EQ(libvhost_vq_pop(r.dev, &c), -E2BIG);
	CHECK_HAS(vq_error(r.dev).text, "slot 0, descriptor 2: the request has more than iov_cap = 2");
	CHECK_EQ(rig_pop(&r, &c), -EBADMSG);
	rig_free(&r);
}

TEST(vring_packed_hostile, R196_request_above_4_gib)
{
	const uint64_t size = 1ull << 32, base = 1ull << 40;
	uint8_t *big = mmap(NULL, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	struct rig r;

	CHECK(big != MAP_FAILED);
	attack(&r, 0);
	put(&r.g, plain_region(base, size, big));
	put_slot(&r, 1, base, 2, 0, WRITE);
	put_slot(&r, 0, base, 0xffffffff, 0, NEXT);
	rig_broken(&r, "larger than 4 GiB");
	munmap(big, size);
}

/* An indirect table of n descriptors at gpa, 16 bytes of data each; flags in all of them. */
static void table(struct rig *r, uint64_t gpa, uint32_t n, uint32_t flags)
{
	for (uint32_t i = 0; i < n; i++) {
		const struct lv_packed_desc d = {
			.addr = DATA + 0x1000 + 16 * i, .len = 16, .id = 0xffff, .flags = (uint16_t)flags};

		for (uint32_t b = 0; b < sizeof(d); b++)
			*(uint8_t *)at(&r->g, gpa + i * 16 + b) = ((const uint8_t *)&d)[b];
	}
}

TEST(vring_packed_hostile, R200_indirect_table_unmapped_or_odd)
{
	static const struct {
		uint64_t addr;
		uint32_t len;
		const char *why;
	} bad[] = {
		{0x10, 32, "indirect descriptor 0"}, {DATA + HALF - 16, 32, "its indirect table is not mapped"},
		{DATA + HALF - 8, 16, "not mapped"}, {UINT64_MAX - 15, 32, "wrap"},
		{RAM, 8, "not a multiple of 16"},    {RAM, 0, "not a multiple of 16"},
		{RAM, 16 * 1025, "more than 1024"},
	};
	static const uint64_t where[] = {RAM, RAM + 0x2003, DATA + 0x2000, DATA - 24};
	struct libvhost_chain c;
	struct rig r;

	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		attack(&r, F_INDIRECT);
		put_slot(&r, 0, bad[i].addr, bad[i].len, 0, INDIRECT);
		rig_broken(&r, bad[i].why);
	}
	for (size_t i = 0; i < sizeof(where) / sizeof(*where); i++) {
		rig_memory(&r, NUM, F_PACKED | F_INDIRECT);
		r.opts.desc = RAM + 0x10000; /* away from the border */
		r.opts.avail = RAM + 0x11000;
		r.opts.used = RAM + 0x12000;
		r.packed.desc = at(&r.g, r.opts.desc);
		rig_device(&r);
		table(&r, where[i], 4, 0);
		put_slot(&r, 0, where[i], 64, 6, INDIRECT);
		CHECK_EQ(rig_pop(&r, &c), 1);
		CHECK(c.head == 6 && c.n_read == 4);
		for (uint32_t k = 0; k < 4; k++)
			CHECK(c.iov[k].base == r.maps[1] + 0x1000 + 16 * k && c.iov[k].len == 16);
		rig_free(&r);
	}
}

TEST(vring_packed_hostile, R201_R215_indirect_rules)
{
	struct libvhost_chain c;
	struct rig r;

	attack(&r, F_INDIRECT);
	table(&r, RAM, 2, INDIRECT);
	put_slot(&r, 0, RAM, 32, 0, INDIRECT);
	rig_broken(&r, "inside an indirect table");
	attack(&r, F_INDIRECT);
	table(&r, RAM, 2, 0);
	put_slot(&r, 1, DATA, 16, 0, 0);
	put_slot(&r, 0, RAM, 32, 0, INDIRECT | NEXT);
	rig_broken(&r, "INDIRECT and NEXT");
	attack(&r, 0);
	table(&r, RAM, 2, 0);
	put_slot(&r, 0, RAM, 32, 0, INDIRECT);
	rig_broken(&r, "not negotiated");
	attack(&r, F_INDIRECT); /* NEXT in a table, also in its last entry, and laps mean nothing; the length counts */
	table(&r, RAM, 3, NEXT | LV_PACKED_AVAIL | LV_PACKED_USED);
	put_slot(&r, 0, RAM, 32, 2, INDIRECT | WRITE);
	CHECK_EQ(rig_pop(&r, &c), 1);
	CHECK(c.head == 2 && c.n_read == 2 && c.n_write == 0);
	put_slot(&r, 2, RAM, 48, 3, INDIRECT); /* plain ones first */
	put_slot(&r, 1, DATA, 16, 9, NEXT);
	CHECK_EQ(rig_pop(&r, &c), 1);
	CHECK(c.head == 3 && c.n_read == 4);
	rig_free(&r);
}

TEST(vring_packed_hostile, R202_buffers_aimed_at_the_ring_itself)
{
	struct libvhost_chain c;
	struct rig r;

	for (int fill = 0; fill <= 0x80; fill += 0x80)
		for (int target = 0; target < 3; target++) {
			attack(&r, F_EVENT);
			const uint64_t where[] = {r.opts.desc + 16, r.opts.avail, r.opts.used};
			const uint32_t len = target ? 4 : 16 * (NUM - 1);

			for (uint32_t i = 0; i < NUM; i++)
				put_slot(&r, i, where[target], len, i, WRITE);
			for (uint32_t i = 0; i < 1000 && rig_pop(&r, &c) == 1; i++) {
				memset(c.iov[0].base, fill, c.iov[0].len);
				CHECK_EQ(libvhost_vq_push(r.dev, c.head, len), 0);
				CHECK(libvhost_vq_flush(r.dev) >= 0);
			}
			CHECK_EQ(vq_info(r.dev).in_flight, 0);
			CHECK_EQ(vq_info(r.dev).requests, NUM);
			CHECK_EQ(vq_info(r.dev).broken, 0);
			CHECK_EQ(r.packed.desc[NUM - 1].id, NUM - 1);
			CHECK_EQ(r.packed.desc[NUM - 1].len, len);
			rig_free(&r);
		}
}

TEST(vring_packed_hostile, R204_driver_never_reads_used)
{
	struct libvhost_chain c;
	struct lv_ledger before;
	uint16_t pos = LAP;
	struct rig r;

	attack(&r, 0);
	before = lv_ledger_take();
	for (uint32_t i = 0; i < 70000; i++, pos = lv_pos_next(pos, 1, NUM)) {
		slot_offer(&r, pos, DATA, 16, i % NUM, WRITE);
		CHECK_EQ(rig_pop(&r, &c), 1);
		CHECK_EQ(libvhost_vq_push(r.dev, c.head, 1), 0);
		CHECK(libvhost_vq_flush(r.dev) >= 0);
	}
	CHECK_LEDGER(before);
	CHECK(lv_ledger_take().heap <= before.heap + 65536); /* an allocator may keep some */
	rig_free(&r);
}

TEST(vring_packed_hostile, R207_random_event_structures)
{
	struct libvhost_chain c;
	uint32_t seed = 12345;
	uint16_t pos = LAP;
	struct rig r;

	attack(&r, F_EVENT);
	for (uint32_t i = 0; i < 101000; i++, pos = lv_pos_next(pos, 1, NUM)) {
		seed = seed * 1664525 + 1013904223;
		if (i < 100000) {
			lv_packed_event_set(r.packed.driver, (uint16_t)(seed >> 14), (uint16_t)(seed >> 16));
			lv_packed_event_set(r.packed.device, (uint16_t)(seed >> 10), (uint16_t)seed);
		} else { /* a driver that behaves from here on misses nothing */
			lv_packed_event_set(r.packed.driver, LV_EVENT_DESC, pos);
		}
		slot_offer(&r, pos, DATA, 16, i % NUM, WRITE);
		CHECK_EQ(rig_pop(&r, &c), 1);
		CHECK_EQ(libvhost_vq_push(r.dev, c.head, 1), 0);
		CHECK(libvhost_vq_flush(r.dev) == 1 || i < 100000);
		if (i < 100000)
			continue;
		CHECK_EQ(rig_pop(&r, &c), 0);
		CHECK_EQ(lv_packed_event_get(r.packed.device).off_wrap, lv_pos_next(pos, 1, NUM));
		CHECK_EQ(lv_packed_event_get(r.packed.device).flags, LV_EVENT_DESC);
	}
	rig_free(&r);
}

TEST(vring_packed_hostile, R210_ring_overwritten_while_requests_are_pending)
{
	struct libvhost_chain c;
	uint8_t *edge;
	struct rig r;

	for (int fill = 0; fill < 256; fill += 51) {
		attack(&r, F_EVENT);
		for (uint32_t i = 0; i < NUM; i++) {
			put_slot(&r, i, DATA, 16, i, WRITE);
			CHECK_EQ(rig_pop(&r, &c), 1);
		}
		edge = r.maps[0];
		memset(edge, fill, HALF);
		for (uint32_t i = NUM; i-- > 0;)
			CHECK_EQ(libvhost_vq_push(r.dev, i, 64), 0);
		CHECK(libvhost_vq_flush(r.dev) >= 0);
		for (uint64_t b = 0; b < HALF; b++) /* nothing but length, id and flags of the ring was written */
			if (edge + b < (uint8_t *)r.packed.desc)
				CHECK_EQ(edge[b], fill);
		for (uint32_t i = 0; i < NUM; i++) {
			CHECK_EQ(r.packed.desc[i].id, NUM - 1 - i);
			CHECK_EQ(r.packed.desc[i].len, 16);
			CHECK_EQ(r.packed.desc[i].addr & 0xff, fill);
		}
		rig_free(&r);
	}
}

/* Both sides at every size with an area at the end of a region: guard pages do the checking. */
TEST(vring_packed_hostile, R211_ring_ends_where_memory_ends)
{
	struct libvhost_vq_layout l = {.size = sizeof(l)};
	struct libvhost_buf b = {.gpa = DATA + HALF - 64, .len = 64};
	struct rig r;

	for (uint32_t num = 1; num <= 1024; num += 1 + num / 4)
		for (int area = 0; area < 3; area++) {
			rig_memory(&r, num, F_PACKED | (num & 1 ? F_EVENT : 0));
			CHECK_EQ(libvhost_vq_layout(num, r.opts.features, &l), 0);
			r.opts.desc = area ? RAM : DATA - l.desc_bytes;
			r.opts.avail = area == 1 ? DATA - 4 : RAM + 0x10000;
			r.opts.used = area == 2 ? DATA - 4 : RAM + 0x20000;
			rig_driver(&r);
			rig_device(&r);
			for (uint32_t i = 0; i < 2 * num + 1; i++)
				rig_request(&r, &b, i);
			CHECK_EQ(libvhost_vq_notify_enable(r.drv, 0), 0);
			CHECK_EQ(libvhost_vq_notify_enable(r.dev, 0), 0);
			rig_free(&r);
		}
}

TEST(vring_packed_hostile, R219_used_length_is_cut_to_what_was_writable)
{
	struct libvhost_chain c;
	struct rig r;

	attack(&r, 0);
	put_slot(&r, 0, DATA, 64, 0, WRITE);
	put_slot(&r, 1, DATA, 64, 1, 0); /* nothing writable */
	CHECK_EQ(rig_pop(&r, &c), 1);
	CHECK_EQ(rig_pop(&r, &c), 1);
	CHECK_EQ(libvhost_vq_push(r.dev, 0, UINT64_MAX), 0);
	CHECK_EQ(libvhost_vq_push(r.dev, 1, 1), 0);
	CHECK_EQ(libvhost_vq_push(r.dev, 1, 1), -EINVAL);
	CHECK_HAS(vq_error(r.dev).text, "buffer id 1");
	CHECK_EQ(libvhost_vq_push(r.dev, NUM, 1), -EINVAL);
	CHECK_EQ(libvhost_vq_flush(r.dev), 1);
	CHECK_EQ(r.packed.desc[0].len, 64);
	CHECK_EQ(r.packed.desc[1].len, 0);
	rig_free(&r);
}

/* ---- a hostile device ---- */

/* One request of two descriptors in slots 0 and 1, its id in *id. */
static void one(struct rig *r, uint32_t *id)
{
	const struct libvhost_buf b[] = {{.gpa = DATA, .len = 64}, {.gpa = DATA + 64, .len = 32}};

	rig_memory(r, NUM, F_PACKED);
	rig_driver(r);
	CHECK_EQ(libvhost_vq_add(r->drv, b, 1, 1, 77), 0);
	CHECK_EQ(libvhost_vq_kick(r->drv), 1);
	*id = r->packed.desc[1].id;
}

static void driver_broken(struct rig *r)
{
	struct libvhost_used u = {.token = 99};
	uint32_t n = 1;

	CHECK_EQ(libvhost_vq_get_used(r->drv, &u, &n), -EBADMSG);
	CHECK_EQ(u.token, 99);
	CHECK_HAS(vq_error(r->drv).text, "not in flight");
	CHECK_EQ(libvhost_vq_kick(r->drv), -EBADMSG);
	CHECK_EQ(vq_info(r->drv).broken, 1);
	rig_free(r);
}

TEST(vring_packed_hostile, R214_devices_that_complete_what_is_not_in_flight)
{
	const struct libvhost_buf b = {.gpa = DATA, .len = 64};
	struct libvhost_used u[4];
	uint32_t id, n = 4;
	struct rig r;

	for (uint32_t wrong = 1; wrong < 0x10000; wrong = wrong * 2 + 1) {
		one(&r, &id);
		slot_complete(&r, LAP, id ^ wrong, 0);
		driver_broken(&r);
	}
	one(&r, &id); /* twice: the good one is not lost */
	CHECK_EQ(libvhost_vq_add(r.drv, &b, 1, 0, 78), 0);
	CHECK_EQ(libvhost_vq_kick(r.drv), 1);
	slot_complete(&r, LAP, id, 1000);
	slot_complete(&r, LAP | 2, id, 0);
	CHECK_EQ(libvhost_vq_get_used(r.drv, u, &n), 0);
	CHECK(n == 1 && u[0].token == 77 && u[0].len == 32);
	driver_broken(&r);
	one(&r, &id); /* not kicked yet: not even looked at while nothing else is in flight */
	slot_complete(&r, LAP, id, 0);
	CHECK_EQ(libvhost_vq_get_used(r.drv, u, &n), 0);
	CHECK_EQ(n, 1);
	CHECK_EQ(libvhost_vq_add(r.drv, &b, 1, 0, 79), 0);
	slot_complete(&r, LAP | 2, r.packed.desc[0].id, 0);
	n = 4;
	CHECK_EQ(libvhost_vq_get_used(r.drv, u, &n), 0);
	CHECK_EQ(n, 0);
	rig_free(&r);
	one(&r, &id); /* and while something is: refused */
	CHECK_EQ(libvhost_vq_add(r.drv, &b, 1, 0, 79), 0);
	slot_complete(&r, LAP, r.drv->pdrv.free_id - 1, 0);
	driver_broken(&r);
}

TEST(vring_packed_hostile, R214_devices_that_rewrite_the_ring_change_nothing)
{
	struct libvhost_used u[4];
	const struct libvhost_buf b[] = {{.gpa = DATA, .len = 64}, {.gpa = DATA + 64, .len = 32}};
	uint16_t pos = LAP;
	struct rig r;

	rig_memory(&r, NUM, F_PACKED);
	rig_driver(&r);
	for (uint32_t i = 0; i < 1000; i++) {
		uint32_t n = 4, id;

		CHECK_EQ(libvhost_vq_add(r.drv, b, 1, 1, i), 0);
		CHECK_EQ(libvhost_vq_kick(r.drv), 1);
		id = r.packed.desc[pos & LV_POS_SLOT].id;
		memset(r.packed.desc, (int)i, NUM * sizeof(*r.packed.desc));
		slot_complete(&r, pos, id, 1);
		pos = lv_pos_next(pos, 2, NUM);
		slot(&r, pos, 0, 0, 0, 0x8080u ^ lv_used_bits(pos)); /* nothing behind it */
		CHECK_EQ(libvhost_vq_get_used(r.drv, u, &n), 0);
		CHECK(n == 1 && u[0].token == i);
	}
	for (uint32_t i = 0; i < NUM / 2; i++)
		CHECK_EQ(libvhost_vq_add(r.drv, b, 1, 1, i), 0);
	CHECK_EQ(libvhost_vq_add(r.drv, b, 1, 1, 0), -ENOSPC);
	rig_free(&r);
}
