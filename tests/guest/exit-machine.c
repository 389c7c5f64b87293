/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* Runs in the guest: QEMU's isa-debug-exit ends with twice the number written to it, plus one. */
#include <stdlib.h>
#include <sys/io.h>

int main(int argc, char **argv)
{
	if (ioperm(0xf4, 1, 1) < 0)
		return 1;
	outb((unsigned char)(argc > 1 ? atoi(argv[1]) : 0), 0xf4);
	return 0;
}
