/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* A transport whose back-end cannot be reached, floods it with descriptors, or dies inside a reply. */
#include "check.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include "puppet.h"

#define OP(name) LIBVHOST_OP_##name
#define NOBODY	 65534u
#define MANY	 253u /* what the kernel lets one message carry */

/* A transport that has negotiated everything with a puppet of its own. */
struct session {
	struct lv_ledger before;
	struct libvhost_ctx *ctx;
	struct libvhost_transport *t;
	struct puppet p;
};

static void session_open(struct session *s)
{
	struct libvhost_req reqs[] = {
		{.op = OP(GET_FEATURES)},
		{.op = OP(SET_PROTOCOL_FEATURES)},
		{.op = OP(SET_FEATURES), .arg.features = {PUPPET_FEATURES}},
	};

	memset(s, 0, sizeof(*s));
	s->before = lv_ledger_take();
	CHECK_EQ(libvhost_ctx_new(NULL, &s->ctx), 0);
	puppet_init(&s->p);
	s->p.arg = s;
	puppet_start(&s->p);
	s->t = puppet_connect(&s->p, s->ctx, NULL);
	reqs[1].arg.u64 = s->p.protocol_features;
	CHECK_EQ(libvhost_transport_exec(s->t, reqs, 3, PATIENCE_MS, NULL), 0);
}

static void session_close(struct session *s)
{
	libvhost_transport_free(s->t);
	puppet_stop(&s->p);
	libvhost_ctx_free(s->ctx);
	CHECK_LEDGER(s->before);
}

/* ---- reaching it ---- */

/* Without privileges, in a process of its own when this one has them: 0 = both paths were refused as documented. */
static int refused_by_permission(const char *const paths[2])
{
	struct libvhost_ctx *ctx = NULL;
	struct lv_ledger before;
	int bad = 0;

	if (!geteuid() && (setresgid(NOBODY, NOBODY, NOBODY) || setresuid(NOBODY, NOBODY, NOBODY)))
		return 1;
	if (libvhost_ctx_new(NULL, &ctx))
		return 2;
	before = lv_ledger_take();
	for (int i = 0; i < 2 && !bad; i++) {
		struct libvhost_error e = {.size = sizeof(e)};
		struct libvhost_transport *t = NULL;
		char uri[128];

		snprintf(uri, sizeof(uri), "user:%s", paths[i]);
		if (libvhost_transport_open(ctx, uri, NULL, &t) != -EACCES || t)
			bad = 3 + i;
		else if (libvhost_ctx_error(ctx, &e) || e.kind != LIBVHOST_EK_CONNECT || !strstr(e.text, uri))
			bad = 5 + i;
	}
	if (!bad && lv_ledger_take().fds != before.fds)
		bad = 7;
	libvhost_ctx_free(ctx);
	return bad;
}

TEST(hostile_replies, r144_a_socket_that_permissions_keep_us_from)
{
	char dir[] = "/tmp/lv-perm-XXXXXX", closed[64], open_[64], behind[80];
	const char *const paths[2] = {open_, behind};
	int sockets[2], status = 0;
	pid_t child;

	CHECK(mkdtemp(dir));
	CHECK_EQ(chmod(dir, 0755), 0);
	snprintf(open_, sizeof(open_), "%s/s", dir);
	snprintf(closed, sizeof(closed), "%s/closed", dir);
	snprintf(behind, sizeof(behind), "%s/s", closed);
	CHECK_EQ(mkdir(closed, 0700), 0);
	sockets[0] = lv_wire_listen(open_, 1);
	sockets[1] = lv_wire_listen(behind, 1);
	CHECK(sockets[0] >= 0 && sockets[1] >= 0);
	CHECK_EQ(chmod(open_, 0), 0);
	CHECK_EQ(chmod(behind, 0777), 0);
	CHECK_EQ(chmod(closed, 0), 0);
	child = fork();
	CHECK(child >= 0);
	if (!child)
		_exit(refused_by_permission(paths));
	CHECK_EQ(waitpid(child, &status, 0), child);
	CHECK_EQ(chmod(closed, 0700), 0);
	close(sockets[0]);
	close(sockets[1]);
	unlink(open_);
	unlink(behind);
	rmdir(closed);
	rmdir(dir);
	CHECK(WIFEXITED(status));
	CHECK_EQ(WEXITSTATUS(status), 0);
}

/* ---- descriptors ---- */

static void send_with_fds(int sock, uint32_t request, uint32_t flags, uint64_t value, uint32_t nfds)
{
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(MANY * sizeof(int))];
	} control = {0};
	const struct lv_user_hdr hdr = {.request = request, .flags = flags, .size = sizeof(value)};
	uint8_t bytes[LV_USER_HDR + sizeof(value)];
	struct iovec iov = {.iov_base = bytes, .iov_len = sizeof(bytes)};
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control.bytes};
	int fds[MANY];

	for (uint32_t i = 0; i < nfds; i++)
		fds[i] = STDERR_FILENO;
	lv_user_hdr_put(bytes, &hdr);
	memcpy(bytes + LV_USER_HDR, &value, sizeof(value));
	msg.msg_controllen = CMSG_SPACE(nfds * sizeof(int));
	*CMSG_FIRSTHDR(&msg) = (struct cmsghdr){
		.cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS, .cmsg_len = CMSG_LEN(nfds * sizeof(int))};
	memcpy(CMSG_DATA(CMSG_FIRSTHDR(&msg)), fds, nfds * sizeof(int));
	if (sendmsg(sock, &msg, MSG_NOSIGNAL) < 0)
		return; /* the test sees that nothing came */
}

struct flood {
	uint32_t nfds;
};

static bool features_with_fds(struct puppet *p, const struct libvhost_req *req, const struct lv_user_msg *msg)
{
	const struct flood *f = p->arg;

	(void)msg;
	if (req->op != OP(GET_FEATURES))
		return false;
	send_with_fds(p->sock, 1, LV_USER_VERSION | LV_USER_F_REPLY, PUPPET_FEATURES, f->nfds);
	return true;
}

/* Connection after connection: each is broken with a reason, none leaves a descriptor. */
TEST(hostile_replies, r152_many_connections_with_many_descriptors_each)
{
	static const uint32_t counts[] = {1, 8, 32, 33, MANY};
	const struct lv_ledger before = lv_ledger_take();
	char path[64];
	struct libvhost_ctx *ctx = NULL;
	struct flood f = {0};
	struct puppet p;

	CHECK_EQ(libvhost_ctx_new(NULL, &ctx), 0);
	snprintf(path, sizeof(path), "/tmp/libvhost-flood-%d.sock", (int)getpid());
	puppet_init(&p);
	p.on_message = features_with_fds;
	p.arg = &f;
	puppet_listen(&p, path);
	for (uint32_t i = 0; i < 300; i++) {
		struct libvhost_req req = {.op = OP(GET_FEATURES)};
		struct libvhost_transport *t;

		f.nfds = counts[i % 5];
		t = puppet_connect(&p, ctx, NULL);
		CHECK_EQ(libvhost_transport_exec(t, &req, 1, 2000, NULL), -EPROTO);
		CHECK_EQ(req.result[0], 0);
		CHECK_EQ(req.out_flags, 0);
		libvhost_transport_free(t);
	}
	puppet_stop(&p);
	CHECK_EQ(atomic_load(&p.sessions), 300);
	libvhost_ctx_free(ctx);
	CHECK_LEDGER(before);
}

TEST(hostile_replies, r166_a_request_with_253_descriptors_closes_the_channel_only)
{
	struct libvhost_req reqs[] = {{.op = OP(SET_BACKEND_REQ_FD)}, {.op = OP(GET_QUEUE_NUM)}};
	struct lv_user_hdr hdr;
	struct session s;
	uint8_t byte;

	session_open(&s);
	CHECK_EQ(libvhost_transport_exec(s.t, &reqs[0], 1, PATIENCE_MS, NULL), 0);
	CHECK(atomic_load(&s.p.channel) >= 0);
	send_with_fds(s.p.channel, 2, LV_USER_VERSION | LV_USER_F_NEED_REPLY, 0, MANY);
	CHECK_EQ(libvhost_transport_progress(s.t), 1);
	CHECK_EQ(puppet_recv(s.p.channel, 100, &hdr, &byte, 1, NULL), -1);
	CHECK_EQ(send(s.p.channel, "x", 1, MSG_NOSIGNAL), -1);
	CHECK_EQ(errno, EPIPE);
	CHECK_EQ(libvhost_transport_exec(s.t, &reqs[1], 1, PATIENCE_MS, NULL), 0);
	CHECK_EQ(reqs[1].result[0], PUPPET_QUEUES);
	session_close(&s);
}

/* ---- death and nonsense ---- */

static uint32_t reply_bytes(uint32_t op)
{
	switch (op) {
	case OP(GET_INFLIGHT_FD):
		return LV_USER_HDR + 24; /* two numbers of 64 bits, two of 16, padding */
	case OP(GET_CONFIG):
		return LV_USER_HDR + 12 + 32;
	default:
		return LV_USER_HDR + 8;
	}
}

static struct libvhost_req request(uint32_t op, uint8_t out[32])
{
	struct libvhost_req req = {.op = op};

	if (op == OP(GET_INFLIGHT_FD)) {
		req.arg.inflight.num_queues = 1;
		req.arg.inflight.queue_size = 8;
	} else if (op == OP(GET_CONFIG)) {
		req.arg.config.size = 32;
		req.data_out = (uintptr_t)out;
		req.data_out_cap = 32;
	} else {
		req.arg.num = 8;
	}
	return req;
}

/* The reply ends after so many bytes and with it the connection: never a result, never a descriptor kept. */
TEST(hostile_replies, r153_death_after_every_byte_of_a_reply)
{
	static const uint32_t ops[] = {OP(GET_QUEUE_NUM), OP(SET_VRING_NUM), OP(GET_VRING_BASE), OP(GET_INFLIGHT_FD),
				       OP(GET_CONFIG)};

	for (unsigned o = 0; o < sizeof(ops) / sizeof(ops[0]); o++)
		for (uint32_t at = 1; at < reply_bytes(ops[o]); at++) {
			uint8_t out[32], same[32];
			struct libvhost_req req = request(ops[o], out);
			struct session s;

			memset(out, 0xee, sizeof(out));
			memset(same, 0xee, sizeof(same));
			session_open(&s);
			puppet_fault(&s.p, (struct puppet_fault){.op = ops[o], .what = PUPPET_DIE_INSIDE, .arg = at});
			CHECK_EQ(libvhost_transport_exec(s.t, &req, 1, 2000, NULL), -ECONNRESET);
			CHECK_EQ(req.state, LIBVHOST_REQ_UNKNOWN);
			CHECK_EQ(req.result[0], 0);
			CHECK_EQ(req.out_flags, 0);
			CHECK_EQ(req.data_out_len, 0);
			CHECK_MEM(out, same, sizeof(out));
			CHECK_EQ(libvhost_transport_exec(s.t, &req, 1, 2000, NULL), -ENOTCONN);
			session_close(&s);
		}
}

/* The whole reply, for comparison: what dies one byte later is an answer. */
TEST(hostile_replies, r153_death_right_behind_a_reply_is_an_answer)
{
	uint8_t out[32];
	struct libvhost_req req = request(OP(GET_CONFIG), out);
	struct session s;

	session_open(&s);
	puppet_fault(&s.p, (struct puppet_fault){.op = OP(GET_CONFIG), .what = PUPPET_DIE_AFTER});
	CHECK_EQ(libvhost_transport_exec(s.t, &req, 1, PATIENCE_MS, NULL), 0);
	CHECK_EQ(req.data_out_len, 32);
	CHECK_EQ(out[31], 31);
	session_close(&s);
}

struct lie {
	uint32_t op, offset, size, len; /* of a GET_CONFIG reply */
};

static bool tell_lie(struct puppet *p, const struct libvhost_req *req, const struct lv_user_msg *msg)
{
	const struct lie *l = p->arg;
	uint8_t payload[12 + 512] = {0};

	if (req->op != l->op)
		return false;
	memcpy(payload, &l->offset, 4);
	memcpy(payload + 4, &l->size, 4);
	puppet_send(p->sock, msg->hdr.request, LV_USER_VERSION | LV_USER_F_REPLY, l->len, payload, l->len, NULL, 0);
	return true;
}

TEST(hostile_replies, r161_config_replies_whose_own_fields_lie)
{
	static const struct lie lies[] = {
		{OP(GET_CONFIG), 0, 0, 12 + 32},      {OP(GET_CONFIG), 0, 257, 12 + 32},
		{OP(GET_CONFIG), 0, 257, 12 + 257},   {OP(GET_CONFIG), 8, 32, 12 + 32},
		{OP(GET_CONFIG), 0, 32, 12 + 16},     {OP(GET_CONFIG), 0, UINT32_MAX, 12 + 32},
		{OP(GET_CONFIG), UINT32_MAX, 32, 44}, {OP(GET_CONFIG), 0, 33, 12 + 33},
		{OP(GET_CONFIG), 0, 31, 12 + 31},
	};

	for (unsigned i = 0; i < sizeof(lies) / sizeof(lies[0]); i++) {
		uint8_t out[32], same[32];
		struct libvhost_req req = request(OP(GET_CONFIG), out);
		struct lie l = lies[i];
		struct session s;
		int rc;

		memset(out, 0xee, sizeof(out));
		memset(same, 0xee, sizeof(same));
		session_open(&s);
		s.p.arg = &l;
		s.p.on_message = tell_lie;
		rc = libvhost_transport_exec(s.t, &req, 1, 2000, NULL);
		CHECK(rc == -EPROTO || rc == -EIO);
		CHECK_EQ(req.data_out_len, 0);
		CHECK_MEM(out, same, sizeof(out));
		session_close(&s);
	}
}
