/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/*
 * A device on a real back-end (qemu-storage-daemon, null-co): life cycle, requests through a ring, the daemon killed
 * and back. Usage: device_qsd SOCKET PIDFILE; the caller starts the daemon again whenever it ends.
 */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <vhost/libvhost.h>

#include "results.h"

#define QUEUES	4u
#define NUM	64u
#define RAM	(4ull << 20)
#define RING(q) ((uint64_t)(q)*0x10000)
#define DATA	0x200000ull
#define WAIT_MS 60000
#define BITS	(1ull << 32 | 1ull << 12) /* VERSION_1, BLK_F_MQ */

static void result(int good, const char *what, struct libvhost_dev *dev)
{
	result_of(good, what, dev, NULL);
}

static int set_queues(struct libvhost_dev *dev)
{
	for (uint32_t q = 0; q < QUEUES; q++) {
		struct libvhost_queue o = {.size = sizeof(o), .num = NUM};

		o.desc = RING(q);
		o.avail = RING(q) + 0x1000;
		o.used = RING(q) + 0x2000;
		if (libvhost_dev_set_queue(dev, q, &o))
			return 0;
	}
	return 1;
}

/* One 4 KiB read through queue q; the driver waits for the call descriptor. */
static int read_block(struct libvhost_dev *dev, struct libvhost_mem *mem, struct libvhost_vq *vq, uint32_t q)
{
	struct libvhost_queue o = {.size = sizeof(o)};
	struct libvhost_buf bufs[3] = {
		{.gpa = DATA, .len = 16}, {.gpa = DATA + 0x1000, .len = 4096}, {.gpa = DATA + 16, .len = 1}};
	struct libvhost_used used;
	uint64_t calls;
	uint32_t n = 0;
	void *hdr;

	if (libvhost_mem_translate(mem, DATA, 32, &hdr, NULL) || libvhost_dev_get_queue(dev, q, &o))
		return 0;
	memset(hdr, 0, 16);
	((unsigned char *)hdr)[16] = 0xff;
	libvhost_vq_notify_enable(vq, 1);
	if (libvhost_vq_add(vq, bufs, 1, 2, 1) || libvhost_vq_kick(vq) < 0)
		return 0;
	for (int i = 0; i < WAIT_MS / 10 && !n; i++) {
		struct pollfd p = {.fd = o.call_fd, .events = POLLIN};

		libvhost_dev_dispatch(dev, 0);
		if (poll(&p, 1, 10) == 1 && read(o.call_fd, &calls, sizeof(calls)) < 0 && errno != EAGAIN)
			return 0;
		n = 1;
		if (libvhost_vq_get_used(vq, &used, &n))
			return 0;
	}
	return n == 1 && ((unsigned char *)hdr)[16] == 0;
}

static struct libvhost_vq *driver(struct libvhost_ctx *ctx, struct libvhost_mem *mem, struct libvhost_dev *dev,
				  uint32_t q)
{
	struct libvhost_queue o = {.size = sizeof(o)};
	struct libvhost_vq_opts v = {
		.size = sizeof(v), .flags = LIBVHOST_VQ_HAS_KICK | LIBVHOST_VQ_HAS_CALL, .num = NUM};
	struct libvhost_vq *vq = NULL;

	if (libvhost_dev_get_queue(dev, q, &o))
		return NULL;
	v.index = q;
	v.features = BITS;
	v.desc = o.desc;
	v.avail = o.avail;
	v.used = o.used;
	v.kick_fd = o.kick_fd;
	v.call_fd = o.call_fd;
	return libvhost_vq_new(ctx, mem, &v, &vq) ? NULL : vq;
}

/* A completion while the queue is masked: nothing at the call descriptor, and found once it is unmasked. */
static int masked_request(struct libvhost_dev *dev, struct libvhost_vq *vq, uint32_t q)
{
	struct libvhost_buf bufs[3] = {
		{.gpa = DATA, .len = 16}, {.gpa = DATA + 0x1000, .len = 4096}, {.gpa = DATA + 16, .len = 1}};
	struct libvhost_queue o = {.size = sizeof(o)};
	struct libvhost_used used;
	struct pollfd p = {.events = POLLIN};
	uint8_t config[8];
	uint64_t calls;
	uint32_t n = 0;

	if (libvhost_dev_get_queue(dev, q, &o) || libvhost_virtqueue_mask(dev, q, 1))
		return 0;
	p.fd = o.call_fd;
	if (poll(&p, 1, 0) == 1 && read(o.call_fd, &calls, sizeof(calls)) < 0)
		return 0;
	libvhost_vq_notify_enable(vq, 1);
	if (libvhost_vq_add(vq, bufs, 1, 2, 1) || libvhost_vq_kick(vq) < 0)
		return 0;
	for (int i = 0; i < WAIT_MS / 10 && !n; i++) {
		usleep(10000);
		n = 1;
		if (libvhost_vq_get_used(vq, &used, &n))
			return 0;
	}
	/* the call comes behind the used index, and before the answer to what is asked now */
	return n == 1 && !libvhost_dev_get_config(dev, 0, config, sizeof(config), 0) && poll(&p, 1, 0) == 0 &&
	       !libvhost_virtqueue_mask(dev, q, 0) && libvhost_virtqueue_pending(dev, q) == 1 &&
	       libvhost_virtqueue_pending(dev, q) == 0;
}

/* The guest gives queue 3 up and sets it up anew, while the others run. */
static struct libvhost_vq *queue_again(struct libvhost_ctx *ctx, struct libvhost_mem *mem, struct libvhost_dev *dev)
{
	struct libvhost_queue o = {.size = sizeof(o), .num = NUM};
	struct libvhost_vq *vq;
	void *ring;

	o.desc = RING(3);
	o.avail = RING(3) + 0x1000;
	o.used = RING(3) + 0x2000;
	if (libvhost_dev_reset_queue(dev, 3, 0) || libvhost_mem_translate(mem, RING(3), 0x3000, &ring, NULL))
		return NULL;
	memset(ring, 0, 0x3000);
	if (libvhost_dev_set_queue(dev, 3, &o))
		return NULL;
	vq = driver(ctx, mem, dev, 3);
	if (!vq || !libvhost_dev_start_queue(dev, 3, 0))
		return vq;
	libvhost_vq_free(vq);
	return NULL;
}

/* One queue at a time. The device has no region: this peer offers none. */
static void single_queues(struct libvhost_ctx *ctx, struct libvhost_mem *mem, struct libvhost_dev *dev,
			  struct libvhost_vq *vq)
{
	struct libvhost_vq *other = driver(ctx, mem, dev, 3);
	struct libvhost_dev_info info = {.size = sizeof(info)};

	result(libvhost_dev_stop_queue(dev, 2, 0) == 0, "stop queue 2", dev);
	result(other && read_block(dev, mem, other, 3), "request in queue 3 meanwhile", dev);
	result(libvhost_dev_start_queue(dev, 2, 0) == 0, "start queue 2", dev);
	result(read_block(dev, mem, vq, 2), "request in queue 2", dev);
	result(masked_request(dev, vq, 2), "a masked completion is found after unmask", dev);
	libvhost_vq_free(other);
	other = queue_again(ctx, mem, dev);
	result(other && read_block(dev, mem, other, 3), "queue 3 reset, set up anew, and a request in it", dev);
	libvhost_vq_free(other);
	result(!libvhost_dev_info(dev, &info) && info.guarantee == LIBVHOST_GUARANTEE_NONE, "no region, no guarantee",
	       dev);
}

static int wait_event(struct libvhost_dev *dev, uint32_t type)
{
	struct libvhost_event e;

	for (int i = 0; i < 1000; i++) {
		libvhost_dev_dispatch(dev, 10);
		while (libvhost_dev_next_event(dev, &e) == 1)
			if (e.type == type)
				return 1;
	}
	return 0;
}

static void kill_daemon(const char *pidfile)
{
	FILE *f = fopen(pidfile, "r");
	int pid = 0;

	if (f && fscanf(f, "%d", &pid) == 1 && pid > 1)
		kill(pid, SIGKILL);
	if (f)
		fclose(f);
}

static uint32_t state(struct libvhost_dev *dev)
{
	struct libvhost_dev_info i = {.size = sizeof(i)};

	return libvhost_dev_info(dev, &i) ? 99 : i.state;
}

int main(int argc, char **argv)
{
	struct libvhost_dev_opts o = {.size = sizeof(o),
				      .flags = LIBVHOST_DEV_WAIT | LIBVHOST_DEV_INFLIGHT,
				      .virtio_id = 2,
				      .num_queues = QUEUES};
	struct libvhost_call_opts patient = {.size = sizeof(patient), .timeout_ms = WAIT_MS};
	struct libvhost_ctx *ctx = NULL;
	struct libvhost_mem *mem = NULL;
	struct libvhost_dev *dev = NULL;
	struct libvhost_vq *vq = NULL;
	uint64_t features = BITS;
	unsigned char config[60];
	char uri[200];

	if (argc != 3 || libvhost_ctx_new(NULL, &ctx) || libvhost_mem_new(ctx, NULL, &mem))
		return 2;
	snprintf(uri, sizeof(uri), "user:%s", argv[1]);
	o.uri = uri;
	o.mem = mem;
	o.timeout_ms = WAIT_MS;
	o.config_size = 60;
	libvhost_mem_begin(mem);
	libvhost_mem_alloc(mem, 0, RAM);
	result(libvhost_mem_commit(mem, 0, NULL) == 0, "memory", NULL);
	result(libvhost_dev_init(ctx, &o, &dev) == 0, "init, late socket", NULL);
	if (!dev)
		return 1;
	result(libvhost_ack_features_ex(dev, &features, 1) == 0, "features", dev);
	result(libvhost_dev_get_config(dev, 0, config, 60, 0) == 0 && config[2] == 0x20, "configuration: 1 GiB", dev);
	result(set_queues(dev), "queues", dev);
	result((vq = driver(ctx, mem, dev, 2)) != NULL, "driver", dev);
	result(libvhost_dev_start(dev, NULL) == 0, "start", dev);
	result(read_block(dev, mem, vq, 2), "request", dev);
	result(libvhost_virtqueue_mask(dev, 2, 1) == 0 && libvhost_virtqueue_mask(dev, 2, 0) == 0, "mask, unmask", dev);
	result(libvhost_dev_stop(dev, NULL) == 0, "stop", dev);
	result(libvhost_dev_start(dev, NULL) == 0, "start again", dev);
	result(read_block(dev, mem, vq, 2), "request after restart", dev);
	single_queues(ctx, mem, dev, vq);
	libvhost_mem_begin(mem);
	libvhost_mem_alloc(mem, 1ull << 32, RAM);
	result(libvhost_mem_commit(mem, 0, NULL) == 0 && state(dev) == LIBVHOST_DEV_RUNNING, "hotplug while running",
	       dev);
	result(read_block(dev, mem, vq, 2), "request after hotplug", dev);
	kill_daemon(argv[2]);
	result(wait_event(dev, LIBVHOST_EVENT_DISCONNECTED), "the death is noticed", dev);
	result(libvhost_dev_start(dev, NULL) == -ENOTCONN, "start is refused meanwhile", NULL);
	result(libvhost_dev_reconnect(dev, &patient) == 0, "reconnect", dev);
	result(state(dev) == LIBVHOST_DEV_RUNNING, "runs again", dev);
	result(read_block(dev, mem, vq, 2), "request after reconnect", dev);
	result(libvhost_dev_reset(dev, NULL) == 0 && state(dev) == LIBVHOST_DEV_NEGOTIATED, "reset", dev);
	libvhost_vq_free(vq);
	libvhost_dev_cleanup(dev);
	libvhost_mem_free(mem);
	libvhost_ctx_free(ctx);
	return results_end();
}
