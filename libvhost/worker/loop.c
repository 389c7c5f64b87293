/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/*
 * What a worker does all day: serve queues in turn, poll a little, sleep. Kick descriptors are edge-triggered in epoll,
 * so one that its peer keeps readable, half-closed or full costs one wake-up per write and never a spin.
 */
#include <errno.h>
#include <sched.h>
#include <sys/epoll.h>

#include "core/wire.h"
#include "vring/vring.h"
#include "worker/loop.h"
#include "worker/worker.h"

#define EVENTS_AT_ONCE 16
#define NAP_MS	       1  /* between looks at queues that have no kick descriptor */
#define CLOCK_EVERY    16 /* polling rounds between looks at the clock */

/* The queue is not touched again until the host removes it. */
static void give_up(struct libvhost_worker *w, unsigned n, int err)
{
	struct lv_loop *l = &w->loop;
	uint64_t bit = 1ull << n;

	l->active &= ~bit;
	l->ready &= ~bit;
	l->armed &= ~bit;
	l->polled &= ~bit;
	atomic_store(&w->queues, (uint32_t)__builtin_popcountll(l->active));
	atomic_store(&w->failed[n], err);
	lv_eventfd_signal(w->report_fd);
}

/* One turn of one queue. True = it found work. */
static bool serve(struct libvhost_worker *w, unsigned n)
{
	struct lv_loop *l = &w->loop;
	struct lv_slot *slot = &l->slots[n];
	uint64_t bit = 1ull << n, before = slot->requests;
	int rc = 0, flushed;

	if (l->armed & bit)
		rc = libvhost_vq_notify_enable(slot->vq, 0);
	l->armed &= ~bit;
	if (rc >= 0)
		rc = slot->fn(slot->arg, slot->vq);
	flushed = libvhost_vq_flush(slot->vq);
	if (rc < 0 || flushed < 0) {
		give_up(w, n, rc < 0 ? rc : flushed);
		return false;
	}
	if (rc == 0)
		l->ready &= ~bit;
	slot->requests = slot->vq->requests;
	if (slot->requests == before)
		return false;
	atomic_fetch_add_explicit(&w->requests, 1, memory_order_relaxed);
	return true;
}

/* Each queue of the set once; a handler bounds its own turn, so none can starve the others. */
static bool serve_all(struct libvhost_worker *w, uint64_t set)
{
	bool worked = false;

	for (; set; set &= set - 1)
		worked |= serve(w, (unsigned)__builtin_ctzll(set));
	return worked;
}

/*
 * Asks drivers to kick from now on; queues that got work in the meantime become ready. Drivers look at the flag after
 * they made a buffer available, notify_enable looks at the ring after it set the flag: one of them sees the other.
 */
static void arm_all(struct libvhost_worker *w)
{
	struct lv_loop *l = &w->loop;

	for (uint64_t set = l->active & ~l->armed & ~l->polled; set; set &= set - 1) {
		unsigned n = (unsigned)__builtin_ctzll(set);
		int rc = libvhost_vq_notify_enable(l->slots[n].vq, 1);

		if (rc < 0) {
			give_up(w, n, rc);
			continue;
		}
		l->armed |= 1ull << n;
		if (rc > 0)
			l->ready |= 1ull << n;
	}
}

static bool host_calls(struct libvhost_worker *w)
{
	return atomic_load_explicit(&w->stop, memory_order_relaxed) ||
	       atomic_load_explicit(&w->mail.state, memory_order_relaxed) == LV_MAIL_POSTED;
}

/*
 * Polls all queues for the present window, which starts anew with each find. A window that ends without one is halved,
 * so that a queue that is kicked rarely does not cost a window of processor time per kick; woke_up() restores it.
 */
static void poll_window(struct libvhost_worker *w)
{
	struct lv_loop *l = &w->loop;
	uint64_t end;

	if (!l->poll_ns || !l->active)
		return;
	end = lv_now(NULL) + l->poll_ns;
	for (unsigned round = 1; l->active && !host_calls(w); round++) {
		if (serve_all(w, l->active)) {
			l->poll_ns = l->poll_max_ns;
			end = lv_now(NULL) + l->poll_ns;
		} else if (round % CLOCK_EVERY == 0 && lv_now(NULL) >= end) {
			l->poll_ns = l->poll_ns > l->poll_max_ns / 16 ? l->poll_ns / 2 : 0;
			return;
		}
		lv_cpu_relax();
	}
}

/* A kick soon after falling asleep means that polling longer would have caught it. */
static void woke_up(struct libvhost_worker *w)
{
	struct lv_loop *l = &w->loop;

	atomic_fetch_add_explicit(&w->wakeups, 1, memory_order_relaxed);
	if (l->poll_max_ns && lv_now(NULL) - l->asleep_at < l->poll_max_ns)
		l->poll_ns = l->poll_max_ns;
}

/* Takes kicks; waits for one when nothing is ready. False = epoll does not work any more. */
static bool collect(struct libvhost_worker *w)
{
	struct epoll_event events[EVENTS_AT_ONCE];
	struct lv_loop *l = &w->loop;
	int n, timeout = l->ready ? 0 : l->polled ? NAP_MS : -1;

	if (timeout && l->poll_max_ns)
		l->asleep_at = lv_now(NULL);
	n = epoll_wait(w->epoll_fd, events, EVENTS_AT_ONCE, timeout);
	if (n < 0 && errno != EINTR)
		return false;
	if (timeout)
		woke_up(w);
	for (int i = 0; i < n; i++) {
		uint32_t slot = events[i].data.u32;

		if (slot == LV_LOOP_CONTROL) {
			lv_eventfd_drain(w->control_fd);
		} else if (l->active & 1ull << slot) { /* else: an event of a queue that has just been removed */
			lv_eventfd_drain(l->slots[slot].kick_fd);
			l->ready |= 1ull << slot;
		}
	}
	l->ready |= l->polled;
	return true;
}

void lv_loop_run(struct libvhost_worker *w)
{
	struct lv_loop *l = &w->loop;

	while (!atomic_load(&w->stop)) {
		lv_mail_take(w);
		/* Until all is quiet nobody is asked to kick, so those that will not kick are looked at, too. */
		serve_all(w, l->ready | (l->active & ~l->armed));
		if (!l->ready)
			poll_window(w);
		if (host_calls(w))
			continue;
		if (!l->ready)
			arm_all(w);
		if (!collect(w))
			break;
	}
	while (!atomic_load(&w->stop) && l->active)
		give_up(w, (unsigned)__builtin_ctzll(l->active), -EIO);
}
