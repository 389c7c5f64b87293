/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
#include "probe.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define LINE_TRIPS    20000u
#define EVENTFD_TRIPS 500u
#define SYSCALLS      20000u

struct partner {
	int processor, there, back;
};

static _Alignas(64) atomic_uint ball;

static double now_us(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec * 1e6 + (double)ts.tv_nsec / 1e3;
}

static void pin(int processor)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET((size_t)processor, &set);
	pthread_setaffinity_np(pthread_self(), sizeof(set), &set);
}

static void *answer(void *arg)
{
	const struct partner *p = arg;
	uint64_t value;

	pin(p->processor);
	for (unsigned i = 1; i < 2 * LINE_TRIPS; i += 2) {
		while (atomic_load_explicit(&ball, memory_order_acquire) != i)
			;
		atomic_store_explicit(&ball, i + 1, memory_order_release);
	}
	for (unsigned i = 0; i < EVENTFD_TRIPS; i++)
		if (read(p->there, &value, sizeof(value)) < 0 || write(p->back, &value, sizeof(value)) < 0)
			break;
	return NULL;
}

static void play(const struct partner *p, struct probes *out)
{
	uint64_t value = 1;
	double begin = now_us();

	for (unsigned i = 1; i < 2 * LINE_TRIPS; i += 2) {
		atomic_store_explicit(&ball, i, memory_order_release);
		while (atomic_load_explicit(&ball, memory_order_acquire) != i + 1)
			;
	}
	out->line_us = (now_us() - begin) / LINE_TRIPS;
	begin = now_us();
	for (unsigned i = 0; i < EVENTFD_TRIPS; i++)
		if (write(p->there, &value, sizeof(value)) < 0 || read(p->back, &value, sizeof(value)) < 0)
			break;
	out->eventfd_us = (now_us() - begin) / EVENTFD_TRIPS;
	begin = now_us();
	for (unsigned i = 0; i < SYSCALLS; i++)
		syscall(SYS_getppid);
	out->syscall_us = (now_us() - begin) / SYSCALLS;
}

void probe(struct probes *out, int here, int there)
{
	struct partner p = {.processor = there, .there = eventfd(0, EFD_CLOEXEC), .back = eventfd(0, EFD_CLOEXEC)};
	pthread_t thread;

	*out = (struct probes){0};
	atomic_store(&ball, 0);
	pin(here);
	if (p.there >= 0 && p.back >= 0 && !pthread_create(&thread, NULL, answer, &p)) {
		play(&p, out);
		pthread_join(thread, NULL);
	}
	close(p.there);
	close(p.back);
}

void probe_steal(unsigned long long *stolen, unsigned long long *all)
{
	unsigned long long field[8] = {0};
	FILE *f = fopen("/proc/stat", "re");

	*stolen = *all = 0;
	if (!f)
		return;
	if (fscanf(f, "cpu %llu %llu %llu %llu %llu %llu %llu %llu", &field[0], &field[1], &field[2], &field[3],
		   &field[4], &field[5], &field[6], &field[7]) == 8) {
		for (int i = 0; i < 8; i++)
			*all += field[i];
		*stolen = field[7];
	}
	fclose(f);
}
