#!/bin/sh
# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
# The first command of the README, with the build that is there; and that one bad line of its table is its failure.
. "$top_srcdir/tests/lib/tap.sh"
"$top_srcdir/scripts/quickstart" "$top_builddir" >"$work/says" 2>&1
status=$?
sed 's/^/# /' "$work/says"
check 'it ends well' test $status = 0
check 'its last word is OK' sh -c '[ "$(tail -n 1 "$1")" = OK ]' last "$work/says"
check 'the table has its 11 lines, and each holds' \
	sh -c '[ "$(grep -c "  ok$" "$1")" = 11 ] && ! grep -wE "FAIL|FAILED" "$1"' lines "$work/says"

cat >"$work/one_bad.py" <<'END'
import importlib.machinery, importlib.util, sys
loader = importlib.machinery.SourceFileLoader("main_job", sys.argv[1])
job = importlib.util.module_from_spec(importlib.util.spec_from_loader("main_job", loader))
loader.exec_module(job)
assert job.table() == 1, "a table without lines"
job.row("good", "1", "here", True)
assert job.table() == 0
job.row("bad", "2", "there", False)
sys.exit(job.table())
END
check_fails 'one line that does not hold fails the job' python3 "$work/one_bad.py" "$top_srcdir/scripts/main-job"
check_fails 'a build without the program fails it, too' "$top_srcdir/scripts/main-job" "$work"
tap_end
