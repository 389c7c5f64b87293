/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* Peers that say "stopped" before they have completed what they took. */
#include "devrig.h"

#include <pthread.h>
#include <sys/eventfd.h>

#define OP(name) LIBVHOST_OP_##name
#define LATER_MS 40u

static const struct libvhost_call_opts async = {.size = sizeof(async), .flags = LIBVHOST_CALL_ASYNC};
static const struct libvhost_call_opts soon = {.size = sizeof(soon), .timeout_ms = 50};

/* A running device whose peer took 12 requests of queue 1 and will say so, and has completed 9. */
static void at_work(struct devrig *r)
{
	devrig_ready(r);
	devrig_set_avail(r, 1, 12);
	devrig_set_used(r, 1, 9);
	r->f.base[1] = 12;
	CHECK_EQ(libvhost_dev_start(r->dev, NULL), 0);
}

static void *completes(void *arg)
{
	usleep(LATER_MS * 1000);
	devrig_set_used(arg, 1, 12);
	return NULL;
}

static void *cancels(void *arg)
{
	usleep(LATER_MS * 1000);
	CHECK_EQ(libvhost_dev_cancel(((struct devrig *)arg)->dev), 0);
	return NULL;
}

static void *dies(void *arg)
{
	usleep(LATER_MS * 1000);
	((struct devrig *)arg)->f.dead = true;
	return NULL;
}

/* The same while something happens; how long it took at least. */
static int during(struct devrig *r, void *(*what)(void *), int (*call)(struct devrig *r))
{
	const uint64_t began = now_ms();
	pthread_t thread;
	int rc;

	CHECK_EQ(pthread_create(&thread, NULL, what, r), 0);
	rc = call(r);
	CHECK(now_ms() - began >= LATER_MS - 1);
	pthread_join(thread, NULL);
	return rc;
}

static int stop(struct devrig *r)
{
	return libvhost_dev_stop(r->dev, NULL);
}

static int reset(struct devrig *r)
{
	return libvhost_dev_reset(r->dev, NULL);
}

static int stop_one(struct devrig *r)
{
	return libvhost_dev_stop_queue(r->dev, 1, 0);
}

static int reset_one(struct devrig *r)
{
	return libvhost_dev_reset_queue(r->dev, 1, 0);
}

static uint32_t base_of(struct devrig *r, uint32_t queue)
{
	struct libvhost_queue q = {.size = sizeof(q)};

	CHECK_EQ(libvhost_dev_get_queue(r->dev, queue, &q), 0);
	CHECK_EQ(q.running, 0);
	return q.base;
}

TEST(device_drain, a_stop_ends_with_the_last_request)
{
	struct devrig r;

	at_work(&r);
	CHECK_EQ(during(&r, completes, stop), 0);
	CHECK_EQ(devrig_state(&r), LIBVHOST_DEV_NEGOTIATED);
	CHECK_EQ(base_of(&r, 1), 12);
	CHECK_EQ(stop(&r), -EALREADY);
	devrig_close(&r);
}

static void check_told(struct devrig *r)
{
	const struct libvhost_error e = devrig_error(r);

	CHECK_EQ(e.code, -EAGAIN);
	CHECK_EQ(e.kind, LIBVHOST_EK_TIMEOUT);
	CHECK_EQ(e.queue, 1);
	CHECK_EQ(e.op, OP(GET_VRING_BASE));
	CHECK_HAS(e.text, "queue 1: the peer said that it stopped at 12 and has not completed 3 requests");
}

TEST(device_drain, at_the_deadline_the_rings_rest_and_stop_waits_on)
{
	struct devrig r;
	uint64_t began;
	uint32_t stops;

	at_work(&r);
	began = now_ms();
	CHECK_EQ(libvhost_dev_stop(r.dev, &soon), -EAGAIN);
	CHECK(now_ms() - began >= 49 && now_ms() - began < PROMPT_MS);
	check_told(&r);
	CHECK_EQ(devrig_state(&r), LIBVHOST_DEV_NEGOTIATED);
	CHECK_EQ(base_of(&r, 1), 12);
	stops = fake_count(&r.f, OP(GET_VRING_BASE));
	CHECK_EQ(libvhost_dev_stop(r.dev, &soon), -EAGAIN);
	CHECK_EQ(fake_count(&r.f, OP(GET_VRING_BASE)), stops);
	CHECK_EQ(during(&r, completes, stop), 0);
	CHECK_EQ(stop(&r), -EALREADY);
	CHECK_EQ(libvhost_dev_start(r.dev, NULL), 0);
	devrig_close(&r);
}

TEST(device_drain, a_start_goes_on_behind_open_requests)
{
	struct devrig r;

	at_work(&r);
	CHECK_EQ(libvhost_dev_stop(r.dev, &soon), -EAGAIN);
	CHECK_EQ(libvhost_dev_start(r.dev, NULL), 0);
	CHECK_EQ(r.f.told_base[1], 12);
	devrig_set_used(&r, 1, 12);
	CHECK_EQ(stop(&r), 0);
	devrig_close(&r);
}

TEST(device_drain, in_an_event_loop)
{
	struct libvhost_event e;
	pthread_t thread;
	struct devrig r;

	at_work(&r);
	CHECK_EQ(libvhost_dev_stop(r.dev, &async), -EINPROGRESS);
	CHECK_EQ(stop(&r), -EBUSY);
	CHECK_EQ(pthread_create(&thread, NULL, completes, &r), 0);
	CHECK(devrig_await(&r, LIBVHOST_EVENT_DONE, PATIENCE_MS, &e));
	pthread_join(thread, NULL);
	CHECK_EQ(e.err, 0);
	CHECK_EQ(e.value[0], LIBVHOST_OPERATION_STOP);
	CHECK_EQ(devrig_state(&r), LIBVHOST_DEV_NEGOTIATED);
	devrig_close(&r);
}

TEST(device_drain, cancelled_it_rests_all_the_same)
{
	struct devrig r;

	at_work(&r);
	CHECK_EQ(during(&r, cancels, stop), -ECANCELED);
	CHECK_EQ(devrig_state(&r), LIBVHOST_DEV_NEGOTIATED);
	CHECK_EQ(during(&r, completes, stop), 0);
	devrig_close(&r);
}

/* What a dead peer has not completed is offered to the next one. */
TEST(device_drain, a_peer_that_goes_leaves_its_requests_to_the_next)
{
	struct devrig r;

	at_work(&r);
	CHECK_EQ(libvhost_dev_stop(r.dev, &soon), -EAGAIN);
	CHECK_EQ(libvhost_dev_reconnect(r.dev, NULL), 0);
	CHECK_EQ(devrig_state(&r), LIBVHOST_DEV_NEGOTIATED);
	CHECK_EQ(base_of(&r, 1), 9);
	CHECK_EQ(libvhost_dev_start(r.dev, NULL), 0);
	CHECK_EQ(r.f.told_base[1], 9);
	CHECK_EQ(libvhost_dev_stop(r.dev, &soon), -EAGAIN);
	CHECK_EQ(libvhost_dev_force_stop(r.dev), -EALREADY);
	devrig_close(&r);
	at_work(&r);
	r.f.slow = true;
	CHECK_EQ(during(&r, dies, stop), -ECONNRESET);
	CHECK_EQ(devrig_state(&r), LIBVHOST_DEV_DISCONNECTED);
	CHECK_EQ(base_of(&r, 1), 9);
	devrig_close(&r);
}

TEST(device_drain, what_will_never_complete_is_not_waited_for)
{
	struct libvhost_queue q = {.size = sizeof(q)};
	struct devrig r;

	at_work(&r);
	CHECK_EQ(libvhost_dev_get_queue(r.dev, 1, &q), 0);
	CHECK_EQ(eventfd_write(q.err_fd, 1), 0); /* the queue broke */
	CHECK_EQ(libvhost_dev_stop(r.dev, NULL), 0);
	CHECK_EQ(libvhost_dev_start(r.dev, NULL), 0);
	CHECK(devrig_await(&r, LIBVHOST_EVENT_QUEUE_ERROR, PATIENCE_MS, NULL));
	CHECK_EQ(libvhost_dev_stop(r.dev, NULL), 0); /* was heard of before */
	CHECK_EQ(libvhost_dev_start(r.dev, NULL), 0);
	CHECK_EQ(libvhost_dev_stop(r.dev, &soon), -EAGAIN); /* a new life */
	devrig_set_used(&r, 1, 13);			    /* more than were taken: a ring that cannot be */
	CHECK_EQ(libvhost_dev_stop(r.dev, NULL), 0);
	devrig_close(&r);
}

TEST(device_drain, a_reset_forgets_when_all_is_done)
{
	struct libvhost_queue q = {.size = sizeof(q)};
	struct devrig r;

	at_work(&r);
	CHECK_EQ(libvhost_dev_reset(r.dev, &soon), -EAGAIN);
	check_told(&r);
	CHECK_EQ(devrig_state(&r), LIBVHOST_DEV_NEGOTIATED);
	CHECK_EQ(base_of(&r, 1), 12);
	CHECK_EQ(libvhost_dev_reset(r.dev, &soon), -EAGAIN);
	CHECK_EQ(during(&r, completes, reset), 0);
	CHECK_EQ(libvhost_dev_get_queue(r.dev, 1, &q), -ENOENT);
	CHECK_EQ(reset(&r), 0);
	devrig_close(&r);
	at_work(&r);
	CHECK_EQ(during(&r, completes, reset), 0);
	CHECK_EQ(libvhost_dev_get_queue(r.dev, 1, &q), -ENOENT);
	devrig_close(&r);
}

TEST(device_drain, one_queue)
{
	struct libvhost_queue q = {.size = sizeof(q)};
	struct devrig r;

	at_work(&r);
	CHECK_EQ(libvhost_dev_stop_queue(r.dev, 1, 50), -EAGAIN);
	check_told(&r);
	CHECK_EQ(devrig_state(&r), LIBVHOST_DEV_RUNNING);
	CHECK_EQ(base_of(&r, 1), 12);
	CHECK_EQ(libvhost_dev_stop(r.dev, &soon), -EAGAIN); /* it counts for the device, too */
	CHECK_EQ(libvhost_dev_start(r.dev, NULL), 0);
	CHECK_EQ(libvhost_dev_reset_queue(r.dev, 1, 50), -EAGAIN);
	CHECK_EQ(during(&r, completes, stop_one), 0);
	CHECK_EQ(stop_one(&r), -EALREADY);
	CHECK_EQ(libvhost_dev_start_queue(r.dev, 1, 0), 0);
	devrig_set_used(&r, 1, 11);
	CHECK_EQ(during(&r, completes, reset_one), 0);
	CHECK_EQ(libvhost_dev_get_queue(r.dev, 1, &q), -ENOENT);
	devrig_close(&r);
}

TEST(device_drain, open_requests_stand_in_the_way_of_a_migration)
{
	uint32_t lost = 0;
	char why[200];
	struct devrig r;

	devrig_init(&r);
	r.f.features |= 1ull << 26;
	r.f.protocol |= 1ull << LIBVHOST_PROTOCOL_F_LOG_SHMFD;
	CHECK_EQ(devrig_open(&r), 0);
	devrig_queues(&r, DEVRIG_QUEUES);
	devrig_set_avail(&r, 1, 12);
	devrig_set_used(&r, 1, 9);
	r.f.base[1] = 12;
	CHECK_EQ(libvhost_dev_start(r.dev, NULL), 0);
	CHECK_EQ(libvhost_dev_migration_blocker(r.dev, why, sizeof(why)), 0);
	CHECK_EQ(libvhost_dev_stop(r.dev, &soon), -EAGAIN);
	CHECK_EQ(libvhost_dev_migration_blocker(r.dev, why, sizeof(why)), 1);
	CHECK_HAS(why, "stop it again");
	CHECK_EQ(libvhost_mem_log_start(r.g.mem, 0, &lost), -ENOTSUP);
	CHECK_EQ(during(&r, completes, stop), 0);
	CHECK_EQ(libvhost_mem_log_start(r.g.mem, 0, &lost), 0);
	CHECK_EQ(libvhost_mem_log_stop(r.g.mem, 0, &lost), 0);
	devrig_close(&r);
}

/* Where the driver of a packed ring is, only it knows: the peer's word counts. */
TEST(device_drain, packed_rings_are_believed)
{
	const uint64_t features = 1ull << 32 | 1ull << 34;
	struct devrig r;

	devrig_init(&r);
	r.f.features |= 1ull << 34;
	CHECK_EQ(devrig_open(&r), 0);
	CHECK_EQ(libvhost_ack_features_ex(r.dev, &features, 1), 0);
	devrig_queues(&r, DEVRIG_QUEUES);
	CHECK_EQ(libvhost_dev_start(r.dev, NULL), 0);
	for (uint32_t q = 0; q < DEVRIG_QUEUES; q++)
		r.f.base[q] = 0x80098000u | 12;
	CHECK_EQ(libvhost_dev_stop(r.dev, NULL), 0);
	devrig_close(&r);
}
