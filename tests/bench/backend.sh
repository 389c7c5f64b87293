#!/bin/sh
# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
# What a request costs our back-end, counted in system calls, and a null device beside qemu-storage-daemon's, same driver. docs/performance.md has
# the aims and bench/backend measures them; here are floors that hold on a machine that does other things, too.
. "$top_srcdir/tests/lib/tap.sh"
. "$top_srcdir/tests/lib/peer.sh"

# drive OPTION… DEVICE…: its last line, of the last device, in $work/last
drive() {
	"$top_builddir/bench/backend_driver" "$@" >"$work/out" 2>&1
	sed 's/^/# /' "$work/out"
	tail -n 1 "$work/out" >"$work/last"
}

# calls DEPTH:HOW OPTION…: system calls of our worker per request, in $cost
calls() {
	mode=$1
	shift
	rm -f "$work/blk.sock" "$work/strace"
	serve "$work/blk.sock" "$@" || exit 1
	worker=$(grep -l '^vhostctl-blk' "/proc/$serve_pid/task/"*/comm | sed 's|.*/task/\([0-9]*\)/.*|\1|')
	strace -c -U calls,name -o "$work/strace" -p "$worker" 2>/dev/null &
	tracer=$!
	until_true $patience grep -q '^TracerPid:.[1-9]' "/proc/$serve_pid/task/$worker/status"
	drive -r 1 -s 0.5 -b 256 -m "$mode" "blk,$serve_pid,$work/blk.sock"
	end_peer "$serve_pid"
	wait "$tracer"
	sed 's/^/# /' "$work/strace"
	cost=$(awk '/^ *[0-9]+ [a-z]/ && $2 != "total" { calls += $1 } END { getline <"'"$work/last"'"; printf "%.3f", calls / $2 }' "$work/strace")
}
# A busy machine spoils a measurement now and then, a relapse spoils each: how often it is repeated.
tries='1 2 3 4 5'
within() {
	awk -v n="$cost" -v most="$1" 'BEGIN { exit !(n > 0 && n <= most) }'
}
# at_most COST WHAT DEPTH:HOW OPTION…
at_most() {
	most=$1 what=$2
	shift 2
	for _ in $tries; do
		calls "$@"
		if within "$most"; then break; fi
	done
	check "$what: $cost system calls per request, at most $most" within "$most"
}

at_most 4.1 "one request at a time, both sides sleep" 1:sleep --null 1G --poll 0
at_most 0.2 "128 requests, both sides poll" 128:poll --null 1G
at_most 0.2 "128 requests, both sides sleep" 128:sleep --null 1G --poll 0
truncate -s 1M "$work/disk.img"
at_most 6.1 "one request of a file at a time, both sides sleep" 1:sleep --file "$work/disk.img" --poll 0
at_most 0.5 "128 requests of a file, both sides sleep" 128:sleep --file "$work/disk.img" --poll 0

rm -f "$work/blk.sock"
serve "$work/blk.sock" --null 1G || exit 1
qsd_null "$work/qsd.sock" 1 || exit 1
for pid in "$serve_pid" "$qsd_pid"; do taskset -a -p 0x1 "$pid" >/dev/null; done
twice() {
	awk -v r="${ratio:-0}" 'BEGIN { exit !(r >= 2) }'
}
for _ in $tries; do
	drive -r 9 -m 128:poll "ours,$serve_pid,$work/blk.sock" "qsd,$qsd_pid,$work/qsd.sock"
	ratio=$(awk '{ print $NF }' "$work/last")
	if twice; then break; fi
done
check "4 KiB null requests at depth 128: ratio ${ratio:-none} is at least 2" twice
tap_end
