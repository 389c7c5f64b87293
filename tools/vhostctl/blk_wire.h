/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* The virtio block device as the virtio specification 1.2, section 5.2 lays it out. Little-endian in memory. */
#ifndef VHOSTCTL_BLK_WIRE_H
#define VHOSTCTL_BLK_WIRE_H

#include <stdint.h>

#include "ring_wire.h"

#define VIRTIO_ID_BLOCK 2u

enum { BLK_T_IN = 0, BLK_T_OUT = 1, BLK_T_FLUSH = 4, BLK_T_GET_ID = 8, BLK_T_DISCARD = 11, BLK_T_WRITE_ZEROES = 13 };
enum { BLK_S_OK = 0, BLK_S_IOERR = 1, BLK_S_UNSUPP = 2 };
enum {
	BLK_F_SEG_MAX = 2,
	BLK_F_RO = 5,
	BLK_F_BLK_SIZE = 6,
	BLK_F_FLUSH = 9,
	BLK_F_MQ = 12,
	BLK_F_DISCARD = 13,
	BLK_F_WRITE_ZEROES = 14
};

struct blk_header {
	uint32_t type, reserved;
	uint64_t sector;
};

/* What a discard or write-zeroes request carries. */
struct blk_range {
	uint64_t sector;
	uint32_t num_sectors, flags;
};
#define BLK_RANGE_UNMAP 1u /* write zeroes: the range may lose its space */

/* The first 60 bytes are what peers commonly serve. */
struct blk_config {
	uint64_t capacity; /* 512-byte sectors */
	uint32_t size_max, seg_max;
	uint16_t cylinders;
	uint8_t heads, sectors;
	uint32_t blk_size;
	uint8_t topology[8];
	uint8_t wce, unused;
	uint16_t num_queues;
	uint32_t max_discard_sectors, max_discard_seg, discard_sector_alignment;
	uint32_t max_write_zeroes_sectors, max_write_zeroes_seg;
	uint8_t write_zeroes_may_unmap, rest[7];
};
_Static_assert(sizeof(struct blk_header) == 16, "block request header");
_Static_assert(sizeof(struct blk_range) == 16, "block range");
_Static_assert(sizeof(struct blk_config) == 64 && __builtin_offsetof(struct blk_config, num_queues) == 34,
	       "block configuration space");
#define BLK_CONFIG_BYTES 60u

#endif
