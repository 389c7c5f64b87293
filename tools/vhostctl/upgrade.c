/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* vhostctl upgrade: a guest whose VMM is replaced under load, again and again, without the back-end noticing. */
#include "upgrade.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "cli.h"
#include "fdpass.h"

struct args {
	struct upgrade_machine machine;
	uint32_t times, pause_ms;
	int vmm;
	bool json;
};

struct vmm_process {
	pid_t pid;
	int sock;
};

struct upgrade {
	struct args args;
	struct upgrade_guest guest;
	struct vmm_process vmm;
	uint32_t done, generation;
	uint64_t *freeze_ns, *thaw_ns, *gap_ns, *address;
	uint32_t blob_bytes;
	uint64_t began, ended; /* wall clock, nanoseconds, for comparing with a system call trace */
};

enum { OPT_VMM = 1000, OPT_PAUSE, OPT_PACKED, OPT_INFLIGHT };

static const struct argp_option options[] = {
	{"times", 'n', "N", 0, "upgrades (default 20)", 0},
	{"queues", 'q', "N", 0, "virtqueues, 1..16 (default 2)", 0},
	{"depth", 'd', "N", 0, "requests in flight per queue, 1..256 (default 32)", 0},
	{"packed", OPT_PACKED, NULL, 0, "packed rings instead of split ones", 0},
	{"inflight", OPT_INFLIGHT, NULL, 0, "with an inflight region, which travels, too", 0},
	{"pause", OPT_PAUSE, "MS", 0, "between upgrades (default 20)", 0},
	{"timeout", 'T', "MS", 0, "give up after so long without progress (default 10000)", 0},
	{"json", 'j', NULL, 0, "print JSON", 0},
	{"vmm", OPT_VMM, "FD", OPTION_HIDDEN, "be a VMM", 0},
	{0},
};

static error_t parse(int key, char *arg, struct argp_state *state)
{
	struct args *a = state->input;

	switch (key) {
	case 'n':
		a->times = (uint32_t)parse_number(state, "--times", arg, 1, 1000000);
		return 0;
	case 'q':
		a->machine.queues = (uint32_t)parse_number(state, "--queues", arg, 1, UPGRADE_QUEUES);
		return 0;
	case 'd':
		a->machine.depth = (uint32_t)parse_number(state, "--depth", arg, 1, 256);
		return 0;
	case OPT_PACKED:
		a->machine.packed = true;
		return 0;
	case OPT_INFLIGHT:
		a->machine.inflight = true;
		return 0;
	case OPT_PAUSE:
		a->pause_ms = (uint32_t)parse_number(state, "--pause", arg, 0, 10000);
		return 0;
	case 'T':
		a->machine.timeout_ms = (uint32_t)parse_number(state, "--timeout", arg, 100, 3600000);
		return 0;
	case 'j':
		a->json = true;
		return 0;
	case OPT_VMM:
		a->vmm = (int)parse_number(state, "--vmm", arg, 3, 65535);
		return 0;
	case ARGP_KEY_ARG:
		if (a->machine.uri[0] || strlen(arg) >= sizeof(a->machine.uri))
			argp_failure(state, 1, 0, "one URI only, of less than %zu bytes", sizeof(a->machine.uri));
		strcpy(a->machine.uri, arg);
		return 0;
	case ARGP_KEY_END:
		if (!a->machine.uri[0] && a->vmm < 0)
			argp_failure(state, 1, 0, "a URI is missing, for example user:/run/blk.sock");
		return 0;
	default:
		return ARGP_ERR_UNKNOWN;
	}
}

/* ---- VMM processes ---- */

static int spawn(struct vmm_process *v)
{
	char number[16];
	int pair[2];

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair))
		return complain("no socket: %s", strerror(errno));
	snprintf(number, sizeof(number), "%d", pair[1]);
	v->pid = fork();
	if (v->pid < 0)
		return complain("no process: %s", strerror(errno));
	if (!v->pid) {
		/* only async-signal-safe calls: the guest's thread may hold locks */
		fcntl(pair[1], F_SETFD, 0);
		execl("/proc/self/exe", "vhostctl", "upgrade", "--vmm", number, (char *)NULL);
		_exit(127);
	}
	close(pair[1]);
	v->sock = pair[0];
	return 0;
}

static int order(struct upgrade *u, const struct vmm_process *v, uint32_t what, const int *fds, uint32_t nfds)
{
	struct upgrade_order o = {.what = what, .generation = u->generation, .machine = u->args.machine};

	for (uint32_t q = 0; what == UPGRADE_STOP && q < o.machine.queues; q++)
		o.base[q] = upgrade_guest_base(&u->guest, q);
	if (fdpass_send(v->sock, &o, sizeof(o), NULL, 0) || fdpass_send(v->sock, NULL, 0, fds, nfds))
		return complain("the VMM does not listen: %s", strerror(errno));
	return 0;
}

static int await(const struct vmm_process *v, struct upgrade_answer *a)
{
	if (fdpass_recv(v->sock, a, sizeof(*a), NULL, 0))
		return complain("the VMM died: %s", strerror(errno));
	return a->result ? complain("%s", a->text) : 0;
}

static void reap(struct vmm_process *v)
{
	if (v->sock >= 0)
		close(v->sock);
	if (v->pid > 0)
		waitpid(v->pid, NULL, 0);
	*v = (struct vmm_process){.sock = -1};
}

static int boot(struct upgrade *u)
{
	int fds[2 * UPGRADE_QUEUES];
	struct upgrade_answer a;

	if (spawn(&u->vmm) || order(u, &u->vmm, UPGRADE_CONNECT, &u->guest.memfd, 1) || await(&u->vmm, &a) ||
	    upgrade_guest_rings(&u->guest, a.features))
		return 1;
	u->address[0] = a.address;
	u->args.machine.features = a.features;
	for (uint32_t q = 0; q < u->args.machine.queues; q++) {
		fds[2 * q] = u->guest.kick[q];
		fds[2 * q + 1] = u->guest.call[q];
	}
	return order(u, &u->vmm, UPGRADE_BOOT, fds, 2 * u->args.machine.queues) || await(&u->vmm, &a);
}

static uint64_t nanoseconds(clockid_t clock)
{
	struct timespec ts;

	clock_gettime(clock, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

/* The successor is there before the predecessor lets go: what counts is the time between the two. */
static int hand_over(struct upgrade *u, struct vmm_process *next, int *link)
{
	struct upgrade_answer mapped, given, taken;
	uint64_t began;

	if (spawn(next) || order(u, next, UPGRADE_MAP, &u->guest.memfd, 1) || await(next, &mapped) ||
	    order(u, next, UPGRADE_TAKE, &link[1], 1))
		return 1;
	atomic_fetch_add(&u->guest.epoch, 1);
	began = nanoseconds(CLOCK_MONOTONIC);
	if (order(u, &u->vmm, UPGRADE_GIVE, &link[0], 1) || await(&u->vmm, &given))
		return 1;
	close(link[0]);
	close(link[1]);
	link[0] = link[1] = -1;
	if (await(next, &taken))
		return 1;
	u->gap_ns[u->done] = nanoseconds(CLOCK_MONOTONIC) - began;
	atomic_fetch_add(&u->guest.epoch, 1);
	u->freeze_ns[u->done] = given.nanoseconds;
	u->thaw_ns[u->done] = taken.nanoseconds;
	u->address[u->done + 1] = mapped.address;
	u->blob_bytes = taken.blob_bytes;
	return 0;
}

static int upgrade_once(struct upgrade *u)
{
	struct vmm_process next = {.sock = -1};
	int link[2] = {-1, -1}, rc;

	u->generation++;
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, link))
		return complain("no socket: %s", strerror(errno));
	rc = hand_over(u, &next, link);
	for (int i = 0; i < 2; i++)
		if (link[i] >= 0)
			close(link[i]);
	reap(&u->vmm);
	u->vmm = next;
	u->done += !rc;
	return rc;
}

static int upgrade_all(struct upgrade *u)
{
	const struct timespec pause = {.tv_sec = u->args.pause_ms / 1000,
				       .tv_nsec = u->args.pause_ms % 1000 * 1000000l};

	nanosleep(&(struct timespec){.tv_nsec = 100000000}, NULL); /* the load is there */
	u->began = nanoseconds(CLOCK_REALTIME);
	while (u->done < u->args.times && !interrupted) {
		nanosleep(&pause, NULL);
		if (upgrade_once(u))
			return 1;
	}
	nanosleep(&pause, NULL);
	u->ended = nanoseconds(CLOCK_REALTIME);
	return interrupted ? complain("interrupted") : 0;
}

/* ---- report ---- */

static int compare(const void *a, const void *b)
{
	const uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

/* Sorts; microseconds of a quantile. */
static double quantile_us(uint64_t *ns, uint32_t n, double q)
{
	qsort(ns, n, sizeof(*ns), compare);
	return n ? (double)ns[(uint32_t)(q * (n - 1))] / 1e3 : 0;
}

static uint32_t distinct(uint64_t *values, uint32_t n)
{
	uint32_t count = n > 0;

	qsort(values, n, sizeof(*values), compare);
	for (uint32_t i = 1; i < n; i++)
		count += values[i] != values[i - 1];
	return count;
}

static json_t *latency_json(const struct histogram *h, double worst)
{
	return json_pack("{s:I, s:f, s:f, s:f}", "requests", (json_int_t)h->total, "p50_us",
			 histogram_quantile(h, 0.5) * 1e6, "p99_us", histogram_quantile(h, 0.99) * 1e6, "max_us",
			 worst * 1e6);
}

static json_t *steps_json(uint64_t *ns, uint32_t n)
{
	return json_pack("{s:f, s:f, s:f}", "p50_us", quantile_us(ns, n, 0.5), "p99_us", quantile_us(ns, n, 0.99),
			 "max_us", quantile_us(ns, n, 1));
}

static void report_json(struct upgrade *u, uint64_t lost)
{
	const struct upgrade_guest *g = &u->guest;
	json_t *out =
		json_pack("{s:i, s:i, s:i, s:I, s:I, s:I, s:I, s:I}", "upgrades", (int)u->done, "queues",
			  (int)g->machine.queues, "depth", (int)g->machine.depth, "requests", (json_int_t)g->completed,
			  "lost", (json_int_t)lost, "completed_twice", (json_int_t)g->twice, "wrong_data",
			  (json_int_t)g->wrong, "failed", (json_int_t)g->failed);

	json_object_set_new(out, "freeze", steps_json(u->freeze_ns, u->done));
	json_object_set_new(out, "thaw", steps_json(u->thaw_ns, u->done));
	json_object_set_new(out, "without_vmm", steps_json(u->gap_ns, u->done));
	json_object_set_new(out, "latency_calm", latency_json(&g->calm, g->worst_calm));
	json_object_set_new(out, "latency_upgrading", latency_json(&g->upgrading, g->worst_upgrading));
	json_object_set_new(out, "longest_silence_us", json_real(g->longest_silence * 1e6));
	json_object_set_new(out, "blob_bytes", json_integer(u->blob_bytes));
	json_object_set_new(out, "addresses", json_integer(distinct(u->address, u->done + 1)));
	json_object_set_new(out, "began_us", json_integer((json_int_t)(u->began / 1000)));
	json_object_set_new(out, "ended_us", json_integer((json_int_t)(u->ended / 1000)));
	print_json(out);
}

static void print_latency(const char *what, const struct histogram *h, double worst)
{
	printf("latency %-18s p50 %.0f, p99 %.0f, max %.0f us (%" PRIu64 " requests)\n", what,
	       histogram_quantile(h, 0.5) * 1e6, histogram_quantile(h, 0.99) * 1e6, worst * 1e6, h->total);
}

static void report_text(struct upgrade *u, uint64_t lost)
{
	const struct upgrade_guest *g = &u->guest;

	printf("%u upgrades, %u queues, depth %u: %" PRIu64 " requests, %" PRIu64 " lost, %" PRIu64
	       " completed twice, %" PRIu64 " with wrong data, %" PRIu64 " failed\n",
	       u->done, g->machine.queues, g->machine.depth, g->completed, lost, g->twice, g->wrong, g->failed);
	printf("freeze %.0f us, thaw %.0f us, without a VMM %.0f us (medians; longest %.0f us); blob of %u bytes\n",
	       quantile_us(u->freeze_ns, u->done, 0.5), quantile_us(u->thaw_ns, u->done, 0.5),
	       quantile_us(u->gap_ns, u->done, 0.5), quantile_us(u->gap_ns, u->done, 1), u->blob_bytes);
	print_latency("between upgrades:", &g->calm, g->worst_calm);
	print_latency("during upgrades:", &g->upgrading, g->worst_upgrading);
}

static int judge(struct upgrade *u)
{
	const struct upgrade_guest *g = &u->guest;
	const uint64_t lost = g->submitted - g->completed;

	if (u->args.json)
		report_json(u, lost);
	else
		report_text(u, lost);
	if (g->trouble)
		return complain("%s", g->trouble);
	return lost || g->twice || g->wrong || g->failed ? complain("requests were lost, repeated or wrong") : 0;
}

static int run_guest(struct upgrade *u)
{
	struct upgrade_answer a;
	int rc;

	if (boot(u) || upgrade_guest_start(&u->guest))
		return 1;
	rc = upgrade_all(u);
	upgrade_guest_stop(&u->guest);
	if (!rc)
		rc = order(u, &u->vmm, UPGRADE_STOP, NULL, 0) || await(&u->vmm, &a);
	return judge(u) || rc;
}

static int be_guest(struct upgrade *u)
{
	int rc;

	upgrade_plan(&u->args.machine);
	u->vmm.sock = -1;
	u->freeze_ns = calloc(u->args.times, sizeof(uint64_t));
	u->thaw_ns = calloc(u->args.times, sizeof(uint64_t));
	u->gap_ns = calloc(u->args.times, sizeof(uint64_t));
	u->address = calloc(u->args.times + 1u, sizeof(uint64_t));
	if (!u->freeze_ns || !u->thaw_ns || !u->gap_ns || !u->address) {
		rc = complain("out of memory");
	} else {
		rc = upgrade_guest_open(&u->guest, &u->args.machine) || run_guest(u);
		reap(&u->vmm);
		upgrade_guest_close(&u->guest);
	}
	free(u->freeze_ns);
	free(u->thaw_ns);
	free(u->gap_ns);
	free(u->address);
	return rc;
}

static int run(int argc, char **argv)
{
	static const struct argp argp = {
		options,
		parse,
		"URI",
		"Drives a block device from a guest that is a process of its own, and replaces the VMM process that "
		"holds the device while requests are in flight: the old one freezes it and hands blob and descriptors "
		"to the new "
		"one, which thaws it with guest memory at another address. The data on the device is lost.",
		NULL,
		NULL,
		NULL};
	struct upgrade u = {.args = {.machine = {.queues = 2, .depth = 32, .timeout_ms = 10000},
				     .times = 20,
				     .pause_ms = 20,
				     .vmm = -1}};

	argp_parse(&argp, argc, argv, 0, NULL, &u.args);
	if (u.args.vmm >= 0)
		return upgrade_vmm(u.args.vmm);
	catch_signals();
	return be_guest(&u);
}

const struct command upgrade_command = {"upgrade", "replace the VMM under a running block device, without a message",
					run};
