#!/bin/sh
# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
# Each public header compiles alone, in strict C99, C11 and C++17, and beside headers whose names are close to ours.
. "$top_srcdir/tests/lib/tap.sh"
includes="-I$top_srcdir/include -I$top_builddir/include"
# VIRTIO_RING_NO_LEGACY: without it the kernel's own virtio_ring.h is not C++
warnings='-DVIRTIO_RING_NO_LEGACY -pedantic -Wall -Wextra -Wundef -Werror -fsyntax-only'

# compile NAME LINE…: the lines as a program in three languages
compile() {
	what=$1
	shift
	printf '%s\n' "$@" >"$work/t.c"
	for language in 'gcc -std=c99' 'gcc -std=c11' 'clang -std=c99' 'g++ -std=c++17 -x c++' 'clang++ -std=c++17 -x c++'; do
		# shellcheck disable=SC2086
		check "$what: ${language%% -x*}" $language $includes $warnings "$work/t.c"
	done
}

for path in "$top_srcdir"/include/vhost/*.h; do
	header="vhost/${path##*/}"
	compile "$header alone, twice" "#include <$header>" "#include <$header>" 'extern int used;'
done
for other in linux/vhost.h linux/vhost_types.h linux/virtio_ring.h syslog.h errno.h; do
	compile "libvhost.h after $other" "#include <$other>" '#include <vhost/libvhost.h>'
	compile "libvhost.h before $other" '#include <vhost/libvhost.h>' "#include <$other>"
done
check_fails 'no public header includes a kernel header' grep -n '#include <\(linux\|asm\|sys\)/' "$top_srcdir"/include/vhost/*
tap_end
