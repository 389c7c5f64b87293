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
		end_peer "$vhost_blk_pid"
		killed=$((killed + 1))
		vhost_blk_serve && vhost_blk_serves || break
	done
	check "$deaths_name: killed $killed times under load, each request completes once" wait $run
	sed 's/^/# /' killed.err
	check "$deaths_name: it reconnected each time" grep -q "\"reconnects\": $kills," killed.json
	sed -n 's/^ *"resubmitted": \([0-9]*\).*/# \1 requests offered again/p' killed.json
	end_peer "$vhost_blk_pid"
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
check_fails "another region while it runs ends it" "$top_builddir/tests/peers/talk" user:vhost.socket 2 1
check_fails "it is gone" kill -0 "$vhost_blk_pid"

check "vhost_blk builds with its inflight region repaired" vhost_blk_build repaired
deaths "split rings, inflight region" --inflight
check "it executed again what was in flight" test "$(sed -n 's/.*"resubmitted": \([0-9]*\).*/\1/p' killed.json)" = 0
tap_end
