/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* Device state at the front-end, from and to our back-end. */
#include "devrig.h"

#include <pthread.h>
#include <vhost/backend.h>
#include <vhost/state.h>

#define OP(name) LIBVHOST_OP_##name
#define BIG	 (300u << 10) /* more than a pipe holds */

static const struct libvhost_call_opts async = {.size = sizeof(async), .flags = LIBVHOST_CALL_ASYNC};

/* Our back-end, in a thread of its own. */
struct server {
	struct libvhost_backend *b;
	pthread_t thread;
	atomic_bool stop;
	uint8_t bytes[BIG];
	uint64_t len;
	int load_says;
	char path[64], uri[80];
};

static int64_t save_state(void *arg, void *buf, uint64_t cap)
{
	struct server *s = arg;

	if (cap < s->len)
		return -ENOSPC;
	memcpy(buf, s->bytes, s->len);
	return (int64_t)s->len;
}

static int load_state(void *arg, const void *buf, uint64_t len)
{
	struct server *s = arg;

	if (s->load_says || len > BIG)
		return s->load_says ? s->load_says : -EINVAL;
	memcpy(s->bytes, buf, len);
	s->len = len;
	return 0;
}

static int serve(void *arg, uint32_t queue, struct libvhost_vq *vq)
{
	(void)arg;
	(void)queue;
	(void)vq;
	return 0;
}

static void *dispatch(void *arg)
{
	struct server *s = arg;

	while (!s->stop)
		libvhost_backend_dispatch(s->b, 20);
	return NULL;
}

static struct server *server_new(struct libvhost_ctx *ctx, uint32_t number)
{
	static const struct libvhost_backend_ops ops = {
		.size = sizeof(ops), .serve = serve, .save_state = save_state, .load_state = load_state};
	const struct libvhost_worker_opts worker = {.size = sizeof(worker), .sandbox = LIBVHOST_SANDBOX_OFF};
	struct libvhost_backend_opts o = {
		.size = sizeof(o), .num_queues = DEVRIG_QUEUES, .ops = &ops, .num_workers = 1, .worker = &worker};
	struct server *s = calloc(1, sizeof(*s));

	CHECK(s);
	o.arg = s;
	CHECK_EQ(libvhost_backend_new(ctx, &o, &s->b), 0);
	snprintf(s->path, sizeof(s->path), "/tmp/libvhost-state-%d-%u.sock", (int)getpid(), number);
	snprintf(s->uri, sizeof(s->uri), "user:%s", s->path);
	CHECK_EQ(libvhost_backend_listen(s->b, s->path), 0);
	CHECK_EQ(pthread_create(&s->thread, NULL, dispatch, s), 0);
	return s;
}

static void server_free(struct server *s)
{
	s->stop = true;
	pthread_join(s->thread, NULL);
	libvhost_backend_free(s->b);
	free(s);
}

/* Two devices on two back-ends: a source and a destination. */
struct pair {
	struct devrig r; /* its device is the source */
	struct server *from, *to;
	struct libvhost_dev *dest;
};

static void pair_up(struct pair *x)
{
	memset(x, 0, sizeof(*x));
	devrig_init(&x->r);
	x->from = server_new(x->r.g.ctx, 0);
	x->to = server_new(x->r.g.ctx, 1);
	for (uint32_t i = 0; i < BIG; i++)
		x->from->bytes[i] = (uint8_t)(i * 7 + i / 256);
	x->r.opts.uri = x->to->uri;
	CHECK_EQ(devrig_open(&x->r), 0);
	x->dest = x->r.dev;
	x->r.opts.uri = x->from->uri;
	CHECK_EQ(devrig_open(&x->r), 0);
}

static void pair_down(struct pair *x)
{
	libvhost_dev_cleanup(x->dest);
	libvhost_dev_cleanup(x->r.dev);
	server_free(x->to);
	server_free(x->from);
	guest_free(&x->r.g);
	CHECK_LEDGER(x->r.before);
}

TEST(device_state, moves_from_one_back_end_to_another)
{
	static const uint32_t sizes[] = {0, 1, 4096, 65536, BIG};
	static uint8_t buf[BIG];
	struct pair x;

	pair_up(&x);
	CHECK_EQ(libvhost_dev_supports_device_state(x.r.dev), 1);
	for (unsigned i = 0; i < 5; i++) {
		size_t len = sizes[i]; /* exactly as much room as it takes */

		x.from->len = sizes[i];
		memset(x.to->bytes, 0, BIG);
		CHECK_EQ(libvhost_dev_save_state(x.r.dev, buf, &len, NULL), 0);
		CHECK_EQ(len, sizes[i]);
		CHECK_MEM(buf, x.from->bytes, len);
		CHECK_EQ(libvhost_dev_load_state(x.dest, buf, len, NULL), 0);
		CHECK_EQ(x.to->len, len);
		CHECK_MEM(x.to->bytes, buf, len);
	}
	devrig_queues(&x.r, 1); /* and goes on as it was */
	CHECK_EQ(libvhost_dev_start(x.r.dev, NULL), 0);
	pair_down(&x);
}

TEST(device_state, moves_in_an_event_loop)
{
	static uint8_t buf[BIG + 1];
	size_t len = sizeof(buf);
	struct libvhost_event e;
	struct pair x;

	pair_up(&x);
	x.from->len = BIG;
	CHECK_EQ(libvhost_dev_save_state(x.r.dev, buf, &len, &async), -EINPROGRESS);
	e = devrig_done(x.r.dev);
	CHECK_EQ(e.err, 0);
	CHECK_EQ(e.value[0], LIBVHOST_OPERATION_SAVE_STATE);
	CHECK_EQ(len, BIG);
	CHECK_EQ(libvhost_dev_load_state(x.dest, buf, len, &async), -EINPROGRESS);
	e = devrig_done(x.dest);
	CHECK_EQ(e.err, 0);
	CHECK_EQ(e.value[0], LIBVHOST_OPERATION_LOAD_STATE);
	CHECK_MEM(x.to->bytes, x.from->bytes, BIG);
	CHECK_EQ(libvhost_dev_save_state(x.r.dev, buf, &len, &async), -EINPROGRESS);
	pair_down(&x); /* in the middle of it */
}

TEST(device_state, goes_through_the_callers_own_pipe)
{
	static uint8_t buf[BIG];
	int fds[2], other = 0;
	uint32_t off = 0;
	struct pair x;
	ssize_t n;

	pair_up(&x);
	x.from->len = BIG;
	CHECK_EQ(pipe2(fds, O_CLOEXEC), 0);
	CHECK_EQ(libvhost_dev_set_device_state_fd(x.r.dev, LIBVHOST_STATE_SAVE, fds[1], &other, 0), 0);
	CHECK_EQ(other, -1);
	close(fds[1]);
	while ((n = read(fds[0], buf + off, BIG - off)) > 0)
		off += (uint32_t)n;
	CHECK_EQ(off, BIG);
	close(fds[0]);
	CHECK_EQ(libvhost_dev_check_device_state(x.r.dev, 0), 0);
	CHECK_EQ(libvhost_dev_check_device_state(x.r.dev, 0), -EIO); /* there is no transfer any more */
	CHECK_EQ(devrig_error(&x.r).kind, LIBVHOST_EK_REFUSED);
	CHECK_EQ(pipe2(fds, O_CLOEXEC), 0);
	CHECK_EQ(libvhost_dev_set_device_state_fd(x.dest, LIBVHOST_STATE_LOAD, fds[0], &other, 0), 0);
	close(fds[0]);
	CHECK_EQ(write(fds[1], buf, 60000), 60000);
	close(fds[1]);
	CHECK_EQ(libvhost_dev_check_device_state(x.dest, 0), 0);
	CHECK_EQ(x.to->len, 60000);
	pair_down(&x);
}

TEST(device_state, a_room_that_is_too_small_and_a_load_that_is_refused)
{
	static uint8_t buf[BIG];
	struct pair x;
	size_t len;

	pair_up(&x);
	for (uint32_t room = 0; room < BIG; room = room * 9 + 1) {
		x.from->len = room + 1;
		len = room;
		CHECK_EQ(libvhost_dev_save_state(x.r.dev, buf, &len, NULL), -ENOSPC);
		CHECK_EQ(len, room);
		CHECK_EQ(devrig_error(&x.r).kind, LIBVHOST_EK_OUTPUT_TOO_SMALL);
	}
	len = BIG;
	CHECK_EQ(libvhost_dev_save_state(x.r.dev, buf, &len, NULL), 0);
	x.from->load_says = -ERANGE;
	CHECK_EQ(libvhost_dev_load_state(x.r.dev, buf, len, NULL), -EIO);
	CHECK_EQ(devrig_error(&x.r).kind, LIBVHOST_EK_REFUSED);
	CHECK_EQ(devrig_error(&x.r).op, OP(CHECK_DEVICE_STATE));
	CHECK_EQ(devrig_error(&x.r).peer_ack, ERANGE);
	pair_down(&x);
}
