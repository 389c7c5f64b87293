/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* System calls that the host adds to a worker's filter: what may be asked for. */
#include <errno.h>
#include <seccomp.h>
#include <string.h>
#include <sys/mman.h>

#include "worker/extra.h"

/* What would undo the sandbox, or do what the filter refuses by another way. */
static const char *const undoing[] = {
	"execve",
	"execveat",
	"fork",
	"vfork",
	"clone",
	"clone3",
	"seccomp",
	"prctl",
	"capset",
	"personality",
	"ptrace",
	"process_vm_readv",
	"process_vm_writev",
	"pidfd_getfd",
	"io_uring_setup",
	"io_uring_register",
	"io_uring_enter",
	"bpf",
	"perf_event_open",
	"userfaultfd",
	"mount",
	"umount2",
	"move_mount",
	"open_tree",
	"fsopen",
	"fsmount",
	"pivot_root",
	"chroot",
	"setns",
	"unshare",
	"init_module",
	"finit_module",
	"delete_module",
	"kexec_load",
	"kexec_file_load",
	"shmat",
	"remap_file_pages",
	"keyctl",
	"open_by_handle_at",
};

/* Calls whose meaning is in one argument: allowed only with a value for it. */
static const struct {
	const char *name;
	uint32_t arg;
	uint64_t never; /* bits that the value must not have */
} selective[] = {
	{"mmap", 2, PROT_EXEC},
	{"mprotect", 2, PROT_EXEC},
	{"pkey_mprotect", 2, PROT_EXEC},
	{"ioctl", 1, 0},
};

const char *lv_extra_undoing(uint32_t n)
{
	return n < sizeof(undoing) / sizeof(*undoing) ? undoing[n] : NULL;
}

static bool undoes(const char *name)
{
	const char *never;

	for (uint32_t n = 0; (never = lv_extra_undoing(n)) != NULL; n++)
		if (!strcmp(name, never))
			return true;
	return false;
}

static bool is_narrow(const struct libvhost_syscall_rule *rule)
{
	for (size_t n = 0; n < sizeof(selective) / sizeof(*selective); n++) {
		bool narrow = false;

		if (strcmp(rule->name, selective[n].name) != 0)
			continue;
		for (uint32_t i = 0; i < rule->num_args; i++)
			narrow |= rule->arg[i] == selective[n].arg && !(rule->value[i] & selective[n].never);
		return narrow;
	}
	return true;
}

static const char *refusal(const struct libvhost_syscall_rule *rule, int nr)
{
	if (rule->num_args > LV_EXTRA_ARGS)
		return "compares too many arguments: 2 at most";
	if (rule->reserved)
		return "has something in a reserved field";
	for (uint32_t i = 0; i < rule->num_args; i++)
		if (rule->arg[i] > 5)
			return "compares an argument that no call has: they are 0 to 5";
	if (rule->num_args == 2 && rule->arg[0] == rule->arg[1])
		return "compares one argument twice; use two rules";
	if (nr == __NR_SCMP_ERROR)
		return "is not known to libseccomp: look for a slip in its name";
	if (nr < 0)
		return "does not exist on this architecture";
	if (undoes(rule->name))
		return "would undo the sandbox: do it on a thread of the host";
	if (!is_narrow(rule))
		return "is allowed only for a given argument: memory protection without PROT_EXEC (2) or the request "
		       "of "
		       "an ioctl (1)";
	return NULL;
}

int lv_extra_check(struct lv_errslot *err, const struct libvhost_worker_opts *opts)
{
	if (opts->num_syscalls > LV_EXTRA_RULES || (opts->num_syscalls && !opts->syscalls))
		return lv_fail(err, -EINVAL, LIBVHOST_EK_ARGUMENT,
			       "worker: %u extra system calls: more than %u, or the list is missing",
			       opts->num_syscalls, LV_EXTRA_RULES);
	for (uint32_t n = 0; n < opts->num_syscalls; n++) {
		const struct libvhost_syscall_rule *rule = &opts->syscalls[n];
		const char *why = rule->name ? refusal(rule, seccomp_syscall_resolve_name(rule->name)) : "has no name";

		if (why)
			return lv_fail(err, -EINVAL, LIBVHOST_EK_ARGUMENT, "worker: extra system call %u (%.32s) %s", n,
				       rule->name ? rule->name : "", why);
	}
	return 0;
}
