/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/**
 * @file worker.h
 * One sandboxed thread that serves virtqueues. See docs/sandbox.md for what thread mode contains and what it does not.
 *
 * Functions may be called from any thread of the host but a worker's, unless they say that they are for handlers;
 * libvhost_worker_free() must be the last one. What is not said below: a NULL argument is -EINVAL, and what would wait
 * for the worker is -EBUSY on its own thread. The text of an error is in libvhost_worker_error(), of
 * libvhost_worker_new() in the context.
 */
#ifndef LIBVHOST_WORKER_H
#define LIBVHOST_WORKER_H

#include <vhost/event.h>
#include <vhost/vq.h>

#ifdef __cplusplus
extern "C" {
#endif

enum libvhost_sandbox_mode {
	LIBVHOST_SANDBOX_REQUIRED = 0,	  /**< default: no worker without it */
	LIBVHOST_SANDBOX_BEST_EFFORT = 1, /**< go on without what the host does not allow; status tells */
	LIBVHOST_SANDBOX_OFF = 2
};

enum libvhost_sandbox_action {
	LIBVHOST_SANDBOX_ERRNO = 0,	   /**< default: a forbidden call returns EPERM */
	LIBVHOST_SANDBOX_KILL_PROCESS = 1, /**< it ends the process */
	LIBVHOST_SANDBOX_LOG = 2	   /**< it is allowed and logged by the kernel (development) */
};

enum libvhost_sandbox_caps {
	LIBVHOST_CAPS_AUTO = 0, /**< dropped when the host can no longer change ids, else kept (see docs/sandbox.md) */
	LIBVHOST_CAPS_DROP = 1, /**< always dropped: setuid() and its kin in the host abort it while workers live */
	LIBVHOST_CAPS_KEEP = 2
};

enum libvhost_worker_role {
	LIBVHOST_ROLE_RING = 0,	  /**< rings only: eventfds, timers, polling, no file access */
	LIBVHOST_ROLE_BLOCK = 1,  /**< rings and positioned reads and writes of files opened before */
	LIBVHOST_ROLE_STREAM = 2, /**< rings and reads and writes of streams opened before: tap, socket, terminal */
	LIBVHOST_ROLE_CONTROL = 3 /**< control messages of a back-end, which bring descriptors and map memory */
};

/**
 * One more system call for a worker's filter, which its handlers need. Refused are unknown names, names that this
 * architecture does not have, and calls that would undo the sandbox: to execute, fork, trace or load a program, to
 * change filters, capabilities or namespaces, to make or use another io_uring. mmap, mprotect and pkey_mprotect must
 * name the protection (argument 2, without PROT_EXEC), ioctl its request (argument 1). Since 0.1.
 */
struct libvhost_syscall_rule {
	const char *name;  /**< as libseccomp knows it */
	uint32_t num_args; /**< comparisons, 0..2; all must hold */
	uint32_t arg[2];   /**< number of the argument, 0..5, the same only once */
	uint32_t reserved;
	uint64_t value[2]; /**< what it must be, as the 64-bit register holds it */
};

/** Options of libvhost_worker_new(). Since 0.1. */
struct libvhost_worker_opts {
	uint32_t size;	       /**< sizeof(struct libvhost_worker_opts) */
	uint32_t flags;	       /**< LIBVHOST_WORKER_* */
	uint32_t role;	       /**< enum libvhost_worker_role */
	uint32_t sandbox;      /**< enum libvhost_sandbox_mode */
	uint32_t action;       /**< enum libvhost_sandbox_action */
	uint32_t caps;	       /**< enum libvhost_sandbox_caps */
	uint32_t poll_us;      /**< window, microseconds: 0 = 50; at most 1000000, or LIBVHOST_WORKER_NO_WINDOW */
	int32_t cpu;	       /**< with HAS_CPU: processor to run on */
	char name[16];	       /**< thread name, "" = "vhost-worker" */
	uint32_t num_files;    /**< 0..64, more than 0 only with LIBVHOST_ROLE_BLOCK */
	uint32_t io_depth;     /**< operations under way at once, 1..4096; 0 = 256 */
	const int32_t *files;  /**< what libvhost_vq_io() reads and writes, named by index; duplicated */
	uint32_t num_syscalls; /**< 0..32 */
	/** most requests that one queue gets per turn; 0 = 256. Then pop answers 0, and the queue is served again when
	 * the others that have work had their turn, whatever its handler returned */
	uint32_t burst;
	const struct libvhost_syscall_rule *syscalls; /**< allowed beside those of the role; copied */
};

/**
 * For poll_us: sleep as soon as there is nothing to do. Else a worker looks at the rings that were in use for a window
 * first. One that catches nothing is halved, down to none, until a kick comes that it would have caught: queues at rest
 * cost nothing.
 */
#define LIBVHOST_WORKER_NO_WINDOW 0xffffffffu

#define LIBVHOST_WORKER_HAS_CPU 0x1u
#define LIBVHOST_WORKER_BUSY	0x2u /**< never sleep while there is a queue to look at; poll_us must be 0 */
/** Use an io_uring for the files. It is made and restricted before the filter is loaded, and is left out where the
 * kernel has none to give: libvhost_worker_status.io_uring tells. */
#define LIBVHOST_WORKER_IO_URING 0x4u

/**
 * Starts the thread and returns after it confirmed its sandbox.
 * @return 0; -EINVAL (options, or the processor is not there); -E2BIG; -EPERM (sandbox required but not to be had: kind
 * SANDBOX); -EBADF (a file); -ENOMEM; -EAGAIN (no thread); -EMFILE; -ETIMEDOUT (the thread did not get to run in the
 * context's time limit). Since 0.1.
 */
LIBVHOST_API LIBVHOST_MUST_CHECK int libvhost_worker_new(struct libvhost_ctx *ctx,
							 const struct libvhost_worker_opts *opts,
							 struct libvhost_worker **ret);

/**
 * Ends the thread and waits for that; calls that it was given run before. Afterwards only queues and descriptors can be
 * removed, events and errors taken, and the worker freed.
 * @return 0, also when it has ended before; -ETIMEDOUT (a handler does not return: try again); -EINVAL. Since 0.1.
 */
LIBVHOST_API int libvhost_worker_stop(struct libvhost_worker *worker, uint32_t timeout_ms);

/** Stops the thread, waits for it as long as a handler takes (libvhost_worker_stop() has a deadline) and frees; queues
 * that it has are nobody's then. NULL is allowed; in a handler of its own it does nothing. Since 0.1. */
LIBVHOST_API void libvhost_worker_free(struct libvhost_worker *worker);

/**
 * Serves one queue once: called on the worker whenever the queue was kicked or may hold work. It pops, works, pushes
 * and returns; the worker publishes completions. It must be C written for the sandbox: no allocation, and no library
 * call but those of <vhost/vq.h>, libvhost_worker_call(), libvhost_vq_wake() and libvhost_vq_worker().
 * @return enum libvhost_turn, or negative: the queue is stopped and reported. Since 0.1.
 */
typedef int (*libvhost_ring_fn)(void *arg, struct libvhost_vq *vq);

/** What a handler leaves behind. Since 0.1. */
enum libvhost_turn {
	LIBVHOST_TURN_DONE = 0, /**< the queue is empty: called again when the driver kicks */
	LIBVHOST_TURN_MORE = 1, /**< more may be left: called again after the others had their turn */
	/** There is nothing to do with the requests that wait, as for a receive queue without frames: called again
	 * after libvhost_vq_wake(). The driver is not asked for kicks until then. */
	LIBVHOST_TURN_WAIT = 2
};

/**
 * Gives a device-role queue to the worker, which serves it at once and on every kick. @p kick_fd is borrowed until
 * removal; it must be readable by epoll, normally an eventfd, and may serve one queue only; -1 = the worker looks at
 * the ring by itself: all the time while there is work and within poll_us of it, then once a millisecond. While a queue
 * is on a worker, no region may leave its memory map: take the queue back, commit, add it again.
 * @return 0; -EINVAL (also: kick_fd cannot be waited for); -ENOSPC (64 queues); -EEXIST (the queue is on a worker, or
 * the descriptor on this one already); -ETIMEDOUT (handler stuck: the queue was not added); -ESRCH (the worker has
 * ended). Since 0.1.
 */
LIBVHOST_API int libvhost_worker_add_vq(struct libvhost_worker *worker, struct libvhost_vq *vq, int kick_fd,
					libvhost_ring_fn fn, void *arg, uint32_t timeout_ms);

/** Takes a queue back; when it returns 0 the worker no longer touches it. Also for queues that the worker gave up.
 * @return 0; -EINVAL; -ENOENT; -ETIMEDOUT (handler stuck: the queue is still the worker's). Since 0.1. */
LIBVHOST_API int libvhost_worker_remove_vq(struct libvhost_worker *worker, struct libvhost_vq *vq, uint32_t timeout_ms);

/** Has a queue served again although its driver did not kick. For handlers, on the worker that serves it. @return 0;
 * -EINVAL (no worker serves it). Since 0.1. */
LIBVHOST_API int libvhost_vq_wake(struct libvhost_vq *vq);

/** The worker that serves a queue, NULL = none. For handlers on that worker, and for the host while nobody adds or
 * removes the queue. Since 0.1. */
LIBVHOST_API struct libvhost_worker *libvhost_vq_worker(struct libvhost_vq *vq);

/**
 * Called on the worker when a descriptor has become readable; written for the sandbox like libvhost_ring_fn. It reads,
 * or has a queue read with libvhost_vq_wake().
 * @return 1: called again after the others had their turn; 0: called again when more arrives; negative: the descriptor
 * is given up and reported. Since 0.1.
 */
typedef int (*libvhost_fd_fn)(void *arg, int fd);

/**
 * Has the worker wait for one more descriptor, for example a tap, or a timer: give a timerfd, which the handler may set
 * anew with timerfd_settime() and empties with read(). At most 32. @p fd is borrowed until removal; it must be
 * non-blocking and readable by epoll. What was readable before counts as arrived: fn is called once at first, and may
 * find nothing.
 * @return 0; -EINVAL (also: fd blocks, or cannot be waited for); -ENOSPC; -EEXIST; -ETIMEDOUT (handler stuck: not
 * added); -ESRCH (the worker has ended). Since 0.1.
 */
LIBVHOST_API int libvhost_worker_add_fd(struct libvhost_worker *worker, int fd, libvhost_fd_fn fn, void *arg,
					uint32_t timeout_ms);

/** Takes a descriptor back, also one that the worker gave up; when it returns 0 its fn does not run any more. @return
 * 0; -EINVAL; -ENOENT; -ETIMEDOUT (handler stuck: still the worker's). Since 0.1. */
LIBVHOST_API int libvhost_worker_remove_fd(struct libvhost_worker *worker, int fd, uint32_t timeout_ms);

/** Work that another thread has for a worker; the caller's memory, the worker's from libvhost_worker_call() until fn
 * begins. Since 0.1. */
struct libvhost_call {
	struct libvhost_call *next; /**< the library's */
	/** Runs on the worker, written for the sandbox like libvhost_ring_fn; may reuse @p call. @p vq is the queue
	 * that the call was promised to, or NULL. */
	void (*fn)(struct libvhost_call *call, struct libvhost_vq *vq);
	struct libvhost_vq *vq; /**< the library's, NULL at first */
	void *arg;		/**< fn's */
};

/**
 * For a handler that gives a request to another thread: promises that libvhost_worker_call() will be made with @p call,
 * whose fn pushes to @p vq; what it pushed is published behind it. Until then the queue stays with its worker: removing
 * it, or stopping, waits for the call within its deadline. Once per call, on the worker that serves the queue.
 * @return 0; -EINVAL (no worker serves the queue; no fn). Since 0.1.
 */
LIBVHOST_API int libvhost_vq_promise(struct libvhost_vq *vq, struct libvhost_call *call);

/**
 * Has fn run on the worker soon, in the order of the calls: so threads with results let requests be completed by the
 * thread that owns the queue. Takes no lock, allocates nothing and wakes the worker once per burst. From any thread,
 * and from handlers. A call whose fn pushes to a queue must have been promised to that queue.
 * @return 0; -EINVAL; -ESRCH (the worker has ended: not taken). Since 0.1.
 */
LIBVHOST_API int libvhost_worker_call(struct libvhost_worker *worker, struct libvhost_call *call);

/** One epoll-able descriptor, readable when libvhost_worker_next_event() has something; owned by the worker. @return
 * descriptor; -EINVAL. Since 0.1. */
LIBVHOST_API int libvhost_worker_fd(struct libvhost_worker *worker);

/**
 * Takes one event: QUEUE_ERROR for a queue that the worker gave up because its ring is broken or its handler failed
 * (err says how, value[0] is the struct libvhost_vq), or for a descriptor whose handler failed (queue is 0xffffffff,
 * value[0] the descriptor). The worker does not touch it any more; remove it.
 * @return 1 taken, 0 none; -EINVAL. Since 0.1.
 */
LIBVHOST_API int libvhost_worker_next_event(struct libvhost_worker *worker, struct libvhost_event *event);

/** The kernel's view of a worker, read from /proc. Since 0.1. */
struct libvhost_worker_status {
	uint32_t size;		/**< sizeof(struct libvhost_worker_status) */
	uint32_t tid;		/**< thread id */
	uint32_t seccomp;	/**< 0 off, 2 filter */
	uint32_t no_new_privs;	/**< 1 set */
	uint64_t cap_effective; /**< capability sets */
	uint64_t cap_permitted;
	uint64_t cap_bounding;
	uint32_t queues;       /**< queues served now */
	uint32_t alive;	       /**< 1 runs */
	uint64_t wakeups;      /**< times it woke up */
	uint64_t requests;     /**< handler calls that found work */
	uint32_t io_uring;     /**< 1: the files are used through an io_uring */
	uint32_t io_under_way; /**< operations started and not ended */
	uint64_t io_done;      /**< operations ended */
};

/** Reads it. @return 0; -EINVAL (also: size); -ESRCH (thread is gone); the errno of open() where there is no /proc.
 * Since 0.1. */
LIBVHOST_API int libvhost_worker_status(struct libvhost_worker *worker, struct libvhost_worker_status *status);

/** Names of the system calls that a role's filter allows, one after another: index 0, 1, … @return static name, NULL at
 * the end. Since 0.1. */
LIBVHOST_API const char *libvhost_syscalls(uint32_t role, uint32_t index);

/** Copies the last error. @return 0; -EINVAL. Since 0.1. */
LIBVHOST_API int libvhost_worker_error(struct libvhost_worker *worker, struct libvhost_error *err);

#ifdef __cplusplus
}
#endif
#endif
