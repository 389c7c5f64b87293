/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/*
 * Kernel vhost plans (net, vsock, scsi). Each descriptor is a whole vhost device: every part gets owner, features and
 * memory. What lets it run (NET_SET_BACKEND, VSOCK_SET_RUNNING, SCSI_SET_ENDPOINT) belongs to the device class and
 * comes after a start; it is taken back before a stop, which is why GET_VRING_BASE finds the rings at rest.
 */
#include "device/compile.h"

#include <errno.h>
#include <string.h>

static void add_offers(struct lv_compile *c)
{
	lv_add(c, LIBVHOST_OP_SET_OWNER);
	lv_add(c, LIBVHOST_OP_GET_FEATURES);
	if (lv_carried(c->env, LIBVHOST_OP_GET_FEATURES_ARRAY)) /* newer kernels, network only */
		lv_add(c, LIBVHOST_OP_GET_FEATURES_ARRAY)->flags |= LIBVHOST_REQ_OPTIONAL;
	lv_add(c, LIBVHOST_OP_GET_BACKEND_FEATURES)->flags |= LIBVHOST_REQ_OPTIONAL;
}

/* Further parts can only narrow what the first one offers. */
static void take_offers(struct lv_compile *c)
{
	struct lv_record *rec = c->env->rec;
	uint64_t words[LIBVHOST_FEATURE_WORDS], backend = 0;
	uint32_t i, end = c->env->first + (c->env->caps->max_queues ? c->env->caps->max_queues : c->env->count);

	lv_read_features(c->prog, words);
	lv_result(c->prog, LIBVHOST_OP_GET_BACKEND_FEATURES, &backend);
	for (i = 0; i < LIBVHOST_FEATURE_WORDS; i++)
		rec->offered[i] = c->env->lead ? words[i] : rec->offered[i] & words[i];
	rec->backend_offered = c->env->lead ? backend : rec->backend_offered & backend;
	rec->backend_acked = lv_backend_choose(rec->backend_offered);
	rec->max_queues = !c->env->lead && rec->max_queues > end ? rec->max_queues : end;
	rec->max_regions = c->env->caps->max_regions;
}

static int connect_plan(struct lv_compile *c)
{
	switch (c->plan->step) {
	case 0:
		lv_next_program(c, 1);
		add_offers(c);
		return 1;
	case 1:
		take_offers(c);
		lv_next_program(c, 2);
		if (c->env->rec->backend_acked) {
			lv_add_u64(c, LIBVHOST_OP_SET_BACKEND_FEATURES, c->env->rec->backend_acked);
			return 1;
		}
		break;
	}
	c->env->rec->flags |= LV_RF_NEGOTIATED;
	return 0;
}

static int add_memory(struct lv_compile *c)
{
	const struct lv_snapshot *mem = c->env->mem;
	uint32_t i;
	int ret = lv_check_slots(c, mem->count, c->env->rec->max_regions);

	for (i = 0; i < mem->count && !ret; i++)
		if (!mem->maps[i].hva)
			ret = lv_fail(c->err, -ENOTSUP, LIBVHOST_EK_MEMORY,
				      "%s: region at %#llx is not mapped in this process", c->env->caps->peer,
				      (unsigned long long)mem->maps[i].gpa);
	if (!ret)
		lv_add_table(c, mem->maps, mem->count);
	return ret;
}

static void add_features(struct lv_compile *c)
{
	uint64_t words[LIBVHOST_FEATURE_WORDS];

	lv_features_wire(c->env->rec, 0, words);
	if (words[1] | words[2] | words[3])
		memcpy(lv_add(c, LIBVHOST_OP_SET_FEATURES_ARRAY)->arg.features, words, sizeof(words));
	else
		lv_add_u64(c, LIBVHOST_OP_SET_FEATURES, words[0]);
}

static int add_setup(struct lv_compile *c)
{
	bool wide = lv_carried(c->env, LIBVHOST_OP_SET_FEATURES_ARRAY);
	int ret = lv_check_start(c, wide ? LIBVHOST_FEATURE_WORDS : 1);

	if (!ret)
		ret = lv_log_begin(c);
	if (ret)
		return ret;
	add_features(c);
	ret = add_memory(c);
	lv_add_log_base(c);
	return ret ? ret : lv_add_rings(c);
}

static int start_plan(struct lv_compile *c)
{
	uint32_t barrier;
	int ret;

	if (c->plan->step) {
		lv_mark_running(c);
		return 0;
	}
	lv_next_program(c, 1);
	ret = add_setup(c);
	barrier = c->prog->count;
	lv_add_run(c);
	lv_barrier(c, barrier);
	return ret ? ret : 1;
}

static int stop_plan(struct lv_compile *c)
{
	if (c->plan->step == 0) {
		lv_next_program(c, 1);
		lv_add_get_bases(c);
		if (c->prog->count)
			return 1;
	}
	return lv_end_stop(c);
}

/* There is nothing to reset: the class code has detached the rings, and the next start sets everything. */
static int reset_plan(struct lv_compile *c)
{
	int ret = stop_plan(c);

	if (!ret)
		lv_forget(c);
	return ret;
}

/* The kernel refuses a map, and LOG_ALL, that the log does not cover: it always comes first. */
static int memory_plan(struct lv_compile *c)
{
	const bool switches = lv_log_switches(c);
	struct lv_mem_diff diff;
	int ret = 0;

	if (c->plan->step)
		return 0;
	lv_next_program(c, 1);
	lv_map_changes(c, c->env->peer_mem, &diff);
	if (diff.removed || diff.added) {
		ret = lv_check_rings_stay(c);
		if (!ret)
			lv_log_before_map(c);
		ret = ret ? ret : add_memory(c);
	}
	if (!ret)
		ret = lv_log_after_map(c, false);
	if (!ret && switches) {
		add_features(c);
		ret = lv_add_running_addrs(c);
	}
	return ret ? ret : c->prog->count > 0;
}

static int resume_plan(struct lv_compile *c)
{
	struct lv_record *rec = c->env->rec;
	int ret;

	if (!(rec->flags & LV_RF_NEGOTIATED))
		return connect_plan(c);
	switch (c->plan->step) {
	case 0:
		lv_next_program(c, 1);
		add_offers(c);
		if (rec->backend_acked)
			lv_add_u64(c, LIBVHOST_OP_SET_BACKEND_FEATURES, rec->backend_acked);
		ret = rec->flags & LV_RF_RUNNING ? add_setup(c) : 0;
		return ret ? ret : 1;
	case 1:
		ret = lv_check_resume(c->env, c->prog, c->err);
		if (ret || !(rec->flags & LV_RF_RUNNING))
			return ret;
		lv_next_program(c, 2);
		lv_add_run(c);
		return 1;
	default:
		lv_mark_running(c);
		return 0;
	}
}

const lv_plan_step lv_kernel_plans[LV_PLAN_KINDS] = {
	[LV_PLAN_CONNECT] = connect_plan,      [LV_PLAN_START] = start_plan,	     [LV_PLAN_STOP] = stop_plan,
	[LV_PLAN_RESUME] = resume_plan,	       [LV_PLAN_MEMORY] = memory_plan,	     [LV_PLAN_RESET] = reset_plan,
	[LV_PLAN_QUEUE_START] = lv_queue_plan, [LV_PLAN_QUEUE_STOP] = lv_queue_plan,
};
