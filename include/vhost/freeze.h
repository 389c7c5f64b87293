/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/**
 * @file freeze.h
 * Live upgrade and snapshots: a device written down in one process and continued in another.
 *
 * freeze writes everything the device is (negotiated features, rings, inflight region, log, connection) into a blob and
 * a list of descriptors, and lets go without a message: the back-end sees nothing and goes on working. thaw, in another
 * process, with the guest's memory mapped anywhere, continues on the same connection. The blob's format is versioned:
 * docs/freeze.md.
 */
#ifndef LIBVHOST_FREEZE_H
#define LIBVHOST_FREEZE_H

#include <vhost/dev.h>

#ifdef __cplusplus
extern "C" {
#endif

/**
 * The blob stands for itself: contents of the inflight region instead of descriptors, no connection. For a file, to be
 * thawed to a fresh back-end. The device must be stopped; it stays as it is.
 */
#define LIBVHOST_FREEZE_SNAPSHOT 0x1u

/**
 * Writes a device. Without SNAPSHOT, on success, the device is detached: its descriptors live on in @p fds only, its
 * state is DISCONNECTED and cleanup is what is left to do; take its events first. Guest memory is not in it: the host
 * that maps it there hands it to thaw. Nothing is sent, nothing waited for. Guest notifications stay bound
 * (bind_notifier is not called), so that no kick is lost. Whoever gives up on the upgrade thaws in the old process.
 * With @p blob NULL only the sizes are stored.
 * @param blob_len  in: room; out: bytes, also with -ENOSPC
 * @param fds  in the blob's order, moved, not duplicated: numbers that get_queue handed out stay the same
 * @param nfds  in: room; out: descriptors, which the caller owns (at most 40 + 5 per queue), also with -ENOSPC
 * @return 0; -ENOSPC (room; nothing was changed); -EBUSY (an operation runs, an answer of the peer is still on its way
 * or one of ours not sent: dispatch and try again; SNAPSHOT: running, or the peer stopped a split ring and has not
 * completed everything that it took: try again); -EINVAL (LOST, DISCONNECTED, flags); -ENOTSUP
 * (a transport that cannot be detached, several parts, a mapped shared-memory window); -EMFILE (a dirty log); -ENOMEM.
 * Since 0.1.
 */
LIBVHOST_API int libvhost_dev_freeze(struct libvhost_dev *dev, uint32_t flags, void *blob, size_t *blob_len, int *fds,
				     uint32_t *nfds);

/** What a blob says about itself. Since 0.1. */
struct libvhost_freeze_info {
	uint32_t size;	      /**< sizeof(struct libvhost_freeze_info) */
	uint32_t major;	      /**< of the format; readable when equal to this library's */
	uint32_t minor;	      /**< of the format; newer ones add sections that older readers skip */
	uint32_t flags;	      /**< LIBVHOST_FREEZE_* */
	uint32_t virtio_id;   /**< device type */
	uint32_t num_queues;  /**< queues of the device */
	uint32_t nfds;	      /**< descriptors that belong to it */
	uint32_t running;     /**< 1: it ran */
	uint32_t num_regions; /**< memory regions that the peer has */
	uint32_t reserved;    /**< 0 */
	char written_by[16];  /**< library version, "0.1.0" */
	char uri[128];	      /**< where the peer was */
};

/** Checks a blob completely and describes it. @return 0; -EBADMSG (not a blob, damaged, cut: the context's error says
 * what); -ENOTSUP (of another major version); -EINVAL. Thread-safe. Since 0.1. */
LIBVHOST_API int libvhost_freeze_info(struct libvhost_ctx *ctx, const void *blob, size_t len,
				      struct libvhost_freeze_info *info);

/** Options of libvhost_dev_thaw(). Since 0.1. */
struct libvhost_thaw_opts {
	uint32_t size;			    /**< sizeof(struct libvhost_thaw_opts) */
	uint32_t flags;			    /**< LIBVHOST_THAW_* */
	const void *blob;		    /**< what freeze wrote */
	uint64_t blob_len;		    /**< bytes */
	const int32_t *fds;		    /**< its descriptors in the same order; taken over on success */
	uint32_t nfds;			    /**< how many */
	uint32_t timeout_ms;		    /**< for connecting (SNAPSHOT blobs); 0 = context default */
	struct libvhost_mem *mem;	    /**< the guest's memory; must hold what the peer has */
	const struct libvhost_dev_ops *ops; /**< as at init; bind_notifier is called for queues that were bound */
	const char *uri;		    /**< another place of the peer; NULL = the blob's */
	uint32_t dev_flags; /**< LIBVHOST_DEV_AUTO_RECONNECT (by the blob's policy) | LIBVHOST_DEV_WAIT; the rest is
			     * the blob's */
	uint32_t reserved;  /**< 0 */
};

/**
 * Makes a device of a blob. One that was frozen running is RUNNING when this returns, and nothing was sent: the map of
 * @p mem must equal the peer's (same ranges of the same files). Doorbells come along, at another address:
 * libvhost_dev_doorbell() tells; windows of shared memory are the new host's to give. A snapshot connects to a fresh
 * back-end, negotiates as reconnect does and starts if @p flags say so. A call that fails leaves the descriptors the
 * caller's and open: the blob can be thawed again, here or where it comes from.
 * @return 0; -EBADMSG, -ENOTSUP (as libvhost_freeze_info()); -EINVAL (number or kind of descriptors); -EFAULT (memory
 * differs from what the peer has); -EEXIST, -ENOSPC (shared objects of the back-end and this context's table); -EIO or
 * what bind_notifier returned; -ENOTSUP (kind SHRUNK: a fresh peer that offers
 * less); -E2BIG; -EMFILE; -ENOMEM; snapshot: the errors of libvhost_dev_reconnect() and _start(). Since 0.1.
 */
LIBVHOST_API LIBVHOST_MUST_CHECK int libvhost_dev_thaw(struct libvhost_ctx *ctx, const struct libvhost_thaw_opts *opts,
						       struct libvhost_dev **ret);

#define LIBVHOST_THAW_START 0x1u /**< SNAPSHOT blobs: start the device, too */

#ifdef __cplusplus
}
#endif
#endif
