#!/bin/sh
# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
# The VMM of a guest is replaced 100 times under load; the peer, traced by strace, is not spoken to meanwhile.
# UPGRADES sets how often.
. "$top_srcdir/tests/lib/tap.sh"
. "$top_srcdir/tests/lib/peer.sh"
: "${UPGRADES:=100}"
messages=$top_srcdir/tests/peers/upgrade_messages.py

# traced SOCKET LOG COMMAND…: a peer whose network system calls strace writes down; all else runs at full speed
traced() {
	traced_socket=$1
	traced_log=$2
	shift 2
	strace -D -f --seccomp-bpf -ttt -e trace=%network -o "$traced_log" "$@" >>"$work/peer.log" 2>&1 &
	pids="$pids $!"
	wait_for_socket "$traced_socket"
}

# upgrades NAME URI LOG
upgrades() {
	check "$1: $UPGRADES upgrades at depth 32, none lost, none twice, data right, stopped where the guest is" \
		"$vhostctl" upgrade "$2" --times "$UPGRADES" --json
	cp "$work/.out" "$work/$1.json"
	check "$1: 0 messages during all upgrades" "$messages" "$work/$1.json" "$3"
	sed 's/^/# /' "$work/.out"
}

truncate -s 64M "$work/qsd.img"
traced "$work/qsd.sock" "$work/qsd.strace" qemu-storage-daemon \
	--blockdev "driver=file,node-name=f0,filename=$work/qsd.img" --blockdev driver=raw,node-name=r0,file=f0 \
	--export "type=vhost-user-blk,id=e0,node-name=r0,addr.type=unix,addr.path=$work/qsd.sock,writable=on,num-queues=4,logical-block-size=512"
upgrades qsd "user:$work/qsd.sock" "$work/qsd.strace"

traced "$work/own.sock" "$work/own.strace" "$vhostctl" serve blk --socket "$work/own.sock" --ram 64M --queues 4
upgrades own "user:$work/own.sock" "$work/own.strace"
tap_end
