#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
"""vhostctl with a back-end that dies or falls silent at each message in turn: it ends in time, with one line on standard
error and exit status 1."""
import os
import pathlib
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(os.environ["top_srcdir"]) / "tests/lib"))
import tap

BUILD = pathlib.Path(os.environ["top_builddir"])
VHOSTCTL, PEER = BUILD / "tools/vhostctl/vhostctl", BUILD / "tests/hostile/peer"
TIMEOUT_MS = 250
SLACK_S = 3  # of a busy machine
MOST_MESSAGES = 100
COMMANDS = {
    "probe": ("probe", "--type", "blk", f"--timeout={TIMEOUT_MS}"),
    "blk-test": ("blk-test", "--quiet", "--size=4096", "--queues=2", "--reconnect=0", f"--timeout={TIMEOUT_MS}"),
}


HOW = {
    "before": "dies before each",
    "after": "dies after each",
    "inside": "dies inside its answer to each",
    "silent": "falls silent at each",
}


def meet(folder, command, how, at):
    """Runs one command against one peer. Returns what is wrong with its end, whether it succeeded, messages seen."""
    path = f"{folder}/s"
    peer = subprocess.Popen([PEER, path, how, str(at)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    peer.stdout.readline()
    begin = time.monotonic()
    child = subprocess.Popen([VHOSTCTL, *COMMANDS[command], f"user:{path}"], stdout=subprocess.PIPE,
                             stderr=subprocess.PIPE, text=True)
    try:
        out, err = child.communicate(timeout=20)
    except subprocess.TimeoutExpired:
        child.kill()
        out, err = child.communicate()
        err += "hangs\n"
    took = time.monotonic() - begin
    messages = int(peer.communicate()[0])
    wrong = []
    if child.returncode:
        if child.returncode != 1:
            wrong.append(f"status {child.returncode}")
        if out:
            wrong.append(f"standard output: {out}")
        if err.count("\n") != 1 or not err.startswith("vhostctl: "):
            wrong.append(f"not one line on standard error: {err}")
        if took > 2 * TIMEOUT_MS / 1000 + SLACK_S:
            wrong.append(f"took {took:.1f} s")
    return wrong, child.returncode == 0, messages


def sweep(folder, command, how):
    """A fault at message 0, 1, … until the command is over before it happens."""
    wrong, at = [], 0
    while at < MOST_MESSAGES:
        bad, good, messages = meet(folder, command, how, at)
        if messages <= at:  # blk-test still waits in vain: the peer answers messages and serves no ring
            wrong += [f"message {at}, which never came: {line}" for line in bad]
            break
        # the last answer may be all that it wanted
        if good and not (how == "after" and meet(folder, command, how, at + 1)[2] == at + 1):
            bad.append("success")
        wrong += [f"message {at}: {line}" for line in bad]
        at += 1
    if not 6 < at < MOST_MESSAGES:
        wrong.append(f"{at} messages")
    tap.check(f"{command}: a back-end that {HOW[how]} of {at} messages", not wrong, wrong)


def main():
    with tempfile.TemporaryDirectory(prefix="libvhost-test.") as folder:
        for command in COMMANDS:
            for how in HOW:
                sweep(folder, command, how)
    tap.finish()


main()
