/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
#include "blk_args.h"

#include "cli.h"
#include "pattern.h"

enum { OPT_BLOCK = 2000, OPT_PACKED }; /* apart from those of the parents */

static const struct argp_option options[] = {
	{"size", 's', "BYTES", 0, "bytes to write and read back (default 64M)", 0},
	{"queues", 'q', "N", 0, "virtqueues (default 1)", 0},
	{"depth", 'd', "N", 0, "requests in flight per queue, 1..256 (default 32)", 0},
	{"block", OPT_BLOCK, "BYTES", 0, "bytes of one request, multiple of 512 (default 4096)", 0},
	{"seed", 'S', "N", 0, "seed of the pattern (default 1)", 0},
	{"packed", OPT_PACKED, NULL, 0, "packed rings instead of split ones", 0},
	{"timeout", 'T', "MS", 0, "give up after so long without progress (default 10000)", 0},
	{0},
};

static error_t parse(int key, char *arg, struct argp_state *state)
{
	struct blk_args *a = state->input;

	switch (key) {
	case 's':
		a->size = parse_number(state, "--size", arg, SECTOR, 1ull << 50);
		return 0;
	case 'q':
		a->driver.queues = (uint32_t)parse_number(state, "--queues", arg, 1, LIBVHOST_MAX_QUEUES);
		return 0;
	case 'd':
		a->driver.depth = (uint32_t)parse_number(state, "--depth", arg, 1, 256);
		return 0;
	case OPT_BLOCK:
		a->driver.block_bytes = (uint32_t)parse_number(state, "--block", arg, SECTOR, 1 << 20);
		return 0;
	case 'S':
		a->seed = parse_number(state, "--seed", arg, 0, UINT64_MAX);
		return 0;
	case OPT_PACKED:
		a->driver.packed = true;
		return 0;
	case 'T':
		a->driver.timeout_ms = (uint32_t)parse_number(state, "--timeout", arg, 1, 3600000);
		return 0;
	case ARGP_KEY_END:
		if (a->size % SECTOR || a->driver.block_bytes % SECTOR)
			argp_failure(state, 1, 0, "--size and --block must be multiples of %u bytes", SECTOR);
		return 0;
	default:
		return ARGP_ERR_UNKNOWN;
	}
}

const struct argp blk_argp = {options, parse, NULL, NULL, NULL, NULL, NULL};
