/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* The device's side of a split ring. The driver is not trusted: what it may do to us is decided by private memory. */
#include "vring/walk.h"

#include <errno.h>
#include <stdlib.h>

#include "vring/inflight.h"

static int split_device_notify(struct libvhost_vq *vq, bool on);

static int split_device_init(struct libvhost_vq *vq)
{
	struct lv_split_device *d = &vq->dev;
	int rc;

	d->taken = calloc(vq->opts.num, sizeof(*d->taken));
	d->pending = calloc(vq->opts.num, sizeof(*d->pending));
	rc = lv_order_init(&d->order, vq->in_order ? vq->opts.num : 0);
	if (!d->taken || !d->pending || rc < 0)
		return -ENOMEM;
	d->avail_idx = d->avail_seen = (uint16_t)vq->opts.base;
	return 0;
}

static int split_device_begin(struct libvhost_vq *vq)
{
	int rc;

	vq->dev.used_idx = lv_ring_idx(&vq->ring, vq->ring.used);
	if (vq->goes_on_at_used)
		vq->dev.avail_idx = vq->dev.avail_seen = vq->dev.used_idx;
	rc = split_device_notify(vq, true);
	return rc < 0 ? rc : 0;
}

static void split_device_destroy(struct libvhost_vq *vq)
{
	free(vq->dev.taken);
	free(vq->dev.pending);
	lv_order_destroy(&vq->dev.order);
}

/* Reads avail.idx. 1 = there are requests, 0 = none, negative = more than the ring holds. */
static LV_HOT int look(struct libvhost_vq *vq)
{
	struct lv_split_device *d = &vq->dev;
	const uint16_t idx = lv_ring_idx(&vq->ring, vq->ring.avail);

	if (LV_UNLIKELY((uint16_t)(idx - d->avail_idx) > vq->opts.num))
		return lv_vq_break(vq, "available index %u is %u ahead of %u, more than the ring holds", idx,
				   (uint16_t)(idx - d->avail_idx), d->avail_idx);
	d->avail_seen = idx;
	return (idx != d->avail_idx && !vq->draining) || lv_inflight_again(vq->inflight);
}

/* The wish to be kicked lies in the used ring. */
static LV_COLD void log_wish(struct libvhost_vq *vq)
{
	const uint8_t *used = (const void *)vq->ring.used, *event = (const void *)lv_avail_event(&vq->ring);

	lv_vq_mark_used(vq, vq->event_idx ? (uint64_t)(event - used) : 0, sizeof(uint16_t));
}

/* Asks for a kick with the next request, then looks once more: the driver may have been faster. */
static int rearm(struct libvhost_vq *vq)
{
	if (vq->event_idx)
		lv_event_set(&vq->ring, lv_avail_event(&vq->ring), vq->dev.avail_idx);
	else
		lv_ring_set_flags(&vq->ring, vq->ring.used, 0);
	vq->dev.armed = vq->dev.avail_idx;
	lv_ring_fence();
	if (LV_UNLIKELY(vq->log != NULL))
		log_wish(vq);
	return look(vq);
}

static int split_device_notify(struct libvhost_vq *vq, bool on)
{
	vq->notify_on = on;
	if (on)
		return rearm(vq);
	/* With event indexes flags are not looked at: an index just passed is 65535 requests away. */
	if (vq->event_idx)
		lv_event_set(&vq->ring, lv_avail_event(&vq->ring), (uint16_t)(vq->dev.avail_idx - 1));
	else
		lv_ring_set_flags(&vq->ring, vq->ring.used, LV_USED_NO_NOTIFY);
	if (LV_UNLIKELY(vq->log != NULL)) {
		lv_log_fence();
		log_wish(vq);
	}
	return 0;
}

/*
 * Takes the request that starts at head apart into out->iov. Ends after at most num descriptors, whatever the links
 * say. 0, or the queue is broken.
 */
static LV_HOT int walk(struct libvhost_vq *vq, uint16_t head, struct libvhost_chain *out)
{
	const uint32_t num = vq->ring.num;
	struct lv_walk w = lv_walk_begin(out);
	struct lv_step s = {.at = head, .head = head, .id = head};
	int rc;

	for (uint32_t left = num;; left--) {
		if (LV_UNLIKELY(s.at >= num || !left))
			return lv_walk_violation(
				vq, s, s.at >= num ? "reached by a link out of the table" : "chain does not end");
		s.d = lv_desc_load(vq->ring.swap, &vq->ring.desc[s.at]);
		if (lv_split_flags(s.d.meta) & LV_DESC_INDIRECT)
			return lv_walk_indirect(vq, &w, &s, out);
		rc = lv_walk_append(vq, &w, &s);
		if (LV_UNLIKELY(rc < 0))
			return rc;
		if (!(lv_split_flags(s.d.meta) & LV_DESC_NEXT))
			return lv_walk_end(vq, &w, &s, out);
		s.at = lv_split_next(s.d.meta);
	}
}

/* Takes the request at head apart; from here on it is in flight. */
static LV_HOT int take(struct libvhost_vq *vq, uint16_t head, struct libvhost_chain *chain)
{
	struct lv_taken *t = &vq->dev.taken[head];
	int rc = walk(vq, head, chain);

	if (LV_UNLIKELY(rc < 0))
		return rc;
	*t = (struct lv_taken){.writable = chain->write_len > UINT32_MAX ? UINT32_MAX : (uint32_t)chain->write_len,
			       .hold = (uint16_t)vq->hold,
			       .state = LV_HEAD_TAKEN};
	if (vq->in_order)
		lv_order_add(&vq->dev.order, head);
	vq->holds[vq->hold].users++;
	vq->requests++;
	return 1;
}

/* What another back-end had in flight. It is marked in the region and counted in in_flight already. */
static LV_COLD int pop_again(struct libvhost_vq *vq, struct libvhost_chain *chain)
{
	struct lv_inflight *t = vq->inflight;
	int rc = take(vq, t->again[t->next_again], chain);

	if (rc > 0)
		t->next_again++;
	return rc;
}

static int split_pop(struct libvhost_vq *vq, struct libvhost_chain *chain)
{
	struct lv_split_device *d = &vq->dev;
	uint16_t head;
	int rc;

	if (LV_UNLIKELY(lv_inflight_again(vq->inflight)))
		return pop_again(vq, chain);
	if (LV_UNLIKELY(vq->draining))
		return 0;
	if (d->avail_idx == d->avail_seen) {
		rc = look(vq);
		if (rc == 0 && vq->event_idx && vq->notify_on && d->armed != d->avail_idx)
			rc = rearm(vq);
		if (rc <= 0)
			return rc;
	}
	head = lv_avail_get(&vq->ring, d->avail_idx);
	if (LV_UNLIKELY(head >= vq->opts.num))
		return lv_vq_break(vq, "available index %u names head %u, which does not exist", d->avail_idx, head);
	if (LV_UNLIKELY(d->taken[head].state != LV_HEAD_FREE))
		return lv_vq_break(vq, "available index %u names head %u, which is still in flight", d->avail_idx,
				   head);
	rc = take(vq, head, chain);
	if (LV_UNLIKELY(rc < 0))
		return rc;
	if (vq->inflight)
		lv_inflight_split_take(vq->inflight, head);
	vq->in_flight++;
	d->avail_idx++;
	return 1;
}

static int split_push(struct libvhost_vq *vq, uint32_t head, uint64_t written)
{
	struct lv_split_device *d = &vq->dev;
	struct lv_taken *t;

	if (LV_UNLIKELY(head >= vq->opts.num || d->taken[head].state != LV_HEAD_TAKEN))
		return lv_fail(&vq->err, -EINVAL, LIBVHOST_EK_ARGUMENT,
			       "queue %u: push of head %u, which is not in flight", vq->opts.index, head);
	t = &d->taken[head];
	t->writable = written < t->writable ? (uint32_t)written : t->writable;
	if (!vq->in_order)
		d->pending[d->n_pending++] = (struct lv_used_elem){.id = head, .len = t->writable};
	if (LV_UNLIKELY(vq->log != NULL) && vq->log_data)
		lv_chain_written(vq, vq->holds[t->hold].snap, (uint16_t)head, 0, t->writable);
	t->state = LV_HEAD_PUSHED;
	lv_vq_release(vq, t->hold);
	vq->in_flight--;
	return 0;
}

/* IN_ORDER: what is pushed waits for everything that was taken before it. */
static void collect(struct lv_split_device *d)
{
	while (d->order.count && d->taken[lv_order_oldest(&d->order)].state == LV_HEAD_PUSHED) {
		const uint32_t head = lv_order_take(&d->order);

		d->pending[d->n_pending++] = (struct lv_used_elem){.id = head, .len = d->taken[head].writable};
	}
}

static int split_wrote(struct libvhost_vq *vq, uint32_t head, uint64_t offset, uint64_t len)
{
	const struct lv_taken *t = head < vq->opts.num ? &vq->dev.taken[head] : NULL;

	if (!t || t->state != LV_HEAD_TAKEN)
		return lv_fail(&vq->err, -EINVAL, LIBVHOST_EK_ARGUMENT,
			       "queue %u: wrote of head %u, which is not in flight", vq->opts.index, head);
	if (vq->log && vq->log_data)
		lv_chain_written(vq, vq->holds[t->hold].snap, (uint16_t)head, offset, len);
	return 0;
}

/* Whether the driver sleeps and wants to hear of used.idx moving from old. */
static bool call_wanted(const struct libvhost_vq *vq, uint16_t old)
{
	if (vq->event_idx)
		return lv_need_event(lv_event_get(&vq->ring, lv_used_event(&vq->ring)), vq->dev.used_idx, old);
	return !(lv_ring_flags(&vq->ring, vq->ring.avail) & LV_AVAIL_NO_INTERRUPT);
}

/* Completions old and following are published: their elements and the index. */
static LV_COLD void log_used(struct libvhost_vq *vq, uint16_t old)
{
	const uint32_t num = vq->opts.num, at = old & (num - 1), n = (uint16_t)(vq->dev.used_idx - old);
	const uint64_t slots = sizeof(struct lv_ring_hdr), one = sizeof(struct lv_used_elem);
	const uint32_t first = n < num - at ? n : num - at;

	lv_vq_mark_used(vq, 0, slots);
	lv_vq_mark_used(vq, slots + at * one, first * one);
	lv_vq_mark_used(vq, slots, (n - first) * one);
}

static int split_flush(struct libvhost_vq *vq)
{
	struct lv_split_device *d = &vq->dev;
	const uint16_t old = d->used_idx;
	uint32_t n;

	if (vq->in_order)
		collect(d);
	n = d->n_pending;
	if (LV_UNLIKELY(vq->log != NULL))
		lv_vq_mark_data(vq);
	if (!n)
		return 0;
	for (uint32_t i = 0; i < n; i++) {
		lv_used_put(&vq->ring, (uint16_t)(old + i), d->pending[i]);
		d->taken[d->pending[i].id].state = LV_HEAD_FREE;
	}
	d->used_idx = (uint16_t)(old + n);
	d->n_pending = 0;
	if (vq->inflight)
		lv_inflight_split_batch(vq->inflight, d->pending, n);
	lv_ring_set_idx(&vq->ring, vq->ring.used, d->used_idx);
	if (vq->inflight)
		lv_inflight_split_commit(vq->inflight, d->pending, n, d->used_idx);
	lv_ring_fence(); /* the index is out before we look whether the driver sleeps */
	if (LV_UNLIKELY(vq->log != NULL))
		log_used(vq, old);
	if (!call_wanted(vq, old))
		return 0;
	return lv_vq_signal(vq, vq->opts.flags & LIBVHOST_VQ_HAS_CALL, vq->opts.call_fd) < 0 ? 0 : 1;
}

static uint32_t split_device_base(struct libvhost_vq *vq)
{
	return vq->dev.avail_idx;
}

const struct lv_vq_ops lv_split_device_ops = {
	.init = split_device_init,
	.begin = split_device_begin,
	.destroy = split_device_destroy,
	.map = lv_split_map,
	.notify_enable = split_device_notify,
	.base = split_device_base,
	.pop = split_pop,
	.push = split_push,
	.wrote = split_wrote,
	.flush = split_flush,
};
