/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* Coming back on real sockets: peers that die in each handshake, callers that change their mind, a herd of devices. */
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/inotify.h>
#include <sys/syscall.h>
#include <unistd.h>
#include "core/clock.h"
#include "device/device.h"
#include "wirerig.h"

static void set_policy(struct libvhost_dev *dev, uint32_t first_ms, uint32_t max_ms, uint32_t jitter)
{
	const struct libvhost_reconnect_policy policy = {
		.size = sizeof(policy), .first_ms = first_ms, .max_ms = max_ms, .jitter_percent = jitter};

	CHECK_EQ(libvhost_dev_set_reconnect(dev, &policy), 0);
}

/* ---- twenty restarts ---- */

#define RESTARTS 20u

/* In its n-th life the peer dies at message n, and is well from the twenty-second on. */
static bool die_later_each_time(struct puppet *p, const struct libvhost_req *req, const struct lv_user_msg *msg)
{
	const uint32_t life = atomic_load(&p->sessions);

	(void)msg;
	if (req->op != LIBVHOST_OP_GET_FEATURES || life < 2 || life > RESTARTS + 1)
		return false;
	pthread_mutex_lock(&p->lock);
	p->faults[0] = (struct puppet_fault){.at = life - 1, .what = life % 2 ? PUPPET_DIE_BEFORE : PUPPET_DIE_AFTER};
	pthread_mutex_unlock(&p->lock);
	return false;
}

TEST(hostile_reconnect, a_peer_that_restarts_twenty_times_in_its_handshake)
{
	struct libvhost_event e;
	struct wirerig w;

	wirerig_init(&w);
	w.p.on_message = die_later_each_time;
	wirerig_start(&w);
	set_policy(w.r.dev, 1, 1, 0);
	devrig_set_used(&w.r, 2, 9);
	puppet_kill(&w.p);
	CHECK(devrig_await(&w.r, LIBVHOST_EVENT_RECONNECTED, PATIENCE_MS, &e));
	CHECK_EQ(e.value[3], RESTARTS + 1);
	CHECK(e.value[2] < e.value[1]);
	CHECK_EQ(devrig_state(&w.r), LIBVHOST_DEV_RUNNING);
	CHECK_EQ(atomic_load(&w.p.sessions), RESTARTS + 2);
	CHECK_EQ(libvhost_dev_stop(w.r.dev, NULL), 0);
	CHECK_EQ(w.p.ring[2].base, 9);
	wirerig_close(&w);
}

/* ---- changing one's mind ---- */

static void *dispatch_long(void *arg)
{
	struct devrig *r = arg;

	for (int i = 0; i < 1000 && devrig_state(r) == LIBVHOST_DEV_RECONNECTING; i++)
		(void)libvhost_dev_dispatch(r->dev, 10000);
	return NULL;
}

/* The peer is gone and the next attempt a minute away; another thread waits in dispatch. */
static void lonely(struct wirerig *w, pthread_t *thread)
{
	wirerig_init(w);
	wirerig_start(w);
	set_policy(w->r.dev, 60000, 60000, 0);
	puppet_stop(&w->p);
	CHECK(devrig_await(&w->r, LIBVHOST_EVENT_DISCONNECTED, PATIENCE_MS, NULL));
	CHECK_EQ(libvhost_dev_dispatch(w->r.dev, 1), 0);
	CHECK_EQ(devrig_state(&w->r), LIBVHOST_DEV_RECONNECTING);
	CHECK_EQ(pthread_create(thread, NULL, dispatch_long, &w->r), 0);
	usleep(10000);
}

static void lonely_end(struct wirerig *w, pthread_t thread)
{
	CHECK_EQ(libvhost_dev_cancel(w->r.dev), 0);
	pthread_join(thread, NULL);
	puppet_init(&w->p);
	wirerig_close(w);
}

/* A busy machine delays any single call; the library keeps its promise if some call shows it. */
TEST(hostile_reconnect, r183_a_stop_in_a_pause_returns_in_100_ms)
{
	uint64_t best = UINT64_MAX;

	for (int i = 0; i < 50 && best >= 100; i++) {
		struct wirerig w;
		pthread_t thread;
		uint64_t began;

		lonely(&w, &thread);
		began = now_ms();
		CHECK_EQ(libvhost_dev_stop(w.r.dev, NULL), 0);
		best = now_ms() - began < best ? now_ms() - began : best;
		lonely_end(&w, thread);
	}
	CHECK(best < 100);
}

TEST(hostile_reconnect, r183_stop_cancel_and_cleanup_in_a_pause_take_no_time)
{
	struct wirerig w;
	pthread_t thread;
	uint64_t began;

	lonely(&w, &thread);
	began = now_ms();
	CHECK_EQ(libvhost_dev_stop(w.r.dev, NULL), 0);
	CHECK(now_ms() - began < PROMPT_MS);
	lonely_end(&w, thread);

	lonely(&w, &thread);
	began = now_ms();
	CHECK_EQ(libvhost_dev_cancel(w.r.dev), 0);
	pthread_join(thread, NULL);
	CHECK(now_ms() - began < PROMPT_MS);
	CHECK_EQ(devrig_state(&w.r), LIBVHOST_DEV_DISCONNECTED);
	began = now_ms();
	puppet_init(&w.p);
	wirerig_close(&w);
	CHECK(now_ms() - began < PROMPT_MS);

	lonely(&w, &thread);
	began = now_ms();
	CHECK_EQ(libvhost_dev_force_stop(w.r.dev), 0);
	CHECK(now_ms() - began < PROMPT_MS);
	lonely_end(&w, thread);
}

/* A commit never fails because a thread happens to be inside a device that waits for its peer. */
static void *dispatch_often(void *arg)
{
	struct devrig *r = arg;

	while (devrig_state(r) == LIBVHOST_DEV_RECONNECTING)
		(void)libvhost_dev_dispatch(r->dev, 0);
	return NULL;
}

TEST(hostile_reconnect, commits_go_on_while_another_thread_dispatches)
{
	struct wirerig w;
	pthread_t thread;

	lonely(&w, &thread);
	CHECK_EQ(libvhost_dev_cancel(w.r.dev), 0);
	pthread_join(thread, NULL);
	set_policy(w.r.dev, 1, 1, 0);
	puppet_init(&w.p);
	w.p.protocol_features |= PUPPET_PF(INBAND_NOTIFICATIONS) | PUPPET_PF(SHMEM_MAP); /* no less than before */
	wirerig_listen(&w);
	CHECK_EQ(libvhost_dev_reconnect(w.r.dev, NULL), 0);
	puppet_stop(&w.p);
	CHECK(devrig_await(&w.r, LIBVHOST_EVENT_DISCONNECTED, PATIENCE_MS, NULL));
	CHECK_EQ(pthread_create(&thread, NULL, dispatch_often, &w.r), 0);
	for (uint64_t i = 0; i < 300; i++) {
		CHECK_EQ(libvhost_mem_begin(w.r.g.mem), 0);
		CHECK_EQ(libvhost_mem_alloc(w.r.g.mem, 1ull << 32, 0x1000), 0);
		CHECK_EQ(libvhost_mem_commit(w.r.g.mem, 0, NULL), 0);
		CHECK_EQ(libvhost_mem_begin(w.r.g.mem), 0);
		CHECK_EQ(libvhost_mem_remove(w.r.g.mem, 1ull << 32, 0x1000), 0);
		CHECK_EQ(libvhost_mem_commit(w.r.g.mem, 0, NULL), 0);
	}
	lonely_end(&w, thread);
}

/* ---- a herd ---- */

#define HERD	100u
#define NOTICED 16u /* of the herd: may watch the folder */
#define SLOTS	50u /* of the histograms */
#define SPREAD	500u

static atomic_int watches = INT_MAX; /* how many more there may be */

/* Instead of the C library's. */
int inotify_add_watch(int fd, const char *path, uint32_t mask)
{
	if (atomic_fetch_sub(&watches, 1) > 0)
		return (int)syscall(SYS_inotify_add_watch, fd, path, mask);
	atomic_fetch_add(&watches, 1);
	errno = ENOSPC;
	return -1;
}

/* One back-end process with many front-ends: one socket, a session for each connection. */
struct stable {
	char path[64];
	int listener;
	pthread_t thread;
	atomic_bool stop;
	uint64_t began;
	struct puppet *peers;
	uint32_t accepted, when[SLOTS];
};

static void *take_in(void *arg)
{
	struct stable *s = arg;

	while (!atomic_load(&s->stop)) {
		struct pollfd p = {.fd = s->listener, .events = POLLIN};
		int sock = poll(&p, 1, 5) == 1 ? lv_wire_accept(s->listener) : -1;
		struct puppet *peer = &s->peers[s->accepted % HERD];
		uint64_t slot;

		if (sock < 0)
			continue;
		slot = (now_ms() - s->began) * SLOTS / SPREAD;
		s->when[slot < SLOTS ? slot : SLOTS - 1]++;
		if (s->accepted++ >= HERD) {
			close(sock);
			continue;
		}
		puppet_init(peer);
		puppet_pair(peer);
		puppet_give_front(peer);
		lv_fd_close(peer->sock);
		peer->sock = sock;
		puppet_run(peer);
	}
	return NULL;
}

static void stable_open(struct stable *s)
{
	s->accepted = 0;
	memset(s->when, 0, sizeof(s->when));
	atomic_store(&s->stop, false);
	s->listener = lv_wire_listen(s->path, 4);
	CHECK(s->listener >= 0);
	s->began = now_ms();
	CHECK_EQ(pthread_create(&s->thread, NULL, take_in, s), 0);
}

static void stable_close(struct stable *s)
{
	atomic_store(&s->stop, true);
	pthread_join(s->thread, NULL);
	close(s->listener);
	unlink(s->path);
	for (uint32_t i = 0; i < s->accepted && i < HERD; i++)
		puppet_stop(&s->peers[i]);
}

struct herd {
	struct libvhost_dev *dev[HERD];
	int epoll;
	uint32_t back, attempts, most_attempts;
	uint32_t noticed; /* how often one knew of the new socket and waited all the same */
	uint64_t slowest_us;
};

static void herd_start(struct herd *h, struct devrig *r, const char *uri, uint32_t jitter)
{
	h->epoll = epoll_create1(EPOLL_CLOEXEC);
	for (uint32_t i = 0; i < HERD; i++) {
		struct libvhost_dev_opts o = {
			.size = sizeof(o), .num_queues = 1, .mem = r->g.mem, .uri = uri, .timeout_ms = 20000};
		struct epoll_event ev = {.events = EPOLLIN, .data.u32 = i};
		struct libvhost_queue q = devrig_queue(0);

		CHECK_EQ(libvhost_dev_init(r->g.ctx, &o, &h->dev[i]), 0);
		CHECK_EQ(libvhost_dev_set_queue(h->dev[i], 0, &q), 0);
		CHECK_EQ(libvhost_dev_start(h->dev[i], NULL), 0);
		set_policy(h->dev[i], SPREAD, SPREAD, jitter);
		CHECK_EQ(epoll_ctl(h->epoll, EPOLL_CTL_ADD, libvhost_dev_fd(h->dev[i]), &ev), 0);
	}
}

static void herd_serve(struct herd *h, int ms)
{
	struct epoll_event evs[16];
	struct libvhost_event e;
	int n = epoll_wait(h->epoll, evs, 16, ms);

	for (int i = 0; i < n; i++) {
		struct libvhost_dev *dev = h->dev[evs[i].data.u32];

		CHECK_EQ(libvhost_dev_dispatch(dev, 0), 0);
		h->noticed += dev->backoff.spread_to != UINT64_MAX;
		while (libvhost_dev_next_event(dev, &e) == 1) {
			if (e.type != LIBVHOST_EVENT_RECONNECTED)
				continue;
			h->back++;
			h->attempts += (uint32_t)e.value[3];
			if (e.value[3] > h->most_attempts)
				h->most_attempts = (uint32_t)e.value[3];
			if (e.value[2] > h->slowest_us)
				h->slowest_us = e.value[2];
		}
	}
}

static bool herd_has(const struct herd *h, uint32_t state)
{
	struct libvhost_dev_info info = {.size = sizeof(info)};
	bool has = false;

	for (uint32_t i = 0; i < HERD; i++) {
		CHECK_EQ(libvhost_dev_info(h->dev[i], &info), 0);
		has |= info.state == state;
	}
	return has;
}

/* The pauses in which the herd is: what was planned, since on a busy machine they end together all the same. */
static void check_spread(const struct herd *h)
{
	uint32_t pauses[SLOTS] = {0}, most = 0, slots = 0;

	for (uint32_t i = 0; i < HERD; i++) {
		const struct lv_backoff *b = &h->dev[i]->backoff;
		const uint64_t slot = (b->retry_at - b->since) / LV_NS_PER_MS * SLOTS / (SPREAD + 1);

		CHECK(slot < SLOTS);
		pauses[slot]++;
	}
	for (uint32_t i = 0; i < SLOTS; i++) {
		most = pauses[i] > most ? pauses[i] : most;
		slots += pauses[i] > 0;
	}
	CHECK(most <= HERD / 4 && slots >= SLOTS / 4); /* in step it would be one slot with all of them */
}

static void show(const struct stable *s, const struct herd *h)
{
	printf("# %u back, %u times it waited, %u attempts (%u at most), slowest replay %llu us; connections per %u "
	       "ms:",
	       h->back, h->noticed, h->attempts, h->most_attempts, (unsigned long long)h->slowest_us, SPREAD / SLOTS);
	for (uint32_t i = 0; i < SLOTS; i++)
		printf(" %u", s->when[i]);
	printf("\n");
}

/*
 * One back-end process restarts: each of its hundred front-ends is served again, and they do not come all at once.
 * Some notice the new socket; the others, which got no watch, find it when they look.
 */
TEST(hostile_reconnect, a_hundred_devices_of_one_back_end_come_back_spread)
{
	struct stable *s = calloc(1, sizeof(*s));
	struct herd *h = calloc(1, sizeof(*h));
	struct devrig r;
	uint64_t end, longest = 0;
	char uri[80];

	CHECK(s && h);
	s->peers = calloc(HERD, sizeof(*s->peers));
	CHECK(s->peers);
	devrig_init(&r);
	snprintf(s->path, sizeof(s->path), "/tmp/libvhost-herd-%d.sock", (int)getpid());
	snprintf(uri, sizeof(uri), "user:%s", s->path);
	stable_open(s);
	herd_start(h, &r, uri, 100);
	atomic_store(&watches, NOTICED);
	stable_close(s);
	for (end = now_ms() + 700; now_ms() < end || herd_has(h, LIBVHOST_DEV_RUNNING);)
		herd_serve(h, 20);
	check_spread(h);
	stable_open(s);
	for (end = now_ms() + PATIENCE_MS; h->back < HERD && now_ms() < end;) {
		const uint64_t began = now_ms();

		herd_serve(h, 20);
		longest = now_ms() - began > longest ? now_ms() - began : longest;
	}
	show(s, h);
	CHECK(h->noticed || longest > SPREAD / 5); /* on a machine that busy the pauses may all have ended first */
	CHECK_EQ(h->back, HERD);
	CHECK_EQ(atomic_exchange(&watches, INT_MAX), 0);
	for (uint32_t i = 0; i < HERD; i++) {
		struct libvhost_dev_info info = {.size = sizeof(info)};

		CHECK_EQ(libvhost_dev_info(h->dev[i], &info), 0);
		CHECK_EQ(info.state, LIBVHOST_DEV_RUNNING);
		libvhost_dev_cleanup(h->dev[i]);
	}
	CHECK(h->attempts <= HERD * 12);
	stable_close(s);
	close(h->epoll);
	guest_free(&r.g);
	CHECK_LEDGER(r.before);
	free(s->peers);
	free(s);
	free(h);
}
