/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* What both roles of a split ring share: finding it in guest memory, and looking at one that nobody runs. */
#include "vring/vring.h"

#include <errno.h>

int lv_split_map(struct libvhost_vq *vq, const struct lv_snapshot *snap)
{
	const struct libvhost_vq_opts *o = &vq->opts;
	struct libvhost_vq_layout l = {.size = sizeof(l)};
	struct lv_split_ring r = {.num = o->num, .swap = o->features & LV_F_VERSION_1};
	int rc = libvhost_vq_layout(o->num, o->features, &l);

	if (rc < 0)
		return rc;
	r.desc = lv_vq_area(vq, snap, "descriptor table", o->desc, l.desc_bytes, 8);
	r.avail = r.desc ? lv_vq_area(vq, snap, "available ring", o->avail, l.avail_bytes, l.avail_align) : NULL;
	r.used = r.avail ? lv_vq_area(vq, snap, "used ring", o->used, l.used_bytes, l.used_align) : NULL;
	if (!r.used)
		return -EFAULT;
	vq->ring = r;
	return 0;
}

static int read_idx(const struct lv_snapshot *snap, uint64_t gpa, uint16_t *idx)
{
	const struct lv_split_ring r = {.swap = true};
	struct lv_tlb tlb = {0};
	const struct lv_ring_hdr *hdr = lv_translate(snap, &tlb, gpa, sizeof(*hdr));

	if (!hdr || (uintptr_t)hdr % _Alignof(struct lv_ring_hdr))
		return -EFAULT;
	*idx = lv_ring_idx(&r, hdr);
	return 0;
}

int lv_split_used_idx(const struct lv_snapshot *snap, uint64_t used_gpa, uint16_t *idx)
{
	return read_idx(snap, used_gpa, idx);
}

uint32_t lv_split_in_flight(const struct lv_snapshot *snap, uint64_t avail_gpa, uint64_t used_gpa, uint16_t base,
			    uint32_t num)
{
	uint16_t avail, used, taken;

	if (read_idx(snap, avail_gpa, &avail) < 0 || read_idx(snap, used_gpa, &used) < 0)
		return 0;
	taken = (uint16_t)(base - used);
	return taken <= num && (uint16_t)(avail - base) <= num ? taken : 0;
}

int lv_split_has_work(const struct lv_snapshot *snap, uint64_t avail_gpa, uint16_t base)
{
	uint16_t idx;
	int rc = read_idx(snap, avail_gpa, &idx);

	return rc < 0 ? rc : idx != base;
}
