/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/*
 * When a ring runs. A ring is started by its kick message and stopped by GET_VRING_BASE; with bit 30 it also has to be
 * enabled (vhost-user specification, "Ring states"). Messages may come in any order: each handler changes the state and
 * lets lv_ring_update() do what follows from it.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "backend/device.h"
#include "memory/mem.h"
#include "vring/vring.h"
#include "worker/worker.h"

int lv_rings_new(struct lv_session *s)
{
	const uint32_t n = s->b->opts.num_queues;

	if (!s->rings)
		s->rings = calloc(n, sizeof(*s->rings));
	if (!s->rings)
		return lv_fail(&s->b->err, -ENOMEM, LIBVHOST_EK_NOMEM, "back-end: out of memory");
	for (uint32_t q = 0; q < n; q++)
		s->rings[q] = (struct lv_ring){.index = q, .kick_fd = -1, .call_fd = -1, .err_fd = -1};
	return 0;
}

void lv_ring_clear(struct lv_ring *ring)
{
	lv_fd_close(ring->kick_fd);
	lv_fd_close(ring->call_fd);
	lv_fd_close(ring->err_fd);
	*ring = (struct lv_ring){.index = ring->index, .kick_fd = -1, .call_fd = -1, .err_fd = -1};
}

void lv_ring_reset(struct lv_ring *ring)
{
	const int call_fd = ring->call_fd, err_fd = ring->err_fd;

	ring->call_fd = ring->err_fd = -1;
	lv_ring_clear(ring);
	ring->call_fd = call_fd;
	ring->err_fd = err_fd;
}

static bool should_run(const struct lv_session *s, const struct lv_ring *ring)
{
	return s->open && s->features_set && ring->num && ring->has_addr && ring->has_kick && !ring->broken &&
	       (ring->enabled || !s->wire.f30_acked);
}

/* The front-end names ring areas by its own addresses. */
static int to_gpa(const struct lv_snapshot *snap, uint64_t addr, uint64_t len, uint64_t *gpa)
{
	const struct lv_map *map = lv_find_user(snap, addr, len);

	if (!map)
		return -EFAULT;
	*gpa = map->gpa + (addr - map->user_addr);
	return 0;
}

int lv_ring_locate(struct lv_session *s, const struct lv_ring *ring, struct libvhost_vq_opts *o)
{
	struct libvhost_vq_layout l = {.size = sizeof(l)};
	struct lv_snapshot *snap;
	int rc = libvhost_vq_layout(ring->num, s->features, &l);

	if (rc < 0)
		return rc;
	snap = lv_mem_snapshot(s->mem);
	rc = to_gpa(snap, ring->addr.desc, l.desc_bytes, &o->desc);
	if (rc == 0)
		rc = to_gpa(snap, ring->addr.avail, l.avail_bytes, &o->avail);
	if (rc == 0)
		rc = to_gpa(snap, ring->addr.used, l.used_bytes, &o->used);
	lv_snapshot_put(snap);
	return rc;
}

/* A front-end that says nothing has a fresh ring; DPDK's says the available half only, at which the used one is, too.
 */
static uint32_t packed_base(const struct lv_ring *ring)
{
	return ring->has_base ? lv_packed_full_base(ring->base) : LV_PACKED_BASE;
}

static int make_vq(struct lv_session *s, struct lv_ring *ring)
{
	struct libvhost_vq_opts o = {
		.size = sizeof(o),
		.flags = LIBVHOST_VQ_HAS_BASE | (ring->call_fd >= 0 ? LIBVHOST_VQ_HAS_CALL : 0),
		.role = LIBVHOST_VQ_DEVICE,
		.num = ring->num,
		.index = ring->index,
		.base = s->features & LV_F_RING_PACKED ? packed_base(ring) : ring->base,
		.features = s->features,
		.call_fd = ring->call_fd,
	};
	int rc = lv_ring_locate(s, ring, &o);

	if (rc == 0) /* who serves it is the first to look at the ring */
		rc = lv_vq_prepare(s->b->ctx, s->mem, &o, &ring->vq);
	/* Without a region nothing is in flight, whatever the base says: DPDK's virtio_user says 0 to every new
	 * back-end. DPDK's own back-ends and, for devices that work in order, libvhost-user ignore it as well. */
	if (rc == 0)
		ring->vq->goes_on_at_used = !s->inflight.map;
	if (rc == 0 && (lv_pulled(s->b) || s->inflight.map))
		rc = lv_vq_begin(ring->vq);
	if (rc == 0)
		rc = lv_ring_track(s, ring);
	if (rc == 0)
		lv_ring_apply_log(s, ring); /* last: it marks what was written until now */
	return rc;
}

/* On the worker. */
static int serve(void *arg, struct libvhost_vq *vq)
{
	const struct libvhost_backend *b = arg;

	return b->ops.serve(b->opts.arg, vq->opts.index, vq);
}

/* The worker has said why, and does not know whose queue it was. */
static int name_worker(struct libvhost_backend *b, uint32_t queue, int rc)
{
	struct libvhost_error e = {.size = sizeof(e)};
	struct lv_where where = LV_WHERE_NONE;

	where.queue = queue;
	libvhost_worker_error(lv_backend_worker(b, queue), &e);
	return lv_fail_at(&b->err, rc, e.kind, &where, "back-end: queue %u cannot go to worker %u: %.300s", queue,
			  b->worker_of[queue], e.text);
}

int lv_ring_lend(struct lv_session *s, struct lv_ring *ring, bool drain, uint32_t timeout_ms)
{
	const struct lv_slot slot = {.vq = ring->vq,
				     .fn = serve,
				     .arg = s->b,
				     .kick_fd = ring->kick_fd,
				     .watch_fd = s->b->watched[ring->index]};
	int rc;

	ring->draining = ring->vq->draining = drain;
	rc = lv_pulled(s->b) ? 0 : lv_worker_add(lv_backend_worker(s->b, ring->index), &slot, timeout_ms);
	ring->on_worker = rc == 0;
	return rc < 0 ? name_worker(s->b, ring->index, rc) : 0;
}

static void free_vq(struct lv_ring *ring)
{
	libvhost_vq_free(ring->vq);
	ring->vq = NULL;
}

/* From here on until end_vq() the device has a queue. */
static int begin_vq(struct lv_session *s, struct lv_ring *ring)
{
	const struct libvhost_backend *b = s->b;
	const int rc = make_vq(s, ring);

	if (rc < 0)
		free_vq(ring);
	else if (b->ops.queue_started)
		b->ops.queue_started(b->opts.arg, ring->index, ring->vq);
	return rc;
}

static void end_vq(struct lv_session *s, struct lv_ring *ring)
{
	const struct libvhost_backend *b = s->b;

	if (b->ops.queue_stopped)
		b->ops.queue_stopped(b->opts.arg, ring->index);
	free_vq(ring);
}

static int start(struct lv_session *s, struct lv_ring *ring)
{
	const bool fresh = !ring->vq;
	int rc = fresh ? begin_vq(s, ring) : 0;

	if (rc < 0)
		return rc;
	rc = lv_ring_lend(s, ring, false, lv_session_left_ms(s));
	if (rc < 0) {
		if (fresh)
			end_vq(s, ring);
		return rc;
	}
	if (fresh)
		lv_backend_event(s->b, LIBVHOST_EVENT_STARTED, ring->index, 0, "the ring runs");
	return 0;
}

int lv_ring_pause(struct lv_session *s, struct lv_ring *ring, uint32_t timeout_ms)
{
	struct libvhost_error e = {.size = sizeof(e)};
	struct lv_where where = LV_WHERE_NONE;
	struct libvhost_worker *w;
	int rc;

	if (!ring->on_worker)
		return 0;
	if (lv_pulled(s->b)) {
		ring->vq->draining = true; /* who pulls may still push */
		ring->on_worker = false;
		return 0;
	}
	w = lv_backend_worker(s->b, ring->index);
	rc = libvhost_worker_remove_vq(w, ring->vq, timeout_ms);
	ring->on_worker = rc < 0;
	if (rc == 0 && ring->vq->given_up < 0) /* its event went with it */
		lv_ring_failed(s, ring, ring->vq->given_up);
	if (rc == 0)
		return 0;
	where.queue = ring->index;
	libvhost_worker_error(w, &e);
	return lv_fail_at(&s->b->err, rc, e.kind, &where, "back-end: queue %u does not stop within %u ms: %s",
			  ring->index, timeout_ms, e.text);
}

void lv_ring_end_drain(struct lv_session *s, struct lv_ring *ring)
{
	if (!ring->on_worker || !ring->draining || !should_run(s, ring))
		return;
	lv_worker_end_drain(lv_backend_worker(s->b, ring->index), ring->vq);
	ring->draining = false;
}

int lv_ring_update(struct lv_session *s, struct lv_ring *ring)
{
	bool run = should_run(s, ring);

	if (run == ring->on_worker) {
		lv_ring_end_drain(s, ring);
		return 0;
	}
	return run ? start(s, ring) : lv_ring_pause(s, ring, lv_session_left_ms(s));
}

static void go_on(struct lv_session *s, struct lv_ring *ring)
{
	int rc = lv_ring_update(s, ring);

	if (rc < 0 && !ring->on_worker)
		lv_ring_failed(s, ring, rc);
}

/* A message that used up its time must not cost the rings that it paused: the way back has as much again. */
static void give_time(struct lv_session *s)
{
	s->until = lv_deadline(s->b->ctx, s->b->opts.timeout_ms);
}

void lv_ring_go_on(struct lv_session *s, struct lv_ring *ring)
{
	give_time(s);
	go_on(s, ring);
}

void lv_rings_update(struct lv_session *s)
{
	give_time(s);
	for (uint32_t q = 0; q < s->b->opts.num_queues; q++)
		go_on(s, &s->rings[q]);
}

int lv_rings_pause(struct lv_session *s)
{
	int rc = 0;

	for (uint32_t q = 0; q < s->b->opts.num_queues && rc == 0; q++)
		rc = lv_ring_pause(s, &s->rings[q], lv_session_left_ms(s));
	return rc;
}

int lv_ring_stop(struct lv_session *s, struct lv_ring *ring, uint32_t timeout_ms)
{
	struct libvhost_vq_info info = {.size = sizeof(info)};
	int rc = lv_ring_pause(s, ring, timeout_ms);

	if (rc < 0)
		return rc;
	if (ring->vq) {
		if (libvhost_vq_info(ring->vq, &info) == 0) {
			ring->base = info.base;
			ring->has_base = true;
		}
		lv_vq_set_log(ring->vq, NULL, false, LV_NOT_LOGGED); /* marks what a broken queue still holds */
		end_vq(s, ring);
		lv_backend_event(s->b, LIBVHOST_EVENT_STOPPED, ring->index, 0, "the ring stopped");
	}
	lv_fd_close(ring->kick_fd);
	ring->kick_fd = -1;
	ring->has_kick = ring->broken = false;
	return 0;
}

/* Signals only what cannot block or raise SIGPIPE here: the front-end chose the descriptor. */
void lv_ring_signal(int fd)
{
	struct stat st;

	if (fd >= 0 && fstat(fd, &st) == 0 && !(st.st_mode & S_IFMT))
		lv_eventfd_signal(fd);
}

void lv_ring_failed(struct lv_session *s, struct lv_ring *ring, int err)
{
	struct libvhost_error e = {.size = sizeof(e)};

	if (ring->broken)
		return;
	ring->broken = true;
	lv_ring_pause(s, ring, s->b->opts.timeout_ms); /* the worker gave it up: takes no time */
	lv_ring_signal(ring->err_fd);
	if (!ring->vq || libvhost_vq_error(ring->vq, &e) < 0 || e.code != err)
		snprintf(e.text, sizeof(e.text), "the queue stopped: %s", lv_errno_name(-err));
	lv_backend_event(s->b, LIBVHOST_EVENT_QUEUE_ERROR, ring->index, err, e.text);
}
