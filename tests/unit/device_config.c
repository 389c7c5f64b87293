/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* Configuration space and its interrupt. */
#include "wirerig.h"

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

/* ---- the space, at a peer on a socket ---- */

struct space {
	struct wirerig w;
	/* the last write that the peer saw */
	struct libvhost_req_config wrote;
	uint8_t bytes[PUPPET_CONFIG];
	/* what it answers instead of the truth: head and length of a GET_CONFIG reply */
	bool lies;
	uint8_t resized; /* by the second session */
	uint32_t head[3], len;
};

static bool space_message(struct puppet *p, const struct libvhost_req *req, const struct lv_user_msg *msg)
{
	struct space *s = p->arg;
	uint8_t payload[12 + 512] = {0};

	if (req->op == OP(SET_OWNER) && atomic_load(&p->sessions) == 2) {
		p->config[59] ^= s->resized;
		p->config[60] ^= 1; /* nobody has asked for this one */
	}
	if (req->op == OP(SET_CONFIG)) {
		s->wrote = req->arg.config;
		memcpy(s->bytes, (const void *)(uintptr_t)req->data_in, req->arg.config.size);
	}
	if (req->op != OP(GET_CONFIG) || !s->lies)
		return false;
	memcpy(payload, s->head, sizeof(s->head));
	puppet_send(p->sock, msg->hdr.request, LV_USER_VERSION | LV_USER_F_REPLY, s->len, payload, s->len, NULL, 0);
	return true;
}

static void space_open(struct space *s)
{
	memset(s, 0, sizeof(*s));
	wirerig_init(&s->w);
	s->w.p.on_message = space_message;
	s->w.p.arg = s;
	wirerig_start(&s->w);
}

TEST(device_config, every_offset_and_size_up_to_256)
{
	uint8_t buf[257];
	struct space s;

	space_open(&s);
	for (uint32_t offset = 0; offset < 256; offset += 5)
		for (uint32_t len = 1; len <= 256 - offset; len += offset ? 37 : 1) {
			memset(buf, 0xee, sizeof(buf));
			CHECK_EQ(libvhost_dev_get_config(s.w.r.dev, offset, buf, len, 0), 0);
			for (uint32_t i = 0; i < len; i++)
				CHECK_EQ(buf[i], offset + i);
			CHECK_EQ(buf[len], 0xee);
		}
	wirerig_close(&s.w);
}

TEST(device_config, writes_of_the_guest_and_of_a_migration)
{
	const uint8_t bytes[4] = {9, 8, 7, 6};
	uint8_t all[256];
	struct space s;

	memset(all, 0x3c, sizeof(all));
	space_open(&s);
	CHECK_EQ(libvhost_dev_set_config(s.w.r.dev, 17, bytes, 4, 0, 0), 0);
	CHECK_EQ(s.wrote.offset, 17);
	CHECK_EQ(s.wrote.size, 4);
	CHECK_EQ(s.wrote.flags, 0);
	CHECK_MEM(s.bytes, bytes, 4);
	CHECK_EQ(libvhost_dev_set_config(s.w.r.dev, 0, all, 256, 1, 0), 0);
	CHECK_EQ(s.wrote.flags, 1);
	CHECK_EQ(s.wrote.size, 256);
	CHECK_MEM(s.bytes, all, 256);
	CHECK_EQ(libvhost_dev_get_config(s.w.r.dev, 17, all, 4, 0), 0);
	CHECK_EQ(all[0], 0x3c);
	CHECK_EQ(libvhost_dev_set_config(s.w.r.dev, 0, all, 257, 1, 0), -EINVAL);
	CHECK_EQ(libvhost_dev_set_config(s.w.r.dev, 0, all, 4, 2, 0), -EINVAL);
	CHECK_EQ(libvhost_dev_set_config(s.w.r.dev, 4095, all, 2, 0, 0), -EINVAL);
	puppet_fault(&s.w.p, (struct puppet_fault){.op = OP(SET_CONFIG), .what = PUPPET_REFUSE});
	CHECK_EQ(libvhost_dev_set_config(s.w.r.dev, 0, all, 4, 0, 0), -EIO);
	CHECK_EQ(devrig_error(&s.w.r).op, OP(SET_CONFIG));
	CHECK_EQ(devrig_state(&s.w.r), LIBVHOST_DEV_RUNNING);
	wirerig_close(&s.w);
}

/* An empty answer is how a back-end says no (R161); some send the head with size 0. The device goes on. */
TEST(device_config, refusals_leave_the_buffer_alone)
{
	static const uint32_t lens[] = {0, 12};

	for (unsigned i = 0; i < 2; i++) {
		uint8_t buf[32], same[32];
		struct space s;

		memset(buf, 0xee, sizeof(buf));
		memset(same, 0xee, sizeof(same));
		space_open(&s);
		s.len = lens[i];
		s.lies = true;
		CHECK_EQ(libvhost_dev_get_config(s.w.r.dev, 0, buf, 32, 0), -EIO);
		CHECK_EQ(devrig_error(&s.w.r).kind, LIBVHOST_EK_REFUSED);
		CHECK_MEM(buf, same, sizeof(buf));
		CHECK_EQ(devrig_state(&s.w.r), LIBVHOST_DEV_RUNNING);
		s.lies = false;
		CHECK_EQ(libvhost_dev_get_config(s.w.r.dev, 0, buf, 32, 0), 0);
		CHECK_EQ(buf[31], 31);
		wirerig_close(&s.w);
	}
}

/* Siblings of R161 through the device: nothing is copied, and the connection that cannot be trusted is closed. */
TEST(device_config, r161_lies_leave_the_buffer_alone)
{
	static const struct {
		uint32_t head[3], len;
	} lies[] = {
		{{8, 31, 0}, 12 + 31}, /* short */
		{{8, 33, 0}, 12 + 33}, /* long */
		{{8, 32, 0}, 12 + 31}, /* cut */
		{{8, 32, 0}, 12 + 33}, /* padded */
		{{7, 32, 0}, 12 + 32}, /* another offset */
		{{UINT32_MAX, 32, 0}, 12 + 32}, {{8, UINT32_MAX, 0}, 12 + 32},
		{{8, 257, 0}, 12 + 257},	{{8, 32, 0}, 11},
	};

	for (unsigned i = 0; i < sizeof(lies) / sizeof(lies[0]); i++) {
		uint8_t buf[32], same[32];
		struct space s;

		memset(buf, 0xee, sizeof(buf));
		memset(same, 0xee, sizeof(same));
		space_open(&s);
		memcpy(s.head, lies[i].head, sizeof(s.head));
		s.len = lies[i].len;
		s.lies = true;
		CHECK_EQ(libvhost_dev_get_config(s.w.r.dev, 8, buf, 32, 0), -EPROTO);
		CHECK_EQ(devrig_error(&s.w.r).op, OP(GET_CONFIG));
		CHECK_MEM(buf, same, sizeof(buf));
		CHECK_EQ(devrig_state(&s.w.r), LIBVHOST_DEV_DISCONNECTED);
		s.lies = false;
		CHECK_EQ(libvhost_dev_reconnect(s.w.r.dev, NULL), 0);
		CHECK_EQ(libvhost_dev_get_config(s.w.r.dev, 8, buf, 32, 0), 0);
		CHECK_EQ(buf[0], 8);
		wirerig_close(&s.w);
	}
}

TEST(device_config, changes_coalesce_into_one_event_and_one_interrupt)
{
	struct space s;
	int mine;

	space_open(&s);
	mine = lv_eventfd();
	CHECK_EQ(libvhost_dev_set_config_call(s.w.r.dev, mine), 0);
	for (int i = 0; i < 500; i++)
		CHECK_EQ(wirerig_ask(&s.w, ASK_CONFIG_CHANGE, NULL, 0, -1, NULL), 0);
	CHECK_EQ(devrig_events(&s.w.r, LIBVHOST_EVENT_CONFIG_CHANGE, NULL), 1);
	CHECK_EQ(lv_eventfd_drain(mine), 1);
	CHECK_EQ(lv_eventfd_drain(mine), 0);
	lv_fd_close(mine);
	wirerig_close(&s.w);
}

/* A disk that was resized while its back-end was away: nobody sent a change, the replay finds it. */
TEST(device_config, a_space_that_changed_while_the_peer_was_away)
{
	struct libvhost_event e;
	uint8_t buf[60];
	struct space s;
	int mine;

	for (int changed = 0; changed < 2; changed++) {
		const struct libvhost_call_opts patient = {.size = sizeof(patient), .timeout_ms = PATIENCE_MS};

		space_open(&s);
		s.resized = (uint8_t)changed;
		mine = lv_eventfd();
		CHECK_EQ(libvhost_dev_set_config_call(s.w.r.dev, mine), 0);
		CHECK_EQ(libvhost_dev_get_config(s.w.r.dev, 0, buf, 60, 0), 0);
		puppet_kill(&s.w.p);
		CHECK(devrig_await(&s.w.r, LIBVHOST_EVENT_DISCONNECTED, PATIENCE_MS, &e));
		CHECK_EQ(libvhost_dev_reconnect(s.w.r.dev, &patient), 0);
		CHECK_EQ(devrig_events(&s.w.r, LIBVHOST_EVENT_CONFIG_CHANGE, NULL), (uint32_t)changed);
		CHECK_EQ(lv_eventfd_drain(mine), changed);
		lv_fd_close(mine);
		wirerig_close(&s.w);
	}
}
