/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/**
 * @file mem.h
 * One guest's memory, shared by all its devices.
 *
 * The caller states the map it wants inside a transaction; commit validates it against every attached device, sends the
 * difference to all in parallel under one deadline and returns when old regions may be unmapped. A peer cannot veto the
 * map: one that does not follow becomes LOST, one that dies DISCONNECTED. Calls lock; translation takes no lock and may
 * run on any thread.
 */
#ifndef LIBVHOST_MEM_H
#define LIBVHOST_MEM_H

#include <vhost/ctx.h>
#include <vhost/req.h>

#ifdef __cplusplus
extern "C" {
#endif

/** Options of libvhost_mem_new(). Since 0.1. */
struct libvhost_mem_opts {
	uint32_t size;	/**< sizeof(struct libvhost_mem_opts) */
	uint32_t flags; /**< LIBVHOST_MEM_* */
};

#define LIBVHOST_MEM_REQUIRE_SEALS    0x1u /**< refuse descriptors that can still shrink */
#define LIBVHOST_MEM_EXPOSE_ADDRESSES 0x2u /**< vhost-user peers get real host addresses instead of opaque cookies */

/** Makes an empty map. @return 0; -EINVAL; -E2BIG; -ENOMEM. Since 0.1. */
LIBVHOST_API LIBVHOST_MUST_CHECK int libvhost_mem_new(struct libvhost_ctx *ctx, const struct libvhost_mem_opts *opts,
						      struct libvhost_mem **ret);

/** Drops the caller's reference; attached devices keep the memory alive. NULL is allowed. Since 0.1. */
LIBVHOST_API void libvhost_mem_free(struct libvhost_mem *mem);

/** Begins a transaction. @return 0; -EBUSY (one is open, or a commit runs); -ENOMEM. Since 0.1. */
LIBVHOST_API int libvhost_mem_begin(struct libvhost_mem *mem);

/**
 * Adds a region to the open transaction. With LIBVHOST_REGION_HAS_FD the file is mapped by the library unless user_addr
 * gives an existing mapping; without, user_addr must be a mapping in this process (kernel and vDPA transports only).
 * The descriptor is duplicated. A file that is mapped here already at the same offset and size is not mapped again.
 * The offset lies on a page; the size is any number of bytes, except on hugetlbfs: there both are multiples of the
 * file's huge pages. No byte behind a region's end is accessed.
 * @return 0; -EINVAL (size 0, no transaction, neither fd nor address, unknown flag, not a regular file or memfd,
 * misaligned); -EBUSY (a commit runs); -EOVERFLOW (wraps, or past the end of the file); -EEXIST (overlaps a region);
 * -ENOSPC (more than LIBVHOST_MAX_REGIONS); -EBADF; -EPERM (seals required, writes sealed, or not open for reading and
 * writing); -EMFILE; -ENOMEM. Since 0.1.
 */
LIBVHOST_API int libvhost_mem_add(struct libvhost_mem *mem, const struct libvhost_region *region);

/** Adds a region of new memory, a sealed memfd mapped here. @p size bytes, multiple of the page size. @return as add;
 * -ENOSYS (no memfd). Since 0.1. */
LIBVHOST_API int libvhost_mem_alloc(struct libvhost_mem *mem, uint64_t gpa, uint64_t size);

/** Removes exactly one region in the open transaction. @return 0; -ENOENT (no region with this address and size);
 * -EINVAL (no transaction); -EBUSY (a commit runs). Since 0.1. */
LIBVHOST_API int libvhost_mem_remove(struct libvhost_mem *mem, uint64_t gpa, uint64_t size);

/** Forgets the open transaction. @return 0; -EINVAL (none); -EBUSY (a commit runs). Since 0.1. */
LIBVHOST_API int libvhost_mem_abort(struct libvhost_mem *mem);

/**
 * Makes the transaction's map current and tells all running devices, in parallel, under one deadline. A device that
 * refused, did not confirm in time, or whose rings lie in a region that is moved or removed is LOST; one whose peer
 * went away, or whose connection was given up because an answer is missing, is DISCONNECTED, or RECONNECTING. Both get
 * the event; their number is stored in @p lost (may be NULL). When it returns, no device that is RUNNING uses a removed
 * region any more. What a mute peer does nobody knows: end it before the memory is used for something else.
 * @return 0, also when devices were lost; -EINVAL (no transaction, timeout above 3600000); -ENOSPC (a device's table is
 * too small: nothing was changed, the transaction stays open); -ENOTSUP (a device needs descriptors: likewise); -ERANGE
 * (a region lies outside the addresses that a vDPA device can use: likewise); -EBUSY (a device runs another operation,
 * or a commit runs: likewise); -ENOMEM, -ENOSPC (also: no memory for a larger dirty log: likewise). Since 0.1.
 */
LIBVHOST_API int libvhost_mem_commit(struct libvhost_mem *mem, uint32_t timeout_ms, uint32_t *lost);

/** Whether one more region would still fit in every attached device's table, counting the open transaction's changes.
 * @return 1 yes, 0 no; -EINVAL. Since 0.1. */
LIBVHOST_API int libvhost_has_free_slot(struct libvhost_mem *mem);

/** Copies up to *count regions of the current map, sorted by address; stores how many there are. user_addr is the host
 * address; descriptors stay the library's and are valid until a commit that removes the region. @return 0; -EINVAL.
 * Since 0.1. */
LIBVHOST_API int libvhost_mem_regions(struct libvhost_mem *mem, struct libvhost_region *regions, uint32_t *count);

/**
 * Host address of guest-physical memory. @p len bytes must lie in one region (a shorter run is stored in *contiguous,
 * which may be NULL). The address stays valid until a commit that removes the region. Thread-safe, takes no lock; for
 * that it records no error text.
 * @return 0; -EFAULT (address unmapped, or len crosses the region's end and contiguous is NULL); -EINVAL. Since 0.1.
 */
LIBVHOST_API int libvhost_mem_translate(struct libvhost_mem *mem, uint64_t gpa, uint64_t len, void **hva,
					uint64_t *contiguous);

/**
 * Begins to log which pages the devices write (4096 bytes each, whatever the host's page size). One bitmap for all
 * devices, a sealed memfd that later commits let grow. All attached devices are told in parallel under one deadline;
 * running ones go on running. When it returns, every write that follows is logged: by a device that is stopped, from
 * its start on. What the host itself writes it tells libvhost_mem_log_mark().
 * @param lost  as commit
 * @return 0, also when devices were lost; -EALREADY (logs); -ENOTSUP (a device cannot log: the text is its migration
 * blocker; nothing was changed); -EBUSY; -EMFILE; -ENOMEM; -ENOSPC; -EINVAL. Since 0.1.
 */
LIBVHOST_API int libvhost_mem_log_start(struct libvhost_mem *mem, uint32_t timeout_ms, uint32_t *lost);

/** Ends it; pages not yet synced are forgotten. @return 0, also when devices were lost; -EALREADY (does not log);
 * -EBUSY; -EINVAL. Since 0.1. */
LIBVHOST_API int libvhost_mem_log_stop(struct libvhost_mem *mem, uint32_t timeout_ms, uint32_t *lost);

/**
 * Takes the dirty pages of a range out of the log: each word is exchanged with 0 atomically, so that a write is
 * reported now or the next time and never lost. Bit n of @p bitmap (word n / 64, bit n % 64) stands for the page at
 * gpa + n * 4096 and is set, never cleared. Costs time by the size of the log only, not by the number of queues. One
 * scanner at a time per range.
 * @param gpa, size  multiples of 4096
 * @param pages  NULL, or how many were dirty
 * @return 0; -EINVAL (misaligned, does not log). Since 0.1.
 */
LIBVHOST_API int libvhost_mem_log_sync(struct libvhost_mem *mem, uint64_t gpa, uint64_t size, uint64_t *bitmap,
				       uint64_t *pages);

/** Dirty memory, whole 4096-byte pages. Since 0.1. */
struct libvhost_dirty_range {
	uint64_t gpa;  /**< guest-physical address */
	uint64_t size; /**< bytes */
};

/**
 * The same for the whole map as ranges, ascending, neighbours joined. Begin with *cursor 0 and call until *count comes
 * back 0.
 * @param count  in: room, at least 1; out: stored
 * @return 0; -EINVAL (also: does not log). Since 0.1.
 */
LIBVHOST_API int libvhost_mem_log_ranges(struct libvhost_mem *mem, uint64_t *cursor,
					 struct libvhost_dirty_range *ranges, uint32_t *count);

/** Marks what the host wrote itself. Thread-safe, takes no lock. Without a log: no effect. @return 0; -EINVAL. Since
 * 0.1. */
LIBVHOST_API int libvhost_mem_log_mark(struct libvhost_mem *mem, uint64_t gpa, uint64_t len);

/** Copies the last error. @return 0; -EINVAL. Thread-safe. Since 0.1. */
LIBVHOST_API int libvhost_mem_error(struct libvhost_mem *mem, struct libvhost_error *err);

#ifdef __cplusplus
}
#endif
#endif
