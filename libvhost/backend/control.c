/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/*
 * LIBVHOST_BACKEND_CONTROL_WORKER: a sandboxed thread that does what dispatch does otherwise. It waits for the
 * back-end's epoll set as for any descriptor of a worker, and works under the back-end's lock. What it may not do is
 * left to the host: to connect (dispatch), to listen and to end.
 *
 * The host waits for a timer of its own, which is armed for the next attempt to connect, and has expired as long as
 * there are events.
 */
#include <errno.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <time.h>

#include "backend/device.h"
#include "worker/worker.h"

#define START_MS      1000u
#define STAND_BACK_NS 50000

/* On the control worker. 1 = there is more to do. */
static int work(void *arg, int epoll_fd)
{
	struct libvhost_backend *b = arg;
	struct epoll_event event;
	bool stopped;

	if (atomic_load(&b->waiting)) { /* a host that wants something goes first, whatever front-ends send */
		nanosleep(&(struct timespec){.tv_nsec = STAND_BACK_NS}, NULL);
		return 1;
	}
	pthread_mutex_lock(&b->lock);
	stopped = b->stopped;
	if (!stopped)
		lv_backend_turn(b);
	pthread_mutex_unlock(&b->lock);
	return !stopped && epoll_wait(epoll_fd, &event, 1, 0) > 0;
}

/* The sandbox is that of the ring workers, with the rules for control messages in place of theirs. */
static int start(struct libvhost_backend *b, const struct libvhost_worker_opts *rings)
{
	struct libvhost_worker_opts o = {.size = sizeof(o),
					 .role = LIBVHOST_ROLE_CONTROL,
					 .poll_us = LIBVHOST_WORKER_NO_WINDOW,
					 .name = "vhost-control"};
	int rc;

	if (rings) {
		o.sandbox = rings->sandbox;
		o.action = rings->action;
		o.caps = rings->caps;
		o.num_syscalls = rings->num_syscalls;
		o.syscalls = rings->syscalls;
	}
	b->host_fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
	if (b->host_fd < 0)
		return lv_fail_sys(&b->ctx->err, errno, "back-end: timer: %s", lv_errno_name(errno));
	rc = libvhost_worker_new(b->ctx, &o, &b->control);
	if (rc < 0)
		return rc;
	lv_backend_rewatch(b);
	rc = lv_worker_add_fd(b->control, b->epoll_fd, work, b, START_MS);
	return rc < 0 ? lv_fail_copy(&b->ctx->err, &b->control->err) : 0;
}

int lv_control_start(struct libvhost_backend *b, const struct libvhost_worker_opts *rings)
{
	return b->opts.flags & LIBVHOST_BACKEND_CONTROL_WORKER ? start(b, rings) : 0;
}

int lv_control_check(struct libvhost_backend *b)
{
	if (!(b->opts.flags & LIBVHOST_BACKEND_CONTROL_WORKER) || (!lv_pulled(b) && !b->ops.on_request))
		return 0;
	return lv_fail(
		&b->ctx->err, -EINVAL, LIBVHOST_EK_ARGUMENT,
		"back-end: LIBVHOST_BACKEND_CONTROL_WORKER leaves out LIBVHOST_BACKEND_PULL, whose queues belong "
		"to the thread that dispatches, and ops.on_request, which no sandbox fits");
}

void lv_control_arm(struct libvhost_backend *b)
{
	const uint64_t client = lv_client_deadline(b), now = lv_now(b->ctx);
	uint64_t left = client > now ? client - now : 1;
	struct itimerspec spec = {0};

	if (!b->control)
		return;
	if (b->event_count || b->stopped)
		left = 1;
	if (client || b->event_count || b->stopped)
		spec.it_value = (struct timespec){.tv_sec = (time_t)(left / 1000000000ull),
						  .tv_nsec = (long)(left % 1000000000ull)};
	timerfd_settime(b->host_fd, 0, &spec, NULL);
}

int lv_control_stop(struct libvhost_backend *b, uint32_t timeout_ms)
{
	int rc = b->control ? libvhost_worker_stop(b->control, timeout_ms) : 0;

	if (rc < 0)
		return lv_fail(&b->err, rc, LIBVHOST_EK_TIMEOUT,
			       "back-end: the control worker does not end: a callback does not return; call again");
	return 0;
}

void lv_control_free(struct libvhost_backend *b)
{
	libvhost_worker_free(b->control);
	b->control = NULL;
	lv_fd_close(b->host_fd);
}
