/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/*
 * What a back-end shares with the host: doorbells (doorbell.c), windows of shared memory (shmem.c), shared objects
 * (objects.c). Each answers its requests of the back-end in two halves: ask before the reply, told after it was sent.
 * Both run on the thread inside; ask returns 0 (done), -ENOTSUP (the host's on_request is asked next) or the refusal.
 */
#ifndef LV_DEVICE_SHARE_H
#define LV_DEVICE_SHARE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <vhost/share.h>
#include "core/objects.h"

struct lv_part;
struct lv_bell;
struct lv_window;

struct lv_share {
	struct lv_bell *bells;		/* by queue; NULL until the first came. Under the device's lock */
	struct lv_window *windows;	/* from inside */
	atomic_uint maps;		/* in all windows */
	struct lv_object_owner objects; /* what its back-end registered, under the table's lock */
	bool objects_mute;		/* it did not answer for one of them in time. From inside */
};

int lv_doorbell_ask(struct lv_part *part, struct libvhost_req *req);
void lv_doorbell_told(struct lv_part *part, const struct libvhost_req *req);
bool lv_doorbell_there(const struct libvhost_dev *dev, uint32_t queue); /* lock held */

/* Freeze and thaw: the descriptor of a queue's doorbell (-1 = none), borrowed; taking it over in another process (0;
 * -EINVAL; -ENOMEM); forgetting all descriptors without touching the pages. Lock held, except by adopt. */
int lv_doorbell_describe(const struct libvhost_dev *dev, uint32_t queue, uint64_t *offset);
int lv_doorbell_adopt(struct libvhost_dev *dev, uint32_t queue, int fd, uint64_t offset);
void lv_doorbells_let_go(struct libvhost_dev *dev);

int lv_shmem_ask(struct lv_part *part, struct libvhost_req *req);
void lv_shmem_told(struct lv_part *part, const struct libvhost_req *req);
/* How many files are mapped into windows: they would not migrate. Any thread. */
uint32_t lv_shmem_maps(struct libvhost_dev *dev);
/* Puts pages of a file at an address that is ours, all or nothing: 0 or negative errno. */
int lv_place_file(void *at, size_t len, int prot, int fd, uint64_t offset);
/* Puts anonymous memory there. */
int lv_place_nothing(void *at, size_t len, int prot);
/* Whether a file is long enough for mapping a range of it. Only kinds of files that have a size are. */
bool lv_file_covers(int fd, uint64_t offset, uint64_t len);

int lv_object_ask(struct lv_part *part, struct libvhost_req *req);

/* ---- what ends when; from inside ---- */

void lv_share_stopped(struct libvhost_dev *dev);		       /* all rings are at rest */
void lv_share_queue_stopped(struct libvhost_dev *dev, uint32_t queue); /* one is */
void lv_share_reset(struct libvhost_dev *dev);
void lv_share_closed(struct libvhost_dev *dev); /* the connection is gone */
void lv_share_free(struct libvhost_dev *dev);

/* doorbell.c, shmem.c */
void lv_doorbells_drop(struct libvhost_dev *dev, uint32_t first, uint32_t end);
void lv_doorbells_free(struct libvhost_dev *dev);
void lv_windows_empty(struct libvhost_dev *dev);
void lv_windows_free(struct libvhost_dev *dev);

#endif
