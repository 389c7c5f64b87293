/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/*
 * A network card without a wire, on the pull API and never sleeping, as DPDK's devices are used: what bench/net sets
 * beside net_vhost. Frames go through memory of this process, once in and once out, as they do there.
 *
 * Usage: net_card SOCKET loop|drop|flood: frames come back; are thrown away; arrive as fast as the guest takes them.
 */
#include <endian.h>
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <vhost/libvhost.h>

#include "devices/pieces.h"
#include "net_wire.h"

#define FRAME	   2048u
#define BURST	   32u
#define PIECES	   8u
#define LOOK_EVERY 4096u /* turns between looks at control messages */
#define FLOOD_LEN  60u

enum { RECEIVE, TRANSMIT, QUEUES };
#define EVENT_IDX (1ull << 29)
#define PACKED	  (1ull << 34)
#define IN_ORDER  (1ull << 35)

#define LINE 64u

/* Each begins with a cache line, and no two with the same set of the cache. */
static struct frame {
	_Alignas(LINE) uint8_t bytes[FRAME];
	uint32_t len;
} frames[BURST];

static int fail(const char *what, int rc)
{
	fprintf(stderr, "net_card: %s: %s\n", what, strerror(-rc));
	return 1;
}

static struct burst {
	struct libvhost_chain chains[BURST];
	struct libvhost_iov iov[BURST][PIECES];
	uint32_t n;
} burst;

static void fetch(const struct libvhost_iov *piece, size_t from)
{
	const char *at = piece->base;

	__builtin_prefetch(at + from);
	__builtin_prefetch(at + (piece->len > LINE ? LINE : 0));
}

/* Up to so many requests, of which the first bytes are not looked at. Their memory is on its way while the next ones
 * are taken apart. */
static void pop(struct libvhost_vq *vq, uint32_t most, size_t from)
{
	for (burst.n = 0; burst.n < most; burst.n++) {
		struct libvhost_chain *c = &burst.chains[burst.n];

		if (libvhost_vq_pop(vq, c) != 1)
			return;
		for (uint32_t i = 0; i < c->n_read + c->n_write; i++)
			fetch(&c->iov[i], i ? 0 : from);
	}
}

static void push(struct libvhost_vq *vq, const uint64_t *written)
{
	for (uint32_t i = 0; i < burst.n; i++)
		if (libvhost_vq_push(vq, burst.chains[i].head, written ? written[i] : 0) < 0)
			break;
	if (burst.n)
		libvhost_vq_flush(vq);
}

/* Frames of the guest; 0 when there are none. */
static uint32_t take(struct libvhost_vq *vq)
{
	pop(vq, BURST, sizeof(struct net_header));
	for (uint32_t i = 0; i < burst.n; i++) {
		struct pieces frame = {burst.iov[i], burst.chains[i].n_read};

		pieces_skip(&frame, sizeof(struct net_header));
		frames[i].len = (uint32_t)pieces_copy(&frame, frames[i].bytes, FRAME, false);
	}
	push(vq, NULL);
	return burst.n;
}

/* A header that is there already is not written again: its cache line stays with the guest. */
static size_t put_header(struct pieces *room)
{
	struct net_header header = {.num_buffers = htole16(1)};

	if (room->iov->len > sizeof(header) && !memcmp(room->iov->base, &header, sizeof(header)))
		return pieces_skip(room, sizeof(header));
	return pieces_copy(room, &header, sizeof(header), true);
}

/* Frames for the guest; what it has no buffer for is lost. */
static void give(struct libvhost_vq *vq, uint32_t n)
{
	uint64_t written[BURST] = {0};

	pop(vq, n, 0);
	for (uint32_t i = 0; i < burst.n; i++) {
		const struct libvhost_chain *c = &burst.chains[i];
		struct pieces room = {c->iov + c->n_read, c->n_write};

		if (c->write_len < sizeof(struct net_header) + frames[i].len)
			continue;
		written[i] = put_header(&room);
		written[i] += pieces_copy(&room, frames[i].bytes, frames[i].len, true);
	}
	push(vq, written);
}

static void serve(struct libvhost_vq *vqs[QUEUES], bool loop, bool flood)
{
	uint32_t n = vqs[TRANSMIT] ? take(vqs[TRANSMIT]) : 0;

	if (flood)
		for (n = 0; n < BURST; n++)
			frames[n].len = FLOOD_LEN;
	if (vqs[RECEIVE] && n && (loop || flood))
		give(vqs[RECEIVE], n);
}

static struct libvhost_vq *queue(struct libvhost_backend *backend, uint32_t n)
{
	struct libvhost_vq *vq = NULL;
	int kick_fd;

	if (libvhost_backend_queue(backend, n, &vq, &kick_fd) < 0 || libvhost_vq_notify_enable(vq, 0) < 0)
		return NULL;
	return vq;
}

int main(int argc, char **argv)
{
	const struct libvhost_backend_opts opts = {.size = sizeof(opts),
						   .flags = LIBVHOST_BACKEND_PULL,
						   .virtio_id = VIRTIO_ID_NET,
						   .num_queues = QUEUES,
						   .features = EVENT_IDX | PACKED | IN_ORDER};
	struct libvhost_backend *backend;
	struct libvhost_ctx *ctx;
	bool loop, flood;
	int rc;

	if (argc != 3 || (strcmp(argv[2], "loop") && strcmp(argv[2], "drop") && strcmp(argv[2], "flood"))) {
		fputs("usage: net_card SOCKET loop|drop|flood\n", stderr);
		return 2;
	}
	loop = !strcmp(argv[2], "loop");
	flood = !strcmp(argv[2], "flood");
	rc = libvhost_ctx_new(NULL, &ctx);
	if (rc < 0 || (rc = libvhost_backend_new(ctx, &opts, &backend)) < 0)
		return fail("device", rc);
	rc = libvhost_backend_listen(backend, argv[1]);
	if (rc < 0)
		return fail(argv[1], rc);
	for (uint32_t i = 0; i < BURST; i++)
		burst.chains[i] = (struct libvhost_chain){
			.size = sizeof(burst.chains[i]), .iov = burst.iov[i], .iov_cap = PIECES};
	for (;;) {
		struct libvhost_vq *vqs[QUEUES];

		rc = libvhost_backend_dispatch(backend, 0);
		if (rc < 0)
			return fail("dispatch", rc);
		for (uint32_t i = 0; i < QUEUES; i++)
			vqs[i] = queue(backend, i);
		for (uint32_t i = 0; i < LOOK_EVERY; i++)
			serve(vqs, loop, flood);
	}
}
