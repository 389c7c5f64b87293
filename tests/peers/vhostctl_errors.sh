#!/bin/sh
# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
# vhostctl with bad input: one clear line, non-zero exit, nothing left behind.
. "$top_srcdir/tests/lib/tap.sh"
. "$top_srcdir/tests/lib/peer.sh"

# complains WHAT EXPECTED-TEXT ARGUMENT…
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
complains "serve without a store" "either --file or --ram" serve blk --socket "$work/s"
complains "serve with both stores" "either --file or --ram" serve blk --socket "$work/s" --ram 1M --file x
complains "serve: no such file" "$work/none" serve blk --socket "$work/s" --file "$work/none"
complains "serve: a directory as store" "$work/dir" serve blk --socket "$work/s" --file "$work/dir"
complains "serve: socket in no folder" "$work/none/s" serve blk --quiet --socket "$work/none/s" --ram 1M
complains "serve: socket path is a regular file" "$work/file" serve blk --quiet --socket "$work/file" --ram 1M
complains "trace without a URI" "two arguments" trace "$work/s"
check "help" sh -c '"$1" --help | grep -q blk-test && "$1" probe --help | grep -q URI' sh "$vhostctl"
check "version" sh -c '"$1" --version | grep -q "^vhostctl [0-9]"' sh "$vhostctl"
tap_end
