/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* What strangers send: each rule of the decoder with the input that breaks it, then bytes without any plan. */
#include "protocol_golden.h"

#include <errno.h>
#include "protocol_hex.h"

static const int seven[8] = {7, 8, 9, 10, 11, 12, 13, 14};

/* Payload is copied to a heap block of its exact size, so that ASan sees a read beyond it. */
static int decode_bytes(struct libvhost_req *req, const struct lv_user_hdr *hdr, const uint8_t *payload, uint32_t nfds,
			bool from_backend, uint64_t features, const char **why)
{
	struct lv_user_session session = {.protocol_features = features};
	static uint64_t scratch[LV_USER_SCRATCH / 8];
	uint32_t len = hdr->size > LV_USER_MAX_PAYLOAD ? 0 : hdr->size;
	uint8_t *block = malloc(len + !len);
	struct lv_user_msg m = {.hdr = *hdr, .payload = block, .fds = seven, .nfds = nfds};
	int r;

	CHECK(block);
	memcpy(block, payload, len);
	r = lv_user_decode(req, &m, from_backend, &session, scratch, sizeof(scratch), why);
	free(block);
	CHECK(r == 0 || r == -ENOSYS || r == -EBADMSG || r == -EPROTO);
	CHECK(!r == !*why);
	return r;
}

static int decode(const char *text, uint32_t nfds, const char **why)
{
	uint8_t wire[LV_USER_HDR + LV_USER_MAX_PAYLOAD] = {0};
	struct libvhost_req req;
	struct lv_user_hdr hdr;
	bool from_backend = *text == '<';

	hex(text + from_backend, wire, sizeof(wire));
	hdr = lv_user_hdr_get(wire);
	return decode_bytes(&req, &hdr, wire + LV_USER_HDR, nfds, from_backend, ALL_FEATURES, why);
}

#define REFUSED(text, nfds, code, part)                                                                                \
	do {                                                                                                           \
		const char *lv_why = NULL;                                                                             \
		CHECK_EQ(decode(text, nfds, &lv_why), code);                                                           \
		CHECK_HAS(lv_why, part);                                                                               \
	} while (0)

#define ACCEPTED(text, nfds)                                                                                           \
	do {                                                                                                           \
		const char *lv_why = NULL;                                                                             \
		CHECK_EQ(decode(text, nfds, &lv_why), 0);                                                              \
	} while (0)

TEST(protocol_hostile, framing)
{
	REFUSED("01000000 05000000 00000000", 0, -EPROTO, "reply");
	REFUSED("01000000 02000000 00000000", 0, -EPROTO, "version");
	REFUSED("01000000 00000000 00000000", 0, -EPROTO, "version");
	REFUSED("01000000 01000000 01100000", 0, -EPROTO, "larger");
	REFUSED("01000000 01000000 ffffffff", 0, -EPROTO, "larger");
	REFUSED("01000000 01000000 00100000", 0, -EBADMSG, "size");
	REFUSED("00000000 01000000 00000000", 0, -ENOSYS, "unknown");
	REFUSED("2d000000 09000000 00000000", 8, -ENOSYS, "unknown");
	REFUSED("ffffffff 01000000 00000000", 0, -ENOSYS, "unknown");
	REFUSED("<0b000000 01000000 00000000", 0, -ENOSYS, "unknown");
}

TEST(protocol_hostile, descriptors)
{
	REFUSED("01000000 01000000 00000000", 1, -EBADMSG, "takes no descriptor");
	REFUSED("03000000 01000000 00000000", 8, -EBADMSG, "takes no descriptor");
	REFUSED("0b000000 01000000 08000000 00*8", 1, -EBADMSG, "takes no descriptor");
	REFUSED("07000000 01000000 00000000", 0, -EBADMSG, "needs a descriptor");
	REFUSED("15000000 01000000 00000000", 2, -EBADMSG, "more than one");
	REFUSED("0c000000 01000000 08000000 00*8", 0, -EBADMSG, "neither a descriptor");
	REFUSED("06000000 01000000 10000000 0000010000000000 00*8", 0, -EBADMSG, "needs a descriptor");
	REFUSED("06000000 01000000 10000000 0000010000000000 00*8", 2, -EBADMSG, "more than one");
	REFUSED("19000000 01000000 0d000000 00000000 01000000 00000000 00", 1, -EBADMSG, "takes no descriptor");
	REFUSED("2a000000 01000000 08000000 00*8", 2, -EBADMSG, "more than one");
	ACCEPTED("0c000000 01000000 08000000 0001000000000000", 1);
	ACCEPTED("26000000 01000000 28000000 00*8 " REGION1_HEX, 1);
	REFUSED("26000000 01000000 28000000 00*8 " REGION1_HEX, 2, -EBADMSG, "takes no descriptor");
}

TEST(protocol_hostile, descriptors_that_mean_nothing_are_not_passed_on)
{
	static const uint8_t nofd[8] = {0, 1};
	const struct lv_user_hdr hdr = {.request = 12, .flags = 1, .size = 8};
	struct libvhost_req req;
	const char *why = NULL;

	CHECK_EQ(decode_bytes(&req, &hdr, nofd, 1, false, ALL_FEATURES, &why), 0);
	CHECK(!(req.flags & LIBVHOST_REQ_HAS_FD));
}

TEST(protocol_hostile, memory_tables)
{
	REFUSED("05000000 01000000 00000000", 0, -EBADMSG, "size");
	REFUSED("05000000 01000000 07000000 00*7", 0, -EBADMSG, "size");
	ACCEPTED("05000000 01000000 08000000 00*8", 0);
	REFUSED("05000000 01000000 08000000 00*8", 1, -EBADMSG, "number of descriptors");
	REFUSED("05000000 01000000 08000000 09000000 00000000", 8, -EBADMSG, "more than 8");
	REFUSED("05000000 01000000 08000000 ffffffff 00000000", 8, -EBADMSG, "more than 8");
	REFUSED("05000000 01000000 48000000 08000000 00000000" REGION0_HEX REGION1_HEX, 8, -EBADMSG, "size");
	REFUSED("05000000 01000000 48000000 02000000 00000000" REGION0_HEX REGION1_HEX, 0, -EBADMSG, "number of");
	REFUSED("05000000 01000000 48000000 02000000 00000000" REGION0_HEX REGION1_HEX, 1, -EBADMSG, "number of");
	REFUSED("05000000 01000000 48000000 02000000 00000000" REGION0_HEX REGION1_HEX, 3, -EBADMSG, "number of");
	/* gpa, size, user address, mmap offset */
	REFUSED("25000000 01000000 28000000 00*8 00*8 00*8 00*8 00*8", 1, -EBADMSG, "size 0");
	REFUSED("25000000 01000000 28000000 00*8 00f0ffffffffffff 0020000000000000 00*8 00*8", 1, -EBADMSG, "physical");
	REFUSED("25000000 01000000 28000000 00*8 00*8 0020000000000000 00f0ffffffffffff 00*8", 1, -EBADMSG, "user");
	REFUSED("25000000 01000000 28000000 00*8 00*8 0020000000000000 00*8 00f0ffffffffffff", 1, -EBADMSG, "file");
	REFUSED("25000000 01000000 28000000 00*8 00*8 0020000000000000 00*8 00e0ffffffffff7f", 1, -EBADMSG, "file");
	REFUSED("25000000 01000000 30000000 00*8 " REGION1_HEX "00*8", 1, -EBADMSG, "size");
}

TEST(protocol_hostile, rings)
{
	REFUSED("08000000 01000000 04000000 00*4", 0, -EBADMSG, "size");
	REFUSED("08000000 01000000 40000000 00*64", 0, -EBADMSG, "size");
	REFUSED("08000000 01000000 08000000 00000000 00000000", 0, -EBADMSG, "ring size");
	REFUSED("08000000 01000000 08000000 00000000 01800000", 0, -EBADMSG, "ring size");
	REFUSED("08000000 01000000 08000000 00010000 00010000", 0, -EBADMSG, "queue index");
	REFUSED("0b000000 01000000 08000000 ffffffff 00000000", 0, -EBADMSG, "queue index");
	REFUSED("12000000 01000000 08000000 00000000 02000000", 0, -EBADMSG, "enable");
	REFUSED("12000000 01000000 08000000 00000000 ffffffff", 0, -EBADMSG, "enable");
	REFUSED("09000000 01000000 28000000 00000000 02000000 00*32", 0, -EBADMSG, "flags");
	REFUSED("0d000000 01000000 08000000 0002000000000000", 1, -EBADMSG, "unknown bits");
	REFUSED("17000000 01000000 08000000 00000000 02000000", 0, -EBADMSG, "byte order");
}

TEST(protocol_hostile, everything_else)
{
	REFUSED("18000000 01000000 0c000000 00000000 40000000 00000000", 0, -EBADMSG, "size");
	REFUSED("18000000 01000000 0c000000 00000000 00000000 00000000", 0, -EBADMSG, "outside 1..256");
	REFUSED("18000000 01000000 0d010000 00000000 01010000 00000000 00*257", 0, -EBADMSG, "size");
	REFUSED("18000000 01000000 0d000000 ffffffff 01000000 00000000 00", 0, -EBADMSG, "wraps");
	REFUSED("19000000 01000000 0d000000 00000000 01000000 ff000000 00", 0, -EBADMSG, "flags");
	REFUSED("1f000000 01000000 18000000 00*16 ffff ffff 00000000", 0, -EBADMSG, "queues");
	REFUSED("1f000000 01000000 18000000 00*16 0100 ffff 00000000", 0, -EBADMSG, "queue size");
	REFUSED("20000000 01000000 18000000 ff*8 0010000000000000 0100 8000 00*4", 1, -EBADMSG, "wraps");
	ACCEPTED("1f000000 01000000 14000000 00*16 0100 8000", 0);
	REFUSED("1f000000 01000000 15000000 00*21", 0, -EBADMSG, "size");
	/* iova, size, uaddr, perm, type */
	ACCEPTED("16000000 01000000 1a000000 00*8 0010000000000000 00*8 03 02", 0);
	REFUSED("16000000 01000000 1b000000 00*27", 0, -EBADMSG, "size");
	REFUSED("16000000 01000000 1a000000 00*8 00*8 00*8 03 02", 0, -EBADMSG, "size 0");
	REFUSED("16000000 01000000 1a000000 ff*8 0010000000000000 00*8 03 02", 0, -EBADMSG, "wraps");
	REFUSED("16000000 01000000 1a000000 00*8 0010000000000000 ff*8 03 02", 0, -EBADMSG, "wraps");
	REFUSED("16000000 01000000 1a000000 00*8 0010000000000000 00*8 ff 02", 0, -EBADMSG, "permission");
	REFUSED("16000000 01000000 1a000000 00*8 0010000000000000 00*8 03 09", 0, -EBADMSG, "type");
	REFUSED("<01000000 01000000 1a000000 00*8 0010000000000000 00*8 03 02", 0, -EBADMSG, "type");
	REFUSED("27000000 01000000 08000000 0001000000000000", 0, -EBADMSG, "8 bits");
	REFUSED("2a000000 01000000 08000000 02000000 00000000", 1, -EBADMSG, "direction");
	REFUSED("2a000000 01000000 08000000 00000000 07000000", 1, -EBADMSG, "phase");
	REFUSED("1a000000 01000000 2f040000 00*1071", 0, -EBADMSG, "size");
	REFUSED("<09000000 01000000 28000000 00*8 00*8 00f0ffffffffffff 0020000000000000 00*8", 1, -EBADMSG, "wraps");
	REFUSED("<09000000 01000000 28000000 00*8 00*8 00*8 0020000000000000 0200000000000000", 1, -EBADMSG, "flags");
	REFUSED("<03000000 01000000 18000000 0002000000000000 0010000000000000 00*8", 1, -EBADMSG, "flags");
}

/* Answers: one request, one reply text, the verdict. */
static int answer(uint32_t op, const char *text, uint32_t nfds, struct libvhost_req *req)
{
	struct lv_user_session session = {.protocol_features = ALL_FEATURES};
	uint8_t wire[LV_USER_HDR + LV_USER_MAX_PAYLOAD] = {0};
	uint32_t len = hex(text, wire, sizeof(wire));
	static uint8_t out[64];
	const char *why = NULL;
	uint8_t *block = malloc(len);
	struct lv_user_msg m = {
		.hdr = lv_user_hdr_get(wire), .payload = block + LV_USER_HDR, .fds = seven, .nfds = nfds};
	int r;

	*req = (struct libvhost_req){.op = op, .index = 3, .data_out = (uintptr_t)out, .data_out_cap = sizeof(out)};
	if (op == LIBVHOST_OP_GET_CONFIG)
		req->arg.config = (struct libvhost_req_config){.offset = 8, .size = 4};
	if (op == LIBVHOST_OP_SET_VRING_ENABLE)
		req->index = 0;
	if (op == LIBVHOST_OP_SET_LOG_BASE)
		req->arg.log.size = 0x10000;
	CHECK(block);
	memcpy(block, wire, len);
	r = lv_user_decode_reply(req, &m, true, &session, &why);
	free(block);
	CHECK(!r == !why);
	if (r < 0)
		CHECK_EQ(req->data_out_len | req->out_flags, 0);
	return r;
}
#define ANSWER(op, text, nfds) answer(LIBVHOST_OP_##op, text, nfds, &req)

TEST(protocol_hostile, answers_that_are_none)
{
	struct libvhost_req req;

	CHECK_EQ(ANSWER(GET_FEATURES, "02000000 05000000 08000000 00*8", 0), -EPROTO);
	CHECK_EQ(ANSWER(GET_FEATURES, "01000000 01000000 08000000 00*8", 0), -EPROTO);
	CHECK_EQ(ANSWER(GET_FEATURES, "01000000 04000000 08000000 00*8", 0), -EPROTO);
	CHECK_EQ(ANSWER(GET_FEATURES, "01000000 0d000000 08000000 00*8", 0), -EPROTO);
	CHECK_EQ(ANSWER(GET_FEATURES, "01000000 05000000 00000000", 0), -EPROTO);
	CHECK_EQ(ANSWER(GET_FEATURES, "01000000 05000000 04000000 00*4", 0), -EPROTO);
	CHECK_EQ(ANSWER(GET_FEATURES, "01000000 05000000 09000000 00*9", 0), -EPROTO);
	CHECK_EQ(ANSWER(GET_FEATURES, "01000000 05000000 ffffffff", 0), -EPROTO);
	CHECK_EQ(ANSWER(GET_FEATURES, "01000000 05000000 08000000 00*8", 1), -EPROTO);
	CHECK_EQ(ANSWER(GET_VRING_BASE, "0b000000 05000000 08000000 04000000 00000000", 0), -EPROTO);
	CHECK_EQ(ANSWER(GET_INFLIGHT_FD, "1f000000 05000000 18000000 0010000000000000 00*16", 0), -EPROTO);
	CHECK_EQ(ANSWER(GET_INFLIGHT_FD, "1f000000 05000000 18000000 ff*8 00*16", 1), -EPROTO);
	CHECK_EQ(ANSWER(GET_CONFIG, "18000000 05000000 10000000 00000000 04000000 00000000 00*4", 0), -EPROTO);
	CHECK_EQ(ANSWER(GET_CONFIG, "18000000 05000000 0e000000 08000000 04000000 00000000 00*2", 0), -EPROTO);
	CHECK_EQ(ANSWER(GET_CONFIG, "18000000 05000000 10000000 08000000 01010000 00000000 00*4", 0), -EPROTO);
	CHECK_EQ(ANSWER(SET_DEVICE_STATE_FD, "2a000000 05000000 08000000 00*8", 0), -EPROTO);
	CHECK_EQ(ANSWER(SET_DEVICE_STATE_FD, "2a000000 05000000 08000000 0001000000000000", 1), -EPROTO);
	CHECK_EQ(ANSWER(SET_LOG_BASE, "06000000 05000000 04000000 00*4", 0), -EPROTO);
	CHECK_EQ(ANSWER(GET_SHMEM_CONFIG, "2c000000 05000000 08080000 01010000 00*2052", 0), -EPROTO);
	CHECK_EQ(ANSWER(GET_SHMEM_CONFIG, "2c000000 05000000 08080000 01000000 00*2052", 0), -EMSGSIZE);
}

TEST(protocol_hostile, refusals_keep_what_the_peer_said)
{
	struct libvhost_req req;

	CHECK_EQ(ANSWER(SET_VRING_ENABLE, "12000000 05000000 08000000 1600000000000000", 0), -EIO);
	CHECK_EQ(req.result[0], 22);
	CHECK_EQ(ANSWER(GET_CONFIG, "18000000 05000000 00000000", 0), -EIO);
	CHECK_EQ(ANSWER(GET_CONFIG, "18000000 05000000 0c000000 08000000 00000000 00000000", 0), -EIO);
	CHECK_EQ(ANSWER(GET_INFLIGHT_FD, "1f000000 05000000 18000000 00*24", 0), -EIO);
	CHECK_EQ(ANSWER(SET_DEVICE_STATE_FD, "2a000000 05000000 08000000 0501000000000000", 0), -EIO);
	CHECK_EQ(req.result[0], 0x105);
	CHECK_EQ(ANSWER(CHECK_DEVICE_STATE, "2b000000 05000000 08000000 0100000000000000", 0), -EIO);
	CHECK_EQ(ANSWER(GET_SHARED_OBJECT, "29000000 05000000 00000000", 0), -EIO);
	CHECK_EQ(ANSWER(CREATE_CRYPTO_SESSION, "1a000000 05000000 30040000 00*1064 ff*8", 0), -EIO);
	CHECK_EQ(req.result[0], -1);
}

TEST(protocol_hostile, variants_in_the_field_are_accepted)
{
	struct libvhost_req req;

	CHECK_EQ(ANSWER(SET_LOG_BASE, "06000000 05000000 00000000", 0), 0);
	CHECK_EQ(ANSWER(SET_LOG_BASE, "06000000 05000000 08000000 00*8", 0), 0);
	CHECK_EQ(ANSWER(SET_LOG_BASE, "06000000 05000000 10000000 ff*16", 0), 0);
	CHECK_EQ(ANSWER(SET_LOG_BASE, "06000000 05000000 08000000 0100000000000000", 0), -EIO);
	/* libvhost-user answers with the size that it was sent */
	CHECK_EQ(ANSWER(SET_LOG_BASE, "06000000 05000000 08000000 0000010000000000", 0), 0);
	CHECK_EQ(ANSWER(GET_INFLIGHT_FD, "1f000000 05000000 14000000 0010000000000000 00*8 0100 8000", 1), 0);
	CHECK_EQ(req.result[0], 0x1000);
	CHECK_EQ(ANSWER(GET_SHARED_OBJECT, "29000000 05000000 10000000 00*16", 1), 0);
	CHECK_EQ(req.out_fd, 7);
}

TEST(protocol_hostile, migration_by_another_number_is_migration)
{
	static const uint8_t two[13] = {[4] = 1, [8] = 2, [12] = 0xab}, three[13] = {[4] = 1, [8] = 3};
	const struct lv_user_hdr set = {.request = 25, .flags = 1, .size = 13};
	const struct lv_user_hdr get = {.request = 24, .flags = 1, .size = 13};
	struct libvhost_req req;
	const char *why = NULL;

	CHECK_EQ(decode_bytes(&req, &set, two, 0, false, ALL_FEATURES, &why), 0);
	CHECK_EQ(req.arg.config.flags, 1);
	CHECK_EQ(*(const uint8_t *)(uintptr_t)req.data_in, 0xab);
	CHECK_EQ(decode_bytes(&req, &set, three, 0, false, ALL_FEATURES, &why), -EBADMSG);
	CHECK_EQ(decode_bytes(&req, &get, two, 0, false, ALL_FEATURES, &why), 0);
	CHECK_EQ(req.arg.config.flags, 2); /* means nothing in a read and comes back as it was */
}

/* A whole address space is dropped in two halves, and the upper one ends at 2^64. */
TEST(protocol_hostile, io_translations_reach_the_last_address)
{
	ACCEPTED("16000000 01000000 20000000 0000000000000080 0000000000000080 00*8 00 03 00*6", 0);
	REFUSED("16000000 01000000 20000000 0100000000000080 0000000000000080 00*8 00 03 00*6", 0, -EBADMSG, "wraps");
	ACCEPTED("<01000000 01000000 20000000 00f0ffffffffffff 0010000000000000 00*8 01 01 00*6", 0);
}

/* Each golden message with every length, every byte replaced, and neighbours' requests: any verdict, no crash. */
TEST(protocol_hostile, mutated_messages_do_no_harm)
{
	static uint8_t wire[8192];

	for (size_t i = 0; i < GOLDEN_COUNT; i++) {
		uint32_t len = hex(golden[i].wire, wire, sizeof(wire)), nfds = golden[i].regions ? 2 : golden[i].fd;
		struct lv_user_hdr hdr = lv_user_hdr_get(wire);
		bool from_backend = golden[i].req.op > LV_OP_BACKEND && golden[i].req.op != LIBVHOST_OP_RAW;
		uint64_t features = ALL_FEATURES ^ golden[i].flip;
		struct libvhost_req req;
		const char *why = NULL;

		for (uint32_t size = 0; size < len - LV_USER_HDR; size++) {
			hdr.size = size;
			decode_bytes(&req, &hdr, wire + LV_USER_HDR, nfds, from_backend, features, &why);
		}
		hdr.size = len - LV_USER_HDR;
		for (uint32_t at = 0; at < hdr.size && at < 512; at++)
			for (int flip = 1; flip < 256; flip += at < 64 ? 1 : 127) {
				wire[LV_USER_HDR + at] ^= (uint8_t)flip;
				decode_bytes(&req, &hdr, wire + LV_USER_HDR, nfds, from_backend, features, &why);
				wire[LV_USER_HDR + at] ^= (uint8_t)flip;
			}
	}
}

static uint32_t next_random(uint64_t *state)
{
	*state = *state * 6364136223846793005ull + 1442695040888963407ull;
	return (uint32_t)(*state >> 33);
}

/* Random payloads of plausible sizes; what is accepted must encode again, to the same meaning. */
TEST(protocol_hostile, what_is_accepted_can_be_said_again)
{
	static const uint32_t sizes[] = {0, 4, 8, 12, 13, 16, 20, 24, 26, 32, 40, 48, 72, 264, 632, 1072, 4096};
	static uint8_t payload[LV_USER_MAX_PAYLOAD], buf[8192];
	uint64_t state = 1, accepted = 0;

	for (uint32_t n = 0; n < 200000; n++) {
		struct lv_user_hdr hdr = {.request = next_random(&state) % 48, .flags = 1};
		struct lv_user_session session = {.protocol_features = next_random(&state)};
		int fds[LV_USER_MAX_FDS];
		struct libvhost_req req;
		const char *why = NULL;
		char text[256];
		uint32_t nfds;

		hdr.size = sizes[next_random(&state) % (sizeof(sizes) / sizeof(*sizes))];
		for (uint32_t i = 0; i < 64; i++) /* sparse, so that small numbers occur */
			payload[i] = next_random(&state) % 4 ? 0 : (uint8_t)next_random(&state);
		if (decode_bytes(&req, &hdr, payload, next_random(&state) % 3, n & 1, session.protocol_features, &why))
			continue;
		accepted++;
		libvhost_req_text(&req, text, sizeof(text));
		CHECK_EQ(lv_user_encode(&req, &session, 0, buf, sizeof(buf), fds, &nfds, &why) > 0, true);
	}
	CHECK(accepted > 1000);
}
