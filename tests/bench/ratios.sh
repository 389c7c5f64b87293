#!/bin/sh
# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
# Short benchmarks. Only ratios of one run are judged: absolute times say more about the machine than about the code.
. "$top_srcdir/tests/lib/tap.sh"

# measured FILE JUDGE COMMAND…: its figures, up to five times until they hold: a busy machine spoils a measurement now and
# then, a relapse spoils each
measured() {
	file=$work/$1 judge=$2
	shift 2
	for _ in 1 2 3 4 5; do
		"$@" >"$file"
		sed 's/^/# /' "$file"
		if $judge; then return; fi
	done
}

same_again() {
	awk '$1 == 512 { seen = 1; if ($3 > $5 / 10) exit 1 } END { exit !seen }' "$work/translate"
}
at_random() {
	awk '$1 == 512 { seen = 1; if ($2 > $4 / 2) exit 1 } END { exit !seen }' "$work/translate"
}
translations() {
	same_again && at_random
}
measured translate translations "$top_builddir/bench/translate" 51
check 'translation, 512 regions, the same one again: at most a tenth of a linear search' same_again
check 'translation, 512 regions, at random: at most half of a linear search' at_random

event_indexes() {
	awk '/^one thread, flags/ { flags = $7 } /^one thread, event/ { event = $8 } END { exit !(event > 0.75 * flags && flags > 0) }' \
		"$work/rings"
}
measured rings event_indexes "$top_builddir/bench/rings" 5
check 'split ring: event indexes cost at most a quarter on one thread' event_indexes

# Counted, not timed: a relapse of a few percent drowns in the noise of a shared machine. Limits are 8 percent above what gcc 12 makes of the code; when
# one is passed, compare the functions: valgrind --tool=callgrind bench/rings 1.
"$top_builddir/bench/rings" count >"$work/count"
counted=$?
sed 's/^/# /' "$work/count"
at_most() {
	what="a request on a ring, $1, both sides: at most $2 instructions"
	if [ $counted = 77 ]; then
		skip "$what" 'instructions are counted on x86-64 only'
	else
		check "$what" awk -v way="$1" -v most="$2" '$1 == way { n = $2 } END { exit !(n > 0 && n <= most) }' "$work/count"
	fi
}
at_most split 835
at_most split-indirect 1040
at_most packed 1080
at_most packed-indirect 1205
tap_end
