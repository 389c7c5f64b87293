# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
# shellcheck shell=sh disable=SC2154 # $work comes from tap.sh
# Starts real peers for shell tests. Source after tap.sh. Processes go to $pids and end with the test.
# shellcheck disable=SC2034 # for the tests that source this
vhostctl=$top_builddir/tools/vhostctl/vhostctl

# complains WHAT EXPECTED-TEXT ARGUMENT…: vhostctl says it in one line, fails, and leaves nothing behind in $work
complains() {
	what=$1 text=$2
	shift 2
	find "$work" -mindepth 1 ! -name "out*" >"$work/out.before"
	timeout 20 "$vhostctl" "$@" >"$work/out.stdout" 2>"$work/out.stderr"
	status=$?
	find "$work" -mindepth 1 ! -name "out*" >"$work/out.after"
	if [ $status != 1 ]; then
		echo "status $status" >>"$work/out.stderr"
		not_ok "$what" "$work/out.stderr"
	elif [ -s "$work/out.stdout" ] || [ "$(sed '/^Try /,$d' "$work/out.stderr" | wc -l)" != 1 ]; then
		not_ok "$what: not one line on standard error" "$work/out.stderr"
	elif ! grep -q -i -e "$text" "$work/out.stderr"; then
		not_ok "$what: does not say '$text'" "$work/out.stderr"
	elif ! cmp -s "$work/out.before" "$work/out.after"; then
		not_ok "$what: left something behind" "$work/out.after"
	else
		ok "$what"
	fi
}

# Only a failure lasts as long as this, in seconds.
patience=60

# gone PID: whether that child has ended
gone() {
	! grep -q '^State:.[^Z]' "/proc/$1/status" 2>/dev/null
}

# listens PATH PID: the flag says that it is past bind() and listens
listens() {
	[ -S "$1" ] && grep -q " 00010000 .* $1\$" "/proc/$2/net/unix" 2>/dev/null
}

# wait_for_socket PATH [PID]: until somebody listens there, or the process that was started last is dead; PID is one in
# the listener's network namespace
wait_for_socket() {
	if until_true $patience listens_or_ends "$1" "${2-self}" "$!" && listens "$1" "${2-self}"; then return 0; fi
	echo "# nobody listens on $1" >&2
	tap_logs | sed 's/^/# /' >&2
	return 1
}
listens_or_ends() {
	listens "$1" "$2" || { [ "$3" ] && gone "$3"; }
}

# mid_run IMAGE PID: until a run has written to a sparse image, whose blocks it finds empty, and goes on
mid_run() {
	until_true $patience written_or_ends "$1" "$2"
	gone "$2" && echo "# the run is over before the death in it"
	return 0
}
written_or_ends() {
	[ "$(stat -c %b "$1")" -gt 0 ] || gone "$2"
}
# empty_image PATH SIZE
empty_image() {
	truncate -s 0 "$1" && truncate -s "$2" "$1"
}

# end_peer PID: kill -9, and wait until its files and locks are free
end_peer() {
	kill -9 "$1" 2>/dev/null || :
	wait "$1" 2>/dev/null || :
}

# qsd_null SOCKET [QUEUES]: qemu-storage-daemon, 1 GiB that swallows writes; sets $qsd_pid
qsd_null() {
	qemu-storage-daemon --blockdev driver=null-co,node-name=n0,size=1073741824,read-zeroes=off \
		--export "type=vhost-user-blk,id=e0,node-name=n0,addr.type=unix,addr.path=$1,writable=on,num-queues=${2:-4}" \
		>>"$work/qsd.log" 2>&1 &
	qsd_pid=$!
	pids="$pids $qsd_pid"
	wait_for_socket "$1"
}

# qsd_file SOCKET IMAGE [QUEUES]: the same over a raw file
qsd_file() {
	qemu-storage-daemon --blockdev "driver=file,node-name=f0,filename=$2" --blockdev driver=raw,node-name=r0,file=f0 \
		--export "type=vhost-user-blk,id=e0,node-name=r0,addr.type=unix,addr.path=$1,writable=on,num-queues=${3:-4},logical-block-size=512" \
		>>"$work/qsd.log" 2>&1 &
	qsd_pid=$!
	pids="$pids $qsd_pid"
	wait_for_socket "$1"
}

# serve SOCKET ARGUMENT…: our own back-end; sets $serve_pid
serve() {
	serve_socket=$1
	shift
	"$vhostctl" serve blk --socket "$serve_socket" "$@" >>"$work/serve.log" 2>&1 &
	serve_pid=$!
	pids="$pids $serve_pid"
	wait_for_socket "$serve_socket"
}

# testpmd VDEV-ARGUMENTS [OPTION…]: DPDK's net_vhost with 2 queue pairs, which sends every frame back on the pair it came
# from. Commands go to descriptor 9. Sets $testpmd_pid.
testpmd() {
	testpmd_vdev=$1
	shift
	testpmd_with "net_vhost0,queues=2,$testpmd_vdev" "$@"
}

# virtio_user SOCKET VDEV-ARGUMENTS [OPTION…]: DPDK's front-end with 2 queue pairs, which sends every frame back on the
# pair it came from with its addresses swapped
virtio_user() {
	testpmd_vdev=$2
	virtio_user_socket=$1
	shift 2
	testpmd_with "net_virtio_user0,path=$virtio_user_socket,queues=2$testpmd_vdev" --forward-mode=macswap "$@"
}

# testpmd_with VDEV [OPTION…]: memory without huge pages; frames that came before forwarding began are kept
testpmd_with() {
	testpmd_vdev=$1
	shift
	rm -f "$work/testpmd.in"
	mkfifo "$work/testpmd.in"
	exec 9<>"$work/testpmd.in"
	: >"$work/testpmd.log"
	RUNTIME_DIRECTORY=$work stdbuf -oL dpdk-testpmd --no-huge -m 256 --no-pci --lcores "0@0,1@0" --no-telemetry \
		--log-level=lib.vhost.config:error --vdev "$testpmd_vdev" -- \
		-i --auto-start --no-flush-rx --no-mlockall --nb-cores=1 --txq=2 --rxq=2 --total-num-mbufs=4096 "$@" \
		<"$work/testpmd.in" >"$work/testpmd.log" 2>&1 9>&- &
	testpmd_pid=$!
	pids="$pids $testpmd_pid"
	until_true $patience testpmd_runs_or_ends
	if grep -q ' packet forwarding packets/burst' "$work/testpmd.log"; then return 0; fi
	sed 's/^/# /' "$work/testpmd.log" >&2
	return 1
}
testpmd_runs_or_ends() {
	grep -q ' packet forwarding packets/burst' "$work/testpmd.log" || gone "$testpmd_pid"
}

# testpmd_forward MODE: what testpmd does with frames from now on: io, rxonly, …
testpmd_forward() {
	printf '%s\n' stop "set fwd $1" start >&9
	until_true $patience grep -q " $1 packet forwarding packets/burst" "$work/testpmd.log"
}

# testpmd_counts: how many frames it received and sent since it began, "RX TX"
testpmd_counts() {
	: >"$work/testpmd.log"
	echo 'show port stats 0' >&9
	until_true $patience grep -q 'Tx-pps' "$work/testpmd.log"
	awk '/^ *RX-packets:/ { rx = $2 } /^ *TX-packets:/ { print rx, $2 }' "$work/testpmd.log"
}

# rust_blk VERSION: builds the block device of tests/peers/rust, "new" or "old"; sets $rust_blk to the program
rust_blk() {
	rust_folder=$top_srcdir/tests/peers/rust/$1
	# the source lies beside the package, where cargo takes that of another checkout for the same
	rust_cache=$("$top_srcdir/scripts/cache-dir" "peer-$1" "$rust_folder/Cargo.lock" "$rust_folder/Cargo.toml" \
		"$rust_folder/../"*.rs) || return 1
	CARGO_TARGET_DIR=$rust_cache cargo build --quiet --release --locked --manifest-path "$rust_folder/Cargo.toml"
	rust_blk=$rust_cache/release/blk
	[ -x "$rust_blk" ]
}

# rust_frontends: builds the programs of tests/peers/rust/frontends; sets $rust_frontends to their folder
rust_frontends() {
	rust_folder=$top_srcdir/tests/peers/rust/frontends
	rust_cache=$("$top_srcdir/scripts/cache-dir" peer-frontends "$rust_folder/Cargo.lock" "$rust_folder/Cargo.toml") || return 1
	CARGO_TARGET_DIR=$rust_cache cargo build --quiet --release --locked --manifest-path "$rust_folder/Cargo.toml" || return 1
	rust_frontends=$rust_cache/release
}

# rust_serve SOCKET IMAGE [QUEUES]: runs it; sets $rust_pid
rust_serve() {
	"$rust_blk" "$1" "$2" "${3:-4}" >>"$work/rust.log" 2>&1 &
	rust_pid=$!
	pids="$pids $rust_pid"
	wait_for_socket "$1"
}

# crate VERSION NAME: which release of a crate that device is made of
crate() {
	sed -n "/^name = \"$2\"/{n;s/version = \"\(.*\)\"/\1/p;}" "$top_srcdir/tests/peers/rust/$1/Cargo.lock"
}

# vhost_blk_build [repaired|mortal]: compiles the example block device of Debian's dpdk-doc; sets $vhost_blk to the program.
# As shipped it looks for the protocol feature INFLIGHT_SHMFD among the virtio features, so that it never reads the region
# after a restart and never learns where a packed ring begins; and it gives what DPDK's allocator made to free(). "repaired"
# has both words right. "mortal" moreover can die between two steps of completing a request in a packed ring.
vhost_blk_build() {
	vhost_blk_sources=/usr/share/dpdk/examples/vhost_blk
	vhost_blk_cache=$("$top_srcdir/scripts/cache-dir" "vhost_blk-${1:-shipped}" "$vhost_blk_sources"/*.[ch] \
		"$top_srcdir/tests/lib/peer.sh" "$top_srcdir/tests/peers/vhost_blk_die.h") || return 1
	vhost_blk=$vhost_blk_cache/vhost_blk
	[ -x "$vhost_blk" ] && return
	mkdir -p "$vhost_blk_cache"
	cp "$vhost_blk_sources"/*.[ch] "$vhost_blk_cache"
	if [ "${1-}" ]; then
		sed -i -e 's/inflight_shmfd = !!(features &/inflight_shmfd = !!(protocol_features \&/' \
			-e 's/\tfree(resubmit_inflight->/\trte_free(resubmit_inflight->/' "$vhost_blk_cache/vhost_blk.c"
		[ "$(diff "$vhost_blk_cache/vhost_blk.c" "$vhost_blk_sources/vhost_blk.c" | grep -c '^<')" = 2 ] || return 1
	fi
	if [ "${1-}" = mortal ]; then
		# served: executed; counted: the region's used index moved on; used: the ring says so; cleared: no mark any more
		sed -i -e '/^enqueue_task_packed(/,/^}/ {
			s/^\trte_vhost_set_last_inflight_io_packed/\tdie("served");\n&/
			s/^\tdesc = &vq->vring/\tdie("counted");\n&/
			s/^\trte_vhost_clr_inflight_desc_packed/\tdie("used");\n&/
			s/^\tvq->last_used_idx +=/\tdie("cleared");\n&/
		}' "$vhost_blk_cache/vhost_blk.c"
		[ "$(grep -c '^.die("' "$vhost_blk_cache/vhost_blk.c")" = 4 ] || return 1
	fi
	# shellcheck disable=SC2046 # lists of words
	cc -O2 -DALLOW_EXPERIMENTAL_API $(pkg-config --cflags libdpdk) -o "$vhost_blk.$$" \
		$([ "${1-}" = mortal ] && echo -D_GNU_SOURCE -include "$top_srcdir/tests/peers/vhost_blk_die.h") "$vhost_blk_cache"/*.c \
		-pthread $(pkg-config --libs libdpdk) && mv "$vhost_blk.$$" "$vhost_blk"
}

# vhost_blk_serve [POINT:N [WRAPPER…]]: runs it, a 128 MiB memory disk at the fixed name vhost.socket in the current folder,
# which dies when it passes that point (unless that is empty) for the N-th time; sets $vhost_blk_pid
vhost_blk_serve() {
	rm -f vhost.socket
	vhost_blk_point=${1-}
	[ $# = 0 ] || shift
	RUNTIME_DIRECTORY=$work VHOST_BLK_DIE=$vhost_blk_point stdbuf -oL "$@" "$vhost_blk" --no-huge -m 256 --no-pci --lcores "0@0,1@0" \
		--file-prefix=blk --no-telemetry --log-level=lib.vhost.config:error >"$work/vhost_blk.log" 2>&1 &
	vhost_blk_pid=$!
	pids="$pids $vhost_blk_pid"
	wait_for_socket "$PWD/vhost.socket"
}

# vhost_blk_dies [SECONDS]: waits until it is dead by itself
vhost_blk_dies() {
	until_true "${1:-$patience}" gone "$vhost_blk_pid" && { wait "$vhost_blk_pid" 2>/dev/null || :; }
}

# vhost_blk_serves: waits until it runs a front-end; DPDK's event thread may sleep a second before it sees a new socket
vhost_blk_serves() {
	until_true $patience vhost_blk_has_frontend
}
vhost_blk_has_frontend() {
	grep -q 'Ctrlr Worker Thread start' "$work/vhost_blk.log"
}

# vdpa SOCKET: a vDPA driver on DPDK's vhost library; says in vdpa.log what became of its requests; sets $vdpa_pid
vdpa() {
	vdpa_source=$top_srcdir/tests/peers/dpdk/vdpa.c
	vdpa_cache=$("$top_srcdir/scripts/cache-dir" vdpa "$vdpa_source") || return 1
	if [ ! -x "$vdpa_cache/vdpa" ]; then
		mkdir -p "$vdpa_cache"
		# shellcheck disable=SC2046 # lists of words
		cc -O2 -Wall -Wextra -Werror -D_GNU_SOURCE -DALLOW_EXPERIMENTAL_API $(pkg-config --cflags libdpdk) -o "$vdpa_cache/$$" \
			"$vdpa_source" $(pkg-config --libs libdpdk) && mv "$vdpa_cache/$$" "$vdpa_cache/vdpa" || return 1
	fi
	rm -f "$1"
	RUNTIME_DIRECTORY=$work "$vdpa_cache/vdpa" "$1" --no-huge -m 64 --no-pci --lcores 0@0 --file-prefix=vdpa --no-telemetry \
		--log-level=lib.vhost.config:error --vdev net_null0 >>"$work/vdpa.log" 2>&1 &
	vdpa_pid=$!
	pids="$pids $vdpa_pid"
	wait_for_socket "$1"
}

# virtiofsd SOCKET: QEMU's own, over an empty folder; ends with its first connection; sets $virtiofsd_pid
virtiofsd() {
	mkdir -p "$work/shared"
	rm -f "$1"
	/usr/lib/qemu/virtiofsd --socket-path="$1" -o source="$work/shared" -o cache=auto -o sandbox=chroot -f \
		>>"$work/virtiofsd.log" 2>&1 &
	virtiofsd_pid=$!
	pids="$pids $virtiofsd_pid"
	wait_for_socket "$1"
}

# libvhost_user SOCKET: the echo device on QEMU's libvhost-user; ends with its first connection; sets $libvhost_user_pid
libvhost_user() {
	echo_device=$("$top_srcdir/tests/lib/libvhost-user" "$top_srcdir/tests/peers/qemu/echo.c") || return 1
	rm -f "$1"
	"$echo_device" "$1" >>"$work/libvhost_user.log" 2>&1 &
	libvhost_user_pid=$!
	pids="$pids $libvhost_user_pid"
	wait_for_socket "$1"
}
