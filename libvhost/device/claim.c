/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* Who may do what when: one operation at a time, one thread inside, short requests wait for each other. */
#include "device/device.h"

#include <errno.h>
#include <time.h>
#include "core/wire.h"

static const char *const state_names[] = {
	[LIBVHOST_DEV_CONNECTING] = "connecting",
	[LIBVHOST_DEV_NEGOTIATED] = "stopped",
	[LIBVHOST_DEV_RUNNING] = "running",
	[LIBVHOST_DEV_DISCONNECTED] = "disconnected",
	[LIBVHOST_DEV_LOST] = "lost",
	[LIBVHOST_DEV_RECONNECTING] = "reconnecting",
};

static const char *const op_names[] = {
	[LV_OP_NONE] = "nothing",
	[LV_OP_INIT] = "init",
	[LV_OP_ADD_PART] = "add_part",
	[LV_OP_START] = "start",
	[LV_OP_STOP] = "stop",
	[LV_OP_RESET] = "reset",
	[LV_OP_MEMORY] = "commit",
	[LV_OP_RECONNECT] = "reconnect",
	[LV_OP_REQUEST] = "another request",
	[LV_OP_SAVE_STATE] = "save_state",
	[LV_OP_LOAD_STATE] = "load_state",
};

bool lv_dev_in_callback(const struct libvhost_dev *dev)
{
	return dev->inside && pthread_equal(dev->owner, pthread_self());
}

/* What a call gets in a state that does not allow it. */
static int refuse_state(struct libvhost_dev *dev, const char *call)
{
	switch (dev->state) {
	case LIBVHOST_DEV_DISCONNECTED:
		return lv_fail(&dev->err, -ENOTCONN, LIBVHOST_EK_DISCONNECTED,
			       "%s: the peer is gone; call libvhost_dev_reconnect() or clean up", call);
	case LIBVHOST_DEV_LOST:
		return lv_fail(&dev->err, -EIO, LIBVHOST_EK_LOST,
			       "%s: the device is lost (its state at the peer is unknown); stop, reset, reconnect or "
			       "clean up",
			       call);
	default:
		return lv_fail(&dev->err, -EBUSY, LIBVHOST_EK_STATE, "%s: not allowed while the device is %s", call,
			       state_names[dev->state]);
	}
}

static void wait_idle(struct libvhost_dev *dev, uint64_t deadline)
{
	struct timespec ts = {.tv_sec = (time_t)(deadline / 1000000000u), .tv_nsec = (long)(deadline % 1000000000u)};

	pthread_cond_timedwait(&dev->idle, &dev->lock, &ts);
}

/* Lock held. 0 = free, -EBUSY. The condition variable runs on the monotonic clock, not on a replaced one. */
static int wait_free(struct libvhost_dev *dev, const char *call)
{
	const uint64_t deadline = lv_now(NULL) + dev->ctx->opts.default_timeout_ms * LV_NS_PER_MS;

	for (;;) {
		if (lv_dev_in_callback(dev))
			return lv_fail(
				&dev->err, -EBUSY, LIBVHOST_EK_BUSY,
				"%s: called from a callback of the same device; do it after the callback returned",
				call);
		if (dev->op.kind != LV_OP_NONE && dev->op.kind != LV_OP_REQUEST)
			return lv_fail(&dev->err, -EBUSY, LIBVHOST_EK_BUSY,
				       "%s: %s is in progress; wait for its end or cancel it", call,
				       op_names[dev->op.kind]);
		if (!dev->inside && dev->op.kind == LV_OP_NONE)
			return 0;
		if (lv_now(NULL) >= deadline)
			return lv_fail(&dev->err, -EBUSY, LIBVHOST_EK_BUSY,
				       "%s: another thread stayed inside the device for too long", call);
		wait_idle(dev, deadline);
	}
}

/* Lock held. */
static void enter_inside(struct libvhost_dev *dev)
{
	dev->inside = true;
	dev->owner = pthread_self();
	dev->entries++;
}

int lv_dev_enter(struct libvhost_dev *dev, uint32_t states, const char *call)
{
	int r;

	pthread_mutex_lock(&dev->lock);
	r = wait_free(dev, call);
	if (!r && !(states & 1u << dev->state))
		r = refuse_state(dev, call);
	if (r)
		pthread_mutex_unlock(&dev->lock);
	return r;
}

void lv_dev_occupy(struct libvhost_dev *dev, enum lv_op_kind kind)
{
	struct lv_operation *op = &dev->op;

	op->kind = kind;
	op->async = op->automatic = op->undo = op->opening = op->patient = false;
	op->failed = op->result = 0;
	op->step = NULL;
	op->drains = false;
	op->look_at = UINT64_MAX;
	atomic_store(&op->cancelled, 0);
	dev->renewed |= kind != LV_OP_REQUEST;
	enter_inside(dev);
}

int lv_dev_claim(struct libvhost_dev *dev, enum lv_op_kind kind, uint32_t states, const char *call)
{
	int r = lv_dev_enter(dev, states, call);

	if (r)
		return r;
	lv_dev_occupy(dev, kind);
	pthread_mutex_unlock(&dev->lock);
	return 0;
}

int lv_dev_try_claim(struct libvhost_dev *dev, enum lv_op_kind kind, uint32_t states, const char *call)
{
	int r = 0;

	pthread_mutex_lock(&dev->lock);
	if (dev->inside || dev->op.kind != LV_OP_NONE)
		r = lv_fail(&dev->err, -EBUSY, LIBVHOST_EK_BUSY, "%s: the device is busy; try again", call);
	else if (!(states & 1u << dev->state))
		r = refuse_state(dev, call);
	else
		lv_dev_occupy(dev, kind);
	pthread_mutex_unlock(&dev->lock);
	return r;
}

void lv_dev_end_op(struct libvhost_dev *dev)
{
	struct lv_operation *op = &dev->op;
	struct lv_snapshot *mem;
	struct lv_log *log;

	pthread_mutex_lock(&dev->lock);
	mem = op->mem;
	log = op->log;
	op->mem = NULL;
	lv_fd_close(op->inflight_fd);
	op->inflight_fd = -1;
	op->log = NULL;
	op->kind = LV_OP_NONE;
	pthread_mutex_unlock(&dev->lock);
	lv_snapshot_put(mem);
	lv_log_put(log);
}

int lv_dev_release(struct libvhost_dev *dev, int result)
{
	lv_dev_end_op(dev);
	lv_dev_go_outside(dev);
	return result;
}

bool lv_dev_wait_inside(struct libvhost_dev *dev, uint32_t ms)
{
	const uint64_t deadline = lv_now(NULL) + ms * LV_NS_PER_MS;
	bool free_now;

	pthread_mutex_lock(&dev->lock);
	for (;;) {
		free_now = !dev->inside && (dev->op.kind == LV_OP_NONE || dev->op.async);
		if (free_now || !ms || lv_dev_in_callback(dev) || lv_now(NULL) >= deadline)
			break;
		wait_idle(dev, deadline);
	}
	if (free_now)
		enter_inside(dev);
	pthread_mutex_unlock(&dev->lock);
	return free_now;
}

bool lv_dev_go_inside(struct libvhost_dev *dev)
{
	return lv_dev_wait_inside(dev, 0);
}

void lv_dev_go_outside(struct libvhost_dev *dev)
{
	lv_dev_rearm(dev);
	pthread_mutex_lock(&dev->lock);
	dev->inside = false;
	if (dev->renewed && dev->waiting)
		lv_dev_wake(dev);
	dev->renewed = false;
	pthread_cond_broadcast(&dev->idle);
	pthread_mutex_unlock(&dev->lock);
}
