/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/*
 * Taking a request apart, as both ring formats do it: each has its own loop over its descriptors, here is what a
 * descriptor adds, and what is rare is in chain.c. A descriptor is copied into a local, checked, and only the copy is
 * used.
 */
#ifndef LV_VRING_WALK_H
#define LV_VRING_WALK_H

#include "vring/vring.h"

/*
 * A request as far as it has been taken apart. Lives in registers: what is not inlined gets a copy. A call that could
 * change it would make each step of each request write it to memory and wait to read it back.
 */
struct lv_walk {
	uint32_t n, n_read; /* pieces; those that the device reads come first */
	uint64_t len, write_len;
	struct libvhost_iov *iov;
	uint32_t cap;
};

/* The descriptor under inspection, and where it lies, for messages. Lives in registers, too: it is too large to be
 * handed over in any. */
struct lv_step {
	struct lv_copy d;
	uint32_t at;   /* number in its table; in a packed ring: how many lie before it */
	uint32_t head; /* packed: slot of the first descriptor */
	uint32_t id;   /* what the request is pushed with; packed: known with the last descriptor of the ring */
	bool packed;   /* a constant wherever a walk is inlined */
	bool inside;   /* an indirect table */
};

static LV_HOT struct lv_walk lv_walk_begin(const struct libvhost_chain *out)
{
	return (struct lv_walk){.iov = out->iov, .cap = out->iov_cap};
}

/* Breaks the queue at s, or, when that is no descriptor, behind it. */
LV_COLD int lv_walk_violation(struct libvhost_vq *vq, struct lv_step s, const char *what);

/* What lv_walk_append() does not do in one go: buffers of no or several pieces, and all that is wrong. */
LV_COLD int lv_walk_append_slowly(struct libvhost_vq *vq, struct lv_walk *w, struct lv_step s);

/* The rest of the request is in the table that s describes: walks and ends it. The copies are made member by member:
 * what is stored in pieces and loaded in one waits for the cache. */
int lv_walk_table(struct libvhost_vq *vq, const struct lv_walk *w, const struct lv_step *s, struct libvhost_chain *out);
static LV_HOT int lv_walk_indirect(struct libvhost_vq *vq, const struct lv_walk *w, const struct lv_step *s,
				   struct libvhost_chain *out)
{
	const struct lv_walk walk = {w->n, w->n_read, w->len, w->write_len, w->iov, w->cap};
	const struct lv_step step = {{s->d.addr, s->d.meta}, s->at, s->head, s->id, s->packed, s->inside};

	return lv_walk_table(vq, &walk, &step, out);
}

static LV_HOT uint16_t lv_step_flags(const struct lv_step *s)
{
	return s->packed ? lv_meta_flags(s->d.meta) : lv_split_flags(s->d.meta);
}

/* Appends the buffer that s describes. 0, or the queue is broken. */
static LV_HOT int lv_walk_append(struct libvhost_vq *vq, struct lv_walk *w, const struct lv_step *s)
{
	const struct lv_map *m = lv_tlb_find(vq->snap, &vq->tlb, s->d.addr);
	const bool write = lv_step_flags(s) & LV_DESC_WRITE;
	const uint64_t len = lv_meta_len(s->d.meta);

	/* len - 1: an empty buffer is longer than any region */
	if (LV_UNLIKELY(!m || len - 1 >= m->size - (s->d.addr - m->gpa) || w->n == w->cap ||
			(write ? m->flags & LIBVHOST_REGION_READONLY : w->n != w->n_read))) {
		struct lv_walk copy = *w;
		const int rc = lv_walk_append_slowly(vq, &copy, *s);

		*w = copy;
		return rc;
	}
	w->iov[w->n].base = m->hva + (s->d.addr - m->gpa);
	w->iov[w->n++].len = len;
	w->n_read += !write;
	w->len += len;
	w->write_len += write ? len : 0;
	return 0;
}

/* s was the last: fills out in, but for its array. */
static LV_HOT int lv_walk_end(struct libvhost_vq *vq, const struct lv_walk *w, const struct lv_step *s,
			      struct libvhost_chain *out)
{
	if (LV_UNLIKELY(w->len > 1ull << 32))
		return lv_walk_violation(vq, *s, "the request is larger than 4 GiB");
	out->head = s->id;
	out->n_read = w->n_read;
	out->n_write = w->n - w->n_read;
	out->read_len = w->len - w->write_len;
	out->write_len = w->write_len;
	return 0;
}

#endif
