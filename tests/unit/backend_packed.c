/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* Packed rings as a front-end's messages set them up: sizes, bases of 32 and of 16 bits, features that come late. */
#include "frontend.h"

#define NUM    7u
#define DESC   UADDR
#define DRIVER (UADDR + 0x1000)
#define DEVICE (UADDR + RAM_BYTES - 4) /* a used ring would not fit here */
#define OP(op) LIBVHOST_OP_##op

static struct fake up(uint64_t features)
{
	const struct libvhost_backend_opts o = {.features = F_PACKED | F_EVENT};
	struct libvhost_region ram = {.size = RAM_BYTES, .user_addr = UADDR};
	struct fake p = fake_new(&o);

	CHECK(get_u64(&p, OP(GET_FEATURES)) & F_PACKED);
	CHECK_EQ(ask_u64(&p, OP(SET_PROTOCOL_FEATURES), PF(REPLY_ACK)), 0);
	if (features)
		CHECK_EQ(ask_u64(&p, OP(SET_FEATURES), F30 | F_VERSION | features), 0);
	ram.fd = p.ram;
	CHECK_EQ(ask_table(&p, &ram, 1, 1), 0);
	return p;
}

static struct lv_packed_ring ring(struct fake *p)
{
	return (struct lv_packed_ring){.desc = (void *)p->mem,
				       .driver = (void *)(p->mem + 0x1000),
				       .device = (void *)(p->mem + RAM_BYTES - 4),
				       .num = NUM};
}

static int set_up(struct fake *p, uint32_t num, uint32_t base)
{
	int rc = ask_state(p, OP(SET_VRING_NUM), 0, num);

	rc = rc ? rc : ask_state(p, OP(SET_VRING_BASE), 0, base);
	rc = rc ? rc : ask_addr(p, 0, DESC, DRIVER, DEVICE);
	return rc ? rc : ask_fd(p, OP(SET_VRING_CALL), 0, p->call);
}

static int go(struct fake *p)
{
	int rc = ask_fd(p, OP(SET_VRING_KICK), 0, p->kick);

	return rc ? rc : ask_state(p, OP(SET_VRING_ENABLE), 0, 1);
}

/* Offers one at pos and waits until it is used there. */
static bool served(struct fake *p, uint16_t pos)
{
	const struct lv_packed_ring r = ring(p);

	lv_packed_set_addr(&r, pos, 0x10000);
	lv_packed_publish(&r, pos, lv_packed_meta(64, 3, lv_avail_bits(pos)));
	CHECK_EQ(eventfd_write(p->kick, 1), 0);
	for (int i = 0; i < PATIENCE_MS; i++, usleep(1000)) {
		const uint64_t meta = lv_packed_load(&r, pos);

		if (lv_meta_is(meta, lv_used_bits(pos)))
			return lv_meta_id(meta) == 3;
	}
	return false;
}

static void runs_from(uint32_t given, uint16_t pos)
{
	struct fake p = up(F_PACKED);

	CHECK_EQ(set_up(&p, NUM, given), 0);
	CHECK_EQ(go(&p), 0);
	for (uint32_t i = 0; i < 2 * NUM + 3; i++, pos = lv_pos_next(pos, 1, NUM))
		CHECK(served(&p, pos));
	CHECK_EQ(get_base(&p, 0), lv_pos_base(pos));
	CHECK_EQ(ask_state(&p, OP(SET_VRING_ENABLE), 0, 0), 0);
	CHECK_EQ(go(&p), 0); /* the base that was read is remembered */
	CHECK(served(&p, pos));
	fake_free(&p);
}

TEST(backend_packed, bases_of_32_and_of_16_bits)
{
	runs_from(LV_PACKED_BASE, LV_POS_WRAP);
	runs_from(0x80058005, LV_POS_WRAP | 5);
	runs_from(0x00020002, 2);
	runs_from(0x8000, LV_POS_WRAP); /* DPDK's virtio_user */
	runs_from(0x8004, LV_POS_WRAP | 4);
}

TEST(backend_packed, a_front_end_that_gives_no_base_has_a_fresh_ring)
{
	struct fake p = up(F_PACKED);

	CHECK_EQ(ask_state(&p, OP(SET_VRING_NUM), 0, NUM), 0);
	CHECK_EQ(ask_addr(&p, 0, DESC, DRIVER, DEVICE), 0);
	CHECK_EQ(go(&p), 0);
	CHECK(served(&p, LV_POS_WRAP));
	fake_free(&p);
}

TEST(backend_packed, bases_that_cannot_be)
{
	static const uint32_t bad[] = {0x80078007, 0x80000001, 0xffffffff, 0x80038001};

	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		struct fake p = up(F_PACKED);

		CHECK_EQ(set_up(&p, NUM, bad[i]), 0);
		CHECK(go(&p) < 0);
		CHECK_EQ(ask_state(&p, OP(SET_VRING_BASE), 0, LV_PACKED_BASE), 0);
		CHECK_EQ(go(&p), 0); /* the refusal changed nothing else */
		CHECK(served(&p, LV_POS_WRAP));
		fake_free(&p);
	}
}

TEST(backend_packed, features_after_the_ring)
{
	struct fake p = up(0);

	CHECK_EQ(set_up(&p, NUM, LV_PACKED_BASE), 0);
	CHECK_EQ(ask_u64(&p, OP(SET_FEATURES), F30 | F_VERSION | F_PACKED), 0);
	CHECK_EQ(go(&p), 0);
	CHECK(served(&p, LV_POS_WRAP));
	fake_free(&p);
	p = up(0); /* split after all: neither size nor areas fit, which shows when the ring should run */
	CHECK_EQ(set_up(&p, NUM, LV_PACKED_BASE), 0);
	CHECK_EQ(ask_u64(&p, OP(SET_FEATURES), F30 | F_VERSION), 0);
	CHECK(go(&p) < 0);
	CHECK_EQ(ask_state(&p, OP(SET_VRING_NUM), 0, NUM), -EINVAL);
	CHECK_EQ(ask_state(&p, OP(SET_VRING_NUM), 0, 8), 0);
	CHECK_EQ(ask_state(&p, OP(SET_VRING_BASE), 0, LV_PACKED_BASE), -EINVAL);
	CHECK_EQ(ask_state(&p, OP(SET_VRING_BASE), 0, 0), 0);
	CHECK_EQ(ask_addr(&p, 0, DESC, DRIVER, DEVICE), -EFAULT);
	CHECK_EQ(ask_addr(&p, 0, UADDR, UADDR + 0x1000, UADDR + 0x2000), 0);
	CHECK_EQ(go(&p), 0);
	ring_offer(&p);
	CHECK(ring_used(&p, 1));
	fake_free(&p);
}

TEST(backend_packed, a_ring_that_breaks_is_reported)
{
	struct fake p = up(F_PACKED);
	const struct lv_packed_ring r = ring(&p);
	struct libvhost_event e = {0};

	CHECK_EQ(set_up(&p, NUM, LV_PACKED_BASE), 0);
	CHECK_EQ(go(&p), 0);
	lv_packed_publish(&r, 0, lv_packed_meta(64, NUM, LV_PACKED_AVAIL));
	CHECK_EQ(eventfd_write(p.kick, 1), 0);
	for (int i = 0; i < PATIENCE_MS / 20 && e.type != LIBVHOST_EVENT_QUEUE_ERROR; i++) {
		CHECK_EQ(libvhost_backend_dispatch(p.b, 20), 0);
		while (e.type != LIBVHOST_EVENT_QUEUE_ERROR && libvhost_backend_next_event(p.b, &e) == 1)
			;
	}
	CHECK_HAS(e.text, "slot 0: request with buffer id 7");
	fake_free(&p);
}

TEST(backend_packed, not_without_version_1)
{
	struct libvhost_error e = {.size = sizeof(e)};
	struct fake p = up(0);

	CHECK_EQ(ask_u64(&p, OP(SET_FEATURES), F30 | F_PACKED), -EINVAL);
	CHECK_EQ(libvhost_backend_error(p.b, &e), 0);
	CHECK_HAS(e.text, "SET_FEATURES: RING_PACKED (bit 34) without VERSION_1 (bit 32)");
	CHECK_EQ(ask_u64(&p, OP(SET_FEATURES), F30 | F_VERSION | F_PACKED), 0); /* the refusal changed nothing */
	CHECK_EQ(set_up(&p, NUM, LV_PACKED_BASE), 0);
	CHECK_EQ(go(&p), 0);
	CHECK(served(&p, LV_POS_WRAP));
	fake_free(&p);
}
