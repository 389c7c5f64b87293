/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/*
 * Any bytes as the blob of a frozen device, under a right checksum: what the decoder accepts means the same when it is
 * written again, a thaw takes all descriptors or none, and a device that comes out of it can be asked, stopped, frozen
 * and freed. An input is a blob (first byte even), or changes to a good one: offset in two bytes, value in one.
 */
#include <dirent.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>
#include "core/ctx.h"
#include "device/blob.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { MEMORY = 0x10000, QUEUES = 2, ROOM = 8192 };

static struct libvhost_ctx *ctx;
static struct libvhost_mem *mem;
static uint8_t good[ROOM];
static size_t good_len;

static void add_fd(struct lv_blob *b, uint32_t kind, uint32_t index)
{
	b->fds[b->nfds++] = (struct lv_blob_fd){kind, index};
}

static void describe_device(struct lv_blob *b)
{
	b->rec->flags = LV_RF_RUNNING | LV_RF_NEGOTIATED;
	b->rec->max_queues = QUEUES;
	b->rec->max_regions = 8;
	b->rec->generation = 1;
	b->dev_flags = LIBVHOST_DEV_HOST_NOTIFIERS | LIBVHOST_DEV_SHARED_OBJECTS;
	b->policy.size = sizeof(b->policy);
	b->num_objects = 1;
	b->conn_channel = true;
	b->conn.session.f30_offered = b->conn.session.f30_acked = true;
	strcpy(b->conn.uri, "user:/nonexistent/fuzz");
	strcpy(b->written_by, "0.1.0");
	add_fd(b, LV_BLOB_FD_CONTROL, 0);
	add_fd(b, LV_BLOB_FD_CHANNEL, 0);
	for (uint32_t q = 0; q < QUEUES; q++) {
		b->rec->queue[q] = (struct lv_record_queue){.flags = LV_RQ_SET | LV_RQ_RUNNING,
							    .num = 16,
							    .desc = q * 0x3000u,
							    .avail = q * 0x3000u + 0x1000,
							    .used = q * 0x3000u + 0x2000};
		add_fd(b, LV_BLOB_FD_KICK, q);
		add_fd(b, LV_BLOB_FD_CALL, q);
		add_fd(b, LV_BLOB_FD_ERR, q);
	}
	add_fd(b, LV_BLOB_FD_DOORBELL, 1);
}

static void prepare(void)
{
	struct lv_blob *b = calloc(1, sizeof(*b));
	struct libvhost_region r = {0};
	uint32_t count = 1;
	struct stat st;

	if (!b || libvhost_ctx_new(NULL, &ctx) || libvhost_mem_new(ctx, NULL, &mem) || libvhost_mem_begin(mem) ||
	    libvhost_mem_alloc(mem, 0, MEMORY) || libvhost_mem_commit(mem, 0, NULL) ||
	    libvhost_mem_regions(mem, &r, &count) || fstat(r.fd, &st))
		abort();
	b->rec = lv_record_new(2, QUEUES);
	if (!b->rec)
		abort();
	describe_device(b);
	b->has_memory = true;
	b->num_regions = 1;
	b->regions[0] = (struct lv_blob_region){
		.size = MEMORY, .user_addr = 0x100000000000ull, .dev = st.st_dev, .ino = st.st_ino};
	good_len = lv_blob_encode(b, good, sizeof(good));
	lv_blob_free(b);
}

static unsigned open_fds(void)
{
	DIR *dir = opendir("/proc/self/fd");
	unsigned n = 0;

	while (dir && readdir(dir))
		n++;
	closedir(dir);
	return n;
}

static int file(void)
{
	int fd = memfd_create("fuzz", MFD_CLOEXEC | MFD_ALLOW_SEALING);

	if (fd < 0 || ftruncate(fd, 0x40000))
		abort();
	return fd;
}

/* Of the kind that it should be; the other end of a socket is closed, as if the peer were gone. */
static int make_fd(uint32_t kind)
{
	int pair[2];

	switch (kind) {
	case LV_BLOB_FD_CONTROL:
	case LV_BLOB_FD_CHANNEL:
		if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair))
			abort();
		close(pair[1]);
		return pair[0];
	case LV_BLOB_FD_INFLIGHT:
	case LV_BLOB_FD_LOG:
	case LV_BLOB_FD_DOORBELL:
		return file();
	default:
		return eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	}
}

static void use_device(struct libvhost_dev *dev)
{
	struct libvhost_dev_info info = {.size = sizeof(info)};
	struct libvhost_event event;
	uint32_t nfds = 0;
	size_t len = 0;
	uint8_t byte;

	if (libvhost_dev_info(dev, &info) || info.state > LIBVHOST_DEV_RECONNECTING)
		__builtin_trap();
	for (uint32_t q = 0; q < 3; q++) {
		struct libvhost_queue queue = {.size = sizeof(queue)};

		(void)libvhost_dev_get_queue(dev, q, &queue);
	}
	if (info.state == LIBVHOST_DEV_RUNNING && libvhost_dev_freeze(dev, 0, NULL, &len, NULL, &nfds))
		__builtin_trap();
	(void)libvhost_dev_dispatch(dev, 0);
	(void)libvhost_dev_get_config(dev, 0, &byte, 1, 1);
	(void)libvhost_dev_stop(dev, NULL);
	while (libvhost_dev_next_event(dev, &event) == 1)
		;
	libvhost_dev_cleanup(dev);
}

/* The place is ours: a blob may name any, and the host decides whether to follow. */
static void thaw(const struct lv_blob *b, const uint8_t *bytes, size_t len)
{
	int fds[LV_BLOB_FDS];
	struct libvhost_thaw_opts o = {.size = sizeof(o), .blob = bytes, .blob_len = len, .fds = fds, .mem = mem};
	struct libvhost_dev *dev = NULL;

	o.uri = "user:/nonexistent/fuzz";
	o.timeout_ms = 1;
	o.nfds = b->nfds;
	for (uint32_t i = 0; i < b->nfds; i++)
		fds[i] = make_fd(b->fds[i].kind);
	if (!libvhost_dev_thaw(ctx, &o, &dev)) {
		use_device(dev);
		(void)libvhost_mem_log_stop(mem, 0, NULL); /* a log that came with the device */
		return;
	}
	for (uint32_t i = 0; i < b->nfds; i++)
		if (close(fds[i]))
			__builtin_trap(); /* they were to stay ours */
}

static void say_again(const struct lv_blob *b)
{
	const size_t len = lv_blob_encode(b, NULL, 0);
	uint8_t *bytes = malloc(len);
	struct lv_blob *again = NULL;

	if (!bytes || lv_blob_encode(b, bytes, len) != len || lv_blob_decode(NULL, bytes, len, &again))
		__builtin_trap();
	if (memcmp(again->fds, b->fds, sizeof(b->fds)) || memcmp(again->regions, b->regions, sizeof(b->regions)) ||
	    again->rec->bytes != b->rec->bytes || memcmp(again->rec, b->rec, b->rec->bytes))
		__builtin_trap();
	lv_blob_free(again);
	free(bytes);
}

static void put_le(uint8_t *at, uint64_t value, unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		at[i] = (uint8_t)(value >> 8 * i);
}

/* Header and checksum as they should be. */
static void seal(uint8_t *blob, size_t len)
{
	memcpy(blob, "LVFREEZE", 8);
	put_le(blob + 8, LV_BLOB_MAJOR, 4);
	put_le(blob + 16, len, 8);
	put_le(blob + LV_BLOB_CRC_AT, lv_blob_crc(blob, len), 4);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct lv_blob *b = NULL;
	size_t len = size;
	unsigned before;
	uint8_t *blob;

	if (!mem)
		prepare();
	if (!size)
		return 0;
	len = data[0] & 1 ? good_len : size - 1 > LV_BLOB_HEADER ? size - 1 : LV_BLOB_HEADER;
	blob = calloc(1, len);
	if (!blob)
		abort();
	if (data[0] & 1)
		memcpy(blob, good, good_len);
	else
		memcpy(blob, data + 1, size - 1);
	for (size_t i = 1; data[0] & 1 && i + 3 <= size; i += 3)
		blob[((size_t)data[i] | (size_t)data[i + 1] << 8) % good_len] = data[i + 2];
	seal(blob, len);
	before = open_fds();
	if (!lv_blob_decode(&ctx->err, blob, len, &b)) {
		say_again(b);
		thaw(b, blob, len);
	}
	lv_blob_free(b);
	free(blob);
	if (open_fds() != before)
		__builtin_trap();
	return 0;
}
