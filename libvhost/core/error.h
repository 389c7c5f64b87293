/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* The error slot that every handle carries. */
#ifndef LV_CORE_ERROR_H
#define LV_CORE_ERROR_H

#include <pthread.h>
#include <vhost/error.h>

#define LV_PRINTF(fmt, args) __attribute__((format(printf, fmt, args)))

/* One slot per handle. The lock makes libvhost_*_error() safe while another thread is inside an operation. */
struct lv_errslot {
	pthread_mutex_t lock;
	uint32_t count; /* recorded so far */
	struct libvhost_error last;
};

void lv_errslot_init(struct lv_errslot *slot);
void lv_errslot_destroy(struct lv_errslot *slot);

/* What lv_fail needs to know beyond code, kind and text. Zero-filled fields op/queue/request mean "none" only through
 * LV_WHERE_NONE. */
struct lv_where {
	uint32_t op, queue, request, first_unknown, last_unknown;
	int sys_errno;
	uint64_t peer_ack;
};
#define LV_WHERE_NONE                                                                                                  \
	((struct lv_where){.op = LIBVHOST_NONE,                                                                        \
			   .queue = LIBVHOST_NONE,                                                                     \
			   .request = LIBVHOST_NONE,                                                                   \
			   .first_unknown = LIBVHOST_NONE,                                                             \
			   .last_unknown = LIBVHOST_NONE})

/* Records the error and returns code (negative errno), so that callers write `return lv_fail(...)`. slot may be NULL.
 */
int lv_fail(struct lv_errslot *slot, int code, enum libvhost_error_kind kind, const char *fmt, ...) LV_PRINTF(4, 5);
int lv_fail_at(struct lv_errslot *slot, int code, enum libvhost_error_kind kind, const struct lv_where *where,
	       const char *fmt, ...) LV_PRINTF(5, 6);
/* A failed system call: errno is taken from sys_errno; EMFILE, ENFILE and ETOOMANYREFS become FD_LIMIT, ENOMEM becomes
 * NOMEM. */
int lv_fail_sys(struct lv_errslot *slot, int sys_errno, const char *fmt, ...) LV_PRINTF(3, 4);
/* Takes over an error another handle recorded (a device reports what its transport said). Returns from's code. */
int lv_fail_copy(struct lv_errslot *to, struct lv_errslot *from);
/* Changes with each error. */
uint32_t lv_errslot_count(struct lv_errslot *slot);
/* Body of every libvhost_*_error(). */
int lv_errslot_read(struct lv_errslot *slot, struct libvhost_error *out);

/* "ENOENT" for 2; a plain number in a static table otherwise "errno". Thread-safe (strerror is not). */
const char *lv_errno_name(int sys_errno);

#endif
