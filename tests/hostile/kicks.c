/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* A guest that kicks an empty ring as fast as it can, beside one that works. */
#include "ringhelp.h"

#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>

#ifdef LV_SANITIZED
#define SANDBOX LIBVHOST_SANDBOX_OFF
#else
#define SANDBOX LIBVHOST_SANDBOX_REQUIRED
#endif
#define REQUESTS 500u
#define KICKS	 20000u

struct kicker {
	int fd;
	atomic_bool stop;
	_Atomic uint64_t kicks;
};

static void *kick_on(void *arg)
{
	const uint64_t one = 1;
	struct kicker *k = arg;

	while (!atomic_load(&k->stop))
		k->kicks += write(k->fd, &one, sizeof(one)) == sizeof(one);
	return NULL;
}

static int complete_all(void *arg, struct libvhost_vq *vq)
{
	struct libvhost_iov iov[4];
	struct libvhost_chain c = {.size = sizeof(c), .iov = iov, .iov_cap = 4};
	int rc;

	(void)arg;
	while ((rc = libvhost_vq_pop(vq, &c)) > 0)
		if (libvhost_vq_push(vq, c.head, 0) < 0)
			return -EIO;
	return rc;
}

/* One request there and back. */
static bool round_trip(struct rig *r)
{
	const struct libvhost_buf buf = {.gpa = DATA, .len = 64};
	struct libvhost_used used;

	CHECK_EQ(libvhost_vq_add(r->drv, &buf, 1, 0, 0), 0);
	CHECK(libvhost_vq_kick(r->drv) >= 0);
	for (int i = 0; i < PATIENCE_MS / 100; i++) {
		struct pollfd p = {.fd = r->call, .events = POLLIN};
		uint32_t n = 1;

		CHECK_EQ(libvhost_vq_get_used(r->drv, &used, &n), 0);
		if (n)
			return true;
		if (!libvhost_vq_notify_enable(r->drv, 1))
			poll(&p, 1, 100);
		signalled(r->call);
	}
	return false;
}

static uint64_t wakeups(struct libvhost_worker *w)
{
	struct libvhost_worker_status s = {.size = sizeof(s)};

	CHECK_EQ(libvhost_worker_status(w, &s), 0);
	return s.wakeups;
}

TEST(hostile_ring, r208_a_storm_of_kicks_on_an_empty_ring_starves_nobody)
{
	const struct libvhost_worker_opts opts = {.size = sizeof(opts), .sandbox = SANDBOX};
	struct libvhost_worker *w = NULL;
	struct kicker k = {0};
	uint64_t before = 0, after = 1;
	struct rig storm, calm;
	uint32_t served = 0;
	pthread_t thread;

	rig_new(&storm, 8, 0);
	rig_new(&calm, 8, 0);
	CHECK_EQ(libvhost_worker_new(calm.g.ctx, &opts, &w), 0);
	CHECK_EQ(libvhost_worker_add_vq(w, storm.dev, storm.kick, complete_all, NULL, PATIENCE_MS), 0);
	CHECK_EQ(libvhost_worker_add_vq(w, calm.dev, calm.kick, complete_all, NULL, PATIENCE_MS), 0);
	k.fd = storm.kick;
	CHECK_EQ(pthread_create(&thread, NULL, kick_on, &k), 0);
	while (!atomic_load(&k.kicks))
		usleep(100);
	while ((served < REQUESTS || atomic_load(&k.kicks) < KICKS) && round_trip(&calm))
		served++;
	atomic_store(&k.stop, true);
	CHECK_EQ(pthread_join(thread, NULL), 0);
	CHECK(served >= REQUESTS);
	CHECK(k.kicks >= KICKS);
	CHECK_EQ(vq_info(storm.dev).requests, 0);
	CHECK_EQ(vq_info(storm.dev).broken, 0);
	for (int i = 0; i < PATIENCE_MS / 50 && before != after; i++) { /* it looks at the last kick, then it sleeps */
		before = after;
		usleep(50000);
		after = wakeups(w);
	}
	CHECK_EQ(after, before);
	CHECK(round_trip(&storm));
	CHECK_EQ(libvhost_worker_remove_vq(w, storm.dev, PATIENCE_MS), 0);
	CHECK_EQ(libvhost_worker_remove_vq(w, calm.dev, PATIENCE_MS), 0);
	libvhost_worker_free(w);
	rig_free(&storm);
	rig_free(&calm);
}
