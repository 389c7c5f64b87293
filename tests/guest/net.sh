#!/bin/sh
# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
# A Debian kernel in QEMU has network cards of ours: with split rings, with packed ones, with two pairs of queues, and one
# that only a legacy driver can have. The wires are taps in a network namespace of this test. Frames are counted on both
# sides.
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

# card TAP NET [OPTION…]: its wire and its back-end; sets $card_pid
card() {
	card_tap=$1
	# shellcheck disable=SC2086 # one word or none
	inside ip tuntap add mode tap name "$1" ${card_kind-}
	inside ip addr add "$2.1/24" dev "$1"
	inside ip link set "$1" up
	shift 2
	ip netns exec "$space" "$vhostctl" serve net --socket "$work/$card_tap.sock" --tap "$card_tap" "$@" >>"$work/card.log" 2>&1 &
	card_pid=$!
	pids="$pids $card_pid"
	cards="$cards $card_pid"
	wait_for_socket "$work/$card_tap.sock" $card_pid
}

# per_queue: frames that each queue of a pair's side sent, from what tc says, largest queue first
per_queue() {
	awk '/parent/ { queue = 1 } queue && /Sent/ { print $4; queue = 0 }' "$1" | sort -rn | xargs
}
# both FILE LEAST: whether two queues, and no others, sent at least so many frames
both() {
	per_queue "$1"
	# shellcheck disable=SC2046 # numbers
	set -- "$2" $(per_queue "$1")
	[ $# = 3 ] && [ "$3" -ge "$1" ]
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

# for each processor, and so each pair: pings, and the file
pairs_load() {
	echo 'for n in 1 2; do (taskset $n ping -q -c 500 -i 0.001 -W 10 10.3.0.1 && taskset $n wget -q -O /tmp/data$n http://10.3.0.1:5001/data) & done; wait; rm /tmp/data1 /tmp/data2'
}

guest_programs=/sbin/tc # busybox counts nothing
guest_build || exit 1
ip netns add "$space" || exit 1
trap 'ip netns del "$space"; tap_exit' EXIT
dd if=/dev/urandom of="$work/data" bs=$bytes count=1 status=none
# nothing but what this test sends
inside sysctl -q net.ipv6.conf.all.disable_ipv6=1 net.ipv6.conf.default.disable_ipv6=1
guest_parameters=ipv6.disable=1
cards=
card split 10.1.0
card packed 10.2.0
card legacy 10.4.0
card_kind=multi_queue
card pairs 10.3.0 --queues 4 --workers 2
# without KVM this QEMU dies when a card of a vhost-user back-end has MSI-X
device=vectors=0,romfile=
# netdev NAME [OPTION]
netdev() {
	echo "-chardev socket,id=$1,path=$work/$1.sock,reconnect=1 -netdev vhost-user,id=$1,chardev=$1${2+,$2}"
}
# shellcheck disable=SC2046 # many words
guest_boot net $(netdev split) -device virtio-net-pci,netdev=split,disable-legacy=on,$device \
	$(netdev packed) -device virtio-net-pci,netdev=packed,disable-legacy=on,packed=on,$device \
	$(netdev pairs queues=2) -device virtio-net-pci,netdev=pairs,disable-legacy=on,mq=on,$device \
	$(netdev legacy) -device virtio-net-pci,netdev=legacy,disable-legacy=off,disable-modern=on,$device || exit 1
check "four cards come up" in_guest 'for n in 0 1 2 3; do ip addr add 10.$((n + 1)).0.2/24 dev eth$n && ip link set eth$n up || exit; done'
check "rings as asked for" in_guest '[ $(cut -c35 /sys/class/net/eth0/device/features)$(cut -c35 /sys/class/net/eth1/device/features) = 01 ]'
ip netns exec "$space" busybox httpd -f -p 5001 -h "$work" &
pids="$pids $!"
in_guest 'httpd -p 5002 -h /tmp'
works split split eth0 10.1.0
works packed packed eth1 10.2.0
check "the card with two pairs uses both" in_guest '[ "$(cd /sys/class/net/eth2/queues && echo *)" = "rx-0 rx-1 tx-0 tx-1" ]'
works "two pairs" pairs eth2 10.3.0
check "the guest pings and loads on both processors at once" in_guest "$(pairs_load)"
in_guest '/sbin/tc -s qdisc show dev eth2' >"$work/sent.guest"
inside tc -s qdisc show dev pairs >"$work/sent.host"
check "two pairs: the guest sent on both" both "$work/sent.guest" 500
sed 's/^/# frames on each: /' "$work/.out"
check "two pairs: it received on both" both "$work/sent.host" 100
sed 's/^/# frames on each: /' "$work/.out"
check "a legacy driver has the last card" in_guest '[ $(cut -c33 /sys/class/net/eth3/device/features) = 0 ]'
works "legacy driver" legacy eth3 10.4.0
check "the kernel complains about nothing" in_guest "! dmesg | grep -E 'BUG|Call Trace|NETDEV WATCHDOG'"
check "the machine ends, no command had failed" guest_end
for pid in $cards; do end_peer "$pid"; done
tap_end
