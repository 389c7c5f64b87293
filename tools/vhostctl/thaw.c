/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* vhostctl thaw: what vhostctl freeze wrote goes on, in another process, at another back-end. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#include "blk_load.h"
#include "cli.h"
#include "pattern.h"
#include "snapshot_file.h"

struct args {
	const char *file, *uri;
	uint32_t timeout_ms;
	bool info, json;
};

struct thaw {
	struct args args;
	struct snapshot_reader files;
	struct libvhost_freeze_info info;
	struct snapshot snapshot;
	struct blk_load load;
	uint64_t address;
};

enum { OPT_INFO = 1000 };

static const struct argp_option options[] = {
	{"info", OPT_INFO, NULL, 0, "check the files, say what is in them, touch no back-end", 0},
	{"timeout", 'T', "MS", 0, "give up after so long without progress (default 10000)", 0},
	{"json", 'j', NULL, 0, "print JSON", 0},
	{0},
};

static error_t parse(int key, char *arg, struct argp_state *state)
{
	struct args *a = state->input;

	switch (key) {
	case OPT_INFO:
		a->info = true;
		return 0;
	case 'T':
		a->timeout_ms = (uint32_t)parse_number(state, "--timeout", arg, 1, 3600000);
		return 0;
	case 'j':
		a->json = true;
		return 0;
	case ARGP_KEY_ARG:
		if (a->file && a->uri)
			argp_failure(state, 1, 0, "one file and one URI only");
		*(a->file ? &a->uri : &a->file) = arg;
		return 0;
	case ARGP_KEY_NO_ARGS:
		argp_failure(state, 1, 0, "a file is missing, for example vhostctl thaw disk.snap");
		return 0;
	default:
		return ARGP_ERR_UNKNOWN;
	}
}

/* ---- the files ---- */

/* The library says what is wrong with a blob; whether it is one for us is for us to say. */
static int look(struct thaw *t)
{
	const char *file = t->args.file;
	struct libvhost_ctx *ctx = NULL;
	int rc = libvhost_ctx_new(NULL, &ctx);

	if (rc < 0)
		return complain("out of memory");
	t->info.size = sizeof(t->info);
	rc = libvhost_freeze_info(ctx, t->files.blob, t->files.blob_len, &t->info);
	if (rc < 0)
		complain_ctx(ctx, file, rc);
	libvhost_ctx_free(ctx);
	if (rc < 0)
		return 1;
	if (!(t->info.flags & LIBVHOST_FREEZE_SNAPSHOT))
		return complain("%s: a running device, frozen for another process; it cannot be thawed without its %u "
				"descriptors, which are in no file",
				file, t->info.nfds);
	if (t->info.virtio_id != VIRTIO_ID_BLOCK)
		return complain("%s: a device of type %u; only block devices (type %u) can go on here", file,
				t->info.virtio_id, VIRTIO_ID_BLOCK);
	return snapshot_read(&t->files, &t->snapshot);
}

/* Guest memory is found at another address, wherever the kernel would have put it. */
static int fill_memory(struct thaw *t)
{
	struct blk_driver *d = &t->load.driver;
	const struct snapshot *s = &t->snapshot;
	const struct blk_driver_opts o = {.uri = t->args.uri,
					  .queues = s->queues,
					  .depth = s->depth,
					  .block_bytes = s->block_bytes,
					  .timeout_ms = t->args.timeout_ms,
					  .packed = s->packed,
					  .inflight = s->inflight};
	uint64_t bytes;
	uint8_t *ram;

	(void)mmap(NULL, s->ram_bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (blk_driver_prepare(d, &o))
		return 1;
	ram = blk_driver_memory(d, &bytes);
	if (!ram || bytes != s->ram_bytes)
		return complain("%s.guest: damaged: such a guest has %" PRIu64 " bytes of memory, not %" PRIu64,
				t->args.file, bytes, s->ram_bytes);
	t->address = (uint64_t)(uintptr_t)ram;
	return snapshot_read_ram(&t->files, ram, bytes);
}

/* ---- the load ---- */

static int go_on(struct thaw *t)
{
	const struct snapshot *s = &t->snapshot;
	struct blk_phase phases[] = {{.name = "write", .type = BLK_T_OUT, .next = s->next, .end = s->size},
				     {.name = "flush", .type = BLK_T_FLUSH, .end = 1},
				     {.name = "read", .type = BLK_T_IN, .end = s->size}};
	struct blk_load *l = &t->load;

	if (blk_driver_thaw(&l->driver, s->features, t->files.blob, t->files.blob_len))
		return 1;
	if (s->size > l->driver.capacity_sectors * SECTOR)
		return complain("the load needs %" PRIu64 " bytes, this device has %" PRIu64, s->size,
				l->driver.capacity_sectors * SECTOR);
	if (blk_driver_resume(&l->driver))
		return 1;
	for (size_t i = 0; i < sizeof(phases) / sizeof(*phases); i++)
		if ((phases[i].type != BLK_T_FLUSH || l->driver.features >> BLK_F_FLUSH & 1) &&
		    blk_load_run(l, &phases[i]))
			return 1;
	return 0;
}

static void report_info(const struct thaw *t)
{
	const struct libvhost_freeze_info *i = &t->info;
	const struct snapshot *s = &t->snapshot;

	if (t->args.json)
		print_json(json_pack("{s:i, s:i, s:s, s:s, s:i, s:i, s:b, s:b, s:I, s:I, s:I}", "major", (int)i->major,
				     "minor", (int)i->minor, "written_by", i->written_by, "uri", i->uri, "queues",
				     (int)i->num_queues, "depth", (int)s->depth, "packed", s->packed, "inflight",
				     s->inflight, "size", (json_int_t)s->size, "offered_bytes", (json_int_t)s->next,
				     "memory_bytes", (json_int_t)s->ram_bytes));
	else
		printf("block device at %s, %u queues, depth %u, %s rings%s; written by libvhost %s, format %u.%u\n"
		       "load: %" PRIu64 " of %" PRIu64 " bytes offered; %" PRIu64 " bytes of memory\n",
		       i->uri, i->num_queues, s->depth, s->packed ? "packed" : "split",
		       s->inflight ? ", inflight region" : "", i->written_by, i->major, i->minor, s->next, s->size,
		       s->ram_bytes);
}

static void report(const struct thaw *t)
{
	const struct blk_driver *d = &t->load.driver;

	if (t->args.json)
		print_json(json_pack("{s:I, s:I, s:I, s:I, s:f}", "verified_bytes", (json_int_t)t->load.verified,
				     "resumed", (json_int_t)d->resumed, "address", (json_int_t)t->address,
				     "address_before", (json_int_t)t->snapshot.address, "connect_to_running_ms",
				     d->connect_to_running_s * 1e3));
	else
		printf("running %.3f ms after connect began, memory at %#" PRIx64 ", before at %#" PRIx64 "; %" PRIu64
		       " requests from the snapshot completed, the load went on, %" PRIu64 " bytes verified: OK\n",
		       d->connect_to_running_s * 1e3, t->address, t->snapshot.address, d->resumed, t->load.verified);
}

static int run(int argc, char **argv)
{
	static const struct argp argp = {
		options,
		parse,
		"FILE [URI]",
		"Goes on with a guest that vhostctl freeze wrote to FILE and FILE.guest, at a back-end over the same "
		"disk: "
		"at URI, or where it was. What lies in the rings is executed, the load ends, and every byte of it is "
		"verified.",
		NULL,
		NULL,
		NULL};
	struct thaw t = {.args = {.timeout_ms = 10000}, .load = {.verify = true}};
	int rc;

	argp_parse(&argp, argc, argv, 0, NULL, &t.args);
	catch_signals();
	rc = snapshot_open(&t.files, t.args.file) || look(&t);
	t.load.seed = t.snapshot.seed;
	if (!rc) {
		rc = fill_memory(&t) || (!t.args.info && go_on(&t));
		if (!rc && t.args.info)
			report_info(&t);
		else if (!rc)
			report(&t);
		blk_driver_close(&t.load.driver);
	}
	snapshot_close(&t.files);
	return rc;
}

const struct command thaw_command = {"thaw", "go on with a frozen block device and its guest, at a fresh back-end",
				     run};
