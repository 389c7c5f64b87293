#!/bin/sh
# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
# A device against qemu-storage-daemon, which is started anew whenever the test kills it.
work=$(mktemp -d "${TMPDIR:-/tmp}/libvhost-qsd.XXXXXX")
loop=
stop() {
	: >"$work/end"
	if [ -s "$work/pid" ]; then kill "$(cat "$work/pid")" 2>/dev/null; fi
	if [ -n "$loop" ]; then wait "$loop"; fi
	rm -rf "$work"
}
trap stop EXIT
trap 'exit 143' INT TERM
(
	while [ ! -e "$work/end" ]; do
		qemu-storage-daemon --pidfile "$work/pid" \
			--blockdev driver=null-co,node-name=n0,size=1073741824,read-zeroes=off \
			--export "type=vhost-user-blk,id=e0,node-name=n0,addr.type=unix,addr.path=$work/s,writable=on,num-queues=4" \
			>/dev/null 2>&1
		sleep 0.05
	done
) &
loop=$!
"${top_builddir:-.}/tests/peers/device_qsd" "$work/s" "$work/pid"
