#!/bin/sh
# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
# The dirty log of each peer that has one, switched on and off under load.
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
for version in new old; do
	rust_blk $version && rust_serve "$work/s" disk.img 1 || exit 1
	exercise "vhost-user-backend $(crate $version vhost-user-backend)" user:s blk
	end_peer "$rust_pid"
	rm -f s
done
qsd_file "$work/s" disk.img 1 || exit 1
exercise qemu-storage-daemon user:s blk
end_peer "$qsd_pid"
rm -f s
serve "$work/s" --file disk.img || exit 1
exercise "vhostctl serve" user:s blk
tap_end
