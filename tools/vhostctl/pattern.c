/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
#include "pattern.h"

#include <endian.h>
#include <string.h>

#define WORDS (SECTOR / sizeof(uint64_t))
#define GAMMA 0x9E3779B97F4A7C15ull

static uint64_t mix64(uint64_t z)
{
	z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
	z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
	return z ^ (z >> 31);
}

/* The words of consecutive sectors continue one stream: 64 s + j counts them, because a sector has 64 words. */
static uint64_t word(uint64_t seed, uint64_t first_sector, size_t n)
{
	return htole64(mix64(seed + (WORDS * first_sector + n + 1) * GAMMA));
}

void pattern_fill(void *buf, size_t bytes, uint64_t first_sector, uint64_t seed)
{
	uint64_t *out = buf;

	for (size_t n = 0; n < bytes / sizeof(*out); n++)
		out[n] = word(seed, first_sector, n);
}

bool pattern_check(const void *buf, size_t bytes, uint64_t first_sector, uint64_t seed, size_t *bad)
{
	const uint64_t *in = buf;

	for (size_t n = 0; n < bytes / sizeof(*in); n++) {
		if (in[n] != word(seed, first_sector, n)) {
			*bad = n * sizeof(*in);
			return false;
		}
	}
	return true;
}
