/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/*
 * The same driver code against two null devices: our back-end on a sandboxed worker (in process, with its own mapping)
 * and a vhost-user back-end at a socket, for example qemu-storage-daemon's null-co. Requests of three descriptors
 * (header, 4 KiB, status), polled, fixed depth, rounds interleaved.
 *
 * Usage: null_device SOCKET [ROUNDS [DEPTH]]; prints each round and ends with "median ratio N". The driver runs on
 * processor 1, our worker on 0; start the other back-end there too (taskset 0x1).
 */
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <vhost/libvhost.h>

#define GPA	    0x100000ull
#define NUM	    512u
#define DATA	    4096u
#define SLOT	    8192u
#define SLOTS_AT    0x10000ull
#define RAM	    (SLOTS_AT + (uint64_t)NUM / 3 * SLOT)
#define VERSION_1   (1ull << 32)
#define EVENT_IDX   (1ull << 29)
#define ROUND_S	    0.4
#define WORKER_CPU  0
#define DRIVER_CPU  1
#define PROBE_TRIPS 20000u

struct side {
	const char *name;
	struct libvhost_mem *mem;
	struct libvhost_dev *dev;
	struct libvhost_vq *vq;
	uint32_t in_flight;
};

static struct libvhost_ctx *ctx;

static void must(int rc, const char *what)
{
	struct libvhost_error e = {.size = sizeof(e)};

	if (rc >= 0)
		return;
	libvhost_ctx_error(ctx, &e);
	fprintf(stderr, "null_device: %s: %d %s\n", what, rc, e.text);
	exit(1);
}

static double now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static void pin(int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET((size_t)cpu, &set);
	pthread_setaffinity_np(pthread_self(), sizeof(set), &set);
}

/* The device: status byte, nothing else. */
static int serve(void *arg, uint32_t queue, struct libvhost_vq *vq)
{
	struct libvhost_iov iov[8];
	struct libvhost_chain chain;
	int rc;

	(void)arg;
	(void)queue;
	for (int i = 0; i < 64; i++) {
		chain = (struct libvhost_chain){.size = sizeof(chain), .iov = iov, .iov_cap = 8};
		rc = libvhost_vq_pop(vq, &chain);
		if (rc <= 0)
			return rc;
		*(uint8_t *)iov[chain.n_read + chain.n_write - 1].base = 0;
		rc = libvhost_vq_push(vq, chain.head, chain.write_len);
		if (rc < 0)
			return rc;
	}
	return 1;
}

static struct libvhost_backend *null_backend(void)
{
	const struct libvhost_backend_ops ops = {.size = sizeof(ops), .serve = serve};
	const struct libvhost_worker_opts worker = {
		.size = sizeof(worker), .flags = LIBVHOST_WORKER_HAS_CPU, .poll_us = 500, .cpu = WORKER_CPU};
	const struct libvhost_backend_opts opts = {.size = sizeof(opts),
						   .virtio_id = 2,
						   .num_queues = 1,
						   .features = EVENT_IDX,
						   .ops = &ops,
						   .worker = &worker};
	struct libvhost_backend *backend;

	must(libvhost_backend_new(ctx, &opts, &backend), "backend");
	return backend;
}

static void start(struct side *s, const char *uri, struct libvhost_transport *transport)
{
	struct libvhost_dev_opts opts = {.size = sizeof(opts), .virtio_id = 2, .num_queues = 1, .uri = uri};
	struct libvhost_queue q = {
		.size = sizeof(q), .num = NUM, .desc = GPA, .avail = GPA + 0x4000, .used = GPA + 0x8000};
	struct libvhost_vq_opts o = {.size = sizeof(o),
				     .flags = LIBVHOST_VQ_HAS_KICK | LIBVHOST_VQ_HAS_CALL,
				     .num = NUM,
				     .features = VERSION_1 | EVENT_IDX,
				     .desc = q.desc,
				     .avail = q.avail,
				     .used = q.used};
	const uint64_t features = VERSION_1 | EVENT_IDX;
	void *ram;

	must(libvhost_mem_new(ctx, NULL, &s->mem), "memory");
	must(libvhost_mem_begin(s->mem), "memory");
	must(libvhost_mem_alloc(s->mem, GPA, (RAM + 0xfff) & ~0xfffull), "memory");
	must(libvhost_mem_commit(s->mem, 0, NULL), "memory");
	must(libvhost_mem_translate(s->mem, GPA, RAM, &ram, NULL), "memory");
	memset(ram, 0, RAM);
	opts.transport = transport;
	opts.mem = s->mem;
	must(libvhost_dev_init(ctx, &opts, &s->dev), s->name);
	must(libvhost_ack_features_ex(s->dev, &features, 1), "features");
	must(libvhost_dev_set_queue(s->dev, 0, &q), "queue");
	must(libvhost_dev_get_queue(s->dev, 0, &q), "queue");
	o.kick_fd = q.kick_fd;
	o.call_fd = q.call_fd;
	must(libvhost_vq_new(ctx, s->mem, &o, &s->vq), "ring");
	must(libvhost_vq_notify_enable(s->vq, 0), "ring");
	must(libvhost_dev_start(s->dev, NULL), "start");
}

static void offer(struct side *s, uint64_t slot)
{
	const uint64_t at = GPA + SLOTS_AT + slot * SLOT;
	const struct libvhost_buf bufs[3] = {
		{.gpa = at, .len = 16}, {.gpa = at + 4096, .len = DATA}, {.gpa = at + 64, .len = 1}};

	must(libvhost_vq_add(s->vq, bufs, 1, 2, slot), "add");
	s->in_flight++;
}

static uint64_t reap(struct side *s, struct libvhost_used *used, uint32_t n)
{
	must(libvhost_vq_get_used(s->vq, used, &n), "used");
	s->in_flight -= n;
	return n;
}

/* Requests per second at the depth; leaves the ring empty. */
static double run(struct side *s, uint32_t depth)
{
	struct libvhost_used used[32];
	uint64_t total = 0, n;
	double begin = now(), end;

	for (uint32_t i = 0; i < depth; i++)
		offer(s, i);
	must(libvhost_vq_kick(s->vq), "kick");
	do {
		for (int i = 0; i < 256; i++) {
			n = reap(s, used, 32);
			for (uint64_t k = 0; k < n; k++)
				offer(s, used[k].token);
			total += n;
			if (n)
				must(libvhost_vq_kick(s->vq), "kick");
		}
		end = now();
	} while (end - begin < ROUND_S);
	while (s->in_flight)
		total += reap(s, used, 32);
	return (double)total / (now() - begin);
}

static atomic_uint ball;

static void *other_player(void *arg)
{
	(void)arg;
	pin(WORKER_CPU);
	for (unsigned i = 1; i < 2 * PROBE_TRIPS; i += 2) {
		while (atomic_load_explicit(&ball, memory_order_acquire) != i)
			;
		atomic_store_explicit(&ball, i + 1, memory_order_release);
	}
	return NULL;
}

/* Round trip of a cache line between the two processors, microseconds: most of the noise of a round is in it. */
static double probe(void)
{
	pthread_t thread;
	double begin;

	atomic_store(&ball, 0);
	if (pthread_create(&thread, NULL, other_player, NULL))
		return 0;
	begin = now();
	for (unsigned i = 1; i < 2 * PROBE_TRIPS; i += 2) {
		atomic_store_explicit(&ball, i, memory_order_release);
		while (atomic_load_explicit(&ball, memory_order_acquire) != i + 1)
			;
	}
	begin = now() - begin;
	pthread_join(thread, NULL);
	return begin / PROBE_TRIPS * 1e6;
}

static int ascending(const void *a, const void *b)
{
	const double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

int main(int argc, char **argv)
{
	int rounds = argc > 2 ? atoi(argv[2]) : 9, depth = argc > 3 ? atoi(argv[3]) : 128;
	struct side ours = {.name = "in-process back-end"}, theirs = {.name = "vhost-user back-end"};
	struct libvhost_transport *inproc;
	struct libvhost_backend *backend;
	double *ratio;
	char uri[256];

	if (argc < 2 || rounds < 1 || depth < 1 || depth > (int)NUM / 3) {
		fputs("usage: null_device SOCKET [ROUNDS [DEPTH, at most 170]]\n", stderr);
		return 2;
	}
	ratio = calloc((size_t)rounds, sizeof(*ratio));
	must(ratio ? libvhost_ctx_new(NULL, &ctx) : -1, "context");
	pin(DRIVER_CPU);
	backend = null_backend();
	must(libvhost_backend_inproc(backend, &inproc), "inproc");
	snprintf(uri, sizeof(uri), "user:%s", argv[1]);
	start(&ours, NULL, inproc);
	start(&theirs, uri, NULL);
	for (int i = 0; i < rounds; i++) {
		double line = probe(), a, b;

		b = run(&theirs, (uint32_t)depth);
		a = run(&ours, (uint32_t)depth);
		ratio[i] = a / b;
		printf("round %d: ours %.2f M/s, theirs %.2f M/s, ratio %.2f, cache line %.2f us\n", i, a / 1e6,
		       b / 1e6, a / b, line);
	}
	qsort(ratio, (size_t)rounds, sizeof(*ratio), ascending);
	printf("depth %d, median ratio %.2f\n", depth, ratio[rounds / 2]);
	libvhost_vq_free(ours.vq);
	libvhost_vq_free(theirs.vq);
	libvhost_dev_cleanup(ours.dev);
	libvhost_dev_cleanup(theirs.dev);
	libvhost_backend_free(backend);
	libvhost_mem_free(ours.mem);
	libvhost_mem_free(theirs.mem);
	libvhost_ctx_free(ctx);
	free(ratio);
	return 0;
}
