/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/**
 * @file dev.h
 * One managed device: negotiate, set up queues, start, stop, reset, configuration, notifiers, reconnect.
 *
 * Life cycle:  init -> NEGOTIATED -> ack_features, set_queue … -> start -> RUNNING -> stop -> NEGOTIATED -> cleanup.
 * Threading: any thread may call; while an operation runs, calls that change the device return -EBUSY, and cancel,
 * error, info work. Dispatch and blocking calls run the same state machines; the library starts no thread. A failed
 * call leaves the configuration the caller sees unchanged. When the peer's own state is unknown the device is LOST.
 */
#ifndef LIBVHOST_DEV_H
#define LIBVHOST_DEV_H

#include <vhost/event.h>
#include <vhost/mem.h>
#include <vhost/transport.h>

#ifdef __cplusplus
extern "C" {
#endif

enum libvhost_dev_state {
	LIBVHOST_DEV_CONNECTING = 0,   /**< init runs asynchronously */
	LIBVHOST_DEV_NEGOTIATED = 1,   /**< connected, rings stopped */
	LIBVHOST_DEV_RUNNING = 2,      /**< rings run */
	LIBVHOST_DEV_DISCONNECTED = 3, /**< the peer is gone; reconnect or clean up */
	LIBVHOST_DEV_LOST = 4,	      /**< connected but the peer's state is unknown: stop, reset, reconnect, cleanup */
	LIBVHOST_DEV_RECONNECTING = 5 /**< reconnect runs asynchronously */
};

/** Which operation ended (value[0] of LIBVHOST_EVENT_DONE). */
enum libvhost_dev_operation {
	LIBVHOST_OPERATION_INIT = 1,
	LIBVHOST_OPERATION_START = 2,
	LIBVHOST_OPERATION_STOP = 3,
	LIBVHOST_OPERATION_RESET = 4,
	LIBVHOST_OPERATION_RECONNECT = 5,
	LIBVHOST_OPERATION_SAVE_STATE = 6, /**< <vhost/state.h> */
	LIBVHOST_OPERATION_LOAD_STATE = 7
};

/** Host's part of a device. All may be NULL. Since 0.1. */
struct libvhost_dev_ops {
	uint32_t size;	   /**< sizeof(struct libvhost_dev_ops) */
	uint32_t reserved; /**< 0 */
	/** Answers back-end requests of class "host" (SHMEM, shared objects, IOTLB misses); see libvhost_request_fn. */
	libvhost_request_fn on_request;
	/**
	 * Routes guest notifications of a queue to fd (on 1, before start) or takes them back (on 0, after stop), as a
	 * VMM does with ioeventfd. Called by enable_notifiers / disable_notifiers, for all queues in one go. Non-zero:
	 * everything is taken back.
	 */
	int (*bind_notifier)(void *arg, uint32_t queue, int fd, uint32_t on);
	void *arg; /**< passed to all */
	/**
	 * Where a packed ring continues whose back-end died without an inflight region: only the driver knows. Called
	 * from reconnect, force_stop and a stop while the device reconnects, for each such queue that ran, again for
	 * each attempt; fills *base (32 bits, as GET_VRING_BASE: libvhost_vq_info() of the driver) and returns 0.
	 * NULL or non-zero: the device comes back stopped, with a NEEDS_RESET event. Split rings never ask.
	 */
	int (*ring_base)(void *arg, uint32_t queue, uint32_t *base);
};

/** Options of libvhost_dev_init(). Since 0.1. */
struct libvhost_dev_opts {
	uint32_t size;	      /**< sizeof(struct libvhost_dev_opts) */
	uint32_t flags;	      /**< LIBVHOST_DEV_* */
	uint32_t virtio_id;   /**< virtio device type (1 net, 2 block …); 0 = unknown */
	uint32_t num_queues;  /**< queues wanted, 1..256; fewer at the peer is -ENOSPC */
	uint32_t timeout_ms;  /**< for connecting and negotiating; 0 = context default */
	uint32_t config_size; /**< bytes of configuration space the device has, 0 = not used by reconnect checks */
	const char *uri;      /**< where the peer is, as libvhost_transport_open(); NULL with transport */
	struct libvhost_transport *transport; /**< ready transport; the device takes it over on success */
	struct libvhost_mem *mem;	      /**< guest memory; required, kept alive */
	const struct libvhost_dev_ops *ops;   /**< copied; NULL = none */
	uint64_t protocol_features;	      /**< vhost-user protocol features never to acknowledge, mask */
	uint32_t ack_policy;		      /**< enum libvhost_ack_policy */
	/** Queues of the first transport, from 0 on; the others come with libvhost_dev_add_part(). 0 = all of
	 * num_queues, or as many as the transport says it has. */
	uint32_t part_queues;
};

#define LIBVHOST_DEV_ASYNC	       0x1u  /**< init returns -EINPROGRESS with *ret set; dispatch finishes it */
#define LIBVHOST_DEV_AUTO_RECONNECT    0x2u  /**< reconnect from dispatch when the peer goes away */
#define LIBVHOST_DEV_USE_GPA_ADDRESSES 0x4u  /**< acknowledge protocol bit 21 (some peers use it for something else) */
#define LIBVHOST_DEV_USE_SHMEM	       0x8u  /**< acknowledge protocol bit 22: see <vhost/share.h> */
#define LIBVHOST_DEV_WAIT	       0x20u /**< wait for a socket that does not exist yet */
#define LIBVHOST_DEV_INFLIGHT	       0x40u /**< keep an inflight region if the peer can: see <vhost/inflight.h> */
/** A stop leaves requests in the inflight region instead of draining them, if the peer can (protocol bit 20); needs
 * INFLIGHT. */
#define LIBVHOST_DEV_STOP_INFLIGHT  0x80u
#define LIBVHOST_DEV_HOST_NOTIFIERS 0x100u /**< accept mapped doorbells: see <vhost/share.h> */
#define LIBVHOST_DEV_SHARED_OBJECTS 0x200u /**< take part in the context's table of shared objects: <vhost/share.h> */

/**
 * Connects and negotiates what does not depend on the guest: features, protocol features, queue count, memory slots,
 * back-end channel, owner. The rings and the guest's features follow at start.
 * @return 0; -EINPROGRESS (ASYNC); the errors of libvhost_transport_open() and _exec(); -ENOSPC (fewer queues than
 * wanted); -EINVAL; -E2BIG; -ENOMEM. The text is in libvhost_ctx_error(). Since 0.1.
 */
LIBVHOST_API LIBVHOST_MUST_CHECK int libvhost_dev_init(struct libvhost_ctx *ctx, const struct libvhost_dev_opts *opts,
						       struct libvhost_dev **ret);

/**
 * Adds a further transport that carries queues @p first … @p first + @p count - 1 (a vhost-net descriptor has two
 * rings, a back-end may have a socket for each pair). Each part is a whole device to its peer: it gets features,
 * memory, log, status and reset in its own way, with the protocol features it has; its rings are its own.
 * Configuration, shared objects and the like are asked of the first one. The guest is offered what all parts have, the
 * memory map has to suit each of them, and memory is logged if all can. Before start. Takes the transport over on
 * success.
 * @return 0; -EBUSY; -EINVAL (range overlaps another part); -ENOTSUP (a device with LIBVHOST_DEV_INFLIGHT: a region
 * belongs to one back-end; another dialect than the first part's); errors of negotiation. Since 0.1.
 */
LIBVHOST_API int libvhost_dev_add_part(struct libvhost_dev *dev, struct libvhost_transport *t, uint32_t first,
				       uint32_t count, uint32_t timeout_ms);

/**
 * Stops without waiting for the peer, disconnects and frees. NULL is allowed. From a callback: misuse, ignored. No
 * other thread may be inside a call on the device, or enter one: cancel and join first. Since 0.1.
 */
LIBVHOST_API void libvhost_dev_cleanup(struct libvhost_dev *dev);

/** What is known about a device. Since 0.1. */
struct libvhost_dev_info {
	uint32_t size;					 /**< sizeof(struct libvhost_dev_info) */
	uint32_t state;					 /**< enum libvhost_dev_state */
	uint32_t busy;					 /**< 1: an operation runs */
	uint32_t max_queues;				 /**< the peer's limit */
	uint32_t max_regions;				 /**< memory slots of the peer; of several: the fewest */
	uint32_t dialect;				 /**< enum libvhost_dialect */
	uint64_t features[LIBVHOST_FEATURE_WORDS];	 /**< offered by the peer */
	uint64_t acked_features[LIBVHOST_FEATURE_WORDS]; /**< accepted by the guest */
	uint64_t protocol_features;			 /**< offered */
	uint64_t acked_protocol_features;		 /**< in use, by all parts */
	uint64_t backend_features;			 /**< kernel back-end features in use */
	uint64_t generation;				 /**< counts successful connections: 1 after init */
	uint32_t parts;					 /**< transports */
	uint32_t status;				 /**< virtio device status as last written */
	uint32_t guarantee;				 /**< enum libvhost_guarantee of a reconnect now */
	uint32_t logging;				 /**< 1: the peer writes the dirty log */
};

/** @return 0; -EINVAL. Thread-safe, works at any time. Since 0.1. */
LIBVHOST_API int libvhost_dev_info(struct libvhost_dev *dev, struct libvhost_dev_info *info);

/**
 * Restricts a feature set to what the peer offers: for each bit in @p bits (ends with LIBVHOST_INVALID_FEATURE_BIT)
 * that the peer lacks, the bit is cleared in *features; bits outside the list pass through. @return the result; 0 if
 * dev is NULL. Since 0.1.
 */
LIBVHOST_API uint64_t libvhost_get_features(struct libvhost_dev *dev, const uint8_t *bits, uint64_t features);

/**
 * Records which bits of @p bits (same list form) the guest accepted in @p features. Bits outside the list are
 * untouched. Sent at start, which refuses RING_PACKED without VERSION_1.
 * @return 0; -EBUSY (running or operation in progress); -EINVAL (accepts what the peer does not offer). Since 0.1.
 */
LIBVHOST_API int libvhost_ack_features(struct libvhost_dev *dev, const uint8_t *bits, uint64_t features);

/** The same for up to 256 bits, whole words, no list: *features is restricted to the offer without bits 26, 27 and 30,
 * which are not the guest's. @return 0; -EINVAL. Since
 * 0.1. */
LIBVHOST_API int libvhost_get_features_ex(struct libvhost_dev *dev, uint64_t *features, uint32_t words);

/** Replaces everything the guest accepted. Bits 26, 27 and 30 are the library's and are ignored here. ACCESS_PLATFORM
 * (33) is masked without an IOMMU. @return 0; -EBUSY; -EINVAL (not offered; RING_PACKED without VERSION_1). Since 0.1.
 */
LIBVHOST_API int libvhost_ack_features_ex(struct libvhost_dev *dev, const uint64_t *features, uint32_t words);

/** One queue, as set and as read. Since 0.1. */
struct libvhost_queue {
	uint32_t size;	/**< sizeof(struct libvhost_queue) */
	uint32_t flags; /**< LIBVHOST_QUEUE_* */
	uint32_t num;	/**< entries, 1..32768, power of two for split rings */
	/** Where it continues. Split: available index 0..65535. Packed, counted only with HAS_BASE: bits 0..14
	 * available index, 15 its wrap counter, 16..30 used index, 31 its wrap counter; without: a fresh ring
	 * (0x80008000). */
	uint32_t base;
	uint64_t desc; /**< guest-physical addresses */
	uint64_t avail;
	uint64_t used;
	int32_t kick_fd;  /**< with HAS_KICK: -1 = polling, else duplicated; without: the library makes an eventfd */
	int32_t call_fd;  /**< with HAS_CALL: likewise */
	int32_t err_fd;	  /**< with HAS_ERR; otherwise the library makes one and reports LIBVHOST_EVENT_QUEUE_ERROR */
	uint32_t enabled; /**< read: 1 the ring is enabled */
	uint32_t running; /**< read: 1 the ring runs */
	uint32_t masked;  /**< read: 1 masked */
};

#define LIBVHOST_QUEUE_HAS_KICK 0x1u
#define LIBVHOST_QUEUE_HAS_CALL 0x2u
#define LIBVHOST_QUEUE_HAS_ERR	0x4u
#define LIBVHOST_QUEUE_DISABLED 0x8u  /**< set up but leave disabled at start */
#define LIBVHOST_QUEUE_HAS_BASE 0x10u /**< packed: .base is given; always set when read */
/** Kick, call and error travel as messages (protocol bit 14 must be in use): libvhost_virtqueue_kick() kicks, a call
 * signals the call descriptor here, an error is an event. No kick or error descriptor can be given. */
#define LIBVHOST_QUEUE_IN_BAND 0x20u

/**
 * Sets up queue @p index. Any order, any time before start, holes allowed; start checks the whole.
 * @return 0; -EINVAL (index, num, flags); -EBUSY (running); -EFAULT (an area is not in guest memory); -EMFILE; -ENOMEM.
 * Since 0.1.
 */
LIBVHOST_API int libvhost_dev_set_queue(struct libvhost_dev *dev, uint32_t index, const struct libvhost_queue *queue);

/** Reads a queue back; descriptors are borrowed. base is current when stopped. @return 0; -ENOENT (not set up);
 * -EINVAL. Since 0.1. */
LIBVHOST_API int libvhost_dev_get_queue(struct libvhost_dev *dev, uint32_t index, struct libvhost_queue *queue);

/** Forgets a queue that rests: its set-up, and what a stop left of it in the inflight region, whose requests the ring
 * of the next set-up does not have. To change a queue and keep what is in flight, set it up again without clearing it.
 * @return 0; -ENOENT; -EBUSY (running). Since 0.1. */
LIBVHOST_API int libvhost_dev_clear_queue(struct libvhost_dev *dev, uint32_t index);

/** Replaces a queue's kick descriptor, also while running. -1 = polling. @return 0; -ENOENT; -EBADF; -EINVAL (IN_BAND);
 * errors of exec. Since 0.1. */
LIBVHOST_API int libvhost_dev_set_kick(struct libvhost_dev *dev, uint32_t index, int fd);

/** Replaces a queue's call descriptor, also while running. -1 = none. @return as set_kick. Since 0.1. */
LIBVHOST_API int libvhost_dev_set_call(struct libvhost_dev *dev, uint32_t index, int fd);

/**
 * Tells the device that buffers are available: signals the queue's kick descriptor, or sends the message of an IN_BAND
 * queue and waits until it is confirmed. A queue that the device polls needs none: no effect.
 * @return 0; -ENOENT; of IN_BAND queues also -EINVAL (does not run); -EBUSY; errors of exec. Since 0.1.
 */
LIBVHOST_API int libvhost_virtqueue_kick(struct libvhost_dev *dev, uint32_t index);

/** Routes guest notifications to the queues' kick descriptors (bind_notifier for each, all or none). @return 0; what
 * the callback returned; -EBUSY. Since 0.1. */
LIBVHOST_API int libvhost_dev_enable_notifiers(struct libvhost_dev *dev);

/** Takes them back. @return 0; -EBUSY (running). Since 0.1. */
LIBVHOST_API int libvhost_dev_disable_notifiers(struct libvhost_dev *dev);

/**
 * Sends features, memory and queues, then lets the rings run. Two waits: features, memory and rings are confirmed
 * before anything that lets the peer touch guest memory is sent.
 * @return 0; -EINPROGRESS (ASYNC); -EINVAL (no queue, a queue outside the map, RING_PACKED accepted without VERSION_1);
 * -EBUSY; -EALREADY (running); errors of exec; -EIO (refused). Since 0.1.
 */
LIBVHOST_API int libvhost_dev_start(struct libvhost_dev *dev, const struct libvhost_call_opts *opts);

/**
 * Stops the rings and reads where they stopped; a later start continues. Some peers say "stopped" before they have
 * completed what they took. A split ring shows it, and stop waits until the used index has come to where the peer says
 * that the ring stopped: after 0 nothing writes guest memory any more (packed rings do not show it, there the peer's
 * word counts). At the deadline it returns -EAGAIN: the rings rest, the device is NEGOTIATED, the error names a queue
 * and how many requests are open. They may be completed later; or never, if the peer lost them. Call stop again to wait
 * on; start goes on behind them; force_stop or reconnect give them up at this peer and continue at the used index. A
 * queue that reported an error is not waited for. On a LOST device stop is tried once more; if that fails too, or the
 * peer's memory table is a mixture, the connection is closed (DISCONNECTED). While the device reconnects by itself
 * (AUTO_RECONNECT) stop takes effect at once, without the peer, and it comes back stopped. Needs no memory: what it
 * takes is there since init.
 * @return 0; -EINPROGRESS; -EALREADY (not running); -EAGAIN (stopped, requests are open); -ECANCELED while it waits for
 * them: likewise; errors of exec. Since 0.1.
 */
LIBVHOST_API int libvhost_dev_stop(struct libvhost_dev *dev, const struct libvhost_call_opts *opts);

/** Stops without a message: bases are rebuilt from the used rings, the connection is closed. Never waits. @return 0;
 * -EALREADY. Since 0.1. */
LIBVHOST_API int libvhost_dev_force_stop(struct libvhost_dev *dev);

/** The guest wrote status 0: stops and resets the device; bases go to 0, accepted features and queues are forgotten.
 * @return 0; -EINPROGRESS; -EAGAIN (stopped, requests are open as after stop, nothing is forgotten yet: repeat it);
 * errors of exec. Since 0.1. */
LIBVHOST_API int libvhost_dev_reset(struct libvhost_dev *dev, const struct libvhost_call_opts *opts);

/**
 * Starts one queue of a running device that was set up after start or stopped by stop_queue. Blocks; a back-end that
 * enables rings one by one needs nothing else.
 * @return 0; -ENOENT (not set up); -EALREADY (runs); -EINVAL (device not running, areas unmapped); -EBUSY; errors of
 * exec. Since 0.1.
 */
LIBVHOST_API int libvhost_dev_start_queue(struct libvhost_dev *dev, uint32_t index, uint32_t timeout_ms);

/** Stops one queue and reads where it stopped; the others run on. @return 0; -ENOENT; -EALREADY (does not run); -EBUSY;
 * -EAGAIN (stopped, requests are open as after stop: repeat it to wait on); errors of exec. Since 0.1. */
LIBVHOST_API int libvhost_dev_stop_queue(struct libvhost_dev *dev, uint32_t index, uint32_t timeout_ms);

/** The guest reset one queue (virtio 1.2, 2.6.1): stops it if it runs and forgets it as clear_queue does.
 * @return 0; -ENOENT; -EBUSY; -EAGAIN (stopped, not forgotten yet: repeat it); errors of exec. Since 0.1. */
LIBVHOST_API int libvhost_dev_reset_queue(struct libvhost_dev *dev, uint32_t index, uint32_t timeout_ms);

/** Ends the running operation within 100 ms, from any thread; it returns -ECANCELED. @return 0; -EINVAL. Since 0.1. */
LIBVHOST_API int libvhost_dev_cancel(struct libvhost_dev *dev);

/**
 * Connects again and replays everything the device had (features, memory, queues; running if it ran). Works in any
 * state. A peer that is not there yet, or hangs up meanwhile, is tried again until the deadline. Rings continue at the
 * used index; queues with work are kicked, and each call descriptor is signalled once, because the old peer may have
 * owed an interrupt. An automatic reconnect (AUTO_RECONNECT, from dispatch, 100 ms to 5 s between attempts) goes on
 * until it succeeds, the peer offers less (one more DISCONNECTED event, -ENOTSUP) or libvhost_dev_cancel() ends it.
 * @return 0; -EINPROGRESS; errors of open and exec; -ENOTSUP (the peer now offers less: kind SHRUNK names the bit,
 * queue count or config). Since 0.1.
 */
LIBVHOST_API int libvhost_dev_reconnect(struct libvhost_dev *dev, const struct libvhost_call_opts *opts);

enum libvhost_reconnect_mode {
	LIBVHOST_RECONNECT_FOREVER = 0, /**< until it succeeds, is cancelled, or the peer offers less */
	LIBVHOST_RECONNECT_LIMITED = 1, /**< at most .attempts, then one more DISCONNECTED event with -ETIMEDOUT */
	LIBVHOST_RECONNECT_NONE = 2	/**< only libvhost_dev_reconnect() */
};

/** How an automatic reconnect goes about it. All-zero: what AUTO_RECONNECT does by default. Since 0.1. */
struct libvhost_reconnect_policy {
	uint32_t size;		 /**< sizeof(struct libvhost_reconnect_policy) */
	uint32_t mode;		 /**< enum libvhost_reconnect_mode */
	uint32_t attempts;	 /**< LIMITED: 1..1000000 */
	uint32_t first_ms;	 /**< pause after the first failed attempt, 1..60000; 0 = 100. It doubles up to */
	uint32_t max_ms;	 /**< this, 1..600000; 0 = 5000 */
	uint32_t jitter_percent; /**< each pause is cut by a random part of up to this, 0..100, so that many devices of
				  * one peer do not come back in step; also spreads the first attempt over first_ms */
};

/**
 * Says how the device reconnects by itself from dispatch, also while it does: a change takes effect at once, NONE ends
 * it (state DISCONNECTED). A device that is DISCONNECTED already stays so. LIBVHOST_DEV_AUTO_RECONNECT is this with all
 * zero (or NULL); without it the policy begins as NONE. A socket file that appears is noticed at once (inotify) and
 * shortens the pause to the jitter's part of first_ms; an attempt that a notice caused and that nobody answered is not
 * one of .attempts.
 * @return 0; -EINVAL; -E2BIG; -ENOTSUP (a transport that cannot be opened again). Since 0.1.
 */
LIBVHOST_API int libvhost_dev_set_reconnect(struct libvhost_dev *dev, const struct libvhost_reconnect_policy *policy);

/** Reads configuration space. @return 0; -EINVAL (range); -ENOTSUP; -EIO (the peer refused); errors of exec. Since 0.1.
 */
LIBVHOST_API int libvhost_dev_get_config(struct libvhost_dev *dev, uint32_t offset, void *buf, uint32_t len,
					 uint32_t timeout_ms);

/** Writes it. @p type 0 = guest write, 1 = live migration. @return as get_config. Since 0.1. */
LIBVHOST_API int libvhost_dev_set_config(struct libvhost_dev *dev, uint32_t offset, const void *buf, uint32_t len,
					 uint32_t type, uint32_t timeout_ms);

/**
 * Masks (@p mask 1) or unmasks a queue's interrupt: while masked, calls of the device go to a private eventfd. Works
 * also while the peer is away: the replay takes it along. @return 0; -ENOENT; -EBUSY (an operation talks to the peer:
 * repeat it when that has ended); errors of exec. Since 0.1.
 */
LIBVHOST_API int libvhost_virtqueue_mask(struct libvhost_dev *dev, uint32_t index, uint32_t mask);

/** Tests and clears whether a call arrived while the queue was masked; call it after unmask so that none is lost.
 * @return 1, 0; -ENOENT. Since 0.1. */
LIBVHOST_API int libvhost_virtqueue_pending(struct libvhost_dev *dev, uint32_t index);

/**
 * A descriptor that is signalled whenever configuration space changed (the guest's configuration interrupt), besides
 * the event; duplicated. -1 = none.
 * @return 0; -EBADF; -EMFILE. Since 0.1.
 */
LIBVHOST_API int libvhost_dev_set_config_call(struct libvhost_dev *dev, int fd);

/** Masks (1) or unmasks (0) that descriptor: while masked, changes are only remembered. @return 0; -EINVAL. Since 0.1.
 */
LIBVHOST_API int libvhost_config_mask(struct libvhost_dev *dev, uint32_t mask);

/** Tests and clears whether configuration changed while masked; call it after unmask so that none is lost. @return 1,
 * 0; -EINVAL. Since 0.1. */
LIBVHOST_API int libvhost_config_pending(struct libvhost_dev *dev);

/**
 * Why the guest cannot be migrated while it has this device, as a sentence in @p buf ("" if nothing stands in the way):
 * a peer without dirty log, a mapped shared-memory window, a device that is LOST. libvhost_mem_log_start() refuses for
 * the same reasons.
 * @return 1 blocked, 0 not; -EINVAL. Thread-safe. Since 0.1.
 */
LIBVHOST_API int libvhost_dev_migration_blocker(struct libvhost_dev *dev, char *buf, size_t cap);

/** One epoll-able descriptor, readable when dispatch has something to do; made on the first call, owned by the device.
 * @return descriptor; -EMFILE; -ENOMEM. Since 0.1. */
LIBVHOST_API int libvhost_dev_fd(struct libvhost_dev *dev);

/**
 * Advances operations, serves back-end requests, notices a dead peer. Waits up to @p timeout_ms for something to happen
 * (0 = does not wait), also for a call of another thread to end.
 * @return 0; -EBUSY (another thread is inside all the time, or this is a callback). Since 0.1.
 */
LIBVHOST_API int libvhost_dev_dispatch(struct libvhost_dev *dev, uint32_t timeout_ms);

/** Takes one event. @return 1 taken, 0 none; -EINVAL. Thread-safe. Since 0.1. */
LIBVHOST_API int libvhost_dev_next_event(struct libvhost_dev *dev, struct libvhost_event *event);

/** The transport of a part, borrowed, for single requests and its history; NULL if there is none. Since 0.1. */
LIBVHOST_API struct libvhost_transport *libvhost_dev_transport(struct libvhost_dev *dev, uint32_t part);

/** Copies the last error. @return 0; -EINVAL. Thread-safe, works at any time. Since 0.1. */
LIBVHOST_API int libvhost_dev_error(struct libvhost_dev *dev, struct libvhost_error *err);

#ifdef __cplusplus
}
#endif
#endif
