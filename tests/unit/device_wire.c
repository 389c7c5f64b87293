/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* A device on a real socket: requests of the back-end while we wait, interrupts around a mask, killed and late peers.
 */
#include "devrig.h"

#include <poll.h>
#include <stdlib.h>
#include "core/wire.h"
#include "puppet.h"

#define OP(name)      LIBVHOST_OP_##name
#define CONFIG_CHANGE 2u
#define LOOKUP	      8u
#define SHMEM_MAP     9u
#define ASK	      (LV_USER_VERSION | LV_USER_F_NEED_REPLY)

struct wire {
	struct devrig r;
	struct puppet p;
	struct libvhost_dev_ops ops;
	char path[64], uri[80];
	uint32_t asked, maps;
	int nested;
	/* of the peer */
	uint32_t at;
	int answers;
};

static int on_request(void *arg, struct libvhost_req *req)
{
	struct wire *w = arg;

	w->asked++;
	if (req->op == OP(BACKEND_SHARED_OBJECT_LOOKUP)) {
		req->out_fd = memfd(4096, 0);
		req->out_flags = LIBVHOST_REQ_OUT_FD;
	}
	w->maps += req->op == OP(BACKEND_SHMEM_MAP);
	w->nested = libvhost_dev_stop(w->r.dev, NULL);
	libvhost_dev_cleanup(w->r.dev); /* ignored */
	return 0;
}

static void wire_init(struct wire *w)
{
	static unsigned number;

	memset(w, 0, sizeof(*w));
	devrig_init(&w->r);
	puppet_init(&w->p);
	w->p.protocol_features |= PUPPET_PF(SHMEM_MAP);
	w->p.protocol_features &= ~PUPPET_PF(STATUS);
	w->p.arg = w;
	snprintf(w->path, sizeof(w->path), "/tmp/libvhost-test-%d-%u.sock", (int)getpid(), number++);
	snprintf(w->uri, sizeof(w->uri), "user:%s", w->path);
	w->ops = (struct libvhost_dev_ops){.size = sizeof(w->ops), .on_request = on_request, .arg = w};
	w->r.opts.ops = &w->ops;
	w->r.opts.flags = LIBVHOST_DEV_USE_SHMEM;
	w->r.opts.uri = w->uri;
}

static void wire_open(struct wire *w)
{
	puppet_listen(&w->p, w->path);
	CHECK_EQ(devrig_open(&w->r), 0);
	devrig_queues(&w->r, 4);
}

static void wire_close(struct wire *w)
{
	libvhost_dev_cleanup(w->r.dev);
	puppet_stop(&w->p);
	guest_free(&w->r.g);
	CHECK_LEDGER(w->r.before);
}

static void put_ask(struct wire *w, uint32_t request, uint32_t size)
{
	static const uint64_t payload[8] = {0, 0, 0, 4096}; /* SHMEM_MAP: one page */
	const int fd = STDERR_FILENO;

	puppet_send(w->p.channel, request, ASK, size, payload, size, &fd, request == SHMEM_MAP);
}

/* The peer stays inside SET_VRING_ADDR until each of its own requests was answered. */
static bool ask_first(struct puppet *p, const struct libvhost_req *req, const struct lv_user_msg *msg)
{
	static const uint32_t requests[][2] = {{CONFIG_CHANGE, 0}, {LOOKUP, 16}, {SHMEM_MAP, 40}};
	struct wire *w = p->arg;

	(void)msg;
	if (req->op != w->at)
		return false;
	w->at = 0;
	for (unsigned i = 0; i < 3; i++) {
		struct lv_user_hdr hdr;
		uint64_t value = 1;

		put_ask(w, requests[i][0], requests[i][1]);
		w->answers += puppet_recv(p->channel, 2000, &hdr, &value, sizeof(value), NULL) == 8 && !value;
	}
	return false;
}

TEST(device_wire, requests_of_the_peer_during_start_do_not_deadlock)
{
	struct wire w;

	wire_init(&w);
	w.p.on_message = ask_first;
	w.at = OP(SET_VRING_ADDR);
	wire_open(&w);
	CHECK_EQ(libvhost_dev_start(w.r.dev, NULL), 0);
	CHECK_EQ(w.asked, 2);
	CHECK_EQ(w.maps, 1);
	CHECK_EQ(w.nested, -EBUSY);
	CHECK_EQ(devrig_events(&w.r, LIBVHOST_EVENT_CONFIG_CHANGE, NULL), 1);
	CHECK_EQ(devrig_state(&w.r), LIBVHOST_DEV_RUNNING);
	libvhost_dev_cleanup(w.r.dev);
	puppet_stop(&w.p);
	CHECK_EQ(w.answers, 3);
	guest_free(&w.r.g);
	CHECK_LEDGER(w.r.before);
}

/* Just before it takes over a new call descriptor the peer signals the old one. */
static bool signal_old(struct puppet *p, const struct libvhost_req *req, const struct lv_user_msg *msg)
{
	(void)msg;
	if (req->op == OP(SET_VRING_CALL) && req->index == 1 && p->ring[1].call >= 0)
		lv_eventfd_signal(p->ring[1].call);
	return false;
}

TEST(device_wire, no_interrupt_is_lost_around_a_mask)
{
	struct libvhost_queue q = {.size = sizeof(q)};
	struct wire w;

	wire_init(&w);
	w.p.on_message = signal_old;
	wire_open(&w);
	CHECK_EQ(libvhost_dev_start(w.r.dev, NULL), 0);
	CHECK_EQ(libvhost_dev_get_queue(w.r.dev, 1, &q), 0);
	for (int i = 0; i < 50; i++) {
		CHECK_EQ(libvhost_virtqueue_mask(w.r.dev, 1, 1), 0);
		CHECK_EQ(lv_eventfd_drain(q.call_fd), 1); /* came before the mask took effect */
		CHECK_EQ(libvhost_virtqueue_pending(w.r.dev, 1), 0);
		CHECK_EQ(libvhost_virtqueue_mask(w.r.dev, 1, 0), 0);
		CHECK_EQ(lv_eventfd_drain(q.call_fd), 0);
		CHECK_EQ(libvhost_virtqueue_pending(w.r.dev, 1), 1); /* came while it was masked */
		CHECK_EQ(libvhost_virtqueue_pending(w.r.dev, 1), 0);
	}
	wire_close(&w);
}

TEST(device_wire, killed_peer_is_noticed_and_comes_back)
{
	const struct libvhost_call_opts patient = {.size = sizeof(patient), .timeout_ms = PATIENCE_MS};
	struct libvhost_event e;
	struct wire w;

	wire_init(&w);
	wire_open(&w);
	CHECK_EQ(libvhost_dev_start(w.r.dev, NULL), 0);
	for (int i = 0; i < 3; i++) {
		puppet_kill(&w.p);
		CHECK(devrig_await(&w.r, LIBVHOST_EVENT_DISCONNECTED, PATIENCE_MS, &e));
		CHECK_EQ(libvhost_dev_reconnect(w.r.dev, &patient), 0);
		CHECK_EQ(devrig_state(&w.r), LIBVHOST_DEV_RUNNING);
		CHECK_EQ(devrig_events(&w.r, LIBVHOST_EVENT_RECONNECTED, &e), 1);
		CHECK_EQ(e.value[0], LIBVHOST_GUARANTEE_NONE);
	}
	wire_close(&w);
}

TEST(device_wire, a_socket_that_comes_late)
{
	struct libvhost_event e;
	struct wire w;

	wire_init(&w);
	w.r.opts.flags |= LIBVHOST_DEV_ASYNC | LIBVHOST_DEV_WAIT;
	CHECK_EQ(devrig_open(&w.r), -EINPROGRESS);
	CHECK_EQ(devrig_state(&w.r), LIBVHOST_DEV_CONNECTING);
	CHECK(!devrig_await(&w.r, LIBVHOST_EVENT_DONE, 50, &e));
	CHECK_EQ(libvhost_dev_start(w.r.dev, NULL), -EBUSY);
	puppet_listen(&w.p, w.path);
	CHECK(devrig_await(&w.r, LIBVHOST_EVENT_DONE, PATIENCE_MS, &e));
	CHECK_EQ(e.err, 0);
	devrig_queues(&w.r, 4);
	CHECK_EQ(libvhost_dev_start(w.r.dev, NULL), 0);
	wire_close(&w);
}

TEST(device_wire, a_socket_that_never_comes)
{
	struct libvhost_event e;
	struct wire w;

	wire_init(&w);
	w.r.opts.flags |= LIBVHOST_DEV_ASYNC | LIBVHOST_DEV_WAIT;
	w.r.opts.timeout_ms = 60;
	CHECK_EQ(devrig_open(&w.r), -EINPROGRESS);
	CHECK(devrig_await(&w.r, LIBVHOST_EVENT_DONE, PATIENCE_MS, &e));
	CHECK_EQ(e.err, -ETIMEDOUT);
	CHECK_EQ(devrig_state(&w.r), LIBVHOST_DEV_DISCONNECTED);
	wire_close(&w);
}

/* A failure that only narrows down to a range of requests is looked at request by request the next time. */
TEST(device_wire, after_an_unattributed_failure_every_request_is_confirmed)
{
	struct wire w;
	uint32_t first, asked = 0;

	wire_init(&w);
	puppet_fault(&w.p, (struct puppet_fault){.op = OP(SET_VRING_ADDR), .what = PUPPET_DIE_BEFORE});
	wire_open(&w);
	CHECK_EQ(libvhost_dev_start(w.r.dev, NULL), -ECONNRESET);
	CHECK(devrig_error(&w.r).first_unknown != LIBVHOST_NONE);
	CHECK_EQ(devrig_state(&w.r), LIBVHOST_DEV_DISCONNECTED);
	CHECK_EQ(libvhost_dev_reconnect(w.r.dev, NULL), 0);
	puppet_fault(&w.p, (struct puppet_fault){.op = OP(SET_VRING_BASE), .what = PUPPET_REFUSE});
	first = atomic_load(&w.p.messages);
	CHECK_EQ(libvhost_dev_start(w.r.dev, NULL), -EIO);
	CHECK_EQ(devrig_error(&w.r).op, OP(SET_VRING_BASE));
	CHECK_EQ(devrig_error(&w.r).queue, 0);
	CHECK_EQ(devrig_state(&w.r), LIBVHOST_DEV_NEGOTIATED);
	CHECK_EQ(libvhost_dev_start(w.r.dev, NULL), 0);
	libvhost_dev_cleanup(w.r.dev);
	puppet_stop(&w.p);
	for (uint32_t i = first; i < atomic_load(&w.p.messages); i++)
		asked += w.p.seen[i] == OP(SET_VRING_NUM) && w.p.seen_flags[i] & LV_USER_F_NEED_REPLY;
	CHECK(asked >= 4);
	guest_free(&w.r.g);
	CHECK_LEDGER(w.r.before);
}

/* In-band notifications as any transport hands them in; the queue of events is bounded. */
TEST(device_wire, in_band_notifications)
{
	struct libvhost_req call = {.op = OP(BACKEND_VRING_CALL), .index = 2};
	struct libvhost_req err = {.op = OP(BACKEND_VRING_ERR), .index = 3};
	struct libvhost_queue q = {.size = sizeof(q)};
	struct libvhost_event e;
	struct devrig r;

	devrig_ready(&r);
	CHECK_EQ(libvhost_dev_start(r.dev, NULL), 0);
	CHECK_EQ(libvhost_dev_get_queue(r.dev, 2, &q), 0);
	for (int i = 0; i < 300; i++) {
		CHECK_EQ(libvhost_transport_inbound(libvhost_dev_transport(r.dev, 0), &call), 0);
		CHECK_EQ(libvhost_transport_inbound(libvhost_dev_transport(r.dev, 0), &err), 0);
	}
	CHECK_EQ(lv_eventfd_drain(q.call_fd), 1);
	CHECK_EQ(libvhost_dev_next_event(r.dev, &e), 1);
	CHECK_EQ(e.type, LIBVHOST_EVENT_QUEUE_CALL);
	CHECK_EQ(e.queue, 2);
	CHECK_EQ(libvhost_dev_next_event(r.dev, &e), 1);
	CHECK_EQ(e.type, LIBVHOST_EVENT_QUEUE_ERROR);
	CHECK_EQ(e.queue, 3);
	CHECK_EQ(libvhost_dev_next_event(r.dev, &e), 0);
	call.index = 200;
	CHECK_EQ(libvhost_transport_inbound(libvhost_dev_transport(r.dev, 0), &call), -EINVAL);
	devrig_close(&r);
}

/* The host's own copy of an adopted socket must not keep the device's descriptor readable once the peer is gone. */
TEST(device_wire, a_dead_socket_that_the_host_keeps_is_not_watched)
{
	struct pollfd poll_dev = {.events = POLLIN};
	struct libvhost_event e;
	struct wire w;
	int copy;

	wire_init(&w);
	puppet_start(&w.p);
	copy = lv_fd_dup(w.p.front);
	w.r.opts.uri = NULL;
	w.r.opts.transport = puppet_connect(&w.p, w.r.g.ctx, NULL);
	CHECK_EQ(devrig_open(&w.r), 0);
	poll_dev.fd = libvhost_dev_fd(w.r.dev);
	puppet_kill(&w.p);
	CHECK(devrig_await(&w.r, LIBVHOST_EVENT_DISCONNECTED, PATIENCE_MS, &e));
	CHECK_EQ(devrig_state(&w.r), LIBVHOST_DEV_DISCONNECTED);
	CHECK_EQ(libvhost_dev_dispatch(w.r.dev, 0), 0);
	CHECK_EQ(poll(&poll_dev, 1, 0), 0);
	lv_fd_close(copy);
	wire_close(&w);
}
