/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
#ifndef LV_CORE_FENCE_H
#define LV_CORE_FENCE_H

#include <stdatomic.h>

#include "core/sanitize.h"

/* A full fence. ThreadSanitizer does not model fences; there a locked operation stands in. */
static inline void lv_fence(void)
{
#if LV_TSAN
	atomic_uint word = 0;

	atomic_fetch_add(&word, 1);
#else
	atomic_thread_fence(memory_order_seq_cst);
#endif
}

#endif
