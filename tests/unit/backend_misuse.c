/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* Calls from where they may not come, and what the host is told who gets something wrong. */
#include "frontend.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sys/timerfd.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>

/* What the back-end says about its last refusal. */
static const char *said(struct fake *p)
{
	static struct libvhost_error e;

	e = (struct libvhost_error){.size = sizeof(e)};
	CHECK_EQ(libvhost_backend_error(p->b, &e), 0);
	return e.text;
}

/* ---- on_request runs without the lock ---- */

struct bridge {
	struct libvhost_backend *b;
	uint64_t features;
	atomic_bool holds, held, left;
	uint32_t asked;
};

static int calls_back(void *arg, struct libvhost_req *req)
{
	struct bridge *w = arg;
	struct libvhost_req change = {.op = LIBVHOST_OP_BACKEND_CONFIG_CHANGE};
	struct libvhost_event e;
	int fd;

	if (req->op != LIBVHOST_OP_GET_FEATURES)
		return 0;
	w->asked++;
	CHECK_EQ(libvhost_backend_stop(w->b, 100), -EBUSY);
	CHECK_EQ(libvhost_backend_dispatch(w->b, 0), -EBUSY);
	CHECK_EQ(libvhost_backend_fd(w->b), -EBUSY);
	CHECK_EQ(libvhost_backend_adopt(w->b, 0), -EBUSY);
	CHECK_EQ(libvhost_backend_listen(w->b, "/tmp/libvhost-never"), -EBUSY);
	CHECK_EQ(libvhost_backend_set_config(w->b, w, 1), -EBUSY);
	CHECK_EQ(libvhost_backend_release_listener(w->b, &fd), -EBUSY);
	libvhost_backend_free(w->b); /* nothing: its caller comes back to it */
	CHECK(libvhost_backend_next_event(w->b, &e) >= 0);
	CHECK_EQ(libvhost_backend_request(w->b, &change, 10), -ENOTCONN);
	req->result[0] = w->features;
	return 0;
}

TEST(backend_misuse, a_bridge_calls_back)
{
	static const struct libvhost_backend_ops ops = {.size = sizeof(ops), .on_request = calls_back};
	struct bridge w = {.features = F30 | F_VERSION};
	const struct libvhost_backend_opts o = {.ops = &ops, .arg = &w};
	struct fake p = fake_new(&o);

	w.b = p.b;
	CHECK_EQ(get_u64(&p, LIBVHOST_OP_GET_FEATURES), w.features);
	CHECK_EQ(w.asked, 1);
	fake_free(&p);
}

static int takes_long(void *arg, struct libvhost_req *req)
{
	struct bridge *w = arg;

	if (req->op != LIBVHOST_OP_SET_CONFIG)
		return 0;
	w->held = true;
	while (w->holds)
		usleep(100);
	CHECK_EQ(req->data_in_len, 4); /* the message is still there */
	CHECK_EQ(*(const uint8_t *)(uintptr_t)req->data_in, 0x5a);
	w->left = true;
	return 0;
}

static void *dispatch_once(void *arg)
{
	struct fake *p = arg;
	int rc = 0;

	while (rc == 0)
		rc = libvhost_backend_dispatch(p->b, 10000);
	return (void *)(intptr_t)rc;
}

TEST(backend_misuse, stop_waits_for_a_bridge)
{
	static const struct libvhost_backend_ops ops = {.size = sizeof(ops), .on_request = takes_long};
	const uint32_t payload[] = {0, 4, 0, 0x5a5a5a5a};
	struct bridge w = {.holds = true};
	const struct libvhost_backend_opts o = {.ops = &ops, .arg = &w};
	struct fake p = fake_new(&o);
	pthread_t thread;
	void *rc;

	p.stopped = true;
	CHECK_EQ(ask_u64(&p, LIBVHOST_OP_SET_PROTOCOL_FEATURES, PF(CONFIG)), 2); /* no REPLY_ACK yet */
	CHECK_EQ(pthread_create(&thread, NULL, dispatch_once, &p), 0);
	send_msg(&p, LIBVHOST_OP_SET_CONFIG, 0, payload, sizeof(payload), NULL, 0);
	while (!w.held)
		usleep(100);
	CHECK_EQ(libvhost_backend_stop(p.b, 50), -ETIMEDOUT);
	CHECK_HAS(said(&p), "callback does not return");
	w.holds = false;
	CHECK_EQ(libvhost_backend_stop(p.b, 5000), 0);
	CHECK(w.left);
	pthread_join(thread, &rc);
	CHECK_EQ((intptr_t)rc, -ESHUTDOWN);
	fake_free(&p);
}

/* ---- after the end ---- */

TEST(backend_misuse, a_dispatch_that_waits_hears_of_the_stop)
{
	struct fake p = fake_new(NULL);
	pthread_t thread;
	void *rc;

	CHECK_EQ(pthread_create(&thread, NULL, dispatch_once, &p), 0);
	usleep(20000); /* it waits by now; otherwise it is refused, which is the same */
	p.stopped = true;
	CHECK_EQ(libvhost_backend_stop(p.b, 5000), 0);
	pthread_join(thread, &rc);
	CHECK_EQ((intptr_t)rc, -ESHUTDOWN);
	fake_free(&p);
}

TEST(backend_misuse, nothing_can_be_changed_after_a_stop)
{
	static const uint8_t bytes[4];
	const struct libvhost_backend_opts o = {.config = bytes, .config_len = sizeof(bytes)};
	const struct libvhost_backend_opts pull = {.flags = LIBVHOST_BACKEND_PULL};
	struct libvhost_req change = {.op = LIBVHOST_OP_BACKEND_CONFIG_CHANGE};
	struct fake p = fake_new(&o), q = fake_new(&pull);
	struct libvhost_vq *vq;
	int kick;

	p.stopped = q.stopped = true;
	CHECK_EQ(libvhost_backend_stop(p.b, 5000), 0);
	CHECK_EQ(libvhost_backend_set_config(p.b, bytes, 1), -ESHUTDOWN);
	CHECK_EQ(libvhost_backend_watch_fd(p.b, 0, p.kick), -ESHUTDOWN);
	CHECK_EQ(libvhost_backend_request(p.b, &change, 10), -ESHUTDOWN);
	CHECK_EQ(libvhost_backend_stop(q.b, 5000), 0);
	CHECK_EQ(libvhost_backend_queue(q.b, 0, &vq, &kick), -ESHUTDOWN);
	fake_free(&p);
	fake_free(&q);
}

static struct libvhost_backend *ending;
static int at_end;

static void left(void *arg, uint32_t cause)
{
	struct libvhost_event e;

	(void)arg;
	(void)cause;
	at_end = libvhost_backend_next_event(ending, &e);
}

TEST(backend_misuse, callbacks_of_free_call_nothing)
{
	static const struct libvhost_backend_ops ops = {.size = sizeof(ops), .serve = fake_serve, .reset = left};
	const struct libvhost_backend_opts o = {.ops = &ops};
	struct fake p = fake_new(&o);

	handshake(&p);
	CHECK_EQ(ring_up(&p, 0), 0);
	ending = p.b;
	at_end = 1;
	p.stopped = true; /* the connection is there until the end */
	fake_free(&p);
	CHECK_EQ(at_end, -EBUSY);
}

/* ---- a handler ---- */

static struct libvhost_worker *own;
static atomic_int refused;

static int asks_its_host(void *arg, uint32_t queue, struct libvhost_vq *vq)
{
	struct libvhost_event e;

	if (libvhost_backend_next_event(ending, &e) == -EBUSY && libvhost_backend_stop(ending, 5000) == -EBUSY &&
	    libvhost_worker_stop(own, 5000) == -EBUSY && libvhost_worker_remove_vq(own, vq, 5000) == -EBUSY &&
	    libvhost_worker_next_event(own, &e) == -EBUSY && libvhost_worker_remove_fd(own, 0, 5000) == -EBUSY)
		refused = 1;
	libvhost_worker_free(own);
	libvhost_backend_free(ending);
	return fake_serve(arg, queue, vq);
}

TEST(backend_misuse, a_handler_calls_its_host)
{
	static const struct libvhost_backend_ops ops = {.size = sizeof(ops), .serve = asks_its_host};
	const struct libvhost_backend_opts o = {.ops = &ops};
	struct fake p = fake_new(&o);

	refused = 0;
	ending = p.b;
	own = libvhost_backend_worker(p.b, 0);
	handshake(&p);
	CHECK_EQ(ring_up(&p, 0), 0);
	ring_offer(&p);
	CHECK(ring_used(&p, 1));
	CHECK_EQ(refused, 1);
	fake_free(&p);
}

static atomic_uint failures;

static int fails(void *arg, uint32_t queue, struct libvhost_vq *vq)
{
	(void)arg;
	(void)queue;
	(void)vq;
	failures++;
	return -EIO;
}

/* The worker's report waits for a dispatch; whoever takes the queue first must not lose it. */
static void loses_nothing(int (*take)(struct fake *p))
{
	static const struct libvhost_backend_ops ops = {.size = sizeof(ops), .serve = fails};
	const struct libvhost_backend_opts o = {.ops = &ops, .num_workers = 2};
	struct libvhost_worker_status s = {.size = sizeof(s), .queues = 1};
	struct fake p = fake_new(&o);
	struct libvhost_event e;

	failures = 0;
	handshake(&p);
	CHECK_EQ(ring_up(&p, 0), 0);
	for (int i = 0; i < 5000 && (s.queues || !failures); i++) {
		CHECK_EQ(libvhost_backend_worker_status(p.b, 0, &s), 0);
		usleep(100);
	}
	CHECK_EQ(failures, 1);
	CHECK_EQ(take(&p), 0);
	e = take_event(&p, LIBVHOST_EVENT_QUEUE_ERROR);
	CHECK_EQ(e.err, -EIO);
	usleep(10000);
	CHECK_EQ(failures, 1);
	fake_free(&p);
}

static int move_it(struct fake *p)
{
	return libvhost_backend_move_queue(p->b, 0, 1, 1000);
}

TEST(backend_misuse, a_queue_that_failed_and_is_moved)
{
	loses_nothing(move_it);
}

/* ---- descriptors ---- */

TEST(backend_misuse, descriptors_that_no_handler_could_read)
{
	struct fake p = fake_new(NULL);
	int timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC), good = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	int null = open("/dev/null", O_RDONLY | O_CLOEXEC);

	CHECK_EQ(libvhost_backend_watch_fd(p.b, 0, timer), -EINVAL);
	CHECK_HAS(said(&p), "blocks; make it non-blocking (O_NONBLOCK)");
	CHECK_EQ(libvhost_backend_watch_fd(p.b, 0, null), -EINVAL);
	CHECK_HAS(said(&p), "cannot be waited for; give a tap");
	close(null);
	CHECK_EQ(libvhost_backend_watch_fd(p.b, 0, null), -EINVAL);
	CHECK_HAS(said(&p), "is not open");
	CHECK_EQ(libvhost_backend_watch_fd(p.b, 0, good), 0);
	CHECK_EQ(libvhost_backend_watch_fd(p.b, 1, good), -EINVAL);
	CHECK_HAS(said(&p), "belongs to another queue already");
	CHECK_EQ(libvhost_backend_watch_fd(p.b, 0, good), 0);
	CHECK_EQ(libvhost_backend_watch_fd(p.b, 0, -1), 0);
	CHECK_EQ(libvhost_backend_watch_fd(p.b, 1, good), 0);
	CHECK_EQ(libvhost_backend_watch_fd(p.b, 1, -1), 0);
	close(timer);
	close(good);
	fake_free(&p);
}

/* A worker blocks SIGPIPE, a thread that pulls does not. */
TEST(backend_misuse, a_pipe_calls_no_driver_in_pull_mode)
{
	const struct libvhost_backend_opts o = {.flags = LIBVHOST_BACKEND_PULL};
	struct fake p = fake_new(&o);
	struct libvhost_vq *vq;
	int fds[2], kick;

	CHECK_EQ(pipe2(fds, O_CLOEXEC), 0);
	handshake(&p);
	CHECK_EQ(ring_up(&p, 0), 0);
	CHECK_EQ(ask_fd(&p, LIBVHOST_OP_SET_VRING_CALL, 0, fds[1]), -EINVAL);
	close(fds[0]);
	ring_offer(&p);
	CHECK_EQ(libvhost_backend_queue(p.b, 0, &vq, &kick), 0);
	CHECK(fake_serve(NULL, 0, vq) >= 0);
	CHECK(libvhost_vq_flush(vq) >= 0);
	close(fds[1]);
	fake_free(&p);
}

/* ---- errors that tell what to do ---- */

static void wont_listen(struct fake *p, const char *path, int rc, const char *why)
{
	CHECK_EQ(libvhost_backend_listen(p->b, path), rc);
	CHECK_HAS(said(p), why);
	CHECK_HAS(said(p), "cannot listen on '");
}

TEST(backend_misuse, says_why_it_cannot_listen)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	struct fake p = fake_new(NULL);
	char folder[] = "/tmp/libvhost-misuse-XXXXXX", long_path[200], at[64];
	int fd;

	CHECK(mkdtemp(folder) != NULL);
	memset(long_path, 'x', sizeof(long_path));
	long_path[sizeof(long_path) - 1] = 0;
	long_path[0] = '/';
	wont_listen(&p, "", -EINVAL, "the path is empty");
	wont_listen(&p, long_path, -EINVAL, "longer than the 107 bytes");
	wont_listen(&p, folder, -EINVAL, "no socket is in the way");
	snprintf(at, sizeof(at), "%s/none/s", folder);
	wont_listen(&p, at, -EINVAL, "its folder is missing");
	wont_listen(&p, "/dev/null/s", -EINVAL, "its folder is not one");
	snprintf(addr.sun_path, sizeof(addr.sun_path), "%s/s", folder);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	CHECK_EQ(bind(fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
	CHECK_EQ(listen(fd, 1), 0);
	wont_listen(&p, addr.sun_path, -EADDRINUSE, "somebody listens there; end that one");
	close(fd);
	unlink(addr.sun_path);
	fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	CHECK_EQ(bind(fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
	wont_listen(&p, addr.sun_path, -EINVAL, "a socket of another kind");
	close(fd);
	unlink(addr.sun_path);
	rmdir(folder);
	fake_free(&p);
}

/* An idle ring of two entries, which needs little memory. */
static int small_ring_up(struct fake *p, uint32_t q)
{
	const uint64_t at = UADDR + q * 0x100u;
	int rc = ask_state(p, LIBVHOST_OP_SET_VRING_NUM, q, 2);

	rc = rc ? rc : ask_addr(p, q, at, at + 0x40, at + 0x80);
	rc = rc ? rc : ask_fd(p, LIBVHOST_OP_SET_VRING_KICK, q, p->kick);
	return rc ? rc : ask_state(p, LIBVHOST_OP_SET_VRING_ENABLE, q, 1);
}

TEST(backend_misuse, names_the_queue_that_no_worker_takes)
{
	const struct libvhost_backend_opts o = {.num_queues = 65};
	struct fake p = fake_new(&o);

	handshake(&p);
	for (uint32_t q = 0; q < 64; q++)
		CHECK_EQ(small_ring_up(&p, q), 0);
	CHECK_EQ(small_ring_up(&p, 64), -ENOSPC);
	CHECK_HAS(said(&p),
		  "queue 64 cannot go to worker 0: worker: it serves 64 queues, which is the most; make more");
	fake_free(&p);
}

/* ---- a forked child ---- */

TEST(backend_misuse, a_forked_child_lets_go_of_its_parent)
{
	struct fake p = fake_new(NULL);
	char path[64];
	int status = 0, listener;
	pid_t pid;

	snprintf(path, sizeof(path), "/tmp/libvhost-fork-%d.sock", getpid());
	CHECK_EQ(libvhost_backend_listen(p.b, path), 0);
	handshake(&p);
	CHECK_EQ(ring_up(&p, 0), 0);
	ring_offer(&p);
	CHECK(ring_used(&p, 1));
	pid = fork();
	CHECK(pid >= 0);
	if (!pid) {
		libvhost_backend_free(p.b);
		libvhost_ctx_free(p.ctx);
		_exit(0);
	}
	CHECK_EQ(waitpid(pid, &status, 0), pid);
	CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
	ring_offer(&p); /* its worker still hears kicks */
	CHECK(ring_used(&p, 2));
	CHECK_EQ(get_base(&p, 0), 2); /* and it the front-end */
	CHECK_EQ(access(path, F_OK), 0);
	CHECK_EQ(libvhost_backend_release_listener(p.b, &listener), 0);
	close(listener);
	unlink(path);
	fake_free(&p);
}

/* ---- options ---- */

TEST(backend_misuse, names_the_option)
{
	static const struct libvhost_backend_ops ops = {.size = sizeof(ops), .serve = fake_serve}, no_size = {0};
	static const struct libvhost_worker_opts no_worker = {0};
	static const struct {
		struct libvhost_backend_opts o;
		const char *says;
	} wrong[] = {
		{{.size = 4, .num_queues = 1, .ops = &ops}, "libvhost_backend_opts: size is 4"},
		{{.num_queues = 1, .ops = &no_size}, "libvhost_backend_ops: size is 0"},
		{{.num_queues = 1, .ops = &ops, .worker = &no_worker}, "libvhost_worker_opts: size is 0"},
		{{.num_queues = 1, .ops = &ops, .flags = 8}, "flags has unknown bits"},
		{{.ops = &ops}, "num_queues must be 1 to 256"},
		{{.num_queues = 257, .ops = &ops}, "num_queues must be 1 to 256"},
		{{.num_queues = 1, .ops = &ops, .max_regions = 7}, "max_regions must be 8 to 512"},
		{{.num_queues = 1, .ops = &ops, .timeout_ms = 3600001}, "timeout_ms is above an hour"},
		{{.num_queues = 1, .ops = &ops, .num_workers = 65}, "num_workers is above 64"},
		{{.num_queues = 1}, "ops is missing"},
		{{.num_queues = 1, .ops = &ops, .config = "", .config_len = 257}, "config_len is above 256"},
		{{.num_queues = 1, .ops = &ops, .config_len = 1}, "config_len without config"},
	};
	struct libvhost_error e = {.size = sizeof(e)};
	struct libvhost_backend *b = NULL;
	struct libvhost_ctx *ctx;

	CHECK_EQ(libvhost_ctx_new(NULL, &ctx), 0);
	for (size_t i = 0; i < sizeof(wrong) / sizeof(*wrong); i++) {
		struct libvhost_backend_opts o = wrong[i].o;

		o.size = o.size ? o.size : sizeof(o);
		CHECK_EQ(libvhost_backend_new(ctx, &o, &b), -EINVAL);
		CHECK(b == NULL);
		CHECK_EQ(libvhost_ctx_error(ctx, &e), 0);
		CHECK_HAS(e.text, wrong[i].says);
	}
	libvhost_ctx_free(ctx);
}
