/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
#define _GNU_SOURCE 1
#include "faults.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <unistd.h>
#include "check.h"

atomic_long faults_live;
_Thread_local struct faults fault;

static bool fails(enum fault_class what, int error)
{
	uint32_t now;

	if (fault.what != what)
		return false;
	now = fault.count++;
	if (now != fault.at && !(fault.on && now > fault.at))
		return false;
	fault.hit = true;
	errno = error;
	return true;
}

void faults_on(enum fault_class what, uint32_t at, bool on)
{
	fault.what = what;
	fault.at = at;
	fault.on = on;
	fault.count = 0;
	fault.hit = false;
}

void faults_off(void)
{
	fault.what = FAULT_NONE;
}

extern void *__libc_malloc(size_t n);
extern void *__libc_calloc(size_t n, size_t size);
extern void *__libc_realloc(void *p, size_t n);
extern void __libc_free(void *p);

static void *counted(void *p)
{
	faults_live += p != NULL;
	return p;
}

static void note(size_t *most, size_t n)
{
	*most = n > *most ? n : *most;
}

void *malloc(size_t n)
{
	note(&fault.largest, n);
	return fails(FAULT_MEMORY, ENOMEM) ? NULL : counted(__libc_malloc(n));
}

void *calloc(size_t n, size_t size)
{
	note(&fault.largest, n * size);
	return fails(FAULT_MEMORY, ENOMEM) ? NULL : counted(__libc_calloc(n, size));
}

void *realloc(void *p, size_t n)
{
	note(&fault.largest, n);
	if (fails(FAULT_MEMORY, ENOMEM))
		return NULL;
	return p ? __libc_realloc(p, n) : counted(__libc_realloc(p, n));
}

void free(void *p)
{
	faults_live -= p != NULL;
	__libc_free(p);
}

#define NEXT(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

int socket(int domain, int type, int protocol)
{
	return fails(FAULT_FD, EMFILE) ? -1 : NEXT(socket)(domain, type, protocol);
}

int socketpair(int domain, int type, int protocol, int fds[2])
{
	return fails(FAULT_FD, EMFILE) ? -1 : NEXT(socketpair)(domain, type, protocol, fds);
}

int eventfd(unsigned value, int flags)
{
	return fails(FAULT_FD, EMFILE) ? -1 : NEXT(eventfd)(value, flags);
}

int epoll_create1(int flags)
{
	return fails(FAULT_FD, EMFILE) ? -1 : NEXT(epoll_create1)(flags);
}

int timerfd_create(clockid_t clock, int flags)
{
	return fails(FAULT_FD, EMFILE) ? -1 : NEXT(timerfd_create)(clock, flags);
}

int inotify_init1(int flags)
{
	return fails(FAULT_FD, EMFILE) || fails(FAULT_INOTIFY, EMFILE) ? -1 : NEXT(inotify_init1)(flags);
}

int epoll_ctl(int epfd, int op, int fd, struct epoll_event *event)
{
	return op == EPOLL_CTL_ADD && fails(FAULT_EPOLL, ENOSPC) ? -1 : NEXT(epoll_ctl)(epfd, op, fd, event);
}

int accept4(int fd, struct sockaddr *addr, socklen_t *len, int flags)
{
	return fails(FAULT_FD, EMFILE) ? -1 : NEXT(accept4)(fd, addr, len, flags);
}

int memfd_create(const char *name, unsigned flags)
{
	return fails(FAULT_FD, EMFILE) ? -1 : NEXT(memfd_create)(name, flags);
}

int fcntl(int fd, int cmd, ...)
{
	va_list args;
	long arg;

	va_start(args, cmd);
	arg = va_arg(args, long);
	va_end(args);
	if (cmd == F_DUPFD_CLOEXEC && fails(FAULT_FD, EMFILE))
		return -1;
	return (int)syscall(SYS_fcntl, fd, cmd, arg);
}

void *mmap(void *addr, size_t len, int prot, int flags, int fd, off_t offset)
{
	note(&fault.longest, len);
	return fails(FAULT_MAP, ENOMEM) ? MAP_FAILED : NEXT(mmap)(addr, len, prot, flags, fd, offset);
}

struct faults_seen faults_everywhere(faults_life life, enum fault_class what, bool on, uint32_t least)
{
	struct faults_seen seen = {0};
	struct lv_ledger before;
	long allocations;

	seen.calls = life(what, UINT32_MAX, false, &seen.failures); /* also: what the C library keeps */
	CHECK_EQ(seen.failures, 0);
	CHECK(seen.calls >= least);
	before = lv_ledger_take();
	allocations = faults_live;
	for (uint32_t at = 0; at < seen.calls; at++) {
		life(what, at, on, &seen.failures);
		if (faults_live != allocations)
			lv_test_fail(__FILE__, __LINE__, "call %u failed: %ld allocations are left over", at,
				     faults_live - allocations);
		CHECK_LEDGER(before);
	}
	return seen;
}
