/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* Which feature bits go on the wire: of the guest, of the vhost-user protocol, of the kernel's back-end. Pure. */
#ifndef LV_DEVICE_FEATURES_H
#define LV_DEVICE_FEATURES_H

#include <stdbool.h>
#include "device/record.h"

#define LV_BIT(n) (1ull << (n))

/* Virtio-side bits that belong to the transport, not to the guest. */
enum {
	LV_F_LOG_ALL = 26,	   /* dirty log */
	LV_F_NET_HDR = 27,	   /* VHOST_NET_F_VIRTIO_NET_HDR; collides with VIRTIO_F_ANY_LAYOUT */
	LV_F_PROTOCOL = 30,	   /* vhost-user protocol features follow */
	LV_F_VERSION_1 = 32,	   /* not a legacy device */
	LV_F_ACCESS_PLATFORM = 33, /* ring addresses go through an IOMMU */
	LV_F_RING_PACKED = 34,
	LV_F_IN_ORDER = 35
};

/* Kernel back-end feature bits, GET_BACKEND_FEATURES. */
enum {
	LV_BF_IOTLB_MSG_V2 = 1,
	LV_BF_IOTLB_BATCH = 2,
	LV_BF_IOTLB_ASID = 3,
	LV_BF_SUSPEND = 4,
	LV_BF_RESUME = 5,
	LV_BF_ENABLE_AFTER_DRIVER_OK = 6,
	LV_BF_DESC_ASID = 7,
	LV_BF_IOTLB_PERSIST = 8
};

/* Virtio device status. */
enum {
	LV_STATUS_ACKNOWLEDGE = 1,
	LV_STATUS_DRIVER = 2,
	LV_STATUS_DRIVER_OK = 4,
	LV_STATUS_FEATURES_OK = 8,
	LV_STATUS_HELLO = LV_STATUS_ACKNOWLEDGE | LV_STATUS_DRIVER,
	LV_STATUS_AGREED = LV_STATUS_HELLO | LV_STATUS_FEATURES_OK,
	LV_STATUS_LIVE = LV_STATUS_AGREED | LV_STATUS_DRIVER_OK
};

/*
 * What SET_FEATURES carries: what the guest accepted without the transport's own bits, plus own (of what is offered),
 * plus LOG_ALL while the log is on.
 */
void lv_features_wire(const struct lv_record *rec, uint64_t own, uint64_t words[LIBVHOST_FEATURE_WORDS]);

/* Facts that decide which protocol features are acknowledged. */
struct lv_protocol_choice {
	uint64_t offered, never;
	uint32_t dev_flags; /* LIBVHOST_DEV_* */
	bool channel;	    /* the transport has a back-end channel */
	bool on_request;    /* the host answers back-end requests */
};
uint64_t lv_protocol_choose(const struct lv_protocol_choice *choice);

/* Kernel back-end features to acknowledge. */
uint64_t lv_backend_choose(uint64_t offered);

/* Lowest bit that is in old but not in now; -1 = none. */
int lv_features_lost(const uint64_t *old, const uint64_t *now, uint32_t words);

#endif
