/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
#include "keeper.h"

#include <errno.h>
#include <sched.h>
#include <unistd.h>
#include <vhost/backend.h>
#include "vring/vring.h"

static int keep(void *arg, uint32_t queue, struct libvhost_vq *vq)
{
	struct keeper *k = arg;
	struct libvhost_iov iov[16];
	struct libvhost_chain c = {.size = sizeof(c), .iov = iov, .iov_cap = 16};
	struct libvhost_vq_info info = {.size = sizeof(info)};
	int rc;

	(void)queue;
	while (vq->draining && k->stuck)
		sched_yield();
	libvhost_vq_info(vq, &info);
	if (!info.requests) { /* a new start: what was kept belongs to the old one and will come again */
		k->again += k->n;
		k->n = 0;
	}
	while ((rc = libvhost_vq_pop(vq, &c)) > 0) {
		k->heads[k->n++] = c.head;
		k->taken++;
	}
	while (k->release && k->n)
		if (libvhost_vq_push(vq, k->heads[--k->n], 0) < 0)
			return -EIO;
	return rc < 0 ? rc : k->n > 0;
}

const struct libvhost_backend_ops keeper_ops = {.size = sizeof(keeper_ops), .serve = keep};

void keeper_await(struct keeper *k, uint32_t n)
{
	for (int i = 0; i < PATIENCE_MS && k->taken < n; i++)
		usleep(1000);
	CHECK_EQ(k->taken, n);
}
