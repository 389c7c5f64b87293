/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* A region as bytes, for snapshots and migration streams: docs/inflight.md. Numbers are little-endian. */
#include "device/inflight.h"

#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <vhost/inflight.h>
#include "core/wire.h"
#include "device/device.h"
#include "device/features.h"

#define BLOB_MAGIC   0x6669766cu /* "lvif" */
#define BLOB_VERSION 1u
#define BLOB_PACKED  0x1u

struct header {
	uint32_t magic;
	uint16_t version, bytes;
	uint32_t flags;
	uint32_t num_queues, queue_size;
	uint32_t crc; /* of header (this field 0) and content */
	uint64_t content;
};
_Static_assert(sizeof(struct header) == 32, "docs/inflight.md");

/* CRC-32 as in ISO 3309 and zip. */
static uint32_t crc32(uint32_t crc, const void *data, size_t len)
{
	const uint8_t *bytes = data;
	uint32_t table[256];

	for (uint32_t i = 0; i < 256; i++) {
		table[i] = i;
		for (int bit = 0; bit < 8; bit++)
			table[i] = table[i] >> 1 ^ (table[i] & 1 ? 0xedb88320u : 0);
	}
	for (crc = ~crc; len; len--)
		crc = crc >> 8 ^ table[(crc ^ *bytes++) & 0xff];
	return ~crc;
}

static uint32_t checksum(const struct header *h, const void *content, size_t len)
{
	struct header bare = *h;

	bare.crc = 0;
	return crc32(crc32(0, &bare, sizeof(bare)), content, len);
}

int lv_inflight_save(struct libvhost_dev *dev, void *buf, size_t *len)
{
	const struct lv_record *rec = dev->rec;
	const size_t room = *len, content = rec->inflight_bytes;
	struct header h = {
		.magic = htole32(BLOB_MAGIC),
		.version = htole16(BLOB_VERSION),
		.bytes = htole16(sizeof(h)),
		.flags = htole32(rec->flags & LV_RF_INFLIGHT_PACKED ? BLOB_PACKED : 0),
		.num_queues = htole32(rec->inflight_queues),
		.queue_size = htole32(rec->inflight_num),
		.content = htole64(content),
	};
	uint8_t *out = buf;

	*len = sizeof(h) + content;
	if (!buf)
		return 0;
	if (room < *len)
		return lv_fail(&dev->err, -ENOSPC, LIBVHOST_EK_OUTPUT_TOO_SMALL,
			       "save_inflight: room for %zu bytes, %zu are needed", room, *len);
	if (pread(dev->inflight.fd, out + sizeof(h), content, (off_t)rec->inflight_offset) != (ssize_t)content)
		return lv_inflight_unreadable(dev, "save_inflight");
	h.crc = htole32(checksum(&h, out + sizeof(h), content));
	memcpy(out, &h, sizeof(h));
	return 0;
}

int libvhost_dev_save_inflight(struct libvhost_dev *dev, void *buf, size_t *len)
{
	int r;

	if (!dev || !len)
		return -EINVAL;
	r = lv_inflight_claim(dev, LV_INFLIGHT_READ, "save_inflight");
	return r ? r : lv_dev_release(dev, lv_inflight_save(dev, buf, len));
}

static int bad(struct libvhost_dev *dev, const char *why)
{
	return lv_fail(&dev->err, -EBADMSG, LIBVHOST_EK_DAMAGED, "load_inflight: %s", why);
}

/* The header in the host's byte order, checked against itself, the content and the queues. */
static int check(struct libvhost_dev *dev, struct header *h, const uint8_t *buf, size_t len)
{
	struct lv_inflight_shape shape, need = lv_inflight_shape(dev->rec);

	if (len < sizeof(*h))
		return bad(dev, "shorter than a header");
	memcpy(h, buf, sizeof(*h));
	if (le32toh(h->magic) != BLOB_MAGIC)
		return bad(dev, "this is not what save_inflight wrote");
	if (le16toh(h->version) != BLOB_VERSION || le16toh(h->bytes) != sizeof(*h))
		return bad(dev, "of another version");
	if (le64toh(h->content) != len - sizeof(*h))
		return bad(dev, "the length does not match: cut short, or joined with something else");
	if (le32toh(h->crc) != checksum(h, buf + sizeof(*h), len - sizeof(*h)))
		return bad(dev, "the checksum does not match: damaged");
	h->flags = le32toh(h->flags);
	h->num_queues = le32toh(h->num_queues);
	h->queue_size = le32toh(h->queue_size);
	h->content = le64toh(h->content);
	shape = (struct lv_inflight_shape){h->num_queues, h->queue_size, h->flags & BLOB_PACKED};
	if (h->flags & ~BLOB_PACKED || !shape.queues || shape.queues > LIBVHOST_MAX_QUEUES || !shape.num ||
	    shape.num > LV_INFLIGHT_MAX_NUM || h->content < lv_inflight_bytes(&shape) ||
	    h->content > LV_INFLIGHT_MAX_BYTES)
		return bad(dev, "it describes no region that can be");
	if (need.queues > shape.queues || need.num > shape.num)
		return bad(dev, "it was made for fewer or smaller queues than are set up");
	if (need.queues && need.packed != shape.packed)
		return bad(dev, "it was made for the other kind of rings, split or packed");
	return 0;
}

/* A file of our own whose size nobody can change, with all its pages. */
static int make_file(struct libvhost_dev *dev, const uint8_t *content, size_t len)
{
	const int low = memfd_create("libvhost-inflight", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	const int fd = low < 0 ? low : lv_fd_dup(low);
	int r = low < 0 ? errno : fd < 0 ? -fd : 0;
	size_t done = 0;

	lv_fd_close(low);
	while (!r && done < len) {
		const ssize_t n = pwrite(fd, content + done, len - done, (off_t)done);

		if (n <= 0)
			r = n ? errno : ENOSPC;
		else
			done += (size_t)n;
	}
	if (!r && fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL))
		r = errno;
	if (!r)
		return fd;
	if (fd >= 0)
		lv_fd_close(fd);
	return lv_fail_sys(&dev->err, r, "load_inflight: a file of %zu bytes cannot be made: %s", len,
			   lv_errno_name(r));
}

int lv_inflight_load(struct libvhost_dev *dev, const uint8_t *buf, size_t len)
{
	struct lv_inflight_shape shape;
	struct header h = {0};
	int r = check(dev, &h, buf, len);

	if (r)
		return r;
	r = make_file(dev, buf + sizeof(h), len - sizeof(h));
	if (r < 0)
		return r;
	shape = (struct lv_inflight_shape){h.num_queues, h.queue_size, h.flags & BLOB_PACKED};
	lv_inflight_use(dev, r, &shape, h.content, 0);
	return 0;
}

int libvhost_dev_load_inflight(struct libvhost_dev *dev, const void *buf, size_t len)
{
	int r;

	if (!dev || !buf)
		return -EINVAL;
	r = lv_inflight_claim(dev, LV_INFLIGHT_REPLACE, "load_inflight");
	return r ? r : lv_dev_release(dev, lv_inflight_load(dev, buf, len));
}
