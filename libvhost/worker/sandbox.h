/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/*
 * The sandbox of one worker: prepared on the host's thread, entered on the worker's. Entering allocates nothing and
 * opens nothing after the filter is loaded.
 */
#ifndef LV_WORKER_SANDBOX_H
#define LV_WORKER_SANDBOX_H

#include <stdbool.h>
#include <linux/filter.h>
#include "core/error.h"
#include "worker/policy.h"

struct lv_sandbox {
	uint32_t mode, action;
	bool drop_caps;
	struct sock_filter *code; /* NULL without a filter */
	uint16_t length;	  /* instructions */
};

/* What entering came to; part and sys_errno describe the first thing that failed. */
struct lv_sandbox_result {
	const char *part; /* NULL = everything is in place */
	int sys_errno;
};

/*
 * Decides about capabilities and builds the filter. Runs on the host's thread and changes nothing there. 0; -EPERM
 * (required, but libseccomp cannot build it here); -ENOMEM. In best-effort mode a filter that cannot be built is left
 * out.
 */
int lv_sandbox_prepare(struct lv_sandbox *sb, const struct libvhost_worker_opts *opts, int ring_fd, bool guard,
		       struct lv_errslot *err);
void lv_sandbox_clear(struct lv_sandbox *sb);

/* Applies it to the calling thread: capabilities, no_new_privs, filter. True = go on (also when best effort fell
 * short).
 */
bool lv_sandbox_enter(const struct lv_sandbox *sb, struct lv_sandbox_result *result);

/* Builds a role's filter with libseccomp; *code is malloc'ed. 0 or negative errno. */
struct lv_filter_spec {
	uint32_t role, action;
	int ring_fd; /* -1 = none */
	uint32_t num_extra;
	const struct libvhost_syscall_rule *extra; /* the host's own, checked */
	bool guard;				   /* what LIBVHOST_CTX_SIGBUS_GUARD needs */
};
int lv_filter_build(const struct lv_filter_spec *spec, struct sock_filter **code, uint16_t *length);

#endif
