#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
"""The layout of every public struct: equal to the recorded one, without holes, and the same for 32-bit programs.

Usage: layout.py [--write]   compare with abi/MACHINE/layout.txt, or write it (make update-abi).
"""
import os
import pathlib
import re
import subprocess
import sys
import tempfile

TOP = pathlib.Path(os.environ.get("top_srcdir", "."))
BUILD = pathlib.Path(os.environ.get("top_builddir", "."))
CC = os.environ.get("CC", "gcc").split()
INCLUDES = [f"-I{TOP}/include", f"-I{BUILD}/include"]
sys.path.insert(0, str(TOP / "tests/lib"))
from tap import check, finish  # noqa: E402

STRUCT = re.compile(r"^struct (libvhost_\w+) \{\n(.*?)^\};", re.M | re.S)
FORBIDDEN = re.compile(r"^enum\b|\bbool\b|\blong\b|:\s*\d+$|^(unsigned|signed|int|short|off_t)\b(?!\s*\(\*)")


def members(body, prefix=""):
    """(path, declaration) of each member, depth first."""
    while body := body.strip():
        nested = re.match(r"union \{(.*?)\}\s*(\w+);", body, re.S)
        if nested:
            yield prefix + nested[2], "union"
            yield from members(nested[1], f"{prefix}{nested[2]}.")
            body = body[nested.end():]
            continue
        declaration, _, body = body.partition(";")
        declaration = " ".join(declaration.split())
        name = re.search(r"\(\*(\w+)\)\(", declaration) or re.search(r"(\w+)(\[\w+\])?$", declaration)
        yield prefix + name[1], declaration


def public_structs():
    """name: [(member, declaration)]"""
    found = {}
    for header in sorted((TOP / "include/vhost").glob("*.h")):
        text = re.sub(r"/\*.*?\*/", "", header.read_text(), flags=re.S)
        for name, body in STRUCT.findall(text):
            found[name] = list(members(body))
    return found


def measure(structs):
    """name: (size, alignment, [(member, offset, size)]), as the compiler sees it."""
    lines = ["#include <vhost/libvhost.h>", "#include <stdio.h>", "int main(void) {"]
    for name, rows in structs.items():
        lines.append(f'printf("struct {name} %zu %zu\\n", sizeof(struct {name}), _Alignof(struct {name}));')
        for path, _ in rows:
            lines.append(f'printf("{path} %zu %zu\\n", offsetof(struct {name}, {path}), '
                         f"sizeof(((struct {name} *)0)->{path}));")
    lines.append("}")
    with tempfile.TemporaryDirectory() as folder:
        source = pathlib.Path(folder, "layout.c")
        source.write_text("\n".join(lines))
        subprocess.run([*CC, "-std=gnu11", *INCLUDES, source, "-o", source.with_suffix("")], check=True)
        out = subprocess.run([source.with_suffix("")], check=True, capture_output=True, text=True).stdout
    found = {}
    for line in out.splitlines():
        words = line.split()
        if words[0] == "struct":
            rows = found.setdefault(words[1], (int(words[2]), int(words[3]), []))[2]
        else:
            rows.append((words[0], int(words[1]), int(words[2])))
    return found


def text_of(layouts):
    out = ["# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause",
           "# Layout of the public structs: member, offset, size. Made by make update-abi.", ""]
    for name, (size, alignment, rows) in sorted(layouts.items()):
        out.append(f"struct {name}: size {size}, alignment {alignment}")
        out += [f"\t{offset}\t{length}\t{path}" for path, offset, length in rows]
    return "\n".join(out) + "\n"


def holes(size, rows):
    end = 0
    for path, offset, length in rows:
        if "." in path:
            continue
        if offset != end:
            yield f"{offset - end} bytes in front of {path}"
        end = offset + length
    if end != size:
        yield f"{size - end} bytes at the end"


def other_machine(target, structs, layouts):
    """Structs without pointers must have the same offsets on another machine: they cross process boundaries."""
    flat = [n for n, rows in structs.items()
            if not any("*" in d or "size_t" in d or "_fn " in d or "struct" in d for _, d in rows)]
    lines = ["#include <vhost/libvhost.h>"]
    for name in [*flat, "libvhost_req"]:
        size, _, rows = layouts[name]
        lines.append(f'_Static_assert(sizeof(struct {name}) == {size}, "size of {name}");')
        lines += [f'_Static_assert(offsetof(struct {name}, {p}) == {o}, "{name}.{p}");' for p, o, _ in rows]
    run = subprocess.run(["clang", f"--target={target}", "-ffreestanding", "-std=gnu11", "-fsyntax-only", *INCLUDES,
                          "-x", "c", "-"], input="\n".join(lines), capture_output=True, text=True)
    check(f"{len(flat) + 1} structs without pointers: same layout on {target}",
          run.returncode == 0 and len(flat) > 10, run.stderr)


def main():
    structs = public_structs()
    layouts = measure(structs)
    machine = subprocess.run([*CC, "-dumpmachine"], capture_output=True, text=True, check=True).stdout.strip()
    machine = machine.replace("-pc-", "-")
    record = TOP / "abi" / machine / "layout.txt"
    if "--write" in sys.argv:
        record.parent.mkdir(parents=True, exist_ok=True)
        record.write_text(text_of(layouts))
        return
    for name, rows in structs.items():
        wrong = [d for _, d in rows if FORBIDDEN.search(d)]
        wrong += list(holes(layouts[name][0], layouts[name][2]))
        check(f"struct {name}: fixed-width members, no holes", not wrong, wrong)
    recorded = record.read_text().splitlines() if record.exists() else []
    new = text_of(layouts).splitlines()
    check(f"layouts are those of abi/{machine}/layout.txt", recorded == new,
          [f"recorded, no more: {line}" for line in recorded if line not in new] +
          [f"new: {line}" for line in new if line not in recorded] + ["intended? make update-abi"])
    for target in ("i386-linux-gnu", "armv7-linux-gnueabihf", "s390x-linux-gnu"):
        other_machine(target, structs, layouts)
    finish()


main()
