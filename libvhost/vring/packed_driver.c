/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/*
 * The driver's side of a packed ring. The device is not trusted and overwrites descriptors by design: what a buffer id
 * stands for is kept in private memory. Of what was added since the last kick the first descriptor is held back, and
 * with it, for a device that takes descriptors in order, everything behind it.
 */
#include "vring/driver.h"

#include <errno.h>
#include <stdlib.h>

/* Slots look as if the lap before had used them. */
static void init_ring(struct libvhost_vq *vq)
{
	struct lv_packed_driver *d = &vq->pdrv;
	uint16_t pos = (uint16_t)vq->opts.base;

	d->avail = d->used = d->armed = pos;
	for (uint32_t i = 0; i < vq->opts.num; i++, pos = lv_pos_next(pos, 1, vq->opts.num)) {
		lv_packed_set_addr(&vq->packed, pos, 0);
		lv_packed_store(&vq->packed, pos, lv_packed_meta(0, 0, lv_used_bits(pos ^ LV_POS_WRAP)));
	}
	lv_packed_event_set(vq->packed.driver, LV_EVENT_ENABLE, 0);
	lv_packed_event_set(vq->packed.device, LV_EVENT_ENABLE, 0);
}

static int packed_driver_notify(struct libvhost_vq *vq, bool on);

static int packed_driver_init(struct libvhost_vq *vq)
{
	struct lv_packed_driver *d = &vq->pdrv;
	int rc;

	d->offers = calloc(vq->opts.num, sizeof(*d->offers));
	if (!d->offers)
		return -ENOMEM;
	d->free_descs = vq->opts.num;
	for (uint32_t i = 0; i < vq->opts.num; i++)
		d->offers[i].tail = (uint16_t)(i + 1);
	init_ring(vq);
	rc = packed_driver_notify(vq, true);
	return rc < 0 ? rc : 0;
}

static void packed_driver_destroy(struct libvhost_vq *vq)
{
	free(vq->pdrv.offers);
}

static int packed_driver_map(struct libvhost_vq *vq, const struct lv_snapshot *snap)
{
	void *tables;
	int rc = lv_driver_tables(vq, snap, &tables);

	if (rc == 0)
		rc = lv_packed_map(vq, snap);
	if (rc == 0)
		vq->pdrv.indirect = tables;
	return rc;
}

static inline uint32_t id_after(const struct libvhost_vq *vq, uint32_t id)
{
	return id + 1 < vq->opts.num ? id + 1 : 0;
}

/* Requests that the device can see. */
static inline uint32_t published(const struct libvhost_vq *vq)
{
	return vq->in_flight - vq->pdrv.unseen;
}

/* Fills the next slot. */
static inline void fill(struct libvhost_vq *vq, uint64_t addr, uint32_t len, uint32_t id, uint32_t flags)
{
	struct lv_packed_driver *d = &vq->pdrv;
	const uint64_t meta = lv_packed_meta(len, (uint16_t)id, (uint16_t)(flags | lv_avail_bits(d->avail)));

	lv_packed_set_addr(&vq->packed, d->avail, addr);
	if (d->unseen_descs++) {
		lv_packed_store(&vq->packed, d->avail, meta);
	} else {
		d->held = d->avail;
		d->held_meta = meta;
	}
	d->avail = lv_pos_next(d->avail, 1, vq->opts.num);
}

/* Fills the table that belongs to the id and points the next slot at it. virtio 1.2, 2.8.7: only WRITE counts in it. */
static void fill_indirect(struct libvhost_vq *vq, const struct libvhost_buf *bufs, uint32_t n_read, uint32_t n,
			  uint32_t id)
{
	const uint64_t first = (uint64_t)id * vq->opts.max_chain;
	const struct lv_packed_ring table = {.desc = vq->pdrv.indirect + first};

	for (uint32_t i = 0; i < n; i++) {
		lv_packed_set_addr(&table, (uint16_t)i, bufs[i].gpa);
		lv_packed_store(&table, (uint16_t)i, lv_packed_meta(bufs[i].len, 0, i < n_read ? 0 : LV_DESC_WRITE));
	}
	fill(vq, vq->opts.indirect + first * sizeof(*table.desc), n * (uint32_t)sizeof(*table.desc), id,
	     LV_DESC_INDIRECT);
}

static int packed_add(struct libvhost_vq *vq, const struct libvhost_buf *bufs, uint32_t n_read, uint32_t n_write,
		      uint64_t token)
{
	struct lv_packed_driver *d = &vq->pdrv;
	uint32_t writable = 0, n, descs;
	const uint32_t id = d->free_id;
	const int rc = lv_driver_check(vq, bufs, n_read, n_write, &writable);
	struct lv_offer *o;

	if (LV_UNLIKELY(rc < 0))
		return rc;
	n = (uint32_t)rc;
	descs = n > 1 && d->indirect ? 1 : n;
	if (descs > d->free_descs)
		return -ENOSPC;
	o = &d->offers[id];
	d->free_id = vq->in_order ? id_after(vq, id) : o->tail;
	d->free_descs -= descs;
	*o = (struct lv_offer){.token = token, .seq = ++vq->requests, .writable = writable, .descs = (uint16_t)descs};
	vq->in_flight++;
	d->unseen++;
	if (n > 1 && d->indirect) {
		fill_indirect(vq, bufs, n_read, n, id);
		return 0;
	}
	for (uint32_t i = 0; i < n; i++)
		fill(vq, bufs[i].gpa, bufs[i].len, id, lv_driver_flags(i, n_read, n));
	return 0;
}

static int packed_kick(struct libvhost_vq *vq)
{
	struct lv_packed_driver *d = &vq->pdrv;
	const uint32_t moved = d->unseen_descs;

	if (!moved)
		return 0;
	lv_packed_publish(&vq->packed, d->held, d->held_meta);
	d->unseen = d->unseen_descs = 0;
	d->published_seq = vq->requests;
	lv_ring_fence(); /* the descriptors are out before we look whether the device sleeps */
	if (!lv_packed_wanted(&vq->packed, vq->packed.device, vq->event_idx, d->avail, moved))
		return 0;
	return lv_driver_signal(vq);
}

/* Whether the descriptor at pos is used. */
static inline bool is_used(const struct libvhost_vq *vq, uint16_t pos, uint64_t *meta)
{
	*meta = lv_packed_load(&vq->packed, pos);
	return lv_meta_is(*meta, lv_used_bits(pos));
}

static inline int look(struct libvhost_vq *vq, uint64_t *meta)
{
	return vq->pdrv.batch || (published(vq) && is_used(vq, vq->pdrv.used, meta));
}

/* Asks to be notified of the next completion, then looks once more: the device may have been faster. */
static int rearm(struct libvhost_vq *vq, uint64_t *meta)
{
	vq->pdrv.armed = vq->pdrv.used;
	lv_packed_event_set(vq->packed.driver, vq->event_idx ? LV_EVENT_DESC : LV_EVENT_ENABLE,
			    vq->event_idx ? vq->pdrv.used : 0);
	lv_ring_fence();
	return look(vq, meta);
}

static int packed_driver_notify(struct libvhost_vq *vq, bool on)
{
	uint64_t meta;

	vq->notify_on = on;
	if (on)
		return rearm(vq, &meta);
	lv_packed_event_set(vq->packed.driver, LV_EVENT_DISABLE, 0);
	return 0;
}

/* How many requests a used descriptor with this id completes: with IN_ORDER it stands for all that were offered before
 * it, too (virtio 1.2, 2.8.8). 0 = it names nothing that can be complete. */
static uint32_t completed(const struct libvhost_vq *vq, uint32_t id, uint32_t oldest, uint32_t most)
{
	const struct lv_packed_driver *d = &vq->pdrv;
	uint32_t n;

	if (id >= vq->opts.num || !d->offers[id].descs || d->offers[id].seq > d->published_seq)
		return 0;
	n = (id >= oldest ? id - oldest : id + vq->opts.num - oldest) + 1;
	return !vq->in_order ? 1 : n <= most ? n : 0;
}

static int begin_batch(struct libvhost_vq *vq, uint64_t meta)
{
	struct lv_packed_driver *d = &vq->pdrv;

	d->batch_id = lv_meta_id(meta);
	d->batch_len = lv_meta_len(meta);
	d->batch = completed(vq, d->batch_id, d->oldest, published(vq));
	if (LV_UNLIKELY(!d->batch))
		return lv_vq_break(vq, "used descriptor at slot %u has buffer id %u, which is not in flight",
				   d->used & LV_POS_SLOT, d->batch_id);
	return 0;
}

/* Gives back the next request of the batch. Those that the device skipped count as used completely. */
static void take(struct libvhost_vq *vq, struct libvhost_used *out)
{
	struct lv_packed_driver *d = &vq->pdrv;
	const uint32_t id = vq->in_order ? d->oldest : d->batch_id;
	struct lv_offer *o = &d->offers[id];
	const uint32_t len = --d->batch ? o->writable : d->batch_len;

	*out = (struct libvhost_used){.token = o->token, .len = len < o->writable ? len : o->writable};
	d->used = lv_pos_next(d->used, o->descs, vq->opts.num);
	d->free_descs += o->descs;
	o->descs = 0;
	vq->in_flight--;
	if (vq->in_order) {
		d->oldest = id_after(vq, id);
	} else {
		o->tail = (uint16_t)d->free_id;
		d->free_id = id;
	}
}

static int packed_get_used(struct libvhost_vq *vq, struct libvhost_used *used, uint32_t *count)
{
	struct lv_packed_driver *d = &vq->pdrv;
	uint64_t meta = 0;
	uint32_t n = 0;
	int rc = 0;

	for (; n < *count; n++) {
		if (!d->batch) {
			rc = look(vq, &meta);
			if (rc == 0 && vq->event_idx && vq->notify_on && d->armed != d->used)
				rc = rearm(vq, &meta);
			if (rc == 0)
				break;
			rc = begin_batch(vq, meta);
			if (rc < 0)
				break;
		}
		take(vq, &used[n]);
	}
	if (rc < 0 && !n)
		return rc;
	*count = n;
	return 0;
}

/* Behind the last completion in the ring, whether or not it was taken. */
static uint32_t packed_driver_base(struct libvhost_vq *vq)
{
	const struct lv_packed_driver *d = &vq->pdrv;
	uint32_t batch = d->batch, id = d->batch_id, oldest = d->oldest, left = published(vq);
	uint16_t pos = d->used;
	uint64_t meta;

	for (; left && !vq->broken; left--, batch--) {
		if (!batch) {
			if (!is_used(vq, pos, &meta))
				break;
			id = lv_meta_id(meta);
			batch = completed(vq, id, oldest, left);
			if (!batch)
				break;
		}
		pos = lv_pos_next(pos, d->offers[vq->in_order ? oldest : id].descs, vq->opts.num);
		oldest = id_after(vq, oldest);
	}
	return lv_pos_base(pos);
}

const struct lv_vq_ops lv_packed_driver_ops = {
	.init = packed_driver_init,
	.destroy = packed_driver_destroy,
	.map = packed_driver_map,
	.notify_enable = packed_driver_notify,
	.base = packed_driver_base,
	.add = packed_add,
	.kick = packed_kick,
	.get_used = packed_get_used,
};
