/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* Shorthands of the tests about SIGBUS: faults of the test's own, and processes that have to die. */
#ifndef LV_TESTS_SIGBUSHELP_H
#define LV_TESTS_SIGBUSHELP_H

#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include "core/sanitize.h"
#include "core/sigbus.h"
#include "memhelp.h"

/* pages of a file that ends before them. */
static inline uint8_t *map_gone(size_t pages)
{
	int fd = memfd(pages * PAGE, 0);
	uint8_t *at = mmap(NULL, pages * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	CHECK(at != MAP_FAILED);
	CHECK_EQ(ftruncate(fd, 0), 0);
	close(fd);
	return at;
}

static inline uint8_t load(const uint8_t *at)
{
	return *(const volatile uint8_t *)at;
}

/* Runs fn in a child that has the default action; its wait status. */
static inline int status_of(void (*fn)(void))
{
	int status = -1;
	pid_t pid;

	fflush(NULL);
	pid = fork();
	if (pid == 0) {
		prctl(PR_SET_DUMPABLE, 0); /* no core files of children that are meant to die */
		signal(SIGBUS, SIG_DFL);
		signal(SIGALRM, SIG_DFL);
		alarm(20);
		fn();
		_exit(0);
	}
	CHECK(pid > 0);
	CHECK_EQ(waitpid(pid, &status, 0), pid);
	return status;
}

static inline bool died_of_it(int status)
{
	return WIFSIGNALED(status) && WTERMSIG(status) == SIGBUS;
}

static inline struct libvhost_ctx *guarding_ctx(void)
{
	const struct libvhost_ctx_opts o = {.size = sizeof(o), .flags = LIBVHOST_CTX_SIGBUS_GUARD};
	struct libvhost_ctx *ctx = NULL;

	CHECK_EQ(libvhost_ctx_new(&o, &ctx), 0);
	return ctx;
}

/* Whether a fault in guarded memory is mended just now. */
static inline bool mends(void)
{
	uint8_t *at = map_gone(1);
	struct lv_guarded *g = lv_sigbus_guard(at, PAGE, PAGE);
	const bool zero = !load(at);

	lv_sigbus_release(g);
	munmap(at, PAGE);
	return zero;
}

#endif
