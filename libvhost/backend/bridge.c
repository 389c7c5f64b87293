/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/*
 * For bridges and tracers: the whole protocol goes through one callback. The library keeps only what decoding needs,
 * the negotiated features, and the back-end channel, on which the caller sends what its own peer says.
 */
#include <errno.h>
#include <poll.h>

#include "backend/device.h"

/* What later messages are decoded by. */
static void note(struct lv_session *s, const struct libvhost_req *req)
{
	if (req->op == LIBVHOST_OP_SET_PROTOCOL_FEATURES)
		s->wire.protocol_features = req->arg.u64;
	else if (req->op == LIBVHOST_OP_SET_FEATURES)
		s->wire.f30_acked = req->arg.u64 >> 30 & 1;
}

/* The lock is open during the callback: what the caller's own peer says meanwhile must reach the front-end. */
int lv_bridge_handle(struct lv_session *s, struct libvhost_req *req)
{
	struct libvhost_backend *b = s->b;
	int rc = req->op == LIBVHOST_OP_SET_BACKEND_REQ_FD ? lv_channel_set(s, req) : 0;

	if (rc < 0)
		return rc;
	b->bridge = pthread_self();
	b->bridging = true;
	lv_backend_unlock(b);
	rc = b->ops.on_request(b->opts.arg, req);
	lv_backend_lock_bridge(b);
	b->bridging = false;
	if (rc > 0)
		rc = -EIO;
	if (rc == 0)
		rc = req->err;
	if (rc == 0)
		note(s, req);
	return rc;
}

static int wait_for(struct libvhost_backend *b, short events, uint64_t deadline)
{
	struct pollfd p = {.fd = b->session.channel, .events = events};
	int left = lv_left_ms(b->ctx, deadline);

	if (left <= 0)
		return -ETIMEDOUT;
	return poll(&p, 1, left) < 0 && errno != EINTR ? -errno : 0;
}

static int send_request(struct libvhost_backend *b, const struct lv_wire_msg *msg, uint64_t deadline)
{
	size_t off = 0;
	ssize_t n;
	int rc = 0;

	while (rc == 0) {
		n = lv_wire_send(b->session.channel, msg, 1, &off);
		if (n)
			return n < 0 ? (int)n : 0;
		rc = wait_for(b, POLLOUT, deadline);
	}
	return rc;
}

/* Reads one whole message, never beyond it. */
static int receive_answer(struct libvhost_backend *b, struct lv_wire_in *in, uint64_t deadline)
{
	size_t want = LV_USER_HDR;
	ssize_t n;
	int rc;

	while (in->end < want) {
		n = lv_wire_recv(b->session.channel, in, want - in->end);
		if (n == 0)
			return -ECONNRESET;
		rc = n == -EAGAIN ? wait_for(b, POLLIN, deadline) : n < 0 ? (int)n : 0;
		if (rc < 0)
			return rc;
		if (in->end == LV_USER_HDR && want == LV_USER_HDR) {
			want += lv_user_hdr_get(in->buf).size;
			if (want > LV_USER_HDR + LV_USER_MAX_PAYLOAD)
				return -EPROTO;
		}
	}
	return 0;
}

static int exchange(struct libvhost_backend *b, struct libvhost_req *req, uint64_t deadline)
{
	const struct lv_user_session *wire = &b->session.wire;
	const bool ack = wire->protocol_features >> LIBVHOST_PROTOCOL_F_REPLY_ACK & 1;
	uint8_t bytes[LV_USER_HDR + LV_USER_MAX_PAYLOAD];
	struct lv_wire_msg out = {.data = bytes};
	struct lv_user_msg answer;
	struct lv_wire_in in;
	const char *why = NULL;
	bool answered = false;
	int rc = lv_user_encode(req, wire, ack ? LV_USER_F_NEED_REPLY : 0, bytes, sizeof(bytes), out.fds, &out.nfds,
				&why);

	if (rc < 0)
		return rc;
	out.len = (uint32_t)rc;
	rc = lv_wire_in_init(&in, sizeof(bytes));
	if (rc < 0)
		return rc;
	rc = send_request(b, &out, deadline);
	if (rc == 0 && lv_user_has_reply(req, wire, ack)) {
		rc = receive_answer(b, &in, deadline);
		answered = rc == 0;
	}
	/* half a message, or an answer that comes late, would be taken for that of a later request */
	if (rc < 0)
		lv_channel_close(&b->session);
	if (answered) {
		answer = (struct lv_user_msg){.hdr = lv_user_hdr_get(in.buf),
					      .payload = in.buf + LV_USER_HDR,
					      .fds = in.fds,
					      .nfds = in.nfds};
		rc = lv_user_decode_reply(req, &answer, ack, wire, &why);
		if (rc == 0 && req->out_flags & LIBVHOST_REQ_OUT_FD)
			in.nfds = 0; /* the caller's now */
		if (rc == -EPROTO)
			lv_channel_close(&b->session);
	}
	lv_wire_in_destroy(&in);
	return rc;
}

int libvhost_backend_request(struct libvhost_backend *b, struct libvhost_req *req, uint32_t timeout_ms)
{
	const struct lv_op *row;
	int rc;

	if (!b || !req || timeout_ms > LV_TIMEOUT_MAX_MS)
		return -EINVAL;
	row = lv_op(req->op);
	if (!row || row->inbound == LV_INBOUND_NONE)
		return lv_fail(&b->err, -EINVAL, LIBVHOST_EK_ARGUMENT, "back-end: %s is not a request of the back-end",
			       libvhost_op_name(req->op));
	rc = lv_backend_lock_bridge(b);
	if (rc < 0)
		return rc;
	rc = lv_backend_check_alive(b);
	if (rc == 0 && b->session.channel < 0) {
		rc = lv_fail(&b->err, -ENOTCONN, LIBVHOST_EK_STATE,
			     "back-end: %s not sent: no front-end gave a back-end channel", row->name);
	} else if (rc == 0) {
		rc = exchange(b, req, lv_deadline(b->ctx, timeout_ms));
		if (rc < 0)
			lv_fail(&b->err, rc, rc == -EIO ? LIBVHOST_EK_REFUSED : LIBVHOST_EK_DISCONNECTED,
				"back-end: %s: %s", row->name, lv_errno_name(-rc));
	}
	req->err = rc;
	lv_backend_unlock(b);
	return rc;
}
