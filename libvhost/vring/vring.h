/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* The queue object, the door behind which ring formats differ, and what other rooms may ask about a ring at rest. */
#ifndef LV_VRING_VRING_H
#define LV_VRING_VRING_H

#include <errno.h>
#include <vhost/vq.h>
#include "memory/mem.h"
#include "vring/packed.h"
#include "vring/ring.h"

#define LV_LIKELY(x)   __builtin_expect(!!(x), 1)
#define LV_UNLIKELY(x) __builtin_expect(!!(x), 0)
#define LV_COLD	       __attribute__((cold, noinline))
/* Of each request, and called in more than one place: the compiler would leave it out of line. */
#define LV_HOT inline __attribute__((always_inline))

/*
 * One ring format in one role. Entries of the other role are NULL. vq.c has checked arguments, refused broken queues
 * and brought addresses up to date before it calls any of them. init allocates all the queue will ever need; a device's
 * does not touch the ring, that is what begin does.
 */
struct lv_vq_ops {
	int (*init)(struct libvhost_vq *vq);
	int (*begin)(struct libvhost_vq *vq);
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
	int (*wrote)(struct libvhost_vq *vq, uint32_t head, uint64_t offset, uint64_t len);
	int (*flush)(struct libvhost_vq *vq);
};
extern const struct lv_vq_ops lv_split_driver_ops, lv_split_device_ops, lv_packed_driver_ops, lv_packed_device_ops;

/* A request the driver offered, indexed by its head descriptor; packed: by its buffer id. */
struct lv_offer {
	uint64_t token;
	uint64_t seq;	   /* it was the seq-th request added; 0 = found in the ring by RESUME */
	uint32_t writable; /* most bytes the device can have written */
	uint16_t tail;	   /* last descriptor of the chain in the ring's table; packed: next free id */
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
	/* IN_ORDER: which head was offered at an available index, and the reverse */
	uint16_t *offered, *place;
	uint32_t batch;	    /* requests still to be given back for the used element last read */
	uint32_t batch_len; /* what it says of the last of them */
};

struct lv_packed_driver {
	struct lv_offer *offers;	 /* num */
	struct lv_packed_desc *indirect; /* tables, max_chain entries per id; NULL = none */
	uint32_t free_id;		 /* the next one: a stack, with IN_ORDER all in turn */
	uint32_t free_descs;
	uint32_t oldest;       /* IN_ORDER: id of the oldest request in flight */
	uint16_t avail;	       /* place to fill next */
	uint16_t used;	       /* place of the next completion */
	uint16_t armed;	       /* place that the device was asked to notify of */
	uint16_t held;	       /* place of the first descriptor that the device cannot see */
	uint64_t held_meta;    /* what makes it visible */
	uint32_t unseen_descs; /* added since the last kick */
	uint32_t unseen;       /* requests of them */
	uint64_t published_seq;
	uint32_t batch, batch_id, batch_len; /* as in a split ring, and the id that it names */
};

/* IN_ORDER, device: requests in the order in which they were taken, until they are published. */
struct lv_order {
	uint16_t *ids;
	uint32_t size, first, count;
};

int lv_order_init(struct lv_order *order, uint32_t size); /* 0 or -ENOMEM; size 0 = not needed */
void lv_order_destroy(struct lv_order *order);

static inline void lv_order_add(struct lv_order *o, uint32_t id)
{
	const uint32_t at = o->first + o->count++;

	o->ids[at < o->size ? at : at - o->size] = (uint16_t)id;
}

static inline uint32_t lv_order_oldest(const struct lv_order *o)
{
	return o->ids[o->first];
}

static inline uint32_t lv_order_take(struct lv_order *o)
{
	const uint32_t id = o->ids[o->first];

	o->first = o->first + 1 < o->size ? o->first + 1 : 0;
	o->count--;
	return id;
}

/*
 * A request the device took, indexed by its head descriptor. A head is not free again before its completion is
 * published, so completions waiting for a flush are bounded by num even if the driver offers a head early.
 */
enum lv_taken_state { LV_HEAD_FREE, LV_HEAD_TAKEN, LV_HEAD_PUSHED };
struct lv_taken {
	uint32_t writable; /* once pushed: written */
	uint16_t hold;	   /* which memory snapshot its addresses belong to */
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
	struct lv_order order;
};

/*
 * The same for a packed ring, indexed by buffer id. Its descriptors stay readable as copies[first], copies[link[first]]
 * … copies[last], descs of them, until the completion is published: in the ring they may be overwritten.
 */
struct lv_packed_taken {
	uint32_t writable; /* once pushed: written */
	uint16_t hold, state, first, last, descs;
	bool only_read; /* nothing is writable */
};

struct lv_packed_device {
	struct lv_packed_taken *taken; /* num */
	struct lv_copy *copies;	       /* num */
	uint16_t *link;		       /* num; ties the copies of a request, and the free ones */
	uint32_t free_head;	       /* FIFO: the first staged ones hold descriptors that are read ahead */
	uint32_t free_tail;	       /* meaningless when free_count is 0 */
	uint32_t free_count;
	uint32_t staged;
	uint32_t stage_at;	      /* free copy to fill next; meaningless when all are staged */
	struct lv_used_elem *pending; /* num; completions not yet flushed */
	uint32_t n_pending;
	uint16_t avail; /* place of the next request to take */
	uint16_t ahead; /* place of the next descriptor to read */
	uint16_t used;	/* place of the next completion to publish */
	uint16_t armed; /* place that the driver was asked to notify of */
	struct lv_order order;
};

/* Keeps a snapshot mapped until the last request that was translated with it is pushed. */
struct lv_hold {
	struct lv_snapshot *snap;
	uint32_t users;
};

/* Guest memory that the device wrote. */
struct lv_dirty {
	uint64_t gpa, len;
};
#define LV_DIRTY_BATCH 64u
#define LV_NOT_LOGGED  UINT64_MAX

struct libvhost_vq {
	const struct lv_vq_ops *ops;
	struct libvhost_mem *mem;
	lv_current_map *current;  /* of mem */
	struct lv_snapshot *snap; /* the one all addresses below belong to */
	struct lv_hold *holds;	  /* device: num + 1, one per request at most and the current one; driver: NULL */
	uint32_t hold;		  /* the current one */
	bool lent, left_over;	  /* a worker has it, which may not unmap; maps that nobody uses wait in holds */
	struct lv_tlb tlb;
	bool begun, broken, event_idx, indirect_ok, in_order, notify_on;
	bool goes_on_at_used; /* split device: lv_vq_begin() takes the used index for the base */
	bool memory_cut;      /* broken because a file was cut off under a guarded mapping: -EFAULT from then on */
	unsigned mended;      /* lv_sigbus_mended() when that was looked for */
	uint32_t in_flight;
	union {
		struct lv_split_ring ring;
		struct lv_packed_ring packed;
	};
	union {
		struct lv_split_driver drv;
		struct lv_split_device dev;
		struct lv_packed_driver pdrv;
		struct lv_packed_device pdev;
	};
	struct lv_inflight *inflight; /* device: lv_inflight_attach() makes it, the queue owns it; NULL = none */
	const struct lv_guarded *inflight_guarded; /* the mapping of its region; NULL = not guarded */
	bool draining;				   /* device: no new requests, only what was in flight */
	bool cut_short;				   /* device: pop held something back, or would have */
	struct libvhost_worker *worker;		   /* that serves it, in this slot; NULL = none */
	uint32_t slot;
	int given_up; /* why the last worker did not serve it any more, and nobody has heard of yet; 0 = it did */
	/* device: set by the back-end before it is first served, or while nobody serves it; borrowed; NULL = none */
	struct lv_log *log; /* what the device writes is marked here, once per flush */
	uint64_t used_log;  /* guest address of the used ring for it, LV_NOT_LOGGED = the ring is not */
	bool log_data;	    /* what it writes into buffers is */
	struct {
		uint32_t count;
		struct lv_dirty range[LV_DIRTY_BATCH];
	} dirty; /* written by requests that are pushed, not yet marked */
	uint64_t requests, notifications, notify_errors;
	uint64_t turn_ends; /* device: pop gives nothing from so many requests on; UINT64_MAX = no worker's turn */
	struct libvhost_ctx *ctx;
	struct libvhost_vq_opts opts;
	struct lv_errslot err;
};

/* What a broken queue says to everything. */
static inline int lv_vq_refusal(const struct libvhost_vq *vq)
{
	return vq->memory_cut ? -EFAULT : -EBADMSG;
}

/* Records that the ring broke the rules and makes the queue refuse everything from now on. Returns -EBADMSG; -EFAULT if
 * what it read was not the ring any more. */
LV_COLD int lv_vq_break(struct libvhost_vq *vq, const char *fmt, ...) LV_PRINTF(2, 3);

/*
 * libvhost_vq_new() that leaves the first look at the ring of a device to whoever serves it: behind its pages may be a
 * file system that does not answer, and threads that must go on do not touch them. lv_vq_begin() is that look: 0, or
 * the queue is broken; once, before anything else.
 */
int lv_vq_prepare(struct libvhost_ctx *ctx, struct libvhost_mem *mem, const struct libvhost_vq_opts *opts,
		  struct libvhost_vq **ret);
int lv_vq_begin(struct libvhost_vq *vq);

/* Device: a request translated with holds[hold] is done. */
LV_COLD void lv_vq_let_go(struct libvhost_vq *vq, struct lv_hold *h);
static inline void lv_vq_release(struct libvhost_vq *vq, uint32_t hold)
{
	struct lv_hold *h = &vq->holds[hold];

	if (LV_UNLIKELY(!--h->users && hold != vq->hold))
		lv_vq_let_go(vq, h);
}

/* Device: a worker gets the queue, or the host has it back and unmaps what was left over. */
void lv_vq_lend(struct libvhost_vq *vq, bool lent);

/* Device, on the worker: pop gives at most so many requests from here on, until lv_vq_end_turn(). */
static inline void lv_vq_begin_turn(struct libvhost_vq *vq, uint32_t burst)
{
	vq->turn_ends = vq->requests + burst;
}

/* True: the handler asked for more than that. */
static inline bool lv_vq_end_turn(struct libvhost_vq *vq)
{
	const bool cut_short = vq->cut_short;

	vq->turn_ends = UINT64_MAX;
	vq->cut_short = false;
	return cut_short;
}

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

/* The same for a packed ring. */
int lv_packed_map(struct libvhost_vq *vq, const struct lv_snapshot *snap);

/* chain.c: a descriptor that may cross regions or be misaligned: bytes one by one, each read once. False: not mapped.
 */
bool lv_desc_copy(bool swap, const struct lv_snapshot *snap, uint64_t gpa, struct lv_desc *out);
/*
 * Drivers in the field put longer requests than the ring has entries into indirect tables (virtio 1.2, 2.7.5.3.1
 * forbids it); no more pieces than this fit a libvhost_chain anyway.
 */
#define LV_INDIRECT_MAX 1024u

/*
 * mark.c, device role. lv_vq_set_log(): while nobody serves the queue; log is borrowed, NULL = none; data: buffers are
 * logged; used_log: guest address of the used ring, LV_NOT_LOGGED. The rest is only called while vq->log is set.
 */
void lv_vq_set_log(struct libvhost_vq *vq, struct lv_log *log, bool data, uint64_t used_log);
/* Notes len bytes from offset on in the writable part of the request at head of a split ring. snap: the one that it was
 * popped with. */
void lv_chain_written(struct libvhost_vq *vq, const struct lv_snapshot *snap, uint16_t head, uint64_t offset,
		      uint64_t len);
/* The same for the request whose descriptors are the descs copies from first on. */
void lv_packed_written(struct libvhost_vq *vq, const struct lv_snapshot *snap, uint32_t first, uint32_t descs,
		       uint64_t offset, uint64_t len);
/* Marks what was noted: before the completions are published, so that they imply their marks. */
void lv_vq_mark_data(struct libvhost_vq *vq);
/* Marks bytes of the used ring, after they were written and a full fence. */
void lv_vq_mark_used(struct libvhost_vq *vq, uint64_t offset, uint64_t bytes);
/* The same for a packed ring, which is logged where it lies: n descriptors from pos on; the device area. */
void lv_vq_mark_descs(struct libvhost_vq *vq, uint16_t pos, uint32_t n);
void lv_vq_mark_event(struct libvhost_vq *vq);

/* The used index in memory: where a split ring whose device died continues. 0 or -EFAULT. */
int lv_split_used_idx(const struct lv_snapshot *snap, uint64_t used_gpa, uint16_t *idx);
/* What a device that says that it stopped at base has not completed; 0 also when the ring cannot be like that. */
uint32_t lv_split_in_flight(const struct lv_snapshot *snap, uint64_t avail_gpa, uint64_t used_gpa, uint16_t base,
			    uint32_t num);
/* Whether the driver has offered requests beyond base. 1, 0 or -EFAULT. */
int lv_split_has_work(const struct lv_snapshot *snap, uint64_t avail_gpa, uint16_t base);

/* Whether a ring of num entries can be at base. */
bool lv_packed_base_possible(uint32_t base, uint32_t num);
/* Some peers (DPDK) give and take the available half only: nothing is in flight when a ring is stopped. */
uint32_t lv_packed_full_base(uint32_t base);
/* Whether the driver has offered something at base. 1, 0 or -EFAULT. */
int lv_packed_has_work(const struct lv_snapshot *snap, uint64_t desc_gpa, uint32_t num, uint32_t base);

#endif
