/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/*
 * What a walk through a request seldom meets: buffers that are not one piece, and what breaks the rules; and indirect
 * tables. Links there lead through the table. In a packed ring they have none: their length says how many entries
 * there are, and flags and id have changed places. A walk ends after at most LV_INDIRECT_MAX entries of the one table
 * that a request may have, whatever the links say.
 */
#include "vring/walk.h"

#include <errno.h>

/* Number of the descriptor in its table or ring. */
static uint32_t number(const struct libvhost_vq *vq, struct lv_step s)
{
	return s.packed && !s.inside ? lv_pos_next(vq->pdev.avail, s.at, vq->opts.num) & LV_POS_SLOT : s.at;
}

int lv_walk_violation(struct libvhost_vq *vq, struct lv_step s, const char *what)
{
	return lv_vq_break(vq, "%s %u, %sdescriptor %u (address %#llx, length %u, flags %#x, %s %u): %s",
			   s.packed ? "slot" : "head", s.head, s.inside ? "indirect " : "", number(vq, s),
			   (unsigned long long)s.d.addr, lv_meta_len(s.d.meta), lv_step_flags(&s),
			   s.packed ? "id" : "next", s.packed ? lv_meta_id(s.d.meta) : lv_split_next(s.d.meta), what);
}

static int too_long(struct libvhost_vq *vq, struct lv_step s, uint32_t cap)
{
	struct lv_where where = LV_WHERE_NONE;

	where.queue = vq->opts.index;
	vq->broken = true;
	return lv_fail_at(&vq->err, -E2BIG, LIBVHOST_EK_OUTPUT_TOO_SMALL, &where,
			  "queue %u: %s %u, %sdescriptor %u: the request has more than iov_cap = %u pieces; the queue "
			  "is broken until the device is reset",
			  vq->opts.index, s.packed ? "slot" : "head", s.head, s.inside ? "indirect " : "",
			  number(vq, s), cap);
}

/* In as many pieces as the buffer has regions. */
int lv_walk_append_slowly(struct libvhost_vq *vq, struct lv_walk *w, struct lv_step s)
{
	const bool write = lv_step_flags(&s) & LV_DESC_WRITE;
	const uint64_t len = lv_meta_len(s.d.meta);
	uint64_t gpa = s.d.addr, left = len, run;

	if (!write && w->n != w->n_read)
		return lv_walk_violation(vq, s, "a readable buffer after a writable one");
	if (left && gpa + left - 1 < gpa)
		return lv_walk_violation(vq, s, "address and length wrap");
	for (; left; gpa += run, left -= run) {
		const struct lv_map *m = lv_tlb_find(vq->snap, &vq->tlb, gpa);

		if (!m)
			return lv_walk_violation(vq, s, "the buffer is not (completely) in guest memory");
		if (write && m->flags & LIBVHOST_REGION_READONLY)
			return lv_walk_violation(vq, s, "a writable buffer in read-only memory");
		if (w->n == w->cap)
			return too_long(vq, s, w->cap);
		run = m->size - (gpa - m->gpa);
		run = run < left ? run : left;
		w->iov[w->n++] = (struct libvhost_iov){.base = m->hva + (gpa - m->gpa), .len = (size_t)run};
		w->n_read += !write;
	}
	w->len += len;
	w->write_len += write ? len : 0;
	return 0;
}

bool lv_desc_copy(bool swap, const struct lv_snapshot *snap, uint64_t gpa, struct lv_desc *out)
{
	struct lv_tlb tlb = {0};
	uint8_t *to = (uint8_t *)out;

	for (uint32_t n = 0; n < sizeof(*out); n++, gpa++) {
		const uint8_t *from = lv_translate(snap, &tlb, gpa, 1);

		if (!from)
			return false;
		to[n] = __atomic_load_n(from, __ATOMIC_RELAXED);
	}
	*out = lv_desc_get(swap, out);
	return true;
}

/* An indirect table. */
struct table {
	const struct lv_desc *base; /* NULL when it is not contiguous and aligned in host memory */
	uint64_t gpa;
	uint32_t entries;
	bool swap;
};

/* virtio 1.2, 2.7.5.3: WRITE is ignored in the descriptor of a table, NEXT is forbidden. NULL: nothing is wrong. */
static const char *check_table(const struct libvhost_vq *vq, const struct lv_step *s)
{
	const uint32_t len = lv_meta_len(s->d.meta);

	if (!vq->indirect_ok)
		return "INDIRECT was not negotiated";
	if (lv_step_flags(s) & LV_DESC_NEXT)
		return "INDIRECT and NEXT together";
	if (!len || len % sizeof(struct lv_desc))
		return "length of an indirect table is not a multiple of 16";
	if (s->d.addr + len - 1 < s->d.addr)
		return "address and length wrap";
	if (s->packed && len / sizeof(struct lv_desc) > LV_INDIRECT_MAX)
		return "an indirect table of more than 1024 descriptors";
	return NULL;
}

static LV_HOT struct table open_table(struct libvhost_vq *vq, const struct lv_step *s)
{
	const uint32_t len = lv_meta_len(s->d.meta);
	struct table t = {.base = lv_translate(vq->snap, &vq->tlb, s->d.addr, len),
			  .gpa = s->d.addr,
			  .entries = len / (uint32_t)sizeof(struct lv_desc),
			  .swap = s->packed || vq->ring.swap};

	if ((uintptr_t)t.base % _Alignof(uint64_t))
		t.base = NULL;
	return t;
}

/* A table may cross regions or be misaligned. */
static LV_HOT bool fetch(const struct libvhost_vq *vq, const struct table *t, struct lv_step *s)
{
	struct lv_desc bytes;

	if (LV_LIKELY(t->base != NULL)) {
		s->d = lv_desc_load(t->swap, &t->base[s->at]);
		return true;
	}
	if (!lv_desc_copy(t->swap, vq->snap, t->gpa + (uint64_t)s->at * sizeof(bytes), &bytes))
		return false;
	s->d = lv_desc_load(false, &bytes);
	return true;
}

/* Goes on behind s. virtio 1.2, 2.8.7: in a packed ring's table only WRITE and INDIRECT mean something. */
static LV_HOT bool next(const struct table *t, struct lv_step *s)
{
	if (s->packed && s->at + 1 == t->entries)
		return false;
	if (s->packed)
		return ++s->at;
	s->at = lv_split_next(s->d.meta);
	return lv_split_flags(s->d.meta) & LV_DESC_NEXT;
}

static LV_HOT int walk_table(struct libvhost_vq *vq, struct lv_walk w, struct lv_step s, bool packed,
			     struct libvhost_chain *out)
{
	const struct table t = open_table(vq, &s);
	uint32_t left = t.entries < LV_INDIRECT_MAX ? t.entries : LV_INDIRECT_MAX;
	int rc;

	s.packed = packed; /* a constant from here on */
	s.inside = true;
	s.at = 0;
	do {
		if (LV_UNLIKELY(s.at >= t.entries || !left--))
			return lv_walk_violation(
				vq, s, s.at >= t.entries ? "reached by a link out of the table" : "chain does not end");
		if (!fetch(vq, &t, &s))
			return lv_walk_violation(vq, s, "its indirect table is not mapped");
		if (LV_UNLIKELY(lv_step_flags(&s) & LV_DESC_INDIRECT))
			return lv_walk_violation(vq, s, "an indirect table inside an indirect table");
		rc = lv_walk_append(vq, &w, &s);
		if (LV_UNLIKELY(rc < 0))
			return rc;
	} while (next(&t, &s));
	return lv_walk_end(vq, &w, &s, out);
}

int lv_walk_table(struct libvhost_vq *vq, const struct lv_walk *w, const struct lv_step *s, struct libvhost_chain *out)
{
	const char *wrong = check_table(vq, s);

	if (LV_UNLIKELY(wrong != NULL))
		return lv_walk_violation(vq, *s, wrong);
	return s->packed ? walk_table(vq, *w, *s, true, out) : walk_table(vq, *w, *s, false, out);
}
