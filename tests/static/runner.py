#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
"""scripts/run-tiers sees each way in which a suite can go wrong."""
import contextlib
import importlib.machinery
import importlib.util
import io
import os
import pathlib
import sys
import tempfile

TOP = pathlib.Path(os.environ["top_srcdir"])
sys.path.insert(0, str(TOP / "tests/lib"))
from tap import check, finish  # noqa: E402

loader = importlib.machinery.SourceFileLoader("tiers", str(TOP / "scripts/run-tiers"))
tiers = importlib.util.module_from_spec(importlib.util.spec_from_loader("tiers", loader))
sys.modules["tiers"] = tiers
loader.exec_module(tiers)
tiers.adopt_orphans()
work = tempfile.TemporaryDirectory()
tiers.LOGS = pathlib.Path(work.name)
tiers.GRACE_S = 1

CASES = (  # what, shell text, (passed, failed, skipped)
    ("a good suite", "echo 'ok 1 - a'; echo 1..1", (1, 0, 0)),
    ("a failed test", "echo 'not ok 1 - a'; echo 1..1; exit 1", (0, 1, 0)),
    ("no plan", "echo 'ok 1 - a'", (1, 1, 0)),
    ("fewer tests than planned", "echo 'ok 1 - a'; echo 1..2", (1, 1, 0)),
    ("no test at all", "echo 1..0", (0, 1, 0)),
    ("silence", "true", (0, 2, 0)),
    ("a skip that is not listed", "echo 'ok 1 - a # SKIP b'; echo 1..1", (0, 1, 1)),
    ("a skipped suite that is not listed", "echo '1..0 # SKIP b'", (0, 1, 1)),
    ("an exit status after good tests", "echo 'ok 1 - a'; echo 1..1; exit 3", (1, 1, 0)),
    ("death by a signal", "echo 1..1; echo 'ok 1 - a'; kill -SEGV $$", (1, 1, 0)),
    ("a bail-out", "echo 'ok 1 - a'; echo 'Bail out! x'; echo 1..1", (1, 1, 0)),
    ("a process left behind", "sleep 99 & echo 'ok 1 - a'; echo 1..1", (1, 1, 0)),
    ("a daemon left behind", "setsid sleep 99 & sleep .1; echo 'ok 1 - a'; echo 1..1", (1, 1, 0)),
    ("a suite that never ends", "echo 'ok 1 - a'; echo 1..1; sleep 99", (1, 1, 0)),
)
for what, script, expected in CASES:
    totals = tiers.Totals
    totals.passed = totals.failed = totals.skipped = 0
    with contextlib.redirect_stdout(io.StringIO()) as shown:
        tiers.run_suite("self/test", ["sh", "-c", script], tiers.Tier("self-test", 1), TOP)
    got = (totals.passed, totals.failed, totals.skipped)
    check(f"{what}: passed, failed, skipped are {expected}", got == expected, f"{got}\n{shown.getvalue()}")
finish()
