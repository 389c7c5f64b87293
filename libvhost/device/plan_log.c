/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/*
 * The dirty log in plans. On: SET_LOG_BASE, features with LOG_ALL, ring addresses with the log flag; off: features and
 * addresses without. A map that grows needs the larger log before it, one that shrinks tells the smaller size after it;
 * and back-ends that bind the log to the regions they have (rust-vmm's do) are told again behind new regions.
 */
#include "device/compile.h"

#include <errno.h>

const char *lv_plan_log_blocker(uint64_t offered, uint64_t protocol, uint32_t dialect)
{
	if (dialect == LIBVHOST_DIALECT_VDPA)
		return "a vDPA device does not tell which pages it writes";
	if (!(offered & LV_BIT(LV_F_LOG_ALL)))
		return "its peer does not offer a dirty log (feature bit 26, VHOST_F_LOG_ALL)";
	if (dialect == LIBVHOST_DIALECT_USER && !(protocol & LV_BIT(LIBVHOST_PROTOCOL_F_LOG_SHMFD)))
		return "its back-end takes no dirty log (protocol feature LOG_SHMFD), or the device was made not to "
		       "use "
		       "it";
	return NULL;
}

int lv_log_begin(struct lv_compile *c)
{
	struct lv_record *rec = c->env->rec;
	const char *why;

	rec->flags &= ~(uint32_t)LV_RF_LOG;
	rec->log_bytes = 0;
	if (!c->env->log)
		return 0;
	why = lv_plan_log_blocker(rec->offered[0], rec->protocol_acked, c->plan->dialect);
	if (why)
		return lv_fail(c->err, -ENOTSUP, LIBVHOST_EK_UNSUPPORTED,
			       "%s: the guest's memory is logged, but this device cannot: %s; end the migration first",
			       c->env->caps->peer, why);
	rec->flags |= LV_RF_LOG;
	return 0;
}

void lv_add_log_base(struct lv_compile *c)
{
	const struct lv_log *log = c->env->log;
	struct lv_record *rec = c->env->rec;
	struct libvhost_req *req;

	if (!(rec->flags & LV_RF_LOG))
		return;
	rec->log_bytes = lv_mem_log_bytes(c->env->mem);
	req = lv_add(c, LIBVHOST_OP_SET_LOG_BASE);
	req->arg.log.size = rec->log_bytes;
	if (c->plan->dialect == LIBVHOST_DIALECT_USER) {
		req->flags |= LIBVHOST_REQ_HAS_FD;
		req->fd = log->fd;
	} else {
		req->arg.log.base = (uint64_t)(uintptr_t)atomic_load(&log->bits);
	}
}

bool lv_log_switches(const struct lv_compile *c)
{
	return !c->env->log == !!(c->env->rec->flags & LV_RF_LOG);
}

void lv_log_before_map(struct lv_compile *c)
{
	if (c->env->log && !lv_log_switches(c) && lv_mem_log_bytes(c->env->mem) > c->env->rec->log_bytes)
		lv_add_log_base(c);
}

int lv_log_after_map(struct lv_compile *c, bool regions_added)
{
	int ret = 0;

	if (lv_log_switches(c))
		ret = lv_log_begin(c);
	else if (!c->env->log || (!regions_added && lv_mem_log_bytes(c->env->mem) == c->env->rec->log_bytes))
		return 0;
	if (!ret)
		lv_add_log_base(c);
	return ret;
}
