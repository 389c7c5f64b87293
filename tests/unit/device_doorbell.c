/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* Doorbells: what a back-end lets the guest write into, and when it is gone again. */
#include "wirerig.h"

#define REMOVE 0x100ull

static void bell_rig(struct wirerig *w)
{
	wirerig_init(w);
	w->r.opts.flags = LIBVHOST_DEV_HOST_NOTIFIERS;
	wirerig_start(w);
}

static struct libvhost_doorbell doorbell(struct wirerig *w, uint32_t queue)
{
	struct libvhost_doorbell d = {.size = sizeof(d)};

	CHECK_EQ(libvhost_dev_doorbell(w->r.dev, queue, &d), 0);
	return d;
}

static int no_doorbell(struct wirerig *w, uint32_t queue)
{
	struct libvhost_doorbell d = {.size = sizeof(d)};

	return libvhost_dev_doorbell(w->r.dev, queue, &d);
}

TEST(doorbell, comes_is_replaced_and_goes)
{
	struct libvhost_event e;
	struct libvhost_doorbell d;
	struct wirerig w;
	uint8_t rung;
	int fd;

	bell_rig(&w);
	fd = device_file(3);
	CHECK(w.p.acked_protocol & PUPPET_PF(HOST_NOTIFIER) && w.p.acked_protocol & PUPPET_PF(BACKEND_SEND_FD));
	CHECK_EQ(no_doorbell(&w, 2), -ENOENT);
	CHECK_EQ(wirerig_ask_area(&w, 2, PAGE, PAGE, fd), 0);
	CHECK_EQ(devrig_events(&w.r, LIBVHOST_EVENT_HOST_NOTIFIER, &e), 1);
	CHECK_EQ(e.queue, 2);
	CHECK_EQ(e.value[0], 1);
	d = doorbell(&w, 2);
	CHECK_EQ(d.offset, PAGE);
	CHECK_EQ(d.bytes, PAGE);
	CHECK_EQ(peek(d.address), 2);
	poke(d.address + 8, 77);
	CHECK_EQ(pread(fd, &rung, 1, PAGE + 8), 1);
	CHECK_EQ(rung, 77);
	CHECK_EQ(wirerig_ask_area(&w, 2, PAGE, 2 * PAGE, fd), 0); /* another page, the same address */
	CHECK_EQ(doorbell(&w, 2).address, d.address);
	CHECK_EQ(peek(d.address), 3);
	CHECK_EQ(no_doorbell(&w, 0), -ENOENT);
	CHECK_EQ(no_doorbell(&w, 400), -ENOENT);
	CHECK_EQ(wirerig_ask_area(&w, 2 | REMOVE, 0, 0, -1), 0);
	CHECK_EQ(devrig_events(&w.r, LIBVHOST_EVENT_HOST_NOTIFIER, &e), 1); /* the last state of both */
	CHECK_EQ(e.value[0], 0);
	CHECK_EQ(no_doorbell(&w, 2), -ENOENT);
	poke(d.address, 9); /* a late write reaches nobody */
	CHECK_EQ(pread(fd, &rung, 1, 2 * PAGE), 1);
	CHECK_EQ(rung, 3);
	CHECK_EQ(wirerig_ask_area(&w, 2 | REMOVE, 0, 0, -1), 0); /* twice is no harm */
	close(fd);
	wirerig_close(&w);
}

TEST(doorbell, what_does_not_fit_is_refused)
{
	struct wirerig w;
	int fd, pipes[2];

	bell_rig(&w);
	fd = device_file(2);
	CHECK_EQ(pipe(pipes), 0);
	CHECK_EQ(wirerig_ask_area(&w, 0, 2 * PAGE, 0, fd), -EINVAL);
	CHECK_EQ(wirerig_ask_area(&w, 0, 64, 0, fd), -EINVAL);
	CHECK_EQ(wirerig_ask_area(&w, 0, PAGE, 512, fd), -EINVAL);
	CHECK_EQ(wirerig_ask_area(&w, 0, PAGE, 2 * PAGE, fd), -EINVAL); /* beyond the file */
	CHECK_EQ(wirerig_ask_area(&w, DEVRIG_QUEUES, PAGE, 0, fd), -EINVAL);
	CHECK_EQ(wirerig_ask_area(&w, DEVRIG_QUEUES | REMOVE, 0, 0, -1), -EINVAL);
	CHECK(wirerig_ask_area(&w, 0, PAGE, 0, pipes[0]) < 0); /* nothing to map */
	CHECK_EQ(no_doorbell(&w, 0), -ENOENT);
	CHECK_EQ(devrig_events(&w.r, LIBVHOST_EVENT_HOST_NOTIFIER, NULL), 0);
	close(pipes[0]);
	close(pipes[1]);
	close(fd);
	wirerig_close(&w);
}

TEST(doorbell, stop_reset_and_disconnect_end_all)
{
	struct libvhost_event e;
	struct wirerig w;
	uint64_t address;
	int fd;

	bell_rig(&w);
	fd = device_file(1);
	CHECK_EQ(wirerig_ask_area(&w, 0, PAGE, 0, fd), 0);
	CHECK_EQ(wirerig_ask_area(&w, 3, PAGE, 0, fd), 0);
	address = doorbell(&w, 3).address;
	CHECK_EQ(libvhost_dev_stop(w.r.dev, NULL), 0);
	CHECK(no_doorbell(&w, 0) == -ENOENT && no_doorbell(&w, 3) == -ENOENT);
	CHECK_EQ(devrig_events(&w.r, LIBVHOST_EVENT_HOST_NOTIFIER, &e), 2);
	CHECK_EQ(e.value[0], 0); /* gone by now */
	CHECK_EQ(libvhost_dev_start(w.r.dev, NULL), 0);
	CHECK_EQ(wirerig_ask_area(&w, 3, PAGE, 0, fd), 0);
	CHECK_EQ(doorbell(&w, 3).address, address);
	puppet_kill(&w.p);
	CHECK(devrig_await(&w.r, LIBVHOST_EVENT_DISCONNECTED, PATIENCE_MS, NULL));
	CHECK_EQ(no_doorbell(&w, 3), -ENOENT);
	poke(address, 1); /* the guest does not know yet */
	CHECK_EQ(libvhost_dev_reconnect(w.r.dev, NULL), 0);
	CHECK_EQ(wirerig_ask_area(&w, 1, PAGE, 0, fd), 0);
	CHECK_EQ(libvhost_dev_reset(w.r.dev, NULL), 0);
	CHECK_EQ(no_doorbell(&w, 1), -ENOENT);
	close(fd);
	wirerig_close(&w);
}

/* A device that gives all its doorbells while it handles a message of start: its acknowledgements must not wait for
 * somebody who takes events. */
static bool ring_all(struct puppet *p, const struct libvhost_req *req, const struct lv_user_msg *msg)
{
	const int channel = atomic_load(&p->channel), fd = *(int *)p->arg;

	(void)msg;
	if (req->op != LIBVHOST_OP_SET_VRING_ENABLE || req->index)
		return false;
	for (uint64_t q = 0; q < 64; q++) {
		const uint64_t area[3] = {q, PAGE, 0};

		puppet_send(channel, ASK_HOST_NOTIFIER, WIRE_ASK, sizeof(area), area, sizeof(area), &fd, 1);
		if (wirerig_answer(channel, 2000, NULL))
			p->arg = NULL;
	}
	return false;
}

TEST(doorbell, of_64_queues_come_during_start)
{
	struct wirerig w;
	int fd;

	wirerig_init(&w);
	fd = device_file(1);
	w.r.opts.flags = LIBVHOST_DEV_HOST_NOTIFIERS;
	w.r.opts.num_queues = 64;
	w.p.on_message = ring_all;
	w.p.arg = &fd;
	wirerig_start(&w);
	CHECK(w.p.arg);
	CHECK_EQ(devrig_events(&w.r, LIBVHOST_EVENT_HOST_NOTIFIER, NULL), 64);
	CHECK_EQ(doorbell(&w, 63).bytes, PAGE);
	close(fd);
	wirerig_close(&w);
}

TEST(doorbell, nobody_wanted_one)
{
	struct wirerig w;

	wirerig_init(&w);
	wirerig_start(&w);
	CHECK(!(w.p.acked_protocol & PUPPET_PF(HOST_NOTIFIER)));
	CHECK_EQ(no_doorbell(&w, 0), -ENOENT);
	CHECK_EQ(wirerig_ask_area(&w, 0 | REMOVE, 0, 0, -1), 1); /* against the rules */
	wirerig_close(&w);
}
