#!/bin/sh
# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
# make install, then what a user does with the result: pkg-config, the examples of the guide in three languages, a real
# peer.
. "$top_srcdir/tests/lib/tap.sh"
. "$top_srcdir/tests/lib/peer.sh"
root=$(sed -n 's/^prefix = //p' "$top_builddir/Makefile")
check 'make install' make -s -C "$top_builddir" install
export PKG_CONFIG_PATH="$root/lib/pkgconfig" LD_LIBRARY_PATH="$root/lib"
library=$root/lib/libvhost.so.0

(cd "$top_srcdir/include/vhost" && ls -- *.h *.h.in) | sed 's/\.in$//' | sort >"$work/headers"
check 'every public header is installed and no other' sh -c 'ls "$1" | sort | diff "$2" -' ls "$root/include/vhost" "$work/headers"
version=$(sed -n 's/^VERSION = //p' "$top_builddir/Makefile")
check 'pkg-config knows the version' test "$(pkg-config --modversion libvhost)" = "$version"
check_fails 'a dynamic link names no library of ours' sh -c 'pkg-config --libs libvhost | grep -E "seccomp|cap-ng"'
check 'a static link names them' sh -c 'pkg-config --static --libs libvhost | grep seccomp | grep -q cap-ng'

page=$root/share/man/man7/libvhost-sandbox.7
check 'the manual page and what it refers to are installed' test -s "$page" -a -s "$root/share/doc/libvhost/sandbox.md"
MANWIDTH=100 man --warnings -l "$page" >"$work/page" 2>"$work/warnings"
check 'man formats it and warns of nothing' sh -c '[ ! -s "$1" ] && grep -q "process mode is the boundary" "$2"' page "$work/warnings" "$work/page"

readelf -d "$(readlink -f "$library")" >"$work/dynamic"
check 'SONAME is libvhost.so.0' grep -q 'SONAME.*\[libvhost.so.0\]' "$work/dynamic"
check "the file is libvhost.so.$version" test "$(basename "$(readlink -f "$library")")" = "libvhost.so.$version"
check_fails 'it needs libc, libseccomp and libcap-ng at most' \
	sh -c 'grep NEEDED "$1" | grep -vE "\[(libc|libseccomp|libcap-ng)\.so"' needed "$work/dynamic"
check 'it binds at start and stays loaded' sh -c 'grep -q NODELETE "$1" && grep -q NOW "$1"' flags "$work/dynamic"
# one pointer in .init_array is the compiler's own frame_dummy
check 'it has no constructor' sh -c 'readelf -SW "$1" | grep -qE "\.init_array +INIT_ARRAY( +[0-9a-f]+){2} 0*8 "' init "$library"
check_fails 'it has no thread-local storage' sh -c 'readelf -lW "$1" | grep -w TLS' tls "$library"
strip -o "$work/stripped" "$library"
size=$(wc -c <"$work/stripped")
echo "# stripped: $size bytes"
check 'the stripped library has at most 480 KiB' test "$size" -le 491520

flags="-Wall -Wextra -Wconversion -pedantic -Werror $(pkg-config --cflags --libs libvhost)"
for program in capacity sector entropy pull; do
	for language in 'gcc -std=c99' 'gcc -std=c11' 'clang -std=c11' 'g++ -std=c++17 -x c++'; do
		# shellcheck disable=SC2086
		check "examples/$program.c compiles: ${language%% -x*}" $language "$top_srcdir/examples/$program.c" -o "$work/$program" $flags
	done
done

qemu-storage-daemon --blockdev driver=null-co,node-name=n0,size=123456512,read-zeroes=on --export \
	type=vhost-user-blk,id=e0,node-name=n0,addr.type=unix,addr.path="$work/sock",writable=on >"$work/qsd" 2>&1 &
pids=$!
wait_for_socket "$work/sock"
"$work/capacity" "$work/sock" >"$work/says" 2>&1
check "it reads the disk's size from qemu-storage-daemon" grep -qx 'capacity 123456512 bytes' "$work/says"
"$work/sector" "$work/sock" >"$work/says" 2>&1
check 'the other one reads a sector through its ring' grep -qx 'status 0, first byte 0x00' "$work/says"
"$work/capacity" "$work/none" >"$work/says" 2>&1
check 'without a peer it fails and names the path' sh -c '[ "$1" = 1 ] && grep -q "$2" "$3"' fails "$?" "$work/none" "$work/says"

"$work/pull" "$work/pull.sock" >"$work/pull.says" 2>&1 &
pull=$!
pids="$pids $pull"
wait_for_socket "$work/pull.sock"
check 'the third one serves a load without a thread' \
	"$top_builddir/tools/vhostctl/vhostctl" blk-test "user:$work/pull.sock" --size 4M --queues 1 --depth 32
check 'and ends with its front-end' wait "$pull"

# shellcheck disable=SC2086
check 'a driver of an entropy source compiles' gcc "$top_srcdir/tests/peers/gadgets.c" -o "$work/gadgets" $flags
"$work/entropy" "$work/entropy.sock" >"$work/entropy.says" 2>&1 &
entropy=$!
pids="$pids $entropy"
wait_for_socket "$work/entropy.sock"
check 'the fourth one gives it numbers' "$work/gadgets" rng "user:$work/entropy.sock"
check 'and ends with its front-end' wait "$entropy"
check 'its worker was in the sandbox' grep -q 'Seccomp 2, NoNewPrivs 1' "$work/entropy.says"

make -s -C "$top_builddir" uninstall >"$work/.out" 2>&1
check_fails 'make uninstall leaves no file' sh -c 'find "$1" ! -type d | grep .' find "$root"
tap_end
