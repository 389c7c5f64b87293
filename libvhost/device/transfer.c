/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/*
 * Device state at the front-end: begin, move bytes, check. The two requests alone are for callers who move the bytes
 * themselves; save_state and load_state do all three in one operation, which dispatch can drive, too.
 */
#include "device/transfer.h"

#include <errno.h>
#include <vhost/state.h>
#include "core/wire.h"
#include "device/device.h"
#include "device/features.h"

#define TURN_BYTES (1u << 20) /* moved per turn: others want to be served, too */

void lv_transfer_init(struct libvhost_dev *dev)
{
	dev->transfer = (struct lv_transfer){.end = LV_STREAM_NONE, .peer_end = -1};
}

/* Our end may be one that the peer sent: its duplicate there would keep it in the epoll set. */
static void close_end(struct libvhost_dev *dev)
{
	if (dev->transfer.end.fd < 0)
		return;
	pthread_mutex_lock(&dev->lock);
	lv_dev_unwatch(dev, dev->transfer.end.fd);
	pthread_mutex_unlock(&dev->lock);
	lv_stream_close(&dev->transfer.end);
}

void lv_transfer_drop(struct libvhost_dev *dev)
{
	close_end(dev);
	lv_fd_close(dev->transfer.peer_end);
	lv_transfer_init(dev);
}

static bool spoken(const struct libvhost_dev *dev)
{
	return dev->num_parts == 1 && dev->rec->protocol_acked & LV_BIT(LIBVHOST_PROTOCOL_F_DEVICE_STATE);
}

int libvhost_dev_supports_device_state(struct libvhost_dev *dev)
{
	int yes;

	if (!dev)
		return -EINVAL;
	pthread_mutex_lock(&dev->lock);
	yes = spoken(dev);
	pthread_mutex_unlock(&dev->lock);
	return yes;
}

static int check_spoken(struct libvhost_dev *dev, const char *call)
{
	if (spoken(dev))
		return 0;
	if (dev->num_parts > 1)
		return lv_fail(&dev->err, -ENOTSUP, LIBVHOST_EK_UNSUPPORTED,
			       "%s: the device has %u parts, whose peers have a state each: send the requests to "
			       "libvhost_dev_transport()",
			       call, dev->num_parts);
	return lv_fail(&dev->err, -ENOTSUP, LIBVHOST_EK_NOT_NEGOTIATED,
		       "%s: DEVICE_STATE (protocol bit 19) is not in use: %s does not offer it, or the device was made "
		       "not to use it",
		       call, dev->parts[0].t->peer);
}

static struct libvhost_req begin_request(uint32_t direction, int fd)
{
	return (struct libvhost_req){.op = LIBVHOST_OP_SET_DEVICE_STATE_FD,
				     .flags = LIBVHOST_REQ_HAS_FD,
				     .fd = fd,
				     .arg.transfer.direction = direction};
}

/* ---- the requests alone ---- */

static int exec(struct libvhost_dev *dev, struct libvhost_req *req, const char *call, uint32_t timeout_ms)
{
	int r;

	if (timeout_ms > LV_TIMEOUT_MAX_MS)
		return lv_fail(&dev->err, -EINVAL, LIBVHOST_EK_ARGUMENT, "%s: timeout of %u ms is above %u", call,
			       timeout_ms, LV_TIMEOUT_MAX_MS);
	r = lv_dev_claim(dev, LV_OP_REQUEST, LV_STATE(NEGOTIATED), call);
	if (r)
		return r;
	r = check_spoken(dev, call);
	if (!r) {
		r = lv_op_exec(dev, LIBVHOST_NONE, req, 1, lv_deadline(dev->ctx, timeout_ms));
		if (r && lv_part_gone(&dev->parts[0]))
			lv_dev_disconnected(dev, r);
	}
	return lv_dev_release(dev, r);
}

int libvhost_dev_set_device_state_fd(struct libvhost_dev *dev, uint32_t direction, int fd, int *reply_fd,
				     uint32_t timeout_ms)
{
	struct libvhost_req req = begin_request(direction, fd);
	int r;

	if (!dev || !reply_fd)
		return -EINVAL;
	if (direction > LIBVHOST_STATE_LOAD || fd < 0)
		return lv_fail(&dev->err, -EINVAL, LIBVHOST_EK_ARGUMENT,
			       "set_device_state_fd: direction %u, descriptor %d; 0 saves, 1 loads, through a pipe",
			       direction, fd);
	r = exec(dev, &req, "set_device_state_fd", timeout_ms);
	if (!r)
		*reply_fd = req.out_flags & LIBVHOST_REQ_OUT_FD ? req.out_fd : -1;
	return r;
}

int libvhost_dev_check_device_state(struct libvhost_dev *dev, uint32_t timeout_ms)
{
	struct libvhost_req req = {.op = LIBVHOST_OP_CHECK_DEVICE_STATE};

	return dev ? exec(dev, &req, "check_device_state", timeout_ms) : -EINVAL;
}

/* ---- all of it ---- */

static const char *name_of(const struct lv_transfer *x)
{
	return x->ret_len ? "save_state" : "load_state";
}

static int submit(struct libvhost_dev *dev, struct libvhost_req req, enum lv_transfer_phase phase)
{
	struct lv_part *part = &dev->parts[0];
	int r;

	dev->transfer.phase = phase;
	dev->transfer.req = req;
	r = lv_transport_submit(part->t, &dev->transfer.req, 1, dev->op.deadline);
	if (r < 0)
		return lv_fail_copy(&dev->err, &part->t->err);
	if (atomic_load(&dev->op.cancelled))
		libvhost_transport_cancel(part->t);
	return 0;
}

/* A peer may answer with a descriptor that it would rather use. */
static int take_answer(struct libvhost_dev *dev)
{
	struct lv_transfer *x = &dev->transfer;
	int r;

	lv_fd_close(x->peer_end);
	x->peer_end = -1;
	x->phase = LV_TRANSFER_MOVES;
	if (!(x->req.out_flags & LIBVHOST_REQ_OUT_FD))
		return 0;
	close_end(dev);
	r = lv_stream_take(&x->end, x->req.out_fd, !x->ret_len);
	lv_fd_close(x->req.out_fd);
	return r == -EINVAL ? lv_fail(&dev->err, -EPROTO, LIBVHOST_EK_PROTOCOL,
				      "%s: %s answered with a descriptor that is not the %s end of a pipe", name_of(x),
				      dev->parts[0].t->peer, x->ret_len ? "reading" : "writing")
	       : r	    ? lv_fail_sys(&dev->err, -r, "%s: the peer's pipe: %s", name_of(x), lv_errno_name(-r))
			    : 0;
}

/* The bytes moved, 0 = that was the end, -EAGAIN, another error. A full buffer shows by one more byte. */
static ssize_t move_some(struct lv_transfer *x)
{
	uint8_t surplus;
	ssize_t n;

	if (x->off < x->len) {
		n = lv_stream_move(&x->end, x->buf + x->off, x->len - x->off);
		x->off += n > 0 ? (size_t)n : 0;
		return n;
	}
	n = x->ret_len ? lv_stream_move(&x->end, &surplus, 1) : 0;
	return n > 0 ? -ENOSPC : n;
}

/* Somebody who reads no further has its reasons: it is asked for them. */
static int moved(struct libvhost_dev *dev, ssize_t n)
{
	struct lv_transfer *x = &dev->transfer;

	if (n == 0 || n == -EPIPE) {
		close_end(dev);
		return submit(dev, (struct libvhost_req){.op = LIBVHOST_OP_CHECK_DEVICE_STATE}, LV_TRANSFER_CHECKS);
	}
	if (n == -ENOSPC)
		return lv_fail(&dev->err, -ENOSPC, LIBVHOST_EK_OUTPUT_TOO_SMALL,
			       "save_state: the state of %s is larger than %zu bytes", dev->parts[0].t->peer, x->len);
	return lv_fail_sys(&dev->err, (int)-n, "%s: after %zu bytes: %s", name_of(x), x->off, lv_errno_name((int)-n));
}

/* While bytes move nothing else looks after the connection, the clock and who cancels. */
static int watch(struct libvhost_dev *dev)
{
	struct lv_transfer *x = &dev->transfer;
	struct lv_part *part = &dev->parts[0];
	int r = lv_transport_progress(part->t);

	if (r < 0 && lv_part_gone(part))
		return lv_fail_copy(&dev->err, &part->t->err);
	if (atomic_load(&dev->op.cancelled))
		return lv_fail(&dev->err, -ECANCELED, LIBVHOST_EK_CANCELLED, "%s: cancelled after %zu bytes",
			       name_of(x), x->off);
	if (lv_now(dev->ctx) >= dev->op.deadline)
		return lv_fail(&dev->err, -ETIMEDOUT, LIBVHOST_EK_TIMEOUT,
			       x->ret_len ? "save_state: %s has written %zu bytes and does not end"
					  : "load_state: %s has read %zu bytes and does not go on",
			       part->t->peer, x->off);
	return 0;
}

static int move(struct libvhost_dev *dev)
{
	const size_t before = dev->transfer.off;
	ssize_t n;

	do
		n = move_some(&dev->transfer);
	while (n > 0 && dev->transfer.off - before < TURN_BYTES);
	if (n > 0 || n == -EAGAIN)
		return watch(dev);
	return moved(dev, n);
}

/* The answers are in. 1 = it is over. */
static int answered(struct libvhost_dev *dev)
{
	struct lv_transfer *x = &dev->transfer;

	if (x->phase == LV_TRANSFER_ASKS)
		return take_answer(dev);
	if (!x->ret_len && x->off < x->len)
		return lv_fail(&dev->err, -EIO, LIBVHOST_EK_REFUSED,
			       "load_state: %s took %zu of %zu bytes and says that this is all right",
			       dev->parts[0].t->peer, x->off, x->len);
	return 1;
}

static int transfer_step(struct libvhost_dev *dev)
{
	struct lv_transfer *x = &dev->transfer;
	struct lv_part *part = &dev->parts[0];
	int r;

	for (;;) {
		const enum lv_transfer_phase phase = x->phase;

		if (phase == LV_TRANSFER_MOVES) {
			r = move(dev);
		} else {
			r = lv_transport_progress(part->t);
			if (r == 0)
				return 0;
			r = r < 0 ? lv_fail_copy(&dev->err, &part->t->err) : answered(dev);
		}
		if (r || x->phase == phase)
			return r;
	}
}

static int transfer_ended(struct libvhost_dev *dev, int r)
{
	struct lv_transfer *x = &dev->transfer;

	dev->op.result = r;
	if (!r && x->ret_len)
		*x->ret_len = x->off;
	lv_transfer_drop(dev);
	if (r && lv_part_gone(&dev->parts[0]))
		lv_dev_disconnected(dev, r);
	return 0;
}

static int begin(struct libvhost_dev *dev, const struct lv_call *call)
{
	struct lv_transfer *x = &dev->transfer;
	int r = check_spoken(dev, call->name);

	if (r)
		return r;
	r = lv_stream_pipe(&x->end, !x->ret_len, &x->peer_end);
	if (r)
		return lv_fail_sys(&dev->err, -r, "%s: no pipe: %s; raise RLIMIT_NOFILE", call->name,
				   lv_errno_name(-r));
	lv_op_prepare(dev);
	lv_op_begin(dev, call->async, call->deadline, transfer_ended);
	return submit(dev, begin_request(x->ret_len ? LIBVHOST_STATE_SAVE : LIBVHOST_STATE_LOAD, x->peer_end),
		      LV_TRANSFER_ASKS);
}

static int transfer(struct libvhost_dev *dev, void *buf, size_t len, size_t *ret_len,
		    const struct libvhost_call_opts *opts)
{
	struct lv_call call = {.kind = ret_len ? LV_OP_SAVE_STATE : LV_OP_LOAD_STATE,
			       .name = ret_len ? "save_state" : "load_state",
			       .states = LV_STATE(NEGOTIATED)};
	int r;

	if (!lv_call_begin(dev, opts, &call))
		return call.result;
	dev->transfer.buf = buf;
	dev->transfer.len = len;
	dev->transfer.ret_len = ret_len;
	r = begin(dev, &call);
	if (r) {
		transfer_ended(dev, r);
		return lv_dev_release(dev, r);
	}
	dev->op.step = transfer_step;
	return lv_op_run(dev);
}

int libvhost_dev_save_state(struct libvhost_dev *dev, void *buf, size_t *len, const struct libvhost_call_opts *opts)
{
	if (!dev || !len || (!buf && *len))
		return -EINVAL;
	return transfer(dev, buf, *len, len, opts);
}

int libvhost_dev_load_state(struct libvhost_dev *dev, const void *buf, size_t len,
			    const struct libvhost_call_opts *opts)
{
	if (!dev || (!buf && len))
		return -EINVAL;
	return transfer(dev, (void *)(uintptr_t)buf, len, NULL, opts);
}
