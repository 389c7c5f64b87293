/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* What thread mode does not contain: the experiment of libvhost-sandbox(7). Thread mode is hardening; process mode is
 * the boundary. */
#include "check.h"
#include "inside.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <vhost/libvhost.h>

static int nothing(void)
{
	return -1;
}

static int open_a_file(void)
{
	return open("/etc/passwd", O_RDONLY | O_CLOEXEC);
}

/* A pointer like there are hundreds in any host: its thread calls what it finds there. */
static int (*_Atomic host_callback)(void) = nothing;

struct intruder {
	struct libvhost_call call;
	long own_open, own_execve, foreign_read;
	int foreign_fd;
	char stolen[8];
	atomic_int done;
};

static void take_over(struct libvhost_call *call, struct libvhost_vq *vq)
{
	struct intruder *i = call->arg;

	(void)vq;
	i->own_open = syscall(SYS_openat, AT_FDCWD, "/etc/passwd", O_RDONLY) < 0 ? -errno : 0;
	i->own_execve = syscall(SYS_execve, "/bin/true", NULL, NULL) < 0 ? -errno : 0;
	i->foreign_read = pread(i->foreign_fd, i->stolen, sizeof(i->stolen), 0);
	atomic_store(&host_callback, open_a_file); /* a store: no system call that a filter could see */
	atomic_store(&i->done, 1);
}

static void intrude(struct intruder *i)
{
	const struct libvhost_worker_opts opts = {
		.size = sizeof(opts), .role = LIBVHOST_ROLE_BLOCK, .caps = LIBVHOST_CAPS_DROP};
	struct libvhost_worker_status s = {.size = sizeof(s)};
	struct libvhost_worker *w = NULL;
	struct libvhost_ctx *ctx = NULL;

	i->call = (struct libvhost_call){.fn = take_over, .arg = i};
	CHECK_EQ(libvhost_ctx_new(NULL, &ctx), 0);
	CHECK_EQ(libvhost_worker_new(ctx, &opts, &w), 0);
	CHECK_EQ(libvhost_worker_status(w, &s), 0);
	CHECK_EQ(s.cap_effective, 0);
	CHECK_EQ(s.seccomp, 2);
	CHECK_EQ(libvhost_worker_call(w, &i->call), 0);
	for (int ms = 0; ms < PATIENCE_MS && !atomic_load(&i->done); ms++)
		usleep(1000);
	libvhost_worker_free(w);
	libvhost_ctx_free(ctx);
	CHECK(atomic_load(&i->done));
}

TEST(thread_mode_is_hardening, r300_a_worker_that_is_taken_over_takes_the_host)
{
	struct intruder i = {.foreign_fd = -1};
	int fd;

	CHECK_EQ(atomic_load(&host_callback)(), -1);
	intrude(&i);
	CHECK_EQ(i.own_open, -EPERM);
	CHECK_EQ(i.own_execve, -EPERM);
	fd = atomic_load(&host_callback)(); /* the host goes about its business */
	CHECK(fd >= 0);
	close(fd);
	atomic_store(&host_callback, nothing);
}

/* All descriptors of a process are its workers', too: a known limit. */
TEST(thread_mode_is_hardening, r297_descriptors_of_others_can_be_read)
{
	struct intruder i = {.foreign_fd = memfd_create("secret", MFD_CLOEXEC)};

	CHECK_EQ(write(i.foreign_fd, "secrets!", 8), 8);
	intrude(&i);
	CHECK_EQ(i.foreign_read, 8);
	CHECK_MEM(i.stolen, "secrets!", 8);
	close(i.foreign_fd);
	atomic_store(&host_callback, nothing);
}
