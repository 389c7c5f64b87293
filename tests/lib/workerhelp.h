/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* A worker, one queue with both its ends, and a driver that waits as drivers do. */
#ifndef WORKERHELP_H
#define WORKERHELP_H

#include "ringhelp.h"

#include <poll.h>
#include <stdatomic.h>

#ifdef LV_SANITIZED
#define SANDBOX LIBVHOST_SANDBOX_OFF
#else
#define SANDBOX LIBVHOST_SANDBOX_REQUIRED
#endif

struct bench {
	struct rig r;
	struct libvhost_worker *w;
	struct lv_ledger before;
};

static inline struct bench setup_opts(uint32_t num, uint64_t features, struct libvhost_worker_opts opts)
{
	struct bench b = {0};
	struct guest g = guest_new(0);

	opts.size = sizeof(opts);
	opts.sandbox = SANDBOX;
	CHECK_EQ(libvhost_worker_new(g.ctx, &opts, &b.w), 0); /* a sanitizer's first thread brings one of its own */
	libvhost_worker_free(b.w);
	guest_free(&g);
	b.before = lv_ledger_take();
	rig_new(&b.r, num, features);
	CHECK_EQ(libvhost_worker_new(b.r.g.ctx, &opts, &b.w), 0);
	return b;
}

static inline struct bench setup(uint32_t num, uint64_t features, uint32_t poll_us)
{
	return setup_opts(num, features, (struct libvhost_worker_opts){.poll_us = poll_us});
}

static inline void teardown(struct bench *b)
{
	libvhost_worker_free(b->w);
	rig_free(&b->r);
	CHECK_LEDGER(b->before);
}

static inline struct libvhost_worker_status status(struct bench *b)
{
	struct libvhost_worker_status s = {.size = sizeof(s)};

	CHECK_EQ(libvhost_worker_status(b->w, &s), 0);
	return s;
}

/* Completes what is there, at most 16 requests a turn. */
static inline int complete_all(void *arg, struct libvhost_vq *vq)
{
	struct libvhost_iov iov[4];
	struct libvhost_chain c = {.size = sizeof(c), .iov = iov, .iov_cap = 4};
	int rc = 0;

	(void)arg;
	for (int i = 0; i < 16 && (rc = libvhost_vq_pop(vq, &c)) > 0; i++)
		rc = libvhost_vq_push(vq, c.head, 0) < 0 ? -EIO : 1;
	return rc;
}

static inline int offer_one(struct bench *b, uint64_t token)
{
	struct libvhost_buf buf = {.gpa = DATA, .len = 64};

	CHECK_EQ(libvhost_vq_add(b->r.drv, &buf, 1, 0, token), 0);
	return libvhost_vq_kick(b->r.drv);
}

/* Waits for one completion, as a driver does: look, ask for a call, look again, sleep. */
static inline bool completed(struct bench *b, uint64_t token)
{
	struct libvhost_used used;

	for (int i = 0; i < PATIENCE_MS / 100; i++) {
		struct pollfd p = {.fd = b->r.call, .events = POLLIN};
		uint32_t n = 1;

		CHECK_EQ(libvhost_vq_get_used(b->r.drv, &used, &n), 0);
		if (n) {
			CHECK_EQ(used.token, token);
			return true;
		}
		if (libvhost_vq_notify_enable(b->r.drv, 1))
			continue;
		poll(&p, 1, 100);
		signalled(b->r.call);
	}
	return false;
}

static inline void add(struct bench *b, int kick_fd, libvhost_ring_fn fn, void *arg)
{
	CHECK_EQ(libvhost_worker_add_vq(b->w, b->r.dev, kick_fd, fn, arg, PATIENCE_MS), 0);
}

static inline bool becomes(atomic_uint *word, unsigned value)
{
	for (int i = 0; i < PATIENCE_MS && atomic_load(word) != value; i++)
		usleep(1000);
	return atomic_load(word) == value;
}

#endif
