/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/*
 * A memory change, and a dirty log, for three devices on three back-ends: one serves, one is stopped (SIGSTOP), one is
 * killed. Neither can veto: the calls succeed within their time and count two lost devices. Usage: three SOCKET PID
 * SOCKET PID SOCKET PID
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <vhost/libvhost.h>

#include "results.h"

#define DEVICES 3u
#define RAM	0x100000ull
#define DATA	0x80000ull
#define BITS	(1ull << 32)
#define WAIT_MS 1500u

static struct libvhost_ctx *ctx;
static struct libvhost_mem *mem;
static struct libvhost_dev *dev[DEVICES];
static struct libvhost_vq *vq;

static void result(int good, const char *what)
{
	result_of(good, what, NULL, mem);
}

static uint64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

static uint32_t state(uint32_t i)
{
	struct libvhost_dev_info info = {.size = sizeof(info)};

	return libvhost_dev_info(dev[i], &info) ? 99 : info.state;
}

static int set_up(uint32_t i, const char *socket)
{
	struct libvhost_queue q = {.size = sizeof(q), .num = 16, .desc = i * 0x4000};
	struct libvhost_dev_opts o = {.size = sizeof(o), .virtio_id = 2, .num_queues = 1, .mem = mem};
	const uint64_t features = BITS;
	char uri[200];

	snprintf(uri, sizeof(uri), "user:%s", socket);
	o.uri = uri;
	q.avail = q.desc + 0x1000;
	q.used = q.desc + 0x2000;
	return !libvhost_dev_init(ctx, &o, &dev[i]) && !libvhost_ack_features_ex(dev[i], &features, 1) &&
	       !libvhost_dev_set_queue(dev[i], 0, &q) && !libvhost_dev_start(dev[i], NULL);
}

/* A read of 512 bytes into memory at gpa, on the device that serves. */
static int read_into(uint64_t gpa)
{
	const struct libvhost_buf b[3] = {
		{.gpa = DATA, .len = 16}, {.gpa = gpa, .len = 512}, {.gpa = DATA + 4096, .len = 1}};
	struct libvhost_used used;
	uint32_t n = 0;
	void *header;

	if (libvhost_mem_translate(mem, DATA, 8192, &header, NULL))
		return 0;
	memset(header, 0, 8192);
	((unsigned char *)header)[4096] = 0xff;
	if (libvhost_vq_add(vq, b, 1, 2, 1) || libvhost_vq_kick(vq) < 0)
		return 0;
	for (int i = 0; i < 60000 && !n; i++) {
		n = 1;
		if (libvhost_vq_get_used(vq, &used, &n))
			return 0;
		usleep(n ? 0 : 1000);
	}
	return n && !((unsigned char *)header)[4096];
}

static int driver(void)
{
	struct libvhost_queue q = {.size = sizeof(q)};
	struct libvhost_vq_opts v = {.size = sizeof(v), .flags = LIBVHOST_VQ_HAS_KICK, .num = 16, .features = BITS};

	if (libvhost_dev_get_queue(dev[0], 0, &q))
		return 0;
	v.kick_fd = q.kick_fd;
	v.desc = q.desc;
	v.avail = q.avail;
	v.used = q.used;
	return !libvhost_vq_new(ctx, mem, &v, &vq);
}

static int change(int add, uint32_t *lost)
{
	int rc = libvhost_mem_begin(mem);

	if (!rc)
		rc = add ? libvhost_mem_alloc(mem, 1ull << 32, RAM) : libvhost_mem_remove(mem, 1ull << 32, RAM);
	return rc ? rc : libvhost_mem_commit(mem, WAIT_MS, lost);
}

int main(int argc, char **argv)
{
	uint32_t lost = 9;
	uint64_t from;

	if (argc != 7 || libvhost_ctx_new(NULL, &ctx) || libvhost_mem_new(ctx, NULL, &mem) || libvhost_mem_begin(mem) ||
	    libvhost_mem_alloc(mem, 0, RAM) || libvhost_mem_commit(mem, 0, NULL))
		return 2;
	for (uint32_t i = 0; i < DEVICES; i++)
		if (!set_up(i, argv[1 + 2 * i]))
			return 2;
	result(driver() && read_into(DATA + 8192), "three devices run");
	kill(atoi(argv[4]), SIGSTOP);
	kill(atoi(argv[6]), SIGKILL);
	from = now_ms();
	result(change(1, &lost) == 0 && lost == 2,
	       "a commit with one mute and one dying peer succeeds and counts both");
	result(now_ms() - from < 3 * WAIT_MS, "within its time");
	result(state(0) == LIBVHOST_DEV_RUNNING, "the healthy device runs");
	/* what it was told and did not confirm must not take effect behind our back: the connection is given up */
	result(state(1) == LIBVHOST_DEV_DISCONNECTED, "the mute one is cut off");
	result(state(2) == LIBVHOST_DEV_DISCONNECTED, "the dead one is disconnected");
	result(read_into(1ull << 32), "the new memory is served");
	result(change(0, &lost) == 0 && lost == 0, "lost devices are not asked again");
	result(read_into(DATA + 8192), "and requests go on");
	result(libvhost_mem_log_start(mem, WAIT_MS, &lost) == 0 && lost == 0, "a log starts all the same");
	result(libvhost_mem_log_stop(mem, WAIT_MS, &lost) == 0 && lost == 0, "and ends");
	kill(atoi(argv[4]), SIGCONT);
	libvhost_vq_free(vq);
	for (uint32_t i = 0; i < DEVICES; i++)
		libvhost_dev_cleanup(dev[i]);
	libvhost_mem_free(mem);
	libvhost_ctx_free(ctx);
	return results_end();
}
