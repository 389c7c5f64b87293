/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* Queues that change their worker. */
#include "frontend.h"

#include <pthread.h>

#define WORKERS 3u
#define ROUNDS	400u
#define BATCH	4u

static struct libvhost_worker_status status_of(struct fake *p, uint32_t worker)
{
	struct libvhost_worker_status s = {.size = sizeof(s)};

	CHECK_EQ(libvhost_backend_worker_status(p->b, worker, &s), 0);
	return s;
}

struct mover {
	struct libvhost_backend *b;
	atomic_bool end;
	atomic_uint moves;
	int rc;
};

static void *move_on_and_on(void *arg)
{
	struct mover *m = arg;

	for (uint32_t i = 1; !m->end && m->rc == 0; i++) {
		m->rc = libvhost_backend_move_queue(m->b, 0, i % WORKERS, PATIENCE_MS);
		m->moves++;
	}
	return NULL;
}

TEST(backend_placement, a_queue_moves_under_load)
{
	const struct libvhost_backend_opts o = {.num_workers = WORKERS};
	struct fake p = fake_new(&o);
	struct mover m = {.b = p.b};
	pthread_t thread;

	handshake(&p);
	CHECK_EQ(ring_up(&p, 0), 0);
	CHECK_EQ(pthread_create(&thread, NULL, move_on_and_on, &m), 0);
	for (unsigned i = 1; i <= ROUNDS || m.moves < 2 * WORKERS; i++) {
		for (unsigned n = 0; n < BATCH; n++)
			ring_offer(&p);
		CHECK(ring_used(&p, (uint16_t)(i * BATCH))); /* each once, and none waits for the next kick */
	}
	m.end = true;
	pthread_join(thread, NULL);
	CHECK_EQ(m.rc, 0);
	for (uint32_t w = 0; w < WORKERS; w++)
		CHECK(status_of(&p, w).requests > 0);
	fake_free(&p);
}

TEST(backend_placement, begins_modulo_and_stays_where_it_was_moved)
{
	const struct libvhost_backend_opts o = {.num_workers = 2};
	struct fake p = fake_new(&o);

	CHECK_EQ(libvhost_backend_move_queue(p.b, 1, 0, 0), 0); /* nothing runs: nothing to wait for */
	handshake(&p);
	for (uint32_t q = 0; q < 3; q++)
		CHECK_EQ(ring_up(&p, q), 0);
	CHECK_EQ(status_of(&p, 0).queues, 3);
	CHECK_EQ(libvhost_backend_move_queue(p.b, 2, 1, PATIENCE_MS), 0);
	CHECK_EQ(libvhost_backend_move_queue(p.b, 2, 1, PATIENCE_MS), 0);
	CHECK_EQ(status_of(&p, 0).queues, 2);
	CHECK_EQ(status_of(&p, 1).queues, 1);
	memset(p.mem, 0, RAM_BYTES);
	fake_connect(&p);
	handshake(&p);
	CHECK_EQ(ring_up(&p, 2), 0);
	CHECK_EQ(status_of(&p, 1).queues, 1); /* also for the next front-end */
	fake_free(&p);
}

static atomic_bool hold, held;

/* The second queue's handler does not return. */
static int stubborn(void *arg, uint32_t queue, struct libvhost_vq *vq)
{
	while (queue == 1 && hold)
		held = true;
	return fake_serve(arg, queue, vq);
}

static const struct libvhost_backend_ops holding = {.size = sizeof(holding), .serve = stubborn};

TEST(backend_placement, a_worker_that_is_stuck_neither_gets_nor_gives)
{
	const struct libvhost_backend_opts o = {.num_workers = 2, .ops = &holding};
	struct libvhost_error e = {.size = sizeof(e)};
	struct fake p = fake_new(&o);

	hold = true;
	held = false;
	handshake(&p);
	CHECK_EQ(ring_up(&p, 0), 0);
	CHECK_EQ(ring_up(&p, 1), 0);
	while (!held)
		usleep(100);
	CHECK_EQ(libvhost_backend_move_queue(p.b, 0, 1, 50), -ETIMEDOUT);
	CHECK_EQ(libvhost_backend_error(p.b, &e), 0);
	CHECK_HAS(e.text, "queue 0");
	CHECK_HAS(e.text, "worker 1");
	CHECK_EQ(e.queue, 0);
	CHECK_EQ(libvhost_backend_move_queue(p.b, 1, 0, 50), -ETIMEDOUT);
	ring_offer(&p);
	CHECK(ring_used(&p, 1));
	hold = false;
	CHECK_EQ(libvhost_backend_move_queue(p.b, 1, 0, PATIENCE_MS), 0);
	CHECK_EQ(libvhost_backend_move_queue(p.b, 0, 1, PATIENCE_MS), 0);
	ring_offer(&p);
	CHECK(ring_used(&p, 2));
	fake_free(&p);
}

TEST(backend_placement, refuses_what_is_not_there)
{
	struct libvhost_error e = {.size = sizeof(e)};
	struct fake p = fake_new(NULL);

	CHECK_EQ(libvhost_backend_move_queue(NULL, 0, 0, 0), -EINVAL);
	CHECK_EQ(libvhost_backend_move_queue(p.b, 4, 0, 0), -EINVAL);
	CHECK_EQ(libvhost_backend_error(p.b, &e), 0);
	CHECK_HAS(e.text, "4 queues and 1 workers");
	CHECK_EQ(libvhost_backend_move_queue(p.b, 0, 1, 0), -EINVAL);
	CHECK_EQ(libvhost_backend_move_queue(p.b, 0, 0, UINT32_MAX), -EINVAL);
	CHECK(libvhost_backend_worker(p.b, 0) != NULL);
	CHECK(libvhost_backend_worker(p.b, 1) == NULL);
	CHECK(libvhost_backend_worker(NULL, 0) == NULL);
	fake_free(&p);
}

static int fails(void *arg, int fd)
{
	(void)arg;
	(void)fd;
	return -EIO;
}

TEST(backend_placement, a_descriptor_that_its_worker_gave_up_is_reported)
{
	struct fake p = fake_new(NULL);
	struct libvhost_worker *w = libvhost_backend_worker(p.b, 0);
	struct libvhost_event e;
	int fd = eventfd(1, EFD_CLOEXEC | EFD_NONBLOCK);

	CHECK_EQ(libvhost_worker_add_fd(w, fd, fails, NULL, PATIENCE_MS), 0);
	for (int i = 0; i < 100; i++) {
		CHECK_EQ(libvhost_backend_dispatch(p.b, 100), 0);
		if (libvhost_backend_next_event(p.b, &e) == 1 && e.type == LIBVHOST_EVENT_QUEUE_ERROR)
			break;
	}
	CHECK_EQ(e.queue, LIBVHOST_NONE);
	CHECK_EQ(e.err, -EIO);
	CHECK_EQ(e.value[0], (unsigned)fd);
	CHECK_EQ(libvhost_worker_remove_fd(w, fd, PATIENCE_MS), 0);
	close(fd);
	fake_free(&p);
}

struct watcher {
	int fd;
	atomic_uint reads, tid;
};

static int read_watched(void *arg, uint32_t queue, struct libvhost_vq *vq)
{
	struct watcher *w = arg;
	int rc = fake_serve(arg, queue, vq);

	if (queue == 0 && signalled(w->fd)) {
		w->tid = (unsigned)gettid();
		w->reads++;
	}
	return rc < 0 ? rc : LIBVHOST_TURN_WAIT;
}

TEST(backend_placement, what_a_queue_watches_moves_along)
{
	static const struct libvhost_backend_ops ops = {.size = sizeof(ops), .serve = read_watched};
	struct watcher w = {.fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)};
	const struct libvhost_backend_opts o = {.num_workers = 2, .ops = &ops, .arg = &w};
	struct fake p = fake_new(&o);

	CHECK_EQ(libvhost_backend_watch_fd(p.b, 0, w.fd), 0);
	handshake(&p);
	CHECK_EQ(ring_up(&p, 0), 0);
	for (unsigned i = 1; i <= 4; i++) {
		CHECK_EQ(libvhost_backend_move_queue(p.b, 0, i % 2, PATIENCE_MS), 0);
		CHECK_EQ(eventfd_write(w.fd, 1), 0);
		for (int n = 0; n < PATIENCE_MS && w.reads < i; n++)
			usleep(1000);
		CHECK_EQ(w.reads, i);
		CHECK_EQ(w.tid, status_of(&p, i % 2).tid);
	}
	fake_free(&p);
	close(w.fd);
}

/* Who pulls has no workers to choose from; a queue that is not set up goes where it is sent and begins there. */
TEST(backend_placement, before_a_queue_runs_and_without_workers)
{
	const struct libvhost_backend_opts pull = {.flags = LIBVHOST_BACKEND_PULL}, two = {.num_workers = 2};
	struct fake p = fake_new(&two);

	handshake(&p);
	CHECK_EQ(libvhost_backend_move_queue(p.b, 3, 0, 0), 0);
	CHECK_EQ(ring_up(&p, 3), 0);
	CHECK_EQ(status_of(&p, 0).queues, 1);
	CHECK_EQ(status_of(&p, 1).queues, 0);
	fake_free(&p);
	p = fake_new(&pull);
	CHECK_EQ(libvhost_backend_move_queue(p.b, 0, 0, 0), -EINVAL);
	CHECK(libvhost_backend_worker(p.b, 0) == NULL);
	fake_free(&p);
}
