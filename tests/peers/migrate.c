/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/*
 * The memory half of a migration, under load: a scanner thread copies dirty pages to a second memory while a back-end
 * writes, the device is stopped, and what is left is copied. Then both must be equal, page by page, wherever the peer
 * writes: data and used rings. The log comes and goes while rings run, while they rest, and without anybody looking.
 * A page that is reported must be one that the device was given to write since the log began.
 *
 * Usage: migrate URI BLOCKS REQUESTS   a vhost-user-blk device of so many 4 KiB blocks whose contents differ
 *        migrate inproc WRITES         our own back-end in this process; then how long a scan takes by queues
 */
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <vhost/libvhost.h>

#include "results.h"

#define PAGE	4096ull
#define QUEUES	2u
#define NUM	64u
#define PIECES	8u /* inproc: writable buffers of a request */
#define ENTRIES 512u
#define RING(q) (0x100000ull + (q)*0x10000ull)
#define USED	0x4000ull   /* in a ring; the device writes two pages */
#define HEADER	0x200000ull /* a page per slot and queue */
#define DATA	0x800000ull
#define PAGES	1024u
#define RAM	(DATA + PAGES * PAGE)
#define BITS	(1ull << 32 | 1ull << 29)

static struct libvhost_ctx *ctx;
static struct libvhost_mem *mem;
static struct libvhost_dev *dev;
static struct libvhost_vq *vq[QUEUES];
static uint8_t *ram, *copy;
static uint64_t written, synced;
static uint32_t state = 1;
static struct slot {
	bool busy;
	struct libvhost_buf b[PIECES]; /* the first ones are read by the device */
	uint32_t reads, writes;
} slots[QUEUES][NUM];
static atomic_bool writable[RAM / PAGE]; /* since the log began */

static void result(int good, const char *what)
{
	result_of(good, what, dev, mem);
}

static uint32_t next_random(void)
{
	state = state * 1664525 + 1013904223;
	return state >> 8;
}

static uint64_t now_us(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000 + (uint64_t)ts.tv_nsec / 1000;
}

/* ---- the load ---- */

static void allow(const struct slot *s)
{
	for (uint32_t i = s->reads; i < s->reads + s->writes; i++)
		atomic_store(&writable[s->b[i].gpa / PAGE], true);
}

/* The log begins: used rings and what is under way. */
static void allow_only_current(void)
{
	for (uint64_t page = 0; page < RAM / PAGE; page++)
		atomic_store(&writable[page], false);
	for (uint32_t q = 0; q < QUEUES; q++) {
		for (uint64_t at = 0; at < 2 * PAGE; at += PAGE)
			atomic_store(&writable[(RING(q) + USED + at) / PAGE], true);
		for (uint32_t i = 0; i < NUM; i++)
			if (slots[q][i].busy)
				allow(&slots[q][i]);
	}
}

/* A read of one block into a page of data, with its header and status in a page of its own. */
static void fill_block(struct slot *s, uint64_t header, uint64_t blocks)
{
	const uint64_t sector = next_random() % blocks * 8;

	s->b[0] = (struct libvhost_buf){.gpa = header, .len = 16};
	s->b[1] = (struct libvhost_buf){.gpa = DATA + next_random() % PAGES * PAGE, .len = PAGE};
	s->b[2] = (struct libvhost_buf){.gpa = header + 2048, .len = 1};
	s->reads = 1;
	s->writes = 2;
	memset(ram + header, 0, 16);
	memcpy(ram + header + 8, &sector, 8);
}

/* A queue has pages of its own, and they are shared words of the log. */
static void fill_pieces(struct slot *s, uint32_t q)
{
	for (uint32_t i = 0; i < PIECES; i++)
		s->b[i] = (struct libvhost_buf){.gpa = DATA + (next_random() % (PAGES / QUEUES) * QUEUES + q) * PAGE +
						       next_random() % 500 * 8,
						.len = 8};
	s->writes = PIECES;
}

static bool add(uint32_t q, uint32_t n, uint64_t blocks)
{
	struct slot *s = &slots[q][n];

	if (blocks)
		fill_block(s, HEADER + (q * NUM + n) * PAGE, blocks);
	else
		fill_pieces(s, q);
	allow(s);
	return libvhost_vq_add(vq[q], s->b, s->reads, s->writes, n) == 0;
}

/* Keeps both rings full until so many requests are done; blocks 0 = inproc. */
static int load(uint64_t blocks, uint64_t requests)
{
	uint64_t done = 0, quiet = now_us();

	while (done < requests) {
		for (uint32_t q = 0; q < QUEUES; q++) {
			struct libvhost_used used[NUM];
			uint32_t n = NUM;

			for (uint32_t s = 0; s < NUM; s++)
				if (!slots[q][s].busy)
					slots[q][s].busy = add(q, s, blocks);
			if (libvhost_vq_kick(vq[q]) < 0 || libvhost_vq_get_used(vq[q], used, &n) < 0)
				return 0;
			for (uint32_t i = 0; i < n; i++)
				slots[q][used[i].token].busy = false;
			done += n;
			written += n * (blocks ? 2u : PIECES);
			quiet = n ? now_us() : quiet;
		}
		if (now_us() - quiet > 10000000)
			return 0;
	}
	return 1; /* with rings full of requests */
}

/* ---- the scanner ---- */

static atomic_int scanning;

static bool only_writable(const struct libvhost_dirty_range *r)
{
	for (uint64_t at = r->gpa; at < r->gpa + r->size && at < RAM; at += PAGE)
		if (!atomic_load(&writable[at / PAGE])) {
			printf("# the page at %#llx is reported, which nobody had to write\n", (unsigned long long)at);
			return false;
		}
	return true;
}

static int copy_dirty(void)
{
	static struct libvhost_dirty_range r[256];
	uint64_t cursor = 0;
	uint32_t n;

	do {
		n = 256;
		if (libvhost_mem_log_ranges(mem, &cursor, r, &n) < 0)
			return 0;
		for (uint32_t i = 0; i < n && r[i].gpa < RAM; i++) {
			if (!only_writable(&r[i]))
				return 0;
			memcpy(copy + r[i].gpa, ram + r[i].gpa, r[i].size);
			synced += r[i].size / PAGE;
		}
	} while (n);
	return 1;
}

static void *scan(void *arg)
{
	while (atomic_load(&scanning))
		if (!copy_dirty())
			return arg;
	return NULL;
}

static int equal(uint64_t gpa, uint64_t size)
{
	for (uint64_t at = gpa; at < gpa + size; at += PAGE) {
		const uint64_t n = gpa + size - at;

		if (memcmp(copy + at, ram + at, n < PAGE ? n : PAGE)) {
			printf("# the page at %#llx differs: a write was missed\n", (unsigned long long)at);
			return 0;
		}
	}
	return 1;
}

/* The event index behind the used elements is not logged by libvhost-user: the next device writes it anew. */
static int same_memory(int whole_ring)
{
	int same = equal(DATA, PAGES * PAGE);

	for (uint32_t q = 0; q < QUEUES; q++)
		same = same && equal(RING(q) + USED, 4 + 8 * ENTRIES + (whole_ring ? 2 : 0));
	return same;
}

static uint32_t logging(void)
{
	struct libvhost_dev_info i = {.size = sizeof(i)};

	return libvhost_dev_info(dev, &i) ? 99 : i.logging;
}

/* One migration: while = the log begins under load, else while the device rests. */
static int migrate(uint64_t blocks, uint64_t requests, int running)
{
	uint32_t lost = 9;
	pthread_t t;
	void *bad = NULL;
	int ok = 1;

	if (!running)
		ok = ok && libvhost_dev_stop(dev, NULL) == 0;
	allow_only_current();
	ok = ok && libvhost_mem_log_start(mem, 5000, &lost) == 0 && !lost;
	memcpy(copy, ram, RAM);
	if (!running)
		ok = ok && libvhost_dev_start(dev, NULL) == 0;
	ok = ok && logging() == 1;
	atomic_store(&scanning, 1);
	if (!ok || pthread_create(&t, NULL, scan, copy))
		return 0;
	ok = load(blocks, requests);
	ok = ok && libvhost_dev_stop(dev, NULL) == 0; /* the guest rests: what is dirty now is the last */
	atomic_store(&scanning, 0);
	pthread_join(t, &bad);
	ok = ok && !bad && copy_dirty() && same_memory(!blocks);
	/* one time the log ends while the device rests, the other time while it runs */
	if (running)
		ok = ok && libvhost_mem_log_stop(mem, 5000, &lost) == 0 && !lost;
	ok = ok && libvhost_dev_start(dev, NULL) == 0 && load(blocks, 100);
	if (!running)
		ok = ok && libvhost_mem_log_stop(mem, 5000, &lost) == 0 && !lost;
	return ok && logging() == 0 && load(blocks, 1000);
}

/* ---- the device ---- */

static int set_up(const char *uri, struct libvhost_transport *t, uint32_t virtio_id)
{
	const struct libvhost_dev_opts o = {.size = sizeof(o),
					    .virtio_id = virtio_id,
					    .num_queues = QUEUES,
					    .uri = uri,
					    .transport = t,
					    .mem = mem};
	uint64_t features = BITS;

	if (libvhost_dev_init(ctx, &o, &dev) || libvhost_get_features_ex(dev, &features, 1) ||
	    libvhost_ack_features_ex(dev, &features, 1))
		return 0;
	for (uint32_t q = 0; q < QUEUES; q++) {
		struct libvhost_queue s = {.size = sizeof(s),
					   .num = ENTRIES,
					   .desc = RING(q),
					   .avail = RING(q) + 0x3000,
					   .used = RING(q) + USED};
		struct libvhost_vq_opts v = {
			.size = sizeof(v), .flags = LIBVHOST_VQ_HAS_KICK, .num = ENTRIES, .index = q};

		if (libvhost_dev_set_queue(dev, q, &s) || libvhost_dev_get_queue(dev, q, &s))
			return 0;
		v.kick_fd = s.kick_fd;
		v.features = features;
		v.desc = s.desc;
		v.avail = s.avail;
		v.used = s.used;
		if (libvhost_vq_new(ctx, mem, &v, &vq[q]))
			return 0;
		libvhost_vq_notify_enable(vq[q], 0);
	}
	return libvhost_dev_start(dev, NULL) == 0;
}

static void tear_down(void)
{
	for (uint32_t q = 0; q < QUEUES; q++)
		libvhost_vq_free(vq[q]);
	libvhost_dev_cleanup(dev);
	dev = NULL;
}

/* Four migrations; the first ones with a tenth of the requests each. */
static void migrations(uint64_t blocks, uint64_t requests)
{
	char text[128];
	uint64_t from;

	result(load(blocks, 1000), "requests run");
	result(migrate(blocks, requests / 10, 1),
	       "the log comes and goes while rings run: no write is missed, no page too many");
	result(migrate(blocks, requests / 10, 0), "it comes while they rest, and goes while they run");
	result(migrate(blocks, requests / 10, 1), "once more");
	from = written;
	synced = 0;
	if (migrate(blocks, requests, 1))
		snprintf(text, sizeof(text),
			 "%llu writes of the peer, %llu pages copied, none missed and none too many",
			 (unsigned long long)(written - from), (unsigned long long)synced);
	else
		snprintf(text, sizeof(text), "the long migration");
	result(strstr(text, "none") != NULL, text);
}

/* ---- our own back-end ---- */

/* Each buffer gets a number that no other write has. */
static int fill(void *arg, uint32_t queue, struct libvhost_vq *ring)
{
	static uint64_t count[QUEUES];
	struct libvhost_iov iov[PIECES];
	struct libvhost_chain c = {.size = sizeof(c), .iov = iov, .iov_cap = PIECES};
	int rc = 0;

	(void)arg;
	for (int i = 0; i < 64 && (rc = libvhost_vq_pop(ring, &c)) > 0; i++) {
		for (uint32_t n = 0; n < c.n_write; n++) {
			count[queue]++;
			memcpy(iov[n].base, &count[queue], 8);
		}
		rc = libvhost_vq_push(ring, c.head, c.write_len) < 0 ? -EIO : 1;
	}
	return rc;
}

static struct libvhost_backend *backend(uint32_t queues)
{
	static const struct libvhost_backend_ops ops = {.size = sizeof(ops), .serve = fill};
	const struct libvhost_backend_opts o = {
		.size = sizeof(o), .num_queues = queues, .features = BITS, .ops = &ops, .num_workers = QUEUES};
	struct libvhost_backend *b = NULL;

	return libvhost_backend_new(ctx, &o, &b) ? NULL : b;
}

static int compare(const void *a, const void *b)
{
	const uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

/* Median time of a scan of 64 GiB with so many queues that log, none of which writes. */
static uint64_t scan_time(struct libvhost_mem *m, uint32_t queues)
{
	struct libvhost_dev_opts o = {.size = sizeof(o), .num_queues = queues, .mem = m};
	struct libvhost_backend *b = backend(queues);
	uint64_t features = BITS, us[31];
	struct libvhost_dev *d = NULL;
	int ok = b && !libvhost_backend_inproc(b, &o.transport) && !libvhost_dev_init(ctx, &o, &d) &&
		 !libvhost_ack_features_ex(d, &features, 1);

	for (uint32_t q = 0; ok && q < queues; q++) {
		const uint64_t at = q * 0x3000ull;
		const struct libvhost_queue s = {
			.size = sizeof(s), .num = 16, .desc = at, .avail = at + 0x1000, .used = at + 0x2000};

		ok = !libvhost_dev_set_queue(d, q, &s);
	}
	ok = ok && !libvhost_dev_start(d, NULL) && !libvhost_mem_log_start(m, 5000, NULL);
	for (unsigned i = 0; ok && i < 31; i++) {
		struct libvhost_dirty_range r[64];
		uint64_t cursor = 0, from = now_us();
		uint32_t n = 64;

		ok = !libvhost_mem_log_ranges(m, &cursor, r, &n);
		us[i] = now_us() - from;
	}
	if (ok)
		libvhost_mem_log_stop(m, 5000, NULL);
	libvhost_dev_cleanup(d);
	libvhost_backend_free(b);
	if (!ok)
		return 0;
	qsort(us, 31, sizeof(*us), compare);
	return us[15];
}

static void scans(void)
{
	struct libvhost_mem *m = NULL;
	uint64_t one, many;
	char text[128];

	if (libvhost_mem_new(ctx, NULL, &m) || libvhost_mem_begin(m) || libvhost_mem_alloc(m, 0, 64ull << 30) ||
	    libvhost_mem_commit(m, 0, NULL)) {
		result(0, "64 GiB of memory that nobody touches");
		return;
	}
	one = scan_time(m, 1);
	many = scan_time(m, 128);
	snprintf(text, sizeof(text), "64 GiB scanned in %llu us with 1 queue, in %llu us with 128",
		 (unsigned long long)one, (unsigned long long)many);
	result(one && many && many < 3 * one + 200, text);
	libvhost_mem_free(m);
}

int main(int argc, char **argv)
{
	const int own = argc == 3 && !strcmp(argv[1], "inproc");
	struct libvhost_transport *t = NULL;
	struct libvhost_backend *b = NULL;
	void *at = NULL;

	if ((argc != 4 && !own) || libvhost_ctx_new(NULL, &ctx) || libvhost_mem_new(ctx, NULL, &mem) ||
	    libvhost_mem_begin(mem) || libvhost_mem_alloc(mem, 0, RAM) || libvhost_mem_commit(mem, 0, NULL) ||
	    libvhost_mem_translate(mem, 0, RAM, &at, NULL))
		return 2;
	ram = at;
	copy = calloc(1, RAM);
	if (own) {
		b = backend(QUEUES);
		if (!b || libvhost_backend_inproc(b, &t))
			return 2;
	}
	result(copy && set_up(own ? NULL : argv[1], t, own ? 0 : 2), "a device runs");
	if (!failed)
		migrations(own ? 0 : strtoull(argv[2], NULL, 0),
			   own ? strtoull(argv[2], NULL, 0) / PIECES : strtoull(argv[3], NULL, 0));
	tear_down();
	libvhost_backend_free(b);
	if (own)
		scans();
	free(copy);
	libvhost_mem_free(mem);
	libvhost_ctx_free(ctx);
	return results_end();
}
