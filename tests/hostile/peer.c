/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/*
 * A back-end that is well-behaved up to message N and then dies or falls silent:
 *   peer SOCKET before|after|inside|silent N
 * Prints "ready", serves until its standard input ends, prints how many messages came.
 */
#include "puppet.h"

#include <stdarg.h>
#include <stdlib.h>
#include <unistd.h>
#include "check.h"

_Noreturn void lv_test_fail(const char *file, int line, const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	fprintf(stderr, "%s:%d: ", file, line);
	vfprintf(stderr, fmt, args);
	va_end(args);
	exit(2);
}

static enum puppet_what what_of(const char *word)
{
	if (!strcmp(word, "before"))
		return PUPPET_DIE_BEFORE;
	if (!strcmp(word, "after"))
		return PUPPET_DIE_AFTER;
	if (!strcmp(word, "inside"))
		return PUPPET_DIE_INSIDE;
	return PUPPET_STALL;
}

int main(int argc, char **argv)
{
	const uint64_t sectors = 2048;
	struct puppet p;
	char byte;

	if (argc != 4)
		return 2;
	puppet_init(&p);
	p.protocol_features &= ~PUPPET_PF(STATUS);
	memset(p.config, 0, sizeof(p.config));
	memcpy(p.config, &sectors, sizeof(sectors)); /* of a block device: its size comes first */
	puppet_fault(&p, (struct puppet_fault){
				 .at = (uint32_t)atoi(argv[3]), .what = what_of(argv[2]), .arg = 5, .every = true});
	puppet_listen(&p, argv[1]);
	puts("ready");
	fflush(stdout);
	while (read(STDIN_FILENO, &byte, 1) > 0)
		;
	puppet_stop(&p);
	printf("%u\n", atomic_load(&p.messages));
	return 0;
}
