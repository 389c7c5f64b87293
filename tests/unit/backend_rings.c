/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* Ring messages in every order and with everything wrong; rings that are attacked while they run. */
#include "frontend.h"

#include "keeper.h"

static struct fake up(void)
{
	struct fake p = fake_new(NULL);

	handshake(&p);
	return p;
}

TEST(backend_rings, serves_and_calls)
{
	struct pollfd call = {.events = POLLIN};
	struct fake p = up();

	CHECK_EQ(ring_up(&p, 0), 0);
	CHECK_EQ(take_event(&p, LIBVHOST_EVENT_STARTED).queue, 0);
	for (uint16_t i = 1; i <= 100; i++) {
		ring_offer(&p);
		CHECK(ring_used(&p, i));
	}
	call.fd = p.call;
	CHECK_EQ(poll(&call, 1, PATIENCE_MS), 1);
	CHECK_EQ(get_base(&p, 0), 100);
	fake_free(&p);
}

TEST(backend_rings, without_bit_30_the_kick_starts)
{
	struct libvhost_region ram = {.size = RAM_BYTES, .user_addr = UADDR};
	struct fake p = fake_new(NULL);

	ram.fd = p.ram;
	CHECK_EQ(ask_u64(&p, LIBVHOST_OP_SET_PROTOCOL_FEATURES, PF(REPLY_ACK)), 0);
	CHECK_EQ(ask_u64(&p, LIBVHOST_OP_SET_FEATURES, F_VERSION), 0);
	CHECK_EQ(ask_table(&p, &ram, 1, 1), 0);
	CHECK_EQ(ring_up(&p, 0), -ENOTSUP); /* all done but ENABLE, which needs bit 30 */
	ring_offer(&p);
	CHECK(ring_used(&p, 1));
	fake_free(&p);
}

/* In the order that the permutation says. */
static int step(struct fake *p, int which)
{
	switch (which) {
	case 0:
		return ask_state(p, LIBVHOST_OP_SET_VRING_NUM, 0, 8);
	case 1:
		return ask_addr(p, 0, UADDR, UADDR + 0x1000, UADDR + 0x2000);
	case 2:
		return ask_state(p, LIBVHOST_OP_SET_VRING_BASE, 0, 0);
	case 3:
		return ask_fd(p, LIBVHOST_OP_SET_VRING_CALL, 0, p->call);
	case 4:
		return ask_fd(p, LIBVHOST_OP_SET_VRING_KICK, 0, p->kick);
	default:
		return ask_state(p, LIBVHOST_OP_SET_VRING_ENABLE, 0, 1);
	}
}

TEST(backend_rings, r104_r105_every_order_of_messages)
{
	struct fake p = up();
	unsigned ran = 0;

	for (int n = 0; n < 720; n++) {
		int left[6] = {0, 1, 2, 3, 4, 5}, code = n;
		bool refused = false;

		memset(p.mem, 0, 0x4000);
		ring_offer(&p);
		for (int i = 6; i > 0; i--) {
			int pick = code % i, which = left[pick];

			code /= i;
			left[pick] = left[i - 1];
			refused |= step(&p, which) != 0;
		}
		if (!refused) {
			CHECK(ring_used(&p, 1)); /* offered and kicked before the ring was enabled: not lost */
			ran++;
		}
		CHECK_EQ(ask(&p, LIBVHOST_OP_RESET_OWNER, NULL, 0, NULL, 0), 0);
		CHECK_EQ(ask_u64(&p, LIBVHOST_OP_SET_FEATURES, F30 | F_VERSION), 0);
	}
	CHECK_EQ(ran, 720 / 2 - 72); /* refused: ADDR before NUM, and BASE when all others have come before */
	fake_free(&p);
}

TEST(backend_rings, r080_running_ring_does_not_change)
{
	struct fake p = up();

	CHECK_EQ(ring_up(&p, 0), 0);
	CHECK_EQ(ask_state(&p, LIBVHOST_OP_SET_VRING_NUM, 0, 16), -EBUSY);
	CHECK_EQ(ask_addr(&p, 0, UADDR, UADDR + 0x1000, UADDR + 0x3000), -EBUSY);
	CHECK_EQ(ask_state(&p, LIBVHOST_OP_SET_VRING_BASE, 0, 7), -EBUSY);
	ring_offer(&p);
	CHECK(ring_used(&p, 1));
	fake_free(&p);
}

TEST(backend_rings, r083_r085_areas_must_lie_in_memory)
{
	struct fake p = up();

	for (int i = 0; i < 1000; i++)
		CHECK_EQ(ask_state(&p, LIBVHOST_OP_SET_VRING_NUM, 0, 256), 0);
	CHECK_EQ(ask_addr(&p, 0, UADDR + RAM_BYTES - 4095, UADDR, UADDR + 0x2000), -EFAULT);
	CHECK_EQ(ask_addr(&p, 0, UADDR, UADDR + RAM_BYTES - 4, UADDR + 0x2000), -EFAULT);
	CHECK_EQ(ask_addr(&p, 0, UADDR, UADDR + 0x1000, UADDR + RAM_BYTES - 4), -EFAULT);
	CHECK_EQ(ask_addr(&p, 0, UADDR, UADDR + 0x1000, UINT64_MAX), -EFAULT);
	CHECK_EQ(ask_addr(&p, 0, 0, 0x1000, 0x2000), -EFAULT); /* guest addresses are no user addresses */
	CHECK_EQ(ask_addr(&p, 1, UADDR, UADDR + 0x1000, UADDR + 0x2000), -EINVAL); /* no size yet */
	CHECK_EQ(ask_state(&p, LIBVHOST_OP_SET_VRING_NUM, 0, 3), -EINVAL);
	CHECK_EQ(ask_state(&p, LIBVHOST_OP_SET_VRING_NUM, 0, 0), -EINVAL);
	CHECK_EQ(ask_state(&p, LIBVHOST_OP_SET_VRING_NUM, 0, 65536), -EINVAL);
	CHECK_EQ(ask_state(&p, LIBVHOST_OP_SET_VRING_BASE, 0, 65536), -EINVAL);
	fake_free(&p);
}

TEST(backend_rings, r086_address_flags_need_the_log)
{
	static const struct {
		uint32_t flags;
		uint64_t log;
		int answer;
	} cases[] = {
		{1, UINT64_MAX, -EINVAL},
		{1, UINT64_MAX - (4 + 8 * 8 + 1), -EINVAL}, /* an event index more, and it ends at 2^64 */
		{1, UINT64_MAX - (4 + 8 * 8 + 2), 0},
		{1, 0x2000, 0},
		{2, 0x2000, -EINVAL},
		{3, 0x2000, -EINVAL},
		{0x80, 0x2000, -EINVAL},
		{0x81, 0x2000, -EINVAL},
	};
	struct fake p = up();
	uint64_t addr[5] = {0, UADDR, UADDR + 0x2000, UADDR + 0x1000, 0};

	CHECK_EQ(ask_state(&p, LIBVHOST_OP_SET_VRING_NUM, 0, 8), 0);
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		addr[0] = (uint64_t)cases[i].flags << 32;
		addr[4] = cases[i].log;
		CHECK_EQ(ask(&p, LIBVHOST_OP_SET_VRING_ADDR, addr, sizeof(addr), NULL, 0), cases[i].answer);
	}
	addr[0] = 1ull << 32;
	addr[4] = 0x2000;
	CHECK_EQ(ask_u64(&p, LIBVHOST_OP_SET_PROTOCOL_FEATURES, PF(REPLY_ACK)), 0); /* and no LOG_SHMFD */
	CHECK_EQ(ask(&p, LIBVHOST_OP_SET_VRING_ADDR, addr, sizeof(addr), NULL, 0), -EINVAL);
	fake_free(&p);
}

TEST(backend_rings, r091_stops_once_and_restarts_from_there)
{
	struct fake p = up();

	CHECK_EQ(ring_up(&p, 0), 0);
	ring_offer(&p);
	CHECK(ring_used(&p, 1));
	CHECK_EQ(get_base(&p, 0), 1);
	CHECK_EQ(get_base(&p, 0), 1);
	ring_offer(&p);
	usleep(5000);
	CHECK(ring_rests(&p, 1)); /* stopped means stopped */
	CHECK_EQ(ask_fd(&p, LIBVHOST_OP_SET_VRING_KICK, 0, p.kick), 0);
	CHECK(ring_used(&p, 2));
	fake_free(&p);
}

/* The n-th request is served, and the worker wants kicks again: it sleeps until one comes. */
static void offer_and_rest(struct fake *p, uint16_t n)
{
	const _Atomic uint16_t *flags = (void *)(p->mem + 0x2000);

	ring_offer(p);
	CHECK(ring_used(p, n));
	for (int i = 0; i < PATIENCE_MS && atomic_load(flags); i++)
		usleep(1000);
	CHECK_EQ(atomic_load(flags), 0);
	usleep(20000); /* it looked once more after it said so */
}

TEST(backend_rings, r092_r093_r100_kick_descriptors)
{
	uint64_t none = 0x100, bare = 0;
	struct fake p = up();
	int file = open("/proc/self/exe", O_RDONLY | O_CLOEXEC), other = eventfd(0, EFD_CLOEXEC);
	int directory = open("/tmp", O_RDONLY | O_DIRECTORY | O_CLOEXEC), old = p.kick;

	CHECK_EQ(ask(&p, LIBVHOST_OP_SET_VRING_KICK, &bare, 8, NULL, 0), -EINVAL);
	CHECK_EQ(ask_fd(&p, LIBVHOST_OP_SET_VRING_KICK, 0, file), -EINVAL);
	CHECK_EQ(ask_fd(&p, LIBVHOST_OP_SET_VRING_KICK, 0, directory), -EINVAL);
	CHECK_EQ(ring_up(&p, 0), 0);
	CHECK_EQ(ask_fd(&p, LIBVHOST_OP_SET_VRING_KICK, 0, file), -EINVAL); /* and the old one still works */
	ring_offer(&p);
	CHECK(ring_used(&p, 1));
	CHECK_EQ(ask_fd(&p, LIBVHOST_OP_SET_VRING_KICK, 0, other), 0);
	p.kick = other;
	offer_and_rest(&p, 2);
	p.kick = old;
	ring_offer(&p);
	usleep(20000);
	CHECK_EQ(*(uint16_t *)(void *)(p.mem + 0x2002), 2); /* replaced: nobody listens to the old one */
	CHECK_EQ(eventfd_write(other, 1), 0);
	CHECK(ring_used(&p, 3));
	p.kick = other;							     /* which means nothing from now on */
	CHECK_EQ(ask(&p, LIBVHOST_OP_SET_VRING_KICK, &none, 8, &old, 1), 0); /* "none" with one attached: polling */
	ring_offer(&p);
	CHECK(ring_used(&p, 4));
	CHECK_EQ(ask_fd(&p, LIBVHOST_OP_SET_VRING_KICK, 0, -1), 0);
	ring_offer(&p);
	CHECK(ring_used(&p, 5));
	p.kick = old;
	close(file);
	close(directory);
	close(other);
	fake_free(&p);
}

TEST(backend_rings, call_descriptors_are_swapped_while_it_runs)
{
	struct fake p = up();
	int masked = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);

	CHECK_EQ(ring_up(&p, 0), 0);
	for (uint16_t i = 1; i <= 50; i++) {
		CHECK_EQ(ask_fd(&p, LIBVHOST_OP_SET_VRING_CALL, 0, i % 2 ? masked : p.call), 0);
		signalled(masked); /* the one extra call that a swap may cost */
		signalled(p.call);
		ring_offer(&p);
		CHECK(ring_used(&p, i));
		CHECK_EQ(poll(&(struct pollfd){.fd = i % 2 ? masked : p.call, .events = POLLIN}, 1, PATIENCE_MS), 1);
	}
	close(masked);
	fake_free(&p);
}

/* A worker reads the one and writes the other: neither may be a file behind which a program decides how long that
 * takes.
 */
TEST(backend_rings, r098_descriptors_of_files_and_devices_are_refused)
{
	struct fake p = up();
	int device = open("/dev/zero", O_RDWR | O_CLOEXEC), terminal = open("/dev/ptmx", O_RDWR | O_NOCTTY | O_CLOEXEC);
	int full = open("/dev/full", O_WRONLY | O_CLOEXEC);

	CHECK_EQ(ring_up(&p, 0), 0);
	CHECK_EQ(ask_fd(&p, LIBVHOST_OP_SET_VRING_CALL, 0, device), -EINVAL);
	CHECK_EQ(ask_fd(&p, LIBVHOST_OP_SET_VRING_CALL, 0, full), -EINVAL);
	CHECK_EQ(ask_fd(&p, LIBVHOST_OP_SET_VRING_CALL, 0, p.ram), -EINVAL);
	CHECK_EQ(ask_fd(&p, LIBVHOST_OP_SET_VRING_ERR, 0, device), -EINVAL);
	if (terminal >= 0) /* one that can be waited for */
		CHECK_EQ(ask_fd(&p, LIBVHOST_OP_SET_VRING_KICK, 0, terminal), -EINVAL);
	ring_offer(&p); /* what was there before still works */
	CHECK(ring_used(&p, 1));
	CHECK_EQ(poll(&(struct pollfd){.fd = p.call, .events = POLLIN}, 1, PATIENCE_MS), 1);
	close(device);
	close(full);
	if (terminal >= 0)
		close(terminal);
	fake_free(&p);
}

TEST(backend_rings, r098_r101_call_descriptor_of_any_kind)
{
	struct fake p = up();
	int pipefd[2];
	uint16_t used = 0;

	CHECK_EQ(pipe2(pipefd, O_CLOEXEC), 0);
	CHECK_EQ(ring_up(&p, 0), 0);
	CHECK_EQ(ask_fd(&p, LIBVHOST_OP_SET_VRING_CALL, 0, pipefd[1]), 0);
	close(pipefd[0]); /* SIGPIPE for who writes now */
	ring_offer(&p);
	CHECK(ring_used(&p, ++used));
	CHECK_EQ(ask_fd(&p, LIBVHOST_OP_SET_VRING_CALL, 0, pipefd[1]), 0); /* signals the new one of a ring that runs */
	CHECK_EQ(ask_fd(&p, LIBVHOST_OP_SET_VRING_ERR, 0, pipefd[1]), 0);
	CHECK_EQ(ask_fd(&p, LIBVHOST_OP_SET_VRING_CALL, 0, p.kick), 0); /* call = kick: bounded */
	ring_offer(&p);
	CHECK(ring_used(&p, ++used));
	CHECK_EQ(get_base(&p, 0), used);
	close(pipefd[1]);
	fake_free(&p);
}

TEST(backend_rings, r102_r103_disabled_ring_has_no_side_effects)
{
	struct fake p = up();

	CHECK_EQ(ring_up(&p, 0), 0);
	CHECK_EQ(ask_state(&p, LIBVHOST_OP_SET_VRING_ENABLE, 0, 2), -EINVAL);
	CHECK_EQ(ask_state(&p, LIBVHOST_OP_SET_VRING_ENABLE, 0, 0xffffffff), -EINVAL);
	CHECK_EQ(ask_state(&p, LIBVHOST_OP_SET_VRING_ENABLE, 0, 0), 0);
	ring_offer(&p);
	usleep(5000);
	CHECK(*(uint16_t *)(void *)(p.mem + 0x2002) == 0);
	CHECK_EQ(ask_state(&p, LIBVHOST_OP_SET_VRING_ENABLE, 0, 1), 0);
	CHECK(ring_used(&p, 1));
	CHECK_EQ(get_base(&p, 0), 1);
	fake_free(&p);
}

TEST(backend_rings, r103_a_ring_disabled_with_a_request_in_flight)
{
	struct keeper k = {0};
	const struct libvhost_backend_opts o = {.ops = &keeper_ops, .arg = &k};
	struct fake p = fake_new(&o);

	handshake(&p);
	CHECK_EQ(ring_up(&p, 0), 0);
	ring_offer(&p);
	keeper_await(&k, 1);
	CHECK_EQ(ask_state(&p, LIBVHOST_OP_SET_VRING_ENABLE, 0, 0), 0);
	k.release = true;
	ring_offer(&p);
	usleep(5000);
	CHECK(ring_used(&p, 0)); /* nobody touches it */
	CHECK_EQ(ask_state(&p, LIBVHOST_OP_SET_VRING_ENABLE, 0, 1), 0);
	CHECK(ring_used(&p, 2)); /* neither is lost */
	CHECK_EQ(get_base(&p, 0), 2);
	fake_free(&p);
}

TEST(backend_rings, broken_ring_is_reported_and_revived)
{
	struct libvhost_event e;
	struct fake p = up();
	uint16_t *avail = (void *)(p.mem + 0x1000);

	CHECK_EQ(ring_up(&p, 0), 0);
	CHECK_EQ(ring_up(&p, 1) == 0, true);
	avail[2] = 0xffff; /* head that does not exist */
	__atomic_store_n(&avail[1], 1, __ATOMIC_RELEASE);
	eventfd_write(p.kick, 1);
	e = take_event(&p, LIBVHOST_EVENT_QUEUE_ERROR);
	CHECK(signalled(p.err));
	CHECK_EQ(e.queue, 0);
	CHECK_EQ(e.err, -EBADMSG);
	memset(p.mem, 0, 0x4000);
	CHECK_EQ(ask_state(&p, LIBVHOST_OP_SET_VRING_NUM, 0, 8), 0); /* a new beginning */
	CHECK_EQ(ask_state(&p, LIBVHOST_OP_SET_VRING_BASE, 0, 0), 0);
	CHECK_EQ(ask_fd(&p, LIBVHOST_OP_SET_VRING_KICK, 0, p.kick), 0);
	ring_offer(&p);
	CHECK(ring_used(&p, 1));
	fake_free(&p);
}

static atomic_int hold, stuck;

static int stubborn(void *arg, uint32_t queue, struct libvhost_vq *vq)
{
	while (queue == 0 && atomic_load(&hold))
		atomic_store(&stuck, 1);
	return fake_serve(arg, queue, vq);
}

TEST(backend_rings, stuck_handler_does_not_take_the_control_thread_with_it)
{
	static const struct libvhost_backend_ops ops = {.size = sizeof(ops), .serve = stubborn};
	const struct libvhost_backend_opts o = {.timeout_ms = 500, .ops = &ops, .num_workers = 2};
	struct libvhost_error err = {.size = sizeof(err)};
	uint32_t state[2] = {0, 0};
	struct fake p = fake_new(&o);

	handshake(&p);
	atomic_store(&hold, 1);
	CHECK_EQ(ring_up(&p, 0), 0);
	while (!atomic_load(&stuck))
		usleep(100);
	send_msg(&p, LIBVHOST_OP_GET_VRING_BASE, 0, state, sizeof(state), NULL, 0);
	CHECK(closed(&p)); /* no base can be told */
	CHECK_EQ(libvhost_backend_error(p.b, &err), 0);
	CHECK_EQ(libvhost_backend_adopt(p.b, p.sock), -EBUSY); /* the old session is not over */
	atomic_store(&hold, 0);
	for (int i = 0; i < PATIENCE_MS / 100 && libvhost_backend_adopt(p.b, p.sock) == -EBUSY; i++)
		CHECK_EQ(libvhost_backend_dispatch(p.b, 100), 0);
	fake_connect(&p);
	handshake(&p);
	fake_free(&p);
}

TEST(backend_rings, r106_front_end_dies_with_all_rings_running)
{
	struct fake p = fake_new(NULL);
	const unsigned maps = lv_ledger_take().maps;

	for (int i = 0; i < 100; i++) {
		memset(p.mem, 0, 0x10000);
		handshake(&p);
		for (uint32_t q = 0; q < 4; q++)
			CHECK_EQ(ring_up(&p, q), 0);
		ring_offer(&p);
		fake_connect(&p);
	}
	CHECK(lv_ledger_take().maps <= maps + 20); /* an allocator may have grown; one each would be a hundred */
	fake_free(&p);
}
