/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* vhostctl freeze: a guest in the middle of its work becomes two files. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "blk_args.h"
#include "blk_load.h"
#include "cli.h"
#include "pattern.h"
#include "snapshot_file.h"

struct args {
	const char *file;
	struct blk_args blk;
	uint64_t at;
	bool under_load, json;
};

struct freeze {
	struct args args;
	struct blk_load load;
	struct blk_phase rest; /* what is not written yet */
	struct snapshot_writer files;
	struct snapshot snapshot;
	uint8_t *ram;
	void *blob;
	size_t blob_len;
};

enum { OPT_AT = 1000, OPT_INFLIGHT, OPT_UNDER_LOAD };
#define AT_HALF UINT64_MAX

static const struct argp_option options[] = {
	{"at", OPT_AT, "BYTES", 0, "freeze when so many are written and verified (default half)", 0},
	{"inflight", OPT_INFLIGHT, NULL, 0, "with an inflight region, which goes into the file", 0},
	{"under-load", OPT_UNDER_LOAD, NULL, 0,
	 "stop while requests are worked on: a back-end must complete them before it says that it stopped", 0},
	{"json", 'j', NULL, 0, "print JSON", 0},
	{0},
};

static error_t parse_end(const struct args *a, struct argp_state *state)
{
	if (!a->file || !a->blk.driver.uri)
		argp_failure(state, 1, 0, "%s is missing, for example vhostctl freeze disk.snap user:/run/blk.sock",
			     a->file ? "a URI" : "a file");
	if (a->at != AT_HALF && a->at % SECTOR)
		argp_failure(state, 1, 0, "--at must be a multiple of %u bytes", SECTOR);
	if (a->under_load && a->blk.driver.packed)
		argp_failure(state, 1, 0,
			     "--under-load needs split rings: the driver of a packed one keeps its state elsewhere");
	if (a->at != AT_HALF && a->at > a->blk.size)
		argp_failure(state, 1, 0, "--at %" PRIu64 " is behind --size %" PRIu64, a->at, a->blk.size);
	return 0;
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
	struct args *a = state->input;

	switch (key) {
	case ARGP_KEY_INIT:
		state->child_inputs[0] = &a->blk;
		return 0;
	case OPT_AT:
		a->at = parse_number(state, "--at", arg, 0, 1ull << 50);
		return 0;
	case OPT_INFLIGHT:
		a->blk.driver.inflight = true;
		return 0;
	case OPT_UNDER_LOAD:
		a->under_load = true;
		return 0;
	case 'j':
		a->json = true;
		return 0;
	case ARGP_KEY_ARG:
		if (a->file && a->blk.driver.uri)
			argp_failure(state, 1, 0, "one file and one URI only");
		*(a->file ? &a->blk.driver.uri : &a->file) = arg;
		return 0;
	case ARGP_KEY_END:
		return parse_end(a, state);
	default:
		return ARGP_ERR_UNKNOWN;
	}
}

/* The part that this process can vouch for. */
static int write_and_verify(struct blk_load *l, uint64_t bytes)
{
	struct blk_phase phases[] = {{.name = "write", .type = BLK_T_OUT, .end = bytes},
				     {.name = "flush", .type = BLK_T_FLUSH, .end = 1},
				     {.name = "read", .type = BLK_T_IN, .end = bytes}};

	for (size_t i = 0; i < sizeof(phases) / sizeof(*phases); i++)
		if ((phases[i].type != BLK_T_FLUSH || l->driver.features >> BLK_F_FLUSH & 1) &&
		    blk_load_run(l, &phases[i]))
			return 1;
	return 0;
}

static int stop(struct freeze *f)
{
	const struct libvhost_call_opts call = {.size = sizeof(call), .timeout_ms = f->args.blk.driver.timeout_ms};
	struct blk_driver *d = &f->load.driver;
	int rc;

	f->load.phase = &f->rest;
	if (f->args.under_load && (blk_load_feed(&f->load) || blk_driver_run(d, blk_load_done, &f->load)))
		return 1;
	rc = libvhost_dev_stop(d->dev, &call);
	return rc < 0 ? complain_dev(d->dev, "stop", rc) : 0;
}

/* The guest goes on for a moment: what it offers nobody takes. How far the driver of a packed ring is stands in no
 * memory. */
static int fill_rings(struct freeze *f)
{
	struct blk_driver *d = &f->load.driver;
	uint32_t total = 0;

	return blk_driver_reap(d, blk_load_done, &f->load, &total) ||
	       (!d->opts.packed && (blk_load_feed(&f->load) || blk_driver_kick(d)));
}

static int take_blob(struct freeze *f)
{
	struct libvhost_dev *dev = f->load.driver.dev;
	uint32_t nfds = 0;
	int rc = libvhost_dev_freeze(dev, LIBVHOST_FREEZE_SNAPSHOT, NULL, &f->blob_len, NULL, &nfds);

	if (!rc) {
		f->blob = malloc(f->blob_len);
		if (!f->blob)
			return complain("out of memory");
		rc = libvhost_dev_freeze(dev, LIBVHOST_FREEZE_SNAPSHOT, f->blob, &f->blob_len, NULL, &nfds);
	}
	return rc < 0 ? complain_dev(dev, "freeze", rc) : 0;
}

static int work(struct freeze *f)
{
	const struct args *a = &f->args;
	const uint64_t at = a->at == AT_HALF ? a->blk.size / 2 / SECTOR * SECTOR : a->at;
	struct blk_driver *d = &f->load.driver;

	if (a->blk.size > d->capacity_sectors * SECTOR)
		return complain("--size %" PRIu64 " is more than the device's %" PRIu64 " bytes", a->blk.size,
				d->capacity_sectors * SECTOR);
	f->rest = (struct blk_phase){.name = "write", .type = BLK_T_OUT, .next = at, .end = a->blk.size};
	if (write_and_verify(&f->load, at) || stop(f) || take_blob(f) || fill_rings(f))
		return 1;
	f->snapshot = (struct snapshot){.queues = a->blk.driver.queues,
					.depth = a->blk.driver.depth,
					.block_bytes = a->blk.driver.block_bytes,
					.packed = a->blk.driver.packed,
					.inflight = a->blk.driver.inflight,
					.features = d->features,
					.size = a->blk.size,
					.next = f->rest.next,
					.seed = a->blk.seed};
	f->ram = blk_driver_memory(d, &f->snapshot.ram_bytes);
	f->snapshot.address = (uint64_t)(uintptr_t)f->ram;
	return snapshot_write(&f->files, &f->snapshot, f->ram, f->blob, f->blob_len);
}

static void report(const struct freeze *f)
{
	const struct snapshot *s = &f->snapshot;
	const struct blk_driver *d = &f->load.driver;

	if (f->args.json)
		print_json(json_pack("{s:I, s:I, s:I, s:I, s:I, s:I}", "verified_bytes", (json_int_t)f->load.verified,
				     "offered_bytes", (json_int_t)s->next, "in_flight", (json_int_t)d->in_flight,
				     "blob_bytes", (json_int_t)f->blob_len, "memory_bytes", (json_int_t)s->ram_bytes,
				     "address", (json_int_t)s->address));
	else
		printf("%" PRIu64 " bytes written and verified, %" PRIu64 " requests in the rings that nobody took; "
		       "%s: %zu bytes, %s.guest: %" PRIu64 " bytes of memory, which was at %#" PRIx64 "\n",
		       f->load.verified, d->in_flight, f->args.file, f->blob_len, f->args.file, s->ram_bytes,
		       s->address);
}

static int run(int argc, char **argv)
{
	static const struct argp_child children[] = {{&blk_argp, 0, NULL, 0}, {0}};
	static const struct argp argp = {
		options,
		parse,
		"FILE URI",
		"Writes a block device up to --at, verifies it, stops it and writes it to FILE "
		"and its guest's memory to FILE.guest, with requests in the rings that nobody "
		"took; packed rings are empty. vhostctl thaw goes on with both at a fresh "
		"back-end. "
		"The data on the device is lost.",
		children,
		NULL,
		NULL};
	struct freeze f = {.args = {.blk = {BLK_ARGS_DEFAULT}, .at = AT_HALF}, .load = {.verify = true}};
	int rc;

	argp_parse(&argp, argc, argv, 0, NULL, &f.args);
	catch_signals();
	f.load.seed = f.args.blk.seed;
	rc = snapshot_create(&f.files, f.args.file);
	if (!rc) {
		rc = blk_driver_open(&f.load.driver, &f.args.blk.driver) || work(&f);
		if (!rc)
			report(&f);
		blk_driver_close(&f.load.driver);
	}
	snapshot_abandon(&f.files);
	free(f.blob);
	return rc;
}

const struct command freeze_command = {"freeze", "write a block device and its guest to a file", run};
