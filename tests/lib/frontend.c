/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
#include "frontend.h"

#define REPLY 0x4u

int fake_each(struct libvhost_vq *vq, uint64_t (*use)(const struct libvhost_chain *c))
{
	struct libvhost_iov iov[16];
	struct libvhost_chain c = {.size = sizeof(c), .iov = iov, .iov_cap = 16};
	int rc = 0;

	for (int i = 0; i < 16 && (rc = libvhost_vq_pop(vq, &c)) > 0; i++)
		rc = libvhost_vq_push(vq, c.head, use ? use(&c) : 0) < 0 ? -EIO : 1;
	return rc;
}

int fake_serve(void *arg, uint32_t queue, struct libvhost_vq *vq)
{
	(void)arg;
	(void)queue;
	return fake_each(vq, NULL);
}

static uint64_t touch(const struct libvhost_chain *c)
{
	for (uint32_t n = 0; n < c->n_read; n++)
		(void)*(volatile uint8_t *)c->iov[n].base;
	for (uint32_t n = 0; n < c->n_write; n++)
		memset(c->iov[c->n_read + n].base, 0xab, c->iov[c->n_read + n].len);
	return c->write_len;
}

int fake_touch(void *arg, uint32_t queue, struct libvhost_vq *vq)
{
	(void)arg;
	(void)queue;
	return fake_each(vq, touch);
}

struct fake fake_new_ctx(const struct libvhost_backend_opts *change, const struct libvhost_ctx_opts *ctx)
{
	static const struct libvhost_backend_ops ops = {.size = sizeof(ops), .serve = fake_serve};
	struct libvhost_backend_opts o = change ? *change : (struct libvhost_backend_opts){0};
	struct libvhost_worker_opts worker = o.worker ? *o.worker : (struct libvhost_worker_opts){0};
	struct fake p = {.sock = -1};

	worker.size = sizeof(worker);
	worker.sandbox = FAKE_SANDBOX;
	o.size = sizeof(o);
	p.control = o.flags & LIBVHOST_BACKEND_CONTROL_WORKER;
	o.num_queues = o.num_queues ? o.num_queues : 4;
	if (!(o.flags & LIBVHOST_BACKEND_PULL)) {
		o.ops = o.ops ? o.ops : &ops;
		o.worker = &worker;
	}
	CHECK_EQ(libvhost_ctx_new(ctx, &p.ctx), 0);
	CHECK_EQ(libvhost_backend_new(p.ctx, &o, &p.b), 0);
	p.ram = memfd(RAM_BYTES, 0);
	p.mem = mmap(NULL, RAM_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, p.ram, 0);
	CHECK(p.mem != MAP_FAILED);
	p.kick = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	p.call = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	p.err = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	p.before = lv_ledger_take();
	fake_connect(&p);
	return p;
}

struct fake fake_new(const struct libvhost_backend_opts *change)
{
	return fake_new_ctx(change, NULL);
}

/* The control worker's last word on a connection. */
static void await_disconnect(struct fake *p)
{
	struct libvhost_event e;

	for (int i = 0; i < PATIENCE_MS; i++) {
		CHECK_EQ(libvhost_backend_dispatch(p->b, 1), 0);
		while (libvhost_backend_next_event(p->b, &e) == 1)
			if (e.type == LIBVHOST_EVENT_DISCONNECTED)
				return;
	}
	lv_test_fail(__FILE__, __LINE__, "the control worker does not notice that the front-end left");
}

static void leave(struct fake *p)
{
	const bool waits = p->control && !p->stopped && p->sock >= 0;

	if (p->sock >= 0)
		close(p->sock);
	if (waits)
		await_disconnect(p);
}

void fake_connect(struct fake *p)
{
	int pair[2];

	leave(p);
	settle(p);
	CHECK_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair), 0);
	CHECK_EQ(libvhost_backend_adopt(p->b, pair[1]), 0);
	close(pair[1]);
	p->sock = pair[0];
}

struct libvhost_transport *fake_inproc(struct fake *p)
{
	struct libvhost_transport *t;

	leave(p);
	p->sock = -1;
	settle(p);
	CHECK_EQ(libvhost_backend_inproc(p->b, &t), 0);
	return t;
}

struct inside {
	struct libvhost_backend *b;
	bool (*busy)(struct libvhost_backend *b);
	bool was_busy;
};

static int get_config(void *arg, uint32_t offset, void *buf, uint32_t len)
{
	struct inside *i = arg;

	(void)offset;
	memset(buf, 0, len);
	i->was_busy = i->busy(i->b);
	return 0;
}

void fake_check_inside(const struct libvhost_backend_opts *change, bool (*busy)(struct libvhost_backend *b))
{
	const struct libvhost_backend_ops ops = {.size = sizeof(ops),
						 .serve = change->flags & LIBVHOST_BACKEND_PULL ? NULL : fake_serve,
						 .get_config = get_config};
	const uint32_t config[4] = {0, 4, 0, 0};
	struct libvhost_backend_opts opts = *change;
	struct inside i = {.busy = busy};
	struct wire_hdr hdr;
	uint8_t answer[64];
	struct fake p;

	opts.ops = &ops;
	opts.arg = &i;
	p = fake_new(&opts);
	i.b = p.b;
	handshake(&p);
	send_msg(&p, LIBVHOST_OP_GET_CONFIG, 0, config, sizeof(config), NULL, 0);
	CHECK_EQ(recv_msg(&p, &hdr, answer, sizeof(answer)), 16);
	CHECK(i.was_busy);
	fake_free(&p);
}

void fake_free(struct fake *p)
{
	leave(p);
	if (!p->stopped) {
		settle(p);
		CHECK_LEDGER(p->before); /* a session leaves nothing behind */
	}
	libvhost_backend_free(p->b);
	libvhost_ctx_free(p->ctx);
	munmap(p->mem, RAM_BYTES);
	close(p->ram);
	close(p->kick);
	close(p->call);
	close(p->err);
}

void settle(struct fake *p)
{
	struct pollfd fd = {.fd = libvhost_backend_fd(p->b), .events = POLLIN};

	if (p->control)
		return;
	for (int i = 0; i < 200; i++) {
		CHECK_EQ(libvhost_backend_dispatch(p->b, 0), 0);
		if (poll(&fd, 1, 0) == 0)
			return;
	}
	lv_test_fail(__FILE__, __LINE__, "the back-end spins");
}

void send_raw(struct fake *p, const void *bytes, size_t len, const int *fds, uint32_t nfds)
{
	struct iovec iov = {.iov_base = (void *)(uintptr_t)bytes, .iov_len = len};
	_Alignas(8) char control[CMSG_SPACE(253 * sizeof(int))] = {0};
	struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1};

	if (nfds) {
		struct cmsghdr *c;

		m.msg_control = control;
		m.msg_controllen = CMSG_SPACE(nfds * sizeof(int));
		c = CMSG_FIRSTHDR(&m);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(nfds * sizeof(int));
		memcpy(CMSG_DATA(c), fds, nfds * sizeof(int));
	}
	if (sendmsg(p->sock, &m, MSG_NOSIGNAL) < 0)
		CHECK(errno == EPIPE || errno == ECONNRESET); /* it closed on us: the answer will show */
}

void send_msg(struct fake *p, uint32_t request, uint32_t flags, const void *payload, uint32_t size, const int *fds,
	      uint32_t nfds)
{
	struct wire_hdr hdr = {.request = request, .flags = flags | 1, .size = size};
	uint8_t bytes[sizeof(hdr) + 8192];

	memcpy(bytes, &hdr, sizeof(hdr));
	if (size)
		memcpy(bytes + sizeof(hdr), payload, size);
	send_raw(p, bytes, sizeof(hdr) + size, fds, nfds);
}

int recv_msg(struct fake *p, struct wire_hdr *hdr, void *payload, uint32_t cap)
{
	struct pollfd in = {.fd = p->sock, .events = POLLIN};
	ssize_t n;

	settle(p);
	if (p->control)
		poll(&in, 1, PATIENCE_MS);
	n = recv(p->sock, hdr, sizeof(*hdr), 0);
	if (n < 0)
		return errno == EAGAIN ? -1 : -2;
	if (n == 0)
		return -2;
	CHECK_EQ(n, sizeof(*hdr));
	CHECK_EQ(hdr->flags & 7, 1 | REPLY);
	CHECK(hdr->size <= cap);
	n = hdr->size ? recv(p->sock, payload, hdr->size, 0) : 0;
	CHECK_EQ(n, hdr->size);
	return (int)n;
}

int ask(struct fake *p, uint32_t request, const void *payload, uint32_t size, const int *fds, uint32_t nfds)
{
	uint64_t ack = 0;
	struct wire_hdr hdr;
	int n;

	send_msg(p, request, NEED_REPLY, payload, size, fds, nfds);
	n = recv_msg(p, &hdr, &ack, sizeof(ack));
	if (n < 0)
		return n == -2 ? 1 : 2;
	CHECK_EQ(hdr.request, request);
	CHECK_EQ(n, 8);
	return ack > 4095 ? -EIO : -(int)ack;
}

int ask_u64(struct fake *p, uint32_t request, uint64_t value)
{
	return ask(p, request, &value, sizeof(value), NULL, 0);
}

int ask_state(struct fake *p, uint32_t request, uint32_t index, uint32_t num)
{
	uint32_t state[2] = {index, num};

	return ask(p, request, state, sizeof(state), NULL, 0);
}

int ask_fd(struct fake *p, uint32_t request, uint32_t index, int fd)
{
	uint64_t value = index | (fd < 0 ? 0x100u : 0);

	return ask(p, request, &value, sizeof(value), &fd, fd >= 0);
}

int ask_addr(struct fake *p, uint32_t index, uint64_t desc, uint64_t avail, uint64_t used)
{
	struct {
		uint32_t index, flags;
		uint64_t desc, used, avail, log;
	} addr = {.index = index, .desc = desc, .used = used, .avail = avail};

	return ask(p, LIBVHOST_OP_SET_VRING_ADDR, &addr, sizeof(addr), NULL, 0);
}

uint64_t get_u64(struct fake *p, uint32_t request)
{
	uint64_t value = 0;
	struct wire_hdr hdr;

	send_msg(p, request, 0, NULL, 0, NULL, 0);
	CHECK_EQ(recv_msg(p, &hdr, &value, sizeof(value)), 8);
	CHECK_EQ(hdr.request, request);
	return value;
}

uint32_t get_base(struct fake *p, uint32_t index)
{
	uint32_t state[2] = {index, 0};
	struct wire_hdr hdr;

	send_msg(p, LIBVHOST_OP_GET_VRING_BASE, 0, state, sizeof(state), NULL, 0);
	CHECK_EQ(recv_msg(p, &hdr, state, sizeof(state)), 8);
	CHECK_EQ(state[0], index);
	return state[1];
}

bool closed(struct fake *p)
{
	uint8_t byte[64];
	struct wire_hdr hdr;

	return recv_msg(p, &hdr, byte, sizeof(byte)) == -2;
}

int ask_table(struct fake *p, const struct libvhost_region *regions, uint32_t count, uint32_t nfds)
{
	const uint32_t given = count <= 16 ? count : 0; /* absurd counts come with two empty regions */
	uint64_t wire[1 + 16 * 4] = {count};
	int fds[16];

	for (uint32_t i = 0; i < given; i++)
		memcpy(wire + 1 + (size_t)i * 4, &regions[i], 4 * sizeof(uint64_t));
	for (uint32_t i = 0; i < nfds; i++)
		fds[i] = i < given ? regions[i].fd : p->ram;
	return ask(p, LIBVHOST_OP_SET_MEM_TABLE, wire, 8 + (count == given ? given : 2) * 32, fds, nfds);
}

void handshake(struct fake *p)
{
	struct libvhost_region ram = {.size = RAM_BYTES, .user_addr = UADDR, .fd = p->ram};
	uint64_t features = get_u64(p, LIBVHOST_OP_GET_FEATURES);
	uint64_t protocol = get_u64(p, LIBVHOST_OP_GET_PROTOCOL_FEATURES);

	CHECK(features & F30);
	CHECK_EQ(ask_u64(p, LIBVHOST_OP_SET_PROTOCOL_FEATURES, protocol), 0);
	CHECK_EQ(ask(p, LIBVHOST_OP_SET_OWNER, NULL, 0, NULL, 0), 0);
	CHECK_EQ(ask_u64(p, LIBVHOST_OP_SET_FEATURES, features), 0);
	CHECK_EQ(ask_table(p, &ram, 1, 1), 0);
}

#define RING_NUM   8u
#define RING_AVAIL 0x1000u
#define RING_USED  0x2000u

/*
 * Rings must not share a kick: the one that is served first drains it for the others. The first ring's is the one that
 * tests signal.
 */
static int give_kick(struct fake *p, uint32_t index)
{
	int fd, rc;

	if (!index)
		return ask_fd(p, LIBVHOST_OP_SET_VRING_KICK, index, p->kick);
	fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	rc = ask_fd(p, LIBVHOST_OP_SET_VRING_KICK, index, fd);
	close(fd);
	return rc;
}

int ring_up(struct fake *p, uint32_t index)
{
	uint64_t at = UADDR + index * 0x4000u;
	int rc = ask_state(p, LIBVHOST_OP_SET_VRING_NUM, index, RING_NUM);

	rc = rc ? rc : ask_state(p, LIBVHOST_OP_SET_VRING_BASE, index, 0);
	rc = rc ? rc : ask_addr(p, index, at, at + RING_AVAIL, at + RING_USED);
	rc = rc ? rc : ask_fd(p, LIBVHOST_OP_SET_VRING_CALL, index, p->call);
	rc = rc ? rc : ask_fd(p, LIBVHOST_OP_SET_VRING_ERR, index, p->err);
	rc = rc ? rc : give_kick(p, index);
	return rc ? rc : ask_state(p, LIBVHOST_OP_SET_VRING_ENABLE, index, 1);
}

static _Atomic uint16_t *word(struct fake *p, uint32_t offset)
{
	return (void *)(p->mem + offset);
}

void ring_offer(struct fake *p)
{
	struct lv_desc d = {.addr = 0x10000, .len = 64};
	uint16_t idx = atomic_load(word(p, RING_AVAIL + 2));

	memcpy(p->mem + (idx % RING_NUM) * sizeof(d), &d, sizeof(d));
	atomic_store(word(p, RING_AVAIL + 4 + 2 * (idx % RING_NUM)), idx % RING_NUM);
	atomic_store(word(p, RING_AVAIL + 2), (uint16_t)(idx + 1));
	CHECK_EQ(eventfd_write(p->kick, 1), 0);
}

static bool used_within(struct fake *p, uint16_t n, int ms)
{
	for (int i = 0; i < ms; i++) {
		if (atomic_load(word(p, RING_USED + 2)) == n)
			return true;
		usleep(1000);
	}
	return false;
}

bool ring_used(struct fake *p, uint16_t n)
{
	return used_within(p, n, PATIENCE_MS);
}

bool ring_rests(struct fake *p, uint16_t n)
{
	return !used_within(p, (uint16_t)(n + 1), 1000);
}

struct libvhost_event take_event(struct fake *p, uint32_t type)
{
	struct libvhost_event e;

	for (int i = 0; i < PATIENCE_MS / 10; i++) {
		while (libvhost_backend_next_event(p->b, &e) == 1)
			if (e.type == type)
				return e;
		if (libvhost_backend_dispatch(p->b, 10) < 0)
			break;
	}
	lv_test_fail(__FILE__, __LINE__, "no event of type %u", type);
}
