/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/*
 * The server is a process: what it does not answer must not depend on the process that waits. A second one opens the
 * file, in the server's mount namespace, and sends the descriptor. Protocol: linux/fuse.h.
 */
#define _GNU_SOURCE 1
#include "mutefs.h"
#include "check.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define FILE_ID	 2u
#define WAITING	 64u
#define BUFFER	 (1u << 20)
#define PATIENCE 60u /* seconds */

struct server {
	int dev, talk;
	uint64_t bytes;
	bool speaks;
	struct fuse_in_header late[WAITING];
	uint32_t sizes[WAITING], nlate;
};

static void answer(struct server *s, const struct fuse_in_header *in, int error, const void *body, uint32_t len)
{
	static uint8_t out[BUFFER];
	const struct fuse_out_header hdr = {.len = (uint32_t)sizeof(hdr) + len, .error = -error, .unique = in->unique};

	memcpy(out, &hdr, sizeof(hdr));
	if (len)
		memcpy(out + sizeof(hdr), body, len);
	if (write(s->dev, out, hdr.len) < 0 && errno != ENOENT) /* ENOENT: nobody waits for it any more */
		_exit(3);
}

static struct fuse_attr attr_of(const struct server *s, uint64_t node)
{
	return (struct fuse_attr){.ino = node,
				  .size = node == FILE_ID ? s->bytes : 0,
				  .mode = node == FILE_ID ? S_IFREG | 0600 : S_IFDIR | 0700,
				  .nlink = 1,
				  .uid = getuid(),
				  .gid = getgid(),
				  .blksize = 4096};
}

static void read_late(struct server *s, const struct fuse_in_header *in, uint32_t size)
{
	static const uint8_t zeroes[BUFFER - sizeof(struct fuse_out_header)];

	if (s->speaks) {
		answer(s, in, 0, zeroes, size);
		return;
	}
	if (s->nlate == WAITING)
		_exit(4);
	s->late[s->nlate] = *in;
	s->sizes[s->nlate++] = size;
	if (write(s->talk, "r", 1) < 0)
		_exit(5);
}

static void handle(struct server *s, const uint8_t *message)
{
	struct fuse_entry_out entry = {.nodeid = FILE_ID, .entry_valid = 3600, .attr_valid = 3600};
	struct fuse_attr_out attr = {.attr_valid = 3600};
	const struct fuse_open_out opened = {.fh = 1, .open_flags = FOPEN_KEEP_CACHE};
	struct fuse_init_out init = {.major = FUSE_KERNEL_VERSION, .minor = 31, .max_write = 65536};
	struct fuse_in_header in;
	struct fuse_read_in r;

	memcpy(&in, message, sizeof(in));
	switch (in.opcode) {
	case FUSE_INIT:
		init.max_readahead = 0;
		answer(s, &in, 0, &init, sizeof(init));
		break;
	case FUSE_LOOKUP:
		entry.attr = attr_of(s, FILE_ID);
		answer(s, &in, 0, &entry, sizeof(entry));
		break;
	case FUSE_GETATTR:
	case FUSE_SETATTR:
		attr.attr = attr_of(s, in.nodeid);
		answer(s, &in, 0, &attr, sizeof(attr));
		break;
	case FUSE_OPEN:
		answer(s, &in, 0, &opened, sizeof(opened));
		break;
	case FUSE_READ:
		memcpy(&r, message + sizeof(in), sizeof(r));
		read_late(s, &in, r.size);
		break;
	case FUSE_WRITE: {
		struct fuse_write_in w;

		memcpy(&w, message + sizeof(in), sizeof(w));
		answer(s, &in, 0, &(struct fuse_write_out){.size = w.size}, sizeof(struct fuse_write_out));
		break;
	}
	case FUSE_FORGET:
	case FUSE_BATCH_FORGET:
	case FUSE_INTERRUPT:
		break;
	case FUSE_RELEASE:
	case FUSE_FSYNC:
		answer(s, &in, 0, NULL, 0);
		break;
	default:
		answer(s, &in, ENOSYS, NULL, 0);
	}
}

_Noreturn static void run(struct server *s)
{
	static uint8_t message[BUFFER];
	struct pollfd p[2] = {{.fd = s->dev, .events = POLLIN}, {.fd = s->talk, .events = POLLIN}};
	char word;

	for (;;) {
		poll(p, 2, -1);
		if (p[1].revents) {
			if (read(s->talk, &word, 1) != 1)
				_exit(0);
			s->speaks = true;
			for (uint32_t i = 0; i < s->nlate; i++)
				read_late(s, &s->late[i], s->sizes[i]);
		}
		if (p[0].revents & POLLERR || (p[0].revents && read(s->dev, message, sizeof(message)) < 0))
			_exit(0);
		if (p[0].revents)
			handle(s, message);
	}
}

static bool write_text(const char *path, const char *text)
{
	const int fd = open(path, O_WRONLY | O_CLOEXEC);
	const bool good = fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text);

	if (fd >= 0)
		close(fd);
	return good;
}

/* In a mount namespace of its own, so that nothing is left of it; an ordinary user has one in a user namespace. */
static bool mounted(int dev, const char *folder)
{
	const unsigned uid = getuid(), gid = getgid();
	char text[96];

	if (unshare(CLONE_NEWNS) < 0) {
		if (unshare(CLONE_NEWUSER | CLONE_NEWNS) < 0)
			return false;
		snprintf(text, sizeof(text), "%u %u 1", uid, uid);
		if (!write_text("/proc/self/setgroups", "deny") || !write_text("/proc/self/uid_map", text))
			return false;
		snprintf(text, sizeof(text), "%u %u 1", gid, gid);
		if (!write_text("/proc/self/gid_map", text))
			return false;
	}
	if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
		return false;
	snprintf(text, sizeof(text), "fd=%d,rootmode=40000,user_id=%u,group_id=%u", dev, uid, gid);
	return mount("mute", folder, "fuse", MS_NOSUID | MS_NODEV, text) == 0;
}

static void send_fd(int talk, int fd)
{
	_Alignas(8) char control[CMSG_SPACE(sizeof(int))] = {0};
	char byte = 'f';
	struct iovec iov = {.iov_base = &byte, .iov_len = 1};
	struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof(control)};
	struct cmsghdr *c = CMSG_FIRSTHDR(&m);

	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SCM_RIGHTS;
	c->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(c), &fd, sizeof(fd));
	if (sendmsg(talk, &m, 0) < 0)
		_exit(6);
}

static int receive_fd(int talk)
{
	_Alignas(8) char control[CMSG_SPACE(sizeof(int))] = {0};
	char byte = 0;
	struct iovec iov = {.iov_base = &byte, .iov_len = 1};
	struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof(control)};
	int fd = -1;

	if (recvmsg(talk, &m, MSG_CMSG_CLOEXEC) == 1 && byte == 'f' && CMSG_FIRSTHDR(&m))
		memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&m)), sizeof(fd));
	return fd;
}

_Noreturn static void serve(int talk, uint64_t bytes)
{
	struct server s = {.talk = talk, .bytes = bytes, .dev = open("/dev/fuse", O_RDWR | O_CLOEXEC)};
	char folder[] = "/tmp/libvhost-mute-XXXXXX", path[64];
	int fd;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	alarm(PATIENCE); /* the kernel ends nobody who waits for an answer, not by SIGKILL either: so does this */
	if (s.dev < 0 || !mkdtemp(folder) || !mounted(s.dev, folder)) {
		rmdir(folder);
		if (write(talk, "n", 1) < 0)
			_exit(7);
		_exit(0);
	}
	if (fork() == 0) {
		snprintf(path, sizeof(path), "%s/ram", folder);
		fd = open(path, O_RDWR | O_CLOEXEC);
		send_fd(talk, fd);
		umount2(folder, MNT_DETACH);
		rmdir(folder);
		_exit(0);
	}
	run(&s);
}

bool mutefs_new(struct mutefs *m, uint64_t bytes)
{
	int pair[2];

	*m = (struct mutefs){.fd = -1};
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
		return false;
	m->server = fork();
	if (m->server == 0) {
		close(pair[0]);
		serve(pair[1], bytes);
	}
	close(pair[1]);
	m->talk = pair[0];
	m->fd = receive_fd(m->talk);
	if (m->fd < 0)
		mutefs_free(m);
	return m->fd >= 0;
}

bool mutefs_asked(struct mutefs *m)
{
	struct pollfd p = {.fd = m->talk, .events = POLLIN};
	char word;

	return poll(&p, 1, PATIENCE_MS) == 1 && read(m->talk, &word, 1) == 1;
}

void mutefs_speak(struct mutefs *m)
{
	if (write(m->talk, "s", 1) < 0)
		abort();
}

void mutefs_free(struct mutefs *m)
{
	if (m->fd >= 0)
		close(m->fd);
	close(m->talk);
	waitpid(m->server, NULL, 0);
}
