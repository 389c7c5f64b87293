/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* Requests of the back-end, and a back-end that misuses them. */
#include "check.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>
#include "core/ctx.h"
#include "puppet.h"
#include "transport/transport.h"

#define OP(name)      LIBVHOST_OP_##name
#define CONFIG_CHANGE 2u
#define IOTLB	      1u
#define LOOKUP	      8u
#define ASK	      (LV_USER_VERSION | LV_USER_F_NEED_REPLY)

struct rig {
	struct lv_ledger before;
	struct libvhost_ctx *ctx;
	struct libvhost_transport *t;
	struct puppet p;
	unsigned asked, told;
	int busy;
	bool paused;
};

static int on_request(void *arg, struct libvhost_req *req)
{
	struct libvhost_req nested = {.op = OP(GET_FEATURES)};
	struct rig *r = arg;

	r->asked++;
	r->busy = libvhost_transport_exec(r->t, &nested, 1, 100, NULL);
	if (req->op != OP(BACKEND_SHARED_OBJECT_LOOKUP))
		return -ENOTSUP;
	req->out_fd = memfd_create("object", MFD_CLOEXEC);
	req->out_flags = LIBVHOST_REQ_OUT_FD;
	return 0;
}

static void answered(void *arg, const struct libvhost_req *req)
{
	struct rig *r = arg;

	CHECK_EQ(req->op, OP(BACKEND_CONFIG_CHANGE));
	r->told++;
}

static bool paused(void *arg)
{
	return ((struct rig *)arg)->paused;
}

static int not_mine(void *arg, struct libvhost_req *req)
{
	(void)arg;
	(void)req;
	return -ENOTSUP;
}

static void rig_open(struct rig *r, uint64_t without)
{
	struct lv_transport_client client = {.inbound = not_mine, .paused = paused, .arg = r};
	struct libvhost_transport_opts o = {.size = sizeof(o), .on_request = on_request, .on_request_arg = r};
	struct libvhost_req reqs[] = {
		{.op = OP(GET_FEATURES)},
		{.op = OP(SET_PROTOCOL_FEATURES)},
		{.op = OP(SET_FEATURES), .arg.features = {PUPPET_FEATURES}},
		{.op = OP(SET_BACKEND_REQ_FD)},
	};

	memset(r, 0, sizeof(*r));
	r->before = lv_ledger_take();
	puppet_init(&r->p);
	puppet_pair(&r->p);
	CHECK_EQ(libvhost_ctx_new(NULL, &r->ctx), 0);
	r->t = puppet_connect(&r->p, r->ctx, &o);
	lv_transport_set_client(r->t, &client);
	reqs[1].arg.u64 = r->p.protocol_features & ~without;
	CHECK_EQ(libvhost_transport_submit(r->t, reqs, 4, PATIENCE_MS), 0);
	while (!libvhost_transport_progress(r->t))
		CHECK(puppet_step(&r->p, 10) >= 0);
	CHECK_EQ(reqs[3].state, LIBVHOST_REQ_DONE);
	CHECK(atomic_load(&r->p.channel) >= 0);
}

static void rig_close(struct rig *r)
{
	libvhost_transport_free(r->t);
	puppet_stop(&r->p);
	libvhost_ctx_free(r->ctx);
	CHECK_LEDGER(r->before);
}

static void ask(struct rig *r, uint32_t request, uint32_t flags, uint32_t size, uint32_t nfds)
{
	static const uint8_t zeros[64];
	const int fds[8] = {STDERR_FILENO, STDERR_FILENO, STDERR_FILENO, STDERR_FILENO,
			    STDERR_FILENO, STDERR_FILENO, STDERR_FILENO, STDERR_FILENO};

	puppet_send(r->p.channel, request, flags, size, zeros, size < 64 ? size : 64, fds, nfds);
}

/* The ack, or -1 when the channel is closed. */
static int64_t ack(struct rig *r)
{
	struct lv_user_hdr hdr;
	uint64_t value = 0;

	if (puppet_recv(r->p.channel, 100, &hdr, &value, sizeof(value), NULL) != 8)
		return -1;
	CHECK_EQ(hdr.flags, LV_USER_VERSION | LV_USER_F_REPLY);
	return (int64_t)value;
}

/* The control connection lives whatever happened to the channel. */
static void control_lives(struct rig *r)
{
	struct libvhost_req req = {.op = OP(GET_QUEUE_NUM)};

	CHECK_EQ(libvhost_transport_submit(r->t, &req, 1, PATIENCE_MS), 0);
	while (!libvhost_transport_progress(r->t))
		CHECK(puppet_step(&r->p, 10) >= 0);
	CHECK_EQ(req.result[0], PUPPET_QUEUES);
}

TEST(user_channel, library_requests_are_acknowledged_without_a_host)
{
	struct rig r;

	rig_open(&r, 0);
	ask(&r, CONFIG_CHANGE, ASK, 0, 0);
	CHECK_EQ(libvhost_transport_progress(r.t), 1);
	CHECK_EQ(ack(&r), 0);
	CHECK_EQ(r.asked, 0);
	rig_close(&r);
}

/* DPDK reads the answer to its question once, and takes "not yet" for an error. */
TEST(user_channel, the_peers_end_blocks)
{
	struct rig r;

	rig_open(&r, 0);
	CHECK(!(fcntl(r.p.channel, F_GETFL) & O_NONBLOCK));
	rig_close(&r);
}

TEST(user_channel, r174_answered_while_the_control_channel_waits)
{
	struct libvhost_req req = {.op = OP(GET_QUEUE_NUM)};
	struct lv_transport_client client = {.answered = answered, .inbound = NULL};
	struct rig r;

	rig_open(&r, 0);
	client.arg = &r;
	lv_transport_set_client(r.t, &client);
	CHECK_EQ(libvhost_transport_submit(r.t, &req, 1, PATIENCE_MS), 0);
	ask(&r, CONFIG_CHANGE, ASK, 0, 0);
	CHECK_EQ(libvhost_transport_progress(r.t), 0);
	CHECK_EQ(ack(&r), 0); /* only now does the peer go on */
	CHECK_EQ(r.told, 1);
	CHECK_EQ(puppet_step(&r.p, 100), 1);
	CHECK_EQ(libvhost_transport_progress(r.t), 1);
	CHECK_EQ(req.result[0], PUPPET_QUEUES);
	rig_close(&r);
}

TEST(user_channel, host_requests_go_to_the_host_which_cannot_reenter)
{
	struct lv_user_hdr hdr;
	uint64_t value = 99;
	uint32_t nfds = 0;
	uint8_t uuid[16] = {1};
	struct rig r;

	rig_open(&r, 0);
	puppet_send(r.p.channel, LOOKUP, ASK, 16, uuid, 16, NULL, 0);
	CHECK_EQ(libvhost_transport_progress(r.t), 1);
	CHECK_EQ(puppet_recv(r.p.channel, 100, &hdr, &value, 8, &nfds), 8);
	CHECK_EQ(value, 0);
	CHECK_EQ(nfds, 1);
	CHECK_EQ(r.asked, 1);
	CHECK_EQ(r.busy, -EBUSY);
	ask(&r, 6, ASK, 16, 0); /* SHARED_OBJECT_ADD: the host refuses */
	CHECK_EQ(libvhost_transport_progress(r.t), 1);
	CHECK(ack(&r) > 0);
	rig_close(&r);
}

TEST(user_channel, r165_a_message_whose_feature_was_not_negotiated_closes_the_channel)
{
	struct rig r;

	rig_open(&r, PUPPET_PF(CONFIG));
	ask(&r, CONFIG_CHANGE, ASK, 0, 0);
	CHECK_EQ(libvhost_transport_progress(r.t), 1);
	CHECK_EQ(ack(&r), -1);
	control_lives(&r);
	rig_close(&r);
}

TEST(user_channel, r166_unknown_types_are_refused_and_the_channel_stays)
{
	struct rig r;

	rig_open(&r, 0);
	ask(&r, 200, ASK, 8, 8);
	ask(&r, 0, ASK, 0, 1);
	ask(&r, 200, LV_USER_VERSION, 8, 0); /* nobody asked for an answer */
	ask(&r, CONFIG_CHANGE, ASK, 0, 0);
	CHECK_EQ(libvhost_transport_progress(r.t), 1);
	CHECK(ack(&r) > 0);
	CHECK(ack(&r) > 0);
	CHECK_EQ(ack(&r), 0);
	control_lives(&r);
	rig_close(&r);
}

TEST(user_channel, r166_absurd_messages_close_the_channel)
{
	const struct {
		uint32_t flags, size;
	} cases[] = {{ASK, 0xffffffff}, {ASK, 4097}, {2, 0}, {LV_USER_VERSION | LV_USER_F_REPLY, 0}};

	for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct rig r;

		rig_open(&r, 0);
		ask(&r, CONFIG_CHANGE, cases[i].flags, cases[i].size, 2);
		CHECK_EQ(libvhost_transport_progress(r.t), 1);
		CHECK_EQ(ack(&r), -1);
		control_lives(&r);
		rig_close(&r);
	}
}

TEST(user_channel, r167_a_peer_that_reads_no_answers_is_bounded_and_cut_off)
{
	const uint8_t frame[12] = {CONFIG_CHANGE, 0, 0, 0, ASK};
	const struct lv_wire_msg msg = {.data = frame, .len = 12};
	struct libvhost_ctx_opts quick = {.size = sizeof(quick)};
	unsigned accepted = 0, idle = 0;
	struct rig r;
	size_t off = 0;
	ssize_t n = 0;

	rig_open(&r, 0);
	r.ctx->opts.default_timeout_ms = 30;
	(void)quick;
	while (idle < 100 && n >= 0) {
		n = lv_wire_send(r.p.channel, &msg, 1, &off);
		accepted += n > 0;
		if (n > 0)
			continue;
		CHECK_EQ(libvhost_transport_progress(r.t), 1); /* never blocks */
		idle++;
		usleep(1000);
	}
	CHECK_EQ(n, -EPIPE);
	CHECK(accepted < 100000);
	control_lives(&r);
	rig_close(&r);
}

TEST(user_channel, a_paused_client_leaves_requests_in_the_socket)
{
	struct rig r;
	struct pollfd pfd[LV_TRANSPORT_POLLFDS];

	rig_open(&r, 0);
	r.paused = true;
	ask(&r, CONFIG_CHANGE, ASK, 0, 0);
	CHECK_EQ(libvhost_transport_progress(r.t), 1);
	CHECK_EQ(ack(&r), -1);
	CHECK_EQ(lv_transport_pollfds(r.t, pfd, LV_TRANSPORT_POLLFDS), 2); /* control and cancel */
	r.paused = false;
	CHECK_EQ(libvhost_transport_progress(r.t), 1);
	CHECK_EQ(ack(&r), 0);
	rig_close(&r);
}
