/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* From libvhost_vq_io() to done(): the same for an io_uring and for one system call after another. */
#include "worker/io.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/uio.h>
#include <unistd.h>

#include "core/wire.h"
#include "vring/vring.h"
#include "worker/worker.h"

#define DEFAULT_DEPTH 256u
#define LEN_MAX	      0x7ffff000ull /* what one transfer may have, read(2) */
#define IOV_MAX_COUNT 1024u

static int take_files(struct lv_io *io, const struct libvhost_worker_opts *opts, struct lv_errslot *err)
{
	for (; io->num_files < opts->num_files; io->num_files++) {
		const int fd = opts->files[io->num_files], copy = lv_fd_dup(fd);

		if (copy < 0)
			return lv_fail_sys(err, -copy, "worker: file %u (descriptor %d): %s", io->num_files, fd,
					   lv_errno_name(-copy));
		io->files[io->num_files] = copy;
	}
	return 0;
}

int lv_io_init(struct lv_io *io, const struct libvhost_worker_opts *opts, struct lv_errslot *err)
{
	int rc;

	io->ring.fd = -1;
	io->depth = opts->io_depth ? opts->io_depth : DEFAULT_DEPTH;
	if (!opts->num_files)
		return 0;
	rc = take_files(io, opts, err);
	if (rc == 0 && opts->flags & LIBVHOST_WORKER_IO_URING)
		lv_uring_init(&io->ring, io->depth, io->files, io->num_files); /* without one it goes as well */
	return rc;
}

void lv_io_destroy(struct lv_io *io)
{
	if (io->ring.fd >= 0)
		lv_uring_destroy(&io->ring);
	for (uint32_t i = 0; i < io->num_files; i++)
		lv_fd_close(io->files[i]);
}

static bool valid(const struct lv_io *io, const struct libvhost_io *op)
{
	if (op->op > LIBVHOST_IO_WRITE_ZEROES || op->file >= io->num_files || !op->done || op->offset > INT64_MAX ||
	    op->len > INT64_MAX - op->offset)
		return false;
	if (op->op <= LIBVHOST_IO_WRITE)
		return op->iov && op->num_iov && op->num_iov <= IOV_MAX_COUNT && op->len && op->len <= LEN_MAX;
	return op->op == LIBVHOST_IO_FLUSH || op->len;
}

static void enqueue(struct lv_io *io, struct libvhost_io *op)
{
	op->next = NULL;
	if (io->first)
		io->last->next = op;
	else
		io->first = op;
	io->last = op;
}

static struct libvhost_io *dequeue(struct lv_io *io)
{
	struct libvhost_io *op = io->first;

	io->first = op->next;
	return op;
}

int libvhost_vq_io(struct libvhost_vq *vq, struct libvhost_io *op)
{
	struct libvhost_worker *w = vq ? vq->worker : NULL;

	if (!w || !op || !valid(&w->io, op))
		return -EINVAL;
	if (w->io.under_way == w->io.depth)
		return -EBUSY;
	op->vq = vq;
	op->moved = 0;
	op->result = 0;
	enqueue(&w->io, op);
	w->io.under_way++;
	w->loop.owed[vq->slot]++;
	atomic_store_explicit(&w->io_under_way, w->io.under_way, memory_order_relaxed);
	return 0;
}

int lv_io_mode(const struct libvhost_io *op)
{
	return op->op == LIBVHOST_IO_WRITE_ZEROES && !op->moved ? LV_ZERO_RANGE : LV_PUNCH_HOLE;
}

/* Takes what was moved off the pieces. */
static void advance(struct libvhost_io *op, size_t moved)
{
	while (moved && moved >= op->iov->len) {
		moved -= op->iov->len;
		op->iov++;
		op->num_iov--;
	}
	if (moved) {
		op->iov->base = (uint8_t *)op->iov->base + moved;
		op->iov->len -= moved;
	}
}

/* Whether the operation goes on; else *result is what done() is told. */
static bool goes_on(struct libvhost_io *op, int32_t *result)
{
	if (*result == -EINTR || *result == -EAGAIN)
		return true;
	if (op->op == LIBVHOST_IO_WRITE_ZEROES && *result == -EOPNOTSUPP && !op->moved) {
		op->moved = 1; /* tmpfs and others know holes only, which read as zeroes, too */
		return true;
	}
	if (op->op > LIBVHOST_IO_WRITE || *result < 0)
		return false;
	if (*result == 0) {
		*result = op->op == LIBVHOST_IO_READ ? -ENODATA : -EIO;
		return false;
	}
	op->moved += (uint32_t)*result;
	if (op->moved >= op->len) {
		*result = 0;
		return false;
	}
	advance(op, (size_t)*result);
	return op->num_iov > 0;
}

/* Returns the queue's bit when the operation has ended, else 0. */
static uint64_t end(struct libvhost_worker *w, struct libvhost_io *op, int32_t result)
{
	struct lv_io *io = &w->io;
	const uint32_t slot = op->vq->slot;

	if (goes_on(op, &result)) {
		enqueue(io, op);
		return 0;
	}
	io->under_way--;
	w->loop.owed[slot]--;
	atomic_store_explicit(&w->io_under_way, io->under_way, memory_order_relaxed);
	atomic_fetch_add_explicit(&w->io_done, 1, memory_order_relaxed);
	op->result = result;
	op->done(op);
	return 1ull << slot;
}

static int32_t execute(struct lv_io *io, struct libvhost_io *op)
{
	const int fd = io->files[op->file];
	const struct iovec *iov = (const struct iovec *)op->iov;
	ssize_t rc;

	switch (op->op) {
	case LIBVHOST_IO_READ:
		rc = preadv(fd, iov, (int)op->num_iov, (off_t)(op->offset + op->moved));
		break;
	case LIBVHOST_IO_WRITE:
		rc = pwritev(fd, iov, (int)op->num_iov, (off_t)(op->offset + op->moved));
		break;
	case LIBVHOST_IO_FLUSH:
		rc = fdatasync(fd);
		break;
	default:
		rc = fallocate(fd, lv_io_mode(op), (off_t)op->offset, (off_t)op->len);
	}
	return rc < 0 ? -errno : (int32_t)rc;
}

/* As many as there are now: done() may start more. */
static uint64_t execute_all(struct libvhost_worker *w)
{
	struct lv_io *io = &w->io;
	uint64_t ended = 0;

	for (uint32_t n = io->under_way; n && io->first; n--) {
		struct libvhost_io *op = dequeue(io);

		ended |= end(w, op, execute(io, op));
	}
	return ended;
}

static uint64_t exchange(struct libvhost_worker *w, uint32_t wait_for)
{
	struct lv_io *io = &w->io;
	struct libvhost_io *op;
	uint64_t ended = 0;
	int32_t result;

	while (io->first)
		lv_uring_prepare(&io->ring, dequeue(io));
	if (io->ring.unsubmitted || wait_for)
		lv_uring_enter(&io->ring, wait_for);
	for (uint32_t n = io->under_way; n && (op = lv_uring_take(&io->ring, &result)) != NULL; n--)
		ended |= end(w, op, result);
	return ended;
}

static bool turn(struct libvhost_worker *w, uint32_t wait_for)
{
	const uint64_t ended = w->io.ring.fd >= 0 ? exchange(w, wait_for) : execute_all(w);

	for (uint64_t set = ended; set; set &= set - 1)
		lv_loop_ended(w, (uint32_t)__builtin_ctzll(set));
	return ended;
}

bool lv_io_turn(struct libvhost_worker *w)
{
	return w->io.under_way && turn(w, 0);
}

bool lv_io_waits(const struct lv_io *io)
{
	return io->first || io->ring.unsubmitted;
}

void lv_io_drain(struct libvhost_worker *w)
{
	while (w->io.under_way)
		turn(w, 1);
}
