/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/*
 * The asker's side of an answer: reply message -> results. Tolerant where the field is divided, and only there; nothing
 * is stored before the whole answer is accepted.
 */
#include <errno.h>
#include <string.h>
#include "protocol/codec.h"
#include "protocol/user_wire.h"

static const char bad_size[] = "reply has a size that does not fit the message";

struct reply {
	struct libvhost_req *req;
	const struct lv_user_msg *msg;
	const char **why;
};

static int broken(const struct reply *r, const char *why)
{
	*r->why = why;
	return -EPROTO;
}

static int refused(const struct reply *r, uint64_t raw, const char *why)
{
	r->req->result[0] = raw;
	*r->why = why;
	return -EIO;
}

static void take_fd(const struct reply *r)
{
	if (!r->msg->nfds)
		return;
	r->req->out_fd = r->msg->fds[0];
	r->req->out_flags |= LIBVHOST_REQ_OUT_FD;
}

static bool fits_out(const struct reply *r, uint32_t len)
{
	return len <= r->req->data_out_cap && (r->req->data_out || !len);
}

static int too_small(const struct reply *r)
{
	*r->why = "data_out is too small for the answer";
	return -EMSGSIZE;
}

static void copy_out(const struct reply *r, const void *bytes, uint32_t len)
{
	if (len)
		memcpy((void *)(uintptr_t)r->req->data_out, bytes, len);
	r->req->data_out_len = len;
}

static uint64_t word(const struct reply *r, uint32_t at)
{
	uint64_t w;

	memcpy(&w, (const uint8_t *)r->msg->payload + at, sizeof(w));
	return w;
}

static int take_ack(const struct reply *r)
{
	if (r->msg->hdr.size != 8)
		return broken(r, bad_size);
	if (word(r, 0))
		return refused(r, word(r, 0), "the peer refused the request");
	r->req->result[0] = 0;
	return 0;
}

/* vhost-user spec, "VHOST_USER_SET_DEVICE_STATE_FD": bits 0-7 error, bit 8 no descriptor comes back. */
static int take_state_fd(const struct reply *r)
{
	uint64_t w = word(r, 0);
	bool none = w & LV_WIRE_RING_NO_FD;

	if (w & LV_WIRE_RING_INDEX)
		return refused(r, w, "the peer refused the transfer of device state");
	if (none == (r->msg->nfds > 0))
		return broken(r, none ? "a descriptor beside the bit that says there is none"
				      : "no descriptor, nor the bit that says there is none");
	r->req->result[0] = w;
	take_fd(r);
	return 0;
}

static int take_u64(const struct reply *r)
{
	if (r->msg->hdr.size != 8)
		return broken(r, bad_size);
	switch (r->req->op) {
	case LIBVHOST_OP_SET_DEVICE_STATE_FD:
		return take_state_fd(r);
	case LIBVHOST_OP_POSTCOPY_END:
	case LIBVHOST_OP_CHECK_DEVICE_STATE:
		return take_ack(r);
	case LIBVHOST_OP_BACKEND_SHARED_OBJECT_LOOKUP:
		if (word(r, 0) || !r->msg->nfds)
			return refused(r, word(r, 0), "the peer does not know the shared object");
		break;
	default:
		break;
	}
	r->req->result[0] = word(r, 0);
	take_fd(r);
	return 0;
}

/* An answer whose only content is a descriptor. Peers differ in what they put beside it. */
static int take_only_fd(const struct reply *r)
{
	bool shared = r->req->op == LIBVHOST_OP_GET_SHARED_OBJECT;
	uint32_t size = r->msg->hdr.size;

	if (size && !(shared && (size == 8 || size == 16)))
		return broken(r, bad_size);
	if (!r->msg->nfds)
		return refused(r, 0, "the answer carries no descriptor");
	take_fd(r);
	return 0;
}

static int take_state(const struct reply *r)
{
	struct lv_wire_state w;

	if (r->msg->hdr.size != sizeof(w))
		return broken(r, bad_size);
	memcpy(&w, r->msg->payload, sizeof(w));
	if (w.index != r->req->index)
		return broken(r, "reply is about another queue");
	r->req->result[0] = w.num;
	return 0;
}

/* vhost-user spec, "VHOST_USER_GET_CONFIG": an empty answer is a refusal; some peers send the head with size 0. */
static int take_config(const struct reply *r)
{
	const struct libvhost_req_config *c = &r->req->arg.config;
	struct lv_wire_config w;

	if (!r->msg->hdr.size)
		return refused(r, 0, "the peer refused to give its configuration");
	if (r->msg->hdr.size < sizeof(w))
		return broken(r, bad_size);
	memcpy(&w, r->msg->payload, sizeof(w));
	if (!w.size && r->msg->hdr.size == sizeof(w))
		return refused(r, 0, "the peer refused to give its configuration");
	if (w.offset != c->offset || w.size != c->size || r->msg->hdr.size != sizeof(w) + w.size)
		return broken(r, "reply holds another part of the configuration");
	if (!fits_out(r, w.size))
		return too_small(r);
	copy_out(r, (const uint8_t *)r->msg->payload + sizeof(w), w.size);
	r->req->result[0] = w.size;
	return 0;
}

static int take_inflight(const struct reply *r)
{
	struct lv_wire_inflight w = {0};

	if (r->msg->hdr.size != sizeof(w) && r->msg->hdr.size != LV_WIRE_INFLIGHT_SHORT)
		return broken(r, bad_size);
	memcpy(&w, r->msg->payload, r->msg->hdr.size);
	if (!w.mmap_size)
		return refused(r, 0, "the peer has no inflight region");
	if (!r->msg->nfds)
		return broken(r, "inflight region without descriptor");
	if (w.mmap_offset > INT64_MAX || w.mmap_size > INT64_MAX - w.mmap_offset)
		return broken(r, "inflight region wraps");
	r->req->result[0] = w.mmap_size;
	r->req->result[1] = w.mmap_offset;
	take_fd(r);
	return 0;
}

static int take_crypto(const struct reply *r)
{
	uint32_t size = r->msg->hdr.size;
	uint64_t id;

	if (size != LV_WIRE_CRYPTO && size != LV_WIRE_CRYPTO_OLD)
		return broken(r, bad_size);
	id = word(r, size == LV_WIRE_CRYPTO ? LV_WIRE_CRYPTO - 8 : 0);
	if ((int64_t)id < 0)
		return refused(r, id, "the peer refused the crypto session");
	if (r->req->data_out && !fits_out(r, size))
		return too_small(r);
	if (r->req->data_out)
		copy_out(r, r->msg->payload, size);
	r->req->result[0] = id;
	return 0;
}

static int take_shmem(const struct reply *r)
{
	struct lv_wire_shmem w;

	if (r->msg->hdr.size != sizeof(w))
		return broken(r, bad_size);
	memcpy(&w, r->msg->payload, sizeof(w));
	if (w.count > sizeof(w.sizes) / sizeof(*w.sizes))
		return broken(r, "more than 256 shared-memory regions");
	if (!fits_out(r, sizeof(w)))
		return too_small(r);
	copy_out(r, &w, sizeof(w));
	r->req->result[0] = w.count;
	return 0;
}

/*
 * Nothing, an acknowledgement, or the request's own payload, depending on the peer's family. The 8 bytes of QEMU's
 * libvhost-user are the first half of the payload: the size that was sent.
 */
static int take_log(const struct reply *r)
{
	uint64_t word;

	switch (r->msg->hdr.size) {
	case sizeof(word):
		memcpy(&word, r->msg->payload, sizeof(word));
		if (word != r->req->arg.log.size)
			return take_ack(r);
		r->req->result[0] = 0;
		return 0;
	case 0:
	case sizeof(struct lv_wire_log):
		r->req->result[0] = 0;
		return 0;
	default:
		return broken(r, bad_size);
	}
}

static int take_raw(const struct reply *r)
{
	if (!fits_out(r, r->msg->hdr.size))
		return too_small(r);
	copy_out(r, r->msg->payload, r->msg->hdr.size);
	r->req->result[0] = r->msg->hdr.flags;
	take_fd(r);
	return 0;
}

static int take(const struct reply *r, const struct lv_op *row, bool log_shmfd)
{
	switch (row->reply) {
	case LIBVHOST_REPLY_ACK:
		return take_ack(r);
	case LIBVHOST_REPLY_OWN_NONE:
		return take_only_fd(r);
	case LIBVHOST_REPLY_OWN_U64:
		return take_u64(r);
	case LIBVHOST_REPLY_OWN_STATE:
		return take_state(r);
	case LIBVHOST_REPLY_OWN_CONFIG:
		return take_config(r);
	case LIBVHOST_REPLY_OWN_INFLIGHT:
		return take_inflight(r);
	case LIBVHOST_REPLY_OWN_CRYPTO:
		return take_crypto(r);
	case LIBVHOST_REPLY_OWN_SHMEM:
		return take_shmem(r);
	case LIBVHOST_REPLY_LOG:
		return log_shmfd ? take_log(r) : take_ack(r);
	default:
		return row->op == LIBVHOST_OP_RAW ? take_raw(r) : broken(r, "reply to a request that has none");
	}
}

/* We never ask for an acknowledgement of what has its own reply, so that NEED_REPLY in an answer is always wrong. */
static const char *check_header(const struct libvhost_req *req, const struct lv_op *row, const struct lv_user_msg *msg)
{
	bool raw = row->op == LIBVHOST_OP_RAW;

	if (msg->hdr.request != (raw ? req->arg.raw.request : row->user))
		return "reply carries another request number";
	if ((msg->hdr.flags & 3) != LV_USER_VERSION)
		return "reply has another protocol version";
	if (!(msg->hdr.flags & LV_USER_F_REPLY))
		return "not a reply";
	if (!raw && msg->hdr.flags & LV_USER_F_NEED_REPLY)
		return "reply asks for a reply";
	if (msg->hdr.size > LV_USER_MAX_PAYLOAD)
		return bad_size;
	if (msg->nfds > row->reply_fds)
		return "reply carries descriptors that the message does not have";
	return NULL;
}

int lv_user_decode_reply(struct libvhost_req *req, const struct lv_user_msg *msg, bool need_reply,
			 const struct lv_user_session *session, const char **why)
{
	const struct lv_op *row = lv_op(req->op);
	struct reply r = {.req = req, .msg = msg, .why = why};

	if (!row || !lv_user_has_reply(req, session, need_reply))
		return broken(&r, "reply to a request that has none");
	*why = check_header(req, row, msg);
	if (*why)
		return -EPROTO;
	return take(&r, row, session->protocol_features >> LIBVHOST_PROTOCOL_F_LOG_SHMFD & 1);
}
