/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* Regions that cannot be, as a table and one by one: the exact refusal, and what they leave behind. */
#include <pthread.h>

#include "frontend.h"

#define HIGH 0x100000000ull
#define HUGE (2ull << 20)

static struct libvhost_region at_gpa(int fd, uint64_t gpa, uint64_t size, uint64_t offset)
{
	return (struct libvhost_region){
		.gpa = gpa, .size = size, .user_addr = UADDR + gpa, .mmap_offset = offset, .fd = fd};
}

static int add(struct fake *p, struct libvhost_region r)
{
	const uint64_t wire[5] = {0, r.gpa, r.size, r.user_addr, r.mmap_offset};

	return ask(p, LIBVHOST_OP_ADD_MEM_REG, wire, sizeof(wire), &r.fd, 1);
}

static int take_away(struct fake *p, struct libvhost_region r)
{
	const uint64_t wire[5] = {0, r.gpa, r.size, r.user_addr, r.mmap_offset};

	return ask(p, LIBVHOST_OP_REM_MEM_REG, wire, sizeof(wire), NULL, 0);
}

static struct fake up(struct lv_ledger *before)
{
	struct fake p = fake_new(NULL);

	handshake(&p);
	*before = lv_ledger_take();
	return p;
}

/* All that was refused left nothing, and the ring in the memory of the handshake works. */
static void down(struct fake *p, const struct lv_ledger *before)
{
	CHECK_LEDGER(*before);
	CHECK_EQ(lv_ledger_take().maps, before->maps);
	memset(p->mem, 0, 0x4000);
	CHECK_EQ(ring_up(p, 0), 0);
	ring_offer(p);
	CHECK(ring_used(p, 1));
	fake_free(p);
}

/* By itself, in a table of its own, and as the second one of a table. */
static void refused(struct fake *p, struct libvhost_region r, int why)
{
	const struct libvhost_region two[2] = {at_gpa(p->ram, 0x40000000, 0x1000, 0), r};

	CHECK_EQ(add(p, r), why);
	CHECK_EQ(ask_table(p, &r, 1, 1), why);
	CHECK_EQ(ask_table(p, two, 2, 2), why);
}

TEST(backend_regions, r043_guest_addresses_that_wrap)
{
	struct lv_ledger before;
	struct fake p = up(&before);
	struct libvhost_region r = at_gpa(p.ram, 0xfffffffffffff000, 0x2000, 0);

	r.user_addr = UADDR + HIGH;
	refused(&p, r, -EINVAL);
	r.size = 0x1000; /* ends at 2^64, which is 0 */
	refused(&p, r, -EINVAL);
	r.gpa = 0x10000000;
	r.size = UINT64_MAX;
	refused(&p, r, -EINVAL);
	r.size = 0x2000;
	r.user_addr = 0xfffffffffffff000;
	refused(&p, r, -EINVAL);
	down(&p, &before);
}

TEST(backend_regions, r046_file_offsets_that_wrap)
{
	struct lv_ledger before;
	struct fake p = up(&before);

	refused(&p, at_gpa(p.ram, HIGH, 0x2000, 0xfffffffffffff000), -EINVAL);
	refused(&p, at_gpa(p.ram, HIGH, 0x1000, 0xfffffffffffff000), -EINVAL);
	refused(&p, at_gpa(p.ram, HIGH, 0x1000, 0x7ffffffffffff000), -EINVAL);
	refused(&p, at_gpa(p.ram, HIGH, 0x1000, 0x7fffffffffffe000), -EOVERFLOW); /* beyond the end of the file */
	refused(&p, at_gpa(p.ram, HIGH, RAM_BYTES, 0x1000), -EOVERFLOW);
	down(&p, &before);
}

TEST(backend_regions, r041_more_regions_than_bytes)
{
	struct lv_ledger before;
	struct fake p = up(&before);
	const struct libvhost_region over_two = at_gpa(p.ram, HIGH, 0x2000, 0);
	uint64_t wire[1 + 8 * 4] = {8};
	int fds[8];

	for (uint64_t i = 0; i < 8; i++) { /* what lies in the buffer from before would be good regions */
		struct libvhost_region r = at_gpa(p.ram, HIGH + i * 0x1000, 0x1000, 0);

		memcpy(wire + 1 + i * 4, &r, 4 * sizeof(uint64_t));
		fds[i] = p.ram;
	}
	CHECK_EQ(ask(&p, LIBVHOST_OP_SET_MEM_TABLE, wire, sizeof(wire), fds, 8), 0);
	CHECK_EQ(ask(&p, LIBVHOST_OP_SET_MEM_TABLE, wire, 8 + 2 * 32, fds, 8), -EINVAL);
	CHECK_EQ(ask(&p, LIBVHOST_OP_SET_MEM_TABLE, wire, 8 + 2 * 32, fds, 2), -EINVAL);
	CHECK_EQ(add(&p, over_two), -EEXIST); /* the table with eight is still there */
	wire[0] = 1;
	memcpy(wire + 1, &(struct libvhost_region){.size = RAM_BYTES, .user_addr = UADDR}, 4 * sizeof(uint64_t));
	CHECK_EQ(ask(&p, LIBVHOST_OP_SET_MEM_TABLE, wire, 8 + 32, fds, 1), 0);
	down(&p, &before);
}

/* Where a region of four pages is, at HIGH; in both orders of a table, and added to it. */
static void overlaps(struct fake *p, struct libvhost_region r)
{
	const struct libvhost_region there = at_gpa(p->ram, HIGH, 0x4000, 0), one[2] = {there, r}, two[2] = {r, there};

	CHECK_EQ(ask_table(p, one, 2, 2), -EEXIST);
	CHECK_EQ(ask_table(p, two, 2, 2), -EEXIST);
	CHECK_EQ(add(p, there), 0);
	CHECK_EQ(add(p, r), -EEXIST);
	CHECK_EQ(take_away(p, there), 0);
}

TEST(backend_regions, r048_r071_regions_that_overlap)
{
	static const uint64_t where[][2] = {
		{HIGH + 0x1000, 0x1000}, /* inside */
		{HIGH - 0x1000, 0x8000}, /* around */
		{HIGH, 0x1000},		 /* same start */
		{HIGH + 0x3000, 0x1000}, /* same end */
		{HIGH - 0xfff, 0x1000},	 /* its last byte */
		{HIGH + 0x3fff, 0x1000}, /* its first byte */
	};
	struct lv_ledger before;
	struct fake p = up(&before);

	for (size_t i = 0; i < sizeof(where) / sizeof(*where); i++) {
		struct libvhost_region r = at_gpa(p.ram, where[i][0], where[i][1], 0);

		r.user_addr += 0x100000000000; /* only in guest addresses */
		overlaps(&p, r);
	}
	down(&p, &before);
}

TEST(backend_regions, r049_regions_that_overlap_in_user_addresses_only)
{
	static const int64_t where[] = {0, 0x1000, 0x3fff, -0xfff};
	struct lv_ledger before;
	struct fake p = up(&before);

	for (size_t i = 0; i < sizeof(where) / sizeof(*where); i++) {
		struct libvhost_region r = at_gpa(p.ram, 2 * HIGH, 0x1000, 0);

		r.user_addr = UADDR + HIGH + (uint64_t)where[i];
		overlaps(&p, r);
	}
	down(&p, &before);
}

TEST(backend_regions, r055_r056_huge_pages)
{
	int fd = memfd_create("huge", MFD_CLOEXEC | MFD_HUGETLB);
	struct lv_ledger before;
	struct fake p;

	if (fd < 0 || ftruncate(fd, 1ll << 40) < 0)
		SKIP("no hugetlb memfd");
	p = up(&before);
	refused(&p, at_gpa(fd, HIGH, HUGE + 0x1000, 0), -EINVAL);
	refused(&p, at_gpa(fd, HIGH, 0x1000, 0), -EINVAL);
	refused(&p, at_gpa(fd, HIGH, HUGE, 0x1000), -EINVAL);
	/* 1 TiB is in no pool: refused when it is mapped, not by SIGBUS at the first touch */
	refused(&p, at_gpa(fd, HIGH, 1ull << 40, 0), -ENOMEM);
	down(&p, &before);
	close(fd);
}

TEST(backend_regions, r058_memory_sealed_against_writing)
{
	int future = memfd(0x10000, F_SEAL_FUTURE_WRITE), now = memfd(0x10000, F_SEAL_WRITE);
	struct lv_ledger before;
	struct fake p = up(&before);

	refused(&p, at_gpa(future, HIGH, 0x10000, 0), -EPERM);
	refused(&p, at_gpa(now, HIGH, 0x10000, 0), -EPERM);
	down(&p, &before);
	close(future);
	close(now);
}

/* Writes the number of the request, two bytes. */
static int write_number(void *arg, uint32_t queue, struct libvhost_vq *vq)
{
	struct libvhost_iov iov[16];
	struct libvhost_chain c = {.size = sizeof(c), .iov = iov, .iov_cap = 16};
	uint16_t *n = arg;
	int rc;

	(void)queue;
	while ((rc = libvhost_vq_pop(vq, &c)) > 0) {
		*n += 1;
		memcpy(iov[0].base, n, sizeof(*n));
		rc = libvhost_vq_push(vq, c.head, sizeof(*n));
		if (rc < 0)
			return rc;
	}
	return rc;
}

/* As many regions of one file as there are slots, their offsets falling while the guest addresses rise. */
TEST(backend_regions, r072_one_file_in_all_slots)
{
	const struct libvhost_backend_ops ops = {.size = sizeof(ops), .serve = write_number};
	uint16_t number = 0, got;
	const struct libvhost_backend_opts o = {.ops = &ops, .arg = &number};
	struct fake p = fake_new(&o);
	uint64_t slots;
	int fd;

	handshake(&p);
	slots = get_u64(&p, LIBVHOST_OP_GET_MAX_MEM_SLOTS) - 1; /* one holds the ring */
	fd = memfd(slots * 0x1000, 0);
	for (uint64_t i = 0; i < slots; i++)
		CHECK_EQ(add(&p, at_gpa(fd, HIGH + i * 0x10000, 0x1000, (slots - 1 - i) * 0x1000)), 0);
	CHECK_EQ(add(&p, at_gpa(fd, 2 * HIGH, 0x1000, 0)), -ENOSPC);
	CHECK_EQ(ring_up(&p, 0), 0);
	for (uint16_t i = 0; i < slots; i++) { /* a request in the last two bytes of each */
		struct lv_desc d = {.addr = HIGH + i * 0x10000u + 0xffe, .len = 2, .flags = LV_DESC_WRITE};

		memcpy(p.mem + i % 8 * sizeof(d), &d, sizeof(d));
		*(uint16_t *)(void *)(p.mem + 0x1004 + 2 * (i % 8)) = i % 8;
		atomic_store((_Atomic uint16_t *)(void *)(p.mem + 0x1002), (uint16_t)(i + 1));
		CHECK_EQ(eventfd_write(p.kick, 1), 0);
		CHECK(ring_used(&p, (uint16_t)(i + 1)));
	}
	for (uint64_t i = 0; i < slots; i++) {
		CHECK_EQ(pread(fd, &got, 2, (off_t)((slots - 1 - i) * 0x1000 + 0xffe)), 2);
		CHECK_EQ(got, i + 1);
	}
	close(fd);
	fake_free(&p);
}

struct driver {
	struct fake *p;
	atomic_bool stop;
	uint16_t served;
	uint32_t late;
	uint64_t total;
};

static void *drive(void *arg)
{
	struct driver *d = arg;
	_Atomic uint16_t *used = (void *)(d->p->mem + 0x2002);

	while (!atomic_load(&d->stop)) {
		ring_offer(d->p);
		d->served++;
		d->total++;
		for (int i = 0; i < 1000 && atomic_load(used) != d->served; i++)
			sched_yield();
		d->late += !ring_used(d->p, d->served);
	}
	return NULL;
}

TEST(backend_regions, r073_ten_thousand_changes_beside_a_running_ring)
{
#ifdef LV_SANITIZED
	const int pairs = 1000;
#else
	const int pairs = 10000;
#endif
	struct lv_ledger before;
	struct fake p = fake_new(NULL);
	struct driver d = {.p = &p};
	struct libvhost_event e;
	pthread_t thread;

	handshake(&p);
	CHECK_EQ(ring_up(&p, 0), 0);
	before = lv_ledger_take();
	CHECK_EQ(pthread_create(&thread, NULL, drive, &d), 0);
	for (int i = 0; i < pairs; i++) {
		struct libvhost_region r = at_gpa(p.ram, HIGH + (uint64_t)(i % 4) * 0x10000, 0x1000, 0x8000);

		CHECK_EQ(add(&p, r), 0);
		CHECK_EQ(take_away(&p, r), 0);
	}
	atomic_store(&d.stop, true);
	CHECK_EQ(pthread_join(thread, NULL), 0);
	CHECK_EQ(d.late, 0);
	printf("# %llu requests beside %d changes\n", (unsigned long long)d.total, 2 * pairs);
	CHECK(d.total >= 10);
	while (libvhost_backend_next_event(p.b, &e) == 1)
		CHECK(e.type != LIBVHOST_EVENT_QUEUE_ERROR);
	CHECK_LEDGER(before);
	CHECK(lv_ledger_take().maps <= before.maps + 2); /* an allocator may have grown */
	CHECK_EQ(get_base(&p, 0), d.served);
	fake_free(&p);
}
