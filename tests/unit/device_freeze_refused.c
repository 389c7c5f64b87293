/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* Live upgrade: freezes and thaws that must not happen. */
#include "upgrade.h"

#include <errno.h>
#include "core/wire.h"

TEST(device_freeze, refuses_other_descriptors)
{
	struct upgrade u;
	int swap, file;

	up_init(&u);
	up_open(&u, 4, true);
	CHECK_EQ(up_freeze(&u, 0), 0);
	up_next_guest(&u);
	u.thaw.nfds--;
	up_refused(&u, -EINVAL, "descriptors were given");
	u.thaw.nfds++;
	swap = u.fds[0];
	u.fds[0] = u.fds[2];
	u.fds[2] = swap;
	up_refused(&u, -EINVAL, "connected unix stream socket");
	u.fds[2] = u.fds[0];
	up_refused(&u, -EINVAL, "connected unix stream socket");
	u.fds[0] = swap;
	file = u.fds[2];
	u.fds[2] = u.fds[3];
	up_refused(&u, -EINVAL, "given twice");
	u.fds[2] = memfd(4096, 0);
	up_refused(&u, -EINVAL, "eventfd");
	close(u.fds[2]);
	u.fds[2] = 1000000;
	up_refused(&u, -EINVAL, "not open");
	u.fds[2] = file;
	u.thaw.flags = LIBVHOST_THAW_START;
	up_refused(&u, -EINVAL, "START");
	u.thaw.flags = 0;
	u.thaw.dev_flags = LIBVHOST_DEV_USE_SHMEM;
	up_refused(&u, -EINVAL, "options");
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
		up_refused(&u, -EFAULT, kind == 4 ? "which the peer has not" : "which this map has not");
		guest_free(&u.next);
		close(fd);
	}
	u.next = good;
	u.thaw.mem = good.mem;
	CHECK_EQ(up_thaw(&u), 0);
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
	up_refused(&u, -EFAULT, "does not");
	CHECK_EQ(libvhost_mem_log_stop(u.next.mem, 0, NULL), 0);
	CHECK_EQ(up_thaw(&u), 0);
	CHECK_EQ(libvhost_mem_log_start(u.w.r.g.mem, 0, NULL), 0);
	CHECK_EQ(up_freeze(&u, 0), 0);
	up_next_guest(&u);
	CHECK_EQ(libvhost_mem_log_start(u.next.mem, 0, NULL), 0);
	up_refused(&u, -EFAULT, "another file");
	CHECK_EQ(libvhost_mem_log_stop(u.next.mem, 0, NULL), 0);
	CHECK_EQ(up_thaw(&u), 0);
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
	up_refused(&u, -EEXIST, "shared object");
	CHECK_EQ(libvhost_shared_object_remove(u.next.ctx, uuid), 0);
	CHECK_EQ(up_thaw(&u), 0);
	up_close(&u);
}

TEST(device_freeze, refuses_while_an_answer_is_on_its_way)
{
	const struct libvhost_call_opts brief = {.size = sizeof(brief), .timeout_ms = 30};
	uint32_t nfds = 0;
	struct upgrade u;
	size_t len = 0;
	uint8_t byte;

	(void)brief;
	up_init(&u);
	puppet_fault(&u.w.p, (struct puppet_fault){.op = LIBVHOST_OP_GET_CONFIG, .what = PUPPET_LATE, .arg = 200});
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
	devrig_lose_peer(&r);
	CHECK_EQ(libvhost_dev_freeze(r.dev, 0, NULL, &len, NULL, &nfds), -EINVAL);
	CHECK_EQ(libvhost_dev_freeze(NULL, 0, NULL, &len, NULL, &nfds), -EINVAL);
	CHECK_EQ(libvhost_dev_freeze(r.dev, 0, NULL, NULL, NULL, &nfds), -EINVAL);
	devrig_close(&r);
}
