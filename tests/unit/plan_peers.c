/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* What plans answer to peers that refuse, shrink or lie. */
#include "planrig.h"

#include <errno.h>
#include <stdlib.h>

/* A connected vhost-user device with its queues set up. */
static struct planrig *device(uint32_t queues, uint64_t protocol)
{
	struct planrig *rig = planrig_new(LIBVHOST_DIALECT_USER, 2, queues);

	rig->protocol = PF(MQ) | protocol;
	planrig_connect(rig);
	for (uint32_t i = 0; i < queues; i++)
		planrig_queue(rig, i, 0);
	return rig;
}

static struct planrig *running(uint32_t queues, uint64_t protocol)
{
	struct planrig *rig = device(queues, protocol);

	CHECK_EQ(planrig_run(rig, LV_PLAN_START), 0);
	planrig_sent(rig);
	rig->text[0] = 0;
	return rig;
}

static int fd_of(const struct planrig *rig, uint32_t op, uint32_t index)
{
	for (uint32_t i = 0; i < rig->prog.count; i++)
		if (rig->prog.reqs[i].op == op && rig->prog.reqs[i].index == index)
			return rig->prog.reqs[i].flags & LIBVHOST_REQ_HAS_FD ? rig->prog.reqs[i].fd : -1;
	return -2;
}

TEST(plan_peers, a_masked_queue_calls_the_private_eventfd)
{
	struct planrig *rig = device(3, 0);

	rig->rec->queue[1].flags |= LV_RQ_MASKED;
	rig->rec->queue[2].flags |= LV_RQ_CALL_POLL | LV_RQ_MASKED;
	CHECK_EQ(planrig_run(rig, LV_PLAN_START), 0);
	CHECK_EQ(fd_of(rig, LIBVHOST_OP_SET_VRING_CALL, 0), FD_CALL);
	CHECK_EQ(fd_of(rig, LIBVHOST_OP_SET_VRING_CALL, 1), FD_MASK + 1);
	CHECK_EQ(fd_of(rig, LIBVHOST_OP_SET_VRING_CALL, 2), -1);
	CHECK_EQ(fd_of(rig, LIBVHOST_OP_SET_VRING_KICK, 2), FD_KICK + 2);
	CHECK_EQ(fd_of(rig, LIBVHOST_OP_SET_VRING_ERR, 2), FD_ERR + 2);
	planrig_free(rig);
}

TEST(plan_peers, eight_regions_without_slots_and_neighbours_merge)
{
	struct planrig *rig = device(1, 0);
	struct lv_snapshot *mem;

	planrig_memory(rig, 9);
	CHECK_EQ(planrig_run(rig, LV_PLAN_START), -ENOSPC);
	planrig_expect(rig, LIBVHOST_EK_NO_SLOT, "9 regions");
	mem = (struct lv_snapshot *)(uintptr_t)rig->env.mem;
	mem->maps[8].gpa = mem->maps[7].gpa + mem->maps[7].size; /* the same file goes on */
	mem->maps[8].user_addr = mem->maps[7].user_addr + mem->maps[7].size;
	mem->maps[8].mmap_offset = mem->maps[7].size;
	mem->maps[8].fd = mem->maps[7].fd;
	CHECK_EQ(planrig_run(rig, LV_PLAN_START), 0);
	CHECK(planrig_says(rig, "SET_MEM_TABLE 8 regions"));
	CHECK(planrig_says(rig, "gpa 0x700000000 size 0x20000000"));
	planrig_free(rig);
}

TEST(plan_peers, a_region_without_descriptor_is_named)
{
	struct planrig *rig = device(1, PF(CONFIGURE_MEM_SLOTS));

	((struct lv_snapshot *)(uintptr_t)rig->env.mem)->maps[0].fd = -1;
	CHECK_EQ(planrig_run(rig, LV_PLAN_START), -ENOTSUP);
	planrig_expect(rig, LIBVHOST_EK_MEMORY, "descriptor");
	planrig_free(rig);
}

TEST(plan_peers, descriptor_0_is_a_descriptor)
{
	struct planrig *rig = device(1, 0);

	rig->fds[0] = (struct lv_queue_fds){0, 0, 0, 0};
	((struct lv_snapshot *)(uintptr_t)rig->env.mem)->maps[0].fd = 0;
	CHECK_EQ(planrig_run(rig, LV_PLAN_START), 0);
	CHECK_EQ(fd_of(rig, LIBVHOST_OP_SET_VRING_KICK, 0), 0);
	CHECK_EQ(fd_of(rig, LIBVHOST_OP_SET_VRING_CALL, 0), 0);
	CHECK(planrig_says(rig, "offset 0 fd\n"));
	planrig_free(rig);
}

TEST(plan_peers, rings_that_would_move_are_an_error)
{
	struct planrig *user = running(1, 0), *kernel = planrig_new(LIBVHOST_DIALECT_KERNEL, 1, 1);

	planrig_memory(user, 0);
	CHECK_EQ(planrig_run(user, LV_PLAN_MEMORY), -EFAULT);
	planrig_expect(user, LIBVHOST_EK_MEMORY, "queue 0");
	planrig_free(user);
	planrig_connect(kernel);
	planrig_queue(kernel, 0, 0);
	CHECK_EQ(planrig_run(kernel, LV_PLAN_START), 0);
	planrig_sent(kernel);
	planrig_memory(kernel, 1);
	((struct lv_snapshot *)(uintptr_t)kernel->env.mem)->maps[0].hva += 0x1000; /* the same place for the guest */
	CHECK_EQ(planrig_run(kernel, LV_PLAN_MEMORY), -EFAULT);
	planrig_free(kernel);
}

TEST(plan_peers, fewer_queues_than_wanted)
{
	struct planrig *rig = planrig_new(LIBVHOST_DIALECT_USER, 2, 4);

	rig->protocol = PF(MQ);
	rig->queues = 3;
	CHECK_EQ(planrig_run(rig, LV_PLAN_CONNECT), -ENOSPC);
	planrig_expect(rig, LIBVHOST_EK_UNSUPPORTED, "4 queues wanted, the back-end has 3");
	rig->rec->virtio_id = 1; /* a network back-end counts pairs */
	CHECK_EQ(planrig_run(rig, LV_PLAN_CONNECT), 0);
	CHECK_EQ(rig->rec->max_queues, 6);
	rig->queues = UINT64_MAX;
	CHECK_EQ(planrig_run(rig, LV_PLAN_CONNECT), 0);
	CHECK_EQ(rig->rec->max_queues, LIBVHOST_MAX_QUEUES);
	rig->queues = 0;
	CHECK_EQ(planrig_run(rig, LV_PLAN_CONNECT), -ENOSPC);
	planrig_free(rig);
}

TEST(plan_peers, features_that_do_not_stick)
{
	struct planrig *rig = device(1, PF(STATUS));

	rig->refuse_status = LV_STATUS_FEATURES_OK;
	CHECK_EQ(planrig_run(rig, LV_PLAN_START), -ENOTSUP);
	planrig_expect(rig, LIBVHOST_EK_REFUSED, "FEATURES_OK");
	CHECK(!planrig_says(rig, "KICK"));
	/* a status bit is only ever taken back by 0 */
	rig->text[0] = 0;
	CHECK_EQ(planrig_run(rig, LV_PLAN_STOP), 0);
	CHECK(planrig_says(rig, "SET_STATUS 0\n"));
	CHECK_EQ(rig->rec->status, 0);
	planrig_free(rig);
}

TEST(plan_peers, impossible_base)
{
	struct planrig *rig = running(3, 0);

	rig->bases[1] = 0x10000;
	CHECK_EQ(planrig_run(rig, LV_PLAN_STOP), -EPROTO);
	planrig_expect(rig, LIBVHOST_EK_PROTOCOL, "queue 1 answered 0x10000");
	CHECK_EQ(rig->rec->queue[1].base, 0x10);
	CHECK(rig->rec->queue[1].flags & LV_RQ_RUNNING);
	planrig_free(rig);
}

/* 32 bits with wrap counters. DPDK's answer has the available half only, and nothing is in flight then. */
TEST(plan_peers, bases_of_packed_rings)
{
	static const struct {
		uint64_t answer;
		uint32_t base;
	} rows[] = {{0x80018001, 0x80018001}, {0x00018003, 0},		{0x00018001, 0x00018001}, {0x8005, 0x80058005},
		    {5, 0x00050005},	      {0x80638063, 0x80638063}, {0x80648064, 0}};

	for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
		struct planrig *rig = running(1, 0);

		rig->rec->acked[0] |= LV_BIT(LV_F_RING_PACKED);
		rig->rec->queue[0].num = 100;
		rig->bases[0] = rows[i].answer;
		CHECK_EQ(planrig_run(rig, LV_PLAN_STOP), rows[i].base ? 0 : -EPROTO);
		if (rows[i].base)
			CHECK_EQ(rig->rec->queue[0].base, rows[i].base);
		planrig_free(rig);
	}
}

TEST(plan_peers, a_kick_that_may_have_arrived_is_undone_by_stop)
{
	struct planrig *rig = device(3, 0);

	rig->fail_op = LIBVHOST_OP_SET_VRING_KICK;
	rig->fail_after = 1;
	CHECK_EQ(planrig_run(rig, LV_PLAN_START), -EIO);
	CHECK(rig->rec->queue[0].flags & LV_RQ_RUNNING);    /* confirmed */
	CHECK(!(rig->rec->queue[1].flags & LV_RQ_RUNNING)); /* refused */
	CHECK(rig->rec->queue[2].flags & LV_RQ_RUNNING);    /* sent behind it */
	rig->text[0] = 0;
	rig->fail_op = 0;
	CHECK_EQ(planrig_run(rig, LV_PLAN_STOP), 0);
	CHECK(planrig_says(rig, "GET_VRING_BASE queue 0\nGET_VRING_BASE queue 2\n"));
	planrig_free(rig);
}

static void came_back(const char *what, uint64_t features, uint64_t protocol, uint64_t queues, uint32_t config)
{
	struct planrig *rig = running(2, PF(CONFIG) | PF(REPLY_ACK));

	rig->rec->config_len = 60;
	rig->features[0] = features;
	rig->protocol = protocol;
	rig->queues = queues;
	rig->config_len = config;
	CHECK_EQ(planrig_run(rig, LV_PLAN_RESUME), -ENOTSUP);
	planrig_expect(rig, LIBVHOST_EK_SHRUNK, what);
	CHECK(!planrig_says(rig, "KICK") && !planrig_says(rig, "ENABLE"));
	planrig_free(rig);
}

TEST(plan_peers, came_back_with_less)
{
	const uint64_t all = PF(MQ) | PF(CONFIG) | PF(REPLY_ACK);

	came_back("VIRTIO_F_VERSION_1 (bit 32", F30, all, 2, 60);
	came_back("REPLY_ACK (bit 3", F30 | MODERN, all & ~PF(REPLY_ACK), 2, 60);
	came_back("the number of queues was 2, is 1", F30 | MODERN, all, 1, 60);
	came_back("configuration space was 60, is 59", F30 | MODERN, all, 2, 59);
}

/* A strict peer drops the connection at the first message it did not offer: the answers before it explain why. */
TEST(plan_peers, a_hang_up_on_resume_is_explained)
{
	struct planrig *rig = running(1, PF(REPLY_ACK));

	rig->protocol = PF(MQ);
	rig->fail_op = LIBVHOST_OP_SET_PROTOCOL_FEATURES;
	CHECK_EQ(planrig_run(rig, LV_PLAN_RESUME), -EIO);
	CHECK_EQ(lv_plan_explain(&rig->plan, &rig->env, &rig->prog, &rig->err), -ENOTSUP);
	planrig_expect(rig, LIBVHOST_EK_SHRUNK, "REPLY_ACK");
	rig->protocol = PF(MQ) | PF(REPLY_ACK);
	rig->passed = 0;
	CHECK_EQ(planrig_run(rig, LV_PLAN_RESUME), -EIO);
	CHECK_EQ(lv_plan_explain(&rig->plan, &rig->env, &rig->prog, &rig->err), 0);
	planrig_free(rig);
}

TEST(plan_peers, protocol_features_by_need)
{
	const uint64_t all = (1 << 23) - 1;
	struct lv_protocol_choice c = {.offered = UINT64_MAX};
	uint64_t channel = PF(BACKEND_REQ) | PF(BACKEND_SEND_FD) | PF(INBAND_NOTIFICATIONS);
	uint64_t never =
		PF(CROSS_ENDIAN) | PF(PAGEFAULT) | PF(INFLIGHT_SHMFD) | PF(XEN_MMAP) | PF(GET_VRING_BASE_INFLIGHT);
	uint64_t hosted = PF(HOST_NOTIFIER) | PF(SHARED_OBJECT);

	CHECK_EQ(lv_protocol_choose(&c), all & ~never & ~channel & ~hosted & ~PF(GPA_ADDRESSES) & ~PF(SHMEM_MAP));
	c.channel = true;
	CHECK_EQ(lv_protocol_choose(&c), all & ~never & ~hosted & ~PF(GPA_ADDRESSES) & ~PF(SHMEM_MAP));
	c.dev_flags = LIBVHOST_DEV_HOST_NOTIFIERS;
	CHECK_EQ(lv_protocol_choose(&c) & hosted, PF(HOST_NOTIFIER));
	c.dev_flags = LIBVHOST_DEV_SHARED_OBJECTS;
	CHECK_EQ(lv_protocol_choose(&c) & hosted, PF(SHARED_OBJECT));
	c.on_request = true; /* the host sees to them itself */
	c.dev_flags = LIBVHOST_DEV_USE_GPA_ADDRESSES | LIBVHOST_DEV_USE_SHMEM;
	CHECK_EQ(lv_protocol_choose(&c), all & ~never);
	c.never = PF(REPLY_ACK); /* in-band messages need it */
	CHECK_EQ(lv_protocol_choose(&c), all & ~never & ~PF(REPLY_ACK) & ~PF(INBAND_NOTIFICATIONS));
	c.never = PF(BACKEND_REQ);
	CHECK_EQ(lv_protocol_choose(&c), all & ~never & ~channel & ~hosted & ~PF(SHMEM_MAP));
	c.never = 0;
	c.offered = PF(MQ) | LV_BIT(40);
	CHECK_EQ(lv_protocol_choose(&c), PF(MQ));
}

TEST(plan_peers, guest_physical_ring_addresses_by_flag)
{
	struct planrig *rig = planrig_new(LIBVHOST_DIALECT_USER, 2, 1);

	rig->protocol = PF(GPA_ADDRESSES);
	rig->env.dev_flags = LIBVHOST_DEV_USE_GPA_ADDRESSES;
	planrig_connect(rig);
	planrig_queue(rig, 0, 0);
	CHECK_EQ(planrig_run(rig, LV_PLAN_START), 0);
	CHECK(planrig_says(rig, "gpa 0 size 0x10000000 user 0 offset 0 fd"));
	CHECK(planrig_says(rig, "desc 0x10000 avail 0x11000 used 0x12000"));
	planrig_free(rig);
}
