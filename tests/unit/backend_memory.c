/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* Memory tables of a front-end that means no good. */
#include <sys/epoll.h>

#include "frontend.h"

static struct libvhost_region ram_at(const struct fake *p, uint64_t gpa, uint64_t size)
{
	return (struct libvhost_region){.gpa = gpa, .size = size, .user_addr = UADDR + gpa, .fd = p->ram};
}

static int ask_region(struct fake *p, uint32_t op, struct libvhost_region r)
{
	uint64_t wire[5] = {0, r.gpa, r.size, r.user_addr, r.mmap_offset};

	return ask(p, op, wire, sizeof(wire), &r.fd, op == LIBVHOST_OP_ADD_MEM_REG);
}

/* The ring at the start of RAM works, so the table is the one of the handshake. */
static void still_there(struct fake *p)
{
	memset(p->mem, 0, 0x4000);
	CHECK_EQ(ring_up(p, 0), 0);
	ring_offer(p);
	CHECK(ring_used(p, 1));
	CHECK_EQ(get_base(p, 0), 1);
}

TEST(backend_memory, r017_r040_counts_that_do_not_fit_leave_the_old_table)
{
	struct fake p = fake_new(NULL);
	struct libvhost_region two[9]; /* and seven that would be good, too */
	const int fds[2] = {p.ram, p.ram};
	uint64_t wire[1 + 2 * 4];
	struct lv_ledger before;

	for (uint64_t i = 0; i < 9; i++)
		two[i] = ram_at(&p, i * 0x1000, 0x1000);

	handshake(&p);
	before = lv_ledger_take();
	CHECK_EQ(ask_table(&p, two, 2, 0), -EINVAL); /* descriptors do not match */
	CHECK_EQ(ask_table(&p, two, 2, 1), -EINVAL);
	CHECK_EQ(ask_table(&p, two, 2, 3), -EINVAL);
	CHECK_EQ(ask_table(&p, two, 9, 8), -EINVAL);
	CHECK_EQ(ask_table(&p, two, 9, 9), -EINVAL);
	CHECK_EQ(ask_table(&p, two, 0xffffffff, 2), -EINVAL);
	wire[0] = 0x08000002; /* as many bytes as two, in 32 bits */
	memcpy(wire + 1, &two[0], 4 * sizeof(uint64_t));
	memcpy(wire + 5, &two[1], 4 * sizeof(uint64_t));
	CHECK_EQ(ask(&p, LIBVHOST_OP_SET_MEM_TABLE, wire, sizeof(wire), fds, 2), -EINVAL);
	CHECK_LEDGER(before);
	still_there(&p);
	fake_free(&p);
}

TEST(backend_memory, r039_empty_table_is_a_table)
{
	struct fake p = fake_new(NULL);

	handshake(&p);
	CHECK_EQ(ask_table(&p, NULL, 0, 0), 0);
	CHECK_EQ(ring_up(&p, 0), -EFAULT);
	fake_free(&p);
}

TEST(backend_memory, r059_r060_only_files_are_memory)
{
	static const char *const paths[] = {"/tmp", "/dev/zero", "/dev/null"};
	struct fake p = fake_new(NULL);
	struct libvhost_region r = ram_at(&p, 0, 0x1000);
	int pipefd[2];

	handshake(&p);
	for (size_t i = 0; i < sizeof(paths) / sizeof(*paths); i++) {
		r.fd = open(paths[i], (i ? O_RDWR : O_RDONLY) | O_CLOEXEC);
		CHECK(r.fd >= 0);
		CHECK(ask_table(&p, &r, 1, 1) < 0);
		close(r.fd);
	}
	r.fd = open("/proc/self/exe", O_PATH | O_CLOEXEC);
	CHECK(ask_table(&p, &r, 1, 1) < 0);
	close(r.fd);
	CHECK_EQ(pipe2(pipefd, O_CLOEXEC), 0);
	r.fd = pipefd[0];
	CHECK(ask_table(&p, &r, 1, 1) < 0);
	close(pipefd[0]);
	close(pipefd[1]);
	r.fd = p.kick;
	CHECK(ask_table(&p, &r, 1, 1) < 0);
	r.fd = epoll_create1(EPOLL_CLOEXEC);
	CHECK(ask_table(&p, &r, 1, 1) < 0);
	close(r.fd);
	r.fd = p.sock;
	CHECK(ask_table(&p, &r, 1, 1) < 0);
	still_there(&p);
	fake_free(&p);
}

TEST(backend_memory, r053_seals_when_they_are_required)
{
	const struct libvhost_backend_opts o = {.flags = LIBVHOST_BACKEND_REQUIRE_SEALS};
	struct fake p = fake_new(&o);
	struct libvhost_region r = ram_at(&p, 0, RAM_BYTES);

	CHECK_EQ(ask_u64(&p, LIBVHOST_OP_SET_PROTOCOL_FEATURES, PF(REPLY_ACK)), 0);
	CHECK_EQ(ask_table(&p, &r, 1, 1), -EPERM);
	r.fd = memfd(RAM_BYTES, F_SEAL_SHRINK);
	CHECK_EQ(ask_table(&p, &r, 1, 1), 0);
	close(r.fd);
	fake_free(&p);
}

TEST(backend_memory, r064_same_table_ten_thousand_times)
{
	struct fake p = fake_new(NULL);
	struct libvhost_region r = ram_at(&p, 0, RAM_BYTES);
	struct lv_ledger before;

	handshake(&p);
	before = lv_ledger_take();
	for (int i = 0; i < 10000; i++)
		CHECK_EQ(ask_table(&p, &r, 1, 1), 0);
	CHECK_LEDGER(before);
	CHECK(lv_ledger_take().maps <= before.maps + 2);
	fake_free(&p);
}

TEST(backend_memory, r068_r070_r071_regions_come_and_go_one_by_one)
{
	const struct libvhost_backend_opts o = {.max_regions = 8};
	struct fake p = fake_new(&o);
	struct libvhost_region r = ram_at(&p, 0x10000000, 0x1000), wrong;

	handshake(&p);
	CHECK_EQ(get_u64(&p, LIBVHOST_OP_GET_MAX_MEM_SLOTS), 8);
	for (uint64_t i = 0; i < 7; i++) {
		r = ram_at(&p, 0x10000000 + i * 0x1000, 0x1000); /* one file for all slots */
		r.mmap_offset = 0x8000 + i * 0x1000;
		CHECK_EQ(ask_region(&p, LIBVHOST_OP_ADD_MEM_REG, r), 0);
	}
	CHECK_EQ(ask_region(&p, LIBVHOST_OP_ADD_MEM_REG, ram_at(&p, 0x20000000, 0x1000)), -ENOSPC);
	wrong = r;
	wrong.size = 0x2000;
	CHECK_EQ(ask_region(&p, LIBVHOST_OP_REM_MEM_REG, wrong), -ENOENT);
	wrong = r;
	wrong.user_addr++;
	CHECK_EQ(ask_region(&p, LIBVHOST_OP_REM_MEM_REG, wrong), -ENOENT);
	wrong = r;
	wrong.gpa = 0x30000000;
	CHECK_EQ(ask_region(&p, LIBVHOST_OP_REM_MEM_REG, wrong), -ENOENT);
	CHECK_EQ(ask_region(&p, LIBVHOST_OP_REM_MEM_REG, r), 0);
	CHECK_EQ(ask_region(&p, LIBVHOST_OP_REM_MEM_REG, r), -ENOENT);
	CHECK_EQ(ask_region(&p, LIBVHOST_OP_ADD_MEM_REG, ram_at(&p, 0x10000000, 0x1000)), -EEXIST);
	CHECK_EQ(ask_region(&p, LIBVHOST_OP_ADD_MEM_REG, ram_at(&p, 0x10000fff, 0x1000)), -EEXIST);
	still_there(&p);
	fake_free(&p);
}

/* QEMU 7.2 says everything of the memory once for each pair of a card's queues. */
TEST(backend_memory, r071_the_same_region_again_is_counted)
{
	const struct libvhost_backend_opts o = {.max_regions = 8};
	struct fake p = fake_new(&o);
	const struct libvhost_region r = ram_at(&p, 0x10000000, 0x1000), ram = ram_at(&p, 0, RAM_BYTES);
	struct lv_ledger before;

	handshake(&p);
	CHECK_EQ(ring_up(&p, 0), 0);
	for (uint64_t i = 0; i < 6; i++)
		CHECK_EQ(ask_region(&p, LIBVHOST_OP_ADD_MEM_REG, ram_at(&p, 0x30000000 + i * 0x1000, 0x1000)), 0);
	CHECK_EQ(ask_region(&p, LIBVHOST_OP_ADD_MEM_REG, r), 0);
	before = lv_ledger_take();
	CHECK_EQ(ask_region(&p, LIBVHOST_OP_ADD_MEM_REG, r), 0);   /* needs no slot */
	CHECK_EQ(ask_region(&p, LIBVHOST_OP_ADD_MEM_REG, ram), 0); /* as does one that came in a table */
	CHECK_LEDGER(before);
	CHECK_EQ(ask_region(&p, LIBVHOST_OP_REM_MEM_REG, ram), 0);
	ring_offer(&p);
	CHECK(ring_used(&p, 1));
	CHECK_EQ(ask_region(&p, LIBVHOST_OP_REM_MEM_REG, r), 0);
	CHECK_EQ(ask_region(&p, LIBVHOST_OP_ADD_MEM_REG, ram_at(&p, 0x20000000, 0x1000)), -ENOSPC);
	CHECK_EQ(ask_region(&p, LIBVHOST_OP_REM_MEM_REG, r), 0);
	CHECK_EQ(ask_region(&p, LIBVHOST_OP_ADD_MEM_REG, ram_at(&p, 0x20000000, 0x1000)), 0);
	CHECK_EQ(ask_region(&p, LIBVHOST_OP_REM_MEM_REG, r), -ENOENT);
	CHECK_EQ(ask_region(&p, LIBVHOST_OP_REM_MEM_REG, ram), 0);
	CHECK_EQ(take_event(&p, LIBVHOST_EVENT_QUEUE_ERROR).queue, 0);
	fake_free(&p);
}

TEST(backend_memory, r071_another_region_at_its_place_is_not_counted)
{
	struct fake p = fake_new(NULL);
	const struct libvhost_region r = ram_at(&p, 0x10000000, 0x2000);
	struct libvhost_region other[5] = {r, r, r, r, r};

	handshake(&p);
	CHECK_EQ(ask_region(&p, LIBVHOST_OP_ADD_MEM_REG, r), 0);
	other[0].gpa += 0x1000;
	other[1].size = 0x1000;
	other[2].user_addr += 0x1000;
	other[3].mmap_offset = 0x1000;
	other[4].fd = memfd(RAM_BYTES, 0);
	for (int i = 0; i < 5; i++)
		CHECK_EQ(ask_region(&p, LIBVHOST_OP_ADD_MEM_REG, other[i]), -EEXIST);
	close(other[4].fd);
	for (int i = 0; i < 4; i++) /* queues: nobody has more reason than that */
		CHECK_EQ(ask_region(&p, LIBVHOST_OP_ADD_MEM_REG, r), 0);
	CHECK_EQ(ask_region(&p, LIBVHOST_OP_ADD_MEM_REG, r), -EEXIST);
	other[0] = ram_at(&p, 0, RAM_BYTES);
	CHECK_EQ(ask_table(&p, (struct libvhost_region[]){other[0], r}, 2, 2), 0); /* forgets the count */
	CHECK_EQ(ask_region(&p, LIBVHOST_OP_REM_MEM_REG, r), 0);
	CHECK_EQ(ask_region(&p, LIBVHOST_OP_REM_MEM_REG, r), -ENOENT);
	still_there(&p);
	CHECK_EQ(ask_region(&p, LIBVHOST_OP_ADD_MEM_REG, other[0]), 0);
	fake_connect(&p); /* and so does a new connection */
	handshake(&p);
	CHECK_EQ(ask_region(&p, LIBVHOST_OP_REM_MEM_REG, other[0]), 0);
	CHECK_EQ(ask_region(&p, LIBVHOST_OP_REM_MEM_REG, other[0]), -ENOENT);
	fake_free(&p);
}

/* The virtio-driver crate shares rings of 0xec40 bytes. With that size the last ones are the buffer that is offered. */
static struct libvhost_region odd_region(const struct fake *p, uint64_t size)
{
	return (struct libvhost_region){.gpa = 0x10000 + 64 - 0xec40, .size = size, .user_addr = UADDR, .fd = p->ram};
}

TEST(backend_memory, a_region_is_used_up_to_its_last_byte)
{
	struct fake p = fake_new(NULL);
	const struct libvhost_region r = odd_region(&p, 0xec40);
	struct libvhost_region too_long = ram_at(&p, 1ull << 32, RAM_BYTES + 1);

	handshake(&p);
	CHECK_EQ(ask_table(&p, NULL, 0, 0), 0);
	CHECK_EQ(ask_region(&p, LIBVHOST_OP_ADD_MEM_REG, r), 0);
	CHECK_EQ(ask_region(&p, LIBVHOST_OP_ADD_MEM_REG, too_long), -EOVERFLOW);
	CHECK_EQ(ring_up(&p, 0), 0);
	ring_offer(&p);
	CHECK(ring_used(&p, 1));
	CHECK_EQ(ask_region(&p, LIBVHOST_OP_REM_MEM_REG, r), 0);
	CHECK_EQ(take_event(&p, LIBVHOST_EVENT_QUEUE_ERROR).queue, 0);
	fake_free(&p);
}

/* The byte behind it is mapped, since files are mapped in pages, and is not the region's. */
TEST(backend_memory, a_request_that_ends_behind_its_region_breaks_the_ring)
{
	struct fake p = fake_new(NULL);
	const struct libvhost_region r = odd_region(&p, 0xec3f);

	handshake(&p);
	CHECK_EQ(ask_table(&p, &r, 1, 1), 0);
	CHECK_EQ(ring_up(&p, 0), 0);
	ring_offer(&p);
	CHECK_EQ(take_event(&p, LIBVHOST_EVENT_QUEUE_ERROR).queue, 0);
	CHECK(ring_used(&p, 0));
	CHECK(signalled(p.err));
	fake_free(&p);
}

TEST(backend_memory, ring_that_loses_its_memory_breaks_alone)
{
	struct fake p = fake_new(NULL);
	struct libvhost_region r = ram_at(&p, 0x10000000, 0x10000), old = ram_at(&p, 0, RAM_BYTES);

	handshake(&p);
	CHECK_EQ(ring_up(&p, 0), 0);
	CHECK_EQ(ask_table(&p, &r, 1, 1), 0);
	CHECK_EQ(take_event(&p, LIBVHOST_EVENT_QUEUE_ERROR).queue, 0);
	CHECK(signalled(p.err));
	eventfd_write(p.kick, 1);
	CHECK_EQ(ask_table(&p, &old, 1, 1), 0);
	still_there(&p);
	fake_free(&p);
}

/* Completes every request together with the one after it. */
static int serve_late(void *arg, uint32_t queue, struct libvhost_vq *vq)
{
	struct libvhost_iov iov[16];
	struct libvhost_chain c = {.size = sizeof(c), .iov = iov, .iov_cap = 16};
	int64_t *kept = arg;
	int rc = 0;

	(void)queue;
	while (rc >= 0 && libvhost_vq_pop(vq, &c) > 0) {
		if (*kept >= 0)
			rc = libvhost_vq_push(vq, (uint32_t)*kept, 0) | libvhost_vq_push(vq, c.head, 0);
		*kept = *kept >= 0 ? -1 : (int64_t)c.head;
	}
	return rc;
}

/* Its map lives as long as the request, and the worker that ends it may neither unmap nor close. */
TEST(backend_memory, a_request_in_flight_outlives_a_region)
{
	static const struct libvhost_backend_ops late = {.size = sizeof(late), .serve = serve_late};
	int64_t kept = -1;
	struct libvhost_backend_opts opts = {.ops = &late, .arg = &kept};
	struct fake p = fake_new(&opts);
	struct libvhost_region extra = ram_at(&p, 1ull << 32, RAM_BYTES);
	struct lv_ledger before;

	handshake(&p);
	CHECK_EQ(ring_up(&p, 0), 0);
	extra.fd = memfd(RAM_BYTES, 0);
	before = lv_ledger_take();
	CHECK_EQ(ask_region(&p, LIBVHOST_OP_ADD_MEM_REG, extra), 0);
	ring_offer(&p);
	CHECK(ring_rests(&p, 0));
	CHECK_EQ(ask_region(&p, LIBVHOST_OP_REM_MEM_REG, extra), 0);
	ring_offer(&p);
	CHECK(ring_used(&p, 2));
	CHECK_EQ(ask_state(&p, LIBVHOST_OP_SET_VRING_ENABLE, 0, 0), 0); /* the back-end has the queue */
	CHECK_LEDGER(before);
	CHECK_EQ(lv_ledger_take().maps, before.maps);
	close(extra.fd);
	fake_free(&p);
}
