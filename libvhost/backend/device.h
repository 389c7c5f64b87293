/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/*
 * The device side from inside. One lock per back-end; everything below is under it, except what a worker does with a
 * queue between handing over and taking back. A session is what one front-end has told the device: it is the same for a
 * socket (connection.c) and for the in-process transport (inproc.c), and so are the handlers.
 */
#ifndef LV_BACKEND_DEVICE_H
#define LV_BACKEND_DEVICE_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <vhost/backend.h>
#include "core/ctx.h"
#include "core/stream.h"
#include "core/wire.h"
#include "protocol/codec.h"

#define LV_BACKEND_EVENTS 64u
#define LV_BACKEND_CONFIG 256u

#define LV_LAST_WORD_MS 1 /* for further queues when one is stuck already: they often share its worker */

#define LV_F_LOG_ALL (1ull << 26) /* VHOST_F_LOG_ALL */
#define LV_ADDR_LOG  1u		  /* VHOST_VRING_F_LOG, the only flag of ring addresses */

/* One ring as the front-end set it up. vq exists from the first start until the ring is stopped. */
struct lv_ring {
	uint32_t index, num, base;
	struct libvhost_vring_addr addr; /* user addresses of the front-end */
	bool has_base, has_addr, has_kick, enabled, broken;
	bool on_worker, draining;     /* it, or who pulls, has the queue; only to finish what it took */
	int kick_fd, call_fd, err_fd; /* -1 = none */
	struct libvhost_vq *vq;
};

/* The inflight region that the front-end handed over; all zero = none. */
struct lv_session_inflight {
	void *map;
	size_t map_bytes;
	uint8_t *region;
	uint64_t bytes;
	uint32_t num_queues, queue_size;
	struct lv_guarded *guarded; /* NULL = not */
};

/* A transfer of the device's own state, from SET_DEVICE_STATE_FD to CHECK_DEVICE_STATE. */
struct lv_state {
	struct lv_stream end; /* of the front-end's pipe; none: all went through, or nothing will */
	bool pending, save;
	int err; /* why it failed */
	uint8_t *buf;
	uint64_t cap, len, off; /* off: bytes of a saved state that have left */
	uint64_t since;		/* bytes moved last */
};

/* A region that the front-end added so many times more. */
struct lv_repeat {
	uint64_t gpa;
	uint32_t times;
};

struct lv_session {
	struct libvhost_backend *b;
	uint64_t until; /* deadline of the present message, whatever it has to wait for */
	bool open, features_set;
	bool config_changed; /* the front-end has not been told yet */
	struct lv_user_session wire;
	uint64_t features;
	uint32_t status;
	struct libvhost_mem *mem;
	struct lv_repeat repeats[LIBVHOST_MAX_REGIONS];
	uint32_t num_repeats;
	struct lv_ring *rings; /* num_queues */
	struct lv_session_inflight inflight;
	struct lv_log *log; /* where it wants to know what is written, NULL = nowhere */
	int channel;	    /* to the front-end, -1 = none */
	struct lv_state state;
	char why[96]; /* the present message is refused, empty = its error says enough */
};

/* One socket connection. One answer at a time: nothing is read while it waits to leave. */
struct lv_conn {
	int sock; /* -1 = none */
	struct lv_wire_in in;
	uint64_t in_since;   /* a message has begun to arrive, 0 = none */
	uint64_t out_since;  /* an answer waits since, 0 = none */
	uint64_t held_since; /* the present message waits for requests to be pushed since, 0 = it does not */
	struct lv_wire_msg out;
	size_t out_off;
	int out_fd; /* travels with the answer, ours until it is sent; -1 = none */
	_Alignas(8) uint8_t scratch[LV_USER_SCRATCH];
	uint8_t out_bytes[LV_USER_HDR + LV_USER_MAX_PAYLOAD];
};

/* What the epoll set waits for on one descriptor. */
struct lv_backend_watch {
	int fd;
	uint32_t events;
};
enum { LV_W_LISTENER, LV_W_SOCK, LV_W_CHANNEL, LV_W_STATE, LV_W_TIMER, LV_W_COUNT, LV_W_WORKER };

/* The front-end that the device connects to. */
struct lv_client {
	char path[108]; /* "" = none */
	uint64_t at;	/* not tried before */
	uint64_t pause_ns;
	int last; /* result of the last attempt */
};

struct libvhost_backend {
	struct libvhost_ctx *ctx;
	struct lv_errslot err;
	pid_t pid;	      /* of the process that made it */
	pthread_mutex_t lock; /* error-checking: a callback that calls back gets -EBUSY */
	atomic_uint waiting;  /* threads of the host that want it */
	bool dispatching;
	bool bridging;	  /* on_request runs: the lock is open, and the message it looks at stays */
	pthread_t bridge; /* on this thread */
	bool stopped;	  /* libvhost_backend_stop() was called */
	struct libvhost_backend_opts opts;
	struct libvhost_backend_ops ops;
	uint64_t features, protocol_features; /* offered */
	uint8_t config[LV_BACKEND_CONFIG];
	struct libvhost_worker **workers;
	struct libvhost_worker *control;	/* control.c, NULL = dispatch does the work */
	int host_fd;				/* what dispatch waits for then, -1 = none */
	int watched[LIBVHOST_MAX_QUEUES];	/* of libvhost_backend_watch_fd(), -1 = none */
	uint8_t worker_of[LIBVHOST_MAX_QUEUES]; /* of each queue */
	struct lv_session session;
	struct lv_conn conn;
	struct lv_inproc *inproc; /* its other end in this process, NULL = none */
	int listener, epoll_fd, timer_fd;
	char path[108]; /* of the listener, or of the front-end's */
	bool unlinks;	/* the listener's file is removed at the end */
	struct lv_client client;
	uint64_t retry_at;  /* when to try accepting or stopping again, 0 = not needed */
	bool accept_paused; /* no descriptors left: not before retry_at */
	struct lv_backend_watch watch[LV_W_COUNT];
	struct libvhost_event events[LV_BACKEND_EVENTS];
	uint32_t event_head, event_count, events_dropped;
};

/* Without workers: the caller serves the queues. */
static inline bool lv_pulled(const struct libvhost_backend *b)
{
	return b->opts.flags & LIBVHOST_BACKEND_PULL;
}

int lv_backend_lock(struct libvhost_backend *b);
/* The same for what ops.on_request may do. */
int lv_backend_lock_bridge(struct libvhost_backend *b);
/* The same with a deadline, for who must not wait for a callback: -ETIMEDOUT. */
int lv_backend_lock_within(struct libvhost_backend *b, uint64_t deadline);
void lv_backend_unlock(struct libvhost_backend *b);
void lv_backend_event(struct libvhost_backend *b, uint32_t type, uint32_t queue, int err, const char *text);
/* Takes what workers report: queues that they gave up. */
void lv_backend_reports(struct libvhost_backend *b);
/* What is left until the deadline, at least 1: to most calls 0 means something else. */
uint32_t lv_backend_left_ms(struct libvhost_backend *b, uint64_t deadline);
/* What cannot be done any more once the back-end was stopped: 0 or -ESHUTDOWN. */
int lv_backend_check_alive(struct libvhost_backend *b);

/* control.c */
int lv_control_check(struct libvhost_backend *b);
/* Last: from here on it works. rings: options of the other workers, NULL = defaults. */
int lv_control_start(struct libvhost_backend *b, const struct libvhost_worker_opts *rings);
/* Has the host woken up when there is something for it. */
void lv_control_arm(struct libvhost_backend *b);
/* Without the lock. 0 or -ETIMEDOUT. */
int lv_control_stop(struct libvhost_backend *b, uint32_t timeout_ms);
void lv_control_free(struct libvhost_backend *b);

/* placement.c */
void lv_place_queues(struct libvhost_backend *b);
struct libvhost_worker *lv_backend_worker(struct libvhost_backend *b, uint32_t queue);

/* pull.c */
int lv_pull_check(struct libvhost_backend *b, const struct libvhost_backend_opts *o);
/* Takes what happened to queues while the caller had them. */
void lv_pull_reports(struct libvhost_backend *b);
/* 0: stop the ring; -EINPROGRESS: its requests are to be pushed first, the message comes again. */
int lv_pull_drain(struct lv_session *s, struct lv_ring *ring);

/* session.c */
int lv_session_open(struct lv_session *s);
/* Executes one decoded request: 0 or the refusal; results are in req. -EINPROGRESS: not now, ask again. */
int lv_session_handle(struct lv_session *s, struct libvhost_req *req);
bool lv_session_knows(uint32_t op);
/* What the present message has left. */
static inline uint32_t lv_session_left_ms(const struct lv_session *s)
{
	return lv_backend_left_ms(s->b, s->until);
}
/* Stops and forgets everything. false = a handler does not give its queue back: call again later. */
bool lv_session_close(struct lv_session *s, uint32_t timeout_ms);

/* log.c */
int lv_session_set_log(struct lv_session *s, struct libvhost_req *req);
/* Gives the queues, which rest, the log that they are to write by features and address flags. */
void lv_session_apply_log(struct lv_session *s);
void lv_ring_apply_log(struct lv_session *s, struct lv_ring *ring);
/* The ring's address flags, and whether its used ring lies in the log. 0 or -EINVAL. */
int lv_ring_check_log(const struct lv_session *s, const struct lv_ring *ring);
/* No queue is left. */
void lv_session_drop_log(struct lv_session *s);

/* memory.c; handlers */
int lv_session_set_table(struct lv_session *s, struct libvhost_req *req);
int lv_session_add_region(struct lv_session *s, struct libvhost_req *req);
int lv_session_rem_region(struct lv_session *s, struct libvhost_req *req);

/* inflight.c; handlers, and what follows from them */
int lv_session_get_inflight(struct lv_session *s, struct libvhost_req *req);
int lv_session_set_inflight(struct lv_session *s, struct libvhost_req *req);
void lv_session_drop_inflight(struct lv_session *s);
/* Tracks the requests of a ring's new queue if there is a region. 0, or why it cannot be started. */
int lv_ring_track(struct lv_session *s, struct lv_ring *ring);
/* Stops the ring after its handler had until the deadline to finish what it took, unless requests may stay in the
 * region. 0, or -ETIMEDOUT: the handler does not return, and the ring runs on when it does. */
int lv_ring_drain_and_stop(struct lv_session *s, struct lv_ring *ring, uint64_t deadline);
/* The same for all rings at once; stopped() is called for each that is. Those that do not stop run on. */
int lv_rings_drain_and_stop(struct lv_session *s, uint64_t deadline, void (*stopped)(struct lv_ring *ring));

/* rings.c; handlers */
int lv_ring_set_num(struct lv_session *s, struct libvhost_req *req);
int lv_ring_set_addr(struct lv_session *s, struct libvhost_req *req);
int lv_ring_set_base(struct lv_session *s, struct libvhost_req *req);
int lv_ring_get_base(struct lv_session *s, struct libvhost_req *req);
int lv_ring_set_kick(struct lv_session *s, struct libvhost_req *req);
int lv_ring_set_call(struct lv_session *s, struct libvhost_req *req);
int lv_ring_set_err(struct lv_session *s, struct libvhost_req *req);
int lv_ring_enable(struct lv_session *s, struct libvhost_req *req);

/* ring.c: the state machine */
int lv_rings_new(struct lv_session *s);
/* Makes the ring run or rest as its state says. Negative: it should run and cannot. */
int lv_ring_update(struct lv_session *s, struct lv_ring *ring);
/* The same after a pause: a ring that cannot go on has failed, which the front-end hears on its error descriptor. */
void lv_ring_go_on(struct lv_session *s, struct lv_ring *ring);
void lv_rings_update(struct lv_session *s);
/* Gives the ring's queue to its worker, for new requests or only to finish (drain) those that it took. */
int lv_ring_lend(struct lv_session *s, struct lv_ring *ring, bool drain, uint32_t timeout_ms);
/* A stop did not come about: a ring that is still lent for draining, and is to run, takes new requests again. */
void lv_ring_end_drain(struct lv_session *s, struct lv_ring *ring);
/* Takes the ring from its worker; afterwards nobody touches it. 0 or -ETIMEDOUT. */
int lv_ring_pause(struct lv_session *s, struct lv_ring *ring, uint32_t timeout_ms);
/* Pauses all, and on success keeps them so until lv_rings_update(). */
int lv_rings_pause(struct lv_session *s);
/* Stops for good: base is where it would continue, the kick descriptor is gone. */
int lv_ring_stop(struct lv_session *s, struct lv_ring *ring, uint32_t timeout_ms);
/* Guest-physical addresses of its areas. 0; -EFAULT; -EINVAL. */
int lv_ring_locate(struct lv_session *s, const struct lv_ring *ring, struct libvhost_vq_opts *o);
/* Signals fd if that can neither block nor kill; -1 is nothing. */
void lv_ring_signal(int fd);
void lv_ring_failed(struct lv_session *s, struct lv_ring *ring, int err);
/* Back to the beginning; the ring is stopped. */
void lv_ring_clear(struct lv_ring *ring);
/* The same as a device reset does it: call and error descriptors stay, front-ends send them once. */
void lv_ring_reset(struct lv_ring *ring);

/* connection.c */
void lv_conn_init(struct lv_conn *c);
int lv_conn_open(struct libvhost_backend *b, int sock); /* takes sock */
/* Moves messages as far as possible; closes the connection when it must. */
void lv_conn_turn(struct libvhost_backend *b);
void lv_conn_close(struct libvhost_backend *b, int err, const char *why);
void lv_conn_close_within(struct libvhost_backend *b, int err, const char *why, uint32_t timeout_ms);
/* When the connection wants a turn without any event, 0 = never. */
uint64_t lv_conn_deadline(const struct libvhost_backend *b);

/* channel.c */
int lv_channel_set(struct lv_session *s, struct libvhost_req *req);
void lv_channel_close(struct lv_session *s);
/* Sends what waits, notices a peer that misbehaves. */
void lv_channel_turn(struct lv_session *s);

/* state.c; handlers, and what follows from them */
int lv_state_begin(struct lv_session *s, struct libvhost_req *req);
int lv_state_check(struct lv_session *s, struct libvhost_req *req);
void lv_state_init(struct lv_state *st);
/* Moves what can be moved now. */
void lv_state_turn(struct lv_session *s);
void lv_state_drop(struct lv_session *s);
/* When the transfer fails if nothing moves, 0 = never. */
uint64_t lv_state_deadline(const struct lv_session *s);

/* bridge.c: every request goes to the caller's on_request */
int lv_bridge_handle(struct lv_session *s, struct libvhost_req *req);

/* server.c: to be called before a watched descriptor is closed, since a duplicate would keep it in the epoll set. */
void lv_backend_unwatch(struct libvhost_backend *b, uint32_t which);
/* Does what there is to do. */
void lv_backend_turn(struct libvhost_backend *b);
/* Watches what is there now. */
void lv_backend_rewatch(struct libvhost_backend *b);
/* A front-end is there, or what is left of one. */
bool lv_backend_occupied(const struct libvhost_backend *b);

/* listener.c */
/* Ends listening; the socket file goes if it is ours. */
void lv_listener_close(struct libvhost_backend *b);
void lv_listener_turn(struct libvhost_backend *b);
/* 0, or why there cannot be another way to come by front-ends. */
int lv_listener_check_free(struct libvhost_backend *b);

/* client.c */
void lv_client_turn(struct libvhost_backend *b);
/* A whole message came: the next connection begins without a pause. */
void lv_client_heard(struct libvhost_backend *b);
/* When it wants a turn, 0 = never. */
uint64_t lv_client_deadline(const struct libvhost_backend *b);

/* inproc.c */
void lv_inproc_wake(struct lv_inproc *in);

#endif
