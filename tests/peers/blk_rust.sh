#!/bin/sh
# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
# A block device on rust-vmm's crates, of today and of two years ago: data, a death in mid-run.
. "$top_srcdir/tests/lib/tap.sh"
. "$top_srcdir/tests/lib/peer.sh"
image=$top_srcdir/tests/peers/check_image.py
socket=$work/blk.sock

for version in new old; do
	name="vhost-user-backend $(crate $version vhost-user-backend)"
	check "$name builds" rust_blk $version
	rm -f "$work/disk.img"
	truncate -s 256M "$work/disk.img"
	rust_serve "$socket" "$work/disk.img" || exit 1
	"$vhostctl" probe "user:$socket" --type blk --json >"$work/probe.json"
	check "$name offers 509 memory slots" grep -q '"memory_slots": 509' "$work/probe.json"
	check "$name offers a dirty log" grep -q '"LOG_SHMFD"' "$work/probe.json"
	check "$name: 256 MiB over 4 queues at depth 128 written, flushed, read back, verified" \
		"$vhostctl" blk-test "user:$socket" --size 256M --queues 4 --depth 128 --seed 42
	check "$name: the image holds the pattern at every offset" "$image" "$work/disk.img" 42 268435456

	empty_image "$work/disk.img" 256M
	"$vhostctl" blk-test "user:$socket" --size 128M --queues 4 --depth 32 --seed 7 --duration 1 --json \
		>"$work/killed.json" 2>"$work/killed.err" &
	run=$!
	mid_run "$work/disk.img" $run
	end_peer "$rust_pid"
	rm -f "$socket"
	rust_serve "$socket" "$work/disk.img" || exit 1
	check "$name: killed and restarted in mid-run, the run ends verified" wait $run
	sed 's/^/# /' "$work/killed.err"
	check "$name: it reconnected" grep -q '"reconnects": 1' "$work/killed.json"
	check "$name: the image holds the second pattern" "$image" "$work/disk.img" 7 134217728
	end_peer "$rust_pid"
	rm -f "$socket"
done
tap_end
