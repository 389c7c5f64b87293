/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/*
 * The same code for every device: requests of three descriptors (header, 4 KiB, status) through the library's
 * virtqueue. As a guest's driver does, it writes each header and looks at each status.
 */
#include "driver.h"

#include <dirent.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "blk_wire.h"

#define GPA	  0x100000ull
#define HEADERS	  0x10000ull /* a cache line per request: header, status behind it */
#define LINE	  64u
#define STATUS	  sizeof(struct blk_header)
#define DATA	  0x20000ull
#define RAM	  (DATA + (uint64_t)DEPTH_MAX * BLOCK)
#define PENDING	  0xffu
#define VERSION_1 (1ull << 32)
#define EVENT_IDX (1ull << 29)
#define BURST	  32u

void must(struct libvhost_ctx *ctx, int rc, const char *what)
{
	struct libvhost_error e = {.size = sizeof(e)};

	if (rc >= 0)
		return;
	if (ctx)
		libvhost_ctx_error(ctx, &e);
	fprintf(stderr, "backend: %s: %s\n", what, e.text[0] ? e.text : strerror(-rc));
	exit(1);
}

double now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

/* The same for a call on the device itself. */
static void must_dev(const struct device *d, int rc)
{
	struct libvhost_error e = {.size = sizeof(e)};

	if (rc >= 0)
		return;
	libvhost_dev_error(d->dev, &e);
	fprintf(stderr, "backend: %s: %s\n", d->name, e.text[0] ? e.text : strerror(-rc));
	exit(1);
}

static void open_ring(struct libvhost_ctx *ctx, struct device *d)
{
	struct libvhost_queue q = {
		.size = sizeof(q), .num = NUM, .desc = GPA, .avail = GPA + 0x4000, .used = GPA + 0x8000};
	struct libvhost_vq_opts o = {.size = sizeof(o),
				     .flags = LIBVHOST_VQ_HAS_KICK | LIBVHOST_VQ_HAS_CALL,
				     .num = NUM,
				     .features = VERSION_1 | EVENT_IDX,
				     .desc = q.desc,
				     .avail = q.avail,
				     .used = q.used};

	must_dev(d, libvhost_dev_set_queue(d->dev, 0, &q));
	must_dev(d, libvhost_dev_get_queue(d->dev, 0, &q));
	o.kick_fd = q.kick_fd;
	o.call_fd = d->call_fd = q.call_fd;
	must(ctx, libvhost_vq_new(ctx, d->mem, &o, &d->vq), d->name);
}

void device_open(struct libvhost_ctx *ctx, struct device *d, const char *socket)
{
	struct libvhost_dev_opts opts = {.size = sizeof(opts), .virtio_id = VIRTIO_ID_BLOCK, .num_queues = 1};
	const uint64_t features = VERSION_1 | EVENT_IDX;
	char uri[256];
	void *ram;

	snprintf(uri, sizeof(uri), "user:%s", socket);
	must(NULL, -clock_getcpuclockid(d->pid, &d->cpu_clock), d->name);
	must(ctx, libvhost_mem_new(ctx, NULL, &d->mem), d->name);
	must(ctx, libvhost_mem_begin(d->mem), d->name);
	must(ctx, libvhost_mem_alloc(d->mem, GPA, (RAM + 0xfff) & ~0xfffull), d->name);
	must(ctx, libvhost_mem_commit(d->mem, 0, NULL), d->name);
	must(ctx, libvhost_mem_translate(d->mem, GPA, RAM, &ram, NULL), d->name);
	d->ram = ram;
	memset(d->ram, 0x5a, RAM);
	opts.uri = uri;
	opts.mem = d->mem;
	must(ctx, libvhost_dev_init(ctx, &opts, &d->dev), d->name);
	must_dev(d, libvhost_ack_features_ex(d->dev, &features, 1));
	open_ring(ctx, d);
	must_dev(d, libvhost_dev_start(d->dev, NULL));
	d->random = 88172645463325252ull;
}

void device_close(struct device *d)
{
	libvhost_vq_free(d->vq);
	libvhost_dev_cleanup(d->dev);
	libvhost_mem_free(d->mem);
}

static uint64_t random_block(struct device *d, uint64_t blocks)
{
	d->random ^= d->random << 13;
	d->random ^= d->random >> 7;
	d->random ^= d->random << 17;
	return blocks > 1 ? d->random % blocks : 0;
}

static void offer(struct device *d, const struct load *load, uint64_t slot)
{
	const uint64_t header = HEADERS + slot * LINE;
	const struct libvhost_buf bufs[3] = {{.gpa = GPA + header, .len = sizeof(struct blk_header)},
					     {.gpa = GPA + DATA + slot * BLOCK, .len = BLOCK},
					     {.gpa = GPA + header + STATUS, .len = 1}};
	struct blk_header *h = (void *)(d->ram + header);

	h->type = load->writes ? BLK_T_OUT : BLK_T_IN;
	h->sector = random_block(d, load->blocks) * (BLOCK / 512);
	d->ram[header + STATUS] = PENDING;
	if (load->latency)
		d->began[slot] = now();
	must(NULL, libvhost_vq_add(d->vq, bufs, load->writes ? 2 : 1, load->writes ? 1 : 2, slot), d->name);
	d->in_flight++;
}

static void finish(struct device *d, const struct load *load, struct result *r, uint64_t slot)
{
	const uint8_t status = *(volatile uint8_t *)(d->ram + HEADERS + slot * LINE + STATUS);

	if (status != BLK_S_OK) {
		fprintf(stderr, "backend: %s: a request ended with status %u\n", d->name, status);
		exit(1);
	}
	if (load->latency)
		histogram_add(&r->latency, now() - d->began[slot]);
}

static void kick(struct device *d, struct result *r)
{
	const int rc = libvhost_vq_kick(d->vq);

	must(NULL, rc, d->name);
	r->kicks += (uint64_t)rc;
}

/* Takes what has ended; offers as much again while the round goes on. */
static uint32_t turn(struct device *d, const struct load *load, struct result *r, bool again)
{
	struct libvhost_used used[BURST];
	uint32_t n = BURST;

	must(NULL, libvhost_vq_get_used(d->vq, used, &n), d->name);
	d->in_flight -= n;
	r->requests += n;
	for (uint32_t i = 0; i < n; i++) {
		finish(d, load, r, used[i].token);
		if (again)
			offer(d, load, used[i].token);
	}
	if (n && again)
		kick(d, r);
	return n;
}

/* get_used() that finds fewer than asked for has the next completion announced. */
static void wait_for_call(struct device *d, struct result *r)
{
	struct pollfd p = {.fd = d->call_fd, .events = POLLIN};
	uint64_t value;

	r->waits++;
	poll(&p, 1, -1); /* devices may make it non-blocking */
	if (read(d->call_fd, &value, sizeof(value)) < 0 && errno != EINTR && errno != EAGAIN)
		must(NULL, -errno, d->name);
}

static double cpu_time(const struct device *d)
{
	struct timespec ts = {0};

	clock_gettime(d->cpu_clock, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

/* How often threads of the process went to sleep by themselves, from /proc. */
static uint64_t sleeps(pid_t pid)
{
	char path[320], line[128];
	uint64_t sum = 0;
	struct dirent *e;
	DIR *threads;

	snprintf(path, sizeof(path), "/proc/%d/task", (int)pid);
	threads = opendir(path);
	while (threads && (e = readdir(threads)) != NULL) {
		unsigned long n;
		FILE *f;

		snprintf(path, sizeof(path), "/proc/%d/task/%.20s/status", (int)pid, e->d_name);
		f = fopen(path, "re");
		while (f && fgets(line, sizeof(line), f))
			if (sscanf(line, "voluntary_ctxt_switches: %lu", &n) == 1)
				sum += n;
		if (f)
			fclose(f);
	}
	if (threads)
		closedir(threads);
	return sum;
}

void device_run(struct device *d, const struct load *load, struct result *r)
{
	double begin, cpu;

	*r = (struct result){.device_sleeps = sleeps(d->pid)};
	must(NULL, libvhost_vq_notify_enable(d->vq, load->sleeps), d->name);
	cpu = cpu_time(d);
	begin = now();
	for (uint32_t i = 0; i < load->depth; i++)
		offer(d, load, i);
	kick(d, r);
	for (uint32_t i = 1; i % (load->sleeps ? 8 : 256) || now() - begin < load->seconds; i++)
		if (!turn(d, load, r, true) && load->sleeps)
			wait_for_call(d, r);
	while (d->in_flight)
		if (!turn(d, load, r, false) && load->sleeps && d->in_flight)
			wait_for_call(d, r);
	r->seconds = now() - begin;
	r->device_cpu = cpu_time(d) - cpu;
	r->device_sleeps = sleeps(d->pid) - r->device_sleeps;
}
