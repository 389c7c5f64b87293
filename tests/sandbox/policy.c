/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* What the filter lets through, asked of the kernel from inside: each rule of the table with right and wrong values,
 * and every call that is not in the table. */
#include "check.h"
#include "core/sigbus.h"
#include "inside.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define LAST_CALL 600 /* above the newest kernel's table */

struct outcome {
	long value;
	int err;
};

static struct outcome call6(long nr, const uint64_t *a)
{
	struct outcome o;

	errno = 0;
	o.value = syscall(nr, a[0], a[1], a[2], a[3], a[4], a[5]);
	o.err = o.value < 0 ? errno : 0;
	return o;
}

/* -1 everywhere is a bad descriptor, a bad pointer or a bad size: nothing allowed does harm or waits with it. */
static void arguments(const struct lv_rule *rule, int wrong, uint64_t *a)
{
	for (int i = 0; i < 6; i++)
		a[i] = UINT64_MAX;
	for (uint32_t i = 0; i < rule->nargs; i++)
		a[rule->args[i].index] = lv_rule_value(&rule->args[i], -1);
	if (wrong >= 0)
		a[rule->args[wrong].index] ^= rule->args[wrong].mask & -rule->args[wrong].mask;
}

/* Calls that do not come back. */
static bool one_way(const struct lv_rule *rule)
{
	return rule->nr == SYS_exit || rule->nr == SYS_exit_group || rule->nr == SYS_rt_sigreturn;
}

#define MAX_RULES 128u
struct sweep {
	uint32_t role;
	struct outcome right[MAX_RULES], wrong[MAX_RULES][LV_RULE_MAX_ARGS];
	struct outcome other[LAST_CALL];
};

static void try_rules(void *arg)
{
	struct sweep *s = arg;
	const struct lv_rule *rule;
	uint64_t a[6];

	for (uint32_t n = 0; (rule = lv_rule(n)) != NULL; n++) {
		if (!lv_rule_applies(rule, s->role) || one_way(rule))
			continue;
		arguments(rule, -1, a);
		s->right[n] = call6(rule->nr, a);
		for (uint32_t i = 0; i < rule->nargs; i++) {
			arguments(rule, (int)i, a);
			s->wrong[n][i] = call6(rule->nr, a);
		}
	}
}

static void check_rules(uint32_t role)
{
	static struct sweep s;
	const struct lv_rule *rule;
	unsigned seen = 0;

	s = (struct sweep){.role = role};
	CHECK(run_inside(&(struct inside){.role = role}, try_rules, &s));
	for (uint32_t n = 0; (rule = lv_rule(n)) != NULL; n++) {
		if (!lv_rule_applies(rule, role) || one_way(rule))
			continue;
		seen++;
		if (s.right[n].err == EPERM && !(rule->nr == SYS_setgroups && geteuid()))
			lv_test_fail(__FILE__, __LINE__, "%s with %s was refused", rule->name, rule->condition);
		for (uint32_t i = 0; i < rule->nargs; i++)
			if (s.wrong[n][i].err != EPERM)
				lv_test_fail(__FILE__, __LINE__, "%s with a wrong argument %u gave %ld (%s)",
					     rule->name, rule->args[i].index, s.wrong[n][i].value,
					     strerror(s.wrong[n][i].err));
	}
	CHECK(seen >= (role == LIBVHOST_ROLE_RING ? 23 : 25));
}

TEST(policy, ring_rules_with_right_and_wrong_arguments)
{
	check_rules(LIBVHOST_ROLE_RING);
}

TEST(policy, block_rules_with_right_and_wrong_arguments)
{
	check_rules(LIBVHOST_ROLE_BLOCK);
}

TEST(policy, stream_rules_with_right_and_wrong_arguments)
{
	check_rules(LIBVHOST_ROLE_STREAM);
}

TEST(policy, control_rules_with_right_and_wrong_arguments)
{
	check_rules(LIBVHOST_ROLE_CONTROL);
}

static bool in_table(long nr, uint32_t role)
{
	const struct lv_rule *rule;

	for (uint32_t n = 0; (rule = lv_rule(n)) != NULL; n++)
		if (rule->nr == nr && lv_rule_applies(rule, role))
			return true;
	return false;
}

/* Newer kernels let uretprobe and uprobe past every filter: they are only legal where the kernel itself put the
 * instruction, and raise SIGILL anywhere else. */
static bool beyond_filters(long nr)
{
#ifdef __x86_64__
	return nr == 335 || nr == 336;
#else
	return false;
#endif
}

static void try_the_rest(void *arg)
{
	const uint64_t bad[6] = {UINT64_MAX, UINT64_MAX, UINT64_MAX, UINT64_MAX, UINT64_MAX, UINT64_MAX};
	struct sweep *s = arg;

	for (long nr = 0; nr < LAST_CALL; nr++)
		if (!in_table(nr, s->role) && !beyond_filters(nr))
			s->other[nr] = call6(nr, bad);
}

static void check_rest(uint32_t role)
{
	static struct sweep s;

	s = (struct sweep){.role = role};
	CHECK(run_inside(&(struct inside){.role = role}, try_the_rest, &s));
	for (long nr = 0; nr < LAST_CALL; nr++)
		if (!in_table(nr, role) && !beyond_filters(nr) && (s.other[nr].value != -1 || s.other[nr].err != EPERM))
			lv_test_fail(__FILE__, __LINE__, "system call %ld gave %ld (%s) instead of EPERM", nr,
				     s.other[nr].value, strerror(s.other[nr].err));
}

TEST(policy, every_other_call_is_refused_for_rings)
{
	check_rest(LIBVHOST_ROLE_RING);
}

TEST(policy, every_other_call_is_refused_for_block)
{
	check_rest(LIBVHOST_ROLE_BLOCK);
}

TEST(policy, every_other_call_is_refused_for_stream)
{
	check_rest(LIBVHOST_ROLE_STREAM);
}

TEST(policy, every_other_call_is_refused_for_control)
{
	check_rest(LIBVHOST_ROLE_CONTROL);
}

TEST(policy, public_list_is_the_table)
{
	for (uint32_t role = 0; role < LV_ROLES; role++) {
		uint32_t listed = 0;

		for (uint32_t n = 0; lv_rule(n); n++)
			if (lv_rule_applies(lv_rule(n), role))
				CHECK_STR(libvhost_syscalls(role, listed++), lv_rule(n)->name);
		CHECK(libvhost_syscalls(role, listed) == NULL);
	}
	CHECK(libvhost_syscalls(LV_ROLES, 0) == NULL);
}

/* The rules above are asked with arguments that fail: this is what a control worker does with them. */
static void allocate(void *arg)
{
	char *block = malloc(100), *large = malloc(8u << 20);

	if (large) {
		char *larger = realloc(large, 64u << 20);

		large = larger ? larger : large;
		memset(large, 1, 8u << 20);
		*(bool *)arg = block && larger;
	}
	for (int i = 0; i < 1000; i++) /* until the heap of the thread must grow */
		free(malloc(100000));
	free(block);
	free(large);
}

static void allocates_or_dies(void)
{
	bool done = false;

	run_inside(&(struct inside){.role = LIBVHOST_ROLE_CONTROL, .action = LIBVHOST_SANDBOX_KILL_PROCESS}, allocate,
		   &done);
	_exit(done ? 0 : 1);
}

TEST(policy, control_may_allocate)
{
	CHECK_EQ(status_of_child(allocates_or_dies), 0);
}

#ifdef __x86_64__
static void try_x32(void *arg)
{
	const uint64_t none[6] = {0};

	*(struct outcome *)arg = call6(0x40000000 | SYS_getpid, none);
}

TEST(policy, r289_x32_numbers_are_refused)
{
	struct outcome o = {0};

	CHECK(run_inside(&(struct inside){0}, try_x32, &o));
	CHECK_EQ(o.value, -1);
	CHECK_EQ(o.err, EPERM);
}

static long getpid_32(void)
{
	long nr = 20; /* getpid of i386 */

	__asm__ volatile("int $0x80" : "+a"(nr)::"r8", "r9", "r10", "r11", "memory");
	return (int)nr;
}

static void try_int80(void *arg)
{
	*(long *)arg = getpid_32();
}

static void int80_bare(void)
{
	_exit(getpid_32() == getpid() ? 0 : 1);
}

static void int80_inside(void)
{
	long value = 0;

	run_inside(&(struct inside){0}, try_int80, &value);
	_exit(value == -EPERM ? 0 : 1);
}

TEST(policy, r289_i386_entry_is_refused)
{
	if (status_of_child(int80_bare) != 0)
		SKIP("this kernel has no 32-bit entry");
	CHECK_EQ(status_of_child(int80_inside), 0);
}
#endif

static void socket_call(void *arg)
{
	*(long *)arg = syscall(SYS_socket, 1, 1, 0);
}

static void openat_call(void *arg)
{
	*(long *)arg = syscall(SYS_openat, -100, "/proc/sys/vm/overcommit_memory", 0);
}

static void killed_by_socket(void)
{
	long value = 0;

	run_inside(&(struct inside){.action = LIBVHOST_SANDBOX_KILL_PROCESS}, socket_call, &value);
	_exit(0);
}

static void survives_openat(void)
{
	long value = 0;

	run_inside(&(struct inside){.action = LIBVHOST_SANDBOX_KILL_PROCESS}, openat_call, &value);
	_exit(value == -1 ? 0 : 1);
}

TEST(policy, kill_action_ends_the_process)
{
	CHECK_EQ(status_of_child(killed_by_socket), SIGSYS);
}

TEST(policy, kill_action_spares_what_free_may_do)
{
	CHECK_EQ(status_of_child(survives_openat), 0);
}

TEST(policy, log_action_allows)
{
	long fd = -1;

	CHECK(run_inside(&(struct inside){.action = LIBVHOST_SANDBOX_LOG}, socket_call, &fd));
	CHECK(fd >= 0);
	close((int)fd);
}

static void exit_group_inside(void *arg)
{
	(void)arg;
	syscall(SYS_exit_group, 42);
}

static void abort_inside(void *arg)
{
	(void)arg;
	abort();
}

static void child_exit_group(void)
{
	run_inside(&(struct inside){0}, exit_group_inside, NULL);
}

static void child_abort(void)
{
	run_inside(&(struct inside){.action = LIBVHOST_SANDBOX_KILL_PROCESS}, abort_inside, NULL);
}

TEST(policy, ways_out_work)
{
	CHECK_EQ(status_of_child(child_exit_group), 256 * 42);
	CHECK_EQ(status_of_child(child_abort), SIGABRT);
}

struct maps {
	struct outcome exact, code, elsewhere;
};

static void try_to_map(void *arg)
{
	struct maps *m = arg;
	uint64_t a[6] = {0, 4096, LV_SIGBUS_PROT, LV_SIGBUS_FLAGS & ~MAP_FIXED, UINT64_MAX, 0};

	m->elsewhere = call6(SYS_mmap, a);
	a[0] = 1; /* misaligned: the filter lets it pass, the kernel does not */
	a[3] = LV_SIGBUS_FLAGS;
	m->exact = call6(SYS_mmap, a);
	a[2] |= PROT_EXEC;
	m->code = call6(SYS_mmap, a);
}

TEST(policy, guarded_workers_may_map_zero_pages)
{
	for (uint32_t role = 0; role < LV_ROLES; role++) {
		const bool control = role == LIBVHOST_ROLE_CONTROL; /* maps anything but code */
		struct maps m;

		CHECK(run_inside(&(struct inside){.role = role, .guard = true}, try_to_map, &m));
		CHECK_EQ(m.exact.err, EINVAL);
		CHECK_EQ(m.code.err, EPERM);
		CHECK_EQ(m.elsewhere.err, control ? 0 : EPERM);
		CHECK(run_inside(&(struct inside){.role = role}, try_to_map, &m));
		CHECK_EQ(m.exact.err, control ? EINVAL : EPERM);
	}
}
