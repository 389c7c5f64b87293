/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
#include "device/record.h"

#include <stdlib.h>
#include <string.h>

size_t lv_record_size(uint32_t num_queues)
{
	return sizeof(struct lv_record) + num_queues * sizeof(struct lv_record_queue);
}

struct lv_record *lv_record_new(uint32_t virtio_id, uint32_t num_queues)
{
	struct lv_record *rec;

	if (num_queues > LIBVHOST_MAX_QUEUES)
		return NULL;
	rec = calloc(1, lv_record_size(num_queues));
	if (!rec)
		return NULL;
	rec->magic = LV_RECORD_MAGIC;
	rec->version = LV_RECORD_VERSION;
	rec->bytes = (uint32_t)lv_record_size(num_queues);
	rec->virtio_id = virtio_id;
	rec->num_queues = num_queues;
	return rec;
}

struct lv_record *lv_record_dup(const struct lv_record *rec)
{
	struct lv_record *copy = malloc(rec->bytes);

	if (copy)
		memcpy(copy, rec, rec->bytes);
	return copy;
}
