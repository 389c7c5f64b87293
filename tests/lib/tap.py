# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
"""TAP for Python tests: check(text, condition, details), then finish()."""
import sys

count = 0
failed = 0


def check(text, good, details=()):
    """One result. Details (a string or lines) are shown when it is not good."""
    global count, failed
    count += 1
    print(f"{'ok' if good else 'not ok'} {count} - {text}", flush=True)
    if not good:
        failed += 1
        for line in details.splitlines() if isinstance(details, str) else details:
            print(f"# {line}", flush=True)
    return good


def skip(text, reason):
    global count
    count += 1
    print(f"ok {count} - {text} # SKIP {reason}", flush=True)


def finish():
    print(f"1..{count}", flush=True)
    sys.exit(1 if failed or not count else 0)
