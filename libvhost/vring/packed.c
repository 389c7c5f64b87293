/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* What both roles of a packed ring share: finding it in guest memory, and looking at one that nobody runs. */
#include "vring/vring.h"

#include <errno.h>

int lv_packed_map(struct libvhost_vq *vq, const struct lv_snapshot *snap)
{
	const struct libvhost_vq_opts *o = &vq->opts;
	struct libvhost_vq_layout l = {.size = sizeof(l)};
	struct lv_packed_ring r = {.num = o->num};
	int rc = libvhost_vq_layout(o->num, o->features, &l);

	if (rc < 0)
		return rc;
	r.desc = lv_vq_area(vq, snap, "descriptor ring", o->desc, l.desc_bytes, 8);
	r.driver = r.desc ? lv_vq_area(vq, snap, "driver area", o->avail, l.avail_bytes, l.avail_align) : NULL;
	r.device = r.driver ? lv_vq_area(vq, snap, "device area", o->used, l.used_bytes, l.used_align) : NULL;
	if (!r.device)
		return -EFAULT;
	vq->packed = r;
	return 0;
}

bool lv_packed_base_possible(uint32_t base, uint32_t num)
{
	return lv_packed_distance(base, num) >= 0;
}

uint32_t lv_packed_full_base(uint32_t base)
{
	return base >> 16 ? base : lv_pos_base((uint16_t)base);
}

int lv_packed_has_work(const struct lv_snapshot *snap, uint64_t desc_gpa, uint32_t num, uint32_t base)
{
	const uint64_t slot = base & LV_POS_SLOT;
	struct lv_packed_ring r = {.num = num};
	struct lv_tlb tlb = {0};

	if (slot >= num)
		return -EFAULT;
	r.desc = lv_translate(snap, &tlb, desc_gpa + slot * sizeof(*r.desc), sizeof(*r.desc));
	if (!r.desc || (uintptr_t)r.desc % _Alignof(struct lv_packed_desc))
		return -EFAULT;
	return lv_meta_is(lv_packed_load(&r, 0), lv_avail_bits((uint16_t)base));
}
