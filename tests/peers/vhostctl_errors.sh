#!/bin/sh
# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
# vhostctl with bad input: one clear line, non-zero exit, nothing left behind.
. "$top_srcdir/tests/lib/tap.sh"
. "$top_srcdir/tests/lib/peer.sh"

touch "$work/file"
mkdir "$work/dir" "$work/locked"
complains "unknown command" "no command 'frobnicate'" frobnicate
for command in probe blk-test; do
	complains "$command: no URI" "URI is missing" $command
	complains "$command: unknown scheme" "scheme" $command tcp:/1.2.3.4
	complains "$command: empty path" "path" $command user:
	complains "$command: no such socket" "$work/none" $command "user:$work/none"
	complains "$command: a regular file" "$work/file" $command "user:$work/file"
	complains "$command: a directory" "$work/dir" $command "user:$work/dir"
	complains "$command: a path longer than a socket address" "path" $command "user:/$(printf '%0200d' 0)"
	complains "$command: unknown flag" "unrecognized option" $command --frobnicate user:x
	complains "$command: two URIs" "one URI" $command user:a user:b
done
if [ "$(id -u)" = 0 ] && command -v setpriv >/dev/null; then
	chmod 700 "$work/locked"
	python3 -c 'import socket, sys; s = socket.socket(socket.AF_UNIX); s.bind(sys.argv[1])' "$work/locked/s"
	chmod 711 "$work"
	check "no permission" sh -c \
		'! setpriv --reuid 65534 --clear-groups "$1" probe "user:$2" 2>"$3" && grep -q EACCES "$3"' \
		sh "$vhostctl" "$work/locked/s" "$work/file"
	check "serve: no permission to make the socket" sh -c \
		'! setpriv --reuid 65534 --clear-groups "$1" serve blk --socket "$2" --ram 1M 2>"$3" && grep -q "no permission" "$3"' \
		sh "$vhostctl" "$work/locked/t" "$work/file"
	check "serve: no permission to make the tap" sh -c \
		'! setpriv --reuid 65534 --clear-groups "$1" serve net --socket "$2" --tap lv-none 2>"$3" && grep -q "tap lv-none: .*permitted" "$3"' \
		sh "$vhostctl" "$work/s" "$work/file"
	: >"$work/file"
fi
for bad in 0 -1 1.5 x 99999999999999999999 1Q 512E; do
	complains "blk-test --size $bad" "--size" blk-test --size=$bad user:x
done
complains "blk-test --size 513" "multiples of 512" blk-test --size 513 user:x
complains "blk-test --queues 257" "outside 1..256" blk-test --queues 257 user:x
complains "blk-test --depth 0" "outside 1..256" blk-test --depth 0 user:x
complains "probe --type" "not a device type" probe --type toaster user:x
complains "serve without a device" "must be 'blk'" serve --socket "$work/s" --ram 1M
complains "serve without a socket" "socket is missing" serve blk --ram 1M
complains "serve without a store" "one of --file, --ram and --null" serve blk --socket "$work/s"
complains "serve with two stores" "one of --file, --ram and --null" serve blk --socket "$work/s" --ram 1M --file x
complains "serve with a store and with none" "one of --file, --ram and --null" serve blk --socket "$work/s" --ram 1M --null 1M
complains "serve: no such file" "$work/none" serve blk --socket "$work/s" --file "$work/none"
complains "serve: a directory as store" "$work/dir" serve blk --socket "$work/s" --file "$work/dir"
complains "serve: socket in no folder" "$work/none/s': its folder is missing" serve blk --socket "$work/none/s" --ram 1M
complains "serve: socket path is a regular file" "$work/file': a file that is no socket" serve blk --socket "$work/file" --ram 1M
complains "serve: socket path is a directory" "$work/dir': a file that is no socket" serve blk --socket "$work/dir" --ram 1M
complains "serve: no socket path" "path is empty" serve blk --socket "" --ram 1M
complains "serve: a path longer than a socket address" "longer than the 107 bytes" serve blk --socket "/$(printf '%0200d' 0)" --ram 1M
complains "serve: a socket that cannot be in a file system" "cannot listen on '/proc/s'" serve blk --socket /proc/s --ram 1M
"$vhostctl" serve blk --socket "$work/used" --ram 1M >"$work/out.served" 2>&1 &
served=$!
check "serve: it says so when it listens" timeout 20 sh -c 'until grep -q ^serving "$1"; do sleep 0.05; done' sh "$work/out.served"
complains "serve: a socket in use" "$work/used': somebody listens there" serve blk --socket "$work/used" --ram 1M
kill $served
check "serve: ended by a signal it leaves no socket" timeout 20 sh -c 'until [ ! -e "$1" ]; do sleep 0.05; done' sh "$work/used"
wait $served
complains "serve console from a file" "$work/file is no terminal, pipe or socket" serve console --socket "$work/s" --input "$work/file"
timeout 2 "$vhostctl" serve blk --connect --socket "$work/none" --ram 1M >"$work/out.connect" 2>&1
check "serve --connect names whom it cannot reach, once" \
	sh -c '[ "$(grep -c "cannot connect to $2: ENOENT; tried again" "$1")" = 1 ]' sh "$work/out.connect" "$work/none"
complains "trace without a URI" "two arguments" trace "$work/s"
complains "freeze without a file" "a file is missing" freeze
complains "freeze without a URI" "a URI is missing" freeze "$work/snap"
complains "freeze with three arguments" "one file and one URI" freeze a user:b c
complains "freeze: no such folder" "$work/none/snap" freeze "$work/none/snap" "user:$work/none"
complains "freeze: a directory is in the way" "$work/dir: not a regular file" freeze "$work/dir" "user:$work/none"
complains "freeze: no such socket" "$work/none" freeze "$work/snap" "user:$work/none"
complains "freeze --at behind --size" "is behind --size" freeze --size 1M --at 2M "$work/snap" user:x
complains "freeze --at 100" "must be a multiple of 512 bytes" freeze --at 100 "$work/snap" user:x
complains "freeze --under-load --packed" "needs split rings" freeze --under-load --packed "$work/snap" user:x
complains "freeze --depth 257" "outside 1..256" freeze --depth 257 "$work/snap" user:x
complains "thaw without a file" "a file is missing" thaw
complains "thaw with three arguments" "one file and one URI" thaw a user:b c
complains "thaw: no such file" "$work/none: No such file" thaw "$work/none"
complains "thaw: a directory" "not a regular file" thaw "$work/dir"
complains "thaw: an empty file" "damaged" thaw "$work/file"
complains "upgrade without a URI" "URI is missing" upgrade
check "help" sh -c '"$1" --help | grep -q blk-test && "$1" probe --help | grep -q URI' sh "$vhostctl"
check "version" sh -c '"$1" --version | grep -q "^vhostctl [0-9]"' sh "$vhostctl"
tap_end
