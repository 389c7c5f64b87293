/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* The object and its transactions. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "core/opts.h"
#include "memory/backing.h"
#include "memory/object.h"

#define REGION "memory region gpa %#" PRIx64 " size %#" PRIx64 ": "

int libvhost_mem_new(struct libvhost_ctx *ctx, const struct libvhost_mem_opts *opts, struct libvhost_mem **ret)
{
	struct libvhost_mem_opts o;
	struct libvhost_mem *mem;
	struct lv_snapshot *empty;
	int rc;

	if (!ctx)
		return -EINVAL;
	if (!ret)
		return lv_fail(&ctx->err, -EINVAL, LIBVHOST_EK_ARGUMENT, "libvhost_mem_new: ret is NULL");
	rc = LV_OPTS_READ(&ctx->err, &o, opts);
	if (rc < 0)
		return rc;
	if (o.flags & ~(LIBVHOST_MEM_REQUIRE_SEALS | LIBVHOST_MEM_EXPOSE_ADDRESSES))
		return lv_fail(&ctx->err, -EINVAL, LIBVHOST_EK_ARGUMENT, "libvhost_mem_new: unknown flags %#x",
			       o.flags);
	mem = calloc(1, sizeof(*mem));
	empty = lv_snapshot_new(NULL, 0, 0);
	if (!mem || !empty) {
		free(mem);
		lv_snapshot_put(empty);
		return lv_fail_sys(&ctx->err, ENOMEM, "libvhost_mem_new: no memory");
	}
	atomic_init(&mem->refs, 1);
	mem->ctx = lv_ctx_ref(ctx);
	lv_errslot_init(&mem->err);
	mem->flags = o.flags;
	atomic_init(&mem->current, empty);
	pthread_mutex_init(&mem->lock, NULL);
	pthread_cond_init(&mem->idle, NULL);
	*ret = mem;
	return 0;
}

bool lv_mem_wants_seals(const struct libvhost_mem *mem)
{
	return mem->flags & LIBVHOST_MEM_REQUIRE_SEALS;
}

struct libvhost_mem *lv_mem_ref(struct libvhost_mem *mem)
{
	atomic_fetch_add(&mem->refs, 1);
	return mem;
}

void libvhost_mem_free(struct libvhost_mem *mem)
{
	if (!mem || atomic_fetch_sub(&mem->refs, 1) != 1)
		return;
	lv_mem_forget(mem);
	lv_snapshot_put(atomic_load(&mem->current));
	lv_log_put(atomic_load(&mem->log));
	lv_mem_retired_put(mem);
	pthread_cond_destroy(&mem->idle);
	pthread_mutex_destroy(&mem->lock);
	lv_errslot_destroy(&mem->err);
	libvhost_ctx_free(mem->ctx);
	free(mem);
}

void lv_mem_forget(struct libvhost_mem *mem)
{
	for (uint32_t i = 0; mem->next && i < mem->count; i++)
		lv_backing_put(mem->next[i].backing);
	free(mem->next);
	mem->next = NULL;
	mem->count = atomic_load(&mem->current)->count;
}

int libvhost_mem_begin(struct libvhost_mem *mem)
{
	const struct lv_snapshot *snap;
	struct lv_map *next;
	int rc = 0;

	if (!mem)
		return -EINVAL;
	next = malloc(LIBVHOST_MAX_REGIONS * sizeof(*next));
	if (!next)
		return lv_fail_sys(&mem->err, ENOMEM, "libvhost_mem_begin: no memory");
	pthread_mutex_lock(&mem->lock);
	if (mem->committing || mem->next) {
		rc = lv_fail(&mem->err, -EBUSY, LIBVHOST_EK_BUSY, "libvhost_mem_begin: a %s",
			     mem->committing ? "commit runs" : "transaction is open; commit or abort it");
		free(next);
	} else {
		snap = atomic_load(&mem->current); /* only a commit replaces it */
		mem->next = next;
		mem->count = snap->count;
		memcpy(next, snap->maps, snap->count * sizeof(*next));
		for (uint32_t i = 0; i < snap->count; i++)
			lv_backing_ref(next[i].backing);
	}
	pthread_mutex_unlock(&mem->lock);
	return rc;
}

/* Takes the lock if a transaction is open and may be changed. */
static int lock_open(struct libvhost_mem *mem, const char *what)
{
	int rc = 0;

	if (!mem)
		return -EINVAL;
	pthread_mutex_lock(&mem->lock);
	if (mem->committing)
		rc = lv_fail(&mem->err, -EBUSY, LIBVHOST_EK_BUSY, "%s: a commit runs", what);
	else if (!mem->next)
		rc = lv_fail(&mem->err, -EINVAL, LIBVHOST_EK_STATE, "%s: no transaction; call libvhost_mem_begin",
			     what);
	if (rc < 0)
		pthread_mutex_unlock(&mem->lock);
	return rc;
}

/* Where gpa belongs in the transaction: the first region behind it. */
static uint32_t position(const struct libvhost_mem *mem, uint64_t gpa)
{
	uint32_t lo = 0, hi = mem->count;

	while (lo < hi) {
		uint32_t mid = (lo + hi) / 2;

		if (mem->next[mid].gpa <= gpa)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

static bool overlap(uint64_t a, uint64_t a_size, uint64_t b, uint64_t b_size)
{
	return a < b + b_size && b < a + a_size; /* sums were checked when the regions came in */
}

static int clash(struct libvhost_mem *mem, const struct lv_map *m, const struct lv_map *with, const char *what)
{
	return lv_fail(&mem->err, -EEXIST, LIBVHOST_EK_MEMORY,
		       REGION "overlaps the region gpa %#" PRIx64 " size %#" PRIx64 " in %s address", m->gpa, m->size,
		       with->gpa, with->size, what);
}

/* Room, sums and overlaps of a region whose addresses are known. user: user_addr came from outside. */
static int check_place(struct libvhost_mem *mem, const struct lv_map *m, bool user)
{
	uint32_t at = position(mem, m->gpa);
	uint64_t end;

	if (!m->size)
		return lv_fail(&mem->err, -EINVAL, LIBVHOST_EK_ARGUMENT, REGION "size is 0", m->gpa, m->size);
	if (__builtin_add_overflow(m->gpa, m->size, &end) || __builtin_add_overflow(m->user_addr, m->size, &end) ||
	    __builtin_add_overflow((uintptr_t)m->hva, m->size, &end) || (m->hva && end > UINTPTR_MAX))
		return lv_fail(&mem->err, -EOVERFLOW, LIBVHOST_EK_MEMORY,
			       REGION "address + size wraps (user address %#" PRIx64 ")", m->gpa, m->size,
			       m->user_addr);
	if (mem->count == LIBVHOST_MAX_REGIONS)
		return lv_fail(&mem->err, -ENOSPC, LIBVHOST_EK_NO_SLOT, REGION "the map holds %u regions already",
			       m->gpa, m->size, mem->count);
	if (at && overlap(mem->next[at - 1].gpa, mem->next[at - 1].size, m->gpa, m->size))
		return clash(mem, m, &mem->next[at - 1], "guest-physical");
	if (at < mem->count && overlap(mem->next[at].gpa, mem->next[at].size, m->gpa, m->size))
		return clash(mem, m, &mem->next[at], "guest-physical");
	for (uint32_t i = 0; user && i < mem->count; i++)
		if (overlap(mem->next[i].user_addr, mem->next[i].size, m->user_addr, m->size))
			return clash(mem, m, &mem->next[i], "user");
	return 0;
}

static void insert(struct libvhost_mem *mem, const struct lv_map *m)
{
	uint32_t at = position(mem, m->gpa);

	memmove(mem->next + at + 1, mem->next + at, (mem->count - at) * sizeof(*m));
	mem->next[at] = *m;
	mem->count++;
}

/* A mapping of ours that shows the same bytes of the same file in the same way, and still does. */
static struct lv_backing *find_mapping(const struct lv_map *maps, uint32_t count, const struct lv_extent *extent)
{
	for (uint32_t i = 0; i < count; i++)
		if (maps[i].backing && maps[i].backing->mapped && !lv_sigbus_is_cut(maps[i].backing->guarded) &&
		    lv_extent_equal(&maps[i].backing->extent, extent))
			return maps[i].backing;
	return NULL;
}

static int back(struct libvhost_mem *mem, const struct libvhost_region *region, struct lv_map *m)
{
	const struct lv_snapshot *snap = atomic_load(&mem->current);
	struct lv_extent extent;
	int rc;

	rc = lv_backing_check(&mem->err, region, mem->flags & LIBVHOST_MEM_REQUIRE_SEALS, &extent);
	if (rc < 0)
		return rc;
	if (!m->hva) {
		m->backing = find_mapping(snap->maps, snap->count, &extent);
		if (!m->backing)
			m->backing = find_mapping(mem->next, mem->count, &extent);
	}
	if (m->backing)
		lv_backing_ref(m->backing);
	else
		rc = lv_backing_map(&mem->err, region->fd, &extent, m->hva, lv_ctx_guards(mem->ctx), &m->backing);
	if (rc < 0)
		return rc;
	m->hva = m->backing->hva;
	m->fd = m->backing->fd;
	return 0;
}

static uint64_t own_user_addr(const struct libvhost_mem *mem, const struct lv_map *m)
{
	return mem->flags & LIBVHOST_MEM_EXPOSE_ADDRESSES ? (uintptr_t)m->hva : m->gpa + LV_COOKIE_BASE;
}

/* Flags, and whether the host address fits this process. */
static int check_region(struct libvhost_mem *mem, const struct libvhost_region *r, bool import)
{
	uint32_t known = LIBVHOST_REGION_HAS_FD | LIBVHOST_REGION_READONLY;

	if (r->flags & ~known)
		return lv_fail(&mem->err, -EINVAL, LIBVHOST_EK_ARGUMENT, REGION "unknown flags %#x", r->gpa, r->size,
			       r->flags & ~known);
	if (!(r->flags & LIBVHOST_REGION_HAS_FD) && (import || !r->user_addr))
		return lv_fail(&mem->err, -EINVAL, LIBVHOST_EK_ARGUMENT,
			       REGION "has neither descriptor nor host address", r->gpa, r->size);
	if (!import && r->user_addr > UINTPTR_MAX)
		return lv_fail(&mem->err, -EOVERFLOW, LIBVHOST_EK_ARGUMENT,
			       REGION "host address %#" PRIx64 " is beyond this process", r->gpa, r->size,
			       r->user_addr);
	if (!import && r->gpa > UINT64_MAX - LV_COOKIE_BASE)
		return lv_fail(&mem->err, -EOVERFLOW, LIBVHOST_EK_MEMORY, REGION "gpa is too high", r->gpa, r->size);
	return 0;
}

static int add_locked(struct libvhost_mem *mem, const struct libvhost_region *r, bool import)
{
	struct lv_map m = {.gpa = r->gpa, .size = r->size, .fd = -1, .flags = r->flags & LIBVHOST_REGION_READONLY};
	int rc = check_region(mem, r, import);

	if (rc < 0)
		return rc;
	if (!import)
		m.hva = (uint8_t *)(uintptr_t)r->user_addr;
	m.user_addr = import ? r->user_addr : own_user_addr(mem, &m);
	rc = check_place(mem, &m, import);
	if (rc == 0 && r->flags & LIBVHOST_REGION_HAS_FD) {
		m.mmap_offset = r->mmap_offset;
		rc = back(mem, r, &m);
	}
	if (rc < 0)
		return rc;
	if (!import)
		m.user_addr = own_user_addr(mem, &m);
	insert(mem, &m);
	return 0;
}

static int add(struct libvhost_mem *mem, const struct libvhost_region *region, bool import, const char *what)
{
	int rc = lock_open(mem, what);

	if (rc < 0)
		return rc;
	rc = region ? add_locked(mem, region, import)
		    : lv_fail(&mem->err, -EINVAL, LIBVHOST_EK_ARGUMENT, "%s: region is NULL", what);
	pthread_mutex_unlock(&mem->lock);
	return rc;
}

int libvhost_mem_add(struct libvhost_mem *mem, const struct libvhost_region *region)
{
	return add(mem, region, false, "libvhost_mem_add");
}

int lv_mem_import(struct libvhost_mem *mem, const struct libvhost_region *region)
{
	return add(mem, region, true, "import of a memory region");
}

int libvhost_mem_alloc(struct libvhost_mem *mem, uint64_t gpa, uint64_t size)
{
	struct lv_map m = {.gpa = gpa, .size = size, .user_addr = gpa + LV_COOKIE_BASE};
	int rc = lock_open(mem, "libvhost_mem_alloc");

	if (rc < 0)
		return rc;
	if (gpa > UINT64_MAX - LV_COOKIE_BASE)
		rc = lv_fail(&mem->err, -EOVERFLOW, LIBVHOST_EK_MEMORY, REGION "gpa is too high", gpa, size);
	else
		rc = check_place(mem, &m, false);
	if (rc == 0)
		rc = lv_backing_create(&mem->err, size, &m.backing);
	if (rc == 0) {
		m.hva = m.backing->hva;
		m.fd = m.backing->fd;
		m.user_addr = own_user_addr(mem, &m);
		insert(mem, &m);
	}
	pthread_mutex_unlock(&mem->lock);
	return rc;
}

int libvhost_mem_remove(struct libvhost_mem *mem, uint64_t gpa, uint64_t size)
{
	uint32_t at;
	int rc = lock_open(mem, "libvhost_mem_remove");

	if (rc < 0)
		return rc;
	at = position(mem, gpa);
	if (!at || mem->next[at - 1].gpa != gpa || mem->next[at - 1].size != size) {
		rc = lv_fail(&mem->err, -ENOENT, LIBVHOST_EK_MEMORY, REGION "is not in the map", gpa, size);
	} else {
		lv_backing_put(mem->next[at - 1].backing);
		memmove(mem->next + at - 1, mem->next + at, (mem->count - at) * sizeof(*mem->next));
		mem->count--;
	}
	pthread_mutex_unlock(&mem->lock);
	return rc;
}

int libvhost_mem_abort(struct libvhost_mem *mem)
{
	int rc = lock_open(mem, "libvhost_mem_abort");

	if (rc < 0)
		return rc;
	lv_mem_forget(mem);
	pthread_mutex_unlock(&mem->lock);
	return 0;
}

int libvhost_mem_regions(struct libvhost_mem *mem, struct libvhost_region *regions, uint32_t *count)
{
	struct lv_snapshot *snap;

	if (!mem)
		return -EINVAL;
	if (!count || (*count && !regions))
		return lv_fail(&mem->err, -EINVAL, LIBVHOST_EK_ARGUMENT, "libvhost_mem_regions: NULL argument");
	snap = lv_mem_snapshot(mem);
	for (uint32_t i = 0; i < snap->count && i < *count; i++) {
		const struct lv_map *m = &snap->maps[i];

		regions[i] = (struct libvhost_region){
			.gpa = m->gpa,
			.size = m->size,
			.user_addr = (uintptr_t)m->hva,
			.mmap_offset = m->mmap_offset,
			.fd = m->fd,
			.flags = m->flags | (m->fd >= 0 ? LIBVHOST_REGION_HAS_FD : 0),
		};
	}
	*count = snap->count;
	lv_snapshot_put(snap);
	return 0;
}

int libvhost_mem_error(struct libvhost_mem *mem, struct libvhost_error *err)
{
	return mem ? lv_errslot_read(&mem->err, err) : -EINVAL;
}
