/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/*
 * The vhost-user front-end engine. A program is compiled into steps, one message each (user_compile.c); steps are sent
 * as far as barriers and the socket allow (user_send.c); replies come back in order and confirm everything before them
 * (user_recv.c); requests of the back-end are answered in between (user_channel.c); user.c owns the connection.
 *
 * A step that must be confirmed but has no answer of its own is followed by a fence: a GET_FEATURES of ours whose reply
 * proves that the peer has come that far.
 */
#ifndef LV_TRANSPORT_USER_H
#define LV_TRANSPORT_USER_H

#include "core/wire.h"
#include "protocol/codec.h"
#include "transport/transport.h"

#define LV_USER_PATH  108u
#define LV_USER_FENCE 0xffffffffu /* a step that belongs to no request of the caller */

struct lv_user_step {
	uint32_t req;	  /* index in the program, or LV_USER_FENCE */
	uint32_t request; /* wire number, which the reply repeats */
	bool reply;	  /* an answer comes */
	bool acked;	  /* need_reply is set in the header */
	bool reply_fds;	  /* the answer may carry descriptors */
	bool barrier;	  /* not sent before everything ahead is confirmed */
};

/* A reply that a given-up program left on its way. */
struct lv_user_owed {
	uint32_t request;
	bool fds;
};

/* The program under way. steps[i] is sent as msgs[i], whose bytes lie in bytes. */
struct lv_user_program {
	struct lv_user_step *steps;
	struct lv_wire_msg *msgs;
	uint32_t count, cap;
	uint8_t *bytes;
	size_t used, bytes_cap;
	struct libvhost_req *reqs;
	uint32_t nreqs;
	uint32_t next;			/* first step not sent completely */
	size_t off;			/* bytes of it that are */
	uint32_t tail;			/* first step whose answer is outstanding, or that has none */
	uint32_t confirmed;		/* steps before it have their final state */
	bool active, failed, full;	/* full: the socket took less than offered */
	int dead;			/* the negative errno that stopped sending */
	struct lv_user_session session; /* as it is once the peer has done everything */
};

/* The back-end channel: one answer at a time, nothing read while it is unsent. */
struct lv_user_channel {
	int sock;
	struct lv_wire_in in;
	uint64_t scratch[1024];
	uint8_t out[LV_USER_HDR + LV_USER_MAX_PAYLOAD];
	struct lv_wire_msg reply; /* len 0 = none waits */
	size_t off;
	int reply_fd;	  /* owned until sent, -1 none */
	uint64_t stalled; /* since when the reply waits */
	bool tell;	  /* answered() is due for req */
	struct libvhost_req req;
};

/* Which file lay at the path; all zero = none. */
struct lv_user_file {
	uint64_t dev, ino;
	int64_t seconds, ns; /* of its last change */
};

/* Waiting for a socket to appear: see user_watch.c. */
struct lv_user_watch {
	struct lv_folder_wait folder;		  /* fd -1 = not waiting, or not possible */
	bool refused;				  /* not possible, as far as the last attempt knows */
	struct lv_user_file now, tried;		  /* at the attempt under way, at the last one */
	uint64_t quick_at, quick_until, quick_ns; /* for a socket that does not listen yet */
};

struct lv_user {
	struct libvhost_transport *t;
	char path[LV_USER_PATH];
	bool listens;
	uint64_t listener_ino;
	int sock, listener;
	int offered_end, kept_end; /* of a back-end channel that the program under way creates, -1 none */
	struct lv_user_session session;
	struct lv_user_program prog;
	struct lv_user_owed *owed; /* of programs given up, oldest first */
	uint32_t nowed;
	struct lv_wire_in in;
	struct lv_user_channel chan;
	struct lv_user_watch watch;
};

/* user.c: closes the connection, both channels and everything that belonged to it; the listener stays. */
void lv_user_disconnect(struct lv_user *u);
void lv_user_close_fd(struct lv_user *u, int *fd);
/* Ends the session after an error: records it and returns code. */
int lv_user_lost(struct lv_user *u, int code, const char *why);
int lv_user_broken(struct lv_user *u, const struct lv_user_step *step, const char *why);

bool lv_is_user_transport(const struct libvhost_transport *t);
/* Makes t a vhost-user transport for uri that is not connected yet. 0; -EINVAL; -ENOMEM. */
int lv_user_place(struct libvhost_transport *t, const char *uri);
/* Begins to listen at the path, or takes over a socket that does. */
int lv_user_listen(struct lv_user *u);
void lv_user_take_listener(struct lv_user *u, int fd);

/* user_watch.c */
void lv_user_watch_init(struct lv_user_watch *w);
void lv_user_watch_close(struct lv_user *u);
/* Around each attempt to connect: before it, and how it ended. */
void lv_user_watch_before(struct lv_user *u);
void lv_user_watch_reached(struct lv_user *u);
void lv_user_watch_missed(struct lv_user *u, int rc);
/* Whether it is worth trying again at once. */
bool lv_user_watch_news(struct lv_user *u);
/* What belongs into a wait at present, -1 = nothing; t->look_at says when it will. Another connection may read for this
 * one: then it is t->cancel_fd that becomes ready. */
int lv_user_watch_fd(const struct lv_user *u);
/* Blocks until there may be news, and no longer than until. */
void lv_user_watch_wait(struct lv_user *u, uint64_t until);

/* user_compile.c */
int lv_user_compile(struct lv_user *u, struct libvhost_req *reqs, uint32_t count);
/* Room for so many requests that carry no table: no later program of them needs memory. 0 or -ENOMEM. */
int lv_user_reserve(void *self, uint32_t requests);
void lv_user_program_free(struct lv_user_program *p);
/* What a request changes in the session once the peer has done it. */
void lv_user_apply(struct lv_user_session *s, const struct libvhost_req *req);
/* Makes step at a fence; steps behind it move up. 0 or -ENOMEM. */
int lv_user_insert_fence(struct lv_user_program *p, uint32_t at);

/* user_send.c: 0, or negative: the connection is gone. */
int lv_user_flush(struct lv_user *u);
void lv_user_stop_sending(struct lv_user *u);
/* The oldest step whose answer is outstanding, or NULL. */
struct lv_user_step *lv_user_awaited(struct lv_user *u);

/* user_recv.c: 0, or negative: the connection is gone. */
int lv_user_receive(struct lv_user *u);

/* user_channel.c */
void lv_user_channel_init(struct lv_user_channel *c);
int lv_user_channel_open(struct lv_user *u, int sock); /* takes sock */
void lv_user_channel_close(struct lv_user *u);
void lv_user_channel_serve(struct lv_user *u, short revents);
short lv_user_channel_events(const struct lv_user *u); /* 0 = nothing to wait for */

#endif
