/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* One queue of a running device: start, stop, reset, what a failure leaves, what comes back after a reconnect. */
#include "devrig.h"

#include "core/wire.h"
#include "vring/inflight.h"

#define OP(name) LIBVHOST_OP_##name

static void running(struct devrig *r)
{
	devrig_init(r);
	r->f.slow = true;
	CHECK_EQ(devrig_open(r), 0);
	devrig_queues(r, 3);
	CHECK_EQ(libvhost_dev_start(r->dev, NULL), 0);
	fake_arm(&r->f);
}

static struct libvhost_queue get(struct devrig *r, uint32_t index)
{
	struct libvhost_queue q = {.size = sizeof(q)};

	CHECK_EQ(libvhost_dev_get_queue(r->dev, index, &q), 0);
	return q;
}

TEST(device_ring_control, a_queue_set_up_after_the_start)
{
	struct libvhost_queue q = devrig_queue(3);
	struct devrig r;

	running(&r);
	CHECK_EQ(libvhost_dev_start_queue(r.dev, 3, 0), -ENOENT);
	CHECK_EQ(libvhost_dev_set_queue(r.dev, 3, &q), 0);
	CHECK_EQ(get(&r, 3).running, 0);
	CHECK_EQ(r.f.nseen, 0);
	devrig_set_avail(&r, 3, 1);
	CHECK_EQ(libvhost_dev_start_queue(r.dev, 3, 0), 0);
	CHECK_EQ(get(&r, 3).running, 1);
	CHECK_EQ(lv_eventfd_drain(get(&r, 3).kick_fd), 1); /* it waited with work, the guest does not kick again */
	CHECK_EQ(fake_count(&r.f, OP(SET_VRING_ADDR)), 1);
	CHECK_EQ(fake_count(&r.f, OP(SET_FEATURES)), 0);
	CHECK(fake_first(&r.f, OP(SET_VRING_CALL)) < fake_first(&r.f, OP(SET_VRING_KICK)));
	CHECK_EQ(libvhost_dev_start_queue(r.dev, 3, 0), -EALREADY);
	CHECK_EQ(libvhost_dev_set_queue(r.dev, 3, &q), -EBUSY);
	CHECK_EQ(libvhost_dev_clear_queue(r.dev, 3), -EBUSY);
	CHECK_EQ(devrig_state(&r), LIBVHOST_DEV_RUNNING);
	devrig_close(&r);
}

TEST(device_ring_control, stop_one_and_start_it_again)
{
	struct devrig r;

	running(&r);
	r.f.base[1] = 77;
	CHECK_EQ(libvhost_dev_stop_queue(r.dev, 1, 0), 0);
	CHECK_EQ(fake_count(&r.f, OP(GET_VRING_BASE)), 1);
	CHECK_EQ(get(&r, 1).running, 0);
	CHECK_EQ(get(&r, 1).base, 77);
	CHECK_EQ(get(&r, 0).running, 1);
	CHECK_EQ(libvhost_dev_stop_queue(r.dev, 1, 0), -EALREADY);
	CHECK_EQ(libvhost_dev_stop_queue(r.dev, 1, 3600001), -EINVAL);
	CHECK_EQ(libvhost_dev_start_queue(r.dev, 1, 0), 0);
	CHECK_EQ(get(&r, 1).running, 1);
	CHECK_EQ(libvhost_dev_stop(r.dev, NULL), 0);
	CHECK_EQ(libvhost_dev_start_queue(r.dev, 1, 0), -EINVAL); /* the device does not run */
	CHECK_EQ(libvhost_dev_stop_queue(r.dev, 1, 0), -EALREADY);
	devrig_close(&r);
}

TEST(device_ring_control, a_start_of_the_device_starts_all_queues)
{
	struct devrig r;

	running(&r);
	CHECK_EQ(libvhost_dev_stop_queue(r.dev, 1, 0), 0);
	CHECK_EQ(libvhost_dev_stop(r.dev, NULL), 0);
	CHECK_EQ(libvhost_dev_start(r.dev, NULL), 0);
	CHECK_EQ(get(&r, 1).running, 1);
	devrig_close(&r);
}

TEST(device_ring_control, a_reconnect_brings_back_what_ran)
{
	struct libvhost_queue q = devrig_queue(3);
	struct devrig r;

	running(&r);
	r.f.base[1] = 0;
	CHECK_EQ(libvhost_dev_set_queue(r.dev, 3, &q), 0);
	CHECK_EQ(libvhost_dev_stop_queue(r.dev, 1, 0), 0);
	devrig_lose_peer(&r);
	fake_arm(&r.f);
	CHECK_EQ(libvhost_dev_reconnect(r.dev, NULL), 0);
	CHECK_EQ(fake_count(&r.f, OP(SET_VRING_KICK)), 2);
	CHECK_EQ(get(&r, 0).running, 1);
	CHECK_EQ(get(&r, 1).running, 0);
	CHECK_EQ(get(&r, 3).running, 0);
	CHECK_EQ(libvhost_dev_start_queue(r.dev, 1, 0), 0);
	CHECK_EQ(libvhost_dev_start_queue(r.dev, 3, 0), 0);
	devrig_close(&r);
}

TEST(device_ring_control, reset_forgets_the_queue)
{
	struct libvhost_queue q = devrig_queue(1);
	struct devrig r;

	running(&r);
	CHECK_EQ(libvhost_virtqueue_mask(r.dev, 1, 1), 0);
	CHECK_EQ(libvhost_dev_reset_queue(r.dev, 1, 0), 0);
	CHECK_EQ(fake_count(&r.f, OP(GET_VRING_BASE)), 1);
	CHECK_EQ(libvhost_dev_get_queue(r.dev, 1, &q), -ENOENT);
	CHECK_EQ(libvhost_dev_reset_queue(r.dev, 1, 0), -ENOENT);
	CHECK_EQ(devrig_state(&r), LIBVHOST_DEV_RUNNING);
	q = devrig_queue(1);
	CHECK_EQ(libvhost_dev_set_queue(r.dev, 1, &q), 0);
	CHECK_EQ(libvhost_dev_start_queue(r.dev, 1, 0), 0);
	CHECK_EQ(get(&r, 1).base, 0);
	CHECK_EQ(get(&r, 1).masked, 0);
	fake_arm(&r.f);
	CHECK_EQ(libvhost_dev_stop(r.dev, NULL), 0);
	fake_arm(&r.f);
	CHECK_EQ(libvhost_dev_reset_queue(r.dev, 1, 0), 0); /* at rest: nothing to say */
	CHECK_EQ(r.f.nseen, 0);
	devrig_close(&r);
}

TEST(device_ring_control, reset_forgets_what_was_in_flight_in_that_queue)
{
	const uint64_t bytes = lv_inflight_queue_bytes(DEVRIG_NUM, 0);
	const struct lv_inflight_split head = {.version = 1};
	struct lv_inflight_split got;
	struct devrig r;

	devrig_init(&r);
	r.f.protocol |= 1ull << LIBVHOST_PROTOCOL_F_INFLIGHT_SHMFD;
	r.f.region = 3 * bytes;
	r.opts.flags = LIBVHOST_DEV_INFLIGHT;
	CHECK_EQ(devrig_open(&r), 0);
	devrig_queues(&r, 3);
	CHECK_EQ(libvhost_dev_start(r.dev, NULL), 0);
	for (uint32_t q = 0; q < 3; q++)
		CHECK_EQ(pwrite(r.f.inflight_fd, &head, sizeof(head), (off_t)(q * bytes)), sizeof(head));
	CHECK_EQ(libvhost_dev_reset_queue(r.dev, 1, 0), 0);
	for (uint32_t q = 0; q < 3; q++) {
		CHECK_EQ(pread(r.f.inflight_fd, &got, sizeof(got), (off_t)(q * bytes)), sizeof(got));
		CHECK_EQ(got.version, q != 1);
	}
	devrig_close(&r);
}

struct binder {
	uint32_t on, off;
};

static int bind(void *arg, uint32_t queue, int fd, uint32_t on)
{
	struct binder *b = arg;

	CHECK(fd > 2 && queue < 4);
	*(on ? &b->on : &b->off) += 1;
	return 0;
}

TEST(device_ring_control, reset_takes_the_notifier_back)
{
	struct binder b = {0};
	const struct libvhost_dev_ops ops = {.size = sizeof(ops), .bind_notifier = bind, .arg = &b};
	struct devrig r;

	devrig_init(&r);
	r.opts.ops = &ops;
	CHECK_EQ(devrig_open(&r), 0);
	devrig_queues(&r, 3);
	CHECK_EQ(libvhost_dev_enable_notifiers(r.dev), 0);
	CHECK_EQ(libvhost_dev_start(r.dev, NULL), 0);
	CHECK_EQ(libvhost_dev_reset_queue(r.dev, 1, 0), 0);
	CHECK_EQ(b.on, 3);
	CHECK_EQ(b.off, 1);
	devrig_close(&r);
	CHECK_EQ(b.off, 3);
}

/* Each request of a start is refused once: the queue stands, the others run, and it can be tried again. */
TEST(device_ring_control, a_refused_start_is_taken_back)
{
	uint32_t n = 0;
	int rc;

	do {
		struct devrig r;

		running(&r);
		CHECK_EQ(libvhost_dev_stop_queue(r.dev, 2, 0), 0);
		fake_arm(&r.f);
		r.f.refuse_at = n++;
		rc = libvhost_dev_start_queue(r.dev, 2, 0);
		if (rc) {
			CHECK_EQ(rc, -EIO);
			CHECK_EQ(devrig_state(&r), LIBVHOST_DEV_RUNNING);
			CHECK_EQ(get(&r, 2).running, 0);
			CHECK_EQ(fake_count(&r.f, OP(GET_VRING_BASE)), n > 6); /* it had its kick */
			r.f.refuse_at = FAKE_NEVER;
			CHECK_EQ(libvhost_dev_start_queue(r.dev, 2, 0), 0);
		}
		CHECK_EQ(get(&r, 0).running, 1);
		devrig_close(&r);
	} while (rc);
	CHECK_EQ(n, 8); /* NUM BASE ADDR ERR CALL KICK ENABLE, and none */
}

TEST(device_ring_control, a_refused_stop_is_told_apart)
{
	struct devrig r;

	running(&r);
	r.f.refuse_at = 0; /* ENABLE 0: nothing changed */
	CHECK_EQ(libvhost_dev_stop_queue(r.dev, 2, 0), -EIO);
	CHECK_EQ(devrig_state(&r), LIBVHOST_DEV_RUNNING);
	CHECK_EQ(get(&r, 2).running, 1);
	fake_arm(&r.f);
	r.f.refuse_at = 1; /* disabled, but where it stopped nobody says */
	CHECK_EQ(libvhost_dev_stop_queue(r.dev, 2, 0), -EIO);
	CHECK_EQ(devrig_state(&r), LIBVHOST_DEV_LOST);
	r.f.refuse_at = FAKE_NEVER;
	CHECK_EQ(libvhost_dev_reconnect(r.dev, NULL), 0);
	CHECK_EQ(get(&r, 2).running, 1);
	devrig_close(&r);
}

TEST(device_ring_control, a_peer_that_dies_or_says_nothing)
{
	struct devrig r;

	running(&r);
	r.f.die_at = 1;
	CHECK_EQ(libvhost_dev_stop_queue(r.dev, 2, 0), -ECONNRESET);
	CHECK_EQ(devrig_state(&r), LIBVHOST_DEV_DISCONNECTED);
	r.f.die_at = FAKE_NEVER;
	CHECK_EQ(libvhost_dev_reconnect(r.dev, NULL), 0);
	CHECK_EQ(get(&r, 2).running, 1);
	r.f.stall_op = OP(GET_VRING_BASE);
	CHECK_EQ(libvhost_dev_stop_queue(r.dev, 2, 30), -ETIMEDOUT);
	CHECK_EQ(devrig_state(&r), LIBVHOST_DEV_LOST);
	r.f.stall_op = 0;
	devrig_close(&r);
}
