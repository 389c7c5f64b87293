#!/bin/sh
# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
# A transport plug-in outside the tree: the installed headers and pkg-config are all that it has.
. "$top_srcdir/tests/lib/tap.sh"
root=$(sed -n 's/^prefix = //p' "$top_builddir/Makefile")
check 'make install' make -s -C "$top_builddir" install
export PKG_CONFIG_PATH="$root/lib/pkgconfig" LD_LIBRARY_PATH="$root/lib"
cp "$top_srcdir/tests/install/plugin.c" "$work"
cd "$work" || exit 1
flags="-Wall -Wextra -Wconversion -pedantic -Werror $(pkg-config --cflags --libs libvhost)"
for language in 'gcc -std=c11' 'clang -std=c11' 'gcc -std=gnu17 -O2'; do
	# shellcheck disable=SC2086
	check "it compiles: $language" $language plugin.c -o plugin $flags
	check 'a device connects, starts, is refused, loses its peer, comes back, stops' ./plugin
done
check 'it uses the experimental door of the library' sh -c 'nm -D --with-symbol-versions plugin | grep -q libvhost_transport_new@LIBVHOST_EXPERIMENTAL'
make -s -C "$top_builddir" uninstall >"$work/.out" 2>&1
tap_end
