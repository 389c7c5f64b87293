/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* Which pages a device-role queue marks, and when. */
#include "ringhelp.h"

struct logrig {
	struct rig r;
	struct lv_log *log;
};

static void log_new(struct logrig *l, uint32_t num, uint64_t features)
{
	rig_new(&l->r, num, features);
	CHECK_EQ(lv_log_new(DATA + HALF, &l->log), 0);
	lv_vq_set_log(l->r.dev, l->log, true, LV_NOT_LOGGED);
}

static void log_free(struct logrig *l)
{
	rig_free(&l->r);
	CHECK_EQ(l->log->outside, 0);
	lv_log_put(l->log);
}

static bool take_mark(struct logrig *l, uint64_t gpa)
{
	uint8_t *byte = &atomic_load(&l->log->bits)[gpa / PAGE / 8], bit = (uint8_t)(1u << gpa / PAGE % 8);
	bool was = *byte & bit;

	*byte &= (uint8_t)~bit;
	return was;
}

static bool clean(struct logrig *l)
{
	for (uint64_t i = 0; i < atomic_load(&l->log->bytes); i++)
		if (atomic_load(&l->log->bits)[i])
			return false;
	return true;
}

static uint32_t serve(struct logrig *l, uint64_t written)
{
	struct libvhost_chain c;

	CHECK_EQ(rig_pop(&l->r, &c), 1);
	CHECK_EQ(libvhost_vq_push(l->r.dev, c.head, written), 0);
	return c.head;
}

/* One readable and three writable buffers, of which the middle one crosses a page. */
static void offer_four(struct logrig *l)
{
	const struct libvhost_buf b[] = {{.gpa = DATA, .len = 4096},
					 {.gpa = DATA + 0x2000, .len = 100},
					 {.gpa = DATA + 0x4f80, .len = 256},
					 {.gpa = DATA + 0x8000, .len = 1}};

	CHECK_EQ(libvhost_vq_add(l->r.drv, b, 1, 3, 0), 0);
	CHECK(libvhost_vq_kick(l->r.drv) >= 0);
}

static void first_bytes(uint64_t features)
{
	static const struct {
		uint64_t written;
		unsigned pages; /* bit n: page of buffer 1, first and second of 2, of 3 */
	} t[] = {{0, 0}, {1, 1}, {100, 1}, {101, 3}, {228, 3}, {229, 7}, {356, 7}, {357, 15}, {9999, 15}};
	static const uint64_t page[] = {0x2000, 0x4000, 0x5000, 0x8000};
	struct logrig l;

	log_new(&l, 8, features);
	for (size_t i = 0; i < sizeof(t) / sizeof(t[0]); i++) {
		struct libvhost_used used;
		uint32_t n = 1;

		offer_four(&l);
		serve(&l, t[i].written);
		CHECK(clean(&l)); /* all at once, at flush */
		CHECK(libvhost_vq_flush(l.r.dev) >= 0);
		for (unsigned p = 0; p < 4; p++)
			CHECK_EQ(take_mark(&l, DATA + page[p]), t[i].pages >> p & 1);
		CHECK(clean(&l));
		CHECK_EQ(libvhost_vq_get_used(l.r.drv, &used, &n), 0);
	}
	log_free(&l);
}

TEST(vring_log, the_first_bytes_that_were_written)
{
	first_bytes(0);
	first_bytes(F_INDIRECT);
	first_bytes(F_INDIRECT | F_EVENT);
	first_bytes(LV_F_RING_PACKED);
	first_bytes(LV_F_RING_PACKED | F_INDIRECT | F_EVENT);
}

static void behind(uint64_t features)
{
	struct libvhost_chain c;
	struct logrig l;

	log_new(&l, 8, features);
	offer_four(&l);
	CHECK_EQ(libvhost_vq_wrote(l.r.dev, 0, 356, 1), -EINVAL); /* not taken yet */
	CHECK_EQ(rig_pop(&l.r, &c), 1);
	CHECK_EQ(libvhost_vq_wrote(l.r.dev, c.head, 356, 1), 0);
	CHECK_EQ(libvhost_vq_wrote(l.r.dev, c.head, 356, UINT64_MAX), 0); /* cut */
	CHECK_EQ(libvhost_vq_wrote(l.r.dev, c.head, UINT64_MAX, 1), 0);
	CHECK_EQ(libvhost_vq_push(l.r.dev, c.head, 1), 0);
	CHECK_EQ(libvhost_vq_wrote(l.r.dev, c.head, 0, 1), -EINVAL);
	CHECK_EQ(libvhost_vq_wrote(l.r.dev, 99, 0, 1), -EINVAL);
	CHECK_EQ(libvhost_vq_wrote(NULL, 0, 0, 1), -EINVAL);
	CHECK_EQ(libvhost_vq_wrote(l.r.drv, 0, 0, 1), -EINVAL);
	CHECK(libvhost_vq_flush(l.r.dev) >= 0);
	CHECK(take_mark(&l, DATA + 0x2000) && take_mark(&l, DATA + 0x8000));
	CHECK(clean(&l));
	log_free(&l);
}

TEST(vring_log, what_lies_behind_them_is_told_separately)
{
	behind(F_INDIRECT);
	behind(LV_F_RING_PACKED);
	behind(LV_F_RING_PACKED | F_INDIRECT);
}

/* Requests that were taken before the log came are in it. */
static void between(uint64_t features)
{
	struct libvhost_chain c;
	struct logrig l;

	log_new(&l, 8, features);
	lv_vq_set_log(l.r.dev, NULL, false, LV_NOT_LOGGED);
	offer_four(&l);
	CHECK_EQ(rig_pop(&l.r, &c), 1);
	lv_vq_set_log(l.r.dev, l.log, true, LV_NOT_LOGGED);
	CHECK_EQ(libvhost_vq_push(l.r.dev, c.head, 1), 0);
	CHECK(libvhost_vq_flush(l.r.dev) >= 0);
	CHECK(take_mark(&l, DATA + 0x2000));
	CHECK(clean(&l));
	log_free(&l);
}

TEST(vring_log, may_come_between_pop_and_push)
{
	between(F_INDIRECT);
	between(LV_F_RING_PACKED);
	between(LV_F_RING_PACKED | F_INDIRECT);
}

/* What is written and not flushed when the log changes is in both, and in the only one when there is no next. */
static void replaced(uint64_t features)
{
	struct lv_log *next;
	struct logrig l;

	log_new(&l, 8, features);
	CHECK_EQ(lv_log_new(DATA + HALF, &next), 0);
	offer_four(&l);
	serve(&l, 1);
	lv_vq_set_log(l.r.dev, next, true, LV_NOT_LOGGED);
	CHECK(take_mark(&l, DATA + 0x2000));
	CHECK(clean(&l));
	CHECK(libvhost_vq_flush(l.r.dev) >= 0);
	lv_log_put(l.log);
	l.log = next;
	CHECK(take_mark(&l, DATA + 0x2000));
	offer_four(&l);
	serve(&l, 1);
	lv_vq_set_log(l.r.dev, NULL, false, LV_NOT_LOGGED);
	CHECK(take_mark(&l, DATA + 0x2000));
	CHECK(libvhost_vq_flush(l.r.dev) >= 0);
	CHECK(clean(&l));
	log_free(&l);
}

TEST(vring_log, nothing_is_lost_between_two_logs)
{
	replaced(F_INDIRECT);
	replaced(LV_F_RING_PACKED);
}

TEST(vring_log, more_requests_than_a_batch_holds)
{
	struct logrig l;

	log_new(&l, 256, 0);
	for (uint32_t i = 0; i < 200; i++) {
		const struct libvhost_buf b = {.gpa = DATA + i * PAGE, .len = 1};

		CHECK_EQ(libvhost_vq_add(l.r.drv, &b, 0, 1, i), 0);
	}
	CHECK(libvhost_vq_kick(l.r.drv) >= 0);
	for (uint32_t i = 0; i < 200; i++)
		serve(&l, 1);
	CHECK(libvhost_vq_flush(l.r.dev) >= 0);
	for (uint32_t i = 0; i < 200; i++)
		CHECK(take_mark(&l, DATA + i * PAGE));
	CHECK(clean(&l));
	log_free(&l);
}

/* The used ring: elements at both ends of it, the index, and the wish to be kicked. */
static void used_ring(uint64_t features)
{
	struct libvhost_chain c;
	struct logrig l;
	uint64_t used;

	rig_memory(&l.r, 1024, features);
	l.r.opts.used = RAM + HALF - 4 * PAGE; /* 8 KiB and a bit */
	l.r.opts.avail = RAM + HALF - 8 * PAGE;
	l.r.opts.desc = RAM + HALF - 16 * PAGE;
	used = l.r.opts.used;
	l.r.ring = (struct lv_split_ring){.desc = at(&l.r.g, l.r.opts.desc),
					  .avail = at(&l.r.g, l.r.opts.avail),
					  .used = at(&l.r.g, used),
					  .num = 1024};
	rig_driver(&l.r);
	rig_device(&l.r);
	CHECK_EQ(lv_log_new(DATA + HALF, &l.log), 0);
	lv_vq_set_log(l.r.dev, l.log, false, used);
	for (unsigned p = 0; p < 3; p++) /* all of it once: it was written when the queue was made */
		CHECK(take_mark(&l, used + p * PAGE));
	CHECK(clean(&l));
	for (uint32_t i = 0; i < 2048; i++) {
		const struct libvhost_buf b = {.gpa = DATA, .len = 1};
		const uint64_t slot = used + 4 + 8ull * (i % 1024);
		struct libvhost_used u;
		uint32_t n = 1;

		CHECK_EQ(libvhost_vq_add(l.r.drv, &b, 0, 1, 0), 0);
		CHECK(libvhost_vq_kick(l.r.drv) >= 0);
		CHECK_EQ(rig_pop(&l.r, &c), 1);
		CHECK(clean(&l));
		CHECK_EQ(libvhost_vq_push(l.r.dev, c.head, 1), 0);
		CHECK(clean(&l));
		CHECK(libvhost_vq_flush(l.r.dev) >= 0);
		CHECK(take_mark(&l, used)); /* the index */
		CHECK_EQ(take_mark(&l, slot), slot / PAGE != used / PAGE);
		CHECK_EQ(take_mark(&l, slot + 7), (slot + 7) / PAGE != slot / PAGE);
		CHECK(clean(&l));
		CHECK_EQ(rig_pop(&l.r, &c), 0);					  /* arms the kick */
		CHECK_EQ(take_mark(&l, used + 2 * PAGE), !!(features & F_EVENT)); /* behind the elements */
		CHECK(clean(&l));
		CHECK_EQ(libvhost_vq_get_used(l.r.drv, &u, &n), 0);
	}
	CHECK(libvhost_vq_notify_enable(l.r.dev, 0) >= 0);
	CHECK(take_mark(&l, features & F_EVENT ? used + 2 * PAGE : used));
	CHECK(clean(&l));
	lv_vq_set_log(l.r.dev, NULL, false, LV_NOT_LOGGED);
	CHECK(libvhost_vq_notify_enable(l.r.dev, 1) >= 0);
	CHECK(clean(&l));
	log_free(&l);
}

TEST(vring_log, the_used_ring_itself)
{
	used_ring(0);
	used_ring(F_EVENT);
}

/* A burst that wraps marks both ends. */
TEST(vring_log, a_burst_around_the_end_of_the_used_ring)
{
	struct logrig l;
	struct libvhost_used u[512];

	log_new(&l, 512, 0);
	lv_vq_set_log(l.r.dev, l.log, false, DATA);
	for (int round = 0; round < 2; round++) {
		uint32_t n = 512, count = round ? 300 : 400;

		for (uint32_t i = 0; i < count; i++) {
			const struct libvhost_buf b = {.gpa = DATA, .len = 1};

			CHECK_EQ(libvhost_vq_add(l.r.drv, &b, 0, 1, 0), 0);
		}
		CHECK(libvhost_vq_kick(l.r.drv) >= 0);
		memset(atomic_load(&l.log->bits), 0, 4096);
		for (uint32_t i = 0; i < count; i++)
			serve(&l, 1);
		CHECK(libvhost_vq_flush(l.r.dev) >= 0);
		CHECK(take_mark(&l, DATA));
		CHECK_EQ(take_mark(&l, DATA + PAGE), round); /* element 511, at 4092 */
		CHECK(clean(&l));
		CHECK_EQ(libvhost_vq_get_used(l.r.drv, u, &n), 0);
	}
	log_free(&l);
}

/* A driver that rewrites a chain which the device has: its own log suffers, nothing else. */
TEST(vring_log, chains_rewritten_before_the_push_are_harmless)
{
	static const struct {
		uint64_t addr;
		uint32_t len, flags, next;
	} bad[] = {{DATA, 64, LV_DESC_WRITE | LV_DESC_NEXT, 0},	  /* a loop */
		   {DATA, 0, LV_DESC_WRITE | LV_DESC_NEXT, 0},	  /* of nothing */
		   {DATA, 64, LV_DESC_NEXT, 9999},		  /* out of the table */
		   {UINT64_MAX - 7, 64, LV_DESC_WRITE, 0},	  /* wraps */
		   {1ull << 60, UINT32_MAX, LV_DESC_WRITE, 0},	  /* nowhere */
		   {1ull << 60, 64, LV_DESC_INDIRECT, 0},	  /* a table nowhere */
		   {DATA + HALF - 8, 1600, LV_DESC_INDIRECT, 0},  /* one that ends too early */
		   {DATA + 4, 1600, LV_DESC_INDIRECT, 0},	  /* a misaligned one */
		   {DATA, 17, LV_DESC_INDIRECT, 0},		  /* of odd length */
		   {RAM, UINT32_MAX & ~15u, LV_DESC_INDIRECT, 0}, /* a long one */
		   {DATA, 0, LV_DESC_INDIRECT, 0}};

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		const struct libvhost_buf b = {.gpa = DATA, .len = 8192};
		struct libvhost_chain c;
		struct logrig l;

		log_new(&l, 8, 0);
		CHECK_EQ(libvhost_vq_add(l.r.drv, &b, 0, 1, 0), 0);
		CHECK(libvhost_vq_kick(l.r.drv) >= 0);
		CHECK_EQ(rig_pop(&l.r, &c), 1);
		desc(&l.r, c.head, bad[i].addr, bad[i].len, bad[i].flags, bad[i].next);
		CHECK_EQ(libvhost_vq_push(l.r.dev, c.head, 8192), 0);
		CHECK(libvhost_vq_flush(l.r.dev) >= 0);
		CHECK(!vq_info(l.r.dev).broken);
		atomic_store(&l.log->outside, 0);
		log_free(&l);
	}
}

/* Of a packed ring the descriptors are written, and the device area. */
TEST(vring_log, a_packed_ring_where_it_lies)
{
	const uint64_t features = LV_F_RING_PACKED | F_EVENT;
	struct libvhost_chain c;
	struct logrig l;
	uint64_t at_desc;

	rig_memory(&l.r, 512, features);
	at_desc = l.r.opts.desc = RAM + 0x10000; /* two pages of descriptors */
	l.r.opts.avail = RAM + 0x20000;
	l.r.opts.used = RAM + 0x30000;
	rig_driver(&l.r);
	rig_device(&l.r);
	CHECK_EQ(lv_log_new(DATA + HALF, &l.log), 0);
	lv_vq_set_log(l.r.dev, l.log, false, 0x1234);
	CHECK(take_mark(&l, l.r.opts.used));
	CHECK(clean(&l));
	for (uint32_t i = 0; i < 1024; i++) {
		const struct libvhost_buf b = {.gpa = DATA, .len = 1};
		struct libvhost_used u;
		uint32_t n = 1;

		CHECK_EQ(libvhost_vq_add(l.r.drv, &b, 0, 1, 0), 0);
		CHECK(libvhost_vq_kick(l.r.drv) >= 0);
		CHECK_EQ(rig_pop(&l.r, &c), 1);
		CHECK_EQ(libvhost_vq_push(l.r.dev, c.head, 1), 0);
		CHECK(clean(&l));
		CHECK(libvhost_vq_flush(l.r.dev) >= 0);
		CHECK(take_mark(&l, at_desc + i % 512 * 16));
		CHECK(clean(&l));
		CHECK_EQ(rig_pop(&l.r, &c), 0);
		CHECK(take_mark(&l, l.r.opts.used));
		CHECK(clean(&l));
		CHECK_EQ(libvhost_vq_get_used(l.r.drv, &u, &n), 0);
	}
	CHECK(libvhost_vq_notify_enable(l.r.dev, 0) >= 0);
	CHECK(take_mark(&l, l.r.opts.used));
	log_free(&l);
}

/* A burst of a packed ring that wraps; requests of several descriptors. */
TEST(vring_log, a_packed_burst_around_the_end)
{
	struct libvhost_used u[256];
	struct logrig l;
	uint64_t at_desc;

	rig_memory(&l.r, 512, LV_F_RING_PACKED);
	at_desc = l.r.opts.desc = RAM + 0x10000;
	l.r.opts.avail = RAM + 0x20000;
	l.r.opts.used = RAM + 0x30000;
	rig_driver(&l.r);
	rig_device(&l.r);
	CHECK_EQ(lv_log_new(DATA + HALF, &l.log), 0);
	lv_vq_set_log(l.r.dev, l.log, true, 0);
	for (int round = 0; round < 2; round++) {
		uint32_t n = 256, count = round ? 60 : 100;

		for (uint32_t i = 0; i < count; i++) {
			const struct libvhost_buf b[] = {{.gpa = DATA, .len = 1},
							 {.gpa = DATA + PAGE, .len = 1},
							 {.gpa = DATA + 2 * PAGE, .len = 1},
							 {.gpa = DATA + 3 * PAGE, .len = 1}};

			CHECK_EQ(libvhost_vq_add(l.r.drv, b, 2, 2, 0), 0);
		}
		CHECK(libvhost_vq_kick(l.r.drv) >= 0);
		memset(atomic_load(&l.log->bits), 0, 4096);
		for (uint32_t i = 0; i < count; i++)
			serve(&l, 1);
		CHECK(libvhost_vq_flush(l.r.dev) >= 0);
		CHECK(take_mark(&l, DATA + 2 * PAGE)); /* only the first writable one */
		CHECK(take_mark(&l, at_desc));
		CHECK(take_mark(&l, at_desc + PAGE));
		take_mark(&l, l.r.opts.used);
		CHECK(clean(&l));
		CHECK_EQ(libvhost_vq_get_used(l.r.drv, u, &n), 0);
		CHECK_EQ(n, count);
	}
	log_free(&l);
}
