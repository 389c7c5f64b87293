/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/*
 * A network card without offloads, whose wire is a tap or any socket that carries a frame per message. Sandbox row:
 * ring. Frames for the guest are read before a buffer is taken, so none is held while there is nothing to receive; a
 * copy of a frame costs less than the system call that moves it.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli.h"
#include "devices/device.h"
#include "devices/pieces.h"
#include "net_wire.h"

#define PAIRS_MAX  16u
#define PIECES	   64u
#define FRAME_ROOM 65536u
#define PER_TURN   64u

enum { OPT_FD = 2100, OPT_MAC, OPT_TAP };

static const struct argp_option options[] = {
	{"tap", OPT_TAP, "NAME", 0, "the wire is this tap interface, made if it is not there", 0},
	{"fd", OPT_FD, "N[,N...]", 0, "the wire is this descriptor, or one for each pair of queues", 0},
	{"mac", OPT_MAC, "ADDRESS", 0, "hardware address, 52:54:00:... if not given", 0},
	{0},
};

/* A pair's frames between wire and guest. One that the guest has no buffer for waits in received. */
struct pair {
	uint32_t len; /* of received, 0 = nothing */
	uint8_t received[FRAME_ROOM], sent[FRAME_ROOM];
};

static struct net {
	struct device device; /* first */
	const char *tap, *fds;
	uint32_t pairs;
	int wires[PAIRS_MAX];
	struct pair frames[PAIRS_MAX];
	struct net_config config;
} net;

/* Six pairs of digits; the first bit on the wire says "a group", which a card is not. */
static bool parse_mac(const char *text, uint8_t mac[6])
{
	char *end = NULL;

	for (int i = 0; i < 6; i++, text = end + 1) {
		const unsigned long byte = strtoul(text, &end, 16);

		if (end != text + 2 || *end != (i < 5 ? ':' : 0))
			return false;
		mac[i] = (uint8_t)byte;
	}
	return !(mac[0] & 1);
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
	switch (key) {
	case OPT_TAP:
		net.tap = arg;
		return 0;
	case OPT_FD:
		net.fds = arg;
		return 0;
	case OPT_MAC:
		if (!parse_mac(arg, net.config.mac))
			argp_error(state, "--mac: '%s' is not the address of one station", arg);
		return 0;
	default:
		return ARGP_ERR_UNKNOWN;
	}
}

static const struct argp argp = {options, parse, NULL, NULL, NULL, NULL, NULL};

static int open_tap(uint32_t pairs)
{
	struct ifreq ifr = {.ifr_flags = IFF_TAP | IFF_NO_PI};

	if (strlen(net.tap) >= sizeof(ifr.ifr_name))
		return complain("%s: an interface's name has at most %zu characters", net.tap,
				sizeof(ifr.ifr_name) - 1);
	strcpy(ifr.ifr_name, net.tap);
	if (pairs > 1)
		ifr.ifr_flags |= IFF_MULTI_QUEUE;
	for (; net.pairs < pairs; net.pairs++) {
		const int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC | O_NONBLOCK);

		if (fd < 0)
			return complain("/dev/net/tun: %s", strerror(errno));
		net.wires[net.pairs] = fd;
		if (ioctl(fd, TUNSETIFF, &ifr) < 0)
			return complain("tap %s: %s", net.tap, strerror(errno));
	}
	return 0;
}

static int take_fds(uint32_t pairs)
{
	const char *at = net.fds;
	char *end;

	for (; net.pairs < pairs; net.pairs++, at = end + (*end == ',')) {
		const long fd = strtol(at, &end, 10);
		struct stat st;

		if (end == at || (*end && *end != ',') || fd < 0 || fd > 1 << 20)
			return complain("--fd: '%s' does not name a descriptor for each of %u pairs of queues", net.fds,
					pairs);
		if (fstat((int)fd, &st) < 0 || fcntl((int)fd, F_SETFL, O_NONBLOCK) < 0)
			return complain("--fd: descriptor %ld: %s", fd, strerror(errno));
		net.wires[net.pairs] = (int)fd;
	}
	return *at ? complain("--fd: more descriptors than pairs of queues") : 0;
}

static int net_open(struct device *d, uint32_t queues)
{
	static const uint8_t none[6], usual[6] = {0x52, 0x54, 0x00, 0x12, 0x34, 0x56};
	const uint32_t pairs = queues / 2;

	if (!net.tap == !net.fds)
		return complain("net: give either --tap or --fd");
	if (net.tap ? open_tap(pairs) : take_fds(pairs))
		return 1;
	if (!memcmp(net.config.mac, none, sizeof(none)))
		memcpy(net.config.mac, usual, sizeof(usual));
	net.config.status = htole16(NET_S_LINK_UP);
	net.config.max_virtqueue_pairs = htole16((uint16_t)pairs);
	d->config = &net.config;
	d->config_len = sizeof(net.config);
	d->features = 1ull << NET_F_MAC | 1ull << NET_F_STATUS | (pairs > 1 ? 1ull << NET_F_MQ : 0);
	snprintf(d->summary, sizeof(d->summary), "a network card on %s", net.tap ? net.tap : "a descriptor");
	return 0;
}

static int net_bind(struct device *d, struct libvhost_backend *backend)
{
	int rc = 0;

	(void)d;
	for (uint32_t i = 0; i < net.pairs && rc == 0; i++)
		rc = libvhost_backend_watch_fd(backend, 2 * i, net.wires[i]);
	return rc;
}

static void net_close(struct device *d)
{
	(void)d;
	for (uint32_t i = 0; i < net.pairs; i++)
		close(net.wires[i]);
}

/* --- on the worker --- */

static uint32_t header_bytes(struct libvhost_vq *vq)
{
	struct libvhost_vq_info info = {.size = sizeof(info)};

	return libvhost_vq_info(vq, &info) == 0 && info.features >> F_VERSION_1 & 1 ? sizeof(struct net_header)
										    : NET_HEADER_LEGACY;
}

/* Frames from the wire. Virtio 1.2, 5.1.6.4: a frame that does not fit the buffer is dropped, as any network may. */
static int receive(struct pair *p, int wire, struct libvhost_vq *vq)
{
	const uint32_t header_len = header_bytes(vq);

	for (uint32_t i = 0; i < PER_TURN; i++) {
		struct net_header header = {.num_buffers = htole16(1)};
		struct libvhost_iov iov[PIECES];
		struct libvhost_chain c = {.size = sizeof(c), .iov = iov, .iov_cap = PIECES};
		struct pieces room;
		int rc;

		if (!p->len) {
			const ssize_t n = read(wire, p->received, sizeof(p->received));

			if (n <= 0) /* nothing, or the wire is cut */
				return LIBVHOST_TURN_WAIT;
			p->len = (uint32_t)n;
		}
		rc = libvhost_vq_pop(vq, &c);
		if (rc <= 0)
			return rc;
		room = (struct pieces){iov + c.n_read, c.n_write};
		if (c.write_len < header_len + p->len) {
			rc = libvhost_vq_push(vq, c.head, 0);
		} else {
			pieces_copy(&room, &header, header_len, true);
			pieces_copy(&room, p->received, p->len, true);
			rc = libvhost_vq_push(vq, c.head, header_len + p->len);
		}
		p->len = 0;
		if (rc < 0)
			return rc;
	}
	return LIBVHOST_TURN_MORE;
}

/* Frames to the wire. What it does not take is lost, as on any wire. */
static int transmit(struct pair *p, int wire, struct libvhost_vq *vq)
{
	const uint32_t header_len = header_bytes(vq);

	for (uint32_t i = 0; i < PER_TURN; i++) {
		struct libvhost_iov iov[PIECES];
		struct libvhost_chain c = {.size = sizeof(c), .iov = iov, .iov_cap = PIECES};
		struct pieces frame;
		size_t len;
		int rc = libvhost_vq_pop(vq, &c);

		if (rc <= 0)
			return rc;
		frame = (struct pieces){iov, c.n_read};
		pieces_skip(&frame, header_len);
		len = pieces_copy(&frame, p->sent, sizeof(p->sent), false);
		if (len && !frame.n && write(wire, p->sent, len) < 0 && errno == EBADF)
			return -EBADF;
		rc = libvhost_vq_push(vq, c.head, 0);
		if (rc < 0)
			return rc;
	}
	return LIBVHOST_TURN_MORE;
}

static int net_serve(void *arg, uint32_t queue, struct libvhost_vq *vq)
{
	struct net *n = arg;
	const int wire = n->wires[queue / 2];
	struct pair *p = &n->frames[queue / 2];

	return queue % 2 ? transmit(p, wire, vq) : receive(p, wire, vq);
}

static struct net net = {
	.device = {.name = "net",
		   .argp = &argp,
		   .virtio_id = VIRTIO_ID_NET,
		   .role = LIBVHOST_ROLE_RING,
		   .queues = 2,
		   .max_queues = 2 * PAIRS_MAX,
		   .queue_step = 2,
		   .open = net_open,
		   .bind = net_bind,
		   .serve = net_serve,
		   .close = net_close},
};
struct device *const net_device = &net.device;
