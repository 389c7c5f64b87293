/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/*
 * vhostctl trace: stands between a front-end and a back-end, hands every request on and prints both directions.
 * Possible in a page because a request has one form everywhere: what the device side decodes is what a transport
 * executes.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli.h"

struct args {
	const char *listen, *uri;
	uint32_t timeout_ms;
	bool once;
};

struct tracer {
	struct args args;
	struct libvhost_ctx *ctx;
	struct libvhost_backend *backend;
	struct libvhost_transport *peer; /* connected while a front-end is */
	double started;
};

static const struct argp_option options[] = {
	{"timeout", 'T', "MS", 0, "longest time for one answer of the back-end (default 5000)", 0},
	{"once", 'o', NULL, 0, "end when the first front-end disconnects", 0},
	{0},
};

static error_t parse(int key, char *arg, struct argp_state *state)
{
	struct args *a = state->input;

	switch (key) {
	case 'T':
		a->timeout_ms = (uint32_t)parse_number(state, "--timeout", arg, 1, 3600000);
		return 0;
	case 'o':
		a->once = true;
		return 0;
	case ARGP_KEY_ARG:
		if (state->arg_num > 1)
			argp_failure(state, 1, 0, "two arguments: the socket to listen on and the back-end's URI");
		if (state->arg_num)
			a->uri = arg;
		else
			a->listen = arg;
		return 0;
	case ARGP_KEY_END:
		if (!a->uri)
			argp_failure(state, 1, 0, "two arguments: the socket to listen on and the back-end's URI");
		return 0;
	default:
		return ARGP_ERR_UNKNOWN;
	}
}

/* What the kernel calls a descriptor: "anon_inode:[eventfd]", "/memfd:ram (deleted)", "socket:[…]". */
static void print_fd(int fd)
{
	char link[32], name[128];
	ssize_t n;

	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	n = readlink(link, name, sizeof(name) - 1);
	printf(" {%.*s}", n < 0 ? 1 : (int)n, n < 0 ? "?" : name);
}

static void print_request(struct tracer *t, const char *arrow, const struct libvhost_req *req)
{
	const struct libvhost_region *regions = (const void *)(uintptr_t)req->data_in;
	char text[256];

	libvhost_req_text(req, text, sizeof(text));
	printf("%10.6f %s %s", seconds_now() - t->started, arrow, text);
	if (req->flags & LIBVHOST_REQ_HAS_FD)
		print_fd(req->fd);
	for (uint32_t i = 0; req->op == LIBVHOST_OP_SET_MEM_TABLE && i < req->arg.table.count; i++) {
		printf("\n           |   region gpa 0x%" PRIx64 " size 0x%" PRIx64 " user 0x%" PRIx64
		       " offset 0x%" PRIx64,
		       regions[i].gpa, regions[i].size, regions[i].user_addr, regions[i].mmap_offset);
		if (regions[i].flags & LIBVHOST_REGION_HAS_FD)
			print_fd(regions[i].fd);
	}
}

static void print_answer(const struct libvhost_req *req)
{
	if (req->err)
		printf(" -> %s\n", strerror(-req->err));
	else if (req->out_flags & LIBVHOST_REQ_OUT_FD)
		print_fd(req->out_fd), putchar('\n');
	else if (req->data_out_len)
		printf(" -> %u bytes\n", req->data_out_len);
	else
		printf(" -> 0x%" PRIx64 "\n", req->result[0]);
	fflush(stdout);
}

/* Back-end to front-end. */
static int from_backend(void *arg, struct libvhost_req *req)
{
	struct tracer *t = arg;
	int rc;

	print_request(t, "  <=", req);
	rc = libvhost_backend_request(t->backend, req, t->args.timeout_ms);
	print_answer(req);
	return rc;
}

static int connect_peer(struct tracer *t)
{
	struct libvhost_transport_opts o = {
		.size = sizeof(o), .timeout_ms = t->args.timeout_ms, .on_request = from_backend};
	int rc;

	o.on_request_arg = t;
	rc = libvhost_transport_open(t->ctx, t->args.uri, &o, &t->peer);
	if (rc < 0)
		complain_ctx(t->ctx, t->args.uri, rc);
	return rc;
}

/* Front-end to back-end. */
static int from_frontend(void *arg, struct libvhost_req *req)
{
	struct tracer *t = arg;
	struct libvhost_req copy;
	int rc = 0;

	print_request(t, "=>", req);
	if (!t->peer)
		rc = connect_peer(t);
	if (!rc) {
		copy = *req;
		if (req->op == LIBVHOST_OP_SET_BACKEND_REQ_FD) /* this channel ends here, the next one begins here */
			copy.flags &= ~LIBVHOST_REQ_HAS_FD;
		rc = libvhost_transport_exec(t->peer, &copy, 1, t->args.timeout_ms, NULL);
		req->err = copy.err ? copy.err : rc;
		req->out_fd = copy.out_fd;
		req->out_flags = copy.out_flags;
		req->data_out_len = copy.data_out_len;
		memcpy(req->result, copy.result, sizeof(req->result));
	} else {
		req->err = rc;
	}
	print_answer(req);
	return rc;
}

static int loop(struct tracer *t)
{
	struct libvhost_event event;
	int rc = libvhost_backend_listen(t->backend, t->args.listen);

	if (rc < 0)
		return complain("cannot listen on %s: %s", t->args.listen, strerror(-rc));
	while (!interrupted) {
		rc = libvhost_backend_dispatch(t->backend, 20);
		if (rc < 0)
			return complain("dispatch: %s", strerror(-rc));
		if (t->peer)
			libvhost_transport_progress(t->peer);
		while (libvhost_backend_next_event(t->backend, &event) == 1) {
			if (event.type != LIBVHOST_EVENT_DISCONNECTED)
				continue;
			printf("%10.6f -- front-end disconnected\n", seconds_now() - t->started);
			libvhost_transport_free(t->peer);
			t->peer = NULL;
			if (t->args.once)
				return 0;
		}
	}
	return 0;
}

static int run(int argc, char **argv)
{
	static const struct argp argp = {options,
					 parse,
					 "LISTEN URI",
					 "Listens on the socket LISTEN, hands each request on to the back-end at URI "
					 "and prints both directions, "
					 "descriptors by the kernel's name for them.",
					 NULL,
					 NULL,
					 NULL};
	const struct libvhost_backend_ops ops = {.size = sizeof(ops), .on_request = from_frontend};
	struct libvhost_backend_opts opts = {.size = sizeof(opts), .num_queues = 1, .ops = &ops};
	struct tracer t = {.args = {.timeout_ms = 5000}, .started = seconds_now()};
	int rc;

	argp_parse(&argp, argc, argv, 0, NULL, &t.args);
	catch_signals();
	if (libvhost_ctx_new(NULL, &t.ctx) < 0)
		return complain("out of memory");
	opts.arg = &t;
	rc = libvhost_backend_new(t.ctx, &opts, &t.backend);
	if (rc < 0) {
		complain_ctx(t.ctx, "trace", rc);
	} else {
		rc = loop(&t);
		libvhost_transport_free(t.peer);
		libvhost_backend_free(t.backend);
	}
	libvhost_ctx_free(t.ctx);
	return rc != 0;
}

const struct command trace_command = {"trace", "stand between a front-end and a back-end and print every message", run};
