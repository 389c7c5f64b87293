#!/bin/sh
# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
# configure refuses a version script whose newest node is not this version's.
. "$top_srcdir/tests/lib/tap.sh"
mkdir "$work/src"
cp -r "$top_srcdir/configure" "$top_srcdir/build-aux" "$top_srcdir/abi" "$work/src"
mkdir -p "$work/src/include/vhost"
touch "$work/src/include/vhost/libvhost.h"
sed -i 's/^local:.*/&/; s/^LIBVHOST_[0-9.]* {/LIBVHOST_7.3 {/' "$work/src/abi/libvhost.map"
cd "$work" || exit 1
check_fails 'a map that ends with LIBVHOST_7.3 stops configure' src/configure --quiet
src/configure --quiet >out 2>&1
check 'and the message names both' grep -q 'libvhost.map.*LIBVHOST_7.3.*version 0' out
tap_end
