/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
#ifndef LV_WORKER_EXTRA_H
#define LV_WORKER_EXTRA_H

#include <stdbool.h>
#include <vhost/worker.h>
#include "core/error.h"

#define LV_EXTRA_RULES 32u
#define LV_EXTRA_ARGS  2u

/* Whether the host's own rules may be loaded. 0; -EINVAL: says which rule and why not. */
int lv_extra_check(struct lv_errslot *err, const struct libvhost_worker_opts *opts);

/* Calls that are never allowed, one after another; NULL at the end. Some exist on other architectures only. */
const char *lv_extra_undoing(uint32_t n);

#endif
