/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* Programs with an inflight region and programs for one queue: tests/golden, waits, answers that cannot be. */
#include "planrig.h"

#include <errno.h>
#include "device/inflight.h"

#define FEATURES (PF(MQ) | PF(REPLY_ACK) | PF(CONFIGURE_MEM_SLOTS) | PF(INFLIGHT_SHMFD))

static struct planrig *rig_with(uint64_t protocol, uint32_t flags)
{
	struct planrig *rig = planrig_new(LIBVHOST_DIALECT_USER, 2, 3);

	rig->protocol = protocol;
	rig->env.dev_flags = flags;
	planrig_connect(rig);
	planrig_queue(rig, 0, 0);
	planrig_queue(rig, 2, 0); /* the highest index counts */
	rig->rec->queue[2].num = 512;
	rig->region = rig->region_file = 3 * lv_inflight_queue_bytes(512, 0);
	return rig;
}

TEST(plan_inflight, user_inflight)
{
	struct planrig *rig = rig_with(FEATURES, LIBVHOST_DEV_INFLIGHT);

	CHECK_EQ(planrig_run(rig, LV_PLAN_START), 0);
	CHECK_EQ(rig->waits, 3);
	CHECK(rig->rec->flags & LV_RF_INFLIGHT);
	CHECK_EQ(rig->rec->inflight_bytes, rig->region);
	planrig_sent(rig);
	CHECK_EQ(planrig_run(rig, LV_PLAN_STOP), 0);
	CHECK_EQ(planrig_run(rig, LV_PLAN_START), 0);
	CHECK_EQ(rig->waits, 2); /* a region that is known costs nothing */
	CHECK_EQ(planrig_run(rig, LV_PLAN_RESUME), 0);
	CHECK_EQ(rig->waits, 2);
	CHECK_EQ(planrig_run(rig, LV_PLAN_RESET), 0);
	CHECK(!(rig->rec->flags & LV_RF_INFLIGHT));
	planrig_golden(rig, "user-inflight");
	planrig_free(rig);
}

TEST(plan_inflight, with_a_status_the_first_start_still_waits_three_times)
{
	struct planrig *rig = rig_with(FEATURES | PF(STATUS), LIBVHOST_DEV_INFLIGHT);

	CHECK_EQ(planrig_run(rig, LV_PLAN_START), 0);
	CHECK_EQ(rig->waits, 3);
	CHECK_EQ(rig->rec->status, LV_STATUS_LIVE);
	CHECK_EQ(planrig_run(rig, LV_PLAN_STOP), 0);
	CHECK_EQ(planrig_run(rig, LV_PLAN_START), 0);
	CHECK_EQ(rig->waits, 2);
	planrig_free(rig);
}

TEST(plan_inflight, a_region_of_another_queue_layout_has_packed_entries)
{
	struct planrig *rig = rig_with(FEATURES, LIBVHOST_DEV_INFLIGHT);

	rig->rec->acked[0] |= LV_BIT(LV_F_RING_PACKED);
	CHECK_EQ(planrig_run(rig, LV_PLAN_START), -EPROTO); /* enough for split rings only */
	rig->region = rig->region_file = 3 * lv_inflight_queue_bytes(512, 1);
	CHECK_EQ(planrig_run(rig, LV_PLAN_START), 0);
	CHECK(rig->rec->flags & LV_RF_INFLIGHT_PACKED);
	planrig_free(rig);
}

TEST(plan_inflight, impossible_regions_are_refused_by_name)
{
	static const struct {
		uint64_t less, offset, file_less;
		const char *why;
	} bad[] = {
		{1, 0, 0, "too small"},
		{0, 1, 0, "file is shorter"},
		{0, 0, 1, "file is shorter"},
		{0, 1ull << 62, 0, "file is shorter"},
		{0, 0, UINT64_MAX, "not a memfd"},
	};

	for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		struct planrig *rig = rig_with(FEATURES, LIBVHOST_DEV_INFLIGHT);
		uint32_t kind;

		rig->region -= bad[i].less;
		rig->region_offset = bad[i].offset;
		rig->region_file = bad[i].file_less == UINT64_MAX ? 0 : rig->region_file - bad[i].file_less;
		CHECK_EQ(planrig_run(rig, LV_PLAN_START), -EPROTO);
		CHECK_HAS(planrig_error(rig, &kind), bad[i].why);
		CHECK_HAS(planrig_error(rig, &kind), "GET_INFLIGHT_FD");
		CHECK_EQ(kind, LIBVHOST_EK_PROTOCOL);
		planrig_free(rig);
	}
}

/* Not every kind of device has one: the start is as good, the guarantee is less. */
TEST(plan_inflight, a_peer_without_a_region_starts_without)
{
	struct planrig *rig = rig_with(FEATURES, LIBVHOST_DEV_INFLIGHT);

	rig->region = 0;
	CHECK_EQ(planrig_run(rig, LV_PLAN_START), 0);
	CHECK(!strstr(rig->text, "SET_INFLIGHT_FD"));
	CHECK(rig->rec->flags & LV_RF_RUNNING);
	CHECK_EQ(lv_inflight_guarantee(rig->rec), LIBVHOST_GUARANTEE_NONE);
	planrig_free(rig);
}

TEST(plan_inflight, bits_are_acknowledged_when_asked_for)
{
	const uint64_t both = PF(INFLIGHT_SHMFD) | PF(GET_VRING_BASE_INFLIGHT);
	struct lv_protocol_choice c = {.offered = both};

	CHECK_EQ(lv_protocol_choose(&c), 0);
	c.dev_flags = LIBVHOST_DEV_INFLIGHT;
	CHECK_EQ(lv_protocol_choose(&c), PF(INFLIGHT_SHMFD));
	c.dev_flags |= LIBVHOST_DEV_STOP_INFLIGHT;
	CHECK_EQ(lv_protocol_choose(&c), both);
	c.offered = PF(GET_VRING_BASE_INFLIGHT); /* nothing to leave requests in */
	CHECK_EQ(lv_protocol_choose(&c), 0);
}

TEST(plan_inflight, prepare_asks_ahead_of_the_first_start)
{
	struct planrig *rig = rig_with(FEATURES, LIBVHOST_DEV_INFLIGHT);

	CHECK_EQ(planrig_run(rig, LV_PLAN_INFLIGHT), 0);
	CHECK_EQ(rig->waits, 1);
	CHECK(rig->rec->flags & LV_RF_INFLIGHT);
	CHECK_EQ(planrig_run(rig, LV_PLAN_START), 0);
	CHECK_EQ(rig->waits, 2);
	planrig_golden(rig, "user-inflight-ahead");
	planrig_free(rig);
}

/* ---- one queue ---- */

TEST(plan_queue, user_queue)
{
	struct planrig *rig = rig_with(FEATURES, 0);

	CHECK_EQ(planrig_run(rig, LV_PLAN_START), 0);
	planrig_sent(rig);
	rig->env.queue = 2;
	CHECK_EQ(planrig_run(rig, LV_PLAN_QUEUE_STOP), 0);
	CHECK_EQ(rig->waits, 1);
	CHECK(!(rig->rec->queue[2].flags & LV_RQ_RUNNING));
	CHECK_EQ(rig->rec->queue[2].base, 0x102);
	CHECK(rig->rec->queue[0].flags & LV_RQ_RUNNING);
	CHECK(rig->rec->flags & LV_RF_RUNNING);
	rig->rec->queue[2].flags |= LV_RQ_HELD;
	CHECK_EQ(planrig_run(rig, LV_PLAN_RESUME), 0); /* brings back queue 0 only */
	CHECK_EQ(planrig_run(rig, LV_PLAN_QUEUE_START), 0);
	CHECK_EQ(rig->waits, 2);
	CHECK_EQ(rig->rec->queue[2].flags, LV_RQ_SET | LV_RQ_RUNNING);
	rig->rec->queue[2].flags |= LV_RQ_DISABLED | LV_RQ_KICK_POLL;
	CHECK_EQ(planrig_run(rig, LV_PLAN_QUEUE_STOP), 0);
	CHECK_EQ(planrig_run(rig, LV_PLAN_QUEUE_START), 0);
	planrig_golden(rig, "user-queue");
	planrig_free(rig);
}

/* Nothing at all is left to run on the new peer, and that is no error. */
TEST(plan_queue, a_resume_may_find_every_queue_held)
{
	struct planrig *rig = rig_with(FEATURES, 0);

	CHECK_EQ(planrig_run(rig, LV_PLAN_START), 0);
	rig->rec->queue[0].flags = rig->rec->queue[2].flags = LV_RQ_SET | LV_RQ_HELD;
	CHECK_EQ(planrig_run(rig, LV_PLAN_RESUME), 0);
	CHECK(!(rig->rec->queue[0].flags & LV_RQ_RUNNING));
	CHECK(rig->rec->flags & LV_RF_RUNNING);
	planrig_free(rig);
}

TEST(plan_queue, kernel_queue)
{
	struct planrig *rig = planrig_new(LIBVHOST_DIALECT_KERNEL, 1, 4);

	rig->features[0] = MODERN;
	rig->caps.max_queues = 2;
	rig->env.first = 2;
	rig->env.count = 2;
	CHECK_EQ(planrig_run(rig, LV_PLAN_CONNECT), 0);
	planrig_queue(rig, 2, 0);
	planrig_queue(rig, 3, 0);
	CHECK_EQ(planrig_run(rig, LV_PLAN_START), 0);
	planrig_sent(rig);
	rig->text[0] = 0;
	rig->env.queue = 3;
	rig->bases[1] = 0x77; /* ring 1 of this descriptor */
	CHECK_EQ(planrig_run(rig, LV_PLAN_QUEUE_STOP), 0);
	CHECK_EQ(rig->rec->queue[3].base, 0x77);
	CHECK_EQ(planrig_run(rig, LV_PLAN_QUEUE_START), 0);
	planrig_golden(rig, "kernel-queue");
	planrig_free(rig);
}

TEST(plan_queue, vdpa_starts_and_stops_as_a_whole)
{
	struct planrig *rig = planrig_new(LIBVHOST_DIALECT_VDPA, 2, 2);
	uint32_t kind;

	planrig_queue(rig, 1, LV_RQ_RUNNING);
	rig->env.queue = 1;
	CHECK_EQ(planrig_run(rig, LV_PLAN_QUEUE_STOP), -ENOTSUP);
	CHECK_HAS(planrig_error(rig, &kind), "queue 1");
	CHECK_EQ(planrig_run(rig, LV_PLAN_QUEUE_START), -ENOTSUP);
	planrig_free(rig);
}

TEST(plan_queue, what_cannot_start_is_named)
{
	struct planrig *rig = rig_with(FEATURES, LIBVHOST_DEV_INFLIGHT);
	uint32_t kind;

	CHECK_EQ(planrig_run(rig, LV_PLAN_START), 0);
	rig->env.queue = 1;
	rig->rec->queue[1].flags = LV_RQ_SET | LV_RQ_HELD;
	CHECK_EQ(planrig_run(rig, LV_PLAN_QUEUE_START), -EINVAL);
	CHECK_HAS(planrig_error(rig, &kind), "no addresses");
	planrig_queue(rig, 1, LV_RQ_HELD | LV_RQ_BASE_STALE);
	CHECK_EQ(planrig_run(rig, LV_PLAN_QUEUE_START), -EINVAL);
	CHECK_HAS(planrig_error(rig, &kind), "where it stopped");
	planrig_queue(rig, 1, LV_RQ_HELD);
	rig->rec->queue[1].num = 1024; /* the region was made for 512 */
	CHECK_EQ(planrig_run(rig, LV_PLAN_QUEUE_START), -EINVAL);
	CHECK_HAS(planrig_error(rig, &kind), "inflight region");
	rig->rec->queue[1].num = 64;
	rig->rec->queue[1].used = 1ull << 50;
	CHECK_EQ(planrig_run(rig, LV_PLAN_QUEUE_START), -EINVAL);
	planrig_free(rig);
}

TEST(plan_queue, a_refused_start_leaves_the_queue_at_rest_until_its_kick)
{
	struct planrig *rig = rig_with(FEATURES, 0);

	CHECK_EQ(planrig_run(rig, LV_PLAN_START), 0);
	planrig_queue(rig, 1, LV_RQ_HELD);
	rig->env.queue = 1;
	rig->fail_op = LIBVHOST_OP_SET_VRING_ADDR;
	CHECK_EQ(planrig_run(rig, LV_PLAN_QUEUE_START), -EIO);
	CHECK(!(rig->rec->queue[1].flags & LV_RQ_RUNNING));
	rig->fail_op = LIBVHOST_OP_SET_VRING_ENABLE;
	CHECK_EQ(planrig_run(rig, LV_PLAN_QUEUE_START), -EIO);
	CHECK(rig->rec->queue[1].flags & LV_RQ_RUNNING); /* what has to be taken back */
	planrig_free(rig);
}
