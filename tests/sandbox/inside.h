/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* Runs code in a fresh thread that entered the sandbox, and code in a child process. Nothing inside may CHECK. */
#ifndef LV_TESTS_INSIDE_H
#define LV_TESTS_INSIDE_H

#include <vhost/worker.h>
#include "worker/policy.h"

struct inside {
	uint32_t role, action, caps;
	uint32_t num_syscalls;
	const struct libvhost_syscall_rule *syscalls;
	bool guard;
};

/* False when the sandbox could not be entered; fn has not run then. */
bool run_inside(const struct inside *how, void (*fn)(void *arg), void *arg);

/* Forks, runs fn in the child for at most 10 s, returns the wait status: 256 * exit code, or the signal. */
int status_of_child(void (*fn)(void));

/* One field of /proc/self/task/TID/status as a number; tid 0 = this thread. */
uint64_t status_field(unsigned tid, const char *name, int base);

#endif
