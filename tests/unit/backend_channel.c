/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* The back-end channel from the device side: front-ends that do not read it, or answer nonsense. */
#include "frontend.h"

#include "core/wire.h"
#include "protocol/codec.h"

#define ALL_PF                                                                                                         \
	(PF(MQ) | PF(REPLY_ACK) | PF(BACKEND_REQ) | PF(CONFIG) | PF(BACKEND_SEND_FD) | PF(HOST_NOTIFIER) |             \
	 PF(INBAND_NOTIFICATIONS) | PF(SHARED_OBJECT) | PF(SHMEM_MAP))

/* The front-end's end of a back-end channel. */
static int open_channel(struct fake *p)
{
	int pair[2];

	CHECK_EQ(lv_wire_pair(pair), 0);
	CHECK_EQ(ask(p, LIBVHOST_OP_SET_BACKEND_REQ_FD, NULL, 0, &pair[1], 1), 0);
	close(pair[1]);
	return pair[0];
}

TEST(backend_channel, r135_changes_that_nobody_reads_never_block)
{
	const uint8_t first[8] = {0};
	const struct libvhost_backend_opts opts = {.config = first, .config_len = sizeof(first)};
	struct fake p = fake_new(&opts);
	uint64_t begin, longest = 0;
	struct lv_user_hdr hdr;
	unsigned messages = 0;
	uint8_t bytes[LV_USER_HDR];
	uint32_t value;
	int sock;

	lv_test_deadline(60);
	handshake(&p);
	sock = open_channel(&p);
	for (uint32_t i = 0; i < 100000; i++) {
		begin = now_us();
		CHECK_EQ(libvhost_backend_set_config(p.b, &i, sizeof(i)), 0);
		longest = now_us() - begin > longest ? now_us() - begin : longest;
	}
	settle(&p);
	CHECK_EQ(ring_up(&p, 0), 0); /* the control connection goes on */
	while (recv(sock, bytes, sizeof(bytes), MSG_DONTWAIT) == (ssize_t)sizeof(bytes)) {
		hdr = lv_user_hdr_get(bytes);
		CHECK(hdr.request == 2 && !hdr.size);
		messages++;
	}
	settle(&p); /* the last change, which found no room */
	messages += recv(sock, bytes, sizeof(bytes), MSG_DONTWAIT) == (ssize_t)sizeof(bytes);
	printf("# 100000 changes, %u messages, longest call %llu us\n", messages, (unsigned long long)longest);
	CHECK(messages && messages < 2000);
	CHECK(longest < 1000000);
	CHECK_EQ(recv(sock, bytes, 1, MSG_DONTWAIT), -1); /* nothing is left over */
	value = 5;
	CHECK_EQ(libvhost_backend_set_config(p.b, &value, sizeof(value)), 0);
	CHECK_EQ(recv(sock, bytes, sizeof(bytes), MSG_DONTWAIT), sizeof(bytes));
	close(sock);
	fake_free(&p);
}

/* ---- the device asks ---- */

static int answer(void *arg, struct libvhost_req *req)
{
	(void)arg;
	if (req->op == LIBVHOST_OP_GET_FEATURES)
		req->result[0] = F30 | F_VERSION;
	else if (req->op == LIBVHOST_OP_GET_PROTOCOL_FEATURES)
		req->result[0] = ALL_PF;
	return 0;
}

static const struct libvhost_backend_ops bridge = {.size = sizeof(bridge), .on_request = answer};
static const struct libvhost_backend_opts bridge_opts = {.ops = &bridge};

static void put_reply(int sock, uint32_t request, uint32_t flags, uint32_t size, uint64_t value, const int *fds,
		      uint32_t nfds)
{
	uint8_t bytes[LV_USER_HDR + sizeof(value)];
	const struct lv_user_hdr hdr = {.request = request, .flags = flags, .size = size};
	struct lv_wire_msg msg = {.data = bytes, .len = LV_USER_HDR + (size < 8 ? size : 8), .nfds = nfds};
	size_t off = 0;

	if (nfds)
		memcpy(msg.fds, fds, nfds * sizeof(*fds));
	lv_user_hdr_put(bytes, &hdr);
	memcpy(bytes + LV_USER_HDR, &value, sizeof(value));
	CHECK_EQ(lv_wire_send(sock, &msg, 1, &off), 1);
}

TEST(backend_channel, r136_a_wrong_answer_costs_the_channel_only)
{
	const uint32_t ok = LV_USER_VERSION | LV_USER_F_REPLY;
	const struct {
		uint32_t request, flags, size, nfds;
	} cases[] = {
		{1, ok, 8, 0},		    /* to another request */
		{2, ok, 0, 0},		    /* empty */
		{2, ok, 4, 0},		    /* short */
		{2, ok, 0xffffffff, 0},	    /* absurd */
		{2, ok, 8, 8},		    /* descriptors */
		{2, LV_USER_VERSION, 8, 0}, /* not a reply */
		{2, ok & ~3u, 8, 0},	    /* not this protocol */
	};

	for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct libvhost_req req = {.op = LIBVHOST_OP_BACKEND_CONFIG_CHANGE};
		struct fake p = fake_new(&bridge_opts);
		int fds[8], sock;

		handshake(&p);
		sock = open_channel(&p);
		for (unsigned n = 0; n < 8; n++)
			fds[n] = p.ram;
		put_reply(sock, cases[i].request, cases[i].flags, cases[i].size, 0, fds, cases[i].nfds);
		CHECK(libvhost_backend_request(p.b, &req, 1000) < 0);
		CHECK_EQ(libvhost_backend_request(p.b, &req, 1000), -ENOTCONN);
		CHECK_EQ(ask_state(&p, LIBVHOST_OP_SET_VRING_NUM, 0, 8), 0);
		close(sock);
		sock = open_channel(&p); /* and a new one works */
		put_reply(sock, 2, ok, 8, 0, NULL, 0);
		CHECK_EQ(libvhost_backend_request(p.b, &req, PATIENCE_MS), 0);
		close(sock);
		fake_free(&p); /* checks descriptors */
	}
}

TEST(backend_channel, r136_an_answer_that_never_comes_is_given_up)
{
	struct libvhost_req req = {.op = LIBVHOST_OP_BACKEND_CONFIG_CHANGE};
	struct fake p = fake_new(&bridge_opts);
	uint64_t begin = now_us();
	int sock;

	lv_test_deadline(60);
	handshake(&p);
	sock = open_channel(&p);
	CHECK_EQ(libvhost_backend_request(p.b, &req, 50), -ETIMEDOUT);
	CHECK(now_us() - begin < 2000000);
	CHECK_EQ(libvhost_backend_request(p.b, &req, 50), -ENOTCONN); /* a late answer would be the next one's */
	close(sock);
	fake_free(&p);
}

/* Everything that a device can say, as it is on the wire. */
TEST(backend_channel, all_requests_are_sent)
{
	struct fake p = fake_new(&bridge_opts);
	const struct {
		struct libvhost_req req;
		uint32_t request, size, nfds;
	} cases[] = {
		{{.op = LIBVHOST_OP_BACKEND_IOTLB_MSG, .arg.iotlb = {.iova = 4096, .perm = 1, .type = 1}}, 1, 32, 0},
		{{.op = LIBVHOST_OP_BACKEND_CONFIG_CHANGE}, 2, 0, 0},
		{{.op = LIBVHOST_OP_BACKEND_VRING_HOST_NOTIFIER,
		  .index = 1,
		  .flags = LIBVHOST_REQ_HAS_FD,
		  .fd = p.ram,
		  .arg.area = {.size = 4096, .offset = 8192}},
		 3,
		 24,
		 1},
		{{.op = LIBVHOST_OP_BACKEND_VRING_HOST_NOTIFIER, .index = 1, .arg.area = {.flags = 0x100}}, 3, 24, 0},
		{{.op = LIBVHOST_OP_BACKEND_VRING_CALL, .index = 3}, 4, 8, 0},
		{{.op = LIBVHOST_OP_BACKEND_VRING_ERR, .index = 3}, 5, 8, 0},
		{{.op = LIBVHOST_OP_BACKEND_SHARED_OBJECT_ADD, .arg.uuid = {1, 2}}, 6, 16, 0},
		{{.op = LIBVHOST_OP_BACKEND_SHARED_OBJECT_REMOVE, .arg.uuid = {1, 2}}, 7, 16, 0},
		{{.op = LIBVHOST_OP_BACKEND_SHARED_OBJECT_LOOKUP, .arg.uuid = {1, 2}}, 8, 16, 0},
		{{.op = LIBVHOST_OP_BACKEND_SHMEM_MAP,
		  .flags = LIBVHOST_REQ_HAS_FD,
		  .fd = p.ram,
		  .arg.mmap = {.shmid = 1, .len = 4096}},
		 9,
		 40,
		 1},
		{{.op = LIBVHOST_OP_BACKEND_SHMEM_UNMAP, .arg.mmap = {.shmid = 1, .len = 4096}}, 10, 40, 0},
	};
	int sock;

	handshake(&p);
	sock = open_channel(&p);
	for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		const bool look_up = cases[i].request == 8;
		struct libvhost_req req = cases[i].req;
		struct lv_wire_in in;
		struct lv_user_hdr hdr;

		put_reply(sock, cases[i].request, LV_USER_VERSION | LV_USER_F_REPLY, 8, 0, &p.call, look_up);
		CHECK_EQ(libvhost_backend_request(p.b, &req, PATIENCE_MS), 0);
		CHECK_EQ(!!(req.out_flags & LIBVHOST_REQ_OUT_FD), look_up);
		if (look_up)
			close(req.out_fd);
		CHECK_EQ(lv_wire_in_init(&in, 4096), 0);
		CHECK_EQ(lv_wire_recv(sock, &in, 4096), LV_USER_HDR + cases[i].size);
		hdr = lv_user_hdr_get(in.buf);
		CHECK_EQ(hdr.request, cases[i].request);
		CHECK_EQ(hdr.size, cases[i].size);
		CHECK_EQ(in.nfds, cases[i].nfds);
		lv_wire_in_destroy(&in);
	}
	close(sock);
	fake_free(&p);
}
