/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* The transport object: one plug-in door for all kinds, plus program execution, cancel, error and history around it. */
#ifndef LV_TRANSPORT_TRANSPORT_H
#define LV_TRANSPORT_TRANSPORT_H

#include <poll.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <vhost/transport.h>
#include "core/ctx.h"
#include "core/recorder.h"

/* Who gets inbound requests before the host's on_request: the managed device. */
struct lv_transport_client {
	/* Return 0 answered (fields of req filled), -ENOTSUP not mine (on_request is asked next). No lock held. */
	int (*inbound)(void *arg, struct libvhost_req *req);
	/* After the answer to req was sent: events are raised here, reply first. May be NULL. */
	void (*answered)(void *arg, const struct libvhost_req *req);
	/* While 1, no further back-end request is read (event queue full). May be NULL. */
	bool (*paused)(void *arg);
	void *arg;
};

struct libvhost_transport {
	struct libvhost_ctx *ctx;
	struct libvhost_transport_ops ops;
	void *self;
	struct lv_errslot err; /* the plug-in records its errors here through lv_transport_errslot() */
	struct lv_recorder recorder;
	struct lv_transport_client client;
	libvhost_request_fn on_request;
	void *on_request_arg;
	char peer[112];
	/* program under way */
	struct libvhost_req *reqs;
	uint32_t count;
	uint64_t deadline;
	atomic_int running; /* 1 from submit to end; also excludes two threads */
	atomic_int cancelled;
	int cancel_fd; /* eventfd in every wait of this transport */
	int epoll_fd;  /* made on demand by libvhost_transport_fd() */
	bool broken;   /* connection is gone: -ENOTCONN until reopened */
};

/* Absolute-deadline forms used by the device room; errors as the public calls. */
int lv_transport_submit(struct libvhost_transport *t, struct libvhost_req *reqs, uint32_t count, uint64_t deadline);
/* 1 ended well, 0 goes on, negative ended badly (all request states are set, error recorded). Checks deadline and
 * cancel. */
int lv_transport_progress(struct libvhost_transport *t);
/* Descriptors to wait for: the plug-in's and the cancel eventfd. */
uint32_t lv_transport_pollfds(struct libvhost_transport *t, struct pollfd *fds, uint32_t cap);
/* Drops the connection / opens it again (non-blocking step: -EAGAIN = the peer is not there yet). */
void lv_transport_close(struct libvhost_transport *t);
int lv_transport_reopen(struct libvhost_transport *t);
void lv_transport_set_client(struct libvhost_transport *t, const struct lv_transport_client *client);

/* Constructors of the built-in kinds: fill ops and self of an otherwise ready object. */
int lv_user_transport_open(struct libvhost_transport *t, const char *uri, const struct libvhost_transport_opts *opts,
			   uint64_t deadline);

#endif
