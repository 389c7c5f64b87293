/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/*
 * Interrupts around masks and kick descriptors around their replacement: a peer on a socket that signals the descriptor
 * it is about to lose, at the worst moment of each path.
 */
#include "wirerig.h"

#include <pthread.h>
#include <stdatomic.h>
#include <time.h>

#define OP(name) LIBVHOST_OP_##name
#define QUEUE	 1u

struct late {
	struct wirerig w;
	uint32_t op; /* at which the peer signals the call descriptor that it has */
	bool late;   /* and takes its time before */
};

static void pause_ms(long ms)
{
	nanosleep(&(struct timespec){.tv_nsec = ms * 1000000l}, NULL);
}

static bool signal_old(struct puppet *p, const struct libvhost_req *req, const struct lv_user_msg *msg)
{
	struct late *l = p->arg;

	(void)msg;
	if (req->op != l->op || req->index != QUEUE || p->ring[QUEUE].call < 0)
		return false;
	if (l->late)
		pause_ms(20);
	lv_eventfd_signal(p->ring[QUEUE].call);
	return false;
}

static void late_init(struct late *l)
{
	memset(l, 0, sizeof(*l));
	wirerig_init(&l->w);
	l->w.p.on_message = signal_old;
	l->w.p.arg = l;
}

static struct libvhost_queue queue_of(struct late *l)
{
	struct libvhost_queue q = {.size = sizeof(q)};

	CHECK_EQ(libvhost_dev_get_queue(l->w.r.dev, QUEUE, &q), 0);
	return q;
}

/* What the guest gets to see: its descriptor, or the library's memory. */
static bool interrupted(struct late *l)
{
	const bool pending = libvhost_virtqueue_pending(l->w.r.dev, QUEUE) == 1;

	return lv_eventfd_drain(queue_of(l).call_fd) == 1 || pending;
}

/* Without acknowledgements a fence has to tell that the peer has swapped (reference: QEMU asks GET_FEATURES). */
static void unmask_waits(uint64_t drop)
{
	struct late l;

	late_init(&l);
	l.w.p.protocol_features &= ~drop;
	wirerig_start(&l.w);
	interrupted(&l);
	CHECK_EQ(libvhost_virtqueue_mask(l.w.r.dev, QUEUE, 1), 0);
	l.op = OP(SET_VRING_CALL);
	l.late = true;
	CHECK_EQ(libvhost_virtqueue_mask(l.w.r.dev, QUEUE, 0), 0);
	CHECK_EQ(lv_eventfd_drain(queue_of(&l).call_fd), 0);
	CHECK_EQ(libvhost_virtqueue_pending(l.w.r.dev, QUEUE), 1);
	wirerig_close(&l.w);
}

TEST(device_mask, unmask_returns_after_the_peer_swapped)
{
	unmask_waits(0);
}

TEST(device_mask, unmask_waits_without_acknowledgements_too)
{
	unmask_waits(PUPPET_PF(REPLY_ACK) | PUPPET_PF(INBAND_NOTIFICATIONS));
}

/* The last completions of a stop come while it runs, into whatever the peer has. */
TEST(device_mask, across_stop_and_start)
{
	struct late l;

	late_init(&l);
	wirerig_start(&l.w);
	interrupted(&l);
	CHECK_EQ(libvhost_virtqueue_mask(l.w.r.dev, QUEUE, 1), 0);
	l.op = OP(GET_VRING_BASE);
	CHECK_EQ(libvhost_dev_stop(l.w.r.dev, NULL), 0);
	CHECK_EQ(lv_eventfd_drain(queue_of(&l).call_fd), 0); /* masked all the time */
	CHECK_EQ(libvhost_virtqueue_mask(l.w.r.dev, QUEUE, 0), 0);
	CHECK_EQ(libvhost_virtqueue_pending(l.w.r.dev, QUEUE), 1);
	CHECK_EQ(libvhost_virtqueue_mask(l.w.r.dev, QUEUE, 1), 0);
	CHECK_EQ(libvhost_dev_start(l.w.r.dev, NULL), 0);
	l.op = OP(SET_VRING_KICK); /* the first completion after the start: the peer has the private one */
	CHECK_EQ(libvhost_dev_set_kick(l.w.r.dev, QUEUE, -1), 0);
	CHECK_EQ(lv_eventfd_drain(queue_of(&l).call_fd), 0);
	CHECK_EQ(libvhost_virtqueue_pending(l.w.r.dev, QUEUE), 1);
	wirerig_close(&l.w);
}

TEST(device_mask, across_stop_and_start_of_the_queue)
{
	struct late l;

	late_init(&l);
	wirerig_start(&l.w);
	interrupted(&l);
	CHECK_EQ(libvhost_virtqueue_mask(l.w.r.dev, QUEUE, 1), 0);
	l.op = OP(GET_VRING_BASE);
	CHECK_EQ(libvhost_dev_stop_queue(l.w.r.dev, QUEUE, 0), 0);
	CHECK_EQ(libvhost_dev_start_queue(l.w.r.dev, QUEUE, 0), 0);
	CHECK_EQ(lv_eventfd_drain(queue_of(&l).call_fd), 0);
	CHECK_EQ(libvhost_virtqueue_mask(l.w.r.dev, QUEUE, 0), 0);
	CHECK_EQ(libvhost_virtqueue_pending(l.w.r.dev, QUEUE), 1);
	wirerig_close(&l.w);
}

/* The peer dies owing a call: the guest is interrupted once, or finds it when it unmasks. */
TEST(device_mask, across_a_reconnect)
{
	const struct libvhost_call_opts patient = {.size = sizeof(patient), .timeout_ms = PATIENCE_MS};
	struct libvhost_event e;
	struct late l;

	late_init(&l);
	wirerig_start(&l.w);
	interrupted(&l);
	CHECK_EQ(libvhost_virtqueue_mask(l.w.r.dev, QUEUE, 1), 0);
	puppet_kill(&l.w.p);
	CHECK(devrig_await(&l.w.r, LIBVHOST_EVENT_DISCONNECTED, PATIENCE_MS, &e));
	CHECK_EQ(libvhost_dev_reconnect(l.w.r.dev, &patient), 0);
	CHECK_EQ(lv_eventfd_drain(queue_of(&l).call_fd), 0);
	CHECK_EQ(libvhost_virtqueue_mask(l.w.r.dev, QUEUE, 0), 0);
	CHECK_EQ(libvhost_virtqueue_pending(l.w.r.dev, QUEUE), 1);
	l.op = OP(SET_VRING_KICK); /* and the new peer has the real one */
	CHECK_EQ(libvhost_dev_set_kick(l.w.r.dev, QUEUE, -1), 0);
	CHECK_EQ(lv_eventfd_drain(queue_of(&l).call_fd), 1);
	wirerig_close(&l.w);
}

/* The peer dies in the middle of an unmask: that has failed, the queue is masked, and a second try works at once. */
TEST(device_mask, an_unmask_that_the_peer_did_not_survive)
{
	const struct libvhost_call_opts patient = {.size = sizeof(patient), .timeout_ms = PATIENCE_MS};
	struct late l;

	late_init(&l);
	wirerig_start(&l.w);
	CHECK_EQ(libvhost_virtqueue_mask(l.w.r.dev, QUEUE, 1), 0);
	interrupted(&l);
	l.op = OP(SET_VRING_CALL);
	puppet_fault(&l.w.p, (struct puppet_fault){.op = OP(SET_VRING_CALL), .what = PUPPET_DIE_BEFORE});
	CHECK_EQ(libvhost_virtqueue_mask(l.w.r.dev, QUEUE, 0), -ECONNRESET);
	CHECK_EQ(queue_of(&l).masked, 1);
	CHECK_EQ(devrig_state(&l.w.r), LIBVHOST_DEV_DISCONNECTED);
	CHECK_EQ(libvhost_virtqueue_mask(l.w.r.dev, QUEUE, 0), 0); /* nobody needs to be told */
	CHECK_EQ(queue_of(&l).masked, 0);
	CHECK_EQ(libvhost_dev_reconnect(l.w.r.dev, &patient), 0);
	CHECK_EQ(lv_eventfd_drain(queue_of(&l).call_fd), 1); /* what the dead peer may have owed */
	wirerig_close(&l.w);
}

/* While a device waits for its peer by policy, guests go on masking and unmasking. */
TEST(device_mask, while_the_peer_is_away)
{
	struct libvhost_event e;
	struct devrig r;
	struct libvhost_queue q = {.size = sizeof(q)};

	devrig_init(&r);
	r.f.slow = true;
	r.opts.flags = LIBVHOST_DEV_AUTO_RECONNECT;
	CHECK_EQ(devrig_open(&r), 0);
	devrig_queues(&r, 3);
	CHECK_EQ(libvhost_virtqueue_mask(r.dev, 2, 1), 0);
	CHECK_EQ(libvhost_dev_start(r.dev, NULL), 0);
	r.f.away = true;
	r.f.dead = true;
	CHECK(devrig_await(&r, LIBVHOST_EVENT_DISCONNECTED, PATIENCE_MS, &e));
	CHECK_EQ(devrig_state(&r), LIBVHOST_DEV_RECONNECTING);
	CHECK_EQ(libvhost_virtqueue_mask(r.dev, 1, 1), 0);
	CHECK_EQ(libvhost_virtqueue_mask(r.dev, 2, 0), 0);
	CHECK_EQ(libvhost_virtqueue_mask(r.dev, 3, 1), -ENOENT);
	CHECK_EQ(libvhost_virtqueue_mask(r.dev, 300, 1), -ENOENT);
	r.f.away = false;
	CHECK(devrig_await(&r, LIBVHOST_EVENT_RECONNECTED, PATIENCE_MS, &e));
	CHECK_EQ(libvhost_virtqueue_pending(r.dev, 1), 1); /* the call that every reconnect pays */
	CHECK_EQ(libvhost_dev_get_queue(r.dev, 2, &q), 0);
	CHECK_EQ(lv_eventfd_drain(q.call_fd), 1);
	devrig_close(&r);
}

struct loop {
	struct libvhost_dev *dev;
	atomic_bool end;
	atomic_uint reconnects;
};

static void *dispatch_loop(void *arg)
{
	struct loop *l = arg;
	struct libvhost_event e;

	while (!atomic_load(&l->end)) {
		(void)libvhost_dev_dispatch(l->dev, 5);
		while (libvhost_dev_next_event(l->dev, &e) == 1)
			if (e.type == LIBVHOST_EVENT_RECONNECTED)
				atomic_fetch_add(&l->reconnects, 1);
	}
	return NULL;
}

/* Masks and unmasks until it is allowed; whatever the peer does in between, what was said last is in force. */
static void mask_for_sure(struct libvhost_dev *dev, uint32_t mask)
{
	const uint64_t end = now_ms() + PATIENCE_MS;

	while (libvhost_virtqueue_mask(dev, QUEUE, mask)) {
		CHECK(now_ms() < end);
		pause_ms(1);
	}
}

TEST(device_mask, while_the_peer_comes_and_goes)
{
	pthread_t thread;
	struct loop loop = {0};
	struct late l;
	uint32_t want = 3;

	late_init(&l);
	l.w.r.opts.flags |= LIBVHOST_DEV_AUTO_RECONNECT;
	wirerig_start(&l.w);
	loop.dev = l.w.r.dev;
	CHECK_EQ(pthread_create(&thread, NULL, dispatch_loop, &loop), 0);
	for (uint32_t n = 0; n < want; n++) {
		const uint64_t end = now_ms() + PATIENCE_MS;
		uint32_t mask = 0;

		puppet_kill(&l.w.p);
		while (atomic_load(&loop.reconnects) == n && now_ms() < end)
			(void)libvhost_virtqueue_mask(l.w.r.dev, QUEUE, mask ^= 1);
		CHECK_EQ(atomic_load(&loop.reconnects), n + 1);
		mask_for_sure(l.w.r.dev, n & 1);
		CHECK_EQ(queue_of(&l).masked, n & 1);
	}
	atomic_store(&loop.end, true);
	CHECK_EQ(pthread_join(thread, NULL), 0);
	mask_for_sure(l.w.r.dev, 1);
	interrupted(&l);
	l.op = OP(SET_VRING_KICK);
	CHECK_EQ(libvhost_dev_set_kick(l.w.r.dev, QUEUE, -1), 0);
	CHECK_EQ(lv_eventfd_drain(queue_of(&l).call_fd), 0);
	CHECK_EQ(libvhost_virtqueue_pending(l.w.r.dev, QUEUE), 1);
	wirerig_close(&l.w);
}

/* ---- kick descriptors ---- */

struct binder {
	int bound;  /* the descriptor that the guest's notifications go to, -1 none */
	int refuse; /* this one is refused, as is everything when it is -2 */
	uint32_t calls;
};

static int bind(void *arg, uint32_t queue, int fd, uint32_t on)
{
	struct binder *b = arg;

	if (queue != QUEUE)
		return 0;
	b->calls++;
	if (on && (b->refuse == -2 || b->calls == (uint32_t)b->refuse))
		return -EPERM;
	CHECK(on ? b->bound < 0 : b->bound == fd); /* never two, never another one */
	b->bound = on ? fd : -1;
	return 0;
}

static void bound_rig(struct devrig *r, struct libvhost_dev_ops *ops, struct binder *b)
{
	*b = (struct binder){.bound = -1};
	*ops = (struct libvhost_dev_ops){.size = sizeof(*ops), .bind_notifier = bind, .arg = b};
	devrig_init(r);
	r->opts.ops = ops;
	CHECK_EQ(devrig_open(r), 0);
	devrig_queues(r, 3);
	CHECK_EQ(libvhost_dev_enable_notifiers(r->dev), 0);
	CHECK_EQ(libvhost_dev_start(r->dev, NULL), 0);
	fake_arm(&r->f);
	b->calls = 0;
}

static int kick_of(struct devrig *r)
{
	struct libvhost_queue q = {.size = sizeof(q)};

	CHECK_EQ(libvhost_dev_get_queue(r->dev, QUEUE, &q), 0);
	return q.kick_fd;
}

TEST(device_mask, a_kick_descriptor_that_the_host_refuses_changes_nothing)
{
	struct libvhost_dev_ops ops;
	struct binder b;
	struct devrig r;
	int mine, was;

	bound_rig(&r, &ops, &b);
	mine = lv_eventfd();
	was = kick_of(&r);
	CHECK_EQ(b.bound, was);
	b.refuse = 2; /* off the old one, on the new one: refused */
	CHECK_EQ(libvhost_dev_set_kick(r.dev, QUEUE, mine), -EPERM);
	CHECK_HAS(devrig_error(&r).text, "as before");
	CHECK_EQ(r.f.nseen, 0); /* the peer was not told of the new one */
	CHECK_EQ(b.bound, was);
	CHECK_EQ(kick_of(&r), was);
	b.refuse = 0;
	CHECK_EQ(libvhost_dev_set_kick(r.dev, QUEUE, mine), 0);
	CHECK(b.bound != was);
	CHECK_EQ(b.bound, kick_of(&r));
	CHECK_EQ(lv_eventfd_drain(mine), 1); /* a kick may have been left in the old one */
	lv_fd_close(mine);
	devrig_close(&r);
}

TEST(device_mask, a_host_that_refuses_the_old_kick_descriptor_too_is_told)
{
	struct libvhost_dev_ops ops;
	struct binder b;
	struct devrig r;
	int mine;

	bound_rig(&r, &ops, &b);
	mine = lv_eventfd();
	b.refuse = -2;
	CHECK_EQ(libvhost_dev_set_kick(r.dev, QUEUE, mine), -EPERM);
	CHECK_HAS(devrig_error(&r).text, "not bound any more");
	b.refuse = 0;
	CHECK_EQ(libvhost_dev_enable_notifiers(r.dev), 0);
	CHECK_EQ(b.bound, kick_of(&r));
	lv_fd_close(mine);
	devrig_close(&r);
}

TEST(device_mask, a_kick_descriptor_that_the_peer_refuses_changes_nothing)
{
	struct libvhost_dev_ops ops;
	struct binder b;
	struct devrig r;
	int mine, was;

	bound_rig(&r, &ops, &b);
	mine = lv_eventfd();
	was = kick_of(&r);
	r.f.refuse_at = 0;
	CHECK_EQ(libvhost_dev_set_kick(r.dev, QUEUE, mine), -EIO);
	CHECK_EQ(devrig_error(&r).code, -EIO);
	CHECK_EQ(b.bound, was);
	CHECK_EQ(kick_of(&r), was);
	fake_arm(&r.f);
	CHECK_EQ(libvhost_dev_set_kick(r.dev, QUEUE, -1), -EIO); /* polling */
	CHECK_EQ(b.bound, was);
	r.f.refuse_at = FAKE_NEVER;
	CHECK_EQ(libvhost_dev_set_kick(r.dev, QUEUE, -1), 0);
	CHECK_EQ(b.bound, -1);
	lv_fd_close(mine);
	devrig_close(&r);
}

/* The new descriptor is closed then: a notifier that stayed bound to it would reach a stranger's file. */
TEST(device_mask, a_peer_that_refuses_the_new_kick_and_a_host_that_refuses_the_old_one)
{
	struct libvhost_dev_ops ops;
	struct binder b;
	struct devrig r;
	int mine;

	bound_rig(&r, &ops, &b);
	mine = lv_eventfd();
	r.f.refuse_at = 0;
	b.refuse = 4; /* off the old one, on the new one; off the new one, on the old one: refused */
	CHECK_EQ(libvhost_dev_set_kick(r.dev, QUEUE, mine), -EIO);
	CHECK_EQ(b.bound, -1);
	CHECK_EQ(b.calls, 4);
	CHECK_HAS(devrig_error(&r).text, "not bound any more");
	CHECK_EQ(devrig_state(&r), LIBVHOST_DEV_RUNNING);
	r.f.refuse_at = FAKE_NEVER;
	CHECK_EQ(libvhost_dev_enable_notifiers(r.dev), 0);
	CHECK_EQ(b.bound, kick_of(&r));
	lv_fd_close(mine);
	devrig_close(&r);
}

TEST(device_mask, a_kick_into_a_refused_descriptor_is_not_lost)
{
	struct libvhost_dev_ops ops;
	struct binder b;
	struct devrig r;
	int mine, was;

	bound_rig(&r, &ops, &b);
	mine = lv_eventfd();
	was = kick_of(&r);
	lv_eventfd_drain(was);
	r.f.refuse_at = 0;
	CHECK_EQ(libvhost_dev_set_kick(r.dev, QUEUE, mine), -EIO);
	CHECK_EQ(b.bound, was);
	CHECK_EQ(lv_eventfd_drain(was), 1);
	lv_fd_close(mine);
	devrig_close(&r);
}
