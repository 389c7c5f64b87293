/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/*
 * Payloads of vhost-user messages as they lie on the wire: host byte order, every hole spelled out, so that the layout
 * is the same on 32 and 64 bit. They are filled on the stack and copied: the wire is not aligned.
 */
#ifndef LV_PROTOCOL_USER_WIRE_H
#define LV_PROTOCOL_USER_WIRE_H

#include <stdint.h>

#define LV_WIRE_REGIONS	    8u	  /* most regions in one SET_MEM_TABLE */
#define LV_WIRE_CONFIG	    256u  /* most configuration bytes in one message */
#define LV_WIRE_CRYPTO	    1072u /* crypto session, identifier at the end */
#define LV_WIRE_CRYPTO_OLD  632u  /* crypto session of older peers, identifier first */
#define LV_WIRE_RING_INDEX  0xffu
#define LV_WIRE_RING_NO_FD  0x100u
#define LV_WIRE_AREA_REMOVE 0x100u

struct lv_wire_state {
	uint32_t index, num;
};

struct lv_wire_addr {
	uint32_t index, flags;
	uint64_t desc, used, avail, log; /* used comes before avail */
};

struct lv_wire_table {
	uint32_t count, padding; /* regions follow */
};

struct lv_wire_region {
	uint64_t gpa, size, user_addr, mmap_offset;
	uint32_t xen_flags, xen_domid; /* sent only with XEN_MMAP */
};

struct lv_wire_log {
	uint64_t size, offset;
};

struct lv_wire_iotlb {
	uint64_t iova, size, uaddr;
	uint8_t perm, type;
	uint8_t padding[6]; /* some peers do not send it */
};
#define LV_WIRE_IOTLB_SHORT 26u

struct lv_wire_config {
	uint32_t offset, size, flags; /* bytes follow */
};

struct lv_wire_inflight {
	uint64_t mmap_size, mmap_offset;
	uint16_t num_queues, queue_size;
	uint32_t padding; /* some peers do not send it */
};
#define LV_WIRE_INFLIGHT_SHORT 20u

struct lv_wire_transfer {
	uint32_t direction, phase;
};

struct lv_wire_mmap {
	uint8_t shmid, padding[7];
	uint64_t fd_offset, shm_offset, len, flags;
};

struct lv_wire_area {
	uint64_t ring; /* index, flags from bit 8 */
	uint64_t size, offset;
};

struct lv_wire_shmem {
	uint32_t count, padding;
	uint64_t sizes[256];
};

#define LV_SAME_SIZE(type, bytes) _Static_assert(sizeof(type) == (bytes), #type)
LV_SAME_SIZE(struct lv_wire_state, 8);
LV_SAME_SIZE(struct lv_wire_addr, 40);
LV_SAME_SIZE(struct lv_wire_table, 8);
LV_SAME_SIZE(struct lv_wire_region, 40);
LV_SAME_SIZE(struct lv_wire_log, 16);
LV_SAME_SIZE(struct lv_wire_iotlb, 32);
LV_SAME_SIZE(struct lv_wire_config, 12);
LV_SAME_SIZE(struct lv_wire_inflight, 24);
LV_SAME_SIZE(struct lv_wire_transfer, 8);
LV_SAME_SIZE(struct lv_wire_mmap, 40);
LV_SAME_SIZE(struct lv_wire_area, 24);
LV_SAME_SIZE(struct lv_wire_shmem, 2056);

#endif
