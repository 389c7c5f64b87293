#!/bin/sh
# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
# Starting 64 queues of qemu-storage-daemon costs at most 16 socket calls and 2 waits.
. "$top_srcdir/tests/lib/tap.sh"
start=$top_builddir/tests/peers/start
socket=$work/blk.sock
for tool in qemu-storage-daemon strace; do
	if ! command -v "$tool" >/dev/null; then
		skip 'a start of 64 queues' "no $tool"
		tap_end
		exit
	fi
done
qemu-storage-daemon --blockdev driver=null-co,node-name=n0,size=1073741824,read-zeroes=off \
	--export type=vhost-user-blk,id=e0,node-name=n0,addr.type=unix,addr.path="$socket",writable=on,num-queues=64 \
	>"$work/qsd.log" 2>&1 &
pids="$pids $!"
check 'all queues start and stop' strace -o "$work/trace" "$start" "user:$socket" 64
sed -n '/"start\\n"/,/"end\\n"/p' "$work/trace" >"$work/part"
calls=$(grep -cE '^(sendm|recv|poll|ppoll)' "$work/part")
waits=$(grep -cE '^(poll|ppoll)' "$work/part")
echo "# $calls socket calls, $waits of them waits"
check 'in at most 16 socket calls' test "$calls" -gt 0 -a "$calls" -le 16
check 'and at most 2 waits' test "$waits" -gt 0 -a "$waits" -le 2
tap_end
