# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
# shellcheck shell=sh
# How the ABI is recorded and compared. abidiff.sh proves that this recipe sees swapped fields and removed symbols; the
# usual one (headers given to abidiff, "incompatible" bit only) sees neither.

# abi_write LIBRARY HEADER-FOLDER OUTPUT
abi_write() {
	abidw --no-show-locs --no-corpus-path --no-comp-dir-path --type-id-style hash --drop-private-types \
		--headers-dir "$2" --out-file "$3" "$1"
}
# abi_compare OLD NEW: any difference but an added symbol (the symbol test looks after those) is a failure
abi_compare() {
	abidiff --no-added-syms "$1" "$2"
}
