/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* A managed device whose back-end asks back: calls of the library from inside its callbacks, and after them. */
#include "wirerig.h"

#define OP(name) LIBVHOST_OP_##name

struct inside {
	struct wirerig w;
	uint32_t asked, other;
};

/* Everything that would change the device is refused, cleanup has no effect, what only looks works. */
static int call_everything(void *arg, struct libvhost_req *req)
{
	struct libvhost_dev_info info = {.size = sizeof(info)};
	struct libvhost_queue q = devrig_queue(3);
	struct inside *i = arg;
	struct libvhost_dev *dev = i->w.r.dev;
	uint64_t features = 0;
	uint8_t byte = 0;
	const int rcs[] = {
		libvhost_dev_get_config(dev, 0, &byte, 1, 100),
		libvhost_dev_set_config(dev, 0, &byte, 1, 0, 100),
		libvhost_dev_start(dev, NULL),
		libvhost_dev_stop(dev, NULL),
		libvhost_dev_force_stop(dev),
		libvhost_dev_reset(dev, NULL),
		libvhost_dev_reconnect(dev, NULL),
		libvhost_dev_set_queue(dev, 3, &q),
		libvhost_dev_clear_queue(dev, 3),
		libvhost_dev_set_call(dev, 3, -1),
		libvhost_dev_dispatch(dev, 0),
		libvhost_virtqueue_mask(dev, 3, 1),
		libvhost_ack_features_ex(dev, &features, 1),
	};

	for (unsigned n = 0; n < sizeof(rcs) / sizeof(rcs[0]); n++)
		if (rcs[n] != -EBUSY)
			i->other |= 1u << n; /* a CHECK would leave through the library */
	libvhost_dev_cleanup(dev);
	if (libvhost_dev_info(dev, &info))
		i->other |= 1u << 31;
	i->asked++;
	if (req->op != OP(BACKEND_SHARED_OBJECT_LOOKUP))
		return -ENOTSUP;
	req->out_fd = memfd_create("object", MFD_CLOEXEC);
	req->out_flags = LIBVHOST_REQ_OUT_FD;
	return 0;
}

/* The peer asks while it owes the answer to op, and answers only then. */
static bool ask_back(struct puppet *p, const struct libvhost_req *req, const struct lv_user_msg *msg)
{
	static const uint8_t uuid[16] = {1};
	struct lv_user_hdr hdr;
	uint64_t value = 1;

	(void)msg;
	if (req->op != OP(GET_CONFIG) && req->op != OP(SET_VRING_ENABLE) && req->op != OP(GET_VRING_BASE))
		return false;
	puppet_send(p->channel, ASK_OBJECT_LOOKUP, WIRE_ASK, sizeof(uuid), uuid, sizeof(uuid), NULL, 0);
	puppet_recv(p->channel, PATIENCE_MS, &hdr, &value, sizeof(value), NULL);
	return false;
}

TEST(hostile_device, r175_calls_from_a_callback_are_refused_and_the_device_goes_on)
{
	struct libvhost_queue q = {.size = sizeof(q)};
	struct inside *i = calloc(1, sizeof(*i));

	CHECK(i);
	wirerig_init(&i->w);
	i->w.ops.on_request = call_everything;
	i->w.ops.arg = i;
	i->w.p.on_message = ask_back;
	wirerig_open(&i->w);
	CHECK_EQ(libvhost_dev_start(i->w.r.dev, NULL), 0);
	CHECK_EQ(i->asked, DEVRIG_QUEUES);
	CHECK_EQ(wirerig_read_config(&i->w, 0), 0);
	CHECK_EQ(i->asked, DEVRIG_QUEUES + 1);
	puppet_send(i->w.p.channel, ASK_OBJECT_LOOKUP, WIRE_ASK, 16, (uint8_t[16]){2}, 16, NULL, 0);
	for (int n = 0; n < PATIENCE_MS / 10 && i->asked == DEVRIG_QUEUES + 1; n++)
		CHECK_EQ(libvhost_dev_dispatch(i->w.r.dev, 10), 0); /* no operation runs: the same */
	CHECK_EQ(i->asked, DEVRIG_QUEUES + 2);
	CHECK_EQ(i->other, 0);
	CHECK_EQ(devrig_state(&i->w.r), LIBVHOST_DEV_RUNNING);
	CHECK_EQ(libvhost_dev_get_queue(i->w.r.dev, 3, &q), 0);
	CHECK_EQ(q.masked, 0);
	CHECK_EQ(libvhost_dev_stop(i->w.r.dev, NULL), 0);
	CHECK_EQ(i->other, 0);
	wirerig_close(&i->w);
	free(i);
}

/* After the event everything is allowed, the end of the device included. */
TEST(hostile_device, r175_a_configuration_change_is_handled_outside)
{
	struct libvhost_event e;
	struct wirerig w;

	wirerig_init(&w);
	wirerig_start(&w);
	puppet_send(w.p.channel, ASK_CONFIG_CHANGE, WIRE_ASK, 0, NULL, 0, NULL, 0);
	CHECK(devrig_await(&w.r, LIBVHOST_EVENT_CONFIG_CHANGE, PATIENCE_MS, &e));
	CHECK_EQ(wirerig_read_config(&w, 0), 0);
	CHECK_EQ(libvhost_dev_stop(w.r.dev, NULL), 0);
	wirerig_close(&w);
}
