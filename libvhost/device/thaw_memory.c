/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* The guest's memory under a device that comes from elsewhere: the map, the rings in it, the dirty log. */
#include "device/frozen.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include "core/wire.h"
#include "memory/backing.h"
#include "memory/object.h"

/* What the peer has, as a map without memory: only good for comparing and for taking regions back. */
static struct lv_snapshot *peer_map(const struct lv_thaw *t)
{
	const struct lv_blob *b = t->blob;
	struct lv_map *maps = calloc(b->num_regions + 1u, sizeof(*maps));
	struct lv_snapshot *peer = NULL;
	int r = maps ? 0 : -ENOMEM;
	uint32_t n = 0;

	for (; n < b->num_regions && !r; n++) {
		const struct lv_blob_region *from = &b->regions[n];
		const struct lv_extent extent = {.dev = (dev_t)from->dev,
						 .ino = (ino_t)from->ino,
						 .offset = from->mmap_offset,
						 .size = from->size,
						 .readonly = from->flags & LIBVHOST_REGION_READONLY};

		maps[n] = (struct lv_map){.gpa = from->gpa,
					  .size = from->size,
					  .mmap_offset = from->mmap_offset,
					  .user_addr = from->user_addr,
					  .fd = -1,
					  .flags = from->flags};
		r = lv_backing_absent(&extent, &maps[n].backing);
	}
	if (!r)
		peer = lv_snapshot_new(maps, n, 0);
	while (n)
		lv_backing_put(maps[--n].backing);
	free(maps);
	return peer;
}

static int differs(const struct lv_thaw *t, const struct lv_snapshot *peer, const struct lv_snapshot *here,
		   const struct lv_mem_diff *diff)
{
	const bool missing = diff->removed > 0;
	const struct lv_map *m = missing ? &peer->maps[diff->removed_at[0]] : &here->maps[diff->added_at[0]];

	return lv_fail(&t->ctx->err, -EFAULT, LIBVHOST_EK_MEMORY,
		       missing ? "thaw: the peer has the region at %#" PRIx64 " (%#" PRIx64 " bytes, offset %#" PRIx64
				 " of inode %" PRIu64 "), which this map has not, or not of the same file"
			       : "thaw: this map has the region at %#" PRIx64 " (%#" PRIx64 " bytes, offset %#" PRIx64
				 " of inode %" PRIu64 "), which the peer has not",
		       m->gpa, m->size, m->mmap_offset, m->backing ? (uint64_t)m->backing->extent.ino : 0);
}

int lv_thaw_match_memory(struct lv_thaw *t)
{
	struct lv_snapshot *peer, *here;
	struct lv_mem_diff diff;
	int r = 0;

	if (!t->blob->has_memory)
		return 0;
	peer = peer_map(t);
	if (!peer)
		return lv_fail(&t->ctx->err, -ENOMEM, LIBVHOST_EK_NOMEM, "thaw: no memory for the peer's map");
	here = lv_mem_snapshot(t->opts.mem);
	lv_mem_diff(peer, here, &diff);
	if (!diff.removed && !diff.added) {
		lv_snapshot_put(peer);
		t->dev->parts[0].peer_mem = here;
		return 0;
	}
	if (lv_dev_was_running(t->dev))
		r = differs(t, peer, here, &diff);
	lv_snapshot_put(here);
	if (r)
		lv_snapshot_put(peer);
	else
		t->dev->parts[0].peer_mem = peer;
	return r;
}

int lv_thaw_check_rings(struct lv_thaw *t)
{
	struct lv_record *runs = lv_record_dup(t->dev->rec);
	struct lv_snapshot *here;
	bool any = false;
	int r = 0;

	if (!runs)
		return lv_fail(&t->ctx->err, -ENOMEM, LIBVHOST_EK_NOMEM, "thaw: no memory for a copy of the record");
	for (uint32_t i = 0; i < runs->num_queues; i++) {
		any |= runs->queue[i].flags & LV_RQ_RUNNING;
		if (!(runs->queue[i].flags & LV_RQ_RUNNING))
			runs->queue[i].flags = 0;
	}
	here = lv_mem_snapshot(t->opts.mem);
	if (any)
		r = lv_queues_check(t->dev, runs, here);
	lv_snapshot_put(here);
	free(runs);
	return r ? lv_fail(&t->ctx->err, -EFAULT, LIBVHOST_EK_MEMORY, "thaw: a ring that runs is not in this map") : 0;
}

int lv_thaw_adopt_log(struct lv_thaw *t)
{
	const int at = lv_blob_find_fd(t->blob, LV_BLOB_FD_LOG, 0);
	struct lv_log *log;
	int r = 0;

	if (at >= 0)
		r = lv_mem_adopt_log(t->opts.mem, t->opts.fds[at]);
	if (r)
		return lv_fail(&t->ctx->err, r == -EEXIST ? -EFAULT : r, LIBVHOST_EK_MEMORY,
			       "thaw: descriptor %d as the dirty log: %s", t->opts.fds[at],
			       r == -EEXIST ? "this memory logs to another file" : lv_errno_name(-r));
	log = lv_mem_log(t->opts.mem);
	if (log && at < 0 && lv_dev_was_running(t->dev)) {
		lv_log_put(log);
		return lv_fail(&t->ctx->err, -EFAULT, LIBVHOST_EK_MEMORY,
			       "thaw: this memory logs what devices write, and the frozen one's peer does not");
	}
	if (lv_dev_was_running(t->dev))
		t->dev->parts[0].peer_log = log;
	else
		lv_log_put(log);
	return 0;
}
