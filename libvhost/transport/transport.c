/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* The object: birth, death, and what may be asked at any time. Programs are run in program.c. */
#include "transport/transport.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "core/opts.h"
#include "core/wire.h"
#include "protocol/codec.h"

#define KNOWN_OPTS (LIBVHOST_TRANSPORT_OPT_HAS_FD | LIBVHOST_TRANSPORT_OPT_WAIT)

struct libvhost_transport *lv_transport_alloc(struct libvhost_ctx *ctx)
{
	struct libvhost_transport *t = calloc(1, sizeof(*t));

	if (!t) {
		lv_fail(&ctx->err, -ENOMEM, LIBVHOST_EK_NOMEM, "transport: out of memory");
		return NULL;
	}
	t->cancel_fd = lv_eventfd();
	if (t->cancel_fd < 0) {
		lv_fail_sys(&ctx->err, -t->cancel_fd, "transport: eventfd: %s", lv_errno_name(-t->cancel_fd));
		free(t);
		return NULL;
	}
	t->ctx = lv_ctx_ref(ctx);
	t->look_at = UINT64_MAX;
	t->watch.epoll_fd = t->watch.timer_fd = -1;
	lv_errslot_init(&t->err);
	lv_recorder_init(&t->recorder);
	return t;
}

static void destroy(struct libvhost_transport *t)
{
	if (t->ops.close)
		t->ops.close(t->self);
	lv_transport_watch_close(t);
	if (t->ops.destroy)
		t->ops.destroy(t->self);
	lv_fd_close(t->cancel_fd);
	lv_recorder_destroy(&t->recorder);
	lv_errslot_destroy(&t->err);
	libvhost_ctx_free(t->ctx);
	free(t);
}

static int open_scheme(struct libvhost_transport *t, const char *uri, const struct libvhost_transport_opts *opts,
		       bool later)
{
	const uint64_t deadline = later ? 0 : lv_deadline(t->ctx, opts->timeout_ms);

	if (!strncmp(uri, "user", 4))
		return lv_user_transport_open(t, uri, opts, deadline);
	if (!strncmp(uri, "kernel:", 7) || !strncmp(uri, "vdpa:", 5))
		return lv_fail(&t->err, -ENOTSUP, LIBVHOST_EK_UNSUPPORTED,
			       "%s: libvhost %s has only the vhost-user transport", uri, libvhost_version_string());
	return lv_fail(&t->err, -EINVAL, LIBVHOST_EK_ARGUMENT,
		       "%s: unknown scheme; use user:PATH, user-listen:PATH or user-fd:", uri);
}

static int open_uri(struct libvhost_ctx *ctx, const char *uri, const struct libvhost_transport_opts *opts, bool later,
		    struct libvhost_transport **ret)
{
	struct libvhost_transport_opts o;
	struct libvhost_transport *t;
	int rc;

	if (!ctx || !uri || !ret)
		return -EINVAL;
	rc = LV_OPTS_READ(&ctx->err, &o, opts);
	if (rc < 0)
		return rc;
	if ((o.flags & ~KNOWN_OPTS) || o.timeout_ms > LV_TIMEOUT_MAX_MS || o.ack_policy > LIBVHOST_ACK_NONE)
		return lv_fail(&ctx->err, -EINVAL, LIBVHOST_EK_ARGUMENT,
			       "%s: bad options: flags %#x, timeout %u ms, ack policy %u", uri, o.flags, o.timeout_ms,
			       o.ack_policy);
	t = lv_transport_alloc(ctx);
	if (!t)
		return -ENOMEM;
	t->on_request = o.on_request;
	t->on_request_arg = o.on_request_arg;
	atomic_init(&t->ack_policy, o.ack_policy);
	rc = open_scheme(t, uri, &o, later);
	if (rc < 0) {
		lv_fail_copy(&ctx->err, &t->err);
		destroy(t);
		return rc;
	}
	*ret = t;
	return 0;
}

int libvhost_transport_open(struct libvhost_ctx *ctx, const char *uri, const struct libvhost_transport_opts *opts,
			    struct libvhost_transport **ret)
{
	return open_uri(ctx, uri, opts, false, ret);
}

int lv_transport_open_later(struct libvhost_ctx *ctx, const char *uri, const struct libvhost_transport_opts *opts,
			    struct libvhost_transport **ret)
{
	return open_uri(ctx, uri, opts, true, ret);
}

int libvhost_transport_new(struct libvhost_ctx *ctx, const struct libvhost_transport_ops *ops, void *self,
			   struct libvhost_transport **ret)
{
	struct libvhost_transport_caps caps = {.size = sizeof(caps)};
	struct libvhost_transport_ops o;
	struct libvhost_transport *t;
	int rc;

	if (!ctx || !ops || !ret)
		return -EINVAL;
	rc = LV_OPTS_READ(&ctx->err, &o, ops);
	if (rc < 0)
		return rc;
	if (!o.query || !o.submit || !o.progress || !o.cancel || !o.pollfds || o.reserved)
		return lv_fail(&ctx->err, -EINVAL, LIBVHOST_EK_ARGUMENT,
			       "transport: query, submit, progress, cancel and pollfds are required");
	rc = o.query(self, &caps);
	if (!rc && o.open)
		rc = o.open(self);
	if (rc < 0)
		return lv_fail(&ctx->err, rc, LIBVHOST_EK_CONNECT, "transport: open failed: %s", lv_errno_name(-rc));
	t = lv_transport_alloc(ctx);
	if (!t) {
		if (o.close)
			o.close(self);
		return -ENOMEM;
	}
	t->ops = o;
	t->self = self;
	t->foreign = true;
	memcpy(t->peer, caps.peer, sizeof(t->peer) - 1);
	*ret = t;
	return 0;
}

void libvhost_transport_free(struct libvhost_transport *t)
{
	if (!t)
		return;
	while (lv_transport_enter(t) < 0) {
		if (pthread_equal(atomic_load(&t->owner), pthread_self()))
			return; /* from a callback of this very object: documented as having no effect */
		libvhost_transport_cancel(t);
		nanosleep(&(struct timespec){.tv_nsec = 200000}, NULL);
	}
	lv_transport_abandon(t);
	destroy(t);
}

int libvhost_transport_query(struct libvhost_transport *t, struct libvhost_transport_caps *caps)
{
	struct libvhost_transport_caps c = {.size = sizeof(c)};
	int rc;

	if (!t || !caps)
		return -EINVAL;
	rc = t->ops.query(t->self, &c);
	if (rc < 0)
		return rc;
	memcpy(c.peer, t->peer, sizeof(c.peer));
	return LV_OUT_WRITE(caps, &c);
}

int libvhost_transport_set_ack_policy(struct libvhost_transport *t, uint32_t policy)
{
	if (!t || policy > LIBVHOST_ACK_NONE)
		return -EINVAL;
	if (atomic_load(&t->running))
		return -EBUSY;
	atomic_store(&t->ack_policy, policy);
	return 0;
}

int libvhost_transport_error(struct libvhost_transport *t, struct libvhost_error *err)
{
	return t ? lv_errslot_read(&t->err, err) : -EINVAL;
}

int libvhost_transport_history(struct libvhost_transport *t, struct libvhost_history *entries, uint32_t *count)
{
	if (!t || !count || (!entries && *count))
		return -EINVAL;
	lv_recorder_read(&t->recorder, entries, count);
	return 0;
}

void lv_transport_set_client(struct libvhost_transport *t, const struct lv_transport_client *client)
{
	t->client = client ? *client : (struct lv_transport_client){0};
}

int lv_transport_dispatch(struct libvhost_transport *t, struct libvhost_req *req)
{
	const struct lv_op *row = lv_op(req->op);
	int rc = -ENOTSUP;

	if (t->client.inbound)
		rc = t->client.inbound(t->client.arg, req);
	if (rc != -ENOTSUP || !row)
		return rc < 0 ? rc : 0;
	if (row->inbound == LV_INBOUND_LIBRARY)
		return req->err = 0;
	if (!t->on_request)
		return rc;
	rc = t->on_request(t->on_request_arg, req);
	return rc > 0 ? -EIO : rc;
}

int libvhost_transport_inbound(struct libvhost_transport *t, struct libvhost_req *req)
{
	int rc;

	if (!t || !req)
		return -EINVAL;
	rc = lv_transport_dispatch(t, req);
	if (!rc && t->client.answered)
		t->client.answered(t->client.arg, req);
	return rc;
}

void lv_transport_close(struct libvhost_transport *t)
{
	if (lv_transport_enter(t) < 0)
		return;
	lv_transport_abandon(t);
	if (t->ops.close)
		t->ops.close(t->self);
	t->broken = true;
	lv_transport_leave(t);
}

int lv_transport_reopen(struct libvhost_transport *t)
{
	int rc = lv_transport_enter(t);

	if (rc < 0)
		return rc;
	lv_transport_abandon(t);
	rc = t->ops.open ? t->ops.open(t->self) : -ENOTSUP;
	t->broken = rc < 0;
	lv_transport_leave(t);
	return rc;
}

int lv_transport_reserve(struct libvhost_transport *t, uint32_t requests)
{
	int rc = lv_transport_enter(t);

	if (rc < 0)
		return rc;
	if (atomic_load(&t->running))
		rc = -EBUSY;
	else if (t->reserve)
		rc = t->reserve(t->self, requests);
	lv_transport_leave(t);
	return rc;
}

bool lv_transport_appeared(struct libvhost_transport *t)
{
	struct pollfd fds[LV_TRANSPORT_POLLFDS];

	if (t->appeared)
		return t->appeared(t->self);
	return lv_transport_pollfds(t, fds, LV_TRANSPORT_POLLFDS) > 1;
}
