/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/*
 * One queue of a device that runs. Features and memory are the peer's already; the ring's place is confirmed before it
 * is kicked, as in a start.
 */
#include "device/compile.h"

#include <errno.h>

static int fail(struct lv_compile *c, int code, enum libvhost_error_kind kind, const char *why)
{
	struct lv_where where = LV_WHERE_NONE;

	where.queue = c->env->queue;
	return lv_fail_at(c->err, code, kind, &where, "%s: queue %u: %s", c->env->caps->peer, c->env->queue, why);
}

/* The region was handed over before: a queue that has no place in it could not be resumed. */
static bool has_inflight_place(const struct lv_record *rec, uint32_t queue)
{
	return !(rec->flags & LV_RF_INFLIGHT) ||
	       (queue < rec->inflight_queues && rec->queue[queue].num <= rec->inflight_num);
}

static int start(struct lv_compile *c)
{
	struct lv_record *rec = c->env->rec;
	struct lv_record_queue *q = &rec->queue[c->env->queue];
	uint32_t barrier;
	int ret;

	if (c->plan->step) {
		lv_mark_running(c);
		return 0;
	}
	lv_next_program(c, 1);
	q->flags &= ~(uint32_t)LV_RQ_HELD;
	if (!lv_queue_used(q))
		return fail(c, -EINVAL, LIBVHOST_EK_STATE, "it has no addresses, nothing to start");
	if (q->flags & LV_RQ_BASE_STALE)
		return fail(c, -EINVAL, LIBVHOST_EK_STATE,
			    "where it stopped is not known, starting would repeat or lose requests");
	if (!has_inflight_place(rec, c->env->queue))
		return fail(c, -EINVAL, LIBVHOST_EK_STATE,
			    "it has no place in the inflight region, which was made for fewer or smaller queues: stop "
			    "and start the device");
	lv_add_ring_sizes(c);
	ret = lv_add_ring_places(c);
	barrier = c->prog->count;
	lv_add_run(c);
	lv_barrier(c, barrier);
	return ret ? ret : 1;
}

static int stop(struct lv_compile *c)
{
	if (c->plan->step)
		return lv_take_bases(c);
	lv_next_program(c, 1);
	lv_add_disable(c);
	lv_add_get_bases(c);
	return c->prog->count ? 1 : 0;
}

/* The pieces that speak of all queues of a part see one that has only this. */
int lv_queue_plan(struct lv_compile *c)
{
	struct lv_plan_env one = *c->env;
	struct lv_compile alone = *c;

	one.first = c->env->queue;
	one.count = 1;
	alone.env = &one;
	return c->plan->kind == LV_PLAN_QUEUE_START ? start(&alone) : stop(&alone);
}
