/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
#include "core/stream.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "core/wire.h"

/*
 * O_NONBLOCK belongs to all who hold the same opened end, and a peer may take it away while we write. So the pipe is
 * opened once more for us alone; where that is not allowed (another user's pipe, no /proc) the flag has to do.
 */
static int own_end(int fd, bool writes)
{
	char path[32];
	int own;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	own = open(path, (writes ? O_WRONLY : O_RDONLY) | O_NONBLOCK | O_CLOEXEC);
	if (own < 0) {
		own = lv_fd_dup(fd);
		if (own >= 0)
			fcntl(own, F_SETFL, fcntl(own, F_GETFL) | O_NONBLOCK);
	}
	return own;
}

/* Pipes and stream sockets: behind other files may be a program that lets us wait. */
int lv_stream_take(struct lv_stream *s, int fd, bool writes)
{
	const int flags = fcntl(fd, F_GETFL), wrong = writes ? O_RDONLY : O_WRONLY;
	struct lv_stream end = {.fd = -EINVAL, .writes = writes};
	socklen_t len = sizeof(int);
	struct stat st;
	int type = 0;

	if (flags < 0 || flags & O_PATH || (flags & O_ACCMODE) == wrong || fstat(fd, &st))
		return -EINVAL;
	end.socket = S_ISSOCK(st.st_mode);
	if (S_ISFIFO(st.st_mode))
		end.fd = own_end(fd, writes);
	else if (end.socket && getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &len) == 0 && type == SOCK_STREAM)
		end.fd = lv_fd_dup(fd);
	if (end.fd < 0)
		return end.fd;
	*s = end;
	return 0;
}

int lv_stream_pipe(struct lv_stream *s, bool writes, int *peer)
{
	int low[2], fds[2] = {-1, -1};

	if (pipe2(low, O_CLOEXEC))
		return -errno;
	for (int i = 0; i < 2; i++) {
		fds[i] = lv_fd_dup(low[i]);
		lv_fd_close(low[i]);
	}
	if (fds[0] < 0 || fds[1] < 0 || fcntl(fds[writes], F_SETFL, O_NONBLOCK | (writes ? O_WRONLY : O_RDONLY))) {
		lv_fd_close(fds[0]);
		lv_fd_close(fds[1]);
		return -EMFILE;
	}
	*s = (struct lv_stream){.fd = fds[writes], .writes = writes};
	*peer = fds[!writes];
	return 0;
}

/* write(2), but who has no reader any more hears it from the return value only: SIGPIPE is the host's. */
static ssize_t write_quietly(int fd, const void *buf, size_t len)
{
	const struct timespec at_once = {0};
	sigset_t sigpipe, old, pending;
	bool others;
	ssize_t n;
	int err;

	sigemptyset(&sigpipe);
	sigaddset(&sigpipe, SIGPIPE);
	pthread_sigmask(SIG_BLOCK, &sigpipe, &old);
	others = sigpending(&pending) == 0 && sigismember(&pending, SIGPIPE);
	n = write(fd, buf, len);
	err = errno;
	while (n < 0 && err == EPIPE && !others && sigtimedwait(&sigpipe, NULL, &at_once) < 0 && errno == EINTR)
		;
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	errno = err;
	return n;
}

/* The call that answers leave by: a sandbox for control messages knows no other. */
static ssize_t send_bytes(int fd, void *buf, size_t len)
{
	struct iovec iov = {.iov_base = buf, .iov_len = len};
	struct mmsghdr m = {.msg_hdr = {.msg_iov = &iov, .msg_iovlen = 1}};
	const int n = sendmmsg(fd, &m, 1, MSG_DONTWAIT | MSG_NOSIGNAL);

	return n < 0 ? -1 : (ssize_t)m.msg_len;
}

ssize_t lv_stream_move(const struct lv_stream *s, void *buf, size_t len)
{
	ssize_t n;

	do {
		if (s->socket)
			n = s->writes ? send_bytes(s->fd, buf, len) : recv(s->fd, buf, len, MSG_DONTWAIT);
		else
			n = s->writes ? write_quietly(s->fd, buf, len) : read(s->fd, buf, len);
	} while (n < 0 && errno == EINTR);
	return n < 0 ? -errno : n;
}

void lv_stream_close(struct lv_stream *s)
{
	lv_fd_close(s->fd);
	*s = LV_STREAM_NONE;
}
