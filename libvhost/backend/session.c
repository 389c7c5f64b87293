/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* What a front-end may ask for: one handler per operation. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "backend/device.h"
#include "vring/vring.h"

#define F_PROTOCOL_FEATURES (1ull << 30)
#define STATUS_FEATURES_OK  8u

int lv_session_open(struct lv_session *s)
{
	struct libvhost_backend *b = s->b;
	struct libvhost_mem_opts opts = {.size = sizeof(opts)};
	int rc;

	if (b->opts.flags & LIBVHOST_BACKEND_REQUIRE_SEALS)
		opts.flags = LIBVHOST_MEM_REQUIRE_SEALS;
	rc = libvhost_mem_new(b->ctx, &opts, &s->mem);
	if (rc == 0)
		rc = lv_rings_new(s);
	if (rc < 0) {
		libvhost_mem_free(s->mem);
		s->mem = NULL;
		return rc;
	}
	s->wire = (struct lv_user_session){.f30_offered = true};
	s->features = 0;
	s->features_set = s->config_changed = false;
	s->status = 0;
	s->num_repeats = 0;
	s->open = true;
	lv_backend_event(b, LIBVHOST_EVENT_CONNECTED, LIBVHOST_NONE, 0, "a front-end connected");
	return 0;
}

static void tell_reset(const struct lv_session *s, uint32_t cause)
{
	const struct libvhost_backend *b = s->b;

	if (b->ops.reset && !b->ops.on_request)
		b->ops.reset(b->opts.arg, cause);
}

/* Everything but the connection and the memory map back to the beginning. 0 or -ETIMEDOUT. */
static int start_over(struct lv_session *s)
{
	const int rc = lv_rings_drain_and_stop(s, s->until, lv_ring_reset);

	if (rc < 0)
		return rc;
	lv_session_drop_inflight(s);
	lv_session_drop_log(s);
	lv_state_drop(s);
	s->features = 0;
	s->features_set = s->wire.f30_acked = false;
	s->status = 0;
	tell_reset(s, LIBVHOST_RESET_DEVICE);
	return 0;
}

static int get_features(struct lv_session *s, struct libvhost_req *req)
{
	req->result[0] = s->b->features;
	return 0;
}

static int refuse_features(struct lv_session *s, uint64_t surplus)
{
	const uint32_t bit = (uint32_t)__builtin_ctzll(surplus);
	const char *name = libvhost_feature_name(s->b->opts.virtio_id, bit);

	snprintf(s->why, sizeof(s->why), "%s (bit %u) was not offered", name ? name : "a feature", bit);
	return -EINVAL;
}

/*
 * Bit 30 decides whether rings wait for SET_VRING_ENABLE, so it cannot change under a ring that runs either; only the
 * dirty log comes and goes.
 */
static int set_features(struct lv_session *s, struct libvhost_req *req)
{
	const uint64_t features = req->arg.u64, changed = s->features_set ? features ^ s->features : 0;
	int rc = 0;

	if (features & ~s->b->features)
		return refuse_features(s, features & ~s->b->features);
	/* virtio 1.3, 6: bits above 31 belong to devices that are not legacy; a packed ring has no other form */
	if (features & LV_F_RING_PACKED && !(features & LV_F_VERSION_1))
		return lv_fail(&s->b->err, -EINVAL, LIBVHOST_EK_PROTOCOL,
			       "back-end: SET_FEATURES: RING_PACKED (bit 34) without VERSION_1 (bit 32); accept both");
	for (uint32_t q = 0; changed & ~LV_F_LOG_ALL && q < s->b->opts.num_queues; q++)
		if (s->rings[q].vq)
			return -EBUSY;
	if (changed & LV_F_LOG_ALL)
		rc = lv_rings_pause(s);
	if (rc == 0) {
		s->features = features;
		s->features_set = true;
		s->wire.f30_acked = features & F_PROTOCOL_FEATURES;
	}
	if (rc == 0 && changed & LV_F_LOG_ALL)
		lv_session_apply_log(s);
	lv_rings_update(s);
	return rc;
}

static int get_protocol_features(struct lv_session *s, struct libvhost_req *req)
{
	req->result[0] = s->b->protocol_features;
	return 0;
}

/* Bit 20 means nothing without a region, and the specification forbids it. */
static int set_protocol_features(struct lv_session *s, struct libvhost_req *req)
{
	const uint64_t bits = req->arg.u64;

	if (bits & ~s->b->protocol_features || (bits >> LIBVHOST_PROTOCOL_F_GET_VRING_BASE_INFLIGHT & 1 &&
						!(bits >> LIBVHOST_PROTOCOL_F_INFLIGHT_SHMFD & 1)))
		return -EINVAL;
	s->wire.protocol_features = req->arg.u64;
	return 0;
}

static int set_owner(struct lv_session *s, struct libvhost_req *req)
{
	(void)s;
	(void)req;
	return 0; /* one front-end per connection owns by being connected */
}

static int reset(struct lv_session *s, struct libvhost_req *req)
{
	(void)req;
	return start_over(s);
}

/* Queues, as the specification says, also of a network card: rust-vmm's front-end and blkio enable none beyond the
 * answer. QEMU takes it for pairs; when it wants more of them than there are, it hears so at the first ring. */
static int get_queue_num(struct lv_session *s, struct libvhost_req *req)
{
	req->result[0] = s->b->opts.num_queues;
	return 0;
}

static int get_slots(struct lv_session *s, struct libvhost_req *req)
{
	req->result[0] = s->b->opts.max_regions;
	return 0;
}

/* Front-ends ask for the whole structure of the device type; what the device does not have reads as zero. */
static int get_config(struct lv_session *s, struct libvhost_req *req)
{
	struct libvhost_backend *b = s->b;
	const struct libvhost_req_config *c = &req->arg.config;
	uint8_t *to = (void *)(uintptr_t)req->data_out;
	uint32_t have = c->offset < b->opts.config_len ? b->opts.config_len - c->offset : 0;

	if (c->offset > LV_BACKEND_CONFIG || c->size > LV_BACKEND_CONFIG - c->offset || c->size > req->data_out_cap)
		return -EINVAL;
	memset(to, 0, c->size);
	if (b->ops.get_config) {
		int rc = b->ops.get_config(b->opts.arg, c->offset, to, c->size);

		if (rc)
			return rc < 0 ? rc : -EIO;
	} else {
		memcpy(to, b->config + (have ? c->offset : 0), have < c->size ? have : c->size);
	}
	req->data_out_len = c->size;
	return 0;
}

static int set_config(struct lv_session *s, struct libvhost_req *req)
{
	struct libvhost_backend *b = s->b;
	const struct libvhost_req_config *c = &req->arg.config;
	int rc;

	if (!b->ops.set_config)
		return -EPERM;
	if (c->offset > LV_BACKEND_CONFIG || c->size > LV_BACKEND_CONFIG - c->offset)
		return -EINVAL;
	rc = b->ops.set_config(b->opts.arg, c->offset, (const void *)(uintptr_t)req->data_in, c->size, c->flags);
	return rc > 0 ? -EIO : rc;
}

static void disable(struct lv_ring *ring)
{
	ring->enabled = false;
}

/*
 * Status 0 stops the rings and forgets nothing else. QEMU 7.2 writes it first whenever a device stops, also for a guest
 * that is only paused or migrated: SET_VRING_ENABLE 0 and GET_VRING_BASE come after it and mean the state before. What
 * a driver has to negotiate again after a reset, the front-end sends before rings run again.
 */
static int clear_status(struct lv_session *s)
{
	const int rc = lv_rings_drain_and_stop(s, s->until, disable);

	if (rc < 0)
		return rc;
	s->status = 0;
	tell_reset(s, LIBVHOST_RESET_STATUS);
	return 0;
}

/* FEATURES_OK does not stick before features were set (virtio 1.3, 3.1.1). */
static int set_status(struct lv_session *s, struct libvhost_req *req)
{
	uint32_t status = (uint32_t)req->arg.u64;

	if (!status)
		return clear_status(s);
	s->status = s->features_set ? status : status & ~STATUS_FEATURES_OK;
	return 0;
}

static int get_status(struct lv_session *s, struct libvhost_req *req)
{
	req->result[0] = s->status;
	return 0;
}

typedef int (*handler_fn)(struct lv_session *s, struct libvhost_req *req);

static const handler_fn handlers[] = {
	[LIBVHOST_OP_GET_FEATURES] = get_features,
	[LIBVHOST_OP_SET_FEATURES] = set_features,
	[LIBVHOST_OP_SET_OWNER] = set_owner,
	[LIBVHOST_OP_RESET_OWNER] = reset,
	[LIBVHOST_OP_SET_MEM_TABLE] = lv_session_set_table,
	[LIBVHOST_OP_SET_LOG_BASE] = lv_session_set_log,
	[LIBVHOST_OP_SET_VRING_NUM] = lv_ring_set_num,
	[LIBVHOST_OP_SET_VRING_ADDR] = lv_ring_set_addr,
	[LIBVHOST_OP_SET_VRING_BASE] = lv_ring_set_base,
	[LIBVHOST_OP_GET_VRING_BASE] = lv_ring_get_base,
	[LIBVHOST_OP_SET_VRING_KICK] = lv_ring_set_kick,
	[LIBVHOST_OP_SET_VRING_CALL] = lv_ring_set_call,
	[LIBVHOST_OP_SET_VRING_ERR] = lv_ring_set_err,
	[LIBVHOST_OP_GET_PROTOCOL_FEATURES] = get_protocol_features,
	[LIBVHOST_OP_SET_PROTOCOL_FEATURES] = set_protocol_features,
	[LIBVHOST_OP_GET_QUEUE_NUM] = get_queue_num,
	[LIBVHOST_OP_SET_VRING_ENABLE] = lv_ring_enable,
	[LIBVHOST_OP_SET_BACKEND_REQ_FD] = lv_channel_set,
	[LIBVHOST_OP_GET_CONFIG] = get_config,
	[LIBVHOST_OP_SET_CONFIG] = set_config,
	[LIBVHOST_OP_GET_INFLIGHT_FD] = lv_session_get_inflight,
	[LIBVHOST_OP_SET_INFLIGHT_FD] = lv_session_set_inflight,
	[LIBVHOST_OP_RESET_DEVICE] = reset,
	[LIBVHOST_OP_GET_MAX_MEM_SLOTS] = get_slots,
	[LIBVHOST_OP_ADD_MEM_REG] = lv_session_add_region,
	[LIBVHOST_OP_REM_MEM_REG] = lv_session_rem_region,
	[LIBVHOST_OP_SET_STATUS] = set_status,
	[LIBVHOST_OP_GET_STATUS] = get_status,
	[LIBVHOST_OP_SET_DEVICE_STATE_FD] = lv_state_begin,
	[LIBVHOST_OP_CHECK_DEVICE_STATE] = lv_state_check,
};

bool lv_session_knows(uint32_t op)
{
	return op < sizeof(handlers) / sizeof(*handlers) && handlers[op];
}

/* A refusal without a text of its own. */
static int name_refusal(struct lv_session *s, const struct libvhost_req *req, int rc)
{
	if (rc == -ENOMEM || rc == -EMFILE || rc == -ENFILE || rc == -ENOSPC)
		return lv_fail_sys(&s->b->err, -rc, "back-end: %s: %s", libvhost_op_name(req->op), lv_errno_name(-rc));
	return lv_fail(&s->b->err, rc, LIBVHOST_EK_PROTOCOL, "back-end: %s refused: %s", libvhost_op_name(req->op),
		       lv_errno_name(-rc));
}

/*
 * What was agreed decides which messages may come. QEMU enables the rings of a network card before it has set any
 * features: until then what was offered counts.
 */
static int gate(const struct lv_session *s, uint32_t op)
{
	struct lv_user_session agreed = s->wire;
	const char *why = NULL;

	agreed.f30_acked |= agreed.f30_offered && !s->features_set;
	return lv_user_gate(lv_op(op), &agreed, &why);
}

int lv_session_handle(struct lv_session *s, struct libvhost_req *req)
{
	const uint32_t errors = lv_errslot_count(&s->b->err);
	int rc;

	s->until = lv_deadline(s->b->ctx, s->b->opts.timeout_ms);
	if (s->b->ops.on_request)
		return lv_bridge_handle(s, req);
	if (!lv_session_knows(req->op))
		return -ENOSYS;
	rc = gate(s, req->op);
	if (rc == 0)
		rc = handlers[req->op](s, req);
	return rc < 0 && rc != -EINPROGRESS && lv_errslot_count(&s->b->err) == errors ? name_refusal(s, req, rc) : rc;
}

bool lv_session_close(struct lv_session *s, uint32_t timeout_ms)
{
	const uint64_t deadline = lv_deadline(s->b->ctx, timeout_ms);
	bool clean = true;

	if (!s->mem)
		return true;
	s->open = false;
	lv_channel_close(s);
	lv_state_drop(s);
	for (uint32_t q = 0; q < s->b->opts.num_queues; q++) {
		if (lv_ring_stop(s, &s->rings[q], clean ? lv_backend_left_ms(s->b, deadline) : LV_LAST_WORD_MS) < 0)
			clean = false;
		else
			lv_ring_clear(&s->rings[q]);
	}
	if (!clean)
		return false;
	lv_session_drop_inflight(s);
	lv_session_drop_log(s);
	libvhost_mem_free(s->mem);
	s->mem = NULL;
	tell_reset(s, LIBVHOST_RESET_LEFT);
	return true;
}
