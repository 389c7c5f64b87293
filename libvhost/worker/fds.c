/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* The host's side of a worker's descriptors: add, remove, and hear of failed ones. */
#include <errno.h>
#include <stdio.h>

#include "core/wire.h"
#include "worker/loop.h"
#include "worker/worker.h"

static struct lv_fd_post *find(struct libvhost_worker *w, int fd)
{
	for (struct lv_fd_post *p = w->fd_posts; p < w->fd_posts + LV_WORKER_FDS; p++)
		if (p->used && p->fd == fd)
			return p;
	return NULL;
}

static struct lv_fd_post *find_free(struct libvhost_worker *w)
{
	for (struct lv_fd_post *p = w->fd_posts; p < w->fd_posts + LV_WORKER_FDS; p++)
		if (!p->used)
			return p;
	return NULL;
}

static uint32_t slot_of(struct libvhost_worker *w, const struct lv_fd_post *post)
{
	return (uint32_t)(post - w->fd_posts);
}

static int add(struct libvhost_worker *w, const struct lv_fd_slot *fd, uint32_t timeout_ms)
{
	struct lv_fd_post *post = find_free(w);
	int rc;

	if (find(w, fd->fd))
		return lv_fail(&w->err, -EEXIST, LIBVHOST_EK_STATE, "worker: descriptor %d is on this worker already",
			       fd->fd);
	if (!post)
		return lv_fail(&w->err, -ENOSPC, LIBVHOST_EK_ARGUMENT,
			       "worker: it waits for %u descriptors, which is the most", LV_WORKER_FDS);
	if (lv_worker_ended(w))
		return lv_worker_is_gone(w);
	rc = lv_worker_watch(w, "descriptor", fd->fd, LV_LOOP_FD(slot_of(w, post)));
	if (rc < 0)
		return rc;
	atomic_store(&w->fds_failed[slot_of(w, post)], 0);
	w->mail.kind = LV_MAIL_ADD_FD;
	w->mail.slot = slot_of(w, post);
	w->mail.fd = *fd;
	rc = lv_mail_send(w, lv_deadline(w->ctx, timeout_ms));
	if (rc < 0) {
		lv_worker_unwatch(w, fd->fd);
		return lv_fail(&w->err, rc, LIBVHOST_EK_TIMEOUT,
			       "worker: it did not take descriptor %d in time; a handler does not return", fd->fd);
	}
	*post = (struct lv_fd_post){.used = true, .fd = fd->fd};
	return 0;
}

int libvhost_worker_add_fd(struct libvhost_worker *w, int fd, libvhost_fd_fn fn, void *arg, uint32_t timeout_ms)
{
	if (!w || fd < 0 || !fn || timeout_ms > LV_TIMEOUT_MAX_MS)
		return -EINVAL;
	if (lv_fd_blocks(fd)) /* the first read, before anything arrived, would be the worker's last */
		return lv_fail(&w->err, -EINVAL, LIBVHOST_EK_ARGUMENT,
			       "worker: descriptor %d blocks; make it non-blocking (O_NONBLOCK)", fd);
	return lv_worker_add_fd(w, fd, fn, arg, timeout_ms);
}

int lv_worker_add_fd(struct libvhost_worker *w, int fd, libvhost_fd_fn fn, void *arg, uint32_t timeout_ms)
{
	struct lv_fd_slot slot = {.fd = fd, .fn = fn, .arg = arg};
	int rc;

	rc = lv_worker_lock(w);
	if (rc < 0)
		return rc;
	rc = add(w, &slot, timeout_ms);
	pthread_mutex_unlock(&w->host_lock);
	return rc;
}

static int take_back(struct libvhost_worker *w, int fd, uint32_t timeout_ms)
{
	struct lv_fd_post *post = find(w, fd);
	int rc;

	if (!post)
		return lv_fail(&w->err, -ENOENT, LIBVHOST_EK_STATE, "worker: descriptor %d is not on this worker", fd);
	w->mail.kind = LV_MAIL_REMOVE_FD;
	w->mail.slot = slot_of(w, post);
	rc = lv_worker_ended(w) ? 0 : lv_mail_send(w, lv_deadline(w->ctx, timeout_ms));
	if (rc < 0)
		return lv_fail(&w->err, rc, LIBVHOST_EK_TIMEOUT,
			       "worker: it did not give descriptor %d back in time; a handler does not return", fd);
	lv_worker_unwatch(w, fd);
	*post = (struct lv_fd_post){0};
	return 0;
}

int libvhost_worker_remove_fd(struct libvhost_worker *w, int fd, uint32_t timeout_ms)
{
	int rc;

	if (!w || fd < 0 || timeout_ms > LV_TIMEOUT_MAX_MS)
		return -EINVAL;
	rc = lv_worker_lock(w);
	if (rc < 0)
		return rc;
	rc = take_back(w, fd, timeout_ms);
	pthread_mutex_unlock(&w->host_lock);
	return rc;
}

bool lv_fds_failure(struct libvhost_worker *w, struct libvhost_event *event)
{
	for (uint32_t n = 0; n < LV_WORKER_FDS; n++) {
		struct lv_fd_post *post = &w->fd_posts[n];
		int err = atomic_load(&w->fds_failed[n]);

		if (!post->used || post->reported || !err)
			continue;
		post->reported = true;
		*event = (struct libvhost_event){
			.type = LIBVHOST_EVENT_QUEUE_ERROR,
			.queue = UINT32_MAX,
			.err = err,
			.value = {(uint64_t)post->fd},
		};
		snprintf(event->text, sizeof(event->text), "the worker gave up descriptor %d: %s", post->fd,
			 lv_errno_name(-err));
		return true;
	}
	return false;
}
