/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
#include "worker/policy.h"

#include <fcntl.h>
#include <linux/falloc.h>
#include <seccomp.h>
#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include "core/sigbus.h"

enum {
	BLOCK = 1u << LIBVHOST_ROLE_BLOCK,
	STREAM = 1u << LIBVHOST_ROLE_STREAM,
	CONTROL = 1u << LIBVHOST_ROLE_CONTROL,
	EVERY = LV_ROLES_ALL,
	GUARDED = 1u << LV_GUARDED
};

/* A condition expands to initialisers; their number is counted from a compound literal of the same initialisers. */
#define ANY
#define AND ,
#define ARG(index, value)                                                                                              \
	{                                                                                                              \
		(index), UINT64_MAX, (uint64_t)(value)                                                                 \
	}
#define CLEAR(index, bits)                                                                                             \
	{                                                                                                              \
		(index), (uint64_t)(bits), 0                                                                           \
	}
#define ARGS(...) (sizeof((struct lv_rule_arg[]){{0, 0, 0}, __VA_ARGS__}) / sizeof(struct lv_rule_arg) - 1)

static const struct lv_rule rules[] = {
#define LV_RULE(call, who, cond, reason)                                                                               \
	{                                                                                                              \
		.name = #call,                                                                                         \
		.nr = SCMP_SYS(call),                                                                                  \
		.roles = (who),                                                                                        \
		.nargs = ARGS(cond),                                                                                   \
		.args = {cond},                                                                                        \
		.condition = #cond,                                                                                    \
		.why = reason,                                                                                         \
	},
#include "worker/policy.def"
#undef LV_RULE
};

const struct lv_rule *lv_rule(uint32_t n)
{
	return n < sizeof(rules) / sizeof(*rules) ? &rules[n] : NULL;
}

int lv_rule_applies(const struct lv_rule *rule, uint32_t role)
{
	return rule->nr >= 0 && rule->roles >> role & 1;
}

uint64_t lv_rule_value(const struct lv_rule_arg *arg, int ring_fd)
{
	if (arg->value == LV_OWN_PID)
		return (uint64_t)getpid();
	if (arg->value == LV_OWN_RING)
		return (uint64_t)(int64_t)ring_fd;
	return arg->value;
}

const char *libvhost_syscalls(uint32_t role, uint32_t index)
{
	if (role >= LV_ROLES)
		return NULL;
	for (uint32_t n = 0; lv_rule(n); n++)
		if (lv_rule_applies(lv_rule(n), role) && index-- == 0)
			return lv_rule(n)->name;
	return NULL;
}
