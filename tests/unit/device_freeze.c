/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* Live upgrade on a real socket: what the peer sees (nothing), what the thawed device can do (everything). */
#include "upgrade.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>
#include <vhost/inflight.h>
#include "core/wire.h"

#define OP(name) LIBVHOST_OP_##name

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static struct libvhost_dev_info info(struct upgrade *u)
{
	struct libvhost_dev_info i = {.size = sizeof(i)};

	CHECK_EQ(libvhost_dev_info(u->w.r.dev, &i), 0);
	return i;
}

TEST(device_freeze, the_peer_sees_nothing_and_everything_works_afterwards)
{
	struct libvhost_queue q = {.size = sizeof(q)};
	uint64_t features = 1ull << 32;
	struct upgrade u;
	uint8_t byte;
	unsigned told;

	up_init(&u);
	u.w.p.features |= 1ull << 35;
	puppet_listen(&u.w.p, u.w.path);
	CHECK_EQ(devrig_open(&u.w.r), 0);
	CHECK_EQ(libvhost_ack_features_ex(u.w.r.dev, &features, 1), 0);
	devrig_queues(&u.w.r, 4);
	CHECK_EQ(libvhost_dev_start(u.w.r.dev, NULL), 0);
	told = atomic_load(&u.w.p.messages);
	for (int i = 0; i < 3; i++) {
		const struct libvhost_dev_info before = info(&u);

		up_hop(&u);
		CHECK_EQ(info(&u).state, LIBVHOST_DEV_RUNNING);
		CHECK_EQ(info(&u).generation, before.generation);
		CHECK_EQ(info(&u).features[0], before.features[0]);
		CHECK_EQ(info(&u).acked_features[0], features);
		CHECK_EQ(info(&u).acked_protocol_features, before.acked_protocol_features);
		CHECK_EQ(info(&u).max_regions, before.max_regions);
		for (int k = 0; k < 5; k++)
			CHECK_EQ(libvhost_dev_dispatch(u.w.r.dev, 2), 0);
		CHECK_EQ(atomic_load(&u.w.p.messages), told);
	}
	CHECK_EQ(atomic_load(&u.w.p.sessions), 1);
	/* descriptors are the same files */
	CHECK_EQ(libvhost_dev_get_queue(u.w.r.dev, 2, &q), 0);
	CHECK(fcntl(q.kick_fd, F_GETFD) & FD_CLOEXEC);
	CHECK_EQ(lv_eventfd_signal(u.w.p.ring[2].call), 0);
	CHECK_EQ(lv_eventfd_drain(q.call_fd), 1);
	CHECK_EQ(lv_eventfd_signal(q.kick_fd), 0);
	CHECK_EQ(lv_eventfd_drain(u.w.p.ring[2].kick), 1);
	/* the connection lives */
	CHECK_EQ(libvhost_dev_get_config(u.w.r.dev, 7, &byte, 1, 0), 0);
	CHECK_EQ(byte, 7);
	CHECK_EQ(libvhost_virtqueue_mask(u.w.r.dev, 1, 1), 0);
	CHECK_EQ(libvhost_virtqueue_mask(u.w.r.dev, 1, 0), 0);
	u.w.p.ring[3].base = 77;
	CHECK_EQ(libvhost_dev_stop(u.w.r.dev, NULL), 0);
	CHECK_EQ(libvhost_dev_get_queue(u.w.r.dev, 3, &q), 0);
	CHECK_EQ(q.base, 77);
	CHECK_EQ(libvhost_dev_start(u.w.r.dev, NULL), 0);
	CHECK_EQ(atomic_load(&u.w.p.sessions), 1);
	up_close(&u);
}

TEST(device_freeze, the_frozen_device_is_only_good_for_cleanup)
{
	struct libvhost_queue q = {.size = sizeof(q)};
	uint32_t nfds = 0;
	struct upgrade u;
	size_t len = 0;
	uint8_t byte;

	up_init(&u);
	u.w.r.opts.flags = LIBVHOST_DEV_AUTO_RECONNECT;
	up_open(&u, 4, true);
	CHECK(libvhost_dev_fd(u.w.r.dev) >= 0);
	CHECK_EQ(up_freeze(&u, 0), 0);
	CHECK_EQ(devrig_state(&u.w.r), LIBVHOST_DEV_DISCONNECTED);
	CHECK_EQ(libvhost_dev_freeze(u.w.r.dev, 0, NULL, &len, NULL, &nfds), -EINVAL);
	CHECK_EQ(libvhost_dev_dispatch(u.w.r.dev, 5), 0);
	CHECK_EQ(libvhost_dev_get_config(u.w.r.dev, 0, &byte, 1, 0), -ENOTCONN);
	CHECK_EQ(libvhost_dev_reconnect(u.w.r.dev, NULL), -ENOTSUP);
	CHECK_EQ(libvhost_dev_force_stop(u.w.r.dev), -EALREADY);
	CHECK_EQ(libvhost_dev_get_queue(u.w.r.dev, 0, &q), 0);
	CHECK_EQ(q.kick_fd, -1);
	CHECK_EQ(libvhost_mem_begin(u.w.r.g.mem), 0);
	CHECK_EQ(libvhost_mem_alloc(u.w.r.g.mem, 1ull << 32, 0x10000), 0);
	CHECK_EQ(libvhost_mem_commit(u.w.r.g.mem, 0, NULL), 0);
	CHECK_EQ(atomic_load(&u.w.p.sessions), 1);
	/* the peer still has its connection: only closing what freeze handed out ends it */
	for (uint32_t i = 0; i < u.nfds; i++)
		CHECK(fcntl(u.fds[i], F_GETFD) >= 0);
	up_drop(&u);
	up_close(&u);
}

TEST(device_freeze, room_is_told_and_nothing_changes_without_it)
{
	uint32_t nfds = 0, all;
	struct upgrade u;
	uint8_t blob[16384], byte;
	size_t len = 0, whole;
	int fds[64];

	up_init(&u);
	up_open(&u, 4, true);
	CHECK_EQ(libvhost_dev_freeze(u.w.r.dev, 0, NULL, &len, NULL, &nfds), 0);
	CHECK(len > 100 && len < sizeof(blob));
	CHECK_EQ(nfds, 2 + 4 * 3); /* control, channel; kick, call, err of each queue */
	whole = len;
	all = nfds;
	len--;
	CHECK_EQ(libvhost_dev_freeze(u.w.r.dev, 0, blob, &len, fds, &nfds), -ENOSPC);
	CHECK_EQ(len, whole);
	nfds--;
	CHECK_EQ(libvhost_dev_freeze(u.w.r.dev, 0, blob, &len, fds, &nfds), -ENOSPC);
	CHECK_EQ(nfds, all);
	CHECK_EQ(libvhost_dev_freeze(u.w.r.dev, 8, blob, &len, fds, &nfds), -EINVAL);
	CHECK_EQ(libvhost_dev_freeze(u.w.r.dev, LIBVHOST_FREEZE_SNAPSHOT, blob, &len, fds, &nfds), -EBUSY);
	CHECK_EQ(libvhost_dev_freeze(u.w.r.dev, 0, blob, &len, NULL, &nfds), -EINVAL);
	CHECK_EQ(devrig_state(&u.w.r), LIBVHOST_DEV_RUNNING);
	CHECK_EQ(libvhost_dev_get_config(u.w.r.dev, 0, &byte, 1, 0), 0);
	CHECK_EQ(libvhost_dev_stop(u.w.r.dev, NULL), 0);
	up_close(&u);
}

TEST(device_freeze, a_stopped_device_hops_too)
{
	struct libvhost_queue q = {.size = sizeof(q)};
	struct upgrade u;

	up_init(&u);
	up_open(&u, 4, true);
	u.w.p.ring[1].base = 9;
	CHECK_EQ(libvhost_dev_stop(u.w.r.dev, NULL), 0);
	up_hop(&u);
	CHECK_EQ(devrig_state(&u.w.r), LIBVHOST_DEV_NEGOTIATED);
	CHECK_EQ(libvhost_dev_get_queue(u.w.r.dev, 1, &q), 0);
	CHECK_EQ(q.base, 9);
	CHECK_EQ(libvhost_dev_start(u.w.r.dev, NULL), 0);
	CHECK_EQ(u.w.p.ring[1].base, 9);
	CHECK_EQ(u.w.p.regions, 1); /* nothing was added twice */
	up_close(&u);
}

/* A device that never ran: no memory at the peer, nothing to compare. */
TEST(device_freeze, a_fresh_device_hops_too)
{
	struct upgrade u;

	up_init(&u);
	up_open(&u, 4, false);
	up_hop(&u);
	CHECK_EQ(devrig_state(&u.w.r), LIBVHOST_DEV_NEGOTIATED);
	CHECK_EQ(libvhost_dev_start(u.w.r.dev, NULL), 0);
	CHECK_EQ(u.w.p.regions, 1);
	up_close(&u);
}

TEST(device_freeze, a_thawed_device_reconnects)
{
	struct libvhost_event e;
	struct upgrade u;

	up_init(&u);
	up_open(&u, 4, true);
	CHECK_EQ(up_freeze(&u, 0), 0);
	up_next_guest(&u);
	u.thaw.dev_flags = LIBVHOST_DEV_AUTO_RECONNECT;
	CHECK_EQ(up_thaw(&u), 0);
	puppet_kill(&u.w.p);
	CHECK(devrig_await(&u.w.r, LIBVHOST_EVENT_RECONNECTED, 3000, &e));
	CHECK_EQ(devrig_state(&u.w.r), LIBVHOST_DEV_RUNNING);
	CHECK_EQ(info(&u).generation, 2);
	CHECK_EQ(atomic_load(&u.w.p.sessions), 2);
	up_hop(&u);
	CHECK_EQ(libvhost_dev_stop(u.w.r.dev, NULL), 0);
	up_close(&u);
}

TEST(device_freeze, comes_back_at_another_place)
{
	struct puppet other;
	struct upgrade u;
	char path[80], uri[96];

	up_init(&u);
	up_open(&u, 4, true);
	snprintf(path, sizeof(path), "%s.2", u.w.path);
	snprintf(uri, sizeof(uri), "user:%s", path);
	puppet_init(&other);
	other.protocol_features = u.w.p.protocol_features;
	puppet_listen(&other, path);
	CHECK_EQ(up_freeze(&u, 0), 0);
	up_next_guest(&u);
	u.thaw.uri = uri;
	CHECK_EQ(up_thaw(&u), 0);
	CHECK_EQ(atomic_load(&other.sessions), 0);
	CHECK_EQ(libvhost_dev_reconnect(u.w.r.dev, NULL), 0);
	CHECK_EQ(atomic_load(&other.sessions), 1);
	CHECK_EQ(devrig_state(&u.w.r), LIBVHOST_DEV_RUNNING);
	libvhost_dev_cleanup(u.w.r.dev);
	u.w.r.dev = NULL;
	puppet_stop(&other);
	up_close(&u);
}

TEST(device_freeze, a_change_on_its_way_arrives_after_the_thaw)
{
	struct lv_user_hdr hdr;
	struct upgrade u;
	uint64_t ack = 1;

	up_init(&u);
	up_open(&u, 4, true);
	puppet_send(u.w.p.channel, ASK_CONFIG_CHANGE, WIRE_ASK, 0, NULL, 0, NULL, 0);
	up_hop(&u);
	CHECK_EQ(devrig_events(&u.w.r, LIBVHOST_EVENT_CONFIG_CHANGE, NULL), 0);
	CHECK_EQ(libvhost_dev_dispatch(u.w.r.dev, 100), 0);
	CHECK_EQ(devrig_events(&u.w.r, LIBVHOST_EVENT_CONFIG_CHANGE, NULL), 1);
	CHECK_EQ(puppet_recv(u.w.p.channel, 1000, &hdr, &ack, sizeof(ack), NULL), 8);
	CHECK_EQ(ack, 0);
	up_close(&u);
}

static int answer_lookup(void *arg, struct libvhost_req *req)
{
	(void)arg;
	req->out_fd = memfd(4096, 0);
	req->out_flags = LIBVHOST_REQ_OUT_FD;
	return 0;
}

static void send_part(int sock, const void *bytes, uint32_t len, const int *fds, uint32_t nfds)
{
	struct lv_wire_msg msg = {.data = bytes, .len = len, .nfds = nfds};
	size_t off = 0;

	if (nfds)
		msg.fds[0] = fds[0];
	CHECK_EQ(lv_wire_send(sock, &msg, 1, &off), 1);
}

/* Cut at each byte: header, its border, payload; the descriptor came with the first half. */
TEST(device_freeze, a_request_read_in_part_is_read_to_its_end_elsewhere)
{
	const struct lv_user_hdr ask = {.request = ASK_OBJECT_LOOKUP, .flags = WIRE_ASK, .size = 16};
	const int fd = STDERR_FILENO;
	uint8_t bytes[LV_USER_HDR + 16] = {0};
	struct upgrade u;

	up_init(&u);
	u.w.ops.on_request = answer_lookup;
	up_open(&u, 4, true);
	lv_user_hdr_put(bytes, &ask);
	for (uint32_t cut = 1; cut < sizeof(bytes); cut++) {
		struct lv_user_hdr hdr;
		uint32_t nfds = 0;
		uint64_t ack = 1;

		send_part(u.w.p.channel, bytes, cut, &fd, cut % 2);
		CHECK_EQ(libvhost_dev_dispatch(u.w.r.dev, 100), 0);
		up_hop(&u);
		CHECK_EQ(libvhost_dev_dispatch(u.w.r.dev, 0), 0);
		send_part(u.w.p.channel, bytes + cut, (uint32_t)sizeof(bytes) - cut, NULL, 0);
		CHECK_EQ(libvhost_dev_dispatch(u.w.r.dev, 100), 0);
		CHECK_EQ(puppet_recv(u.w.p.channel, 1000, &hdr, &ack, sizeof(ack), &nfds), 8);
		CHECK_EQ(ack, cut % 2 ? EINVAL : 0); /* a look-up carries no descriptor */
		CHECK_EQ(nfds, cut % 2 ? 0 : 1);
	}
	up_close(&u);
}

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SLOWER 10u
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define SLOWER 10u
#endif
#endif
#ifndef SLOWER
#define SLOWER 1u
#endif

/* The least of some rounds: what it costs, not what else the machine does. */
TEST(device_freeze, takes_two_milliseconds_for_64_queues)
{
	uint64_t best = UINT64_MAX;
	struct upgrade u;

	up_init(&u);
	up_open(&u, 64, true);
	for (int i = 0; i < 10; i++) {
		uint64_t took = now_ns();

		CHECK_EQ(up_freeze(&u, 0), 0);
		took = now_ns() - took;
		up_next_guest(&u);
		took = now_ns() - took;
		CHECK_EQ(up_thaw(&u), 0);
		took = now_ns() - took;
		best = took < best ? took : best;
	}
	printf("# freeze and thaw of 64 queues: %llu us\n", (unsigned long long)(best / 1000));
	CHECK(best <= 2000000u * SLOWER);
	up_close(&u);
}

/* Refused with everything as it was: the descriptors are the caller's, and the same blob works in the right place. */
static void refused(struct upgrade *u, int code, const char *text)
{
	struct libvhost_error e = {.size = sizeof(e)};
	struct libvhost_dev *dev = NULL;

	CHECK_EQ(libvhost_dev_thaw(u->next.ctx, &u->thaw, &dev), code);
	CHECK(!dev);
	CHECK_EQ(libvhost_ctx_error(u->next.ctx, &e), 0);
	CHECK_EQ(e.code, code);
	CHECK_HAS(e.text, text);
}

/* ---- what the back-end shares ---- */

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

static struct libvhost_inflight region_of(struct upgrade *u)
{
	struct libvhost_inflight i = {.size = sizeof(i)};

	CHECK_EQ(libvhost_dev_get_inflight(u->w.r.dev, &i), 0);
	return i;
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
	was = region_of(&u);
	CHECK_EQ(fstat(was.fd, &before), 0);
	up_hop(&u);
	up_hop(&u);
	CHECK_EQ(fstat(region_of(&u).fd, &after), 0);
	CHECK_EQ(after.st_ino, before.st_ino);
	CHECK_EQ(region_of(&u).mmap_size, was.mmap_size);
	CHECK_EQ(region_of(&u).num_queues, was.num_queues);
	CHECK_EQ(region_of(&u).queue_size, was.queue_size);
	puppet_kill(&u.w.p);
	while (devrig_state(&u.w.r) == LIBVHOST_DEV_RUNNING)
		CHECK_EQ(libvhost_dev_dispatch(u.w.r.dev, 50), 0);
	CHECK_EQ(libvhost_dev_reconnect(u.w.r.dev, NULL), 0);
	CHECK(devrig_await(&u.w.r, LIBVHOST_EVENT_RECONNECTED, 100, &e));
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
	CHECK_EQ(info(&u).logging, 1);
	CHECK_EQ(libvhost_mem_log_mark(u.w.r.g.mem, 0x5000, 1), 0);
	old = u.w.r.g;
	CHECK_EQ(up_freeze(&u, 0), 0);
	CHECK_EQ(libvhost_mem_log_mark(old.mem, 0x9000, 1), 0); /* as a peer that goes on working would */
	up_next_guest(&u);
	CHECK_EQ(up_thaw(&u), 0);
	CHECK_EQ(info(&u).logging, 1);
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
	CHECK_EQ(info(&u).logging, 0);
	up_hop(&u);
	CHECK_EQ(libvhost_dev_stop(u.w.r.dev, NULL), 0);
	up_close(&u);
}

TEST(device_freeze, refuses_another_log)
{
	struct upgrade u;

	up_init(&u);
	u.w.p.features |= 1ull << 26;
	up_open(&u, 3, true);
	CHECK_EQ(up_freeze(&u, 0), 0);
	up_next_guest(&u);
	CHECK_EQ(libvhost_mem_log_start(u.next.mem, 0, NULL), 0);
	refused(&u, -EFAULT, "does not");
	CHECK_EQ(libvhost_mem_log_stop(u.next.mem, 0, NULL), 0);
	CHECK_EQ(up_thaw(&u), 0);
	CHECK_EQ(libvhost_mem_log_start(u.w.r.g.mem, 0, NULL), 0);
	CHECK_EQ(up_freeze(&u, 0), 0);
	up_next_guest(&u);
	CHECK_EQ(libvhost_mem_log_start(u.next.mem, 0, NULL), 0);
	refused(&u, -EFAULT, "another file");
	CHECK_EQ(libvhost_mem_log_stop(u.next.mem, 0, NULL), 0);
	CHECK_EQ(up_thaw(&u), 0);
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

TEST(device_freeze, queues_stopped_by_themselves_stay_so)
{
	struct libvhost_queue q = {.size = sizeof(q)};
	struct upgrade u;

	up_init(&u);
	up_open(&u, 3, true);
	u.w.p.ring[1].base = 5;
	CHECK_EQ(libvhost_dev_stop_queue(u.w.r.dev, 1, 0), 0);
	up_hop(&u);
	CHECK_EQ(libvhost_dev_get_queue(u.w.r.dev, 1, &q), 0);
	CHECK_EQ(q.running, 0);
	CHECK_EQ(q.base, 5);
	CHECK_EQ(libvhost_dev_get_queue(u.w.r.dev, 2, &q), 0);
	CHECK_EQ(q.running, 1);
	CHECK_EQ(libvhost_dev_start_queue(u.w.r.dev, 1, 0), 0);
	up_close(&u);
}

TEST(device_freeze, a_shared_object_in_the_way_is_an_error)
{
	struct upgrade u;
	uint8_t uuid[16];

	up_init(&u);
	u.w.r.opts.flags = LIBVHOST_DEV_SHARED_OBJECTS;
	up_open(&u, 3, true);
	CHECK_EQ(wirerig_ask_uuid(&u.w, ASK_OBJECT_ADD, 7, NULL), 0);
	CHECK_EQ(up_freeze(&u, 0), 0);
	up_next_guest(&u);
	wirerig_uuid(uuid, 7);
	CHECK_EQ(libvhost_shared_object_add(u.next.ctx, uuid, STDERR_FILENO), 0);
	refused(&u, -EEXIST, "shared object");
	CHECK_EQ(libvhost_shared_object_remove(u.next.ctx, uuid), 0);
	CHECK_EQ(up_thaw(&u), 0);
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

/* ---- thaws that must not happen ---- */

TEST(device_freeze, refuses_other_descriptors)
{
	struct upgrade u;
	int swap, file;

	up_init(&u);
	up_open(&u, 4, true);
	CHECK_EQ(up_freeze(&u, 0), 0);
	up_next_guest(&u);
	u.thaw.nfds--;
	refused(&u, -EINVAL, "descriptors were given");
	u.thaw.nfds++;
	swap = u.fds[0];
	u.fds[0] = u.fds[2];
	u.fds[2] = swap;
	refused(&u, -EINVAL, "connected unix stream socket");
	u.fds[2] = u.fds[0];
	refused(&u, -EINVAL, "connected unix stream socket");
	u.fds[0] = swap;
	file = u.fds[2];
	u.fds[2] = u.fds[3];
	refused(&u, -EINVAL, "given twice");
	u.fds[2] = memfd(4096, 0);
	refused(&u, -EINVAL, "eventfd");
	close(u.fds[2]);
	u.fds[2] = 1000000;
	refused(&u, -EINVAL, "not open");
	u.fds[2] = file;
	u.thaw.flags = LIBVHOST_THAW_START;
	refused(&u, -EINVAL, "START");
	u.thaw.flags = 0;
	u.thaw.dev_flags = LIBVHOST_DEV_USE_SHMEM;
	refused(&u, -EINVAL, "options");
	u.thaw.dev_flags = 0;
	CHECK_EQ(up_thaw(&u), 0);
	CHECK_EQ(libvhost_dev_stop(u.w.r.dev, NULL), 0);
	up_close(&u);
}

TEST(device_freeze, refuses_other_memory)
{
	struct libvhost_region regions[4];
	uint32_t count = 4;
	struct upgrade u;
	struct guest good;

	up_init(&u);
	up_open(&u, 4, true);
	CHECK_EQ(up_freeze(&u, 0), 0);
	up_next_guest(&u);
	good = u.next;
	CHECK_EQ(libvhost_mem_regions(good.mem, regions, &count), 0);
	for (int kind = 0; kind < 5; kind++) {
		struct libvhost_region reg = regions[0];
		int fd = memfd(DEVRIG_RAM, 0);

		reg.user_addr = 0;
		reg.fd = kind == 0 ? fd : reg.fd;		/* another file */
		reg.size = kind == 1 ? reg.size / 2 : reg.size; /* less of it */
		reg.gpa = kind == 2 ? 1ull << 32 : 0;		/* elsewhere */
		u.next = guest_new(kind == 3 ? LIBVHOST_MEM_EXPOSE_ADDRESSES : 0);
		put(&u.next, reg);
		if (kind == 4) /* more than the peer has */
			put(&u.next, region(fd, 1ull << 32, DEVRIG_RAM, 0));
		u.thaw.mem = u.next.mem;
		refused(&u, -EFAULT, kind == 4 ? "which the peer has not" : "which this map has not");
		guest_free(&u.next);
		close(fd);
	}
	u.next = good;
	u.thaw.mem = good.mem;
	CHECK_EQ(up_thaw(&u), 0);
	CHECK_EQ(libvhost_dev_stop(u.w.r.dev, NULL), 0);
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
	refused(&u, -EPERM, "queue 2");
	CHECK_EQ(bound, 0);
	bind_fails_at = UINT32_MAX;
	CHECK_EQ(up_thaw(&u), 0);
	CHECK_EQ(bound, 7);
	CHECK_EQ(libvhost_dev_stop(u.w.r.dev, NULL), 0);
	CHECK_EQ(libvhost_dev_disable_notifiers(u.w.r.dev), 0);
	CHECK_EQ(bound, 0);
	up_close(&u);
}

/* ---- freezes that must not happen ---- */

TEST(device_freeze, refuses_while_an_answer_is_on_its_way)
{
	const struct libvhost_call_opts brief = {.size = sizeof(brief), .timeout_ms = 30};
	uint32_t nfds = 0;
	struct upgrade u;
	size_t len = 0;
	uint8_t byte;

	(void)brief;
	up_init(&u);
	puppet_fault(&u.w.p, (struct puppet_fault){.op = OP(GET_CONFIG), .what = PUPPET_LATE, .arg = 200});
	up_open(&u, 4, true);
	CHECK_EQ(libvhost_dev_get_config(u.w.r.dev, 0, &byte, 1, 30), -ETIMEDOUT);
	CHECK_EQ(libvhost_dev_freeze(u.w.r.dev, 0, NULL, &len, NULL, &nfds), -EBUSY);
	CHECK_HAS(devrig_error(&u.w.r).text, "on its way");
	while (libvhost_dev_freeze(u.w.r.dev, 0, NULL, &len, NULL, &nfds) == -EBUSY)
		CHECK_EQ(libvhost_dev_dispatch(u.w.r.dev, 50), 0);
	up_hop(&u);
	CHECK_EQ(libvhost_dev_get_config(u.w.r.dev, 5, &byte, 1, 0), 0);
	CHECK_EQ(byte, 5);
	up_close(&u);
}

/* The peer asks and asks and never reads an answer: there comes one that cannot be sent. */
TEST(device_freeze, refuses_while_our_answer_is_not_sent)
{
	const struct lv_user_hdr ask = {.request = ASK_CONFIG_CHANGE, .flags = WIRE_ASK};
	uint32_t nfds = 0;
	uint8_t bytes[LV_USER_HDR];
	struct lv_wire_msg msg = {.data = bytes, .len = sizeof(bytes)};
	struct upgrade u;
	size_t len = 0;
	int rc = 0;

	up_init(&u);
	up_open(&u, 4, true);
	lv_user_hdr_put(bytes, &ask);
	for (int i = 0; i < 200000 && !rc; i++) {
		size_t off = 0;

		(void)lv_wire_send(u.w.p.channel, &msg, 1, &off);
		CHECK_EQ(libvhost_dev_dispatch(u.w.r.dev, 0), 0);
		devrig_events(&u.w.r, LIBVHOST_EVENT_CONFIG_CHANGE, NULL);
		rc = libvhost_dev_freeze(u.w.r.dev, 0, NULL, &len, NULL, &nfds);
	}
	CHECK_EQ(rc, -EBUSY);
	CHECK_HAS(devrig_error(&u.w.r).text, "not sent");
	up_close(&u);
}

static int freeze_inside(void *arg, struct libvhost_req *req)
{
	struct upgrade *u = arg;
	uint32_t nfds = 0;
	size_t len = 0;

	(void)req;
	CHECK_EQ(libvhost_dev_freeze(u->w.r.dev, 0, NULL, &len, NULL, &nfds), -EBUSY);
	return -ENOTSUP;
}

TEST(device_freeze, refuses_from_a_callback)
{
	struct upgrade u;
	uint8_t uuid[16] = {0};

	up_init(&u);
	u.w.ops.on_request = freeze_inside;
	up_open(&u, 4, true);
	puppet_send(u.w.p.channel, ASK_OBJECT_LOOKUP, WIRE_ASK, 16, uuid, 16, NULL, 0);
	CHECK_EQ(libvhost_dev_dispatch(u.w.r.dev, 100), 0);
	up_close(&u);
}

TEST(device_freeze, refuses_what_cannot_be_handed_over)
{
	uint32_t nfds = 0;
	struct devrig r;
	size_t len = 0;

	devrig_ready(&r); /* a transport of the host */
	CHECK_EQ(libvhost_dev_freeze(r.dev, 0, NULL, &len, NULL, &nfds), -ENOTSUP);
	r.f.dead = true;
	CHECK_EQ(libvhost_dev_dispatch(r.dev, 0), 0);
	CHECK_EQ(libvhost_dev_freeze(r.dev, 0, NULL, &len, NULL, &nfds), -EINVAL);
	CHECK_EQ(libvhost_dev_freeze(NULL, 0, NULL, &len, NULL, &nfds), -EINVAL);
	CHECK_EQ(libvhost_dev_freeze(r.dev, 0, NULL, NULL, NULL, &nfds), -EINVAL);
	devrig_close(&r);
}

/* ---- snapshots ---- */

/* A stopped device is written down, stays as it is, and goes away; its snapshot is thawed to the next session. */
static void snapshot(struct upgrade *u)
{
	struct libvhost_freeze_info i = {.size = sizeof(i)};

	up_init(u);
	up_open(u, 4, true);
	u->w.p.ring[2].base = 11;
	CHECK_EQ(libvhost_dev_stop(u->w.r.dev, NULL), 0);
	CHECK_EQ(up_freeze(u, LIBVHOST_FREEZE_SNAPSHOT), 0);
	CHECK_EQ(u->nfds, 0);
	CHECK_EQ(libvhost_freeze_info(u->w.r.g.ctx, u->blob, u->len, &i), 0);
	CHECK_EQ(i.flags, LIBVHOST_FREEZE_SNAPSHOT);
	CHECK_EQ(i.running, 0);
	CHECK_EQ(devrig_state(&u->w.r), LIBVHOST_DEV_NEGOTIATED);
	CHECK_EQ(libvhost_dev_start(u->w.r.dev, NULL), 0);
	CHECK_EQ(libvhost_dev_stop(u->w.r.dev, NULL), 0);
	up_next_guest(u);
	libvhost_dev_cleanup(u->w.r.dev);
	u->w.r.dev = NULL;
}

TEST(device_freeze, a_snapshot_starts_at_a_fresh_peer)
{
	struct libvhost_queue q = {.size = sizeof(q)};
	struct upgrade u;

	snapshot(&u);
	u.thaw.flags = LIBVHOST_THAW_START;
	CHECK_EQ(up_thaw(&u), 0);
	CHECK_EQ(atomic_load(&u.w.p.sessions), 2);
	CHECK_EQ(devrig_state(&u.w.r), LIBVHOST_DEV_RUNNING);
	CHECK_EQ(u.w.p.ring[2].base, 11);
	CHECK_EQ(u.w.p.regions, 1);
	CHECK_EQ(libvhost_dev_get_queue(u.w.r.dev, 2, &q), 0);
	CHECK_EQ(lv_eventfd_signal(u.w.p.ring[2].call), 0);
	CHECK_EQ(lv_eventfd_drain(q.call_fd), 1);
	up_close(&u);
}

/* What was in flight is in flight again, in a file of the new process. */
TEST(device_freeze, a_snapshot_holds_the_inflight_region)
{
	const uint8_t mark[3] = {0x11, 0x22, 0x33};
	struct libvhost_inflight i;
	uint8_t got[3] = {0};
	struct upgrade u;

	up_init(&u);
	u.w.r.opts.flags = LIBVHOST_DEV_INFLIGHT;
	up_open(&u, 3, true);
	CHECK_EQ(libvhost_dev_stop(u.w.r.dev, NULL), 0);
	i = region_of(&u);
	CHECK_EQ(pwrite(i.fd, mark, sizeof(mark), (off_t)i.mmap_offset + 40), sizeof(mark));
	CHECK_EQ(up_freeze(&u, LIBVHOST_FREEZE_SNAPSHOT), 0);
	CHECK_EQ(u.nfds, 0);
	CHECK(u.len > i.mmap_size);
	up_next_guest(&u);
	libvhost_dev_cleanup(u.w.r.dev);
	u.w.r.dev = NULL;
	u.thaw.flags = LIBVHOST_THAW_START;
	CHECK_EQ(up_thaw(&u), 0);
	i = region_of(&u);
	CHECK_EQ(pread(i.fd, got, sizeof(got), (off_t)i.mmap_offset + 40), sizeof(got));
	CHECK_MEM(got, mark, sizeof(mark));
	CHECK_EQ(devrig_state(&u.w.r), LIBVHOST_DEV_RUNNING);
	up_close(&u);
}

TEST(device_freeze, a_snapshot_waits_to_be_started)
{
	struct libvhost_queue q = {.size = sizeof(q)};
	struct upgrade u;

	snapshot(&u);
	CHECK_EQ(up_thaw(&u), 0);
	CHECK_EQ(devrig_state(&u.w.r), LIBVHOST_DEV_NEGOTIATED);
	CHECK_EQ(libvhost_dev_get_queue(u.w.r.dev, 2, &q), 0);
	CHECK_EQ(q.base, 11);
	CHECK_EQ(libvhost_dev_start(u.w.r.dev, NULL), 0);
	up_close(&u);
}

TEST(device_freeze, a_snapshot_needs_its_peer)
{
	struct puppet less;
	struct upgrade u;
	char path[80], uri[96];

	snapshot(&u);
	u.thaw.uri = "user:/nonexistent/socket";
	u.thaw.timeout_ms = 30;
	refused(&u, -ETIMEDOUT, "did not appear");
	u.thaw.uri = "user-fd:";
	refused(&u, -EINVAL, "connected socket");
	snprintf(path, sizeof(path), "%s.2", u.w.path);
	snprintf(uri, sizeof(uri), "user:%s", path);
	puppet_init(&less);
	less.features &= ~(1ull << 32);
	puppet_listen(&less, path);
	u.thaw.uri = uri;
	u.thaw.timeout_ms = 0;
	refused(&u, -ENOTSUP, "came back without");
	puppet_stop(&less);
	guest_free(&u.next);
	up_drop(&u);
	up_close(&u);
}
