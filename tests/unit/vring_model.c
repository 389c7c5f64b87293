/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/*
 * Random operations of a driver and a device on one ring against a model that is a few arrays: both formats, with and
 * without event indexes, indirect tables and IN_ORDER, at all sizes.
 */
#include "ringhelp.h"

#if defined(LV_SANITIZED)
#define STEPS 1500
#else
#define STEPS 20000
#endif
#define MOST 64u /* buffers of a request at most, and requests in the model */

/* added -> visible -> popped -> pushed -> out (published by the device) -> back at the driver */
enum stage { ADDED, VISIBLE, POPPED, PUSHED, OUT, BACK };

struct request {
	uint32_t stage, n_read, n_write, descs, head;
	uint64_t writable, written;
	struct libvhost_buf bufs[MOST];
};

struct model {
	struct rig r;
	uint64_t seed;
	uint32_t num, free;
	struct request *reqs;	    /* all there ever were, by token */
	uint32_t count, popped;	    /* the next to pop */
	uint32_t *completions;	    /* tokens in the order in which the device pushed (IN_ORDER: took) them */
	uint32_t pushed, out, back; /* of completions: pushed, published, returned */
	bool in_order, device_sleeps, driver_sleeps;
};

static uint32_t dice(struct model *m, uint32_t sides)
{
	m->seed = m->seed * 6364136223846793005ull + 1442695040888963407ull;
	return (uint32_t)(m->seed >> 33) % sides;
}

static void add(struct model *m)
{
	const bool indirect = m->r.opts.features & F_INDIRECT;
	const uint32_t most = indirect ? (m->num < 8 ? m->num : 8) : m->num < MOST ? m->num : MOST;
	struct request *q = &m->reqs[m->count];
	uint32_t n = 1 + dice(m, dice(m, 4) ? (most < 4 ? most : 4) : most);
	int rc;

	*q = (struct request){.n_read = dice(m, n + 1)};
	q->n_write = n - q->n_read;
	q->descs = indirect ? 1 : n;
	for (uint32_t i = 0; i < n; i++) {
		q->bufs[i] = (struct libvhost_buf){.gpa = DATA + dice(m, 4096), .len = 1 + dice(m, 512)};
		q->writable += i < q->n_read ? 0 : q->bufs[i].len;
	}
	rc = libvhost_vq_add(m->r.drv, q->bufs, q->n_read, q->n_write, m->count);
	CHECK_EQ(rc, q->descs <= m->free ? 0 : -ENOSPC);
	if (rc)
		return;
	m->free -= q->descs;
	m->count++;
}

static void kick(struct model *m)
{
	bool any = false;
	int rc;

	for (uint32_t i = m->count; i-- > 0 && m->reqs[i].stage == ADDED; any = true)
		m->reqs[i].stage = VISIBLE;
	rc = libvhost_vq_kick(m->r.drv);
	CHECK(rc == 0 || rc == 1);
	CHECK(any || rc == 0);
	if (any && m->device_sleeps)
		CHECK_EQ(rc, 1);
	m->device_sleeps &= !any;
}

static void pop(struct model *m)
{
	struct libvhost_chain c;
	struct request *q = &m->reqs[m->popped];
	const bool there = m->popped < m->count && q->stage == VISIBLE;

	CHECK_EQ(rig_pop(&m->r, &c), there);
	if (!there) {
		m->device_sleeps = true; /* notifications are on: the next request kicks */
		return;
	}
	CHECK_EQ(c.n_read, q->n_read);
	CHECK_EQ(c.n_write, q->n_write);
	CHECK_EQ(c.write_len, q->writable);
	for (uint32_t i = 0; i < q->n_read + q->n_write; i++)
		CHECK(c.iov[i].base == at(&m->r.g, q->bufs[i].gpa) && c.iov[i].len == q->bufs[i].len);
	q->stage = POPPED;
	q->head = c.head;
	if (m->in_order)
		m->completions[m->pushed++] = m->popped;
	m->popped++;
}

/* Any request in the device, not only the oldest. */
static void push(struct model *m)
{
	uint32_t from = m->popped > 3 * m->num ? m->popped - 3 * m->num : 0, n = 0, pick, token = 0;

	for (uint32_t i = from; i < m->popped; i++)
		n += m->reqs[i].stage == POPPED;
	if (!n)
		return;
	pick = dice(m, n);
	for (uint32_t i = from; i < m->popped; i++)
		if (m->reqs[i].stage == POPPED && pick-- == 0)
			token = i;
	m->reqs[token].stage = PUSHED;
	m->reqs[token].written = dice(m, 3) ? m->reqs[token].writable : dice(m, 1000);
	if (!m->in_order)
		m->completions[m->pushed++] = token;
	CHECK_EQ(libvhost_vq_push(m->r.dev, m->reqs[token].head, m->reqs[token].written), 0);
}

static void flush(struct model *m)
{
	const uint32_t before = m->out;
	int rc;

	for (; m->out < m->pushed && m->reqs[m->completions[m->out]].stage == PUSHED; m->out++)
		m->reqs[m->completions[m->out]].stage = OUT;
	rc = libvhost_vq_flush(m->r.dev);
	CHECK(rc == 0 || rc == 1);
	CHECK(m->out > before || rc == 0);
	if (m->out > before && m->driver_sleeps)
		CHECK_EQ(rc, 1);
	m->driver_sleeps &= m->out == before;
}

static void get_used(struct model *m)
{
	struct libvhost_used u[8];
	uint32_t n = 1 + dice(m, 8), asked = n, expect = m->out - m->back < n ? m->out - m->back : n;

	CHECK_EQ(libvhost_vq_get_used(m->r.drv, u, &n), 0);
	CHECK_EQ(n, expect);
	for (uint32_t i = 0; i < n; i++) {
		struct request *q = &m->reqs[m->completions[m->back++]];

		CHECK_EQ(u[i].token, q - m->reqs);
		CHECK_EQ(u[i].len, q->written < q->writable ? q->written : q->writable);
		CHECK_EQ(u[i].flags, 0);
		CHECK_EQ(q->stage, OUT);
		q->stage = BACK;
		m->free += q->descs;
	}
	m->driver_sleeps = n < asked;
}

static void toggle(struct model *m)
{
	const bool work = m->popped < m->count && m->reqs[m->popped].stage == VISIBLE;

	CHECK_EQ(libvhost_vq_notify_enable(m->r.dev, 0), 0);
	CHECK_EQ(libvhost_vq_notify_enable(m->r.dev, 1), work);
	CHECK_EQ(libvhost_vq_notify_enable(m->r.drv, 0), 0);
	CHECK_EQ(libvhost_vq_notify_enable(m->r.drv, 1), m->out > m->back);
	m->device_sleeps = !work;
	m->driver_sleeps = m->out == m->back;
}

/* Where both sides are, by counting. */
static void check_bases(struct model *m, uint32_t start)
{
	uint32_t taken = 0, out = 0, i;

	for (i = 0; i < m->popped; i++)
		taken += m->r.opts.features & F_PACKED ? m->reqs[i].descs : 1;
	for (i = 0; i < m->out; i++)
		out += m->r.opts.features & F_PACKED ? m->reqs[m->completions[i]].descs : 1;
	if (m->r.opts.features & F_PACKED) {
		uint16_t avail = (uint16_t)start, used = (uint16_t)start;

		for (; taken > m->num; taken -= m->num)
			avail ^= LV_POS_WRAP;
		for (; out > m->num; out -= m->num)
			used ^= LV_POS_WRAP;
		used = lv_pos_next(used, out, m->num);
		CHECK_EQ(vq_info(m->r.dev).base, lv_pos_next(avail, taken, m->num) | (uint32_t)used << 16);
		CHECK_EQ(vq_info(m->r.drv).base, lv_pos_base(used));
	} else {
		CHECK_EQ(vq_info(m->r.dev).base, (uint16_t)(start + taken));
		CHECK_EQ(vq_info(m->r.drv).base, (uint16_t)(start + out));
	}
	CHECK_EQ(vq_info(m->r.drv).in_flight, m->count - m->back);
}

static void run(uint32_t num, uint64_t features, uint64_t seed, uint32_t base, uint32_t steps)
{
	static void (*const ops[])(struct model *) = {add,  add,  add,	kick,  pop,	 pop,	pop,
						      push, push, push, flush, get_used, toggle};
	struct model m = {.seed = seed, .num = num, .free = num, .in_order = features & F_ORDERED};

	m.reqs = calloc(steps + 1, sizeof(*m.reqs));
	m.completions = calloc(steps + 1, sizeof(*m.completions));
	CHECK(m.reqs && m.completions);
	rig_memory(&m.r, num, features);
	m.r.opts.flags |= LIBVHOST_VQ_HAS_BASE;
	m.r.opts.base = base;
	rig_driver(&m.r);
	rig_device(&m.r);
	m.device_sleeps = m.driver_sleeps = true;
	for (uint32_t i = 0; i < steps; i++) {
		uint32_t op = dice(&m, sizeof(ops) / sizeof(*ops));

		ops[op](&m);
		if (i % 512 == 0)
			check_bases(&m, base);
	}
	check_bases(&m, base);
	CHECK(m.count > 0 && m.back > 0);
	rig_free(&m.r);
	free(m.reqs);
	free(m.completions);
}

static void all_features(uint32_t num, uint64_t format, uint32_t base)
{
	for (uint64_t f = 0; f < 8; f++)
		run(num, format | (f & 1 ? F_EVENT : 0) | (f & 2 ? F_INDIRECT : 0) | (f & 4 ? F_ORDERED : 0),
		    num * 8 + f, base, STEPS);
}

TEST(vring_model, split)
{
	static const uint32_t nums[] = {1, 2, 4, 16, 64, 256};

	for (size_t i = 0; i < sizeof(nums) / sizeof(*nums); i++)
		all_features(nums[i], 0, i % 2 ? 0 : 65500);
}

TEST(vring_model, packed)
{
	static const uint32_t nums[] = {1, 2, 3, 5, 7, 16, 33, 100, 255, 256};

	for (size_t i = 0; i < sizeof(nums) / sizeof(*nums); i++)
		all_features(nums[i], F_PACKED, LV_PACKED_BASE);
}

TEST(vring_model, packed_from_anywhere)
{
	for (uint32_t slot = 0; slot < 7; slot++) {
		all_features(7, F_PACKED, lv_pos_base((uint16_t)slot));
		all_features(7, F_PACKED, lv_pos_base((uint16_t)(slot | LV_POS_WRAP)));
	}
}

TEST(vring_model, packed_of_every_size)
{
	for (uint32_t num = 1; num <= 130; num++)
		run(num, F_PACKED | (num & 1 ? F_EVENT : 0) | (num & 2 ? F_ORDERED : 0), num, LV_PACKED_BASE, 1500);
	run(32768, F_PACKED | F_EVENT, 1, LV_PACKED_BASE, STEPS);
	run(32767, F_PACKED, 1, lv_pos_base(32766), STEPS);
}
