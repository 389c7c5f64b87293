/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/**
 * @file ctx.h
 * The context: log sink and defaults. Objects of different contexts share nothing; the library has no globals, but for
 * the process's action for SIGBUS when LIBVHOST_CTX_SIGBUS_GUARD asks for it.
 */
#ifndef LIBVHOST_CTX_H
#define LIBVHOST_CTX_H

#include <vhost/error.h>

#ifdef __cplusplus
extern "C" {
#endif

enum libvhost_log_level {
	LIBVHOST_LOG_LEVEL_NONE = 0, /**< the default: nothing is logged */
	LIBVHOST_LOG_LEVEL_ERROR = 1,
	LIBVHOST_LOG_LEVEL_WARNING = 2,
	LIBVHOST_LOG_LEVEL_INFO = 3,
	LIBVHOST_LOG_LEVEL_DEBUG = 4 /**< each request sent and received */
};

/**
 * Receives one finished line without a newline. Called on the host thread that is inside the library, never on a
 * worker. It must not call the library on the same handle. Since 0.1.
 */
typedef void (*libvhost_log_fn)(void *arg, uint32_t level, uint32_t error_kind, const char *line);

/**
 * Guest memory and inflight regions that a peer cuts off do not end the process. While at least one such context (or an
 * object of it) lives, the process has an action for SIGBUS of the library's in front of its own. An access to such
 * memory, mapped by an object of such a context, whose file has become shorter, finds zero pages of nobody else from
 * there to the end of the region; all queues on that memory are broken (-EFAULT; a back-end reports one event for
 * each) as soon as they are used again, until they are started on a new mapping. Any other SIGBUS goes to the action
 * that was there before, as that asked for it; where there was none, or it ignored a fault, the process ends as it
 * would have without us.
 *
 * What a host has to know:
 * - The action is the process's. A host that sets its own for SIGBUS while such a context lives replaces ours, unless
 *   it calls what it found; ours is then left where it is, for good (the shared library is never unloaded; a plugin
 *   that contains the static one must not be, either). Better: set it before the first such context.
 * - A fault on a thread that blocks SIGBUS ends the process. Workers of such a context do not block it, so a SIGBUS
 *   that is sent to the process may reach the host's action on a worker, inside its filter. That filter also allows to
 *   map zero pages (docs/sandbox.md).
 * - Memory that the host mapped itself (libvhost_region.user_addr) is the host's to guard, and so are windows of
 *   <vhost/share.h>. System calls on memory that is gone fail with EFAULT, guard or not.
 * - Zero pages that are written to are memory of this process. A host that locks all memory to come
 *   (mlockall(MCL_FUTURE) without MCL_ONFAULT) pays for the whole rest of a region at once.
 * - A forked child has the action, too, and the mappings that were guarded.
 * - Not to be made or freed in a signal handler, nor at the same time as the host changes its action. Since 0.1.
 */
#define LIBVHOST_CTX_SIGBUS_GUARD 0x1u

/** Options of libvhost_ctx_new(). Since 0.1. */
struct libvhost_ctx_opts {
	uint32_t size;		     /**< sizeof(struct libvhost_ctx_opts) */
	uint32_t flags;		     /**< LIBVHOST_CTX_* */
	uint32_t log_level;	     /**< enum libvhost_log_level */
	uint32_t default_timeout_ms; /**< used where a call passes 0; 1..3600000; 0 = 5000 */
	libvhost_log_fn log;	     /**< NULL = no log */
	void *log_arg;		     /**< passed to log */
};

/**
 * Makes a context. @p opts NULL = all defaults. The caller owns *ret and releases it with libvhost_ctx_free().
 * Objects keep their context alive: it may be freed before them.
 * @return 0; -EINVAL (options: too small, absurd, bad value); -E2BIG (fields this library does not know); -ENOMEM; with
 * SIGBUS_GUARD what sigaction(2) says where a filter of the host forbids it. Thread-safe. Since 0.1.
 */
LIBVHOST_API LIBVHOST_MUST_CHECK int libvhost_ctx_new(const struct libvhost_ctx_opts *opts, struct libvhost_ctx **ret);

/** Drops the caller's reference. NULL is allowed. Since 0.1. */
LIBVHOST_API void libvhost_ctx_free(struct libvhost_ctx *ctx);

/**
 * Copies the error of the last call that failed on this context (constructors report here).
 * @return 0; -EINVAL (NULL or err->size too small). Thread-safe. Since 0.1.
 */
LIBVHOST_API int libvhost_ctx_error(struct libvhost_ctx *ctx, struct libvhost_error *err);

#ifdef __cplusplus
}
#endif
#endif
