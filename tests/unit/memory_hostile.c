/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* Regions that a broken caller or a malicious front-end describes. Each is refused and leaves nothing behind. */
#include "memhelp.h"

#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>

#define HUGE (2ull << 20)

static int import(struct guest *g, struct libvhost_region r, uint64_t user)
{
	r.user_addr = user;
	return lv_mem_import(g->mem, &r);
}

/* An open transaction with [16 pages, 24 pages) of fd in it, user address 1 TiB. */
static struct guest hostile_guest(int fd)
{
	struct guest g = guest_new(0);

	CHECK_EQ(libvhost_mem_begin(g.mem), 0);
	CHECK_EQ(import(&g, region(fd, 16 * PAGE, 8 * PAGE, 0), 1ull << 40), 0);
	return g;
}

/* Ends the test: the map is the one hostile_guest() made and works. */
static void hostile_end(struct guest *g, int fd)
{
	struct libvhost_region r;
	uint32_t n = 1;

	CHECK_EQ(libvhost_mem_commit(g->mem, 0, NULL), 0);
	CHECK_EQ(libvhost_mem_regions(g->mem, &r, &n), 0);
	CHECK_EQ(n, 1);
	*(volatile char *)at(g, 16 * PAGE) = 1;
	guest_free(g);
	close(fd);
}

TEST(memory, R043_gpa_overflow)
{
	int fd = memfd(64 * PAGE, 0);
	struct guest g = hostile_guest(fd);

	CHECK_EQ(import(&g, region(fd, 0xfffffffffffff000, 0x2000, 0), 0), -EOVERFLOW);
	CHECK_EQ(import(&g, region(fd, 0xfffffffffffff000, 0x1000, 0), 0), -EOVERFLOW);
	CHECK_EQ(try_add(&g, region(fd, 0xfffffffffffff000, 0x2000, 0)), -EOVERFLOW);
	CHECK_EQ(libvhost_mem_alloc(g.mem, 0xfffffffffffff000, 0x2000), -EOVERFLOW);
	CHECK_EQ(import(&g, region(fd, PAGE, UINT64_MAX, 0), 0), -EOVERFLOW);
	/* user address + size */
	CHECK_EQ(import(&g, region(fd, 0, 0x2000, 0), 0xfffffffffffff000), -EOVERFLOW);
	/* the cookie would wrap */
	CHECK_EQ(try_add(&g, region(fd, UINT64_MAX - LV_COOKIE_BASE - PAGE + 2, PAGE, 0)), -EOVERFLOW);
	CHECK_HAS(last_error(&g).text, "wraps");
	hostile_end(&g, fd);
}

TEST(memory, R046_file_offset_overflow_and_end)
{
	int fd = memfd(64 * PAGE, 0);
	struct guest g = hostile_guest(fd);
	struct lv_ledger before = lv_ledger_take();

	CHECK_EQ(import(&g, region(fd, 0, 0x2000, 0xfffffffffffff000), 0), -EOVERFLOW);
	CHECK_HAS(last_error(&g).text, "+ size overflows"); /* said by us, not by mmap */
	CHECK_EQ(import(&g, region(fd, 0x100000, 0x7ffffffffffff000, 0x1000), 1ull << 41), -EOVERFLOW);
	CHECK_EQ(import(&g, region(fd, 0, PAGE, 0x8000000000000000), 0), -EOVERFLOW);
	CHECK_EQ(import(&g, region(fd, 0, PAGE, 64 * PAGE), 0), -EOVERFLOW);
	CHECK_EQ(import(&g, region(fd, 0, 2 * PAGE, 63 * PAGE), 0), -EOVERFLOW);
	CHECK_HAS(last_error(&g).text, "ends at 0x40000");
	CHECK_EQ(import(&g, region(fd, 0, 0, 0), 0), -EINVAL);
	CHECK_EQ(import(&g, region(fd, 0, PAGE + 1, 63 * PAGE), 0), -EOVERFLOW);
	CHECK_EQ(import(&g, region(fd, 0, PAGE, 512), 0), -EINVAL);
	CHECK_LEDGER(before);
	CHECK_EQ(lv_ledger_take().maps, before.maps);
	hostile_end(&g, fd);
}

TEST(memory, R048_overlap_in_gpa)
{
	static const struct {
		uint64_t gpa, size;
	} bad[] = {
		{16 * PAGE, 8 * PAGE},	   /* equal */
		{18 * PAGE, 2 * PAGE},	   /* inside */
		{10 * PAGE, 30 * PAGE},	   /* around */
		{16 * PAGE, 4 * PAGE},	   /* same start */
		{22 * PAGE, 2 * PAGE},	   /* same end */
		{12 * PAGE + 1, 4 * PAGE}, /* its last byte */
		{24 * PAGE - 1, PAGE},	   /* its first byte */
	};
	int fd = memfd(64 * PAGE, 0);
	struct guest g = hostile_guest(fd);

	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		CHECK_EQ(import(&g, region(fd, bad[i].gpa, bad[i].size, 0), i << 32), -EEXIST);
		CHECK_EQ(try_add(&g, region(fd, bad[i].gpa, bad[i].size, 0)), -EEXIST);
		CHECK_EQ(libvhost_mem_alloc(g.mem, bad[i].gpa, bad[i].size), -EEXIST);
	}
	CHECK_HAS(last_error(&g).text, "gpa 0x10000 size 0x8000");
	CHECK_EQ(try_add(&g, region(fd, 24 * PAGE, PAGE, 0)), 0);
	CHECK_EQ(try_add(&g, region(fd, 15 * PAGE, PAGE, 0)), 0);
	hostile_end(&g, fd);
}

TEST(memory, R049_overlap_only_in_user_address)
{
	int fd = memfd(64 * PAGE, 0);
	struct guest g = hostile_guest(fd);
	uint64_t user = 1ull << 40;

	CHECK_EQ(import(&g, region(fd, 0x1000000, PAGE, 0), user), -EEXIST);
	CHECK_HAS(last_error(&g).text, "user address");
	CHECK_EQ(import(&g, region(fd, 0x1000000, PAGE, 0), user + 8 * PAGE - 1), -EEXIST);
	CHECK_EQ(import(&g, region(fd, 0x1000000, PAGE, 0), user - PAGE + 1), -EEXIST);
	CHECK_EQ(import(&g, region(fd, 0x1000000, 0xc41, 0), user - 0xc40), -EEXIST);
	CHECK_EQ(import(&g, region(fd, 0x1000000, 0xc40, 0), user - 0xc40), 0);
	CHECK_EQ(libvhost_mem_remove(g.mem, 0x1000000, 0xc40), 0);
	CHECK_EQ(import(&g, region(fd, 0x1000000, PAGE, 0), user + 8 * PAGE), 0);
	CHECK_EQ(libvhost_mem_remove(g.mem, 0x1000000, PAGE), 0);
	hostile_end(&g, fd);
}

TEST(memory, R053_seals_required)
{
	int loose = memfd(PAGE, 0), tight = memfd(PAGE, F_SEAL_SHRINK);
	struct guest g = guest_new(LIBVHOST_MEM_REQUIRE_SEALS);
	FILE *plain = tmpfile();

	CHECK(plain && ftruncate(fileno(plain), PAGE) == 0);
	CHECK_EQ(libvhost_mem_begin(g.mem), 0);
	CHECK_EQ(import(&g, region(loose, 0, PAGE, 0), 0), -EPERM);
	CHECK_HAS(last_error(&g).text, "F_SEAL_SHRINK");
	CHECK_EQ(try_add(&g, region(loose, 0, PAGE, 0)), -EPERM);
	CHECK_EQ(try_add(&g, region(fileno(plain), 0, PAGE, 0)), -EPERM);
	CHECK_EQ(libvhost_mem_alloc(g.mem, 0x10000, PAGE), 0);
	CHECK_EQ(import(&g, region(tight, 0, PAGE, 0), 0), 0);
	CHECK_EQ(libvhost_mem_commit(g.mem, 0, NULL), 0);
	fclose(plain);
	close(loose);
	close(tight);
	guest_free(&g);
}

TEST(memory, R056_hugetlb_alignment_and_R055_empty_pool)
{
	int fd = memfd_create("huge", MFD_CLOEXEC | MFD_HUGETLB);
	struct lv_ledger before;
	struct guest g;

	if (fd < 0 || ftruncate(fd, 1ll << 40) < 0)
		SKIP("no hugetlb memfd");
	g = guest_new(0);
	CHECK_EQ(libvhost_mem_begin(g.mem), 0);
	before = lv_ledger_take();
	CHECK_EQ(import(&g, region(fd, 0, HUGE + PAGE, 0), 0), -EINVAL);
	CHECK_HAS(last_error(&g).text, "multiples of the file's huge pages of 2097152 bytes");
	CHECK_EQ(import(&g, region(fd, 0, HUGE, PAGE), 0), -EINVAL);
	CHECK_EQ(import(&g, region(fd, 0, PAGE, 0), 0), -EINVAL);
	/* 1 TiB is in no pool: refused when it is mapped, not by SIGBUS at the first touch */
	CHECK_EQ(import(&g, region(fd, 0, 1ull << 40, 0), 0), -ENOMEM);
	CHECK_LEDGER(before);
	CHECK_EQ(lv_ledger_take().maps, before.maps);
	close(fd);
	guest_free(&g);
}

TEST(memory, R058_sealed_against_writing)
{
	int future = memfd(PAGE, F_SEAL_FUTURE_WRITE), now = memfd(PAGE, F_SEAL_WRITE);
	struct guest g = guest_new(0);
	struct libvhost_region r = region(now, 0, PAGE, 0);

	CHECK_EQ(libvhost_mem_begin(g.mem), 0);
	CHECK_EQ(import(&g, region(future, 0, PAGE, 0), 0), -EPERM);
	CHECK_EQ(import(&g, region(now, 0, PAGE, 0), 0), -EPERM);
	CHECK_HAS(last_error(&g).text, "sealed against writing");
	CHECK_EQ(try_add(&g, region(future, 0, PAGE, 0)), -EPERM);
	r.flags |= LIBVHOST_REGION_READONLY;
	r.fd = future; /* a shared mapping of a file under F_SEAL_WRITE is refused by kernels before 6.7 */
	CHECK_EQ(try_add(&g, r), 0);
	close(future);
	close(now);
	guest_free(&g);
}

TEST(memory, R059_not_a_file)
{
	int fd = memfd(64 * PAGE, 0), pair[2], tube[2], bad[8], n = 0, path;
	struct guest g = hostile_guest(fd);
	struct lv_ledger before;

	CHECK_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	CHECK_EQ(pipe2(tube, O_CLOEXEC), 0);
	bad[n++] = open("/tmp", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	bad[n++] = pair[0];
	bad[n++] = pair[1];
	bad[n++] = tube[0];
	bad[n++] = tube[1];
	bad[n++] = eventfd(0, EFD_CLOEXEC);
	bad[n++] = epoll_create1(EPOLL_CLOEXEC);
	path = open("/proc/self/exe", O_PATH | O_CLOEXEC);
	before = lv_ledger_take();
	for (int i = 0; i < n; i++) {
		int rc = import(&g, region(bad[i], 0, PAGE, 0), 0);

		CHECK(rc == -EINVAL || rc == -EPERM);
		rc = try_add(&g, region(bad[i], 0, PAGE, 0));
		CHECK(rc == -EINVAL || rc == -EPERM);
	}
	CHECK_EQ(import(&g, region(path, 0, PAGE, 0), 0), -EBADF);
	CHECK_EQ(import(&g, region(-1, 0, PAGE, 0), 0), -EBADF);
	CHECK_EQ(import(&g, region(999, 0, PAGE, 0), 0), -EBADF);
	CHECK_LEDGER(before);
	bad[n++] = path;
	while (n)
		close(bad[--n]);
	hostile_end(&g, fd);
}

TEST(memory, R060_character_device)
{
	int fd = memfd(64 * PAGE, 0), zero = open("/dev/zero", O_RDWR | O_CLOEXEC);
	struct guest g = hostile_guest(fd);

	CHECK(zero >= 0);
	CHECK_EQ(import(&g, region(zero, 0, PAGE, 0), 0), -EINVAL);
	CHECK_HAS(last_error(&g).text, "not a regular file");
	close(zero);
	hostile_end(&g, fd);
}

TEST(memory, R064_same_table_10000_times_maps_once)
{
	int fd = memfd(64 * PAGE, 0);
	struct guest g = guest_new(0);
	struct lv_ledger before = {0};
	void *hva = NULL;

	for (int i = 0; i < 10000; i++) {
		int again = dup(fd); /* a front-end sends a new descriptor each time */

		CHECK_EQ(libvhost_mem_begin(g.mem), 0);
		for (uint64_t k = 0; i && k < 4; k++)
			CHECK_EQ(libvhost_mem_remove(g.mem, k << 20, 16 * PAGE), 0);
		for (uint64_t k = 0; k < 4; k++)
			CHECK_EQ(import(&g, region(again, k << 20, 16 * PAGE, k * 16 * PAGE), k << 30), 0);
		CHECK_EQ(libvhost_mem_commit(g.mem, 0, NULL), 0);
		close(again);
		if (!i) {
			before = lv_ledger_take();
			hva = at(&g, 3 << 20);
		}
		CHECK(at(&g, 3 << 20) == hva); /* never remapped */
	}
	CHECK_LEDGER(before);
	CHECK(lv_ledger_take().maps <= before.maps + 2); /* an allocator may have grown; a leak would be thousands */
	close(fd);
	guest_free(&g);
}

TEST(memory, R072_one_file_in_all_slots)
{
	int fd = memfd(512 * PAGE, 0);
	struct guest g = guest_new(0);

	CHECK_EQ(libvhost_mem_begin(g.mem), 0);
	for (uint64_t i = 0; i < 512; i++) /* offsets fall while gpas rise */
		CHECK_EQ(import(&g, region(fd, i << 20, PAGE, (511 - i) * PAGE), i << 30), 0);
	CHECK_EQ(import(&g, region(fd, 1ull << 40, PAGE, 0), 1ull << 50), -ENOSPC);
	CHECK_EQ(libvhost_mem_alloc(g.mem, 1ull << 40, PAGE), -ENOSPC);
	CHECK_EQ(libvhost_has_free_slot(g.mem), 0);
	CHECK_EQ(libvhost_mem_commit(g.mem, 0, NULL), 0);
	for (uint64_t i = 0; i < 512; i++)
		*(uint16_t *)at(&g, i << 20) = (uint16_t)(i + 1);
	for (uint64_t i = 0; i < 512; i++) {
		uint16_t got;

		CHECK_EQ(pread(fd, &got, 2, (off_t)((511 - i) * PAGE)), 2);
		CHECK_EQ(got, i + 1);
	}
	close(fd);
	guest_free(&g);
}

TEST(memory, flags_and_modes_are_checked)
{
	int fd = memfd(PAGE, 0), ro;
	struct guest g = guest_new(0);
	struct libvhost_region r = region(fd, 0, PAGE, 0);
	char path[64];

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	ro = open(path, O_RDONLY | O_CLOEXEC);
	CHECK(ro >= 0);
	CHECK_EQ(libvhost_mem_begin(g.mem), 0);
	r.flags |= 0x80;
	CHECK_EQ(try_add(&g, r), -EINVAL);
	r = (struct libvhost_region){.gpa = 0, .size = PAGE}; /* zero-filled: never descriptor 0 */
	CHECK_EQ(try_add(&g, r), -EINVAL);
	r.user_addr = 0x10000;
	CHECK_EQ(lv_mem_import(g.mem, &r), -EINVAL); /* an import always has a file */
	r = region(ro, 0, PAGE, 0);
	CHECK_EQ(try_add(&g, r), -EPERM);
	r.flags |= LIBVHOST_REGION_READONLY;
	CHECK_EQ(try_add(&g, r), 0);
	close(ro);
	close(fd);
	guest_free(&g);
}
