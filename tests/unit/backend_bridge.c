/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* A back-end whose requests all go to the host, and what the host says on the back-end channel. */
#include "frontend.h"

#include <sys/resource.h>
#include "protocol/codec.h"
#include "core/wire.h"

static int answer(void *arg, struct libvhost_req *req)
{
	const uint64_t *offered = arg;

	if (req->op == LIBVHOST_OP_GET_FEATURES)
		req->result[0] = offered[0];
	else if (req->op == LIBVHOST_OP_GET_PROTOCOL_FEATURES)
		req->result[0] = offered[1];
	return 0;
}

static const uint64_t offers[] = {F30 | F_VERSION, PF(MQ) | PF(REPLY_ACK) | PF(BACKEND_REQ) | PF(CONFIG)};
static const struct libvhost_backend_ops ops = {.size = sizeof(ops), .on_request = answer};

/* The front-end's end of a back-end channel. */
static int open_channel(struct fake *p)
{
	int pair[2];

	CHECK_EQ(lv_wire_pair(pair), 0);
	CHECK_EQ(ask(p, LIBVHOST_OP_SET_BACKEND_REQ_FD, NULL, 0, &pair[1], 1), 0);
	close(pair[1]);
	return pair[0];
}

static void put_ack(int sock, uint64_t value, int fd)
{
	uint8_t bytes[LV_USER_HDR + sizeof(value)];
	const struct lv_user_hdr hdr = {
		.request = 2, .flags = LV_USER_VERSION | LV_USER_F_REPLY, .size = sizeof(value)};
	const struct lv_wire_msg msg = {.data = bytes, .len = sizeof(bytes), .nfds = fd >= 0, .fds = {fd}};
	size_t off = 0;

	lv_user_hdr_put(bytes, &hdr);
	memcpy(bytes + LV_USER_HDR, &value, sizeof(value));
	CHECK_EQ(lv_wire_send(sock, &msg, 1, &off), 1);
}

/* An answer that could not be read whole must not become the next request's. */
TEST(backend_bridge, a_torn_answer_closes_the_channel)
{
	const struct libvhost_backend_opts opts = {.ops = &ops, .arg = (void *)(uintptr_t)offers};
	struct libvhost_req req = {.op = LIBVHOST_OP_BACKEND_CONFIG_CHANGE};
	struct rlimit limit, none;
	struct fake p = fake_new(&opts);
	int sock, rc;

	handshake(&p);
	sock = open_channel(&p);
	put_ack(sock, 0, -1);
	CHECK_EQ(libvhost_backend_request(p.b, &req, 100), 0);
	put_ack(sock, 5, -1);
	CHECK(libvhost_backend_request(p.b, &req, 100) < 0);
	put_ack(sock, 0, p.ram);
	CHECK_EQ(getrlimit(RLIMIT_NOFILE, &limit), 0);
	none = limit;
	none.rlim_cur = 3;
	CHECK_EQ(setrlimit(RLIMIT_NOFILE, &none), 0);
	rc = libvhost_backend_request(p.b, &req, 100);
	CHECK_EQ(setrlimit(RLIMIT_NOFILE, &limit), 0);
	CHECK_EQ(rc, -EMFILE);
	CHECK_EQ(libvhost_backend_request(p.b, &req, 100), -ENOTCONN);
	close(sock);
	fake_free(&p);
}

static int answer_inflight(void *arg, struct libvhost_req *req)
{
	struct libvhost_req *seen = arg;

	if (req->op == LIBVHOST_OP_GET_FEATURES) {
		req->result[0] = F30 | F_VERSION;
	} else if (req->op == LIBVHOST_OP_GET_PROTOCOL_FEATURES) {
		req->result[0] = PF(REPLY_ACK) | PF(INFLIGHT_SHMFD);
	} else if (req->op == LIBVHOST_OP_GET_INFLIGHT_FD) {
		req->result[0] = 4096;
		req->out_fd = memfd(4096, 0);
		req->out_flags = LIBVHOST_REQ_OUT_FD;
	} else if (req->op == LIBVHOST_OP_SET_INFLIGHT_FD) {
		*seen = *req;
		CHECK_EQ(lseek(req->fd, 0, SEEK_END), (off_t)RAM_BYTES);
	}
	return 0;
}

static const struct libvhost_backend_ops inflight_ops = {.size = sizeof(inflight_ops), .on_request = answer_inflight};

/* The region is the far peer's: the library neither makes nor maps one. */
TEST(backend_bridge, inflight_goes_through)
{
	struct libvhost_req seen = {0};
	const struct libvhost_backend_opts opts = {.ops = &inflight_ops, .arg = &seen};
	struct fake p = fake_new(&opts);
	uint64_t w[3] = {0, 0, 2 | 128 << 16};
	struct wire_hdr hdr;

	handshake(&p);
	send_msg(&p, LIBVHOST_OP_GET_INFLIGHT_FD, 0, w, sizeof(w), NULL, 0);
	CHECK_EQ(recv_msg(&p, &hdr, w, sizeof(w)), sizeof(w)); /* its descriptor is closed unread */
	CHECK_EQ(w[0], 4096);
	CHECK_EQ(ask(&p, LIBVHOST_OP_SET_INFLIGHT_FD, w, sizeof(w), &p.ram, 1), 0);
	CHECK_EQ(seen.arg.inflight.mmap_size, 4096);
	CHECK_EQ(seen.arg.inflight.num_queues, 2);
	CHECK_EQ(seen.arg.inflight.queue_size, 128);
	fake_free(&p);
}

static int old_peer(void *arg, struct libvhost_req *req)
{
	uint32_t *asked = arg;

	if (req->op == LIBVHOST_OP_GET_FEATURES)
		req->result[0] = F_VERSION;
	if (req->op != LIBVHOST_OP_GET_PROTOCOL_FEATURES && req->op != LIBVHOST_OP_SET_PROTOCOL_FEATURES)
		return 0;
	++*asked;
	return -EINVAL;
}

/* A device offers bit 30 whatever its author says; a bridge may not, and who asks all the same hears what its owner
 * says. */
TEST(backend_bridge, r033_protocol_features_that_bit_30_does_not_announce)
{
	static const struct libvhost_backend_ops old_ops = {.size = sizeof(old_ops), .on_request = old_peer};
	uint32_t asked = 0;
	const struct libvhost_backend_opts bridge = {.ops = &old_ops, .arg = &asked};
	const uint64_t bits = PF(REPLY_ACK);
	struct fake p = fake_new(NULL);

	CHECK(get_u64(&p, LIBVHOST_OP_GET_FEATURES) & F30);
	fake_free(&p);
	p = fake_new(&bridge);
	CHECK(!(get_u64(&p, LIBVHOST_OP_GET_FEATURES) & F30));
	send_msg(&p, LIBVHOST_OP_GET_PROTOCOL_FEATURES, 0, NULL, 0, NULL, 0);
	CHECK(closed(&p)); /* its answer has no room for a refusal */
	fake_connect(&p);
	send_msg(&p, LIBVHOST_OP_SET_PROTOCOL_FEATURES, 0, &bits, sizeof(bits), NULL, 0);
	CHECK(closed(&p)); /* nor has this one, as long as REPLY_ACK is not agreed */
	CHECK_EQ(asked, 2);
	fake_free(&p);
}
