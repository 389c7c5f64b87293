#!/bin/sh
# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
# DPDK's example block device, unmodified: data, deaths under load, and what it cannot do.
. "$top_srcdir/tests/lib/tap.sh"
. "$top_srcdir/tests/lib/peer.sh"
cd "$work" || exit 1
kills=10

check "vhost_blk builds from Debian's sources" vhost_blk_build
vhost_blk_serve || exit 1
check "128 MiB at depth 32 written, read back, verified" \
	"$vhostctl" blk-test user:vhost.socket --size 128M --depth 32

# Its memory disk dies with it: completions count, data does not.
"$vhostctl" blk-test user:vhost.socket --size 128M --depth 32 --duration 8 --no-verify --reconnect 20000 --json \
	>killed.json 2>killed.err &
run=$!
pids="$pids $run"
killed=0
sleep 0.5
while [ $killed -lt $kills ]; do
	end_peer "$vhost_blk_pid"
	killed=$((killed + 1))
	vhost_blk_serve && vhost_blk_serves || exit 1
	sleep 0.1
done
check "killed $killed times under load: each request completes once" wait $run
sed 's/^/# /' killed.err
check "it reconnected each time" grep -q "\"reconnects\": $killed," killed.json
sed -n 's/^ *"resubmitted": \([0-9]*\).*/# \1 requests offered again/p' killed.json

# It keeps the index of a request's first descriptor in 8 bits.
check_fails "a ring of 512 entries ends it" \
	"$vhostctl" blk-test user:vhost.socket --size 16M --depth 128 --reconnect 0
check "by its own assertion" grep -q 'process_blk_task: Assertion' vhost_blk.log
vhost_blk_serve || exit 1
check_fails "another region while it runs ends it" "$top_builddir/tests/peers/talk" user:vhost.socket 2 1
check_fails "it is gone" kill -0 "$vhost_blk_pid"
tap_end
