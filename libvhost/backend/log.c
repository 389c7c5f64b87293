/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/*
 * The dirty log of the front-end. Data is logged while VHOST_F_LOG_ALL is set, used rings by the flag of their
 * addresses; neither does anything before a log has come. Queues rest while any of it changes, so that no worker ever
 * marks in a log that is gone.
 */
#include <errno.h>

#include "backend/device.h"
#include "memory/log.h"
#include "vring/vring.h"

static bool fits(const struct lv_session *s, const struct lv_log *log, const struct lv_ring *ring)
{
	struct libvhost_vq_layout l = {.size = sizeof(l)};

	return !(ring->addr.flags & LV_ADDR_LOG) || (libvhost_vq_layout(ring->num, s->features, &l) == 0 &&
						     lv_log_covers(log, ring->addr.log, l.used_bytes));
}

int lv_ring_check_log(const struct lv_session *s, const struct lv_ring *ring)
{
	const uint32_t flags = ring->addr.flags;
	uint64_t end;

	if (!flags)
		return 0;
	if (flags != LV_ADDR_LOG || !(s->wire.protocol_features & 1ull << LIBVHOST_PROTOCOL_F_LOG_SHMFD))
		return -EINVAL;
	/* front-ends may give the address before the log, but not one that no log can hold */
	if (__builtin_add_overflow(ring->addr.log, 8ull * ring->num + 6, &end))
		return -EINVAL;
	return !s->log || fits(s, s->log, ring) ? 0 : -EINVAL;
}

void lv_ring_apply_log(struct lv_session *s, struct lv_ring *ring)
{
	if (ring->vq)
		lv_vq_set_log(ring->vq, s->log, s->features & LV_F_LOG_ALL,
			      ring->addr.flags & LV_ADDR_LOG ? ring->addr.log : LV_NOT_LOGGED);
}

void lv_session_apply_log(struct lv_session *s)
{
	for (uint32_t q = 0; q < s->b->opts.num_queues; q++)
		lv_ring_apply_log(s, &s->rings[q]);
}

void lv_session_drop_log(struct lv_session *s)
{
	lv_log_put(s->log);
	s->log = NULL;
}

static int check_rings(const struct lv_session *s, const struct lv_log *log)
{
	for (uint32_t q = 0; q < s->b->opts.num_queues; q++)
		if (s->rings[q].has_addr && !fits(s, log, &s->rings[q]))
			return -EINVAL;
	return 0;
}

int lv_session_set_log(struct lv_session *s, struct libvhost_req *req)
{
	const struct libvhost_req_log *l = &req->arg.log;
	struct lv_log *log = NULL, *old = s->log;
	int rc;

	/* without LOG_SHMFD the message has an address in place of the file, which means nothing here */
	if (!(req->flags & LIBVHOST_REQ_HAS_FD))
		return -EINVAL;
	rc = lv_log_import(req->fd, l->offset, l->size, &log);
	if (rc == 0)
		rc = check_rings(s, log);
	if (rc == 0)
		rc = lv_rings_pause(s);
	if (rc == 0) {
		s->log = log;
		lv_session_apply_log(s);
		log = old;
	}
	lv_log_put(log);
	lv_rings_update(s);
	return rc;
}
