/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
#include "fault.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli.h"

#define LONG_MS 3600000u /* the deadline is the outer transport's */

static const struct {
	const char *name;
	int err;
} errnos[] = {{"EAGAIN", EAGAIN}, {"EBUSY", EBUSY},	   {"EINVAL", EINVAL},	 {"EIO", EIO},
	      {"EMFILE", EMFILE}, {"ENOMEM", ENOMEM},	   {"ENOTSUP", ENOTSUP}, {"EPERM", EPERM},
	      {"EPROTO", EPROTO}, {"ETIMEDOUT", ETIMEDOUT}};

struct shim {
	struct libvhost_ctx *ctx;
	const char *uri;
	struct fault *fault;
	struct libvhost_transport *inner, *outer;
	struct libvhost_transport_caps caps;
	/* the program under way: inner has reqs[0..cut), the request at cut is hit */
	struct libvhost_req *reqs;
	uint32_t count, cut;
	bool dropped;
};

static bool parse_how(const char *word, struct fault *f)
{
	static const char *const names[] = {"refuse", "drop", "kill"};

	for (unsigned i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		if (!strcmp(word, names[i])) {
			f->how = (enum fault_how)i;
			return true;
		}
	for (unsigned i = 0; i < sizeof(errnos) / sizeof(errnos[0]); i++)
		if (!strcmp(word, errnos[i].name)) {
			f->how = FAULT_ERRNO;
			f->err = -errnos[i].err;
			return true;
		}
	return false;
}

void fault_parse(struct argp_state *state, const char *text, struct fault *f)
{
	const char *colon = strchr(text, ':');
	char number[24];

	snprintf(number, sizeof(number), "%.*s", (int)(colon ? colon - text : 20), text);
	f->all = !strcmp(number, "all");
	if (!f->all)
		f->nth = parse_number(state, "--fail-nth", number, 1, 1 << 20);
	if (colon && !parse_how(colon + 1, f))
		argp_failure(state, 1, 0, "--fail-nth: '%s' is neither refuse, drop, kill nor a known errno name",
			     colon + 1);
}

static int forward(void *arg, struct libvhost_req *req)
{
	struct shim *s = arg;

	return s->outer ? libvhost_transport_inbound(s->outer, req) : -ENOTSUP;
}

static int connect_inner(struct shim *s, uint32_t timeout_ms)
{
	const struct libvhost_transport_opts o = {
		.size = sizeof(o), .timeout_ms = timeout_ms, .on_request = forward, .on_request_arg = s};

	return libvhost_transport_open(s->ctx, s->uri, &o, &s->inner);
}

static int shim_open(void *self)
{
	struct shim *s = self;
	int rc = s->inner ? 0 : connect_inner(s, 1);

	return rc == -ENOENT || rc == -ECONNREFUSED || rc == -ETIMEDOUT ? -EAGAIN : rc;
}

static void shim_close(void *self)
{
	struct shim *s = self;

	libvhost_transport_free(s->inner);
	s->inner = NULL;
	s->reqs = NULL;
}

static int shim_query(void *self, struct libvhost_transport_caps *caps)
{
	const struct shim *s = self;

	*caps = s->caps;
	return 0;
}

static void set_states(struct shim *s, uint32_t from, uint32_t state)
{
	for (uint32_t i = from; i < s->count; i++)
		s->reqs[i].state = state;
}

static int shim_submit(void *self, struct libvhost_req *reqs, uint32_t count)
{
	struct shim *s = self;
	struct fault *f = s->fault;
	const uint64_t at = f->nth - f->seen - 1; /* huge when it is over */

	s->reqs = reqs;
	s->count = count;
	s->cut = f->nth && at < count ? (uint32_t)at : count;
	s->dropped = false;
	set_states(s, 0, LIBVHOST_REQ_NOT_SENT);
	f->seen += count;
	if (s->cut < count) {
		f->hit = true;
		libvhost_req_text(&reqs[s->cut], f->request, sizeof(f->request));
		if (f->how == FAULT_ERRNO) {
			s->reqs = NULL;
			return f->err;
		}
	}
	return s->cut ? libvhost_transport_submit(s->inner, reqs, s->cut, LONG_MS) : 0;
}

/* The turn of the request that is hit has come. */
static int hit(struct shim *s)
{
	struct libvhost_req *req = &s->reqs[s->cut];
	uint32_t rest = s->count - s->cut - 1;

	switch (s->fault->how) {
	case FAULT_KILL:
		set_states(s, s->cut, LIBVHOST_REQ_UNKNOWN);
		shim_close(s);
		return -ECONNRESET;
	case FAULT_DROP:
		set_states(s, s->cut, LIBVHOST_REQ_UNKNOWN);
		s->dropped = true;
		return 0;
	default:
		req->state = LIBVHOST_REQ_FAILED;
		req->err = -EIO;
		req->result[0] = EINVAL;
	}
	if (!(req->flags & LIBVHOST_REQ_OPTIONAL) || !rest)
		return 1;
	s->reqs = req + 1;
	s->count = s->cut = rest;
	return libvhost_transport_submit(s->inner, s->reqs, rest, LONG_MS);
}

/* A refusal leaves the connection in order; anything else is the end of it. */
static int inner_failed(struct shim *s, int rc)
{
	struct libvhost_error e = {.size = sizeof(e)};

	libvhost_transport_error(s->inner, &e);
	return e.kind == LIBVHOST_EK_REFUSED ? 1 : rc;
}

static int shim_progress(void *self)
{
	struct shim *s = self;
	int rc;

	if (!s->inner)
		return -ENOTCONN;
	rc = libvhost_transport_progress(s->inner);
	if (rc < 0)
		rc = inner_failed(s, rc);
	else if (rc == 1 && s->dropped)
		return 0;
	else if (rc == 1 && s->reqs && s->cut < s->count)
		rc = hit(s);
	if (rc)
		s->reqs = NULL;
	return rc;
}

static void shim_cancel(void *self)
{
	struct shim *s = self;

	if (s->inner && s->reqs && !s->dropped) {
		libvhost_transport_cancel(s->inner);
		libvhost_transport_progress(s->inner);
	}
	s->reqs = NULL;
	s->dropped = false;
}

static uint32_t shim_pollfds(void *self, struct libvhost_pollfd *fds, uint32_t cap)
{
	struct shim *s = self;
	int fd = s->inner ? libvhost_transport_fd(s->inner) : -1;

	if (fd < 0 || !cap)
		return 0;
	fds[0] = (struct libvhost_pollfd){.fd = fd, .events = POLLIN};
	return 1;
}

static void shim_destroy(void *self)
{
	free(self);
}

static const struct libvhost_transport_ops shim_ops = {
	.size = sizeof(shim_ops),
	.open = shim_open,
	.close = shim_close,
	.destroy = shim_destroy,
	.query = shim_query,
	.submit = shim_submit,
	.progress = shim_progress,
	.cancel = shim_cancel,
	.pollfds = shim_pollfds,
};

int fault_transport_new(struct libvhost_ctx *ctx, const char *uri, uint32_t timeout_ms, struct fault *fault,
			struct libvhost_transport **ret)
{
	struct shim *s = calloc(1, sizeof(*s));
	int rc;

	if (!s)
		return -ENOMEM;
	*s = (struct shim){.ctx = ctx, .uri = uri, .fault = fault, .caps = {.size = sizeof(s->caps)}};
	rc = connect_inner(s, timeout_ms);
	if (!rc)
		rc = libvhost_transport_query(s->inner, &s->caps);
	if (!rc)
		rc = libvhost_transport_new(ctx, &shim_ops, s, ret);
	if (rc) {
		shim_close(s);
		free(s);
		return rc;
	}
	s->outer = *ret;
	return 0;
}
