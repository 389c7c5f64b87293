/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* The golden table, read in both directions by both roles. */
#include "protocol_golden.h"

#include <errno.h>
#include "protocol_hex.h"

enum { FD = 7, OUT_FD = 9, ROOM = 8192 };

/* One entry made concrete. */
struct instance {
	const struct golden *g;
	struct lv_user_session session;
	struct libvhost_req req;
	uint8_t in[2048], out[ROOM], wire[ROOM], reply[ROOM];
	uint32_t wire_len, reply_len;
};

static void instantiate(struct instance *x, const struct golden *g)
{
	memset(x, 0, sizeof(*x));
	x->g = g;
	x->session.protocol_features = ALL_FEATURES ^ g->flip;
	x->req = g->req;
	x->wire_len = hex(g->wire, x->wire, sizeof(x->wire));
	x->reply_len = hex(g->reply, x->reply, sizeof(x->reply));
	x->req.data_in_len = hex(g->in, x->in, sizeof(x->in));
	if (g->in)
		x->req.data_in = (uintptr_t)x->in;
	if (g->regions) {
		x->req.arg.table = (struct libvhost_req_table){.count = 2, .stride = sizeof(struct libvhost_region)};
		x->req.data_in = (uintptr_t)golden_regions;
		x->req.data_in_len = sizeof(golden_regions);
	}
	if (g->out) {
		x->req.data_out = (uintptr_t)x->out;
		x->req.data_out_cap = sizeof(x->out);
	}
	if (g->fd) {
		x->req.flags = LIBVHOST_REQ_HAS_FD;
		x->req.fd = FD;
	}
}

static struct lv_user_msg message(const uint8_t *bytes, uint32_t len, const int *fds, uint32_t nfds)
{
	struct lv_user_msg m = {
		.hdr = lv_user_hdr_get(bytes), .payload = bytes + LV_USER_HDR, .fds = fds, .nfds = nfds};

	CHECK_EQ(m.hdr.size + LV_USER_HDR, len);
	return m;
}

#define FOR_EACH(x)                                                                                                    \
	for (size_t lv_n = 0; little_endian() && lv_n < GOLDEN_COUNT && (instantiate(&(x), &golden[lv_n]), true);      \
	     lv_n++)

TEST(protocol_golden, has_every_message)
{
	for (uint32_t op = 0; op < 256; op++) {
		const struct lv_op *row = lv_op(op);
		bool found = !row || (!row->user && op != LIBVHOST_OP_RAW);

		for (size_t i = 0; i < GOLDEN_COUNT && !found; i++)
			found = golden[i].req.op == op;
		if (!found)
			lv_test_fail(__FILE__, __LINE__, "%s has no golden message", row->name);
	}
}

TEST(protocol_golden, requests_are_rendered_for_humans)
{
	struct instance x;
	char text[200];

	FOR_EACH(x)
	{
		libvhost_req_text(&x.req, text, sizeof(text));
		CHECK_STR(text, x.g->text);
	}
}

TEST(protocol_golden, requests_are_encoded)
{
	struct instance x;

	FOR_EACH(x)
	{
		const struct libvhost_req before = x.req;
		uint8_t buf[ROOM];
		int fds[LV_USER_MAX_FDS];
		uint32_t nfds = 99;
		const char *why = NULL;

		CHECK_EQ(lv_user_encode(&x.req, &x.session, LV_USER_F_NEED_REPLY, buf, x.wire_len, fds, &nfds, &why),
			 x.wire_len);
		CHECK_MEM(buf, x.wire, x.wire_len);
		CHECK_MEM(&x.req, &before, sizeof(before));
		CHECK_EQ(nfds, x.g->regions ? 2 : x.g->fd);
		if (nfds)
			CHECK_EQ(fds[0], 7);
		if (nfds == 2)
			CHECK_EQ(fds[1], 8);
		CHECK_EQ(lv_user_encode(&x.req, &x.session, 0, buf, x.wire_len - 1, fds, &nfds, &why), -EMSGSIZE);
	}
}

TEST(protocol_golden, requests_are_decoded)
{
	static uint64_t scratch[LV_USER_SCRATCH / 8];
	struct instance x;

	FOR_EACH(x)
	{
		const int fds[2] = {7, 8};
		struct lv_user_msg m = message(x.wire, x.wire_len, fds, x.g->regions ? 2 : x.g->fd);
		struct libvhost_req r;
		const char *why = NULL;

		if (x.req.op == LIBVHOST_OP_RAW)
			continue;
		memset(&r, 0xee, sizeof(r));
		CHECK_EQ(lv_user_decode(&r, &m, x.req.op > LV_OP_BACKEND, &x.session, scratch, sizeof(scratch), &why),
			 0);
		CHECK_EQ(r.op, x.req.op);
		CHECK_EQ(r.flags, x.req.flags);
		CHECK_EQ(r.index, x.req.index);
		CHECK_EQ(r.fd, x.req.fd);
		CHECK_MEM(&r.arg, &x.req.arg, sizeof(r.arg));
		CHECK_EQ(r.data_in_len, x.req.data_in_len);
		if (!(x.g->regions && !x.g->flip)) /* without XEN_MMAP the second region's xen fields are not sent */
			CHECK_MEM((uintptr_t)r.data_in, (uintptr_t)x.req.data_in, r.data_in_len);
		CHECK_EQ(r.result[0] | r.result[1] | r.out_flags | r.state, 0);
	}
}

/* The receiver's request after its handler has run. */
static void handled(struct instance *x)
{
	memcpy(x->req.result, x->g->result, sizeof(x->req.result));
	x->req.data_out_len = hex(x->g->out, x->out, sizeof(x->out));
	if (x->g->reply_fd) {
		x->req.out_flags = LIBVHOST_REQ_OUT_FD;
		x->req.out_fd = OUT_FD;
	}
}

TEST(protocol_golden, replies_are_encoded)
{
	struct instance x;

	FOR_EACH(x)
	{
		uint8_t buf[ROOM];
		int fds[LV_USER_MAX_FDS];
		uint32_t nfds = 99;

		if (x.req.op == LIBVHOST_OP_RAW)
			continue;
		handled(&x);
		CHECK_EQ(lv_user_encode_reply(&x.req, &x.session, true, buf, x.reply_len, fds, &nfds), x.reply_len);
		CHECK_MEM(buf, x.reply, x.reply_len);
		CHECK_EQ(nfds, x.g->reply_fd);
		if (nfds)
			CHECK_EQ(fds[0], OUT_FD);
		CHECK_EQ(lv_user_encode_reply(&x.req, &x.session, true, buf, x.reply_len - 1, fds, &nfds), -EINVAL);
	}
}

TEST(protocol_golden, replies_are_decoded)
{
	struct instance x;

	FOR_EACH(x)
	{
		const int fds[1] = {OUT_FD};
		struct lv_user_msg m = message(x.reply, x.reply_len, fds, x.g->reply_fd);
		uint8_t expected[ROOM];
		uint32_t len = hex(x.g->out, expected, sizeof(expected));
		const char *why = NULL;

		CHECK(lv_user_has_reply(&x.req, &x.session, true));
		CHECK_EQ(lv_user_decode_reply(&x.req, &m, true, &x.session, &why), 0);
		CHECK_EQ(x.req.result[0], x.g->result[0]);
		CHECK_EQ(x.req.result[1], x.g->result[1]);
		CHECK_EQ(x.req.data_out_len, len);
		CHECK_MEM(x.out, expected, len);
		CHECK_EQ(x.req.out_flags, x.g->reply_fd ? LIBVHOST_REQ_OUT_FD : 0);
		if (x.g->reply_fd)
			CHECK_EQ(x.req.out_fd, OUT_FD);
	}
}

TEST(protocol_golden, acknowledgements_only_when_asked_for)
{
	struct lv_user_session no_ack = {.protocol_features = ALL_FEATURES & ~(1ull << LIBVHOST_PROTOCOL_F_REPLY_ACK)};
	struct libvhost_req req = {OP(SET_OWNER)};
	uint8_t buf[64];
	int fds[LV_USER_MAX_FDS];
	uint32_t nfds;
	const char *why = NULL;

	CHECK(!lv_user_has_reply(&req, &no_ack, true));
	CHECK_EQ(lv_user_encode(&req, &no_ack, LV_USER_F_NEED_REPLY, buf, sizeof(buf), fds, &nfds, &why), 12);
	CHECK_EQ(lv_user_hdr_get(buf).flags, 1);
	CHECK_EQ(lv_user_encode_reply(&req, &no_ack, true, buf, sizeof(buf), fds, &nfds), 0);
	no_ack.protocol_features = ALL_FEATURES;
	CHECK(!lv_user_has_reply(&req, &no_ack, false));
	CHECK_EQ(lv_user_encode_reply(&req, &no_ack, false, buf, sizeof(buf), fds, &nfds), 0);
}
