/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/**
 * @file ctx.h
 * The context: log sink and defaults. Objects of different contexts share nothing; the library has no globals.
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

/** Options of libvhost_ctx_new(). Since 0.1. */
struct libvhost_ctx_opts {
	uint32_t size;		     /**< sizeof(struct libvhost_ctx_opts) */
	uint32_t flags;		     /**< 0 */
	uint32_t log_level;	     /**< enum libvhost_log_level */
	uint32_t default_timeout_ms; /**< used where a call passes 0; 1..3600000; 0 = 5000 */
	libvhost_log_fn log;	     /**< NULL = no log */
	void *log_arg;		     /**< passed to log */
};

/**
 * Makes a context. @p opts NULL = all defaults. The caller owns *ret and releases it with libvhost_ctx_free().
 * Objects keep their context alive: it may be freed before them.
 * @return 0; -EINVAL (options: too small, absurd, bad value); -E2BIG (fields this library does not know); -ENOMEM.
 * Thread-safe. Since 0.1.
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
