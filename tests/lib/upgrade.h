/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* A device on a scripted peer that moves to another "process": another context, the same memory mapped elsewhere. */
#ifndef LV_TESTS_UPGRADE_H
#define LV_TESTS_UPGRADE_H

#include <vhost/inflight.h>
#include "wirerig.h"

#define UP_FDS 1100u

struct upgrade {
	struct wirerig w; /* with the device and guest of the process that has them at present */
	/* between freeze and thaw */
	struct guest next;
	uint8_t *blob;
	size_t len;
	int fds[UP_FDS];
	uint32_t nfds;
	struct libvhost_thaw_opts thaw;
};

/* A puppet and options; change u->w, then up_open(). */
void up_init(struct upgrade *u);
/* Listens, connects, sets up queues queues and starts when asked to. */
void up_open(struct upgrade *u, uint32_t queues, bool start);
void up_close(struct upgrade *u);
/* What libvhost_dev_freeze() says; on success blob and descriptors are in u. Asks for the sizes first. */
int up_freeze(struct upgrade *u, uint32_t flags);
/* A second guest on the same files, u->next, and the options that thaw the blob into it. */
void up_next_guest(struct upgrade *u);
/* The next process takes over: the old device and guest are gone. 0, or what thaw said (u->next is gone then). */
int up_thaw(struct upgrade *u);
/* Refused with everything as it was: the descriptors are the caller's, and the same blob works in the right place. */
void up_refused(struct upgrade *u, int code, const char *text);
/* Freeze, next guest, thaw. */
void up_hop(struct upgrade *u);
/* Frees the blob and closes the descriptors of a thaw that is not going to happen. */
void up_drop(struct upgrade *u);
/* Where the inflight region of the device is. */
struct libvhost_inflight up_inflight(struct upgrade *u);
/* After tampering with the blob. */
void up_seal(struct upgrade *u);

#endif
