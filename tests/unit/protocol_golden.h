/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/*
 * Every vhost-user message, written down by hand from the layouts in the specification (little-endian), never copied
 * from what the encoder said. "xx*n" stands for n bytes xx. The first line of each message is its header: request,
 * flags (1 version, 4 reply, 8 need_reply), size.
 */
#ifndef LV_TESTS_PROTOCOL_GOLDEN_H
#define LV_TESTS_PROTOCOL_GOLDEN_H

#include "protocol/codec.h"

/* All protocol features but XEN_MMAP, which changes layouts. */
#define ALL_FEATURES (0x7fffffull & ~(1ull << LIBVHOST_PROTOCOL_F_XEN_MMAP))
#define XEN	     (1ull << LIBVHOST_PROTOCOL_F_XEN_MMAP)

struct golden {
	struct libvhost_req req; /* pointers and descriptors are filled in by the test */
	const char *text;	 /* libvhost_req_text */
	const char *wire;	 /* request as sent with NEED_REPLY wished for */
	const char *in;		 /* data_in */
	const char *reply;	 /* answer to success */
	const char *out;	 /* data_out */
	uint64_t result[2];
	uint64_t flip; /* protocol features other than ALL_FEATURES */
	bool fd, reply_fd, regions;
};

#define OP(name) .op = LIBVHOST_OP_##name
#define ACK(n)	 n "000000 05000000 08000000 0000000000000000"
#define UUID                                                                                                           \
	{                                                                                                              \
		0x00, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff         \
	}
#define UUID_HEX  "00112233445566778899aabbccddeeff"
#define UUID_TEXT "00112233-4455-6677-8899-aabbccddeeff"

/* The table that SET_MEM_TABLE entries send, with descriptors 7 and 8. */
static const struct libvhost_region golden_regions[2] = {
	{.size = 0x80000000, .user_addr = 0x7f0000000000, .fd = 7, .flags = LIBVHOST_REGION_HAS_FD},
	{.gpa = 0x100000000,
	 .size = 0x40000000,
	 .user_addr = 0x7f0080000000,
	 .mmap_offset = 0x80000000,
	 .fd = 8,
	 .flags = LIBVHOST_REGION_HAS_FD,
	 .xen_flags = 1,
	 .xen_domid = 5},
};
#define REGION                                                                                                         \
	{                                                                                                              \
		.gpa = 0x100000000, .size = 0x40000000, .user_addr = 0x7f0080000000, .mmap_offset = 0x80000000         \
	}
/*		     gpa	      size	       user address	mmap offset */
#define REGION0_HEX "0000000000000000 0000008000000000 00000000007f0000 0000000000000000"
#define REGION1_HEX "0000000001000000 0000004000000000 00000080007f0000 0000008000000000"
#define REGION_TEXT "gpa 0x100000000 size 0x40000000 user 0x7f0080000000 offset 0x80000000"

static const struct golden golden[] = {
	{{OP(GET_FEATURES)},
	 "GET_FEATURES",
	 "01000000 01000000 00000000",
	 .reply = "01000000 05000000 08000000 467e007501000000",
	 .result = {0x175007e46}},
	{{OP(SET_FEATURES), .arg.u64 = 0x140000000},
	 "SET_FEATURES 0x140000000",
	 "02000000 09000000 08000000 0000004001000000",
	 .reply = ACK("02")},
	{{OP(SET_OWNER)}, "SET_OWNER", "03000000 09000000 00000000", .reply = ACK("03")},
	{{OP(RESET_OWNER)}, "RESET_OWNER", "04000000 09000000 00000000", .reply = ACK("04")},
	{{OP(SET_MEM_TABLE)},
	 "SET_MEM_TABLE 2 regions",
	 "05000000 09000000 48000000"
	 "02000000 00000000" REGION0_HEX REGION1_HEX,
	 .reply = ACK("05"),
	 .regions = true},
	{{OP(SET_MEM_TABLE)},
	 "SET_MEM_TABLE 2 regions",
	 "05000000 09000000 58000000"
	 "02000000 00000000" REGION0_HEX "00000000 00000000" REGION1_HEX "01000000 05000000", /* xen flags, domain */
	 .reply = ACK("05"),
	 .regions = true,
	 .flip = XEN},
	{{OP(SET_LOG_BASE), .arg.log = {.size = 0x10000, .offset = 0x1000}},
	 "SET_LOG_BASE size 0x10000 offset 0x1000 fd",
	 "06000000 01000000 10000000"
	 "0000010000000000 0010000000000000", /* size, offset */
	 .reply = "06000000 05000000 10000000 0000010000000000 0010000000000000",
	 .fd = true},
	{{OP(SET_LOG_BASE), .arg.log = {.base = 0x7f1234560000}},
	 "SET_LOG_BASE size 0 offset 0",
	 "06000000 09000000 08000000 00005634127f0000",
	 .reply = ACK("06"),
	 .flip = 1 << LIBVHOST_PROTOCOL_F_LOG_SHMFD},
	{{OP(SET_LOG_FD)}, "SET_LOG_FD fd", "07000000 09000000 00000000", .reply = ACK("07"), .fd = true},
	{{OP(SET_VRING_NUM), .index = 3, .arg.num = 256},
	 "SET_VRING_NUM queue 3 num 256",
	 "08000000 09000000 08000000 03000000 00010000",
	 .reply = ACK("08")},
	{{OP(SET_VRING_ADDR), .index = 3,
	  .arg.addr = {.flags = 1, .desc = 0x1000, .avail = 0x2000, .used = 0x3000, .log = 0x4000}},
	 "SET_VRING_ADDR queue 3 desc 0x1000 avail 0x2000 used 0x3000 log 0x4000",
	 "09000000 09000000 28000000"
	 "03000000 01000000"							/* index, flags */
	 "0010000000000000 0030000000000000 0020000000000000 0040000000000000", /* desc, used, avail, log */
	 .reply = ACK("09")},
	{{OP(SET_VRING_BASE), .index = 3, .arg.num = 0x80011234},
	 "SET_VRING_BASE queue 3 num 2147553844",
	 "0a000000 09000000 08000000 03000000 34120180",
	 .reply = ACK("0a")},
	{{OP(GET_VRING_BASE), .index = 3},
	 "GET_VRING_BASE queue 3",
	 "0b000000 01000000 08000000 03000000 00000000",
	 .reply = "0b000000 05000000 08000000 03000000 34120180",
	 .result = {0x80011234}},
	{{OP(SET_VRING_KICK), .index = 3},
	 "SET_VRING_KICK queue 3 fd",
	 "0c000000 09000000 08000000 0300000000000000",
	 .reply = ACK("0c"),
	 .fd = true},
	{{OP(SET_VRING_KICK), .index = 3},
	 "SET_VRING_KICK queue 3 no fd",
	 "0c000000 09000000 08000000 0301000000000000",
	 .reply = ACK("0c")},
	{{OP(SET_VRING_CALL), .index = 255},
	 "SET_VRING_CALL queue 255 fd",
	 "0d000000 09000000 08000000 ff00000000000000",
	 .reply = ACK("0d"),
	 .fd = true},
	{{OP(SET_VRING_ERR), .index = 3},
	 "SET_VRING_ERR queue 3 fd",
	 "0e000000 09000000 08000000 0300000000000000",
	 .reply = ACK("0e"),
	 .fd = true},
	{{OP(GET_PROTOCOL_FEATURES)},
	 "GET_PROTOCOL_FEATURES",
	 "0f000000 01000000 00000000",
	 .reply = "0f000000 05000000 08000000 2b8f000000000000",
	 .result = {0x8f2b}},
	{{OP(SET_PROTOCOL_FEATURES), .arg.u64 = 0x8f2b},
	 "SET_PROTOCOL_FEATURES 0x8f2b",
	 "10000000 09000000 08000000 2b8f000000000000",
	 .reply = ACK("10")},
	{{OP(GET_QUEUE_NUM)},
	 "GET_QUEUE_NUM",
	 "11000000 01000000 00000000",
	 .reply = "11000000 05000000 08000000 4000000000000000",
	 .result = {64}},
	{{OP(SET_VRING_ENABLE), .index = 3, .arg.num = 1},
	 "SET_VRING_ENABLE queue 3 num 1",
	 "12000000 09000000 08000000 03000000 01000000",
	 .reply = ACK("12")},
	{{OP(SEND_RARP), .arg.u64 = 0x563412005452},
	 "SEND_RARP 0x563412005452", /* 52:54:00:12:34:56 */
	 "13000000 09000000 08000000 5254001234560000",
	 .reply = ACK("13")},
	{{OP(NET_SET_MTU), .arg.u64 = 1500},
	 "NET_SET_MTU 0x5dc",
	 "14000000 09000000 08000000 dc05000000000000",
	 .reply = ACK("14")},
	{{OP(SET_BACKEND_REQ_FD)},
	 "SET_BACKEND_REQ_FD fd",
	 "15000000 09000000 00000000",
	 .reply = ACK("15"),
	 .fd = true},
	{{OP(IOTLB_MSG), .arg.iotlb = {.iova = 0x10000, .size = 0x2000, .uaddr = 0x7f0000001000, .perm = 3, .type = 2}},
	 "IOTLB_MSG update iova 0x10000 size 0x2000 uaddr 0x7f0000001000 perm 3",
	 "16000000 09000000 20000000"
	 "0000010000000000 0020000000000000 00100000007f0000" /* iova, size, uaddr */
	 "03 02 000000000000",				      /* perm, type, padding */
	 .reply = ACK("16")},
	{{OP(SET_VRING_ENDIAN), .index = 3, .arg.num = 1},
	 "SET_VRING_ENDIAN queue 3 num 1",
	 "17000000 09000000 08000000 03000000 01000000",
	 .reply = ACK("17")},
	{{OP(GET_CONFIG), .arg.config = {.offset = 8, .size = 4}},
	 "GET_CONFIG offset 8 size 4",
	 "18000000 01000000 10000000"
	 "08000000 04000000 00000000 00000000", /* offset, size, flags, room */
	 .reply = "18000000 05000000 10000000 08000000 04000000 00000000 deadbeef",
	 .out = "deadbeef",
	 .result = {4}},
	{{OP(SET_CONFIG), .arg.config = {.offset = 32, .size = 1, .flags = 1}},
	 "SET_CONFIG offset 32 size 1 flags 1",
	 "19000000 09000000 0d000000"
	 "20000000 01000000 01000000 7f", /* offset, size, flags, bytes */
	 .in = "7f",
	 .reply = ACK("19")},
	{{OP(CREATE_CRYPTO_SESSION)},
	 "CREATE_CRYPTO_SESSION",
	 "1a000000 01000000 30040000"
	 "0200000000000000 5a*1056 ffffffffffffffff", /* opcode, session, identifier */
	 .in = "0200000000000000 5a*1056 ffffffffffffffff",
	 .reply = "1a000000 05000000 30040000 0200000000000000 5a*1056 0700000000000000",
	 .result = {7}},
	{{OP(CREATE_CRYPTO_SESSION)},
	 "CREATE_CRYPTO_SESSION",
	 "1a000000 01000000 78020000"
	 "ffffffffffffffff 5b*624", /* older peers: identifier, session */
	 .in = "ffffffffffffffff 5b*624",
	 .reply = "1a000000 05000000 78020000 0900000000000000 5b*624",
	 .result = {9}},
	{{OP(CLOSE_CRYPTO_SESSION), .arg.u64 = 7},
	 "CLOSE_CRYPTO_SESSION 0x7",
	 "1b000000 09000000 08000000 0700000000000000",
	 .reply = ACK("1b")},
	{{OP(POSTCOPY_ADVISE)},
	 "POSTCOPY_ADVISE",
	 "1c000000 01000000 00000000",
	 .reply = "1c000000 05000000 00000000",
	 .reply_fd = true},
	{{OP(POSTCOPY_LISTEN)}, "POSTCOPY_LISTEN", "1d000000 09000000 00000000", .reply = ACK("1d")},
	{{OP(POSTCOPY_END)}, "POSTCOPY_END", "1e000000 01000000 00000000", .reply = ACK("1e")},
	{{OP(GET_INFLIGHT_FD), .arg.inflight = {.num_queues = 4, .queue_size = 128}},
	 "GET_INFLIGHT_FD queues 4 size 128",
	 "1f000000 01000000 18000000"
	 "0000000000000000 0000000000000000 0400 8000 00000000", /* size, offset, queues, queue size, padding */
	 .reply = "1f000000 05000000 18000000 0040000000000000 0010000000000000 0400 8000 00000000",
	 .result = {0x4000, 0x1000},
	 .reply_fd = true},
	{{OP(SET_INFLIGHT_FD),
	  .arg.inflight = {.mmap_size = 0x4000, .mmap_offset = 0x1000, .num_queues = 4, .queue_size = 128}},
	 "SET_INFLIGHT_FD queues 4 size 128 bytes 0x4000 offset 0x1000 fd",
	 "20000000 09000000 18000000"
	 "0040000000000000 0010000000000000 0400 8000 00000000",
	 .reply = ACK("20"),
	 .fd = true},
	{{OP(GPU_SET_SOCKET)}, "GPU_SET_SOCKET fd", "21000000 09000000 00000000", .reply = ACK("21"), .fd = true},
	{{OP(RESET_DEVICE)}, "RESET_DEVICE", "22000000 09000000 00000000", .reply = ACK("22")},
	{{OP(VRING_KICK), .index = 3},
	 "VRING_KICK queue 3",
	 "23000000 09000000 08000000 03000000 00000000",
	 .reply = ACK("23")},
	{{OP(GET_MAX_MEM_SLOTS)},
	 "GET_MAX_MEM_SLOTS",
	 "24000000 01000000 00000000",
	 .reply = "24000000 05000000 08000000 fd01000000000000",
	 .result = {509}},
	{{OP(ADD_MEM_REG), .arg.region = REGION},
	 "ADD_MEM_REG " REGION_TEXT " fd",
	 "25000000 09000000 28000000"
	 "0000000000000000" REGION1_HEX, /* padding, region */
	 .reply = ACK("25"),
	 .fd = true},
	{{OP(REM_MEM_REG), .arg.region = REGION},
	 "REM_MEM_REG " REGION_TEXT,
	 "26000000 09000000 28000000"
	 "0000000000000000" REGION1_HEX,
	 .reply = ACK("26")},
	{{OP(SET_STATUS), .arg.u64 = 15},
	 "SET_STATUS 0xf",
	 "27000000 09000000 08000000 0f00000000000000",
	 .reply = ACK("27")},
	{{OP(GET_STATUS)},
	 "GET_STATUS",
	 "28000000 01000000 00000000",
	 .reply = "28000000 05000000 08000000 0f00000000000000",
	 .result = {15}},
	{{OP(GET_SHARED_OBJECT), .arg.uuid = UUID},
	 "GET_SHARED_OBJECT " UUID_TEXT,
	 "29000000 01000000 10000000" UUID_HEX,
	 .reply = "29000000 05000000 00000000",
	 .reply_fd = true},
	{{OP(SET_DEVICE_STATE_FD), .arg.transfer = {.direction = 1}},
	 "SET_DEVICE_STATE_FD load fd",
	 "2a000000 01000000 08000000"
	 "01000000 00000000", /* direction, phase */
	 .reply = "2a000000 05000000 08000000 0001000000000000",
	 .result = {0x100},
	 .fd = true},
	{{OP(SET_DEVICE_STATE_FD)},
	 "SET_DEVICE_STATE_FD save fd",
	 "2a000000 01000000 08000000 00000000 00000000",
	 .reply = "2a000000 05000000 08000000 0000000000000000",
	 .fd = true,
	 .reply_fd = true},
	{{OP(CHECK_DEVICE_STATE)}, "CHECK_DEVICE_STATE", "2b000000 01000000 00000000", .reply = ACK("2b")},
	{{OP(GET_SHMEM_CONFIG)},
	 "GET_SHMEM_CONFIG",
	 "2c000000 01000000 00000000",
	 .reply = "2c000000 05000000 08080000"
		  "02000000 00000000 0010000000000000 0020000000000000 00*2032", /* count, padding, 256 sizes */
	 .out = "02000000 00000000 0010000000000000 0020000000000000 00*2032",
	 .result = {2}},

	/* From the back-end. */
	{{OP(BACKEND_IOTLB_MSG), .arg.iotlb = {.iova = 0x10000, .perm = 1, .type = 1}},
	 "BACKEND_IOTLB_MSG miss iova 0x10000 size 0 uaddr 0 perm 1",
	 "01000000 09000000 20000000"
	 "0000010000000000 0000000000000000 0000000000000000 01 01 000000000000",
	 .reply = ACK("01")},
	{{OP(BACKEND_CONFIG_CHANGE)}, "BACKEND_CONFIG_CHANGE", "02000000 09000000 00000000", .reply = ACK("02")},
	{{OP(BACKEND_VRING_HOST_NOTIFIER), .index = 3, .arg.area = {.size = 0x1000, .offset = 0x2000}},
	 "BACKEND_VRING_HOST_NOTIFIER queue 3 size 0x1000 offset 0x2000 fd",
	 "03000000 09000000 18000000"
	 "0300000000000000 0010000000000000 0020000000000000", /* index and flags, size, offset */
	 .reply = ACK("03"),
	 .fd = true},
	{{OP(BACKEND_VRING_HOST_NOTIFIER), .index = 3, .arg.area = {.flags = 0x100}},
	 "BACKEND_VRING_HOST_NOTIFIER queue 3 remove",
	 "03000000 09000000 18000000 0301000000000000 0000000000000000 0000000000000000",
	 .reply = ACK("03")},
	{{OP(BACKEND_VRING_CALL), .index = 3},
	 "BACKEND_VRING_CALL queue 3",
	 "04000000 09000000 08000000 03000000 00000000",
	 .reply = ACK("04")},
	{{OP(BACKEND_VRING_ERR), .index = 3},
	 "BACKEND_VRING_ERR queue 3",
	 "05000000 09000000 08000000 03000000 00000000",
	 .reply = ACK("05")},
	{{OP(BACKEND_SHARED_OBJECT_ADD), .arg.uuid = UUID},
	 "BACKEND_SHARED_OBJECT_ADD " UUID_TEXT,
	 "06000000 09000000 10000000" UUID_HEX,
	 .reply = ACK("06")},
	{{OP(BACKEND_SHARED_OBJECT_REMOVE), .arg.uuid = UUID},
	 "BACKEND_SHARED_OBJECT_REMOVE " UUID_TEXT,
	 "07000000 09000000 10000000" UUID_HEX,
	 .reply = ACK("07")},
	{{OP(BACKEND_SHARED_OBJECT_LOOKUP), .arg.uuid = UUID},
	 "BACKEND_SHARED_OBJECT_LOOKUP " UUID_TEXT,
	 "08000000 01000000 10000000" UUID_HEX,
	 .reply = ACK("08"),
	 .reply_fd = true},
	{{OP(BACKEND_SHMEM_MAP),
	  .arg.mmap = {.shmid = 1, .fd_offset = 0x1000, .shm_offset = 0x2000, .len = 0x3000, .flags = 1}},
	 "BACKEND_SHMEM_MAP shmid 1 offset 0x2000 size 0x3000 file offset 0x1000 rw fd",
	 "09000000 09000000 28000000"
	 "01 00000000000000 0010000000000000 0020000000000000" /* shmid, padding, file offset, offset */
	 "0030000000000000 0100000000000000",		       /* length, flags */
	 .reply = ACK("09"),
	 .fd = true},
	{{OP(BACKEND_SHMEM_UNMAP), .arg.mmap = {.shmid = 1, .shm_offset = 0x2000, .len = 0x3000}},
	 "BACKEND_SHMEM_UNMAP shmid 1 offset 0x2000 size 0x3000",
	 "0a000000 09000000 28000000 01 00000000000000 0000000000000000 0020000000000000 0030000000000000"
	 "0000000000000000",
	 .reply = ACK("0a")},

	{{OP(RAW), .arg.raw = {.request = 99, .flags = 1, .reply = 1}},
	 "RAW request 99 flags 0x1 2 bytes fd",
	 "63000000 01000000 02000000 cafe",
	 .in = "cafe",
	 .reply = "63000000 05000000 03000000 010203",
	 .out = "010203",
	 .result = {5},
	 .fd = true},
};

#define GOLDEN_COUNT (sizeof(golden) / sizeof(*golden))

#endif
