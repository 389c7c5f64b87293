/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* Birth and death of a device, its parts, and what may be asked at any time. */
#include "device/device.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "core/wire.h"

#define KNOWN_FLAGS                                                                                                    \
	(LIBVHOST_DEV_ASYNC | LIBVHOST_DEV_AUTO_RECONNECT | LIBVHOST_DEV_USE_GPA_ADDRESSES | LIBVHOST_DEV_USE_SHMEM |  \
	 LIBVHOST_DEV_WAIT | LIBVHOST_DEV_INFLIGHT | LIBVHOST_DEV_STOP_INFLIGHT | LIBVHOST_DEV_HOST_NOTIFIERS |        \
	 LIBVHOST_DEV_SHARED_OBJECTS)

static int check_opts(struct lv_errslot *err, const struct libvhost_dev_opts *o)
{
	const char *wrong = NULL;

	if (o->flags & ~KNOWN_FLAGS)
		wrong = "unknown flags";
	else if (!o->num_queues || o->num_queues > LIBVHOST_MAX_QUEUES)
		wrong = "num_queues must be 1..256";
	else if (o->part_queues > o->num_queues)
		wrong = "part_queues is above num_queues";
	else if (!o->mem)
		wrong = "mem is required";
	else if (!o->uri == !o->transport)
		wrong = "give either uri or transport";
	else if (o->ack_policy > LIBVHOST_ACK_NONE)
		wrong = "no such ack_policy";
	else if (o->timeout_ms > LV_TIMEOUT_MAX_MS)
		wrong = "timeout_ms is above 3600000";
	else if (o->config_size > LIBVHOST_MAX_CONFIG)
		wrong = "config_size is above 4096";
	else if (o->flags & LIBVHOST_DEV_STOP_INFLIGHT && !(o->flags & LIBVHOST_DEV_INFLIGHT))
		wrong = "STOP_INFLIGHT needs INFLIGHT";
	return wrong ? lv_fail(err, -EINVAL, LIBVHOST_EK_ARGUMENT, "device options: %s", wrong) : 0;
}

void lv_dev_free(struct libvhost_dev *dev)
{
	if (dev->rec)
		lv_share_free(dev);
	for (uint32_t i = 0; i < dev->num_parts; i++) {
		lv_program_free(&dev->parts[i].prog);
		lv_snapshot_put(dev->parts[i].peer_mem);
		if (!dev->borrowed)
			libvhost_transport_free(dev->parts[i].t);
		lv_log_put(dev->parts[i].peer_log);
	}
	if (dev->rec && dev->fds)
		lv_queues_drop_all(dev);
	if (dev->rec)
		lv_inflight_drop(dev);
	lv_transfer_drop(dev);
	lv_fd_close(dev->op.inflight_fd);
	lv_fd_close(dev->config_irq.fd);
	lv_fd_close(dev->wake_fd);
	lv_fd_close(dev->epoll_fd);
	lv_fd_close(dev->timer_fd);
	free(dev->armed);
	free(dev->op.work);
	lv_snapshot_put(dev->op.mem);
	lv_log_put(dev->op.log);
	libvhost_mem_free(dev->mem);
	free(dev->rec);
	free(dev->fds);
	free(dev->err_ours);
	free(dev->bound);
	free(dev->parts);
	pthread_mutex_destroy(&dev->lock);
	pthread_cond_destroy(&dev->idle);
	lv_errslot_destroy(&dev->err);
	libvhost_ctx_free(dev->ctx);
	free(dev);
}

static void init_sync(struct libvhost_dev *dev)
{
	pthread_condattr_t attr;

	pthread_mutex_init(&dev->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&dev->idle, &attr);
	pthread_condattr_destroy(&attr);
}

struct libvhost_dev *lv_dev_new(struct libvhost_ctx *ctx, const struct libvhost_dev_opts *o)
{
	struct libvhost_dev *dev = calloc(1, sizeof(*dev));

	if (!dev)
		return NULL;
	dev->ctx = lv_ctx_ref(ctx);
	dev->opts = *o;
	dev->ack_policy = o->ack_policy;
	dev->mem = lv_mem_ref(o->mem);
	dev->epoll_fd = dev->timer_fd = -1;
	dev->inflight.fd = dev->op.inflight_fd = dev->config_irq.fd = -1;
	lv_errslot_init(&dev->err);
	init_sync(dev);
	dev->rec = lv_record_new(o->virtio_id, o->num_queues);
	dev->op.work = lv_record_new(o->virtio_id, o->num_queues);
	dev->fds = malloc(o->num_queues * sizeof(*dev->fds));
	dev->err_ours = calloc(o->num_queues, 1);
	dev->bound = calloc(o->num_queues, 1);
	dev->parts = calloc(o->num_queues, sizeof(*dev->parts));
	if (dev->fds)
		memset(dev->fds, 0xff, o->num_queues * sizeof(*dev->fds)); /* -1 everywhere */
	dev->wake_fd = lv_eventfd();
	lv_backoff_init(dev);
	lv_transfer_init(dev);
	if (dev->rec && dev->op.work && dev->fds && dev->err_ours && dev->bound && dev->parts) {
		dev->rec->config_size = o->config_size;
		return dev;
	}
	lv_dev_free(dev);
	return NULL;
}

/* A device must always be able to stop: what its largest stop takes is there before it ever runs. */
static int reserve_stop(struct libvhost_dev *dev, struct lv_part *part)
{
	const uint32_t requests = LV_STOP_REQUESTS(part->count);
	int r = lv_program_reserve(&part->prog, requests) ? lv_transport_reserve(part->t, requests) : -ENOMEM;

	if (!r)
		return 0;
	lv_program_free(&part->prog);
	return lv_fail(&dev->err, r, r == -ENOMEM ? LIBVHOST_EK_NOMEM : LIBVHOST_EK_BUSY,
		       "%s: room for a stop of %u queues: %s", part->t->peer, part->count, lv_errno_name(-r));
}

int lv_dev_take_part(struct libvhost_dev *dev, struct libvhost_transport *t, uint32_t first, uint32_t count)
{
	struct lv_part *part = &dev->parts[dev->num_parts];
	int r;

	*part = (struct lv_part){.dev = dev, .t = t, .first = first, .caps = {.size = sizeof(part->caps)}};
	r = libvhost_transport_query(t, &part->caps);
	if (r < 0)
		return lv_fail(&dev->err, r, LIBVHOST_EK_UNSUPPORTED, "transport: query failed: %s", lv_errno_name(-r));
	part->count = part->caps.max_queues && part->caps.max_queues < count ? part->caps.max_queues : count;
	lv_program_init(&part->prog);
	r = reserve_stop(dev, part);
	if (r)
		return r;
	lv_event_client(part);
	part->peer = dev->parts[0].peer;
	pthread_mutex_lock(&dev->lock);
	dev->num_parts++;
	pthread_mutex_unlock(&dev->lock);
	return 0;
}

static void give_back(struct libvhost_transport *t, const struct libvhost_transport *was)
{
	lv_transport_set_client(t, NULL);
	t->on_request = was->on_request;
	t->on_request_arg = was->on_request_arg;
}

static int init_ended(struct libvhost_dev *dev, int r)
{
	dev->op.result = r;
	if (r) {
		if (!dev->borrowed)
			lv_dev_close(dev);
		lv_dev_set_state(dev, LIBVHOST_DEV_DISCONNECTED);
		return 0;
	}
	dev->op.work->generation = 1;
	lv_dev_adopt(dev);
	lv_dev_set_state(dev, LIBVHOST_DEV_NEGOTIATED);
	lv_dev_table_limit(dev);
	return 0;
}

/* Opens what the options name; *later = not connected yet, dispatch sees to it. */
static int open_transport(struct libvhost_dev *dev, bool *later)
{
	struct libvhost_transport_opts o = {.size = sizeof(o)};
	const struct libvhost_dev_opts *d = &dev->opts;
	const bool listens = d->uri && !strncmp(d->uri, "user-listen:", 12);
	struct libvhost_transport *t = d->transport;
	int r = 0;

	o.timeout_ms = d->timeout_ms;
	o.ack_policy = d->ack_policy;
	o.flags = d->flags & LIBVHOST_DEV_WAIT ? LIBVHOST_TRANSPORT_OPT_WAIT : 0;
	*later = !t && d->flags & LIBVHOST_DEV_ASYNC && (listens || d->flags & LIBVHOST_DEV_WAIT);
	if (t)
		(void)libvhost_transport_set_ack_policy(t, d->ack_policy);
	else if (*later)
		r = lv_transport_open_later(dev->ctx, d->uri, &o, &t);
	else
		r = libvhost_transport_open(dev->ctx, d->uri, &o, &t);
	if (r < 0)
		return lv_fail_copy(&dev->err, &dev->ctx->err);
	r = lv_dev_take_part(dev, t, 0, d->part_queues ? d->part_queues : d->num_queues);
	if (r < 0 && !d->transport)
		libvhost_transport_free(t);
	return r;
}

static int begin_init(struct libvhost_dev *dev, uint64_t deadline)
{
	const bool async = dev->opts.flags & LIBVHOST_DEV_ASYNC;
	bool later = false;
	int r = dev->wake_fd < 0 ? lv_fd_fail(dev, dev->wake_fd, 0, "the device's wake-up eventfd") : 0;

	if (!r && dev->opts.ops)
		r = LV_OPTS_READ(&dev->err, &dev->ops, dev->opts.ops);
	if (!r)
		r = open_transport(dev, &later);
	if (!r)
		r = lv_mem_attach(dev->mem, &lv_dev_mem_client, dev, &dev->mem_node);
	if (r)
		return r;
	r = lv_dev_claim(dev, LV_OP_INIT, LV_ANY_STATE, "init");
	if (r)
		return r;
	lv_op_begin(dev, async, deadline, init_ended);
	if (later) {
		lv_reconnect_begin(dev, false);
		dev->op.patient = true;
		return lv_op_run(dev);
	}
	lv_op_prepare(dev);
	lv_op_plan(dev, LV_PLAN_CONNECT);
	return lv_op_run(dev);
}

int libvhost_dev_init(struct libvhost_ctx *ctx, const struct libvhost_dev_opts *opts, struct libvhost_dev **ret)
{
	struct libvhost_transport was = {0};
	struct libvhost_dev_opts o;
	struct libvhost_dev *dev;
	int r;

	if (!ctx || !opts || !ret)
		return -EINVAL;
	r = LV_OPTS_READ(&ctx->err, &o, opts);
	if (!r)
		r = check_opts(&ctx->err, &o);
	if (r)
		return r;
	dev = lv_dev_new(ctx, &o);
	if (!dev)
		return lv_fail(&ctx->err, -ENOMEM, LIBVHOST_EK_NOMEM, "device of %u queues: out of memory",
			       o.num_queues);
	dev->borrowed = o.transport && !(o.flags & LIBVHOST_DEV_ASYNC);
	if (o.transport) {
		was.on_request = o.transport->on_request;
		was.on_request_arg = o.transport->on_request_arg;
	}
	r = begin_init(dev, lv_deadline(ctx, o.timeout_ms));
	if (!r || r == -EINPROGRESS) {
		dev->borrowed = false;
		*ret = dev;
		return r;
	}
	lv_fail_copy(&ctx->err, &dev->err);
	if (dev->mem_node)
		lv_mem_detach(dev->mem, dev->mem_node);
	if (o.transport) {
		dev->borrowed = true;
		give_back(o.transport, &was);
	}
	lv_dev_free(dev);
	return r;
}

/* ---- further parts ---- */

static int part_ended(struct libvhost_dev *dev, int r)
{
	dev->op.result = r;
	if (r)
		return 0;
	lv_dev_adopt(dev);
	lv_dev_table_limit(dev);
	return 0;
}

static int check_part(struct libvhost_dev *dev, uint32_t first, uint32_t count)
{
	const uint32_t n = dev->rec->num_queues;

	if (!count || first >= n || count > n - first)
		return lv_fail(&dev->err, -EINVAL, LIBVHOST_EK_ARGUMENT,
			       "add_part: queues %u+%u; the device was made with %u queues", first, count, n);
	if (dev->num_parts == LV_MAX_PARTS || dev->num_parts == n)
		return lv_fail(&dev->err, -EINVAL, LIBVHOST_EK_ARGUMENT, "add_part: there are %u parts already",
			       dev->num_parts);
	if (dev->opts.flags & LIBVHOST_DEV_INFLIGHT)
		return lv_fail(&dev->err, -ENOTSUP, LIBVHOST_EK_UNSUPPORTED,
			       "add_part: a device with LIBVHOST_DEV_INFLIGHT has one part: a region belongs to one "
			       "back-end");
	for (uint32_t q = first; q < first + count; q++)
		if (lv_dev_part_of(dev, q))
			return lv_fail(&dev->err, -EINVAL, LIBVHOST_EK_ARGUMENT,
				       "add_part: queue %u belongs to another part already", q);
	return 0;
}

static void drop_part(struct libvhost_dev *dev)
{
	struct lv_part *part = &dev->parts[dev->num_parts - 1];

	pthread_mutex_lock(&dev->lock);
	dev->num_parts--;
	pthread_mutex_unlock(&dev->lock);
	lv_program_free(&part->prog);
	lv_snapshot_put(part->peer_mem);
	lv_log_put(part->peer_log);
}

/* Addresses, log and memory map mean something else in each. */
static int check_dialect(struct libvhost_dev *dev)
{
	const struct lv_part *part = &dev->parts[dev->num_parts - 1];

	if (part->caps.dialect == dev->parts[0].caps.dialect)
		return 0;
	return lv_fail(&dev->err, -ENOTSUP, LIBVHOST_EK_UNSUPPORTED,
		       "add_part: %s speaks dialect %u, the first part %u: a device has one", part->t->peer,
		       part->caps.dialect, dev->parts[0].caps.dialect);
}

int libvhost_dev_add_part(struct libvhost_dev *dev, struct libvhost_transport *t, uint32_t first, uint32_t count,
			  uint32_t timeout_ms)
{
	struct libvhost_transport was = {0};
	int r;

	if (!dev || !t || timeout_ms > LV_TIMEOUT_MAX_MS)
		return -EINVAL;
	r = lv_dev_claim(dev, LV_OP_ADD_PART, LV_STATE(NEGOTIATED), "add_part");
	if (r)
		return r;
	was.on_request = t->on_request;
	was.on_request_arg = t->on_request_arg;
	r = check_part(dev, first, count);
	lv_parts_split(dev);
	if (!r)
		r = lv_dev_take_part(dev, t, first, count);
	if (r)
		return lv_dev_release(dev, r);
	r = check_dialect(dev);
	if (r) {
		drop_part(dev);
		give_back(t, &was);
		return lv_dev_release(dev, r);
	}
	lv_op_prepare(dev);
	(void)libvhost_transport_set_ack_policy(t, dev->ack_policy);
	lv_op_begin(dev, false, lv_deadline(dev->ctx, timeout_ms), part_ended);
	lv_op_plan_part(dev, LV_PLAN_CONNECT, dev->num_parts - 1);
	r = lv_op_finish(dev);
	if (r) {
		drop_part(dev);
		give_back(t, &was);
	}
	return lv_dev_release(dev, r);
}

/* ---- the end ---- */

/* Waits until nobody is inside and keeps everybody out. False: called from a callback. */
static bool take_for_ever(struct libvhost_dev *dev)
{
	bool ours;

	pthread_mutex_lock(&dev->lock);
	ours = !lv_dev_in_callback(dev);
	while (ours && (dev->inside || (dev->op.kind != LV_OP_NONE && !dev->op.async)))
		pthread_cond_wait(&dev->idle, &dev->lock);
	if (ours) {
		dev->inside = true;
		dev->owner = pthread_self();
	}
	pthread_mutex_unlock(&dev->lock);
	return ours;
}

void libvhost_dev_cleanup(struct libvhost_dev *dev)
{
	bool callback;

	if (!dev)
		return;
	pthread_mutex_lock(&dev->lock);
	callback = lv_dev_in_callback(dev);
	pthread_mutex_unlock(&dev->lock);
	if (callback)
		return;
	libvhost_dev_cancel(dev);
	lv_mem_detach(dev->mem, dev->mem_node);
	take_for_ever(dev);
	lv_op_abort(dev);
	lv_notifiers_drop(dev);
	lv_dev_free(dev);
}

int libvhost_dev_cancel(struct libvhost_dev *dev)
{
	if (!dev)
		return -EINVAL;
	pthread_mutex_lock(&dev->lock);
	if (dev->op.kind != LV_OP_NONE) {
		atomic_store(&dev->op.cancelled, 1);
		for (uint32_t i = 0; i < dev->num_parts; i++)
			libvhost_transport_cancel(dev->parts[i].t);
		lv_dev_wake(dev);
	}
	pthread_mutex_unlock(&dev->lock);
	return 0;
}

/* ---- what may be asked at any time ---- */

int libvhost_dev_info(struct libvhost_dev *dev, struct libvhost_dev_info *info)
{
	struct libvhost_dev_info o = {.size = sizeof(o)};

	if (!dev || !info)
		return -EINVAL;
	pthread_mutex_lock(&dev->lock);
	o.state = dev->state;
	o.busy = dev->op.kind != LV_OP_NONE;
	o.max_queues = dev->rec->max_queues;
	o.max_regions = dev->rec->max_regions;
	o.dialect = dev->parts[0].caps.dialect;
	memcpy(o.features, dev->rec->offered, sizeof(o.features));
	memcpy(o.acked_features, dev->rec->acked, sizeof(o.acked_features));
	o.protocol_features = dev->rec->protocol_offered;
	o.acked_protocol_features = dev->rec->protocol_acked;
	o.backend_features = dev->rec->backend_acked;
	o.generation = dev->rec->generation;
	o.parts = dev->num_parts;
	o.status = dev->rec->status;
	o.guarantee = lv_inflight_guarantee(dev->rec);
	o.logging = dev->state == LIBVHOST_DEV_RUNNING && dev->rec->flags & LV_RF_LOG;
	pthread_mutex_unlock(&dev->lock);
	return LV_OUT_WRITE(info, &o);
}

struct libvhost_transport *libvhost_dev_transport(struct libvhost_dev *dev, uint32_t part)
{
	struct libvhost_transport *t;

	if (!dev)
		return NULL;
	pthread_mutex_lock(&dev->lock);
	t = part < dev->num_parts ? dev->parts[part].t : NULL;
	pthread_mutex_unlock(&dev->lock);
	return t;
}

int libvhost_dev_error(struct libvhost_dev *dev, struct libvhost_error *err)
{
	return dev ? lv_errslot_read(&dev->err, err) : -EINVAL;
}
