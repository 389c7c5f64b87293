/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/*
 * A device that dies after each of its stores to ring and inflight region, and its successor on what it left: every
 * request completes in the ring exactly once, what was published is not executed again, and what is executed again was
 * marked. Before the successor comes, the memory itself is held against the rules of the region's format.
 */
#include "stores.h"

#include "ringhelp.h"
#include "vring/inflight.h"

#ifdef LV_STORES
#define NUM	8u
#define MOST	4u /* requests of one life */
#define AT	0x100000ull
#define REGION	PAGE /* offsets in the scene's memory */
#define JOURNAL (2 * PAGE)
#define BUFFERS (3 * PAGE)
#define END	(4 * PAGE)
#define COPIES	256u
#define ENTRIES 11u /* of a packed region: more than the ring has */

/* What the handler leaves behind it: kept with the memory, so that it dies with it. */
struct journal {
	uint32_t seen[2 * MOST], executed[2 * MOST];
};

struct plan {
	uint32_t n;	      /* requests */
	uint8_t order[MOST];  /* in which they are completed */
	uint32_t batch;	      /* completions per flush */
	uint32_t depth;	      /* taken before the first is completed */
	uint16_t start;	      /* ring index */
	bool warm, event_idx; /* the ring was in use before; with event indexes */
	bool packed;
};

struct scene {
	struct plan plan;
	struct guest g;
	uint8_t *mem;
	struct libvhost_vq *drv, *dev;
	struct libvhost_vq_opts opts;
	struct lv_split_ring ring;
	struct lv_packed_ring pring;
	uint16_t begun; /* packed: where this life's requests begin */
	union {
		struct lv_inflight_split *split;
		struct lv_inflight_packed *region;
	};
	struct journal *journal;
	uint32_t first;	    /* id of the first request of this life */
	uint16_t ids[MOST]; /* packed: the buffer ids of its requests */
	struct stores stores;
};

static void offer_requests(struct scene *x)
{
	for (uint32_t i = 0; i < x->plan.n; i++) {
		const uint64_t gpa = AT + BUFFERS + (x->first + i) * 64;
		const struct libvhost_buf bufs[2] = {{.gpa = gpa, .len = 16}, {.gpa = gpa + 32, .len = 8}};

		CHECK_EQ(libvhost_vq_add(x->drv, bufs, 1, 1, x->first + i), 0);
	}
	CHECK(libvhost_vq_kick(x->drv) >= 0);
	for (uint32_t i = 0; i < x->plan.n && x->plan.packed; i++)
		x->ids[i] = lv_meta_id(lv_packed_load(&x->pring, lv_pos_next(x->begun, 2 * i + 1, NUM)));
}

/* Ring areas in one page, the region in the next. A packed ring starts so that it laps after a few descriptors. */
static void lay_out(struct scene *x)
{
	const uint64_t features =
		LV_F_VERSION_1 | (x->plan.event_idx ? LV_F_EVENT_IDX : 0) | (x->plan.packed ? LV_F_RING_PACKED : 0);

	x->begun = x->plan.start;
	x->opts = (struct libvhost_vq_opts){.size = sizeof(x->opts),
					    .flags = x->plan.packed ? LIBVHOST_VQ_HAS_BASE : 0,
					    .num = NUM,
					    .features = features,
					    .base = x->plan.packed ? lv_pos_base(x->plan.start) : x->plan.start,
					    .desc = AT,
					    .avail = AT + 0x400,
					    .used = AT + 0x800};
	x->ring = (struct lv_split_ring){.desc = (void *)x->mem,
					 .avail = (void *)(x->mem + 0x400),
					 .used = (void *)(x->mem + 0x800),
					 .num = NUM};
	x->pring = (struct lv_packed_ring){.desc = (void *)x->mem, .num = NUM};
	x->split = (void *)(x->mem + REGION);
	x->journal = (void *)(x->mem + JOURNAL);
}

/* A device on what is there. */
static int begin(struct scene *x)
{
	struct libvhost_vq_opts o = x->opts;

	libvhost_vq_free(x->dev);
	x->dev = NULL;
	o.role = LIBVHOST_VQ_DEVICE;
	/* what a front-end knows of a dead device: of a packed ring only where it once began */
	o.base = x->plan.packed ? lv_pos_base(x->begun) : lv_ring_idx(&x->ring, x->ring.used);
	CHECK_EQ(libvhost_vq_new(x->g.ctx, x->g.mem, &o, &x->dev), 0);
	return lv_inflight_attach(x->dev, x->mem + REGION, x->plan.packed ? ENTRIES : NUM);
}

struct taken {
	uint32_t head[2 * MOST], id[2 * MOST], count;
};

static bool take_one(struct scene *x, struct taken *t)
{
	struct libvhost_iov iov[4];
	struct libvhost_chain c = {.size = sizeof(c), .iov = iov, .iov_cap = 4};
	int rc = libvhost_vq_pop(x->dev, &c);

	CHECK(rc >= 0);
	if (!rc)
		return false;
	t->head[t->count] = c.head;
	t->id[t->count] = (uint32_t)((uint8_t *)iov[0].base - (x->mem + BUFFERS)) / 64;
	x->journal->seen[t->id[t->count++]]++;
	return true;
}

static uint32_t rank(const struct scene *x, uint32_t id)
{
	return id < x->first ? 0 : x->plan.order[id - x->first];
}

/* Executes the taken request that comes first in the plan's order. */
static void complete_one(struct scene *x, struct taken *t)
{
	uint32_t best = 0;

	for (uint32_t i = 1; i < t->count; i++)
		if (rank(x, t->id[i]) < rank(x, t->id[best]))
			best = i;
	x->journal->executed[t->id[best]]++;
	CHECK_EQ(libvhost_vq_push(x->dev, t->head[best], 8), 0);
	t->count--;
	memmove(&t->head[best], &t->head[best + 1], (t->count - best) * sizeof(t->head[0]));
	memmove(&t->id[best], &t->id[best + 1], (t->count - best) * sizeof(t->id[0]));
}

/* Serves everything there is. */
static void live(struct scene *x)
{
	struct taken t = {.count = 0};
	uint32_t pushed = 0;

	for (;;) {
		while (t.count < x->plan.depth && take_one(x, &t))
			;
		if (!t.count)
			break;
		complete_one(x, &t);
		if (++pushed % x->plan.batch == 0)
			CHECK(libvhost_vq_flush(x->dev) >= 0);
	}
	CHECK(libvhost_vq_flush(x->dev) >= 0);
}

static void scene_open(struct scene *x, const struct plan *plan)
{
	struct libvhost_region reg;

	*x = (struct scene){.plan = *plan, .g = guest_new(0)};
	x->mem = mmap(NULL, END, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	CHECK(x->mem != MAP_FAILED);
	reg = plain_region(AT, END, x->mem);
	put(&x->g, reg);
	lay_out(x);
	CHECK_EQ(libvhost_vq_new(x->g.ctx, x->g.mem, &x->opts, &x->drv), 0);
	stores_init(&x->stores, x->mem, JOURNAL, BUFFERS, COPIES);
	if (plan->warm) {
		struct libvhost_used used[MOST];
		uint32_t n = MOST;

		offer_requests(x);
		CHECK_EQ(begin(x), 0);
		live(x);
		CHECK_EQ(libvhost_vq_get_used(x->drv, used, &n), 0);
		CHECK_EQ(n, plan->n);
		x->first = plan->n;
		if (plan->packed)
			x->begun = lv_pos_next(x->begun, 2 * plan->n, NUM);
	}
	offer_requests(x);
}

static void scene_close(struct scene *x)
{
	libvhost_vq_free(x->dev);
	libvhost_vq_free(x->drv);
	guest_free(&x->g);
	stores_free(&x->stores);
	munmap(x->mem, END);
}

/* What can be said about memory at rest; heads and ids are read from the ring itself. */
struct state {
	uint16_t used, published; /* used.idx; how many of this life's requests are used */
	uint32_t times[2 * MOST]; /* in the used ring */
	bool marked[2 * MOST];
	struct journal journal;
	uint32_t n_marked;
};

static uint32_t id_of(const struct scene *x, uint32_t head)
{
	return (uint32_t)((x->ring.desc[head].addr - AT - BUFFERS) / 64);
}

static void look_at_split(struct scene *x, struct state *s)
{
	const uint16_t start = (uint16_t)(x->plan.start + x->first);

	s->used = lv_ring_idx(&x->ring, x->ring.used);
	s->published = (uint16_t)(s->used - start);
	CHECK(s->published <= x->plan.n);
	for (uint16_t i = 0; i < s->published; i++)
		s->times[id_of(x, lv_used_get(&x->ring, (uint16_t)(start + i)).id)]++;
	for (uint32_t head = 0; head < NUM; head++) {
		if (!x->split->desc[head].inflight)
			continue;
		CHECK_EQ(x->split->desc[head].inflight, 1);
		s->marked[id_of(x, head)] = true;
		s->n_marked++;
	}
}

/* The driver's buffer ids are its own; this life's requests got theirs in the order of x->ids. */
static uint32_t id_of_buffer(const struct scene *x, uint32_t buffer)
{
	for (uint32_t i = 0; i < x->plan.n; i++)
		if (x->ids[i] == buffer)
			return x->first + i;
	lv_test_fail(__FILE__, __LINE__, "buffer id %u was not offered", buffer);
}

/* Used descriptors as a driver finds them: from where it is, each two further. */
static void look_at_packed(struct scene *x, struct state *s)
{
	uint16_t pos = x->begun;

	while (s->published < x->plan.n) {
		const uint64_t meta = lv_packed_load(&x->pring, pos);

		if (!lv_meta_is(meta, lv_used_bits(pos)))
			break;
		s->times[id_of_buffer(x, lv_meta_id(meta))]++;
		s->published++;
		pos = lv_pos_next(pos, 2, NUM);
	}
	s->used = pos;
	for (uint32_t i = 0; i < ENTRIES; i++) {
		const struct lv_inflight_packed_desc *d = &x->region->desc[i];

		if (!d->inflight || !x->region->version)
			continue;
		CHECK_EQ(d->inflight, 1);
		s->marked[(d->addr - AT - BUFFERS) / 64] = true;
		s->n_marked++;
	}
}

static struct state look_at(struct scene *x)
{
	struct state s = {.journal = *x->journal};

	if (x->plan.packed)
		look_at_packed(x, &s);
	else
		look_at_split(x, &s);
	return s;
}

/* Invariants 1 to 4 (and what 5 starts from) on memory as a crash left it. */
static void check_split(struct scene *x, const struct state *s)
{
	const struct lv_inflight_split *r = x->split;
	uint16_t behind = (uint16_t)(s->used - r->used_idx), head = r->last_batch_head;
	bool in_batch[2 * MOST] = {false};

	if (!r->version) {
		CHECK_EQ(s->n_marked, 0);
		return;
	}
	CHECK(behind <= s->published);		/* 1: from its first moment the region knows the ring */
	for (uint16_t i = 0; i < behind; i++) { /* 3: the list is whole before used.idx moves */
		const uint32_t id = lv_used_get(&x->ring, (uint16_t)(s->used - 1 - i)).id;

		CHECK_EQ(head, id);
		in_batch[id_of(x, head)] = true;
		head = r->desc[head].next;
	}
	for (uint32_t id = x->first; id < x->first + x->plan.n; id++) {
		if (s->journal.seen[id] && !s->times[id])
			CHECK(s->marked[id]); /* 2: marked before the handler saw it, until it is used */
		if (s->times[id] && s->marked[id])
			CHECK(in_batch[id]); /* 4: what is used and marked can be told from what is in flight */
	}
	for (uint32_t a = 0; a < NUM; a++)
		for (uint32_t b = a + 1; b < NUM; b++)
			if (r->desc[a].inflight && r->desc[b].inflight)
				CHECK(r->desc[a].counter != r->desc[b].counter); /* 2: the counter came first */
}

/* The same rules in a packed region: what counts as in flight is marked and outside the free list that holds. */
static void check_packed(struct scene *x, const struct state *s)
{
	const struct lv_inflight_packed *r = x->region;
	const uint16_t old = (uint16_t)(r->old_used_idx | r->old_used_wrap_counter << 15);
	const uint16_t now = (uint16_t)(r->used_idx | r->used_wrap_counter << 15);
	bool free[ENTRIES] = {false}, held[2 * MOST] = {false};
	const bool published = now != old && s->used == now;

	if (!r->version)
		return;
	CHECK(s->used == old || s->used == now); /* 1, 3: the region knows where the ring is, or will be */
	for (uint16_t i = published ? r->free_head : r->old_free_head; i < ENTRIES; i = r->desc[i].next) {
		CHECK(!free[i]);
		free[i] = true;
	}
	for (uint32_t i = 0; i < ENTRIES; i++)
		if (r->desc[i].inflight && !free[i])
			held[(r->desc[i].addr - AT - BUFFERS) / 64] = true;
	for (uint32_t id = x->first; id < x->first + x->plan.n; id++) {
		if (x->journal->seen[id] && !s->times[id])
			CHECK(held[id]);	   /* 2: before the handler saw it, until it is used */
		CHECK(!s->times[id] || !held[id]); /* 4: what is used is not in flight */
	}
	for (uint32_t a = 0; a < ENTRIES; a++)
		for (uint32_t b = a + 1; b < ENTRIES; b++)
			if (r->desc[a].inflight && !free[a] && r->desc[b].inflight && !free[b])
				CHECK(r->desc[a].counter != r->desc[b].counter);
}

static void check_memory(struct scene *x, const struct state *s)
{
	if (x->plan.packed)
		check_packed(x, s);
	else
		check_split(x, s);
}

/* Packed: the same, and every place between the used and the available position says available, so that the driver
 * takes nothing there for used. */
static void check_packed_successor(struct scene *x, const struct state *s)
{
	const struct lv_inflight *t = x->dev->inflight;
	uint16_t pos = s->used;

	for (uint32_t i = 0; i < t->n_again; i++) {
		const struct lv_inflight_packed_desc *d = &x->region->desc[t->again[i]];
		const uint64_t id = (d->addr - AT - BUFFERS) / 64;

		CHECK(s->marked[id] && !s->times[id]);
		if (i)
			CHECK(x->region->desc[t->again[i - 1]].counter < d->counter);
		for (int n = 0; n < 2; n++, pos = lv_pos_next(pos, 1, NUM))
			CHECK(lv_meta_is(lv_packed_load(&x->pring, pos), lv_avail_bits(pos)));
	}
	CHECK_EQ(vq_info(x->dev).base, pos | (uint32_t)s->used << 16);
	for (uint32_t id = x->first; id < x->first + x->plan.n; id++)
		CHECK(!x->journal->seen[id] || s->times[id] || t->n_again);
}

/* Invariants 6 and 7 on the successor. */
static void check_successor(struct scene *x, const struct state *s)
{
	const struct lv_inflight *t = x->dev->inflight;
	const uint16_t avail = lv_ring_idx(&x->ring, x->ring.avail);
	uint32_t expect = 0;

	if (x->plan.packed) {
		check_packed_successor(x, s);
		return;
	}
	for (uint32_t id = x->first; id < x->first + x->plan.n; id++)
		expect += s->marked[id] && !s->times[id];
	CHECK_EQ(t->n_again, expect);
	for (uint32_t i = 0; i < t->n_again; i++) {
		CHECK(s->marked[id_of(x, t->again[i])]);
		if (i)
			CHECK(t->split->desc[t->again[i - 1]].counter < t->split->desc[t->again[i]].counter);
	}
	CHECK_EQ(vq_info(x->dev).base, (uint16_t)(s->used + expect));
	CHECK((uint16_t)(avail - s->used) >= expect);
}

/* The end: everything completed once, and executed no more often than the crash explains. */
static void check_end(struct scene *x, const struct state *at)
{
	const struct state s = look_at(x);

	CHECK_EQ(s.published, x->plan.n);
	CHECK_EQ(s.n_marked, 0);
	if (x->plan.packed)
		CHECK_EQ(x->region->used_idx, s.used & LV_POS_SLOT);
	else
		CHECK_EQ(x->split->used_idx, s.used);
	for (uint32_t id = x->first; id < x->first + x->plan.n; id++) {
		const uint32_t again = s.journal.executed[id] - at->journal.executed[id];

		CHECK_EQ(s.times[id], 1);
		CHECK_EQ(again, !at->times[id]);
		if (again && at->journal.executed[id])
			CHECK(at->marked[id]);
	}
}

static uint32_t die_everywhere(struct scene *x, uint32_t deaths);

/* The memory holds what a crash left. */
static uint32_t succeed(struct scene *x, uint32_t deaths)
{
	const struct state s = look_at(x);
	uint32_t runs = 1;

	check_memory(x, &s);
	if (deaths) {
		struct scene again = *x;

		again.dev = NULL;
		stores_init(&again.stores, x->mem, JOURNAL, BUFFERS, COPIES);
		runs += die_everywhere(&again, deaths - 1);
		libvhost_vq_free(again.dev);
		stores_restore(&again.stores, 0);
		stores_free(&again.stores);
	}
	CHECK_EQ(begin(x), 0);
	check_successor(x, &s);
	live(x);
	check_end(x, &s);
	return runs;
}

/* One life, and from each moment of it another. Returns how many successors there were. */
static uint32_t die_everywhere(struct scene *x, uint32_t deaths)
{
	uint32_t runs = 0;

	stores_begin(&x->stores);
	CHECK_EQ(begin(x), 0);
	live(x);
	stores_end(&x->stores);
	for (uint32_t i = 0; i < x->stores.count; i++) {
		stores_restore(&x->stores, i);
		runs += succeed(x, deaths);
	}
	return runs;
}

static uint32_t run(const struct plan *plan, uint32_t deaths)
{
	struct scene x;
	uint32_t runs;

	scene_open(&x, plan);
	runs = die_everywhere(&x, deaths);
	scene_close(&x);
	return runs;
}

/* The next order, or false after the last. */
static bool next_order(uint8_t *order, uint32_t n)
{
	uint32_t i = n - 1, j = n - 1;
	uint8_t swap;

	while (i && order[i - 1] >= order[i])
		i--;
	if (!i)
		return false;
	while (order[j] <= order[i - 1])
		j--;
	swap = order[i - 1];
	order[i - 1] = order[j];
	order[j] = swap;
	for (j = n - 1; i < j; i++, j--) {
		swap = order[i];
		order[i] = order[j];
		order[j] = swap;
	}
	return true;
}

/* All orders and batches of n requests. */
static uint32_t all_orders(struct plan plan, uint32_t deaths)
{
	uint32_t runs = 0;

	for (plan.batch = 1; plan.batch <= plan.n; plan.batch++) {
		for (uint8_t i = 0; i < plan.n; i++)
			plan.order[i] = i;
		do
			runs += run(&plan, deaths);
		while (plan.n > 1 && next_order(plan.order, plan.n));
	}
	return runs;
}

TEST(vring_crash, r132_a_split_ring_at_every_store)
{
	static const struct plan kinds[] = {
		{.start = 0, .depth = MOST},
		{.start = 3, .depth = MOST}, /* a fresh region for a ring in use */
		{.start = 65534, .depth = MOST, .warm = true},
		{.start = 65533, .depth = 2, .warm = true, .event_idx = true},
	};
	uint32_t runs = 0;

	for (unsigned k = 0; k < sizeof(kinds) / sizeof(*kinds); k++) {
		struct plan plan = kinds[k];

		for (plan.n = 1; plan.n <= MOST; plan.n++)
			runs += all_orders(plan, 0);
	}
	printf("# split ring: %u crash points\n", runs);
	CHECK(runs > 10000);
}

/*
 * The driver's stores: a device that comes at any of them finds the requests that are published, whole, besides the one
 * that its predecessor had in flight, and nothing else.
 */
TEST(vring_crash, a_successor_between_the_stores_of_the_driver)
{
	const struct plan plan = {.n = MOST, .batch = 1, .depth = MOST, .start = 65534, .order = {0, 1, 2, 3}};
	struct libvhost_used used[MOST];
	struct taken t = {.count = 0};
	uint32_t last = 0, n = MOST;
	struct scene x;

	scene_open(&x, &plan);
	CHECK_EQ(begin(&x), 0);
	for (uint32_t i = 0; i < MOST; i++)
		CHECK(take_one(&x, &t));
	for (uint32_t i = 0; i < MOST - 1; i++)
		complete_one(&x, &t);
	CHECK(libvhost_vq_flush(x.dev) >= 0);
	CHECK_EQ(libvhost_vq_get_used(x.drv, used, &n), 0);
	x.first = MOST;
	x.plan.n = n; /* there is room for as many */
	stores_begin(&x.stores);
	offer_requests(&x);
	stores_end(&x.stores);
	for (uint32_t i = 0; i < x.stores.count; i++) {
		uint32_t published, served = 0;

		stores_restore(&x.stores, i);
		published = (uint16_t)(lv_ring_idx(&x.ring, x.ring.avail) - lv_ring_idx(&x.ring, x.ring.used)) - 1;
		CHECK(published >= last && published <= n);
		last = published;
		CHECK_EQ(begin(&x), 0);
		CHECK_EQ(x.dev->inflight->n_again, 1);
		live(&x);
		for (uint32_t id = MOST; id < MOST + n; id++) {
			CHECK(x.journal->executed[id] <= 1);
			served += x.journal->executed[id];
		}
		CHECK_EQ(served, published);
		CHECK_EQ(x.journal->executed[MOST - 1], 1);
	}
	CHECK_EQ(last, n);
	scene_close(&x);
}

TEST(vring_crash, r132_a_split_ring_that_dies_twice)
{
	struct plan plan = {.start = 65534, .depth = MOST, .warm = true};
	uint32_t runs = 0;

	for (plan.n = 1; plan.n <= 3; plan.n++)
		runs += all_orders(plan, 1);
	printf("# split ring, killed twice: %u crash points\n", runs);
	CHECK(runs > 10000);
}

#define FRESH LV_POS_WRAP /* slot 0 of the first lap */

TEST(vring_crash, r132_a_packed_ring_at_every_store)
{
	static const struct plan kinds[] = {
		{.packed = true, .start = FRESH, .depth = MOST},
		{.packed = true, .start = FRESH | 5, .depth = MOST, .warm = true},
		{.packed = true, .start = 7, .depth = 2, .warm = true, .event_idx = true},
	};
	uint32_t runs = 0;

	for (unsigned k = 0; k < sizeof(kinds) / sizeof(*kinds); k++) {
		struct plan plan = kinds[k];

		for (plan.n = 1; plan.n <= MOST; plan.n++)
			runs += all_orders(plan, 0);
	}
	printf("# packed ring: %u crash points\n", runs);
	CHECK(runs > 10000);
}

TEST(vring_crash, r132_a_packed_ring_that_dies_twice)
{
	struct plan plan = {.packed = true, .start = FRESH | 5, .depth = MOST, .warm = true};
	uint32_t runs = 0;

	for (plan.n = 1; plan.n <= 3; plan.n++)
		runs += all_orders(plan, 1);
	printf("# packed ring, killed twice: %u crash points\n", runs);
	CHECK(runs > 10000);
}
#endif
