/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/*
 * Connections that change their process. Only one at rest can: no program, no answer owed to either side. What was
 * received and not understood yet goes along, half a request of the back-end and its descriptors included, so that a
 * peer that writes slowly cannot stand in the way of an upgrade.
 */
#include "transport/connection.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "transport/user.h"

_Static_assert(LV_CONNECTION_FDS == LV_WIRE_MAX_FDS, "whatever the channel holds can be described");
_Static_assert(LV_USER_HDR + LV_USER_MAX_PAYLOAD <= LV_CONNECTION_BYTES, "as above");

static int busy(struct lv_errslot *err, const struct libvhost_transport *t, const char *why)
{
	return lv_fail(err, -EBUSY, LIBVHOST_EK_BUSY, "%s: %s; dispatch and try again", t->peer, why);
}

static int check_rest(struct libvhost_transport *t, struct lv_errslot *err)
{
	const struct lv_user *u = t->self;

	if (u->sock < 0 || t->broken)
		return lv_fail(err, -ENOTCONN, LIBVHOST_EK_DISCONNECTED, "%s: not connected", t->peer);
	if (u->prog.active || atomic_load(&t->running))
		return busy(err, t, "a program is under way");
	if (u->nowed)
		return busy(err, t, "an answer of the peer is still on its way");
	if (u->chan.reply.len)
		return busy(err, t, "an answer to a request of the peer is not sent yet");
	return 0;
}

static void describe_channel(const struct lv_user_channel *chan, struct lv_connection *c)
{
	c->channel = chan->sock;
	if (chan->sock < 0)
		return;
	c->channel_bytes = chan->in.buf + chan->in.start;
	c->channel_len = (uint32_t)(chan->in.end - chan->in.start);
	c->channel_fds_dropped = chan->in.fds_dropped;
	c->channel_nfds = chan->in.nfds;
	memcpy(c->channel_fds, chan->in.fds, chan->in.nfds * sizeof(c->channel_fds[0]));
}

int lv_connection_describe(struct libvhost_transport *t, struct lv_errslot *err, struct lv_connection *c)
{
	const struct lv_user *u = t->self;
	int rc;

	if (!lv_is_user_transport(t))
		return lv_fail(err, -ENOTSUP, LIBVHOST_EK_UNSUPPORTED,
			       "%s: only a vhost-user connection can be handed over", t->peer);
	rc = check_rest(t, err);
	if (rc < 0)
		return rc;
	memset(c, 0, sizeof(*c));
	if (!u->path[0])
		snprintf(c->uri, sizeof(c->uri), "user-fd:");
	else
		snprintf(c->uri, sizeof(c->uri), "%s:%s", u->listens ? "user-listen" : "user", u->path);
	c->session = u->session;
	c->sock = u->sock;
	c->listener = u->listener;
	c->bytes = u->in.buf + u->in.start;
	c->len = (uint32_t)(u->in.end - u->in.start);
	describe_channel(&u->chan, c);
	return 0;
}

static void forget(struct lv_user *u, int *fd)
{
	if (*fd >= 0)
		lv_transport_unwatch(u->t, *fd);
	*fd = -1;
}

void lv_connection_let_go(struct libvhost_transport *t, const struct lv_connection *c)
{
	struct lv_user *u = t->self;

	forget(u, &u->sock);
	forget(u, &u->chan.sock);
	if (u->listener == c->listener)
		forget(u, &u->listener);
	if (u->listener < 0)
		u->path[0] = 0;
	u->chan.in.nfds = 0;
	lv_user_disconnect(u);
}

static int put_received(struct lv_user *u, struct lv_wire_in *in, const uint8_t *bytes, uint32_t len)
{
	if (len > in->cap)
		return lv_fail(&u->t->err, -EINVAL, LIBVHOST_EK_ARGUMENT,
			       "%s: %u bytes received ahead; at most %zu are possible", u->t->peer, len, in->cap);
	if (len)
		memcpy(in->buf, bytes, len);
	in->start = 0;
	in->end = len;
	return 0;
}

/* Descriptors change hands last, when nothing can fail any more. */
static int take_channel(struct lv_user *u, const struct lv_connection *c)
{
	struct lv_wire_in *in = &u->chan.in;
	int rc = lv_wire_in_init(in, LV_USER_HDR + LV_USER_MAX_PAYLOAD);

	if (rc < 0)
		return lv_fail(&u->t->err, rc, LIBVHOST_EK_NOMEM, "%s: out of memory", u->t->peer);
	rc = put_received(u, in, c->channel_bytes, c->channel_len);
	if (rc < 0)
		return rc;
	in->fds_dropped = c->channel_fds_dropped;
	in->nfds = c->channel_nfds;
	memcpy(in->fds, c->channel_fds, c->channel_nfds * sizeof(in->fds[0]));
	u->chan.sock = c->channel;
	return 0;
}

static int fill(struct lv_user *u, const struct lv_connection *c, bool moved)
{
	const bool new_listener = u->listens && (moved || c->listener < 0);
	int rc = new_listener ? lv_user_listen(u) : 0;

	if (!rc)
		rc = put_received(u, &u->in, c->bytes, c->len);
	if (!rc && c->channel >= 0)
		rc = take_channel(u, c);
	if (rc < 0)
		return rc;
	if (u->listens && !new_listener)
		lv_user_take_listener(u, c->listener);
	u->session = c->session;
	u->sock = c->sock;
	return 0;
}

int lv_connection_adopt(struct libvhost_ctx *ctx, const struct lv_connection *c, const char *uri, uint32_t ack_policy,
			struct libvhost_transport **ret)
{
	const bool moved = uri && strcmp(uri, c->uri);
	struct libvhost_transport *t = lv_transport_alloc(ctx);
	int rc;

	if (!t)
		return -ENOMEM;
	atomic_init(&t->ack_policy, ack_policy);
	rc = lv_user_place(t, moved ? uri : c->uri);
	if (!rc)
		rc = fill(t->self, c, moved);
	if (rc < 0) {
		lv_fail_copy(&ctx->err, &t->err);
		libvhost_transport_free(t);
		return rc;
	}
	*ret = t;
	return 0;
}
