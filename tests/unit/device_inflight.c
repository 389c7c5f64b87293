/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* The inflight region of a device: got, kept, handed over, given by the caller, saved, loaded, emptied. */
#include "devrig.h"

#include <stddef.h>
#include "core/wire.h"
#include "device/device.h"
#include "device/inflight.h"
#include "sigbushelp.h"

#define OP(name)      LIBVHOST_OP_##name
#define PF(bit)	      (1ull << LIBVHOST_PROTOCOL_F_##bit)
#define PACKED_RING   (1ull << 34)
#define DEVICE_QUEUES DEVRIG_QUEUES
#define QUEUE_BYTES   lv_inflight_queue_bytes(DEVRIG_NUM, 0)
#define PACKED_BYTES  lv_inflight_queue_bytes(DEVRIG_NUM, 1)

static void rig_init(struct devrig *r, uint32_t flags)
{
	devrig_init(r);
	r->f.slow = true;
	r->f.features |= PACKED_RING;
	r->f.protocol |= PF(INFLIGHT_SHMFD) | PF(GET_VRING_BASE_INFLIGHT);
	r->f.region = DEVICE_QUEUES * QUEUE_BYTES;
	r->opts.flags = LIBVHOST_DEV_INFLIGHT | flags;
	CHECK_EQ(devrig_open(r), 0);
}

static void rig_packed(struct devrig *r)
{
	uint64_t features = 1ull << 32 | PACKED_RING;

	rig_init(r, 0);
	r->f.region = DEVICE_QUEUES * PACKED_BYTES;
	CHECK_EQ(libvhost_ack_features_ex(r->dev, &features, 1), 0);
	for (uint32_t i = 0; i < DEVICE_QUEUES; i++) {
		struct libvhost_queue q = devrig_queue(i);

		q.base = 0x80008000;
		CHECK_EQ(libvhost_dev_set_queue(r->dev, i, &q), 0);
	}
}

static void rig_ready(struct devrig *r, uint32_t flags)
{
	rig_init(r, flags);
	devrig_queues(r, DEVICE_QUEUES);
}

static struct libvhost_inflight region_of(struct devrig *r)
{
	struct libvhost_inflight i = {.size = sizeof(i)};

	CHECK_EQ(libvhost_dev_get_inflight(r->dev, &i), 0);
	return i;
}

static uint32_t guarantee(struct devrig *r)
{
	struct libvhost_dev_info info = {.size = sizeof(info)};

	CHECK_EQ(libvhost_dev_info(r->dev, &info), 0);
	return info.guarantee;
}

static void put_bytes(struct devrig *r, uint64_t at, const void *bytes, size_t len)
{
	CHECK_EQ(pwrite(r->f.inflight_fd, bytes, len, (off_t)at), len);
}

/* As a back-end that runs queue and works on its entry. */
static void mark(struct devrig *r, uint32_t queue, uint32_t entry, uint64_t counter)
{
	const struct lv_inflight_split head = {.version = 1, .desc_num = DEVRIG_NUM};
	const struct lv_inflight_split_desc desc = {.inflight = 1, .counter = counter};

	put_bytes(r, queue * QUEUE_BYTES, &head, sizeof(head));
	put_bytes(r, queue * QUEUE_BYTES + sizeof(head) + entry * sizeof(desc), &desc, sizeof(desc));
}

static bool marked(struct devrig *r, uint32_t queue, uint32_t entry)
{
	const struct libvhost_inflight i = region_of(r);
	const uint8_t *at = (const uint8_t *)(uintptr_t)i.address;

	return at[queue * QUEUE_BYTES + sizeof(struct lv_inflight_split) +
		  entry * sizeof(struct lv_inflight_split_desc)];
}

static void lose_peer(struct devrig *r)
{
	r->f.dead = true;
	CHECK_EQ(libvhost_dev_dispatch(r->dev, 0), 0);
}

TEST(device_inflight, one_region_for_the_life_of_the_rings)
{
	struct libvhost_inflight first;
	struct libvhost_event e;
	struct devrig r;

	rig_ready(&r, 0);
	CHECK_EQ(guarantee(&r), LIBVHOST_GUARANTEE_NONE); /* there is no region yet */
	CHECK_EQ(libvhost_dev_start(r.dev, NULL), 0);
	CHECK_EQ(guarantee(&r), LIBVHOST_GUARANTEE_INFLIGHT);
	CHECK_EQ(r.f.inflight.num_queues, DEVICE_QUEUES);
	CHECK_EQ(r.f.inflight.queue_size, DEVRIG_NUM);
	CHECK_EQ(r.f.inflight.mmap_size, r.f.region);
	first = region_of(&r);
	CHECK_EQ(first.num_queues, DEVICE_QUEUES);
	CHECK_EQ(first.queue_size, DEVRIG_NUM);
	CHECK_EQ(first.mmap_size, r.f.region);
	mark(&r, 2, 5, 1);
	CHECK(marked(&r, 2, 5));
	CHECK_EQ(libvhost_dev_stop(r.dev, NULL), 0);
	CHECK_EQ(libvhost_dev_start(r.dev, NULL), 0);
	lose_peer(&r);
	fake_arm(&r.f);
	CHECK_EQ(libvhost_dev_reconnect(r.dev, NULL), 0);
	CHECK_EQ(devrig_events(&r, LIBVHOST_EVENT_RECONNECTED, &e), 1);
	CHECK_EQ(e.value[0], LIBVHOST_GUARANTEE_INFLIGHT);
	CHECK_HAS(e.text, "inflight");
	CHECK_EQ(fake_count(&r.f, OP(GET_INFLIGHT_FD)), 0);
	CHECK_EQ(fake_count(&r.f, OP(SET_INFLIGHT_FD)), 1);
	CHECK(fake_first(&r.f, OP(SET_INFLIGHT_FD)) > fake_first(&r.f, OP(SET_VRING_NUM)) + DEVICE_QUEUES - 1);
	CHECK(fake_first(&r.f, OP(SET_INFLIGHT_FD)) < fake_first(&r.f, OP(SET_VRING_BASE)));
	CHECK(marked(&r, 2, 5)); /* the same file, with what stood in it */
	CHECK_EQ(region_of(&r).address, first.address);
	CHECK_EQ(libvhost_dev_reset(r.dev, NULL), 0);
	CHECK_EQ(libvhost_dev_get_inflight(r.dev, &first), -ENOENT);
	CHECK_EQ(guarantee(&r), LIBVHOST_GUARANTEE_NONE);
	devrig_close(&r);
}

TEST(device_inflight, without_the_flag_nothing_is_asked)
{
	struct devrig r;
	struct libvhost_inflight i = {.size = sizeof(i)};
	size_t len = 0;

	devrig_init(&r);
	r.f.protocol |= PF(INFLIGHT_SHMFD);
	CHECK_EQ(devrig_open(&r), 0);
	devrig_queues(&r, 1);
	CHECK_EQ(libvhost_dev_prepare_inflight(r.dev, 0), -ENOTSUP);
	CHECK_HAS(devrig_error(&r).text, "LIBVHOST_DEV_INFLIGHT");
	i.num_queues = i.queue_size = 1;
	CHECK_EQ(libvhost_dev_set_inflight(r.dev, &i), -ENOTSUP);
	CHECK_EQ(libvhost_dev_load_inflight(r.dev, "", 0), -ENOTSUP);
	CHECK_EQ(libvhost_dev_save_inflight(r.dev, NULL, &len), -ENOENT);
	CHECK_EQ(libvhost_dev_reset_inflight(r.dev), -ENOENT);
	CHECK_EQ(libvhost_dev_free_inflight(r.dev), -ENOENT);
	CHECK_EQ(libvhost_dev_start(r.dev, NULL), 0);
	CHECK_EQ(fake_count(&r.f, OP(GET_INFLIGHT_FD)), 0);
	devrig_close(&r);
}

TEST(device_inflight, options_that_need_each_other)
{
	struct devrig r;

	devrig_init(&r);
	r.opts.flags = LIBVHOST_DEV_STOP_INFLIGHT;
	CHECK_EQ(devrig_open(&r), -EINVAL);
	guest_free(&r.g);
	CHECK_LEDGER(r.before);
}

TEST(device_inflight, a_region_belongs_to_one_back_end)
{
	struct fake second;
	struct libvhost_transport *t;
	struct devrig r;

	rig_init(&r, 0);
	fake_init(&second);
	t = fake_transport(&second, r.g.ctx);
	CHECK_EQ(libvhost_dev_add_part(r.dev, t, 1, 1, 0), -ENOTSUP);
	libvhost_transport_free(t);
	devrig_close(&r);
}

TEST(device_inflight, files_that_cannot_be_are_refused_and_closed)
{
	static const struct {
		uint32_t what;
		const char *why;
	} bad[] = {
		{FAKE_REGION_SHORT, "file is shorter"},
		{FAKE_REGION_READONLY, "is not a memfd (or a file of tmpfs or hugetlbfs) open for reading and writing"},
		{FAKE_REGION_EVENTFD, "is not a memfd"},
		{FAKE_REGION_DISK, "is not a memfd"}};

	for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		struct libvhost_inflight none = {.size = sizeof(none)};
		struct devrig r;

		rig_ready(&r, 0);
		r.f.region_what = bad[i].what;
		CHECK_EQ(libvhost_dev_start(r.dev, NULL), -EPROTO);
		CHECK_HAS(devrig_error(&r).text, bad[i].why);
		CHECK_EQ(devrig_error(&r).op, OP(GET_INFLIGHT_FD));
		CHECK_EQ(devrig_state(&r), LIBVHOST_DEV_NEGOTIATED);
		CHECK_EQ(libvhost_dev_get_inflight(r.dev, &none), -ENOENT);
		CHECK_EQ(libvhost_dev_prepare_inflight(r.dev, 0), -EPROTO);
		r.f.region_what = FAKE_REGION_FILE;
		CHECK_EQ(libvhost_dev_start(r.dev, NULL), 0);
		devrig_close(&r); /* counts descriptors */
	}
}

/* Each request of a first start is refused once, and the peer dies at each once: no descriptor stays behind, and no
 * region unless a ring may have run with it. */
TEST(device_inflight, failed_starts_leave_no_unused_region_behind)
{
	struct libvhost_inflight i = {.size = sizeof(i)};
	uint32_t n = 0;
	int rc;

	do {
		struct devrig r;

		rig_ready(&r, 0);
		fake_arm(&r.f);
		r.f.refuse_at = n;
		rc = libvhost_dev_start(r.dev, NULL);
		if (rc) {
			const uint32_t kicks =
				fake_count(&r.f, OP(SET_VRING_KICK)) - (r.f.seen[n] == OP(SET_VRING_KICK));

			CHECK_EQ(libvhost_dev_get_inflight(r.dev, &i), kicks ? 0 : -ENOENT);
			r.f.refuse_at = FAKE_NEVER;
			if (devrig_state(&r) == LIBVHOST_DEV_NEGOTIATED)
				CHECK_EQ(libvhost_dev_start(r.dev, NULL), 0);
		}
		devrig_close(&r);
		rig_ready(&r, 0);
		fake_arm(&r.f);
		r.f.die_at = n++;
		CHECK(!libvhost_dev_start(r.dev, NULL) == !rc || n == 7); /* the optional request may be refused */
		devrig_close(&r);
	} while (rc || n < 20);
}

TEST(device_inflight, prepared_ahead_of_the_first_start)
{
	struct libvhost_inflight i = {.size = sizeof(i)};
	struct devrig r;

	rig_init(&r, 0);
	CHECK_EQ(libvhost_dev_prepare_inflight(r.dev, 0), -EINVAL);
	devrig_queues(&r, 2);
	fake_arm(&r.f);
	r.f.refuse_at = 3;
	CHECK_EQ(libvhost_dev_prepare_inflight(r.dev, 0), -EIO);
	CHECK_EQ(libvhost_dev_get_inflight(r.dev, &i), -ENOENT);
	CHECK_EQ(devrig_state(&r), LIBVHOST_DEV_NEGOTIATED);
	r.f.refuse_at = FAKE_NEVER;
	CHECK_EQ(libvhost_dev_prepare_inflight(r.dev, 0), 0);
	CHECK_EQ(region_of(&r).num_queues, 2);
	fake_arm(&r.f);
	CHECK_EQ(libvhost_dev_prepare_inflight(r.dev, 0), 0); /* no effect */
	CHECK_EQ(r.f.nseen, 0);
	CHECK_EQ(libvhost_dev_start(r.dev, NULL), 0);
	CHECK_EQ(fake_count(&r.f, OP(GET_INFLIGHT_FD)), 0);
	CHECK_EQ(libvhost_dev_prepare_inflight(r.dev, 0), -EBUSY);
	r.f.dies = true;
	devrig_close(&r);
}

TEST(device_inflight, a_peer_that_dies_while_it_is_asked_is_gone)
{
	struct devrig r;

	rig_ready(&r, 0);
	r.f.dies = true;
	CHECK_EQ(libvhost_dev_prepare_inflight(r.dev, 0), -ECONNRESET);
	CHECK_EQ(devrig_state(&r), LIBVHOST_DEV_DISCONNECTED);
	devrig_close(&r);
}

/* More or larger queues than it was made for. */
TEST(device_inflight, an_empty_region_that_is_too_small_makes_way)
{
	struct libvhost_queue q = devrig_queue(3);
	struct devrig r;

	rig_init(&r, 0);
	devrig_queues(&r, 2);
	CHECK_EQ(libvhost_dev_start(r.dev, NULL), 0);
	CHECK_EQ(libvhost_dev_stop(r.dev, NULL), 0);
	mark(&r, 1, 15, 9);
	q.num = 2 * DEVRIG_NUM;
	CHECK_EQ(libvhost_dev_set_queue(r.dev, 3, &q), 0);
	CHECK_EQ(libvhost_dev_start(r.dev, NULL), -EBUSY); /* the marks would be lost */
	CHECK_HAS(devrig_error(&r).text, "in flight");
	CHECK_EQ(region_of(&r).num_queues, 2);
	CHECK_EQ(libvhost_dev_reset_inflight(r.dev), 0);
	CHECK(!marked(&r, 1, 15));
	r.f.region = 4 * lv_inflight_queue_bytes(q.num, 0);
	fake_arm(&r.f);
	CHECK_EQ(libvhost_dev_start(r.dev, NULL), 0);
	CHECK_EQ(fake_count(&r.f, OP(GET_INFLIGHT_FD)), 1);
	CHECK_EQ(region_of(&r).num_queues, 4);
	CHECK_EQ(region_of(&r).queue_size, q.num);
	devrig_close(&r);
}

TEST(device_inflight, a_region_for_split_rings_does_not_serve_packed_ones)
{
	uint64_t features = 1ull << 32 | PACKED_RING;
	struct devrig r;

	rig_ready(&r, 0);
	CHECK_EQ(libvhost_dev_prepare_inflight(r.dev, 0), 0);
	CHECK_EQ(libvhost_ack_features_ex(r.dev, &features, 1), 0);
	r.f.region = DEVICE_QUEUES * PACKED_BYTES;
	fake_arm(&r.f);
	CHECK_EQ(libvhost_dev_start(r.dev, NULL), 0);
	CHECK_EQ(fake_count(&r.f, OP(GET_INFLIGHT_FD)), 1);
	devrig_close(&r);
}

/* A back-end that cuts the region off: with LIBVHOST_CTX_SIGBUS_GUARD the caller reads zeros. */
TEST(device_inflight, cut_off_while_the_caller_looks)
{
	struct libvhost_inflight i;
	struct devrig r;

	devrig_init(&r);
	guest_free(&r.g);
	r.g = guest_new_ctx(0, LIBVHOST_CTX_SIGBUS_GUARD);
	CHECK_EQ(libvhost_mem_begin(r.g.mem), 0);
	CHECK_EQ(libvhost_mem_alloc(r.g.mem, 0, DEVRIG_RAM), 0);
	CHECK_EQ(libvhost_mem_commit(r.g.mem, 0, NULL), 0);
	r.opts.mem = r.g.mem;
	r.opts.flags = LIBVHOST_DEV_INFLIGHT;
	r.f.protocol |= PF(INFLIGHT_SHMFD);
	r.f.region = DEVICE_QUEUES * QUEUE_BYTES;
	CHECK_EQ(devrig_open(&r), 0);
	devrig_queues(&r, DEVICE_QUEUES);
	CHECK_EQ(libvhost_dev_start(r.dev, NULL), 0);
	i = region_of(&r);
	CHECK_EQ(pwrite(i.fd, "x", 1, (off_t)i.mmap_offset + 8), 1);
	CHECK_EQ(load((const uint8_t *)(uintptr_t)i.address + 8), 'x');
	CHECK_EQ(ftruncate(i.fd, 0), 0);
	CHECK_EQ(load((const uint8_t *)(uintptr_t)i.address + 8), 0);
	CHECK_EQ(load((const uint8_t *)(uintptr_t)i.address + i.mmap_size - 1), 0);
	CHECK_EQ(libvhost_dev_stop(r.dev, NULL), 0);
	devrig_close(&r);
}

TEST(device_inflight, given_by_the_caller)
{
	struct libvhost_inflight i = {.size = sizeof(i), .num_queues = DEVICE_QUEUES, .queue_size = DEVRIG_NUM};
	struct libvhost_inflight got;
	struct devrig r;
	int file, readonly;

	rig_ready(&r, 0);
	file = memfd(8192 + DEVICE_QUEUES * QUEUE_BYTES, 0);
	i.fd = file;
	i.mmap_offset = 4096 + 64; /* not on a page */
	i.mmap_size = DEVICE_QUEUES * QUEUE_BYTES;
	CHECK_EQ(libvhost_dev_set_inflight(r.dev, &i), 0);
	got = region_of(&r);
	CHECK(got.fd != file);
	CHECK_EQ(got.mmap_offset, 4096 + 64);
	CHECK_EQ(libvhost_dev_start(r.dev, NULL), 0);
	CHECK_EQ(r.f.inflight.mmap_offset, 4096 + 64);
	CHECK_EQ(fake_count(&r.f, OP(GET_INFLIGHT_FD)), 0);
	CHECK_EQ(pwrite(file, "x", 1, 4096 + 64 + 7), 1);
	CHECK_EQ(((const char *)(uintptr_t)got.address)[7], 'x');
	CHECK_EQ(libvhost_dev_set_inflight(r.dev, &i), -EBUSY);
	CHECK_EQ(libvhost_dev_stop(r.dev, NULL), 0);
	i.num_queues = 1;
	CHECK_EQ(libvhost_dev_set_inflight(r.dev, &i), -EINVAL);
	CHECK_HAS(devrig_error(&r).text, "fewer or smaller");
	i.num_queues = 257;
	CHECK_EQ(libvhost_dev_set_inflight(r.dev, &i), -EINVAL);
	i.num_queues = DEVICE_QUEUES;
	i.queue_size = 32769;
	CHECK_EQ(libvhost_dev_set_inflight(r.dev, &i), -EINVAL);
	i.queue_size = DEVRIG_NUM;
	i.mmap_size--;
	CHECK_EQ(libvhost_dev_set_inflight(r.dev, &i), -EINVAL);
	i.mmap_size++;
	i.mmap_offset = UINT64_MAX - 5;
	CHECK_EQ(libvhost_dev_set_inflight(r.dev, &i), -EINVAL);
	i.mmap_offset = 8193;
	CHECK_EQ(libvhost_dev_set_inflight(r.dev, &i), -EINVAL);
	i.mmap_offset = 0;
	readonly = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
	i.fd = readonly;
	CHECK_EQ(libvhost_dev_set_inflight(r.dev, &i), -EINVAL);
	lv_fd_close(readonly);
	readonly = disk_file(i.mmap_size); /* as a file of FUSE or NFS */
	i.fd = readonly;
	CHECK_EQ(libvhost_dev_set_inflight(r.dev, &i), -EINVAL);
	CHECK_HAS(devrig_error(&r).text, "is not a memfd (or a file of tmpfs or hugetlbfs)");
	lv_fd_close(readonly);
	readonly = nameless_file("/dev/shm", i.mmap_size);
	i.fd = readonly;
	CHECK_EQ(libvhost_dev_set_inflight(r.dev, &i), 0);
	i.fd = file;
	i.mmap_offset = 4096 + 64;
	CHECK_EQ(libvhost_dev_set_inflight(r.dev, &i), 0);
	i.fd = 9999;
	CHECK_EQ(libvhost_dev_set_inflight(r.dev, &i), -EBADF);
	CHECK_EQ(region_of(&r).mmap_offset, 4096 + 64); /* as it was */
	CHECK_EQ(libvhost_dev_free_inflight(r.dev), 0);
	CHECK_EQ(libvhost_dev_get_inflight(r.dev, &got), -ENOENT);
	lv_fd_close(readonly);
	lv_fd_close(file);
	devrig_close(&r);
}

TEST(device_inflight, a_device_whose_rings_come_back_keeps_its_region)
{
	struct libvhost_inflight i = {.size = sizeof(i)};
	size_t len = 0;
	struct devrig r;

	rig_ready(&r, 0);
	CHECK_EQ(libvhost_dev_start(r.dev, NULL), 0);
	lose_peer(&r);
	CHECK_EQ(libvhost_dev_free_inflight(r.dev), -EBUSY);
	CHECK_EQ(libvhost_dev_reset_inflight(r.dev), -EBUSY);
	CHECK_EQ(libvhost_dev_save_inflight(r.dev, NULL, &len), 0); /* nobody writes it any more */
	CHECK_EQ(libvhost_dev_force_stop(r.dev), 0);
	CHECK_EQ(libvhost_dev_free_inflight(r.dev), 0);
	devrig_close(&r);
}

/* ---- save and load ---- */

static uint8_t *saved(struct devrig *r, size_t *len)
{
	uint8_t *blob;

	*len = 0;
	CHECK_EQ(libvhost_dev_save_inflight(r->dev, NULL, len), 0);
	blob = malloc(*len);
	CHECK(blob);
	*len -= 1;
	CHECK_EQ(libvhost_dev_save_inflight(r->dev, blob, len), -ENOSPC);
	CHECK_EQ(libvhost_dev_save_inflight(r->dev, blob, len), 0);
	return blob;
}

TEST(device_inflight, saved_here_and_loaded_there)
{
	struct devrig r, other;
	uint8_t *blob;
	size_t len;

	rig_ready(&r, 0);
	CHECK_EQ(libvhost_dev_start(r.dev, NULL), 0);
	mark(&r, 3, 7, 42);
	len = 1 << 20;
	CHECK_EQ(libvhost_dev_save_inflight(r.dev, NULL, &len), -EBUSY);
	CHECK_EQ(libvhost_dev_stop(r.dev, NULL), 0);
	blob = saved(&r, &len);
	CHECK_EQ(len, 32 + r.f.region);
	devrig_close(&r);

	rig_ready(&other, 0);
	CHECK_EQ(libvhost_dev_load_inflight(other.dev, blob, len), 0);
	CHECK(marked(&other, 3, 7));
	CHECK(!marked(&other, 3, 6));
	fake_arm(&other.f);
	CHECK_EQ(libvhost_dev_start(other.dev, NULL), 0);
	CHECK_EQ(fake_count(&other.f, OP(GET_INFLIGHT_FD)), 0);
	CHECK_EQ(other.f.inflight.mmap_size, other.f.region);
	CHECK_EQ(libvhost_dev_load_inflight(other.dev, blob, len), -EBUSY);
	free(blob);
	devrig_close(&other);
}

TEST(device_inflight, damaged_blobs_are_refused_whatever_byte_it_is)
{
	struct libvhost_queue big = devrig_queue(0);
	struct devrig r;
	uint8_t *blob;
	size_t len;

	rig_ready(&r, 0);
	CHECK_EQ(libvhost_dev_start(r.dev, NULL), 0);
	mark(&r, 0, 1, 3);
	CHECK_EQ(libvhost_dev_stop(r.dev, NULL), 0);
	blob = saved(&r, &len);
	CHECK_EQ(libvhost_dev_free_inflight(r.dev), 0);
	for (size_t i = 0; i < len; i++) {
		blob[i] = (uint8_t)(blob[i] ^ 1u << i % 8);
		CHECK_EQ(libvhost_dev_load_inflight(r.dev, blob, len), -EBADMSG);
		blob[i] = (uint8_t)(blob[i] ^ 1u << i % 8);
		CHECK_EQ(libvhost_dev_load_inflight(r.dev, blob, i), -EBADMSG);
	}
	CHECK(devrig_error(&r).text[0]);
	CHECK_EQ(
		libvhost_dev_get_inflight(r.dev, &(struct libvhost_inflight){.size = sizeof(struct libvhost_inflight)}),
		-ENOENT);
	big.num = 2 * DEVRIG_NUM;
	CHECK_EQ(libvhost_dev_set_queue(r.dev, 0, &big), 0);
	CHECK_EQ(libvhost_dev_load_inflight(r.dev, blob, len), -EBADMSG);
	CHECK_HAS(devrig_error(&r).text, "fewer or smaller");
	big.num = DEVRIG_NUM;
	CHECK_EQ(libvhost_dev_set_queue(r.dev, 0, &big), 0);
	CHECK_EQ(libvhost_dev_load_inflight(r.dev, blob, len), 0);
	CHECK(marked(&r, 0, 1));
	free(blob);
	devrig_close(&r);
}

TEST(device_inflight, a_file_cut_short_by_the_peer_is_an_error_not_a_signal)
{
	size_t len = 1 << 20;
	struct devrig r;
	uint8_t *buf;

	rig_ready(&r, 0);
	CHECK_EQ(libvhost_dev_start(r.dev, NULL), 0);
	CHECK_EQ(libvhost_dev_stop(r.dev, NULL), 0);
	CHECK_EQ(ftruncate(r.f.inflight_fd, 0), 0);
	buf = malloc(len);
	CHECK_EQ(libvhost_dev_save_inflight(r.dev, buf, &len), -EIO);
	CHECK_HAS(devrig_error(&r).text, "free_inflight");
	free(buf);
	CHECK_EQ(libvhost_dev_free_inflight(r.dev), 0);
	CHECK_EQ(libvhost_dev_start(r.dev, NULL), 0);
	devrig_close(&r);
}

/* A cleared queue is forgotten, a queue that is set up again is the same one. */
TEST(device_inflight, a_cleared_queue_takes_its_marks_along)
{
	const struct libvhost_queue again = devrig_queue(2);
	struct devrig r;

	rig_ready(&r, LIBVHOST_DEV_STOP_INFLIGHT);
	CHECK_EQ(libvhost_dev_start(r.dev, NULL), 0);
	mark(&r, 1, 5, 1);
	mark(&r, 2, 6, 1);
	CHECK_EQ(libvhost_dev_clear_queue(r.dev, 1), -EBUSY);
	CHECK_EQ(libvhost_dev_stop(r.dev, NULL), 0);
	CHECK(marked(&r, 1, 5));
	CHECK_EQ(libvhost_dev_clear_queue(r.dev, 1), 0);
	CHECK(!marked(&r, 1, 5));
	CHECK_EQ(libvhost_dev_set_queue(r.dev, 2, &again), 0);
	CHECK(marked(&r, 2, 6));
	CHECK_EQ(libvhost_dev_start(r.dev, NULL), 0);
	mark(&r, 3, 7, 1);
	CHECK_EQ(libvhost_dev_stop_queue(r.dev, 3, 0), 0); /* the others run on */
	CHECK_EQ(libvhost_dev_clear_queue(r.dev, 3), 0);
	CHECK(!marked(&r, 3, 7));
	CHECK(marked(&r, 2, 6));
	devrig_close(&r);
}

/* ---- what stands in it decides where rings continue ---- */

TEST(device_inflight, a_stop_that_leaves_requests_continues_at_the_used_index)
{
	struct libvhost_queue q = {.size = sizeof(q)};
	struct devrig r;

	rig_ready(&r, LIBVHOST_DEV_STOP_INFLIGHT);
	CHECK_EQ(libvhost_dev_start(r.dev, NULL), 0);
	devrig_set_used(&r, 1, 4);
	r.f.base[1] = 9; /* five requests taken and not completed */
	CHECK_EQ(libvhost_dev_stop(r.dev, NULL), 0);
	CHECK_EQ(libvhost_dev_get_queue(r.dev, 1, &q), 0);
	CHECK_EQ(q.base, 4);
	devrig_close(&r);
	rig_ready(&r, 0); /* a peer that drains says where it stopped */
	CHECK_EQ(libvhost_dev_start(r.dev, NULL), 0);
	r.f.base[1] = 9;
	CHECK_EQ(libvhost_dev_stop(r.dev, NULL), 0);
	CHECK_EQ(libvhost_dev_get_queue(r.dev, 1, &q), 0);
	CHECK_EQ(q.base, 9);
	devrig_close(&r);
}

/* Requests that the back-end took before the refusal stand in the region: it stays, and they are not counted. */
TEST(device_inflight, a_start_that_is_taken_back_continues_at_the_used_index)
{
	struct libvhost_queue q = {.size = sizeof(q)};
	struct devrig r;
	uint32_t enable;

	rig_ready(&r, LIBVHOST_DEV_STOP_INFLIGHT);
	fake_arm(&r.f);
	CHECK_EQ(libvhost_dev_start(r.dev, NULL), 0);
	enable = fake_first(&r.f, OP(SET_VRING_ENABLE));
	devrig_close(&r);
	rig_ready(&r, LIBVHOST_DEV_STOP_INFLIGHT);
	fake_arm(&r.f);
	r.f.refuse_at = enable;
	devrig_set_used(&r, 1, 4);
	r.f.base[1] = 9;
	CHECK_EQ(libvhost_dev_start(r.dev, NULL), -EIO);
	CHECK_EQ(devrig_state(&r), LIBVHOST_DEV_NEGOTIATED);
	mark(&r, 1, 3, 1);
	CHECK(marked(&r, 1, 3));
	CHECK_EQ(libvhost_dev_get_queue(r.dev, 1, &q), 0);
	CHECK_EQ(q.base, 4);
	r.f.refuse_at = FAKE_NEVER;
	fake_arm(&r.f);
	CHECK_EQ(libvhost_dev_start(r.dev, NULL), 0);
	CHECK_EQ(fake_count(&r.f, OP(GET_INFLIGHT_FD)), 0);
	CHECK(marked(&r, 1, 3));
	CHECK_EQ(libvhost_dev_stop_queue(r.dev, 1, 0), 0);
	fake_arm(&r.f);
	r.f.refuse_at = 5; /* NUM, BASE, ADDR, ERR, CALL, KICK, ENABLE: the kick */
	CHECK_EQ(libvhost_dev_start_queue(r.dev, 1, 0), -EIO);
	fake_arm(&r.f);
	r.f.refuse_at = 6;
	CHECK_EQ(libvhost_dev_start_queue(r.dev, 1, 0), -EIO);
	CHECK_EQ(fake_count(&r.f, OP(GET_VRING_BASE)), 1);
	CHECK_EQ(devrig_state(&r), LIBVHOST_DEV_RUNNING);
	CHECK_EQ(libvhost_dev_get_queue(r.dev, 1, &q), 0);
	CHECK_EQ(q.base, 4);
	devrig_close(&r);
}

/* A stop that failed half-way and its repetition: what the first one learned is an index that counts them, too. */
TEST(device_inflight, a_repeated_stop_continues_at_the_used_index)
{
	struct libvhost_queue q = {.size = sizeof(q)};
	struct devrig r;

	rig_ready(&r, LIBVHOST_DEV_STOP_INFLIGHT);
	CHECK_EQ(libvhost_dev_start(r.dev, NULL), 0);
	devrig_set_used(&r, 1, 4);
	r.f.base[1] = 9;
	fake_arm(&r.f);
	r.f.refuse_at = DEVICE_QUEUES + 2; /* all are disabled, two have said where they stopped */
	CHECK(libvhost_dev_stop(r.dev, NULL) < 0);
	CHECK_EQ(devrig_state(&r), LIBVHOST_DEV_LOST);
	r.f.refuse_at = FAKE_NEVER;
	CHECK_EQ(libvhost_dev_stop(r.dev, NULL), 0);
	CHECK_EQ(libvhost_dev_get_queue(r.dev, 1, &q), 0);
	CHECK_EQ(q.base, 4);
	devrig_close(&r);
}

static void packed_head(struct devrig *r, uint32_t queue, struct lv_inflight_packed head)
{
	put_bytes(r, queue * PACKED_BYTES, &head, sizeof(head));
}

/* Specification, "When reconnecting": between used_idx and old_used_idx the ring's own descriptor decides. */
TEST(device_inflight, packed_rings_continue_where_the_region_says)
{
	struct lv_inflight_packed head = {.version = 1,
					  .desc_num = DEVRIG_NUM,
					  .used_idx = 5,
					  .old_used_idx = 5,
					  .used_wrap_counter = 1,
					  .old_used_wrap_counter = 1};
	const uint16_t available = 0x80, used = 0x8080;
	uint16_t *flags;
	uint32_t base = 1;
	struct devrig r;

	rig_packed(&r);
	CHECK(!lv_inflight_packed_base(r.dev, 1, &base));
	CHECK_EQ(libvhost_dev_start(r.dev, NULL), 0);
	CHECK(!lv_inflight_packed_base(r.dev, 1, &base)); /* never used: version 0 */
	packed_head(&r, 1, head);
	CHECK(lv_inflight_packed_base(r.dev, 1, &base));
	CHECK_EQ(base, 0x80058005);
	flags = (uint16_t *)(void *)((uint8_t *)at(&r.g, devrig_queue(1).desc) + 16 * 5 + 14);
	head.used_idx = 3; /* around the end */
	head.used_wrap_counter = 0;
	packed_head(&r, 1, head);
	*flags = available;
	CHECK(lv_inflight_packed_base(r.dev, 1, &base));
	CHECK_EQ(base, 0x80058005); /* not published: rolled back */
	*flags = used;
	CHECK(lv_inflight_packed_base(r.dev, 1, &base));
	CHECK_EQ(base, 0x00030003); /* published: committed */
	head.used_idx = DEVRIG_NUM;
	packed_head(&r, 1, head);
	CHECK(!lv_inflight_packed_base(r.dev, 1, &base));
	head.used_idx = 3;
	head.used_wrap_counter = 7;
	packed_head(&r, 1, head);
	CHECK(!lv_inflight_packed_base(r.dev, 1, &base));
	devrig_close(&r);
}

/* DPDK links the free list of a packed queue when it makes a region and never again. */
TEST(device_inflight, an_emptied_packed_region_has_its_free_list)
{
	struct libvhost_inflight i;
	struct devrig r;

	rig_packed(&r);
	CHECK_EQ(libvhost_dev_start(r.dev, NULL), 0);
	packed_head(&r, 3, (struct lv_inflight_packed){.version = 1, .used_idx = 5, .free_head = 9});
	CHECK_EQ(libvhost_dev_stop(r.dev, NULL), 0);
	CHECK_EQ(libvhost_dev_reset_inflight(r.dev), 0);
	i = region_of(&r);
	for (uint32_t q = 0; q < DEVICE_QUEUES; q++) {
		const struct lv_inflight_packed *h = (const void *)(uintptr_t)(i.address + q * PACKED_BYTES);

		CHECK_EQ(h->version, 0);
		CHECK_EQ(h->used_idx | h->free_head | h->old_free_head, 0);
		CHECK_EQ(h->used_wrap_counter, 1);
		CHECK_EQ(h->old_used_wrap_counter, 1);
		for (uint32_t d = 0; d < DEVRIG_NUM; d++) {
			CHECK_EQ(h->desc[d].next, d + 1);
			CHECK_EQ(h->desc[d].inflight, 0);
		}
	}
	devrig_close(&r);
}
