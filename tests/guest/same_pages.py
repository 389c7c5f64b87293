#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
"""Compares two memory images page by page. Usage: same_pages.py ONE OTHER"""
import sys

PAGE = 4096


def main(*paths):
    pages = different = used = 0
    with open(paths[0], "rb") as one, open(paths[1], "rb") as other:
        while (a := one.read(PAGE)) + (b := other.read(PAGE)):
            if a != b:
                print(f"page {pages:#x} differs")
                different += 1
            used += any(a)
            pages += 1
    print(f"{pages} pages compared, {used} of them not empty, {different} different")
    return 1 if different or not used else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
