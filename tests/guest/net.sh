#!/bin/sh
# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
# A Debian kernel in QEMU has two network cards of ours, one with split rings and one with packed ones; the
# wires are taps in a network namespace of this test. Frames are counted on both sides, and the back-end dies in between.
. "$top_srcdir/tests/lib/tap.sh"
. "$top_srcdir/tests/lib/peer.sh"
. "$top_srcdir/tests/lib/guest.sh"
PATH=$PATH:/usr/sbin:/sbin
space=libvhost-$$
bytes=10485760

if [ "$(id -u)" != 0 ]; then
	skip "cards of a guest" "taps and network namespaces need root"
	tap_end
fi

inside() {
	ip netns exec "$space" "$@"
}

# card TAP: its back-end; sets $card_pid
card() {
	ip netns exec "$space" "$vhostctl" serve net --socket "$work/$1.sock" --tap "$1" >>"$work/card.log" 2>&1 &
	card_pid=$!
	pids="$pids $card_pid"
	wait_for_socket "$work/$1.sock" $card_pid
}

# counts TAP INTERFACE: whether as many frames and bytes left each side as came to the other
counts() {
	counts_host=$(inside sh -c 'cd "/sys/class/net/$1/statistics" && cat tx_packets tx_bytes rx_packets rx_bytes' sh "$1" | xargs)
	counts_guest=$(in_guest "cd /sys/class/net/$2/statistics && cat rx_packets rx_bytes tx_packets tx_bytes" | xargs)
	echo "frames and bytes to the guest, frames and bytes from it: host $counts_host, guest $counts_guest"
	[ "$counts_host" = "$counts_guest" ]
}

# download NET: the guest gets the file; whether it is the same
download() {
	in_guest "wget -q -O /tmp/data http://$1.1:5001/data && sha256sum </tmp/data" >"$work/got"
	[ "$(stat -c %s "$work/data")" = $bytes ] && sha256sum <"$work/data" | diff - "$work/got"
}

# upload NET: the host gets back what the guest got
upload() {
	rm -f "$work/back"
	inside busybox wget -q -O "$work/back" "http://$1.2:5002/data" && cmp "$work/data" "$work/back"
}

# works NAME TAP INTERFACE NET
works() {
	check "$1: 20 pings" in_guest "ping -q -c 20 -i 0.05 -W 10 $4.1"
	check "$1: 1400 bytes in each" in_guest "ping -q -c 10 -i 0.05 -W 10 -s 1400 $4.1"
	check "$1: 10 MiB to the guest" download "$4"
	check "$1: 10 MiB from it" upload "$4"
	check "$1: no frame is missing" counts "$2" "$3"
	sed 's/^/# /' "$work/.out"
}

guest_build || exit 1
ip netns add "$space" || exit 1
trap 'ip netns del "$space"; tap_exit' EXIT
dd if=/dev/urandom of="$work/data" bs=$bytes count=1 status=none
# nothing but what this test sends
inside sysctl -q net.ipv6.conf.all.disable_ipv6=1 net.ipv6.conf.default.disable_ipv6=1
guest_parameters=ipv6.disable=1
inside ip tuntap add mode tap name split
inside ip tuntap add mode tap name packed
inside ip addr add 10.1.0.1/24 dev split
inside ip addr add 10.2.0.1/24 dev packed
inside ip link set split up
inside ip link set packed up
card split
split_pid=$card_pid
card packed
# without KVM this QEMU dies when a card of a vhost-user back-end has MSI-X
device=disable-legacy=on,vectors=0,romfile=
guest_boot net -chardev "socket,id=split,path=$work/split.sock,reconnect=1" -netdev vhost-user,id=split,chardev=split \
	-device virtio-net-pci,netdev=split,$device \
	-chardev "socket,id=packed,path=$work/packed.sock,reconnect=1" -netdev vhost-user,id=packed,chardev=packed \
	-device virtio-net-pci,netdev=packed,packed=on,$device || exit 1
check "two cards come up" in_guest 'ip addr add 10.1.0.2/24 dev eth0 && ip link set eth0 up && ip addr add 10.2.0.2/24 dev eth1 && ip link set eth1 up'
check "rings as asked for" in_guest '[ $(cut -c35 /sys/class/net/eth0/device/features)$(cut -c35 /sys/class/net/eth1/device/features) = 01 ]'
ip netns exec "$space" busybox httpd -f -p 5001 -h "$work" &
pids="$pids $!"
in_guest 'httpd -p 5002 -h /tmp'
works split split eth0 10.1.0
works packed packed eth1 10.2.0
check "the kernel complains about nothing" in_guest "! dmesg | grep -E 'BUG|Call Trace|NETDEV WATCHDOG'"
check "the machine ends, no command had failed" guest_end
end_peer "$split_pid"
end_peer "$card_pid"
tap_end
