/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* The front-end's memory messages. Every region is mapped and checked before the first ring is disturbed. */
#include <errno.h>

#include "backend/device.h"
#include "core/wire.h"
#include "memory/mem.h"

/*
 * Rings rest while the map changes: when the answer leaves, no worker uses a region that is gone. Queues take the new
 * map over here and not on the worker, whose filter lets it unmap nothing.
 */
static int commit(struct lv_session *s)
{
	int rc = lv_rings_pause(s);

	if (rc == 0)
		rc = libvhost_mem_commit(s->mem, lv_session_left_ms(s), NULL);
	if (rc < 0)
		libvhost_mem_abort(s->mem);
	for (uint32_t q = 0; q < s->b->opts.num_queues; q++) {
		struct libvhost_vq_info info = {.size = sizeof(info)};
		struct lv_ring *ring = &s->rings[q];

		if (ring->vq && !ring->on_worker && !ring->broken && libvhost_vq_info(ring->vq, &info) == 0 &&
		    info.broken)
			lv_ring_failed(s, ring, -EFAULT);
	}
	lv_rings_update(s);
	return rc;
}

static int abort_with(struct lv_session *s, int rc)
{
	libvhost_mem_abort(s->mem);
	return rc;
}

/*
 * QEMU up to 7.2 has a vhost device of its own for each pair of a card's queues; all of them share the connection, and
 * each adds and removes the whole map. So a region that is there already, in all respects, is counted.
 */
static struct lv_repeat *find_repeat(struct lv_session *s, uint64_t gpa)
{
	for (uint32_t i = 0; i < s->num_repeats; i++)
		if (s->repeats[i].gpa == gpa)
			return &s->repeats[i];
	return NULL;
}

static const struct lv_map *find_region(const struct lv_snapshot *now, const struct libvhost_req_region *r)
{
	for (uint32_t i = 0; i < now->count; i++)
		if (now->maps[i].gpa == r->gpa && now->maps[i].size == r->size &&
		    now->maps[i].user_addr == r->user_addr)
			return &now->maps[i];
	return NULL;
}

/* Whether the region was there; at most once for each queue, so that nobody counts up to the end of the number. */
static bool repeat(struct lv_session *s, const struct lv_snapshot *now, const struct libvhost_req_region *r, int fd)
{
	const struct lv_map *m = find_region(now, r);
	struct lv_repeat *had = m ? find_repeat(s, r->gpa) : NULL;

	if (!m || m->mmap_offset != r->mmap_offset || !lv_fd_same_file(m->fd, fd) ||
	    (had && had->times >= s->b->opts.num_queues))
		return false;
	if (had)
		had->times++;
	else
		s->repeats[s->num_repeats++] = (struct lv_repeat){.gpa = r->gpa, .times = 1};
	return true;
}

/* Takes one count back. False: there was one only, the region goes. */
static bool unrepeat(struct lv_session *s, uint64_t gpa)
{
	struct lv_repeat *had = find_repeat(s, gpa);

	if (!had)
		return false;
	if (--had->times == 0)
		*had = s->repeats[--s->num_repeats];
	return true;
}

static int remove_all(struct lv_session *s)
{
	struct lv_snapshot *now = lv_mem_snapshot(s->mem);
	int rc = 0;

	for (uint32_t i = 0; i < now->count && rc == 0; i++)
		rc = libvhost_mem_remove(s->mem, now->maps[i].gpa, now->maps[i].size);
	lv_snapshot_put(now);
	return rc;
}

int lv_session_set_table(struct lv_session *s, struct libvhost_req *req)
{
	const struct libvhost_req_table *t = &req->arg.table;
	int rc = libvhost_mem_begin(s->mem);

	if (rc == 0)
		rc = remove_all(s);
	for (uint32_t i = 0; i < t->count && rc == 0; i++)
		rc = lv_mem_import(s->mem, (const void *)(uintptr_t)(req->data_in + (uint64_t)i * t->stride));
	rc = rc < 0 ? abort_with(s, rc) : commit(s);
	if (rc == 0)
		s->num_repeats = 0;
	return rc;
}

int lv_session_add_region(struct lv_session *s, struct libvhost_req *req)
{
	const struct libvhost_req_region *r = &req->arg.region;
	const struct libvhost_region region = {
		.gpa = r->gpa,
		.size = r->size,
		.user_addr = r->user_addr,
		.mmap_offset = r->mmap_offset,
		.fd = req->fd,
		.flags = LIBVHOST_REGION_HAS_FD,
	};
	struct lv_snapshot *now = lv_mem_snapshot(s->mem);
	const bool repeated = repeat(s, now, r, req->fd);
	const uint32_t count = now->count;
	int rc;

	lv_snapshot_put(now);
	if (repeated)
		return 0;
	if (count >= s->b->opts.max_regions)
		return -ENOSPC;
	rc = libvhost_mem_begin(s->mem);
	if (rc == 0)
		rc = lv_mem_import(s->mem, &region);
	return rc < 0 ? abort_with(s, rc) : commit(s);
}

static bool has_region(struct lv_session *s, const struct libvhost_req_region *r)
{
	struct lv_snapshot *now = lv_mem_snapshot(s->mem);
	const bool found = find_region(now, r);

	lv_snapshot_put(now);
	return found;
}

/* All three of guest address, size and user address name a region; descriptors of old front-ends mean nothing. */
int lv_session_rem_region(struct lv_session *s, struct libvhost_req *req)
{
	const struct libvhost_req_region *r = &req->arg.region;
	int rc;

	if (!has_region(s, r))
		return -ENOENT;
	if (unrepeat(s, r->gpa))
		return 0;
	rc = libvhost_mem_begin(s->mem);
	if (rc == 0)
		rc = libvhost_mem_remove(s->mem, r->gpa, r->size);
	return rc < 0 ? abort_with(s, rc) : commit(s);
}
