/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/**
 * @file share.h
 * Memory and files that a back-end shares with its front-end: doorbells, shared-memory windows, shared objects.
 *
 * What a host gave beforehand the library answers by itself, reply first and event afterwards, whatever else it waits
 * for at that moment; the rest goes to on_request.
 */
#ifndef LIBVHOST_SHARE_H
#define LIBVHOST_SHARE_H

#include <vhost/dev.h>

#ifdef __cplusplus
extern "C" {
#endif

/** A queue's doorbell: a page of the device that the guest may write instead of a kick descriptor. Since 0.1. */
struct libvhost_doorbell {
	uint32_t size;	  /**< sizeof(struct libvhost_doorbell) */
	int32_t fd;	  /**< the device's file, borrowed */
	uint64_t offset;  /**< of the page in it, bytes */
	uint64_t bytes;	  /**< one host page */
	uint64_t address; /**< where it is mapped in this process */
};

/**
 * The doorbell of a queue (LIBVHOST_DEV_HOST_NOTIFIERS). Valid until a HOST_NOTIFIER event takes it back, or stop,
 * reset, disconnect. The address stays the queue's until cleanup: what a guest still writes to it then reaches nobody,
 * and a new doorbell of the queue comes to the same place. Loaded into the guest it needs no care beyond that; kicks go
 * to the kick descriptor whenever there is no doorbell.
 * @return 0; -ENOENT (none); -EINVAL. Thread-safe. Since 0.1.
 */
LIBVHOST_API int libvhost_dev_doorbell(struct libvhost_dev *dev, uint32_t queue, struct libvhost_doorbell *doorbell);

/**
 * Gives shared-memory region @p shmid (0..255) a window in this process (LIBVHOST_DEV_USE_SHMEM): @p size bytes of
 * address space at @p address that the host reserved and nobody else maps over, 0 = the library reserves it. Back-end
 * requests map files into it and out of it, at most 1024 per device; what is not mapped faults. reset, disconnect and
 * cleanup empty it. A request for a region without a window goes to on_request. The library never touches the bytes,
 * but a file that its owner cuts off later faults for whoever does: in memory made with LIBVHOST_MEM_REQUIRE_SEALS only
 * files sealed against shrinking are mapped.
 * @param address  in: 0 or page-aligned; out: where it is
 * @return 0, also when it has this one already; -EINVAL (alignment, size 0, not negotiated); -EEXIST (has one of
 * another size or at another address); -EBUSY; -ENOMEM. Since 0.1.
 */
LIBVHOST_API int libvhost_dev_shmem_window(struct libvhost_dev *dev, uint32_t shmid, uint64_t *address, uint64_t size);

/**
 * Puts a file under a name that back-ends of devices with LIBVHOST_DEV_SHARED_OBJECTS can look up (virtio 1.3,
 * resources exported by UUID); duplicated. One table per context, at most 4096 entries, 1024 of them of one back-end.
 * What a back-end registered ends with its connection.
 * @return 0; -EEXIST (name is taken); -ENOSPC; -EBADF; -EMFILE; -ENOMEM; -EINVAL. Thread-safe. Since 0.1.
 */
LIBVHOST_API int libvhost_shared_object_add(struct libvhost_ctx *ctx, const uint8_t uuid[16], int fd);

/** Takes back what add put there. @return 0; -ENOENT; -EPERM (a back-end's). Thread-safe. Since 0.1. */
LIBVHOST_API int libvhost_shared_object_remove(struct libvhost_ctx *ctx, const uint8_t uuid[16]);

/**
 * Finds an object: the host's, or one that a back-end registered, which is then asked for it (GET_SHARED_OBJECT). A
 * back-end's own look-up does the same and waits 100 ms at most. A back-end that does not answer in time loses what it
 * registered.
 * @param fd  out: a descriptor that the caller owns
 * @return 0; -ENOENT; -EBUSY (its device runs an operation, or a thread is inside it: try again); -EMFILE; errors of
 * exec. Since 0.1.
 */
LIBVHOST_API int libvhost_shared_object_lookup(struct libvhost_ctx *ctx, const uint8_t uuid[16], int *fd);

#ifdef __cplusplus
}
#endif
#endif
