#!/bin/sh
# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
# Each fuzzer for a short time from a fixed seed. FUZZ_SECONDS sets how long (default 20). A finding is copied to the
# build folder: run the fuzzer with that file as its argument.
. "$top_srcdir/tests/lib/tap.sh"
for program in blob codec ring session; do
	cd "$work" || exit 1
	check "$program: nothing found in ${FUZZ_SECONDS:=20} s" "$top_builddir/tests/fuzz/$program" -seed=1 -timeout=60 \
		-rss_limit_mb=1024 -max_len=4096 -max_total_time="$FUZZ_SECONDS" -print_final_stats=1 -verbosity=0
	for finding in crash-* leak-* timeout-* oom-*; do
		[ -e "$finding" ] && cp "$finding" "$top_builddir/$program-$finding"
	done
done
tap_end
