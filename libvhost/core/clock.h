/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* Monotonic time and deadlines. All waits compare against lv_now() of their context, which tests can replace. */
#ifndef LV_CORE_CLOCK_H
#define LV_CORE_CLOCK_H

#include <stdint.h>

struct libvhost_ctx;

#define LV_NS_PER_MS	  1000000ull
#define LV_TIMEOUT_MAX_MS 3600000u

/* Nanoseconds of the monotonic clock, or of the replacement. */
uint64_t lv_now(struct libvhost_ctx *ctx);
/* Absolute deadline for a relative timeout; 0 = the context's default. */
uint64_t lv_deadline(struct libvhost_ctx *ctx, uint32_t timeout_ms);
/* Milliseconds left, rounded up, 0 when past; fits poll(2). */
int lv_left_ms(struct libvhost_ctx *ctx, uint64_t deadline);

/* Tests only: time comes from fn(arg) from now on; NULL restores the real clock. */
void lv_clock_replace(struct libvhost_ctx *ctx, uint64_t (*fn)(void *arg), void *arg);

#endif
