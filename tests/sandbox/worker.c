/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* The sandbox as a host meets it: what the kernel says of workers. */
#include "check.h"
#include "inside.h"

#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include <vhost/libvhost.h>

static struct libvhost_worker *start(struct libvhost_ctx *ctx, const struct libvhost_worker_opts *opts)
{
	struct libvhost_worker *w = NULL;

	CHECK_EQ(libvhost_worker_new(ctx, opts, &w), 0);
	CHECK(w != NULL);
	return w;
}

TEST(sandbox, worker_is_confined)
{
	struct libvhost_worker_opts opts = {.size = sizeof(opts), .name = "test-worker"};
	struct libvhost_worker_status s = {.size = sizeof(s)};
	struct lv_ledger before = lv_ledger_take();
	struct libvhost_ctx *ctx = NULL;
	struct libvhost_worker *w;

	CHECK_EQ(libvhost_ctx_new(NULL, &ctx), 0);
	w = start(ctx, &opts);
	CHECK_EQ(libvhost_worker_status(w, &s), 0);
	CHECK_EQ(s.seccomp, 2);
	CHECK_EQ(s.no_new_privs, 1);
	CHECK_EQ(s.alive, 1);
	CHECK_EQ(status_field(s.tid, "Seccomp", 10), 2);
	CHECK_EQ(status_field(s.tid, "NoNewPrivs", 10), 1);
	/* signals: all but those that cannot be blocked and the C library's two */
	CHECK_EQ(status_field(s.tid, "SigBlk", 16), 0xfffffffe7ffbfeffull);
	libvhost_worker_free(w);
	libvhost_ctx_free(ctx);
	CHECK_LEDGER(before);
}

TEST(sandbox, a_thousand_lives)
{
	struct libvhost_ctx *ctx = NULL;
	struct lv_ledger before;

	CHECK_EQ(libvhost_ctx_new(NULL, &ctx), 0);
	libvhost_worker_free(start(ctx, NULL));
	before = lv_ledger_take();
	for (unsigned i = 0; i < 1000; i++) {
		struct libvhost_worker_opts opts = {.size = sizeof(opts), .caps = i % 3, .role = i % LV_ROLES};

		libvhost_worker_free(start(ctx, &opts));
	}
	CHECK_LEDGER(before);
	CHECK(lv_ledger_take().maps <= before.maps + 4);
	libvhost_ctx_free(ctx);
}

/* What a host that refuses seccomp(2) looks like. */
static void refuse_seccomp(void)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_seccomp, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog program = {.len = sizeof(code) / sizeof(*code), .filter = code};

	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) < 0)
		_exit(10);
}

static void on_degraded_host(void)
{
	struct libvhost_worker_opts opts = {.size = sizeof(opts)};
	struct libvhost_error e = {.size = sizeof(e)};
	struct libvhost_worker *w = NULL;
	struct libvhost_ctx *ctx = NULL;

	refuse_seccomp();
	if (libvhost_ctx_new(NULL, &ctx) < 0)
		_exit(1);
	if (libvhost_worker_new(ctx, &opts, &w) != -EPERM || w)
		_exit(2);
	libvhost_ctx_error(ctx, &e);
	if (e.kind != LIBVHOST_EK_SANDBOX)
		_exit(3);
	opts.sandbox = LIBVHOST_SANDBOX_BEST_EFFORT;
	if (libvhost_worker_new(ctx, &opts, &w) < 0)
		_exit(4);
	libvhost_worker_free(w);
	libvhost_ctx_free(ctx);
	_exit(0);
}

TEST(sandbox, required_and_best_effort_on_a_host_without_seccomp)
{
	CHECK_EQ(status_of_child(on_degraded_host), 0);
}

TEST(sandbox, off_is_off)
{
	struct libvhost_worker_opts opts = {.size = sizeof(opts), .sandbox = LIBVHOST_SANDBOX_OFF};
	struct libvhost_worker_status s = {.size = sizeof(s)};
	struct libvhost_ctx *ctx = NULL;
	struct libvhost_worker *w;

	CHECK_EQ(libvhost_ctx_new(NULL, &ctx), 0);
	w = start(ctx, &opts);
	CHECK_EQ(libvhost_worker_status(w, &s), 0);
	CHECK_EQ(s.seccomp, 0);
	CHECK_EQ(s.no_new_privs, 0);
	libvhost_worker_free(w);
	libvhost_ctx_free(ctx);
}

static struct libvhost_worker *inherited;

static void free_inherited(void)
{
	libvhost_worker_free(inherited); /* the thread is not here: must not wait for it */
}

TEST(sandbox, forked_child_leaves_the_parent_alone)
{
	struct libvhost_worker_status s = {.size = sizeof(s)};
	struct libvhost_ctx *ctx = NULL;

	CHECK_EQ(libvhost_ctx_new(NULL, &ctx), 0);
	inherited = start(ctx, NULL);
	CHECK_EQ(status_of_child(free_inherited), 0);
	CHECK_EQ(libvhost_worker_status(inherited, &s), 0);
	CHECK_EQ(s.alive, 1);
	libvhost_worker_free(inherited);
	libvhost_ctx_free(ctx);
}

static void ignore(int signo)
{
	(void)signo;
}

TEST(sandbox, idle_worker_sleeps)
{
	struct libvhost_worker_opts opts = {.size = sizeof(opts), .poll_us = 100};
	struct libvhost_worker_status s = {.size = sizeof(s)};
	struct libvhost_ctx *ctx = NULL;
	struct libvhost_worker *w;
	uint64_t wakeups;

	CHECK_EQ(libvhost_ctx_new(NULL, &ctx), 0);
	w = start(ctx, &opts);
	usleep(50000);
	CHECK_EQ(libvhost_worker_status(w, &s), 0);
	wakeups = s.wakeups;
	signal(SIGUSR1, ignore);
	for (int i = 0; i < 10; i++) {
		kill(getpid(), SIGUSR1); /* blocked there: does not wake it */
		usleep(50000);
	}
	CHECK_EQ(libvhost_worker_status(w, &s), 0);
	CHECK_EQ(s.wakeups, wakeups);
	libvhost_worker_free(w);
	libvhost_ctx_free(ctx);
}
