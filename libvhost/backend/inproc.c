/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/*
 * A transport whose other end is a back-end of the same process: the requests that would become messages go to the same
 * handlers as they are. The device still maps the guest's memory by itself from the descriptors, as a stranger would.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend/device.h"
#include "transport/transport.h"

struct lv_inproc {
	struct libvhost_backend *b;
	struct libvhost_transport *t;
	int wake_fd; /* a program ended, or the configuration changed */
};

void lv_inproc_wake(struct lv_inproc *in)
{
	lv_eventfd_signal(in->wake_fd);
}

static int inproc_open(void *self)
{
	struct lv_inproc *in = self;
	int rc = lv_backend_lock(in->b);

	if (rc < 0)
		return rc;
	rc = lv_backend_check_alive(in->b);
	if (rc == 0 && !in->b->session.open)
		rc = in->b->session.mem && !lv_session_close(&in->b->session, in->b->opts.timeout_ms)
			     ? -EBUSY
			     : lv_session_open(&in->b->session);
	lv_backend_unlock(in->b);
	return rc;
}

static void inproc_close(void *self)
{
	struct lv_inproc *in = self;

	if (lv_backend_lock(in->b) < 0)
		return;
	if (in->b->session.open) {
		lv_backend_event(in->b, LIBVHOST_EVENT_DISCONNECTED, LIBVHOST_NONE, -ECONNRESET,
				 "the in-process front-end left");
		if (!lv_session_close(&in->b->session, in->b->opts.timeout_ms))
			in->b->retry_at = lv_now(in->b->ctx);
	}
	lv_backend_unlock(in->b);
}

static void inproc_destroy(void *self)
{
	struct lv_inproc *in = self;

	if (lv_backend_lock(in->b) == 0) {
		in->b->inproc = NULL;
		lv_backend_unlock(in->b);
	}
	lv_fd_close(in->wake_fd);
	free(in);
}

static int inproc_query(void *self, struct libvhost_transport_caps *caps)
{
	(void)self;
	caps->dialect = LIBVHOST_DIALECT_USER;
	caps->addr_kind = LIBVHOST_ADDR_COOKIE;
	caps->flags = LIBVHOST_TRANSPORT_NEEDS_FD | LIBVHOST_TRANSPORT_BASE_STOPS | LIBVHOST_TRANSPORT_BACKEND_CHANNEL |
		      LIBVHOST_TRANSPORT_CAN_REOPEN;
	caps->max_regions = 8; /* of the whole table, as on a socket */
	for (uint32_t op = 1; op < 256; op++)
		if (lv_session_knows(op))
			caps->ops[op / 64] |= 1ull << op % 64;
	snprintf(caps->peer, sizeof(caps->peer), "inproc:");
	return 0;
}

/* What a socket's two codecs would have refused. */
static int check(const struct lv_session *s, const struct libvhost_req *req, const char **why)
{
	const struct lv_op *row = lv_session_knows(req->op) ? lv_op(req->op) : NULL;

	*why = "the device does not know this request";
	if (!row)
		return -ENOTSUP;
	if (req->op == LIBVHOST_OP_SET_BACKEND_REQ_FD && !(req->flags & LIBVHOST_REQ_HAS_FD))
		return 0;
	*why = lv_user_check(req, row, &s->wire);
	return *why ? -EINVAL : 0;
}

static void execute(struct lv_session *s, struct libvhost_req *req)
{
	int rc = lv_session_handle(s, req);

	req->err = rc;
	req->state = rc < 0 ? LIBVHOST_REQ_FAILED : LIBVHOST_REQ_DONE;
	if (rc < 0)
		req->result[0] = (uint64_t)-rc;
}

static int check_there(struct lv_inproc *in)
{
	if (!in->b->stopped)
		return 0;
	in->t->broken = true;
	return lv_fail(&in->t->err, -ENOTCONN, LIBVHOST_EK_DISCONNECTED, "%s: the back-end was stopped", in->t->peer);
}

/* Requests run one after another, so the first refusal is known before anything behind it has happened. */
static int inproc_submit(void *self, struct libvhost_req *reqs, uint32_t count)
{
	struct lv_inproc *in = self;
	struct lv_session *s = &in->b->session;
	const char *why;
	int rc = lv_backend_lock(in->b);

	if (rc < 0)
		return rc;
	lv_reqs_clear(reqs, count);
	rc = check_there(in);
	for (uint32_t i = 0; i < count && rc == 0; i++) {
		rc = check(s, &reqs[i], &why);
		if (rc < 0)
			lv_fail(&in->t->err, rc, rc == -ENOTSUP ? LIBVHOST_EK_UNSUPPORTED : LIBVHOST_EK_ARGUMENT,
				"%s: request %u (%s): %s; nothing was sent", in->t->peer, i,
				libvhost_op_name(reqs[i].op), why);
	}
	for (uint32_t i = 0; i < count && rc == 0; i++) {
		execute(s, &reqs[i]);
		if (reqs[i].state == LIBVHOST_REQ_FAILED && !(reqs[i].flags & LIBVHOST_REQ_OPTIONAL))
			break;
	}
	lv_backend_unlock(in->b);
	lv_inproc_wake(in);
	return rc;
}

static int inproc_progress(void *self)
{
	struct lv_inproc *in = self;
	struct libvhost_req change = {.op = LIBVHOST_OP_BACKEND_CONFIG_CHANGE};
	bool changed;
	int rc = lv_backend_lock(in->b);

	if (rc < 0)
		return rc;
	lv_eventfd_drain(in->wake_fd);
	lv_backend_reports(in->b);
	changed = in->b->session.config_changed;
	in->b->session.config_changed = false;
	rc = check_there(in);
	lv_backend_unlock(in->b);
	if (rc < 0)
		return rc;
	if (changed && lv_transport_dispatch(in->t, &change) == 0 && in->t->client.answered)
		in->t->client.answered(in->t->client.arg, &change);
	return 1;
}

static void inproc_cancel(void *self)
{
	(void)self; /* a program is over before submit returns */
}

static uint32_t inproc_pollfds(void *self, struct libvhost_pollfd *fds, uint32_t cap)
{
	struct lv_inproc *in = self;

	if (cap)
		fds[0] = (struct libvhost_pollfd){.fd = in->wake_fd, .events = POLLIN};
	return 1;
}

static const struct libvhost_transport_ops ops = {
	.size = sizeof(ops),
	.open = inproc_open,
	.close = inproc_close,
	.destroy = inproc_destroy,
	.query = inproc_query,
	.submit = inproc_submit,
	.progress = inproc_progress,
	.cancel = inproc_cancel,
	.pollfds = inproc_pollfds,
};

static int connect(struct libvhost_backend *b, struct lv_inproc *in)
{
	int rc = lv_backend_lock(b);

	if (rc < 0)
		return rc;
	rc = lv_backend_check_alive(b);
	if (rc == 0 && lv_pulled(b))
		rc = lv_fail(&b->err, -ENOTSUP, LIBVHOST_EK_UNSUPPORTED,
			     "back-end: not with LIBVHOST_BACKEND_PULL: a front-end would act on queues that the "
			     "caller has; "
			     "adopt one end of a socketpair");
	if (rc == 0 && lv_backend_occupied(b))
		rc = lv_fail(&b->err, -EBUSY, LIBVHOST_EK_STATE, "back-end: a front-end is connected");
	if (rc == 0)
		rc = lv_session_open(&b->session);
	if (rc == 0)
		b->inproc = in;
	lv_backend_unlock(b);
	return rc;
}

int libvhost_backend_inproc(struct libvhost_backend *b, struct libvhost_transport **ret)
{
	struct lv_inproc *in;
	int rc;

	if (!b || !ret)
		return -EINVAL;
	in = calloc(1, sizeof(*in));
	if (!in)
		return lv_fail(&b->err, -ENOMEM, LIBVHOST_EK_NOMEM, "back-end: out of memory");
	in->b = b;
	in->wake_fd = lv_eventfd();
	in->t = in->wake_fd < 0 ? NULL : lv_transport_alloc(b->ctx);
	rc = in->t ? connect(b, in) : in->wake_fd < 0 ? in->wake_fd : -ENOMEM;
	if (rc < 0) {
		libvhost_transport_free(in->t); /* has no operations yet */
		lv_fd_close(in->wake_fd);
		free(in);
		return rc;
	}
	in->t->ops = ops;
	in->t->self = in;
	snprintf(in->t->peer, sizeof(in->t->peer), "inproc:");
	*ret = in->t;
	return 0;
}
