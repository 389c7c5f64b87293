/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* A device's life: order of what the peer hears, what each call says in each state, several parts. */
#include "devrig.h"

#include "core/wire.h"

#define OP(name) LIBVHOST_OP_##name

TEST(device_life, start_stop_restart_reset)
{
	struct libvhost_queue q = {.size = sizeof(q)};
	uint64_t features = 1ull << 32 | 1ull << 33 | 1ull << 30;
	struct libvhost_dev_info info = {.size = sizeof(info)};
	struct devrig r;

	devrig_ready(&r);
	CHECK_EQ(libvhost_dev_info(r.dev, &info), 0);
	CHECK_EQ(info.state, LIBVHOST_DEV_NEGOTIATED);
	CHECK_EQ(info.generation, 1);
	CHECK_EQ(info.max_regions, 32);
	CHECK_EQ(libvhost_ack_features_ex(r.dev, &features, 1), 0);
	CHECK_EQ(libvhost_dev_info(r.dev, &info), 0);
	CHECK_EQ(info.acked_features[0], 1ull << 32); /* 30 is the library's, 33 needs an IOMMU */
	CHECK_EQ(libvhost_dev_start(r.dev, NULL), 0);
	CHECK_EQ(devrig_state(&r), LIBVHOST_DEV_RUNNING);
	r.f.base[1] = 77;
	CHECK_EQ(libvhost_dev_stop(r.dev, NULL), 0);
	CHECK_EQ(libvhost_dev_get_queue(r.dev, 1, &q), 0);
	CHECK_EQ(q.base, 77);
	CHECK_EQ(q.running, 0);
	fake_arm(&r.f);
	CHECK_EQ(libvhost_dev_start(r.dev, NULL), 0);
	CHECK_EQ(fake_count(&r.f, OP(SET_VRING_CALL)), 4); /* the peer dropped them with GET_VRING_BASE */
	CHECK_EQ(fake_count(&r.f, OP(SET_VRING_KICK)), 4);
	CHECK_EQ(libvhost_dev_reset(r.dev, NULL), 0);
	CHECK_EQ(devrig_state(&r), LIBVHOST_DEV_NEGOTIATED);
	CHECK_EQ(libvhost_dev_get_queue(r.dev, 1, &q), -ENOENT);
	CHECK_EQ(libvhost_dev_start(r.dev, NULL), -EINVAL);
	devrig_close(&r);
}

TEST(device_life, nothing_touches_memory_before_it_is_confirmed)
{
	struct devrig r;
	uint32_t go;

	devrig_ready(&r);
	fake_arm(&r.f);
	CHECK_EQ(libvhost_dev_start(r.dev, NULL), 0);
	go = fake_first(&r.f, OP(SET_VRING_KICK));
	CHECK(fake_first(&r.f, OP(SET_FEATURES)) < fake_first(&r.f, OP(ADD_MEM_REG)));
	CHECK(fake_first(&r.f, OP(ADD_MEM_REG)) < fake_first(&r.f, OP(SET_VRING_ADDR)));
	for (uint32_t i = go; i < r.f.nseen; i++)
		CHECK(r.f.seen[i] == OP(SET_VRING_KICK) || r.f.seen[i] == OP(SET_VRING_ENABLE));
	CHECK(fake_first(&r.f, OP(SET_VRING_CALL)) < go);
	CHECK_EQ(fake_count(&r.f, OP(SET_VRING_ENABLE)), 4);
	CHECK_EQ(r.f.zero_fds, 0);
	devrig_close(&r);
}

TEST(device_life, zero_filled_structs_never_pass_descriptor_0)
{
	struct libvhost_queue q = devrig_queue(0), got = {.size = sizeof(got)};
	struct devrig r;

	devrig_init(&r);
	CHECK_EQ(devrig_open(&r), 0);
	CHECK_EQ(q.kick_fd, 0);
	CHECK_EQ(libvhost_dev_set_queue(r.dev, 0, &q), 0);
	CHECK_EQ(libvhost_dev_get_queue(r.dev, 0, &got), 0);
	CHECK(got.kick_fd > 2 && got.call_fd > 2);
	CHECK_EQ(libvhost_dev_start(r.dev, NULL), 0);
	CHECK_EQ(r.f.zero_fds, 0);
	devrig_close(&r);
}

struct expectation {
	const char *call;
	int negotiated, running, lost, disconnected;
};

static int call(struct devrig *r, unsigned which)
{
	struct libvhost_queue q = devrig_queue(0);
	uint64_t features = 0;
	uint8_t b[4];

	switch (which) {
	case 0:
		return libvhost_ack_features_ex(r->dev, &features, 1);
	case 1:
		return libvhost_dev_set_queue(r->dev, 0, &q);
	case 2:
		return libvhost_dev_clear_queue(r->dev, 3);
	case 3:
		return libvhost_dev_set_kick(r->dev, 0, -1);
	case 4:
		return libvhost_virtqueue_mask(r->dev, 0, 1);
	case 5:
		return libvhost_dev_get_config(r->dev, 0, b, sizeof(b), 0);
	case 6:
		return libvhost_dev_set_config(r->dev, 0, b, sizeof(b), 0, 0);
	case 7:
		return libvhost_dev_enable_notifiers(r->dev);
	case 8:
		return libvhost_dev_start(r->dev, NULL);
	case 9:
		return libvhost_dev_reset(r->dev, NULL);
	case 10:
		return libvhost_dev_stop(r->dev, NULL);
	case 11:
		return libvhost_dev_force_stop(r->dev);
	case 12:
		return libvhost_dev_dispatch(r->dev, 0);
	case 13:
		return libvhost_dev_start_queue(r->dev, 0, 0);
	case 14:
		return libvhost_dev_stop_queue(r->dev, 0, 0);
	case 15:
		return libvhost_dev_reset_queue(r->dev, 0, 0);
	case 16:
		return libvhost_dev_prepare_inflight(r->dev, 0);
	case 17:
		return libvhost_config_mask(r->dev, 1);
	default:
		return libvhost_dev_reconnect(r->dev, NULL);
	}
}

static const struct expectation table[] = {
	{"ack_features", 0, -EBUSY, -EIO, -ENOTCONN},
	{"set_queue", 0, -EBUSY, -EIO, -ENOTCONN},
	{"clear_queue", 0, -EBUSY, -EIO, -ENOTCONN},
	{"set_kick", 0, 0, -EIO, -ENOTCONN},
	{"mask", 0, 0, -EIO, 0}, /* the replay takes it along */
	{"get_config", 0, 0, -EIO, -ENOTCONN},
	{"set_config", 0, 0, -EIO, -ENOTCONN},
	{"enable_notifiers", 0, 0, -EIO, -ENOTCONN},
	{"start", 0, -EALREADY, -EIO, -ENOTCONN},
	{"reset", 0, 0, 0, -ENOTCONN},
	{"stop", -EALREADY, 0, 0, -ENOTCONN},
	{"force_stop", -EALREADY, 0, 0, -EALREADY},
	{"dispatch", 0, 0, 0, 0},
	{"start_queue", -EINVAL, -EALREADY, -EIO, -ENOTCONN},
	{"stop_queue", -EALREADY, 0, -EIO, -ENOTCONN},
	{"reset_queue", 0, 0, -EIO, -ENOTCONN},
	{"prepare_inflight", -ENOTSUP, -EBUSY, -EIO, -ENOTCONN},
	{"config_mask", 0, 0, 0, 0},
	{"reconnect", 0, 0, 0, 0},
};

/* The device in the given state. */
static void bring(struct devrig *r, uint32_t state)
{
	devrig_ready(r);
	if (state == LIBVHOST_DEV_RUNNING || state == LIBVHOST_DEV_LOST)
		CHECK_EQ(libvhost_dev_start(r->dev, NULL), 0);
	if (state == LIBVHOST_DEV_LOST) {
		r->f.stall_op = OP(GET_VRING_BASE);
		CHECK_EQ(libvhost_dev_stop(r->dev,
					   &(struct libvhost_call_opts){.size = sizeof(struct libvhost_call_opts),
									.timeout_ms = 20}),
			 -ETIMEDOUT);
		r->f.stall_op = 0;
	}
	if (state == LIBVHOST_DEV_DISCONNECTED) {
		devrig_lose_peer(r);
	}
	CHECK_EQ(devrig_state(r), state);
}

TEST(device_life, every_call_in_every_state)
{
	for (unsigned c = 0; c < sizeof(table) / sizeof(*table); c++) {
		const int expected[] = {table[c].negotiated, table[c].running, table[c].lost, table[c].disconnected};
		const uint32_t states[] = {LIBVHOST_DEV_NEGOTIATED, LIBVHOST_DEV_RUNNING, LIBVHOST_DEV_LOST,
					   LIBVHOST_DEV_DISCONNECTED};

		for (unsigned s = 0; s < 4; s++) {
			struct libvhost_dev_info info = {.size = sizeof(info)};
			struct devrig r;
			int rc;

			bring(&r, states[s]);
			rc = call(&r, c);
			if (rc != expected[s])
				lv_test_fail(__FILE__, __LINE__, "%s in state %u: %d, expected %d", table[c].call,
					     states[s], rc, expected[s]);
			CHECK_EQ(libvhost_dev_info(r.dev, &info), 0); /* always works */
			CHECK_EQ(libvhost_dev_cancel(r.dev), 0);
			devrig_close(&r);
		}
	}
}

TEST(device_life, lost_is_told_once_and_stop_brings_it_back)
{
	struct libvhost_event e;
	struct devrig r;

	bring(&r, LIBVHOST_DEV_LOST);
	CHECK_EQ(libvhost_dev_start(r.dev, NULL), -EIO);
	CHECK_EQ(devrig_error(&r).kind, LIBVHOST_EK_LOST);
	CHECK_EQ(devrig_events(&r, LIBVHOST_EVENT_LOST, &e), 1);
	CHECK_EQ(e.err, -ETIMEDOUT);
	CHECK_EQ(libvhost_dev_stop(r.dev, NULL), 0);
	CHECK_EQ(devrig_state(&r), LIBVHOST_DEV_NEGOTIATED);
	CHECK_EQ(libvhost_dev_start(r.dev, NULL), 0);
	devrig_close(&r);
}

TEST(device_life, force_stop_continues_at_the_used_index)
{
	struct libvhost_queue q = {.size = sizeof(q)};
	struct devrig r;

	bring(&r, LIBVHOST_DEV_RUNNING);
	devrig_set_avail(&r, 2, 9);
	devrig_set_used(&r, 2, 5);
	CHECK_EQ(libvhost_dev_force_stop(r.dev), 0);
	CHECK_EQ(devrig_state(&r), LIBVHOST_DEV_DISCONNECTED);
	CHECK_EQ(libvhost_dev_get_queue(r.dev, 2, &q), 0);
	CHECK_EQ(q.base, 5);
	CHECK_EQ(q.running, 0);
	CHECK_EQ(devrig_events(&r, LIBVHOST_EVENT_DISCONNECTED, NULL), 0);
	CHECK_EQ(libvhost_dev_reconnect(r.dev, NULL), 0);
	CHECK_EQ(devrig_state(&r), LIBVHOST_DEV_NEGOTIATED);
	devrig_close(&r);
}

TEST(device_life, options_are_checked)
{
	struct libvhost_error e = {.size = sizeof(e)};
	struct libvhost_dev *dev = NULL;
	struct devrig r;

	devrig_init(&r);
	CHECK_EQ(libvhost_dev_init(r.g.ctx, &r.opts, &dev), -EINVAL); /* neither uri nor transport */
	r.opts.uri = "user:/nowhere/at/all";
	CHECK_EQ(libvhost_dev_init(r.g.ctx, &r.opts, &dev), -ENOENT);
	r.opts.num_queues = 257;
	CHECK_EQ(libvhost_dev_init(r.g.ctx, &r.opts, &dev), -EINVAL);
	r.opts.num_queues = 4;
	r.opts.flags = 1u << 30;
	CHECK_EQ(libvhost_dev_init(r.g.ctx, &r.opts, &dev), -EINVAL);
	r.opts.flags = 0;
	r.opts.uri = NULL;
	r.f.queues = 3;
	CHECK_EQ(devrig_open(&r), -ENOSPC);
	CHECK_EQ(libvhost_ctx_error(r.g.ctx, &e), 0);
	CHECK_HAS(e.text, "4 queues wanted");
	CHECK_HAS(e.text, "has 3");
	devrig_close(&r);
}

TEST(device_life, parts_share_one_device)
{
	struct fake second;
	struct libvhost_transport *t;
	struct devrig r;

	devrig_init(&r);
	r.f.max_queues = 2;
	CHECK_EQ(devrig_open(&r), 0);
	devrig_queues(&r, 4);
	CHECK_EQ(libvhost_dev_start(r.dev, NULL), -EINVAL); /* nobody carries queue 2 */
	fake_init(&second);
	t = fake_transport(&second, r.g.ctx);
	CHECK_EQ(libvhost_dev_add_part(r.dev, t, 1, 2, 0), -EINVAL);
	CHECK_EQ(libvhost_dev_add_part(r.dev, t, 2, 2, 0), 0);
	CHECK_EQ(libvhost_dev_transport(r.dev, 1) == t, 1);
	CHECK_EQ(libvhost_dev_transport(r.dev, 2) == NULL, 1);
	fake_arm(&r.f);
	fake_arm(&second);
	CHECK_EQ(libvhost_dev_start(r.dev, NULL), 0);
	CHECK_EQ(fake_count(&r.f, OP(SET_VRING_NUM)), 2);
	CHECK_EQ(fake_count(&second, OP(SET_VRING_NUM)), 2);
	second.base[2] = 11;
	CHECK_EQ(libvhost_dev_stop(r.dev, NULL), 0);
	CHECK_EQ(fake_count(&second, OP(GET_VRING_BASE)), 2);
	devrig_close(&r);
	CHECK(second.destroyed);
}

/* A flag without a meaning is refused, so that it can get one later. */
TEST(device_life, unknown_flags_are_refused)
{
	struct devrig r;

	devrig_init(&r);
	r.opts.flags = 0x10;
	CHECK_EQ(devrig_open(&r), -EINVAL);
	r.opts.flags = 1u << 31;
	CHECK_EQ(devrig_open(&r), -EINVAL);
	devrig_close(&r);
}
