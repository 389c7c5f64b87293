/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/*
 * A vhost-user connection at rest, as a value: what one process takes out of its transport and another makes a
 * transport of, without a byte on the socket.
 */
#ifndef LV_TRANSPORT_CONNECTION_H
#define LV_TRANSPORT_CONNECTION_H

#include "protocol/codec.h"
#include "transport/transport.h"

#define LV_CONNECTION_URI   128u   /* bytes, the terminating 0 included */
#define LV_CONNECTION_BYTES 16384u /* most bytes received and not yet understood, of either socket */
#define LV_CONNECTION_FDS   32u	   /* most descriptors that came with them, on the channel */

struct lv_connection {
	char uri[LV_CONNECTION_URI]; /* "user:PATH", "user-listen:PATH", "user-fd:" */
	struct lv_user_session session;
	int sock, listener, channel; /* -1 = none */
	/* received ahead of their meaning; borrowed from the transport or from a blob */
	const uint8_t *bytes, *channel_bytes;
	uint32_t len, channel_len;
	uint32_t channel_nfds, channel_fds_dropped;
	int channel_fds[LV_CONNECTION_FDS];
};

/* Describes the connection of t; everything is borrowed. 0; -EBUSY (a program runs, an answer is on its way or ours is
 * not sent: the reason is recorded in err); -ENOTSUP (another kind of transport); -ENOTCONN. */
int lv_connection_describe(struct libvhost_transport *t, struct lv_errslot *err, struct lv_connection *c);
/* Forgets the descriptors of c without closing or shutting down anything: they live on with their new owner. The
 * transport is broken afterwards and cannot be opened again. The caller is inside of t. */
void lv_connection_let_go(struct libvhost_transport *t, const struct lv_connection *c);
/* Makes a transport of a description. It owns the descriptors on success (lv_connection_let_go() gives them back), but
 * for a listener that uri, where to reconnect from now on (NULL = as before), makes superfluous. 0; -EINVAL (uri);
 * errors of libvhost_transport_open() for a new listener; -ENOMEM; recorded in ctx. */
int lv_connection_adopt(struct libvhost_ctx *ctx, const struct lv_connection *c, const char *uri, uint32_t ack_policy,
			struct libvhost_transport **ret);

#endif
