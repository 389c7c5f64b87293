#!/bin/sh
# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
# qemu-storage-daemon 7.2 says "stopped" while it works on requests: a stop of ours waits for them, or says that they are open.
. "$top_srcdir/tests/lib/tap.sh"
. "$top_srcdir/tests/lib/peer.sh"
drain=$top_builddir/tests/peers/drain
cd "$work" || exit 1

# slow [MS]: a daemon whose requests take 400 ms, or so long
slow() {
	rm -f s
	qemu-storage-daemon --blockdev driver=null-co,node-name=n0,size=1048576,read-zeroes=on,"latency-ns=${1-400}000000" \
		--export "type=vhost-user-blk,id=e0,node-name=n0,addr.type=unix,addr.path=$work/s,writable=on" >>qsd.log 2>&1 &
	slow_pid=$!
	pids="$pids $slow_pid"
	wait_for_socket "$work/s" || exit 1
}

slow
check "a stop ends with the last request; the dirty log has all that was written" "$drain" waits user:s
end_peer "$slow_pid"
slow 2000 # time enough for a stop to be too early, however late it comes
check "a stop with less time says what is open; the next one waits on" sh -c '"$@" 2>late.err' sh "$drain" late user:s
check "its error names peer, queue and number" \
	grep -q "user:s: queue 0: the peer said that it stopped at 8 and has not completed 8 requests" late.err
sed 's/^/# /' late.err
end_peer "$slow_pid"
# those that would call afterwards: docs/peers.md
slow
check "with interrupts: a stop of 0 means that all are completed, any other that not all are" \
	sh -c '"$@" >lost && grep -q -e "stop 0, 8 of 8" -e "stop -11, [0-7] of 8" lost' sh "$drain" lost user:s
sed 's/^/# /' lost qsd.log
end_peer "$slow_pid"
tap_end
