/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* Programs over vhost-user with a well-behaved peer: validation, order, barriers, acknowledgements, results. */
#include "check.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>
#include "core/ctx.h"
#include "puppet.h"
#include "transport/transport.h"

#define OP(name) LIBVHOST_OP_##name

struct rig {
	struct lv_ledger before;
	struct libvhost_ctx *ctx;
	struct puppet p;
	struct libvhost_transport *t;
};

static void rig_open(struct rig *r, bool threaded)
{
	CHECK_EQ(libvhost_ctx_new(NULL, &r->ctx), 0);
	if (threaded)
		puppet_start(&r->p);
	else
		puppet_pair(&r->p);
	r->t = puppet_connect(&r->p, r->ctx, NULL);
}

static void rig_init(struct rig *r)
{
	memset(r, 0, sizeof(*r));
	r->before = lv_ledger_take();
	puppet_init(&r->p);
}

static void rig_close(struct rig *r)
{
	libvhost_transport_free(r->t);
	puppet_stop(&r->p);
	libvhost_ctx_free(r->ctx);
	CHECK_LEDGER(r->before);
}

static int run(struct rig *r, struct libvhost_req *reqs, uint32_t n)
{
	return libvhost_transport_exec(r->t, reqs, n, 2000, NULL);
}

static void negotiate(struct rig *r, uint64_t protocol)
{
	struct libvhost_req reqs[] = {
		{.op = OP(SET_OWNER)},
		{.op = OP(GET_FEATURES)},
		{.op = OP(GET_PROTOCOL_FEATURES)},
		{.op = OP(SET_PROTOCOL_FEATURES), .arg.u64 = protocol},
		{.op = OP(SET_FEATURES), .arg.features = {PUPPET_FEATURES}},
	};

	CHECK_EQ(run(r, reqs, 5), 0);
	CHECK_EQ(reqs[1].result[0], r->p.features);
	CHECK_EQ(reqs[2].result[0], r->p.protocol_features);
	for (unsigned i = 0; i < 5; i++)
		CHECK_EQ(reqs[i].state, LIBVHOST_REQ_DONE);
}

TEST(user_program, reads_values_and_negotiates_in_one_wait)
{
	struct rig r;
	struct libvhost_req q = {.op = OP(GET_QUEUE_NUM)};
	uint32_t done = 9;

	rig_init(&r);
	rig_open(&r, true);
	negotiate(&r, r.p.protocol_features);
	CHECK_EQ(libvhost_transport_exec(r.t, &q, 1, 0, &done), 0);
	CHECK_EQ(done, 1);
	CHECK_EQ(q.result[0], PUPPET_QUEUES);
	CHECK_EQ(libvhost_transport_exec(r.t, NULL, 0, 0, &done), 0);
	CHECK_EQ(done, 0);
	rig_close(&r);
}

TEST(user_program, a_malformed_request_sends_nothing)
{
	struct rig r;
	struct libvhost_error e = {.size = sizeof(e)};
	struct libvhost_req reqs[2] = {{.op = OP(SET_OWNER), .result = {7}}, {.op = OP(GET_CONFIG)}};

	rig_init(&r);
	rig_open(&r, false);
	CHECK_EQ(run(&r, reqs, 2), -ENOTSUP); /* CONFIG was not negotiated */
	CHECK_EQ(reqs[0].result[0], 7);
	CHECK_EQ(libvhost_transport_error(r.t, &e), 0);
	CHECK_EQ(e.kind, LIBVHOST_EK_NOT_NEGOTIATED);
	CHECK_EQ(e.request, 1);
	CHECK_EQ(e.op, OP(GET_CONFIG));
	CHECK_HAS(e.text, "GET_CONFIG (request 1)");
	reqs[1].op = OP(VDPA_SUSPEND);
	CHECK_EQ(run(&r, reqs, 2), -ENOTSUP);
	reqs[1].op = OP(BACKEND_VRING_CALL);
	CHECK_EQ(run(&r, reqs, 2), -ENOTSUP);
	reqs[1].op = 200;
	CHECK_EQ(run(&r, reqs, 2), -EINVAL);
	reqs[1] = (struct libvhost_req){.op = OP(SET_OWNER), .flags = 0x100};
	CHECK_EQ(run(&r, reqs, 2), -EINVAL);
	reqs[1] = (struct libvhost_req){.op = OP(SET_VRING_NUM), .index = 70000, .arg.num = 8};
	CHECK_EQ(run(&r, reqs, 2), -EINVAL);
	CHECK_EQ(libvhost_transport_exec(r.t, NULL, 1, 0, NULL), -EINVAL);
	CHECK_EQ(libvhost_transport_exec(r.t, reqs, 1, 4000000, NULL), -EINVAL);
	CHECK_EQ(puppet_step(&r.p, 0), 0);
	rig_close(&r);
}

/* Features set inside a program open the gates behind them, not before them. */
TEST(user_program, gates_follow_program_order)
{
	struct rig r;
	struct libvhost_req reqs[] = {
		{.op = OP(GET_FEATURES)},
		{.op = OP(SET_PROTOCOL_FEATURES), .arg.u64 = PUPPET_PF(MQ)},
		{.op = OP(GET_QUEUE_NUM)},
	};
	struct libvhost_req swapped[] = {reqs[0], reqs[2], reqs[1]};

	rig_init(&r);
	rig_open(&r, true);
	CHECK_EQ(run(&r, swapped, 3), -ENOTSUP);
	CHECK_EQ(run(&r, reqs, 3), 0);
	CHECK_EQ(run(&r, &swapped[1], 1), 0); /* remembered now */
	rig_close(&r);
}

TEST(user_program, critical_policy_asks_before_barriers_and_at_the_end)
{
	struct rig r;
	struct libvhost_req reqs[6] = {{0}};

	rig_init(&r);
	rig_open(&r, true);
	negotiate(&r, r.p.protocol_features);
	for (uint32_t i = 0; i < 6; i++)
		reqs[i] = (struct libvhost_req){.op = OP(SET_VRING_NUM), .index = i, .arg.num = 64};
	reqs[3].flags = LIBVHOST_REQ_BARRIER;
	CHECK_EQ(run(&r, reqs, 6), 0);
	CHECK_EQ(libvhost_transport_set_ack_policy(r.t, 3), -EINVAL);
	CHECK_EQ(libvhost_transport_set_ack_policy(r.t, LIBVHOST_ACK_ALL), 0);
	CHECK_EQ(run(&r, reqs, 6), 0);
	CHECK_EQ(libvhost_transport_set_ack_policy(r.t, LIBVHOST_ACK_NONE), 0);
	reqs[1].flags = LIBVHOST_REQ_NEED_REPLY;
	CHECK_EQ(run(&r, reqs, 6), 0);
	libvhost_transport_free(r.t);
	puppet_stop(&r.p);
	/* negotiate: 5, its end acknowledged because REPLY_ACK was set by then */
	CHECK_EQ(atomic_load(&r.p.messages), 5 + 6 + 6 + 8);
	for (uint32_t i = 0; i < 6; i++) {
		CHECK_EQ(!!(r.p.seen_flags[5 + i] & LV_USER_F_NEED_REPLY), i == 2 || i == 5);
		CHECK(r.p.seen_flags[11 + i] & LV_USER_F_NEED_REPLY);
	}
	CHECK(r.p.seen_flags[17 + 1] & LV_USER_F_NEED_REPLY);
	CHECK_EQ(r.p.seen[17 + 3], OP(GET_FEATURES)); /* fence before the barrier */
	CHECK_EQ(r.p.seen[17 + 7], OP(GET_FEATURES));
	CHECK(!(r.p.seen_flags[4] & ~LV_USER_F_NEED_REPLY & ~1u));
	libvhost_ctx_free(r.ctx);
	CHECK_LEDGER(r.before);
}

TEST(user_program, without_reply_ack_a_fence_confirms)
{
	struct rig r;
	struct libvhost_req reqs[2] = {{.op = OP(SET_VRING_NUM), .arg.num = 64},
				       {.op = OP(SET_VRING_BASE), .arg.num = 3}};

	rig_init(&r);
	rig_open(&r, true);
	CHECK_EQ(run(&r, reqs, 2), 0);
	CHECK_EQ(reqs[0].state, LIBVHOST_REQ_DONE);
	CHECK_EQ(reqs[1].state, LIBVHOST_REQ_DONE);
	CHECK_EQ(reqs[1].result[0], 0);
	libvhost_transport_free(r.t);
	puppet_stop(&r.p);
	CHECK_EQ(r.p.ring[0].num, 64);
	CHECK_EQ(atomic_load(&r.p.messages), 3);
	CHECK_EQ(r.p.seen[2], OP(GET_FEATURES));
	CHECK_EQ(r.p.seen_flags[1], 1);
	libvhost_ctx_free(r.ctx);
}

/* Nothing that lets the peer touch memory leaves before features and memory are confirmed, asked for or not. */
TEST(user_program, kick_enable_and_driver_ok_wait_for_memory)
{
	const uint32_t starters[] = {OP(SET_VRING_KICK), OP(SET_VRING_ENABLE), OP(SET_STATUS)};

	for (unsigned i = 0; i < 3; i++) {
		struct libvhost_region reg = {
			.size = 4096, .user_addr = 4096, .fd = STDERR_FILENO, .flags = LIBVHOST_REGION_HAS_FD};
		struct libvhost_req all[] = {
			{.op = OP(GET_FEATURES)},
			{.op = OP(SET_PROTOCOL_FEATURES)},
			{.op = OP(SET_FEATURES), .arg.features = {PUPPET_FEATURES}},
			{.op = OP(SET_MEM_TABLE),
			 .arg.table = {1, sizeof(reg)},
			 .data_in = (uintptr_t)&reg,
			 .data_in_len = sizeof(reg)},
			{.op = starters[i], .arg.u64 = starters[i] == OP(SET_STATUS) ? 0xf : 1},
		};
		struct rig r;

		rig_init(&r);
		rig_open(&r, false);
		all[1].arg.u64 = r.p.protocol_features;
		CHECK_EQ(libvhost_transport_submit(r.t, all, 5, PATIENCE_MS), 0);
		CHECK_EQ(puppet_step(&r.p, PATIENCE_MS), 1);
		CHECK_EQ(puppet_step(&r.p, PATIENCE_MS), 1);
		CHECK_EQ(puppet_step(&r.p, PATIENCE_MS), 1);
		CHECK_EQ(puppet_step(&r.p, 0), 1); /* SET_MEM_TABLE, acknowledged */
		CHECK_EQ(puppet_step(&r.p, 0), 0); /* and nothing behind it */
		CHECK_EQ(all[4].state, LIBVHOST_REQ_NOT_SENT);
		CHECK_EQ(libvhost_transport_progress(r.t), 0);
		CHECK_EQ(puppet_step(&r.p, 0), 1);
		CHECK_EQ(libvhost_transport_progress(r.t), 1);
		CHECK_EQ(all[4].state, LIBVHOST_REQ_DONE);
		rig_close(&r);
	}
}

TEST(user_program, a_reply_descriptor_belongs_to_the_caller)
{
	struct rig r;
	struct libvhost_req reqs[3] = {
		{.op = OP(SET_VRING_NUM), .arg.num = 64},
		{.op = OP(GET_INFLIGHT_FD), .arg.inflight = {.num_queues = 2, .queue_size = 64}},
		{.op = OP(GET_QUEUE_NUM)},
	};

	rig_init(&r);
	rig_open(&r, true);
	negotiate(&r, r.p.protocol_features);
	CHECK_EQ(run(&r, reqs, 3), 0);
	CHECK_EQ(reqs[1].out_flags, LIBVHOST_REQ_OUT_FD);
	CHECK_EQ(reqs[1].result[0], 8192);
	CHECK_EQ(lseek(reqs[1].out_fd, 0, SEEK_END), 8192);
	CHECK_EQ(close(reqs[1].out_fd), 0);
	CHECK_EQ(reqs[2].result[0], PUPPET_QUEUES);
	rig_close(&r);
}

TEST(user_program, taken_descriptors_are_closed_in_every_case)
{
	struct rig r;
	struct libvhost_req req = {.op = OP(SET_VRING_CALL), .flags = LIBVHOST_REQ_HAS_FD | LIBVHOST_REQ_TAKE_FD};

	rig_init(&r);
	rig_open(&r, true);
	req.fd = lv_eventfd();
	CHECK_EQ(run(&r, &req, 1), 0);
	req.fd = lv_eventfd();
	req.index = 70000;
	CHECK_EQ(run(&r, &req, 1), -EINVAL);
	rig_close(&r);
}

TEST(user_program, big_programs_flow_through_a_full_socket)
{
	enum { QUEUES = 200, EACH = 3 };
	struct libvhost_req *reqs = calloc(QUEUES * EACH, sizeof(*reqs));
	struct rig r;
	int fd;

	rig_init(&r);
	rig_open(&r, true);
	negotiate(&r, r.p.protocol_features);
	libvhost_transport_set_ack_policy(r.t, LIBVHOST_ACK_ALL);
	fd = lv_eventfd();
	for (uint32_t i = 0; i < QUEUES; i++) {
		reqs[i * EACH] = (struct libvhost_req){.op = OP(SET_VRING_NUM), .index = i, .arg.num = 256};
		for (uint32_t j = 1; j < EACH; j++)
			reqs[i * EACH + j] =
				(struct libvhost_req){.op = j == 1 ? OP(SET_VRING_CALL) : OP(SET_VRING_ERR),
						      .index = i,
						      .fd = fd,
						      .flags = LIBVHOST_REQ_HAS_FD};
	}
	CHECK_EQ(run(&r, reqs, QUEUES * EACH), 0);
	for (uint32_t i = 0; i < QUEUES * EACH; i++)
		CHECK_EQ(reqs[i].state, LIBVHOST_REQ_DONE);
	close(fd);
	free(reqs);
	rig_close(&r);
}

TEST(user_program, history_and_query_tell_what_happened)
{
	struct rig r;
	struct libvhost_history h[8];
	struct libvhost_transport_caps caps = {.size = sizeof(caps)};
	uint32_t n = 8;

	rig_init(&r);
	rig_open(&r, true);
	negotiate(&r, 0);
	CHECK_EQ(libvhost_transport_history(r.t, h, &n), 0);
	CHECK_EQ(n, 5);
	CHECK_EQ(h[1].op, OP(GET_FEATURES));
	CHECK_EQ(h[1].value, PUPPET_FEATURES);
	CHECK_EQ(libvhost_transport_query(r.t, &caps), 0);
	CHECK_EQ(caps.dialect, LIBVHOST_DIALECT_USER);
	CHECK_EQ(caps.max_regions, 8);
	CHECK_STR(caps.peer, "user-fd:");
	CHECK_EQ(caps.flags & LIBVHOST_TRANSPORT_CAN_REOPEN, 0);
	CHECK_EQ(caps.ops[0] >> OP(SET_MEM_TABLE) & 1, 1);
	CHECK_EQ(caps.ops[1] >> (OP(BACKEND_VRING_CALL) - 64) & 1, 0);
	CHECK_EQ(caps.ops[2] >> (OP(NET_SET_BACKEND) - 128) & 1, 0);
	rig_close(&r);
}

TEST(user_program, one_program_at_a_time_and_one_descriptor_to_watch)
{
	struct rig r;
	struct libvhost_req a = {.op = OP(GET_FEATURES)}, b = {.op = OP(GET_FEATURES)};
	struct pollfd pfd = {.events = POLLIN};

	rig_init(&r);
	rig_open(&r, false);
	pfd.fd = libvhost_transport_fd(r.t);
	CHECK(pfd.fd >= 0);
	CHECK_EQ(libvhost_transport_fd(r.t), pfd.fd);
	CHECK_EQ(libvhost_transport_progress(r.t), 1);
	CHECK_EQ(libvhost_transport_submit(r.t, &a, 1, 0), 0);
	CHECK_EQ(libvhost_transport_submit(r.t, &b, 1, 0), -EBUSY);
	CHECK_EQ(libvhost_transport_set_ack_policy(r.t, LIBVHOST_ACK_ALL), -EBUSY);
	CHECK_EQ(poll(&pfd, 1, 0), 0);
	CHECK_EQ(libvhost_transport_progress(r.t), 0);
	CHECK_EQ(puppet_step(&r.p, PATIENCE_MS), 1);
	CHECK_EQ(poll(&pfd, 1, PATIENCE_MS), 1);
	CHECK_EQ(libvhost_transport_progress(r.t), 1);
	CHECK_EQ(a.result[0], PUPPET_FEATURES);
	CHECK_EQ(poll(&pfd, 1, 0), 0);
	CHECK_EQ(libvhost_transport_submit(r.t, &b, 1, 20), 0);
	CHECK_EQ(poll(&pfd, 1, PATIENCE_MS), 1); /* the deadline wakes an event loop too */
	CHECK_EQ(libvhost_transport_progress(r.t), -ETIMEDOUT);
	rig_close(&r);
}
