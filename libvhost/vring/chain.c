/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/*
 * The one chain walker, of both ring formats. A descriptor is copied into a local, checked, and only the copy is used.
 * A walk ends after at most num descriptors of the ring and LV_INDIRECT_MAX of one indirect table, whatever the links
 * say.
 *
 * In a split ring links lead through the table. In a packed one the descriptors of a request lie one behind the other,
 * flags and id have changed places, and indirect tables have no links: their length says how many there are.
 */
#include "vring/vring.h"

#include <errno.h>

struct walk {
	struct libvhost_vq *vq;
	struct libvhost_iov *iov;
	uint32_t cap, n_read, n_write;
	bool packed, swap;
	bool inside;   /* an indirect table */
	bool complete; /* packed: all copies are there */
	uint64_t read_len, write_len;
	const struct lv_desc *base; /* the table, NULL when it is not contiguous and aligned in host memory */
	uint64_t table;		    /* its guest address when it is an indirect one */
	uint32_t entries, left;	    /* in the table; steps the walk may still take */
	uint32_t at;		    /* descriptor under inspection, for messages */
	uint32_t descs, last;	    /* packed: taken from the ring; copy of the last of them */
	uint16_t head;		    /* packed: slot of the first descriptor */
};
_Static_assert(sizeof(struct walk) <= 88, "gcc clears more with rep stos, which stalls every request");

static LV_COLD int violation(struct walk *w, const struct lv_desc *d, const char *what)
{
	return lv_vq_break(w->vq, "%s %u, %sdescriptor %u (address %#llx, length %u, flags %#x, %s %u): %s",
			   w->packed ? "slot" : "head", w->head, w->inside ? "indirect " : "", w->at,
			   (unsigned long long)d->addr, d->len, d->flags, w->packed ? "id" : "next", d->next, what);
}

static LV_COLD int too_long(struct walk *w)
{
	struct lv_where where = LV_WHERE_NONE;

	where.queue = w->vq->opts.index;
	w->vq->broken = true;
	return lv_fail_at(&w->vq->err, -E2BIG, LIBVHOST_EK_OUTPUT_TOO_SMALL, &where,
			  "queue %u: %s %u, %sdescriptor %u: the request has more than iov_cap = %u pieces; the queue "
			  "is broken until the device is reset",
			  w->vq->opts.index, w->packed ? "slot" : "head", w->head, w->inside ? "indirect " : "", w->at,
			  w->cap);
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
	*out = lv_desc_swapped(swap, *out);
	return true;
}

/* An indirect table may cross regions or be misaligned. */
static LV_COLD bool copy_desc(struct walk *w, uint32_t i, struct lv_desc *out)
{
	return lv_desc_copy(w->swap, w->vq->snap, w->table + (uint64_t)i * sizeof(*out), out);
}

/* Descriptor i of a split ring or of an indirect table. */
static inline int fetch_entry(struct walk *w, uint32_t i, struct lv_desc *d)
{
	w->at = i;
	if (LV_UNLIKELY(i >= w->entries || !w->left))
		return violation(w, d, i >= w->entries ? "reached by a link out of the table" : "chain does not end");
	w->left--;
	if (LV_LIKELY(w->base != NULL)) {
		*d = lv_desc_get(w->swap, &w->base[i]);
		return 0;
	}
	return copy_desc(w, i, d) ? 0 : violation(w, d, "its indirect table is not mapped");
}

/* The next descriptor of a packed ring, which is or becomes copy i. */
static inline int fetch_copy(struct walk *w, uint32_t i, struct lv_desc *d)
{
	const struct lv_packed_device *p = &w->vq->pdev;
	uint64_t meta;

	w->at = lv_pos_next(p->avail, w->descs, w->vq->opts.num) & LV_POS_SLOT;
	if (LV_UNLIKELY(!w->left))
		return violation(w, d, "chain does not end, or descriptors are offered that are still in flight");
	if (LV_UNLIKELY(w->descs == p->staged && !w->complete && !lv_packed_read_ahead(w->vq)))
		return violation(w, d, "chain goes on with a descriptor that is not available");
	w->left--;
	meta = p->copies[i].meta;
	*d = (struct lv_desc){.addr = p->copies[i].addr,
			      .len = lv_meta_len(meta),
			      .flags = lv_meta_flags(meta),
			      .next = lv_meta_id(meta)};
	w->descs++;
	w->last = i;
	return 0;
}

static inline int fetch(struct walk *w, bool packed, uint32_t i, struct lv_desc *d)
{
	int rc;

	if (packed && !w->inside)
		return fetch_copy(w, i, d);
	rc = fetch_entry(w, i, d);
	if (packed && rc == 0)
		*d = (struct lv_desc){.addr = d->addr, .len = d->len, .flags = d->next, .next = d->flags};
	return rc;
}

/* The descriptor behind d, which is number *i. virtio 1.2, 2.8.7: only WRITE and INDIRECT mean something in a table. */
static inline bool next(const struct walk *w, bool packed, const struct lv_desc *d, uint32_t *i)
{
	if (packed && w->inside)
		return ++*i < w->entries;
	if (!(d->flags & LV_DESC_NEXT))
		return false;
	*i = packed ? w->vq->pdev.link[*i] : d->next;
	return true;
}

/* Goes on in the table that d describes. virtio 1.2, 2.7.5.3: WRITE is ignored here, NEXT and nesting are forbidden. */
static int descend(struct walk *w, const struct lv_desc *d)
{
	const char *what = NULL;

	if (!w->vq->indirect_ok)
		what = "INDIRECT was not negotiated";
	else if (w->inside)
		what = "an indirect table inside an indirect table";
	else if (d->flags & LV_DESC_NEXT)
		what = "INDIRECT and NEXT together";
	else if (!d->len || d->len % sizeof(*d))
		what = "length of an indirect table is not a multiple of 16";
	else if (d->addr + d->len - 1 < d->addr)
		what = "address and length wrap";
	else if (w->packed && d->len / sizeof(*d) > LV_INDIRECT_MAX)
		what = "an indirect table of more than 1024 descriptors";
	if (what)
		return violation(w, d, what);
	w->inside = true;
	w->table = d->addr;
	w->entries = d->len / (uint32_t)sizeof(*d);
	w->left = w->entries < LV_INDIRECT_MAX ? w->entries : LV_INDIRECT_MAX;
	w->base = lv_translate(w->vq->snap, &w->vq->tlb, d->addr, d->len);
	if ((uintptr_t)w->base % _Alignof(uint64_t))
		w->base = NULL;
	return 0;
}

/* Appends the buffer of d, in as many pieces as it has regions. */
static LV_HOT int append(struct walk *w, const struct lv_desc *d)
{
	const struct lv_snapshot *snap = w->vq->snap;
	const bool write = d->flags & LV_DESC_WRITE;
	uint64_t gpa = d->addr, left = d->len;

	if (LV_UNLIKELY(!write && w->n_write))
		return violation(w, d, "a readable buffer after a writable one");
	if (LV_UNLIKELY(left && gpa + left - 1 < gpa))
		return violation(w, d, "address and length wrap");
	while (left) {
		uint64_t run = left;
		void *hva = lv_translate_some(snap, &w->vq->tlb, gpa, &run);
		struct libvhost_iov *iov = &w->iov[w->n_read + w->n_write];

		if (LV_UNLIKELY(!hva || !run))
			return violation(w, d, "the buffer is not (completely) in guest memory");
		if (LV_UNLIKELY(write && snap->maps[w->vq->tlb.last].flags & LIBVHOST_REGION_READONLY))
			return violation(w, d, "a writable buffer in read-only memory");
		if (LV_UNLIKELY(w->n_read + w->n_write == w->cap))
			return too_long(w);
		run = run < left ? run : left;
		*iov = (struct libvhost_iov){.base = hva, .len = (size_t)run};
		if (write)
			w->n_write++;
		else
			w->n_read++;
		gpa += run;
		left -= run;
	}
	if (write)
		w->write_len += d->len;
	else
		w->read_len += d->len;
	return 0;
}

/* packed is a constant where this is inlined. */
static LV_HOT int walk(struct walk *w, bool packed, uint32_t i)
{
	struct lv_desc d = {0};
	int rc;

	for (;;) {
		rc = fetch(w, packed, i, &d);
		if (rc < 0)
			return rc;
		if (d.flags & LV_DESC_INDIRECT) {
			rc = descend(w, &d);
			i = 0;
		} else {
			rc = append(w, &d);
			if (!next(w, packed, &d, &i))
				break;
		}
		if (rc < 0)
			return rc;
	}
	if (rc < 0)
		return rc;
	if (LV_UNLIKELY(w->read_len + w->write_len > 1ull << 32))
		return violation(w, &d, "the request is larger than 4 GiB");
	return 0;
}

static inline void fill_in(struct libvhost_chain *out, const struct walk *w, uint32_t head)
{
	out->head = head;
	out->n_read = w->n_read;
	out->n_write = w->n_write;
	out->read_len = w->read_len;
	out->write_len = w->write_len;
}

int lv_chain_walk(struct libvhost_vq *vq, uint16_t head, struct libvhost_chain *out)
{
	struct walk w = {.vq = vq,
			 .iov = out->iov,
			 .cap = out->iov_cap,
			 .head = head,
			 .swap = vq->ring.swap,
			 .base = vq->ring.desc,
			 .entries = vq->ring.num,
			 .left = vq->ring.num};
	int rc = walk(&w, false, head);

	if (rc == 0)
		fill_in(out, &w, head);
	return rc;
}

static int finish_packed(struct walk *w, struct libvhost_chain *out, struct lv_walked *walked)
{
	const struct libvhost_vq *vq = w->vq;
	const uint32_t id = lv_meta_id(vq->pdev.copies[w->last].meta);

	if (LV_UNLIKELY(id >= vq->opts.num || vq->pdev.taken[id].state != LV_HEAD_FREE))
		return lv_vq_break(w->vq, "slot %u: request with buffer id %u, which %s", w->head, id,
				   id >= vq->opts.num ? "does not exist" : "is still in flight");
	fill_in(out, w, id);
	*walked = (struct lv_walked){.descs = w->descs, .last = w->last};
	return 0;
}

int lv_chain_walk_packed(struct libvhost_vq *vq, struct libvhost_chain *out, struct lv_walked *walked)
{
	struct walk w = {.vq = vq,
			 .iov = out->iov,
			 .cap = out->iov_cap,
			 .packed = true,
			 .swap = true,
			 .head = vq->pdev.avail & LV_POS_SLOT,
			 .left = vq->pdev.free_count};
	int rc = walk(&w, true, vq->pdev.free_head);

	return rc < 0 ? rc : finish_packed(&w, out, walked);
}

int lv_chain_walk_copies(struct libvhost_vq *vq, uint32_t first, uint32_t descs, struct libvhost_chain *out,
			 struct lv_walked *walked)
{
	struct walk w = {.vq = vq,
			 .iov = out->iov,
			 .cap = out->iov_cap,
			 .packed = true,
			 .swap = true,
			 .left = descs,
			 .complete = true};
	int rc = walk(&w, true, first);

	if (rc == 0 && w.descs != descs)
		rc = lv_vq_break(vq, "a request in the inflight region ends after %u of %u descriptors", w.descs,
				 descs);
	return rc < 0 ? rc : finish_packed(&w, out, walked);
}
