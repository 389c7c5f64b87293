/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
#include "puppet.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>
#include "check.h"

#define EACH_PF                                                                                                        \
	(PUPPET_PF(MQ) | PUPPET_PF(LOG_SHMFD) | PUPPET_PF(REPLY_ACK) | PUPPET_PF(BACKEND_REQ) | PUPPET_PF(CONFIG) |    \
	 PUPPET_PF(BACKEND_SEND_FD) | PUPPET_PF(HOST_NOTIFIER) | PUPPET_PF(INFLIGHT_SHMFD) | PUPPET_PF(RESET_DEVICE) | \
	 PUPPET_PF(CONFIGURE_MEM_SLOTS) | PUPPET_PF(STATUS) | PUPPET_PF(SHARED_OBJECT))

void puppet_init(struct puppet *p)
{
	memset(p, 0, sizeof(*p));
	p->features = PUPPET_FEATURES;
	p->protocol_features = EACH_PF;
	p->num_queues = PUPPET_QUEUES;
	p->slots = 32;
	for (unsigned i = 0; i < PUPPET_CONFIG; i++)
		p->config[i] = (uint8_t)i;
	for (unsigned i = 0; i < PUPPET_QUEUES; i++)
		p->ring[i].kick = p->ring[i].call = p->ring[i].err = -1;
	p->sock = p->front = p->listener = -1;
	pthread_mutex_init(&p->lock, NULL);
	atomic_init(&p->channel, -1);
	CHECK_EQ(lv_wire_in_init(&p->in, LV_USER_HDR + LV_USER_MAX_PAYLOAD), 0);
}

void puppet_fault(struct puppet *p, struct puppet_fault fault)
{
	unsigned i = 0;

	pthread_mutex_lock(&p->lock);
	while (i < PUPPET_FAULTS && p->faults[i].what != PUPPET_NOTHING)
		i++;
	if (i < PUPPET_FAULTS)
		p->faults[i] = fault;
	pthread_mutex_unlock(&p->lock);
	CHECK(i < PUPPET_FAULTS);
}

static void put_fd(int *slot, int fd)
{
	lv_fd_close(*slot);
	*slot = fd;
}

/* A new connection finds a device that nobody has configured. */
static void fresh_session(struct puppet *p)
{
	for (unsigned i = 0; i < PUPPET_QUEUES; i++) {
		struct puppet_ring *r = &p->ring[i];

		put_fd(&r->kick, -1);
		put_fd(&r->call, -1);
		put_fd(&r->err, -1);
		*r = (struct puppet_ring){.kick = -1, .call = -1, .err = -1};
	}
	lv_fd_close(atomic_exchange(&p->channel, -1));
	lv_wire_in_reset(&p->in);
	memset(&p->session, 0, sizeof(p->session));
	p->session.f30_offered = p->features >> 30 & 1;
	p->acked = p->acked_protocol = p->status = 0;
	p->regions = p->in_session = 0;
	p->mute = false;
	atomic_fetch_add(&p->sessions, 1);
}

static struct puppet_fault due_fault(struct puppet *p, uint32_t op)
{
	struct puppet_fault due = {.what = PUPPET_NOTHING};

	pthread_mutex_lock(&p->lock);
	for (unsigned i = 0; i < PUPPET_FAULTS && due.what == PUPPET_NOTHING; i++) {
		struct puppet_fault *f = &p->faults[i];

		if (f->what == PUPPET_NOTHING || f->spent || (f->op ? f->op != op : f->at != p->in_session))
			continue;
		f->spent = !f->every;
		due = *f;
	}
	pthread_mutex_unlock(&p->lock);
	return due;
}

static bool wait_fd(int fd, short events, int ms)
{
	struct pollfd pfd = {.fd = fd, .events = events};

	return poll(&pfd, 1, ms) == 1;
}

static void send_bytes(int sock, const void *data, uint32_t len, const int *fds, uint32_t nfds)
{
	struct lv_wire_msg msg = {.data = data, .len = len, .nfds = nfds};
	size_t off = 0;

	for (uint32_t i = 0; i < nfds; i++)
		msg.fds[i] = fds[i];
	while (!lv_wire_send(sock, &msg, 1, &off))
		if (!wait_fd(sock, POLLOUT, 5000))
			return;
}

void puppet_send(int sock, uint32_t request, uint32_t flags, uint32_t size, const void *payload, uint32_t len,
		 const int *fds, uint32_t nfds)
{
	const struct lv_user_hdr hdr = {.request = request, .flags = flags, .size = size};
	uint8_t bytes[LV_USER_HDR + 2 * LV_USER_MAX_PAYLOAD];

	CHECK(len <= sizeof(bytes) - LV_USER_HDR);
	lv_user_hdr_put(bytes, &hdr);
	if (len)
		memcpy(bytes + LV_USER_HDR, payload, len);
	send_bytes(sock, bytes, LV_USER_HDR + len, fds, nfds);
}

/* Exactly one message into in: 1, 0 nothing within ms, -1 over. */
static int read_message(int sock, struct lv_wire_in *in, int ms, struct lv_user_msg *msg)
{
	for (;;) {
		const size_t have = in->end - in->start;
		size_t want = LV_USER_HDR;
		ssize_t n;

		if (have >= LV_USER_HDR) {
			msg->hdr = lv_user_hdr_get(in->buf + in->start);
			want += msg->hdr.size;
			if (msg->hdr.size > LV_USER_MAX_PAYLOAD)
				return -1;
			if (have == want)
				break;
		}
		n = lv_wire_recv(sock, in, want - have);
		if (n == -EAGAIN && !wait_fd(sock, POLLIN, ms))
			return 0;
		if (n != -EAGAIN && n <= 0)
			return -1;
	}
	msg->payload = in->buf + in->start + LV_USER_HDR;
	msg->fds = in->fds;
	msg->nfds = in->nfds;
	return 1;
}

int puppet_recv(int sock, int ms, struct lv_user_hdr *hdr, void *payload, size_t cap, uint32_t *nfds)
{
	struct lv_user_msg msg;
	struct lv_wire_in in;
	int rc;

	CHECK_EQ(lv_wire_in_init(&in, LV_USER_HDR + LV_USER_MAX_PAYLOAD), 0);
	rc = read_message(sock, &in, ms, &msg);
	if (rc == 1) {
		*hdr = msg.hdr;
		if (nfds)
			*nfds = msg.nfds;
		memcpy(payload, msg.payload, msg.hdr.size < cap ? msg.hdr.size : cap);
		rc = (int)msg.hdr.size;
	} else {
		rc = -1;
	}
	lv_wire_in_destroy(&in);
	return rc;
}

static int keep_fd(const struct libvhost_req *req)
{
	return req->flags & LIBVHOST_REQ_HAS_FD ? lv_fd_dup(req->fd) : -1;
}

static void behave_ring(struct puppet *p, struct libvhost_req *req)
{
	struct puppet_ring *r = &p->ring[req->index % PUPPET_QUEUES];

	switch (req->op) {
	case LIBVHOST_OP_SET_VRING_NUM:
		r->num = req->arg.num;
		break;
	case LIBVHOST_OP_SET_VRING_ADDR:
		r->addr = req->arg.addr;
		break;
	case LIBVHOST_OP_SET_VRING_BASE:
		r->base = req->arg.num;
		break;
	case LIBVHOST_OP_GET_VRING_BASE:
		req->result[0] = r->base;
		put_fd(&r->kick, -1);
		break;
	case LIBVHOST_OP_SET_VRING_ENABLE:
		r->enabled = req->arg.num;
		break;
	case LIBVHOST_OP_SET_VRING_KICK:
		put_fd(&r->kick, keep_fd(req));
		break;
	case LIBVHOST_OP_SET_VRING_CALL:
		put_fd(&r->call, keep_fd(req));
		break;
	case LIBVHOST_OP_SET_VRING_ERR:
		put_fd(&r->err, keep_fd(req));
		break;
	default:
		break;
	}
}

static void give_memfd(struct libvhost_req *req, uint64_t size)
{
	req->out_fd = memfd_create("puppet", MFD_CLOEXEC);
	CHECK(req->out_fd >= 0);
	CHECK_EQ(ftruncate(req->out_fd, (off_t)size), 0);
	req->out_flags = LIBVHOST_REQ_OUT_FD;
	req->result[0] = size;
}

static void give_config(struct puppet *p, struct libvhost_req *req)
{
	const struct libvhost_req_config *c = &req->arg.config;

	if (c->offset + c->size > PUPPET_CONFIG) {
		req->err = -EINVAL;
		return;
	}
	memcpy((void *)(uintptr_t)req->data_out, p->config + c->offset, c->size);
	req->data_out_len = c->size;
}

static void behave(struct puppet *p, struct libvhost_req *req)
{
	switch (req->op) {
	case LIBVHOST_OP_GET_FEATURES:
		req->result[0] = p->features;
		break;
	case LIBVHOST_OP_SET_FEATURES:
		p->acked = req->arg.features[0];
		p->session.f30_acked = p->acked >> 30 & 1;
		break;
	case LIBVHOST_OP_GET_PROTOCOL_FEATURES:
		req->result[0] = p->protocol_features;
		break;
	case LIBVHOST_OP_SET_PROTOCOL_FEATURES:
		p->acked_protocol = p->session.protocol_features = req->arg.u64;
		break;
	case LIBVHOST_OP_GET_QUEUE_NUM:
		req->result[0] = p->num_queues;
		break;
	case LIBVHOST_OP_GET_MAX_MEM_SLOTS:
		req->result[0] = p->slots;
		break;
	case LIBVHOST_OP_SET_MEM_TABLE:
		p->regions = req->arg.table.count;
		break;
	case LIBVHOST_OP_ADD_MEM_REG:
		p->regions++;
		break;
	case LIBVHOST_OP_REM_MEM_REG:
		p->regions--;
		break;
	case LIBVHOST_OP_SET_STATUS:
		p->status = req->arg.u64;
		break;
	case LIBVHOST_OP_GET_STATUS:
		req->result[0] = p->status;
		break;
	case LIBVHOST_OP_GET_CONFIG:
		give_config(p, req);
		break;
	case LIBVHOST_OP_SET_CONFIG:
		if (req->arg.config.offset + req->arg.config.size <= PUPPET_CONFIG)
			memcpy(p->config + req->arg.config.offset, (void *)(uintptr_t)req->data_in,
			       req->arg.config.size);
		break;
	case LIBVHOST_OP_GET_INFLIGHT_FD:
		give_memfd(req, 4096ull * req->arg.inflight.num_queues);
		break;
	case LIBVHOST_OP_GET_SHARED_OBJECT:
		give_memfd(req, 4096);
		break;
	case LIBVHOST_OP_SET_BACKEND_REQ_FD:
		lv_fd_close(atomic_exchange(&p->channel, keep_fd(req)));
		break;
	default:
		behave_ring(p, req);
	}
}

/* What a fault does to a finished reply. len is the reply's length, 0 = none is due. */
static int send_reply(struct puppet *p, const struct puppet_fault *f, uint8_t *buf, int len, int *fds, uint32_t nfds)
{
	const enum puppet_what what = f->what;
	struct lv_user_hdr hdr;
	int stray[8], copies = what == PUPPET_TWICE ? 2 : 1;

	if (what == PUPPET_MUTE)
		p->mute = true;
	if (!len || p->mute || what == PUPPET_SKIP)
		return what == PUPPET_DIE_AFTER || what == PUPPET_DIE_INSIDE ? -1 : 1;
	hdr = lv_user_hdr_get(buf);
	if (what == PUPPET_WRONG_ID)
		hdr.request = f->arg;
	if (what == PUPPET_FLAGS)
		hdr.flags = f->arg;
	if (what == PUPPET_SIZE) {
		hdr.size = f->arg;
		len = (int)(LV_USER_HDR + (f->arg <= LV_USER_MAX_PAYLOAD ? f->arg : 0));
	}
	lv_user_hdr_put(buf, &hdr);
	if (what == PUPPET_WRONG_INDEX)
		buf[LV_USER_HDR]++;
	if (what == PUPPET_LATE)
		nanosleep(&(struct timespec){.tv_sec = f->arg / 1000, .tv_nsec = f->arg % 1000 * 1000000l}, NULL);
	if (what == PUPPET_STRAY_FDS)
		for (nfds = 0; nfds < f->arg && nfds < 8; nfds++)
			(fds = stray)[nfds] = STDERR_FILENO;
	if (what == PUPPET_DIE_INSIDE) {
		if (f->arg)
			send_bytes(p->sock, buf, f->arg, fds, nfds);
		return -1;
	}
	for (int i = 0; what == PUPPET_DRIP && i < len - 1; i++) {
		send_bytes(p->sock, buf + i, 1, fds, i ? 0 : nfds);
		nanosleep(&(struct timespec){.tv_nsec = 100000}, NULL);
	}
	if (what == PUPPET_DRIP)
		send_bytes(p->sock, buf + len - 1, 1, NULL, 0);
	while (what != PUPPET_DRIP && copies--)
		send_bytes(p->sock, buf, (uint32_t)len, fds, nfds);
	return what == PUPPET_DIE_AFTER ? -1 : 1;
}

static int answer(struct puppet *p, const struct lv_user_msg *msg)
{
	static _Thread_local uint64_t scratch[LV_USER_SCRATCH / 8];
	const bool need_reply = msg->hdr.flags & LV_USER_F_NEED_REPLY;
	uint8_t buf[LV_USER_HDR + LV_USER_MAX_PAYLOAD] = {0};
	struct libvhost_req req = {0};
	struct puppet_fault f;
	const char *why = NULL;
	uint32_t nfds = 0;
	int fds[LV_USER_MAX_FDS], len, rc;

	rc = lv_user_decode(&req, msg, false, &p->session, scratch, sizeof(scratch), &why);
	if (atomic_load(&p->messages) < PUPPET_SEEN) {
		p->seen[atomic_load(&p->messages)] = req.op;
		p->seen_flags[atomic_load(&p->messages)] = msg->hdr.flags;
	}
	f = due_fault(p, req.op);
	p->in_session++;
	atomic_fetch_add(&p->messages, 1);
	if (f.what == PUPPET_DIE_BEFORE)
		return -1;
	if (f.what == PUPPET_STALL) {
		while (!atomic_load(&p->stopping) && !atomic_exchange(&p->killed, false))
			nanosleep(&(struct timespec){.tv_nsec = 2000000}, NULL);
		return -1;
	}
	if (p->on_message && p->on_message(p, &req, msg))
		return 1;
	req.err = rc;
	if (!rc && f.what == PUPPET_REFUSE)
		req.err = f.arg ? -(int)f.arg : -EINVAL;
	if (!req.err)
		behave(p, &req);
	len = lv_user_encode_reply(&req, &p->session, need_reply, buf, sizeof(buf), fds, &nfds);
	if (len < 0 || (req.err && !len))
		rc = -1; /* what cannot be refused in words is refused by hanging up */
	else
		rc = send_reply(p, &f, buf, len, fds, nfds);
	if (req.out_flags & LIBVHOST_REQ_OUT_FD)
		lv_fd_close(req.out_fd);
	return rc;
}

static void hang_up(struct puppet *p)
{
	put_fd(&p->sock, -1);
}

int puppet_step(struct puppet *p, int ms)
{
	struct lv_user_msg msg;
	int rc = read_message(p->sock, &p->in, ms, &msg);

	if (rc == 1) {
		rc = answer(p, &msg);
		lv_wire_in_reset(&p->in);
	}
	if (rc < 0)
		hang_up(p);
	return rc;
}

static void *serve(void *arg)
{
	struct puppet *p = arg;

	do {
		if (p->listener >= 0) {
			int sock = wait_fd(p->listener, POLLIN, 20) ? lv_wire_accept(p->listener) : -1;

			if (sock < 0)
				continue;
			p->sock = sock;
			fresh_session(p);
		}
		while (!atomic_load(&p->stopping) && !atomic_exchange(&p->killed, false) && puppet_step(p, 5) >= 0)
			;
		hang_up(p);
	} while (p->listener >= 0 && !atomic_load(&p->stopping));
	return NULL;
}

void puppet_pair(struct puppet *p)
{
	int socks[2];

	CHECK_EQ(lv_wire_pair(socks), 0);
	p->sock = socks[0];
	p->front = socks[1];
	fresh_session(p);
}

void puppet_run(struct puppet *p)
{
	p->threaded = true;
	CHECK_EQ(pthread_create(&p->thread, NULL, serve, p), 0);
}

void puppet_start(struct puppet *p)
{
	puppet_pair(p);
	puppet_run(p);
}

void puppet_listen(struct puppet *p, const char *path)
{
	snprintf(p->path, sizeof(p->path), "%s", path);
	p->listener = lv_wire_listen(path, 4);
	CHECK(p->listener >= 0);
	puppet_run(p);
}

int puppet_front(struct puppet *p)
{
	return p->front;
}

void puppet_give_front(struct puppet *p)
{
	put_fd(&p->front, -1);
}

void puppet_kill(struct puppet *p)
{
	atomic_store(&p->killed, true);
}

void puppet_stop(struct puppet *p)
{
	atomic_store(&p->stopping, true);
	if (p->threaded)
		pthread_join(p->thread, NULL);
	hang_up(p);
	put_fd(&p->front, -1);
	put_fd(&p->listener, -1);
	if (p->path[0])
		unlink(p->path);
	for (unsigned i = 0; i < PUPPET_QUEUES; i++) {
		put_fd(&p->ring[i].kick, -1);
		put_fd(&p->ring[i].call, -1);
		put_fd(&p->ring[i].err, -1);
	}
	lv_fd_close(atomic_exchange(&p->channel, -1));
	lv_wire_in_destroy(&p->in);
}

struct libvhost_transport *puppet_connect(struct puppet *p, struct libvhost_ctx *ctx,
					  const struct libvhost_transport_opts *opts)
{
	struct libvhost_transport_opts o = {.size = sizeof(o)};
	struct libvhost_transport *t = NULL;
	char uri[128] = "user-fd:";

	if (opts)
		o = *opts;
	if (p->listener >= 0) {
		snprintf(uri, sizeof(uri), "user:%s", p->path);
	} else {
		o.flags |= LIBVHOST_TRANSPORT_OPT_HAS_FD;
		o.fd = p->front;
	}
	CHECK_EQ(libvhost_transport_open(ctx, uri, &o, &t), 0);
	puppet_give_front(p);
	return t;
}
