/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* Queues whose kicks, calls and errors are messages (protocol bit 14). */
#include "wirerig.h"

#define OP(name) LIBVHOST_OP_##name

static void set_in_band(struct wirerig *w, uint32_t index)
{
	struct libvhost_queue q = devrig_queue(index);

	q.flags = LIBVHOST_QUEUE_IN_BAND;
	CHECK_EQ(libvhost_dev_set_queue(w->r.dev, index, &q), 0);
}

/* Queues 1 and 2 by message, the others by descriptor. */
static void rig(struct wirerig *w)
{
	wirerig_init(w);
	wirerig_open(w);
	set_in_band(w, 1);
	set_in_band(w, 2);
	CHECK_EQ(libvhost_dev_start(w->r.dev, NULL), 0);
}

static uint32_t count(struct wirerig *w, uint32_t op, uint32_t from)
{
	uint32_t n = 0;

	for (uint32_t i = from; i < atomic_load(&w->p.messages); i++)
		n += w->p.seen[i] == op;
	return n;
}

TEST(in_band, rings_start_with_a_message_and_no_descriptor)
{
	struct libvhost_queue q = {.size = sizeof(q)};
	struct wirerig w;

	rig(&w);
	CHECK_EQ(count(&w, OP(VRING_KICK), 0), 2);
	CHECK_EQ(count(&w, OP(SET_VRING_KICK), 0), 2);
	CHECK_EQ(count(&w, OP(SET_VRING_CALL), 0), 2);
	CHECK_EQ(count(&w, OP(SET_VRING_ERR), 0), 2);
	CHECK(w.p.ring[1].enabled && w.p.ring[1].kick < 0 && w.p.ring[1].call < 0);
	CHECK_EQ(libvhost_dev_get_queue(w.r.dev, 1, &q), 0);
	CHECK(q.running && q.enabled && q.flags & LIBVHOST_QUEUE_IN_BAND);
	CHECK(q.kick_fd < 0 && q.err_fd < 0 && q.call_fd >= 0);
	CHECK_EQ(libvhost_dev_stop(w.r.dev, NULL), 0);
	CHECK_EQ(count(&w, OP(GET_VRING_BASE), 0), 4);
	wirerig_close(&w);
}

TEST(in_band, the_host_kicks)
{
	struct libvhost_queue q = {.size = sizeof(q)};
	struct wirerig w;
	uint32_t before;

	rig(&w);
	before = atomic_load(&w.p.messages);
	CHECK_EQ(libvhost_virtqueue_kick(w.r.dev, 2), 0);
	CHECK_EQ(libvhost_virtqueue_kick(w.r.dev, 2), 0);
	CHECK_EQ(count(&w, OP(VRING_KICK), before), 2);
	CHECK_EQ(libvhost_dev_get_queue(w.r.dev, 0, &q), 0);
	lv_eventfd_drain(q.kick_fd);
	CHECK_EQ(libvhost_virtqueue_kick(w.r.dev, 0), 0); /* by descriptor: no message */
	CHECK_EQ(lv_eventfd_drain(q.kick_fd), 1);
	CHECK_EQ(libvhost_dev_set_kick(w.r.dev, 3, -1), 0);
	before = atomic_load(&w.p.messages);
	CHECK_EQ(libvhost_virtqueue_kick(w.r.dev, 3), 0); /* polled */
	CHECK_EQ(atomic_load(&w.p.messages), before);
	CHECK_EQ(libvhost_virtqueue_kick(w.r.dev, 77), -ENOENT);
	CHECK_EQ(libvhost_virtqueue_kick(NULL, 0), -EINVAL);
	puppet_fault(&w.p, (struct puppet_fault){.op = OP(VRING_KICK), .what = PUPPET_REFUSE});
	CHECK_EQ(libvhost_virtqueue_kick(w.r.dev, 1), -EIO);
	CHECK_EQ(libvhost_virtqueue_kick(w.r.dev, 1), 0);
	CHECK_EQ(libvhost_dev_stop(w.r.dev, NULL), 0);
	CHECK_EQ(libvhost_virtqueue_kick(w.r.dev, 1), -EINVAL);
	wirerig_close(&w);
}

TEST(in_band, calls_reach_the_guest_masked_or_not)
{
	struct libvhost_queue q = {.size = sizeof(q)};
	struct libvhost_event e;
	struct wirerig w;
	uint32_t before;

	rig(&w);
	CHECK_EQ(libvhost_dev_get_queue(w.r.dev, 1, &q), 0);
	CHECK_EQ(wirerig_ask_state(&w, ASK_VRING_CALL, 1), 0);
	CHECK_EQ(lv_eventfd_drain(q.call_fd), 1);
	CHECK_EQ(devrig_events(&w.r, LIBVHOST_EVENT_QUEUE_CALL, &e), 1);
	CHECK_EQ(e.queue, 1);
	before = atomic_load(&w.p.messages);
	CHECK_EQ(libvhost_virtqueue_mask(w.r.dev, 1, 1), 0);
	CHECK_EQ(wirerig_ask_state(&w, ASK_VRING_CALL, 1), 0);
	CHECK_EQ(lv_eventfd_drain(q.call_fd), 0);
	CHECK_EQ(libvhost_virtqueue_mask(w.r.dev, 1, 0), 0);
	CHECK_EQ(libvhost_virtqueue_pending(w.r.dev, 1), 1);
	CHECK_EQ(libvhost_virtqueue_pending(w.r.dev, 1), 0);
	CHECK_EQ(atomic_load(&w.p.messages), before); /* nothing to swap at the peer */
	CHECK_EQ(wirerig_ask_state(&w, ASK_VRING_ERR, 1), 0);
	CHECK_EQ(devrig_events(&w.r, LIBVHOST_EVENT_QUEUE_ERROR, &e), 1);
	CHECK_EQ(e.err, -EIO);
	CHECK_EQ(wirerig_ask_state(&w, ASK_VRING_CALL, 200), -EINVAL);
	wirerig_close(&w);
}

TEST(in_band, a_reconnect_starts_rings_by_message_again)
{
	struct wirerig w;
	uint32_t before;

	rig(&w);
	puppet_kill(&w.p);
	CHECK(devrig_await(&w.r, LIBVHOST_EVENT_DISCONNECTED, PATIENCE_MS, NULL));
	before = atomic_load(&w.p.messages);
	CHECK_EQ(libvhost_dev_reconnect(w.r.dev, NULL), 0);
	CHECK_EQ(count(&w, OP(VRING_KICK), before), 2);
	CHECK_EQ(count(&w, OP(SET_VRING_KICK), before), 2);
	wirerig_close(&w);
}

TEST(in_band, what_contradicts_it_is_refused)
{
	struct libvhost_queue q = devrig_queue(1);
	struct wirerig w;

	wirerig_init(&w);
	wirerig_open(&w);
	q.flags = LIBVHOST_QUEUE_IN_BAND | LIBVHOST_QUEUE_HAS_KICK;
	q.kick_fd = STDERR_FILENO;
	CHECK_EQ(libvhost_dev_set_queue(w.r.dev, 1, &q), -EINVAL);
	q.flags = LIBVHOST_QUEUE_IN_BAND | LIBVHOST_QUEUE_HAS_ERR;
	CHECK_EQ(libvhost_dev_set_queue(w.r.dev, 1, &q), -EINVAL);
	set_in_band(&w, 1);
	CHECK_EQ(libvhost_dev_set_kick(w.r.dev, 1, STDERR_FILENO), -EINVAL);
	wirerig_close(&w);
	wirerig_init(&w);
	w.p.protocol_features &= ~PUPPET_PF(INBAND_NOTIFICATIONS);
	wirerig_open(&w);
	q.flags = LIBVHOST_QUEUE_IN_BAND;
	CHECK_EQ(libvhost_dev_set_queue(w.r.dev, 1, &q), -EINVAL);
	CHECK_HAS(devrig_error(&w.r).text, "IN_BAND");
	wirerig_close(&w);
}
