#!/bin/sh
# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
# cppcheck and clang-tidy on the library and its tools. What they look for stands here and in .clang-tidy.
. "$top_srcdir/tests/lib/tap.sh"
cd "$top_srcdir" || exit 1
sources=$(find libvhost tools -name '*.c' | sort)
export includes="-Iinclude -I$top_builddir/include -Ilibvhost -Itools/vhostctl"

# shellcheck disable=SC2086
check 'cppcheck finds nothing' cppcheck -q -j 2 --enable=warning,performance,portability --inline-suppr --std=c11 \
	--suppress=missingIncludeSystem --suppress=normalCheckLevelMaxBranches --error-exitcode=1 $includes $sources
for room in $(echo "$sources" | xargs -n 1 dirname | sort -u); do
	# shellcheck disable=SC2086
	check "clang-tidy finds nothing in $room" sh -c 'printf "%s\n" "$1"/*.c |
		xargs -P 2 -n 4 sh -c '\''clang-tidy -quiet "$@" -- $includes -std=gnu17 -D_GNU_SOURCE 2>/dev/null'\'' tidy' \
		tidy "$room"
done
tap_end
