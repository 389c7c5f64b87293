/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* Writing a blob: one pass, which only counts where there is no room. Field order is the format: docs/freeze.md. */
#include "device/blob.h"

#include <stdlib.h>
#include <string.h>
#include <vhost/version.h>

/* The record's flags are written as they are. */
_Static_assert(LV_RQ_SET == 1 && LV_RQ_DISABLED == 2 && LV_RQ_MASKED == 4 && LV_RQ_KICK_POLL == 8 &&
		       LV_RQ_CALL_POLL == 16 && LV_RQ_RUNNING == 32 && LV_RQ_BASE_STALE == 64 && LV_RQ_HELD == 128 &&
		       LV_RQ_BASE_GIVEN == 512,
	       "numbers of the blob format");
_Static_assert(LV_RF_RUNNING == 1 && LV_RF_NEGOTIATED == 2 && LV_RF_LOG == 4 && LV_RF_INFLIGHT == 8 &&
		       LV_RF_INFLIGHT_PACKED == 16,
	       "numbers of the blob format");

struct put {
	uint8_t *buf;
	size_t cap, len;
};

static void put_bytes(struct put *p, const void *data, size_t n)
{
	if (n && p->len <= p->cap && n <= p->cap - p->len)
		memcpy(p->buf + p->len, data, n);
	p->len += n;
}

static void put_le(struct put *p, uint64_t value, size_t n)
{
	uint8_t bytes[8];

	for (size_t i = 0; i < n; i++)
		bytes[i] = (uint8_t)(value >> 8 * i);
	put_bytes(p, bytes, n);
}

static void put32(struct put *p, uint32_t value)
{
	put_le(p, value, 4);
}

static void put64(struct put *p, uint64_t value)
{
	put_le(p, value, 8);
}

/* Overwrites a field written before. */
static void put_at(struct put *p, size_t at, uint64_t value, size_t n)
{
	const size_t len = p->len;

	p->len = at;
	put_le(p, value, n);
	p->len = len;
}

static size_t begin(struct put *p, uint32_t type)
{
	put32(p, type);
	put32(p, type == LV_BLOB_WRITER || type == LV_BLOB_RECONNECT ? 0 : LV_BLOB_SECTION_NEEDED);
	put64(p, 0);
	return p->len;
}

static void end(struct put *p, size_t began)
{
	static const uint8_t zeros[8];

	put_at(p, began - 8, p->len - began, 8);
	put_bytes(p, zeros, -p->len & 7);
}

static void put_writer(struct put *p, const struct lv_blob *b)
{
	const size_t s = begin(p, LV_BLOB_WRITER);

	put_bytes(p, b->written_by, sizeof(b->written_by));
	end(p, s);
}

static void put_record(struct put *p, const struct lv_record *r)
{
	const size_t s = begin(p, LV_BLOB_RECORD);

	put32(p, r->virtio_id);
	put32(p, r->num_queues);
	put32(p, r->flags);
	put32(p, r->max_queues);
	put32(p, r->max_regions);
	put32(p, r->status);
	put32(p, r->config_len);
	put32(p, r->config_size);
	for (unsigned i = 0; i < LIBVHOST_FEATURE_WORDS; i++)
		put64(p, r->offered[i]);
	for (unsigned i = 0; i < LIBVHOST_FEATURE_WORDS; i++)
		put64(p, r->acked[i]);
	put64(p, r->protocol_offered);
	put64(p, r->protocol_acked);
	put64(p, r->generation);
	put64(p, r->log_bytes);
	put64(p, r->inflight_bytes);
	put64(p, r->inflight_offset);
	put32(p, r->inflight_queues);
	put32(p, r->inflight_num);
	put_bytes(p, r->config, sizeof(r->config));
	end(p, s);
}

static void put_queues(struct put *p, const struct lv_blob *b)
{
	const size_t s = begin(p, LV_BLOB_QUEUES);

	put32(p, b->rec->num_queues);
	put32(p, LV_BLOB_QUEUE_BYTES);
	for (uint32_t i = 0; i < b->rec->num_queues; i++) {
		const struct lv_record_queue *q = &b->rec->queue[i];

		put32(p, q->flags);
		put32(p, q->num);
		put32(p, q->base);
		put32(p, b->queue_bits[i]);
		put64(p, q->desc);
		put64(p, q->avail);
		put64(p, q->used);
		put64(p, b->doorbell[i]);
	}
	end(p, s);
}

static void put_device(struct put *p, const struct lv_blob *b)
{
	const size_t s = begin(p, LV_BLOB_DEVICE);

	put32(p, b->dev_flags);
	put32(p, b->ack_policy);
	put32(p, b->dev_bits);
	put32(p, 0);
	put64(p, b->protocol_never);
	end(p, s);
}

static void put_memory(struct put *p, const struct lv_blob *b)
{
	const size_t s = begin(p, LV_BLOB_MEMORY);

	put32(p, b->num_regions);
	put32(p, LV_BLOB_REGION_BYTES);
	for (uint32_t i = 0; i < b->num_regions; i++) {
		const struct lv_blob_region *r = &b->regions[i];

		put64(p, r->gpa);
		put64(p, r->size);
		put64(p, r->user_addr);
		put64(p, r->mmap_offset);
		put64(p, r->dev);
		put64(p, r->ino);
		put32(p, r->flags);
		put32(p, 0);
	}
	end(p, s);
}

static void put_connection(struct put *p, const struct lv_blob *b)
{
	const struct lv_connection *c = &b->conn;
	const size_t s = begin(p, LV_BLOB_CONNECTION), uri = strlen(c->uri);

	put64(p, c->session.protocol_features);
	put32(p, (c->session.f30_offered ? LV_BLOB_C_F30_OFFERED : 0) |
			 (c->session.f30_acked ? LV_BLOB_C_F30_ACKED : 0) | (b->conn_channel ? LV_BLOB_C_CHANNEL : 0));
	put32(p, (uint32_t)uri);
	put32(p, c->len);
	put32(p, c->channel_len);
	put32(p, c->channel_fds_dropped);
	put32(p, 0);
	put_bytes(p, c->uri, uri);
	put_bytes(p, c->bytes, c->len);
	put_bytes(p, c->channel_bytes, c->channel_len);
	end(p, s);
}

static void put_descriptors(struct put *p, const struct lv_blob *b)
{
	const size_t s = begin(p, LV_BLOB_DESCRIPTORS);

	put32(p, b->nfds);
	put32(p, LV_BLOB_FD_BYTES);
	for (uint32_t i = 0; i < b->nfds; i++) {
		put32(p, b->fds[i].kind);
		put32(p, b->fds[i].index);
	}
	end(p, s);
}

static void put_reconnect(struct put *p, const struct libvhost_reconnect_policy *policy)
{
	const size_t s = begin(p, LV_BLOB_RECONNECT);

	put32(p, policy->mode);
	put32(p, policy->attempts);
	put32(p, policy->first_ms);
	put32(p, policy->max_ms);
	put32(p, policy->jitter_percent);
	put32(p, 0);
	end(p, s);
}

static void put_objects(struct put *p, const struct lv_blob *b)
{
	const size_t s = begin(p, LV_BLOB_OBJECTS);

	put32(p, b->num_objects);
	put32(p, LV_BLOB_OBJECT_BYTES);
	for (uint32_t i = 0; i < b->num_objects; i++)
		put_bytes(p, b->objects[i], LV_BLOB_OBJECT_BYTES);
	end(p, s);
}

static void put_inflight(struct put *p, const struct lv_blob *b)
{
	const size_t s = begin(p, LV_BLOB_INFLIGHT);

	put_bytes(p, b->inflight, b->inflight_len);
	end(p, s);
}

/* CRC-32C, reflected, polynomial 0x1EDC6F41 (RFC 3720, appendix B.4). */
static uint32_t crc_bytes(const uint32_t table[256], uint32_t crc, const uint8_t *at, size_t n)
{
	while (n--)
		crc = crc >> 8 ^ table[(crc ^ *at++) & 0xff];
	return crc;
}

uint32_t lv_blob_crc(const void *buf, size_t len)
{
	static const uint8_t field[4];
	const uint8_t *at = buf;
	uint32_t table[256], crc;

	for (uint32_t i = 0; i < 256; i++) {
		crc = i;
		for (int bit = 0; bit < 8; bit++)
			crc = crc >> 1 ^ (crc & 1 ? 0x82f63b78u : 0);
		table[i] = crc;
	}
	crc = crc_bytes(table, 0xffffffffu, at, LV_BLOB_CRC_AT);
	crc = crc_bytes(table, crc, field, sizeof(field));
	return ~crc_bytes(table, crc, at + LV_BLOB_HEADER, len - LV_BLOB_HEADER);
}

size_t lv_blob_encode(const struct lv_blob *b, void *buf, size_t cap)
{
	struct put p = {.buf = buf, .cap = cap};
	const uint32_t sections =
		6u + b->has_memory + (b->inflight_len > 0) + (b->num_objects > 0) + (b->policy.size > 0);

	put_bytes(&p, "LVFREEZE", 8);
	put32(&p, LV_BLOB_MAJOR);
	put32(&p, LV_BLOB_MINOR);
	put64(&p, 0);
	put32(&p, b->flags);
	put32(&p, b->nfds);
	put32(&p, sections);
	put32(&p, 0);
	put_writer(&p, b);
	put_record(&p, b->rec);
	put_queues(&p, b);
	put_device(&p, b);
	if (b->has_memory)
		put_memory(&p, b);
	put_connection(&p, b);
	put_descriptors(&p, b);
	if (b->inflight_len)
		put_inflight(&p, b);
	if (b->num_objects)
		put_objects(&p, b);
	if (b->policy.size)
		put_reconnect(&p, &b->policy);
	put_at(&p, 16, p.len, 8);
	if (p.len <= cap)
		put_at(&p, LV_BLOB_CRC_AT, lv_blob_crc(buf, p.len), 4);
	return p.len;
}

int lv_blob_find_fd(const struct lv_blob *b, enum lv_blob_fd_kind kind, uint32_t index)
{
	for (uint32_t i = 0; i < b->nfds; i++)
		if (b->fds[i].kind == (uint32_t)kind && b->fds[i].index == index)
			return (int)i;
	return -1;
}

void lv_blob_free(struct lv_blob *b)
{
	if (!b)
		return;
	free(b->rec);
	free(b);
}
