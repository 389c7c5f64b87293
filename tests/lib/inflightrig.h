/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* A device with LIBVHOST_DEV_INFLIGHT on the fake, whose region the test writes as a back-end would. */
#ifndef LV_TESTS_INFLIGHTRIG_H
#define LV_TESTS_INFLIGHTRIG_H

#include "device/inflight.h"
#include "devrig.h"

#define PACKED_RING  (1ull << 34)
#define QUEUE_BYTES  lv_inflight_queue_bytes(DEVRIG_NUM, 0)
#define PACKED_BYTES lv_inflight_queue_bytes(DEVRIG_NUM, 1)

/* flags beside LIBVHOST_DEV_INFLIGHT. Open without queues, with all queues, with all of them packed. */
void inflight_rig_open(struct devrig *r, uint32_t flags);
void inflight_rig_ready(struct devrig *r, uint32_t flags);
void inflight_rig_packed(struct devrig *r);

struct libvhost_inflight inflight_region(struct devrig *r);
/* As a back-end that runs queue and works on its entry. */
void inflight_mark(struct devrig *r, uint32_t queue, uint32_t entry, uint64_t counter);
bool inflight_marked(struct devrig *r, uint32_t queue, uint32_t entry);
void inflight_write_packed(struct devrig *r, uint32_t queue, const struct lv_inflight_packed *head);

#endif
