/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* vhostctl blk-test: writes a pattern to a block device, flushes, reads it back, verifies every byte. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "blk_args.h"
#include "blk_load.h"
#include "cli.h"
#include "fail_nth.h"
#include "pattern.h"

struct args {
	struct blk_args blk;
	struct fault fault;
	double duration_s; /* 0 = once over the size */
	bool verify, json, quiet;
};

struct test {
	struct args args;
	struct blk_load load;
	struct libvhost_ctx *ctx; /* of the transport that lets requests fail */
};

enum { OPT_NO_VERIFY = 1000, OPT_POLL, OPT_RECONNECT, OPT_FAIL_NTH, OPT_INFLIGHT };

static const struct argp_option options[] = {
	{"duration", 'D', "SECONDS", 0, "repeat each phase over the size for so long", 0},
	{"no-verify", OPT_NO_VERIFY, NULL, 0, "do not compare what is read (for null devices)", 0},
	{"poll", OPT_POLL, NULL, 0, "spin for completions instead of sleeping", 0},
	{"inflight", OPT_INFLIGHT, NULL, 0,
	 "trust the back-end's inflight region after its death, instead of offering requests again", 0},
	{"reconnect", OPT_RECONNECT, "MS", 0, "how long a lost back-end may stay away, 0 = not at all (default 10000)",
	 0},
	{"fail-nth", OPT_FAIL_NTH, "N[:HOW]", 0,
	 "let the N-th request to the back-end fail; HOW = refuse (default), drop (no answer), kill (hang up) or an "
	 "errno name (not sent). N = all: each one in turn, in a short life each, with a table of what became of it",
	 0},
	{"json", 'j', NULL, 0, "print JSON", 0},
	{"quiet", 'Q', NULL, 0, "no progress bar", 0},
	{0},
};

static error_t parse(int key, char *arg, struct argp_state *state)
{
	struct args *a = state->input;

	switch (key) {
	case ARGP_KEY_INIT:
		state->child_inputs[0] = &a->blk;
		return 0;
	case 'D':
		a->duration_s = (double)parse_number(state, "--duration", arg, 1, 86400);
		return 0;
	case OPT_RECONNECT:
		a->blk.driver.reconnect_ms = (uint32_t)parse_number(state, "--reconnect", arg, 0, 3600000);
		return 0;
	case OPT_NO_VERIFY:
		a->verify = false;
		return 0;
	case OPT_POLL:
		a->blk.driver.poll = true;
		return 0;
	case OPT_FAIL_NTH:
		fault_parse(state, arg, &a->fault);
		return 0;
	case OPT_INFLIGHT:
		a->blk.driver.inflight = true;
		return 0;
	case 'j':
		a->json = true;
		return 0;
	case 'Q':
		a->quiet = true;
		return 0;
	default:
		return parse_uri(key, arg, state, &a->blk.driver.uri, "user:/run/blk.sock");
	}
}

static json_t *phase_json(const struct blk_phase *p)
{
	return json_pack("{s:s, s:I, s:I, s:f, s:f, s:f, s:f}", "phase", p->name, "requests", (json_int_t)p->requests,
			 "bytes", (json_int_t)p->bytes, "seconds", p->seconds, "iops", (double)p->requests / p->seconds,
			 "latency_p50_us", histogram_quantile(&p->latency, 0.5) * 1e6, "latency_p99_us",
			 histogram_quantile(&p->latency, 0.99) * 1e6);
}

static void print_stalls(const struct blk_driver *d)
{
	printf("from \"socket back\" to the first completion: %.3f ms at most; each:", d->longest_stall * 1e3);
	for (uint32_t i = 0; i < d->stalls_count; i++)
		printf(" %.3f", d->stalls[i] * 1e3);
	printf("\n");
}

static json_t *stalls_json(const struct blk_driver *d)
{
	json_t *list = json_array();

	for (uint32_t i = 0; i < d->stalls_count; i++)
		json_array_append_new(list, json_real(d->stalls[i] * 1e3));
	return list;
}

static void report(const struct test *t, const struct blk_phase *phases, size_t count)
{
	const struct blk_driver *d = &t->load.driver;
	json_t *out;

	if (!t->args.json) {
		printf("%-7s %10s %14s %9s %12s %12s %12s\n", "phase", "requests", "bytes", "seconds", "IOPS", "p50 us",
		       "p99 us");
		for (size_t i = 0; i < count; i++)
			printf("%-7s %10" PRIu64 " %14" PRIu64 " %9.3f %12.0f %12.1f %12.1f\n", phases[i].name,
			       phases[i].requests, phases[i].bytes, phases[i].seconds,
			       (double)phases[i].requests / phases[i].seconds,
			       histogram_quantile(&phases[i].latency, 0.5) * 1e6,
			       histogram_quantile(&phases[i].latency, 0.99) * 1e6);
		printf("%u queues, depth %u, running %.3f ms after connect began, %" PRIu64 " bytes verified, %" PRIu64
		       " reconnects, %" PRIu64 " requests offered again: OK\n",
		       d->opts.queues, d->opts.depth, d->connect_to_running_s * 1e3, t->load.verified, d->reconnects,
		       d->resubmitted);
		if (d->stalls_count)
			print_stalls(d);
		return;
	}
	out = json_pack("{s:i, s:i, s:I, s:f, s:I, s:I, s:I, s:[]}", "queues", (int)d->opts.queues, "depth",
			(int)d->opts.depth, "features", (json_int_t)d->features, "connect_to_running_ms",
			d->connect_to_running_s * 1e3, "verified_bytes", (json_int_t)t->load.verified, "reconnects",
			(json_int_t)d->reconnects, "resubmitted", (json_int_t)d->resubmitted, "phases");
	json_object_set_new(out, "longest_stall_ms", json_real(d->longest_stall * 1e3));
	json_object_set_new(out, "stalls_ms", stalls_json(d));
	for (size_t i = 0; i < count; i++)
		json_array_append_new(json_object_get(out, "phases"), phase_json(&phases[i]));
	print_json(out);
}

static int test(struct test *t)
{
	struct blk_phase phases[] = {{.name = "write", .type = BLK_T_OUT, .end = t->args.blk.size},
				     {.name = "flush", .type = BLK_T_FLUSH, .end = 1},
				     {.name = "read", .type = BLK_T_IN, .end = t->args.blk.size}};
	size_t count = sizeof(phases) / sizeof(*phases);

	if (t->args.blk.size > t->load.driver.capacity_sectors * SECTOR)
		return complain("--size %" PRIu64 " is more than the device's %" PRIu64 " bytes", t->args.blk.size,
				t->load.driver.capacity_sectors * SECTOR);
	for (size_t i = 0; i < count; i++) {
		if (phases[i].type == BLK_T_FLUSH && !(t->load.driver.features >> BLK_F_FLUSH & 1))
			continue;
		if (blk_load_run(&t->load, &phases[i]))
			return 1;
	}
	report(t, phases, count);
	return 0;
}

static int inject(struct test *t)
{
	struct blk_driver_opts *o = &t->args.blk.driver;
	int rc = libvhost_ctx_new(NULL, &t->ctx);

	if (rc < 0)
		return complain("out of memory");
	rc = fault_transport_new(t->ctx, o->uri, o->timeout_ms, &t->args.fault, &o->transport);
	if (rc < 0) {
		complain_ctx(t->ctx, "connect", rc);
		libvhost_ctx_free(t->ctx);
		return 1;
	}
	o->uri = NULL;
	return 0;
}

static int run(int argc, char **argv)
{
	static const struct argp_child children[] = {{&blk_argp, 0, NULL, 0}, {0}};
	static const struct argp argp = {options,
					 parse,
					 "URI",
					 "Writes every sector of a block device with a pattern that follows from "
					 "--seed, flushes, reads it back and verifies it. "
					 "The data on the device is lost.",
					 children,
					 NULL,
					 NULL};
	struct test t = {.args = {.blk = {BLK_ARGS_DEFAULT}, .verify = true}};
	int rc;

	t.args.blk.driver.reconnect_ms = 10000;
	argp_parse(&argp, argc, argv, 0, NULL, &t.args);
	catch_signals();
	if (t.args.fault.all)
		return fail_nth_all(&t.args.blk.driver, &t.args.fault, t.args.json);
	if (t.args.fault.nth && inject(&t))
		return 1;
	t.load.seed = t.args.blk.seed;
	t.load.duration_s = t.args.duration_s;
	t.load.verify = t.args.verify;
	t.load.show_progress = !t.args.quiet;
	rc = blk_driver_open(&t.load.driver, &t.args.blk.driver) || test(&t);
	if (!t.load.driver.dev)
		libvhost_transport_free(t.args.blk.driver.transport); /* nobody took it over */
	blk_driver_close(&t.load.driver);
	libvhost_ctx_free(t.ctx);
	return rc;
}

const struct command blk_test_command = {"blk-test",
					 "write, read back and verify a block device through its virtqueues", run};
