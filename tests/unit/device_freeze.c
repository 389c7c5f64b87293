/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* Live upgrade on a real socket: what the peer sees (nothing), what the thawed device can do (everything). */
#include "upgrade.h"

#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include "core/sanitize.h"
#include "core/wire.h"

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
	CHECK_EQ(devrig_grow(&u.w.r, 1ull << 32, 0, NULL), 0);
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
	CHECK(devrig_await(&u.w.r, LIBVHOST_EVENT_RECONNECTED, PATIENCE_MS, &e));
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

#define SLOWER (LV_ASAN || LV_TSAN ? 10u : 1u)

/* The least of some rounds: what it costs, not what else the machine does. */
TEST(device_freeze, takes_two_milliseconds_for_64_queues)
{
	uint64_t best = UINT64_MAX;
	struct upgrade u;

	up_init(&u);
	up_open(&u, 64, true);
	for (int i = 0; i < 10 || (best > 2000u * SLOWER && i < 1000); i++) {
		uint64_t took = now_us();

		CHECK_EQ(up_freeze(&u, 0), 0);
		took = now_us() - took;
		up_next_guest(&u);
		took = now_us() - took;
		CHECK_EQ(up_thaw(&u), 0);
		took = now_us() - took;
		best = took < best ? took : best;
	}
	printf("# freeze and thaw of 64 queues: %llu us\n", (unsigned long long)best);
	CHECK(best <= 2000u * SLOWER);
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
	i = up_inflight(&u);
	CHECK_EQ(pwrite(i.fd, mark, sizeof(mark), (off_t)i.mmap_offset + 40), sizeof(mark));
	CHECK_EQ(up_freeze(&u, LIBVHOST_FREEZE_SNAPSHOT), 0);
	CHECK_EQ(u.nfds, 0);
	CHECK(u.len > i.mmap_size);
	up_next_guest(&u);
	libvhost_dev_cleanup(u.w.r.dev);
	u.w.r.dev = NULL;
	u.thaw.flags = LIBVHOST_THAW_START;
	CHECK_EQ(up_thaw(&u), 0);
	i = up_inflight(&u);
	CHECK_EQ(pread(i.fd, got, sizeof(got), (off_t)i.mmap_offset + 40), sizeof(got));
	CHECK_MEM(got, mark, sizeof(mark));
	CHECK_EQ(devrig_state(&u.w.r), LIBVHOST_DEV_RUNNING);
	up_close(&u);
}

static void put_index(struct upgrade *u, uint64_t ring, uint16_t index)
{
	void *at;

	CHECK_EQ(libvhost_mem_translate(u->w.r.g.mem, ring + 2, 2, &at, NULL), 0);
	*(uint16_t *)at = htole16(index);
}

/* As qemu-storage-daemon 7.2 does: GET_VRING_BASE is answered, and the last request completes afterwards. */
TEST(device_freeze, a_snapshot_waits_for_what_a_stopped_peer_works_on)
{
	static const struct libvhost_call_opts soon = {.size = sizeof(soon), .timeout_ms = 20};
	struct libvhost_queue q = {.size = sizeof(q)};
	size_t len = 0;
	uint32_t nfds = 0;
	struct upgrade u;

	up_init(&u);
	up_open(&u, 3, true);
	CHECK_EQ(libvhost_dev_get_queue(u.w.r.dev, 1, &q), 0);
	u.w.p.ring[1].base = 3;
	put_index(&u, q.avail, 7);
	put_index(&u, q.used, 1);
	CHECK_EQ(libvhost_dev_stop(u.w.r.dev, &soon), -EAGAIN);
	CHECK_EQ(libvhost_dev_freeze(u.w.r.dev, LIBVHOST_FREEZE_SNAPSHOT, NULL, &len, NULL, &nfds), -EBUSY);
	CHECK_HAS(devrig_error(&u.w.r).text,
		  "freeze: queue 1: the peer said that it stopped at 3 and has not completed 2");
	put_index(&u, q.used, 3);
	CHECK_EQ(libvhost_dev_freeze(u.w.r.dev, LIBVHOST_FREEZE_SNAPSHOT, NULL, &len, NULL, &nfds), 0);
	put_index(&u, q.used, 0); /* nothing that can be: 65534 offered, 3 completed */
	put_index(&u, q.avail, 1);
	CHECK_EQ(libvhost_dev_freeze(u.w.r.dev, LIBVHOST_FREEZE_SNAPSHOT, NULL, &len, NULL, &nfds), 0);
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
	up_refused(&u, -ETIMEDOUT, "did not appear");
	u.thaw.uri = "user-fd:";
	up_refused(&u, -EINVAL, "connected socket");
	snprintf(path, sizeof(path), "%s.2", u.w.path);
	snprintf(uri, sizeof(uri), "user:%s", path);
	puppet_init(&less);
	less.features &= ~(1ull << 32);
	puppet_listen(&less, path);
	u.thaw.uri = uri;
	u.thaw.timeout_ms = 0;
	up_refused(&u, -ENOTSUP, "came back without");
	puppet_stop(&less);
	guest_free(&u.next);
	up_drop(&u);
	up_close(&u);
}
