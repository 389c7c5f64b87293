/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* Whole programs against tests/golden, which are written by hand and never regenerated. */
#include "planrig.h"

#include <errno.h>

static struct planrig *user(uint32_t queues, uint64_t protocol)
{
	struct planrig *rig = planrig_new(LIBVHOST_DIALECT_USER, 2, queues);

	rig->protocol = protocol;
	return rig;
}

TEST(plan_golden, user_connect)
{
	struct planrig *rig = user(4, 0x8f2b);

	rig->features[0] = 0x175007e46;
	CHECK_EQ(planrig_run(rig, LV_PLAN_CONNECT), 0);
	planrig_golden(rig, "user-connect");
	CHECK_EQ(rig->waits, 3);
	CHECK_EQ(rig->rec->max_queues, 4);
	CHECK_EQ(rig->rec->max_regions, 32);
	CHECK_EQ(rig->rec->offered[0], 0x175007e46);
	CHECK_EQ(rig->rec->protocol_offered, 0x8f2b);
	CHECK_EQ(rig->rec->protocol_acked, 0x862b);
	CHECK(rig->rec->flags & LV_RF_NEGOTIATED);
	planrig_free(rig);
}

TEST(plan_golden, user_plain)
{
	struct planrig *rig = user(2, 0);

	rig->rec->virtio_id = 1;
	rig->features[0] = MODERN;
	CHECK_EQ(planrig_run(rig, LV_PLAN_CONNECT), 0);
	CHECK_EQ(rig->waits, 2);
	CHECK_EQ(rig->rec->max_queues, 2);
	rig->rec->acked[0] = MODERN;
	planrig_queue(rig, 0, 0);
	planrig_queue(rig, 1, LV_RQ_DISABLED);
	CHECK_EQ(planrig_run(rig, LV_PLAN_START), 0);
	CHECK(!(rig->rec->queue[1].flags & LV_RQ_RUNNING));
	CHECK_EQ(planrig_run(rig, LV_PLAN_STOP), 0);
	CHECK_EQ(planrig_run(rig, LV_PLAN_RESET), 0);
	planrig_golden(rig, "user-plain");
	planrig_free(rig);
}

TEST(plan_golden, user_slots)
{
	struct planrig *rig = user(2, PF(MQ) | PF(REPLY_ACK) | PF(CONFIGURE_MEM_SLOTS) | PF(RESET_DEVICE));

	planrig_connect(rig);
	planrig_memory(rig, 2);
	planrig_queue(rig, 0, 0);
	planrig_queue(rig, 1, 0);
	CHECK_EQ(planrig_run(rig, LV_PLAN_START), 0);
	CHECK_EQ(rig->waits, 2);
	planrig_sent(rig);
	CHECK_EQ(planrig_run(rig, LV_PLAN_STOP), 0);
	CHECK_EQ(rig->waits, 1);
	CHECK_EQ(rig->rec->queue[1].base, 257);
	CHECK(!(rig->rec->flags & LV_RF_RUNNING));
	CHECK_EQ(planrig_run(rig, LV_PLAN_START), 0);
	planrig_memory(rig, 3);
	CHECK_EQ(planrig_run(rig, LV_PLAN_MEMORY), 0);
	CHECK_EQ(rig->waits, 1);
	planrig_sent(rig);
	planrig_memory(rig, 1);
	CHECK_EQ(planrig_run(rig, LV_PLAN_MEMORY), 0);
	planrig_sent(rig);
	CHECK_EQ(planrig_run(rig, LV_PLAN_MEMORY), 0);
	CHECK_EQ(rig->waits, 0);
	CHECK_EQ(planrig_run(rig, LV_PLAN_RESET), 0);
	CHECK_EQ(rig->waits, 1);
	planrig_golden(rig, "user-slots");
	CHECK_EQ(rig->rec->acked[0], 0);
	CHECK_EQ(rig->rec->queue[0].flags, 0);
	CHECK_EQ(rig->rec->queue[0].base, 0);
	planrig_free(rig);
}

TEST(plan_golden, user_table_holes_polling_masked)
{
	struct planrig *rig = user(6, PF(MQ));

	planrig_connect(rig);
	planrig_queue(rig, 0, LV_RQ_MASKED);
	planrig_queue(rig, 2, LV_RQ_KICK_POLL | LV_RQ_CALL_POLL);
	planrig_queue(rig, 5, LV_RQ_DISABLED);
	CHECK_EQ(planrig_run(rig, LV_PLAN_START), 0);
	planrig_sent(rig);
	planrig_memory(rig, 2);
	CHECK_EQ(planrig_run(rig, LV_PLAN_MEMORY), 0);
	planrig_sent(rig);
	CHECK_EQ(planrig_run(rig, LV_PLAN_STOP), 0);
	planrig_golden(rig, "user-table");
	planrig_free(rig);
}

TEST(plan_golden, user_status)
{
	struct planrig *rig = user(2, PF(MQ) | PF(REPLY_ACK) | PF(STATUS));

	planrig_connect(rig);
	planrig_queue(rig, 0, 0);
	planrig_queue(rig, 1, 0);
	CHECK_EQ(planrig_run(rig, LV_PLAN_START), 0);
	CHECK_EQ(rig->waits, 2);
	CHECK_EQ(rig->rec->status, 15);
	CHECK_EQ(planrig_run(rig, LV_PLAN_STOP), 0);
	CHECK_EQ(rig->waits, 1);
	CHECK_EQ(rig->rec->status, 0);
	CHECK_EQ(planrig_run(rig, LV_PLAN_RESET), 0);
	planrig_golden(rig, "user-status");
	planrig_free(rig);
}

TEST(plan_golden, user_resume)
{
	struct planrig *rig = user(2, PF(MQ) | PF(REPLY_ACK) | PF(BACKEND_REQ) | PF(CONFIG) | PF(CONFIGURE_MEM_SLOTS));

	planrig_connect(rig);
	planrig_queue(rig, 0, LV_RQ_RUNNING);
	planrig_queue(rig, 1, LV_RQ_RUNNING);
	rig->rec->flags |= LV_RF_RUNNING;
	rig->rec->config_len = rig->config_len = 60;
	rig->features[0] |= LV_BIT(35); /* a newer peer: accepted, but the guest is not shown more */
	planrig_sent(rig);
	CHECK_EQ(planrig_run(rig, LV_PLAN_RESUME), 0);
	CHECK_EQ(rig->waits, 2);
	CHECK_EQ(rig->rec->offered[0], F30 | MODERN);
	CHECK_EQ(rig->rec->config[59], 0xcf);
	CHECK_EQ(planrig_run(rig, LV_PLAN_STOP), 0);
	CHECK_EQ(planrig_run(rig, LV_PLAN_RESUME), 0);
	CHECK_EQ(rig->waits, 1);
	CHECK(!(rig->rec->flags & LV_RF_RUNNING));
	planrig_golden(rig, "user-resume");
	planrig_free(rig);
}

TEST(plan_golden, kernel)
{
	struct planrig *rig = planrig_new(LIBVHOST_DIALECT_KERNEL, 1, 4);

	rig->features[0] = MODERN | LV_BIT(LV_F_LOG_ALL) | LV_BIT(LV_F_NET_HDR) | LV_BIT(LV_F_ACCESS_PLATFORM);
	rig->backend = LV_BIT(LV_BF_IOTLB_MSG_V2);
	rig->caps.max_queues = 2;
	rig->env.first = 2;
	rig->env.count = 2;
	rig->env.lead = false;
	/* The first part offered bit 10 but not 11, this one the other way round: neither remains. */
	rig->rec->offered[0] = rig->features[0] | LV_BIT(10);
	rig->features[0] |= LV_BIT(11);
	rig->rec->backend_offered = rig->backend;
	CHECK_EQ(planrig_run(rig, LV_PLAN_CONNECT), 0);
	CHECK_EQ(rig->rec->offered[0], rig->features[0] & ~LV_BIT(11));
	CHECK_EQ(rig->rec->max_queues, 4);
	rig->rec->acked[0] = rig->rec->offered[0];
	for (uint32_t i = 0; i < 4; i++)
		planrig_queue(rig, i, 0);
	rig->bases[0] = 256;
	rig->bases[1] = 257;
	CHECK_EQ(planrig_run(rig, LV_PLAN_START), 0);
	planrig_sent(rig);
	planrig_memory(rig, 2);
	CHECK_EQ(planrig_run(rig, LV_PLAN_MEMORY), 0);
	planrig_sent(rig);
	CHECK_EQ(planrig_run(rig, LV_PLAN_STOP), 0);
	CHECK_EQ(rig->rec->queue[3].base, 257);
	CHECK_EQ(rig->rec->queue[1].base, 16);
	CHECK_EQ(planrig_run(rig, LV_PLAN_START), 0);
	CHECK_EQ(planrig_run(rig, LV_PLAN_RESUME), 0);
	CHECK_EQ(planrig_run(rig, LV_PLAN_RESET), 0);
	planrig_golden(rig, "kernel");
	CHECK_EQ(rig->rec->queue[3].flags, 0);
	CHECK_EQ(rig->rec->queue[1].num, 256);
	planrig_free(rig);
}

TEST(plan_golden, kernel_wide_features)
{
	struct planrig *rig = planrig_new(LIBVHOST_DIALECT_KERNEL, 1, 1);

	rig->caps.ops[LIBVHOST_OP_GET_FEATURES_ARRAY / 64] |= LV_BIT(LIBVHOST_OP_GET_FEATURES_ARRAY % 64);
	rig->caps.ops[LIBVHOST_OP_SET_FEATURES_ARRAY / 64] |= LV_BIT(LIBVHOST_OP_SET_FEATURES_ARRAY % 64);
	rig->features[0] = MODERN;
	rig->features[1] = 4;
	CHECK_EQ(planrig_run(rig, LV_PLAN_CONNECT), 0);
	CHECK_EQ(rig->rec->offered[1], 4);
	memcpy(rig->rec->acked, rig->rec->offered, sizeof(rig->rec->acked));
	planrig_queue(rig, 0, 0);
	CHECK_EQ(planrig_run(rig, LV_PLAN_START), 0);
	planrig_golden(rig, "kernel-wide");
	planrig_free(rig);
}

TEST(plan_golden, vdpa)
{
	struct planrig *rig = planrig_new(LIBVHOST_DIALECT_VDPA, 2, 2);
	const int config_call = 50;

	rig->features[0] = MODERN | LV_BIT(LV_F_ACCESS_PLATFORM);
	rig->backend = LV_BIT(LV_BF_IOTLB_MSG_V2) | LV_BIT(LV_BF_IOTLB_BATCH) | LV_BIT(LV_BF_SUSPEND) |
		       LV_BIT(LV_BF_IOTLB_ASID) | LV_BIT(LV_BF_ENABLE_AFTER_DRIVER_OK);
	rig->iova_last = UINT64_MAX;
	rig->env.config_call = &config_call;
	CHECK_EQ(planrig_run(rig, LV_PLAN_CONNECT), 0);
	rig->rec->acked[0] = MODERN;
	planrig_queue(rig, 0, 0);
	planrig_queue(rig, 1, 0);
	CHECK_EQ(planrig_run(rig, LV_PLAN_START), 0);
	planrig_sent(rig);
	planrig_memory(rig, 2);
	CHECK_EQ(planrig_run(rig, LV_PLAN_MEMORY), 0);
	planrig_sent(rig);
	CHECK_EQ(planrig_run(rig, LV_PLAN_STOP), 0);
	CHECK_EQ(planrig_run(rig, LV_PLAN_START), 0);
	planrig_memory(rig, 1);
	CHECK_EQ(planrig_run(rig, LV_PLAN_MEMORY), 0);
	planrig_sent(rig);
	CHECK_EQ(planrig_run(rig, LV_PLAN_RESUME), 0);
	CHECK_EQ(planrig_run(rig, LV_PLAN_RESET), 0);
	planrig_golden(rig, "vdpa");
	planrig_free(rig);
}

TEST(plan_golden, vdpa_bare)
{
	struct planrig *rig = planrig_new(LIBVHOST_DIALECT_VDPA, 2, 2);

	rig->features[0] = MODERN | LV_BIT(LV_F_ACCESS_PLATFORM);
	rig->backend = LV_BIT(LV_BF_IOTLB_MSG_V2) | LV_BIT(LV_BF_IOTLB_PERSIST);
	CHECK_EQ(planrig_run(rig, LV_PLAN_CONNECT), 0);
	rig->rec->acked[0] = MODERN;
	planrig_queue(rig, 0, 0);
	planrig_queue(rig, 1, 0);
	CHECK_EQ(planrig_run(rig, LV_PLAN_START), 0);
	planrig_sent(rig);
	CHECK_EQ(planrig_run(rig, LV_PLAN_STOP), 0);
	for (uint32_t i = 0; i < 2; i++) {
		CHECK_EQ(rig->rec->queue[i].flags, LV_RQ_SET | LV_RQ_BASE_STALE);
		rig->rec->queue[i].flags = LV_RQ_SET;
		rig->rec->queue[i].base = 5 + i;
	}
	CHECK_EQ(planrig_run(rig, LV_PLAN_START), 0);
	planrig_golden(rig, "vdpa-bare");
	planrig_free(rig);
}

/* On and off while two queues run, a map that grows and shrinks meanwhile, stop, start, and a new peer. */
TEST(plan_golden, user_log)
{
	const struct lv_log log = {.fd = 50};
	struct planrig *rig = user(2, PF(MQ) | PF(LOG_SHMFD) | PF(REPLY_ACK) | PF(CONFIGURE_MEM_SLOTS));

	rig->features[0] |= LV_BIT(LV_F_LOG_ALL);
	planrig_connect(rig);
	planrig_queue(rig, 0, 0);
	planrig_queue(rig, 1, 0);
	CHECK_EQ(planrig_run(rig, LV_PLAN_START), 0);
	planrig_sent(rig);
	rig->text[0] = 0;
	rig->env.log = &log;
	CHECK_EQ(planrig_run(rig, LV_PLAN_MEMORY), 0);
	CHECK_EQ(rig->waits, 1);
	CHECK(rig->rec->flags & LV_RF_LOG);
	CHECK_EQ(rig->rec->log_bytes, 8192); /* of 256 MiB */
	CHECK_EQ(planrig_run(rig, LV_PLAN_MEMORY), 0);
	CHECK_EQ(rig->waits, 0);
	planrig_memory(rig, 2);
	CHECK_EQ(planrig_run(rig, LV_PLAN_MEMORY), 0);
	CHECK_EQ(rig->waits, 1);
	CHECK_EQ(rig->rec->log_bytes, 0x22000);
	planrig_sent(rig);
	planrig_memory(rig, 1);
	CHECK_EQ(planrig_run(rig, LV_PLAN_MEMORY), 0);
	CHECK_EQ(rig->waits, 1);
	CHECK_EQ(rig->rec->log_bytes, 8192);
	planrig_sent(rig);
	CHECK_EQ(planrig_run(rig, LV_PLAN_STOP), 0);
	CHECK_EQ(planrig_run(rig, LV_PLAN_START), 0);
	CHECK_EQ(planrig_run(rig, LV_PLAN_RESUME), 0);
	rig->env.log = NULL;
	CHECK_EQ(planrig_run(rig, LV_PLAN_MEMORY), 0);
	CHECK_EQ(rig->waits, 1);
	CHECK(!(rig->rec->flags & LV_RF_LOG));
	planrig_golden(rig, "user-log");
	planrig_free(rig);
}

TEST(plan_golden, kernel_log)
{
	const struct lv_log log = {.fd = 50, .bits = (uint8_t *)0x7f0000000000};
	struct planrig *rig = planrig_new(LIBVHOST_DIALECT_KERNEL, 1, 1);

	rig->features[0] = MODERN | LV_BIT(LV_F_LOG_ALL);
	planrig_connect(rig);
	planrig_queue(rig, 0, 0);
	CHECK_EQ(planrig_run(rig, LV_PLAN_START), 0);
	planrig_sent(rig);
	rig->text[0] = 0;
	rig->env.log = &log;
	CHECK_EQ(planrig_run(rig, LV_PLAN_MEMORY), 0);
	planrig_memory(rig, 2);
	CHECK_EQ(planrig_run(rig, LV_PLAN_MEMORY), 0);
	planrig_sent(rig);
	CHECK_EQ(planrig_run(rig, LV_PLAN_STOP), 0);
	CHECK_EQ(planrig_run(rig, LV_PLAN_START), 0);
	rig->env.log = NULL;
	CHECK_EQ(planrig_run(rig, LV_PLAN_MEMORY), 0);
	planrig_golden(rig, "kernel-log");
	planrig_free(rig);
}
