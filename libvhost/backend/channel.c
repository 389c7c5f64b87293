/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/*
 * The back-end channel, for the one thing this device says by itself: its configuration changed. No acknowledgement is
 * asked for, so nothing may ever come back; a change that cannot leave waits, and any number of changes is one message.
 */
#include <errno.h>

#include "backend/device.h"

int lv_channel_set(struct lv_session *s, struct libvhost_req *req)
{
	int rc, fd;

	if (s->b->inproc && !(req->flags & LIBVHOST_REQ_HAS_FD))
		return 0; /* in one process the transport itself is the channel */
	rc = lv_wire_check(req->fd);
	if (rc < 0)
		return rc;
	fd = lv_fd_dup(req->fd);
	if (fd < 0)
		return fd;
	lv_channel_close(s);
	s->channel = fd;
	return 0;
}

void lv_channel_close(struct lv_session *s)
{
	lv_backend_unwatch(s->b, LV_W_CHANNEL);
	lv_fd_close(s->channel);
	s->channel = -1;
}

static int send_change(struct lv_session *s)
{
	uint8_t bytes[LV_USER_HDR];
	const struct libvhost_req req = {.op = LIBVHOST_OP_BACKEND_CONFIG_CHANGE};
	struct lv_wire_msg msg = {.data = bytes};
	const char *why = NULL;
	int fds[LV_USER_MAX_FDS];
	size_t off = 0;
	ssize_t n;
	int len = lv_user_encode(&req, &s->wire, 0, bytes, sizeof(bytes), fds, &msg.nfds, &why);

	if (len < 0)
		return len;
	msg.len = (uint32_t)len;
	n = lv_wire_send(s->channel, &msg, 1, &off);
	if (n == 0 && off)
		return -EIO; /* a torn header: cannot happen while whole headers are all we send */
	return (int)n;
}

void lv_channel_turn(struct lv_session *s)
{
	int rc = 0;

	if (s->channel < 0)
		return;
	if (lv_wire_pending(s->channel)) {
		lv_log(s->b->ctx, LIBVHOST_LOG_LEVEL_WARNING, LIBVHOST_EK_PROTOCOL,
		       "back-end %s: back-end channel closed: the front-end left it or answered what nobody asked",
		       s->b->path);
		lv_channel_close(s);
		return;
	}
	if (s->config_changed)
		rc = send_change(s);
	if (rc > 0)
		s->config_changed = false;
	if (rc < 0)
		lv_channel_close(s);
}
