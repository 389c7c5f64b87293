/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/*
 * A driver of the small devices of vhostctl serve. Usage: gadgets rng URI, or gadgets console URI TEXT, which writes
 * TEXT to the console and prints the line that it reads from it.
 */
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <vhost/libvhost.h>

#define RAM	0x100000ull
#define RING	16u
#define BUFFER	0x80000ull
#define ROOM	0x20000u
#define WAIT_MS 60000
#define MODERN	(1ull << 32)

static struct libvhost_ctx *ctx;
static struct libvhost_mem *mem;
static struct libvhost_dev *dev;
static struct libvhost_vq *vq[2];
static int calls[2];

static int fail(const char *what)
{
	struct libvhost_error e = {.size = sizeof(e)};

	if (dev)
		libvhost_dev_error(dev, &e);
	fprintf(stderr, "gadgets: %s: %s\n", what, e.text);
	return 1;
}

static int open_ring(uint32_t i, uint64_t features)
{
	struct libvhost_queue q = {.size = sizeof(q)};
	struct libvhost_vq_opts o = {
		.size = sizeof(o), .num = RING, .index = i, .flags = LIBVHOST_VQ_HAS_KICK | LIBVHOST_VQ_HAS_CALL};

	if (libvhost_dev_get_queue(dev, i, &q))
		return -1;
	o.features = features;
	o.desc = q.desc;
	o.avail = q.avail;
	o.used = q.used;
	o.kick_fd = q.kick_fd;
	o.call_fd = calls[i] = q.call_fd;
	return libvhost_vq_new(ctx, mem, &o, &vq[i]);
}

static int set_up(const char *uri, uint32_t queues)
{
	const struct libvhost_dev_opts o = {
		.size = sizeof(o), .num_queues = queues, .timeout_ms = WAIT_MS, .uri = uri, .mem = mem};
	const uint64_t features = MODERN;

	if (libvhost_dev_init(ctx, &o, &dev) || libvhost_ack_features_ex(dev, &features, 1))
		return fail("init");
	for (uint32_t i = 0; i < queues; i++) {
		struct libvhost_queue q = {.size = sizeof(q), .num = RING, .desc = i * 0x4000};

		q.avail = q.desc + 0x1000;
		q.used = q.desc + 0x2000;
		if (libvhost_dev_set_queue(dev, i, &q))
			return fail("queue");
	}
	if (libvhost_dev_start(dev, NULL))
		return fail("start");
	for (uint32_t i = 0; i < queues; i++)
		if (open_ring(i, features))
			return fail("ring");
	return 0;
}

/* Hands over buffers and waits for them. The length that the device says, or -1. */
static int64_t exchange(uint32_t queue, const struct libvhost_buf *bufs, uint32_t n_read, uint32_t n_write)
{
	struct pollfd p = {.fd = calls[queue], .events = POLLIN};
	struct libvhost_used used;
	uint64_t word;
	uint32_t n;

	if (libvhost_vq_add(vq[queue], bufs, n_read, n_write, 1) || libvhost_vq_kick(vq[queue]) < 0)
		return -1;
	for (;;) {
		n = 1;
		if (libvhost_vq_get_used(vq[queue], &used, &n))
			return -1;
		if (n)
			return used.len;
		if (poll(&p, 1, WAIT_MS) != 1 || read(p.fd, &word, sizeof(word)) < 0)
			return -1;
	}
}

static int random_numbers(void)
{
	const struct libvhost_buf b[2] = {{.gpa = BUFFER, .len = 4096}, {.gpa = BUFFER + 0x2000, .len = ROOM / 2}};
	static uint8_t before[4096];
	uint32_t count[256] = {0};
	uint8_t *at;

	if (libvhost_mem_translate(mem, BUFFER, ROOM, (void **)&at, NULL))
		return fail("memory");
	if (exchange(0, b, 0, 1) != 4096)
		return fail("a short request");
	memcpy(before, at, sizeof(before));
	memset(at, 0, ROOM);
	if (exchange(0, b, 0, 2) != 65536) /* what it gives at most */
		return fail("a long request");
	for (uint32_t i = 0; i < 61440; i++)
		count[at[0x2000 + i]]++;
	for (uint32_t i = 0; i < 256; i++)
		if (count[i] < 120 || count[i] > 380) /* 240 expected; 7 standard deviations */
			return fail("a distribution");
	for (uint32_t i = 61440; i < ROOM / 2; i++)
		if (at[0x2000 + i])
			return fail("what lies behind");
	return memcmp(before, at, sizeof(before)) ? 0 : fail("the same numbers twice");
}

static int console(const char *text)
{
	const struct libvhost_buf in = {.gpa = BUFFER, .len = 5},
				  out = {.gpa = BUFFER + 0x1000, .len = (uint32_t)strlen(text)};
	char line[256] = "", *at, *to;
	int64_t n;

	if (libvhost_mem_translate(mem, in.gpa, in.len, (void **)&at, NULL) ||
	    libvhost_mem_translate(mem, out.gpa, out.len, (void **)&to, NULL))
		return fail("memory");
	memcpy(to, text, out.len);
	if (exchange(1, &out, 1, 0) < 0)
		return fail("a line to the console");
	while (!strchr(line, '\n') && strlen(line) < sizeof(line) - 8) {
		n = exchange(0, &in, 0, 1);
		if (n <= 0 || n > 5)
			return fail("a line from the console");
		strncat(line, at, (size_t)n);
	}
	return fputs(line, stdout) < 0;
}

int main(int argc, char **argv)
{
	int rc;

	if (argc < 3 || libvhost_ctx_new(NULL, &ctx) || libvhost_mem_new(ctx, NULL, &mem) || libvhost_mem_begin(mem) ||
	    libvhost_mem_alloc(mem, 0, RAM) || libvhost_mem_commit(mem, 0, NULL))
		return 2;
	rc = set_up(argv[2], argc > 3 ? 2 : 1);
	if (rc == 0)
		rc = argc > 3 ? console(argv[3]) : random_numbers();
	for (uint32_t i = 0; i < 2; i++)
		libvhost_vq_free(vq[i]);
	libvhost_dev_cleanup(dev);
	libvhost_mem_free(mem);
	libvhost_ctx_free(ctx);
	return rc;
}
