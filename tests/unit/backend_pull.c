/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* A back-end without workers, served by the thread that dispatches. */
#include "frontend.h"

#define TIMEOUT_MS 100u

static struct fake pulled(void)
{
	const struct libvhost_backend_opts o = {.flags = LIBVHOST_BACKEND_PULL, .timeout_ms = TIMEOUT_MS};

	return fake_new(&o);
}

static struct fake running(void)
{
	struct fake p = pulled();

	handshake(&p);
	CHECK_EQ(ring_up(&p, 0), 0);
	return p;
}

static struct libvhost_vq *queue(struct fake *p)
{
	struct libvhost_vq *vq = NULL;
	int kick = -1;

	CHECK_EQ(libvhost_backend_queue(p->b, 0, &vq, &kick), 0);
	CHECK(vq != NULL && kick >= 0);
	return vq;
}

/* Number of requests taken: 0 or 1. */
static int pop(struct libvhost_vq *vq, uint32_t *head)
{
	struct libvhost_iov iov[4];
	struct libvhost_chain c = {.size = sizeof(c), .iov = iov, .iov_cap = 4};
	int rc = libvhost_vq_pop(vq, &c);

	*head = c.head;
	return rc;
}

static void push(struct libvhost_vq *vq, uint32_t head)
{
	CHECK_EQ(libvhost_vq_push(vq, head, 0), 0);
	CHECK(libvhost_vq_flush(vq) >= 0);
}

TEST(backend_pull, serves_on_the_thread_that_dispatches)
{
	struct fake p = pulled();
	struct libvhost_vq *vq;
	struct pollfd in = {.events = POLLIN};
	uint32_t head;
	int kick = -7;

	CHECK_EQ(libvhost_backend_queue(p.b, 0, &vq, &kick), -ENODATA);
	handshake(&p);
	CHECK_EQ(libvhost_backend_queue(p.b, 0, &vq, &kick), -ENODATA);
	CHECK_EQ(kick, -7);
	CHECK_EQ(ring_up(&p, 0), 0);
	take_event(&p, LIBVHOST_EVENT_STARTED);
	CHECK_EQ(libvhost_backend_queue(p.b, 0, &vq, &in.fd), 0);
	for (uint16_t i = 1; i <= 20; i++) {
		ring_offer(&p);
		CHECK_EQ(poll(&in, 1, PATIENCE_MS), 1);
		vq = queue(&p);
		CHECK_EQ(poll(&in, 1, 0), 0);
		CHECK_EQ(pop(vq, &head), 1);
		push(vq, head);
		CHECK_EQ(pop(vq, &head), 0);
		CHECK(ring_used(&p, i));
	}
	CHECK_EQ(get_base(&p, 0), 20);
	CHECK_EQ(libvhost_backend_queue(p.b, 0, &vq, &kick), -ENODATA);
	take_event(&p, LIBVHOST_EVENT_STOPPED);
	fake_free(&p);
}

static void ask_base(struct fake *p)
{
	const uint32_t state[2] = {0, 0};

	send_msg(p, LIBVHOST_OP_GET_VRING_BASE, 0, state, sizeof(state), NULL, 0);
}

TEST(backend_pull, a_stop_waits_for_what_was_taken)
{
	struct fake p = running();
	struct pollfd in = {.fd = libvhost_backend_fd(p.b), .events = POLLIN};
	uint32_t state[2], head, other;
	struct wire_hdr hdr;

	ring_offer(&p);
	CHECK_EQ(pop(queue(&p), &head), 1);
	ring_offer(&p);
	ask_base(&p);
	send_msg(&p, LIBVHOST_OP_GET_FEATURES, 0, NULL, 0, NULL, 0); /* what comes behind waits, too */
	CHECK_EQ(recv_msg(&p, &hdr, state, sizeof(state)), -1);
	CHECK_EQ(pop(queue(&p), &other), 0); /* nothing new */
	push(queue(&p), head);
	CHECK_EQ(poll(&in, 1, PATIENCE_MS), 1); /* dispatch wants a turn without any event of the front-end */
	CHECK_EQ(recv_msg(&p, &hdr, state, sizeof(state)), 8);
	CHECK_EQ(hdr.request, LIBVHOST_OP_GET_VRING_BASE);
	CHECK_EQ(state[1], 1);
	CHECK(ring_used(&p, 1));
	CHECK_EQ(recv_msg(&p, &hdr, state, sizeof(state)), 8);
	CHECK_EQ(hdr.request, LIBVHOST_OP_GET_FEATURES);
	fake_free(&p);
}

TEST(backend_pull, a_stop_does_not_wait_for_ever)
{
	struct fake p = running();
	uint32_t state[2], head;
	struct wire_hdr hdr;
	uint64_t began = lv_now(NULL);
	int n = -1;

	ring_offer(&p);
	CHECK_EQ(pop(queue(&p), &head), 1);
	ask_base(&p);
	while (n == -1 && lv_now(NULL) - began < PATIENCE_MS * LV_NS_PER_MS)
		n = recv_msg(&p, &hdr, state, sizeof(state));
	CHECK_EQ(n, 8);
	CHECK(lv_now(NULL) - began >= TIMEOUT_MS * LV_NS_PER_MS);
	fake_free(&p);
}

TEST(backend_pull, a_front_end_that_leaves_does_not_wait)
{
	struct fake p = running();
	struct libvhost_vq *vq;
	uint32_t head;
	int kick;

	ring_offer(&p);
	CHECK_EQ(pop(queue(&p), &head), 1);
	memset(p.mem, 0, RAM_BYTES);
	fake_connect(&p);
	CHECK_EQ(libvhost_backend_queue(p.b, 0, &vq, &kick), -ENODATA);
	handshake(&p);
	CHECK_EQ(ring_up(&p, 0), 0);
	ring_offer(&p);
	CHECK_EQ(pop(queue(&p), &head), 1);
	ask_base(&p);
	settle(&p); /* held */
	close(p.sock);
	p.sock = -1;
	while (libvhost_backend_queue(p.b, 0, &vq, &kick) == 0) /* as long as the stop may wait */
		CHECK_EQ(libvhost_backend_dispatch(p.b, 10), 0);
	fake_free(&p);
}

TEST(backend_pull, a_disabled_queue_only_completes)
{
	struct fake p = running();
	uint32_t head;

	ring_offer(&p);
	CHECK_EQ(pop(queue(&p), &head), 1);
	CHECK_EQ(ask_state(&p, LIBVHOST_OP_SET_VRING_ENABLE, 0, 0), 0);
	ring_offer(&p);
	push(queue(&p), head);
	CHECK(ring_used(&p, 1));
	CHECK_EQ(pop(queue(&p), &head), 0);
	CHECK_EQ(ask_state(&p, LIBVHOST_OP_SET_VRING_ENABLE, 0, 1), 0);
	CHECK_EQ(pop(queue(&p), &head), 1);
	push(queue(&p), head);
	CHECK(ring_used(&p, 2));
	fake_free(&p);
}

TEST(backend_pull, a_broken_queue_is_reported)
{
	struct fake p = running();
	struct libvhost_event e;
	struct libvhost_vq *vq;
	uint32_t head;
	int kick;

	*(uint16_t *)(void *)(p.mem + 0x1000 + 2) = 100; /* more than the ring has */
	CHECK_EQ(pop(queue(&p), &head), -EBADMSG);
	CHECK_EQ(libvhost_backend_queue(p.b, 0, &vq, &kick), -EBADMSG);
	CHECK_EQ(libvhost_backend_dispatch(p.b, 0), 0);
	e = take_event(&p, LIBVHOST_EVENT_QUEUE_ERROR);
	CHECK_EQ(e.queue, 0);
	CHECK_EQ(e.err, -EBADMSG);
	CHECK(signalled(p.err));
	fake_free(&p);
}

static int refused(struct libvhost_ctx *ctx, struct libvhost_backend_opts o)
{
	struct libvhost_backend *b;

	o.size = sizeof(o);
	o.num_queues = 1;
	o.flags = LIBVHOST_BACKEND_PULL;
	return libvhost_backend_new(ctx, &o, &b);
}

static int talk(void *arg, struct libvhost_req *req)
{
	(void)arg;
	(void)req;
	return 0;
}

TEST(backend_pull, refuses_what_only_workers_do)
{
	const struct libvhost_backend_ops serves = {.size = sizeof(serves), .serve = fake_serve};
	const struct libvhost_backend_ops talks = {.size = sizeof(talks), .on_request = talk};
	const struct libvhost_worker_opts worker = {.size = sizeof(worker)};
	struct libvhost_transport *t;
	struct libvhost_error e = {.size = sizeof(e)};
	struct libvhost_vq *vq;
	struct fake p = pulled(), other = fake_new(NULL);
	int kick;

	CHECK_EQ(refused(p.ctx, (struct libvhost_backend_opts){.ops = &serves}), -EINVAL);
	CHECK_EQ(refused(p.ctx, (struct libvhost_backend_opts){.ops = &talks}), -EINVAL);
	CHECK_EQ(refused(p.ctx, (struct libvhost_backend_opts){.num_workers = 1}), -EINVAL);
	CHECK_EQ(refused(p.ctx, (struct libvhost_backend_opts){.worker = &worker}), -EINVAL);
	CHECK_EQ(libvhost_backend_queue(NULL, 0, &vq, &kick), -EINVAL);
	CHECK_EQ(libvhost_backend_queue(p.b, 0, NULL, &kick), -EINVAL);
	CHECK_EQ(libvhost_backend_queue(p.b, 0, &vq, NULL), -EINVAL);
	CHECK_EQ(libvhost_backend_queue(p.b, 4, &vq, &kick), -EINVAL);
	CHECK_EQ(libvhost_backend_queue(other.b, 0, &vq, &kick), -EINVAL);
	CHECK_EQ(libvhost_backend_move_queue(p.b, 0, 0, 0), -EINVAL);
	CHECK_EQ(libvhost_backend_watch_fd(p.b, 0, p.kick), -EINVAL);
	CHECK(libvhost_backend_worker(p.b, 0) == NULL);
	close(p.sock);
	settle(&p);
	CHECK_EQ(libvhost_backend_inproc(p.b, &t), -ENOTSUP);
	CHECK_EQ(libvhost_backend_error(p.b, &e), 0);
	CHECK_HAS(e.text, "socketpair");
	p.sock = -1;
	CHECK_EQ(libvhost_backend_stop(p.b, PATIENCE_MS), 0);
	p.stopped = true;
	other.stopped = true; /* two at once: the ledger of one sees the other */
	fake_free(&p);
	fake_free(&other);
}

static bool busy(struct libvhost_backend *b)
{
	struct libvhost_vq *vq;
	int kick;

	return libvhost_backend_queue(b, 0, &vq, &kick) == -EBUSY;
}

TEST(backend_pull, not_from_a_callback)
{
	fake_check_inside(&(struct libvhost_backend_opts){.flags = LIBVHOST_BACKEND_PULL}, busy);
}
