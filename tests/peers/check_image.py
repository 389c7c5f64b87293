#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
"""Checks an image that vhostctl blk-test wrote, without libvhost: every 512-byte sector must be the SplitMix64 stream of (seed, sector).

Usage: check_image.py IMAGE SEED BYTES
"""
import sys

import numpy

GAMMA = numpy.uint64(0x9E3779B97F4A7C15)
CHUNK = 1 << 20


def pattern(seed, first_word, words):
    n = numpy.arange(first_word + 1, first_word + words + 1, dtype=numpy.uint64)
    z = numpy.uint64(seed) + n * GAMMA
    z = (z ^ (z >> numpy.uint64(30))) * numpy.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> numpy.uint64(27))) * numpy.uint64(0x94D049BB133111EB)
    return (z ^ (z >> numpy.uint64(31))).astype("<u8")


def main():
    image, seed, size = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    assert size % 512 == 0
    with open(image, "rb") as f:
        for at in range(0, size, CHUNK):
            want = pattern(seed, at // 8, min(CHUNK, size - at) // 8).tobytes()
            have = f.read(len(want))
            if have != want:
                bad = next((i for i, (a, b) in enumerate(zip(have, want)) if a != b), len(have))
                print(f"{image}: byte {at + bad} differs")
                return 1
    print(f"{image}: {size} bytes verified")
    return 0


if __name__ == "__main__":
    numpy.seterr(over="ignore")
    sys.exit(main())
