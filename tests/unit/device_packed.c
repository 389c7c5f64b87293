/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* Packed rings of a managed device: where they begin, where they continue, and what is done when nobody knows. */
#include "devrig.h"

#include "core/wire.h"
#include "vring/inflight.h"
#include "vring/packed.h"

#define OP(name) LIBVHOST_OP_##name
#define PACKED	 (1ull << 34)
#define BASE	 LIBVHOST_QUEUE_HAS_BASE

struct host {
	uint32_t asked[DEVRIG_QUEUES], base[DEVRIG_QUEUES];
	int answer;
	struct libvhost_dev *dev;
};

static int ring_base(void *arg, uint32_t queue, uint32_t *base)
{
	struct libvhost_queue q = {.size = sizeof(q)};
	struct host *h = arg;

	h->asked[queue]++;
	*base = h->base[queue];
	CHECK_EQ(libvhost_dev_get_queue(h->dev, queue, &q), 0); /* reading is allowed */
	CHECK_EQ(libvhost_dev_set_kick(h->dev, queue, -1), -EBUSY);
	return h->answer;
}

static void open_packed(struct devrig *r, struct host *h, uint32_t flags)
{
	const uint64_t features = 1ull << 32 | PACKED;
	static struct libvhost_dev_ops ops;

	devrig_init(r);
	r->f.features |= PACKED;
	r->f.slow = true;
	ops = (struct libvhost_dev_ops){.size = sizeof(ops), .ring_base = ring_base, .arg = h};
	r->opts.flags = flags;
	r->opts.ops = h ? &ops : NULL;
	CHECK_EQ(devrig_open(r), 0);
	CHECK_EQ(libvhost_ack_features_ex(r->dev, &features, 1), 0);
	if (h)
		*h = (struct host){.dev = r->dev, .base = {0x80018001, 0x80028002, 0x00030003, 0x00040004}};
}

static void running(struct devrig *r, struct host *h, uint32_t flags)
{
	open_packed(r, h, flags);
	devrig_queues(r, DEVRIG_QUEUES);
	CHECK_EQ(libvhost_dev_start(r->dev, NULL), 0);
}

static uint32_t base_of(struct devrig *r, uint32_t index)
{
	struct libvhost_queue q = {.size = sizeof(q)};

	CHECK_EQ(libvhost_dev_get_queue(r->dev, index, &q), 0);
	CHECK(q.flags & BASE);
	return q.base;
}

TEST(device_packed, bases_as_given_and_as_read)
{
	struct libvhost_queue q = devrig_queue(0);
	struct devrig r;

	open_packed(&r, NULL, 0);
	q.num = 100; /* no power of two */
	q.base = 17;
	CHECK_EQ(libvhost_dev_set_queue(r.dev, 0, &q), 0);
	CHECK_EQ(base_of(&r, 0), LV_PACKED_BASE); /* not given: a fresh ring */
	q.flags |= BASE;
	q.base = 0x80648064;
	CHECK_EQ(libvhost_dev_set_queue(r.dev, 0, &q), -EINVAL);
	CHECK_HAS(devrig_error(&r).text, "no packed ring of 100 entries");
	q.base = 0x80638063;
	CHECK_EQ(libvhost_dev_set_queue(r.dev, 0, &q), 0);
	CHECK_EQ(base_of(&r, 0), 0x80638063);
	q = devrig_queue(1);
	CHECK_EQ(libvhost_dev_set_queue(r.dev, 1, &q), 0);
	CHECK_EQ(libvhost_dev_start(r.dev, NULL), 0);
	CHECK_EQ(base_of(&r, 0), 0x80638063);
	CHECK_EQ(base_of(&r, 1), LV_PACKED_BASE);
	r.f.base[0] = 0x80058005;
	r.f.base[1] = 0x8007; /* as DPDK says it */
	CHECK_EQ(libvhost_dev_stop(r.dev, NULL), 0);
	CHECK_EQ(base_of(&r, 0), 0x80058005);
	CHECK_EQ(base_of(&r, 1), 0x80078007);
	CHECK_EQ(libvhost_dev_start(r.dev, NULL), 0);
	CHECK_EQ(base_of(&r, 1), 0x80078007); /* not fresh again */
	devrig_close(&r);
}

TEST(device_packed, features_may_be_accepted_after_the_queues)
{
	const uint64_t features = 1ull << 32 | PACKED, split = 1ull << 32;
	struct libvhost_queue q = devrig_queue(0);
	struct devrig r;

	devrig_init(&r);
	r.f.features |= PACKED;
	CHECK_EQ(devrig_open(&r), 0);
	CHECK_EQ(libvhost_dev_set_queue(r.dev, 0, &q), 0);
	CHECK_EQ(base_of(&r, 0), 0);
	CHECK_EQ(libvhost_ack_features_ex(r.dev, &features, 1), 0);
	CHECK_EQ(base_of(&r, 0), LV_PACKED_BASE);
	q.flags |= BASE;
	q.base = 0x80018001;
	CHECK_EQ(libvhost_dev_set_queue(r.dev, 0, &q), 0);
	CHECK_EQ(libvhost_ack_features_ex(r.dev, &split, 1), 0);
	CHECK_EQ(libvhost_dev_start(r.dev, NULL), -EINVAL);
	CHECK_HAS(devrig_error(&r).text, "a split ring continues at 0..65535");
	q.base = 0x8005;
	CHECK_EQ(libvhost_dev_set_queue(r.dev, 0, &q), 0);
	CHECK_EQ(libvhost_ack_features_ex(r.dev, &features, 1), 0);
	CHECK_EQ(libvhost_dev_start(r.dev, NULL), -EINVAL); /* given, and available 5, used 0 of the lap before */
	devrig_close(&r);
}

TEST(device_packed, reconnect_asks_the_host_where_rings_continue)
{
	struct libvhost_event e;
	struct devrig r;
	struct host h;

	running(&r, &h, 0);
	devrig_lose_peer(&r);
	CHECK_EQ(h.asked[0], 0); /* the old peer may still run: asked when a new one is there */
	CHECK_EQ(libvhost_dev_reconnect(r.dev, NULL), 0);
	CHECK_EQ(devrig_state(&r), LIBVHOST_DEV_RUNNING);
	for (uint32_t i = 0; i < DEVRIG_QUEUES; i++) {
		CHECK_EQ(h.asked[i], 1);
		CHECK_EQ(base_of(&r, i), h.base[i]);
	}
	CHECK_EQ(devrig_events(&r, LIBVHOST_EVENT_NEEDS_RESET, &e), 0);
	devrig_close(&r);
}

TEST(device_packed, a_queue_that_rests_is_not_asked_about)
{
	struct devrig r;
	struct host h;

	running(&r, &h, 0);
	r.f.base[2] = 0x80098009;
	CHECK_EQ(libvhost_dev_stop_queue(r.dev, 2, 0), 0);
	devrig_lose_peer(&r);
	CHECK_EQ(libvhost_dev_reconnect(r.dev, NULL), 0);
	CHECK_EQ(h.asked[1], 1);
	CHECK_EQ(h.asked[2], 0);
	CHECK_EQ(base_of(&r, 2), 0x80098009);
	devrig_close(&r);
}

static void comes_back_stopped(struct devrig *r, const char *why)
{
	struct libvhost_event e;

	devrig_lose_peer(r);
	CHECK_EQ(libvhost_dev_reconnect(r->dev, NULL), 0);
	CHECK_EQ(devrig_state(r), LIBVHOST_DEV_NEGOTIATED);
	CHECK_EQ(devrig_events(r, LIBVHOST_EVENT_NEEDS_RESET, &e), 1);
	CHECK_HAS(e.text, why);
	CHECK_EQ(libvhost_dev_start(r->dev, NULL), -EINVAL);
	CHECK_HAS(devrig_error(r).text, "where it stopped is not known");
}

TEST(device_packed, without_an_answer_the_device_comes_back_stopped)
{
	const uint64_t features = 1ull << 32 | PACKED;
	struct devrig r;
	struct host h;

	running(&r, NULL, 0);
	comes_back_stopped(&r, "base of packed ring 0 unknown, no inflight, no ring_base");
	devrig_close(&r);
	running(&r, &h, 0);
	h.answer = -1;
	comes_back_stopped(&r, "ring_base did not say");
	CHECK_EQ(libvhost_dev_reset(r.dev, NULL), 0); /* what the guest does then */
	CHECK_EQ(libvhost_ack_features_ex(r.dev, &features, 1), 0);
	devrig_queues(&r, DEVRIG_QUEUES);
	CHECK_EQ(libvhost_dev_start(r.dev, NULL), 0);
	CHECK_EQ(base_of(&r, 0), LV_PACKED_BASE);
	devrig_close(&r);
	running(&r, &h, 0);
	h.base[3] = 0x80108010; /* the rings have 16 entries */
	comes_back_stopped(&r, "base of packed ring 3 unknown");
	devrig_close(&r);
}

TEST(device_packed, by_policy_each_attempt_asks)
{
	struct libvhost_event e;
	struct devrig r;
	struct host h;

	running(&r, &h, LIBVHOST_DEV_AUTO_RECONNECT);
	devrig_lose_peer(&r);
	CHECK(devrig_await(&r, LIBVHOST_EVENT_RECONNECTED, PATIENCE_MS, &e));
	CHECK_EQ(h.asked[0], 1);
	h.base[0] = 0x80068006;
	devrig_lose_peer(&r);
	CHECK(devrig_await(&r, LIBVHOST_EVENT_RECONNECTED, PATIENCE_MS, &e));
	CHECK_EQ(h.asked[0], 2);
	CHECK_EQ(base_of(&r, 0), 0x80068006);
	h.answer = -1;
	devrig_lose_peer(&r);
	CHECK(devrig_await(&r, LIBVHOST_EVENT_NEEDS_RESET, PATIENCE_MS, &e));
	CHECK_EQ(devrig_state(&r), LIBVHOST_DEV_NEGOTIATED);
	devrig_close(&r);
}

TEST(device_packed, a_forced_stop_asks)
{
	struct devrig r;
	struct host h;

	running(&r, &h, 0);
	CHECK_EQ(libvhost_dev_force_stop(r.dev), 0);
	CHECK_EQ(h.asked[3], 1);
	CHECK_EQ(base_of(&r, 3), h.base[3]);
	CHECK_EQ(libvhost_dev_reconnect(r.dev, NULL), 0);
	CHECK_EQ(h.asked[3], 1);
	CHECK_EQ(libvhost_dev_start(r.dev, NULL), 0);
	devrig_close(&r);
}

TEST(device_packed, rings_with_work_are_kicked)
{
	struct libvhost_queue q = devrig_queue(0);
	struct lv_packed_ring ring = {.num = 16};
	struct devrig r;

	open_packed(&r, NULL, 0);
	for (uint32_t i = 0; i < 2; i++) {
		q = devrig_queue(i);
		q.flags |= BASE;
		q.base = lv_pos_base(3);
		CHECK_EQ(libvhost_dev_set_queue(r.dev, i, &q), 0);
		ring.desc = at(&r.g, q.desc);
		lv_packed_publish(&ring, 3, lv_packed_meta(1, 0, lv_avail_bits(i ? 3 : 3 | LV_POS_WRAP)));
	}
	CHECK_EQ(libvhost_dev_start(r.dev, NULL), 0);
	for (uint32_t i = 0; i < 2; i++) {
		CHECK_EQ(libvhost_dev_get_queue(r.dev, i, &q), 0);
		CHECK_EQ(lv_eventfd_drain(q.kick_fd), i); /* the other one's bits are of another lap */
	}
	devrig_close(&r);
}

/* The two bits may come one after the other, so that the start has the last word. */
TEST(device_packed, not_without_version_1)
{
	static const uint8_t bits[] = {32, 34, LIBVHOST_INVALID_FEATURE_BIT};
	const uint64_t alone = PACKED, both = 1ull << 32 | PACKED;
	struct libvhost_dev_info info = {.size = sizeof(info)};
	struct devrig r;

	devrig_init(&r);
	r.f.features |= PACKED;
	r.f.protocol |= 1ull << LIBVHOST_PROTOCOL_F_INFLIGHT_SHMFD;
	r.opts.flags = LIBVHOST_DEV_INFLIGHT;
	CHECK_EQ(devrig_open(&r), 0);
	devrig_queues(&r, 1);
	CHECK_EQ(libvhost_ack_features_ex(r.dev, &alone, 1), -EINVAL);
	CHECK_HAS(devrig_error(&r).text, "RING_PACKED (bit 34) is accepted without VERSION_1 (bit 32)");
	CHECK_EQ(libvhost_dev_info(r.dev, &info), 0);
	CHECK_EQ(info.acked_features[0], 0);
	CHECK_EQ(libvhost_ack_features(r.dev, bits, alone), 0);
	fake_arm(&r.f);
	CHECK_EQ(libvhost_dev_start(r.dev, NULL), -EINVAL);
	CHECK_HAS(devrig_error(&r).text, "start: RING_PACKED");
	CHECK_EQ(libvhost_dev_prepare_inflight(r.dev, 0), -EINVAL);
	CHECK_HAS(devrig_error(&r).text, "prepare_inflight: RING_PACKED");
	CHECK_EQ(r.f.nseen, 0);
	CHECK_EQ(libvhost_ack_features(r.dev, bits, both), 0);
	r.f.region = lv_inflight_queue_bytes(DEVRIG_NUM, 1);
	CHECK_EQ(libvhost_dev_start(r.dev, NULL), 0);
	devrig_close(&r);
}

/* ---- starts that fail ---- */

/* Refuses the first request of a kind in the next start. */
static void refuse_first(struct devrig *r, uint32_t op)
{
	struct devrig probe;

	open_packed(&probe, NULL, 0);
	devrig_queues(&probe, DEVRIG_QUEUES);
	fake_arm(&probe.f);
	CHECK_EQ(libvhost_dev_start(probe.dev, NULL), 0);
	r->f.refuse_at = fake_first(&probe.f, op);
	devrig_close(&probe);
	fake_arm(&r->f);
}

TEST(device_packed, rings_that_ran_in_a_failed_start_continue_where_they_stopped)
{
	struct devrig r;

	open_packed(&r, NULL, 0);
	devrig_queues(&r, DEVRIG_QUEUES);
	refuse_first(&r, OP(SET_VRING_ENABLE));
	for (uint32_t i = 0; i < DEVRIG_QUEUES; i++)
		r.f.base[i] = 0x80058005 + i * 0x10001;
	CHECK_EQ(libvhost_dev_start(r.dev, NULL), -EIO);
	r.f.refuse_at = FAKE_NEVER;
	CHECK_EQ(devrig_state(&r), LIBVHOST_DEV_NEGOTIATED);
	CHECK_EQ(r.f.told_base[1], LV_PACKED_BASE);
	CHECK_EQ(base_of(&r, 1), r.f.base[1]);
	CHECK_EQ(libvhost_dev_start(r.dev, NULL), 0);
	for (uint32_t i = 0; i < DEVRIG_QUEUES; i++)
		CHECK_EQ(r.f.told_base[i], r.f.base[i]);
	devrig_close(&r);
}

TEST(device_packed, a_peer_that_dies_in_a_start_leaves_the_question_where_the_rings_are)
{
	struct devrig r;
	struct host h;

	open_packed(&r, &h, 0);
	devrig_queues(&r, DEVRIG_QUEUES);
	refuse_first(&r, OP(SET_VRING_ENABLE));
	r.f.die_at = r.f.refuse_at;
	CHECK_EQ(libvhost_dev_start(r.dev, NULL), -ECONNRESET);
	r.f.die_at = r.f.refuse_at = FAKE_NEVER;
	CHECK_EQ(libvhost_dev_reconnect(r.dev, NULL), 0);
	CHECK_EQ(devrig_state(&r), LIBVHOST_DEV_NEGOTIATED);
	CHECK_EQ(libvhost_dev_start(r.dev, NULL), 0);
	for (uint32_t i = 0; i < DEVRIG_QUEUES; i++)
		CHECK_EQ(r.f.told_base[i], h.base[i]);
	devrig_close(&r);
}

static void accept(struct devrig *r, uint64_t rings)
{
	const uint64_t features = 1ull << 32 | rings;

	CHECK_EQ(libvhost_ack_features_ex(r->dev, &features, 1), 0);
}

/* The guest gives up on packed rings, or on split ones, after its driver saw the start fail. */
TEST(device_packed, a_start_refused_before_the_first_kick_leaves_the_bases_to_the_caller)
{
	struct libvhost_queue q = devrig_queue(0);
	struct devrig r;

	open_packed(&r, NULL, 0);
	q.base = 5; /* counts for a split ring only */
	CHECK_EQ(libvhost_dev_set_queue(r.dev, 0, &q), 0);
	refuse_first(&r, OP(SET_VRING_NUM));
	CHECK_EQ(libvhost_dev_start(r.dev, NULL), -EIO);
	CHECK_EQ(base_of(&r, 0), LV_PACKED_BASE);
	accept(&r, 0);
	CHECK_EQ(base_of(&r, 0), 5);
	fake_arm(&r.f);
	CHECK_EQ(libvhost_dev_start(r.dev, NULL), -EIO);
	accept(&r, PACKED);
	r.f.refuse_at = FAKE_NEVER;
	CHECK_EQ(libvhost_dev_start(r.dev, NULL), 0);
	CHECK_EQ(r.f.told_base[0], LV_PACKED_BASE);
	devrig_close(&r);
}

TEST(device_packed, a_queue_whose_own_start_fails)
{
	struct libvhost_queue q = devrig_queue(3);
	struct devrig r;

	open_packed(&r, NULL, 0);
	devrig_queues(&r, 3);
	CHECK_EQ(libvhost_dev_start(r.dev, NULL), 0);
	CHECK_EQ(libvhost_dev_set_queue(r.dev, 3, &q), 0);
	fake_arm(&r.f);
	r.f.base[3] = 0x80078007;
	r.f.refuse_at = 5; /* num, base, address, error, call; kick */
	CHECK_EQ(libvhost_dev_start_queue(r.dev, 3, 0), -EIO);
	CHECK_EQ(r.f.seen[5], OP(SET_VRING_KICK));
	CHECK_EQ(fake_count(&r.f, OP(GET_VRING_BASE)), 0);
	CHECK_EQ(base_of(&r, 3), LV_PACKED_BASE);
	fake_arm(&r.f);
	r.f.refuse_at = 6;
	CHECK_EQ(libvhost_dev_start_queue(r.dev, 3, 0), -EIO);
	CHECK_EQ(r.f.seen[6], OP(SET_VRING_ENABLE));
	CHECK_EQ(r.f.told_base[3], LV_PACKED_BASE);
	CHECK_EQ(base_of(&r, 3), 0x80078007);
	r.f.refuse_at = FAKE_NEVER;
	CHECK_EQ(libvhost_dev_start_queue(r.dev, 3, 0), 0);
	CHECK_EQ(r.f.told_base[3], 0x80078007);
	devrig_close(&r);
}
