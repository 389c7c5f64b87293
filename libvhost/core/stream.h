/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/*
 * One end of a pipe or stream socket whose other end is a peer's. Nothing here waits, whatever the peer does to flags
 * that both share, and nobody who leaves raises SIGPIPE.
 */
#ifndef LV_CORE_STREAM_H
#define LV_CORE_STREAM_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

struct lv_stream {
	int fd; /* -1 = none */
	bool writes, socket;
};

#define LV_STREAM_NONE ((struct lv_stream){.fd = -1})

/* A descriptor that a peer sent, which stays the caller's. 0; -EINVAL (not this end of a pipe, and no stream socket);
 * -EMFILE and other errors of open. */
int lv_stream_take(struct lv_stream *s, int fd, bool writes);
/* A new pipe: *s is our end, *peer the other one, which blocks, as peers may count on. 0 or negative errno. */
int lv_stream_pipe(struct lv_stream *s, bool writes, int *peer);
/* Writes from, or reads into buf. Bytes; 0 = the end (of reading); -EAGAIN; -EPIPE = nobody reads; other errors. */
ssize_t lv_stream_move(const struct lv_stream *s, void *buf, size_t len);
void lv_stream_close(struct lv_stream *s);

#endif
