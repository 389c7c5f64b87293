/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* Operations that dispatch drives, cancellation, and threads that meet on one device. */
#include "devrig.h"

#include <poll.h>
#include <pthread.h>
#include <time.h>
#include "core/wire.h"

#define OP(name) LIBVHOST_OP_##name

static const struct libvhost_call_opts async = {.size = sizeof(async), .flags = LIBVHOST_CALL_ASYNC};

static void slow_ready(struct devrig *r, uint32_t flags)
{
	struct libvhost_event e;

	devrig_init(r);
	r->f.slow = true;
	r->opts.flags = flags;
	CHECK_EQ(devrig_open(r), flags & LIBVHOST_DEV_ASYNC ? -EINPROGRESS : 0);
	if (flags & LIBVHOST_DEV_ASYNC) {
		CHECK(devrig_await(r, LIBVHOST_EVENT_DONE, PATIENCE_MS, &e));
		CHECK_EQ(e.value[0], LIBVHOST_OPERATION_INIT);
		CHECK_EQ(e.err, 0);
	}
	devrig_queues(r, DEVRIG_QUEUES);
}

TEST(device_async, tells_the_peer_the_same_as_blocking)
{
	struct devrig a, b;
	struct libvhost_event e;

	slow_ready(&a, 0);
	slow_ready(&b, LIBVHOST_DEV_ASYNC);
	CHECK_EQ(a.f.nseen, b.f.nseen);
	CHECK_EQ(libvhost_dev_start(a.dev, NULL), 0);
	CHECK_EQ(libvhost_dev_start(b.dev, &async), -EINPROGRESS);
	CHECK_EQ(libvhost_dev_stop(b.dev, NULL), -EBUSY);
	CHECK(devrig_await(&b, LIBVHOST_EVENT_DONE, PATIENCE_MS, &e));
	CHECK_EQ(e.err, 0);
	CHECK_EQ(e.value[0], LIBVHOST_OPERATION_START);
	CHECK_EQ(devrig_state(&b), LIBVHOST_DEV_RUNNING);
	CHECK_EQ(libvhost_dev_stop(a.dev, NULL), 0);
	CHECK_EQ(libvhost_dev_stop(b.dev, &async), -EINPROGRESS);
	CHECK(devrig_await(&b, LIBVHOST_EVENT_DONE, PATIENCE_MS, &e));
	CHECK_EQ(a.f.nseen, b.f.nseen);
	CHECK_MEM(a.f.seen, b.f.seen, a.f.nseen * sizeof(a.f.seen[0]));
	libvhost_dev_cleanup(b.dev);
	guest_free(&b.g);
	devrig_close(&a);
}

TEST(device_async, the_descriptor_says_when)
{
	struct pollfd p = {.events = POLLIN};
	struct libvhost_event e;
	struct devrig r;
	unsigned rounds = 0;

	slow_ready(&r, 0);
	p.fd = libvhost_dev_fd(r.dev);
	CHECK(p.fd >= 0);
	CHECK_EQ(libvhost_dev_fd(r.dev), p.fd);
	CHECK_EQ(libvhost_dev_dispatch(r.dev, 0), 0);
	CHECK_EQ(poll(&p, 1, 0), 0);
	CHECK_EQ(libvhost_dev_start(r.dev, &async), -EINPROGRESS);
	while (libvhost_dev_next_event(r.dev, &e) != 1 && rounds++ < 20) {
		CHECK_EQ(poll(&p, 1, PATIENCE_MS), 1);
		CHECK_EQ(libvhost_dev_dispatch(r.dev, 0), 0);
	}
	CHECK_EQ(e.type, LIBVHOST_EVENT_DONE);
	CHECK_EQ(libvhost_dev_dispatch(r.dev, 0), 0);
	CHECK_EQ(poll(&p, 1, 0), 0);
	r.f.stall_op = OP(GET_VRING_BASE);
	CHECK_EQ(libvhost_dev_stop(r.dev, &(struct libvhost_call_opts){.size = sizeof(async),
								       .flags = LIBVHOST_CALL_ASYNC,
								       .timeout_ms = 30}),
		 -EINPROGRESS);
	for (rounds = 0; libvhost_dev_next_event(r.dev, &e) != 1 && rounds < 20; rounds++) {
		CHECK_EQ(poll(&p, 1, PATIENCE_MS), 1); /* the deadline is a timer in the set */
		CHECK_EQ(libvhost_dev_dispatch(r.dev, 0), 0);
	}
	CHECK_EQ(e.err, -ETIMEDOUT);
	devrig_close(&r);
}

TEST(device_async, error_eventfds_become_events)
{
	struct libvhost_queue q = {.size = sizeof(q)};
	struct libvhost_event e;
	struct devrig r;

	slow_ready(&r, 0);
	CHECK_EQ(libvhost_dev_start(r.dev, NULL), 0);
	CHECK_EQ(libvhost_dev_get_queue(r.dev, 2, &q), 0);
	CHECK(q.err_fd >= 0);
	lv_eventfd_signal(q.err_fd);
	CHECK(devrig_await(&r, LIBVHOST_EVENT_QUEUE_ERROR, PATIENCE_MS, &e));
	CHECK_EQ(e.queue, 2);
	for (int i = 0; i < 200; i++) {
		lv_eventfd_signal(q.err_fd);
		CHECK_EQ(libvhost_dev_dispatch(r.dev, 0), 0);
	}
	CHECK_EQ(devrig_events(&r, LIBVHOST_EVENT_QUEUE_ERROR, NULL), 1); /* one is enough to say it */
	devrig_close(&r);
}

/* A duplicate elsewhere keeps a closed descriptor in an epoll set, and nobody could ever take it out again. */
TEST(device_async, duplicates_of_closed_descriptors_are_not_watched)
{
	struct pollfd p = {.events = POLLIN};
	int copies[DEVRIG_QUEUES];
	struct devrig r;

	slow_ready(&r, 0);
	CHECK_EQ(libvhost_dev_start(r.dev, NULL), 0);
	p.fd = libvhost_dev_fd(r.dev);
	for (uint32_t i = 0; i < DEVRIG_QUEUES; i++) {
		struct libvhost_queue q = {.size = sizeof(q)};

		CHECK_EQ(libvhost_dev_get_queue(r.dev, i, &q), 0);
		copies[i] = lv_fd_dup(q.err_fd);
	}
	CHECK_EQ(libvhost_dev_reset(r.dev, NULL), 0);
	for (uint32_t i = 0; i < DEVRIG_QUEUES; i++)
		lv_eventfd_signal(copies[i]);
	CHECK_EQ(libvhost_dev_dispatch(r.dev, 0), 0);
	CHECK_EQ(poll(&p, 1, 0), 0);
	for (uint32_t i = 0; i < DEVRIG_QUEUES; i++)
		lv_fd_close(copies[i]);
	devrig_close(&r);
}

/* ---- threads ---- */

static void wait_stalled(struct devrig *r)
{
	for (int i = 0; i < PATIENCE_MS && !atomic_load(&r->f.stalled); i++)
		nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
	CHECK(atomic_load(&r->f.stalled));
}

static void *start_thread(void *arg)
{
	struct devrig *r = arg;

	return (void *)(intptr_t)libvhost_dev_start(r->dev, NULL);
}

TEST(device_async, a_second_thread_is_busy_and_can_cancel)
{
	struct libvhost_queue q = devrig_queue(0);
	uint64_t features = 0, began;
	pthread_t thread;
	struct devrig r;
	void *result;

	slow_ready(&r, 0);
	r.f.stall_op = OP(SET_VRING_ADDR);
	CHECK_EQ(pthread_create(&thread, NULL, start_thread, &r), 0);
	wait_stalled(&r);
	CHECK_EQ(libvhost_dev_start(r.dev, NULL), -EBUSY);
	CHECK_EQ(libvhost_dev_set_queue(r.dev, 0, &q), -EBUSY);
	CHECK_EQ(libvhost_ack_features_ex(r.dev, &features, 1), -EBUSY);
	CHECK_EQ(libvhost_dev_dispatch(r.dev, 0), -EBUSY);
	CHECK_EQ(devrig_error(&r).kind, LIBVHOST_EK_BUSY);
	CHECK_EQ(devrig_state(&r), LIBVHOST_DEV_NEGOTIATED);
	began = now_ms();
	CHECK_EQ(libvhost_dev_cancel(r.dev), 0);
	CHECK_EQ(pthread_join(thread, &result), 0);
	CHECK(now_ms() - began < PROMPT_MS);
	CHECK_EQ((intptr_t)result, -ECANCELED);
	CHECK_EQ(devrig_state(&r), LIBVHOST_DEV_LOST);
	r.f.stall_op = 0;
	CHECK_EQ(libvhost_dev_stop(r.dev, NULL), 0);
	CHECK_EQ(libvhost_dev_start(r.dev, NULL), 0);
	devrig_close(&r);
}

static void *dispatch_thread(void *arg)
{
	struct devrig *r = arg;
	const uint64_t began = now_ms();

	if (libvhost_dev_dispatch(r->dev, PATIENCE_MS))
		return NULL;
	return (void *)(uintptr_t)(now_ms() - began + 1);
}

/* A thread that waits in dispatch knows nothing of what another one begins: not its deadline, not its descriptors. */
TEST(device_async, an_operation_ends_the_wait_of_another_thread)
{
	pthread_t thread;
	struct devrig r;
	void *took;

	devrig_ready(&r);
	CHECK_EQ(pthread_create(&thread, NULL, dispatch_thread, &r), 0);
	nanosleep(&(struct timespec){.tv_nsec = 50000000}, NULL);
	r.f.stall_op = OP(SET_VRING_ADDR);
	CHECK_EQ(libvhost_dev_start(r.dev, &async), -EINPROGRESS);
	CHECK_EQ(pthread_join(thread, &took), 0);
	CHECK(took && (uintptr_t)took < PROMPT_MS);
	devrig_close(&r);
}

/* Else a loop around dispatch takes a whole processor while another thread's call waits for the peer. */
TEST(device_async, dispatch_waits_for_another_thread_to_leave)
{
	pthread_t thread;
	struct devrig r;
	void *result;
	uint64_t began;

	slow_ready(&r, 0);
	r.f.stall_op = OP(SET_VRING_ADDR);
	CHECK_EQ(pthread_create(&thread, NULL, start_thread, &r), 0);
	wait_stalled(&r);
	began = now_ms();
	CHECK_EQ(libvhost_dev_dispatch(r.dev, 50), -EBUSY);
	CHECK(now_ms() - began >= 49);
	CHECK_EQ(libvhost_dev_cancel(r.dev), 0);
	CHECK_EQ(libvhost_dev_dispatch(r.dev, PATIENCE_MS), 0);
	CHECK_EQ(pthread_join(thread, &result), 0);
	CHECK_EQ((intptr_t)result, -ECANCELED);
	devrig_close(&r);
}

static void *cleanup_thread(void *arg)
{
	struct devrig *r = arg;

	wait_stalled(r);
	libvhost_dev_cleanup(r->dev);
	return NULL;
}

TEST(device_async, cleanup_does_not_wait_for_a_mute_peer)
{
	const uint64_t began = now_ms();
	pthread_t thread;
	struct devrig r;

	slow_ready(&r, 0);
	r.f.stall_op = OP(SET_FEATURES);
	CHECK_EQ(pthread_create(&thread, NULL, cleanup_thread, &r), 0);
	CHECK_EQ(libvhost_dev_start(r.dev, NULL), -ECANCELED);
	CHECK_EQ(pthread_join(thread, NULL), 0);
	CHECK(now_ms() - began < PROMPT_MS);
	guest_free(&r.g);
	CHECK_LEDGER(r.before);
}

static void *mask_thread(void *arg)
{
	struct devrig *r = arg;

	for (int i = 0; i < 200; i++)
		if (libvhost_virtqueue_mask(r->dev, 1, i & 1))
			return r;
	return NULL;
}

/* Short requests of several threads wait for each other, and for a thread that serves in dispatch. */
TEST(device_async, masks_of_several_threads_never_fail)
{
	pthread_t threads[2];
	struct devrig r;
	void *result;

	slow_ready(&r, 0);
	CHECK_EQ(libvhost_dev_start(r.dev, NULL), 0);
	for (int i = 0; i < 2; i++)
		CHECK_EQ(pthread_create(&threads[i], NULL, mask_thread, &r), 0);
	for (int i = 0; i < 200; i++) {
		int rc = libvhost_dev_dispatch(r.dev, 1);

		CHECK(rc == 0 || rc == -EBUSY);
	}
	for (int i = 0; i < 2; i++) {
		CHECK_EQ(pthread_join(threads[i], &result), 0);
		CHECK(!result);
	}
	CHECK_EQ(devrig_state(&r), LIBVHOST_DEV_RUNNING);
	devrig_close(&r);
}
