#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
"""Headers, version script and built library name the same functions; each function says since when it exists."""
import os
import pathlib
import re
import subprocess
import sys

TOP = pathlib.Path(os.environ.get("top_srcdir", "."))
BUILD = pathlib.Path(os.environ.get("top_builddir", "."))
sys.path.insert(0, str(TOP / "tests/lib"))
from tap import check, finish  # noqa: E402

DECLARATION = re.compile(r"(/\*\*(?:(?!\*/).)*\*/)?\s*^LIBVHOST_API\b[^;{]*?\b(libvhost_\w+)\s*\(", re.M | re.S)


def declared():
    """function: (header, doc comment)"""
    found = {}
    for header in sorted((TOP / "include/vhost").glob("*.h")):
        text = header.read_text()
        for comment, name in DECLARATION.findall(text):
            found[name] = (header.name, " ".join(re.sub(r"^\s*\*", "", comment, flags=re.M).split()))
        assert len(re.findall(r"^LIBVHOST_API\b", text, re.M)) == len(DECLARATION.findall(text)), header
    return found


def mapped():
    """symbol: version node"""
    text = re.sub(r"/\*.*?\*/", "", (TOP / "abi/libvhost.map").read_text(), flags=re.S)
    found = {}
    for node, body in re.findall(r"(\w[\w.]*)\s*\{(.*?)\}", text, re.S):
        for name in re.findall(r"^\s*(\w+);", body, re.M):
            check(f"{name} stands once in the map", name not in found) if name in found else None
            found[name] = node
    return found


def exported():
    """symbol: version node, of the built library"""
    out = subprocess.run(["nm", "-D", "--defined-only", BUILD / ".libs/libvhost.so"], capture_output=True, text=True,
                         check=True).stdout
    symbols = [line.split()[2] for line in out.splitlines() if line.split()[1] != "A"]
    return dict((symbol.partition("@")[0], symbol.rpartition("@")[2]) for symbol in symbols)


def same(text, left, right):
    check(f"{text}: both have the same", left == right and left,
          [f"only in the first: {n}" for n in sorted(left - right)] +
          [f"only in the second: {n}" for n in sorted(right - left)])


headers, script, library = declared(), mapped(), exported()
same("headers and abi/libvhost.map", set(headers), set(script))
same("abi/libvhost.map and libvhost.so", set(script), set(library))
wrong = [f"{n}: {script[n]} in the map, {library[n]} in the library" for n in script.keys() & library.keys()
         if script[n] != library[n]]
check("each symbol has the version of its map node", not wrong, wrong)
names = [line.split("{")[0].strip() for line in (TOP / "abi/libvhost.map").read_text().splitlines()
         if re.match(r"\s*libvhost_\w+;", line)]
check("names in the map are sorted within their nodes",
      all(a < b or script[a.strip("\t;")] != script[b.strip("\t;")] for a, b in zip(names, names[1:])), names)
undocumented = [f"{h}: {n}" for n, (h, doc) in headers.items() if not re.search(r"\bSince \d+\.\d+", doc)]
check("each function has a comment that says since when it exists", not undocumented, undocumented)
wrong = [f"{n}: {script.get(n)}" for n, (_, doc) in headers.items()
         if ("EXPERIMENTAL" in doc) != (script.get(n) == "LIBVHOST_EXPERIMENTAL")]
check("experimental functions say so, and only they stand in LIBVHOST_EXPERIMENTAL", not wrong, wrong)
wrong = [f"{n}: since {since}, node {script[n]}" for n, (_, doc) in headers.items() if n in script
         for since in re.findall(r"\bSince (\d+\.\d+)", doc)[-1:]
         if script[n] not in (f"LIBVHOST_{since}", "LIBVHOST_EXPERIMENTAL")]
check("each function stands in the node of the release that brought it", not wrong, wrong)
finish()
