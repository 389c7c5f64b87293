#!/bin/sh
# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
# Each peer is taken through everything that it offers; what was said on the socket must be what tests/peers/matrix says.
. "$top_srcdir/tests/lib/tap.sh"
. "$top_srcdir/tests/lib/peer.sh"
matrix=$top_srcdir/tests/peers/matrix.py
talk=$top_builddir/tests/peers/talk
cd "$work" || exit 1

# recorded PEER COMMAND…: runs it, what it says is added to PEER.record
recorded() {
	recorded_peer=$1
	shift
	LD_PRELOAD=$top_builddir/tests/peers/.libs/record_shim.so RECORD_SHIM=$work/$recorded_peer.record "$@"
}
# package NAME: its version
package() {
	dpkg-query -W -f '${Version}' "$1"
}
# compare PEER VERSION
compare() {
	check "$1: the table is about this version" "$matrix" version "$1" "$2"
	check "$1: the messages of the table were exchanged, and no others" "$matrix" said "$1" "$1.record"
	echo "# $1: $(grep -c '^>' "$1.record") times sent, $(grep -c '^<' "$1.record") times received"
}

check "docs/peers.md is up to date" "$matrix" doc --check
truncate -s 8M disk.img

qsd_file "$work/s" disk.img 2 || exit 1
check "qsd: control plane" recorded qsd "$talk" user:s 2 2
check "qsd: requests" recorded qsd "$vhostctl" blk-test user:s --size 1M --queues 2
compare qsd "$(qemu-storage-daemon --version)"
end_peer "$qsd_pid"
rm -f s

testpmd iface=s || exit 1
check "net_vhost: control plane" recorded net_vhost "$talk" user:s 1 4
check "net_vhost: frames" recorded net_vhost "$vhostctl" net-test user:s --pairs 2 --frames 2000
compare net_vhost "$(package dpdk-dev)"
end_peer "$testpmd_pid"

vhost_blk_build && vhost_blk_serve || exit 1
check "vhost_blk: control plane" recorded vhost_blk "$talk" user:vhost.socket 2 1 fixed
check "vhost_blk: requests" recorded vhost_blk "$vhostctl" blk-test user:vhost.socket --size 1M
compare vhost_blk "$(package dpdk-doc)"
end_peer "$vhost_blk_pid"

vdpa "$work/s" || exit 1
check "vdpa: control plane" recorded vdpa "$talk" user:s 0 2
: >vdpa.log
check "vdpa: doorbells and configuration changes" recorded vdpa "$top_builddir/tests/peers/told" user:s
check "vdpa: the driver knows that we agreed" test "$(grep -c '^vdpa: .*: 0$' vdpa.log)" = 6
compare vdpa "$(package dpdk-dev)"
end_peer "$vdpa_pid"

truncate -s 8M other.img
for version in new old; do
	rm -f s other
	rust_blk $version && rust_serve "$work/s" disk.img 2 || exit 1
	check "rust_$version: control plane" recorded rust_$version "$talk" user:s 2 2
	check "rust_$version: requests" recorded rust_$version "$vhostctl" blk-test user:s --size 1M --queues 2
	first=$rust_pid other=
	if [ $version = new ]; then
		rust_serve "$work/other" other.img 1 || exit 1
		other=user:other
	fi
	# shellcheck disable=SC2086 # one word or none
	check "rust_$version: shared objects and windows" \
		recorded rust_$version "$top_builddir/tests/peers/share" user:s disk.img $other
	if [ $version = new ]; then
		check "rust_new: device state" recorded rust_new "$top_builddir/tests/peers/state" save user:s disk.state
		check "rust_new: and back" recorded rust_new "$top_builddir/tests/peers/state" load user:s disk.state
	fi
	compare rust_$version "$(crate $version vhost-user-backend)"
	end_peer "$first"
	end_peer "$rust_pid"
done

virtiofsd "$work/fs" || exit 1
check "virtiofsd: control plane" recorded virtiofsd "$talk" user:fs 26 2 once
check "virtiofsd: it ends with the connection" wait "$virtiofsd_pid"
virtiofsd "$work/fs" || exit 1
check "virtiofsd: probe" "$vhostctl" probe user:fs --type fs
virtiofsd "$work/fs" || exit 1
check "virtiofsd: requests" recorded virtiofsd "$top_builddir/tests/peers/fuse" user:fs shared
compare virtiofsd "$(/usr/lib/qemu/virtiofsd --version)"

libvhost_user "$work/s" || exit 1
check "libvhost_user: control plane" recorded libvhost_user "$talk" user:s 0 2 once
check "libvhost_user: it ends with the connection" wait "$libvhost_user_pid"
libvhost_user "$work/s" || exit 1
check "libvhost_user: notifications as messages and by doorbell" \
	recorded libvhost_user "$top_builddir/tests/peers/notify" user:s
compare libvhost_user "$("$top_srcdir/tests/lib/libvhost-user" --version)"
tap_end
