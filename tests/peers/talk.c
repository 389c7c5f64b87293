/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/*
 * Takes a back-end through everything of the control plane that it offers, with empty rings; says step by step how it
 * went. What the back-end does not offer, or refuses, is no failure; a broken connection or a late answer is.
 *
 * Usage: talk URI VIRTIO-ID QUEUES [once] [fixed]
 *   once   the back-end ends with its first connection: do not reconnect
 *   fixed  it cannot follow a change of memory while it runs: make none
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <vhost/libvhost.h>

#define RING	  128u
#define STRIDE	  0x4000u
#define BASE	  0x100000ull
#define EXTRA	  0x40000000ull
#define BYTES	  (1ull << 20)
#define CONFIG	  60u
#define WCE_AT	  32u /* the one byte of a block device's configuration that a driver writes */
#define BLOCK	  2u
#define WAIT_MS	  60000u
#define VERSION_1 (1ull << 32)

static struct libvhost_ctx *ctx;
static struct libvhost_mem *mem;
static struct libvhost_dev *dev;
static int failed;

static int step(const char *what, int rc)
{
	struct libvhost_error e = {.size = sizeof(e)};

	if (dev)
		libvhost_dev_error(dev, &e);
	else
		libvhost_ctx_error(ctx, &e);
	printf("%-16s %s%s%s\n", what, rc < 0 ? strerror(-rc) : "well", rc < 0 ? ": " : "", rc < 0 ? e.text : "");
	if (rc < 0 && rc != -ENOTSUP && rc != -EIO)
		failed = 1;
	return rc;
}

static void set_up(uint32_t queues)
{
	struct libvhost_queue q = {.size = sizeof(q), .num = RING};
	const uint64_t features = VERSION_1;

	step("features", libvhost_ack_features_ex(dev, &features, 1));
	for (uint32_t i = 0; i < queues; i++) {
		q.desc = BASE + (uint64_t)i * STRIDE;
		q.avail = q.desc + 0x1000;
		q.used = q.desc + 0x2000;
		if (libvhost_dev_set_queue(dev, i, &q) < 0)
			step("queue", libvhost_dev_set_queue(dev, i, &q));
	}
}

static void configuration(uint32_t virtio_id)
{
	uint8_t bytes[CONFIG];

	if (virtio_id != BLOCK || step("get config", libvhost_dev_get_config(dev, 0, bytes, CONFIG, WAIT_MS)) < 0)
		return;
	step("set config", libvhost_dev_set_config(dev, WCE_AT, &bytes[WCE_AT], 1, 0, WAIT_MS));
}

static int commit(const char *what)
{
	uint32_t lost = 0;
	int rc = libvhost_mem_commit(mem, WAIT_MS, &lost);

	return step(what, lost ? -ENOTCONN : rc);
}

static void change_memory(void)
{
	if (!libvhost_mem_begin(mem) && !libvhost_mem_alloc(mem, EXTRA, BYTES))
		commit("add memory");
	if (!libvhost_mem_begin(mem) && !libvhost_mem_remove(mem, EXTRA, BYTES))
		commit("remove memory");
}

static void log_memory(void)
{
	uint64_t bitmap[BYTES / 4096 / 64] = {0}, pages;
	uint32_t lost = 0;
	int rc = libvhost_mem_log_start(mem, WAIT_MS, &lost);

	if (step("log start", lost ? -ENOTCONN : rc) < 0)
		return;
	step("log sync", libvhost_mem_log_sync(mem, BASE, BYTES, bitmap, &pages));
	rc = libvhost_mem_log_stop(mem, WAIT_MS, &lost);
	step("log stop", lost ? -ENOTCONN : rc);
}

static void run(int fixed)
{
	const struct libvhost_call_opts call = {.size = sizeof(call), .timeout_ms = WAIT_MS};

	if (step("start", libvhost_dev_start(dev, &call)) < 0)
		return;
	step("mask", libvhost_virtqueue_mask(dev, 0, 1));
	step("unmask", libvhost_virtqueue_mask(dev, 0, 0));
	if (!fixed)
		change_memory();
	log_memory();
	step("stop queue", libvhost_dev_stop_queue(dev, 0, WAIT_MS));
	step("start queue", libvhost_dev_start_queue(dev, 0, WAIT_MS));
	step("stop", libvhost_dev_stop(dev, &call));
	step("start again", libvhost_dev_start(dev, &call));
}

static int has(char **argv, const char *word)
{
	for (argv += 4; *argv; argv++)
		if (!strcmp(*argv, word))
			return 1;
	return 0;
}

int main(int argc, char **argv)
{
	const struct libvhost_call_opts call = {.size = sizeof(call), .timeout_ms = WAIT_MS};
	struct libvhost_dev_opts o = {
		.size = sizeof(o), .flags = LIBVHOST_DEV_INFLIGHT | LIBVHOST_DEV_HOST_NOTIFIERS, .timeout_ms = WAIT_MS};

	if (argc < 4 || libvhost_ctx_new(NULL, &ctx) < 0 || libvhost_mem_new(ctx, NULL, &mem) < 0 ||
	    libvhost_mem_begin(mem) < 0 || libvhost_mem_alloc(mem, BASE, BYTES) < 0 ||
	    libvhost_mem_commit(mem, 0, NULL) < 0)
		return 2;
	o.uri = argv[1];
	o.virtio_id = (uint32_t)atoi(argv[2]);
	o.num_queues = (uint32_t)atoi(argv[3]);
	o.config_size = o.virtio_id == BLOCK ? CONFIG : 0;
	o.mem = mem;
	if (step("init", libvhost_dev_init(ctx, &o, &dev)) < 0)
		return 1;
	configuration(o.virtio_id);
	set_up(o.num_queues);
	run(has(argv, "fixed"));
	if (!has(argv, "once"))
		step("reconnect", libvhost_dev_reconnect(dev, &call));
	step("reset", libvhost_dev_reset(dev, &call));
	libvhost_dev_cleanup(dev);
	libvhost_mem_free(mem);
	libvhost_ctx_free(ctx);
	return failed;
}
