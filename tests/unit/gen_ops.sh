#!/bin/sh
# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
# The files derived from the operation table are up to date.
echo "1..1"
if out=$("$top_srcdir/scripts/gen-ops" --check 2>&1); then
	echo "ok 1 - gen-ops"
else
	echo "$out" | sed 's/^/# /'
	echo "not ok 1 - gen-ops"
	exit 1
fi
