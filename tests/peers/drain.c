/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/*
 * Stops a block device that takes its time while it works on 8 reads. Usage: drain waits|late|lost URI
 *
 * waits: the driver polls; the stop ends with the last request, and what was written until then is in the dirty log.
 * late: the same with a stop of 50 ms, which says that requests are open, and another one.
 * lost: the driver wants interrupts. Says on standard output whether the peer completed them.
 */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <vhost/libvhost.h>

#define RAM	 0x100000ull
#define RING	 64u
#define REQUESTS 8u
#define PAGE	 4096u
#define HEADS	 0x10000ull /* of request i at HEADS + 64 * i, its status byte behind it */
#define DATA	 0x80000ull
#define MODERN	 (1ull << 32)
#define PATIENT	 60000u

static struct libvhost_ctx *ctx;
static struct libvhost_mem *mem;
static struct libvhost_dev *dev;
static struct libvhost_vq *vq;
static struct pollfd kick = {.events = POLLIN};

static int fail(const char *what, int rc)
{
	struct libvhost_error e = {.size = sizeof(e)};

	if (dev)
		libvhost_dev_error(dev, &e);
	fprintf(stderr, "drain: %s: %d %s\n", what, rc, e.text);
	return 1;
}

static unsigned now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (unsigned)(t.tv_sec * 1000 + t.tv_nsec / 1000000);
}

static int set_up(const char *uri)
{
	const struct libvhost_dev_opts o = {
		.size = sizeof(o), .virtio_id = 2, .num_queues = 1, .timeout_ms = PATIENT, .uri = uri, .mem = mem};
	struct libvhost_queue q = {.size = sizeof(q), .num = RING, .desc = 0, .avail = 0x1000, .used = 0x2000};
	struct libvhost_vq_opts v = {.size = sizeof(v),
				     .num = RING,
				     .flags = LIBVHOST_VQ_HAS_KICK | LIBVHOST_VQ_HAS_CALL,
				     .features = MODERN,
				     .avail = 0x1000,
				     .used = 0x2000};
	const uint64_t features = MODERN;
	int rc = libvhost_dev_init(ctx, &o, &dev);

	if (!rc)
		rc = libvhost_ack_features_ex(dev, &features, 1);
	if (!rc)
		rc = libvhost_dev_set_queue(dev, 0, &q);
	if (!rc)
		rc = libvhost_mem_log_start(mem, 0, NULL);
	if (!rc)
		rc = libvhost_dev_start(dev, NULL);
	if (!rc)
		rc = libvhost_dev_get_queue(dev, 0, &q);
	v.kick_fd = kick.fd = q.kick_fd;
	v.call_fd = q.call_fd;
	return rc ? rc : libvhost_vq_new(ctx, mem, &v, &vq);
}

/* A page each; the device has read the kick and had a moment to take them. */
static int offer(int interrupts)
{
	uint8_t *ram;
	int rc = libvhost_mem_translate(mem, 0, RAM, (void **)&ram, NULL);

	if (!rc && !interrupts)
		rc = libvhost_vq_notify_enable(vq, 0);
	for (uint32_t i = 0; i < REQUESTS && rc >= 0; i++) {
		const uint64_t head = HEADS + 64 * i;
		const struct libvhost_buf b[3] = {
			{.gpa = head, .len = 16}, {.gpa = DATA + PAGE * i, .len = PAGE}, {.gpa = head + 16, .len = 1}};

		memset(ram + head, 0, 64); /* a read of sector 0 */
		rc = libvhost_vq_add(vq, b, 1, 2, i + 1);
	}
	if (rc >= 0)
		rc = libvhost_vq_kick(vq);
	for (int i = 0; i < 6000 && rc >= 0 && poll(&kick, 1, 0) == 1; i++)
		usleep(10000);
	usleep(60000);
	return rc < 0 ? rc : 0;
}

static uint32_t completed(void)
{
	struct libvhost_used used[REQUESTS];
	uint32_t n = REQUESTS;

	return libvhost_vq_get_used(vq, used, &n) ? 0 : n;
}

/* All pages of the requests are in the log, which nobody read before. */
static int logged(void)
{
	uint64_t bitmap[RAM / PAGE / 64] = {0}, n = 0;
	int rc = libvhost_mem_log_sync(mem, 0, RAM, bitmap, &n);

	for (uint32_t i = 0; i < REQUESTS && !rc; i++) {
		const uint64_t page = DATA / PAGE + i;

		rc = bitmap[page / 64] >> page % 64 & 1 ? 0 : -ENODATA;
	}
	return rc;
}

static int stop(uint32_t timeout_ms)
{
	const struct libvhost_call_opts o = {.size = sizeof(o), .timeout_ms = timeout_ms};

	return libvhost_dev_stop(dev, &o);
}

static int all_done(int rc)
{
	uint32_t n;

	if (rc)
		return fail("stop", rc);
	n = completed();
	if (n != REQUESTS)
		return fail("requests completed at the end of the stop", (int)n);
	rc = logged();
	return rc ? fail("the dirty log at the end of the stop", rc) : 0;
}

static int run(const char *how)
{
	const unsigned began = now_ms();
	int rc;

	if (!strcmp(how, "waits")) {
		rc = all_done(stop(PATIENT));
		printf("stopped after %u ms\n", now_ms() - began);
		return rc;
	}
	if (!strcmp(how, "late")) {
		rc = stop(50);
		if (rc != -EAGAIN)
			return fail("a stop of 50 ms", rc);
		fail("a stop of 50 ms", rc);
		return all_done(stop(PATIENT));
	}
	rc = stop(1000);
	printf("stop %d, %u of %u requests completed\n", rc, completed(), REQUESTS);
	return rc && rc != -EAGAIN ? fail("stop", rc) : 0;
}

int main(int argc, char **argv)
{
	int rc;

	if (argc != 3 || libvhost_ctx_new(NULL, &ctx) || libvhost_mem_new(ctx, NULL, &mem) || libvhost_mem_begin(mem) ||
	    libvhost_mem_alloc(mem, 0, RAM) || libvhost_mem_commit(mem, 0, NULL))
		return 2;
	rc = set_up(argv[2]);
	if (!rc)
		rc = offer(!strcmp(argv[1], "lost"));
	rc = rc ? fail("set up", rc) : run(argv[1]);
	libvhost_vq_free(vq);
	libvhost_dev_cleanup(dev);
	libvhost_mem_free(mem);
	libvhost_ctx_free(ctx);
	return rc;
}
