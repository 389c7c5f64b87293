/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* What a decoded blob must hold: ranges of single fields first, then what sections say about each other. */
#include "device/blob_rules.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "device/inflight.h"

#define RQ_KNOWN                                                                                                       \
	(LV_RQ_SET | LV_RQ_DISABLED | LV_RQ_MASKED | LV_RQ_KICK_POLL | LV_RQ_CALL_POLL | LV_RQ_RUNNING |               \
	 LV_RQ_BASE_STALE | LV_RQ_HELD | LV_RQ_BASE_GIVEN)
#define RF_KNOWN (LV_RF_RUNNING | LV_RF_NEGOTIATED | LV_RF_LOG | LV_RF_INFLIGHT | LV_RF_INFLIGHT_PACKED)
#define D_KNOWN	 (LV_BLOB_D_ACK_ALL | LV_BLOB_D_OBJECTS_MUTE | LV_BLOB_D_CONFIG_MASKED | LV_BLOB_D_CONFIG_PENDING)
#define DEV_KNOWN                                                                                                      \
	(LIBVHOST_DEV_USE_GPA_ADDRESSES | LIBVHOST_DEV_USE_SHMEM | LIBVHOST_DEV_INFLIGHT |                             \
	 LIBVHOST_DEV_STOP_INFLIGHT | LIBVHOST_DEV_HOST_NOTIFIERS | LIBVHOST_DEV_SHARED_OBJECTS)

const char lv_blob_nomem[] = "out of memory";

static bool has(const struct lv_blob *b, uint32_t record_flag)
{
	return b->rec->flags & record_flag;
}

static bool is_snapshot(const struct lv_blob *b)
{
	return b->flags & LIBVHOST_FREEZE_SNAPSHOT;
}

static bool region_possible(const struct lv_record *r)
{
	const struct lv_inflight_shape shape = {r->inflight_queues, r->inflight_num,
						!!(r->flags & LV_RF_INFLIGHT_PACKED)};

	if (!(r->flags & LV_RF_INFLIGHT))
		return !r->inflight_bytes && !r->inflight_offset && !r->inflight_queues && !r->inflight_num &&
		       !shape.packed;
	return shape.queues && shape.queues <= LIBVHOST_MAX_QUEUES && shape.num && shape.num <= LV_INFLIGHT_MAX_NUM &&
	       r->inflight_bytes >= lv_inflight_bytes(&shape) && r->inflight_bytes <= LV_INFLIGHT_MAX_BYTES &&
	       r->inflight_offset <= INT64_MAX - r->inflight_bytes;
}

static const char *check_record(const struct lv_blob *b)
{
	const struct lv_record *r = b->rec;

	if (r->max_queues > LIBVHOST_MAX_QUEUES || r->max_regions > LIBVHOST_MAX_REGIONS)
		return "record: limits of the peer beyond those of the library";
	if (r->config_len > LV_RECORD_CONFIG || r->config_size > LIBVHOST_MAX_CONFIG)
		return "record: configuration space too large";
	if (r->flags & ~(uint32_t)RF_KNOWN)
		return "record: unknown flags";
	if (!region_possible(r) || r->log_bytes > INT64_MAX)
		return "record: impossible inflight region or log";
	if (!has(b, LV_RF_NEGOTIATED))
		return "record: nothing was ever negotiated";
	if (is_snapshot(b) && has(b, LV_RF_INFLIGHT) != (b->inflight_len > 0))
		return "an inflight region without its contents";
	if (is_snapshot(b) && has(b, LV_RF_RUNNING))
		return "a snapshot of a running device";
	if (has(b, LV_RF_RUNNING) && !b->has_memory)
		return "a running device without memory";
	return NULL;
}

static const char *check_queue(const struct lv_blob *b, const struct lv_record_queue *q, uint32_t bits)
{
	if (q->flags & ~(uint32_t)RQ_KNOWN)
		return "queue: unknown flags";
	if (!(q->flags & LV_RQ_SET) && (q->flags & LV_RQ_RUNNING || bits & LV_BLOB_Q_BOUND))
		return "queue: in use but not set up";
	if (q->flags & LV_RQ_SET && (!q->num || q->num > LV_INFLIGHT_MAX_NUM))
		return "queue: number of entries is not 1..32768";
	if (q->flags & LV_RQ_RUNNING && !has(b, LV_RF_RUNNING))
		return "queue: runs while the device does not";
	if (q->flags & LV_RQ_KICK_POLL && bits & LV_BLOB_Q_BOUND)
		return "queue: guest notifications bound to no descriptor";
	return NULL;
}

static const char *check_queues(const struct lv_blob *b)
{
	const char *wrong = NULL;

	for (uint32_t i = 0; i < b->rec->num_queues && !wrong; i++)
		wrong = check_queue(b, &b->rec->queue[i], b->queue_bits[i]);
	return wrong;
}

static const char *check_device(const struct lv_blob *b)
{
	if (b->dev_flags & ~DEV_KNOWN || b->dev_bits & ~(uint32_t)D_KNOWN)
		return "device: unknown flags";
	if (b->num_objects && !(b->dev_flags & LIBVHOST_DEV_SHARED_OBJECTS))
		return "device: shared objects of one that has none";
	return b->ack_policy > LIBVHOST_ACK_NONE ? "device: no such acknowledgement policy" : NULL;
}

static const char *check_memory(const struct lv_blob *b)
{
	uint64_t free_from = 0, end;

	for (uint32_t i = 0; i < b->num_regions; i++) {
		const struct lv_blob_region *r = &b->regions[i];

		if (!r->size || r->gpa < free_from || __builtin_add_overflow(r->gpa, r->size, &end))
			return "memory: regions overlap, are out of order, empty or wrap";
		if (r->size > INT64_MAX || r->mmap_offset > INT64_MAX - r->size || r->user_addr > UINT64_MAX - r->size)
			return "memory: a region's file range or user address wraps";
		if (r->flags & ~LIBVHOST_REGION_READONLY)
			return "memory: unknown flags of a region";
		free_from = end;
	}
	return NULL;
}

static const char *check_connection(const struct lv_blob *b)
{
	const struct lv_connection *c = &b->conn;

	if (strncmp(c->uri, "user:", 5) && strncmp(c->uri, "user-listen:", 12) && strcmp(c->uri, "user-fd:"))
		return "connection: not the place of a vhost-user peer";
	if (is_snapshot(b) && (b->conn_channel || c->len || c->channel_len))
		return "connection: a snapshot has none";
	if (!b->conn_channel && (c->channel_len || c->channel_fds_dropped))
		return "connection: bytes of a channel that is not there";
	return NULL;
}

/* How many of each kind there are, by queue where there is one per queue. */
struct inventory {
	uint32_t single[LV_BLOB_FD_CONFIG_CALL + 1];
	uint8_t queue[5][LIBVHOST_MAX_QUEUES];
};

static const char *count_fds(const struct lv_blob *b, struct inventory *have)
{
	for (uint32_t i = 0; i < b->nfds; i++) {
		const struct lv_blob_fd *fd = &b->fds[i];
		const uint32_t per_queue = fd->kind - LV_BLOB_FD_KICK;

		if (per_queue < 5 && fd->index < b->rec->num_queues) {
			if (have->queue[per_queue][fd->index]++)
				return "descriptors: one of a queue comes twice";
		} else if (fd->kind && fd->kind <= LV_BLOB_FD_CONFIG_CALL) {
			const uint32_t expected = fd->kind == LV_BLOB_FD_MESSAGE ? have->single[fd->kind] : 0;

			if (fd->index != expected || (have->single[fd->kind]++ && fd->kind != LV_BLOB_FD_MESSAGE))
				return "descriptors: one comes twice or is out of order";
		} else {
			return "descriptors: unknown kind or queue";
		}
	}
	return NULL;
}

static const char *check_queue_fds(const struct lv_blob *b, const struct inventory *have, uint32_t i)
{
	const uint32_t flags = b->rec->queue[i].flags;
	const bool set = flags & LV_RQ_SET;

	if (have->queue[0][i] != (set && !(flags & LV_RQ_KICK_POLL)) ||
	    have->queue[1][i] != (set && !(flags & LV_RQ_CALL_POLL)))
		return "descriptors: kick or call of a queue does not fit its flags";
	if (have->queue[4][i] && (!set || !(b->dev_flags & LIBVHOST_DEV_HOST_NOTIFIERS)))
		return "descriptors: a doorbell of a queue that has none";
	if (!set && have->queue[2][i])
		return "descriptors: error descriptor of a queue that is not set up";
	if (flags & LV_RQ_MASKED && flags & LV_RQ_RUNNING && !have->queue[3][i])
		return "descriptors: the private call of a masked queue is missing";
	return NULL;
}

static const char *check_descriptors(const struct lv_blob *b)
{
	struct inventory have = {0};
	const char *wrong;

	if (is_snapshot(b))
		return b->nfds ? "descriptors: a snapshot has none" : NULL;
	wrong = count_fds(b, &have);
	if (wrong)
		return wrong;
	if (!have.single[LV_BLOB_FD_CONTROL])
		return "descriptors: the connection is missing";
	if (have.single[LV_BLOB_FD_LISTENER] && strncmp(b->conn.uri, "user-listen:", 12))
		return "descriptors: a listener without a place to listen at";
	if (!have.single[LV_BLOB_FD_CHANNEL] != !b->conn_channel)
		return "descriptors: the back-end channel does not fit the connection";
	if (have.single[LV_BLOB_FD_MESSAGE] > LV_CONNECTION_FDS ||
	    (have.single[LV_BLOB_FD_MESSAGE] && !b->conn.channel_len))
		return "descriptors: more than a request can carry";
	if (!have.single[LV_BLOB_FD_INFLIGHT] != !has(b, LV_RF_INFLIGHT))
		return "descriptors: the inflight region does not fit the record";
	if (!have.single[LV_BLOB_FD_LOG] != !has(b, LV_RF_LOG))
		return "descriptors: the log does not fit the record";
	for (uint32_t i = 0; i < b->rec->num_queues && !wrong; i++)
		wrong = check_queue_fds(b, &have, i);
	return wrong;
}

int lv_blob_check(struct lv_errslot *err, const struct lv_blob *b)
{
	static const char *(*const checks[])(const struct lv_blob *) = {
		check_record, check_queues, check_device, check_memory, check_connection, check_descriptors,
	};
	const char *wrong = NULL;

	if (b->flags & ~LIBVHOST_FREEZE_SNAPSHOT)
		wrong = "unknown flags in the header";
	else if (!is_snapshot(b) && b->inflight)
		wrong = "an inflight region by value in a blob that is no snapshot";
	for (size_t i = 0; i < sizeof(checks) / sizeof(checks[0]) && !wrong; i++)
		wrong = checks[i](b);
	return wrong ? lv_fail(err, -EBADMSG, LIBVHOST_EK_DAMAGED, "blob: %s", wrong) : 0;
}
