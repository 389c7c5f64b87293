/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/*
 * Memory at scale at a real block back-end: REGIONS regions, requests whose buffers lie in four of them, and all the
 * time regions go and come back with other memory behind them. Each word of the disk says where it is, so that data
 * that arrived in old memory, or nowhere, is seen. Phases are announced by access("mark:NAME"), for counting from
 * outside.
 *
 * Usage: regions URI FILE REGIONS CHANGES; FILE is the image that the back-end serves
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <vhost/libvhost.h>

#define REGION_BYTES (512u << 10)
#define REGION_STEP  (1ull << 30)
#define BLOCK	     4096u
#define PIECES	     4u
#define DEPTH	     16u
#define NUM	     128u
#define DISK_BYTES   (8u << 20)
#define HEADERS	     0x10000u /* behind the ring in region 0: 64 bytes a request, the status at 32 */
#define EVENT_IDX    (1ull << 29)
#define VERSION_1    (1ull << 32)

struct request {
	uint64_t block; /* first of PIECES */
	uint32_t region[PIECES];
	int busy;
};

static struct libvhost_ctx *ctx;
static struct libvhost_mem *mem;
static struct libvhost_dev *dev;
static struct libvhost_vq *vq;
static struct request requests[DEPTH];
static uint32_t regions;
static _Atomic uint32_t users[LIBVHOST_MAX_REGIONS]; /* requests that use a region; GONE when none may */
static _Atomic uint64_t completed;
static _Atomic int stop, broken;

#define GONE 0x80000000u

static void mark(const char *phase)
{
	char name[64];

	snprintf(name, sizeof(name), "mark:%s", phase);
	if (!access(name, F_OK))
		abort();
}

static int fail(const char *what, int rc)
{
	struct libvhost_error e = {.size = sizeof(e)};

	if (dev)
		libvhost_dev_error(dev, &e);
	else
		libvhost_ctx_error(ctx, &e);
	fprintf(stderr, "%s: %d %s\n", what, rc, e.text);
	return 1;
}

static uint64_t region_gpa(uint32_t region)
{
	return (region + 1) * REGION_STEP;
}

static uint8_t *host(uint64_t gpa)
{
	void *hva = NULL;

	return libvhost_mem_translate(mem, gpa, 1, &hva, NULL) ? NULL : hva;
}

static int write_image(const char *path)
{
	uint64_t *words = malloc(DISK_BYTES);
	int fd = open(path, O_WRONLY | O_CLOEXEC), good;

	for (uint64_t i = 0; words && i < DISK_BYTES / 8; i++)
		words[i] = i * 8;
	good = fd >= 0 && words && pwrite(fd, words, DISK_BYTES, 0) == DISK_BYTES;
	if (fd >= 0)
		close(fd);
	free(words);
	return good ? 0 : fail(path, -errno);
}

static int make_memory(void)
{
	int rc = libvhost_mem_begin(mem);

	for (uint32_t i = 0; !rc && i < regions; i++)
		rc = libvhost_mem_alloc(mem, region_gpa(i), REGION_BYTES);
	if (!rc)
		rc = libvhost_mem_commit(mem, 0, NULL);
	return rc < 0 ? fail("memory", rc) : 0;
}

static int start(const char *uri)
{
	struct libvhost_dev_opts o = {.size = sizeof(o), .virtio_id = 2, .num_queues = 1, .timeout_ms = 60000};
	struct libvhost_queue q = {.size = sizeof(q), .num = NUM, .desc = region_gpa(0)};
	struct libvhost_vq_opts v = {
		.size = sizeof(v), .flags = LIBVHOST_VQ_HAS_KICK | LIBVHOST_VQ_HAS_CALL, .num = NUM};
	uint64_t features = VERSION_1 | EVENT_IDX;
	int rc;

	o.uri = uri;
	o.mem = mem;
	rc = libvhost_dev_init(ctx, &o, &dev);
	if (rc < 0)
		return fail("init", rc);
	v.desc = q.desc;
	v.avail = q.avail = q.desc + 0x1000;
	v.used = q.used = q.desc + 0x2000;
	v.features = features;
	if ((rc = libvhost_ack_features_ex(dev, &features, 1)) < 0 || (rc = libvhost_dev_set_queue(dev, 0, &q)) < 0 ||
	    (rc = libvhost_dev_get_queue(dev, 0, &q)) < 0)
		return fail("set-up", rc);
	v.kick_fd = q.kick_fd;
	v.call_fd = q.call_fd;
	rc = libvhost_vq_new(ctx, mem, &v, &vq);
	if (!rc)
		rc = libvhost_dev_start(dev, NULL);
	return rc < 0 ? fail("start", rc) : 0;
}

/* A region that stays until the request has ended. Region 0 always does. */
static uint32_t hold_region(uint32_t seed)
{
	uint32_t region = seed % regions;

	if (region && atomic_fetch_add(&users[region], 1) & GONE) {
		atomic_fetch_sub(&users[region], 1);
		region = 0;
	}
	if (!region)
		atomic_fetch_add(&users[0], 1);
	return region;
}

/* Where piece p of request r lies: at the end of its region, each request at its own place. */
static uint64_t piece_gpa(uint32_t r, uint32_t p)
{
	return region_gpa(requests[r].region[p]) + REGION_BYTES - (r * PIECES + p + 1) * BLOCK;
}

static int submit(uint32_t r, uint64_t count)
{
	struct libvhost_buf bufs[PIECES + 2] = {{.gpa = region_gpa(0) + HEADERS + r * 64, .len = 16}};
	struct request *q = &requests[r];
	uint8_t *header = host(bufs[0].gpa);
	uint64_t sector;

	q->block = count * 2654435761u % (DISK_BYTES / BLOCK - PIECES);
	sector = q->block * (BLOCK / 512);
	memset(header, 0, 64);
	memcpy(header + 8, &sector, 8);
	header[32] = 0xff;
	for (uint32_t p = 0; p < PIECES; p++) {
		q->region[p] = hold_region((uint32_t)(count * 40503u + p * 17) >> 4);
		bufs[1 + p] = (struct libvhost_buf){.gpa = piece_gpa(r, p), .len = BLOCK};
		memset(host(piece_gpa(r, p)), 0xa5, BLOCK);
	}
	bufs[1 + PIECES] = (struct libvhost_buf){.gpa = bufs[0].gpa + 32, .len = 1};
	q->busy = 1;
	return libvhost_vq_add(vq, bufs, 1, PIECES + 1, r);
}

static int check(uint32_t r)
{
	const struct request *q = &requests[r];
	uint8_t status = host(region_gpa(0) + HEADERS + r * 64)[32];
	uint64_t word;

	if (status) {
		fprintf(stderr, "request for block %llu: status %u\n", (unsigned long long)q->block, status);
		return 1;
	}
	for (uint32_t p = 0; p < PIECES; p++) {
		for (uint32_t i = 0; i < BLOCK; i += 8) {
			memcpy(&word, host(piece_gpa(r, p)) + i, 8);
			if (word == (q->block + p) * BLOCK + i)
				continue;
			fprintf(stderr, "region %u, block %llu: word %u is 0x%llx\n", q->region[p],
				(unsigned long long)(q->block + p), i, (unsigned long long)word);
			return 1;
		}
	}
	return 0;
}

static int take_back(void)
{
	struct libvhost_used used[DEPTH];
	uint32_t n = DEPTH;

	if (libvhost_vq_get_used(vq, used, &n))
		return 1;
	for (uint32_t i = 0; i < n; i++) {
		uint32_t r = (uint32_t)used[i].token;

		if (check(r))
			return 1;
		for (uint32_t p = 0; p < PIECES; p++)
			atomic_fetch_sub(&users[requests[r].region[p]], 1);
		requests[r].busy = 0;
		atomic_fetch_add(&completed, 1);
	}
	if (!n)
		sched_yield();
	return 0;
}

static void *io_thread(void *arg)
{
	uint64_t count = 0;
	int busy;

	do {
		busy = 0;
		for (uint32_t r = 0; r < DEPTH; r++) {
			if (!requests[r].busy && !stop && submit(r, ++count))
				broken = 1;
			busy |= requests[r].busy;
		}
		if (libvhost_vq_kick(vq) < 0 || take_back())
			broken = 1;
	} while (!broken && (busy || !stop));
	return arg;
}

static int commit(const char *what, uint32_t region)
{
	uint32_t lost = 0;
	int rc = libvhost_mem_commit(mem, 10000, &lost);

	if (rc < 0 || lost) {
		fprintf(stderr, "%s region %u: %d, %u devices lost\n", what, region, rc, lost);
		return fail(what, rc);
	}
	return 0;
}

/* Takes a region away from the running device and gives it back with new memory: two changes. */
static int replace(uint32_t region)
{
	atomic_fetch_or(&users[region], GONE);
	while (users[region] != GONE && !broken)
		sched_yield();
	if (libvhost_mem_begin(mem) || libvhost_mem_remove(mem, region_gpa(region), REGION_BYTES) ||
	    commit("remove", region) || libvhost_mem_begin(mem) ||
	    libvhost_mem_alloc(mem, region_gpa(region), REGION_BYTES) || commit("add", region))
		return fail("replace", 0);
	atomic_fetch_and(&users[region], ~GONE);
	return 0;
}

int main(int argc, char **argv)
{
	struct libvhost_dev_info info = {.size = sizeof(info)};
	uint32_t changes = argc == 5 ? (uint32_t)atoi(argv[4]) : 0;
	pthread_t io;
	int rc;

	if (argc != 5 || libvhost_ctx_new(NULL, &ctx) < 0 || libvhost_mem_new(ctx, NULL, &mem) < 0)
		return 2;
	regions = (uint32_t)atoi(argv[3]);
	if (regions < 2 || regions > LIBVHOST_MAX_REGIONS || write_image(argv[2]) || make_memory() || start(argv[1]) ||
	    pthread_create(&io, NULL, io_thread, NULL))
		return 1;
	mark("changes");
	rc = 0;
	for (uint32_t i = 0; !rc && !broken && i < changes / 2; i++)
		rc = replace(1 + i % (regions - 1));
	mark("end");
	stop = 1;
	pthread_join(io, NULL);
	libvhost_dev_info(dev, &info);
	if (!rc && !broken && info.state == LIBVHOST_DEV_RUNNING)
		printf("%u regions of at most %u, %u changes, %llu requests\n", regions, info.max_regions,
		       changes / 2 * 2, (unsigned long long)completed);
	else
		rc = 1;
	libvhost_vq_free(vq);
	libvhost_dev_cleanup(dev);
	libvhost_mem_free(mem);
	libvhost_ctx_free(ctx);
	return rc || broken;
}
