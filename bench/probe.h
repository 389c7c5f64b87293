/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* What the machine itself does in a round: most of the noise of a shared one is in it. */
#ifndef BENCH_PROBE_H
#define BENCH_PROBE_H

struct probes {
	double line_us;	   /* a cache line there and back between the two processors */
	double eventfd_us; /* the same for two threads that wake each other by eventfd */
	double syscall_us; /* getppid() */
};

void probe(struct probes *p, int here, int there);
/* Ticks that the machine's processors were given to others, of all ticks. */
void probe_steal(unsigned long long *stolen, unsigned long long *all);

#endif
