/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
#include "core/ctx.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "core/opts.h"
#include "core/sigbus.h"

#define DEFAULT_TIMEOUT_MS 5000u

static void destroy(struct libvhost_ctx *ctx)
{
	lv_folders_destroy(&ctx->folders);
	lv_objects_destroy(&ctx->objects);
	lv_errslot_destroy(&ctx->err);
	free(ctx);
}

int libvhost_ctx_new(const struct libvhost_ctx_opts *opts, struct libvhost_ctx **ret)
{
	struct libvhost_ctx_opts o;
	struct libvhost_ctx *ctx;
	int rc;

	if (!ret)
		return -EINVAL;
	rc = LV_OPTS_READ(NULL, &o, opts);
	if (rc < 0)
		return rc;
	if (o.flags & ~LIBVHOST_CTX_SIGBUS_GUARD || o.log_level > LIBVHOST_LOG_LEVEL_DEBUG ||
	    o.default_timeout_ms > LV_TIMEOUT_MAX_MS)
		return -EINVAL;
	ctx = calloc(1, sizeof(*ctx));
	if (!ctx)
		return -ENOMEM;
	if (!o.default_timeout_ms)
		o.default_timeout_ms = DEFAULT_TIMEOUT_MS;
	ctx->opts = o;
	atomic_init(&ctx->refs, 1);
	lv_errslot_init(&ctx->err);
	lv_objects_init(&ctx->objects);
	lv_folders_init(&ctx->folders);
	rc = lv_ctx_guards(ctx) ? lv_sigbus_get() : 0;
	if (rc < 0) {
		destroy(ctx);
		return rc;
	}
	if (rc > 0)
		lv_log(ctx, LIBVHOST_LOG_LEVEL_WARNING, LIBVHOST_EK_NONE,
		       "SIGBUS: the process has set another action since the guard was there; memory is guarded only "
		       "if "
		       "that action calls the one it found");
	*ret = ctx;
	return 0;
}

struct libvhost_ctx *lv_ctx_ref(struct libvhost_ctx *ctx)
{
	atomic_fetch_add(&ctx->refs, 1);
	return ctx;
}

void libvhost_ctx_free(struct libvhost_ctx *ctx)
{
	if (!ctx || atomic_fetch_sub(&ctx->refs, 1) != 1)
		return;
	if (lv_ctx_guards(ctx))
		lv_sigbus_put();
	destroy(ctx);
}

int libvhost_ctx_error(struct libvhost_ctx *ctx, struct libvhost_error *err)
{
	return ctx ? lv_errslot_read(&ctx->err, err) : -EINVAL;
}

void lv_log(struct libvhost_ctx *ctx, uint32_t level, uint32_t kind, const char *fmt, ...)
{
	char line[512];
	va_list args;

	if (!ctx->opts.log || level > ctx->opts.log_level)
		return;
	va_start(args, fmt);
	vsnprintf(line, sizeof(line), fmt, args);
	va_end(args);
	ctx->opts.log(ctx->opts.log_arg, level, kind, line);
}

uint64_t lv_now(struct libvhost_ctx *ctx)
{
	struct timespec ts;

	if (ctx && ctx->clock)
		return ctx->clock(ctx->clock_arg);
	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000ull + (uint64_t)ts.tv_nsec;
}

uint64_t lv_deadline(struct libvhost_ctx *ctx, uint32_t timeout_ms)
{
	return lv_now(ctx) + (timeout_ms ? timeout_ms : ctx->opts.default_timeout_ms) * LV_NS_PER_MS;
}

int lv_left_ms(struct libvhost_ctx *ctx, uint64_t deadline)
{
	uint64_t now = lv_now(ctx), ms;

	if (deadline <= now)
		return 0;
	ms = (deadline - now + LV_NS_PER_MS - 1) / LV_NS_PER_MS;
	return ms > LV_TIMEOUT_MAX_MS ? (int)LV_TIMEOUT_MAX_MS : (int)ms;
}

void lv_clock_replace(struct libvhost_ctx *ctx, uint64_t (*fn)(void *arg), void *arg)
{
	ctx->clock = fn;
	ctx->clock_arg = arg;
}
