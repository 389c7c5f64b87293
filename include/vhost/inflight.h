/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/**
 * @file inflight.h
 * The inflight region: shared memory in which a vhost-user back-end notes the requests it works on, so that the next
 * one executes exactly those again.
 *
 * A device made with LIBVHOST_DEV_INFLIGHT needs none of these calls: its first start gets a region from the peer,
 * later starts and reconnects hand it over again, clear_queue and reset_queue empty a queue's part, reset and cleanup
 * let it go. They are for a host that shares, saves or migrates the region. A request that was in flight when the
 * back-end died may be *executed* twice; it *completes* in the ring once.
 */
#ifndef LIBVHOST_INFLIGHT_H
#define LIBVHOST_INFLIGHT_H

#include <vhost/dev.h>

#ifdef __cplusplus
extern "C" {
#endif

/** A region. Since 0.1. */
struct libvhost_inflight {
	uint32_t size;	    /**< sizeof(struct libvhost_inflight) */
	int32_t fd;	    /**< shared file: a memfd, or of tmpfs or hugetlbfs; no read of another can be relied on */
	uint64_t mmap_size; /**< bytes */
	uint64_t mmap_offset; /**< offset in the file, bytes */
	uint32_t num_queues;  /**< 1..256 */
	uint32_t queue_size;  /**< entries of the largest ring, 1..32768 */
	uint64_t address;     /**< where it is mapped in this process (read only for the caller's use); out only */
};

/**
 * Gets a region now instead of at the first start: sends features and ring sizes, then asks the peer. Needed before
 * load_inflight and save_inflight of a device that never ran. With a region: no effect.
 * @return 0; -EINVAL (no queue is set up, RING_PACKED accepted without VERSION_1); -ENOTSUP (INFLIGHT not negotiated);
 * -EBUSY (running); -EPROTO (the peer's region is too small, or its file is or is of another kind); errors of exec.
 * Since 0.1.
 */
LIBVHOST_API int libvhost_dev_prepare_inflight(struct libvhost_dev *dev, uint32_t timeout_ms);

/** Describes the region in use; the descriptor is borrowed. @return 0; -ENOENT (none); -EINVAL. Since 0.1. */
LIBVHOST_API int libvhost_dev_get_inflight(struct libvhost_dev *dev, struct libvhost_inflight *inflight);

/** Uses the given region (of another process, or of the device that this one replaces) from the next start on; the
 * descriptor is duplicated. @return 0; -EINVAL (too small for the queues, file shorter than it says or of another
 * kind); -ENOTSUP; -EBUSY (running); -EBADF; -EMFILE; -ENOMEM. Since 0.1. */
LIBVHOST_API int libvhost_dev_set_inflight(struct libvhost_dev *dev, const struct libvhost_inflight *inflight);

/**
 * Copies the region with its description, for a snapshot or a migration stream. @p buf NULL: stores the bytes needed.
 * @param len  in: room; out: bytes
 * @return 0; -ENOENT (no region); -ENOSPC (room too small, *len is set); -EBUSY (running: the copy would be torn);
 * -EINVAL. Since 0.1.
 */
LIBVHOST_API int libvhost_dev_save_inflight(struct libvhost_dev *dev, void *buf, size_t *len);

/** Makes a region of what save_inflight wrote, in place of the present one. @return 0; -EBADMSG (damaged, or for other
 * queues: the text says what); -ENOTSUP; -EBUSY (running); -EMFILE; -ENOMEM; -EINVAL. Since 0.1. */
LIBVHOST_API int libvhost_dev_load_inflight(struct libvhost_dev *dev, const void *buf, size_t len);

/** Forgets what is in flight: the region stays and is empty. @return 0; -ENOENT; -EBUSY (running). Since 0.1. */
LIBVHOST_API int libvhost_dev_reset_inflight(struct libvhost_dev *dev);

/** Lets the region go; the next start gets another. @return 0; -ENOENT; -EBUSY (running). Since 0.1. */
LIBVHOST_API int libvhost_dev_free_inflight(struct libvhost_dev *dev);

#ifdef __cplusplus
}
#endif
#endif
