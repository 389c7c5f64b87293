/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* Two threads on one ring: a pair that sleeps on eventfds, and a driver that rewrites descriptors while they are read.
 */
#include "ringhelp.h"

#include <poll.h>
#include <pthread.h>
#include <sched.h>

#include "core/clock.h"
#include "core/sanitize.h"

#define SLOWER (LV_TSAN ? 20 : 1)

#define REQUESTS (200000 / SLOWER)
#define SLOTS	 64u

/* One side of the pair; failed names the line that went wrong, because a CHECK belongs to the main thread. */
struct side {
	struct rig *r;
	int failed;
	uint64_t sleeps;
};

/* Sleeps until fd is signalled. False: a minute without a wake-up, so one was lost. */
static bool wait_for(int fd)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};

	return poll(&p, 1, PATIENCE_MS) == 1 && signalled(fd);
}

/* Answers each request with its number plus one. */
static int serve(struct rig *r, uint64_t *done)
{
	struct libvhost_iov iov[4];
	struct libvhost_chain c = {.size = sizeof(c), .iov = iov, .iov_cap = 4};
	int rc;

	while ((rc = libvhost_vq_pop(r->dev, &c)) == 1) {
		*(uint64_t *)iov[1].base = *(uint64_t *)iov[0].base + 1;
		if (libvhost_vq_push(r->dev, c.head, 8))
			return __LINE__;
		++*done;
		if (*done % 7 == 0 && libvhost_vq_flush(r->dev) < 0)
			return __LINE__;
	}
	return rc < 0 || libvhost_vq_flush(r->dev) < 0 ? __LINE__ : 0;
}

static void *device(void *arg)
{
	struct side *s = arg;
	uint64_t done = 0;

	while (!s->failed) {
		s->failed = serve(s->r, &done);
		if (done == REQUESTS)
			break;
		if (libvhost_vq_notify_enable(s->r->dev, 1))
			continue;
		s->sleeps++;
		if (!wait_for(s->r->kick))
			s->failed = __LINE__;
	}
	return NULL;
}

static void drive(struct rig *r)
{
	uint64_t next = 0, done = 0, *data = at(&r->g, DATA);
	uint8_t busy[SLOTS] = {0};

	while (done < REQUESTS) {
		struct libvhost_used u[16];
		uint32_t n = 16;

		for (uint32_t slot = (uint32_t)(next % SLOTS); next < REQUESTS && !busy[slot];
		     slot = (uint32_t)(++next % SLOTS)) {
			const struct libvhost_buf b[] = {{.gpa = DATA + slot * 16, .len = 8},
							 {.gpa = DATA + slot * 16 + 8, .len = 8}};

			data[slot * 2] = next;
			if (libvhost_vq_add(r->drv, b, 1, 1, next) == -ENOSPC)
				break;
			busy[slot] = 1;
		}
		CHECK(libvhost_vq_kick(r->drv) >= 0);
		CHECK_EQ(libvhost_vq_get_used(r->drv, u, &n), 0);
		for (uint32_t i = 0; i < n; i++) {
			CHECK_EQ(data[u[i].token % SLOTS * 2 + 1], u[i].token + 1);
			busy[u[i].token % SLOTS] = 0;
		}
		done += n;
		if (!n && libvhost_vq_notify_enable(r->drv, 1) == 0)
			CHECK(wait_for(r->call));
	}
}

static void pair(uint32_t num, uint64_t features)
{
	struct side s = {0};
	pthread_t thread;
	struct rig r;

	rig_new(&r, num, features);
	s.r = &r;
	CHECK_EQ(pthread_create(&thread, NULL, device, &s), 0);
	drive(&r);
	CHECK_EQ(pthread_join(thread, NULL), 0);
	CHECK_EQ(s.failed, 0);
	CHECK_EQ(vq_info(r.dev).requests, REQUESTS);
	rig_free(&r);
}

TEST(vring_threads, no_wakeup_is_lost_with_flags)
{
	pair(32, 0);
}

TEST(vring_threads, no_wakeup_is_lost_with_event_indexes)
{
	pair(128, F_EVENT);
	pair(16, F_EVENT | F_INDIRECT);
	pair(2, F_EVENT);
}

TEST(vring_threads, no_wakeup_is_lost_on_a_packed_ring)
{
	pair(32, F_PACKED);
	pair(100, F_PACKED | F_EVENT);
	pair(17, F_PACKED | F_EVENT | F_INDIRECT);
	pair(2, F_PACKED | F_EVENT);
	pair(3, F_PACKED);
}

TEST(vring_threads, no_wakeup_is_lost_in_order)
{
	pair(16, F_ORDERED | F_EVENT);
	pair(33, F_ORDERED | F_PACKED);
	pair(33, F_ORDERED | F_PACKED | F_EVENT | F_INDIRECT);
}

#define HOSTILE_REQUESTS (1000000 / SLOWER)
#define LEAST		 (HOSTILE_REQUESTS / 100) /* good ones, bad ones, flips */
#define HOSTILE_NUM	 64u
#define TABLE		 (RAM + 0x10000)

struct flipper {
	struct rig *r;
	struct lv_desc *ring; /* a packed one has flags and id the other way round */
	bool packed;
	atomic_bool stop;
	atomic_ulong flips;
	unsigned long seen; /* flips at the last look */
	uint32_t good, bad;
	uint64_t rounds, give_up;
};

/* Values that pass every check alone and none when mixed: next to the ends of memory, of the tables, of 64 bits. */
static void flip(const struct flipper *f, uint32_t seed, struct lv_desc *d)
{
	static const uint64_t addrs[] = {DATA, DATA + HALF - 16, DATA + HALF - 4096, TABLE,
					 DATA, DATA + HALF / 2,	 UINT64_MAX - 15,    DATA + HALF,
					 DATA};
	static const uint32_t lens[] = {16, 4096, 1, 0, 32, 64, HALF, 16};
	const uint16_t flags[] = {
		0, LV_DESC_NEXT, LV_DESC_WRITE, LV_DESC_NEXT | LV_DESC_WRITE, LV_DESC_NEXT, LV_DESC_INDIRECT};
	const uint16_t laps[] = {
		LV_PACKED_AVAIL, LV_PACKED_USED, LV_PACKED_AVAIL, LV_PACKED_USED, LV_PACKED_AVAIL | LV_PACKED_USED, 0};
	const uint32_t i = seed >> 8;
	const uint16_t bits = (uint16_t)(flags[i % 6] | (f->packed ? laps[i / 6 % 6] : 0));
	const uint16_t next = (uint16_t)(i % 97 ? i % HOSTILE_NUM : HOSTILE_NUM);

	switch (seed >> 4 & 3) {
	case 0:
		__atomic_store_n(&d->addr, addrs[i % 9], __ATOMIC_RELAXED);
		break;
	case 1:
		__atomic_store_n(&d->len, lens[i % 8], __ATOMIC_RELAXED);
		break;
	case 2:
		__atomic_store_n(f->packed ? &d->next : &d->flags, bits, __ATOMIC_RELAXED);
		break;
	default:
		__atomic_store_n(f->packed ? &d->flags : &d->next, next, __ATOMIC_RELAXED);
	}
}

static void *flipper(void *arg)
{
	struct flipper *f = arg;
	struct lv_desc *table = at(&f->r->g, TABLE);
	uint32_t seed = 1;

	while (!atomic_load_explicit(&f->stop, memory_order_relaxed)) {
		seed = seed * 1664525 + 1013904223;
		flip(f, seed >> 3, (seed >> 30 ? f->ring : table) + (seed >> 24) % HOSTILE_NUM);
		atomic_fetch_add_explicit(&f->flips, 1, memory_order_relaxed);
	}
	return NULL;
}

/* Touches both ends of every piece, as a device would all of it. */
static uint64_t touch(const struct libvhost_chain *c)
{
	uint64_t sum = 0;

	for (uint32_t i = 0; i < c->n_read + c->n_write; i++) {
		uint8_t *first = c->iov[i].base, *last = first + c->iov[i].len - 1;
		uint8_t byte = __atomic_load_n(first, __ATOMIC_RELAXED) ^ __atomic_load_n(last, __ATOMIC_RELAXED);

		sum += c->iov[i].len;
		if (i >= c->n_read)
			__atomic_store_n(last, byte, __ATOMIC_RELAXED);
	}
	return sum;
}

/* Until there was enough of everything: on a busy machine the flipper may not get to run for a long time. */
static bool go_on(struct flipper *f)
{
	const unsigned long flips = atomic_load_explicit(&f->flips, memory_order_relaxed);

	if (++f->rounds % 1024)
		return true;
	if (flips == f->seen)
		sched_yield();
	f->seen = flips;
	if (lv_now(f->r->g.ctx) > f->give_up)
		return false;
	return f->good + f->bad < HOSTILE_REQUESTS || f->good < LEAST || f->bad < LEAST || flips < LEAST;
}

static pthread_t flip_begin(struct flipper *f)
{
	pthread_t thread;

	f->give_up = lv_now(f->r->g.ctx) + PATIENCE_MS * LV_NS_PER_MS;
	CHECK_EQ(pthread_create(&thread, NULL, flipper, f), 0);
	return thread;
}

static void flip_end(struct flipper *f, pthread_t thread)
{
	atomic_store(&f->stop, true);
	CHECK_EQ(pthread_join(thread, NULL), 0);
	if (f->good < LEAST || f->bad < LEAST || f->flips < LEAST)
		lv_test_fail(__FILE__, __LINE__, "%u good requests, %u bad ones, %lu flips: not a test of both",
			     f->good, f->bad, f->flips);
}

TEST(vring_threads, R205_descriptors_flipped_while_they_are_read)
{
	struct flipper f = {0};
	struct libvhost_chain c;
	pthread_t thread;
	struct rig r;

	rig_memory(&r, HOSTILE_NUM, F_INDIRECT);
	r.opts.flags = 0;
	rig_device(&r);
	f.r = &r;
	f.ring = r.ring.desc;
	for (uint32_t i = 0; i < HOSTILE_NUM; i++)
		desc(&r, i, DATA, 16, 0, 0);
	thread = flip_begin(&f);
	while (go_on(&f)) {
		offer(&r, (f.good + f.bad) % HOSTILE_NUM);
		int rc = rig_pop(&r, &c);

		if (rc == 1) {
			CHECK_EQ(touch(&c), c.read_len + c.write_len);
			CHECK_EQ(libvhost_vq_push(r.dev, c.head, 1), 0);
			CHECK(libvhost_vq_flush(r.dev) >= 0);
			f.good++;
			continue;
		}
		CHECK(rc == -EBADMSG || rc == -E2BIG);
		f.bad++;
		libvhost_vq_free(r.dev);
		r.opts.base = lv_ring_idx(&r.ring, r.ring.avail);
		rig_device(&r);
	}
	flip_end(&f, thread);
	rig_free(&r);
}

/* Whatever the descriptor at pos says, it is available now. */
static void make_available(struct rig *r, uint16_t pos)
{
	const uint64_t meta = lv_packed_load(&r->packed, pos);
	const uint32_t flags = lv_meta_flags(meta) & ~(uint32_t)(LV_PACKED_AVAIL | LV_PACKED_USED);

	lv_packed_publish(&r->packed, pos,
			  lv_packed_meta(lv_meta_len(meta), lv_meta_id(meta), (uint16_t)(flags | lv_avail_bits(pos))));
}

/* A device whose ring breaks begins again behind what broke it; what it left in flight is forgotten. */
TEST(vring_threads, R205_packed_descriptors_flipped_while_they_are_read)
{
	struct flipper f = {.packed = true};
	struct libvhost_chain c;
	pthread_t thread;
	struct rig r;

	rig_memory(&r, HOSTILE_NUM, F_PACKED | F_INDIRECT);
	r.opts.flags = LIBVHOST_VQ_HAS_BASE;
	r.opts.base = LV_PACKED_BASE;
	rig_device(&r);
	f.r = &r;
	f.ring = r.ring.desc;
	thread = flip_begin(&f);
	while (go_on(&f)) {
		const uint16_t pos = (uint16_t)vq_info(r.dev).base;
		int rc;

		make_available(&r, pos);
		rc = rig_pop(&r, &c);
		if (rc == 0) /* flipped before it was seen */
			continue;
		if (rc == 1) {
			CHECK_EQ(touch(&c), c.read_len + c.write_len);
			CHECK_EQ(libvhost_vq_push(r.dev, c.head, 1), 0);
			CHECK(libvhost_vq_flush(r.dev) >= 0);
			f.good++;
			continue;
		}
		CHECK(rc == -EBADMSG || rc == -E2BIG);
		f.bad++;
		libvhost_vq_free(r.dev);
		r.opts.base = lv_pos_base(lv_pos_next(pos, 1, HOSTILE_NUM));
		rig_device(&r);
	}
	flip_end(&f, thread);
	rig_free(&r);
}
