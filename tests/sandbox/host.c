/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* Capabilities of workers in the hosts there are, and that the host's own threads stay as they were. */
#include "check.h"
#include "inside.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include <vhost/libvhost.h>

#define NOBODY 65534

/* Of the calling child's worker; anything that fails ends the child. */
struct guarded {
	struct libvhost_ctx *ctx;
	struct libvhost_worker *w;
	struct libvhost_worker_status s;
};

static void need(bool holds, int line)
{
	if (!holds)
		_exit(line % 251 + 2);
}
#define NEED(cond) need(cond, __LINE__)

static void begin(struct guarded *g, uint32_t caps)
{
	const struct libvhost_worker_opts opts = {.size = sizeof(opts), .caps = caps};

	*g = (struct guarded){.s.size = sizeof(g->s)};
	NEED(libvhost_ctx_new(NULL, &g->ctx) == 0);
	NEED(libvhost_worker_new(g->ctx, &opts, &g->w) == 0);
	NEED(libvhost_worker_status(g->w, &g->s) == 0);
	NEED(g->s.seccomp == 2 && g->s.no_new_privs == 1);
	NEED(status_field(g->s.tid, "Seccomp", 10) == 2 && status_field(g->s.tid, "NoNewPrivs", 10) == 1);
}

static void end(struct guarded *g)
{
	libvhost_worker_free(g->w);
	libvhost_ctx_free(g->ctx);
}

static bool none_left(const struct guarded *g)
{
	return !g->s.cap_effective && !g->s.cap_permitted && !status_field(g->s.tid, "CapEff", 16) &&
	       !status_field(g->s.tid, "CapPrm", 16) && !status_field(g->s.tid, "CapInh", 16) &&
	       !status_field(g->s.tid, "CapAmb", 16);
}

/* What a thread started by this one would inherit, so that dropping has something to drop. */
static void raise_inheritable(void)
{
	struct __user_cap_header_struct hdr = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct sets[2];

	NEED(syscall(SYS_capget, &hdr, sets) == 0);
	sets[0].inheritable = sets[0].permitted;
	sets[1].inheritable = sets[1].permitted;
	NEED(syscall(SYS_capset, &hdr, sets) == 0);
	prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_CHOWN, 0, 0);
}

static void as_nobody(void)
{
	const uint64_t bounding = status_field(0, "CapBnd", 16);
	struct guarded g;

	if (!geteuid())
		NEED(setgroups(0, NULL) == 0 && setresgid(NOBODY, NOBODY, NOBODY) == 0 &&
		     setresuid(NOBODY, NOBODY, NOBODY) == 0);
	for (uint32_t caps = LIBVHOST_CAPS_AUTO; caps <= LIBVHOST_CAPS_DROP; caps++) {
		begin(&g, caps);
		NEED(none_left(&g));
		NEED(status_field(g.s.tid, "CapBnd", 16) == bounding); /* takes a capability to change */
		end(&g);
	}
	_exit(0);
}

TEST(host, unprivileged_workers_have_no_capabilities)
{
	CHECK_EQ(status_of_child(as_nobody), 0);
}

static void dropping_root(void)
{
	struct guarded g;

	raise_inheritable();
	begin(&g, LIBVHOST_CAPS_DROP);
	NEED(none_left(&g));
	NEED(!g.s.cap_bounding && !status_field(g.s.tid, "CapBnd", 16));
	end(&g);
	NEED(status_field(0, "CapInh", 16) && status_field(0, "CapPrm", 16));
	_exit(0);
}

TEST(host, root_that_drops_has_workers_with_no_set_left)
{
	if (geteuid())
		SKIP("needs root");
	CHECK_EQ(status_of_child(dropping_root), 0);
}

static void dropping_and_changing_ids(void)
{
	struct guarded g;

	begin(&g, LIBVHOST_CAPS_DROP);
	if (setuid(NOBODY) == 0)
		_exit(1);
	_exit(0); /* came back with an error instead */
}

/* docs/sandbox.md says so: the C library sees its threads disagree. */
TEST(host, root_that_drops_and_changes_ids_is_aborted)
{
	if (geteuid())
		SKIP("needs root");
	CHECK_EQ(status_of_child(dropping_and_changing_ids), SIGABRT);
}

static void keeping_root(void)
{
	const uint64_t mine = status_field(0, "CapPrm", 16);
	struct guarded g;

	begin(&g, LIBVHOST_CAPS_AUTO);
	NEED(g.s.cap_permitted == mine && g.s.cap_effective == mine);
	NEED(g.s.cap_bounding == status_field(0, "CapBnd", 16));
	end(&g);
	_exit(0);
}

/* The C library runs these calls on the worker, too; a filter that forgot one hangs or aborts the process. */
static void changing_ids(void)
{
	gid_t group = NOBODY;
	struct guarded g;

	begin(&g, LIBVHOST_CAPS_AUTO);
	NEED(setgroups(1, &group) == 0 && setregid(0, 0) == 0 && setresgid((gid_t)-1, NOBODY, (gid_t)-1) == 0 &&
	     setgid(NOBODY) == 0);
	NEED(setreuid(0, 0) == 0 && setresuid((uid_t)-1, (uid_t)-1, 0) == 0 && setuid(NOBODY) == 0);
	NEED(libvhost_worker_status(g.w, &g.s) == 0 && status_field(g.s.tid, "Uid", 10) == NOBODY);
	end(&g);
	_exit(0);
}

TEST(host, root_by_default_keeps_the_sets_and_can_change_ids)
{
	if (geteuid())
		SKIP("needs root");
	CHECK_EQ(status_of_child(keeping_root), 0);
	CHECK_EQ(status_of_child(changing_ids), 0);
}

/* A thread's status without what changes by itself. */
struct identity {
	char text[4096];
};

static bool changes_by_itself(const char *line)
{
	static const char *const names[] = {"Name:",   "State:",   "Pid:",	"Vm",		"Rss",	  "Hugetlb",
					    "FDSize:", "Threads:", "voluntary", "nonvoluntary", "NSpid:", "SigQ:"};

	for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++)
		if (!strncmp(line, names[i], strlen(names[i])))
			return true;
	return false;
}

static void *identify(void *arg)
{
	struct identity *id = arg;
	size_t len = 0;
	FILE *f = fopen("/proc/thread-self/status", "re");

	while (f && len < sizeof(id->text) - 256 && fgets(id->text + len, 256, f))
		if (!changes_by_itself(id->text + len))
			len += strlen(id->text + len);
	id->text[len] = 0;
	if (f)
		fclose(f);
	return NULL;
}

static void true_program(void)
{
	execl("/bin/true", "true", NULL);
	_exit(1);
}

static void may_do_everything(void)
{
	int fd = open("/proc/self/status", O_RDONLY | O_CLOEXEC);

	CHECK(fd >= 0);
	close(fd);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	CHECK(fd >= 0);
	close(fd);
	CHECK_EQ(status_of_child(true_program), 0);
}

static void same_as(const struct identity *before)
{
	static struct identity now, fresh;
	pthread_t thread;

	identify(&now);
	CHECK_STR(now.text, before->text);
	CHECK_EQ(pthread_create(&thread, NULL, identify, &fresh), 0);
	pthread_join(thread, NULL);
	CHECK_STR(fresh.text, before->text);
	may_do_everything();
}

TEST(host, r291_threads_stay_as_they_were)
{
	static struct identity before;
	struct libvhost_ctx *ctx = NULL;

	identify(&before);
	CHECK_HAS(before.text, "Seccomp:\t0");
	CHECK_HAS(before.text, "CapAmb:");
	CHECK_HAS(before.text, "SigBlk:");
	CHECK_EQ(libvhost_ctx_new(NULL, &ctx), 0);
	for (uint32_t role = 0; role < LV_ROLES; role++) {
		struct libvhost_worker_opts opts = {.size = sizeof(opts), .role = role, .caps = LIBVHOST_CAPS_DROP};
		struct libvhost_worker *w = NULL;

		CHECK_EQ(libvhost_worker_new(ctx, &opts, &w), 0);
		same_as(&before);
		libvhost_worker_free(w);
		same_as(&before);
	}
	libvhost_ctx_free(ctx);
}

/* The host's own filter for all its threads: 0, or the thread that stands in its way. */
static long confine_all_threads(void)
{
	struct sock_filter code[] = {BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)};
	struct sock_fprog program = {.len = 1, .filter = code};

	NEED(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
	return syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, &program);
}

static void confining_after(void)
{
	struct guarded g;

	begin(&g, LIBVHOST_CAPS_AUTO);
	NEED(confine_all_threads() == g.s.tid);
	end(&g);
	NEED(confine_all_threads() == 0);
	_exit(0);
}

static void confining_before(void)
{
	struct guarded g;

	NEED(confine_all_threads() == 0);
	begin(&g, LIBVHOST_CAPS_AUTO);
	end(&g);
	_exit(0);
}

TEST(host, r294_a_filter_for_all_threads_comes_before_workers)
{
	CHECK_EQ(status_of_child(confining_after), 0);
	CHECK_EQ(status_of_child(confining_before), 0);
}

/* What a device author calls without thinking. Not strerror(): newer C libraries allocate for it. */
static void ordinary_calls(void *arg)
{
	struct timespec now;
	char text[64];

	snprintf(text, sizeof(text), "%d %s %f", 42, strerrorname_np(EIO), 1.5);
	*(bool *)arg = !strcmp(text, "42 EIO 1.500000") && syscall(SYS_clock_gettime, CLOCK_MONOTONIC, &now) == 0;
}

static void ordinary_or_dead(void)
{
	bool done = false;

	run_inside(&(struct inside){.action = LIBVHOST_SANDBOX_KILL_PROCESS}, ordinary_calls, &done);
	_exit(done ? 0 : 1);
}

static void gives_up(void *arg)
{
	(void)arg;
	abort(); /* where assert() ends */
}

static void gives_up_inside(void)
{
	run_inside(&(struct inside){0}, gives_up, NULL);
}

TEST(host, r298_ordinary_calls_and_the_end_of_an_assertion)
{
	CHECK_EQ(status_of_child(ordinary_or_dead), 0);
	CHECK_EQ(status_of_child(gives_up_inside), SIGABRT);
}
