#!/bin/sh
# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
# A device's handler is short enough to be read as an example: lines of code, without blank ones, comments and includes.
. "$top_srcdir/tests/lib/tap.sh"

lines() {
	grep -cvE '^[[:space:]]*($|/\*|\*|#)' "$top_srcdir/tools/vhostctl/devices/$1.c"
}
short() {
	echo "$1: $(lines "$1") lines, at most $2"
	[ "$(lines "$1")" -le "$2" ]
}
check 'the block device has at most 120 lines' short blk 120
check 'the network device has at most 200 lines' short net 200
check 'the console, which can hand its state over, has at most 130 lines' short console 130
check 'the random number generator has at most 60 lines' short rng 60
tap_end
