#!/bin/sh
# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
# The devices of vhostctl serve other than the block device, under drivers of this library.
. "$top_srcdir/tests/lib/tap.sh"
. "$top_srcdir/tests/lib/peer.sh"
gadgets=$top_builddir/tests/peers/gadgets

# card SOCKET PAIRS OPTION…: a network card whose wires send every frame back
card() {
	card_socket=$1
	card_pairs=$2
	shift 2
	"$top_srcdir/tests/lib/wire.py" "$card_pairs" "$vhostctl" serve net --socket "$card_socket" --fd @ \
		--queues $((2 * card_pairs)) "$@" >>"$work/card.log" 2>&1 &
	card_pid=$!
	pids="$pids $card_pid"
	wait_for_socket "$card_socket"
}
netcard() { "$vhostctl" net-test "user:$1" "$2" "$3" --frames 50000; }

card "$work/card.sock" 1
check 'a card sends 50 000 frames and gets them back' netcard "$work/card.sock" --pairs 1
check 'the same with packed rings' netcard "$work/card.sock" --packed --poll
check 'its workers run under a filter' grep -q 'Seccomp 2 NoNewPrivs 1' "$work/card.log"
card "$work/pairs.sock" 2 --workers 2
check 'two pairs of queues on two workers' netcard "$work/pairs.sock" --pairs 2
card "$work/busy.sock" 1 --busy
check 'a worker that never sleeps' netcard "$work/busy.sock" --pairs 1

"$vhostctl" serve rng --socket "$work/rng.sock" >"$work/rng.log" 2>&1 &
pids="$pids $!"
wait_for_socket "$work/rng.sock"
check 'random numbers: bounded, spread evenly, never the same' "$gadgets" rng "user:$work/rng.sock"

mkfifo "$work/keys"
exec 8<>"$work/keys"
"$vhostctl" serve console --socket "$work/console.sock" --input "$work/keys" --output "$work/screen" \
	>"$work/console.log" 2>&1 &
pids="$pids $!"
wait_for_socket "$work/console.sock"
for line in 'typed before the guest looked' 'and a second line'; do
	echo "$line" >&8
	check "the console's guest reads '$line'" sh -c '[ "$("$1" console "user:$2" "said: $3
")" = "$3" ]' sh "$gadgets" "$work/console.sock" "$line"
done
check 'what the guest wrote is on the screen' sh -c '[ "$(wc -l <"$1")" = 2 ] && grep -q "^said: typed" "$1"' sh "$work/screen"

check_fails 'a card without a wire is refused' "$vhostctl" serve net --socket "$work/x.sock"
for mac in '' 52:54 52:54:00:12:34:5 53:54:00:12:34:56 52:54:00:12:34:56:78 52-54-00-12-34-56; do
	check_fails "the hardware address '$mac' is refused" "$vhostctl" serve net --socket "$work/x.sock" --fd 1 --mac "$mac"
done
check_fails 'a wire that is not open is refused' "$vhostctl" serve net --socket "$work/x.sock" --fd 99
check_fails 'a wire that cannot be waited for is refused' sh -c '"$1" serve net --socket "$2" --fd 7 7<"$1"' sh \
	"$vhostctl" "$work/x.sock"
check_fails 'one wire for two pairs is refused' "$vhostctl" serve net --socket "$work/x.sock" --queues 4 --fd 1
tap_end
