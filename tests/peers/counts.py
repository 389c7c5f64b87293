#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
"""Counts, from outside with an interposer, what a start, stop and reconnect of a 64-queue device costs on the socket; fails when it grows.

What counts as a call and as a wait stands in count_shim.c.
"""
import os
import pathlib
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.join(os.environ["top_srcdir"], "tests/lib"))
import tap  # noqa: E402

QUEUES = 64
LIMITS = {  # phase: (calls, waits)
    "init": (None, 3),
    "start": (16, 2),
    "stop": (16, 1),
    "restart": (16, 2),
    "reconnect": (24, 2),
}


def daemon(folder, name, queues):
    path = folder / name
    child = subprocess.Popen(
        ["qemu-storage-daemon", "--blockdev", "driver=null-co,node-name=n0,size=1073741824,read-zeroes=off", "--export",
         f"type=vhost-user-blk,id=e0,node-name=n0,addr.type=unix,addr.path={path},writable=on,num-queues={queues}"],
        stderr=subprocess.DEVNULL)
    while not (path.exists() and f" {path}\n" in pathlib.Path("/proc/net/unix").read_text()):
        time.sleep(0.01)
    return child


def count(report):
    """{phase: (calls, waits)}"""
    rows = (line.split() for line in report.read_text().splitlines())
    return {phase: (int(calls), int(waits)) for phase, calls, waits, _ in rows}


def as_ordinary_user(command, limit):
    """The command with a descriptor limit, without privileges when we have them."""
    user = ["setpriv", "--reuid", "65534", "--clear-groups"] if os.getuid() == 0 else []
    return subprocess.run(["prlimit", f"--nofile={limit}:{limit}", *user, *command], capture_output=True, text=True,
                          timeout=120)


def main():
    life = os.path.join(os.environ["top_builddir"], "tests/peers/life")
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        folder.chmod(0o755)
        peer = daemon(folder, "blk.sock", QUEUES)
        report = folder / "counts"
        shim = os.path.join(os.environ["top_builddir"], "tests/peers/.libs/count_shim.so")
        run = subprocess.run([life, f"user:{folder}/blk.sock", str(QUEUES)], capture_output=True, text=True, timeout=120,
                             env=dict(os.environ, LD_PRELOAD=shim, COUNT_SHIM=str(report)))
        peer.kill()
        peer.wait()
        tap.check(f"a device of {QUEUES} queues lives at qemu-storage-daemon", run.returncode == 0, run.stderr)
        phases = count(report) if report.exists() else {}
        for phase, (calls, waits) in LIMITS.items():
            have = phases.get(phase, (0, 0))
            tap.check(f"{phase}: {have[0]} socket calls, {have[1]} waits (limits {calls}, {waits})",
                      have[0] > 0 and (calls is None or have[0] <= calls) and have[1] <= waits)
        total = phases.get("init", (9, 9))[1] + phases.get("start", (9, 9))[1]
        tap.check(f"connect to running: {total} waits (limit 5)", total <= 5)

        peers = [daemon(folder, f"many.{i}", QUEUES) for i in range(8)]
        for path in folder.glob("many.*"):
            path.chmod(0o777)
        enough = as_ordinary_user([life, f"user:{folder}/many", str(QUEUES), "8"], 4096)
        tap.check(f"8 devices of {QUEUES} queues at once, ordinary user, 4096 descriptors", enough.returncode == 0,
                  enough.stderr)
        short = as_ordinary_user([life, f"user:{folder}/many", str(QUEUES), "8"], 1024)
        tap.check("with 1024 descriptors the error is named", short.returncode == 1 and "[descriptor-limit]" in short.stderr,
                  short.stderr)
        for peer in peers:
            peer.kill()
            peer.wait()
    tap.finish()


main()
