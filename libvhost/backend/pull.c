/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/*
 * A back-end without workers: its caller serves the queues between two calls of dispatch. A queue that is not on loan
 * (lv_ring.on_worker) takes no new requests, but what was taken may still be pushed.
 */
#include <errno.h>

#include "backend/device.h"
#include "vring/vring.h"

int lv_pull_check(struct libvhost_backend *b, const struct libvhost_backend_opts *o)
{
	if (o->num_workers || o->worker || b->ops.serve || b->ops.on_request)
		return lv_fail(&b->ctx->err, -EINVAL, LIBVHOST_EK_ARGUMENT,
			       "back-end: LIBVHOST_BACKEND_PULL leaves out workers, ops.serve and ops.on_request");
	return 0;
}

/* Queues that broke while the caller had them: a worker would have said so. */
void lv_pull_reports(struct libvhost_backend *b)
{
	struct lv_session *s = &b->session;

	for (uint32_t q = 0; lv_pulled(b) && s->rings && q < b->opts.num_queues; q++)
		if (s->rings[q].vq && s->rings[q].vq->broken)
			lv_ring_failed(s, &s->rings[q], lv_vq_refusal(s->rings[q].vq));
}

/* Who could finish is not running now: the message waits, until the time is over. */
int lv_pull_drain(struct lv_session *s, struct lv_ring *ring)
{
	const uint64_t since = s->b->conn.held_since;

	if (!ring->vq->in_flight || ring->vq->broken ||
	    (since && lv_now(s->b->ctx) - since >= s->b->opts.timeout_ms * LV_NS_PER_MS))
		return 0;
	return lv_ring_pause(s, ring, 1) < 0 ? 0 : -EINPROGRESS;
}

static int find_queue(struct libvhost_backend *b, uint32_t queue, struct libvhost_vq **vq, int *kick_fd)
{
	const struct lv_ring *ring = b->session.rings ? &b->session.rings[queue] : NULL;
	struct lv_where where = LV_WHERE_NONE;

	where.queue = queue;
	if (!ring || !ring->vq)
		return -ENODATA; /* the usual state of many queues: no error to record */
	if (ring->broken || ring->vq->broken)
		return lv_fail_at(&b->err, -EBADMSG, LIBVHOST_EK_RING, &where, "back-end: queue %u is broken", queue);
	lv_eventfd_drain(ring->kick_fd);
	*vq = ring->vq;
	*kick_fd = ring->kick_fd;
	return 0;
}

int libvhost_backend_queue(struct libvhost_backend *b, uint32_t queue, struct libvhost_vq **vq, int *kick_fd)
{
	int rc;

	if (!b || !vq || !kick_fd)
		return -EINVAL;
	rc = lv_backend_lock(b);
	if (rc < 0)
		return rc;
	if (!lv_pulled(b) || queue >= b->opts.num_queues)
		rc = lv_fail(&b->err, -EINVAL, LIBVHOST_EK_ARGUMENT,
			     "back-end: no queue %u, or made without LIBVHOST_BACKEND_PULL", queue);
	else if ((rc = lv_backend_check_alive(b)) == 0)
		rc = find_queue(b, queue, vq, kick_fd);
	lv_backend_unlock(b);
	return rc;
}
