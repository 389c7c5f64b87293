/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/*
 * The wire puppet: a scripted vhost-user back-end. Unscripted it is a well-behaved peer that accepts everything and
 * remembers what it was told; faults make it lie, stall or die at a chosen message; the raw functions let a test speak
 * for it, byte by byte.
 *
 *   struct puppet p;
 *   puppet_init(&p);                                    // defaults; change p.features and the like now
 *   puppet_fault(&p, (struct puppet_fault){.op = LIBVHOST_OP_SET_MEM_TABLE, .what = PUPPET_REFUSE});
 *   puppet_start(&p);                                   // thread; or puppet_pair() + puppet_step() by hand
 *   ... libvhost_transport_open(ctx, "user-fd:", HAS_FD = puppet_front(&p)) ...
 *   puppet_stop(&p);                                    // joins; then everything in p may be read
 */
#ifndef LV_TESTS_PUPPET_H
#define LV_TESTS_PUPPET_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <vhost/libvhost.h>
#include "core/wire.h"
#include "protocol/codec.h"

#define PUPPET_QUEUES 256
#define PUPPET_SEEN   4096
#define PUPPET_FAULTS 8
#define PUPPET_CONFIG 256

/* A peer with everything that the transport cares about, bit 30 included. */
#define PUPPET_FEATURES (1ull << 30 | 1ull << 32)
#define PUPPET_PF(bit)	(1ull << LIBVHOST_PROTOCOL_F_##bit)

enum puppet_what {
	PUPPET_NOTHING,
	PUPPET_REFUSE,	    /* non-zero ack, empty config; without REPLY_ACK: hangs up. arg = ack value, 0 = 22 */
	PUPPET_SKIP,	    /* does it, gives no reply to this one message */
	PUPPET_MUTE,	    /* reads on, never replies again */
	PUPPET_STALL,	    /* stops reading and replying, keeps the socket open */
	PUPPET_DIE_BEFORE,  /* closes instead of processing the message */
	PUPPET_DIE_AFTER,   /* processes, replies, closes */
	PUPPET_DIE_INSIDE,  /* closes after arg bytes of the reply */
	PUPPET_WRONG_ID,    /* the reply names request arg */
	PUPPET_FLAGS,	    /* the reply's header flags are arg */
	PUPPET_SIZE,	    /* the reply's header claims arg bytes; as many follow if they fit */
	PUPPET_STRAY_FDS,   /* arg descriptors travel with the reply */
	PUPPET_TWICE,	    /* replies twice */
	PUPPET_DRIP,	    /* the reply comes byte by byte */
	PUPPET_LATE,	    /* the reply comes arg milliseconds late */
	PUPPET_WRONG_INDEX, /* a ring reply is about queue index + 1 */
};

/* Happens at message number at (0-based, per session), or at the first message of operation op when that is not 0. */
struct puppet_fault {
	uint32_t op, at;
	enum puppet_what what;
	uint32_t arg;
	bool every; /* not only once */
	bool spent; /* internal */
};

struct puppet_ring {
	uint32_t num, base;
	bool enabled;
	struct libvhost_vring_addr addr;
	int kick, call, err; /* owned by the puppet, -1 none */
};

struct puppet {
	/* what it offers; set between puppet_init and puppet_start */
	uint64_t features, protocol_features, num_queues, slots;
	uint8_t config[PUPPET_CONFIG];
	struct puppet_fault faults[PUPPET_FAULTS]; /* added by puppet_fault() at any time */
	/* called before the default behaviour, on the puppet's thread; true = the message was dealt with */
	bool (*on_message)(struct puppet *p, const struct libvhost_req *req, const struct lv_user_msg *msg);
	void *arg;
	/* what it saw; read after puppet_stop, or between steps */
	atomic_uint messages;		  /* of all sessions */
	uint32_t seen[PUPPET_SEEN];	  /* operation of each, 0 = unknown request */
	uint32_t seen_flags[PUPPET_SEEN]; /* header flags of each */
	atomic_uint sessions;
	uint64_t acked, acked_protocol, status;
	uint32_t regions;
	struct puppet_ring ring[PUPPET_QUEUES];
	atomic_int channel; /* our end of the back-end channel, -1 none */
	/* plumbing */
	int sock, front, listener;
	char path[108];
	struct lv_user_session session;
	struct lv_wire_in in;
	uint32_t in_session; /* messages of this session */
	bool mute;
	atomic_bool stopping, killed;
	bool threaded;
	pthread_t thread;
	pthread_mutex_t lock; /* faults */
};

void puppet_init(struct puppet *p);
void puppet_fault(struct puppet *p, struct puppet_fault fault);

/* Socket pair only; the test drives with puppet_step() and the raw functions. */
void puppet_pair(struct puppet *p);
/* Socket pair and a thread that serves it. */
void puppet_start(struct puppet *p);
/* Listens at path and serves one connection after the other; every session begins with fresh state. */
void puppet_listen(struct puppet *p, const char *path);
/* The thread alone, for a p->listener or p->sock that the test made. */
void puppet_run(struct puppet *p);
/* The end for the library, owned by the puppet until taken: the library duplicates it, then call puppet_give_front. */
int puppet_front(struct puppet *p);
/* Closes our copy of the front end, so that each side sees the other hang up. */
void puppet_give_front(struct puppet *p);
/* The thread closes the connection within milliseconds, as a killed process would; a listener accepts the next. */
void puppet_kill(struct puppet *p);
/* Ends the thread, closes everything. */
void puppet_stop(struct puppet *p);

/* Serves one message: 1 done, 0 none came within ms, -1 connection over. */
int puppet_step(struct puppet *p, int ms);
/* Opens a transport on it (user-fd, or its path when listening). */
struct libvhost_transport *puppet_connect(struct puppet *p, struct libvhost_ctx *ctx,
					  const struct libvhost_transport_opts *opts);

/* Raw: a message with any header, payload and descriptors on sock (p->sock or p->channel). */
void puppet_send(int sock, uint32_t request, uint32_t flags, uint32_t size, const void *payload, uint32_t len,
		 const int *fds, uint32_t nfds);
/* Reads one message from sock within ms: payload length, -1 = nothing or closed. Received descriptors are closed and
 * counted. */
int puppet_recv(int sock, int ms, struct lv_user_hdr *hdr, void *payload, size_t cap, uint32_t *nfds);

#endif
