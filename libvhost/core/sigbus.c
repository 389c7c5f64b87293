/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
#include "core/sigbus.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#define SLOTS 127u

_Static_assert(ATOMIC_POINTER_LOCK_FREE == 2 && ATOMIC_INT_LOCK_FREE == 2 && ATOMIC_BOOL_LOCK_FREE == 2,
	       "the action must not meet a lock");

/*
 * The action runs in the middle of anything, so it takes no lock: slots are never freed, only used again, and a reader
 * that finds one changing looks elsewhere. It cannot be the one it is looking for: that mapping is in use. Whoever
 * changes slots takes none either, so a forked child is never left with one that nobody holds.
 */
struct lv_guarded {
	atomic_uint changes; /* odd: being changed */
	_Atomic uintptr_t at;
	_Atomic size_t bytes; /* 0 = free */
	_Atomic size_t page;
	atomic_bool cut;
};

struct table {
	struct table *next;
	struct lv_guarded slots[SLOTS];
};

atomic_uint lv_sigbus_faults;
static _Atomic(struct table *) tables;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* of what follows */
static unsigned users;
static bool behind;		 /* the host put an action of its own in front of ours, and may call it */
static struct sigaction before;	 /* read by the action, so written only where none of ours is there yet */
static atomic_bool before_spent; /* SA_RESETHAND */

/* ---- mappings ---- */

/* Makes a free slot odd. */
static bool claim(struct lv_guarded *g)
{
	unsigned even = atomic_load(&g->changes);

	return !(even & 1) && !atomic_load(&g->bytes) && atomic_compare_exchange_strong(&g->changes, &even, even + 1);
}

static struct lv_guarded *claim_any(void)
{
	struct table *t;

	for (t = atomic_load(&tables); t; t = t->next)
		for (unsigned i = 0; i < SLOTS; i++)
			if (claim(&t->slots[i]))
				return &t->slots[i];
	t = calloc(1, sizeof(*t));
	if (!t)
		return NULL;
	claim(&t->slots[0]);
	t->next = atomic_load(&tables);
	while (!atomic_compare_exchange_weak(&tables, &t->next, t))
		;
	return &t->slots[0];
}

/* An odd slot becomes even. */
static void fill(struct lv_guarded *g, uintptr_t at, size_t bytes, size_t page)
{
	atomic_store(&g->at, at);
	atomic_store(&g->page, page);
	atomic_store(&g->cut, false);
	atomic_store(&g->bytes, bytes);
	atomic_fetch_add(&g->changes, 1);
}

struct lv_guarded *lv_sigbus_guard(const void *at, size_t bytes, size_t page)
{
	struct lv_guarded *g = claim_any();

	if (g)
		fill(g, (uintptr_t)at, (bytes + page - 1) & ~(page - 1), page);
	return g;
}

void lv_sigbus_release(struct lv_guarded *g)
{
	if (!g)
		return;
	atomic_fetch_add(&g->changes, 1);
	fill(g, 0, 0, 0);
}

bool lv_sigbus_is_cut(const struct lv_guarded *g)
{
	return g && atomic_load(&g->cut);
}

/* ---- the action; async-signal-safe ---- */

/* No mmap(): one C library waits in it for a lock, and ThreadSanitizer takes it for a write to all of the area. */
static bool zero(uintptr_t at, size_t bytes)
{
#if defined(SYS_mmap2)
	return syscall(SYS_mmap2, at, bytes, LV_SIGBUS_PROT, LV_SIGBUS_FLAGS, -1, 0) != -1;
#elif defined(__s390__) /* its call takes a structure */
	return mmap((void *)at, bytes, LV_SIGBUS_PROT, LV_SIGBUS_FLAGS, -1, 0) != MAP_FAILED; // NOLINT
#else
	return syscall(SYS_mmap, at, bytes, LV_SIGBUS_PROT, LV_SIGBUS_FLAGS, -1, 0) != -1;
#endif
}

/*
 * A file that ends before the page ends before the rest of the region too, so all of it is replaced: a guest that
 * touches one page after the other costs one mapping, not as many as the kernel has. The page alone where memory is
 * accounted strictly.
 */
static bool mend(struct lv_guarded *g, uintptr_t fault)
{
	const unsigned changes = atomic_load(&g->changes);
	const uintptr_t at = atomic_load(&g->at);
	const size_t bytes = atomic_load(&g->bytes), page = atomic_load(&g->page);
	size_t skip;

	if (changes & 1 || atomic_load(&g->changes) != changes || fault - at >= bytes)
		return false;
	skip = (fault - at) & ~(page - 1);
	atomic_store(&g->cut, true);
	atomic_fetch_add(&lv_sigbus_faults, 1);
	return zero(at + skip, bytes - skip) || zero(at + skip, page);
}

static bool mend_any(uintptr_t fault)
{
	for (struct table *t = atomic_load(&tables); t; t = t->next)
		for (unsigned i = 0; i < SLOTS; i++)
			if (mend(&t->slots[i], fault))
				return true;
	return false;
}

/* An instruction that failed, and will again. Everything else was sent. */
static bool is_fault(const siginfo_t *info)
{
	return info->si_code == BUS_ADRALN || info->si_code == BUS_ADRERR || info->si_code == BUS_OBJERR ||
	       info->si_code == BUS_MCEERR_AR;
}

/*
 * What the kernel does without a handler. A fault is left to it: an instruction that fails while its signal is blocked
 * ends the process, whatever the action, and with the details of the fault. No system call, so workers can do it.
 */
static void as_default(const siginfo_t *info, ucontext_t *context)
{
	const struct sigaction none = {.sa_handler = SIG_DFL};

	if (is_fault(info))
		sigaddset(&context->uc_sigmask, SIGBUS);
	else if (sigaction(SIGBUS, &none, NULL) < 0 || raise(SIGBUS))
		abort(); /* a worker's filter */
}

/* The kernel asks for these two before it looks at SA_SIGINFO. */
static bool is_handler(const struct sigaction *sa)
{
	return sa->sa_handler != SIG_DFL && sa->sa_handler != SIG_IGN;
}

static void pass_on(int sig, siginfo_t *info, void *context)
{
	const bool ours_to_call =
		is_handler(&before) && !(before.sa_flags & (int)SA_RESETHAND && atomic_exchange(&before_spent, true));

	if (ours_to_call && before.sa_flags & SA_SIGINFO)
		before.sa_sigaction(sig, info, context);
	else if (ours_to_call)
		before.sa_handler(sig);
	else if (before.sa_handler != SIG_IGN || is_fault(info))
		as_default(info, context);
}

static void on_sigbus(int sig, siginfo_t *info, void *context)
{
	const int keep = errno;
	const bool mended = info->si_code == BUS_ADRERR && mend_any((uintptr_t)info->si_addr);

	errno = keep;
	if (!mended)
		pass_on(sig, info, context);
}

/* ---- in front of the host's, and away again ---- */

/* Mask and flags of a handler hold for it behind ours, too. */
static struct sigaction in_front_of(const struct sigaction *theirs)
{
	struct sigaction ours = *theirs;

	if (!is_handler(theirs)) {
		ours.sa_flags = SA_ONSTACK | SA_RESTART;
		sigemptyset(&ours.sa_mask);
	}
	ours.sa_flags = (ours.sa_flags & ~(int)SA_RESETHAND) | SA_SIGINFO;
	ours.sa_sigaction = on_sigbus;
	return ours;
}

static bool is_ours(const struct sigaction *sa)
{
	return sa->sa_flags & SA_SIGINFO && sa->sa_sigaction == on_sigbus;
}

static bool in_front(void)
{
	struct sigaction now;

	return sigaction(SIGBUS, NULL, &now) == 0 && is_ours(&now);
}

static int go_in_front(void)
{
	struct sigaction now, ours;

	if (sigaction(SIGBUS, NULL, &now) < 0)
		return -errno;
	if (is_ours(&now)) /* put back by somebody who had found it there */
		return 0;
	before = now;
	atomic_store(&before_spent, false);
	ours = in_front_of(&now);
	return sigaction(SIGBUS, &ours, NULL) < 0 ? -errno : 0;
}

/* Whoever put itself in front since may call us, so we stay where it found us: a second time would be a circle. */
int lv_sigbus_get(void)
{
	int rc = 0;

	pthread_mutex_lock(&lock);
	if (!users && !behind)
		rc = go_in_front();
	else if (!in_front())
		rc = 1;
	users += rc >= 0;
	pthread_mutex_unlock(&lock);
	return rc;
}

void lv_sigbus_put(void)
{
	const struct sigaction none = {.sa_handler = SIG_DFL};

	pthread_mutex_lock(&lock);
	if (!--users) {
		behind = !in_front();
		if (!behind)
			sigaction(SIGBUS, atomic_load(&before_spent) ? &none : &before, NULL);
	}
	pthread_mutex_unlock(&lock);
}
