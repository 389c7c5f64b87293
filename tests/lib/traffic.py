#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
"""traffic.py [--deaths N] GO PAIRS FRAMES COMMAND... runs a network device and is everybody on the other side of its wires.

"@" in COMMAND becomes the numbers of the device's ends, as --fd wants them. FRAMES numbered frames, of every length and
each with its own content, go in over all pairs. Each has to come back once, on the pair it went in, with its addresses
swapped and the rest as it was. Begins when the file GO exists: what arrives while a guest starts may be lost on it. Ends
the device; prints "sent N back N in S s".

With --deaths the device is killed N times, in even parts of the traffic, and started anew. What was on the way then may
be lost, and is sent again when nothing else comes; or it may come twice. How much of both is printed: "lost N twice N".
"""
import os
import random
import selectors
import socket
import struct
import subprocess
import sys
import time

WINDOW = 96  # frames on the way for each pair: less than a ring, so that nobody has a reason to drop one
DEADLINE = 60  # seconds without a frame after which something is broken
QUIET = 0.3  # seconds without a frame after which what was on the way at a death is lost
THERE, HERE = bytes.fromhex("525400123456"), bytes.fromhex("52540065432a")
LOCAL_EXPERIMENTAL = b"\x88\xb5"
NOISE = random.Random(1).randbytes(4096)


def frame(number, to, sender):
    length = 60 + number * 31 % 1455
    head = to + sender + LOCAL_EXPERIMENTAL + struct.pack(">Q", number)
    at = number * 7919 % 2048
    return head + NOISE[at:at + length - len(head)]


def fail(text):
    sys.exit(f"traffic: {text}")


class Pair:
    """One wire: its two ends, and the numbers of the frames on the way."""

    def __init__(self, first, step):
        self.ours, self.theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        for end in (self.ours, self.theirs):
            for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
                end.setsockopt(socket.SOL_SOCKET, option, 4 << 20)
        self.next, self.step = first, step
        self.away = set()
        self.doubtful = set()  # on the way at a death
        self.lost = self.twice = 0

    def fill(self, total):
        while len(self.away) < WINDOW and self.next < total:
            self.ours.send(frame(self.next, THERE, HERE))
            self.away.add(self.next)
            self.next += self.step

    def doubt(self):
        self.doubtful |= self.away

    def send_again(self):
        for number in sorted(self.away & self.doubtful):
            self.ours.send(frame(number, THERE, HERE))
            self.lost += 1

    def take(self):
        """Everything that is back."""
        came = 0
        while True:
            try:
                have = self.ours.recv(65536, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return came
            number = struct.unpack_from(">Q", have, 14)[0] if len(have) >= 22 else -1
            if number not in self.away | self.doubtful:
                fail(f"frame {number} came back twice, on another pair or from nowhere")
            if have != frame(number, HERE, THERE):
                fail(f"frame {number} has changed on its way")
            if number in self.away:
                self.away.remove(number)
                came += 1
            else:
                self.twice += 1


class Device:
    """What COMMAND runs, killed in even parts of the traffic and started anew."""

    def __init__(self, words, fds, parts):
        self.words, self.fds = words, fds
        self.deaths = parts  # numbers of frames
        self.start()

    def start(self):
        self.process = subprocess.Popen(self.words, pass_fds=self.fds)

    def check(self):
        if self.process.poll() is not None:
            fail(f"the device ended by itself: {self.process.returncode}")

    def may_die(self, pairs, back):
        if not self.deaths or back < self.deaths[0]:
            return
        self.deaths.pop(0)
        self.process.kill()
        self.process.wait()
        for pair in pairs:
            pair.doubt()
        self.start()

    def end(self):
        self.process.terminate()
        return self.process.wait()


def wait_for(path, device):
    end = time.monotonic() + DEADLINE
    while not os.path.exists(path):
        device.check()
        if time.monotonic() > end:
            fail(f"there was no {path} in {DEADLINE} s")
        time.sleep(0.01)


def run(go, pairs, total, device):
    """How many seconds it took."""
    waiting = selectors.DefaultSelector()
    for pair in pairs:
        waiting.register(pair.ours, selectors.EVENT_READ, pair)
    wait_for(go, device)
    back, first = 0, time.monotonic()
    last = again = first
    while back < total:
        for pair in pairs:
            pair.fill(total)
        came = sum(key.data.take() for key, _ in waiting.select(0.1))
        back += came
        now = time.monotonic()
        if came:
            last = again = now
        device.check()
        device.may_die(pairs, back)
        if now - last > DEADLINE:
            fail(f"{back} of {total} frames came back, none for {DEADLINE} s")
        if now - again > QUIET:
            again = now
            for pair in pairs:
                pair.send_again()
    if waiting.select(0.1) and sum(key.data.take() for key, _ in waiting.select(0)):
        fail("frames that nobody sent came after all were back")
    return last - first


def main(words):
    deaths = 0
    if words[0] == "--deaths":
        deaths, words = int(words[1]), words[2:]
    go, count, total, command = words[0], int(words[1]), int(words[2]), words[3:]
    pairs = [Pair(i, count) for i in range(count)]
    numbers = [pair.theirs.fileno() for pair in pairs]
    words = [",".join(map(str, numbers)) if word == "@" else word for word in command]
    device = Device(words, numbers, [total * i // (deaths + 1) for i in range(1, deaths + 1)])
    try:
        seconds = run(go, pairs, total, device)
    finally:
        status = device.end()
    if status:
        fail(f"the device ended with {status}")
    print(f"sent {total} back {total} in {seconds:.2f} s")
    if deaths:
        print("lost", sum(pair.lost for pair in pairs), "twice", sum(pair.twice for pair in pairs))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
