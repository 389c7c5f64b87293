/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* The operation table and everything that looks something up in it. */
#include <errno.h>
#include <string.h>
#include "core/opts.h"
#include "protocol/codec.h"
#include "protocol/uapi.h"

enum {
	GATE_NONE = LV_GATE_NONE,
	GATE_F30_OFFERED = LV_GATE_F30_OFFERED,
	GATE_F30_ACKED = LV_GATE_F30_ACKED,
#define LV_PF(bit, name) GATE_##name = (bit),
#include "protocol/protocol-features.def"
#undef LV_PF
};

/* Indexed by the operation's own number; a hole has no name. */
static const struct lv_op rows[] = {
#define LV_OP(number, op_name, request, kind, answer, fds, needs, from, ioc, iarg, sentence)                           \
	[number] = {.op = (number),                                                                                    \
		    .user = (request),                                                                                 \
		    .payload = LIBVHOST_PAYLOAD_##kind,                                                                \
		    .reply = LIBVHOST_REPLY_##answer,                                                                  \
		    .max_fds = (fds)&0xff,                                                                             \
		    .reply_fds = (fds) >> 8,                                                                           \
		    .gate = GATE_##needs,                                                                              \
		    .inbound = LV_INBOUND_##from,                                                                      \
		    .ioctl_arg = LV_IARG_##iarg,                                                                       \
		    .ioctl_nr = LV_IOC_##ioc,                                                                          \
		    .name = #op_name,                                                                                  \
		    .text = (sentence)},
#include "protocol/ops.def"
#undef LV_OP
};

const struct lv_op *lv_op(uint32_t op)
{
	return op < sizeof(rows) / sizeof(*rows) && rows[op].name ? &rows[op] : NULL;
}

/* Own numbers follow the wire: front-end requests as they are, the back-end's shifted. */
const struct lv_op *lv_op_by_user(uint32_t request, bool from_backend)
{
	const struct lv_op *row =
		request < LV_OP_BACKEND ? lv_op(from_backend ? request + LV_OP_BACKEND : request) : NULL;

	return row && row->user ? row : NULL;
}

/* Features that a feature presupposes, beyond the one in the row. */
static uint64_t prerequisites(const struct lv_op *row)
{
	const uint64_t reply_ack = 1ull << LIBVHOST_PROTOCOL_F_REPLY_ACK;
	const uint64_t backend_req = 1ull << LIBVHOST_PROTOCOL_F_BACKEND_REQ;
	uint64_t need = row->inbound != LV_INBOUND_NONE ? backend_req : 0;

	if (row->payload == LIBVHOST_PAYLOAD_IOTLB)
		need |= reply_ack;
	if (row->gate == LIBVHOST_PROTOCOL_F_INBAND_NOTIFICATIONS)
		need |= reply_ack | backend_req;
	if (row->gate == LIBVHOST_PROTOCOL_F_HOST_NOTIFIER)
		need |= 1ull << LIBVHOST_PROTOCOL_F_BACKEND_SEND_FD;
	return need;
}

static const char *missing_feature(uint64_t missing)
{
#define LV_PF(bit, name)                                                                                               \
	if (missing & 1ull << (bit))                                                                                   \
		return "needs protocol feature " #name ", which is not acknowledged";
#include "protocol/protocol-features.def"
#undef LV_PF
	return "needs a protocol feature that is not acknowledged";
}

int lv_user_gate(const struct lv_op *row, const struct lv_user_session *session, const char **why)
{
	uint64_t missing = prerequisites(row);

	if (!row->user && row->op != LIBVHOST_OP_RAW) {
		*why = "is not a vhost-user message";
		return -ENOTSUP;
	}
	if (row->gate == LV_GATE_F30_OFFERED && !session->f30_offered) {
		*why = "needs feature bit 30 (PROTOCOL_FEATURES), which the back-end does not offer";
		return -ENOTSUP;
	}
	if (row->gate == LV_GATE_F30_ACKED && !session->f30_acked) {
		*why = "needs feature bit 30 (PROTOCOL_FEATURES) in SET_FEATURES";
		return -ENOTSUP;
	}
	if (row->gate >= 0)
		missing |= 1ull << row->gate;
	missing &= ~session->protocol_features;
	if (missing) {
		*why = missing_feature(missing);
		return -ENOTSUP;
	}
	return 0;
}

int libvhost_op_info(uint32_t op, struct libvhost_op_info *info)
{
	const struct lv_op *row = lv_op(op);
	struct libvhost_op_info o;

	if (!info || info->size < sizeof(*info))
		return -EINVAL;
	if (!row)
		return -ENOENT;
	o = (struct libvhost_op_info){.op = row->op,
				      .user_request = row->user ? (int32_t)row->user : -1,
				      .protocol_bit = row->gate >= 0 ? row->gate : -1,
				      .ioctl_nr = row->ioctl_nr,
				      .payload = row->payload,
				      .reply = row->reply,
				      .max_fds = row->max_fds,
				      .name = row->name,
				      .text = row->text};
	if (row->inbound != LV_INBOUND_NONE)
		o.flags |= LIBVHOST_OP_FROM_BACKEND;
	if (row->reply_fds)
		o.flags |= LIBVHOST_OP_REPLY_FD;
	return LV_OUT_WRITE(info, &o);
}

const char *libvhost_op_name(uint32_t op)
{
	const struct lv_op *row = lv_op(op);

	return row ? row->name : "?";
}

uint32_t libvhost_op_by_name(const char *name)
{
	for (uint32_t op = 0; name && op < sizeof(rows) / sizeof(*rows); op++)
		if (rows[op].name && !strcmp(rows[op].name, name))
			return op;
	return LIBVHOST_OP_NONE;
}
