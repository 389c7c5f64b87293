/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/**
 * @file backend.h
 * The device side: a listener or an in-process connection, whose requests are decoded into the same struct libvhost_req
 * that front-ends send.
 *
 * Functions may be called from any thread; libvhost_backend_free() must be the last one. They wait for the time they
 * are given and, where a front-end's message or a running queue is dealt with, for libvhost_backend_opts.timeout_ms. In
 * a callback on the dispatching thread they return -EBUSY, and libvhost_backend_free() does nothing, but for
 * libvhost_backend_error(), _worker() and _worker_status(), and in ops.on_request for libvhost_backend_request() and
 * _next_event(), too. A handler on a worker calls none of them, see libvhost_ring_fn, and is told -EBUSY likewise. What
 * is not said below: a NULL argument is -EINVAL, and a system call without descriptors or memory is -EMFILE, -ENFILE or
 * -ENOMEM. The text of an error is in libvhost_backend_error(), of libvhost_backend_new() in the context.
 *
 * Workers stay with the process that made them: in a forked child only libvhost_backend_free() is of use, which leaves
 * the parent's front-end and socket file alone.
 */
#ifndef LIBVHOST_BACKEND_H
#define LIBVHOST_BACKEND_H

#include <vhost/event.h>
#include <vhost/transport.h>
#include <vhost/worker.h>

#ifdef __cplusplus
extern "C" {
#endif

/** Why libvhost_backend_ops.reset is called. Since 0.1. */
enum libvhost_reset_cause {
	LIBVHOST_RESET_DEVICE = 0, /**< RESET_DEVICE or RESET_OWNER */
	/** SET_STATUS 0: the driver reset the device, or the front-end suspends it: QEMU says the same for a guest that
	 * is paused, or migrated and then asked for its state. What save_state is to give must survive this. */
	LIBVHOST_RESET_STATUS = 1,
	LIBVHOST_RESET_LEFT = 2 /**< the connection is over, whoever ended it */
};

/** What a device author writes. Since 0.1. */
struct libvhost_backend_ops {
	uint32_t size;	   /**< sizeof(struct libvhost_backend_ops) */
	uint32_t reserved; /**< 0 */
	/**
	 * Serves one queue on a worker; see libvhost_ring_fn. @p arg is the backend's arg.
	 *
	 * A handler may keep requests beyond its return and push them in a later call (it returns 1 until it has none).
	 * When the front-end stops the queue, disabled or not, it is called on for up to timeout_ms until all are
	 * pushed, and is given no new ones. A front-end that negotiated GET_VRING_BASE_INFLIGHT and handed over a
	 * region does not wait: what is kept then stays marked there. What was kept when a queue stopped belongs to
	 * nobody: its memory may be gone, and with a region the next start pops it again, before anything new. A
	 * handler forgets what it kept in queue_stopped, or in the first call of a start, when
	 * libvhost_vq_info.requests is 0.
	 */
	int (*serve)(void *arg, uint32_t queue, struct libvhost_vq *vq);
	/** Reads configuration space; NULL = opts.config is used. @p buf holds zeros. On the thread that dispatches, or
	 * the control worker.
	 * @return 0, or negative errno: the front-end gets an empty answer */
	int (*get_config)(void *arg, uint32_t offset, void *buf, uint32_t len);
	/** Writes it; NULL = refused. @p type is the message's flags. @return 0, or negative errno, the answer */
	int (*set_config)(void *arg, uint32_t offset, const void *buf, uint32_t len, uint32_t type);
	/**
	 * Takes the protocol over, for bridges and tracers: every decoded request of the front-end comes here, in
	 * order, and is answered from its result fields (err, result, data_out, out_fd) when it returns; the other
	 * callbacks are not used and no worker is needed. Descriptors of the request are valid during the call.
	 */
	int (*on_request)(void *arg, struct libvhost_req *req);
	/**
	 * Device state for migration (SET_DEVICE_STATE_FD, CHECK_DEVICE_STATE); both or none. save_state writes at most
	 * @p cap bytes and returns how many, or why it cannot. What it wrote is what load_state of another host is
	 * given, in one piece: it takes all of it, or refuses what is not whole and leaves the device as it was. Called
	 * by dispatch, or on the control worker, while no queue runs; load_state when the front-end asks whether its
	 * transfer succeeded.
	 */
	int64_t (*save_state)(void *arg, void *buf, uint64_t cap);
	int (*load_state)(void *arg, const void *buf, uint64_t len); /**< 0 or negative errno */
	/**
	 * For handlers that keep something per queue; NULL = not needed. A queue has started, before serve is called
	 * for it, or has stopped for good, after the last call of serve; a pause is neither. Each start has its stop,
	 * however the queue ends, and reset comes after the stops. @p vq is what serve is given until the stop; it may
	 * be looked at (libvhost_vq_info()) and not be popped from. Called by dispatch or the control worker (in
	 * process: by who submits; at the end by libvhost_backend_stop() or libvhost_backend_free()), where
	 * libvhost_backend_* are refused, and like all ops there they should not take long.
	 */
	void (*queue_started)(void *arg, uint32_t queue, struct libvhost_vq *vq);
	void (*queue_stopped)(void *arg, uint32_t queue); /**< its queue object is gone when this returns */
	/** The device is what it was made; @p cause is enum libvhost_reset_cause. No queue runs. */
	void (*reset)(void *arg, uint32_t cause);
};

/** Options of libvhost_backend_new(). Since 0.1. */
struct libvhost_backend_opts {
	uint32_t size;	      /**< sizeof(struct libvhost_backend_opts) */
	uint32_t flags;	      /**< LIBVHOST_BACKEND_* */
	uint32_t virtio_id;   /**< virtio device type */
	uint32_t num_queues;  /**< 1..256 */
	uint32_t max_regions; /**< memory slots offered, 8..512; 0 = 509 */
	/** for a started message to arrive, for all rings that a message stops or pauses together (and again for them
	 * to go on), for an answer to leave; 0 = 1000 */
	uint32_t timeout_ms;
	uint64_t features;			/**< virtio features offered; VERSION_1 and bits 26 and 30 are added */
	const struct libvhost_backend_ops *ops; /**< copied */
	void *arg;				/**< passed to the ops */
	const void *config;			/**< initial configuration space, copied */
	uint32_t config_len;			/**< bytes, 0..256 */
	uint32_t num_workers; /**< sandboxed threads, 1..64; queue n begins on worker n modulo num_workers; 0 = 1 */
	const struct libvhost_worker_opts *worker; /**< for each of them; NULL = defaults */
	uint32_t state_max;			   /**< most bytes of device state, up to 1 GiB; 0 = 1 MiB */
	uint32_t reserved;			   /**< 0 */
};

#define LIBVHOST_BACKEND_REQUIRE_SEALS 0x1u /**< refuse guest memory that the front-end can still shrink */
/**
 * Control messages are handled on a thread of the back-end, with LIBVHOST_ROLE_CONTROL and the sandbox, action, caps
 * and extra system calls of opts.worker: it accepts front-ends, reads and answers their messages, maps their memory,
 * starts and stops queues, and nobody has to call dispatch for that. libvhost_backend_fd() is readable, and dispatch
 * returns, when there is an event to take or, after libvhost_backend_connect(), an attempt to make: connecting is what
 * that thread may not do, so client mode needs a caller of dispatch.
 *
 * The ops that dispatch calls otherwise, and the context's log function, run on that thread, within its filter: they
 * may allocate, lock, read and write what is open, and neither open, connect nor start threads. libvhost_backend_* are
 * refused there as in any callback. Calls of the host wait until the present message is done; stop has its deadline.
 * Requests of libvhost_backend_inproc() are handled by who submits them. Not with PULL or ops.on_request.
 */
#define LIBVHOST_BACKEND_CONTROL_WORKER 0x2u
/** No workers, no ops.serve: the caller pops and pushes by itself between calls of dispatch, see
 * libvhost_backend_queue(). ops may be NULL. Nothing is sandboxed then. */
#define LIBVHOST_BACKEND_PULL 0x4u

/** Makes the device; workers are started and sandboxed at once. @return 0; -EINVAL; -E2BIG; the errors of
 * libvhost_worker_new(); -ENOMEM; -EMFILE. Since 0.1. */
LIBVHOST_API LIBVHOST_MUST_CHECK int libvhost_backend_new(struct libvhost_ctx *ctx,
							  const struct libvhost_backend_opts *opts,
							  struct libvhost_backend **ret);

/**
 * Ends the device with a deadline (0 = the context's time limit): nobody can connect any more, the connection is
 * closed, all queues are taken back and the workers end. Requests that handlers keep stay unanswered: a driver that
 * must not lose them stops its queues before. Afterwards only events and errors can be taken and the back-end freed,
 * which takes no time; what would do or change something, a dispatch that waits included, ends with -ESHUTDOWN.
 * @return 0, also when it was stopped before; -ETIMEDOUT (a handler does not return: call again); -EBUSY; -EINVAL.
 * Since 0.1.
 */
LIBVHOST_API int libvhost_backend_stop(struct libvhost_backend *backend, uint32_t timeout_ms);

/** Stops queues, closes and frees; waits for handlers as long as they take (libvhost_backend_stop() has a deadline).
 * NULL is allowed. Since 0.1. */
LIBVHOST_API void libvhost_backend_free(struct libvhost_backend *backend);

/** Listens on a unix socket; a stale socket file without a listener is replaced. One front-end at a time, the next
 * waits. @return 0; -EADDRINUSE (someone listens there); -EACCES, -EROFS and the like (the file cannot be made);
 * -EINVAL (path: too long, its folder is missing, or something that is no socket is there); -EBUSY (it listens or
 * connects already); -EMFILE; -ESHUTDOWN. Since 0.1. */
LIBVHOST_API int libvhost_backend_listen(struct libvhost_backend *backend, const char *path);

/**
 * Listens on a socket that is listening already: of a service manager (socket activation), or of the process that
 * served before. Duplicated and made non-blocking, which all who share it see; its file stays when the back-end ends.
 * @return 0; -EBADF; -ENOTSOCK (no listening unix stream socket); -EBUSY (it listens or connects already); -EMFILE;
 * -ESHUTDOWN. Since 0.1.
 */
LIBVHOST_API int libvhost_backend_listen_fd(struct libvhost_backend *backend, int fd);

/**
 * Gives the listening socket to the caller, for a successor's libvhost_backend_listen_fd(). As long as somebody has it
 * open no connect() fails: who comes waits until it is served again. The socket file stays, and so does the present
 * connection; *fd is close-on-exec and the caller's to close.
 * @return 0; -ENOENT (it does not listen); -EINVAL; -EBUSY. Since 0.1.
 */
LIBVHOST_API int libvhost_backend_release_listener(struct libvhost_backend *backend, int *fd);

/**
 * Client mode: connects to a front-end that listens at @p path, in dispatch, and again after each end of the
 * connection. Failed attempts, and front-ends that hang up without a message, make the pause grow from 1 ms to 1 s;
 * what fails can be read with libvhost_backend_error().
 * @return 0; -EINVAL (path); -EBUSY (it listens or connects already); -ESHUTDOWN. Since 0.1.
 */
LIBVHOST_API int libvhost_backend_connect(struct libvhost_backend *backend, const char *path);

/** Serves an already connected socket; duplicated. @return 0; -EBUSY (connected already, or the last front-end's queues
 * are not back yet); -ENOTSOCK (no connected unix stream socket); -EBADF; -EMFILE; -ENOMEM; -ESHUTDOWN. Since 0.1. */
LIBVHOST_API int libvhost_backend_adopt(struct libvhost_backend *backend, int fd);

/** A transport whose other end is this back-end, in the same process, without a socket. The transport must be freed
 * before the back-end. @return 0; -EBUSY (as libvhost_backend_adopt()); -ENOTSUP (LIBVHOST_BACKEND_PULL); -EMFILE;
 * -ENOMEM; -ESHUTDOWN. Since 0.1. */
LIBVHOST_API int libvhost_backend_inproc(struct libvhost_backend *backend, struct libvhost_transport **ret);

/** One epoll-able descriptor, readable when dispatch has something to do; the same all the time, owned by the back-end.
 * @return descriptor; -EINVAL; -EBUSY. Since 0.1. */
LIBVHOST_API int libvhost_backend_fd(struct libvhost_backend *backend);

/** Accepts, reads and answers control messages; waits up to @p timeout_ms for the first of them, here 0 = not at all.
 * With LIBVHOST_BACKEND_CONTROL_WORKER it waits for events and makes connections only. One thread at a time.
 * @return 0, also when nothing came; -EBUSY (another thread dispatches); -EINVAL (timeout_ms above an hour);
 * -ESHUTDOWN. Since 0.1. */
LIBVHOST_API int libvhost_backend_dispatch(struct libvhost_backend *backend, uint32_t timeout_ms);

/**
 * With LIBVHOST_BACKEND_PULL: a queue to serve, and the descriptor that its driver kicks (-1 = none, look at the ring).
 * Call it whenever the descriptor is readable, which it empties, and after each dispatch; then pop, push and flush.
 * Both are valid until the next call of dispatch, on the thread that calls it. A queue that is being stopped gives no
 * new requests, but takes what was popped: dispatch goes on with the stop when all is pushed, or after timeout_ms. A
 * front-end that just goes does not wait: requests that are kept over a dispatch are forgotten, and their memory is
 * gone, as soon as this call returns another queue, or none.
 * @return 0; -ENODATA (not started); -EBADMSG (broken); -EINVAL (no such queue, or made without PULL); -EBUSY (from a
 * callback); -ESHUTDOWN. Since 0.1.
 */
LIBVHOST_API int libvhost_backend_queue(struct libvhost_backend *backend, uint32_t queue, struct libvhost_vq **vq,
					int *kick_fd);

/** Takes one event. 64 wait at most; libvhost_event.dropped of the next one counts those that came meanwhile. @return 1
 * taken, 0 none; -EINVAL; -EBUSY. Since 0.1. */
LIBVHOST_API int libvhost_backend_next_event(struct libvhost_backend *backend, struct libvhost_event *event);

/** Replaces the first @p len bytes of configuration space and tells the front-end, if there is one that wants to know.
 * Never waits: any number of changes is one message. @return 0; -EINVAL (len is 0 or above
 * libvhost_backend_opts.config_len); -EBUSY; -ESHUTDOWN. Since 0.1. */
LIBVHOST_API int libvhost_backend_set_config(struct libvhost_backend *backend, const void *config, uint32_t len);

/**
 * Sends one back-end request (LIBVHOST_OP_BACKEND_*) to the connected front-end and waits for its answer if there is
 * one.
 * @return 0; -ENOTCONN (no front-end, or it gave no back-end channel); -EINVAL (not such a request, or not one that can
 * be said); -EIO (refused); -ETIMEDOUT, -EPROTO, -ECONNRESET, -EPIPE (the channel is closed now); -ENOMEM; -ESHUTDOWN.
 * Since 0.1.
 */
LIBVHOST_API int libvhost_backend_request(struct libvhost_backend *backend, struct libvhost_req *req,
					  uint32_t timeout_ms);

/**
 * Has queue @p queue also served when @p fd becomes readable: a tap, a terminal, a timer. The worker that serves the
 * queue waits for it, while it serves it; what was readable before counts. The handler reads, and returns
 * LIBVHOST_TURN_WAIT while there is nothing to read. One descriptor per queue; @p fd is borrowed until the back-end is
 * freed or another is given, must be non-blocking and may belong to one queue only; -1 = none.
 * @return 0; -EINVAL (queue; fd blocks, cannot be waited for or is another queue's; made with LIBVHOST_BACKEND_PULL);
 * -EBUSY (the queue runs); -ESHUTDOWN. Since 0.1.
 */
LIBVHOST_API int libvhost_backend_watch_fd(struct libvhost_backend *backend, uint32_t queue, int fd);

/**
 * Has worker @p worker serve queue @p queue from now on, whether it runs or not. Requests that wait are served there,
 * and what its handler keeps stays kept: from then on it is called on the other thread. Not while a libvhost_call for
 * the queue is on its way to the present worker, and not from a handler.
 * @return 0; -EINVAL (no such queue or worker); -ETIMEDOUT (a handler does not return: the queue is where it was);
 * -ENOSPC (64 queues there already); -EBUSY (from a callback); -ESHUTDOWN. Since 0.1.
 */
LIBVHOST_API int libvhost_backend_move_queue(struct libvhost_backend *backend, uint32_t queue, uint32_t worker,
					     uint32_t timeout_ms);

/** A worker of the back-end, to give it descriptors and calls; owned by the back-end, so neither to be stopped nor
 * freed nor given queues. A descriptor that it gives up is an event QUEUE_ERROR with queue 0xffffffff. @return NULL: no
 * such worker. Since 0.1. */
LIBVHOST_API struct libvhost_worker *libvhost_backend_worker(struct libvhost_backend *backend, uint32_t index);

#define LIBVHOST_BACKEND_CONTROL_INDEX 0xffffffffu /**< the control worker, for libvhost_backend_worker_status() */

/** Status of worker @p index. @return 0; -ENOENT (no such worker); as libvhost_worker_status(). Since 0.1. */
LIBVHOST_API int libvhost_backend_worker_status(struct libvhost_backend *backend, uint32_t index,
						struct libvhost_worker_status *status);

/** Copies the last error. @return 0; -EINVAL. Since 0.1. */
LIBVHOST_API int libvhost_backend_error(struct libvhost_backend *backend, struct libvhost_error *err);

#ifdef __cplusplus
}
#endif
#endif
