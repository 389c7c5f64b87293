/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* The device's own state through pipes: whole or not at all, and nobody waits for the other end. */
#include <signal.h>

#include "frontend.h"

#define SAVE   0u
#define LOAD   1u
#define NO_FD  0x100ull
#define ROOM   (300u << 10) /* more than a pipe holds */
#define HEADER 8u

/* A device whose state is a length, a sum and that many bytes. */
struct device {
	uint32_t len, loads;
	uint8_t bytes[ROOM];
	int64_t save_says; /* instead, if not 0 */
};

static uint32_t sum(const uint8_t *bytes, uint32_t len)
{
	uint32_t s = 1;

	for (uint32_t i = 0; i < len; i++)
		s = s * 31 + bytes[i];
	return s;
}

static int64_t save_state(void *arg, void *buf, uint64_t cap)
{
	struct device *d = arg;
	uint32_t head[2] = {d->len, sum(d->bytes, d->len)};

	if (d->save_says)
		return d->save_says;
	if (cap < HEADER + d->len)
		return -ENOSPC;
	memcpy(buf, head, sizeof(head));
	memcpy((uint8_t *)buf + HEADER, d->bytes, d->len);
	return HEADER + d->len;
}

static int load_state(void *arg, const void *buf, uint64_t len)
{
	const uint8_t *bytes = (const uint8_t *)buf + HEADER;
	struct device *d = arg;
	uint32_t head[2];

	d->loads++;
	if (len < HEADER)
		return -EINVAL;
	memcpy(head, buf, sizeof(head));
	if (head[0] > ROOM || head[0] != len - HEADER || sum(bytes, head[0]) != head[1])
		return -EINVAL;
	d->len = head[0];
	memcpy(d->bytes, bytes, d->len);
	return 0;
}

static struct device *device_new(uint32_t len)
{
	struct device *d = calloc(1, sizeof(*d));

	CHECK(d);
	d->len = len;
	for (uint32_t i = 0; i < len; i++)
		d->bytes[i] = (uint8_t)(i * 7 + len);
	return d;
}

static struct fake up_for(struct device *d, uint32_t state_max, uint32_t timeout_ms)
{
	static const struct libvhost_backend_ops ops = {
		.size = sizeof(ops), .serve = fake_serve, .save_state = save_state, .load_state = load_state};
	const struct libvhost_backend_opts o = {
		.ops = &ops, .arg = d, .state_max = state_max, .timeout_ms = timeout_ms};
	struct fake p = fake_new(&o);

	handshake(&p);
	return p;
}

static struct fake up(struct device *d, uint32_t state_max)
{
	return up_for(d, state_max, 0);
}

/* The word of the answer. */
static uint64_t begin(struct fake *p, uint32_t direction, uint32_t phase, const int *fds, uint32_t nfds)
{
	const uint32_t transfer[2] = {direction, phase};
	struct wire_hdr hdr;
	uint64_t word = 0;

	send_msg(p, LIBVHOST_OP_SET_DEVICE_STATE_FD, 0, transfer, sizeof(transfer), fds, nfds);
	CHECK_EQ(recv_msg(p, &hdr, &word, sizeof(word)), 8);
	CHECK_EQ(hdr.request, LIBVHOST_OP_SET_DEVICE_STATE_FD);
	return word;
}

static uint64_t check(struct fake *p)
{
	return get_u64(p, LIBVHOST_OP_CHECK_DEVICE_STATE);
}

/* Reads until the end; fails if it does not come. */
static uint32_t read_all(struct fake *p, int fd, uint8_t *buf, uint32_t cap)
{
	uint32_t len = 0;
	ssize_t n = 1;

	CHECK_EQ(fcntl(fd, F_SETFL, O_NONBLOCK), 0);
	for (int i = 0; i < 10000 && n; i++) {
		n = read(fd, buf + len, cap - len);
		CHECK(n >= 0 || errno == EAGAIN);
		len += n > 0 ? (uint32_t)n : 0;
		settle(p);
	}
	CHECK_EQ(n, 0);
	return len;
}

static void write_all(struct fake *p, int fd, const uint8_t *bytes, uint32_t len)
{
	CHECK_EQ(fcntl(fd, F_SETFL, O_NONBLOCK), 0);
	for (uint32_t off = 0; off < len;) {
		ssize_t n = write(fd, bytes + off, len - off);

		CHECK(n > 0 || (n < 0 && errno == EAGAIN));
		off += n > 0 ? (uint32_t)n : 0;
		settle(p);
	}
}

static uint32_t save(struct fake *p, uint8_t *buf, uint32_t cap)
{
	uint32_t len;
	int fds[2];

	CHECK_EQ(pipe2(fds, O_CLOEXEC), 0);
	CHECK_EQ(begin(p, SAVE, 0, &fds[1], 1), NO_FD);
	close(fds[1]);
	len = read_all(p, fds[0], buf, cap);
	close(fds[0]);
	CHECK_EQ(check(p), 0);
	return len;
}

/* The word that CHECK_DEVICE_STATE says. */
static uint64_t load(struct fake *p, const uint8_t *bytes, uint32_t len)
{
	int fds[2];

	CHECK_EQ(pipe2(fds, O_CLOEXEC), 0);
	CHECK_EQ(begin(p, LOAD, 0, &fds[0], 1), NO_FD);
	close(fds[0]);
	write_all(p, fds[1], bytes, len);
	close(fds[1]);
	return check(p);
}

TEST(backend_state, is_saved_and_loaded_in_one_piece)
{
	static uint8_t buf[ROOM + HEADER + 1];
	struct device *from = device_new(ROOM), *to = device_new(3);
	struct fake p = up(from, 0), q = up(to, 0);

	CHECK_EQ(save(&p, buf, sizeof(buf)), HEADER + ROOM);
	CHECK_EQ(load(&q, buf, HEADER + ROOM), 0);
	CHECK_EQ(to->len, ROOM);
	CHECK_MEM(to->bytes, from->bytes, ROOM);
	CHECK_EQ(ring_up(&q, 0), 0);
	fake_free(&q); /* was made second */
	fake_free(&p);
	free(from);
	free(to);
}

TEST(backend_state, goes_through_a_socket_as_well)
{
	static uint8_t buf[ROOM + HEADER + 1];
	struct device *d = device_new(ROOM);
	struct fake p = up(d, 0);
	int fds[2];

	CHECK_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
	CHECK_EQ(begin(&p, SAVE, 0, &fds[1], 1), NO_FD);
	close(fds[1]);
	CHECK_EQ(read_all(&p, fds[0], buf, sizeof(buf)), HEADER + ROOM);
	close(fds[0]);
	CHECK_EQ(check(&p), 0);
	memset(d->bytes, 0, sizeof(d->bytes));
	CHECK_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
	CHECK_EQ(begin(&p, LOAD, 0, &fds[1], 1), NO_FD);
	close(fds[1]);
	write_all(&p, fds[0], buf, HEADER + ROOM);
	close(fds[0]);
	CHECK_EQ(check(&p), 0);
	CHECK_MEM(d->bytes, buf + HEADER, ROOM);
	fake_free(&p);
	free(d);
}

TEST(backend_state, r141_transfers_that_cannot_be)
{
	struct device *d = device_new(100);
	struct fake p = up(d, 0);
	int fds[2], both[2], datagram = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0), path;
	struct lv_ledger before;

	CHECK_EQ(pipe2(fds, O_CLOEXEC), 0);
	path = open("/proc/self/exe", O_PATH | O_CLOEXEC);
	both[0] = fds[1]; /* the right one first */
	both[1] = fds[0];
	before = lv_ledger_take();
	CHECK_EQ(begin(&p, 2, 0, &fds[1], 1), NO_FD | EINVAL);
	CHECK_EQ(begin(&p, 2, 0, &fds[0], 1), NO_FD | EINVAL); /* whichever end it may mean */
	CHECK_EQ(begin(&p, UINT32_MAX, 0, &fds[1], 1), NO_FD | EINVAL);
	CHECK_EQ(begin(&p, UINT32_MAX, 0, &fds[0], 1), NO_FD | EINVAL);
	CHECK_EQ(begin(&p, SAVE, 7, &fds[1], 1), NO_FD | EINVAL);
	CHECK_EQ(begin(&p, SAVE, 0, &fds[0], 1), NO_FD | EINVAL); /* the wrong end */
	CHECK_EQ(begin(&p, LOAD, 0, &fds[1], 1), NO_FD | EINVAL);
	CHECK_EQ(begin(&p, SAVE, 0, both, 2), NO_FD | EINVAL);
	CHECK_EQ(begin(&p, SAVE, 0, NULL, 0), NO_FD | EINVAL);
	CHECK_EQ(begin(&p, SAVE, 0, &p.ram, 1), NO_FD | EINVAL); /* no pipe */
	CHECK_EQ(begin(&p, SAVE, 0, &p.kick, 1), NO_FD | EINVAL);
	CHECK_EQ(begin(&p, LOAD, 0, &datagram, 1), NO_FD | EINVAL);
	CHECK_EQ(begin(&p, LOAD, 0, &path, 1), NO_FD | EINVAL);
	CHECK_EQ(check(&p), EINVAL); /* none of them began anything */
	CHECK_LEDGER(before);
	CHECK_EQ(ring_up(&p, 0), 0);
	CHECK_EQ(begin(&p, SAVE, 0, &fds[1], 1), NO_FD | EBUSY);
	CHECK_EQ(get_base(&p, 0), 0);
	close(fds[0]);
	close(fds[1]);
	close(path);
	close(datagram);
	fake_free(&p);
	free(d);
}

TEST(backend_state, r142_a_broken_load_changes_nothing)
{
	struct device *from = device_new(200), *to = device_new(60);
	static uint8_t buf[1024];
	struct device *old = malloc(sizeof(*old));
	struct fake p = up(from, 0), q = up(to, 0);
	uint32_t len = save(&p, buf, sizeof(buf));

	CHECK(old);
	memcpy(old, to, sizeof(*old));
	for (uint32_t n = 0; n < len; n++)
		CHECK_EQ(load(&q, buf, n), EINVAL); /* n = 0: empty */
	for (uint32_t bit = 0; bit < len * 8; bit++) {
		buf[bit / 8] ^= (uint8_t)(1u << bit % 8);
		CHECK_EQ(load(&q, buf, len), EINVAL);
		buf[bit / 8] ^= (uint8_t)(1u << bit % 8);
	}
	CHECK_EQ(to->loads, len + len * 8);
	old->loads = to->loads;
	CHECK_MEM(to, old, sizeof(*old));
	CHECK_EQ(load(&q, buf, len), 0);
	CHECK_EQ(to->len, 200);
	fake_free(&q); /* was made second */
	fake_free(&p);
	free(old);
	free(from);
	free(to);
}

TEST(backend_state, r142_more_than_there_may_be)
{
	static uint8_t buf[70000];
	struct device *d = device_new(10);
	struct fake p = up(d, 65536);
	int fds[2];

	CHECK_EQ(pipe2(fds, O_CLOEXEC | O_NONBLOCK), 0);
	CHECK_EQ(begin(&p, LOAD, 0, &fds[0], 1), NO_FD);
	close(fds[0]);
	signal(SIGPIPE, SIG_IGN);	  /* ours, who write into the pipe */
	for (int i = 0; i < 10000; i++) { /* it stops reading, long before a gibibyte */
		if (write(fds[1], buf, sizeof(buf)) < 0 && errno == EPIPE)
			break;
		CHECK(i < 100);
		settle(&p);
	}
	signal(SIGPIPE, SIG_DFL);
	close(fds[1]);
	CHECK_EQ(check(&p), EFBIG);
	CHECK_EQ(d->loads, 0);
	CHECK_EQ(check(&p), EINVAL); /* it is over */
	fake_free(&p);
	free(d);
}

TEST(backend_state, r142_a_save_that_nobody_reads_ends_by_the_deadline)
{
	static uint8_t buf[ROOM + HEADER + 1];
	struct device *d = device_new(ROOM);
	struct fake p = up_for(d, 0, 250);
	struct pollfd fd = {.fd = libvhost_backend_fd(p.b), .events = POLLIN};
	struct lv_ledger before = lv_ledger_take();
	int fds[2];

	CHECK_EQ(pipe2(fds, O_CLOEXEC), 0);
	CHECK_EQ(begin(&p, SAVE, 0, &fds[1], 1), NO_FD);
	CHECK_EQ(fcntl(fds[1], F_SETFL, 0), 0); /* what we hold of it blocks: its own does not */
	settle(&p);
	CHECK_EQ(get_u64(&p, LIBVHOST_OP_GET_QUEUE_NUM), 4); /* others are served meanwhile */
	CHECK_EQ(poll(&fd, 1, PATIENCE_MS), 1);		     /* the host is woken for it */
	settle(&p);
	close(fds[1]);
	CHECK(read_all(&p, fds[0], buf, sizeof(buf)) < HEADER + ROOM); /* the end comes too early */
	close(fds[0]);
	CHECK_EQ(check(&p), ETIMEDOUT);
	CHECK_LEDGER(before);
	CHECK_EQ(save(&p, buf, sizeof(buf)), HEADER + ROOM); /* and the next one is whole */
	fake_free(&p);
	free(d);
}

TEST(backend_state, a_reader_that_leaves_kills_nobody)
{
	struct device *d = device_new(ROOM);
	struct fake p = up(d, 0);
	int fds[2];

	for (int early = 0; early < 2; early++) {
		CHECK_EQ(pipe2(fds, O_CLOEXEC), 0);
		if (early)
			close(fds[0]);
		CHECK_EQ(begin(&p, SAVE, 0, &fds[1], 1), NO_FD); /* SIGPIPE stands at its default */
		if (!early)
			close(fds[0]);
		close(fds[1]);
		settle(&p);
		CHECK_EQ(check(&p), EPIPE);
	}
	fake_free(&p);
	free(d);
}

TEST(backend_state, is_not_checked_before_it_is_through)
{
	static uint8_t buf[ROOM + HEADER];
	struct device *d = device_new(ROOM);
	struct fake p = up(d, 0);
	int fds[2];

	CHECK_EQ(pipe2(fds, O_CLOEXEC), 0);
	CHECK_EQ(begin(&p, SAVE, 0, &fds[1], 1), NO_FD);
	CHECK_EQ(check(&p), EBUSY);
	CHECK_EQ(begin(&p, LOAD, 0, &fds[0], 1), NO_FD);
	CHECK_EQ(check(&p), EBUSY); /* we did not close our end */
	CHECK_EQ(d->loads, 0);
	CHECK_EQ(begin(&p, LOAD, 0, &fds[0], 1), NO_FD);
	CHECK_EQ(begin(&p, SAVE, 0, &fds[1], 1), NO_FD); /* takes its place */
	CHECK_EQ(ask(&p, LIBVHOST_OP_RESET_DEVICE, NULL, 0, NULL, 0), 0);
	CHECK_EQ(check(&p), EINVAL);
	CHECK_EQ(ask_u64(&p, LIBVHOST_OP_SET_FEATURES, F30 | F_VERSION), 0);
	CHECK_EQ(begin(&p, LOAD, 0, &fds[0], 1), NO_FD);
	CHECK_EQ(ring_up(&p, 0), 0);
	close(fds[1]);
	CHECK_EQ(check(&p), EBUSY); /* a ring runs */
	CHECK_EQ(d->loads, 0);
	CHECK_EQ(get_base(&p, 0), 0);
	close(fds[0]);
	CHECK_EQ(pipe2(fds, O_CLOEXEC), 0);
	CHECK_EQ(begin(&p, LOAD, 0, &fds[0], 1), NO_FD);
	CHECK_EQ(write(fds[1], buf, 1000), 1000);
	close(fds[0]);
	close(fds[1]);
	fake_connect(&p); /* dies before it asks */
	CHECK_EQ(d->loads, 0);
	fake_free(&p);
	free(d);
}

TEST(backend_state, devices_that_refuse)
{
	static const int64_t says[] = {-ENODEV, -100000, 65537};
	static const uint64_t heard[] = {ENODEV, EIO, EIO};
	struct device *d = device_new(10);
	struct fake p = up(d, 65536);
	int fds[2];

	CHECK_EQ(pipe2(fds, O_CLOEXEC), 0);
	for (int i = 0; i < 3; i++) {
		d->save_says = says[i];
		CHECK_EQ(begin(&p, SAVE, 0, &fds[1], 1), NO_FD | heard[i]);
	}
	close(fds[0]);
	close(fds[1]);
	fake_free(&p);
	free(d);
}

TEST(backend_state, options_and_the_feature)
{
	static const struct libvhost_backend_ops half = {
		.size = sizeof(half), .serve = fake_serve, .save_state = save_state};
	static const struct libvhost_backend_ops none = {.size = sizeof(none), .serve = fake_serve};
	struct libvhost_backend_opts o = {.size = sizeof(o), .num_queues = 1, .ops = &half};
	struct libvhost_backend *b = NULL;
	struct fake p = fake_new(NULL);
	const uint32_t transfer[2] = {SAVE, 0};

	CHECK_EQ(libvhost_backend_new(p.ctx, &o, &b), -EINVAL);
	o.ops = &none;
	o.state_max = (1u << 30) + 1;
	CHECK_EQ(libvhost_backend_new(p.ctx, &o, &b), -EINVAL);
	o.state_max = 0;
	o.reserved = 1;
	CHECK_EQ(libvhost_backend_new(p.ctx, &o, &b), -EINVAL);
	handshake(&p); /* of a device without state */
	CHECK(!(get_u64(&p, LIBVHOST_OP_GET_PROTOCOL_FEATURES) & PF(DEVICE_STATE)));
	send_msg(&p, LIBVHOST_OP_SET_DEVICE_STATE_FD, 0, transfer, sizeof(transfer), &p.kick, 1);
	CHECK(!closed(&p));
	CHECK_EQ(check(&p), ENOTSUP);
	fake_free(&p);
}
