/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* What peers are told: user addresses, differences, merged tables. */
#include "memhelp.h"

static struct lv_map fmap(uint64_t gpa, uint64_t size, uint64_t offset, int fd)
{
	return (struct lv_map){
		.gpa = gpa, .size = size, .mmap_offset = offset, .user_addr = gpa + LV_COOKIE_BASE, .fd = fd};
}

TEST(memory, host_addresses_stay_home_unless_exposed)
{
	struct guest hidden = guest_new(0), open = guest_new(LIBVHOST_MEM_EXPOSE_ADDRESSES);
	struct guest *both[] = {&hidden, &open};

	for (int i = 0; i < 2; i++) {
		static char own[PAGE];
		struct libvhost_region r = {.gpa = 0x100000, .size = PAGE, .user_addr = (uintptr_t)own};
		int fd = memfd(PAGE, 0);
		struct lv_snapshot *snap;

		CHECK_EQ(libvhost_mem_begin(both[i]->mem), 0);
		CHECK_EQ(libvhost_mem_alloc(both[i]->mem, 0, PAGE), 0);
		CHECK_EQ(libvhost_mem_add(both[i]->mem, &r), 0);
		r = region(fd, 0x200000, PAGE, 0);
		r.user_addr = (uintptr_t)own; /* mapped by the caller */
		CHECK_EQ(libvhost_mem_add(both[i]->mem, &r), 0);
		close(fd);
		CHECK_EQ(libvhost_mem_commit(both[i]->mem, 0, NULL), 0);
		CHECK(at(both[i], 0x100010) == own + 0x10);
		CHECK(at(both[i], 0x200010) == own + 0x10);
		snap = lv_mem_snapshot(both[i]->mem);
		CHECK_EQ(snap->maps[1].fd, -1);
		CHECK(snap->maps[2].fd >= 3);
		for (uint32_t k = 0; k < 3; k++)
			CHECK_EQ(snap->maps[k].user_addr,
				 i ? (uintptr_t)snap->maps[k].hva : snap->maps[k].gpa + LV_COOKIE_BASE);
		lv_snapshot_put(snap);
		guest_free(both[i]);
	}
}

TEST(memory, commit_does_not_remap_what_stayed)
{
	struct guest g = guest_new(0);
	int fd = memfd(4 * PAGE, 0), other = memfd(4 * PAGE, 0);
	void *hva;

	put(&g, region(fd, 0, PAGE, PAGE));
	hva = at(&g, 0);
	put(&g, region(fd, 0x100000, PAGE, 2 * PAGE));
	CHECK(at(&g, 0) == hva);
	put(&g, region(fd, 0x200000, PAGE, PAGE)); /* the same bytes at a second address: one mapping */
	CHECK(at(&g, 0x200000) == hva);
	CHECK_EQ(libvhost_mem_begin(g.mem), 0);
	CHECK_EQ(libvhost_mem_remove(g.mem, 0, PAGE), 0);
	CHECK_EQ(libvhost_mem_commit(g.mem, 0, NULL), 0);
	CHECK(at(&g, 0x200000) == hva);
	put(&g, region(other, 0, PAGE, PAGE)); /* same offset, another file */
	CHECK(at(&g, 0) != hva);
	close(fd);
	close(other);
	guest_free(&g);
}

TEST(memory, diff_finds_each_kind_of_change)
{
	struct lv_map a[] = {fmap(0, PAGE, 0, 5),	fmap(0x10000, PAGE, 0, 5), fmap(0x20000, PAGE, 0, 5),
			     fmap(0x30000, PAGE, 0, 5), fmap(0x40000, PAGE, 0, 5), fmap(0x50000, PAGE, 0, 5)};
	struct lv_map b[] = {a[0], a[1], a[2], a[3], a[4], fmap(0x60000, PAGE, 0, 5)};
	struct lv_snapshot *old, *now;
	struct lv_mem_diff d;

	b[1].size = 2 * PAGE;
	b[2].mmap_offset = PAGE;
	b[3].user_addr++;
	b[4].fd = 6;
	old = lv_snapshot_new(a, 6, 1);
	now = lv_snapshot_new(b, 6, 2);
	lv_mem_diff(old, old, &d);
	CHECK_EQ(d.removed + d.added, 0);
	lv_mem_diff(old, now, &d);
	CHECK_EQ(d.removed, 5);
	CHECK_EQ(d.added, 5);
	for (uint32_t i = 0; i < 5; i++) {
		CHECK_EQ(d.removed_at[i], i + 1);
		CHECK_EQ(d.added_at[i], i + 1);
	}
	lv_snapshot_put(old);
	lv_snapshot_put(now);
}

TEST(memory, diff_knows_a_file_by_identity_not_by_number)
{
	struct guest g = guest_new(0), h = guest_new(0);
	int fd = memfd(PAGE, 0), same = dup(fd);
	struct lv_snapshot *a, *b;
	struct lv_mem_diff d;
	struct lv_map m;

	put(&g, region(fd, 0, PAGE, 0));
	put(&h, region(same, 0, PAGE, 0));
	a = lv_mem_snapshot(g.mem);
	b = lv_mem_snapshot(h.mem);
	m = b->maps[0];
	lv_snapshot_put(b);
	m.hva = NULL; /* a map that came from elsewhere */
	b = lv_snapshot_new(&m, 1, 1);
	lv_mem_diff(a, b, &d);
	CHECK_EQ(d.removed + d.added, 0);
	lv_snapshot_put(b);
	m.hva = a->maps[0].hva + PAGE; /* both know it and differ: the kernel must hear of it */
	b = lv_snapshot_new(&m, 1, 1);
	lv_mem_diff(a, b, &d);
	CHECK_EQ(d.removed, 1);
	CHECK_EQ(d.added, 1);
	lv_snapshot_put(b);
	lv_snapshot_put(a);
	close(fd);
	close(same);
	guest_free(&g);
	guest_free(&h);
}

TEST(memory, merge_joins_what_continues)
{
	struct lv_map in[] = {
		fmap(0, PAGE, 0, 5),
		fmap(PAGE, PAGE, PAGE, 5),	   /* continues */
		fmap(2 * PAGE, PAGE, 3 * PAGE, 5), /* gap in the file */
		fmap(3 * PAGE, PAGE, 4 * PAGE, 6), /* another file */
		fmap(5 * PAGE, PAGE, 5 * PAGE, 6), /* gap in gpa */
		fmap(6 * PAGE, PAGE, 6 * PAGE, 6), /* another user address */
		fmap(7 * PAGE, PAGE, 0, -1),	   /* no file */
		fmap(8 * PAGE, PAGE, 0, -1),	   /* no file, contiguous in this process */
		fmap(9 * PAGE, PAGE, 0, -1),	   /* no file, elsewhere */
	};
	struct lv_snapshot *snap;
	struct lv_map out[9];

	for (uint64_t i = 0; i < 9; i++)
		in[i].hva = (uint8_t *)(uintptr_t)(0x100000 + i * PAGE);
	in[1].hva += 0x1000000; /* two mappings of ours: peers do not care */
	in[5].user_addr += PAGE;
	in[6].user_addr = 1ull << 50; /* starts a run of its own */
	in[7].user_addr = in[6].user_addr + PAGE;
	in[8].user_addr = in[6].user_addr + 2 * PAGE;
	in[8].hva += PAGE;
	snap = lv_snapshot_new(in, 9, 1);
	CHECK_EQ(lv_mem_merge(snap, out, 9), 7);
	CHECK_EQ(out[0].size, 2 * PAGE);
	CHECK(out[0].hva == NULL);
	CHECK(out[1].hva == in[2].hva);
	CHECK_EQ(out[5].gpa, 7 * PAGE);
	CHECK_EQ(out[5].size, 2 * PAGE);
	CHECK(out[5].hva == in[6].hva);
	CHECK_EQ(out[6].size, PAGE);
	memset(out, 0, sizeof(out));
	CHECK_EQ(lv_mem_merge(snap, out, 2), 7); /* how many there are */
	CHECK_EQ(out[1].gpa, 2 * PAGE);
	CHECK_EQ(out[2].size, 0);
	CHECK_EQ(lv_mem_merge(snap, NULL, 0), 7);
	lv_snapshot_put(snap);
}
