/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* Live upgrade: what comes along besides the rings. */
#include "upgrade.h"

#include <sys/stat.h>
#include "core/wire.h"

TEST(device_freeze, doorbells_and_objects_come_along)
{
	struct libvhost_doorbell bell = {.size = sizeof(bell)};
	struct upgrade u;
	int file, fd;
	uint8_t byte = 1;

	up_init(&u);
	u.w.r.opts.flags = LIBVHOST_DEV_HOST_NOTIFIERS | LIBVHOST_DEV_SHARED_OBJECTS;
	up_open(&u, 3, true);
	file = memfd(2 * PAGE, 0);
	CHECK_EQ(wirerig_ask_area(&u.w, 1, PAGE, PAGE, file), 0);
	CHECK_EQ(wirerig_ask_uuid(&u.w, ASK_OBJECT_ADD, 7, NULL), 0);
	CHECK_EQ(wirerig_ask_uuid(&u.w, ASK_OBJECT_ADD, 3, NULL), 0);
	for (int i = 0; i < 2; i++) {
		uint8_t uuid[16];

		up_hop(&u);
		CHECK_EQ(libvhost_dev_doorbell(u.w.r.dev, 0, &bell), -ENOENT);
		CHECK_EQ(libvhost_dev_doorbell(u.w.r.dev, 1, &bell), 0);
		CHECK_EQ(bell.offset, PAGE);
		*(volatile uint8_t *)(uintptr_t)bell.address = (uint8_t)(10 + i);
		CHECK_EQ(pread(file, &byte, 1, (off_t)PAGE), 1);
		CHECK_EQ(byte, 10 + i);
		wirerig_uuid(uuid, 7);
		CHECK_EQ(libvhost_shared_object_lookup(u.w.r.g.ctx, uuid, &fd), 0);
		close(fd);
	}
	CHECK_EQ(wirerig_ask_uuid(&u.w, ASK_OBJECT_REMOVE, 3, NULL), 0);
	CHECK_EQ(libvhost_dev_stop(u.w.r.dev, NULL), 0);
	CHECK_EQ(libvhost_dev_doorbell(u.w.r.dev, 1, &bell), -ENOENT);
	close(file);
	up_close(&u);
}

TEST(device_freeze, a_mapped_window_stays_where_it_is)
{
	const struct libvhost_req_mmap map = {.shmid = 2, .len = PAGE, .flags = 1};
	uint32_t nfds = 0;
	struct upgrade u;
	uint64_t at = 0;
	size_t len = 0;
	int file;

	up_init(&u);
	u.w.r.opts.flags = LIBVHOST_DEV_USE_SHMEM;
	up_open(&u, 3, true);
	file = memfd(PAGE, 0);
	CHECK_EQ(libvhost_dev_shmem_window(u.w.r.dev, 2, &at, 4 * PAGE), 0);
	CHECK_EQ(wirerig_ask_mmap(&u.w, ASK_SHMEM_MAP, &map, file), 0);
	CHECK_EQ(libvhost_dev_freeze(u.w.r.dev, 0, NULL, &len, NULL, &nfds), -ENOTSUP);
	CHECK_HAS(devrig_error(&u.w.r).text, "shared-memory window");
	CHECK_EQ(wirerig_ask_mmap(&u.w, ASK_SHMEM_UNMAP, &map, -1), 0);
	up_hop(&u);
	close(file);
	up_close(&u);
}

TEST(device_freeze, the_inflight_region_comes_along)
{
	struct libvhost_inflight was;
	struct libvhost_event e;
	struct stat before, after;
	struct upgrade u;

	up_init(&u);
	u.w.r.opts.flags = LIBVHOST_DEV_INFLIGHT;
	up_open(&u, 3, true);
	was = up_inflight(&u);
	CHECK_EQ(fstat(was.fd, &before), 0);
	up_hop(&u);
	up_hop(&u);
	CHECK_EQ(fstat(up_inflight(&u).fd, &after), 0);
	CHECK_EQ(after.st_ino, before.st_ino);
	CHECK_EQ(up_inflight(&u).mmap_size, was.mmap_size);
	CHECK_EQ(up_inflight(&u).num_queues, was.num_queues);
	CHECK_EQ(up_inflight(&u).queue_size, was.queue_size);
	puppet_kill(&u.w.p);
	while (devrig_state(&u.w.r) == LIBVHOST_DEV_RUNNING)
		CHECK_EQ(libvhost_dev_dispatch(u.w.r.dev, 50), 0);
	CHECK_EQ(libvhost_dev_reconnect(u.w.r.dev, NULL), 0);
	CHECK(devrig_await(&u.w.r, LIBVHOST_EVENT_RECONNECTED, PATIENCE_MS, &e));
	CHECK_EQ(e.value[0], LIBVHOST_GUARANTEE_INFLIGHT);
	CHECK_EQ(libvhost_dev_stop(u.w.r.dev, NULL), 0);
	up_close(&u);
}

static uint64_t dirty(struct upgrade *u, uint64_t *bitmap)
{
	uint64_t pages = 0;

	memset(bitmap, 0, DEVRIG_RAM / 4096 / 8);
	CHECK_EQ(libvhost_mem_log_sync(u->w.r.g.mem, 0, DEVRIG_RAM, bitmap, &pages), 0);
	return pages;
}

/* Marks of before and after are in one log, which goes on growing with the guest. */
TEST(device_freeze, the_dirty_log_comes_along)
{
	uint64_t bitmap[DEVRIG_RAM / 4096 / 64];
	struct upgrade u;
	struct guest old;

	up_init(&u);
	u.w.p.features |= 1ull << 26;
	up_open(&u, 3, true);
	CHECK_EQ(libvhost_mem_log_start(u.w.r.g.mem, 0, NULL), 0);
	CHECK_EQ(devrig_logging(&u.w.r), 1);
	CHECK_EQ(libvhost_mem_log_mark(u.w.r.g.mem, 0x5000, 1), 0);
	old = u.w.r.g;
	CHECK_EQ(up_freeze(&u, 0), 0);
	CHECK_EQ(libvhost_mem_log_mark(old.mem, 0x9000, 1), 0); /* as a peer that goes on working would */
	up_next_guest(&u);
	CHECK_EQ(up_thaw(&u), 0);
	CHECK_EQ(devrig_logging(&u.w.r), 1);
	CHECK_EQ(dirty(&u, bitmap), 2);
	CHECK_EQ(bitmap[0], 1ull << 5 | 1ull << 9);
	CHECK_EQ(libvhost_mem_log_start(u.w.r.g.mem, 0, NULL), -EALREADY);
	CHECK_EQ(libvhost_mem_begin(u.w.r.g.mem), 0);
	CHECK_EQ(libvhost_mem_alloc(u.w.r.g.mem, 1ull << 40, 0x10000), 0);
	CHECK_EQ(libvhost_mem_commit(u.w.r.g.mem, 0, NULL), 0);
	CHECK_EQ(devrig_state(&u.w.r), LIBVHOST_DEV_RUNNING);
	CHECK_EQ(libvhost_mem_log_mark(u.w.r.g.mem, 1ull << 40, 1), 0);
	up_hop(&u);
	CHECK_EQ(libvhost_mem_log_mark(u.w.r.g.mem, 0x7000, 1), 0);
	CHECK_EQ(dirty(&u, bitmap), 1);
	CHECK_EQ(libvhost_mem_log_stop(u.w.r.g.mem, 0, NULL), 0);
	CHECK_EQ(devrig_logging(&u.w.r), 0);
	up_hop(&u);
	CHECK_EQ(libvhost_dev_stop(u.w.r.dev, NULL), 0);
	up_close(&u);
}

TEST(device_freeze, the_configuration_interrupt_comes_along)
{
	struct upgrade u;
	int irq;

	up_init(&u);
	up_open(&u, 3, true);
	irq = lv_eventfd();
	CHECK_EQ(libvhost_dev_set_config_call(u.w.r.dev, irq), 0);
	CHECK_EQ(libvhost_config_mask(u.w.r.dev, 1), 0);
	CHECK_EQ(wirerig_ask(&u.w, ASK_CONFIG_CHANGE, NULL, 0, -1, NULL), 0);
	up_hop(&u);
	CHECK_EQ(lv_eventfd_drain(irq), 0);
	CHECK_EQ(libvhost_config_pending(u.w.r.dev), 1); /* masked there, asked here */
	CHECK_EQ(wirerig_ask(&u.w, ASK_CONFIG_CHANGE, NULL, 0, -1, NULL), 0);
	CHECK_EQ(lv_eventfd_drain(irq), 0);
	CHECK_EQ(libvhost_config_mask(u.w.r.dev, 0), 0);
	CHECK_EQ(wirerig_ask(&u.w, ASK_CONFIG_CHANGE, NULL, 0, -1, NULL), 0);
	CHECK_EQ(lv_eventfd_drain(irq), 1);
	close(irq);
	up_close(&u);
}

static unsigned bound, bind_fails_at;

static int bind_notifier(void *arg, uint32_t queue, int fd, uint32_t on)
{
	(void)arg;
	CHECK(fd >= 0);
	if (on && queue == bind_fails_at)
		return -EPERM;
	bound = on ? bound | 1u << queue : bound & ~(1u << queue);
	return 0;
}

TEST(device_freeze, bound_notifiers_are_bound_again)
{
	struct upgrade u;

	bound = 0;
	bind_fails_at = UINT32_MAX;
	up_init(&u);
	u.w.ops.bind_notifier = bind_notifier;
	up_open(&u, 3, false);
	CHECK_EQ(libvhost_dev_enable_notifiers(u.w.r.dev), 0);
	CHECK_EQ(libvhost_dev_start(u.w.r.dev, NULL), 0);
	CHECK_EQ(bound, 7);
	CHECK_EQ(up_freeze(&u, 0), 0);
	CHECK_EQ(bound, 7); /* the guest's kicks go on arriving */
	bound = 0;
	bind_fails_at = 2;
	up_next_guest(&u);
	up_refused(&u, -EPERM, "queue 2");
	CHECK_EQ(bound, 0);
	bind_fails_at = UINT32_MAX;
	CHECK_EQ(up_thaw(&u), 0);
	CHECK_EQ(bound, 7);
	CHECK_EQ(libvhost_dev_stop(u.w.r.dev, NULL), 0);
	CHECK_EQ(libvhost_dev_disable_notifiers(u.w.r.dev), 0);
	CHECK_EQ(bound, 0);
	up_close(&u);
}
