/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* How a device comes back by itself: how often, how long, how spread, and who may change it meanwhile. */
#include "devrig.h"

#include <pthread.h>
#include "core/clock.h"
#include "core/wire.h"

#define ALWAYS LIBVHOST_RECONNECT_FOREVER

static uint64_t frozen(void *now)
{
	return *(uint64_t *)now;
}

/* A running device on a clock of its own, whose peer has no descriptor that says when it is there. */
struct policy_rig {
	struct devrig r;
	uint64_t now;
};

static void rig_open(struct policy_rig *p, uint32_t flags)
{
	memset(p, 0, sizeof(*p));
	devrig_init(&p->r);
	p->r.opts.flags = flags;
	CHECK_EQ(devrig_open(&p->r), 0);
	devrig_queues(&p->r, DEVRIG_QUEUES);
	CHECK_EQ(libvhost_dev_start(p->r.dev, NULL), 0);
	p->now = lv_now(NULL);
	lv_clock_replace(p->r.g.ctx, frozen, &p->now);
}

static void rig_close(struct policy_rig *p)
{
	lv_clock_replace(p->r.g.ctx, NULL, NULL);
	devrig_close(&p->r);
}

static void step(struct policy_rig *p, uint64_t ms)
{
	p->now += ms * LV_NS_PER_MS;
	CHECK_EQ(libvhost_dev_dispatch(p->r.dev, 0), 0);
}

static void lose_peer(struct policy_rig *p)
{
	p->r.f.away = true;
	p->r.f.dead = true;
	p->r.f.tries = 0;
	step(p, 0);
}

/* Milliseconds until the next attempt, in steps of one. */
static uint32_t next_attempt(struct policy_rig *p, uint32_t limit)
{
	const uint32_t before = p->r.f.tries;
	uint32_t ms = 0;

	while (p->r.f.tries == before && ms < limit) {
		step(p, 1);
		ms++;
	}
	return ms;
}

static int set(struct devrig *r, uint32_t mode, uint32_t attempts, uint32_t first_ms, uint32_t max_ms, uint32_t jitter)
{
	const struct libvhost_reconnect_policy policy = {sizeof(policy), mode, attempts, first_ms, max_ms, jitter};

	return libvhost_dev_set_reconnect(r->dev, &policy);
}

TEST(device_policy, by_default_pauses_double_from_100_ms_to_5_s_for_ever)
{
	static const uint32_t pauses[] = {100, 200, 400, 800, 1600, 3200, 5000, 5000, 5000};
	struct policy_rig p;

	rig_open(&p, LIBVHOST_DEV_AUTO_RECONNECT);
	lose_peer(&p);
	CHECK_EQ(p.r.f.tries, 1);
	for (unsigned i = 0; i < sizeof(pauses) / sizeof(pauses[0]); i++)
		CHECK_EQ(next_attempt(&p, 10000), pauses[i]);
	p.r.f.away = false;
	CHECK_EQ(next_attempt(&p, 10000), 5000);
	CHECK_EQ(devrig_state(&p.r), LIBVHOST_DEV_RUNNING);
	rig_close(&p);
}

TEST(device_policy, the_callers_pauses_are_kept)
{
	static const uint32_t pauses[] = {7, 14, 28, 40, 40};
	struct policy_rig p;

	rig_open(&p, 0);
	CHECK_EQ(set(&p.r, ALWAYS, 0, 7, 40, 0), 0);
	lose_peer(&p);
	CHECK_EQ(devrig_state(&p.r), LIBVHOST_DEV_RECONNECTING);
	for (unsigned i = 0; i < sizeof(pauses) / sizeof(pauses[0]); i++)
		CHECK_EQ(next_attempt(&p, 1000), pauses[i]);
	rig_close(&p);
}

/* Ten minutes without a peer are many attempts, none of them the last. */
TEST(device_policy, r182_a_peer_that_was_away_for_ten_minutes_is_welcome)
{
	struct libvhost_event e;
	struct policy_rig p;

	rig_open(&p, LIBVHOST_DEV_AUTO_RECONNECT);
	lose_peer(&p);
	for (uint32_t s = 0; s < 600; s++)
		step(&p, 1000);
	CHECK_EQ(devrig_state(&p.r), LIBVHOST_DEV_RECONNECTING);
	CHECK(p.r.f.tries > 100 && p.r.f.tries < 160);
	CHECK_EQ(devrig_events(&p.r, LIBVHOST_EVENT_DISCONNECTED, NULL), 1);
	p.r.f.away = false;
	CHECK(next_attempt(&p, 5000) <= 5000);
	CHECK_EQ(devrig_state(&p.r), LIBVHOST_DEV_RUNNING);
	CHECK_EQ(devrig_events(&p.r, LIBVHOST_EVENT_RECONNECTED, &e), 1);
	CHECK(e.value[1] >= 600000000 && e.value[1] <= 605001000);
	CHECK_EQ(e.value[2], 0);
	CHECK_EQ(e.value[3], p.r.f.tries);
	rig_close(&p);
}

TEST(device_policy, a_limit_ends_with_a_timeout_that_says_how_often)
{
	struct libvhost_event e;
	struct policy_rig p;

	rig_open(&p, 0);
	CHECK_EQ(set(&p.r, LIBVHOST_RECONNECT_LIMITED, 4, 10, 10, 0), 0);
	lose_peer(&p);
	CHECK_EQ(devrig_events(&p.r, LIBVHOST_EVENT_DISCONNECTED, &e), 1);
	CHECK_EQ(e.err, -ECONNRESET);
	for (int i = 0; i < 100; i++)
		step(&p, 10);
	CHECK_EQ(p.r.f.tries, 4);
	CHECK_EQ(devrig_events(&p.r, LIBVHOST_EVENT_DISCONNECTED, &e), 1);
	CHECK_EQ(e.err, -ETIMEDOUT);
	CHECK_HAS(e.text, "4 attempts");
	CHECK_EQ(devrig_state(&p.r), LIBVHOST_DEV_DISCONNECTED);
	p.r.f.away = false;
	CHECK_EQ(libvhost_dev_reconnect(p.r.dev, NULL), 0); /* whoever asks gets it all the same */
	CHECK_EQ(devrig_state(&p.r), LIBVHOST_DEV_RUNNING);
	rig_close(&p);
}

/* A peer that dies in the replay uses the attempts up as well. */
TEST(device_policy, deaths_in_the_replay_count)
{
	struct libvhost_event e;
	struct policy_rig p;

	rig_open(&p, 0);
	CHECK_EQ(set(&p.r, LIBVHOST_RECONNECT_LIMITED, 3, 10, 10, 0), 0);
	p.r.f.dies = true;
	lose_peer(&p);
	p.r.f.away = false;
	p.r.f.opens = 0;
	for (int i = 0; i < 100; i++)
		step(&p, 10);
	CHECK_EQ(p.r.f.opens, 2); /* the first found nobody */
	CHECK_EQ(devrig_events(&p.r, LIBVHOST_EVENT_DISCONNECTED, &e), 2);
	CHECK_EQ(e.err, -ETIMEDOUT);
	CHECK_EQ(devrig_state(&p.r), LIBVHOST_DEV_DISCONNECTED);
	rig_close(&p);
}

TEST(device_policy, none_leaves_it_to_the_caller)
{
	struct policy_rig p;

	rig_open(&p, LIBVHOST_DEV_AUTO_RECONNECT);
	CHECK_EQ(set(&p.r, LIBVHOST_RECONNECT_NONE, 0, 0, 0, 0), 0);
	lose_peer(&p);
	CHECK_EQ(p.r.f.tries, 0);
	CHECK_EQ(devrig_state(&p.r), LIBVHOST_DEV_DISCONNECTED);
	CHECK_EQ(libvhost_dev_set_reconnect(p.r.dev, NULL), 0); /* from the next loss on */
	step(&p, 10000);
	CHECK_EQ(devrig_state(&p.r), LIBVHOST_DEV_DISCONNECTED);
	rig_close(&p);
}

TEST(device_policy, a_change_takes_effect_in_the_middle_of_a_pause)
{
	struct policy_rig p;

	rig_open(&p, 0);
	CHECK_EQ(set(&p.r, ALWAYS, 0, 60000, 0, 0), 0);
	lose_peer(&p);
	CHECK_EQ(next_attempt(&p, 1000), 1000); /* none */
	CHECK_EQ(set(&p.r, ALWAYS, 0, 1500, 0, 0), 0);
	CHECK_EQ(next_attempt(&p, 1000), 500);
	CHECK_EQ(set(&p.r, LIBVHOST_RECONNECT_LIMITED, 2, 0, 0, 0), 0); /* so many were made */
	step(&p, 0);
	CHECK_EQ(devrig_state(&p.r), LIBVHOST_DEV_DISCONNECTED);
	CHECK_EQ(devrig_events(&p.r, LIBVHOST_EVENT_DISCONNECTED, NULL), 2);
	rig_close(&p);
	rig_open(&p, LIBVHOST_DEV_AUTO_RECONNECT);
	lose_peer(&p);
	CHECK_EQ(set(&p.r, LIBVHOST_RECONNECT_NONE, 0, 0, 0, 0), 0);
	step(&p, 0);
	CHECK_EQ(devrig_state(&p.r), LIBVHOST_DEV_DISCONNECTED);
	CHECK_EQ(devrig_events(&p.r, LIBVHOST_EVENT_DISCONNECTED, NULL), 1); /* the loss itself */
	rig_close(&p);
}

static void *dispatch_long(void *arg)
{
	struct devrig *r = arg;

	(void)libvhost_dev_dispatch(r->dev, 20000);
	return NULL;
}

/* A thread that sleeps in dispatch wakes for the new policy. */
TEST(device_policy, a_change_wakes_a_thread_that_waits)
{
	struct policy_rig p;
	pthread_t thread;
	uint64_t began;

	rig_open(&p, 0);
	lv_clock_replace(p.r.g.ctx, NULL, NULL);
	CHECK_EQ(set(&p.r, ALWAYS, 0, 60000, 0, 0), 0);
	lose_peer(&p);
	p.r.f.away = false;
	began = now_ms();
	CHECK_EQ(pthread_create(&thread, NULL, dispatch_long, &p.r), 0);
	usleep(20000);
	CHECK_EQ(devrig_state(&p.r), LIBVHOST_DEV_RECONNECTING);
	CHECK_EQ(set(&p.r, ALWAYS, 0, 1, 1, 0), 0);
	pthread_join(thread, NULL);
	CHECK(devrig_await(&p.r, LIBVHOST_EVENT_RECONNECTED, PATIENCE_MS, NULL));
	CHECK(now_ms() - began < 30000); /* half of its pause */
	devrig_close(&p.r);
}

/* With jitter no two devices are in step, and none waits longer than without. */
TEST(device_policy, jitter_cuts_each_pause_by_another_part)
{
	uint32_t waits[16] = {0}, different = 0, sum = 0;

	for (unsigned i = 0; i < 16; i++) {
		struct policy_rig p;
		uint32_t first;

		rig_open(&p, 0);
		CHECK_EQ(set(&p.r, ALWAYS, 0, 1000, 1000, 80), 0);
		lose_peer(&p);
		first = p.r.f.tries ? 0 : next_attempt(&p, 2000); /* the first is spread over first_ms */
		CHECK(first <= 800);
		waits[i] = next_attempt(&p, 2000);
		CHECK(waits[i] >= 200 && waits[i] <= 1000);
		sum += waits[i];
		for (unsigned j = 0; j < i; j++)
			different += waits[i] != waits[j];
		rig_close(&p);
	}
	CHECK(different > 100); /* of 120 pairs */
	CHECK(sum / 16 > 400 && sum / 16 < 800);
}

TEST(device_policy, bad_policies_are_refused_and_change_nothing)
{
	struct libvhost_reconnect_policy small = {.size = 8};
	struct policy_rig p;

	rig_open(&p, 0);
	CHECK_EQ(libvhost_dev_set_reconnect(NULL, NULL), -EINVAL);
	CHECK_EQ(set(&p.r, 3, 0, 0, 0, 0), -EINVAL);
	CHECK_EQ(set(&p.r, LIBVHOST_RECONNECT_LIMITED, 0, 0, 0, 0), -EINVAL);
	CHECK_EQ(set(&p.r, LIBVHOST_RECONNECT_LIMITED, 1000001, 0, 0, 0), -EINVAL);
	CHECK_EQ(set(&p.r, ALWAYS, 0, 60001, 0, 0), -EINVAL);
	CHECK_EQ(set(&p.r, ALWAYS, 0, 0, 600001, 0), -EINVAL);
	CHECK_EQ(set(&p.r, ALWAYS, 0, 20, 10, 0), -EINVAL);
	CHECK_EQ(set(&p.r, ALWAYS, 0, 0, 0, 101), -EINVAL);
	CHECK_HAS(devrig_error(&p.r).text, "jitter");
	CHECK_EQ(libvhost_dev_set_reconnect(p.r.dev, &small), -EINVAL);
	lose_peer(&p);
	CHECK_EQ(devrig_state(&p.r), LIBVHOST_DEV_DISCONNECTED);
	rig_close(&p);
}

/* A door that breaks when it is opened, although somebody stands before it: the clock decides, nothing spins. */
TEST(device_policy, r245_a_listener_that_cannot_accept_is_left_alone_for_a_while)
{
	struct policy_rig p;
	uint64_t began;

	memset(&p, 0, sizeof(p));
	devrig_init(&p.r);
	p.r.f.slow = true;
	p.r.opts.flags = LIBVHOST_DEV_AUTO_RECONNECT;
	CHECK_EQ(devrig_open(&p.r), 0);
	devrig_queues(&p.r, DEVRIG_QUEUES);
	CHECK_EQ(libvhost_dev_start(p.r.dev, NULL), 0);
	p.r.f.open_error = -EMFILE;
	p.r.f.tries = 0;
	devrig_lose_peer(&p.r);
	lv_eventfd_signal(p.r.f.fd); /* readable for ever */
	for (began = now_ms(); now_ms() - began < 250 || p.r.f.tries < 2;)
		CHECK_EQ(libvhost_dev_dispatch(p.r.dev, 10), 0);
	CHECK(p.r.f.tries <= 2 + (now_ms() - began) / 100); /* at 0, 100, 300 ms */
	p.r.f.open_error = 0;
	CHECK(devrig_await(&p.r, LIBVHOST_EVENT_RECONNECTED, PATIENCE_MS, NULL));
	devrig_close(&p.r);
}
