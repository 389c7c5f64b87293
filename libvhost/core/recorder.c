/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
#include "core/recorder.h"

#include <string.h>

void lv_recorder_init(struct lv_recorder *rec)
{
	memset(rec, 0, sizeof(*rec));
	pthread_mutex_init(&rec->lock, NULL);
}

void lv_recorder_destroy(struct lv_recorder *rec)
{
	pthread_mutex_destroy(&rec->lock);
}

void lv_recorder_note(struct lv_recorder *rec, uint64_t now, const struct libvhost_req *reqs, uint32_t count)
{
	uint32_t first = count > LV_RECORDER_ENTRIES ? count - LV_RECORDER_ENTRIES : 0;

	pthread_mutex_lock(&rec->lock);
	rec->total += first;
	for (uint32_t i = first; i < count; i++) {
		rec->ring[rec->total++ % LV_RECORDER_ENTRIES] = (struct libvhost_history){
			.time_ns = now,
			.op = reqs[i].op,
			.index = reqs[i].index,
			.state = reqs[i].state,
			.err = reqs[i].err,
			.value = reqs[i].result[0] ? reqs[i].result[0] : reqs[i].arg.u64,
		};
	}
	pthread_mutex_unlock(&rec->lock);
}

void lv_recorder_read(struct lv_recorder *rec, struct libvhost_history *entries, uint32_t *count)
{
	uint64_t have, n, first;

	pthread_mutex_lock(&rec->lock);
	have = rec->total < LV_RECORDER_ENTRIES ? rec->total : LV_RECORDER_ENTRIES;
	n = *count < have ? *count : have;
	first = rec->total - n;
	for (uint64_t i = 0; i < n; i++)
		entries[i] = rec->ring[(first + i) % LV_RECORDER_ENTRIES];
	pthread_mutex_unlock(&rec->lock);
	*count = (uint32_t)n;
}
