/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/**
 * @file error.h
 * What went wrong, in a form that a program can branch on and a person can act on.
 *
 * Each handle keeps the error of its last failed call. libvhost_*_error() copies it; the copy stays valid for ever.
 */
#ifndef LIBVHOST_ERROR_H
#define LIBVHOST_ERROR_H

#include <vhost/common.h>

#ifdef __cplusplus
extern "C" {
#endif

#define LIBVHOST_ERROR_TEXT 384

/** "No request" in libvhost_error.op, "no queue" in .queue, "no request index" in .first_unknown / .last_unknown. */
#define LIBVHOST_NONE 0xffffffffu

/**
 * Kinds of error. The numbers come from libvhost/core/error-kinds.def and are never reused or renumbered.
 */
enum libvhost_error_kind {
	LIBVHOST_EK_NONE = 0,
	LIBVHOST_EK_ARGUMENT = 1,	   /**< the caller passed something out of range */
	LIBVHOST_EK_OPTS_TOO_SMALL = 2,	   /**< struct size below the first version */
	LIBVHOST_EK_OPTS_ABSURD = 3,	   /**< struct size above any plausible version */
	LIBVHOST_EK_OPTS_UNKNOWN = 4,	   /**< caller used fields this library does not know */
	LIBVHOST_EK_STATE = 5,		   /**< the call is not allowed in the object's present state */
	LIBVHOST_EK_BUSY = 6,		   /**< an operation is running on this object */
	LIBVHOST_EK_NOMEM = 7,		   /**< memory exhausted */
	LIBVHOST_EK_FD_LIMIT = 8,	   /**< descriptor table or queued-descriptor limit reached */
	LIBVHOST_EK_SYSTEM = 9,		   /**< another system call failed; code is its errno */
	LIBVHOST_EK_CONNECT = 10,	   /**< the peer could not be reached */
	LIBVHOST_EK_DISCONNECTED = 11,	   /**< the peer closed the connection */
	LIBVHOST_EK_TIMEOUT = 12,	   /**< the deadline passed */
	LIBVHOST_EK_CANCELLED = 13,	   /**< another thread cancelled the operation */
	LIBVHOST_EK_PROTOCOL = 14,	   /**< the peer sent something the protocol forbids; connection is broken */
	LIBVHOST_EK_REFUSED = 15,	   /**< the peer answered with a refusal */
	LIBVHOST_EK_NOT_NEGOTIATED = 16,   /**< the request needs a feature that was not acknowledged */
	LIBVHOST_EK_UNSUPPORTED = 17,	   /**< this transport or peer cannot do that */
	LIBVHOST_EK_SHRUNK = 18,	   /**< the peer came back offering less than before */
	LIBVHOST_EK_MEMORY = 19,	   /**< a memory region is wrong: overlap, alignment, bounds, file too short */
	LIBVHOST_EK_NO_SLOT = 20,	   /**< more regions than a peer's table holds */
	LIBVHOST_EK_RING = 21,		   /**< a virtqueue holds something a driver or device must not write */
	LIBVHOST_EK_OUTPUT_TOO_SMALL = 22, /**< the answer does not fit the caller's buffer */
	LIBVHOST_EK_SANDBOX = 23,	   /**< the sandbox could not be built or is not what was required */
	LIBVHOST_EK_LOST = 24,	 /**< the device's state at the peer is unknown; reset, reconnect or clean up */
	LIBVHOST_EK_DAMAGED = 25 /**< bytes that are not, or no longer, what the library once wrote */
};

/** One error. Since 0.1. */
struct libvhost_error {
	uint32_t size;			/**< sizeof(struct libvhost_error), set by the caller before the copy */
	int32_t code;			/**< negative errno, the value the call returned; 0 = no error so far */
	uint32_t kind;			/**< enum libvhost_error_kind */
	uint32_t op;			/**< enum libvhost_op of the request concerned, or LIBVHOST_NONE */
	uint32_t queue;			/**< queue index, or LIBVHOST_NONE */
	int32_t sys_errno;		/**< positive errno of the system call that failed, or 0 */
	uint64_t peer_ack;		/**< what the peer answered when kind is REFUSED, raw */
	uint32_t request;		/**< index of the failed request in its program, or LIBVHOST_NONE */
	uint32_t first_unknown;		/**< first request that was sent but never confirmed, or LIBVHOST_NONE */
	uint32_t last_unknown;		/**< last such request (inclusive), or LIBVHOST_NONE */
	uint32_t reserved;		/**< 0 */
	char text[LIBVHOST_ERROR_TEXT]; /**< one line naming message, queue, peer, sizes and what to do; NUL-terminated
					 */
};

/**
 * The name of an error kind, for example "refused"; "unknown" for a number this library does not know.
 * Static storage, thread-safe. Since 0.1.
 */
LIBVHOST_API const char *libvhost_error_kind_name(uint32_t kind);

#ifdef __cplusplus
}
#endif
#endif
