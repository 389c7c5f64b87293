/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/*
 * Waiting: which descriptors matter, the one descriptor for event loops, and dispatch. A thread that waits in dispatch
 * is not inside: other threads may begin operations meanwhile.
 */
#include "device/device.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include "core/wire.h"

uint32_t lv_dev_collect(struct libvhost_dev *dev, struct lv_wait *w, bool err)
{
	uint32_t n = 0;

	w->fds[n++] = (struct pollfd){.fd = dev->wake_fd, .events = POLLIN};
	for (uint32_t i = 0; i < dev->num_parts; i++) {
		struct lv_part *part = &dev->parts[i];

		part->poll_at = n;
		part->polls = part->deaf ? 0 : lv_transport_pollfds(part->t, w->fds + n, LV_TRANSPORT_POLLFDS);
		n += part->polls;
	}
	if (dev->transfer.phase == LV_TRANSFER_MOVES && dev->transfer.end.fd >= 0)
		w->fds[n++] = (struct pollfd){.fd = dev->transfer.end.fd,
					      .events = dev->transfer.end.writes ? POLLOUT : POLLIN};
	w->first_err = n;
	pthread_mutex_lock(&dev->lock);
	for (uint32_t q = 0; err && q < dev->rec->num_queues; q++) {
		if (!dev->err_ours[q] || dev->fds[q].err < 0)
			continue;
		w->queue[n - w->first_err] = q;
		w->fds[n++] = (struct pollfd){.fd = dev->fds[q].err, .events = POLLIN};
	}
	w->entries = dev->entries;
	pthread_mutex_unlock(&dev->lock);
	w->count = n;
	return n;
}

void lv_dev_hand_over(struct libvhost_dev *dev, const struct lv_wait *w)
{
	for (uint32_t i = 0; i < dev->num_parts; i++) {
		const struct lv_part *part = &dev->parts[i];

		if (part->polls)
			lv_transport_polled(part->t, w->fds + part->poll_at, part->polls);
	}
}

uint64_t lv_dev_due(struct libvhost_dev *dev)
{
	const struct lv_operation *op = &dev->op;

	if (op->kind == LV_OP_NONE)
		return dev->state == LIBVHOST_DEV_RECONNECTING ? 0 : UINT64_MAX;
	if (op->opening) {
		const uint64_t next = lv_backoff_next(dev);

		return next < op->deadline ? next : op->deadline;
	}
	return op->step && op->look_at < op->deadline ? op->look_at : op->deadline;
}

void lv_dev_wake(struct libvhost_dev *dev)
{
	lv_eventfd_signal(dev->wake_fd);
}

/* ---- the descriptor for event loops ---- */

static void watch(struct libvhost_dev *dev, int how, int fd, short events)
{
	struct epoll_event ev = {.events = (events & POLLIN ? EPOLLIN : 0u) | (events & POLLOUT ? EPOLLOUT : 0u)};

	ev.data.fd = fd;
	if (epoll_ctl(dev->epoll_fd, how, fd, &ev) && how == EPOLL_CTL_MOD && errno == ENOENT)
		epoll_ctl(dev->epoll_fd, EPOLL_CTL_ADD, fd, &ev);
}

static const struct pollfd *find(const struct pollfd *fds, uint32_t count, int fd)
{
	for (uint32_t i = 0; i < count; i++)
		if (fds[i].fd == fd)
			return &fds[i];
	return NULL;
}

static bool same_set(const struct libvhost_dev *dev, const struct lv_wait *w)
{
	for (uint32_t i = 0; i < w->count; i++)
		if (w->fds[i].fd != dev->armed[i].fd || w->fds[i].events != dev->armed[i].events)
			return false;
	return true;
}

static void arm_fds(struct libvhost_dev *dev)
{
	struct lv_wait w;

	lv_dev_collect(dev, &w, true);
	if (!dev->armed_stale && w.count == dev->num_armed && same_set(dev, &w))
		return;
	for (uint32_t i = 0; i < dev->num_armed; i++)
		if (!find(w.fds, w.count, dev->armed[i].fd))
			watch(dev, EPOLL_CTL_DEL, dev->armed[i].fd, 0);
	for (uint32_t i = 0; i < w.count; i++)
		watch(dev, EPOLL_CTL_MOD, w.fds[i].fd, w.fds[i].events);
	memcpy(dev->armed, w.fds, w.count * sizeof(w.fds[0]));
	dev->num_armed = w.count;
	dev->armed_stale = false;
}

static void arm_timer(struct libvhost_dev *dev)
{
	const uint64_t due = lv_dev_due(dev);
	struct itimerspec its = {0};

	if (due == dev->timer_due)
		return;
	dev->timer_due = due;
	if (due != UINT64_MAX) {
		its.it_value.tv_sec = (time_t)(due / 1000000000u);
		its.it_value.tv_nsec = due ? (long)(due % 1000000000u) : 1;
	}
	timerfd_settime(dev->timer_fd, TFD_TIMER_ABSTIME, &its, NULL);
}

void lv_dev_rearm(struct libvhost_dev *dev)
{
	if (dev->epoll_fd < 0)
		return;
	arm_fds(dev);
	arm_timer(dev);
}

void lv_dev_unwatch(struct libvhost_dev *dev, int fd)
{
	for (uint32_t i = 0; i < dev->num_armed; i++) {
		if (dev->armed[i].fd != fd)
			continue;
		watch(dev, EPOLL_CTL_DEL, fd, 0);
		dev->armed[i] = dev->armed[--dev->num_armed];
		dev->armed_stale = true; /* two parts may wait for it, and the other one still does */
		return;
	}
}

/* Lock held. */
static int make_epoll(struct libvhost_dev *dev)
{
	struct pollfd *armed = calloc(LV_POLL_MAX, sizeof(*armed));
	int ep = epoll_create1(EPOLL_CLOEXEC), timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);

	if (ep < 0 || timer < 0 || !armed) {
		int r = !armed ? ENOMEM : errno;

		lv_fd_close(ep);
		lv_fd_close(timer);
		free(armed);
		return lv_fail_sys(&dev->err, r, "device descriptor: %s; raise RLIMIT_NOFILE", lv_errno_name(r));
	}
	dev->epoll_fd = ep;
	dev->timer_fd = timer;
	dev->timer_due = UINT64_MAX;
	dev->armed = armed;
	watch(dev, EPOLL_CTL_ADD, timer, POLLIN);
	return ep;
}

int libvhost_dev_fd(struct libvhost_dev *dev)
{
	int fd;

	if (!dev)
		return -EINVAL;
	pthread_mutex_lock(&dev->lock);
	while (dev->epoll_fd < 0 && dev->inside && !lv_dev_in_callback(dev))
		pthread_cond_wait(&dev->idle, &dev->lock);
	fd = dev->epoll_fd >= 0 ? dev->epoll_fd : make_epoll(dev);
	pthread_mutex_unlock(&dev->lock);
	if (fd >= 0 && lv_dev_go_inside(dev))
		lv_dev_go_outside(dev);
	return fd;
}

/* ---- dispatch ---- */

static void serve_errors(struct libvhost_dev *dev, const struct lv_wait *w)
{
	for (uint32_t i = w->first_err; i < w->count; i++) {
		const uint32_t q = w->queue[i - w->first_err];
		bool broke;

		if (!w->fds[i].revents)
			continue;
		pthread_mutex_lock(&dev->lock);
		broke = q < dev->rec->num_queues && dev->fds[q].err == w->fds[i].fd &&
			lv_eventfd_drain(w->fds[i].fd) > 0;
		pthread_mutex_unlock(&dev->lock);
		if (broke)
			lv_event_queue_error(dev, q);
	}
}

static void serve_parts(struct libvhost_dev *dev)
{
	const uint32_t connected = LV_STATE(NEGOTIATED) | LV_STATE(RUNNING) | LV_STATE(LOST);

	for (uint32_t i = 0; i < dev->num_parts && connected & 1u << dev->state; i++) {
		struct lv_part *part = &dev->parts[i];
		int r = lv_transport_progress(part->t);

		if (r < 0 && lv_part_gone(part)) {
			lv_fail_copy(&dev->err, &part->t->err);
			lv_dev_disconnected(dev, r);
		}
	}
}

/* Outside, if it may take time: an operation that another thread begins meanwhile ends the wait. */
static void wait_for(struct libvhost_dev *dev, struct lv_wait *w, int ms)
{
	if (ms) {
		pthread_mutex_lock(&dev->lock);
		dev->waiting++;
		pthread_mutex_unlock(&dev->lock);
		lv_dev_go_outside(dev);
	}
	if (poll(w->fds, w->count, ms) < 0)
		for (uint32_t i = 0; i < w->count; i++)
			w->fds[i].revents = 0;
	if (ms) {
		pthread_mutex_lock(&dev->lock);
		dev->waiting--;
		pthread_mutex_unlock(&dev->lock);
	}
}

static void set_dispatching(struct libvhost_dev *dev, bool on)
{
	pthread_mutex_lock(&dev->lock);
	dev->dispatching = on;
	pthread_mutex_unlock(&dev->lock);
}

/* Inside. Leaves. */
static void serve(struct libvhost_dev *dev, const struct lv_wait *w)
{
	int r;

	set_dispatching(dev, true);
	if (w->fds[0].revents)
		lv_eventfd_drain(dev->wake_fd);
	if (w->entries + 1 >= dev->entries)
		lv_dev_hand_over(dev, w);
	serve_errors(dev, w);
	if (dev->op.kind == LV_OP_NONE)
		serve_parts(dev);
	if (dev->op.kind == LV_OP_NONE && dev->state == LIBVHOST_DEV_RECONNECTING)
		lv_reconnect_automatic(dev);
	r = dev->op.kind == LV_OP_NONE ? 0 : lv_op_step(dev);
	set_dispatching(dev, false);
	if (r)
		lv_op_done(dev, r == 1 ? 0 : r);
	else
		lv_dev_go_outside(dev);
}

int libvhost_dev_dispatch(struct libvhost_dev *dev, uint32_t timeout_ms)
{
	struct lv_wait w;
	uint64_t due, until;
	int ms;

	if (!dev || timeout_ms > LV_TIMEOUT_MAX_MS)
		return -EINVAL;
	until = lv_now(dev->ctx) + timeout_ms * LV_NS_PER_MS;
	if (!lv_dev_wait_inside(dev, timeout_ms))
		return lv_fail(&dev->err, -EBUSY, LIBVHOST_EK_BUSY, "dispatch: another thread is inside the device");
	lv_dev_collect(dev, &w, true);
	due = lv_dev_due(dev);
	ms = timeout_ms ? lv_left_ms(dev->ctx, due < until ? due : until) : 0;
	wait_for(dev, &w, ms);
	if (ms && !lv_dev_go_inside(dev))
		return 0; /* another thread began something meanwhile and sees to it all */
	serve(dev, &w);
	return 0;
}
