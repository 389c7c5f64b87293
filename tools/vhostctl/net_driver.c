/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
#include "net_driver.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "cli.h"
#include "ring.h"

#define MEMORY_BASE  0x100000ull /* guest-physical; not 0, which some peers read as "not set" */
#define PAGE	     4096u
#define BUFFER_BYTES 2048u
#define PACKED_FRESH 0x80008000u /* both indices 0, both wrap counters 1 */
#define DEVICE_EVENT UINT32_MAX

static const uint8_t wanted[] = {NET_F_CTRL_VQ, NET_F_MQ,      RING_F_EVENT_IDX,
				 F_VERSION_1,	F_RING_PACKED, LIBVHOST_INVALID_FEATURE_BIT};

static bool receives(uint32_t queue)
{
	return queue % 2 == 0;
}

static uint64_t page_align(uint64_t n)
{
	return (n + PAGE - 1) / PAGE * PAGE;
}

static uint64_t features_wanted(const struct net_driver_opts *o)
{
	return 1ull << F_VERSION_1 | 1ull << RING_F_EVENT_IDX | (o->packed ? 1ull << F_RING_PACKED : 0) |
	       (o->pairs > 1 ? 1ull << NET_F_MQ | 1ull << NET_F_CTRL_VQ : 0);
}

/* Lays all queues out one after the other; with assign, stores the addresses. Returns the bytes used. */
static uint64_t lay_out(struct net_driver *d, bool assign)
{
	struct libvhost_vq_layout l = {.size = sizeof(l)};
	uint64_t at = MEMORY_BASE;

	libvhost_vq_layout(d->opts.depth, features_wanted(&d->opts), &l);
	for (uint32_t q = 0; q < 2 * d->opts.pairs; q++) {
		struct libvhost_queue setup = {.size = sizeof(setup), .num = d->opts.depth, .desc = at};

		setup.avail = page_align(setup.desc + l.desc_bytes);
		setup.used = page_align(setup.avail + l.avail_bytes);
		at = page_align(setup.used + l.used_bytes);
		if (assign) {
			d->queues[q].setup = setup;
			d->queues[q].buffers_gpa = at;
		}
		at += page_align((uint64_t)d->opts.depth * BUFFER_BYTES);
	}
	return at - MEMORY_BASE;
}

static int make_memory(struct net_driver *d)
{
	uint64_t bytes = lay_out(d, false);
	int rc = libvhost_mem_begin(d->mem);
	void *hva;

	if (!rc)
		rc = libvhost_mem_alloc(d->mem, MEMORY_BASE, bytes);
	if (!rc)
		rc = libvhost_mem_commit(d->mem, 0, NULL);
	lay_out(d, true);
	for (uint32_t q = 0; !rc && q < 2 * d->opts.pairs; q++) {
		rc = libvhost_mem_translate(d->mem, d->queues[q].buffers_gpa, 1, &hva, NULL);
		d->queues[q].buffers = hva;
	}
	return rc < 0 ? complain("cannot make %llu bytes of guest memory: %s", (unsigned long long)bytes, strerror(-rc))
		      : 0;
}

static int offer(struct net_driver *d, uint32_t q, uint32_t slot, uint32_t bytes)
{
	struct net_queue *nq = &d->queues[q];
	const struct libvhost_buf buf = {.gpa = nq->buffers_gpa + (uint64_t)slot * BUFFER_BYTES, .len = bytes};
	int rc = libvhost_vq_add(nq->vq, &buf, receives(q) ? 0 : 1, receives(q) ? 1 : 0, slot);

	if (rc < 0)
		return complain("queue %u: buffer not accepted: %s", q, strerror(-rc));
	nq->busy[slot] = true;
	return 0;
}

/* The driver's view of a queue, on freshly initialised ring memory; a receiving one gets all its buffers. */
static int open_ring(struct net_driver *d, uint32_t q)
{
	struct net_queue *nq = &d->queues[q];

	if (open_driver_ring(d->ctx, d->dev, q, d->features, d->mem, &nq->setup, &nq->vq))
		return 1;
	memset(nq->busy, 0, d->opts.depth * sizeof(*nq->busy));
	for (uint32_t slot = 0; receives(q) && slot < d->opts.depth; slot++)
		if (offer(d, q, slot, BUFFER_BYTES))
			return 1;
	return 0;
}

static int kick_all(struct net_driver *d)
{
	for (uint32_t q = 0; q < 2 * d->opts.pairs; q++)
		if (libvhost_vq_kick(d->queues[q].vq) < 0)
			return complain("queue %u: kick failed", q);
	return 0;
}

static int open_rings(struct net_driver *d)
{
	for (uint32_t q = 0; q < 2 * d->opts.pairs; q++)
		if (open_ring(d, q))
			return 1;
	return kick_all(d);
}

static int set_up_queues(struct net_driver *d)
{
	for (uint32_t q = 0; q < 2 * d->opts.pairs; q++) {
		int rc = libvhost_dev_set_queue(d->dev, q, &d->queues[q].setup);

		if (rc < 0)
			return complain_dev(d->dev, "queue set-up", rc);
	}
	return open_rings(d);
}

/* Anew after each set-up, which makes new call descriptors. */
static int watch(struct net_driver *d)
{
	struct libvhost_queue have = {.size = sizeof(have)};
	struct epoll_event ev = {.events = EPOLLIN, .data.u32 = DEVICE_EVENT};
	int fd = libvhost_dev_fd(d->dev);

	if (d->epoll >= 0)
		close(d->epoll);
	d->epoll = epoll_create1(EPOLL_CLOEXEC);
	if (fd < 0 || d->epoll < 0 || epoll_ctl(d->epoll, EPOLL_CTL_ADD, fd, &ev) < 0)
		return complain("cannot watch the device: %s", strerror(fd < 0 ? -fd : errno));
	for (uint32_t q = 0; q < 2 * d->opts.pairs; q++) {
		ev.data.u32 = q;
		if (libvhost_dev_get_queue(d->dev, q, &have) ||
		    epoll_ctl(d->epoll, EPOLL_CTL_ADD, have.call_fd, &ev) < 0)
			return complain("cannot wait for queue %u: %s", q, strerror(errno));
	}
	return 0;
}

/* After a back-end's death: the rings were laid out anew before. */
static int fresh_base(void *arg, uint32_t queue, uint32_t *base)
{
	(void)arg;
	(void)queue;
	*base = PACKED_FRESH;
	return 0;
}

static int negotiate(struct net_driver *d)
{
	const struct libvhost_dev_ops ops = {.size = sizeof(ops), .ring_base = fresh_base};
	struct libvhost_dev_opts o = {.size = sizeof(o), .virtio_id = VIRTIO_ID_NET};
	int rc;

	o.num_queues = 2 * d->opts.pairs;
	o.timeout_ms = d->opts.timeout_ms;
	o.uri = d->opts.uri;
	o.mem = d->mem;
	o.ops = &ops;
	rc = libvhost_dev_init(d->ctx, &o, &d->dev);
	if (rc < 0)
		return complain_ctx(d->ctx, "connect", rc);
	d->features = libvhost_get_features(d->dev, wanted, features_wanted(&d->opts));
	if (d->opts.packed && !(d->features >> F_RING_PACKED & 1))
		return complain("the back-end does not offer packed rings");
	rc = libvhost_ack_features(d->dev, wanted, d->features);
	return rc < 0 ? complain_dev(d->dev, "features", rc) : 0;
}

static struct libvhost_call_opts call_opts(uint32_t timeout_ms)
{
	return (struct libvhost_call_opts){.size = sizeof(struct libvhost_call_opts), .timeout_ms = timeout_ms};
}

static int start(struct net_driver *d)
{
	const struct libvhost_call_opts call = call_opts(d->opts.timeout_ms);
	int rc = libvhost_dev_start(d->dev, &call);

	return rc < 0 ? complain_dev(d->dev, "start", rc) : 0;
}

int net_driver_open(struct net_driver *d, const struct net_driver_opts *opts)
{
	double before = seconds_now();

	memset(d, 0, sizeof(*d));
	d->opts = *opts;
	d->epoll = -1;
	d->queues = calloc(2 * (size_t)opts->pairs, sizeof(*d->queues));
	if (!d->queues || libvhost_ctx_new(NULL, &d->ctx) < 0 || libvhost_mem_new(d->ctx, NULL, &d->mem) < 0)
		return complain("out of memory or descriptors");
	for (uint32_t q = 0; q < 2 * opts->pairs; q++)
		if (!(d->queues[q].busy = calloc(opts->depth, sizeof(bool))))
			return complain("out of memory");
	if (make_memory(d) || negotiate(d) || set_up_queues(d) || start(d))
		return 1;
	d->connect_to_running_s = seconds_now() - before;
	return watch(d);
}

void net_driver_close(struct net_driver *d)
{
	const struct libvhost_call_opts call = call_opts(d->opts.timeout_ms);
	struct libvhost_dev_info info = {.size = sizeof(info)};

	if (d->dev && !libvhost_dev_info(d->dev, &info) && info.state == LIBVHOST_DEV_RUNNING)
		libvhost_dev_stop(d->dev, &call);
	for (uint32_t q = 0; d->queues && q < 2 * d->opts.pairs; q++) {
		libvhost_vq_free(d->queues[q].vq);
		free(d->queues[q].busy);
	}
	libvhost_dev_cleanup(d->dev);
	libvhost_mem_free(d->mem);
	libvhost_ctx_free(d->ctx);
	free(d->queues);
	if (d->epoll >= 0)
		close(d->epoll);
}

static uint8_t *buffer(const struct net_driver *d, uint32_t q, uint32_t slot)
{
	return d->queues[q].buffers + (size_t)slot * BUFFER_BYTES;
}

uint8_t *net_driver_slot(struct net_driver *d, uint32_t pair, uint32_t slot)
{
	uint32_t q = 2 * pair + 1;

	return d->queues[q].busy[slot] ? NULL : buffer(d, q, slot) + sizeof(struct net_header);
}

int net_driver_send(struct net_driver *d, uint32_t pair, uint32_t slot, uint32_t bytes)
{
	uint32_t q = 2 * pair + 1;

	memset(buffer(d, q, slot), 0, sizeof(struct net_header));
	return offer(d, q, slot, bytes + (uint32_t)sizeof(struct net_header));
}

static int take_back(struct net_driver *d, uint32_t q, const struct libvhost_used *used)
{
	uint32_t slot = (uint32_t)used->token;

	d->queues[q].busy[slot] = false;
	if (!receives(q))
		return 0;
	if (used->len < sizeof(struct net_header))
		return complain("queue %u: the back-end delivered %u bytes, less than the packet header", q, used->len);
	if (d->opts.on_frame(d->opts.arg, q / 2, buffer(d, q, slot) + sizeof(struct net_header),
			     used->len - (uint32_t)sizeof(struct net_header)))
		return 1;
	return offer(d, q, slot, BUFFER_BYTES);
}

static int reap(struct net_driver *d, uint32_t q, uint32_t *total)
{
	struct libvhost_used used[64];
	uint32_t n;
	int rc;

	do {
		n = 64;
		rc = libvhost_vq_get_used(d->queues[q].vq, used, &n);
		if (rc < 0)
			return complain("queue %u: the back-end wrote an impossible ring (%s)", q, strerror(-rc));
		*total += n;
		for (uint32_t i = 0; i < n; i++)
			if (take_back(d, q, &used[i]))
				return 1;
	} while (n == 64);
	return 0;
}

static int reap_all(struct net_driver *d, uint32_t *total)
{
	for (uint32_t q = 0; q < 2 * d->opts.pairs; q++)
		if (reap(d, q, total))
			return 1;
	return 0;
}

/* Takes what the old back-end had completed, then begins with empty rings. */
static int renew(struct net_driver *d)
{
	uint32_t total = 0;

	return reap_all(d, &total) || open_rings(d);
}

static int reconnect(struct net_driver *d)
{
	const struct libvhost_call_opts call = call_opts(d->opts.reconnect_ms);
	double before = seconds_now(), took;
	int rc = libvhost_dev_reconnect(d->dev, &call);

	if (rc < 0)
		return complain_dev(d->dev, "reconnect", rc);
	took = seconds_now() - before;
	if (took > d->slowest_reconnect_s)
		d->slowest_reconnect_s = took;
	d->reconnects++;
	return 0;
}

static int recover(struct net_driver *d, const struct libvhost_event *event)
{
	if (!d->opts.reconnect_ms)
		return complain("the back-end went away: %s", event->text);
	return renew(d) || reconnect(d) || d->opts.on_restart(d->opts.arg);
}

int net_driver_reopen(struct net_driver *d)
{
	const struct libvhost_call_opts call = call_opts(d->opts.timeout_ms);
	uint32_t total = 0;
	int rc = libvhost_dev_stop(d->dev, &call);

	if (rc < 0)
		return complain_dev(d->dev, "stop", rc);
	return reap_all(d, &total) || reconnect(d) || set_up_queues(d) || start(d) || watch(d) ||
	       d->opts.on_restart(d->opts.arg);
}

static int serve_events(struct net_driver *d)
{
	struct libvhost_event event;

	libvhost_dev_dispatch(d->dev, 0);
	while (libvhost_dev_next_event(d->dev, &event) == 1) {
		if (event.type == LIBVHOST_EVENT_DISCONNECTED || event.type == LIBVHOST_EVENT_LOST) {
			if (recover(d, &event))
				return 1;
		} else if (event.type == LIBVHOST_EVENT_QUEUE_ERROR || event.type == LIBVHOST_EVENT_NEEDS_RESET) {
			return complain("queue %u: %s", event.queue, event.text);
		}
	}
	return 0;
}

/* Asks every queue for a call. Returns true when nothing arrived meanwhile, so that sleeping is safe. */
static bool may_sleep(struct net_driver *d)
{
	bool quiet = true;

	for (uint32_t q = 0; q < 2 * d->opts.pairs; q++)
		quiet &= libvhost_vq_notify_enable(d->queues[q].vq, 1) == 0;
	return quiet;
}

static int out_of_time(const struct net_driver *d)
{
	return complain("nothing came back for %u ms: the back-end lost frames or does not forward them",
			d->opts.timeout_ms);
}

static int sleep_until_something(struct net_driver *d)
{
	struct epoll_event events[16];
	struct libvhost_queue have = {.size = sizeof(have)};
	uint64_t count;
	int n = epoll_wait(d->epoll, events, 16, (int)d->opts.timeout_ms);

	if (n == 0)
		return out_of_time(d);
	for (int i = 0; i < n; i++) {
		if (events[i].data.u32 == DEVICE_EVENT) {
			if (serve_events(d))
				return 1;
		} else if (!libvhost_dev_get_queue(d->dev, events[i].data.u32, &have)) {
			if (read(have.call_fd, &count, sizeof(count)) < 0 && errno != EAGAIN)
				return complain("call eventfd: %s", strerror(errno));
		}
	}
	return 0;
}

int net_driver_run(struct net_driver *d)
{
	double give_up = seconds_now() + d->opts.timeout_ms / 1e3;
	uint64_t generation = d->reconnects;
	uint32_t total = 0, spins = 0;

	if (kick_all(d))
		return 1;
	while (!interrupted) {
		if (reap_all(d, &total))
			return 1;
		if (total || d->reconnects != generation)
			return kick_all(d);
		if (!d->opts.poll) {
			if (may_sleep(d) && sleep_until_something(d))
				return 1;
		} else if (++spins % 1024 == 0) {
			if (serve_events(d))
				return 1;
			if (seconds_now() > give_up)
				return out_of_time(d);
		}
	}
	return complain("interrupted");
}
