/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* The guest's processor: keeps all slots in flight, writes blocks and reads them back, and notes who came late. */
#include "upgrade.h"

#include <endian.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include "cli.h"
#include "pattern.h"

#define HEADER	  64u /* header and status byte of one request */
#define STATUS_AT 32u
#define CHAIN	  3u
#define PAGE	  4096u

static uint64_t align(uint64_t n)
{
	return (n + PAGE - 1) / PAGE * PAGE;
}

static struct libvhost_vq_layout layout(const struct upgrade_machine *m)
{
	struct libvhost_vq_layout l = {.size = sizeof(l)};

	libvhost_vq_layout(m->entries, m->features, &l);
	return l;
}

static uint64_t queue_bytes(const struct upgrade_machine *m)
{
	const struct libvhost_vq_layout l = layout(m);

	return align(l.desc_bytes + l.avail_bytes) + align(l.used_bytes) +
	       align((uint64_t)m->depth * (HEADER + UPGRADE_BLOCK));
}

void upgrade_plan(struct upgrade_machine *m)
{
	m->features = 1ull << F_VERSION_1 | 1ull << RING_F_EVENT_IDX | (m->packed ? 1ull << F_RING_PACKED : 0);
	for (m->entries = 4; m->entries < m->depth * CHAIN; m->entries *= 2)
		;
	if (m->packed)
		m->entries = m->depth * CHAIN; /* as few as there can be: each lap meets other places */
	m->bytes = align(m->queues * queue_bytes(m));
}

struct upgrade_ring upgrade_ring(const struct upgrade_machine *m, uint32_t queue)
{
	const struct libvhost_vq_layout l = layout(m);
	struct upgrade_ring r = {.desc = UPGRADE_BASE + queue * queue_bytes(m)};

	r.avail = r.desc + l.desc_bytes;
	r.used = r.desc + align(l.desc_bytes + l.avail_bytes);
	r.requests = r.used + align(l.used_bytes);
	return r;
}

static struct upgrade_slot *slot_of(struct upgrade_guest *g, uint32_t queue, uint32_t slot)
{
	return &g->slots[queue * g->machine.depth + slot];
}

static uint8_t *at(struct upgrade_guest *g, uint64_t gpa)
{
	return g->ram + (gpa - UPGRADE_BASE);
}

static uint64_t header_gpa(struct upgrade_guest *g, uint32_t queue, uint32_t slot)
{
	return upgrade_ring(&g->machine, queue).requests + (uint64_t)slot * HEADER;
}

static uint64_t data_gpa(struct upgrade_guest *g, uint32_t queue, uint32_t slot)
{
	return upgrade_ring(&g->machine, queue).requests + (uint64_t)g->machine.depth * HEADER +
	       (uint64_t)slot * UPGRADE_BLOCK;
}

/* Each slot has a block of the disk to itself. */
static uint64_t sector_of(struct upgrade_guest *g, uint32_t queue, uint32_t slot)
{
	return ((uint64_t)queue * g->machine.depth + slot) * (UPGRADE_BLOCK / SECTOR);
}

static void submit(struct upgrade_guest *g, uint32_t queue, uint32_t slot)
{
	struct upgrade_slot *s = slot_of(g, queue, slot);
	const uint64_t header = header_gpa(g, queue, slot), data = data_gpa(g, queue, slot);
	const uint32_t readable = s->reading ? 1 : 2;
	const struct libvhost_buf bufs[CHAIN] = {{.gpa = header, .len = sizeof(struct blk_header)},
						 {.gpa = data, .len = UPGRADE_BLOCK},
						 {.gpa = header + STATUS_AT, .len = 1}};
	struct blk_header *h = (void *)at(g, header);

	*h = (struct blk_header){.type = htole32(s->reading ? BLK_T_IN : BLK_T_OUT),
				 .sector = htole64(sector_of(g, queue, slot))};
	at(g, header)[STATUS_AT] = 0xff;
	if (s->reading)
		memset(at(g, data), 0, UPGRADE_BLOCK);
	else
		pattern_fill(at(g, data), UPGRADE_BLOCK, sector_of(g, queue, slot), ++s->round);
	s->busy = true;
	s->epoch = atomic_load(&g->epoch);
	s->started = seconds_now();
	if (libvhost_vq_add(g->vq[queue], bufs, readable, CHAIN - readable, slot)) {
		g->trouble = "a request was not accepted by the ring";
		return;
	}
	g->submitted++;
}

static void note_latency(struct upgrade_guest *g, const struct upgrade_slot *s)
{
	const double took = seconds_now() - s->started;
	const uint32_t now = atomic_load(&g->epoch);

	if (s->epoch == now && !(now & 1)) {
		histogram_add(&g->calm, took);
		g->worst_calm = took > g->worst_calm ? took : g->worst_calm;
	} else {
		histogram_add(&g->upgrading, took);
		g->worst_upgrading = took > g->worst_upgrading ? took : g->worst_upgrading;
	}
}

static void complete(struct upgrade_guest *g, uint32_t queue, uint32_t slot)
{
	struct upgrade_slot *s = slot_of(g, queue, slot);
	size_t bad;

	if (!s->busy) {
		g->twice++;
		return;
	}
	note_latency(g, s);
	g->completed++;
	s->busy = false;
	if (at(g, header_gpa(g, queue, slot))[STATUS_AT] != BLK_S_OK)
		g->failed++;
	else if (s->reading && !pattern_check(at(g, data_gpa(g, queue, slot)), UPGRADE_BLOCK, sector_of(g, queue, slot),
					      s->round, &bad))
		g->wrong++;
	s->reading = !s->reading;
	if (!atomic_load(&g->ending))
		submit(g, queue, slot);
}

static uint32_t reap(struct upgrade_guest *g, uint32_t queue)
{
	struct libvhost_used used[64];
	uint32_t n = 64;

	if (libvhost_vq_get_used(g->vq[queue], used, &n)) {
		g->trouble = "the used ring is impossible";
		return 0;
	}
	for (uint32_t i = 0; i < n; i++)
		complete(g, queue, (uint32_t)used[i].token);
	if (n)
		libvhost_vq_kick(g->vq[queue]);
	return n;
}

static void sleep_a_while(struct upgrade_guest *g)
{
	struct epoll_event events[UPGRADE_QUEUES];
	uint64_t count;
	int n;

	for (uint32_t q = 0; q < g->machine.queues; q++)
		if (libvhost_vq_notify_enable(g->vq[q], 1))
			return;
	n = epoll_wait(g->epoll, events, UPGRADE_QUEUES, 100);
	for (int i = 0; i < n; i++)
		(void)!read(g->call[events[i].data.u32], &count, sizeof(count));
}

static void *processor(void *arg)
{
	struct upgrade_guest *g = arg;
	double last = seconds_now();

	for (uint32_t q = 0; q < g->machine.queues; q++) {
		for (uint32_t s = 0; s < g->machine.depth; s++)
			submit(g, q, s);
		libvhost_vq_kick(g->vq[q]);
	}
	while (!g->trouble && (!atomic_load(&g->ending) || g->completed < g->submitted)) {
		const double now = seconds_now();
		uint32_t n = 0;

		for (uint32_t q = 0; q < g->machine.queues; q++)
			n += reap(g, q);
		g->longest_silence = now - last > g->longest_silence ? now - last : g->longest_silence;
		if (n)
			last = now;
		else if (now - last > g->machine.timeout_ms / 1e3)
			g->trouble = "no request completes any more";
		else
			sleep_a_while(g);
	}
	return NULL;
}

static int make_memory(struct upgrade_guest *g)
{
	struct libvhost_region r = {.gpa = UPGRADE_BASE, .size = g->machine.bytes, .flags = LIBVHOST_REGION_HAS_FD};

	g->memfd = memfd_create("vhostctl-guest", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (g->memfd < 0 || ftruncate(g->memfd, (off_t)r.size) < 0)
		return 1;
	r.fd = g->memfd;
	return libvhost_ctx_new(NULL, &g->ctx) || libvhost_mem_new(g->ctx, NULL, &g->mem) ||
	       libvhost_mem_begin(g->mem) || libvhost_mem_add(g->mem, &r) || libvhost_mem_commit(g->mem, 0, NULL) ||
	       libvhost_mem_translate(g->mem, UPGRADE_BASE, 1, (void **)&g->ram, NULL);
}

static int make_ring(struct upgrade_guest *g, uint32_t q)
{
	const struct upgrade_ring r = upgrade_ring(&g->machine, q);
	struct libvhost_vq_opts o = {.size = sizeof(o), .role = LIBVHOST_VQ_DRIVER, .index = q};
	struct epoll_event ev = {.events = EPOLLIN, .data.u32 = q};

	g->kick[q] = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	g->call[q] = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	o.flags = LIBVHOST_VQ_HAS_KICK | LIBVHOST_VQ_HAS_CALL;
	o.num = g->machine.entries;
	o.features = g->machine.features;
	o.desc = r.desc;
	o.avail = r.avail;
	o.used = r.used;
	o.kick_fd = g->kick[q];
	o.call_fd = g->call[q];
	return g->kick[q] < 0 || g->call[q] < 0 || libvhost_vq_new(g->ctx, g->mem, &o, &g->vq[q]) ||
	       epoll_ctl(g->epoll, EPOLL_CTL_ADD, g->call[q], &ev);
}

int upgrade_guest_open(struct upgrade_guest *g, const struct upgrade_machine *m)
{
	memset(g, 0, sizeof(*g));
	g->machine = *m;
	g->memfd = -1;
	for (uint32_t q = 0; q < UPGRADE_QUEUES; q++)
		g->kick[q] = g->call[q] = -1;
	g->slots = calloc((size_t)m->queues * m->depth, sizeof(*g->slots));
	g->epoll = epoll_create1(EPOLL_CLOEXEC);
	if (!g->slots || g->epoll < 0 || make_memory(g))
		return complain("no guest memory: %s", strerror(errno));
	return 0;
}

int upgrade_guest_rings(struct upgrade_guest *g, uint64_t features)
{
	g->machine.features = features;
	for (uint32_t q = 0; q < g->machine.queues; q++)
		if (make_ring(g, q))
			return complain("queue %u: %s", q, strerror(errno));
	return 0;
}

int upgrade_guest_start(struct upgrade_guest *g)
{
	const int rc = pthread_create(&g->thread, NULL, processor, g);

	return rc ? complain("no thread: %s", strerror(rc)) : 0;
}

void upgrade_guest_stop(struct upgrade_guest *g)
{
	atomic_store(&g->ending, true);
	pthread_join(g->thread, NULL);
}

uint32_t upgrade_guest_base(const struct upgrade_guest *g, uint32_t queue)
{
	struct libvhost_vq_info info = {.size = sizeof(info)};

	libvhost_vq_info(g->vq[queue], &info);
	return info.base;
}

void upgrade_guest_close(struct upgrade_guest *g)
{
	for (uint32_t q = 0; q < g->machine.queues; q++) {
		libvhost_vq_free(g->vq[q]);
		if (g->kick[q] >= 0)
			close(g->kick[q]);
		if (g->call[q] >= 0)
			close(g->call[q]);
	}
	libvhost_mem_free(g->mem);
	libvhost_ctx_free(g->ctx);
	if (g->memfd >= 0)
		close(g->memfd);
	if (g->epoll >= 0)
		close(g->epoll);
	free(g->slots);
}
