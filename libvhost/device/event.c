/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/*
 * Events and what the peer sends by itself. What repeats (configuration changed, a queue was called, broke, got a
 * doorbell) is a flag and cannot fill the queue; of the rest the peer causes no more than a part of it: while that is
 * full no further back-end request is read, except during an operation, in which the peer may wait for our
 * acknowledgement before it gives its own: then such events are counted instead.
 */
#include "device/device.h"

#include <errno.h>
#include <stdio.h>
#include "core/wire.h"

static const struct {
	uint32_t type;
	int err;
	const char *text;
} news[LV_NEWS] = {
	{LIBVHOST_EVENT_HOST_NOTIFIER, 0, "a doorbell came or went"},
	{LIBVHOST_EVENT_QUEUE_CALL, 0, "the back-end used buffers"},
	{LIBVHOST_EVENT_QUEUE_ERROR, -EIO, "the back-end reports that the ring broke"},
};

/* Which flag stands for an event; NULL = it is queued. */
static uint64_t *flag_of(struct lv_events *q, const struct libvhost_event *e)
{
	for (uint32_t i = 0; i < LV_NEWS; i++)
		if (news[i].type == e->type && e->queue < LIBVHOST_MAX_QUEUES)
			return &q->queues[i][e->queue / 64];
	return NULL;
}

/* Lock held. False: it waits already. */
static bool keep(struct lv_events *q, const struct libvhost_event *e)
{
	uint64_t *flag = flag_of(q, e), bit = 1ull << e->queue % 64;
	const bool peers = e->type == LIBVHOST_EVENT_SHMEM;
	bool was;

	if (e->type == LIBVHOST_EVENT_CONFIG_CHANGE) {
		was = q->config;
		q->config = true;
		return !was;
	}
	if (flag) {
		was = *flag & bit;
		*flag |= bit;
		return !was;
	}
	if (q->count >= (peers ? LV_EVENTS_PAUSE : LV_EVENTS)) {
		q->dropped++;
		return true;
	}
	q->ring[(q->head + q->count) % LV_EVENTS] = *e;
	q->ring[(q->head + q->count++) % LV_EVENTS].dropped = q->dropped;
	q->dropped = 0;
	return true;
}

void lv_event_push(struct libvhost_dev *dev, const struct libvhost_event *event)
{
	bool wake;

	pthread_mutex_lock(&dev->lock);
	wake = keep(&dev->events, event) && !dev->dispatching;
	atomic_store(&dev->event_count, dev->events.count);
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

/* Lock held. */
static bool take_news(struct libvhost_dev *dev, struct libvhost_event *e)
{
	struct lv_events *q = &dev->events;

	for (uint32_t i = 0; i < LV_NEWS; i++)
		for (uint32_t w = 0; w < LIBVHOST_MAX_QUEUES / 64; w++) {
			uint64_t *word = &q->queues[i][w];

			if (!*word)
				continue;
			*e = (struct libvhost_event){.type = news[i].type, .err = news[i].err};
			e->queue = w * 64 + (uint32_t)__builtin_ctzll(*word);
			if (e->type == LIBVHOST_EVENT_HOST_NOTIFIER)
				e->value[0] = lv_doorbell_there(dev, e->queue);
			snprintf(e->text, sizeof(e->text), "%s", news[i].text);
			*word &= *word - 1;
			return true;
		}
	return false;
}

/* Lock held. */
static bool take_config(struct lv_events *q, struct libvhost_event *e)
{
	if (!q->config)
		return false;
	q->config = false;
	*e = (struct libvhost_event){.type = LIBVHOST_EVENT_CONFIG_CHANGE, .queue = LIBVHOST_NONE};
	snprintf(e->text, sizeof(e->text), "configuration space changed");
	return true;
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
	if (!taken) {
		taken = take_config(q, event) || take_news(dev, event);
	} else {
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

static int accept(struct lv_part *part, struct libvhost_req *req)
{
	(void)part;
	(void)req;
	return 0;
}

static int accept_for_queue(struct lv_part *part, struct libvhost_req *req)
{
	bool is;

	pthread_mutex_lock(&part->dev->lock);
	is = lv_part_has_queue(part, req->index);
	pthread_mutex_unlock(&part->dev->lock);
	return is ? 0 : -EINVAL;
}

static void config_changed(struct lv_part *part, const struct libvhost_req *req)
{
	(void)req;
	lv_config_changed(part->dev);
}

/* In-band call: the guest gets its interrupt the same way as from a descriptor. */
static void call_guest(struct lv_part *part, const struct libvhost_req *req)
{
	struct libvhost_dev *dev = part->dev;
	int fd = -1;

	pthread_mutex_lock(&dev->lock);
	if (lv_part_has_queue(part, req->index))
		fd = dev->rec->queue[req->index].flags & LV_RQ_MASKED ? dev->fds[req->index].masked
								      : dev->fds[req->index].call;
	if (fd >= 0)
		lv_eventfd_signal(fd);
	pthread_mutex_unlock(&dev->lock);
	lv_event_simple(dev, LIBVHOST_EVENT_QUEUE_CALL, req->index, 0, "");
}

void lv_event_queue_error(struct libvhost_dev *dev, uint32_t queue)
{
	pthread_mutex_lock(&dev->lock);
	lv_queues_put(&dev->broken, queue);
	pthread_mutex_unlock(&dev->lock);
	lv_event_simple(dev, LIBVHOST_EVENT_QUEUE_ERROR, queue, -EIO, "");
}

static void ring_broke(struct lv_part *part, const struct libvhost_req *req)
{
	lv_event_queue_error(part->dev, req->index);
}

/* Reply first, event afterwards. What no row answers, or its ask leaves, goes to the host's on_request. */
#define ROW(name) [LIBVHOST_OP_BACKEND_##name - LIBVHOST_OP_BACKEND_IOTLB_MSG]
static const struct {
	int (*ask)(struct lv_part *part, struct libvhost_req *req);
	void (*told)(struct lv_part *part, const struct libvhost_req *req);
} inbound_table[] = {
	ROW(CONFIG_CHANGE) = {accept, config_changed},
	ROW(SHARED_OBJECT_ADD) = {lv_object_ask, NULL},
	ROW(SHARED_OBJECT_LOOKUP) = {lv_object_ask, NULL},
	ROW(SHARED_OBJECT_REMOVE) = {lv_object_ask, NULL},
	ROW(SHMEM_MAP) = {lv_shmem_ask, lv_shmem_told},
	ROW(SHMEM_UNMAP) = {lv_shmem_ask, lv_shmem_told},
	ROW(VRING_CALL) = {accept_for_queue, call_guest},
	ROW(VRING_ERR) = {accept_for_queue, ring_broke},
	ROW(VRING_HOST_NOTIFIER) = {lv_doorbell_ask, lv_doorbell_told},
};

static uint32_t row_of(const struct libvhost_req *req)
{
	const uint32_t rows = sizeof(inbound_table) / sizeof(inbound_table[0]);
	const uint32_t row = req->op - LIBVHOST_OP_BACKEND_IOTLB_MSG;

	return row < rows ? row : 0; /* a miss of a translation: the host's, and the table's empty row */
}

static int inbound(void *arg, struct libvhost_req *req)
{
	const uint32_t row = row_of(req);
	int r = inbound_table[row].ask ? inbound_table[row].ask(arg, req) : -ENOTSUP;

	if (r != -ENOTSUP)
		req->err = r;
	return r;
}

static void answered(void *arg, const struct libvhost_req *req)
{
	const uint32_t row = row_of(req);

	if (!req->err && inbound_table[row].told)
		inbound_table[row].told(arg, req);
}

static bool paused(void *arg)
{
	const struct lv_part *part = arg;

	return part->dev->op.kind == LV_OP_NONE && atomic_load(&part->dev->event_count) >= LV_EVENTS_PAUSE;
}

static void closing(void *arg, int fd)
{
	struct libvhost_dev *dev = ((struct lv_part *)arg)->dev;

	pthread_mutex_lock(&dev->lock);
	lv_dev_unwatch(dev, fd);
	pthread_mutex_unlock(&dev->lock);
}

void lv_event_client(struct lv_part *part)
{
	const struct lv_transport_client client = {inbound, answered, paused, closing, part};
	const struct libvhost_dev *dev = part->dev;

	lv_transport_set_client(part->t, &client);
	if (dev->ops.on_request) {
		part->t->on_request = dev->ops.on_request;
		part->t->on_request_arg = dev->ops.arg;
	}
}
