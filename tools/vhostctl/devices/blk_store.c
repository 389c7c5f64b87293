/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* Opens the block device of blk.c: what its options say, and what its driver is told of it. */
#include "devices/blk.h"

#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "cli.h"

static struct blk_options {
	const char *file, *journal;
	uint64_t ram, null;
	bool direct, read_only;
} given;

enum { OPT_DIRECT = 2000, OPT_JOURNAL, OPT_NULL, OPT_READ_ONLY };

static const struct argp_option options[] = {
	{"file", 'f', "FILE", 0, "serve this file or block device", 0},
	{"ram", 'r', "BYTES", 0, "serve so much memory", 0},
	{"null", OPT_NULL, "BYTES", 0, "serve nothing of that size: requests succeed, data stays as it is", 0},
	{"direct", OPT_DIRECT, NULL, 0, "go around the page cache (O_DIRECT)", 0},
	{"read-only", OPT_READ_ONLY, NULL, 0, "refuse writes", 0},
	{"journal", OPT_JOURNAL, "FILE", 0,
	 "count in this file, a 32-bit number per sector, the reads and writes that begin there; survives kill -9", 0},
	{0},
};

static error_t parse(int key, char *arg, struct argp_state *state)
{
	struct blk_options *o = &given;

	switch (key) {
	case 'f':
		o->file = arg;
		return 0;
	case 'r':
		o->ram = parse_number(state, "--ram", arg, BLK_SECTOR, 1ull << 40);
		return 0;
	case OPT_DIRECT:
		o->direct = true;
		return 0;
	case OPT_NULL:
		o->null = parse_number(state, "--null", arg, BLK_SECTOR, 1ull << 50);
		return 0;
	case OPT_READ_ONLY:
		o->read_only = true;
		return 0;
	case OPT_JOURNAL:
		o->journal = arg;
		return 0;
	default:
		return ARGP_ERR_UNKNOWN;
	}
}

static const struct argp argp = {options, parse, NULL, NULL, NULL, NULL, NULL};

static struct blk_config config;

static int open_null(struct blk *b)
{
	b->size = given.null / BLK_SECTOR * BLK_SECTOR;
	return 0;
}

static int open_ram(struct blk *b)
{
	b->size = given.ram / BLK_SECTOR * BLK_SECTOR;
	b->ram = mmap(NULL, b->size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (b->ram != MAP_FAILED)
		return 0;
	b->ram = NULL;
	return complain("cannot get %" PRIu64 " bytes of memory: %s", b->size, strerror(errno));
}

static int open_file(struct blk *b)
{
	const int flags = (b->read_only ? O_RDONLY : O_RDWR) | O_CLOEXEC;
	off_t size;

	b->align = given.direct ? BLK_SECTOR : 1;
	b->device.files[0] = open(given.file, flags | (given.direct ? O_DIRECT : 0));
	if (b->device.files[0] < 0)
		return complain("%s: %s", given.file, strerror(errno));
	b->device.num_files++;
	if (given.direct)
		b->device.files[b->device.num_files++] = open(given.file, flags);
	size = lseek(b->device.files[0], 0, SEEK_END);
	if (size < BLK_SECTOR)
		return complain("%s: not a file or device of at least one sector", given.file);
	b->size = (uint64_t)size / BLK_SECTOR * BLK_SECTOR;
	return 0;
}

/* Goes on counting in a file that is there. */
static int open_journal(struct blk *b)
{
	const uint64_t bytes = b->size / BLK_SECTOR * sizeof(*b->journal);
	void *map;
	int fd;

	if (!given.journal)
		return 0;
	fd = open(given.journal, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (fd < 0 || ftruncate(fd, (off_t)bytes) < 0)
		return complain("%s: %s", given.journal, strerror(errno));
	map = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	close(fd);
	if (map == MAP_FAILED)
		return complain("%s: %s", given.journal, strerror(errno));
	b->journal = map;
	return 0;
}

static void describe(struct blk *b, uint32_t queues)
{
	config = (struct blk_config){
		.capacity = htole64(b->size / BLK_SECTOR),
		.seg_max = htole32(126),
		.blk_size = htole32(BLK_SECTOR),
		.num_queues = htole16((uint16_t)queues),
		.max_discard_sectors = htole32(BLK_DISCARD_MAX),
		.max_discard_seg = htole32(1),
		.discard_sector_alignment = htole32(1),
		.max_write_zeroes_sectors = htole32(BLK_ZEROES_MAX),
		.max_write_zeroes_seg = htole32(1),
		.write_zeroes_may_unmap = 1,
	};
	b->device.config = &config;
	b->device.config_len = BLK_CONFIG_BYTES;
	b->device.features = 1ull << BLK_F_SEG_MAX | 1ull << BLK_F_BLK_SIZE | 1ull << BLK_F_FLUSH |
			     1ull << BLK_F_DISCARD | 1ull << BLK_F_WRITE_ZEROES | (queues > 1 ? 1ull << BLK_F_MQ : 0) |
			     (b->read_only ? 1ull << BLK_F_RO : 0);
	snprintf(b->id, sizeof(b->id), "vhostctl-%s", given.file ? "file" : given.ram ? "ram" : "null");
	snprintf(b->device.summary, sizeof(b->device.summary), "%" PRIu64 " bytes", b->size);
}

static int open_blk(struct device *d, uint32_t queues)
{
	struct blk *b = (struct blk *)d;

	if (!!given.file + !!given.ram + !!given.null != 1)
		return complain("blk: give one of --file, --ram and --null");
	b->read_only = given.read_only;
	if ((given.file ? open_file(b) : given.ram ? open_ram(b) : open_null(b)) || open_journal(b))
		return 1;
	if (blk_make_queues(b, queues) < 0)
		return complain("out of memory");
	describe(b, queues);
	return 0;
}

static void close_blk(struct device *d)
{
	struct blk *b = (struct blk *)d;

	if (b->journal)
		munmap((void *)b->journal, b->size / BLK_SECTOR * sizeof(*b->journal));
	if (b->ram)
		munmap(b->ram, b->size);
	free(b->queues);
}

static struct blk blk = {
	.device = {.name = "blk",
		   .argp = &argp,
		   .virtio_id = VIRTIO_ID_BLOCK,
		   .role = LIBVHOST_ROLE_BLOCK,
		   .queues = 1,
		   .max_queues = LIBVHOST_MAX_QUEUES,
		   .queue_step = 1,
		   .open = open_blk,
		   .serve = blk_serve,
		   .close = close_blk},
};
struct device *const blk_device = &blk.device;
