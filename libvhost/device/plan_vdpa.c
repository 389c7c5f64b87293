/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/*
 * vhost-vDPA plans. The device has the virtio status machine, its memory is an IOTLB filled by us (IOVA =
 * guest-physical address). Status 0 may empty the IOTLB of the device, unless the kernel promises IOTLB_PERSIST.
 */
#include "device/compile.h"

#include <errno.h>
#include <string.h>

enum { MAP_UPDATE = 2, MAP_INVALIDATE = 3, MAP_BATCH_BEGIN = 5, MAP_BATCH_END = 6 };
enum { PERM_READ = 1, PERM_READ_WRITE = 3 };

static bool has(const struct lv_compile *c, uint32_t backend_bit)
{
	return c->env->rec->backend_acked & LV_BIT(backend_bit);
}

static void add_offers(struct lv_compile *c)
{
	lv_add(c, LIBVHOST_OP_SET_OWNER);
	lv_add(c, LIBVHOST_OP_GET_FEATURES);
	lv_add(c, LIBVHOST_OP_GET_BACKEND_FEATURES);
	/* Kernels that lack these two have devices without these limits. */
	lv_add(c, LIBVHOST_OP_GET_QUEUE_NUM)->flags |= LIBVHOST_REQ_OPTIONAL;
	lv_add(c, LIBVHOST_OP_VDPA_GET_IOVA_RANGE)->flags |= LIBVHOST_REQ_OPTIONAL;
}

static int take_offers(struct lv_compile *c)
{
	const struct libvhost_req *range = lv_done(c->prog, LIBVHOST_OP_VDPA_GET_IOVA_RANGE);
	struct lv_record *rec = c->env->rec;

	lv_read_features(c->prog, rec->offered);
	rec->backend_offered = 0;
	lv_result(c->prog, LIBVHOST_OP_GET_BACKEND_FEATURES, &rec->backend_offered);
	rec->backend_acked = lv_backend_choose(rec->backend_offered);
	rec->iova_first = range ? range->result[0] : 0;
	rec->iova_last = range ? range->result[1] : 0;
	rec->status = 0;
	return lv_take_limits(c);
}

static int connect_plan(struct lv_compile *c)
{
	int ret;

	switch (c->plan->step) {
	case 0:
		lv_next_program(c, 1);
		add_offers(c);
		return 1;
	case 1:
		ret = take_offers(c);
		if (ret)
			return ret;
		lv_next_program(c, 2);
		lv_add_u64(c, LIBVHOST_OP_SET_BACKEND_FEATURES, c->env->rec->backend_acked);
		return 1;
	default:
		c->env->rec->flags |= LV_RF_NEGOTIATED;
		return 0;
	}
}

static void add_map(struct lv_compile *c, uint8_t type, const struct lv_map *map)
{
	struct libvhost_req *req = lv_add(c, LIBVHOST_OP_IOTLB_MSG);

	req->arg.iotlb.type = type;
	if (!map)
		return;
	req->arg.iotlb.iova = map->gpa;
	req->arg.iotlb.size = map->size;
	if (type == MAP_INVALIDATE)
		return;
	req->arg.iotlb.uaddr = (uint64_t)(uintptr_t)map->hva;
	req->arg.iotlb.perm = map->flags & LIBVHOST_REGION_READONLY ? PERM_READ : PERM_READ_WRITE;
}

static int check_map(struct lv_compile *c, const struct lv_map *map)
{
	const struct lv_record *rec = c->env->rec;
	uint64_t last = map->gpa + (map->size - 1);

	if (!map->hva)
		return lv_fail(c->err, -ENOTSUP, LIBVHOST_EK_MEMORY,
			       "%s: region at %#llx is not mapped in this process", c->env->caps->peer,
			       (unsigned long long)map->gpa);
	if (rec->iova_last && (map->gpa < rec->iova_first || last > rec->iova_last))
		return lv_fail(c->err, -ENOTSUP, LIBVHOST_EK_MEMORY,
			       "%s: region %#llx..%#llx is outside the addresses %#llx..%#llx that the device can use",
			       c->env->caps->peer, (unsigned long long)map->gpa, (unsigned long long)last,
			       (unsigned long long)rec->iova_first, (unsigned long long)rec->iova_last);
	return 0;
}

/*
 * After status 0 without IOTLB_PERSIST the device may have lost its mappings, while the kernel's own list, which is
 * kept until the descriptor is closed, still has them and refuses to map a range twice (EEXIST): all go out and in
 * again.
 */
static void all_changes(const struct lv_compile *c, const struct lv_snapshot *peer, struct lv_mem_diff *diff)
{
	uint32_t i;

	lv_map_changes(c, NULL, diff);
	diff->removed = peer ? peer->count : 0;
	for (i = 0; i < diff->removed; i++)
		diff->removed_at[i] = (uint16_t)i;
}

/* kept: the peer still has its map; otherwise it was reset since. */
static int add_memory(struct lv_compile *c, const struct lv_snapshot *peer, bool kept)
{
	struct lv_mem_diff diff;
	uint32_t i;
	int ret = 0;

	if (kept)
		lv_map_changes(c, peer, &diff);
	else
		all_changes(c, peer, &diff);
	if (!diff.removed && !diff.added)
		return 0;
	if (has(c, LV_BF_IOTLB_BATCH))
		add_map(c, MAP_BATCH_BEGIN, NULL);
	for (i = diff.removed; i-- > 0;)
		add_map(c, MAP_INVALIDATE, &peer->maps[diff.removed_at[i]]);
	for (i = 0; i < diff.added && !ret; i++) {
		ret = check_map(c, &c->env->mem->maps[diff.added_at[i]]);
		add_map(c, MAP_UPDATE, &c->env->mem->maps[diff.added_at[i]]);
	}
	if (has(c, LV_BF_IOTLB_BATCH))
		add_map(c, MAP_BATCH_END, NULL);
	return ret;
}

static int add_setup(struct lv_compile *c, const struct lv_snapshot *peer)
{
	uint64_t words[LIBVHOST_FEATURE_WORDS];
	int ret = lv_check_start(c, 1);

	if (!ret)
		ret = lv_log_begin(c);
	if (ret)
		return ret;
	/* The device's addresses are IOVAs by nature: it insists on ACCESS_PLATFORM, whatever the guest knows of it. */
	lv_features_wire(c->env->rec, LV_BIT(LV_F_ACCESS_PLATFORM), words);
	lv_add_u64(c, LIBVHOST_OP_SET_STATUS, 0);
	lv_add_u64(c, LIBVHOST_OP_SET_STATUS, LV_STATUS_HELLO);
	lv_add_u64(c, LIBVHOST_OP_SET_FEATURES, words[0]);
	lv_add_u64(c, LIBVHOST_OP_SET_STATUS, LV_STATUS_AGREED);
	lv_add(c, LIBVHOST_OP_GET_STATUS);
	ret = add_memory(c, peer, has(c, LV_BF_IOTLB_PERSIST));
	return ret ? ret : lv_add_rings(c);
}

/* Rings are enabled before DRIVER_OK: devices need ENABLE_AFTER_DRIVER_OK for the other order, none for this one. */
static int go(struct lv_compile *c, uint32_t next)
{
	int ret = lv_check_status(c, LV_STATUS_FEATURES_OK);
	struct libvhost_req *req;

	if (ret)
		return ret;
	lv_next_program(c, next);
	lv_add_run(c);
	if (c->env->config_call && *c->env->config_call >= 0) {
		req = lv_add(c, LIBVHOST_OP_VDPA_SET_CONFIG_CALL);
		req->flags |= LIBVHOST_REQ_HAS_FD;
		req->fd = *c->env->config_call;
	}
	lv_add_u64(c, LIBVHOST_OP_SET_STATUS, LV_STATUS_LIVE);
	lv_add(c, LIBVHOST_OP_GET_STATUS);
	return 1;
}

static int running(struct lv_compile *c)
{
	int ret = lv_check_status(c, LV_STATUS_DRIVER_OK);

	if (ret)
		return ret;
	lv_mark_running(c);
	c->env->rec->status = LV_STATUS_LIVE;
	return 0;
}

static int start_plan(struct lv_compile *c)
{
	int ret;

	switch (c->plan->step) {
	case 0:
		lv_next_program(c, 1);
		ret = add_setup(c, c->env->peer_mem);
		return ret ? ret : 1;
	case 1:
		return go(c, 2);
	default:
		return running(c);
	}
}

static void add_status_zero(struct lv_compile *c)
{
	lv_add_u64(c, LIBVHOST_OP_SET_STATUS, 0);
	if (c->env->config_call)
		lv_add(c, LIBVHOST_OP_VDPA_SET_CONFIG_CALL); /* without a descriptor: detach */
}

/* Bases can be trusted only of a suspended device; without SUSPEND they stay unknown (LV_RQ_BASE_STALE). */
static int stop_plan(struct lv_compile *c)
{
	if (c->plan->step == 0) {
		lv_next_program(c, 1);
		if (has(c, LV_BF_SUSPEND)) {
			lv_add(c, LIBVHOST_OP_VDPA_SUSPEND);
			lv_add_get_bases(c);
		}
		add_status_zero(c);
		return 1;
	}
	return lv_end_stop(c);
}

static int reset_plan(struct lv_compile *c)
{
	if (c->plan->step == 0) {
		lv_next_program(c, 1);
		add_status_zero(c);
		return 1;
	}
	lv_forget(c);
	return 0;
}

static int memory_plan(struct lv_compile *c)
{
	int ret;

	if (c->plan->step)
		return 0;
	lv_next_program(c, 1);
	ret = lv_check_rings_stay(c);
	if (!ret)
		ret = add_memory(c, c->env->peer_mem, true);
	return ret ? ret : c->prog->count > 0;
}

static int resume_first(struct lv_compile *c)
{
	struct lv_record *rec = c->env->rec;
	int ret;

	lv_next_program(c, 1);
	add_offers(c);
	lv_add_u64(c, LIBVHOST_OP_SET_BACKEND_FEATURES, rec->backend_acked);
	lv_add_config_probe(c);
	ret = rec->flags & LV_RF_RUNNING ? add_setup(c, NULL) : 0;
	return ret ? ret : 1;
}

static int resume_plan(struct lv_compile *c)
{
	struct lv_record *rec = c->env->rec;
	int ret;

	if (!(rec->flags & LV_RF_NEGOTIATED))
		return connect_plan(c);
	switch (c->plan->step) {
	case 0:
		return resume_first(c);
	case 1:
		ret = lv_check_resume(c->env, c->prog, c->err);
		if (ret)
			return ret;
		lv_take_config(c);
		rec->status = 0;
		return rec->flags & LV_RF_RUNNING ? go(c, 2) : 0;
	default:
		return running(c);
	}
}

/* A ring can be enabled after DRIVER_OK only with backend feature 6, and where it stopped is told only by a device that
 * is suspended as a whole. */
static int one_queue(struct lv_compile *c)
{
	struct lv_where where = LV_WHERE_NONE;

	where.queue = c->env->queue;
	return lv_fail_at(c->err, -ENOTSUP, LIBVHOST_EK_UNSUPPORTED, &where,
			  "%s: queue %u: a vDPA device starts and stops as a whole; stop and start the device",
			  c->env->caps->peer, c->env->queue);
}

const lv_plan_step lv_vdpa_plans[LV_PLAN_KINDS] = {
	[LV_PLAN_CONNECT] = connect_plan,  [LV_PLAN_START] = start_plan,     [LV_PLAN_STOP] = stop_plan,
	[LV_PLAN_RESUME] = resume_plan,	   [LV_PLAN_MEMORY] = memory_plan,   [LV_PLAN_RESET] = reset_plan,
	[LV_PLAN_QUEUE_START] = one_queue, [LV_PLAN_QUEUE_STOP] = one_queue,
};
