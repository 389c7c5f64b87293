/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* vhostctl serve: a vhost-user back-end whose queues run on sandboxed workers. */
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "blk_device.h"
#include "cli.h"

struct args {
	const char *device, *socket, *file, *journal;
	uint64_t ram;
	uint32_t queues, workers, poll_us, caps, action;
	bool once, quiet;
};

enum { OPT_CAPS_DROP = 1000, OPT_JOURNAL, OPT_KILL, OPT_ONCE, OPT_POLL };

static const struct argp_option options[] = {
	{"socket", 's', "PATH", 0, "listen here (required)", 0},
	{"file", 'f', "FILE", 0, "serve this file or block device", 0},
	{"ram", 'r', "BYTES", 0, "serve so much memory", 0},
	{"journal", OPT_JOURNAL, "FILE", 0,
	 "count in this file, a 32-bit number per sector, the reads and writes that begin there; survives kill -9", 0},
	{"queues", 'q', "N", 0, "virtqueues (default 1)", 0},
	{"workers", 'w', "N", 0, "sandboxed threads (default 1)", 0},
	{"poll", OPT_POLL, "US", 0, "poll so many microseconds before sleeping (default 0)", 0},
	{"caps-drop", OPT_CAPS_DROP, NULL, 0, "drop the workers' capabilities even if this process could change ids",
	 0},
	{"kill", OPT_KILL, NULL, 0, "end the process when a worker makes a forbidden system call", 0},
	{"once", OPT_ONCE, NULL, 0, "end when the first front-end disconnects", 0},
	{"quiet", 'Q', NULL, 0, "print nothing but errors", 0},
	{0},
};

static error_t parse(int key, char *arg, struct argp_state *state)
{
	struct args *a = state->input;

	switch (key) {
	case 's':
		a->socket = arg;
		return 0;
	case 'f':
		a->file = arg;
		return 0;
	case 'r':
		a->ram = parse_number(state, "--ram", arg, 512, 1ull << 40);
		return 0;
	case 'q':
		a->queues = (uint32_t)parse_number(state, "--queues", arg, 1, LIBVHOST_MAX_QUEUES);
		return 0;
	case 'w':
		a->workers = (uint32_t)parse_number(state, "--workers", arg, 1, 64);
		return 0;
	case OPT_POLL:
		a->poll_us = (uint32_t)parse_number(state, "--poll", arg, 0, 1000000);
		return 0;
	case OPT_JOURNAL:
		a->journal = arg;
		return 0;
	case OPT_CAPS_DROP:
		a->caps = LIBVHOST_CAPS_DROP;
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
		if (a->device)
			argp_failure(state, 1, 0, "one device only");
		a->device = arg;
		return 0;
	case ARGP_KEY_END:
		if (!a->device || strcmp(a->device, "blk"))
			argp_failure(state, 1, 0, "the device must be 'blk'");
		if (!a->socket)
			argp_failure(state, 1, 0, "--socket is missing");
		if (!a->file == !a->ram)
			argp_failure(state, 1, 0, "give either --file or --ram");
		return 0;
	default:
		return ARGP_ERR_UNKNOWN;
	}
}

static int open_store(const struct args *a, struct blk_device *dev)
{
	off_t size;

	snprintf(dev->id, sizeof(dev->id), "vhostctl-%s", a->file ? "file" : "ram");
	dev->fd = -1;
	if (!a->file) {
		dev->size = a->ram / 512 * 512;
		dev->ram = mmap(NULL, dev->size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		if (dev->ram == MAP_FAILED)
			return complain("cannot get %" PRIu64 " bytes of memory: %s", dev->size, strerror(errno));
		return 0;
	}
	dev->fd = open(a->file, O_RDWR | O_CLOEXEC);
	if (dev->fd < 0)
		return complain("%s: %s", a->file, strerror(errno));
	size = lseek(dev->fd, 0, SEEK_END);
	if (size < 512)
		return complain("%s: not a file or device of at least one sector", a->file);
	dev->size = (uint64_t)size / 512 * 512;
	return 0;
}

/* Goes on counting in a file that is there. */
static int open_journal(const struct args *a, struct blk_device *dev)
{
	const uint64_t bytes = dev->size / 512 * sizeof(*dev->journal);
	int fd;
	void *map;

	if (!a->journal)
		return 0;
	fd = open(a->journal, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (fd < 0 || ftruncate(fd, (off_t)bytes) < 0)
		return complain("%s: %s", a->journal, strerror(errno));
	map = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	close(fd);
	if (map == MAP_FAILED)
		return complain("%s: %s", a->journal, strerror(errno));
	dev->journal = map;
	return 0;
}

static int complain_backend(struct libvhost_backend *backend, const char *what, int rc)
{
	struct libvhost_error e = {.size = sizeof(e)};

	libvhost_backend_error(backend, &e);
	return complain("%s: %s", what, e.text[0] ? e.text : strerror(-rc));
}

static void announce(const struct args *a, struct libvhost_backend *backend, const struct blk_device *dev)
{
	struct libvhost_worker_status s = {.size = sizeof(s)};

	if (a->quiet)
		return;
	printf("serving %" PRIu64 " bytes on %s, %u queues, %u workers\n", dev->size, a->socket, a->queues, a->workers);
	for (uint32_t i = 0; i < a->workers && !libvhost_backend_worker_status(backend, i, &s); i++)
		printf("worker %u: tid %u Seccomp %u NoNewPrivs %u CapEff %016" PRIx64 "\n", i, s.tid, s.seccomp,
		       s.no_new_privs, s.cap_effective);
	fflush(stdout);
}

static int loop(const struct args *a, struct libvhost_backend *backend)
{
	struct libvhost_event event;
	int rc = libvhost_backend_listen(backend, a->socket);

	if (rc < 0)
		return complain_backend(backend, "listen", rc);
	while (!interrupted) {
		rc = libvhost_backend_dispatch(backend, 500);
		if (rc < 0)
			return complain_backend(backend, "dispatch", rc);
		while (libvhost_backend_next_event(backend, &event) == 1) {
			if (!a->quiet && event.text[0])
				fprintf(stderr, "%s\n", event.text);
			if (a->once && event.type == LIBVHOST_EVENT_DISCONNECTED)
				return 0;
		}
	}
	return 0;
}

static int serve(const struct args *a, struct libvhost_ctx *ctx, struct blk_device *dev)
{
	const struct libvhost_backend_ops ops = {.size = sizeof(ops), .serve = blk_device_serve};
	struct libvhost_worker_opts worker = {
		.size = sizeof(worker), .role = LIBVHOST_ROLE_BLOCK, .name = "vhostctl-blk"};
	struct blk_config config = {
		.capacity = htole64(dev->size / 512), .seg_max = htole32(126), .blk_size = htole32(512)};
	struct libvhost_backend_opts opts = {.size = sizeof(opts), .virtio_id = VIRTIO_ID_BLOCK};
	struct libvhost_backend *backend;
	int rc;

	worker.caps = a->caps;
	worker.action = a->action;
	worker.poll_us = a->poll_us;
	config.num_queues = htole16((uint16_t)a->queues);
	opts.num_queues = a->queues;
	opts.num_workers = a->workers;
	opts.worker = &worker;
	opts.features = 1ull << BLK_F_SEG_MAX | 1ull << BLK_F_BLK_SIZE | 1ull << BLK_F_FLUSH |
			1ull << RING_F_INDIRECT_DESC | 1ull << RING_F_EVENT_IDX | 1ull << F_RING_PACKED |
			1ull << F_IN_ORDER | (a->queues > 1 ? 1ull << BLK_F_MQ : 0);
	opts.ops = &ops;
	opts.arg = dev;
	opts.config = &config;
	opts.config_len = BLK_CONFIG_BYTES;
	rc = libvhost_backend_new(ctx, &opts, &backend);
	if (rc < 0)
		return complain_ctx(ctx, "device", rc);
	announce(a, backend, dev);
	rc = loop(a, backend);
	libvhost_backend_free(backend);
	return rc;
}

static int run(int argc, char **argv)
{
	static const struct argp argp = {
		options, parse,
		"blk",	 "Serves a block device over vhost-user until interrupted. Requests run on sandboxed threads.",
		NULL,	 NULL,
		NULL};
	struct args a = {.queues = 1, .workers = 1};
	struct blk_device dev = {0};
	struct libvhost_ctx *ctx;
	int rc;

	argp_parse(&argp, argc, argv, 0, NULL, &a);
	catch_signals();
	if (open_store(&a, &dev) || open_journal(&a, &dev))
		return 1;
	if (libvhost_ctx_new(NULL, &ctx) < 0)
		return complain("out of memory");
	rc = serve(&a, ctx, &dev);
	libvhost_ctx_free(ctx);
	if (dev.journal)
		munmap((void *)dev.journal, dev.size / 512 * sizeof(*dev.journal));
	if (dev.ram)
		munmap(dev.ram, dev.size);
	if (dev.fd >= 0)
		close(dev.fd);
	return rc;
}

const struct command serve_command = {"serve", "serve a block device from a file or memory on sandboxed threads", run};
