/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/*
 * One queue of a running device: start, stop, reset. The others run on. A queue that stands by itself is marked HELD,
 * so that a reconnect brings back what ran and nothing else.
 */
#include "device/device.h"

#include <errno.h>

static struct lv_record_queue *at_work(struct libvhost_dev *dev)
{
	return &dev->op.work->queue[dev->op.queue];
}

/* What even a failed plan found out about its queue. */
static void absorb(struct libvhost_dev *dev)
{
	pthread_mutex_lock(&dev->lock);
	lv_queue_absorb(&dev->rec->queue[dev->op.queue], at_work(dev));
	pthread_mutex_unlock(&dev->lock);
}

static uint32_t part_index(struct libvhost_dev *dev)
{
	return (uint32_t)(lv_dev_part_of(dev, dev->op.queue) - dev->parts);
}

/* Something failed after the peer had heard of it. */
static void failed(struct libvhost_dev *dev, int r)
{
	if (lv_part_gone(lv_dev_part_of(dev, dev->op.queue)))
		lv_dev_disconnected(dev, r);
	else
		lv_dev_lost(dev, r);
}

static int start_ended(struct libvhost_dev *dev, int r)
{
	struct lv_operation *op = &dev->op;
	const bool told = dev->parts[part_index(dev)].sent.any;

	if (!r && !op->undo) {
		lv_dev_adopt(dev);
		pthread_mutex_lock(&dev->lock);
		lv_queues_remove(&dev->unfinished, op->queue);
		lv_queues_remove(&dev->broken, op->queue);
		pthread_mutex_unlock(&dev->lock);
		lv_queue_poke(dev, op->queue);
		return 0;
	}
	if (op->undo)
		lv_inflight_rebase(dev);
	else
		op->result = r;
	absorb(dev);
	if (!r)
		lv_share_queue_stopped(dev, op->queue); /* taken back */
	if (!r || !told)
		return 0;
	if (op->undo || !lv_dev_fate_known(r) || lv_part_gone(lv_dev_part_of(dev, op->queue))) {
		failed(dev, r);
		return 0;
	}
	if (!(at_work(dev)->flags & LV_RQ_RUNNING))
		return 0; /* refused before it was kicked */
	lv_dev_begin_undo(dev);
	lv_op_plan_part(dev, LV_PLAN_QUEUE_STOP, part_index(dev));
	return 1;
}

static bool anything_done(const struct lv_program *prog)
{
	for (uint32_t i = 0; i < prog->count; i++)
		if (prog->reqs[i].state == LIBVHOST_REQ_DONE)
			return true;
	return false;
}

static int stop_ended(struct libvhost_dev *dev, int r)
{
	const struct lv_part *part = &dev->parts[part_index(dev)];
	struct lv_queue_set ran;

	dev->op.result = r;
	if (dev->op.drains) {
		if (lv_part_gone(part))
			failed(dev, r);
		return 0;
	}
	lv_inflight_rebase(dev);
	if (!r) {
		ran = lv_queues_running(dev->rec);
		at_work(dev)->flags |= LV_RQ_HELD;
		lv_dev_adopt(dev);
		lv_share_queue_stopped(dev, dev->op.queue);
		return lv_drain_begin(dev, &ran);
	}
	absorb(dev);
	/* a peer that refuses to disable the ring has changed nothing */
	if (part->sent.any && (!lv_dev_fate_known(r) || lv_part_gone(part) || anything_done(&part->prog)))
		failed(dev, r);
	return 0;
}

/* Claims the device for one queue. */
static int claim(struct libvhost_dev *dev, uint32_t index, uint32_t timeout_ms, const char *call)
{
	int r;

	if (timeout_ms > LV_TIMEOUT_MAX_MS)
		return lv_fail(&dev->err, -EINVAL, LIBVHOST_EK_ARGUMENT, "%s: timeout of %u ms is above %u", call,
			       timeout_ms, LV_TIMEOUT_MAX_MS);
	r = lv_queue_claim(dev, index, call);
	if (!r)
		dev->op.queue = index;
	return r;
}

static int run(struct libvhost_dev *dev, enum lv_plan_kind kind, uint32_t timeout_ms,
	       int (*ended)(struct libvhost_dev *dev, int result))
{
	lv_op_prepare(dev);
	if (kind == LV_PLAN_QUEUE_START)
		lv_queue_settle_base(dev->op.work, at_work(dev));
	lv_op_begin(dev, false, lv_deadline(dev->ctx, timeout_ms), ended);
	lv_op_plan_part(dev, kind, part_index(dev));
	return lv_op_finish(dev);
}

static int start(struct libvhost_dev *dev, uint32_t index, uint32_t timeout_ms)
{
	int r;

	if (dev->state != LIBVHOST_DEV_RUNNING)
		return lv_fail(&dev->err, -EINVAL, LIBVHOST_EK_STATE,
			       "start_queue: the device does not run; libvhost_dev_start() starts all its queues");
	if (dev->rec->queue[index].flags & LV_RQ_RUNNING)
		return lv_fail(&dev->err, -EALREADY, LIBVHOST_EK_STATE, "start_queue: queue %u runs already", index);
	if (!lv_dev_part_of(dev, index))
		return lv_fail(&dev->err, -EINVAL, LIBVHOST_EK_STATE,
			       "queue %u: no part carries it; add one with libvhost_dev_add_part()", index);
	r = lv_queues_make_fds(dev);
	return r ? r : run(dev, LV_PLAN_QUEUE_START, timeout_ms, start_ended);
}

int libvhost_dev_start_queue(struct libvhost_dev *dev, uint32_t index, uint32_t timeout_ms)
{
	int r;

	if (!dev)
		return -EINVAL;
	r = claim(dev, index, timeout_ms, "start_queue");
	return r ? r : lv_dev_release(dev, start(dev, index, timeout_ms));
}

/* It runs, or its last stop did not see the end of its requests. */
static bool to_stop(const struct libvhost_dev *dev, uint32_t index)
{
	return dev->rec->queue[index].flags & LV_RQ_RUNNING || lv_queues_has(&dev->unfinished, index);
}

int libvhost_dev_stop_queue(struct libvhost_dev *dev, uint32_t index, uint32_t timeout_ms)
{
	int r;

	if (!dev)
		return -EINVAL;
	r = claim(dev, index, timeout_ms, "stop_queue");
	if (r)
		return r;
	if (!to_stop(dev, index))
		r = lv_fail(&dev->err, -EALREADY, LIBVHOST_EK_STATE, "stop_queue: queue %u does not run", index);
	else
		r = run(dev, LV_PLAN_QUEUE_STOP, timeout_ms, stop_ended);
	return lv_dev_release(dev, r);
}

int libvhost_dev_reset_queue(struct libvhost_dev *dev, uint32_t index, uint32_t timeout_ms)
{
	int r;

	if (!dev)
		return -EINVAL;
	r = claim(dev, index, timeout_ms, "reset_queue");
	if (r)
		return r;
	if (to_stop(dev, index))
		r = run(dev, LV_PLAN_QUEUE_STOP, timeout_ms, stop_ended);
	if (!r) {
		lv_notifier_drop(dev, index);
		lv_inflight_forget_queue(dev, index);
		lv_queue_forget(dev, index);
	}
	return lv_dev_release(dev, r);
}

void lv_queues_release_held(struct lv_record *rec)
{
	for (uint32_t i = 0; i < rec->num_queues; i++)
		rec->queue[i].flags &= ~(uint32_t)LV_RQ_HELD;
}
