/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
#include "devrig.h"

#include <poll.h>
#include "core/wire.h"

#define PF(bit) (1ull << LIBVHOST_PROTOCOL_F_##bit)

/* ---- the fake ---- */

void fake_arm(struct fake *f)
{
	f->nseen = f->ordinal = f->zero_fds = f->logged_rings = 0;
}

void fake_init(struct fake *f)
{
	memset(f, 0, sizeof(*f));
	strcpy(f->name, "fake:peer");
	f->features = FAKE_FEATURES;
	f->protocol = PF(MQ) | PF(REPLY_ACK) | PF(CONFIG) | PF(CONFIGURE_MEM_SLOTS) | PF(RESET_DEVICE);
	f->queues = LIBVHOST_MAX_QUEUES;
	f->slots = 32;
	f->max_regions = 8;
	f->refuse_at = f->die_at = FAKE_NEVER;
	f->fd = f->inflight_fd = -1;
}

uint32_t fake_first(const struct fake *f, uint32_t op)
{
	for (uint32_t i = 0; i < f->nseen; i++)
		if (f->seen[i] == op)
			return i;
	return FAKE_NEVER;
}

uint32_t fake_count(const struct fake *f, uint32_t op)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < f->nseen; i++)
		n += f->seen[i] == op;
	return n;
}

static int fake_open(void *self)
{
	struct fake *f = self;

	f->tries++;
	if (f->open_error)
		return f->open_error;
	if (f->away)
		return -EAGAIN;
	f->opens++;
	f->dead = false;
	return 0;
}

static void fake_close(void *self)
{
	struct fake *f = self;

	f->closes++;
	f->dead = true;
}

static void fake_destroy(void *self)
{
	struct fake *f = self;

	lv_fd_close(f->fd);
	lv_fd_close(f->inflight_fd);
	f->fd = f->inflight_fd = -1;
	f->destroyed = true;
}

static int fake_query(void *self, struct libvhost_transport_caps *caps)
{
	const struct fake *f = self;

	caps->dialect = f->dialect;
	caps->addr_kind = LIBVHOST_ADDR_COOKIE;
	caps->flags = LIBVHOST_TRANSPORT_NEEDS_FD | LIBVHOST_TRANSPORT_CAN_REOPEN | LIBVHOST_TRANSPORT_BASE_STOPS;
	caps->max_regions = f->max_regions;
	caps->max_queues = f->max_queues;
	memset(caps->ops, 0xff, sizeof(caps->ops));
	snprintf(caps->peer, sizeof(caps->peer), "%s", f->name);
	return 0;
}

static int fake_submit(void *self, struct libvhost_req *reqs, uint32_t count)
{
	struct fake *f = self;

	f->reqs = reqs;
	f->count = count;
	f->at = 0;
	if (f->slow)
		lv_eventfd_signal(f->fd);
	return 0;
}

static void give_region(struct fake *f, struct libvhost_req *req)
{
	const uint64_t bytes = f->region_what == FAKE_REGION_SHORT ? f->region - 1 : f->region;
	char path[64];
	int fd = f->region_what == FAKE_REGION_EVENTFD ? lv_eventfd()
		 : f->region_what == FAKE_REGION_DISK  ? disk_file(bytes)
						       : memfd(bytes, 0);

	if (f->region_what == FAKE_REGION_READONLY) {
		snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
		req->out_fd = open(path, O_RDONLY | O_CLOEXEC);
		lv_fd_close(fd);
	} else {
		req->out_fd = fd;
	}
	req->out_flags = LIBVHOST_REQ_OUT_FD;
	req->result[0] = f->region;
}

static void take_region(struct fake *f, const struct libvhost_req *req)
{
	lv_fd_close(f->inflight_fd);
	f->inflight_fd = lv_fd_dup(req->fd);
	f->inflight = req->arg.inflight;
}

static void answer(struct fake *f, struct libvhost_req *req)
{
	switch (req->op) {
	case LIBVHOST_OP_GET_FEATURES:
		req->result[0] = f->features;
		break;
	case LIBVHOST_OP_GET_PROTOCOL_FEATURES:
		req->result[0] = f->protocol;
		break;
	case LIBVHOST_OP_GET_QUEUE_NUM:
		req->result[0] = f->queues;
		break;
	case LIBVHOST_OP_GET_MAX_MEM_SLOTS:
		req->result[0] = f->slots;
		break;
	case LIBVHOST_OP_SET_STATUS:
		f->status = req->arg.u64;
		break;
	case LIBVHOST_OP_GET_STATUS:
		req->result[0] = f->status;
		break;
	case LIBVHOST_OP_VDPA_GET_IOVA_RANGE:
		req->result[1] = f->iova_last;
		break;
	case LIBVHOST_OP_SET_FEATURES:
		f->acked = req->arg.u64;
		break;
	case LIBVHOST_OP_SET_LOG_BASE:
		f->log_bytes = req->arg.log.size;
		break;
	case LIBVHOST_OP_SET_VRING_ADDR:
		f->logged_rings += req->arg.addr.flags & 1;
		break;
	case LIBVHOST_OP_SET_MEM_TABLE:
		f->table = req->arg.table.count;
		break;
	case LIBVHOST_OP_SET_VRING_BASE:
		f->told_base[req->index] = (uint32_t)req->arg.num;
		break;
	case LIBVHOST_OP_GET_VRING_BASE:
		req->result[0] = f->base[req->index];
		break;
	case LIBVHOST_OP_GET_CONFIG:
		memcpy((void *)(uintptr_t)req->data_out, f->config + req->arg.config.offset, req->arg.config.size);
		req->data_out_len = req->arg.config.size;
		break;
	case LIBVHOST_OP_GET_INFLIGHT_FD:
		give_region(f, req);
		break;
	case LIBVHOST_OP_SET_INFLIGHT_FD:
		take_region(f, req);
		break;
	default:
		break;
	}
	req->state = LIBVHOST_REQ_DONE;
}

static void note(struct fake *f, const struct libvhost_req *req)
{
	f->zero_fds += req->flags & LIBVHOST_REQ_HAS_FD && req->fd == 0;
	if (f->nseen == FAKE_SEEN)
		return;
	f->index[f->nseen] = req->index;
	f->seen[f->nseen++] = req->op;
}

static int fake_progress(void *self)
{
	struct fake *f = self;

	if (f->dead)
		return -ECONNRESET;
	if (f->slow)
		lv_eventfd_drain(f->fd);
	for (; f->reqs && f->at < f->count; f->at++) {
		struct libvhost_req *req = &f->reqs[f->at];

		if (f->stall_op && f->stall_op == req->op) {
			req->state = LIBVHOST_REQ_UNKNOWN;
			atomic_store(&f->stalled, true);
			return 0;
		}
		note(f, req);
		if (f->dies || f->ordinal == f->die_at) {
			req->state = LIBVHOST_REQ_UNKNOWN;
			f->ordinal++;
			f->dead = true;
			f->reqs = NULL;
			return -ECONNRESET;
		}
		if (f->ordinal++ == f->refuse_at) {
			req->state = LIBVHOST_REQ_FAILED;
			req->err = -EIO;
			req->result[0] = 22;
			break;
		}
		answer(f, req);
	}
	f->reqs = NULL;
	return 1;
}

static void fake_cancel(void *self)
{
	struct fake *f = self;

	f->reqs = NULL;
}

static uint32_t fake_pollfds(void *self, struct libvhost_pollfd *fds, uint32_t cap)
{
	struct fake *f = self;

	if (!f->slow || !cap)
		return 0;
	fds[0] = (struct libvhost_pollfd){f->fd, POLLIN};
	return 1;
}

struct libvhost_transport *fake_transport(struct fake *f, struct libvhost_ctx *ctx)
{
	const struct libvhost_transport_ops ops = {
		.size = sizeof(ops),
		.open = fake_open,
		.close = fake_close,
		.destroy = fake_destroy,
		.query = fake_query,
		.submit = fake_submit,
		.progress = fake_progress,
		.cancel = fake_cancel,
		.pollfds = fake_pollfds,
	};

	if (f->slow)
		f->fd = lv_eventfd();
	f->destroyed = false;
	CHECK_EQ(libvhost_transport_new(ctx, &ops, f, &f->t), 0);
	return f->t;
}

/* ---- the rig ---- */

void devrig_init(struct devrig *r)
{
	memset(r, 0, sizeof(*r));
	r->before = lv_ledger_take();
	fake_init(&r->f);
	r->g = guest_new(0);
	CHECK_EQ(libvhost_mem_begin(r->g.mem), 0);
	CHECK_EQ(libvhost_mem_alloc(r->g.mem, 0, DEVRIG_RAM), 0);
	CHECK_EQ(libvhost_mem_commit(r->g.mem, 0, NULL), 0);
	r->opts = (struct libvhost_dev_opts){.size = sizeof(r->opts), .num_queues = DEVRIG_QUEUES, .mem = r->g.mem};
}

int devrig_open(struct devrig *r)
{
	int rc;

	if (!r->opts.uri && !r->opts.transport)
		r->opts.transport = fake_transport(&r->f, r->g.ctx);
	rc = libvhost_dev_init(r->g.ctx, &r->opts, &r->dev);
	if (rc && rc != -EINPROGRESS) {
		CHECK(!r->dev);
		libvhost_transport_free(r->opts.transport); /* still ours */
	}
	r->opts.transport = NULL;
	return rc;
}

void devrig_close(struct devrig *r)
{
	libvhost_dev_cleanup(r->dev);
	guest_free(&r->g);
	CHECK_LEDGER(r->before);
}

static uint64_t ring(uint32_t index)
{
	return index * 0x3000ull;
}

struct libvhost_queue devrig_queue(uint32_t index)
{
	return (struct libvhost_queue){.size = sizeof(struct libvhost_queue),
				       .num = DEVRIG_NUM,
				       .desc = ring(index),
				       .avail = ring(index) + 0x1000,
				       .used = ring(index) + 0x2000};
}

void devrig_queues(struct devrig *r, uint32_t count)
{
	for (uint32_t i = 0; i < count; i++) {
		struct libvhost_queue q = devrig_queue(i);

		CHECK_EQ(libvhost_dev_set_queue(r->dev, i, &q), 0);
	}
}

void devrig_ready(struct devrig *r)
{
	devrig_init(r);
	CHECK_EQ(devrig_open(r), 0);
	devrig_queues(r, DEVRIG_QUEUES);
}

uint32_t devrig_state(struct devrig *r)
{
	struct libvhost_dev_info i = {.size = sizeof(i)};

	CHECK_EQ(libvhost_dev_info(r->dev, &i), 0);
	return i.state;
}

struct libvhost_error devrig_error(struct devrig *r)
{
	struct libvhost_error e = {.size = sizeof(e)};

	CHECK_EQ(libvhost_dev_error(r->dev, &e), 0);
	return e;
}

uint32_t devrig_logging(struct devrig *r)
{
	struct libvhost_dev_info i = {.size = sizeof(i)};

	CHECK_EQ(libvhost_dev_info(r->dev, &i), 0);
	return i.logging;
}

uint32_t devrig_events(struct devrig *r, uint32_t type, struct libvhost_event *last)
{
	struct libvhost_event e;
	uint32_t n = 0;

	while (libvhost_dev_next_event(r->dev, &e) == 1) {
		if (e.type != type)
			continue;
		n++;
		if (last)
			*last = e;
	}
	return n;
}

bool devrig_await(struct devrig *r, uint32_t type, unsigned ms, struct libvhost_event *event)
{
	const uint64_t end = now_ms() + ms;
	struct libvhost_event e;

	do {
		while (libvhost_dev_next_event(r->dev, &e) == 1) {
			if (e.type != type)
				continue;
			if (event)
				*event = e;
			return true;
		}
		CHECK_EQ(libvhost_dev_dispatch(r->dev, 10), 0);
	} while (now_ms() < end);
	return false;
}

void devrig_lose_peer(struct devrig *r)
{
	r->f.dead = true;
	CHECK_EQ(libvhost_dev_dispatch(r->dev, 0), 0);
}

struct libvhost_event devrig_done(struct libvhost_dev *dev)
{
	struct pollfd p = {.fd = libvhost_dev_fd(dev), .events = POLLIN};
	struct libvhost_event e;

	while (libvhost_dev_next_event(dev, &e) == 0) {
		CHECK_EQ(poll(&p, 1, PATIENCE_MS), 1);
		CHECK_EQ(libvhost_dev_dispatch(dev, 0), 0);
	}
	CHECK_EQ(e.type, LIBVHOST_EVENT_DONE);
	return e;
}

int devrig_grow(struct devrig *r, uint64_t gpa, uint32_t timeout_ms, uint32_t *lost)
{
	CHECK_EQ(libvhost_mem_begin(r->g.mem), 0);
	CHECK_EQ(libvhost_mem_alloc(r->g.mem, gpa, 0x10000), 0);
	return libvhost_mem_commit(r->g.mem, timeout_ms, lost);
}

/* Also while the library looks. */
static void set_idx(struct devrig *r, uint64_t gpa, uint16_t idx)
{
	__atomic_store_n((uint16_t *)at(&r->g, gpa) + 1, idx, __ATOMIC_RELEASE);
}

void devrig_set_avail(struct devrig *r, uint32_t queue, uint16_t idx)
{
	set_idx(r, ring(queue) + 0x1000, idx);
}

void devrig_set_used(struct devrig *r, uint32_t queue, uint16_t idx)
{
	set_idx(r, ring(queue) + 0x2000, idx);
}
