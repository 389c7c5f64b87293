/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/*
 * A listening socket goes from one process to the next, and to the next. While it does so first, somebody connects all
 * the time; while it does so again, a front-end runs, whose connection ends with its back-end and which comes to the
 * successor by the same path. No connect() fails. Usage: handover SOCKET
 */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>
#include <vhost/libvhost.h>

#include "results.h"

#define RAM   0x100000ull
#define DATA  0x80000ull
#define BITS  (1ull << 32)
#define TIMES 500u

static const char *path;

static void result(int good, const char *what)
{
	result_of(good, what, NULL, NULL);
}

/* A process that serves: it gets its listener from the one before, and gives it to the one behind, when it is told. */
struct server {
	pid_t pid;
	int tell; /* one byte of the main process: hand over, or end */
};

static int send_fd(int sock, int fd)
{
	char byte = 0;
	struct iovec iov = {.iov_base = &byte, .iov_len = 1};
	_Alignas(8) char control[CMSG_SPACE(sizeof(int))] = {0};
	struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof(control)};
	struct cmsghdr *c = CMSG_FIRSTHDR(&m);

	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SCM_RIGHTS;
	c->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(c), &fd, sizeof(int));
	return sendmsg(sock, &m, MSG_NOSIGNAL) == 1 ? 0 : -errno;
}

static int receive_fd(int sock)
{
	char byte;
	struct iovec iov = {.iov_base = &byte, .iov_len = 1};
	_Alignas(8) char control[CMSG_SPACE(sizeof(int))] = {0};
	struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof(control)};
	struct cmsghdr *c;
	int fd = -1;

	if (recvmsg(sock, &m, MSG_CMSG_CLOEXEC) == 1 && (c = CMSG_FIRSTHDR(&m)))
		memcpy(&fd, CMSG_DATA(c), sizeof(int));
	return fd;
}

static int complete_all(void *arg, uint32_t queue, struct libvhost_vq *vq)
{
	struct libvhost_iov iov[8];
	struct libvhost_chain c = {.size = sizeof(c), .iov = iov, .iov_cap = 8};
	int rc = 0;

	(void)arg;
	(void)queue;
	for (int i = 0; i < 16 && (rc = libvhost_vq_pop(vq, &c)) > 0; i++)
		rc = libvhost_vq_push(vq, c.head, 0) < 0 ? -EIO : 1;
	return rc;
}

static int hand_over(struct libvhost_backend *b, int to)
{
	int fd, rc = libvhost_backend_release_listener(b, &fd);

	if (rc == 0) {
		rc = send_fd(to, fd);
		close(fd);
	}
	return rc;
}

static int serve(int from, int to, int told)
{
	static const struct libvhost_backend_ops ops = {.size = sizeof(ops), .serve = complete_all};
	const struct libvhost_backend_opts o = {.size = sizeof(o), .num_queues = 1, .ops = &ops};
	struct libvhost_backend *b;
	struct libvhost_ctx *ctx;
	char byte;
	int fd, rc;

	if (libvhost_ctx_new(NULL, &ctx) || libvhost_backend_new(ctx, &o, &b))
		return 10;
	fd = from < 0 ? -1 : receive_fd(from);
	rc = from < 0 ? libvhost_backend_listen(b, path) : libvhost_backend_listen_fd(b, fd);
	if (fd >= 0)
		close(fd);
	while (rc == 0) {
		struct pollfd p[2] = {{.fd = told, .events = POLLIN}, {.fd = libvhost_backend_fd(b), .events = POLLIN}};

		poll(p, 2, -1);
		rc = libvhost_backend_dispatch(b, 0);
		if (!p[0].revents)
			continue;
		if (read(told, &byte, 1) != 1 || byte == 'e')
			break;
		rc = hand_over(b, to);
	}
	if (rc == 0)
		rc = libvhost_backend_stop(b, 5000);
	libvhost_backend_free(b);
	libvhost_ctx_free(ctx);
	return rc ? 11 : 0;
}

static int start_server(struct server *s, int from, int to)
{
	int tell[2];

	if (pipe(tell))
		return -1;
	s->pid = fork();
	if (s->pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		close(tell[1]);
		_exit(serve(from, to, tell[0]));
	}
	close(tell[0]);
	s->tell = tell[1];
	return s->pid < 0 ? -1 : 0;
}

static int tell(const struct server *s, char what)
{
	return write(s->tell, &what, 1) == 1;
}

static int ends(const struct server *s)
{
	int status = -1;

	return tell(s, 'e') && waitpid(s->pid, &status, 0) == s->pid && status == 0;
}

/* Connects and hangs up, again and again. */
struct caller {
	atomic_uint times, failures;
	atomic_int stop, error;
};

static int connect_once(void)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	int sock = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), rc;

	snprintf(addr.sun_path, sizeof(addr.sun_path), "%s", path);
	rc = connect(sock, (struct sockaddr *)&addr, sizeof(addr)) ? -errno : 0;
	close(sock);
	return rc;
}

static void *call(void *arg)
{
	struct caller *c = arg;

	while (!atomic_load(&c->stop)) {
		int rc = connect_once();

		if (rc < 0) {
			atomic_store(&c->error, rc);
			atomic_fetch_add(&c->failures, 1);
		}
		atomic_fetch_add(&c->times, 1);
	}
	return NULL;
}

static void wait_times(struct caller *c, unsigned more)
{
	const unsigned until = atomic_load(&c->times) + more;

	for (int i = 0; i < 60000 && atomic_load(&c->times) < until; i++)
		usleep(1000);
}

static void hand_over_among_callers(struct server *s)
{
	struct caller c = {0};
	pthread_t thread;

	for (int i = 0; i < 6000 && connect_once() < 0; i++)
		usleep(10000);
	if (pthread_create(&thread, NULL, call, &c))
		exit(2);
	wait_times(&c, TIMES);
	result(tell(&s[0], 'h'), "the first process hands its socket over");
	wait_times(&c, TIMES);
	result(ends(&s[0]), "and ends");
	wait_times(&c, TIMES);
	atomic_store(&c.stop, 1);
	pthread_join(thread, NULL);
	printf("# %u connects, %u failed, last with %d\n", c.times, c.failures, c.error);
	result(c.times >= 3 * TIMES && !c.failures, "no connect() failed meanwhile");
}

struct front {
	struct libvhost_ctx *ctx;
	struct libvhost_mem *mem;
	struct libvhost_dev *dev;
	struct libvhost_vq *vq;
};

static int front_start(struct front *f)
{
	struct libvhost_queue q = {.size = sizeof(q), .num = 16, .desc = 0x1000, .avail = 0x2000, .used = 0x3000};
	struct libvhost_dev_opts o = {.size = sizeof(o), .num_queues = 1, .flags = LIBVHOST_DEV_AUTO_RECONNECT};
	struct libvhost_vq_opts v = {.size = sizeof(v), .flags = LIBVHOST_VQ_HAS_KICK, .num = 16, .features = BITS};
	const uint64_t features = BITS;
	char uri[200];

	snprintf(uri, sizeof(uri), "user:%s", path);
	o.uri = uri;
	if (libvhost_ctx_new(NULL, &f->ctx) || libvhost_mem_new(f->ctx, NULL, &f->mem) || libvhost_mem_begin(f->mem) ||
	    libvhost_mem_alloc(f->mem, 0, RAM) || libvhost_mem_commit(f->mem, 0, NULL))
		return 0;
	o.mem = f->mem;
	if (libvhost_dev_init(f->ctx, &o, &f->dev) || libvhost_ack_features_ex(f->dev, &features, 1) ||
	    libvhost_dev_set_queue(f->dev, 0, &q) || libvhost_dev_get_queue(f->dev, 0, &q))
		return 0;
	v.kick_fd = q.kick_fd;
	v.desc = q.desc;
	v.avail = q.avail;
	v.used = q.used;
	return !libvhost_vq_new(f->ctx, f->mem, &v, &f->vq) && !libvhost_dev_start(f->dev, NULL);
}

static int request(struct front *f)
{
	const struct libvhost_buf b = {.gpa = DATA, .len = 16};
	struct libvhost_used used;
	uint32_t n = 0;

	if (libvhost_vq_add(f->vq, &b, 1, 0, 1) || libvhost_vq_kick(f->vq) < 0)
		return 0;
	for (int i = 0; i < 60000 && !n; i++) {
		n = 1;
		if (libvhost_vq_get_used(f->vq, &used, &n))
			return 0;
		usleep(n ? 0 : 1000);
	}
	return n == 1;
}

/* Waits for an event of the device. */
static int happens(struct front *f, uint32_t type)
{
	struct libvhost_event e;

	for (int i = 0; i < 1000; i++) {
		libvhost_dev_dispatch(f->dev, 10);
		while (libvhost_dev_next_event(f->dev, &e) == 1)
			if (e.type == type)
				return 1;
	}
	return 0;
}

static void hand_over_below_a_front_end(struct server *s)
{
	struct front f = {0};

	result(front_start(&f) && request(&f), "a front-end runs at the second process");
	result(tell(&s[1], 'h') && request(&f), "which hands the socket over and goes on serving");
	result(ends(&s[1]), "it ends");
	result(happens(&f, LIBVHOST_EVENT_RECONNECTED), "the front-end reconnects to the third");
	result(request(&f) && request(&f), "and goes on");
	libvhost_vq_free(f.vq);
	libvhost_dev_cleanup(f.dev);
	libvhost_mem_free(f.mem);
	libvhost_ctx_free(f.ctx);
	result(ends(&s[2]), "the third process ends");
}

int main(int argc, char **argv)
{
	struct server s[3] = {{0}};
	int links[2][2];

	if (argc != 2)
		return 2;
	path = argv[1];
	signal(SIGPIPE, SIG_IGN);
	for (int i = 0; i < 2; i++)
		if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, links[i]))
			return 2;
	for (int i = 0; i < 3; i++)
		if (start_server(&s[i], i ? links[i - 1][1] : -1, i < 2 ? links[i][0] : -1))
			return 2;
	hand_over_among_callers(s);
	hand_over_below_a_front_end(s);
	unlink(path);
	return results_end();
}
