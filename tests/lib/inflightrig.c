/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
#include "inflightrig.h"

#define PF(bit) (1ull << LIBVHOST_PROTOCOL_F_##bit)

void inflight_rig_open(struct devrig *r, uint32_t flags)
{
	devrig_init(r);
	r->f.slow = true;
	r->f.features |= PACKED_RING;
	r->f.protocol |= PF(INFLIGHT_SHMFD) | PF(GET_VRING_BASE_INFLIGHT);
	r->f.region = DEVRIG_QUEUES * QUEUE_BYTES;
	r->opts.flags = LIBVHOST_DEV_INFLIGHT | flags;
	CHECK_EQ(devrig_open(r), 0);
}

void inflight_rig_ready(struct devrig *r, uint32_t flags)
{
	inflight_rig_open(r, flags);
	devrig_queues(r, DEVRIG_QUEUES);
}

void inflight_rig_packed(struct devrig *r)
{
	uint64_t features = 1ull << 32 | PACKED_RING;

	inflight_rig_open(r, 0);
	r->f.region = DEVRIG_QUEUES * PACKED_BYTES;
	CHECK_EQ(libvhost_ack_features_ex(r->dev, &features, 1), 0);
	for (uint32_t i = 0; i < DEVRIG_QUEUES; i++) {
		struct libvhost_queue q = devrig_queue(i);

		q.base = 0x80008000;
		CHECK_EQ(libvhost_dev_set_queue(r->dev, i, &q), 0);
	}
}

struct libvhost_inflight inflight_region(struct devrig *r)
{
	struct libvhost_inflight i = {.size = sizeof(i)};

	CHECK_EQ(libvhost_dev_get_inflight(r->dev, &i), 0);
	return i;
}

static void write_region(struct devrig *r, uint64_t at, const void *bytes, size_t len)
{
	CHECK_EQ(pwrite(r->f.inflight_fd, bytes, len, (off_t)at), len);
}

void inflight_mark(struct devrig *r, uint32_t queue, uint32_t entry, uint64_t counter)
{
	const struct lv_inflight_split head = {.version = 1, .desc_num = DEVRIG_NUM};
	const struct lv_inflight_split_desc desc = {.inflight = 1, .counter = counter};

	write_region(r, queue * QUEUE_BYTES, &head, sizeof(head));
	write_region(r, queue * QUEUE_BYTES + sizeof(head) + entry * sizeof(desc), &desc, sizeof(desc));
}

bool inflight_marked(struct devrig *r, uint32_t queue, uint32_t entry)
{
	const struct libvhost_inflight i = inflight_region(r);
	const uint8_t *at = (const uint8_t *)(uintptr_t)i.address;

	return at[queue * QUEUE_BYTES + sizeof(struct lv_inflight_split) +
		  entry * sizeof(struct lv_inflight_split_desc)];
}

void inflight_write_packed(struct devrig *r, uint32_t queue, const struct lv_inflight_packed *head)
{
	write_region(r, queue * PACKED_BYTES, head, sizeof(*head));
}
