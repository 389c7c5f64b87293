/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/**
 * @file io.h
 * Files for handlers: a worker reads and writes disks without waiting for them. The descriptors are those of
 * libvhost_worker_opts.files, opened before the sandbox closed; operations go through an io_uring that can do nothing
 * else (LIBVHOST_WORKER_IO_URING), or through positioned reads and writes.
 */
#ifndef LIBVHOST_IO_H
#define LIBVHOST_IO_H

#include <vhost/vq.h>

#ifdef __cplusplus
extern "C" {
#endif

enum libvhost_io_op {
	LIBVHOST_IO_READ = 0,	     /**< from the file into the pieces */
	LIBVHOST_IO_WRITE = 1,	     /**< from the pieces into the file */
	LIBVHOST_IO_FLUSH = 2,	     /**< what was written is on stable storage (fdatasync) */
	LIBVHOST_IO_DISCARD = 3,     /**< the range may lose its contents and its space; it reads as zeroes */
	LIBVHOST_IO_WRITE_ZEROES = 4 /**< the range reads as zeroes and keeps its space */
};

/** One operation of a request. The caller's memory, the library's from libvhost_vq_io() until done() begins. Since 0.1.
 */
struct libvhost_io {
	uint32_t op;		  /**< enum libvhost_io_op */
	uint32_t file;		  /**< index into libvhost_worker_opts.files */
	uint64_t offset;	  /**< bytes from the beginning of the file */
	uint64_t len;		  /**< bytes; READ, WRITE: of all pieces together, at most 2147479552 */
	struct libvhost_iov *iov; /**< READ, WRITE: the pieces; changed when a transfer comes back short */
	uint32_t num_iov;	  /**< 1..1024 */
	/** Result, in done(): 0 = all of it, or negative errno. Short transfers are continued; -ENODATA is a read
	 * beyond the end of the file. */
	int32_t result;
	void (*done)(struct libvhost_io *io); /**< on the worker, never inside libvhost_vq_io(); may reuse @p io */
	void *arg;			      /**< the caller's */
	struct libvhost_vq *vq;		      /**< the library's, as are the next: the queue of the request */
	struct libvhost_io *next;
	uint64_t moved; /**< bytes so far */
};

/**
 * Starts an operation for a request of @p vq, on the worker that serves it. Operations of one turn are submitted
 * together after the handler returned; they run and end in any order. done() pushes the request; the worker publishes.
 * A queue leaves its worker only when all its operations have ended, because they use guest memory: removing it, or
 * stopping, waits for them within its deadline.
 * @return 0; -EBUSY (libvhost_worker_opts.io_depth operations are under way: return LIBVHOST_TURN_WAIT, the queue is
 * served again when one has ended); -EINVAL (values; no worker serves the queue; it has no such file). Since 0.1.
 */
LIBVHOST_API int libvhost_vq_io(struct libvhost_vq *vq, struct libvhost_io *io);

#ifdef __cplusplus
}
#endif
#endif
