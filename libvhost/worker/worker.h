/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/*
 * One worker: who owns which field. The host's side is under host_lock; the loop's side is touched by the worker's
 * thread only; in between are atomics, the mailbox and two eventfds. The worker takes no lock, so a killed or stuck one
 * leaves none behind.
 */
#ifndef LV_WORKER_WORKER_H
#define LV_WORKER_WORKER_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <sys/types.h>
#include <unistd.h>
#include <vhost/event.h>
#include <vhost/worker.h>
#include "core/ctx.h"
#include "worker/io.h"
#include "worker/sandbox.h"

#define LV_WORKER_QUEUES 64u
#define LV_WORKER_FDS	 32u

/* A queue on the worker. */
struct lv_slot {
	struct libvhost_vq *vq;
	libvhost_ring_fn fn;
	void *arg;
	int kick_fd, watch_fd; /* -1 = none; watch_fd: another reason to serve the queue */
	uint64_t requests;     /* taken from the ring when last looked at */
};

/* A descriptor on the worker. */
struct lv_fd_slot {
	int fd;
	libvhost_fd_fn fn;
	void *arg;
};

/* The loop's side. Sets of slots are bit masks. */
struct lv_loop {
	struct lv_slot slots[LV_WORKER_QUEUES];
	uint64_t active;		 /* served */
	uint64_t ready;			 /* may hold work */
	uint64_t armed;			 /* the driver was asked to kick */
	uint64_t waiting;		 /* not served before a kick or libvhost_vq_wake() */
	uint64_t polled;		 /* no kick descriptor */
	uint64_t watched;		 /* with a watch_fd */
	uint64_t found;			 /* had work since idle ones were last sorted out */
	uint64_t held;			 /* about to leave: not served while its operations end */
	uint32_t owed[LV_WORKER_QUEUES]; /* operations and promised calls that a queue waits for before it leaves */
	struct lv_fd_slot fds[LV_WORKER_FDS];
	uint32_t fds_active, fds_ready;
	uint32_t burst;	  /* requests per turn */
	bool busy;	  /* polls without end */
	uint64_t poll_ns; /* polling window now: between 0 and poll_max_ns */
	uint64_t poll_max_ns;
	uint64_t asleep_at; /* when the last sleep began */
	uint64_t sorted_at; /* when idle queues were last sorted out */
	unsigned rounds;
};

/* The mailbox: one message at a time, from the host to the worker. */
enum lv_mail_kind { LV_MAIL_ADD, LV_MAIL_REMOVE, LV_MAIL_ADD_FD, LV_MAIL_REMOVE_FD };
enum lv_mail_state { LV_MAIL_EMPTY, LV_MAIL_POSTED, LV_MAIL_TAKEN, LV_MAIL_DONE };

struct lv_mail {
	atomic_int state;
	enum lv_mail_kind kind;
	uint32_t slot;
	bool refused; /* REMOVE: operations of the queue are under way */
	union {
		struct lv_slot queue; /* ADD */
		struct lv_fd_slot fd; /* ADD_FD */
	};
};

/* What the host knows of a slot. */
struct lv_post {
	struct libvhost_vq *vq; /* NULL = free */
	int kick_fd, watch_fd;
	bool reported; /* the failure was handed out as an event */
};

/* The same of a descriptor. */
struct lv_fd_post {
	bool used, reported;
	int fd;
};

struct libvhost_worker {
	struct libvhost_ctx *ctx;
	struct lv_errslot err;
	struct libvhost_worker_opts opts;
	pthread_t thread;
	pid_t pid;   /* of the process that started it: a forked child has no such thread */
	bool joined; /* under host_lock */
	int epoll_fd;
	int control_fd; /* host -> worker: mail or stop */
	int done_fd;	/* worker -> host: started, or mail done */
	int report_fd;	/* worker -> host: a queue failed */
	/* host's side */
	pthread_mutex_t host_lock;
	struct lv_post posts[LV_WORKER_QUEUES];
	struct lv_fd_post fd_posts[LV_WORKER_FDS];
	/* shared */
	struct lv_mail mail;
	atomic_int started; /* 0 not yet, 1 runs, -1 ended */
	atomic_int stop;
	atomic_int failed[LV_WORKER_QUEUES]; /* negative errno once the worker gave a queue up */
	atomic_int fds_failed[LV_WORKER_FDS];
	atomic_uint leaving;		       /* slot + 1 of the queue that the host wants back, 0 = none */
	atomic_int free_to_leave;	       /* 1: what that queue waited for has ended */
	_Atomic(struct libvhost_call *) calls; /* newest first */
	struct libvhost_call closed;	       /* in place of the list once the worker has ended */
	atomic_uint_least32_t queues;
	_Atomic uint64_t end_drain; /* slots whose queues take new requests again; the worker does it */
	_Atomic pid_t tid;
	_Atomic uint64_t wakeups, requests, io_done;
	atomic_uint_least32_t io_under_way;
	/* worker's side */
	struct lv_sandbox sandbox;
	struct lv_sandbox_result sandbox_result; /* published by started */
	struct lv_loop loop;
	struct lv_io io;
};

/* libvhost_worker_add_vq() with all there is to say about the queue. */
int lv_worker_add(struct libvhost_worker *w, const struct lv_slot *queue, uint32_t timeout_ms);

/* libvhost_worker_add_fd() of what nobody reads from: an epoll set. */
int lv_worker_add_fd(struct libvhost_worker *w, int fd, libvhost_fd_fn fn, void *arg, uint32_t timeout_ms);

/* The thread's main loop; returns when stop is set. */
void lv_loop_run(struct libvhost_worker *w);

/* Runs what libvhost_worker_call() left. lv_calls_close(): and takes no more. On the worker. */
void lv_calls_run(struct libvhost_worker *w);
void lv_calls_close(struct libvhost_worker *w);
bool lv_calls_wait(struct libvhost_worker *w);

/* Publishes what was pushed to a queue outside of its turn. On the worker. */
void lv_loop_flush(struct libvhost_worker *w, struct libvhost_vq *vq);

/* The same after operations or calls of the queue in this slot have ended, which may be what it waited for. */
void lv_loop_ended(struct libvhost_worker *w, uint32_t slot);

/* Takes a failure of a descriptor into event. Under host_lock. */
bool lv_fds_failure(struct libvhost_worker *w, struct libvhost_event *event);

/* Why epoll refused a descriptor: records it. what: "kick descriptor". */
int lv_worker_watch(struct libvhost_worker *w, const char *what, int fd, uint32_t data);

/* Whether this process has the thread. A forked child shares only its descriptors, which stay the parent's. */
static inline bool lv_worker_is_ours(const struct libvhost_worker *w)
{
	return w->pid == getpid();
}
/* Whether the thread has left the loop, or never was here: nothing is touched by the worker any more. */
static inline bool lv_worker_ended(struct libvhost_worker *w)
{
	return atomic_load(&w->started) < 0 || !lv_worker_is_ours(w);
}
/* Undoes lv_worker_watch(). */
void lv_worker_unwatch(struct libvhost_worker *w, int fd);
int lv_worker_is_gone(struct libvhost_worker *w); /* records and returns -ESRCH */

/* Whether this is the worker's own thread: what waits for the worker would wait for ever there. */
static inline bool lv_worker_is_self(struct libvhost_worker *w)
{
	return atomic_load(&w->started) > 0 && pthread_equal(w->thread, pthread_self());
}
/* Takes host_lock. 0, or -EBUSY (recorded) on the worker's own thread. */
int lv_worker_lock(struct libvhost_worker *w);

/* Executes a posted message, if any, on the worker. */
void lv_mail_take(struct libvhost_worker *w);
/* A queue that was lent to be drained stays with a handler that does not return: when it does, the worker takes new
 * requests again. Does not wait. */
void lv_worker_end_drain(struct libvhost_worker *w, const struct libvhost_vq *vq);
/* Posts w->mail and waits until the worker executed it. 0; -ETIMEDOUT: it did not and will not. Under host_lock. */
int lv_mail_send(struct libvhost_worker *w, uint64_t deadline);
/* Waits until *word differs from value or the deadline passes. */
bool lv_worker_await(struct libvhost_worker *w, atomic_int *word, int value, uint64_t deadline);

#endif
