/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/*
 * A device on QEMU's libvhost-user, unmodified, which tests/lib/libvhost-user fetches and compiles: it copies what it
 * reads into what it writes. It offers notifications as messages, and queue 1 has a doorbell: a word in a file that it
 * looks at every millisecond. One front-end. Usage: echo SOCKET
 *
 * A write to byte 0 of its configuration space is a command, carried out before the write is confirmed; byte 1 says
 * afterwards whether the front-end agreed.
 *   d  give the doorbell          b  give a doorbell outside of its file
 *   r  take the doorbell back     s  await the confirmation of each further call
 */
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "libvhost-user.h"

#define QUEUES	   2
#define BELL_QUEUE 1
#define PAGE	   4096
#define BELL_AT	   PAGE /* the second of two pages */
#define FEATURES   (1ull << VIRTIO_F_VERSION_1 | 1ull << VHOST_USER_F_PROTOCOL_FEATURES)

static VuDev vu;
static uint8_t config[2];
static struct pollfd fds[1 + QUEUES];
static struct {
	vu_watch_cb call;
	void *data;
} watches[1 + QUEUES];
static int bell_file;
static volatile uint32_t *bell;
static uint32_t rung;
static bool given, await;

static void die(VuDev *dev, const char *why)
{
	(void)dev;
	fprintf(stderr, "echo: %s\n", why);
	exit(1);
}

static void watch(VuDev *dev, int fd, int condition, vu_watch_cb call, void *data)
{
	(void)dev;
	for (size_t i = 1; i < 1 + QUEUES; i++) {
		if (fds[i].fd >= 0 && fds[i].fd != fd)
			continue;
		fds[i] = (struct pollfd){.fd = fd, .events = (short)condition};
		watches[i].call = call;
		watches[i].data = data;
		return;
	}
}

static void unwatch(VuDev *dev, int fd)
{
	(void)dev;
	for (size_t i = 1; i < 1 + QUEUES; i++)
		if (fds[i].fd == fd)
			fds[i].fd = -1;
}

static void copy(const VuVirtqElement *e)
{
	for (unsigned i = 0; i < e->in_num && i < e->out_num; i++) {
		const size_t n =
			e->in_sg[i].iov_len < e->out_sg[i].iov_len ? e->in_sg[i].iov_len : e->out_sg[i].iov_len;

		memcpy(e->in_sg[i].iov_base, e->out_sg[i].iov_base, n);
	}
}

static void serve(VuDev *dev, int index)
{
	VuVirtq *vq = vu_get_queue(dev, index);
	VuVirtqElement *e;

	while ((e = vu_queue_pop(dev, vq, sizeof(*e)))) {
		copy(e);
		vu_queue_push(dev, vq, e, e->in_num ? (unsigned)e->in_sg[0].iov_len : 0);
		if (await)
			vu_queue_notify_sync(dev, vq);
		else
			vu_queue_notify(dev, vq);
		free(e);
	}
}

static void look_at_bell(void)
{
	if (!given || *bell == rung)
		return;
	rung = *bell;
	serve(&vu, BELL_QUEUE);
}

static uint64_t features(VuDev *dev)
{
	(void)dev;
	return FEATURES;
}

static uint64_t protocol_features(VuDev *dev)
{
	(void)dev;
	return 1ull << VHOST_USER_PROTOCOL_F_INBAND_NOTIFICATIONS;
}

static void set_started(VuDev *dev, int index, bool started)
{
	vu_set_queue_handler(dev, vu_get_queue(dev, index), started ? serve : NULL);
}

static int get_config(VuDev *dev, uint8_t *out, uint32_t len)
{
	(void)dev;
	memset(out, 0, len);
	memcpy(out, config, len < sizeof(config) ? len : sizeof(config));
	return 0;
}

static bool carry_out(uint8_t command)
{
	VuVirtq *vq = vu_get_queue(&vu, BELL_QUEUE);

	switch (command) {
	case 'd':
		return given = vu_set_queue_host_notifier(&vu, vq, bell_file, PAGE, BELL_AT);
	case 'b':
		return vu_set_queue_host_notifier(&vu, vq, bell_file, PAGE, 2 * BELL_AT);
	case 'r':
		given = false;
		return vu_set_queue_host_notifier(&vu, vq, -1, 0, 0);
	case 's':
		return await = true;
	default:
		return false;
	}
}

static int set_config(VuDev *dev, const uint8_t *data, uint32_t offset, uint32_t size, uint32_t flags)
{
	(void)dev;
	(void)flags;
	if (offset || size != 1)
		return -1;
	config[0] = *data;
	config[1] = carry_out(*data);
	return 0;
}

static int front_end(const char *path)
{
	struct sockaddr_un at = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	snprintf(at.sun_path, sizeof(at.sun_path), "%s", path);
	if (fd < 0 || bind(fd, (struct sockaddr *)&at, sizeof(at)) || listen(fd, 1))
		die(NULL, "cannot listen");
	return accept(fd, NULL, NULL);
}

int main(int argc, char **argv)
{
	static const VuDevIface iface = {.get_features = features,
					 .get_protocol_features = protocol_features,
					 .queue_set_started = set_started,
					 .get_config = get_config,
					 .set_config = set_config};

	if (argc != 2)
		die(NULL, "usage: echo SOCKET");
	for (size_t i = 0; i < 1 + QUEUES; i++)
		fds[i].fd = -1;
	bell_file = memfd_create("bell", MFD_CLOEXEC);
	if (bell_file < 0 || ftruncate(bell_file, BELL_AT + PAGE))
		die(NULL, "no memory for the doorbell");
	bell = mmap(NULL, PAGE, PROT_READ, MAP_SHARED, bell_file, BELL_AT);
	fds[0] = (struct pollfd){.fd = front_end(argv[1]), .events = POLLIN};
	if (bell == MAP_FAILED || fds[0].fd < 0 || !vu_init(&vu, QUEUES, fds[0].fd, die, NULL, watch, unwatch, &iface))
		die(NULL, "cannot begin");
	for (;;) {
		poll(fds, 1 + QUEUES, given ? 1 : -1);
		if (fds[0].revents && !vu_dispatch(&vu))
			return 0;
		for (size_t i = 1; i < 1 + QUEUES; i++)
			if (fds[i].fd >= 0 && fds[i].revents)
				watches[i].call(&vu, fds[i].revents, watches[i].data);
		look_at_bell();
	}
}
