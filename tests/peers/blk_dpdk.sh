#!/bin/sh
# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
# DPDK's example block device: data, deaths under load, and what it cannot do.
. "$top_srcdir/tests/lib/tap.sh"
. "$top_srcdir/tests/lib/peer.sh"
cd "$work" || exit 1
kills=10

# data RINGS ARGUMENT…
data() {
	data_name=$1
	shift
	vhost_blk_serve || exit 1
	check "$data_name: 128 MiB at depth 32 written, read back, verified" \
		"$vhostctl" blk-test user:vhost.socket --size 128M --depth 32 "$@"
	end_peer "$vhost_blk_pid"
}

# Whether it reconnected after each death. A slow machine has fewer of them until the run is over, of which the last may
# have met nobody.
came_back() {
	came_back=$(sed -n 's/^ *"reconnects": \([0-9]*\).*/\1/p' killed.json)
	echo "${came_back:-no} reconnects"
	[ "$came_back" = $killed ] || { [ $killed -lt $kills ] && [ "$came_back" = $((killed - 1)) ]; } || return
	[ "$came_back" -ge 3 ]
}
vhost_blk_serves_or_over() {
	vhost_blk_has_frontend || gone "$run"
}
vhost_blk_dead_or_over() {
	gone "$vhost_blk_pid" || gone "$run"
}

# deaths NAME ARGUMENT…: its memory disk dies with it: completions count, data does not
deaths() {
	deaths_name=$1
	shift
	vhost_blk_serve || exit 1
	"$vhostctl" blk-test user:vhost.socket --size 128M --depth 32 --duration 7 --no-verify --reconnect 20000 --json "$@" \
		>killed.json 2>killed.err &
	run=$!
	pids="$pids $run"
	vhost_blk_serves
	killed=0
	while [ $killed -lt $kills ]; do
		sleep 0.1
		if gone $run; then break; fi
		end_peer "$vhost_blk_pid"
		killed=$((killed + 1))
		vhost_blk_serve && until_true $patience vhost_blk_serves_or_over || break
	done
	check "$deaths_name: killed $killed times under load, each request completes once" wait $run
	sed 's/^/# /' killed.err
	check "$deaths_name: it reconnected each time" came_back
	sed -n 's/^ *"resubmitted": \([0-9]*\).*/# \1 requests offered again/p' killed.json
	end_peer "$vhost_blk_pid"
}

# falls POINT N [MS]: it dies at the N-th request in a packed ring, once, and comes back; so long a silence is the end
falls() {
	vhost_blk_serve "$1:$2" || exit 1
	"$vhostctl" blk-test user:vhost.socket --size 16M --depth 32 --no-verify --timeout "${3-20000}" --packed --inflight \
		>fallen.out 2>&1 &
	run=$!
	pids="$pids $run"
	vhost_blk_dies || echo "# it lives"
	vhost_blk_serve || exit 1
	wait $run
	fallen=$?
	end_peer "$vhost_blk_pid"
	return $fallen
}

# packed_deaths: the protocol of deaths, but it dies at chosen places: at others it does not come back (see below)
packed_deaths() {
	vhost_blk_serve served:1000 || exit 1
	"$vhostctl" blk-test user:vhost.socket --size 128M --depth 32 --duration 7 --no-verify --reconnect 20000 --json --packed \
		--inflight >killed.json 2>killed.err &
	run=$!
	pids="$pids $run"
	killed=0
	while [ $killed -lt $kills ]; do
		until_true $patience vhost_blk_dead_or_over && gone "$vhost_blk_pid" || break
		vhost_blk_dies
		killed=$((killed + 1))
		case $((killed % 2)):$killed in
		*:$kills) vhost_blk_serve ;;
		0:*) vhost_blk_serve served:$((1000 + 37 * killed)) ;;
		*) vhost_blk_serve cleared:$((1000 + 37 * killed)) ;;
		esac || break
	done
	check "packed rings, inflight region: died $killed times under load, each request completes once" wait $run
	sed 's/^/# /' killed.err
	check "packed rings, inflight region: it reconnected each time" came_back
	end_peer "$vhost_blk_pid"
}

# region_ends_it: it goes on in the memory that it had before, and dies when it gets there while that is gone, which need not be the first time
region_ends_it() {
	for _ in $(seq 10); do
		timeout 60 "$top_builddir/tests/peers/talk" user:vhost.socket 2 1
		vhost_blk_dies 2 && return
	done
	return 1
}

check "vhost_blk builds from Debian's sources" vhost_blk_build
data "split rings"
data "split rings, inflight region" --inflight
deaths "split rings"

# It keeps the index of a request's first descriptor in 8 bits.
vhost_blk_serve || exit 1
check_fails "a ring of 512 entries ends it" \
	"$vhostctl" blk-test user:vhost.socket --size 16M --depth 128 --reconnect 0
check "by its own assertion" grep -q 'process_blk_task: Assertion' vhost_blk.log
vhost_blk_serve || exit 1
check "another region while it runs ends it" region_ends_it

check "vhost_blk builds with its inflight region repaired" vhost_blk_build repaired
data "packed rings, inflight region" --packed --inflight
deaths "split rings, inflight region" --inflight
check "it executed again what was in flight" test "$(sed -n 's/.*"resubmitted": \([0-9]*\).*/\1/p' killed.json)" = 0

# Which writes of the last completion came through, a back-end finds out after a death by what the ring shows at
# old_used_idx. DPDK looks at the entry of that number in the region instead, which belongs to any other request or to none
# (vhost_check_queue_inflights_packed() in lib/vhost/vhost_user.c). So it takes a death between moving used_idx and clearing
# the mark for a later one: it continues behind the request, serves it again nevertheless, and leaves a hole of 3
# descriptors in the ring that the driver waits at. It is right only if the number is that of the marked entry, which is 0
# here, and the ring does not have the descriptor yet. Request 33 is at index 0, request 40 at 21, request 64 at 93.
check "vhost_blk builds ready to die between two steps" vhost_blk_build mortal
packed_deaths
check "packed ring, executed when it died: it goes on" falls served 40
check "packed ring, index 0, not used when it died: it goes on" falls counted 33
check_fails "packed ring, index 21, not used when it died: it loses its place" falls counted 40 2000
check "32 requests stay unanswered" grep -q 'no completion for 2000 ms, 32 requests in flight' fallen.out
check_fails "packed ring, index 93, not used when it died: it loses its place" falls counted 64 2000
check_fails "packed ring, index 0, used but still marked when it died: it loses its place" falls used 33 2000
check_fails "packed ring, index 21, used but still marked when it died: it loses its place" falls used 40 2000
check "packed ring, not marked any more when it died: it goes on" falls cleared 40
tap_end
