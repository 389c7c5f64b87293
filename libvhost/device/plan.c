/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* The door of the plans: dispatch to a dialect, harvest, ring addresses. */
#include "device/compile.h"

#include <errno.h>
#include <string.h>
#include "vring/vring.h"

void lv_plan_begin(struct lv_plan *plan, enum lv_plan_kind kind, uint32_t dialect)
{
	*plan = (struct lv_plan){.kind = kind, .dialect = dialect};
}

static const lv_plan_step *plans_of(uint32_t dialect)
{
	switch (dialect) {
	case LIBVHOST_DIALECT_USER:
		return lv_user_plans;
	case LIBVHOST_DIALECT_KERNEL:
		return lv_kernel_plans;
	case LIBVHOST_DIALECT_VDPA:
		return lv_vdpa_plans;
	default:
		return NULL;
	}
}

static uint32_t ring_base(const struct lv_plan *plan, const struct lv_plan_env *env)
{
	return plan->dialect == LIBVHOST_DIALECT_USER ? 0 : env->first;
}

static bool can_enable(const struct lv_plan *plan, const struct lv_plan_env *env)
{
	if (plan->dialect == LIBVHOST_DIALECT_USER)
		return env->rec->offered[0] & LV_BIT(LV_F_PROTOCOL);
	return plan->dialect == LIBVHOST_DIALECT_VDPA;
}

int lv_plan_next(struct lv_plan *plan, struct lv_plan_env *env, struct lv_program *prog, struct lv_errslot *err)
{
	struct lv_compile c = {.plan = plan,
			       .env = env,
			       .prog = prog,
			       .err = err,
			       .ring_base = ring_base(plan, env),
			       .can_enable = can_enable(plan, env)};
	const lv_plan_step *steps = plans_of(plan->dialect);
	int ret;

	if (!steps)
		return lv_fail(err, -EINVAL, LIBVHOST_EK_ARGUMENT, "%s: no plans for dialect %u", env->caps->peer,
			       plan->dialect);
	ret = steps[plan->kind] ? steps[plan->kind](&c) : -EINVAL;
	if (ret == 1 && prog->nomem)
		return lv_fail(err, -ENOMEM, LIBVHOST_EK_NOMEM, "%s: out of memory for a program of %u requests",
			       env->caps->peer, prog->count);
	return ret;
}

/* A split ring's index has 16 bits; anything else is not a place where a ring can have stopped. */
static bool base_possible(bool packed, uint32_t num, uint64_t base)
{
	if (!packed)
		return base <= UINT16_MAX;
	return base <= UINT32_MAX && lv_packed_base_possible(lv_packed_full_base((uint32_t)base), num);
}

/* The record's queue of a ring request; NULL if the index is none of this part. */
static struct lv_record_queue *queue_of(const struct lv_plan_env *env, uint32_t first, const struct libvhost_req *req)
{
	uint32_t queue = req->index + first;

	return queue < env->rec->num_queues ? &env->rec->queue[queue] : NULL;
}

/* Stores a base that was read. False: it is impossible, the queue is as before. */
static bool take_base(struct lv_plan_env *env, struct lv_record_queue *q, uint64_t base)
{
	const bool packed = lv_queue_packed(env->rec);

	if (!base_possible(packed, q->num, base))
		return false;
	q->base = packed ? lv_packed_full_base((uint32_t)base) : (uint32_t)base;
	q->flags &= ~(uint32_t)(LV_RQ_RUNNING | LV_RQ_BASE_STALE);
	return true;
}

void lv_plan_harvest(struct lv_plan *plan, struct lv_plan_env *env, const struct lv_program *prog)
{
	uint32_t i;

	for (i = 0; i < prog->count; i++) {
		const struct libvhost_req *req = &prog->reqs[i];
		struct lv_record_queue *q = queue_of(env, ring_base(plan, env), req);

		if (!q)
			continue;
		if (req->op == LIBVHOST_OP_GET_VRING_BASE && req->state == LIBVHOST_REQ_DONE)
			take_base(env, q, req->result[0]);
		else if ((req->op == LIBVHOST_OP_SET_VRING_KICK || req->op == LIBVHOST_OP_VRING_KICK) &&
			 (req->state == LIBVHOST_REQ_DONE || req->state == LIBVHOST_REQ_UNKNOWN))
			q->flags |= LV_RQ_RUNNING;
	}
}

int lv_take_bases(struct lv_compile *c)
{
	uint32_t i;

	for (i = 0; i < c->prog->count; i++) {
		const struct libvhost_req *req = &c->prog->reqs[i];
		struct lv_where where = LV_WHERE_NONE;
		struct lv_record_queue *q;

		if (req->op != LIBVHOST_OP_GET_VRING_BASE)
			continue;
		q = queue_of(c->env, c->ring_base, req);
		if (q && take_base(c->env, q, req->result[0]))
			continue;
		where.op = req->op;
		where.queue = req->index + c->ring_base;
		where.request = i;
		return lv_fail_at(
			c->err, -EPROTO, LIBVHOST_EK_PROTOCOL, &where,
			lv_queue_packed(c->env->rec)
				? "%s: GET_VRING_BASE queue %u answered %#llx, where no packed ring of its "
				  "size can stop"
				: "%s: GET_VRING_BASE queue %u answered %#llx, a split ring stops at 0..0xffff",
			c->env->caps->peer, where.queue, (unsigned long long)req->result[0]);
	}
	return 0;
}

int lv_plan_explain(const struct lv_plan *plan, const struct lv_plan_env *env, const struct lv_program *prog,
		    struct lv_errslot *err)
{
	return plan->kind == LV_PLAN_RESUME ? lv_check_resume(env, prog, err) : 0;
}

static uint32_t addr_kind(const struct lv_plan_env *env)
{
	if (env->rec->protocol_acked & LV_BIT(LIBVHOST_PROTOCOL_F_GPA_ADDRESSES))
		return LIBVHOST_ADDR_GPA;
	return env->caps->addr_kind;
}

uint64_t lv_region_addr(const struct lv_plan_env *env, const struct lv_map *map)
{
	switch (addr_kind(env)) {
	case LIBVHOST_ADDR_COOKIE:
		return map->user_addr;
	case LIBVHOST_ADDR_HVA:
		return (uint64_t)(uintptr_t)map->hva;
	default:
		return map->gpa; /* an IOVA is the guest-physical address until there is an IOMMU */
	}
}

static bool in_iova_range(const struct lv_record *rec, uint64_t addr, uint64_t len)
{
	return !rec->iova_last || (addr >= rec->iova_first && addr + (len - 1) <= rec->iova_last);
}

int lv_plan_ring_addr(const struct lv_plan_env *env, uint64_t gpa, uint64_t len, uint64_t *addr)
{
	const struct lv_map *map = lv_find_gpa(env->mem, gpa, len);
	uint32_t kind = addr_kind(env);

	if (!map || (kind == LIBVHOST_ADDR_HVA && !map->hva) ||
	    (kind == LIBVHOST_ADDR_IOVA && !in_iova_range(env->rec, gpa, len)))
		return -EFAULT;
	*addr = lv_region_addr(env, map) + (gpa - map->gpa);
	return 0;
}
