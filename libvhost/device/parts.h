/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/*
 * Devices of several parts. A plan knows one peer, and what it finds in the record about the peer is true of that one:
 * while a part's plan runs, the part's own answers stand there. In between, and in the record in force, stands what
 * all parts allow: what one of them lacks the guest is not shown. A device of one part has the record alone.
 */
#ifndef LV_DEVICE_PARTS_H
#define LV_DEVICE_PARTS_H

#include <stdbool.h>
#include "device/record.h"

struct libvhost_dev;
struct lv_part;

/* What the record says about a peer. */
struct lv_peer_view {
	uint64_t offered[LIBVHOST_FEATURE_WORDS], protocol_offered, protocol_acked, backend_offered, backend_acked;
	uint64_t iova_first, iova_last, log_bytes;
	uint32_t max_queues, max_regions, status;
	bool logs;
};

/* A device of one part is about to get another one: the record so far is the first one's. */
void lv_parts_split(struct libvhost_dev *dev);
/* An operation begins. */
void lv_parts_begin(struct libvhost_dev *dev);
/* Around a plan's work on op.work. */
void lv_part_enter(struct libvhost_dev *dev, const struct lv_part *part);
void lv_part_leave(struct libvhost_dev *dev, struct lv_part *part);
/* Plans have ended: op.work gets what all parts allow. */
void lv_parts_combine(struct libvhost_dev *dev);
/* The working copy is in force; or, after a failure, only the status that was written. Lock held. */
void lv_parts_adopt(struct libvhost_dev *dev);
void lv_parts_absorb(struct libvhost_dev *dev);

/* As the part's peer has it, from the record in force. */
uint64_t lv_part_features(const struct lv_part *part);
uint64_t lv_part_protocol(const struct lv_part *part);
uint32_t lv_part_regions(const struct lv_part *part);

#endif
