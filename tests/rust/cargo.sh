#!/bin/sh
# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
# cargo test of the crate beside this file, its results as TAP. Built in build/rust, which may be kept between runs.
. "$top_srcdir/tests/lib/tap.sh"
. "$top_srcdir/tests/lib/peer.sh"
qsd_null "$work/sock" || exit 1
export LIBVHOST_LIB_DIR="$top_builddir/.libs" LIBVHOST_QSD_SOCKET="$work/sock" CARGO_TARGET_DIR="$top_builddir/../rust"
crate=$top_srcdir/tests/rust/Cargo.toml

check 'the crate builds with the versions of Cargo.lock' cargo build --quiet --locked --all-targets --manifest-path "$crate"
# the daemon serves one front-end at a time
cargo test --locked --manifest-path "$crate" -- --test-threads=1 >"$work/results" 2>&1
status=$?
sed -n 's/^test \(.*\) \.\.\. \(ok\|FAILED\|ignored\).*/\2 \1/p' "$work/results" >"$work/tests"
while read -r result name; do
	case $result in
	ok) ok "$name" ;;
	ignored) skip "$name" 'ignored in the source' ;;
	*) not_ok "$name" ;;
	esac
done <"$work/tests"
check 'cargo test ran tests and ended well' test "$status" = 0 -a -s "$work/tests"
[ "$tap_failed" = 0 ] || sed 's/^/# /' "$work/results"
tap_end
