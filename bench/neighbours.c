/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/*
 * What a hostile queue costs its neighbours: round trips of a calm queue, one at a time, its driver asleep in between,
 * while another queue of the process does its worst, on another worker and on the same one. The calm queue's driver and
 * worker are on processor 0; on processor 1 the attacker works in each round, in every second one at an eventfd that
 * belongs to nobody: what is compared is not an idle machine with a busy one.
 *
 * Usage: neighbours [ROUNDS]; prints "WHERE ATTACK p99-without p99-with best-ratio median-ratio", microseconds. The
 * ratios are of the lowest and of the median p99 of all rounds.
 */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>
#include <vhost/libvhost.h>

#define VERSION_1  (1ull << 32)
#define NUM	   1024u
#define AVAIL	   0x4000u
#define USED	   0x8000u
#define DATA	   0x100000u
#define RAM	   0x200000u
#define MORE_AT	   0x10000000u
#define MORE	   0x100000u
#define CHAIN	   1000u
#define TRIPS	   2000u
#define MAX_ROUNDS 101u

/* A guest: memory, a ring, a driver. */
struct guest {
	struct libvhost_mem *mem;
	struct libvhost_vq_opts o;
	struct libvhost_vq *drv, *dev;
	uint8_t *ram;
	int kick, call;
};

enum attack { KICKS, FLOOD, CHAINS, GARBAGE, MAPS, ATTACKS };
static const char *const names[ATTACKS] = {"kicks", "flood", "chains", "garbage", "maps"};

static struct libvhost_ctx *ctx;
static struct guest calm, evil;
static struct libvhost_worker *evil_worker;
static int nobodys;
static enum attack attack;
static atomic_int phase; /* 0 rest, 1 attack, 2 pretend, 3 end */
static atomic_int seen;

static void must(int rc, const char *what)
{
	struct libvhost_error e = {.size = sizeof(e)};

	if (rc >= 0)
		return;
	libvhost_ctx_error(ctx, &e);
	fprintf(stderr, "neighbours: %s: %d %s\n", what, rc, e.text);
	exit(1);
}

static void pin(unsigned cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET((size_t)cpu, &set);
	pthread_setaffinity_np(pthread_self(), sizeof(set), &set);
}

static double now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec * 1e6 + (double)ts.tv_nsec / 1e3;
}

static void guest_new(struct guest *g)
{
	void *ram;

	must(libvhost_mem_new(ctx, NULL, &g->mem), "memory");
	must(libvhost_mem_begin(g->mem), "memory");
	must(libvhost_mem_alloc(g->mem, 0, RAM), "memory");
	must(libvhost_mem_commit(g->mem, 0, NULL), "memory");
	must(libvhost_mem_translate(g->mem, 0, RAM, &ram, NULL), "memory");
	g->ram = ram;
	g->kick = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	g->call = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	g->o = (struct libvhost_vq_opts){.size = sizeof(g->o),
					 .flags = LIBVHOST_VQ_HAS_KICK | LIBVHOST_VQ_HAS_CALL,
					 .num = NUM,
					 .features = VERSION_1,
					 .avail = AVAIL,
					 .used = USED,
					 .kick_fd = g->kick,
					 .call_fd = g->call};
}

/* A new driver and device on an empty ring. */
static void guest_reset(struct guest *g)
{
	libvhost_vq_free(g->drv);
	libvhost_vq_free(g->dev);
	g->drv = g->dev = NULL;
	memset(g->ram, 0, 2 * USED);
	g->o.role = LIBVHOST_VQ_DRIVER;
	must(libvhost_vq_new(ctx, g->mem, &g->o, &g->drv), "driver");
	g->o.role = LIBVHOST_VQ_DEVICE;
	must(libvhost_vq_new(ctx, g->mem, &g->o, &g->dev), "device");
}

static void guest_free(struct guest *g)
{
	libvhost_vq_free(g->drv);
	libvhost_vq_free(g->dev);
	libvhost_mem_free(g->mem);
	close(g->kick);
	close(g->call);
}

/* What devices do: at most 16 requests a turn. */
static int serve(void *arg, struct libvhost_vq *vq)
{
	struct libvhost_iov iov[NUM];
	struct libvhost_chain c = {.size = sizeof(c), .iov = iov, .iov_cap = NUM};
	int rc = 0;

	(void)arg;
	for (int i = 0; i < 16 && (rc = libvhost_vq_pop(vq, &c)) > 0; i++)
		rc = libvhost_vq_push(vq, c.head, 0) < 0 ? -EIO : 1;
	return rc;
}

static void attack_by_kicks(void)
{
	for (int i = 0; i < 64; i++)
		eventfd_write(evil.kick, 1);
}

/* Fills the ring, kicks, takes what is done. */
static void attack_by_requests(uint32_t pieces)
{
	static struct libvhost_buf bufs[CHAIN];
	struct libvhost_used used[64];
	uint32_t n = 64;

	for (uint32_t i = 0; i < pieces; i++)
		bufs[i] = (struct libvhost_buf){.gpa = DATA + i * 64, .len = 64};
	for (int i = 0; i < 64 && libvhost_vq_add(evil.drv, bufs, pieces, 0, 0) == 0; i++)
		;
	must(libvhost_vq_kick(evil.drv), "kick");
	eventfd_write(evil.kick, 1);
	must(libvhost_vq_get_used(evil.drv, used, &n), "used");
}

/* Writes nonsense over the ring of a queue that runs, until it breaks; sets it up again. */
static void attack_by_garbage(void)
{
	static uint32_t seed = 1;
	struct libvhost_vq_info info = {.size = sizeof(info)};
	struct libvhost_event e;

	for (uint32_t i = 0; i < 2 * USED; i += 4) {
		seed = seed * 1664525 + 1013904223;
		memcpy(evil.ram + i, &seed, 4);
	}
	eventfd_write(evil.kick, 1);
	for (int i = 0; i < 1000 && libvhost_worker_next_event(evil_worker, &e) == 0; i++)
		eventfd_write(evil.kick, 1);
	must(libvhost_worker_remove_vq(evil_worker, evil.dev, 5000), "remove");
	must(libvhost_vq_info(evil.dev, &info), "info");
	guest_reset(&evil);
	must(libvhost_worker_add_vq(evil_worker, evil.dev, evil.kick, serve, NULL, 5000), "add");
}

static void change_map(bool more)
{
	must(libvhost_mem_begin(evil.mem), "memory");
	must(more ? libvhost_mem_alloc(evil.mem, MORE_AT, MORE) : libvhost_mem_remove(evil.mem, MORE_AT, MORE),
	     "memory");
	must(libvhost_mem_commit(evil.mem, 0, NULL), "memory");
}

/* Memory comes, is touched, and goes, as a front-end's tables make a back-end do it. */
static void attack_by_maps(void)
{
	void *at;

	must(libvhost_worker_remove_vq(evil_worker, evil.dev, 5000), "remove");
	change_map(true);
	must(libvhost_mem_translate(evil.mem, MORE_AT, MORE, &at, NULL), "memory");
	for (uint32_t i = 0; i < MORE; i += 0x1000)
		((volatile uint8_t *)at)[i] = 1;
	must(libvhost_worker_add_vq(evil_worker, evil.dev, evil.kick, serve, NULL, 5000), "add");
	must(libvhost_worker_remove_vq(evil_worker, evil.dev, 5000), "remove");
	change_map(false);
	must(libvhost_worker_add_vq(evil_worker, evil.dev, evil.kick, serve, NULL, 5000), "add");
}

static void *attacker(void *arg)
{
	int p;

	(void)arg;
	pin(1);
	while ((p = atomic_load(&phase)) != 3) {
		atomic_store(&seen, p);
		if (p == 2)
			for (int i = 0; i < 64; i++)
				eventfd_write(nobodys, 1);
		else if (p == 0)
			usleep(100);
		else if (attack == KICKS)
			attack_by_kicks();
		else if (attack == FLOOD)
			attack_by_requests(1);
		else if (attack == CHAINS)
			attack_by_requests(CHAIN);
		else if (attack == GARBAGE)
			attack_by_garbage();
		else
			attack_by_maps();
	}
	return NULL;
}

static void enter(int p)
{
	atomic_store(&phase, p);
	while (atomic_load(&seen) != p)
		usleep(100);
}

static double trip(void)
{
	const struct libvhost_buf buf = {.gpa = DATA, .len = 64};
	const double begin = now();
	struct libvhost_used used;
	uint64_t word;

	must(libvhost_vq_add(calm.drv, &buf, 1, 0, 0), "add");
	must(libvhost_vq_kick(calm.drv), "kick");
	for (uint32_t n = 1;; n = 1) {
		struct pollfd p = {.fd = calm.call, .events = POLLIN};

		must(libvhost_vq_get_used(calm.drv, &used, &n), "used");
		if (n)
			break;
		if (libvhost_vq_notify_enable(calm.drv, 1) == 0 && poll(&p, 1, 10000) != 1)
			must(-ETIMEDOUT, "the calm queue starves");
		if (read(calm.call, &word, sizeof(word)) < 0)
			continue;
	}
	return now() - begin;
}

static int by_size(const void *a, const void *b)
{
	const double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static double p99(void)
{
	static double took[TRIPS];

	for (unsigned i = 0; i < TRIPS; i++)
		took[i] = trip();
	qsort(took, TRIPS, sizeof(*took), by_size);
	return took[TRIPS * 99 / 100];
}

static void measure(const char *where, unsigned rounds)
{
	static double with[MAX_ROUNDS], without[MAX_ROUNDS];

	for (unsigned r = 0; r < rounds; r++) {
		enter(2);
		without[r] = p99();
		enter(1);
		with[r] = p99();
	}
	enter(0);
	qsort(with, rounds, sizeof(*with), by_size);
	qsort(without, rounds, sizeof(*without), by_size);
	printf("%s %s %.1f %.1f %.2f %.2f\n", where, names[attack], without[rounds / 2], with[rounds / 2],
	       with[0] / without[0], with[rounds / 2] / without[rounds / 2]);
	fflush(stdout);
}

static struct libvhost_worker *worker_on(int cpu)
{
	const struct libvhost_worker_opts o = {
		.size = sizeof(o), .flags = LIBVHOST_WORKER_HAS_CPU, .cpu = cpu, .poll_us = LIBVHOST_WORKER_NO_WINDOW};
	struct libvhost_worker *w;

	must(libvhost_worker_new(ctx, &o, &w), "worker");
	return w;
}

static void beside(const char *where, struct libvhost_worker *mine, struct libvhost_worker *its, unsigned rounds)
{
	guest_reset(&calm);
	must(libvhost_worker_add_vq(mine, calm.dev, calm.kick, serve, NULL, 5000), "add");
	evil_worker = its;
	for (int a = 0; a < ATTACKS; a++) {
		attack = (enum attack)a;
		guest_reset(&evil);
		must(libvhost_worker_add_vq(its, evil.dev, evil.kick, serve, NULL, 5000), "add");
		measure(where, rounds);
		must(libvhost_worker_remove_vq(its, evil.dev, 5000), "remove");
	}
	must(libvhost_worker_remove_vq(mine, calm.dev, 5000), "remove");
}

int main(int argc, char **argv)
{
	const unsigned wanted = argc > 1 ? (unsigned)strtoul(argv[1], NULL, 10) : 21;
	const unsigned rounds = wanted && wanted <= MAX_ROUNDS ? wanted : MAX_ROUNDS;
	struct libvhost_worker *w[2];
	pthread_t thread;

	must(libvhost_ctx_new(NULL, &ctx), "context");
	nobodys = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	guest_new(&calm);
	guest_new(&evil);
	pin(0);
	w[0] = worker_on(0);
	w[1] = worker_on(1);
	must(-pthread_create(&thread, NULL, attacker, NULL), "thread");
	beside("other-worker", w[0], w[1], rounds);
	beside("same-worker", w[0], w[0], rounds);
	atomic_store(&phase, 3);
	pthread_join(thread, NULL);
	libvhost_worker_free(w[0]);
	libvhost_worker_free(w[1]);
	guest_free(&calm);
	guest_free(&evil);
	close(nobodys);
	libvhost_ctx_free(ctx);
	return 0;
}
