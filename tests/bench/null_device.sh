#!/bin/sh
# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
# The ring path of driver and sandboxed worker against qemu-storage-daemon's null device, same driver code. The aim is 4 times its rate; below 2 is a
# regression, whatever the machine does.
. "$top_srcdir/tests/lib/tap.sh"
. "$top_srcdir/tests/lib/peer.sh"
qsd_null "$work/blk.sock" 1 || exit 1
taskset -a -p 0x1 "$qsd_pid" >/dev/null
"$top_builddir/bench/null_device" "$work/blk.sock" 9 >"$work/out" 2>&1
sed 's/^/# /' "$work/out"
ratio=$(sed -n 's/.*median ratio //p' "$work/out")
check "4 KiB null requests at depth 128: ratio ${ratio:-none} is at least 2" awk -v r="${ratio:-0}" 'BEGIN { exit !(r >= 2) }'
tap_end
