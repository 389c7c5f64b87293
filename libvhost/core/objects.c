/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
#include "core/objects.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "core/wire.h"

#define FIRST_CAP 16u

void lv_objects_init(struct lv_objects *o)
{
	pthread_mutex_init(&o->lock, NULL);
	pthread_cond_init(&o->unused, NULL);
}

void lv_objects_destroy(struct lv_objects *o)
{
	for (uint32_t i = 0; i < o->count; i++)
		lv_fd_close(o->at[i].fd);
	free(o->at);
	pthread_mutex_destroy(&o->lock);
	pthread_cond_destroy(&o->unused);
}

/* Where a name is, or would be inserted. A sorted array, because names are chosen by peers: no hash to collide in. */
static uint32_t position(const struct lv_objects *o, const uint8_t *uuid, bool *found)
{
	uint32_t low = 0, high = o->count;

	while (low < high) {
		const uint32_t mid = low + (high - low) / 2;

		if (memcmp(o->at[mid].uuid, uuid, LV_UUID_BYTES) < 0)
			low = mid + 1;
		else
			high = mid;
	}
	*found = low < o->count && !memcmp(o->at[low].uuid, uuid, LV_UUID_BYTES);
	return low;
}

static int make_room(struct lv_objects *o)
{
	const uint32_t cap = o->cap ? o->cap * 2 : FIRST_CAP;
	struct lv_object *at;

	if (o->count < o->cap)
		return 0;
	at = realloc(o->at, cap * sizeof(*at));
	if (!at)
		return -ENOMEM;
	o->at = at;
	o->cap = cap;
	return 0;
}

static int insert(struct lv_objects *o, const uint8_t *uuid, int fd, struct lv_object_owner *owner)
{
	bool found;
	uint32_t at = position(o, uuid, &found);
	int r;

	if (found)
		return -EEXIST;
	if (o->count == LV_OBJECTS_MAX || (owner && owner->count == LV_OBJECTS_OF_DEVICE))
		return -ENOSPC;
	r = make_room(o);
	if (r)
		return r;
	memmove(o->at + at + 1, o->at + at, (o->count - at) * sizeof(*o->at));
	o->at[at] = (struct lv_object){.fd = fd, .owner = owner};
	memcpy(o->at[at].uuid, uuid, LV_UUID_BYTES);
	o->count++;
	if (owner)
		owner->count++;
	return 0;
}

int lv_objects_add(struct lv_objects *o, const uint8_t *uuid, int fd, struct lv_object_owner *owner)
{
	int r;

	pthread_mutex_lock(&o->lock);
	r = insert(o, uuid, fd, owner);
	pthread_mutex_unlock(&o->lock);
	return r;
}

int lv_objects_remove(struct lv_objects *o, const uint8_t *uuid, const struct lv_object_owner *owner)
{
	int fd = -1, r = 0;
	uint32_t at;
	bool found;

	pthread_mutex_lock(&o->lock);
	at = position(o, uuid, &found);
	if (!found) {
		r = -ENOENT;
	} else if (o->at[at].owner != owner) {
		r = -EPERM;
	} else {
		fd = o->at[at].fd;
		if (o->at[at].owner)
			o->at[at].owner->count--;
		o->count--;
		memmove(o->at + at, o->at + at + 1, (o->count - at) * sizeof(*o->at));
	}
	pthread_mutex_unlock(&o->lock);
	lv_fd_close(fd);
	return r;
}

int lv_objects_find(struct lv_objects *o, const uint8_t *uuid, int *fd, struct lv_object_owner **owner)
{
	int r = 0, dup = -1;
	uint32_t at;
	bool found;

	*owner = NULL;
	pthread_mutex_lock(&o->lock);
	at = position(o, uuid, &found);
	if (!found) {
		r = -ENOENT;
	} else if (o->at[at].owner) {
		*owner = o->at[at].owner;
		(*owner)->users++;
	} else {
		dup = lv_fd_dup(o->at[at].fd);
		r = dup < 0 ? dup : 0;
	}
	pthread_mutex_unlock(&o->lock);
	if (!r)
		*fd = dup;
	return r;
}

uint32_t lv_objects_list(struct lv_objects *o, const struct lv_object_owner *owner, uint8_t (*uuids)[LV_UUID_BYTES],
			 uint32_t cap)
{
	uint32_t n = 0;

	pthread_mutex_lock(&o->lock);
	for (uint32_t i = 0; i < o->count; i++) {
		if (o->at[i].owner != owner)
			continue;
		if (n < cap)
			memcpy(uuids[n], o->at[i].uuid, LV_UUID_BYTES);
		n++;
	}
	pthread_mutex_unlock(&o->lock);
	return n;
}

void lv_objects_unpin(struct lv_objects *o, struct lv_object_owner *owner)
{
	pthread_mutex_lock(&o->lock);
	if (!--owner->users)
		pthread_cond_broadcast(&o->unused);
	pthread_mutex_unlock(&o->lock);
}

/* Lock held. Entries of devices have no descriptor to close. */
static void drop(struct lv_objects *o, struct lv_object_owner *owner)
{
	uint32_t kept = 0;

	for (uint32_t i = 0; owner->count && i < o->count; i++)
		if (o->at[i].owner != owner)
			o->at[kept++] = o->at[i];
	if (owner->count)
		o->count = kept;
	owner->count = 0;
}

void lv_objects_forget(struct lv_objects *o, struct lv_object_owner *owner)
{
	pthread_mutex_lock(&o->lock);
	drop(o, owner);
	pthread_mutex_unlock(&o->lock);
}

void lv_objects_end(struct lv_objects *o, struct lv_object_owner *owner)
{
	pthread_mutex_lock(&o->lock);
	drop(o, owner);
	while (owner->users)
		pthread_cond_wait(&o->unused, &o->lock);
	pthread_mutex_unlock(&o->lock);
}
