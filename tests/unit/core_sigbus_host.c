/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* The guard of the process beside its host: every SIGBUS that is not ours, and actions that the host sets. */
#include "sigbushelp.h"

#include <pthread.h>
#include <setjmp.h>

/* ---- faults of others: the action that was there ---- */

static volatile sig_atomic_t host_calls, host_code, host_errno, host_blocked;
static void *volatile host_addr;
static uint8_t *gone; /* a page behind the end of its file */

/* ThreadSanitizer calls handlers with all signals blocked and an errno of its own. */
static void note(int code, void *addr)
{
	sigset_t now;

	host_errno = errno;
	host_calls++;
	host_code = code;
	host_addr = addr;
	pthread_sigmask(SIG_BLOCK, NULL, &now);
	host_blocked = sigismember(&now, SIGUSR1) | sigismember(&now, SIGBUS) << 1;
}

static void repair(void)
{
	if (mmap(gone, PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) != gone)
		_exit(9);
}

static void host_action(int sig, siginfo_t *info, void *context)
{
	(void)sig;
	if (!context)
		_exit(8);
	note(info->si_code, info->si_addr);
	if (info->si_code > 0)
		repair();
}

static void host_handler(int sig)
{
	note(sig, NULL);
	repair();
}

static sigjmp_buf out;

static void host_leaves(int sig)
{
	note(sig, NULL);
	siglongjmp(out, 1);
}

static void touch_and_jump(void)
{
	if (sigsetjmp(out, 1))
		return;
	load(gone);
	lv_test_fail(__FILE__, __LINE__, "the handler returned");
}

TEST(core_sigbus, faults_of_others_reach_the_action_that_was_there)
{
	struct sigaction sa = {.sa_sigaction = host_action, .sa_flags = SA_SIGINFO}, old, now;
	struct libvhost_ctx *ctx, *second;

	sigaddset(&sa.sa_mask, SIGUSR1);
	CHECK_EQ(sigaction(SIGBUS, &sa, &old), 0);
	ctx = guarding_ctx();
	second = guarding_ctx();
	gone = map_gone(1);
	host_calls = 0;
	errno = 78;
	CHECK_EQ(load(gone + 5), 0);
	CHECK(host_calls == 1 && host_code == BUS_ADRERR && host_addr == gone + 5);
	CHECK(LV_TSAN || (host_errno == 78 && host_blocked == 3));
	CHECK_EQ(raise(SIGBUS), 0);
	CHECK(host_calls == 2 && host_code == SI_TKILL);
	munmap(gone, PAGE);
	libvhost_ctx_free(ctx);
	CHECK_EQ(sigaction(SIGBUS, NULL, &now), 0);
	CHECK(now.sa_sigaction != host_action); /* the second one lives */
	CHECK_EQ(raise(SIGBUS), 0);
	CHECK_EQ(host_calls, 3);
	libvhost_ctx_free(second);
	CHECK_EQ(sigaction(SIGBUS, &old, &now), 0);
	CHECK(now.sa_sigaction == host_action && now.sa_flags & SA_SIGINFO && sigismember(&now.sa_mask, SIGUSR1));
}

TEST(core_sigbus, handlers_without_details_that_nest_and_that_jump_out)
{
	struct sigaction sa = {.sa_handler = host_handler, .sa_flags = SA_NODEFER}, old;
	struct libvhost_ctx *ctx;
	sigset_t now;

	CHECK_EQ(sigaction(SIGBUS, &sa, &old), 0);
	ctx = guarding_ctx();
	gone = map_gone(1);
	host_calls = 0;
	CHECK_EQ(load(gone), 0);
	CHECK(host_calls == 1 && host_code == SIGBUS);
	CHECK(LV_TSAN || !host_blocked);
	munmap(gone, PAGE);
	libvhost_ctx_free(ctx);
	sa = (struct sigaction){.sa_handler = host_leaves};
	CHECK_EQ(sigaction(SIGBUS, &sa, NULL), 0);
	ctx = guarding_ctx();
	gone = map_gone(1);
	touch_and_jump();
	CHECK_EQ(host_calls, 2);
	CHECK(LV_TSAN || host_blocked == 2);
	pthread_sigmask(SIG_BLOCK, NULL, &now);
	CHECK(!sigismember(&now, SIGBUS));
	touch_and_jump(); /* once more: nothing of ours is left behind */
	CHECK_EQ(host_calls, 3);
	munmap(gone, PAGE);
	libvhost_ctx_free(ctx);
	CHECK_EQ(sigaction(SIGBUS, &old, NULL), 0);
}

/* Of a context without the flag, of none, and of one whose mapping is gone. */
static void touch_unguarded_region(void)
{
	struct guest g = guest_new(0), other = guest_new_ctx(0, LIBVHOST_CTX_SIGBUS_GUARD);
	int fd = memfd(PAGE, 0);

	put(&g, region(fd, 0, PAGE, 0));
	put(&other, region(memfd(PAGE, 0), 0, PAGE, 0));
	if (ftruncate(fd, 0) == 0)
		load(at(&g, 0));
}

static void touch_gone(void)
{
	guarding_ctx();
	load(map_gone(1));
}

static void touch_released(void)
{
	uint8_t *at = map_gone(1);

	guarding_ctx();
	lv_sigbus_release(lv_sigbus_guard(at, PAGE, PAGE));
	load(at);
}

static void touch_ignored(void)
{
	signal(SIGBUS, SIG_IGN);
	touch_gone();
}

static void touch_details_of_nothing(void)
{
	const struct sigaction sa = {.sa_flags = SA_SIGINFO}; /* SIG_DFL, and details */

	sigaction(SIGBUS, &sa, NULL);
	touch_gone();
}

static void raise_guarded(void)
{
	guarding_ctx();
	raise(SIGBUS);
}

static void raise_ignored(void)
{
	signal(SIGBUS, SIG_IGN);
	raise_guarded();
	_exit(3);
}

static void *raises(void *arg)
{
	raise(SIGBUS);
	return arg;
}

static void raise_on_a_thread(void)
{
	pthread_t thread;

	guarding_ctx();
	if (pthread_create(&thread, NULL, raises, NULL) == 0)
		pthread_join(thread, NULL);
}

/* SA_RESETHAND: the second one is the kernel's, and so is what is there when the guard goes. */
static void raise_twice(void)
{
	struct sigaction sa = {.sa_sigaction = host_action, .sa_flags = SA_SIGINFO | (int)SA_RESETHAND}, now;
	struct libvhost_ctx *ctx;

	host_calls = 0;
	sigaction(SIGBUS, &sa, NULL);
	ctx = guarding_ctx();
	libvhost_ctx_free(ctx);
	sigaction(SIGBUS, NULL, &now);
	if (now.sa_sigaction != host_action || !(now.sa_flags & (int)SA_RESETHAND))
		_exit(1);
	ctx = guarding_ctx();
	raise(SIGBUS);
	libvhost_ctx_free(ctx);
	sigaction(SIGBUS, NULL, &now);
	if (now.sa_handler != SIG_DFL || host_calls != 1)
		_exit(2);
	sigaction(SIGBUS, &sa, NULL);
	guarding_ctx();
	raise(SIGBUS);
	if (host_calls != 2)
		_exit(3);
	raise(SIGBUS);
}

TEST(core_sigbus, without_an_action_faults_of_others_end_the_process)
{
	CHECK(died_of_it(status_of(touch_gone)));
	CHECK(died_of_it(status_of(touch_released)));
	CHECK(died_of_it(status_of(touch_unguarded_region)));
	CHECK(died_of_it(status_of(touch_ignored))); /* as the kernel has it */
	CHECK(died_of_it(status_of(touch_details_of_nothing)));
	CHECK(died_of_it(status_of(raise_guarded)));
	CHECK(died_of_it(status_of(raise_on_a_thread)));
	CHECK(died_of_it(status_of(raise_twice)));
	CHECK_EQ(status_of(raise_ignored), 3 << 8);
}

/* ---- hosts that change their action meanwhile ---- */

static unsigned warnings;

static void count_warnings(void *arg, uint32_t level, uint32_t kind, const char *line)
{
	(void)arg;
	(void)kind;
	warnings += level == LIBVHOST_LOG_LEVEL_WARNING && strstr(line, "SIGBUS");
}

static struct libvhost_ctx *telling_ctx(void)
{
	const struct libvhost_ctx_opts o = {.size = sizeof(o),
					    .flags = LIBVHOST_CTX_SIGBUS_GUARD,
					    .log_level = LIBVHOST_LOG_LEVEL_WARNING,
					    .log = count_warnings};
	struct libvhost_ctx *ctx;

	return libvhost_ctx_new(&o, &ctx) ? NULL : ctx;
}

static bool is_there(void (*action)(int, siginfo_t *, void *))
{
	struct sigaction now;

	return sigaction(SIGBUS, NULL, &now) == 0 && now.sa_sigaction == action;
}

static void replace_action(void)
{
	struct sigaction sa = {.sa_sigaction = host_action, .sa_flags = SA_SIGINFO};
	struct libvhost_ctx *ctx = telling_ctx();

	host_calls = 0;
	sigaction(SIGBUS, &sa, NULL);
	libvhost_ctx_free(ctx);
	if (!is_there(host_action) || warnings)
		_exit(1);
	ctx = telling_ctx();
	raise(SIGBUS);
	libvhost_ctx_free(ctx);
	_exit(is_there(host_action) && host_calls == 1 && warnings == 1 ? 0 : 2);
}

static struct sigaction found;

static void calls_what_it_found(int sig, siginfo_t *info, void *context)
{
	host_calls++;
	found.sa_sigaction(sig, info, context);
}

/* In front of ours, then behind it again: none of it is lost, none goes in a circle. */
static void chain_action(void)
{
	const struct sigaction sa = {.sa_sigaction = calls_what_it_found, .sa_flags = SA_SIGINFO},
			       first = {.sa_sigaction = host_action, .sa_flags = SA_SIGINFO};
	struct libvhost_ctx *ctx;

	sigaction(SIGBUS, &first, NULL);
	ctx = telling_ctx();
	sigaction(SIGBUS, &sa, &found);
	host_calls = 0;
	if (!mends() || host_calls != 1)
		_exit(1);
	raise(SIGBUS); /* theirs, ours, and the first */
	if (host_calls != 3)
		_exit(2);
	libvhost_ctx_free(ctx);
	ctx = telling_ctx();
	if (warnings != 1 || !mends() || host_calls != 4)
		_exit(3);
	sigaction(SIGBUS, &found, NULL); /* ours, which it had found */
	libvhost_ctx_free(ctx);
	if (!is_there(host_action))
		_exit(4);
	sigaction(SIGBUS, &found, NULL); /* and once more, when it is not wanted any longer */
	ctx = telling_ctx();
	raise(SIGBUS);
	if (host_calls != 5 || !mends() || warnings != 1)
		_exit(5);
	libvhost_ctx_free(ctx);
	_exit(is_there(host_action) ? 0 : 6);
}

/* What a host sets meanwhile is the host's: not taken away, and not called in a circle. */
TEST(core_sigbus, an_action_set_meanwhile_stays)
{
	CHECK_EQ(status_of(replace_action), 0);
	CHECK_EQ(status_of(chain_action), 0);
}
