/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/*
 * Making a device of a blob. Nothing is sent for one that was frozen with its connection: what the peer knows is
 * compared with what is here, and either all of it agrees or the call fails, gives the descriptors back and leaves the
 * blob good for another attempt. A snapshot has no connection; it is replayed to a fresh peer as after a disconnect.
 */
#include "device/frozen.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "core/wire.h"
#include "memory/object.h"

#define HOST_FLAGS (LIBVHOST_DEV_AUTO_RECONNECT | LIBVHOST_DEV_WAIT)

static bool is_snapshot(const struct lv_thaw *t)
{
	return t->blob->flags & LIBVHOST_FREEZE_SNAPSHOT;
}

static int check_opts(struct lv_errslot *err, const struct libvhost_thaw_opts *o)
{
	const char *wrong = NULL;

	if (o->flags & ~LIBVHOST_THAW_START || o->dev_flags & ~HOST_FLAGS || o->reserved)
		wrong = "unknown flags or a reserved field that is not 0";
	else if (!o->blob || !o->mem)
		wrong = "blob and mem are required";
	else if (o->nfds && !o->fds)
		wrong = "nfds without fds";
	else if (o->timeout_ms > LV_TIMEOUT_MAX_MS)
		wrong = "timeout_ms is above 3600000";
	else if (o->blob_len > SIZE_MAX)
		wrong = "blob_len does not fit this machine";
	return wrong ? lv_fail(err, -EINVAL, LIBVHOST_EK_ARGUMENT, "thaw options: %s", wrong) : 0;
}

/* ---- the device ---- */

static int make_device(struct lv_thaw *t)
{
	struct lv_blob *b = t->blob;
	struct libvhost_dev_opts o = {.size = sizeof(o), .virtio_id = b->rec->virtio_id};
	struct libvhost_dev *dev;

	o.num_queues = b->rec->num_queues;
	o.flags = b->dev_flags | t->opts.dev_flags;
	o.timeout_ms = t->opts.timeout_ms;
	o.config_size = b->rec->config_size;
	o.mem = t->opts.mem;
	o.protocol_features = b->protocol_never;
	o.ack_policy = b->ack_policy;
	dev = lv_dev_new(t->ctx, &o);
	if (!dev)
		return lv_fail(&t->ctx->err, -ENOMEM, LIBVHOST_EK_NOMEM, "thaw: no memory for %u queues", o.num_queues);
	t->dev = dev;
	free(dev->rec);
	dev->rec = b->rec;
	b->rec = NULL;
	dev->ack_all_next = b->dev_bits & LV_BLOB_D_ACK_ALL;
	dev->config_irq.masked = b->dev_bits & LV_BLOB_D_CONFIG_MASKED;
	dev->config_irq.pending = b->dev_bits & LV_BLOB_D_CONFIG_PENDING;
	for (uint32_t i = 0; i < o.num_queues; i++)
		dev->err_ours[i] = b->queue_bits[i] & LV_BLOB_Q_ERR_OURS;
	if (dev->wake_fd < 0)
		return lv_fail_sys(&t->ctx->err, -dev->wake_fd, "thaw: the device's wake-up eventfd: %s",
				   lv_errno_name(-dev->wake_fd));
	return t->opts.ops ? LV_OPTS_READ(&t->ctx->err, &dev->ops, t->opts.ops) : 0;
}

static int bind_notifiers(struct lv_thaw *t)
{
	struct libvhost_dev *dev = t->dev;

	for (uint32_t i = 0; dev->ops.bind_notifier && i < dev->rec->num_queues; i++) {
		int r;

		if (!(t->blob->queue_bits[i] & LV_BLOB_Q_BOUND))
			continue;
		r = dev->ops.bind_notifier(dev->ops.arg, i, dev->fds[i].kick, 1);
		dev->bound[i] = !r;
		if (!r)
			continue;
		lv_notifiers_drop(dev);
		return lv_fail(&t->ctx->err, r < 0 ? r : -EIO, LIBVHOST_EK_REFUSED,
			       "thaw: bind_notifier refused queue %u with %d; all were taken back", i, r);
	}
	return 0;
}

static int from_device(struct lv_thaw *t, int r)
{
	return r ? lv_fail_copy(&t->ctx->err, &t->dev->err) : 0;
}

/* Whether it comes back by itself is the new host's decision, how it does was the old one's. */
static int take_policy(struct lv_thaw *t)
{
	const struct libvhost_reconnect_policy *p = &t->blob->policy;

	if (!p->size || p->mode == LIBVHOST_RECONNECT_NONE || !(t->opts.dev_flags & LIBVHOST_DEV_AUTO_RECONNECT))
		return 0;
	if (!lv_reconnect_possible(t->dev))
		return 0;
	return from_device(t, libvhost_dev_set_reconnect(t->dev, p));
}

/* The transport is the device's on success and gone on failure. */
static int take_part(struct lv_thaw *t, struct libvhost_transport *transport)
{
	int r = lv_dev_take_part(t->dev, transport, 0, t->dev->rec->num_queues);

	if (!r)
		return 0;
	if (!is_snapshot(t))
		lv_connection_let_go(transport, &t->blob->conn);
	libvhost_transport_free(transport);
	return from_device(t, r);
}

static int attach(struct lv_thaw *t)
{
	int r = lv_mem_attach(t->opts.mem, &lv_dev_mem_client, t->dev, &t->dev->mem_node);

	return r ? lv_fail_copy(&t->ctx->err, &t->opts.mem->err) : 0;
}

/* ---- the same connection ---- */

static int adopt_doorbells(struct lv_thaw *t)
{
	int r = 0;

	for (uint32_t i = 0; i < t->blob->nfds && !r; i++) {
		const uint32_t queue = t->blob->fds[i].index;

		if (t->blob->fds[i].kind != LV_BLOB_FD_DOORBELL)
			continue;
		r = lv_doorbell_adopt(t->dev, queue, t->opts.fds[i], t->blob->doorbell[queue]);
		if (r)
			lv_fail(&t->ctx->err, r, LIBVHOST_EK_ARGUMENT,
				"thaw: the doorbell of queue %u cannot be mapped from descriptor %d: %s", queue,
				t->opts.fds[i], lv_errno_name(-r));
	}
	return r;
}

static int adopt_objects(struct lv_thaw *t)
{
	struct lv_object_owner *owner = &t->dev->share.objects;
	int r = 0;

	owner->device = t->dev;
	t->dev->share.objects_mute = t->blob->dev_bits & LV_BLOB_D_OBJECTS_MUTE;
	for (uint32_t i = 0; i < t->blob->num_objects && !r; i++)
		r = lv_objects_add(&t->ctx->objects, t->blob->objects[i], -1, owner);
	return r ? lv_fail(&t->ctx->err, r, LIBVHOST_EK_STATE,
			   "thaw: a shared object of the back-end cannot be entered in this context's table: %s",
			   lv_errno_name(-r))
		 : 0;
}

static int settle(struct lv_thaw *t)
{
	struct libvhost_dev *dev = t->dev;
	int r = lv_thaw_match_memory(t);

	if (!r)
		r = lv_thaw_check_rings(t);
	if (!r)
		r = adopt_doorbells(t);
	if (!r)
		r = adopt_objects(t);
	if (!r)
		r = bind_notifiers(t);
	if (!r) {
		r = lv_thaw_adopt_log(t);
		if (r)
			lv_notifiers_drop(dev);
	}
	if (r)
		return r;
	lv_dev_table_limit(dev);
	lv_thaw_own_fds(t);
	lv_dev_set_state(dev, lv_dev_was_running(dev) ? LIBVHOST_DEV_RUNNING : LIBVHOST_DEV_NEGOTIATED);
	return 0;
}

/* Claimed before it is attached: no commit can come in between. */
static int go_on(struct lv_thaw *t)
{
	struct libvhost_transport *transport;
	int r;

	lv_thaw_put_fds(t);
	r = lv_connection_adopt(t->ctx, &t->blob->conn, t->opts.uri, t->blob->ack_policy, &transport);
	if (!r)
		r = take_part(t, transport);
	if (!r)
		r = take_policy(t);
	if (!r)
		r = from_device(t, lv_dev_claim(t->dev, LV_OP_INIT, LV_ANY_STATE, "thaw"));
	if (r)
		return r;
	r = attach(t);
	if (!r)
		r = settle(t);
	return lv_dev_release(t->dev, r);
}

/* Gives the descriptors back. */
static void give_up(struct lv_thaw *t)
{
	struct libvhost_dev *dev = t->dev;

	if (!dev)
		return;
	if (dev->mem_node)
		lv_mem_detach(dev->mem, dev->mem_node);
	if (!is_snapshot(t))
		lv_dev_let_go(dev, &t->blob->conn);
	lv_dev_free(dev);
}

/* ---- a fresh peer ---- */

static int make_fds(struct lv_thaw *t)
{
	int r = 0;

	for (uint32_t i = 0; i < t->dev->rec->num_queues && !r; i++) {
		const uint32_t flags = t->dev->rec->queue[i].flags;
		struct lv_queue_fds *fds = &t->dev->fds[i];

		t->dev->err_ours[i] = !(flags & LV_RQ_IN_BAND);
		if (flags & LV_RQ_SET && !(flags & LV_RQ_KICK_POLL))
			r = lv_queue_late_fd(t->dev, i, &fds->kick, "its kick eventfd");
		if (!r && flags & LV_RQ_SET && !(flags & LV_RQ_CALL_POLL))
			r = lv_queue_late_fd(t->dev, i, &fds->call, "its call eventfd");
	}
	return from_device(t, r);
}

static int replay(struct lv_thaw *t)
{
	const struct libvhost_call_opts call = {.size = sizeof(call), .timeout_ms = t->opts.timeout_ms};
	int r = from_device(t, libvhost_dev_reconnect(t->dev, &call));

	if (!r)
		r = bind_notifiers(t);
	if (!r && t->opts.flags & LIBVHOST_THAW_START)
		r = from_device(t, libvhost_dev_start(t->dev, &call));
	return r;
}

static int restore(struct lv_thaw *t)
{
	struct libvhost_transport_opts o = {.size = sizeof(o), .ack_policy = t->blob->ack_policy};
	struct libvhost_transport *transport;
	const char *uri = t->opts.uri ? t->opts.uri : t->blob->conn.uri;
	int r = lv_transport_open_later(t->ctx, uri, &o, &transport);

	if (r)
		return r;
	r = take_part(t, transport);
	if (!r)
		r = take_policy(t);
	if (!r)
		r = make_fds(t);
	if (!r && t->blob->inflight_len)
		r = from_device(t, lv_inflight_load(t->dev, t->blob->inflight, t->blob->inflight_len));
	if (!r)
		r = attach(t);
	if (r)
		return r;
	lv_dev_set_state(t->dev, LIBVHOST_DEV_DISCONNECTED);
	r = replay(t);
	if (r) {
		libvhost_dev_cleanup(t->dev);
		t->dev = NULL;
	}
	return r;
}

int libvhost_dev_thaw(struct libvhost_ctx *ctx, const struct libvhost_thaw_opts *opts, struct libvhost_dev **ret)
{
	struct lv_thaw t = {.ctx = ctx};
	int r;

	if (!ctx || !opts || !ret)
		return -EINVAL;
	r = LV_OPTS_READ(&ctx->err, &t.opts, opts);
	if (!r)
		r = check_opts(&ctx->err, &t.opts);
	if (!r)
		r = lv_blob_decode(&ctx->err, t.opts.blob, (size_t)t.opts.blob_len, &t.blob);
	if (r)
		return r;
	if (t.opts.flags & LIBVHOST_THAW_START && !is_snapshot(&t))
		r = lv_fail(&ctx->err, -EINVAL, LIBVHOST_EK_ARGUMENT,
			    "thaw: START is for snapshots; this device comes back as it was");
	if (!r)
		r = lv_thaw_check_fds(&t);
	if (!r)
		r = make_device(&t);
	if (!r)
		r = is_snapshot(&t) ? restore(&t) : go_on(&t);
	if (r)
		give_up(&t);
	else
		*ret = t.dev;
	lv_blob_free(t.blob);
	return r;
}

int libvhost_freeze_info(struct libvhost_ctx *ctx, const void *blob, size_t len, struct libvhost_freeze_info *info)
{
	struct libvhost_freeze_info o = {.size = sizeof(o), .major = LV_BLOB_MAJOR};
	struct lv_blob *b;
	int r;

	if (!ctx || !blob || !info)
		return -EINVAL;
	r = lv_blob_decode(&ctx->err, blob, len, &b);
	if (r)
		return r;
	o.minor = b->minor;
	o.flags = b->flags;
	o.virtio_id = b->rec->virtio_id;
	o.num_queues = b->rec->num_queues;
	o.nfds = b->nfds;
	o.running = !!(b->rec->flags & LV_RF_RUNNING);
	o.num_regions = b->num_regions;
	memcpy(o.written_by, b->written_by, sizeof(o.written_by));
	memcpy(o.uri, b->conn.uri, sizeof(o.uri));
	lv_blob_free(b);
	return LV_OUT_WRITE(info, &o);
}
