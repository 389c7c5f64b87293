/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* What the driver's side of both ring formats shares: checking requests, indirect tables, the kick. */
#ifndef LV_VRING_DRIVER_H
#define LV_VRING_DRIVER_H

#include "vring/vring.h"

/* The memory for indirect tables in a (new) snapshot, NULL if there is none. 0 or -EFAULT (error recorded). */
int lv_driver_tables(struct libvhost_vq *vq, const struct lv_snapshot *snap, void **tables);

/* Notifies the device. 1; -EIO (error recorded). */
int lv_driver_signal(struct libvhost_vq *vq);

LV_COLD int lv_driver_bad_bufs(struct libvhost_vq *vq, uint64_t n, uint64_t bytes);

/* Number of buffers of a request and the most bytes that the device can write; -EINVAL (error recorded). */
static inline int lv_driver_check(struct libvhost_vq *vq, const struct libvhost_buf *bufs, uint32_t n_read,
				  uint32_t n_write, uint32_t *writable)
{
	const uint64_t n = (uint64_t)n_read + n_write;
	uint64_t total = 0, readable = 0;
	uint32_t wrong = 0;

	if (LV_UNLIKELY(!n || n > vq->opts.max_chain))
		return lv_driver_bad_bufs(vq, n, 0);
	for (uint32_t i = 0; i < n; i++) {
		wrong |= bufs[i].flags | !bufs[i].len;
		total += bufs[i].len;
		readable = i < n_read ? total : readable;
	}
	if (LV_UNLIKELY(wrong || total > 1ull << 32)) /* virtio 1.2, 2.7.5.2: at most 2^32 bytes in a chain */
		return lv_driver_bad_bufs(vq, n, total);
	total -= readable;
	*writable = total > UINT32_MAX ? UINT32_MAX : (uint32_t)total;
	return (int)n;
}

/* Flags of buffer i of n. */
static inline uint16_t lv_driver_flags(uint32_t i, uint32_t n_read, uint32_t n)
{
	return (uint16_t)((i + 1 < n ? LV_DESC_NEXT : 0) | (i < n_read ? 0 : LV_DESC_WRITE));
}

#endif
