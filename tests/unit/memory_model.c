/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* The map against a naive model, many transactions, many threads. */
#include "memhelp.h"

#include <pthread.h>
#include <stdatomic.h>

TEST(memory, ten_thousand_transactions_leave_nothing)
{
	struct lv_ledger before = lv_ledger_take();
	struct guest g = guest_new(0);
	int fd = memfd(64 * PAGE, 0);

	CHECK_EQ(libvhost_mem_begin(g.mem), 0);
	CHECK_EQ(libvhost_mem_alloc(g.mem, 0, PAGE), 0);
	CHECK_EQ(libvhost_mem_commit(g.mem, 0, NULL), 0);
	for (uint64_t i = 1; i <= 10000; i++) {
		struct libvhost_region r = region(fd, 1ull << 32, PAGE * (1 + i % 3), PAGE * (i % 60));

		CHECK_EQ(libvhost_mem_begin(g.mem), 0);
		CHECK_EQ(libvhost_mem_add(g.mem, &r), 0);
		CHECK_EQ(libvhost_mem_alloc(g.mem, i << 16, PAGE), 0);
		CHECK_EQ(libvhost_mem_remove(g.mem, (i - 1) << 16, PAGE), 0);
		CHECK_EQ(libvhost_mem_remove(g.mem, r.gpa, r.size), 0);
		CHECK_EQ(libvhost_mem_add(g.mem, &r), 0);
		if (i % 4 == 0)
			CHECK_EQ(libvhost_mem_remove(g.mem, r.gpa, r.size), 0);
		CHECK_EQ(libvhost_mem_commit(g.mem, 0, NULL), 0);
		if (i % 4 == 0)
			continue;
		CHECK_EQ(libvhost_mem_begin(g.mem), 0);
		CHECK_EQ(libvhost_mem_remove(g.mem, r.gpa, r.size), 0);
		CHECK_EQ(libvhost_mem_alloc(g.mem, r.gpa, PAGE), 0);
		CHECK_EQ(libvhost_mem_abort(g.mem), 0);
		CHECK_EQ(libvhost_mem_begin(g.mem), 0);
		CHECK_EQ(libvhost_mem_remove(g.mem, r.gpa, r.size), 0);
		CHECK_EQ(libvhost_mem_commit(g.mem, 0, NULL), 0);
	}
	close(fd);
	guest_free(&g);
	CHECK_LEDGER(before);
	CHECK(lv_ledger_take().maps <= before.maps + 2); /* malloc may have taken an arena; a leak would be thousands */
}

/* 256 guest pages; entry = 1 + file page, 0 = unmapped, and the region's first page for borders. */
#define PAGES 256u
struct model {
	uint16_t file[PAGES];
	uint16_t first[PAGES], len[PAGES];
};

static uint32_t rnd(uint32_t *seed, uint32_t below)
{
	*seed ^= *seed << 13;
	*seed ^= *seed >> 17;
	*seed ^= *seed << 5;
	return *seed % below;
}

static void model_add(struct guest *g, struct model *m, int fd, uint32_t *seed)
{
	uint32_t at = rnd(seed, PAGES), n = 1 + rnd(seed, 12), from = rnd(seed, PAGES), busy = 0;
	struct libvhost_region r = region(fd, at * PAGE, n * PAGE, from * PAGE);

	if (at + n > PAGES)
		return;
	for (uint32_t i = at; i < at + n; i++)
		busy |= m->file[i];
	if (busy || from + n > PAGES) {
		CHECK_EQ(libvhost_mem_add(g->mem, &r), busy ? -EEXIST : -EOVERFLOW);
		return;
	}
	CHECK_EQ(libvhost_mem_add(g->mem, &r), 0);
	for (uint32_t i = 0; i < n; i++) {
		m->file[at + i] = (uint16_t)(from + i + 1);
		m->first[at + i] = (uint16_t)at;
		m->len[at + i] = (uint16_t)n;
	}
}

static void model_remove(struct guest *g, struct model *m, uint32_t *seed)
{
	uint32_t at = rnd(seed, PAGES), n = rnd(seed, 4) ? m->len[at] : 1 + rnd(seed, 12);
	bool there = m->file[at] && m->first[at] == at && m->len[at] == n;

	CHECK_EQ(libvhost_mem_remove(g->mem, at * PAGE, n * PAGE), there ? 0 : -ENOENT);
	for (uint32_t i = at; there && i < at + n; i++)
		m->file[i] = m->first[i] = m->len[i] = 0;
}

static void model_check(struct guest *g, const struct model *m, uint32_t *seed)
{
	struct lv_snapshot *snap = lv_mem_snapshot(g->mem);
	struct lv_tlb tlb = {0};

	for (int i = 0; i < 64; i++) {
		uint32_t page = rnd(seed, PAGES), end;
		uint64_t off = rnd(seed, PAGE), len = 1 + rnd(seed, 3 * PAGE), gpa = page * PAGE + off, run = 1;
		const struct lv_map *found;
		void *hva = NULL, *some;

		end = m->file[page] ? m->first[page] + m->len[page] : 0;
		found = end && gpa + len <= end * PAGE ? lv_find_gpa(snap, gpa, len) : NULL;
		CHECK_EQ(libvhost_mem_translate(g->mem, gpa, len, &hva, NULL), found ? 0 : -EFAULT);
		CHECK(lv_translate(snap, &tlb, gpa, len) == hva);
		CHECK(lv_find_gpa(snap, gpa, len) == found);
		CHECK(lv_find_user(snap, gpa + LV_COOKIE_BASE, len) == found);
		some = lv_translate_some(snap, &tlb, gpa, &run);
		CHECK_EQ(run, end ? end * PAGE - gpa : 0);
		if (end)
			CHECK_EQ(*(uint16_t *)(void *)((char *)some - off), m->file[page]);
	}
	lv_snapshot_put(snap);
}

TEST(memory, random_operations_match_a_naive_model)
{
	struct guest g = guest_new(0);
	struct model now = {0}, next;
	int fd = memfd(PAGES * PAGE, 0);
	uint32_t seed = 0x9e3779b9;

	for (uint16_t i = 0; i < PAGES; i++) {
		uint16_t stamp = (uint16_t)(i + 1);

		CHECK_EQ(pwrite(fd, &stamp, 2, (off_t)(i * PAGE)), 2);
	}
	for (int round = 0; round < 3000; round++) {
		next = now;
		CHECK_EQ(libvhost_mem_begin(g.mem), 0);
		for (uint32_t i = rnd(&seed, 12); i; i--) {
			if (rnd(&seed, 5) < 3)
				model_add(&g, &next, fd, &seed);
			else
				model_remove(&g, &next, &seed);
		}
		model_check(&g, &now, &seed); /* the open transaction is invisible */
		if (rnd(&seed, 4)) {
			CHECK_EQ(libvhost_mem_commit(g.mem, 0, NULL), 0);
			now = next;
		} else {
			CHECK_EQ(libvhost_mem_abort(g.mem), 0);
		}
		model_check(&g, &now, &seed);
	}
	close(fd);
	guest_free(&g);
}

/* Readers translate and hold snapshots while one thread commits: a fixed region stays, another comes and goes. */
struct race {
	struct guest g;
	atomic_bool stop;
	atomic_ulong lookups, wrong;
};

static void *reader(void *arg)
{
	struct race *r = arg;

	while (!atomic_load(&r->stop)) {
		struct lv_snapshot *snap = lv_mem_snapshot(r->g.mem);
		struct lv_tlb tlb = {0};
		void *hva = NULL;
		uint8_t *moving;
		bool bad = false;

		for (int i = 0; i < 50; i++) {
			if (libvhost_mem_translate(r->g.mem, 0x10008, 8, &hva, NULL) || *(uint64_t *)hva != 0x1234)
				bad = true;
			moving = lv_translate(snap, &tlb, 0x200000, PAGE);
			if (moving && moving[5] != 0) /* mapped as long as we hold snap */
				bad = true;
		}
		lv_snapshot_put(snap);
		atomic_fetch_add(&r->lookups, 1);
		if (bad)
			atomic_fetch_add(&r->wrong, 1);
	}
	return NULL;
}

TEST(memory, translate_runs_beside_commit)
{
	struct lv_ledger before = lv_ledger_take();
	struct race r = {.g = guest_new(0)};
	pthread_t t[4];

	CHECK_EQ(libvhost_mem_begin(r.g.mem), 0);
	CHECK_EQ(libvhost_mem_alloc(r.g.mem, 0x10000, PAGE), 0);
	CHECK_EQ(libvhost_mem_commit(r.g.mem, 0, NULL), 0);
	*(uint64_t *)at(&r.g, 0x10008) = 0x1234;
	for (int i = 0; i < 4; i++)
		CHECK_EQ(pthread_create(&t[i], NULL, reader, &r), 0);
	for (int i = 0; i < 1500; i++) {
		CHECK_EQ(libvhost_mem_begin(r.g.mem), 0);
		if (i % 2)
			CHECK_EQ(libvhost_mem_remove(r.g.mem, 0x200000, PAGE), 0);
		else
			CHECK_EQ(libvhost_mem_alloc(r.g.mem, 0x200000, PAGE), 0);
		CHECK_EQ(libvhost_mem_commit(r.g.mem, 0, NULL), 0);
	}
	while (atomic_load(&r.lookups) < 100)
		usleep(1000);
	atomic_store(&r.stop, true);
	for (int i = 0; i < 4; i++)
		pthread_join(t[i], NULL);
	CHECK_EQ(atomic_load(&r.wrong), 0);
	guest_free(&r.g);
	CHECK_LEDGER(before);
}
