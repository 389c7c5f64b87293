/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* A back-end whose front-end breaks the framing, or dies inside it. */
#include "frontend.h"

TEST(backend_frames, r004_unfinished_message_ends_by_the_deadline)
{
	const struct libvhost_backend_opts o = {.timeout_ms = 500}; /* it has to be open still when we look */
	struct fake other = fake_new(NULL), p;
	const struct wire_hdr hdr = {.request = LIBVHOST_OP_SET_VRING_NUM, .flags = 1, .size = 8};
	struct pollfd fd = {.events = POLLIN};

	handshake(&other);
	p = fake_new(&o);
	fd.fd = libvhost_backend_fd(p.b);
	for (size_t part = 1; part < sizeof(hdr) + 1; part += 11) { /* inside the header, and before the payload */
		send_raw(&p, &hdr, part, NULL, 0);
		settle(&p);
		CHECK(!closed(&p));
		CHECK_EQ(get_u64(&other, LIBVHOST_OP_GET_QUEUE_NUM), 4); /* this thread serves others meanwhile */
		CHECK_EQ(poll(&fd, 1, PATIENCE_MS), 1);			 /* the descriptor wakes the host for it */
		CHECK(closed(&p));
		CHECK_EQ(take_event(&p, LIBVHOST_EVENT_DISCONNECTED).err, -ETIMEDOUT);
		fake_connect(&p);
	}
	handshake(&p);
	fake_free(&p);
	fake_free(&other);
}

TEST(backend_frames, r006_r007_r012_broken_framing_closes)
{
	static const struct wire_hdr bad[] = {
		{.request = 1, .flags = 1, .size = 0xffffffff},
		{.request = 1, .flags = 1, .size = 4097},
		{.request = 1, .flags = 1 | 4}, /* a reply */
		{.request = 1, .flags = 0},	/* version 0 */
		{.request = 1, .flags = 2},
	};
	struct fake p = fake_new(NULL);

	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		send_raw(&p, &bad[i], sizeof(bad[i]), &p.ram, 1);
		CHECK(closed(&p));
		CHECK_EQ(take_event(&p, LIBVHOST_EVENT_DISCONNECTED).err, -EPROTO);
		fake_connect(&p);
		handshake(&p);
	}
	fake_free(&p);
}

TEST(backend_frames, r007_largest_frame_is_judged_by_content)
{
	static uint8_t zero[4096];
	struct fake p = fake_new(NULL);

	handshake(&p);
	CHECK_EQ(ask(&p, 200, zero, sizeof(zero), NULL, 0), -ENOSYS);
	CHECK_EQ(get_u64(&p, LIBVHOST_OP_GET_QUEUE_NUM), 4); /* and the stream is in step */
	fake_free(&p);
}

TEST(backend_frames, r008_r009_r010_wrong_sizes_are_refused_in_step)
{
	const uint32_t state[16] = {0, 8}; /* good as far as the right size goes */
	const uint64_t features = F30 | F_VERSION;
	struct fake p = fake_new(NULL);

	handshake(&p);
	CHECK_EQ(ask(&p, LIBVHOST_OP_SET_VRING_NUM, state, 4, NULL, 0), -EINVAL);
	CHECK_EQ(ask(&p, LIBVHOST_OP_SET_VRING_ENABLE, state, 4, NULL, 0), -EINVAL); /* zeros behind it would do */
	CHECK_EQ(ask(&p, LIBVHOST_OP_SET_FEATURES, &features, 4, NULL, 0), -EINVAL);
	CHECK_EQ(ask(&p, LIBVHOST_OP_SET_VRING_NUM, state, 64, NULL, 0), -EINVAL);
	CHECK_EQ(ask(&p, LIBVHOST_OP_SET_MEM_TABLE, state, 0, NULL, 0), -EINVAL);
	CHECK_EQ(ask(&p, LIBVHOST_OP_SET_MEM_TABLE, state, 7, NULL, 0), -EINVAL);
	CHECK_EQ(ring_up(&p, 0), 0); /* the table is still there */
	fake_free(&p);
}

TEST(backend_frames, r014_unknown_requests_are_refused)
{
	static const uint32_t unknown[] = {0, 45, 0x80000000, 0xffffffff};
	struct fake p = fake_new(NULL);

	handshake(&p);
	for (size_t i = 0; i < sizeof(unknown) / sizeof(*unknown); i++)
		CHECK_EQ(ask(&p, unknown[i], NULL, 0, NULL, 0), -ENOSYS);
	for (size_t i = 0; i < sizeof(unknown) / sizeof(*unknown); i++) {
		send_msg(&p, unknown[i], 0, NULL, 0, NULL, 0);
		CHECK(closed(&p)); /* nobody asked for an answer: there is no other way to say no */
		fake_connect(&p);
	}
	fake_free(&p);
}

/* No device of ours is behind an IOMMU: each translation is refused, one that would be right as well. */
TEST(backend_frames, r138_translations_are_refused)
{
	struct {
		uint64_t iova, size, uaddr;
		uint8_t perm, type, zero[6];
	} const said[] = {
		{0, 4096, UADDR, 3, 2, {0}},
		{0, 0, UADDR, 3, 2, {0}},
		{UINT64_MAX - 4095, 8192, UADDR, 3, 2, {0}},
		{0, 4096, 0, 3, 2, {0}},
		{0, 4096, UADDR, 255, 2, {0}},
		{0, 4096, UADDR, 3, 9, {0}},
		{0, RAM_BYTES, 0, 0, 3, {0}},
	};
	struct fake p = fake_new(NULL);

	handshake(&p);
	CHECK_EQ(ring_up(&p, 0), 0);
	for (size_t i = 0; i < sizeof(said) / sizeof(*said); i++)
		CHECK(ask(&p, LIBVHOST_OP_IOTLB_MSG, &said[i], sizeof(said[i]), NULL, 0) < 0);
	ring_offer(&p);
	CHECK(ring_used(&p, 1));
	fake_free(&p);
}

/* The lowest free descriptor: it rises with the first one that is not closed. */
static int next_fd(void)
{
	int fd = dup(STDIN_FILENO);

	close(fd);
	return fd;
}

TEST(backend_frames, r015_r016_stray_descriptors_are_closed)
{
	static const uint32_t counts[] = {1, 8, 253}, state[2] = {0};
	struct fake p = fake_new(NULL);
	int fds[253], free_fd;

	for (int i = 0; i < 253; i++)
		fds[i] = p.ram;
	handshake(&p);
	free_fd = next_fd();
	for (int i = 0; i < 10000; i++) {
		CHECK_EQ(ask(&p, 200, NULL, 0, fds, 8), -ENOSYS);
		CHECK_EQ(next_fd(), free_fd);
		CHECK_EQ(ask(&p, LIBVHOST_OP_SET_OWNER, NULL, 0, fds, counts[i % 3]), -EINVAL);
		CHECK_EQ(next_fd(), free_fd);
	}
	for (int i = 0; i < 10000; i++) { /* their answers have no room for a refusal, which would look like features */
		const bool base = i & 1;

		send_msg(&p, base ? LIBVHOST_OP_GET_VRING_BASE : LIBVHOST_OP_GET_FEATURES, NEED_REPLY, state,
			 base ? sizeof(state) : 0, fds, counts[i % 3]);
		CHECK(closed(&p));
		fake_connect(&p);
		CHECK_EQ(next_fd(), free_fd);
	}
	fake_free(&p);
}

TEST(backend_frames, r020_descriptors_on_both_halves_of_a_header)
{
	const struct wire_hdr hdr = {.request = LIBVHOST_OP_SET_OWNER, .flags = 1};
	struct fake p = fake_new(NULL);
	int fds[3] = {p.ram, p.ram, p.ram};

	send_raw(&p, &hdr, 6, fds, 2);
	send_raw(&p, (const uint8_t *)&hdr + 6, 6, fds, 3);
	CHECK(closed(&p));
	fake_free(&p);
}

/* Checks that a message says the same as the counter of the descriptor that came with it. */
static int compare(void *arg, struct libvhost_req *req)
{
	uint32_t *seen = arg;
	uint64_t count = 0;

	if (req->op == LIBVHOST_OP_SET_VRING_NUM) {
		CHECK(!(req->flags & LIBVHOST_REQ_HAS_FD));
		count = req->arg.num;
	} else if (req->op == LIBVHOST_OP_SET_VRING_CALL) {
		CHECK(req->flags & LIBVHOST_REQ_HAS_FD);
		CHECK_EQ(eventfd_read(req->fd, &count), 0);
		CHECK_EQ(req->index, count % 256);
	}
	CHECK_EQ(count, ++*seen);
	return 0;
}

TEST(backend_frames, r023_descriptors_stay_with_their_message)
{
	static const struct libvhost_backend_ops ops = {.size = sizeof(ops), .on_request = compare};
	const struct wire_hdr hdr = {.request = LIBVHOST_OP_SET_VRING_NUM, .flags = 1, .size = 8};
	uint32_t seen = 0;
	const struct libvhost_backend_opts o = {.ops = &ops, .arg = &seen, .num_queues = 256};
	struct fake p = fake_new(&o);

	for (uint32_t i = 1; i <= 1000; i += 3) { /* two in one write, and one by itself with a descriptor */
		uint8_t two[2 * (sizeof(hdr) + 8)];
		uint64_t index = (i + 2) % 256;
		int fd = eventfd(i + 2, EFD_CLOEXEC);

		for (uint32_t k = 0; k < 2; k++) {
			const uint32_t state[2] = {0, i + k};

			memcpy(two + k * 20, &hdr, sizeof(hdr));
			memcpy(two + k * 20 + 12, state, sizeof(state));
		}
		send_raw(&p, two, sizeof(two), NULL, 0);
		send_msg(&p, LIBVHOST_OP_SET_VRING_CALL, 0, &index, 8, &fd, 1);
		close(fd);
		if (i % 150 == 1) /* as many before it looks as the socket takes */
			settle(&p);
	}
	settle(&p);
	CHECK_EQ(seen, 1002);
	fake_free(&p);
}

TEST(backend_frames, r024_front_end_that_never_reads_is_dropped)
{
	const struct libvhost_backend_opts o = {.timeout_ms = 50};
	struct fake p = fake_new(&o);
	const struct wire_hdr hdr = {.request = LIBVHOST_OP_GET_FEATURES, .flags = 1};
	struct libvhost_event e = {0};
	struct lv_ledger before;

	lv_test_deadline(60);
	before = lv_ledger_take();
	for (int i = 0; i < 100000 && e.type != LIBVHOST_EVENT_DISCONNECTED; i++) {
		if (send(p.sock, &hdr, sizeof(hdr), MSG_NOSIGNAL) < 0 && errno == EAGAIN) {
			CHECK(lv_ledger_take().heap <= before.heap + 65536); /* what waits is bounded */
			usleep(10000);
		}
		if (i % 64 == 0 || errno == EAGAIN) {
			const uint64_t begin = now_ms();

			CHECK_EQ(libvhost_backend_dispatch(p.b, 0), 0);
			CHECK(now_ms() - begin < PROMPT_MS); /* the loop goes on */
			errno = 0;
		}
		libvhost_backend_next_event(p.b, &e);
	}
	CHECK_EQ(e.err, -ETIMEDOUT);
	fake_free(&p);
}

TEST(backend_frames, r025_last_answer_reaches_a_front_end_that_stopped_sending)
{
	uint64_t features = 0;
	struct wire_hdr hdr;
	struct fake p = fake_new(NULL);

	send_msg(&p, LIBVHOST_OP_GET_FEATURES, 0, NULL, 0, NULL, 0);
	shutdown(p.sock, SHUT_WR);
	CHECK_EQ(recv_msg(&p, &hdr, &features, sizeof(features)), 8);
	CHECK(closed(&p));
	CHECK_EQ(take_event(&p, LIBVHOST_EVENT_DISCONNECTED).err, -ECONNRESET);
	fake_free(&p);
}

TEST(backend_frames, r027_front_end_that_leaves_at_once_kills_nobody)
{
	static const uint8_t config[60] = {1};
	const struct libvhost_backend_opts o = {.config = config, .config_len = sizeof(config)};
	const uint8_t request[12 + 60] = {[4] = 60};
	struct fake p = fake_new(&o);

	for (int i = 0; i < 20; i++) { /* SIGPIPE stands at its default */
		CHECK_EQ(ask_u64(&p, LIBVHOST_OP_SET_PROTOCOL_FEATURES, PF(CONFIG) | PF(REPLY_ACK)), 0);
		send_msg(&p, LIBVHOST_OP_GET_CONFIG, 0, request, sizeof(request), NULL, 0);
		fake_connect(&p); /* closes before the answer leaves */
		CHECK(take_event(&p, LIBVHOST_EVENT_DISCONNECTED).err < 0);
	}
	handshake(&p);
	fake_free(&p);
}

#define MESSAGES 21
#define HIGH	 0x100000000ull

/* A script of everything a start says, cut off after each message and inside each. */
static void script(struct fake *p, int channel, int messages, size_t cut)
{
	const uint64_t protocol = PF(REPLY_ACK) | PF(MQ) | PF(CONFIGURE_MEM_SLOTS) | PF(CONFIG) | PF(BACKEND_REQ) |
				  PF(INFLIGHT_SHMFD) | PF(LOG_SHMFD);
	const uint64_t features = F30 | F_VERSION, region[5] = {0, HIGH, RAM_BYTES, UADDR + HIGH, 0};
	const uint64_t inflight[3] = {1024, 0x80000, 1 | 8 << 16};
	const uint32_t num[2] = {0, 8}, base[2] = {0, 0}, enable[2] = {0, 1};
	const uint64_t addr[5] = {0, UADDR, UADDR + 0x2000, UADDR + 0x1000, 0}, fd_index = 0;
	const uint64_t table[5] = {1, 0, RAM_BYTES, UADDR, 0}, log[2] = {4096, 0};
	const uint8_t config[12 + 8] = {[4] = 8};
	const struct {
		uint32_t op, size;
		const void *payload;
		int fd;
	} steps[MESSAGES] = {
		{LIBVHOST_OP_GET_FEATURES, 0, NULL, -1},
		{LIBVHOST_OP_GET_PROTOCOL_FEATURES, 0, NULL, -1},
		{LIBVHOST_OP_SET_PROTOCOL_FEATURES, 8, &protocol, -1},
		{LIBVHOST_OP_GET_QUEUE_NUM, 0, NULL, -1},
		{LIBVHOST_OP_SET_BACKEND_REQ_FD, 0, NULL, channel},
		{LIBVHOST_OP_GET_CONFIG, sizeof(config), config, -1},
		{LIBVHOST_OP_SET_OWNER, 0, NULL, -1},
		{LIBVHOST_OP_SET_FEATURES, 8, &features, -1},
		{LIBVHOST_OP_SET_LOG_BASE, 16, log, p->ram},
		{LIBVHOST_OP_GET_INFLIGHT_FD, 24, inflight, -1},
		{LIBVHOST_OP_SET_INFLIGHT_FD, 24, inflight, p->ram},
		{LIBVHOST_OP_SET_MEM_TABLE, 40, table, p->ram},
		{LIBVHOST_OP_ADD_MEM_REG, 40, region, p->ram},
		{LIBVHOST_OP_SET_VRING_NUM, 8, num, -1},
		{LIBVHOST_OP_SET_VRING_BASE, 8, base, -1},
		{LIBVHOST_OP_SET_VRING_ADDR, 40, addr, -1},
		{LIBVHOST_OP_SET_VRING_ERR, 8, &fd_index, p->err},
		{LIBVHOST_OP_SET_VRING_CALL, 8, &fd_index, p->call},
		{LIBVHOST_OP_SET_VRING_KICK, 8, &fd_index, p->kick},
		{LIBVHOST_OP_SET_VRING_ENABLE, 8, enable, -1},
		{LIBVHOST_OP_GET_VRING_BASE, 8, num, -1},
	};

	for (int i = 0; i < messages && i < MESSAGES; i++)
		send_msg(p, steps[i].op, 0, steps[i].payload, steps[i].size, &steps[i].fd, steps[i].fd >= 0);
	settle(p);
	if (messages < MESSAGES) {
		struct wire_hdr hdr = {.request = steps[messages].op, .flags = 1, .size = steps[messages].size};
		uint8_t bytes[64];

		memcpy(bytes, &hdr, sizeof(hdr));
		if (hdr.size)
			memcpy(bytes + sizeof(hdr), steps[messages].payload, hdr.size);
		if (cut && cut < sizeof(hdr) + hdr.size)
			send_raw(p, bytes, cut, &steps[messages].fd, steps[messages].fd >= 0);
	}
}

TEST(backend_frames, r038_death_after_and_inside_every_message)
{
	static const uint8_t space[8] = {1};
	const struct libvhost_backend_opts o = {.config = space, .config_len = sizeof(space)};
	struct fake p = fake_new(&o);
	struct libvhost_event e;
	int pair[2];

	CHECK_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	for (int messages = 0; messages <= MESSAGES; messages++)
		for (size_t cut = 0; cut < 52; cut += cut < 12 ? 5 : 13) {
			bool started = false;

			script(&p, pair[1], messages, cut);
			fake_connect(&p);
			while (libvhost_backend_next_event(p.b, &e) == 1)
				started |= e.type == LIBVHOST_EVENT_STARTED;
			CHECK_EQ(started, messages >= MESSAGES - 1); /* none of them was refused */
		}
	close(pair[0]);
	close(pair[1]);
	memset(p.mem, 0, RAM_BYTES);
	/* a fresh device: nobody asked for acknowledgements, there are no features and no size */
	CHECK_EQ(ask(&p, LIBVHOST_OP_SET_OWNER, NULL, 0, NULL, 0), 2);
	CHECK_EQ(ask_u64(&p, LIBVHOST_OP_SET_PROTOCOL_FEATURES, PF(REPLY_ACK) | PF(STATUS)), 0);
	CHECK_EQ(ask_u64(&p, LIBVHOST_OP_SET_STATUS, 11), 0);
	CHECK_EQ(get_u64(&p, LIBVHOST_OP_GET_STATUS), 3); /* FEATURES_OK would stick with features */
	CHECK_EQ(ask_addr(&p, 0, UADDR, UADDR + 0x1000, UADDR + 0x2000), -EINVAL);
	handshake(&p);
	CHECK_EQ(ring_up(&p, 0), 0);
	ring_offer(&p);
	CHECK(ring_used(&p, 1));
	fake_free(&p);
}

/* Without acknowledgements the end of the connection is the answer; whoever reads the error knows which bit it was. */
TEST(backend_frames, a_feature_that_was_not_offered_is_named)
{
	struct fake p = fake_new(NULL);
	struct libvhost_error e = {.size = sizeof(e)};
	const uint64_t features = F_VERSION | 1ull << 29;

	send_msg(&p, LIBVHOST_OP_SET_FEATURES, 0, &features, sizeof(features), NULL, 0);
	CHECK(closed(&p));
	CHECK_EQ(libvhost_backend_error(p.b, &e), 0);
	CHECK_HAS(e.text, "SET_FEATURES: VIRTIO_F_EVENT_IDX (bit 29) was not offered");
	CHECK_HAS(take_event(&p, LIBVHOST_EVENT_DISCONNECTED).text, "(bit 29) was not offered");
	fake_free(&p);
}

/* DPDK's virtio_user as a server tells each back-end position 0; nothing is in flight without a region. */
TEST(backend_frames, a_ring_goes_on_at_its_used_index_whatever_the_base_says)
{
	struct fake p = fake_new(NULL);

	handshake(&p);
	atomic_store((_Atomic uint16_t *)(void *)(p.mem + 0x1002), 65533); /* available */
	atomic_store((_Atomic uint16_t *)(void *)(p.mem + 0x2002), 65533); /* used */
	CHECK_EQ(ring_up(&p, 0), 0);
	for (uint16_t n = 65534; n != 5; n++) {
		ring_offer(&p);
		CHECK(ring_used(&p, n));
	}
	CHECK_EQ(get_base(&p, 0), 4);
	fake_free(&p);
}
