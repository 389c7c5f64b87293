/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/*
 * Blobs of earlier versions must thaw for ever: tests/golden/freeze-*.bin are never written again. A new version adds
 * files with its number (WRITE_GOLDEN=FOLDER writes what this one makes) and keeps the old ones in the lists below.
 */
#include "upgrade.h"

#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include "core/wire.h"
#include "device/blob.h"

#define QUEUES 4u

static const char *const running[] = {"freeze-0.1-running"};
static const char *const snapshots[] = {"freeze-0.1-snapshot"};

static void golden_path(char *path, size_t cap, const char *name)
{
	const char *top = getenv("top_srcdir");

	snprintf(path, cap, "%s/tests/golden/%s.bin", top ? top : ".", name);
}

static void load(struct upgrade *u, const char *name)
{
	char path[256];
	FILE *f;

	golden_path(path, sizeof(path), name);
	f = fopen(path, "rbe");
	CHECK(f);
	u->blob = malloc(65536);
	u->len = fread(u->blob, 1, 65536, f);
	fclose(f);
	CHECK(u->len > 0 && u->len < 65536);
}

/* ---- writing ---- */

static void save(const struct upgrade *u, const char *name)
{
	char path[256];
	FILE *f;

	snprintf(path, sizeof(path), "%s/%s.bin", getenv("WRITE_GOLDEN"), name);
	f = fopen(path, "wbe");
	CHECK(f);
	CHECK_EQ(fwrite(u->blob, 1, u->len, f), u->len);
	CHECK_EQ(fclose(f), 0);
}

/* Everything that a device can have at once. */
static void open_full(struct upgrade *u)
{
	const struct libvhost_reconnect_policy policy = {.size = sizeof(policy),
							 .mode = LIBVHOST_RECONNECT_LIMITED,
							 .attempts = 7,
							 .first_ms = 50,
							 .max_ms = 900};
	uint64_t features = 1ull << 32;
	uint8_t config[8];

	up_init(u);
	snprintf(u->w.path, sizeof(u->w.path), "/tmp/libvhost-golden.sock");
	snprintf(u->w.uri, sizeof(u->w.uri), "user:%s", u->w.path);
	u->w.r.opts.num_queues = QUEUES;
	u->w.r.opts.config_size = 60;
	u->w.r.opts.virtio_id = 2;
	u->w.r.opts.flags = LIBVHOST_DEV_INFLIGHT | LIBVHOST_DEV_HOST_NOTIFIERS | LIBVHOST_DEV_SHARED_OBJECTS |
			    LIBVHOST_DEV_AUTO_RECONNECT;
	wirerig_open(&u->w);
	CHECK_EQ(libvhost_ack_features_ex(u->w.r.dev, &features, 1), 0);
	CHECK_EQ(libvhost_dev_get_config(u->w.r.dev, 0, config, sizeof(config), 0), 0);
	CHECK_EQ(libvhost_dev_set_reconnect(u->w.r.dev, &policy), 0);
	CHECK_EQ(libvhost_dev_start(u->w.r.dev, NULL), 0);
}

static void write_running(void)
{
	const uint8_t half[5] = {[0] = ASK_CONFIG_CHANGE, [4] = WIRE_ASK};
	struct lv_wire_msg msg = {.data = half, .len = sizeof(half)};
	struct upgrade u;
	size_t off = 0;
	int file, irq;

	open_full(&u);
	file = memfd(2 * PAGE, 0);
	irq = lv_eventfd();
	CHECK_EQ(libvhost_dev_set_config_call(u.w.r.dev, irq), 0);
	CHECK_EQ(libvhost_virtqueue_mask(u.w.r.dev, 1, 1), 0);
	u.w.p.ring[3].base = 21;
	CHECK_EQ(libvhost_dev_stop_queue(u.w.r.dev, 3, 0), 0);
	CHECK_EQ(wirerig_ask_area(&u.w, 2, PAGE, PAGE, file), 0);
	CHECK_EQ(wirerig_ask_uuid(&u.w, ASK_OBJECT_ADD, 5, NULL), 0);
	CHECK_EQ(lv_wire_send(u.w.p.channel, &msg, 1, &off), 1);
	CHECK_EQ(libvhost_dev_dispatch(u.w.r.dev, 100), 0);
	CHECK_EQ(up_freeze(&u, 0), 0);
	save(&u, running[0]);
	up_drop(&u);
	close(file);
	close(irq);
	up_close(&u);
}

static void write_snapshot(void)
{
	const uint8_t mark = 0x5a;
	struct libvhost_inflight i = {.size = sizeof(i)};
	struct upgrade u;

	open_full(&u);
	u.w.p.ring[2].base = 13;
	CHECK_EQ(libvhost_dev_stop(u.w.r.dev, NULL), 0);
	CHECK_EQ(libvhost_dev_get_inflight(u.w.r.dev, &i), 0);
	CHECK_EQ(pwrite(i.fd, &mark, 1, (off_t)i.mmap_offset + 77), 1);
	CHECK_EQ(up_freeze(&u, LIBVHOST_FREEZE_SNAPSHOT), 0);
	save(&u, snapshots[0]);
	up_drop(&u);
	up_close(&u);
}

/* ---- thawing ---- */

static void check_info(struct upgrade *u, uint32_t flags)
{
	struct libvhost_freeze_info i = {.size = sizeof(i)};

	CHECK_EQ(libvhost_freeze_info(u->w.r.g.ctx, u->blob, u->len, &i), 0);
	CHECK_EQ(i.major, 1);
	CHECK_EQ(i.flags, flags);
	CHECK_EQ(i.virtio_id, 2);
	CHECK_EQ(i.num_queues, QUEUES);
	CHECK_EQ(i.running, !flags);
	CHECK_STR(i.uri, "user:/tmp/libvhost-golden.sock");
}

static int make_fd(struct upgrade *u, const struct lv_blob *b, uint32_t kind)
{
	int pair[2];

	switch (kind) {
	case LV_BLOB_FD_CONTROL:
		return lv_fd_dup(puppet_front(&u->w.p));
	case LV_BLOB_FD_CHANNEL:
		CHECK_EQ(lv_wire_pair(pair), 0);
		atomic_store(&u->w.p.channel, pair[1]);
		return pair[0];
	case LV_BLOB_FD_INFLIGHT:
		return memfd(b->rec->inflight_bytes + b->rec->inflight_offset, 0);
	case LV_BLOB_FD_DOORBELL:
		return memfd(2 * PAGE, 0);
	default:
		return lv_eventfd();
	}
}

static void put_le(uint8_t *at, uint64_t value)
{
	for (unsigned i = 0; i < 8; i++)
		at[i] = (uint8_t)(value >> 8 * i);
}

/* The one region is a file of this test now. */
static void adopt_memory(struct upgrade *u)
{
	struct libvhost_region r;
	uint32_t count = 1;
	struct stat st;

	CHECK_EQ(libvhost_mem_regions(u->w.r.g.mem, &r, &count), 0);
	CHECK_EQ(fstat(r.fd, &st), 0);
	for (size_t at = LV_BLOB_HEADER; at < u->len;) {
		uint64_t bytes = 0;

		for (unsigned i = 8; i--;)
			bytes = bytes << 8 | u->blob[at + 8 + i];
		if (u->blob[at] == LV_BLOB_MEMORY) {
			put_le(u->blob + at + 16 + 8 + 32, st.st_dev);
			put_le(u->blob + at + 16 + 8 + 40, st.st_ino);
		}
		at += 16 + (bytes + 7) / 8 * 8;
	}
	up_seal(u);
}

static void thaw_running(const char *name)
{
	const uint8_t rest[LV_USER_HDR - 5] = {0};
	struct lv_wire_msg msg = {.data = rest, .len = sizeof(rest)};
	struct libvhost_doorbell bell = {.size = sizeof(bell)};
	struct libvhost_queue q = {.size = sizeof(q)};
	struct lv_blob *b = NULL;
	struct upgrade u;
	size_t off = 0;

	up_init(&u);
	puppet_start(&u.w.p);
	load(&u, name);
	check_info(&u, 0);
	CHECK_EQ(lv_blob_decode(NULL, u.blob, u.len, &b), 0);
	u.nfds = b->nfds;
	for (uint32_t i = 0; i < b->nfds; i++)
		u.fds[i] = make_fd(&u, b, b->fds[i].kind);
	u.w.p.session = (struct lv_user_session){b->rec->protocol_acked, true, true};
	lv_blob_free(b);
	adopt_memory(&u);
	up_next_guest(&u);
	u.thaw.dev_flags = LIBVHOST_DEV_AUTO_RECONNECT;
	CHECK_EQ(up_thaw(&u), 0);
	CHECK_EQ(devrig_state(&u.w.r), LIBVHOST_DEV_RUNNING);
	CHECK_EQ(libvhost_dev_get_queue(u.w.r.dev, 1, &q), 0);
	CHECK_EQ(q.masked, 1);
	CHECK_EQ(libvhost_dev_get_queue(u.w.r.dev, 3, &q), 0);
	CHECK_EQ(q.running, 0);
	CHECK_EQ(q.base, 21);
	CHECK_EQ(libvhost_dev_doorbell(u.w.r.dev, 2, &bell), 0);
	CHECK_EQ(bell.offset, PAGE);
	CHECK_EQ(lv_wire_send(u.w.p.channel, &msg, 1, &off), 1);
	CHECK_EQ(libvhost_dev_dispatch(u.w.r.dev, 100), 0);
	CHECK_EQ(wirerig_answer(u.w.p.channel, 1000, NULL), 0);
	CHECK_EQ(devrig_events(&u.w.r, LIBVHOST_EVENT_CONFIG_CHANGE, NULL), 1);
	u.w.p.ring[0].base = 99;
	CHECK_EQ(libvhost_dev_stop(u.w.r.dev, NULL), 0);
	CHECK_EQ(libvhost_dev_get_queue(u.w.r.dev, 0, &q), 0);
	CHECK_EQ(q.base, 99);
	libvhost_dev_cleanup(u.w.r.dev);
	lv_fd_close(atomic_exchange(&u.w.p.channel, -1));
	puppet_stop(&u.w.p);
	guest_free(&u.w.r.g);
	CHECK_LEDGER(u.w.r.before);
}

static void thaw_snapshot(const char *name)
{
	struct libvhost_inflight i = {.size = sizeof(i)};
	struct upgrade u;
	uint8_t mark = 0;

	up_init(&u);
	wirerig_listen(&u.w);
	load(&u, name);
	check_info(&u, LIBVHOST_FREEZE_SNAPSHOT);
	up_next_guest(&u);
	u.thaw.uri = u.w.uri;
	u.thaw.flags = LIBVHOST_THAW_START;
	CHECK_EQ(up_thaw(&u), 0);
	CHECK_EQ(devrig_state(&u.w.r), LIBVHOST_DEV_RUNNING);
	CHECK_EQ(u.w.p.ring[2].base, 13);
	CHECK_EQ(libvhost_dev_get_inflight(u.w.r.dev, &i), 0);
	CHECK_EQ(pread(i.fd, &mark, 1, (off_t)i.mmap_offset + 77), 1);
	CHECK_EQ(mark, 0x5a);
	up_close(&u);
}

TEST(device_thaw, blobs_of_running_devices_thaw_for_ever)
{
	if (getenv("WRITE_GOLDEN"))
		write_running();
	for (size_t i = 0; i < sizeof(running) / sizeof(running[0]); i++)
		thaw_running(running[i]);
}

TEST(device_thaw, snapshots_thaw_for_ever)
{
	if (getenv("WRITE_GOLDEN"))
		write_snapshot();
	for (size_t i = 0; i < sizeof(snapshots) / sizeof(snapshots[0]); i++)
		thaw_snapshot(snapshots[i]);
}
