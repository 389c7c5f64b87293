#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
"""The index of hostile cases against the tests: rows.txt names a test for each row or says why there is none, and every
test that carries a row number in its name stands in it."""
import os
import pathlib
import re
import sys

TOP = pathlib.Path(os.environ.get("top_srcdir", pathlib.Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(TOP / "tests/lib"))
import tap

SECTIONS = {"messages of a front-end": range(1, 39),
            "memory of a front-end": range(39, 80),
            "rings that a front-end sets up": range(80, 108),
            "configuration, log, inflight and channel of a back-end": range(108, 144),
            "a front-end attacked by its back-end": range(144, 188),
            "a ring attacked by the guest": range(188, 220),
            "a sandbox attacked by its worker": range(281, 301)}
TEST = re.compile(r"^TEST\((\w+),\s*(\w+)\)", re.M)
NUMBER = re.compile(r"(?:^|_)[rR](\d{3})(?=_|$)")
SCRIPT = re.compile(r"^# Hostile cases?: (.*)$", re.M)


def tests():
    """All tests by "suite/name", with the row numbers in the name, and the scripts that say which rows they are about."""
    found = {}
    for path in sorted(TOP.glob("tests/*/*.sh")):
        for numbers in SCRIPT.findall(path.read_text()):
            found[f"{path.parent.name}/{path.name}"] = {int(number) for number in re.findall(r"R(\d{3})", numbers)}
    for path in sorted(TOP.glob("tests/*/*.c")):
        for suite, name in TEST.findall(path.read_text()):
            found[f"{suite}/{name}"] = {int(number) for number in NUMBER.findall(name)}
    return found


def rows():
    """The entries of rows.txt as (row, text, test)."""
    row = text = None
    for line in (TOP / "tests/hostile/rows.txt").read_text().splitlines():
        if line.startswith("R"):
            row, text = line.split(maxsplit=1)
            row = int(row.removeprefix("R"))
        elif line.startswith(" "):
            yield row, text, line.strip()


def main():
    found, listed = tests(), list(rows())
    reasons = [entry for entry in listed if entry[2].startswith("(")]
    listed = [entry for entry in listed if entry not in reasons]
    for row, text, test in listed:
        tap.check(f"R{row:03} {text}: {test}", row in found.get(test, ()), "no test of that name")
    pairs = {(row, test) for row, _, test in listed}
    for title, section in SECTIONS.items():
        missing = [f"R{row:03} {test}" for test, numbers in found.items() for row in numbers
                   if row in section and (row, test) not in pairs]
        tap.check(f"rows.txt lists every test about {title}", not missing, missing)
        covered = sorted({row for row, _, _ in listed if row in section})
        print(f"# {title}: {len(covered)} rows covered: {' '.join(f'R{row:03}' for row in covered)}")
        for row, text, reason in reasons:
            if row in section:
                print(f"# {title}: R{row:03} {text}: {reason.strip('()')}")
    tap.finish()


main()
