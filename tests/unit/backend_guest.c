/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/*
 * What a guest does wrong costs its queue and nothing else: the front-end hears of it once, the neighbours go on, and
 * the queue can be set up anew. How each of it is found stands in vring_hostile.c.
 */
#include "frontend.h"

#define NUM   8u
#define QUEUE 1u
#define RING  (QUEUE * 0x4000u)
#define TABLE 0x20000u

enum { NEXT = LV_DESC_NEXT, WRITE = LV_DESC_WRITE, INDIRECT = LV_DESC_INDIRECT };

static void put_desc(struct fake *p, uint32_t where, uint64_t addr, uint32_t len, uint32_t flags, uint32_t next)
{
	const struct lv_desc d = {.addr = addr, .len = len, .flags = (uint16_t)flags, .next = (uint16_t)next};

	memcpy(p->mem + where, &d, sizeof(d));
}

static void ring_desc(struct fake *p, uint32_t n, uint64_t addr, uint32_t len, uint32_t flags, uint32_t next)
{
	put_desc(p, RING + n * 16, addr, len, flags, next);
}

/* The heads, and then an available index that may not fit them. */
static void offer_heads(struct fake *p, const uint16_t *heads, uint32_t n, uint16_t idx)
{
	for (uint32_t i = 0; i < n; i++)
		memcpy(p->mem + RING + 0x1004 + i * sizeof(*heads), &heads[i], sizeof(*heads));
	atomic_store((_Atomic uint16_t *)(void *)(p->mem + RING + 0x1002), idx);
}

static void offer_one(struct fake *p, uint16_t head)
{
	offer_heads(p, &head, 1, 1);
}

static void r188_index_too_far_ahead(struct fake *p)
{
	offer_heads(p, NULL, 0, NUM + 1);
}

static void r190_head_that_does_not_exist(struct fake *p)
{
	offer_one(p, NUM);
}

static void r190_head_65535(struct fake *p)
{
	offer_one(p, 0xffff);
}

static void r191_link_out(struct fake *p)
{
	ring_desc(p, 0, 0x10000, 16, NEXT, NUM);
	offer_one(p, 0);
}

static void r191_loop(struct fake *p)
{
	for (uint32_t i = 0; i < NUM; i++)
		ring_desc(p, i, 0x10000, 16, NEXT, (i + 1) % NUM);
	offer_one(p, 3);
}

static void r193_unmapped(struct fake *p)
{
	ring_desc(p, 0, RAM_BYTES, 16, WRITE, 0);
	offer_one(p, 0);
}

static void r193_across_the_end(struct fake *p)
{
	ring_desc(p, 0, RAM_BYTES - 8, 9, WRITE, 0);
	offer_one(p, 0);
}

static void r193_wraps(struct fake *p)
{
	ring_desc(p, 0, UINT64_MAX, 2, 0, 0);
	offer_one(p, 0);
}

static void r200_table_unmapped(struct fake *p)
{
	ring_desc(p, 0, RAM_BYTES - 16, 32, INDIRECT, 0);
	put_desc(p, RAM_BYTES - 16, 0x10000, 16, NEXT, 1);
	offer_one(p, 0);
}

static void r200_table_is_the_ring(struct fake *p)
{
	ring_desc(p, 0, RING, NUM * 16, INDIRECT, 0);
	offer_one(p, 0);
}

static void r201_nested(struct fake *p)
{
	ring_desc(p, 0, TABLE, 16, INDIRECT, 0);
	put_desc(p, TABLE, TABLE + 16, 16, INDIRECT, 0);
	offer_one(p, 0);
}

static void r201_indirect_and_next(struct fake *p)
{
	ring_desc(p, 0, TABLE, 16, INDIRECT | NEXT, 1);
	put_desc(p, TABLE, 0x10000, 16, 0, 0);
	offer_one(p, 0);
}

static void r203_head_twice(struct fake *p)
{
	static const uint16_t heads[] = {2, 2};

	ring_desc(p, 2, 0x10000, 16, 0, 0);
	offer_heads(p, heads, 2, 2);
}

static const struct {
	const char *name;
	void (*attack)(struct fake *p);
} attacks[] = {
	{"index too far ahead", r188_index_too_far_ahead},
	{"head that does not exist", r190_head_that_does_not_exist},
	{"head 65535", r190_head_65535},
	{"link out", r191_link_out},
	{"loop", r191_loop},
	{"unmapped", r193_unmapped},
	{"across the end", r193_across_the_end},
	{"wraps", r193_wraps},
	{"table unmapped", r200_table_unmapped},
	{"table is the ring", r200_table_is_the_ring},
	{"nested", r201_nested},
	{"indirect and next", r201_indirect_and_next},
	{"head twice", r203_head_twice},
};

/* Takes everything and keeps it until there are two, so that a head can be in flight. */
static int serve_pairs(void *arg, uint32_t queue, struct libvhost_vq *vq)
{
	struct libvhost_iov iov[16];
	struct libvhost_chain c = {.size = sizeof(c), .iov = iov, .iov_cap = 16};
	uint32_t heads[NUM], n = 0;
	int rc;

	if (queue != QUEUE)
		return fake_serve(arg, queue, vq);
	while ((rc = libvhost_vq_pop(vq, &c)) > 0)
		heads[n++] = c.head;
	while (rc == 0 && n)
		rc = libvhost_vq_push(vq, heads[--n], 0);
	return rc;
}

/* Queue errors of the attacked queue until the deadline of the first, and a while longer. */
static uint32_t errors(struct fake *p)
{
	struct libvhost_event e;
	uint32_t n = 0;

	for (int i = 0; i < PATIENCE_MS && !n; i++) {
		CHECK_EQ(libvhost_backend_dispatch(p->b, 1), 0);
		for (int again = 0; again < 2; again++) {
			while (libvhost_backend_next_event(p->b, &e) == 1)
				if (e.type == LIBVHOST_EVENT_QUEUE_ERROR) {
					CHECK_EQ(e.queue, QUEUE);
					CHECK_EQ(e.err, -EBADMSG);
					n++;
				}
			if (n)
				CHECK_EQ(libvhost_backend_dispatch(p->b, 5), 0);
		}
	}
	return n;
}

static void serves(struct fake *p, uint16_t *used)
{
	for (int i = 0; i < 20; i++) {
		ring_offer(p);
		CHECK(ring_used(p, ++*used));
	}
}

static void set_up(struct fake *p, int kick)
{
	memset(p->mem + RING, 0, 0x4000);
	memset(p->mem + TABLE, 0, 0x1000);
	CHECK_EQ(ring_up(p, QUEUE), 0);
	CHECK_EQ(ask_fd(p, LIBVHOST_OP_SET_VRING_KICK, QUEUE, kick), 0);
}

TEST(backend_guest, r188_r190_r191_r193_r200_r201_r203_break_their_queue_only)
{
	static const struct libvhost_backend_ops ops = {.size = sizeof(ops), .serve = serve_pairs};
	const struct libvhost_backend_opts o = {.ops = &ops, .features = F_INDIRECT};
	int kick = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	struct fake other = fake_new(NULL), p;
	uint16_t used = 0, others = 0;
	uint64_t signals;

	handshake(&other);
	CHECK_EQ(ring_up(&other, 0), 0);
	p = fake_new(&o);
	handshake(&p);
	CHECK_EQ(ring_up(&p, 0), 0);
	for (size_t i = 0; i < sizeof(attacks) / sizeof(*attacks); i++) {
		set_up(&p, kick);
		attacks[i].attack(&p);
		CHECK_EQ(eventfd_write(kick, 1), 0);
		if (errors(&p) != 1)
			lv_test_fail(__FILE__, __LINE__, "%s: not reported, or more than once", attacks[i].name);
		CHECK_EQ(eventfd_read(p.err, &signals), 0);
		CHECK_EQ(signals, 1);
		CHECK_EQ(eventfd_write(kick, 1), 0); /* it is over, and said once */
		serves(&p, &used);		     /* the neighbour on the same worker */
		serves(&other, &others);	     /* another device */
		CHECK_EQ(eventfd_read(p.err, &signals), -1);
	}
	set_up(&p, kick);
	ring_desc(&p, 0, 0x10000, 16, 0, 0);
	offer_one(&p, 0);
	CHECK_EQ(eventfd_write(kick, 1), 0);
	for (int i = 0; i < PATIENCE_MS && !*(volatile uint16_t *)(void *)(p.mem + RING + 0x2002); i++)
		usleep(1000);
	CHECK_EQ(get_base(&p, QUEUE), 1);
	CHECK_EQ(*(uint16_t *)(void *)(p.mem + RING + 0x2002), 1);
	fake_free(&p);
	fake_free(&other);
	close(kick);
}
