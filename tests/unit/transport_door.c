/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* The plug-in door: what a transport made outside the library may count on. */
#include "check.h"

#include <errno.h>
#include <poll.h>
#include "core/ctx.h"
#include "core/wire.h"
#include "transport/transport.h"

struct plug {
	int fd, next; /* what progress returns */
	struct libvhost_req *reqs;
	uint32_t count, opened, closed, destroyed, cancelled;
};

static int plug_open(void *self)
{
	((struct plug *)self)->opened++;
	return 0;
}

static void plug_close(void *self)
{
	((struct plug *)self)->closed++;
}

static void plug_destroy(void *self)
{
	((struct plug *)self)->destroyed++;
}

static int plug_query(void *self, struct libvhost_transport_caps *caps)
{
	(void)self;
	caps->dialect = LIBVHOST_DIALECT_VDPA;
	memcpy(caps->peer, "plug:1", 7);
	return 0;
}

static int plug_submit(void *self, struct libvhost_req *reqs, uint32_t count)
{
	struct plug *p = self;

	p->reqs = reqs;
	p->count = count;
	return 0;
}

static int plug_progress(void *self)
{
	struct plug *p = self;

	for (uint32_t i = 0; p->next == 1 && i < p->count; i++)
		p->reqs[i].state = p->reqs[i].op == LIBVHOST_OP_VDPA_SUSPEND ? LIBVHOST_REQ_FAILED : LIBVHOST_REQ_DONE;
	return p->next;
}

static void plug_cancel(void *self)
{
	((struct plug *)self)->cancelled++;
}

static uint32_t plug_pollfds(void *self, struct libvhost_pollfd *fds, uint32_t cap)
{
	CHECK(cap > 0);
	fds[0] = (struct libvhost_pollfd){((struct plug *)self)->fd, POLLIN};
	return 1;
}

static const struct libvhost_transport_ops plug_ops = {
	.size = sizeof(plug_ops),
	.open = plug_open,
	.close = plug_close,
	.destroy = plug_destroy,
	.query = plug_query,
	.submit = plug_submit,
	.progress = plug_progress,
	.cancel = plug_cancel,
	.pollfds = plug_pollfds,
};

TEST(transport_door, a_plug_in_runs_programs_under_our_deadline)
{
	struct libvhost_req reqs[2] = {{.op = LIBVHOST_OP_GET_STATUS, .result = {9}}, {.op = LIBVHOST_OP_VDPA_SUSPEND}};
	struct libvhost_transport_caps caps = {.size = sizeof(caps)};
	struct libvhost_transport_ops bad = plug_ops;
	struct lv_ledger before = lv_ledger_take();
	struct libvhost_error e = {.size = sizeof(e)};
	struct libvhost_transport *t = NULL;
	struct libvhost_ctx *ctx = NULL;
	struct plug p = {.fd = lv_eventfd(), .next = 1};
	uint32_t done = 0;

	CHECK_EQ(libvhost_ctx_new(NULL, &ctx), 0);
	bad.progress = NULL;
	CHECK_EQ(libvhost_transport_new(ctx, &bad, &p, &t), -EINVAL);
	CHECK_EQ(libvhost_transport_new(ctx, &plug_ops, &p, &t), 0);
	CHECK_EQ(p.opened, 1);
	CHECK_EQ(libvhost_transport_query(t, &caps), 0);
	CHECK_STR(caps.peer, "plug:1");
	lv_eventfd_signal(p.fd);
	CHECK_EQ(libvhost_transport_exec(t, reqs, 1, 1000, &done), 0);
	CHECK_EQ(done, 1);
	CHECK_EQ(reqs[0].result[0], 0);
	CHECK_EQ(libvhost_transport_exec(t, reqs, 2, 1000, &done), -EIO);
	CHECK_EQ(libvhost_transport_error(t, &e), 0);
	CHECK_EQ(e.kind, LIBVHOST_EK_REFUSED);
	CHECK_HAS(e.text, "VDPA_SUSPEND");
	p.next = 0;
	lv_eventfd_drain(p.fd);
	CHECK_EQ(libvhost_transport_exec(t, reqs, 1, 20, &done), -ETIMEDOUT);
	CHECK_EQ(p.cancelled, 1);
	p.next = -ENODEV;
	lv_eventfd_signal(p.fd);
	CHECK_EQ(libvhost_transport_exec(t, reqs, 1, 20, &done), -ENODEV);
	CHECK_EQ(libvhost_transport_exec(t, reqs, 1, 20, &done), -ENOTCONN);
	p.next = 1;
	CHECK_EQ(lv_transport_reopen(t), 0);
	CHECK_EQ(libvhost_transport_exec(t, reqs, 1, 20, &done), 0);
	libvhost_transport_free(t);
	CHECK_EQ(p.closed, 1);
	CHECK_EQ(p.destroyed, 1);
	lv_fd_close(p.fd);
	libvhost_ctx_free(ctx);
	CHECK_LEDGER(before);
}

static int refuse(void *arg, struct libvhost_req *req)
{
	*(unsigned *)arg += req->op == LIBVHOST_OP_BACKEND_IOTLB_MSG;
	return 1;
}

TEST(transport_door, inbound_requests_find_their_listener)
{
	struct libvhost_req req = {.op = LIBVHOST_OP_BACKEND_IOTLB_MSG};
	struct libvhost_transport *t = NULL;
	struct libvhost_ctx *ctx = NULL;
	struct plug p = {.fd = -1};
	unsigned seen = 0;

	CHECK_EQ(libvhost_ctx_new(NULL, &ctx), 0);
	CHECK_EQ(libvhost_transport_new(ctx, &plug_ops, &p, &t), 0);
	CHECK_EQ(libvhost_transport_inbound(t, &req), -ENOTSUP);
	t->on_request = refuse;
	t->on_request_arg = &seen;
	CHECK_EQ(libvhost_transport_inbound(t, &req), -EIO);
	CHECK_EQ(seen, 1);
	req.op = LIBVHOST_OP_BACKEND_CONFIG_CHANGE;
	CHECK_EQ(libvhost_transport_inbound(t, &req), 0);
	CHECK_EQ(libvhost_transport_inbound(t, NULL), -EINVAL);
	libvhost_transport_free(t);
	libvhost_ctx_free(ctx);
}
