/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/*
 * The back-end channel: requests of the back-end, answered on the caller's thread whenever it waits, so that a peer
 * that waits for our answer before it gives its own cannot deadlock with us. One request at a time, reply first, then
 * the event. A channel that breaks the rules is closed; the control connection lives on.
 */
#include "transport/user.h"

#include <errno.h>
#include <string.h>

#define PER_TURN 64 /* requests answered before the control connection gets its turn */

void lv_user_channel_init(struct lv_user_channel *c)
{
	c->sock = c->reply_fd = -1;
}

int lv_user_channel_open(struct lv_user *u, int sock)
{
	struct lv_user_channel *c = &u->chan;
	int rc;

	lv_user_channel_close(u);
	rc = lv_wire_in_init(&c->in, LV_USER_HDR + LV_USER_MAX_PAYLOAD);
	if (rc < 0) {
		lv_fd_close(sock);
		return rc;
	}
	c->sock = sock;
	return 0;
}

static void drop_reply(struct lv_user_channel *c)
{
	lv_fd_close(c->reply_fd);
	c->reply_fd = -1;
	c->reply.len = 0;
	c->off = 0;
	c->stalled = 0;
	c->tell = false;
}

void lv_user_channel_close(struct lv_user *u)
{
	struct lv_user_channel *c = &u->chan;

	drop_reply(c);
	lv_wire_in_destroy(&c->in);
	lv_user_close_fd(u, &c->sock);
}

static void give_up_channel(struct lv_user *u, const char *why)
{
	lv_log(u->t->ctx, LIBVHOST_LOG_LEVEL_WARNING, LIBVHOST_EK_PROTOCOL, "%s: back-end channel closed: %s",
	       u->t->peer, why ? why : "malformed request");
	lv_user_channel_close(u);
}

static bool paused(const struct lv_user *u)
{
	const struct lv_transport_client *client = &u->t->client;

	return client->paused && client->paused(client->arg);
}

short lv_user_channel_events(const struct lv_user *u)
{
	if (u->chan.sock < 0)
		return 0;
	if (u->chan.reply.len)
		return POLLOUT;
	return paused(u) ? 0 : POLLIN;
}

static void tell(struct lv_user *u)
{
	const struct lv_transport_client *client = &u->t->client;

	if (u->chan.tell && client->answered)
		client->answered(client->arg, &u->chan.req);
	u->chan.tell = false;
}

/* true = nothing waits any more. */
static bool send_reply(struct lv_user *u)
{
	struct lv_user_channel *c = &u->chan;
	const uint64_t now = lv_now(u->t->ctx);
	ssize_t n = c->reply.len ? lv_wire_send(c->sock, &c->reply, 1, &c->off) : 1;

	if (n < 0) {
		lv_user_channel_close(u);
		return false;
	}
	if (!n) {
		c->stalled = c->stalled ? c->stalled : now;
		if (now - c->stalled >= u->t->ctx->opts.default_timeout_ms * LV_NS_PER_MS)
			give_up_channel(u, "the peer does not read our answers");
		return false;
	}
	c->reply.len = 0;
	c->stalled = 0;
	c->off = 0;
	lv_fd_close(c->reply_fd);
	c->reply_fd = -1;
	tell(u);
	return true;
}

/* The request could not even be decoded: an acknowledgement of failure, when one is asked for. */
static void put_nak(struct lv_user_channel *c, const struct lv_user_hdr *hdr, int code)
{
	const struct lv_user_hdr nak = {
		.request = hdr->request, .flags = LV_USER_VERSION | LV_USER_F_REPLY, .size = sizeof(uint64_t)};
	const uint64_t value = (uint64_t)-code;

	lv_user_hdr_put(c->out, &nak);
	memcpy(c->out + LV_USER_HDR, &value, sizeof(value));
	c->reply = (struct lv_wire_msg){.data = c->out, .len = LV_USER_HDR + sizeof(value)};
}

static void answer(struct lv_user *u, const struct lv_user_session *session, bool need_reply)
{
	struct lv_user_channel *c = &u->chan;
	struct libvhost_req *req = &c->req;
	int rc = lv_transport_dispatch(u->t, req), len;

	lv_wire_drop_fds(&c->in);
	if (c->sock < 0)
		return;
	req->flags &= ~LIBVHOST_REQ_HAS_FD;
	if (req->out_flags & LIBVHOST_REQ_OUT_FD)
		c->reply_fd = req->out_fd;
	if (rc < 0)
		req->err = rc;
	req->state = req->err ? LIBVHOST_REQ_FAILED : LIBVHOST_REQ_DONE;
	lv_recorder_note(&u->t->recorder, lv_now(u->t->ctx), req, 1);
	c->reply.nfds = 0;
	len = lv_user_encode_reply(req, session, need_reply, c->out, sizeof(c->out), c->reply.fds, &c->reply.nfds);
	c->reply.data = c->out;
	c->reply.len = len > 0 ? (uint32_t)len : 0;
	c->tell = !rc;
	if (len < 0)
		give_up_channel(u, "the answer cannot be encoded");
}

static void handle(struct lv_user *u, const struct lv_user_msg *msg)
{
	const struct lv_user_session *session = u->prog.active ? &u->prog.session : &u->session;
	const bool need_reply = msg->hdr.flags & LV_USER_F_NEED_REPLY;
	struct lv_user_channel *c = &u->chan;
	const char *why = NULL;
	int rc;

	memset(&c->req, 0, sizeof(c->req));
	rc = lv_user_decode(&c->req, msg, true, session, c->scratch, sizeof(c->scratch), &why);
	if (rc == -EPROTO || (!rc && lv_user_gate(lv_op(c->req.op), session, &why))) {
		give_up_channel(u, why);
		return;
	}
	if (!rc) {
		answer(u, session, need_reply);
		return;
	}
	lv_wire_drop_fds(&c->in);
	if (need_reply)
		put_nak(c, &msg->hdr, rc == -EBADMSG ? -EINVAL : rc);
}

static const char *bad_header(const struct lv_user_channel *c, const struct lv_user_hdr *hdr)
{
	if (c->in.nfds > LV_USER_MAX_FDS || c->in.fds_dropped)
		return "too many descriptors";
	if ((hdr->flags & 3u) != LV_USER_VERSION || (hdr->flags & LV_USER_F_REPLY))
		return "not a request of this protocol version";
	if (hdr->size > LV_USER_MAX_PAYLOAD)
		return "absurd size";
	return NULL;
}

/* 1 = a request was handled, 0 = no complete one is there. May close the channel. */
static int next_request(struct lv_user *u)
{
	struct lv_user_channel *c = &u->chan;
	struct lv_user_msg msg;
	const char *why;

	for (;;) {
		const size_t have = c->in.end - c->in.start;
		size_t want = LV_USER_HDR;
		ssize_t n;

		if (have >= LV_USER_HDR) {
			msg.hdr = lv_user_hdr_get(c->in.buf + c->in.start);
			why = bad_header(c, &msg.hdr);
			if (why) {
				give_up_channel(u, why);
				return 0;
			}
			want += msg.hdr.size;
			if (have >= want)
				break;
		}
		n = lv_wire_recv(c->sock, &c->in, want - have); /* never past a border: descriptors may follow */
		if (n == -EAGAIN || n == -EWOULDBLOCK)
			return 0;
		if (n <= 0) {
			lv_user_channel_close(u);
			return 0;
		}
	}
	msg.payload = c->in.buf + c->in.start + LV_USER_HDR;
	msg.fds = c->in.fds;
	msg.nfds = c->in.nfds;
	handle(u, &msg);
	if (c->sock >= 0)
		lv_wire_in_reset(&c->in);
	return 1;
}

void lv_user_channel_serve(struct lv_user *u, short revents)
{
	if (u->chan.sock < 0 || (!revents && !u->chan.reply.len))
		return;
	for (int i = 0; i < PER_TURN; i++) {
		if (u->chan.sock < 0 || !send_reply(u) || paused(u))
			return;
		if (!next_request(u))
			return;
	}
	if (u->chan.sock >= 0)
		send_reply(u);
}
