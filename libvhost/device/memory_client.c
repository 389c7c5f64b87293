/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/*
 * Following the map. A commit claims each device from prepare to finish, so that no start can send an old map in
 * between. A stopped device has nothing to say: its next start compares what the peer has with the map of that day.
 */
#include "device/device.h"

#include <errno.h>
#include <time.h>

#define MOMENT_MS 200u /* far more than a thread in dispatch stays inside */

/* Lock held. */
static bool connects(const struct libvhost_dev *dev)
{
	return dev->op.kind == LV_OP_RECONNECT && dev->op.async && dev->op.opening;
}

/* A device that waits for its peer to come back keeps its operation; it takes the new map when it replays. Whoever
 * happens to be inside meanwhile leaves in a moment. */
static bool waits_for_peer(struct libvhost_dev *dev)
{
	const uint64_t end = lv_now(NULL) + MOMENT_MS * LV_NS_PER_MS;
	const struct timespec until = {.tv_sec = (time_t)(end / 1000000000u), .tv_nsec = (long)(end % 1000000000u)};
	bool waits;

	pthread_mutex_lock(&dev->lock);
	while (connects(dev) && dev->inside && !lv_dev_in_callback(dev))
		if (pthread_cond_timedwait(&dev->idle, &dev->lock, &until))
			break;
	waits = connects(dev) && !dev->inside;
	if (waits) {
		dev->inside = dev->mem_parked = true;
		dev->owner = pthread_self();
	}
	pthread_mutex_unlock(&dev->lock);
	return waits;
}

/* As the plans see it: only a vhost-user table is merged, slots and the kernel get the regions as they are. */
static bool merges(const struct lv_part *part)
{
	return part->caps.dialect == LIBVHOST_DIALECT_USER &&
	       !(lv_part_protocol(part) & 1ull << LIBVHOST_PROTOCOL_F_CONFIGURE_MEM_SLOTS);
}

void lv_dev_table_limit(struct libvhost_dev *dev)
{
	uint32_t regions = LIBVHOST_MAX_REGIONS, merged = LIBVHOST_MAX_REGIONS;

	for (uint32_t i = 0; i < dev->num_parts; i++) {
		const struct lv_part *part = &dev->parts[i];
		uint32_t *limit = merges(part) ? &merged : &regions;

		if (lv_part_regions(part) < *limit)
			*limit = lv_part_regions(part);
	}
	lv_mem_client_limits(dev->mem_node, regions, merged);
}

/* A vDPA device can only be given addresses that it can form. */
static int addressable(struct libvhost_dev *dev, const struct lv_map *map)
{
	const struct lv_record *rec = dev->rec;
	const uint64_t last = map->gpa + (map->size - 1);

	if (!rec->iova_last || (map->gpa >= rec->iova_first && last <= rec->iova_last))
		return 0;
	return lv_fail(&dev->err, -ERANGE, LIBVHOST_EK_MEMORY,
		       "commit: the region %#llx..%#llx lies outside the addresses %#llx..%#llx that %s can use",
		       (unsigned long long)map->gpa, (unsigned long long)last, (unsigned long long)rec->iova_first,
		       (unsigned long long)rec->iova_last, dev->parts[0].t->peer);
}

static int part_takes(struct lv_part *part, const struct lv_snapshot *now)
{
	const uint32_t slots = lv_part_regions(part);
	const uint32_t count = merges(part) ? lv_mem_merge(now, NULL, 0) : now->count;

	if (count > slots)
		return lv_fail(&part->dev->err, -ENOSPC, LIBVHOST_EK_NO_SLOT, "commit: %u regions, %s has %u slots",
			       count, part->t->peer, slots);
	for (uint32_t i = 0; i < now->count; i++)
		if (now->maps[i].fd < 0 && part->caps.flags & LIBVHOST_TRANSPORT_NEEDS_FD)
			return lv_fail(&part->dev->err, -ENOTSUP, LIBVHOST_EK_UNSUPPORTED,
				       "commit: the region at %#llx has no descriptor, which %s needs",
				       (unsigned long long)now->maps[i].gpa, part->t->peer);
	return 0;
}

static int fits(struct libvhost_dev *dev, const struct lv_snapshot *now)
{
	int rc = 0;

	for (uint32_t i = 0; i < dev->num_parts && !rc; i++)
		rc = part_takes(&dev->parts[i], now);
	for (uint32_t i = 0; i < now->count && !rc; i++)
		rc = addressable(dev, &now->maps[i]);
	return rc;
}

static int prepare(void *client, const struct lv_snapshot *now)
{
	struct libvhost_dev *dev = client;
	int r;

	if (waits_for_peer(dev))
		return 0;
	r = lv_dev_claim(dev, LV_OP_MEMORY, LV_ANY_STATE, "commit");
	if (r)
		return r;
	if (dev->state == LIBVHOST_DEV_RUNNING)
		r = fits(dev, now);
	return r ? lv_dev_release(dev, r) : 0;
}

static void leave(struct libvhost_dev *dev)
{
	if (dev->mem_parked) {
		dev->mem_parked = false;
		lv_dev_go_outside(dev);
	} else {
		lv_dev_release(dev, 0);
	}
}

static void unprepare(void *client)
{
	leave(client);
}

/* A back-end that disabled its rings while the log was switched may have missed a kick. */
static void adopt(struct libvhost_dev *dev)
{
	const bool switched = (dev->rec->flags ^ dev->op.work->flags) & LV_RF_LOG;

	lv_dev_adopt(dev);
	if (switched)
		lv_queues_poke(dev, false);
}

/* No peer can veto the map: one that refused it, or said nothing, is lost. */
static int memory_ended(struct libvhost_dev *dev, int r)
{
	dev->op.result = r;
	lv_dev_settle_memory(dev, !r);
	if (!r && !dev->op.log)
		lv_dev_log_ended(dev);
	if (!r)
		adopt(dev);
	else if (lv_dev_gone(dev))
		lv_dev_disconnected(dev, r);
	else
		lv_dev_lost(dev, r);
	return 0;
}

static int can_log(void *client, char *why, size_t cap)
{
	return lv_dev_can_log(client, why, cap);
}

static int begin(void *client, struct lv_snapshot *old, struct lv_snapshot *now, uint64_t deadline)
{
	struct libvhost_dev *dev = client;

	(void)old;
	(void)now; /* already the current one */
	if (dev->mem_parked || dev->state != LIBVHOST_DEV_RUNNING)
		return 1;
	lv_op_begin(dev, false, deadline, memory_ended);
	lv_op_prepare(dev);
	lv_op_plan(dev, LV_PLAN_MEMORY);
	return lv_op_settle(dev);
}

static int progress(void *client)
{
	return lv_op_step(client);
}

/* 0 = more than fit: the commit asks now and then. The wake eventfd is not of interest. */
static uint32_t pollfds(void *client, struct pollfd *fds, uint32_t cap)
{
	struct lv_wait w;
	uint32_t n = lv_dev_collect(client, &w, false) - 1;

	if (n > cap)
		return 0;
	for (uint32_t i = 0; i < n; i++)
		fds[i] = w.fds[i + 1];
	return n;
}

static void finish(void *client, int result)
{
	struct libvhost_dev *dev = client;

	if (result == -ETIMEDOUT && lv_op_running(dev)) {
		lv_fail(&dev->err, result, LIBVHOST_EK_TIMEOUT,
			"commit: the peer did not confirm the new map, or the dirty log, in time");
		lv_op_abort(dev);
		dev->op.failed = 0;
		memory_ended(dev, result);
	}
	leave(dev);
}

const struct lv_mem_client_ops lv_dev_mem_client = {
	.prepare = prepare,
	.unprepare = unprepare,
	.can_log = can_log,
	.begin = begin,
	.progress = progress,
	.pollfds = pollfds,
	.finish = finish,
};
