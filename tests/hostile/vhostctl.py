#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
"""vhostctl with a back-end that dies or falls silent at each message in turn: it ends in time, with one line on standard
error and exit status 1. And its own fault injection: each request of a device's life fails once."""
import ctypes
import json
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
TIMEOUT_MS = 500
SLACK_S = 4  # of a busy machine; a forgotten deadline would be the usual 5 s
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
        out, err = child.communicate(timeout=60)
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


FAULTS = {  # what it does to a request, and the states in which a device may be found then
    "refuse": {"none", "negotiated", "lost"},
    "drop": {"none", "negotiated", "lost"},
    "kill": {"none", "disconnected"},
    "ENOMEM": {"none", "negotiated", "running"},
}


def blk_test(path, *args):
    return subprocess.run([VHOSTCTL, "blk-test", "--quiet", f"--timeout={TIMEOUT_MS}", *args, f"user:{path}"],
                          capture_output=True, text=True, timeout=200, check=False)


def fail_each(path, how):
    """--fail-nth all: every request of a life fails in its turn, is reported, and the device comes back."""
    begin = time.monotonic()
    child = blk_test(path, "--json", f"--fail-nth=all:{how}")
    rows = json.loads(child.stdout) if child.returncode == 0 else []
    took = time.monotonic() - begin
    wrong = [] if rows else [f"status {child.returncode}: {child.stderr}"]
    for number, row in enumerate(rows, 1):
        device = row["state"] != "none"
        if (row["n"] != number or row["result"] == "ok" or row["state"] not in FAULTS[how]
                or row["recovered"] != ("same device" if device else "new device")):
            wrong.append(row)
    seen = {row["request"].split()[0] for row in rows}
    wrong += [f"{name} was never hit" for name in ("GET_FEATURES", "GET_CONFIG", "SET_VRING_ADDR", "GET_VRING_BASE")
              if name not in seen]
    print(f"# {len(rows)} requests, {took:.1f} s")
    tap.check(f"blk-test --fail-nth all:{how}", not wrong, map(str, wrong))


def fail_one(path):
    child = blk_test(path, "--size=4096", "--fail-nth=3:drop")
    wrong = child.returncode != 1 or child.stdout or child.stderr.count("\n") != 1
    tap.check("blk-test --fail-nth 3:drop ends with one line", not wrong, repr(child))
    child = blk_test(path, "--size=4096", "--fail-nth=1000")
    tap.check("blk-test --fail-nth beyond the last request succeeds", child.returncode == 0, repr(child))
    for text in ("0", "x", "3:never", "all:"):
        child = blk_test(path, f"--fail-nth={text}")
        tap.check(f"blk-test --fail-nth {text} is refused", child.returncode == 1 and "fail-nth" in child.stderr, repr(child))


def faults(folder):
    path = f"{folder}/serve"
    ready = time.monotonic() + 60
    with subprocess.Popen([VHOSTCTL, "serve", "blk", "--ram=1M", f"--socket={path}", "--quiet"]) as serve:
        while not os.path.exists(path) and time.monotonic() < ready:
            time.sleep(0.01)
        for how in FAULTS:
            fail_each(path, how)
        fail_one(path)
        serve.terminate()


PTRACE_SEIZE, PTRACE_INTERRUPT = 0x4206, 0x4207
__WALL = 0x40000000


def freeze(pid, name):
    """Stops the process's one thread of that name, as a disk does that does not answer. Returns the thread."""
    libc = ctypes.CDLL(None, use_errno=True)
    thread, = (int(task.name) for task in pathlib.Path(f"/proc/{pid}/task").iterdir()
               if (task / "comm").read_text().strip() == name)
    for request in (PTRACE_SEIZE, PTRACE_INTERRUPT):
        if libc.ptrace(request, thread, None, None) < 0:
            raise OSError(ctypes.get_errno(), "ptrace")
    os.waitpid(thread, __WALL)
    return thread


def has_ended(thread):
    """Whether it has within a minute; who traces a thread has to ask."""
    end = time.monotonic() + 60
    while os.waitpid(thread, __WALL | os.WNOHANG)[0] == 0:
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True


def stuck(folder):
    serve = subprocess.Popen([VHOSTCTL, "serve", "blk", "--ram=1M", f"--socket={folder}/stuck"], stdout=subprocess.PIPE,
                             stderr=subprocess.PIPE, text=True)
    serve.stdout.readline()  # it serves
    thread = freeze(serve.pid, "vhostctl-blk")
    serve.terminate()
    ended = has_ended(thread)
    if not ended:
        serve.kill()
        has_ended(thread)
    err = serve.communicate()[1]
    good = ended and serve.returncode == 1 and err.startswith("vhostctl: stop: ") and err.count("\n") == 1
    tap.check("serve, told to end while its worker is stuck, says so and ends", good, [f"status {serve.returncode}", err])


def main():
    with tempfile.TemporaryDirectory(prefix="libvhost-test.") as folder:
        for command in COMMANDS:
            for how in HOW:
                sweep(folder, command, how)
        faults(folder)
        stuck(folder)
    tap.finish()


main()
