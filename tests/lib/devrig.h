/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/*
 * A managed device on a fake peer inside this process: a plug-in transport that records what it is told, answers like a
 * back-end, and refuses, dies or stalls at a chosen request. With an eventfd (slow = true) answers have to be waited
 * for, as on a socket.
 */
#ifndef LV_TESTS_DEVRIG_H
#define LV_TESTS_DEVRIG_H

#include <stdatomic.h>
#include "memhelp.h"

#define FAKE_SEEN     4096
#define FAKE_NEVER    0xffffffffu
#define FAKE_FEATURES (1ull << 30 | 1ull << 32 | 1ull << 29 | 1ull << 33 | 1ull << 35)

enum { FAKE_REGION_FILE, FAKE_REGION_SHORT, FAKE_REGION_READONLY, FAKE_REGION_EVENTFD, FAKE_REGION_DISK };

struct fake {
	/* behaviour */
	char name[32];
	uint64_t features, protocol, iova_last, status;
	uint32_t queues, slots, max_queues, max_regions, dialect;
	bool slow, away, dies;		    /* waits; not there; hangs up whatever is sent */
	uint32_t refuse_at, die_at;	    /* ordinal of the request since fake_arm() */
	_Atomic uint32_t stall_op;	    /* no answer from this operation on, until it is 0 */
	int open_error;			    /* what opening fails with */
	uint32_t base[LIBVHOST_MAX_QUEUES]; /* answers of GET_VRING_BASE */
	uint8_t config[64];
	uint64_t region;      /* bytes of the region GET_INFLIGHT_FD gives */
	uint32_t region_what; /* FAKE_REGION_* */
	/* record */
	uint32_t seen[FAKE_SEEN], index[FAKE_SEEN];
	uint32_t told_base[LIBVHOST_MAX_QUEUES];
	uint64_t acked, log_bytes;
	uint32_t logged_rings, table; /* addresses with the log flag; regions of the last table */
	uint32_t nseen, ordinal, zero_fds, tries, opens, closes;
	struct libvhost_req_inflight inflight; /* as handed over last */
	int inflight_fd;		       /* a duplicate of it, -1 = none */
	atomic_bool stalled;
	/* plumbing */
	struct libvhost_req *reqs;
	uint32_t count, at;
	int fd;
	atomic_bool dead;
	bool destroyed;
	struct libvhost_transport *t;
};

void fake_init(struct fake *f);
/* Counts requests from 0 again and forgets what was seen. */
void fake_arm(struct fake *f);
struct libvhost_transport *fake_transport(struct fake *f, struct libvhost_ctx *ctx);
/* How often an operation was seen, and where first (FAKE_NEVER). */
uint32_t fake_count(const struct fake *f, uint32_t op);
uint32_t fake_first(const struct fake *f, uint32_t op);

struct devrig {
	struct lv_ledger before;
	struct guest g;
	struct fake f;
	struct libvhost_dev *dev;
	struct libvhost_dev_opts opts;
};

#define DEVRIG_QUEUES 4u
#define DEVRIG_NUM    16u
#define DEVRIG_RAM    0x400000ull

/* Guest memory and options; change r->f and r->opts, then devrig_open(). */
void devrig_init(struct devrig *r);
int devrig_open(struct devrig *r); /* what libvhost_dev_init() said */
void devrig_close(struct devrig *r);
struct libvhost_queue devrig_queue(uint32_t index);
/* Queue 0 … count - 1 with addresses. */
void devrig_queues(struct devrig *r, uint32_t count);
/* devrig_init + open + all queues. */
void devrig_ready(struct devrig *r);
uint32_t devrig_state(struct devrig *r);
struct libvhost_error devrig_error(struct devrig *r);
uint32_t devrig_logging(struct devrig *r);
/* Takes all events; how many there were of a type, the last of them in *last (may be NULL). */
uint32_t devrig_events(struct devrig *r, uint32_t type, struct libvhost_event *last);
/* Dispatches until an event of the type came; false after ms. */
bool devrig_await(struct devrig *r, uint32_t type, unsigned ms, struct libvhost_event *event);
/* The event that ends the operation of a device, waited for as event loops do. */
struct libvhost_event devrig_done(struct libvhost_dev *dev);
/* The fake hangs up, and the device hears of it. */
void devrig_lose_peer(struct devrig *r);
/* One more region of guest memory: what the commit said, and how many devices were lost by it (may be NULL). */
int devrig_grow(struct devrig *r, uint64_t gpa, uint32_t timeout_ms, uint32_t *lost);
/* Split-ring indexes in guest memory. */
void devrig_set_avail(struct devrig *r, uint32_t queue, uint16_t idx);
void devrig_set_used(struct devrig *r, uint32_t queue, uint16_t idx);

#endif
