/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* The driver's side of a split ring. The device is not trusted: free list and chains are kept in private memory. */
#include "vring/driver.h"

#include <errno.h>
#include <stdlib.h>

/* Appends a chain of descs linked descriptors, head to tail, to the free list. */
static void free_chain(struct lv_split_driver *d, uint32_t head, uint32_t tail, uint32_t descs)
{
	if (d->free_count)
		d->next[d->free_tail] = (uint16_t)head;
	else
		d->free_head = head;
	d->free_tail = tail;
	d->free_count += descs;
}

static void init_ring(struct libvhost_vq *vq)
{
	struct lv_split_driver *d = &vq->drv;
	const uint16_t base = (uint16_t)vq->opts.base;

	d->avail_idx = d->published = d->used_idx = d->used_seen = base;
	if (vq->event_idx) {
		lv_event_set(&vq->ring, lv_used_event(&vq->ring), base);
		lv_event_set(&vq->ring, lv_avail_event(&vq->ring), base);
	}
	for (uint32_t i = 0; i < vq->opts.num; i++) {
		lv_avail_put(&vq->ring, (uint16_t)i, 0);
		lv_used_put(&vq->ring, (uint16_t)i, (struct lv_used_elem){0});
		lv_desc_put(vq->ring.swap, &vq->ring.desc[i], (struct lv_desc){0});
	}
	lv_ring_set_flags(&vq->ring, vq->ring.avail, 0);
	lv_ring_set_flags(&vq->ring, vq->ring.used, 0);
	lv_ring_set_idx(&vq->ring, vq->ring.avail, base);
	lv_ring_set_idx(&vq->ring, vq->ring.used, base);
}

/* IN_ORDER: remembers which request has which place in the available ring. */
static void note_order(struct libvhost_vq *vq, uint16_t idx, uint32_t head)
{
	vq->drv.offered[idx & (vq->opts.num - 1)] = (uint16_t)head;
	vq->drv.place[head] = idx;
}

/* Takes over the chain at head, which is in flight. Its links come from a table that the device can write. */
static int resume_chain(struct libvhost_vq *vq, uint16_t pos, uint16_t *owner)
{
	struct lv_split_driver *d = &vq->drv;
	const uint16_t head = lv_avail_get(&vq->ring, pos);
	struct lv_desc desc;
	uint32_t i = head, n = 0;

	for (;; i = desc.next) {
		if (i >= vq->opts.num || owner[i])
			return lv_vq_break(vq,
					   "cannot resume: request at available index %u (head %u) uses descriptor %u, "
					   "which %s",
					   pos, head, i, i < vq->opts.num ? "is in use already" : "does not exist");
		owner[i] = 1;
		n++;
		desc = lv_desc_get(vq->ring.swap, &vq->ring.desc[i]);
		if (!(desc.flags & LV_DESC_NEXT))
			break;
		d->next[i] = desc.next;
	}
	d->offers[head] =
		(struct lv_offer){.token = head, .writable = UINT32_MAX, .tail = (uint16_t)i, .descs = (uint16_t)n};
	if (vq->in_order)
		note_order(vq, pos, head);
	vq->in_flight++;
	return 0;
}

static int resume_ring(struct libvhost_vq *vq, uint16_t *owner)
{
	struct lv_split_driver *d = &vq->drv;
	const uint16_t avail = lv_ring_idx(&vq->ring, vq->ring.avail), used = lv_ring_idx(&vq->ring, vq->ring.used);

	if ((uint16_t)(avail - used) > vq->opts.num)
		return lv_vq_break(vq, "cannot resume: available index %u is more than %u ahead of used index %u",
				   avail, vq->opts.num, used);
	d->avail_idx = d->published = avail;
	d->used_idx = d->used_seen = used;
	for (uint16_t pos = used; pos != avail; pos++) {
		int rc = resume_chain(vq, pos, owner);

		if (rc < 0)
			return rc;
	}
	return 0;
}

static int split_driver_notify(struct libvhost_vq *vq, bool on);

/* IN_ORDER wants descriptors used in the order of the table (virtio 1.2, 2.7.9): a resumed ring goes on behind the
 * last request in flight. */
static uint32_t first_free(const struct libvhost_vq *vq)
{
	const struct lv_split_driver *d = &vq->drv;
	const uint16_t last = (uint16_t)(d->avail_idx - 1);

	if (!vq->in_order || !vq->in_flight)
		return 0;
	return d->offers[d->offered[last & (vq->opts.num - 1)]].tail + 1u;
}

static int allocate(struct lv_split_driver *d, uint32_t num, bool in_order)
{
	d->offers = calloc(num, sizeof(*d->offers));
	d->next = calloc(num, sizeof(*d->next));
	d->offered = in_order ? calloc(num, sizeof(*d->offered)) : NULL;
	d->place = in_order ? calloc(num, sizeof(*d->place)) : NULL;
	return d->offers && d->next && (!in_order || (d->offered && d->place)) ? 0 : -ENOMEM;
}

static int split_driver_init(struct libvhost_vq *vq)
{
	struct lv_split_driver *d = &vq->drv;
	const uint32_t num = vq->opts.num;
	uint16_t *owner = calloc(num, sizeof(*owner)); /* descriptors of resumed requests */
	int rc = allocate(d, num, vq->in_order);

	if (!owner)
		rc = -ENOMEM;
	else if (rc == 0 && vq->opts.flags & LIBVHOST_VQ_RESUME)
		rc = resume_ring(vq, owner);
	else if (rc == 0)
		init_ring(vq);
	for (uint32_t i = 0, at = rc ? 0 : first_free(vq); !rc && i < num; i++, at++)
		if (!owner[at & (num - 1)])
			free_chain(d, at & (num - 1), at & (num - 1), 1);
	free(owner);
	if (rc < 0)
		return rc;
	rc = split_driver_notify(vq, true);
	return rc < 0 ? rc : 0;
}

static void split_driver_destroy(struct libvhost_vq *vq)
{
	free(vq->drv.offers);
	free(vq->drv.next);
	free(vq->drv.offered);
	free(vq->drv.place);
}

static int split_driver_map(struct libvhost_vq *vq, const struct lv_snapshot *snap)
{
	void *tables;
	int rc = lv_driver_tables(vq, snap, &tables);

	if (rc == 0)
		rc = lv_split_map(vq, snap);
	if (rc == 0)
		vq->drv.indirect = tables;
	return rc;
}

static inline struct lv_desc desc_of(const struct libvhost_buf *bufs, uint32_t i, uint32_t n_read, uint32_t n)
{
	return (struct lv_desc){.addr = bufs[i].gpa, .len = bufs[i].len, .flags = lv_driver_flags(i, n_read, n)};
}

/* Fills the free list's first n descriptors; returns the last one. */
static uint32_t fill_chain(struct libvhost_vq *vq, const struct libvhost_buf *bufs, uint32_t n_read, uint32_t n)
{
	const struct lv_split_driver *d = &vq->drv;
	uint32_t at = d->free_head, last = at;

	for (uint32_t i = 0; i < n; i++) {
		struct lv_desc desc = desc_of(bufs, i, n_read, n);

		last = at;
		at = d->next[at];
		desc.next = (uint16_t)(i + 1 < n ? at : 0);
		lv_desc_put(vq->ring.swap, &vq->ring.desc[last], desc);
	}
	return last;
}

/* Fills the table that belongs to the first free descriptor and points that at it. */
static uint32_t fill_indirect(struct libvhost_vq *vq, const struct libvhost_buf *bufs, uint32_t n_read, uint32_t n)
{
	const uint32_t head = vq->drv.free_head;
	const uint64_t first = (uint64_t)head * vq->opts.max_chain;
	struct lv_desc desc;

	for (uint32_t i = 0; i < n; i++) {
		desc = desc_of(bufs, i, n_read, n);
		desc.next = (uint16_t)(i + 1 < n ? i + 1 : 0);
		lv_desc_put(vq->ring.swap, &vq->drv.indirect[first + i], desc);
	}
	desc = (struct lv_desc){.addr = vq->opts.indirect + first * sizeof(desc),
				.len = n * (uint32_t)sizeof(desc),
				.flags = LV_DESC_INDIRECT};
	lv_desc_put(vq->ring.swap, &vq->ring.desc[head], desc);
	return head;
}

static int split_add(struct libvhost_vq *vq, const struct libvhost_buf *bufs, uint32_t n_read, uint32_t n_write,
		     uint64_t token)
{
	struct lv_split_driver *d = &vq->drv;
	const uint32_t head = d->free_head;
	uint32_t writable = 0, n, descs, tail;
	const int rc = lv_driver_check(vq, bufs, n_read, n_write, &writable);

	if (LV_UNLIKELY(rc < 0))
		return rc;
	n = (uint32_t)rc;
	descs = n > 1 && d->indirect ? 1 : n;
	if (descs > d->free_count)
		return -ENOSPC;
	tail = n > 1 && d->indirect ? fill_indirect(vq, bufs, n_read, n) : fill_chain(vq, bufs, n_read, n);
	d->free_head = d->next[tail];
	d->free_count -= descs;
	vq->in_flight++;
	d->offers[head] = (struct lv_offer){.token = token,
					    .seq = ++vq->requests,
					    .writable = writable,
					    .tail = (uint16_t)tail,
					    .descs = (uint16_t)descs};
	if (vq->in_order)
		note_order(vq, d->avail_idx, head);
	lv_avail_put(&vq->ring, d->avail_idx++, (uint16_t)head);
	return 0;
}

static int split_kick(struct libvhost_vq *vq)
{
	struct lv_split_driver *d = &vq->drv;
	const uint16_t old = d->published;
	bool wanted;

	if (old == d->avail_idx)
		return 0;
	lv_ring_set_idx(&vq->ring, vq->ring.avail, d->avail_idx);
	d->published = d->avail_idx;
	d->published_seq = vq->requests;
	lv_ring_fence(); /* the index is out before we look whether the device sleeps */
	if (vq->event_idx)
		wanted = lv_need_event(lv_event_get(&vq->ring, lv_avail_event(&vq->ring)), d->published, old);
	else
		wanted = !(lv_ring_flags(&vq->ring, vq->ring.used) & LV_USED_NO_NOTIFY);
	if (!wanted)
		return 0;
	return lv_driver_signal(vq);
}

/* Reads used.idx. 1 = there are completions, 0 = none, negative = it moved past what was published. */
static int look(struct libvhost_vq *vq)
{
	struct lv_split_driver *d = &vq->drv;
	const uint16_t idx = lv_ring_idx(&vq->ring, vq->ring.used);
	const uint32_t published = vq->in_flight - (uint16_t)(d->avail_idx - d->published);

	if (LV_UNLIKELY((uint16_t)(idx - d->used_idx) > published))
		return lv_vq_break(vq, "used index went from %u to %u but only %u requests are in flight", d->used_idx,
				   idx, published);
	d->used_seen = idx;
	return idx != d->used_idx;
}

/* Asks to be notified of the next completion, then looks once more: the device may have been faster. */
static int rearm(struct libvhost_vq *vq)
{
	if (vq->event_idx)
		lv_event_set(&vq->ring, lv_used_event(&vq->ring), vq->drv.used_idx);
	else
		lv_ring_set_flags(&vq->ring, vq->ring.avail, 0);
	vq->drv.armed = vq->drv.used_idx;
	lv_ring_fence();
	return look(vq);
}

static int split_driver_notify(struct libvhost_vq *vq, bool on)
{
	vq->notify_on = on;
	if (on)
		return rearm(vq);
	/* With event indexes flags are not looked at: an index just passed is 65535 completions away. */
	if (vq->event_idx)
		lv_event_set(&vq->ring, lv_used_event(&vq->ring), (uint16_t)(vq->drv.used_idx - 1));
	else
		lv_ring_set_flags(&vq->ring, vq->ring.avail, LV_AVAIL_NO_INTERRUPT);
	return 0;
}

/*
 * How many requests the used element names: with IN_ORDER it may stand for all that were offered before it, too, and
 * used.idx has moved by as many (virtio 1.2, 2.7.9). 0 = it names nothing that can be complete.
 */
static uint32_t completed(const struct libvhost_vq *vq, uint32_t id)
{
	const struct lv_split_driver *d = &vq->drv;
	uint32_t n;

	if (!d->offers[id].descs || d->offers[id].seq > d->published_seq) /* not yet published cannot be complete */
		return 0;
	if (!vq->in_order)
		return 1;
	n = (uint16_t)(d->place[id] - d->used_idx) + 1u;
	return n <= (uint16_t)(d->used_seen - d->used_idx) ? n : 0;
}

/* Gives back the request at head. */
static void give_back(struct libvhost_vq *vq, uint32_t head, uint32_t len, struct libvhost_used *out)
{
	struct lv_split_driver *d = &vq->drv;
	struct lv_offer *o = &d->offers[head];

	*out = (struct libvhost_used){.token = o->token,
				      .len = len < o->writable ? len : o->writable,
				      .flags = o->seq ? 0 : LIBVHOST_USED_RESUMED};
	free_chain(d, head, o->tail, o->descs);
	o->descs = 0;
	vq->in_flight--;
	d->used_idx++;
}

/* What the device skipped counts as used completely; how much that is of a resumed request nobody knows. */
static void give_back_skipped(struct libvhost_vq *vq, struct libvhost_used *out)
{
	const uint32_t head = vq->drv.offered[vq->drv.used_idx & (vq->opts.num - 1)];
	const struct lv_offer *o = &vq->drv.offers[head];

	give_back(vq, head, --vq->drv.batch ? o->seq ? o->writable : 0 : vq->drv.batch_len, out);
}

/* Takes the completion at used_idx. */
static int take(struct libvhost_vq *vq, struct libvhost_used *out)
{
	struct lv_split_driver *d = &vq->drv;
	const struct lv_used_elem e = lv_used_get(&vq->ring, d->used_idx);
	uint32_t n;

	if (LV_UNLIKELY(e.id >= vq->opts.num))
		return lv_vq_break(vq, "used index %u names descriptor %u, which does not exist", d->used_idx, e.id);
	n = completed(vq, e.id);
	if (LV_UNLIKELY(!n))
		return lv_vq_break(vq, "used index %u names head %u, which is not in flight", d->used_idx, e.id);
	if (!vq->in_order) {
		give_back(vq, e.id, e.len, out);
		return 0;
	}
	d->batch = n;
	d->batch_len = e.len;
	give_back_skipped(vq, out);
	return 0;
}

static int split_get_used(struct libvhost_vq *vq, struct libvhost_used *used, uint32_t *count)
{
	struct lv_split_driver *d = &vq->drv;
	uint32_t n = 0;
	int rc = 0;

	while (n < *count) {
		if (d->used_idx == d->used_seen) {
			rc = look(vq);
			if (rc == 0 && vq->event_idx && vq->notify_on && d->armed != d->used_idx)
				rc = rearm(vq);
			if (rc <= 0)
				break;
		}
		if (d->batch)
			give_back_skipped(vq, &used[n]);
		else
			rc = take(vq, &used[n]);
		if (rc < 0)
			break;
		n++;
	}
	if (rc < 0 && !n)
		return rc;
	*count = n;
	return 0;
}

static uint32_t split_driver_base(struct libvhost_vq *vq)
{
	return vq->broken || look(vq) < 0 ? vq->drv.used_idx : vq->drv.used_seen;
}

const struct lv_vq_ops lv_split_driver_ops = {
	.init = split_driver_init,
	.destroy = split_driver_destroy,
	.map = split_driver_map,
	.notify_enable = split_driver_notify,
	.base = split_driver_base,
	.add = split_add,
	.kick = split_kick,
	.get_used = split_get_used,
};
