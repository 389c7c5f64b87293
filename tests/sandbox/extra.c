/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* System calls that the host adds to the filter of its workers. */
#include "check.h"
#include "inside.h"

#include <errno.h>
#include <fcntl.h>
#include <seccomp.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <vhost/libvhost.h>
#include "worker/extra.h"

struct answers {
	long parent, flags, flags_of_another, seals, thread;
};

static long asked(long value)
{
	return value < 0 ? -errno : value;
}

static void ask(void *arg)
{
	struct answers *a = arg;

	a->parent = asked(syscall(SYS_getppid));
	a->flags = asked(syscall(SYS_fcntl, 0, F_GETFL));
	a->flags_of_another = asked(syscall(SYS_fcntl, 1, F_GETFL));
	a->seals = asked(syscall(SYS_fcntl, 0, F_GET_SEALS));
	a->thread = asked(syscall(SYS_getcpu, NULL, NULL, NULL));
}

TEST(extra, rules_are_added_and_nothing_else)
{
	const struct libvhost_syscall_rule rules[] = {
		{.name = "getppid"},
		{.name = "fcntl", .num_args = 2, .arg = {1, 0}, .value = {F_GETFL, 0}},
		{.name = "read"}, /* allowed anyway */
	};
	struct answers a = {0};

	for (uint32_t role = 0; role < LV_ROLES - 1; role++) {
		CHECK(run_inside(&(struct inside){.role = role}, ask, &a));
		CHECK_EQ(a.parent, -EPERM);
		CHECK_EQ(a.flags, -EPERM);
		CHECK(run_inside(&(struct inside){.role = role, .num_syscalls = 3, .syscalls = rules}, ask, &a));
		CHECK_EQ(a.parent, getppid());
		CHECK(a.flags >= 0);
		CHECK_EQ(a.flags_of_another, -EPERM);
		CHECK_EQ(a.seals, -EPERM);
		CHECK_EQ(a.thread, -EPERM);
	}
}

static void open_null(void *arg)
{
	*(long *)arg = syscall(SYS_openat, AT_FDCWD, "/dev/null", O_RDONLY);
}

static void opens_where_it_may(void)
{
	const struct libvhost_syscall_rule rule = {.name = "openat", .num_args = 1, .arg = {2}, .value = {O_RDONLY}};
	long fd = -1;

	run_inside(&(struct inside){.action = LIBVHOST_SANDBOX_KILL_PROCESS, .num_syscalls = 1, .syscalls = &rule},
		   open_null, &fd);
	_exit(fd >= 0 ? 0 : 1);
}

TEST(extra, a_rule_goes_before_what_is_refused_kindly)
{
	CHECK_EQ(status_of_child(opens_where_it_may), 0);
}

static void refused(const struct libvhost_worker_opts *opts, const char *part)
{
	struct libvhost_error e = {.size = sizeof(e)};
	struct libvhost_worker *w = NULL;
	struct libvhost_ctx *ctx = NULL;

	CHECK_EQ(libvhost_ctx_new(NULL, &ctx), 0);
	CHECK_EQ(libvhost_worker_new(ctx, opts, &w), -EINVAL);
	CHECK(w == NULL);
	CHECK_EQ(libvhost_ctx_error(ctx, &e), 0);
	CHECK_EQ(e.kind, LIBVHOST_EK_ARGUMENT);
	CHECK_HAS(e.text, part);
	libvhost_ctx_free(ctx);
}

static void rule_refused(struct libvhost_syscall_rule rule, const char *part)
{
	struct libvhost_syscall_rule rules[2] = {{.name = "getppid"}, rule};
	struct libvhost_worker_opts opts = {.size = sizeof(opts), .num_syscalls = 2, .syscalls = rules};

	refused(&opts, part);
	refused(&opts, "extra system call 1");
}

TEST(extra, what_would_undo_the_sandbox_is_refused)
{
	const char *name;
	uint32_t n;

	for (n = 0; (name = lv_extra_undoing(n)) != NULL; n++) {
		CHECK(seccomp_syscall_resolve_name(name) != __NR_SCMP_ERROR); /* spelled right */
		rule_refused((struct libvhost_syscall_rule){.name = name}, name);
#ifdef __x86_64__
		rule_refused((struct libvhost_syscall_rule){.name = name}, "would undo the sandbox");
#endif
	}
	CHECK(n > 30);
}

TEST(extra, what_means_nothing_is_refused)
{
	struct libvhost_syscall_rule rules[33] = {{.name = "getppid"}};
	struct libvhost_worker_opts opts = {.size = sizeof(opts), .num_syscalls = 33, .syscalls = rules};

	refused(&opts, "33 extra system calls");
	opts.num_syscalls = 1;
	opts.syscalls = NULL;
	refused(&opts, "the list is missing");
	rule_refused((struct libvhost_syscall_rule){0}, "has no name");
	rule_refused((struct libvhost_syscall_rule){.name = "getpppid"}, "(getpppid) is not known");
	rule_refused((struct libvhost_syscall_rule){.name = "getppid", .num_args = 3}, "too many");
	rule_refused((struct libvhost_syscall_rule){.name = "getppid", .num_args = 1, .arg = {6}}, "0 to 5");
	rule_refused((struct libvhost_syscall_rule){.name = "fcntl", .num_args = 2, .arg = {1, 1}}, "twice");
	rule_refused((struct libvhost_syscall_rule){.name = "getppid", .reserved = 1}, "reserved");
#ifdef __x86_64__
	rule_refused((struct libvhost_syscall_rule){.name = "arm_sync_file_range"}, "does not exist");
#endif
}

TEST(extra, memory_and_devices_only_with_what_is_asked_of_them)
{
	rule_refused((struct libvhost_syscall_rule){.name = "mmap"}, "PROT_EXEC");
	rule_refused((struct libvhost_syscall_rule){.name = "ioctl", .num_args = 1, .arg = {0}}, "ioctl");
	rule_refused(
		(struct libvhost_syscall_rule){
			.name = "mprotect", .num_args = 1, .arg = {2}, .value = {PROT_READ | PROT_EXEC}},
		"PROT_EXEC");
}

/* The list is the caller's again as soon as the worker exists. */
TEST(extra, rules_are_copied)
{
	char name[] = "getppid";
	struct libvhost_syscall_rule rule = {.name = name};
	struct libvhost_worker_opts opts = {.size = sizeof(opts), .num_syscalls = 1, .syscalls = &rule};
	struct libvhost_worker_status s = {.size = sizeof(s)};
	struct libvhost_worker *w = NULL;
	struct libvhost_ctx *ctx = NULL;

	CHECK_EQ(libvhost_ctx_new(NULL, &ctx), 0);
	CHECK_EQ(libvhost_worker_new(ctx, &opts, &w), 0);
	memset(name, 'x', sizeof(name));
	CHECK_EQ(libvhost_worker_status(w, &s), 0);
	CHECK_EQ(s.seccomp, 2);
	libvhost_worker_free(w);
	libvhost_ctx_free(ctx);
}
