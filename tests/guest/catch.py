#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
"""Stops a back-end at a moment when requests are marked as taken in the inflight region that QEMU keeps, and says how many.
The back-end is let go and stopped again until there are some, for two minutes: a guest without KVM leaves its disk idle
most of the time.

Usage: catch.py QEMU-PID BACKEND-PID split|packed QUEUES"""
import os
import random
import signal
import sys
import time

ENTRY = HEADER = {"split": 16, "packed": 32}  # bytes; the mark is an entry's first byte (vhost-user, "Inflight I/O tracking")
PATIENCE = 120  # seconds


def stop(pid):
    """The signal is sent; a thread stops when it next leaves the kernel."""
    os.kill(pid, signal.SIGSTOP)
    for task in os.listdir(f"/proc/{pid}/task"):
        while True:
            try:
                with open(f"/proc/{pid}/task/{task}/stat", encoding="ascii") as file:
                    state = file.read().rpartition(")")[2].split()[0]
            except (FileNotFoundError, ProcessLookupError):  # the kernel's threads for io_uring come and go
                break
            if state in "ZX" and int(task) == pid:
                sys.exit("the back-end is dead")
            if state in "TZX":
                break


def region(pid):
    folder = f"/proc/{pid}/fd"
    for fd in os.listdir(folder):
        if os.readlink(f"{folder}/{fd}").startswith("/memfd:vhost-inflight"):
            with open(f"{folder}/{fd}", "rb") as file:
                return file.read()
    sys.exit("QEMU has no inflight region")


def marks(content, form, queues):
    part = len(content) // queues
    parts = [content[at + HEADER[form]:at + part] for at in range(0, part * queues, part)]
    return sum(entries[i] for entries in parts for i in range(0, len(entries), ENTRY[form]))


def main(qemu, backend, form, queues):
    tries = 0
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        tries += 1
        stop(int(backend))
        caught = marks(region(int(qemu)), form, int(queues))
        if caught:
            print(caught, tries)
            return 0
        os.kill(int(backend), signal.SIGCONT)
        time.sleep(random.uniform(0.0005, 0.005))
    print(f"no request in flight at {tries} looks", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
