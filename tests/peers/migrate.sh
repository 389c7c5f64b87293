#!/bin/sh
# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
# The memory half of migrations under load: no write of a peer is missed and no page reported without need, pages compared.
. "$top_srcdir/tests/lib/tap.sh"
. "$top_srcdir/tests/lib/peer.sh"
migrate=$top_builddir/tests/peers/migrate
blocks=4096

# exercise PEER ARGUMENTS: the program's lines, each under the peer's name
exercise() {
	peer=$1
	shift
	check "$peer: $*" sh -c '"$@" >"$0"' "$work/said" "$migrate" "$@"
	sed 's/^/# /' "$work/said"
}

head -c $((blocks * 4096)) /dev/urandom >"$work/disk.img"
exercise "our back-end, 10^7 writes" inproc 10000000
qsd_file "$work/s" "$work/disk.img" 2 || exit 1
exercise qemu-storage-daemon "user:$work/s" $blocks 200000
end_peer "$qsd_pid"
rm -f "$work/s"
for version in new old; do
	rust_blk $version || exit 1
	rust_serve "$work/s" "$work/disk.img" 2 || exit 1
	exercise "vhost-user-backend $(crate $version vhost-user-backend)" "user:$work/s" $blocks 100000
	end_peer "$rust_pid"
	rm -f "$work/s"
done
serve "$work/s" --file "$work/disk.img" --queues 2 || exit 1
exercise "vhostctl serve" "user:$work/s" $blocks 200000
tap_end
