#!/bin/sh
# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
# Front-ends of the Rust world at our block device: the blkio crate with virtio-driver below it, and rust-vmm's vhost
# crate. Each writes a pattern over all queues, reads it back and compares; the image is checked without any of them.
. "$top_srcdir/tests/lib/tap.sh"
. "$top_srcdir/tests/lib/peer.sh"
matrix=$top_srcdir/tests/peers/matrix.py
image=$top_srcdir/tests/peers/check_image.py
seed=0
cd "$work" || exit 1

# device RECORD OPTION…: ours on a new image, what it hears is added to RECORD
device() {
	device_record=$1
	shift
	rm -f s disk.img
	truncate -s 64M disk.img
	LD_PRELOAD=$top_builddir/tests/peers/.libs/record_shim.so RECORD_SHIM=$work/$device_record \
		"$vhostctl" serve blk --socket s "$@" >serve.log 2>&1 &
	device_pid=$!
	pids="$pids $device_pid"
	wait_for_socket s
}
# drive NAME PROGRAM QUEUES DEPTH [ARGUMENT]
drive() {
	seed=$((seed + 1))
	check "$1" "$rust_frontends/$2" s "$3" "$4" $seed 64 ${5+"$5"}
	sed -n 's/^[0-9]* blocks/# &/p' .out
}
# written NAME: the last pattern is in the image
written() {
	check "$1: the image holds the pattern at every offset" "$image" disk.img $seed 67108864
}

check "they build" rust_frontends || exit 1
for crate in blkio vhost; do
	name="$crate $(crate frontends $crate)"
	device $crate.record --file disk.img --queues 4 --workers 2 || exit 1
	drive "$name: 64 MiB on a file over 4 queues, 32 requests on each" $crate 4 32
	written "$name"
	drive "$name: the next one after it, over one queue" $crate 1 64
	written "$name, one queue"
	end_peer "$device_pid"
	device $crate.record --file disk.img --queues 2 --no-io-uring --control-worker --kill --caps-drop || exit 1
	drive "$name: the same without io_uring, with a control worker, 2 queues" $crate 2 16
	written "$name, without io_uring"
	check "$name: control messages were taken under a filter" grep -q 'control worker: .*Seccomp 2 NoNewPrivs 1' serve.log
	[ $crate = vhost ] || drive "$name: over queues whose driver wants no calls" $crate 2 8 polled
	[ $crate = vhost ] || written "$name, polled"
	end_peer "$device_pid"
	device $crate.record --ram 64M --queues 4 || exit 1
	drive "$name: 64 MiB of RAM" $crate 4 32
	end_peer "$device_pid"
	check "$name: the table of peers is about this version" "$matrix" version $crate "$name"
	check "$name: the messages of the table were exchanged, and no others" "$matrix" said $crate $crate.record
done
tap_end
