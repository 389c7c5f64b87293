#!/bin/sh
# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
# vhostctl net-test drives DPDK's net_vhost, which sends every frame back; both sides count.
. "$top_srcdir/tests/lib/tap.sh"
. "$top_srcdir/tests/lib/peer.sh"

# value KEY FILE: of a JSON report
value() {
	python3 -c 'import json, sys; print(json.load(open(sys.argv[2]))[sys.argv[1]])' "$1" "$2"
}
# is WHAT HAVE WANT
is() {
	check "$1: $2" test "$2" = "$3"
}

# loop RINGS FRAMES ARGUMENT…: all frames come back, and testpmd counted the same
loop() {
	rings=$1
	frames=$2
	shift 2
	rm -f net.sock # DPDK does not take over the file of a dead process
	testpmd iface=net.sock || exit 1
	check "$rings rings: $frames frames over 2 pairs come back once and unchanged" \
		sh -c 'exec "$@" >"$0"' "$work/net.json" "$vhostctl" net-test user:net.sock --pairs 2 --frames "$frames" --json "$@"
	is "$rings rings: frames received by testpmd and sent back by it" "$(testpmd_counts)" "$frames $frames"
	is "$rings rings: frames that libvhost sent" "$(value sent "$work/net.json")" "$frames"
	echo "# $(value frames_per_second "$work/net.json") frames/s both ways"
	end_peer "$testpmd_pid"
}

# frames_or_ends: whether testpmd got a frame of a run, or the run is over
frames_or_ends() {
	counts=$(testpmd_counts)
	[ "${counts% *}" -gt 0 ] || gone "$run"
}

# death RINGS VDEV-ARGUMENTS URI ARGUMENT…: testpmd dies in the middle and is started anew
death() {
	rings=$1
	vdev=$2
	uri=$3
	shift 3
	rm -f net.sock
	testpmd "$vdev" || exit 1
	"$vhostctl" net-test "$uri" --pairs 2 --frames 3000000 --json "$@" >"$work/net.json" 2>"$work/net.err" &
	run=$!
	pids="$pids $run"
	until_true $patience frames_or_ends
	end_peer "$testpmd_pid"
	[ "$uri" != user:net.sock ] || rm net.sock
	testpmd "$vdev" || exit 1
	check "$rings rings, $uri: killed and restarted in mid-run, every frame comes back once" wait "$run"
	sed 's/^/# /' "$work/net.err"
	is "$rings rings: reconnects" "$(value reconnects "$work/net.json")" 1
	echo "# $(value resent "$work/net.json") frames sent again, back after $(value slowest_reconnect_ms "$work/net.json") ms"
	end_peer "$testpmd_pid"
}

cd "$work" || exit 1
loop split 1000000
loop packed 1000000 --packed
loop packed 1000000 --packed --poll --bytes 60
death split iface=net.sock user:net.sock
death packed iface=net.sock,client=1 user-listen:net.sock --packed

# we hang up, the client comes back by itself
testpmd iface=net.sock,client=1 || exit 1
check "split rings: the connection is closed 5 times, testpmd comes back each time" \
	sh -c 'exec "$@" >"$0"' "$work/net.json" "$vhostctl" net-test user-listen:net.sock --pairs 2 --frames 600000 --drop 5 --json
is "reconnects" "$(value reconnects "$work/net.json")" 5
counts=$(testpmd_counts)
is "frames that testpmd sent back" "${counts#* }" 600000
echo "# testpmd received and sent $counts"

testpmd_forward rxonly
check_fails "frames that do not come back are noticed" \
	sh -c 'exec "$@" 2>"$0"' "$work/net.err" "$vhostctl" net-test user-listen:net.sock --pairs 2 --frames 1000 --timeout 1500
check "and counted by pair" grep -q 'pair 1: 256 frames sent, 0 came back' "$work/net.err"
tap_end
