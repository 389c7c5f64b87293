/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/*
 * What a worker does all day: serve queues and descriptors in turn, poll a little, sleep. Descriptors are
 * edge-triggered in epoll, so one that its peer keeps readable, half-closed or full costs one wake-up per write and
 * never a spin.
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
#define CLOCK_EVERY    16 /* polling rounds between looks at the clock and at descriptors */
#define KICKS_EVERY    64 /* polling rounds between looks for kicks of queues that are not polled */
#define SORT_EVERY     64 /* rounds under load after which a queue without work is idle */

/* The queue is not touched again until the host removes it. */
static void give_up(struct libvhost_worker *w, unsigned n, int err)
{
	struct lv_loop *l = &w->loop;
	uint64_t bit = 1ull << n;

	l->active &= ~bit;
	l->ready &= ~bit;
	l->armed &= ~bit;
	l->waiting &= ~bit;
	l->polled &= ~bit;
	l->watched &= ~bit;
	atomic_store(&w->queues, (uint32_t)__builtin_popcountll(l->active));
	atomic_store(&w->failed[n], err);
	lv_eventfd_signal(w->report_fd);
}

/* Its driver need not kick: the ring is looked at. */
static int disarm(struct lv_loop *l, unsigned n)
{
	const uint64_t bit = 1ull << n;
	const bool asked = l->armed & bit;

	l->armed &= ~bit;
	return asked ? libvhost_vq_notify_enable(l->slots[n].vq, 0) : 0;
}

/* One turn of one queue. True = it found work. */
static bool serve(struct libvhost_worker *w, unsigned n)
{
	struct lv_loop *l = &w->loop;
	struct lv_slot *slot = &l->slots[n];
	uint64_t bit = 1ull << n, before = slot->requests;
	int rc = slot->vq->begun ? 0 : lv_vq_begin(slot->vq), flushed;
	bool cut_short;

	if (rc >= 0)
		rc = disarm(l, n);
	l->waiting &= ~bit;
	l->ready &= ~bit; /* before the handler, which may wake its own queue */
	lv_vq_begin_turn(slot->vq, l->burst);
	if (rc >= 0)
		rc = slot->fn(slot->arg, slot->vq);
	cut_short = lv_vq_end_turn(slot->vq);
	flushed = libvhost_vq_flush(slot->vq);
	if (rc < 0 || flushed < 0) {
		give_up(w, n, rc < 0 && flushed != -EFAULT ? rc : flushed); /* cut off memory has many symptoms */
		return false;
	}
	if (rc == LIBVHOST_TURN_WAIT && !cut_short && !(l->ready & bit))
		l->waiting |= bit;
	else if (rc || cut_short)
		l->ready |= bit;
	slot->requests = slot->vq->requests;
	if (slot->requests == before)
		return false;
	l->found |= bit;
	atomic_fetch_add_explicit(&w->requests, 1, memory_order_relaxed);
	return true;
}

/* Each queue of the set once; pop bounds each turn, so that none can starve the others. */
static bool serve_all(struct libvhost_worker *w, uint64_t set)
{
	bool worked = false;

	for (; set; set &= set - 1)
		worked |= serve(w, (unsigned)__builtin_ctzll(set));
	return worked;
}

/* Each readable descriptor once. */
static void serve_fds(struct libvhost_worker *w)
{
	struct lv_loop *l = &w->loop;

	for (uint32_t set = l->fds_ready; set; set &= set - 1) {
		unsigned n = (unsigned)__builtin_ctz(set);
		int rc = l->fds[n].fn(l->fds[n].arg, l->fds[n].fd);

		if (rc <= 0)
			l->fds_ready &= ~(1u << n);
		if (rc >= 0)
			continue;
		l->fds_active &= ~(1u << n);
		atomic_store(&w->fds_failed[n], rc);
		lv_eventfd_signal(w->report_fd);
	}
}

void lv_loop_flush(struct libvhost_worker *w, struct libvhost_vq *vq)
{
	int rc;

	if (vq->worker != w || !(w->loop.active & 1ull << vq->slot))
		return;
	rc = libvhost_vq_flush(vq);
	if (rc < 0)
		give_up(w, vq->slot, rc);
}

/* Windows are for rings: a disk takes longer than falling asleep and waking up, and its completions gather meanwhile.
 */
static bool disk_works(const struct libvhost_worker *w)
{
	return w->io.under_way && !w->loop.busy;
}

void lv_loop_ended(struct libvhost_worker *w, uint32_t slot)
{
	struct lv_loop *l = &w->loop;
	const uint64_t bit = 1ull << slot;
	int rc = 0;

	if (l->poll_ns && !disk_works(w) && l->active & bit)
		rc = disarm(l, slot); /* before its driver sees the completion and makes the next request */
	if (rc < 0)
		give_up(w, slot, rc);
	lv_loop_flush(w, l->slots[slot].vq);
	l->ready |= l->waiting & bit;
	if (l->held & bit && !l->owed[slot]) {
		atomic_store(&w->free_to_leave, 1);
		lv_eventfd_signal(w->done_fd);
	}
}

int libvhost_vq_wake(struct libvhost_vq *vq)
{
	struct lv_loop *l;

	if (!vq || !vq->worker)
		return -EINVAL;
	l = &vq->worker->loop;
	l->ready |= l->active & 1ull << vq->slot;
	return 0;
}

/*
 * Asks drivers to kick from now on; queues that got work in the meantime become ready. Drivers look at the flag after
 * they made a buffer available, notify_enable looks at the ring after it set the flag: one of them sees the other.
 */
static void arm(struct libvhost_worker *w, uint64_t set)
{
	struct lv_loop *l = &w->loop;

	for (set &= l->active & ~l->armed & ~l->waiting & ~l->polled & ~l->held; set; set &= set - 1) {
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

/* While some are busy those that are not shall kick: looking at them in each round would cost the others. */
static void sort_out_idle(struct libvhost_worker *w)
{
	arm(w, ~w->loop.found);
	w->loop.found = 0;
}

static bool host_calls(struct libvhost_worker *w)
{
	return atomic_load_explicit(&w->stop, memory_order_relaxed) || lv_calls_wait(w) ||
	       atomic_load_explicit(&w->end_drain, memory_order_relaxed) ||
	       atomic_load_explicit(&w->mail.state, memory_order_relaxed) == LV_MAIL_POSTED;
}

/* A kick soon after falling asleep means that polling longer would have caught it. A disk that is done says nothing. */
static void woke_up(struct libvhost_worker *w)
{
	struct lv_loop *l = &w->loop;

	atomic_fetch_add_explicit(&w->wakeups, 1, memory_order_relaxed);
	if (l->poll_max_ns && (l->ready || l->fds_ready) && lv_now(NULL) - l->asleep_at < l->poll_max_ns)
		l->poll_ns = l->poll_max_ns;
}

static bool has_work(const struct libvhost_worker *w)
{
	return w->loop.ready & ~w->loop.held || w->loop.fds_ready || lv_io_waits(&w->io);
}

static void note(struct libvhost_worker *w, uint32_t data)
{
	struct lv_loop *l = &w->loop;

	if (data == LV_LOOP_CONTROL) {
		lv_eventfd_drain(w->control_fd);
	} else if (data == LV_LOOP_RING) {
		return;
	} else if (data >= LV_LOOP_WATCH(0)) {
		l->ready |= l->active & 1ull << (data - LV_LOOP_WATCH(0)) % LV_WORKER_QUEUES;
	} else if (data >= LV_LOOP_FD(0)) {
		l->fds_ready |= l->fds_active & 1u << (data - LV_LOOP_FD(0)) % LV_WORKER_FDS;
	} else if (l->active & 1ull << data) { /* else: an event of a queue that has just been removed */
		lv_eventfd_drain_edge(l->slots[data].kick_fd);
		l->ready |= 1ull << data;
	}
}

/* Takes events; waits for one that long, -1 = for ever. False = epoll does not work any more. */
static bool collect(struct libvhost_worker *w, int timeout)
{
	struct epoll_event events[EVENTS_AT_ONCE];
	struct lv_loop *l = &w->loop;
	int n;

	if (timeout && l->poll_max_ns)
		l->asleep_at = lv_now(NULL);
	n = epoll_wait(w->epoll_fd, events, EVENTS_AT_ONCE, timeout);
	if (n < 0 && errno != EINTR)
		return false;
	for (int i = 0; i < n; i++)
		note(w, events[i].data.u32);
	if (timeout)
		woke_up(w);
	l->ready |= l->polled;
	return true;
}

/* Kicks, and descriptors. False = epoll does not work any more. */
static bool look_around(struct libvhost_worker *w, unsigned round)
{
	const struct lv_loop *l = &w->loop;
	const bool kicks = l->armed && !l->busy && round % KICKS_EVERY == 0;

	return !(kicks || l->fds_active || l->watched) || collect(w, 0);
}

/* Whether the window is over; what had no work in a whole one is not polled any more. */
static bool window_ends(struct libvhost_worker *w, uint64_t end)
{
	struct lv_loop *l = &w->loop;
	uint64_t now;

	if (l->busy)
		return false;
	now = lv_now(NULL);
	if (now >= end) {
		l->poll_ns = l->poll_ns > l->poll_max_ns / 16 ? l->poll_ns / 2 : 0;
		return true;
	}
	if (now - l->sorted_at >= l->poll_max_ns) {
		sort_out_idle(w);
		l->sorted_at = now;
	}
	return false;
}

/*
 * Polls the queues that are in use for the present window, which starts anew with each find. A window that ends without
 * one is halved, so that a queue that is kicked rarely does not cost a window of processor time per kick; woke_up()
 * restores it. A busy worker polls all, and its window has no end. Descriptors are looked at now and then. False =
 * epoll does not work any more.
 */
static bool poll_window(struct libvhost_worker *w)
{
	struct lv_loop *l = &w->loop;
	uint64_t end;

	if (!l->poll_ns && !l->busy)
		return true;
	end = lv_now(NULL) + l->poll_ns;
	for (unsigned round = 1; l->active && !l->fds_ready && !host_calls(w) && !disk_works(w); round++) {
		const uint64_t polled = l->active & ~l->waiting & ~(l->busy ? 0 : l->armed);
		bool worked = serve_all(w, (l->ready | polled) & ~l->held);

		if (lv_io_turn(w) || worked) {
			l->poll_ns = l->poll_max_ns;
			end = lv_now(NULL) + l->poll_ns;
		}
		if (round % CLOCK_EVERY == 0) {
			if (!look_around(w, round))
				return false;
			if (window_ends(w, end))
				return true;
		}
		lv_cpu_relax();
	}
	return true;
}

static int sleep_ms(const struct libvhost_worker *w)
{
	if (has_work(w) || (w->loop.busy && w->loop.active))
		return 0;
	return w->loop.polled ? NAP_MS : -1;
}

static uint64_t held(struct libvhost_worker *w)
{
	const unsigned leaving = atomic_load_explicit(&w->leaving, memory_order_relaxed);

	return leaving ? 1ull << (leaving - 1) : 0;
}

/* What was offered while they drained has been overlooked: they are ready. */
static void end_drains(struct libvhost_worker *w)
{
	struct lv_loop *l = &w->loop;
	uint64_t set;

	if (!atomic_load_explicit(&w->end_drain, memory_order_relaxed))
		return;
	set = atomic_exchange(&w->end_drain, 0) & l->active;
	l->ready |= set;
	for (; set; set &= set - 1)
		l->slots[__builtin_ctzll(set)].vq->draining = false;
}

void lv_loop_run(struct libvhost_worker *w)
{
	struct lv_loop *l = &w->loop;
	bool works = true;

	while (works && !atomic_load(&w->stop)) {
		lv_mail_take(w);
		l->held = held(w);
		end_drains(w);
		lv_calls_run(w);
		serve_fds(w);
		/* Until all is quiet nobody is asked to kick, so those that will not kick are looked at, too. */
		serve_all(w, (l->ready | (l->active & ~l->armed & ~l->waiting)) & ~l->held);
		lv_io_turn(w);
		if (!has_work(w))
			works = poll_window(w);
		if (!works || host_calls(w))
			continue;
		if (!has_work(w) && !l->busy)
			arm(w, ~0ull);
		else if (!l->busy && ++l->rounds % SORT_EVERY == 0)
			sort_out_idle(w);
		works = collect(w, sleep_ms(w));
	}
	lv_io_drain(w);
	while (!works && l->active)
		give_up(w, (unsigned)__builtin_ctzll(l->active), -EIO);
	lv_calls_close(w);
}
