/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* The vhost-user connection: opened, watched, lost, and the door through which programs come. */
#include "transport/user.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define IN_BYTES	 16384u
#define RETRY_FIRST_NS	 50000u /* when nothing else says that the peer is there */
#define RETRY_LONGEST_NS 10000000u
#define WATCHED_PAUSE_NS 500000000u /* when something does */
#define USER_MAX_REGIONS 8u	    /* entries of SET_MEM_TABLE, vhost-user specification "Memory region table" */

void lv_user_close_fd(struct lv_user *u, int *fd)
{
	if (*fd < 0)
		return;
	lv_transport_unwatch(u->t, *fd);
	lv_fd_close(*fd);
	*fd = -1;
}

static void drop_new_channel(struct lv_user *u)
{
	lv_fd_close(u->kept_end);
	lv_fd_close(u->offered_end);
	u->kept_end = u->offered_end = -1;
}

void lv_user_disconnect(struct lv_user *u)
{
	lv_user_channel_close(u);
	lv_user_close_fd(u, &u->sock);
	drop_new_channel(u);
	lv_wire_in_reset(&u->in);
	u->nowed = 0;
	u->prog.active = false;
	u->t->broken = true;
}

int lv_user_lost(struct lv_user *u, int code, const char *why)
{
	enum libvhost_error_kind kind = LIBVHOST_EK_DISCONNECTED;
	struct lv_where where = LV_WHERE_NONE;
	char span[200];

	if (code == -EMFILE || code == -ETOOMANYREFS)
		kind = LIBVHOST_EK_FD_LIMIT;
	else if (code == -ENOMEM)
		kind = LIBVHOST_EK_NOMEM;
	lv_transport_unknown(u->t, &where, span, sizeof(span));
	where.sys_errno = -code;
	lv_user_disconnect(u);
	return lv_fail_at(&u->t->err, code, kind, &where, "%s: %s %s; connection closed", u->t->peer, why, span);
}

int lv_user_broken(struct lv_user *u, const struct lv_user_step *step, const char *why)
{
	struct lv_where where = LV_WHERE_NONE;
	char span[200], name[64] = "GET_FEATURES";

	lv_transport_unknown(u->t, &where, span, sizeof(span));
	where.op = where.request = where.queue = LIBVHOST_NONE;
	if (!step) {
		snprintf(span, sizeof(span), "broke the protocol");
	} else if (step->req == LV_USER_FENCE) {
		where.op = LIBVHOST_OP_GET_FEATURES;
		snprintf(span, sizeof(span), "broke the protocol in a reply to GET_FEATURES");
	} else {
		where.op = u->prog.reqs[step->req].op;
		where.request = step->req;
		where.queue = lv_req_name(&u->prog.reqs[step->req], name, sizeof(name));
		snprintf(span, sizeof(span), "broke the protocol in the reply to %s (request %u)", name, step->req);
	}
	lv_user_disconnect(u);
	return lv_fail_at(&u->t->err, -EPROTO, LIBVHOST_EK_PROTOCOL, &where, "%s: the peer %s: %s; connection closed",
			  u->t->peer, span, why ? why : "malformed");
}

/* What was sent counts as done for the session: the peer works in order and will come to it. */
static void end_program(struct lv_user *u)
{
	struct lv_user_program *p = &u->prog;

	for (uint32_t i = 0; i < p->nreqs; i++)
		if (p->reqs[i].state == LIBVHOST_REQ_DONE || p->reqs[i].state == LIBVHOST_REQ_UNKNOWN)
			lv_user_apply(&u->session, &p->reqs[i]);
	drop_new_channel(u);
	p->active = false;
	p->reqs = NULL;
	p->nreqs = 0;
}

static int user_submit(void *self, struct libvhost_req *reqs, uint32_t count)
{
	struct lv_user *u = self;
	int rc = lv_user_compile(u, reqs, count);

	if (rc < 0)
		return rc;
	if (!u->nowed) {
		/* a reply that is there before its request must never be taken as the answer */
		rc = u->in.end > u->in.start ? 1 : lv_wire_pending(u->sock);
		if (rc > 0)
			return lv_user_broken(u, NULL, "a reply that nobody asked for");
		if (rc < 0)
			return lv_user_lost(u, -ECONNRESET, "peer hung up");
	}
	return lv_user_flush(u);
}

static uint32_t answers_due(const struct lv_user_program *p)
{
	uint32_t n = 0;

	for (uint32_t i = p->tail; i < p->next; i++)
		n += p->steps[i].reply;
	return n;
}

static int user_progress(void *self)
{
	struct lv_user *u = self;
	struct lv_user_program *p = &u->prog;
	int rc = 0;

	if (u->sock < 0)
		return lv_fail(&u->t->err, -ENOTCONN, LIBVHOST_EK_DISCONNECTED, "%s: not connected", u->t->peer);
	if (u->chan.sock >= 0)
		lv_user_channel_serve(u, lv_transport_revents(u->t, u->chan.sock));
	if (lv_transport_revents(u->t, u->sock) & (POLLIN | POLLHUP | POLLERR))
		rc = lv_user_receive(u);
	if (!rc)
		rc = lv_user_flush(u);
	if (rc < 0)
		return rc;
	if (!p->active)
		return 1;
	if (p->dead && !lv_user_awaited(u))
		return lv_user_lost(u, -ECONNRESET, "peer hung up");
	u->t->answers_due = answers_due(p);
	if (p->next < p->count || lv_user_awaited(u))
		return 0;
	end_program(u);
	return 1;
}

/* Left in doubt, these could let the peer touch memory that the caller takes for unused, or miss it. */
static bool must_not_stay_unknown(const struct libvhost_req *req)
{
	switch (req->op) {
	case LIBVHOST_OP_SET_FEATURES:
	case LIBVHOST_OP_SET_MEM_TABLE:
	case LIBVHOST_OP_ADD_MEM_REG:
	case LIBVHOST_OP_REM_MEM_REG:
	case LIBVHOST_OP_SET_LOG_BASE:
	case LIBVHOST_OP_SET_INFLIGHT_FD:
	case LIBVHOST_OP_SET_VRING_KICK:
	case LIBVHOST_OP_VRING_KICK:
	case LIBVHOST_OP_SET_VRING_ENABLE:
	case LIBVHOST_OP_SET_STATUS:
		return true;
	default:
		return false;
	}
}

/* Remembers the answers that are still to come. false: the stream cannot be followed any further. */
static bool keep_owed(struct lv_user *u)
{
	const struct lv_user_program *p = &u->prog;
	struct lv_user_owed *owed;

	if (p->off || p->dead)
		return false;
	for (uint32_t i = 0; i < p->nreqs; i++)
		if (p->reqs[i].state == LIBVHOST_REQ_UNKNOWN && must_not_stay_unknown(&p->reqs[i]))
			return false;
	if (u->nowed) /* of an earlier program; nothing of this one was sent */
		return lv_now(u->t->ctx) < u->t->deadline;
	owed = realloc(u->owed, (p->next - p->tail + 1) * sizeof(*owed));
	if (!owed)
		return false;
	u->owed = owed;
	for (uint32_t i = p->tail; i < p->next; i++)
		if (p->steps[i].reply)
			u->owed[u->nowed++] = (struct lv_user_owed){p->steps[i].request, p->steps[i].reply_fds};
	return true;
}

static void user_cancel(void *self)
{
	struct lv_user *u = self;

	if (!u->prog.active)
		return;
	if (!keep_owed(u))
		lv_user_disconnect(u);
	end_program(u);
}

static uint32_t user_pollfds(void *self, struct libvhost_pollfd *fds, uint32_t cap)
{
	struct lv_user *u = self;
	const short channel = lv_user_channel_events(u);
	uint32_t n = 0;

	if (u->sock < 0) {
		const int watch = lv_user_watch_fd(u), fd = watch >= 0 ? watch : u->listener;

		if (fd >= 0 && n < cap)
			fds[n++] = (struct libvhost_pollfd){fd, POLLIN};
		return n;
	}
	if (n < cap) {
		const bool out = u->prog.active && u->prog.full && !u->prog.dead;

		fds[n++] = (struct libvhost_pollfd){u->sock, out ? POLLIN | POLLOUT : POLLIN};
	}
	if (channel && n < cap)
		fds[n++] = (struct libvhost_pollfd){u->chan.sock, (uint32_t)channel};
	return n;
}

static int user_query(void *self, struct libvhost_transport_caps *caps)
{
	const struct lv_user *u = self;

	caps->dialect = LIBVHOST_DIALECT_USER;
	caps->addr_kind = LIBVHOST_ADDR_COOKIE;
	caps->flags = LIBVHOST_TRANSPORT_NEEDS_FD | LIBVHOST_TRANSPORT_BASE_STOPS | LIBVHOST_TRANSPORT_BACKEND_CHANNEL;
	if (u->path[0])
		caps->flags |= LIBVHOST_TRANSPORT_CAN_REOPEN;
	caps->max_regions = USER_MAX_REGIONS;
	for (uint32_t op = 1; op < 256; op++) {
		const struct lv_op *row = lv_op(op);

		if (row && ((row->user && row->inbound == LV_INBOUND_NONE) || op == LIBVHOST_OP_RAW))
			caps->ops[op / 64] |= 1ull << op % 64;
	}
	return 0;
}

static void begin_session(struct lv_user *u, int sock)
{
	lv_user_disconnect(u);
	memset(&u->session, 0, sizeof(u->session));
	u->sock = sock;
	u->t->broken = false;
}

/* One attempt: 0 = connected. */
static int reach(struct lv_user *u)
{
	int sock;

	if (!u->path[0])
		return -ENOTSUP;
	lv_user_watch_before(u);
	sock = u->listens ? lv_wire_accept(u->listener) : lv_wire_connect(u->path);
	if (sock < 0) {
		lv_user_watch_missed(u, sock);
		return sock;
	}
	lv_user_watch_reached(u);
	begin_session(u, sock);
	return 0;
}

static int user_reopen(void *self)
{
	struct lv_user *u = self;
	const int rc = reach(u);

	if (!rc)
		return 0;
	if (rc == -ENOENT || rc == -ECONNREFUSED || rc == -EWOULDBLOCK)
		return lv_fail(&u->t->err, -EAGAIN, LIBVHOST_EK_CONNECT, "%s: the peer is not there yet (%s)",
			       u->t->peer, lv_errno_name(-rc));
	return lv_fail_sys(&u->t->err, -rc, "%s: reconnect: %s", u->t->peer, lv_errno_name(-rc));
}

static bool user_appeared(void *self)
{
	struct lv_user *u = self;

	return u->listens || lv_user_watch_news(u);
}

static void user_close(void *self)
{
	lv_user_disconnect(self);
	lv_user_watch_close(self);
}

static void user_destroy(void *self)
{
	struct lv_user *u = self;
	struct stat st;

	if (u->listener >= 0 && !stat(u->path, &st) && st.st_ino == u->listener_ino)
		unlink(u->path);
	lv_fd_close(u->listener);
	lv_user_program_free(&u->prog);
	lv_wire_in_destroy(&u->in);
	free(u->owed);
	free(u);
}

static const struct libvhost_transport_ops user_ops = {
	.size = sizeof(user_ops),
	.open = user_reopen,
	.close = user_close,
	.destroy = user_destroy,
	.query = user_query,
	.submit = user_submit,
	.progress = user_progress,
	.cancel = user_cancel,
	.pollfds = user_pollfds,
};

static int cannot_connect(struct lv_user *u, int code, bool waited)
{
	const char *hint = "";

	if (code == -ENOENT)
		hint = "; is the back-end running?";
	else if (code == -ECONNREFUSED)
		hint = "; nobody listens on it";
	else if (code == -ENOTSOCK)
		hint = "; it is not a unix stream socket";
	else if (code == -ENAMETOOLONG)
		hint = "; a socket path has at most 107 bytes";
	if (code == -EINVAL || code == -ENAMETOOLONG)
		return lv_fail(&u->t->err, -EINVAL, LIBVHOST_EK_ARGUMENT, "%s: bad path%s", u->t->peer, hint);
	if (code == -EMFILE || code == -ENFILE || code == -ENOMEM)
		return lv_fail_sys(&u->t->err, -code, "%s: connect: %s", u->t->peer, lv_errno_name(-code));
	return lv_fail(&u->t->err, waited ? -ETIMEDOUT : code, waited ? LIBVHOST_EK_TIMEOUT : LIBVHOST_EK_CONNECT,
		       "%s: cannot connect: %s%s", u->t->peer, lv_errno_name(-code), hint);
}

/* How long at most until the next attempt, when nothing says that it is worth while. */
static uint64_t longest_pause(const struct lv_user *u, int rc, uint64_t last)
{
	if (u->listens || (u->watch.folder.fd >= 0 && rc != -EWOULDBLOCK))
		return WATCHED_PAUSE_NS;
	if (!last)
		return RETRY_FIRST_NS;
	return last * 2 < RETRY_LONGEST_NS ? last * 2 : RETRY_LONGEST_NS;
}

/* Tries until the deadline where trying again can help. */
static int first_connection(struct lv_user *u, bool wait, uint64_t deadline)
{
	uint64_t pause = 0, next;

	for (;;) {
		const int rc = reach(u);
		const bool again = rc == -EWOULDBLOCK || (wait && (rc == -ENOENT || rc == -ECONNREFUSED));

		if (!rc)
			return 0;
		if (!again || lv_now(u->t->ctx) >= deadline)
			return cannot_connect(u, rc, again);
		pause = longest_pause(u, rc, pause);
		next = lv_now(u->t->ctx) + pause;
		if (next > deadline)
			next = deadline;
		do
			lv_user_watch_wait(u, next);
		while (lv_now(u->t->ctx) < next && !user_appeared(u));
	}
}

static int adopt(struct lv_user *u, int fd)
{
	int sock = lv_wire_check(fd);

	if (sock < 0)
		return lv_fail(&u->t->err, sock, LIBVHOST_EK_ARGUMENT,
			       "%s: descriptor %d is not a connected unix stream socket", u->t->peer, fd);
	sock = lv_fd_dup(fd);
	if (sock < 0)
		return lv_fail_sys(&u->t->err, -sock, "%s: dup: %s", u->t->peer, lv_errno_name(-sock));
	begin_session(u, sock);
	return 0;
}

void lv_user_take_listener(struct lv_user *u, int fd)
{
	struct stat st;

	u->listener = fd;
	u->listener_ino = stat(u->path, &st) ? 0 : st.st_ino;
}

int lv_user_listen(struct lv_user *u)
{
	const int fd = lv_wire_listen(u->path, 1);

	if (fd == -ENAMETOOLONG || fd == -EINVAL)
		return cannot_connect(u, fd, false);
	if (fd < 0)
		return lv_fail_sys(&u->t->err, -fd, "%s: cannot listen: %s", u->t->peer, lv_errno_name(-fd));
	lv_user_take_listener(u, fd);
	return 0;
}

static struct lv_user *new_user(struct libvhost_transport *t)
{
	struct lv_user *u = calloc(1, sizeof(*u));

	if (!u)
		return NULL;
	if (lv_wire_in_init(&u->in, IN_BYTES) < 0) {
		free(u);
		return NULL;
	}
	u->t = t;
	u->sock = u->listener = u->kept_end = u->offered_end = -1;
	lv_user_channel_init(&u->chan);
	lv_user_watch_init(&u->watch);
	t->self = u;
	t->ops = user_ops;
	t->reserve = lv_user_reserve;
	return u;
}

bool lv_is_user_transport(const struct libvhost_transport *t)
{
	return t->ops.submit == user_submit;
}

int lv_user_place(struct libvhost_transport *t, const char *uri)
{
	const char *path = strchr(uri, ':');
	struct lv_user *u;

	snprintf(t->peer, sizeof(t->peer), "%s", uri);
	if (!path || (strncmp(uri, "user:", 5) && strncmp(uri, "user-listen:", 12) && strncmp(uri, "user-fd:", 8)))
		return lv_fail(&t->err, -EINVAL, LIBVHOST_EK_ARGUMENT,
			       "%s: unknown scheme; use user:PATH, user-listen:PATH or user-fd:", uri);
	u = new_user(t);
	if (!u)
		return lv_fail(&t->err, -ENOMEM, LIBVHOST_EK_NOMEM, "%s: out of memory", uri);
	path++;
	if (strlen(path) >= sizeof(u->path))
		return cannot_connect(u, -ENAMETOOLONG, false);
	u->listens = uri[4] == '-' && uri[5] == 'l';
	if (uri[4] == '-' && !u->listens)
		return !path[0] ? 0 : lv_fail(&t->err, -EINVAL, LIBVHOST_EK_ARGUMENT, "%s: user-fd: has no path", uri);
	if (!path[0])
		return cannot_connect(u, -EINVAL, false);
	strcpy(u->path, path);
	if (!u->listens)
		t->appeared = user_appeared;
	return 0;
}

int lv_user_transport_open(struct libvhost_transport *t, const char *uri, const struct libvhost_transport_opts *opts,
			   uint64_t deadline)
{
	const bool has_fd = opts->flags & LIBVHOST_TRANSPORT_OPT_HAS_FD;
	struct lv_user *u;
	int rc = lv_user_place(t, uri);

	if (rc < 0)
		return rc;
	u = t->self;
	if (!u->path[0])
		return has_fd ? adopt(u, opts->fd)
			      : lv_fail(&t->err, -EINVAL, LIBVHOST_EK_ARGUMENT,
					"%s: user-fd: needs HAS_FD with a connected socket", uri);
	rc = u->listens ? lv_user_listen(u) : 0;
	if (rc < 0)
		return rc;
	if (!deadline) {
		t->broken = true;
		return 0;
	}
	return has_fd ? adopt(u, opts->fd) : first_connection(u, opts->flags & LIBVHOST_TRANSPORT_OPT_WAIT, deadline);
}
