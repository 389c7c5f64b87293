/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* A back-end whose control messages are handled on a sandboxed thread: nobody dispatches unless a test is about that.
 */
#include "frontend.h"

#include <pthread.h>
#include <stdlib.h>
#include <sys/un.h>

#define TIMEOUT_MS 500u

static struct fake up(const struct libvhost_backend_ops *ops, void *arg)
{
	const struct libvhost_backend_opts o = {.flags = LIBVHOST_BACKEND_CONTROL_WORKER,
						.ops = ops,
						.arg = arg,
						.config = "0123456789abcdef",
						.config_len = 16,
						.timeout_ms = TIMEOUT_MS};

	return fake_new(&o);
}

static struct libvhost_worker_status status_of(struct fake *p)
{
	struct libvhost_worker_status s = {.size = sizeof(s)};

	CHECK_EQ(libvhost_backend_worker_status(p->b, LIBVHOST_BACKEND_CONTROL_INDEX, &s), 0);
	return s;
}

static bool readable(struct fake *p, int ms)
{
	struct pollfd in = {.fd = libvhost_backend_fd(p->b), .events = POLLIN};

	return poll(&in, 1, ms) == 1;
}

static void read_config(struct fake *p, uint8_t answer[16])
{
	const uint32_t config[4] = {0, 4, 0, 0};
	struct wire_hdr hdr;

	send_msg(p, LIBVHOST_OP_GET_CONFIG, 0, config, sizeof(config), NULL, 0);
	CHECK_EQ(recv_msg(p, &hdr, answer, 16), 16);
}

TEST(backend_control, front_ends_come_and_go_without_dispatch)
{
	struct fake p = up(NULL, NULL);
	struct libvhost_worker_status s = status_of(&p);
	char path[64], name[16] = "";
	FILE *f;

	snprintf(path, sizeof(path), "/proc/self/task/%u/comm", s.tid);
	f = fopen(path, "re");
	CHECK(f && fgets(name, sizeof(name), f));
	fclose(f);
	CHECK(!strcmp(name, "vhost-control\n"));
#ifndef LV_SANITIZED
	CHECK_EQ(s.seccomp, 2);
	CHECK_EQ(s.no_new_privs, 1);
#endif
	for (uint32_t i = 0; i < 20; i++) {
		memset(p.mem, 0, RAM_BYTES);
		handshake(&p);
		for (uint32_t q = 0; q < 4; q++)
			CHECK_EQ(ring_up(&p, q), 0);
		ring_offer(&p);
		CHECK(ring_used(&p, 1));
		CHECK_EQ(ask_table(&p, &(struct libvhost_region){.size = RAM_BYTES, .user_addr = UADDR, .fd = p.ram}, 1,
				   1),
			 0); /* a pause */
		ring_offer(&p);
		CHECK(ring_used(&p, 2));
		if (i % 2)
			CHECK_EQ(get_base(&p, 0), 2);
		fake_connect(&p);
	}
	fake_free(&p);
}

TEST(backend_control, the_host_waits_for_events_only)
{
	struct libvhost_event e;
	struct fake p = up(NULL, NULL);

	take_event(&p, LIBVHOST_EVENT_CONNECTED);
	CHECK(!readable(&p, 20));
	handshake(&p); /* no event */
	CHECK(!readable(&p, 0));
	CHECK_EQ(ring_up(&p, 0), 0);
	CHECK(readable(&p, PATIENCE_MS));
	CHECK_EQ(libvhost_backend_dispatch(p.b, 60000), 0); /* at once */
	CHECK(readable(&p, PATIENCE_MS));		    /* until it was taken */
	take_event(&p, LIBVHOST_EVENT_STARTED);
	CHECK(!readable(&p, 20));
	CHECK_EQ(libvhost_backend_next_event(p.b, &e), 0);
	CHECK_EQ(libvhost_backend_dispatch(p.b, 1), 0);
	fake_free(&p);
}

/* What an op sees of the thread that it is on. */
struct view {
	_Atomic(struct libvhost_backend *) b;
	_Atomic uint32_t tid;
	atomic_int open_says, socket_says, back;
	atomic_bool hold, held;
	_Atomic uint32_t stops;
};

static int look(void *arg, uint32_t offset, void *buf, uint32_t len)
{
	struct view *v = arg;
	void *block = malloc(1u << 20); /* it may allocate */

	(void)offset;
	memset(block, 7, 1u << 20);
	memcpy(buf, block, len);
	free(block);
	v->tid = (uint32_t)gettid();
	v->open_says = open("/dev/null", O_RDONLY | O_CLOEXEC) < 0 ? errno : 0;
	v->socket_says = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0) < 0 ? errno : 0;
	if (v->b)
		v->back = libvhost_backend_stop(v->b, 10);
	while (v->hold)
		v->held = true;
	return 0;
}

static void note_stop(void *arg, uint32_t queue)
{
	struct view *v = arg;

	(void)queue;
	v->stops++;
}

static const struct libvhost_backend_ops viewing = {
	.size = sizeof(viewing), .serve = fake_serve, .get_config = look, .queue_stopped = note_stop};

TEST(backend_control, ops_run_in_its_sandbox)
{
	struct view v = {.tid = 0};
	struct fake p = up(&viewing, &v);
	uint8_t answer[16];

	v.b = p.b;
	handshake(&p);
	read_config(&p, answer);
	CHECK_EQ(answer[12], 7);
	CHECK_EQ(v.tid, status_of(&p).tid);
	CHECK_EQ(v.back, -EBUSY);
#ifdef LV_SANITIZED
	v.open_says = v.socket_says = EPERM; /* without a sandbox; two descriptors leak */
	p.stopped = true;
#endif
	CHECK_EQ(v.open_says, EPERM);
	CHECK_EQ(v.socket_says, EPERM);
	fake_free(&p);
}

static struct sockaddr_un name_of(const char *what)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};

	snprintf(addr.sun_path, sizeof(addr.sun_path), "/tmp/libvhost-control-%s-%d.sock", what, getpid());
	unlink(addr.sun_path);
	return addr;
}

TEST(backend_control, accepts_who_connects)
{
	const struct sockaddr_un addr = name_of("listen");
	struct fake p = up(NULL, NULL);

	CHECK_EQ(libvhost_backend_listen(p.b, addr.sun_path), 0);
	for (int i = 0; i < 10; i++) {
		close(p.sock);
		p.sock = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
		CHECK_EQ(connect(p.sock, (const struct sockaddr *)&addr, sizeof(addr)), 0);
		handshake(&p);
	}
	p.stopped = true;
	CHECK_EQ(libvhost_backend_stop(p.b, PATIENCE_MS), 0);
	CHECK_EQ(access(addr.sun_path, F_OK), -1);
	fake_free(&p);
}

/* Connecting is the host's: its dispatch makes the connection, the control worker has it from there on. */
TEST(backend_control, dispatch_connects)
{
	const struct sockaddr_un addr = name_of("client");
	const int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	struct fake p = up(NULL, NULL);
	struct pollfd in = {.fd = listener, .events = POLLIN};

	CHECK_EQ(bind(listener, (const struct sockaddr *)&addr, sizeof(addr)), 0);
	CHECK_EQ(listen(listener, 4), 0);
	CHECK_EQ(libvhost_backend_connect(p.b, addr.sun_path), 0);
	for (int i = 0; i < 3; i++) {
		close(p.sock);
		for (int n = 0; n < PATIENCE_MS && poll(&in, 1, 0) == 0; n++) {
			struct libvhost_event e;

			CHECK_EQ(libvhost_backend_dispatch(p.b, 100), 0);
			while (libvhost_backend_next_event(p.b, &e) == 1)
				;
		}
		p.sock = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
		CHECK(p.sock >= 0);
		handshake(&p);
		CHECK_EQ(ring_up(&p, 0), 0);
	}
	p.stopped = true;
	CHECK_EQ(libvhost_backend_stop(p.b, PATIENCE_MS), 0);
	fake_free(&p);
	close(listener);
	unlink(addr.sun_path);
}

static int never(void *arg, struct libvhost_req *req)
{
	(void)arg;
	(void)req;
	return -ENOTSUP;
}

TEST(backend_control, what_it_does_not_go_with)
{
	static const struct libvhost_backend_ops bridge = {.size = sizeof(bridge), .on_request = never};
	struct libvhost_backend_opts o = {.size = sizeof(o), .flags = 3, .num_queues = 1, .ops = &bridge};
	struct libvhost_worker_status s = {.size = sizeof(s)};
	struct libvhost_error e = {.size = sizeof(e)};
	struct libvhost_backend *b;
	struct libvhost_ctx *ctx;
	struct fake p;

	CHECK_EQ(libvhost_ctx_new(NULL, &ctx), 0);
	CHECK_EQ(libvhost_backend_new(ctx, &o, &b), -EINVAL);
	CHECK_EQ(libvhost_ctx_error(ctx, &e), 0);
	CHECK(strstr(e.text, "CONTROL_WORKER"));
	o.flags = LIBVHOST_BACKEND_CONTROL_WORKER | LIBVHOST_BACKEND_PULL;
	o.ops = NULL;
	CHECK_EQ(libvhost_backend_new(ctx, &o, &b), -EINVAL);
	libvhost_ctx_free(ctx);
	p = fake_new(NULL);
	CHECK_EQ(libvhost_backend_worker_status(p.b, LIBVHOST_BACKEND_CONTROL_INDEX, &s), -ENOENT);
	fake_free(&p);
}

TEST(backend_control, a_stop_has_its_deadline_while_an_op_hangs)
{
	struct view v = {.hold = true};
	struct fake p = up(&viewing, &v);
	const uint32_t config[4] = {0, 4, 0, 0};
	uint64_t began;

	handshake(&p);
	CHECK_EQ(ring_up(&p, 0), 0);
	send_msg(&p, LIBVHOST_OP_GET_CONFIG, 0, config, sizeof(config), NULL, 0);
	while (!v.held)
		usleep(100);
	p.stopped = true;
	began = now_ms();
	CHECK_EQ(libvhost_backend_stop(p.b, 100), -ETIMEDOUT);
	CHECK(now_ms() - began < PROMPT_MS);
	CHECK_EQ(v.stops, 0);
	v.hold = false;
	CHECK_EQ(libvhost_backend_stop(p.b, PATIENCE_MS), 0);
	CHECK_EQ(v.stops, 1);
	CHECK_EQ(libvhost_backend_stop(p.b, 0), 0);
	CHECK_EQ(libvhost_backend_dispatch(p.b, 10000), -ESHUTDOWN);
	fake_free(&p);
}

static void *dispatch(void *arg)
{
	const struct fake *p = arg;

	while (libvhost_backend_dispatch(p->b, 60000) == 0)
		;
	return NULL;
}

TEST(backend_control, a_stop_wakes_who_dispatches)
{
	struct fake p = up(NULL, NULL);
	pthread_t thread;

	take_event(&p, LIBVHOST_EVENT_CONNECTED);
	CHECK_EQ(pthread_create(&thread, NULL, dispatch, &p), 0);
	usleep(20000);
	p.stopped = true;
	CHECK_EQ(libvhost_backend_stop(p.b, PATIENCE_MS), 0);
	pthread_join(thread, NULL);
	fake_free(&p);
}

/* Sends without end, and reads only if it is to be served on. */
struct flood {
	int sock;
	bool reads;
	atomic_bool end;
	_Atomic uint64_t sent;
};

static void *flood(void *arg)
{
	const struct wire_hdr ask = {.request = LIBVHOST_OP_GET_FEATURES, .flags = 1};
	struct flood *f = arg;
	uint8_t answers[4096];

	while (!f->end) {
		if (send(f->sock, &ask, sizeof(ask), MSG_NOSIGNAL | MSG_DONTWAIT) > 0)
			f->sent++;
		if (f->reads && recv(f->sock, answers, sizeof(answers), MSG_DONTWAIT) == 0)
			break;
	}
	return NULL;
}

static pthread_t start_flood(struct flood *f, struct fake *p, bool reads)
{
	pthread_t thread;

	f->sock = p->sock;
	f->reads = reads;
	CHECK_EQ(pthread_create(&thread, NULL, flood, f), 0);
	while (f->sent < 100)
		sched_yield();
	return thread;
}

TEST(backend_control, the_host_gets_its_turn_under_a_flood)
{
	struct fake p = up(NULL, NULL);
	struct flood f = {0};
	pthread_t thread = start_flood(&f, &p, true);
	uint64_t longest = 0;

	for (uint8_t i = 0; i < 100; i++) {
		const uint64_t began = now_ms();

		CHECK_EQ(libvhost_backend_set_config(p.b, &i, 1), 0);
		longest = now_ms() - began > longest ? now_ms() - began : longest;
	}
	printf("# %llu messages meanwhile, longest call %llu ms\n", (unsigned long long)f.sent,
	       (unsigned long long)longest);
	CHECK(longest < PATIENCE_MS / 2);
	p.stopped = true;
	CHECK_EQ(libvhost_backend_stop(p.b, PATIENCE_MS), 0);
	f.end = true;
	pthread_join(thread, NULL);
	fake_free(&p);
}

TEST(backend_control, a_front_end_that_never_reads_is_hung_up_on)
{
	struct fake p = up(NULL, NULL);
	struct flood f = {0};
	pthread_t thread = start_flood(&f, &p, false);

	for (int i = 0; i < 10000; i++) {
		struct libvhost_event e = {0};

		CHECK_EQ(libvhost_backend_dispatch(p.b, 1000), 0);
		if (libvhost_backend_next_event(p.b, &e) == 1 && e.type == LIBVHOST_EVENT_DISCONNECTED) {
			CHECK_EQ(e.err, -ETIMEDOUT);
			break;
		}
		CHECK(i < 9999);
	}
	f.end = true;
	pthread_join(thread, NULL);
	close(p.sock);
	p.sock = -1;
	fake_connect(&p); /* and the next one is served */
	handshake(&p);
	fake_free(&p);
}

TEST(backend_control, half_a_message_has_its_time)
{
	const struct wire_hdr ask = {.request = LIBVHOST_OP_GET_FEATURES, .flags = 1};
	struct libvhost_event e = {0};
	struct fake p = up(NULL, NULL);

	take_event(&p, LIBVHOST_EVENT_CONNECTED);
	send_raw(&p, &ask, 5, NULL, 0);
	CHECK(readable(&p, 10000)); /* nothing but the event needs the host */
	CHECK_EQ(libvhost_backend_next_event(p.b, &e), 1);
	CHECK_EQ(e.type, LIBVHOST_EVENT_DISCONNECTED);
	CHECK_EQ(e.err, -ETIMEDOUT);
	close(p.sock);
	p.sock = -1;
	fake_free(&p);
}

TEST(backend_control, ends_in_the_middle_of_messages)
{
	for (int i = 0; i < 20; i++) {
		struct view v = {.tid = 0};
		struct fake p = up(&viewing, &v);
		struct flood f = {0};
		pthread_t thread;

		handshake(&p);
		CHECK_EQ(ring_up(&p, 0), 0);
		thread = start_flood(&f, &p, true);
		if (i % 2)
			CHECK_EQ(libvhost_backend_stop(p.b, PATIENCE_MS), 0);
		libvhost_backend_free(p.b);
		CHECK_EQ(v.stops, 1);
		f.end = true;
		pthread_join(thread, NULL);
		p.b = NULL;
		p.stopped = true;
		fake_free(&p);
	}
}

static int64_t save_some(void *arg, void *buf, uint64_t cap)
{
	(void)arg;
	CHECK(cap >= 5);
	memcpy(buf, "state", 5);
	return 5;
}

static int load_none(void *arg, const void *buf, uint64_t len)
{
	(void)arg;
	(void)buf;
	(void)len;
	return -EINVAL;
}

/* Messages that make files and write to pipes of the front-end. */
TEST(backend_control, descriptors_of_all_kinds)
{
	static const struct libvhost_backend_ops ops = {
		.size = sizeof(ops), .serve = fake_serve, .save_state = save_some, .load_state = load_none};
	const struct {
		uint64_t size, offset;
		uint16_t queues, num;
	} region = {.queues = 4, .num = 8};
	const uint32_t transfer[2] = {0, 0};
	struct fake p = up(&ops, NULL);
	struct wire_hdr hdr;
	uint8_t answer[64];
	char text[8] = "";
	int ends[2];

	handshake(&p);
	send_msg(&p, LIBVHOST_OP_GET_INFLIGHT_FD, 0, &region, 20, NULL, 0);
	CHECK(recv_msg(&p, &hdr, answer, sizeof(answer)) > 0);
	CHECK_EQ(pipe2(ends, O_CLOEXEC), 0);
	send_msg(&p, LIBVHOST_OP_SET_DEVICE_STATE_FD, 0, transfer, sizeof(transfer), &ends[1], 1);
	CHECK_EQ(recv_msg(&p, &hdr, answer, sizeof(answer)), 8);
	close(ends[1]);
	CHECK_EQ(read(ends[0], text, sizeof(text)), 5);
	CHECK(!strcmp(text, "state"));
	CHECK_EQ(get_u64(&p, LIBVHOST_OP_CHECK_DEVICE_STATE), 0);
	close(ends[0]);
	fake_free(&p);
}
