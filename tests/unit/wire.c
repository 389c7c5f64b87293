/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
#include "check.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>
#include "core/wire.h"

/* What a careful reader does: exactly len bytes. */
static void read_exactly(int sock, struct lv_wire_in *in, size_t len)
{
	while (len) {
		ssize_t n = lv_wire_recv(sock, in, len);

		CHECK(n > 0);
		len -= (size_t)n;
	}
}

TEST(wire, glued_messages_keep_descriptors_at_the_right_header)
{
	struct lv_ledger before = lv_ledger_take();
	char bytes[40] = {0};
	struct lv_wire_msg msgs[4] = {
		{.data = bytes, .len = 10},
		{.data = bytes + 10, .len = 10, .nfds = 2},
		{.data = bytes + 20, .len = 10},
		{.data = bytes + 30, .len = 10, .nfds = 1},
	};
	struct lv_wire_in in;
	size_t off = 0;
	int socks[2];

	for (size_t i = 0; i < sizeof(bytes); i++)
		bytes[i] = (char)i;
	CHECK_EQ(lv_wire_pair(socks), 0);
	msgs[1].fds[0] = msgs[1].fds[1] = msgs[3].fds[0] = socks[0];
	CHECK_EQ(lv_wire_in_init(&in, 64), 0);
	CHECK_EQ(lv_wire_send(socks[0], msgs, 4, &off), 4);
	CHECK_EQ(off, 0);
	for (unsigned i = 0; i < 4; i++) {
		CHECK_EQ(in.nfds, 0);
		read_exactly(socks[1], &in, 10);
		CHECK_EQ(in.nfds, msgs[i].nfds);
		CHECK_MEM(in.buf + in.start, bytes + 10 * i, 10);
		for (uint32_t f = 0; f < in.nfds; f++)
			CHECK(fcntl(in.fds[f], F_GETFD) & FD_CLOEXEC);
		lv_wire_drop_fds(&in);
		in.start += 10;
	}
	CHECK_EQ(lv_wire_recv(socks[1], &in, 1), -EAGAIN);
	lv_wire_in_destroy(&in);
	close(socks[0]);
	close(socks[1]);
	CHECK_LEDGER(before);
}

/* Why readers keep within one message: the kernel stops a read behind a descriptor, not in front of it. */
TEST(wire, a_greedy_read_takes_the_next_messages_descriptor)
{
	char bytes[24] = {0};
	struct lv_wire_msg msgs[2] = {{.data = bytes, .len = 12}, {.data = bytes + 12, .len = 12, .nfds = 1}};
	struct lv_wire_in in;
	size_t off = 0;
	int socks[2];

	CHECK_EQ(lv_wire_pair(socks), 0);
	msgs[1].fds[0] = socks[0];
	CHECK_EQ(lv_wire_in_init(&in, 64), 0);
	CHECK_EQ(lv_wire_send(socks[0], msgs, 2, &off), 2);
	CHECK_EQ(lv_wire_recv(socks[1], &in, 64), 24);
	CHECK_EQ(in.nfds, 1);
	lv_wire_in_reset(&in);
	CHECK_EQ(lv_wire_send(socks[0], msgs, 2, &off), 2);
	CHECK_EQ(lv_wire_recv(socks[1], &in, 12), 12);
	CHECK_EQ(in.nfds, 0);
	CHECK_EQ(lv_wire_recv(socks[1], &in, 12), 12);
	CHECK_EQ(in.nfds, 1);
	lv_wire_in_destroy(&in);
	close(socks[0]);
	close(socks[1]);
}

/* Small socket buffer, odd message sizes: every offset of a stop is taken, each descriptor arrives once. */
TEST(wire, partial_sends_resume_at_any_offset)
{
	enum { COUNT = 300 };
	struct lv_ledger before = lv_ledger_take();
	struct lv_wire_msg *msgs = calloc(COUNT, sizeof(*msgs));
	uint8_t *bytes = malloc(COUNT * 1999);
	size_t off = 0, sent = 0, got = 0, total = 0;
	unsigned fds = 0, want_fds = 0, stops = 0;
	struct lv_wire_in in;
	int socks[2], small = 4608;

	CHECK(msgs && bytes);
	CHECK_EQ(lv_wire_pair(socks), 0);
	CHECK_EQ(setsockopt(socks[0], SOL_SOCKET, SO_SNDBUF, &small, sizeof(small)), 0);
	CHECK_EQ(lv_wire_in_init(&in, 1777), 0);
	for (size_t i = 0; i < COUNT; i++) {
		msgs[i] = (struct lv_wire_msg){.data = bytes + total, .len = (uint32_t)(1 + i * 7 % 1999)};
		msgs[i].nfds = i % 3 == 1;
		msgs[i].fds[0] = socks[0];
		want_fds += msgs[i].nfds;
		total += msgs[i].len;
	}
	for (size_t i = 0; i < total; i++)
		bytes[i] = (uint8_t)(i * 31 >> 3);
	while (got < total) {
		ssize_t n = sent < COUNT ? lv_wire_send(socks[0], msgs + sent, COUNT - sent, &off) : 0;

		CHECK(n >= 0);
		sent += (size_t)n;
		stops += off != 0;
		n = lv_wire_recv(socks[1], &in, 1 + got % 701);
		CHECK(n > 0 || n == -EAGAIN);
		CHECK(n < 0 || !memcmp(in.buf + in.start, bytes + got, (size_t)n));
		got += n > 0 ? (size_t)n : 0;
		in.start = in.end;
		fds += in.nfds;
		lv_wire_drop_fds(&in);
	}
	CHECK_EQ(sent, COUNT);
	CHECK_EQ(off, 0);
	CHECK_EQ(fds, want_fds);
	CHECK(stops > 10);
	lv_wire_in_destroy(&in);
	close(socks[0]);
	close(socks[1]);
	free(msgs);
	free(bytes);
	CHECK_LEDGER(before);
}

TEST(wire, refuses_empty_messages_and_too_many_descriptors)
{
	struct lv_wire_msg msg = {.data = "x", .len = 1, .nfds = 9};
	size_t off = 0;

	CHECK_EQ(lv_wire_send(-1, &msg, 1, &off), -EINVAL);
	msg.nfds = 0;
	CHECK_EQ(lv_wire_send(-1, &msg, 1, &off), -EBADF);
	msg.len = 0;
	CHECK_EQ(lv_wire_send(-1, &msg, 1, &off), -EINVAL);
}

TEST(wire, a_dead_peer_is_an_error_and_no_signal)
{
	struct lv_wire_msg msg = {.data = "hello", .len = 5};
	struct lv_wire_in in;
	size_t off = 0;
	int socks[2];

	CHECK_EQ(lv_wire_pair(socks), 0);
	CHECK_EQ(lv_wire_in_init(&in, 16), 0);
	CHECK_EQ(lv_wire_pending(socks[0]), 0);
	CHECK_EQ(lv_wire_send(socks[1], &msg, 1, &off), 1);
	CHECK_EQ(lv_wire_pending(socks[0]), 1);
	close(socks[1]);
	CHECK_EQ(lv_wire_send(socks[0], &msg, 1, &off), -EPIPE);
	CHECK_EQ(lv_wire_recv(socks[0], &in, 16), 5); /* what was said before death is still heard */
	in.start = in.end;
	CHECK_EQ(lv_wire_recv(socks[0], &in, 16), 0);
	CHECK_EQ(lv_wire_pending(socks[0]), -EPIPE);
	in.start = 0;
	in.end = in.cap;
	CHECK_EQ(lv_wire_recv(socks[0], &in, 1), -ENOBUFS);
	in.end = 0;
	lv_wire_in_destroy(&in);
	close(socks[0]);
}

/* 253 descriptors is what the kernel allows in one message; we keep some, close the rest and say so. */
TEST(wire, r152_253_descriptors_leave_none_behind)
{
	struct lv_ledger before = lv_ledger_take();
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(253 * sizeof(int))];
	} control = {0};
	struct iovec iov = {.iov_base = (char[]){0}, .iov_len = 1};
	struct msghdr hdr = {.msg_iov = &iov,
			     .msg_iovlen = 1,
			     .msg_control = control.bytes,
			     .msg_controllen = sizeof(control.bytes)};
	struct lv_wire_in in;
	int socks[2], fds[253];

	CHECK_EQ(lv_wire_pair(socks), 0);
	CHECK_EQ(lv_wire_in_init(&in, 16), 0);
	for (unsigned i = 0; i < 253; i++)
		fds[i] = socks[0];
	*CMSG_FIRSTHDR(&hdr) =
		(struct cmsghdr){.cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS, .cmsg_len = CMSG_LEN(sizeof(fds))};
	memcpy(CMSG_DATA(CMSG_FIRSTHDR(&hdr)), fds, sizeof(fds));
	CHECK_EQ(sendmsg(socks[0], &hdr, 0), 1);
	CHECK_EQ(lv_wire_recv(socks[1], &in, 16), 1);
	CHECK_EQ(in.nfds, LV_WIRE_MAX_FDS);
	CHECK_EQ(in.fds_dropped, 253 - LV_WIRE_MAX_FDS);
	lv_wire_in_reset(&in);
	CHECK_EQ(in.fds_dropped, 0);
	lv_wire_in_destroy(&in);
	close(socks[0]);
	close(socks[1]);
	CHECK_LEDGER(before);
}

/* An empty SCM_RIGHTS block is legal and means nothing. */
TEST(wire, an_empty_rights_block_is_no_descriptor)
{
	char control[CMSG_SPACE(0)] __attribute__((aligned(8))) = {0};
	struct iovec iov = {.iov_base = (char[]){7}, .iov_len = 1};
	struct msghdr hdr = {
		.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof(control)};
	struct lv_wire_in in;
	int socks[2];

	CHECK_EQ(lv_wire_pair(socks), 0);
	CHECK_EQ(lv_wire_in_init(&in, 16), 0);
	*(struct cmsghdr *)(void *)control =
		(struct cmsghdr){.cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS, .cmsg_len = CMSG_LEN(0)};
	CHECK_EQ(sendmsg(socks[0], &hdr, 0), 1);
	CHECK_EQ(lv_wire_recv(socks[1], &in, 16), 1);
	CHECK_EQ(in.nfds, 0);
	lv_wire_in_destroy(&in);
	close(socks[0]);
	close(socks[1]);
}

TEST(wire, r244_a_full_descriptor_table_is_our_own_limit)
{
	struct lv_ledger before = lv_ledger_take();
	struct lv_wire_msg msg = {.data = "abc", .len = 3, .nfds = 3};
	struct rlimit old, low;
	struct lv_wire_in in;
	size_t off = 0;
	int socks[2];
	ssize_t n;

	CHECK_EQ(lv_wire_pair(socks), 0);
	CHECK_EQ(lv_wire_in_init(&in, 16), 0);
	msg.fds[0] = msg.fds[1] = msg.fds[2] = socks[0];
	CHECK_EQ(lv_wire_send(socks[0], &msg, 1, &off), 1);
	CHECK_EQ(getrlimit(RLIMIT_NOFILE, &old), 0);
	low = old;
	low.rlim_cur = (rlim_t)socks[1] + 2; /* room for one of the three */
	CHECK_EQ(setrlimit(RLIMIT_NOFILE, &low), 0);
	n = lv_wire_recv(socks[1], &in, 3);
	CHECK_EQ(setrlimit(RLIMIT_NOFILE, &old), 0);
	CHECK_EQ(n, -EMFILE);
	CHECK_EQ(in.nfds, 0);
	lv_wire_in_destroy(&in);
	close(socks[0]);
	close(socks[1]);
	CHECK_LEDGER(before);
}

TEST(wire, r144_paths_that_are_no_listening_socket)
{
	struct lv_ledger before = lv_ledger_take();
	char dir[] = "/tmp/lv-wire-XXXXXX", path[64], longpath[200];
	int fd;

	CHECK(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/x", dir);
	CHECK_EQ(lv_wire_connect(path), -ENOENT);
	CHECK_EQ(lv_wire_connect(dir), -ENOTSOCK);
	CHECK_EQ(lv_wire_connect(""), -EINVAL);
	memset(longpath, 'a', sizeof(longpath));
	longpath[108] = 0;
	CHECK_EQ(lv_wire_connect(longpath), -ENAMETOOLONG);
	CHECK_EQ(lv_wire_listen(longpath, 1), -ENAMETOOLONG);
	longpath[107] = 0;
	CHECK_EQ(lv_wire_connect(longpath), -ENOENT);
	fd = open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
	CHECK(fd >= 0);
	close(fd);
	CHECK_EQ(lv_wire_connect(path), -ENOTSOCK);
	CHECK_EQ(lv_wire_listen(path, 1), -ENOTSOCK);
	CHECK_EQ(access(path, F_OK), 0); /* a file of the user's was not removed */
	unlink(path);
	if (geteuid()) {
		fd = lv_wire_listen(path, 1);
		CHECK(fd >= 0);
		CHECK_EQ(chmod(path, 0), 0);
		CHECK_EQ(lv_wire_connect(path), -EACCES);
		close(fd);
		unlink(path);
	}
	rmdir(dir);
	CHECK_LEDGER(before);
}

TEST(wire, listen_replaces_only_a_socket_that_nobody_serves)
{
	char dir[] = "/tmp/lv-wire-XXXXXX", path[64];
	int a, b, c;

	CHECK(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/x", dir);
	a = lv_wire_listen(path, 1);
	CHECK(a >= 0);
	CHECK(fcntl(a, F_GETFD) & FD_CLOEXEC);
	CHECK_EQ(lv_wire_accept(a), -EAGAIN);
	CHECK_EQ(lv_wire_listen(path, 1), -EADDRINUSE);
	close(a);
	CHECK_EQ(lv_wire_connect(path), -ECONNREFUSED);
	a = lv_wire_listen(path, 1);
	CHECK(a >= 0);
	b = lv_wire_connect(path);
	CHECK(b >= 0);
	c = lv_wire_accept(a);
	CHECK(c >= 0);
	CHECK_EQ(lv_wire_check(b), 0);
	CHECK_EQ(lv_wire_check(a), -ENOTSOCK);
	close(c);
	close(b);
	close(a);
	unlink(path);
	rmdir(dir);
	CHECK_EQ(lv_wire_check(-1), -EBADF);
}

TEST(wire, r096_a_drained_eventfd_never_blocks)
{
	int fd = lv_eventfd(), copy;

	lv_test_deadline(60);
	CHECK(fd >= 0);
	CHECK_EQ(lv_eventfd_drain(fd), 0);
	CHECK_EQ(lv_eventfd_signal(fd), 0);
	CHECK_EQ(lv_eventfd_signal(fd), 0);
	copy = lv_fd_dup(fd);
	CHECK(copy >= 3);
	CHECK(fcntl(copy, F_GETFD) & FD_CLOEXEC);
	CHECK_EQ(fcntl(copy, F_SETFL, 0), 0); /* the peer's trick: the flag is shared */
	CHECK_EQ(lv_eventfd_drain(fd), 1);
	CHECK_EQ(lv_eventfd_drain(fd), 0);
	close(copy);
	close(fd);
	lv_fd_close(-1);
}

TEST(wire, r097_a_full_blocking_eventfd_does_not_block_the_writer)
{
	const uint64_t full = 0xfffffffffffffffeull;
	int fd = lv_eventfd();

	lv_test_deadline(60);
	CHECK(fd >= 0);
	CHECK_EQ(write(fd, &full, 8), 8);
	CHECK_EQ(fcntl(fd, F_SETFL, 0), 0);
	CHECK_EQ(lv_eventfd_signal(fd), -EAGAIN);
	CHECK_EQ(lv_eventfd_drain(fd), 1);
	CHECK_EQ(lv_eventfd_signal(fd), 0);
	close(fd);
	CHECK_EQ(lv_eventfd_signal(fd), -EBADF);
}
