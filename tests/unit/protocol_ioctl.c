/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* Every ioctl: number and argument bytes, written by hand; and the system's header, as far as it goes. */
#include "protocol_hex.h"

#include <errno.h>
#include <linux/vhost.h>
#include "protocol/codec.h"
#include "protocol/ioctl.h"
#include "protocol/uapi.h"

#define OP(name) .op = LIBVHOST_OP_##name

struct golden_ioctl {
	struct libvhost_req req;
	uint32_t number;
	const char *arg;    /* as given to the kernel */
	const char *answer; /* as the kernel leaves it; NULL: it only reads */
	uint64_t result[2];
	bool fd;
	const char *in; /* data_in */
};

static const struct golden_ioctl golden[] = {
	{.req = {OP(GET_FEATURES)}, 0x8008af00, "00*8", "0000004001000000", {0x140000000}},
	{.req = {OP(SET_FEATURES), .arg.u64 = 0x140000000}, 0x4008af00, "0000004001000000"},
	{.req = {OP(SET_OWNER)}, 0x0000af01, ""},
	{.req = {OP(RESET_OWNER)}, 0x0000af02, ""},
	{.req = {OP(SET_MEM_TABLE), .arg.table = {1, 48}},
	 0x4008af03,
	 "01000000 00000000 0000000001000000 0000004000000000 00000080007f0000 0000000000000000",
	 .in = "0000000001000000 0000004000000000 00000080007f0000 0000008000000000 07000000 01000000 00*8"},
	{.req = {OP(SET_LOG_BASE), .arg.log = {.base = 0x7f1234560000, .size = 5}}, 0x4008af04, "00005634127f0000"},
	{.req = {OP(SET_LOG_FD)}, 0x4004af07, "07000000", .fd = true},
	{.req = {OP(SET_LOG_FD)}, 0x4004af07, "ffffffff"},
	{.req = {OP(NEW_WORKER)}, 0x8004af08, "00000000", "05000000", {5}},
	{.req = {OP(FREE_WORKER), .arg.u64 = 5}, 0x4004af09, "05000000"},
	{.req = {OP(SET_VRING_NUM), .index = 3, .arg.num = 256}, 0x4008af10, "03000000 00010000"},
	{.req = {OP(SET_VRING_ADDR), .index = 3,
		 .arg.addr = {.flags = 1, .desc = 0x1000, .avail = 0x2000, .used = 0x3000, .log = 0x4000}},
	 0x4028af11,
	 "03000000 01000000 0010000000000000 0030000000000000 0020000000000000 0040000000000000"},
	{.req = {OP(SET_VRING_BASE), .index = 3, .arg.num = 0x80011234}, 0x4008af12, "03000000 34120180"},
	{.req = {OP(GET_VRING_BASE), .index = 3}, 0xc008af12, "03000000 00000000", "03000000 34120180", {0x80011234}},
	{.req = {OP(SET_VRING_ENDIAN), .index = 3, .arg.num = 1}, 0x4008af13, "03000000 01000000"},
	{.req = {OP(GET_VRING_ENDIAN), .index = 3}, 0x4008af14, "03000000 00000000", "03000000 01000000", {1}},
	{.req = {OP(ATTACH_VRING_WORKER), .index = 3, .arg.u64 = 5}, 0x4008af15, "03000000 05000000"},
	{.req = {OP(GET_VRING_WORKER), .index = 3}, 0xc008af16, "03000000 00000000", "03000000 05000000", {5}},
	{.req = {OP(SET_VRING_KICK), .index = 3}, 0x4008af20, "03000000 07000000", .fd = true},
	{.req = {OP(SET_VRING_KICK), .index = 3}, 0x4008af20, "03000000 ffffffff"},
	{.req = {OP(SET_VRING_CALL), .index = 3}, 0x4008af21, "03000000 07000000", .fd = true},
	{.req = {OP(SET_VRING_ERR), .index = 3}, 0x4008af22, "03000000 07000000", .fd = true},
	{.req = {OP(SET_VRING_BUSYLOOP_TIMEOUT), .index = 3, .arg.num = 50}, 0x4008af23, "03000000 32000000"},
	{.req = {OP(GET_VRING_BUSYLOOP_TIMEOUT), .index = 3},
	 0x4008af24,
	 "03000000 00000000",
	 "03000000 32000000",
	 {50}},
	{.req = {OP(SET_BACKEND_FEATURES), .arg.u64 = 0x1e}, 0x4008af25, "1e00000000000000"},
	{.req = {OP(GET_BACKEND_FEATURES)}, 0x8008af26, "00*8", "1e00000000000000", {0x1e}},
	{.req = {OP(NET_SET_BACKEND), .index = 1}, 0x4008af30, "01000000 07000000", .fd = true},
	{.req = {OP(NET_SET_BACKEND), .index = 1}, 0x4008af30, "01000000 ffffffff"},
	{.req = {OP(SCSI_SET_ENDPOINT), .index = 2, .arg.u64 = 1},
	 0x40e8af40,
	 "01000000 6e61612e35 00*219 0200 0000",
	 .in = "6e61612e35"},
	{.req = {OP(SCSI_CLEAR_ENDPOINT), .index = 2, .arg.u64 = 1},
	 0x40e8af41,
	 "01000000 6e61612e35 00*219 0200 0000",
	 .in = "6e61612e35"},
	{.req = {OP(SCSI_GET_ABI_VERSION)}, 0x4004af42, "00000000", "01000000", {1}},
	{.req = {OP(SCSI_SET_EVENTS_MISSED), .arg.u64 = 1}, 0x4004af43, "01000000"},
	{.req = {OP(SCSI_GET_EVENTS_MISSED)}, 0x4004af44, "00000000", "01000000", {1}},
	{.req = {OP(VSOCK_SET_GUEST_CID), .arg.u64 = 3}, 0x4008af60, "0300000000000000"},
	{.req = {OP(VSOCK_SET_RUNNING), .arg.u64 = 1}, 0x4004af61, "01000000"},
	{.req = {OP(VDPA_GET_DEVICE_ID)}, 0x8004af70, "00000000", "02000000", {2}},
	{.req = {OP(GET_STATUS)}, 0x8001af71, "00", "0f", {15}},
	{.req = {OP(SET_STATUS), .arg.u64 = 15}, 0x4001af72, "0f"},
	{.req = {OP(GET_CONFIG), .arg.config = {8, 4, 0}},
	 0x8008af73,
	 "08000000 04000000 00000000",
	 "08000000 04000000 deadbeef",
	 {4}},
	{.req = {OP(SET_CONFIG), .arg.config = {32, 1, 0}}, 0x4008af74, "20000000 01000000 7f", .in = "7f"},
	{.req = {OP(SET_VRING_ENABLE), .index = 3, .arg.num = 1}, 0x4008af75, "03000000 01000000"},
	{.req = {OP(VDPA_GET_VRING_NUM)}, 0x8002af76, "0000", "0004", {1024}},
	{.req = {OP(VDPA_SET_CONFIG_CALL)}, 0x4004af77, "07000000", .fd = true},
	{.req = {OP(VDPA_GET_IOVA_RANGE)},
	 0x8010af78,
	 "00*16",
	 "0010000000000000 ffffffffffff0000",
	 {0x1000, 0xffffffffffff}},
	{.req = {OP(VDPA_GET_CONFIG_SIZE)}, 0x8004af79, "00000000", "3c000000", {60}},
	{.req = {OP(VDPA_GET_AS_NUM)}, 0x8004af7a, "00000000", "02000000", {2}},
	{.req = {OP(VDPA_GET_VRING_GROUP), .index = 2}, 0xc008af7b, "02000000 00000000", "02000000 01000000", {1}},
	{.req = {OP(VDPA_SET_GROUP_ASID), .index = 1, .arg.num = 1}, 0x4008af7c, "01000000 01000000"},
	{.req = {OP(VDPA_SUSPEND)}, 0x0000af7d, ""},
	{.req = {OP(VDPA_RESUME)}, 0x0000af7e, ""},
	{.req = {OP(VDPA_GET_VRING_DESC_GROUP), .index = 2}, 0xc008af7f, "02000000 00000000", "02000000 01000000", {1}},
	{.req = {OP(GET_QUEUE_NUM)}, 0x8004af80, "00000000", "03000000", {3}},
	{.req = {OP(VDPA_GET_GROUP_NUM)}, 0x8004af81, "00000000", "02000000", {2}},
	{.req = {OP(VDPA_GET_VRING_SIZE), .index = 2}, 0xc008af82, "02000000 00000000", "02000000 00010000", {256}},
	{.req = {OP(GET_FEATURES_ARRAY)},
	 0x8008af83,
	 "0200000000000000 00*16",
	 "0200000000000000 0000004001000000 0600000000000000",
	 {0x140000000, 6}},
	{.req = {OP(SET_FEATURES_ARRAY), .arg.features = {0x140000000, 6}},
	 0x4008af83,
	 "0200000000000000 0000004001000000 0600000000000000"},
	{.req = {OP(SET_FEATURES_ARRAY), .arg.features = {1, 2, 3}},
	 0x4008af83,
	 "0300000000000000 0100000000000000 0200000000000000 0300000000000000"},
	{.req = {OP(SET_FORK_FROM_OWNER), .arg.u64 = 1}, 0x4001af84, "01"},
	{.req = {OP(GET_FORK_FROM_OWNER)}, 0x8001af85, "00", "01", {1}},
};

#define GOLDEN_COUNT (sizeof(golden) / sizeof(*golden))

TEST(protocol_ioctl, has_every_ioctl)
{
	for (uint32_t op = 0; op < 256; op++) {
		const struct lv_op *row = lv_op(op);
		bool found = !row || !row->ioctl_nr;

		for (size_t i = 0; i < GOLDEN_COUNT && !found; i++)
			found = golden[i].req.op == op;
		if (!found)
			lv_test_fail(__FILE__, __LINE__, "%s has no golden ioctl", row->name);
	}
}

TEST(protocol_ioctl, numbers_and_arguments_are_what_the_kernel_reads)
{
	for (size_t i = 0; little_endian() && i < GOLDEN_COUNT; i++) {
		const struct golden_ioctl *g = &golden[i];
		struct libvhost_req req = g->req;
		uint64_t in[16], out[8] = {0}, arg[64], expected[64], answer[64];
		uint32_t len = hex(g->arg, (uint8_t *)expected, sizeof(expected));
		uint32_t answer_len = hex(g->answer, (uint8_t *)answer, sizeof(answer));
		const char *why = NULL;

		req.data_in_len = hex(g->in, (uint8_t *)in, sizeof(in));
		req.data_in = g->in ? (uintptr_t)in : 0;
		req.data_out = (uintptr_t)out;
		req.data_out_cap = sizeof(out);
		req.flags = g->fd ? LIBVHOST_REQ_HAS_FD : 0;
		req.fd = g->fd ? 7 : 0;
		CHECK_EQ(lv_op(req.op)->ioctl_nr, g->number);
		CHECK_EQ(lv_ioctl_encode(&req, arg, sizeof(arg), &why), len);
		CHECK_MEM(arg, expected, len);
		CHECK_EQ(lv_ioctl_returns(req.op), g->answer != NULL);
		if (len)
			CHECK_EQ(lv_ioctl_encode(&req, arg, len - 1, &why), -EMSGSIZE);
		CHECK_EQ(answer_len, g->answer ? len : 0);
		CHECK_EQ(lv_ioctl_decode_result(&req, answer, len, &why), 0);
		CHECK_EQ(req.result[0], g->result[0]);
		CHECK_EQ(req.result[1], g->result[1]);
		if (req.op == LIBVHOST_OP_GET_CONFIG)
			CHECK_MEM(out, "\xde\xad\xbe\xef", 4);
	}
}

TEST(protocol_ioctl, refuses_what_an_argument_cannot_hold)
{
	struct libvhost_req req = {OP(SET_FEATURES), .arg.features = {1, 1}};
	uint64_t arg[64];
	const char *why = NULL;

	CHECK_EQ(lv_ioctl_encode(&req, arg, sizeof(arg), &why), -ENOTSUP);
	CHECK_HAS(why, "SET_FEATURES_ARRAY");
	req = (struct libvhost_req){OP(SET_STATUS), .arg.u64 = 256};
	CHECK_EQ(lv_ioctl_encode(&req, arg, sizeof(arg), &why), -EINVAL);
	req = (struct libvhost_req){OP(FREE_WORKER), .arg.u64 = 1ull << 32};
	CHECK_EQ(lv_ioctl_encode(&req, arg, sizeof(arg), &why), -EINVAL);
	req = (struct libvhost_req){OP(SET_MEM_TABLE), .arg.table = {.count = 513, .stride = 48}};
	CHECK_EQ(lv_ioctl_encode(&req, arg, sizeof(arg), &why), -EINVAL);
	req = (struct libvhost_req){OP(GET_CONFIG), .arg.config = {.size = 4}};
	CHECK_EQ(lv_ioctl_encode(&req, arg, sizeof(arg), &why), -EINVAL);
	req = (struct libvhost_req){OP(SCSI_SET_ENDPOINT)};
	CHECK_EQ(lv_ioctl_encode(&req, arg, sizeof(arg), &why), -EINVAL);
	req = (struct libvhost_req){OP(SEND_RARP)};
	CHECK_EQ(lv_ioctl_encode(&req, arg, sizeof(arg), &why), -ENOTSUP);
	req = (struct libvhost_req){OP(GET_VRING_BASE), .index = 3};
	CHECK_EQ(lv_ioctl_decode_result(&req, (uint32_t[]){4, 1}, 8, &why), -EPROTO);
}

TEST(protocol_ioctl, iotlb_messages_of_both_versions)
{
	struct libvhost_req req = {
		OP(IOTLB_MSG),
		.arg.iotlb = {.iova = 0x10000, .size = 0x2000, .uaddr = 0x7f0000001000, .perm = 3, .type = 2}};
	static const char tail[] = "0000010000000000 0020000000000000 00100000007f0000 03 02 00*38";
	uint8_t expected[72], got[72];
	struct libvhost_req back;
	const char *why = NULL;

	if (!little_endian())
		SKIP("the table is little-endian");
	CHECK_EQ(hex("01000000 00000000", expected, 8) + hex(tail, expected + 8, 64), 72);
	CHECK_EQ(lv_iotlb_encode(&req, false, got, sizeof(got), &why), 72);
	CHECK_MEM(got, expected, 72);
	req.arg.iotlb.asid = 5;
	CHECK_EQ(lv_iotlb_encode(&req, false, got, sizeof(got), &why), -ENOTSUP);
	hex("02000000 05000000", expected, 8);
	CHECK_EQ(lv_iotlb_encode(&req, true, got, sizeof(got), &why), 72);
	CHECK_MEM(got, expected, 72);
	CHECK_EQ(lv_iotlb_decode(&back, got, 72, &why), 0);
	CHECK_EQ(back.op, LIBVHOST_OP_BACKEND_IOTLB_MSG);
	CHECK_MEM(&back.arg.iotlb, &req.arg.iotlb, sizeof(req.arg.iotlb));
	CHECK_EQ(lv_iotlb_decode(&back, got, 71, &why), -EPROTO);
	got[0] = 3;
	CHECK_EQ(lv_iotlb_decode(&back, got, 72, &why), -EPROTO);
	req.arg.iotlb = (struct libvhost_req_iotlb){.type = 5};
	CHECK_EQ(lv_iotlb_encode(&req, true, got, sizeof(got), &why), 72);
	req.arg.iotlb = (struct libvhost_req_iotlb){.type = 3};
	CHECK_EQ(lv_iotlb_encode(&req, true, got, sizeof(got), &why), -EINVAL);
	req.arg.iotlb = (struct libvhost_req_iotlb){.type = 7, .size = 1};
	CHECK_EQ(lv_iotlb_encode(&req, true, got, sizeof(got), &why), -EINVAL);
}

/* What newer kernels added is compared where the header has it. */
#define SAME(name) CHECK_EQ(LV_IOC_##name, VHOST_##name)

TEST(protocol_ioctl, agrees_with_the_system_header)
{
	SAME(GET_FEATURES);
	SAME(SET_FEATURES);
	SAME(SET_OWNER);
	SAME(RESET_OWNER);
	SAME(SET_MEM_TABLE);
	SAME(SET_LOG_BASE);
	SAME(SET_LOG_FD);
	SAME(SET_VRING_NUM);
	SAME(SET_VRING_ADDR);
	SAME(SET_VRING_BASE);
	SAME(GET_VRING_BASE);
	SAME(SET_VRING_ENDIAN);
	SAME(GET_VRING_ENDIAN);
	SAME(SET_VRING_KICK);
	SAME(SET_VRING_CALL);
	SAME(SET_VRING_ERR);
	SAME(SET_VRING_BUSYLOOP_TIMEOUT);
	SAME(GET_VRING_BUSYLOOP_TIMEOUT);
	SAME(SET_BACKEND_FEATURES);
	SAME(GET_BACKEND_FEATURES);
	SAME(NET_SET_BACKEND);
	SAME(SCSI_SET_ENDPOINT);
	SAME(SCSI_CLEAR_ENDPOINT);
	SAME(SCSI_GET_ABI_VERSION);
	SAME(SCSI_SET_EVENTS_MISSED);
	SAME(SCSI_GET_EVENTS_MISSED);
	SAME(VSOCK_SET_GUEST_CID);
	SAME(VSOCK_SET_RUNNING);
#ifdef VHOST_NEW_WORKER
	SAME(NEW_WORKER);
#endif
#ifdef VHOST_FREE_WORKER
	SAME(FREE_WORKER);
#endif
#ifdef VHOST_ATTACH_VRING_WORKER
	SAME(ATTACH_VRING_WORKER);
#endif
#ifdef VHOST_GET_VRING_WORKER
	SAME(GET_VRING_WORKER);
#endif
#ifdef VHOST_VDPA_GET_DEVICE_ID
	SAME(VDPA_GET_DEVICE_ID);
#endif
#ifdef VHOST_VDPA_GET_STATUS
	SAME(VDPA_GET_STATUS);
#endif
#ifdef VHOST_VDPA_SET_STATUS
	SAME(VDPA_SET_STATUS);
#endif
#ifdef VHOST_VDPA_GET_CONFIG
	SAME(VDPA_GET_CONFIG);
#endif
#ifdef VHOST_VDPA_SET_CONFIG
	SAME(VDPA_SET_CONFIG);
#endif
#ifdef VHOST_VDPA_SET_VRING_ENABLE
	SAME(VDPA_SET_VRING_ENABLE);
#endif
#ifdef VHOST_VDPA_GET_VRING_NUM
	SAME(VDPA_GET_VRING_NUM);
#endif
#ifdef VHOST_VDPA_SET_CONFIG_CALL
	SAME(VDPA_SET_CONFIG_CALL);
#endif
#ifdef VHOST_VDPA_GET_IOVA_RANGE
	SAME(VDPA_GET_IOVA_RANGE);
#endif
#ifdef VHOST_VDPA_GET_CONFIG_SIZE
	SAME(VDPA_GET_CONFIG_SIZE);
#endif
#ifdef VHOST_VDPA_GET_AS_NUM
	SAME(VDPA_GET_AS_NUM);
#endif
#ifdef VHOST_VDPA_GET_VRING_GROUP
	SAME(VDPA_GET_VRING_GROUP);
#endif
#ifdef VHOST_VDPA_SET_GROUP_ASID
	SAME(VDPA_SET_GROUP_ASID);
#endif
#ifdef VHOST_VDPA_SUSPEND
	SAME(VDPA_SUSPEND);
#endif
#ifdef VHOST_VDPA_RESUME
	SAME(VDPA_RESUME);
#endif
#ifdef VHOST_VDPA_GET_VRING_DESC_GROUP
	SAME(VDPA_GET_VRING_DESC_GROUP);
#endif
#ifdef VHOST_VDPA_GET_VQS_COUNT
	SAME(VDPA_GET_VQS_COUNT);
#endif
#ifdef VHOST_VDPA_GET_GROUP_NUM
	SAME(VDPA_GET_GROUP_NUM);
#endif
#ifdef VHOST_VDPA_GET_VRING_SIZE
	SAME(VDPA_GET_VRING_SIZE);
#endif
#ifdef VHOST_SET_FEATURES_ARRAY
	SAME(SET_FEATURES_ARRAY);
#endif
#ifdef VHOST_GET_FEATURES_ARRAY
	SAME(GET_FEATURES_ARRAY);
#endif
#ifdef VHOST_SET_FORK_FROM_OWNER
	SAME(SET_FORK_FROM_OWNER);
#endif
#ifdef VHOST_GET_FORK_FROM_OWNER
	SAME(GET_FORK_FROM_OWNER);
#endif
	CHECK_EQ(sizeof(struct lv_uapi_msg), sizeof(struct vhost_msg_v2));
	CHECK_EQ(offsetof(struct lv_uapi_msg, iotlb), offsetof(struct vhost_msg_v2, iotlb));
	CHECK_EQ(sizeof(struct lv_uapi_region), sizeof(struct vhost_memory_region));
}
