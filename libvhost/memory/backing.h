/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* The file behind a region: checked, duplicated, mapped once, and unmapped when the last snapshot lets go. */
#ifndef LV_MEMORY_BACKING_H
#define LV_MEMORY_BACKING_H

#include <stdatomic.h>
#include <stdbool.h>
#include <sys/types.h>
#include <vhost/req.h>
#include "core/error.h"
#include "core/sigbus.h"

/* Which bytes of which file, and how it may be used: two regions with equal values can share one mapping. */
struct lv_extent {
	dev_t dev;
	ino_t ino;
	uint64_t offset, size;
	bool readonly;
};

struct lv_backing {
	atomic_uint refs;
	struct lv_extent extent;
	uint8_t *hva;
	int fd;
	bool mapped;		    /* by us; otherwise hva belongs to the caller of libvhost_mem_add() */
	struct lv_guarded *guarded; /* NULL = not */
};

/* Refuses what must not or cannot be mapped: the errors of libvhost_mem_add(). Fills extent. */
int lv_backing_check(struct lv_errslot *slot, const struct libvhost_region *region, bool require_seals,
		     struct lv_extent *extent);
/* Duplicates fd, and maps the extent unless hva says where it is mapped already. guard: a file that is cut off later
 * is no SIGBUS. */
int lv_backing_map(struct lv_errslot *slot, int fd, const struct lv_extent *extent, uint8_t *hva, bool guard,
		   struct lv_backing **ret);
/* New memory: a memfd that can neither shrink nor grow, mapped. */
int lv_backing_create(struct lv_errslot *slot, uint64_t size, struct lv_backing **ret);

/* Stands for an extent that only somebody else has mapped: neither descriptor nor address. -ENOMEM. */
int lv_backing_absent(const struct lv_extent *extent, struct lv_backing **ret);

bool lv_extent_equal(const struct lv_extent *a, const struct lv_extent *b);
struct lv_backing *lv_backing_ref(struct lv_backing *backing); /* NULL is allowed */
void lv_backing_put(struct lv_backing *backing);	       /* NULL is allowed */

#endif
