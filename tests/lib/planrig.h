/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* A device without I/O: drives plans against a peer that is a table of answers. */
#ifndef LV_TESTS_PLANRIG_H
#define LV_TESTS_PLANRIG_H

#include "check.h"
#include "device/features.h"
#include "device/plan.h"

#define F30	  LV_BIT(LV_F_PROTOCOL)
#define MODERN	  LV_BIT(32)
#define PF(name)  LV_BIT(LIBVHOST_PROTOCOL_F_##name)
#define FD_KICK	  100
#define FD_CALL	  400
#define FD_ERR	  700
#define FD_MASK	  1000
#define FD_REGION 1300

struct planrig {
	struct libvhost_transport_caps caps;
	struct lv_plan_env env;
	struct lv_record *rec;
	struct lv_program prog;
	struct lv_errslot err;
	struct lv_plan plan;
	struct lv_queue_fds fds[LIBVHOST_MAX_QUEUES];
	/* the peer */
	uint64_t features[LIBVHOST_FEATURE_WORDS], protocol, backend, queues, slots, iova_first, iova_last;
	uint64_t status, refuse_status; /* bits that never stick */
	uint64_t bases[LIBVHOST_MAX_QUEUES];
	uint32_t config_len;
	uint64_t region, region_offset, region_file; /* what GET_INFLIGHT_FD answers; 0 = it has none */
	uint32_t fail_op, fail_after;		     /* this operation is refused after so many that are not */
	uint32_t passed;
	/* what happened: text of all programs, and how often a caller had to wait */
	char text[65536];
	uint32_t waits;
	void (*look)(struct planrig *rig); /* sees each program before it runs */
	uint32_t phase;
};

/* num_queues queues, none set up; one region of 256 MiB at 0. */
struct planrig *planrig_new(uint32_t dialect, uint32_t virtio_id, uint32_t num_queues);
void planrig_free(struct planrig *rig);
/* Queue i with 256 entries at 0x10000 * (i + 1), base 0x10 * i. */
void planrig_queue(struct planrig *rig, uint32_t i, uint32_t flags);
/* Regions of 256 MiB, number i at i * 4 GiB, each a file of its own. Replaces the map to establish. */
void planrig_memory(struct planrig *rig, uint32_t regions);
/* The peer now has the map. */
void planrig_sent(struct planrig *rig);
/* Runs a plan to its end: the last result of lv_plan_next(), or -EIO when the peer refused (after the harvest). Adds
 * "[kind]" and the programs' text. */
int planrig_run(struct planrig *rig, enum lv_plan_kind kind);
/* Runs CONNECT and accepts all features offered. */
void planrig_connect(struct planrig *rig);
/* Compares all text so far with tests/golden/NAME.txt, whose lines beginning with # do not count. */
void planrig_golden(struct planrig *rig, const char *name);
/* Whether the text so far has a part; one part before the first time of another. */
bool planrig_says(const struct planrig *rig, const char *text);
bool planrig_in_order(const struct planrig *rig, const char *first, const char *second);
/* The error recorded has this kind, names the peer and contains a part. */
void planrig_expect(struct planrig *rig, uint32_t kind, const char *part);
const char *planrig_error(struct planrig *rig, uint32_t *kind);

#endif
