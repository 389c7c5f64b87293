/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* One file of a FUSE file system that answers everything but reads, until it is told to. */
#ifndef LV_TESTS_MUTEFS_H
#define LV_TESTS_MUTEFS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct mutefs {
	int fd;	  /* of the file, read and write */
	int talk; /* to the server */
	pid_t server;
};

/* A file of bytes zeroes; false = this machine has no FUSE. Before any thread is started. */
bool mutefs_new(struct mutefs *m, uint64_t bytes);
/* Waits up to a second until somebody waits for a read. */
bool mutefs_asked(struct mutefs *m);
/* From now on reads are answered, those that wait, too. */
void mutefs_speak(struct mutefs *m);
/* When nobody waits for the file any more. */
void mutefs_free(struct mutefs *m);

#endif
