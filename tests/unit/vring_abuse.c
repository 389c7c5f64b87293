/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* The device role: misuse of heads, indexes and lengths by the driver or by the device's own code; notifications. */
#include "ringhelp.h"

static void one(struct rig *r, uint32_t head, struct libvhost_chain *c)
{
	desc(r, head, DATA, 64, LV_DESC_WRITE, 0);
	offer(r, head);
	CHECK_EQ(rig_pop(r, c), 1);
	CHECK_EQ(c->head, head);
}

TEST(vring_hostile, R202_buffers_aimed_at_the_ring_itself)
{
	struct libvhost_chain c;
	struct rig r;

	for (int fill = 0; fill <= 0xa5; fill += 0xa5)
		for (int target = 0; target < 3; target++) {
			/* only what is read of the driver's ring stands for something: heads that do not exist */
			const uint16_t served = target == 1 && fill ? 1 : 8;

			rig_memory(&r, 8, F_EVENT);
			rig_device(&r);
			uint64_t where[] = {r.opts.desc, r.opts.avail, r.opts.used};

			for (uint32_t i = 0; i < 8; i++) {
				desc(&r, i, where[target], 16, LV_DESC_WRITE, 0);
				offer(&r, i);
			}
			while (rig_pop(&r, &c) == 1) {
				memset(c.iov[0].base, fill, c.iov[0].len);
				CHECK_EQ(libvhost_vq_push(r.dev, c.head, 16), 0);
				CHECK(libvhost_vq_flush(r.dev) >= 0);
			}
			CHECK_EQ(vq_info(r.dev).in_flight, 0);
			CHECK_EQ(vq_info(r.dev).requests, served);
			CHECK_EQ(vq_info(r.dev).broken, target == 1);
			CHECK_EQ(lv_ring_idx(&r.ring, r.ring.used), served);
			for (uint16_t i = target < 2 ? 0 : 7; i < served; i++)
				CHECK_EQ(lv_used_get(&r.ring, i).len, 16);
			rig_free(&r);
		}
}

TEST(vring_hostile, R203_head_offered_again_while_in_flight)
{
	struct libvhost_chain c;
	struct rig r;

	rig_memory(&r, 8, 0);
	rig_device(&r);
	one(&r, 4, &c);
	offer(&r, 4);
	CHECK_EQ(rig_pop(&r, &c), -EBADMSG);
	CHECK_HAS(vq_error(r.dev).text, "head 4, which is still in flight");
	CHECK_EQ(vq_info(r.dev).in_flight, 1);
	rig_free(&r);
	rig_memory(&r, 8, 0); /* pushed, but the driver cannot know yet */
	rig_device(&r);
	one(&r, 4, &c);
	CHECK_EQ(libvhost_vq_push(r.dev, 4, 0), 0);
	offer(&r, 4);
	CHECK_EQ(rig_pop(&r, &c), -EBADMSG);
	rig_free(&r);
}

TEST(vring_hostile, R204_driver_never_reads_used)
{
	struct libvhost_chain c;
	struct lv_ledger before;
	struct rig r;

	rig_memory(&r, 256, 0);
	rig_device(&r);
	before = lv_ledger_take();
	for (uint32_t i = 0; i < 70000; i++) {
		one(&r, i % 256, &c);
		CHECK_EQ(libvhost_vq_push(r.dev, c.head, 1), 0);
		CHECK(libvhost_vq_flush(r.dev) >= 0);
	}
	CHECK_LEDGER(before);
	CHECK(lv_ledger_take().heap <= before.heap + 65536); /* an allocator may keep some */
	rig_free(&r);
	rig_memory(&r, 256, 0); /* nor does the device publish: at most the ring is taken */
	rig_device(&r);
	lv_ring_set_idx(&r.ring, r.ring.avail, 256);
	for (uint32_t i = 0; i < 256; i++) {
		desc(&r, i, DATA, 1, 0, 0);
		*lv_avail_slot(&r.ring, (uint16_t)i) = (uint16_t)i;
	}
	while (rig_pop(&r, &c) == 1) {
		CHECK_EQ(libvhost_vq_push(r.dev, c.head, 0), 0);
		lv_ring_set_idx(&r.ring, r.ring.avail, (uint16_t)(lv_ring_idx(&r.ring, r.ring.avail) + 1));
	}
	CHECK_EQ(vq_info(r.dev).requests, 256);
	CHECK_EQ(vq_info(r.dev).broken, 1);
	rig_free(&r);
}

TEST(vring_hostile, R207_random_event_indexes)
{
	struct libvhost_chain c;
	uint32_t seed = 12345;
	struct rig r;

	rig_memory(&r, 64, F_EVENT);
	rig_device(&r);
	for (uint32_t i = 0; i < 100000; i++) {
		seed = seed * 1664525 + 1013904223;
		lv_event_set(&r.ring, lv_used_event(&r.ring), (uint16_t)(seed >> 16));
		lv_event_set(&r.ring, lv_avail_event(&r.ring), (uint16_t)seed);
		one(&r, i % 64, &c);
		CHECK_EQ(libvhost_vq_push(r.dev, c.head, 1), 0);
		CHECK(libvhost_vq_flush(r.dev) >= 0);
	}
	/* a driver that behaves from here on misses nothing */
	for (uint32_t i = 0; i < 1000; i++) {
		lv_event_set(&r.ring, lv_used_event(&r.ring), lv_ring_idx(&r.ring, r.ring.used));
		signalled(r.call);
		one(&r, i % 64, &c);
		CHECK_EQ(libvhost_vq_push(r.dev, c.head, 1), 0);
		CHECK_EQ(libvhost_vq_flush(r.dev), 1);
		CHECK(signalled(r.call));
		CHECK_EQ(rig_pop(&r, &c), 0);
		CHECK_EQ(lv_event_get(&r.ring, lv_avail_event(&r.ring)), (uint16_t)(100001 + i));
	}
	rig_free(&r);
}

TEST(vring_hostile, R210_ring_overwritten_while_requests_are_pending)
{
	struct libvhost_chain c;
	uint8_t *edge;
	struct rig r;

	for (int fill = 0; fill < 256; fill += 51) {
		rig_memory(&r, 16, F_EVENT);
		rig_device(&r);
		for (uint32_t i = 0; i < 16; i++)
			one(&r, i, &c);
		edge = r.maps[0];
		memset(edge, fill, HALF);
		for (uint32_t i = 0; i < 16; i++)
			CHECK_EQ(libvhost_vq_push(r.dev, i, 64), 0);
		CHECK(libvhost_vq_flush(r.dev) >= 0);
		CHECK_EQ(lv_ring_idx(&r.ring, r.ring.used), 16);
		for (uint16_t i = 0; i < 16; i++) {
			CHECK_EQ(lv_used_get(&r.ring, i).id, i);
			CHECK_EQ(lv_used_get(&r.ring, i).len, 64); /* as it was when the request was taken */
		}
		for (uint64_t b = 0; b < HALF; b++) /* nothing but the used ring was written */
			if (edge + b < (uint8_t *)r.ring.used)
				CHECK_EQ(edge[b], fill);
		rig_free(&r);
	}
}

/* Both sides at every size with the ring at the end of a region: guard pages do the checking. */
TEST(vring_hostile, R211_ring_ends_where_memory_ends)
{
	struct libvhost_vq_layout l = {.size = sizeof(l)};
	struct libvhost_buf b = {.gpa = DATA + HALF - 64, .len = 64};
	struct rig r;

	for (uint32_t num = 1; num <= 1024; num *= 2)
		for (int area = 0; area < 3; area++) {
			rig_memory(&r, num, area == 1 ? F_EVENT : 0);
			CHECK_EQ(libvhost_vq_layout(num, r.opts.features, &l), 0);
			r.opts.desc = RAM;
			r.opts.avail = RAM + 0x10000;
			r.opts.used = RAM + 0x20000;
			if (area == 0)
				r.opts.desc = DATA - l.desc_bytes;
			else if (area == 1)
				r.opts.avail = DATA - l.avail_bytes;
			else
				r.opts.used = DATA - l.used_bytes;
			rig_driver(&r);
			rig_device(&r);
			for (uint32_t i = 0; i < 2 * num; i++)
				rig_request(&r, &b, i);
			CHECK_EQ(libvhost_vq_notify_enable(r.drv, 0), 0);
			CHECK_EQ(libvhost_vq_notify_enable(r.dev, 0), 0);
			rig_free(&r);
		}
}

TEST(vring_hostile, R219_used_length_is_cut_to_what_was_writable)
{
	struct libvhost_chain c;
	struct rig r;

	rig_memory(&r, 8, 0);
	rig_device(&r);
	one(&r, 0, &c);
	one(&r, 1, &c);
	desc(&r, 2, DATA, 64, 0, 0); /* nothing writable */
	offer(&r, 2);
	CHECK_EQ(rig_pop(&r, &c), 1);
	CHECK_EQ(libvhost_vq_push(r.dev, 0, 65), 0);
	CHECK_EQ(libvhost_vq_push(r.dev, 1, UINT64_MAX), 0);
	CHECK_EQ(libvhost_vq_push(r.dev, 2, 1), 0);
	CHECK_EQ(libvhost_vq_flush(r.dev), 1);
	CHECK_EQ(lv_used_get(&r.ring, 0).len, 64);
	CHECK_EQ(lv_used_get(&r.ring, 1).len, 64);
	CHECK_EQ(lv_used_get(&r.ring, 2).len, 0);
	rig_free(&r);
}

TEST(vring, push_of_a_head_not_in_flight)
{
	struct libvhost_chain c;
	struct rig r;

	rig_memory(&r, 8, 0);
	rig_device(&r);
	one(&r, 3, &c);
	CHECK_EQ(libvhost_vq_push(r.dev, 2, 0), -EINVAL);
	CHECK_HAS(vq_error(r.dev).text, "head 2");
	CHECK_EQ(libvhost_vq_push(r.dev, 8, 0), -EINVAL);
	CHECK_EQ(libvhost_vq_push(r.dev, UINT32_MAX, 0), -EINVAL);
	CHECK_EQ(libvhost_vq_push(r.dev, 3, 0), 0);
	CHECK_EQ(libvhost_vq_push(r.dev, 3, 0), -EINVAL);
	CHECK_EQ(libvhost_vq_flush(r.dev), 1);
	CHECK_EQ(libvhost_vq_push(r.dev, 3, 0), -EINVAL);
	CHECK_EQ(libvhost_vq_flush(r.dev), 0);
	CHECK_EQ(lv_ring_idx(&r.ring, r.ring.used), 1);
	rig_free(&r);
}

TEST(vring, R097_R098_call_descriptors_that_cannot_be_written)
{
	uint64_t full = UINT64_MAX - 1;
	int fds[] = {eventfd(0, EFD_CLOEXEC), open("/dev/full", O_WRONLY | O_CLOEXEC), open("/dev/null", O_RDONLY)};
	struct libvhost_chain c;
	struct rig r;

	lv_test_deadline(60);
	CHECK_EQ(write(fds[0], &full, sizeof(full)), sizeof(full)); /* blocking and full */
	for (int i = 0; i < 3; i++) {
		rig_memory(&r, 8, 0);
		r.opts.call_fd = fds[i];
		rig_device(&r);
		one(&r, 0, &c);
		CHECK_EQ(libvhost_vq_push(r.dev, 0, 1), 0);
		CHECK_EQ(libvhost_vq_flush(r.dev), i == 0); /* a full counter is a pending call */
		CHECK_EQ(lv_ring_idx(&r.ring, r.ring.used), 1);
		CHECK_EQ(vq_info(r.dev).notify_errors, i != 0);
		one(&r, 0, &c);
		rig_free(&r);
		close(fds[i]);
	}
}
