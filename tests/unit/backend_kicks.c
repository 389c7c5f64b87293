/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* Descriptors that a front-end chooses so that they hurt; ring messages without end. */
#include <sys/uio.h>

#include "frontend.h"

static struct fake up(void)
{
	struct fake p = fake_new(NULL); /* one worker for all rings */

	handshake(&p);
	return p;
}

/* The first ring is served while others are made to suffer. */
static void serves_on(struct fake *p, uint16_t from)
{
	for (uint16_t i = 1; i <= 50; i++) {
		ring_offer(p);
		CHECK(ring_used(p, (uint16_t)(from + i)));
	}
}

TEST(backend_kicks, r081_a_ring_size_a_hundred_thousand_times)
{
	const uint32_t state[2] = {0, 256};
	struct fake p = up();
	struct lv_ledger before = lv_ledger_take();

	for (int i = 0; i < 100000; i++) {
		send_msg(&p, LIBVHOST_OP_SET_VRING_NUM, 0, state, sizeof(state), NULL, 0);
		if (i % 64 == 63)
			settle(&p);
	}
	CHECK_EQ(ask_state(&p, LIBVHOST_OP_SET_VRING_NUM, 0, 8), 0);
	CHECK_LEDGER(before);
	CHECK(lv_ledger_take().heap <= before.heap + 65536); /* an allocator may keep some */
	fake_free(&p);
}

static uint64_t wakeups(struct fake *p)
{
	struct libvhost_worker_status s = {.size = sizeof(s)};

	CHECK_EQ(libvhost_backend_worker_status(p->b, 0, &s), 0);
	return s.wakeups;
}

/* The worker sleeps again. */
static void comes_to_rest(struct fake *p)
{
	uint64_t before = 0, now = wakeups(p);

	for (int i = 0; i < PATIENCE_MS / 50 && before != now; i++) {
		before = now;
		usleep(50000);
		now = wakeups(p);
	}
	CHECK_EQ(now, before);
}

TEST(backend_kicks, r095_a_semaphore_that_stays_readable)
{
	struct fake p = up();
	int kick = eventfd(1000000000, EFD_SEMAPHORE | EFD_CLOEXEC | EFD_NONBLOCK);

	CHECK_EQ(ring_up(&p, 0), 0);
	CHECK_EQ(ring_up(&p, 1), 0);
	CHECK_EQ(ask_fd(&p, LIBVHOST_OP_SET_VRING_KICK, 1, kick), 0);
	serves_on(&p, 0);
	comes_to_rest(&p);
	CHECK_EQ(get_base(&p, 1), 0);
	close(kick);
	fake_free(&p);
}

/*
 * The peer shares the descriptor: it takes away what woke the worker, so that a read would wait for ever. Two rings
 * with the same one are woken together, and the first empties it.
 */
TEST(backend_kicks, r096_a_kick_that_blocks_and_is_emptied_by_the_peer)
{
	struct fake p = up();
	int kick = eventfd(0, EFD_CLOEXEC); /* blocks */
	uint64_t count;
	struct iovec iov = {.iov_base = &count, .iov_len = sizeof(count)};

	for (uint32_t q = 0; q < 3; q++)
		CHECK_EQ(ring_up(&p, q), 0);
	CHECK_EQ(ask_fd(&p, LIBVHOST_OP_SET_VRING_KICK, 1, kick), 0);
	CHECK_EQ(ask_fd(&p, LIBVHOST_OP_SET_VRING_KICK, 2, kick), 0);
	CHECK_EQ(fcntl(kick, F_SETFL, 0), 0);
	for (uint16_t i = 0; i < 20; i++) {
		for (int k = 0; k < 100; k++) {
			CHECK_EQ(eventfd_write(kick, 1), 0);
			CHECK(preadv2(kick, &iov, 1, -1, RWF_NOWAIT) == 8 || errno == EAGAIN);
		}
		CHECK_EQ(eventfd_write(kick, 1), 0);
		serves_on(&p, (uint16_t)(50 * i)); /* the same worker */
	}
	CHECK_EQ(get_base(&p, 1), 0);
	CHECK_EQ(get_base(&p, 2), 0);
	close(kick);
	fake_free(&p);
}

TEST(backend_kicks, r097_a_call_that_is_full_and_blocks)
{
	struct fake p = up();

	CHECK_EQ(fcntl(p.call, F_SETFL, 0), 0);
	CHECK_EQ(eventfd_write(p.call, UINT64_MAX - 1), 0);
	CHECK_EQ(ring_up(&p, 0), 0); /* where it is signalled by this thread */
	serves_on(&p, 0);
	CHECK_EQ(get_base(&p, 0), 50);
	fake_free(&p);
}

TEST(backend_kicks, r098_a_call_that_is_a_full_socket)
{
	static const uint8_t page[4096];
	struct fake p = up();
	int fds[2];

	CHECK_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds), 0);
	while (write(fds[1], page, sizeof(page)) > 0)
		;
	CHECK_EQ(fcntl(fds[1], F_SETFL, 0), 0);
	CHECK_EQ(ring_up(&p, 0), 0);
	CHECK_EQ(ask_fd(&p, LIBVHOST_OP_SET_VRING_CALL, 0, fds[1]), 0);
	serves_on(&p, 0);
	close(fds[0]); /* SIGPIPE for who writes now */
	serves_on(&p, 50);
	CHECK_EQ(get_base(&p, 0), 100);
	close(fds[1]);
	fake_free(&p);
}

TEST(backend_kicks, r098_a_call_that_is_a_full_pipe)
{
	static const uint8_t page[4096];
	struct fake p = up();
	int fds[2];

	CHECK_EQ(pipe2(fds, O_CLOEXEC | O_NONBLOCK), 0);
	while (write(fds[1], page, sizeof(page)) > 0)
		;
	CHECK_EQ(fcntl(fds[1], F_SETFL, 0), 0); /* whoever writes to it now waits */
	CHECK_EQ(ring_up(&p, 0), 0);
	CHECK_EQ(ask_fd(&p, LIBVHOST_OP_SET_VRING_CALL, 0, fds[1]), 0);
	serves_on(&p, 0);
	CHECK_EQ(get_base(&p, 0), 50);
	close(fds[0]);
	close(fds[1]);
	fake_free(&p);
}

TEST(backend_kicks, r101_each_ones_kick_is_the_others_call)
{
	struct fake p = up();

	CHECK_EQ(ring_up(&p, 0), 0);
	CHECK_EQ(ring_up(&p, 1), 0);
	CHECK_EQ(ask_fd(&p, LIBVHOST_OP_SET_VRING_KICK, 1, p.call), 0);
	CHECK_EQ(ask_fd(&p, LIBVHOST_OP_SET_VRING_CALL, 1, p.kick), 0);
	serves_on(&p, 0);
	comes_to_rest(&p);
	CHECK_EQ(get_base(&p, 0), 50);
	CHECK_EQ(get_base(&p, 1), 0);
	fake_free(&p);
}

TEST(backend_kicks, r101_its_kick_is_its_call)
{
	struct fake p = up();

	CHECK_EQ(ring_up(&p, 0), 0);
	CHECK_EQ(ask_fd(&p, LIBVHOST_OP_SET_VRING_CALL, 0, p.kick), 0);
	serves_on(&p, 0);
	comes_to_rest(&p);
	CHECK_EQ(get_base(&p, 0), 50);
	fake_free(&p);
}

TEST(backend_kicks, r143_status_of_any_value)
{
	struct fake p = up();

	CHECK_EQ(ask_u64(&p, LIBVHOST_OP_SET_STATUS, 0xff), 0);
	CHECK_EQ(get_u64(&p, LIBVHOST_OP_GET_STATUS), 0xff);
	CHECK_EQ(ask_u64(&p, LIBVHOST_OP_SET_STATUS, 0x100), -EINVAL);
	CHECK_EQ(ask_u64(&p, LIBVHOST_OP_SET_STATUS, UINT64_MAX), -EINVAL);
	CHECK_EQ(get_u64(&p, LIBVHOST_OP_GET_STATUS), 0xff);
	fake_free(&p);
}
