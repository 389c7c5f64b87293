#!/bin/sh
# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
# Peers' behaviour in corners.
. "$top_srcdir/tests/lib/tap.sh"
. "$top_srcdir/tests/lib/peer.sh"
qsd_null "$work/blk.sock" 4 || exit 1
LIBVHOST_QSD_SOCKET=$work/blk.sock "$top_builddir/tests/peers/qsd_quirks" >"$work/tap" 2>&1
status=$?
cat "$work/tap"
exit $status
