/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/*
 * Messages of one socket connection. Verdicts: a message whose framing cannot be trusted ends the connection; one whose
 * content is refused is answered with a non-zero acknowledgement where the front-end asked for one (or as the message
 * itself says no), and ends the connection otherwise, because silence would let the front-end go on in a wrong belief.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "backend/device.h"

#define MESSAGES_PER_TURN 64
#define HELD_LOOK_NS	  500000u

void lv_conn_init(struct lv_conn *c)
{
	c->sock = -1;
	c->out_fd = -1;
}

int lv_conn_open(struct libvhost_backend *b, int sock)
{
	struct lv_conn *c = &b->conn;
	int rc = lv_wire_in_init(&c->in, LV_USER_HDR + LV_USER_MAX_PAYLOAD);

	if (rc == 0)
		rc = lv_session_open(&b->session);
	if (rc < 0) {
		lv_wire_in_destroy(&c->in);
		lv_fd_close(sock);
		return rc;
	}
	c->sock = sock;
	c->in_since = c->out_since = c->held_since = c->out_off = 0;
	c->out.len = 0;
	return 0;
}

void lv_conn_close_within(struct libvhost_backend *b, int err, const char *why, uint32_t timeout_ms)
{
	struct lv_conn *c = &b->conn;

	if (c->sock < 0)
		return;
	lv_backend_unwatch(b, LV_W_SOCK);
	lv_fd_close(c->sock);
	lv_fd_close(c->out_fd);
	c->sock = c->out_fd = -1;
	lv_wire_in_destroy(&c->in);
	lv_log(b->ctx, err == -ECONNRESET ? LIBVHOST_LOG_LEVEL_INFO : LIBVHOST_LOG_LEVEL_WARNING,
	       LIBVHOST_EK_DISCONNECTED, "back-end %s: connection closed: %s", b->path, why);
	if (err)
		lv_fail(&b->err, err, err == -ETIMEDOUT ? LIBVHOST_EK_TIMEOUT : LIBVHOST_EK_PROTOCOL,
			"back-end %s: connection closed: %s", b->path, why);
	lv_backend_event(b, LIBVHOST_EVENT_DISCONNECTED, LIBVHOST_NONE, err, why);
	if (!lv_session_close(&b->session, timeout_ms))
		b->retry_at = lv_now(b->ctx);
}

void lv_conn_close(struct libvhost_backend *b, int err, const char *why)
{
	lv_conn_close_within(b, err, why, b->opts.timeout_ms);
}

static void close_for(struct libvhost_backend *b, int err, const struct libvhost_req *req, const char *why)
{
	const struct lv_op *row = lv_op(req->op);
	char text[128];

	snprintf(text, sizeof(text), "%s: %s", row ? row->name : "unknown request", why ? why : lv_errno_name(-err));
	/* a handler that let the message wait had its time */
	lv_conn_close_within(b, err, text, err == -ETIMEDOUT ? LV_LAST_WORD_MS : b->opts.timeout_ms);
}

/* True = the answer is on its way or there is none. */
static bool flush(struct libvhost_backend *b)
{
	struct lv_conn *c = &b->conn;
	ssize_t n;

	if (!c->out.len)
		return true;
	n = lv_wire_send(c->sock, &c->out, 1, &c->out_off);
	if (n < 0) {
		lv_conn_close(b, (int)n, "the front-end is gone");
		return false;
	}
	if (n == 0) {
		if (!c->out_since)
			c->out_since = lv_now(b->ctx);
		return false;
	}
	lv_fd_close(c->out_fd);
	c->out_fd = -1;
	c->out.len = 0;
	c->out_off = 0;
	c->out_since = 0;
	return true;
}

/* For requests that no row of the table describes. */
static int put_raw_ack(uint8_t *buf, uint32_t request, int err)
{
	const struct lv_user_hdr hdr = {
		.request = request, .flags = LV_USER_VERSION | LV_USER_F_REPLY, .size = sizeof(uint64_t)};
	const uint64_t code = (uint64_t)-err;

	lv_user_hdr_put(buf, &hdr);
	memcpy(buf + LV_USER_HDR, &code, sizeof(code));
	return (int)(LV_USER_HDR + sizeof(code));
}

static void answer(struct libvhost_backend *b, struct libvhost_req *req, const struct lv_user_hdr *hdr, const char *why)
{
	const struct lv_user_session *wire = &b->session.wire;
	bool need_reply = hdr->flags & LV_USER_F_NEED_REPLY;
	struct lv_conn *c = &b->conn;
	uint32_t nfds = 0;
	int fds[LV_USER_MAX_FDS], len;

	if (req->out_flags & LIBVHOST_REQ_OUT_FD)
		c->out_fd = req->out_fd;
	if (req->op == LIBVHOST_OP_NONE)
		len = need_reply && wire->protocol_features & 1ull << LIBVHOST_PROTOCOL_F_REPLY_ACK
			      ? put_raw_ack(c->out_bytes, hdr->request, req->err)
			      : 0;
	else
		len = lv_user_encode_reply(req, wire, need_reply, c->out_bytes, sizeof(c->out_bytes), fds, &nfds);
	if (len < 0 || (len == 0 && req->err < 0)) {
		close_for(b, req->err ? req->err : len, req, why);
		return;
	}
	if (req->err < 0)
		lv_log(b->ctx, LIBVHOST_LOG_LEVEL_WARNING, LIBVHOST_EK_REFUSED, "back-end %s: refused %s: %s", b->path,
		       lv_op(req->op) ? lv_op(req->op)->name : "an unknown request",
		       why ? why : lv_errno_name(-req->err));
	c->out = (struct lv_wire_msg){.data = c->out_bytes, .len = (uint32_t)len, .nfds = nfds};
	if (nfds) {
		c->out.fds[0] = c->out_fd;
	} else {
		lv_fd_close(c->out_fd);
		c->out_fd = -1;
	}
	flush(b);
}

/* True = the message stays where it is until the next turn. */
static bool hold(struct libvhost_backend *b, int rc)
{
	struct lv_conn *c = &b->conn;

	if (rc != -EINPROGRESS)
		c->held_since = 0;
	else if (!c->held_since)
		c->held_since = lv_now(b->ctx);
	c->in_since = 0;
	return c->held_since != 0;
}

/* The specification has a back-end close the connection for it, whoever serves the message. */
static bool inband_alone(const struct libvhost_req *req)
{
	const uint64_t needs = 1ull << LIBVHOST_PROTOCOL_F_BACKEND_REQ | 1ull << LIBVHOST_PROTOCOL_F_REPLY_ACK;

	return req->op == LIBVHOST_OP_SET_PROTOCOL_FEATURES &&
	       req->arg.u64 >> LIBVHOST_PROTOCOL_F_INBAND_NOTIFICATIONS & 1 && (req->arg.u64 & needs) != needs;
}

static void handle(struct libvhost_backend *b, const struct lv_user_hdr *hdr)
{
	struct lv_conn *c = &b->conn;
	const struct lv_user_msg msg = {
		.hdr = *hdr,
		.payload = c->in.buf + c->in.start + LV_USER_HDR,
		.fds = c->in.fds,
		.nfds = c->in.nfds + c->in.fds_dropped, /* dropped ones count: more than any message has */
	};
	struct libvhost_req req;
	const char *why = NULL;
	int rc = lv_user_decode(&req, &msg, false, &b->session.wire, c->scratch, sizeof(c->scratch), &why);

	if (rc == 0 && inband_alone(&req)) {
		rc = -EPROTO;
		why = "INBAND_NOTIFICATIONS without BACKEND_REQ and REPLY_ACK";
	}
	b->session.why[0] = 0;
	if (rc == 0)
		rc = lv_session_handle(&b->session, &req);
	else if (rc == -EPROTO)
		close_for(b, rc, &req, why);
	if (c->sock < 0 || hold(b, rc))
		return;
	req.err = rc == -EBADMSG ? -EINVAL : rc;
	c->in.start += LV_USER_HDR + hdr->size;
	c->in.fds_dropped = 0;
	lv_wire_drop_fds(&c->in);
	c->in_since = 0;
	lv_client_heard(b);
	answer(b, &req, hdr, b->session.why[0] ? b->session.why : why);
}

/* Framing that is wrong ends the connection before its payload is waited for. */
static const char *bad_framing(const struct lv_user_hdr *hdr)
{
	if ((hdr->flags & 3) != LV_USER_VERSION)
		return "protocol version is not 1";
	if (hdr->flags & LV_USER_F_REPLY)
		return "a request that claims to be a reply";
	return hdr->size > LV_USER_MAX_PAYLOAD ? "payload is larger than any message" : NULL;
}

/* Bytes that the present message still needs; 0 = it is complete, -1 = the connection was closed. */
static ssize_t missing(struct libvhost_backend *b, struct lv_user_hdr *hdr)
{
	struct lv_wire_in *in = &b->conn.in;
	size_t have = in->end - in->start;
	const char *why;

	if (have < LV_USER_HDR)
		return (ssize_t)(LV_USER_HDR - have);
	*hdr = lv_user_hdr_get(in->buf + in->start);
	why = bad_framing(hdr);
	if (why) {
		lv_conn_close(b, -EPROTO, why);
		return -1;
	}
	return (ssize_t)(LV_USER_HDR + hdr->size - have);
}

/* True = go on reading. */
static bool receive(struct libvhost_backend *b, size_t want)
{
	struct lv_conn *c = &b->conn;
	ssize_t n = lv_wire_recv(c->sock, &c->in, want);

	if (n > 0) {
		if (!c->in_since)
			c->in_since = lv_now(b->ctx);
		return true;
	}
	if (n == 0)
		lv_conn_close(b, c->in_since ? -EPROTO : -ECONNRESET,
			      c->in_since ? "the front-end left in the middle of a message" : "the front-end left");
	else if (n == -EMFILE)
		lv_conn_close(b, (int)n, "no room for the descriptors of a message: raise RLIMIT_NOFILE");
	else if (n != -EAGAIN)
		lv_conn_close(b, (int)n, "the socket failed");
	return false;
}

static void expire(struct libvhost_backend *b)
{
	const uint64_t limit = b->opts.timeout_ms * LV_NS_PER_MS, now = lv_now(b->ctx);
	struct lv_conn *c = &b->conn;

	if (c->in_since && now - c->in_since >= limit)
		lv_conn_close(b, -ETIMEDOUT, "a message was begun and not finished in time");
	else if (c->out_since && now - c->out_since >= limit)
		lv_conn_close(b, -ETIMEDOUT, "the front-end does not read its answers");
}

void lv_conn_turn(struct libvhost_backend *b)
{
	struct lv_conn *c = &b->conn;
	struct lv_user_hdr hdr = {0};

	for (int i = 0; i < MESSAGES_PER_TURN && c->sock >= 0 && flush(b);) {
		ssize_t want = missing(b, &hdr);

		if (want < 0 || (want > 0 && !receive(b, (size_t)want)))
			break;
		if (want == 0) {
			handle(b, &hdr);
			i++;
			if (c->held_since)
				break;
		}
	}
	if (c->sock >= 0)
		expire(b);
}

uint64_t lv_conn_deadline(const struct libvhost_backend *b)
{
	const struct lv_conn *c = &b->conn;
	uint64_t since = c->out_since ? c->out_since : c->in_since;

	if (c->sock >= 0 && c->held_since)
		return lv_now(b->ctx) + HELD_LOOK_NS;
	return c->sock >= 0 && since ? since + b->opts.timeout_ms * LV_NS_PER_MS : 0;
}
