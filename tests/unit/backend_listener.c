/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* Listening sockets of others, and devices that connect to front-ends. */
#include "frontend.h"

#include <fcntl.h>
#include <pthread.h>
#include <sys/stat.h>
#include <sys/un.h>

static void put_path(char *path, size_t cap, const char *what)
{
	snprintf(path, cap, "/tmp/libvhost-%s-%d.sock", what, getpid());
}

static struct sockaddr_un address(const char *path)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};

	snprintf(addr.sun_path, sizeof(addr.sun_path), "%s", path);
	return addr;
}

/* As a service manager makes it: it blocks. */
static int listener(const char *path, int backlog)
{
	struct sockaddr_un addr = address(path);
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	unlink(path);
	CHECK_EQ(bind(fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
	CHECK_EQ(listen(fd, backlog), 0);
	return fd;
}

static int reach(const char *path)
{
	struct sockaddr_un addr = address(path);
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	CHECK_EQ(connect(fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
	return fd;
}

/* The front-end leaves and comes by the path. */
static void come_by(struct fake *p, const char *path)
{
	close(p->sock);
	settle(p);
	p->sock = reach(path);
	settle(p);
}

static bool is_socket(const char *path)
{
	struct stat st;

	return stat(path, &st) == 0 && S_ISSOCK(st.st_mode);
}

TEST(backend_listener, takes_a_socket_that_listens)
{
	struct fake p = fake_new(NULL);
	char path[64];
	int fd;

	put_path(path, sizeof(path), "activated");
	fd = listener(path, 4);
	CHECK_EQ(libvhost_backend_listen_fd(p.b, fd), 0);
	CHECK(fcntl(fd, F_GETFL) & O_NONBLOCK);
	CHECK_EQ(libvhost_backend_listen_fd(p.b, fd), -EBUSY);
	CHECK_EQ(libvhost_backend_listen(p.b, path), -EBUSY);
	CHECK_EQ(libvhost_backend_connect(p.b, path), -EBUSY);
	close(fd);
	come_by(&p, path);
	handshake(&p);
	CHECK_EQ(ring_up(&p, 0), 0);
	ring_offer(&p);
	CHECK(ring_used(&p, 1));
	CHECK_EQ(libvhost_backend_release_listener(p.b, &fd), 0);
	close(fd);
	fake_free(&p);
	CHECK(is_socket(path));
	unlink(path);
}

TEST(backend_listener, refuses_what_does_not_listen)
{
	struct fake p = fake_new(NULL);
	struct libvhost_error e = {.size = sizeof(e)};
	int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0), own = -7;

	CHECK_EQ(libvhost_backend_listen_fd(NULL, fd), -EINVAL);
	CHECK_EQ(libvhost_backend_listen_fd(p.b, -1), -EBADF);
	CHECK_EQ(libvhost_backend_listen_fd(p.b, 999), -EBADF);
	CHECK_EQ(libvhost_backend_listen_fd(p.b, fd), -ENOTSOCK);
	CHECK_EQ(libvhost_backend_listen_fd(p.b, p.kick), -ENOTSOCK);
	CHECK_EQ(libvhost_backend_listen_fd(p.b, p.sock), -ENOTSOCK); /* connected */
	CHECK_EQ(libvhost_backend_error(p.b, &e), 0);
	CHECK_HAS(e.text, "not a listening unix stream socket");
	CHECK_EQ(libvhost_backend_release_listener(p.b, &own), -ENOENT);
	CHECK_EQ(libvhost_backend_release_listener(p.b, NULL), -EINVAL);
	CHECK_EQ(own, -7);
	close(fd);
	fake_free(&p);
}

TEST(backend_listener, a_released_socket_keeps_who_connects)
{
	struct fake first = fake_new(NULL), next = fake_new(NULL);
	char path[64];
	int fd = -1, waiting;

	put_path(path, sizeof(path), "released");
	CHECK_EQ(libvhost_backend_listen(first.b, path), 0);
	come_by(&first, path);
	handshake(&first);
	CHECK_EQ(libvhost_backend_release_listener(first.b, &fd), 0);
	CHECK(fcntl(fd, F_GETFD) & FD_CLOEXEC);
	waiting = reach(path); /* nobody serves it now */
	settle(&first);
	CHECK_EQ(ring_up(&first, 0), 0);
	ring_offer(&first);
	CHECK(ring_used(&first, 1));	     /* the present connection goes on */
	first.stopped = next.stopped = true; /* the ledger of one sees the other */
	fake_free(&first);
	CHECK(is_socket(path));
	CHECK_EQ(libvhost_backend_listen_fd(next.b, fd), 0);
	close(fd);
	close(next.sock);
	settle(&next);
	next.sock = waiting;
	handshake(&next);
	CHECK_EQ(libvhost_backend_release_listener(next.b, &fd), 0);
	close(fd);
	fake_free(&next);
	unlink(path);
}

/* Dispatches until something waits at fd. */
static bool arrives(struct fake *p, int fd)
{
	struct pollfd in = {.fd = fd, .events = POLLIN};

	for (int i = 0; i < PATIENCE_MS / 10; i++) {
		CHECK_EQ(libvhost_backend_dispatch(p->b, 10), 0);
		if (poll(&in, 1, 0) == 1)
			return true;
	}
	return false;
}

TEST(backend_listener, connects_and_connects_again)
{
	struct fake p = fake_new(NULL);
	struct libvhost_error e = {.size = sizeof(e)};
	char path[64];
	int fd;

	put_path(path, sizeof(path), "client");
	close(p.sock);
	settle(&p);
	CHECK_EQ(libvhost_backend_connect(p.b, path), 0);
	CHECK_EQ(libvhost_backend_connect(p.b, path), -EBUSY);
	CHECK_EQ(libvhost_backend_listen(p.b, path), -EBUSY);
	for (int i = 0; i < 3; i++)
		CHECK_EQ(libvhost_backend_dispatch(p.b, 10), 0); /* nobody is there */
	CHECK_EQ(libvhost_backend_error(p.b, &e), 0);
	CHECK_HAS(e.text, path);
	CHECK_HAS(e.text, "ENOENT");
	fd = listener(path, 4);
	for (int i = 0; i < 3; i++) {
		CHECK(arrives(&p, fd));
		p.sock = accept4(fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
		memset(p.mem, 0, RAM_BYTES);
		handshake(&p);
		CHECK_EQ(ring_up(&p, 0), 0);
		ring_offer(&p);
		CHECK(ring_used(&p, 1));
		close(p.sock);
	}
	p.stopped = true;
	p.sock = -1;
	CHECK_EQ(libvhost_backend_stop(p.b, PATIENCE_MS), 0);
	fake_free(&p);
	CHECK(is_socket(path));
	unlink(path);
	close(fd);
}

/* A front-end that hangs up at once is not asked a thousand times a second. */
TEST(backend_listener, connects_with_longer_and_longer_pauses)
{
	struct fake p = fake_new(NULL);
	char path[64];
	uint64_t until;
	int fd, sock, times = 0;

	put_path(path, sizeof(path), "pauses");
	fd = listener(path, 16);
	CHECK_EQ(fcntl(fd, F_SETFL, O_NONBLOCK), 0);
	close(p.sock);
	settle(&p);
	CHECK_EQ(libvhost_backend_connect(p.b, path), 0);
	until = lv_now(NULL) + 500 * LV_NS_PER_MS;
	while (lv_now(NULL) < until) {
		CHECK_EQ(libvhost_backend_dispatch(p.b, 10), 0);
		sock = accept4(fd, NULL, NULL, SOCK_CLOEXEC);
		if (sock < 0)
			continue;
		times++;
		close(sock);
	}
	CHECK(times >= 3 && times <= 11); /* 1 + 2 + 4 … ms: the ninth pause alone is 256 ms */
	p.stopped = true;
	p.sock = -1;
	CHECK_EQ(libvhost_backend_stop(p.b, PATIENCE_MS), 0);
	fake_free(&p);
	unlink(path);
	close(fd);
}

TEST(backend_listener, refuses_paths_that_cannot_be)
{
	struct fake p = fake_new(NULL);
	struct libvhost_error e = {.size = sizeof(e)};
	char path[200];

	memset(path, 'x', sizeof(path) - 1);
	path[sizeof(path) - 1] = 0;
	CHECK_EQ(libvhost_backend_connect(p.b, path), -EINVAL);
	CHECK_EQ(libvhost_backend_error(p.b, &e), 0);
	CHECK_HAS(e.text, "1 to 107");
	CHECK_EQ(libvhost_backend_connect(p.b, ""), -EINVAL);
	CHECK_EQ(libvhost_backend_connect(p.b, NULL), -EINVAL);
	CHECK_EQ(libvhost_backend_connect(NULL, "x"), -EINVAL);
	handshake(&p);
	fake_free(&p);
}

static bool busy(struct libvhost_backend *b)
{
	int fd;

	return libvhost_backend_listen_fd(b, 0) == -EBUSY && libvhost_backend_release_listener(b, &fd) == -EBUSY &&
	       libvhost_backend_connect(b, "/tmp/x") == -EBUSY;
}

TEST(backend_listener, not_from_a_callback)
{
	fake_check_inside(&(struct libvhost_backend_opts){0}, busy);
}

static void *dispatch(void *arg)
{
	struct fake *p = arg;

	while (libvhost_backend_dispatch(p->b, 1000) == 0)
		;
	return NULL;
}

/* Our own front-end as the one that listens. */
TEST(backend_listener, a_front_end_that_listens)
{
	struct fake p = fake_new(NULL);
	struct libvhost_mem *mem = NULL;
	struct libvhost_dev_opts o = {.size = sizeof(o), .num_queues = 1, .timeout_ms = 5000};
	struct libvhost_dev *dev;
	pthread_t thread;
	char path[64], uri[96];

	put_path(path, sizeof(path), "listens");
	snprintf(uri, sizeof(uri), "user-listen:%s", path);
	close(p.sock);
	settle(&p);
	CHECK_EQ(libvhost_mem_new(p.ctx, NULL, &mem), 0);
	o.uri = uri;
	o.mem = mem;
	CHECK_EQ(libvhost_backend_connect(p.b, path), 0);
	CHECK_EQ(pthread_create(&thread, NULL, dispatch, &p), 0);
	for (int i = 0; i < 2; i++) {
		CHECK_EQ(libvhost_dev_init(p.ctx, &o, &dev), 0);
		libvhost_dev_cleanup(dev);
	}
	p.stopped = true;
	p.sock = -1;
	CHECK_EQ(libvhost_backend_stop(p.b, PATIENCE_MS), 0);
	pthread_join(thread, NULL);
	libvhost_mem_free(mem);
	fake_free(&p);
}

static atomic_bool hold, held;

static int stubborn(void *arg, uint32_t queue, struct libvhost_vq *vq)
{
	while (arg && hold)
		held = true;
	return fake_serve(arg, queue, vq);
}

/* Three devices of one process, one of which has a handler that does not return. */
TEST(backend_listener, devices_of_one_process_are_strangers)
{
	static const struct libvhost_backend_ops ops = {.size = sizeof(ops), .serve = stubborn};
	const struct libvhost_backend_opts good = {.ops = &ops}, bad = {.ops = &ops, .arg = &hold, .timeout_ms = 500};
	struct fake p[3] = {fake_new(&good), fake_new(&bad), fake_new(&good)};
	uint64_t began;

	hold = true;
	held = false;
	for (int i = 0; i < 3; i++) {
		handshake(&p[i]);
		CHECK_EQ(ring_up(&p[i], 0), 0);
	}
	while (!held)
		usleep(100);
	began = lv_now(NULL);
	for (unsigned n = 1; n <= 200; n++) {
		for (int i = 0; i < 3; i += 2) {
			ring_offer(&p[i]);
			CHECK(ring_used(&p[i], (uint16_t)n));
			CHECK_EQ(ask_state(&p[i], LIBVHOST_OP_SET_VRING_ENABLE, 0, 1), 0);
		}
	}
	CHECK(lv_now(NULL) - began < PATIENCE_MS * LV_NS_PER_MS);
	hold = false;
	for (int i = 0; i < 3; i++) {
		close(p[i].sock);
		settle(&p[i]);
	}
	for (int i = 0; i < 3; i++) {
		p[i].stopped = true;
		p[i].sock = -1;
		fake_free(&p[i]);
	}
}
