/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* The driver at work: requests, completions, a back-end that dies. */
#include "blk_driver.h"

#include <endian.h>
#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "cli.h"

#define STATUS_AT 32u

static uint64_t header_gpa(const struct blk_driver *d, uint32_t q, uint32_t slot)
{
	return d->queues[q].requests_gpa + (uint64_t)slot * BLK_HEADER_BYTES;
}

static uint64_t data_offset(const struct blk_driver *d, uint32_t slot)
{
	return (uint64_t)d->opts.depth * BLK_HEADER_BYTES + (uint64_t)slot * d->opts.block_bytes;
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
	struct libvhost_buf bufs[BLK_CHAIN] = {{.gpa = header, .len = sizeof(struct blk_header)}};
	struct blk_header *h = (void *)(bq->requests + (uint64_t)slot * BLK_HEADER_BYTES);
	uint32_t n = 1, readable;
	int rc;

	*h = (struct blk_header){.type = htole32(s->type), .sector = htole64(s->sector)};
	bq->requests[(uint64_t)slot * BLK_HEADER_BYTES + STATUS_AT] = 0xff;
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
		if (blk_driver_open_ring(d, q))
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

/* What a snapshot left in the ring is known by its first descriptor. */
static uint32_t slot_of(struct blk_driver *d, const struct blk_queue *bq, const struct libvhost_used *used)
{
	if (!(used->flags & LIBVHOST_USED_RESUMED))
		return (uint32_t)used->token;
	d->resumed++;
	return bq->resumed[used->token];
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
			slot = slot_of(d, bq, &used[i]);
			bq->slots[slot].busy = false;
			bq->free[bq->free_count++] = slot;
			d->in_flight--;
			if (done(arg, &bq->slots[slot], bq->requests + data_offset(d, slot),
				 bq->requests[(uint64_t)slot * BLK_HEADER_BYTES + STATUS_AT]))
				return 1;
		}
	} while (n == 64);
	return 0;
}

int blk_driver_reap(struct blk_driver *d, blk_done_fn done, void *arg, uint32_t *total)
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

int blk_driver_kick(struct blk_driver *d)
{
	for (uint32_t q = 0; q < d->opts.queues; q++)
		if (libvhost_vq_kick(d->queues[q].vq) < 0)
			return complain("queue %u: kick failed", q);
	return 0;
}

int blk_driver_run(struct blk_driver *d, blk_done_fn done, void *arg)
{
	double give_up = seconds_now() + d->opts.timeout_ms / 1e3;
	uint32_t total = 0, spins = 0;

	if (blk_driver_kick(d))
		return 1;
	while (!interrupted) {
		if (blk_driver_reap(d, done, arg, &total))
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
