/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/*
 * The dirty log at a real back-end. Requests make it write pages that are chosen at random while logging is switched on
 * and off under it; every page that it wrote while it was told to log must be reported, and none that it did not write.
 *
 * Usage: log URI blk|net ROUNDS     blk: reads; net: frames, which the back-end sends back
 */
#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <vhost/libvhost.h>

#define PAGE	    4096u
#define BATCH	    16u
#define NUM	    64u
#define BASE	    0x40000000ull
#define RINGS	    0x100000u /* from here on: pages that the back-end writes */
#define PAGES	    16384u
#define GUEST_BYTES (RINGS + (uint64_t)PAGES * PAGE)
#define RING_STEP   0x10000u
#define HEADERS	    0x80000u /* 64 bytes a slot, the status at 32 */
#define FRAME	    64u
#define NET_HEADER  12u
#define WAIT_MS	    60000u
#define VERSION_1   (1ull << 32)

static struct libvhost_ctx *ctx;
static struct libvhost_mem *mem;
static struct libvhost_dev *dev;
static struct libvhost_vq *vq[2];
static uint8_t *guest;
static int net;
static uint32_t pages[BATCH]; /* where slot n lets the back-end write */
static uint8_t maybe[PAGES], written[PAGES];
static uint64_t bitmap[GUEST_BYTES / PAGE / 64 + 1], rng = 1, log_reports;

static int fail(const char *what, int rc)
{
	struct libvhost_error e = {.size = sizeof(e)};

	if (dev)
		libvhost_dev_error(dev, &e);
	if (!e.text[0])
		libvhost_mem_error(mem, &e);
	fprintf(stderr, "%s: %d %s\n", what, rc, e.text);
	return 1;
}

static uint32_t random_page(void)
{
	rng = rng * 6364136223846793005u + 1442695040888963407u;
	return (uint32_t)(rng >> 33) % PAGES;
}

static uint64_t page_gpa(uint32_t page)
{
	return BASE + RINGS + (uint64_t)page * PAGE;
}

static int make_memory(void)
{
	void *hva;
	int rc = libvhost_mem_begin(mem);

	if (!rc)
		rc = libvhost_mem_alloc(mem, BASE, GUEST_BYTES);
	if (!rc)
		rc = libvhost_mem_commit(mem, 0, NULL);
	if (!rc)
		rc = libvhost_mem_translate(mem, BASE, GUEST_BYTES, &hva, NULL);
	if (rc < 0)
		return fail("memory", rc);
	guest = hva;
	return 0;
}

static int make_queue(uint32_t index)
{
	struct libvhost_queue q = {.size = sizeof(q), .num = NUM, .desc = BASE + index * RING_STEP};
	struct libvhost_vq_opts v = {
		.size = sizeof(v), .flags = LIBVHOST_VQ_HAS_KICK | LIBVHOST_VQ_HAS_CALL, .num = NUM};
	int rc;

	v.index = index;
	v.features = VERSION_1;
	v.desc = q.desc;
	v.avail = q.avail = q.desc + 0x1000;
	v.used = q.used = q.desc + 0x2000;
	rc = libvhost_dev_set_queue(dev, index, &q);
	if (!rc)
		rc = libvhost_dev_get_queue(dev, index, &q);
	v.kick_fd = q.kick_fd;
	v.call_fd = q.call_fd;
	if (!rc)
		rc = libvhost_vq_new(ctx, mem, &v, &vq[index]);
	if (!rc)
		libvhost_vq_notify_enable(vq[index], 0);
	return rc;
}

static int start(const char *uri)
{
	struct libvhost_dev_opts o = {.size = sizeof(o), .timeout_ms = WAIT_MS};
	const uint64_t features = VERSION_1;
	int rc;

	o.uri = uri;
	o.mem = mem;
	o.virtio_id = net ? 1 : 2;
	o.num_queues = net ? 2 : 1;
	rc = libvhost_dev_init(ctx, &o, &dev);
	if (!rc)
		rc = libvhost_ack_features_ex(dev, &features, 1);
	for (uint32_t i = 0; !rc && i < o.num_queues; i++)
		rc = make_queue(i);
	if (!rc)
		rc = libvhost_dev_start(dev, NULL);
	return rc < 0 ? fail("start", rc) : 0;
}

/* A block read of one page. */
static int submit_read(uint32_t slot)
{
	const uint64_t header = BASE + HEADERS + slot * 64;
	const struct libvhost_buf bufs[] = {{.gpa = header, .len = 16},
					    {.gpa = page_gpa(pages[slot]), .len = PAGE},
					    {.gpa = header + 32, .len = 1}};

	memset(guest + HEADERS + slot * 64, 0, 64);
	guest[HEADERS + slot * 64 + 32] = 0xff;
	return libvhost_vq_add(vq[0], bufs, 1, 2, slot);
}

/* A frame, and a buffer for a frame that comes back. */
static int submit_frame(uint32_t slot)
{
	const struct libvhost_buf in = {.gpa = page_gpa(pages[slot]), .len = PAGE};
	const struct libvhost_buf out = {.gpa = BASE + HEADERS + slot * 128, .len = NET_HEADER + FRAME};
	uint8_t *frame = guest + HEADERS + slot * 128;
	int rc;

	memset(frame, 0, NET_HEADER + FRAME);
	frame[NET_HEADER + 12] = 0x88;
	frame[NET_HEADER + 13] = 0xb5;
	rc = libvhost_vq_add(vq[0], &in, 0, 1, slot);
	return rc ? rc : libvhost_vq_add(vq[1], &out, 1, 0, slot);
}

static int submit_batch(void)
{
	int rc = 0;

	for (uint32_t slot = 0; !rc && slot < BATCH; slot++) {
		pages[slot] = random_page();
		rc = net ? submit_frame(slot) : submit_read(slot);
	}
	for (uint32_t i = 0; rc >= 0 && i < (net ? 2 : 1); i++)
		rc = libvhost_vq_kick(vq[i]);
	return rc < 0 ? fail("request", rc) : 0;
}

/* Until each queue has given back a batch; marks what was written in seen. */
static int finish_batch(uint8_t *seen)
{
	struct libvhost_used used[BATCH];
	time_t give_up = time(NULL) + 10;
	uint32_t left[2] = {BATCH, net ? BATCH : 0}, n;

	while (left[0] || left[1]) {
		for (uint32_t i = 0; i < (net ? 2 : 1); i++) {
			n = BATCH;
			if (libvhost_vq_get_used(vq[i], used, &n))
				return fail("ring", -EBADMSG);
			left[i] -= n;
			for (uint32_t k = 0; !i && k < n; k++) {
				if (!net && guest[HEADERS + used[k].token * 64 + 32])
					return fail("status", guest[HEADERS + used[k].token * 64 + 32]);
				seen[pages[used[k].token]] = 1;
			}
		}
		if (time(NULL) > give_up)
			return fail("no answer", -ETIMEDOUT);
		sched_yield();
	}
	return 0;
}

static int batches(uint32_t count, uint8_t *seen)
{
	for (uint32_t i = 0; i < count; i++)
		if (submit_batch() || finish_batch(seen))
			return 1;
	return 0;
}

static int sync_log(void)
{
	uint64_t count = 0;
	int rc = libvhost_mem_log_sync(mem, BASE, GUEST_BYTES, bitmap, &count);

	log_reports += count;
	return rc < 0 ? fail("sync", rc) : 0;
}

static int compare(uint32_t round)
{
	uint32_t missed = 0, wrong = 0, good = 0;

	for (uint32_t page = 0; page < PAGES; page++) {
		uint64_t bit = RINGS / PAGE + page;
		int dirty = bitmap[bit / 64] >> bit % 64 & 1;

		missed += written[page] && !dirty;
		good += written[page] && dirty;
		wrong += dirty && !written[page] && !maybe[page];
	}
	printf("round %u: %u pages written and reported, %u missed, %u reported and not written\n", round, good, missed,
	       wrong);
	return missed || wrong || !good;
}

/* Switches with requests under way: those pages may be reported or not. */
static int switch_log(int on)
{
	uint32_t lost = 0;
	int rc;

	if (submit_batch())
		return 1;
	rc = on ? libvhost_mem_log_start(mem, WAIT_MS, &lost) : libvhost_mem_log_stop(mem, WAIT_MS, &lost);
	if (rc < 0 || lost)
		return fail(on ? "log start" : "log stop", rc);
	return finish_batch(maybe);
}

static int one_round(uint32_t round)
{
	memset(written, 0, sizeof(written));
	memset(maybe, 0, sizeof(maybe));
	memset(bitmap, 0, sizeof(bitmap));
	if (batches(10, maybe)) /* not logged, must not be reported unless written again */
		return 1;
	memset(maybe, 0, sizeof(maybe));
	if (switch_log(1))
		return 1;
	for (int i = 0; i < 40; i++)
		if (batches(5, written) || sync_log())
			return 1;
	if (compare(round) || switch_log(0))
		return 1;
	return libvhost_mem_log_sync(mem, BASE, GUEST_BYTES, bitmap, NULL) != -EINVAL;
}

int main(int argc, char **argv)
{
	uint32_t rounds = argc == 4 ? (uint32_t)atoi(argv[3]) : 0;
	int rc = 0;

	if (argc != 4 || libvhost_ctx_new(NULL, &ctx) < 0 || libvhost_mem_new(ctx, NULL, &mem) < 0)
		return 2;
	net = !strcmp(argv[2], "net");
	if (make_memory() || start(argv[1]))
		return 1;
	for (uint32_t round = 1; !rc && round <= rounds; round++)
		rc = one_round(round);
	if (!rc)
		printf("%llu dirty pages reported in all\n", (unsigned long long)log_reports);
	for (uint32_t i = 0; i < 2; i++)
		libvhost_vq_free(vq[i]);
	libvhost_dev_cleanup(dev);
	libvhost_mem_free(mem);
	libvhost_ctx_free(ctx);
	return rc;
}
