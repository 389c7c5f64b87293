/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/*
 * Start, stop, reset. What a failure leaves behind follows one ladder: a refused start is taken back by a stop plan for
 * the queues that may have seen a kick; what cannot be taken back makes the device LOST; a stop that fails on a LOST
 * device closes the connection, which stops everything without the peer's help.
 */
#include "device/device.h"

#include <errno.h>

#define UNDO_MS 1000u

/* A refusal that the critical policy could not pin on one request is looked at more closely the next time. */
void lv_dev_note_unattributed(struct libvhost_dev *dev)
{
	struct libvhost_error e = {.size = sizeof(e)};

	if (!lv_errslot_read(&dev->err, &e))
		dev->ack_all_next = e.first_unknown != LIBVHOST_NONE && dev->opts.ack_policy == LIBVHOST_ACK_CRITICAL;
}

void lv_dev_ack_policy(struct libvhost_dev *dev)
{
	const uint32_t policy = dev->ack_all_next ? (uint32_t)LIBVHOST_ACK_ALL : dev->opts.ack_policy;

	if (policy == dev->ack_policy)
		return;
	dev->ack_policy = policy;
	for (uint32_t i = 0; i < dev->num_parts; i++)
		(void)libvhost_transport_set_ack_policy(dev->parts[i].t, policy);
}

static bool told_anything(const struct libvhost_dev *dev)
{
	for (uint32_t i = 0; i < dev->num_parts; i++)
		if (dev->parts[i].sent.any)
			return true;
	return false;
}

/* What even a failed operation found out: where queues stopped, which may run, the status last written. */
static void absorb_queues(struct libvhost_dev *dev)
{
	const struct lv_record *work = dev->op.work;

	pthread_mutex_lock(&dev->lock);
	for (uint32_t q = 0; q < dev->rec->num_queues; q++)
		lv_queue_absorb(&dev->rec->queue[q], &work->queue[q]);
	lv_parts_absorb(dev);
	pthread_mutex_unlock(&dev->lock);
}

bool lv_dev_fate_known(int r)
{
	return r != -ETIMEDOUT && r != -ECANCELED;
}

void lv_dev_begin_undo(struct libvhost_dev *dev)
{
	const uint64_t least = lv_deadline(dev->ctx, UNDO_MS);

	dev->op.undo = true;
	if (dev->op.deadline < least)
		dev->op.deadline = least;
}

static void stopped(struct libvhost_dev *dev)
{
	lv_queues_rebuild_bases(dev, LV_RQ_BASE_STALE);
	lv_share_stopped(dev);
	if (!lv_drain_owed(dev)) /* else the peer may still write there */
		lv_dev_log_ended(dev);
	if (dev->mem_unknown) {
		lv_dev_disconnected(dev, -ECONNABORTED);
		return;
	}
	lv_dev_set_state(dev, LIBVHOST_DEV_NEGOTIATED);
}

/* The stop plan that takes a refused start back has ended. */
static int undo_ended(struct libvhost_dev *dev, int r)
{
	lv_inflight_rebase(dev);
	absorb_queues(dev);
	if (!r)
		stopped(dev);
	else if (lv_dev_gone(dev))
		lv_dev_disconnected(dev, r);
	else
		lv_dev_lost(dev, r);
	return 0;
}

static int start_ended(struct libvhost_dev *dev, int r)
{
	struct lv_operation *op = &dev->op;
	bool memory_known;

	if (op->undo)
		return undo_ended(dev, r);
	memory_known = lv_dev_settle_memory(dev, !r);
	if (!r) {
		lv_dev_started(dev);
		return 0;
	}
	op->result = r;
	lv_dev_note_unattributed(dev);
	lv_inflight_keep(dev);
	absorb_queues(dev);
	if (lv_dev_gone(dev)) {
		lv_dev_disconnected(dev, r);
	} else if (!told_anything(dev)) {
		return 0;
	} else if (memory_known && lv_dev_fate_known(r)) {
		lv_dev_begin_undo(dev);
		lv_op_plan(dev, LV_PLAN_STOP);
		return 1;
	} else {
		lv_dev_lost(dev, r);
	}
	return 0;
}

static int check_start(struct libvhost_dev *dev)
{
	int r = lv_features_check(dev, dev->op.work->acked, "start");

	if (!r)
		r = lv_queues_check(dev, dev->op.work, dev->op.mem);
	if (!r)
		r = lv_queues_make_fds(dev);
	if (!r)
		r = lv_inflight_before_start(dev);
	if (r)
		return r;
	lv_queues_release_held(dev->op.work);
	lv_queues_settle_bases(dev->op.work);
	lv_dev_ack_policy(dev);
	return 0;
}

int libvhost_dev_start(struct libvhost_dev *dev, const struct libvhost_call_opts *opts)
{
	struct lv_call call = {.kind = LV_OP_START,
			       .name = "start",
			       .states = LV_STATE(NEGOTIATED) | LV_STATE(RUNNING),
			       .idle = LV_STATE(RUNNING),
			       .why_idle = "already running",
			       .check = check_start,
			       .ended = start_ended};

	return lv_call_begin(dev, opts, &call) ? lv_call_run(dev, &call, LV_PLAN_START) : call.result;
}

/* The wait for the last requests is over. They may be open: the rings rest all the same. */
static void drained(struct libvhost_dev *dev, int r)
{
	dev->op.result = r;
	if (lv_dev_gone(dev))
		lv_dev_disconnected(dev, r);
	else
		stopped(dev);
}

static void stop_failed(struct libvhost_dev *dev, int r)
{
	absorb_queues(dev);
	if (lv_dev_gone(dev) || dev->state == LIBVHOST_DEV_LOST)
		lv_dev_disconnected(dev, r);
	else if (told_anything(dev)) /* else it runs on: the peer has not heard of it */
		lv_dev_lost(dev, r);
}

static int stop_ended(struct libvhost_dev *dev, int r)
{
	struct lv_queue_set ran;

	if (dev->op.drains) {
		drained(dev, r);
		return 0;
	}
	dev->op.result = r;
	lv_inflight_rebase(dev);
	if (!r) {
		ran = lv_queues_running(dev->rec);
		lv_dev_adopt(dev);
		if (lv_drain_begin(dev, &ran))
			return 1;
		stopped(dev);
		return 0;
	}
	stop_failed(dev, r);
	return 0;
}

static int check_stop(struct libvhost_dev *dev)
{
	if (dev->state != LIBVHOST_DEV_NEGOTIATED || lv_drain_owed(dev))
		return 0;
	return lv_fail(&dev->err, -EALREADY, LIBVHOST_EK_STATE, "stop: not running");
}

int libvhost_dev_stop(struct libvhost_dev *dev, const struct libvhost_call_opts *opts)
{
	struct lv_call call = {.kind = LV_OP_STOP,
			       .name = "stop",
			       .states = LV_STATE(NEGOTIATED) | LV_STATE(RUNNING) | LV_STATE(LOST),
			       .instead = lv_reconnect_stop,
			       .check = check_stop,
			       .ended = stop_ended};

	return lv_call_begin(dev, opts, &call) ? lv_call_run(dev, &call, LV_PLAN_STOP) : call.result;
}

int libvhost_dev_force_stop(struct libvhost_dev *dev)
{
	int r;

	if (!dev)
		return -EINVAL;
	if (lv_reconnect_stop(dev, &r))
		return r;
	r = lv_dev_claim(dev, LV_OP_STOP, LV_ANY_STATE, "force_stop");
	if (r)
		return r;
	if (dev->state == LIBVHOST_DEV_NEGOTIATED ||
	    (dev->state != LIBVHOST_DEV_RUNNING && dev->state != LIBVHOST_DEV_LOST && !lv_dev_was_running(dev)))
		return lv_dev_release(dev, lv_fail(&dev->err, -EALREADY, LIBVHOST_EK_STATE, "force_stop: not running"));
	lv_dev_close(dev);
	lv_dev_stopped_here(dev);
	lv_queues_ask_bases(dev);
	lv_dev_set_state(dev, LIBVHOST_DEV_DISCONNECTED);
	return lv_dev_release(dev, 0);
}

/* The plan forgot the queues; where they stopped is in its program only. */
static bool reset_waits(struct libvhost_dev *dev)
{
	const struct lv_queue_set ran = lv_queues_running(dev->rec);

	pthread_mutex_lock(&dev->lock);
	lv_op_harvest(dev, dev->rec);
	for (uint32_t q = 0; q < dev->rec->num_queues; q++)
		if (dev->rec->queue[q].flags & LV_RQ_RUNNING)
			dev->rec->queue[q].flags ^= LV_RQ_RUNNING | LV_RQ_BASE_STALE;
	dev->rec->flags &= ~(uint32_t)LV_RF_RUNNING;
	lv_parts_absorb(dev);
	pthread_mutex_unlock(&dev->lock);
	return lv_drain_begin(dev, &ran);
}

static int reset_ended(struct libvhost_dev *dev, int r)
{
	if (dev->op.drains && r) {
		drained(dev, r);
		return 0;
	}
	if (!dev->op.drains && !r && reset_waits(dev))
		return 1;
	dev->op.result = r;
	if (!r) {
		lv_dev_adopt(dev);
		lv_inflight_drop(dev);
		lv_notifiers_drop(dev);
		lv_queues_drop_all(dev);
		lv_share_reset(dev);
		stopped(dev);
		return 0;
	}
	stop_failed(dev, r);
	return 0;
}

int libvhost_dev_reset(struct libvhost_dev *dev, const struct libvhost_call_opts *opts)
{
	struct lv_call call = {.kind = LV_OP_RESET,
			       .name = "reset",
			       .states = LV_STATE(NEGOTIATED) | LV_STATE(RUNNING) | LV_STATE(LOST),
			       .ended = reset_ended};

	return lv_call_begin(dev, opts, &call) ? lv_call_run(dev, &call, LV_PLAN_RESET) : call.result;
}
