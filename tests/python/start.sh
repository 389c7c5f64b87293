#!/bin/sh
# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
# Python starts a device at a real back-end and controls it.
. "$top_srcdir/tests/lib/tap.sh"
. "$top_srcdir/tests/lib/peer.sh"
qsd_null "$work/blk.sock" 1 || exit 1
python3 "$top_srcdir/tests/python/start_device" "$top_builddir/.libs/libvhost.so" "$work/blk.sock" >"$work/tap" 2>&1
cat "$work/tap"
! grep -q '^not ok' "$work/tap"
