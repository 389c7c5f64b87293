/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/*
 * Interposer that counts what a program does on its unix sockets, without slowing it as strace does.
 * access("mark:NAME") begins a phase. At exit it writes "NAME calls waits polls" lines to the file COUNT_SHIM names.
 *
 *   calls  sends, receives and polls that touch a socket
 *   polls  those of them that may block
 *   waits  times the program blocked for the peer after a send: polls that follow each other without a send wait for
 * the same answers
 */
#include <dlfcn.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

static struct phase {
	char name[32];
	unsigned calls, waits, polls;
} phases[32], *now = phases;
static bool sent;

static bool is_socket(int fd)
{
	struct stat st;

	return fd >= 0 && !fstat(fd, &st) && S_ISSOCK(st.st_mode);
}

#define NEXT(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

int access(const char *path, int mode)
{
	if (!strncmp(path, "mark:", 5) && now < phases + 31) {
		now++;
		snprintf(now->name, sizeof(now->name), "%s", path + 5);
	}
	return NEXT(access)(path, mode);
}

static void count_send(int fd)
{
	if (!is_socket(fd))
		return;
	now->calls++;
	sent = true;
}

ssize_t sendmsg(int fd, const struct msghdr *msg, int flags)
{
	count_send(fd);
	return NEXT(sendmsg)(fd, msg, flags);
}

int sendmmsg(int fd, struct mmsghdr *msgs, unsigned n, int flags)
{
	count_send(fd);
	return NEXT(sendmmsg)(fd, msgs, n, flags);
}

ssize_t send(int fd, const void *buf, size_t n, int flags)
{
	count_send(fd);
	return NEXT(send)(fd, buf, n, flags);
}

ssize_t recvmsg(int fd, struct msghdr *msg, int flags)
{
	now->calls += is_socket(fd);
	return NEXT(recvmsg)(fd, msg, flags);
}

ssize_t recv(int fd, void *buf, size_t n, int flags)
{
	now->calls += is_socket(fd);
	return NEXT(recv)(fd, buf, n, flags);
}

int poll(struct pollfd *fds, nfds_t n, int timeout)
{
	bool sockets = false;

	for (nfds_t i = 0; i < n; i++)
		sockets |= is_socket(fds[i].fd);
	now->calls += sockets;
	if (sockets && timeout) {
		now->polls++;
		now->waits += sent;
		sent = false;
	}
	return NEXT(poll)(fds, n, timeout);
}

__attribute__((destructor)) static void report(void)
{
	FILE *f = getenv("COUNT_SHIM") ? fopen(getenv("COUNT_SHIM"), "we") : NULL;

	for (struct phase *p = phases + 1; f && p <= now; p++)
		fprintf(f, "%s %u %u %u\n", p->name, p->calls, p->waits, p->polls);
	if (f)
		fclose(f);
}
