/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* The driver's birth and death: memory, negotiation, queues. */
#include "blk_driver.h"

#include <endian.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "cli.h"
#include "ring.h"

#define MEMORY_BASE 0x100000ull /* guest-physical; not 0, which some peers read as "not set" */
#define PAGE	    4096u

static uint64_t align(uint64_t n, uint64_t to)
{
	return (n + to - 1) / to * to;
}

static uint32_t ring_entries(uint32_t depth, bool packed)
{
	uint32_t n = 4;

	if (packed)
		return depth * BLK_CHAIN; /* as few as there can be */
	while (n < depth * BLK_CHAIN)
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
		at = align(requests + (uint64_t)d->opts.depth * (BLK_HEADER_BYTES + d->opts.block_bytes), PAGE);
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

int blk_driver_open_ring(struct blk_driver *d, uint32_t q)
{
	struct blk_queue *bq = &d->queues[q];

	return open_driver_ring(d->ctx, d->dev, q, d->features, d->mem, &bq->setup, &bq->vq);
}

static int make_slots(struct blk_driver *d, struct blk_queue *bq)
{
	bq->slots = calloc(d->opts.depth, sizeof(*bq->slots));
	bq->free = calloc(d->opts.depth, sizeof(*bq->free));
	return bq->slots && bq->free ? 0 : complain("out of memory");
}

static void list_free_slots(struct blk_driver *d, struct blk_queue *bq)
{
	bq->free_count = 0;
	for (uint32_t slot = d->opts.depth; slot--;)
		if (!bq->slots[slot].busy)
			bq->free[bq->free_count++] = slot;
}

static int watch_queue(struct blk_driver *d, uint32_t q)
{
	struct epoll_event ev = {.events = EPOLLIN, .data.u32 = q};
	struct libvhost_queue have = {.size = sizeof(have)};

	libvhost_dev_get_queue(d->dev, q, &have);
	if (epoll_ctl(d->epoll, EPOLL_CTL_ADD, have.call_fd, &ev) < 0)
		return complain("cannot wait for queue %u: %s", q, strerror(errno));
	return 0;
}

static int set_up_queue(struct blk_driver *d, uint32_t q)
{
	struct blk_queue *bq = &d->queues[q];
	int rc = libvhost_dev_set_queue(d->dev, q, &bq->setup);

	if (rc < 0)
		return complain_dev(d->dev, "queue set-up", rc);
	if (make_slots(d, bq))
		return 1;
	list_free_slots(d, bq);
	return blk_driver_open_ring(d, q) || watch_queue(d, q);
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

static struct libvhost_dev_ops device_ops(struct blk_driver *d)
{
	return (struct libvhost_dev_ops){.size = sizeof(struct libvhost_dev_ops), .ring_base = ring_base, .arg = d};
}

static int read_capacity(struct blk_driver *d)
{
	struct blk_config config = {0};
	int rc = libvhost_dev_get_config(d->dev, 0, &config, BLK_CONFIG_BYTES, d->opts.timeout_ms);

	d->capacity_sectors = le64toh(config.capacity);
	return rc < 0 ? complain_dev(d->dev, "configuration", rc) : 0;
}

static int negotiate(struct blk_driver *d)
{
	const struct libvhost_dev_ops ops = device_ops(d);
	static const uint8_t wanted[] = {BLK_F_SEG_MAX,	   BLK_F_BLK_SIZE, BLK_F_FLUSH,	  BLK_F_MQ,
					 RING_F_EVENT_IDX, F_VERSION_1,	   F_RING_PACKED, LIBVHOST_INVALID_FEATURE_BIT};
	struct libvhost_dev_opts o = {.size = sizeof(o), .virtio_id = VIRTIO_ID_BLOCK};
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
	if (read_capacity(d))
		return 1;
	d->features = libvhost_get_features(d->dev, wanted, want);
	if (d->opts.packed && !(d->features >> F_RING_PACKED & 1))
		return complain("the back-end does not offer packed rings");
	rc = libvhost_ack_features(d->dev, wanted, d->features);
	return rc < 0 ? complain_dev(d->dev, "features", rc) : 0;
}

int blk_driver_prepare(struct blk_driver *d, const struct blk_driver_opts *opts)
{
	memset(d, 0, sizeof(*d));
	d->opts = *opts;
	d->epoll = epoll_create1(EPOLL_CLOEXEC);
	d->queues = calloc(opts->queues, sizeof(*d->queues));
	if (d->epoll < 0 || !d->queues || libvhost_ctx_new(NULL, &d->ctx) < 0 ||
	    libvhost_mem_new(d->ctx, NULL, &d->mem) < 0)
		return complain("out of memory or descriptors");
	return make_memory(d);
}

uint8_t *blk_driver_memory(struct blk_driver *d, uint64_t *bytes)
{
	void *hva = NULL;

	*bytes = lay_out(d, false);
	return libvhost_mem_translate(d->mem, MEMORY_BASE, *bytes, &hva, NULL) ? NULL : hva;
}

static int start(struct blk_driver *d)
{
	const struct libvhost_call_opts call = {.size = sizeof(call), .timeout_ms = d->opts.timeout_ms};
	struct epoll_event ev = {.events = EPOLLIN, .data.u32 = UINT32_MAX};
	struct libvhost_inflight region = {.size = sizeof(region)};
	int rc = libvhost_dev_start(d->dev, &call);

	if (rc < 0)
		return complain_dev(d->dev, "start", rc);
	if (d->opts.inflight && libvhost_dev_get_inflight(d->dev, &region) < 0)
		return complain("the back-end has no inflight region");
	d->info.size = sizeof(d->info);
	libvhost_dev_info(d->dev, &d->info);
	rc = libvhost_dev_fd(d->dev);
	if (rc < 0 || epoll_ctl(d->epoll, EPOLL_CTL_ADD, rc, &ev) < 0)
		return complain("cannot watch the device: %s", strerror(rc < 0 ? -rc : errno));
	return 0;
}

int blk_driver_open(struct blk_driver *d, const struct blk_driver_opts *opts)
{
	const double before = seconds_now();

	if (blk_driver_prepare(d, opts) || negotiate(d))
		return 1;
	for (uint32_t q = 0; q < opts->queues; q++)
		if (set_up_queue(d, q))
			return 1;
	if (start(d))
		return 1;
	d->connect_to_running_s = seconds_now() - before;
	return 0;
}

/* ---- a snapshot ---- */

/* A split ring as it lies in memory (virtio specification 1.2, 2.7). */
struct split_desc {
	uint64_t addr;
	uint32_t len;
	uint16_t flags, next;
};

/* The request at the descriptor: its slot is busy again. */
static bool adopt(struct blk_driver *d, struct blk_queue *bq, const struct split_desc *table, uint16_t head)
{
	const uint64_t at = head < bq->setup.num ? le64toh(table[head].addr) - bq->requests_gpa : UINT64_MAX;
	const uint64_t slot = at / BLK_HEADER_BYTES;
	const struct blk_header *h;
	uint16_t data;

	if (at % BLK_HEADER_BYTES || slot >= d->opts.depth || bq->slots[slot].busy)
		return false;
	h = (const void *)(bq->requests + slot * BLK_HEADER_BYTES);
	data = le16toh(table[head].next);
	bq->slots[slot] = (struct blk_slot){.type = le32toh(h->type),
					    .sector = le64toh(h->sector),
					    .bytes = data < bq->setup.num ? le32toh(table[data].len) : 0,
					    .started = seconds_now(),
					    .busy = true};
	bq->resumed[head] = (uint32_t)slot;
	d->in_flight++;
	return bq->slots[slot].bytes <= d->opts.block_bytes;
}

/* Finds out what was offered and not completed. */
static int adopt_all(struct blk_driver *d, uint32_t q)
{
	struct blk_queue *bq = &d->queues[q];
	const struct split_desc *table;
	const uint16_t *avail, *used; /* flags, index, entries */
	void *hva[3];
	int rc = libvhost_mem_translate(d->mem, bq->setup.desc, 1, &hva[0], NULL);

	rc = rc ? rc : libvhost_mem_translate(d->mem, bq->setup.avail, 1, &hva[1], NULL);
	rc = rc ? rc : libvhost_mem_translate(d->mem, bq->setup.used, 1, &hva[2], NULL);
	bq->resumed = calloc(bq->setup.num, sizeof(*bq->resumed));
	if (rc || !bq->resumed)
		return complain("out of memory");
	table = hva[0];
	avail = hva[1];
	used = hva[2];
	for (uint16_t i = le16toh(used[1]); i != le16toh(avail[1]); i++)
		if (!adopt(d, bq, table, le16toh(avail[2 + i % bq->setup.num])))
			return complain("queue %u: the guest's memory holds no request of this program at index %u", q,
					i);
	return 0;
}

static int resume_queue(struct blk_driver *d, uint32_t q)
{
	struct blk_queue *bq = &d->queues[q];

	if (make_slots(d, bq) || resume_driver_ring(d->ctx, d->dev, q, d->features, d->mem, &bq->setup, &bq->vq) ||
	    (!d->opts.packed && adopt_all(d, q)))
		return 1;
	list_free_slots(d, bq);
	return watch_queue(d, q);
}

int blk_driver_thaw(struct blk_driver *d, uint64_t features, const void *blob, size_t blob_len)
{
	const struct libvhost_dev_ops ops = device_ops(d);
	struct libvhost_thaw_opts o = {.size = sizeof(o), .blob = blob, .blob_len = blob_len, .ops = &ops};
	const double before = seconds_now();
	int rc;

	o.timeout_ms = d->opts.timeout_ms;
	o.mem = d->mem;
	o.uri = d->opts.uri;
	rc = libvhost_dev_thaw(d->ctx, &o, &d->dev);
	if (rc < 0)
		return complain_ctx(d->ctx, "thaw", rc);
	d->features = features;
	d->connect_to_running_s = seconds_now() - before;
	return read_capacity(d);
}

int blk_driver_resume(struct blk_driver *d)
{
	const double before = seconds_now();

	for (uint32_t q = 0; q < d->opts.queues; q++)
		if (resume_queue(d, q))
			return 1;
	if (start(d))
		return 1;
	d->connect_to_running_s += seconds_now() - before;
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
		free(d->queues[q].resumed);
	}
	libvhost_dev_cleanup(d->dev);
	libvhost_mem_free(d->mem);
	libvhost_ctx_free(d->ctx);
	free(d->queues);
	if (d->epoll >= 0)
		close(d->epoll);
}
