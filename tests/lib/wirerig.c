/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
#include "wirerig.h"

#include "protocol/user_wire.h"

static void set_path(struct wirerig *w)
{
	static unsigned number;

	snprintf(w->path, sizeof(w->path), "/tmp/libvhost-wire-%d-%u.sock", (int)getpid(), number++);
	snprintf(w->uri, sizeof(w->uri), "user:%s", w->path);
	w->r.opts.uri = w->uri;
	w->r.opts.ops = &w->ops;
	w->ops.size = sizeof(w->ops);
	puppet_init(&w->p);
	w->p.protocol_features |= PUPPET_PF(INBAND_NOTIFICATIONS) | PUPPET_PF(SHMEM_MAP);
	w->p.protocol_features &= ~PUPPET_PF(STATUS);
}

void wirerig_init(struct wirerig *w)
{
	memset(w, 0, sizeof(*w));
	devrig_init(&w->r);
	set_path(w);
}

void wirerig_join(struct wirerig *w, struct wirerig *first)
{
	memset(w, 0, sizeof(*w));
	w->r.g = first->r.g;
	w->r.opts = (struct libvhost_dev_opts){
		.size = sizeof(w->r.opts), .num_queues = DEVRIG_QUEUES, .mem = first->r.g.mem};
	set_path(w);
}

void wirerig_listen(struct wirerig *w)
{
	puppet_listen(&w->p, w->path);
}

void wirerig_open(struct wirerig *w)
{
	wirerig_listen(w);
	CHECK_EQ(devrig_open(&w->r), 0);
	devrig_queues(&w->r, w->r.opts.num_queues);
}

void wirerig_start(struct wirerig *w)
{
	wirerig_open(w);
	CHECK_EQ(libvhost_dev_start(w->r.dev, NULL), 0);
}

int wirerig_read_config(struct wirerig *w, uint32_t timeout_ms)
{
	uint8_t bytes[16];
	int rc = libvhost_dev_get_config(w->r.dev, 16, bytes, sizeof(bytes), timeout_ms);

	if (!rc)
		CHECK_EQ(bytes[15], w->p.config[31]);
	return rc;
}

static void hang_up(struct wirerig *w)
{
	libvhost_dev_cleanup(w->r.dev);
	puppet_stop(&w->p);
}

static void release(struct wirerig *w)
{
	if (!w->r.before.fds)
		return; /* joined: another rig's */
	guest_free(&w->r.g);
	CHECK_LEDGER(w->r.before);
}

void wirerig_close(struct wirerig *w)
{
	hang_up(w);
	release(w);
}

void wirerig_close_replayed(struct wirerig *w, uint32_t regions)
{
	hang_up(w);
	CHECK_EQ(w->p.regions, regions);
	for (uint32_t i = 0; i < DEVRIG_QUEUES; i++) {
		CHECK_EQ(w->p.ring[i].num, DEVRIG_NUM);
		CHECK(w->p.ring[i].addr.desc != w->p.ring[i].addr.avail);
		CHECK(w->p.ring[i].enabled);
	}
	release(w);
}

int wirerig_answer(int channel, int ms, int *out_fd)
{
	struct lv_wire_in in;
	const uint64_t end = now_ms() + (uint64_t)ms;
	uint64_t value;
	int rc = 1;

	CHECK_EQ(lv_wire_in_init(&in, LV_USER_HDR + LV_USER_MAX_PAYLOAD), 0);
	while (in.end < LV_USER_HDR + sizeof(value)) {
		const ssize_t n = lv_wire_recv(channel, &in, LV_USER_HDR + sizeof(value) - in.end);

		if (n == -EAGAIN && now_ms() < end)
			poll(&(struct pollfd){.fd = channel, .events = POLLIN}, 1, 10);
		else if (n <= 0)
			break;
	}
	if (out_fd)
		*out_fd = in.nfds ? in.fds[0] : -1;
	if (in.end == LV_USER_HDR + sizeof(value)) {
		memcpy(&value, in.buf + LV_USER_HDR, sizeof(value));
		rc = -(int)value;
		CHECK(in.nfds <= 1);
		if (out_fd)
			in.nfds = 0;
	}
	lv_wire_in_destroy(&in);
	return rc;
}

static int wait_channel(struct wirerig *w)
{
	const uint64_t end = now_ms() + PATIENCE_MS;

	while (atomic_load(&w->p.channel) < 0 && now_ms() < end)
		usleep(1000);
	return atomic_load(&w->p.channel);
}

int wirerig_ask(struct wirerig *w, uint32_t request, const void *payload, uint32_t size, int fd, int *out_fd)
{
	const int channel = wait_channel(w);

	puppet_send(channel, request, WIRE_ASK, size, payload, size, &fd, fd >= 0);
	while (libvhost_dev_dispatch(w->r.dev, 0) == -EBUSY) /* another device's look-up is inside */
		usleep(50);
	return wirerig_answer(channel, PATIENCE_MS, out_fd);
}

int wirerig_ask_state(struct wirerig *w, uint32_t request, uint32_t queue)
{
	const struct lv_wire_state s = {.index = queue};

	return wirerig_ask(w, request, &s, sizeof(s), -1, NULL);
}

void wirerig_uuid(uint8_t uuid[16], uint32_t name)
{
	memset(uuid, 0xa5, 16);
	memcpy(uuid + 4, &name, sizeof(name));
}

int wirerig_ask_uuid(struct wirerig *w, uint32_t request, uint32_t name, int *out_fd)
{
	uint8_t uuid[16];

	wirerig_uuid(uuid, name);
	return wirerig_ask(w, request, uuid, sizeof(uuid), -1, out_fd);
}

int wirerig_ask_area(struct wirerig *w, uint64_t queue_and_flags, uint64_t size, uint64_t offset, int fd)
{
	const struct lv_wire_area a = {queue_and_flags, size, offset};

	return wirerig_ask(w, ASK_HOST_NOTIFIER, &a, sizeof(a), fd, NULL);
}

int wirerig_ask_mmap(struct wirerig *w, uint32_t request, const struct libvhost_req_mmap *m, int fd)
{
	const struct lv_wire_mmap wire = {.shmid = m->shmid,
					  .fd_offset = m->fd_offset,
					  .shm_offset = m->shm_offset,
					  .len = m->len,
					  .flags = m->flags};

	return wirerig_ask(w, request, &wire, sizeof(wire), fd, NULL);
}
