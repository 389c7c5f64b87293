/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/*
 * Writing a device down and letting go of it. Everything that can fail happens before the first change: a freeze that
 * fails leaves the device running as it was. Descriptors are moved, not duplicated, so that no limit stands in the way.
 */
#include "device/frozen.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "core/wire.h"
#include "device/features.h"
#include "memory/backing.h"
#include "vring/vring.h"

/* What only this process' options say; thaw is told anew. */
#define HOST_FLAGS (LIBVHOST_DEV_ASYNC | LIBVHOST_DEV_AUTO_RECONNECT | LIBVHOST_DEV_WAIT)

/* A blob in the making and the descriptors that belong to it, in its order. */
struct freezing {
	struct lv_blob blob;
	int fds[LV_BLOB_FDS];
	uint8_t *region;
	struct lv_log *log; /* of the guest's memory; its descriptor is duplicated when everything else is done */
	uint32_t log_at;
};

static void add_fd(struct freezing *f, enum lv_blob_fd_kind kind, uint32_t index, int fd)
{
	if (fd < 0)
		return;
	f->fds[f->blob.nfds] = fd;
	f->blob.fds[f->blob.nfds++] = (struct lv_blob_fd){(uint32_t)kind, index};
}

/* Some peers answer GET_VRING_BASE while they still work on requests: qemu-storage-daemon 7.2. What they complete
 * later would be in no snapshot. */
static int check_drained(struct libvhost_dev *dev)
{
	struct lv_snapshot *mem = lv_mem_snapshot(dev->mem);
	uint32_t i, left = 0;

	for (i = 0; i < dev->rec->num_queues && !left; i++)
		left = lv_queue_unfinished(dev->rec, i, mem);
	lv_snapshot_put(mem);
	return left ? lv_fail(&dev->err, -EBUSY, LIBVHOST_EK_BUSY,
			      "freeze: queue %u: the peer said that it stopped at %u and has not completed %u requests "
			      "before that; try again when it has",
			      i - 1, dev->rec->queue[i - 1].base, left)
		    : 0;
}

static int check_state(struct libvhost_dev *dev, uint32_t flags)
{
	switch (dev->state) {
	case LIBVHOST_DEV_NEGOTIATED:
		break;
	case LIBVHOST_DEV_RUNNING:
		if (!(flags & LIBVHOST_FREEZE_SNAPSHOT))
			break;
		return lv_fail(&dev->err, -EBUSY, LIBVHOST_EK_STATE, "freeze: a snapshot needs a stopped device");
	case LIBVHOST_DEV_LOST:
	case LIBVHOST_DEV_DISCONNECTED:
		return lv_fail(&dev->err, -EINVAL, LIBVHOST_EK_STATE,
			       "freeze: the device is lost or disconnected; reconnect it first, or make it anew there");
	default:
		return lv_fail(&dev->err, -EBUSY, LIBVHOST_EK_STATE, "freeze: the device is connecting");
	}
	if (dev->num_parts != 1)
		return lv_fail(&dev->err, -ENOTSUP, LIBVHOST_EK_UNSUPPORTED,
			       "freeze: the device has %u parts; only one that consists of a single connection can be "
			       "handed over",
			       dev->num_parts);
	if (lv_shmem_maps(dev))
		return lv_fail(&dev->err, -ENOTSUP, LIBVHOST_EK_UNSUPPORTED,
			       "freeze: the back-end has files mapped into a shared-memory window; reset the device "
			       "first");
	return flags & LIBVHOST_FREEZE_SNAPSHOT ? check_drained(dev) : 0;
}

static void take_queues(const struct libvhost_dev *dev, struct freezing *f)
{
	for (uint32_t i = 0; i < dev->rec->num_queues; i++) {
		f->blob.queue_bits[i] =
			(uint8_t)((dev->err_ours[i] ? LV_BLOB_Q_ERR_OURS : 0) | (dev->bound[i] ? LV_BLOB_Q_BOUND : 0));
		if (f->blob.flags & LIBVHOST_FREEZE_SNAPSHOT)
			continue;
		add_fd(f, LV_BLOB_FD_KICK, i, dev->fds[i].kick);
		add_fd(f, LV_BLOB_FD_CALL, i, dev->fds[i].call);
		add_fd(f, LV_BLOB_FD_ERR, i, dev->fds[i].err);
		add_fd(f, LV_BLOB_FD_MASKED, i, dev->fds[i].masked);
		add_fd(f, LV_BLOB_FD_DOORBELL, i, lv_doorbell_describe(dev, i, &f->blob.doorbell[i]));
	}
}

static void take_memory(const struct lv_snapshot *mem, struct lv_blob *b)
{
	if (!mem)
		return;
	b->has_memory = true;
	b->num_regions = mem->count;
	for (uint32_t i = 0; i < mem->count; i++) {
		const struct lv_map *m = &mem->maps[i];

		b->regions[i] = (struct lv_blob_region){
			.gpa = m->gpa,
			.size = m->size,
			.user_addr = m->user_addr,
			.mmap_offset = m->mmap_offset,
			.flags = m->flags,
			.dev = m->backing ? m->backing->extent.dev : 0,
			.ino = m->backing ? m->backing->extent.ino : 0,
		};
	}
}

static int take_connection(struct libvhost_dev *dev, struct freezing *f)
{
	struct lv_connection *c = &f->blob.conn;
	int r = lv_connection_describe(dev->parts[0].t, &dev->err, c);

	if (r)
		return r;
	if (f->blob.flags & LIBVHOST_FREEZE_SNAPSHOT) {
		c->len = c->channel_len = c->channel_nfds = c->channel_fds_dropped = 0;
		c->sock = c->listener = c->channel = -1;
		return 0;
	}
	f->blob.conn_channel = c->channel >= 0;
	add_fd(f, LV_BLOB_FD_CONTROL, 0, c->sock);
	add_fd(f, LV_BLOB_FD_LISTENER, 0, c->listener);
	add_fd(f, LV_BLOB_FD_CHANNEL, 0, c->channel);
	for (uint32_t i = 0; i < c->channel_nfds; i++)
		add_fd(f, LV_BLOB_FD_MESSAGE, i, c->channel_fds[i]);
	return 0;
}

/* The record as the blob has it: the log is the memory's and may have come or gone while the device was stopped. */
static int take_record(struct libvhost_dev *dev, struct freezing *f)
{
	struct lv_record *rec = f->blob.rec = lv_record_dup(dev->rec);

	if (!rec)
		return lv_fail(&dev->err, -ENOMEM, LIBVHOST_EK_NOMEM, "freeze: no memory for a copy of the record");
	rec->flags &= ~(uint32_t)LV_RF_LOG;
	if (f->blob.flags & LIBVHOST_FREEZE_SNAPSHOT)
		rec->log_bytes = 0;
	else
		f->log = lv_mem_log(dev->mem);
	if (!f->log)
		return 0;
	rec->flags |= LV_RF_LOG;
	f->log_at = f->blob.nfds;
	add_fd(f, LV_BLOB_FD_LOG, 0, f->log->fd);
	return 0;
}

/* A snapshot holds the region itself. */
static int take_region(struct libvhost_dev *dev, struct freezing *f)
{
	struct lv_blob *b = &f->blob;
	int r;

	if (!(dev->rec->flags & LV_RF_INFLIGHT))
		return 0;
	r = lv_inflight_save(dev, NULL, &b->inflight_len);
	if (r)
		return r;
	f->region = malloc(b->inflight_len);
	if (!f->region)
		return lv_fail(&dev->err, -ENOMEM, LIBVHOST_EK_NOMEM, "freeze: no memory for the inflight region");
	b->inflight = f->region;
	return lv_inflight_save(dev, f->region, &b->inflight_len);
}

/* What calls may change that need no claim: policy, mask and, as long as leaves is set, the descriptor stay. */
static void take_settings(struct libvhost_dev *dev, struct freezing *f)
{
	const struct lv_config_irq *irq = &dev->config_irq;
	struct lv_blob *b = &f->blob;

	pthread_mutex_lock(&dev->lock);
	dev->config_irq.leaves = true;
	b->dev_bits = (dev->ack_all_next ? LV_BLOB_D_ACK_ALL : 0) |
		      (dev->share.objects_mute ? LV_BLOB_D_OBJECTS_MUTE : 0) |
		      (irq->masked ? LV_BLOB_D_CONFIG_MASKED : 0) | (irq->pending ? LV_BLOB_D_CONFIG_PENDING : 0);
	b->policy = dev->backoff.policy;
	b->policy.size = sizeof(b->policy);
	pthread_mutex_unlock(&dev->lock);
}

static void free_settings(struct libvhost_dev *dev)
{
	pthread_mutex_lock(&dev->lock);
	dev->config_irq.leaves = false;
	pthread_cond_broadcast(&dev->idle);
	pthread_mutex_unlock(&dev->lock);
}

/* Inside of the device and its transport: nothing else that is described here changes meanwhile. */
static int describe(struct libvhost_dev *dev, struct freezing *f)
{
	struct lv_blob *b = &f->blob;
	int r;

	strncpy(b->written_by, libvhost_version_string(), sizeof(b->written_by) - 1);
	b->dev_flags = dev->opts.flags & ~HOST_FLAGS;
	b->ack_policy = dev->opts.ack_policy;
	b->protocol_never = dev->opts.protocol_features;
	take_settings(dev, f);
	r = take_connection(dev, f);
	if (!r)
		r = take_record(dev, f);
	if (r)
		return r;
	if (!(b->flags & LIBVHOST_FREEZE_SNAPSHOT)) {
		add_fd(f, LV_BLOB_FD_INFLIGHT, 0, dev->inflight.fd);
		add_fd(f, LV_BLOB_FD_CONFIG_CALL, 0, dev->config_irq.fd);
	}
	take_queues(dev, f);
	if (b->flags & LIBVHOST_FREEZE_SNAPSHOT)
		return take_region(dev, f);
	take_memory(dev->parts[0].peer_mem, b);
	b->num_objects = lv_objects_list(&dev->ctx->objects, &dev->share.objects, b->objects, LV_OBJECTS_OF_DEVICE);
	return 0;
}

/* Writes the blob if there is room, and stores in any case what it takes. 1 = written. */
static int put_out(struct libvhost_dev *dev, struct freezing *f, void *blob, size_t *blob_len, int *fds, uint32_t *nfds)
{
	const uint32_t count = f->blob.nfds;
	const size_t len = lv_blob_encode(&f->blob, NULL, 0);
	const bool fits = len <= *blob_len && count <= *nfds;

	*blob_len = len;
	*nfds = count;
	if (!blob)
		return 0;
	if (!fits)
		return lv_fail(&dev->err, -ENOSPC, LIBVHOST_EK_OUTPUT_TOO_SMALL,
			       "freeze: needs room for %zu bytes and %u descriptors", len, count);
	if (f->log) {
		const int fd = lv_fd_dup(f->log->fd);

		if (fd < 0)
			return lv_fail_sys(&dev->err, -fd, "freeze: no descriptor left for the dirty log: %s",
					   lv_errno_name(-fd));
		f->fds[f->log_at] = fd;
	}
	lv_blob_encode(&f->blob, blob, len);
	if (count)
		memcpy(fds, f->fds, count * sizeof(*fds));
	return 1;
}

void lv_dev_let_go(struct libvhost_dev *dev, const struct lv_connection *conn)
{
	if (dev->num_parts) {
		struct lv_part *part = &dev->parts[0];

		lv_connection_let_go(part->t, conn);
		lv_snapshot_put(part->peer_mem);
		part->peer_mem = NULL;
		part->caps.flags &= ~LIBVHOST_TRANSPORT_CAN_REOPEN;
	}
	lv_dev_log_ended(dev);
	lv_objects_forget(&dev->ctx->objects, &dev->share.objects);
	dev->inflight.fd = -1;
	lv_inflight_drop(dev);
	pthread_mutex_lock(&dev->lock);
	lv_doorbells_let_go(dev);
	dev->config_irq.fd = -1;
	for (uint32_t i = 0; i < dev->rec->num_queues; i++) {
		lv_dev_unwatch(dev, dev->fds[i].err);
		dev->fds[i] = (struct lv_queue_fds){-1, -1, -1, -1};
		dev->bound[i] = 0;
		dev->rec->queue[i].flags &= ~(uint32_t)LV_RQ_RUNNING;
	}
	dev->rec->flags &= ~(uint32_t)LV_RF_RUNNING;
	dev->state = LIBVHOST_DEV_DISCONNECTED;
	pthread_mutex_unlock(&dev->lock);
}

static int freeze(struct libvhost_dev *dev, struct freezing *f, void *blob, size_t *blob_len, int *fds, uint32_t *nfds)
{
	struct libvhost_transport *t = dev->parts[0].t;
	int r;

	if (lv_transport_enter(t) < 0)
		return lv_fail(&dev->err, -EBUSY, LIBVHOST_EK_BUSY, "freeze: another thread is inside the transport");
	r = describe(dev, f);
	if (!r)
		r = put_out(dev, f, blob, blob_len, fds, nfds);
	if (r == 1) {
		r = 0;
		if (!(f->blob.flags & LIBVHOST_FREEZE_SNAPSHOT))
			lv_dev_let_go(dev, &f->blob.conn);
	}
	free_settings(dev);
	lv_transport_leave(t);
	return r;
}

int libvhost_dev_freeze(struct libvhost_dev *dev, uint32_t flags, void *blob, size_t *blob_len, int *fds,
			uint32_t *nfds)
{
	struct freezing *f;
	int r;

	if (!dev || !blob_len || !nfds || (blob && !fds && *nfds))
		return -EINVAL;
	if (flags & ~LIBVHOST_FREEZE_SNAPSHOT)
		return lv_fail(&dev->err, -EINVAL, LIBVHOST_EK_ARGUMENT, "freeze: unknown flags %#x", flags);
	r = lv_dev_claim(dev, LV_OP_REQUEST, LV_ANY_STATE, "freeze");
	if (r)
		return r;
	f = calloc(1, sizeof(*f));
	if (!f)
		return lv_dev_release(dev,
				      lv_fail(&dev->err, -ENOMEM, LIBVHOST_EK_NOMEM, "freeze: no memory for the blob"));
	r = check_state(dev, flags);
	if (!r) {
		f->blob.flags = flags;
		r = freeze(dev, f, blob, blob_len, fds, nfds);
	}
	lv_log_put(f->log);
	free(f->blob.rec);
	free(f->region);
	free(f);
	return lv_dev_release(dev, r);
}
