/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* Sizes that a front-end makes up reach neither the allocator nor mmap. */
#include "faults.h"
#include "frontend.h"

#define FRAME (12u + 4096u)

static void forget(void)
{
	fault.largest = fault.longest = 0;
}

TEST(backend_bounds, r006_a_size_allocates_no_more_than_a_frame)
{
	static const uint32_t sizes[] = {0xffffffff, 0x7fffffff, 0x10000000, 4097};
	struct fake p = fake_new(NULL);

	handshake(&p);
	for (size_t i = 0; i < sizeof(sizes) / sizeof(*sizes); i++) {
		const struct wire_hdr hdr = {.request = LIBVHOST_OP_SET_MEM_TABLE, .flags = 1, .size = sizes[i]};

		send_raw(&p, &hdr, sizeof(hdr), NULL, 0);
		forget();
		CHECK(closed(&p));
		CHECK(fault.largest <= FRAME);
		CHECK_EQ(fault.longest, 0);
		CHECK_EQ(take_event(&p, LIBVHOST_EVENT_DISCONNECTED).err, -EPROTO);
		fake_connect(&p);
		handshake(&p);
	}
	fake_free(&p);
}

TEST(backend_bounds, r040_a_count_allocates_nothing)
{
	struct fake p = fake_new(NULL);

	handshake(&p);
	forget();
	CHECK_EQ(ask_table(&p, NULL, 0xffffffff, 2), -EINVAL);
	CHECK(fault.largest <= FRAME);
	CHECK_EQ(fault.longest, 0);
	fake_free(&p);
}

/* Offset and size that wrap, or round up to nothing, to whole pages. */
TEST(backend_bounds, r046_mmap_never_sees_a_length_that_wrapped)
{
	static const uint64_t bad[][2] = {
		{0x2000, 0xfffffffffffff000},
		{0x1000, 0xfffffffffffff000},
		{1, UINT64_MAX},
		{UINT64_MAX, 1},
		{UINT64_MAX - 0xffe, 0xffe},
		{0x7ffffffffffff000, 0x1000},
		{UINT64_MAX - 0xfff, 0},
		{0x8000000000000000, 0},
		{0x1001, RAM_BYTES - 0x1000},
	};
	struct fake p = fake_new(NULL);

	handshake(&p);
	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		const struct libvhost_region r = {
			.size = bad[i][0], .mmap_offset = bad[i][1], .user_addr = UADDR, .fd = p.ram};

		forget();
		CHECK(ask_table(&p, &r, 1, 1) < 0);
		CHECK_EQ(fault.longest, 0);
	}
	fake_free(&p);
}

TEST(backend_bounds, r118_an_inflight_region_of_absurd_size_is_not_made)
{
	const uint64_t ask[3] = {0, 0, 0xffffffff};
	struct wire_hdr hdr;
	struct fake p = fake_new(NULL);
	uint64_t answer[3];

	handshake(&p);
	forget();
	send_msg(&p, LIBVHOST_OP_GET_INFLIGHT_FD, 0, ask, sizeof(ask), NULL, 0);
	CHECK_EQ(recv_msg(&p, &hdr, answer, sizeof(answer)), sizeof(answer));
	CHECK_EQ(answer[0], 0);
	CHECK(fault.largest <= FRAME);
	CHECK_EQ(fault.longest, 0);
	fake_free(&p);
}
