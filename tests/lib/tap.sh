# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
# shellcheck shell=sh
# TAP for shell tests. Source it, call the functions, end with tap_end. $work is a scratch folder, removed at exit.
tap_n=0
tap_failed=0
work=$(mktemp -d "${TMPDIR:-/tmp}/libvhost-test.XXXXXX")
# Tests that start processes append their ids to $pids; they are ended at exit.
pids=
tap_exit() {
	for tap_pid in $pids; do kill "$tap_pid" 2>/dev/null || :; done
	wait 2>/dev/null || :
	rm -rf "$work"
}
trap tap_exit EXIT
trap 'exit 143' INT TERM

# until_true SECONDS COMMAND…: looks again and again until the command succeeds
until_true() {
	tap_end_at=$(($(date +%s) + $1))
	shift
	until "$@"; do
		if [ "$(date +%s)" -ge "$tap_end_at" ]; then return 1; fi
		sleep 0.01
	done
}
# ok DESCRIPTION / not_ok DESCRIPTION [FILE-WITH-DETAILS] / skip DESCRIPTION REASON
ok() {
	tap_n=$((tap_n + 1))
	echo "ok $tap_n - $1"
}
not_ok() {
	tap_n=$((tap_n + 1))
	tap_failed=1
	echo "not ok $tap_n - $1"
	if [ $# -gt 1 ]; then sed 's/^/# /' "$2"; fi
}
skip() {
	tap_n=$((tap_n + 1))
	echo "ok $tap_n - $1 # SKIP $2"
}
# tap_logs: what those who work for the test said last
tap_logs() {
	for tap_log in "$work"/*.log "$work"/*.err; do
		if [ -s "$tap_log" ]; then
			echo "the end of ${tap_log##*/}:"
			tail -n 15 "$tap_log"
		fi
	done
}
# check DESCRIPTION COMMAND…: ok when the command succeeds; its output, and the logs in $work, are shown otherwise
check() {
	tap_what=$1
	shift
	if "$@" >"$work/.out" 2>&1; then
		ok "$tap_what"
	else
		echo "exit $?: $*" >>"$work/.out"
		tap_logs >>"$work/.out"
		not_ok "$tap_what" "$work/.out"
	fi
}
# check_fails DESCRIPTION COMMAND…: ok when the command fails
check_fails() {
	tap_what=$1
	shift
	if "$@" >"$work/.out" 2>&1; then
		echo "succeeded: $*" >>"$work/.out"
		tap_logs >>"$work/.out"
		not_ok "$tap_what" "$work/.out"
	else
		ok "$tap_what"
	fi
}
tap_end() {
	echo "1..$tap_n"
	[ $tap_n -gt 0 ] && [ $tap_failed = 0 ]
	exit
}
