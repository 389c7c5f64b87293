/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* The inflight messages, and requests that outlive the ring they were taken from. */
#include "frontend.h"

#include "keeper.h"
#include "vring/inflight.h"

#define BIT20 PF(GET_VRING_BASE_INFLIGHT)

struct wire_inflight {
	uint64_t size, offset;
	uint16_t queues, entries, pad[2];
};

/* Features as given, one region of memory. */
static struct fake up(const struct libvhost_backend_opts *opts, uint64_t not_these)
{
	struct fake p = fake_new(opts);
	struct libvhost_region ram = {.size = RAM_BYTES, .user_addr = UADDR, .fd = p.ram};
	uint64_t protocol = get_u64(&p, LIBVHOST_OP_GET_PROTOCOL_FEATURES);

	CHECK(protocol & PF(INFLIGHT_SHMFD));
	CHECK(protocol & BIT20);
	CHECK_EQ(ask_u64(&p, LIBVHOST_OP_SET_PROTOCOL_FEATURES, protocol & ~not_these), 0);
	CHECK_EQ(ask_u64(&p, LIBVHOST_OP_SET_FEATURES, F30 | F_VERSION), 0);
	CHECK_EQ(ask_table(&p, &ram, 1, 1), 0);
	return p;
}

/* Its descriptor, or -1 if the back-end has none to give. */
static int get(struct fake *p, uint16_t queues, uint16_t entries, struct wire_inflight *out)
{
	const struct wire_inflight ask = {.queues = queues, .entries = entries};
	_Alignas(8) char control[CMSG_SPACE(sizeof(int))];
	uint8_t bytes[sizeof(struct wire_hdr) + sizeof(ask)];
	struct iovec iov = {.iov_base = bytes, .iov_len = sizeof(bytes)};
	struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof(control)};
	struct wire_hdr hdr;
	int fd = -1;

	send_msg(p, LIBVHOST_OP_GET_INFLIGHT_FD, 0, &ask, sizeof(ask), NULL, 0);
	settle(p);
	CHECK_EQ(recvmsg(p->sock, &m, MSG_CMSG_CLOEXEC), sizeof(bytes));
	memcpy(&hdr, bytes, sizeof(hdr));
	memcpy(out, bytes + sizeof(hdr), sizeof(*out));
	CHECK_EQ(hdr.request, LIBVHOST_OP_GET_INFLIGHT_FD);
	if (CMSG_FIRSTHDR(&m))
		memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&m)), sizeof(fd));
	CHECK_EQ(fd >= 0, out->size > 0);
	return fd;
}

static int set(struct fake *p, const struct wire_inflight *w, int fd)
{
	return ask(p, LIBVHOST_OP_SET_INFLIGHT_FD, w, sizeof(*w), &fd, fd >= 0);
}

TEST(backend_inflight, a_region_is_sealed_and_fits_its_queues)
{
	struct fake p = up(NULL, 0);
	struct wire_inflight w;
	int fd = get(&p, 4, 128, &w);

	CHECK(fd >= 0);
	CHECK_EQ(w.queues, 4);
	CHECK_EQ(w.entries, 128);
	CHECK_EQ(w.offset, 0);
	CHECK_EQ(w.size, 4 * lv_inflight_queue_bytes(128, 0));
	CHECK_EQ(lseek(fd, 0, SEEK_END), (off_t)w.size);
	CHECK_EQ(fcntl(fd, F_GET_SEALS), F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL);
	CHECK_EQ(set(&p, &w, fd), 0);
	close(fd);
	fake_free(&p);
}

TEST(backend_inflight, r118_absurd_sizes)
{
	static const uint16_t sizes[][2] = {{65535, 65535}, {5, 8}, {0, 8}, {1, 0}, {1, 32769}, {257, 1}};
	struct fake p = up(NULL, 0);
	struct wire_inflight w = {.size = 0x100000};

	for (unsigned i = 0; i < sizeof(sizes) / sizeof(*sizes); i++) {
		CHECK_EQ(get(&p, sizes[i][0], sizes[i][1], &w), -1);
		w = (struct wire_inflight){.size = RAM_BYTES, .queues = sizes[i][0], .entries = sizes[i][1]};
		CHECK_EQ(set(&p, &w, p.ram), -EINVAL);
	}
	CHECK_EQ(ring_up(&p, 0), 0);
	fake_free(&p);
}

TEST(backend_inflight, r119_ten_thousand_regions)
{
	struct fake p = up(NULL, 0);
	struct lv_ledger before;
	struct wire_inflight w;
	int fd = get(&p, 4, 1024, &w);

	CHECK_EQ(set(&p, &w, fd), 0);
	before = lv_ledger_take();
	for (int i = 0; i < 10000; i++) {
		close(fd);
		fd = get(&p, 4, 1024, &w);
		CHECK(fd >= 0);
		if (i % 10 == 0)
			CHECK_EQ(set(&p, &w, fd), 0);
	}
	CHECK_LEDGER(before);
	CHECK_EQ(lv_ledger_take().maps, before.maps);
	close(fd);
	fake_free(&p);
}

TEST(backend_inflight, r122_twice_before_start_and_once_after)
{
	struct fake p = up(NULL, 0);
	struct wire_inflight w;
	int first = get(&p, 1, 8, &w), second = get(&p, 1, 8, &w);
	struct lv_inflight_split *in_first = mmap(NULL, w.size, PROT_READ, MAP_SHARED, first, 0);
	struct lv_inflight_split *in_second = mmap(NULL, w.size, PROT_READ, MAP_SHARED, second, 0);
	struct lv_ledger before;

	CHECK_EQ(set(&p, &w, first), 0);
	before = lv_ledger_take();
	CHECK_EQ(set(&p, &w, second), 0);
	CHECK_LEDGER(before);
	CHECK_EQ(lv_ledger_take().maps, before.maps); /* the first is unmapped */
	CHECK_EQ(ring_up(&p, 0), 0);
	CHECK_EQ(in_first->version, 0);
	CHECK_EQ(in_second->version, 1);
	CHECK_EQ(set(&p, &w, first), -EBUSY);
	ring_offer(&p);
	CHECK(ring_used(&p, 1));
	CHECK_EQ(get_base(&p, 0), 1);
	CHECK_EQ(in_second->used_idx, 1);
	CHECK_EQ(set(&p, &w, first), 0); /* stopped */
	munmap(in_first, w.size);
	munmap(in_second, w.size);
	close(first);
	close(second);
	fake_free(&p);
}

TEST(backend_inflight, regions_that_are_none)
{
	const uint64_t need = lv_inflight_queue_bytes(8, 0);
	struct wire_inflight good = {.size = need, .queues = 1, .entries = 8}, w = good;
	struct libvhost_error e = {.size = sizeof(e)};
	struct fake p = up(NULL, 0);
	int small = memfd(need - 1, 0), pair[2];
	char path[32];

	CHECK_EQ(set(&p, &w, small), -EINVAL);
	w.size = need - 1;
	CHECK_EQ(set(&p, &w, p.ram), -EINVAL);
	w = good;
	w.offset = RAM_BYTES - need + 8;
	CHECK_EQ(set(&p, &w, p.ram), -EINVAL);
	w.offset = 4;
	CHECK_EQ(set(&p, &w, p.ram), -EINVAL);
	w.offset = UINT64_MAX - 7;
	CHECK(set(&p, &w, p.ram) < 0);
	CHECK_EQ(set(&p, &good, p.kick), -EINVAL);
	CHECK_EQ(pipe2(pair, O_CLOEXEC), 0);
	CHECK_EQ(set(&p, &good, pair[1]), -EINVAL);
	close(pair[0]);
	close(pair[1]);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", p.ram);
	pair[0] = open(path, O_RDONLY | O_CLOEXEC);
	CHECK_EQ(set(&p, &good, pair[0]), -EPERM);
	close(pair[0]);
	pair[0] = disk_file(need); /* as a file of FUSE or NFS */
	CHECK_EQ(set(&p, &good, pair[0]), -EINVAL);
	CHECK_EQ(libvhost_backend_error(p.b, &e), 0);
	CHECK_HAS(e.text, "SET_INFLIGHT_FD: the descriptor is neither a memfd nor a file of tmpfs or hugetlbfs");
	close(pair[0]);
	good.offset = RAM_BYTES - need; /* up to the last byte, not on a page */
	CHECK_EQ(set(&p, &good, p.ram), 0);
	CHECK_EQ(ring_up(&p, 0), 0);
	close(small);
	fake_free(&p);
}

TEST(backend_inflight, a_ring_outside_the_region_is_not_started)
{
	struct fake p = up(NULL, 0);
	struct wire_inflight w;
	int fd = get(&p, 2, 4, &w); /* rings have 8 */

	CHECK_EQ(set(&p, &w, fd), 0);
	CHECK_EQ(ring_up(&p, 0), -EINVAL);
	close(fd);
	CHECK_EQ(ask(&p, LIBVHOST_OP_RESET_DEVICE, NULL, 0, NULL, 0), 0);
	CHECK_EQ(ask_u64(&p, LIBVHOST_OP_SET_FEATURES, F30 | F_VERSION), 0);
	fd = get(&p, 1, 8, &w);
	CHECK_EQ(set(&p, &w, fd), 0);
	CHECK_EQ(ring_up(&p, 1), -EINVAL);
	CHECK_EQ(ring_up(&p, 0), 0);
	close(fd);
	fake_free(&p);
}

TEST(backend_inflight, a_region_that_contradicts_the_ring_refuses_the_start)
{
	struct fake p = up(NULL, 0);
	struct wire_inflight w;
	int fd = get(&p, 1, 8, &w);
	struct lv_inflight_split s = {.version = 1, .used_idx = 77};
	struct libvhost_error e = {.size = sizeof(e)};

	CHECK_EQ(pwrite(fd, &s, sizeof(s), 0), sizeof(s));
	CHECK_EQ(set(&p, &w, fd), 0);
	CHECK_EQ(ring_up(&p, 0), -EINVAL);
	CHECK_EQ(libvhost_backend_error(p.b, &e), 0);
	CHECK_HAS(e.text, "used index 77");
	close(fd);
	fake_free(&p);
}

TEST(backend_inflight, bit_20_needs_bit_12)
{
	struct fake p = fake_new(NULL);

	CHECK_EQ(ask_u64(&p, LIBVHOST_OP_SET_PROTOCOL_FEATURES, PF(REPLY_ACK)), 0);
	CHECK_EQ(ask_u64(&p, LIBVHOST_OP_SET_PROTOCOL_FEATURES, PF(REPLY_ACK) | BIT20), -EINVAL);
	fake_free(&p);
}

/* With bit 20 a stop leaves requests to the next start. */
TEST(backend_inflight, a_stop_hands_requests_over)
{
	struct keeper k = {0};
	const struct libvhost_backend_opts opts = {.ops = &keeper_ops, .arg = &k};
	struct fake p = up(&opts, 0);
	struct wire_inflight w;
	int fd = get(&p, 1, 8, &w);

	CHECK_EQ(set(&p, &w, fd), 0);
	CHECK_EQ(ring_up(&p, 0), 0);
	for (int i = 0; i < 3; i++)
		ring_offer(&p);
	keeper_await(&k, 3);
	CHECK_EQ(get_base(&p, 0), 3);
	CHECK(ring_used(&p, 0));
	k.release = true;
	CHECK_EQ(set(&p, &w, fd), 0);
	CHECK_EQ(ring_up(&p, 0), 0); /* whatever base it names, the region knows better */
	CHECK(ring_used(&p, 3));
	CHECK_EQ(k.taken, 6);
	CHECK_EQ(k.again, 3);
	CHECK_EQ(get_base(&p, 0), 3);
	close(fd);
	fake_free(&p);
}

/* Without it, or without a region, a stop waits for them. */
TEST(backend_inflight, a_stop_drains)
{
	struct keeper k = {0};
	const struct libvhost_backend_opts opts = {.ops = &keeper_ops, .arg = &k, .timeout_ms = 1000};
	struct fake p = up(&opts, BIT20);
	struct wire_inflight w;
	int fd = get(&p, 1, 8, &w);

	CHECK_EQ(set(&p, &w, fd), 0);
	CHECK_EQ(ring_up(&p, 0), 0);
	ring_offer(&p);
	keeper_await(&k, 1);
	CHECK_EQ(get_base(&p, 0), 1); /* the handler does not let go: the region still has it */
	CHECK(ring_used(&p, 0));
	CHECK_EQ(ring_up(&p, 0), 0);
	keeper_await(&k, 2);
	k.release = true;
	CHECK_EQ(get_base(&p, 0), 1);
	CHECK(ring_used(&p, 1));
	close(fd);
	fake_free(&p);
}

/* In process the same handlers get the requests without a socket in between. */
TEST(backend_inflight, in_process)
{
	struct fake p = fake_new(NULL);
	struct libvhost_transport *t = fake_inproc(&p);
	struct libvhost_req req[] = {
		{.op = LIBVHOST_OP_SET_PROTOCOL_FEATURES, .arg.u64 = PF(INFLIGHT_SHMFD)},
		{.op = LIBVHOST_OP_GET_INFLIGHT_FD, .arg.inflight = {.num_queues = 4, .queue_size = 64}},
	};
	struct libvhost_req give = {.op = LIBVHOST_OP_SET_INFLIGHT_FD, .flags = LIBVHOST_REQ_HAS_FD};

	CHECK_EQ(libvhost_transport_exec(t, req, 2, PATIENCE_MS, NULL), 0);
	CHECK(req[1].out_flags & LIBVHOST_REQ_OUT_FD);
	give.fd = req[1].out_fd;
	give.arg.inflight = req[1].arg.inflight;
	give.arg.inflight.mmap_size = req[1].result[0];
	CHECK_EQ(libvhost_transport_exec(t, &give, 1, PATIENCE_MS, NULL), 0);
	close(give.fd);
	libvhost_transport_free(t);
	fake_free(&p);
}
