/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* Receiving: replies in order, each confirming what was sent before it. */
#include "transport/user.h"

#include <errno.h>
#include <string.h>

/* A descriptor could belong to the next message: then no read may cross a message border. */
static bool fds_expected(struct lv_user *u)
{
	const struct lv_user_program *p = &u->prog;

	for (uint32_t i = 0; i < u->nowed; i++)
		if (u->owed[i].fds)
			return true;
	for (uint32_t i = p->tail; p->active && i < p->next; i++)
		if (p->steps[i].reply && p->steps[i].reply_fds)
			return true;
	return false;
}

static size_t missing(const struct lv_wire_in *in)
{
	const size_t have = in->end - in->start;

	if (have < LV_USER_HDR)
		return LV_USER_HDR - have;
	return LV_USER_HDR + lv_user_hdr_get(in->buf + in->start).size - have;
}

/* A reply proves that everything before its request was done. */
static void confirm(struct lv_user *u, struct lv_user_step *step)
{
	struct lv_user_program *p = &u->prog;
	const uint32_t at = (uint32_t)(step - p->steps);

	for (uint32_t i = p->confirmed; i < at; i++)
		if (p->steps[i].req != LV_USER_FENCE && !p->steps[i].reply)
			p->reqs[p->steps[i].req].state = LIBVHOST_REQ_DONE;
	p->confirmed = p->tail = at + 1;
}

static int take_reply(struct lv_user *u, struct lv_user_step *step, const struct lv_user_msg *msg)
{
	struct libvhost_req *req;
	const char *why = NULL;
	int rc;

	if (step->req == LV_USER_FENCE) {
		if (msg->hdr.size != sizeof(uint64_t) || msg->nfds)
			return lv_user_broken(u, step, "a GET_FEATURES reply of another size or with descriptors");
		confirm(u, step);
		return 0;
	}
	req = &u->prog.reqs[step->req];
	rc = lv_user_decode_reply(req, msg, step->acked, &u->prog.session, &why);
	if (rc == -EPROTO)
		return lv_user_broken(u, step, why);
	if (rc == 0 && (req->out_flags & LIBVHOST_REQ_OUT_FD)) {
		for (uint32_t i = 0; i < u->in.nfds; i++)
			if (u->in.fds[i] != req->out_fd)
				lv_fd_close(u->in.fds[i]);
		u->in.nfds = 0; /* the caller owns it now */
	}
	req->err = rc;
	req->state = rc ? LIBVHOST_REQ_FAILED : LIBVHOST_REQ_DONE;
	confirm(u, step);
	if (rc && !(req->flags & LIBVHOST_REQ_OPTIONAL))
		lv_user_stop_sending(u);
	return 0;
}

/* Everything that can be told from a header alone, before its payload is waited for. */
static const char *bad_header(const struct lv_user_hdr *hdr, uint32_t request)
{
	if (hdr->request != request)
		return "the reply is to another request";
	if ((hdr->flags & 3u) != LV_USER_VERSION)
		return "wrong protocol version";
	if (!(hdr->flags & LV_USER_F_REPLY))
		return "the reply bit is missing";
	if (hdr->flags & LV_USER_F_NEED_REPLY)
		return "a reply that asks for a reply";
	if (hdr->size > LV_USER_MAX_PAYLOAD)
		return "the reply claims an absurd size";
	return NULL;
}

/* 1 = one message taken off the buffer, 0 = incomplete. */
static int take_message(struct lv_user *u)
{
	struct lv_user_step *step = u->nowed ? NULL : lv_user_awaited(u);
	struct lv_wire_in *in = &u->in;
	struct lv_user_msg msg;
	const char *why;
	int rc = 0;

	if (in->end - in->start < LV_USER_HDR)
		return 0;
	msg.hdr = lv_user_hdr_get(in->buf + in->start);
	if (!step && !u->nowed) {
		/* behind a finished program: its results stand, the next one finds the bytes and fails */
		if (u->prog.active && u->prog.next == u->prog.count)
			return 0;
		return lv_user_broken(u, NULL, "a reply that nobody asked for");
	}
	why = bad_header(&msg.hdr, step ? step->request : u->owed[0].request);
	if (why)
		return lv_user_broken(u, step, why);
	if (in->end - in->start < LV_USER_HDR + msg.hdr.size)
		return 0;
	msg.payload = in->buf + in->start + LV_USER_HDR;
	msg.fds = in->fds;
	msg.nfds = in->nfds;
	in->start += LV_USER_HDR + msg.hdr.size;
	if (step)
		rc = take_reply(u, step, &msg);
	else
		memmove(u->owed, u->owed + 1, --u->nowed * sizeof(*u->owed));
	lv_wire_drop_fds(in);
	return rc < 0 ? rc : 1;
}

static int take_messages(struct lv_user *u)
{
	int rc;

	do
		rc = take_message(u);
	while (rc > 0);
	return rc;
}

static int read_failed(struct lv_user *u, ssize_t n)
{
	if (n == -EAGAIN || n == -EWOULDBLOCK)
		return u->prog.dead && !lv_user_awaited(u) ? lv_user_lost(u, -ECONNRESET, "peer hung up") : 0;
	if (n == -EMFILE)
		return lv_user_lost(u, -EMFILE, "no room for the descriptors of a reply (RLIMIT_NOFILE)");
	if (!n || n == -ECONNRESET || n == -EPIPE)
		return lv_user_lost(u, -ECONNRESET, "peer hung up");
	return lv_user_lost(u, (int)n, "receiving failed");
}

int lv_user_receive(struct lv_user *u)
{
	struct lv_wire_in *in = &u->in;
	bool strict;
	ssize_t n;
	int rc;

	do {
		strict = fds_expected(u);
		n = lv_wire_recv(u->sock, in, strict ? missing(in) : in->cap);
		if (n <= 0)
			return read_failed(u, n);
		if (in->fds_dropped || (in->nfds && !strict))
			return lv_user_broken(u, lv_user_awaited(u), "descriptors that the reply must not carry");
		rc = take_messages(u);
		if (rc < 0)
			return rc;
	} while (strict && in->end > in->start); /* the payload follows its header */
	return 0;
}
