/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* The file of an inflight region: the peer's or the caller's, not what it should be, or cut short. */
#include "inflightrig.h"

#include "core/wire.h"
#include "sigbushelp.h"

#define OP(name) LIBVHOST_OP_##name
#define PF(bit)	 (1ull << LIBVHOST_PROTOCOL_F_##bit)

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

		inflight_rig_ready(&r, 0);
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

TEST(device_inflight, given_by_the_caller)
{
	struct libvhost_inflight i = {.size = sizeof(i), .num_queues = DEVRIG_QUEUES, .queue_size = DEVRIG_NUM};
	struct libvhost_inflight got;
	struct devrig r;
	int file, readonly;

	inflight_rig_ready(&r, 0);
	file = memfd(8192 + DEVRIG_QUEUES * QUEUE_BYTES, 0);
	i.fd = file;
	i.mmap_offset = 4096 + 64; /* not on a page */
	i.mmap_size = DEVRIG_QUEUES * QUEUE_BYTES;
	CHECK_EQ(libvhost_dev_set_inflight(r.dev, &i), 0);
	got = inflight_region(&r);
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
	i.num_queues = DEVRIG_QUEUES;
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
	CHECK_EQ(inflight_region(&r).mmap_offset, 4096 + 64); /* as it was */
	CHECK_EQ(libvhost_dev_free_inflight(r.dev), 0);
	CHECK_EQ(libvhost_dev_get_inflight(r.dev, &got), -ENOENT);
	lv_fd_close(readonly);
	lv_fd_close(file);
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
	r.f.region = DEVRIG_QUEUES * QUEUE_BYTES;
	CHECK_EQ(devrig_open(&r), 0);
	devrig_queues(&r, DEVRIG_QUEUES);
	CHECK_EQ(libvhost_dev_start(r.dev, NULL), 0);
	i = inflight_region(&r);
	CHECK_EQ(pwrite(i.fd, "x", 1, (off_t)i.mmap_offset + 8), 1);
	CHECK_EQ(load((const uint8_t *)(uintptr_t)i.address + 8), 'x');
	CHECK_EQ(ftruncate(i.fd, 0), 0);
	CHECK_EQ(load((const uint8_t *)(uintptr_t)i.address + 8), 0);
	CHECK_EQ(load((const uint8_t *)(uintptr_t)i.address + i.mmap_size - 1), 0);
	CHECK_EQ(libvhost_dev_stop(r.dev, NULL), 0);
	devrig_close(&r);
}

TEST(device_inflight, a_file_cut_short_by_the_peer_is_an_error_not_a_signal)
{
	size_t len = 1 << 20;
	struct devrig r;
	uint8_t *buf;

	inflight_rig_ready(&r, 0);
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
