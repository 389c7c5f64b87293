/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* Pieces of programs that all dialects share. */
#include "device/compile.h"

#include <errno.h>

void lv_next_program(struct lv_compile *c, uint32_t step)
{
	lv_program_clear(c->prog);
	c->plan->step = step;
}

struct libvhost_req *lv_add(struct lv_compile *c, uint32_t op)
{
	return lv_program_add(c->prog, op, 0);
}

void lv_add_u64(struct lv_compile *c, uint32_t op, uint64_t value)
{
	lv_add(c, op)->arg.u64 = value;
}

const struct libvhost_req *lv_done(const struct lv_program *prog, uint32_t op)
{
	uint32_t i;

	for (i = prog->count; i-- > 0;)
		if (prog->reqs[i].op == op && prog->reqs[i].state == LIBVHOST_REQ_DONE)
			return &prog->reqs[i];
	return NULL;
}

bool lv_result(const struct lv_program *prog, uint32_t op, uint64_t *value)
{
	const struct libvhost_req *req = lv_done(prog, op);

	if (req)
		*value = req->result[0];
	return req;
}

void lv_barrier(struct lv_compile *c, uint32_t at)
{
	if (at && at < c->prog->count)
		c->prog->reqs[at].flags |= LIBVHOST_REQ_BARRIER;
}

bool lv_carried(const struct lv_plan_env *env, uint32_t op)
{
	return env->caps->ops[op / 64] & LV_BIT(op % 64);
}

/* A queue without addresses is one that the guest does not use. */
bool lv_queue_used(const struct lv_record_queue *q)
{
	return (q->flags & (LV_RQ_SET | LV_RQ_HELD)) == LV_RQ_SET && (q->desc || q->avail || q->used);
}

static uint32_t queues_end(const struct lv_compile *c)
{
	uint64_t end = (uint64_t)c->env->first + c->env->count;

	return end < c->env->rec->num_queues ? (uint32_t)end : c->env->rec->num_queues;
}

/* Queues of this part, as the loop variable q with its number in i. */
#define FOR_EACH_QUEUE(c, i, q)                                                                                        \
	for ((i) = (c)->env->first; (i) < queues_end(c) && ((q) = &(c)->env->rec->queue[(i)]); (i)++)

static struct libvhost_req *add_ring(struct lv_compile *c, uint32_t op, uint32_t queue)
{
	return lv_program_add(c->prog, op, queue - c->ring_base);
}

static int queue_fail(struct lv_compile *c, uint32_t queue, int code, enum libvhost_error_kind kind, const char *why)
{
	struct lv_where where = LV_WHERE_NONE;

	where.queue = queue;
	return lv_fail_at(c->err, code, kind, &where, "%s: queue %u: %s", c->env->caps->peer, queue, why);
}

int lv_check_start(struct lv_compile *c, uint32_t words)
{
	const struct lv_record *rec = c->env->rec;
	uint32_t i, used = 0;

	for (i = words; i < LIBVHOST_FEATURE_WORDS; i++)
		if (rec->acked[i])
			return lv_fail(c->err, -ENOTSUP, LIBVHOST_EK_UNSUPPORTED,
				       "%s: feature bit %d was accepted, but this transport carries %u bits",
				       c->env->caps->peer, (int)(i * 64) + __builtin_ctzll(rec->acked[i]), words * 64);
	for (i = 0; i < rec->num_queues; i++) {
		used += rec->queue[i].flags & LV_RQ_HELD ? 1 : lv_queue_used(&rec->queue[i]);
		if (!lv_queue_used(&rec->queue[i]))
			continue;
		if (rec->queue[i].flags & LV_RQ_BASE_STALE)
			return queue_fail(c, i, -EINVAL, LIBVHOST_EK_STATE,
					  "where it stopped is not known, starting would repeat or lose requests");
	}
	if (!used)
		return lv_fail(c->err, -EINVAL, LIBVHOST_EK_STATE, "%s: no queue is set up, nothing to start",
			       c->env->caps->peer);
	return 0;
}

/* Bytes of the three areas, virtio 1.3 sections 2.7 (split) and 2.8 (packed). */
static int ring_addrs(const struct lv_plan_env *env, const struct lv_record_queue *q, struct libvhost_vring_addr *addr)
{
	bool packed = env->rec->acked[0] & LV_BIT(LV_F_RING_PACKED);
	uint64_t num = q->num;
	int ret;

	ret = lv_plan_ring_addr(env, q->desc, 16 * num, &addr->desc);
	if (!ret)
		ret = lv_plan_ring_addr(env, q->avail, packed ? 4 : 6 + 2 * num, &addr->avail);
	if (!ret)
		ret = lv_plan_ring_addr(env, q->used, packed ? 4 : 6 + 8 * num, &addr->used);
	return ret;
}

static int add_addr(struct lv_compile *c, uint32_t queue, const struct lv_record_queue *q)
{
	struct libvhost_vring_addr addr = {0};

	if (ring_addrs(c->env, q, &addr))
		return queue_fail(c, queue, -EINVAL, LIBVHOST_EK_MEMORY,
				  "descriptor table, available or used ring is outside the memory that the device can "
				  "reach");
	/* for packed rings the specification says nothing; DPDK adds the place of a descriptor to it */
	if (c->env->rec->flags & LV_RF_LOG) {
		addr.flags = 1;
		addr.log = c->env->rec->acked[0] & LV_BIT(LV_F_RING_PACKED) ? q->desc : q->used;
	}
	add_ring(c, LIBVHOST_OP_SET_VRING_ADDR, queue)->arg.addr = addr;
	return 0;
}

static void add_ring_fd(struct lv_compile *c, uint32_t op, uint32_t queue, int fd)
{
	struct libvhost_req *req = add_ring(c, op, queue);

	if (fd >= 0) {
		req->flags |= LIBVHOST_REQ_HAS_FD;
		req->fd = fd;
	}
}

static int call_fd(const struct lv_record_queue *q, const struct lv_queue_fds *fds)
{
	if (q->flags & LV_RQ_CALL_POLL)
		return -1;
	return q->flags & LV_RQ_MASKED ? fds->masked : fds->call;
}

/* All sizes come first: back-ends count queues by them before anything else refers to a queue. */
int lv_add_rings(struct lv_compile *c)
{
	lv_add_ring_sizes(c);
	return lv_add_ring_places(c);
}

void lv_add_ring_sizes(struct lv_compile *c)
{
	const struct lv_record_queue *q;
	uint32_t i;

	FOR_EACH_QUEUE(c, i, q)
	if (lv_queue_used(q))
		add_ring(c, LIBVHOST_OP_SET_VRING_NUM, i)->arg.num = q->num;
}

int lv_add_ring_places(struct lv_compile *c)
{
	const struct lv_record_queue *q;
	uint32_t i;
	int ret;

	FOR_EACH_QUEUE(c, i, q)
	{
		if (!lv_queue_used(q))
			continue;
		add_ring(c, LIBVHOST_OP_SET_VRING_BASE, i)->arg.num = q->base;
		ret = add_addr(c, i, q);
		if (ret)
			return ret;
		if (q->flags & LV_RQ_IN_BAND)
			continue; /* a descriptor, and the word that there is none, are both preferred to messages */
		if (c->env->fds[i].err >= 0)
			add_ring_fd(c, LIBVHOST_OP_SET_VRING_ERR, i, c->env->fds[i].err);
		add_ring_fd(c, LIBVHOST_OP_SET_VRING_CALL, i, call_fd(q, &c->env->fds[i]));
	}
	return 0;
}

int lv_add_running_addrs(struct lv_compile *c)
{
	const struct lv_record_queue *q;
	uint32_t i;
	int ret = 0;

	FOR_EACH_QUEUE(c, i, q)
	if (!ret && (q->flags & LV_RQ_RUNNING))
		ret = add_addr(c, i, q);
	return ret;
}

/* Without SET_VRING_ENABLE a ring runs from its kick on, so a disabled one does not get it. */
static bool gets_kick(const struct lv_compile *c, const struct lv_record_queue *q)
{
	return lv_queue_used(q) && (c->can_enable || !(q->flags & LV_RQ_DISABLED));
}

/* The first kick by message starts a ring as a descriptor does (vhost-user, "Starting and stopping rings"). */
static void add_kick(struct lv_compile *c, uint32_t queue, const struct lv_record_queue *q)
{
	if (q->flags & LV_RQ_IN_BAND)
		add_ring(c, LIBVHOST_OP_VRING_KICK, queue);
	else
		add_ring_fd(c, LIBVHOST_OP_SET_VRING_KICK, queue,
			    q->flags & LV_RQ_KICK_POLL ? -1 : c->env->fds[queue].kick);
}

void lv_add_run(struct lv_compile *c)
{
	const struct lv_record_queue *q;
	uint32_t i;

	FOR_EACH_QUEUE(c, i, q)
	if (gets_kick(c, q))
		add_kick(c, i, q);
	FOR_EACH_QUEUE(c, i, q)
	if (c->can_enable && lv_queue_used(q) && !(q->flags & LV_RQ_DISABLED))
		add_ring(c, LIBVHOST_OP_SET_VRING_ENABLE, i)->arg.num = 1;
}

void lv_add_enable_again(struct lv_compile *c)
{
	const struct lv_record_queue *q;
	uint32_t i;

	FOR_EACH_QUEUE(c, i, q)
	if (c->can_enable && (q->flags & LV_RQ_RUNNING) && !(q->flags & LV_RQ_DISABLED))
		add_ring(c, LIBVHOST_OP_SET_VRING_ENABLE, i)->arg.num = 1;
}

void lv_add_disable(struct lv_compile *c)
{
	const struct lv_record_queue *q;
	uint32_t i;

	FOR_EACH_QUEUE(c, i, q)
	if (c->can_enable && (q->flags & LV_RQ_RUNNING) && !(q->flags & LV_RQ_DISABLED))
		add_ring(c, LIBVHOST_OP_SET_VRING_ENABLE, i)->arg.num = 0;
}

void lv_add_get_bases(struct lv_compile *c)
{
	const struct lv_record_queue *q;
	uint32_t i;

	FOR_EACH_QUEUE(c, i, q)
	if (q->flags & LV_RQ_RUNNING)
		add_ring(c, LIBVHOST_OP_GET_VRING_BASE, i);
}

void lv_mark_running(struct lv_compile *c)
{
	struct lv_record_queue *q;
	uint32_t i;

	FOR_EACH_QUEUE(c, i, q)
	if (gets_kick(c, q))
		q->flags |= LV_RQ_RUNNING;
	c->env->rec->flags |= LV_RF_RUNNING;
}

int lv_end_stop(struct lv_compile *c)
{
	struct lv_record_queue *q;
	int ret = lv_take_bases(c);
	uint32_t i;

	if (ret)
		return ret;
	FOR_EACH_QUEUE(c, i, q)
	if (q->flags & LV_RQ_RUNNING)
		q->flags = (q->flags & ~(uint32_t)LV_RQ_RUNNING) | LV_RQ_BASE_STALE;
	c->env->rec->flags &= ~(uint32_t)LV_RF_RUNNING;
	c->env->rec->status = 0;
	return 0;
}

void lv_forget(struct lv_compile *c)
{
	struct lv_record *rec = c->env->rec;
	struct lv_record_queue *q;
	uint32_t i;

	FOR_EACH_QUEUE(c, i, q)
	*q = (struct lv_record_queue){0};
	for (i = 0; i < LIBVHOST_FEATURE_WORDS; i++)
		rec->acked[i] = 0;
	rec->status = 0;
	rec->flags &= ~(uint32_t)(LV_RF_RUNNING | LV_RF_INFLIGHT);
}

int lv_check_slots(struct lv_compile *c, uint32_t regions, uint32_t limit)
{
	if (regions <= limit)
		return 0;
	return lv_fail(c->err, -ENOSPC, LIBVHOST_EK_NO_SLOT,
		       "%s: the memory map has %u regions, the back-end takes %u: use fewer, larger regions",
		       c->env->caps->peer, regions, limit);
}

int lv_check_rings_stay(struct lv_compile *c)
{
	const struct lv_plan_env *env = c->env;
	struct lv_plan_env before = *env;
	const struct lv_record_queue *q;
	uint32_t i;

	before.mem = env->peer_mem;
	FOR_EACH_QUEUE(c, i, q)
	{
		struct libvhost_vring_addr was = {0}, is = {0};

		if (!(q->flags & LV_RQ_RUNNING) || !before.mem || ring_addrs(&before, q, &was))
			continue;
		if (ring_addrs(env, q, &is) || was.desc != is.desc || was.avail != is.avail || was.used != is.used)
			return queue_fail(c, i, -EFAULT, LIBVHOST_EK_MEMORY,
					  "the new memory map moves or removes the rings while they run: stop the "
					  "device first");
	}
	return 0;
}

void lv_map_changes(const struct lv_compile *c, const struct lv_snapshot *peer, struct lv_mem_diff *diff)
{
	uint32_t i;

	if (peer) {
		lv_mem_diff(peer, c->env->mem, diff);
		return;
	}
	diff->removed = 0;
	diff->added = c->env->mem->count;
	for (i = 0; i < diff->added; i++)
		diff->added_at[i] = (uint16_t)i;
}

void lv_add_table(struct lv_compile *c, const struct lv_map *maps, uint32_t count)
{
	struct libvhost_region *table = lv_program_alloc(c->prog, (count ? count : 1) * sizeof(*table));
	struct libvhost_req *req;
	uint32_t i;

	for (i = 0; table && i < count; i++) {
		const struct lv_map *m = &maps[i];

		table[i] = (struct libvhost_region){
			.gpa = m->gpa,
			.size = m->size,
			.user_addr = lv_region_addr(c->env, m),
			.mmap_offset = m->mmap_offset,
			.fd = m->fd >= 0 ? m->fd : 0,
			.flags = (m->fd >= 0 ? LIBVHOST_REGION_HAS_FD : 0) | (m->flags & LIBVHOST_REGION_READONLY),
		};
	}
	req = lv_add(c, LIBVHOST_OP_SET_MEM_TABLE);
	req->arg.table.count = count;
	req->arg.table.stride = sizeof(*table);
	req->data_in = (uint64_t)(uintptr_t)table;
	req->data_in_len = count * (uint32_t)sizeof(*table);
}
