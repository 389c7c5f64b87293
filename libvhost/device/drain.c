/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/*
 * What a peer that says "stopped" still works on. Some answer GET_VRING_BASE before the requests that they took are
 * completed (qemu-storage-daemon 7.2): those may write guest memory and its used ring. A split ring shows how many they
 * are, by its used index against the index that the peer named, in whatever order it completes. A packed ring shows
 * nothing of the kind to somebody who is not its driver; what its peer says is all there is.
 */
#include "device/device.h"

#include <errno.h>
#include "device/features.h"
#include "vring/vring.h"

#define FIRST_PAUSE_NS 500000u
#define LAST_PAUSE_NS  16000000u

uint32_t lv_queue_unfinished(const struct lv_record *rec, uint32_t index, const struct lv_snapshot *mem)
{
	const struct lv_record_queue *q = &rec->queue[index];

	if (!(q->flags & LV_RQ_SET) || q->flags & (LV_RQ_RUNNING | LV_RQ_BASE_STALE) || lv_queue_packed(rec))
		return 0;
	return lv_split_in_flight(mem, q->avail, q->used, (uint16_t)q->base, q->num);
}

/* A queue that broke completes nothing any more. */
static bool broke(const struct libvhost_dev *dev, uint32_t index)
{
	struct pollfd err = {.fd = dev->fds[index].err, .events = POLLIN};

	return lv_queues_has(&dev->broken, index) || poll(&err, 1, 0) > 0;
}

struct unfinished {
	uint32_t queue, requests; /* of the first one */
	uint32_t queues;
};

/* Lock held. Forgets the queues that are done. */
static struct unfinished count(struct libvhost_dev *dev, const struct lv_snapshot *mem)
{
	struct unfinished u = {0};

	for (uint32_t i = 0; i < dev->rec->num_queues; i++) {
		const uint32_t n = lv_queues_has(&dev->unfinished, i) ? lv_queue_unfinished(dev->rec, i, mem) : 0;

		if (!n || broke(dev, i)) {
			lv_queues_remove(&dev->unfinished, i);
			continue;
		}
		if (!u.queues++) {
			u.queue = i;
			u.requests = n;
		}
	}
	return u;
}

/* Nobody else looks after the connections meanwhile. */
static int still_there(struct libvhost_dev *dev)
{
	for (uint32_t i = 0; i < dev->num_parts; i++) {
		struct lv_part *part = &dev->parts[i];
		int r = lv_transport_progress(part->t);

		if (r < 0 && lv_part_gone(part))
			return lv_fail_copy(&dev->err, &part->t->err);
	}
	return 0;
}

static int give_up(struct libvhost_dev *dev, const struct unfinished *u, int why)
{
	struct lv_where where = LV_WHERE_NONE;

	where.op = LIBVHOST_OP_GET_VRING_BASE;
	where.queue = u->queue;
	return lv_fail_at(&dev->err, why, why == -EAGAIN ? LIBVHOST_EK_TIMEOUT : LIBVHOST_EK_CANCELLED, &where,
			  "%s: queue %u: the peer said that it stopped at %u and has not completed %u requests before "
			  "that (queues like this: %u); it may still write guest memory. The rings rest; stop again "
			  "to wait on",
			  lv_dev_part_of(dev, u->queue)->t->peer, u->queue, dev->rec->queue[u->queue].base, u->requests,
			  u->queues);
}

static int look(struct libvhost_dev *dev)
{
	struct lv_snapshot *mem = lv_mem_snapshot(dev->mem);
	const uint64_t now = lv_now(dev->ctx);
	struct unfinished u;
	int r;

	pthread_mutex_lock(&dev->lock);
	u = count(dev, mem);
	pthread_mutex_unlock(&dev->lock);
	lv_snapshot_put(mem);
	if (!u.queues)
		return 1;
	r = still_there(dev);
	if (r)
		return r;
	if (atomic_load(&dev->op.cancelled))
		return give_up(dev, &u, -ECANCELED);
	if (now >= dev->op.deadline)
		return give_up(dev, &u, -EAGAIN);
	dev->op.look_at = now + dev->op.pause;
	dev->op.pause = dev->op.pause < LAST_PAUSE_NS ? dev->op.pause * 2 : LAST_PAUSE_NS;
	return 0;
}

struct lv_queue_set lv_queues_running(const struct lv_record *rec)
{
	struct lv_queue_set set = {{0}};

	for (uint32_t i = 0; i < rec->num_queues; i++)
		if (rec->queue[i].flags & LV_RQ_RUNNING)
			lv_queues_put(&set, i);
	return set;
}

/* Such a stop leaves requests behind on purpose: in the region. */
static bool leaves_them(const struct lv_record *rec)
{
	return rec->flags & LV_RF_INFLIGHT && rec->protocol_acked & LV_BIT(LIBVHOST_PROTOCOL_F_GET_VRING_BASE_INFLIGHT);
}

bool lv_drain_begin(struct libvhost_dev *dev, const struct lv_queue_set *ran)
{
	struct lv_snapshot *mem = lv_mem_snapshot(dev->mem);
	bool waits;

	pthread_mutex_lock(&dev->lock);
	for (uint32_t i = 0; i < dev->rec->num_queues; i++)
		if (lv_queues_has(ran, i) && !leaves_them(dev->rec))
			lv_queues_put(&dev->unfinished, i);
	waits = count(dev, mem).queues;
	pthread_mutex_unlock(&dev->lock);
	lv_snapshot_put(mem);
	dev->op.drains = waits;
	dev->op.pause = FIRST_PAUSE_NS;
	dev->op.step = waits ? look : NULL;
	return waits;
}

bool lv_drain_owed(const struct libvhost_dev *dev)
{
	for (uint32_t i = 0; i < dev->rec->num_queues; i++)
		if (lv_queues_has(&dev->unfinished, i))
			return true;
	return false;
}

void lv_drain_void(struct libvhost_dev *dev)
{
	struct lv_snapshot *mem = lv_mem_snapshot(dev->mem);

	pthread_mutex_lock(&dev->lock);
	count(dev, mem);
	for (uint32_t i = 0; i < dev->rec->num_queues; i++)
		if (lv_queues_has(&dev->unfinished, i))
			dev->rec->queue[i].flags |= LV_RQ_BASE_STALE;
	dev->unfinished = (struct lv_queue_set){{0}};
	pthread_mutex_unlock(&dev->lock);
	lv_snapshot_put(mem);
}
