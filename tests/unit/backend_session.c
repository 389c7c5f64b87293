/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* Who may speak, in which order, and what was agreed: sessions of front-ends that break the rules. */
#include "frontend.h"

TEST(backend_session, handshake_of_a_decent_front_end)
{
	struct fake p = fake_new(NULL);

	handshake(&p);
	CHECK_EQ(get_u64(&p, LIBVHOST_OP_GET_QUEUE_NUM), 4);
	CHECK_EQ(get_u64(&p, LIBVHOST_OP_GET_MAX_MEM_SLOTS), 509);
	CHECK_EQ(take_event(&p, LIBVHOST_EVENT_CONNECTED).err, 0);
	fake_free(&p);
}

TEST(backend_session, r028_second_front_end_waits_for_its_turn)
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
	CHECK_EQ(libvhost_transport_submit(t, &req, 1, PATIENCE_MS), 0);
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

TEST(backend_session, r032_features_must_be_offered_ones)
{
	struct fake p = fake_new(NULL);

	handshake(&p);
	CHECK_EQ(ring_up(&p, 0), 0);
	CHECK_EQ(ask_u64(&p, LIBVHOST_OP_SET_FEATURES, UINT64_MAX), -EINVAL);
	CHECK_EQ(ask_u64(&p, LIBVHOST_OP_SET_FEATURES, F30), -EBUSY); /* while a ring runs */
	CHECK_EQ(ask_u64(&p, LIBVHOST_OP_SET_FEATURES, F30 | F_VERSION), 0);
	ring_offer(&p);
	CHECK(ring_used(&p, 1));
	fake_free(&p);
}

/* The specification has a back-end close the connection: it could not tell in any other way. */
static void inband_without_what_it_needs(const struct libvhost_backend_opts *o, int alone)
{
	const uint64_t inband = PF(INBAND_NOTIFICATIONS), both = PF(BACKEND_REQ) | PF(REPLY_ACK);
	const uint64_t bits[] = {inband, inband | PF(BACKEND_REQ), inband | PF(REPLY_ACK)};
	struct fake p = fake_new(o);

	for (size_t i = 0; i < sizeof(bits) / sizeof(*bits); i++) {
		CHECK_EQ(ask_u64(&p, LIBVHOST_OP_SET_PROTOCOL_FEATURES, both), 0);
		CHECK_EQ(ask_u64(&p, LIBVHOST_OP_SET_PROTOCOL_FEATURES, bits[i]), 1);
		CHECK_EQ(take_event(&p, LIBVHOST_EVENT_DISCONNECTED).err, -EPROTO);
		fake_connect(&p);
	}
	CHECK_EQ(ask_u64(&p, LIBVHOST_OP_SET_PROTOCOL_FEATURES, both), 0);
	CHECK_EQ(ask_u64(&p, LIBVHOST_OP_SET_PROTOCOL_FEATURES, inband | both), alone);
	fake_free(&p);
}

static int agree(void *arg, struct libvhost_req *req)
{
	(void)arg;
	(void)req;
	return 0;
}

TEST(backend_session, r034_protocol_features_must_be_offered_ones)
{
	static const struct libvhost_backend_ops bridge = {.size = sizeof(bridge), .on_request = agree};
	static const struct libvhost_backend_opts bridging = {.ops = &bridge};
	static const uint8_t space[8] = {1}; /* with it comes BACKEND_REQ */
	const struct libvhost_backend_opts o = {.config = space, .config_len = sizeof(space)};
	struct fake p = fake_new(&o);

	handshake(&p);
	for (int bit = 0; bit < 64; bit++) {
		const uint64_t offered = get_u64(&p, LIBVHOST_OP_GET_PROTOCOL_FEATURES), it = 1ull << bit;
		const uint64_t with = it | PF(REPLY_ACK) | PF(BACKEND_REQ) | PF(INFLIGHT_SHMFD);

		CHECK_EQ(ask_u64(&p, LIBVHOST_OP_SET_PROTOCOL_FEATURES, with), offered & it ? 0 : -EINVAL);
	}
	fake_free(&p);
	inband_without_what_it_needs(&o, -EINVAL); /* not offered */
	inband_without_what_it_needs(&bridging, 0);
}

TEST(backend_session, gates_need_their_feature)
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

TEST(backend_session, r030_r085_messages_before_anything_else)
{
	static const uint32_t words[] = {LIBVHOST_OP_SET_VRING_NUM, LIBVHOST_OP_SET_VRING_BASE,
					 LIBVHOST_OP_SET_VRING_ENABLE, LIBVHOST_OP_GET_VRING_BASE};
	static const uint32_t fds[] = {LIBVHOST_OP_SET_VRING_CALL, LIBVHOST_OP_SET_VRING_ERR,
				       LIBVHOST_OP_SET_VRING_KICK};
	const uint64_t addr[5] = {0, UADDR, UADDR + 0x2000, UADDR + 0x1000, 0};
	const uint32_t state[2] = {0, 1};
	const uint64_t index = 0;
	struct libvhost_region ram = {.size = RAM_BYTES, .user_addr = UADDR};
	struct fake p = fake_new(NULL);

	for (size_t i = 0; i < 4; i++) { /* the very first message: it is taken, or the connection ends */
		send_msg(&p, words[i], 0, state, sizeof(state), NULL, 0);
		settle(&p);
		fake_connect(&p);
	}
	for (size_t i = 0; i < 3; i++) {
		send_msg(&p, fds[i], 0, &index, sizeof(index), &p.kick, 1);
		settle(&p);
		fake_connect(&p);
	}
	send_msg(&p, LIBVHOST_OP_SET_VRING_ADDR, 0, addr, sizeof(addr), NULL, 0);
	CHECK(closed(&p));
	fake_connect(&p);
	CHECK_EQ(ask_u64(&p, LIBVHOST_OP_SET_PROTOCOL_FEATURES, PF(REPLY_ACK)), 0);
	CHECK_EQ(ask_addr(&p, 0, UADDR, UADDR + 0x1000, UADDR + 0x2000), -EINVAL); /* no size */
	CHECK_EQ(ask_state(&p, LIBVHOST_OP_SET_VRING_NUM, 0, 8), 0);
	CHECK_EQ(ask_addr(&p, 0, UADDR, UADDR + 0x1000, UADDR + 0x2000), -EFAULT); /* no memory yet */
	CHECK_EQ(ask_state(&p, LIBVHOST_OP_SET_VRING_BASE, 0, 0), 0);
	for (size_t i = 0; i < 3; i++)
		CHECK_EQ(ask_fd(&p, fds[i], 0, p.kick), 0);
	CHECK_EQ(ask_state(&p, LIBVHOST_OP_SET_VRING_ENABLE, 0, 1), 0);
	CHECK_EQ(get_base(&p, 0), 0);
	for (size_t i = 0; i < 3; i++) { /* there are four */
		CHECK_EQ(ask_state(&p, words[i], 4, 1), -EINVAL);
		CHECK_EQ(ask_fd(&p, fds[i], 255, p.kick), -EINVAL);
	}
	ram.fd = p.ram;
	CHECK_EQ(ask_table(&p, &ram, 1, 1), 0);
	CHECK_EQ(ring_up(&p, 0), 0);
	ring_offer(&p);
	usleep(5000);
	CHECK_EQ(*(uint16_t *)(void *)(p.mem + 0x2002), 0); /* what the ring looks like is not known before features */
	CHECK_EQ(ask_u64(&p, LIBVHOST_OP_SET_FEATURES, F30 | F_VERSION), 0);
	CHECK(ring_used(&p, 1));
	fake_free(&p);
}

TEST(backend_session, r031_r143_owner_and_resets)
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
TEST(backend_session, r143_status_0_comes_before_the_end_of_the_rings)
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
	CHECK(ring_rests(&p, 1)); /* not before it is enabled again */
	CHECK_EQ(ask_state(&p, LIBVHOST_OP_SET_VRING_ENABLE, 0, 1), 0);
	CHECK(ring_used(&p, 2));
	fake_free(&p);
}
