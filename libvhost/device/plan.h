/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/*
 * Plans: managed operations as plain state machines. A plan compiles programs (straight lines of requests) and ends one
 * where a value read from the peer decides what follows. It does no I/O, touches no descriptor and changes only the
 * working copy of the record, so blocking calls, event loops, reconnect and golden tests drive the same code. One file
 * per dialect: plan_user.c, plan_kernel.c, plan_vdpa.c.
 */
#ifndef LV_DEVICE_PLAN_H
#define LV_DEVICE_PLAN_H

#include <stdbool.h>
#include "core/error.h"
#include "device/record.h"
#include "memory/log.h"
#include "memory/mem.h"

/* A growable program. Arrays that requests point to (memory tables) live in its arena and die with it. */
struct lv_program {
	struct libvhost_req *reqs;
	uint32_t count, cap;
	struct lv_arena *arena;
	bool nomem;		   /* an add failed; lv_plan_next() turns it into -ENOMEM */
	struct libvhost_req dummy; /* what a failed add returns */
};

void lv_program_init(struct lv_program *prog);
void lv_program_clear(struct lv_program *prog); /* keeps the memory for the next program */
void lv_program_free(struct lv_program *prog);
/* Room for so many requests; false = no memory. */
bool lv_program_reserve(struct lv_program *prog, uint32_t cap);
/* Appends a zero-filled request; never returns NULL (a dummy on exhaustion, nomem is set). */
struct libvhost_req *lv_program_add(struct lv_program *prog, uint32_t op, uint32_t index);
void *lv_program_alloc(struct lv_program *prog, size_t bytes);

/* Descriptors of one queue; -1 = none. Borrowed by the plan. */
struct lv_queue_fds {
	int kick, call, err, masked;
};

enum lv_plan_kind {
	LV_PLAN_CONNECT,  /* fresh peer: read offers, negotiate what does not depend on the guest */
	LV_PLAN_START,	  /* features, memory, rings | barrier | kick, enable */
	LV_PLAN_STOP,	  /* disable, read bases */
	LV_PLAN_RESUME,	  /* reconnect: connect + start from the remembered record in two waits; shrunk offers are an
			     error */
	LV_PLAN_MEMORY,	  /* peer_mem -> mem, and the dirty log on, off, larger (before) or smaller (after) */
	LV_PLAN_RESET,	  /* the guest wrote status 0: stop, reset, forget accepted features and queues in the record */
	LV_PLAN_INFLIGHT, /* features and sizes, then GET_INFLIGHT_FD: the region ahead of the first start */
	LV_PLAN_QUEUE_START, /* one queue of a running device */
	LV_PLAN_QUEUE_STOP,
	LV_PLAN_KINDS
};

/* What a plan may read, and the record copy it may write. One part (transport) of one device. */
struct lv_plan_env {
	const struct libvhost_transport_caps *caps;
	struct lv_record *rec;		    /* working copy; the caller keeps it on success, drops it on failure */
	const struct lv_snapshot *mem;	    /* the map to establish */
	const struct lv_snapshot *peer_mem; /* what the peer has; NULL = nothing */
	const struct lv_queue_fds *fds;	    /* by queue index of the device */
	uint32_t first, count; /* queues of this part; ring index on the wire = queue - (kernel: first, user: 0) */
	bool lead;	       /* the part that is asked what only one answers */
	uint32_t wanted_queues;
	uint32_t dev_flags;	 /* LIBVHOST_DEV_* */
	uint64_t protocol_never; /* protocol features not to acknowledge */
	bool has_on_request;
	const int *config_call;	  /* vDPA: eventfd for configuration changes; NULL = none */
	const struct lv_log *log; /* the dirty log to establish; NULL = none is wanted */
	int inflight_fd;	/* of the region in the record, -1 = none. Borrowed, as out_fd of GET_INFLIGHT_FD is to
				   be taken by whoever runs the program */
	uint64_t inflight_file; /* bytes of the file that GET_INFLIGHT_FD gave, 0 = none that can be written */
	uint32_t queue;		/* LV_PLAN_QUEUE_*: the one it is about */
};

/* At most so many requests does a stop or a reset of so many queues have: two for each, and what is for the device. */
#define LV_STOP_REQUESTS(queues) (2 * (queues) + 8)

struct lv_plan {
	enum lv_plan_kind kind;
	uint32_t dialect;
	uint32_t step;
	uint64_t scratch[4];
};

void lv_plan_begin(struct lv_plan *plan, enum lv_plan_kind kind, uint32_t dialect);

/*
 * The next program. prog holds the executed previous program with its results (empty at first) and is replaced by the
 * next. Returns 1 = run prog, 0 = done (record updated), negative = failed (error recorded in err).
 */
int lv_plan_next(struct lv_plan *plan, struct lv_plan_env *env, struct lv_program *prog, struct lv_errslot *err);

/*
 * Harvest after a program failed: what the record must not lose. A stop or reset that failed half-way: bases already
 * read, and their queues no longer RUNNING. A start or resume: queues whose kick may have reached the peer are RUNNING,
 * so that a stop plan undoes exactly those.
 */
void lv_plan_harvest(struct lv_plan *plan, struct lv_plan_env *env, const struct lv_program *prog);

/*
 * After a resume's program failed: whether the answers that did arrive explain it by a peer that offers less (a strict
 * peer hangs up when it is sent remembered features that it lacks). -ENOTSUP (kind SHRUNK recorded in err), else 0.
 */
int lv_plan_explain(const struct lv_plan *plan, const struct lv_plan_env *env, const struct lv_program *prog,
		    struct lv_errslot *err);

/* Why a peer that offers these features and speaks this protocol cannot write a dirty log, as a sentence about "it";
 * NULL = it can. */
const char *lv_plan_log_blocker(uint64_t offered, uint64_t protocol, uint32_t dialect);

/* Ring address as the peer wants it (cookie, HVA, IOVA, GPA). 0 or -EFAULT when not mapped. */
int lv_plan_ring_addr(const struct lv_plan_env *env, uint64_t gpa, uint64_t len, uint64_t *addr);

#endif
