/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/*
 * The inflight region: made for the front-end when it asks, mapped when it hands it over. It keeps the descriptor, so
 * it outlives us; we keep none.
 */
#include "vring/inflight.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "backend/device.h"
#include "core/sigbus.h"
#include "vring/vring.h"

#define DRAIN_LOOK_US 500

/* Before features are known there is room for either format. */
static uint64_t region_bytes(const struct lv_session *s, const struct libvhost_req_inflight *f)
{
	const uint64_t features = s->features_set ? s->features : s->b->features;

	return f->num_queues * lv_inflight_queue_bytes(f->queue_size, (features & LV_F_RING_PACKED) != 0);
}

/* What any front-end may say is bounded by what this device has. */
static int check_size(struct lv_session *s, const struct libvhost_req *req)
{
	const struct libvhost_req_inflight *f = &req->arg.inflight;

	if (f->num_queues && f->num_queues <= s->b->opts.num_queues && f->queue_size && f->queue_size <= LV_RING_MAX)
		return 0;
	return lv_fail(&s->b->err, -EINVAL, LIBVHOST_EK_PROTOCOL,
		       "back-end: %s for %u queues of %u entries; the device has %u queues, rings up to %u entries",
		       libvhost_op_name(req->op), f->num_queues, f->queue_size, s->b->opts.num_queues, LV_RING_MAX);
}

/* Sparse: a front-end that asks ten thousand times gets ten thousand descriptors, but no memory of ours. */
int lv_session_get_inflight(struct lv_session *s, struct libvhost_req *req)
{
	const uint64_t bytes = region_bytes(s, &req->arg.inflight);
	int rc = check_size(s, req), fd;

	if (rc < 0)
		return rc;
	fd = memfd_create("vhost-inflight", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (fd < 0)
		return lv_fail_sys(&s->b->err, errno, "back-end: inflight region: %s", lv_errno_name(errno));
	if (ftruncate(fd, (off_t)bytes) < 0 || fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0) {
		rc = lv_fail_sys(&s->b->err, errno, "back-end: inflight region of %llu bytes: %s",
				 (unsigned long long)bytes, lv_errno_name(errno));
		lv_fd_close(fd);
		return rc;
	}
	req->result[0] = bytes;
	req->result[1] = 0;
	req->out_fd = fd;
	req->out_flags |= LIBVHOST_REQ_OUT_FD;
	return 0;
}

static int refuse_file(struct lv_session *s, int rc, const char *why)
{
	return lv_fail(&s->b->err, rc, LIBVHOST_EK_PROTOCOL, "back-end: SET_INFLIGHT_FD: %s", why);
}

/* A worker must not wait for a file. Seals first: a size read before them could shrink in between. */
static int check_file(struct lv_session *s, int fd, uint64_t end)
{
	struct stat st;

	if (!lv_fd_in_memory(fd))
		return refuse_file(s, -EINVAL, "the descriptor is neither a memfd nor a file of tmpfs or hugetlbfs");
	if (s->b->opts.flags & LIBVHOST_BACKEND_REQUIRE_SEALS && !(fcntl(fd, F_GET_SEALS) & F_SEAL_SHRINK))
		return refuse_file(s, -EPERM, "the file can still shrink; seal the memfd with F_SEAL_SHRINK");
	if (fstat(fd, &st) < 0)
		return refuse_file(s, -errno, "the descriptor cannot be looked at");
	if (end > (uint64_t)st.st_size)
		return refuse_file(s, -EINVAL, "the file is shorter than the region");
	return 0;
}

/* Maps only what the queues need, however large the file is. */
static int map_region(struct lv_session *s, const struct libvhost_req *req, struct lv_session_inflight *out)
{
	const struct libvhost_req_inflight *f = &req->arg.inflight;
	const uint64_t page = lv_fd_page(req->fd), from = f->mmap_offset & ~(page - 1);
	const uint64_t need = region_bytes(s, f), skip = f->mmap_offset - from;
	const size_t map_bytes = (size_t)((skip + need + page - 1) & ~(page - 1));
	uint64_t end;
	void *map;
	int rc;

	if (f->mmap_size < need)
		return refuse_file(s, -EINVAL, "the region is too small for its queues");
	if (f->mmap_offset % 8 || __builtin_add_overflow(f->mmap_offset, f->mmap_size, &end) || end > INT64_MAX)
		return refuse_file(s, -EINVAL, "offset and size do not fit a file, or the offset is not 8-aligned");
	rc = check_file(s, req->fd, end);
	if (rc < 0)
		return rc;
	map = mmap(NULL, map_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, req->fd, (off_t)from);
	if (map == MAP_FAILED)
		return refuse_file(s, errno == EACCES || errno == EPERM ? -EPERM : -ENOMEM, "it cannot be mapped");
	*out = (struct lv_session_inflight){.map = map,
					    .map_bytes = map_bytes,
					    .region = (uint8_t *)map + skip,
					    .bytes = need,
					    .num_queues = f->num_queues,
					    .queue_size = f->queue_size};
	if (!lv_ctx_guards(s->b->ctx))
		return 0;
	out->guarded = lv_sigbus_guard(map, map_bytes, (size_t)page);
	if (out->guarded)
		return 0;
	munmap(map, map_bytes);
	return refuse_file(s, -ENOMEM, "no memory to guard it");
}

void lv_session_drop_inflight(struct lv_session *s)
{
	lv_sigbus_release(s->inflight.guarded);
	if (s->inflight.map)
		munmap(s->inflight.map, s->inflight.map_bytes);
	s->inflight = (struct lv_session_inflight){0};
}

/* Queues keep what their region was when they started. */
int lv_session_set_inflight(struct lv_session *s, struct libvhost_req *req)
{
	struct lv_session_inflight now;
	int rc;

	for (uint32_t q = 0; q < s->b->opts.num_queues; q++)
		if (s->rings[q].vq)
			return refuse_file(s, -EBUSY, "rings run");
	rc = check_size(s, req);
	if (rc == 0)
		rc = map_region(s, req, &now);
	if (rc < 0)
		return rc;
	lv_session_drop_inflight(s);
	s->inflight = now;
	return 0;
}

int lv_ring_track(struct lv_session *s, struct lv_ring *ring)
{
	const struct lv_session_inflight *f = &s->inflight;
	const uint64_t each = lv_inflight_queue_bytes(f->queue_size, (s->features & LV_F_RING_PACKED) != 0);
	int rc;

	if (!f->map)
		return 0;
	/* the format may have been agreed after the region */
	if (ring->index >= f->num_queues || ring->num > f->queue_size || (ring->index + 1) * each > f->bytes)
		return lv_fail(&s->b->err, -EINVAL, LIBVHOST_EK_PROTOCOL,
			       "back-end: queue %u of %u entries is outside the inflight region, which is for %u "
			       "queues of %u entries",
			       ring->index, ring->num, f->num_queues, f->queue_size);
	rc = lv_inflight_attach(ring->vq, f->region + ring->index * each, f->queue_size);
	if (rc < 0)
		lv_fail_copy(&s->b->err, &ring->vq->err);
	ring->vq->inflight_guarded = f->guarded;
	return rc;
}

/* Requests must be finished before it stops: they cannot stay in a region. */
static bool drains(const struct lv_session *s, const struct lv_ring *ring)
{
	const uint64_t handed_over = s->wire.protocol_features >> LIBVHOST_PROTOCOL_F_GET_VRING_BASE_INFLIGHT & 1;

	return ring->vq && !ring->broken && !(handed_over && s->inflight.map);
}

/* Until when requests may take: to take the queues back takes time, too, on a busy host. */
static uint64_t requests_end(const struct lv_session *s, uint64_t deadline)
{
	const uint64_t now = lv_now(s->b->ctx);

	return deadline > now ? deadline - (deadline - now) / 8 : deadline;
}

/* On its worker the queue is somebody else's, so looking means taking it back. */
static int drain(struct lv_session *s, struct lv_ring *ring, uint64_t end, uint64_t deadline)
{
	int rc;

	if (!drains(s, ring))
		return 0;
	if (lv_pulled(s->b))
		return lv_pull_drain(s, ring);
	while ((rc = lv_ring_pause(s, ring, lv_backend_left_ms(s->b, deadline))) == 0) {
		if (!ring->vq->in_flight || ring->vq->broken || ring->broken || !lv_left_ms(s->b->ctx, end))
			return 0;
		if (lv_ring_lend(s, ring, true, lv_backend_left_ms(s->b, deadline)) < 0)
			return 0;
		nanosleep(&(struct timespec){.tv_nsec = DRAIN_LOOK_US * 1000}, NULL);
	}
	return rc;
}

/* Only to finish what they took, from now on. */
static void begin_drain(struct lv_session *s, struct lv_ring *ring, uint64_t deadline)
{
	if (!drains(s, ring) || !ring->on_worker || ring->draining || lv_pulled(s->b) ||
	    lv_ring_pause(s, ring, lv_backend_left_ms(s->b, deadline)) < 0)
		return;
	if (ring->vq->in_flight && !ring->vq->broken && !ring->broken)
		lv_ring_lend(s, ring, true, lv_backend_left_ms(s->b, deadline));
}

static int drain_and_stop(struct lv_session *s, struct lv_ring *ring, uint64_t end, uint64_t deadline)
{
	int rc = drain(s, ring, end, deadline);

	if (rc == 0)
		rc = lv_ring_stop(s, ring, lv_backend_left_ms(s->b, deadline));
	if (rc < 0 && rc != -EINPROGRESS)
		lv_ring_end_drain(s, ring);
	return rc;
}

/* Rings that finish one after another would need the sum of their times: they finish side by side. */
int lv_rings_drain_and_stop(struct lv_session *s, uint64_t deadline, void (*stopped)(struct lv_ring *ring))
{
	const uint64_t end = requests_end(s, deadline);
	int rc = 0;

	for (uint32_t q = 0; q < s->b->opts.num_queues; q++)
		begin_drain(s, &s->rings[q], deadline);
	for (uint32_t q = 0; q < s->b->opts.num_queues; q++) {
		const int each = drain_and_stop(s, &s->rings[q], end, deadline);

		if (each < 0)
			rc = each;
		else
			stopped(&s->rings[q]);
	}
	return rc;
}

int lv_ring_drain_and_stop(struct lv_session *s, struct lv_ring *ring, uint64_t deadline)
{
	return drain_and_stop(s, ring, requests_end(s, deadline), deadline);
}
