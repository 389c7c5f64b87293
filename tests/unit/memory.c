/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* Life, transactions, translation. */
#include "memhelp.h"

TEST(memory, constructor_checks_its_arguments)
{
	struct libvhost_mem_opts o = {.size = sizeof(o), .flags = 4};
	struct libvhost_error e = {.size = sizeof(e)};
	struct libvhost_ctx *ctx = NULL;
	struct libvhost_mem *mem = NULL;

	CHECK_EQ(libvhost_ctx_new(NULL, &ctx), 0);
	CHECK_EQ(libvhost_mem_new(NULL, NULL, &mem), -EINVAL);
	CHECK_EQ(libvhost_mem_new(ctx, NULL, NULL), -EINVAL);
	CHECK_EQ(libvhost_mem_new(ctx, &o, &mem), -EINVAL);
	CHECK_EQ(libvhost_ctx_error(ctx, &e), 0);
	CHECK_HAS(e.text, "0x4");
	o.flags = 0;
	o.size = 4;
	CHECK_EQ(libvhost_mem_new(ctx, &o, &mem), -EINVAL);
	CHECK(!mem);
	CHECK_EQ(libvhost_mem_new(ctx, NULL, &mem), 0);
	libvhost_ctx_free(ctx); /* mem keeps it */
	libvhost_mem_free(mem);
	libvhost_mem_free(NULL);
}

TEST(memory, calls_need_the_right_state)
{
	struct guest g = guest_new(0);
	struct libvhost_region r = {0};

	CHECK_EQ(libvhost_mem_add(g.mem, &r), -EINVAL);
	CHECK_HAS(last_error(&g).text, "libvhost_mem_begin");
	CHECK_EQ(libvhost_mem_alloc(g.mem, 0, PAGE), -EINVAL);
	CHECK_EQ(libvhost_mem_remove(g.mem, 0, PAGE), -EINVAL);
	CHECK_EQ(libvhost_mem_abort(g.mem), -EINVAL);
	CHECK_EQ(libvhost_mem_commit(g.mem, 0, NULL), -EINVAL);
	CHECK_EQ(libvhost_mem_begin(g.mem), 0);
	CHECK_EQ(libvhost_mem_begin(g.mem), -EBUSY);
	CHECK_EQ(libvhost_mem_commit(g.mem, LV_TIMEOUT_MAX_MS + 1, NULL), -EINVAL);
	CHECK_EQ(libvhost_mem_add(g.mem, NULL), -EINVAL);
	CHECK_EQ(libvhost_mem_abort(g.mem), 0);
	guest_free(&g);
}

TEST(memory, null_handles_are_refused)
{
	struct libvhost_error e = {.size = sizeof(e)};
	uint32_t n = 0;
	void *hva;

	CHECK_EQ(libvhost_mem_begin(NULL), -EINVAL);
	CHECK_EQ(libvhost_mem_add(NULL, NULL), -EINVAL);
	CHECK_EQ(libvhost_mem_alloc(NULL, 0, 0), -EINVAL);
	CHECK_EQ(libvhost_mem_remove(NULL, 0, 0), -EINVAL);
	CHECK_EQ(libvhost_mem_abort(NULL), -EINVAL);
	CHECK_EQ(libvhost_mem_commit(NULL, 0, NULL), -EINVAL);
	CHECK_EQ(libvhost_mem_regions(NULL, NULL, &n), -EINVAL);
	CHECK_EQ(libvhost_mem_translate(NULL, 0, 0, &hva, NULL), -EINVAL);
	CHECK_EQ(libvhost_mem_error(NULL, &e), -EINVAL);
	CHECK_EQ(libvhost_has_free_slot(NULL), -EINVAL);
}

TEST(memory, alloc_is_sealed_shared_and_high)
{
	struct guest g = guest_new(0);
	struct libvhost_region r[4];
	uint32_t n = 4;

	CHECK_EQ(libvhost_mem_begin(g.mem), 0);
	CHECK_EQ(libvhost_mem_alloc(g.mem, 0x100000, 4 * PAGE), 0);
	CHECK_EQ(libvhost_mem_alloc(g.mem, 0x200000, 123), -EINVAL);
	CHECK_EQ(libvhost_mem_alloc(g.mem, 0x200000, 0), -EINVAL);
	CHECK_EQ(libvhost_mem_alloc(g.mem, 0x101000, PAGE), -EEXIST);
	CHECK_EQ(libvhost_mem_commit(g.mem, 0, NULL), 0);
	CHECK_EQ(libvhost_mem_regions(g.mem, r, &n), 0);
	CHECK_EQ(n, 1);
	CHECK_EQ(r[0].flags, LIBVHOST_REGION_HAS_FD);
	CHECK(r[0].fd >= 3);
	CHECK_EQ(fcntl(r[0].fd, F_GETFD), FD_CLOEXEC);
	CHECK_EQ(fcntl(r[0].fd, F_GET_SEALS), F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL);
	strcpy(at(&g, 0x100010), "hello");
	char text[6] = {0};
	CHECK_EQ(pread(r[0].fd, text, 5, 0x10), 5);
	CHECK_STR(text, "hello");
	guest_free(&g);
}

TEST(memory, regions_come_sorted_and_counted)
{
	struct guest g = guest_new(0);
	struct libvhost_region r[2];
	uint32_t n = 2;

	CHECK_EQ(libvhost_mem_begin(g.mem), 0);
	for (uint64_t i = 5; i > 0; i--)
		CHECK_EQ(libvhost_mem_alloc(g.mem, i << 20, PAGE), 0);
	n = 2;
	CHECK_EQ(libvhost_mem_regions(g.mem, r, &n), 0);
	CHECK_EQ(n, 0); /* not committed */
	CHECK_EQ(libvhost_mem_commit(g.mem, 0, NULL), 0);
	n = 2;
	CHECK_EQ(libvhost_mem_regions(g.mem, r, &n), 0);
	CHECK_EQ(n, 5);
	CHECK_EQ(r[0].gpa, 1 << 20);
	CHECK_EQ(r[1].gpa, 2 << 20);
	CHECK(r[0].user_addr == (uintptr_t)at(&g, 1 << 20));
	CHECK_EQ(libvhost_mem_regions(g.mem, NULL, &n), -EINVAL);
	n = 0;
	CHECK_EQ(libvhost_mem_regions(g.mem, NULL, &n), 0);
	CHECK_EQ(n, 5);
	guest_free(&g);
}

TEST(memory, translate_keeps_region_borders)
{
	struct guest g = guest_new(0);
	void *hva = (void *)1, *base;
	uint64_t run = 7;

	CHECK_EQ(libvhost_mem_begin(g.mem), 0);
	CHECK_EQ(libvhost_mem_alloc(g.mem, 0x10000, PAGE), 0);
	CHECK_EQ(libvhost_mem_alloc(g.mem, 0x11000, PAGE), 0); /* adjacent, another mapping */
	CHECK_EQ(libvhost_mem_commit(g.mem, 0, NULL), 0);
	base = at(&g, 0x10000);
	CHECK_EQ(libvhost_mem_translate(g.mem, 0x10ff0, 16, &hva, NULL), 0);
	CHECK(hva == (char *)base + 0xff0);
	hva = (void *)1;
	CHECK_EQ(libvhost_mem_translate(g.mem, 0x10ff0, 17, &hva, NULL), -EFAULT);
	CHECK_EQ(libvhost_mem_translate(g.mem, 0xffff, 1, &hva, &run), -EFAULT);
	CHECK_EQ(libvhost_mem_translate(g.mem, 0x12000, 1, &hva, &run), -EFAULT);
	CHECK_EQ(libvhost_mem_translate(g.mem, 0x12000, 0, &hva, &run), -EFAULT);
	CHECK_EQ(libvhost_mem_translate(g.mem, 0x10000, 1, NULL, NULL), -EINVAL);
	CHECK(hva == (void *)1);
	CHECK_EQ(run, 7);
	CHECK_EQ(libvhost_mem_translate(g.mem, 0x10ff0, 17, &hva, &run), 0);
	CHECK_EQ(run, 16);
	CHECK_EQ(libvhost_mem_translate(g.mem, 0x10ff0, UINT64_MAX, &hva, &run), 0);
	CHECK_EQ(run, 16);
	CHECK_EQ(libvhost_mem_translate(g.mem, 0x10ff0, 4, &hva, &run), 0);
	CHECK_EQ(run, 4);
	CHECK_EQ(libvhost_mem_translate(g.mem, 0x11000, PAGE, &hva, NULL), 0);
	guest_free(&g);
}

/* A file and its regions may end anywhere; what of the last page lies behind the end belongs to nobody. */
TEST(memory, a_region_may_end_within_a_page)
{
	const uint64_t first = PAGE + 0xc40, end = 0x10000 + first + 0x401;
	struct lv_ledger before = lv_ledger_take();
	struct guest g = guest_new(0);
	int fd = memfd(2 * PAGE + 0x401, 0);
	const struct libvhost_region one = region(fd, 0x10000, first, 0);
	const struct libvhost_region two = region(fd, 0x10000 + first, 0x401, 2 * PAGE);
	uint8_t byte = 0;
	uint64_t run = 0;
	void *hva;

	CHECK_EQ(libvhost_mem_begin(g.mem), 0);
	CHECK_EQ(try_add(&g, region(fd, 0x10000, 2 * PAGE + 0x402, 0)), -EOVERFLOW); /* of which mmap says nothing */
	CHECK_EQ(try_add(&g, region(fd, 0x10000, 1, 2 * PAGE + 0x400)), -EINVAL);
	CHECK_EQ(libvhost_mem_add(g.mem, &one), 0);
	CHECK_EQ(try_add(&g, region(fd, 0x10000 + first - 1, PAGE, 0)), -EEXIST);
	/* the next one begins in the page in which this one ends */
	CHECK_EQ(libvhost_mem_add(g.mem, &two), 0);
	CHECK_EQ(libvhost_mem_commit(g.mem, 0, NULL), 0);
	*(uint8_t *)at(&g, 0x10000 + first - 1) = 1;
	*(uint8_t *)at(&g, end - 1) = 2;
	CHECK_EQ(pread(fd, &byte, 1, (off_t)first - 1), 1);
	CHECK_EQ(byte, 1);
	CHECK_EQ(pread(fd, &byte, 1, 2 * PAGE + 0x400), 1);
	CHECK_EQ(byte, 2);
	CHECK_EQ(libvhost_mem_translate(g.mem, 0x10000, first, &hva, NULL), 0);
	CHECK_EQ(libvhost_mem_translate(g.mem, 0x10000, first + 1, &hva, NULL), -EFAULT);
	CHECK_EQ(libvhost_mem_translate(g.mem, 0x10000, UINT64_MAX, &hva, &run), 0);
	CHECK_EQ(run, first);
	CHECK_EQ(libvhost_mem_translate(g.mem, end - 1, 2, &hva, &run), 0);
	CHECK_EQ(run, 1);
	CHECK(!at(&g, end));
	guest_free(&g);
	close(fd);
	CHECK_LEDGER(before);
	CHECK_EQ(lv_ledger_take().maps, before.maps);
}

TEST(memory, lookups_by_gpa_and_by_user_address)
{
	struct guest g = guest_new(0);
	struct lv_snapshot *snap;
	struct lv_tlb tlb = {.last = 99};
	uint64_t len = 5;
	int fd = memfd(8 * PAGE, 0);

	/* user addresses fall while gpas rise */
	CHECK_EQ(libvhost_mem_begin(g.mem), 0);
	for (uint64_t i = 0; i < 4; i++) {
		struct libvhost_region r = region(fd, i << 20, 2 * PAGE, 2 * i * PAGE);

		r.user_addr = (10 - i) << 30;
		CHECK_EQ(lv_mem_import(g.mem, &r), 0);
	}
	CHECK_EQ(libvhost_mem_commit(g.mem, 0, NULL), 0);
	snap = lv_mem_snapshot(g.mem);
	for (uint64_t i = 0; i < 4; i++) {
		CHECK(lv_find_user(snap, (10 - i) << 30, 2 * PAGE) == &snap->maps[i]);
		CHECK(lv_find_user(snap, ((10 - i) << 30) + PAGE, PAGE + 1) == NULL);
		CHECK(lv_find_user(snap, ((10 - i) << 30) - 1, 1) == NULL);
		CHECK(lv_find_gpa(snap, (i << 20) + PAGE, PAGE) == &snap->maps[i]);
		CHECK(lv_find_gpa(snap, (i << 20) + PAGE, UINT64_MAX) == NULL);
		CHECK(lv_translate(snap, &tlb, (i << 20) + 1, 2 * PAGE - 1) == snap->maps[i].hva + 1);
		CHECK_EQ(tlb.last, i);
		CHECK(lv_translate(snap, &tlb, (i << 20) + 1, 2 * PAGE) == NULL);
		CHECK(lv_translate_some(snap, &tlb, (i << 20) + PAGE, &len) == snap->maps[i].hva + PAGE);
		CHECK_EQ(len, PAGE);
	}
	CHECK(lv_translate_some(snap, &tlb, 0x80000, &len) == NULL);
	CHECK_EQ(len, 0);
	CHECK(lv_find_user(snap, UINT64_MAX, 1) == NULL);
	lv_snapshot_put(snap);
	close(fd);
	guest_free(&g);
}

TEST(memory, abort_and_failed_add_change_nothing)
{
	struct guest g = guest_new(0);
	struct lv_ledger before;
	int fd = memfd(4 * PAGE, 0);

	put(&g, region(fd, 0, PAGE, 0));
	before = lv_ledger_take();
	CHECK_EQ(libvhost_mem_begin(g.mem), 0);
	CHECK_EQ(libvhost_mem_alloc(g.mem, 0x100000, PAGE), 0);
	CHECK_EQ(libvhost_mem_remove(g.mem, 0, PAGE), 0);
	CHECK_EQ(libvhost_mem_remove(g.mem, 0, PAGE), -ENOENT);
	CHECK_EQ(libvhost_mem_remove(g.mem, 0x100000, 2 * PAGE), -ENOENT);
	CHECK(at(&g, 0));
	CHECK_EQ(libvhost_mem_abort(g.mem), 0);
	CHECK(at(&g, 0));
	CHECK(!at(&g, 0x100000));
	CHECK_LEDGER(before);
	CHECK_EQ(lv_ledger_take().maps, before.maps);
	close(fd);
	guest_free(&g);
}

TEST(memory, old_snapshot_keeps_its_mapping)
{
	struct guest g = guest_new(0);
	struct lv_ledger before = lv_ledger_take();
	struct lv_snapshot *old;
	uint64_t generation;

	CHECK_EQ(libvhost_mem_begin(g.mem), 0);
	CHECK_EQ(libvhost_mem_alloc(g.mem, 0, PAGE), 0);
	CHECK_EQ(libvhost_mem_commit(g.mem, 0, NULL), 0);
	old = lv_mem_snapshot(g.mem);
	generation = old->generation;
	CHECK_EQ(libvhost_mem_begin(g.mem), 0);
	CHECK_EQ(libvhost_mem_remove(g.mem, 0, PAGE), 0);
	CHECK_EQ(libvhost_mem_commit(g.mem, 0, NULL), 0);
	CHECK(!at(&g, 0));
	old->maps[0].hva[5] = 5; /* still there */
	lv_snapshot_put(old);
	CHECK_LEDGER(before);
	old = lv_mem_snapshot(g.mem);
	CHECK_EQ(old->generation, generation + 1);
	lv_snapshot_put(old);
	guest_free(&g);
}
