/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* The one descriptor an event loop watches: an epoll set of the transport's descriptors and a timer for the deadline.
 */
#include "transport/transport.h"

#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>

#include "core/wire.h"

static int change(struct libvhost_transport *t, int how, int fd, short events)
{
	struct epoll_event ev = {.events = (events & POLLIN ? EPOLLIN : 0u) | (events & POLLOUT ? EPOLLOUT : 0u)};

	ev.data.fd = fd;
	return epoll_ctl(t->watch.epoll_fd, how, fd, &ev) ? -errno : 0;
}

static struct pollfd *find(struct pollfd *fds, uint32_t count, int fd)
{
	for (uint32_t i = 0; i < count; i++)
		if (fds[i].fd == fd)
			return &fds[i];
	return NULL;
}

static void sync_fds(struct libvhost_transport *t)
{
	struct lv_watch *w = &t->watch;
	struct pollfd now[LV_TRANSPORT_POLLFDS], *old;
	uint32_t n = 0, want = lv_transport_pollfds(t, now, LV_TRANSPORT_POLLFDS);

	for (uint32_t i = 0; i < w->count; i++)
		if (!find(now, want, w->fds[i].fd))
			change(t, EPOLL_CTL_DEL, w->fds[i].fd, 0);
	for (uint32_t i = 0; i < want; i++) {
		int rc = 0;

		old = find(w->fds, w->count, now[i].fd);
		if (!old)
			rc = change(t, EPOLL_CTL_ADD, now[i].fd, now[i].events);
		else if (old->events != now[i].events)
			rc = change(t, EPOLL_CTL_MOD, now[i].fd, now[i].events);
		if (!rc || rc == -EEXIST)
			now[n++] = now[i];
	}
	memcpy(w->fds, now, n * sizeof(now[0]));
	w->count = n;
}

static void sync_timer(struct libvhost_transport *t)
{
	const uint64_t want = atomic_load(&t->running) ? t->deadline : 0;
	struct itimerspec its = {0};

	if (want == t->watch.armed)
		return;
	its.it_value.tv_sec = (time_t)(want / 1000000000ull);
	its.it_value.tv_nsec = (long)(want % 1000000000ull);
	if (!timerfd_settime(t->watch.timer_fd, TFD_TIMER_ABSTIME, &its, NULL))
		t->watch.armed = want;
}

void lv_transport_watch_sync(struct libvhost_transport *t)
{
	if (t->watch.epoll_fd < 0)
		return;
	sync_fds(t);
	sync_timer(t);
}

void lv_transport_unwatch(struct libvhost_transport *t, int fd)
{
	struct pollfd *old = find(t->watch.fds, t->watch.count, fd);

	if (t->client.closing)
		t->client.closing(t->client.arg, fd);
	if (!old)
		return;
	change(t, EPOLL_CTL_DEL, fd, 0);
	*old = t->watch.fds[--t->watch.count];
}

void lv_transport_watch_close(struct libvhost_transport *t)
{
	lv_fd_close(t->watch.epoll_fd);
	lv_fd_close(t->watch.timer_fd);
	t->watch = (struct lv_watch){.epoll_fd = -1, .timer_fd = -1};
}

static int make(struct libvhost_transport *t)
{
	int rc = 0;

	if (t->watch.epoll_fd >= 0)
		return 0;
	t->watch.epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	t->watch.timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
	if (t->watch.epoll_fd < 0 || t->watch.timer_fd < 0)
		rc = -errno;
	else
		rc = change(t, EPOLL_CTL_ADD, t->watch.timer_fd, POLLIN);
	if (rc < 0) {
		lv_transport_watch_close(t);
		return lv_fail_sys(&t->err, -rc, "%s: event descriptor: %s", t->peer, lv_errno_name(-rc));
	}
	return 0;
}

int libvhost_transport_fd(struct libvhost_transport *t)
{
	int rc;

	if (!t)
		return -EINVAL;
	rc = lv_transport_enter(t);
	if (rc < 0)
		return rc;
	rc = make(t);
	lv_transport_leave(t);
	return rc < 0 ? rc : t->watch.epoll_fd;
}
