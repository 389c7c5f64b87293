/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* Handing queues and descriptors to the worker and taking them back. */
#include <errno.h>
#include <poll.h>
#include <sched.h>

#include "core/wire.h"
#include "vring/vring.h"
#include "worker/worker.h"

#define PATIENCE_MS 20 /* a worker that takes longer may be held by a front-end */

static void deliver_fd(struct lv_loop *l, const struct lv_mail *mail)
{
	uint32_t bit = 1u << mail->slot;

	l->fds_active &= ~bit;
	l->fds_ready &= ~bit;
	if (mail->kind == LV_MAIL_ADD_FD) {
		l->fds[mail->slot] = mail->fd;
		l->fds_active |= bit;
		l->fds_ready |= bit; /* what arrived before is served without an edge */
	}
}

static void deliver_queue(struct libvhost_worker *w, struct lv_mail *mail)
{
	struct lv_loop *l = &w->loop;
	uint64_t bit = 1ull << mail->slot;

	mail->refused = mail->kind == LV_MAIL_REMOVE && l->owed[mail->slot];
	if (mail->refused)
		return;
	l->active &= ~bit;
	l->ready &= ~bit;
	l->armed &= ~bit;
	l->waiting &= ~bit;
	l->polled &= ~bit;
	l->watched &= ~bit;
	if (mail->kind == LV_MAIL_ADD) {
		l->slots[mail->slot] = mail->queue;
		l->active |= bit;
		l->ready |= bit; /* what was made available before is served without a kick */
		l->armed |= bit; /* new rings ask for kicks */
		if (mail->queue.kick_fd < 0)
			l->polled |= bit;
		if (mail->queue.watch_fd >= 0)
			l->watched |= bit;
	}
	atomic_store(&w->queues, (uint32_t)__builtin_popcountll(l->active));
}

void lv_mail_take(struct libvhost_worker *w)
{
	int posted = LV_MAIL_POSTED;

	if (atomic_load_explicit(&w->mail.state, memory_order_relaxed) != LV_MAIL_POSTED ||
	    !atomic_compare_exchange_strong(&w->mail.state, &posted, LV_MAIL_TAKEN))
		return;
	if (w->mail.kind == LV_MAIL_ADD_FD || w->mail.kind == LV_MAIL_REMOVE_FD)
		deliver_fd(&w->loop, &w->mail);
	else
		deliver_queue(w, &w->mail);
	atomic_store(&w->mail.state, LV_MAIL_DONE);
	lv_eventfd_signal(w->done_fd);
}

/*
 * A front-end may fill its call eventfd between the worker's look and its write, which then waits; nobody but a reader
 * ends that. Who has waited for the worker for a while reads in its place. Nothing is lost: the write follows.
 */
static void free_writer(const struct libvhost_worker *w)
{
	for (const struct lv_post *p = w->posts; p < w->posts + LV_WORKER_QUEUES; p++)
		if (p->vq && p->vq->opts.flags & LIBVHOST_VQ_HAS_CALL)
			lv_eventfd_make_room(p->vq->opts.call_fd);
}

/* Waits until the worker reports something or the deadline passes; false = it has passed. */
static bool listens(struct libvhost_worker *w, uint64_t deadline)
{
	struct pollfd p = {.fd = w->done_fd, .events = POLLIN};
	const int left = lv_left_ms(w->ctx, deadline);
	const int n = left ? poll(&p, 1, left < PATIENCE_MS ? left : PATIENCE_MS) : 0;

	lv_eventfd_drain(w->done_fd);
	if (left && !n)
		free_writer(w);
	return left != 0; /* an interrupted wait is tried again */
}

bool lv_worker_await(struct libvhost_worker *w, atomic_int *word, int value, uint64_t deadline)
{
	while (atomic_load(word) == value)
		if (!listens(w, deadline))
			return atomic_load(word) != value;
	return true;
}

int lv_mail_send(struct libvhost_worker *w, uint64_t deadline)
{
	int posted = LV_MAIL_POSTED;

	lv_eventfd_drain(w->done_fd); /* a message that timed out may have been answered late */
	atomic_store(&w->mail.state, LV_MAIL_POSTED);
	lv_eventfd_signal(w->control_fd);
	if (!lv_worker_await(w, &w->mail.state, LV_MAIL_POSTED, deadline) &&
	    atomic_compare_exchange_strong(&w->mail.state, &posted, LV_MAIL_EMPTY))
		return -ETIMEDOUT;
	/* Taken: executing it is a few stores. */
	while (atomic_load(&w->mail.state) != LV_MAIL_DONE)
		sched_yield();
	atomic_store(&w->mail.state, LV_MAIL_EMPTY);
	return 0;
}
