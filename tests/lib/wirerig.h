/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/*
 * A managed device against the wire puppet on a socket of its own: a rig whose peer is scripted by messages. On the
 * back-end channel the test speaks for the peer, from the thread that dispatches the device.
 */
#ifndef LV_TESTS_WIRERIG_H
#define LV_TESTS_WIRERIG_H

#include "devrig.h"
#include "puppet.h"

#define WIRE_ASK (LV_USER_VERSION | LV_USER_F_NEED_REPLY)

/* Requests of the back-end, vhost-user specification "Back-end message types". */
enum {
	ASK_IOTLB = 1,
	ASK_CONFIG_CHANGE = 2,
	ASK_HOST_NOTIFIER = 3,
	ASK_VRING_CALL = 4,
	ASK_VRING_ERR = 5,
	ASK_OBJECT_ADD = 6,
	ASK_OBJECT_REMOVE = 7,
	ASK_OBJECT_LOOKUP = 8,
	ASK_SHMEM_MAP = 9,
	ASK_SHMEM_UNMAP = 10
};

struct wirerig {
	struct devrig r; /* r.dev, r.g, r.opts */
	struct puppet p;
	struct libvhost_dev_ops ops;
	char path[64], uri[80];
};

/* The peer offers all protocol features that a back-end channel has use for. Change w->p and w->r.opts, then open. */
void wirerig_init(struct wirerig *w);
/* A second rig in the context and memory of another one, which outlives it. */
void wirerig_join(struct wirerig *w, struct wirerig *first);
void wirerig_listen(struct wirerig *w); /* part of open */
void wirerig_open(struct wirerig *w);	/* with all queues */
void wirerig_start(struct wirerig *w);	/* open and running */
/* A piece of the configuration space, which is the peer's when the call succeeds: what the call said. */
int wirerig_read_config(struct wirerig *w, uint32_t timeout_ms);
void wirerig_close(struct wirerig *w);
/* What the last session was told is the whole device: this many regions, all queues. */
void wirerig_close_replayed(struct wirerig *w, uint32_t regions);

/* The peer asks with NEED_REPLY while the device dispatches. The acknowledgement as 0 or negative errno; 1 = the
 * channel is closed. *out_fd (may be NULL) = the descriptor that came with it, or -1. */
int wirerig_ask(struct wirerig *w, uint32_t request, const void *payload, uint32_t size, int fd, int *out_fd);
int wirerig_ask_state(struct wirerig *w, uint32_t request, uint32_t queue);
int wirerig_ask_uuid(struct wirerig *w, uint32_t request, uint32_t name, int *out_fd);
int wirerig_ask_area(struct wirerig *w, uint64_t queue_and_flags, uint64_t size, uint64_t offset, int fd);
int wirerig_ask_mmap(struct wirerig *w, uint32_t request, const struct libvhost_req_mmap *m, int fd);
/* Reads one acknowledgement from the channel: as wirerig_ask(). */
int wirerig_answer(int channel, int ms, int *out_fd);
/* Object names by number. */
void wirerig_uuid(uint8_t uuid[16], uint32_t name);

/* A device whose page n begins with n + 1. */
static inline int device_file(uint32_t pages)
{
	int fd = memfd(pages * PAGE, 0);

	for (uint8_t n = 0; n < pages; n++) {
		const uint8_t mark = n + 1;

		CHECK_EQ(pwrite(fd, &mark, 1, (off_t)(n * PAGE)), 1);
	}
	return fd;
}

/* What the device and the guest share, byte by byte. */
static inline uint8_t peek(uint64_t address)
{
	return *(volatile uint8_t *)(uintptr_t)address;
}

static inline void poke(uint64_t address, uint8_t value)
{
	*(volatile uint8_t *)(uintptr_t)address = value;
}

#endif
