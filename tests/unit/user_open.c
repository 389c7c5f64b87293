/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* Ways in: paths, waiting, listening, adopted sockets, reconnect. And ways out: limits, free from another thread. */
#include "check.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>
#include "core/ctx.h"
#include "puppet.h"
#include "transport/transport.h"

#define OP(name) LIBVHOST_OP_##name

struct place {
	struct lv_ledger before;
	struct libvhost_ctx *ctx;
	char dir[32], path[64], uri[80];
};

static void place_make(struct place *pl)
{
	memset(pl, 0, sizeof(*pl));
	pl->before = lv_ledger_take();
	strcpy(pl->dir, "/tmp/lv-open-XXXXXX");
	CHECK(mkdtemp(pl->dir));
	snprintf(pl->path, sizeof(pl->path), "%s/s", pl->dir);
	snprintf(pl->uri, sizeof(pl->uri), "user:%s", pl->path);
	CHECK_EQ(libvhost_ctx_new(NULL, &pl->ctx), 0);
}

static void place_remove(struct place *pl)
{
	libvhost_ctx_free(pl->ctx);
	CHECK_EQ(access(pl->path, F_OK), -1);
	CHECK_EQ(rmdir(pl->dir), 0);
	CHECK_LEDGER(pl->before);
}

static int try_open(struct place *pl, const char *uri, uint32_t flags, int fd, uint32_t *kind)
{
	struct libvhost_transport_opts o = {.size = sizeof(o), .flags = flags, .timeout_ms = 60, .fd = fd};
	struct libvhost_error e = {.size = sizeof(e)};
	struct libvhost_transport *t = NULL;
	int rc = libvhost_transport_open(pl->ctx, uri, &o, &t);
	char part[60];

	CHECK_EQ(t == NULL, rc != 0);
	libvhost_transport_free(t);
	CHECK_EQ(libvhost_ctx_error(pl->ctx, &e), 0);
	CHECK(!rc || e.code == rc);
	snprintf(part, sizeof(part), "%s", uri);
	CHECK(!rc || strstr(e.text, part));
	*kind = e.kind;
	return rc;
}

TEST(user_open, r144_paths_that_lead_nowhere)
{
	char longuri[300] = "user:";
	struct place pl;
	uint32_t kind;
	int fd;

	place_make(&pl);
	CHECK_EQ(try_open(&pl, pl.uri, 0, 0, &kind), -ENOENT);
	CHECK_EQ(kind, LIBVHOST_EK_CONNECT);
	fd = open(pl.path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
	CHECK_EQ(try_open(&pl, pl.uri, LIBVHOST_TRANSPORT_OPT_WAIT, 0, &kind), -ENOTSOCK);
	close(fd);
	unlink(pl.path);
	fd = lv_wire_listen(pl.path, 1);
	close(fd);
	CHECK_EQ(try_open(&pl, pl.uri, 0, 0, &kind), -ECONNREFUSED);
	CHECK_EQ(try_open(&pl, pl.uri, LIBVHOST_TRANSPORT_OPT_WAIT, 0, &kind), -ETIMEDOUT);
	unlink(pl.path);
	CHECK_EQ(try_open(&pl, pl.uri, LIBVHOST_TRANSPORT_OPT_WAIT, 0, &kind), -ETIMEDOUT);
	CHECK_EQ(kind, LIBVHOST_EK_TIMEOUT);
	snprintf(pl.uri, sizeof(pl.uri), "user:%s", pl.dir);
	CHECK_EQ(try_open(&pl, pl.uri, 0, 0, &kind), -ENOTSOCK);
	memset(longuri + 5, 'a', 200);
	CHECK_EQ(try_open(&pl, longuri, 0, 0, &kind), -EINVAL);
	CHECK_EQ(kind, LIBVHOST_EK_ARGUMENT);
	place_remove(&pl);
}

TEST(user_open, uris_and_options_are_checked)
{
	const char *bad[] = {"", "user", "user:", "user-listen:", "user-fd:", "user-fd:/x", "usb:/x", "userx:/y"};
	struct libvhost_transport_opts o = {.size = sizeof(o), .flags = 0x80};
	struct libvhost_transport *t = NULL;
	struct place pl;
	uint32_t kind;

	place_make(&pl);
	for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		CHECK_EQ(try_open(&pl, bad[i], 0, 0, &kind), -EINVAL);
		CHECK_EQ(kind, LIBVHOST_EK_ARGUMENT);
	}
	CHECK_EQ(libvhost_transport_open(pl.ctx, pl.uri, &o, &t), -EINVAL);
	o.flags = 0;
	o.size = 4;
	CHECK_EQ(libvhost_transport_open(pl.ctx, pl.uri, &o, &t), -EINVAL);
	CHECK_EQ(libvhost_transport_open(NULL, pl.uri, NULL, &t), -EINVAL);
	CHECK_EQ(try_open(&pl, "user-fd:", LIBVHOST_TRANSPORT_OPT_HAS_FD, STDERR_FILENO, &kind), -ENOTSOCK);
	CHECK_EQ(try_open(&pl, "user-fd:", LIBVHOST_TRANSPORT_OPT_HAS_FD, 9999, &kind), -EBADF);
	libvhost_transport_free(NULL);
	CHECK_EQ(libvhost_transport_cancel(NULL), -EINVAL);
	place_remove(&pl);
}

static void *listen_late(void *arg)
{
	struct puppet *p = arg;

	usleep(20000);
	puppet_listen(p, p->arg);
	return NULL;
}

TEST(user_open, waits_for_a_socket_that_comes_later)
{
	struct libvhost_transport_opts o = {
		.size = sizeof(o), .flags = LIBVHOST_TRANSPORT_OPT_WAIT, .timeout_ms = PATIENCE_MS};
	struct libvhost_req req = {.op = OP(GET_FEATURES)};
	struct libvhost_transport *t = NULL;
	struct place pl;
	struct puppet p;
	pthread_t late;

	place_make(&pl);
	puppet_init(&p);
	p.arg = pl.path;
	CHECK_EQ(pthread_create(&late, NULL, listen_late, &p), 0);
	CHECK_EQ(libvhost_transport_open(pl.ctx, pl.uri, &o, &t), 0);
	pthread_join(late, NULL);
	CHECK_EQ(libvhost_transport_exec(t, &req, 1, PATIENCE_MS, NULL), 0);
	CHECK_EQ(req.result[0], PUPPET_FEATURES);
	libvhost_transport_free(t);
	puppet_stop(&p);
	place_remove(&pl);
}

/* A peer that dies and comes back: told at once, everything of the old session forgotten. */
TEST(user_open, reopens_after_the_peer_died)
{
	struct libvhost_req setup[] = {
		{.op = OP(GET_FEATURES)}, {.op = OP(SET_PROTOCOL_FEATURES)}, {.op = OP(GET_QUEUE_NUM)}};
	struct libvhost_transport *t;
	struct pollfd watch = {.events = POLLIN};
	struct place pl;
	struct puppet p;
	int rc;

	place_make(&pl);
	puppet_init(&p);
	puppet_listen(&p, pl.path);
	t = puppet_connect(&p, pl.ctx, NULL);
	setup[1].arg.u64 = p.protocol_features;
	CHECK_EQ(libvhost_transport_exec(t, setup, 3, PATIENCE_MS, NULL), 0);
	watch.fd = libvhost_transport_fd(t);
	puppet_kill(&p);
	CHECK_EQ(poll(&watch, 1, PATIENCE_MS), 1);
	CHECK_EQ(libvhost_transport_progress(t), -ECONNRESET);
	CHECK_EQ(libvhost_transport_progress(t), -ENOTCONN);
	CHECK_EQ(poll(&watch, 1, 0), 0); /* a broken connection does not spin an event loop */
	CHECK_EQ(lv_transport_reopen(t), 0);
	CHECK_EQ(libvhost_transport_exec(t, &setup[2], 1, 2000, NULL), -ENOTSUP);
	CHECK_EQ(libvhost_transport_exec(t, setup, 3, PATIENCE_MS, NULL), 0);
	puppet_stop(&p);
	rc = libvhost_transport_exec(t, setup, 1, 2000, NULL);
	CHECK_EQ(rc, -ECONNRESET);
	CHECK_EQ(lv_transport_reopen(t), -EAGAIN);
	CHECK_EQ(libvhost_transport_exec(t, setup, 1, 2000, NULL), -ENOTCONN);
	libvhost_transport_free(t);
	place_remove(&pl);
}

static void *connect_back(void *arg)
{
	struct puppet *p = arg;
	int sock;

	do
		sock = lv_wire_connect(p->arg);
	while (sock < 0);
	p->sock = sock;
	while (puppet_step(p, 2000) == 1)
		;
	return NULL;
}

TEST(user_open, listens_for_a_client_mode_back_end)
{
	struct libvhost_transport_opts o = {.size = sizeof(o), .timeout_ms = 2000};
	struct libvhost_req req = {.op = OP(GET_FEATURES)};
	struct libvhost_transport *t = NULL;
	struct place pl;
	struct puppet p;
	pthread_t back;
	uint32_t kind;

	place_make(&pl);
	snprintf(pl.uri, sizeof(pl.uri), "user-listen:%s", pl.path);
	CHECK_EQ(try_open(&pl, pl.uri, 0, 0, &kind), -ETIMEDOUT); /* nobody came; the file is gone again */
	puppet_init(&p);
	p.arg = pl.path;
	CHECK_EQ(pthread_create(&back, NULL, connect_back, &p), 0);
	CHECK_EQ(libvhost_transport_open(pl.ctx, pl.uri, &o, &t), 0);
	CHECK_EQ(libvhost_transport_exec(t, &req, 1, PATIENCE_MS, NULL), 0);
	CHECK_EQ(try_open(&pl, pl.uri, 0, 0, &kind), -EADDRINUSE);
	libvhost_transport_free(t);
	pthread_join(back, NULL);
	puppet_stop(&p);
	place_remove(&pl);
}

/* recvmsg succeeds, the descriptor is missing: our limit, said as such, and nothing leaks. */
TEST(user_open, r244_no_room_for_a_reply_descriptor)
{
	struct libvhost_req reqs[] = {
		{.op = OP(GET_FEATURES)},
		{.op = OP(SET_PROTOCOL_FEATURES), .arg.u64 = PUPPET_PF(INFLIGHT_SHMFD)},
		{.op = OP(GET_INFLIGHT_FD), .arg.inflight = {.num_queues = 1, .queue_size = 8}},
	};
	struct libvhost_error e = {.size = sizeof(e)};
	struct libvhost_transport *t;
	struct rlimit old, low;
	struct place pl;
	struct puppet p;
	int rc;

	place_make(&pl);
	puppet_init(&p);
	puppet_pair(&p);
	t = puppet_connect(&p, pl.ctx, NULL);
	CHECK_EQ(libvhost_transport_submit(t, reqs, 3, PATIENCE_MS), 0);
	while (puppet_step(&p, 0) == 1)
		;
	CHECK_EQ(getrlimit(RLIMIT_NOFILE, &old), 0);
	low = old;
	low.rlim_cur = 3;
	CHECK_EQ(setrlimit(RLIMIT_NOFILE, &low), 0);
	do
		rc = libvhost_transport_progress(t);
	while (!rc);
	CHECK_EQ(setrlimit(RLIMIT_NOFILE, &old), 0);
	CHECK_EQ(rc, -EMFILE);
	libvhost_transport_error(t, &e);
	CHECK_EQ(e.kind, LIBVHOST_EK_FD_LIMIT);
	libvhost_transport_free(t);
	puppet_stop(&p);
	place_remove(&pl);
}

struct victim {
	struct libvhost_transport *t;
	int rc;
};

static void *blocked(void *arg)
{
	struct libvhost_req req = {.op = OP(GET_FEATURES)};
	struct victim *v = arg;

	v->rc = libvhost_transport_exec(v->t, &req, 1, 10000, NULL);
	return NULL;
}

TEST(user_open, r260_free_ends_a_call_that_is_blocked_in_another_thread)
{
	struct victim v = {.rc = 1};
	struct place pl;
	struct puppet p;
	pthread_t thread;

	place_make(&pl);
	puppet_init(&p);
	puppet_pair(&p);
	v.t = puppet_connect(&p, pl.ctx, NULL);
	CHECK_EQ(pthread_create(&thread, NULL, blocked, &v), 0);
	CHECK(lv_wire_pending(p.sock) >= 0);
	while (lv_wire_pending(p.sock) == 0)
		usleep(1000);
	libvhost_transport_free(v.t);
	pthread_join(thread, NULL);
	CHECK_EQ(v.rc, -ECANCELED);
	puppet_stop(&p);
	place_remove(&pl);
}
