/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* What stands in an inflight region decides where rings continue. */
#include "inflightrig.h"

#include "device/device.h"

#define OP(name) LIBVHOST_OP_##name

TEST(device_inflight, a_stop_that_leaves_requests_continues_at_the_used_index)
{
	struct libvhost_queue q = {.size = sizeof(q)};
	struct devrig r;

	inflight_rig_ready(&r, LIBVHOST_DEV_STOP_INFLIGHT);
	CHECK_EQ(libvhost_dev_start(r.dev, NULL), 0);
	devrig_set_used(&r, 1, 4);
	r.f.base[1] = 9; /* five requests taken and not completed */
	CHECK_EQ(libvhost_dev_stop(r.dev, NULL), 0);
	CHECK_EQ(libvhost_dev_get_queue(r.dev, 1, &q), 0);
	CHECK_EQ(q.base, 4);
	devrig_close(&r);
	inflight_rig_ready(&r, 0); /* a peer that drains says where it stopped */
	CHECK_EQ(libvhost_dev_start(r.dev, NULL), 0);
	r.f.base[1] = 9;
	CHECK_EQ(libvhost_dev_stop(r.dev, NULL), 0);
	CHECK_EQ(libvhost_dev_get_queue(r.dev, 1, &q), 0);
	CHECK_EQ(q.base, 9);
	devrig_close(&r);
}

/* Requests that the back-end took before the refusal stand in the region: it stays, and they are not counted. */
TEST(device_inflight, a_start_that_is_taken_back_continues_at_the_used_index)
{
	struct libvhost_queue q = {.size = sizeof(q)};
	struct devrig r;
	uint32_t enable;

	inflight_rig_ready(&r, LIBVHOST_DEV_STOP_INFLIGHT);
	fake_arm(&r.f);
	CHECK_EQ(libvhost_dev_start(r.dev, NULL), 0);
	enable = fake_first(&r.f, OP(SET_VRING_ENABLE));
	devrig_close(&r);
	inflight_rig_ready(&r, LIBVHOST_DEV_STOP_INFLIGHT);
	fake_arm(&r.f);
	r.f.refuse_at = enable;
	devrig_set_used(&r, 1, 4);
	r.f.base[1] = 9;
	CHECK_EQ(libvhost_dev_start(r.dev, NULL), -EIO);
	CHECK_EQ(devrig_state(&r), LIBVHOST_DEV_NEGOTIATED);
	inflight_mark(&r, 1, 3, 1);
	CHECK(inflight_marked(&r, 1, 3));
	CHECK_EQ(libvhost_dev_get_queue(r.dev, 1, &q), 0);
	CHECK_EQ(q.base, 4);
	r.f.refuse_at = FAKE_NEVER;
	fake_arm(&r.f);
	CHECK_EQ(libvhost_dev_start(r.dev, NULL), 0);
	CHECK_EQ(fake_count(&r.f, OP(GET_INFLIGHT_FD)), 0);
	CHECK(inflight_marked(&r, 1, 3));
	CHECK_EQ(libvhost_dev_stop_queue(r.dev, 1, 0), 0);
	fake_arm(&r.f);
	r.f.refuse_at = 5; /* NUM, BASE, ADDR, ERR, CALL, KICK, ENABLE: the kick */
	CHECK_EQ(libvhost_dev_start_queue(r.dev, 1, 0), -EIO);
	fake_arm(&r.f);
	r.f.refuse_at = 6;
	CHECK_EQ(libvhost_dev_start_queue(r.dev, 1, 0), -EIO);
	CHECK_EQ(fake_count(&r.f, OP(GET_VRING_BASE)), 1);
	CHECK_EQ(devrig_state(&r), LIBVHOST_DEV_RUNNING);
	CHECK_EQ(libvhost_dev_get_queue(r.dev, 1, &q), 0);
	CHECK_EQ(q.base, 4);
	devrig_close(&r);
}

/* A stop that failed half-way and its repetition: what the first one learned is an index that counts them, too. */
TEST(device_inflight, a_repeated_stop_continues_at_the_used_index)
{
	struct libvhost_queue q = {.size = sizeof(q)};
	struct devrig r;

	inflight_rig_ready(&r, LIBVHOST_DEV_STOP_INFLIGHT);
	CHECK_EQ(libvhost_dev_start(r.dev, NULL), 0);
	devrig_set_used(&r, 1, 4);
	r.f.base[1] = 9;
	fake_arm(&r.f);
	r.f.refuse_at = DEVRIG_QUEUES + 2; /* all are disabled, two have said where they stopped */
	CHECK(libvhost_dev_stop(r.dev, NULL) < 0);
	CHECK_EQ(devrig_state(&r), LIBVHOST_DEV_LOST);
	r.f.refuse_at = FAKE_NEVER;
	CHECK_EQ(libvhost_dev_stop(r.dev, NULL), 0);
	CHECK_EQ(libvhost_dev_get_queue(r.dev, 1, &q), 0);
	CHECK_EQ(q.base, 4);
	devrig_close(&r);
}

/* Specification, "When reconnecting": between used_idx and old_used_idx the ring's own descriptor decides. */
TEST(device_inflight, packed_rings_continue_where_the_region_says)
{
	struct lv_inflight_packed head = {.version = 1,
					  .desc_num = DEVRIG_NUM,
					  .used_idx = 5,
					  .old_used_idx = 5,
					  .used_wrap_counter = 1,
					  .old_used_wrap_counter = 1};
	const uint16_t available = 0x80, used = 0x8080;
	uint16_t *flags;
	uint32_t base = 1;
	struct devrig r;

	inflight_rig_packed(&r);
	CHECK(!lv_inflight_packed_base(r.dev, 1, &base));
	CHECK_EQ(libvhost_dev_start(r.dev, NULL), 0);
	CHECK(!lv_inflight_packed_base(r.dev, 1, &base)); /* never used: version 0 */
	inflight_write_packed(&r, 1, &head);
	CHECK(lv_inflight_packed_base(r.dev, 1, &base));
	CHECK_EQ(base, 0x80058005);
	flags = (uint16_t *)(void *)((uint8_t *)at(&r.g, devrig_queue(1).desc) + 16 * 5 + 14);
	head.used_idx = 3; /* around the end */
	head.used_wrap_counter = 0;
	inflight_write_packed(&r, 1, &head);
	*flags = available;
	CHECK(lv_inflight_packed_base(r.dev, 1, &base));
	CHECK_EQ(base, 0x80058005); /* not published: rolled back */
	*flags = used;
	CHECK(lv_inflight_packed_base(r.dev, 1, &base));
	CHECK_EQ(base, 0x00030003); /* published: committed */
	head.used_idx = DEVRIG_NUM;
	inflight_write_packed(&r, 1, &head);
	CHECK(!lv_inflight_packed_base(r.dev, 1, &base));
	head.used_idx = 3;
	head.used_wrap_counter = 7;
	inflight_write_packed(&r, 1, &head);
	CHECK(!lv_inflight_packed_base(r.dev, 1, &base));
	devrig_close(&r);
}
