/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* From the policy table to BPF instructions, by way of libseccomp. */
#include <errno.h>
#include <pthread.h>
#include <seccomp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/wire.h"
#include "worker/extra.h"
#include "worker/sandbox.h"

/*
 * libseccomp keeps what it found out about the kernel in unprotected global variables. Two threads that make workers
 * would race there, whatever contexts they use; one lock around all use of libseccomp is the only cure a library has.
 * Held for some 200 microseconds, on host threads only.
 */
static pthread_mutex_t libseccomp_lock = PTHREAD_MUTEX_INITIALIZER;

static uint32_t default_action(uint32_t action)
{
	switch (action) {
	case LIBVHOST_SANDBOX_KILL_PROCESS:
		return SCMP_ACT_KILL_PROCESS;
	case LIBVHOST_SANDBOX_LOG:
		return SCMP_ACT_LOG;
	default:
		return SCMP_ACT_ERRNO(EPERM);
	}
}

static int allow(scmp_filter_ctx ctx, int nr, const struct scmp_arg_cmp *cmp, uint32_t num)
{
	return seccomp_rule_add_array(ctx, SCMP_ACT_ALLOW, nr, num, cmp);
}

static int add_rule(scmp_filter_ctx ctx, const struct lv_rule *rule, int ring_fd)
{
	struct scmp_arg_cmp cmp[LV_RULE_MAX_ARGS];

	for (uint32_t i = 0; i < rule->nargs; i++)
		cmp[i] = (struct scmp_arg_cmp){
			.arg = rule->args[i].index,
			.op = SCMP_CMP_MASKED_EQ,
			.datum_a = rule->args[i].mask,
			.datum_b = lv_rule_value(&rule->args[i], ring_fd),
		};
	return allow(ctx, rule->nr, cmp, rule->nargs);
}

/* One of the host's, which lv_extra_check() has seen. */
static int add_extra(scmp_filter_ctx ctx, const struct libvhost_syscall_rule *rule)
{
	struct scmp_arg_cmp cmp[LV_EXTRA_ARGS];

	for (uint32_t i = 0; i < rule->num_args; i++)
		cmp[i] = (struct scmp_arg_cmp){.arg = rule->arg[i], .op = SCMP_CMP_EQ, .datum_a = rule->value[i]};
	return allow(ctx, seccomp_syscall_resolve_name(rule->name), cmp, rule->num_args);
}

static bool extra_has(const struct lv_filter_spec *spec, const char *name)
{
	for (uint32_t n = 0; n < spec->num_extra; n++)
		if (!strcmp(spec->extra[n].name, name))
			return true;
	return false;
}

static int add_rules(scmp_filter_ctx ctx, const struct lv_filter_spec *spec)
{
	const struct lv_rule *rule;
	int rc;

	/* int 0x80 and x32 numbers: libseccomp's own choice would be to kill the thread, which leaves locks held. */
	rc = seccomp_attr_set(ctx, SCMP_FLTATR_ACT_BADARCH,
			      spec->action == LIBVHOST_SANDBOX_KILL_PROCESS ? SCMP_ACT_KILL_PROCESS
									    : SCMP_ACT_ERRNO(EPERM));
	for (uint32_t n = 0; rc == 0 && (rule = lv_rule(n)) != NULL; n++)
		if (lv_rule_applies(rule, spec->role) || (spec->guard && lv_rule_applies(rule, LV_GUARDED)))
			rc = add_rule(ctx, rule, spec->ring_fd);
	for (uint32_t n = 0; rc == 0 && n < spec->num_extra; n++)
		rc = add_extra(ctx, &spec->extra[n]);
	/* glibc's free() may look at /proc/sys/vm/overcommit_memory when a thread's heap shrinks. That is no attack:
	 * it copes with a refusal, so refuse it without killing anybody. */
	if (rc == 0 && spec->action == LIBVHOST_SANDBOX_KILL_PROCESS && !extra_has(spec, "openat"))
		rc = seccomp_rule_add_array(ctx, SCMP_ACT_ERRNO(EPERM), SCMP_SYS(openat), 0, NULL);
	return rc;
}

/* libseccomp 2.5 writes filters only to descriptors. */
static int export_code(scmp_filter_ctx ctx, struct sock_filter **code, uint16_t *length)
{
	int fd, rc = 0;
	struct sock_filter *bytes = NULL;
	struct stat st = {0};

	fd = memfd_create("libvhost-filter", MFD_CLOEXEC);
	if (fd < 0)
		return -errno;
	rc = seccomp_export_bpf(ctx, fd);
	if (rc == 0 && fstat(fd, &st) < 0)
		rc = -errno;
	if (rc == 0 && (st.st_size <= 0 || st.st_size % (off_t)sizeof(*bytes) ||
			st.st_size > BPF_MAXINSNS * (off_t)sizeof(*bytes)))
		rc = -E2BIG;
	if (rc == 0) {
		bytes = malloc((size_t)st.st_size);
		if (!bytes)
			rc = -ENOMEM;
		else if (pread(fd, bytes, (size_t)st.st_size, 0) != st.st_size)
			rc = -EIO;
	}
	lv_fd_close(fd);
	if (rc < 0) {
		free(bytes);
		return rc;
	}
	*code = bytes;
	*length = (uint16_t)(st.st_size / (off_t)sizeof(*bytes));
	return 0;
}

int lv_filter_build(const struct lv_filter_spec *spec, struct sock_filter **code, uint16_t *length)
{
	scmp_filter_ctx ctx;
	int rc;

	pthread_mutex_lock(&libseccomp_lock);
	ctx = seccomp_init(default_action(spec->action));
	if (ctx) {
		rc = add_rules(ctx, spec);
		if (rc == 0)
			rc = export_code(ctx, code, length);
		seccomp_release(ctx);
	} else {
		rc = -ENOMEM;
	}
	pthread_mutex_unlock(&libseccomp_lock);
	return rc;
}
