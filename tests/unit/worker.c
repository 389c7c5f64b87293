/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* The worker's loop: kicks, turns, polling, handover and queues that fail. The sandbox has tests of its own. */
#include "workerhelp.h"

#include "worker/worker.h"

TEST(worker, serves_what_was_offered_before_it_came)
{
	struct bench b = setup(8, 0, LIBVHOST_WORKER_NO_WINDOW);

	offer_one(&b, 1);
	signalled(b.r.kick);
	add(&b, b.r.kick, complete_all, NULL);
	CHECK(completed(&b, 1));
	CHECK_EQ(status(&b).queues, 1);
	CHECK_EQ(libvhost_worker_remove_vq(b.w, b.r.dev, PATIENCE_MS), 0);
	CHECK_EQ(status(&b).queues, 0);
	teardown(&b);
}

static void ping_pong(uint64_t features, uint32_t poll_us, uint64_t rounds)
{
	struct bench b = setup(8, features, poll_us);

	add(&b, b.r.kick, complete_all, NULL);
	for (uint64_t i = 0; i < rounds; i++) {
		offer_one(&b, i);
		if (!completed(&b, i))
			lv_test_fail(__FILE__, __LINE__, "request %llu was lost", (unsigned long long)i);
	}
	CHECK(status(&b).requests >= rounds - 1); /* the last may not be counted yet */
	teardown(&b);
}

TEST(worker, loses_no_wake_up)
{
	ping_pong(0, LIBVHOST_WORKER_NO_WINDOW, 5000);
}

TEST(worker, loses_no_wake_up_with_event_index)
{
	ping_pong(F_EVENT, LIBVHOST_WORKER_NO_WINDOW, 5000);
}

TEST(worker, loses_no_wake_up_while_polling)
{
	ping_pong(F_EVENT, 20, 5000);
	ping_pong(0, 20, 5000);
}

static void window(uint32_t poll_us, uint32_t flags, uint64_t ns)
{
	struct bench b = setup_opts(8, 0, (struct libvhost_worker_opts){.poll_us = poll_us, .flags = flags});

	CHECK_EQ(b.w->loop.poll_max_ns, ns);
	teardown(&b);
}

TEST(worker, has_a_window_unless_it_is_told_otherwise)
{
	window(0, 0, 50000);
	window(7, 0, 7000);
	window(LIBVHOST_WORKER_NO_WINDOW, 0, 0);
	window(0, LIBVHOST_WORKER_BUSY, 0);
}

TEST(worker, windows_have_limits)
{
	struct libvhost_worker_opts o = {.size = sizeof(o), .sandbox = SANDBOX, .poll_us = 1000001};
	struct guest g = guest_new(0);
	struct libvhost_worker *w;

	CHECK_EQ(libvhost_worker_new(g.ctx, &o, &w), -EINVAL);
	o.poll_us = LIBVHOST_WORKER_NO_WINDOW - 1;
	CHECK_EQ(libvhost_worker_new(g.ctx, &o, &w), -EINVAL);
	o.flags = LIBVHOST_WORKER_BUSY;
	o.poll_us = 1;
	CHECK_EQ(libvhost_worker_new(g.ctx, &o, &w), -EINVAL);
	guest_free(&g);
}

TEST(worker, polls_without_being_kicked)
{
	struct bench b = setup(8, 0, 500000);
	uint64_t wakeups;

	add(&b, b.r.kick, complete_all, NULL);
	offer_one(&b, 0);
	CHECK(completed(&b, 0));
	wakeups = status(&b).wakeups;
	for (uint64_t i = 1; i < 100; i++) {
		CHECK_EQ(offer_one(&b, i), 0); /* it asked for no kicks */
		CHECK(completed(&b, i));
	}
	CHECK_EQ(status(&b).wakeups, wakeups);
	teardown(&b);
}

TEST(worker, sleeps_when_nothing_happens)
{
	struct bench b = setup(8, 0, 100);
	uint64_t wakeups = UINT64_MAX;

	add(&b, b.r.kick, complete_all, NULL);
	offer_one(&b, 0);
	CHECK(completed(&b, 0));
	for (int i = 0; wakeups != status(&b).wakeups; i++) { /* a busy machine may be late with the last one */
		CHECK(i < PATIENCE_MS / 200);
		wakeups = status(&b).wakeups;
		usleep(200000);
	}
	teardown(&b);
}

TEST(worker, queue_without_kick_descriptor_is_polled)
{
	struct bench b = setup(8, 0, LIBVHOST_WORKER_NO_WINDOW);

	add(&b, -1, complete_all, NULL);
	for (uint64_t i = 0; i < 20; i++) {
		offer_one(&b, i);
		CHECK(completed(&b, i));
	}
	teardown(&b);
}

static int never_done(void *arg, struct libvhost_vq *vq)
{
	(void)vq;
	atomic_fetch_add((atomic_int *)arg, 1);
	return 1;
}

TEST(worker, greedy_queue_does_not_starve_others)
{
	static atomic_int turns;
	struct bench b = setup(8, 0, LIBVHOST_WORKER_NO_WINDOW);
	struct rig other;

	rig_new(&other, 8, 0);
	CHECK_EQ(libvhost_worker_add_vq(b.w, other.dev, other.kick, never_done, &turns, PATIENCE_MS), 0);
	add(&b, b.r.kick, complete_all, NULL);
	for (uint64_t i = 0; i < 100; i++) {
		offer_one(&b, i);
		CHECK(completed(&b, i));
	}
	CHECK(atomic_load(&turns) > 100);
	CHECK_EQ(libvhost_worker_remove_vq(b.w, other.dev, PATIENCE_MS), 0);
	atomic_store(&turns, 0);
	usleep(1000);
	CHECK_EQ(atomic_load(&turns), 0);
	rig_free(&other);
	teardown(&b);
}

static int stuck(void *arg, struct libvhost_vq *vq)
{
	(void)vq;
	atomic_store((atomic_int *)arg, 1);
	while (atomic_load((atomic_int *)arg) == 1)
		;
	return 0;
}

TEST(worker, stuck_handler_is_reported_by_the_deadline)
{
	struct libvhost_error e = {.size = sizeof(e)};
	struct bench b = setup(8, 0, LIBVHOST_WORKER_NO_WINDOW);
	struct libvhost_vq_opts o = b.r.opts;
	struct libvhost_vq *other = NULL;
	static atomic_int flag;

	o.role = LIBVHOST_VQ_DEVICE;
	CHECK_EQ(libvhost_vq_new(b.r.g.ctx, b.r.g.mem, &o, &other), 0);
	add(&b, b.r.kick, stuck, &flag);
	while (!atomic_load(&flag))
		;
	CHECK_EQ(libvhost_worker_remove_vq(b.w, b.r.dev, 50), -ETIMEDOUT);
	CHECK_EQ(libvhost_worker_error(b.w, &e), 0);
	CHECK_EQ(e.kind, LIBVHOST_EK_TIMEOUT);
	CHECK_EQ(libvhost_worker_add_vq(b.w, other, -1, complete_all, NULL, 50), -ETIMEDOUT);
	atomic_store(&flag, 2);
	CHECK_EQ(libvhost_worker_remove_vq(b.w, other, 1000), -ENOENT);
	CHECK_EQ(libvhost_worker_remove_vq(b.w, b.r.dev, PATIENCE_MS), 0);
	libvhost_vq_free(other);
	teardown(&b);
}

static int fails(void *arg, struct libvhost_vq *vq)
{
	(void)arg;
	(void)vq;
	return -EIO;
}

static struct libvhost_event failure(struct bench *b)
{
	struct pollfd p = {.fd = libvhost_worker_fd(b->w), .events = POLLIN};
	struct libvhost_event ev = {0};

	CHECK_EQ(poll(&p, 1, PATIENCE_MS), 1);
	CHECK_EQ(libvhost_worker_next_event(b->w, &ev), 1);
	CHECK_EQ(ev.type, LIBVHOST_EVENT_QUEUE_ERROR);
	CHECK_EQ(ev.value[0], (uintptr_t)b->r.dev);
	CHECK_EQ(ev.queue, 7);
	CHECK_EQ(libvhost_worker_next_event(b->w, &(struct libvhost_event){0}), 0);
	CHECK_EQ(poll(&p, 1, 0), 0);
	return ev;
}

TEST(worker, failing_handler_stops_its_queue_once)
{
	struct bench b = setup(8, 0, LIBVHOST_WORKER_NO_WINDOW);

	add(&b, b.r.kick, fails, NULL);
	CHECK_EQ(failure(&b).err, -EIO);
	CHECK_EQ(status(&b).queues, 0);
	CHECK_EQ(libvhost_worker_remove_vq(b.w, b.r.dev, PATIENCE_MS), 0);
	add(&b, b.r.kick, complete_all, NULL); /* and can come back */
	offer_one(&b, 5);
	CHECK(completed(&b, 5));
	teardown(&b);
}

TEST(worker, broken_ring_stops_its_queue)
{
	struct bench b = setup(8, 0, LIBVHOST_WORKER_NO_WINDOW);

	add(&b, b.r.kick, complete_all, NULL);
	offer(&b.r, 9999);
	eventfd_write(b.r.kick, 1);
	CHECK_EQ(failure(&b).err, -EBADMSG);
	CHECK_EQ(status(&b).queues, 0);
	teardown(&b);
}

TEST(worker, arguments_and_limits)
{
	struct libvhost_worker_opts opts = {.size = sizeof(opts), .sandbox = 3};
	struct bench b = setup(8, 0, LIBVHOST_WORKER_NO_WINDOW);
	struct libvhost_vq *vqs[65] = {NULL};
	struct libvhost_vq_opts o = b.r.opts;
	int file = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);

	CHECK_EQ(libvhost_worker_new(b.r.g.ctx, &opts, &b.w), -EINVAL);
	opts = (struct libvhost_worker_opts){.size = sizeof(opts)};
	memset(opts.name, 'x', sizeof(opts.name));
	CHECK_EQ(libvhost_worker_new(b.r.g.ctx, &opts, &b.w), -EINVAL);
	CHECK_EQ(libvhost_worker_add_vq(b.w, NULL, -1, complete_all, NULL, 0), -EINVAL);
	CHECK_EQ(libvhost_worker_add_vq(b.w, b.r.dev, file, complete_all, NULL, 0), -EINVAL);
	CHECK_EQ(libvhost_worker_add_vq(b.w, b.r.dev, 9999, complete_all, NULL, 0), -EINVAL);
	o.role = LIBVHOST_VQ_DEVICE;
	for (int i = 0; i < 65; i++)
		CHECK_EQ(libvhost_vq_new(b.r.g.ctx, b.r.g.mem, &o, &vqs[i]), 0);
	for (int i = 0; i < 64; i++)
		CHECK_EQ(libvhost_worker_add_vq(b.w, vqs[i], i ? -1 : b.r.kick, complete_all, NULL, 0), 0);
	CHECK_EQ(libvhost_worker_add_vq(b.w, vqs[3], -1, complete_all, NULL, 0), -EEXIST);
	CHECK_EQ(libvhost_worker_add_vq(b.w, vqs[64], -1, complete_all, NULL, 0), -ENOSPC);
	CHECK_EQ(libvhost_worker_remove_vq(b.w, vqs[64], 0), -ENOENT);
	CHECK_EQ(libvhost_worker_remove_vq(b.w, vqs[63], 0), 0);
	CHECK_EQ(libvhost_worker_add_vq(b.w, vqs[64], b.r.kick, complete_all, NULL, 0), -EEXIST);
	CHECK_EQ(libvhost_worker_add_vq(b.w, vqs[64], -1, complete_all, NULL, 0), 0);
	CHECK_EQ(status(&b).queues, 64);
	for (int i = 0; i < 65; i++) {
		if (i != 63)
			CHECK_EQ(libvhost_worker_remove_vq(b.w, vqs[i], 0), 0);
		libvhost_vq_free(vqs[i]);
	}
	close(file);
	teardown(&b);
}

TEST(worker, r096_tampered_kick_descriptor_does_not_block_it)
{
	struct bench b = setup(8, 0, LIBVHOST_WORKER_NO_WINDOW);

	fcntl(b.r.kick, F_SETFL, 0); /* the peer clears O_NONBLOCK and empties the counter itself */
	add(&b, b.r.kick, complete_all, NULL);
	for (uint64_t i = 0; i < 200; i++) {
		struct pollfd p = {.fd = b.r.kick, .events = POLLIN};

		eventfd_write(b.r.kick, 1);
		if (poll(&p, 1, 0) == 1) {
			fcntl(b.r.kick, F_SETFL, O_NONBLOCK);
			signalled(b.r.kick);
			fcntl(b.r.kick, F_SETFL, 0);
		}
	}
	offer_one(&b, 1);
	CHECK(completed(&b, 1));
	CHECK_EQ(libvhost_worker_remove_vq(b.w, b.r.dev, PATIENCE_MS), 0);
	teardown(&b);
}

TEST(worker, r097_full_call_descriptor_does_not_block_it)
{
	struct libvhost_used used;
	struct bench b = setup(8, 0, LIBVHOST_WORKER_NO_WINDOW);
	uint32_t n = 0;

	fcntl(b.r.call, F_SETFL, 0);
	eventfd_write(b.r.call, 0xfffffffffffffffe);
	add(&b, b.r.kick, complete_all, NULL);
	offer_one(&b, 1);
	for (int i = 0; i < PATIENCE_MS && !n; i++) {
		n = 1;
		CHECK_EQ(libvhost_vq_get_used(b.r.drv, &used, &n), 0);
		usleep(1000);
	}
	CHECK_EQ(n, 1);
	CHECK_EQ(libvhost_worker_remove_vq(b.w, b.r.dev, PATIENCE_MS), 0);
	teardown(&b);
}

TEST(worker, handover_under_load_loses_nothing)
{
	struct bench b = setup(8, F_EVENT, 10);

	for (uint64_t i = 0; i < 1000; i++) {
		if (i % 3 == 0)
			offer_one(&b, i); /* nobody there: the kick waits or comes too early */
		add(&b, i % 7 ? b.r.kick : -1, complete_all, NULL);
		if (i % 3)
			offer_one(&b, i);
		CHECK(completed(&b, i));
		CHECK_EQ(libvhost_worker_remove_vq(b.w, b.r.dev, PATIENCE_MS), 0);
	}
	teardown(&b);
}
