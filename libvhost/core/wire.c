/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
#include "core/wire.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>

#define BATCH_BYTES	   32768u /* larger writes may be split over several socket buffers */
#define BATCHES		   128u	  /* per sendmmsg */
#define PIECES		   256u	  /* iovecs per sendmmsg; adjoining messages share one */
#define MSG_FDS		   8u
#define KERNEL_MAX_FDS	   253u /* SCM_MAX_FD: with room for all, MSG_CTRUNC can only mean our own limit */
#define OTHER_CMSG_BYTES   512u /* credentials or a security label on an adopted socket */
#define RECV_CONTROL_BYTES (CMSG_SPACE(KERNEL_MAX_FDS * sizeof(int)) + OTHER_CMSG_BYTES)

union fd_control {
	struct cmsghdr align;
	char bytes[CMSG_SPACE(MSG_FDS * sizeof(int))];
};

/* One sendmmsg under construction. */
struct batches {
	struct mmsghdr hdr[BATCHES];
	struct iovec iov[PIECES];
	union fd_control control[BATCHES];
	size_t bytes[BATCHES];
	unsigned count, pieces;
};

static void attach_fds(struct msghdr *hdr, union fd_control *control, const struct lv_wire_msg *msg)
{
	const size_t bytes = msg->nfds * sizeof(int);
	struct cmsghdr *cmsg;

	memset(control, 0, sizeof(*control));
	hdr->msg_control = control->bytes;
	hdr->msg_controllen = CMSG_SPACE(bytes);
	cmsg = CMSG_FIRSTHDR(hdr);
	cmsg->cmsg_level = SOL_SOCKET;
	cmsg->cmsg_type = SCM_RIGHTS;
	cmsg->cmsg_len = CMSG_LEN(bytes);
	memcpy(CMSG_DATA(cmsg), msg->fds, bytes);
}

/* Puts a piece into the current batch, next to the previous one in memory if it follows it. 0 = no room. */
static int add_piece(struct batches *b, const void *data, size_t len)
{
	struct msghdr *hdr = &b->hdr[b->count - 1].msg_hdr;
	struct iovec *last = hdr->msg_iovlen ? &hdr->msg_iov[hdr->msg_iovlen - 1] : NULL;

	if (last && (const char *)last->iov_base + last->iov_len == data) {
		last->iov_len += len;
	} else {
		if (b->pieces == PIECES)
			return 0;
		b->iov[b->pieces++] = (struct iovec){.iov_base = (void *)(uintptr_t)data, .iov_len = len};
		hdr->msg_iovlen++;
	}
	b->bytes[b->count - 1] += len;
	return 1;
}

static int open_batch(struct batches *b)
{
	if (b->count == BATCHES || b->pieces == PIECES)
		return 0;
	b->hdr[b->count] = (struct mmsghdr){.msg_hdr.msg_iov = &b->iov[b->pieces]};
	b->bytes[b->count++] = 0;
	return 1;
}

/* Fills one sendmmsg. A message with descriptors starts a batch: they must arrive with the first byte of its header. */
static void gather(struct batches *b, const struct lv_wire_msg *msgs, size_t count, size_t off)
{
	b->count = b->pieces = 0;
	for (size_t i = 0; i < count; i++, off = 0) {
		const char *data = (const char *)msgs[i].data + off;
		const size_t len = msgs[i].len - off;
		const int with_fds = msgs[i].nfds && !off;

		if (!b->count || with_fds || b->bytes[b->count - 1] + len > BATCH_BYTES)
			if (!open_batch(b))
				return;
		if (!add_piece(b, data, len))
			return;
		if (with_fds)
			attach_fds(&b->hdr[b->count - 1].msg_hdr, &b->control[b->count - 1], &msgs[i]);
	}
}

/* Bytes sent; *full = the socket took less than offered. */
static ssize_t push(int sock, struct batches *b, int *full)
{
	ssize_t bytes = 0;
	int n;

	do
		n = sendmmsg(sock, b->hdr, b->count, MSG_DONTWAIT | MSG_NOSIGNAL);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return -errno;
	for (int i = 0; i < n; i++)
		bytes += b->hdr[i].msg_len;
	*full = (unsigned)n < b->count || b->hdr[n - 1].msg_len < b->bytes[n - 1];
	return bytes;
}

ssize_t lv_wire_send(int sock, const struct lv_wire_msg *msgs, size_t count, size_t *first_off)
{
	struct batches b;
	size_t done = 0;
	int full = 0;

	for (size_t i = 0; i < count; i++)
		if (msgs[i].nfds > MSG_FDS || !msgs[i].len)
			return -EINVAL;
	while (done < count && !full) {
		ssize_t bytes;

		gather(&b, msgs + done, count - done, *first_off);
		bytes = push(sock, &b, &full);
		if (bytes == -EAGAIN || bytes == -EWOULDBLOCK)
			break;
		if (bytes < 0)
			return done ? (ssize_t)done : bytes;
		for (*first_off += (size_t)bytes; done < count && *first_off >= msgs[done].len; done++)
			*first_off -= msgs[done].len;
	}
	return (ssize_t)done;
}

int lv_wire_in_init(struct lv_wire_in *in, size_t cap)
{
	memset(in, 0, sizeof(*in));
	in->buf = malloc(cap);
	if (!in->buf)
		return -ENOMEM;
	in->cap = cap;
	return 0;
}

void lv_wire_in_destroy(struct lv_wire_in *in)
{
	lv_wire_drop_fds(in);
	free(in->buf);
	memset(in, 0, sizeof(*in));
}

void lv_wire_in_reset(struct lv_wire_in *in)
{
	lv_wire_drop_fds(in);
	in->start = in->end = 0;
	in->fds_dropped = 0;
}

void lv_wire_drop_fds(struct lv_wire_in *in)
{
	for (uint32_t i = 0; i < in->nfds; i++)
		lv_fd_close(in->fds[i]);
	in->nfds = 0;
}

static void keep_fds(struct lv_wire_in *in, struct msghdr *hdr)
{
	for (struct cmsghdr *c = CMSG_FIRSTHDR(hdr); c; c = CMSG_NXTHDR(hdr, c)) {
		size_t n;

		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		n = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
		for (size_t i = 0; i < n; i++) {
			int fd;

			memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof(fd));
			if (in->nfds < LV_WIRE_MAX_FDS) {
				in->fds[in->nfds++] = fd;
			} else {
				lv_fd_close(fd);
				in->fds_dropped++;
			}
		}
	}
}

/* Room for want bytes behind end, as far as the buffer goes. */
static size_t make_room(struct lv_wire_in *in, size_t want)
{
	if (in->start == in->end)
		in->start = in->end = 0;
	if (in->start && in->cap - in->end < want) {
		memmove(in->buf, in->buf + in->start, in->end - in->start);
		in->end -= in->start;
		in->start = 0;
	}
	return in->cap - in->end < want ? in->cap - in->end : want;
}

ssize_t lv_wire_recv(int sock, struct lv_wire_in *in, size_t want)
{
	union {
		struct cmsghdr align;
		char bytes[RECV_CONTROL_BYTES];
	} control;
	struct iovec iov = {.iov_len = make_room(in, want)};
	struct msghdr hdr = {.msg_iov = &iov, .msg_iovlen = 1};
	ssize_t n;

	iov.iov_base = in->buf + in->end;
	if (!iov.iov_len)
		return -ENOBUFS;
	do {
		hdr.msg_control = control.bytes;
		hdr.msg_controllen = sizeof(control.bytes);
		n = recvmsg(sock, &hdr, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
	} while (n < 0 && errno == EINTR);
	if (n < 0)
		return -errno;
	keep_fds(in, &hdr);
	in->end += (size_t)n;
	if (hdr.msg_flags & MSG_CTRUNC) {
		/* recvmsg succeeds with descriptors missing when our table is full */
		lv_wire_drop_fds(in);
		return -EMFILE;
	}
	return n;
}

int lv_wire_pending(int sock)
{
	char byte;
	ssize_t n;

	do
		n = recv(sock, &byte, 1, MSG_PEEK | MSG_DONTWAIT);
	while (n < 0 && errno == EINTR);
	if (n > 0)
		return 1;
	if (!n)
		return -EPIPE;
	return errno == EAGAIN || errno == EWOULDBLOCK ? 0 : -errno;
}
