/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* Packed rings as they lie in memory: what each side writes, where, in which lap; bases; rings at rest. */
#include "ringhelp.h"

#define LAP LV_POS_WRAP

static uint64_t meta(struct rig *r, uint32_t slot_no)
{
	return lv_packed_load(&r->packed, (uint16_t)slot_no);
}

TEST(vring_packed, a_chain_in_memory)
{
	const struct libvhost_buf b[] = {{.gpa = DATA, .len = 16}, {.gpa = DATA + 16, .len = 32}};
	struct rig r;

	rig_memory(&r, 5, F_PACKED);
	rig_driver(&r);
	CHECK_EQ(libvhost_vq_add(r.drv, b, 1, 1, 1), 0);
	CHECK_EQ(lv_meta_flags(meta(&r, 0)), 0); /* held back until the kick */
	CHECK_EQ(libvhost_vq_kick(r.drv), 1);
	CHECK_EQ(r.packed.desc[0].addr, DATA);
	CHECK_EQ(r.packed.desc[0].len, 16);
	CHECK_EQ(r.packed.desc[0].flags, LV_PACKED_AVAIL | LV_DESC_NEXT);
	CHECK_EQ(r.packed.desc[1].addr, DATA + 16);
	CHECK_EQ(r.packed.desc[1].len, 32);
	CHECK_EQ(r.packed.desc[1].flags, LV_PACKED_AVAIL | LV_DESC_WRITE);
	CHECK_EQ(r.packed.desc[1].id, r.packed.desc[0].id);
	CHECK_EQ(libvhost_vq_add(r.drv, b, 2, 0, 2), 0);
	CHECK_EQ(libvhost_vq_add(r.drv, b, 2, 0, 3), -ENOSPC); /* one slot is left */
	CHECK_EQ(libvhost_vq_add(r.drv, b, 1, 0, 3), 0);
	CHECK_EQ(libvhost_vq_kick(r.drv), 1);
	for (uint32_t i = 0; i < 5; i++)
		CHECK(lv_meta_is(meta(&r, i), LV_PACKED_AVAIL));
	rig_free(&r);
}

TEST(vring_packed, an_indirect_table_in_memory)
{
	const struct libvhost_buf b[] = {{.gpa = DATA, .len = 16}, {.gpa = DATA + 16, .len = 32}};
	const struct lv_packed_desc *table;
	struct rig r;

	rig_memory(&r, 5, F_PACKED | F_INDIRECT);
	rig_driver(&r);
	CHECK_EQ(libvhost_vq_add(r.drv, b, 1, 1, 1), 0);
	CHECK_EQ(libvhost_vq_kick(r.drv), 1);
	CHECK_EQ(r.packed.desc[0].flags, LV_PACKED_AVAIL | LV_DESC_INDIRECT);
	CHECK_EQ(r.packed.desc[0].len, 32);
	table = at(&r.g, r.packed.desc[0].addr);
	CHECK(table[0].addr == DATA && table[0].len == 16 && table[0].flags == 0);
	CHECK(table[1].addr == DATA + 16 && table[1].len == 32 && table[1].flags == LV_DESC_WRITE);
	CHECK_EQ(libvhost_vq_add(r.drv, b, 1, 0, 1), 0); /* a single buffer needs no table */
	CHECK_EQ(libvhost_vq_kick(r.drv), 1);
	CHECK_EQ(r.packed.desc[1].flags, LV_PACKED_AVAIL);
	rig_free(&r);
}

TEST(vring_packed, the_second_lap_turns_the_bits_over)
{
	struct libvhost_chain c;
	struct libvhost_used u;
	uint32_t n = 1;
	struct rig r;

	rig_memory(&r, 3, F_PACKED);
	rig_device(&r);
	for (uint16_t pos = LAP, i = 0; i < 9; i++, pos = lv_pos_next(pos, 1, 3)) {
		slot_offer(&r, pos, DATA, 16, i % 3, LV_DESC_WRITE);
		CHECK_EQ(r.packed.desc[i % 3].flags & 0x8080, i / 3 % 2 ? 0x8000 : 0x80);
		CHECK_EQ(rig_pop(&r, &c), 1);
		CHECK_EQ(c.head, i % 3);
		CHECK_EQ(libvhost_vq_push(r.dev, c.head, i), 0);
		CHECK_EQ(libvhost_vq_flush(r.dev), 1);
		CHECK_EQ(r.packed.desc[i % 3].flags & 0x8080, i / 3 % 2 ? 0 : 0x8080);
		CHECK_EQ(!(r.packed.desc[i % 3].flags & LV_DESC_WRITE), !i); /* something was written */
		CHECK_EQ(r.packed.desc[i % 3].id, i % 3);
		CHECK_EQ(r.packed.desc[i % 3].len, i);
		CHECK_EQ(rig_pop(&r, &c), 0);
	}
	rig_driver(&r);
	CHECK_EQ(libvhost_vq_get_used(r.drv, &u, &n), 0);
	CHECK_EQ(n, 0); /* a new driver begins with nothing in flight */
	rig_free(&r);
}

/* What the driver sees of a burst while it is written: all of it or nothing. */
TEST(vring_packed, a_burst_is_published_with_its_first_descriptor)
{
	struct libvhost_chain c;
	struct rig r;

	rig_memory(&r, 8, F_PACKED);
	rig_device(&r);
	for (uint32_t i = 0; i < 4; i++)
		slot_offer(&r, (uint16_t)(LAP | i), DATA, 16, i, LV_DESC_WRITE);
	for (uint32_t i = 0; i < 4; i++) {
		CHECK_EQ(rig_pop(&r, &c), 1);
		CHECK_EQ(libvhost_vq_push(r.dev, c.head, 1), 0);
		for (uint32_t k = 0; k < 4; k++)
			CHECK(lv_meta_is(meta(&r, k), LV_PACKED_AVAIL)); /* nothing is out */
	}
	CHECK_EQ(libvhost_vq_flush(r.dev), 1);
	for (uint32_t k = 0; k < 4; k++)
		CHECK(lv_meta_is(meta(&r, k), LV_PACKED_AVAIL | LV_PACKED_USED));
	CHECK_EQ(vq_info(r.dev).notifications, 1);
	rig_free(&r);
}

TEST(vring_packed, used_descriptors_over_those_in_flight)
{
	struct libvhost_chain a, b;
	struct libvhost_iov iov[4];
	struct lv_packed_taken *t;
	struct rig r;

	rig_memory(&r, 4, F_PACKED);
	rig_device(&r);
	slot_offer(&r, LAP | 1, DATA + 256, 64, 0, LV_DESC_WRITE);
	slot_offer(&r, LAP | 0, DATA, 16, 0, LV_DESC_NEXT);
	slot_offer(&r, LAP | 2, DATA + 512, 8, 1, LV_DESC_WRITE);
	a = rig_chain(&r);
	a.iov = iov;
	CHECK_EQ(libvhost_vq_pop(r.dev, &a), 1);
	CHECK_EQ(rig_pop(&r, &b), 1);
	CHECK_EQ(libvhost_vq_push(r.dev, b.head, 8), 0);
	CHECK_EQ(libvhost_vq_flush(r.dev), 1); /* lands in slot 0, which was the first one's */
	CHECK_EQ(r.packed.desc[0].id, 1);
	slot_offer(&r, LAP | 3, DATA + 1024, 8, 1, LV_DESC_WRITE); /* all that a driver may offer now */
	CHECK_EQ(rig_pop(&r, &b), 1);
	t = &r.dev->pdev.taken[0]; /* the private copies are whole */
	CHECK_EQ(t->descs, 2);
	CHECK_EQ(r.dev->pdev.copies[t->first].addr, DATA);
	CHECK_EQ(r.dev->pdev.link[t->first], t->last);
	CHECK_EQ(r.dev->pdev.copies[t->last].addr, DATA + 256);
	CHECK_EQ(lv_meta_len(r.dev->pdev.copies[t->last].meta), 64);
	CHECK_EQ(libvhost_vq_push(r.dev, a.head, 64), 0);
	CHECK_EQ(libvhost_vq_push(r.dev, b.head, 8), 0);
	CHECK_EQ(libvhost_vq_flush(r.dev), 1);
	CHECK_EQ(r.packed.desc[1].id, 0);
	CHECK_EQ(r.packed.desc[3].id, 1); /* behind the two slots of the first */
	CHECK_EQ(vq_info(r.dev).base, lv_pos_base(0));
	rig_free(&r);
}

TEST(vring_packed, bases)
{
	static const struct {
		uint32_t base;
		int in_flight;
	} rows[] = {
		{0x80008000, 0},  {0, 0},	    {0x80068006, 0},  {0x80008006, 6},	{0x80060000, 1},
		{0x80010001, 7},  {0x00068001, 2},  {0x80078007, -1}, {0x00078000, -1}, {0x80068000, -1},
		{0x80008007, -1}, {0x80000001, -1}, {0xffffffff, -1}, {0x80000000, 7},
	};
	struct libvhost_vq *vq;
	struct rig r;

	rig_memory(&r, 7, F_PACKED);
	r.opts.flags |= LIBVHOST_VQ_HAS_BASE;
	for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
		const bool empty = rows[i].in_flight == 0;

		r.opts.base = rows[i].base;
		r.opts.role = LIBVHOST_VQ_DEVICE;
		CHECK_EQ(libvhost_vq_new(r.g.ctx, r.g.mem, &r.opts, &vq), rows[i].in_flight < 0 ? -EINVAL : 0);
		if (rows[i].in_flight >= 0) {
			CHECK_EQ(vq_info(vq).base, rows[i].base);
			CHECK_EQ(vq->pdev.free_count, 7 - rows[i].in_flight);
			libvhost_vq_free(vq);
		}
		r.opts.role = LIBVHOST_VQ_DRIVER;
		CHECK_EQ(libvhost_vq_new(r.g.ctx, r.g.mem, &r.opts, &vq), empty ? 0 : -EINVAL);
		if (empty) {
			CHECK_EQ(vq_info(vq).base, rows[i].base);
			libvhost_vq_free(vq);
		}
		CHECK_EQ(lv_packed_base_possible(rows[i].base, 7), rows[i].in_flight >= 0);
	}
	rig_free(&r);
	CHECK_EQ(lv_packed_full_base(0x8005), 0x80058005); /* as DPDK says it */
	CHECK_EQ(lv_packed_full_base(0x80048005), 0x80048005);
}

TEST(vring_packed, a_fresh_ring_needs_no_base)
{
	struct rig r;

	rig_memory(&r, 7, F_PACKED);
	r.opts.base = 3; /* not given: it does not count */
	rig_driver(&r);
	rig_device(&r);
	CHECK_EQ(vq_info(r.drv).base, LV_PACKED_BASE);
	CHECK_EQ(vq_info(r.dev).base, LV_PACKED_BASE);
	rig_free(&r);
}

TEST(vring_packed, a_device_goes_on_where_another_stopped)
{
	const struct libvhost_buf b[] = {{.gpa = DATA, .len = 16}, {.gpa = DATA + 16, .len = 32}};
	struct libvhost_chain c;
	struct libvhost_used u;
	struct rig r;

	rig_new(&r, 5, F_PACKED | F_EVENT);
	r.opts.flags |= LIBVHOST_VQ_HAS_BASE;
	for (uint32_t i = 0; i < 100; i++) {
		uint32_t n = 1;

		CHECK_EQ(libvhost_vq_add(r.drv, b, 1, 1, i), 0);
		CHECK_EQ(libvhost_vq_add(r.drv, b, 1, 1, i + 1000), 0);
		CHECK(libvhost_vq_kick(r.drv) >= 0);
		for (uint32_t k = 0; k < 2; k++) {
			CHECK_EQ(rig_pop(&r, &c), 1);
			CHECK_EQ(libvhost_vq_push(r.dev, c.head, 7), 0);
			CHECK(libvhost_vq_flush(r.dev) >= 0);
			CHECK_EQ(libvhost_vq_get_used(r.drv, &u, &n), 0);
			CHECK(n == 1 && u.token == i + k * 1000 && u.len == 7);
			CHECK_EQ(vq_info(r.drv).base, vq_info(r.dev).base);
			r.opts.base = vq_info(r.dev).base;
			libvhost_vq_free(r.dev);
			rig_device(&r);
		}
	}
	rig_free(&r);
}

TEST(vring_packed, ring_at_rest_tells_its_work)
{
	struct lv_snapshot *snap;
	struct rig r;

	rig_memory(&r, 8, F_PACKED);
	snap = lv_mem_snapshot(r.g.mem);
	CHECK_EQ(lv_packed_has_work(snap, r.opts.desc, 8, LV_PACKED_BASE), 0);
	slot_offer(&r, LAP | 3, DATA, 1, 0, 0);
	CHECK_EQ(lv_packed_has_work(snap, r.opts.desc, 8, LV_PACKED_BASE), 0);
	CHECK_EQ(lv_packed_has_work(snap, r.opts.desc, 8, 0x80038003), 1);
	CHECK_EQ(lv_packed_has_work(snap, r.opts.desc, 8, 0x80030003), 0);
	CHECK_EQ(lv_packed_has_work(snap, r.opts.desc, 8, 0x80088008), -EFAULT);
	CHECK_EQ(lv_packed_has_work(snap, r.opts.desc + 4, 8, LV_PACKED_BASE), -EFAULT);
	CHECK_EQ(lv_packed_has_work(snap, 0, 8, LV_PACKED_BASE), -EFAULT);
	lv_snapshot_put(snap);
	rig_free(&r);
}

/* The guest's wish, in all its forms; without EVENT_IDX a place says nothing. */
TEST(vring_packed, event_structures)
{
	static const struct {
		uint64_t features;
		uint16_t flags, off_wrap;
		int kick;
	} rows[] = {
		{0, LV_EVENT_ENABLE, 0, 1},
		{0, LV_EVENT_DISABLE, 0, 0},
		{0, LV_EVENT_DESC, 5, 1},
		{0, 3, 0, 1},
		{F_EVENT, LV_EVENT_ENABLE, 5, 1},
		{F_EVENT, LV_EVENT_DISABLE, 0, 0},
		{F_EVENT, LV_EVENT_DESC, LAP | 0, 1},
		{F_EVENT, LV_EVENT_DESC, LAP | 1, 1},
		{F_EVENT, LV_EVENT_DESC, LAP | 2, 0},
		{F_EVENT, LV_EVENT_DESC, 0, 0},
		{F_EVENT, LV_EVENT_DESC, 0xffff, 0},
		{F_EVENT, 3, LAP | 4, 1},
	};
	const struct libvhost_buf b[] = {{.gpa = DATA, .len = 16}, {.gpa = DATA + 16, .len = 32}};
	struct rig r;

	for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
		rig_memory(&r, 5, F_PACKED | rows[i].features);
		rig_driver(&r);
		lv_packed_event_set(r.packed.device, rows[i].flags, rows[i].off_wrap);
		CHECK_EQ(libvhost_vq_add(r.drv, b, 1, 1, 0), 0); /* slots 0 and 1 */
		CHECK_EQ(libvhost_vq_kick(r.drv), rows[i].kick);
		rig_free(&r);
	}
}

TEST(vring_packed, an_event_in_the_lap_before)
{
	const struct libvhost_buf b[] = {{.gpa = DATA, .len = 16}, {.gpa = DATA + 16, .len = 32}};

	for (uint16_t off = 0; off < 5; off++)
		for (int lap = 0; lap < 2; lap++) {
			struct rig r;

			rig_memory(&r, 5, F_PACKED | F_EVENT);
			r.opts.flags |= LIBVHOST_VQ_HAS_BASE;
			r.opts.base = lv_pos_base(LAP | 4);
			rig_driver(&r);
			lv_packed_event_set(r.packed.device, LV_EVENT_DESC, (uint16_t)(off | (lap ? LAP : 0)));
			CHECK_EQ(libvhost_vq_add(r.drv, b, 1, 1, 0), 0); /* slot 4 of this lap, 0 of the next */
			CHECK_EQ(libvhost_vq_kick(r.drv), lap ? off == 4 : off == 0);
			rig_free(&r);
		}
}
