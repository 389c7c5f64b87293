/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/*
 * Notifications at a foreign back-end (tests/peers/qemu/echo.c): queue 0 is kicked and calls by message, queue 1 is
 * kicked by a doorbell while it has one. Each request's answer is compared. Usage: notify URI
 */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <vhost/libvhost.h>

#include "results.h"

#define QUEUES	 2u
#define IN_BAND	 0u
#define BELL	 1u
#define RING	 16u
#define RAM	 0x100000ull
#define DATA	 0x80000ull
#define ANSWER	 0x81000ull
#define LEN	 512u
#define REQUESTS 200u
#define WAIT_MS	 60000u
#define MODERN	 (1ull << 32)

static struct libvhost_ctx *ctx;
static struct libvhost_mem *mem;
static struct libvhost_dev *dev;
static struct libvhost_vq *vq[QUEUES];
static unsigned seed;

static void result(int good, const char *what)
{
	result_of(good, what, dev, NULL);
}

static int set_up(const char *uri)
{
	const struct libvhost_dev_opts o = {.size = sizeof(o),
					    .flags = LIBVHOST_DEV_HOST_NOTIFIERS,
					    .num_queues = QUEUES,
					    .config_size = 2,
					    .timeout_ms = WAIT_MS,
					    .uri = uri,
					    .mem = mem};
	const uint64_t features = MODERN;

	if (libvhost_dev_init(ctx, &o, &dev) || libvhost_ack_features_ex(dev, &features, 1))
		return 0;
	for (uint32_t i = 0; i < QUEUES; i++) {
		struct libvhost_queue q = {.size = sizeof(q), .num = RING, .desc = i * 0x4000};

		q.avail = q.desc + 0x1000;
		q.used = q.desc + 0x2000;
		q.flags = i == IN_BAND ? LIBVHOST_QUEUE_IN_BAND : 0;
		if (libvhost_dev_set_queue(dev, i, &q))
			return 0;
	}
	return !libvhost_dev_start(dev, NULL);
}

/* Without a kick descriptor: how the device is told is what this is about. */
static int open_rings(void)
{
	for (uint32_t i = 0; i < QUEUES; i++) {
		struct libvhost_queue q = {.size = sizeof(q)};
		struct libvhost_vq_opts o = {.size = sizeof(o), .num = RING, .index = i, .features = MODERN};

		if (libvhost_dev_get_queue(dev, i, &q))
			return 0;
		o.desc = q.desc;
		o.avail = q.avail;
		o.used = q.used;
		if (libvhost_vq_new(ctx, mem, &o, &vq[i]))
			return 0;
	}
	return 1;
}

static int by_kick(uint32_t queue)
{
	return !libvhost_virtqueue_kick(dev, queue);
}

static int by_doorbell(uint32_t queue)
{
	struct libvhost_doorbell bell = {.size = sizeof(bell)};

	if (libvhost_dev_doorbell(dev, queue, &bell))
		return 0;
	++*(volatile uint32_t *)(uintptr_t)bell.address;
	return 1;
}

/* A call, by message or not, arrives at the call descriptor. */
static int wait_for_call(uint32_t queue)
{
	struct libvhost_queue q = {.size = sizeof(q)};
	struct pollfd p = {.events = POLLIN};
	uint64_t word;

	if (libvhost_dev_get_queue(dev, queue, &q))
		return 0;
	p.fd = q.call_fd;
	for (uint32_t i = 0; i < WAIT_MS; i++) {
		libvhost_dev_dispatch(dev, 0);
		if (poll(&p, 1, 1) == 1)
			return read(p.fd, &word, sizeof(word)) == sizeof(word);
	}
	return 0;
}

/* Called without cause there is nothing yet: libvhost-user does so whenever it gets the descriptor. */
static int wait_for_answer(uint32_t queue, struct libvhost_used *used)
{
	uint32_t n;

	do {
		n = 1;
		if (!wait_for_call(queue) || libvhost_vq_get_used(vq[queue], used, &n))
			return 0;
	} while (!n);
	return 1;
}

static int echo(uint32_t queue, int (*notify)(uint32_t))
{
	const struct libvhost_buf b[2] = {{.gpa = DATA, .len = LEN}, {.gpa = ANSWER, .len = LEN}};
	struct libvhost_used used;
	void *sent, *got;

	if (libvhost_mem_translate(mem, DATA, LEN, &sent, NULL) || libvhost_mem_translate(mem, ANSWER, LEN, &got, NULL))
		return 0;
	memset(sent, (int)++seed, LEN);
	memset(got, 0, LEN);
	return !libvhost_vq_add(vq[queue], b, 1, 1, seed) && libvhost_vq_kick(vq[queue]) == 1 && notify(queue) &&
	       wait_for_answer(queue, &used) && used.token == seed && used.len == LEN && !memcmp(sent, got, LEN);
}

static int echoes(uint32_t queue, int (*notify)(uint32_t))
{
	for (uint32_t i = 0; i < REQUESTS; i++)
		if (!echo(queue, notify))
			return 0;
	return 1;
}

/* What the device did about it, -1 when it did not answer. Its question comes before its answer to us. */
static int command(char what)
{
	uint8_t now[2];

	if (libvhost_dev_set_config(dev, 0, &what, 1, 0, WAIT_MS) ||
	    libvhost_dev_get_config(dev, 0, now, sizeof(now), WAIT_MS) || now[0] != (uint8_t)what)
		return -1;
	return now[1];
}

/* Takes events until one of the type comes. */
static int event(uint32_t type, uint32_t queue)
{
	struct libvhost_event e;

	while (libvhost_dev_next_event(dev, &e) == 1)
		if (e.type == type && e.queue == queue)
			return 1;
	return 0;
}

static int no_doorbell(void)
{
	struct libvhost_doorbell bell = {.size = sizeof(bell)};

	return libvhost_dev_doorbell(dev, BELL, &bell) == -ENOENT;
}

static void by_message(void)
{
	result(echoes(IN_BAND, by_kick), "requests kicked and called by message");
	result(event(LIBVHOST_EVENT_QUEUE_CALL, IN_BAND), "a call is an event too");
	/* each call waits for our answer while we wait for the answer to the kick that it comes from */
	result(command('s') == 1 && echoes(IN_BAND, by_kick), "calls that want an answer, within a kick");
}

static void by_bell(void)
{
	struct libvhost_doorbell bell = {.size = sizeof(bell)};
	volatile uint32_t *old;

	result(no_doorbell() && echoes(BELL, by_kick), "kicks by descriptor before there is a doorbell");
	result(command('b') == 0 && no_doorbell(), "a doorbell outside of its file is refused, and the device knows");
	result(command('d') == 1 && event(LIBVHOST_EVENT_HOST_NOTIFIER, BELL), "a doorbell comes");
	result(!libvhost_dev_doorbell(dev, BELL, &bell) && bell.bytes == 4096 && bell.offset == 4096,
	       "it is where the device said");
	result(echoes(BELL, by_doorbell), "requests rung for");
	result(command('r') == 1 && event(LIBVHOST_EVENT_HOST_NOTIFIER, BELL) && no_doorbell(), "it is taken back");
	old = (volatile uint32_t *)(uintptr_t)bell.address;
	*old = 7;
	result(echoes(BELL, by_kick), "what is written there reaches nobody, kicks work");
	result(command('d') == 1 && !libvhost_dev_doorbell(dev, BELL, &bell) && bell.address == (uintptr_t)old &&
		       *old != 7 && echoes(BELL, by_doorbell),
	       "a new one comes to the same place");
}

static void again(void)
{
	result(!libvhost_dev_stop(dev, NULL) && no_doorbell(), "stop takes the doorbell away");
	result(!libvhost_dev_start(dev, NULL) && echoes(IN_BAND, by_kick) && echoes(BELL, by_kick),
	       "both queues go on after it");
}

int main(int argc, char **argv)
{
	if (argc != 2 || libvhost_ctx_new(NULL, &ctx) || libvhost_mem_new(ctx, NULL, &mem) || libvhost_mem_begin(mem) ||
	    libvhost_mem_alloc(mem, 0, RAM) || libvhost_mem_commit(mem, 0, NULL))
		return 2;
	result(set_up(argv[1]) && open_rings(), "the device runs, queue 0 without descriptors");
	if (!failed) {
		by_message();
		by_bell();
		again();
	}
	for (uint32_t i = 0; i < QUEUES; i++)
		libvhost_vq_free(vq[i]);
	libvhost_dev_cleanup(dev);
	libvhost_mem_free(mem);
	libvhost_ctx_free(ctx);
	return results_end();
}
