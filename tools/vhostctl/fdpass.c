/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
#include "fdpass.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define AT_ONCE 128u /* below SCM_MAX_FD; each bunch travels with one byte of its own */

union control {
	struct cmsghdr align;
	char bytes[CMSG_SPACE(AT_ONCE * sizeof(int))];
};

static int send_bunch(int sock, const int *fds, uint32_t nfds)
{
	union control control = {0};
	struct iovec iov = {.iov_base = &(char){0}, .iov_len = 1};
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control.bytes};
	struct cmsghdr *cmsg;

	msg.msg_controllen = CMSG_SPACE(nfds * sizeof(int));
	cmsg = CMSG_FIRSTHDR(&msg);
	cmsg->cmsg_level = SOL_SOCKET;
	cmsg->cmsg_type = SCM_RIGHTS;
	cmsg->cmsg_len = CMSG_LEN(nfds * sizeof(int));
	memcpy(CMSG_DATA(cmsg), fds, nfds * sizeof(int));
	return sendmsg(sock, &msg, MSG_NOSIGNAL) == 1 ? 0 : -1;
}

static int recv_bunch(int sock, int *fds, uint32_t nfds)
{
	union control control;
	char byte;
	struct iovec iov = {.iov_base = &byte, .iov_len = 1};
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control.bytes};
	struct cmsghdr *cmsg;
	ssize_t n;

	msg.msg_controllen = CMSG_SPACE(nfds * sizeof(int));
	n = recvmsg(sock, &msg, MSG_CMSG_CLOEXEC);
	cmsg = CMSG_FIRSTHDR(&msg);
	if (n != 1 || !cmsg || cmsg->cmsg_len != CMSG_LEN(nfds * sizeof(int))) {
		errno = n < 0 ? errno : EPIPE;
		return -1;
	}
	memcpy(fds, CMSG_DATA(cmsg), nfds * sizeof(int));
	return 0;
}

int fdpass_send(int sock, const void *data, size_t len, const int *fds, uint32_t nfds)
{
	for (uint32_t at = 0, n; at < nfds; at += n) {
		n = nfds - at < AT_ONCE ? nfds - at : AT_ONCE;
		if (send_bunch(sock, fds + at, n))
			return -1;
	}
	for (size_t done = 0; done < len;) {
		const ssize_t n = send(sock, (const char *)data + done, len - done, MSG_NOSIGNAL);

		if (n < 0)
			return -1;
		done += (size_t)n;
	}
	return 0;
}

int fdpass_recv(int sock, void *data, size_t len, int *fds, uint32_t nfds)
{
	for (uint32_t at = 0, n; at < nfds; at += n) {
		n = nfds - at < AT_ONCE ? nfds - at : AT_ONCE;
		if (recv_bunch(sock, fds + at, n))
			return -1;
	}
	for (size_t done = 0; done < len;) {
		const ssize_t n = recv(sock, (char *)data + done, len - done, 0);

		if (n <= 0) {
			errno = n ? errno : EPIPE;
			return -1;
		}
		done += (size_t)n;
	}
	return 0;
}
