#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
"""Usage: upgrade_messages.py REPORT STRACE-LOG

Counts the network system calls by which a peer moved data (not those that found nothing) before, during and after the upgrades that vhostctl upgrade --json
reports. Fails unless there were some before and after (so that the trace is one) and none in between.
"""
import json
import re
import sys


def main():
    with open(sys.argv[1], encoding="utf-8") as report:
        run = json.load(report)
    counts = {"before": 0, "during": 0, "after": 0}
    with open(sys.argv[2], encoding="utf-8") as log:
        for line in log:
            match = re.match(r"\d+ +(\d+\.\d+) (?!\+\+\+|---)", line)
            if match and "= -1 EAGAIN" not in line:
                now = float(match[1]) * 1e6
                counts["before" if now < run["began_us"] else "during" if now <= run["ended_us"] else "after"] += 1
    print("messages of the peer:", ", ".join(f"{n} {when}" for when, n in counts.items()), "the upgrades")
    calm, busy = run["latency_calm"], run["latency_upgrading"]
    print(f"{run['upgrades']} upgrades, {run['addresses']} addresses of guest memory, {run['requests']} requests")
    print(f"median us: freeze {run['freeze']['p50_us']:.0f}, thaw {run['thaw']['p50_us']:.0f}, without a VMM {run['without_vmm']['p50_us']:.0f}")
    for name, l in (("between", calm), ("during", busy)):
        print(f"latency us {name} upgrades: p50 {l['p50_us']:.0f}, p99 {l['p99_us']:.0f}, max {l['max_us']:.0f}")
    return 0 if counts["before"] and counts["after"] and not counts["during"] and run["upgrades"] and run["addresses"] > 1 else 1


if __name__ == "__main__":
    sys.exit(main())
