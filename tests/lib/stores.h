/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/*
 * Every store to a piece of memory, one at a time: the memory is write-protected, a store that faults is executed as a
 * single step, and what a process killed right behind it would leave is copied. The code under test is what the library
 * ships: no hooks, and stores are seen in the order in which the machine executes them.
 */
#ifndef LV_TESTS_STORES_H
#define LV_TESTS_STORES_H

#include <stddef.h>
#include <stdint.h>

#include "core/sanitize.h"

#if defined(__x86_64__) && !LV_TSAN
#define LV_STORES 1
#endif

/* Memory of which the first `traced` bytes (whole pages) are watched, and all of which is copied. */
struct stores {
	uint8_t *mem;
	size_t traced, bytes;
	uint8_t *copies; /* copy n is the memory after n stores */
	uint32_t count, cap;
};

void stores_init(struct stores *s, uint8_t *mem, size_t traced, size_t bytes, uint32_t cap);
void stores_free(struct stores *s);
/* Between these two the calling thread's stores are recorded, from copy 0 (none yet) on. One at a time. */
void stores_begin(struct stores *s);
void stores_end(struct stores *s);
/* The memory as it was after n stores. */
const uint8_t *stores_copy(const struct stores *s, uint32_t n);
void stores_restore(const struct stores *s, uint32_t n);

#endif
