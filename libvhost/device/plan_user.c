/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/*
 * vhost-user plans. Waits: connect 3, start 2, stop 1, resume 2, memory 1, reset 1.
 * Order of a start: features, memory, log, all rings | barrier | kicks, enables, DRIVER_OK.
 */
#include "device/compile.h"

#include <errno.h>

static bool speaks(const struct lv_compile *c, uint32_t protocol_bit)
{
	return c->env->rec->protocol_acked & LV_BIT(protocol_bit);
}

/* After the protocol features are chosen: everything else that does not depend on the guest. */
static void add_session(struct lv_compile *c)
{
	if (c->env->rec->offered[0] & LV_BIT(LV_F_PROTOCOL))
		lv_add_u64(c, LIBVHOST_OP_SET_PROTOCOL_FEATURES, c->env->rec->protocol_acked);
	if (speaks(c, LIBVHOST_PROTOCOL_F_MQ))
		lv_add(c, LIBVHOST_OP_GET_QUEUE_NUM);
	if (speaks(c, LIBVHOST_PROTOCOL_F_CONFIGURE_MEM_SLOTS))
		lv_add(c, LIBVHOST_OP_GET_MAX_MEM_SLOTS);
	lv_add(c, LIBVHOST_OP_SET_OWNER);
	if (speaks(c, LIBVHOST_PROTOCOL_F_BACKEND_REQ))
		lv_add(c, LIBVHOST_OP_SET_BACKEND_REQ_FD); /* the transport makes the channel */
}

static uint64_t choose(const struct lv_plan_env *env)
{
	const struct lv_protocol_choice choice = {
		.offered = env->rec->protocol_offered,
		.never = env->protocol_never,
		.dev_flags = env->dev_flags,
		.channel = env->caps->flags & LIBVHOST_TRANSPORT_BACKEND_CHANNEL,
		.on_request = env->has_on_request,
	};

	return lv_protocol_choose(&choice);
}

static int connect_features(struct lv_compile *c)
{
	struct lv_record *rec = c->env->rec;

	lv_read_features(c->prog, rec->offered);
	rec->status = 0;
	rec->protocol_offered = 0;
	rec->protocol_acked = 0;
	if (rec->offered[0] & LV_BIT(LV_F_PROTOCOL)) {
		lv_next_program(c, 2);
		lv_add(c, LIBVHOST_OP_GET_PROTOCOL_FEATURES);
		return 1;
	}
	lv_next_program(c, 3);
	add_session(c);
	return 1;
}

static int connect_plan(struct lv_compile *c)
{
	struct lv_record *rec = c->env->rec;
	int ret;

	switch (c->plan->step) {
	case 0:
		lv_next_program(c, 1);
		lv_add(c, LIBVHOST_OP_GET_FEATURES);
		return 1;
	case 1:
		return connect_features(c);
	case 2:
		lv_result(c->prog, LIBVHOST_OP_GET_PROTOCOL_FEATURES, &rec->protocol_offered);
		rec->protocol_acked = choose(c->env);
		lv_next_program(c, 3);
		add_session(c);
		return 1;
	default:
		ret = lv_take_limits(c);
		if (!ret)
			rec->flags |= LV_RF_NEGOTIATED;
		return ret;
	}
}

static int needs_fd(struct lv_compile *c, const struct lv_map *map)
{
	if (map->fd >= 0)
		return 0;
	return lv_fail(c->err, -ENOTSUP, LIBVHOST_EK_MEMORY,
		       "%s: region at %#llx, %#llx bytes, has no descriptor: a vhost-user back-end can only map shared "
		       "files",
		       c->env->caps->peer, (unsigned long long)map->gpa, (unsigned long long)map->size);
}

static int add_whole_table(struct lv_compile *c)
{
	const struct lv_snapshot *mem = c->env->mem;
	uint32_t i, count;
	struct lv_map *maps;
	int ret;

	maps = lv_program_alloc(c->prog, (mem->count + 1) * sizeof(*maps));
	if (!maps)
		return 0; /* nomem is set */
	count = lv_mem_merge(mem, maps, mem->count);
	ret = lv_check_slots(c, count, c->env->rec->max_regions);
	for (i = 0; i < count && !ret; i++)
		ret = needs_fd(c, &maps[i]);
	if (!ret)
		lv_add_table(c, maps, count);
	return ret;
}

static void add_region(struct lv_compile *c, uint32_t op, const struct lv_map *map)
{
	struct libvhost_req *req = lv_add(c, op);

	req->arg.region.gpa = map->gpa;
	req->arg.region.size = map->size;
	req->arg.region.user_addr = lv_region_addr(c->env, map);
	req->arg.region.mmap_offset = map->mmap_offset;
	if (op == LIBVHOST_OP_ADD_MEM_REG) { /* a removal carries none */
		req->flags |= LIBVHOST_REQ_HAS_FD;
		req->fd = map->fd;
	}
}

/* Removals from the end, then additions: the peer's table never holds more than both maps allow. */
static int add_changes(struct lv_compile *c, const struct lv_snapshot *peer)
{
	struct lv_mem_diff diff;
	uint32_t i;
	int ret = lv_check_slots(c, c->env->mem->count, c->env->rec->max_regions);

	if (ret)
		return ret;
	lv_map_changes(c, peer, &diff);
	for (i = diff.removed; i-- > 0;)
		add_region(c, LIBVHOST_OP_REM_MEM_REG, &peer->maps[diff.removed_at[i]]);
	for (i = 0; i < diff.added && !ret; i++) {
		const struct lv_map *map = &c->env->mem->maps[diff.added_at[i]];

		ret = needs_fd(c, map);
		if (!ret)
			add_region(c, LIBVHOST_OP_ADD_MEM_REG, map);
	}
	return ret;
}

static int add_memory(struct lv_compile *c, const struct lv_snapshot *peer)
{
	return speaks(c, LIBVHOST_PROTOCOL_F_CONFIGURE_MEM_SLOTS) ? add_changes(c, peer) : add_whole_table(c);
}

static void add_features(struct lv_compile *c)
{
	uint64_t words[LIBVHOST_FEATURE_WORDS];

	lv_features_wire(c->env->rec, LV_BIT(LV_F_PROTOCOL), words);
	lv_add_u64(c, LIBVHOST_OP_SET_FEATURES, words[0]);
}

/* Sizes of all rings, then the region, then the rest: DPDK looks at its rings when it gets SET_INFLIGHT_FD. */
static int add_rings(struct lv_compile *c)
{
	lv_add_ring_sizes(c);
	lv_add_set_inflight(c);
	return lv_add_ring_places(c);
}

/* First half of a start: nothing in it lets the peer touch guest memory. A first one ends before the inflight region is
 * there. */
static int add_setup(struct lv_compile *c, const struct lv_snapshot *peer)
{
	bool status = speaks(c, LIBVHOST_PROTOCOL_F_STATUS);
	int ret = lv_log_begin(c);

	if (ret)
		return ret;
	if (status)
		lv_add_u64(c, LIBVHOST_OP_SET_STATUS, LV_STATUS_HELLO);
	add_features(c);
	if (status) {
		lv_add_u64(c, LIBVHOST_OP_SET_STATUS, LV_STATUS_AGREED);
		lv_add(c, LIBVHOST_OP_GET_STATUS);
		c->env->rec->status = LV_STATUS_AGREED; /* also if the start fails: undoing it takes this back */
	}
	ret = add_memory(c, peer);
	lv_add_log_base(c);
	if (ret || !lv_inflight_due(c))
		return ret ? ret : add_rings(c);
	lv_add_ring_sizes(c);
	/* a back-end may have none for this kind of device: the guarantee is less then, the start is as good */
	lv_add_get_inflight(c)->flags |= LIBVHOST_REQ_OPTIONAL;
	return 0;
}

static void add_go(struct lv_compile *c)
{
	lv_add_run(c);
	if (speaks(c, LIBVHOST_PROTOCOL_F_STATUS))
		lv_add_u64(c, LIBVHOST_OP_SET_STATUS, LV_STATUS_LIVE);
}

/* Begins the second half after the first was confirmed. */
static int go(struct lv_compile *c, uint32_t next)
{
	int ret = lv_check_status(c, LV_STATUS_FEATURES_OK);

	if (ret)
		return ret;
	lv_next_program(c, next);
	add_go(c);
	return 1;
}

static int running(struct lv_compile *c)
{
	lv_mark_running(c);
	if (speaks(c, LIBVHOST_PROTOCOL_F_STATUS))
		c->env->rec->status = LV_STATUS_LIVE;
	return 0;
}

/* The rest of a first start, once the region's size is known. */
static int start_with_region(struct lv_compile *c)
{
	uint32_t barrier;
	int ret = lv_check_status(c, LV_STATUS_FEATURES_OK);

	if (!ret)
		ret = lv_take_inflight(c);
	if (ret)
		return ret;
	lv_next_program(c, 2);
	lv_add_set_inflight(c);
	ret = lv_add_ring_places(c);
	barrier = c->prog->count;
	add_go(c);
	lv_barrier(c, barrier);
	return ret ? ret : 1;
}

static int start_plan(struct lv_compile *c)
{
	bool asks;
	uint32_t barrier;
	int ret;

	switch (c->plan->step) {
	case 0:
		lv_next_program(c, 1);
		asks = lv_inflight_due(c);
		ret = lv_check_start(c, 1);
		if (!ret)
			ret = add_setup(c, c->env->peer_mem);
		if (ret)
			return ret;
		if (asks) {
			c->plan->step = 3;
			return 1;
		}
		if (speaks(c, LIBVHOST_PROTOCOL_F_STATUS))
			return 1; /* FEATURES_OK as read back decides */
		c->plan->step = 2;
		barrier = c->prog->count;
		add_go(c);
		lv_barrier(c, barrier);
		return 1;
	case 1:
		return go(c, 2);
	case 3:
		return start_with_region(c);
	default:
		return running(c);
	}
}

static void add_stop(struct lv_compile *c)
{
	lv_add_disable(c);
	lv_add_get_bases(c);
	if (speaks(c, LIBVHOST_PROTOCOL_F_STATUS) && c->env->rec->status)
		lv_add_u64(c, LIBVHOST_OP_SET_STATUS, 0);
}

static int stop_plan(struct lv_compile *c)
{
	if (c->plan->step == 0) {
		lv_next_program(c, 1);
		add_stop(c);
		if (c->prog->count)
			return 1;
	}
	return lv_end_stop(c);
}

static int reset_plan(struct lv_compile *c)
{
	if (c->plan->step == 0) {
		lv_next_program(c, 1);
		add_stop(c);
		if (speaks(c, LIBVHOST_PROTOCOL_F_RESET_DEVICE))
			lv_add(c, LIBVHOST_OP_RESET_DEVICE);
		if (c->prog->count)
			return 1;
	}
	lv_forget(c);
	return 0;
}

static int add_new_map(struct lv_compile *c)
{
	int ret = lv_check_rings_stay(c);

	if (ret)
		return ret;
	lv_log_before_map(c);
	return add_memory(c, c->env->peer_mem);
}

static int memory_plan(struct lv_compile *c)
{
	const bool switches = lv_log_switches(c);
	struct lv_mem_diff diff;
	int ret = 0;

	if (c->plan->step)
		return 0;
	lv_next_program(c, 1);
	lv_map_changes(c, c->env->peer_mem, &diff);
	if (diff.removed || diff.added)
		ret = add_new_map(c);
	if (!ret)
		ret = lv_log_after_map(c, diff.added);
	if (!ret && switches) {
		add_features(c);
		ret = lv_add_running_addrs(c);
		lv_add_enable_again(c); /* rust-vmm's older back-ends disable all rings when they are sent features */
	}
	return ret ? ret : c->prog->count > 0;
}

/* What the peer is, with remembered answers, and the setup of a start: the check follows before anything runs. */
static int resume_first(struct lv_compile *c)
{
	struct lv_record *rec = c->env->rec;
	int ret;

	rec->status = 0;
	lv_next_program(c, 1);
	lv_add(c, LIBVHOST_OP_GET_FEATURES);
	if (rec->offered[0] & LV_BIT(LV_F_PROTOCOL))
		lv_add(c, LIBVHOST_OP_GET_PROTOCOL_FEATURES);
	add_session(c);
	if (speaks(c, LIBVHOST_PROTOCOL_F_CONFIG))
		lv_add_config_probe(c);
	if (!(rec->flags & LV_RF_RUNNING))
		return 1;
	ret = lv_check_start(c, 1);
	if (!ret)
		ret = add_setup(c, NULL); /* whatever the old peer had, the new one has no memory */
	return ret ? ret : 1;
}

static int resume_plan(struct lv_compile *c)
{
	struct lv_record *rec = c->env->rec;
	int ret;

	if (!(rec->flags & LV_RF_NEGOTIATED)) {
		c->plan->kind = LV_PLAN_CONNECT;
		return connect_plan(c);
	}
	switch (c->plan->step) {
	case 0:
		return resume_first(c);
	case 1:
		ret = lv_check_resume(c->env, c->prog, c->err);
		if (!ret)
			ret = lv_take_limits(c);
		if (ret)
			return ret;
		lv_take_config(c);
		return rec->flags & LV_RF_RUNNING ? go(c, 2) : 0;
	default:
		return running(c);
	}
}

const lv_plan_step lv_user_plans[LV_PLAN_KINDS] = {
	[LV_PLAN_CONNECT] = connect_plan,
	[LV_PLAN_START] = start_plan,
	[LV_PLAN_STOP] = stop_plan,
	[LV_PLAN_RESUME] = resume_plan,
	[LV_PLAN_MEMORY] = memory_plan,
	[LV_PLAN_RESET] = reset_plan,
	[LV_PLAN_INFLIGHT] = lv_inflight_plan,
	[LV_PLAN_QUEUE_START] = lv_queue_plan,
	[LV_PLAN_QUEUE_STOP] = lv_queue_plan,
};
