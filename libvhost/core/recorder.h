/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* The flight recorder: the last 64 requests of a transport, always on. */
#ifndef LV_CORE_RECORDER_H
#define LV_CORE_RECORDER_H

#include <pthread.h>
#include <vhost/transport.h>

#define LV_RECORDER_ENTRIES 64u

struct lv_recorder {
	pthread_mutex_t lock;
	uint64_t total;
	struct libvhost_history ring[LV_RECORDER_ENTRIES];
};

void lv_recorder_init(struct lv_recorder *rec);
void lv_recorder_destroy(struct lv_recorder *rec);
/* Notes the final state of a program's requests; only the newest 64 are kept. */
void lv_recorder_note(struct lv_recorder *rec, uint64_t now, const struct libvhost_req *reqs, uint32_t count);
void lv_recorder_read(struct lv_recorder *rec, struct libvhost_history *entries, uint32_t *count);

#endif
