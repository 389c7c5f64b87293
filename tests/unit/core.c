/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
#include "check.h"

#include <errno.h>
#include <vhost/libvhost.h>
#include "core/ctx.h"
#include "core/opts.h"
#include "core/recorder.h"

TEST(core, context_defaults_and_null)
{
	struct libvhost_ctx *ctx = NULL;

	CHECK_EQ(libvhost_ctx_new(NULL, &ctx), 0);
	CHECK_EQ(ctx->opts.default_timeout_ms, 5000);
	libvhost_ctx_free(ctx);
	libvhost_ctx_free(NULL);
	CHECK_EQ(libvhost_ctx_new(NULL, NULL), -EINVAL);
}

TEST(core, options_have_three_errors)
{
	struct {
		struct libvhost_ctx_opts known;
		uint64_t future;
	} o = {.known = {.size = 4}};
	struct libvhost_ctx *ctx = NULL;
	struct libvhost_error e = {.size = sizeof(e)};
	struct lv_errslot slot;
	char dst[sizeof(o.known)];

	lv_errslot_init(&slot);
	CHECK_EQ(lv_opts_read(&slot, dst, sizeof(dst), sizeof(dst), &o, "o"), -EINVAL);
	lv_errslot_read(&slot, &e);
	CHECK_EQ(e.kind, LIBVHOST_EK_OPTS_TOO_SMALL);
	o.known.size = 1 << 20;
	CHECK_EQ(lv_opts_read(&slot, dst, sizeof(dst), sizeof(dst), &o, "o"), -EINVAL);
	lv_errslot_read(&slot, &e);
	CHECK_EQ(e.kind, LIBVHOST_EK_OPTS_ABSURD);
	o.known.size = sizeof(o);
	o.future = 1;
	CHECK_EQ(libvhost_ctx_new(&o.known, &ctx), -E2BIG);
	o.future = 0;
	CHECK_EQ(libvhost_ctx_new(&o.known, &ctx), 0);
	libvhost_ctx_free(ctx);
	lv_errslot_destroy(&slot);
}

TEST(core, error_text_is_bounded_and_copied)
{
	struct libvhost_error e = {.size = sizeof(e)};
	struct lv_errslot slot;
	char big[1000];

	memset(big, 'x', sizeof(big) - 1);
	big[sizeof(big) - 1] = 0;
	lv_errslot_init(&slot);
	CHECK_EQ(lv_fail(&slot, -EIO, LIBVHOST_EK_REFUSED, "%s", big), -EIO);
	CHECK_EQ(lv_errslot_read(&slot, &e), 0);
	CHECK_EQ(strlen(e.text), LIBVHOST_ERROR_TEXT - 1);
	CHECK_EQ(e.queue, LIBVHOST_NONE);
	CHECK_EQ(lv_fail_sys(&slot, EMFILE, "open"), -EMFILE);
	CHECK_EQ(lv_errslot_read(&slot, &e), 0);
	CHECK_EQ(e.kind, LIBVHOST_EK_FD_LIMIT);
	CHECK_STR(libvhost_error_kind_name(e.kind), "descriptor-limit");
	lv_errslot_destroy(&slot);
}

/* A caller compiled against another version of the struct. */
TEST(core, errors_fit_older_and_newer_callers)
{
	struct {
		struct libvhost_error known;
		uint64_t future;
	} newer = {.known = {.size = sizeof(newer)}, .future = 7};
	struct libvhost_error e = {.size = sizeof(e) - 1};
	struct lv_errslot slot;

	lv_errslot_init(&slot);
	lv_fail(&slot, -EIO, LIBVHOST_EK_REFUSED, "no");
	CHECK_EQ(lv_errslot_read(&slot, NULL), -EINVAL);
	CHECK_EQ(lv_errslot_read(&slot, &e), -EINVAL); /* its text could not be terminated */
	CHECK_EQ(e.code, 0);
	CHECK_EQ(lv_errslot_read(&slot, &newer.known), 0);
	CHECK_EQ(newer.known.code, -EIO);
	CHECK_EQ(newer.known.size, sizeof(newer));
	CHECK_EQ(newer.future, 0);
	lv_errslot_destroy(&slot);
}

TEST(core, recorder_keeps_the_newest_64)
{
	struct libvhost_history h[64];
	struct libvhost_req reqs[100];
	struct lv_recorder rec;
	uint32_t n = 64;

	memset(reqs, 0, sizeof(reqs));
	for (uint32_t i = 0; i < 100; i++)
		reqs[i].index = i;
	lv_recorder_init(&rec);
	lv_recorder_note(&rec, 1, reqs, 100);
	lv_recorder_read(&rec, h, &n);
	CHECK_EQ(n, 64);
	CHECK_EQ(h[0].index, 36);
	CHECK_EQ(h[63].index, 99);
	lv_recorder_destroy(&rec);
}

static uint64_t frozen(void *arg)
{
	return *(uint64_t *)arg;
}

TEST(core, clock_can_be_replaced)
{
	struct libvhost_ctx *ctx = NULL;
	uint64_t now = 5 * LV_NS_PER_MS, deadline;

	CHECK_EQ(libvhost_ctx_new(NULL, &ctx), 0);
	lv_clock_replace(ctx, frozen, &now);
	deadline = lv_deadline(ctx, 10);
	CHECK_EQ(lv_left_ms(ctx, deadline), 10);
	now += 9 * LV_NS_PER_MS + 1;
	CHECK_EQ(lv_left_ms(ctx, deadline), 1);
	now += LV_NS_PER_MS;
	CHECK_EQ(lv_left_ms(ctx, deadline), 0);
	libvhost_ctx_free(ctx);
}
