/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* A worker's files: operations that handlers started, on their way to the kernel and back. */
#ifndef LV_WORKER_IO_H
#define LV_WORKER_IO_H

#include <stdbool.h>
#include <stdint.h>
#include <vhost/io.h>
#include <vhost/worker.h>
#include "core/error.h"

#define LV_IO_FILES	64u
#define LV_IO_DEPTH_MAX 4096u

struct io_uring_sqe;
struct io_uring_cqe;

/* The memory that is shared with the kernel. */
struct lv_uring {
	int fd; /* -1 = none: operations are executed one by one */
	void *rings;
	size_t rings_bytes, sqes_bytes;
	struct io_uring_sqe *sqes;
	struct io_uring_cqe *cqes;
	uint32_t *sq_tail, *cq_head, *cq_tail;
	uint32_t sq_mask, cq_mask;
	uint32_t unsubmitted; /* filled in, not yet taken by the kernel */
	uint64_t async_files; /* bit n: file n may keep a submission waiting */
};

struct lv_io {
	int32_t files[LV_IO_FILES];
	uint32_t num_files, depth;
	struct lv_uring ring;
	struct libvhost_io *first, *last; /* started, in order, not yet given to the kernel */
	uint32_t under_way;
};

/* Duplicates the files and makes the ring if asked to. 0 or negative errno (recorded). On the host's thread. */
int lv_io_init(struct lv_io *io, const struct libvhost_worker_opts *opts, struct lv_errslot *err);
void lv_io_destroy(struct lv_io *io);

/* On the worker: gives the kernel what was started and takes what has ended. True = something has. */
bool lv_io_turn(struct libvhost_worker *w);
/* Whether the kernel has not got all yet. */
bool lv_io_waits(const struct lv_io *io);
/* Waits until everything has ended. */
void lv_io_drain(struct libvhost_worker *w);

/* uring.c. init: 0, or negative errno and ring->fd is -1. */
int lv_uring_init(struct lv_uring *ring, uint32_t depth, const int32_t *files, uint32_t num_files);
void lv_uring_destroy(struct lv_uring *ring);
/* Fills in the next submission. There is room for as many as init was told. */
void lv_uring_prepare(struct lv_uring *ring, const struct libvhost_io *op);
/* Submits what was filled in; waits for so many to end. */
void lv_uring_enter(struct lv_uring *ring, uint32_t wait_for);
/* The next one that has ended and what came of it; NULL = none. */
struct libvhost_io *lv_uring_take(struct lv_uring *ring, int32_t *result);

/* fallocate() mode of an operation. */
int lv_io_mode(const struct libvhost_io *op);

#endif
