#!/bin/sh
# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
# A running guest moves between two QEMU processes, each with a back-end of its own on the same image, while a process on
# each queue writes, syncs and compares. QEMU finds what our back-end wrote into guest memory by the dirty log only: with
# both sides stopped every page must be the same. MIGRATIONS sets how often it moves
# with each kind of rings; 20 is the long form.
. "$top_srcdir/tests/lib/tap.sh"
. "$top_srcdir/tests/lib/peer.sh"
. "$top_srcdir/tests/lib/guest.sh"
: "${MIGRATIONS:=1}"
# otherwise Linux writes zeros to each page before the device gets it, and QEMU sees that it is dirty without our help
guest_parameters=init_on_alloc=0
matrix=$top_srcdir/tests/peers/matrix.py

qmp() {
	qmp_socket=$1
	shift
	"$guest_files/qmp.py" "$qmp_socket" "$@"
}

# side NAME START ARGUMENT…: a back-end, what it hears and says goes to NAME.record, and a QEMU; START is guest_boot or
# guest_start
side() {
	side=$1
	side_start=$2
	shift 2
	LD_PRELOAD=$top_builddir/tests/peers/.libs/record_shim.so RECORD_SHIM=$work/$side.record \
		serve "$work/$side.sock" --file "$work/$disk.img" --queues 2 --workers 2
	"$side_start" "$side" -chardev "socket,id=disk,path=$work/$side.sock,reconnect=1" \
		-device "vhost-user-blk-pci,chardev=disk,num-queues=2,$device" -qmp "unix:$work/$side.qmp,server=on,wait=off" "$@"
}

# migrated SOCKET: waits for the end of the migration, at most two minutes
migrated() {
	for _ in $(seq 3000); do
		qmp "$1" query-migrate >"$work/migration" || return
		if grep -q '"status": "completed"' "$work/migration"; then return 0; fi
		if grep -q '"status": "failed"' "$work/migration"; then break; fi
		sleep 0.1
	done
	cat "$work/migration" "$work/qemu.log"
	return 1
}

# figure NAME: a number of the migration that has ended
figure() {
	grep -o "\"$1\": [0-9]*" "$work/migration" | head -n 1 | sed 's/.*: //'
}

# move FROM TO
move() {
	from_qemu=$guest_pid
	from_serve=$serve_pid
	cp "$work/$1.answers" "$work/$2.answers"
	side "$2" guest_start -S -incoming "unix:$work/$2.migration"
	wait_for_socket "$work/$2.migration"
	qmp "$work/$1.qmp" migrate-set-parameters '{"max-bandwidth": 50000000, "downtime-limit": 500}' >/dev/null
	check "$2: migration begins" qmp "$work/$1.qmp" migrate "{\"uri\": \"unix:$work/$2.migration\"}"
	check "$2: it completes" migrated "$work/$1.qmp"
	echo "# $2: $(figure dirty-sync-count) rounds, $(($(figure transferred) / 1000000)) MB, the guest stood still for $(figure downtime) ms"
	for n in "$1" "$2"; do
		qmp "$work/$n.qmp" pmemsave "{\"val\": 0, \"size\": 268435456, \"filename\": \"$work/$n.memory\"}" >/dev/null
	done
	check "$2: all pages are the same on both sides" "$guest_files/same_pages.py" "$work/$1.memory" "$work/$2.memory"
	sed 's/^/# /' "$work/.out" | tail -n 1
	rm "$work/$1.memory" "$work/$2.memory"
	end_peer "$from_qemu"
	end_peer "$from_serve"
	check "$2: the guest goes on" qmp "$work/$2.qmp" cont
	check "$2: both processes work on" in_guest "load goes-on"
}

# journey NAME DEVICE-ARGUMENTS
journey() {
	disk=$1
	device=$2
	truncate -s 64M "$work/$1.img"
	side "$1.0" guest_boot || exit 1
	check "$1: mkfs, mount" in_guest '/sbin/mke2fs -q -t ext4 /dev/vda && mount /dev/vda /mnt'
	in_guest "load read"
	in_guest "load start"
	for n in $(seq "$MIGRATIONS"); do move "$1.$((n - 1))" "$1.$n"; done
	check "$1: both processes end, no error anywhere" in_guest "load end"
	tail -n 1 "$work/.out" | sed 's/^/# /'
	check "$1: unmount" in_guest 'umount /mnt'
	check "$1: the machine ends, no command had failed" guest_end
	check "$1: the file system is clean" guest_clean "$work/$1.img"
	end_peer "$serve_pid"
}

guest_build || exit 1
journey split packed=off
journey packed packed=on
check "the table of peers is about this version" "$matrix" version qemu "$(dpkg-query -W -f '${Version}' qemu-system-x86)"
check "the messages of the table were exchanged, and no others" "$matrix" said qemu "$work"/*.record
tap_end
