/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <vhost/libvhost.h>

#define SECTORS 8192u /* 4 MiB */
#define PIECES	130u

static unsigned char disk[SECTORS * 512u];

static unsigned long long number(const unsigned char *bytes, int n) /* little-endian */
{
	unsigned long long value = 0;

	while (n--)
		value = value << 8 | bytes[n];
	return value;
}

/* Status: 0 done, 1 failed, 2 not known. Drivers may put header, data and status into any pieces; this program knows
 * one way only, tools/vhostctl/devices/blk.c all. */
static unsigned char execute(const unsigned char *head, struct libvhost_iov *data, unsigned n)
{
	unsigned long long type = number(head, 4), at = number(head + 8, 8);

	if (type == 4) /* flush */
		return 0;
	if (type > 1 || at >= SECTORS)
		return type > 1 ? 2 : 1;
	at *= 512;
	for (; n--; data++) {
		if (data->len > sizeof(disk) - at)
			return 1;
		if (type == 1)
			memcpy(disk + at, data->base, data->len);
		else
			memcpy(data->base, disk + at, data->len);
		at += data->len;
	}
	return 0;
}

static void serve(struct libvhost_vq *vq)
{
	struct libvhost_iov iov[PIECES], *last;
	struct libvhost_chain c;

	memset(&c, 0, sizeof(c));
	c.size = sizeof(c);
	c.iov = iov;
	c.iov_cap = PIECES;
	while (libvhost_vq_pop(vq, &c) == 1) {
		last = iov + c.n_read + c.n_write - 1;
		if (c.n_read && c.n_write && iov[0].len == 16 && last->len == 1)
			*(unsigned char *)last->base =
				execute((const unsigned char *)iov[0].base, iov + 1, c.n_read + c.n_write - 2);
		if (libvhost_vq_push(vq, c.head, c.write_len))
			return;
	}
	libvhost_vq_flush(vq); /* the back-end hears of a broken queue by itself */
}

int main(int argc, char **argv)
{
	struct libvhost_ctx *ctx = NULL;
	struct libvhost_backend *backend = NULL;
	struct libvhost_backend_opts opts;
	struct libvhost_event event;
	struct libvhost_vq *vq;
	struct pollfd fds[2];
	unsigned char config[60] = {SECTORS & 0xff, SECTORS >> 8};

	memset(&opts, 0, sizeof(opts));
	opts.size = sizeof(opts);
	opts.flags = LIBVHOST_BACKEND_PULL;
	opts.virtio_id = 2;
	opts.num_queues = 1;
	opts.config = config;
	opts.config_len = sizeof(config);
	if (argc != 2 || libvhost_ctx_new(NULL, &ctx) || libvhost_backend_new(ctx, &opts, &backend) ||
	    libvhost_backend_listen(backend, argv[1]))
		return 1;
	memset(fds, 0, sizeof(fds));
	fds[1].fd = -1;
	do { /* your own loop, with whatever else it waits for */
		fds[0].fd = libvhost_backend_fd(backend);
		fds[0].events = fds[1].events = POLLIN;
		poll(fds, 2, -1);
		if (libvhost_backend_dispatch(backend, 0))
			return 1;
		fds[1].fd = -1;
		if (!libvhost_backend_queue(backend, 0, &vq, &fds[1].fd))
			serve(vq);
		event.type = 0;
		while (libvhost_backend_next_event(backend, &event) == 1 && event.type != LIBVHOST_EVENT_DISCONNECTED)
			;
	} while (event.type != LIBVHOST_EVENT_DISCONNECTED);
	libvhost_backend_free(backend);
	libvhost_ctx_free(ctx);
	return 0;
}
