/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/*
 * A back-end begins, serves, stops and ends a thousand times (CYCLES says how often) while a guest on another thread
 * offers requests and kicks without caring: before its rings run, while they are stopped, while memory changes, after
 * the front-end is gone. At the end the process holds what it held at the beginning.
 */
#include "frontend.h"

#include <pthread.h>
#include <stdlib.h>

#ifndef LV_SANITIZED
#include "faults.h"
#define COUNTED	 true
#define BLOCKS() atomic_load(&faults_live)
#else
#define COUNTED	 false
#define BLOCKS() 0l /* the sanitizer counts */
#endif

#define QUEUES	 2u
#define NUM	 16u
#define GUEST	 0x100000ull
#define RING(q)	 ((q)*0x10000ull)
#define AVAIL	 0x1000u
#define USED	 0x2000u
#define MORE_AT	 0x10000000ull
#define CYCLES	 1000u
#define WARM_UP	 24u   /* until allocators and caches of stacks have what they keep */
#define STEPS	 8u    /* completions of a queue that count as "it runs" */
#define DEADLINE 20000 /* of one step, in milliseconds */

/* Rings as the guest sees them: all entries are written before, running changes indexes only. */
struct guest_ring {
	_Atomic uint16_t *avail, *used;
	uint16_t offered; /* the guest's thread's */
	int kick;
};

struct cycles {
	struct libvhost_ctx *ctx;
	struct libvhost_mem *mem;
	struct guest_ring ring[QUEUES];
	pthread_t guest;
	atomic_bool end, hold, held;
	/* of the present cycle */
	struct libvhost_backend *b;
	struct libvhost_dev *dev;
	pthread_t dispatcher;
	atomic_bool left;
	atomic_uint gone; /* front-ends whose end the back-end has seen */
	char path[64], uri[80];
};

/* The guest: keeps rings half full, and kicks whether there is a reason or not. */
static void *run_guest(void *arg)
{
	struct cycles *c = arg;

	while (!atomic_load(&c->end)) {
		for (uint32_t q = 0; q < QUEUES; q++) {
			struct guest_ring *r = &c->ring[q];

			if (!c->held && (uint16_t)(r->offered - atomic_load(r->used)) < NUM / 2)
				atomic_store(r->avail, ++r->offered);
			eventfd_write(r->kick, 1);
		}
		atomic_store(&c->held, atomic_load(&c->hold));
		sched_yield();
	}
	return NULL;
}

/* It offers nothing more, but kicks on. */
static void hold_guest(struct cycles *c)
{
	atomic_store(&c->hold, true);
	while (!atomic_load(&c->held))
		usleep(10);
}

static void release_guest(struct cycles *c)
{
	atomic_store(&c->hold, false);
	while (atomic_load(&c->held))
		usleep(10);
}

/* The guest's driver begins anew. While it is held. */
static void write_rings(struct cycles *c)
{
	for (uint32_t q = 0; q < QUEUES; q++) {
		void *ram;
		uint8_t *area;

		CHECK_EQ(libvhost_mem_translate(c->mem, RING(q), 0x4000, &ram, NULL), 0);
		area = ram;
		memset(area, 0, 0x4000);
		for (uint16_t i = 0; i < NUM; i++) {
			const struct lv_desc d = {.addr = 0x80000, .len = 512};

			memcpy(area + i * sizeof(d), &d, sizeof(d));
			memcpy(area + AVAIL + 4 + 2 * i, &i, sizeof(i));
		}
		c->ring[q].avail = (void *)(area + AVAIL + 2);
		c->ring[q].used = (void *)(area + USED + 2);
		c->ring[q].offered = 0;
	}
}

/* Each queue completes some more. */
static void runs(struct cycles *c)
{
	for (uint32_t q = 0; q < QUEUES; q++) {
		const uint16_t before = atomic_load(c->ring[q].used);
		int i = 0;

		while ((uint16_t)(atomic_load(c->ring[q].used) - before) < STEPS && i++ < DEADLINE * 20)
			usleep(50);
		CHECK((uint16_t)(atomic_load(c->ring[q].used) - before) >= STEPS);
	}
}

static void *dispatch(void *arg)
{
	struct cycles *c = arg;
	struct libvhost_event e;

	while (!atomic_load(&c->left) && libvhost_backend_dispatch(c->b, 20) == 0)
		while (libvhost_backend_next_event(c->b, &e) == 1) {
			c->gone += e.type == LIBVHOST_EVENT_DISCONNECTED;
			if (e.type == LIBVHOST_EVENT_QUEUE_ERROR)
				lv_test_fail(__FILE__, __LINE__, "queue %u: %s", e.queue, e.text);
		}
	return NULL;
}

static void listen_anew(struct cycles *c)
{
	static const struct libvhost_backend_ops ops = {.size = sizeof(ops), .serve = fake_serve};
	const struct libvhost_worker_opts worker = {.size = sizeof(worker), .sandbox = FAKE_SANDBOX};
	const struct libvhost_backend_opts o = {
		.size = sizeof(o), .num_queues = QUEUES, .ops = &ops, .num_workers = 2, .worker = &worker};

	CHECK_EQ(libvhost_backend_new(c->ctx, &o, &c->b), 0);
	CHECK_EQ(libvhost_backend_listen(c->b, c->path), 0);
	atomic_store(&c->left, false);
	CHECK_EQ(pthread_create(&c->dispatcher, NULL, dispatch, c), 0);
}

static void connect_front_end(struct cycles *c)
{
	const struct libvhost_dev_opts o = {
		.size = sizeof(o), .num_queues = QUEUES, .timeout_ms = DEADLINE, .uri = c->uri, .mem = c->mem};
	const uint64_t features = LV_F_VERSION_1;

	hold_guest(c);
	write_rings(c);
	CHECK_EQ(libvhost_dev_init(c->ctx, &o, &c->dev), 0);
	CHECK_EQ(libvhost_ack_features_ex(c->dev, &features, 1), 0);
	for (uint32_t q = 0; q < QUEUES; q++) {
		const struct libvhost_queue queue = {.size = sizeof(queue),
						     .flags = LIBVHOST_QUEUE_HAS_KICK,
						     .num = NUM,
						     .desc = RING(q),
						     .avail = RING(q) + AVAIL,
						     .used = RING(q) + USED,
						     .kick_fd = c->ring[q].kick};

		CHECK_EQ(libvhost_dev_set_queue(c->dev, q, &queue), 0);
	}
	release_guest(c);
	CHECK_EQ(libvhost_dev_start(c->dev, NULL), 0);
	runs(c);
}

static void change_memory(struct cycles *c, bool more)
{
	uint32_t lost = 9;

	CHECK_EQ(libvhost_mem_begin(c->mem), 0);
	CHECK_EQ(more ? libvhost_mem_alloc(c->mem, MORE_AT, 0x10000) : libvhost_mem_remove(c->mem, MORE_AT, 0x10000),
		 0);
	CHECK_EQ(libvhost_mem_commit(c->mem, DEADLINE, &lost), 0);
	CHECK_EQ(lost, 0);
}

/* While it rests its rings stand still, whoever kicks. */
static void stop_and_start(struct cycles *c)
{
	struct libvhost_queue queue = {.size = sizeof(queue)};

	CHECK_EQ(libvhost_dev_stop(c->dev, NULL), 0);
	for (uint32_t q = 0; q < QUEUES; q++) {
		CHECK_EQ(libvhost_dev_get_queue(c->dev, q, &queue), 0);
		CHECK_EQ(queue.base, atomic_load(c->ring[q].used));
	}
	CHECK_EQ(libvhost_dev_start(c->dev, NULL), 0);
	runs(c);
}

static void stop_and_start_one(struct cycles *c, uint32_t q)
{
	CHECK_EQ(libvhost_dev_stop_queue(c->dev, q, DEADLINE), 0);
	CHECK_EQ(libvhost_dev_start_queue(c->dev, q, DEADLINE), 0);
}

/* All that was offered is completed, once. */
static void drained(struct cycles *c)
{
	hold_guest(c);
	for (uint32_t q = 0; q < QUEUES; q++) {
		for (int i = 0; atomic_load(c->ring[q].used) != c->ring[q].offered && i < DEADLINE * 20; i++)
			usleep(50);
		CHECK_EQ(atomic_load(c->ring[q].used), c->ring[q].offered);
	}
	release_guest(c);
}

static void disconnect(struct cycles *c)
{
	libvhost_dev_cleanup(c->dev);
	c->dev = NULL;
}

/* Before the guest may write its rings anew: a clean-up waits for nobody. */
static void wait_gone(struct cycles *c, unsigned before)
{
	for (int i = 0; c->gone == before && i < DEADLINE; i++)
		usleep(1000);
	CHECK_EQ(c->gone, before + 1);
}

static void leave(struct cycles *c)
{
	atomic_store(&c->left, true);
	CHECK_EQ(pthread_join(c->dispatcher, NULL), 0);
}

/* Ways to end; the guest kicks on in each. */
static void finish(struct cycles *c, unsigned way)
{
	const unsigned gone = c->gone;

	switch (way) {
	case 0: /* in order */
		drained(c);
		CHECK_EQ(libvhost_dev_stop(c->dev, NULL), 0);
		disconnect(c);
		CHECK_EQ(libvhost_backend_stop(c->b, DEADLINE), 0);
		leave(c);
		break;
	case 1: /* the front-end goes in the middle, another comes, and goes, too */
		disconnect(c);
		wait_gone(c, gone);
		connect_front_end(c);
		disconnect(c);
		leave(c);
		break;
	case 2: /* the back-end stops under a front-end, while another thread is in dispatch */
		CHECK_EQ(libvhost_backend_stop(c->b, DEADLINE), 0);
		leave(c);
		disconnect(c);
		break;
	default: /* it is freed while its rings run */
		leave(c);
		libvhost_backend_free(c->b);
		c->b = NULL;
		disconnect(c);
	}
	libvhost_backend_free(c->b);
	CHECK(access(c->path, F_OK) < 0);
}

static void cycle(struct cycles *c, unsigned n)
{
	listen_anew(c);
	connect_front_end(c);
	change_memory(c, true);
	stop_and_start(c);
	CHECK_EQ(libvhost_backend_move_queue(c->b, 1, n % 2, DEADLINE), 0);
	stop_and_start_one(c, n % QUEUES);
	change_memory(c, false);
	runs(c);
	finish(c, n % 4);
}

static unsigned cycles_wanted(void)
{
	const char *text = getenv("CYCLES");

	if (text)
		alarm(0); /* the limit of a test is for those of usual length */
	return text ? (unsigned)strtoul(text, NULL, 10) : CYCLES;
}

static void begin(struct cycles *c)
{
	memset(c, 0, sizeof(*c));
	snprintf(c->path, sizeof(c->path), "/tmp/libvhost-cycles-%d.sock", getpid());
	snprintf(c->uri, sizeof(c->uri), "user:%s", c->path);
	CHECK_EQ(libvhost_ctx_new(NULL, &c->ctx), 0);
	CHECK_EQ(libvhost_mem_new(c->ctx, NULL, &c->mem), 0);
	CHECK_EQ(libvhost_mem_begin(c->mem), 0);
	CHECK_EQ(libvhost_mem_alloc(c->mem, 0, GUEST), 0);
	CHECK_EQ(libvhost_mem_commit(c->mem, 0, NULL), 0);
	for (uint32_t q = 0; q < QUEUES; q++)
		c->ring[q].kick = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	write_rings(c);
	atomic_store(&c->hold, true);
	CHECK_EQ(pthread_create(&c->guest, NULL, run_guest, c), 0);
}

static void end(struct cycles *c)
{
	atomic_store(&c->end, true);
	CHECK_EQ(pthread_join(c->guest, NULL), 0);
	for (uint32_t q = 0; q < QUEUES; q++)
		close(c->ring[q].kick);
	libvhost_mem_free(c->mem);
	libvhost_ctx_free(c->ctx);
}

struct balance {
	struct lv_ledger l;
	long blocks;
};

static struct balance take(const char *when)
{
	const struct balance b = {.l = lv_ledger_take(), .blocks = BLOCKS()};

	printf("# %s: %u descriptors, %u maps, %u threads, %ld allocations\n", when, b.l.fds, b.l.maps, b.l.threads + 1,
	       b.blocks); /* the ledger does not count the first thread */
	return b;
}

TEST(cycles, nothing_is_left_of_a_thousand_back_ends)
{
	const unsigned wanted = cycles_wanted();
	struct balance before, after;
	struct cycles c;

	printf("# sandbox %s\n", FAKE_SANDBOX == LIBVHOST_SANDBOX_OFF ? "off, as a sanitizer needs it" : "on");
	begin(&c);
	for (unsigned n = 0; n < WARM_UP; n++)
		cycle(&c, n);
	before = take("before");
	for (unsigned n = 0; n < wanted; n++)
		cycle(&c, n);
	CHECK_LEDGER(before.l);
	printf("# %u cycles\n", wanted);
	after = take("after");
	CHECK_EQ(after.blocks, before.blocks);
	if (COUNTED) /* a sanitizer's own come and go */
		CHECK_EQ(after.l.maps, before.l.maps);
	end(&c);
}
