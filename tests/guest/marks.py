#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
"""How many requests are marked as taken in the inflight region that QEMU keeps. Usage: marks.py PID split|packed QUEUES"""
import os
import sys

ENTRY = HEADER = {"split": 16, "packed": 32}  # bytes; the mark is an entry's first byte (vhost-user, "Inflight I/O tracking")


def main(pid, form, queues):
    folder = f"/proc/{pid}/fd"
    for fd in os.listdir(folder):
        if os.readlink(f"{folder}/{fd}").startswith("/memfd:vhost-inflight"):
            with open(f"{folder}/{fd}", "rb") as file:
                region = file.read()
            part = len(region) // int(queues)
            parts = [region[at + HEADER[form]:at + part] for at in range(0, part * int(queues), part)]
            print(sum(entries[i] for entries in parts for i in range(0, len(entries), ENTRY[form])))
            return 0
    print("QEMU has no inflight region", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
