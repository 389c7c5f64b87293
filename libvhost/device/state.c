/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* What the device is: state changes, the record in force, and what the peer is known to have. */
#include "device/device.h"

#include <errno.h>
#include <stdio.h>

void lv_dev_set_state(struct libvhost_dev *dev, uint32_t state)
{
	pthread_mutex_lock(&dev->lock);
	dev->state = state;
	pthread_mutex_unlock(&dev->lock);
}

void lv_dev_adopt(struct libvhost_dev *dev)
{
	struct lv_record *old;

	pthread_mutex_lock(&dev->lock);
	old = dev->rec;
	dev->rec = dev->op.work;
	dev->op.work = old;
	lv_parts_adopt(dev);
	lv_inflight_adopt(dev);
	pthread_mutex_unlock(&dev->lock);
}

bool lv_dev_was_running(const struct libvhost_dev *dev)
{
	return dev->rec->flags & LV_RF_RUNNING;
}

static void forget_peer_mem(struct lv_part *part)
{
	lv_snapshot_put(part->peer_mem);
	part->peer_mem = NULL;
}

/* A table is replaced as a whole, so that the next start may send it again whatever became of this one. Single regions
 * of which only some arrived leave the peer with a mixture that no message describes. */
static bool settle_part(struct libvhost_dev *dev, struct lv_part *part, bool success)
{
	const struct lv_sent *sent = &part->sent;

	if (!success && !sent->memory_sent)
		return true;
	if (success || sent->memory_done == sent->memory) {
		forget_peer_mem(part);
		part->peer_mem = lv_snapshot_ref(dev->op.mem);
		return true;
	}
	forget_peer_mem(part);
	return !sent->slots;
}

bool lv_dev_settle_memory(struct libvhost_dev *dev, bool success)
{
	for (uint32_t i = 0; i < dev->num_parts; i++)
		if (!settle_part(dev, &dev->parts[i], success))
			dev->mem_unknown = true;
	return !dev->mem_unknown;
}

void lv_dev_started(struct libvhost_dev *dev)
{
	dev->ack_all_next = false;
	lv_dev_adopt(dev);
	pthread_mutex_lock(&dev->lock);
	dev->rec->flags |= LV_RF_RUNNING;
	dev->state = LIBVHOST_DEV_RUNNING;
	dev->unfinished = dev->broken = (struct lv_queue_set){{0}};
	pthread_mutex_unlock(&dev->lock);
	lv_queues_poke(dev, false);
}

/* The error that an event reports, in the length that it has. */
void lv_dev_report(struct libvhost_dev *dev, uint32_t type, int why)
{
	struct libvhost_error e = {.size = sizeof(e)};

	if (lv_errslot_read(&dev->err, &e) || e.code != why)
		snprintf(e.text, sizeof(e.text), "%s", lv_errno_name(-why));
	lv_event_simple(dev, type, LIBVHOST_NONE, why, e.text);
}

void lv_dev_lost(struct libvhost_dev *dev, int why)
{
	if (dev->state == LIBVHOST_DEV_LOST)
		return;
	lv_dev_set_state(dev, LIBVHOST_DEV_LOST);
	lv_dev_report(dev, LIBVHOST_EVENT_LOST, why);
}

void lv_dev_close(struct libvhost_dev *dev)
{
	for (uint32_t i = 0; i < dev->num_parts; i++) {
		if (dev->parts[i].t)
			lv_transport_close(dev->parts[i].t);
		forget_peer_mem(&dev->parts[i]);
	}
	lv_share_closed(dev);
	lv_dev_log_ended(dev);
	dev->mem_unknown = false;
	pthread_mutex_lock(&dev->lock);
	dev->armed_stale = true;
	pthread_mutex_unlock(&dev->lock);
}

/* The rings are at rest because the connection is gone: they continue where the used rings say. */
void lv_dev_stopped_here(struct libvhost_dev *dev)
{
	lv_drain_void(dev);
	lv_dev_log_rings(dev);
	lv_queues_rebuild_bases(dev, LV_RQ_RUNNING | LV_RQ_BASE_STALE);
	pthread_mutex_lock(&dev->lock);
	dev->rec->flags &= ~(uint32_t)LV_RF_RUNNING;
	for (uint32_t q = 0; q < dev->rec->num_queues; q++)
		dev->rec->queue[q].flags &= ~(uint32_t)LV_RQ_RUNNING;
	pthread_mutex_unlock(&dev->lock);
}

void lv_dev_disconnected(struct libvhost_dev *dev, int why)
{
	const bool again = lv_dev_was_running(dev);
	const bool automatic = lv_backoff_automatic(dev);

	dev->backoff.lost_at = lv_now(dev->ctx);
	lv_dev_close(dev);
	lv_dev_stopped_here(dev);
	pthread_mutex_lock(&dev->lock);
	if (again)
		dev->rec->flags |= LV_RF_RUNNING; /* what reconnect brings back */
	dev->state = automatic ? LIBVHOST_DEV_RECONNECTING : LIBVHOST_DEV_DISCONNECTED;
	pthread_mutex_unlock(&dev->lock);
	lv_dev_report(dev, LIBVHOST_EVENT_DISCONNECTED, why);
}
