/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* What the kernel says about a worker: /proc is asked, our own notes are not. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/opts.h"
#include "core/wire.h"
#include "worker/worker.h"

static int read_proc(pid_t tid, char *text, size_t cap)
{
	char path[64];
	ssize_t n = 0;
	size_t len = 0;
	int fd;

	snprintf(path, sizeof(path), "/proc/self/task/%d/status", (int)tid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	while (len < cap - 1 && (n = read(fd, text + len, cap - 1 - len)) > 0)
		len += (size_t)n;
	if (n < 0)
		n = -errno;
	lv_fd_close(fd);
	text[len] = 0;
	return n < 0 ? (int)n : 0;
}

static uint64_t field(const char *text, const char *name, int base)
{
	const char *at = strstr(text, name);

	return at ? strtoull(at + strlen(name), NULL, base) : 0;
}

int libvhost_worker_status(struct libvhost_worker *w, struct libvhost_worker_status *status)
{
	struct libvhost_worker_status s = {.size = sizeof(s)};
	char text[4096];
	int rc;

	if (!w || !status)
		return -EINVAL;
	s.tid = (uint32_t)atomic_load(&w->tid);
	rc = read_proc((pid_t)s.tid, text, sizeof(text));
	if (rc == -ENOENT || rc == -ESRCH || atomic_load(&w->started) < 0)
		return lv_fail(&w->err, -ESRCH, LIBVHOST_EK_SANDBOX, "worker: thread %u is gone", s.tid);
	if (rc < 0)
		return lv_fail_sys(&w->err, -rc, "worker: /proc/self/task/%u/status: %s", s.tid, lv_errno_name(-rc));
	s.seccomp = (uint32_t)field(text, "\nSeccomp:", 10);
	s.no_new_privs = (uint32_t)field(text, "\nNoNewPrivs:", 10);
	s.cap_effective = field(text, "\nCapEff:", 16);
	s.cap_permitted = field(text, "\nCapPrm:", 16);
	s.cap_bounding = field(text, "\nCapBnd:", 16);
	s.queues = atomic_load(&w->queues);
	s.alive = 1;
	s.wakeups = atomic_load(&w->wakeups);
	s.requests = atomic_load(&w->requests);
	s.io_uring = w->io.ring.fd >= 0;
	s.io_under_way = atomic_load(&w->io_under_way);
	s.io_done = atomic_load(&w->io_done);
	return LV_OUT_WRITE(status, &s);
}
