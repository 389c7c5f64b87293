#!/bin/sh
# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
# SeaBIOS, QEMU's firmware, reads the boot sector from our block device: a driver that is not Linux's, in 16-bit mode.
# Control messages are taken by dispatch and, later, by a worker.
. "$top_srcdir/tests/lib/tap.sh"
. "$top_srcdir/tests/lib/peer.sh"
. "$top_srcdir/tests/lib/guest.sh"

check "the boot sector is assembled" sh -ec 'as --32 -o "$2.o" "$1" && ld -m elf_i386 -Ttext 0x7c00 --oformat binary -o "$2" "$2.o"' \
	as "$guest_files/boot_sector.S" "$work/sector"
[ "$(stat -c %s "$work/sector")" = 512 ] || exit 1

# boots NAME SERVE-ARGUMENTS DEVICE-ARGUMENTS
boots() {
	# shellcheck disable=SC2086 # a list of words
	serve "$work/$1.sock" $2
	guest_qemu 128 -serial "file:$work/$1.console" -chardev "socket,id=disk,path=$work/$1.sock" \
		-device "vhost-user-blk-pci,chardev=disk,bootindex=0,$3"
	check "$1: the machine ends by the boot sector" guest_status 20
	check "$1: it wrote its line" grep -q 'the boot sector runs' "$work/$1.console"
	end_peer "$serve_pid"
}

truncate -s 8M "$work/disk.img"
dd if="$work/sector" of="$work/disk.img" conv=notrunc status=none
boots file "--file $work/disk.img --queues 2" num-queues=2
boots modern "--file $work/disk.img" num-queues=1,disable-legacy=on
boots legacy "--file $work/disk.img --control-worker --kill --caps-drop" num-queues=1,disable-modern=on
check "legacy: control messages were taken under a filter" grep -q 'control worker: .*Seccomp 2 NoNewPrivs 1' "$work/serve.log"

# QEMU listens and waits, our device connects
"$vhostctl" serve blk --connect --socket "$work/client.sock" --file "$work/disk.img" \
	--control-worker --kill --caps-drop >>"$work/serve.log" 2>&1 &
pids="$pids $!"
guest_qemu 128 -serial "file:$work/client.console" -chardev "socket,id=disk,path=$work/client.sock,server=on" \
	-device "vhost-user-blk-pci,chardev=disk,bootindex=0,num-queues=1"
check "client: the machine ends by the boot sector" guest_status 20
check "client: it wrote its line" grep -q 'the boot sector runs' "$work/client.console"
tap_end
