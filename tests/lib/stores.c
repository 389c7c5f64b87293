/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
#include "stores.h"

#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <ucontext.h>

#include "check.h"

#ifdef LV_STORES
#define TRAP_FLAG 0x100

static struct stores *active;
static struct sigaction old_segv, old_trap;

static void copy(struct stores *s)
{
	if (s->count < s->cap)
		memcpy(s->copies + s->bytes * s->count, s->mem, s->bytes);
	s->count++;
}

/* The store is about to be executed: alone. */
static void on_fault(int sig, siginfo_t *info, void *context)
{
	ucontext_t *uc = context;
	struct stores *s = active;
	const uintptr_t at = (uintptr_t)info->si_addr;

	(void)sig;
	if (!s || at < (uintptr_t)s->mem || at >= (uintptr_t)s->mem + s->traced) {
		sigaction(SIGSEGV, &old_segv, NULL); /* somebody else's: happens again and is dealt with */
		return;
	}
	mprotect(s->mem, s->traced, PROT_READ | PROT_WRITE);
	uc->uc_mcontext.gregs[REG_EFL] |= TRAP_FLAG;
}

static void on_step(int sig, siginfo_t *info, void *context)
{
	ucontext_t *uc = context;

	(void)sig;
	(void)info;
	uc->uc_mcontext.gregs[REG_EFL] &= ~TRAP_FLAG;
	copy(active);
	mprotect(active->mem, active->traced, PROT_READ);
}

void stores_begin(struct stores *s)
{
	struct sigaction segv = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO};
	struct sigaction trap = {.sa_sigaction = on_step, .sa_flags = SA_SIGINFO};

	s->count = 0;
	copy(s);
	active = s;
	CHECK_EQ(sigaction(SIGSEGV, &segv, &old_segv), 0);
	CHECK_EQ(sigaction(SIGTRAP, &trap, &old_trap), 0);
	CHECK_EQ(mprotect(s->mem, s->traced, PROT_READ), 0);
}

void stores_end(struct stores *s)
{
	CHECK_EQ(mprotect(s->mem, s->traced, PROT_READ | PROT_WRITE), 0);
	CHECK_EQ(sigaction(SIGSEGV, &old_segv, NULL), 0);
	CHECK_EQ(sigaction(SIGTRAP, &old_trap, NULL), 0);
	active = NULL;
	CHECK(s->count <= s->cap);
}

void stores_init(struct stores *s, uint8_t *mem, size_t traced, size_t bytes, uint32_t cap)
{
	*s = (struct stores){.mem = mem, .traced = traced, .bytes = bytes, .cap = cap};
	s->copies = malloc(bytes * cap);
	CHECK(s->copies);
}

void stores_free(struct stores *s)
{
	free(s->copies);
}

const uint8_t *stores_copy(const struct stores *s, uint32_t n)
{
	return s->copies + s->bytes * n;
}

void stores_restore(const struct stores *s, uint32_t n)
{
	memcpy(s->mem, stores_copy(s, n), s->bytes);
}
#endif
