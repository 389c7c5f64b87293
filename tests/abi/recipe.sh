# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
# shellcheck shell=sh
# How the ABI is recorded and compared. abidiff.sh proves that this recipe sees swapped fields and removed symbols; the
# usual one (headers given to abidiff, "incompatible" bit only) sees neither.

# abi_write LIBRARY HEADER-FOLDER OUTPUT. abidw knows headers by their names alone, and takes a private one that is called
# like a public one for it; so folders are looked at as well.
abi_write() {
	printf '%s\n' '[suppress_type]' "source_location_not_regexp = .*/${2##*/}/.*" 'drop = yes' >"$3.private"
	abidw --no-show-locs --no-corpus-path --no-comp-dir-path --type-id-style hash --drop-private-types \
		--headers-dir "$2" --suppressions "$3.private" --out-file "$3" "$1"
	abi_status=$?
	rm "$3.private"
	return $abi_status
}
# abi_compare OLD NEW: any difference but an added symbol (the symbol test looks after those) is a failure
abi_compare() {
	abidiff --no-added-syms "$1" "$2"
}
