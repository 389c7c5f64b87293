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
complains "serve: socket in no folder" "$work/none/s" serve blk --quiet --socket "$work/none/s" --ram 1M
complains "serve: socket path is a regular file" "$work/file" serve blk --quiet --socket "$work/file" --ram 1M
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
