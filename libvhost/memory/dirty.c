/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* The dirty log as the caller sees it: sync into a bitmap, or as ranges. */
#include <errno.h>
#include <inttypes.h>

#include "core/wire.h"
#include "memory/object.h"

/* The log for one call, or the error. */
static int open_log(struct libvhost_mem *mem, const char *call, struct lv_log **log)
{
	*log = lv_mem_log(mem);
	if (*log)
		return 0;
	return lv_fail(&mem->err, -EINVAL, LIBVHOST_EK_STATE, "%s: no dirty log; call libvhost_mem_log_start", call);
}

/* Under the lock, with no commit under way. */
static int adopt(struct libvhost_mem *mem, int fd)
{
	const struct lv_log *have = atomic_load(&mem->log);
	struct lv_snapshot *map;
	struct lv_log *log;
	bool covers;
	int rc;

	if (have)
		return lv_fd_same_file(have->fd, fd) ? 0 : -EEXIST;
	rc = lv_log_adopt(fd, &log);
	if (rc < 0)
		return rc == -EMFILE || rc == -ENOMEM ? rc : -EFAULT;
	map = lv_mem_snapshot(mem);
	covers = log->bytes >= lv_mem_log_bytes(map);
	lv_snapshot_put(map);
	if (!covers) {
		lv_log_put(log);
		return -EFAULT;
	}
	atomic_store(&mem->log, log);
	return 0;
}

int lv_mem_adopt_log(struct libvhost_mem *mem, int fd)
{
	int rc;

	pthread_mutex_lock(&mem->lock);
	while (mem->committing)
		pthread_cond_wait(&mem->idle, &mem->lock);
	rc = adopt(mem, fd);
	pthread_mutex_unlock(&mem->lock);
	return rc;
}

struct to_bitmap {
	uint64_t *bitmap;
	uint64_t first; /* page of bit 0 */
	uint64_t pages;
};

static uint64_t put_bits(void *arg, uint64_t page, uint64_t mask)
{
	struct to_bitmap *to = arg;
	const uint64_t shift = (page - to->first) % 64;
	uint64_t *at;

	to->pages += (uint64_t)__builtin_popcountll(mask);
	if (page < to->first) { /* only the first word, whose low bits are not of the range */
		to->bitmap[0] |= mask >> (to->first - page);
		return 0;
	}
	at = &to->bitmap[(page - to->first) / 64];
	at[0] |= mask << shift;
	if (shift && mask >> (64 - shift)) /* otherwise at[1] may not exist */
		at[1] |= mask >> (64 - shift);
	return 0;
}

int libvhost_mem_log_sync(struct libvhost_mem *mem, uint64_t gpa, uint64_t size, uint64_t *bitmap, uint64_t *pages)
{
	struct to_bitmap to = {.bitmap = bitmap, .first = gpa / LV_LOG_PAGE};
	struct lv_log *log;
	int rc;

	if (!mem)
		return -EINVAL;
	if (!bitmap || (gpa | size) % LV_LOG_PAGE || (size && gpa + (size - 1) < gpa))
		return lv_fail(&mem->err, -EINVAL, LIBVHOST_EK_ARGUMENT,
			       "libvhost_mem_log_sync: %#" PRIx64 " bytes at %#" PRIx64
			       ": multiples of 4096 and a bitmap are needed",
			       size, gpa);
	rc = open_log(mem, "libvhost_mem_log_sync", &log);
	if (rc < 0)
		return rc;
	lv_log_take(log, to.first, size / LV_LOG_PAGE, put_bits, &to);
	lv_log_put(log);
	if (pages)
		*pages = to.pages;
	return 0;
}

struct to_ranges {
	struct libvhost_dirty_range *ranges;
	uint32_t count, cap;
	uint64_t next; /* page that found no room */
};

static uint64_t put_ranges(void *arg, uint64_t page, uint64_t mask)
{
	struct to_ranges *to = arg;

	while (mask) {
		struct libvhost_dirty_range *last = to->ranges && to->count ? &to->ranges[to->count - 1] : NULL;
		const uint64_t from = (uint64_t)__builtin_ctzll(mask), ones = ~(mask >> from);
		const uint64_t n = ones ? (uint64_t)__builtin_ctzll(ones) : 64;
		const struct libvhost_dirty_range run = {(page + from) * LV_LOG_PAGE, n * LV_LOG_PAGE};

		if (last && last->gpa + last->size == run.gpa) {
			last->size += run.size;
		} else if (to->ranges && to->count < to->cap) {
			to->ranges[to->count++] = run;
		} else {
			to->next = page + from;
			return mask;
		}
		mask &= from + n < 64 ? UINT64_MAX << (from + n) : 0;
	}
	return 0;
}

/* Region by region: what lies between regions nobody writes, and its part of the log has no memory. */
static void take_ranges(struct lv_log *log, const struct lv_snapshot *map, uint64_t *cursor, struct to_ranges *to)
{
	for (uint32_t i = 0; i < map->count; i++) {
		const uint64_t end = (map->maps[i].gpa + map->maps[i].size - 1) / LV_LOG_PAGE + 1;
		uint64_t first = map->maps[i].gpa / LV_LOG_PAGE;

		first = first < *cursor / LV_LOG_PAGE ? *cursor / LV_LOG_PAGE : first;
		if (first >= end)
			continue;
		if (!lv_log_take(log, first, end - first, put_ranges, to)) {
			*cursor = to->next * LV_LOG_PAGE;
			return;
		}
		*cursor = end * LV_LOG_PAGE;
	}
}

int libvhost_mem_log_ranges(struct libvhost_mem *mem, uint64_t *cursor, struct libvhost_dirty_range *ranges,
			    uint32_t *count)
{
	struct to_ranges to = {.ranges = ranges};
	struct lv_snapshot *map;
	struct lv_log *log;
	int rc;

	if (!mem)
		return -EINVAL;
	if (!cursor || !ranges || !count || !*count)
		return lv_fail(&mem->err, -EINVAL, LIBVHOST_EK_ARGUMENT,
			       "libvhost_mem_log_ranges: a cursor and room for at least one range are needed");
	rc = open_log(mem, "libvhost_mem_log_ranges", &log);
	if (rc < 0)
		return rc;
	to.cap = *count;
	map = lv_mem_snapshot(mem);
	take_ranges(log, map, cursor, &to);
	lv_snapshot_put(map);
	lv_log_put(log);
	*count = to.count;
	return 0;
}
