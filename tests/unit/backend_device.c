/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* Configuration space, its change message, options, and the in-process transport. */
#include "frontend.h"

static const uint8_t config[60] = {1, 2, 3, 4, 5, 6, 7, 8};

static struct libvhost_backend_opts with_config(void)
{
	return (struct libvhost_backend_opts){.config = config, .config_len = sizeof(config)};
}

static int get_config(struct fake *p, uint32_t offset, uint32_t size, uint8_t *bytes)
{
	uint8_t msg[12 + 300] = {0};
	uint32_t head[3] = {offset, size, 0};
	struct wire_hdr hdr;
	int n;

	memcpy(msg, head, sizeof(head));
	send_msg(p, LIBVHOST_OP_GET_CONFIG, 0, msg, 12 + size, NULL, 0);
	n = recv_msg(p, &hdr, msg, sizeof(msg));
	if (n >= 12)
		memcpy(bytes, msg + 12, (size_t)n - 12);
	return n;
}

TEST(backend_device, configuration_is_read_within_bounds)
{
	struct libvhost_backend_opts o = with_config();
	uint8_t bytes[256] = {0}, msg[12] = {0, 0, 0, 0, 64};
	struct fake p = fake_new(&o);
	struct wire_hdr hdr;

	handshake(&p);
	CHECK_EQ(get_config(&p, 2, 4, bytes), 16);
	CHECK_MEM(bytes, config + 2, 4);
	memset(bytes, 0xaa, sizeof(bytes));
	CHECK_EQ(get_config(&p, 0, 256, bytes), 268); /* beyond the end there are zeros, not our memory */
	CHECK_MEM(bytes, config, sizeof(config));
	for (int i = sizeof(config); i < 256; i++)
		CHECK_EQ(bytes[i], 0);
	CHECK_EQ(get_config(&p, 250, 10, bytes), 0); /* an empty answer says no */
	CHECK_EQ(get_config(&p, 0xfffffff0, 200, bytes), 0);
	send_msg(&p, LIBVHOST_OP_GET_CONFIG, 0, msg, sizeof(msg), NULL, 0); /* says 64, sends none */
	CHECK_EQ(recv_msg(&p, &hdr, bytes, sizeof(bytes)), 0);
	fake_free(&p);
}

TEST(backend_device, configuration_writes_are_refused_without_a_handler)
{
	struct libvhost_backend_opts o = with_config();
	uint8_t msg[16] = {0, 0, 0, 0, 4};
	struct fake p = fake_new(&o);

	handshake(&p);
	CHECK_EQ(ask(&p, LIBVHOST_OP_SET_CONFIG, msg, sizeof(msg), NULL, 0), -EPERM);
	msg[8] = 0xff; /* flags */
	CHECK_EQ(ask(&p, LIBVHOST_OP_SET_CONFIG, msg, sizeof(msg), NULL, 0), -EINVAL);
	CHECK_EQ(ask(&p, LIBVHOST_OP_SET_CONFIG, msg, sizeof(msg), &p.ram, 1), -EINVAL);
	fake_free(&p);
}

/* Asks for more than it sends, on every length that it may claim: an answer never holds what lay in memory. */
TEST(backend_device, r108_a_request_that_says_more_than_it_brings)
{
	struct libvhost_backend_opts o = with_config();
	uint8_t bytes[300], msg[12] = {0}, poison[12 + 256];
	struct fake p = fake_new(&o);
	struct wire_hdr hdr;

	handshake(&p);
	memset(poison, 0xa5, sizeof(poison));
	memcpy(poison, (uint32_t[]){0, 256, 0}, 12);
	CHECK_EQ(ask(&p, LIBVHOST_OP_SET_CONFIG, poison, sizeof(poison), NULL, 0),
		 -EPERM); /* lies in its buffers now */
	for (uint32_t size = 1; size <= 256; size++) {
		memcpy(msg + 4, &size, sizeof(size));
		send_msg(&p, LIBVHOST_OP_GET_CONFIG, 0, msg, sizeof(msg), NULL, 0);
		CHECK_EQ(recv_msg(&p, &hdr, bytes, sizeof(bytes)), 0);
	}
	CHECK_EQ(get_config(&p, 0, 60, bytes), 72); /* it serves on */
	CHECK_MEM(bytes, config, sizeof(config));
	CHECK_EQ(ask(&p, LIBVHOST_OP_SET_CONFIG, poison, sizeof(poison), NULL, 0), -EPERM);
	CHECK_EQ(get_config(&p, 0, 256, bytes), 268);
	for (int i = sizeof(config); i < 256; i++)
		CHECK_EQ(bytes[i], 0);
	fake_free(&p);
}

static int take_write(void *arg, uint32_t offset, const void *buf, uint32_t len, uint32_t type)
{
	uint32_t *writes = arg;

	(void)buf;
	(void)type;
	if (offset < 8)
		return -EPERM; /* the device's own, read-only */
	CHECK(offset + len <= 256);
	*writes += 1;
	return 0;
}

TEST(backend_device, r109_writes_that_cannot_be)
{
	const struct libvhost_backend_ops ops = {.size = sizeof(ops), .serve = fake_serve, .set_config = take_write};
	static const struct {
		uint32_t head[3]; /* offset, size, flags */
		uint32_t bytes;
		bool fd;
		int answer;
	} writes[] = {
		{{16, 4, 0}, 4, false, 0},
		{{16, 4, 1}, 4, false, 0},
		{{252, 8, 0}, 8, false, -EINVAL},
		{{UINT32_MAX - 1, 4, 0}, 4, false, -EINVAL},
		{{UINT32_MAX, 4, 0}, 4, false, -EINVAL},
		{{16, 4, 0xff}, 4, false, -EINVAL},
		{{16, 4, 3}, 4, false, -EINVAL},
		{{4, 4, 0}, 4, false, -EPERM},
		{{16, 4, 0}, 4, true, -EINVAL},
		{{16, 8, 0}, 4, false, -EINVAL},
		{{16, 4, 0}, 8, false, -EINVAL},

	};
	struct libvhost_backend_opts o = with_config();
	uint32_t taken = 0;
	struct fake p;

	o.ops = &ops;
	o.arg = &taken;
	p = fake_new(&o);
	handshake(&p);
	for (unsigned i = 0; i < sizeof(writes) / sizeof(writes[0]); i++) {
		const uint32_t before = taken;
		uint8_t msg[12 + 8] = {0};

		memcpy(msg, writes[i].head, sizeof(writes[i].head));
		CHECK_EQ(ask(&p, LIBVHOST_OP_SET_CONFIG, msg, 12 + writes[i].bytes, &p.ram, writes[i].fd),
			 writes[i].answer);
		CHECK_EQ(taken - before, !writes[i].answer);
	}
	fake_free(&p);
}

TEST(backend_device, r136_an_answer_that_nobody_asked_for_costs_the_channel)
{
	struct libvhost_backend_opts o = with_config();
	struct fake p = fake_new(&o);
	struct wire_hdr hdr;
	int pair[2];
	uint8_t next[sizeof(config)] = {9};

	CHECK_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair), 0);
	handshake(&p);
	CHECK_EQ(ask(&p, LIBVHOST_OP_SET_BACKEND_REQ_FD, NULL, 0, &p.ram, 1), -ENOTSOCK);
	CHECK_EQ(ask(&p, LIBVHOST_OP_SET_BACKEND_REQ_FD, NULL, 0, &pair[1], 1), 0);
	close(pair[1]);
	CHECK_EQ(libvhost_backend_set_config(p.b, next, sizeof(next)), 0);
	CHECK_EQ(recv(pair[0], &hdr, sizeof(hdr), 0), sizeof(hdr));
	CHECK_EQ(hdr.request, 2);
	CHECK_EQ(hdr.flags, 1);
	for (int i = 0; i < 100; i++)
		CHECK_EQ(libvhost_backend_set_config(p.b, next, sizeof(next)), 0);
	settle(&p);
	send(pair[0], &hdr, sizeof(hdr), 0); /* an answer that nobody asked for: the channel goes, the device stays */
	settle(&p);
	while (recv(pair[0], next, sizeof(next), 0) > 0)
		;
	CHECK_EQ(recv(pair[0], next, sizeof(next), 0) == 0 || errno == ECONNRESET, 1);
	CHECK_EQ(get_u64(&p, LIBVHOST_OP_GET_QUEUE_NUM), 4);
	close(pair[0]);
	fake_free(&p);
}

TEST(backend_device, options_are_checked)
{
	static const struct libvhost_backend_ops ops = {.size = sizeof(ops), .serve = fake_serve};
	const struct libvhost_backend_opts good = {.size = sizeof(good), .num_queues = 1, .ops = &ops};
	struct libvhost_backend_opts o = good;
	struct libvhost_backend *b = NULL;
	struct libvhost_ctx *ctx = NULL;

	CHECK_EQ(libvhost_ctx_new(NULL, &ctx), 0);
	CHECK_EQ(libvhost_backend_new(ctx, NULL, &b), -EINVAL);
	o.num_queues = 257;
	CHECK_EQ(libvhost_backend_new(ctx, &o, &b), -EINVAL);
	o = good;
	o.features = 1ull << 36; /* notification data in another form */
	CHECK_EQ(libvhost_backend_new(ctx, &o, &b), -EINVAL);
	o = good;
	o.ops = NULL;
	CHECK_EQ(libvhost_backend_new(ctx, &o, &b), -EINVAL);
	o = good;
	o.config_len = 257;
	CHECK_EQ(libvhost_backend_new(ctx, &o, &b), -EINVAL);
	CHECK(b == NULL);
	libvhost_backend_free(NULL);
	libvhost_ctx_free(ctx);
}

struct pair {
	struct fake p; /* only what it made, no socket */
	struct libvhost_transport *t;
	struct libvhost_region ram;
};

static struct pair inproc(const struct libvhost_backend_opts *o)
{
	struct pair x = {.p = fake_new(o)};
	struct libvhost_transport *second = NULL;

	CHECK_EQ(libvhost_backend_inproc(x.p.b, &x.t), -EBUSY);
	close(x.p.sock);
	settle(&x.p);
	CHECK_EQ(libvhost_backend_inproc(x.p.b, &x.t), 0);
	CHECK_EQ(libvhost_backend_inproc(x.p.b, &second), -EBUSY);
	x.p.sock = dup(x.p.ram); /* something for fake_free() to close */
	x.ram = (struct libvhost_region){
		.size = RAM_BYTES, .user_addr = UADDR, .fd = x.p.ram, .flags = LIBVHOST_REGION_HAS_FD};
	return x;
}

static void inproc_end(struct pair *x)
{
	libvhost_transport_free(x->t);
	fake_free(&x->p);
}

static uint32_t ring_program(struct pair *x, struct libvhost_req *r)
{
	uint32_t n = 0;

	r[n] = (struct libvhost_req){.op = LIBVHOST_OP_GET_FEATURES};
	n++;
	r[n] = (struct libvhost_req){.op = LIBVHOST_OP_SET_PROTOCOL_FEATURES, .arg.u64 = PF(REPLY_ACK) | PF(MQ)};
	n++;
	r[n] = (struct libvhost_req){.op = LIBVHOST_OP_SET_FEATURES, .arg.u64 = F30 | F_VERSION};
	n++;
	r[n] = (struct libvhost_req){.op = LIBVHOST_OP_SET_MEM_TABLE,
				     .arg.table = {.count = 1, .stride = sizeof(x->ram)},
				     .data_in = (uintptr_t)&x->ram,
				     .data_in_len = sizeof(x->ram)};
	n++;
	r[n] = (struct libvhost_req){.op = LIBVHOST_OP_SET_VRING_NUM, .arg.num = 8};
	n++;
	r[n] = (struct libvhost_req){.op = LIBVHOST_OP_SET_VRING_ADDR,
				     .arg.addr = {.desc = UADDR, .avail = UADDR + 0x1000, .used = UADDR + 0x2000}};
	n++;
	r[n] = (struct libvhost_req){.op = LIBVHOST_OP_SET_VRING_CALL, .flags = LIBVHOST_REQ_HAS_FD, .fd = x->p.call};
	n++;
	r[n] = (struct libvhost_req){.op = LIBVHOST_OP_SET_VRING_KICK, .flags = LIBVHOST_REQ_HAS_FD, .fd = x->p.kick};
	n++;
	r[n] = (struct libvhost_req){.op = LIBVHOST_OP_SET_VRING_ENABLE, .arg.num = 1};
	return n + 1;
}

TEST(backend_device, in_process_transport_drives_a_ring)
{
	struct pair x = inproc(NULL);
	struct libvhost_req r[16], base = {.op = LIBVHOST_OP_GET_VRING_BASE};
	uint32_t n = ring_program(&x, r), done = 0;

	CHECK_EQ(libvhost_transport_exec(x.t, r, n, 1000, &done), 0);
	CHECK_EQ(done, n);
	CHECK(r[0].result[0] & F30);
	for (uint16_t i = 1; i <= 100; i++) {
		ring_offer(&x.p);
		CHECK(ring_used(&x.p, i));
	}
	CHECK_EQ(libvhost_transport_exec(x.t, &base, 1, PATIENCE_MS, NULL), 0);
	CHECK_EQ(base.result[0], 100);
	inproc_end(&x);
}

TEST(backend_device, in_process_refusals_are_exact)
{
	struct libvhost_error e = {.size = sizeof(e)};
	struct pair x = inproc(NULL);
	struct libvhost_req r[16];
	uint32_t n = ring_program(&x, r);

	r[5].arg.addr.desc = 0x1000; /* outside */
	CHECK_EQ(libvhost_transport_exec(x.t, r, n, 1000, NULL), -EFAULT);
	CHECK_EQ(libvhost_transport_error(x.t, &e), 0);
	CHECK_EQ(e.request, 5);
	CHECK_EQ(e.kind, LIBVHOST_EK_REFUSED);
	CHECK_EQ(r[4].state, LIBVHOST_REQ_DONE);
	CHECK_EQ(r[6].state, LIBVHOST_REQ_NOT_SENT);
	r[0] = (struct libvhost_req){.op = LIBVHOST_OP_POSTCOPY_ADVISE};
	CHECK_EQ(libvhost_transport_exec(x.t, r, 1, 1000, NULL), -ENOTSUP);
	r[0] = (struct libvhost_req){.op = LIBVHOST_OP_SET_VRING_NUM, .index = 999};
	CHECK_EQ(libvhost_transport_exec(x.t, r, 1, 1000, NULL), -EINVAL);
	inproc_end(&x);
}
