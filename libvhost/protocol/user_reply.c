/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* Which requests are answered, and the receiver's side of it: results -> reply message. */
#include <errno.h>
#include <string.h>
#include "protocol/codec.h"
#include "protocol/user_wire.h"

static bool negotiated(const struct lv_user_session *session, int bit)
{
	return session->protocol_features >> bit & 1;
}

bool lv_user_has_reply(const struct libvhost_req *req, const struct lv_user_session *session, bool need_reply)
{
	const struct lv_op *row = lv_op(req->op);
	bool ack = need_reply && negotiated(session, LIBVHOST_PROTOCOL_F_REPLY_ACK);

	if (!row)
		return false;
	if (row->op == LIBVHOST_OP_RAW)
		return req->arg.raw.reply;
	if (row->reply == LIBVHOST_REPLY_NONE || row->reply == LIBVHOST_REPLY_ACK)
		return row->user && ack;
	if (row->reply == LIBVHOST_REPLY_LOG)
		return ack || negotiated(session, LIBVHOST_PROTOCOL_F_LOG_SHMFD);
	return true;
}

/* Payload of an answer: fixed head and copied tail, in this order or the other. */
struct answer {
	union {
		uint64_t u64;
		struct lv_wire_state state;
		struct lv_wire_log log;
		struct lv_wire_config config;
		struct lv_wire_inflight inflight;
	} head;
	size_t head_len, tail_len;
	const void *tail;
	bool tail_first, fd;
};

static uint64_t error_number(const struct libvhost_req *req)
{
	return (uint64_t) - (int64_t)req->err;
}

static bool wants_fd(const struct libvhost_req *req)
{
	return req->out_flags & LIBVHOST_REQ_OUT_FD;
}

static int answer_ack(struct answer *a, uint64_t code)
{
	a->head.u64 = code;
	a->head_len = sizeof(a->head.u64);
	return 0;
}

/* Words that are a status can say a refusal; words that are a value cannot. */
static int answer_u64(struct answer *a, const struct libvhost_req *req)
{
	uint64_t error = error_number(req);

	switch (req->op) {
	case LIBVHOST_OP_SET_DEVICE_STATE_FD:
		a->fd = !error && wants_fd(req);
		return answer_ack(a, (error > 0xff ? 0xff : error) | (a->fd ? 0 : LV_WIRE_RING_NO_FD));
	case LIBVHOST_OP_BACKEND_SHARED_OBJECT_LOOKUP:
		a->fd = !error && wants_fd(req);
		return answer_ack(a, error || a->fd ? error : ENOENT);
	case LIBVHOST_OP_POSTCOPY_END:
	case LIBVHOST_OP_CHECK_DEVICE_STATE:
		return answer_ack(a, error ? error : req->result[0]);
	default:
		return error ? -EINVAL : answer_ack(a, req->result[0]);
	}
}

static int answer_config(struct answer *a, const struct libvhost_req *req)
{
	const struct libvhost_req_config *c = &req->arg.config;

	if (req->err)
		return 0;
	if (req->data_out_len != c->size || !req->data_out)
		return -EINVAL;
	a->head.config = (struct lv_wire_config){.offset = c->offset, .size = c->size, .flags = c->flags};
	a->head_len = sizeof(a->head.config);
	a->tail = (const void *)(uintptr_t)req->data_out;
	a->tail_len = c->size;
	return 0;
}

/* A region of size 0 and no descriptor: there is none. */
static int answer_inflight(struct answer *a, const struct libvhost_req *req)
{
	a->head_len = sizeof(a->head.inflight);
	a->head.inflight = (struct lv_wire_inflight){.num_queues = req->arg.inflight.num_queues,
						     .queue_size = req->arg.inflight.queue_size};
	if (req->err)
		return 0;
	if (!wants_fd(req) || !req->result[0])
		return -EINVAL;
	a->head.inflight.mmap_size = req->result[0];
	a->head.inflight.mmap_offset = req->result[1];
	a->fd = true;
	return 0;
}

/* The session comes back as it was sent, with its identifier filled in: last in the new layout, first in the old. */
static int answer_crypto(struct answer *a, const struct libvhost_req *req)
{
	uint64_t id = req->err ? (uint64_t)(int64_t)req->err : req->result[0];
	const uint8_t *session = (const void *)(uintptr_t)req->data_in;

	if (!session || (req->data_in_len != LV_WIRE_CRYPTO && req->data_in_len != LV_WIRE_CRYPTO_OLD))
		return -EINVAL;
	a->tail_first = req->data_in_len == LV_WIRE_CRYPTO;
	a->tail = a->tail_first ? session : session + sizeof(id);
	a->tail_len = req->data_in_len - sizeof(id);
	return answer_ack(a, id);
}

static int answer_shmem(struct answer *a, const struct libvhost_req *req)
{
	if (req->err || !req->data_out || req->data_out_len != sizeof(struct lv_wire_shmem))
		return -EINVAL;
	a->tail = (const void *)(uintptr_t)req->data_out;
	a->tail_len = sizeof(struct lv_wire_shmem);
	return 0;
}

/* Answers of 0, 8 and 16 bytes are in the field; 16 is the only size that every front-end reads. */
static int answer_log(struct answer *a, const struct libvhost_req *req)
{
	if (req->err)
		return answer_ack(a, error_number(req));
	a->head.log = (struct lv_wire_log){.size = req->arg.log.size, .offset = req->arg.log.offset};
	a->head_len = sizeof(a->head.log);
	return 0;
}

static int answer(struct answer *a, const struct libvhost_req *req, const struct lv_op *row,
		  const struct lv_user_session *session)
{
	switch (row->reply) {
	case LIBVHOST_REPLY_ACK:
		return answer_ack(a, error_number(req));
	case LIBVHOST_REPLY_OWN_U64:
		return answer_u64(a, req);
	case LIBVHOST_REPLY_OWN_NONE:
		a->fd = !req->err && wants_fd(req);
		return 0;
	case LIBVHOST_REPLY_OWN_STATE:
		a->head.state = (struct lv_wire_state){.index = req->index, .num = (uint32_t)req->result[0]};
		a->head_len = sizeof(a->head.state);
		return req->err ? -EINVAL : 0;
	case LIBVHOST_REPLY_OWN_CONFIG:
		return answer_config(a, req);
	case LIBVHOST_REPLY_OWN_INFLIGHT:
		return answer_inflight(a, req);
	case LIBVHOST_REPLY_OWN_CRYPTO:
		return answer_crypto(a, req);
	case LIBVHOST_REPLY_OWN_SHMEM:
		return answer_shmem(a, req);
	case LIBVHOST_REPLY_LOG:
		if (!negotiated(session, LIBVHOST_PROTOCOL_F_LOG_SHMFD))
			return answer_ack(a, error_number(req));
		return answer_log(a, req);
	default:
		return -EINVAL;
	}
}

int lv_user_encode_reply(const struct libvhost_req *req, const struct lv_user_session *session, bool need_reply,
			 void *buf, size_t cap, int *fds, uint32_t *nfds)
{
	const struct lv_op *row = lv_op(req->op);
	struct lv_user_hdr hdr = {.flags = LV_USER_VERSION | LV_USER_F_REPLY};
	struct answer a = {0};
	uint8_t *to = buf;
	int r;

	*nfds = 0;
	if (!row || !lv_user_has_reply(req, session, need_reply))
		return 0;
	r = answer(&a, req, row, session);
	if (r < 0)
		return r;
	hdr.request = row->user;
	hdr.size = (uint32_t)(a.head_len + a.tail_len);
	if (cap < LV_USER_HDR + hdr.size)
		return -EINVAL;
	lv_user_hdr_put(to, &hdr);
	to += LV_USER_HDR;
	memcpy(to + (a.tail_first ? a.tail_len : 0), &a.head, a.head_len);
	if (a.tail_len)
		memcpy(to + (a.tail_first ? 0 : a.head_len), a.tail, a.tail_len);
	if (a.fd)
		fds[(*nfds)++] = req->out_fd;
	return (int)(LV_USER_HDR + hdr.size);
}
