/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* Queues: what the caller set up, checked against the memory map, and the descriptors beside it. */
#include "device/device.h"

#include <errno.h>
#include "core/wire.h"
#include "vring/vring.h"

#define QUEUE_FLAGS                                                                                                    \
	(LIBVHOST_QUEUE_HAS_KICK | LIBVHOST_QUEUE_HAS_CALL | LIBVHOST_QUEUE_HAS_ERR | LIBVHOST_QUEUE_DISABLED |        \
	 LIBVHOST_QUEUE_IN_BAND | LIBVHOST_QUEUE_HAS_BASE)

static const struct lv_queue_fds no_fds = {-1, -1, -1, -1};

int lv_fd_fail(struct libvhost_dev *dev, int error, uint32_t queue, const char *what)
{
	if (error == -EMFILE)
		return lv_fail_sys(
			&dev->err, EMFILE,
			"queue %u: no descriptor left for %s; raise RLIMIT_NOFILE (ulimit -n), a queue takes "
			"3 to 4",
			queue, what);
	if (error == -ENFILE)
		return lv_fail_sys(&dev->err, ENFILE, "queue %u: no descriptor left for %s; raise sysctl fs.file-max",
				   queue, what);
	return lv_fail_sys(&dev->err, -error, "queue %u: %s: %s", queue, what, lv_errno_name(-error));
}

static bool has_addresses(const struct lv_record_queue *q)
{
	return q->desc || q->avail || q->used;
}

static bool inside(const struct lv_snapshot *mem, uint64_t gpa, uint64_t len)
{
	return lv_find_gpa(mem, gpa, len) != NULL;
}

/* A queue without addresses is one that the guest does not use. */
static int check_areas(struct libvhost_dev *dev, const struct lv_record *rec, const struct lv_snapshot *mem,
		       uint32_t index, const struct lv_record_queue *q, int outside)
{
	struct libvhost_vq_layout l = {.size = sizeof(l)};
	struct lv_where where = LV_WHERE_NONE;

	where.queue = index;
	if (libvhost_vq_layout(q->num, rec->acked[0], &l))
		return lv_fail_at(&dev->err, -EINVAL, LIBVHOST_EK_ARGUMENT, &where,
				  "queue %u: %u entries; allowed are 1..32768, a power of two unless packed rings are "
				  "accepted",
				  index, q->num);
	if (!has_addresses(q))
		return 0;
	if (q->desc % l.desc_align || q->avail % l.avail_align || q->used % l.used_align)
		return lv_fail_at(&dev->err, -EINVAL, LIBVHOST_EK_ARGUMENT, &where,
				  "queue %u: areas at %#llx, %#llx, %#llx must be aligned to %u, %u, %u bytes", index,
				  (unsigned long long)q->desc, (unsigned long long)q->avail,
				  (unsigned long long)q->used, l.desc_align, l.avail_align, l.used_align);
	if (inside(mem, q->desc, l.desc_bytes) && inside(mem, q->avail, l.avail_bytes) &&
	    inside(mem, q->used, l.used_bytes))
		return 0;
	return lv_fail_at(
		&dev->err, outside, LIBVHOST_EK_MEMORY, &where,
		"queue %u: the areas at %#llx (%llu bytes), %#llx (%llu) and %#llx (%llu) must each lie in one "
		"region of guest memory",
		index, (unsigned long long)q->desc, (unsigned long long)l.desc_bytes, (unsigned long long)q->avail,
		(unsigned long long)l.avail_bytes, (unsigned long long)q->used, (unsigned long long)l.used_bytes);
}

int lv_queues_check(struct libvhost_dev *dev, const struct lv_record *rec, const struct lv_snapshot *mem)
{
	uint32_t used = 0;
	int r = 0;

	for (uint32_t i = 0; i < rec->num_queues && !r; i++) {
		const struct lv_record_queue *q = &rec->queue[i];

		if (!(q->flags & LV_RQ_SET))
			continue;
		used += has_addresses(q);
		r = check_areas(dev, rec, mem, i, q, -EINVAL);
		if (!r)
			r = lv_queue_check_base(dev, rec, i, q);
		if (!r && !lv_dev_part_of(dev, i))
			r = lv_fail(&dev->err, -EINVAL, LIBVHOST_EK_STATE,
				    "queue %u: no part carries it; add one with libvhost_dev_add_part()", i);
	}
	if (!r && !used)
		r = lv_fail(&dev->err, -EINVAL, LIBVHOST_EK_STATE, "start: no queue is set up");
	return r;
}

static int pick_fd(struct libvhost_dev *dev, uint32_t index, bool given, int fd, const char *what, int *out)
{
	if (given && fd < 0) {
		*out = -1;
		return 0;
	}
	*out = given ? lv_fd_dup(fd) : lv_eventfd();
	return *out < 0 ? lv_fd_fail(dev, *out, index, what) : 0;
}

static void close_fds(struct libvhost_dev *dev, struct lv_queue_fds *fds)
{
	lv_dev_unwatch(dev, fds->err);
	lv_fd_close(fds->kick);
	lv_fd_close(fds->call);
	lv_fd_close(fds->err);
	lv_fd_close(fds->masked);
	*fds = no_fds;
}

/* The error eventfd is made at start: 8 devices of 64 queues shall fit a limit of 4096 descriptors. */
static int make_fds(struct libvhost_dev *dev, uint32_t index, const struct libvhost_queue *queue,
		    struct lv_queue_fds *fds)
{
	int r;

	*fds = no_fds;
	r = pick_fd(dev, index, queue->flags & (LIBVHOST_QUEUE_HAS_KICK | LIBVHOST_QUEUE_IN_BAND),
		    queue->flags & LIBVHOST_QUEUE_IN_BAND ? -1 : queue->kick_fd, "its kick descriptor", &fds->kick);
	if (!r)
		r = pick_fd(dev, index, queue->flags & LIBVHOST_QUEUE_HAS_CALL, queue->call_fd, "its call descriptor",
			    &fds->call);
	if (!r && queue->flags & LIBVHOST_QUEUE_HAS_ERR)
		r = pick_fd(dev, index, true, queue->err_fd, "its error descriptor", &fds->err);
	if (r)
		close_fds(dev, fds);
	return r;
}

static int check_in_band(struct libvhost_dev *dev, uint32_t index, const struct libvhost_queue *queue)
{
	const struct lv_part *part;
	uint64_t protocol;

	if (!(queue->flags & LIBVHOST_QUEUE_IN_BAND))
		return 0;
	if ((queue->flags & LIBVHOST_QUEUE_HAS_KICK && queue->kick_fd >= 0) || queue->flags & LIBVHOST_QUEUE_HAS_ERR)
		return lv_fail(&dev->err, -EINVAL, LIBVHOST_EK_ARGUMENT,
			       "queue %u: IN_BAND and a kick or error descriptor: give one or the other", index);
	part = lv_dev_part_of(dev, index);
	protocol = part ? lv_part_protocol(part) : dev->rec->protocol_acked;
	if (!(protocol & 1ull << LIBVHOST_PROTOCOL_F_INBAND_NOTIFICATIONS))
		return lv_fail(&dev->err, -EINVAL, LIBVHOST_EK_UNSUPPORTED,
			       "queue %u: IN_BAND: the peer does not take notifications as messages", index);
	return 0;
}

static int check_queue(struct libvhost_dev *dev, uint32_t index, const struct libvhost_queue *queue,
		       struct lv_record_queue *q)
{
	struct lv_snapshot *mem;
	int r;

	if (index >= dev->rec->num_queues)
		return lv_fail(&dev->err, -EINVAL, LIBVHOST_EK_ARGUMENT, "queue %u: the device was made with %u queues",
			       index, dev->rec->num_queues);
	if (queue->flags & ~QUEUE_FLAGS)
		return lv_fail(&dev->err, -EINVAL, LIBVHOST_EK_ARGUMENT, "queue %u: unknown flags %#x", index,
			       queue->flags);
	r = check_in_band(dev, index, queue);
	if (r)
		return r;
	*q = (struct lv_record_queue){
		.flags = LV_RQ_SET | (queue->flags & LIBVHOST_QUEUE_DISABLED ? LV_RQ_DISABLED : 0) |
			 (queue->flags & LIBVHOST_QUEUE_IN_BAND ? LV_RQ_IN_BAND : 0) |
			 (queue->flags & LIBVHOST_QUEUE_HAS_BASE ? LV_RQ_BASE_GIVEN : 0) |
			 (dev->rec->queue[index].flags & LV_RQ_MASKED),
		.num = queue->num,
		.base = queue->base,
		.desc = queue->desc,
		.avail = queue->avail,
		.used = queue->used,
	};
	r = lv_queue_check_base(dev, dev->rec, index, q);
	if (r)
		return r;
	mem = lv_mem_snapshot(dev->mem);
	r = check_areas(dev, dev->rec, mem, index, q, -EFAULT);
	lv_snapshot_put(mem);
	return r;
}

static int check_rests(struct libvhost_dev *dev, uint32_t index, const char *call)
{
	if (!(dev->rec->queue[index].flags & LV_RQ_RUNNING))
		return 0;
	return lv_fail(&dev->err, -EBUSY, LIBVHOST_EK_STATE, "%s: queue %u runs; stop_queue or stop first", call,
		       index);
}

int libvhost_dev_set_queue(struct libvhost_dev *dev, uint32_t index, const struct libvhost_queue *queue)
{
	struct lv_queue_fds fds = {0}, old;
	struct libvhost_queue o;
	struct lv_record_queue q = {0};
	int r;

	if (!dev || !queue)
		return -EINVAL;
	r = LV_OPTS_READ(&dev->err, &o, queue);
	if (!r)
		r = lv_dev_enter(dev, LV_STATE(NEGOTIATED) | LV_STATE(RUNNING), "set_queue");
	if (r)
		return r;
	r = check_queue(dev, index, &o, &q);
	if (!r)
		r = check_rests(dev, index, "set_queue");
	if (!r && dev->bound[index])
		r = lv_fail(&dev->err, -EBUSY, LIBVHOST_EK_STATE, "queue %u: disable its notifier first", index);
	if (!r)
		r = make_fds(dev, index, &o, &fds);
	if (!r) {
		old = dev->fds[index];
		fds.masked = old.masked;
		old.masked = -1;
		if (dev->state == LIBVHOST_DEV_RUNNING)
			q.flags |= LV_RQ_HELD; /* until start_queue */
		q.flags |= (fds.kick < 0 ? LV_RQ_KICK_POLL : 0) | (fds.call < 0 ? LV_RQ_CALL_POLL : 0);
		dev->rec->queue[index] = q;
		dev->fds[index] = fds;
		dev->err_ours[index] = !(o.flags & (LIBVHOST_QUEUE_HAS_ERR | LIBVHOST_QUEUE_IN_BAND));
		close_fds(dev, &old);
	}
	pthread_mutex_unlock(&dev->lock);
	return r;
}

int libvhost_dev_get_queue(struct libvhost_dev *dev, uint32_t index, struct libvhost_queue *queue)
{
	struct libvhost_queue o = {.size = sizeof(o)};
	const struct lv_record_queue *q;

	if (!dev || !queue)
		return -EINVAL;
	pthread_mutex_lock(&dev->lock);
	if (index >= dev->rec->num_queues || !(dev->rec->queue[index].flags & LV_RQ_SET)) {
		pthread_mutex_unlock(&dev->lock);
		return lv_fail(&dev->err, -ENOENT, LIBVHOST_EK_ARGUMENT, "queue %u is not set up", index);
	}
	q = &dev->rec->queue[index];
	o.flags = LIBVHOST_QUEUE_HAS_KICK | LIBVHOST_QUEUE_HAS_CALL | LIBVHOST_QUEUE_HAS_ERR | LIBVHOST_QUEUE_HAS_BASE |
		  (q->flags & LV_RQ_DISABLED ? LIBVHOST_QUEUE_DISABLED : 0) |
		  (q->flags & LV_RQ_IN_BAND ? LIBVHOST_QUEUE_IN_BAND : 0);
	o.num = q->num;
	o.base = lv_queue_packed(dev->rec) && !(q->flags & LV_RQ_BASE_GIVEN) ? LV_PACKED_BASE : q->base;
	o.desc = q->desc;
	o.avail = q->avail;
	o.used = q->used;
	o.kick_fd = dev->fds[index].kick;
	o.call_fd = dev->fds[index].call;
	o.err_fd = dev->fds[index].err;
	o.running = !!(q->flags & LV_RQ_RUNNING);
	o.enabled = o.running && !(q->flags & LV_RQ_DISABLED);
	o.masked = !!(q->flags & LV_RQ_MASKED);
	pthread_mutex_unlock(&dev->lock);
	return LV_OUT_WRITE(queue, &o);
}

/* Lock held. */
static void forget(struct libvhost_dev *dev, uint32_t index)
{
	close_fds(dev, &dev->fds[index]);
	dev->rec->queue[index] = (struct lv_record_queue){0};
}

int libvhost_dev_clear_queue(struct libvhost_dev *dev, uint32_t index)
{
	int r;

	if (!dev)
		return -EINVAL;
	r = lv_dev_enter(dev, LV_STATE(NEGOTIATED) | LV_STATE(RUNNING), "clear_queue");
	if (r)
		return r;
	if (index >= dev->rec->num_queues || !(dev->rec->queue[index].flags & LV_RQ_SET))
		r = lv_fail(&dev->err, -ENOENT, LIBVHOST_EK_ARGUMENT, "queue %u is not set up", index);
	else if (dev->bound[index])
		r = lv_fail(&dev->err, -EBUSY, LIBVHOST_EK_STATE, "queue %u: disable its notifier first", index);
	else
		r = check_rests(dev, index, "clear_queue");
	if (!r) {
		lv_inflight_forget_queue(dev, index);
		forget(dev, index);
	}
	pthread_mutex_unlock(&dev->lock);
	return r;
}

void lv_queue_forget(struct libvhost_dev *dev, uint32_t index)
{
	pthread_mutex_lock(&dev->lock);
	forget(dev, index);
	pthread_mutex_unlock(&dev->lock);
}

void lv_queues_drop_all(struct libvhost_dev *dev)
{
	pthread_mutex_lock(&dev->lock);
	for (uint32_t i = 0; i < dev->rec->num_queues; i++)
		close_fds(dev, &dev->fds[i]);
	pthread_mutex_unlock(&dev->lock);
}

int lv_queue_late_fd(struct libvhost_dev *dev, uint32_t index, int *fd, const char *what)
{
	int made;

	if (*fd >= 0)
		return 0;
	made = lv_eventfd();
	if (made < 0)
		return lv_fd_fail(dev, made, index, what);
	pthread_mutex_lock(&dev->lock);
	*fd = made;
	pthread_mutex_unlock(&dev->lock);
	return 0;
}

int lv_queues_make_fds(struct libvhost_dev *dev)
{
	int r = 0;

	for (uint32_t i = 0; i < dev->rec->num_queues && !r; i++) {
		const struct lv_record_queue *q = &dev->rec->queue[i];

		if (!(q->flags & LV_RQ_SET) || !has_addresses(q))
			continue;
		if (dev->err_ours[i])
			r = lv_queue_late_fd(dev, i, &dev->fds[i].err, "its error eventfd");
		if (!r && q->flags & LV_RQ_MASKED)
			r = lv_queue_late_fd(dev, i, &dev->fds[i].masked, "its private call eventfd");
	}
	return r;
}
