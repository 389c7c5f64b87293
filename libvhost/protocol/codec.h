/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/*
 * vhost-user wire format <-> struct libvhost_req, both directions, both roles. Pure: no I/O, no allocation, no
 * ownership changes. Strict writer, tolerant reader: reply variants in the field are accepted (see each function),
 * garbage is refused with a reason.
 */
#ifndef LV_PROTOCOL_CODEC_H
#define LV_PROTOCOL_CODEC_H

#include <stdbool.h>
#include <vhost/req.h>

#define LV_USER_HDR	     12u
#define LV_USER_VERSION	     1u
#define LV_USER_F_REPLY	     0x4u
#define LV_USER_F_NEED_REPLY 0x8u
#define LV_USER_MAX_PAYLOAD  4096u /* largest payload of any message, and what every known peer accepts */
#define LV_USER_MAX_FDS	     8u

struct lv_user_hdr {
	uint32_t request, flags, size;
};

/* A message in pieces: header and payload bytes, descriptors borrowed. */
struct lv_user_msg {
	struct lv_user_hdr hdr;
	const void *payload;
	const int *fds;
	uint32_t nfds;
};

/* What the codec has to know of the session. */
struct lv_user_session {
	uint64_t protocol_features; /* acknowledged */
	bool f30_offered, f30_acked;
};

/* One row of ops.def. */
struct lv_op {
	uint32_t op, user, payload, reply;
	uint32_t max_fds, reply_fds;
	int32_t gate;	  /* protocol bit, or LV_GATE_* */
	uint32_t inbound; /* LV_INBOUND_* */
	uint32_t ioctl_arg;
	uint64_t ioctl_nr;
	const char *name, *text;
};
enum { LV_GATE_NONE = -1, LV_GATE_F30_OFFERED = -2, LV_GATE_F30_ACKED = -3 };
enum { LV_INBOUND_NONE, LV_INBOUND_LIBRARY, LV_INBOUND_HOST };

const struct lv_op *lv_op(uint32_t op); /* NULL if unknown */
/* Wire request number -> row; from_backend selects the back-end's number space. NULL if unknown. */
const struct lv_op *lv_op_by_user(uint32_t request, bool from_backend);

/* Header in 12 bytes of the wire. */
void lv_user_hdr_put(void *wire, const struct lv_user_hdr *hdr);
struct lv_user_hdr lv_user_hdr_get(const void *wire);

/* Whether the session allows the operation now. 0, or -ENOTSUP with *why naming what is missing. */
int lv_user_gate(const struct lv_op *row, const struct lv_user_session *session, const char **why);

/*
 * Encodes a request (front-end or back-end operation) with header into buf. hdr_flags: LV_USER_F_NEED_REPLY or 0.
 * fds[] (LV_USER_MAX_FDS or more) receives borrowed descriptors. Returns total length, or -EINVAL (*why) / -EMSGSIZE /
 * -ENOTSUP (RAW excepted: a value the wire cannot carry, for example feature words beyond the first).
 */
int lv_user_encode(const struct libvhost_req *req, const struct lv_user_session *session, uint32_t hdr_flags, void *buf,
		   size_t cap, int *fds, uint32_t *nfds, const char **why);

/* Whether a request with these flags gets an answer, and of which kind. */
bool lv_user_has_reply(const struct libvhost_req *req, const struct lv_user_session *session, bool need_reply);

/*
 * Decodes the answer to req into its result fields (result[], data_out, out_fd borrowed into req->out_fd with OUT_FD:
 * the caller passes ownership by clearing its copy). Accepts: SET_LOG_BASE answers of 0, 8, 16 bytes; 20/24 byte
 * inflight; zero-payload GET_CONFIG = refusal. Returns 0; -EIO or the like (refused: req->result[0] = raw ack); -EPROTO
 * (*why): wrong request, flags, size, descriptors.
 */
int lv_user_decode_reply(struct libvhost_req *req, const struct lv_user_msg *msg, bool need_reply,
			 const struct lv_user_session *session, const char **why);

/*
 * Decodes a request into req (receiver's side). Variable parts (memory tables as struct libvhost_region[], config
 * bytes) are written to scratch (at least 8 KiB, 8-aligned) and req->data_in points there. Descriptors are borrowed:
 * req->fd or regions' fd. Returns 0; -ENOSYS unknown request; -EBADMSG (*why): content refused but framing intact
 * (NAK); -EPROTO (*why): framing not trustworthy (close).
 */
int lv_user_decode(struct libvhost_req *req, const struct lv_user_msg *msg, bool from_backend,
		   const struct lv_user_session *session, void *scratch, size_t scratch_len, const char **why);

/*
 * Encodes the receiver's answer to a decoded request: own reply from req->result/data_out/out_fd, or acknowledgement of
 * req->err when need_reply. Returns length, 0 when no answer is due, or -EINVAL.
 */
int lv_user_encode_reply(const struct libvhost_req *req, const struct lv_user_session *session, bool need_reply,
			 void *buf, size_t cap, int *fds, uint32_t *nfds);

/* Renders a request on one line for humans: "SET_VRING_NUM queue 3 num 256". Never fails, NUL-terminates. */
void lv_req_text(const struct libvhost_req *req, char *buf, size_t cap);

#endif
