/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* File operations of handlers, through an io_uring and without one. */
#include "workerhelp.h"

#include <errno.h>
#include <linux/io_uring.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include "worker/worker.h"

#define SLOTS 8u
#define BYTES 4096u

/* A request is what the test put down here beforehand; the ring only says when, and how it ended. */
struct disk {
	struct libvhost_io io[SLOTS];
	struct libvhost_iov iov[SLOTS][3];
	struct libvhost_io plan; /* copied for each request */
	uint8_t data[SLOTS][BYTES];
	uint32_t pieces; /* of data, of equal length; 0 = none */
	int32_t results[SLOTS];
	uint32_t heads[SLOTS];
	atomic_uint busy, ended;
	_Atomic uint64_t window; /* of the worker when it took the last request */
	pid_t done_on;
};

static struct disk *disk_of(struct libvhost_io *io)
{
	return io->arg;
}

static void ended(struct libvhost_io *io)
{
	struct disk *d = disk_of(io);
	const size_t n = (size_t)(io - d->io);

	d->results[n] = io->result;
	d->done_on = gettid();
	libvhost_vq_push(io->vq, d->heads[n], 0);
	atomic_fetch_add(&d->ended, 1);
}

static int start(void *arg, struct libvhost_vq *vq)
{
	struct disk *d = arg;
	struct libvhost_iov iov[4];
	struct libvhost_chain c = {.size = sizeof(c), .iov = iov, .iov_cap = 4};
	int rc;

	while ((rc = libvhost_vq_pop(vq, &c)) > 0) {
		const uint32_t n = c.head % SLOTS;

		atomic_store(&d->window, vq->worker->loop.poll_ns);
		d->heads[n] = c.head;
		d->io[n] = d->plan;
		d->io[n].arg = d;
		d->io[n].done = ended;
		d->io[n].iov = d->iov[n];
		d->io[n].num_iov = d->pieces;
		for (uint32_t i = 0; i < d->pieces; i++)
			d->iov[n][i] = (struct libvhost_iov){d->data[n] + i * (d->plan.len / d->pieces),
							     d->plan.len / d->pieces};
		rc = libvhost_vq_io(vq, &d->io[n]);
		if (rc == -EBUSY) { /* the request must be answered all the same */
			atomic_fetch_add(&d->busy, 1);
			rc = libvhost_vq_push(vq, c.head, 0);
		}
		if (rc < 0)
			return rc;
	}
	return rc;
}

struct io_bench {
	struct bench b;
	struct disk *d;
	int file;
};

static struct io_bench io_setup_poll(bool uring, int file, uint32_t depth, uint32_t poll_us)
{
	struct io_bench io = {.d = calloc(1, sizeof(struct disk)), .file = file};

	io.b = setup_opts(SLOTS, 0,
			  (struct libvhost_worker_opts){
				  .role = LIBVHOST_ROLE_BLOCK,
				  .flags = uring ? LIBVHOST_WORKER_IO_URING : 0,
				  .files = &io.file,
				  .num_files = 1,
				  .io_depth = depth,
				  .poll_us = poll_us,
			  });
	CHECK_EQ(status(&io.b).io_uring, uring);
	add(&io.b, io.b.r.kick, start, io.d);
	return io;
}

static struct io_bench io_setup(bool uring, int file, uint32_t depth)
{
	return io_setup_poll(uring, file, depth, 0);
}

static void io_teardown(struct io_bench *io)
{
	teardown(&io->b); /* the file was open before */
	free(io->d);
	close(io->file);
}

static int new_file(size_t bytes)
{
	int fd = memfd_create("disk", MFD_CLOEXEC);

	CHECK_EQ(ftruncate(fd, (off_t)bytes), 0);
	return fd;
}

/* One request of the plan; its result. */
static int32_t play(struct io_bench *io, uint32_t op, uint64_t offset, uint64_t len, uint32_t pieces)
{
	static uint64_t token;

	io->d->plan = (struct libvhost_io){.op = op, .offset = offset, .len = len};
	io->d->pieces = pieces;
	atomic_store(&io->d->ended, 0);
	offer_one(&io->b, ++token);
	CHECK(completed(&io->b, token));
	CHECK_EQ(atomic_load(&io->d->ended), 1);
	for (uint32_t n = 0; n < SLOTS; n++)
		if (io->d->io[n].arg && io->d->io[n].op == op && io->d->io[n].offset == offset)
			return io->d->results[n];
	return 1;
}

static void fill(struct io_bench *io, uint8_t byte)
{
	memset(io->d->data, byte, sizeof(io->d->data));
}

static bool all(const uint8_t *at, size_t n, uint8_t byte)
{
	while (n && *at == byte)
		at++, n--;
	return !n;
}

static void each_operation(bool uring)
{
	struct io_bench io = io_setup(uring, new_file(BYTES * 4), 0);
	uint8_t back[BYTES * 4];

	fill(&io, 7);
	CHECK_EQ(play(&io, LIBVHOST_IO_WRITE, BYTES, BYTES, 1), 0);
	CHECK_EQ(play(&io, LIBVHOST_IO_WRITE, BYTES * 3, 3000, 3), 0);
	CHECK_EQ(play(&io, LIBVHOST_IO_FLUSH, 0, 0, 0), 0);
	CHECK_EQ(pread(io.file, back, sizeof(back), 0), (ssize_t)sizeof(back));
	CHECK(all(back, BYTES, 0) && all(back + BYTES, BYTES, 7) && all(back + 2 * BYTES, BYTES, 0));
	CHECK(all(back + 3 * BYTES, 3000, 7) && all(back + 3 * BYTES + 3000, 1096, 0));
	fill(&io, 1);
	CHECK_EQ(play(&io, LIBVHOST_IO_READ, BYTES + 6, BYTES - 6, 2), 0);
	CHECK(memchr(io.d->data, 7, sizeof(io.d->data)) != NULL);
	CHECK_EQ(play(&io, LIBVHOST_IO_WRITE_ZEROES, BYTES, 100, 0), 0);
	CHECK_EQ(play(&io, LIBVHOST_IO_DISCARD, BYTES * 3, BYTES, 0), 0);
	CHECK_EQ(pread(io.file, back, sizeof(back), 0), (ssize_t)sizeof(back));
	CHECK(all(back + BYTES, 100, 0) && all(back + BYTES + 100, BYTES - 100, 7) && all(back + 3 * BYTES, BYTES, 0));
	CHECK_EQ(status(&io.b).io_done, 6);
	CHECK_EQ(status(&io.b).io_under_way, 0);
	CHECK_EQ((uint32_t)io.d->done_on, status(&io.b).tid);
	io_teardown(&io);
}

TEST(worker_io, each_operation_through_a_ring)
{
	each_operation(true);
}

TEST(worker_io, each_operation_without_one)
{
	each_operation(false);
}

static void errors(bool uring)
{
	int read_only = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
	struct io_bench io = io_setup(uring, new_file(BYTES + 10), 0);

	CHECK_EQ(play(&io, LIBVHOST_IO_READ, BYTES, 20, 2), -ENODATA); /* comes back short, then empty */
	CHECK_EQ(play(&io, LIBVHOST_IO_READ, BYTES * 8, 20, 1), -ENODATA);
	io_teardown(&io);
	io = io_setup(uring, read_only, 0);
	CHECK_EQ(play(&io, LIBVHOST_IO_WRITE, 0, 16, 1), -EBADF);
	CHECK_EQ(play(&io, LIBVHOST_IO_DISCARD, 0, 16, 0), -EBADF);
	io_teardown(&io);
}

TEST(worker_io, errors_come_back_as_results)
{
	errors(true);
	errors(false);
}

static bool under_way(struct io_bench *io, uint32_t n)
{
	for (int i = 0; i < PATIENCE_MS && status(&io->b).io_under_way != n; i++)
		usleep(1000);
	return status(&io->b).io_under_way == n;
}

/* A read of an empty pipe takes as long as the test likes. */
static struct io_bench slow_setup_poll(int *pipes, uint32_t depth, uint32_t poll_us)
{
	struct io_bench io;

	CHECK_EQ(pipe2(pipes, O_CLOEXEC), 0);
	io = io_setup_poll(true, pipes[0], depth, poll_us);
	io.d->plan = (struct libvhost_io){.op = LIBVHOST_IO_READ, .len = 4};
	io.d->pieces = 1;
	return io;
}

static struct io_bench slow_setup(int *pipes, uint32_t depth)
{
	return slow_setup_poll(pipes, depth, 0);
}

/* One request, which the disk takes its time for. Whether the driver had to kick. */
static int slow_request(struct io_bench *io, int pipe_end, uint64_t token)
{
	const int kicked = offer_one(&io->b, token);

	CHECK(under_way(io, 1));
	CHECK_EQ(write(pipe_end, "abcd", 4), 4);
	CHECK(completed(&io->b, token));
	return kicked;
}

/* The worker sleeps while the disk works, so it has asked for kicks; who sees a completion need not kick all the same.
 */
TEST(worker_io, a_completion_opens_the_window_for_the_next_request)
{
	int pipes[2];
	struct io_bench io = slow_setup_poll(pipes, 0, 1000000);
	int caught = 0;

	/* on a busy host a window may pass before we go on */
	for (uint64_t token = 1; caught < 3 && token < 50; token++)
		caught += !slow_request(&io, pipes[1], token);
	CHECK_EQ(caught, 3);
	io_teardown(&io);
	close(pipes[1]);
}

/* The disk ends the worker's sleep soon each time, but that is no reason to look at the ring any longer. */
TEST(worker_io, a_window_that_catches_no_request_closes)
{
	int pipes[2];
	struct io_bench io = slow_setup_poll(pipes, 0, 5000);
	uint64_t token = 0;

	do {
		slow_request(&io, pipes[1], ++token);
		usleep(15000);
	} while (atomic_load(&io.d->window) && token < 100);
	CHECK_EQ(atomic_load(&io.d->window), 0);
	io_teardown(&io);
	close(pipes[1]);
}

TEST(worker_io, a_queue_leaves_when_its_operations_have_ended)
{
	struct libvhost_error e = {.size = sizeof(e)};
	int pipes[2];
	struct io_bench io = slow_setup(pipes, 0);

	offer_one(&io.b, 1);
	CHECK(under_way(&io, 1));
	CHECK_EQ(libvhost_worker_remove_vq(io.b.w, io.b.r.dev, 400), -ETIMEDOUT);
	CHECK_EQ(libvhost_worker_error(io.b.w, &e), 0);
	CHECK(strstr(e.text, "file operations") != NULL);
	CHECK_EQ(write(pipes[1], "ab", 2), 2); /* and it is continued */
	usleep(20000);
	CHECK_EQ(status(&io.b).io_under_way, 1);
	offer_one(&io.b, 2); /* the queue is served again */
	CHECK(under_way(&io, 2));
	CHECK_EQ(write(pipes[1], "cdefgh", 6), 6);
	CHECK(becomes(&io.d->ended, 2)); /* in any order */
	CHECK_EQ(io.d->results[0] | io.d->results[1], 0);
	CHECK_EQ(libvhost_worker_remove_vq(io.b.w, io.b.r.dev, PATIENCE_MS), 0);
	io_teardown(&io);
	close(pipes[1]);
}

static void *write_late(void *arg)
{
	usleep(50000);
	return (void *)(intptr_t)write(*(int *)arg, "abcd", 4);
}

TEST(worker_io, removal_and_end_wait_for_operations)
{
	for (int how = 0; how < 2; how++) {
		int pipes[2];
		struct io_bench io = slow_setup(pipes, 0);
		pthread_t thread;

		offer_one(&io.b, 1);
		CHECK(under_way(&io, 1));
		CHECK_EQ(pthread_create(&thread, NULL, write_late, &pipes[1]), 0);
		if (how)
			CHECK_EQ(libvhost_worker_stop(io.b.w, PATIENCE_MS), 0);
		else
			CHECK_EQ(libvhost_worker_remove_vq(io.b.w, io.b.r.dev, PATIENCE_MS), 0);
		CHECK_EQ(atomic_load(&io.d->ended), 1);
		CHECK_EQ(io.d->results[0] | io.d->results[1], 0);
		pthread_join(thread, NULL);
		io_teardown(&io);
		close(pipes[1]);
	}
}

TEST(worker_io, depth_is_a_limit)
{
	int pipes[2];
	struct io_bench io = slow_setup(pipes, 2);

	for (uint64_t i = 1; i <= 3; i++)
		offer_one(&io.b, i);
	CHECK(under_way(&io, 2));
	for (int i = 0; i < PATIENCE_MS && !atomic_load(&io.d->busy); i++)
		usleep(1000);
	CHECK_EQ(atomic_load(&io.d->busy), 1);
	CHECK_EQ(write(pipes[1], "abcdefgh", 8), 8);
	CHECK(under_way(&io, 0));
	io_teardown(&io);
	close(pipes[1]);
}

TEST(worker_io, arguments)
{
	struct bench b = setup(SLOTS, 0, LIBVHOST_WORKER_NO_WINDOW);
	struct libvhost_worker_opts o = {.size = sizeof(o), .sandbox = SANDBOX, .num_files = 1};
	struct libvhost_io op = {.done = ended, .len = 1};
	struct libvhost_worker *w;
	int32_t file = 9999;

	CHECK_EQ(libvhost_vq_io(b.r.dev, &op), -EINVAL); /* nobody serves it */
	CHECK_EQ(libvhost_vq_io(NULL, &op), -EINVAL);
	CHECK_EQ(libvhost_worker_new(b.r.g.ctx, &o, &w), -EINVAL); /* no files */
	o.files = &file;
	CHECK_EQ(libvhost_worker_new(b.r.g.ctx, &o, &w), -EINVAL); /* role */
	o.role = LIBVHOST_ROLE_BLOCK;
	CHECK_EQ(libvhost_worker_new(b.r.g.ctx, &o, &w), -EBADF);
	o.io_depth = 5000;
	CHECK_EQ(libvhost_worker_new(b.r.g.ctx, &o, &w), -EINVAL);
	o.num_files = 65;
	CHECK_EQ(libvhost_worker_new(b.r.g.ctx, &o, &w), -EINVAL);
	teardown(&b);
}

/* What the ring says, asked by a host whose filter refuses nothing. */
static int32_t refused(uint8_t opcode, uint8_t flags)
{
	struct lv_uring ring;
	struct libvhost_io op = {.op = LIBVHOST_IO_FLUSH};
	int32_t file = new_file(BYTES), result = 1;

	CHECK_EQ(lv_uring_init(&ring, 4, &file, 1), 0);
	lv_uring_prepare(&ring, &op);
	ring.sqes[0].opcode = opcode;
	ring.sqes[0].flags = flags;
	lv_uring_enter(&ring, 1);
	CHECK(lv_uring_take(&ring, &result) == &op);
	CHECK(lv_uring_take(&ring, &result) == NULL);
	CHECK(syscall(SYS_io_uring_register, ring.fd, IORING_UNREGISTER_FILES, NULL, 0) < 0);
	lv_uring_destroy(&ring);
	close(file);
	return result;
}

TEST(worker_io, the_ring_can_do_nothing_else)
{
	static const uint8_t forbidden[] = {
		IORING_OP_NOP,	   IORING_OP_OPENAT,	   IORING_OP_OPENAT2,	IORING_OP_CONNECT, IORING_OP_SENDMSG,
		IORING_OP_RECVMSG, IORING_OP_ACCEPT,	   IORING_OP_CLOSE,	IORING_OP_SOCKET,  IORING_OP_POLL_ADD,
		IORING_OP_SPLICE,  IORING_OP_FILES_UPDATE, IORING_OP_EPOLL_CTL, IORING_OP_MADVISE};

	for (size_t i = 0; i < sizeof(forbidden); i++)
		CHECK_EQ(refused(forbidden[i], IOSQE_FIXED_FILE), -EACCES);
	CHECK_EQ(refused(IORING_OP_FSYNC, IOSQE_FIXED_FILE | IOSQE_ASYNC), 0); /* what it is for */
	CHECK_EQ(refused(IORING_OP_FSYNC, 0), -EACCES);			       /* a descriptor that is not registered */
	CHECK_EQ(refused(IORING_OP_FSYNC, IOSQE_FIXED_FILE | IOSQE_IO_LINK), -EACCES);
}
