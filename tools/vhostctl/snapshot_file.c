/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
#include "snapshot_file.h"

#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <vhost/libvhost.h>

#include "cli.h"

#define MAGIC	     "LVGUEST"
#define FILE_VERSION 1u
#define PACKED	     0x1u
#define INFLIGHT     0x2u
#define BLOB_CRC_AT  36u	/* docs/freeze.md */
#define BLOB_MAX     (2u << 30) /* more than an inflight region can take */

enum { BLOB, GUEST };
static const char *const suffix[] = {"", ".guest"};

/* Little-endian. */
struct header {
	char magic[8];
	uint32_t version, bytes;
	uint64_t checksum; /* of header (this field 0) and memory */
	uint32_t blob_crc; /* the checksum in FILE */
	uint32_t flags;
	uint32_t queues, depth, block_bytes, reserved;
	uint64_t features, size, next, seed, address, ram_bytes;
};
_Static_assert(sizeof(struct header) == 96, "header of FILE.guest");

/* FNV-1a, 64 bits. */
static uint64_t sum(uint64_t from, const void *data, uint64_t len)
{
	const uint8_t *bytes = data;

	for (uint64_t i = 0; i < len; i++)
		from = (from ^ bytes[i]) * 0x100000001b3u;
	return from;
}

static uint64_t header_sum(const struct header *h)
{
	struct header bare = *h;

	bare.checksum = 0;
	return sum(0xcbf29ce484222325u, &bare, sizeof(bare));
}

static uint32_t blob_crc(const uint8_t *blob, size_t len)
{
	uint32_t crc = 0;

	if (len >= BLOB_CRC_AT + sizeof(crc))
		memcpy(&crc, blob + BLOB_CRC_AT, sizeof(crc));
	return crc;
}

/* ---- writing ---- */

static void new_name(const struct snapshot_writer *w, unsigned i, char *name)
{
	snprintf(name, PATH_MAX + 4, "%s.new", w->path[i]);
}

int snapshot_create(struct snapshot_writer *w, const char *path)
{
	char name[PATH_MAX + 4];
	struct stat st;

	w->fd[BLOB] = w->fd[GUEST] = -1;
	for (unsigned i = BLOB; i <= GUEST; i++) {
		if (snprintf(w->path[i], PATH_MAX, "%s%s", path, suffix[i]) >= PATH_MAX)
			return complain("the file name is longer than %d bytes", PATH_MAX - 1);
		if (!stat(w->path[i], &st) && !S_ISREG(st.st_mode))
			return complain("%s: not a regular file", w->path[i]);
		new_name(w, i, name);
		w->fd[i] = open(name, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600);
		if (w->fd[i] < 0)
			return complain("%s: %s", name, strerror(errno));
	}
	return 0;
}

static int put(const struct snapshot_writer *w, unsigned i, const void *data, uint64_t len)
{
	const uint8_t *bytes = data;

	while (len) {
		const ssize_t n = write(w->fd[i], bytes, len < 1u << 30 ? len : 1u << 30);

		if (n <= 0)
			return complain("%s: %s", w->path[i], strerror(n ? errno : ENOSPC));
		bytes += n;
		len -= (uint64_t)n;
	}
	return 0;
}

/* FILE comes last: with it the snapshot is there. */
static int name_files(struct snapshot_writer *w)
{
	char name[PATH_MAX + 4];

	for (unsigned i = GUEST + 1; i-- > BLOB;) {
		new_name(w, i, name);
		if (fsync(w->fd[i]) || rename(name, w->path[i]))
			return complain("%s: %s", w->path[i], strerror(errno));
		close(w->fd[i]);
		w->fd[i] = -1;
	}
	return 0;
}

int snapshot_write(struct snapshot_writer *w, const struct snapshot *s, const uint8_t *ram, const void *blob,
		   size_t blob_len)
{
	struct header h = {.magic = MAGIC,
			   .version = htole32(FILE_VERSION),
			   .bytes = htole32(sizeof(h)),
			   .blob_crc = blob_crc(blob, blob_len),
			   .flags = htole32((s->packed ? PACKED : 0) | (s->inflight ? INFLIGHT : 0)),
			   .queues = htole32(s->queues),
			   .depth = htole32(s->depth),
			   .block_bytes = htole32(s->block_bytes),
			   .features = htole64(s->features),
			   .size = htole64(s->size),
			   .next = htole64(s->next),
			   .seed = htole64(s->seed),
			   .address = htole64(s->address),
			   .ram_bytes = htole64(s->ram_bytes)};

	h.checksum = htole64(sum(header_sum(&h), ram, s->ram_bytes));
	return put(w, GUEST, &h, sizeof(h)) || put(w, GUEST, ram, s->ram_bytes) || put(w, BLOB, blob, blob_len) ||
	       name_files(w);
}

void snapshot_abandon(struct snapshot_writer *w)
{
	char name[PATH_MAX + 4];

	for (unsigned i = BLOB; i <= GUEST; i++) {
		if (w->fd[i] < 0)
			continue;
		new_name(w, i, name);
		unlink(name);
		close(w->fd[i]);
	}
}

/* ---- reading ---- */

static int open_file(const char *path, uint64_t *bytes)
{
	const int fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	struct stat st;

	if (fd < 0) {
		complain("%s: %s", path, strerror(errno));
		return -1;
	}
	if (fstat(fd, &st) || !S_ISREG(st.st_mode)) {
		complain("%s: not a regular file", path);
		close(fd);
		return -1;
	}
	*bytes = (uint64_t)st.st_size;
	return fd;
}

static int get(int fd, const char *path, void *data, uint64_t len)
{
	uint8_t *bytes = data;

	while (len) {
		const ssize_t n = read(fd, bytes, len < 1u << 30 ? len : 1u << 30);

		if (n <= 0)
			return complain("%s: %s", path, n ? strerror(errno) : "cut short");
		bytes += n;
		len -= (uint64_t)n;
	}
	return 0;
}

int snapshot_open(struct snapshot_reader *r, const char *path)
{
	uint64_t bytes;
	int fd, rc;

	*r = (struct snapshot_reader){.fd = -1};
	if (snprintf(r->guest, sizeof(r->guest), "%s%s", path, suffix[GUEST]) >= (int)sizeof(r->guest))
		return complain("the file name is longer than %d bytes", PATH_MAX - 1);
	fd = open_file(path, &bytes);
	if (fd < 0)
		return 1;
	r->blob_len = bytes;
	r->blob = bytes <= BLOB_MAX ? malloc(bytes + 1) : NULL;
	if (!r->blob)
		rc = complain("%s: %" PRIu64 " bytes are too many for a snapshot", path, bytes);
	else
		rc = get(fd, path, r->blob, bytes);
	close(fd);
	return rc;
}

/* NULL, or what is wrong with a header. */
static const char *judge(const struct header *h, const struct snapshot *s, const struct snapshot_reader *r)
{
	if (memcmp(h->magic, MAGIC, sizeof(h->magic)))
		return "this is not the guest of a snapshot";
	if (le32toh(h->version) != FILE_VERSION || le32toh(h->bytes) != sizeof(*h))
		return "written by another version of vhostctl";
	if (!s->queues || s->queues > LIBVHOST_MAX_QUEUES || !s->depth || s->depth > 256 || s->block_bytes < 512 ||
	    s->block_bytes > 1u << 20 || s->block_bytes % 512 || s->next > s->size ||
	    le32toh(h->flags) & ~(PACKED | INFLIGHT))
		return "damaged: it describes a guest that cannot be";
	if (h->blob_crc != blob_crc(r->blob, r->blob_len))
		return "of another snapshot than the file without .guest";
	return NULL;
}

int snapshot_read(struct snapshot_reader *r, struct snapshot *s)
{
	const char *wrong;
	struct header h;
	uint64_t bytes;

	r->fd = open_file(r->guest, &bytes);
	if (r->fd < 0 || get(r->fd, r->guest, &h, sizeof(h)))
		return 1;
	*s = (struct snapshot){.queues = le32toh(h.queues),
			       .depth = le32toh(h.depth),
			       .block_bytes = le32toh(h.block_bytes),
			       .packed = le32toh(h.flags) & PACKED,
			       .inflight = le32toh(h.flags) & INFLIGHT,
			       .features = le64toh(h.features),
			       .size = le64toh(h.size),
			       .next = le64toh(h.next),
			       .seed = le64toh(h.seed),
			       .address = le64toh(h.address),
			       .ram_bytes = le64toh(h.ram_bytes)};
	wrong = judge(&h, s, r);
	if (wrong)
		return complain("%s: %s", r->guest, wrong);
	if (bytes != sizeof(h) + s->ram_bytes)
		return complain("%s: %s: %" PRIu64 " bytes, %" PRIu64 " belong there", r->guest,
				bytes < sizeof(h) + s->ram_bytes ? "cut short" : "too long", bytes,
				sizeof(h) + s->ram_bytes);
	r->checksum = le64toh(h.checksum);
	r->header_sum = header_sum(&h);
	return 0;
}

int snapshot_read_ram(struct snapshot_reader *r, uint8_t *ram, uint64_t bytes)
{
	if (get(r->fd, r->guest, ram, bytes))
		return 1;
	return sum(r->header_sum, ram, bytes) == r->checksum ? 0 : complain("%s: damaged: wrong checksum", r->guest);
}

void snapshot_close(struct snapshot_reader *r)
{
	free(r->blob);
	if (r->fd >= 0)
		close(r->fd);
}
