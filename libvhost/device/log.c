/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* The device's part in the dirty log: whether it can take part, how long the peer may write there, and what the host
 * marks for one that died. */
#include "device/device.h"

#include <errno.h>
#include <stdio.h>
#include "vring/vring.h"

/* The kernel writes to the mapping itself, and nothing takes that back but its word or the end of the connection. */
void lv_dev_log_told(struct libvhost_dev *dev, struct lv_part *part, enum lv_plan_kind kind)
{
	const bool tells = kind == LV_PLAN_START || kind == LV_PLAN_MEMORY ||
			   (kind == LV_PLAN_RESUME && dev->op.work->flags & LV_RF_RUNNING);

	if (!tells || !dev->op.log || part->peer_log == dev->op.log)
		return;
	lv_log_put(part->peer_log);
	part->peer_log = lv_log_ref(dev->op.log);
}

void lv_dev_log_ended(struct libvhost_dev *dev)
{
	for (uint32_t i = 0; i < dev->num_parts; i++) {
		lv_log_put(dev->parts[i].peer_log);
		dev->parts[i].peer_log = NULL;
	}
}

/* Marks come behind the writes: the last ones of a peer that died may be missing. What it wrote into buffers it marked
 * before it published them, or the next one does it again; the used index it marked after. */
void lv_dev_log_rings(struct libvhost_dev *dev)
{
	struct libvhost_vq_layout l = {.size = sizeof(l)};

	for (uint32_t i = 0; dev->rec->flags & LV_RF_LOG && i < dev->rec->num_queues; i++) {
		const struct lv_record_queue *q = &dev->rec->queue[i];

		if (!(q->flags & LV_RQ_RUNNING) || libvhost_vq_layout(q->num, dev->rec->acked[0], &l))
			continue;
		(void)libvhost_mem_log_mark(dev->mem, q->used, l.used_bytes);
		if (lv_queue_packed(dev->rec))
			(void)libvhost_mem_log_mark(dev->mem, q->desc, l.desc_bytes);
	}
}

/* As a sentence about the device or one of its parts; NULL = it can be migrated. Lock held. */
static const char *blocker_of(struct libvhost_dev *dev, const struct lv_part **part)
{
	const char *blocker = dev->rec->flags & LV_RF_NEGOTIATED ? NULL : "it has not negotiated with its peer yet";

	for (uint32_t i = 0; i < dev->num_parts && !blocker; i++) {
		*part = &dev->parts[i];
		blocker = lv_plan_log_blocker(lv_part_features(*part), lv_part_protocol(*part), (*part)->caps.dialect);
	}
	if (!blocker && lv_shmem_maps(dev)) /* of the back-end, which the other side does not have */
		blocker = "files are mapped into its shared-memory windows";
	if (!blocker && dev->state == LIBVHOST_DEV_LOST)
		blocker = "it is lost, its back-end may write what no log gets: stop, reset or reconnect it";
	if (!blocker && lv_drain_owed(dev))
		blocker = "its back-end still works on requests from before the stop: stop it again";
	return blocker;
}

int lv_dev_can_log(struct libvhost_dev *dev, char *why, size_t cap)
{
	const struct lv_part *part = &dev->parts[0];
	const char *blocker;

	pthread_mutex_lock(&dev->lock);
	blocker = blocker_of(dev, &part);
	if (cap && blocker)
		snprintf(why, cap, "%s: %s", part->t->peer, blocker);
	else if (cap)
		*why = 0;
	pthread_mutex_unlock(&dev->lock);
	return blocker ? -ENOTSUP : 0;
}

int libvhost_dev_migration_blocker(struct libvhost_dev *dev, char *buf, size_t cap)
{
	if (!dev || (!buf && cap))
		return -EINVAL;
	return lv_dev_can_log(dev, buf, cap) < 0;
}
