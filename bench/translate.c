/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/*
 * Address translation, ns per lookup: the shipped lv_translate() beside a linear search of the same array.
 *
 * All variants take turns within one run and the median of the rounds is printed, so that frequency and neighbours
 * hit each of them alike. Usage: bench/translate [rounds]
 */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "memory/mem.h"

#define LOOKUPS	    20000u
#define MAX_ROUNDS  1001u
#define REGION_SIZE (1ull << 20)

typedef void *(*lookup_fn)(const struct lv_snapshot *snap, struct lv_tlb *tlb, uint64_t gpa, uint64_t len);

static void *linear(const struct lv_snapshot *snap, struct lv_tlb *tlb, uint64_t gpa, uint64_t len)
{
	(void)tlb;
	for (uint32_t i = 0; i < snap->count; i++) {
		const struct lv_map *m = &snap->maps[i];

		if (gpa - m->gpa < m->size && len <= m->size - (gpa - m->gpa))
			return m->hva + (gpa - m->gpa);
	}
	return NULL;
}

/* Not lv_translate itself: both variants are called through a pointer of the same kind. */
static void *shipped(const struct lv_snapshot *snap, struct lv_tlb *tlb, uint64_t gpa, uint64_t len)
{
	return lv_translate(snap, tlb, gpa, len);
}

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000ull + (uint64_t)ts.tv_nsec;
}

/* One round; each address depends on the answer before it, as a chain of descriptors does. */
static double run(lookup_fn fn, const struct lv_snapshot *snap, const uint64_t *gpas)
{
	struct lv_tlb tlb = {0};
	uint64_t start = now_ns(), missed = 0;

	for (uint32_t i = 0; i < LOOKUPS; i++)
		missed += !fn(snap, &tlb, gpas[i] + missed, 16);
	start = now_ns() - start;
	if (missed) {
		fprintf(stderr, "%llu addresses were not found\n", (unsigned long long)missed);
		exit(1);
	}
	return (double)start / LOOKUPS;
}

static int ascending(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static struct lv_snapshot *make_snapshot(uint32_t count)
{
	struct lv_map *maps = calloc(count, sizeof(*maps));
	struct lv_snapshot *snap;

	if (!maps)
		return NULL;
	for (uint32_t i = 0; i < count; i++) {
		maps[i].gpa = i * 2 * REGION_SIZE;
		maps[i].size = REGION_SIZE;
		maps[i].user_addr = maps[i].gpa + LV_COOKIE_BASE;
		maps[i].hva = (uint8_t *)(uintptr_t)(0x10000000 + maps[i].gpa); /* never touched */
		maps[i].fd = -1;
	}
	snap = lv_snapshot_new(maps, count, 1);
	free(maps);
	return snap;
}

static void fill(uint64_t *gpas, uint32_t count, int same)
{
	uint32_t seed = 12345;

	for (uint32_t i = 0; i < LOOKUPS; i++) {
		seed = seed * 1664525u + 1013904223u;
		gpas[i] =
			(same ? count / 2 : (seed >> 8) % count) * 2 * REGION_SIZE + (seed >> 16) % (REGION_SIZE - 16);
	}
}

/* Medians of the four variants for one map size. */
static int bench(uint32_t count, uint32_t rounds)
{
	static uint64_t gpas[2][LOOKUPS];
	static double ns[4][MAX_ROUNDS];
	struct lv_snapshot *snap = make_snapshot(count);
	lookup_fn const fns[2] = {shipped, linear};

	if (!snap)
		return 1;
	fill(gpas[0], count, 0);
	fill(gpas[1], count, 1);
	for (uint32_t r = 0; r < rounds; r++)
		for (int v = 0; v < 4; v++)
			ns[v][r] = run(fns[v / 2], snap, gpas[v % 2]);
	for (int v = 0; v < 4; v++)
		qsort(ns[v], rounds, sizeof(ns[v][0]), ascending);
	printf("%7u %14.1f %14.1f %14.1f %14.1f\n", count, ns[0][rounds / 2], ns[1][rounds / 2], ns[2][rounds / 2],
	       ns[3][rounds / 2]);
	lv_snapshot_put(snap);
	return 0;
}

int main(int argc, char **argv)
{
	static const uint32_t counts[] = {1, 8, 64, 512};
	unsigned long rounds = argc > 1 ? strtoul(argv[1], NULL, 10) : 51;

	if (!rounds || rounds > MAX_ROUNDS) {
		fprintf(stderr, "usage: %s [rounds 1..%u]\n", argv[0], MAX_ROUNDS);
		return 2;
	}
	printf("ns per lookup, median of %lu rounds of %u\n", rounds, LOOKUPS);
	printf("%7s %14s %14s %14s %14s\n", "regions", "random", "same region", "linear random", "linear same");
	for (size_t i = 0; i < sizeof(counts) / sizeof(*counts); i++)
		if (bench(counts[i], (uint32_t)rounds))
			return 1;
	return 0;
}
