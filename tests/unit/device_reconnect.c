/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* Peers that go away and come back, the same or less able. */
#include "devrig.h"

#include <time.h>
#include "core/clock.h"
#include "core/wire.h"

#define OP(name) LIBVHOST_OP_##name

static void running(struct devrig *r, uint32_t flags)
{
	uint64_t features = 1ull << 32 | 1ull << 35;

	devrig_init(r);
	r->f.slow = true;
	r->opts.flags = flags;
	CHECK_EQ(devrig_open(r), 0);
	CHECK_EQ(libvhost_ack_features_ex(r->dev, &features, 1), 0);
	devrig_queues(r, 4);
	CHECK_EQ(libvhost_dev_start(r->dev, NULL), 0);
}

TEST(device_reconnect, replays_everything_and_runs_again)
{
	struct libvhost_queue q = {.size = sizeof(q)};
	struct libvhost_dev_info info = {.size = sizeof(info)};
	struct libvhost_event e;
	struct devrig r;

	running(&r, 0);
	devrig_set_avail(&r, 1, 8);
	devrig_set_used(&r, 1, 5);
	CHECK_EQ(libvhost_dev_get_queue(r.dev, 1, &q), 0);
	lv_eventfd_drain(q.call_fd);
	devrig_lose_peer(&r);
	CHECK_EQ(devrig_state(&r), LIBVHOST_DEV_DISCONNECTED);
	CHECK_EQ(devrig_events(&r, LIBVHOST_EVENT_DISCONNECTED, &e), 1);
	fake_arm(&r.f);
	CHECK_EQ(libvhost_dev_reconnect(r.dev, NULL), 0);
	CHECK_EQ(libvhost_dev_info(r.dev, &info), 0);
	CHECK_EQ(info.state, LIBVHOST_DEV_RUNNING);
	CHECK_EQ(info.generation, 2);
	CHECK_EQ(devrig_events(&r, LIBVHOST_EVENT_RECONNECTED, &e), 1);
	CHECK_EQ(e.value[0], LIBVHOST_GUARANTEE_IN_ORDER);
	CHECK_EQ(fake_count(&r.f, OP(SET_VRING_CALL)), 4);
	CHECK_EQ(fake_count(&r.f, OP(SET_VRING_KICK)), 4);
	CHECK(fake_first(&r.f, OP(SET_VRING_CALL)) < fake_first(&r.f, OP(SET_VRING_KICK)));
	CHECK_EQ(libvhost_dev_get_queue(r.dev, 1, &q), 0);
	CHECK_EQ(q.base, 5); /* never the avail index */
	CHECK_EQ(lv_eventfd_drain(q.kick_fd), 1);
	CHECK_EQ(lv_eventfd_drain(q.call_fd), 1); /* a call the dead peer may have owed */
	devrig_close(&r);
}

TEST(device_reconnect, a_peer_that_shrank_is_refused)
{
	struct devrig r;

	running(&r, 0);
	devrig_lose_peer(&r);
	r.f.features &= ~(1ull << 35);
	CHECK_EQ(libvhost_dev_reconnect(r.dev, NULL), -ENOTSUP);
	CHECK_EQ(devrig_error(&r).kind, LIBVHOST_EK_SHRUNK);
	CHECK_HAS(devrig_error(&r).text, "bit 35");
	CHECK_EQ(devrig_state(&r), LIBVHOST_DEV_DISCONNECTED);
	r.f.features |= 1ull << 35;
	r.f.queues = 2;
	CHECK_EQ(libvhost_dev_reconnect(r.dev, NULL), -ENOTSUP);
	CHECK_EQ(devrig_error(&r).kind, LIBVHOST_EK_SHRUNK);
	CHECK_EQ(fake_count(&r.f, OP(SET_VRING_KICK)), 4); /* of the first start only */
	r.f.queues = 4;
	CHECK_EQ(libvhost_dev_reconnect(r.dev, NULL), 0);
	CHECK_EQ(devrig_state(&r), LIBVHOST_DEV_RUNNING);
	devrig_close(&r);
}

TEST(device_reconnect, waits_for_the_peer_until_its_deadline)
{
	const struct libvhost_call_opts brief = {.size = sizeof(brief), .timeout_ms = 60};
	struct devrig r;
	uint64_t began;

	running(&r, 0);
	devrig_lose_peer(&r);
	r.f.away = true;
	began = now_ms();
	CHECK_EQ(libvhost_dev_reconnect(r.dev, &brief), -ETIMEDOUT);
	CHECK(now_ms() - began >= 59 && now_ms() - began < PROMPT_MS);
	CHECK_EQ(devrig_state(&r), LIBVHOST_DEV_DISCONNECTED);
	r.f.away = false;
	CHECK_EQ(libvhost_dev_reconnect(r.dev, NULL), 0);
	devrig_close(&r);
}

TEST(device_reconnect, by_policy)
{
	struct libvhost_event e;
	struct devrig r;

	running(&r, LIBVHOST_DEV_AUTO_RECONNECT);
	r.f.away = true;
	devrig_lose_peer(&r);
	CHECK_EQ(devrig_state(&r), LIBVHOST_DEV_RECONNECTING);
	CHECK(devrig_await(&r, LIBVHOST_EVENT_DISCONNECTED, PATIENCE_MS, &e));
	CHECK(!devrig_await(&r, LIBVHOST_EVENT_RECONNECTED, 50, &e));
	CHECK_EQ(libvhost_dev_start(r.dev, NULL), -EBUSY);
	r.f.away = false;
	CHECK(devrig_await(&r, LIBVHOST_EVENT_RECONNECTED, PATIENCE_MS, &e));
	CHECK_EQ(devrig_state(&r), LIBVHOST_DEV_RUNNING);
	devrig_close(&r);
}

static uint64_t frozen(void *now)
{
	return *(uint64_t *)now;
}

/* The deadline of a replay that failed must not be due for ever: dispatch would return at once, over and over. */
TEST(device_reconnect, sleeps_between_attempts_after_a_replay_that_failed)
{
	uint64_t now = lv_now(NULL), began;
	struct devrig r;

	running(&r, LIBVHOST_DEV_AUTO_RECONNECT);
	r.f.slow = false; /* no descriptor that says when the peer is there */
	r.f.dies = true;
	lv_clock_replace(r.g.ctx, frozen, &now);
	devrig_lose_peer(&r);
	CHECK_EQ(r.f.opens, 2); /* the replay died */
	r.f.away = true;
	now += 3600 * 1000 * LV_NS_PER_MS;
	CHECK_EQ(libvhost_dev_dispatch(r.dev, 0), 0);
	CHECK_EQ(devrig_state(&r), LIBVHOST_DEV_RECONNECTING);
	began = now_ms();
	CHECK_EQ(libvhost_dev_dispatch(r.dev, 60), 0);
	CHECK(now_ms() - began >= 55);
	lv_clock_replace(r.g.ctx, NULL, NULL);
	devrig_close(&r);
}

TEST(device_reconnect, stop_during_the_pause_is_immediate)
{
	struct libvhost_queue q = {.size = sizeof(q)};
	struct libvhost_event e;
	struct devrig r;
	uint64_t began;

	running(&r, LIBVHOST_DEV_AUTO_RECONNECT);
	devrig_set_used(&r, 3, 2);
	r.f.away = true;
	devrig_lose_peer(&r);
	CHECK(!devrig_await(&r, LIBVHOST_EVENT_RECONNECTED, 150, &e));
	began = now_ms();
	CHECK_EQ(libvhost_dev_stop(r.dev, NULL), 0);
	CHECK(now_ms() - began < PROMPT_MS);
	CHECK_EQ(libvhost_dev_stop(r.dev, NULL), -EALREADY);
	CHECK_EQ(libvhost_dev_get_queue(r.dev, 3, &q), 0);
	CHECK_EQ(q.base, 2);
	r.f.away = false;
	CHECK(devrig_await(&r, LIBVHOST_EVENT_RECONNECTED, PATIENCE_MS, &e));
	CHECK_EQ(devrig_state(&r), LIBVHOST_DEV_NEGOTIATED);
	CHECK_EQ(libvhost_dev_start(r.dev, NULL), 0);
	devrig_close(&r);
}

TEST(device_reconnect, cancel_ends_the_policy_and_commits_go_on_meanwhile)
{
	struct libvhost_event e;
	struct devrig r;

	running(&r, LIBVHOST_DEV_AUTO_RECONNECT);
	r.f.away = true;
	devrig_lose_peer(&r);
	CHECK(!devrig_await(&r, LIBVHOST_EVENT_RECONNECTED, 20, &e));
	CHECK_EQ(libvhost_mem_begin(r.g.mem), 0);
	CHECK_EQ(libvhost_mem_alloc(r.g.mem, 1ull << 32, 0x10000), 0);
	CHECK_EQ(libvhost_mem_commit(r.g.mem, 0, NULL), 0);
	CHECK_EQ(devrig_state(&r), LIBVHOST_DEV_RECONNECTING);
	CHECK_EQ(libvhost_dev_cancel(r.dev), 0);
	CHECK_EQ(libvhost_dev_dispatch(r.dev, 100), 0);
	CHECK_EQ(devrig_state(&r), LIBVHOST_DEV_DISCONNECTED);
	r.f.away = false;
	fake_arm(&r.f);
	CHECK_EQ(libvhost_dev_reconnect(r.dev, NULL), 0);
	CHECK_EQ(fake_count(&r.f, OP(ADD_MEM_REG)), 2);
	devrig_close(&r);
}

/* The peer dies at each request of the replay once: the call tries again and succeeds. */
TEST(device_reconnect, deaths_during_the_replay)
{
	uint32_t i = 0;
	bool hit;

	do {
		struct devrig r;

		running(&r, 0);
		devrig_lose_peer(&r);
		fake_arm(&r.f);
		r.f.die_at = i++;
		CHECK_EQ(libvhost_dev_reconnect(r.dev, NULL), 0);
		CHECK_EQ(devrig_state(&r), LIBVHOST_DEV_RUNNING);
		hit = r.f.opens == 3; /* init, first and second attempt */
		devrig_close(&r);
	} while (hit);
	CHECK(i > 5 + 5 * 4 + 8);
}

TEST(device_reconnect, a_peer_that_always_dies_is_given_up)
{
	const struct libvhost_call_opts brief = {.size = sizeof(brief), .timeout_ms = 60};
	struct devrig r;

	running(&r, 0);
	devrig_lose_peer(&r);
	r.f.dies = true;
	CHECK_EQ(libvhost_dev_reconnect(r.dev, &brief), -ECONNRESET);
	CHECK_EQ(devrig_error(&r).code, -ECONNRESET);
	CHECK_EQ(devrig_state(&r), LIBVHOST_DEV_DISCONNECTED);
	r.f.dies = false;
	CHECK_EQ(libvhost_dev_reconnect(r.dev, NULL), 0);
	devrig_close(&r);
}

TEST(device_reconnect, async_and_from_any_state)
{
	const struct libvhost_call_opts async = {.size = sizeof(async), .flags = LIBVHOST_CALL_ASYNC};
	struct libvhost_event e;
	struct devrig r;

	running(&r, 0);
	CHECK_EQ(libvhost_dev_reconnect(r.dev, &async), -EINPROGRESS);
	CHECK_EQ(devrig_state(&r), LIBVHOST_DEV_RECONNECTING);
	CHECK(devrig_await(&r, LIBVHOST_EVENT_DONE, PATIENCE_MS, &e));
	CHECK_EQ(e.value[0], LIBVHOST_OPERATION_RECONNECT);
	CHECK_EQ(e.err, 0);
	CHECK_EQ(devrig_state(&r), LIBVHOST_DEV_RUNNING);
	devrig_close(&r);
}
