/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* Kick and call descriptors at run time: replacing, masking, guest notifiers, the kicks that the library owes. */
#include "device/device.h"

#include <errno.h>
#include "core/wire.h"
#include "vring/vring.h"

#define LIVE (LV_STATE(NEGOTIATED) | LV_STATE(RUNNING))

static int not_set_up(struct libvhost_dev *dev, uint32_t index)
{
	return lv_fail(&dev->err, -ENOENT, LIBVHOST_EK_ARGUMENT, "queue %u is not set up", index);
}

int lv_queue_claim(struct libvhost_dev *dev, uint32_t index, const char *call)
{
	int r = lv_dev_claim(dev, LV_OP_REQUEST, LIVE, call);

	if (!r && (index >= dev->rec->num_queues || !(dev->rec->queue[index].flags & LV_RQ_SET)))
		r = lv_dev_release(dev, not_set_up(dev, index));
	return r;
}

/* What a request that failed means for the device. A refused one changed nothing. */
static void request_failed(struct libvhost_dev *dev, const struct lv_part *part, const struct libvhost_req *req, int r)
{
	if (lv_part_gone(part))
		lv_dev_disconnected(dev, r);
	else if (req->state == LIBVHOST_REQ_UNKNOWN)
		lv_dev_lost(dev, r);
}

static int send_fd(struct libvhost_dev *dev, uint32_t op, uint32_t index, int fd)
{
	struct lv_part *part = lv_dev_part_of(dev, index);
	struct libvhost_req req = {.op = op, .flags = LIBVHOST_REQ_NEED_REPLY};
	int r;

	req.index = index - (part->caps.dialect == LIBVHOST_DIALECT_USER ? 0 : part->first);
	if (fd >= 0) {
		req.flags |= LIBVHOST_REQ_HAS_FD;
		req.fd = fd;
	}
	r = lv_op_exec(dev, index, &req, 1, lv_deadline(dev->ctx, 0));
	if (r)
		request_failed(dev, part, &req, r);
	return r;
}

static int bind_to(struct libvhost_dev *dev, uint32_t index, int fd)
{
	int r = fd < 0 ? 0 : dev->ops.bind_notifier(dev->ops.arg, index, fd, 1);

	dev->bound[index] = fd >= 0 && !r;
	return r > 0 ? -EIO : r;
}

/* Moves the guest's notifications between two descriptors of a queue (-1 = none), or leaves them where they are. */
static int rebind(struct libvhost_dev *dev, uint32_t index, int from, int to)
{
	int r;

	lv_notifier_drop(dev, index);
	r = bind_to(dev, index, to);
	if (r)
		(void)bind_to(dev, index, from);
	if (!r)
		return 0;
	return lv_fail(&dev->err, r, LIBVHOST_EK_REFUSED, "set_kick: bind_notifier refused queue %u with %d; it is %s",
		       index, r, dev->bound[index] ? "bound as before" : "not bound any more: enable_notifiers");
}

/* The peer refused fd with r, which is what is reported; fd is about to be closed, so nothing may stay bound to it.
 * What the guest kicked meanwhile went there. */
static void take_back(struct libvhost_dev *dev, uint32_t index, int fd, int was, int r)
{
	if (fd >= 0)
		dev->ops.bind_notifier(dev->ops.arg, index, fd, 0);
	if (bind_to(dev, index, was))
		lv_fail(&dev->err, r, LIBVHOST_EK_REFUSED,
			"set_kick: the peer did not take the descriptor (%s), then bind_notifier refused queue %u's "
			"old one: it is not bound any more: enable_notifiers",
			lv_errno_name(-r), index);
	if (was >= 0)
		lv_eventfd_signal(was);
}

/* Puts fd (owned from now on) in force. */
static void swap_fd(struct libvhost_dev *dev, uint32_t index, int *slot, int fd, uint32_t poll_flag)
{
	int old;

	pthread_mutex_lock(&dev->lock);
	old = *slot;
	*slot = fd;
	if (fd < 0)
		dev->rec->queue[index].flags |= poll_flag;
	else
		dev->rec->queue[index].flags &= ~poll_flag;
	pthread_mutex_unlock(&dev->lock);
	lv_fd_close(old);
}

/* The guest first, then the peer: what the guest kicks meanwhile waits in the new descriptor. */
static int change_kick(struct libvhost_dev *dev, uint32_t index, int fd)
{
	const bool bound = dev->bound[index];
	const int was = dev->fds[index].kick;
	int r = bound ? rebind(dev, index, was, fd) : 0;

	if (r || !(dev->rec->queue[index].flags & LV_RQ_RUNNING))
		return r;
	r = send_fd(dev, LIBVHOST_OP_SET_VRING_KICK, index, fd);
	if (r && bound)
		take_back(dev, index, fd, was, r);
	return r;
}

int libvhost_dev_set_kick(struct libvhost_dev *dev, uint32_t index, int fd)
{
	int ours = -1, r;

	if (!dev)
		return -EINVAL;
	r = lv_queue_claim(dev, index, "set_kick");
	if (r)
		return r;
	if (dev->rec->queue[index].flags & LV_RQ_IN_BAND)
		return lv_dev_release(dev, lv_fail(&dev->err, -EINVAL, LIBVHOST_EK_ARGUMENT,
						   "set_kick: queue %u is kicked by message (IN_BAND)", index));
	if (fd >= 0 && (ours = lv_fd_dup(fd)) < 0)
		return lv_dev_release(dev, lv_fd_fail(dev, ours, index, "the new kick descriptor"));
	r = change_kick(dev, index, ours);
	if (r) {
		lv_fd_close(ours);
		return lv_dev_release(dev, r);
	}
	swap_fd(dev, index, &dev->fds[index].kick, ours, LV_RQ_KICK_POLL);
	if (ours >= 0 && dev->rec->queue[index].flags & LV_RQ_RUNNING)
		lv_eventfd_signal(ours); /* a kick may still sit in the old one */
	return lv_dev_release(dev, 0);
}

int libvhost_dev_set_call(struct libvhost_dev *dev, uint32_t index, int fd)
{
	int ours = -1, r;

	if (!dev)
		return -EINVAL;
	r = lv_queue_claim(dev, index, "set_call");
	if (r)
		return r;
	if (fd >= 0 && (ours = lv_fd_dup(fd)) < 0)
		return lv_dev_release(dev, lv_fd_fail(dev, ours, index, "the new call descriptor"));
	if ((dev->rec->queue[index].flags & (LV_RQ_RUNNING | LV_RQ_MASKED | LV_RQ_IN_BAND)) == LV_RQ_RUNNING)
		r = send_fd(dev, LIBVHOST_OP_SET_VRING_CALL, index, ours);
	if (r)
		lv_fd_close(ours);
	else
		swap_fd(dev, index, &dev->fds[index].call, ours, LV_RQ_CALL_POLL);
	return lv_dev_release(dev, r);
}

/* Lock held. */
static void flip_mask(struct libvhost_dev *dev, uint32_t index, bool mask)
{
	if (mask)
		dev->rec->queue[index].flags |= LV_RQ_MASKED;
	else
		dev->rec->queue[index].flags &= ~(uint32_t)LV_RQ_MASKED;
}

static int set_masked(struct libvhost_dev *dev, uint32_t index, bool mask)
{
	struct lv_queue_fds *fds = &dev->fds[index];
	int r = 0;

	if (mask)
		r = lv_queue_late_fd(dev, index, &fds->masked, "its private call eventfd");
	if (!r && (dev->rec->queue[index].flags & (LV_RQ_RUNNING | LV_RQ_IN_BAND)) == LV_RQ_RUNNING)
		r = send_fd(dev, LIBVHOST_OP_SET_VRING_CALL, index, mask ? fds->masked : fds->call);
	if (r)
		return r;
	pthread_mutex_lock(&dev->lock);
	flip_mask(dev, index, mask);
	pthread_mutex_unlock(&dev->lock);
	return 0;
}

/* Nobody is there to be told: the replay takes the mask along. Lock held, nobody inside. */
static bool waits_for_peer(const struct libvhost_dev *dev)
{
	const struct lv_operation *op = &dev->op;

	if (dev->state == LIBVHOST_DEV_DISCONNECTED)
		return op->kind == LV_OP_NONE;
	return dev->state == LIBVHOST_DEV_RECONNECTING &&
	       (op->kind == LV_OP_NONE || (op->kind == LV_OP_RECONNECT && op->opening));
}

/* Lock held. */
static int mask_unheard(struct libvhost_dev *dev, uint32_t index, bool mask)
{
	struct lv_queue_fds *fds;

	if (index >= dev->rec->num_queues || !(dev->rec->queue[index].flags & LV_RQ_SET))
		return not_set_up(dev, index);
	fds = &dev->fds[index];
	if (mask && fds->masked < 0) {
		const int made = lv_eventfd();

		if (made < 0)
			return lv_fd_fail(dev, made, index, "its private call eventfd");
		fds->masked = made;
	}
	flip_mask(dev, index, mask);
	return 0;
}

/* A guest masks and unmasks whether its back-end is there or not. False: it is there. */
static bool mask_while_away(struct libvhost_dev *dev, uint32_t index, bool mask, int *result)
{
	bool away;

	pthread_mutex_lock(&dev->lock);
	while (dev->inside && dev->state == LIBVHOST_DEV_RECONNECTING && dev->op.async && !lv_dev_in_callback(dev))
		pthread_cond_wait(&dev->idle, &dev->lock); /* dispatch never stays inside for long */
	away = !dev->inside && waits_for_peer(dev);
	if (away)
		*result = mask_unheard(dev, index, mask);
	pthread_mutex_unlock(&dev->lock);
	return away;
}

/* Unmasking returns only when the peer confirmed the real descriptor: what it signalled before is in the private one
 * by then, and libvhost_virtqueue_pending() finds it. */
int libvhost_virtqueue_mask(struct libvhost_dev *dev, uint32_t index, uint32_t mask)
{
	int r;

	if (!dev)
		return -EINVAL;
	if (mask_while_away(dev, index, mask, &r))
		return r;
	r = lv_queue_claim(dev, index, "virtqueue_mask");
	if (r)
		return r;
	if (!(dev->rec->queue[index].flags & LV_RQ_MASKED) == !mask)
		return lv_dev_release(dev, 0);
	return lv_dev_release(dev, set_masked(dev, index, mask));
}

int libvhost_virtqueue_pending(struct libvhost_dev *dev, uint32_t index)
{
	int r;

	if (!dev)
		return -EINVAL;
	pthread_mutex_lock(&dev->lock);
	if (index >= dev->rec->num_queues || !(dev->rec->queue[index].flags & LV_RQ_SET))
		r = not_set_up(dev, index);
	else
		r = dev->fds[index].masked >= 0 ? lv_eventfd_drain(dev->fds[index].masked) : 0;
	pthread_mutex_unlock(&dev->lock);
	return r;
}

void lv_notifier_drop(struct libvhost_dev *dev, uint32_t index)
{
	if (dev->bound[index])
		dev->ops.bind_notifier(dev->ops.arg, index, dev->fds[index].kick, 0);
	dev->bound[index] = 0;
}

static int kick_in_band(struct libvhost_dev *dev, uint32_t index)
{
	int r = lv_queue_claim(dev, index, "virtqueue_kick");

	if (r)
		return r;
	if (dev->rec->queue[index].flags & LV_RQ_RUNNING)
		r = send_fd(dev, LIBVHOST_OP_VRING_KICK, index, -1);
	else
		r = lv_fail(&dev->err, -EINVAL, LIBVHOST_EK_STATE, "virtqueue_kick: queue %u does not run", index);
	return lv_dev_release(dev, r);
}

int libvhost_virtqueue_kick(struct libvhost_dev *dev, uint32_t index)
{
	bool in_band = false;
	int r = 0;

	if (!dev)
		return -EINVAL;
	pthread_mutex_lock(&dev->lock);
	if (index >= dev->rec->num_queues || !(dev->rec->queue[index].flags & LV_RQ_SET))
		r = not_set_up(dev, index);
	else if (dev->rec->queue[index].flags & LV_RQ_IN_BAND)
		in_band = true;
	else if (dev->fds[index].kick >= 0)
		lv_eventfd_signal(dev->fds[index].kick);
	pthread_mutex_unlock(&dev->lock);
	return in_band ? kick_in_band(dev, index) : r;
}

void lv_notifiers_drop(struct libvhost_dev *dev)
{
	for (uint32_t i = 0; i < dev->rec->num_queues; i++)
		lv_notifier_drop(dev, i);
}

int libvhost_dev_enable_notifiers(struct libvhost_dev *dev)
{
	int r;

	if (!dev)
		return -EINVAL;
	r = lv_dev_claim(dev, LV_OP_REQUEST, LIVE, "enable_notifiers");
	if (r)
		return r;
	for (uint32_t i = 0; dev->ops.bind_notifier && i < dev->rec->num_queues && !r; i++) {
		if (dev->bound[i] || dev->fds[i].kick < 0)
			continue;
		r = bind_to(dev, i, dev->fds[i].kick);
		if (r)
			lv_fail(&dev->err, r, LIBVHOST_EK_REFUSED,
				"enable_notifiers: bind_notifier refused queue %u with %d; all were taken back", i, r);
	}
	if (r)
		lv_notifiers_drop(dev);
	return lv_dev_release(dev, r);
}

int libvhost_dev_disable_notifiers(struct libvhost_dev *dev)
{
	int r;

	if (!dev)
		return -EINVAL;
	r = lv_dev_claim(dev, LV_OP_REQUEST, LV_ANY_STATE & ~LV_STATE(RUNNING), "disable_notifiers");
	if (r)
		return r;
	lv_notifiers_drop(dev);
	return lv_dev_release(dev, 0);
}

/* A guest that offered requests while nobody listened does not kick again: the library does (kick race, reconnect). A
 * call that the dead peer owed is paid with a spurious one. */
static void poke_queue(struct libvhost_dev *dev, const struct lv_snapshot *mem, uint32_t index, bool call)
{
	const struct lv_record_queue *q = &dev->rec->queue[index];
	const struct lv_queue_fds *fds = &dev->fds[index];
	bool work = true;

	if (!(q->flags & LV_RQ_RUNNING))
		return;
	if (!lv_queue_packed(dev->rec))
		work = lv_split_has_work(mem, q->avail, (uint16_t)q->base) == 1;
	else if (!(dev->rec->flags & LV_RF_INFLIGHT)) /* else what is new lies somewhere behind what is in flight */
		work = lv_packed_has_work(mem, q->desc, q->num, q->base) == 1;
	if (work && fds->kick >= 0 && !(q->flags & LV_RQ_DISABLED))
		lv_eventfd_signal(fds->kick);
	if (call && q->flags & LV_RQ_MASKED)
		lv_eventfd_signal(fds->masked);
	else if (call && fds->call >= 0)
		lv_eventfd_signal(fds->call);
}

void lv_queue_poke(struct libvhost_dev *dev, uint32_t index)
{
	struct lv_snapshot *mem = lv_mem_snapshot(dev->mem);

	pthread_mutex_lock(&dev->lock);
	poke_queue(dev, mem, index, false);
	pthread_mutex_unlock(&dev->lock);
	lv_snapshot_put(mem);
}

void lv_queues_poke(struct libvhost_dev *dev, bool call)
{
	struct lv_snapshot *mem = lv_mem_snapshot(dev->mem);

	pthread_mutex_lock(&dev->lock);
	for (uint32_t i = 0; i < dev->rec->num_queues; i++)
		poke_queue(dev, mem, i, call);
	pthread_mutex_unlock(&dev->lock);
	lv_snapshot_put(mem);
}
