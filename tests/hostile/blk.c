/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* The block device of vhostctl under a driver that lays its requests out as it likes, or not as it should. */
#include "ringhelp.h"

#include <endian.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/stat.h>
#include <time.h>
#include "devices/blk.h"
#include "workerhelp.h"

#define SECTORS	    64u
#define STORE	    (SECTORS * 512ull) /* a multiple of the page: guard pages begin where it ends */
#define HEADER	    DATA
#define BUFFER	    (DATA + 0x1000)
#define STATUS	    (DATA + 0x8000)
#define UNTOUCHED   0xee
#define NUM	    64u
#define TSAN_IGNORE __attribute__((no_sanitize("thread"))) /* what guests do to each other is a race by nature */

enum { NEXT = LV_DESC_NEXT, WRITE = LV_DESC_WRITE };

struct blkrig {
	struct rig r;
	struct blk dev;
	struct libvhost_worker *w; /* with a file */
	int32_t file;
	uint8_t *store, before[STORE];
	uint32_t descs, head;
};

static void serve_file(struct blkrig *b)
{
	struct libvhost_worker_opts o = {
		.size = sizeof(o), .sandbox = SANDBOX, .role = LIBVHOST_ROLE_BLOCK, .flags = LIBVHOST_WORKER_IO_URING};

	b->file = memfd(STORE, 0);
	b->store = mmap(NULL, STORE, PROT_READ | PROT_WRITE, MAP_SHARED, b->file, 0);
	CHECK(b->store != MAP_FAILED);
	b->dev.device.num_files = o.num_files = 1;
	o.files = &b->file;
	CHECK_EQ(libvhost_worker_new(b->r.g.ctx, &o, &b->w), 0);
}

static void blk_open(struct blkrig *b, bool file)
{
	memset(b, 0, sizeof(*b));
	rig_memory(&b->r, NUM, 0);
	rig_device(&b->r);
	b->dev = (struct blk){.size = STORE, .id = "store", .align = 1};
	CHECK_EQ(blk_make_queues(&b->dev, 1), 0);
	if (file) {
		serve_file(b);
	} else {
		b->store = b->dev.ram = guarded(STORE);
	}
	for (size_t i = 0; i < STORE; i++)
		b->before[i] = b->store[i] = (uint8_t)(i * 7 + i / 512);
}

static void blk_close(struct blkrig *b)
{
	if (b->dev.ram) {
		munmap(b->store - PAGE, STORE + 2 * PAGE);
	} else {
		libvhost_worker_free(b->w);
		munmap(b->store, STORE);
		close(b->file);
	}
	free(b->dev.queues);
	rig_free(&b->r);
}

static struct blk_header *header_put(struct blkrig *b, uint32_t type, uint64_t sector)
{
	struct blk_header *h = at(&b->r.g, HEADER);

	*h = (struct blk_header){.type = htole32(type), .sector = htole64(sector)};
	memset(at(&b->r.g, BUFFER), UNTOUCHED, 0x2000);
	*(uint8_t *)at(&b->r.g, STATUS) = UNTOUCHED;
	b->descs = 0;
	return h;
}

/* One more buffer of the request. */
static void part(struct blkrig *b, uint64_t gpa, uint32_t len, uint32_t flags)
{
	const uint32_t i = b->head + b->descs++;

	CHECK(i < NUM);
	if (b->descs > 1) {
		const struct lv_desc *before = &b->r.ring.desc[i - 1];

		desc(&b->r, i - 1, before->addr, before->len, before->flags | NEXT, i);
	}
	desc(&b->r, i, gpa, len, flags, 0);
}

static int serve_queue_0(void *arg, struct libvhost_vq *vq)
{
	return blk_serve(arg, 0, vq);
}

/* Offers it, lets the device work, returns the length in the used ring. */
static uint32_t run(struct blkrig *b)
{
	const uint16_t used = lv_ring_idx(&b->r.ring, b->r.ring.used);
	struct lv_used_elem e;

	offer(&b->r, b->head);
	if (b->w) {
		CHECK_EQ(libvhost_worker_add_vq(b->w, b->r.dev, -1, serve_queue_0, &b->dev, PATIENCE_MS), 0);
		for (int i = 0; i < PATIENCE_MS * 10 && lv_ring_idx(&b->r.ring, b->r.ring.used) == used; i++)
			usleep(100);
		CHECK_EQ(libvhost_worker_remove_vq(b->w, b->r.dev, PATIENCE_MS), 0);
	} else {
		CHECK_EQ(blk_serve(&b->dev, 0, b->r.dev), 0);
		CHECK(libvhost_vq_flush(b->r.dev) >= 0);
	}
	CHECK_EQ(lv_ring_idx(&b->r.ring, b->r.ring.used), (uint16_t)(used + 1));
	e = lv_used_get(&b->r.ring, used);
	CHECK_EQ(e.id, b->head);
	return e.len;
}

static uint8_t answer(struct blkrig *b)
{
	return *(uint8_t *)at(&b->r.g, STATUS);
}

static void store_is_untouched(struct blkrig *b)
{
	struct stat st;

	CHECK_MEM(b->store, b->before, STORE);
	if (!b->dev.ram) {
		CHECK_EQ(fstat(b->file, &st), 0);
		CHECK_EQ(st.st_size, STORE);
	}
}

static void filled(struct blkrig *b, uint64_t gpa, uint8_t with, uint32_t len)
{
	const uint8_t *p = at(&b->r.g, gpa);

	for (uint32_t i = 0; i < len; i++)
		CHECK_EQ(p[i], with);
}

static void header_in_any_pieces(bool file)
{
	struct blkrig b;

	blk_open(&b, file);
	header_put(&b, BLK_T_IN, 3);
	for (uint32_t i = 0; i < 16; i++)
		part(&b, HEADER + i, 1, 0);
	part(&b, BUFFER, 200, WRITE);
	part(&b, BUFFER + 200, 0, WRITE);
	part(&b, BUFFER + 200, 312, WRITE);
	part(&b, STATUS, 1, WRITE);
	CHECK_EQ(run(&b), 513);
	CHECK_EQ(answer(&b), BLK_S_OK);
	CHECK_MEM(at(&b.r.g, BUFFER), b.before + 3 * 512, 512);
	b.head = 32;
	header_put(&b, BLK_T_OUT, 4); /* header and data in one buffer */
	memset(at(&b.r.g, HEADER + 16), 0x5a, 512);
	part(&b, HEADER, 16 + 512, 0);
	part(&b, STATUS, 1, WRITE);
	CHECK_EQ(run(&b), 1);
	CHECK_EQ(answer(&b), BLK_S_OK);
	for (uint32_t i = 0; i < 512; i++)
		CHECK_EQ(b.store[4 * 512 + i], 0x5a);
	memcpy(b.store + 4 * 512, b.before + 4 * 512, 512);
	b.head = 40;
	header_put(&b, BLK_T_IN, 5); /* data and status in one buffer */
	part(&b, HEADER, 16, 0);
	part(&b, STATUS - 512, 513, WRITE);
	CHECK_EQ(run(&b), 513);
	CHECK_EQ(answer(&b), BLK_S_OK);
	CHECK_MEM(at(&b.r.g, STATUS - 512), b.before + 5 * 512, 512);
	store_is_untouched(&b);
	blk_close(&b);
}

TEST(hostile_blk, r198_header_in_any_pieces_is_served)
{
	header_in_any_pieces(false);
	header_in_any_pieces(true);
}

TEST(hostile_blk, r198_header_cut_short_or_writable_is_an_error_status)
{
	for (uint32_t len = 0; len < 16; len++) {
		struct blkrig b;

		blk_open(&b, false);
		header_put(&b, BLK_T_IN, 0);
		part(&b, HEADER, len, 0);
		part(&b, BUFFER, 512, WRITE);
		part(&b, STATUS, 1, WRITE);
		CHECK_EQ(run(&b), 1);
		CHECK_EQ(answer(&b), BLK_S_IOERR);
		filled(&b, BUFFER, UNTOUCHED, 512);
		b.head = 8;
		header_put(&b, BLK_T_IN, 0);
		part(&b, HEADER, 16, WRITE); /* the header's buffer is the device's to write */
		part(&b, STATUS, 1, WRITE);
		CHECK_EQ(run(&b), 1);
		CHECK_EQ(answer(&b), BLK_S_IOERR);
		store_is_untouched(&b);
		blk_close(&b);
	}
}

TEST(hostile_blk, r198_a_request_without_a_place_for_its_status_does_nothing)
{
	struct blkrig b;

	blk_open(&b, false);
	header_put(&b, BLK_T_OUT, 0);
	part(&b, HEADER, 16, 0);
	part(&b, BUFFER, 512, 0);
	part(&b, STATUS, 1, 0);
	CHECK_EQ(run(&b), 0);
	CHECK_EQ(answer(&b), UNTOUCHED);
	b.head = 8;
	header_put(&b, BLK_T_OUT, 0);
	part(&b, HEADER, 16, 0);
	part(&b, BUFFER, 512, 0);
	part(&b, STATUS, 0, WRITE);
	CHECK_EQ(run(&b), 0);
	store_is_untouched(&b);
	blk_close(&b);
}

/* Neither the store nor the buffer changes, and the file does not grow. */
static void refused(struct blkrig *b, uint32_t type, uint64_t sector, uint32_t len)
{
	header_put(b, type, sector);
	part(b, HEADER, 16, 0);
	part(b, BUFFER, len, type == BLK_T_IN ? WRITE : 0);
	part(b, STATUS, 1, WRITE);
	run(b);
	CHECK_EQ(answer(b), BLK_S_IOERR);
	filled(b, BUFFER, UNTOUCHED, 0x2000);
	store_is_untouched(b);
}

static void ranges(bool file)
{
	static const struct {
		uint64_t sector;
		uint32_t len;
	} bad[] = {{SECTORS, 512},
		   {SECTORS - 1, 1024},
		   {SECTORS - 7, 4096},
		   {1ull << 55, 512}, /* times 512 wraps to 0 */
		   {(1ull << 55) - 1, 1024},
		   {UINT64_MAX, 512},
		   {UINT64_MAX / 512, 4096},
		   {1ull << 63, 512},
		   {0, 1},
		   {0, 511},
		   {0, 513},
		   {1, 1023}};
	struct blkrig b;

	blk_open(&b, file);
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		b.head = 0;
		refused(&b, BLK_T_IN, bad[i].sector, bad[i].len);
		b.head = 8;
		refused(&b, BLK_T_OUT, bad[i].sector, bad[i].len);
	}
	header_put(&b, BLK_T_IN, SECTORS - 1); /* the last one is there */
	part(&b, HEADER, 16, 0);
	part(&b, BUFFER, 512, WRITE);
	part(&b, STATUS, 1, WRITE);
	CHECK_EQ(run(&b), 513);
	CHECK_EQ(answer(&b), BLK_S_OK);
	CHECK_MEM(at(&b.r.g, BUFFER), b.before + (SECTORS - 1) * 512, 512);
	blk_close(&b);
}

TEST(hostile_blk, r217_sectors_that_wrap_or_lie_beyond_the_end)
{
	ranges(false);
	ranges(true);
}

/* One range of a discard or write-zeroes request, of which len bytes are there. */
static uint8_t clear_range(struct blkrig *b, uint32_t type, uint64_t sector, uint32_t sectors, uint32_t flags,
			   uint32_t len)
{
	struct blk_range *range;

	header_put(b, type, 0);
	range = at(&b->r.g, BUFFER);
	*range = (struct blk_range){htole64(sector), htole32(sectors), htole32(flags)};
	part(b, HEADER, 16, 0);
	part(b, BUFFER, len, 0);
	part(b, STATUS, 1, WRITE);
	CHECK_EQ(run(b), 1);
	return answer(b);
}

static void bad_ranges(bool file)
{
	static const uint32_t types[] = {BLK_T_DISCARD, BLK_T_WRITE_ZEROES};
	struct blkrig b;

	blk_open(&b, file);
	for (size_t i = 0; i < 2; i++) {
		const uint32_t t = types[i];

		CHECK_EQ(clear_range(&b, t, 0, 0, 0, 16), BLK_S_IOERR);
		CHECK_EQ(clear_range(&b, t, SECTORS, 1, 0, 16), BLK_S_IOERR);
		CHECK_EQ(clear_range(&b, t, SECTORS - 1, 2, 0, 16), BLK_S_IOERR);
		CHECK_EQ(clear_range(&b, t, 1ull << 55, 1, 0, 16), BLK_S_IOERR);
		CHECK_EQ(clear_range(&b, t, UINT64_MAX, UINT32_MAX, 0, 16), BLK_S_IOERR);
		CHECK_EQ(clear_range(&b, t, 0, UINT32_MAX, 0, 16), BLK_S_IOERR);
		CHECK_EQ(clear_range(&b, t, 0, 1, 0, 15), BLK_S_IOERR);
		CHECK_EQ(clear_range(&b, t, 0, 1, 0, 32), BLK_S_IOERR); /* two, and one is promised */
		CHECK_EQ(clear_range(&b, t, 0, 1, 2, 16), BLK_S_UNSUPP);
	}
	CHECK_EQ(clear_range(&b, BLK_T_DISCARD, 0, 1, BLK_RANGE_UNMAP, 16), BLK_S_UNSUPP);
	b.dev.read_only = true;
	CHECK_EQ(clear_range(&b, BLK_T_WRITE_ZEROES, 0, 1, 0, 16), BLK_S_IOERR);
	refused(&b, BLK_T_OUT, 0, 512);
	b.dev.read_only = false;
	store_is_untouched(&b);
	CHECK_EQ(clear_range(&b, BLK_T_WRITE_ZEROES, 3, 2, BLK_RANGE_UNMAP, 16), BLK_S_OK);
	memset(b.before + 3 * 512, 0, 2 * 512);
	store_is_untouched(&b);
	CHECK_EQ(clear_range(&b, BLK_T_DISCARD, 8, 8, 0, 16), BLK_S_OK);
	if (file)
		memset(b.before + 8 * 512, 0, 8 * 512);
	store_is_untouched(&b);
	blk_close(&b);
}

TEST(hostile_blk, r217_ranges_that_cannot_be_cleared)
{
	bad_ranges(false);
	bad_ranges(true);
}

TEST(hostile_blk, r217_types_that_do_not_exist)
{
	static const uint32_t types[] = {2, 3, 9, 12, 0x80000000, UINT32_MAX};
	struct blkrig b;

	blk_open(&b, false);
	for (size_t i = 0; i < sizeof(types) / sizeof(types[0]); i++) {
		header_put(&b, types[i], 0);
		part(&b, HEADER, 16, 0);
		part(&b, BUFFER, 512, WRITE);
		part(&b, STATUS, 1, WRITE);
		CHECK_EQ(run(&b), 1);
		CHECK_EQ(answer(&b), BLK_S_UNSUPP);
		filled(&b, BUFFER, UNTOUCHED, 512);
	}
	store_is_untouched(&b);
	blk_close(&b);
}

/* The used length never says more than the guest gave room for, however little it gave. */
TEST(hostile_blk, r219_used_length_fits_the_writable_room)
{
	struct blkrig b;

	blk_open(&b, false);
	for (uint32_t room = 1; room <= 24; room++) {
		header_put(&b, BLK_T_GET_ID, 0);
		part(&b, HEADER, 16, 0);
		part(&b, STATUS + 1 - room, room, WRITE);
		CHECK_EQ(run(&b), room < 21 ? room : 21);
		CHECK_EQ(answer(&b), BLK_S_OK);
		CHECK_MEM(at(&b.r.g, STATUS + 1 - room), b.dev.id, room - 1 < 20 ? room - 1 : 20);
	}
	blk_close(&b);
}

struct flipper {
	volatile uint32_t *type;
	volatile uint64_t *sector;
	atomic_bool stop;
};

/* Sector 0 and sectors that, checked as 0 and used as they are, would leave the store. */
static TSAN_IGNORE void *flip(void *arg)
{
	static const uint64_t sectors[] = {0, SECTORS, 0, UINT64_MAX / 512 - 8, 1, 1ull << 40, 2, SECTORS - 1};
	struct flipper *f = arg;

	for (uint32_t i = 0; !atomic_load_explicit(&f->stop, memory_order_relaxed); i++) {
		*f->sector = htole64(sectors[i % 8]);
		*f->type = htole32(i / 8 % 3 ? BLK_T_OUT : BLK_T_IN);
	}
	return NULL;
}

TEST(hostile_blk, r206_header_rewritten_while_it_is_read)
{
	const time_t give_up = time(NULL) + PATIENCE_MS / 1000;
	uint32_t outcomes[3] = {0}, rounds = 0;
	struct flipper f = {0};
	struct blk_header *h;
	pthread_t thread;
	struct blkrig b;

	blk_open(&b, false);
	h = header_put(&b, BLK_T_OUT, 0);
	f.type = &h->type;
	f.sector = &h->sector;
	part(&b, HEADER, 16, 0);
	part(&b, BUFFER, 1024, 0);
	part(&b, BUFFER + 0x1000, 1024, WRITE);
	part(&b, STATUS, 1, WRITE);
	CHECK_EQ(pthread_create(&thread, NULL, flip, &f), 0);
	for (; rounds < 20000 || ((!outcomes[BLK_S_OK] || !outcomes[BLK_S_IOERR]) && time(NULL) < give_up); rounds++) {
		run(&b); /* the guard pages around the store stay whole */
		CHECK(answer(&b) <= BLK_S_UNSUPP);
		outcomes[answer(&b)]++;
	}
	atomic_store(&f.stop, true);
	CHECK_EQ(pthread_join(thread, NULL), 0);
	CHECK(outcomes[BLK_S_OK] && outcomes[BLK_S_IOERR]);
	CHECK_EQ(outcomes[BLK_S_UNSUPP], 0); /* half a type would be a torn read */
	for (uint32_t i = 0; i < 4 * 512; i++)
		CHECK(b.store[i] == UNTOUCHED || b.store[i] == b.before[i]);
	CHECK_MEM(b.store + 4 * 512, b.before + 4 * 512, STORE - 4 * 512);
	blk_close(&b);
}
