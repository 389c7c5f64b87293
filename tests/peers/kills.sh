#!/bin/sh
# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
# kill -9 under load: every request completes exactly once. KILLS=1000 is the long form.
# Hostile case: R184
. "$top_srcdir/tests/lib/tap.sh"
vhostctl=$top_builddir/tools/vhostctl/vhostctl
kills=${KILLS:-100}

# kill_often NAME OPTION…: one run, its summary in the log
kill_often() {
	name=$1
	shift
	if "$top_builddir/tests/peers/kills" "$vhostctl" "$work" --kills "$kills" "$@" >"$work/$name.log" 2>&1; then
		ok "$kills kills of a back-end with $name rings: every request completed once"
		sed 's/^/# /' "$work/$name.log"
	else
		not_ok "$kills kills of a back-end with $name rings" "$work/$name.log"
	fi
}
kill_often split --seed 1
kill_often packed --packed --seed 2
tap_end
