/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* Size-checked option structs: callers older and newer than the library both get an answer they can act on. */
#ifndef LV_CORE_OPTS_H
#define LV_CORE_OPTS_H

#include <stddef.h>
#include "core/error.h"

/*
 * Copies the caller's struct src (first field: uint32_t size) into dst, which is zero-filled first and known bytes
 * long. v1 is the size of the first published version. src NULL = all zero. Errors: size < v1: -EINVAL OPTS_TOO_SMALL;
 * size > 4096: -EINVAL OPTS_ABSURD; non-zero bytes beyond known: -E2BIG OPTS_UNKNOWN.
 */
int lv_opts_read(struct lv_errslot *slot, void *dst, size_t known, size_t v1, const void *src, const char *what);

/* The usual case: dst has the current version's type, whose first version had the same size. */
#define LV_OPTS_READ(slot, dst, src) lv_opts_read((slot), (dst), sizeof(*(dst)), sizeof(*(dst)), (src), #src)

/* Copies an output struct into the caller's, whose size field says how much of it the caller knows. -EINVAL if below
 * v1. */
int lv_out_write(void *caller, const void *ours, size_t known, size_t v1);
#define LV_OUT_WRITE(caller, ours) lv_out_write((caller), (ours), sizeof(*(ours)), sizeof(*(ours)))

#endif
