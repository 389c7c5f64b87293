/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* The blob as bytes: damage, hostile contents under a right checksum, older and newer writers. */
#include "upgrade.h"

#include <errno.h>
#include <stdlib.h>
#include "device/blob.h"

#define SECTION_HEADER 16u

static void put_le(uint8_t *at, uint64_t value, unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		at[i] = (uint8_t)(value >> 8 * i);
}

static uint64_t get_le(const uint8_t *at, unsigned n)
{
	uint64_t value = 0;

	for (unsigned i = 0; i < n; i++)
		value |= (uint64_t)at[i] << 8 * i;
	return value;
}

/* A running device, frozen: the blob stays, the descriptors go. */
static void frozen(struct upgrade *u)
{
	up_init(u);
	up_open(u, 3, true);
	CHECK_EQ(libvhost_virtqueue_mask(u->w.r.dev, 1, 1), 0);
	CHECK_EQ(up_freeze(u, 0), 0);
}

static int ask(struct upgrade *u, struct libvhost_freeze_info *info)
{
	info->size = sizeof(*info);
	return libvhost_freeze_info(u->w.r.g.ctx, u->blob, u->len, info);
}

static struct libvhost_error error_of(struct upgrade *u)
{
	struct libvhost_error e = {.size = sizeof(e)};

	CHECK_EQ(libvhost_ctx_error(u->w.r.g.ctx, &e), 0);
	return e;
}

static void finish(struct upgrade *u)
{
	up_drop(u);
	up_close(u);
}

/* Payload of a section and its length field. */
static uint8_t *section(struct upgrade *u, uint32_t type, uint8_t **length)
{
	for (size_t at = LV_BLOB_HEADER; at < u->len;) {
		const uint64_t len = get_le(u->blob + at + 8, 8);

		if (get_le(u->blob + at, 4) == type) {
			if (length)
				*length = u->blob + at + 8;
			return u->blob + at + SECTION_HEADER;
		}
		at += SECTION_HEADER + (len + 7) / 8 * 8;
	}
	CHECK(false);
	return NULL;
}

TEST(device_blob, describes_itself)
{
	struct libvhost_freeze_info i = {.size = sizeof(i)};
	struct upgrade u;

	frozen(&u);
	CHECK_EQ(ask(&u, &i), 0);
	CHECK_EQ(i.major, 1);
	CHECK_EQ(i.flags, 0);
	CHECK_EQ(i.num_queues, 3);
	CHECK_EQ(i.nfds, u.nfds);
	CHECK_EQ(i.running, 1);
	CHECK_EQ(i.num_regions, 1);
	CHECK_STR(i.written_by, libvhost_version_string());
	CHECK_STR(i.uri, u.w.uri);
	CHECK_EQ(libvhost_freeze_info(NULL, u.blob, u.len, &i), -EINVAL);
	CHECK_EQ(libvhost_freeze_info(u.w.r.g.ctx, NULL, u.len, &i), -EINVAL);
	CHECK_EQ(libvhost_freeze_info(u.w.r.g.ctx, u.blob, u.len, NULL), -EINVAL);
	i.size = 8;
	CHECK_EQ(libvhost_freeze_info(u.w.r.g.ctx, u.blob, u.len, &i), -EINVAL);
	finish(&u);
}

TEST(device_blob, decoding_and_encoding_agree)
{
	struct lv_blob *b = NULL;
	struct upgrade u;
	uint8_t *again;

	frozen(&u);
	CHECK_EQ(lv_blob_decode(NULL, u.blob, u.len, &b), 0);
	CHECK_EQ(lv_blob_encode(b, NULL, 0), u.len);
	again = malloc(u.len);
	CHECK_EQ(lv_blob_encode(b, again, u.len), u.len);
	CHECK_MEM(again, u.blob, u.len);
	CHECK_EQ(lv_blob_find_fd(b, LV_BLOB_FD_CONTROL, 0), 0);
	CHECK(lv_blob_find_fd(b, LV_BLOB_FD_MASKED, 1) > 0);
	CHECK_EQ(lv_blob_find_fd(b, LV_BLOB_FD_LOG, 0), -1);
	free(again);
	lv_blob_free(b);
	finish(&u);
}

static void damaged(struct upgrade *u)
{
	struct libvhost_freeze_info i;
	struct libvhost_dev *dev = NULL;

	CHECK_EQ(ask(u, &i), -EBADMSG);
	CHECK_EQ(error_of(u).kind, LIBVHOST_EK_DAMAGED);
	CHECK_EQ(error_of(u).code, -EBADMSG);
	u->thaw.blob = u->blob;
	u->thaw.blob_len = u->len;
	CHECK_EQ(libvhost_dev_thaw(u->w.r.g.ctx, &u->thaw, &dev), -EBADMSG);
	CHECK(!dev);
}

TEST(device_blob, each_byte_flipped_is_refused)
{
	struct upgrade u;

	frozen(&u);
	up_next_guest(&u);
	for (size_t at = 0; at < u.len; at++)
		for (unsigned bit = 1; bit < 512; bit *= 2) {
			const uint8_t flip = bit == 256 ? 0xff : (uint8_t)bit;

			u.blob[at] ^= flip;
			damaged(&u);
			u.blob[at] ^= flip;
		}
	u.thaw.blob_len = u.len;
	CHECK_EQ(up_thaw(&u), 0); /* it was the blob indeed */
	up_close(&u);
}

TEST(device_blob, each_length_is_refused)
{
	struct upgrade u;
	size_t whole;
	uint8_t *all;

	frozen(&u);
	up_next_guest(&u);
	whole = u.len;
	all = u.blob;
	for (size_t len = 0; len <= whole + 8; len++) {
		if (len == whole)
			continue;
		u.blob = calloc(1, len + 1); /* of its own, so that a sanitizer sees a step beyond the end */
		memcpy(u.blob, all, len < whole ? len : whole);
		u.blob = realloc(u.blob, len ? len : 1);
		u.len = len;
		damaged(&u);
		free(u.blob);
	}
	u.blob = all;
	u.len = whole;
	guest_free(&u.next);
	finish(&u);
}

TEST(device_blob, other_majors_are_named)
{
	struct libvhost_freeze_info i;
	struct upgrade u;

	frozen(&u);
	put_le(u.blob + 8, 2, 4);
	up_seal(&u);
	CHECK_EQ(ask(&u, &i), -ENOTSUP);
	CHECK_HAS(error_of(&u).text, "format 2.");
	put_le(u.blob + 8, 1, 4);
	put_le(u.blob + 12, 9, 4);
	up_seal(&u);
	CHECK_EQ(ask(&u, &i), 0);
	CHECK_EQ(i.minor, 9);
	finish(&u);
}

/* Puts bytes into the blob and adjusts what says how long it is. */
static void insert(struct upgrade *u, size_t at, const uint8_t *bytes, size_t n, unsigned sections)
{
	u->blob = realloc(u->blob, u->len + n);
	memmove(u->blob + at + n, u->blob + at, u->len - at);
	memcpy(u->blob + at, bytes, n);
	u->len += n;
	put_le(u->blob + 16, u->len, 8);
	put_le(u->blob + 32, get_le(u->blob + 32, 4) + sections, 4);
	up_seal(u);
}

TEST(device_blob, a_newer_writer_may_add_sections_and_fields)
{
	uint8_t extra[24] = {0}, field[8] = {1, 2, 3, 4, 5, 6, 7, 8}, *length, *payload;
	struct libvhost_freeze_info i;
	struct upgrade u;

	frozen(&u);
	put_le(extra, 77, 4);
	put_le(extra + 8, 5, 8);
	insert(&u, LV_BLOB_HEADER, extra, sizeof(extra), 1);
	CHECK_EQ(ask(&u, &i), 0);
	payload = section(&u, LV_BLOB_DEVICE, &length);
	put_le(length, get_le(length, 8) + 8, 8);
	insert(&u, (size_t)(payload - u.blob) + 24, field, sizeof(field), 0);
	CHECK_EQ(ask(&u, &i), 0);
	u.blob[LV_BLOB_HEADER + 4] = LV_BLOB_SECTION_NEEDED;
	up_seal(&u);
	CHECK_EQ(ask(&u, &i), -ENOTSUP);
	CHECK_HAS(error_of(&u).text, "section 77");
	u.blob[LV_BLOB_HEADER + 4] = 0;
	u.blob[LV_BLOB_HEADER + SECTION_HEADER + 6] = 1; /* padding */
	up_seal(&u);
	CHECK_EQ(ask(&u, &i), -EBADMSG);
	finish(&u);
}

TEST(device_blob, sections_come_once_and_all)
{
	struct libvhost_freeze_info i;
	struct upgrade u;
	uint8_t *type;

	frozen(&u);
	type = section(&u, LV_BLOB_QUEUES, NULL) - SECTION_HEADER;
	put_le(type, LV_BLOB_RECORD, 4);
	up_seal(&u);
	CHECK_EQ(ask(&u, &i), -EBADMSG);
	CHECK_HAS(error_of(&u).text, "twice");
	put_le(type, 99, 4);
	put_le(type + 4, 0, 4);
	up_seal(&u);
	CHECK_EQ(ask(&u, &i), -EBADMSG);
	CHECK_HAS(error_of(&u).text, "(queues) is missing");
	finish(&u);
}

/* What a hostile writer could put in, with a right checksum. */
struct lie {
	uint32_t type, offset, bytes;
	uint64_t value;
	const char *text;
};

static const struct lie lies[] = {
	{LV_BLOB_WRITER, 15, 1, 'x', "version text"},
	{LV_BLOB_RECORD, 4, 4, 0, "number of queues"},
	{LV_BLOB_RECORD, 4, 4, 257, "number of queues"},
	{LV_BLOB_RECORD, 4, 4, 2, "another number of queues"},
	{LV_BLOB_RECORD, 8, 4, 1u << 31, "unknown flags"},
	{LV_BLOB_RECORD, 8, 4, LV_RF_RUNNING, "ever negotiated"},
	{LV_BLOB_RECORD, 8, 4, LV_RF_NEGOTIATED, "runs while the device"},
	{LV_BLOB_RECORD, 8, 4, LV_RF_NEGOTIATED | LV_RF_RUNNING | LV_RF_INFLIGHT, "inflight region"},
	{LV_BLOB_RECORD, 8, 4, LV_RF_NEGOTIATED | LV_RF_RUNNING | LV_RF_LOG, "log"},
	{LV_BLOB_RECORD, 12, 4, 300, "limits"},
	{LV_BLOB_RECORD, 16, 4, 513, "limits"},
	{LV_BLOB_RECORD, 24, 4, 257, "configuration space"},
	{LV_BLOB_RECORD, 28, 4, 4097, "configuration space"},
	{LV_BLOB_RECORD, 128, 8, 1ull << 63, "inflight"},
	{LV_BLOB_RECORD, 136, 8, 1ull << 63, "inflight"},
	{LV_BLOB_RECORD, 144, 4, 257, "inflight"},
	{LV_BLOB_RECORD, 148, 4, 32769, "inflight"},
	{LV_BLOB_QUEUES, 0, 4, 4, "impossible"},
	{LV_BLOB_QUEUES, 0, 4, UINT32_MAX, "impossible"},
	{LV_BLOB_QUEUES, 4, 4, 47, "impossible"},
	{LV_BLOB_QUEUES, 4, 4, UINT32_MAX, "impossible"},
	{LV_BLOB_QUEUES, 8, 4, 1u << 30 | LV_RQ_SET, "unknown flags"},
	{LV_BLOB_QUEUES, 8, 4, LV_RQ_RUNNING, "not set up"},
	{LV_BLOB_QUEUES, 8, 4, LV_RQ_SET | LV_RQ_KICK_POLL, "kick or call"},
	{LV_BLOB_QUEUES, 8, 4, LV_RQ_SET | LV_RQ_CALL_POLL, "kick or call"},
	{LV_BLOB_QUEUES, 8, 4, 0, "kick or call"},
	{LV_BLOB_QUEUES, 8, 4, LV_RQ_SET | LV_RQ_MASKED | LV_RQ_RUNNING, "masked queue"},
	{LV_BLOB_QUEUES, 12, 4, 0, "entries"},
	{LV_BLOB_QUEUES, 12, 4, 32769, "entries"},
	{LV_BLOB_QUEUES, 20, 4, 4, "unknown bits"},
	{LV_BLOB_DEVICE, 0, 4, LIBVHOST_DEV_ASYNC, "unknown flags"},
	{LV_BLOB_DEVICE, 4, 4, 3, "policy"},
	{LV_BLOB_DEVICE, 8, 4, 16, "unknown flags"},
	{LV_BLOB_MEMORY, 0, 4, 513, "impossible"},
	{LV_BLOB_MEMORY, 0, 4, 2, "impossible"},
	{LV_BLOB_MEMORY, 16, 8, 0, "overlap"},
	{LV_BLOB_MEMORY, 8, 8, UINT64_MAX - 100, "overlap"},
	{LV_BLOB_MEMORY, 24, 8, UINT64_MAX - 100, "wraps"},
	{LV_BLOB_MEMORY, 32, 8, INT64_MAX, "wraps"},
	{LV_BLOB_MEMORY, 56, 4, 4, "unknown flags"},
	{LV_BLOB_CONNECTION, 8, 4, 8, "unknown bits"},
	{LV_BLOB_CONNECTION, 8, 4, 3, "channel"},
	{LV_BLOB_CONNECTION, 12, 4, 128, "too large"},
	{LV_BLOB_CONNECTION, 12, 4, 127, "too early"},
	{LV_BLOB_CONNECTION, 16, 4, 16385, "too large"},
	{LV_BLOB_CONNECTION, 20, 4, 16385, "too large"},
	{LV_BLOB_CONNECTION, 20, 4, 100, "too early"},
	{LV_BLOB_CONNECTION, 32, 1, 'x', "place"},
	{LV_BLOB_CONNECTION, 40, 1, 0, "with a 0"},
	{LV_BLOB_DESCRIPTORS, 0, 4, 5, "than the header"},
	{LV_BLOB_DESCRIPTORS, 0, 4, UINT32_MAX, "impossible"},
	{LV_BLOB_DESCRIPTORS, 8, 4, 0, "unknown kind"},
	{LV_BLOB_DESCRIPTORS, 8, 4, 8, "unknown kind"},
	{LV_BLOB_DESCRIPTORS, 8, 4, LV_BLOB_FD_LISTENER, "connection is missing"},
	{LV_BLOB_DESCRIPTORS, 12, 4, 1, "out of order"},
	{LV_BLOB_DESCRIPTORS, 16, 4, LV_BLOB_FD_CONTROL, "twice"},
	{LV_BLOB_DESCRIPTORS, 16, 4, LV_BLOB_FD_LISTENER, "place to listen"},
	{LV_BLOB_DESCRIPTORS, 16, 4, LV_BLOB_FD_INFLIGHT, "channel"},
	{LV_BLOB_DESCRIPTORS, 24, 4, LV_BLOB_FD_MESSAGE, "more than a request"},
	{LV_BLOB_DESCRIPTORS, 24, 4, LV_BLOB_FD_DOORBELL, "kick or call"},
	{LV_BLOB_DESCRIPTORS, 40, 4, LV_BLOB_FD_DOORBELL, "doorbell"},
	{LV_BLOB_DESCRIPTORS, 28, 4, 3, "unknown kind or queue"},
	{LV_BLOB_DESCRIPTORS, 28, 4, 1, "twice"},
	{LV_BLOB_DESCRIPTORS, 24, 4, LV_BLOB_FD_ERR, "twice"},
};

TEST(device_blob, lies_under_a_right_checksum_are_named)
{
	struct libvhost_freeze_info info;
	struct upgrade u;

	frozen(&u);
	for (size_t i = 0; i < sizeof(lies) / sizeof(lies[0]); i++) {
		const struct lie *l = &lies[i];
		uint8_t *at = section(&u, l->type, NULL) + l->offset;
		const uint64_t was = get_le(at, l->bytes);

		put_le(at, l->value, l->bytes);
		up_seal(&u);
		CHECK_EQ(ask(&u, &info), -EBADMSG);
		CHECK_HAS(error_of(&u).text, l->text);
		put_le(at, was, l->bytes);
	}
	put_le(u.blob + 24, LIBVHOST_FREEZE_SNAPSHOT, 4);
	up_seal(&u);
	CHECK_EQ(ask(&u, &info), -EBADMSG);
	CHECK_HAS(error_of(&u).text, "snapshot");
	put_le(u.blob + 24, 2, 4);
	up_seal(&u);
	CHECK_EQ(ask(&u, &info), -EBADMSG);
	CHECK_HAS(error_of(&u).text, "unknown flags in the header");
	finish(&u);
}
