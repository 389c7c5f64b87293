/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* A queue that never runs dry beside one that is asked now and then: whatever the handler says, pop ends its turn. */
#include "workerhelp.h"

#define NEVER 100000u /* a turn without a bound */

/* The greedy queue's handler is its driver, too, and that of the other queue: one thread, so that all counts are exact.
 */
struct greed {
	struct rig *own, *other;
	int returns;
	bool asked;
	uint32_t count, asked_at; /* requests of the greedy queue */
	uint32_t longest;	  /* turn */
	uint32_t latest;	  /* requests until the other queue was served */
	atomic_uint served;	  /* times that it was */
};

static void ask_for(struct rig *r)
{
	struct libvhost_buf buf = {.gpa = DATA, .len = 64};

	libvhost_vq_add(r->drv, &buf, 1, 0, 0); /* full is full */
	libvhost_vq_kick(r->drv);
}

static int finish_one(struct libvhost_vq *vq)
{
	struct libvhost_iov iov[4];
	struct libvhost_chain c = {.size = sizeof(c), .iov = iov, .iov_cap = 4};
	const int rc = libvhost_vq_pop(vq, &c);

	if (rc > 0)
		libvhost_vq_push(vq, c.head, 0);
	return rc;
}

static void collect_used(struct rig *r)
{
	struct libvhost_used used[8];
	uint32_t n = 8;

	libvhost_vq_get_used(r->drv, used, &n);
}

static int never_dry(void *arg, struct libvhost_vq *vq)
{
	struct greed *g = arg;
	uint32_t n = 0;

	for (;;) {
		ask_for(g->own);
		if (n == NEVER || finish_one(vq) <= 0)
			break;
		libvhost_vq_flush(vq);
		collect_used(g->own);
		n++;
		g->count++;
		if (!g->asked) {
			g->asked = true;
			g->asked_at = g->count;
			ask_for(g->other);
		}
	}
	g->longest = n > g->longest ? n : g->longest;
	return g->returns;
}

static int answer(void *arg, struct libvhost_vq *vq)
{
	struct greed *g = arg;

	if (finish_one(vq) <= 0)
		return 0;
	libvhost_vq_flush(vq);
	collect_used(g->other);
	if (g->count - g->asked_at > g->latest)
		g->latest = g->count - g->asked_at;
	g->asked = false;
	g->served++;
	return 0;
}

static void share(uint64_t features, uint32_t burst, uint32_t poll_us, int returns)
{
	struct bench b = setup_opts(8, features, (struct libvhost_worker_opts){.burst = burst, .poll_us = poll_us});
	struct greed g = {.own = &b.r, .returns = returns};
	struct rig other;

	rig_new(&other, 8, features);
	g.other = &other;
	CHECK_EQ(libvhost_worker_add_vq(b.w, other.dev, other.kick, answer, &g, PATIENCE_MS), 0);
	add(&b, b.r.kick, never_dry, &g);
	for (int i = 0; i < PATIENCE_MS && g.served < 1000; i++)
		usleep(1000);
	CHECK_EQ(libvhost_worker_remove_vq(b.w, b.r.dev, PATIENCE_MS), 0);
	CHECK_EQ(libvhost_worker_remove_vq(b.w, other.dev, PATIENCE_MS), 0);
	CHECK(g.served >= 1000); /* also: what is left when a turn ends needs no kick */
	CHECK_EQ(g.longest, burst ? burst : 256);
	CHECK(g.latest <= 2 * g.longest); /* what is left of the present turn, and one whole */
	rig_free(&other);
	teardown(&b);
}

TEST(worker_burst, bounds_what_others_wait_for)
{
	share(0, 5, LIBVHOST_WORKER_NO_WINDOW, LIBVHOST_TURN_DONE);
	share(F_PACKED, 7, LIBVHOST_WORKER_NO_WINDOW, LIBVHOST_TURN_MORE);
	share(F_EVENT, 1, LIBVHOST_WORKER_NO_WINDOW, LIBVHOST_TURN_WAIT);
	share(0, 0, 0, LIBVHOST_TURN_DONE);
	share(F_PACKED, 3, 100, LIBVHOST_TURN_DONE);
}

/* Who took a queue back, or never gave it away, has no turns. */
TEST(worker_burst, is_for_workers_only)
{
	struct bench b = setup_opts(8, 0, (struct libvhost_worker_opts){.burst = 1});

	add(&b, b.r.kick, complete_all, NULL);
	for (uint64_t i = 0; i < 8; i++) {
		offer_one(&b, i);
		CHECK(completed(&b, i));
	}
	CHECK_EQ(libvhost_worker_remove_vq(b.w, b.r.dev, PATIENCE_MS), 0);
	for (int i = 0; i < 8; i++)
		ask_for(&b.r);
	for (int i = 0; i < 8; i++)
		CHECK_EQ(finish_one(b.r.dev), 1);
	CHECK_EQ(finish_one(b.r.dev), 0);
	teardown(&b);
}
