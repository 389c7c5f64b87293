#!/bin/sh
# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
# The sanitizers of this build report what was planted for them; otherwise their silence elsewhere means nothing.
. "$top_srcdir/tests/lib/tap.sh"

# planted PROGRAM REPORT
planted() {
	program=$top_builddir/tests/planted/$1
	[ -x "$program" ] || return 0
	if "$program" >"$work/out" 2>&1; then
		not_ok "$1 ends with an error" "$work/out"
	else
		ok "$1 ends with an error"
	fi
	check "$1 is reported as: $2" grep -q "$2" "$work/out"
}
planted leak 'LeakSanitizer: detected memory leaks'
planted overflow 'AddressSanitizer: heap-buffer-overflow'
planted undefined 'runtime error: signed integer overflow'
planted race 'ThreadSanitizer: data race'
tap_end
