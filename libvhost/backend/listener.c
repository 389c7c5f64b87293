/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* How a front-end comes: by our listener or as a connected socket. One at a time: while it is there nobody is accepted.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "backend/device.h"

#define BACKLOG	 8
#define RETRY_NS (100 * LV_NS_PER_MS)

void lv_listener_turn(struct libvhost_backend *b)
{
	int sock;

	if (b->listener < 0 || lv_backend_occupied(b))
		return;
	sock = lv_wire_accept(b->listener);
	if (sock >= 0) {
		lv_conn_open(b, sock);
		return;
	}
	if (sock == -EAGAIN)
		return;
	/* Out of descriptors the listener would stay readable for ever: look away for a while. */
	b->accept_paused = true;
	b->retry_at = lv_now(b->ctx) + RETRY_NS;
	lv_fail_sys(&b->err, -sock, "back-end %s: accept: %s; tried again later", b->path, lv_errno_name(-sock));
}

void lv_listener_close(struct libvhost_backend *b)
{
	if (b->listener < 0)
		return;
	lv_backend_unwatch(b, LV_W_LISTENER);
	if (b->unlinks)
		unlink(b->path);
	lv_fd_close(b->listener);
	b->listener = -1;
}

/* What is wrong with a path, and what may be said of it: the rest is the system's own word. */
static const struct {
	int from, to;
	const char *why;
} refusals[] = {
	{-EADDRINUSE, -EADDRINUSE, "somebody listens there; end that one, or give another path"},
	{-EACCES, -EACCES, "no permission to make a socket in that folder, or to see what is there"},
	{-EROFS, -EROFS, "the file system is read-only"},
	{-ENOSPC, -ENOSPC, "the file system is full"},
	{-EINVAL, -EINVAL, "the path is empty"},
	{-ENAMETOOLONG, -EINVAL, "the path is longer than the 107 bytes that a socket's may have"},
	{-ENOTSOCK, -EINVAL, "a file that is no socket is in the way"},
	{-EPROTOTYPE, -EINVAL, "a socket of another kind is in the way"},
	{-ENOENT, -EINVAL, "its folder is missing"},
	{-ENOTDIR, -EINVAL, "its folder is not one"},
};

static int refuse_path(struct libvhost_backend *b, int rc, const char *path)
{
	for (size_t i = 0; i < sizeof(refusals) / sizeof(*refusals); i++)
		if (refusals[i].from == rc)
			return lv_fail(&b->err, refusals[i].to, LIBVHOST_EK_CONNECT,
				       "back-end: cannot listen on '%.200s': %s", path, refusals[i].why);
	return lv_fail_sys(&b->err, -rc, "back-end: cannot listen on '%.200s': %s", path, lv_errno_name(-rc));
}

int lv_listener_check_free(struct libvhost_backend *b)
{
	int rc = lv_backend_check_alive(b);

	if (rc == 0 && b->listener >= 0)
		rc = lv_fail(&b->err, -EBUSY, LIBVHOST_EK_STATE, "back-end: it listens on %s already", b->path);
	if (rc == 0 && b->client.path[0])
		rc = lv_fail(&b->err, -EBUSY, LIBVHOST_EK_STATE, "back-end: it connects to %s already", b->client.path);
	return rc;
}

static int listen_on(struct libvhost_backend *b, const char *path)
{
	int rc = lv_listener_check_free(b);

	if (rc < 0)
		return rc;
	rc = lv_wire_listen(path, BACKLOG);
	if (rc < 0)
		return refuse_path(b, rc, path);
	b->listener = rc;
	b->unlinks = true;
	snprintf(b->path, sizeof(b->path), "%s", path);
	lv_backend_rewatch(b);
	return 0;
}

int libvhost_backend_listen(struct libvhost_backend *b, const char *path)
{
	int rc;

	if (!b || !path)
		return -EINVAL;
	rc = lv_backend_lock(b);
	if (rc < 0)
		return rc;
	rc = listen_on(b, path);
	lv_backend_unlock(b);
	return rc;
}

static int adopt(struct libvhost_backend *b, int fd)
{
	int sock, rc = lv_backend_check_alive(b);

	if (rc < 0)
		return rc;
	if (lv_backend_occupied(b))
		return lv_fail(&b->err, -EBUSY, LIBVHOST_EK_STATE, "back-end: a front-end is connected");
	rc = lv_wire_check(fd);
	if (rc < 0)
		return lv_fail(&b->err, rc, LIBVHOST_EK_ARGUMENT,
			       "back-end: descriptor %d is not a connected unix stream socket", fd);
	sock = lv_fd_dup(fd);
	if (sock < 0)
		return lv_fail_sys(&b->err, -sock, "back-end: dup: %s", lv_errno_name(-sock));
	rc = lv_conn_open(b, sock);
	if (rc < 0)
		return lv_fail(&b->err, rc, LIBVHOST_EK_NOMEM, "back-end: out of memory");
	lv_backend_rewatch(b);
	return 0;
}

int libvhost_backend_adopt(struct libvhost_backend *b, int fd)
{
	int rc;

	if (!b)
		return -EINVAL;
	rc = lv_backend_lock(b);
	if (rc < 0)
		return rc;
	rc = adopt(b, fd);
	lv_backend_unlock(b);
	return rc;
}
