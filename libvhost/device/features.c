/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
#include "device/features.h"

#include <string.h>

/* Never taken from the guest's word. ACCESS_PLATFORM: a peer that gets it expects IOTLB messages for every address. */
#define TRANSPORT_BITS                                                                                                 \
	(LV_BIT(LV_F_LOG_ALL) | LV_BIT(LV_F_NET_HDR) | LV_BIT(LV_F_PROTOCOL) | LV_BIT(LV_F_ACCESS_PLATFORM))

void lv_features_wire(const struct lv_record *rec, uint64_t own, uint64_t words[LIBVHOST_FEATURE_WORDS])
{
	if (rec->flags & LV_RF_LOG)
		own |= LV_BIT(LV_F_LOG_ALL);
	memcpy(words, rec->acked, sizeof(rec->acked));
	words[0] &= ~TRANSPORT_BITS;
	words[0] |= own & rec->offered[0];
}

enum {
	NO,
	YES,
	WITH_CHANNEL,
	WITH_NOTIFIERS,
	WITH_OBJECTS,
	WITH_GPA_FLAG,
	WITH_SHMEM_FLAG,
	WITH_INFLIGHT_FLAG,
	WITH_STOP_FLAG
};

#define PF(name) LIBVHOST_PROTOCOL_F_##name

/* The one decision per protocol feature. A bit also needs the bits in needs, which are lower than itself; bits outside
 * the table are never acknowledged. */
static const struct {
	uint8_t when;
	uint64_t needs;
} protocol_table[] = {
	[PF(MQ)] = {YES, 0},	    /* tells how many queues there are */
	[PF(LOG_SHMFD)] = {YES, 0}, /* a dirty log reaches the peer only as a descriptor */
	[PF(RARP)] = {YES, 0},	    /* opens one request, changes nothing else */
	[PF(REPLY_ACK)] = {YES, 0}, /* errors become attributable */
	[PF(MTU)] = {YES, 0},	    /* opens one request */
	[PF(BACKEND_REQ)] = {WITH_CHANNEL, 0},
	[PF(CROSS_ENDIAN)] = {NO, 0},	 /* rings have the host's byte order; nothing sends SET_VRING_ENDIAN */
	[PF(CRYPTO_SESSION)] = {YES, 0}, /* opens two requests */
	[PF(PAGEFAULT)] = {NO, 0},	 /* postcopy is not served: memory messages would change their replies */
	[PF(CONFIG)] = {YES, 0},
	[PF(BACKEND_SEND_FD)] = {WITH_CHANNEL, LV_BIT(PF(BACKEND_REQ))},
	[PF(HOST_NOTIFIER)] = {WITH_NOTIFIERS, LV_BIT(PF(BACKEND_REQ)) | LV_BIT(PF(BACKEND_SEND_FD))},
	[PF(INFLIGHT_SHMFD)] = {WITH_INFLIGHT_FLAG, 0}, /* a peer that gets it relies on a region being handed over */
	[PF(RESET_DEVICE)] = {YES, 0},
	/* a descriptor, which every queue gets, is preferred to messages */
	[PF(INBAND_NOTIFICATIONS)] = {YES, LV_BIT(PF(BACKEND_REQ)) | LV_BIT(PF(REPLY_ACK))},
	[PF(CONFIGURE_MEM_SLOTS)] = {YES, 0},
	[PF(STATUS)] = {YES, 0},
	[PF(XEN_MMAP)] = {NO, 0}, /* regions would carry grant references */
	[PF(SHARED_OBJECT)] = {WITH_OBJECTS, LV_BIT(PF(BACKEND_REQ))},
	[PF(DEVICE_STATE)] = {YES, 0}, /* opens two requests */
	/* a stopped ring still has requests in flight */
	[PF(GET_VRING_BASE_INFLIGHT)] = {WITH_STOP_FLAG, LV_BIT(PF(INFLIGHT_SHMFD))},
	[PF(GPA_ADDRESSES)] = {WITH_GPA_FLAG, 0}, /* peers in the field use this bit for shared memory */
	[PF(SHMEM_MAP)] = {WITH_SHMEM_FLAG, LV_BIT(PF(BACKEND_REQ))},
};

static bool wanted(const struct lv_protocol_choice *c, uint32_t when)
{
	switch (when) {
	case YES:
		return true;
	case WITH_CHANNEL:
		return c->channel;
	case WITH_NOTIFIERS:
		return c->channel && (c->on_request || c->dev_flags & LIBVHOST_DEV_HOST_NOTIFIERS);
	case WITH_OBJECTS:
		return c->channel && (c->on_request || c->dev_flags & LIBVHOST_DEV_SHARED_OBJECTS);
	case WITH_GPA_FLAG:
		return c->dev_flags & LIBVHOST_DEV_USE_GPA_ADDRESSES;
	case WITH_SHMEM_FLAG:
		return c->channel && c->dev_flags & LIBVHOST_DEV_USE_SHMEM;
	case WITH_INFLIGHT_FLAG:
		return c->dev_flags & LIBVHOST_DEV_INFLIGHT;
	case WITH_STOP_FLAG:
		return c->dev_flags & LIBVHOST_DEV_STOP_INFLIGHT;
	default:
		return false;
	}
}

uint64_t lv_protocol_choose(const struct lv_protocol_choice *choice)
{
	uint64_t open = choice->offered & ~choice->never, acked = 0;
	uint32_t bit;

	for (bit = 0; bit < sizeof(protocol_table) / sizeof(protocol_table[0]); bit++)
		if ((open & LV_BIT(bit)) && wanted(choice, protocol_table[bit].when) &&
		    !(protocol_table[bit].needs & ~acked))
			acked |= LV_BIT(bit);
	return acked;
}

uint64_t lv_backend_choose(uint64_t offered)
{
	/*
	 * Not IOTLB_ASID and DESC_ASID: one address space. Not ENABLE_AFTER_DRIVER_OK: rings are enabled before
	 * DRIVER_OK, which every device allows. IOTLB_PERSIST keeps the pinned map over a reset: restarts send nothing.
	 */
	const uint64_t known = LV_BIT(LV_BF_IOTLB_MSG_V2) | LV_BIT(LV_BF_IOTLB_BATCH) | LV_BIT(LV_BF_SUSPEND) |
			       LV_BIT(LV_BF_RESUME) | LV_BIT(LV_BF_IOTLB_PERSIST);

	return offered & known;
}

int lv_features_lost(const uint64_t *old, const uint64_t *now, uint32_t words)
{
	uint32_t i;

	for (i = 0; i < words; i++)
		if (old[i] & ~now[i])
			return (int)(i * 64) + __builtin_ctzll(old[i] & ~now[i]);
	return -1;
}
