/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* A worker's descriptors and timers, queues that wait for them, and the worker's end. */
#include "workerhelp.h"

#include <errno.h>
#include <sys/timerfd.h>

/* --- descriptors --- */

struct reader {
	atomic_uint bytes, calls;
	int result;
	bool leave_some;
};

static int read_some(void *arg, int fd)
{
	struct reader *r = arg;
	char byte[4];
	ssize_t n;

	atomic_fetch_add(&r->calls, 1);
	do {
		n = read(fd, byte, r->leave_some ? 1 : sizeof(byte));
		if (n > 0)
			atomic_fetch_add(&r->bytes, (unsigned)n);
	} while (n > 0 && !r->leave_some);
	return n > 0 ? 1 : r->result;
}

TEST(worker_fds, a_pipe_is_read_when_it_has_something)
{
	struct bench b = setup(8, 0, LIBVHOST_WORKER_NO_WINDOW);
	struct reader r = {0}, slow = {.leave_some = true};
	int p[2], q[2];

	CHECK_EQ(pipe2(p, O_CLOEXEC | O_NONBLOCK), 0);
	CHECK_EQ(pipe2(q, O_CLOEXEC | O_NONBLOCK), 0);
	CHECK_EQ(write(p[1], "before", 6), 6);
	CHECK_EQ(libvhost_worker_add_fd(b.w, p[0], read_some, &r, PATIENCE_MS), 0);
	CHECK_EQ(libvhost_worker_add_fd(b.w, q[0], read_some, &slow, PATIENCE_MS), 0);
	CHECK(becomes(&r.bytes, 6));
	for (unsigned i = 1; i <= 100; i++) {
		CHECK_EQ(write(p[1], "abcdefg", 7), 7);
		CHECK(becomes(&r.bytes, 6 + 7 * i));
	}
	CHECK_EQ(write(q[1], "one by one", 10), 10);
	CHECK(becomes(&slow.bytes, 10));
	CHECK_EQ(libvhost_worker_remove_fd(b.w, p[0], PATIENCE_MS), 0);
	CHECK_EQ(write(p[1], "after", 5), 5);
	usleep(20000);
	CHECK_EQ(atomic_load(&r.bytes), 706);
	CHECK_EQ(libvhost_worker_stop(b.w, PATIENCE_MS), 0); /* descriptors are borrowed */
	for (int i = 0; i < 2; i++) {
		close(p[i]);
		close(q[i]);
	}
	teardown(&b);
}

struct ticker {
	atomic_uint ticks;
	unsigned most;
};

static int tick(void *arg, int fd)
{
	const struct itimerspec off = {0};
	struct ticker *t = arg;
	uint64_t n;

	if (read(fd, &n, sizeof(n)) == sizeof(n) && atomic_fetch_add(&t->ticks, (unsigned)n) + n >= t->most)
		return timerfd_settime(fd, 0, &off, NULL) < 0 ? -errno : 0;
	return 0;
}

TEST(worker_fds, a_timer_ticks_and_its_handler_ends_it)
{
	struct bench b = setup(8, 0, LIBVHOST_WORKER_NO_WINDOW);
	struct ticker t = {.most = 20};
	const struct itimerspec every = {.it_interval = {.tv_nsec = 2000000}, .it_value = {.tv_nsec = 2000000}};
	int fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
	unsigned ticks;

	CHECK_EQ(libvhost_worker_add_fd(b.w, fd, tick, &t, PATIENCE_MS), 0);
	CHECK_EQ(timerfd_settime(fd, 0, &every, NULL), 0);
	for (int i = 0; i < PATIENCE_MS && atomic_load(&t.ticks) < t.most; i++)
		usleep(1000);
	ticks = atomic_load(&t.ticks);
	CHECK(ticks >= t.most);
	usleep(20000);
	CHECK_EQ(atomic_load(&t.ticks), ticks);
	CHECK_EQ(libvhost_worker_next_event(b.w, &(struct libvhost_event){0}), 0);
	CHECK_EQ(libvhost_worker_stop(b.w, PATIENCE_MS), 0); /* descriptors are borrowed */
	close(fd);
	teardown(&b);
}

TEST(worker_fds, one_that_fails_is_reported_once)
{
	struct bench b = setup(8, 0, LIBVHOST_WORKER_NO_WINDOW);
	struct reader r = {.result = -EPIPE};
	struct libvhost_event ev = {0};
	struct pollfd p;
	int fds[2];

	CHECK_EQ(pipe2(fds, O_CLOEXEC | O_NONBLOCK), 0);
	CHECK_EQ(write(fds[1], "x", 1), 1);
	CHECK_EQ(libvhost_worker_add_fd(b.w, fds[0], read_some, &r, PATIENCE_MS), 0);
	p = (struct pollfd){.fd = libvhost_worker_fd(b.w), .events = POLLIN};
	CHECK_EQ(poll(&p, 1, PATIENCE_MS), 1);
	CHECK_EQ(libvhost_worker_next_event(b.w, &ev), 1);
	CHECK_EQ(ev.type, LIBVHOST_EVENT_QUEUE_ERROR);
	CHECK_EQ(ev.queue, UINT32_MAX);
	CHECK_EQ(ev.err, -EPIPE);
	CHECK_EQ(ev.value[0], (uint64_t)fds[0]);
	CHECK_EQ(libvhost_worker_next_event(b.w, &ev), 0);
	CHECK_EQ(write(fds[1], "x", 1), 1);
	usleep(20000);
	CHECK_EQ(atomic_load(&r.calls), 1);
	CHECK_EQ(libvhost_worker_remove_fd(b.w, fds[0], PATIENCE_MS), 0);
	r.result = 0;
	CHECK_EQ(libvhost_worker_add_fd(b.w, fds[0], read_some, &r, PATIENCE_MS), 0); /* and can come back */
	CHECK(becomes(&r.bytes, 2));
	CHECK_EQ(libvhost_worker_stop(b.w, PATIENCE_MS), 0); /* descriptors are borrowed */
	close(fds[0]);
	close(fds[1]);
	teardown(&b);
}

TEST(worker_fds, arguments_and_limits)
{
	struct bench b = setup(8, 0, LIBVHOST_WORKER_NO_WINDOW);
	struct reader r = {0};
	int fds[33], file = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);

	for (int i = 0; i < 33; i++)
		fds[i] = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	CHECK_EQ(libvhost_worker_add_fd(b.w, -1, read_some, &r, 0), -EINVAL);
	CHECK_EQ(libvhost_worker_add_fd(b.w, fds[0], NULL, &r, 0), -EINVAL);
	CHECK_EQ(libvhost_worker_add_fd(b.w, file, read_some, &r, 0), -EINVAL);
	CHECK_EQ(libvhost_worker_add_fd(b.w, 9999, read_some, &r, 0), -EINVAL);
	CHECK_EQ(libvhost_worker_remove_fd(b.w, fds[0], 0), -ENOENT);
	for (int i = 0; i < 32; i++)
		CHECK_EQ(libvhost_worker_add_fd(b.w, fds[i], read_some, &r, 0), 0);
	CHECK_EQ(libvhost_worker_add_fd(b.w, fds[7], read_some, &r, 0), -EEXIST);
	CHECK_EQ(libvhost_worker_add_fd(b.w, fds[32], read_some, &r, 0), -ENOSPC);
	CHECK_EQ(libvhost_worker_remove_fd(b.w, fds[7], 0), 0);
	CHECK_EQ(libvhost_worker_add_fd(b.w, fds[32], read_some, &r, 0), 0);
	CHECK_EQ(libvhost_worker_stop(b.w, PATIENCE_MS), 0); /* descriptors are borrowed */
	for (int i = 0; i < 33; i++)
		close(fds[i]);
	close(file);
	teardown(&b);
}

/* --- queues that wait --- */

struct receiver {
	struct libvhost_vq *vq;
	atomic_uint turns;
	atomic_bool frame;
};

/* Like a receive queue: buffers lie ready, frames come from elsewhere. */
static int receive(void *arg, struct libvhost_vq *vq)
{
	struct receiver *r = arg;

	atomic_fetch_add(&r->turns, 1);
	if (!atomic_exchange(&r->frame, false))
		return LIBVHOST_TURN_WAIT;
	return complete_all(NULL, vq);
}

static int frame_came(void *arg, int fd)
{
	struct receiver *r = arg;
	uint64_t n;

	if (read(fd, &n, sizeof(n)) != sizeof(n))
		return 0;
	atomic_store(&r->frame, true);
	return libvhost_vq_wake(r->vq);
}

static void receive_frames(uint32_t poll_us, uint32_t flags)
{
	struct bench b = setup_opts(8, 0, (struct libvhost_worker_opts){.poll_us = poll_us, .flags = flags});
	struct receiver r = {.vq = b.r.dev};
	unsigned turns;
	int tap = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);

	CHECK_EQ(libvhost_vq_wake(b.r.dev), -EINVAL);
	CHECK(libvhost_vq_worker(b.r.dev) == NULL);
	CHECK_EQ(libvhost_worker_add_fd(b.w, tap, frame_came, &r, PATIENCE_MS), 0);
	add(&b, b.r.kick, receive, &r);
	CHECK(libvhost_vq_worker(b.r.dev) == b.w);
	for (uint64_t i = 0; i < 200; i++) {
		offer_one(&b, i);
		eventfd_write(tap, 1);
		if (!completed(&b, i))
			lv_test_fail(__FILE__, __LINE__, "frame %llu was lost", (unsigned long long)i);
	}
	offer_one(&b, 200);
	usleep(20000);
	turns = atomic_load(&r.turns);
	usleep(50000);
	CHECK(atomic_load(&r.turns) - turns <= 1); /* a buffer that lies ready is no work */
	CHECK_EQ(libvhost_worker_remove_vq(b.w, b.r.dev, PATIENCE_MS), 0);
	CHECK(libvhost_vq_worker(b.r.dev) == NULL);
	CHECK_EQ(libvhost_worker_stop(b.w, PATIENCE_MS), 0); /* descriptors are borrowed */
	close(tap);
	teardown(&b);
}

TEST(worker_wait, a_queue_waits_for_frames_without_spinning)
{
	receive_frames(LIBVHOST_WORKER_NO_WINDOW, 0);
}

TEST(worker_wait, also_while_polling)
{
	receive_frames(200, 0);
	receive_frames(0, LIBVHOST_WORKER_BUSY);
}

/* --- its end, and never sleeping --- */

TEST(worker_end, busy_worker_never_sleeps)
{
	struct bench b = setup_opts(8, 0, (struct libvhost_worker_opts){.flags = LIBVHOST_WORKER_BUSY});
	uint64_t wakeups;

	add(&b, b.r.kick, complete_all, NULL);
	offer_one(&b, 0);
	CHECK(completed(&b, 0));
	wakeups = status(&b).wakeups;
	for (uint64_t i = 1; i < 50; i++) {
		CHECK_EQ(offer_one(&b, i), 0); /* it asked for no kicks */
		CHECK(completed(&b, i));
		usleep(1000);
	}
	CHECK_EQ(status(&b).wakeups, wakeups);
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

TEST(worker_end, stop_has_a_deadline)
{
	struct bench b = setup(8, 0, LIBVHOST_WORKER_NO_WINDOW);
	struct libvhost_error e = {.size = sizeof(e)};
	static atomic_int flag;
	int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);

	add(&b, b.r.kick, stuck, &flag);
	while (!atomic_load(&flag))
		;
	CHECK_EQ(libvhost_worker_stop(b.w, 50), -ETIMEDOUT);
	CHECK_EQ(libvhost_worker_error(b.w, &e), 0);
	CHECK_EQ(e.kind, LIBVHOST_EK_TIMEOUT);
	atomic_store(&flag, 2);
	CHECK_EQ(libvhost_worker_stop(b.w, PATIENCE_MS), 0);
	CHECK_EQ(libvhost_worker_stop(b.w, PATIENCE_MS), 0);
	CHECK_EQ(libvhost_worker_stop(NULL, 0), -EINVAL);
	CHECK_EQ(libvhost_worker_add_fd(b.w, fd, read_some, NULL, 0), -ESRCH);
	CHECK_EQ(libvhost_worker_remove_vq(b.w, b.r.dev, 0), 0);
	CHECK_EQ(libvhost_worker_add_vq(b.w, b.r.dev, -1, complete_all, NULL, 0), -ESRCH);
	CHECK_EQ(libvhost_worker_status(
			 b.w, &(struct libvhost_worker_status){.size = sizeof(struct libvhost_worker_status)}),
		 -ESRCH);
	close(fd);
	teardown(&b);
}
