#!/bin/sh
# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
# Dirty logs switched on and off under load, page by page. tests/peers/migrate.sh does it with more block devices.
. "$top_srcdir/tests/lib/tap.sh"
. "$top_srcdir/tests/lib/peer.sh"
log=$top_builddir/tests/peers/log
cd "$work" || exit 1
truncate -s 1M disk.img

# exercise PEER URI blk|net
exercise() {
	check "$1: every page written while logging is reported, no other" \
		sh -c 'exec "$@" >"$0"' said "$log" "$2" "$3" 3
	sed 's/^/# /' said
}

testpmd iface=s || exit 1
exercise "DPDK net_vhost" user:s net
end_peer "$testpmd_pid"
rm -f s
vhost_blk_build && vhost_blk_serve || exit 1
check_fails "DPDK vhost_blk has no dirty log" sh -c 'exec "$@" 2>"$0"' said "$log" user:vhost.socket blk 1
check "which is why logging is refused" grep -q 'does not offer a dirty log' said
end_peer "$vhost_blk_pid"
qsd_file "$work/s" disk.img 1 || exit 1
exercise qemu-storage-daemon user:s blk
tap_end
