/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* A console with one port. Sandbox row: ring; the terminal is a descriptor that was opened before. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "cli.h"
#include "devices/device.h"
#include "devices/pieces.h"

#define VIRTIO_ID_CONSOLE 3u
#define PIECES		  16u
#define INPUT_ROOM	  4096u

enum { OPT_INPUT = 2200, OPT_OUTPUT };

static const struct argp_option options[] = {
	{"input", OPT_INPUT, "FILE", 0, "what the guest reads: a terminal or pipe (default: standard input)", 0},
	{"output", OPT_OUTPUT, "FILE", 0, "where it writes, appended (default: standard output)", 0},
	{0},
};

static struct console {
	struct device device; /* first */
	const char *input, *output;
	uint8_t waiting[INPUT_ROOM]; /* read, and no buffer for it yet */
	uint32_t len;
} console;

static error_t parse(int key, char *arg, struct argp_state *state)
{
	(void)state;
	switch (key) {
	case OPT_INPUT:
		console.input = arg;
		return 0;
	case OPT_OUTPUT:
		console.output = arg;
		return 0;
	default:
		return ARGP_ERR_UNKNOWN;
	}
}

static const struct argp argp = {options, parse, NULL, NULL, NULL, NULL, NULL};

static int open_or(const char *path, int flags, int otherwise)
{
	return path ? open(path, flags | O_CLOEXEC | O_NONBLOCK | O_NOCTTY, 0600) : dup(otherwise);
}

static int console_open(struct device *d, uint32_t queues)
{
	(void)queues;
	d->files[0] = open_or(console.input, O_RDONLY, STDIN_FILENO);
	d->files[1] = open_or(console.output, O_WRONLY | O_CREAT | O_APPEND, STDOUT_FILENO);
	if (d->files[0] < 0)
		return complain("%s: %s", console.input ? console.input : "standard input", strerror(errno));
	if (lseek(d->files[0], 0, SEEK_CUR) >= 0) /* a file, or /dev/null: always readable, so nothing to wait for */
		return complain("%s is no terminal, pipe or socket; give one with --input",
				console.input ? console.input : "standard input");
	if (d->files[1] < 0)
		return complain("%s: %s", console.output ? console.output : "standard output", strerror(errno));
	/* a terminal that others write to, too, must not make the worker wait */
	fcntl(d->files[0], F_SETFL, fcntl(d->files[0], F_GETFL) | O_NONBLOCK);
	snprintf(d->summary, sizeof(d->summary), "a console");
	return 0;
}

static int console_bind(struct device *d, struct libvhost_backend *backend)
{
	return libvhost_backend_watch_fd(backend, 0, d->files[0]);
}

/* Its state: what was read from the terminal and is not the guest's yet. */
static int64_t console_save(void *arg, void *buf, uint64_t cap)
{
	const struct console *con = arg;

	if (cap < con->len)
		return -ENOSPC;
	memcpy(buf, con->waiting, con->len);
	return con->len;
}

static int console_load(void *arg, const void *buf, uint64_t len)
{
	struct console *con = arg;

	if (len > sizeof(con->waiting))
		return -EINVAL;
	memcpy(con->waiting, buf, len);
	con->len = (uint32_t)len;
	return 0;
}

static void console_close(struct device *d)
{
	close(d->files[0]);
	close(d->files[1]);
}

/* --- on the worker --- */

/* A buffer takes what there is, as a terminal's reader would. */
static int to_guest(struct console *con, struct libvhost_vq *vq)
{
	struct libvhost_iov iov[PIECES];
	struct libvhost_chain c = {.size = sizeof(c), .iov = iov, .iov_cap = PIECES};
	struct pieces room;
	size_t n;
	int rc;

	if (!con->len) {
		const ssize_t got = read(con->device.files[0], con->waiting, sizeof(con->waiting));

		if (got <= 0)
			return LIBVHOST_TURN_WAIT;
		con->len = (uint32_t)got;
	}
	rc = libvhost_vq_pop(vq, &c);
	if (rc <= 0)
		return rc;
	room = (struct pieces){iov + c.n_read, c.n_write};
	n = pieces_copy(&room, con->waiting, con->len, true);
	con->len -= (uint32_t)n;
	memmove(con->waiting, con->waiting + n, con->len);
	rc = libvhost_vq_push(vq, c.head, n);
	return rc < 0 ? rc : LIBVHOST_TURN_MORE;
}

static int from_guest(struct console *con, struct libvhost_vq *vq)
{
	struct libvhost_iov iov[PIECES];
	struct libvhost_chain c = {.size = sizeof(c), .iov = iov, .iov_cap = PIECES};
	int rc = libvhost_vq_pop(vq, &c);

	if (rc <= 0)
		return rc;
	for (uint32_t i = 0; i < c.n_read; i++) /* what a full terminal does not take is lost */
		if (write(con->device.files[1], iov[i].base, iov[i].len) < 0)
			break;
	rc = libvhost_vq_push(vq, c.head, 0);
	return rc < 0 ? rc : LIBVHOST_TURN_MORE;
}

static int console_serve(void *arg, uint32_t queue, struct libvhost_vq *vq)
{
	return queue ? from_guest(arg, vq) : to_guest(arg, vq);
}

static struct console console = {
	.device = {.name = "console",
		   .argp = &argp,
		   .virtio_id = VIRTIO_ID_CONSOLE,
		   .role = LIBVHOST_ROLE_RING,
		   .queues = 2,
		   .max_queues = 2,
		   .queue_step = 1,
		   .open = console_open,
		   .bind = console_bind,
		   .serve = console_serve,
		   .save_state = console_save,
		   .load_state = console_load,
		   .close = console_close},
};
struct device *const console_device = &console.device;
