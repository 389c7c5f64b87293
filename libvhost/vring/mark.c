/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/*
 * What the device role tells the dirty log. Buffers are found by walking the request once more when it is pushed, so
 * that a request taken before the log was switched on is logged, too, and nothing has to be kept while it is off. The
 * driver must leave descriptors and indirect tables alone until then (of a packed ring the descriptors are private
 * copies); one that does not falsifies the log of its own memory, and nothing else: the walk is bounded, reads each
 * descriptor once and touches no buffer.
 */
#include "vring/vring.h"

static bool is_packed(const struct libvhost_vq *vq)
{
	return vq->opts.features & LV_F_RING_PACKED;
}

static void mark_noted(struct libvhost_vq *vq)
{
	if (!vq->dirty.count)
		return;
	lv_log_fence();
	for (uint32_t i = 0; i < vq->dirty.count; i++)
		lv_log_mark_fenced(vq->log, vq->dirty.range[i].gpa, vq->dirty.range[i].len);
}

static void mark_all(struct libvhost_vq *vq)
{
	mark_noted(vq);
	vq->dirty.count = 0;
}

/*
 * A worker flushes after each call of its handler, so that little is noted while a queue rests: what a queue that broke
 * could not flush. It was written all the same. Whether the front-end reads the old log once more is its business: both
 * get it.
 */
void lv_vq_set_log(struct libvhost_vq *vq, struct lv_log *log, bool data, uint64_t used_log)
{
	struct libvhost_vq_layout l = {.size = sizeof(l)};

	mark_noted(vq);
	vq->log = log && (data || used_log != LV_NOT_LOGGED) ? log : NULL;
	vq->log_data = data;
	vq->used_log = used_log;
	if (!vq->log || !data)
		vq->dirty.count = 0;
	if (!vq->log || used_log == LV_NOT_LOGGED)
		return;
	/* it may have been written since the caller's last look: the notification wish, when the queue was made */
	lv_log_fence();
	if (is_packed(vq)) {
		lv_vq_mark_event(vq);
		if (vq->inflight) /* recovery may have withdrawn used descriptors */
			lv_vq_mark_descs(vq, 0, vq->opts.num);
	} else if (libvhost_vq_layout(vq->opts.num, vq->opts.features, &l) == 0) {
		lv_vq_mark_used(vq, 0, l.used_bytes);
	}
}

void lv_vq_mark_data(struct libvhost_vq *vq)
{
	if (vq->dirty.count)
		mark_all(vq);
}

void lv_vq_mark_used(struct libvhost_vq *vq, uint64_t offset, uint64_t bytes)
{
	if (vq->used_log != LV_NOT_LOGGED)
		lv_log_mark_fenced(vq->log, vq->used_log + offset, bytes);
}

/* Front-ends do not agree on what the log address of a packed ring is; where the ring itself is, is known here. */
static void mark_ring(struct libvhost_vq *vq, uint64_t gpa, uint64_t bytes)
{
	if (vq->used_log != LV_NOT_LOGGED)
		lv_log_mark_fenced(vq->log, gpa, bytes);
}

void lv_vq_mark_descs(struct libvhost_vq *vq, uint16_t pos, uint32_t n)
{
	const uint32_t at = pos & LV_POS_SLOT, first = n < vq->opts.num - at ? n : vq->opts.num - at;
	const uint64_t one = sizeof(struct lv_packed_desc);

	mark_ring(vq, vq->opts.desc + at * one, first * one);
	mark_ring(vq, vq->opts.desc, (n - first) * one);
}

void lv_vq_mark_event(struct libvhost_vq *vq)
{
	mark_ring(vq, vq->opts.used, sizeof(struct lv_packed_event));
}

static void note_written(struct libvhost_vq *vq, uint64_t gpa, uint64_t len)
{
	if (vq->dirty.count == LV_DIRTY_BATCH)
		mark_all(vq);
	vq->dirty.range[vq->dirty.count++] = (struct lv_dirty){gpa, len};
}

/* A table of descriptors: the ring's, or an indirect one in guest memory. */
struct table {
	const struct lv_desc *base; /* NULL: not in one piece, or misaligned */
	const struct lv_snapshot *snap;
	bool swap;
	uint64_t gpa;
	uint32_t entries;
};

static bool fetch(const struct table *t, uint32_t i, struct lv_desc *d)
{
	if (i >= t->entries)
		return false;
	if (!t->base)
		return lv_desc_copy(t->swap, t->snap, t->gpa + (uint64_t)i * sizeof(*d), d);
	*d = lv_desc_get(t->swap, &t->base[i]);
	return true;
}

static void open_table(struct table *t, uint64_t gpa, uint32_t entries)
{
	struct lv_tlb tlb = {0};

	t->gpa = gpa;
	t->entries = entries;
	t->base = lv_translate(t->snap, &tlb, gpa, (uint64_t)entries * sizeof(struct lv_desc));
	if ((uintptr_t)t->base % _Alignof(uint64_t))
		t->base = NULL;
}

/* Which bytes of the writable part are still to be noted. */
struct part {
	uint64_t skip, left;
};

static void note(struct libvhost_vq *vq, const struct lv_desc *d, struct part *p)
{
	const uint64_t skip = d->len < p->skip ? d->len : p->skip;
	const uint64_t rest = d->len - skip, n = rest < p->left ? rest : p->left;

	if (!(d->flags & LV_DESC_WRITE))
		return;
	p->skip -= skip;
	p->left -= n;
	if (n)
		note_written(vq, d->addr + skip, n);
}

static void walk(struct libvhost_vq *vq, struct table *t, uint32_t i, struct part *p)
{
	bool inside = false;
	uint32_t steps = t->entries;
	struct lv_desc d;

	while (p->left && steps-- && fetch(t, i, &d)) {
		if (d.flags & LV_DESC_INDIRECT) {
			if (inside || !d.len || d.len % sizeof(d))
				return;
			inside = true;
			open_table(t, d.addr, d.len / (uint32_t)sizeof(d));
			steps = t->entries < LV_INDIRECT_MAX ? t->entries : LV_INDIRECT_MAX;
			i = 0;
			continue;
		}
		note(vq, &d, p);
		if (!(d.flags & LV_DESC_NEXT))
			return;
		i = d.next;
	}
}

void lv_chain_written(struct libvhost_vq *vq, const struct lv_snapshot *snap, uint16_t head, uint64_t offset,
		      uint64_t len)
{
	struct table t = {.base = vq->ring.desc, .snap = snap, .swap = vq->ring.swap, .entries = vq->ring.num};
	struct part p = {offset, len};

	walk(vq, &t, head, &p);
}

/* Indirect tables of packed rings have no links, and flags where split ones have next. */
static void walk_packed_table(struct libvhost_vq *vq, const struct lv_snapshot *snap, const struct lv_desc *at,
			      struct part *p)
{
	struct table t = {.snap = snap, .swap = true};
	struct lv_desc d;

	open_table(&t, at->addr, at->len / (uint32_t)sizeof(d));
	for (uint32_t i = 0; p->left && i < LV_INDIRECT_MAX && fetch(&t, i, &d); i++) {
		d.flags = d.next;
		note(vq, &d, p);
	}
}

void lv_packed_written(struct libvhost_vq *vq, const struct lv_snapshot *snap, uint32_t first, uint32_t descs,
		       uint64_t offset, uint64_t len)
{
	struct part p = {offset, len};

	for (uint32_t i = first; p.left && descs--; i = vq->pdev.link[i]) {
		const struct lv_copy *c = &vq->pdev.copies[i];
		const struct lv_desc d = {
			.addr = c->addr, .len = lv_meta_len(c->meta), .flags = lv_meta_flags(c->meta)};

		if (d.flags & LV_DESC_INDIRECT)
			walk_packed_table(vq, snap, &d, &p);
		else
			note(vq, &d, &p);
	}
}
