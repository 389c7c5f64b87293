/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* Which worker serves which queue. */
#include <errno.h>

#include "backend/device.h"

void lv_place_queues(struct libvhost_backend *b)
{
	for (uint32_t q = 0; b->opts.num_workers && q < b->opts.num_queues; q++)
		b->worker_of[q] = (uint8_t)(q % b->opts.num_workers);
}

struct libvhost_worker *lv_backend_worker(struct libvhost_backend *b, uint32_t queue)
{
	return b->workers[b->worker_of[queue]];
}

struct libvhost_worker *libvhost_backend_worker(struct libvhost_backend *b, uint32_t index)
{
	return b && index < b->opts.num_workers ? b->workers[index] : NULL;
}

static int check_move(struct libvhost_backend *b, uint32_t queue, uint32_t worker)
{
	int rc = lv_backend_check_alive(b);

	if (rc == 0 && (queue >= b->opts.num_queues || worker >= b->opts.num_workers))
		rc = lv_fail(&b->err, -EINVAL, LIBVHOST_EK_ARGUMENT,
			     "back-end: no queue %u or no worker %u; the device has %u queues and %u workers", queue,
			     worker, b->opts.num_queues, b->opts.num_workers);
	return rc;
}

/* What the worker says is better than what we could. */
static int refuse_move(struct libvhost_backend *b, const struct lv_ring *ring, uint32_t worker, int rc)
{
	struct libvhost_error e = {.size = sizeof(e)};
	struct lv_where where = LV_WHERE_NONE;

	where.queue = ring->index;
	libvhost_worker_error(b->workers[worker], &e);
	return lv_fail_at(&b->err, rc, e.kind, &where,
			  "back-end: queue %u stays on worker %u, worker %u refuses it: %s", ring->index,
			  b->worker_of[ring->index], worker, e.text);
}

/* The next worker looks at the ring when it gets it, so that kicks which went to the last one are not missed. */
static int change_worker(struct libvhost_backend *b, struct lv_ring *ring, uint32_t worker, uint32_t timeout_ms)
{
	const uint64_t deadline = lv_deadline(b->ctx, timeout_ms);
	const uint8_t before = b->worker_of[ring->index];
	const bool drain = ring->draining;
	int rc = lv_ring_pause(&b->session, ring, timeout_ms), back;

	if (rc < 0)
		return rc;
	b->worker_of[ring->index] = (uint8_t)worker;
	if (ring->broken) /* its handler had given up, which turned out only now */
		return 0;
	rc = lv_ring_lend(&b->session, ring, drain, lv_backend_left_ms(b, deadline));
	if (rc == 0)
		return 0;
	b->worker_of[ring->index] = before;
	rc = refuse_move(b, ring, worker, rc);
	back = lv_ring_lend(&b->session, ring, drain, b->opts.timeout_ms);
	if (back < 0)
		lv_ring_failed(&b->session, ring, back); /* now the former one is stuck, too */
	return rc;
}

static int move(struct libvhost_backend *b, uint32_t queue, uint32_t worker, uint32_t timeout_ms)
{
	struct lv_ring *ring = b->session.rings ? &b->session.rings[queue] : NULL;

	if (b->worker_of[queue] == worker)
		return 0;
	if (ring && ring->on_worker)
		return change_worker(b, ring, worker, timeout_ms);
	b->worker_of[queue] = (uint8_t)worker;
	return 0;
}

int libvhost_backend_move_queue(struct libvhost_backend *b, uint32_t queue, uint32_t worker, uint32_t timeout_ms)
{
	int rc;

	if (!b || timeout_ms > LV_TIMEOUT_MAX_MS)
		return -EINVAL;
	rc = lv_backend_lock(b);
	if (rc < 0)
		return rc;
	rc = check_move(b, queue, worker);
	if (rc == 0)
		rc = move(b, queue, worker, timeout_ms);
	lv_backend_unlock(b);
	return rc;
}
