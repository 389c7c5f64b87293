/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* Reading a blob: header, checksum, then each section once. What the fields say together is checked in blob_rules.c. */
#include "device/blob_rules.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* A section's payload; reading past its end yields zeros and is noticed. */
struct get {
	const uint8_t *at;
	size_t left;
	bool cut;
};

static const uint8_t *get_bytes(struct get *g, size_t n)
{
	const uint8_t *at = g->at;

	if (n > g->left) {
		g->cut = true;
		g->left = 0;
		return NULL;
	}
	g->at += n;
	g->left -= n;
	return at;
}

static uint64_t get_le(struct get *g, size_t n)
{
	const uint8_t *at = get_bytes(g, n);
	uint64_t value = 0;

	for (size_t i = 0; at && i < n; i++)
		value |= (uint64_t)at[i] << 8 * i;
	return value;
}

static uint32_t get32(struct get *g)
{
	return (uint32_t)get_le(g, 4);
}

static uint64_t get64(struct get *g)
{
	return get_le(g, 8);
}

static void get_into(struct get *g, void *to, size_t n)
{
	const uint8_t *at = get_bytes(g, n);

	if (at)
		memcpy(to, at, n);
}

/* NULL, or what is wrong. */
typedef const char *(*decode_fn)(struct get *g, struct lv_blob *b);

static const char *get_writer(struct get *g, struct lv_blob *b)
{
	get_into(g, b->written_by, sizeof(b->written_by));
	return b->written_by[sizeof(b->written_by) - 1] ? "a version text without end" : NULL;
}

static const char *get_record(struct get *g, struct lv_blob *b)
{
	const uint32_t virtio_id = get32(g), num_queues = get32(g);
	struct lv_record *r;

	if (!num_queues || num_queues > LIBVHOST_MAX_QUEUES)
		return "the number of queues is not 1..256";
	r = b->rec = lv_record_new(virtio_id, num_queues);
	if (!r)
		return lv_blob_nomem;
	r->dialect = LIBVHOST_DIALECT_USER;
	r->flags = get32(g);
	r->max_queues = get32(g);
	r->max_regions = get32(g);
	r->status = get32(g);
	r->config_len = get32(g);
	r->config_size = get32(g);
	for (unsigned i = 0; i < LIBVHOST_FEATURE_WORDS; i++)
		r->offered[i] = get64(g);
	for (unsigned i = 0; i < LIBVHOST_FEATURE_WORDS; i++)
		r->acked[i] = get64(g);
	r->protocol_offered = get64(g);
	r->protocol_acked = get64(g);
	r->generation = get64(g);
	r->log_bytes = get64(g);
	r->inflight_bytes = get64(g);
	r->inflight_offset = get64(g);
	r->inflight_queues = get32(g);
	r->inflight_num = get32(g);
	get_into(g, r->config, sizeof(r->config));
	return NULL;
}

/* Count and entry size of an array; the entries are there completely afterwards. */
static const char *get_array(struct get *g, uint32_t max, uint32_t min_bytes, uint32_t *count, uint32_t *skip)
{
	uint32_t bytes;

	*count = get32(g);
	bytes = get32(g);
	if (g->cut || *count > max || bytes < min_bytes || (uint64_t)*count * bytes > g->left)
		return "the number or size of its entries is impossible";
	*skip = bytes - min_bytes;
	return NULL;
}

static const char *get_queues(struct get *g, struct lv_blob *b)
{
	uint32_t count, skip;
	const char *wrong = get_array(g, LIBVHOST_MAX_QUEUES, LV_BLOB_QUEUE_BYTES, &count, &skip);

	if (wrong)
		return wrong;
	if (!b->rec || count != b->rec->num_queues)
		return "it has another number of queues than the record";
	for (uint32_t i = 0; i < count; i++, get_bytes(g, skip)) {
		struct lv_record_queue *q = &b->rec->queue[i];
		uint32_t bits;

		q->flags = get32(g);
		q->num = get32(g);
		q->base = get32(g);
		bits = get32(g);
		if (bits & ~(uint32_t)(LV_BLOB_Q_ERR_OURS | LV_BLOB_Q_BOUND))
			return "unknown bits of a queue";
		b->queue_bits[i] = (uint8_t)bits;
		q->desc = get64(g);
		q->avail = get64(g);
		q->used = get64(g);
		b->doorbell[i] = get64(g);
	}
	return NULL;
}

static const char *get_device(struct get *g, struct lv_blob *b)
{
	b->dev_flags = get32(g);
	b->ack_policy = get32(g);
	b->dev_bits = get32(g);
	get32(g);
	b->protocol_never = get64(g);
	return NULL;
}

static const char *get_memory(struct get *g, struct lv_blob *b)
{
	uint32_t skip;
	const char *wrong = get_array(g, LIBVHOST_MAX_REGIONS, LV_BLOB_REGION_BYTES, &b->num_regions, &skip);

	if (wrong)
		return wrong;
	b->has_memory = true;
	for (uint32_t i = 0; i < b->num_regions; i++, get_bytes(g, skip)) {
		struct lv_blob_region *r = &b->regions[i];

		r->gpa = get64(g);
		r->size = get64(g);
		r->user_addr = get64(g);
		r->mmap_offset = get64(g);
		r->dev = get64(g);
		r->ino = get64(g);
		r->flags = get32(g);
		get32(g);
	}
	return NULL;
}

static const char *get_connection(struct get *g, struct lv_blob *b)
{
	struct lv_connection *c = &b->conn;
	uint32_t bits, uri;

	c->session.protocol_features = get64(g);
	bits = get32(g);
	uri = get32(g);
	c->len = get32(g);
	c->channel_len = get32(g);
	c->channel_fds_dropped = get32(g);
	get32(g);
	if (bits & ~(uint32_t)(LV_BLOB_C_F30_OFFERED | LV_BLOB_C_F30_ACKED | LV_BLOB_C_CHANNEL))
		return "unknown bits of the connection";
	if (uri >= sizeof(c->uri) || c->len > LV_CONNECTION_BYTES || c->channel_len > LV_CONNECTION_BYTES)
		return "a length is too large";
	c->session.f30_offered = bits & LV_BLOB_C_F30_OFFERED;
	c->session.f30_acked = bits & LV_BLOB_C_F30_ACKED;
	b->conn_channel = bits & LV_BLOB_C_CHANNEL;
	get_into(g, c->uri, uri);
	c->bytes = get_bytes(g, c->len);
	c->channel_bytes = get_bytes(g, c->channel_len);
	return strlen(c->uri) != uri && !g->cut ? "a place with a 0 in it" : NULL;
}

static const char *get_descriptors(struct get *g, struct lv_blob *b)
{
	uint32_t skip, count;
	const char *wrong = get_array(g, LV_BLOB_FDS, LV_BLOB_FD_BYTES, &count, &skip);

	if (wrong)
		return wrong;
	if (count != b->nfds)
		return "it has another number of descriptors than the header";
	for (uint32_t i = 0; i < count; i++, get_bytes(g, skip)) {
		b->fds[i].kind = get32(g);
		b->fds[i].index = get32(g);
	}
	return NULL;
}

static const char *get_inflight(struct get *g, struct lv_blob *b)
{
	b->inflight_len = g->left;
	b->inflight = get_bytes(g, g->left);
	return NULL;
}

static const char *get_objects(struct get *g, struct lv_blob *b)
{
	uint32_t skip;
	const char *wrong = get_array(g, LV_OBJECTS_OF_DEVICE, LV_BLOB_OBJECT_BYTES, &b->num_objects, &skip);

	for (uint32_t i = 0; i < b->num_objects && !wrong; i++, get_bytes(g, skip))
		get_into(g, b->objects[i], LV_BLOB_OBJECT_BYTES);
	return wrong;
}

static const char *get_reconnect(struct get *g, struct lv_blob *b)
{
	struct libvhost_reconnect_policy *p = &b->policy;

	p->size = sizeof(*p);
	p->mode = get32(g);
	p->attempts = get32(g);
	p->first_ms = get32(g);
	p->max_ms = get32(g);
	p->jitter_percent = get32(g);
	get32(g);
	return NULL;
}

static const struct {
	const char *name;
	decode_fn decode;
	bool required;
} known[] = {
	[LV_BLOB_WRITER] = {"writer", get_writer, true},
	[LV_BLOB_RECORD] = {"record", get_record, true},
	[LV_BLOB_QUEUES] = {"queues", get_queues, true},
	[LV_BLOB_DEVICE] = {"device", get_device, true},
	[LV_BLOB_MEMORY] = {"memory", get_memory, false},
	[LV_BLOB_CONNECTION] = {"connection", get_connection, true},
	[LV_BLOB_DESCRIPTORS] = {"descriptors", get_descriptors, true},
	[LV_BLOB_INFLIGHT] = {"inflight", get_inflight, false},
	[LV_BLOB_OBJECTS] = {"objects", get_objects, false},
	[LV_BLOB_RECONNECT] = {"reconnect", get_reconnect, false},
};
#define KNOWN (sizeof(known) / sizeof(known[0]))

static int damaged(struct lv_errslot *err, const char *what)
{
	return lv_fail(err, -EBADMSG, LIBVHOST_EK_DAMAGED, "blob: %s", what);
}

static int read_section(struct lv_errslot *err, struct lv_blob *b, uint32_t type, struct get payload)
{
	const char *wrong = known[type].decode(&payload, b);

	if (wrong == lv_blob_nomem)
		return lv_fail(err, -ENOMEM, LIBVHOST_EK_NOMEM, "blob: out of memory");
	if (!wrong && payload.cut)
		wrong = "it ends too early";
	if (!wrong)
		return 0;
	return lv_fail(err, -EBADMSG, LIBVHOST_EK_DAMAGED, "blob: section %u (%s): %s", type, known[type].name, wrong);
}

/* One section off the front of the rest. */
static int take_section(struct lv_errslot *err, struct lv_blob *b, struct get *rest, uint32_t *seen)
{
	const uint32_t type = get32(rest), flags = get32(rest);
	const uint64_t length = get64(rest);
	struct get payload = {.at = rest->at};
	const uint8_t *padding;
	size_t pad;

	if (rest->cut || length > rest->left)
		return damaged(err, "a section reaches beyond the end");
	payload.left = (size_t)length;
	get_bytes(rest, payload.left);
	pad = (size_t)(-length & 7);
	padding = get_bytes(rest, pad);
	for (size_t i = 0; padding && i < pad; i++)
		if (padding[i])
			return damaged(err, "padding that is not 0");
	if (rest->cut)
		return damaged(err, "the last section is not padded");
	if (type < KNOWN && known[type].decode) {
		if (*seen & 1u << type)
			return damaged(err, "a section comes twice");
		*seen |= 1u << type;
		return read_section(err, b, type, payload);
	}
	if (flags & LV_BLOB_SECTION_NEEDED)
		return lv_fail(err, -ENOTSUP, LIBVHOST_EK_UNSUPPORTED,
			       "blob: section %u, which libvhost %s does not know, must not be left out; thaw it with "
			       "the version that wrote it (%s) or a newer one",
			       type, libvhost_version_string(), b->written_by[0] ? b->written_by : "not told");
	return 0;
}

static int read_sections(struct lv_errslot *err, struct lv_blob *b, struct get rest, uint32_t count)
{
	uint32_t seen = 0;

	for (uint32_t i = 0; i < count; i++) {
		int r = take_section(err, b, &rest, &seen);

		if (r)
			return r;
	}
	if (rest.left)
		return damaged(err, "bytes behind the last section");
	for (uint32_t type = 0; type < KNOWN; type++)
		if (known[type].required && !(seen & 1u << type))
			return lv_fail(err, -EBADMSG, LIBVHOST_EK_DAMAGED, "blob: section %u (%s) is missing", type,
				       known[type].name);
	return lv_blob_check(err, b);
}

/* Everything that can be told before a section is looked at. The checksum comes before the version, so that damage is
 * never taken for another version: all majors keep magic, length and checksum where they are. */
static int read_header(struct lv_errslot *err, const void *buf, size_t len, struct lv_blob *b, uint32_t *sections)
{
	struct get g = {.at = buf, .left = len};
	uint32_t major, crc;
	uint64_t total;

	if (len < LV_BLOB_HEADER || memcmp(get_bytes(&g, 8), "LVFREEZE", 8))
		return damaged(err, "this is not the blob of a frozen device");
	major = get32(&g);
	b->minor = get32(&g);
	total = get64(&g);
	b->flags = get32(&g);
	b->nfds = get32(&g);
	*sections = get32(&g);
	crc = get32(&g);
	if (total != len)
		return lv_fail(err, -EBADMSG, LIBVHOST_EK_DAMAGED,
			       "blob: %zu bytes, but its header says %" PRIu64 ": cut, or more than the blob", len,
			       total);
	if (crc != lv_blob_crc(buf, len))
		return damaged(err, "the checksum is wrong: damaged");
	if (major != LV_BLOB_MAJOR)
		return lv_fail(err, -ENOTSUP, LIBVHOST_EK_UNSUPPORTED, "blob: format %u.%u; libvhost %s reads %u",
			       major, b->minor, libvhost_version_string(), LV_BLOB_MAJOR);
	return 0;
}

int lv_blob_decode(struct lv_errslot *err, const void *buf, size_t len, struct lv_blob **ret)
{
	struct lv_blob *b = calloc(1, sizeof(*b));
	uint32_t sections = 0;
	struct get rest;
	int r;

	if (!b)
		return lv_fail(err, -ENOMEM, LIBVHOST_EK_NOMEM, "blob: out of memory");
	r = read_header(err, buf, len, b, &sections);
	if (!r) {
		rest = (struct get){.at = (const uint8_t *)buf + LV_BLOB_HEADER, .left = len - LV_BLOB_HEADER};
		b->conn.sock = b->conn.listener = b->conn.channel = -1;
		r = read_sections(err, b, rest, sections);
	}
	if (r)
		lv_blob_free(b);
	else
		*ret = b;
	return r;
}
