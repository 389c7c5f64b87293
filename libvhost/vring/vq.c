/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* The virtqueue object: options, life, memory snapshots, and the public calls in front of the ring formats. */
#include "vring/vring.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "core/opts.h"
#include "core/sigbus.h"
#include "core/wire.h"
#include "vring/inflight.h"

#define IOV_MAX_CAP 1024u

int libvhost_vq_layout(uint32_t num, uint64_t features, struct libvhost_vq_layout *layout)
{
	const bool packed = features & LV_F_RING_PACKED;
	const uint64_t event = features & LV_F_EVENT_IDX ? sizeof(uint16_t) : 0;
	struct libvhost_vq_layout l = {.size = sizeof(l), .desc_align = 16, .avail_align = 2, .used_align = 4};

	if (!num || num > LV_RING_MAX || (!packed && (num & (num - 1))))
		return -EINVAL;
	l.desc_bytes = (uint64_t)num * sizeof(struct lv_desc);
	l.avail_bytes = sizeof(struct lv_ring_hdr) + (uint64_t)num * sizeof(uint16_t) + event;
	l.used_bytes = sizeof(struct lv_ring_hdr) + (uint64_t)num * sizeof(struct lv_used_elem) + event;
	if (packed) {
		l.avail_align = 4;
		l.avail_bytes = l.used_bytes = 4; /* event suppression structures, virtio 1.2, 2.8.10 */
	}
	return LV_OUT_WRITE(layout, &l);
}

/* Breaks the queue if the peer took its memory away. -EFAULT, or 0. */
static LV_COLD int break_if_cut(struct libvhost_vq *vq)
{
	struct lv_where where = LV_WHERE_NONE;
	const struct lv_map *m = lv_snapshot_cut(vq->snap);

	if (!m && !lv_sigbus_is_cut(vq->inflight_guarded))
		return 0;
	vq->broken = vq->memory_cut = true;
	where.queue = vq->opts.index;
	if (!m)
		return lv_fail_at(&vq->err, -EFAULT, LIBVHOST_EK_MEMORY, &where,
				  "queue %u: the file of the inflight region was cut off; start anew with another one",
				  vq->opts.index);
	return lv_fail_at(
		&vq->err, -EFAULT, LIBVHOST_EK_MEMORY, &where,
		"queue %u: the file of memory region gpa %#llx size %#llx was cut off under its mapping; start "
		"the queue again on new memory",
		vq->opts.index, (unsigned long long)m->gpa, (unsigned long long)m->size);
}

int lv_vq_break(struct libvhost_vq *vq, const char *fmt, ...)
{
	struct lv_where where = LV_WHERE_NONE;
	char what[LIBVHOST_ERROR_TEXT / 2];
	va_list args;

	if (break_if_cut(vq) < 0)
		return -EFAULT;
	va_start(args, fmt);
	vsnprintf(what, sizeof(what), fmt, args);
	va_end(args);
	where.queue = vq->opts.index;
	vq->broken = true;
	return lv_fail_at(&vq->err, -EBADMSG, LIBVHOST_EK_RING, &where,
			  "queue %u (%u entries): %s; the queue is broken until the device is reset", vq->opts.index,
			  vq->opts.num, what);
}

int lv_order_init(struct lv_order *order, uint32_t size)
{
	*order = (struct lv_order){.size = size};
	if (!size)
		return 0;
	order->ids = calloc(size, sizeof(*order->ids));
	return order->ids ? 0 : -ENOMEM;
}

void lv_order_destroy(struct lv_order *order)
{
	free(order->ids);
}

int lv_vq_signal(struct libvhost_vq *vq, bool given, int fd)
{
	int rc = given ? lv_eventfd_signal(fd) : 0;

	if (rc == -EAGAIN) /* the counter is full: a notification is pending anyway */
		rc = 0;
	if (rc < 0)
		vq->notify_errors++;
	else
		vq->notifications++;
	return rc;
}

void *lv_vq_area(struct libvhost_vq *vq, const struct lv_snapshot *snap, const char *name, uint64_t gpa, uint64_t bytes,
		 uint32_t align)
{
	struct lv_where where = LV_WHERE_NONE;
	struct lv_tlb tlb = {0};
	void *hva = lv_translate(snap, &tlb, gpa, bytes);
	const char *why = NULL;

	/* a file mapped at an odd guest address moves every alignment: host addresses count for atomics */
	if (!hva)
		why = "is not mapped in one region";
	else if ((uintptr_t)hva % align)
		why = "is misaligned in host memory";
	else if (lv_find_gpa(snap, gpa, bytes)->flags & LIBVHOST_REGION_READONLY)
		why = "is in a read-only region";
	if (!why)
		return hva;
	where.queue = vq->opts.index;
	lv_fail_at(&vq->err, -EFAULT, LIBVHOST_EK_RING, &where,
		   "queue %u: %s at guest address %#llx (%llu bytes) %s; check ring addresses and memory map",
		   vq->opts.index, name, (unsigned long long)gpa, (unsigned long long)bytes, why);
	return NULL;
}

/* Makes snap the current snapshot. Old ones stay mapped while requests popped under them are in flight. */
static void adopt(struct libvhost_vq *vq, struct lv_snapshot *snap)
{
	if (vq->holds && vq->holds[vq->hold].users) {
		for (vq->hold = 0; vq->holds[vq->hold].users; vq->hold++)
			; /* num + 1 holds, at most num requests in flight: one is free */
		lv_snapshot_put(vq->holds[vq->hold].snap); /* left over by a worker, or NULL */
	} else {
		lv_snapshot_put(vq->snap);
	}
	vq->snap = snap;
	if (vq->holds)
		vq->holds[vq->hold].snap = snap;
}

void lv_vq_let_go(struct libvhost_vq *vq, struct lv_hold *h)
{
	vq->left_over |= vq->lent;
	if (vq->lent)
		return;
	lv_snapshot_put(h->snap);
	h->snap = NULL;
}

void lv_vq_lend(struct libvhost_vq *vq, bool lent)
{
	vq->lent = lent;
	if (lent || !vq->left_over)
		return;
	vq->left_over = false;
	for (uint32_t i = 0; i <= vq->opts.num; i++) {
		if (vq->holds[i].users || i == vq->hold)
			continue;
		lv_snapshot_put(vq->holds[i].snap);
		vq->holds[i].snap = NULL;
	}
}

static LV_COLD int look_for_cuts(struct libvhost_vq *vq)
{
	vq->mended = lv_sigbus_mended();
	return vq->mended ? break_if_cut(vq) : 0;
}

static LV_COLD int refresh(struct libvhost_vq *vq)
{
	struct lv_snapshot *now = lv_mem_snapshot(vq->mem);

	vq->tlb = (struct lv_tlb){0};
	if (vq->ops->map(vq, now) < 0) {
		struct libvhost_error e = {.size = sizeof(e)};

		lv_snapshot_put(now);
		lv_errslot_read(&vq->err, &e);
		return lv_vq_break(vq, "guest memory changed under the ring: %.120s", e.text);
	}
	adopt(vq, now);
	return look_for_cuts(vq);
}

static LV_COLD int catch_up(struct libvhost_vq *vq)
{
	if (vq->broken)
		return lv_vq_refusal(vq);
	return lv_mem_is_current(vq->current, vq->snap) ? look_for_cuts(vq) : refresh(vq);
}

/*
 * First line of every call that touches guest memory: one snapshot per call, looked up again only when it changed. What
 * has left the map may be cut off without breaking anything, so cuts come second. 0 or negative.
 */
static inline int enter(struct libvhost_vq *vq)
{
	return LV_UNLIKELY(vq->broken || !lv_mem_is_current(vq->current, vq->snap) || lv_sigbus_mended() != vq->mended)
		       ? catch_up(vq)
		       : 0;
}

static int check_opts(struct libvhost_ctx *ctx, struct libvhost_vq_opts *o)
{
	const uint32_t known = LIBVHOST_VQ_HAS_KICK | LIBVHOST_VQ_HAS_CALL | LIBVHOST_VQ_RESUME | LIBVHOST_VQ_HAS_BASE;
	const bool packed = o->features & LV_F_RING_PACKED;
	const char *wrong = NULL;

	if (packed && o->flags & LIBVHOST_VQ_RESUME)
		return lv_fail(&ctx->err, -ENOTSUP, LIBVHOST_EK_UNSUPPORTED,
			       "queue %u: a packed ring cannot be resumed: which requests are in flight is not in its "
			       "memory; drain the old driver and start a new ring",
			       o->index);
	if (packed && !(o->flags & LIBVHOST_VQ_HAS_BASE))
		o->base = LV_PACKED_BASE;
	if (o->flags & ~known || o->reserved)
		wrong = "unknown flags, or reserved is not 0";
	else if (o->role > LIBVHOST_VQ_DEVICE)
		wrong = "role is neither driver nor device";
	else if (!o->num || o->num > LV_RING_MAX || (!packed && o->num & (o->num - 1)))
		wrong = "num must be 1 to 32768, and a power of two for a split ring";
	else if (!packed && o->base > UINT16_MAX)
		wrong = "base of a split ring has 16 bits";
	else if (packed && lv_packed_distance(o->base, o->num) < 0)
		wrong = "no packed ring of this size can be at base";
	else if (packed && o->role == LIBVHOST_VQ_DRIVER && o->base != lv_pos_base((uint16_t)o->base))
		wrong = "a driver's ring starts empty: both halves of base must be equal";
	else if (o->max_chain > o->num)
		wrong = "max_chain is above num";
	else if (o->role == LIBVHOST_VQ_DEVICE && (o->indirect || o->max_chain || (o->flags & LIBVHOST_VQ_RESUME)))
		wrong = "indirect, max_chain and RESUME are for the driver role";
	else if (o->indirect && !(o->features & LV_F_INDIRECT_DESC))
		wrong = "indirect memory given without feature INDIRECT_DESC";
	else if (o->desc % 16 || o->avail % (packed ? 4 : 2) || o->used % 4 || o->indirect % 16)
		wrong = "ring areas are misaligned: desc and indirect 16, avail 2 (packed 4), used 4 bytes";
	if (wrong)
		return lv_fail(&ctx->err, -EINVAL, LIBVHOST_EK_ARGUMENT, "queue %u (num %u): %s", o->index, o->num,
			       wrong);
	if (!o->max_chain)
		o->max_chain = o->num;
	return 0;
}

/* Everything after the object exists; libvhost_vq_free() undoes whatever was reached. */
static int set_up(struct libvhost_vq *vq)
{
	int rc = vq->ops->map(vq, vq->snap);

	if (rc < 0)
		return rc;
	if (vq->opts.role == LIBVHOST_VQ_DEVICE) {
		vq->holds = calloc((size_t)vq->opts.num + 1, sizeof(*vq->holds));
		if (!vq->holds)
			return -ENOMEM;
		vq->holds[0].snap = vq->snap;
	}
	return vq->ops->init(vq);
}

int lv_vq_begin(struct libvhost_vq *vq)
{
	if (vq->begun || !vq->ops->begin)
		return 0;
	vq->begun = true;
	return vq->ops->begin(vq);
}

int libvhost_vq_new(struct libvhost_ctx *ctx, struct libvhost_mem *mem, const struct libvhost_vq_opts *opts,
		    struct libvhost_vq **ret)
{
	struct libvhost_vq *vq = NULL;
	int rc = ret ? lv_vq_prepare(ctx, mem, opts, &vq) : -EINVAL;

	if (!vq)
		return rc;
	rc = lv_vq_begin(vq);
	if (rc < 0) {
		lv_fail_copy(&ctx->err, &vq->err);
		libvhost_vq_free(vq);
		return rc;
	}
	*ret = vq;
	return 0;
}

int lv_vq_prepare(struct libvhost_ctx *ctx, struct libvhost_mem *mem, const struct libvhost_vq_opts *opts,
		  struct libvhost_vq **ret)
{
	struct libvhost_vq_opts o;
	struct libvhost_vq *vq;
	int rc;

	if (!ctx || !mem || !opts || !ret)
		return -EINVAL;
	rc = LV_OPTS_READ(&ctx->err, &o, opts);
	if (rc < 0)
		return rc;
	rc = check_opts(ctx, &o);
	if (rc < 0)
		return rc;
	vq = calloc(1, sizeof(*vq));
	if (!vq)
		return lv_fail(&ctx->err, -ENOMEM, LIBVHOST_EK_NOMEM, "queue %u: out of memory", o.index);
	lv_errslot_init(&vq->err);
	vq->opts = o;
	vq->ctx = lv_ctx_ref(ctx);
	vq->mem = lv_mem_ref(mem);
	vq->snap = lv_mem_snapshot(mem);
	vq->current = lv_mem_current(mem);
	if (o.features & LV_F_RING_PACKED)
		vq->ops = o.role == LIBVHOST_VQ_DEVICE ? &lv_packed_device_ops : &lv_packed_driver_ops;
	else
		vq->ops = o.role == LIBVHOST_VQ_DEVICE ? &lv_split_device_ops : &lv_split_driver_ops;
	vq->event_idx = o.features & LV_F_EVENT_IDX;
	vq->indirect_ok = o.features & LV_F_INDIRECT_DESC;
	vq->in_order = o.features & LV_F_USED_IN_ORDER;
	vq->turn_ends = UINT64_MAX;
	rc = set_up(vq);
	if (rc < 0) {
		if (rc == -ENOMEM)
			lv_fail(&vq->err, rc, LIBVHOST_EK_NOMEM, "queue %u: out of memory", o.index);
		lv_fail_copy(&ctx->err, &vq->err);
		libvhost_vq_free(vq);
		return rc;
	}
	*ret = vq;
	return 0;
}

void libvhost_vq_free(struct libvhost_vq *vq)
{
	if (!vq)
		return;
	vq->ops->destroy(vq);
	if (vq->holds)
		for (uint32_t i = 0; i <= vq->opts.num; i++)
			if (vq->holds[i].snap && i != vq->hold)
				lv_snapshot_put(vq->holds[i].snap);
	free(vq->holds);
	lv_inflight_free(vq->inflight);
	lv_snapshot_put(vq->snap);
	libvhost_mem_free(vq->mem);
	lv_errslot_destroy(&vq->err);
	libvhost_ctx_free(vq->ctx);
	free(vq);
}

static int refuse(struct libvhost_vq *vq, const char *what)
{
	return vq ? lv_fail(&vq->err, -EINVAL, LIBVHOST_EK_ARGUMENT, "queue %u: %s", vq->opts.index, what) : -EINVAL;
}

int libvhost_vq_add(struct libvhost_vq *vq, const struct libvhost_buf *bufs, uint32_t n_read, uint32_t n_write,
		    uint64_t token)
{
	int rc;

	if (!vq || !vq->ops->add || !bufs)
		return refuse(vq, "add needs a driver queue and buffers");
	rc = enter(vq);
	return rc < 0 ? rc : vq->ops->add(vq, bufs, n_read, n_write, token);
}

int libvhost_vq_kick(struct libvhost_vq *vq)
{
	int rc;

	if (!vq || !vq->ops->kick)
		return refuse(vq, "kick needs a driver queue");
	rc = enter(vq);
	return rc < 0 ? rc : vq->ops->kick(vq);
}

int libvhost_vq_get_used(struct libvhost_vq *vq, struct libvhost_used *used, uint32_t *count)
{
	int rc;

	if (!vq || !vq->ops->get_used || !count || (!used && *count))
		return refuse(vq, "get_used needs a driver queue and room for results");
	rc = enter(vq);
	return rc < 0 ? rc : vq->ops->get_used(vq, used, count);
}

int libvhost_vq_notify_enable(struct libvhost_vq *vq, uint32_t on)
{
	int rc;

	if (!vq || on > 1)
		return refuse(vq, "notify_enable takes 0 or 1");
	rc = enter(vq);
	return rc < 0 ? rc : vq->ops->notify_enable(vq, on);
}

static LV_COLD int hold_back(struct libvhost_vq *vq)
{
	vq->cut_short = true;
	return 0;
}

int libvhost_vq_pop(struct libvhost_vq *vq, struct libvhost_chain *chain)
{
	int rc;

	if (!vq || !vq->ops->pop || !chain || chain->size < sizeof(*chain) || !chain->iov ||
	    chain->iov_cap - 1 >= IOV_MAX_CAP)
		return refuse(vq, "pop needs a device queue, chain.size, and an iov array of 1 to 1024 entries");
	rc = enter(vq);
	if (LV_UNLIKELY(rc < 0))
		return rc;
	return LV_UNLIKELY(vq->requests >= vq->turn_ends) ? hold_back(vq) : vq->ops->pop(vq, chain);
}

int libvhost_vq_push(struct libvhost_vq *vq, uint32_t head, uint64_t written)
{
	if (!vq || !vq->ops->push)
		return refuse(vq, "push needs a device queue");
	return vq->broken ? lv_vq_refusal(vq) : vq->ops->push(vq, head, written);
}

int libvhost_vq_wrote(struct libvhost_vq *vq, uint32_t head, uint64_t offset, uint64_t len)
{
	if (!vq || !vq->ops->wrote)
		return refuse(vq, "wrote needs a device queue");
	return vq->broken ? lv_vq_refusal(vq) : vq->ops->wrote(vq, head, offset, len);
}

int libvhost_vq_flush(struct libvhost_vq *vq)
{
	int rc;

	if (!vq || !vq->ops->flush)
		return refuse(vq, "flush needs a device queue");
	rc = enter(vq);
	return rc < 0 ? rc : vq->ops->flush(vq);
}

int libvhost_vq_info(struct libvhost_vq *vq, struct libvhost_vq_info *info)
{
	struct libvhost_vq_info i = {.size = sizeof(i)};

	if (!vq || !info)
		return -EINVAL;
	i.broken = enter(vq) < 0;
	i.base = vq->ops->base(vq);
	i.in_flight = vq->in_flight;
	i.requests = vq->requests;
	i.notifications = vq->notifications;
	i.notify_errors = vq->notify_errors;
	i.features = vq->opts.features;
	return LV_OUT_WRITE(info, &i);
}

int libvhost_vq_error(struct libvhost_vq *vq, struct libvhost_error *err)
{
	return vq ? lv_errslot_read(&vq->err, err) : -EINVAL;
}
