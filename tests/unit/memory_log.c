/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* The dirty log without devices: bits, growth, import, sync and ranges against a model, markers and a scanner. */
#include "memhelp.h"

#include <pthread.h>
#include <sys/socket.h>

#define MIB 0x100000ull

static bool marked(struct lv_log *log, uint64_t page)
{
	return atomic_load(&log->bits)[page / 8] >> page % 8 & 1;
}

static uint64_t marks(struct lv_log *log)
{
	uint64_t n = 0;

	for (uint64_t i = 0; i < atomic_load(&log->bytes); i++)
		n += (uint64_t)__builtin_popcount(atomic_load(&log->bits)[i]);
	return n;
}

TEST(memory_log, sizes_are_whole_pages_of_the_log)
{
	CHECK_EQ(lv_log_bytes(0), 4096);
	CHECK_EQ(lv_log_bytes(1), 4096);
	CHECK_EQ(lv_log_bytes(128 * MIB), 4096);
	CHECK_EQ(lv_log_bytes(128 * MIB + 1), 8192);
	CHECK_EQ(lv_log_bytes(1ull << 38), 8 * MIB);
	CHECK_EQ(lv_log_bytes(UINT64_MAX), 1ull << 49);
}

TEST(memory_log, marks_every_page_that_a_range_touches)
{
	static const struct {
		uint64_t gpa, len, first, count;
	} t[] = {{0, 1, 0, 1},
		 {4095, 1, 0, 1},
		 {4095, 2, 0, 2},
		 {7 * 4096, 4096, 7, 1},
		 {7 * 4096, 4097, 7, 2},
		 {8 * 4096, 8 * 4096, 8, 8},
		 {5 * 4096 + 17, 30 * 4096, 5, 31},
		 {0, 128 * MIB, 0, 32768},
		 {128 * MIB - 1, 1, 32767, 1},
		 {12345, 0, 0, 0}};
	struct lv_ledger before = lv_ledger_take();

	for (size_t i = 0; i < sizeof(t) / sizeof(t[0]); i++) {
		struct lv_log *log;

		CHECK_EQ(lv_log_new(128 * MIB, &log), 0);
		lv_log_mark(log, t[i].gpa, t[i].len);
		CHECK_EQ(marks(log), t[i].count);
		for (uint64_t p = 0; p < t[i].count; p++)
			CHECK(marked(log, t[i].first + p));
		CHECK_EQ(log->outside, 0);
		lv_log_put(log);
	}
	CHECK_LEDGER(before);
}

/* The front-end's log is smaller than its memory: what does not fit is dropped and counted, and nothing behind it. */
TEST(memory_log, r112_marks_beyond_the_end_are_dropped_and_counted)
{
	int fd = memfd(8192, 0);
	uint8_t *file = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	struct lv_log *log;

	CHECK_EQ(lv_log_import(fd, 4000, 100, &log), 0); /* 800 pages, in the middle of the file */
	lv_log_mark(log, 800 * PAGE, 1);
	CHECK_EQ(log->outside, 1);
	lv_log_mark(log, UINT64_MAX - 10, 11);
	lv_log_mark(log, UINT64_MAX, UINT64_MAX); /* wraps */
	CHECK_EQ(log->outside, 3);
	CHECK_EQ(marks(log), 0);
	lv_log_mark(log, 799 * PAGE, UINT64_MAX);
	CHECK_EQ(log->outside, 4);
	CHECK_EQ(file[4099], 0x80);
	lv_log_mark(log, 0, UINT64_MAX);
	CHECK_EQ(marks(log), 800);
	CHECK_EQ(file[3999], 0);
	CHECK_EQ(file[4000], 0xff);
	CHECK_EQ(file[4100], 0);
	CHECK(lv_log_covers(log, 0, 800 * PAGE));
	CHECK(!lv_log_covers(log, 0, 800 * PAGE + 1));
	CHECK(!lv_log_covers(log, UINT64_MAX, 2));
	lv_log_put(log);
	munmap(file, 8192);
	close(fd);
}

TEST(memory_log, r113_files_that_cannot_hold_still_are_refused)
{
	struct lv_ledger before = lv_ledger_take();
	int fd = memfd(8192, 0), wr = memfd(8192, F_SEAL_SEAL), pipes[2], ro;
	char path[64];
	int file = disk_file(8192);
	int huge = memfd_create("huge", MFD_CLOEXEC | MFD_HUGETLB | MFD_ALLOW_SEALING);
	struct lv_log *log = NULL;

	CHECK_EQ(pipe(pipes), 0);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	ro = open(path, O_RDONLY | O_CLOEXEC);
	CHECK_EQ(lv_log_import(pipes[0], 0, 4096, &log), -EINVAL);
	CHECK_EQ(lv_log_import(-1, 0, 4096, &log), -EINVAL);
	CHECK_EQ(lv_log_import(fd, 0, 0, &log), -EINVAL);
	CHECK_EQ(lv_log_import(fd, 0, 8193, &log), -EOVERFLOW);
	CHECK_EQ(lv_log_import(fd, 4096, 4097, &log), -EOVERFLOW);
	CHECK_EQ(lv_log_import(fd, UINT64_MAX, 2, &log), -EOVERFLOW);
	CHECK_EQ(lv_log_import(ro, 0, 4096, &log), -EPERM);
	CHECK_EQ(lv_log_import(wr, 0, 4096, &log), -EPERM);    /* sealed against seals, and can shrink */
	CHECK_EQ(lv_log_import(file, 0, 4096, &log), -EINVAL); /* on a disk, which may keep a worker waiting */
	/* a hole takes a page away that is not sure to come back */
	CHECK(huge < 0 || ftruncate(huge, 1 << 30) < 0 || lv_log_import(huge, 0, 4096, &log) == -EINVAL);
	CHECK(!log);
	CHECK_EQ(lv_log_import(fd, 0, 8192, &log), 0);
	CHECK_EQ(ftruncate(fd, 0), -1); /* no SIGBUS while we log */
	lv_log_mark(log, 0, UINT64_MAX);
	CHECK_EQ(marks(log), 8192 * 8);
	lv_log_put(log);
	if (huge >= 0)
		close(huge);
	close(ro);
	close(wr);
	close(fd);
	close(file);
	close(pipes[0]);
	close(pipes[1]);
	CHECK_LEDGER(before);
}

TEST(memory_log, grows_in_place_and_keeps_its_bits)
{
	struct lv_ledger before = lv_ledger_take();
	struct lv_log *log;
	uint8_t *bits;

	CHECK_EQ(lv_log_new(MIB, &log), 0);
	CHECK_EQ(fcntl(log->fd, F_GET_SEALS), F_SEAL_SHRINK | F_SEAL_SEAL);
	bits = atomic_load(&log->bits);
	lv_log_mark(log, 5 * PAGE, 1);
	CHECK_EQ(lv_log_grow(log, 1ull << 40), 0);
	CHECK(atomic_load(&log->bits) == bits); /* not moved */
	CHECK_EQ(atomic_load(&log->bytes), 1ull << 25);
	lv_log_mark(log, (1ull << 40) - 1, 1);
	CHECK_EQ(lv_log_grow(log, MIB), 0);
	CHECK_EQ(atomic_load(&log->bytes), 1ull << 25); /* never smaller */
	if (sizeof(void *) > 4) {
		CHECK_EQ(lv_log_grow(log, 1ull << 46), 0);
		CHECK(atomic_load(&log->bits) != bits); /* a second, larger mapping … */
		CHECK(marked(log, 5) && marked(log, (1ull << 28) - 1));
		bits[1] = 1; /* … of the same file: late marks in the first one count */
		CHECK(marked(log, 8));
	}
	CHECK_EQ(ftruncate(log->fd, 4096), -1);
	CHECK_EQ(lv_log_grow(log, UINT64_MAX), -ENOMEM);
	lv_log_put(log);
	CHECK_LEDGER(before);
}

/* ---- sync and ranges ---- */

#define MODEL_PAGES 4096u
#define AT	    0x4000000ull /* of the one region of the guest */

static struct guest logging(void)
{
	struct guest g = guest_new(0);

	CHECK_EQ(libvhost_mem_begin(g.mem), 0);
	CHECK_EQ(libvhost_mem_alloc(g.mem, AT, MODEL_PAGES * PAGE), 0);
	CHECK_EQ(libvhost_mem_commit(g.mem, 0, NULL), 0);
	CHECK_EQ(libvhost_mem_log_start(g.mem, 0, NULL), 0);
	return g;
}

static uint32_t next_random(uint32_t *state)
{
	*state = *state * 1664525 + 1013904223;
	return *state >> 8;
}

static void mark_some(struct guest *g, bool *model, uint32_t *state)
{
	for (uint32_t n = next_random(state) % 200; n; n--) {
		uint32_t page = next_random(state) % MODEL_PAGES, len = 1 + next_random(state) % 70;

		len = len < MODEL_PAGES - page ? len : MODEL_PAGES - page;
		CHECK_EQ(libvhost_mem_log_mark(g->mem, AT + page * PAGE, len * PAGE), 0);
		for (uint32_t i = 0; i < len; i++)
			model[page + i] = true;
	}
}

TEST(memory_log, sync_of_any_window_takes_exactly_its_pages)
{
	static bool model[MODEL_PAGES];
	struct guest g = logging();
	uint32_t state = 7;

	memset(model, 0, sizeof(model));
	for (int round = 0; round < 2000; round++) {
		uint32_t first = next_random(&state) % MODEL_PAGES, count = next_random(&state) % 300;
		uint64_t got[6] = {0}, pages = 99, expect = 0;

		mark_some(&g, model, &state);
		count = count < MODEL_PAGES - first ? count : MODEL_PAGES - first;
		got[(count + 63) / 64] = 0x5555; /* not ours */
		CHECK_EQ(libvhost_mem_log_sync(g.mem, AT + first * PAGE, count * PAGE, got, &pages), 0);
		CHECK_EQ(got[(count + 63) / 64], 0x5555);
		for (uint32_t i = 0; i < count; i++) {
			CHECK_EQ(got[i / 64] >> i % 64 & 1, model[first + i]);
			expect += model[first + i];
			model[first + i] = false;
		}
		CHECK_EQ(pages, expect);
	}
	guest_free(&g);
}

TEST(memory_log, ranges_of_any_room_take_everything_once)
{
	static bool model[MODEL_PAGES];
	struct guest g = logging();
	uint32_t state = 3;

	memset(model, 0, sizeof(model));
	for (int round = 0; round < 300; round++) {
		struct libvhost_dirty_range r[64];
		uint64_t cursor = 0, last = 0;
		uint32_t room = 1 + next_random(&state) % 64, count;

		mark_some(&g, model, &state);
		for (;;) {
			count = room;
			CHECK_EQ(libvhost_mem_log_ranges(g.mem, &cursor, r, &count), 0);
			if (!count)
				break;
			for (uint32_t i = 0; i < count; i++) {
				CHECK(r[i].gpa >= AT && r[i].size && !((r[i].gpa | r[i].size) % PAGE));
				CHECK(i ? r[i].gpa > last : r[i].gpa >= last); /* ascending; joined within a call */
				last = r[i].gpa + r[i].size;
				for (uint64_t p = r[i].gpa; p < last; p += PAGE) {
					CHECK(model[(p - AT) / PAGE]);
					model[(p - AT) / PAGE] = false;
				}
			}
		}
		for (uint32_t i = 0; i < MODEL_PAGES; i++)
			CHECK(!model[i]);
	}
	guest_free(&g);
}

TEST(memory_log, arguments)
{
	struct guest g = guest_new(0);
	struct libvhost_dirty_range r;
	uint64_t bits[4] = {0}, cursor = 0, pages = 7;
	uint32_t count = 1, lost = 7;

	CHECK_EQ(libvhost_mem_log_sync(g.mem, 0, PAGE, bits, NULL), -EINVAL);
	CHECK_HAS(last_error(&g).text, "libvhost_mem_log_start");
	CHECK_EQ(libvhost_mem_log_ranges(g.mem, &cursor, &r, &count), -EINVAL);
	CHECK_EQ(libvhost_mem_log_mark(g.mem, 0, PAGE), 0); /* no log: no effect */
	CHECK_EQ(libvhost_mem_log_stop(g.mem, 0, &lost), -EALREADY);
	CHECK_EQ(libvhost_mem_log_start(g.mem, 3600001, &lost), -EINVAL);
	CHECK_EQ(lost, 7);
	CHECK_EQ(libvhost_mem_log_start(g.mem, 0, &lost), 0); /* an empty map */
	CHECK_EQ(lost, 0);
	CHECK_EQ(libvhost_mem_log_start(g.mem, 0, &lost), -EALREADY);
	CHECK_EQ(libvhost_mem_log_sync(g.mem, 1, PAGE, bits, &pages), -EINVAL);
	CHECK_EQ(libvhost_mem_log_sync(g.mem, 0, 1, bits, &pages), -EINVAL);
	CHECK_EQ(libvhost_mem_log_sync(g.mem, 0, PAGE, NULL, &pages), -EINVAL);
	CHECK_EQ(libvhost_mem_log_sync(g.mem, UINT64_MAX - 4095, 2 * PAGE, bits, &pages), -EINVAL);
	CHECK_EQ(pages, 7);
	CHECK_EQ(libvhost_mem_log_sync(g.mem, 0, 0, bits, &pages), 0);
	CHECK_EQ(libvhost_mem_log_sync(g.mem, 1ull << 50, 256 * PAGE, bits, &pages), 0); /* beyond the log: clean */
	CHECK_EQ(pages, 0);
	count = 0;
	CHECK_EQ(libvhost_mem_log_ranges(g.mem, &cursor, &r, &count), -EINVAL);
	CHECK_EQ(libvhost_mem_log_start(NULL, 0, NULL), -EINVAL);
	CHECK_EQ(libvhost_mem_log_stop(NULL, 0, NULL), -EINVAL);
	CHECK_EQ(libvhost_mem_log_sync(NULL, 0, 0, bits, NULL), -EINVAL);
	CHECK_EQ(libvhost_mem_log_ranges(NULL, &cursor, &r, &count), -EINVAL);
	CHECK_EQ(libvhost_mem_log_mark(NULL, 0, 1), -EINVAL);
	guest_free(&g);
}

/* A commit makes room first; a log that is started again is empty. */
TEST(memory_log, follows_the_map)
{
	struct lv_ledger before = lv_ledger_take();
	struct guest g = logging();
	uint64_t high = 1ull << 36, bit = 0, pages = 0;
	struct lv_log *log = lv_mem_log(g.mem);

	CHECK_EQ(libvhost_mem_log_mark(g.mem, AT, 1), 0);
	CHECK_EQ(libvhost_mem_log_mark(g.mem, high, 1), 0);
	CHECK_EQ(log->outside, 1);
	CHECK_EQ(libvhost_mem_begin(g.mem), 0);
	CHECK_EQ(libvhost_mem_alloc(g.mem, high, PAGE), 0);
	CHECK_EQ(libvhost_mem_commit(g.mem, 0, NULL), 0);
	CHECK_EQ(libvhost_mem_log_mark(g.mem, high, 1), 0);
	CHECK_EQ(libvhost_mem_log_sync(g.mem, high, PAGE, &bit, &pages), 0);
	CHECK_EQ(bit, 1);
	CHECK_EQ(libvhost_mem_log_stop(g.mem, 0, NULL), 0);
	CHECK_EQ(libvhost_mem_log_start(g.mem, 0, NULL), 0);
	CHECK_EQ(libvhost_mem_log_sync(g.mem, AT, PAGE, &bit, &pages), 0);
	CHECK_EQ(pages, 0);
	lv_log_put(log);
	guest_free(&g);
	CHECK_LEDGER(before);
}

/* Regions that end within a page: its bit is in the log, and in both regions' share when two lie in it. */
TEST(memory_log, regions_share_a_page)
{
	const uint64_t border = AT + 128 * MIB - 0x400;
	struct guest g = guest_new(0);
	int fd = memfd(PAGE, 0);
	const struct libvhost_region one = region(fd, border - 0xc00, 0xc00, 0), two = region(fd, border, 0x401, 0);
	struct libvhost_dirty_range r[2];
	uint64_t cursor = 0;
	uint32_t count = 2;

	CHECK_EQ(libvhost_mem_begin(g.mem), 0);
	CHECK_EQ(libvhost_mem_add(g.mem, &one), 0);
	CHECK_EQ(libvhost_mem_add(g.mem, &two), 0);
	CHECK_EQ(libvhost_mem_commit(g.mem, 0, NULL), 0);
	CHECK_EQ(libvhost_mem_log_start(g.mem, 0, NULL), 0);
	CHECK_EQ(libvhost_mem_log_mark(g.mem, border - 1, 2), 0);
	CHECK_EQ(libvhost_mem_log_mark(g.mem, border + 0x400, 1), 0); /* the last byte, in a page of its own */
	CHECK_EQ(libvhost_mem_log_ranges(g.mem, &cursor, r, &count), 0);
	CHECK_EQ(count, 1);
	CHECK_EQ(r[0].gpa, border - 0xc00);
	CHECK_EQ(r[0].size, 2 * PAGE);
	CHECK_EQ(libvhost_mem_log_ranges(g.mem, &cursor, r, &count), 0);
	CHECK_EQ(count, 0);
	guest_free(&g);
	close(fd);
}

/* ---- markers against a scanner ---- */

#define MARKERS 3
#define MARKS	60000u

struct marker {
	struct guest *g;
	uint32_t number;
	_Atomic uint32_t *page; /* "guest memory": a number per page, as last written */
};

/* Writes, then marks; pages of all markers lie in the same words of the log. */
static void *mark_all(void *arg)
{
	struct marker *m = arg;

	for (uint32_t i = 1; i <= MARKS; i++) {
		uint32_t page = (i * 7 % (MODEL_PAGES / MARKERS)) * MARKERS + m->number;

		atomic_store_explicit(&m->page[page], i, memory_order_relaxed);
		CHECK_EQ(libvhost_mem_log_mark(m->g->mem, AT + page * PAGE, 1), 0);
	}
	return NULL;
}

TEST(memory_log, no_write_is_missed_between_markers_and_a_scanner)
{
	static _Atomic uint32_t now[MODEL_PAGES];
	static uint32_t copy[MODEL_PAGES];
	struct guest g = logging();
	struct marker m[MARKERS];
	pthread_t t[MARKERS];
	uint64_t rounds = 0, pages;
	int running = MARKERS;

	memset(now, 0, sizeof(now));
	memset(copy, 0, sizeof(copy));
	for (uint32_t i = 0; i < MARKERS; i++) {
		m[i] = (struct marker){&g, i, now};
		CHECK_EQ(pthread_create(&t[i], NULL, mark_all, &m[i]), 0);
	}
	for (; running >= 0; rounds++) {
		uint64_t bits[MODEL_PAGES / 64] = {0};

		while (running > 0 && pthread_tryjoin_np(t[running - 1], NULL) == 0)
			running--;
		running -= running == 0; /* once more after the last has ended */
		CHECK_EQ(libvhost_mem_log_sync(g.mem, AT, MODEL_PAGES * PAGE, bits, &pages), 0);
		for (uint32_t p = 0; p < MODEL_PAGES; p++)
			if (bits[p / 64] >> p % 64 & 1)
				copy[p] = atomic_load_explicit(&now[p], memory_order_relaxed);
	}
	for (uint32_t p = 0; p < MODEL_PAGES; p++)
		CHECK_EQ(copy[p], atomic_load(&now[p]));
	guest_free(&g);
}

/* Host threads mark while the log comes and goes. */
static void *mark_on(void *arg)
{
	struct guest *g = arg;

	for (uint32_t i = 0; i < 200000; i++)
		CHECK_EQ(libvhost_mem_log_mark(g->mem, AT + i % MODEL_PAGES * PAGE, PAGE), 0);
	return NULL;
}

TEST(memory_log, may_end_while_the_host_marks)
{
	struct lv_ledger before;
	struct guest g = logging();
	pthread_t t;

	CHECK_EQ(pthread_create(&t, NULL, mark_on, &g), 0);
	while (pthread_tryjoin_np(t, NULL)) {
		CHECK_EQ(libvhost_mem_log_stop(g.mem, 0, NULL), 0);
		CHECK_EQ(libvhost_mem_log_start(g.mem, 0, NULL), 0);
	}
	before = lv_ledger_take();
	for (int i = 0; i < 100; i++) {
		CHECK_EQ(libvhost_mem_log_stop(g.mem, 0, NULL), 0);
		CHECK_EQ(libvhost_mem_log_start(g.mem, 0, NULL), 0);
	}
	CHECK_LEDGER(before);
	guest_free(&g);
}
