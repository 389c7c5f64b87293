# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
# shellcheck shell=sh disable=SC2154 # $work comes from tap.sh
# QEMU without KVM, with BIOS or with a Debian kernel whose first process is tests/guest/init. Source after tap.sh. Processes go to $pids and end with the test.
# shellcheck disable=SC2034 # for the tests that source this
guest_files=$top_srcdir/tests/guest

# guest_qemu MEBIBYTES ARGUMENT…: QEMU with nothing but shared memory, a PCI bus and the way out, or with the machine of
# $guest_machine; sets $guest_pid
guest_qemu() {
	guest_memory="-m $1 -object memory-backend-memfd,id=memory,size=$1M,share=on -machine pc,memory-backend=memory"
	shift
	# shellcheck disable=SC2086 # lists of words
	${guest_wrap-} qemu-system-x86_64 -accel tcg -nodefaults -no-user-config -no-reboot -display none \
		${guest_machine-$guest_memory} -device isa-debug-exit,iobase=0xf4,iosize=4 "$@" </dev/null >>"$work/qemu.log" 2>&1 &
	guest_pid=$!
	pids="$pids $guest_pid"
}

# guest_status: waits until QEMU has ended; whether it was by isa-debug-exit with this status
guest_status() {
	wait "$guest_pid"
	guest_rc=$?
	[ $guest_rc = $(($1 * 2 + 1)) ] || echo "QEMU ended with $guest_rc"
	[ $guest_rc = $(($1 * 2 + 1)) ]
}

# guest_copy PROGRAM…: into the guest's files, with the libraries that they need
guest_copy() {
	for guest_program; do
		mkdir -p "$guest_root${guest_program%/*}"
		cp -L "$guest_program" "$guest_root$guest_program"
		for guest_library in $(ldd "$guest_program" | grep -o '/[^ ]*'); do
			mkdir -p "$guest_root${guest_library%/*}"
			cp -L "$guest_library" "$guest_root$guest_library"
		done
	done
}

# guest_module NAME…: into the guest's files, in the order in which they can be loaded
guest_module() {
	for guest_name; do
		PATH=$PATH:/usr/sbin:/sbin modprobe -d "$guest_kernel" -S "$(cat "$guest_kernel/release")" --show-depends "$guest_name"
	done | awk '$1 == "insmod" && !seen[$2]++ { print $2 }' | while read -r guest_name; do
		guest_base=${guest_name##*/}
		xz -dc "$guest_name" >"$guest_root/lib/modules/${guest_base%.xz}" || return
		echo "${guest_base%.xz}" >>"$guest_root/lib/modules/order"
	done
}

# guest_build: makes the guest's first files, $guest_programs and $guest_modules among them; sets $guest_kernel and $guest_initrd
guest_build() {
	guest_root=$work/root
	guest_initrd=$work/initrd
	guest_kernel=$("$guest_files/fetch-kernel") || return
	mkdir -p "$guest_root/bin" "$guest_root/dev" "$guest_root/proc" "$guest_root/sys" "$guest_root/tmp" "$guest_root/lib/modules"
	cp /bin/busybox "$guest_root/bin/busybox" && cp "$guest_files/init" "$guest_root/init" &&
		cp "$guest_files/load" "$guest_root/bin/load" && guest_copy /sbin/mke2fs ${guest_programs-} && guest_module virtio_blk virtio_net ${guest_modules-} &&
		cc -O2 -static -s -o "$guest_root/bin/exit-machine" "$guest_files/exit-machine.c" &&
		(cd "$guest_root" && find . | cpio -o -H newc -R 0:0 --quiet) >"$guest_initrd"
}

# guest_start NAME ARGUMENT…: starts it with two processors; its console goes to NAME.console, its answers to NAME.answers.
# Commands go to it from now on. A busy host looks like a broken timer and like processors that hang to the kernel, which
# is told not to check: what our devices let hang does not go on.
guest_start() {
	guest=$work/$1
	shift
	mkfifo "$guest.in" "$guest.out"
	guest_qemu 256 -smp 2 -kernel "$guest_kernel/vmlinuz" -initrd "$guest_initrd" -append "console=ttyS0 quiet no_timer_check nowatchdog rcupdate.rcu_cpu_stall_suppress=1 panic=-1 oops=panic ${guest_parameters-}" \
		-serial "file:$guest.console" -chardev "pipe,id=shell,path=$guest" -serial chardev:shell "$@"
	exec 8<>"$guest.in"
	cat "$guest.out" >>"$guest.answers" &
	pids="$pids $!"
}

# guest_boot NAME ARGUMENT…: the same, and waits until it takes commands
guest_boot() {
	guest_start "$@"
	if guest_said '^ready$'; then return 0; fi
	sed 's/^/# /' "$guest.console" "$work/qemu.log" >&2
	return 1
}

# guest_said PATTERN: waits for a line of the guest, five minutes and more
guest_said() {
	for _ in $(seq 6000); do
		if grep -q "$1" "$guest.answers"; then return 0; fi
		if ! kill -0 "$guest_pid" 2>/dev/null; then break; fi
		sleep 0.05
	done
	echo "the guest does not answer"
	return 1
}

# in_guest COMMAND: one line of shell; its output, and whether it succeeded
in_guest() {
	guest_n=$(($(grep -cE '^(not )?ok [0-9]' "$guest.answers") + 1))
	printf '%s\n' "$1" >&8
	guest_said "^\(not \)\?ok $guest_n\>" || return
	awk -v n=$guest_n '
		/^(not )?ok [0-9]/ { if ($0 ~ "ok " n "( |$)") exit; text = ""; next }
		{ text = text $0 "\n" }
		END { printf "%s", text }' "$guest.answers"
	grep -q "^ok $guest_n\$" "$guest.answers"
}

# guest_end: ends the machine; whether none of its commands had failed
guest_end() {
	echo exit >&8
	exec 8>&-
	guest_status 0
}

# guest_clean IMAGE: whether the file system in it is whole
guest_clean() {
	PATH=$PATH:/usr/sbin:/sbin e2fsck -fn "$1"
}
