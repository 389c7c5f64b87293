/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* Random numbers from the kernel. Sandbox row: ring; the source is a descriptor that was opened before. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "cli.h"
#include "devices/device.h"

#define VIRTIO_ID_RNG 4u
#define PIECES	      16u
#define BYTES_MAX     65536u /* of one request: a worker serves others, too */

static int rng_open(struct device *d, uint32_t queues)
{
	(void)queues;
	d->files[0] = open("/dev/urandom", O_RDONLY | O_CLOEXEC);
	if (d->files[0] < 0)
		return complain("/dev/urandom: %s", strerror(errno));
	snprintf(d->summary, sizeof(d->summary), "random numbers");
	return 0;
}

static void rng_close(struct device *d)
{
	close(d->files[0]);
}

/* --- on the worker --- */

/* At most BYTES_MAX, which the driver is told by the length. */
static uint32_t fill(int source, const struct libvhost_chain *c)
{
	uint32_t done = 0;

	for (uint32_t i = c->n_read; i < c->n_read + c->n_write && done < BYTES_MAX; i++) {
		const size_t room = BYTES_MAX - done, len = c->iov[i].len < room ? c->iov[i].len : room;
		const ssize_t n = read(source, c->iov[i].base, len);

		if (n > 0)
			done += (uint32_t)n;
		if (n != (ssize_t)len)
			break;
	}
	return done;
}

static int rng_serve(void *arg, uint32_t queue, struct libvhost_vq *vq)
{
	const struct device *d = arg;
	struct libvhost_iov iov[PIECES];
	struct libvhost_chain c = {.size = sizeof(c), .iov = iov, .iov_cap = PIECES};
	int rc = libvhost_vq_pop(vq, &c);

	(void)queue;
	if (rc <= 0)
		return rc;
	rc = libvhost_vq_push(vq, c.head, fill(d->files[0], &c));
	return rc < 0 ? rc : LIBVHOST_TURN_MORE;
}

static struct device rng = {
	.name = "rng",
	.virtio_id = VIRTIO_ID_RNG,
	.role = LIBVHOST_ROLE_RING,
	.queues = 1,
	.max_queues = 1,
	.queue_step = 1,
	.open = rng_open,
	.serve = rng_serve,
	.close = rng_close,
};
struct device *const rng_device = &rng;
