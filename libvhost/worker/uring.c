/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/*
 * The io_uring of a worker. It is made disabled, gets its files, is restricted to what a disk needs, on these files
 * only, and is enabled: all by the host, before the worker's filter is loaded. The worker may only enter it, so a ring
 * that could open or connect is never at hand.
 */
#include <errno.h>
#include <linux/io_uring.h>
#include <linux/magic.h>
#include <stddef.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "core/wire.h"
#include "worker/io.h"

_Static_assert(sizeof(struct libvhost_iov) == sizeof(struct iovec) &&
		       offsetof(struct libvhost_iov, len) == offsetof(struct iovec, iov_len),
	       "pieces are given to the kernel as they are");

static const struct io_uring_restriction restrictions[] = {
	{.opcode = IORING_RESTRICTION_SQE_OP, .sqe_op = IORING_OP_READV},
	{.opcode = IORING_RESTRICTION_SQE_OP, .sqe_op = IORING_OP_WRITEV},
	{.opcode = IORING_RESTRICTION_SQE_OP, .sqe_op = IORING_OP_READ},
	{.opcode = IORING_RESTRICTION_SQE_OP, .sqe_op = IORING_OP_WRITE},
	{.opcode = IORING_RESTRICTION_SQE_OP, .sqe_op = IORING_OP_FSYNC},
	{.opcode = IORING_RESTRICTION_SQE_OP, .sqe_op = IORING_OP_FALLOCATE},
	{.opcode = IORING_RESTRICTION_SQE_FLAGS_ALLOWED, .sqe_flags = IOSQE_ASYNC},
	{.opcode = IORING_RESTRICTION_SQE_FLAGS_REQUIRED, .sqe_flags = IOSQE_FIXED_FILE},
};

/*
 * A submission is not to wait for the file, but the kernel (6.18) reads ahead within it, and FUSE may wait for its
 * server there: for each read, or when many are under way. IOSQE_ASYNC leaves it to the ring's own threads. Which file
 * system it is FUSE asks its server, too, so one that does not say is taken for FUSE.
 */
static bool may_keep_us(int fd)
{
	struct statfs fs;

	return fstatfs(fd, &fs) < 0 || fs.f_type == FUSE_SUPER_MAGIC;
}

static int ring_register(int fd, unsigned op, const void *arg, unsigned n)
{
	return syscall(SYS_io_uring_register, fd, op, arg, n) < 0 ? -errno : 0;
}

static int restrict_and_enable(int fd, const int32_t *files, uint32_t num_files)
{
	int rc = ring_register(fd, IORING_REGISTER_FILES, files, num_files);

	if (rc == 0)
		rc = ring_register(fd, IORING_REGISTER_RESTRICTIONS, restrictions,
				   sizeof(restrictions) / sizeof(*restrictions));
	return rc < 0 ? rc : ring_register(fd, IORING_REGISTER_ENABLE_RINGS, NULL, 0);
}

static size_t larger(size_t a, size_t b)
{
	return a > b ? a : b;
}

static void *at(void *base, uint32_t offset)
{
	return (uint8_t *)base + offset;
}

static int map(struct lv_uring *ring, const struct io_uring_params *p)
{
	const size_t sq_bytes = p->sq_off.array + p->sq_entries * sizeof(uint32_t);
	const size_t cq_bytes = p->cq_off.cqes + p->cq_entries * sizeof(struct io_uring_cqe);
	uint32_t *order;

	if (!(p->features & IORING_FEAT_SINGLE_MMAP))
		return -ENOSYS;
	ring->rings_bytes = larger(sq_bytes, cq_bytes);
	ring->sqes_bytes = p->sq_entries * sizeof(struct io_uring_sqe);
	ring->rings = mmap(NULL, ring->rings_bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, ring->fd,
			   IORING_OFF_SQ_RING);
	if (ring->rings == MAP_FAILED) {
		ring->rings = NULL;
		return -errno;
	}
	ring->sqes = mmap(NULL, ring->sqes_bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, ring->fd,
			  IORING_OFF_SQES);
	if (ring->sqes == MAP_FAILED) {
		ring->sqes = NULL;
		return -errno;
	}
	ring->sq_tail = at(ring->rings, p->sq_off.tail);
	ring->cq_head = at(ring->rings, p->cq_off.head);
	ring->cq_tail = at(ring->rings, p->cq_off.tail);
	ring->cqes = at(ring->rings, p->cq_off.cqes);
	ring->sq_mask = p->sq_entries - 1;
	ring->cq_mask = p->cq_entries - 1;
	order = at(ring->rings, p->sq_off.array);
	for (uint32_t i = 0; i < p->sq_entries; i++) /* submissions are used as they come */
		order[i] = i;
	return 0;
}

int lv_uring_init(struct lv_uring *ring, uint32_t depth, const int32_t *files, uint32_t num_files)
{
	struct io_uring_params p = {.flags = IORING_SETUP_R_DISABLED};
	int rc;

	*ring = (struct lv_uring){.fd = (int)syscall(SYS_io_uring_setup, depth, &p)};
	if (ring->fd < 0) {
		ring->fd = -1;
		return -errno;
	}
	rc = map(ring, &p);
	if (rc == 0)
		rc = restrict_and_enable(ring->fd, files, num_files);
	if (rc < 0)
		lv_uring_destroy(ring);
	for (uint32_t i = 0; rc == 0 && i < num_files; i++)
		ring->async_files |= (uint64_t)may_keep_us(files[i]) << i;
	return rc;
}

void lv_uring_destroy(struct lv_uring *ring)
{
	if (ring->sqes)
		munmap(ring->sqes, ring->sqes_bytes);
	if (ring->rings)
		munmap(ring->rings, ring->rings_bytes);
	lv_fd_close(ring->fd);
	*ring = (struct lv_uring){.fd = -1};
}

static void prepare_transfer(struct io_uring_sqe *sqe, const struct libvhost_io *op)
{
	const bool write = op->op == LIBVHOST_IO_WRITE;

	sqe->off = op->offset + op->moved;
	if (op->num_iov == 1) { /* spares the kernel copying an array */
		sqe->opcode = write ? IORING_OP_WRITE : IORING_OP_READ;
		sqe->addr = (uintptr_t)op->iov->base;
		sqe->len = (uint32_t)op->iov->len;
		return;
	}
	sqe->opcode = write ? IORING_OP_WRITEV : IORING_OP_READV;
	sqe->addr = (uintptr_t)op->iov;
	sqe->len = op->num_iov;
}

void lv_uring_prepare(struct lv_uring *ring, const struct libvhost_io *op)
{
	const uint32_t tail = *ring->sq_tail;
	struct io_uring_sqe *sqe = &ring->sqes[tail & ring->sq_mask];

	*sqe = (struct io_uring_sqe){.flags = IOSQE_FIXED_FILE, .fd = (int32_t)op->file, .user_data = (uintptr_t)op};
	switch (op->op) {
	case LIBVHOST_IO_READ:
	case LIBVHOST_IO_WRITE:
		prepare_transfer(sqe, op);
		break;
	case LIBVHOST_IO_FLUSH:
		sqe->opcode = IORING_OP_FSYNC;
		sqe->fsync_flags = IORING_FSYNC_DATASYNC;
		break;
	default:
		sqe->opcode = IORING_OP_FALLOCATE;
		sqe->off = op->offset;
		sqe->addr = op->len;
		sqe->len = (uint32_t)lv_io_mode(op);
	}
	if (ring->async_files >> op->file & 1)
		sqe->flags |= IOSQE_ASYNC;
	__atomic_store_n(ring->sq_tail, tail + 1, __ATOMIC_RELEASE);
	ring->unsubmitted++;
}

void lv_uring_enter(struct lv_uring *ring, uint32_t wait_for)
{
	long n = syscall(SYS_io_uring_enter, ring->fd, ring->unsubmitted, wait_for,
			 wait_for ? IORING_ENTER_GETEVENTS : 0, NULL, 0);

	if (n > 0) /* else it is busy or interrupted: they are submitted in a later turn */
		ring->unsubmitted -= (uint32_t)n;
}

struct libvhost_io *lv_uring_take(struct lv_uring *ring, int32_t *result)
{
	const uint32_t head = *ring->cq_head;
	struct libvhost_io *op;

	if (head == __atomic_load_n(ring->cq_tail, __ATOMIC_ACQUIRE))
		return NULL;
	op = (struct libvhost_io *)(uintptr_t)ring->cqes[head & ring->cq_mask].user_data;
	*result = ring->cqes[head & ring->cq_mask].res;
	__atomic_store_n(ring->cq_head, head + 1, __ATOMIC_RELEASE);
	return op;
}
