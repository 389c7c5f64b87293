#!/bin/sh
# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
# The check program again, with the C library, libseccomp and libcap-ng of a newer Debian: what they ask of the kernel
# changes from release to release.
libc=$("$top_srcdir/tests/sandbox/fetch-libc") || {
	echo "Bail out! no newer C library"
	exit 1
}
echo "# C library $(cat "$libc/version")"
exec "$libc/ld.so" --library-path "$libc" "$top_builddir/tests/sandbox/sandbox"
