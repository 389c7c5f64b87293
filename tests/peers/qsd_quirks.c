/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* What qemu-storage-daemon 7.2 does in corners, pinned: a change there or here shows. LIBVHOST_QSD_SOCKET names its
 * socket, 60 bytes of configuration. */
#include "check.h"

#include <errno.h>
#include <stdlib.h>
#include <vhost/libvhost.h>

#define VERSION_1 (1ull << 32)
#define F30	  (1ull << 30)

static struct libvhost_transport *open_session(struct libvhost_ctx **ctx)
{
	struct libvhost_req reqs[4] = {
		{.op = LIBVHOST_OP_GET_FEATURES},
		{.op = LIBVHOST_OP_GET_PROTOCOL_FEATURES},
		{.op = LIBVHOST_OP_SET_PROTOCOL_FEATURES,
		 .arg.u64 = 1u << LIBVHOST_PROTOCOL_F_REPLY_ACK | 1u << LIBVHOST_PROTOCOL_F_CONFIG},
		{.op = LIBVHOST_OP_SET_OWNER, .flags = LIBVHOST_REQ_NEED_REPLY}};
	struct libvhost_transport *t = NULL;
	char uri[200];

	CHECK(getenv("LIBVHOST_QSD_SOCKET") != NULL);
	snprintf(uri, sizeof(uri), "user:%s", getenv("LIBVHOST_QSD_SOCKET"));
	CHECK_EQ(libvhost_ctx_new(NULL, ctx), 0);
	CHECK_EQ(libvhost_transport_open(*ctx, uri, NULL, &t), 0);
	CHECK_EQ(libvhost_transport_exec(t, reqs, 1, 0, NULL), 0);
	CHECK_EQ(libvhost_transport_exec(t, reqs + 1, 3, 0, NULL), 0);
	CHECK_EQ(reqs[3].result[0], 0);
	return t;
}

static void close_session(struct libvhost_transport *t, struct libvhost_ctx *ctx)
{
	libvhost_transport_free(t);
	libvhost_ctx_free(ctx);
}

TEST(qsd, refuses_config_beyond_60_bytes_and_lives)
{
	struct libvhost_ctx *ctx;
	struct libvhost_transport *t = open_session(&ctx);
	uint8_t buf[64], untouched[64];
	struct libvhost_req req = {
		.op = LIBVHOST_OP_GET_CONFIG, .data_out = (uintptr_t)buf, .data_out_cap = sizeof(buf)};

	memset(buf, 0x5a, sizeof(buf));
	memset(untouched, 0x5a, sizeof(untouched));
	req.arg.config.size = 61;
	CHECK_EQ(libvhost_transport_exec(t, &req, 1, 0, NULL), -EIO);
	CHECK_MEM(buf, untouched, sizeof(buf));
	req.arg.config.size = 60;
	CHECK_EQ(libvhost_transport_exec(t, &req, 1, 0, NULL), 0);
	CHECK_EQ(req.data_out_len, 60);
	req.arg.config.size = 8;
	CHECK_EQ(libvhost_transport_exec(t, &req, 1, 0, NULL), 0);
	close_session(t, ctx);
}

TEST(qsd, drops_the_connection_on_an_oversized_config_message)
{
	struct libvhost_ctx *ctx;
	struct libvhost_transport *t = open_session(&ctx);
	uint8_t payload[12 + 500] = {0}, answer[512];
	struct libvhost_req req = {.op = LIBVHOST_OP_RAW,
				   .data_in = (uintptr_t)payload,
				   .data_in_len = sizeof(payload),
				   .data_out = (uintptr_t)answer,
				   .data_out_cap = sizeof(answer)};
	int rc;

	req.arg.raw.request = 24;
	req.arg.raw.flags = 1;
	req.arg.raw.reply = 1;
	rc = libvhost_transport_exec(t, &req, 1, 2000, NULL);
	CHECK_EQ(rc, -ECONNRESET);
	CHECK_EQ(req.state, LIBVHOST_REQ_UNKNOWN);
	CHECK_EQ(libvhost_transport_exec(t, &req, 1, 0, NULL), -ENOTCONN);
	close_session(t, ctx);
}

/* It acknowledges the message and then hangs up: a confirmation from this peer is not a promise to live. */
TEST(qsd, drops_the_connection_without_version_1)
{
	struct libvhost_ctx *ctx;
	struct libvhost_transport *t = open_session(&ctx);
	struct libvhost_error e = {.size = sizeof(e)};
	struct libvhost_req reqs[2] = {{.op = LIBVHOST_OP_SET_FEATURES, .arg.u64 = F30},
				       {.op = LIBVHOST_OP_GET_FEATURES}};

	CHECK_EQ(libvhost_transport_set_ack_policy(t, LIBVHOST_ACK_ALL), 0);
	CHECK_EQ(libvhost_transport_exec(t, reqs, 2, 2000, NULL), -ECONNRESET);
	CHECK_EQ(reqs[0].state, LIBVHOST_REQ_DONE);
	CHECK_EQ(libvhost_transport_error(t, &e), 0);
	CHECK_EQ(e.kind, LIBVHOST_EK_DISCONNECTED);
	CHECK_HAS(e.text, "GET_FEATURES");
	close_session(t, ctx);
}

TEST(qsd, serves_one_front_end_and_the_next_waits)
{
	struct libvhost_ctx *ctx, *other_ctx;
	struct libvhost_transport *t = open_session(&ctx), *other = NULL;
	struct libvhost_req req = {.op = LIBVHOST_OP_GET_FEATURES};
	char uri[200];

	snprintf(uri, sizeof(uri), "user:%s", getenv("LIBVHOST_QSD_SOCKET"));
	CHECK_EQ(libvhost_ctx_new(NULL, &other_ctx), 0);
	CHECK_EQ(libvhost_transport_open(other_ctx, uri, NULL, &other), 0);
	CHECK_EQ(libvhost_transport_exec(other, &req, 1, 200, NULL), -ETIMEDOUT);
	close_session(t, ctx);
	/* the late answer belongs to the request that timed out and is not taken for this one's */
	CHECK_EQ(libvhost_transport_exec(other, &req, 1, 5000, NULL), 0);
	CHECK(req.result[0] & VERSION_1);
	close_session(other, other_ctx);
}

TEST(qsd, acknowledges_every_message_of_a_start_under_policy_all)
{
	struct libvhost_ctx *ctx;
	struct libvhost_transport *t = open_session(&ctx);
	struct libvhost_req reqs[3] = {{.op = LIBVHOST_OP_SET_FEATURES, .arg.u64 = VERSION_1 | F30},
				       {.op = LIBVHOST_OP_SET_VRING_NUM, .arg.num = 128},
				       {.op = LIBVHOST_OP_SET_VRING_BASE}};
	uint32_t done = 0;

	CHECK_EQ(libvhost_transport_set_ack_policy(t, LIBVHOST_ACK_ALL), 0);
	CHECK_EQ(libvhost_transport_exec(t, reqs, 3, 0, &done), 0);
	CHECK_EQ(done, 3);
	close_session(t, ctx);
}
