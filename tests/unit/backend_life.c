/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* queue_started, queue_stopped and reset: each start has one stop, whatever ends the queue. */
#include "frontend.h"

#define QUEUES 4u

/* The device's view. Only what is atomic is looked at from a worker. */
struct book {
	struct libvhost_backend *b;
	_Atomic(struct libvhost_vq *) vq[QUEUES];
	uint32_t starts, stops, resets[3];
	atomic_bool hold, held;
	_Atomic uint32_t stray; /* serve for a queue that has not started */
};

static int serve(void *arg, uint32_t queue, struct libvhost_vq *vq)
{
	struct book *k = arg;

	k->stray += k->vq[queue] != vq;
	while (k->hold && queue == 0)
		k->held = true;
	return fake_serve(arg, queue, vq);
}

static void started(void *arg, uint32_t queue, struct libvhost_vq *vq)
{
	struct libvhost_vq_info info = {.size = sizeof(info)};
	struct libvhost_event event;
	struct book *k = arg;

	CHECK(queue < QUEUES && !k->vq[queue] && vq);
	CHECK_EQ(libvhost_vq_info(vq, &info), 0);
	CHECK(!libvhost_vq_worker(vq));
	if (k->b)
		CHECK_EQ(libvhost_backend_next_event(k->b, &event), -EBUSY);
	k->vq[queue] = vq;
	k->starts++;
}

static void stopped(void *arg, uint32_t queue)
{
	struct libvhost_vq_info info = {.size = sizeof(info)};
	struct book *k = arg;

	CHECK(queue < QUEUES && k->vq[queue]);
	CHECK(!libvhost_vq_worker(k->vq[queue]));
	CHECK_EQ(libvhost_vq_info(k->vq[queue], &info), 0); /* still there */
	k->vq[queue] = NULL;
	k->stops++;
}

static void reset(void *arg, uint32_t cause)
{
	struct book *k = arg;

	CHECK(cause <= LIBVHOST_RESET_LEFT);
	CHECK_EQ(k->starts, k->stops);
	k->resets[cause]++;
}

static const struct libvhost_backend_ops ops = {
	.size = sizeof(ops), .serve = serve, .queue_started = started, .queue_stopped = stopped, .reset = reset};

static struct fake up_for(struct book *k, uint32_t timeout_ms)
{
	const struct libvhost_backend_opts o = {.ops = &ops, .arg = k, .num_workers = 2, .timeout_ms = timeout_ms};
	struct fake p = fake_new(&o);

	k->b = p.b;
	handshake(&p);
	CHECK_EQ(ask_u64(&p, LIBVHOST_OP_SET_PROTOCOL_FEATURES, PF(REPLY_ACK) | PF(STATUS) | PF(CONFIGURE_MEM_SLOTS)),
		 0);
	return p;
}

static struct fake up(struct book *k)
{
	return up_for(k, 0);
}

static void start_all(struct fake *p)
{
	memset(p->mem, 0, 0x10000);
	for (uint32_t q = 0; q < QUEUES; q++)
		CHECK_EQ(ring_up(p, q), 0);
}

static void check(const struct book *k, uint32_t starts, uint32_t stops)
{
	CHECK_EQ(k->starts, starts);
	CHECK_EQ(k->stops, stops);
	CHECK_EQ(k->stray, 0);
}

static uint32_t resets(const struct book *k)
{
	return k->resets[0] + k->resets[1] + k->resets[2];
}

TEST(backend_life, stops_and_resets)
{
	struct book k = {0};
	struct fake p = up(&k);

	check(&k, 0, 0);
	start_all(&p);
	check(&k, 4, 0);
	CHECK_EQ(get_base(&p, 1), 0);
	CHECK_EQ(get_base(&p, 1), 0); /* once is enough */
	check(&k, 4, 1);
	CHECK_EQ(ask_fd(&p, LIBVHOST_OP_SET_VRING_KICK, 1, p.kick), 0);
	check(&k, 5, 1);
	CHECK_EQ(resets(&k), 0);
	CHECK_EQ(ask_u64(&p, LIBVHOST_OP_SET_STATUS, 0), 0);
	check(&k, 5, 5);
	CHECK_EQ(k.resets[LIBVHOST_RESET_STATUS], 1);
	start_all(&p);
	CHECK_EQ(ask(&p, LIBVHOST_OP_RESET_OWNER, NULL, 0, NULL, 0), 0);
	check(&k, 9, 9);
	CHECK_EQ(k.resets[LIBVHOST_RESET_DEVICE], 1);
	CHECK_EQ(ask_u64(&p, LIBVHOST_OP_SET_FEATURES, F30 | F_VERSION), 0);
	start_all(&p);
	fake_connect(&p);
	check(&k, 13, 13);
	CHECK_EQ(k.resets[LIBVHOST_RESET_LEFT], 1);
	CHECK_EQ(resets(&k), 3);
	fake_free(&p);
	CHECK_EQ(resets(&k), 4); /* of a front-end that said nothing */
}

TEST(backend_life, a_pause_is_no_stop)
{
	const struct libvhost_region more = {
		.gpa = RAM_BYTES, .size = 0x1000, .user_addr = UADDR + RAM_BYTES, .flags = LIBVHOST_REGION_HAS_FD};
	const uint64_t region[5] = {0, more.gpa, more.size, more.user_addr, 0};
	struct book k = {0};
	struct fake p = up(&k);

	start_all(&p);
	CHECK_EQ(ask_fd(&p, LIBVHOST_OP_SET_VRING_CALL, 0, p.call), 0);
	CHECK_EQ(ask_fd(&p, LIBVHOST_OP_SET_VRING_KICK, 0, p.kick), 0);
	CHECK_EQ(ask_state(&p, LIBVHOST_OP_SET_VRING_ENABLE, 0, 0), 0);
	CHECK_EQ(ask_state(&p, LIBVHOST_OP_SET_VRING_ENABLE, 0, 1), 0);
	CHECK_EQ(ask(&p, LIBVHOST_OP_ADD_MEM_REG, region, sizeof(region), &p.ram, 1), 0);
	CHECK_EQ(libvhost_backend_move_queue(p.b, 0, 1, PATIENCE_MS), 0);
	ring_offer(&p);
	CHECK(ring_used(&p, 1));
	check(&k, 4, 0);
	fake_free(&p);
	check(&k, 4, 4);
}

/* A worker that does not take the queue; the device had it for that long. */
TEST(backend_life, a_start_that_fails)
{
	struct book k = {.hold = true};
	struct fake p = up_for(&k, 500);

	memset(p.mem, 0, 0x10000);
	CHECK_EQ(ring_up(&p, 0), 0);
	while (!k.held)
		usleep(100);
	check(&k, 1, 0);
	CHECK_EQ(ring_up(&p, 2), -ETIMEDOUT); /* the same worker as queue 0 */
	check(&k, 2, 1);
	CHECK(!k.vq[2]);
	k.hold = false;
	CHECK_EQ(ask_state(&p, LIBVHOST_OP_SET_VRING_ENABLE, 2, 1), 0);
	check(&k, 3, 1);
	fake_free(&p);
	check(&k, 3, 3);
}

/* The reset waits for the last queue, and is one all the same. */
TEST(backend_life, a_disconnect_with_a_handler_that_does_not_return)
{
	struct book k = {0};
	struct fake p = up_for(&k, 500);

	start_all(&p);
	k.hold = true;
	eventfd_write(p.kick, 1);
	while (!k.held)
		eventfd_write(p.kick, 1);
	close(p.sock);
	p.sock = -1;
	settle(&p);
	check(&k, 4, 2); /* queue 2 is on the same worker as queue 0 */
	CHECK_EQ(resets(&k), 0);
	k.hold = false;
	for (int i = 0; i < PATIENCE_MS / 100 && !resets(&k); i++)
		CHECK_EQ(libvhost_backend_dispatch(p.b, 100), 0);
	check(&k, 4, 4);
	CHECK_EQ(k.resets[LIBVHOST_RESET_LEFT], 1);
	fake_free(&p);
	CHECK_EQ(resets(&k), 1);
}

TEST(backend_life, a_broken_queue_stops_when_it_begins_anew)
{
	struct book k = {0};
	struct fake p = up(&k);
	uint16_t *avail = (void *)(p.mem + 0x1000);

	memset(p.mem, 0, 0x10000);
	CHECK_EQ(ring_up(&p, 0), 0);
	avail[2] = 0xffff; /* head that does not exist */
	__atomic_store_n(&avail[1], 1, __ATOMIC_RELEASE);
	eventfd_write(p.kick, 1);
	for (int i = 0; i < PATIENCE_MS && poll(&(struct pollfd){.fd = p.err, .events = POLLIN}, 1, 0) == 0; i++)
		CHECK_EQ(libvhost_backend_dispatch(p.b, 1), 0);
	take_event(&p, LIBVHOST_EVENT_QUEUE_ERROR);
	check(&k, 1, 0);
	memset(p.mem, 0, 0x4000);
	CHECK_EQ(ask_state(&p, LIBVHOST_OP_SET_VRING_NUM, 0, 8), 0);
	check(&k, 1, 1);
	fake_free(&p);
	check(&k, 1, 1);
}

TEST(backend_life, the_ends_of_a_back_end)
{
	for (int frees = 0; frees < 2; frees++) {
		struct book k = {0};
		struct fake p = up(&k);

		start_all(&p);
		p.stopped = true;
		if (!frees)
			CHECK_EQ(libvhost_backend_stop(p.b, PATIENCE_MS), 0);
		check(&k, 4, frees ? 0 : 4);
		k.b = NULL;
		fake_free(&p);
		check(&k, 4, 4);
		CHECK_EQ(k.resets[LIBVHOST_RESET_LEFT], 1);
		CHECK_EQ(resets(&k), 1);
	}
}

TEST(backend_life, a_listener_that_is_handed_over)
{
	struct book k = {0};
	struct fake p = up(&k);
	char path[64];
	int fd;

	snprintf(path, sizeof(path), "/tmp/libvhost-life-%d.sock", getpid());
	CHECK_EQ(libvhost_backend_listen(p.b, path), 0);
	start_all(&p);
	CHECK_EQ(libvhost_backend_release_listener(p.b, &fd), 0);
	check(&k, 4, 0);
	fake_connect(&p);
	check(&k, 4, 4);
	close(fd);
	unlink(path);
	p.stopped = true; /* its ledger counts the descriptor that left */
	fake_free(&p);
}

TEST(backend_life, without_workers)
{
	struct book k = {0};
	struct libvhost_backend_ops some = ops;
	const struct libvhost_backend_opts o = {.flags = LIBVHOST_BACKEND_PULL, .ops = &some, .arg = &k};
	struct libvhost_vq *vq;
	struct fake p;
	int kick;

	some.serve = NULL;
	p = fake_new(&o);
	k.b = p.b;
	handshake(&p);
	CHECK_EQ(ring_up(&p, 3), 0);
	CHECK_EQ(libvhost_backend_queue(p.b, 3, &vq, &kick), 0);
	CHECK(k.vq[3] == vq);
	fake_connect(&p);
	check(&k, 1, 1);
	fake_free(&p);
}
