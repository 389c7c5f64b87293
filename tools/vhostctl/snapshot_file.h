/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/*
 * A snapshot as two files: FILE is what libvhost_dev_freeze() wrote (docs/freeze.md), FILE.guest the guest: its memory
 * behind a header. Both come into place when they are complete.
 */
#ifndef VHOSTCTL_SNAPSHOT_FILE_H
#define VHOSTCTL_SNAPSHOT_FILE_H

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* What FILE.guest says about the guest. */
struct snapshot {
	uint32_t queues, depth, block_bytes;
	bool packed, inflight;
	uint64_t features;
	uint64_t size, next, seed; /* of the load: bytes, what comes next, the pattern */
	uint64_t address;	   /* where memory was mapped */
	uint64_t ram_bytes;
};

struct snapshot_writer {
	char path[2][PATH_MAX]; /* FILE, FILE.guest */
	int fd[2];		/* of PATH.new, -1 = not there */
};

/* Makes both files under other names. All of these: 0, or 1 after printing why. */
int snapshot_create(struct snapshot_writer *w, const char *path);
/* Writes them and gives them their names. */
int snapshot_write(struct snapshot_writer *w, const struct snapshot *s, const uint8_t *ram, const void *blob,
		   size_t blob_len);
/* Removes what has not got its name. */
void snapshot_abandon(struct snapshot_writer *w);

struct snapshot_reader {
	char guest[PATH_MAX];
	uint8_t *blob;
	size_t blob_len;
	int fd; /* of FILE.guest */
	uint64_t checksum, header_sum;
};

/* Reads FILE; what it says the library checks. */
int snapshot_open(struct snapshot_reader *r, const char *path);
/* Reads the header of FILE.guest; it belongs to FILE. */
int snapshot_read(struct snapshot_reader *r, struct snapshot *s);
/* Then the memory. */
int snapshot_read_ram(struct snapshot_reader *r, uint8_t *ram, uint64_t bytes);
void snapshot_close(struct snapshot_reader *r);

#endif
