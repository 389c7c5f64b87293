/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* What a start refuses, the log, and the containers below the plans. */
#include "planrig.h"

#include <errno.h>
#include <stdlib.h>

static struct planrig *device(uint32_t queues)
{
	struct planrig *rig = planrig_new(LIBVHOST_DIALECT_USER, 2, queues);

	rig->protocol = PF(MQ);
	planrig_connect(rig);
	return rig;
}

TEST(plan_start, needs_a_queue)
{
	struct planrig *rig = device(2);

	CHECK_EQ(planrig_run(rig, LV_PLAN_START), -EINVAL);
	CHECK_HAS(planrig_error(rig, NULL), "no queue");
	planrig_free(rig);
}

TEST(plan_start, rings_lie_in_memory_to_the_last_byte)
{
	struct planrig *rig = device(1);
	struct lv_record_queue *q = &rig->rec->queue[0];

	planrig_queue(rig, 0, 0);
	q->used = 0x10000000 - (6 + 8 * 256);
	CHECK_EQ(planrig_run(rig, LV_PLAN_START), 0);
	q->used++;
	CHECK_EQ(planrig_run(rig, LV_PLAN_START), -EINVAL);
	CHECK_HAS(planrig_error(rig, NULL), "queue 0");
	rig->rec->acked[0] |= LV_BIT(LV_F_RING_PACKED); /* an event area of 4 bytes */
	CHECK_EQ(planrig_run(rig, LV_PLAN_START), 0);
	q->desc = 0x10000000 - 16 * 256;
	CHECK_EQ(planrig_run(rig, LV_PLAN_START), 0);
	q->desc++;
	CHECK_EQ(planrig_run(rig, LV_PLAN_START), -EINVAL);
	q->desc = UINT64_MAX - 15;
	CHECK_EQ(planrig_run(rig, LV_PLAN_START), -EINVAL);
	planrig_free(rig);
}

TEST(plan_start, feature_bits_that_a_socket_cannot_carry)
{
	struct planrig *rig = device(1);

	planrig_queue(rig, 0, 0);
	rig->rec->acked[1] = 1;
	CHECK_EQ(planrig_run(rig, LV_PLAN_START), -ENOTSUP);
	CHECK_HAS(planrig_error(rig, NULL), "bit 64");
	planrig_free(rig);
}

/* A guest that migrates must not start what writes its memory unseen. */
TEST(plan_start, a_log_that_the_peer_cannot_write_refuses_the_start)
{
	const struct lv_log log = {.fd = 50};
	struct planrig *rig = device(1);
	uint32_t kind = 0;

	planrig_queue(rig, 0, 0);
	rig->env.log = &log;
	CHECK_EQ(planrig_run(rig, LV_PLAN_START), -ENOTSUP);
	CHECK_HAS(planrig_error(rig, &kind), "VHOST_F_LOG_ALL");
	CHECK_EQ(kind, LIBVHOST_EK_UNSUPPORTED);
	rig->rec->offered[0] |= LV_BIT(LV_F_LOG_ALL);
	CHECK_EQ(planrig_run(rig, LV_PLAN_START), -ENOTSUP);
	CHECK_HAS(planrig_error(rig, NULL), "LOG_SHMFD");
	rig->rec->protocol_acked |= PF(LOG_SHMFD);
	CHECK_EQ(planrig_run(rig, LV_PLAN_START), 0);
	planrig_free(rig);
}

TEST(plan_start, vdpa_cannot_log)
{
	struct planrig *rig = planrig_new(LIBVHOST_DIALECT_VDPA, 2, 1);
	const struct lv_log log = {.fd = 50};

	rig->features[0] = MODERN | LV_BIT(LV_F_LOG_ALL) | LV_BIT(LV_F_ACCESS_PLATFORM);
	planrig_connect(rig);
	planrig_queue(rig, 0, 0);
	CHECK_HAS(lv_plan_log_blocker(rig->rec->offered[0], rig->rec->protocol_acked, LIBVHOST_DIALECT_VDPA), "vDPA");
	rig->env.log = &log;
	CHECK_EQ(planrig_run(rig, LV_PLAN_START), -ENOTSUP);
	planrig_free(rig);
}

TEST(plan_start, unknown_dialect)
{
	struct planrig *rig = device(1);

	rig->caps.dialect = 9;
	CHECK_EQ(planrig_run(rig, LV_PLAN_START), -EINVAL);
	planrig_free(rig);
}

TEST(plan_start, program_grows)
{
	struct lv_program prog;

	lv_program_init(&prog);
	for (uint32_t i = 0; i < 1000; i++) {
		struct libvhost_req *req = lv_program_add(&prog, LIBVHOST_OP_SET_VRING_NUM, i);

		CHECK_EQ(req->flags, 0);
		req->flags = 0xff;
	}
	CHECK_EQ(prog.count, 1000);
	CHECK_EQ(prog.reqs[999].index, 999);
	CHECK(lv_program_alloc(&prog, 4096));
	lv_program_clear(&prog);
	CHECK_EQ(prog.count, 0);
	CHECK_EQ(lv_program_add(&prog, LIBVHOST_OP_SET_OWNER, 0)->flags, 0);
	lv_program_free(&prog);
}

TEST(plan_start, record_copies_itself)
{
	struct lv_record *rec = lv_record_new(2, LIBVHOST_MAX_QUEUES), *copy;

	CHECK(rec);
	CHECK_EQ(rec->bytes, lv_record_size(LIBVHOST_MAX_QUEUES));
	rec->queue[LIBVHOST_MAX_QUEUES - 1].base = 77;
	copy = lv_record_dup(rec);
	CHECK_MEM(copy, rec, rec->bytes);
	free(copy);
	free(rec);
	CHECK(!lv_record_new(2, LIBVHOST_MAX_QUEUES + 1));
}
