/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/*
 * The dirty log: one bit per 4096 bytes of guest memory in a shared file, as vhost-user defines it (bit n % 8 of byte
 * n / 8 for page n). The front-end makes one for all devices of a guest: a memfd that is sealed against shrinking and
 * grows in place, so that a larger guest never copies bits from one log to the next. The device side maps what it was
 * given.
 */
#ifndef LV_MEMORY_LOG_H
#define LV_MEMORY_LOG_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define LV_LOG_PAGE 4096u

struct lv_log {
	atomic_uint refs;
	int fd; /* -1 on the device side */
	uint64_t bytes;
	uint8_t *bits; /* mapped, bytes long */
	void *map;     /* what to unmap, and how much */
	size_t map_bytes;
	_Atomic uint64_t outside; /* marks that fell beyond the end, dropped */
};

/* A log for guest addresses below end. 0; -EMFILE; -ENOMEM; -ENOSPC. */
int lv_log_new(uint64_t end, struct lv_log **ret);
/* Device side: maps what a front-end sent; bounds against fstat, regular files and memfds only. fd is borrowed. 0;
 * -EINVAL; -EOVERFLOW; -ENOMEM. */
int lv_log_import(int fd, uint64_t offset, uint64_t bytes, struct lv_log **ret);
struct lv_log *lv_log_ref(struct lv_log *log);
void lv_log_put(struct lv_log *log); /* NULL is allowed; the last one unmaps */
/* Marks the pages of [gpa, gpa + len). Any thread, no lock, no system call. */
void lv_log_mark(struct lv_log *log, uint64_t gpa, uint64_t len);

#endif
