/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/*
 * What a vDPA driver of DPDK (tests/peers/dpdk/vdpa.c) asks for: doorbells for all queues while the rings start, a
 * configuration change for each ring of one. Usage: told URI
 */
#include <errno.h>
#include <stdio.h>
#include <vhost/libvhost.h>

#include "results.h"

#define QUEUES	2u
#define MARK	100u /* of queue 0; its successors count on */
#define WAIT_MS 60000u

static struct libvhost_ctx *ctx;
static struct libvhost_mem *mem;
static struct libvhost_dev *dev;

static void result(int good, const char *what)
{
	result_of(good, what, dev, NULL);
}

static int open_device(const char *uri)
{
	const struct libvhost_dev_opts o = {.size = sizeof(o),
					    .flags = LIBVHOST_DEV_HOST_NOTIFIERS,
					    .num_queues = QUEUES,
					    .timeout_ms = WAIT_MS,
					    .uri = uri,
					    .mem = mem};
	const uint64_t features = 1ull << 32;

	if (libvhost_dev_init(ctx, &o, &dev) || libvhost_ack_features_ex(dev, &features, 1))
		return 0;
	for (uint32_t i = 0; i < QUEUES; i++) {
		struct libvhost_queue q = {.size = sizeof(q), .num = 16, .desc = i * 0x4000};

		q.avail = q.desc + 0x1000;
		q.used = q.desc + 0x2000;
		if (libvhost_dev_set_queue(dev, i, &q))
			return 0;
	}
	return !libvhost_dev_start(dev, NULL);
}

/* The next event, of this type. */
static int event(uint32_t type, uint32_t queue)
{
	struct libvhost_event e;

	for (uint32_t i = 0; i < WAIT_MS; i++) {
		if (libvhost_dev_next_event(dev, &e) == 1)
			return e.type == type && e.queue == queue;
		if (libvhost_dev_dispatch(dev, 1))
			return 0;
	}
	return 0;
}

static volatile uint32_t *doorbell(uint32_t queue)
{
	struct libvhost_doorbell bell = {.size = sizeof(bell)};

	if (libvhost_dev_doorbell(dev, queue, &bell))
		return NULL;
	return (volatile uint32_t *)(uintptr_t)bell.address;
}

static int ring(uint32_t queue)
{
	volatile uint32_t *bell = doorbell(queue);

	if (!bell || *bell != MARK + queue)
		return 0;
	*bell = 1;
	return event(LIBVHOST_EVENT_CONFIG_CHANGE, LIBVHOST_NONE);
}

static void doorbells(void)
{
	result(event(LIBVHOST_EVENT_HOST_NOTIFIER, 0) && event(LIBVHOST_EVENT_HOST_NOTIFIER, 1),
	       "each queue gets a doorbell");
	result(ring(0), "queue 0: rung, heard, a change comes and is confirmed");
	result(ring(1), "queue 1: rung, heard, a change comes");
	result(ring(0) && ring(1), "again");
	result(!libvhost_dev_stop(dev, NULL) && !doorbell(0) && !doorbell(1), "stop takes the doorbells");
}

int main(int argc, char **argv)
{
	if (argc != 2 || libvhost_ctx_new(NULL, &ctx) || libvhost_mem_new(ctx, NULL, &mem) || libvhost_mem_begin(mem) ||
	    libvhost_mem_alloc(mem, 0, 0x10000) || libvhost_mem_commit(mem, 0, NULL))
		return 2;
	result(open_device(argv[1]), "the device runs");
	if (!failed)
		doorbells();
	libvhost_dev_cleanup(dev);
	libvhost_mem_free(mem);
	libvhost_ctx_free(ctx);
	return results_end();
}
