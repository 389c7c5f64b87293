#!/bin/sh
# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
# What every file of the repository must keep: licence line, format, derived files, sound shell.
# shellcheck disable=SC2046 # lists of file names, none with a space
. "$top_srcdir/tests/lib/tap.sh"
cd "$top_srcdir" || exit 1
if [ -e .git ]; then git ls-files >"$work/files"; else cp MANIFEST "$work/files"; fi

# files EXTENDED-REGEXP: those that match
files() {
	grep -E "$1" "$work/files"
}
# Licence texts cannot carry the line; recorded bytes and lock files have no comments.
no_licence() {
	files . | grep -vE '^LICENSE-|\.lock$|\.json$|\.bin$|\.hex$|\.golden$|py\.typed$' |
		while read -r file; do head -n 5 "$file" | grep -q 'SPDX-License-Identifier:' || echo "$file"; done
}
no_licence >"$work/list"
check 'every file names its licence in its first lines' diff /dev/null "$work/list"
check 'C is formatted as .clang-format says' clang-format --dry-run -Werror $(files '\.[ch]$')
check 'files derived from ops.def are up to date' scripts/gen-ops --check
check 'the guide shows the examples as they are' scripts/gen-guide --check
check 'shell scripts are sound' shellcheck -x -S warning \
	$(files . | while read -r file; do head -n 1 "$file" | grep -qE '^#!.*\b(ba)?sh$' && echo "$file"; done)
check 'Python compiles' python3 -c 'import ast, sys; [ast.parse(open(f).read(), f) for f in sys.argv[1:]]' \
	$(files '\.py$') scripts/run-tiers scripts/gen-ops scripts/gen-guide
check_fails 'no line ends in white space' grep -nE '[[:space:]]+$' $(files '\.([ch]|sh|py|am|ac|map|def)$')
check_fails 'no conflict marker is left' grep -nE '^(<<<<<<<|>>>>>>>) ' $(files '\.([ch]|sh|py|am|ac|md|def)$')
tap_end
