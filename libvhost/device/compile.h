/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* What the plans of all dialects share: compiling rings, reading results, checking peers. Private to plan*.c. */
#ifndef LV_DEVICE_COMPILE_H
#define LV_DEVICE_COMPILE_H

#include "device/features.h"
#include "device/plan.h"

/* One call of lv_plan_next(). */
struct lv_compile {
	struct lv_plan *plan;
	struct lv_plan_env *env;
	struct lv_program *prog;
	struct lv_errslot *err;
	uint32_t ring_base; /* queue of the device that is ring 0 on the wire */
	bool can_enable;    /* rings start disabled and SET_VRING_ENABLE may be sent */
};

/* 1 = run the program, 0 = done, negative = failed. prog still holds the results of the last one. */
typedef int (*lv_plan_step)(struct lv_compile *c);

/* What each dialect does for each kind of plan; NULL = it has no such plan. */
extern const lv_plan_step lv_user_plans[LV_PLAN_KINDS], lv_kernel_plans[LV_PLAN_KINDS], lv_vdpa_plans[LV_PLAN_KINDS];

/* Forgets the executed program and begins the next; plan->step becomes step. */
void lv_next_program(struct lv_compile *c, uint32_t step);
struct libvhost_req *lv_add(struct lv_compile *c, uint32_t op);
void lv_add_u64(struct lv_compile *c, uint32_t op, uint64_t value);
/* The last confirmed request op of the executed program; NULL = there is none. */
const struct libvhost_req *lv_done(const struct lv_program *prog, uint32_t op);
/* What it read; false = there is none, *value untouched. */
bool lv_result(const struct lv_program *prog, uint32_t op, uint64_t *value);

/* Requests from number at on are sent only when those before are confirmed. */
void lv_barrier(struct lv_compile *c, uint32_t at);

bool lv_carried(const struct lv_plan_env *env, uint32_t op); /* by the transport */

/* Queues. lv_queue_used(): set up with addresses; others are never spoken of. */
bool lv_queue_used(const struct lv_record_queue *q);
/* Before a start: something to start, known bases, features that the dialect carries (words) and negotiated. */
int lv_check_start(struct lv_compile *c, uint32_t words);
/* NUM of all, then BASE, ADDR, ERR and CALL of each: together, or one after the other. */
int lv_add_rings(struct lv_compile *c);
void lv_add_ring_sizes(struct lv_compile *c);
int lv_add_ring_places(struct lv_compile *c);
/* ADDR of those that run, for the log flag. */
int lv_add_running_addrs(struct lv_compile *c);
/* KICK for all, then ENABLE where the dialect has it. */
void lv_add_run(struct lv_compile *c);
/* ENABLE 1 where it is 1. */
void lv_add_enable_again(struct lv_compile *c);
/* ENABLE 0 where it was 1. */
void lv_add_disable(struct lv_compile *c);
/* GET_VRING_BASE of each running ring, and what came back. */
void lv_add_get_bases(struct lv_compile *c);
int lv_take_bases(struct lv_compile *c);
void lv_mark_running(struct lv_compile *c);
/* The device has stopped: takes what GET_VRING_BASE answered. */
int lv_end_stop(struct lv_compile *c);
/* Reset has ended: accepted features and queues of this part are forgotten. */
void lv_forget(struct lv_compile *c);

/* Offers (offers.c). Feature words as the executed program read them; false = it did not. */
bool lv_read_features(const struct lv_program *prog, uint64_t words[LIBVHOST_FEATURE_WORDS]);
/* Queue count and memory slots as read at connect, into the record. -ENOSPC: fewer queues than wanted. */
int lv_take_limits(struct lv_compile *c);
/* Resume: every answer in prog offers at least what the record remembers. -ENOTSUP, kind SHRUNK. */
int lv_check_resume(const struct lv_plan_env *env, const struct lv_program *prog, struct lv_errslot *err);
/* Configuration as a resumed peer has it now, into the record. */
void lv_take_config(struct lv_compile *c);
/* GET_CONFIG of the bytes the record remembers. */
void lv_add_config_probe(struct lv_compile *c);
/* Status as read back holds bit (FEATURES_OK, DRIVER_OK); true also when no status was read. */
int lv_check_status(struct lv_compile *c, uint64_t bit);

/* The inflight region (plan_inflight.c). Whether the next start has to ask for one. */
bool lv_inflight_due(const struct lv_compile *c);
struct libvhost_req *lv_add_get_inflight(struct lv_compile *c);
/* The answer, into the record. A peer that has none is fine, one that gives less than it was asked for is not. */
int lv_take_inflight(struct lv_compile *c);
/* The region in the record, if there is one, to the peer. */
void lv_add_set_inflight(struct lv_compile *c);
/* LV_PLAN_INFLIGHT of vhost-user. */
int lv_inflight_plan(struct lv_compile *c);

/* One queue (plan_queue.c): LV_PLAN_QUEUE_START and _STOP of vhost-user and the kernel. */
int lv_queue_plan(struct lv_compile *c);

/* Memory. */
uint64_t lv_region_addr(const struct lv_plan_env *env, const struct lv_map *map);
int lv_check_slots(struct lv_compile *c, uint32_t regions, uint32_t limit);
/* A new map must not move the rings that run. */
int lv_check_rings_stay(struct lv_compile *c);
/* peer (NULL = nothing) -> env->mem. */
void lv_map_changes(const struct lv_compile *c, const struct lv_snapshot *peer, struct lv_mem_diff *diff);
/* SET_MEM_TABLE of the given regions. */
void lv_add_table(struct lv_compile *c, const struct lv_map *maps, uint32_t count);

/* The dirty log (plan_log.c). Start and resume: the record says whether it is on from now on. -ENOTSUP. */
int lv_log_begin(struct lv_compile *c);
/* SET_LOG_BASE for the map to establish, if it is on. */
void lv_add_log_base(struct lv_compile *c);
/* While rings run: whether it goes on or off; what precedes and what follows a change of the map. If it switched,
 * features and addresses follow. */
bool lv_log_switches(const struct lv_compile *c);
void lv_log_before_map(struct lv_compile *c);
int lv_log_after_map(struct lv_compile *c, bool regions_added);

#endif
