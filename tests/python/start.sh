#!/bin/sh
# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
# Python starts devices at a real back-end and at one that has an inflight region, controls them and hands them over.
. "$top_srcdir/tests/lib/tap.sh"
. "$top_srcdir/tests/lib/peer.sh"
start() {
	python3 "$top_srcdir/tests/python/start_device" "$top_builddir/.libs/libvhost.so" "$@" >"$work/tap" 2>&1
	cat "$work/tap"
	grep -q '^ok' "$work/tap" && ! grep -q -e '^not ok' -e '^Traceback' "$work/tap"
}
qsd_null "$work/blk.sock" 1 || exit 1
serve "$work/own.sock" --ram 1M || exit 1
check "a device of qemu-storage-daemon" start "$work/blk.sock"
check "a device of vhostctl serve, with an inflight region" start "$work/own.sock" inflight
tap_end
