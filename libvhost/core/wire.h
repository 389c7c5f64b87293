/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/*
 * The only code that moves bytes and descriptors over a unix socket. All sockets are non-blocking; all descriptors
 * received are close-on-exec. Rules it keeps (each has a test): descriptors belong to the first byte of a header; reads
 * never cross a message border while a descriptor may follow; MSG_CTRUNC is our own descriptor limit, not the peer's
 * fault; SIGPIPE never fires; EINTR is retried.
 */
#ifndef LV_CORE_WIRE_H
#define LV_CORE_WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define LV_WIRE_MAX_FDS 32u /* most descriptors kept of one message; further ones are closed and counted */

/* One message to send: bytes, and descriptors that travel with its first byte. Borrowed until sent. */
struct lv_wire_msg {
	const void *data;
	uint32_t len;
	uint32_t nfds;
	int fds[8];
};

/*
 * Sends as many of count messages as the socket takes without blocking, in as few system calls as possible: fd-less
 * messages are glued behind the preceding one (a glued batch carries descriptors only with its first byte and stays
 * below 32 KiB), up to 128 batches per sendmmsg. *first_off is the offset into msgs[0] already sent before (in: its
 * descriptors went with the first byte) and into the first unsent message (out). Returns the number of messages
 * completely sent (fewer than count = would block) or negative errno when nothing could be sent (-EPIPE, -ECONNRESET,
 * -ETOOMANYREFS...).
 */
ssize_t lv_wire_send(int sock, const struct lv_wire_msg *msgs, size_t count, size_t *first_off);

/* Receive buffer of one connection. Bytes are [start,end); descriptors seen so far in fds. */
struct lv_wire_in {
	uint8_t *buf;
	size_t cap, start, end;
	int fds[LV_WIRE_MAX_FDS];
	uint32_t nfds;
	uint32_t fds_dropped; /* received beyond LV_WIRE_MAX_FDS and closed */
};

int lv_wire_in_init(struct lv_wire_in *in, size_t cap);
void lv_wire_in_destroy(struct lv_wire_in *in); /* closes descriptors still held */
void lv_wire_in_reset(struct lv_wire_in *in);	/* forgets bytes, closes descriptors */

/*
 * Reads up to want further bytes without blocking. The caller keeps want within the message while a descriptor may
 * follow; more is fine when none is expected (one that arrives all the same is kept in fds: nfds > 0). Returns bytes
 * read; 0 = peer closed; -EAGAIN; -EMFILE when the kernel dropped descriptors for lack of room (MSG_CTRUNC); -ENOBUFS
 * when the buffer is full; other negative errno.
 */
ssize_t lv_wire_recv(int sock, struct lv_wire_in *in, size_t want);

/* Looks without reading: 1 = bytes wait, 0 = none, -EPIPE = peer closed, other negative errno. */
int lv_wire_pending(int sock);

/* A connected pair of stream sockets. A bare read() of either blocks, as the peer that gets one may count on; nothing
 * here does. 0 or negative errno. */
int lv_wire_pair(int socks[2]);
/* 0 when fd is a connected unix stream socket, else -EBADF or -ENOTSOCK. */
int lv_wire_check(int fd);

/* Closes all descriptors held and sets nfds to 0. */
void lv_wire_drop_fds(struct lv_wire_in *in);

/* connect(2) to a path without blocking; returns socket or negative errno: -ENOTSOCK = the path is something else,
 * -ECONNREFUSED = nobody listens, -EAGAIN = the backlog is full, -ENAMETOOLONG = over 107 bytes. */
int lv_wire_connect(const char *path);
/* Listening socket at path; replaces a socket file that nobody listens on, and nothing else (-EADDRINUSE somebody
 * listens, -ENOTSOCK another kind of file). Returns socket or negative errno. */
int lv_wire_listen(const char *path, int backlog);
/* accept4 non-blocking close-on-exec; returns socket or negative errno. */
int lv_wire_accept(int listener);
/* Duplicates close-on-exec at 3 or above; returns descriptor or negative errno. */
int lv_fd_dup(int fd);
/*
 * Whether fd is a file in memory: a memfd, or of tmpfs or hugetlbfs. Only those can be sealed, and the kernel says so
 * without asking a file system. Any other may belong to a program (FUSE) or another machine (NFS) that never answers,
 * not even a stat.
 */
int lv_fd_in_memory(int fd);
/* Whether both are open on one file. */
bool lv_fd_same_file(int a, int b);
/* Whether a read of it waits, as far as its flags say. */
bool lv_fd_blocks(int fd);
/* Page size of the file: a hugetlbfs mapping must begin and end on huge pages, munmap(2) included. */
size_t lv_fd_page(int fd);
/* close that keeps errno and ignores -1. */
void lv_fd_close(int fd);
/* Non-blocking close-on-exec eventfd with initial value 0, or negative errno. */
int lv_eventfd(void);
/* Adds 1; never blocks, never raises SIGPIPE for an eventfd. 0 or negative errno (-EAGAIN = counter full, the event is
 * pending anyway). */
int lv_eventfd_signal(int fd);
/* Test and clear: 1 was signalled, 0 not. Never blocks even if a peer cleared O_NONBLOCK. */
int lv_eventfd_drain(int fd);
/* The same of what may be no eventfd, for who is woken by edges and need not clear it: only where the kernel promises
 * not to wait. A peer that reads, too, could come between a look and a read. */
void lv_eventfd_drain_edge(int fd);
/* Makes room in a full counter: who waits in a write of it goes on. */
void lv_eventfd_make_room(int fd);

#endif
