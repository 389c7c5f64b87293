/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* The driver role: arguments, a hostile device, taking over a ring; and what both roles do when memory changes. */
#include "ringhelp.h"

static const struct libvhost_buf out = {.gpa = DATA, .len = 64}, in = {.gpa = DATA + 64, .len = 32};

static uint32_t used(struct rig *r, struct libvhost_used *u)
{
	uint32_t n = 4;

	CHECK_EQ(libvhost_vq_get_used(r->drv, u, &n), 0);
	return n;
}

/* One request on the ring: 64 bytes out, 32 in. Returns its head. */
static uint32_t add_one(struct rig *r, uint64_t token)
{
	const struct libvhost_buf b[] = {out, in};
	uint16_t idx = lv_ring_idx(&r->ring, r->ring.avail);

	CHECK_EQ(libvhost_vq_add(r->drv, b, 1, 1, token), 0);
	CHECK(libvhost_vq_kick(r->drv) >= 0);
	return lv_avail_get(&r->ring, idx);
}

static void check_broken(struct rig *r, const char *why)
{
	struct libvhost_used u = {.token = 99};
	uint32_t n = 1;

	CHECK_EQ(libvhost_vq_get_used(r->drv, &u, &n), -EBADMSG);
	CHECK_EQ(n, 1);
	CHECK_EQ(u.token, 99);
	CHECK_HAS(vq_error(r->drv).text, "queue 7");
	CHECK_HAS(vq_error(r->drv).text, why);
	CHECK_EQ(libvhost_vq_add(r->drv, &in, 0, 1, 0), -EBADMSG);
	CHECK_EQ(libvhost_vq_kick(r->drv), -EBADMSG);
	CHECK_EQ(libvhost_vq_notify_enable(r->drv, 1), -EBADMSG);
	CHECK_EQ(vq_info(r->drv).broken, 1);
	rig_free(r);
}

TEST(vring_driver, used_entries_that_name_nothing_in_flight)
{
	struct rig r;

	rig_new(&r, 8, 0);
	add_one(&r, 1);
	complete(&r, 8, 0); /* outside */
	check_broken(&r, "descriptor 8, which does not exist");
	rig_new(&r, 8, 0);
	add_one(&r, 1);
	complete(&r, UINT32_MAX, 0);
	check_broken(&r, "descriptor 4294967295");
	rig_new(&r, 8, 0);
	complete(&r, add_one(&r, 1) + 1, 0); /* inside a chain, not its head */
	check_broken(&r, "not in flight");
	rig_new(&r, 8, 0);
	add_one(&r, 1);
	complete(&r, 7, 0); /* free */
	check_broken(&r, "head 7, which is not in flight");
}

TEST(vring_driver, used_index_that_jumps)
{
	struct rig r;

	rig_new(&r, 8, F_EVENT);
	add_one(&r, 1);
	lv_ring_set_idx(&r.ring, r.ring.used, 2);
	check_broken(&r, "used index went from 0 to 2 but only 1 requests are in flight");
	rig_new(&r, 8, F_EVENT);
	lv_ring_set_idx(&r.ring, r.ring.used, 1);
	check_broken(&r, "only 0");
	rig_new(&r, 8, F_EVENT);
	CHECK_EQ(libvhost_vq_add(r.drv, &in, 0, 1, 2), 0); /* not kicked: the device cannot have seen it */
	lv_ring_set_idx(&r.ring, r.ring.used, 1);
	check_broken(&r, "only 0");
	rig_new(&r, 8, 0);
	add_one(&r, 1);
	lv_ring_set_idx(&r.ring, r.ring.used, 0xffff); /* backwards */
	check_broken(&r, "to 65535");
}

TEST(vring_driver, completed_before_published_or_twice)
{
	struct libvhost_used u[4];
	uint32_t head;
	struct rig r;

	rig_new(&r, 8, 0);
	add_one(&r, 1);
	CHECK_EQ(libvhost_vq_add(r.drv, &in, 0, 1, 2), 0); /* head 2, not kicked */
	complete(&r, 2, 0);
	check_broken(&r, "head 2, which is not in flight");
	rig_new(&r, 8, 0);
	head = add_one(&r, 1);
	add_one(&r, 2);
	complete(&r, head, 0);
	complete(&r, head, 0);
	CHECK_EQ(used(&r, u), 1); /* the good one is not lost */
	CHECK_EQ(u[0].token, 1);
	check_broken(&r, "not in flight");
}

TEST(vring_driver, used_length_is_cut)
{
	struct libvhost_used u[4];
	struct rig r;

	rig_new(&r, 8, 0);
	complete(&r, add_one(&r, 5), 33);
	complete(&r, add_one(&r, 6), UINT32_MAX);
	complete(&r, add_one(&r, 7), 31);
	CHECK_EQ(used(&r, u), 3);
	CHECK_EQ(u[0].len, 32);
	CHECK_EQ(u[1].len, 32);
	CHECK_EQ(u[2].len, 31);
	CHECK_EQ(u[2].token, 7);
	rig_free(&r);
}

TEST(vring_driver, device_that_rewrites_descriptors_changes_nothing)
{
	struct libvhost_used u[4];
	struct rig r;

	rig_new(&r, 8, 0);
	for (uint32_t i = 0; i < 1000; i++) {
		uint32_t head = add_one(&r, i);

		memset(r.ring.desc, 0xff, 8 * sizeof(struct lv_desc));
		*lv_avail_slot(&r.ring, (uint16_t)i) = 0xffff;
		complete(&r, head, 1);
		CHECK_EQ(used(&r, u), 1);
		CHECK_EQ(u[0].token, i);
	}
	for (uint32_t i = 0; i < 4; i++)
		add_one(&r, i);
	CHECK_EQ(libvhost_vq_add(r.drv, &in, 0, 1, 0), -ENOSPC);
	rig_free(&r);
}

TEST(vring_driver, add_checks_its_arguments)
{
	struct libvhost_buf b[9] = {out, in}, big[3] = {{.gpa = 0, .len = UINT32_MAX}, {.gpa = 0, .len = 2}};
	struct rig r;

	for (int i = 2; i < 9; i++)
		b[i] = in;
	rig_new(&r, 8, 0);
	CHECK_EQ(libvhost_vq_add(r.drv, b, 0, 0, 0), -EINVAL);
	CHECK_EQ(libvhost_vq_add(r.drv, b, 4, 5, 0), -EINVAL);
	CHECK_HAS(vq_error(r.drv).text, "1 to 8 buffers");
	CHECK_EQ(libvhost_vq_add(r.drv, b, 1, UINT32_MAX, 0), -EINVAL);
	CHECK_EQ(libvhost_vq_add(r.drv, NULL, 1, 1, 0), -EINVAL);
	CHECK_EQ(libvhost_vq_add(r.dev, b, 1, 1, 0), -EINVAL);
	CHECK_EQ(libvhost_vq_add(r.drv, big, 1, 1, 0), -EINVAL);
	b[1].len = 0;
	CHECK_EQ(libvhost_vq_add(r.drv, b, 1, 1, 0), -EINVAL);
	b[1] = (struct libvhost_buf){.gpa = 1, .len = 1, .flags = 1};
	CHECK_EQ(libvhost_vq_add(r.drv, b, 1, 1, 0), -EINVAL);
	b[1] = in;
	CHECK_EQ(vq_info(r.drv).in_flight, 0);
	CHECK_EQ(libvhost_vq_add(r.drv, b, 4, 4, 0), 0);
	CHECK_EQ(libvhost_vq_add(r.drv, b, 0, 1, 0), -ENOSPC);
	CHECK_EQ(lv_ring_idx(&r.ring, r.ring.avail), 0);
	CHECK_EQ(libvhost_vq_kick(r.drv), 1);
	CHECK_EQ(lv_ring_idx(&r.ring, r.ring.avail), 1);
	CHECK_EQ(libvhost_vq_kick(r.drv), 0);
	rig_free(&r);
}

TEST(vring_driver, resume_takes_over_what_is_in_flight)
{
	struct libvhost_vq *first;
	struct libvhost_used u[4];
	struct libvhost_chain c;
	struct rig r;

	rig_new(&r, 8, F_EVENT);
	first = r.drv;
	for (uint32_t i = 0; i < 3; i++)
		add_one(&r, 10 + i);
	CHECK_EQ(rig_pop(&r, &c), 1);
	CHECK_EQ(libvhost_vq_push(r.dev, c.head, 4), 0);
	CHECK(libvhost_vq_flush(r.dev) >= 0);
	r.opts.flags |= LIBVHOST_VQ_RESUME;
	rig_driver(&r); /* the new owner; one of three is complete, so two come back */
	libvhost_vq_free(first);
	CHECK_EQ(vq_info(r.drv).in_flight, 2);
	CHECK_EQ(vq_info(r.drv).base, 1);
	CHECK_EQ(used(&r, u), 0);
	for (uint32_t i = 0; i < 4; i++) /* four descriptors are taken, four free */
		CHECK_EQ(libvhost_vq_add(r.drv, &in, 0, 1, 20 + i), 0);
	CHECK_EQ(libvhost_vq_add(r.drv, &in, 0, 1, 30), -ENOSPC);
	CHECK_EQ(libvhost_vq_kick(r.drv) >= 0, 1);
	for (uint32_t i = 0; i < 6; i++) {
		CHECK_EQ(rig_pop(&r, &c), 1);
		CHECK_EQ(libvhost_vq_push(r.dev, c.head, 4), 0);
		CHECK(libvhost_vq_flush(r.dev) >= 0);
		CHECK_EQ(used(&r, u), 1);
		CHECK_EQ(u[0].flags, i < 2 ? LIBVHOST_USED_RESUMED : 0);
		CHECK_EQ(u[0].token, i < 2 ? c.head : 20 + i - 2);
	}
	for (uint32_t i = 0; i < 4; i++)
		add_one(&r, i);
	rig_free(&r);
}

TEST(vring_driver, resume_refuses_nonsense)
{
	struct libvhost_error e = {.size = sizeof(e)};
	struct lv_ledger before;
	struct rig r;

	rig_memory(&r, 8, 0);
	r.opts.flags |= LIBVHOST_VQ_RESUME;
	before = lv_ledger_take();
	for (int i = 0; i < 4; i++) {
		memset(r.ring.avail, 0, 20);
		lv_ring_set_idx(&r.ring, r.ring.avail, i == 0 ? 9 : 2);
		*lv_avail_slot(&r.ring, 1) = i == 1 ? 8 : i == 2 ? 0 : 2; /* outside, twice, a loop */
		desc(&r, 0, DATA, 1, LV_DESC_NEXT, 1);
		desc(&r, 1, DATA, 1, 0, 0);
		desc(&r, 2, DATA, 1, LV_DESC_NEXT, 2);
		CHECK_EQ(libvhost_vq_new(r.g.ctx, r.g.mem, &r.opts, &r.drv), -EBADMSG);
		CHECK(!r.drv);
		CHECK_EQ(libvhost_ctx_error(r.g.ctx, &e), 0);
		CHECK_HAS(e.text, "cannot resume");
	}
	CHECK_LEDGER(before);
	rig_free(&r);
}

TEST(vring, options_are_checked)
{
	struct libvhost_error e = {.size = sizeof(e)};
	struct libvhost_vq_opts good, o;
	struct rig r;
#define REFUSED(code, why, ...)                                                                                        \
	do {                                                                                                           \
		o = good;                                                                                              \
		__VA_ARGS__;                                                                                           \
		CHECK_EQ(libvhost_vq_new(r.g.ctx, r.g.mem, &o, &r.drv), code);                                         \
		CHECK_EQ(libvhost_ctx_error(r.g.ctx, &e), 0);                                                          \
		CHECK_HAS(e.text, why);                                                                                \
	} while (0)

	rig_memory(&r, 8, 0);
	good = r.opts;
	REFUSED(-ENOTSUP, "packed ring cannot be resumed", o.features |= F_PACKED; o.flags |= LIBVHOST_VQ_RESUME);
	REFUSED(-EINVAL, "unknown flags", o.flags |= 16);
	REFUSED(-EINVAL, "reserved", o.reserved = 1);
	REFUSED(-EINVAL, "role", o.role = 2);
	REFUSED(-EINVAL, "power of two", o.num = 0);
	REFUSED(-EINVAL, "power of two", o.num = 6);
	REFUSED(-EINVAL, "power of two", o.num = 65536);
	REFUSED(-EINVAL, "16 bits", o.base = 65536);
	REFUSED(-EINVAL, "1 to 32768", o.features |= F_PACKED; o.num = 32769);
	REFUSED(-EINVAL, "1 to 32768", o.features |= F_PACKED; o.num = 0);
	REFUSED(-EINVAL, "max_chain", o.max_chain = 9);
	REFUSED(-EINVAL, "INDIRECT_DESC", o.indirect = RAM);
	REFUSED(-EINVAL, "driver role", o.role = LIBVHOST_VQ_DEVICE; o.max_chain = 1);
	REFUSED(-EINVAL, "misaligned", o.desc += 8);
	REFUSED(-EINVAL, "misaligned", o.avail += 1);
	REFUSED(-EINVAL, "misaligned", o.used += 2);
	REFUSED(-EFAULT, "descriptor table at guest address 0x10 ", o.desc = 0x10);
	REFUSED(-EFAULT, "available ring", o.avail = DATA + HALF - 2);
	REFUSED(-EFAULT, "used ring", o.used = DATA - 4);
	REFUSED(-EFAULT, "indirect tables", o.features |= F_INDIRECT; o.indirect = DATA - 16);
	REFUSED(-EINVAL, "opts", o.size = 8);
	CHECK_EQ(libvhost_vq_new(NULL, r.g.mem, &good, &r.drv), -EINVAL);
	CHECK_EQ(libvhost_vq_new(r.g.ctx, NULL, &good, &r.drv), -EINVAL);
	CHECK_EQ(libvhost_vq_new(r.g.ctx, r.g.mem, NULL, &r.drv), -EINVAL);
	CHECK_EQ(libvhost_vq_new(r.g.ctx, r.g.mem, &good, NULL), -EINVAL);
	CHECK(!r.drv);
	rig_free(&r);
#undef REFUSED
}

TEST(vring, layout_of_all_areas)
{
	struct libvhost_vq_layout l = {.size = sizeof(l)};

	CHECK_EQ(libvhost_vq_layout(256, 0, &l), 0);
	CHECK_EQ(l.desc_bytes, 4096);
	CHECK_EQ(l.avail_bytes, 516);
	CHECK_EQ(l.used_bytes, 2052);
	CHECK_EQ(libvhost_vq_layout(256, F_EVENT, &l), 0);
	CHECK_EQ(l.avail_bytes, 518);
	CHECK_EQ(l.used_bytes, 2054);
	CHECK(l.desc_align == 16 && l.avail_align == 2 && l.used_align == 4);
	CHECK_EQ(libvhost_vq_layout(7, LV_F_RING_PACKED, &l), 0);
	CHECK(l.desc_bytes == 112 && l.avail_bytes == 4 && l.used_bytes == 4 && l.avail_align == 4);
	CHECK_EQ(libvhost_vq_layout(7, 0, &l), -EINVAL);
	CHECK_EQ(libvhost_vq_layout(0, 0, &l), -EINVAL);
	CHECK_EQ(libvhost_vq_layout(65536, 0, &l), -EINVAL);
	CHECK_EQ(libvhost_vq_layout(32769, LV_F_RING_PACKED, &l), -EINVAL);
	CHECK_EQ(libvhost_vq_layout(8, 0, NULL), -EINVAL);
}
