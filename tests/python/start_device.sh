#!/bin/sh
# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
# A Python script starts a device at qemu-storage-daemon through nothing but ctypes.
. "$top_srcdir/tests/lib/tap.sh"
. "$top_srcdir/tests/lib/peer.sh"
qsd_null "$work/sock" 1 || exit 1
python3 "$top_srcdir/tests/python/start_device.py" "$top_builddir/.libs/libvhost.so" "$work/sock"
