/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/*
 * The dirty log: one bit per 4096 bytes of guest memory in a shared file, as vhost-user defines it (bit n % 8 of byte
 * n / 8 for page n). The front-end makes one for all devices of a guest: a memfd that is sealed against shrinking and
 * grows in place, so that a larger guest never copies bits from one log to the next. The device side maps what it was
 * given.
 *
 * Marking takes no lock although the log grows meanwhile: a mapping is never moved or ended before the log is. It is
 * made larger than the file, whose new pages show up in it, and when even that is too small a second mapping of the
 * same file joins it.
 */
#ifndef LV_MEMORY_LOG_H
#define LV_MEMORY_LOG_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define LV_LOG_PAGE 4096u
#define LV_LOG_MAPS 40u /* each at least twice as long as the one before */

struct lv_log {
	atomic_uint refs;
	int fd; /* -1 on the device side */
	_Atomic uint64_t bytes;
	_Atomic(uint8_t *) bits;  /* mapped, at least bytes long */
	_Atomic uint64_t outside; /* marks that fell beyond the end, dropped */
	struct {
		void *at;
		size_t bytes;
	} maps[LV_LOG_MAPS]; /* the last one holds bits */
	uint32_t num_maps;
	struct lv_log *retired_next; /* memory/ only: waits for the last marker */
};

/* Bytes that a log of guest addresses below end has: whole pages of the log itself, so that small changes of the map
 * change nothing. */
uint64_t lv_log_bytes(uint64_t end);

/* A log for guest addresses below end. 0; -EMFILE; -ENOMEM (also: more than can be mapped); -ENOSPC. */
int lv_log_new(uint64_t end, struct lv_log **ret);
/* Makes room for guest addresses below end; a log never shrinks. One thread at a time. The errors of lv_log_new();
 * nothing is changed then. */
int lv_log_grow(struct lv_log *log, uint64_t end);
/* Allocates the file behind the bits of [gpa, gpa + size), so that no mark ever meets a full memory. 0; -ENOMEM;
 * -ENOSPC. */
int lv_log_reserve(struct lv_log *log, uint64_t gpa, uint64_t size);
/*
 * Device side: maps what a front-end sent; bounds against fstat, files in memory only (lv_fd_in_memory()). One that
 * could still shrink would kill the process with SIGBUS: it is sealed here, and refused when that is impossible. fd is
 * borrowed. 0; -EINVAL; -EOVERFLOW; -EPERM (cannot be sealed, or not open for reading and writing); -ENOMEM.
 */
int lv_log_import(int fd, uint64_t offset, uint64_t bytes, struct lv_log **ret);
/* Takes over a log that lv_log_new() made in another process; fd is duplicated. The errors of lv_log_import() and
 * lv_log_new(). */
int lv_log_adopt(int fd, struct lv_log **ret);
struct lv_log *lv_log_ref(struct lv_log *log); /* NULL is allowed */
void lv_log_put(struct lv_log *log);	       /* NULL is allowed; the last one unmaps */

/* Marks the pages of [gpa, gpa + len), which were written before. Any thread, no lock, no system call. */
void lv_log_mark(struct lv_log *log, uint64_t gpa, uint64_t len);
/*
 * The same in two steps, for many ranges: one fence behind all the writes, then the marks. The fence is what allows to
 * look first and to leave alone what is marked already: without it a scanner could clear the bit, and copy the page,
 * between our look at the bit and the moment in which our write can be seen.
 */
void lv_log_fence(void);
void lv_log_mark_fenced(struct lv_log *log, uint64_t gpa, uint64_t len);
/* Whether all of [gpa, gpa + len) has its bit inside. */
bool lv_log_covers(const struct lv_log *log, uint64_t gpa, uint64_t len);

/* What lv_log_take() reports: dirty pages of a word of the log, page in bit 0 of mask, which is not 0. Returns those
 * that it has no room for: they stay dirty and end the walk. */
typedef uint64_t (*lv_log_fn)(void *arg, uint64_t page, uint64_t mask);
/* Takes the dirty pages of [first, first + count) out of the log, ascending. False: fn had no room. */
bool lv_log_take(struct lv_log *log, uint64_t first, uint64_t count, lv_log_fn fn, void *arg);

#endif
