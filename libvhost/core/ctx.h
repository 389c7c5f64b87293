/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
#ifndef LV_CORE_CTX_H
#define LV_CORE_CTX_H

#include <stdatomic.h>
#include <stdbool.h>
#include <vhost/ctx.h>
#include "core/clock.h"
#include "core/error.h"
#include "core/folders.h"
#include "core/objects.h"

struct libvhost_ctx {
	atomic_uint refs;
	struct libvhost_ctx_opts opts; /* read-only after creation */
	struct lv_errslot err;
	struct lv_objects objects;
	struct lv_folders folders;
	uint64_t (*clock)(void *arg); /* NULL = CLOCK_MONOTONIC */
	void *clock_arg;
};

struct libvhost_ctx *lv_ctx_ref(struct libvhost_ctx *ctx);

/* LIBVHOST_CTX_SIGBUS_GUARD: what it maps is guarded (core/sigbus.h), and its workers leave that signal open. */
static inline bool lv_ctx_guards(const struct libvhost_ctx *ctx)
{
	return ctx->opts.flags & LIBVHOST_CTX_SIGBUS_GUARD;
}

/* Formats and hands one line to the log sink if level is wanted. Never called on a worker. */
void lv_log(struct libvhost_ctx *ctx, uint32_t level, uint32_t kind, const char *fmt, ...) LV_PRINTF(4, 5);

#endif
