#!/bin/sh
# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
# Many memory regions, which go and come under load: no request fails, no change waits more than once for the peer.
. "$top_srcdir/tests/lib/tap.sh"
. "$top_srcdir/tests/lib/peer.sh"
changes=2000

# exercise PEER REGIONS
exercise() {
	check "$1: $changes changes of $2 regions under load, each buffer read right" \
		sh -c 'LD_PRELOAD=$1 COUNT_SHIM=$2 exec "$3" "$4" "$5" "$6" "$7" >"$8"' sh \
		"$top_builddir/tests/peers/.libs/count_shim.so" "$work/counts" "$top_builddir/tests/peers/regions" \
		"user:$work/s" "$work/disk.img" "$2" $changes "$work/said"
	sed 's/^/# /' "$work/said"
	waits=$(sed -n 's/^changes [0-9]* \([0-9]*\) .*/\1/p' "$work/counts")
	check "$1: ${waits:-no} waits for $changes changes" test "${waits:-9999999}" -le $changes
}

truncate -s 8M "$work/disk.img"
for version in new old; do
	rust_blk $version || exit 1
	rust_serve "$work/s" "$work/disk.img" || exit 1
	exercise "vhost-user-backend $(crate $version vhost-user-backend)" 64
	end_peer "$rust_pid"
	rm -f "$work/s"
done
qsd_file "$work/s" "$work/disk.img" 1 || exit 1
exercise qemu-storage-daemon 32
end_peer "$qsd_pid"
serve "$work/s" --file "$work/disk.img" || exit 1
exercise "vhostctl serve" 64
tap_end
