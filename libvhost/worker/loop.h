/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
#ifndef LV_WORKER_LOOP_H
#define LV_WORKER_LOOP_H

/* epoll data of the control eventfd and of descriptors; queues have their slot number. */
#define LV_LOOP_CONTROL 0xffffffffu
#define LV_LOOP_FD(n)	(LV_WORKER_QUEUES + (n))
/* A queue's watch_fd. */
#define LV_LOOP_WATCH(slot) (0x1000u + (slot))
/* The io_uring: its completions are taken in each round, the event only ends a sleep. */
#define LV_LOOP_RING 0xfffffffeu

static inline void lv_cpu_relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
	__builtin_ia32_pause();
#elif defined(__aarch64__)
	__asm__ volatile("yield");
#endif
}

#endif
