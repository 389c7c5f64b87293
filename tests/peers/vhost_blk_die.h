/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* For a copy of DPDK's vhost_blk: dies where and when VHOST_BLK_DIE=POINT:N says, at the N-th passing of that point. */
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static inline void die(const char *point)
{
	const char *when = getenv("VHOST_BLK_DIE");
	const size_t len = strlen(point);
	static long passed;

	if (when && !strncmp(when, point, len) && when[len] == ':' && ++passed == atol(when + len + 1))
		kill(getpid(), SIGKILL);
}
