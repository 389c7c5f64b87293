/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/*
 * Interposer that writes what a program says and hears on its unix sockets to the file RECORD_SHIM names, one line a
 * call: ">" or "<", descriptor, bytes in hexadecimal; "x" and the descriptor when it is closed. Not the library's own
 * view: tests/peers/matrix.py decodes it.
 */
#include <dlfcn.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#define LINE_MAX_BYTES (1u << 20)
#define NEXT(name)     ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

static int is_socket(int fd)
{
	struct stat st;

	return fd >= 0 && !fstat(fd, &st) && S_ISSOCK(st.st_mode);
}

static int out = -1;

/* Before any thread has a sandbox that knows no open(). */
__attribute__((constructor)) static void begin(void)
{
	if (getenv("RECORD_SHIM"))
		out = open(getenv("RECORD_SHIM"), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
}

/* One write() a line: lines of several threads do not mix. */
static void put(const char *line, size_t n)
{
	if (out >= 0 && write(out, line, n) < 0)
		abort();
}

static void record(char direction, int fd, const struct iovec *iov, size_t count, size_t bytes)
{
	char *line = malloc(64 + 2 * bytes);
	size_t at;

	if (!line || !bytes || bytes > LINE_MAX_BYTES || !is_socket(fd)) {
		free(line);
		return;
	}
	at = (size_t)sprintf(line, "%c %d ", direction, fd);
	for (size_t i = 0; i < count && bytes; i++) {
		size_t n = iov[i].iov_len < bytes ? iov[i].iov_len : bytes;

		for (size_t b = 0; b < n; b++)
			at += (size_t)sprintf(line + at, "%02x", ((unsigned char *)iov[i].iov_base)[b]);
		bytes -= n;
	}
	line[at++] = '\n';
	put(line, at);
	free(line);
}

ssize_t sendmsg(int fd, const struct msghdr *msg, int flags)
{
	ssize_t n = NEXT(sendmsg)(fd, msg, flags);

	if (n > 0)
		record('>', fd, msg->msg_iov, msg->msg_iovlen, (size_t)n);
	return n;
}

int sendmmsg(int fd, struct mmsghdr *msgs, unsigned count, int flags)
{
	int n = NEXT(sendmmsg)(fd, msgs, count, flags);

	for (int i = 0; i < n; i++)
		record('>', fd, msgs[i].msg_hdr.msg_iov, msgs[i].msg_hdr.msg_iovlen, msgs[i].msg_len);
	return n;
}

ssize_t send(int fd, const void *buf, size_t size, int flags)
{
	const struct iovec iov = {(void *)buf, size};
	ssize_t n = NEXT(send)(fd, buf, size, flags);

	if (n > 0)
		record('>', fd, &iov, 1, (size_t)n);
	return n;
}

ssize_t recvmsg(int fd, struct msghdr *msg, int flags)
{
	ssize_t n = NEXT(recvmsg)(fd, msg, flags);

	if (n > 0 && !(flags & MSG_PEEK))
		record('<', fd, msg->msg_iov, msg->msg_iovlen, (size_t)n);
	return n;
}

ssize_t recv(int fd, void *buf, size_t size, int flags)
{
	const struct iovec iov = {buf, size};
	ssize_t n = NEXT(recv)(fd, buf, size, flags);

	if (n > 0 && !(flags & MSG_PEEK))
		record('<', fd, &iov, 1, (size_t)n);
	return n;
}

int close(int fd)
{
	char line[32];

	if (is_socket(fd))
		put(line, (size_t)sprintf(line, "x %d\n", fd));
	return NEXT(close)(fd);
}
