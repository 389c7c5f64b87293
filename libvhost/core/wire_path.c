/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* How a unix stream socket comes into being: connected, listening, accepted, paired, adopted. */
#include "core/wire.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define SOCK_KIND (SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC)

static int fill_address(struct sockaddr_un *addr, const char *path)
{
	const size_t len = strlen(path);

	if (!len)
		return -EINVAL;
	if (len >= sizeof(addr->sun_path))
		return -ENAMETOOLONG;
	memset(addr, 0, sizeof(*addr));
	addr->sun_family = AF_UNIX;
	memcpy(addr->sun_path, path, len + 1);
	return 0;
}

/* The kernel says "refused" for a file that is no socket at all. One look: the file may be replaced meanwhile. */
static int why_refused(const char *path)
{
	struct stat st;

	if (stat(path, &st))
		return errno == ENOENT ? -ENOENT : -ECONNREFUSED;
	return S_ISSOCK(st.st_mode) ? -ECONNREFUSED : -ENOTSOCK;
}

/* A socket for path, whose address goes to *addr. */
static int make_socket(struct sockaddr_un *addr, const char *path)
{
	int rc = fill_address(addr, path);

	if (rc < 0)
		return rc;
	rc = socket(AF_UNIX, SOCK_KIND, 0);
	return rc < 0 ? -errno : rc;
}

int lv_wire_connect(const char *path)
{
	struct sockaddr_un addr;
	int rc, sock = make_socket(&addr, path);

	if (sock < 0)
		return sock;
	do
		rc = connect(sock, (struct sockaddr *)&addr, sizeof(addr));
	while (rc < 0 && errno == EINTR);
	if (!rc || errno == EISCONN)
		return sock;
	rc = errno == ECONNREFUSED ? why_refused(path) : -errno;
	close(sock);
	return rc;
}

/* 0 = path is free now; a socket that somebody listens on and files of other kinds stay. */
static int remove_stale(const char *path)
{
	struct stat st;
	int sock;

	if (lstat(path, &st))
		return errno == ENOENT ? 0 : -errno;
	if (!S_ISSOCK(st.st_mode))
		return -ENOTSOCK;
	sock = lv_wire_connect(path);
	if (sock >= 0 || sock == -EAGAIN) {
		lv_fd_close(sock);
		return -EADDRINUSE;
	}
	if (sock != -ECONNREFUSED && sock != -ENOENT)
		return sock;
	return unlink(path) && errno != ENOENT ? -errno : 0;
}

int lv_wire_listen(const char *path, int backlog)
{
	struct sockaddr_un addr;
	int rc = 0, sock = make_socket(&addr, path);

	if (sock < 0)
		return sock;
	if (bind(sock, (struct sockaddr *)&addr, sizeof(addr))) {
		rc = errno == EADDRINUSE ? remove_stale(path) : -errno;
		if (!rc && bind(sock, (struct sockaddr *)&addr, sizeof(addr)))
			rc = -errno;
	}
	if (!rc && listen(sock, backlog)) {
		rc = -errno;
		unlink(path);
	}
	if (!rc)
		return sock;
	close(sock);
	return rc;
}

int lv_wire_accept(int listener)
{
	int sock;

	do
		sock = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
	while (sock < 0 && (errno == EINTR || errno == ECONNABORTED));
	return sock < 0 ? -errno : sock;
}

int lv_wire_pair(int socks[2])
{
	return socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, socks) ? -errno : 0;
}

int lv_wire_check(int fd)
{
	struct sockaddr_un addr = {0};
	socklen_t len = sizeof(addr);
	int type = 0;
	socklen_t type_len = sizeof(type);

	if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &type_len))
		return -errno;
	if (type != SOCK_STREAM || getpeername(fd, (struct sockaddr *)&addr, &len) || addr.sun_family != AF_UNIX)
		return -ENOTSOCK;
	return 0;
}
