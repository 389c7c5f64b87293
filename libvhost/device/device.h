/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/*
 * The managed device from inside.
 *
 * Who may touch what: `lock` guards every field that another thread can see (state, record pointer, descriptors,
 * events, operation kind) and is held for short, non-blocking sections only, never while a transport runs or a callback
 * is called. `inside` says that one thread drives the transports; it is the lock that a callback runs under. An
 * operation (op.kind) excludes everything else that changes the device from its beginning to its end.
 */
#ifndef LV_DEVICE_DEVICE_H
#define LV_DEVICE_DEVICE_H

#include <pthread.h>
#include "core/opts.h"
#include "device/inflight.h"
#include "device/parts.h"
#include "device/plan.h"
#include "device/share.h"
#include "device/transfer.h"
#include "transport/transport.h"

#define LV_MAX_PARTS	64u
#define LV_POLL_MAX	(LV_MAX_PARTS * LV_TRANSPORT_POLLFDS + LIBVHOST_MAX_QUEUES + 2u)
#define LV_EVENTS	64u
#define LV_EVENTS_PAUSE 48u /* above it no back-end request is read: the rest is for the library's own reports */
#define LV_NEWS		3u  /* kinds of events that a queue has once at most */

enum lv_op_kind {
	LV_OP_NONE = 0,
	LV_OP_INIT = LIBVHOST_OPERATION_INIT,
	LV_OP_START = LIBVHOST_OPERATION_START,
	LV_OP_STOP = LIBVHOST_OPERATION_STOP,
	LV_OP_RESET = LIBVHOST_OPERATION_RESET,
	LV_OP_RECONNECT = LIBVHOST_OPERATION_RECONNECT,
	LV_OP_SAVE_STATE = LIBVHOST_OPERATION_SAVE_STATE,
	LV_OP_LOAD_STATE = LIBVHOST_OPERATION_LOAD_STATE,
	LV_OP_ADD_PART = 100, /* never asynchronous from here on */
	LV_OP_MEMORY,
	LV_OP_REQUEST /* short: further callers wait for its end instead of -EBUSY */
};

/* What the programs of one operation have told the peer so far. */
struct lv_sent {
	bool any;	 /* something was sent */
	bool slots;	 /* memory requests that change single regions, so that half of them leaves a mixture */
	uint32_t memory; /* memory requests of the programs, how many of them were sent, and confirmed */
	uint32_t memory_sent, memory_done;
};

/* One transport and the queues it carries. */
struct lv_part {
	struct libvhost_dev *dev;
	struct libvhost_transport *t;
	struct libvhost_transport_caps caps;
	uint32_t first, count;
	struct lv_snapshot *peer_mem; /* what the peer has; NULL = nothing, or unknown */
	struct lv_log *peer_log;      /* where it may write marks: stays mapped; NULL = nowhere */
	struct lv_peer_view peer;     /* see parts.h: in force, and of the operation under way */
	struct lv_peer_view work;
	/* the operation under way */
	bool active;
	struct lv_plan plan;
	struct lv_program prog;
	struct lv_sent sent;
	bool open; /* while the device connects: this part is there */
	bool deaf; /* its last attempt broke, yet its descriptors would ask for another at once: the clock says when */
	uint32_t poll_at, polls; /* its share of the last collected wait */
};

/* One wait of a device: the wake eventfd, the parts' descriptors, the pipe of a transfer, the queues' error eventfds.
 */
struct lv_wait {
	struct pollfd fds[LV_POLL_MAX];
	uint32_t count, first_err;
	uint32_t queue[LIBVHOST_MAX_QUEUES]; /* of fds[first_err + i] */
	uint64_t entries;		     /* who was inside when it was collected */
};

struct lv_operation {
	enum lv_op_kind kind;
	bool async;	/* dispatch drives it and it ends with an event */
	bool automatic; /* reconnect by policy: nobody waits for its result */
	bool drains;	/* the rings rest, their last requests are waited for */
	bool undo;	/* a failed start is being taken back */
	bool opening;	/* the transports are not connected yet */
	bool patient;	/* a peer that is not there yet is waited for */
	/* What the operation does besides plans, until it is done: 1 done, 0 not yet, negative failed. NULL = nothing.
	 * It is called when a descriptor of the device or the transfer is ready, at look_at and at the deadline. */
	int (*step)(struct libvhost_dev *dev);
	uint64_t look_at, pause;
	int failed; /* first failure of a plan, until ended() is told */
	int result; /* what the caller gets */
	atomic_int cancelled;
	uint64_t deadline;
	struct lv_record *work; /* there from birth to death: a stop needs no memory */
	struct lv_snapshot *mem;
	int inflight_fd; /* what GET_INFLIGHT_FD brought, -1 = nothing, and the bytes of that file, 0 = it is none */
	uint64_t inflight_file;
	uint32_t queue;	    /* of LV_PLAN_QUEUE_* */
	struct lv_log *log; /* the dirty log to establish, NULL = none */
	/* Called when all plans ended (result 0) or one failed. Returns 1 when it began further plans, else 0 with
	 * op.result set. */
	int (*ended)(struct libvhost_dev *dev, int result);
};

/* The configuration interrupt; guarded by the device's lock. */
struct lv_config_irq {
	int fd; /* -1 = none */
	bool masked, pending;
	bool leaves; /* a freeze is about to take fd along: who wants to replace it waits */
};

struct lv_events {
	struct libvhost_event ring[LV_EVENTS];
	uint32_t head, count, dropped;
	/* What repeats is a flag that stays until it is taken: never lost, however many queues there are. */
	bool config;
	uint64_t queues[LV_NEWS][LIBVHOST_MAX_QUEUES / 64];
};

/* When to try to connect, and what is reported about it. */
struct lv_backoff {
	struct libvhost_reconnect_policy policy; /* no defaults left in it. Under the lock */
	bool changed;				 /* it did, and a pause is to be reckoned anew. Under the lock */
	uint64_t random;
	uint32_t attempts;	      /* of this reconnect */
	uint64_t since;		      /* begin of the pause */
	uint64_t retry_at;	      /* its end */
	uint64_t spread_to;	      /* something new was noticed: not before this, UINT64_MAX = nothing was */
	uint64_t lost_at, reached_at; /* the old peer's end, the new one's first sign */
};

struct lv_queue_set {
	uint64_t bits[LIBVHOST_MAX_QUEUES / 64];
};

struct libvhost_dev {
	struct libvhost_ctx *ctx;
	struct libvhost_mem *mem;
	struct lv_mem_client *mem_node;
	struct libvhost_dev_opts opts; /* its pointers are not used after init */
	struct libvhost_dev_ops ops;
	struct lv_errslot err;

	pthread_mutex_t lock;
	pthread_cond_t idle; /* inside or op.kind became free */
	bool inside;
	pthread_t owner;  /* valid while inside */
	uint64_t entries; /* how often somebody went inside */
	bool dispatching; /* inside is dispatch, which looks at events and timers before it leaves */
	bool mem_parked;  /* a commit holds a device that waits for its peer */
	bool renewed;	  /* an operation began: what threads in dispatch wait for is out of date */
	uint32_t waiting; /* threads that wait in dispatch */

	uint32_t state;
	struct lv_record *rec;
	struct lv_queue_fds *fds; /* by queue */
	uint8_t *err_ours;	  /* by queue: the library watches fds.err */
	uint8_t *bound;		  /* by queue: bind_notifier(on) was called */
	struct lv_part *parts;
	uint32_t num_parts;
	struct lv_operation op;
	struct lv_inflight_file inflight;
	struct lv_config_irq config_irq;
	struct lv_backoff backoff;
	struct lv_transfer transfer;
	struct lv_queue_set unfinished; /* stopped, and their requests are not completed. Under the lock */
	struct lv_queue_set broken;	/* since they were started. Under the lock */
	bool ack_all_next;		/* the last failure could not be attributed to a request */
	uint32_t ack_policy;		/* of the transports at present */
	bool mem_unknown;		/* the peer holds a mixture of memory regions: only a new connection helps */
	bool borrowed;			/* init of a given transport: not ours until success */

	struct lv_events events;
	atomic_uint event_count; /* copy of events.count for paused() */
	struct lv_share share;

	int wake_fd;		/* eventfd in every wait of this device */
	int epoll_fd, timer_fd; /* made on demand */
	uint64_t timer_due;
	struct pollfd *armed; /* what the epoll set holds */
	uint32_t num_armed;
	bool armed_stale; /* some of it was closed: equal numbers may mean other files now */
};

/* ---- dev.c: birth and death ---- */

/* A device without a transport; NULL = no memory. */
struct libvhost_dev *lv_dev_new(struct libvhost_ctx *ctx, const struct libvhost_dev_opts *o);
void lv_dev_free(struct libvhost_dev *dev);
/* A part's transport speaks to this device from now on. */
int lv_dev_take_part(struct libvhost_dev *dev, struct libvhost_transport *t, uint32_t first, uint32_t count);

/* ---- claim.c: who may do what when ---- */

#define LV_STATE(s)  (1u << LIBVHOST_DEV_##s)
#define LV_ANY_STATE 0xffffffffu

/* Takes the lock once no operation and no other thread is in the way. On error the lock is not held. states = those in
 * which the call is allowed; call = its name for messages. */
int lv_dev_enter(struct libvhost_dev *dev, uint32_t states, const char *call);
/* The same, then claims the device for an operation and drops the lock. */
int lv_dev_claim(struct libvhost_dev *dev, enum lv_op_kind kind, uint32_t states, const char *call);
/* The same without waiting for anybody: -EBUSY. */
int lv_dev_try_claim(struct libvhost_dev *dev, enum lv_op_kind kind, uint32_t states, const char *call);
/* What claim does once the device is free. Lock held. */
void lv_dev_occupy(struct libvhost_dev *dev, enum lv_op_kind kind);
/* Forgets the operation; the thread stays inside. */
void lv_dev_end_op(struct libvhost_dev *dev);
/* Ends a claim; result is passed through. */
int lv_dev_release(struct libvhost_dev *dev, int result);
/* Tries to become the thread inside for an operation that dispatch drives, or for none. */
bool lv_dev_go_inside(struct libvhost_dev *dev);
/* The same, waiting for up to ms for other threads to leave. */
bool lv_dev_wait_inside(struct libvhost_dev *dev, uint32_t ms);
void lv_dev_go_outside(struct libvhost_dev *dev);
/* True when the calling thread is in one of the device's callbacks. Lock held. */
bool lv_dev_in_callback(const struct libvhost_dev *dev);

/* ---- call.c: the beginning of start, stop, reset and reconnect ---- */

struct lv_call {
	enum lv_op_kind kind;
	const char *name;     /* for messages */
	uint32_t states;      /* in which it is allowed */
	uint32_t idle;	      /* those of them in which there is nothing to do: -EALREADY */
	const char *why_idle; /* says so */
	/* Asked before the claim; true: that was it, with *result. May be NULL. */
	bool (*instead)(struct libvhost_dev *dev, int *result);
	int (*check)(struct libvhost_dev *dev); /* of the working copy, before the plan begins. May be NULL */
	int (*ended)(struct libvhost_dev *dev, int result);
	/* out */
	int result;
	bool async;
	uint64_t deadline;
};

/* Reads the options, claims the device. False: the call is over, with call->result. */
bool lv_call_begin(struct libvhost_dev *dev, const struct libvhost_call_opts *opts, struct lv_call *call);
/* Makes the working copy, begins the plan and waits for its end, or not. */
int lv_call_run(struct libvhost_dev *dev, const struct lv_call *call, enum lv_plan_kind kind);

/* ---- operation.c: the engine ---- */

void lv_op_begin(struct libvhost_dev *dev, bool async, uint64_t deadline,
		 int (*ended)(struct libvhost_dev *dev, int result));
/* Makes the working copy and takes the current map. */
void lv_op_prepare(struct libvhost_dev *dev);
/* Begins a plan on all parts, or on one. Failures show in the next step. */
void lv_op_plan(struct libvhost_dev *dev, enum lv_plan_kind kind);
void lv_op_plan_part(struct libvhost_dev *dev, enum lv_plan_kind kind, uint32_t part);
/* Waits for the end of what was begun. */
int lv_op_finish(struct libvhost_dev *dev);
/* Runs to the end (blocking) or begins (async: -EINPROGRESS), and releases the claim. */
int lv_op_run(struct libvhost_dev *dev);
/* One step of whatever is begun: 1 ended well, 0 goes on, negative ended badly. */
int lv_op_step(struct libvhost_dev *dev);
/* Runs a program that no plan makes, on the part that owns the queue (LIBVHOST_NONE: the leading one), within a claim.
 */
int lv_op_exec(struct libvhost_dev *dev, uint32_t queue, struct libvhost_req *reqs, uint32_t count, uint64_t deadline);
/* Ends an asynchronous operation with its event. */
void lv_op_done(struct libvhost_dev *dev, int result);
/* Abandons all running programs. */
void lv_op_abort(struct libvhost_dev *dev);
struct lv_part *lv_dev_part_of(struct libvhost_dev *dev, uint32_t queue);
/* Whether a peer may speak of a queue: it is set up and this part carries it. Lock held. */
bool lv_part_has_queue(struct lv_part *part, uint32_t queue);
/* Whether the connection did not survive a result; one of the connections. */
bool lv_part_gone(const struct lv_part *part);
bool lv_dev_gone(const struct libvhost_dev *dev);

/* Whether a failure says what became of the requests: timeouts and cancellation leave some behind whose fate nobody
 * knows. */
bool lv_dev_fate_known(int r);
/* The operation goes on with taking a refused start back, for which it has a second at least. */
void lv_dev_begin_undo(struct libvhost_dev *dev);

/* Puts what the programs that just ended found out about the queues into a record that the plans did not work on. */
void lv_op_harvest(struct libvhost_dev *dev, struct lv_record *rec);

/* Whether a plan is under way, and what it came to: as lv_op_step(), without asking the transports. */
bool lv_op_running(const struct libvhost_dev *dev);
int lv_op_settle(struct libvhost_dev *dev);

/* ---- life.c, state.c: start, stop, and what failures do to the state ---- */

/* The peer's state is unknown. One event. */
void lv_dev_lost(struct libvhost_dev *dev, int why);
/* The connection is gone: closes the transports, rebuilds bases, one event, perhaps begins to reconnect. */
void lv_dev_disconnected(struct libvhost_dev *dev, int why);
/* Closes all transports; the peer has nothing any more. */
void lv_dev_close(struct libvhost_dev *dev);
/* An event with the text of the error that led to it. */
void lv_dev_report(struct libvhost_dev *dev, uint32_t type, int why);
/* Remembers whether the next attempt needs exact attribution. */
void lv_dev_note_unattributed(struct libvhost_dev *dev);
void lv_dev_set_state(struct libvhost_dev *dev, uint32_t state);
bool lv_dev_was_running(const struct libvhost_dev *dev);
/* The rings are at rest without the peer's word: bases from the used rings, nothing runs. */
void lv_dev_stopped_here(struct libvhost_dev *dev);
/* Gives all transports the ack policy that the next start or resume needs. */
void lv_dev_ack_policy(struct libvhost_dev *dev);
/* Swaps the working copy in. */
void lv_dev_adopt(struct libvhost_dev *dev);
/* Everything that follows a confirmed start. */
void lv_dev_started(struct libvhost_dev *dev);
/* After a failed operation that did not close the connection: which memory the peer has. False = nobody knows. */
bool lv_dev_settle_memory(struct libvhost_dev *dev, bool success);

/* ---- drain.c: what a stopped peer still works on ---- */

static inline bool lv_queues_has(const struct lv_queue_set *set, uint32_t queue)
{
	return set->bits[queue / 64] >> queue % 64 & 1;
}

static inline void lv_queues_put(struct lv_queue_set *set, uint32_t queue)
{
	set->bits[queue / 64] |= 1ull << queue % 64;
}

static inline void lv_queues_remove(struct lv_queue_set *set, uint32_t queue)
{
	set->bits[queue / 64] &= ~(1ull << queue % 64);
}

struct lv_queue_set lv_queues_running(const struct lv_record *rec);
/* Requests that the peer took from a split queue and has not completed, as far as the ring shows. */
uint32_t lv_queue_unfinished(const struct lv_record *rec, uint32_t index, const struct lv_snapshot *mem);
/* Queues that ran do not any more. True: some are not finished, and the operation waits for them (op.drains), until
 * ended() is called again: with 0, -EAGAIN at the deadline, -ECANCELED, or the end of the connection. */
bool lv_drain_begin(struct libvhost_dev *dev, const struct lv_queue_set *ran);
/* Whether some are still not. Inside. */
bool lv_drain_owed(const struct libvhost_dev *dev);
/* Their peer is gone: where they continue is to be rebuilt. */
void lv_drain_void(struct libvhost_dev *dev);

/* ---- bases.c ---- */

int lv_queue_check_base(struct libvhost_dev *dev, const struct lv_record *rec, uint32_t index,
			const struct lv_record_queue *q);
/* Before a start: packed queues whose base nobody gave begin as fresh rings. One; or all that are used. */
void lv_queue_settle_base(const struct lv_record *rec, struct lv_record_queue *q);
void lv_queues_settle_bases(struct lv_record *rec);
/* What even a failed operation found out about a queue: whether it may run, where it stopped. Lock held. */
void lv_queue_absorb(struct lv_record_queue *to, const struct lv_record_queue *work);
/* Where queues with one of these flags continue after a peer that did not say, as far as memory shows it; the others
 * stay BASE_STALE. */
void lv_queues_rebuild_bases(struct libvhost_dev *dev, uint32_t flags);
/* Then asks the host about the others; what it does not know leaves the device stopped. Inside, lock not held. */
void lv_queues_ask_bases(struct libvhost_dev *dev);
/* One NEEDS_RESET event if that was the case. */
void lv_queues_report_unknown(struct libvhost_dev *dev);

/* ---- queue.c, notify.c ---- */

/* Checks that all queues lie in the map and that there is one to start. */
int lv_queues_check(struct libvhost_dev *dev, const struct lv_record *rec, const struct lv_snapshot *mem);
/* The accepted features as a whole: packed rings are for devices that are not legacy (virtio 1.3, 6). 0 or -EINVAL. */
int lv_features_check(struct libvhost_dev *dev, const uint64_t *words, const char *call);
/* Descriptors that are made late: error eventfds, private call eventfds of masked queues. */
int lv_queues_make_fds(struct libvhost_dev *dev);
void lv_queues_drop_all(struct libvhost_dev *dev);
/* Forgets one that does not run. */
void lv_queue_forget(struct libvhost_dev *dev, uint32_t index);
/* Kicks queues that hold work, and (after a reconnect) calls the guest once. */
void lv_queues_poke(struct libvhost_dev *dev, bool call);
void lv_queue_poke(struct libvhost_dev *dev, uint32_t index);
/* Claims a connected device for a short request about a queue that is set up. */
int lv_queue_claim(struct libvhost_dev *dev, uint32_t index, const char *call);
/* Takes all guest notifications back, or one queue's. */
void lv_notifiers_drop(struct libvhost_dev *dev);
void lv_notifier_drop(struct libvhost_dev *dev, uint32_t index);
/* Makes an eventfd in *fd unless there is one. */
int lv_queue_late_fd(struct libvhost_dev *dev, uint32_t index, int *fd, const char *what);
int lv_fd_fail(struct libvhost_dev *dev, int error, uint32_t queue, const char *what);

/* ---- ring_control.c, config_irq.c ---- */

/* A start is for all queues, also for those that were stopped by themselves. */
void lv_queues_release_held(struct lv_record *rec);
/* The peer's configuration space is not what it was: tells host and guest. */
void lv_config_changed(struct libvhost_dev *dev);
/* Whether what was known of it is something else now. */
bool lv_config_differs(const struct lv_record *was, const struct lv_record *is);

/* ---- event.c ---- */

void lv_event_push(struct libvhost_dev *dev, const struct libvhost_event *event);
void lv_event_simple(struct libvhost_dev *dev, uint32_t type, uint32_t queue, int err, const char *text);
void lv_event_client(struct lv_part *part);
void lv_event_queue_error(struct libvhost_dev *dev, uint32_t queue);

/* ---- dispatch.c ---- */

/* Descriptors to wait for, with err also the queues' error eventfds. Inside. Returns their number. */
uint32_t lv_dev_collect(struct libvhost_dev *dev, struct lv_wait *w, bool err);
/* Gives what poll said to the transports, so that they need not ask again. */
void lv_dev_hand_over(struct libvhost_dev *dev, const struct lv_wait *w);
/* When something is due without a descriptor becoming ready; UINT64_MAX = never. */
uint64_t lv_dev_due(struct libvhost_dev *dev);
/* Brings the epoll set and its timer up to date, if there is one. */
void lv_dev_rearm(struct libvhost_dev *dev);
/* Before a watched descriptor is closed: a duplicate at the peer would keep it in the epoll set. Lock held. */
void lv_dev_unwatch(struct libvhost_dev *dev, int fd);
/* Makes a waiting dispatch look again. */
void lv_dev_wake(struct libvhost_dev *dev);

/* ---- reconnect.c ---- */

/* One step of connecting: 1 connected and replay begun, 0 not yet, negative failed. */
int lv_reconnect_step(struct libvhost_dev *dev);
/* The operation just begun connects first. */
void lv_reconnect_begin(struct libvhost_dev *dev, bool automatic);
/* Begins to reconnect by policy. Inside, no operation under way. */
void lv_reconnect_automatic(struct libvhost_dev *dev);
/* Stop of a device that reconnects by itself: it will come back stopped. True if that was the case. */
bool lv_reconnect_stop(struct libvhost_dev *dev, int *result);
bool lv_reconnect_possible(const struct libvhost_dev *dev);

/* ---- backoff.c ---- */

void lv_backoff_init(struct libvhost_dev *dev);
/* An operation begins to connect. */
void lv_backoff_begin(struct libvhost_dev *dev);
/* The pause begins that follows the attempts so far. */
void lv_backoff_pause(struct libvhost_dev *dev);
/* A change of the policy comes into force. */
void lv_backoff_update(struct libvhost_dev *dev);
/* Whether to try now; noticed: something new was seen. counts: the attempt is one of those that are limited. */
bool lv_backoff_due(struct libvhost_dev *dev, bool noticed, bool *counts);
/* When to look again. */
uint64_t lv_backoff_next(const struct libvhost_dev *dev);
/* Whether an automatic reconnect may try once more. */
bool lv_backoff_left(struct libvhost_dev *dev);
/* Whether the device comes back by itself. */
bool lv_backoff_automatic(struct libvhost_dev *dev);
/* RECONNECTED, with how long it took. */
void lv_backoff_report(const struct libvhost_dev *dev, struct libvhost_event *e);

/* ---- log.c ---- */

/* A plan begins: if it is one that tells the peer of op.log, the peer may write there from now on. */
void lv_dev_log_told(struct libvhost_dev *dev, struct lv_part *part, enum lv_plan_kind kind);
/* Marks the rings that ran for a peer that is gone. */
void lv_dev_log_rings(struct libvhost_dev *dev);
/* The peer's rings rest, or it confirmed that it no longer logs, or it is gone. */
void lv_dev_log_ended(struct libvhost_dev *dev);
/* Whether a migration may begin: 0, or -ENOTSUP with the reason as a sentence in why. */
int lv_dev_can_log(struct libvhost_dev *dev, char *why, size_t cap);

/* ---- memory_client.c ---- */

extern const struct lv_mem_client_ops lv_dev_mem_client;
/* Tells the memory how many regions the peer takes. */
void lv_dev_table_limit(struct libvhost_dev *dev);

#endif
