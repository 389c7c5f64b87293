/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* Work that other threads have for the worker: a list that they push to and the worker takes whole. */
#include <errno.h>

#include "core/wire.h"
#include "vring/vring.h"
#include "worker/worker.h"

int libvhost_worker_call(struct libvhost_worker *w, struct libvhost_call *call)
{
	struct libvhost_call *newest;

	if (!w || !call || !call->fn)
		return -EINVAL;
	newest = atomic_load_explicit(&w->calls, memory_order_relaxed);
	do {
		if (newest == &w->closed)
			return -ESRCH;
		call->next = newest;
	} while (!atomic_compare_exchange_weak_explicit(&w->calls, &newest, call, memory_order_release,
							memory_order_relaxed));
	if (!newest) /* else whoever found the list empty wakes the worker */
		lv_eventfd_signal(w->control_fd);
	return 0;
}

int libvhost_vq_promise(struct libvhost_vq *vq, struct libvhost_call *call)
{
	if (!vq || !vq->worker || !call || !call->fn)
		return -EINVAL;
	call->vq = vq;
	vq->worker->loop.owed[vq->slot]++;
	return 0;
}

bool lv_calls_wait(struct libvhost_worker *w)
{
	return atomic_load_explicit(&w->calls, memory_order_relaxed) != NULL;
}

static struct libvhost_call *oldest_first(struct libvhost_call *newest)
{
	struct libvhost_call *list = NULL;

	while (newest) {
		struct libvhost_call *next = newest->next;

		newest->next = list;
		list = newest;
		newest = next;
	}
	return list;
}

static void run(struct libvhost_worker *w, struct libvhost_call *list)
{
	while (list) {
		struct libvhost_call *call = list;
		struct libvhost_vq *vq = call->vq;

		list = call->next; /* the call is its owner's once fn begins */
		call->vq = NULL;
		call->fn(call, vq);
		if (!vq)
			continue;
		w->loop.owed[vq->slot]--;
		if (!list || list->vq != vq) /* once for a row of calls of the same queue */
			lv_loop_ended(w, vq->slot);
	}
}

void lv_calls_run(struct libvhost_worker *w)
{
	if (lv_calls_wait(w))
		run(w, oldest_first(atomic_exchange_explicit(&w->calls, NULL, memory_order_acquire)));
}

void lv_calls_close(struct libvhost_worker *w)
{
	run(w, oldest_first(atomic_exchange_explicit(&w->calls, &w->closed, memory_order_acquire)));
}
