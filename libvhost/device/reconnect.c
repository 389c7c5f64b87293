/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/*
 * Coming back: the transports are opened again and the record is replayed. By policy the attempts go on, with the
 * pauses of backoff.c, until one succeeds, the peer turns out to offer less, the policy says enough, or somebody
 * cancels; an explicit call tries until its deadline. Rings continue at the used index: what the dead peer had taken
 * and not completed is offered to the new one again.
 */
#include "device/device.h"

#include <errno.h>
#include <stdio.h>
#include "device/features.h"

bool lv_reconnect_possible(const struct libvhost_dev *dev)
{
	for (uint32_t i = 0; i < dev->num_parts; i++)
		if (!(dev->parts[i].caps.flags & LIBVHOST_TRANSPORT_CAN_REOPEN))
			return false;
	return true;
}

void lv_reconnect_begin(struct libvhost_dev *dev, bool automatic)
{
	struct lv_operation *op = &dev->op;

	pthread_mutex_lock(&dev->lock);
	op->automatic = automatic;
	op->opening = true;
	for (uint32_t i = 0; i < dev->num_parts; i++)
		dev->parts[i].open = dev->parts[i].deaf = false;
	pthread_mutex_unlock(&dev->lock);
	lv_backoff_begin(dev);
}

/* A new socket, somebody at the listener: no need to wait for the clock. */
static bool noticed(struct libvhost_dev *dev)
{
	bool any = false;

	for (uint32_t i = 0; i < dev->num_parts; i++) {
		const struct lv_part *part = &dev->parts[i];

		if (!part->open && !part->deaf && lv_transport_appeared(part->t))
			any = true;
	}
	return any;
}

static int reopen_failed(struct libvhost_dev *dev, struct lv_part *part, int r)
{
	if (!part->t->foreign)
		return lv_fail_copy(&dev->err, &part->t->err);
	return lv_fail(&dev->err, r, LIBVHOST_EK_CONNECT, "%s: reconnect: %s", part->t->peer, lv_errno_name(-r));
}

static int open_parts(struct libvhost_dev *dev)
{
	for (uint32_t i = 0; i < dev->num_parts; i++) {
		struct lv_part *part = &dev->parts[i];
		int r;

		if (part->open)
			continue;
		r = lv_transport_reopen(part->t);
		part->deaf = r < 0 && r != -EAGAIN && !part->t->appeared;
		if (r < 0)
			return r == -EAGAIN ? r : reopen_failed(dev, part, r);
		part->open = true;
	}
	return 0;
}

static int too_late(struct libvhost_dev *dev)
{
	uint32_t missing = 0;

	while (missing + 1 < dev->num_parts && dev->parts[missing].open)
		missing++;
	return lv_fail(&dev->err, -ETIMEDOUT, LIBVHOST_EK_TIMEOUT,
		       "%s: the peer did not appear in time; is the back-end running?", dev->parts[missing].t->peer);
}

static int begin_replay(struct libvhost_dev *dev)
{
	dev->op.opening = false;
	/* the old peer may have completed requests until it was really gone */
	if (lv_dev_was_running(dev))
		lv_queues_rebuild_bases(dev, LV_RQ_SET);
	lv_queues_ask_bases(dev);
	lv_op_prepare(dev);
	if (dev->op.automatic)
		dev->op.deadline = lv_deadline(dev->ctx, 0);
	lv_dev_ack_policy(dev);
	lv_op_plan(dev, dev->op.kind == LV_OP_INIT ? LV_PLAN_CONNECT : LV_PLAN_RESUME);
	return 1;
}

/* The policy allows no further attempt, or no longer any. */
static int gave_up(struct libvhost_dev *dev)
{
	struct libvhost_error last = {.size = sizeof(last)};

	if (!lv_backoff_automatic(dev))
		return lv_fail(&dev->err, -ECANCELED, LIBVHOST_EK_CANCELLED,
			       "reconnecting was turned off by libvhost_dev_set_reconnect()");
	(void)lv_errslot_read(&dev->err, &last);
	return lv_fail(&dev->err, -ETIMEDOUT, LIBVHOST_EK_TIMEOUT, "gave up after %u attempts: %s",
		       dev->backoff.attempts, last.text);
}

int lv_reconnect_step(struct libvhost_dev *dev)
{
	struct lv_operation *op = &dev->op;
	bool counts;
	int r;

	if (atomic_load(&op->cancelled))
		return lv_fail(&dev->err, -ECANCELED, LIBVHOST_EK_CANCELLED, "connecting was cancelled");
	if (!op->automatic && lv_now(dev->ctx) >= op->deadline)
		return op->result ? op->result : too_late(dev);
	lv_backoff_update(dev);
	if (op->automatic && !lv_backoff_left(dev))
		return gave_up(dev);
	if (!lv_backoff_due(dev, noticed(dev), &counts))
		return 0;
	dev->backoff.reached_at = lv_now(dev->ctx);
	r = open_parts(dev);
	dev->backoff.attempts += counts || !r;
	if (!r)
		return begin_replay(dev);
	if (!op->automatic && !(op->patient && r == -EAGAIN))
		return r;
	if (counts)
		lv_backoff_pause(dev);
	return op->automatic && !lv_backoff_left(dev) ? gave_up(dev) : 0;
}

static void report_reconnected(struct libvhost_dev *dev)
{
	struct libvhost_event e = {.type = LIBVHOST_EVENT_RECONNECTED, .queue = LIBVHOST_NONE};
	static const char *const names[] = {"none", "in-order", "inflight"};

	lv_backoff_report(dev, &e);
	e.value[0] = lv_inflight_guarantee(dev->rec);
	snprintf(e.text, sizeof(e.text), "replayed to a new peer, guarantee: %s", names[e.value[0]]);
	lv_event_push(dev, &e);
}

static void came_back(struct libvhost_dev *dev)
{
	const uint64_t generation = dev->rec->generation + 1;
	bool changed;

	if (lv_dev_was_running(dev))
		dev->ack_all_next = false; /* else the start that failed is still to come */
	lv_dev_settle_memory(dev, lv_dev_was_running(dev));
	changed = lv_config_differs(dev->rec, dev->op.work);
	lv_dev_adopt(dev);
	pthread_mutex_lock(&dev->lock);
	dev->rec->generation = generation;
	dev->state = dev->rec->flags & LV_RF_RUNNING ? LIBVHOST_DEV_RUNNING : LIBVHOST_DEV_NEGOTIATED;
	pthread_mutex_unlock(&dev->lock);
	lv_dev_table_limit(dev);
	lv_queues_poke(dev, true);
	report_reconnected(dev);
	if (changed)
		lv_config_changed(dev);
	lv_queues_report_unknown(dev);
}

/* Back to waiting for the peer, with the pause grown so far. */
static void wait_again(struct libvhost_dev *dev)
{
	for (uint32_t i = 0; i < dev->num_parts; i++)
		dev->parts[i].open = dev->parts[i].deaf = false;
	dev->op.opening = true;
	if (dev->op.automatic)
		dev->op.deadline = UINT64_MAX; /* the one of the replay is over, and would be due for ever */
	lv_backoff_pause(dev);
}

/* A killed peer's socket still accepts for a moment: being hung up on is no answer yet. */
static bool tries_again(struct libvhost_dev *dev, int r)
{
	const struct lv_operation *op = &dev->op;

	if (op->automatic)
		return r != -ENOTSUP && r != -ECANCELED && lv_backoff_left(dev);
	return (r == -ECONNRESET || r == -EPIPE) && lv_now(dev->ctx) < op->deadline;
}

static int replay_ended(struct libvhost_dev *dev, int r)
{
	struct lv_operation *op = &dev->op;

	op->result = r;
	if (!r) {
		came_back(dev);
		return 0;
	}
	lv_dev_note_unattributed(dev);
	lv_dev_close(dev);
	if (tries_again(dev, r)) {
		wait_again(dev);
		return 1;
	}
	if (op->automatic && r != -ENOTSUP && r != -ECANCELED && r != -ETIMEDOUT)
		op->result = r = gave_up(dev);
	lv_dev_set_state(dev, LIBVHOST_DEV_DISCONNECTED);
	if (op->automatic && r != -ECANCELED)
		lv_dev_report(dev, LIBVHOST_EVENT_DISCONNECTED, r);
	return 0;
}

void lv_reconnect_automatic(struct libvhost_dev *dev)
{
	pthread_mutex_lock(&dev->lock);
	lv_dev_occupy(dev, LV_OP_RECONNECT);
	pthread_mutex_unlock(&dev->lock);
	lv_op_begin(dev, true, UINT64_MAX, replay_ended);
	lv_reconnect_begin(dev, true);
}

/* ---- an automatic reconnect makes way ---- */

/* Becomes the thread inside of an automatic reconnect. False: there is none. */
static bool take_automatic(struct libvhost_dev *dev)
{
	bool ours = false;

	pthread_mutex_lock(&dev->lock);
	while (dev->state == LIBVHOST_DEV_RECONNECTING && !lv_dev_in_callback(dev) &&
	       (dev->op.kind == LV_OP_NONE || dev->op.automatic)) {
		if (dev->inside) {
			pthread_cond_wait(&dev->idle, &dev->lock); /* dispatch never stays inside for long */
			continue;
		}
		dev->inside = ours = true;
		dev->owner = pthread_self();
		dev->entries++;
		break;
	}
	pthread_mutex_unlock(&dev->lock);
	return ours;
}

bool lv_reconnect_stop(struct libvhost_dev *dev, int *result)
{
	if (!take_automatic(dev))
		return false;
	if (!lv_dev_was_running(dev)) {
		*result = lv_fail(&dev->err, -EALREADY, LIBVHOST_EK_STATE, "stop: not running");
	} else {
		lv_op_abort(dev);
		lv_dev_close(dev);
		lv_dev_stopped_here(dev);
		lv_queues_ask_bases(dev);
		dev->op.failed = 0;
		if (dev->op.kind != LV_OP_NONE)
			wait_again(dev);
		*result = 0;
	}
	lv_dev_go_outside(dev);
	return true;
}

/* Takes an automatic reconnect out of the way; false: the call goes on. */
static bool give_way(struct libvhost_dev *dev, int *result)
{
	(void)result;
	if (!take_automatic(dev))
		return false;
	lv_op_abort(dev);
	lv_dev_close(dev);
	lv_dev_set_state(dev, LIBVHOST_DEV_DISCONNECTED);
	dev->op.failed = 0;
	lv_dev_release(dev, 0);
	return false;
}

int libvhost_dev_reconnect(struct libvhost_dev *dev, const struct libvhost_call_opts *opts)
{
	struct lv_call call = {
		.kind = LV_OP_RECONNECT, .name = "reconnect", .states = LV_ANY_STATE, .instead = give_way};
	bool runs;

	if (!lv_call_begin(dev, opts, &call))
		return call.result;
	if (!lv_reconnect_possible(dev))
		return lv_dev_release(dev,
				      lv_fail(&dev->err, -ENOTSUP, LIBVHOST_EK_UNSUPPORTED,
					      "reconnect: this transport cannot be opened again; make a new device"));
	runs = lv_dev_was_running(dev);
	if (dev->state != LIBVHOST_DEV_DISCONNECTED)
		dev->backoff.lost_at = lv_now(dev->ctx);
	lv_dev_close(dev);
	lv_dev_stopped_here(dev);
	pthread_mutex_lock(&dev->lock);
	dev->rec->flags |= runs ? LV_RF_RUNNING : 0;
	dev->state = LIBVHOST_DEV_RECONNECTING;
	pthread_mutex_unlock(&dev->lock);
	lv_op_begin(dev, call.async, call.deadline, replay_ended);
	lv_reconnect_begin(dev, false);
	dev->op.patient = true;
	return lv_op_run(dev);
}
