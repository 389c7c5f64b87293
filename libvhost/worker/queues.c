/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* The host's side of a worker's queues: add, remove, and hear of failed ones. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>

#include "core/wire.h"
#include "vring/vring.h"
#include "worker/loop.h"
#include "worker/worker.h"

static struct lv_post *find(struct libvhost_worker *w, const struct libvhost_vq *vq)
{
	for (struct lv_post *p = w->posts; p < w->posts + LV_WORKER_QUEUES; p++)
		if (p->vq == vq)
			return p;
	return NULL;
}

static uint32_t slot_of(struct libvhost_worker *w, const struct lv_post *post)
{
	return (uint32_t)(post - w->posts);
}

int lv_worker_watch(struct libvhost_worker *w, const char *what, int fd, uint32_t data)
{
	struct epoll_event ev = {.events = EPOLLIN | EPOLLET, .data.u32 = data};

	if (epoll_ctl(w->epoll_fd, EPOLL_CTL_ADD, fd, &ev) == 0)
		return 0;
	if (errno == EPERM)
		return lv_fail(&w->err, -EINVAL, LIBVHOST_EK_ARGUMENT,
			       "worker: %s %d cannot be waited for; give an eventfd, socket, pipe, timer or tap", what,
			       fd);
	if (errno == EBADF)
		return lv_fail(&w->err, -EINVAL, LIBVHOST_EK_ARGUMENT, "worker: %s %d is not open", what, fd);
	return lv_fail_sys(&w->err, errno, "worker: %s %d: %s", what, fd, lv_errno_name(errno));
}

void lv_worker_unwatch(struct libvhost_worker *w, int fd)
{
	if (fd >= 0 && lv_worker_is_ours(w)) /* a forked child has the parent's epoll set */
		epoll_ctl(w->epoll_fd, EPOLL_CTL_DEL, fd, NULL);
}

static void unwatch(struct libvhost_worker *w, const struct lv_post *post)
{
	lv_worker_unwatch(w, post->kick_fd);
	lv_worker_unwatch(w, post->watch_fd);
}

static int watch(struct libvhost_worker *w, const struct lv_slot *queue, struct lv_post *post)
{
	int rc = 0;

	*post = (struct lv_post){.kick_fd = -1, .watch_fd = -1};
	if (queue->kick_fd >= 0)
		rc = lv_worker_watch(w, "kick descriptor", queue->kick_fd, slot_of(w, post));
	if (rc < 0)
		return rc;
	post->kick_fd = queue->kick_fd;
	if (queue->watch_fd >= 0)
		rc = lv_worker_watch(w, "descriptor", queue->watch_fd, LV_LOOP_WATCH(slot_of(w, post)));
	if (rc < 0)
		unwatch(w, post);
	else
		post->watch_fd = queue->watch_fd;
	return rc;
}

static int add(struct libvhost_worker *w, const struct lv_slot *queue, uint32_t timeout_ms)
{
	struct lv_post *post = find(w, NULL);
	int rc;

	if (find(w, queue->vq))
		return lv_fail(&w->err, -EEXIST, LIBVHOST_EK_STATE, "worker: the queue is on this worker already");
	if (queue->vq->worker)
		return lv_fail(&w->err, -EEXIST, LIBVHOST_EK_STATE,
			       "worker: queue %u is on another worker; take it back there first",
			       queue->vq->opts.index);
	if (!post)
		return lv_fail(&w->err, -ENOSPC, LIBVHOST_EK_ARGUMENT,
			       "worker: it serves %u queues, which is the most; make more workers", LV_WORKER_QUEUES);
	if (lv_worker_ended(w))
		return lv_worker_is_gone(w);
	rc = watch(w, queue, post);
	if (rc < 0)
		return rc;
	atomic_store(&w->failed[slot_of(w, post)], 0);
	post->vq = queue->vq;
	w->mail.kind = LV_MAIL_ADD;
	w->mail.slot = slot_of(w, post);
	w->mail.queue = *queue;
	lv_vq_lend(queue->vq, true);
	queue->vq->worker = w;
	queue->vq->slot = slot_of(w, post);
	rc = lv_mail_send(w, lv_deadline(w->ctx, timeout_ms));
	if (rc < 0) {
		queue->vq->worker = NULL;
		lv_vq_lend(queue->vq, false);
		unwatch(w, post);
		post->vq = NULL;
		return lv_fail(&w->err, rc, LIBVHOST_EK_TIMEOUT,
			       "worker: it did not take the queue in time; a handler "
			       "does not return");
	}
	return 0;
}

int lv_worker_add(struct libvhost_worker *w, const struct lv_slot *queue, uint32_t timeout_ms)
{
	int rc;

	rc = lv_worker_lock(w);
	if (rc < 0)
		return rc;
	rc = add(w, queue, timeout_ms);
	pthread_mutex_unlock(&w->host_lock);
	return rc;
}

int libvhost_worker_add_vq(struct libvhost_worker *w, struct libvhost_vq *vq, int kick_fd, libvhost_ring_fn fn,
			   void *arg, uint32_t timeout_ms)
{
	const struct lv_slot queue = {
		.vq = vq, .fn = fn, .arg = arg, .kick_fd = kick_fd < 0 ? -1 : kick_fd, .watch_fd = -1};

	if (!w || !vq || !fn || timeout_ms > LV_TIMEOUT_MAX_MS)
		return -EINVAL;
	return lv_worker_add(w, &queue, timeout_ms);
}

/* What keeps a queue on its worker. */
static const char *obstacle(const struct libvhost_worker *w, int rc)
{
	if (rc == -EINPROGRESS)
		return "file operations or promised calls of its requests do not end";
	return w->io.num_files ? "a handler does not return, or a file does not answer" : "a handler does not return";
}

/* Asks for the queue until none of its operations is under way; meanwhile it is not served. */
static int reclaim(struct libvhost_worker *w, uint32_t slot, uint64_t deadline)
{
	int rc = 0;

	if (lv_worker_ended(w))
		return 0;
	atomic_store(&w->leaving, slot + 1);
	do {
		w->mail.kind = LV_MAIL_REMOVE;
		w->mail.slot = slot;
		atomic_store(&w->free_to_leave, 0);
		rc = lv_mail_send(w, deadline);
	} while (rc == 0 && w->mail.refused && lv_worker_await(w, &w->free_to_leave, 0, deadline));
	atomic_store(&w->leaving, 0);
	if (rc == 0 && w->mail.refused) {
		lv_eventfd_signal(w->control_fd); /* serve it again */
		rc = -EINPROGRESS;
	}
	return rc;
}

static int take_back(struct libvhost_worker *w, struct libvhost_vq *vq, uint32_t timeout_ms)
{
	struct lv_post *post = find(w, vq);
	int rc;

	if (!post)
		return lv_fail(&w->err, -ENOENT, LIBVHOST_EK_STATE, "worker: the queue is not on this worker");
	rc = reclaim(w, slot_of(w, post), lv_deadline(w->ctx, timeout_ms));
	if (rc < 0)
		return lv_fail(&w->err, -ETIMEDOUT, LIBVHOST_EK_TIMEOUT,
			       "worker: it did not give queue %u back in time; %s", vq->opts.index, obstacle(w, rc));
	unwatch(w, post);
	atomic_fetch_and(&w->end_drain, ~(1ull << slot_of(w, post))); /* the slot's next queue is another one */
	vq->given_up = post->reported ? 0 : atomic_load(&w->failed[slot_of(w, post)]);
	vq->worker = NULL;
	lv_vq_lend(vq, false);
	post->vq = NULL;
	return 0;
}

int libvhost_worker_remove_vq(struct libvhost_worker *w, struct libvhost_vq *vq, uint32_t timeout_ms)
{
	int rc;

	if (!w || !vq || timeout_ms > LV_TIMEOUT_MAX_MS)
		return -EINVAL;
	rc = lv_worker_lock(w);
	if (rc < 0)
		return rc;
	rc = take_back(w, vq, timeout_ms);
	pthread_mutex_unlock(&w->host_lock);
	return rc;
}

struct libvhost_worker *libvhost_vq_worker(struct libvhost_vq *vq)
{
	return vq ? vq->worker : NULL;
}

void lv_worker_end_drain(struct libvhost_worker *w, const struct libvhost_vq *vq)
{
	const struct lv_post *post;

	pthread_mutex_lock(&w->host_lock);
	post = find(w, vq);
	if (post) {
		atomic_fetch_or(&w->end_drain, 1ull << slot_of(w, post));
		lv_eventfd_signal(w->control_fd);
	}
	pthread_mutex_unlock(&w->host_lock);
}

int libvhost_worker_fd(struct libvhost_worker *w)
{
	return w ? w->report_fd : -EINVAL;
}

static void describe(struct libvhost_event *event, struct libvhost_vq *vq, int err)
{
	*event = (struct libvhost_event){
		.type = LIBVHOST_EVENT_QUEUE_ERROR,
		.queue = vq->opts.index,
		.err = err,
		.value = {(uintptr_t)vq},
	};
	snprintf(event->text, sizeof(event->text), "the worker stopped the queue: %s", lv_errno_name(-err));
}

int libvhost_worker_next_event(struct libvhost_worker *w, struct libvhost_event *event)
{
	int found, rc;

	if (!w || !event)
		return -EINVAL;
	rc = lv_worker_lock(w);
	if (rc < 0)
		return rc;
	lv_eventfd_drain(w->report_fd);
	found = lv_fds_failure(w, event);
	for (uint32_t n = 0; n < LV_WORKER_QUEUES && !found; n++) {
		struct lv_post *post = &w->posts[n];
		int err = atomic_load(&w->failed[n]);

		if (!post->vq || post->reported || !err)
			continue;
		post->reported = true;
		describe(event, post->vq, err);
		found = 1;
	}
	if (found)
		lv_eventfd_signal(w->report_fd); /* there may be more */
	pthread_mutex_unlock(&w->host_lock);
	return found;
}
