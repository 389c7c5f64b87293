#!/bin/sh
# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
# Short benchmarks. Only ratios of one run are judged: absolute times say more about the machine than about the code.
. "$top_srcdir/tests/lib/tap.sh"

"$top_builddir/bench/translate" 51 >"$work/translate"
sed 's/^/# /' "$work/translate"
check 'translation, 512 regions, the same one again: at most a tenth of a linear search' \
	awk '$1 == 512 { seen = 1; if ($3 > $5 / 10) exit 1 } END { exit !seen }' "$work/translate"
check 'translation, 512 regions, at random: at most half of a linear search' \
	awk '$1 == 512 { seen = 1; if ($2 > $4 / 2) exit 1 } END { exit !seen }' "$work/translate"

"$top_builddir/bench/rings" 5 >"$work/rings"
sed 's/^/# /' "$work/rings"
check 'split ring: event indexes cost at most a quarter on one thread' \
	awk '/^one thread, flags/ { flags = $7 } /^one thread, event/ { event = $8 } END { exit !(event > 0.75 * flags && flags > 0) }' \
	"$work/rings"
tap_end
