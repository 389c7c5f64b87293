/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* Rings when the memory map changes, notifications, and rings at rest. */
#include "ringhelp.h"

static void change(struct rig *r, uint64_t add, uint64_t remove)
{
	CHECK_EQ(libvhost_mem_begin(r->g.mem), 0);
	if (add)
		CHECK_EQ(libvhost_mem_alloc(r->g.mem, add, HALF), 0);
	if (remove)
		CHECK_EQ(libvhost_mem_remove(r->g.mem, remove, HALF), 0);
	CHECK_EQ(libvhost_mem_commit(r->g.mem, 0, NULL), 0);
}

TEST(vring, new_memory_is_seen_and_old_stays_mapped_while_in_flight)
{
	const uint64_t extra = 1ull << 32;
	struct libvhost_chain a, b;
	struct lv_ledger before;
	struct rig r;

	rig_memory(&r, 8, 0);
	rig_device(&r);
	before = lv_ledger_take();
	change(&r, extra, 0);
	desc(&r, 0, extra, 4096, LV_DESC_WRITE, 0);
	offer(&r, 0);
	CHECK_EQ(rig_pop(&r, &a), 1);
	a.iov = memcpy((struct libvhost_iov[1]){{0}}, a.iov, sizeof(*a.iov));
	change(&r, 0, extra);
	for (uint32_t i = 0; i < 50; i++) { /* many maps later */
		change(&r, extra + HALF, 0);
		desc(&r, 1, extra + HALF, 4096, LV_DESC_WRITE, 0);
		offer(&r, 1);
		CHECK_EQ(rig_pop(&r, &b), 1);
		memset(b.iov[0].base, 2, b.iov[0].len);
		change(&r, 0, extra + HALF);
		CHECK_EQ(libvhost_vq_push(r.dev, 1, 1), 0);
		CHECK_EQ(libvhost_vq_flush(r.dev), 1);
	}
	memset(a.iov[0].base, 1, a.iov[0].len); /* still mapped */
	CHECK_EQ(libvhost_vq_push(r.dev, 0, 1), 0);
	CHECK_EQ(libvhost_vq_flush(r.dev), 1);
	CHECK_LEDGER(before); /* and now gone */
	desc(&r, 0, extra, 4096, LV_DESC_WRITE, 0);
	offer(&r, 0);
	CHECK_EQ(rig_pop(&r, &a), -EBADMSG);
	rig_free(&r);
}

TEST(vring, ring_that_vanishes_breaks_the_queue)
{
	struct libvhost_buf b = {.gpa = DATA, .len = 4};
	struct libvhost_used u;
	struct libvhost_chain c;
	uint32_t n = 1;
	struct rig r;

	rig_new(&r, 8, F_EVENT);
	CHECK_EQ(libvhost_vq_add(r.drv, &b, 0, 1, 1), 0);
	CHECK_EQ(libvhost_vq_kick(r.drv), 1);
	CHECK_EQ(rig_pop(&r, &c), 1);
	CHECK_EQ(libvhost_vq_push(r.dev, c.head, 4), 0);
	change(&r, 0, RAM);
	CHECK_EQ(libvhost_vq_flush(r.dev), -EBADMSG);
	CHECK_HAS(vq_error(r.dev).text, "guest memory changed under the ring");
	CHECK_HAS(vq_error(r.dev).text, "descriptor table");
	CHECK_EQ(libvhost_vq_get_used(r.drv, &u, &n), -EBADMSG);
	CHECK_EQ(vq_info(r.drv).broken + vq_info(r.dev).broken, 2);
	rig_free(&r);
}

TEST(vring, ring_that_moves_is_followed)
{
	struct libvhost_buf b = {.gpa = DATA, .len = 4};
	struct libvhost_chain c;
	struct rig r;

	rig_new(&r, 8, 0);
	CHECK_EQ(libvhost_mem_begin(r.g.mem), 0);
	CHECK_EQ(libvhost_mem_remove(r.g.mem, RAM, HALF), 0);
	CHECK_EQ(libvhost_mem_alloc(r.g.mem, RAM, HALF), 0);
	CHECK_EQ(libvhost_mem_commit(r.g.mem, 0, NULL), 0);
	munmap(r.maps[0], HALF); /* whoever still used it would fault */
	CHECK_EQ(libvhost_vq_add(r.drv, &b, 0, 1, 1), 0);
	CHECK_EQ(libvhost_vq_kick(r.drv), 1);
	CHECK_EQ(rig_pop(&r, &c), 1);
	CHECK_EQ(c.n_write, 1);
	rig_free(&r);
}

TEST(vring, writable_buffer_in_read_only_memory)
{
	const uint64_t at = 1ull << 32;
	struct libvhost_region ro = plain_region(at, PAGE, guarded(PAGE));
	struct libvhost_chain c;
	struct rig r;

	ro.flags |= LIBVHOST_REGION_READONLY;
	rig_memory(&r, 8, 0);
	put(&r.g, ro);
	rig_device(&r);
	desc(&r, 0, at, 16, 0, 0);
	desc(&r, 1, DATA, 16, LV_DESC_WRITE | LV_DESC_NEXT, 2);
	desc(&r, 2, at, 16, LV_DESC_WRITE, 0);
	offer(&r, 0);
	offer(&r, 1);
	CHECK_EQ(rig_pop(&r, &c), 1);
	CHECK_EQ(rig_pop(&r, &c), -EBADMSG);
	CHECK_HAS(vq_error(r.dev).text, "head 1, descriptor 2");
	CHECK_HAS(vq_error(r.dev).text, "read-only");
	rig_free(&r);
	munmap((uint8_t *)(uintptr_t)ro.user_addr - PAGE, 3 * PAGE);
}

/* Offers and serves one; returns bit 0: the device was kicked, bit 1: the driver was called. */
static int hop(struct rig *r)
{
	struct libvhost_buf b = {.gpa = DATA, .len = 4};
	struct libvhost_chain c;
	int result;

	CHECK_EQ(libvhost_vq_add(r->drv, &b, 0, 1, 1), 0);
	result = libvhost_vq_kick(r->drv);
	CHECK_EQ(result, signalled(r->kick));
	CHECK_EQ(rig_pop(r, &c), 1);
	CHECK_EQ(libvhost_vq_push(r->dev, c.head, 4), 0);
	result |= libvhost_vq_flush(r->dev) << 1;
	CHECK_EQ(result >> 1, signalled(r->call));
	return result;
}

static void reap(struct rig *r)
{
	struct libvhost_used u[8];
	uint32_t n = 8;

	CHECK_EQ(libvhost_vq_get_used(r->drv, u, &n), 0);
}

TEST(vring, notifications_are_sent_when_asked_for)
{
	struct libvhost_chain c;
	struct rig r;

	for (uint64_t f = 0; f < 4; f++) {
		rig_new(&r, 8, (f & 1 ? F_EVENT : 0) | (f & 2 ? F_PACKED : 0));
		for (int i = 0; i < 20; i++) {
			CHECK_EQ(hop(&r), 3);
			CHECK_EQ(rig_pop(&r, &c), 0); /* asks for the next kick, as get_used does for calls */
			reap(&r);
		}
		CHECK_EQ(libvhost_vq_notify_enable(r.dev, 0), 0);
		CHECK_EQ(libvhost_vq_notify_enable(r.drv, 0), 0);
		for (int i = 0; i < 20; i++) {
			CHECK_EQ(hop(&r), 0);
			reap(&r);
		}
		CHECK_EQ(hop(&r), 0);
		CHECK_EQ(libvhost_vq_notify_enable(r.dev, 1), 0);
		CHECK_EQ(libvhost_vq_notify_enable(r.drv, 1), 1); /* something completed meanwhile */
		reap(&r);
		CHECK_EQ(libvhost_vq_notify_enable(r.drv, 1), 0);
		CHECK_EQ(hop(&r), 3);
		CHECK_EQ(vq_info(r.drv).notifications, 21);
		CHECK_EQ(vq_info(r.dev).notifications, 21);
		CHECK_EQ(libvhost_vq_notify_enable(r.dev, 2), -EINVAL);
		rig_free(&r);
	}
}

TEST(vring, event_indexes_save_notifications_while_the_other_side_is_busy)
{
	struct rig r;

	for (uint64_t f = 0; f < 2; f++) {
		rig_new(&r, 8, F_EVENT | (f ? F_PACKED : 0));
		CHECK_EQ(hop(&r), 3);
		for (int i = 0; i < 4; i++) /* nobody has run dry since */
			CHECK_EQ(hop(&r), 0);
		rig_free(&r);
	}
}

TEST(vring, a_dead_kick_descriptor_is_an_error_after_publication)
{
	struct libvhost_buf b = {.gpa = DATA, .len = 4};
	struct rig r;

	rig_memory(&r, 8, 0);
	r.opts.kick_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
	rig_driver(&r);
	CHECK_EQ(libvhost_vq_add(r.drv, &b, 0, 1, 1), 0);
	CHECK_EQ(libvhost_vq_kick(r.drv), -EIO);
	CHECK_HAS(vq_error(r.drv).text, "EBADF");
	CHECK_EQ(vq_info(r.drv).notify_errors, 1);
	CHECK_EQ(vq_info(r.drv).features, r.opts.features);
	CHECK_EQ(lv_ring_idx(&r.ring, r.ring.avail), 1);
	close(r.opts.kick_fd);
	rig_free(&r);
}

TEST(vring, without_descriptors_due_notifications_are_reported)
{
	struct libvhost_buf b = {.gpa = DATA, .len = 4};
	struct libvhost_chain c;
	struct rig r;

	rig_memory(&r, 8, 0);
	r.opts.flags = 0;
	r.opts.kick_fd = r.opts.call_fd = 0; /* zero-filled options never write to descriptor 0 */
	rig_driver(&r);
	rig_device(&r);
	CHECK_EQ(libvhost_vq_add(r.drv, &b, 0, 1, 1), 0);
	CHECK_EQ(libvhost_vq_kick(r.drv), 1);
	CHECK_EQ(rig_pop(&r, &c), 1);
	CHECK_EQ(libvhost_vq_push(r.dev, c.head, 0), 0);
	CHECK_EQ(libvhost_vq_flush(r.dev), 1);
	rig_free(&r);
}

TEST(vring, ring_at_rest_tells_its_base_and_work)
{
	struct lv_snapshot *snap;
	uint16_t idx = 77;
	struct rig r;

	rig_memory(&r, 8, 0);
	snap = lv_mem_snapshot(r.g.mem);
	lv_ring_set_idx(&r.ring, r.ring.used, 65535);
	lv_ring_set_idx(&r.ring, r.ring.avail, 1);
	CHECK_EQ(lv_split_used_idx(snap, r.opts.used, &idx), 0);
	CHECK_EQ(idx, 65535);
	CHECK_EQ(lv_split_has_work(snap, r.opts.avail, idx), 1);
	CHECK_EQ(lv_split_has_work(snap, r.opts.avail, 1), 0);
	CHECK_EQ(lv_split_used_idx(snap, 0, &idx), -EFAULT);
	CHECK_EQ(lv_split_used_idx(snap, r.opts.used + 1, &idx), -EFAULT);
	CHECK_EQ(lv_split_has_work(snap, DATA + HALF, 0), -EFAULT);
	CHECK_EQ(idx, 65535);
	lv_snapshot_put(snap);
	rig_free(&r);
}
