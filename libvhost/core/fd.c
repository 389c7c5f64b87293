/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* Single descriptors: duplicate, close, and eventfds that a peer may have tampered with. */
#include "core/wire.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/vfs.h>
#include <unistd.h>

int lv_fd_dup(int fd)
{
	/* not below 3: a host that closed its stdio must not find our descriptor there */
	int copy = fcntl(fd, F_DUPFD_CLOEXEC, 3);

	return copy < 0 ? -errno : copy;
}

int lv_fd_in_memory(int fd)
{
	return fcntl(fd, F_GET_SEALS) >= 0;
}

bool lv_fd_same_file(int a, int b)
{
	struct stat x, y;

	return !fstat(a, &x) && !fstat(b, &y) && x.st_dev == y.st_dev && x.st_ino == y.st_ino;
}

bool lv_fd_blocks(int fd)
{
	const int flags = fcntl(fd, F_GETFL);

	return flags >= 0 && !(flags & O_NONBLOCK);
}

size_t lv_fd_page(int fd)
{
	struct statfs fs;

	if (fstatfs(fd, &fs) == 0 && (uint32_t)fs.f_type == HUGETLBFS_MAGIC)
		return (size_t)fs.f_bsize;
	return (size_t)sysconf(_SC_PAGESIZE);
}

void lv_fd_close(int fd)
{
	const int keep = errno;

	if (fd >= 0)
		close(fd); /* never repeated on EINTR: Linux has released the number */
	errno = keep;
}

int lv_eventfd(void)
{
	int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);

	return fd < 0 ? -errno : fd;
}

static int ready(int fd, short events)
{
	struct pollfd p = {.fd = fd, .events = events};
	int n;

	do
		n = poll(&p, 1, 0);
	while (n < 0 && errno == EINTR);
	return n == 1 && (p.revents & events);
}

int lv_eventfd_signal(int fd)
{
	const uint64_t one = 1;
	ssize_t n;

	/* O_NONBLOCK is shared with whoever holds a duplicate and may be gone; the kernel has no RWF_NOWAIT here */
	if (!ready(fd, POLLOUT))
		return fcntl(fd, F_GETFD) < 0 ? -errno : -EAGAIN;
	do
		n = write(fd, &one, sizeof(one));
	while (n < 0 && errno == EINTR);
	return n < 0 ? -errno : 0;
}

static ssize_t read_nowait(int fd)
{
	uint64_t value;
	struct iovec iov = {.iov_base = &value, .iov_len = sizeof(value)};
	ssize_t n;

	do
		n = preadv2(fd, &iov, 1, -1, RWF_NOWAIT);
	while (n < 0 && errno == EINTR);
	return n;
}

int lv_eventfd_drain(int fd)
{
	uint64_t value;
	ssize_t n = read_nowait(fd);

	if (n < 0 && errno == EOPNOTSUPP && ready(fd, POLLIN))
		n = read(fd, &value, sizeof(value));
	return n > 0;
}

void lv_eventfd_drain_edge(int fd)
{
	read_nowait(fd);
}

void lv_eventfd_make_room(int fd)
{
	if (!ready(fd, POLLOUT))
		read_nowait(fd);
}
