#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
"""wire.py PAIRS COMMAND... runs a network device whose wires are sockets that send every frame back.

"@" in COMMAND becomes the numbers of the device's ends, as --fd wants them. Ends with the device. A full socket is
waited for: unlike a network, this wire loses nothing that it was given.
"""
import os
import selectors
import signal
import socket
import subprocess
import sys

pairs = [socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET) for _ in range(int(sys.argv[1]))]
for ends in pairs:
    for end in ends:  # room for what the guest sends while we look away
        for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
            end.setsockopt(socket.SOL_SOCKET, option, 4 << 20)
theirs = [ends[0].fileno() for ends in pairs]
numbers = ",".join(map(str, theirs))
device = subprocess.Popen([numbers if word == "@" else word for word in sys.argv[2:]], pass_fds=theirs)
signal.signal(signal.SIGTERM, lambda *_: device.terminate())
waiting = selectors.DefaultSelector()
for ends in pairs:
    ends[0].close()
    waiting.register(ends[1], selectors.EVENT_READ)
open_wires = len(pairs)
while open_wires:
    for key, _ in waiting.select():
        frame = key.fileobj.recv(65536)
        if frame:
            key.fileobj.send(frame)
        else:
            waiting.unregister(key.fileobj)
            open_wires -= 1
sys.exit(os.waitstatus_to_exitcode(os.waitpid(device.pid, 0)[1]) if device.poll() is None else device.returncode)
