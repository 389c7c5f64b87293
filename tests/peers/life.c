/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/*
 * The life of a device with many queues, for counting from outside: each phase is announced by access("mark:NAME"),
 * which a tracer sees and which changes nothing. Usage: life URI QUEUES [DEVICES]
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <vhost/libvhost.h>

#define RING	  128u
#define STRIDE	  0x4000u
#define BASE	  0x100000ull
#define VERSION_1 (1ull << 32)

static struct libvhost_ctx *ctx;

static void mark(const char *phase)
{
	char name[64];

	snprintf(name, sizeof(name), "mark:%s", phase);
	if (!access(name, F_OK))
		abort();
}

static int fail(struct libvhost_dev *dev, const char *what, int rc)
{
	struct libvhost_error e = {.size = sizeof(e)};

	if (dev)
		libvhost_dev_error(dev, &e);
	else
		libvhost_ctx_error(ctx, &e);
	fprintf(stderr, "%s: %d [%s] %s\n", what, rc, libvhost_error_kind_name(e.kind), e.text);
	return 1;
}

static int set_up(const char *uri, uint32_t queues, struct libvhost_mem *mem, struct libvhost_dev **dev)
{
	const struct libvhost_dev_opts opts = {
		.size = sizeof(opts), .virtio_id = 2, .num_queues = queues, .uri = uri, .mem = mem};
	const uint64_t features = VERSION_1;
	struct libvhost_queue q = {.size = sizeof(q), .num = RING};
	int rc = libvhost_dev_init(ctx, &opts, dev);

	if (rc < 0)
		return fail(NULL, "init", rc);
	rc = libvhost_ack_features_ex(*dev, &features, 1);
	for (uint32_t i = 0; !rc && i < queues; i++) {
		q.desc = BASE + (uint64_t)i * STRIDE;
		q.avail = q.desc + 0x1000;
		q.used = q.desc + 0x2000;
		rc = libvhost_dev_set_queue(*dev, i, &q);
	}
	return rc < 0 ? fail(*dev, "queue", rc) : 0;
}

static int one_device(const char *uri, uint32_t queues, struct libvhost_mem *mem)
{
	struct libvhost_dev *dev = NULL;
	int rc;

	mark("init");
	if (set_up(uri, queues, mem, &dev))
		return 1;
	mark("start");
	rc = libvhost_dev_start(dev, NULL);
	mark("stop");
	if (!rc)
		rc = libvhost_dev_stop(dev, NULL);
	mark("restart");
	if (!rc)
		rc = libvhost_dev_start(dev, NULL);
	mark("reconnect");
	if (!rc)
		rc = libvhost_dev_reconnect(dev, NULL);
	mark("cleanup");
	if (rc < 0)
		fail(dev, "life", rc);
	libvhost_dev_cleanup(dev);
	mark("end");
	return rc < 0;
}

/* All at once, each at its own socket URI.0, URI.1, … */
static int many_devices(const char *uri, uint32_t queues, uint32_t count, struct libvhost_mem *mem)
{
	struct libvhost_dev **dev = calloc(count, sizeof(struct libvhost_dev *));
	char name[256];
	int rc = 0;

	if (!dev)
		return 1;
	for (uint32_t i = 0; !rc && i < count; i++) {
		snprintf(name, sizeof(name), "%s.%u", uri, i);
		rc = set_up(name, queues, mem, &dev[i]);
		if (!rc) {
			rc = libvhost_dev_start(dev[i], NULL);
			if (rc < 0)
				rc = fail(dev[i], "start", rc);
		}
	}
	if (!rc)
		printf("%u devices of %u queues run\n", count, queues);
	for (uint32_t i = 0; i < count; i++)
		libvhost_dev_cleanup(dev[i]);
	free(dev);
	return rc;
}

int main(int argc, char **argv)
{
	uint32_t queues = argc > 2 ? (uint32_t)atoi(argv[2]) : 1, devices = argc > 3 ? (uint32_t)atoi(argv[3]) : 0;
	struct libvhost_mem *mem = NULL;
	int rc;

	if (argc < 3 || libvhost_ctx_new(NULL, &ctx) < 0 || libvhost_mem_new(ctx, NULL, &mem) < 0)
		return 2;
	rc = libvhost_mem_begin(mem);
	if (!rc)
		rc = libvhost_mem_alloc(mem, BASE, (uint64_t)queues * STRIDE);
	if (!rc)
		rc = libvhost_mem_commit(mem, 0, NULL);
	if (rc < 0)
		return 2;
	rc = devices ? many_devices(argv[1], queues, devices, mem) : one_device(argv[1], queues, mem);
	libvhost_mem_free(mem);
	libvhost_ctx_free(ctx);
	return rc;
}
