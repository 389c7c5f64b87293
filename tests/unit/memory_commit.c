/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* Commit and its clients: quick, slow, mute, dying and refusing ones. */
#include "memhelp.h"

#include <pthread.h>
#include <sys/eventfd.h>

/* A device that follows: how it behaves, and what happened to it. */
struct fake {
	int refuse;   /* prepare says this */
	int at_begin; /* begin says this */
	int answer;   /* progress says this once fd is readable */
	int fd;	      /* -1 = waits without a descriptor */
	int asks;     /* fd -1: progress answers at the n-th question */
	int prepared; /* prepare - unprepare - finish */
	int begins, ends, result;
	uint32_t seen, before;
	struct lv_mem_client *node;
};

static int fake_prepare(void *client, const struct lv_snapshot *now)
{
	struct fake *f = client;

	f->seen = now->count;
	f->prepared += !f->refuse;
	return f->refuse;
}

static void fake_unprepare(void *client)
{
	((struct fake *)client)->prepared--;
}

static int fake_begin(void *client, struct lv_snapshot *old, struct lv_snapshot *now, uint64_t deadline)
{
	struct fake *f = client;

	CHECK(deadline > 0);
	f->begins++;
	f->before = old->count;
	f->seen = now->count;
	/* both maps are alive until finish */
	for (uint32_t i = 0; i < old->count; i++)
		(void)*(volatile uint8_t *)old->maps[i].hva;
	return f->at_begin;
}

static int fake_progress(void *client)
{
	struct fake *f = client;
	uint64_t n;

	if (f->fd < 0)
		return --f->asks > 0 ? 0 : f->answer;
	return read(f->fd, &n, sizeof(n)) == sizeof(n) ? f->answer : 0;
}

static uint32_t fake_pollfds(void *client, struct pollfd *fds, uint32_t cap)
{
	struct fake *f = client;

	CHECK(cap >= 1);
	fds[0] = (struct pollfd){.fd = f->fd, .events = POLLIN};
	return f->fd >= 0;
}

static void fake_finish(void *client, int result)
{
	struct fake *f = client;

	f->prepared--;
	f->ends++;
	f->result = result;
}

static const struct lv_mem_client_ops fake_ops = {
	.prepare = fake_prepare,
	.unprepare = fake_unprepare,
	.begin = fake_begin,
	.progress = fake_progress,
	.pollfds = fake_pollfds,
	.finish = fake_finish,
};

static void attach(struct guest *g, struct fake *f)
{
	CHECK_EQ(lv_mem_attach(g->mem, &fake_ops, f, &f->node), 0);
}

static int commit_one(struct guest *g, uint32_t timeout, uint32_t *lost)
{
	CHECK_EQ(libvhost_mem_begin(g->mem), 0);
	CHECK_EQ(libvhost_mem_alloc(g->mem, 0x10000, PAGE), 0);
	return libvhost_mem_commit(g->mem, timeout, lost);
}

TEST(memory, commit_tells_each_kind_of_device)
{
	struct guest g = guest_new(0);
	int ready = eventfd(1, EFD_CLOEXEC | EFD_NONBLOCK), never = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	int dies = eventfd(1, EFD_CLOEXEC | EFD_NONBLOCK);
	struct fake quick = {.at_begin = 1, .fd = -1}, slow = {.answer = 1, .fd = ready}, mute = {.fd = never};
	struct fake dying = {.answer = -EPIPE, .fd = dies}, dead = {.at_begin = -ENOTCONN, .fd = -1};
	struct fake asked = {.answer = 1, .fd = -1, .asks = 3};
	struct fake *all[] = {&quick, &slow, &mute, &dying, &dead, &asked};
	uint32_t lost = 99;
	uint64_t start;

	for (int i = 0; i < 6; i++)
		attach(&g, all[i]);
	start = now_ms();
	CHECK_EQ(commit_one(&g, 150, &lost), 0);
	CHECK(now_ms() - start >= 140 && now_ms() - start < 1500);
	CHECK_EQ(lost, 3);
	CHECK_EQ(quick.result, 1);
	CHECK_EQ(slow.result, 1);
	CHECK_EQ(asked.result, 1);
	CHECK_EQ(mute.result, -ETIMEDOUT);
	CHECK_EQ(dying.result, -EPIPE);
	CHECK_EQ(dead.result, -ENOTCONN);
	for (int i = 0; i < 6; i++) {
		CHECK_EQ(all[i]->prepared, 0);
		CHECK_EQ(all[i]->begins, 1);
		CHECK_EQ(all[i]->ends, 1);
		CHECK_EQ(all[i]->before, 0);
		CHECK_EQ(all[i]->seen, 1);
		lv_mem_detach(g.mem, all[i]->node);
	}
	CHECK(at(&g, 0x10000));
	close(ready);
	close(never);
	close(dies);
	guest_free(&g);
}

TEST(memory, refusal_leaves_the_transaction_open)
{
	static const struct {
		int code, kind;
	} refusals[] = {{-ENOSPC, LIBVHOST_EK_NO_SLOT},
			{-ENOTSUP, LIBVHOST_EK_UNSUPPORTED},
			{-EBUSY, LIBVHOST_EK_BUSY},
			{-ENOMEM, LIBVHOST_EK_NOMEM}};
	struct guest g = guest_new(0);
	struct fake a = {.at_begin = 1, .fd = -1}, b = a, c = a;
	uint32_t lost = 99;

	attach(&g, &a);
	attach(&g, &b);
	attach(&g, &c);
	CHECK_EQ(libvhost_mem_begin(g.mem), 0);
	CHECK_EQ(libvhost_mem_alloc(g.mem, 0x10000, PAGE), 0);
	for (int i = 0; i < 4; i++) {
		b.refuse = refusals[i].code;
		CHECK_EQ(libvhost_mem_commit(g.mem, 0, &lost), refusals[i].code);
		CHECK_EQ(last_error(&g).kind, refusals[i].kind);
		CHECK_HAS(last_error(&g).text, "still open");
		CHECK_EQ(lost, 99);
		CHECK_EQ(a.prepared + b.prepared + c.prepared, 0);
		CHECK_EQ(a.begins + b.begins + c.begins, 0);
		CHECK(!at(&g, 0x10000));
	}
	b.refuse = 0;
	CHECK_EQ(libvhost_mem_alloc(g.mem, 0x20000, PAGE), 0); /* still open, and as it was */
	CHECK_EQ(libvhost_mem_commit(g.mem, 0, &lost), 0);
	CHECK_EQ(lost, 0);
	CHECK_EQ(c.seen, 2);
	CHECK(at(&g, 0x10000) && at(&g, 0x20000));
	lv_mem_detach(g.mem, b.node);
	lv_mem_detach(g.mem, a.node);
	lv_mem_detach(g.mem, c.node);
	guest_free(&g);
}

/* Each look at the clock is an hour later: the deadline has passed before anybody was asked. */
static uint64_t leaping(void *arg)
{
	return *(uint64_t *)arg += 3600000 * LV_NS_PER_MS;
}

TEST(memory, an_answer_that_is_there_at_the_deadline_counts)
{
	struct guest g = guest_new(0);
	struct fake f = {.answer = 1, .fd = -1, .asks = 1}, mute = {.fd = -1, .asks = 99};
	uint64_t now = 0;
	uint32_t lost = 99;

	lv_clock_replace(g.ctx, leaping, &now);
	attach(&g, &f);
	attach(&g, &mute);
	CHECK_EQ(commit_one(&g, 1, &lost), 0);
	CHECK_EQ(lost, 1);
	CHECK_EQ(f.result, 1);
	CHECK_EQ(mute.result, -ETIMEDOUT);
	lv_mem_detach(g.mem, f.node);
	lv_mem_detach(g.mem, mute.node);
	guest_free(&g);
}

TEST(memory, attached_device_keeps_memory_alive)
{
	struct lv_ledger before = lv_ledger_take();
	struct guest g = guest_new(0);
	struct fake f = {.at_begin = 1, .fd = -1};
	struct libvhost_mem *mem = g.mem;
	struct lv_snapshot *snap;

	attach(&g, &f);
	CHECK_EQ(commit_one(&g, 0, NULL), 0);
	guest_free(&g);
	snap = lv_mem_snapshot(mem);
	CHECK_EQ(snap->count, 1);
	lv_snapshot_put(snap);
	lv_mem_detach(mem, f.node);
	CHECK_LEDGER(before);
}

TEST(memory, free_slot_is_the_smallest_table)
{
	struct guest g = guest_new(0);
	struct fake a = {.at_begin = 1, .fd = -1}, b = a;

	attach(&g, &a);
	attach(&g, &b);
	CHECK_EQ(libvhost_has_free_slot(g.mem), 1);
	lv_mem_client_limits(a.node, 8, LIBVHOST_MAX_REGIONS);
	lv_mem_client_limits(b.node, 2, LIBVHOST_MAX_REGIONS);
	CHECK_EQ(libvhost_mem_begin(g.mem), 0);
	CHECK_EQ(libvhost_mem_alloc(g.mem, 0, PAGE), 0);
	CHECK_EQ(libvhost_has_free_slot(g.mem), 1);
	CHECK_EQ(libvhost_mem_alloc(g.mem, PAGE, PAGE), 0);
	CHECK_EQ(libvhost_has_free_slot(g.mem), 0);
	CHECK_EQ(libvhost_mem_commit(g.mem, 0, NULL), 0);
	CHECK_EQ(libvhost_has_free_slot(g.mem), 0);
	lv_mem_detach(g.mem, b.node);
	CHECK_EQ(libvhost_has_free_slot(g.mem), 1);
	lv_mem_detach(g.mem, a.node);
	guest_free(&g);
}

/* A peer without slots gets merged regions: neighbours of one file take one entry of its table. */
TEST(memory, free_slot_counts_merged_regions_where_they_are_merged)
{
	struct guest g = guest_new(0);
	struct fake a = {.at_begin = 1, .fd = -1}, b = a;
	int fd = memfd(4 * PAGE, 0);

	attach(&g, &a);
	lv_mem_client_limits(a.node, LIBVHOST_MAX_REGIONS, 2);
	CHECK_EQ(libvhost_mem_begin(g.mem), 0);
	for (unsigned i = 0; i < 4; i++) {
		struct libvhost_region r = region(fd, i * PAGE, PAGE, i * PAGE);

		CHECK_EQ(libvhost_mem_add(g.mem, &r), 0);
		CHECK_EQ(libvhost_has_free_slot(g.mem), 1);
	}
	CHECK_EQ(libvhost_mem_commit(g.mem, 0, NULL), 0);
	CHECK_EQ(libvhost_has_free_slot(g.mem), 1);
	attach(&g, &b);
	lv_mem_client_limits(b.node, 4, LIBVHOST_MAX_REGIONS);
	CHECK_EQ(libvhost_has_free_slot(g.mem), 0); /* the other device has slots, and all are taken */
	lv_mem_client_limits(b.node, 5, LIBVHOST_MAX_REGIONS);
	CHECK_EQ(libvhost_mem_begin(g.mem), 0);
	CHECK_EQ(libvhost_mem_alloc(g.mem, 1 << 20, PAGE), 0);
	CHECK_EQ(libvhost_has_free_slot(g.mem), 0); /* two of two, and five of five */
	CHECK_EQ(libvhost_mem_abort(g.mem), 0);
	CHECK_EQ(libvhost_has_free_slot(g.mem), 1);
	lv_mem_detach(g.mem, b.node);
	lv_mem_detach(g.mem, a.node);
	close(fd);
	guest_free(&g);
}

struct other {
	struct guest *g;
	int rc;
};

static void *commit_slowly(void *arg)
{
	struct other *o = arg;

	o->rc = libvhost_mem_commit(o->g->mem, 5000, NULL);
	return NULL;
}

TEST(memory, calls_during_a_commit_are_busy_and_attach_waits)
{
	struct guest g = guest_new(0);
	int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	struct fake slow = {.answer = 1, .fd = fd}, late = {.at_begin = 1, .fd = -1};
	struct other o = {.g = &g, .rc = 1};
	struct libvhost_region r = {.size = PAGE, .user_addr = 0x10000};
	pthread_t t;

	attach(&g, &slow);
	CHECK_EQ(libvhost_mem_begin(g.mem), 0);
	CHECK_EQ(libvhost_mem_alloc(g.mem, 0x10000, PAGE), 0);
	CHECK_EQ(pthread_create(&t, NULL, commit_slowly, &o), 0);
	while (!at(&g, 0x10000))
		usleep(1000);
	CHECK_EQ(libvhost_mem_begin(g.mem), -EBUSY);
	CHECK_EQ(libvhost_mem_add(g.mem, &r), -EBUSY);
	CHECK_EQ(libvhost_mem_remove(g.mem, 0x10000, PAGE), -EBUSY);
	CHECK_EQ(libvhost_mem_abort(g.mem), -EBUSY);
	CHECK_EQ(libvhost_mem_commit(g.mem, 0, NULL), -EBUSY);
	CHECK_EQ(libvhost_has_free_slot(g.mem), 1);
	CHECK_EQ(write(fd, &(uint64_t){1}, 8), 8);
	attach(&g, &late); /* returns when the commit is over */
	CHECK_EQ(late.begins, 0);
	pthread_join(t, NULL);
	CHECK_EQ(o.rc, 0);
	lv_mem_detach(g.mem, late.node);
	lv_mem_detach(g.mem, slow.node);
	close(fd);
	guest_free(&g);
}
