/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/*
 * Split and packed ring, null device: requests of three descriptors (16-byte header, 4 KiB of data, status byte) at a
 * fixed depth, polled. Each round runs both formats six ways: one thread doing both sides in turn, and one thread a
 * side on two cores, each with flags, with event indexes and with indirect tables; one thread is measured in its own
 * CPU time. Median and best of the rounds, in million requests per second, beside the round trip of a cache line
 * between the cores in the same round, which explains most of the noise.
 *
 * Usage: rings [ROUNDS [DEPTH]], or rings count: instructions of a request on one thread, both sides and this program,
 * counted by stepping through them. The same on a busy machine, and without performance counters. Exit status 77: not
 * on this architecture.
 */
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <ucontext.h>
#include <vhost/libvhost.h>

#define RAM	 0x100000ull
#define RAM_SIZE (64ull << 20)
#define NUM	 512u
#define BLOCK	 8192u /* guest memory of one request */
#define BATCH	 32u
#define MAX	 (NUM / 3)
#define EVENT	 (1ull << 29)
#define PACKED	 (1ull << 34)
#define INDIRECT (1ull << 28)

struct bench {
	struct libvhost_ctx *ctx;
	struct libvhost_mem *mem;
	struct libvhost_vq *drv, *dev;
	uint32_t depth;
	atomic_bool stop;
};

static void must(int rc, const char *what)
{
	if (rc >= 0)
		return;
	fprintf(stderr, "rings: %s: %d\n", what, rc);
	exit(1);
}

static uint64_t now(clockid_t clock)
{
	struct timespec ts;

	clock_gettime(clock, &ts);
	return (uint64_t)ts.tv_sec * 1000000000ull + (uint64_t)ts.tv_nsec;
}

static void pin(int core)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET((size_t)core, &set);
	pthread_setaffinity_np(pthread_self(), sizeof(set), &set);
}

static void open_ring(struct bench *b, uint64_t features)
{
	struct libvhost_vq_opts o = {.size = sizeof(o),
				     .num = NUM,
				     .features = features | 1ull << 32,
				     .desc = RAM,
				     .avail = RAM + 0x4000,
				     .used = RAM + 0x8000};
	void *hva;

	must(libvhost_ctx_new(NULL, &b->ctx), "ctx");
	must(libvhost_mem_new(b->ctx, NULL, &b->mem), "mem");
	must(libvhost_mem_begin(b->mem), "begin");
	must(libvhost_mem_alloc(b->mem, RAM, RAM_SIZE), "alloc");
	must(libvhost_mem_commit(b->mem, 0, NULL), "commit");
	must(libvhost_mem_translate(b->mem, RAM, RAM_SIZE, &hva, NULL), "translate");
	memset(hva, 0, RAM_SIZE);
	if (features & INDIRECT) {
		o.indirect = RAM + 0x10000;
		o.max_chain = 4;
	}
	must(libvhost_vq_new(b->ctx, b->mem, &o, &b->drv), "driver");
	o.role = LIBVHOST_VQ_DEVICE;
	o.indirect = o.max_chain = 0;
	must(libvhost_vq_new(b->ctx, b->mem, &o, &b->dev), "device");
	must(libvhost_vq_notify_enable(b->drv, 0), "polling"); /* both sides poll */
	must(libvhost_vq_notify_enable(b->dev, 0), "polling");
}

static void close_ring(struct bench *b)
{
	libvhost_vq_free(b->drv);
	libvhost_vq_free(b->dev);
	libvhost_mem_free(b->mem);
	libvhost_ctx_free(b->ctx);
}

static void add(struct bench *b, uint64_t slot)
{
	const uint64_t at = RAM + 0x100000 + slot * BLOCK;
	const struct libvhost_buf bufs[] = {
		{.gpa = at, .len = 16}, {.gpa = at + 4096, .len = 4096}, {.gpa = at + 16, .len = 1}};

	must(libvhost_vq_add(b->drv, bufs, 1, 2, slot), "add");
}

static uint32_t serve(struct bench *b)
{
	struct libvhost_iov iov[8];
	struct libvhost_chain c = {.size = sizeof(c), .iov = iov, .iov_cap = 8};
	uint32_t n = 0;
	int rc = 0;

	for (; n < BATCH && (rc = libvhost_vq_pop(b->dev, &c)) == 1; n++)
		must(libvhost_vq_push(b->dev, c.head, c.write_len), "push");
	must(rc, "pop");
	must(libvhost_vq_flush(b->dev), "flush");
	return n;
}

/* Offers again what came back. */
static uint32_t turn(struct bench *b)
{
	struct libvhost_used used[BATCH];
	uint32_t n = BATCH;

	must(libvhost_vq_get_used(b->drv, used, &n), "get_used");
	for (uint32_t i = 0; i < n; i++)
		add(b, used[i].token);
	must(libvhost_vq_kick(b->drv), "kick");
	return n;
}

static void relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
	__builtin_ia32_pause();
#endif
}

static void *device(void *arg)
{
	struct bench *b = arg;

	pin(1);
	while (!atomic_load_explicit(&b->stop, memory_order_relaxed))
		if (!serve(b))
			relax();
	return NULL;
}

/* Million requests per second over about ms milliseconds. */
static double run(uint32_t depth, uint64_t features, int threads, uint32_t ms)
{
	struct bench b = {.depth = depth};
	const clockid_t clock = threads == 1 ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC;
	uint64_t done = 0, start, end;
	pthread_t thread;

	open_ring(&b, features);
	for (uint32_t i = 0; i < depth; i++)
		add(&b, i);
	must(libvhost_vq_kick(b.drv), "kick");
	if (threads == 2)
		must(-pthread_create(&thread, NULL, device, &b), "thread");
	start = now(clock);
	do {
		for (uint32_t i = 0; i < 1000; i++) {
			if (threads == 1)
				while (serve(&b) == BATCH)
					;
			done += turn(&b);
		}
		end = now(clock);
	} while (end - start < ms * 1000000ull);
	atomic_store(&b.stop, true);
	if (threads == 2)
		pthread_join(thread, NULL);
	close_ring(&b);
	return (double)done * 1e3 / (double)(end - start);
}

static _Alignas(64) atomic_uint ball;

static void *return_ball(void *arg)
{
	const uint32_t rounds = *(const uint32_t *)arg;

	pin(1);
	for (uint32_t i = 0; i < rounds; i++) {
		while (atomic_load_explicit(&ball, memory_order_acquire) != 2 * i + 1)
			;
		atomic_store_explicit(&ball, 2 * i + 2, memory_order_release);
	}
	return NULL;
}

/* Nanoseconds of a cache line's round trip between the two cores. */
static double ping(void)
{
	uint32_t rounds = 100000;
	pthread_t thread;
	uint64_t start;

	atomic_store(&ball, 0);
	must(-pthread_create(&thread, NULL, return_ball, &rounds), "thread");
	start = now(CLOCK_MONOTONIC);
	for (uint32_t i = 0; i < rounds; i++) {
		atomic_store_explicit(&ball, 2 * i + 1, memory_order_release);
		while (atomic_load_explicit(&ball, memory_order_acquire) != 2 * i + 2)
			;
	}
	start = now(CLOCK_MONOTONIC) - start;
	pthread_join(thread, NULL);
	return (double)start / rounds;
}

#if defined(__x86_64__)
#define TRAP_FLAG 0x100

static volatile sig_atomic_t stepping;
static volatile uint64_t steps;

/* Traps behind each instruction while the flag is set, and the flag is part of what the handler returns to. */
static void on_step(int sig, siginfo_t *info, void *context)
{
	greg_t *flags = &((ucontext_t *)context)->uc_mcontext.gregs[REG_EFL];

	(void)sig;
	(void)info;
	steps += (uint64_t)stepping;
	*flags = stepping ? *flags | TRAP_FLAG : *flags & ~TRAP_FLAG;
}

/* Instructions of a request. */
static double count(uint32_t depth, uint64_t features)
{
	struct bench b = {.depth = depth};
	uint64_t done = 0;

	open_ring(&b, features);
	for (uint32_t i = 0; i < depth; i++)
		add(&b, i);
	must(libvhost_vq_kick(b.drv), "kick");
	for (int i = 0; i < 5;
	     i++) { /* the last one is stepped through: a signal costs up to 20 us on virtual machines */
		if (i == 4) {
			steps = done = 0;
			stepping = 1;
			raise(SIGTRAP);
		}
		while (serve(&b) == BATCH)
			;
		done += turn(&b);
	}
	stepping = 0;
	close_ring(&b);
	return (double)steps / (double)done;
}

static int print_counts(void)
{
	static const struct {
		const char *name;
		uint64_t features;
	} ways[] = {
		{"split", 0},
		{"split-indirect", INDIRECT},
		{"packed", PACKED},
		{"packed-indirect", PACKED | INDIRECT},
	};
	const struct sigaction sa = {.sa_sigaction = on_step, .sa_flags = SA_SIGINFO};

	sigaction(SIGTRAP, &sa, NULL);
	for (size_t w = 0; w < sizeof(ways) / sizeof(ways[0]); w++)
		printf("%-16s %7.1f instructions per request\n", ways[w].name, count(128, ways[w].features));
	return 0;
}
#else
static int print_counts(void)
{
	puts("instructions are counted on x86-64 only");
	return 77;
}
#endif

static int ascending(const void *a, const void *b)
{
	const double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

int main(int argc, char **argv)
{
	static const struct {
		const char *name;
		uint64_t features;
		int threads;
	} ways[] = {
		{"one thread, flags", 0, 1},
		{"one thread, event index", EVENT, 1},
		{"one thread, indirect", INDIRECT, 1},
		{"two cores, flags", 0, 2},
		{"two cores, event index", EVENT, 2},
		{"two cores, indirect", INDIRECT, 2},
		{"packed, one thread, flags", PACKED, 1},
		{"packed, one thread, event index", PACKED | EVENT, 1},
		{"packed, one thread, indirect", PACKED | INDIRECT, 1},
		{"packed, two cores, flags", PACKED, 2},
		{"packed, two cores, event index", PACKED | EVENT, 2},
		{"packed, two cores, indirect", PACKED | INDIRECT, 2},
	};
	enum { WAYS = sizeof(ways) / sizeof(ways[0]), MOST = 99 };
	int rounds = argc > 1 ? atoi(argv[1]) : 9;
	uint32_t depth = argc > 2 ? (uint32_t)atoi(argv[2]) : 128;
	static double rate[WAYS][MOST], trip[MOST];

	if (argc == 2 && !strcmp(argv[1], "count"))
		return print_counts();
	if (rounds < 1 || rounds > MOST || depth < 1 || depth > MAX) {
		fprintf(stderr, "usage: rings [ROUNDS (1..%d) [DEPTH (1..%u)]] | rings count\n", MOST, MAX);
		return 2;
	}
	pin(0);
	for (int i = 0; i < rounds; i++) {
		trip[i] = ping();
		for (size_t w = 0; w < WAYS; w++)
			rate[w][i] = run(depth, ways[w].features, ways[w].threads, 200);
	}
	qsort(trip, (size_t)rounds, sizeof(*trip), ascending);
	printf("cache line round trip: median %.0f ns, best %.0f ns\n", trip[rounds / 2], trip[0]);
	for (size_t w = 0; w < WAYS; w++) {
		qsort(rate[w], (size_t)rounds, sizeof(**rate), ascending);
		printf("%-32s depth %u: median %6.2f M req/s, best %6.2f M req/s\n", ways[w].name, depth,
		       rate[w][rounds / 2], rate[w][rounds - 1]);
	}
	return 0;
}
