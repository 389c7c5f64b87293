/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
#include "blk_driver.h"

#include <endian.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "cli.h"
#include "ring.h"

#define MEMORY_BASE  0x100000ull /* guest-physical; not 0, which some peers read as "not set" */
#define HEADER_BYTES 64u	 /* header and status byte of one request, on a cache line of their own */
#define STATUS_AT    32u
#define CHAIN	     3u
#define PAGE	     4096u

static uint64_t align(uint64_t n, uint64_t to)
{
	return (n + to - 1) / to * to;
}

static uint32_t ring_entries(uint32_t depth, bool packed)
{
	uint32_t n = 4;

	if (packed)
		return depth * CHAIN; /* as few as there can be */
	while (n < depth * CHAIN)
		n *= 2;
	return n;
}

/* Lays all queues out one after the other; with assign, stores the addresses. Returns the bytes used. */
static uint64_t lay_out(struct blk_driver *d, bool assign)
{
	struct libvhost_vq_layout l = {.size = sizeof(l)};
	uint64_t at = MEMORY_BASE, desc, avail, used, requests;
	uint32_t num = ring_entries(d->opts.depth, d->opts.packed);

	libvhost_vq_layout(num, 1ull << RING_F_EVENT_IDX | (d->opts.packed ? 1ull << F_RING_PACKED : 0), &l);
	for (uint32_t q = 0; q < d->opts.queues; q++) {
		desc = at;
		avail = desc + l.desc_bytes;
		used = align(avail + l.avail_bytes, PAGE);
		requests = align(used + l.used_bytes, PAGE);
		at = align(requests + (uint64_t)d->opts.depth * (HEADER_BYTES + d->opts.block_bytes), PAGE);
		if (!assign)
			continue;
		d->queues[q].setup = (struct libvhost_queue){
			.size = sizeof(struct libvhost_queue), .num = num, .desc = desc, .avail = avail, .used = used};
		d->queues[q].requests_gpa = requests;
	}
	return at - MEMORY_BASE;
}

static int make_memory(struct blk_driver *d)
{
	uint64_t bytes = lay_out(d, false);
	int rc = libvhost_mem_begin(d->mem);
	void *hva;

	if (!rc)
		rc = libvhost_mem_alloc(d->mem, MEMORY_BASE, bytes);
	if (!rc)
		rc = libvhost_mem_commit(d->mem, 0, NULL);
	lay_out(d, true);
	for (uint32_t q = 0; !rc && q < d->opts.queues; q++) {
		rc = libvhost_mem_translate(d->mem, d->queues[q].requests_gpa, 1, &hva, NULL);
		d->queues[q].requests = hva;
	}
	return rc < 0 ? complain("cannot make %llu bytes of guest memory: %s", (unsigned long long)bytes, strerror(-rc))
		      : 0;
}

static int open_ring(struct blk_driver *d, uint32_t q)
{
	struct blk_queue *bq = &d->queues[q];

	return open_driver_ring(d->ctx, d->dev, q, d->features, d->mem, &bq->setup, &bq->vq);
}

static int set_up_queue(struct blk_driver *d, uint32_t q)
{
	struct blk_queue *bq = &d->queues[q];
	struct epoll_event ev = {.events = EPOLLIN, .data.u32 = q};
	struct libvhost_queue have = {.size = sizeof(have)};
	int rc = libvhost_dev_set_queue(d->dev, q, &bq->setup);

	if (rc < 0)
		return complain_dev(d->dev, "queue set-up", rc);
	bq->slots = calloc(d->opts.depth, sizeof(*bq->slots));
	bq->free = calloc(d->opts.depth, sizeof(*bq->free));
	if (!bq->slots || !bq->free)
		return complain("out of memory");
	while (bq->free_count < d->opts.depth) {
		bq->free[bq->free_count] = d->opts.depth - 1 - bq->free_count;
		bq->free_count++;
	}
	if (open_ring(d, q))
		return 1;
	libvhost_dev_get_queue(d->dev, q, &have);
	if (epoll_ctl(d->epoll, EPOLL_CTL_ADD, have.call_fd, &ev) < 0)
		return complain("cannot wait for queue %u: %s", q, strerror(errno));
	return 0;
}

/* Where a packed ring continues when its back-end died: rings are laid out anew before a reconnect. */
static int ring_base(void *arg, uint32_t queue, uint32_t *base)
{
	const struct blk_driver *d = arg;
	struct libvhost_vq_info info = {.size = sizeof(info)};

	if (libvhost_vq_info(d->queues[queue].vq, &info) < 0)
		return -1;
	*base = info.base;
	return 0;
}

static int negotiate(struct blk_driver *d)
{
	const struct libvhost_dev_ops ops = {.size = sizeof(ops), .ring_base = ring_base, .arg = d};
	static const uint8_t wanted[] = {BLK_F_SEG_MAX,	   BLK_F_BLK_SIZE, BLK_F_FLUSH,	  BLK_F_MQ,
					 RING_F_EVENT_IDX, F_VERSION_1,	   F_RING_PACKED, LIBVHOST_INVALID_FEATURE_BIT};
	struct libvhost_dev_opts o = {.size = sizeof(o), .virtio_id = VIRTIO_ID_BLOCK};
	struct blk_config config = {0};
	uint64_t want = 0;
	int rc;

	for (const uint8_t *bit = wanted; *bit != LIBVHOST_INVALID_FEATURE_BIT; bit++)
		want |= *bit == F_RING_PACKED && !d->opts.packed ? 0 : 1ull << *bit;
	o.flags = d->opts.inflight ? LIBVHOST_DEV_INFLIGHT : 0;
	o.num_queues = d->opts.queues;
	o.config_size = BLK_CONFIG_BYTES;
	o.timeout_ms = d->opts.timeout_ms;
	o.uri = d->opts.uri;
	o.transport = d->opts.transport;
	o.mem = d->mem;
	o.ops = &ops;
	rc = libvhost_dev_init(d->ctx, &o, &d->dev);
	if (rc < 0)
		return complain_ctx(d->ctx, "connect", rc);
	rc = libvhost_dev_get_config(d->dev, 0, &config, BLK_CONFIG_BYTES, d->opts.timeout_ms);
	if (rc < 0)
		return complain_dev(d->dev, "configuration", rc);
	d->capacity_sectors = le64toh(config.capacity);
	d->features = libvhost_get_features(d->dev, wanted, want);
	if (d->opts.packed && !(d->features >> F_RING_PACKED & 1))
		return complain("the back-end does not offer packed rings");
	rc = libvhost_ack_features(d->dev, wanted, d->features);
	return rc < 0 ? complain_dev(d->dev, "features", rc) : 0;
}

int blk_driver_open(struct blk_driver *d, const struct blk_driver_opts *opts)
{
	struct epoll_event ev = {.events = EPOLLIN, .data.u32 = UINT32_MAX};
	struct libvhost_inflight region = {.size = sizeof(region)};
	double before = seconds_now();
	int rc;

	memset(d, 0, sizeof(*d));
	d->opts = *opts;
	d->epoll = epoll_create1(EPOLL_CLOEXEC);
	d->queues = calloc(opts->queues, sizeof(*d->queues));
	if (d->epoll < 0 || !d->queues || libvhost_ctx_new(NULL, &d->ctx) < 0 ||
	    libvhost_mem_new(d->ctx, NULL, &d->mem) < 0)
		return complain("out of memory or descriptors");
	if (make_memory(d) || negotiate(d))
		return 1;
	for (uint32_t q = 0; q < opts->queues; q++)
		if (set_up_queue(d, q))
			return 1;
	rc = libvhost_dev_start(d->dev, &(struct libvhost_call_opts){.size = sizeof(struct libvhost_call_opts),
								     .timeout_ms = opts->timeout_ms});
	if (rc < 0)
		return complain_dev(d->dev, "start", rc);
	d->connect_to_running_s = seconds_now() - before;
	if (opts->inflight && libvhost_dev_get_inflight(d->dev, &region) < 0)
		return complain("the back-end has no inflight region");
	d->info.size = sizeof(d->info);
	libvhost_dev_info(d->dev, &d->info);
	rc = libvhost_dev_fd(d->dev);
	if (rc < 0 || epoll_ctl(d->epoll, EPOLL_CTL_ADD, rc, &ev) < 0)
		return complain("cannot watch the device: %s", strerror(rc < 0 ? -rc : errno));
	return 0;
}

void blk_driver_close(struct blk_driver *d)
{
	const struct libvhost_call_opts call = {.size = sizeof(call), .timeout_ms = d->opts.timeout_ms};
	struct libvhost_dev_info info = {.size = sizeof(info)};

	if (d->dev && !libvhost_dev_info(d->dev, &info) && info.state == LIBVHOST_DEV_RUNNING)
		libvhost_dev_stop(d->dev, &call);
	for (uint32_t q = 0; d->queues && q < d->opts.queues; q++) {
		libvhost_vq_free(d->queues[q].vq);
		free(d->queues[q].slots);
		free(d->queues[q].free);
	}
	libvhost_dev_cleanup(d->dev);
	libvhost_mem_free(d->mem);
	libvhost_ctx_free(d->ctx);
	free(d->queues);
	if (d->epoll >= 0)
		close(d->epoll);
}

static uint64_t header_gpa(const struct blk_driver *d, uint32_t q, uint32_t slot)
{
	return d->queues[q].requests_gpa + (uint64_t)slot * HEADER_BYTES;
}

static uint64_t data_offset(const struct blk_driver *d, uint32_t slot)
{
	return (uint64_t)d->opts.depth * HEADER_BYTES + (uint64_t)slot * d->opts.block_bytes;
}

uint8_t *blk_driver_slot(struct blk_driver *d, uint32_t q, uint32_t *slot)
{
	struct blk_queue *bq = &d->queues[q];

	if (!bq->free_count)
		return NULL;
	*slot = bq->free[bq->free_count - 1];
	return bq->requests + data_offset(d, *slot);
}

static int offer(struct blk_driver *d, uint32_t q, uint32_t slot)
{
	struct blk_queue *bq = &d->queues[q];
	const struct blk_slot *s = &bq->slots[slot];
	uint64_t header = header_gpa(d, q, slot);
	struct libvhost_buf bufs[CHAIN] = {{.gpa = header, .len = sizeof(struct blk_header)}};
	struct blk_header *h = (void *)(bq->requests + (uint64_t)slot * HEADER_BYTES);
	uint32_t n = 1, readable;
	int rc;

	*h = (struct blk_header){.type = htole32(s->type), .sector = htole64(s->sector)};
	bq->requests[(uint64_t)slot * HEADER_BYTES + STATUS_AT] = 0xff;
	if (s->bytes)
		bufs[n++] = (struct libvhost_buf){.gpa = bq->requests_gpa + data_offset(d, slot), .len = s->bytes};
	readable = s->type == BLK_T_OUT ? n : 1;
	bufs[n++] = (struct libvhost_buf){.gpa = header + STATUS_AT, .len = 1};
	rc = libvhost_vq_add(bq->vq, bufs, readable, n - readable, slot);
	return rc < 0 ? complain("queue %u: request not accepted: %s", q, strerror(-rc)) : 0;
}

int blk_driver_submit(struct blk_driver *d, uint32_t q, uint32_t slot, uint32_t type, uint64_t sector, uint32_t bytes)
{
	struct blk_queue *bq = &d->queues[q];

	bq->slots[slot] = (struct blk_slot){
		.type = type, .bytes = bytes, .sector = sector, .started = seconds_now(), .busy = true};
	bq->free_count--;
	d->in_flight++;
	return offer(d, q, slot);
}

/* Without an inflight region nobody knows which requests the dead back-end completed: new rings, everything again.
 * Reads and writes of whole blocks may be executed twice without harm. */
static int offer_again(struct blk_driver *d)
{
	for (uint32_t q = 0; q < d->opts.queues; q++) {
		if (open_ring(d, q))
			return 1;
		for (uint32_t slot = 0; slot < d->opts.depth; slot++) {
			if (!d->queues[q].slots[slot].busy)
				continue;
			if (offer(d, q, slot))
				return 1;
			d->resubmitted++;
		}
		if (libvhost_vq_kick(d->queues[q].vq) < 0)
			return complain("queue %u: kick failed", q);
	}
	return 0;
}

static int recover(struct blk_driver *d, const struct libvhost_event *event)
{
	const struct libvhost_call_opts call = {.size = sizeof(call), .timeout_ms = d->opts.timeout_ms};
	double deadline = seconds_now() + d->opts.reconnect_ms / 1e3;
	int rc;

	if (!d->opts.reconnect_ms)
		return complain("the back-end went away: %s", event->text);
	if (!d->opts.inflight && offer_again(d))
		return 1;
	do {
		rc = libvhost_dev_reconnect(d->dev, &call);
		if (rc == -ENOTSUP || interrupted)
			break;
		if (rc < 0)
			usleep(20000);
	} while (rc < 0 && seconds_now() < deadline);
	if (rc < 0)
		return complain_dev(d->dev, "reconnect", rc);
	d->reconnects++;
	return 0;
}

static int serve_events(struct blk_driver *d)
{
	struct libvhost_event event;

	libvhost_dev_dispatch(d->dev, 0);
	while (libvhost_dev_next_event(d->dev, &event) == 1) {
		if (event.type == LIBVHOST_EVENT_DISCONNECTED || event.type == LIBVHOST_EVENT_LOST) {
			if (recover(d, &event))
				return 1;
		} else if (event.type == LIBVHOST_EVENT_RECONNECTED) {
			d->back_at = seconds_now() - (double)event.value[2] / 1e6;
		} else if (event.type == LIBVHOST_EVENT_QUEUE_ERROR || event.type == LIBVHOST_EVENT_NEEDS_RESET) {
			return complain("queue %u: %s", event.queue, event.text);
		}
	}
	return 0;
}

/* The first completion after a restart: how long the guest stood still although the back-end was there. */
static void note_stall(struct blk_driver *d)
{
	const double stall = seconds_now() - d->back_at;

	d->back_at = 0;
	if (d->stalls_count < sizeof(d->stalls) / sizeof(d->stalls[0]))
		d->stalls[d->stalls_count++] = stall;
	if (stall > d->longest_stall)
		d->longest_stall = stall;
}

static int reap(struct blk_driver *d, uint32_t q, blk_done_fn done, void *arg, uint32_t *total)
{
	struct blk_queue *bq = &d->queues[q];
	struct libvhost_used used[64];
	uint32_t n, slot;
	int rc;

	do {
		n = 64;
		rc = libvhost_vq_get_used(bq->vq, used, &n);
		if (rc < 0)
			return complain("queue %u: the back-end wrote an impossible used ring (%s)", q, strerror(-rc));
		*total += n;
		if (n && d->back_at > 0)
			note_stall(d);
		for (uint32_t i = 0; i < n; i++) {
			slot = (uint32_t)used[i].token;
			bq->slots[slot].busy = false;
			bq->free[bq->free_count++] = slot;
			d->in_flight--;
			if (done(arg, &bq->slots[slot], bq->requests + data_offset(d, slot),
				 bq->requests[(uint64_t)slot * HEADER_BYTES + STATUS_AT]))
				return 1;
		}
	} while (n == 64);
	return 0;
}

static int reap_all(struct blk_driver *d, blk_done_fn done, void *arg, uint32_t *total)
{
	for (uint32_t q = 0; q < d->opts.queues; q++)
		if (reap(d, q, done, arg, total))
			return 1;
	return 0;
}

/* Asks every queue for a call. Returns true when nothing arrived meanwhile, so that sleeping is safe. */
static bool may_sleep(struct blk_driver *d)
{
	bool quiet = true;

	for (uint32_t q = 0; q < d->opts.queues; q++)
		quiet &= libvhost_vq_notify_enable(d->queues[q].vq, 1) == 0;
	return quiet;
}

static int wait_for_something(struct blk_driver *d)
{
	struct epoll_event events[16];
	uint64_t count;
	int n = epoll_wait(d->epoll, events, 16, (int)d->opts.timeout_ms);

	if (n == 0)
		return complain("no completion for %u ms, %llu requests in flight: the back-end does not answer",
				d->opts.timeout_ms, (unsigned long long)d->in_flight);
	for (int i = 0; i < n; i++) {
		struct libvhost_queue have = {.size = sizeof(have)};

		if (events[i].data.u32 == UINT32_MAX) {
			if (serve_events(d))
				return 1;
		} else if (!libvhost_dev_get_queue(d->dev, events[i].data.u32, &have)) {
			if (read(have.call_fd, &count, sizeof(count)) < 0 && errno != EAGAIN)
				return complain("call eventfd: %s", strerror(errno));
		}
	}
	return 0;
}

int blk_driver_run(struct blk_driver *d, blk_done_fn done, void *arg)
{
	double give_up = seconds_now() + d->opts.timeout_ms / 1e3;
	uint32_t total = 0, spins = 0;

	for (uint32_t q = 0; q < d->opts.queues; q++)
		if (libvhost_vq_kick(d->queues[q].vq) < 0)
			return complain("queue %u: kick failed", q);
	while (!interrupted) {
		if (reap_all(d, done, arg, &total))
			return 1;
		if (total || !d->in_flight)
			return 0;
		if (!d->opts.poll) {
			if (may_sleep(d) && wait_for_something(d))
				return 1;
		} else if (++spins % 1024 == 0) {
			if (serve_events(d))
				return 1;
			if (seconds_now() > give_up)
				return complain("no completion for %u ms, %llu requests in flight: the back-end does "
						"not answer",
						d->opts.timeout_ms, (unsigned long long)d->in_flight);
		}
	}
	return complain("interrupted");
}
