/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
#include "core/error.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "core/opts.h"

#define LV_EK(number, name, text) _Static_assert(LIBVHOST_EK_##name == (number), "error kind renumbered: " text);
#include "core/error-kinds.def"
#undef LV_EK

const char *libvhost_error_kind_name(uint32_t kind)
{
	switch (kind) {
#define LV_EK(number, name, text)                                                                                      \
	case number:                                                                                                   \
		return text;
#include "core/error-kinds.def"
#undef LV_EK
	default:
		return "unknown";
	}
}

const char *lv_errno_name(int sys_errno)
{
	const char *name = strerrorname_np(sys_errno);

	return name ? name : "unknown errno";
}

void lv_errslot_init(struct lv_errslot *slot)
{
	const struct lv_where none = LV_WHERE_NONE;

	memset(slot, 0, sizeof(*slot));
	pthread_mutex_init(&slot->lock, NULL);
	slot->last.op = none.op;
	slot->last.queue = none.queue;
	slot->last.request = none.request;
	slot->last.first_unknown = none.first_unknown;
	slot->last.last_unknown = none.last_unknown;
}

void lv_errslot_destroy(struct lv_errslot *slot)
{
	pthread_mutex_destroy(&slot->lock);
}

LV_PRINTF(5, 0)
static int record(struct lv_errslot *slot, int code, enum libvhost_error_kind kind, const struct lv_where *where,
		  const char *fmt, va_list args)
{
	struct libvhost_error e = {
		.size = sizeof(e),
		.code = code,
		.kind = kind,
		.op = where->op,
		.queue = where->queue,
		.sys_errno = where->sys_errno,
		.peer_ack = where->peer_ack,
		.request = where->request,
		.first_unknown = where->first_unknown,
		.last_unknown = where->last_unknown,
	};

	if (!slot)
		return code;
	vsnprintf(e.text, sizeof(e.text), fmt, args);
	pthread_mutex_lock(&slot->lock);
	slot->last = e;
	slot->count++;
	pthread_mutex_unlock(&slot->lock);
	return code;
}

int lv_fail(struct lv_errslot *slot, int code, enum libvhost_error_kind kind, const char *fmt, ...)
{
	const struct lv_where where = LV_WHERE_NONE;
	va_list args;

	va_start(args, fmt);
	record(slot, code, kind, &where, fmt, args);
	va_end(args);
	return code;
}

int lv_fail_at(struct lv_errslot *slot, int code, enum libvhost_error_kind kind, const struct lv_where *where,
	       const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	record(slot, code, kind, where, fmt, args);
	va_end(args);
	return code;
}

int lv_fail_sys(struct lv_errslot *slot, int sys_errno, const char *fmt, ...)
{
	enum libvhost_error_kind kind = LIBVHOST_EK_SYSTEM;
	struct lv_where where = LV_WHERE_NONE;
	va_list args;

	if (sys_errno == EMFILE || sys_errno == ENFILE || sys_errno == ETOOMANYREFS)
		kind = LIBVHOST_EK_FD_LIMIT;
	else if (sys_errno == ENOMEM)
		kind = LIBVHOST_EK_NOMEM;
	where.sys_errno = sys_errno;
	va_start(args, fmt);
	record(slot, -sys_errno, kind, &where, fmt, args);
	va_end(args);
	return -sys_errno;
}

int lv_fail_copy(struct lv_errslot *to, struct lv_errslot *from)
{
	struct libvhost_error e;

	pthread_mutex_lock(&from->lock);
	e = from->last;
	pthread_mutex_unlock(&from->lock);
	pthread_mutex_lock(&to->lock);
	to->last = e;
	to->count++;
	pthread_mutex_unlock(&to->lock);
	return e.code;
}

uint32_t lv_errslot_count(struct lv_errslot *slot)
{
	uint32_t count;

	pthread_mutex_lock(&slot->lock);
	count = slot->count;
	pthread_mutex_unlock(&slot->lock);
	return count;
}

int lv_errslot_read(struct lv_errslot *slot, struct libvhost_error *out)
{
	struct libvhost_error copy;

	pthread_mutex_lock(&slot->lock);
	copy = slot->last;
	pthread_mutex_unlock(&slot->lock);
	return LV_OUT_WRITE(out, &copy);
}
