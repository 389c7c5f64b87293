/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/*
 * vhostctl net-test: sends numbered frames through a network device that sends everything back (testpmd in io mode),
 * and wants each of them exactly once and unchanged. What was under way when a connection ended is sent again.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli.h"
#include "net_driver.h"
#include "net_frame.h"

struct args {
	struct net_driver_opts driver;
	uint64_t frames;
	uint32_t frame_bytes, drops;
	bool json;
};

/* Frames low..next-1 are under way, except those that came; nothing below low is missing. next - low <= depth, so a
 * number's remainder is its sending slot and its place in came. */
struct pair {
	uint64_t target, low, next;
	bool *came;
	uint64_t sent, received, out_of_order, other_pair, bytes;
};

struct test {
	struct args args;
	struct net_driver driver;
	struct pair *pairs;
	uint64_t received, resent;
	uint32_t dropped;
	double seconds;
};

enum { OPT_PACKED = 1000, OPT_POLL, OPT_RECONNECT, OPT_BYTES, OPT_DROP };

static const struct argp_option options[] = {
	{"frames", 'n', "N", 0, "frames to send in all (default 100000)", 0},
	{"bytes", OPT_BYTES, "N", 0, "frames are 60 to N bytes long (default 1514)", 0},
	{"pairs", 'p', "N", 0, "queue pairs (default 1)", 0},
	{"depth", 'd', "N", 0, "entries of each ring, a power of two up to 1024 (default 256)", 0},
	{"packed", OPT_PACKED, NULL, 0, "packed rings instead of split ones", 0},
	{"poll", OPT_POLL, NULL, 0, "spin for frames instead of sleeping", 0},
	{"drop", OPT_DROP, "N", 0, "close the connection so many times on the way (default 0)", 0},
	{"reconnect", OPT_RECONNECT, "MS", 0, "how long a lost back-end may stay away, 0 = not at all (default 10000)",
	 0},
	{"timeout", 'T', "MS", 0, "give up after so long without a frame (default 10000)", 0},
	{"json", 'j', NULL, 0, "print JSON", 0},
	{0},
};

static error_t parse(int key, char *arg, struct argp_state *state)
{
	struct args *a = state->input;

	switch (key) {
	case 'n':
		a->frames = parse_number(state, "--frames", arg, 1, 1ull << 40);
		return 0;
	case OPT_BYTES:
		a->frame_bytes = (uint32_t)parse_number(state, "--bytes", arg, FRAME_MIN, FRAME_MAX);
		return 0;
	case 'p':
		a->driver.pairs = (uint32_t)parse_number(state, "--pairs", arg, 1, LIBVHOST_MAX_QUEUES / 2);
		return 0;
	case 'd':
		a->driver.depth = (uint32_t)parse_number(state, "--depth", arg, 4, 1024);
		return 0;
	case OPT_PACKED:
		a->driver.packed = true;
		return 0;
	case OPT_POLL:
		a->driver.poll = true;
		return 0;
	case OPT_DROP:
		a->drops = (uint32_t)parse_number(state, "--drop", arg, 0, 1000);
		return 0;
	case OPT_RECONNECT:
		a->driver.reconnect_ms = (uint32_t)parse_number(state, "--reconnect", arg, 0, 3600000);
		return 0;
	case 'T':
		a->driver.timeout_ms = (uint32_t)parse_number(state, "--timeout", arg, 1, 3600000);
		return 0;
	case 'j':
		a->json = true;
		return 0;
	case ARGP_KEY_END:
		if (a->driver.depth & (a->driver.depth - 1))
			argp_failure(state, 1, 0, "--depth must be a power of two");
		if (a->drops && !a->driver.reconnect_ms)
			argp_failure(state, 1, 0, "--drop needs --reconnect");
		return 0;
	default:
		return parse_uri(key, arg, state, &a->driver.uri, "user:/run/net.sock");
	}
}

static int on_frame(void *arg, uint32_t queue_pair, const uint8_t *frame, uint32_t bytes)
{
	struct test *t = arg;
	struct pair *p;
	uint64_t number;
	uint16_t pair;

	if (!net_frame_check(frame, bytes, &pair, &number) || pair >= t->args.driver.pairs)
		return complain("pair %u: %u bytes arrived that are not a frame of this test", queue_pair, bytes);
	p = &t->pairs[pair];
	if (number >= p->next)
		return complain("pair %u: frame %" PRIu64 " arrived and was not sent", pair, number);
	if (number < p->low || p->came[number % t->args.driver.depth])
		return complain("pair %u: frame %" PRIu64 " arrived twice", pair, number);
	p->came[number % t->args.driver.depth] = true;
	p->out_of_order += number != p->low;
	p->other_pair += pair != queue_pair;
	p->received++;
	p->bytes += bytes;
	t->received++;
	for (; p->low < p->next && p->came[p->low % t->args.driver.depth]; p->low++)
		p->came[p->low % t->args.driver.depth] = false;
	return 0;
}

static int send_frame(struct test *t, uint32_t pair, uint64_t number)
{
	uint32_t slot = (uint32_t)(number % t->args.driver.depth);
	uint32_t bytes = FRAME_MIN + (uint32_t)(number * 2654435761u >> 7) % (t->args.frame_bytes - FRAME_MIN + 1);

	net_frame_fill(net_driver_slot(&t->driver, pair, slot), bytes, (uint16_t)pair, number);
	t->pairs[pair].sent++;
	return net_driver_send(&t->driver, pair, slot, bytes);
}

static int on_restart(void *arg)
{
	struct test *t = arg;

	for (uint32_t i = 0; i < t->args.driver.pairs; i++) {
		struct pair *p = &t->pairs[i];

		for (uint64_t n = p->low; n < p->next; n++) {
			if (p->came[n % t->args.driver.depth])
				continue;
			if (send_frame(t, i, n))
				return 1;
			t->resent++;
		}
	}
	return 0;
}

static int feed(struct test *t)
{
	uint32_t depth = t->args.driver.depth;

	for (uint32_t i = 0; i < t->args.driver.pairs; i++) {
		struct pair *p = &t->pairs[i];

		while (p->next < p->target && p->next - p->low < depth &&
		       net_driver_slot(&t->driver, i, (uint32_t)(p->next % depth)))
			if (send_frame(t, i, p->next++))
				return 1;
	}
	return 0;
}

static bool drop_is_due(const struct test *t)
{
	return t->dropped < t->args.drops && t->received >= t->args.frames / (t->args.drops + 1) * (t->dropped + 1);
}

static int exchange(struct test *t)
{
	double started = seconds_now();

	while (t->received < t->args.frames) {
		if (feed(t) || net_driver_run(&t->driver)) {
			for (uint32_t i = 0; i < t->args.driver.pairs; i++)
				complain("pair %u: %" PRIu64 " frames sent, %" PRIu64 " came back", i, t->pairs[i].sent,
					 t->pairs[i].received);
			return 1;
		}
		if (drop_is_due(t)) {
			t->dropped++;
			if (net_driver_reopen(&t->driver))
				return 1;
		}
	}
	t->seconds = seconds_now() - started;
	return 0;
}

static void report_text(const struct test *t)
{
	printf("%-5s %12s %12s %14s %13s\n", "pair", "sent", "came back", "bytes", "out of order");
	for (uint32_t i = 0; i < t->args.driver.pairs; i++)
		printf("%-5u %12" PRIu64 " %12" PRIu64 " %14" PRIu64 " %13" PRIu64 "\n", i, t->pairs[i].sent,
		       t->pairs[i].received, t->pairs[i].bytes, t->pairs[i].out_of_order);
	printf("%s rings, running %.3f ms after connect began, %.0f frames/s, %" PRIu64 " reconnects, %" PRIu64
	       " frames sent again: OK\n",
	       t->args.driver.packed ? "packed" : "split", t->driver.connect_to_running_s * 1e3,
	       (double)t->received / t->seconds, t->driver.reconnects, t->resent);
}

static void report(const struct test *t)
{
	uint64_t sent = 0;
	json_t *out, *pairs = json_array();

	if (!t->args.json) {
		json_decref(pairs);
		report_text(t);
		return;
	}
	for (uint32_t i = 0; i < t->args.driver.pairs; i++) {
		const struct pair *p = &t->pairs[i];

		sent += p->sent;
		json_array_append_new(pairs,
				      json_pack("{s:I, s:I, s:I, s:I, s:I}", "sent", (json_int_t)p->sent, "received",
						(json_int_t)p->received, "bytes", (json_int_t)p->bytes, "out_of_order",
						(json_int_t)p->out_of_order, "other_pair", (json_int_t)p->other_pair));
	}
	out = json_pack("{s:b, s:I, s:f, s:I, s:I, s:I, s:I, s:f, s:f, s:f, s:o}", "packed", t->args.driver.packed,
			"features", (json_int_t)t->driver.features, "connect_to_running_ms",
			t->driver.connect_to_running_s * 1e3, "sent", (json_int_t)sent, "received",
			(json_int_t)t->received, "reconnects", (json_int_t)t->driver.reconnects, "resent",
			(json_int_t)t->resent, "slowest_reconnect_ms", t->driver.slowest_reconnect_s * 1e3, "seconds",
			t->seconds, "frames_per_second", (double)t->received / t->seconds, "pairs", pairs);
	print_json(out);
}

static int make_pairs(struct test *t)
{
	uint32_t n = t->args.driver.pairs;

	t->pairs = calloc(n, sizeof(*t->pairs));
	for (uint32_t i = 0; t->pairs && i < n; i++) {
		t->pairs[i].target = t->args.frames / n + (i < t->args.frames % n);
		t->pairs[i].came = calloc(t->args.driver.depth, sizeof(bool));
		if (!t->pairs[i].came)
			return complain("out of memory");
	}
	return t->pairs ? 0 : complain("out of memory");
}

static int run(int argc, char **argv)
{
	static const struct argp argp = {
		options,
		parse,
		"URI",
		"Sends numbered frames to a network device that sends everything back and checks "
		"that each returns once and unchanged.",
		NULL,
		NULL,
		NULL};
	struct test t = {.args = {.driver = {.pairs = 1, .depth = 256, .timeout_ms = 10000, .reconnect_ms = 10000},
				  .frames = 100000,
				  .frame_bytes = FRAME_MAX},
			 .driver = {.epoll = -1}};
	int rc;

	argp_parse(&argp, argc, argv, 0, NULL, &t.args);
	catch_signals();
	t.args.driver.on_frame = on_frame;
	t.args.driver.on_restart = on_restart;
	t.args.driver.arg = &t;
	rc = make_pairs(&t) || net_driver_open(&t.driver, &t.args.driver) || exchange(&t);
	if (!rc)
		report(&t);
	net_driver_close(&t.driver);
	for (uint32_t i = 0; t.pairs && i < t.args.driver.pairs; i++)
		free(t.pairs[i].came);
	free(t.pairs);
	return rc;
}

const struct command net_test_command = {"net-test", "send frames through a network device that sends them back", run};
