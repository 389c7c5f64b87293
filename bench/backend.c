/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/*
 * One driver at several vhost-user block devices, round after round: the first device against each of the others, by
 * the median of the ratios of the same round. bench/backend starts the devices and this; it explains the columns.
 */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "driver.h"
#include "probe.h"

#define DEVICES	   8
#define MODES	   8
#define ROUNDS	   99
#define DEVICE_CPU 0
#define DRIVER_CPU 1
#define STEAL_MOST 0.05 /* of a round that counts */
#define LINE_MOST  1.5	/* times the median round trip of a cache line, for the same */

struct mode {
	const char *name;
	struct load load;
};

static struct bench {
	struct device devices[DEVICES];
	struct mode modes[MODES];
	int num_devices, num_modes, rounds;
	double steal[ROUNDS];
	struct probes probes[ROUNDS];
	bool counts[ROUNDS];
	struct result results[MODES][DEVICES][ROUNDS];
} b = {.rounds = 9};

static int ascending(const void *a, const void *c)
{
	const double x = *(const double *)a, y = *(const double *)c;

	return (x > y) - (x < y);
}

static double quantile(double *values, int n, double q)
{
	qsort(values, (size_t)n, sizeof(*values), ascending);
	return n ? values[(int)(q * (n - 1) + 0.5)] : 0;
}

static void run_rounds(void)
{
	for (int i = 0; i < b.rounds; i++) {
		unsigned long long stolen[2], all[2];

		probe_steal(&stolen[0], &all[0]);
		probe(&b.probes[i], DRIVER_CPU, DEVICE_CPU);
		for (int m = 0; m < b.num_modes; m++)
			for (int k = 0; k < b.num_devices; k++) { /* nobody is always the one behind the probes */
				const int d = (k + i) % b.num_devices;

				device_run(&b.devices[d], &b.modes[m].load, &b.results[m][d][i]);
			}
		probe_steal(&stolen[1], &all[1]);
		b.steal[i] = all[1] > all[0] ? (double)(stolen[1] - stolen[0]) / (double)(all[1] - all[0]) : 0;
		fprintf(stderr, "round %d: cache line %.2f us, eventfd %.1f us, system call %.2f us, steal %.1f %%\n",
			i, b.probes[i].line_us, b.probes[i].eventfd_us, b.probes[i].syscall_us, 100 * b.steal[i]);
	}
}

/* Returns how many rounds were quiet. All count when most were not. */
static int judge_rounds(void)
{
	double line[ROUNDS], median;
	int n = 0;

	for (int i = 0; i < b.rounds; i++)
		line[i] = b.probes[i].line_us;
	median = quantile(line, b.rounds, 0.5);
	for (int i = 0; i < b.rounds; i++) {
		b.counts[i] = b.steal[i] <= STEAL_MOST && b.probes[i].line_us <= LINE_MOST * median &&
			      b.probes[i].line_us >= median / LINE_MOST;
		n += b.counts[i];
	}
	for (int i = 0; i < b.rounds; i++)
		b.counts[i] |= 2 * n <= b.rounds;
	return n;
}

enum value { REQUESTS, RATE, PER_CORE, CPU, KICKS, WAITS, SLEEPS, P50, P99 };

static double value_of(const struct result *r, enum value v)
{
	const double n = (double)r->requests;

	switch (v) {
	case REQUESTS:
		return n;
	case RATE:
		return n / r->seconds;
	case PER_CORE:
		return n / r->device_cpu;
	case CPU:
		return r->device_cpu / n;
	case KICKS:
		return (double)r->kicks / n;
	case WAITS:
		return (double)r->waits / n;
	case SLEEPS:
		return (double)r->device_sleeps / n;
	case P50:
		return histogram_quantile(&r->latency, 0.5);
	case P99:
	default:
		return histogram_quantile(&r->latency, 0.99);
	}
}

static double over_rounds(int mode, int device, enum value v, double q)
{
	double values[ROUNDS];
	int n = 0;

	for (int i = 0; i < b.rounds; i++)
		if (b.counts[i])
			values[n++] = value_of(&b.results[mode][device][i], v);
	return quantile(values, n, q);
}

/* Of the first device to another; above 1 the first is better. */
static double ratio(int mode, int device, enum value v)
{
	double ratios[ROUNDS];
	int n = 0;

	for (int i = 0; i < b.rounds; i++) {
		const double first = value_of(&b.results[mode][0][i], v),
			     other = value_of(&b.results[mode][device][i], v);

		if (b.counts[i] && first > 0 && other > 0)
			ratios[n++] = v == P99 ? other / first : first / other;
	}
	return quantile(ratios, n, 0.5);
}

static void print_mode(int m)
{
	const struct load *load = &b.modes[m].load;

	printf("\n%s\n%-16s %10s %10s %10s %10s %9s %8s %8s %8s", b.modes[m].name, "device", "requests", "kIOPS",
	       "best", "kIOPS/core", "ns/req", "kicks", "waits", "sleeps");
	printf(load->latency ? " %8s %8s %7s %7s %7s\n" : "%.0s%.0s %7s\n", "p50 us", "p99 us", "rate x", "core x",
	       "p99 x");
	for (int d = 0; d < b.num_devices; d++) {
		printf("%-16s %10.0f %10.1f %10.1f %10.1f %9.0f %8.4f %8.4f %8.4f", b.devices[d].name,
		       over_rounds(m, d, REQUESTS, 0.5), over_rounds(m, d, RATE, 0.5) / 1e3,
		       over_rounds(m, d, RATE, 1) / 1e3, over_rounds(m, d, PER_CORE, 0.5) / 1e3,
		       over_rounds(m, d, CPU, 0.5) * 1e9, over_rounds(m, d, KICKS, 0.5), over_rounds(m, d, WAITS, 0.5),
		       over_rounds(m, d, SLEEPS, 0.5));
		if (load->latency)
			printf(" %8.1f %8.1f %7.2f %7.2f %7.2f\n", over_rounds(m, d, P50, 0.5) * 1e6,
			       over_rounds(m, d, P99, 0.5) * 1e6, ratio(m, d, RATE), ratio(m, d, PER_CORE),
			       ratio(m, d, P99));
		else
			printf(" %7.2f\n", ratio(m, d, RATE));
	}
}

static void print_all(void)
{
	double line[ROUNDS], eventfd[ROUNDS];
	const int n = judge_rounds();

	for (int i = 0; i < b.rounds; i++) {
		line[i] = b.probes[i].line_us;
		eventfd[i] = b.probes[i].eventfd_us;
	}
	printf("%d of %d rounds were quiet%s; cache line there and back %.2f us, eventfd %.1f us (medians)\n", n,
	       b.rounds, 2 * n <= b.rounds ? ", too few: all count" : ", only these count",
	       quantile(line, b.rounds, 0.5), quantile(eventfd, b.rounds, 0.5));
	for (int m = 0; m < b.num_modes; m++)
		print_mode(m);
}

static void usage(void)
{
	fputs("usage: backend_driver [-r ROUNDS] [-s SECONDS] [-l (latencies)] [-w (writes)] [-b BLOCKS]\n"
	      "                      -m DEPTH:(sleep|poll)... NAME,PID,SOCKET...\n",
	      stderr);
	exit(2);
}

/* The other options hold for the modes that follow them. */
static void add_mode(char *text, const struct load *load)
{
	struct mode *mode = &b.modes[b.num_modes++];
	char *how;

	mode->load = *load;
	mode->load.depth = (uint32_t)strtoul(text, &how, 10);
	if (b.num_modes > MODES || !mode->load.depth || mode->load.depth > DEPTH_MAX || *how++ != ':' ||
	    (strcmp(how, "sleep") && strcmp(how, "poll")))
		usage();
	mode->load.sleeps = !strcmp(how, "sleep");
	mode->name = malloc(64);
	must(NULL, mode->name ? 0 : -1, "memory");
	snprintf((char *)(uintptr_t)mode->name, 64, "depth %u, driver %s%s", mode->load.depth,
		 mode->load.sleeps ? "sleeps" : "polls", load->writes ? ", writes" : "");
}

static void add_device(struct libvhost_ctx *ctx, char *text)
{
	struct device *d = &b.devices[b.num_devices++];
	const char *name = strtok(text, ","), *pid = strtok(NULL, ","), *socket = strtok(NULL, "");

	if (b.num_devices > DEVICES || !socket)
		usage();
	d->name = name;
	d->pid = (pid_t)strtol(pid, NULL, 10);
	device_open(ctx, d, socket);
}

int main(int argc, char **argv)
{
	struct load load = {.seconds = 0.4, .blocks = 1};
	struct libvhost_ctx *ctx;
	int c;

	while ((c = getopt(argc, argv, "b:lm:r:s:w")) != -1) {
		if (c == 'b')
			load.blocks = strtoull(optarg, NULL, 10);
		else if (c == 'l')
			load.latency = true;
		else if (c == 'm')
			add_mode(optarg, &load);
		else if (c == 'r')
			b.rounds = atoi(optarg);
		else if (c == 's')
			load.seconds = atof(optarg);
		else if (c == 'w')
			load.writes = true;
		else
			usage();
	}
	if (!b.num_modes || optind == argc || b.rounds < 1 || b.rounds > ROUNDS || load.seconds <= 0)
		usage();
	must(NULL, libvhost_ctx_new(NULL, &ctx), "context");
	while (optind < argc)
		add_device(ctx, argv[optind++]);
	alarm((unsigned)(60 + 2 * load.seconds * b.rounds * b.num_modes * b.num_devices)); /* one that hangs */
	run_rounds();
	print_all();
	for (int d = 0; d < b.num_devices; d++)
		device_close(&b.devices[d]);
	for (int m = 0; m < b.num_modes; m++)
		free((char *)(uintptr_t)b.modes[m].name);
	libvhost_ctx_free(ctx);
	return 0;
}
