/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/*
 * The test pattern: sector s holds the SplitMix64 stream of (seed, s): little-endian 64-bit word j is
 * mix64(seed + (64 s + j + 1) * 0x9E3779B97F4A7C15), so that anyone can check an image without this program.
 */
#ifndef VHOSTCTL_PATTERN_H
#define VHOSTCTL_PATTERN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SECTOR 512u

void pattern_fill(void *buf, size_t bytes, uint64_t first_sector, uint64_t seed);
/* True when equal; otherwise *bad is the offset of the first wrong 64-bit word. */
bool pattern_check(const void *buf, size_t bytes, uint64_t first_sector, uint64_t seed, size_t *bad);

#endif
