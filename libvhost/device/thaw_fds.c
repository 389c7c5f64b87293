/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* The descriptors of a blob: whether they are what they should be, where they go, and whose they are in the end. */
#include "device/frozen.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include "core/wire.h"

static bool listens(int fd)
{
	int on = 0;
	socklen_t len = sizeof(on);

	return !getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &on, &len) && on;
}

/* NULL, or what the descriptor should have been. */
static const char *wrong_kind(const struct lv_record *rec, uint32_t kind, int fd, const struct stat *st)
{
	uint64_t file;

	switch (kind) {
	case LV_BLOB_FD_CONTROL:
	case LV_BLOB_FD_CHANNEL:
		return lv_wire_check(fd) ? "a connected unix stream socket" : NULL;
	case LV_BLOB_FD_LISTENER:
		return listens(fd) ? NULL : "a listening socket";
	case LV_BLOB_FD_MESSAGE:
	case LV_BLOB_FD_DOORBELL: /* looked at when it is mapped */
		return NULL;
	case LV_BLOB_FD_INFLIGHT:
		return !lv_inflight_check_fd(fd, &file) && file >= rec->inflight_bytes + rec->inflight_offset
			       ? NULL
			       : "the file of the inflight region, with all its bytes: " LV_INFLIGHT_FILE;
	case LV_BLOB_FD_LOG:
		return S_ISREG(st->st_mode) && (uint64_t)st->st_size >= rec->log_bytes
			       ? NULL
			       : "the file of the dirty log, with all its bytes";
	default:
		return !(st->st_mode & S_IFMT) || S_ISFIFO(st->st_mode) || S_ISSOCK(st->st_mode)
			       ? NULL
			       : "an eventfd or the like";
	}
}

static int check_fd(const struct lv_thaw *t, uint32_t at)
{
	const struct lv_blob_fd *want = &t->blob->fds[at];
	const int fd = t->opts.fds[at];
	const char *wrong;
	struct stat st;

	for (uint32_t i = 0; i < at; i++)
		if (t->opts.fds[i] == fd)
			return lv_fail(&t->ctx->err, -EINVAL, LIBVHOST_EK_ARGUMENT,
				       "thaw: descriptor %d is given twice, as number %u and %u", fd, i, at);
	if (fd < 0 || fstat(fd, &st) < 0)
		return lv_fail(&t->ctx->err, -EINVAL, LIBVHOST_EK_ARGUMENT,
			       "thaw: descriptor %d (number %u) is not open", fd, at);
	wrong = wrong_kind(t->blob->rec, want->kind, fd, &st);
	if (wrong)
		return lv_fail(&t->ctx->err, -EINVAL, LIBVHOST_EK_ARGUMENT,
			       "thaw: descriptor %d (number %u) is not %s; give them in the order in which freeze did",
			       fd, at, wrong);
	return 0;
}

int lv_thaw_check_fds(const struct lv_thaw *t)
{
	int r = 0;

	if (t->opts.nfds != t->blob->nfds)
		return lv_fail(&t->ctx->err, -EINVAL, LIBVHOST_EK_ARGUMENT,
			       "thaw: %u descriptors were given, %u belong to the blob", t->opts.nfds, t->blob->nfds);
	for (uint32_t i = 0; i < t->blob->nfds && !r; i++)
		r = check_fd(t, i);
	return r;
}

/* Where a descriptor goes; NULL = who adopts it sees to it. */
static int *slot_of(struct libvhost_dev *dev, struct lv_connection *conn, const struct lv_blob_fd *fd)
{
	struct lv_queue_fds *queue = &dev->fds[fd->index < dev->rec->num_queues ? fd->index : 0];

	switch (fd->kind) {
	case LV_BLOB_FD_CONTROL:
		return &conn->sock;
	case LV_BLOB_FD_LISTENER:
		return &conn->listener;
	case LV_BLOB_FD_CHANNEL:
		return &conn->channel;
	case LV_BLOB_FD_MESSAGE:
		return &conn->channel_fds[conn->channel_nfds++];
	case LV_BLOB_FD_INFLIGHT:
		return &dev->inflight.fd;
	case LV_BLOB_FD_CONFIG_CALL:
		return &dev->config_irq.fd;
	case LV_BLOB_FD_KICK:
		return &queue->kick;
	case LV_BLOB_FD_CALL:
		return &queue->call;
	case LV_BLOB_FD_ERR:
		return &queue->err;
	case LV_BLOB_FD_MASKED:
		return &queue->masked;
	default:
		return NULL;
	}
}

void lv_thaw_put_fds(struct lv_thaw *t)
{
	for (uint32_t i = 0; i < t->blob->nfds; i++) {
		int *slot = slot_of(t->dev, &t->blob->conn, &t->blob->fds[i]);

		if (slot)
			*slot = t->opts.fds[i];
	}
}

void lv_thaw_own_fds(const struct lv_thaw *t)
{
	const struct lv_connection *c = &t->blob->conn;

	for (uint32_t i = 0; i < t->blob->nfds; i++)
		if (t->blob->fds[i].kind == LV_BLOB_FD_LOG)
			lv_fd_close(t->opts.fds[i]); /* the memory has its own */
		else
			fcntl(t->opts.fds[i], F_SETFD, FD_CLOEXEC);
	if (t->opts.uri && strcmp(t->opts.uri, c->uri))
		lv_fd_close(c->listener); /* the device comes back from another place */
}
