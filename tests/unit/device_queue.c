/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* Queues in any order, their descriptors, masks and notifiers; features and configuration. */
#include "devrig.h"

#include <sys/resource.h>
#include "core/wire.h"

#define OP(name) LIBVHOST_OP_##name

TEST(device_queue, any_order_and_holes)
{
	struct libvhost_queue q = devrig_queue(3);
	struct devrig r;

	devrig_init(&r);
	CHECK_EQ(devrig_open(&r), 0);
	CHECK_EQ(libvhost_dev_set_queue(r.dev, 3, &q), 0);
	q = devrig_queue(1);
	q.flags = LIBVHOST_QUEUE_DISABLED;
	CHECK_EQ(libvhost_dev_set_queue(r.dev, 1, &q), 0);
	q = devrig_queue(2);
	q.desc = q.avail = q.used = 0; /* the guest does not use it */
	CHECK_EQ(libvhost_dev_set_queue(r.dev, 2, &q), 0);
	fake_arm(&r.f);
	CHECK_EQ(libvhost_dev_start(r.dev, NULL), 0);
	CHECK_EQ(fake_count(&r.f, OP(SET_VRING_NUM)), 2);
	CHECK_EQ(fake_count(&r.f, OP(SET_VRING_ENABLE)), 1);
	CHECK_EQ(r.f.index[fake_first(&r.f, OP(SET_VRING_ENABLE))], 3);
	CHECK_EQ(libvhost_dev_stop(r.dev, NULL), 0);
	CHECK_EQ(libvhost_dev_clear_queue(r.dev, 3), 0);
	CHECK_EQ(libvhost_dev_clear_queue(r.dev, 3), -ENOENT);
	devrig_close(&r);
}

TEST(device_queue, bad_queues_leave_the_old_one)
{
	struct libvhost_queue q = devrig_queue(0), got = {.size = sizeof(got)};
	struct devrig r;

	devrig_ready(&r);
	CHECK_EQ(libvhost_dev_set_queue(r.dev, 4, &q), -EINVAL);
	q.num = 17;
	CHECK_EQ(libvhost_dev_set_queue(r.dev, 0, &q), -EINVAL);
	q.num = 65536;
	CHECK_EQ(libvhost_dev_set_queue(r.dev, 0, &q), -EINVAL);
	q = devrig_queue(0);
	q.used = DEVRIG_RAM - 8;
	CHECK_EQ(libvhost_dev_set_queue(r.dev, 0, &q), -EFAULT);
	q.used = UINT64_MAX - 3;
	CHECK_EQ(libvhost_dev_set_queue(r.dev, 0, &q), -EFAULT);
	q = devrig_queue(0);
	q.desc += 8;
	CHECK_EQ(libvhost_dev_set_queue(r.dev, 0, &q), -EINVAL);
	q = devrig_queue(0);
	q.base = 65536;
	CHECK_EQ(libvhost_dev_set_queue(r.dev, 0, &q), -EINVAL);
	q = devrig_queue(0);
	q.flags = 0x80;
	CHECK_EQ(libvhost_dev_set_queue(r.dev, 0, &q), -EINVAL);
	q.flags = LIBVHOST_QUEUE_HAS_KICK;
	q.kick_fd = 9999;
	CHECK_EQ(libvhost_dev_set_queue(r.dev, 0, &q), -EBADF);
	CHECK_EQ(libvhost_dev_get_queue(r.dev, 0, &got), 0);
	CHECK_EQ(got.used, 0x2000);
	CHECK_EQ(got.num, DEVRIG_NUM);
	devrig_close(&r);
}

/* The ring was in the map when it was set up, and is not at start. */
TEST(device_queue, start_checks_the_map_of_that_day)
{
	struct devrig r;

	devrig_ready(&r);
	CHECK_EQ(libvhost_mem_begin(r.g.mem), 0);
	CHECK_EQ(libvhost_mem_remove(r.g.mem, 0, DEVRIG_RAM), 0);
	CHECK_EQ(libvhost_mem_alloc(r.g.mem, 1ull << 32, DEVRIG_RAM), 0);
	CHECK_EQ(libvhost_mem_commit(r.g.mem, 0, NULL), 0);
	fake_arm(&r.f);
	CHECK_EQ(libvhost_dev_start(r.dev, NULL), -EINVAL);
	CHECK_EQ(r.f.nseen, 0);
	CHECK_EQ(devrig_error(&r).kind, LIBVHOST_EK_MEMORY);
	devrig_close(&r);
}

TEST(device_queue, descriptors_given_made_and_none)
{
	struct libvhost_queue q = devrig_queue(0), got = {.size = sizeof(got)};
	struct devrig r;
	int mine;

	devrig_init(&r);
	CHECK_EQ(devrig_open(&r), 0);
	mine = lv_eventfd();
	q.flags = LIBVHOST_QUEUE_HAS_KICK | LIBVHOST_QUEUE_HAS_CALL;
	q.kick_fd = mine;
	q.call_fd = -1;
	CHECK_EQ(libvhost_dev_set_queue(r.dev, 0, &q), 0);
	CHECK_EQ(libvhost_dev_get_queue(r.dev, 0, &got), 0);
	CHECK(got.kick_fd >= 0 && got.kick_fd != mine);
	CHECK_EQ(got.call_fd, -1);
	lv_eventfd_signal(mine);
	CHECK_EQ(lv_eventfd_drain(got.kick_fd), 1); /* the same eventfd */
	CHECK_EQ(libvhost_dev_start(r.dev, NULL), 0);
	fake_arm(&r.f);
	CHECK_EQ(libvhost_dev_set_call(r.dev, 0, mine), 0);
	CHECK_EQ(libvhost_dev_set_kick(r.dev, 0, -1), 0);
	CHECK_EQ(r.f.nseen, 2);
	CHECK_EQ(libvhost_dev_set_kick(r.dev, 0, 9999), -EBADF);
	CHECK_EQ(libvhost_dev_set_kick(r.dev, 1, mine), -ENOENT);
	CHECK_EQ(libvhost_dev_get_queue(r.dev, 0, &got), 0);
	CHECK_EQ(got.kick_fd, -1);
	CHECK(got.call_fd >= 0);
	lv_fd_close(mine);
	devrig_close(&r);
}

TEST(device_queue, only_queues_with_work_are_kicked_at_start)
{
	struct libvhost_queue q = {.size = sizeof(q)};
	struct devrig r;

	devrig_ready(&r);
	devrig_set_avail(&r, 2, 1);
	CHECK_EQ(libvhost_dev_start(r.dev, NULL), 0);
	for (uint32_t i = 0; i < 4; i++) {
		CHECK_EQ(libvhost_dev_get_queue(r.dev, i, &q), 0);
		CHECK_EQ(lv_eventfd_drain(q.kick_fd), i == 2);
	}
	devrig_close(&r);
}

TEST(device_queue, masked_calls_are_kept)
{
	struct libvhost_queue q = {.size = sizeof(q)};
	struct devrig r;

	devrig_ready(&r);
	CHECK_EQ(libvhost_virtqueue_mask(r.dev, 1, 1), 0);
	fake_arm(&r.f);
	CHECK_EQ(libvhost_dev_start(r.dev, NULL), 0);
	CHECK_EQ(libvhost_virtqueue_pending(r.dev, 1), 0);
	CHECK_EQ(libvhost_virtqueue_pending(r.dev, 7), -ENOENT);
	fake_arm(&r.f);
	CHECK_EQ(libvhost_virtqueue_mask(r.dev, 1, 1), 0); /* already */
	CHECK_EQ(r.f.nseen, 0);
	CHECK_EQ(libvhost_virtqueue_mask(r.dev, 1, 0), 0);
	CHECK_EQ(r.f.nseen, 1);
	CHECK_EQ(r.f.seen[0], OP(SET_VRING_CALL));
	CHECK_EQ(libvhost_dev_get_queue(r.dev, 1, &q), 0);
	CHECK_EQ(q.masked, 0);
	devrig_close(&r);
}

struct binder {
	uint32_t on, off, refuse;
	struct libvhost_dev *dev;
	int inside;
};

static int bind(void *arg, uint32_t queue, int fd, uint32_t on)
{
	struct binder *b = arg;

	CHECK(fd > 2);
	b->inside = libvhost_dev_set_kick(b->dev, queue, -1);
	if (on && queue == b->refuse)
		return -EPERM;
	*(on ? &b->on : &b->off) += 1;
	return 0;
}

TEST(device_queue, notifiers_are_bound_all_or_none)
{
	struct binder b = {.refuse = 2};
	const struct libvhost_dev_ops ops = {.size = sizeof(ops), .bind_notifier = bind, .arg = &b};
	struct libvhost_queue q = devrig_queue(0);
	struct devrig r;

	devrig_init(&r);
	r.opts.ops = &ops;
	CHECK_EQ(devrig_open(&r), 0);
	b.dev = r.dev;
	devrig_queues(&r, 4);
	CHECK_EQ(libvhost_dev_enable_notifiers(r.dev), -EPERM);
	CHECK_EQ(b.on, 2);
	CHECK_EQ(b.off, 2);
	CHECK_EQ(b.inside, -EBUSY); /* from a callback */
	b.refuse = 99;
	CHECK_EQ(libvhost_dev_enable_notifiers(r.dev), 0);
	CHECK_EQ(libvhost_dev_set_queue(r.dev, 0, &q), -EBUSY);
	CHECK_EQ(libvhost_dev_start(r.dev, NULL), 0);
	CHECK_EQ(libvhost_dev_disable_notifiers(r.dev), -EBUSY);
	CHECK_EQ(libvhost_dev_stop(r.dev, NULL), 0);
	CHECK_EQ(libvhost_dev_disable_notifiers(r.dev), 0);
	CHECK_EQ(b.on, 6);
	CHECK_EQ(b.off, 6);
	devrig_close(&r);
}

TEST(device_queue, feature_lists)
{
	static const uint8_t bits[] = {29, 32, 35, 9, LIBVHOST_INVALID_FEATURE_BIT};
	uint64_t words[2] = {~0ull, ~0ull};
	struct libvhost_dev_info info = {.size = sizeof(info)};
	struct devrig r;

	devrig_init(&r);
	CHECK_EQ(devrig_open(&r), 0);
	CHECK_EQ(libvhost_get_features(r.dev, bits, 1ull << 9 | 1ull << 29 | 1ull << 40), 1ull << 29 | 1ull << 40);
	CHECK_EQ(libvhost_get_features(NULL, bits, 1), 0);
	CHECK_EQ(libvhost_ack_features(r.dev, bits, 1ull << 9), -EINVAL); /* not offered */
	CHECK_HAS(devrig_error(&r).text, "bit 9");
	CHECK_EQ(libvhost_ack_features(r.dev, bits, 1ull << 29 | 1ull << 33), 0);
	CHECK_EQ(libvhost_dev_info(r.dev, &info), 0);
	CHECK_EQ(info.acked_features[0], 1ull << 29);
	CHECK_EQ(libvhost_get_features_ex(r.dev, words, 2), 0);
	CHECK_EQ(words[0], FAKE_FEATURES & ~(1ull << 30));
	CHECK_EQ(words[1], 0);
	words[1] = 1;
	CHECK_EQ(libvhost_ack_features_ex(r.dev, words, 2), -EINVAL);
	CHECK_EQ(libvhost_ack_features_ex(r.dev, words, 5), -EINVAL);
	devrig_close(&r);
}

TEST(device_queue, configuration_bounds)
{
	uint8_t buf[300] = {0};
	struct devrig r;

	devrig_init(&r);
	r.opts.config_size = 60;
	CHECK_EQ(devrig_open(&r), 0);
	memset(r.f.config, 0x5a, sizeof(r.f.config));
	CHECK_EQ(libvhost_dev_get_config(r.dev, 0, buf, 0, 0), -EINVAL);
	CHECK_EQ(libvhost_dev_get_config(r.dev, 0, NULL, 4, 0), -EINVAL);
	CHECK_EQ(libvhost_dev_get_config(r.dev, 0, buf, 257, 0), -EINVAL);
	CHECK_EQ(libvhost_dev_get_config(r.dev, 58, buf, 3, 0), -EINVAL);
	CHECK_EQ(libvhost_dev_get_config(r.dev, UINT32_MAX, buf, 3, 0), -EINVAL);
	CHECK_EQ(buf[0], 0);
	CHECK_EQ(libvhost_dev_get_config(r.dev, 58, buf, 2, 0), 0);
	CHECK_EQ(buf[1], 0x5a);
	CHECK_EQ(libvhost_dev_set_config(r.dev, 0, buf, 4, 2, 0), -EINVAL);
	CHECK_EQ(libvhost_dev_set_config(r.dev, 0, buf, 4, 1, 0), 0);
	fake_arm(&r.f);
	r.f.refuse_at = 0;
	CHECK_EQ(libvhost_dev_get_config(r.dev, 0, buf, 4, 0), -EIO);
	CHECK_EQ(devrig_state(&r), LIBVHOST_DEV_NEGOTIATED);
	devrig_close(&r);
}

/* 64 queues do not fit: the error says what to raise, and nothing is left over. */
TEST(device_queue, descriptor_limit_is_named)
{
	struct rlimit was, low;
	struct libvhost_queue q;
	struct devrig r;
	int rc = 0;

	devrig_init(&r);
	r.opts.num_queues = 64;
	CHECK_EQ(devrig_open(&r), 0);
	CHECK_EQ(getrlimit(RLIMIT_NOFILE, &was), 0);
	low = was;
	low.rlim_cur = 100;
	CHECK_EQ(setrlimit(RLIMIT_NOFILE, &low), 0);
	for (uint32_t i = 0; i < 64 && !rc; i++) {
		q = devrig_queue(i);
		rc = libvhost_dev_set_queue(r.dev, i, &q);
	}
	CHECK_EQ(setrlimit(RLIMIT_NOFILE, &was), 0);
	CHECK_EQ(rc, -EMFILE);
	CHECK_EQ(devrig_error(&r).kind, LIBVHOST_EK_FD_LIMIT);
	CHECK_HAS(devrig_error(&r).text, "RLIMIT_NOFILE");
	devrig_close(&r);
}

/* Eight devices of 64 queues in one process of an ordinary user. */
TEST(device_queue, eight_devices_of_64_queues_fit_4096_descriptors)
{
	struct rlimit was, low;
	struct libvhost_dev *devs[8];
	static struct fake fakes[8];
	struct devrig r;

	CHECK_EQ(getrlimit(RLIMIT_NOFILE, &was), 0);
	low = was;
	low.rlim_cur = 4096;
	if (setrlimit(RLIMIT_NOFILE, &low))
		SKIP("the hard limit of descriptors is below 4096");
	devrig_init(&r);
	r.opts.num_queues = 64;
	for (unsigned i = 0; i < 8; i++) {
		fake_init(&fakes[i]);
		fakes[i].slow = true;
		r.opts.transport = fake_transport(&fakes[i], r.g.ctx);
		CHECK_EQ(libvhost_dev_init(r.g.ctx, &r.opts, &devs[i]), 0);
		r.dev = devs[i];
		devrig_queues(&r, 64);
		for (uint32_t q = 0; q < 64; q++)
			CHECK_EQ(libvhost_virtqueue_mask(r.dev, q, 1), 0);
		CHECK_EQ(libvhost_dev_start(r.dev, NULL), 0);
		CHECK(libvhost_dev_fd(r.dev) >= 0);
	}
	for (unsigned i = 0; i < 8; i++)
		libvhost_dev_cleanup(devs[i]);
	CHECK_EQ(setrlimit(RLIMIT_NOFILE, &was), 0);
	guest_free(&r.g);
	CHECK_LEDGER(r.before);
}
