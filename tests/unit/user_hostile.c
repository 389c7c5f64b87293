/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* A front-end whose back-end lies, stalls or dies. */
#include "check.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>
#include "core/ctx.h"
#include "puppet.h"
#include "transport/transport.h"

#define OP(name) LIBVHOST_OP_##name

static struct libvhost_error last_error(struct libvhost_transport *t)
{
	struct libvhost_error e = {.size = sizeof(e)};

	CHECK_EQ(libvhost_transport_error(t, &e), 0);
	return e;
}

/* Negotiates everything, then runs reqs against a puppet with one fault. Returns what exec returned. */
static int meet(struct puppet_fault fault, struct libvhost_req *reqs, uint32_t n, struct libvhost_error *e)
{
	struct lv_ledger before = lv_ledger_take();
	struct libvhost_req setup[] = {
		{.op = OP(GET_FEATURES)},
		{.op = OP(SET_PROTOCOL_FEATURES)},
		{.op = OP(SET_FEATURES), .arg.features = {PUPPET_FEATURES}},
	};
	struct libvhost_req again = {.op = OP(SET_OWNER)};
	struct libvhost_ctx *ctx = NULL;
	struct libvhost_transport *t;
	struct puppet p;
	int rc;

	CHECK_EQ(libvhost_ctx_new(NULL, &ctx), 0);
	puppet_init(&p);
	puppet_start(&p);
	t = puppet_connect(&p, ctx, NULL);
	setup[1].arg.u64 = p.protocol_features;
	CHECK_EQ(libvhost_transport_exec(t, setup, 3, PATIENCE_MS, NULL), 0);
	if (!fault.op)
		fault.at += 3;
	puppet_fault(&p, fault);
	rc = libvhost_transport_exec(t, reqs, n, 300, NULL);
	*e = last_error(t);
	for (uint32_t i = 0; i < n; i++)
		if (reqs[i].out_flags & LIBVHOST_REQ_OUT_FD)
			close(reqs[i].out_fd);
	if (rc == -EPROTO || rc == -ECONNRESET)
		CHECK_EQ(libvhost_transport_exec(t, &again, 1, 300, NULL), -ENOTCONN);
	libvhost_transport_free(t);
	puppet_stop(&p);
	libvhost_ctx_free(ctx);
	CHECK_LEDGER(before);
	return rc;
}

static int meet_one(enum puppet_what what, uint32_t arg, uint32_t op)
{
	struct libvhost_req req = {.op = op, .arg.num = 8};
	struct libvhost_error e;
	int rc;

	rc = meet((struct puppet_fault){.op = op, .what = what, .arg = arg}, &req, 1, &e);
	if (rc == -EPROTO) {
		CHECK_EQ(e.kind, LIBVHOST_EK_PROTOCOL);
		CHECK_EQ(e.op, op);
		CHECK_EQ(e.request, 0);
		CHECK_EQ(req.state, LIBVHOST_REQ_UNKNOWN);
	}
	CHECK(rc == 0 || req.result[0] == 0);
	return rc;
}

TEST(user_hostile, r147_reply_to_another_request)
{
	CHECK_EQ(meet_one(PUPPET_WRONG_ID, 24, OP(GET_QUEUE_NUM)), -EPROTO);
	CHECK_EQ(meet_one(PUPPET_WRONG_ID, 0, OP(SET_VRING_NUM)), -EPROTO);
}

TEST(user_hostile, r148_reply_flags)
{
	CHECK_EQ(meet_one(PUPPET_FLAGS, 1, OP(GET_QUEUE_NUM)), -EPROTO);
	CHECK_EQ(meet_one(PUPPET_FLAGS, 4, OP(GET_QUEUE_NUM)), -EPROTO);
	CHECK_EQ(meet_one(PUPPET_FLAGS, 0xd, OP(GET_QUEUE_NUM)), -EPROTO);
	CHECK_EQ(meet_one(PUPPET_FLAGS, 5, OP(GET_QUEUE_NUM)), 0);
}

TEST(user_hostile, r149_reply_sizes)
{
	const uint32_t sizes[] = {0, 4, 9, 4096, 4097, 0xffffffff};

	for (unsigned i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		CHECK_EQ(meet_one(PUPPET_SIZE, sizes[i], OP(GET_QUEUE_NUM)), -EPROTO);
		CHECK_EQ(meet_one(PUPPET_SIZE, sizes[i], OP(SET_VRING_NUM)), -EPROTO);
	}
}

/* The second reply is noticed before the next request leaves, and never taken as its answer. */
TEST(user_hostile, r150_two_replies_and_replies_to_nothing)
{
	for (int early = 0; early < 2; early++) {
		struct libvhost_req req = {.op = OP(GET_FEATURES)};
		struct libvhost_ctx *ctx = NULL;
		const uint64_t lie = 0x1234;
		struct libvhost_transport *t;
		struct puppet p;

		CHECK_EQ(libvhost_ctx_new(NULL, &ctx), 0);
		puppet_init(&p);
		puppet_pair(&p);
		t = puppet_connect(&p, ctx, NULL);
		if (early) {
			puppet_send(p.sock, 1, 5, 8, &lie, 8, NULL, 0);
		} else {
			puppet_fault(&p, (struct puppet_fault){.what = PUPPET_TWICE});
			CHECK_EQ(libvhost_transport_submit(t, &req, 1, PATIENCE_MS), 0);
			CHECK_EQ(puppet_step(&p, 100), 1);
			CHECK_EQ(libvhost_transport_progress(t), 1);
			CHECK_EQ(req.result[0], PUPPET_FEATURES);
		}
		CHECK_EQ(libvhost_transport_exec(t, &req, 1, 1000, NULL), -EPROTO);
		CHECK_EQ(req.state, LIBVHOST_REQ_NOT_SENT);
		CHECK_EQ(req.result[0], 0);
		CHECK_EQ(libvhost_transport_exec(t, &req, 1, 1000, NULL), -ENOTCONN);
		libvhost_transport_free(t);
		puppet_stop(&p);
		libvhost_ctx_free(ctx);
	}
}

TEST(user_hostile, r152_stray_descriptors)
{
	for (unsigned n = 1; n <= 8; n += 7)
		CHECK_EQ(meet_one(PUPPET_STRAY_FDS, n, OP(GET_QUEUE_NUM)), -EPROTO);
	CHECK_EQ(meet_one(PUPPET_STRAY_FDS, 1, OP(SET_VRING_NUM)), -EPROTO);
}

TEST(user_hostile, replies_in_single_bytes_are_fine)
{
	struct libvhost_req reqs[3] = {
		{.op = OP(GET_INFLIGHT_FD), .arg.inflight = {.num_queues = 1, .queue_size = 8}},
		{.op = OP(GET_QUEUE_NUM)},
		{.op = OP(SET_VRING_NUM), .arg.num = 8},
	};
	struct libvhost_error e;

	CHECK_EQ(meet((struct puppet_fault){.at = 1, .what = PUPPET_DRIP}, reqs, 3, &e), 0);
	CHECK_EQ(reqs[1].result[0], PUPPET_QUEUES);
	CHECK_EQ(meet((struct puppet_fault){.at = 0, .what = PUPPET_DRIP}, reqs, 3, &e), 0);
	CHECK_EQ(reqs[1].result[0], PUPPET_QUEUES);
}

/* Whatever the moment of death: states tell the truth, and the error names the doubtful interval. */
TEST(user_hostile, r153_death_at_every_message)
{
	enum { N = 12 };

	for (uint32_t at = 0; at <= N; at++) {
		for (int what = PUPPET_DIE_BEFORE; what <= PUPPET_DIE_INSIDE; what++) {
			struct libvhost_req reqs[N];
			struct libvhost_error e;
			uint32_t done = 0;
			int rc;

			for (uint32_t i = 0; i < N; i++)
				reqs[i] = (struct libvhost_req){.op = OP(SET_VRING_NUM), .index = i, .arg.num = 8};
			reqs[4] = (struct libvhost_req){.op = OP(GET_VRING_BASE), .index = 4};
			reqs[8].flags = LIBVHOST_REQ_BARRIER;
			rc = meet((struct puppet_fault){.at = at, .what = (enum puppet_what)what, .arg = 5}, reqs, N,
				  &e);
			if (at == N || (at == N - 1 && what == PUPPET_DIE_AFTER)) {
				CHECK_EQ(rc, 0);
				continue;
			}
			CHECK(rc == -ECONNRESET);
			CHECK_EQ(e.kind, LIBVHOST_EK_DISCONNECTED);
			for (; done < N && reqs[done].state == LIBVHOST_REQ_DONE; done++)
				;
			CHECK_EQ(done, at >= 8 || (at >= 7 && what == PUPPET_DIE_AFTER)	 ? 8
				       : at > 4 || (at == 4 && what == PUPPET_DIE_AFTER) ? 5
											 : 0);
			for (uint32_t i = done; i < N; i++)
				CHECK_EQ(reqs[i].state, i < 8 || done == 8 ? reqs[i].state : LIBVHOST_REQ_NOT_SENT);
			if (reqs[done].state == LIBVHOST_REQ_UNKNOWN) {
				CHECK_EQ(e.first_unknown, done);
				CHECK_EQ(e.last_unknown, done < 8 ? 7 : N - 1);
				CHECK_HAS(e.text, "hung up between");
				CHECK_HAS(e.text, done < 8 ? "(request 7)" : "(request 11)");
			}
		}
	}
}

TEST(user_hostile, r154_refusals_are_not_swallowed)
{
	struct libvhost_req reqs[4];
	struct libvhost_error e;

	for (uint32_t i = 0; i < 4; i++)
		reqs[i] = (struct libvhost_req){
			.op = OP(SET_VRING_BASE), .index = i, .flags = i == 1 ? LIBVHOST_REQ_NEED_REPLY : 0};
	reqs[3].flags = LIBVHOST_REQ_BARRIER;
	CHECK_EQ(meet((struct puppet_fault){.at = 1, .what = PUPPET_REFUSE, .arg = 22}, reqs, 4, &e), -EIO);
	CHECK_EQ(e.kind, LIBVHOST_EK_REFUSED);
	CHECK_EQ(e.request, 1);
	CHECK_EQ(e.queue, 1);
	CHECK_EQ(e.peer_ack, 22);
	CHECK_HAS(e.text, "refused SET_VRING_BASE queue 1 (request 1)");
	CHECK_EQ(reqs[0].state, LIBVHOST_REQ_DONE);
	CHECK_EQ(reqs[1].state, LIBVHOST_REQ_FAILED);
	CHECK_EQ(reqs[1].err, -EIO);
	CHECK_EQ(reqs[2].state, LIBVHOST_REQ_DONE); /* was sent with it, and executed */
	CHECK_EQ(reqs[3].state, LIBVHOST_REQ_NOT_SENT);
	reqs[1].flags |= LIBVHOST_REQ_OPTIONAL;
	CHECK_EQ(meet((struct puppet_fault){.at = 1, .what = PUPPET_REFUSE, .arg = 22}, reqs, 4, &e), 0);
	CHECK_EQ(reqs[1].state, LIBVHOST_REQ_FAILED);
	CHECK_EQ(reqs[3].state, LIBVHOST_REQ_DONE);
}

TEST(user_hostile, r160_vring_base_of_another_queue)
{
	CHECK_EQ(meet_one(PUPPET_WRONG_INDEX, 0, OP(GET_VRING_BASE)), -EPROTO);
}

TEST(user_hostile, r161_config_replies)
{
	const struct {
		enum puppet_what what;
		uint32_t arg;
		int rc;
	} cases[] = {{PUPPET_REFUSE, 0, -EIO},	       {PUPPET_SIZE, 12, -EPROTO},
		     {PUPPET_SIZE, 11, -EPROTO},       {PUPPET_SIZE, 12 + 31, -EPROTO},
		     {PUPPET_SIZE, 12 + 257, -EPROTO}, {PUPPET_WRONG_INDEX, 0, -EPROTO}};
	struct libvhost_error e;

	for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		uint8_t out[32];
		struct libvhost_req req = {.op = OP(GET_CONFIG),
					   .arg.config = {.offset = 4, .size = 32},
					   .data_out = (uintptr_t)out,
					   .data_out_cap = 32};

		memset(out, 0xee, sizeof(out));
		CHECK_EQ(meet((struct puppet_fault){.op = OP(GET_CONFIG), .what = cases[i].what, .arg = cases[i].arg},
			      &req, 1, &e),
			 cases[i].rc);
		for (unsigned b = 0; b < 32; b++)
			CHECK_EQ(out[b], 0xee);
		CHECK_EQ(req.data_out_len, 0);
	}
}

struct canceller {
	struct libvhost_transport *t;
	uint64_t at;
};

static void *cancel_soon(void *arg)
{
	struct canceller *c = arg;

	usleep(30000);
	c->at = lv_now(NULL);
	libvhost_transport_cancel(c->t);
	return NULL;
}

TEST(user_hostile, a_mute_peer_ends_in_a_timeout_or_a_cancel)
{
	struct libvhost_req req = {.op = OP(GET_FEATURES)};
	struct lv_ledger before = lv_ledger_take();
	struct libvhost_ctx *ctx = NULL;
	struct libvhost_error e;
	struct canceller c;
	pthread_t thread;
	struct puppet p;
	uint64_t start;

	CHECK_EQ(libvhost_ctx_new(NULL, &ctx), 0);
	puppet_init(&p);
	puppet_pair(&p);
	c.t = puppet_connect(&p, ctx, NULL);
	start = lv_now(NULL);
	CHECK_EQ(libvhost_transport_exec(c.t, &req, 1, 50, NULL), -ETIMEDOUT);
	CHECK(lv_now(NULL) - start < 4000 * LV_NS_PER_MS);
	e = last_error(c.t);
	CHECK_EQ(e.kind, LIBVHOST_EK_TIMEOUT);
	CHECK_EQ(e.first_unknown, 0);
	CHECK_HAS(e.text, "at GET_FEATURES (request 0)");
	CHECK_EQ(pthread_create(&thread, NULL, cancel_soon, &c), 0);
	CHECK_EQ(libvhost_transport_exec(c.t, &req, 1, 5000, NULL), -ECANCELED);
	start = lv_now(NULL);
	pthread_join(thread, NULL);
	CHECK(start - c.at < 4000 * LV_NS_PER_MS);
	CHECK_EQ(libvhost_transport_cancel(c.t), 0); /* none runs: no effect */
	CHECK_EQ(last_error(c.t).kind, LIBVHOST_EK_CANCELLED);
	libvhost_transport_free(c.t);
	puppet_stop(&p);
	libvhost_ctx_free(ctx);
	CHECK_LEDGER(before);
}

/* A late reply is taken off the stream before the next request, its descriptor closed, its value dropped. */
TEST(user_hostile, r187_a_late_reply_is_never_the_answer_to_a_newer_call)
{
	struct libvhost_req slow = {.op = OP(GET_FEATURES)}, next = {.op = OP(GET_FEATURES)};
	struct lv_ledger before = lv_ledger_take();
	struct libvhost_ctx *ctx = NULL;
	struct libvhost_transport *t;
	struct puppet p;

	CHECK_EQ(libvhost_ctx_new(NULL, &ctx), 0);
	puppet_init(&p);
	puppet_pair(&p);
	t = puppet_connect(&p, ctx, NULL);
	CHECK_EQ(libvhost_transport_exec(t, &slow, 1, 20, NULL), -ETIMEDOUT);
	CHECK_EQ(libvhost_transport_submit(t, &next, 1, PATIENCE_MS), 0);
	CHECK_EQ(puppet_step(&p, 0), 1);
	CHECK_EQ(puppet_step(&p, 0), 0); /* the new request waits for the old answer */
	p.features = 0x40000777;
	CHECK_EQ(libvhost_transport_progress(t), 0);
	CHECK_EQ(slow.state, LIBVHOST_REQ_UNKNOWN);
	CHECK_EQ(puppet_step(&p, 100), 1);
	CHECK_EQ(libvhost_transport_progress(t), 1);
	CHECK_EQ(next.result[0], 0x40000777);
	/* mute through the next deadline too: given up */
	CHECK_EQ(libvhost_transport_exec(t, &slow, 1, 20, NULL), -ETIMEDOUT);
	CHECK_EQ(libvhost_transport_exec(t, &next, 1, 20, NULL), -ETIMEDOUT);
	CHECK_EQ(next.state, LIBVHOST_REQ_NOT_SENT);
	CHECK_EQ(libvhost_transport_exec(t, &next, 1, 20, NULL), -ENOTCONN);
	libvhost_transport_free(t);
	puppet_stop(&p);
	libvhost_ctx_free(ctx);
	CHECK_LEDGER(before);
}

TEST(user_hostile, r186_an_unknown_enable_drops_the_connection)
{
	struct libvhost_req req = {.op = OP(SET_VRING_ENABLE), .arg.num = 1};
	struct libvhost_error e;

	CHECK_EQ(meet((struct puppet_fault){.op = OP(SET_VRING_ENABLE), .what = PUPPET_MUTE}, &req, 1, &e), -ETIMEDOUT);
	CHECK_EQ(req.state, LIBVHOST_REQ_UNKNOWN);
	CHECK_HAS(e.text, "connection dropped");
}
