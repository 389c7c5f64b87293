/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/**
 * @file vq.h
 * One virtqueue in memory, driver or device role. Not thread-safe: one thread at a time owns a queue.
 *
 * Whatever the other side writes is treated as hostile: every index, address and length is read once and checked; a
 * ring that breaks the rules makes the queue "broken" (-EBADMSG from then on) and nothing is written outside guest
 * memory. Where LIBVHOST_CTX_SIGBUS_GUARD found that memory gone, each call says -EFAULT from then on.
 */
#ifndef LIBVHOST_VQ_H
#define LIBVHOST_VQ_H

#include <vhost/mem.h>

#ifdef __cplusplus
extern "C" {
#endif

enum libvhost_vq_role {
	LIBVHOST_VQ_DRIVER = 0, /**< offers buffers */
	LIBVHOST_VQ_DEVICE = 1	/**< serves them */
};

/** Sizes and alignments of the three areas of a ring. Since 0.1. */
struct libvhost_vq_layout {
	uint32_t size;	      /**< sizeof(struct libvhost_vq_layout) */
	uint32_t desc_align;  /**< bytes */
	uint32_t avail_align; /**< bytes */
	uint32_t used_align;  /**< bytes */
	uint64_t desc_bytes;  /**< descriptor table */
	uint64_t avail_bytes; /**< available ring or driver event area */
	uint64_t used_bytes;  /**< used ring or device event area */
};

/** Computes them. @p features: virtio bits in use (EVENT_IDX, RING_PACKED). @return 0; -EINVAL (num 0, above 32768,
 * split and not a power of two). Since 0.1. */
LIBVHOST_API int libvhost_vq_layout(uint32_t num, uint64_t features, struct libvhost_vq_layout *layout);

/** Options of libvhost_vq_new(). Since 0.1. */
struct libvhost_vq_opts {
	uint32_t size;	   /**< sizeof(struct libvhost_vq_opts) */
	uint32_t flags;	   /**< LIBVHOST_VQ_* */
	uint32_t role;	   /**< enum libvhost_vq_role */
	uint32_t num;	   /**< entries, 1..32768; split: power of two */
	uint32_t index;	   /**< queue index, for messages */
	uint32_t base;	   /**< where the ring continues, as SET_VRING_BASE (packed: 32 bits, only with HAS_BASE, else
			    * 0x80008000); driver: where the empty ring starts, normally 0; ignored with RESUME */
	uint64_t features; /**< virtio bits in use: INDIRECT_DESC 28, EVENT_IDX 29, VERSION_1 32, RING_PACKED 34,
			    * IN_ORDER 35 */
	uint64_t desc;	   /**< guest-physical addresses */
	uint64_t avail;
	uint64_t used;
	int32_t kick_fd;    /**< with HAS_KICK; borrowed until free */
	int32_t call_fd;    /**< with HAS_CALL; borrowed until free */
	uint64_t indirect;  /**< driver: guest-physical memory for indirect tables (num * max_chain * 16 bytes, in one
			     * region), 0 = none; with it every request of two or more buffers takes one descriptor */
	uint32_t max_chain; /**< driver: most buffers of one request; 0 = num */
	uint32_t reserved;  /**< 0 */
};

#define LIBVHOST_VQ_HAS_KICK 0x1u
#define LIBVHOST_VQ_HAS_CALL 0x2u
#define LIBVHOST_VQ_RESUME   0x4u /**< split driver: take over a ring that holds requests, do not initialise it */
#define LIBVHOST_VQ_HAS_BASE 0x8u /**< packed: .base is given; split: it always is */

/**
 * Attaches to a ring. Keeps @p mem alive and follows its changes: when an area of the ring is no longer mapped, the
 * queue is broken; requests already popped keep their memory mapped until they are pushed.
 *
 * A driver initialises the ring, empty. With LIBVHOST_VQ_RESUME it takes the ring as it is: the requests in the
 * available ring between used.idx and avail.idx count as in flight and come back from libvhost_vq_get_used() flagged
 * LIBVHOST_USED_RESUMED with their head descriptor as token; all other descriptors are free. That is exact when the
 * device completes in order or was idle; a device that completes out of order must be drained first. When only the
 * back-end restarts, the driver's queue object and ring stay as they are: there is nothing to resume.
 *
 * A device continues at base; used.idx is taken from the ring.
 * @return 0; -EINVAL; -E2BIG (options this library does not know); -EFAULT (an area is not mapped, not writable or
 * misaligned, or crosses a region border); -EBADMSG (RESUME: the ring is inconsistent); -ENOTSUP (RESUME of a packed
 * ring, whose driver state is not in memory); -ENOMEM. The error is in the context. Since 0.1.
 */
LIBVHOST_API LIBVHOST_MUST_CHECK int libvhost_vq_new(struct libvhost_ctx *ctx, struct libvhost_mem *mem,
						     const struct libvhost_vq_opts *opts, struct libvhost_vq **ret);

/** Frees the object, not the ring. Not while a worker has it. NULL is allowed. Since 0.1. */
LIBVHOST_API void libvhost_vq_free(struct libvhost_vq *vq);

/** One buffer of a request in guest-physical memory. Since 0.1. */
struct libvhost_buf {
	uint64_t gpa;	/**< guest-physical address */
	uint32_t len;	/**< bytes */
	uint32_t flags; /**< 0 */
};

/**
 * Driver: offers one request: first @p n_read buffers that the device reads, then @p n_write that it writes. Visible to
 * the device after libvhost_vq_kick().
 * @param token  comes back in libvhost_used; any value
 * @return 0; -ENOSPC (ring full); -EINVAL (no buffer, an empty one, flags, chain longer than max_chain or 4 GiB);
 * -EBADMSG (broken). Since 0.1.
 */
LIBVHOST_API int libvhost_vq_add(struct libvhost_vq *vq, const struct libvhost_buf *bufs, uint32_t n_read,
				 uint32_t n_write, uint64_t token);

/** Driver: publishes what was added and notifies the device if it wants to be. Without a kick descriptor 1 tells the
 * caller to notify it. @return 1 notified, 0 not needed; -EBADMSG; -EIO (published, but notification failed); -EINVAL.
 * Since 0.1. */
LIBVHOST_API int libvhost_vq_kick(struct libvhost_vq *vq);

/** One completed request. Since 0.1. */
struct libvhost_used {
	uint64_t token; /**< of libvhost_vq_add() */
	uint32_t len;	/**< bytes the device says it wrote, cut to the request's writable total */
	uint32_t flags; /**< LIBVHOST_USED_* */
};

/** Found in the ring by LIBVHOST_VQ_RESUME: the token is the head descriptor, len is as the device says (0 where an
 * IN_ORDER device skipped it). */
#define LIBVHOST_USED_RESUMED 0x1u

/**
 * Driver: takes up to *count completed requests, stores how many. When fewer come than fit and notifications are on,
 * the next completion notifies. Completions taken before the ring turned out broken are returned; the next call says
 * -EBADMSG.
 * @return 0; -EBADMSG (broken); -EINVAL. Since 0.1.
 */
LIBVHOST_API int libvhost_vq_get_used(struct libvhost_vq *vq, struct libvhost_used *used, uint32_t *count);

/**
 * Both roles: asks the other side for a notification (@p on 1, the state of a new queue) or for none (0; a few may come
 * all the same). With 1, returns 1 when work arrived meanwhile: look again before sleeping.
 * @return 0 or 1; -EBADMSG; -EINVAL. Since 0.1.
 */
LIBVHOST_API int libvhost_vq_notify_enable(struct libvhost_vq *vq, uint32_t on);

/** One piece of a request in host memory. Since 0.1. */
struct libvhost_iov {
	void *base;
	size_t len;
};

/** A request taken by the device role. Since 0.1. */
struct libvhost_chain {
	uint32_t size;		  /**< sizeof(struct libvhost_chain), set by the caller */
	uint32_t head;		  /**< identifies the request until it is pushed (packed: its buffer id) */
	uint32_t n_read;	  /**< pieces the device reads, first in iov */
	uint32_t n_write;	  /**< pieces the device writes, after them */
	uint64_t read_len;	  /**< bytes */
	uint64_t write_len;	  /**< bytes */
	struct libvhost_iov *iov; /**< caller's array */
	uint32_t iov_cap;	  /**< its capacity; 1..1024 */
	uint32_t reserved;
};

/**
 * Device: takes the next request. A buffer that crosses from one memory region into another becomes several pieces; an
 * empty buffer none. The pieces stay mapped until the request is pushed. When there is none and notifications are on,
 * the next request kicks.
 * @return 1 taken, 0 none, or the turn on a worker is over (libvhost_worker_opts.burst); -EBADMSG (the ring broke the
 * rules: queue is broken); -E2BIG (more than iov_cap pieces: queue is broken); -EINVAL. Since 0.1.
 */
LIBVHOST_API int libvhost_vq_pop(struct libvhost_vq *vq, struct libvhost_chain *chain);

/** Device: completes a request; @p written is cut to its writable total. Visible to the driver after
 * libvhost_vq_flush(). While the front-end migrates the guest, the dirty log gets the first @p written bytes of the
 * writable pieces; see libvhost_vq_wrote().
 *  @return 0; -EINVAL (head not in flight); -EBADMSG. Since 0.1. */
LIBVHOST_API int libvhost_vq_push(struct libvhost_vq *vq, uint32_t head, uint64_t written);

/** Device: tells the dirty log about @p len bytes from @p offset on in the writable pieces of a request, before its
 * push: for a device that wrote behind what push will say, as a block device does with the status of a failed read. Cut
 * to the writable total; no effect while nothing is logged. @return 0; -EINVAL (head not in flight); -EBADMSG. Since
 * 0.1. */
LIBVHOST_API int libvhost_vq_wrote(struct libvhost_vq *vq, uint32_t head, uint64_t offset, uint64_t len);

/** Device: publishes completions with one store and calls the driver if it wants to be. Without a call descriptor 1
 * tells the caller to notify it. A call that cannot be sent is counted and dropped: the queue goes on. @return 1
 * called, 0 not needed; -EBADMSG; -EINVAL. Since 0.1. */
LIBVHOST_API int libvhost_vq_flush(struct libvhost_vq *vq);

/** State of a queue. Since 0.1. */
struct libvhost_vq_info {
	uint32_t size;		/**< sizeof(struct libvhost_vq_info) */
	uint32_t broken;	/**< 1: unusable until reset */
	uint32_t base;		/**< where the ring would continue, as GET_VRING_BASE returns it (packed: 32 bits) */
	uint32_t in_flight;	/**< requests taken and not pushed (device), added and not returned (driver) */
	uint64_t requests;	/**< requests popped or added so far */
	uint64_t notifications; /**< kicks or calls that were due so far and sent if there is a descriptor */
	uint64_t notify_errors; /**< kicks or calls that could not be sent (bad descriptor) */
	uint64_t features;	/**< virtio bits in use, as libvhost_vq_opts.features */
};

/** @return 0; -EINVAL. Since 0.1. */
LIBVHOST_API int libvhost_vq_info(struct libvhost_vq *vq, struct libvhost_vq_info *info);

/** Copies the last error. @return 0; -EINVAL. Since 0.1. */
LIBVHOST_API int libvhost_vq_error(struct libvhost_vq *vq, struct libvhost_error *err);

#ifdef __cplusplus
}
#endif
#endif
