/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* The inflight region of a device: asked for, kept as long as its rings, emptied, given up. */
#include "inflightrig.h"

#define OP(name) LIBVHOST_OP_##name
#define PF(bit)	 (1ull << LIBVHOST_PROTOCOL_F_##bit)

static uint32_t guarantee(struct devrig *r)
{
	struct libvhost_dev_info info = {.size = sizeof(info)};

	CHECK_EQ(libvhost_dev_info(r->dev, &info), 0);
	return info.guarantee;
}

TEST(device_inflight, one_region_for_the_life_of_the_rings)
{
	struct libvhost_inflight first;
	struct libvhost_event e;
	struct devrig r;

	inflight_rig_ready(&r, 0);
	CHECK_EQ(guarantee(&r), LIBVHOST_GUARANTEE_NONE); /* there is no region yet */
	CHECK_EQ(libvhost_dev_start(r.dev, NULL), 0);
	CHECK_EQ(guarantee(&r), LIBVHOST_GUARANTEE_INFLIGHT);
	CHECK_EQ(r.f.inflight.num_queues, DEVRIG_QUEUES);
	CHECK_EQ(r.f.inflight.queue_size, DEVRIG_NUM);
	CHECK_EQ(r.f.inflight.mmap_size, r.f.region);
	first = inflight_region(&r);
	CHECK_EQ(first.num_queues, DEVRIG_QUEUES);
	CHECK_EQ(first.queue_size, DEVRIG_NUM);
	CHECK_EQ(first.mmap_size, r.f.region);
	inflight_mark(&r, 2, 5, 1);
	CHECK(inflight_marked(&r, 2, 5));
	CHECK_EQ(libvhost_dev_stop(r.dev, NULL), 0);
	CHECK_EQ(libvhost_dev_start(r.dev, NULL), 0);
	devrig_lose_peer(&r);
	fake_arm(&r.f);
	CHECK_EQ(libvhost_dev_reconnect(r.dev, NULL), 0);
	CHECK_EQ(devrig_events(&r, LIBVHOST_EVENT_RECONNECTED, &e), 1);
	CHECK_EQ(e.value[0], LIBVHOST_GUARANTEE_INFLIGHT);
	CHECK_HAS(e.text, "inflight");
	CHECK_EQ(fake_count(&r.f, OP(GET_INFLIGHT_FD)), 0);
	CHECK_EQ(fake_count(&r.f, OP(SET_INFLIGHT_FD)), 1);
	CHECK(fake_first(&r.f, OP(SET_INFLIGHT_FD)) > fake_first(&r.f, OP(SET_VRING_NUM)) + DEVRIG_QUEUES - 1);
	CHECK(fake_first(&r.f, OP(SET_INFLIGHT_FD)) < fake_first(&r.f, OP(SET_VRING_BASE)));
	CHECK(inflight_marked(&r, 2, 5)); /* the same file, with what stood in it */
	CHECK_EQ(inflight_region(&r).address, first.address);
	CHECK_EQ(libvhost_dev_reset(r.dev, NULL), 0);
	CHECK_EQ(libvhost_dev_get_inflight(r.dev, &first), -ENOENT);
	CHECK_EQ(guarantee(&r), LIBVHOST_GUARANTEE_NONE);
	devrig_close(&r);
}

TEST(device_inflight, without_the_flag_nothing_is_asked)
{
	struct devrig r;
	struct libvhost_inflight i = {.size = sizeof(i)};
	size_t len = 0;

	devrig_init(&r);
	r.f.protocol |= PF(INFLIGHT_SHMFD);
	CHECK_EQ(devrig_open(&r), 0);
	devrig_queues(&r, 1);
	CHECK_EQ(libvhost_dev_prepare_inflight(r.dev, 0), -ENOTSUP);
	CHECK_HAS(devrig_error(&r).text, "LIBVHOST_DEV_INFLIGHT");
	i.num_queues = i.queue_size = 1;
	CHECK_EQ(libvhost_dev_set_inflight(r.dev, &i), -ENOTSUP);
	CHECK_EQ(libvhost_dev_load_inflight(r.dev, "", 0), -ENOTSUP);
	CHECK_EQ(libvhost_dev_save_inflight(r.dev, NULL, &len), -ENOENT);
	CHECK_EQ(libvhost_dev_reset_inflight(r.dev), -ENOENT);
	CHECK_EQ(libvhost_dev_free_inflight(r.dev), -ENOENT);
	CHECK_EQ(libvhost_dev_start(r.dev, NULL), 0);
	CHECK_EQ(fake_count(&r.f, OP(GET_INFLIGHT_FD)), 0);
	devrig_close(&r);
}

TEST(device_inflight, options_that_need_each_other)
{
	struct devrig r;

	devrig_init(&r);
	r.opts.flags = LIBVHOST_DEV_STOP_INFLIGHT;
	CHECK_EQ(devrig_open(&r), -EINVAL);
	guest_free(&r.g);
	CHECK_LEDGER(r.before);
}

TEST(device_inflight, a_region_belongs_to_one_back_end)
{
	struct fake second;
	struct libvhost_transport *t;
	struct devrig r;

	inflight_rig_open(&r, 0);
	fake_init(&second);
	t = fake_transport(&second, r.g.ctx);
	CHECK_EQ(libvhost_dev_add_part(r.dev, t, 1, 1, 0), -ENOTSUP);
	libvhost_transport_free(t);
	devrig_close(&r);
}

/* Each request of a first start is refused once, and the peer dies at each once: no descriptor stays behind, and no
 * region unless a ring may have run with it. */
TEST(device_inflight, failed_starts_leave_no_unused_region_behind)
{
	struct libvhost_inflight i = {.size = sizeof(i)};
	uint32_t n = 0;
	int rc;

	do {
		struct devrig r;

		inflight_rig_ready(&r, 0);
		fake_arm(&r.f);
		r.f.refuse_at = n;
		rc = libvhost_dev_start(r.dev, NULL);
		if (rc) {
			const uint32_t kicks =
				fake_count(&r.f, OP(SET_VRING_KICK)) - (r.f.seen[n] == OP(SET_VRING_KICK));

			CHECK_EQ(libvhost_dev_get_inflight(r.dev, &i), kicks ? 0 : -ENOENT);
			r.f.refuse_at = FAKE_NEVER;
			if (devrig_state(&r) == LIBVHOST_DEV_NEGOTIATED)
				CHECK_EQ(libvhost_dev_start(r.dev, NULL), 0);
		}
		devrig_close(&r);
		inflight_rig_ready(&r, 0);
		fake_arm(&r.f);
		r.f.die_at = n++;
		CHECK(!libvhost_dev_start(r.dev, NULL) == !rc || n == 7); /* the optional request may be refused */
		devrig_close(&r);
	} while (rc || n < 20);
}

TEST(device_inflight, prepared_ahead_of_the_first_start)
{
	struct libvhost_inflight i = {.size = sizeof(i)};
	struct devrig r;

	inflight_rig_open(&r, 0);
	CHECK_EQ(libvhost_dev_prepare_inflight(r.dev, 0), -EINVAL);
	devrig_queues(&r, 2);
	fake_arm(&r.f);
	r.f.refuse_at = 3;
	CHECK_EQ(libvhost_dev_prepare_inflight(r.dev, 0), -EIO);
	CHECK_EQ(libvhost_dev_get_inflight(r.dev, &i), -ENOENT);
	CHECK_EQ(devrig_state(&r), LIBVHOST_DEV_NEGOTIATED);
	r.f.refuse_at = FAKE_NEVER;
	CHECK_EQ(libvhost_dev_prepare_inflight(r.dev, 0), 0);
	CHECK_EQ(inflight_region(&r).num_queues, 2);
	fake_arm(&r.f);
	CHECK_EQ(libvhost_dev_prepare_inflight(r.dev, 0), 0); /* no effect */
	CHECK_EQ(r.f.nseen, 0);
	CHECK_EQ(libvhost_dev_start(r.dev, NULL), 0);
	CHECK_EQ(fake_count(&r.f, OP(GET_INFLIGHT_FD)), 0);
	CHECK_EQ(libvhost_dev_prepare_inflight(r.dev, 0), -EBUSY);
	r.f.dies = true;
	devrig_close(&r);
}

TEST(device_inflight, a_peer_that_dies_while_it_is_asked_is_gone)
{
	struct devrig r;

	inflight_rig_ready(&r, 0);
	r.f.dies = true;
	CHECK_EQ(libvhost_dev_prepare_inflight(r.dev, 0), -ECONNRESET);
	CHECK_EQ(devrig_state(&r), LIBVHOST_DEV_DISCONNECTED);
	devrig_close(&r);
}

/* More or larger queues than it was made for. */
TEST(device_inflight, an_empty_region_that_is_too_small_makes_way)
{
	struct libvhost_queue q = devrig_queue(3);
	struct devrig r;

	inflight_rig_open(&r, 0);
	devrig_queues(&r, 2);
	CHECK_EQ(libvhost_dev_start(r.dev, NULL), 0);
	CHECK_EQ(libvhost_dev_stop(r.dev, NULL), 0);
	inflight_mark(&r, 1, 15, 9);
	q.num = 2 * DEVRIG_NUM;
	CHECK_EQ(libvhost_dev_set_queue(r.dev, 3, &q), 0);
	CHECK_EQ(libvhost_dev_start(r.dev, NULL), -EBUSY); /* the marks would be lost */
	CHECK_HAS(devrig_error(&r).text, "in flight");
	CHECK_EQ(inflight_region(&r).num_queues, 2);
	CHECK_EQ(libvhost_dev_reset_inflight(r.dev), 0);
	CHECK(!inflight_marked(&r, 1, 15));
	r.f.region = 4 * lv_inflight_queue_bytes(q.num, 0);
	fake_arm(&r.f);
	CHECK_EQ(libvhost_dev_start(r.dev, NULL), 0);
	CHECK_EQ(fake_count(&r.f, OP(GET_INFLIGHT_FD)), 1);
	CHECK_EQ(inflight_region(&r).num_queues, 4);
	CHECK_EQ(inflight_region(&r).queue_size, q.num);
	devrig_close(&r);
}

TEST(device_inflight, a_region_for_split_rings_does_not_serve_packed_ones)
{
	uint64_t features = 1ull << 32 | PACKED_RING;
	struct devrig r;

	inflight_rig_ready(&r, 0);
	CHECK_EQ(libvhost_dev_prepare_inflight(r.dev, 0), 0);
	CHECK_EQ(libvhost_ack_features_ex(r.dev, &features, 1), 0);
	r.f.region = DEVRIG_QUEUES * PACKED_BYTES;
	fake_arm(&r.f);
	CHECK_EQ(libvhost_dev_start(r.dev, NULL), 0);
	CHECK_EQ(fake_count(&r.f, OP(GET_INFLIGHT_FD)), 1);
	devrig_close(&r);
}

TEST(device_inflight, a_device_whose_rings_come_back_keeps_its_region)
{
	struct libvhost_inflight i = {.size = sizeof(i)};
	size_t len = 0;
	struct devrig r;

	inflight_rig_ready(&r, 0);
	CHECK_EQ(libvhost_dev_start(r.dev, NULL), 0);
	devrig_lose_peer(&r);
	CHECK_EQ(libvhost_dev_free_inflight(r.dev), -EBUSY);
	CHECK_EQ(libvhost_dev_reset_inflight(r.dev), -EBUSY);
	CHECK_EQ(libvhost_dev_save_inflight(r.dev, NULL, &len), 0); /* nobody writes it any more */
	CHECK_EQ(libvhost_dev_force_stop(r.dev), 0);
	CHECK_EQ(libvhost_dev_free_inflight(r.dev), 0);
	devrig_close(&r);
}

/* A cleared queue is forgotten, a queue that is set up again is the same one. */
TEST(device_inflight, a_cleared_queue_takes_its_marks_along)
{
	const struct libvhost_queue again = devrig_queue(2);
	struct devrig r;

	inflight_rig_ready(&r, LIBVHOST_DEV_STOP_INFLIGHT);
	CHECK_EQ(libvhost_dev_start(r.dev, NULL), 0);
	inflight_mark(&r, 1, 5, 1);
	inflight_mark(&r, 2, 6, 1);
	CHECK_EQ(libvhost_dev_clear_queue(r.dev, 1), -EBUSY);
	CHECK_EQ(libvhost_dev_stop(r.dev, NULL), 0);
	CHECK(inflight_marked(&r, 1, 5));
	CHECK_EQ(libvhost_dev_clear_queue(r.dev, 1), 0);
	CHECK(!inflight_marked(&r, 1, 5));
	CHECK_EQ(libvhost_dev_set_queue(r.dev, 2, &again), 0);
	CHECK(inflight_marked(&r, 2, 6));
	CHECK_EQ(libvhost_dev_start(r.dev, NULL), 0);
	inflight_mark(&r, 3, 7, 1);
	CHECK_EQ(libvhost_dev_stop_queue(r.dev, 3, 0), 0); /* the others run on */
	CHECK_EQ(libvhost_dev_clear_queue(r.dev, 3), 0);
	CHECK(!inflight_marked(&r, 3, 7));
	CHECK(inflight_marked(&r, 2, 6));
	devrig_close(&r);
}

/* DPDK links the free list of a packed queue when it makes a region and never again. */
TEST(device_inflight, an_emptied_packed_region_has_its_free_list)
{
	struct libvhost_inflight i;
	struct devrig r;

	inflight_rig_packed(&r);
	CHECK_EQ(libvhost_dev_start(r.dev, NULL), 0);
	inflight_write_packed(&r, 3, &(struct lv_inflight_packed){.version = 1, .used_idx = 5, .free_head = 9});
	CHECK_EQ(libvhost_dev_stop(r.dev, NULL), 0);
	CHECK_EQ(libvhost_dev_reset_inflight(r.dev), 0);
	i = inflight_region(&r);
	for (uint32_t q = 0; q < DEVRIG_QUEUES; q++) {
		const struct lv_inflight_packed *h = (const void *)(uintptr_t)(i.address + q * PACKED_BYTES);

		CHECK_EQ(h->version, 0);
		CHECK_EQ(h->used_idx | h->free_head | h->old_free_head, 0);
		CHECK_EQ(h->used_wrap_counter, 1);
		CHECK_EQ(h->old_used_wrap_counter, 1);
		for (uint32_t d = 0; d < DEVRIG_NUM; d++) {
			CHECK_EQ(h->desc[d].next, d + 1);
			CHECK_EQ(h->desc[d].inflight, 0);
		}
	}
	devrig_close(&r);
}
