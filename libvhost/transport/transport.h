/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* The transport object: one plug-in door for all kinds, plus program execution, cancel, error and history around it. */
#ifndef LV_TRANSPORT_TRANSPORT_H
#define LV_TRANSPORT_TRANSPORT_H

#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <vhost/transport.h>
#include "core/ctx.h"
#include "core/recorder.h"

#define LV_TRANSPORT_POLLFDS 8u	    /* most descriptors of one transport in a wait, the cancel eventfd included */
#define LV_PROGRAM_MAX	     65536u /* requests of one program */

/* Who gets inbound requests before the host's on_request: the managed device. */
struct lv_transport_client {
	/* Return 0 answered (fields of req filled), -ENOTSUP not mine (on_request is asked next). No lock held. */
	int (*inbound)(void *arg, struct libvhost_req *req);
	/* After the answer to req was sent: events are raised here, reply first. May be NULL. */
	void (*answered)(void *arg, const struct libvhost_req *req);
	/* While 1, no further back-end request is read (event queue full). May be NULL. */
	bool (*paused)(void *arg);
	/* Before a descriptor that pollfds named is closed: see lv_transport_unwatch(). May be NULL. */
	void (*closing)(void *arg, int fd);
	void *arg;
};

/* The epoll descriptor handed to event loops, made on demand, and what is registered in it. */
struct lv_watch {
	int epoll_fd, timer_fd;
	uint64_t armed; /* deadline the timer is set to, 0 = none */
	struct pollfd fds[LV_TRANSPORT_POLLFDS];
	uint32_t count;
};

struct libvhost_transport {
	struct libvhost_ctx *ctx;
	struct libvhost_transport_ops ops;
	void *self;
	bool foreign;	       /* made by libvhost_transport_new(): does not record its errors in err */
	struct lv_errslot err; /* built-in kinds record here what they return */
	struct lv_recorder recorder;
	struct lv_transport_client client;
	libvhost_request_fn on_request;
	void *on_request_arg;
	atomic_uint ack_policy;
	char peer[112];
	/* program under way */
	struct libvhost_req *reqs;
	uint32_t count;
	uint64_t started, deadline;
	atomic_int running;	 /* 1 from submit to end */
	atomic_int inside;	 /* a thread is in the object: others, and its own callbacks, get -EBUSY */
	_Atomic pthread_t owner; /* that thread */
	atomic_int cancelled;
	int cancel_fd; /* eventfd in every wait of this transport */
	bool broken;   /* connection is gone: -ENOTCONN until reopened */
	/* While the connection is gone: whether the peer may have come since the last attempt to open; bounded by
	 * itself. NULL: whenever one of its descriptors says so. Set by the built-in kinds. */
	bool (*appeared)(void *self);
	/* Makes room for a program of so many requests without tables. Set by the built-in kinds that need some. */
	int (*reserve)(void *self, uint32_t requests);
	uint64_t look_at;     /* when to ask that although no descriptor is ready; UINT64_MAX = not */
	uint32_t answers_due; /* some answers of the program are there, so many are still on their way */
	/* result of the last wait, consumed by the next progress */
	struct pollfd ready[LV_TRANSPORT_POLLFDS];
	uint32_t nready;
	bool ready_valid;
	struct lv_watch watch;
};

/* Absolute-deadline forms used by the device room; errors as the public calls. */
int lv_transport_submit(struct libvhost_transport *t, struct libvhost_req *reqs, uint32_t count, uint64_t deadline);
/* 1 ended well, 0 goes on, negative ended badly (all request states are set, error recorded). Checks deadline and
 * cancel. */
int lv_transport_progress(struct libvhost_transport *t);
/* Descriptors to wait for: the plug-in's and the cancel eventfd. At most LV_TRANSPORT_POLLFDS. */
uint32_t lv_transport_pollfds(struct libvhost_transport *t, struct pollfd *fds, uint32_t cap);
/*
 * Before a blocking caller waits again: a peer writes each answer by itself and would wake it for each. With many of
 * them on their way one short sleep lets them gather, which bounds the system calls of a stop, not its latency.
 */
void lv_transport_gather(uint32_t answers_due);
/* What poll said about exactly these descriptors: the next progress does not ask again. */
void lv_transport_polled(struct libvhost_transport *t, const struct pollfd *fds, uint32_t count);
/* Makes sure that a program of so many requests without tables can be run when memory has run out. 0; -ENOMEM; -EBUSY
 * (a program runs). */
int lv_transport_reserve(struct libvhost_transport *t, uint32_t requests);
/* Drops the connection / opens it again (non-blocking step: -EAGAIN = the peer is not there yet). -EBUSY inside. */
void lv_transport_close(struct libvhost_transport *t);
int lv_transport_reopen(struct libvhost_transport *t);
/* Whether reopening is worth a try before the caller's pause is over. */
bool lv_transport_appeared(struct libvhost_transport *t);
void lv_transport_set_client(struct libvhost_transport *t, const struct lv_transport_client *client);

/* Like libvhost_transport_open(), but does not connect: the object is broken until lv_transport_reopen() succeeds. */
int lv_transport_open_later(struct libvhost_ctx *ctx, const char *uri, const struct libvhost_transport_opts *opts,
			    struct libvhost_transport **ret);

/* An empty object around ctx, ready for a constructor to fill ops and self. NULL: error recorded in ctx. */
struct libvhost_transport *lv_transport_alloc(struct libvhost_ctx *ctx);
/* Enter and leave the object; enter fails with -EBUSY while anybody is inside. */
int lv_transport_enter(struct libvhost_transport *t);
void lv_transport_leave(struct libvhost_transport *t);
/* Ends a program that still runs as if cancelled; the caller is inside. */
void lv_transport_abandon(struct libvhost_transport *t);

/* For the built-in kinds, from inside progress: */
/* What the last wait said about fd; polls without waiting when there was none since the last progress. */
short lv_transport_revents(struct libvhost_transport *t, int fd);
/* To be called before a watched descriptor is closed: a duplicate elsewhere would keep it in the epoll set. */
void lv_transport_unwatch(struct libvhost_transport *t, int fd);
/* Brings the epoll set up to date. */
void lv_transport_watch_sync(struct libvhost_transport *t);
void lv_transport_watch_close(struct libvhost_transport *t);
/* Device, then on_request, then what the operation's class says. 0 answered, else the refusal to send. */
int lv_transport_dispatch(struct libvhost_transport *t, struct libvhost_req *req);

/* "SET_VRING_NUM queue 3", for messages; the queue index, or LIBVHOST_NONE. */
uint32_t lv_req_name(const struct libvhost_req *req, char *buf, size_t cap);
/* The requests of the running program that were sent and never confirmed: their interval goes to where, a text that
 * names its ends to buf. */
void lv_transport_unknown(const struct libvhost_transport *t, struct lv_where *where, char *buf, size_t cap);
/* Sets the result fields of a program to "not sent". */
void lv_reqs_clear(struct libvhost_req *reqs, uint32_t count);

/* Constructors of the built-in kinds: fill ops and self of an otherwise ready object. deadline 0 = connect later. */
int lv_user_transport_open(struct libvhost_transport *t, const char *uri, const struct libvhost_transport_opts *opts,
			   uint64_t deadline);

#endif
