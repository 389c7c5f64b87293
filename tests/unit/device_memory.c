/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* Devices that follow the guest's memory map. */
#include "devrig.h"

#define OP(name) LIBVHOST_OP_##name
#define HIGH	 (1ull << 32)

TEST(device_memory, running_devices_follow_and_stopped_ones_catch_up)
{
	struct devrig r;
	uint32_t lost = 9;

	devrig_ready(&r);
	fake_arm(&r.f);
	CHECK_EQ(devrig_grow(&r, HIGH, 0, &lost), 0);
	CHECK_EQ(lost, 0);
	CHECK_EQ(r.f.nseen, 0);
	CHECK_EQ(libvhost_dev_start(r.dev, NULL), 0);
	CHECK_EQ(fake_count(&r.f, OP(ADD_MEM_REG)), 2);
	fake_arm(&r.f);
	CHECK_EQ(devrig_grow(&r, HIGH * 2, 0, &lost), 0);
	CHECK_EQ(lost, 0);
	CHECK_EQ(r.f.nseen, 1);
	CHECK_EQ(r.f.seen[0], OP(ADD_MEM_REG));
	CHECK_EQ(libvhost_dev_stop(r.dev, NULL), 0);
	CHECK_EQ(devrig_grow(&r, HIGH * 3, 0, &lost), 0);
	fake_arm(&r.f);
	CHECK_EQ(libvhost_dev_start(r.dev, NULL), 0);
	CHECK_EQ(fake_count(&r.f, OP(ADD_MEM_REG)), 1); /* only what the peer does not have yet */
	devrig_close(&r);
}

TEST(device_memory, a_mute_peer_is_lost_and_does_not_veto)
{
	struct libvhost_event e;
	uint32_t lost = 0;
	struct devrig r;

	devrig_init(&r);
	r.f.slow = true;
	CHECK_EQ(devrig_open(&r), 0);
	devrig_queues(&r, 4);
	CHECK_EQ(libvhost_dev_start(r.dev, NULL), 0);
	r.f.stall_op = OP(ADD_MEM_REG);
	CHECK_EQ(devrig_grow(&r, HIGH, 50, &lost), 0);
	r.f.stall_op = 0;
	CHECK_EQ(lost, 1);
	CHECK_EQ(devrig_state(&r), LIBVHOST_DEV_LOST);
	CHECK_EQ(devrig_events(&r, LIBVHOST_EVENT_LOST, &e), 1);
	CHECK_EQ(devrig_grow(&r, HIGH * 2, 0, &lost), 0); /* nobody asks a lost device */
	CHECK_EQ(lost, 0);
	/* what the peer holds is not known: stop ends in a new connection */
	CHECK_EQ(libvhost_dev_stop(r.dev, NULL), 0);
	CHECK_EQ(devrig_state(&r), LIBVHOST_DEV_DISCONNECTED);
	CHECK_EQ(libvhost_dev_reconnect(r.dev, NULL), 0);
	CHECK_EQ(libvhost_dev_start(r.dev, NULL), 0);
	devrig_close(&r);
}

TEST(device_memory, refusals_and_deaths_during_a_commit)
{
	for (int die = 0; die < 2; die++) {
		uint32_t lost = 0;
		struct devrig r;

		devrig_ready(&r);
		CHECK_EQ(libvhost_dev_start(r.dev, NULL), 0);
		fake_arm(&r.f);
		*(die ? &r.f.die_at : &r.f.refuse_at) = 0;
		CHECK_EQ(devrig_grow(&r, HIGH, 0, &lost), 0);
		CHECK_EQ(lost, 1);
		CHECK_EQ(devrig_state(&r), die ? LIBVHOST_DEV_DISCONNECTED : LIBVHOST_DEV_LOST);
		devrig_close(&r);
	}
}

TEST(device_memory, a_device_whose_rings_are_removed_is_lost)
{
	uint32_t lost = 0;
	struct devrig r;

	devrig_ready(&r);
	CHECK_EQ(libvhost_dev_start(r.dev, NULL), 0);
	fake_arm(&r.f);
	CHECK_EQ(libvhost_mem_begin(r.g.mem), 0);
	CHECK_EQ(libvhost_mem_remove(r.g.mem, 0, DEVRIG_RAM), 0);
	CHECK_EQ(libvhost_mem_commit(r.g.mem, 0, &lost), 0);
	CHECK_EQ(lost, 1);
	CHECK_EQ(r.f.nseen, 0); /* nothing was said that the peer would have to refuse */
	CHECK_EQ(devrig_state(&r), LIBVHOST_DEV_LOST);
	CHECK_HAS(devrig_error(&r).text, "stop the device first");
	devrig_close(&r);
}

TEST(device_memory, too_many_regions_are_refused_before_anything_changes)
{
	struct devrig r;

	devrig_init(&r);
	r.f.slots = 2;
	CHECK_EQ(devrig_open(&r), 0);
	devrig_queues(&r, 4);
	CHECK_EQ(libvhost_has_free_slot(r.g.mem), 1);
	CHECK_EQ(libvhost_dev_start(r.dev, NULL), 0);
	CHECK_EQ(devrig_grow(&r, HIGH, 0, NULL), 0);
	CHECK_EQ(libvhost_has_free_slot(r.g.mem), 0);
	fake_arm(&r.f);
	CHECK_EQ(devrig_grow(&r, HIGH * 2, 0, NULL), -ENOSPC);
	CHECK_EQ(libvhost_mem_abort(r.g.mem), 0);
	CHECK_EQ(r.f.nseen, 0);
	CHECK_EQ(devrig_state(&r), LIBVHOST_DEV_RUNNING);
	CHECK_EQ(libvhost_dev_stop(r.dev, NULL), 0);
	devrig_close(&r);
}

/* Neighbours become one region where the peer maps files, not in the kernel; a table of vhost-user has 8 entries. */
TEST(device_memory, what_a_table_cannot_hold_is_refused_before_anything_changes)
{
	static const struct {
		uint32_t dialect, max_regions, apart;
	} cases[] = {{LIBVHOST_DIALECT_KERNEL, 8, 0}, {LIBVHOST_DIALECT_USER, 64, 0x10000}};
	const int fd = memfd(0x10000 * 32, 0);

	for (int n = 0; n < 2; n++) {
		uint32_t added = 0;
		struct devrig r;
		int rc = 0;

		devrig_init(&r);
		r.f.dialect = cases[n].dialect;
		r.f.max_regions = cases[n].max_regions;
		r.f.protocol = 0;
		CHECK_EQ(devrig_open(&r), 0);
		devrig_queues(&r, 2);
		CHECK_EQ(libvhost_dev_start(r.dev, NULL), 0);
		for (; added < 9 && !rc; added++) {
			uint64_t at = added * (0x10000 + (uint64_t)cases[n].apart);

			CHECK_EQ(libvhost_mem_begin(r.g.mem), 0);
			CHECK_EQ(libvhost_mem_add(r.g.mem, &(struct libvhost_region){.gpa = HIGH + at,
										     .size = 0x10000,
										     .mmap_offset = added * 0x10000,
										     .fd = fd,
										     .flags = LIBVHOST_REGION_HAS_FD}),
				 0);
			rc = libvhost_mem_commit(r.g.mem, 0, NULL);
		}
		CHECK_EQ(rc, -ENOSPC);
		CHECK_EQ(added, 8);
		CHECK_EQ(libvhost_mem_abort(r.g.mem), 0);
		CHECK_EQ(devrig_state(&r), LIBVHOST_DEV_RUNNING);
		devrig_close(&r);
	}
	close(fd);
}

TEST(device_memory, a_commit_finds_a_device_busy)
{
	const struct libvhost_call_opts async = {.size = sizeof(async), .flags = LIBVHOST_CALL_ASYNC};
	struct devrig r;

	devrig_init(&r);
	r.f.slow = true;
	CHECK_EQ(devrig_open(&r), 0);
	devrig_queues(&r, 4);
	CHECK_EQ(libvhost_dev_start(r.dev, &async), -EINPROGRESS);
	CHECK_EQ(devrig_grow(&r, HIGH, 0, NULL), -EBUSY);
	CHECK(devrig_await(&r, LIBVHOST_EVENT_DONE, PATIENCE_MS, NULL));
	fake_arm(&r.f);
	CHECK_EQ(libvhost_mem_commit(r.g.mem, 0, NULL), 0);
	CHECK_EQ(fake_count(&r.f, OP(ADD_MEM_REG)), 1);
	devrig_close(&r);
}

/* ---- the dirty log ---- */

#define F_LOG (1ull << 26)

static void log_ready(struct devrig *r)
{
	devrig_init(r);
	r->f.features |= F_LOG;
	r->f.protocol |= 1ull << LIBVHOST_PROTOCOL_F_LOG_SHMFD;
	CHECK_EQ(devrig_open(r), 0);
	devrig_queues(r, DEVRIG_QUEUES);
}

TEST(device_memory, a_log_reaches_running_devices_at_once_and_others_at_their_start)
{
	uint32_t lost = 9;
	struct devrig r;
	char why[8] = "x";

	log_ready(&r);
	CHECK_EQ(libvhost_dev_migration_blocker(r.dev, why, sizeof(why)), 0);
	CHECK_STR(why, "");
	CHECK_EQ(libvhost_dev_start(r.dev, NULL), 0);
	fake_arm(&r.f);
	CHECK_EQ(libvhost_mem_log_start(r.g.mem, 0, &lost), 0);
	CHECK_EQ(lost, 0);
	CHECK_EQ(devrig_logging(&r), 1);
	CHECK_EQ(fake_first(&r.f, OP(SET_LOG_BASE)), 0);
	CHECK_EQ(fake_first(&r.f, OP(SET_FEATURES)), 1);
	CHECK_EQ(fake_count(&r.f, OP(SET_VRING_ADDR)), DEVRIG_QUEUES);
	fake_arm(&r.f);
	CHECK_EQ(devrig_grow(&r, HIGH, 0, &lost), 0); /* the log first, for it must hold the new pages */
	CHECK_EQ(fake_first(&r.f, OP(SET_LOG_BASE)), 0);
	CHECK_EQ(fake_first(&r.f, OP(ADD_MEM_REG)), 1);
	CHECK_EQ(libvhost_dev_stop(r.dev, NULL), 0);
	CHECK_EQ(devrig_logging(&r), 0);
	fake_arm(&r.f);
	CHECK_EQ(libvhost_mem_log_stop(r.g.mem, 0, &lost), 0);
	CHECK_EQ(libvhost_mem_log_start(r.g.mem, 0, &lost), 0);
	CHECK_EQ(r.f.nseen, 0);
	CHECK_EQ(libvhost_dev_start(r.dev, NULL), 0);
	CHECK_EQ(fake_count(&r.f, OP(SET_LOG_BASE)), 1);
	CHECK_EQ(devrig_logging(&r), 1);
	CHECK_EQ(libvhost_mem_log_stop(r.g.mem, 0, &lost), 0);
	CHECK_EQ(devrig_logging(&r), 0);
	devrig_close(&r);
}

/* Marks come behind the writes, so the last one of a peer that died may be missing. */
TEST(device_memory, rings_of_a_peer_that_died_are_dirty)
{
	uint64_t bitmap[DEVRIG_RAM / 4096 / 64] = {0}, pages = 0;
	struct devrig r;

	log_ready(&r);
	CHECK_EQ(libvhost_dev_start(r.dev, NULL), 0);
	CHECK_EQ(libvhost_mem_log_start(r.g.mem, 0, NULL), 0);
	CHECK_EQ(libvhost_dev_stop_queue(r.dev, 0, 0), 0);
	devrig_lose_peer(&r);
	CHECK_EQ(devrig_state(&r), LIBVHOST_DEV_DISCONNECTED);
	CHECK_EQ(libvhost_mem_log_sync(r.g.mem, 0, DEVRIG_RAM, bitmap, &pages), 0);
	CHECK_EQ(pages, DEVRIG_QUEUES - 1); /* one was at rest */
	for (uint32_t i = 0; i < DEVRIG_QUEUES; i++)
		CHECK_EQ(bitmap[0] >> devrig_queue(i).used / 4096 & 1, i > 0);
	devrig_close(&r);
}

/* Its back-end may write pages, and nobody can tell it of a log. */
TEST(device_memory, a_lost_device_blocks_the_migration)
{
	struct devrig r;
	char why[200];

	log_ready(&r);
	CHECK_EQ(libvhost_dev_start(r.dev, NULL), 0);
	fake_arm(&r.f);
	r.f.refuse_at = 0;
	CHECK_EQ(devrig_grow(&r, HIGH, 0, NULL), 0);
	CHECK_EQ(devrig_state(&r), LIBVHOST_DEV_LOST);
	CHECK_EQ(libvhost_dev_migration_blocker(r.dev, why, sizeof(why)), 1);
	CHECK_HAS(why, "lost");
	CHECK_EQ(libvhost_mem_log_start(r.g.mem, 0, NULL), -ENOTSUP);
	CHECK_HAS(last_error(&r.g).text, "lost");
	r.f.refuse_at = FAKE_NEVER;
	CHECK_EQ(libvhost_dev_reconnect(r.dev, NULL), 0);
	CHECK_EQ(libvhost_mem_log_start(r.g.mem, 0, NULL), 0);
	CHECK_EQ(devrig_logging(&r), 1);
	devrig_close(&r);
}

TEST(device_memory, a_device_that_cannot_log_blocks_the_migration_and_says_why)
{
	uint32_t lost = 9;
	char why[200];
	struct devrig r;

	devrig_ready(&r); /* offers neither bit */
	CHECK_EQ(libvhost_dev_start(r.dev, NULL), 0);
	fake_arm(&r.f);
	CHECK_EQ(libvhost_dev_migration_blocker(r.dev, why, sizeof(why)), 1);
	CHECK_HAS(why, "fake:peer");
	CHECK_HAS(why, "VHOST_F_LOG_ALL");
	CHECK_EQ(libvhost_dev_migration_blocker(r.dev, NULL, 0), 1);
	CHECK_EQ(libvhost_dev_migration_blocker(r.dev, NULL, 1), -EINVAL);
	CHECK_EQ(libvhost_dev_migration_blocker(NULL, why, sizeof(why)), -EINVAL);
	CHECK_EQ(libvhost_mem_log_start(r.g.mem, 0, &lost), -ENOTSUP);
	CHECK_HAS(last_error(&r.g).text, "VHOST_F_LOG_ALL");
	CHECK_EQ(last_error(&r.g).kind, LIBVHOST_EK_UNSUPPORTED);
	CHECK_EQ(lost, 9);
	CHECK_EQ(r.f.nseen, 0);
	CHECK_EQ(libvhost_mem_log_stop(r.g.mem, 0, NULL), -EALREADY);
	CHECK_EQ(libvhost_dev_stop(r.dev, NULL), 0); /* released */
	devrig_close(&r);
}

/* What a vDPA device cannot address is refused before anything is sent, and the device runs on. */
TEST(device_memory, a_region_outside_the_iova_range_is_a_refused_commit)
{
	struct devrig r;

	devrig_init(&r);
	r.f.dialect = LIBVHOST_DIALECT_VDPA;
	r.f.features |= F_LOG;
	r.f.max_regions = 64;
	r.f.iova_last = HIGH - 1;
	CHECK_EQ(devrig_open(&r), 0);
	devrig_queues(&r, DEVRIG_QUEUES);
	CHECK_EQ(libvhost_dev_migration_blocker(r.dev, NULL, 0), 1);
	CHECK_EQ(libvhost_dev_start(r.dev, NULL), 0);
	fake_arm(&r.f);
	CHECK_EQ(devrig_grow(&r, HIGH, 0, NULL), -ERANGE);
	CHECK_HAS(last_error(&r.g).text, "outside the addresses");
	CHECK_HAS(devrig_error(&r).text, "0xffffffff");
	CHECK_EQ(libvhost_mem_abort(r.g.mem), 0);
	CHECK_EQ(r.f.nseen, 0);
	CHECK_EQ(devrig_state(&r), LIBVHOST_DEV_RUNNING);
	devrig_close(&r);
}
