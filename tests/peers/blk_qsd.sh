#!/bin/sh
# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
# vhostctl blk-test drives qemu-storage-daemon; the image is checked without libvhost.
. "$top_srcdir/tests/lib/tap.sh"
. "$top_srcdir/tests/lib/peer.sh"
image=$top_srcdir/tests/peers/check_image.py

truncate -s 256M "$work/disk.img"
qsd_file "$work/disk.sock" "$work/disk.img" 4
check "256 MiB, 4 queues, depth 128: written, flushed, read back, verified" \
	"$vhostctl" blk-test "user:$work/disk.sock" --size 256M --queues 4 --depth 128 --seed 42
check "the image holds the pattern at every offset" "$image" "$work/disk.img" 42 268435456
check_fails "the image check can fail" "$image" "$work/disk.img" 43 268435456
check_fails "more than the capacity is refused" "$vhostctl" blk-test "user:$work/disk.sock" --size 257M

# the daemon dies in the middle and comes back: the run reconnects and ends verified
empty_image "$work/disk.img" 256M
"$vhostctl" blk-test "user:$work/disk.sock" --size 256M --queues 4 --depth 32 --seed 7 --json >"$work/killed.json" 2>"$work/killed.err" &
run=$!
mid_run "$work/disk.img" $run
end_peer "$qsd_pid"
qsd_file "$work/disk.sock" "$work/disk.img" 4
check "killed and restarted in mid-run: the run ends verified" wait $run
check "it reconnected" grep -q '"reconnects": [1-9]' "$work/killed.json"
check "the image holds the second pattern" "$image" "$work/disk.img" 7 268435456
kill "$qsd_pid"

qsd_null "$work/null.sock" 4
check "null device for 10 s without an error" \
	"$vhostctl" blk-test "user:$work/null.sock" --size 64M --queues 4 --depth 128 --duration 5 --no-verify
check_fails "a null device does not pass verification" "$vhostctl" blk-test "user:$work/null.sock" --size 1M
"$vhostctl" probe "user:$work/null.sock" --type blk --json >"$work/probe.json"
check "probe names a feature bit" grep -q VIRTIO_BLK_F_MQ "$work/probe.json"
check "probe names a protocol feature" grep -q REPLY_ACK "$work/probe.json"
check "probe reads the capacity" grep -q '"capacity_bytes": 1073741824' "$work/probe.json"
check "probe prints text" sh -c '"$1" probe "user:$2" --type blk | grep -q "^queues *4"' sh "$vhostctl" "$work/null.sock"
tap_end
