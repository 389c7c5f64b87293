/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
#include "worker/sandbox.h"

#include <cap-ng.h>
#include <errno.h>
#include <linux/capability.h>
#include <linux/seccomp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

struct cap_sets {
	struct __user_cap_data_struct word[2];
};

/* Not libcap-ng: its state is per thread, and on the host's thread that state may be in use by the host. */
static int read_caps(struct cap_sets *sets)
{
	struct __user_cap_header_struct hdr = {.version = _LINUX_CAPABILITY_VERSION_3};

	memset(sets, 0, sizeof(*sets));
	return syscall(SYS_capget, &hdr, sets->word) < 0 ? -errno : 0;
}

static bool permitted(const struct cap_sets *sets, unsigned cap)
{
	return sets->word[cap / 32].permitted >> (cap % 32) & 1;
}

/*
 * The C library runs setuid() and its kin on every thread and aborts the process when they disagree. A worker without
 * CAP_SETUID would disagree, so capabilities go by themselves only where no thread could succeed.
 */
static bool can_change_ids(void)
{
	struct cap_sets sets;

	return read_caps(&sets) < 0 || permitted(&sets, CAP_SETUID) || permitted(&sets, CAP_SETGID);
}

int lv_sandbox_prepare(struct lv_sandbox *sb, const struct libvhost_worker_opts *opts, int ring_fd, bool guard,
		       struct lv_errslot *err)
{
	const struct lv_filter_spec spec = {.role = opts->role,
					    .action = opts->action,
					    .ring_fd = ring_fd,
					    .guard = guard,
					    .num_extra = opts->num_syscalls,
					    .extra = opts->syscalls};
	int rc;

	*sb = (struct lv_sandbox){.mode = opts->sandbox, .action = opts->action};
	if (sb->mode == LIBVHOST_SANDBOX_OFF)
		return 0;
	sb->drop_caps = opts->caps == LIBVHOST_CAPS_DROP || (opts->caps == LIBVHOST_CAPS_AUTO && !can_change_ids());
	rc = lv_filter_build(&spec, &sb->code, &sb->length);
	if (rc == 0 || (sb->mode == LIBVHOST_SANDBOX_BEST_EFFORT && rc != -ENOMEM))
		return 0;
	return lv_fail(err, rc == -ENOMEM ? rc : -EPERM, LIBVHOST_EK_SANDBOX,
		       "worker: libseccomp cannot build the filter (%s); use sandbox mode best-effort to go without",
		       lv_errno_name(-rc));
}

void lv_sandbox_clear(struct lv_sandbox *sb)
{
	free(sb->code);
	sb->code = NULL;
}

static int caps_are_gone(void)
{
	struct cap_sets sets;
	int rc = read_caps(&sets);

	for (unsigned i = 0; rc == 0 && i < 2; i++)
		if (sets.word[i].effective || sets.word[i].permitted || sets.word[i].inheritable)
			rc = -EPERM;
	return rc;
}

/*
 * capng_lock() first: it needs CAP_SETPCAP. Without that capability neither it nor the bounding set can be changed,
 * which is fine because no_new_privs keeps both from mattering. The library's return values are not relied on (0.8.3
 * reports success where nothing changed): the kernel is asked.
 */
static int drop_caps(void)
{
	struct cap_sets sets;
	bool setpcap = read_caps(&sets) == 0 && permitted(&sets, CAP_SETPCAP);

	if (setpcap)
		capng_lock();
	capng_clear(CAPNG_SELECT_ALL);
	capng_apply(setpcap ? CAPNG_SELECT_ALL : CAPNG_SELECT_CAPS);
	prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
	return caps_are_gone();
}

static bool fell_short(const struct lv_sandbox *sb, struct lv_sandbox_result *result, const char *part, int sys_errno)
{
	if (!result->part)
		*result = (struct lv_sandbox_result){.part = part, .sys_errno = sys_errno};
	return sb->mode == LIBVHOST_SANDBOX_REQUIRED;
}

bool lv_sandbox_enter(const struct lv_sandbox *sb, struct lv_sandbox_result *result)
{
	struct sock_fprog program = {.len = sb->length, .filter = sb->code};
	int rc;

	*result = (struct lv_sandbox_result){0};
	if (sb->mode == LIBVHOST_SANDBOX_OFF)
		return true;
	rc = sb->drop_caps ? drop_caps() : 0;
	if (rc < 0 && fell_short(sb, result, "capabilities could not be dropped", -rc))
		return false;
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 && fell_short(sb, result, "no_new_privs was refused", errno))
		return false;
	if (!sb->code)
		return !fell_short(sb, result, "there is no filter", ENOSYS);
	/* The raw call: this thread only. libseccomp's load would change a context other threads may share. */
	if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program) < 0)
		return !fell_short(sb, result, "the kernel refused the filter", errno);
	return true;
}
