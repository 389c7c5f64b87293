/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/*
 * Making a device of a blob. Nothing is sent for one that was frozen with its connection: what the peer knows is
 * compared with what is here, and either all of it agrees or the call fails, gives the descriptors back and leaves the
 * blob good for another attempt. A snapshot has no connection; it is replayed to a fresh peer as after a disconnect.
 */
#include "device/frozen.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include "core/wire.h"
#include "memory/backing.h"
#include "memory/object.h"

#define HOST_FLAGS (LIBVHOST_DEV_AUTO_RECONNECT | LIBVHOST_DEV_WAIT)

struct thaw {
	struct libvhost_ctx *ctx;
	struct libvhost_thaw_opts opts;
	struct lv_blob *blob;
	struct libvhost_dev *dev;
};

static bool is_snapshot(const struct thaw *t)
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

/* ---- descriptors ---- */

static bool listens(int fd)
{
	int on = 0;
	socklen_t len = sizeof(on);

	return !getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &on, &len) && on;
}

/* NULL, or what the descriptor should have been. */
static const char *wrong_kind(const struct lv_record *rec, uint32_t kind, int fd, const struct stat *st)
{
	uint64_t file;

	switch (kind) {
	case LV_BLOB_FD_CONTROL:
	case LV_BLOB_FD_CHANNEL:
		return lv_wire_check(fd) ? "a connected unix stream socket" : NULL;
	case LV_BLOB_FD_LISTENER:
		return listens(fd) ? NULL : "a listening socket";
	case LV_BLOB_FD_MESSAGE:
	case LV_BLOB_FD_DOORBELL: /* looked at when it is mapped */
		return NULL;
	case LV_BLOB_FD_INFLIGHT:
		return !lv_inflight_check_fd(fd, &file) && file >= rec->inflight_bytes + rec->inflight_offset
			       ? NULL
			       : "the file of the inflight region, with all its bytes";
	case LV_BLOB_FD_LOG:
		return S_ISREG(st->st_mode) && (uint64_t)st->st_size >= rec->log_bytes
			       ? NULL
			       : "the file of the dirty log, with all its bytes";
	default:
		return !(st->st_mode & S_IFMT) || S_ISFIFO(st->st_mode) || S_ISSOCK(st->st_mode)
			       ? NULL
			       : "an eventfd or the like";
	}
}

static int check_fd(const struct thaw *t, uint32_t at)
{
	const struct lv_blob_fd *want = &t->blob->fds[at];
	const int fd = t->opts.fds[at];
	const char *wrong;
	struct stat st;

	for (uint32_t i = 0; i < at; i++)
		if (t->opts.fds[i] == fd)
			return lv_fail(&t->ctx->err, -EINVAL, LIBVHOST_EK_ARGUMENT,
				       "thaw: descriptor %d is given twice, as number %u and %u", fd, i, at);
	if (fd < 0 || fstat(fd, &st) < 0)
		return lv_fail(&t->ctx->err, -EINVAL, LIBVHOST_EK_ARGUMENT,
			       "thaw: descriptor %d (number %u) is not open", fd, at);
	wrong = wrong_kind(t->blob->rec, want->kind, fd, &st);
	if (wrong)
		return lv_fail(&t->ctx->err, -EINVAL, LIBVHOST_EK_ARGUMENT,
			       "thaw: descriptor %d (number %u) is not %s; give them in the order in which freeze did",
			       fd, at, wrong);
	return 0;
}

static int check_fds(const struct thaw *t)
{
	int r = 0;

	if (t->opts.nfds != t->blob->nfds)
		return lv_fail(&t->ctx->err, -EINVAL, LIBVHOST_EK_ARGUMENT,
			       "thaw: %u descriptors were given, %u belong to the blob", t->opts.nfds, t->blob->nfds);
	for (uint32_t i = 0; i < t->blob->nfds && !r; i++)
		r = check_fd(t, i);
	return r;
}

/* Where a descriptor goes; NULL = adopt_doorbells() or adopt_log() sees to it. */
static int *slot_of(struct libvhost_dev *dev, struct lv_connection *conn, const struct lv_blob_fd *fd)
{
	struct lv_queue_fds *queue = &dev->fds[fd->index < dev->rec->num_queues ? fd->index : 0];

	switch (fd->kind) {
	case LV_BLOB_FD_CONTROL:
		return &conn->sock;
	case LV_BLOB_FD_LISTENER:
		return &conn->listener;
	case LV_BLOB_FD_CHANNEL:
		return &conn->channel;
	case LV_BLOB_FD_MESSAGE:
		return &conn->channel_fds[conn->channel_nfds++];
	case LV_BLOB_FD_INFLIGHT:
		return &dev->inflight.fd;
	case LV_BLOB_FD_CONFIG_CALL:
		return &dev->config_irq.fd;
	case LV_BLOB_FD_KICK:
		return &queue->kick;
	case LV_BLOB_FD_CALL:
		return &queue->call;
	case LV_BLOB_FD_ERR:
		return &queue->err;
	case LV_BLOB_FD_MASKED:
		return &queue->masked;
	default:
		return NULL;
	}
}

/* From here on the device has them; it still can give them back. */
static void put_fds(struct thaw *t)
{
	for (uint32_t i = 0; i < t->blob->nfds; i++) {
		int *slot = slot_of(t->dev, &t->blob->conn, &t->blob->fds[i]);

		if (slot)
			*slot = t->opts.fds[i];
	}
}

static void own_fds(const struct thaw *t)
{
	const struct lv_connection *c = &t->blob->conn;

	for (uint32_t i = 0; i < t->blob->nfds; i++)
		if (t->blob->fds[i].kind == LV_BLOB_FD_LOG)
			lv_fd_close(t->opts.fds[i]); /* the memory has its own */
		else
			fcntl(t->opts.fds[i], F_SETFD, FD_CLOEXEC);
	if (t->opts.uri && strcmp(t->opts.uri, c->uri))
		lv_fd_close(c->listener); /* the device comes back from another place */
}

/* ---- memory ---- */

/* What the peer has, as a map without memory: only good for comparing and for taking regions back. */
static int peer_map(const struct thaw *t, struct lv_snapshot **ret)
{
	const struct lv_blob *b = t->blob;
	struct lv_map *maps = calloc(b->num_regions + 1u, sizeof(*maps));
	int r = maps ? 0 : -ENOMEM;
	uint32_t n = 0;

	for (; n < b->num_regions && !r; n++) {
		const struct lv_blob_region *from = &b->regions[n];
		const struct lv_extent extent = {.dev = (dev_t)from->dev,
						 .ino = (ino_t)from->ino,
						 .offset = from->mmap_offset,
						 .size = from->size,
						 .readonly = from->flags & LIBVHOST_REGION_READONLY};

		maps[n] = (struct lv_map){.gpa = from->gpa,
					  .size = from->size,
					  .mmap_offset = from->mmap_offset,
					  .user_addr = from->user_addr,
					  .fd = -1,
					  .flags = from->flags};
		r = lv_backing_absent(&extent, &maps[n].backing);
	}
	*ret = r ? NULL : lv_snapshot_new(maps, n, 0);
	while (n)
		lv_backing_put(maps[--n].backing);
	free(maps);
	return *ret ? 0 : lv_fail(&t->ctx->err, -ENOMEM, LIBVHOST_EK_NOMEM, "thaw: no memory for the peer's map");
}

static int differs(const struct thaw *t, const struct lv_snapshot *peer, const struct lv_snapshot *here,
		   const struct lv_mem_diff *diff)
{
	const bool missing = diff->removed > 0;
	const struct lv_map *m = missing ? &peer->maps[diff->removed_at[0]] : &here->maps[diff->added_at[0]];

	return lv_fail(&t->ctx->err, -EFAULT, LIBVHOST_EK_MEMORY,
		       missing ? "thaw: the peer has the region at %#" PRIx64 " (%#" PRIx64 " bytes, offset %#" PRIx64
				 " of inode %" PRIu64 "), which this map has not, or not of the same file"
			       : "thaw: this map has the region at %#" PRIx64 " (%#" PRIx64 " bytes, offset %#" PRIx64
				 " of inode %" PRIu64 "), which the peer has not",
		       m->gpa, m->size, m->mmap_offset, m->backing ? (uint64_t)m->backing->extent.ino : 0);
}

/* A running peer's map must be ours; a stopped one's is only remembered: the next start sends the difference. */
static int match_memory(struct thaw *t)
{
	struct lv_snapshot *peer, *here;
	struct lv_mem_diff diff;
	int r;

	if (!t->blob->has_memory)
		return 0;
	r = peer_map(t, &peer);
	if (r)
		return r;
	here = lv_mem_snapshot(t->opts.mem);
	lv_mem_diff(peer, here, &diff);
	if (!diff.removed && !diff.added) {
		lv_snapshot_put(peer);
		t->dev->parts[0].peer_mem = here;
		return 0;
	}
	if (lv_dev_was_running(t->dev))
		r = differs(t, peer, here, &diff);
	lv_snapshot_put(here);
	if (r)
		lv_snapshot_put(peer);
	else
		t->dev->parts[0].peer_mem = peer;
	return r;
}

/* ---- the device ---- */

static int make_device(struct thaw *t)
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

static int bind_notifiers(struct thaw *t)
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

static int from_device(struct thaw *t, int r)
{
	return r ? lv_fail_copy(&t->ctx->err, &t->dev->err) : 0;
}

/* Whether it comes back by itself is the new host's decision, how it does was the old one's. */
static int take_policy(struct thaw *t)
{
	const struct libvhost_reconnect_policy *p = &t->blob->policy;

	if (!p->size || p->mode == LIBVHOST_RECONNECT_NONE || !(t->opts.dev_flags & LIBVHOST_DEV_AUTO_RECONNECT))
		return 0;
	if (!lv_reconnect_possible(t->dev))
		return 0;
	return from_device(t, libvhost_dev_set_reconnect(t->dev, p));
}

/* The transport is the device's on success and gone on failure. */
static int take_part(struct thaw *t, struct libvhost_transport *transport)
{
	int r = lv_dev_take_part(t->dev, transport, 0, t->dev->rec->num_queues);

	if (!r)
		return 0;
	if (!is_snapshot(t))
		lv_connection_let_go(transport, &t->blob->conn);
	libvhost_transport_free(transport);
	return from_device(t, r);
}

static int attach(struct thaw *t)
{
	int r = lv_mem_attach(t->opts.mem, &lv_dev_mem_client, t->dev, &t->dev->mem_node);

	return r ? lv_fail_copy(&t->ctx->err, &t->opts.mem->err) : 0;
}

/* ---- the same connection ---- */

static int adopt_doorbells(struct thaw *t)
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

static int adopt_objects(struct thaw *t)
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

/* All devices of a guest write one log, in the file that they wrote before. The last thing that can fail: what the
 * memory has taken over it keeps. */
static int adopt_log(struct thaw *t)
{
	const int at = lv_blob_find_fd(t->blob, LV_BLOB_FD_LOG, 0);
	struct lv_log *log;
	int r = 0;

	if (at >= 0)
		r = lv_mem_adopt_log(t->opts.mem, t->opts.fds[at]);
	if (r)
		return lv_fail(&t->ctx->err, r == -EEXIST ? -EFAULT : r, LIBVHOST_EK_MEMORY,
			       "thaw: descriptor %d as the dirty log: %s", t->opts.fds[at],
			       r == -EEXIST ? "this memory logs to another file" : lv_errno_name(-r));
	log = lv_mem_log(t->opts.mem);
	if (log && at < 0 && lv_dev_was_running(t->dev)) {
		lv_log_put(log);
		return lv_fail(&t->ctx->err, -EFAULT, LIBVHOST_EK_MEMORY,
			       "thaw: this memory logs what devices write, and the frozen one's peer does not");
	}
	if (lv_dev_was_running(t->dev))
		t->dev->parts[0].peer_log = log;
	else
		lv_log_put(log);
	return 0;
}

/* What runs lies in the map; the rest is looked at when it is started. */
static int check_rings(struct thaw *t)
{
	struct lv_record *runs = lv_record_dup(t->dev->rec);
	struct lv_snapshot *here;
	bool any = false;
	int r = 0;

	if (!runs)
		return lv_fail(&t->ctx->err, -ENOMEM, LIBVHOST_EK_NOMEM, "thaw: no memory for a copy of the record");
	for (uint32_t i = 0; i < runs->num_queues; i++) {
		any |= runs->queue[i].flags & LV_RQ_RUNNING;
		if (!(runs->queue[i].flags & LV_RQ_RUNNING))
			runs->queue[i].flags = 0;
	}
	here = lv_mem_snapshot(t->opts.mem);
	if (any)
		r = lv_queues_check(t->dev, runs, here);
	lv_snapshot_put(here);
	free(runs);
	return r ? lv_fail(&t->ctx->err, -EFAULT, LIBVHOST_EK_MEMORY, "thaw: a ring that runs is not in this map") : 0;
}

static int settle(struct thaw *t)
{
	struct libvhost_dev *dev = t->dev;
	int r = match_memory(t);

	if (!r)
		r = check_rings(t);
	if (!r)
		r = adopt_doorbells(t);
	if (!r)
		r = adopt_objects(t);
	if (!r)
		r = bind_notifiers(t);
	if (!r) {
		r = adopt_log(t);
		if (r)
			lv_notifiers_drop(dev);
	}
	if (r)
		return r;
	lv_dev_table_limit(dev);
	own_fds(t);
	lv_dev_set_state(dev, lv_dev_was_running(dev) ? LIBVHOST_DEV_RUNNING : LIBVHOST_DEV_NEGOTIATED);
	return 0;
}

/* Claimed before it is attached: no commit can come in between. */
static int go_on(struct thaw *t)
{
	struct libvhost_transport *transport;
	int r;

	put_fds(t);
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
static void give_up(struct thaw *t)
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

static int make_fds(struct thaw *t)
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

static int replay(struct thaw *t)
{
	const struct libvhost_call_opts call = {.size = sizeof(call), .timeout_ms = t->opts.timeout_ms};
	int r = from_device(t, libvhost_dev_reconnect(t->dev, &call));

	if (!r)
		r = bind_notifiers(t);
	if (!r && t->opts.flags & LIBVHOST_THAW_START)
		r = from_device(t, libvhost_dev_start(t->dev, &call));
	return r;
}

static int restore(struct thaw *t)
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
	struct thaw t = {.ctx = ctx};
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
		r = check_fds(&t);
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
