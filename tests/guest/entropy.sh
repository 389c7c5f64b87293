#!/bin/sh
# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
# The guide's first device, examples/entropy, in a machine that is started as the guide says: a Debian kernel reads from it.
. "$top_srcdir/tests/lib/tap.sh"
. "$top_srcdir/tests/lib/peer.sh"
. "$top_srcdir/tests/lib/guest.sh"

# guide: the arguments of its QEMU command, at our socket
guide() {
	sed -n '/^    qemu-system-x86_64 .*\\$/,/vhost-user-rng-pci/p' "$top_srcdir/docs/guide.md" |
		sed -e 's/^ *qemu-system-x86_64//' -e 's/\\$//' -e 's/…$//' -e "s|/tmp/rng.sock|$work/rng.sock|" | xargs
}
guest_machine=$(guide)
case $guest_machine in
*path=$work/rng.sock*chardev=rng) ;;
*) exit 1 ;;
esac

guest_modules=virtio_rng
guest_build || exit 1
"$top_builddir/examples/entropy" "$work/rng.sock" >"$work/entropy.log" 2>&1 &
entropy=$!
pids="$pids $entropy"
wait_for_socket "$work/rng.sock" || exit 1
guest_boot entropy || exit 1
check "the driver is there" in_guest '[ "$(cat /sys/class/misc/hw_random/rng_current)" = virtio_rng.0 ]'
check "64 KiB are read" in_guest 'dd if=/dev/hwrng of=/tmp/a bs=4096 count=16 iflag=fullblock && [ $(wc -c </tmp/a) = 65536 ]'
check "they are not the same again, and do not compress" \
	in_guest 'dd if=/dev/hwrng of=/tmp/b bs=4096 count=16 iflag=fullblock && ! cmp -s /tmp/a /tmp/b && [ $(gzip -c /tmp/a | wc -c) -gt 65536 ]'
check "the machine ends, no command had failed" guest_end
check "the program ends with its front-end" wait "$entropy"
check "its worker was confined" grep -q '^worker [0-9]*: Seccomp 2, NoNewPrivs 1$' "$work/entropy.log"
tap_end
