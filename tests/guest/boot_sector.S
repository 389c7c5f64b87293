/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* What a BIOS reads first from a disk: writes a line to the first serial port and ends QEMU by isa-debug-exit with 41. */
	.code16
	.globl _start
_start:
	xorw %ax, %ax
	movw %ax, %ds
	movw $text, %si
	cld
next:
	lodsb
	testb %al, %al
	jz done
	movb %al, %bl
busy:
	movw $0x3fd, %dx /* line status; bit 5: ready for a character */
	inb %dx, %al
	testb $0x20, %al
	jz busy
	movb %bl, %al
	movw $0x3f8, %dx
	outb %al, %dx
	jmp next
done:
	movb $20, %al
	outb %al, $0xf4
halt:
	hlt
	jmp halt
text:
	.asciz "the boot sector runs\n"
	.org 510
	.word 0xaa55
