/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* The device side's dirty log on the wire: what is refused, and what a ring that runs marks. */
#include "frontend.h"

#define LOG_BYTES  4096u
#define F_LOG	   (1ull << 26)
#define DATA_PAGE  0x20u
#define USED_PAGE  2u
#define LOG_PAGES  (LOG_BYTES * 8ull)
#define USED_BYTES (4u + 8 * 8)

struct logged {
	struct fake p;
	int fd;
	uint8_t *bits;
};

static int ask_log(struct fake *p, uint64_t size, uint64_t offset, const int *fds, uint32_t nfds)
{
	uint64_t msg[2] = {size, offset}, answer[2] = {0};
	struct wire_hdr hdr;
	int n;

	send_msg(p, LIBVHOST_OP_SET_LOG_BASE, NEED_REPLY, msg, sizeof(msg), fds, nfds);
	n = recv_msg(p, &hdr, answer, sizeof(answer));
	if (n < 0)
		return n == -2 ? 1 : 2;
	CHECK_EQ(hdr.request, LIBVHOST_OP_SET_LOG_BASE);
	if (n == 16) /* the request's own payload comes back */
		return answer[0] == size && answer[1] == offset ? 0 : 3;
	CHECK_EQ(n, 8);
	return -(int)answer[0];
}

static int addr_log(struct fake *p, uint32_t flags, uint64_t log)
{
	struct {
		uint32_t index, flags;
		uint64_t desc, used, avail, log;
	} a = {.flags = flags, .desc = UADDR, .used = UADDR + 0x2000, .avail = UADDR + 0x1000, .log = log};

	return ask(p, LIBVHOST_OP_SET_VRING_ADDR, &a, sizeof(a), NULL, 0);
}

static struct logged up(const struct libvhost_backend_opts *o)
{
	struct logged l = {.p = fake_new(o)};

	handshake(&l.p); /* acknowledges LOG_ALL, too */
	CHECK(get_u64(&l.p, LIBVHOST_OP_GET_FEATURES) & F_LOG);
	CHECK_EQ(ask_u64(&l.p, LIBVHOST_OP_SET_FEATURES, F30 | F_VERSION), 0);
	l.fd = memfd(2 * LOG_BYTES, 0);
	l.bits = mmap(NULL, LOG_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, l.fd, 0);
	CHECK(l.bits != MAP_FAILED);
	return l;
}

static void down(struct logged *l)
{
	munmap(l->bits, LOG_BYTES);
	close(l->fd);
	fake_free(&l->p);
}

/* Takes the marks; how many, and whether page is among them. */
static unsigned marks(struct logged *l, uint32_t page, bool *has)
{
	unsigned n = 0;

	*has = l->bits[page / 8] >> page % 8 & 1;
	for (uint32_t i = 0; i < LOG_BYTES; i++)
		n += (unsigned)__builtin_popcount(atomic_exchange((_Atomic uint8_t *)(void *)&l->bits[i], 0));
	return n;
}

TEST(backend_log, r115_wrong_descriptors_and_no_feature)
{
	struct logged l = up(NULL);
	int two[2] = {l.fd, l.fd};

	CHECK_EQ(ask_log(&l.p, LOG_BYTES, 0, NULL, 0), -EINVAL);
	CHECK_EQ(ask_log(&l.p, LOG_BYTES, 0, two, 2), -EINVAL);
	CHECK_EQ(ask_log(&l.p, 0, 0, &l.fd, 1), -EINVAL);
	CHECK_EQ(ask_log(&l.p, LOG_BYTES, 0, &l.p.kick, 1), -EINVAL);
	CHECK_EQ(ask_log(&l.p, LOG_BYTES, LOG_BYTES, &l.fd, 1), 0);
	CHECK_EQ(ask_u64(&l.p, LIBVHOST_OP_SET_PROTOCOL_FEATURES, PF(REPLY_ACK)), 0);
	CHECK_EQ(ask_u64(&l.p, LIBVHOST_OP_SET_LOG_BASE, 0x7f0000001000), -EINVAL);
	CHECK_EQ(addr_log(&l.p, 1, 0x2000), -EINVAL); /* nor the flag */
	down(&l);
}

TEST(backend_log, r113_a_log_shorter_than_it_says)
{
	struct logged l = up(NULL);

	CHECK_EQ(ask_log(&l.p, 2 * LOG_BYTES + 1, 0, &l.fd, 1), -EOVERFLOW);
	CHECK_EQ(ask_log(&l.p, LOG_BYTES, LOG_BYTES + 1, &l.fd, 1), -EOVERFLOW);
	CHECK_EQ(ask_log(&l.p, UINT64_MAX, 1, &l.fd, 1), -EINVAL);
	CHECK_EQ(ask_log(&l.p, LOG_BYTES, 0, &l.fd, 1), 0);
	CHECK_EQ(ftruncate(l.fd, 0), -1); /* the back-end lives: its log cannot shrink any more */
	down(&l);
}

/* The last byte of the used ring must have its bit in the log, whichever of both comes last. */
TEST(backend_log, r117_a_used_ring_outside_the_log)
{
	const uint64_t end = LOG_PAGES * 4096;
	struct logged l = up(NULL);

	CHECK_EQ(ask_state(&l.p, LIBVHOST_OP_SET_VRING_NUM, 0, 8), 0);
	CHECK_EQ(addr_log(&l.p, 1, UINT64_MAX - 8), -EINVAL);
	CHECK_EQ(addr_log(&l.p, 2, 0x2000), -EINVAL);
	CHECK_EQ(addr_log(&l.p, 1, end - USED_BYTES + 1), 0); /* no log yet: the front-end may be about to send it */
	CHECK_EQ(ask_log(&l.p, LOG_BYTES, 0, &l.fd, 1), -EINVAL);
	CHECK_EQ(addr_log(&l.p, 1, end - USED_BYTES), 0);
	CHECK_EQ(ask_log(&l.p, LOG_BYTES, 0, &l.fd, 1), 0);
	CHECK_EQ(addr_log(&l.p, 1, end - USED_BYTES + 1), -EINVAL);
	CHECK_EQ(addr_log(&l.p, 1, 0x2000), 0);
	CHECK_EQ(ask_log(&l.p, 1, 0, &l.fd, 1), 0); /* eight pages hold it */
	down(&l);
}

static const struct libvhost_backend_ops fill_ops = {.size = sizeof(fill_ops), .serve = fake_touch};
static const struct libvhost_backend_opts filling = {.ops = &fill_ops};

/* A write of two pages from 256 bytes before the end of a page on. */
static void offer_write(struct logged *l, uint16_t n)
{
	struct lv_desc d = {.addr = DATA_PAGE * PAGE + PAGE - 256, .len = 512, .flags = LV_DESC_WRITE};
	uint16_t idx = n - 1;
	_Atomic uint16_t *avail = (void *)(l->p.mem + 0x1002);

	memcpy(l->p.mem + idx % 8 * sizeof(d), &d, sizeof(d));
	*(uint16_t *)(void *)(l->p.mem + 0x1004 + 2 * (idx % 8)) = idx % 8;
	atomic_store(avail, n);
	CHECK_EQ(eventfd_write(l->p.kick, 1), 0);
	CHECK(ring_used(&l->p, n));
	usleep(2000);
}

TEST(backend_log, goes_on_and_off_while_a_ring_runs)
{
	struct logged l = up(&filling);
	bool data;

	CHECK_EQ(ring_up(&l.p, 0), 0);
	offer_write(&l, 1);
	CHECK_EQ(ask_log(&l.p, LOG_BYTES, 0, &l.fd, 1), 0);
	offer_write(&l, 2);
	CHECK_EQ(marks(&l, DATA_PAGE, &data), 0); /* neither LOG_ALL nor the flag */
	CHECK_EQ(ask_u64(&l.p, LIBVHOST_OP_SET_FEATURES, F30 | F_VERSION | F_LOG), 0);
	offer_write(&l, 3);
	CHECK_EQ(marks(&l, DATA_PAGE, &data), 2);
	CHECK(data);
	CHECK_EQ(addr_log(&l.p, 1, 0x2000), 0);
	CHECK_EQ(marks(&l, USED_PAGE, &data), 1); /* once, for whatever was written meanwhile */
	CHECK(data);
	offer_write(&l, 4);
	CHECK_EQ(marks(&l, USED_PAGE, &data), 3);
	CHECK(data);
	CHECK_EQ(ask_u64(&l.p, LIBVHOST_OP_SET_FEATURES, F30 | F_VERSION), 0);
	marks(&l, USED_PAGE, &data);
	offer_write(&l, 5);
	CHECK_EQ(marks(&l, USED_PAGE, &data), 1); /* only the used ring */
	CHECK(data);
	CHECK_EQ(addr_log(&l.p, 0, 0), 0);
	offer_write(&l, 6);
	CHECK_EQ(marks(&l, USED_PAGE, &data), 0);
	/* other addresses and other features stay forbidden */
	CHECK_EQ(ask_addr(&l.p, 0, UADDR, UADDR + 0x1000, UADDR + 0x3000), -EBUSY);
	CHECK_EQ(ask_u64(&l.p, LIBVHOST_OP_SET_FEATURES, F30), -EBUSY);
	CHECK_EQ(get_base(&l.p, 0), 6);
	down(&l);
}

/* The order of QEMU's start: features, addresses with flags, kick, then the log. */
TEST(backend_log, may_come_before_and_after_the_rest)
{
	struct logged l = up(&filling);
	bool data;

	CHECK_EQ(ask_u64(&l.p, LIBVHOST_OP_SET_FEATURES, F30 | F_VERSION | F_LOG), 0);
	CHECK_EQ(ring_up(&l.p, 0), 0);
	CHECK_EQ(addr_log(&l.p, 1, 0x2000), 0);
	offer_write(&l, 1);
	CHECK_EQ(ask_log(&l.p, LOG_BYTES, 0, &l.fd, 1), 0);
	marks(&l, 0, &data);
	offer_write(&l, 2);
	CHECK_EQ(marks(&l, DATA_PAGE + 1, &data), 3);
	CHECK(data);
	CHECK_EQ(ask(&l.p, LIBVHOST_OP_RESET_OWNER, NULL, 0, NULL, 0), 0);
	/* reset: the log is forgotten with everything else */
	memset(l.p.mem, 0, 0x4000);
	CHECK_EQ(ask_u64(&l.p, LIBVHOST_OP_SET_FEATURES, F30 | F_VERSION | F_LOG), 0);
	CHECK_EQ(ring_up(&l.p, 0), 0);
	offer_write(&l, 1);
	CHECK_EQ(marks(&l, 0, &data), 0);
	down(&l);
}

TEST(backend_log, r112_memory_beyond_a_small_log)
{
	struct logged l = up(&filling);
	bool data;

	CHECK_EQ(ask_u64(&l.p, LIBVHOST_OP_SET_FEATURES, F30 | F_VERSION | F_LOG), 0);
	CHECK_EQ(ring_up(&l.p, 0), 0);
	CHECK_EQ(ask_log(&l.p, 4, 0, &l.fd, 1), 0); /* 32 pages; the data lies in pages 32 and 33 */
	offer_write(&l, 1);
	CHECK_EQ(marks(&l, DATA_PAGE, &data), 0);
	CHECK_EQ(ask_log(&l.p, 5, 0, &l.fd, 1), 0);
	offer_write(&l, 2);
	CHECK_EQ(marks(&l, DATA_PAGE, &data), 2);
	down(&l);
}

/* Four workers log all the time while the log is replaced. */
TEST(backend_log, r114_replaced_ten_thousand_times_while_workers_log)
{
#ifdef LV_SANITIZED
	const int times = 1000;
#else
	const int times = 10000;
#endif
	struct libvhost_backend_opts o = filling;
	struct lv_ledger before;
	struct logged l;
	int logs[2];

	o.num_queues = o.num_workers = 4;
	l = up(&o);
	logs[0] = l.fd;
	logs[1] = memfd(LOG_BYTES, 0);
	CHECK_EQ(ask_u64(&l.p, LIBVHOST_OP_SET_FEATURES, F30 | F_VERSION | F_LOG), 0);
	for (uint32_t q = 0; q < 4; q++) {
		uint64_t none = q | 0x100;

		CHECK_EQ(ring_up(&l.p, q), 0);
		CHECK_EQ(ask(&l.p, LIBVHOST_OP_SET_VRING_KICK, &none, 8, NULL, 0), 0); /* polls: always awake */
	}
	CHECK_EQ(ask_log(&l.p, LOG_BYTES, 0, &logs[1], 1), 0);
	before = lv_ledger_take();
	for (int i = 0; i < times; i++) {
		for (uint32_t q = 0; q < 4; q++) {
			uint8_t *ring = l.p.mem + q * 0x4000;
			struct lv_desc d = {.addr = (DATA_PAGE + q) * PAGE, .len = 64, .flags = LV_DESC_WRITE};
			_Atomic uint16_t *avail = (void *)(ring + 0x1002), *used = (void *)(ring + 0x2002);
			uint16_t idx = atomic_load(avail);

			if (idx != atomic_load(used))
				continue;
			memcpy(ring + idx % 8 * sizeof(d), &d, sizeof(d));
			*(uint16_t *)(void *)(ring + 0x1004 + 2 * (idx % 8)) = idx % 8;
			atomic_store(avail, (uint16_t)(idx + 1));
		}
		CHECK_EQ(ask_log(&l.p, LOG_BYTES, 0, &logs[i % 2], 1), 0);
	}
	CHECK_LEDGER(before);
	CHECK(lv_ledger_take().maps <= before.maps + 20); /* an allocator may have grown; one each would be thousands */
	for (uint32_t q = 0; q < 4; q++)
		CHECK(get_base(&l.p, q) > 0);
	close(logs[1]);
	down(&l);
}

struct dawdler {
	atomic_uint came, left;
};

/* Is inside for 20 ms. */
static int dawdle(void *arg, uint32_t queue, struct libvhost_vq *vq)
{
	struct dawdler *d = arg;
	struct timespec now, until;
	int rc;

	atomic_fetch_add(&d->came, 1);
	clock_gettime(CLOCK_MONOTONIC, &until);
	do
		clock_gettime(CLOCK_MONOTONIC, &now);
	while ((now.tv_sec - until.tv_sec) * 1000000000 + now.tv_nsec - until.tv_nsec < 20000000);
	rc = fake_touch(arg, queue, vq);
	atomic_fetch_add(&d->left, 1);
	return rc;
}

/* Whoever gets the answer may take the old log away: no handler is inside that began with it. */
TEST(backend_log, r114_the_answer_waits_for_who_writes_the_old_log)
{
	const struct libvhost_backend_ops ops = {.size = sizeof(ops), .serve = dawdle};
	struct dawdler d = {0};
	const struct libvhost_backend_opts o = {.ops = &ops, .arg = &d, .timeout_ms = 60000};
	struct logged l = up(&o);
	unsigned inside;

	CHECK_EQ(ask_u64(&l.p, LIBVHOST_OP_SET_FEATURES, F30 | F_VERSION | F_LOG), 0);
	CHECK_EQ(ring_up(&l.p, 0), 0);
	for (int i = 0; i < 5; i++) {
		inside = atomic_load(&d.left) + 1;
		while (atomic_load(&d.came) < inside)
			eventfd_write(l.p.kick, 1);
		CHECK_EQ(ask_log(&l.p, LOG_BYTES, 0, &l.fd, 1), 0);
		CHECK(atomic_load(&d.left) >= inside);
	}
	down(&l);
}

/* The answers of the specification, with and without NEED_REPLY. */
TEST(backend_log, answers_with_its_own_payload)
{
	uint64_t msg[2] = {LOG_BYTES, 0}, answer[2] = {0};
	struct logged l = up(NULL);
	struct wire_hdr hdr;

	send_msg(&l.p, LIBVHOST_OP_SET_LOG_BASE, 0, msg, sizeof(msg), &l.fd, 1);
	CHECK_EQ(recv_msg(&l.p, &hdr, answer, sizeof(answer)), 16);
	CHECK_EQ(answer[0], LOG_BYTES);
	down(&l);
}
