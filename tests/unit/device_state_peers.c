/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* Device state at the front-end, with peers that keep none of the rules. */
#include "wirerig.h"

#include <pthread.h>
#include <signal.h>
#include <sys/socket.h>
#include <vhost/state.h>

#define OP(name) LIBVHOST_OP_##name
#define BIG	 (300u << 10) /* more than a pipe holds */
#define NO_FD	 0x100ull

static const struct libvhost_call_opts async = {.size = sizeof(async), .flags = LIBVHOST_CALL_ASYNC};
static const struct libvhost_call_opts soon = {.size = sizeof(soon), .timeout_ms = 60};

enum { SAYS, SAYS_AND_KEEPS, GIVES_PIPE, GIVES_SOCKET, GIVES_FILE, REFUSES, DIES, LEAVES };

struct script {
	struct wirerig w;
	int what;
	uint32_t bytes, check; /* written, or read; the answer of CHECK */
	atomic_int kept;       /* its end of a pipe */
};

/* SET_DEVICE_STATE_FD is answered with a descriptor, or without. */
static void give(struct puppet *p, int fd)
{
	const uint64_t word = fd < 0 ? NO_FD : 0;

	puppet_send(p->sock, OP(SET_DEVICE_STATE_FD), 5, 8, &word, 8, &fd, fd >= 0);
}

/* Writes, or reads until the other side ends, so many bytes. */
static void move(const struct script *s, int fd, bool save)
{
	static uint8_t chunk[4096];
	uint32_t left = s->bytes;
	sigset_t sigpipe;
	ssize_t n = 1;

	sigemptyset(&sigpipe);
	sigaddset(&sigpipe, SIGPIPE);
	pthread_sigmask(SIG_BLOCK, &sigpipe, NULL); /* of the peer's thread; the library's keeps its default */
	memset(chunk, 0x5a, sizeof(chunk));
	while (left && n > 0) {
		const uint32_t some = left < sizeof(chunk) ? left : sizeof(chunk);

		n = save ? write(fd, chunk, some) : read(fd, chunk, some);
		left -= n > 0 ? (uint32_t)n : 0;
	}
}

static void begin(struct script *s, struct puppet *p, int theirs, bool save)
{
	int fds[2] = {-1, -1}, fd = lv_fd_dup(theirs), given = -1;

	if (s->what == GIVES_PIPE || s->what == GIVES_SOCKET) {
		CHECK_EQ(s->what == GIVES_PIPE ? pipe2(fds, O_CLOEXEC)
					       : socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds),
			 0);
		close(fd);
		given = fds[!save];
		fd = fds[save];
	} else if (s->what == GIVES_FILE) {
		given = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
	}
	if (s->what == LEAVES) {
		close(fd);
		fd = -1;
	}
	give(p, given);
	lv_fd_close(given);
	if (fd >= 0)
		move(s, fd, save);
	if (s->what == SAYS_AND_KEEPS)
		s->kept = fd;
	else
		lv_fd_close(fd);
}

static bool on_message(struct puppet *p, const struct libvhost_req *req, const struct lv_user_msg *msg)
{
	struct script *s = p->arg;
	uint64_t word = s->check;

	(void)msg;
	if (req->op == OP(SET_DEVICE_STATE_FD)) {
		if (s->what == REFUSES) {
			word = NO_FD | 5;
			puppet_send(p->sock, req->op, 5, 8, &word, 8, NULL, 0);
		} else if (s->what == DIES) {
			atomic_store(&p->killed, true);
		} else {
			begin(s, p, req->fd, req->arg.transfer.direction == 0);
		}
		return true;
	}
	if (req->op == OP(CHECK_DEVICE_STATE))
		puppet_send(p->sock, req->op, 5, 8, &word, 8, NULL, 0);
	return req->op == OP(CHECK_DEVICE_STATE);
}

static void script_up(struct script *s, int what, uint32_t bytes)
{
	memset(s, 0, sizeof(*s));
	wirerig_init(&s->w);
	signal(SIGPIPE, SIG_DFL);
	s->kept = -1;
	s->what = what;
	s->bytes = bytes;
	s->w.p.protocol_features |= PUPPET_PF(DEVICE_STATE);
	s->w.p.on_message = on_message;
	s->w.p.arg = s;
	wirerig_open(&s->w);
}

static void script_down(struct script *s)
{
	lv_fd_close(atomic_exchange(&s->kept, -1));
	wirerig_close(&s->w);
}

static int save(struct script *s, size_t room, const struct libvhost_call_opts *opts)
{
	static uint8_t buf[8192];
	size_t len = room;
	int rc = libvhost_dev_save_state(s->w.r.dev, buf, &len, opts);

	CHECK_EQ(len, rc ? room : s->bytes);
	for (uint32_t i = 0; !rc && i < len; i++)
		CHECK_EQ(buf[i], 0x5a);
	return rc;
}

static int load(struct script *s, size_t len, const struct libvhost_call_opts *opts)
{
	static const uint8_t bytes[BIG];

	return libvhost_dev_load_state(s->w.r.dev, bytes, len, opts);
}

TEST(device_state, the_peer_may_bring_a_descriptor_of_its_own)
{
	static const int what[] = {GIVES_PIPE, GIVES_SOCKET};
	struct script s;

	for (int i = 0; i < 2; i++) {
		script_up(&s, what[i], 5000);
		CHECK_EQ(save(&s, 8192, NULL), 0);
		CHECK_EQ(load(&s, 5000, NULL), 0);
		CHECK_EQ(load(&s, 5000, &async), -EINPROGRESS);
		CHECK_EQ(devrig_done(s.w.r.dev).err, 0);
		script_down(&s);
	}
	script_up(&s, GIVES_FILE, 0);
	CHECK_EQ(save(&s, 8192, NULL), -EPROTO);
	CHECK_EQ(devrig_error(&s.w.r).kind, LIBVHOST_EK_PROTOCOL);
	CHECK_EQ(load(&s, 1, NULL), -EPROTO);
	script_down(&s);
}

TEST(device_state, a_state_without_end)
{
	struct script s;

	script_up(&s, SAYS, 8193);
	CHECK_EQ(save(&s, 8192, NULL), -ENOSPC);
	script_down(&s);
	script_up(&s, SAYS_AND_KEEPS, 100); /* never closes */
	CHECK_EQ(save(&s, 8192, &soon), -ETIMEDOUT);
	CHECK_HAS(devrig_error(&s.w.r).text, "has written 100 bytes");
	CHECK_EQ(devrig_state(&s.w.r), LIBVHOST_DEV_NEGOTIATED);
	CHECK_EQ(libvhost_dev_start(s.w.r.dev, NULL), 0);
	script_down(&s);
	script_up(&s, SAYS_AND_KEEPS, 0); /* never reads */
	CHECK_EQ(load(&s, BIG, &soon), -ETIMEDOUT);
	CHECK_HAS(devrig_error(&s.w.r).text, "does not go on");
	script_down(&s);
}

TEST(device_state, a_peer_that_ends_early)
{
	struct script s;

	script_up(&s, LEAVES, 0);
	CHECK_EQ(save(&s, 8192, NULL), 0); /* who writes nothing has no state, unless it says otherwise */
	s.check = 1;
	CHECK_EQ(save(&s, 8192, NULL), -EIO);
	CHECK_EQ(load(&s, BIG, NULL), -EIO); /* SIGPIPE stands at its default */
	CHECK_EQ(devrig_error(&s.w.r).op, OP(CHECK_DEVICE_STATE));
	s.check = 0; /* took nothing and is content */
	CHECK_EQ(load(&s, BIG, NULL), -EIO);
	CHECK_HAS(devrig_error(&s.w.r).text, "all right");
	script_down(&s);
	script_up(&s, REFUSES, 0);
	CHECK_EQ(save(&s, 8192, NULL), -EIO);
	CHECK_EQ(devrig_error(&s.w.r).op, OP(SET_DEVICE_STATE_FD));
	CHECK_EQ(devrig_state(&s.w.r), LIBVHOST_DEV_NEGOTIATED);
	script_down(&s);
	script_up(&s, DIES, 0);
	CHECK_EQ(save(&s, 8192, NULL), -ECONNRESET);
	CHECK_EQ(devrig_state(&s.w.r), LIBVHOST_DEV_DISCONNECTED);
	CHECK_EQ(load(&s, 1, NULL), -ENOTCONN);
	script_down(&s);
}

static void *kill_later(void *arg)
{
	usleep(20000);
	puppet_kill(arg);
	return NULL;
}

static void *cancel_later(void *arg)
{
	usleep(20000);
	CHECK_EQ(libvhost_dev_cancel(arg), 0);
	return NULL;
}

TEST(device_state, death_and_cancellation_in_mid_transfer)
{
	pthread_t thread;
	struct script s;

	script_up(&s, SAYS_AND_KEEPS, 100);
	CHECK_EQ(pthread_create(&thread, NULL, cancel_later, s.w.r.dev), 0);
	CHECK_EQ(save(&s, 8192, NULL), -ECANCELED);
	pthread_join(thread, NULL);
	CHECK_EQ(devrig_state(&s.w.r), LIBVHOST_DEV_NEGOTIATED);
	lv_fd_close(atomic_exchange(&s.kept, -1));
	CHECK_EQ(save(&s, 8192, &async), -EINPROGRESS); /* which does not end by itself */
	while (s.kept < 0)
		CHECK_EQ(libvhost_dev_dispatch(s.w.r.dev, 10), 0);
	CHECK_EQ(save(&s, 8192, NULL), -EBUSY);
	CHECK_EQ(libvhost_dev_start(s.w.r.dev, NULL), -EBUSY);
	CHECK_EQ(libvhost_dev_cancel(s.w.r.dev), 0);
	CHECK_EQ(devrig_done(s.w.r.dev).err, -ECANCELED);
	lv_fd_close(atomic_exchange(&s.kept, -1));
	CHECK_EQ(pthread_create(&thread, NULL, kill_later, &s.w.p), 0);
	CHECK_EQ(save(&s, 8192, NULL), -ECONNRESET);
	pthread_join(thread, NULL);
	CHECK_EQ(devrig_state(&s.w.r), LIBVHOST_DEV_DISCONNECTED);
	script_down(&s);
}

TEST(device_state, who_may_when)
{
	int fds[2], other = 7;
	struct script s;
	size_t len = 0;

	script_up(&s, SAYS, 0);
	CHECK_EQ(pipe2(fds, O_CLOEXEC), 0);
	CHECK_EQ(libvhost_dev_supports_device_state(NULL), -EINVAL);
	CHECK_EQ(libvhost_dev_check_device_state(NULL, 0), -EINVAL);
	CHECK_EQ(libvhost_dev_save_state(s.w.r.dev, NULL, NULL, NULL), -EINVAL);
	CHECK_EQ(libvhost_dev_load_state(s.w.r.dev, NULL, 1, NULL), -EINVAL);
	CHECK_EQ(libvhost_dev_set_device_state_fd(s.w.r.dev, 2, fds[1], &other, 0), -EINVAL);
	CHECK_EQ(libvhost_dev_set_device_state_fd(s.w.r.dev, 0, -1, &other, 0), -EINVAL);
	CHECK_EQ(libvhost_dev_set_device_state_fd(s.w.r.dev, 0, fds[1], NULL, 0), -EINVAL);
	CHECK_EQ(libvhost_dev_set_device_state_fd(s.w.r.dev, 0, fds[1], &other, UINT32_MAX), -EINVAL);
	CHECK_EQ(libvhost_dev_save_state(s.w.r.dev, NULL, &len, NULL), 0); /* an empty one */
	CHECK_EQ(libvhost_dev_start(s.w.r.dev, NULL), 0);
	CHECK_EQ(libvhost_dev_save_state(s.w.r.dev, NULL, &len, NULL), -EBUSY);
	CHECK_EQ(libvhost_dev_set_device_state_fd(s.w.r.dev, 0, fds[1], &other, 0), -EBUSY);
	CHECK_EQ(libvhost_dev_check_device_state(s.w.r.dev, 0), -EBUSY);
	CHECK_EQ(other, 7);
	close(fds[0]);
	close(fds[1]);
	script_down(&s);
	wirerig_init(&s.w); /* a peer without the feature */
	s.w.p.protocol_features &= ~PUPPET_PF(DEVICE_STATE);
	wirerig_open(&s.w);
	CHECK_EQ(libvhost_dev_supports_device_state(s.w.r.dev), 0);
	CHECK_EQ(libvhost_dev_save_state(s.w.r.dev, NULL, &len, NULL), -ENOTSUP);
	CHECK_EQ(devrig_error(&s.w.r).kind, LIBVHOST_EK_NOT_NEGOTIATED);
	CHECK_EQ(libvhost_dev_check_device_state(s.w.r.dev, 0), -ENOTSUP);
	wirerig_close(&s.w);
}
