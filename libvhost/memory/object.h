/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* struct libvhost_mem, shared by transactions (mem.c), clients (clients.c), what changes for them (commit.c), and
 * publication (publish.c). */
#ifndef LV_MEMORY_OBJECT_H
#define LV_MEMORY_OBJECT_H

#include <poll.h>
#include <pthread.h>
#include "memory/mem.h"

struct lv_mem_client {
	struct libvhost_mem *mem;
	struct lv_mem_client *next;
	const struct lv_mem_client_ops *ops;
	void *client;
	uint32_t regions, merged; /* as many fit, as they are and merged; under the lock */
	/* The rest is the running commit's. */
	int result;		  /* 0 = still waiting */
	uint32_t poll_at, npolls; /* its share of the commit's pollfds */
};

/* Readers of the current map that hold no reference yet. */
struct lv_readers {
	atomic_uint epoch;	/* which counter new readers use */
	atomic_uint counter[2]; /* readers inside */
};

struct libvhost_mem {
	atomic_uint refs;
	struct libvhost_ctx *ctx;
	struct lv_errslot err;
	uint32_t flags;

	_Atomic(struct lv_snapshot *) current;
	atomic_uint hint;	      /* last hit of libvhost_mem_translate() */
	_Atomic(struct lv_log *) log; /* what devices shall write, NULL = none */
	struct lv_readers readers;
	/* by the committing thread only: replaced while a reader was stuck */
	struct lv_snapshot *retired;
	struct lv_log *retired_logs;

	pthread_mutex_t lock; /* everything below; not held while a client is called */
	pthread_cond_t idle;  /* committing became false */
	bool committing;
	uint64_t generation;
	uint32_t count;	     /* regions of the open transaction, or of the current map */
	struct lv_map *next; /* the open transaction, LIBVHOST_MAX_REGIONS entries sorted by gpa; NULL = none */
	struct lv_mem_client *clients;
};

/* Makes now current (takes over the reference) and returns the map it replaced. The committing thread only. */
struct lv_snapshot *lv_mem_publish(struct libvhost_mem *mem, struct lv_snapshot *now);
/* Drops the map that publish returned, and a log (either may be NULL), once no reader can be about to take a reference.
 * The committing thread only. */
void lv_mem_retire(struct libvhost_mem *mem, struct lv_snapshot *old, struct lv_log *log);
/* Drops the maps and logs whose last reader is gone; all of them when mem ends. */
void lv_mem_retired_put(struct libvhost_mem *mem);
/* Ends the open transaction, if any. Under the lock. */
void lv_mem_forget(struct libvhost_mem *mem);

/* One change that all clients are told: of the map (old -> now), or of the log (old and now are the same). */
struct lv_change {
	const char *call; /* for messages */
	struct lv_snapshot *now, *old;
	struct pollfd *fds;
	uint32_t cap;
	uint64_t deadline;
};

/* Takes the object into the committing state, unless check (under the lock) says no. 0; -EBUSY; -ENOMEM; check's. */
int lv_change_enter(struct libvhost_mem *mem, struct lv_change *c, uint32_t timeout_ms,
		    int (*check)(struct libvhost_mem *mem, struct lv_change *c));
void lv_change_leave(struct libvhost_mem *mem, struct lv_change *c, bool new_map);
/* Asks all clients whether they can follow, and reserves them; all or none. */
int lv_change_prepare(struct libvhost_mem *mem, const struct lv_change *c);
void lv_change_unprepare(struct libvhost_mem *mem);
/* Tells all, in parallel, until the deadline, and ends the reservation. Returns how many did not follow. */
uint32_t lv_change_tell(struct libvhost_mem *mem, struct lv_change *c);

#endif
