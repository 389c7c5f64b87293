/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* Configuration space and its interrupt. */
#include "devrig.h"

#include "core/wire.h"

#define OP(name) LIBVHOST_OP_##name

/* ---- the interrupt ---- */

static void change(struct devrig *r)
{
	struct libvhost_req req = {.op = OP(BACKEND_CONFIG_CHANGE)};

	CHECK_EQ(libvhost_transport_inbound(libvhost_dev_transport(r->dev, 0), &req), 0);
}

TEST(device_config, a_change_interrupts_the_guest)
{
	struct devrig r;
	int mine, other;

	devrig_ready(&r);
	mine = lv_eventfd();
	other = lv_eventfd();
	change(&r); /* nobody listens: the event only */
	CHECK_EQ(libvhost_dev_set_config_call(r.dev, mine), 0);
	CHECK_EQ(lv_eventfd_drain(mine), 0);
	change(&r);
	CHECK_EQ(lv_eventfd_drain(mine), 1);
	CHECK_EQ(libvhost_dev_set_config_call(r.dev, other), 0);
	change(&r);
	CHECK_EQ(lv_eventfd_drain(mine), 0);
	CHECK_EQ(lv_eventfd_drain(other), 1);
	CHECK_EQ(libvhost_dev_set_config_call(r.dev, 9999), -EBADF);
	change(&r);
	CHECK_EQ(lv_eventfd_drain(other), 1); /* the one before */
	CHECK_EQ(libvhost_dev_set_config_call(r.dev, -1), 0);
	change(&r);
	CHECK_EQ(lv_eventfd_drain(other), 0);
	CHECK_EQ(devrig_events(&r, LIBVHOST_EVENT_CONFIG_CHANGE, NULL), 1); /* of five */
	CHECK_EQ(libvhost_config_pending(r.dev), 0);
	lv_fd_close(mine);
	lv_fd_close(other);
	devrig_close(&r);
}

TEST(device_config, a_masked_change_is_remembered)
{
	struct devrig r;
	int mine;

	devrig_ready(&r);
	mine = lv_eventfd();
	CHECK_EQ(libvhost_dev_set_config_call(r.dev, mine), 0);
	CHECK_EQ(libvhost_config_mask(r.dev, 2), -EINVAL);
	CHECK_EQ(libvhost_config_mask(NULL, 0), -EINVAL);
	CHECK_EQ(libvhost_config_pending(NULL), -EINVAL);
	CHECK_EQ(libvhost_config_mask(r.dev, 1), 0);
	change(&r);
	change(&r);
	CHECK_EQ(lv_eventfd_drain(mine), 0);
	CHECK_EQ(devrig_events(&r, LIBVHOST_EVENT_CONFIG_CHANGE, NULL), 1); /* the host is told all the same */
	CHECK_EQ(libvhost_config_mask(r.dev, 0), 0);
	CHECK_EQ(libvhost_config_pending(r.dev), 1);
	CHECK_EQ(libvhost_config_pending(r.dev), 0);
	change(&r);
	CHECK_EQ(lv_eventfd_drain(mine), 1);
	CHECK_EQ(libvhost_config_pending(r.dev), 0);
	lv_fd_close(mine);
	devrig_close(&r);
}
