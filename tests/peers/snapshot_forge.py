#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
"""Usage: snapshot_forge.py FROM TO flip BYTE | cut BYTES | type VIRTIO-ID

Damages a file, or (type) writes a blob of docs/freeze.md with a right checksum as if it came from another device.
"""
import struct
import sys

CRC_AT, HEADER, RECORD = 36, 40, 2


def crc32c(data):
    crc = 0xffffffff
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82f63b78 if crc & 1 else 0)
    return crc ^ 0xffffffff


def set_type(blob, virtio_id):
    at = HEADER
    while True:
        kind, _, length = struct.unpack_from("<IIQ", blob, at)
        if kind == RECORD:
            break
        at += 16 + (length + 7) // 8 * 8
    struct.pack_into("<I", blob, at + 16, virtio_id)
    struct.pack_into("<I", blob, CRC_AT, 0)
    struct.pack_into("<I", blob, CRC_AT, crc32c(blob))


def main(source, target, what, number):
    with open(source, "rb") as file:
        data = bytearray(file.read())
    if what == "flip":
        data[int(number)] ^= 0x10
    elif what == "cut":
        del data[int(number):]
    elif what == "type":
        set_type(data, int(number))
    else:
        sys.exit(__doc__)
    with open(target, "wb") as file:
        file.write(data)


main(*sys.argv[1:])
