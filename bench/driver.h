/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* The driver of bench/backend: one block device behind a socket, and what a round of requests there cost. */
#ifndef BENCH_DRIVER_H
#define BENCH_DRIVER_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include <time.h>
#include <vhost/libvhost.h>

#include "histogram.h"

#define NUM	  512u
#define DEPTH_MAX (NUM / 3)
#define BLOCK	  4096u

/* What is asked of every device in a round. */
struct load {
	uint32_t depth;
	bool sleeps;	 /* the driver waits for completions in the kernel, as a guest does; else it polls */
	bool writes;	 /* of data blocks, else reads */
	bool latency;	 /* of each request, which costs two looks at the clock */
	uint64_t blocks; /* of the device, at random; 1 = always the first */
	double seconds;
};

struct result {
	uint64_t requests, kicks, waits;
	uint64_t device_sleeps; /* times a thread of the device's process gave up its processor to wait */
	double seconds, device_cpu;
	struct histogram latency;
};

struct device {
	const char *name;
	pid_t pid;
	clockid_t cpu_clock; /* of its process, with what the kernel does for its io_uring */
	struct libvhost_mem *mem;
	struct libvhost_dev *dev;
	struct libvhost_vq *vq;
	uint8_t *ram;
	int call_fd;
	uint32_t in_flight;
	uint64_t random;
	double began[DEPTH_MAX];
};

/* Ends the program when rc says that something failed. */
void must(struct libvhost_ctx *ctx, int rc, const char *what);
double now(void);

/* Connects to the device at the socket, which process pid serves. */
void device_open(struct libvhost_ctx *ctx, struct device *d, const char *socket);
void device_close(struct device *d);

/* One round; leaves the ring empty. */
void device_run(struct device *d, const struct load *load, struct result *result);

#endif
