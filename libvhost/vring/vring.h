/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* The queue object, the door behind which ring formats differ, and what other rooms may ask about a ring at rest. */
#ifndef LV_VRING_VRING_H
#define LV_VRING_VRING_H

#include <vhost/vq.h>
#include "memory/mem.h"
#include "vring/ring.h"

#define LV_LIKELY(x)   __builtin_expect(!!(x), 1)
#define LV_UNLIKELY(x) __builtin_expect(!!(x), 0)
#define LV_COLD	       __attribute__((cold, noinline))

/*
 * One ring format in one role. Entries of the other role are NULL. vq.c has checked arguments, refused broken queues
 * and brought addresses up to date before it calls any of them. init allocates all the queue will ever need.
 */
struct lv_vq_ops {
	int (*init)(struct libvhost_vq *vq);
	void (*destroy)(struct libvhost_vq *vq);
	/* Finds the areas in a (new) snapshot. Negative (error recorded, nothing changed) if one is not there. */
	int (*map)(struct libvhost_vq *vq, const struct lv_snapshot *snap);
	int (*notify_enable)(struct libvhost_vq *vq, bool on);
	uint32_t (*base)(struct libvhost_vq *vq); /* also of a broken queue */
	int (*add)(struct libvhost_vq *vq, const struct libvhost_buf *bufs, uint32_t n_read, uint32_t n_write,
		   uint64_t token);
	int (*kick)(struct libvhost_vq *vq);
	int (*get_used)(struct libvhost_vq *vq, struct libvhost_used *used, uint32_t *count);
	int (*pop)(struct libvhost_vq *vq, struct libvhost_chain *chain);
	int (*push)(struct libvhost_vq *vq, uint32_t head, uint64_t written);
	int (*flush)(struct libvhost_vq *vq);
};
extern const struct lv_vq_ops lv_split_driver_ops, lv_split_device_ops; /* lv_packed_driver_ops, lv_packed_device_ops */

/* A request the driver offered, indexed by its head descriptor. */
struct lv_offer {
	uint64_t token;
	uint64_t seq;	   /* it was the seq-th request added; 0 = found in the ring by RESUME */
	uint32_t writable; /* most bytes the device can have written */
	uint16_t tail;	   /* last descriptor of the chain in the ring's table */
	uint16_t descs;	   /* how many; 0 = head is not in flight */
};

/* Nothing here is read back from the ring: the device can write the descriptor table too. */
struct lv_split_driver {
	struct lv_offer *offers;  /* num */
	uint16_t *next;		  /* num; links of chains and of the free list */
	struct lv_desc *indirect; /* tables, max_chain entries per head; NULL = none */
	uint32_t free_head;	  /* FIFO: descriptors come back in the order they were used */
	uint32_t free_tail;	  /* meaningless when free_count is 0 */
	uint32_t free_count;
	uint16_t avail_idx;	/* next slot to fill */
	uint16_t published;	/* avail.idx as the device sees it */
	uint16_t used_idx;	/* next completion to take */
	uint16_t used_seen;	/* used.idx as last read */
	uint16_t armed;		/* used_event as published */
	uint64_t published_seq; /* newest request the device can see */
};

/*
 * A request the device took, indexed by its head descriptor. A head is not free again before its completion is
 * published, so completions waiting for a flush are bounded by num even if the driver offers a head early.
 */
enum lv_taken_state { LV_HEAD_FREE, LV_HEAD_TAKEN, LV_HEAD_PUSHED };
struct lv_taken {
	uint32_t writable;
	uint16_t hold; /* which memory snapshot its addresses belong to */
	uint16_t state;
};

struct lv_split_device {
	struct lv_taken *taken;	      /* num */
	struct lv_used_elem *pending; /* num; completions not yet flushed */
	uint32_t n_pending;
	uint16_t avail_idx;  /* next request to take */
	uint16_t avail_seen; /* avail.idx as last read */
	uint16_t used_idx;   /* used.idx as published */
	uint16_t armed;	     /* avail_event as published */
};

/* Keeps a snapshot mapped until the last request that was translated with it is pushed. */
struct lv_hold {
	struct lv_snapshot *snap;
	uint32_t users;
};

struct libvhost_vq {
	const struct lv_vq_ops *ops;
	struct libvhost_mem *mem;
	struct lv_snapshot *snap; /* the one all addresses below belong to */
	struct lv_hold *holds;	  /* device: num + 1, one per request at most and the current one; driver: NULL */
	uint32_t hold;		  /* the current one */
	bool lent, left_over;	  /* a worker has it, which may not unmap; maps that nobody uses wait in holds */
	struct lv_tlb tlb;
	bool broken, event_idx, indirect_ok, notify_on;
	uint32_t in_flight;
	struct lv_split_ring ring;
	union {
		struct lv_split_driver drv;
		struct lv_split_device dev;
	};
	struct lv_inflight *inflight; /* device: lv_inflight_attach() makes it, the queue owns it; NULL = none */
	bool draining;		      /* device: no new requests, only what was in flight */
	/* device: set by the back-end before it is first served, or while nobody serves it; borrowed; NULL = none */
	struct lv_log *log; /* what the device writes is marked here, once per flush */
	uint64_t used_log;  /* guest address of the used ring for it, UINT64_MAX = the ring is not logged */
	uint64_t requests, notifications, notify_errors;
	struct libvhost_ctx *ctx;
	struct libvhost_vq_opts opts;
	struct lv_errslot err;
};

/* Records that the ring broke the rules and makes the queue refuse everything from now on. Returns -EBADMSG. */
LV_COLD int lv_vq_break(struct libvhost_vq *vq, const char *fmt, ...) LV_PRINTF(2, 3);

/* Device: a request translated with holds[hold] is done. */
void lv_vq_release(struct libvhost_vq *vq, uint32_t hold);

/* Device: a worker gets the queue, or the host has it back and unmaps what was left over. */
void lv_vq_lend(struct libvhost_vq *vq, bool lent);

/* Device: completions are announced on another descriptor from now on, -1 = none. */
static inline void lv_vq_set_call(struct libvhost_vq *vq, int fd)
{
	vq->opts.call_fd = fd;
	vq->opts.flags &= ~LIBVHOST_VQ_HAS_CALL;
	if (fd >= 0)
		vq->opts.flags |= LIBVHOST_VQ_HAS_CALL;
}

/* Signals fd if it was given. 0, or negative errno when the other side could not be told. */
int lv_vq_signal(struct libvhost_vq *vq, bool given, int fd);

/* Host address of an area of the ring, NULL (error recorded) if it is not mapped in one piece, read-only or misaligned.
 */
void *lv_vq_area(struct libvhost_vq *vq, const struct lv_snapshot *snap, const char *name, uint64_t gpa, uint64_t bytes,
		 uint32_t align);

/* Finds the three areas of a split ring. -EFAULT (error recorded): not mapped, not aligned, or read-only where we
 * write. */
int lv_split_map(struct libvhost_vq *vq, const struct lv_snapshot *snap);

/* chain.c: takes the request that starts at head apart into out->iov. Fills out's counters. Negative: queue is broken.
 */
int lv_chain_walk(struct libvhost_vq *vq, uint16_t head, struct libvhost_chain *out);

/* The used index in memory: where a split ring whose device died continues. 0 or -EFAULT. */
int lv_split_used_idx(const struct lv_snapshot *snap, uint64_t used_gpa, uint16_t *idx);
/* Whether the driver has offered requests beyond base. 1, 0 or -EFAULT. */
int lv_split_has_work(const struct lv_snapshot *snap, uint64_t avail_gpa, uint16_t base);

#endif
