/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* How every operation that may run asynchronously begins: options, claim, plan. */
#include "device/device.h"

#include <errno.h>

static int read_opts(struct libvhost_dev *dev, const struct libvhost_call_opts *opts, struct lv_call *call)
{
	struct libvhost_call_opts o;
	int r = LV_OPTS_READ(&dev->err, &o, opts);

	if (r)
		return r;
	if (o.flags & ~LIBVHOST_CALL_ASYNC || o.reserved)
		return lv_fail(&dev->err, -EINVAL, LIBVHOST_EK_ARGUMENT,
			       "call options: unknown flags %#x or reserved field set", o.flags);
	if (o.timeout_ms > LV_TIMEOUT_MAX_MS)
		return lv_fail(&dev->err, -EINVAL, LIBVHOST_EK_ARGUMENT, "call options: timeout of %u ms is above %u",
			       o.timeout_ms, LV_TIMEOUT_MAX_MS);
	call->async = o.flags & LIBVHOST_CALL_ASYNC;
	call->deadline = lv_deadline(dev->ctx, o.timeout_ms);
	return 0;
}

static int nothing_to_do(struct libvhost_dev *dev, const struct lv_call *call)
{
	if (!(call->idle & 1u << dev->state))
		return 0;
	return lv_fail(&dev->err, -EALREADY, LIBVHOST_EK_STATE, "%s: %s", call->name, call->why_idle);
}

bool lv_call_begin(struct libvhost_dev *dev, const struct libvhost_call_opts *opts, struct lv_call *call)
{
	call->result = dev ? read_opts(dev, opts, call) : -EINVAL;
	if (call->result || (call->instead && call->instead(dev, &call->result)))
		return false;
	call->result = lv_dev_claim(dev, call->kind, call->states, call->name);
	if (call->result)
		return false;
	call->result = nothing_to_do(dev, call);
	if (call->result)
		lv_dev_release(dev, call->result);
	return !call->result;
}

int lv_call_run(struct libvhost_dev *dev, const struct lv_call *call, enum lv_plan_kind kind)
{
	int r;

	lv_op_prepare(dev);
	r = call->check ? call->check(dev) : 0;
	if (r)
		return lv_dev_release(dev, r);
	lv_op_begin(dev, call->async, call->deadline, call->ended);
	lv_op_plan(dev, kind);
	return lv_op_run(dev);
}
