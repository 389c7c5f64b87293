/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* Stops and pauses while handlers keep requests, or do not return. */
#include "frontend.h"

#include "keeper.h"

#define TIMEOUT_MS 1000u

#define SAY(t, name, ...)                                                                                              \
	libvhost_transport_exec((t), &(struct libvhost_req){.op = LIBVHOST_OP_##name, __VA_ARGS__}, 1,                 \
				10 * TIMEOUT_MS, NULL)

static int say_table(struct libvhost_transport *t, const struct fake *p)
{
	struct libvhost_region ram = {
		.size = RAM_BYTES, .user_addr = UADDR, .fd = p->ram, .flags = LIBVHOST_REGION_HAS_FD};

	return SAY(t, SET_MEM_TABLE, .arg.table = {.count = 1, .stride = sizeof(ram)},
		   .data_in = (uint64_t)(uintptr_t)&ram, .data_in_len = sizeof(ram));
}

/* All rings lie at the same place. */
static void say_ring(struct libvhost_transport *t, const struct fake *p, uint32_t queue)
{
	const struct libvhost_vring_addr addr = {.desc = UADDR, .avail = UADDR + 0x1000, .used = UADDR + 0x2000};

	CHECK_EQ(SAY(t, SET_VRING_NUM, .index = queue, .arg.num = 8), 0);
	CHECK_EQ(SAY(t, SET_VRING_ADDR, .index = queue, .arg.addr = addr), 0);
	CHECK_EQ(SAY(t, SET_VRING_KICK, .index = queue, .flags = LIBVHOST_REQ_HAS_FD, .fd = p->kick), 0);
}

/* Without bit 30 the kick starts. In process, where a refused stop is an answer and the connection stays. */
static struct libvhost_transport *in_process(struct fake *p, const struct libvhost_backend_opts *o, uint64_t features)
{
	struct libvhost_transport *t;

	*p = fake_new(o);
	t = fake_inproc(p);
	CHECK_EQ(SAY(t, SET_FEATURES, .arg.u64 = F_VERSION | features), 0);
	CHECK_EQ(say_table(t, p), 0);
	say_ring(t, p, 0);
	return t;
}

/* A handler that does not return in time keeps its queue, and is told when it does that new requests count again. */
TEST(backend_drain, a_stop_that_fails_leaves_a_ring_that_serves)
{
	struct keeper k = {.stuck = true};
	const struct libvhost_backend_opts opts = {.ops = &keeper_ops, .arg = &k, .timeout_ms = 500};
	struct libvhost_error e = {.size = sizeof(e)};
	struct fake p;
	struct libvhost_transport *t = in_process(&p, &opts, 0);

	ring_offer(&p);
	keeper_await(&k, 1);
	for (int i = 0; i < 2; i++) {
		CHECK_EQ(SAY(t, GET_VRING_BASE), -ETIMEDOUT);
		CHECK_EQ(libvhost_backend_error(p.b, &e), 0);
		CHECK_EQ(e.kind, LIBVHOST_EK_TIMEOUT);
		CHECK_EQ(e.queue, 0);
	}
	ring_offer(&p); /* its kick finds nobody */
	k.release = true;
	k.stuck = false;
	CHECK(ring_used(&p, 2));
	ring_offer(&p);
	CHECK(ring_used(&p, 3));
	CHECK_EQ(SAY(t, GET_VRING_BASE), 0);
	libvhost_transport_free(t);
	fake_free(&p);
}

/* A ring that is started anew takes requests, whatever its last stop did. */
TEST(backend_drain, a_stop_that_succeeds_in_the_end)
{
	struct keeper k = {.stuck = true};
	const struct libvhost_backend_opts opts = {.ops = &keeper_ops, .arg = &k, .timeout_ms = 500};
	struct libvhost_req stop = {.op = LIBVHOST_OP_GET_VRING_BASE};
	struct fake p;
	struct libvhost_transport *t = in_process(&p, &opts, 0);

	ring_offer(&p);
	keeper_await(&k, 1);
	CHECK_EQ(SAY(t, GET_VRING_BASE), -ETIMEDOUT);
	k.stuck = false;
	k.release = true;
	CHECK_EQ(libvhost_transport_exec(t, &stop, 1, PATIENCE_MS, NULL), 0);
	CHECK_EQ(stop.result[0], 1);
	ring_offer(&p);
	usleep(2000);
	CHECK(ring_used(&p, 1)); /* it rests */
	CHECK_EQ(SAY(t, SET_VRING_KICK, .flags = LIBVHOST_REQ_HAS_FD, .fd = p.kick), 0);
	CHECK(ring_used(&p, 2));
	libvhost_transport_free(t);
	fake_free(&p);
}

/* One that is disabled takes nothing until it is enabled again. */
TEST(backend_drain, a_stop_of_a_disabled_ring_that_fails)
{
	struct keeper k = {.stuck = true};
	const struct libvhost_backend_opts opts = {.ops = &keeper_ops, .arg = &k, .timeout_ms = 500};
	struct fake p;
	struct libvhost_transport *t = in_process(&p, &opts, F30);

	CHECK_EQ(SAY(t, SET_VRING_ENABLE, .arg.num = 1), 0);
	ring_offer(&p);
	keeper_await(&k, 1);
	CHECK_EQ(SAY(t, SET_VRING_ENABLE, .arg.num = 0), 0);
	ring_offer(&p);
	CHECK_EQ(SAY(t, GET_VRING_BASE), -ETIMEDOUT);
	k.release = true;
	k.stuck = false;
	CHECK(ring_used(&p, 1));
	CHECK_EQ(SAY(t, SET_VRING_ENABLE, .arg.num = 1), 0);
	CHECK(ring_used(&p, 2));
	libvhost_transport_free(t);
	fake_free(&p);
}

/* With a deadline each for drain and removal it is twice as long, always; a busy machine is late now and then. */
#define TRIES 10

TEST(backend_drain, a_stop_has_one_deadline)
{
	struct keeper k = {.stuck = true};
	const struct libvhost_backend_opts opts = {.ops = &keeper_ops, .arg = &k, .timeout_ms = TIMEOUT_MS};
	struct fake p;
	struct libvhost_transport *t = in_process(&p, &opts, 0);
	uint64_t took = UINT64_MAX;

	ring_offer(&p);
	keeper_await(&k, 1);
	for (int i = 0; i < TRIES && took >= TIMEOUT_MS * 9 / 5; i++) {
		const uint64_t began = now_ms();

		CHECK_EQ(SAY(t, GET_VRING_BASE), -ETIMEDOUT);
		took = now_ms() - began;
		CHECK(took >= TIMEOUT_MS);
	}
	CHECK(took < TIMEOUT_MS * 9 / 5);
	k.stuck = false;
	libvhost_transport_free(t);
	fake_free(&p);
}

static struct fake on_a_socket(const struct libvhost_backend_opts *opts)
{
	struct fake p = fake_new(opts);

	handshake(&p);
	CHECK_EQ(ask_u64(&p, LIBVHOST_OP_SET_PROTOCOL_FEATURES, PF(REPLY_ACK)), 0);
	CHECK_EQ(ring_up(&p, 0), 0);
	return p;
}

/* On a socket no base can be told, so that the connection ends with the same deadline; how long that took. */
static uint64_t end_of_a_connection(void)
{
	struct keeper k = {.stuck = true};
	const struct libvhost_backend_opts opts = {.ops = &keeper_ops, .arg = &k, .timeout_ms = TIMEOUT_MS};
	struct fake p = on_a_socket(&opts);
	const uint32_t state[2] = {0};
	uint64_t began;

	ring_offer(&p);
	keeper_await(&k, 1);
	began = now_ms();
	send_msg(&p, LIBVHOST_OP_GET_VRING_BASE, 0, state, sizeof(state), NULL, 0);
	CHECK(closed(&p));
	began = now_ms() - began;
	k.stuck = false;
	for (int i = 0; i < PATIENCE_MS / 100 && libvhost_backend_adopt(p.b, p.sock) == -EBUSY; i++)
		CHECK_EQ(libvhost_backend_dispatch(p.b, 100), 0);
	fake_free(&p);
	return began;
}

TEST(backend_drain, a_stop_that_fails_ends_the_connection_in_time)
{
	uint64_t took = UINT64_MAX;

	for (int i = 0; i < TRIES && took >= TIMEOUT_MS * 9 / 5; i++)
		took = end_of_a_connection();
	CHECK(took < TIMEOUT_MS * 9 / 5);
}

/* Front-ends disable a ring before they ask where it stopped. */
TEST(backend_drain, a_disabled_ring_drains)
{
	struct keeper k = {0};
	const struct libvhost_backend_opts opts = {.ops = &keeper_ops, .arg = &k};
	struct fake p = on_a_socket(&opts);

	ring_offer(&p);
	keeper_await(&k, 1);
	CHECK_EQ(ask_state(&p, LIBVHOST_OP_SET_VRING_ENABLE, 0, 0), 0);
	ring_offer(&p);
	k.release = true;
	CHECK_EQ(get_base(&p, 0), 1);
	CHECK(ring_used(&p, 1));
	CHECK_EQ(k.taken, 1);
	fake_free(&p);
}

#define RINGS	 8u
#define DRAIN_MS 150u

/* Keeps the one request of each queue until so long after its drain began. */
struct slow {
	uint32_t heads[RINGS];
	bool has[RINGS];
	uint64_t began[RINGS];
	_Atomic uint32_t taken, pushed;
};

static int keep_for_a_while(void *arg, uint32_t queue, struct libvhost_vq *vq)
{
	struct slow *s = arg;
	struct libvhost_iov iov[16];
	struct libvhost_chain c = {.size = sizeof(c), .iov = iov, .iov_cap = 16};

	if (libvhost_vq_pop(vq, &c) == 1) {
		s->heads[queue] = c.head;
		s->has[queue] = true;
		s->taken++;
	}
	if (vq->draining && !s->began[queue])
		s->began[queue] = now_ms();
	if (s->has[queue] && s->began[queue] && now_ms() - s->began[queue] >= DRAIN_MS) {
		s->has[queue] = false;
		libvhost_vq_push(vq, s->heads[queue], 0);
		s->pushed++;
	}
	return s->has[queue];
}

/* Eight drains of 150 ms within a second: side by side, by RESET_OWNER and by status 0 alike. */
TEST(backend_drain, r031_r143_a_reset_waits_for_what_handlers_keep)
{
	static const struct libvhost_backend_ops ops = {.size = sizeof(ops), .serve = keep_for_a_while};

	for (int status = 0; status < 2; status++) {
		struct slow s = {.taken = 0};
		const struct libvhost_backend_opts opts = {
			.ops = &ops, .arg = &s, .timeout_ms = TIMEOUT_MS, .num_queues = RINGS};
		struct fake p;
		struct libvhost_transport *t = in_process(&p, &opts, F30);
		uint64_t began;

		CHECK_EQ(SAY(t, SET_PROTOCOL_FEATURES, .arg.u64 = PF(STATUS) | PF(REPLY_ACK)), 0);
		ring_offer(&p); /* all of them take it when they start */
		for (uint32_t q = 0; q < RINGS; q++) {
			if (q)
				say_ring(t, &p, q);
			CHECK_EQ(SAY(t, SET_VRING_ENABLE, .index = q, .arg.num = 1), 0);
		}
		for (int i = 0; i < PATIENCE_MS && s.taken < RINGS; i++)
			usleep(1000);
		CHECK_EQ(s.taken, RINGS);
		began = now_ms();
		CHECK_EQ(status ? SAY(t, SET_STATUS, .arg.u64 = 0) : SAY(t, RESET_OWNER), 0);
		began = now_ms() - began;
		CHECK_EQ(s.pushed, RINGS);
		CHECK(began >= DRAIN_MS);
		libvhost_transport_free(t);
		fake_free(&p);
	}
}

#define STEPS 4u

/* A handler's call on queue n lasts until n + 1 times as long after the message. */
struct steps {
	_Atomic uint64_t message; /* 0 = calls return at once */
	_Atomic uint32_t inside;
};

static int step(void *arg, uint32_t queue, struct libvhost_vq *vq)
{
	struct steps *s = arg;
	if (!s->message)
		return fake_serve(arg, queue, vq);
	s->inside |= 1u << queue;
	while (s->message && now_ms() < s->message + 300ull * (queue + 1))
		sched_yield();
	return LIBVHOST_TURN_MORE;
}

/* Each ring alone comes back within the timeout, all of them do not. */
TEST(backend_drain, a_memory_message_has_one_deadline)
{
	static const struct libvhost_backend_ops ops = {.size = sizeof(ops), .serve = step};
	struct steps s = {0};
	const struct libvhost_backend_opts opts = {
		.ops = &ops, .arg = &s, .timeout_ms = 400, .num_workers = STEPS, .num_queues = STEPS};
	struct fake p;
	struct libvhost_transport *t = in_process(&p, &opts, 0);
	uint64_t took = UINT64_MAX;

	s.message = now_ms();
	eventfd_write(p.kick, 1);
	for (uint32_t q = 1; q < STEPS; q++)
		say_ring(t, &p, q); /* served at once */
	for (int i = 0; i < TRIES && took >= 1100; i++) {
		while (s.inside != (1u << STEPS) - 1)
			sched_yield();
		s.message = took = now_ms();
		CHECK_EQ(say_table(t, &p), -ETIMEDOUT);
		took = now_ms() - took;
	}
	CHECK(took < 1100); /* with a deadline for each ring it would take 1200, and succeed */
	s.message = 0;
	CHECK_EQ(say_table(t, &p), 0); /* nothing is broken */
	ring_offer(&p);
	CHECK(ring_used(&p, 1));
	libvhost_transport_free(t);
	fake_free(&p);
}
