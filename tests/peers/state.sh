#!/bin/sh
# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
# The state of a device moves from one process to another: consoles of vhostctl serve, a device on rust-vmm's crates.
. "$top_srcdir/tests/lib/tap.sh"
. "$top_srcdir/tests/lib/peer.sh"
state=$top_builddir/tests/peers/state
gadgets=$top_builddir/tests/peers/gadgets
cd "$work" || exit 1

# console NAME: with the input NAME.keys
console() {
	"$vhostctl" serve console --socket "$work/$1" --input "$1.keys" --output "$1.screen" >>console.log 2>&1 &
	pids="$pids $!"
	wait_for_socket "$work/$1"
}
mkfifo here.keys there.keys
exec 8<>here.keys 9<>there.keys
console here && console there || exit 1
printf 'nine char\nsecond\n' >&8 # the guest reads five at a time
check "the guest reads a line; the console has read further" \
	sh -c '[ "$("$1" console user:here "x")" = "nine char" ]' sh "$gadgets"
check "its state is saved" "$state" save user:here console.state
check "that is what it had read and not delivered" sh -c '[ "$(cat console.state)" = second ]'
check "the state is loaded elsewhere" "$state" load user:there console.state
check "there the guest reads on" sh -c '[ "$("$1" console user:there "x")" = second ]' sh "$gadgets"
head -c 4097 /dev/zero >console.state
check_fails "more than a console keeps is refused" "$state" load user:there console.state
"$vhostctl" serve rng --socket "$work/rng" >>console.log 2>&1 &
pids="$pids $!"
wait_for_socket "$work/rng" || exit 1
check_fails "a device without a state says so" "$state" save user:rng rng.state

truncate -s 1M disk.img
rust_blk new && rust_serve "$work/source" disk.img && rust_serve "$work/target" disk.img || exit 1
check "rust-vmm: the state, more than a pipe holds, is saved" "$state" save user:source source.state
check "rust-vmm: it is that of a device that was never loaded" \
	sh -c '[ "$(wc -c <source.state)" = 100000 ] && [ "$(tr -d "\000" <source.state | wc -c)" = 0 ]'
head -c 300000 /dev/urandom >given.state
check "rust-vmm: another is loaded" "$state" load user:target given.state
check "rust-vmm: and saved again" "$state" save user:target back.state
check "rust-vmm: byte for byte" cmp given.state back.state
: >empty.state
check_fails "rust-vmm: the device refuses an empty one, and we hear of it" "$state" load user:target empty.state
check "rust-vmm: and keeps what it had" "$state" save user:target back.state
check "rust-vmm: byte for byte as before" cmp given.state back.state
tap_end
