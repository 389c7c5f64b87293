/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* vhostctl serve: a vhost-user back-end whose queues run on sandboxed workers. The devices are in devices/. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "cli.h"
#include "devices/device.h"
#include "ring_wire.h"

struct args {
	struct device *device;
	const char *socket;
	uint32_t queues, workers, poll_us, caps, action, sandbox, flags;
	bool connect, control, once, quiet;
};

enum {
	OPT_BUSY = 1000,
	OPT_CAPS_DROP,
	OPT_CONNECT,
	OPT_CONTROL,
	OPT_KILL,
	OPT_NO_SANDBOX,
	OPT_NO_URING,
	OPT_ONCE,
	OPT_POLL
};

static const struct argp_option options[] = {
	{"socket", 's', "PATH", 0, "listen here (required)", 0},
	{"queues", 'q', "N", 0, "virtqueues (default 1, or what the device has at least)", 0},
	{"workers", 'w', "N", 0, "sandboxed threads (default 1)", 0},
	{"poll", OPT_POLL, "US", 0,
	 "poll up to so many microseconds before sleeping, adaptively (default 50), 0 = not at all", 0},
	{"busy", OPT_BUSY, NULL, 0, "never sleep while a queue runs", 0},
	{"no-io-uring", OPT_NO_URING, NULL, 0, "read and write files one request at a time", 0},
	{"no-sandbox", OPT_NO_SANDBOX, NULL, 0, "workers without a sandbox, to measure what it costs", 0},
	{"caps-drop", OPT_CAPS_DROP, NULL, 0, "drop the workers' capabilities even if this process could change ids",
	 0},
	{"kill", OPT_KILL, NULL, 0, "end the process when a worker makes a forbidden system call", 0},
	{"connect", OPT_CONNECT, NULL, 0, "connect to a front-end that listens on --socket, and again after each end",
	 0},
	{"control-worker", OPT_CONTROL, NULL, 0, "handle control messages on a sandboxed thread, too", 0},
	{"once", OPT_ONCE, NULL, 0, "end when the first front-end disconnects", 0},
	{"quiet", 'Q', NULL, 0, "print nothing but errors", 0},
	{0},
};

static error_t check(struct argp_state *state, struct args *a)
{
	const struct device *d = a->device;

	if (!d) {
		argp_failure(state, 1, 0, "the device comes first and must be 'blk', 'net', 'rng' or 'console'");
		return EINVAL;
	}
	if (!a->socket)
		argp_failure(state, 1, 0, "--socket is missing");
	if (!a->queues)
		a->queues = d->queues;
	if (a->queues < d->queues || a->queues > d->max_queues || a->queues % d->queue_step)
		argp_failure(state, 1, 0, "--queues: %s has %u to %u queues, in steps of %u", d->name, d->queues,
			     d->max_queues, d->queue_step);
	if (a->poll_us && a->flags & LIBVHOST_WORKER_BUSY)
		argp_failure(state, 1, 0, "--poll and --busy exclude each other");
	return 0;
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
	struct args *a = state->input;

	switch (key) {
	case 's':
		a->socket = arg;
		return 0;
	case 'q':
		a->queues = (uint32_t)parse_number(state, "--queues", arg, 1, LIBVHOST_MAX_QUEUES);
		return 0;
	case 'w':
		a->workers = (uint32_t)parse_number(state, "--workers", arg, 1, 64);
		return 0;
	case OPT_POLL:
		a->poll_us = (uint32_t)parse_number(state, "--poll", arg, 0, 1000000);
		a->poll_us = a->poll_us ? a->poll_us : LIBVHOST_WORKER_NO_WINDOW;
		return 0;
	case OPT_BUSY:
		a->flags |= LIBVHOST_WORKER_BUSY;
		return 0;
	case OPT_NO_SANDBOX:
		a->sandbox = LIBVHOST_SANDBOX_OFF;
		return 0;
	case OPT_NO_URING:
		a->flags &= ~LIBVHOST_WORKER_IO_URING;
		return 0;
	case OPT_CAPS_DROP:
		a->caps = LIBVHOST_CAPS_DROP;
		return 0;
	case OPT_CONNECT:
		a->connect = true;
		return 0;
	case OPT_CONTROL:
		a->control = true;
		return 0;
	case OPT_KILL:
		a->action = LIBVHOST_SANDBOX_KILL_PROCESS;
		return 0;
	case OPT_ONCE:
		a->once = true;
		return 0;
	case 'Q':
		a->quiet = true;
		return 0;
	case ARGP_KEY_ARG:
		argp_failure(state, 1, 0,
			     a->device ? "one device only"
				       : "the device comes first and must be 'blk', 'net', 'rng' or 'console'");
		return 0;
	case ARGP_KEY_END:
		return check(state, a);
	default:
		return ARGP_ERR_UNKNOWN;
	}
}

static int complain_backend(struct libvhost_backend *backend, const char *what, int rc)
{
	struct libvhost_error e = {.size = sizeof(e)};

	libvhost_backend_error(backend, &e);
	return complain("%s: %s", what, e.text[0] ? e.text : strerror(-rc));
}

static void announce_worker(struct libvhost_backend *backend, uint32_t index)
{
	struct libvhost_worker_status s = {.size = sizeof(s)};
	char name[32] = "control worker";

	if (libvhost_backend_worker_status(backend, index, &s) < 0)
		return;
	if (index != LIBVHOST_BACKEND_CONTROL_INDEX)
		snprintf(name, sizeof(name), "worker %u", index);
	printf("%s: tid %u Seccomp %u NoNewPrivs %u CapEff %016" PRIx64 "%s\n", name, s.tid, s.seccomp, s.no_new_privs,
	       s.cap_effective, s.io_uring ? " io_uring" : "");
}

static void announce(const struct args *a, struct libvhost_backend *backend)
{
	if (a->quiet)
		return;
	printf("serving %s on %s, %u queues, %u workers\n", a->device->summary, a->socket, a->queues, a->workers);
	for (uint32_t i = 0; i < a->workers; i++)
		announce_worker(backend, i);
	if (a->control)
		announce_worker(backend, LIBVHOST_BACKEND_CONTROL_INDEX);
	fflush(stdout);
}

/* What no event tells: a front-end that cannot be reached, or accepted. Once until it is something else. */
static void report(const struct args *a, struct libvhost_backend *backend, char *last)
{
	struct libvhost_error e = {.size = sizeof(e)};

	if (a->quiet || libvhost_backend_error(backend, &e) < 0 || !strcmp(e.text, last) ||
	    (e.kind != LIBVHOST_EK_SYSTEM && e.kind != LIBVHOST_EK_FD_LIMIT))
		return;
	snprintf(last, LIBVHOST_ERROR_TEXT, "%s", e.text);
	fprintf(stderr, "%s\n", last);
}

static int open_door(const struct args *a, struct libvhost_backend *backend)
{
	const int rc =
		a->connect ? libvhost_backend_connect(backend, a->socket) : libvhost_backend_listen(backend, a->socket);

	return rc < 0 ? complain_backend(backend, a->connect ? "connect" : "listen", rc) : 0;
}

static int loop(const struct args *a, struct libvhost_backend *backend)
{
	char last[LIBVHOST_ERROR_TEXT] = "";
	struct libvhost_event event;
	int rc;

	while (!interrupted) {
		rc = libvhost_backend_dispatch(backend, 500);
		if (rc < 0)
			return complain_backend(backend, "dispatch", rc);
		report(a, backend, last);
		while (libvhost_backend_next_event(backend, &event) == 1) {
			if (!a->quiet && event.text[0])
				fprintf(stderr, "%s\n", event.text);
			if (a->once && event.type == LIBVHOST_EVENT_DISCONNECTED)
				return 0;
		}
	}
	return 0;
}

static int bind_and_loop(const struct args *a, struct libvhost_backend *backend)
{
	const int rc = a->device->bind ? a->device->bind(a->device, backend) : 0;

	if (rc < 0)
		return complain_backend(backend, "device", rc);
	if (open_door(a, backend))
		return 1;
	announce(a, backend);
	return loop(a, backend);
}

static int serve(const struct args *a, struct libvhost_ctx *ctx)
{
	const struct device *d = a->device;
	const struct libvhost_backend_ops ops = {
		.size = sizeof(ops), .serve = d->serve, .save_state = d->save_state, .load_state = d->load_state};
	struct libvhost_worker_opts worker = {
		.size = sizeof(worker),
		.flags = d->num_files ? a->flags : a->flags & ~LIBVHOST_WORKER_IO_URING,
		.role = d->role,
		.sandbox = a->sandbox,
		.action = a->action,
		.caps = a->caps,
		.poll_us = a->poll_us,
		.num_files = d->num_files,
		.files = d->files,
	};
	const struct libvhost_backend_opts opts = {
		.size = sizeof(opts),
		.flags = a->control ? LIBVHOST_BACKEND_CONTROL_WORKER : 0,
		.virtio_id = d->virtio_id,
		.num_queues = a->queues,
		.num_workers = a->workers,
		.worker = &worker,
		.features = d->features | 1ull << RING_F_INDIRECT_DESC | 1ull << RING_F_EVENT_IDX |
			    1ull << F_RING_PACKED | 1ull << F_IN_ORDER,
		.ops = &ops,
		.arg = a->device,
		.config = d->config,
		.config_len = d->config_len,
	};
	struct libvhost_backend *backend;
	int rc, stopped;

	snprintf(worker.name, sizeof(worker.name), "vhostctl-%s", d->name);
	rc = libvhost_backend_new(ctx, &opts, &backend);
	if (rc < 0)
		return complain_ctx(ctx, "device", rc);
	rc = bind_and_loop(a, backend);
	stopped = libvhost_backend_stop(backend, 0);
	if (stopped < 0) /* to free it would be to wait for what does not end, a file that does not answer, say */
		return complain_backend(backend, "stop", stopped);
	libvhost_backend_free(backend);
	return rc;
}

static struct device *find(const char *name)
{
	struct device *d;

	for (unsigned n = 0; name && (d = device_at(n)) != NULL; n++)
		if (!strcmp(d->name, name))
			return d;
	return NULL;
}

/* The device comes first, because the other options depend on it; help shows those of all. */
static struct device *read_arguments(int argc, char **argv, struct args *a)
{
	struct device *d = find(argc > 1 ? argv[1] : NULL);
	struct argp_child children[8] = {{0}};
	struct argp argp = {options,
			    parse,
			    "DEVICE",
			    "Serves a device over vhost-user until interrupted. Requests run on sandboxed "
			    "threads. DEVICE, which comes first, is blk, net, rng or console.",
			    children,
			    NULL,
			    NULL};
	struct device *each;
	int used = 0;

	for (unsigned n = 0; (each = device_at(n)) != NULL; n++)
		if (each->argp && (!d || each == d))
			children[used++] = (struct argp_child){each->argp, 0, each->name, (int)n + 1};
	a->device = d;
	if (d) {
		argv[1] = argv[0];
		argc--;
		argv++;
	}
	argp_parse(&argp, argc, argv, 0, NULL, a);
	return d;
}

static int run(int argc, char **argv)
{
	const struct libvhost_ctx_opts opts = {.size = sizeof(opts), .flags = LIBVHOST_CTX_SIGBUS_GUARD};
	struct args a = {.workers = 1, .flags = LIBVHOST_WORKER_IO_URING};
	struct libvhost_ctx *ctx;
	int rc;

	if (!read_arguments(argc, argv, &a))
		return 1;
	catch_signals();
	if (a.device->open(a.device, a.queues))
		return 1;
	if (libvhost_ctx_new(&opts, &ctx) < 0)
		return complain("out of memory");
	rc = serve(&a, ctx);
	libvhost_ctx_free(ctx);
	a.device->close(a.device);
	return rc;
}

const struct command serve_command = {"serve", "serve a device on sandboxed threads", run};
