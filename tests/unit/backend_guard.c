/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* LIBVHOST_CTX_SIGBUS_GUARD: front-ends that cut off what they shared. */
#include <poll.h>
#include <pthread.h>
#include <time.h>

#include "frontend.h"
#include "sigbushelp.h"

/* ---- a front-end that cuts, and one that does not ---- */

static const struct libvhost_backend_ops touch_ops = {.size = sizeof(touch_ops), .serve = fake_touch};
static const struct libvhost_backend_opts touching = {.ops = &touch_ops};

static struct fake guarded_device(const struct libvhost_backend_opts *o)
{
	const struct libvhost_ctx_opts ctx = {.size = sizeof(ctx), .flags = LIBVHOST_CTX_SIGBUS_GUARD};
	struct fake p = fake_new_ctx(o, &ctx);

	handshake(&p);
	return p;
}

static void works(struct fake *p)
{
	memset(p->mem, 0, 0x4000);
	CHECK_EQ(ring_up(p, 0), 0);
	ring_offer(p);
	CHECK(ring_used(p, 1));
	CHECK_EQ(get_base(p, 0), 1);
}

static struct fake working_device(void)
{
	struct fake p = guarded_device(&touching);

	works(&p);
	return p;
}

/* Queue 0 is broken by what the front-end did, which is said once, and the reason is the memory. */
static void is_broken(struct fake *p)
{
	struct libvhost_event e = {0};

	for (int i = 0; i < PATIENCE_MS && e.type != LIBVHOST_EVENT_QUEUE_ERROR; i++) {
		settle(p);
		if (libvhost_backend_next_event(p->b, &e) != 1)
			usleep(1000);
	}
	CHECK_EQ(e.type, LIBVHOST_EVENT_QUEUE_ERROR);
	CHECK_EQ(e.err, -EFAULT);
	CHECK_EQ(e.queue, 0);
	CHECK_HAS(e.text, "cut off");
}

/* The same file, long again, in a new mapping of the front-end. */
static void restore(struct fake *p)
{
	struct libvhost_region r = {.size = RAM_BYTES, .user_addr = UADDR, .fd = p->ram};

	CHECK_EQ(ftruncate(p->ram, RAM_BYTES), 0);
	CHECK_EQ(ask_table(p, &r, 1, 1), 0);
}

TEST(backend_guard, r051_a_file_cut_off_while_its_ring_runs)
{
	struct fake other = working_device(), p = guarded_device(&touching);

	CHECK_EQ(ring_up(&p, 0), 0);
	ring_offer(&p);
	CHECK(ring_used(&p, 1));
	CHECK_EQ(ftruncate(p.ram, 0), 0);
	CHECK_EQ(eventfd_write(p.kick, 1), 0);
	is_broken(&p);
	works(&other);
	/* the front-end repents */
	get_base(&p, 0);
	restore(&p);
	works(&p);
	fake_free(&p);
	fake_free(&other);
}

/* The ring is still there; what a request points to is not. */
TEST(backend_guard, r051_only_the_data_is_gone)
{
	struct fake p = guarded_device(&touching);

	CHECK_EQ(ring_up(&p, 0), 0);
	CHECK_EQ(ftruncate(p.ram, 0x10000), 0);
	ring_offer(&p);
	is_broken(&p);
	get_base(&p, 0);
	restore(&p);
	works(&p);
	fake_free(&p);
}

/*
 * ThreadSanitizer stores with a lock of its own held where a store releases. When that is where memory is missing, our
 * action, which runs in the middle of it, waits for that lock. Loads are all right.
 */
#if !LV_TSAN
struct cutter {
	int fd;
	atomic_bool stop;
	atomic_uint cuts;
};

static void *cut_and_grow(void *arg)
{
	struct cutter *c = arg;

	while (!atomic_load(&c->stop)) {
		CHECK_EQ(ftruncate(c->fd, (c->cuts++ & 3) * 0x5000), 0);
		CHECK_EQ(ftruncate(c->fd, RAM_BYTES), 0);
		usleep(c->cuts % 7 * 700); /* now and then there is time to start rings */
	}
	return NULL;
}

static unsigned errors(struct fake *p, unsigned *starts)
{
	struct libvhost_event e;
	unsigned n = 0;

	while (libvhost_backend_next_event(p->b, &e) == 1) {
		n += e.type == LIBVHOST_EVENT_QUEUE_ERROR;
		*starts += e.type == LIBVHOST_EVENT_STARTED;
		if (e.type == LIBVHOST_EVENT_QUEUE_ERROR)
			CHECK(e.err == -EFAULT || e.err == -EBADMSG); /* a ring of zeros that is a ring again */
	}
	return n;
}

/* Offers on all four rings through pwrite(): our own mapping would fault here. */
static void offer_all(struct fake *p, const int *kicks, uint16_t idx)
{
	for (uint32_t q = 0; q < 4; q++) {
		const struct lv_desc d = {.addr = 0x10000 + q * 0x10000, .len = 4096, .flags = 2};

		CHECK_EQ(pwrite(p->ram, &d, sizeof(d), q * 0x4000), sizeof(d));
		CHECK_EQ(pwrite(p->ram, &idx, sizeof(idx), q * 0x4000 + 0x1002), sizeof(idx));
		CHECK_EQ(eventfd_write(kicks[q], 1), 0);
	}
}

static int rings_up(struct fake *p, const int *kicks)
{
	int rc = 0;

	for (uint32_t q = 0; q < 4 && rc == 0; q++) {
		static const uint8_t fresh[0x3000];
		const uint64_t at = UADDR + q * 0x4000;

		CHECK_EQ(pwrite(p->ram, fresh, sizeof(fresh), q * 0x4000), sizeof(fresh));
		rc = ask_state(p, LIBVHOST_OP_SET_VRING_NUM, q, 8);
		rc = rc ? rc : ask_state(p, LIBVHOST_OP_SET_VRING_BASE, q, 0);
		rc = rc ? rc : ask_addr(p, q, at, at + 0x1000, at + 0x2000);
		rc = rc ? rc : ask_fd(p, LIBVHOST_OP_SET_VRING_KICK, q, kicks[q]);
		rc = rc ? rc : ask_state(p, LIBVHOST_OP_SET_VRING_ENABLE, q, 1);
	}
	return rc;
}

/* The process lives, each start of a ring ends in at most one error, and a device of its own goes on. */
TEST(backend_guard, r052_four_queues_while_their_memory_comes_and_goes)
{
	struct fake other = working_device(), p = guarded_device(&touching);
	struct libvhost_region r = {.size = RAM_BYTES, .user_addr = UADDR, .fd = p.ram};
	struct cutter c = {.fd = p.ram};
	unsigned starts = 0, broken = 0, cuts = 0;
	const time_t give_up = time(NULL) + PATIENCE_MS / 1000;
	pthread_t thread;
	int kicks[4];

	for (int q = 0; q < 4; q++)
		kicks[q] = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	CHECK_EQ(pthread_create(&thread, NULL, cut_and_grow, &c), 0);
	/* until there was enough of everything: who gets to run when is the scheduler's affair */
	for (unsigned round = 0; round < 400 || (!(cuts > 100 && starts > 100 && broken > 10) && time(NULL) < give_up);
	     round++) {
		if (ask_table(&p, &r, 1, 1) == 0 && rings_up(&p, kicks) == 0)
			for (uint16_t i = 1; i < 10; i++) {
				offer_all(&p, kicks, i);
				usleep(300);
			}
		settle(&p);
		for (uint32_t q = 0; q < 4; q++)
			get_base(&p, q);
		broken += errors(&p, &starts);
		cuts = atomic_load(&c.cuts);
		if (round % 50 == 0)
			works(&other);
	}
	atomic_store(&c.stop, true);
	CHECK_EQ(pthread_join(thread, NULL), 0);
	CHECK(cuts > 100 && starts > 100 && broken > 10);
	CHECK(broken <= starts);
	restore(&p);
	works(&p);
	for (int q = 0; q < 4; q++)
		close(kicks[q]);
	fake_free(&p);
	fake_free(&other);
}

TEST(backend_guard, an_inflight_region_cut_off)
{
	struct fake p = guarded_device(&touching);
	struct {
		uint64_t bytes, offset;
		uint16_t queues, size;
	} f = {.bytes = 0x4000, .queues = 4, .size = 8};
	int fd = memfd(0x4000, 0);

	CHECK_EQ(ask(&p, LIBVHOST_OP_SET_INFLIGHT_FD, &f, 20, &fd, 1), 0);
	CHECK_EQ(ring_up(&p, 0), 0);
	ring_offer(&p);
	CHECK(ring_used(&p, 1));
	CHECK_EQ(ftruncate(fd, 0), 0);
	ring_offer(&p);
	is_broken(&p);
	close(fd);
	fake_free(&p);
}
#endif

static void cut_unguarded(void)
{
	struct fake p = fake_new(&touching);

	handshake(&p);
	if (ring_up(&p, 0) == 0 && ftruncate(p.ram, 0) == 0)
		eventfd_write(p.kick, 1);
	sleep(10);
}

/* A handler that finds zeros where a request should be, and says so. */
static int wants_sense(void *arg, uint32_t queue, struct libvhost_vq *vq)
{
	struct libvhost_iov iov[16];
	struct libvhost_chain c = {.size = sizeof(c), .iov = iov, .iov_cap = 16};
	int rc = libvhost_vq_pop(vq, &c);

	(void)arg;
	(void)queue;
	if (rc > 0 && !load(iov[0].base))
		return -EPROTO;
	return rc;
}

TEST(backend_guard, what_the_handler_makes_of_it_is_not_the_reason)
{
	const struct libvhost_backend_ops ops = {.size = sizeof(ops), .serve = wants_sense};
	const struct libvhost_backend_opts o = {.ops = &ops};
	struct fake p = guarded_device(&o);

	CHECK_EQ(ring_up(&p, 0), 0);
	CHECK_EQ(ftruncate(p.ram, 0x10000), 0);
	ring_offer(&p);
	is_broken(&p);
	fake_free(&p);
}

/* Without workers the host's own thread finds out, and says it by the next dispatch. */
TEST(backend_guard, pulled_queues_say_it_too)
{
	const struct libvhost_backend_opts o = {.flags = LIBVHOST_BACKEND_PULL};
	struct fake p = guarded_device(&o);
	struct libvhost_vq *vq = NULL;
	int kick;

	CHECK_EQ(ring_up(&p, 0), 0);
	CHECK_EQ(libvhost_backend_queue(p.b, 0, &vq, &kick), 0);
	CHECK_EQ(fake_touch(NULL, 0, vq), 0);
	ring_offer(&p);
	CHECK_EQ(ftruncate(p.ram, 0x10000), 0);
	fake_touch(NULL, 0, vq);
	CHECK_EQ(libvhost_vq_flush(vq), -EFAULT);
	is_broken(&p);
	CHECK_EQ(libvhost_backend_queue(p.b, 0, &vq, &kick), -EBADMSG);
	get_base(&p, 0);
	restore(&p);
	CHECK_EQ(ring_up(&p, 0), 0);
	CHECK_EQ(libvhost_backend_queue(p.b, 0, &vq, &kick), 0);
	fake_free(&p);
}

/* The known limit that the guard is for. */
TEST(backend_guard, r051_without_the_guard_the_process_dies)
{
	CHECK(died_of_it(status_of(cut_unguarded)));
}
