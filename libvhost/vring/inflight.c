/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* Tracking of a split ring's requests, and what a back-end finds in the region that its predecessor left. */
#include "vring/inflight.h"

#include <errno.h>
#include <stdlib.h>

#include "vring/vring.h"

void lv_inflight_split_batch(struct lv_inflight *t, const struct lv_used_elem *done, uint32_t n)
{
	uint16_t head = __atomic_load_n(&t->split->last_batch_head, __ATOMIC_RELAXED); /* never followed so far */

	for (uint32_t i = 0; i < n; i++) {
		__atomic_store_n(&t->split->desc[done[i].id].next, head, __ATOMIC_RELEASE);
		head = (uint16_t)done[i].id;
	}
	__atomic_store_n(&t->split->last_batch_head, head, __ATOMIC_RELEASE);
}

void lv_inflight_split_commit(struct lv_inflight *t, const struct lv_used_elem *done, uint32_t n, uint16_t used_idx)
{
	for (uint32_t i = 0; i < n; i++)
		__atomic_store_n(&t->split->desc[done[i].id].inflight, 0, __ATOMIC_RELEASE);
	__atomic_store_n(&t->split->used_idx, used_idx, __ATOMIC_RELEASE);
}

/* Whatever the front-end writes meanwhile, decisions are made on this. */
static void read_split(const struct lv_inflight *t, struct lv_inflight_mark *entries)
{
	for (uint32_t i = 0; i < t->num; i++) {
		const struct lv_inflight_split_desc *d = &t->split->desc[i];

		entries[i] = (struct lv_inflight_mark){.counter = __atomic_load_n(&d->counter, __ATOMIC_RELAXED),
						       .index = (uint16_t)i,
						       .marked = __atomic_load_n(&d->inflight, __ATOMIC_RELAXED)};
	}
}

static int older(const void *one, const void *other)
{
	const struct lv_inflight_mark *a = one, *b = other;

	if (a->counter != b->counter)
		return a->counter < b->counter ? -1 : 1;
	return a->index < b->index ? -1 : a->index > b->index; /* only in a region that somebody tampered with */
}

void lv_inflight_line_up(struct lv_inflight *t, struct lv_inflight_mark *marks)
{
	t->n_again = 0;
	for (uint32_t i = 0; i < t->num; i++)
		if (marks[i].marked)
			marks[t->n_again++] = marks[i];
	qsort(marks, t->n_again, sizeof(*marks), older);
	for (uint32_t i = 0; i < t->n_again; i++)
		t->again[i] = marks[i].index;
	if (t->n_again)
		t->counter = marks[t->n_again - 1].counter + 1;
}

/*
 * A region that was never used knows the ring from now on: with used_idx left at 0, a later recovery would take the
 * distance to a ring in use for a batch and forget what was in flight. The version comes last.
 */
static void init_split(struct libvhost_vq *vq, struct lv_inflight *t, uint32_t entries)
{
	struct lv_inflight_split *r = t->split;

	for (uint32_t i = 0; i < t->num; i++)
		__atomic_store_n(&r->desc[i].inflight, 0, __ATOMIC_RELEASE);
	__atomic_store_n(&r->features, 0, __ATOMIC_RELEASE);
	__atomic_store_n(&r->desc_num, (uint16_t)entries, __ATOMIC_RELEASE);
	__atomic_store_n(&r->last_batch_head, 0, __ATOMIC_RELEASE);
	__atomic_store_n(&r->used_idx, vq->dev.used_idx, __ATOMIC_RELEASE);
	__atomic_store_n(&r->version, LV_INFLIGHT_VERSION, __ATOMIC_RELEASE);
}

/* Copies the heads that used.idx completed but the region does not know yet. How many, or -EBADMSG. */
static int read_batch(struct libvhost_vq *vq, struct lv_inflight *t, uint16_t *heads)
{
	const uint16_t known = __atomic_load_n(&t->split->used_idx, __ATOMIC_RELAXED);
	const uint16_t n = (uint16_t)(vq->dev.used_idx - known);
	uint16_t head = __atomic_load_n(&t->split->last_batch_head, __ATOMIC_RELAXED);

	if (n > t->num)
		return lv_vq_break(vq, "the inflight region ends at used index %u, the ring at %u", known,
				   vq->dev.used_idx);
	for (uint16_t i = 0; i < n; i++) {
		if (head >= t->num)
			return lv_vq_break(vq, "the inflight region's last batch names head %u, which does not exist",
					   head);
		heads[i] = head;
		head = __atomic_load_n(&t->split->desc[head].next, __ATOMIC_RELAXED);
	}
	return n;
}

static int recover_split(struct libvhost_vq *vq, struct lv_inflight *t, struct lv_inflight_mark *entries)
{
	const uint16_t avail = lv_ring_idx(&vq->ring, vq->ring.avail), used = vq->dev.used_idx;
	const int batch = read_batch(vq, t, t->again);

	if (batch < 0)
		return batch;
	read_split(t, entries);
	for (int i = 0; i < batch; i++)
		entries[t->again[i]].marked = false;
	for (uint32_t i = 0; i < t->num; i++)
		t->n_again += entries[i].marked;
	if (t->n_again > (uint16_t)(avail - used))
		return lv_vq_break(vq, "%u requests are marked in the inflight region, the driver awaits %u",
				   t->n_again, (uint16_t)(avail - used));
	for (int i = 0; i < batch; i++)
		__atomic_store_n(&t->split->desc[t->again[i]].inflight, 0, __ATOMIC_RELEASE);
	__atomic_store_n(&t->split->used_idx, used, __ATOMIC_RELEASE);
	lv_inflight_line_up(t, entries);
	vq->dev.avail_idx = vq->dev.avail_seen = (uint16_t)(used + t->n_again);
	vq->in_flight = t->n_again;
	return 0;
}

static int begin_split(struct libvhost_vq *vq, struct lv_inflight *t, uint32_t room)
{
	const uint16_t version = __atomic_load_n(&t->split->version, __ATOMIC_ACQUIRE);
	const uint64_t features = __atomic_load_n(&t->split->features, __ATOMIC_RELAXED);
	struct lv_inflight_mark *entries;
	int rc;

	if (!version) {
		init_split(vq, t, room);
		return 0;
	}
	if (version != LV_INFLIGHT_VERSION || features)
		return lv_vq_break(vq, "inflight region of version %u, features %#llx; known are version 1, none",
				   version, (unsigned long long)features);
	entries = calloc(t->num, sizeof(*entries));
	rc = entries ? recover_split(vq, t, entries) : -ENOMEM;
	free(entries);
	return rc;
}

/* Room for everything that tracking will ever need. */
static bool make_room(struct libvhost_vq *vq, struct lv_inflight *t)
{
	t->again = calloc(t->num, sizeof(*t->again));
	if (!(vq->opts.features & LV_F_RING_PACKED))
		return t->again;
	t->own = calloc(t->num, sizeof(*t->own));
	t->entry_of = calloc(vq->opts.num, sizeof(*t->entry_of));
	return t->again && t->own && t->entry_of;
}

int lv_inflight_attach(struct libvhost_vq *vq, void *region, uint32_t entries)
{
	const bool packed = vq->opts.features & LV_F_RING_PACKED;
	struct lv_inflight *t = calloc(1, sizeof(*t));
	int rc = -ENOMEM;

	if (t) {
		t->split = region;
		t->num = packed ? entries : vq->opts.num;
		if (make_room(vq, t))
			rc = packed ? lv_inflight_packed_begin(vq, t) : begin_split(vq, t, entries);
	}
	if (rc < 0) {
		lv_inflight_free(t);
		return rc == -ENOMEM
			       ? lv_fail(&vq->err, rc, LIBVHOST_EK_NOMEM, "queue %u: out of memory", vq->opts.index)
			       : rc;
	}
	vq->inflight = t;
	/* The index at which the driver is to kick was the queue's own idea of where it continues. */
	rc = vq->ops->notify_enable(vq, vq->notify_on);
	return rc < 0 ? rc : 0;
}

void lv_inflight_free(struct lv_inflight *t)
{
	if (!t)
		return;
	free(t->again);
	free(t->own);
	free(t->entry_of);
	free(t);
}
