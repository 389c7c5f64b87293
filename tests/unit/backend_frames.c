/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* A back-end whose front-end breaks the framing, the order and the rules of the session. */
#include "frontend.h"

TEST(backend_frames, handshake_of_a_decent_front_end)
{
	struct fake p = fake_new(NULL);

	handshake(&p);
	CHECK_EQ(get_u64(&p, LIBVHOST_OP_GET_QUEUE_NUM), 4);
	CHECK_EQ(get_u64(&p, LIBVHOST_OP_GET_MAX_MEM_SLOTS), 509);
	CHECK_EQ(take_event(&p, LIBVHOST_EVENT_CONNECTED).err, 0);
	fake_free(&p);
}

static struct libvhost_backend_opts quick(void)
{
	return (struct libvhost_backend_opts){.timeout_ms = 50};
}

TEST(backend_frames, r004_unfinished_message_ends_by_the_deadline)
{
	struct libvhost_backend_opts o = quick();
	struct fake p = fake_new(&o);
	const struct wire_hdr hdr = {.request = LIBVHOST_OP_SET_VRING_NUM, .flags = 1, .size = 8};
	struct pollfd fd = {.fd = libvhost_backend_fd(p.b), .events = POLLIN};

	for (size_t part = 1; part < sizeof(hdr) + 1; part += 11) { /* inside the header, and before the payload */
		send_raw(&p, &hdr, part, NULL, 0);
		settle(&p);
		CHECK(!closed(&p));
		CHECK_EQ(poll(&fd, 1, 1000), 1); /* the descriptor wakes the host for it */
		CHECK(closed(&p));
		CHECK_EQ(take_event(&p, LIBVHOST_EVENT_DISCONNECTED).err, -ETIMEDOUT);
		fake_connect(&p);
	}
	handshake(&p);
	fake_free(&p);
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
	uint8_t bytes[64] = {0};
	struct fake p = fake_new(NULL);

	handshake(&p);
	CHECK_EQ(ask(&p, LIBVHOST_OP_SET_VRING_NUM, bytes, 4, NULL, 0), -EINVAL);
	CHECK_EQ(ask(&p, LIBVHOST_OP_SET_VRING_NUM, bytes, 64, NULL, 0), -EINVAL);
	CHECK_EQ(ask(&p, LIBVHOST_OP_SET_MEM_TABLE, bytes, 0, NULL, 0), -EINVAL);
	CHECK_EQ(ask(&p, LIBVHOST_OP_SET_MEM_TABLE, bytes, 7, NULL, 0), -EINVAL);
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

TEST(backend_frames, r015_r016_stray_descriptors_are_closed)
{
	struct fake p = fake_new(NULL);
	struct lv_ledger before;
	int fds[253];

	for (int i = 0; i < 253; i++)
		fds[i] = p.ram;
	handshake(&p);
	before = lv_ledger_take();
	for (int i = 0; i < 10000; i++) {
		CHECK_EQ(ask(&p, 200, NULL, 0, fds, 8), -ENOSYS);
		CHECK_EQ(ask(&p, LIBVHOST_OP_SET_OWNER, NULL, 0, fds, i % 3 ? 1 : 253), -EINVAL);
	}
	CHECK_LEDGER(before);
	for (int i = 0; i < 100; i++) {
		send_msg(&p, LIBVHOST_OP_GET_FEATURES, NEED_REPLY, NULL, 0, fds, i % 2 ? 1 : 253);
		CHECK(closed(&p)); /* a refusal would look like feature bits */
		fake_connect(&p);
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

TEST(backend_frames, r023_descriptors_stay_with_their_message)
{
	struct fake p = fake_new(NULL);
	uint64_t kick = 0;

	handshake(&p);
	for (int i = 0; i < 1000; i++) { /* sent before the back-end looks */
		if (i % 3)
			send_msg(&p, LIBVHOST_OP_SET_OWNER, 0, NULL, 0, NULL, 0);
		else
			send_msg(&p, LIBVHOST_OP_SET_VRING_CALL, 0, &kick, 8, &p.call, 1);
		if (i % 100 == 99)
			settle(&p);
	}
	CHECK_EQ(get_u64(&p, LIBVHOST_OP_GET_QUEUE_NUM), 4);
	fake_free(&p);
}

TEST(backend_frames, r024_front_end_that_never_reads_is_dropped)
{
	struct libvhost_backend_opts o = quick();
	struct fake p = fake_new(&o);
	const struct wire_hdr hdr = {.request = LIBVHOST_OP_GET_FEATURES, .flags = 1};
	struct libvhost_event e = {0};

	for (int i = 0; i < 100000 && e.type != LIBVHOST_EVENT_DISCONNECTED; i++) {
		if (send(p.sock, &hdr, sizeof(hdr), MSG_NOSIGNAL) < 0 && errno == EAGAIN)
			CHECK_EQ(libvhost_backend_dispatch(p.b, 10), 0);
		if (i % 64 == 0)
			CHECK_EQ(libvhost_backend_dispatch(p.b, 0), 0);
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
	struct fake p = fake_new(NULL);

	for (int i = 0; i < 20; i++) {
		send_msg(&p, LIBVHOST_OP_GET_FEATURES, 0, NULL, 0, NULL, 0);
		fake_connect(&p); /* closes before the answer leaves */
	}
	handshake(&p);
	fake_free(&p);
}

TEST(backend_frames, r028_second_front_end_waits_for_its_turn)
{
	struct fake p = fake_new(NULL);
	struct libvhost_transport_opts o = {.size = sizeof(o), .timeout_ms = 1000};
	struct libvhost_req req = {.op = LIBVHOST_OP_GET_FEATURES};
	struct libvhost_transport *t = NULL;
	char path[64], uri[80];
	int second = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	snprintf(path, sizeof(path), "/tmp/libvhost-test-%d.sock", getpid());
	snprintf(uri, sizeof(uri), "user:%s", path);
	CHECK_EQ(libvhost_backend_listen(p.b, path), 0);
	CHECK_EQ(libvhost_backend_listen(p.b, path), -EBUSY);
	CHECK_EQ(libvhost_backend_adopt(p.b, second), -EBUSY);
	CHECK_EQ(libvhost_transport_open(p.ctx, uri, &o, &t), 0);
	CHECK_EQ(libvhost_transport_submit(t, &req, 1, 1000), 0);
	settle(&p);
	CHECK_EQ(libvhost_transport_progress(t), 0); /* parked */
	handshake(&p);				     /* the first is untouched */
	close(p.sock);
	settle(&p);
	settle(&p);
	CHECK_EQ(libvhost_transport_progress(t), 1);
	CHECK(req.result[0] & F30);
	libvhost_transport_free(t);
	p.sock = second;
	settle(&p);
	libvhost_backend_free(p.b);
	CHECK(access(path, F_OK) < 0); /* the socket file went with it */
	p.b = NULL;
	close(second);
	libvhost_ctx_free(p.ctx);
	munmap(p.mem, RAM_BYTES);
	close(p.ram);
	close(p.kick);
	close(p.call);
	close(p.err);
}

TEST(backend_frames, r032_r034_features_must_be_offered_ones)
{
	struct fake p = fake_new(NULL);

	handshake(&p);
	CHECK_EQ(ring_up(&p, 0), 0);
	CHECK_EQ(ask_u64(&p, LIBVHOST_OP_SET_FEATURES, UINT64_MAX), -EINVAL);
	CHECK_EQ(ask_u64(&p, LIBVHOST_OP_SET_FEATURES, F30), -EBUSY); /* while a ring runs */
	CHECK_EQ(ask_u64(&p, LIBVHOST_OP_SET_FEATURES, F30 | F_VERSION), 0);
	CHECK_EQ(ask_u64(&p, LIBVHOST_OP_SET_PROTOCOL_FEATURES, PF(INBAND_NOTIFICATIONS) | PF(REPLY_ACK)), -EINVAL);
	ring_offer(&p);
	CHECK(ring_used(&p, 1));
	fake_free(&p);
}

TEST(backend_frames, gates_need_their_feature)
{
	struct fake p = fake_new(NULL);

	CHECK_EQ(ask_u64(&p, LIBVHOST_OP_SET_PROTOCOL_FEATURES, PF(REPLY_ACK)), 0);
	CHECK_EQ(ask_state(&p, LIBVHOST_OP_SET_VRING_ENABLE, 0, 1), 0); /* as QEMU's network cards have it */
	CHECK_EQ(ask_u64(&p, LIBVHOST_OP_SET_FEATURES, F_VERSION), 0);
	CHECK_EQ(ask_state(&p, LIBVHOST_OP_SET_VRING_ENABLE, 0, 1), -ENOTSUP); /* bit 30 not acknowledged */
	CHECK_EQ(ask(&p, LIBVHOST_OP_RESET_DEVICE, NULL, 0, NULL, 0), -ENOTSUP);
	CHECK_EQ(ask_u64(&p, LIBVHOST_OP_SET_STATUS, 1), -ENOTSUP);
	fake_free(&p);
}

TEST(backend_frames, r030_r085_messages_before_anything_else)
{
	struct fake p = fake_new(NULL);

	CHECK_EQ(ask_u64(&p, LIBVHOST_OP_SET_PROTOCOL_FEATURES, PF(REPLY_ACK)), 0);
	CHECK_EQ(ask_state(&p, LIBVHOST_OP_SET_VRING_NUM, 0, 8), 0);
	CHECK_EQ(ask_addr(&p, 0, UADDR, UADDR + 0x1000, UADDR + 0x2000), -EFAULT); /* no memory yet */
	CHECK_EQ(ask_fd(&p, LIBVHOST_OP_SET_VRING_KICK, 0, p.kick), 0);
	CHECK_EQ(get_base(&p, 0), 0);
	CHECK_EQ(ask_state(&p, LIBVHOST_OP_SET_VRING_NUM, 4, 8), -EINVAL); /* there are four */
	fake_free(&p);
}

TEST(backend_frames, r031_r143_owner_and_resets)
{
	struct fake p = fake_new(NULL);

	handshake(&p);
	CHECK_EQ(ask(&p, LIBVHOST_OP_SET_OWNER, NULL, 0, NULL, 0), 0); /* again: tolerated */
	for (uint32_t op = LIBVHOST_OP_RESET_OWNER; op;
	     op = op == LIBVHOST_OP_RESET_DEVICE ? 0 : LIBVHOST_OP_RESET_DEVICE) {
		memset(p.mem, 0, RAM_BYTES);
		CHECK_EQ(ask_u64(&p, LIBVHOST_OP_SET_FEATURES, F30 | F_VERSION), 0);
		CHECK_EQ(ring_up(&p, 0), 0);
		ring_offer(&p);
		CHECK(ring_used(&p, 1));
		CHECK_EQ(ask(&p, op, NULL, 0, NULL, 0), 0);
		take_event(&p, LIBVHOST_EVENT_STOPPED);
		CHECK_EQ(get_base(&p, 0), 0);
	}
	CHECK_EQ(ask_u64(&p, LIBVHOST_OP_SET_STATUS, 11), 0);
	CHECK_EQ(get_u64(&p, LIBVHOST_OP_GET_STATUS), 3); /* FEATURES_OK does not stick without features */
	CHECK_EQ(ask_u64(&p, LIBVHOST_OP_SET_FEATURES, F30 | F_VERSION), 0);
	CHECK_EQ(ask_u64(&p, LIBVHOST_OP_SET_STATUS, 11), 0);
	CHECK_EQ(get_u64(&p, LIBVHOST_OP_GET_STATUS), 11);
	CHECK_EQ(ask_u64(&p, LIBVHOST_OP_SET_STATUS, 0), 0);
	CHECK_EQ(get_u64(&p, LIBVHOST_OP_GET_STATUS), 0);
	fake_free(&p);
}

/* QEMU 7.2 stops a device in this order, also when the guest is only paused: it goes on where GET_VRING_BASE says. */
TEST(backend_frames, status_0_comes_before_the_end_of_the_rings)
{
	struct fake p = fake_new(NULL);

	handshake(&p);
	CHECK_EQ(ask_u64(&p, LIBVHOST_OP_SET_FEATURES, F30 | F_VERSION), 0);
	CHECK_EQ(ring_up(&p, 0), 0);
	ring_offer(&p);
	CHECK(ring_used(&p, 1));
	CHECK_EQ(ask_u64(&p, LIBVHOST_OP_SET_STATUS, 0), 0);
	take_event(&p, LIBVHOST_EVENT_STOPPED);
	CHECK_EQ(ask_state(&p, LIBVHOST_OP_SET_VRING_ENABLE, 0, 0), 0);
	CHECK_EQ(get_base(&p, 0), 1);
	CHECK_EQ(get_u64(&p, LIBVHOST_OP_GET_STATUS), 0);
	CHECK_EQ(ask_fd(&p, LIBVHOST_OP_SET_VRING_KICK, 0, p.kick), 0);
	ring_offer(&p);
	CHECK(!ring_used(&p, 2)); /* not before it is enabled again */
	CHECK_EQ(ask_state(&p, LIBVHOST_OP_SET_VRING_ENABLE, 0, 1), 0);
	CHECK(ring_used(&p, 2));
	fake_free(&p);
}

/* A script of everything a start says, cut off after each message and inside each. */
static void script(struct fake *p, int messages, size_t cut)
{
	const uint64_t protocol = PF(REPLY_ACK) | PF(MQ) | PF(CONFIGURE_MEM_SLOTS), features = F30 | F_VERSION;
	const uint64_t region[5] = {0, 0, RAM_BYTES, UADDR, 0};
	const uint32_t num[2] = {0, 8}, enable[2] = {0, 1};
	const uint64_t addr[5] = {0, UADDR, UADDR + 0x2000, UADDR + 0x1000, 0}, fd_index = 0;
	const struct {
		uint32_t op, size;
		const void *payload;
		int fd;
	} steps[] = {
		{LIBVHOST_OP_GET_FEATURES, 0, NULL, -1},
		{LIBVHOST_OP_SET_PROTOCOL_FEATURES, 8, &protocol, -1},
		{LIBVHOST_OP_SET_OWNER, 0, NULL, -1},
		{LIBVHOST_OP_SET_FEATURES, 8, &features, -1},
		{LIBVHOST_OP_ADD_MEM_REG, 40, region, p->ram},
		{LIBVHOST_OP_SET_VRING_NUM, 8, num, -1},
		{LIBVHOST_OP_SET_VRING_ADDR, 40, addr, -1},
		{LIBVHOST_OP_SET_VRING_CALL, 8, &fd_index, p->call},
		{LIBVHOST_OP_SET_VRING_KICK, 8, &fd_index, p->kick},
		{LIBVHOST_OP_SET_VRING_ENABLE, 8, enable, -1},
		{LIBVHOST_OP_GET_VRING_BASE, 8, num, -1},
	};

	for (int i = 0; i < messages && i < 11; i++)
		send_msg(p, steps[i].op, 0, steps[i].payload, steps[i].size, &steps[i].fd, steps[i].fd >= 0);
	settle(p);
	if (messages < 11) {
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
	struct fake p = fake_new(NULL);

	for (int messages = 0; messages <= 11; messages++)
		for (size_t cut = 0; cut < 52; cut += cut < 12 ? 5 : 13) {
			script(&p, messages, cut);
			fake_connect(&p);
		}
	handshake(&p);
	CHECK_EQ(ring_up(&p, 0), 0);
	memset(p.mem, 0, 0x4000);
	fake_free(&p);
}
