/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* Planted: signed overflow. */
#include <limits.h>

int main(int argc, char **argv)
{
	volatile int big = INT_MAX;

	(void)argv;
	big += argc;
	return big == 0;
}
