#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
"""Talks to QEMU's machine protocol. Usage: qmp.py SOCKET COMMAND [JSON-ARGUMENTS]; prints what the command returns."""
import json
import socket
import sys


def main(path, command, arguments="{}"):
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(60)
        sock.connect(path)
        lines = sock.makefile("rw")
        for request in ({"execute": "qmp_capabilities"}, {"execute": command, "arguments": json.loads(arguments)}):
            lines.write(json.dumps(request) + "\n")
            lines.flush()
            answer = {}
            while "return" not in answer and "error" not in answer:  # greetings and events come in between
                answer = json.loads(lines.readline() or '{"error": "QEMU hung up"}')
            if "error" in answer:
                print(f"{command}: {answer['error']}", file=sys.stderr)
                return 1
    print(json.dumps(answer["return"]))
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
