/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* The sandbox policy as data; see policy.def. */
#ifndef LV_WORKER_POLICY_H
#define LV_WORKER_POLICY_H

#include <stdint.h>
#include <vhost/worker.h>

#define LV_RULE_MAX_ARGS 2u
#define LV_ROLES	 (LIBVHOST_ROLE_CONTROL + 1u)
#define LV_ROLES_ALL	 ((1u << LV_ROLES) - 1)
/* Stands in the table as one more role: workers of contexts with LIBVHOST_CTX_SIGBUS_GUARD, whatever theirs is. */
#define LV_GUARDED LV_ROLES

/* "The process that builds the filter" in place of a value: known only when the filter is built. */
#define LV_OWN_PID UINT64_MAX
/* The worker's io_uring, which is no descriptor at all where it has none. */
#define LV_OWN_RING (UINT64_MAX - 1)

/* fallocate() modes of a discard. */
#define LV_PUNCH_HOLE (FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE)
/* fallocate() modes of writing zeroes. */
#define LV_ZERO_RANGE (FALLOC_FL_KEEP_SIZE | FALLOC_FL_ZERO_RANGE)

struct lv_rule_arg {
	uint32_t index; /* 0..5 */
	uint64_t mask;	/* which bits are compared */
	uint64_t value; /* what they must be; LV_OWN_* stand for what is known later */
};

struct lv_rule {
	const char *name;
	int nr;		/* negative: this architecture does not have it */
	uint32_t roles; /* bit n: role n has it */
	uint32_t nargs;
	struct lv_rule_arg args[LV_RULE_MAX_ARGS];
	const char *condition; /* as text, for the manual */
	const char *why;
};

/* Row n of the table, NULL at the end; rows that this architecture does not have are included. */
const struct lv_rule *lv_rule(uint32_t n);
/* Whether a role's filter has this row. */
int lv_rule_applies(const struct lv_rule *rule, uint32_t role);
/* The value to compare with, for a worker whose io_uring is ring_fd, -1 = none. */
uint64_t lv_rule_value(const struct lv_rule_arg *arg, int ring_fd);

#endif
