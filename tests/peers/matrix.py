#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
"""What peers and libvhost say to each other, as tests/peers/matrix records it.

Usage: matrix.py doc [--check]            docs/peers.md, made of the table
       matrix.py version PEER TEXT        whether the table is about this version
       matrix.py said PEER RECORD...      whether what record_shim.so wrote down is what the table says
"""
import importlib.machinery
import importlib.util
import pathlib
import re
import struct
import sys

TOP = pathlib.Path(__file__).resolve().parents[2]
TABLE = TOP / "tests/peers/matrix"
DOC = TOP / "docs/peers.md"
VERSION, REPLY, NEED_REPLY = 0x3, 0x4, 0x8


def messages():
    """({number: operation} of front-end requests, of back-end requests), from the one table of operations."""
    loader = importlib.machinery.SourceFileLoader("gen_ops", str(TOP / "scripts/gen-ops"))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("gen_ops", loader))
    sys.dont_write_bytecode = True
    loader.exec_module(module)
    ours, theirs = {}, {}
    for op in module.operations():
        if op["user"].isdigit() and int(op["user"]):
            (theirs if int(op["number"]) in range(65, 128) else ours)[int(op["user"])] = op
    return ours, theirs


def all_names():
    return [op["name"] for side in messages() for op in side.values()]


def parse_outcome(word):
    """"X" -> taken, "X!" -> refused, "X=8" -> answered with 8 bytes."""
    name, sign, size = re.fullmatch(r"(\w+)([!=]?)(\d*)", word).groups()
    return name, {"": "yes", "!": "refused", "=": f"{size} bytes"}[sign]


def write_outcome(name, outcome):
    return name + {"yes": "", "refused": "!"}.get(outcome, "=" + outcome.split()[0])


def read_table():
    """{peer: {"name", "version", "from", "role" (may be absent), "works": [], "quirk": [(text, test)], "says": {message: outcome}}}"""
    peers, peer = {}, None
    for line in TABLE.read_text().splitlines():
        key, _, rest = line.strip().partition(" ")
        if not key or key.startswith("#"):
            continue
        cells = [cell.strip() for cell in rest.split("|")]
        if key == "peer":
            peer = peers[cells[0]] = dict(zip(("name", "version", "from", "role"), cells[1:]), works=[], quirk=[], says={})
        elif key == "works":
            peer["works"].append(rest.strip())
        elif key == "quirk":
            peer["quirk"].append(tuple(cells))
        elif key == "says":
            peer["says"].update(parse_outcome(word) for word in rest.split())
        else:
            sys.exit(f"{TABLE}: unknown word {key}")
    return peers


class Stream:
    """One direction of a connection, cut into messages."""

    def __init__(self):
        self.bytes = b""

    def feed(self, data):
        self.bytes += data
        while len(self.bytes) >= 12:
            number, flags, size = struct.unpack_from("<III", self.bytes)
            if flags & VERSION != 1 or size > 1 << 16:
                raise ValueError(f"not vhost-user: {self.bytes[:12].hex()}")
            if len(self.bytes) < 12 + size:
                return
            yield number, flags, self.bytes[12:12 + size]
            self.bytes = self.bytes[12 + size:]


class Connection:
    def __init__(self, operations):
        self.ours, self.theirs = operations
        self.streams = {">": Stream(), "<": Stream()}
        self.asked = []  # requests since the last answer
        self.asked_us = []  # where in said the answer to a back-end's request belongs
        self.said = []  # (name, outcome)

    def feed(self, direction, data):
        for number, flags, payload in self.streams[direction].feed(data):
            if direction == ">" and not flags & REPLY:
                self.asked.append((number, flags))
            elif direction == "<" and flags & REPLY:
                self.answer(number, payload)
            elif direction == "<":
                if flags & NEED_REPLY or self.theirs[number]["reply"] != "ACK":
                    self.asked_us.append(len(self.said))
                self.said.append((self.theirs[number]["name"], "yes"))
            elif self.asked_us:
                at = self.asked_us.pop(0)
                self.said[at] = (self.said[at][0], "refused" if any(payload) else "yes")

    def answer(self, number, payload):
        """An answer speaks for everything before it: a request that a back-end cannot take ends the connection."""
        while self.asked:
            asked, flags = self.asked.pop(0)
            self.said.append((self.ours[asked]["name"], self.outcome(number, flags, payload) if asked == number else "yes"))
            if asked == number:
                return

    def outcome(self, number, flags, payload):
        """How big the answer to SET_LOG_BASE is, the specification leaves open."""
        reply = self.ours[number]["reply"]
        if reply == "LOG":
            return f"{len(payload)} bytes"
        refused = flags & NEED_REPLY and any(payload) if reply == "ACK" else not payload and reply in ("OWN_CONFIG", "OWN_INFLIGHT")
        return "refused" if refused else "yes"


def said(records, front_end=False):
    """{message: outcome} in a record; one that was taken once is taken. What a front-end says, our back-end hears."""
    operations, outcomes = messages(), {}
    seen_from_there = {">": "<", "<": ">"} if front_end else {">": ">", "<": "<"}
    for record in records:
        open_now, all_of_it = {}, []
        for line in pathlib.Path(record).read_text().splitlines():
            direction, fd, *data = line.split()
            if direction == "x":
                open_now.pop(fd, None)
                continue
            if fd not in open_now:
                open_now[fd] = Connection(operations)
                all_of_it.append(open_now[fd])
            open_now[fd].feed(seen_from_there[direction], bytes.fromhex(data[0]))
        for connection in all_of_it:
            for name, outcome in connection.said:
                if outcomes.get(name, "refused") == "refused":
                    outcomes[name] = outcome
    return outcomes


def check_said(peer, records):
    entry = read_table()[peer]
    have, want = said(records, entry.get("role") == "front-end"), entry["says"]
    wrong = [f"expected and not seen: {name}" for name in want if name not in have]
    wrong += [f"seen and not in the table: {name}" for name in have if name not in want]
    wrong += [f"{name}: the table says {want[name]}, now {have[name]}" for name in want if have.get(name, want[name]) != want[name]]
    if wrong:
        wrong.append("says " + " ".join(write_outcome(name, have[name]) for name in all_names() if name in have))
    return wrong


def doc():
    peers = read_table()
    used = [name for name in all_names() if any(name in peer["says"] for peer in peers.values())]
    lines = ["<!-- SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause -->",
             "<!-- Made by tests/peers/matrix.py from tests/peers/matrix; do not edit. -->", "# Peers", "",
             "Back-ends and front-ends that libvhost's tests start, unmodified, on every run of the tiers `peers` and `guest`: what works, what is odd, and "
             "which messages were exchanged. The tier fails when a message of the table is not seen, or one that is not in it.",
             ""]
    for peer in peers.values():
        lines += [f"## {peer['name']} {peer['version']}", "", f"From {peer['from']}.", ""]
        lines += [f"- {text}" for text in peer["works"]]
        if peer["quirk"]:
            lines += ["", "| quirk | pinned by |", "|---|---|"]
            lines += [f"| {text} | `{test}` |" for text, test in peer["quirk"]]
        lines.append("")
    lines += ["## Messages", "", "✓ taken; *refused*: answered with an error, the device goes on; – not exchanged; bytes: how long the answer to "
              "SET_LOG_BASE is. BACKEND_…: what the back-end asked us, and our answer. "
              + ", ".join(p["name"] for p in peers.values() if "role" in p) + ": front-ends, which ask, and our back-end answers.", "",
              "| message |" + "".join(f" {p['name']} {p['version']} |" for p in peers.values()), "|---" * (len(peers) + 1) + "|"]
    cell = {"yes": "✓", "refused": "*refused*", "absent": "–"}
    for name in used:
        lines.append(f"| {name} |" + "".join(f" {cell.get(o, o)} |" for o in (p["says"].get(name, "absent") for p in peers.values())))
    return "\n".join(lines) + "\n"


def main(words):
    if words[:1] == ["doc"]:
        if words[1:] != ["--check"]:
            DOC.write_text(doc())
            return 0
        wrong = [] if DOC.exists() and DOC.read_text() == doc() else [f"{DOC} is not what {TABLE} says; run {__file__} doc"]
        wrong += [f"{test}: no such test" for p in read_table().values() for _, test in p["quirk"] if not (TOP / test).exists()]
    elif words[:1] == ["version"] and len(words) == 3:
        want = read_table()[words[1]]["version"]
        good = re.search(rf"\b{re.escape(want)}\b", words[2])
        wrong = [] if good else [f"the table is about {want}, here is {words[2]}"]
    elif words[:1] == ["said"] and len(words) > 2:
        wrong = check_said(words[1], words[2:])
    else:
        sys.exit(__doc__)
    if wrong:
        print("\n".join(wrong))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
