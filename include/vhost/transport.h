/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/**
 * @file transport.h
 * An open connection or device node at message level: everything that rust-vmm's vhost traits can say.
 *
 * A managed device (<vhost/dev.h>) sits on one or several transports; use a transport alone to send single requests.
 * A transport runs one program at a time. libvhost_transport_cancel(), _error() and _query() may be called from any
 * thread at any time; the other calls return -EBUSY while a program runs.
 */
#ifndef LIBVHOST_TRANSPORT_H
#define LIBVHOST_TRANSPORT_H

#include <vhost/ctx.h>
#include <vhost/req.h>

#ifdef __cplusplus
extern "C" {
#endif

/** Which set of plans a peer needs. */
enum libvhost_dialect {
	LIBVHOST_DIALECT_USER = 0,   /**< vhost-user messages */
	LIBVHOST_DIALECT_KERNEL = 1, /**< vhost-net, vhost-vsock, vhost-scsi ioctls */
	LIBVHOST_DIALECT_VDPA = 2    /**< vhost-vDPA ioctls */
};

/** What ring addresses mean to the peer. */
enum libvhost_addr_kind {
	LIBVHOST_ADDR_COOKIE = 0, /**< the region's user address, any number unique per region */
	LIBVHOST_ADDR_HVA = 1,	  /**< host virtual address of this process */
	LIBVHOST_ADDR_IOVA = 2,	  /**< I/O virtual address */
	LIBVHOST_ADDR_GPA = 3	  /**< guest-physical address */
};

/** When a vhost-user peer is asked to confirm requests that have no reply of their own. */
enum libvhost_ack_policy {
	LIBVHOST_ACK_CRITICAL = 0, /**< the last request before each barrier and at the end (default) */
	LIBVHOST_ACK_ALL = 1,	   /**< every request: errors are attributed exactly, one answer per request */
	LIBVHOST_ACK_NONE = 2	   /**< only requests flagged NEED_REPLY; a fence still ends the program */
};

/** Capabilities of a transport, libvhost_transport_query(). */
#define LIBVHOST_TRANSPORT_NEEDS_FD	   0x01u /**< memory regions must carry a descriptor */
#define LIBVHOST_TRANSPORT_BASE_STOPS	   0x02u /**< GET_VRING_BASE stops the ring */
#define LIBVHOST_TRANSPORT_STATUS	   0x04u /**< has a device status machine */
#define LIBVHOST_TRANSPORT_BATCHING	   0x08u /**< IOTLB batches */
#define LIBVHOST_TRANSPORT_BACKEND_CHANNEL 0x10u /**< the peer can send requests of its own */
#define LIBVHOST_TRANSPORT_CAN_REOPEN	   0x20u /**< open may be called again after a disconnect */

/** Since 0.1. */
struct libvhost_transport_caps {
	uint32_t size;	      /**< sizeof(struct libvhost_transport_caps) */
	uint32_t dialect;     /**< enum libvhost_dialect */
	uint32_t addr_kind;   /**< enum libvhost_addr_kind */
	uint32_t flags;	      /**< LIBVHOST_TRANSPORT_* */
	uint32_t max_regions; /**< entries of the whole-table message: 8 for vhost-user, 64 for the kernel's default */
	uint32_t max_queues;  /**< rings one descriptor of this kind has, 0 = only negotiation tells */
	uint64_t ops[4];      /**< bit n = operation n is carried */
	char peer[112];	      /**< "user:/run/blk.sock", "kernel:/dev/vhost-net", for messages */
};

/** Since 0.1. */
struct libvhost_pollfd {
	int32_t fd;
	uint32_t events; /**< POLLIN, POLLOUT */
};

/**
 * What a host that answers back-end requests itself gets: one inbound request. It fills err (0 or negative errno),
 * result[0] where the operation's reply carries a value, and out_fd with LIBVHOST_REQ_OUT_FD where it carries a
 * descriptor (the library closes it after sending). req->fd is a received descriptor, valid during the call; dup it to
 * keep it. The fd counts under LIBVHOST_REQ_HAS_FD. Called on the host thread that is inside the library, no lock held;
 * calls that change the same object return -EBUSY inside. Returning non-zero refuses the request. Since 0.1.
 */
typedef int (*libvhost_request_fn)(void *arg, struct libvhost_req *req);

/** Options of libvhost_transport_open(). Since 0.1. */
struct libvhost_transport_opts {
	uint32_t size;			/**< sizeof(struct libvhost_transport_opts) */
	uint32_t flags;			/**< LIBVHOST_TRANSPORT_OPT_* */
	uint32_t timeout_ms;		/**< for connecting; 0 = context default */
	uint32_t ack_policy;		/**< enum libvhost_ack_policy */
	int32_t fd;			/**< with HAS_FD: an already connected socket or open device node, duplicated */
	uint32_t reserved;		/**< 0 */
	libvhost_request_fn on_request; /**< answers back-end requests of class "host"; NULL = they are refused */
	void *on_request_arg;		/**< passed to it */
};

#define LIBVHOST_TRANSPORT_OPT_HAS_FD 0x1u /**< adopt .fd instead of opening the URI's path */
#define LIBVHOST_TRANSPORT_OPT_WAIT   0x2u /**< a socket that does not exist yet is waited for until the deadline */

/**
 * Opens a transport.
 * @param uri  "user:PATH"        connect to the vhost-user socket at PATH
 *             "user-listen:PATH" create the socket, wait for the back-end to connect (client-mode back-ends)
 *             "user-fd:"         with HAS_FD, adopt a connected socket; cannot be reopened
 *             "kernel:PATH", "vdpa:PATH"  a device node (0.1: -ENOTSUP)
 * @return 0; -EINVAL (unknown scheme, empty or over-long path: kind ARGUMENT; options: OPTS_*); -E2BIG; -ENOENT (no
 * such path); -ECONNREFUSED (nobody listens); -ENOTSOCK (not a socket); -EACCES; -ETIMEDOUT; -EADDRINUSE; -EMFILE;
 * -ENOTSUP; -ENOMEM. The text is in libvhost_ctx_error(). Since 0.1.
 */
LIBVHOST_API LIBVHOST_MUST_CHECK int libvhost_transport_open(struct libvhost_ctx *ctx, const char *uri,
							     const struct libvhost_transport_opts *opts,
							     struct libvhost_transport **ret);

/**
 * Closes and frees. A running program ends as if cancelled, a call blocked in another thread returns -ECANCELED first.
 * No effect from a callback of the same transport. NULL is allowed. Since 0.1.
 */
LIBVHOST_API void libvhost_transport_free(struct libvhost_transport *t);

/** Capabilities. @return 0; -EINVAL. Since 0.1. */
LIBVHOST_API int libvhost_transport_query(struct libvhost_transport *t, struct libvhost_transport_caps *caps);

/**
 * Runs a program and waits for its end. Result fields of each request are written; inputs never are.
 * @param done  NULL, or number of requests in state DONE
 * @return 0 when all (but OPTIONAL ones) are DONE; the err of the first failed request; -ETIMEDOUT; -ECANCELED;
 * -ECONNRESET (peer gone); -EPROTO (peer broke the protocol); -ENOTCONN (broken before); -EBUSY; -EINVAL (malformed
 * request, nothing sent); -ENOTSUP (operation not carried or its feature not negotiated, nothing sent). Descriptors
 * under TAKE_FD are closed even when the program is refused. Since 0.1.
 */
LIBVHOST_API int libvhost_transport_exec(struct libvhost_transport *t, struct libvhost_req *reqs, uint32_t count,
					 uint32_t timeout_ms, uint32_t *done);

/**
 * Begins a program; @p reqs must stay valid until it ends. Sends what can be sent without waiting.
 * @return 0 begun; the errors of exec. Since 0.1.
 */
LIBVHOST_API int libvhost_transport_submit(struct libvhost_transport *t, struct libvhost_req *reqs, uint32_t count,
					   uint32_t timeout_ms);

/**
 * Advances without waiting; also serves back-end requests when no program runs.
 * @return 1 the program ended well (or none runs); 0 it goes on: wait for libvhost_transport_fd(); the errors of exec.
 * Since 0.1.
 */
LIBVHOST_API int libvhost_transport_progress(struct libvhost_transport *t);

/**
 * Ends the running program within 100 ms, from any thread: it returns -ECANCELED. Without one: no effect.
 * @return 0; -EINVAL. Since 0.1.
 */
LIBVHOST_API int libvhost_transport_cancel(struct libvhost_transport *t);

/** One epoll-able descriptor, readable when progress has something to do; made on the first call, owned by the
 * transport.
 *  @return descriptor; -EMFILE; -ENOMEM. Since 0.1. */
LIBVHOST_API int libvhost_transport_fd(struct libvhost_transport *t);

/** Changes the ack policy for programs begun later. @return 0; -EINVAL; -EBUSY. Since 0.1. */
LIBVHOST_API int libvhost_transport_set_ack_policy(struct libvhost_transport *t, uint32_t policy);

/** Copies the last error. @return 0; -EINVAL. Thread-safe. Since 0.1. */
LIBVHOST_API int libvhost_transport_error(struct libvhost_transport *t, struct libvhost_error *err);

/** One entry of the flight recorder. Since 0.1. */
struct libvhost_history {
	uint64_t time_ns; /**< monotonic clock */
	uint32_t op;	  /**< enum libvhost_op */
	uint32_t index;	  /**< queue or LIBVHOST_NONE */
	uint32_t state;	  /**< enum libvhost_req_state */
	int32_t err;	  /**< 0 or negative errno */
	uint64_t value;	  /**< first result or argument word */
};

/** Copies the newest @p *count (at most 64) requests, oldest first, and stores how many. Always on. Thread-safe.
 * @return 0; -EINVAL. Since 0.1. */
LIBVHOST_API int libvhost_transport_history(struct libvhost_transport *t, struct libvhost_history *entries,
					    uint32_t *count);

/**
 * A transport made outside the library. EXPERIMENTAL: may change in any release. Every function gets the @p self of
 * libvhost_transport_new(); none may block.
 */
struct libvhost_transport_ops {
	uint32_t size;	   /**< sizeof(struct libvhost_transport_ops) */
	uint32_t reserved; /**< 0 */
	/** Opens or re-opens; 0 or negative errno. Called before the first program and by reconnect. May be NULL. */
	int (*open)(void *self);
	/** Drops the connection; a later open may follow. May be NULL. */
	void (*close)(void *self);
	/** Releases self. May be NULL. */
	void (*destroy)(void *self);
	/** Fills caps (size is set). */
	int (*query)(void *self, struct libvhost_transport_caps *caps);
	/** Takes a program, which stays valid until progress reports its end or cancel returns. */
	int (*submit)(void *self, struct libvhost_req *reqs, uint32_t count);
	/** 1 ended (states and errs are set), 0 goes on, negative errno: the connection is gone (states are set). */
	int (*progress)(void *self);
	/** Abandons the program: nothing of it is touched afterwards. */
	void (*cancel)(void *self);
	/** Fills up to cap descriptors to wait for; returns their number. */
	uint32_t (*pollfds)(void *self, struct libvhost_pollfd *fds, uint32_t cap);
};

/** Wraps a transport made outside the library; takes ownership of self on success. EXPERIMENTAL. @return 0; -EINVAL;
 * -ENOMEM. Since 0.1. */
LIBVHOST_API LIBVHOST_MUST_CHECK int libvhost_transport_new(struct libvhost_ctx *ctx,
							    const struct libvhost_transport_ops *ops, void *self,
							    struct libvhost_transport **ret);

/**
 * For plug-ins: hands an inbound request of the peer to whoever listens (device, then on_request). The caller sends the
 * answer that the request holds afterwards. EXPERIMENTAL. @return 0 answered; -ENOTSUP nobody wants it. Since 0.1.
 */
LIBVHOST_API int libvhost_transport_inbound(struct libvhost_transport *t, struct libvhost_req *req);

#ifdef __cplusplus
}
#endif
#endif
