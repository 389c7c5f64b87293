#!/bin/sh
# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
# Our own back-end: front-end and device side of this library against each other, kill and restart, tracer in between.
. "$top_srcdir/tests/lib/tap.sh"
. "$top_srcdir/tests/lib/peer.sh"
image=$top_srcdir/tests/peers/check_image.py

serve "$work/ram.sock" --ram 64M --queues 4 --workers 2
check "64 MiB of RAM, 4 queues on 2 workers: verified" \
	"$vhostctl" blk-test "user:$work/ram.sock" --size 64M --queues 4 --depth 64
check "a second front-end after the first" "$vhostctl" blk-test "user:$work/ram.sock" --size 8M
check "the same with packed rings" \
	"$vhostctl" blk-test "user:$work/ram.sock" --size 64M --queues 4 --depth 64 --packed
check "a packed ring of three entries" "$vhostctl" blk-test "user:$work/ram.sock" --size 1M --depth 1 --packed
check "the workers run under a filter" grep -q 'Seccomp 2 NoNewPrivs 1' "$work/serve.log"
check_fails "a second server on the same socket is refused" "$vhostctl" serve blk --socket "$work/ram.sock" --ram 1M

serve "$work/control.sock" --ram 64M --queues 4 --workers 2 --control-worker --kill --caps-drop
check "control messages on a sandboxed thread that would end the process: verified" \
	"$vhostctl" blk-test "user:$work/control.sock" --size 64M --queues 4 --depth 64
check "the same with packed rings" "$vhostctl" blk-test "user:$work/control.sock" --size 16M --queues 4 --packed
check "the control worker runs under a filter" grep -q 'control worker: .*Seccomp 2 NoNewPrivs 1' "$work/serve.log"

empty_image "$work/disk.img" 128M
serve "$work/disk.sock" --file "$work/disk.img" --queues 4 --control-worker
"$vhostctl" blk-test "user:$work/disk.sock" --size 128M --queues 4 --depth 32 --seed 9 --duration 1 --json >"$work/killed.json" 2>"$work/killed.err" &
run=$!
mid_run "$work/disk.img" $run
end_peer "$serve_pid"
serve "$work/disk.sock" --file "$work/disk.img" --queues 4 --control-worker
check "kill -9 in mid-run, restarted on the stale socket: the run ends verified" wait $run
check "it reconnected" grep -q '"reconnects": [1-9]' "$work/killed.json"
check "it says how long the guest stood still" grep -q '"longest_stall_ms": 0*[1-9.]' "$work/killed.json"
check "the image holds the pattern" "$image" "$work/disk.img" 9 134217728

empty_image "$work/disk.img" 128M
"$vhostctl" blk-test "user:$work/disk.sock" --size 128M --queues 4 --depth 32 --seed 10 --duration 1 --packed --json >"$work/packed.json" 2>"$work/packed.err" &
run=$!
mid_run "$work/disk.img" $run
end_peer "$serve_pid"
serve "$work/disk.sock" --file "$work/disk.img" --queues 4
check "the same with packed rings: the run ends verified" wait $run
check "it reconnected" grep -q '"reconnects": [1-9]' "$work/packed.json"
check "the image holds its pattern" "$image" "$work/disk.img" 10 134217728

"$vhostctl" trace "$work/trace.sock" "user:$work/disk.sock" --once >"$work/trace.log" 2>&1 &
tracer=$!
pids="$pids $tracer"
wait_for_socket "$work/trace.sock"
check "a run through the tracer" "$vhostctl" blk-test "user:$work/trace.sock" --size 4M --queues 2
check "the tracer ends with its front-end" wait $tracer
for text in '=> GET_FEATURES -> 0x' '=> SET_VRING_NUM queue 1' 'eventfd' 'memfd'; do
	check "the trace shows: $text" grep -q -e "$text" "$work/trace.log"
done
tap_end
