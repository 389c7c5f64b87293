/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/*
 * Where rings continue. A peer that is stopped says it; one that died does not. A split ring shows it in its used
 * index, a packed one does not show it at all: the inflight region knows, or else the driver does (ops.ring_base).
 */
#include "device/device.h"

#include <errno.h>
#include <stdio.h>
#include "device/compile.h"
#include "vring/packed.h"
#include "vring/vring.h"

int lv_queue_check_base(struct libvhost_dev *dev, const struct lv_record *rec, uint32_t index,
			const struct lv_record_queue *q)
{
	const bool packed = lv_queue_packed(rec), given = q->flags & LV_RQ_BASE_GIVEN;

	if (packed && given && !lv_packed_base_possible(q->base, q->num))
		return lv_fail(&dev->err, -EINVAL, LIBVHOST_EK_ARGUMENT,
			       "queue %u: base %#x; no packed ring of %u entries can be there (bits 0..14 available "
			       "index, 15 its wrap counter, 16..30 used index, 31 its wrap counter)",
			       index, q->base, q->num);
	if (!packed && q->base > UINT16_MAX)
		return lv_fail(&dev->err, -EINVAL, LIBVHOST_EK_ARGUMENT,
			       "queue %u: base %u; a split ring continues at 0..65535", index, q->base);
	return 0;
}

void lv_queue_settle_base(const struct lv_record *rec, struct lv_record_queue *q)
{
	if (lv_queue_packed(rec) && !(q->flags & LV_RQ_BASE_GIVEN))
		q->base = LV_PACKED_BASE;
	q->flags |= LV_RQ_BASE_GIVEN;
}

void lv_queues_settle_bases(struct lv_record *rec)
{
	for (uint32_t i = 0; i < rec->num_queues; i++)
		if (lv_queue_used(&rec->queue[i]))
			lv_queue_settle_base(rec, &rec->queue[i]);
}

/* A queue that never ran stays as the caller set it up: he may still choose another kind of ring, for which the place
 * where this one would have begun is none. */
void lv_queue_absorb(struct lv_record_queue *to, const struct lv_record_queue *work)
{
	const uint32_t known = LV_RQ_RUNNING | LV_RQ_BASE_STALE | LV_RQ_BASE_GIVEN;

	if (!((to->flags | work->flags) & (LV_RQ_RUNNING | LV_RQ_BASE_STALE)))
		return;
	to->flags = (to->flags & ~known) | (work->flags & known);
	to->base = work->base;
}

/* A packed queue that is held back, or not used, is where its own stop left it. */
static bool rests(const struct lv_record *rec, const struct lv_record_queue *q)
{
	return lv_queue_packed(rec) && !(q->flags & LV_RQ_RUNNING) && !lv_queue_used(q);
}

static bool found(struct libvhost_dev *dev, const struct lv_snapshot *mem, uint32_t index, uint32_t *base)
{
	uint16_t idx;

	if (lv_queue_packed(dev->rec))
		return lv_inflight_packed_base(dev, index, base);
	if (lv_split_used_idx(mem, dev->rec->queue[index].used, &idx))
		return false;
	*base = idx;
	return true;
}

void lv_queues_rebuild_bases(struct libvhost_dev *dev, uint32_t flags)
{
	struct lv_snapshot *mem = lv_mem_snapshot(dev->mem);

	pthread_mutex_lock(&dev->lock);
	for (uint32_t i = 0; i < dev->rec->num_queues; i++) {
		struct lv_record_queue *q = &dev->rec->queue[i];

		if (!(q->flags & flags) || (rests(dev->rec, q) && !(q->flags & LV_RQ_BASE_STALE)))
			continue;
		q->flags |= LV_RQ_BASE_STALE;
		if (found(dev, mem, i, &q->base))
			q->flags &= ~(uint32_t)LV_RQ_BASE_STALE;
	}
	pthread_mutex_unlock(&dev->lock);
	lv_snapshot_put(mem);
}

static bool unknown(const struct lv_record *rec, uint32_t index)
{
	return rec->queue[index].flags & LV_RQ_BASE_STALE && lv_queue_used(&rec->queue[index]);
}

static void ask(struct libvhost_dev *dev, uint32_t index)
{
	uint32_t base = 0;

	if (!dev->ops.ring_base || dev->ops.ring_base(dev->ops.arg, index, &base) ||
	    !lv_packed_base_possible(base, dev->rec->queue[index].num))
		return;
	pthread_mutex_lock(&dev->lock);
	dev->rec->queue[index].base = base;
	dev->rec->queue[index].flags &= ~(uint32_t)LV_RQ_BASE_STALE;
	pthread_mutex_unlock(&dev->lock);
}

void lv_queues_ask_bases(struct libvhost_dev *dev)
{
	bool all = true;

	for (uint32_t i = 0; lv_queue_packed(dev->rec) && i < dev->rec->num_queues; i++) {
		if (unknown(dev->rec, i))
			ask(dev, i);
		all &= !unknown(dev->rec, i);
	}
	if (all)
		return;
	pthread_mutex_lock(&dev->lock);
	dev->rec->flags &= ~(uint32_t)LV_RF_RUNNING;
	pthread_mutex_unlock(&dev->lock);
}

void lv_queues_report_unknown(struct libvhost_dev *dev)
{
	char text[sizeof(((struct libvhost_event *)0)->text)];

	for (uint32_t i = 0; lv_queue_packed(dev->rec) && i < dev->rec->num_queues; i++) {
		if (!unknown(dev->rec, i))
			continue;
		snprintf(text, sizeof(text), "stopped: base of packed ring %u unknown, %s", i,
			 dev->ops.ring_base ? "ring_base did not say" : "no inflight, no ring_base");
		lv_event_simple(dev, LIBVHOST_EVENT_NEEDS_RESET, i, -EINVAL, text);
		return;
	}
}
