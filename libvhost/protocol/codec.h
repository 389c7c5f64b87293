/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/*
 * vhost-user wire format <-> struct libvhost_req, both directions, both roles. Pure: no I/O, no allocation, no
 * ownership changes. Strict writer, tolerant reader: reply variants in the field are accepted (see each function),
 * garbage is refused with a reason.
 */
#ifndef LV_PROTOCOL_CODEC_H
#define LV_PROTOCOL_CODEC_H

#include <stdbool.h>
#include <stddef.h>
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
#define LV_OP_BACKEND 64u /* back-end request n is operation 64 + n */
/* lv_op.ioctl_arg: see ioctl.h. */
enum {
	LV_IARG_NONE,
	LV_IARG_U64,
	LV_IARG_U64_PTR,
	LV_IARG_STATE,
	LV_IARG_ADDR,
	LV_IARG_TABLE,
	LV_IARG_FILE,
	LV_IARG_INT,
	LV_IARG_INT_FD,
	LV_IARG_U32,
	LV_IARG_U16,
	LV_IARG_U8,
	LV_IARG_CONFIG,
	LV_IARG_WORKER,
	LV_IARG_SCSI,
	LV_IARG_FEATURES,
	LV_IARG_RANGE,
	LV_IARG_IOTLB
};

const struct lv_op *lv_op(uint32_t op); /* NULL if unknown */
/* Wire request number -> row; from_backend selects the back-end's number space. NULL if unknown. */
const struct lv_op *lv_op_by_user(uint32_t request, bool from_backend);

/* Header in 12 bytes of the wire. */
void lv_user_hdr_put(void *wire, const struct lv_user_hdr *hdr);
struct lv_user_hdr lv_user_hdr_get(const void *wire);

/*
 * Whether the session allows the operation now: the row's gate and what that feature presupposes. 0, or -ENOTSUP with
 * *why naming what is missing. Neither encode nor decode applies it: how strict a side is, is its own decision.
 */
int lv_user_gate(const struct lv_op *row, const struct lv_user_session *session, const char **why);

/*
 * The rules that hold for the values of a vhost-user request, whoever sends it: ranges, sums that wrap, descriptors.
 * Returns NULL or the rule that is broken. Encoder and decoder both end here, so that we never send what we refuse.
 */
const char *lv_user_check(const struct libvhost_req *req, const struct lv_op *row,
			  const struct lv_user_session *session);

/*
 * Encodes a request (front-end or back-end operation) with header into buf. hdr_flags: LV_USER_F_NEED_REPLY or 0; the
 * flag is dropped where no acknowledgement would follow (no REPLY_ACK, or the message has its own reply). fds[]
 * (LV_USER_MAX_FDS or more) receives borrowed descriptors. Returns total length, or with *why -EINVAL (the request
 * breaks a rule), -EMSGSIZE (cap), -ENOTSUP (a value the wire cannot carry: feature words beyond the first, an
 * operation without message). RAW is sent as given, its flags included.
 */
int lv_user_encode(const struct libvhost_req *req, const struct lv_user_session *session, uint32_t hdr_flags, void *buf,
		   size_t cap, int *fds, uint32_t *nfds, const char **why);

/* Whether a request gets an answer; need_reply: NEED_REPLY is to be in its header. */
bool lv_user_has_reply(const struct libvhost_req *req, const struct lv_user_session *session, bool need_reply);

/*
 * Decodes the answer to req into its result fields (result[], data_out, out_fd borrowed into req->out_fd with OUT_FD:
 * the caller passes ownership by clearing its copy; without OUT_FD it closes what came). Accepts: SET_LOG_BASE answers
 * of 0, 8, 16 bytes; 20/24 byte inflight; zero-payload GET_CONFIG = refusal; crypto sessions of both sizes. Returns 0;
 * -EIO refused (result[0] = raw acknowledgement, where there is one); -EMSGSIZE (*why) data_out is too small; -EPROTO
 * (*why) wrong request, flags, size, content, descriptors. All result fields but result[0] are untouched on failure.
 */
int lv_user_decode_reply(struct libvhost_req *req, const struct lv_user_msg *msg, bool need_reply,
			 const struct lv_user_session *session, const char **why);

/*
 * Decodes a request into req (receiver's side), which is overwritten. Variable parts are written to scratch (at least
 * LV_USER_SCRATCH, 8-aligned): data_in points there (memory tables as struct libvhost_region[], config bytes, crypto
 * session), and so does data_out with a zeroed room of exactly the size of the answer (GET_CONFIG, GET_SHMEM_CONFIG).
 * Descriptors are borrowed: req->fd or the regions' fd; the caller closes all of msg->fds in the end. A descriptor
 * beside "no descriptor" (SET_VRING_*) or on REM_MEM_REG is accepted and not passed on. SET_CONFIG flags 2 (rust-vmm's
 * number) become 1, live migration. Returns 0; with *why: -ENOSYS
 * unknown request; -EBADMSG content refused but framing intact (NAK): size or descriptors do not fit the message, value
 * out of range, sum wraps; -EPROTO framing not trustworthy (close): version, REPLY bit, size beyond
 * LV_USER_MAX_PAYLOAD. On failure only op and index mean anything (op NONE when unknown).
 */
int lv_user_decode(struct libvhost_req *req, const struct lv_user_msg *msg, bool from_backend,
		   const struct lv_user_session *session, void *scratch, size_t scratch_len, const char **why);
#define LV_USER_SCRATCH 8192u

/*
 * Encodes the receiver's answer to a decoded request: own reply from result[], data_out[data_out_len] and out_fd (under
 * OUT_FD), or acknowledgement of req->err when need_reply (0, or the errno as a positive number). A refusal (req->err)
 * of a message with own reply is said as that message says it: empty GET_CONFIG, error number in the status word, no
 * descriptor. Returns length, 0 when no answer is due, or -EINVAL: what req holds cannot be said, as with a refused
 * GET_FEATURES; the caller then closes the connection.
 */
int lv_user_encode_reply(const struct libvhost_req *req, const struct lv_user_session *session, bool need_reply,
			 void *buf, size_t cap, int *fds, uint32_t *nfds);

#endif
