#!/bin/sh
# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
# A Debian kernel in QEMU works on our block device with two queues: file system, flushes, checksums on both sides; then
# the back-end is killed under load and restarted. With split and with packed rings. GUEST_KILLS sets how often.
. "$top_srcdir/tests/lib/tap.sh"
. "$top_srcdir/tests/lib/peer.sh"
. "$top_srcdir/tests/lib/guest.sh"
: "${GUEST_KILLS:=5}"

serve_disk() {
	serve "$work/$1.sock" --file "$work/$1.img" --queues 2 --workers 2
}

# dumped IMAGE FILE: what the host finds in the guest's file system
dumped() {
	PATH=$PATH:/usr/sbin:/sbin debugfs -R "dump $2 $work/dump" "$work/$1.img" >/dev/null 2>&1 && sha256sum <"$work/dump"
}

# files NAME: mkfs, write, fsync, remount, checksum
files() {
	check "$1: both queues are there" in_guest '[ $(ls /sys/block/vda/mq | wc -l) = 2 ]'
	check "$1: mkfs, mount" in_guest '/sbin/mke2fs -q -t ext4 /dev/vda && mount /dev/vda /mnt'
	check "$1: 8 MiB written and synced" in_guest 'dd if=/dev/urandom of=/mnt/a bs=64k count=128 conv=fsync && sha256sum </mnt/a >/tmp/sum'
	check "$1: the same after unmount and mount" in_guest 'umount /mnt && mount /dev/vda /mnt && sha256sum </mnt/a | cmp - /tmp/sum'
	check "$1: the same after its driver left and came back" \
		in_guest 'umount /mnt && cd /sys/bus/virtio/drivers/virtio_blk && d=$(echo virtio*) && echo $d >unbind && echo $d >bind && mount /dev/vda /mnt && sha256sum </mnt/a | cmp - /tmp/sum'
}

# caught NAME: stops the back-end while it works on requests, and adds how many to $marked
caught() {
	caught_now=$("$guest_files/catch.py" "$guest_pid" "$serve_pid" "$1" 2) || return
	echo "requests in flight, looks: $caught_now"
	marked=$((marked + ${caught_now% *}))
	looks=$((looks + ${caught_now#* }))
}

# kills NAME: the back-end dies again and again while a process on each queue writes, syncs and compares
kills() {
	in_guest 'echo 16 >/sys/block/vda/queue/max_sectors_kb && load start'
	kills_done=0
	marked=0
	looks=0
	while [ $kills_done -lt "$GUEST_KILLS" ]; do
		kills_done=$((kills_done + 1))
		check "$1: death $kills_done meets requests" caught "$1"
		end_peer "$serve_pid"
		sleep 0.2
		serve_disk "$1"
		check "$1: death $kills_done: both processes go on" in_guest "load goes-on"
	done
	check "$1: both end, no error anywhere" in_guest "load end"
	tail -n 1 "$work/.out" | sed 's/^/# /'
	echo "# $1: $kills_done deaths, $marked requests were in flight, found in $looks looks"
	check "$1: what was written before is unharmed" in_guest 'echo 3 >/proc/sys/vm/drop_caches; sha256sum </mnt/a | cmp - /tmp/sum'
}

# disk NAME DEVICE-ARGUMENTS
disk() {
	truncate -s 64M "$work/$1.img"
	serve_disk "$1"
	guest_boot "$1" -chardev "socket,id=disk,path=$work/$1.sock,reconnect=1" -device "vhost-user-blk-pci,chardev=disk,num-queues=2,$2" ||
		exit 1
	ok "$1: the kernel runs"
	check "$1: rings as asked for" in_guest "[ \$(cut -c35 /sys/block/vda/device/features) = $3 ]"
	files "$1"
	kills "$1"
	in_guest 'sync; sha256sum </tmp/0; sha256sum </tmp/1; cat /tmp/sum; umount /mnt' >"$work/$1.sums"
	check "$1: the machine ends, no command had failed" guest_end
	for file in 0/last 1/last a; do dumped "$1" $file; done >"$work/$1.host"
	check "$1: the host finds the same in the image" diff "$work/$1.sums" "$work/$1.host"
	check "$1: the file system is clean" guest_clean "$work/$1.img"
	end_peer "$serve_pid"
}

guest_build || exit 1
ok "kernel and first files"
disk split packed=off 0
disk packed packed=on 1
tap_end
