/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/*
 * The engine: runs plans over the parts of a device. Blocking calls, dispatch and memory commits all drive the same
 * steps; the only difference is who waits for the descriptors. After a program was handed to a transport the engine
 * waits before it looks for the answer: a start costs as many poll calls as it has waits.
 */
#include "device/device.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include "core/wire.h"

struct lv_part *lv_dev_part_of(struct libvhost_dev *dev, uint32_t queue)
{
	for (uint32_t i = 0; i < dev->num_parts; i++)
		if (queue - dev->parts[i].first < dev->parts[i].count)
			return &dev->parts[i];
	return NULL;
}

bool lv_part_has_queue(struct lv_part *part, uint32_t queue)
{
	const struct lv_record *rec = part->dev->rec;

	return queue < rec->num_queues && queue - part->first < part->count && rec->queue[queue].flags & LV_RQ_SET;
}

bool lv_part_gone(const struct lv_part *part)
{
	return part->t && part->t->broken;
}

bool lv_dev_gone(const struct libvhost_dev *dev)
{
	for (uint32_t i = 0; i < dev->num_parts; i++)
		if (lv_part_gone(&dev->parts[i]))
			return true;
	return false;
}

static struct lv_plan_env part_env(struct libvhost_dev *dev, struct lv_part *part)
{
	return (struct lv_plan_env){
		.caps = &part->caps,
		.rec = dev->op.work,
		.mem = dev->op.mem,
		.peer_mem = part->peer_mem,
		.fds = dev->fds,
		.first = part->first,
		.count = part->count,
		.lead = part == &dev->parts[0],
		.wanted_queues = part->count,
		.dev_flags = dev->opts.flags,
		.protocol_never = dev->opts.protocol_features,
		.has_on_request = dev->ops.on_request != NULL,
		.inflight_fd = dev->op.inflight_fd >= 0 ? dev->op.inflight_fd : dev->inflight.fd,
		.inflight_file = dev->op.inflight_file,
		.queue = dev->op.queue,
		.log = dev->op.log,
	};
}

/* Adds the states of the program that just ended to what the peer was told, and takes what it brought. */
static void note_sent(struct libvhost_dev *dev, struct lv_part *part)
{
	struct lv_sent *sent = &part->sent;

	lv_inflight_collect(dev, &part->prog);
	for (uint32_t i = 0; i < part->prog.count; i++) {
		const struct libvhost_req *req = &part->prog.reqs[i];
		const bool slot = req->op == LIBVHOST_OP_ADD_MEM_REG || req->op == LIBVHOST_OP_REM_MEM_REG;

		sent->any |= req->state != LIBVHOST_REQ_NOT_SENT;
		if (!slot && req->op != LIBVHOST_OP_SET_MEM_TABLE && req->op != LIBVHOST_OP_IOTLB_MSG)
			continue;
		sent->slots |= req->op != LIBVHOST_OP_SET_MEM_TABLE;
		sent->memory++;
		sent->memory_sent += req->state != LIBVHOST_REQ_NOT_SENT;
		sent->memory_done += req->state == LIBVHOST_REQ_DONE;
	}
}

/* The part goes no further: what its last program found out. */
static void part_halt(struct libvhost_dev *dev, struct lv_part *part)
{
	struct lv_plan_env env = part_env(dev, part);

	part->active = false;
	lv_part_enter(dev, part);
	lv_plan_harvest(&part->plan, &env, &part->prog);
	lv_part_leave(dev, part);
}

static int explain(struct libvhost_dev *dev, struct lv_part *part)
{
	struct lv_plan_env env = part_env(dev, part);
	int shrunk;

	lv_fail_copy(&dev->err, &part->t->err);
	lv_part_enter(dev, part);
	shrunk = lv_plan_explain(&part->plan, &env, &part->prog, &dev->err);
	lv_part_leave(dev, part);
	return shrunk;
}

static void part_failed(struct libvhost_dev *dev, struct lv_part *part, int r, bool by_transport)
{
	int shrunk;

	part_halt(dev, part);
	if (dev->op.failed)
		return;
	dev->op.failed = r;
	if (!by_transport || dev->op.undo)
		return;
	shrunk = explain(dev, part);
	if (shrunk)
		dev->op.failed = shrunk;
}

/* A transport without descriptors of its own (ioctls, in-process) has the answer at once: nothing to wait for. */
static bool has_to_wait(struct lv_part *part)
{
	struct pollfd fds[LV_TRANSPORT_POLLFDS];

	return lv_transport_pollfds(part->t, fds, LV_TRANSPORT_POLLFDS) > 1;
}

/* Hands over program after program until there is something to wait for. */
static void part_run(struct libvhost_dev *dev, struct lv_part *part)
{
	int r;

	for (;;) {
		struct lv_plan_env env = part_env(dev, part); /* the last program may have brought something */

		/* an undo keeps the error that made it necessary */
		lv_part_enter(dev, part);
		r = lv_plan_next(&part->plan, &env, &part->prog, dev->op.undo ? NULL : &dev->err);
		lv_part_leave(dev, part);
		if (r < 0)
			return part_failed(dev, part, r, false);
		if (r == 0) {
			part->active = false;
			return;
		}
		r = lv_transport_submit(part->t, part->prog.reqs, part->prog.count, dev->op.deadline);
		if (r < 0) {
			note_sent(dev, part);
			return part_failed(dev, part, r, true);
		}
		if (atomic_load(&dev->op.cancelled))
			libvhost_transport_cancel(part->t);
		if (has_to_wait(part))
			return;
		r = lv_transport_progress(part->t);
		if (r == 0)
			return;
		note_sent(dev, part);
		if (r < 0)
			return part_failed(dev, part, r, true);
	}
}

static void part_step(struct libvhost_dev *dev, struct lv_part *part)
{
	int r = lv_transport_progress(part->t);

	if (r == 0)
		return;
	note_sent(dev, part);
	if (r < 0)
		part_failed(dev, part, r, true);
	else if (dev->op.failed)
		part_halt(dev, part);
	else
		part_run(dev, part);
}

void lv_op_plan_part(struct libvhost_dev *dev, enum lv_plan_kind kind, uint32_t index)
{
	struct lv_part *part = &dev->parts[index];

	part->sent = (struct lv_sent){0};
	lv_dev_log_told(dev, part, kind);
	lv_program_clear(&part->prog);
	lv_plan_begin(&part->plan, kind, part->caps.dialect);
	part->active = true;
	part_run(dev, part);
}

void lv_op_plan(struct libvhost_dev *dev, enum lv_plan_kind kind)
{
	for (uint32_t i = 0; i < dev->num_parts; i++)
		dev->parts[i].sent = (struct lv_sent){0};
	for (uint32_t i = 0; i < dev->num_parts && !dev->op.failed; i++)
		lv_op_plan_part(dev, kind, i);
}

void lv_op_abort(struct libvhost_dev *dev)
{
	for (uint32_t i = 0; i < dev->num_parts; i++) {
		struct lv_part *part = &dev->parts[i];

		if (!part->active)
			continue;
		libvhost_transport_cancel(part->t);
		if (lv_transport_progress(part->t) == 0)
			lv_transport_close(part->t);
		note_sent(dev, part);
		part_failed(dev, part, -ECANCELED, false);
	}
}

void lv_op_harvest(struct libvhost_dev *dev, struct lv_record *rec)
{
	for (uint32_t i = 0; i < dev->num_parts; i++) {
		struct lv_part *part = &dev->parts[i];
		struct lv_plan_env env = part_env(dev, part);

		env.rec = rec;
		lv_plan_harvest(&part->plan, &env, &part->prog);
	}
}

bool lv_op_running(const struct libvhost_dev *dev)
{
	for (uint32_t i = 0; i < dev->num_parts; i++)
		if (dev->parts[i].active)
			return true;
	return false;
}

/* What became of a request is known once its answer is there: a refusal by one part does not cut the others off, whose
 * connections would be lost for it. */
static bool ends_at_once(const struct libvhost_dev *dev)
{
	return !lv_dev_fate_known(dev->op.failed) || lv_dev_gone(dev);
}

/* Lets the operation draw its conclusion once all plans ended or one failed. */
int lv_op_settle(struct libvhost_dev *dev)
{
	struct lv_operation *op = &dev->op;
	int r;

	for (;;) {
		if (op->opening) {
			r = lv_reconnect_step(dev);
			if (r == 0)
				return 0;
			if (r < 0)
				op->failed = r;
			op->opening = false;
		}
		if (op->step) {
			r = op->step(dev);
			if (r == 0)
				return 0;
			if (r < 0)
				op->failed = r;
			op->step = NULL;
		}
		if (op->failed && ends_at_once(dev))
			lv_op_abort(dev);
		else if (lv_op_running(dev))
			return 0;
		lv_parts_combine(dev);
		r = op->failed;
		op->failed = 0;
		if (!op->ended(dev, r))
			return op->result ? op->result : 1;
	}
}

int lv_op_step(struct libvhost_dev *dev)
{
	for (uint32_t i = 0; i < dev->num_parts; i++)
		if (dev->parts[i].active)
			part_step(dev, &dev->parts[i]);
	return lv_op_settle(dev);
}

void lv_op_begin(struct libvhost_dev *dev, bool async, uint64_t deadline,
		 int (*ended)(struct libvhost_dev *dev, int result))
{
	struct lv_operation *op = &dev->op;

	pthread_mutex_lock(&dev->lock);
	op->async = async;
	op->deadline = deadline;
	op->ended = ended;
	pthread_mutex_unlock(&dev->lock);
}

void lv_op_prepare(struct libvhost_dev *dev)
{
	memcpy(dev->op.work, dev->rec, dev->rec->bytes);
	lv_parts_begin(dev);
	lv_snapshot_put(dev->op.mem);
	dev->op.mem = lv_mem_snapshot(dev->mem);
	lv_log_put(dev->op.log);
	dev->op.log = lv_mem_log(dev->mem);
}

static void op_wait(struct libvhost_dev *dev)
{
	uint64_t due = lv_dev_due(dev);
	uint32_t answers = 0;
	struct lv_wait w;

	for (uint32_t i = 0; i < dev->num_parts; i++)
		if (dev->parts[i].active && dev->parts[i].t->answers_due > answers)
			answers = dev->parts[i].t->answers_due;
	lv_transport_gather(answers);
	lv_dev_collect(dev, &w, false);
	if (poll(w.fds, w.count, lv_left_ms(dev->ctx, due)) <= 0)
		for (uint32_t i = 0; i < w.count; i++)
			w.fds[i].revents = 0;
	if (w.fds[0].revents)
		lv_eventfd_drain(dev->wake_fd);
	lv_dev_hand_over(dev, &w);
}

/* Waits for the end of what was begun. */
int lv_op_finish(struct libvhost_dev *dev)
{
	int r = lv_op_settle(dev);

	while (r == 0) {
		op_wait(dev);
		r = lv_op_step(dev);
	}
	return r == 1 ? 0 : r;
}

int lv_op_run(struct libvhost_dev *dev)
{
	int r;

	if (!dev->op.async)
		return lv_dev_release(dev, lv_op_finish(dev));
	r = lv_op_settle(dev);
	if (r)
		lv_op_done(dev, r == 1 ? 0 : r);
	else
		lv_dev_go_outside(dev);
	return -EINPROGRESS;
}

void lv_op_done(struct libvhost_dev *dev, int result)
{
	struct libvhost_event e = {.type = LIBVHOST_EVENT_DONE, .queue = LIBVHOST_NONE, .err = result};
	struct libvhost_error err = {.size = sizeof(err)};
	const bool quiet = dev->op.automatic;

	e.value[0] = dev->op.kind;
	if (result && !lv_errslot_read(&dev->err, &err))
		snprintf(e.text, sizeof(e.text), "%.*s", (int)sizeof(e.text) - 1, err.text);
	lv_dev_end_op(dev); /* whoever takes the event may begin the next operation */
	if (!quiet)
		lv_event_push(dev, &e);
	lv_dev_go_outside(dev);
}

int lv_op_exec(struct libvhost_dev *dev, uint32_t queue, struct libvhost_req *reqs, uint32_t count, uint64_t deadline)
{
	struct lv_part *part = queue == LIBVHOST_NONE ? &dev->parts[0] : lv_dev_part_of(dev, queue);
	int r;

	dev->op.deadline = deadline;
	r = lv_transport_submit(part->t, reqs, count, deadline);
	if (!r && atomic_load(&dev->op.cancelled))
		libvhost_transport_cancel(part->t);
	if (!r && !has_to_wait(part))
		r = lv_transport_progress(part->t);
	while (r == 0) {
		op_wait(dev);
		r = lv_transport_progress(part->t);
	}
	if (r < 0)
		lv_fail_copy(&dev->err, &part->t->err);
	return r < 0 ? r : 0;
}
