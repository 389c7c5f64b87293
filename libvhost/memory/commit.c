/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* What changes for all devices at once: the map, and whether there is a dirty log. */
#include <errno.h>

#include "memory/object.h"

/* ---- the map ---- */

static int make_map(struct libvhost_mem *mem, struct lv_change *c)
{
	if (!mem->next)
		return lv_fail(&mem->err, -EINVAL, LIBVHOST_EK_STATE, "%s: no transaction; call libvhost_mem_begin",
			       c->call);
	c->now = lv_snapshot_new(mem->next, mem->count, mem->generation + 1);
	return c->now ? 0 : lv_fail_sys(&mem->err, ENOMEM, "%s: no memory", c->call);
}

static uint64_t end_of(const struct lv_snapshot *map)
{
	const struct lv_map *last = map->count ? &map->maps[map->count - 1] : NULL;

	return last ? last->gpa + last->size : 0;
}

uint64_t lv_mem_log_bytes(const struct lv_snapshot *map)
{
	return lv_log_bytes(end_of(map));
}

/* Room in the log for all of the map, and memory behind it. */
static int cover(struct libvhost_mem *mem, const struct lv_change *c, struct lv_log *log)
{
	int rc = lv_log_grow(log, end_of(c->now));

	for (uint32_t i = 0; rc == 0 && i < c->now->count; i++)
		rc = lv_log_reserve(log, c->now->maps[i].gpa, c->now->maps[i].size);
	return rc < 0 ? lv_fail_sys(&mem->err, -rc, "%s: dirty log of %llu bytes: %s; nothing was changed", c->call,
				    (unsigned long long)lv_mem_log_bytes(c->now), lv_errno_name(-rc))
		      : 0;
}

int libvhost_mem_commit(struct libvhost_mem *mem, uint32_t timeout_ms, uint32_t *lost)
{
	struct lv_change c = {.call = "libvhost_mem_commit"};
	struct lv_log *log;
	uint32_t missing;
	int rc;

	if (!mem)
		return -EINVAL;
	rc = lv_change_enter(mem, &c, timeout_ms, make_map);
	if (rc < 0) {
		lv_snapshot_put(c.now);
		return rc;
	}
	rc = lv_change_prepare(mem, &c);
	log = atomic_load(&mem->log); /* nobody else changes it now */
	if (rc == 0 && log) {
		rc = cover(mem, &c, log);
		if (rc < 0)
			lv_change_unprepare(mem);
	}
	if (rc < 0) {
		lv_change_leave(mem, &c, false);
		lv_snapshot_put(c.now);
		return rc;
	}
	c.old = lv_mem_publish(mem, c.now);
	missing = lv_change_tell(mem, &c);
	lv_mem_retire(mem, c.old, NULL);
	lv_change_leave(mem, &c, true);
	if (lost)
		*lost = missing;
	return 0;
}

/* ---- the log ---- */

static int check_off(struct libvhost_mem *mem, struct lv_change *c)
{
	return atomic_load(&mem->log) ? lv_fail(&mem->err, -EALREADY, LIBVHOST_EK_STATE, "%s: it logs already", c->call)
				      : 0;
}

static int check_on(struct libvhost_mem *mem, struct lv_change *c)
{
	return atomic_load(&mem->log)
		       ? 0
		       : lv_fail(&mem->err, -EALREADY, LIBVHOST_EK_STATE, "%s: it does not log", c->call);
}

/* Takes the object and all clients for a change that leaves the map as it is. */
static int enter(struct libvhost_mem *mem, struct lv_change *c, uint32_t timeout_ms,
		 int (*check)(struct libvhost_mem *mem, struct lv_change *c))
{
	int rc = lv_change_enter(mem, c, timeout_ms, check);

	if (rc < 0)
		return rc;
	c->now = c->old = lv_mem_snapshot(mem);
	rc = lv_change_prepare(mem, c);
	if (rc < 0) {
		lv_snapshot_put(c->now);
		lv_change_leave(mem, c, false);
	}
	return rc;
}

static void leave(struct libvhost_mem *mem, struct lv_change *c)
{
	lv_snapshot_put(c->now);
	lv_change_leave(mem, c, false);
}

static int all_can_log(struct libvhost_mem *mem, const struct lv_change *c)
{
	char why[LIBVHOST_ERROR_TEXT / 2];
	uint32_t number = 0;

	for (struct lv_mem_client *n = mem->clients; n; n = n->next, number++) {
		int rc = n->ops->can_log(n->client, why, sizeof(why));

		if (rc < 0)
			return lv_fail(&mem->err, rc, LIBVHOST_EK_UNSUPPORTED, "%s: device %u: %s; nothing was changed",
				       c->call, number, why);
	}
	return 0;
}

int libvhost_mem_log_start(struct libvhost_mem *mem, uint32_t timeout_ms, uint32_t *lost)
{
	struct lv_change c = {.call = "libvhost_mem_log_start"};
	struct lv_log *log = NULL;
	uint32_t missing;
	int rc;

	if (!mem)
		return -EINVAL;
	rc = enter(mem, &c, timeout_ms, check_off);
	if (rc < 0)
		return rc;
	rc = all_can_log(mem, &c);
	if (rc == 0) {
		rc = lv_log_new(end_of(c.now), &log);
		rc = rc < 0 ? lv_fail_sys(&mem->err, -rc, "%s: a new log: %s; nothing was changed", c.call,
					  lv_errno_name(-rc))
			    : cover(mem, &c, log);
	}
	if (rc < 0) {
		lv_change_unprepare(mem);
		lv_log_put(log);
		leave(mem, &c);
		return rc;
	}
	atomic_store(&mem->log, log);
	missing = lv_change_tell(mem, &c);
	leave(mem, &c);
	if (lost)
		*lost = missing;
	return 0;
}

int libvhost_mem_log_stop(struct libvhost_mem *mem, uint32_t timeout_ms, uint32_t *lost)
{
	struct lv_change c = {.call = "libvhost_mem_log_stop"};
	struct lv_log *log;
	uint32_t missing;
	int rc;

	if (!mem)
		return -EINVAL;
	rc = enter(mem, &c, timeout_ms, check_on);
	if (rc < 0)
		return rc;
	log = atomic_exchange(&mem->log, NULL);
	missing = lv_change_tell(mem, &c);
	lv_mem_retire(mem, NULL, log); /* devices whose peer may still write hold on to it */
	leave(mem, &c);
	if (lost)
		*lost = missing;
	return 0;
}
