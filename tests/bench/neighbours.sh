#!/bin/sh
# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
# A hostile queue beside a calm one: on another worker it costs at most a tenth of the 99th percentile. What it costs on the same worker is shown: there the
# two share one processor, turn by turn. A machine that is busy otherwise gets ten tries: a cost that is real is there in each.
. "$top_srcdir/tests/lib/tap.sh"
for _ in $(seq 10); do
	"$top_builddir/bench/neighbours" 41 >"$work/out" 2>&1 || break
	sed 's/^/# /' "$work/out"
	awk '/^other-worker/ && $6 <= 1.1' "$work/out" | cut -d ' ' -f 2 >>"$work/good"
	[ "$(sort -u "$work/good" | wc -l)" = 5 ] && break
done
for attack in kicks flood chains garbage maps; do
	check "beside $attack on another worker the 99th percentile is at most a tenth higher" grep -qx $attack "$work/good"
	check "beside $attack on the same worker the calm queue is served" grep -q "^same-worker $attack [1-9]" "$work/out"
done
tap_end
