/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* The device role under a hostile driver. Names carry the numbers of the catalogue of hostile cases. */
#include "ringhelp.h"

enum { NEXT = LV_DESC_NEXT, WRITE = LV_DESC_WRITE, INDIRECT = LV_DESC_INDIRECT };

/* The ring as a driver would leave it at first, and only a device on it. */
static void attack(struct rig *r, uint32_t num, uint64_t features)
{
	rig_memory(r, num, features);
	rig_device(r);
}

TEST(vring_hostile, R188_avail_index_too_far_ahead)
{
	struct libvhost_chain c;
	struct rig r;

	attack(&r, 8, 0);
	desc(&r, 0, DATA, 16, 0, 0);
	offer(&r, 0);
	CHECK_EQ(rig_pop(&r, &c), 1);
	lv_ring_set_idx(&r.ring, r.ring.avail, 1 + 8 + 1);
	rig_broken(&r, "available index 10 is 9 ahead of 1");
	attack(&r, 8, F_EVENT);
	lv_ring_set_idx(&r.ring, r.ring.avail, 0xffff);
	rig_broken(&r, "ahead");
}

TEST(vring_hostile, R190_head_outside_the_ring)
{
	struct rig r;

	attack(&r, 8, 0);
	offer(&r, 8);
	rig_broken(&r, "head 8, which does not exist");
	attack(&r, 8, 0);
	offer(&r, 0xffff);
	rig_broken(&r, "head 65535");
}

TEST(vring_hostile, R191_links_out_and_loops)
{
	struct rig r;

	attack(&r, 8, 0);
	desc(&r, 3, DATA, 16, NEXT, 8);
	offer(&r, 3);
	rig_broken(&r, "head 3, descriptor 8 (address 0x300000, length 16, flags 0x1, next 8): reached by a link out");
	attack(&r, 8, 0); /* itself */
	desc(&r, 3, DATA, 16, NEXT, 3);
	offer(&r, 3);
	rig_broken(&r, "chain does not end");
	attack(&r, 8, 0); /* two */
	desc(&r, 0, DATA, 16, NEXT, 1);
	desc(&r, 1, DATA, 16, NEXT, 0);
	offer(&r, 0);
	rig_broken(&r, "chain does not end");
	attack(&r, 8, 0); /* all */
	for (uint32_t i = 0; i < 8; i++)
		desc(&r, i, DATA, 16, NEXT, (i + 1) % 8);
	offer(&r, 5);
	rig_broken(&r, "head 5, descriptor 5");
	attack(&r, 8, 0); /* empty ones give no piece but count as steps */
	desc(&r, 0, DATA, 0, NEXT, 0);
	offer(&r, 0);
	rig_broken(&r, "chain does not end");
}

/* An indirect table may be larger than the ring: a walk takes 1024 steps of it and no more. */
TEST(vring_hostile, R191_steps_in_an_indirect_table)
{
	struct libvhost_chain c;
	struct rig r;

	for (uint32_t n = 1024; n <= 1025; n++) {
		attack(&r, 8, F_INDIRECT);
		for (uint32_t i = 0; i < n; i++)
			*(struct lv_desc *)at(&r.g, RAM + 16 * i) =
				(struct lv_desc){.flags = i + 1 < n ? NEXT : 0, .next = (uint16_t)(i + 1)};
		desc(&r, 0, RAM, 16 * n, INDIRECT, 0);
		offer(&r, 0);
		if (n > 1024) {
			rig_broken(&r, "chain does not end");
			continue;
		}
		CHECK_EQ(rig_pop(&r, &c), 1);
		CHECK_EQ(c.n_read + c.n_write, 0);
		rig_free(&r);
	}
}

TEST(vring_hostile, R191_longest_legal_chain_is_served)
{
	struct libvhost_chain c;
	struct rig r;

	attack(&r, 8, 0);
	for (uint32_t i = 0; i < 8; i++)
		desc(&r, i, DATA + 16 * i, 16, (i < 7 ? NEXT : 0) | (i < 3 ? 0 : WRITE), i + 1);
	offer(&r, 0);
	CHECK_EQ(rig_pop(&r, &c), 1);
	CHECK_EQ(c.n_read, 3);
	CHECK_EQ(c.n_write, 5);
	CHECK_EQ(c.read_len, 48);
	CHECK_EQ(c.write_len, 80);
	CHECK(c.iov[7].base == r.maps[1] + 16 * 7);
	rig_free(&r);
}

TEST(vring_hostile, R193_buffers_outside_guest_memory)
{
	static const struct {
		uint64_t addr;
		uint32_t len;
		const char *why;
	} bad[] = {
		{0, 16, "not (completely) in guest memory"},
		{RAM - 1, 16, "not (completely)"},
		{DATA + HALF, 1, "not (completely)"},
		{DATA + HALF - 8, 9, "address 0x4ffff8, length 9"},
		{RAM, 0xffffffff, "not (completely)"},
		{UINT64_MAX, 2, "address and length wrap"},
		{UINT64_MAX - 15, 17, "wrap"},
		{UINT64_MAX, 1, "not (completely)"},
		{1ull << 63, 4096, "not (completely)"},
	};
	struct rig r;

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		for (uint32_t flags = 0; flags <= WRITE; flags += WRITE) {
			attack(&r, 8, 0);
			desc(&r, 2, bad[i].addr, bad[i].len, flags, 0);
			offer(&r, 2);
			rig_broken(&r, bad[i].why);
		}
}

TEST(vring_hostile, R193_buffer_across_regions_becomes_pieces)
{
	struct libvhost_chain c;
	struct rig r;

	attack(&r, 8, 0);
	desc(&r, 0, DATA - 3, 8, 0, 0);
	offer(&r, 0);
	CHECK_EQ(rig_pop(&r, &c), 1);
	CHECK_EQ(c.n_read, 2);
	CHECK_EQ(c.read_len, 8);
	CHECK(c.iov[0].base == r.maps[0] + HALF - 3 && c.iov[0].len == 3);
	CHECK(c.iov[1].base == r.maps[1] && c.iov[1].len == 5);
	rig_free(&r);
}

TEST(vring_hostile, R195_empty_buffers_give_no_piece)
{
	struct libvhost_chain c;
	struct rig r;

	attack(&r, 8, 0);
	desc(&r, 0, 0xdead, 0, NEXT, 1); /* unmapped, but nothing of it is used */
	desc(&r, 1, DATA, 4, NEXT, 2);
	desc(&r, 2, 0, 0, WRITE, 0);
	desc(&r, 3, 0, 0, 0, 0);
	offer(&r, 0);
	offer(&r, 3);
	CHECK_EQ(rig_pop(&r, &c), 1);
	CHECK_EQ(c.n_read, 1);
	CHECK_EQ(c.n_write, 0);
	CHECK_EQ(rig_pop(&r, &c), 1);
	CHECK_EQ(c.n_read + c.n_write, 0);
	rig_free(&r);
}

TEST(vring_hostile, R192_more_pieces_than_the_caller_takes)
{
	struct libvhost_chain c;
	struct rig r;

	attack(&r, 128, 0);
	for (uint32_t i = 0; i < 128; i++)
		desc(&r, i, DATA, 1, i < IOV_CAP ? NEXT : 0, i + 1);
	offer(&r, 1);
	CHECK_EQ(rig_pop(&r, &c), 1); /* exactly IOV_CAP */
	CHECK_EQ(c.n_read, IOV_CAP);
	CHECK_EQ(libvhost_vq_push(r.dev, 1, 0), 0);
	CHECK_EQ(libvhost_vq_flush(r.dev), 1);
	offer(&r, 0);
	CHECK_EQ(rig_pop(&r, &c), -E2BIG);
	CHECK_HAS(vq_error(r.dev).text, "iov_cap = 64");
	CHECK_EQ(rig_pop(&r, &c), -EBADMSG);
	rig_free(&r);
}

TEST(vring_hostile, R196_request_above_4_gib)
{
	const uint64_t size = 1ull << 32, base = 1ull << 40;
	uint8_t *big = mmap(NULL, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	struct libvhost_chain c;
	struct rig r;

	CHECK(big != MAP_FAILED);
	attack(&r, 8, 0);
	put(&r.g, plain_region(base, size, big));
	desc(&r, 0, base, 0xffffffff, NEXT, 1);
	desc(&r, 1, base, 1, WRITE, 0);
	offer(&r, 0);
	CHECK_EQ(rig_pop(&r, &c), 1);
	CHECK_EQ(c.read_len + c.write_len, 1ll << 32);
	desc(&r, 2, base, 0xffffffff, NEXT, 3);
	desc(&r, 3, base, 2, WRITE, 0);
	offer(&r, 2);
	rig_broken(&r, "larger than 4 GiB");
	munmap(big, size);
}

TEST(vring_hostile, R198_readable_after_writable_and_one_byte_parts)
{
	struct libvhost_chain c;
	struct rig r;

	attack(&r, 32, 0);
	desc(&r, 0, DATA, 16, NEXT | WRITE, 1);
	desc(&r, 1, DATA, 16, 0, 0);
	offer(&r, 0);
	rig_broken(&r, "readable buffer after a writable");
	attack(&r, 32, 0); /* a header in 16 parts is legal */
	for (uint32_t i = 0; i < 16; i++)
		desc(&r, i, DATA + i, 1, NEXT, i + 1);
	desc(&r, 16, DATA + 100, 1, WRITE, 0);
	offer(&r, 0);
	CHECK_EQ(rig_pop(&r, &c), 1);
	CHECK_EQ(c.n_read, 16);
	CHECK_EQ(c.read_len, 16);
	CHECK_EQ(c.n_write, 1);
	rig_free(&r);
}

/* Writes n descriptors of an indirect table at gpa, each 16 bytes of data, linked in order. */
static void table(struct rig *r, uint64_t gpa, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++) {
		struct lv_desc d = {.addr = DATA + 0x1000 + 16 * i,
				    .len = 16,
				    .flags = i + 1 < n ? NEXT : 0,
				    .next = (uint16_t)(i + 1)};

		for (uint32_t b = 0; b < 16; b++)
			*(uint8_t *)at(&r->g, gpa + i * 16 + b) = ((uint8_t *)&d)[b];
	}
}

TEST(vring_hostile, R200_indirect_table_unmapped_or_overlapping)
{
	static const struct {
		uint64_t addr;
		uint32_t len;
		const char *why;
	} bad[] = {
		{0x10, 32, "indirect descriptor 0"}, {DATA + HALF - 16, 32, "its indirect table is not mapped"},
		{DATA + HALF - 8, 16, "not mapped"}, {UINT64_MAX - 15, 32, "wrap"},
		{RAM, 8, "not a multiple of 16"},    {RAM, 0, "not a multiple of 16"},
		{RAM, 17, "not a multiple of 16"},
	};
	struct rig r;

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		attack(&r, 8, F_INDIRECT);
		if (bad[i].addr == DATA + HALF - 16) { /* its first descriptor is there and leads on */
			table(&r, bad[i].addr, 1);
			*(uint8_t *)at(&r.g, DATA + HALF - 4) = NEXT;
			*(uint8_t *)at(&r.g, DATA + HALF - 2) = 1;
		}
		desc(&r, 1, bad[i].addr, bad[i].len, INDIRECT, 0);
		offer(&r, 1);
		rig_broken(&r, bad[i].why);
	}
	attack(&r, 8, F_INDIRECT); /* the table is the ring: its only descriptor is indirect again */
	desc(&r, 0, r.opts.desc, 128, INDIRECT, 0);
	offer(&r, 0);
	rig_broken(&r, "inside an indirect table");
}

TEST(vring_hostile, R200_indirect_table_across_regions_or_misaligned_is_copied)
{
	static const uint64_t where[] = {DATA - 32, DATA - 24, DATA - 5, DATA + 0x2003, DATA + 0x2000};
	struct libvhost_chain c;
	struct rig r;

	for (size_t w = 0; w < sizeof(where) / sizeof(where[0]); w++) {
		rig_memory(&r, 8, F_INDIRECT);
		r.opts.desc = RAM; /* away from the border */
		r.opts.avail = RAM + 0x1000;
		r.opts.used = RAM + 0x2000;
		r.ring.desc = at(&r.g, RAM);
		r.ring.avail = at(&r.g, RAM + 0x1000);
		r.ring.used = at(&r.g, RAM + 0x2000);
		rig_device(&r);
		table(&r, where[w], 4);
		desc(&r, 0, where[w], 64, INDIRECT, 0);
		offer(&r, 0);
		CHECK_EQ(rig_pop(&r, &c), 1);
		CHECK_EQ(c.n_read, 4);
		for (uint32_t i = 0; i < 4; i++)
			CHECK(c.iov[i].base == r.maps[1] + 0x1000 + 16 * i && c.iov[i].len == 16);
		rig_free(&r);
	}
}

TEST(vring_hostile, R201_indirect_rules)
{
	struct lv_desc *t;
	struct libvhost_chain c;
	struct rig r;

	attack(&r, 8, F_INDIRECT); /* nested */
	table(&r, RAM, 2);
	t = at(&r.g, RAM);
	t[1].flags = INDIRECT;
	desc(&r, 0, RAM, 32, INDIRECT, 0);
	offer(&r, 0);
	rig_broken(&r, "head 0, indirect descriptor 1");
	attack(&r, 8, F_INDIRECT); /* and NEXT */
	table(&r, RAM, 2);
	desc(&r, 0, RAM, 32, INDIRECT | NEXT, 1);
	offer(&r, 0);
	rig_broken(&r, "INDIRECT and NEXT");
	attack(&r, 8, 0); /* not negotiated */
	table(&r, RAM, 2);
	desc(&r, 0, RAM, 32, INDIRECT, 0);
	offer(&r, 0);
	rig_broken(&r, "not negotiated");
	attack(&r, 8, F_INDIRECT); /* link out of the table, though the ring has such a descriptor */
	table(&r, RAM, 2);
	t = at(&r.g, RAM);
	t[1].flags = NEXT;
	desc(&r, 0, RAM, 32, INDIRECT, 0);
	offer(&r, 0);
	rig_broken(&r, "out of the table");
	attack(&r, 8, F_INDIRECT); /* loop in it */
	table(&r, RAM, 2);
	t = at(&r.g, RAM);
	t[1].flags = NEXT;
	t[1].next = 0;
	desc(&r, 0, RAM, 32, INDIRECT, 0);
	offer(&r, 0);
	rig_broken(&r, "chain does not end");
	attack(&r, 8, F_INDIRECT); /* legal: plain ones first; WRITE on the reference means nothing */
	table(&r, RAM, 2);
	desc(&r, 4, DATA, 16, NEXT, 5);
	desc(&r, 5, RAM, 32, INDIRECT | WRITE, 0);
	offer(&r, 4);
	CHECK_EQ(rig_pop(&r, &c), 1);
	CHECK_EQ(c.n_read, 3);
	rig_free(&r);
}
