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

/*
 * Lives in registers: only what is inlined gets its address. A call that could change it would make each step of each
 * request write it to memory and wait to read it back.
 */
struct walk {
	struct libvhost_vq *vq;
	struct libvhost_iov *iov;
	uint32_t cap, n_read, n_write;
	uint64_t read_len, write_len;
	bool packed;		    /* a constant wherever a walk is inlined */
	bool inside;		    /* an indirect table */
	bool complete;		    /* packed: all copies are there */
	const struct lv_desc *base; /* the table, NULL when it is not contiguous and aligned in host memory */
	uint64_t table;		    /* its guest address when it is an indirect one */
	uint32_t entries, left;	    /* in the table; steps the walk may still take */
	uint32_t at;		    /* descriptor under inspection; in a packed ring: how many lie before it */
	uint32_t descs, last;	    /* packed: taken from the ring; copy of the last of them */
	uint16_t head;		    /* packed: slot of the first descriptor */
	int rc;			    /* of a walk that failed */
};

/* What messages say of where a walk is. */
struct place {
	uint32_t at;
	uint16_t head;
	bool packed, inside;
};

/* Number of the descriptor in its table or ring. */
static uint32_t number(const struct libvhost_vq *vq, struct place p)
{
	return p.packed && !p.inside ? lv_pos_next(vq->pdev.avail, p.at, vq->opts.num) & LV_POS_SLOT : p.at;
}

static inline uint16_t flags_of(bool packed, uint64_t meta)
{
	return packed ? lv_meta_flags(meta) : lv_split_flags(meta);
}

static LV_COLD int break_at(struct libvhost_vq *vq, struct place p, uint64_t addr, uint64_t meta, const char *what)
{
	return lv_vq_break(vq, "%s %u, %sdescriptor %u (address %#llx, length %u, flags %#x, %s %u): %s",
			   p.packed ? "slot" : "head", p.head, p.inside ? "indirect " : "", number(vq, p),
			   (unsigned long long)addr, lv_meta_len(meta), flags_of(p.packed, meta),
			   p.packed ? "id" : "next", p.packed ? lv_meta_id(meta) : lv_split_next(meta), what);
}

static LV_COLD int break_too_long(struct libvhost_vq *vq, struct place p, uint32_t cap)
{
	struct lv_where where = LV_WHERE_NONE;

	where.queue = vq->opts.index;
	vq->broken = true;
	return lv_fail_at(&vq->err, -E2BIG, LIBVHOST_EK_OUTPUT_TOO_SMALL, &where,
			  "queue %u: %s %u, %sdescriptor %u: the request has more than iov_cap = %u pieces; the queue "
			  "is broken until the device is reset",
			  vq->opts.index, p.packed ? "slot" : "head", p.head, p.inside ? "indirect " : "",
			  number(vq, p), cap);
}

static LV_HOT struct place place(const struct walk *w)
{
	return (struct place){.at = w->at, .head = w->head, .packed = w->packed, .inside = w->inside};
}

/* Ends the walk: false, and w->rc. d: the descriptor last read. */
static LV_HOT bool violation(struct walk *w, struct lv_copy d, const char *what)
{
	w->rc = break_at(w->vq, place(w), d.addr, d.meta, what);
	return false;
}

static LV_HOT bool too_long(struct walk *w)
{
	w->rc = break_too_long(w->vq, place(w), w->cap);
	return false;
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

static LV_HOT bool swapped(const struct walk *w)
{
	return w->packed || w->vq->ring.swap;
}

/* Descriptor i of a split ring or of an indirect table. */
static LV_HOT bool fetch_entry(struct walk *w, uint32_t i, struct lv_copy *d)
{
	struct lv_desc bytes; /* an indirect table may cross regions or be misaligned */

	w->at = i;
	if (LV_UNLIKELY(i >= w->entries || !w->left))
		return violation(w, *d, i >= w->entries ? "reached by a link out of the table" : "chain does not end");
	w->left--;
	if (LV_LIKELY(w->base != NULL)) {
		*d = lv_desc_load(swapped(w), &w->base[i]);
		return true;
	}
	if (!lv_desc_copy(swapped(w), w->vq->snap, w->table + (uint64_t)i * sizeof(bytes), &bytes))
		return violation(w, *d, "its indirect table is not mapped");
	*d = lv_desc_load(false, &bytes);
	return true;
}

/* The next descriptor of a packed ring, which is or becomes copy i. */
static LV_HOT bool fetch_copy(struct walk *w, uint32_t i, struct lv_copy *d)
{
	const struct lv_packed_device *p = &w->vq->pdev;

	w->at = w->descs;
	if (LV_UNLIKELY(!w->left))
		return violation(w, *d, "chain does not end, or descriptors are offered that are still in flight");
	if (LV_UNLIKELY(w->descs == p->staged && !w->complete && !lv_packed_read_ahead(w->vq)))
		return violation(w, *d, "chain goes on with a descriptor that is not available");
	w->left--;
	*d = p->copies[i];
	w->descs++;
	w->last = i;
	return true;
}

static LV_HOT bool fetch(struct walk *w, uint32_t i, struct lv_copy *d)
{
	return w->packed && !w->inside ? fetch_copy(w, i, d) : fetch_entry(w, i, d);
}

/* The descriptor behind d, which is number *i. virtio 1.2, 2.8.7: only WRITE and INDIRECT mean something in a table. */
static LV_HOT bool next(const struct walk *w, struct lv_copy d, uint32_t *i)
{
	if (w->packed && w->inside)
		return ++*i < w->entries;
	if (!(flags_of(w->packed, d.meta) & LV_DESC_NEXT))
		return false;
	*i = w->packed ? w->vq->pdev.link[*i] : lv_split_next(d.meta);
	return true;
}

/* Goes on in the table that d describes. virtio 1.2, 2.7.5.3: WRITE is ignored here, NEXT and nesting are forbidden. */
static LV_HOT bool descend(struct walk *w, struct lv_copy d)
{
	const uint32_t len = lv_meta_len(d.meta);
	const char *what = NULL;

	if (!w->vq->indirect_ok)
		what = "INDIRECT was not negotiated";
	else if (w->inside)
		what = "an indirect table inside an indirect table";
	else if (flags_of(w->packed, d.meta) & LV_DESC_NEXT)
		what = "INDIRECT and NEXT together";
	else if (!len || len % sizeof(struct lv_desc))
		what = "length of an indirect table is not a multiple of 16";
	else if (d.addr + len - 1 < d.addr)
		what = "address and length wrap";
	else if (w->packed && len / sizeof(struct lv_desc) > LV_INDIRECT_MAX)
		what = "an indirect table of more than 1024 descriptors";
	if (LV_UNLIKELY(what != NULL))
		return violation(w, d, what);
	w->inside = true;
	w->table = d.addr;
	w->entries = len / (uint32_t)sizeof(struct lv_desc);
	w->left = w->entries < LV_INDIRECT_MAX ? w->entries : LV_INDIRECT_MAX;
	w->base = lv_translate(w->vq->snap, &w->vq->tlb, d.addr, len);
	if ((uintptr_t)w->base % _Alignof(uint64_t))
		w->base = NULL;
	return true;
}

/* Appends the buffer of d, in as many pieces as it has regions. */
static LV_HOT bool append(struct walk *w, struct lv_copy d)
{
	const struct lv_snapshot *snap = w->vq->snap;
	const bool write = flags_of(w->packed, d.meta) & LV_DESC_WRITE;
	const uint64_t len = lv_meta_len(d.meta);
	uint64_t gpa = d.addr, left = len;

	if (LV_UNLIKELY(!write && w->n_write))
		return violation(w, d, "a readable buffer after a writable one");
	if (LV_UNLIKELY(left && gpa + left - 1 < gpa))
		return violation(w, d, "address and length wrap");
	if (!left)
		return true;
	do {
		const struct lv_map *m = lv_tlb_find(snap, &w->vq->tlb, gpa);
		uint64_t run;

		if (LV_UNLIKELY(!m))
			return violation(w, d, "the buffer is not (completely) in guest memory");
		if (LV_UNLIKELY(write && m->flags & LIBVHOST_REGION_READONLY))
			return violation(w, d, "a writable buffer in read-only memory");
		if (LV_UNLIKELY(w->n_read + w->n_write == w->cap))
			return too_long(w);
		run = m->size - (gpa - m->gpa);
		run = run < left ? run : left;
		w->iov[w->n_read + w->n_write] =
			(struct libvhost_iov){.base = m->hva + (gpa - m->gpa), .len = (size_t)run};
		if (write)
			w->n_write++;
		else
			w->n_read++;
		gpa += run;
		left -= run;
	} while (LV_UNLIKELY(left));
	if (write)
		w->write_len += len;
	else
		w->read_len += len;
	return true;
}

/* False: w->rc says why. */
static LV_HOT bool walk(struct walk *w, uint32_t i)
{
	struct lv_copy d = {0};

	for (;;) {
		if (!fetch(w, i, &d))
			return false;
		if (flags_of(w->packed, d.meta) & LV_DESC_INDIRECT) {
			if (!descend(w, d))
				return false;
			i = 0;
			continue;
		}
		if (!append(w, d))
			return false;
		if (!next(w, d, &i))
			break;
	}
	if (LV_UNLIKELY(w->read_len + w->write_len > 1ull << 32))
		return violation(w, d, "the request is larger than 4 GiB");
	return true;
}

static LV_HOT void fill_in(struct libvhost_chain *out, const struct walk *w, uint32_t head)
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
			 .base = vq->ring.desc,
			 .entries = vq->ring.num,
			 .left = vq->ring.num};

	if (!walk(&w, head))
		return w.rc;
	fill_in(out, &w, head);
	return 0;
}

static LV_HOT int finish_packed(struct walk *w, struct libvhost_chain *out, struct lv_walked *walked)
{
	const struct libvhost_vq *vq = w->vq;
	const uint32_t id = lv_meta_id(vq->pdev.copies[w->last].meta);

	if (LV_UNLIKELY(id >= vq->opts.num || vq->pdev.taken[id].state != LV_HEAD_FREE))
		return lv_vq_break(w->vq, "slot %u: request with buffer id %u, which %s", w->head, id,
				   id >= vq->opts.num ? "does not exist" : "is still in flight");
	fill_in(out, w, id);
	*walked = (struct lv_walked){.descs = w->descs, .last = w->last};
	return true;
}

int lv_chain_walk_packed(struct libvhost_vq *vq, struct libvhost_chain *out, struct lv_walked *walked)
{
	struct walk w = {.vq = vq,
			 .iov = out->iov,
			 .cap = out->iov_cap,
			 .packed = true,
			 .head = vq->pdev.avail & LV_POS_SLOT,
			 .left = vq->pdev.free_count};

	return walk(&w, vq->pdev.free_head) ? finish_packed(&w, out, walked) : w.rc;
}

int lv_chain_walk_copies(struct libvhost_vq *vq, uint32_t first, uint32_t descs, struct libvhost_chain *out,
			 struct lv_walked *walked)
{
	struct walk w = {
		.vq = vq, .iov = out->iov, .cap = out->iov_cap, .packed = true, .left = descs, .complete = true};

	if (!walk(&w, first))
		return w.rc;
	if (w.descs != descs)
		return lv_vq_break(vq, "a request in the inflight region ends after %u of %u descriptors", w.descs,
				   descs);
	return finish_packed(&w, out, walked);
}
