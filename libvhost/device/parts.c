/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
#include "device/parts.h"

#include <string.h>
#include "device/device.h"

static bool several(const struct libvhost_dev *dev)
{
	return dev->num_parts > 1;
}

static struct lv_peer_view read_view(const struct lv_record *rec)
{
	struct lv_peer_view v = {
		.protocol_offered = rec->protocol_offered,
		.protocol_acked = rec->protocol_acked,
		.backend_offered = rec->backend_offered,
		.backend_acked = rec->backend_acked,
		.iova_first = rec->iova_first,
		.iova_last = rec->iova_last,
		.log_bytes = rec->log_bytes,
		.max_queues = rec->max_queues,
		.max_regions = rec->max_regions,
		.status = rec->status,
		.logs = rec->flags & LV_RF_LOG,
	};

	memcpy(v.offered, rec->offered, sizeof(v.offered));
	return v;
}

static void write_view(struct lv_record *rec, const struct lv_peer_view *v)
{
	memcpy(rec->offered, v->offered, sizeof(v->offered));
	rec->protocol_offered = v->protocol_offered;
	rec->protocol_acked = v->protocol_acked;
	rec->backend_offered = v->backend_offered;
	rec->backend_acked = v->backend_acked;
	rec->iova_first = v->iova_first;
	rec->iova_last = v->iova_last;
	rec->log_bytes = v->log_bytes;
	rec->max_queues = v->max_queues;
	rec->max_regions = v->max_regions;
	rec->status = v->status;
	rec->flags = (rec->flags & ~(uint32_t)LV_RF_LOG) | (v->logs ? LV_RF_LOG : 0);
}

/* iova_last 0 = no limit. */
static void narrow_range(struct lv_peer_view *all, const struct lv_peer_view *v)
{
	if (!v->iova_last)
		return;
	if (!all->iova_last || v->iova_last < all->iova_last)
		all->iova_last = v->iova_last;
	if (v->iova_first > all->iova_first)
		all->iova_first = v->iova_first;
}

/* Queues are the one thing of which more parts have more. */
static void narrow(struct lv_peer_view *all, const struct lv_peer_view *v, uint32_t queues)
{
	for (uint32_t i = 0; i < LIBVHOST_FEATURE_WORDS; i++)
		all->offered[i] &= v->offered[i];
	all->protocol_offered &= v->protocol_offered;
	all->protocol_acked &= v->protocol_acked;
	all->backend_offered &= v->backend_offered;
	all->backend_acked &= v->backend_acked;
	narrow_range(all, v);
	all->max_queues += queues;
	if (v->max_regions < all->max_regions)
		all->max_regions = v->max_regions;
	if (v->log_bytes > all->log_bytes)
		all->log_bytes = v->log_bytes;
	all->status |= v->status;
	all->logs |= v->logs;
}

void lv_parts_split(struct libvhost_dev *dev)
{
	if (!several(dev))
		dev->parts[0].peer = read_view(dev->rec);
}

void lv_parts_begin(struct libvhost_dev *dev)
{
	for (uint32_t i = 0; several(dev) && i < dev->num_parts; i++)
		dev->parts[i].work = dev->parts[i].peer;
}

void lv_part_enter(struct libvhost_dev *dev, const struct lv_part *part)
{
	if (several(dev))
		write_view(dev->op.work, &part->work);
}

void lv_part_leave(struct libvhost_dev *dev, struct lv_part *part)
{
	if (several(dev))
		part->work = read_view(dev->op.work);
}

static void combine(const struct libvhost_dev *dev, struct lv_record *rec, bool work)
{
	struct lv_peer_view all = work ? dev->parts[0].work : dev->parts[0].peer;

	for (uint32_t i = 1; i < dev->num_parts; i++)
		narrow(&all, work ? &dev->parts[i].work : &dev->parts[i].peer, dev->parts[i].count);
	write_view(rec, &all);
}

void lv_parts_combine(struct libvhost_dev *dev)
{
	if (several(dev))
		combine(dev, dev->op.work, true);
}

void lv_parts_adopt(struct libvhost_dev *dev)
{
	for (uint32_t i = 0; several(dev) && i < dev->num_parts; i++)
		dev->parts[i].peer = dev->parts[i].work;
}

void lv_parts_absorb(struct libvhost_dev *dev)
{
	if (!several(dev)) {
		if (dev->parts[0].sent.any)
			dev->rec->status = dev->op.work->status;
		return;
	}
	for (uint32_t i = 0; i < dev->num_parts; i++)
		if (dev->parts[i].sent.any)
			dev->parts[i].peer.status = dev->parts[i].work.status;
	combine(dev, dev->rec, false);
}

uint64_t lv_part_features(const struct lv_part *part)
{
	return several(part->dev) ? part->peer.offered[0] : part->dev->rec->offered[0];
}

uint64_t lv_part_protocol(const struct lv_part *part)
{
	return several(part->dev) ? part->peer.protocol_acked : part->dev->rec->protocol_acked;
}

uint32_t lv_part_regions(const struct lv_part *part)
{
	return several(part->dev) ? part->peer.max_regions : part->dev->rec->max_regions;
}
