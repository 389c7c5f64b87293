/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/*
 * Any bytes and any number of descriptors as a message: the decoder stays inside what it was given, and what it accepts
 * the encoder can say again with the same meaning.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include "protocol/codec.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct source {
	const uint8_t *at;
	size_t left;
};

static void take(struct source *s, void *to, size_t n)
{
	size_t have = n < s->left ? n : s->left;

	memset(to, 0, n);
	memcpy(to, s->at, have);
	s->at += have;
	s->left -= have;
}

/* The decoded request once more through the encoder; traps when the meaning changed. */
static void say_again(const struct libvhost_req *req, bool from_backend, const struct lv_user_session *session)
{
	_Alignas(8) static uint8_t scratch[LV_USER_SCRATCH];
	static uint8_t wire[LV_USER_HDR + LV_USER_MAX_PAYLOAD];
	struct libvhost_req second;
	struct lv_user_msg msg = {0};
	int fds[LV_USER_MAX_FDS];
	const char *why = NULL;
	int len;

	len = lv_user_encode(req, session, 0, wire, sizeof(wire), fds, &msg.nfds, &why);
	if (len < (int)LV_USER_HDR)
		__builtin_trap();
	msg.hdr = lv_user_hdr_get(wire);
	msg.payload = wire + LV_USER_HDR;
	msg.fds = fds;
	if (lv_user_decode(&second, &msg, from_backend, session, scratch, sizeof(scratch), &why))
		__builtin_trap();
	if (second.op != req->op || second.index != req->index || memcmp(&second.arg, &req->arg, sizeof(req->arg)) ||
	    second.data_in_len != req->data_in_len)
		__builtin_trap();
}

static void decode_reply(struct source *s, const struct lv_user_msg *msg, const struct lv_user_session *session)
{
	uint8_t out[300];
	struct libvhost_req req = {.data_out = (uintptr_t)out, .data_out_cap = sizeof(out)};
	const char *why = NULL;
	uint8_t op;

	take(s, &op, 1);
	take(s, &req.arg, sizeof(req.arg));
	req.op = op;
	if (lv_op(op) && lv_op(op)->user)
		(void)lv_user_decode_reply(&req, msg, op & 1, session, &why);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const int descriptors[16] = {3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18};
	struct source s = {data, size};
	struct lv_user_session session = {0};
	struct lv_user_msg msg = {.fds = descriptors};
	struct libvhost_req req;
	uint8_t head[LV_USER_HDR], what, *payload, *scratch;
	const char *why = NULL;
	char text[200];

	take(&s, &what, 1);
	take(&s, &session.protocol_features, sizeof(session.protocol_features));
	session.f30_offered = session.f30_acked = what & 2;
	msg.nfds = what >> 4;
	take(&s, head, sizeof(head));
	msg.hdr = lv_user_hdr_get(head);
	/* half of the time the size is right, or most inputs would end at that check */
	if (what & 4)
		msg.hdr.size = s.left < LV_USER_MAX_PAYLOAD ? (uint32_t)s.left : LV_USER_MAX_PAYLOAD;
	if (what & 8)
		msg.hdr.flags = LV_USER_VERSION;
	payload = malloc(msg.hdr.size <= LV_USER_MAX_PAYLOAD ? msg.hdr.size : 0);
	scratch = malloc(LV_USER_SCRATCH);
	if (!payload || !scratch)
		abort();
	take(&s, payload, msg.hdr.size <= LV_USER_MAX_PAYLOAD ? msg.hdr.size : 0);
	msg.payload = payload;
	if (!lv_user_decode(&req, &msg, what & 1, &session, scratch, LV_USER_SCRATCH, &why)) {
		libvhost_req_text(&req, text, sizeof(text));
		say_again(&req, what & 1, &session);
	}
	if (msg.hdr.size <= LV_USER_MAX_PAYLOAD)
		decode_reply(&s, &msg, &session);
	free(scratch);
	free(payload);
	return 0;
}
