/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* 64 queues of which one is busy. What the others cost is counted: wake-ups, turns of their handlers. */
#include "workerhelp.h"

#include <stdlib.h>

#define QUEUES	 64u
#define NUM	 64u
#define QUIET_MS 300u

struct queue {
	struct rig r;
	_Atomic uint64_t turns;
	atomic_bool restless; /* its handler always wants another turn */
};

struct many {
	struct queue q[QUEUES];
	struct libvhost_worker *w[QUEUES];
	unsigned workers;
};

static int count_and_complete(void *arg, struct libvhost_vq *vq)
{
	struct queue *q = arg;
	int rc;

	atomic_fetch_add_explicit(&q->turns, 1, memory_order_relaxed);
	rc = complete_all(NULL, vq);
	return rc < 0 ? rc : rc || q->restless;
}

static struct many *many_new(unsigned queues, unsigned workers, uint32_t poll_us)
{
	const struct libvhost_worker_opts o = {.size = sizeof(o), .sandbox = SANDBOX, .poll_us = poll_us};
	struct many *m = calloc(1, sizeof(*m));

	CHECK(m != NULL);
	m->workers = workers;
	for (unsigned i = 0; i < queues; i++)
		rig_new(&m->q[i].r, NUM, 0);
	for (unsigned i = 0; i < workers; i++)
		CHECK_EQ(libvhost_worker_new(m->q[0].r.g.ctx, &o, &m->w[i]), 0);
	for (unsigned i = 0; i < queues; i++)
		CHECK_EQ(libvhost_worker_add_vq(m->w[i % workers], m->q[i].r.dev, m->q[i].r.kick, count_and_complete,
						&m->q[i], 1000),
			 0);
	return m;
}

static void many_free(struct many *m)
{
	for (unsigned i = 0; i < m->workers; i++)
		libvhost_worker_free(m->w[i]);
	for (unsigned i = 0; i < QUEUES; i++)
		if (m->q[i].r.dev)
			rig_free(&m->q[i].r);
	free(m);
}

/* The queue is busy: depth requests in flight until count are completed. */
static void load(struct rig *r, unsigned depth, unsigned count)
{
	const struct libvhost_buf buf = {.gpa = DATA, .len = 64};
	struct libvhost_used used[NUM];
	unsigned added = 0, done = 0;

	while (done < count) {
		struct pollfd p = {.fd = r->call, .events = POLLIN};
		uint32_t n = NUM;

		while (added < count && added - done < depth) {
			CHECK_EQ(libvhost_vq_add(r->drv, &buf, 1, 0, added), 0);
			added++;
		}
		CHECK(libvhost_vq_kick(r->drv) >= 0);
		CHECK_EQ(libvhost_vq_get_used(r->drv, used, &n), 0);
		done += n;
		if (n)
			continue;
		if (depth == 1) {
			if (!libvhost_vq_notify_enable(r->drv, 1))
				CHECK(poll(&p, 1, PATIENCE_MS) == 1);
			signalled(r->call);
		} else {
			sched_yield();
		}
	}
}

/* Turns of all queues but the first. */
static uint64_t idle_turns(const struct many *m)
{
	uint64_t n = 0;

	for (unsigned i = 1; i < QUEUES; i++)
		n += m->q[i].turns;
	return n;
}

/* Each queue has been in use, and the first one stays so: soon the others are not looked at any more. */
static void idle_beside(uint32_t poll_us, unsigned depth)
{
	struct many *m = many_new(QUEUES, 1, poll_us), *alone = many_new(1, 1, poll_us);
	const unsigned count = depth == 1 ? 1000 : 20000;
	double best[2] = {1e9, 1e9};
	uint64_t before;

	m->q[0].restless = depth > 1;
	for (unsigned i = 0; i < QUEUES; i++)
		load(&m->q[i].r, 1, 1);
	load(&m->q[0].r, depth, 4 * count); /* they are found out */
	before = idle_turns(m);
	for (int round = 0; round < 10; round++) {
		const uint64_t begin = now_us();
		double took;

		load(round % 2 ? &m->q[0].r : &alone->q[0].r, depth, count);
		took = (double)(now_us() - begin) / count;
		best[round % 2] = took < best[round % 2] ? took : best[round % 2];
	}
	printf("# depth %u, poll_us %d: %.2f us a request alone, %.2f us beside 63 idle queues\n", depth, (int)poll_us,
	       best[0], best[1]);
	CHECK_EQ(idle_turns(m), before);
	for (unsigned i = 1; i < QUEUES; i++)
		load(&m->q[i].r, 1, 10); /* and kicked they run */
	m->q[0].restless = false;
	many_free(m);
	many_free(alone);
}

TEST(idle, get_no_turn_beside_one_that_sleeps_between_requests)
{
	idle_beside(LIBVHOST_WORKER_NO_WINDOW, 1);
}

TEST(idle, get_no_turn_beside_one_that_is_never_empty)
{
	idle_beside(LIBVHOST_WORKER_NO_WINDOW, 16);
}

TEST(idle, get_no_turn_beside_one_that_is_polled)
{
	idle_beside(100, 1);
	idle_beside(100, 16);
}

struct cost {
	uint64_t wakeups, switches;
};

/* What a worker did, by its own account and by the kernel's. */
static struct cost cost_of(struct libvhost_worker *w)
{
	struct libvhost_worker_status s = {.size = sizeof(s)};
	struct cost c = {0};
	char path[64], line[128];
	unsigned long long n;
	FILE *f;

	CHECK_EQ(libvhost_worker_status(w, &s), 0);
	c.wakeups = s.wakeups;
	snprintf(path, sizeof(path), "/proc/self/task/%u/status", s.tid);
	f = fopen(path, "re");
	CHECK(f != NULL);
	while (fgets(line, sizeof(line), f))
		if (sscanf(line, "voluntary_ctxt_switches: %llu", &n) == 1 ||
		    sscanf(line, "nonvoluntary_ctxt_switches: %llu", &n) == 1)
			c.switches += n;
	fclose(f);
	return c;
}

/* Windows of polling end, and a busy machine may be late with the last turns. */
static void come_to_rest(const struct many *m, struct cost *cost)
{
	struct cost now;
	bool rests = false;

	for (int i = 0; !rests; i++) {
		CHECK(i < PATIENCE_MS / (int)QUIET_MS);
		rests = i > 0;
		for (unsigned w = 0; w < m->workers; w++) {
			now = cost_of(m->w[w]);
			rests &= now.wakeups == cost[w].wakeups && now.switches == cost[w].switches;
			cost[w] = now;
		}
		if (!rests)
			usleep(QUIET_MS * 1000);
	}
}

static void none_wakes(uint32_t poll_us, unsigned workers, bool busy)
{
	struct many *m = many_new(QUEUES, workers, poll_us);
	struct cost before[QUEUES] = {0}, after;
	const unsigned first = busy;

	for (unsigned i = 0; i < QUEUES; i++)
		load(&m->q[i].r, 1, 1);
	come_to_rest(m, before);
	if (busy)
		load(&m->q[0].r, 16, 100000);
	usleep(QUIET_MS * 1000);
	for (unsigned i = first; i < workers; i++) {
		after = cost_of(m->w[i]);
		CHECK_EQ(after.wakeups, before[i].wakeups);
		CHECK_EQ(after.switches, before[i].switches);
	}
	if (busy)
		CHECK(cost_of(m->w[0]).wakeups > before[0].wakeups);
	many_free(m);
}

TEST(idle, workers_of_idle_queues_do_not_wake_up)
{
	none_wakes(LIBVHOST_WORKER_NO_WINDOW, 8, true);
	none_wakes(100, 8, true);
	none_wakes(LIBVHOST_WORKER_NO_WINDOW, QUEUES, true);
}

TEST(idle, a_worker_of_64_idle_queues_does_not_wake_up)
{
	none_wakes(LIBVHOST_WORKER_NO_WINDOW, 1, false);
	none_wakes(100, 1, false);
}
