#!/bin/sh
# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
# DPDK's front-end, virtio_user, at our network card: numbered frames go in from the wire, the guest swaps their
# addresses and sends them back; the wire and testpmd count. Half of the cards take control messages on a worker. As a
# server it keeps its rings while our card dies and connects again.
. "$top_srcdir/tests/lib/tap.sh"
. "$top_srcdir/tests/lib/peer.sh"
matrix=$top_srcdir/tests/peers/matrix.py
frames=100000
control="--control-worker --kill --caps-drop"
cd "$work" || exit 1

# negotiated RECORD: bits 32 to 39 of what the front-end accepted, in hexadecimal: 1 VERSION_1, 4 packed, 8 in order
negotiated() {
	awk '/^< [0-9]+ 02000000..00000008000000$/ { getline; print substr($3, 9, 2) }' "$1"
}
# loop NAME FEATURE-BITS VDEV-ARGUMENTS SERVE-OPTION…
loop() {
	name=$1
	bits=$2
	vdev=$3
	shift 3
	rm -f go card.record
	"$top_srcdir/tests/lib/traffic.py" go 2 $frames \
		env LD_PRELOAD="$top_builddir/tests/peers/.libs/record_shim.so" RECORD_SHIM="$work/card.record" "$vhostctl" serve net --socket card.sock --fd @ --queues 4 "$@" \
		>traffic.log 2>&1 &
	traffic=$!
	pids="$pids $traffic"
	wait_for_socket card.sock && virtio_user card.sock "$vdev" || exit 1
	touch go
	if wait $traffic; then
		ok "$name: $frames frames came back once, on their pair, unchanged but for swapped addresses"
	else
		not_ok "$name: $frames frames came back" traffic.log
	fi
	counts=$(testpmd_counts)
	check "$name: testpmd received and sent $counts" test "$counts" = "$frames $frames"
	sed -n 's/^sent/# sent/p' traffic.log
	end_peer "$testpmd_pid"
	check "$name: that is what was agreed on" test "$(negotiated card.record)" = "$bits"
	cat card.record >>all.record
}

# controlled NAME: whether the last card had a control worker
controlled() {
	check "$1: control messages were taken under a filter" grep -q 'control worker: .*Seccomp 2 NoNewPrivs 1' traffic.log
}

loop "split rings" 01 ,in_order=0
# shellcheck disable=SC2086 # words
loop "split rings, in order, control worker" 09 ,in_order=1 --workers 2 $control
controlled "split rings, in order"
# shellcheck disable=SC2086 # words
loop "packed rings, control worker" 05 ,packed_vq=1,in_order=0 $control
controlled "packed rings"
loop "packed rings, in order" 0d ,packed_vq=1,in_order=1 --workers 2
# deaths NAME RECORD-BITS VDEV-ARGUMENTS SERVE-OPTION…: it listens, our card connects, and is killed three times on the way
deaths() {
	name=$1
	bits=$2
	vdev=$3
	shift 3
	rm -f go card.sock card.record
	"$top_srcdir/tests/lib/traffic.py" --deaths 3 go 2 $frames \
		env LD_PRELOAD="$top_builddir/tests/peers/.libs/record_shim.so" RECORD_SHIM="$work/card.record" "$vhostctl" serve net --connect --socket card.sock --fd @ --queues 4 "$@" \
		>traffic.log 2>&1 &
	traffic=$!
	pids="$pids $traffic"
	virtio_user card.sock "$vdev,server=1" || exit 1
	touch go
	if wait $traffic; then
		ok "$name: $frames frames came back, though our card died 3 times"
	else
		not_ok "$name: $frames frames came back" traffic.log
	fi
	lost=$(awk '$1 == "lost" { print $2 }' traffic.log)
	counts=$(testpmd_counts)
	# shellcheck disable=SC2086 # two numbers
	check "$name: testpmd received and sent $counts, of which ${lost:-?} were sent again" \
		within $counts "${lost:-0}"
	sed -n 's/^\(sent\|lost\)/# &/p' traffic.log
	end_peer "$testpmd_pid"
	check "$name: four lives of the card" test "$(grep -c '^a front-end connected' traffic.log)" = 4
	check "$name: that is what was agreed on each time" test "$(negotiated card.record | sort | uniq -c | xargs)" = "4 $bits"
	cat card.record >>all.record
}
# within RECEIVED SENT LOST: what is lost is lost on the way to testpmd or back
within() {
	[ "$2" -ge $frames ] && [ "$1" -ge "$2" ] && [ "$1" -le $((frames + $3)) ]
}

deaths "split rings, server" 01 ,in_order=0
# shellcheck disable=SC2086 # words
deaths "packed rings, server, control worker" 05 ,packed_vq=1,in_order=0 $control
controlled "packed rings, server"
check "the table of peers is about this version" "$matrix" version virtio_user "$(dpkg-query -W -f '${Version}' dpdk-dev)"
check "the messages of the table were exchanged, and no others" "$matrix" said virtio_user all.record
tap_end
