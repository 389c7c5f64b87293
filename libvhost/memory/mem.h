/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/*
 * Guest memory as the rooms above see it: immutable, reference-counted snapshots sorted by guest-physical address, and
 * the interface through which devices follow changes.
 */
#ifndef LV_MEMORY_MEM_H
#define LV_MEMORY_MEM_H

#include <stdatomic.h>
#include <stdbool.h>
#include <poll.h>
#include <vhost/mem.h>
#include "core/ctx.h"
#include "memory/log.h"

/* Ring addresses and regions on vhost-user are gpa + this: unique per region, never 0, and not a host address. */
#define LV_COOKIE_BASE 0x100000000000ull

struct lv_map {
	uint64_t gpa, size, mmap_offset;
	uint64_t user_addr; /* address that vhost-user peers see: cookie, or hva when exposed, or what a front-end sent
			       (device side) */
	uint8_t *hva;
	int fd; /* -1 = no descriptor */
	uint32_t flags;
	struct lv_backing *backing; /* keeps mapping and fd alive, shared between snapshots */
};

struct lv_snapshot {
	atomic_uint refs;
	uint64_t generation;
	struct lv_snapshot *retired_next; /* memory/ only: waits for the last reader of the map it was */
	const uint16_t *by_user;	  /* indexes into maps, sorted by user_addr */
	uint32_t count;
	struct lv_map maps[]; /* sorted by gpa, disjoint */
};

/* Copies count maps (sorted by gpa) and takes a reference to each backing. One reference for the caller; NULL = no
 * memory. */
struct lv_snapshot *lv_snapshot_new(const struct lv_map *maps, uint32_t count, uint64_t generation);
/* Takes a reference to the current snapshot (never NULL; may be empty). Any thread, no lock. */
struct lv_snapshot *lv_mem_snapshot(struct libvhost_mem *mem);
struct lv_snapshot *lv_snapshot_ref(struct lv_snapshot *snap);
/* Drops a reference, NULL is allowed. The last one unmaps and closes, so a sandboxed worker must not hold the last. */
void lv_snapshot_put(struct lv_snapshot *snap);
/* The first region whose file was cut off under a guarded mapping (core/sigbus.h), NULL = none. */
const struct lv_map *lv_snapshot_cut(const struct lv_snapshot *snap);
/* Where mem says which snapshot is current; for lv_mem_is_current() only. */
typedef const _Atomic(struct lv_snapshot *) lv_current_map;
lv_current_map *lv_mem_current(const struct libvhost_mem *mem);
/* Whether snap, of which the caller holds a reference, is still the current one. One load; any thread. */
static inline bool lv_mem_is_current(lv_current_map *current, const struct lv_snapshot *snap)
{
	return atomic_load_explicit(current, memory_order_acquire) == snap;
}

/* A translation cache of one user (a ring, a device): last hit first, then binary search. Zero-filled at first; a hint,
 * so it may outlive the snapshot, but belongs to one thread. */
struct lv_tlb {
	uint32_t last;
};

/* Region that holds gpa, NULL if none. The shipped fast path is this hit of the cache. */
const struct lv_map *lv_tlb_miss(const struct lv_snapshot *snap, struct lv_tlb *tlb, uint64_t gpa);
static inline const struct lv_map *lv_tlb_find(const struct lv_snapshot *snap, struct lv_tlb *tlb, uint64_t gpa)
{
	const struct lv_map *m = &snap->maps[tlb->last];

	if (__builtin_expect(tlb->last < snap->count && gpa - m->gpa < m->size, 1))
		return m;
	return lv_tlb_miss(snap, tlb, gpa);
}

/* Host address of [gpa, gpa+len) within one region, NULL if not mapped or it crosses the border. */
void *lv_translate(const struct lv_snapshot *snap, struct lv_tlb *tlb, uint64_t gpa, uint64_t len);
/* Like it but stores how many bytes are contiguous from gpa (0 = unmapped, NULL is returned). */
void *lv_translate_some(const struct lv_snapshot *snap, struct lv_tlb *tlb, uint64_t gpa, uint64_t *len);
/* Region that holds [addr, addr+len) by user address; NULL if none. */
const struct lv_map *lv_find_user(const struct lv_snapshot *snap, uint64_t addr, uint64_t len);
const struct lv_map *lv_find_gpa(const struct lv_snapshot *snap, uint64_t gpa, uint64_t len);

/* Difference between two snapshots: regions only in old, regions only in new (identity: gpa, size, file identity,
 * offset, user_addr, read-only, and the host address where both know it: the kernel uses that one). */
struct lv_mem_diff {
	uint32_t removed, added; /* counts; indexes into old->maps and new->maps */
	uint16_t removed_at[LIBVHOST_MAX_REGIONS], added_at[LIBVHOST_MAX_REGIONS];
};
void lv_mem_diff(const struct lv_snapshot *old, const struct lv_snapshot *now, struct lv_mem_diff *diff);

/* Regions as peers with few slots get them: neighbours of the same file that are contiguous in gpa, file and user
 * address become one. hva is NULL where the run is not contiguous in this process: it suits peers that map the file
 * themselves. Backings are borrowed. Returns how many there are; only the first cap are stored. */
uint32_t lv_mem_merge(const struct lv_snapshot *snap, struct lv_map *out, uint32_t cap);
uint32_t lv_maps_merge(const struct lv_map *maps, uint32_t count, struct lv_map *out, uint32_t cap);

/* A device following the map. Called by commit with no lock of the memory held; the client does not call back into
 * commit. */
struct lv_mem_client_ops {
	/* May the new map be sent at all? 0, -ENOSPC, -ENOTSUP (needs descriptors), -ERANGE (cannot address it),
	 * -EBUSY. Nothing is changed. A client that is stopped says 0. On 0 the client is reserved until finish(). */
	int (*prepare)(void *client, const struct lv_snapshot *now);
	/* Undoes prepare when another client refused. */
	void (*unprepare)(void *client);
	/* Whether the reserved client's peer can write a dirty log: 0, or -ENOTSUP and why as a sentence (its migration
	 * blocker). */
	int (*can_log)(void *client, char *why, size_t cap);
	/* Begins telling the peer: the map, and whatever lv_mem_log() says now. 1 = nothing to do, 0 = wait, negative =
	 * failed. */
	int (*begin)(void *client, struct lv_snapshot *old, struct lv_snapshot *now, uint64_t deadline);
	/* 1 done, 0 wait, negative failed (the client marks itself LOST). */
	int (*progress)(void *client);
	/* Descriptors to wait for. */
	uint32_t (*pollfds)(void *client, struct pollfd *fds, uint32_t cap);
	/* Ends, result as of begin or progress (1 or negative) or -ETIMEDOUT. The old snapshot is dropped after the
	 * last client's. */
	void (*finish)(void *client, int result);
};

/* The log that devices shall write, NULL = none: a reference for the caller. Any thread, no lock. */
struct lv_log *lv_mem_log(struct libvhost_mem *mem);
/* Logs to a file that another process' map logged to, whose devices come here. With a log of the same file: no effect.
 * 0; -EEXIST (logs to another one); -EFAULT (the file is no such log, or does not cover the map); -EMFILE; -ENOMEM. */
int lv_mem_adopt_log(struct libvhost_mem *mem, int fd);
/* Bytes of a log that covers the map: what peers are told, which may be less than the log has. */
uint64_t lv_mem_log_bytes(const struct lv_snapshot *map);

struct lv_mem_client; /* list node, owned by memory/ */
/* Attaching takes a reference to mem, detaching drops it. Both wait for a running commit to end: not from a client's
 * callback. 0; -ENOMEM. */
int lv_mem_attach(struct libvhost_mem *mem, const struct lv_mem_client_ops *ops, void *client,
		  struct lv_mem_client **ret);
void lv_mem_detach(struct libvhost_mem *mem, struct lv_mem_client *node);
struct libvhost_mem *lv_mem_ref(struct libvhost_mem *mem);
/* LIBVHOST_MEM_REQUIRE_SEALS: nothing that a peer can cut off is mapped. */
bool lv_mem_wants_seals(const struct libvhost_mem *mem);
/* How many regions a client takes, for libvhost_has_free_slot(): as they are, and merged. LIBVHOST_MAX_REGIONS until
 * set. */
void lv_mem_client_limits(struct lv_mem_client *node, uint32_t regions, uint32_t merged);

/*
 * Device side: adds a region as a front-end described it (user_addr kept as given for lookup, file mapped here, bounds
 * against fstat, regular files and memfds only). In an open transaction. The errors of libvhost_mem_add().
 */
int lv_mem_import(struct libvhost_mem *mem, const struct libvhost_region *region);

#endif
