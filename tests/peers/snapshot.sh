#!/bin/sh
# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
# A guest is frozen to a file in the middle of its load, the back-end killed and started anew, the guest thawed in another
# process. The image is checked without libvhost.
. "$top_srcdir/tests/lib/tap.sh"
. "$top_srcdir/tests/lib/peer.sh"
image=$top_srcdir/tests/peers/check_image.py
forge=$top_srcdir/tests/peers/snapshot_forge.py
cd "$work" || exit 1
mkdir snaps
truncate -s 64M disk.img
seed=0

# number KEY FILE: of a JSON report
number() {
	sed -n "s/^ *\"$1\": \([0-9]*\).*/\1/p" "$2"
}

# snapshot NAME FREEZE-OPTION…: of the peer that start_peer starts at $work/s and that is $peer
snapshot() {
	name=$1
	shift
	seed=$((seed + 1))
	start_peer || exit 1
	check "$name: frozen in the middle" \
		sh -c 'exec "$@" >"$0"' frozen.json "$vhostctl" freeze snaps/disk user:s --seed $seed --json "$@"
	end_peer "$peer"
	rm -f s
	check_fails "$name: thaw without a back-end" "$vhostctl" thaw snaps/disk --timeout 100
	start_peer || exit 1
	check "$name: thawed at a fresh back-end, the load ends verified" \
		sh -c 'exec "$@" >"$0"' thawed.json "$vhostctl" thaw snaps/disk --json
	check "$name: 32 MiB verified before, 64 MiB afterwards, memory at another address" test \
		"$(number verified_bytes frozen.json)/$(number verified_bytes thawed.json)" = 33554432/67108864 -a \
		"$(number address_before thawed.json)" = "$(number address frozen.json)" -a \
		"$(number address thawed.json)" != "$(number address frozen.json)"
	check "$name: $(number in_flight frozen.json) requests lay in the rings and were completed" \
		test "$(number resumed thawed.json)" = "$(number in_flight frozen.json)"
	check "$name: the image holds the pattern at every offset" "$image" disk.img $seed 67108864
	echo "# blob $(number blob_bytes frozen.json) bytes;" \
		"running after $(sed -n 's/.*"connect_to_running_ms": \([0-9.]*\).*/\1/p' thawed.json) ms"
	end_peer "$peer"
	rm -f s
}

start_peer() {
	qsd_file "$work/s" disk.img 4 && peer=$qsd_pid
}
snapshot qsd --queues 4
check "qsd: all slots of all queues were in flight" test "$(number in_flight frozen.json)" = 128
cp snaps/disk qsd.snap
cp snaps/disk.guest qsd.snap.guest

# It says that a ring stopped while requests are still worked on, and may lose them. With 200 requests a second and 8 at
# work there is time to see it.
qemu-storage-daemon --object throttle-group,id=t,x-iops-total=200 \
	--blockdev driver=file,node-name=f0,filename=disk.img --blockdev driver=raw,node-name=r0,file=f0 \
	--blockdev driver=throttle,node-name=t0,throttle-group=t,file=r0 \
	--export "type=vhost-user-blk,id=e0,node-name=t0,addr.type=unix,addr.path=$work/slow,writable=on,num-queues=1,logical-block-size=512" \
	>>qsd.log 2>&1 &
slow=$!
pids="$pids $slow"
wait_for_socket "$work/slow" || exit 1
"$vhostctl" freeze slow.snap user:slow --block 1M --depth 8 --under-load --timeout 1000 --json >slow.json 2>slow.err
check "qsd under load is found at work after its stop, and no snapshot is taken then" \
	sh -c 'grep -q "stop: .*queue 0: the peer said that it stopped at .* and has not completed" slow.err ||
		{ [ -s slow.json ] && [ ! -s slow.err ]; }'
cat slow.err qsd.log | sed 's/^/# /'
end_peer "$slow"

start_peer() {
	serve "$work/s" --file disk.img --queues 4 && peer=$serve_pid
}
snapshot serve --queues 4 --under-load
snapshot "serve, packed" --queues 4 --packed
snapshot "serve, inflight" --queues 4 --inflight --under-load
snapshot "serve, packed, inflight" --queues 4 --packed --inflight
cp snaps/disk packed.snap
cp snaps/disk.guest packed.snap.guest

for version in new old; do
	rust_blk $version
	start_peer() {
		rust_serve "$work/s" disk.img 4 && peer=$rust_pid
	}
	snapshot "vhost-user-backend $(crate $version vhost-user-backend)" --queues 4 --under-load
done

# ---- what cannot be thawed ----

# refused WHAT TEXT THAW-ARGUMENT…
refused() {
	refused_what=$1
	refused_text=$2
	shift 2
	complains "thaw: $refused_what" "$refused_text" thaw "$@"
}
# forged WHAT TEXT FILE ARGUMENT…: refused without a look at the back-end
forged() {
	forged_what=$1
	forged_text=$2
	forged_file=$3
	shift 3
	cp qsd.snap bad.snap
	cp qsd.snap.guest bad.snap.guest
	"$forge" "qsd.$forged_file" "bad.$forged_file" "$@"
	refused "$forged_what" "$forged_text" bad.snap user:none
}
blob_bytes=$(stat -c %s qsd.snap)
guest_bytes=$(stat -c %s qsd.snap.guest)
for at in 0 1 39 40 100 $((blob_bytes - 1)); do
	forged "blob cut to $at bytes" '\[damaged\]' snap cut "$at"
done
for at in 0 9 17 25 33 38 60 200 $((blob_bytes - 1)); do
	forged "blob damaged at $at" '\[damaged\]' snap flip "$at"
done
for at in 0 95 96 5000 $((guest_bytes - 1)); do
	forged "guest cut to $at bytes" 'bad.snap.guest: cut short' snap.guest cut "$at"
done
for at in 0 8 16 24 28 32 36 40 48 64 88 96 5000 $((guest_bytes - 1)); do
	forged "guest damaged at $at" 'bad.snap.guest: ' snap.guest flip "$at"
done
forged "a snapshot of a network device" 'a device of type 1; only block devices' snap type 1
cp packed.snap bad.snap
cp qsd.snap.guest bad.snap.guest
refused "guest of another snapshot" 'of another snapshot' bad.snap
rm bad.snap.guest
refused "no guest" 'bad.snap.guest: No such file' bad.snap
if [ "$(id -u)" = 0 ] && command -v setpriv >/dev/null; then
	chmod 711 "$work"
	chmod 600 qsd.snap
	# stranger COMMAND ARGUMENT…: by somebody who may neither read nor write here
	stranger() {
		! setpriv --reuid 65534 --clear-groups "$vhostctl" "$@" 2>"$work/err" && grep -q 'Permission denied' "$work/err"
	}
	check "thaw: no permission to read" stranger thaw "$work/qsd.snap"
	check "freeze: no permission to write" stranger freeze "$work/snap" user:none
fi

# ---- where it cannot be thawed ----

qsd_file "$work/q" disk.img 1 || exit 1
refused "fewer queues" 'number of queues was 4, is 1' qsd.snap user:q
refused "a back-end without packed rings" 'VIRTIO_F_RING_PACKED' packed.snap user:q
end_peer "$qsd_pid"
truncate -s 16M small.img
rm -f q
qsd_file "$work/q" small.img 4 || exit 1
refused "a smaller disk" 'needs 67108864 bytes, this device has 16777216' qsd.snap user:q
end_peer "$qsd_pid"
virtiofsd "$work/fs" || exit 1
refused "a file system" 'came back without VIRTIO_BLK_F_' qsd.snap user:fs
check "what a snapshot is, without a back-end" sh -c '"$1" thaw --info "$2" | grep -q "4 queues, depth 32, split rings"' \
	sh "$vhostctl" qsd.snap
tap_end
