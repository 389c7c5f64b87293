/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* The guard of the process (LIBVHOST_CTX_SIGBUS_GUARD) and the memory it mends. */
#include "sigbushelp.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>

/* ---- what is mended ---- */

TEST(core_sigbus, zero_pages_from_the_fault_to_the_end_of_the_region_and_no_further)
{
	struct libvhost_ctx *ctx = guarding_ctx();
	const unsigned before = lv_sigbus_mended();
	uint8_t *at = mmap(NULL, 8 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	int fd = memfd(8 * PAGE, 0);
	struct lv_guarded *g;

	CHECK(at != MAP_FAILED);
	memset(at, 'n', 8 * PAGE); /* the neighbours */
	CHECK(mmap(at + PAGE, 6 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, 0) == at + PAGE);
	memset(at + PAGE, 'r', 6 * PAGE);
	g = lv_sigbus_guard(at + PAGE, 6 * PAGE - 100, PAGE); /* whole pages all the same */
	CHECK(g && !lv_sigbus_is_cut(g));
	CHECK_EQ(ftruncate(fd, 2 * PAGE), 0);
	errno = 77;
	CHECK_EQ(load(at + 7 * PAGE - 50), 0);
	CHECK_EQ(errno, 77);
	CHECK(lv_sigbus_is_cut(g) && lv_sigbus_mended() == before + 1);
	CHECK_EQ(load(at + 5 * PAGE + 9), 0);
	CHECK_EQ(load(at + 6 * PAGE), 0);
	CHECK_EQ(lv_sigbus_mended(), before + 2); /* one for all behind it */
	CHECK_EQ(load(at + 3 * PAGE), 0);
	CHECK_EQ(lv_sigbus_mended(), before + 3);
	CHECK_EQ(ftruncate(fd, 6 * PAGE), 0);
	at[3 * PAGE] = 1; /* nobody else's */
	CHECK(pread(fd, at, 1, 2 * PAGE) == 1 && at[0] == 0);
	CHECK_EQ(load(at + 3 * PAGE - 1), 'r');
	CHECK_EQ(load(at + PAGE), 'r');
	CHECK_EQ(load(at + 1), 'n');
	CHECK_EQ(load(at + 7 * PAGE), 'n');
	lv_sigbus_release(g);
	munmap(at, 8 * PAGE);
	close(fd);
	libvhost_ctx_free(ctx);
}

/* More than one table of slots; those that are free again come first. */
TEST(core_sigbus, many_mappings)
{
	enum { MANY = 300 };
	struct libvhost_ctx *ctx = guarding_ctx();
	struct lv_guarded *g[MANY];
	uint8_t *at[MANY];
	struct lv_ledger before;

	for (unsigned round = 0; round < 3; round++) {
		for (unsigned i = 0; i < MANY; i++) {
			at[i] = map_gone(1);
			g[i] = lv_sigbus_guard(at[i], PAGE, PAGE);
			CHECK(g[i]);
		}
		for (unsigned i = 0; i < MANY; i++) {
			CHECK_EQ(load(at[i] + i), 0);
			CHECK(lv_sigbus_is_cut(g[i]));
			CHECK(i + 1 == MANY || !lv_sigbus_is_cut(g[i + 1]));
		}
		for (unsigned i = 0; i < MANY; i++) {
			lv_sigbus_release(g[i]);
			munmap(at[i], PAGE);
		}
		if (!round)
			before = lv_ledger_take();
	}
	CHECK_LEDGER(before);
	libvhost_ctx_free(ctx);
}

/* ---- threads ---- */

struct crowd {
	uint8_t *_Atomic at; /* gone pages that everybody reads; NULL = done */
	atomic_uint ready, read;
};

#define CROWD	    3u
#define CROWD_PAGES 16u

static void *reads_gone(void *arg)
{
	struct crowd *c = arg;
	uint8_t *last = NULL;

	for (;;) {
		uint8_t *at = atomic_load(&c->at);

		if (!at)
			return NULL;
		if (at == last)
			continue;
		last = at;
		for (unsigned i = CROWD_PAGES; i--;) /* backwards: a fault for each page */
			if (load(at + i * PAGE))
				return (void *)1;
		atomic_fetch_add(&c->read, 1);
	}
}

/* Maps, guards, and lets go of mappings of its own, one of which lies where another was a moment ago. */
static void *comes_and_goes(void *arg)
{
	struct crowd *c = arg;

	while (atomic_load(&c->at)) {
		uint8_t *at = map_gone(2);
		struct lv_guarded *g = lv_sigbus_guard(at, 2 * PAGE, PAGE);

		if (!g || load(at + PAGE) || load(at) || !lv_sigbus_is_cut(g))
			return (void *)2;
		lv_sigbus_release(g);
		munmap(at, 2 * PAGE);
	}
	return NULL;
}

TEST(core_sigbus, threads_that_fault_at_once_while_others_map_and_unmap)
{
	struct libvhost_ctx *ctx = guarding_ctx();
	uint8_t *at = map_gone(CROWD_PAGES);
	struct lv_guarded *g = lv_sigbus_guard(at, CROWD_PAGES * PAGE, PAGE);
	struct crowd c = {.at = at};
	pthread_t threads[CROWD + 2];
	void *wrong = NULL;

	for (unsigned i = 0; i < CROWD + 2; i++)
		CHECK_EQ(pthread_create(&threads[i], NULL, i < CROWD ? reads_gone : comes_and_goes, &c), 0);
	for (unsigned round = 1; round <= 300; round++) {
		uint8_t *next = map_gone(CROWD_PAGES);
		struct lv_guarded *of_next = lv_sigbus_guard(next, CROWD_PAGES * PAGE, PAGE);

		while (atomic_load(&c.read) < round * CROWD)
			sched_yield();
		atomic_store(&c.at, next);
		lv_sigbus_release(g);
		munmap(at, CROWD_PAGES * PAGE);
		at = next;
		g = of_next;
	}
	while (atomic_load(&c.read) < 301 * CROWD)
		sched_yield();
	atomic_store(&c.at, NULL);
	for (unsigned i = 0; i < CROWD + 2; i++) {
		CHECK_EQ(pthread_join(threads[i], &wrong), 0);
		CHECK(!wrong);
	}
	lv_sigbus_release(g);
	munmap(at, CROWD_PAGES * PAGE);
	libvhost_ctx_free(ctx);
}

/* ---- children ---- */

/* A child that forked has what its parent had, and takes it away for itself alone. */
static struct libvhost_ctx *inherited;

static void free_inherited(void)
{
	if (!mends())
		_exit(1);
	libvhost_ctx_free(inherited);
	inherited = guarding_ctx();
	_exit(mends() ? 0 : 2);
}

TEST(core_sigbus, a_forked_child_is_guarded_too)
{
	int status = -1;
	pid_t pid;

	inherited = guarding_ctx();
	fflush(NULL);
	pid = fork();
	if (pid == 0) {
		alarm(20);
		free_inherited();
	}
	CHECK_EQ(waitpid(pid, &status, 0), pid);
	CHECK_EQ(status, 0);
	CHECK(mends());
	libvhost_ctx_free(inherited);
}
