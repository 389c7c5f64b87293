/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* Refusals and deaths at every request of every operation: the state that is documented, and nothing left over. */
#include "devrig.h"

#include "core/wire.h"

#define OP(name) LIBVHOST_OP_##name

static void arm(struct devrig *r, uint32_t at, bool die)
{
	fake_arm(&r->f);
	r->f.refuse_at = die ? FAKE_NEVER : at;
	r->f.die_at = die ? at : FAKE_NEVER;
}

static void disarm(struct devrig *r)
{
	r->f.refuse_at = r->f.die_at = FAKE_NEVER;
}

/* Requests that a fault was planted at before the operation went through. */
static uint32_t sweep_init(bool die)
{
	for (uint32_t i = 0;; i++) {
		struct libvhost_error e = {.size = sizeof(e)};
		struct devrig r;
		int rc;

		devrig_init(&r);
		arm(&r, i, die);
		rc = devrig_open(&r);
		CHECK(r.f.zero_fds == 0);
		if (rc) {
			CHECK_EQ(rc, die ? -ECONNRESET : -EIO);
			CHECK_EQ(libvhost_ctx_error(r.g.ctx, &e), 0);
			CHECK_EQ(e.code, rc);
			CHECK(r.f.destroyed);
		}
		devrig_close(&r);
		if (!rc)
			return i;
	}
}

TEST(device_fault, init_refused_or_dead_at_each_request)
{
	CHECK(sweep_init(false) >= 5);
	CHECK(sweep_init(true) >= 5);
}

static void same_queue(struct devrig *r, uint32_t index, const struct libvhost_queue *was)
{
	struct libvhost_queue q = {.size = sizeof(q)};

	CHECK_EQ(libvhost_dev_get_queue(r->dev, index, &q), 0);
	CHECK_EQ(q.base, was->base);
	CHECK_EQ(q.desc, was->desc);
	CHECK_EQ(q.kick_fd, was->kick_fd);
	CHECK_EQ(q.call_fd, was->call_fd);
}

/* The refused start is taken back; then the device starts. */
static bool refused_start(uint32_t at)
{
	struct libvhost_queue was = {.size = sizeof(was)};
	struct devrig r;
	int rc;

	devrig_ready(&r);
	CHECK_EQ(libvhost_dev_get_queue(r.dev, 3, &was), 0);
	arm(&r, at, false);
	rc = libvhost_dev_start(r.dev, NULL);
	disarm(&r);
	if (rc) {
		const uint32_t kicks = fake_count(&r.f, OP(SET_VRING_KICK));
		const bool slot = r.f.seen[at] == OP(ADD_MEM_REG);

		CHECK_EQ(rc, -EIO);
		CHECK_EQ(devrig_error(&r).kind, LIBVHOST_EK_REFUSED);
		CHECK_EQ(devrig_error(&r).op, r.f.seen[at]);
		/* half a set of memory slots cannot be repaired without a new connection */
		CHECK_EQ(devrig_state(&r), slot ? LIBVHOST_DEV_LOST : LIBVHOST_DEV_NEGOTIATED);
		CHECK_EQ(fake_count(&r.f, OP(GET_VRING_BASE)),
			 kicks && r.f.seen[at] == OP(SET_VRING_KICK) ? kicks - 1 : kicks);
		same_queue(&r, 3, &was);
		CHECK_EQ(devrig_events(&r, LIBVHOST_EVENT_LOST, NULL), slot);
		if (slot)
			CHECK_EQ(libvhost_dev_reconnect(r.dev, NULL), 0);
		CHECK_EQ(libvhost_dev_start(r.dev, NULL), 0);
	}
	devrig_close(&r);
	return rc;
}

TEST(device_fault, start_refused_at_each_request_is_taken_back)
{
	uint32_t i = 0;

	while (refused_start(i))
		i++;
	CHECK(i >= 2 + 5 * 4 + 4);
}

static bool dying(uint32_t at, bool stop)
{
	struct libvhost_event e = {0};
	struct devrig r;
	int rc;

	devrig_ready(&r);
	if (stop)
		CHECK_EQ(libvhost_dev_start(r.dev, NULL), 0);
	devrig_set_used(&r, 1, 3);
	arm(&r, at, true);
	rc = stop ? libvhost_dev_stop(r.dev, NULL) : libvhost_dev_start(r.dev, NULL);
	disarm(&r);
	if (rc) {
		CHECK_EQ(rc, -ECONNRESET);
		CHECK_EQ(devrig_state(&r), LIBVHOST_DEV_DISCONNECTED);
		CHECK_EQ(devrig_events(&r, LIBVHOST_EVENT_DISCONNECTED, &e), 1);
		CHECK_EQ(e.err, -ECONNRESET);
		CHECK_EQ(libvhost_dev_start(r.dev, NULL), -ENOTCONN);
		CHECK_EQ(libvhost_dev_dispatch(r.dev, 0), 0);
		CHECK_EQ(devrig_events(&r, LIBVHOST_EVENT_DISCONNECTED, &e), 0);
		CHECK_EQ(libvhost_dev_reconnect(r.dev, NULL), 0);
		CHECK_EQ(devrig_state(&r), stop ? LIBVHOST_DEV_RUNNING : LIBVHOST_DEV_NEGOTIATED);
	}
	devrig_close(&r);
	return rc;
}

TEST(device_fault, death_at_each_request_of_start_and_stop)
{
	uint32_t i = 0;

	while (dying(i, false))
		i++;
	CHECK(i >= 2 + 5 * 4 + 4);
	for (i = 0; dying(i, true);)
		i++;
	CHECK_EQ(i, 8); /* disable and base of four queues */
}

/* Bases that were read are kept; the device is lost; a second stop asks only for the rest. */
static bool refused_stop(uint32_t at)
{
	struct libvhost_queue q = {.size = sizeof(q)};
	struct devrig r;
	int rc;

	devrig_ready(&r);
	CHECK_EQ(libvhost_dev_start(r.dev, NULL), 0);
	for (uint32_t i = 0; i < 4; i++)
		r.f.base[i] = 100 + i;
	arm(&r, at, false);
	rc = libvhost_dev_stop(r.dev, NULL);
	disarm(&r);
	if (rc) {
		const uint32_t got = at > 4 ? at - 4 : 0;

		CHECK_EQ(devrig_state(&r), LIBVHOST_DEV_LOST);
		CHECK_EQ(devrig_events(&r, LIBVHOST_EVENT_LOST, NULL), 1);
		for (uint32_t i = 0; i < 4; i++) {
			CHECK_EQ(libvhost_dev_get_queue(r.dev, i, &q), 0);
			CHECK_EQ(q.base, i < got ? 100 + i : 0);
		}
		fake_arm(&r.f);
		CHECK_EQ(libvhost_dev_stop(r.dev, NULL), 0);
		CHECK_EQ(fake_count(&r.f, OP(GET_VRING_BASE)), 4 - got);
		CHECK_EQ(devrig_state(&r), LIBVHOST_DEV_NEGOTIATED);
	}
	devrig_close(&r);
	return rc;
}

TEST(device_fault, stop_refused_at_each_request)
{
	uint32_t i = 0;

	while (refused_stop(i))
		i++;
	CHECK_EQ(i, 8);
}

TEST(device_fault, a_lost_device_that_does_not_stop_is_closed)
{
	struct devrig r;

	devrig_ready(&r);
	CHECK_EQ(libvhost_dev_start(r.dev, NULL), 0);
	devrig_set_used(&r, 0, 6);
	arm(&r, 4, false);
	CHECK_EQ(libvhost_dev_stop(r.dev, NULL), -EIO);
	arm(&r, 4, false);
	CHECK_EQ(libvhost_dev_stop(r.dev, NULL), -EIO);
	CHECK_EQ(devrig_state(&r), LIBVHOST_DEV_DISCONNECTED);
	CHECK_EQ(r.f.closes, 1);
	devrig_close(&r);
}

TEST(device_fault, an_undo_that_fails_makes_the_device_lost)
{
	struct devrig r;
	uint32_t first_enable;

	devrig_ready(&r);
	fake_arm(&r.f);
	CHECK_EQ(libvhost_dev_start(r.dev, NULL), 0);
	first_enable = fake_first(&r.f, OP(SET_VRING_ENABLE));
	CHECK_EQ(libvhost_dev_stop(r.dev, NULL), 0);
	/* the memory is there already now, so start is one request shorter */
	arm(&r, first_enable - 1, false);
	r.f.stall_op = OP(GET_VRING_BASE);
	CHECK_EQ(libvhost_dev_start(r.dev, &(struct libvhost_call_opts){.size = sizeof(struct libvhost_call_opts),
									.timeout_ms = 100}),
		 -EIO);
	r.f.stall_op = 0;
	disarm(&r);
	CHECK_EQ(devrig_error(&r).op, OP(SET_VRING_ENABLE)); /* what went wrong first */
	CHECK_EQ(devrig_state(&r), LIBVHOST_DEV_LOST);
	CHECK_EQ(libvhost_dev_stop(r.dev, NULL), 0);
	CHECK_EQ(libvhost_dev_start(r.dev, NULL), 0);
	devrig_close(&r);
}

TEST(device_fault, refused_requests_while_running_change_nothing)
{
	struct libvhost_queue was = {.size = sizeof(was)};
	struct devrig r;
	int fd;

	devrig_ready(&r);
	fd = lv_eventfd();
	CHECK_EQ(libvhost_dev_start(r.dev, NULL), 0);
	CHECK_EQ(libvhost_dev_get_queue(r.dev, 1, &was), 0);
	arm(&r, 0, false);
	CHECK_EQ(libvhost_dev_set_call(r.dev, 1, fd), -EIO);
	fake_arm(&r.f);
	CHECK_EQ(libvhost_dev_set_kick(r.dev, 1, fd), -EIO);
	fake_arm(&r.f);
	CHECK_EQ(libvhost_virtqueue_mask(r.dev, 1, 1), -EIO);
	same_queue(&r, 1, &was);
	CHECK_EQ(devrig_state(&r), LIBVHOST_DEV_RUNNING);
	disarm(&r);
	CHECK_EQ(libvhost_virtqueue_mask(r.dev, 1, 1), 0);
	lv_fd_close(fd);
	devrig_close(&r);
}
