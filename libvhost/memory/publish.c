/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/*
 * The current map and the dirty log: readers take no lock, the committing thread replaces them.
 *
 * A reader announces itself in one of two counters, then loads the pointer. The writer stores the new pointer first and
 * then waits until it has seen each counter at zero once: a reader that loaded the old pointer was counted before the
 * store and is gone by then; one that comes later sees the new pointer. The epoch only steers new readers to the other
 * counter so that a steady stream of them cannot keep one above zero. All atomics are sequentially consistent: the
 * argument needs store-load order between pointer and counters.
 */
#include <errno.h>
#include <sched.h>
#include <time.h>

#include "memory/object.h"

static void read_enter(struct libvhost_mem *mem, unsigned *side)
{
	*side = atomic_load(&mem->readers.epoch) & 1;
	atomic_fetch_add(&mem->readers.counter[*side], 1);
}

static struct lv_snapshot *read_begin(struct libvhost_mem *mem, unsigned *side)
{
	read_enter(mem, side);
	return atomic_load(&mem->current);
}

static void read_end(struct libvhost_mem *mem, unsigned side)
{
	atomic_fetch_sub(&mem->readers.counter[side], 1);
}

struct lv_snapshot *lv_mem_snapshot(struct libvhost_mem *mem)
{
	unsigned side;
	struct lv_snapshot *snap = lv_snapshot_ref(read_begin(mem, &side));

	read_end(mem, side);
	return snap;
}

lv_current_map *lv_mem_current(const struct libvhost_mem *mem)
{
	return &mem->current;
}

int libvhost_mem_translate(struct libvhost_mem *mem, uint64_t gpa, uint64_t len, void **hva, uint64_t *contiguous)
{
	struct lv_tlb tlb;
	uint64_t run;
	unsigned side;
	uint32_t hint;
	void *at;

	if (!mem || !hva)
		return -EINVAL;
	hint = atomic_load_explicit(&mem->hint, memory_order_relaxed);
	tlb.last = hint;
	at = lv_translate_some(read_begin(mem, &side), &tlb, gpa, &run);
	read_end(mem, side);
	if (tlb.last != hint)
		atomic_store_explicit(&mem->hint, tlb.last, memory_order_relaxed);
	if (!at || (run < len && !contiguous))
		return -EFAULT;
	*hva = at;
	if (contiguous)
		*contiguous = run < len ? run : len;
	return 0;
}

/* Readers stay inside for nanoseconds unless they are preempted, or were running while the process forked: in the
 * child they never leave. So the wait is bounded. */
static bool drained(atomic_uint *counter)
{
	for (unsigned i = 0; i < 1000; i++) {
		if (!atomic_load(counter))
			return true;
		if (i < 100)
			sched_yield();
		else
			nanosleep(&(struct timespec){.tv_nsec = 20000}, NULL);
	}
	return false;
}

static bool readers_gone(struct lv_readers *readers)
{
	unsigned old = atomic_load(&readers->epoch) & 1;

	if (!drained(&readers->counter[!old]))
		return false;
	atomic_store(&readers->epoch, !old);
	return drained(&readers->counter[old]);
}

struct lv_snapshot *lv_mem_publish(struct libvhost_mem *mem, struct lv_snapshot *now)
{
	return atomic_exchange(&mem->current, now);
}

struct lv_log *lv_mem_log(struct libvhost_mem *mem)
{
	struct lv_log *log;
	unsigned side;

	read_enter(mem, &side);
	log = lv_log_ref(atomic_load(&mem->log));
	read_end(mem, side);
	return log;
}

int libvhost_mem_log_mark(struct libvhost_mem *mem, uint64_t gpa, uint64_t len)
{
	struct lv_log *log;
	unsigned side;

	if (!mem)
		return -EINVAL;
	read_enter(mem, &side);
	log = atomic_load(&mem->log);
	if (log)
		lv_log_mark(log, gpa, len);
	read_end(mem, side);
	return 0;
}

void lv_mem_retired_put(struct libvhost_mem *mem)
{
	struct lv_snapshot *old;
	struct lv_log *log;

	while ((old = mem->retired)) {
		mem->retired = old->retired_next;
		lv_snapshot_put(old);
	}
	while ((log = mem->retired_logs)) {
		mem->retired_logs = log->retired_next;
		lv_log_put(log);
	}
}

void lv_mem_retire(struct libvhost_mem *mem, struct lv_snapshot *old, struct lv_log *log)
{
	if (old) {
		old->retired_next = mem->retired;
		mem->retired = old;
	}
	if (log) {
		log->retired_next = mem->retired_logs;
		mem->retired_logs = log;
	}
	if (readers_gone(&mem->readers))
		lv_mem_retired_put(mem); /* otherwise the next commit tries again */
}
