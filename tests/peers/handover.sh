#!/bin/sh
# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
# A listening socket goes from process to process without a moment in which connect() fails.
. "$top_srcdir/tests/lib/tap.sh"
handover() {
	timeout 120 "$top_builddir/tests/peers/handover" "$work/sock" >"$work/tap" 2>&1
	status=$?
	cat "$work/tap"
	return $status
}
check "three processes serve on one socket, one after another" handover
tap_end
