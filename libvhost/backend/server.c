/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* Waiting, and what is done then. */
#include <errno.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>

#include "backend/device.h"

#define RETRY_NS     (100 * LV_NS_PER_MS)
#define EVENTS_ASKED 16
#define RETRY_MS     10 /* how long a handler is waited for that had its time already */

bool lv_backend_occupied(const struct libvhost_backend *b)
{
	return b->conn.sock >= 0 || b->inproc || b->session.mem;
}

static void watch(struct libvhost_backend *b, uint32_t which, int fd, uint32_t events)
{
	struct epoll_event ev = {.events = events, .data.u32 = which};
	struct lv_backend_watch *w = &b->watch[which];

	if (w->fd == fd && w->events == events)
		return;
	if (w->fd != fd)
		lv_backend_unwatch(b, which);
	if (fd >= 0 && epoll_ctl(b->epoll_fd, w->fd == fd ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, fd, &ev) < 0) {
		lv_fail_sys(&b->err, errno, "back-end: epoll: %s; tried again", lv_errno_name(errno));
		b->retry_at = b->retry_at ? b->retry_at : lv_now(b->ctx) + RETRY_NS;
		fd = -1;
	}
	*w = (struct lv_backend_watch){.fd = fd, .events = events};
}

void lv_backend_unwatch(struct libvhost_backend *b, uint32_t which)
{
	if (b->watch[which].fd >= 0)
		epoll_ctl(b->epoll_fd, EPOLL_CTL_DEL, b->watch[which].fd, NULL);
	b->watch[which].fd = -1;
}

static void arm_timer(struct libvhost_backend *b)
{
	uint64_t at = lv_conn_deadline(b), now = lv_now(b->ctx), left;
	const uint64_t client = b->control ? 0 : lv_client_deadline(b), state = lv_state_deadline(&b->session);
	struct itimerspec spec = {0};

	if (state && (!at || state < at))
		at = state;
	if (b->retry_at && (!at || b->retry_at < at))
		at = b->retry_at;
	if (client && (!at || client < at))
		at = client;
	if (at) {
		left = at > now ? at - now : 1;
		spec.it_value.tv_sec = (time_t)(left / 1000000000ull);
		spec.it_value.tv_nsec = (long)(left % 1000000000ull);
	}
	timerfd_settime(b->timer_fd, 0, &spec, NULL);
}

void lv_backend_rewatch(struct libvhost_backend *b)
{
	const struct lv_session *s = &b->session;

	watch(b, LV_W_LISTENER, lv_backend_occupied(b) || b->accept_paused ? -1 : b->listener, EPOLLIN);
	/* a message that waits would be an event all the time */
	watch(b, LV_W_SOCK, b->conn.held_since ? -1 : b->conn.sock, b->conn.out.len ? EPOLLOUT : EPOLLIN);
	watch(b, LV_W_CHANNEL, s->channel, s->config_changed ? EPOLLIN | EPOLLOUT : EPOLLIN);
	watch(b, LV_W_STATE, s->state.end.fd, s->state.save ? EPOLLOUT : EPOLLIN);
	watch(b, LV_W_TIMER, b->timer_fd, EPOLLIN);
	arm_timer(b);
	lv_control_arm(b);
}

static void retry(struct libvhost_backend *b)
{
	if (!b->retry_at || lv_now(b->ctx) < b->retry_at)
		return;
	b->retry_at = 0;
	b->accept_paused = false;
	if (!b->session.open && b->session.mem && !lv_session_close(&b->session, RETRY_MS))
		b->retry_at = lv_now(b->ctx) + RETRY_NS;
}

void lv_backend_turn(struct libvhost_backend *b)
{
	retry(b);
	lv_backend_reports(b);
	lv_listener_turn(b);
	if (!b->control)
		lv_client_turn(b);
	if (b->conn.sock >= 0)
		lv_conn_turn(b);
	lv_channel_turn(&b->session);
	lv_state_turn(&b->session);
	lv_backend_rewatch(b);
}

static void wait(struct libvhost_backend *b, uint32_t timeout_ms)
{
	struct pollfd host = {.fd = b->host_fd, .events = POLLIN};
	struct epoll_event events[EVENTS_ASKED];

	if (b->control)
		poll(&host, 1, (int)timeout_ms);
	else
		epoll_wait(b->epoll_fd, events, EVENTS_ASKED, (int)timeout_ms);
}

/* The control worker may not connect. */
static void host_turn(struct libvhost_backend *b)
{
	lv_client_turn(b);
	lv_backend_rewatch(b);
}

int libvhost_backend_dispatch(struct libvhost_backend *b, uint32_t timeout_ms)
{
	bool taken;
	int rc;

	if (!b || timeout_ms > LV_TIMEOUT_MAX_MS)
		return -EINVAL;
	rc = lv_backend_lock(b);
	if (rc < 0)
		return rc;
	taken = b->dispatching;
	rc = lv_backend_check_alive(b);
	if (rc == 0 && !taken) {
		b->dispatching = true;
		lv_backend_rewatch(b);
	}
	lv_backend_unlock(b);
	if (rc < 0)
		return rc;
	if (taken)
		return lv_fail(&b->err, -EBUSY, LIBVHOST_EK_BUSY, "back-end: another thread dispatches");
	wait(b, timeout_ms);
	rc = lv_backend_lock(b);
	if (rc < 0)
		return rc;
	rc = lv_backend_check_alive(b); /* who stopped it has ended the wait */
	if (rc == 0 && b->control)
		host_turn(b);
	else if (rc == 0)
		lv_backend_turn(b);
	b->dispatching = false;
	lv_backend_unlock(b);
	return rc;
}

int libvhost_backend_fd(struct libvhost_backend *b)
{
	int rc;

	if (!b)
		return -EINVAL;
	rc = lv_backend_lock(b);
	if (rc < 0)
		return rc;
	lv_backend_rewatch(b);
	lv_backend_unlock(b);
	return b->control ? b->host_fd : b->epoll_fd;
}
