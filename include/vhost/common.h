/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/**
 * @file common.h
 * What every other header needs: the export macro, the limits of the ABI and the library version.
 *
 * Conventions of the whole library:
 *  - A function returns 0 or a negative errno value from the list in its comment. Outputs are untouched on failure.
 *  - Every public struct is zero-filled by the caller; all-zero means "nothing given". A file descriptor counts only
 *    under its HAS_FD flag, so a zero-filled struct never passes descriptor 0.
 *  - File descriptors given to the library are borrowed for the call and duplicated if they are kept, unless a
 *    comment says "takes ownership". Descriptors handed out are close-on-exec.
 *  - Timeouts are relative, in milliseconds; 0 means the context's default. Nothing waits for ever.
 *  - The library creates no thread that was not asked for, installs no signal handler, reads no environment variable
 *    and prints nothing.
 */
#ifndef LIBVHOST_COMMON_H
#define LIBVHOST_COMMON_H

#include <stddef.h>
#include <stdint.h>

#include <vhost/version.h>

#if defined(__GNUC__)
#define LIBVHOST_API	    __attribute__((visibility("default")))
#define LIBVHOST_MUST_CHECK __attribute__((warn_unused_result))
#else
#define LIBVHOST_API
#define LIBVHOST_MUST_CHECK
#endif

#ifdef __cplusplus
extern "C" {
#endif

/** One message-level context: log sink, limits, clock. */
struct libvhost_ctx;
/** An open connection or device node at message level. */
struct libvhost_transport;
/** One guest's memory, shared by all its devices. */
struct libvhost_mem;
/** One managed device. */
struct libvhost_dev;
/** One virtqueue, driver or device role. */
struct libvhost_vq;
/** One sandboxed thread. */
struct libvhost_worker;
/** The device side of a connection. */
struct libvhost_backend;

/** End of a feature-bit list (what QEMU calls VHOST_INVALID_FEATURE_BIT). */
#define LIBVHOST_INVALID_FEATURE_BIT 0xff

/** Number of 64-bit words in a feature set: 256 feature bits. Transports that carry 64 refuse the upper words. */
#define LIBVHOST_FEATURE_WORDS 4

/** Upper bound on queue indexes of one device (the vhost-user wire format has 8 bits for ring descriptors). */
#define LIBVHOST_MAX_QUEUES 256

/** Upper bound on the memory regions of one guest. */
#define LIBVHOST_MAX_REGIONS 512

/** Upper bound on the configuration space of a device, bytes. */
#define LIBVHOST_MAX_CONFIG 4096

/**
 * How one blocking-or-asynchronous call shall run. NULL means all defaults: blocking, default timeout.
 * Since 0.1.
 */
struct libvhost_call_opts {
	uint32_t size;	     /**< sizeof(struct libvhost_call_opts) */
	uint32_t flags;	     /**< LIBVHOST_CALL_*; unknown bits: -EINVAL */
	uint32_t timeout_ms; /**< whole-operation deadline, 1..3600000; 0 = context default */
	uint32_t reserved;   /**< must be 0 */
};

/** Return -EINPROGRESS at once; the operation advances in dispatch and ends with LIBVHOST_EVENT_DONE. */
#define LIBVHOST_CALL_ASYNC 0x1u

/**
 * The version of the library that is loaded, as LIBVHOST_VERSION_NUMBER encodes it: major << 16 | minor << 8 | micro.
 * Thread-safe, never fails. Since 0.1.
 */
LIBVHOST_API uint32_t libvhost_version(void);

/** The same as text, "0.1.0"; static storage. Thread-safe, never fails. Since 0.1. */
LIBVHOST_API const char *libvhost_version_string(void);

/**
 * Whether the loaded library has a named capability, for callers that dlopen it.
 * Names of 0.1: "vhost-user", "kernel", "vdpa", "split", "packed", "inproc", "backend", "sandbox".
 * @return 1 present, 0 absent or unknown name. Thread-safe. Since 0.1.
 */
LIBVHOST_API int libvhost_has(const char *capability);

#ifdef __cplusplus
}
#endif
#endif
