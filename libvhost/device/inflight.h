/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/*
 * The inflight region of a device: a file that the back-end writes, handed to the next one. Where it lies in the file
 * and what it was made for stand in the record. The library reads and writes it by system calls only: a peer that cuts
 * the file short harms nobody.
 */
#ifndef LV_DEVICE_INFLIGHT_H
#define LV_DEVICE_INFLIGHT_H

#include <stdbool.h>
#include <stddef.h>
#include "device/record.h"
#include "vring/inflight.h"

struct libvhost_dev;
struct libvhost_req;
struct lv_program;

#define LV_INFLIGHT_MAX_NUM   32768u	   /* entries of a ring */
#define LV_INFLIGHT_MAX_BYTES (1ull << 30) /* 256 packed rings of 32768 entries take 257 MiB */

/* The file. */
struct lv_inflight_file {
	int fd;	   /* -1 = none */
	void *map; /* once the caller asked for the address */
	size_t map_len;
	uint8_t *region;	    /* in it */
	struct lv_guarded *guarded; /* core/sigbus.h; NULL = not */
};

/* What a region has to be made for. */
struct lv_inflight_shape {
	uint32_t queues, num; /* highest index + 1, entries of the largest */
	bool packed;
};

/* ---- plan_inflight.c ---- */

/* Of the queues that are set up, with the features accepted. */
struct lv_inflight_shape lv_inflight_shape(const struct lv_record *rec);
uint64_t lv_inflight_bytes(const struct lv_inflight_shape *shape);
/* Whether the region in the record serves the shape. */
bool lv_inflight_fits(const struct lv_record *rec, const struct lv_inflight_shape *need);
/* Puts a region into the record. */
void lv_inflight_note(struct lv_record *rec, const struct lv_inflight_shape *shape, uint64_t bytes, uint64_t offset);

/* ---- inflight.c ---- */

/*
 * 0, or why fd cannot hold a region: -EBADF; -EINVAL (not LV_INFLIGHT_FILE). *file = its size. What back-ends hand out
 * is a memfd; a read from a file of another kind may never return.
 */
#define LV_INFLIGHT_FILE "a memfd (or a file of tmpfs or hugetlbfs) open for reading and writing"
int lv_inflight_check_fd(int fd, uint64_t *file);
/* Owns the region that an ended program brought; within an operation. */
void lv_inflight_collect(struct libvhost_dev *dev, const struct lv_program *prog);
/* The operation succeeded: what it brought is the device's. The record is adopted already. Lock held. */
void lv_inflight_adopt(struct libvhost_dev *dev);
/* Lets the region go, in the record too. */
void lv_inflight_drop(struct libvhost_dev *dev);
/* Before a start: a region that does not fit the queues any more makes way, unless something is in flight in it. */
int lv_inflight_before_start(struct libvhost_dev *dev);
/* Before a stop's working copy is adopted, or absorbed: where it left requests in the region, the rings that rest now
 * continue at the used index. */
void lv_inflight_rebase(struct libvhost_dev *dev);
/* A start failed that brought a region, and rings may have run with it: it stays. */
void lv_inflight_keep(struct libvhost_dev *dev);
/* Where a packed ring continues whose peer died, as the region says; both halves of *base are the used index, the next
 * back-end works out the rest. False: there is no region, or it does not say. */
bool lv_inflight_packed_base(struct libvhost_dev *dev, uint32_t queue, uint32_t *base);
/* The guest gave the queue up. */
void lv_inflight_forget_queue(struct libvhost_dev *dev, uint32_t queue);
/* enum libvhost_guarantee of a reconnect with this record. */
uint32_t lv_inflight_guarantee(const struct lv_record *rec);
/* Uses fd (owned from now on) as the region, in place of the present one. */
void lv_inflight_use(struct libvhost_dev *dev, int fd, const struct lv_inflight_shape *shape, uint64_t bytes,
		     uint64_t offset);

/* ---- inflight_blob.c: save and load of a region within a claim, errors recorded in the device ---- */

int lv_inflight_save(struct libvhost_dev *dev, void *buf, size_t *len);
int lv_inflight_load(struct libvhost_dev *dev, const uint8_t *buf, size_t len);

/* What a call does with the region: a device at rest, negotiated or with a region, is claimed for it. */
enum lv_inflight_need {
	LV_INFLIGHT_NEGOTIATE, /* asks the peer */
	LV_INFLIGHT_REPLACE,
	LV_INFLIGHT_CHANGE,
	LV_INFLIGHT_READ
};
int lv_inflight_claim(struct libvhost_dev *dev, enum lv_inflight_need need, const char *call);
int lv_inflight_unreadable(struct libvhost_dev *dev, const char *call);

#endif
