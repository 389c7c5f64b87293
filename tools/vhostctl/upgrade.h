/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/*
 * A guest and the VMM processes that take turns at its device. The guest (this process) owns memory and rings and goes
 * on submitting requests; each VMM is a process of its own that maps the memory wherever it likes, gets the device from
 * its predecessor over a socket and ends when it has given it away.
 */
#ifndef VHOSTCTL_UPGRADE_H
#define VHOSTCTL_UPGRADE_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <vhost/libvhost.h>

#include "blk_wire.h"
#include "histogram.h"

#define UPGRADE_QUEUES 16u
#define UPGRADE_BASE   0x100000ull /* guest-physical */
#define UPGRADE_BLOCK  4096u

/* What both sides know about the machine. */
struct upgrade_machine {
	uint32_t queues, depth, entries, timeout_ms;
	bool packed, inflight;
	uint64_t features; /* in use; until the peer was asked, all that the guest knows */
	uint64_t bytes;	   /* of guest memory */
	char uri[128];
};

struct upgrade_ring {
	uint64_t desc, avail, used, requests; /* guest-physical */
};

/* Fills entries, features and bytes. */
void upgrade_plan(struct upgrade_machine *m);
struct upgrade_ring upgrade_ring(const struct upgrade_machine *m, uint32_t queue);

/* Orders to a VMM, each followed by its descriptors. */
enum { UPGRADE_CONNECT = 1, UPGRADE_BOOT, UPGRADE_MAP, UPGRADE_TAKE, UPGRADE_GIVE, UPGRADE_STOP };

struct upgrade_order {
	uint32_t what;
	uint32_t generation;
	uint32_t base[UPGRADE_QUEUES]; /* STOP: where the guest is, by queue, as GET_VRING_BASE says it */
	struct upgrade_machine machine;
};

/* Its answer. */
struct upgrade_answer {
	int32_t result; /* 0, or negative errno; text says more */
	uint32_t blob_bytes;
	uint64_t nanoseconds; /* freeze or thaw */
	uint64_t address;     /* of guest memory in that process */
	uint64_t features;    /* CONNECT: those of the machine's that the peer offers */
	char text[200];
};

/* The VMM process; its socket to the guest. Returns its exit status. */
int upgrade_vmm(int sock);

/* ---- the guest's processor ---- */

struct upgrade_slot {
	double started;
	uint32_t epoch, round;
	bool busy, reading;
};

struct upgrade_guest {
	struct upgrade_machine machine;
	struct libvhost_ctx *ctx;
	struct libvhost_mem *mem;
	struct libvhost_vq *vq[UPGRADE_QUEUES];
	struct upgrade_slot *slots; /* queue-major */
	uint8_t *ram;
	int memfd, kick[UPGRADE_QUEUES], call[UPGRADE_QUEUES], epoll;
	pthread_t thread;
	atomic_uint epoch; /* odd while an upgrade runs */
	atomic_bool ending;
	/* read when the thread has ended */
	uint64_t submitted, completed, twice, wrong, failed;
	double longest_silence;
	struct histogram calm, upgrading;
	double worst_calm, worst_upgrading;
	const char *trouble;
};

/* Memory. 0, or 1 after printing why. */
int upgrade_guest_open(struct upgrade_guest *g, const struct upgrade_machine *m);
/* Rings and their descriptors, once the features are known. */
int upgrade_guest_rings(struct upgrade_guest *g, uint64_t features);
int upgrade_guest_start(struct upgrade_guest *g);
/* Lets what is in flight complete and joins. */
void upgrade_guest_stop(struct upgrade_guest *g);
/* Where the stopped guest's ring continues. */
uint32_t upgrade_guest_base(const struct upgrade_guest *g, uint32_t queue);
void upgrade_guest_close(struct upgrade_guest *g);

#endif
