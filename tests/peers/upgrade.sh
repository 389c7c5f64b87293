#!/bin/sh
# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
# The VMM of a guest is replaced 100 times under load; the peer, traced by strace, is not spoken to meanwhile. Split and
# packed rings, with and without an inflight region.
# UPGRADES sets how often.
. "$top_srcdir/tests/lib/tap.sh"
. "$top_srcdir/tests/lib/peer.sh"
: "${UPGRADES:=100}"
messages=$top_srcdir/tests/peers/upgrade_messages.py
# network system calls are written down, all else runs at full speed
strace="strace -D -f --seccomp-bpf -ttt -e trace=%network -o"

# traced SOCKET LOG COMMAND…: a peer
traced() {
	traced_socket=$1
	traced_log=$2
	shift 2
	$strace "$traced_log" "$@" >>"$work/peer.log" 2>&1 &
	pids="$pids $!"
	wait_for_socket "$traced_socket"
}

# upgrades NAME URI LOG OPTION…
upgrades() {
	upgrades_name=$1
	upgrades_uri=$2
	upgrades_log=$3
	shift 3
	check "$upgrades_name: $UPGRADES upgrades at depth 32, none lost, none twice, data right, stopped where the guest is" \
		"$vhostctl" upgrade "$upgrades_uri" --times "$UPGRADES" --json "$@"
	cp "$work/.out" "$work/report.json"
	check "$upgrades_name: 0 messages during all upgrades" "$messages" "$work/report.json" "$upgrades_log"
	sed 's/^/# /' "$work/.out"
}

truncate -s 64M "$work/qsd.img"
traced "$work/qsd.sock" "$work/qsd.strace" qemu-storage-daemon \
	--blockdev "driver=file,node-name=f0,filename=$work/qsd.img" --blockdev driver=raw,node-name=r0,file=f0 \
	--export "type=vhost-user-blk,id=e0,node-name=r0,addr.type=unix,addr.path=$work/qsd.sock,writable=on,num-queues=4,logical-block-size=512"
upgrades qsd "user:$work/qsd.sock" "$work/qsd.strace"
# refused OPTION TEXT
refused() {
	check "qsd, $1: refused with '$2'" sh -c '! "$1" upgrade "$2" "$3" 2>"$4" && grep -q "$5" "$4"' \
		sh "$vhostctl" "user:$work/qsd.sock" "$1" "$work/refused.err" "$2"
}
refused --packed 'does not offer packed rings'
refused --inflight 'no inflight region'

traced "$work/own.sock" "$work/own.strace" "$vhostctl" serve blk --socket "$work/own.sock" --ram 64M --queues 4
upgrades own "user:$work/own.sock" "$work/own.strace"
upgrades "own, packed" "user:$work/own.sock" "$work/own.strace" --packed
upgrades "own, inflight" "user:$work/own.sock" "$work/own.strace" --inflight
upgrades "own, packed, inflight" "user:$work/own.sock" "$work/own.strace" --packed --inflight

cd "$work" || exit 1
# vhost_blk_traced LOG: one queue; packed rings begin at a place that it looks up in the inflight region only
vhost_blk_traced() {
	# shellcheck disable=SC2086 # a list of words
	vhost_blk_serve "" $strace "$1" || exit 1
}
check "vhost_blk builds from Debian's sources" vhost_blk_build
vhost_blk_traced split.strace
upgrades "vhost_blk, inflight" user:vhost.socket split.strace --queues 1 --inflight
end_peer "$vhost_blk_pid"
check "vhost_blk builds with its inflight region repaired" vhost_blk_build repaired
vhost_blk_traced packed.strace
upgrades "vhost_blk, packed, inflight" user:vhost.socket packed.strace --queues 1 --packed --inflight
tap_end
