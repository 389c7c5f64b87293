#!/bin/sh
# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
# The tarball holds the repository, needs no autotools, and builds, tests, installs and cleans up from a read-only tree.
. "$top_srcdir/tests/lib/tap.sh"
cd "$top_builddir" || exit 1
check 'make distcheck' make -s distcheck VERBOSE=1
tarball=$(ls -t libvhost-*.tar.xz | head -n 1)
name=${tarball%.tar.xz}
tar -tf "$tarball" | sed -n "s,^$name/,,p" | grep -v '^$\|/$' | sort >"$work/tarball"
git -C "$top_srcdir" ls-files | sort >"$work/git"
comm -13 "$work/tarball" "$work/git" >"$work/missing"
check 'every file of the repository is in the tarball' diff /dev/null "$work/missing"
comm -23 "$work/tarball" "$work/git" |
	grep -vE '^(MANIFEST|aclocal.m4|configure|Makefile.in|build-aux/.*|m4/.*)$' >"$work/extra"
check 'nothing is in it that is neither of the repository nor made by autotools' diff /dev/null "$work/extra"
check 'a tarball makes the same tarball' sh -ec '
	tar -xf "$1" -C "$2"
	mkdir "$2/again"
	cd "$2/again"
	"$2/$3/configure" --quiet --disable-tests
	make -s dist
	tar -tf "$3.tar.xz" | sort >"$2/second"
	tar -tf "$OLDPWD/$1" | sort | diff - "$2/second"' again "$tarball" "$work" "$name"
tap_end
