/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/*
 * The device's side of a packed ring. The driver is not trusted, and a used descriptor may be written over those of
 * another request in flight: each descriptor is copied once and never looked at again. The copies form one list: free
 * ones, of which the first hold what has been read ahead, and one list for each request in flight.
 */
#include "vring/walk.h"

#include <errno.h>
#include <stdlib.h>

#include "vring/inflight.h"

#define READ_AHEAD 32u /* descriptors; eight cache lines */

static int packed_device_notify(struct libvhost_vq *vq, bool on);

static int packed_device_init(struct libvhost_vq *vq)
{
	struct lv_packed_device *d = &vq->pdev;
	const uint32_t num = vq->opts.num;
	int rc;

	d->taken = calloc(num, sizeof(*d->taken));
	d->copies = calloc(num, sizeof(*d->copies));
	d->link = calloc(num, sizeof(*d->link));
	d->pending = calloc(num, sizeof(*d->pending));
	rc = lv_order_init(&d->order, vq->in_order ? num : 0);
	if (!d->taken || !d->copies || !d->link || !d->pending || rc < 0)
		return -ENOMEM;
	d->avail = d->ahead = (uint16_t)vq->opts.base;
	d->used = (uint16_t)(vq->opts.base >> 16);
	for (uint32_t i = 0; i < num; i++)
		d->link[i] = (uint16_t)(i + 1);
	/* what was in flight when the ring stopped is not ours, and occupies the ring until the driver resets it */
	d->free_count = num - (uint32_t)lv_packed_distance(vq->opts.base, num);
	d->free_tail = d->free_count - 1;
	return 0;
}

static int packed_device_begin(struct libvhost_vq *vq)
{
	const int rc = packed_device_notify(vq, true);

	return rc < 0 ? rc : 0;
}

static void packed_device_destroy(struct libvhost_vq *vq)
{
	free(vq->pdev.taken);
	free(vq->pdev.copies);
	free(vq->pdev.link);
	free(vq->pdev.pending);
	lv_order_destroy(&vq->pdev.order);
}

static inline uint16_t last_of_lap(const struct libvhost_vq *vq, uint16_t pos)
{
	return (uint16_t)((pos & LV_POS_WRAP) + vq->opts.num - 1);
}

/* Copies descriptors that are available and not yet read. False: there are none, or no room. */
static bool read_ahead(struct libvhost_vq *vq)
{
	struct lv_packed_device *d = &vq->pdev;
	const uint32_t room = d->free_count - d->staged, most = room < READ_AHEAD ? room : READ_AHEAD;
	uint16_t pos = d->ahead, end = last_of_lap(vq, pos), bits = lv_avail_bits(pos);
	uint32_t to = d->stage_at, n = 0;

	for (; n < most; n++) {
		const uint64_t meta = lv_packed_load(&vq->packed, pos);

		if (!lv_meta_is(meta, bits))
			break;
		d->copies[to] = (struct lv_copy){.addr = lv_packed_addr(&vq->packed, pos), .meta = meta};
		to = d->link[to];
		if (LV_LIKELY(pos != end)) {
			pos++;
			continue;
		}
		pos = lv_pos_next(pos, 1, vq->opts.num);
		end = last_of_lap(vq, pos);
		bits = lv_avail_bits(pos);
	}
	d->ahead = pos;
	d->stage_at = to;
	d->staged += n;
	return n;
}

static inline int look(struct libvhost_vq *vq)
{
	if (LV_UNLIKELY(vq->draining))
		return lv_inflight_again(vq->inflight);
	return vq->pdev.staged || lv_inflight_again(vq->inflight) || read_ahead(vq);
}

/* Asks for a kick with the next request, then looks once more: the driver may have been faster. */
static int rearm(struct libvhost_vq *vq)
{
	vq->pdev.armed = vq->pdev.ahead;
	lv_packed_event_set(vq->packed.device, vq->event_idx ? LV_EVENT_DESC : LV_EVENT_ENABLE,
			    vq->event_idx ? vq->pdev.ahead : 0);
	lv_ring_fence();
	if (LV_UNLIKELY(vq->log != NULL))
		lv_vq_mark_event(vq);
	return look(vq);
}

static int packed_device_notify(struct libvhost_vq *vq, bool on)
{
	vq->notify_on = on;
	if (on)
		return rearm(vq);
	lv_packed_event_set(vq->packed.device, LV_EVENT_DISABLE, 0);
	if (LV_UNLIKELY(vq->log != NULL)) {
		lv_log_fence();
		lv_vq_mark_event(vq);
	}
	return 0;
}

/* Where the copies of a request lie. */
struct copies {
	uint32_t first, last, count;
};

/* From here on the request is in flight. */
static LV_HOT void note(struct libvhost_vq *vq, const struct libvhost_chain *chain, struct copies c)
{
	vq->pdev.taken[chain->head] = (struct lv_packed_taken){
		.writable = chain->write_len > UINT32_MAX ? UINT32_MAX : (uint32_t)chain->write_len,
		.hold = (uint16_t)vq->hold,
		.state = LV_HEAD_TAKEN,
		.first = (uint16_t)c.first,
		.last = (uint16_t)c.last,
		.descs = (uint16_t)c.count,
		.only_read = !chain->write_len};
	vq->holds[vq->hold].users++;
	vq->requests++;
	if (vq->in_order)
		lv_order_add(&vq->pdev.order, chain->head);
}

/* The request's copies leave the free list. */
static LV_HOT void take(struct libvhost_vq *vq, const struct libvhost_chain *chain, struct copies c)
{
	struct lv_packed_device *d = &vq->pdev;

	note(vq, chain, c);
	if (LV_UNLIKELY(vq->inflight != NULL))
		lv_inflight_packed_take(vq, chain->head, c.first, c.count);
	d->free_head = d->link[c.last];
	d->free_count -= c.count;
	d->staged -= c.count;
	d->avail = lv_pos_next(d->avail, c.count, vq->opts.num);
	vq->in_flight++;
}

/* Makes sure of one copy more than the s.at that are there, the last of which s describes. */
static LV_COLD int read_on(struct libvhost_vq *vq, struct lv_step s)
{
	if (s.at == vq->pdev.free_count)
		return lv_walk_violation(vq, s,
					 "chain does not end, or descriptors are offered that are still in flight");
	if (!read_ahead(vq))
		return lv_walk_violation(vq, s, "chain goes on with a descriptor that is not available");
	return 0;
}

static LV_COLD int bad_id(struct libvhost_vq *vq, struct lv_step s)
{
	return lv_vq_break(vq, "slot %u: request with buffer id %u, which %s", s.head, s.id,
			   s.id >= vq->opts.num ? "does not exist" : "is still in flight");
}

/*
 * Takes the request apart whose copies begin at c->first, and finds out where they end. most: it has no more than so
 * many, which did not come from the ring; 0: it is the next one of the ring, read as far as staged says. 0, or the
 * queue is broken and out as it was.
 */
static LV_HOT int walk(struct libvhost_vq *vq, struct libvhost_chain *out, struct copies *c, uint32_t most)
{
	const struct lv_packed_device *p = &vq->pdev;
	struct lv_walk w = lv_walk_begin(out);
	struct lv_step s = {.head = most ? 0 : p->avail & LV_POS_SLOT, .packed = true};
	uint32_t i = c->first;
	int rc = 0;

	for (;; i = p->link[i], s.at++) {
		if (most && s.at == most)
			return lv_walk_violation(vq, s, "chain does not end");
		if (!most && LV_UNLIKELY(s.at == p->staged))
			rc = read_on(vq, s);
		if (LV_UNLIKELY(rc < 0))
			return rc;
		s.d.addr = p->copies[i].addr;
		s.d.meta = p->copies[i].meta;
		if (lv_meta_flags(s.d.meta) & LV_DESC_INDIRECT)
			break;
		rc = lv_walk_append(vq, &w, &s);
		if (LV_UNLIKELY(rc < 0))
			return rc;
		if (!(lv_meta_flags(s.d.meta) & LV_DESC_NEXT))
			break;
	}
	s.id = lv_meta_id(s.d.meta);
	if (LV_UNLIKELY(s.id >= vq->opts.num || p->taken[s.id].state != LV_HEAD_FREE))
		return bad_id(vq, s);
	c->last = i;
	c->count = s.at + 1;
	return lv_meta_flags(s.d.meta) & LV_DESC_INDIRECT ? lv_walk_indirect(vq, &w, &s, out)
							  : lv_walk_end(vq, &w, &s, out);
}

/* What another back-end had in flight. It is marked in the region and counted already, and its copies lie ready. */
static LV_COLD int pop_again(struct libvhost_vq *vq, struct libvhost_chain *chain)
{
	struct lv_inflight *t = vq->inflight;
	const uint32_t descs = t->own[t->again[t->next_again]].num;
	struct copies c = {.first = t->again_copy};
	int rc = walk(vq, chain, &c, descs);

	if (rc < 0)
		return rc;
	if (c.count != descs)
		return lv_vq_break(vq, "a request in the inflight region ends after %u of %u descriptors", c.count,
				   descs);
	note(vq, chain, c);
	lv_inflight_packed_retake(t, chain->head);
	t->again_copy += descs;
	t->next_again++;
	return 1;
}

static int packed_pop(struct libvhost_vq *vq, struct libvhost_chain *chain)
{
	struct lv_packed_device *d = &vq->pdev;
	struct copies c = {.first = d->free_head};
	int rc;

	if (LV_UNLIKELY(lv_inflight_again(vq->inflight)))
		return pop_again(vq, chain);
	if (LV_UNLIKELY(vq->draining))
		return 0;
	if (LV_UNLIKELY(!d->staged)) {
		rc = look(vq);
		if (rc == 0 && vq->event_idx && vq->notify_on && d->armed != d->ahead)
			rc = rearm(vq);
		if (rc <= 0)
			return rc;
	}
	rc = walk(vq, chain, &c, 0);
	if (LV_UNLIKELY(rc < 0))
		return rc;
	take(vq, chain, c);
	return 1;
}

static int packed_push(struct libvhost_vq *vq, uint32_t id, uint64_t written)
{
	struct lv_packed_device *d = &vq->pdev;
	struct lv_packed_taken *t;

	if (LV_UNLIKELY(id >= vq->opts.num || d->taken[id].state != LV_HEAD_TAKEN))
		return lv_fail(&vq->err, -EINVAL, LIBVHOST_EK_ARGUMENT,
			       "queue %u: push of buffer id %u, which is not in flight", vq->opts.index, id);
	t = &d->taken[id];
	t->state = LV_HEAD_PUSHED;
	if (written < t->writable)
		t->writable = (uint32_t)written;
	if (!vq->in_order)
		d->pending[d->n_pending++] = (struct lv_used_elem){.id = id, .len = t->writable};
	if (LV_UNLIKELY(vq->log != NULL) && vq->log_data)
		lv_packed_written(vq, vq->holds[t->hold].snap, t->first, t->descs, 0, t->writable);
	lv_vq_release(vq, t->hold);
	vq->in_flight--;
	return 0;
}

static int packed_wrote(struct libvhost_vq *vq, uint32_t id, uint64_t offset, uint64_t len)
{
	const struct lv_packed_taken *t = id < vq->opts.num ? &vq->pdev.taken[id] : NULL;

	if (!t || t->state != LV_HEAD_TAKEN)
		return lv_fail(&vq->err, -EINVAL, LIBVHOST_EK_ARGUMENT,
			       "queue %u: wrote of buffer id %u, which is not in flight", vq->opts.index, id);
	if (vq->log && vq->log_data)
		lv_packed_written(vq, vq->holds[t->hold].snap, t->first, t->descs, offset, len);
	return 0;
}

/* IN_ORDER: what is pushed waits for everything that was taken before it. */
static void collect(struct lv_packed_device *d)
{
	while (d->order.count && d->taken[lv_order_oldest(&d->order)].state == LV_HEAD_PUSHED) {
		const uint32_t id = lv_order_take(&d->order);

		d->pending[d->n_pending++] = (struct lv_used_elem){.id = id, .len = d->taken[id].writable};
	}
}

/* The driver knows the ids of n descriptors from now on, and may offer as many again: their copies, from first to last,
 * are free. */
static void release(struct lv_packed_device *d, uint16_t first, uint16_t last, uint32_t n)
{
	if (d->staged == d->free_count)
		d->stage_at = first;
	if (d->free_count)
		d->link[d->free_tail] = first;
	else
		d->free_head = first;
	d->free_tail = last;
	d->free_count += n;
}

static inline uint64_t used_meta(uint16_t pos, struct lv_used_elem e)
{
	const uint32_t flags = lv_used_bits(pos) | (e.len ? LV_DESC_WRITE : 0);

	return lv_packed_meta(e.len, (uint16_t)e.id, (uint16_t)flags);
}

/*
 * Virtio 1.2, 2.8.7 ff.: with IN_ORDER one used descriptor, in the first place of a batch and with the id of its last
 * request, says that all of it was used as far as it goes. Of requests without writable buffers that is always true,
 * and where there are some drivers in the field look at each.
 */
static inline bool skippable(const struct libvhost_vq *vq, const struct lv_packed_taken *t)
{
	return vq->in_order && t->only_read;
}

/* A burst becomes visible with its first descriptor, which is written last. Returns how many places it takes. */
static uint32_t publish(struct libvhost_vq *vq)
{
	struct lv_packed_device *d = &vq->pdev;
	const uint16_t first = d->taken[d->pending[0].id].first;
	uint16_t pos = d->used, batch = pos, last = first;
	uint32_t moved = 0;
	uint64_t meta = 0;

	for (uint32_t i = 0; i < d->n_pending; i++) {
		struct lv_packed_taken *t = &d->taken[d->pending[i].id];

		if (i)
			d->link[last] = t->first;
		last = t->last;
		pos = lv_pos_next(pos, t->descs, vq->opts.num);
		moved += t->descs;
		t->state = LV_HEAD_FREE;
		if (i + 1 < d->n_pending && skippable(vq, t))
			continue;
		if (batch == d->used)
			meta = used_meta(batch, d->pending[i]);
		else
			lv_packed_store(&vq->packed, batch, used_meta(batch, d->pending[i]));
		batch = pos;
	}
	release(d, first, last, moved);
	if (vq->inflight)
		lv_inflight_packed_batch(vq->inflight, d->pending, d->n_pending, pos);
	lv_packed_publish(&vq->packed, d->used, meta);
	if (vq->inflight)
		lv_inflight_packed_commit(vq->inflight, d->pending, d->n_pending, pos);
	d->used = pos;
	d->n_pending = 0;
	return moved;
}

static int packed_flush(struct libvhost_vq *vq)
{
	struct lv_packed_device *d = &vq->pdev;
	const uint16_t old = d->used;
	uint32_t moved;

	if (vq->in_order)
		collect(d);
	if (LV_UNLIKELY(vq->log != NULL))
		lv_vq_mark_data(vq);
	if (!d->n_pending)
		return 0;
	moved = publish(vq);
	lv_ring_fence(); /* the descriptors are out before we look whether the driver sleeps */
	if (LV_UNLIKELY(vq->log != NULL))
		lv_vq_mark_descs(vq, old, moved);
	if (!lv_packed_wanted(&vq->packed, vq->packed.driver, vq->event_idx, d->used, moved))
		return 0;
	return lv_vq_signal(vq, vq->opts.flags & LIBVHOST_VQ_HAS_CALL, vq->opts.call_fd) < 0 ? 0 : 1;
}

static uint32_t packed_device_base(struct libvhost_vq *vq)
{
	return vq->pdev.avail | (uint32_t)vq->pdev.used << 16;
}

const struct lv_vq_ops lv_packed_device_ops = {
	.init = packed_device_init,
	.begin = packed_device_begin,
	.destroy = packed_device_destroy,
	.map = lv_packed_map,
	.notify_enable = packed_device_notify,
	.base = packed_device_base,
	.pop = packed_pop,
	.push = packed_push,
	.wrote = packed_wrote,
	.flush = packed_flush,
};
