/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* From requests to messages: everything that can be wrong with a program is found here, before the first byte. */
#include "transport/user.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define MAX_MESSAGE   (LV_USER_HDR + LV_USER_MAX_PAYLOAD)
#define SMALL_MESSAGE (LV_USER_HDR + 40u) /* with a ring address: the largest without a table */
#define F30	      (1ull << 30)
#define DRIVER_OK     4u
#define KNOWN_FLAGS                                                                                                    \
	(LIBVHOST_REQ_HAS_FD | LIBVHOST_REQ_TAKE_FD | LIBVHOST_REQ_NEED_REPLY | LIBVHOST_REQ_BARRIER |                 \
	 LIBVHOST_REQ_OPTIONAL)

/* Operations up to 44 have their wire number; the header travels in host byte order. */
static const struct lv_user_hdr fence = {.request = LIBVHOST_OP_GET_FEATURES, .flags = LV_USER_VERSION};
_Static_assert(sizeof(fence) == LV_USER_HDR, "a fence is a bare header");

/* What compilation carries from request to request. */
struct compiler {
	struct lv_user *u;
	struct lv_user_program *p;
	uint32_t policy;
	bool memory_unconfirmed; /* features or memory changed since the last barrier */
};

void lv_user_program_free(struct lv_user_program *p)
{
	free(p->steps);
	free(p->msgs);
	free(p->bytes);
	memset(p, 0, sizeof(*p));
}

static int reserve_steps(struct lv_user_program *p, uint32_t want)
{
	uint32_t cap = p->cap ? p->cap : 64;
	void *steps, *msgs;

	if (want <= p->cap)
		return 0;
	while (cap < want)
		cap *= 2;
	steps = realloc(p->steps, cap * sizeof(*p->steps));
	if (steps)
		p->steps = steps;
	msgs = realloc(p->msgs, cap * sizeof(*p->msgs));
	if (msgs)
		p->msgs = msgs;
	if (!steps || !msgs)
		return -ENOMEM;
	p->cap = cap;
	return 0;
}

static int reserve_bytes(struct lv_user_program *p, size_t more)
{
	size_t cap = p->bytes_cap ? p->bytes_cap : 4 * MAX_MESSAGE;
	void *bytes;

	if (p->bytes_cap - p->used >= more)
		return 0;
	while (cap - p->used < more)
		cap *= 2;
	bytes = realloc(p->bytes, cap);
	if (!bytes)
		return -ENOMEM;
	p->bytes = bytes;
	p->bytes_cap = cap;
	return 0;
}

int lv_user_reserve(void *self, uint32_t requests)
{
	struct lv_user_program *p = &((struct lv_user *)self)->prog;

	p->count = 0;
	p->used = 0;
	/* a fence behind each, and one behind a refusal; compiling keeps room for the largest message */
	if (reserve_steps(p, 2 * requests + 1) || reserve_bytes(p, requests * SMALL_MESSAGE + MAX_MESSAGE))
		return -ENOMEM;
	return 0;
}

static void put_fence(struct lv_user_program *p, uint32_t at)
{
	p->steps[at] = (struct lv_user_step){.req = LV_USER_FENCE, .request = fence.request, .reply = true};
	p->msgs[at] = (struct lv_wire_msg){.data = &fence, .len = sizeof(fence)};
}

int lv_user_insert_fence(struct lv_user_program *p, uint32_t at)
{
	if (reserve_steps(p, p->count + 1))
		return -ENOMEM;
	memmove(p->steps + at + 1, p->steps + at, (p->count - at) * sizeof(*p->steps));
	memmove(p->msgs + at + 1, p->msgs + at, (p->count - at) * sizeof(*p->msgs));
	put_fence(p, at);
	p->count++;
	return 0;
}

void lv_user_apply(struct lv_user_session *s, const struct libvhost_req *req)
{
	switch (req->op) {
	case LIBVHOST_OP_SET_PROTOCOL_FEATURES:
		s->protocol_features = req->arg.u64;
		break;
	case LIBVHOST_OP_SET_FEATURES:
		s->f30_acked = req->arg.features[0] & F30;
		break;
	case LIBVHOST_OP_GET_FEATURES:
		if (req->state == LIBVHOST_REQ_DONE)
			s->f30_offered = req->result[0] & F30;
		break;
	default:
		break;
	}
}

static int refuse(struct compiler *c, uint32_t i, int code, enum libvhost_error_kind kind, const char *why)
{
	struct lv_where where = LV_WHERE_NONE;
	char name[64];

	where.op = c->p->reqs[i].op;
	where.request = i;
	where.queue = lv_req_name(&c->p->reqs[i], name, sizeof(name));
	return lv_fail_at(&c->u->t->err, code, kind, &where, "%s: %s (request %u): %s; nothing was sent", c->u->t->peer,
			  name, i, why ? why : "malformed");
}

static int check(struct compiler *c, uint32_t i)
{
	const struct libvhost_req *req = &c->p->reqs[i];
	const struct lv_op *row = lv_op(req->op);
	const char *why = NULL;

	if (!row)
		return refuse(c, i, -EINVAL, LIBVHOST_EK_ARGUMENT, "no such operation");
	if ((req->flags & ~KNOWN_FLAGS) || req->reserved)
		return refuse(c, i, -EINVAL, LIBVHOST_EK_ARGUMENT, "unknown flags or reserved field not 0");
	if (row->op == LIBVHOST_OP_RAW)
		return 0;
	if (!row->user || row->inbound != LV_INBOUND_NONE)
		return refuse(c, i, -ENOTSUP, LIBVHOST_EK_UNSUPPORTED, "vhost-user front-ends have no such request");
	if (lv_user_gate(row, &c->p->session, &why))
		return refuse(c, i, -ENOTSUP, LIBVHOST_EK_NOT_NEGOTIATED, why);
	return 0;
}

static bool changes_memory(const struct libvhost_req *req)
{
	return req->op == LIBVHOST_OP_SET_FEATURES || req->op == LIBVHOST_OP_SET_MEM_TABLE ||
	       req->op == LIBVHOST_OP_ADD_MEM_REG;
}

/* Whether the peer may touch guest memory because of it. */
static bool starts_access(const struct libvhost_req *req)
{
	switch (req->op) {
	case LIBVHOST_OP_SET_VRING_KICK:
	case LIBVHOST_OP_VRING_KICK:
		return true;
	case LIBVHOST_OP_SET_VRING_ENABLE:
		return req->arg.num;
	case LIBVHOST_OP_SET_STATUS:
		return req->arg.u64 & DRIVER_OK;
	default:
		return false;
	}
}

static bool is_barrier(const struct compiler *c, const struct libvhost_req *req)
{
	return (req->flags & LIBVHOST_REQ_BARRIER) || (c->memory_unconfirmed && starts_access(req));
}

/* A channel that the caller does not bring is a socket pair of ours. *copy is what gets encoded. */
static int bring_channel(struct compiler *c, uint32_t i, struct libvhost_req *copy)
{
	struct lv_user *u = c->u;
	int pair[2], rc;

	if (copy->op != LIBVHOST_OP_SET_BACKEND_REQ_FD || (copy->flags & LIBVHOST_REQ_HAS_FD))
		return 0;
	if (u->kept_end >= 0)
		return refuse(c, i, -EINVAL, LIBVHOST_EK_ARGUMENT, "one back-end channel is enough");
	rc = lv_wire_pair(pair);
	if (rc < 0)
		return lv_fail_sys(&u->t->err, -rc, "%s: back-end channel: socketpair: %s", u->t->peer,
				   lv_errno_name(-rc));
	u->kept_end = pair[0];
	u->offered_end = pair[1];
	copy->flags |= LIBVHOST_REQ_HAS_FD;
	copy->fd = pair[1];
	return 0;
}

/* Bytes and descriptors of one request; message data is an offset until all are encoded. */
static int encode(struct compiler *c, uint32_t i, const struct libvhost_req *req, bool ack)
{
	struct lv_user_program *p = c->p;
	struct lv_wire_msg *msg = &p->msgs[p->count];
	const char *why = NULL;
	uint32_t nfds = 0;
	int len;

	_Static_assert(sizeof(msg->fds) / sizeof(msg->fds[0]) >= LV_USER_MAX_FDS, "descriptors of one message");
	len = lv_user_encode(req, &p->session, ack ? LV_USER_F_NEED_REPLY : 0, p->bytes + p->used,
			     p->bytes_cap - p->used, msg->fds, &nfds, &why);
	if (len < 0)
		return refuse(c, i, len == -ENOTSUP ? -ENOTSUP : -EINVAL,
			      len == -ENOTSUP ? LIBVHOST_EK_UNSUPPORTED : LIBVHOST_EK_ARGUMENT, why);
	msg->data = (void *)(uintptr_t)p->used;
	msg->len = (uint32_t)len;
	msg->nfds = nfds;
	p->used += (size_t)len;
	return 0;
}

static int compile_one(struct compiler *c, uint32_t i)
{
	struct lv_user_program *p = c->p;
	struct libvhost_req req = p->reqs[i];
	const struct lv_op *row = lv_op(req.op);
	const bool can_ack =
		(p->session.protocol_features >> LIBVHOST_PROTOCOL_F_REPLY_ACK & 1) && req.op != LIBVHOST_OP_RAW;
	const bool own = lv_user_has_reply(&req, &p->session, false), barrier = is_barrier(c, &req);
	const bool asked = req.flags & LIBVHOST_REQ_NEED_REPLY;
	bool must, ack;
	int rc;

	if (barrier)
		c->memory_unconfirmed = false;
	c->memory_unconfirmed |= changes_memory(&req);
	must = asked || c->policy == LIBVHOST_ACK_ALL || i + 1 == p->nreqs || is_barrier(c, &p->reqs[i + 1]);
	ack = must && can_ack && !own && (asked || c->policy != LIBVHOST_ACK_NONE);
	rc = bring_channel(c, i, &req);
	if (!rc)
		rc = encode(c, i, &req, ack);
	if (rc < 0)
		return rc;
	p->steps[p->count++] = (struct lv_user_step){
		.req = i,
		.request = req.op == LIBVHOST_OP_RAW ? req.arg.raw.request : row->user,
		.reply = own || ack,
		.acked = ack,
		.reply_fds = row->reply_fds,
		.barrier = barrier,
	};
	if (must && !own && !ack)
		put_fence(p, p->count++);
	if (req.op == LIBVHOST_OP_GET_FEATURES)
		p->session.f30_offered = true; /* only the answer tells; what follows counts on it */
	else
		lv_user_apply(&p->session, &req);
	return 0;
}

static int compile_all(struct compiler *c)
{
	struct lv_user_program *p = c->p;
	int rc = 0;

	for (uint32_t i = 0; i < p->nreqs && !rc; i++) {
		if (reserve_steps(p, p->count + 2) || reserve_bytes(p, MAX_MESSAGE))
			return lv_fail(&c->u->t->err, -ENOMEM, LIBVHOST_EK_NOMEM, "%s: out of memory for %u requests",
				       c->u->t->peer, p->nreqs);
		rc = check(c, i);
		if (!rc)
			rc = compile_one(c, i);
	}
	for (uint32_t i = 0; i < p->count && !rc; i++)
		if (p->steps[i].req != LV_USER_FENCE)
			p->msgs[i].data = p->bytes + (uintptr_t)p->msgs[i].data;
	return rc;
}

int lv_user_compile(struct lv_user *u, struct libvhost_req *reqs, uint32_t count)
{
	struct lv_user_program *p = &u->prog;
	struct compiler c = {.u = u, .p = p, .policy = atomic_load(&u->t->ack_policy)};
	int rc;

	p->count = 0;
	p->used = 0;
	p->reqs = reqs;
	p->nreqs = count;
	p->session = u->session;
	rc = compile_all(&c);
	if (rc < 0) {
		lv_fd_close(u->kept_end);
		lv_fd_close(u->offered_end);
		u->kept_end = u->offered_end = -1;
		return rc;
	}
	lv_reqs_clear(reqs, count);
	p->next = p->tail = p->confirmed = 0;
	p->off = 0;
	p->active = true;
	p->failed = p->full = false;
	p->dead = 0;
	return 0;
}
