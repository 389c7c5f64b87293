/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* The end of a back-end, and what still may be asked of it then. */
#include "frontend.h"

#include <pthread.h>
#include "core/wire.h"

static void stop(struct fake *p)
{
	p->stopped = true;
	CHECK_EQ(libvhost_backend_stop(p->b, PATIENCE_MS), 0);
}

TEST(backend_stop, takes_everything_back)
{
	struct libvhost_worker_status s = {.size = sizeof(s)};
	struct libvhost_transport *t;
	struct lv_ledger before;
	struct fake p = fake_new(NULL); /* a sanitizer's first thread brings one of its own */
	char path[64];

	fake_free(&p);
	before = lv_ledger_take();
	p = fake_new(NULL);
	snprintf(path, sizeof(path), "/tmp/libvhost-stop-%d.sock", getpid());
	CHECK_EQ(libvhost_backend_listen(p.b, path), 0);
	handshake(&p);
	for (uint32_t q = 0; q < 4; q++)
		CHECK_EQ(ring_up(&p, q), 0);
	ring_offer(&p);
	stop(&p);
	CHECK_EQ(access(path, F_OK), -1);
	CHECK_EQ(recv(p.sock, path, 1, 0), 0);
	take_event(&p, LIBVHOST_EVENT_DISCONNECTED);
	CHECK_EQ(libvhost_backend_worker_status(p.b, 0, &s), -ESRCH);
	CHECK_EQ(libvhost_backend_stop(p.b, 0), 0);
	CHECK_EQ(libvhost_backend_dispatch(p.b, 10000), -ESHUTDOWN);
	CHECK_EQ(libvhost_backend_listen(p.b, "/tmp/libvhost-never"), -ESHUTDOWN);
	CHECK_EQ(libvhost_backend_adopt(p.b, p.sock), -ESHUTDOWN);
	CHECK_EQ(libvhost_backend_inproc(p.b, &t), -ESHUTDOWN);
	CHECK_EQ(libvhost_backend_move_queue(p.b, 0, 0, 0), -ESHUTDOWN);
	fake_free(&p);
	CHECK_LEDGER(before);
}

TEST(backend_stop, refuses_wrong_arguments)
{
	struct fake p = fake_new(NULL);

	CHECK_EQ(libvhost_backend_stop(NULL, 0), -EINVAL);
	CHECK_EQ(libvhost_backend_stop(p.b, UINT32_MAX), -EINVAL);
	handshake(&p); /* it goes on */
	fake_free(&p);
}

static atomic_bool hold, held;

static int stubborn(void *arg, uint32_t queue, struct libvhost_vq *vq)
{
	while (hold)
		held = true;
	return fake_serve(arg, queue, vq);
}

TEST(backend_stop, has_a_deadline)
{
	static const struct libvhost_backend_ops ops = {.size = sizeof(ops), .serve = stubborn};
	const struct libvhost_backend_opts o = {.ops = &ops};
	struct libvhost_error e = {.size = sizeof(e)};
	struct fake p = fake_new(&o);
	uint64_t began;

	hold = true;
	held = false;
	handshake(&p);
	CHECK_EQ(ring_up(&p, 0), 0);
	while (!held)
		usleep(100);
	p.stopped = true;
	began = now_ms();
	CHECK_EQ(libvhost_backend_stop(p.b, 100), -ETIMEDOUT);
	CHECK(now_ms() - began < PROMPT_MS);
	CHECK_EQ(libvhost_backend_error(p.b, &e), 0);
	CHECK_EQ(e.kind, LIBVHOST_EK_TIMEOUT);
	CHECK_EQ(e.code, -ETIMEDOUT);
	hold = false;
	CHECK_EQ(libvhost_backend_stop(p.b, PATIENCE_MS), 0);
	fake_free(&p);
}

static atomic_bool fd_held;

static int holds(void *arg, int fd)
{
	(void)arg;
	(void)fd;
	while (hold)
		fd_held = true;
	return 0;
}

/* The queues are back, but what the host gave the worker keeps it. */
TEST(backend_stop, waits_for_handlers_of_descriptors)
{
	struct fake p = fake_new(NULL);
	int fd = eventfd(1, EFD_CLOEXEC | EFD_NONBLOCK);

	hold = true;
	fd_held = false;
	CHECK_EQ(libvhost_worker_add_fd(libvhost_backend_worker(p.b, 0), fd, holds, NULL, PATIENCE_MS), 0);
	while (!fd_held)
		usleep(100);
	p.stopped = true;
	CHECK_EQ(libvhost_backend_stop(p.b, 50), -ETIMEDOUT);
	hold = false;
	CHECK_EQ(libvhost_backend_stop(p.b, PATIENCE_MS), 0);
	close(fd);
	fake_free(&p);
}

static void *dispatch(void *arg)
{
	struct fake *p = arg;

	while (libvhost_backend_dispatch(p->b, 60000) == 0)
		;
	return NULL;
}

TEST(backend_stop, wakes_who_dispatches)
{
	struct fake p = fake_new(NULL);
	uint64_t began = now_ms();
	pthread_t thread;

	CHECK_EQ(pthread_create(&thread, NULL, dispatch, &p), 0);
	usleep(20000);
	stop(&p);
	pthread_join(thread, NULL);
	CHECK(now_ms() - began < 30000); /* half of its wait */
	fake_free(&p);
}

static bool busy(struct libvhost_backend *b)
{
	return libvhost_backend_stop(b, 0) == -EBUSY && libvhost_backend_move_queue(b, 0, 0, 0) == -EBUSY;
}

TEST(backend_stop, not_from_a_callback)
{
	fake_check_inside(&(struct libvhost_backend_opts){0}, busy);
}

TEST(backend_stop, an_in_process_front_end_is_told)
{
	struct libvhost_req req = {.op = LIBVHOST_OP_GET_FEATURES};
	struct fake p = fake_new(NULL);
	struct libvhost_transport *t = fake_inproc(&p);

	CHECK_EQ(libvhost_transport_exec(t, &req, 1, PATIENCE_MS, NULL), 0);
	stop(&p);
	CHECK_EQ(libvhost_transport_exec(t, &req, 1, 1000, NULL), -ENOTCONN);
	libvhost_transport_free(t);
	fake_free(&p);
}

/* Nobody connects any more, neither they nor we: a dispatch would try again at once. */
TEST(backend_stop, ends_the_search_for_a_front_end)
{
	struct fake p = fake_new(NULL);
	char path[64];
	int listener;

	snprintf(path, sizeof(path), "/tmp/libvhost-stop-%d.front", getpid());
	listener = lv_wire_listen(path, 1);
	CHECK(listener >= 0);
	close(p.sock);
	p.sock = -1;
	settle(&p);
	CHECK_EQ(libvhost_backend_connect(p.b, path), 0);
	stop(&p);
	CHECK_EQ(libvhost_backend_dispatch(p.b, 0), -ESHUTDOWN);
	CHECK_EQ(libvhost_backend_connect(p.b, path), -ESHUTDOWN);
	while (lv_wire_accept(listener) >= 0) /* what came before, if anything; tests do not live long */
		;
	usleep(5000);
	CHECK_EQ(lv_wire_accept(listener), -EAGAIN);
	close(listener);
	unlink(path);
	fake_free(&p);
}
