/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/*
 * The names under which devices of one context share files (virtio 1.3, resources exported by UUID). An entry belongs
 * to the host, which gave a descriptor, or to a device, whose back-end is asked for one. The table knows nothing of
 * devices: an owner is what it pins.
 */
#ifndef LV_CORE_OBJECTS_H
#define LV_CORE_OBJECTS_H

#include <pthread.h>
#include <stdint.h>

#define LV_OBJECTS_MAX	     4096u /* of a context */
#define LV_OBJECTS_OF_DEVICE 1024u /* so that one back-end cannot use up all */
#define LV_UUID_BYTES	     16u

struct lv_object_owner {
	void *device;
	uint32_t count; /* entries */
	uint32_t users; /* look-ups that are about to ask it */
};

struct lv_object {
	uint8_t uuid[LV_UUID_BYTES];
	int fd;			       /* the host's, else -1 */
	struct lv_object_owner *owner; /* NULL = the host */
};

struct lv_objects {
	pthread_mutex_t lock; /* held for short sections, never while a device is called */
	pthread_cond_t unused;
	struct lv_object *at; /* sorted by name */
	uint32_t count, cap;
};

void lv_objects_init(struct lv_objects *objects);
void lv_objects_destroy(struct lv_objects *objects);

/* fd is taken over on success. 0; -EEXIST; -ENOSPC; -ENOMEM. */
int lv_objects_add(struct lv_objects *objects, const uint8_t *uuid, int fd, struct lv_object_owner *owner);
/* 0; -ENOENT; -EPERM (of another owner). */
int lv_objects_remove(struct lv_objects *objects, const uint8_t *uuid, const struct lv_object_owner *owner);
/* A duplicate in *fd, or the owner in *owner (else NULL), pinned until lv_objects_unpin(). 0; -ENOENT; -EMFILE. */
int lv_objects_find(struct lv_objects *objects, const uint8_t *uuid, int *fd, struct lv_object_owner **owner);
void lv_objects_unpin(struct lv_objects *objects, struct lv_object_owner *owner);
/* Names of an owner's entries: how many there are; at most cap are stored. */
uint32_t lv_objects_list(struct lv_objects *objects, const struct lv_object_owner *owner,
			 uint8_t (*uuids)[LV_UUID_BYTES], uint32_t cap);
/* Drops all entries of an owner. */
void lv_objects_forget(struct lv_objects *objects, struct lv_object_owner *owner);
/* The same, and waits until nobody has it pinned. */
void lv_objects_end(struct lv_objects *objects, struct lv_object_owner *owner);

#endif
