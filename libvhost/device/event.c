/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/*
 * Events and what the peer sends by itself. The queue is bounded: repeated reports of one kind coalesce, and while it
 * is nearly full no further back-end request is read, so that what is left belongs to the library's own reports.
 */
#include "device/device.h"

#include <errno.h>
#include <stdio.h>
#include "core/wire.h"

static bool repeats(const struct libvhost_event *e)
{
	return e->type == LIBVHOST_EVENT_CONFIG_CHANGE || e->type == LIBVHOST_EVENT_QUEUE_ERROR ||
	       e->type == LIBVHOST_EVENT_QUEUE_CALL;
}

static bool waits_already(const struct lv_events *q, const struct libvhost_event *e)
{
	for (uint32_t i = 0; i < q->count; i++) {
		const struct libvhost_event *old = &q->ring[(q->head + i) % LV_EVENTS];

		if (old->type == e->type && old->queue == e->queue)
			return true;
	}
	return false;
}

void lv_event_push(struct libvhost_dev *dev, const struct libvhost_event *event)
{
	struct lv_events *q = &dev->events;
	bool wake;

	pthread_mutex_lock(&dev->lock);
	if (repeats(event) && waits_already(q, event)) {
		pthread_mutex_unlock(&dev->lock);
		return;
	}
	if (q->count >= (repeats(event) ? LV_EVENTS_PAUSE : LV_EVENTS)) {
		q->dropped++;
	} else {
		struct libvhost_event *slot = &q->ring[(q->head + q->count++) % LV_EVENTS];

		*slot = *event;
		slot->dropped = q->dropped;
		q->dropped = 0;
		atomic_store(&dev->event_count, q->count);
	}
	wake = !dev->dispatching;
	pthread_mutex_unlock(&dev->lock);
	if (wake)
		lv_dev_wake(dev);
}

void lv_event_simple(struct libvhost_dev *dev, uint32_t type, uint32_t queue, int err, const char *text)
{
	struct libvhost_event e = {.type = type, .queue = queue, .err = err};

	snprintf(e.text, sizeof(e.text), "%.*s", (int)sizeof(e.text) - 1, text);
	lv_event_push(dev, &e);
}

int libvhost_dev_next_event(struct libvhost_dev *dev, struct libvhost_event *event)
{
	struct lv_events *q;
	bool resumes = false, taken;

	if (!dev || !event)
		return -EINVAL;
	q = &dev->events;
	pthread_mutex_lock(&dev->lock);
	taken = q->count > 0;
	if (taken) {
		*event = q->ring[q->head];
		q->head = (q->head + 1) % LV_EVENTS;
		resumes = q->count-- == LV_EVENTS_PAUSE;
		atomic_store(&dev->event_count, q->count);
	}
	pthread_mutex_unlock(&dev->lock);
	if (resumes)
		lv_dev_wake(dev); /* dispatch reads the peer's requests again */
	return taken;
}

/* ---- the peer's requests ---- */

static bool is_queue(struct libvhost_dev *dev, uint32_t index)
{
	bool is;

	pthread_mutex_lock(&dev->lock);
	is = index < dev->rec->num_queues && dev->rec->queue[index].flags & LV_RQ_SET;
	pthread_mutex_unlock(&dev->lock);
	return is;
}

static int inbound(void *arg, struct libvhost_req *req)
{
	struct libvhost_dev *dev = arg;

	switch (req->op) {
	case LIBVHOST_OP_BACKEND_CONFIG_CHANGE:
		req->err = 0;
		return 0;
	case LIBVHOST_OP_BACKEND_VRING_CALL:
	case LIBVHOST_OP_BACKEND_VRING_ERR:
		req->err = is_queue(dev, req->index) ? 0 : -EINVAL;
		return req->err;
	default:
		return -ENOTSUP;
	}
}

/* In-band call: the guest gets its interrupt the same way as from a descriptor. */
static void call_guest(struct libvhost_dev *dev, uint32_t queue)
{
	int fd;

	pthread_mutex_lock(&dev->lock);
	fd = dev->rec->queue[queue].flags & LV_RQ_MASKED ? dev->fds[queue].masked : dev->fds[queue].call;
	if (fd >= 0)
		lv_eventfd_signal(fd);
	pthread_mutex_unlock(&dev->lock);
	lv_event_simple(dev, LIBVHOST_EVENT_QUEUE_CALL, queue, 0, "the back-end used buffers");
}

void lv_event_queue_error(struct libvhost_dev *dev, uint32_t queue)
{
	lv_event_simple(dev, LIBVHOST_EVENT_QUEUE_ERROR, queue, -EIO, "the back-end reports that the ring broke");
}

static void answered(void *arg, const struct libvhost_req *req)
{
	struct libvhost_dev *dev = arg;

	if (req->err)
		return;
	if (req->op == LIBVHOST_OP_BACKEND_CONFIG_CHANGE)
		lv_event_simple(dev, LIBVHOST_EVENT_CONFIG_CHANGE, LIBVHOST_NONE, 0, "configuration space changed");
	else if (req->op == LIBVHOST_OP_BACKEND_VRING_CALL && is_queue(dev, req->index))
		call_guest(dev, req->index);
	else if (req->op == LIBVHOST_OP_BACKEND_VRING_ERR)
		lv_event_queue_error(dev, req->index);
}

static bool paused(void *arg)
{
	struct libvhost_dev *dev = arg;

	return atomic_load(&dev->event_count) >= LV_EVENTS_PAUSE;
}

static void closing(void *arg, int fd)
{
	struct libvhost_dev *dev = arg;

	pthread_mutex_lock(&dev->lock);
	lv_dev_unwatch(dev, fd);
	pthread_mutex_unlock(&dev->lock);
}

void lv_event_client(struct libvhost_dev *dev, struct libvhost_transport *t)
{
	const struct lv_transport_client client = {inbound, answered, paused, closing, dev};

	lv_transport_set_client(t, &client);
	if (dev->ops.on_request) {
		t->on_request = dev->ops.on_request;
		t->on_request_arg = dev->ops.arg;
	}
}
