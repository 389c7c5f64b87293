/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* The virtio block device as the virtio specification 1.2, section 5.2 lays it out. Little-endian in memory. */
#ifndef VHOSTCTL_BLK_WIRE_H
#define VHOSTCTL_BLK_WIRE_H

#include <stdint.h>

#include "ring_wire.h"

#define VIRTIO_ID_BLOCK 2u

enum { BLK_T_IN = 0, BLK_T_OUT = 1, BLK_T_FLUSH = 4, BLK_T_GET_ID = 8 };
enum { BLK_S_OK = 0, BLK_S_IOERR = 1, BLK_S_UNSUPP = 2 };
enum { BLK_F_SEG_MAX = 2, BLK_F_BLK_SIZE = 6, BLK_F_FLUSH = 9, BLK_F_MQ = 12 };

struct blk_header {
	uint32_t type, reserved;
	uint64_t sector;
};

/* Through num_queues; 60 bytes with the discard and write-zeroes fields that follow are what peers commonly serve. */
struct blk_config {
	uint64_t capacity; /* 512-byte sectors */
	uint32_t size_max, seg_max;
	uint16_t cylinders;
	uint8_t heads, sectors;
	uint32_t blk_size;
	uint8_t topology[8];
	uint8_t wce, unused;
	uint16_t num_queues;
	uint8_t rest[24];
};
_Static_assert(sizeof(struct blk_header) == 16, "block request header");
_Static_assert(sizeof(struct blk_config) == 64 && __builtin_offsetof(struct blk_config, num_queues) == 34,
	       "block configuration space");
#define BLK_CONFIG_BYTES 60u

#endif
