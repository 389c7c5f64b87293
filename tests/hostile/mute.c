/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* Guest memory, or a device's disk, in a file of a file system that never answers: who touches it waits for ever. */
#include "frontend.h"

#include <pthread.h>

#include "mutefs.h"

#define MUTE_GPA  0x10000000ull
#define MUTE_ADDR (UADDR + MUTE_GPA)
#define LIMIT_MS  500u

static uint64_t first_byte(const struct libvhost_chain *c)
{
	(void)*(volatile uint8_t *)c->iov[0].base;
	return 0;
}

/* Reads the first byte of each request, as devices do. */
static int reader(void *arg, uint32_t queue, struct libvhost_vq *vq)
{
	(void)arg;
	(void)queue;
	return fake_each(vq, first_byte);
}

static const struct libvhost_backend_ops ops = {.size = sizeof(ops), .serve = reader};
static const struct libvhost_backend_opts two_workers = {.ops = &ops, .num_workers = 2, .timeout_ms = LIMIT_MS};

static struct fake with_mute_memory(const struct mutefs *m)
{
	struct fake p = fake_new(&two_workers);
	struct libvhost_region regions[2] = {{.size = RAM_BYTES, .user_addr = UADDR, .fd = p.ram},
					     {.gpa = MUTE_GPA, .size = RAM_BYTES, .user_addr = MUTE_ADDR, .fd = m->fd}};

	handshake(&p);
	CHECK_EQ(ask_table(&p, regions, 2, 2), 0);
	return p;
}

/* Another ring of the device is served, on the other worker, and questions are answered. */
static void lives_on(struct fake *p, struct fake *other, uint16_t n)
{
	uint64_t begin = now_ms();

	CHECK(get_u64(p, LIBVHOST_OP_GET_FEATURES) & F30);
	CHECK(now_ms() - begin < 5 * LIMIT_MS);
	ring_offer(p);
	CHECK(ring_used(p, n));
	ring_offer(other);
	CHECK(ring_used(other, n));
}

/* The front-end is refused, the host's stop says which queue and why, and when the file system speaks all ends. */
static void ends_when_it_speaks(struct fake *p, struct fake *other, struct mutefs *m, const char *why)
{
	struct libvhost_error e = {.size = sizeof(e)};
	uint64_t begin = now_ms();

	send_msg(p, LIBVHOST_OP_GET_VRING_BASE, 0, (uint32_t[2]){1, 0}, 8, NULL, 0);
	CHECK(closed(p));
	CHECK(now_ms() - begin < 10 * LIMIT_MS);
	CHECK_EQ(libvhost_backend_error(p->b, &e), 0);
	begin = now_ms();
	CHECK_EQ(libvhost_backend_stop(p->b, LIMIT_MS), -ETIMEDOUT);
	CHECK(now_ms() - begin < 10 * LIMIT_MS);
	CHECK_EQ(libvhost_backend_error(p->b, &e), 0);
	CHECK_HAS(e.text, "queue 1");
	CHECK_HAS(e.text, why);
	CHECK_EQ(e.queue, 1);
	ring_offer(other);
	CHECK(ring_used(other, 2));
	mutefs_speak(m);
	CHECK_EQ(libvhost_backend_stop(p->b, PATIENCE_MS), 0);
	p->stopped = true;
}

static void end(struct fake *p, struct fake *other, struct mutefs *m, struct lv_ledger *before)
{
	fake_free(p);
	fake_free(other);
	mutefs_free(m);
	CHECK_LEDGER(*before);
}

#define SETUP                                                                                                          \
	struct lv_ledger before = lv_ledger_take();                                                                    \
	struct fake p, other;                                                                                          \
	struct mutefs m;                                                                                               \
	if (!mutefs_new(&m, RAM_BYTES))                                                                                \
		SKIP("no FUSE file system can be mounted here");                                                       \
	other = fake_new(&two_workers);                                                                                \
	handshake(&other);                                                                                             \
	CHECK_EQ(ring_up(&other, 0), 0);                                                                               \
	p = with_mute_memory(&m);                                                                                      \
	CHECK_EQ(ring_up(&p, 0), 0)

/* One request on queue 1, with a buffer at gpa, while nobody looks: it is served when the queue starts anew. */
static void offer_unheard(struct fake *p, uint64_t gpa)
{
	struct lv_desc d = {.addr = gpa, .len = 64};

	CHECK_EQ(ask_state(p, LIBVHOST_OP_SET_VRING_ENABLE, 1, 0), 0);
	memcpy(p->mem + 0x4000, &d, sizeof(d));
	atomic_store((_Atomic uint16_t *)(void *)(p->mem + 0x4000 + 0x1002), 1);
	CHECK_EQ(ask_state(p, LIBVHOST_OP_SET_VRING_ENABLE, 1, 1), 0);
}

TEST(mute_memory, r062_a_buffer_whose_file_system_never_answers)
{
	SETUP;

	lv_test_deadline(60);
	CHECK_EQ(ring_up(&p, 1), 0);
	offer_unheard(&p, MUTE_GPA);
	CHECK(mutefs_asked(&m));
	lives_on(&p, &other, 1);
	ends_when_it_speaks(&p, &other, &m, "a handler does not return");
	end(&p, &other, &m, &before);
}

TEST(mute_memory, r062_a_ring_whose_file_system_never_answers)
{
	SETUP;

	lv_test_deadline(60);
	CHECK_EQ(ask_state(&p, LIBVHOST_OP_SET_VRING_NUM, 1, 8), 0);
	CHECK_EQ(ask_state(&p, LIBVHOST_OP_SET_VRING_BASE, 1, 0), 0);
	CHECK_EQ(ask_addr(&p, 1, MUTE_ADDR, MUTE_ADDR + 0x1000, MUTE_ADDR + 0x2000), 0);
	CHECK_EQ(ask_fd(&p, LIBVHOST_OP_SET_VRING_KICK, 1, p.err), 0);
	CHECK_EQ(ask_state(&p, LIBVHOST_OP_SET_VRING_ENABLE, 1, 1), 0);
	CHECK(mutefs_asked(&m));
	lives_on(&p, &other, 1);
	ends_when_it_speaks(&p, &other, &m, "a handler does not return");
	end(&p, &other, &m, &before);
}

/* A request of each queue, whose data lies in the file of that queue's number. */
static struct transfer {
	struct libvhost_io io;
	struct libvhost_iov iov;
	uint8_t data[64];
	uint32_t head;
} transfers[2];

static void transferred(struct libvhost_io *io)
{
	const struct transfer *t = io->arg;

	libvhost_vq_push(io->vq, t->head, 0);
}

static int disk(void *arg, uint32_t queue, struct libvhost_vq *vq)
{
	struct transfer *t = &transfers[queue];
	struct libvhost_iov iov[4];
	struct libvhost_chain c = {.size = sizeof(c), .iov = iov, .iov_cap = 4};
	const int rc = libvhost_vq_pop(vq, &c);

	(void)arg;
	if (rc <= 0)
		return rc;
	t->head = c.head;
	t->iov = (struct libvhost_iov){t->data, sizeof(t->data)};
	t->io = (struct libvhost_io){.op = LIBVHOST_IO_READ,
				     .file = queue,
				     .len = sizeof(t->data),
				     .iov = &t->iov,
				     .num_iov = 1,
				     .done = transferred,
				     .arg = t};
	return libvhost_vq_io(vq, &t->io) < 0 ? -EIO : 1;
}

/* Queue 1 reads from the file that does not answer. With io_uring the worker waits for nobody, so one serves both. */
static void own_disk(uint32_t flags, uint32_t workers, const char *why)
{
	static const struct libvhost_backend_ops disk_ops = {.size = sizeof(disk_ops), .serve = disk};
	struct libvhost_worker_opts worker = {.role = LIBVHOST_ROLE_BLOCK, .flags = flags, .num_files = 2};
	const struct libvhost_backend_opts opts = {
		.ops = &disk_ops, .worker = &worker, .num_workers = workers, .timeout_ms = LIMIT_MS};
	struct lv_ledger before = lv_ledger_take();
	struct fake p, other;
	struct mutefs m;
	int files[2];

	if (!mutefs_new(&m, RAM_BYTES))
		SKIP("no FUSE file system can be mounted here");
	worker.files = files;
	files[0] = memfd(RAM_BYTES, 0);
	files[1] = m.fd;
	other = fake_new(&two_workers);
	handshake(&other);
	CHECK_EQ(ring_up(&other, 0), 0);
	p = fake_new(&opts);
	handshake(&p);
	CHECK_EQ(ring_up(&p, 0), 0);
	CHECK_EQ(ring_up(&p, 1), 0);
	offer_unheard(&p, 0x10000);
	CHECK(mutefs_asked(&m));
	lives_on(&p, &other, 1);
	ends_when_it_speaks(&p, &other, &m, why);
	fake_free(&p);
	fake_free(&other);
	close(files[0]);
	mutefs_free(&m);
	CHECK_LEDGER(before);
}

TEST(mute_disk, r062_a_disk_whose_file_system_never_answers)
{
	own_disk(LIBVHOST_WORKER_IO_URING, 1, "file operations or promised calls of its requests do not end");
}

TEST(mute_disk, r062_a_disk_whose_file_system_never_answers_without_io_uring)
{
	own_disk(0, 2, "a file does not answer");
}
