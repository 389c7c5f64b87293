/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* The tables of the protocol room: operations, feature names, one-line text, gates. */
#include "check.h"

#include <errno.h>
#include "protocol/codec.h"

TEST(protocol, every_operation_is_found_by_its_name_and_number)
{
	unsigned known = 0;

	for (uint32_t op = 0; op < 300; op++) {
		struct libvhost_op_info info = {.size = sizeof(info)};
		const struct lv_op *row = lv_op(op);

		if (!row) {
			CHECK_EQ(libvhost_op_info(op, &info), -ENOENT);
			CHECK_STR(libvhost_op_name(op), "?");
			continue;
		}
		known++;
		CHECK_EQ(row->op, op);
		CHECK_EQ(libvhost_op_by_name(row->name), op);
		CHECK_EQ(libvhost_op_info(op, &info), 0);
		CHECK_STR(info.name, row->name);
		CHECK(info.text && *info.text);
		CHECK_EQ(!!(info.flags & LIBVHOST_OP_FROM_BACKEND), op > LV_OP_BACKEND && op < 128);
	}
	CHECK_EQ(known, 44 + 10 + 34 + 1);
	CHECK_EQ(libvhost_op_by_name("no such"), LIBVHOST_OP_NONE);
	CHECK_EQ(libvhost_op_by_name(NULL), LIBVHOST_OP_NONE);
}

TEST(protocol, op_info_tells_what_a_caller_needs)
{
	struct libvhost_op_info info = {.size = sizeof(info)}, small = {.size = sizeof(info) - 1};
	struct {
		struct libvhost_op_info known;
		uint64_t future;
	} newer = {.known = {.size = sizeof(newer)}, .future = 7};

	CHECK_EQ(libvhost_op_info(LIBVHOST_OP_SET_MEM_TABLE, NULL), -EINVAL);
	CHECK_EQ(libvhost_op_info(LIBVHOST_OP_SET_MEM_TABLE, &small), -EINVAL);
	CHECK_EQ(libvhost_op_info(LIBVHOST_OP_SET_MEM_TABLE, &info), 0);
	CHECK_EQ(info.user_request, 5);
	CHECK_EQ(info.max_fds, 8);
	CHECK_EQ(info.protocol_bit, -1);
	CHECK_EQ(info.ioctl_nr, 0x4008af03);
	CHECK_EQ(libvhost_op_info(LIBVHOST_OP_GET_INFLIGHT_FD, &info), 0);
	CHECK_EQ(info.max_fds, 0);
	CHECK_EQ(info.flags, LIBVHOST_OP_REPLY_FD);
	CHECK_EQ(info.protocol_bit, 12);
	CHECK_EQ(libvhost_op_info(LIBVHOST_OP_BACKEND_SHMEM_MAP, &info), 0);
	CHECK_EQ(info.user_request, 9);
	CHECK_EQ(info.flags, LIBVHOST_OP_FROM_BACKEND);
	CHECK_EQ(libvhost_op_info(LIBVHOST_OP_VDPA_SUSPEND, &info), 0);
	CHECK_EQ(info.user_request, -1);
	CHECK_EQ(info.ioctl_nr, 0xaf7d);
	CHECK_EQ(libvhost_op_info(LIBVHOST_OP_SET_OWNER, &newer.known), 0);
	CHECK_EQ(newer.known.size, sizeof(newer));
	CHECK_EQ(newer.future, 0);
}

TEST(protocol, wire_numbers_have_two_spaces)
{
	CHECK_EQ(lv_op_by_user(5, false)->op, LIBVHOST_OP_SET_MEM_TABLE);
	CHECK_EQ(lv_op_by_user(5, true)->op, LIBVHOST_OP_BACKEND_VRING_ERR);
	CHECK(!lv_op_by_user(0, false));
	CHECK(!lv_op_by_user(0, true));
	CHECK(!lv_op_by_user(45, false));
	CHECK(!lv_op_by_user(65, false));
	CHECK(!lv_op_by_user(11, true));
	CHECK(!lv_op_by_user(0xffffffff, false));
	CHECK(!lv_op_by_user(0xffffffc1, true));
}

TEST(protocol, gates_name_what_is_missing)
{
	struct lv_user_session s = {0};
	const char *why = NULL;

	CHECK_EQ(lv_user_gate(lv_op(LIBVHOST_OP_SET_OWNER), &s, &why), 0);
	CHECK_EQ(lv_user_gate(lv_op(LIBVHOST_OP_GET_PROTOCOL_FEATURES), &s, &why), -ENOTSUP);
	CHECK_HAS(why, "bit 30");
	s.f30_offered = true;
	CHECK_EQ(lv_user_gate(lv_op(LIBVHOST_OP_GET_PROTOCOL_FEATURES), &s, &why), 0);
	CHECK_EQ(lv_user_gate(lv_op(LIBVHOST_OP_SET_VRING_ENABLE), &s, &why), -ENOTSUP);
	CHECK_EQ(lv_user_gate(lv_op(LIBVHOST_OP_GET_CONFIG), &s, &why), -ENOTSUP);
	CHECK_HAS(why, " CONFIG,");
	s.protocol_features = 1 << LIBVHOST_PROTOCOL_F_INBAND_NOTIFICATIONS | 1 << LIBVHOST_PROTOCOL_F_BACKEND_REQ;
	CHECK_EQ(lv_user_gate(lv_op(LIBVHOST_OP_VRING_KICK), &s, &why), -ENOTSUP);
	CHECK_HAS(why, "REPLY_ACK");
	CHECK_EQ(lv_user_gate(lv_op(LIBVHOST_OP_VDPA_SUSPEND), &s, &why), -ENOTSUP);
	CHECK_EQ(lv_user_gate(lv_op(LIBVHOST_OP_RAW), &s, &why), 0);
}

TEST(protocol, feature_names)
{
	CHECK_STR(libvhost_feature_name(2, 12), "VIRTIO_BLK_F_MQ");
	CHECK_STR(libvhost_feature_name(1, 22), "VIRTIO_NET_F_MQ");
	CHECK_STR(libvhost_feature_name(2, 32), "VIRTIO_F_VERSION_1");
	CHECK_STR(libvhost_feature_name(0, 30), "VHOST_USER_F_PROTOCOL_FEATURES");
	CHECK(!libvhost_feature_name(0, 12));
	CHECK(!libvhost_feature_name(4, 0));
	CHECK(!libvhost_feature_name(2, 64));
	CHECK_STR(libvhost_protocol_feature_name(3), "REPLY_ACK");
	CHECK_STR(libvhost_protocol_feature_name(22), "SHMEM_MAP");
	CHECK(!libvhost_protocol_feature_name(23));
}

TEST(protocol, text_is_cut_never_overrun)
{
	struct libvhost_req req = {.op = LIBVHOST_OP_SET_VRING_NUM, .index = 3, .arg.num = 256};
	char buf[64];

	for (size_t cap = 0; cap < sizeof(buf); cap++) {
		memset(buf, '#', sizeof(buf));
		libvhost_req_text(&req, buf, cap);
		for (size_t i = cap; i < sizeof(buf); i++)
			CHECK_EQ(buf[i], '#');
		if (cap)
			CHECK(memchr(buf, 0, cap));
	}
	CHECK_STR(buf, "SET_VRING_NUM queue 3 num 256");
	req = (struct libvhost_req){.op = 999};
	libvhost_req_text(&req, buf, sizeof(buf));
	CHECK_STR(buf, "unknown operation 999");
}
