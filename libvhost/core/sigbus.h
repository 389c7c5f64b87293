/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/*
 * The one thing that this library shares between contexts: the process's action for SIGBUS, while a context with
 * LIBVHOST_CTX_SIGBUS_GUARD lives. A file that its owner cuts off takes the memory behind a mapping away; here a zero
 * page comes in its place, and who uses the mapping asks afterwards whether that has happened.
 */
#ifndef LV_CORE_SIGBUS_H
#define LV_CORE_SIGBUS_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/mman.h>

/* What the action asks of the kernel: a worker's filter allows exactly this mmap. */
#define LV_SIGBUS_PROT	(PROT_READ | PROT_WRITE)
#define LV_SIGBUS_FLAGS (MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE)

/* Puts the action in front of the present one, or counts one more user. 0; 1 = the host has put another in front since,
 * and ours works only if that calls it; negative errno: the process may not. */
int lv_sigbus_get(void);
void lv_sigbus_put(void);

/* A mapping of ours: whole pages from at on, page being the page size of its file. NULL = no memory. */
struct lv_guarded;
struct lv_guarded *lv_sigbus_guard(const void *at, size_t bytes, size_t page);
void lv_sigbus_release(struct lv_guarded *guarded); /* before munmap; NULL is allowed */
/* Whether some of the mapping is zero pages now. It stays so. NULL is allowed. */
bool lv_sigbus_is_cut(const struct lv_guarded *guarded);

extern atomic_uint lv_sigbus_faults; /* of lv_sigbus_mended() only */
/* Changes whenever any mapping was cut. One load; any thread. */
static inline unsigned lv_sigbus_mended(void)
{
	return atomic_load_explicit(&lv_sigbus_faults, memory_order_acquire);
}

#endif
