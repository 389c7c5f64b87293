/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* The options that say what a load on a block device is. */
#ifndef VHOSTCTL_BLK_ARGS_H
#define VHOSTCTL_BLK_ARGS_H

#include <argp.h>

#include "blk_driver.h"

struct blk_args {
	struct blk_driver_opts driver; /* the URI, and whatever only one subcommand asks for, is the subcommand's */
	uint64_t size, seed;
};

#define BLK_ARGS_DEFAULT                                                                                               \
	.driver = {.queues = 1, .depth = 32, .block_bytes = 4096, .timeout_ms = 10000}, .size = 64 << 20, .seed = 1

/* A child of the subcommand's parser; its input is a struct blk_args. */
extern const struct argp blk_argp;

#endif
