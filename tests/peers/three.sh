#!/bin/sh
# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
# Memory changes for three devices whose back-ends serve, are mute, and die.
. "$top_srcdir/tests/lib/tap.sh"
. "$top_srcdir/tests/lib/peer.sh"
truncate -s 1M "$work/disk.img"
set --
for i in 1 2 3; do
	cp "$work/disk.img" "$work/disk.$i"
	serve "$work/s$i" --file "$work/disk.$i" || exit 1
	set -- "$@" "$work/s$i" "$serve_pid"
done
check 'one serves, one is mute, one dies' "$top_builddir/tests/peers/three" "$@"
tap_end
