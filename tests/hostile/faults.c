/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/*
 * The n-th allocation, descriptor or mapping fails, for each n of a device's whole life, once or from then on. Only the
 * thread that lives the life is touched, not the peer's.
 */
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>
#include "faults.h"
#include "upgrade.h"

/* ---- a life ---- */

struct life {
	struct libvhost_ctx *ctx;
	struct libvhost_mem *mem;
	struct libvhost_dev *dev;
	struct puppet p;
	char path[64], uri[80];
	int expected; /* what a failed call may say */
	uint32_t failures;
};

static int make_ctx(struct life *l)
{
	return libvhost_ctx_new(NULL, &l->ctx);
}

static int make_mem(struct life *l)
{
	return libvhost_mem_new(l->ctx, NULL, &l->mem);
}

static int begin(struct life *l)
{
	return libvhost_mem_begin(l->mem);
}

static int alloc_low(struct life *l)
{
	return libvhost_mem_alloc(l->mem, 0, DEVRIG_RAM);
}

static int alloc_high(struct life *l)
{
	return libvhost_mem_alloc(l->mem, 1ull << 32, 0x10000);
}

static int commit(struct life *l)
{
	return libvhost_mem_commit(l->mem, 5000, NULL);
}

static int init(struct life *l)
{
	const struct libvhost_dev_opts o = {
		.size = sizeof(o), .num_queues = DEVRIG_QUEUES, .mem = l->mem, .uri = l->uri, .timeout_ms = 5000};

	return libvhost_dev_init(l->ctx, &o, &l->dev);
}

static int queues(struct life *l)
{
	int rc = 0;

	for (uint32_t i = 0; !rc && i < DEVRIG_QUEUES; i++) {
		const struct libvhost_queue q = devrig_queue(i);

		rc = libvhost_dev_set_queue(l->dev, i, &q);
	}
	return rc;
}

static int watch(struct life *l)
{
	const int fd = libvhost_dev_fd(l->dev);

	return fd < 0 ? fd : 0;
}

static int start(struct life *l)
{
	const int rc = libvhost_dev_start(l->dev, NULL);

	return rc == -EALREADY ? 0 : rc;
}

static int mask(struct life *l)
{
	return libvhost_virtqueue_mask(l->dev, 1, 1);
}

static int reconnect(struct life *l)
{
	return libvhost_dev_reconnect(l->dev, NULL);
}

static int stop(struct life *l)
{
	const int rc = libvhost_dev_stop(l->dev, NULL);

	return rc == -EALREADY ? 0 : rc;
}

static int reset(struct life *l)
{
	return libvhost_dev_reset(l->dev, NULL);
}

static int (*const steps[])(struct life *) = {make_ctx, make_mem,  begin, alloc_low, commit, init,
					      queues,	watch,	   start, mask,	     begin,  alloc_high,
					      commit,	reconnect, stop,  start,     stop,   reset};

/* A device whose peer could not be told is lost or disconnected, and comes back. */
static void heal(struct life *l)
{
	struct libvhost_dev_info info = {.size = sizeof(info)};

	if (!l->dev)
		return;
	CHECK_EQ(libvhost_dev_info(l->dev, &info), 0);
	CHECK_EQ(info.busy, 0);
	if (info.state == LIBVHOST_DEV_LOST || info.state == LIBVHOST_DEV_DISCONNECTED)
		CHECK_EQ(libvhost_dev_reconnect(l->dev, NULL), 0);
}

/* A failed step says so, and succeeds when the fault is gone. */
static void take_step(struct life *l, uint32_t n)
{
	int rc = steps[n](l);

	if (fault.what != FAULT_NONE && !fault.hit && !rc)
		return;
	if (fault.hit) {
		l->failures += rc != 0;
		if (rc && rc != l->expected)
			lv_test_fail(__FILE__, __LINE__, "step %u, call %u: %d instead of %d", n, fault.at, rc,
				     l->expected);
		faults_off();
		heal(l);
		if (rc)
			rc = steps[n](l);
	}
	if (rc)
		lv_test_fail(__FILE__, __LINE__, "step %u, call %u: %d when repeated", n, fault.at, rc);
}

/* Lives with one fault; how many calls of its class the life makes. */
static uint32_t live_once(enum fault_class what, uint32_t at, bool on, uint32_t *failures)
{
	static struct life l;
	static unsigned number;
	uint32_t count;

	memset(&l, 0, sizeof(l));
	l.expected = what == FAULT_FD ? -EMFILE : -ENOMEM;
	snprintf(l.path, sizeof(l.path), "/tmp/libvhost-faults-%d-%u.sock", (int)getpid(), number++);
	snprintf(l.uri, sizeof(l.uri), "user:%s", l.path);
	puppet_init(&l.p);
	l.p.protocol_features &= ~PUPPET_PF(STATUS);
	puppet_listen(&l.p, l.path);
	faults_on(what, at, on);
	for (uint32_t n = 0; n < sizeof(steps) / sizeof(steps[0]); n++)
		take_step(&l, n);
	count = fault.count;
	faults_on(FAULT_MEMORY, 0, true); /* the end needs nothing */
	libvhost_dev_cleanup(l.dev);
	libvhost_mem_free(l.mem);
	libvhost_ctx_free(l.ctx);
	faults_off();
	puppet_stop(&l.p);
	*failures += l.failures;
	return count;
}

/* ---- the end needs no memory ---- */

/* How a device came to run. */
struct shape {
	const char *name;
	uint32_t queues, dev_flags, policy;
	uint64_t protocol; /* more that the peer offers */
	bool singly;	   /* its queues were started one by one */
	bool log, thawed, reconnected, async, two;
};

static const struct shape shapes[] = {
	{.name = "plain", .queues = 4},
	{.name = "64 queues", .queues = 64},
	{.name = "64 queues, each confirmed", .queues = 64, .policy = LIBVHOST_ACK_ALL},
	{.name = "64 queues, nothing confirmed", .queues = 64, .policy = LIBVHOST_ACK_NONE},
	{.name = "64 queues, one by one", .queues = 64, .singly = true},
	{.name = "256 queues, one by one", .queues = 256, .singly = true, .policy = LIBVHOST_ACK_ALL},
	{.name = "device status", .queues = 8, .protocol = PUPPET_PF(STATUS)},
	{.name = "inflight", .queues = 64, .dev_flags = LIBVHOST_DEV_INFLIGHT},
	{.name = "inflight, not drained",
	 .queues = 64,
	 .dev_flags = LIBVHOST_DEV_INFLIGHT | LIBVHOST_DEV_STOP_INFLIGHT,
	 .protocol = PUPPET_PF(GET_VRING_BASE_INFLIGHT)},
	{.name = "log", .queues = 64, .log = true},
	{.name = "thawed", .queues = 64, .thawed = true},
	{.name = "thawed with log and one by one", .queues = 64, .thawed = true, .log = true, .singly = true},
	{.name = "reconnected", .queues = 64, .reconnected = true},
	{.name = "by an event loop", .queues = 64, .async = true},
	{.name = "two parts", .queues = 64, .two = true, .log = true, .protocol = PUPPET_PF(STATUS)},
};

static void add_second(struct upgrade *u, struct wirerig *second)
{
	struct libvhost_transport *t;

	wirerig_join(second, &u->w);
	second->p.features = u->w.p.features;
	wirerig_listen(second);
	CHECK_EQ(libvhost_transport_open(u->w.r.g.ctx, second->uri, NULL, &t), 0);
	CHECK_EQ(libvhost_dev_add_part(u->w.r.dev, t, u->w.r.opts.num_queues / 2, u->w.r.opts.num_queues / 2, 0), 0);
}

static void run_shape(struct upgrade *u, struct wirerig *second, const struct shape *s)
{
	up_init(u);
	u->w.r.opts.num_queues = s->queues;
	u->w.r.opts.flags = s->dev_flags;
	u->w.r.opts.ack_policy = s->policy;
	u->w.p.features |= 1ull << 26;
	u->w.p.protocol_features |= s->protocol;
	u->w.r.opts.part_queues = s->two ? s->queues / 2 : 0;
	wirerig_listen(&u->w);
	CHECK_EQ(devrig_open(&u->w.r), 0);
	if (s->two)
		add_second(u, second);
	devrig_queues(&u->w.r, s->singly ? 1 : s->queues);
	CHECK_EQ(libvhost_dev_start(u->w.r.dev, NULL), 0);
	for (uint32_t i = 1; s->singly && i < s->queues; i++) {
		const struct libvhost_queue q = devrig_queue(i);

		CHECK_EQ(libvhost_dev_set_queue(u->w.r.dev, i, &q), 0);
		CHECK_EQ(libvhost_dev_start_queue(u->w.r.dev, i, 0), 0);
	}
	if (s->log)
		CHECK_EQ(libvhost_mem_log_start(u->w.r.g.mem, 0, NULL), 0);
	if (s->thawed)
		up_hop(u);
	if (s->reconnected)
		CHECK_EQ(libvhost_dev_reconnect(u->w.r.dev, NULL), 0);
}

static int stop_now(struct upgrade *u, const struct shape *s)
{
	const struct libvhost_call_opts o = {.size = sizeof(o), .flags = s->async ? LIBVHOST_CALL_ASYNC : 0};
	struct libvhost_event e;
	int rc = libvhost_dev_stop(u->w.r.dev, &o);

	if (rc != -EINPROGRESS)
		return rc;
	return devrig_await(&u->w.r, LIBVHOST_EVENT_DONE, PATIENCE_MS, &e) ? e.err : -ETIMEDOUT;
}

/* Not once is memory asked for: there is no point at which it could be missing. */
TEST(hostile_faults, r242_a_stop_needs_no_memory)
{
	static struct wirerig second;
	static struct upgrade u;

	for (uint32_t i = 0; i < sizeof(shapes) / sizeof(shapes[0]); i++) {
		const struct shape *s = &shapes[i];
		uint32_t count;
		int rc;

		run_shape(&u, &second, s);
		faults_on(FAULT_MEMORY, 0, true);
		rc = stop_now(&u, s);
		count = fault.count;
		faults_off();
		if (rc || count)
			lv_test_fail(__FILE__, __LINE__, "%s: stop says %d, asked for memory %u times", s->name, rc,
				     count);
		CHECK_EQ(devrig_state(&u.w.r), LIBVHOST_DEV_NEGOTIATED);
		if (s->log)
			CHECK_EQ(libvhost_mem_log_stop(u.w.r.g.mem, 0, NULL), 0);
		if (!s->thawed)
			CHECK_EQ(libvhost_dev_start(u.w.r.dev, NULL), 0);
		faults_on(FAULT_MEMORY, 0, true);
		CHECK_EQ(libvhost_dev_reset(u.w.r.dev, NULL), 0);
		CHECK_EQ(fault.count, 0);
		faults_off();
		if (s->two) {
			libvhost_dev_cleanup(u.w.r.dev);
			u.w.r.dev = NULL;
			puppet_stop(&second.p);
		}
		up_close(&u);
	}
}

/* Not one byte is to be had any more: the peer's end is noticed, a device stops by force, and all of it is freed. */
static void end_without_memory(bool peer_dies, bool force)
{
	static struct wirerig w;

	wirerig_init(&w);
	w.r.opts.flags = LIBVHOST_DEV_AUTO_RECONNECT;
	wirerig_start(&w);
	if (peer_dies)
		puppet_kill(&w.p);
	faults_on(FAULT_MEMORY, 0, true);
	if (peer_dies)
		CHECK(devrig_await(&w.r, LIBVHOST_EVENT_DISCONNECTED, PATIENCE_MS, NULL));
	if (force)
		CHECK_EQ(libvhost_dev_force_stop(w.r.dev), 0);
	else if (!peer_dies)
		CHECK_EQ(libvhost_dev_stop(w.r.dev, NULL), 0);
	libvhost_dev_cleanup(w.r.dev);
	w.r.dev = NULL;
	faults_off();
	wirerig_close(&w);
}

TEST(hostile_faults, r242_the_end_needs_no_memory)
{
	for (int i = 0; i < 4; i++)
		end_without_memory(i & 1, i & 2);
}

/* ---- a life with a fault ---- */

static void lives(enum fault_class what, bool on, uint32_t least)
{
	const struct faults_seen seen = faults_everywhere(live_once, what, on, least);

	printf("# %u calls, %u lives with a failed operation\n", seen.calls, seen.failures);
	CHECK(seen.failures >= seen.calls / 2);
}

TEST(hostile_faults, r241_an_allocation_fails_once)
{
	lives(FAULT_MEMORY, false, 30);
}

TEST(hostile_faults, r241_allocations_fail_from_some_moment_on)
{
	lives(FAULT_MEMORY, true, 30);
}

TEST(hostile_faults, no_descriptor_is_left_once)
{
	lives(FAULT_FD, false, 15);
}

TEST(hostile_faults, no_descriptor_is_left_from_some_moment_on)
{
	lives(FAULT_FD, true, 15);
}

TEST(hostile_faults, r248_a_mapping_fails)
{
	lives(FAULT_MAP, false, 2);
	lives(FAULT_MAP, true, 2);
}

/* The kernel allows a user 128 inotify descriptors or so: without one the pauses are what is left. */
TEST(hostile_faults, without_inotify_the_pauses_find_a_new_socket)
{
	const struct libvhost_reconnect_policy policy = {.size = sizeof(policy), .first_ms = 20, .max_ms = 20};
	static struct wirerig w;
	uint64_t features;

	wirerig_init(&w);
	features = w.p.protocol_features;
	wirerig_start(&w);
	CHECK_EQ(libvhost_dev_set_reconnect(w.r.dev, &policy), 0);
	faults_on(FAULT_INOTIFY, 0, true);
	puppet_stop(&w.p);
	CHECK(!devrig_await(&w.r, LIBVHOST_EVENT_RECONNECTED, 50, NULL));
	CHECK(fault.hit);
	puppet_init(&w.p);
	w.p.protocol_features = features;
	wirerig_listen(&w);
	CHECK(devrig_await(&w.r, LIBVHOST_EVENT_RECONNECTED, PATIENCE_MS, NULL));
	faults_off();
	wirerig_close(&w);
}
