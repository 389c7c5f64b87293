/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/*
 * Listening sockets that change hands: from a service manager, or from one process to its successor. A socket that
 * stays open all the time keeps who connects waiting in its backlog, so that no connect() fails meanwhile.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "backend/device.h"

static bool says(int fd, int option, int value)
{
	int is = -1;
	socklen_t len = sizeof(is);

	return getsockopt(fd, SOL_SOCKET, option, &is, &len) == 0 && is == value;
}

/* For messages only: a socket may have no name, or one that is no path. */
static void read_path(struct libvhost_backend *b)
{
	struct sockaddr_un addr = {0};
	socklen_t len = sizeof(addr);

	snprintf(b->path, sizeof(b->path), "(descriptor)");
	if (getsockname(b->listener, (struct sockaddr *)&addr, &len) == 0 && addr.sun_path[0])
		snprintf(b->path, sizeof(b->path), "%.*s", (int)sizeof(addr.sun_path) - 1, addr.sun_path);
}

/* Of two processes that see one connection come, the one that is late must not wait for the next. */
static int unblock(struct libvhost_backend *b, int fd)
{
	const int flags = fcntl(fd, F_GETFL);

	if (flags >= 0 && fcntl(fd, F_SETFL, flags | O_NONBLOCK) == 0)
		return 0;
	return lv_fail_sys(&b->err, errno, "back-end: O_NONBLOCK of a listening socket: %s", lv_errno_name(errno));
}

static int take_listener(struct libvhost_backend *b, int fd)
{
	int own, rc = lv_listener_check_free(b);

	if (rc < 0)
		return rc;
	if (fcntl(fd, F_GETFD) < 0)
		return lv_fail(&b->err, -EBADF, LIBVHOST_EK_ARGUMENT, "back-end: descriptor %d is not open", fd);
	if (!says(fd, SO_DOMAIN, AF_UNIX) || !says(fd, SO_TYPE, SOCK_STREAM) || !says(fd, SO_ACCEPTCONN, 1))
		return lv_fail(&b->err, -ENOTSOCK, LIBVHOST_EK_ARGUMENT,
			       "back-end: descriptor %d is not a listening unix stream socket", fd);
	own = lv_fd_dup(fd);
	if (own < 0)
		return lv_fail_sys(&b->err, -own, "back-end: dup: %s", lv_errno_name(-own));
	rc = unblock(b, own);
	if (rc < 0) {
		lv_fd_close(own);
		return rc;
	}
	b->listener = own;
	b->unlinks = false;
	read_path(b);
	lv_backend_rewatch(b);
	return 0;
}

int libvhost_backend_listen_fd(struct libvhost_backend *b, int fd)
{
	int rc;

	if (!b)
		return -EINVAL;
	rc = lv_backend_lock(b);
	if (rc < 0)
		return rc;
	rc = take_listener(b, fd);
	lv_backend_unlock(b);
	return rc;
}

int libvhost_backend_release_listener(struct libvhost_backend *b, int *fd)
{
	int rc;

	if (!b || !fd)
		return -EINVAL;
	rc = lv_backend_lock(b);
	if (rc < 0)
		return rc;
	if (b->listener < 0) {
		rc = lv_fail(&b->err, -ENOENT, LIBVHOST_EK_STATE, "back-end: it does not listen");
	} else {
		lv_backend_unwatch(b, LV_W_LISTENER);
		*fd = b->listener;
		b->listener = -1;
	}
	lv_backend_unlock(b);
	return rc;
}
