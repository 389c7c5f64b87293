/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/*
 * The state record: everything a device needs to come back, in one pointer-free block. Reconnect replays it to a new
 * peer; it is written so that it can later be saved as a versioned blob (freeze / thaw). Descriptors and memory live
 * beside it, indexed by queue.
 */
#ifndef LV_DEVICE_RECORD_H
#define LV_DEVICE_RECORD_H

#include <stdbool.h>
#include <vhost/dev.h>

#define LV_RECORD_MAGIC	  0x6c767265u /* "lvre" */
#define LV_RECORD_VERSION 1u
#define LV_RECORD_CONFIG  256u

enum {
	LV_RQ_SET = 1u << 0,	    /* the caller set it up */
	LV_RQ_DISABLED = 1u << 1,   /* leave disabled at start */
	LV_RQ_MASKED = 1u << 2,	    /* CALL is the private eventfd */
	LV_RQ_KICK_POLL = 1u << 3,  /* no kick descriptor: the device polls */
	LV_RQ_CALL_POLL = 1u << 4,  /* no call descriptor */
	LV_RQ_RUNNING = 1u << 5,    /* the peer runs it (a disabled ring runs too once it got its kick) */
	LV_RQ_BASE_STALE = 1u << 6, /* stopped, but the peer could not tell where: rebuild base from the used ring and
				       clear the flag; a start with it is refused */
	LV_RQ_HELD = 1u << 7,	    /* stopped by itself, or set up while the device ran: a reconnect leaves it so */
	LV_RQ_IN_BAND = 1u << 8,    /* kick, call and error by message */
	LV_RQ_BASE_GIVEN = 1u << 9  /* base counts also for a packed ring, which is fresh otherwise */
};

struct lv_record_queue {
	uint32_t flags, num, base, reserved;
	uint64_t desc, avail, used; /* guest-physical; the dirty log gets used (packed: desc), too */
};

enum {
	LV_RF_RUNNING = 1u << 0,	/* the device is started */
	LV_RF_NEGOTIATED = 1u << 1,	/* features and protocol features below are remembered from a peer */
	LV_RF_LOG = 1u << 2,		/* the dirty log is on: LOG_ALL and the rings' log addresses are sent */
	LV_RF_INFLIGHT = 1u << 3,	/* there is an inflight region: its descriptor lies beside the record */
	LV_RF_INFLIGHT_PACKED = 1u << 4 /* it was made for packed rings */
};

struct lv_record {
	uint32_t magic, version, bytes, flags;
	uint32_t virtio_id, dialect, num_queues, max_queues;
	uint32_t max_regions, status, config_len, config_size;
	uint64_t offered[LIBVHOST_FEATURE_WORDS]; /* by the first peer, as read; a resume never widens it, so that the
						     guest is shown the same and a rolled-back peer still fits */
	uint64_t acked[LIBVHOST_FEATURE_WORDS];	  /* by the guest; bit 30 and LOG_ALL are added when sent */
	uint64_t protocol_offered, protocol_acked;
	uint64_t backend_offered, backend_acked;  /* kernel back-end features */
	uint64_t generation;			  /* connections so far */
	uint64_t iova_first, iova_last;		  /* vDPA */
	uint64_t log_bytes;			  /* of the bitmap as the peer was last told */
	uint64_t inflight_bytes, inflight_offset; /* of the region in its file */
	uint32_t inflight_queues, inflight_num;	  /* what it was made for: queues, entries of the largest */
	uint8_t config[LV_RECORD_CONFIG];	  /* last configuration read, to notice a shrunk one */
	struct lv_record_queue queue[];		  /* num_queues */
};

size_t lv_record_size(uint32_t num_queues);
/* NULL = out of memory, or more than LIBVHOST_MAX_QUEUES. Freed with free(). */
struct lv_record *lv_record_new(uint32_t virtio_id, uint32_t num_queues);
struct lv_record *lv_record_dup(const struct lv_record *rec);
/* Whether the guest accepted packed rings. */
bool lv_queue_packed(const struct lv_record *rec);

#endif
