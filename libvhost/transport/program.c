/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* Running programs: one at a time, with a deadline, cancellable from any thread. */
#include "transport/transport.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "core/wire.h"
#include "protocol/codec.h"

int lv_transport_enter(struct libvhost_transport *t)
{
	if (atomic_exchange(&t->inside, 1))
		return -EBUSY;
	atomic_store(&t->owner, pthread_self());
	return 0;
}

void lv_transport_leave(struct libvhost_transport *t)
{
	lv_transport_watch_sync(t);
	atomic_store(&t->inside, 0);
}

void lv_reqs_clear(struct libvhost_req *reqs, uint32_t count)
{
	for (uint32_t i = 0; i < count; i++) {
		reqs[i].state = LIBVHOST_REQ_NOT_SENT;
		reqs[i].err = 0;
		reqs[i].out_fd = 0;
		reqs[i].out_flags = 0;
		reqs[i].data_out_len = 0;
		reqs[i].result[0] = reqs[i].result[1] = 0;
	}
}

uint32_t lv_req_name(const struct libvhost_req *req, char *buf, size_t cap)
{
	const struct lv_op *row = lv_op(req->op);
	const char *name = row ? row->name : "?";

	switch (row ? row->payload : LIBVHOST_PAYLOAD_NONE) {
	case LIBVHOST_PAYLOAD_STATE:
	case LIBVHOST_PAYLOAD_ADDR:
	case LIBVHOST_PAYLOAD_VRING_FD:
		snprintf(buf, cap, "%s queue %u", name, req->index);
		return req->index;
	default:
		snprintf(buf, cap, "%s", name);
		return LIBVHOST_NONE;
	}
}

void lv_transport_unknown(const struct libvhost_transport *t, struct lv_where *where, char *buf, size_t cap)
{
	char first[64], last[64];
	uint32_t n = 0;

	for (uint32_t i = 0; i < t->count; i++) {
		if (t->reqs[i].state != LIBVHOST_REQ_UNKNOWN)
			continue;
		if (!n++)
			where->first_unknown = i;
		where->last_unknown = i;
	}
	if (!n) {
		snprintf(buf, cap, "with no request outstanding");
		return;
	}
	where->op = t->reqs[where->first_unknown].op;
	where->request = where->first_unknown;
	where->queue = lv_req_name(&t->reqs[where->first_unknown], first, sizeof(first));
	lv_req_name(&t->reqs[where->last_unknown], last, sizeof(last));
	if (n == 1)
		snprintf(buf, cap, "at %s (request %u)", first, where->first_unknown);
	else
		snprintf(buf, cap, "between %s (request %u) and %s (request %u)", first, where->first_unknown, last,
			 where->last_unknown);
}

static void drop_taken_fds(const struct libvhost_req *reqs, uint32_t count)
{
	const uint32_t both = LIBVHOST_REQ_HAS_FD | LIBVHOST_REQ_TAKE_FD;

	for (uint32_t i = 0; i < count; i++)
		if ((reqs[i].flags & both) == both)
			lv_fd_close(reqs[i].fd);
}

static void log_program(struct libvhost_transport *t)
{
	static const char *const states[] = {"not sent", "done", "failed", "unknown"};
	char text[160];

	if (!t->ctx->opts.log || t->ctx->opts.log_level < LIBVHOST_LOG_LEVEL_DEBUG)
		return;
	for (uint32_t i = 0; i < t->count; i++) {
		libvhost_req_text(&t->reqs[i], text, sizeof(text));
		lv_log(t->ctx, LIBVHOST_LOG_LEVEL_DEBUG, LIBVHOST_EK_NONE, "%s: %s: %s", t->peer, text,
		       states[t->reqs[i].state & 3]);
	}
}

/* The program is over, one way or the other. */
static void finish(struct libvhost_transport *t)
{
	if (!atomic_load(&t->running))
		return;
	lv_recorder_note(&t->recorder, lv_now(t->ctx), t->reqs, t->count);
	log_program(t);
	drop_taken_fds(t->reqs, t->count);
	t->reqs = NULL;
	t->count = 0;
	atomic_store(&t->running, 0);
}

/* Every request has its state: the first refusal that counts decides. */
static int judge(struct libvhost_transport *t)
{
	struct lv_where where = LV_WHERE_NONE;
	const struct libvhost_req *req = NULL;
	char name[64];
	int rc;

	for (uint32_t i = 0; i < t->count && !req; i++) {
		if (t->reqs[i].state != LIBVHOST_REQ_FAILED || (t->reqs[i].flags & LIBVHOST_REQ_OPTIONAL))
			continue;
		req = &t->reqs[i];
		where.request = i;
	}
	if (!req) {
		finish(t);
		return 1;
	}
	where.op = req->op;
	where.queue = lv_req_name(req, name, sizeof(name));
	where.peer_ack = req->result[0];
	rc = req->err < 0 ? req->err : -EIO;
	if (rc == -ENOBUFS || rc == -EMSGSIZE || rc == -ENOSPC)
		lv_fail_at(&t->err, rc, LIBVHOST_EK_OUTPUT_TOO_SMALL, &where,
			   "%s: the answer to %s (request %u) does not fit the buffer of %u bytes", t->peer, name,
			   where.request, req->data_out_cap);
	else
		lv_fail_at(&t->err, rc, LIBVHOST_EK_REFUSED, &where,
			   "%s: the peer refused %s (request %u) with %#llx (%s)", t->peer, name, where.request,
			   (unsigned long long)where.peer_ack, lv_errno_name(-rc));
	finish(t);
	return rc;
}

static int give_up(struct libvhost_transport *t, int code)
{
	const uint64_t ms = (lv_now(t->ctx) - t->started) / LV_NS_PER_MS;
	struct lv_where where = LV_WHERE_NONE;
	char span[200];

	t->ops.cancel(t->self);
	lv_transport_unknown(t, &where, span, sizeof(span));
	if (code == -ETIMEDOUT)
		lv_fail_at(&t->err, code, LIBVHOST_EK_TIMEOUT, &where,
			   "%s: no answer in %llu ms, stopped %s; the peer hangs or needs a longer timeout%s", t->peer,
			   (unsigned long long)ms, span, t->broken ? "; connection dropped" : "");
	else
		lv_fail_at(&t->err, code, LIBVHOST_EK_CANCELLED, &where, "%s: cancelled after %llu ms %s%s", t->peer,
			   (unsigned long long)ms, span, t->broken ? "; connection dropped" : "");
	finish(t);
	return code;
}

void lv_transport_abandon(struct libvhost_transport *t)
{
	if (atomic_load(&t->running))
		give_up(t, -ECANCELED);
}

static int begin(struct libvhost_transport *t, struct libvhost_req *reqs, uint32_t count, uint64_t deadline)
{
	int rc;

	if (atomic_load(&t->running))
		return lv_fail(&t->err, -EBUSY, LIBVHOST_EK_BUSY, "%s: a program runs already", t->peer);
	if (t->broken)
		return lv_fail(&t->err, -ENOTCONN, LIBVHOST_EK_DISCONNECTED,
			       "%s: the connection is gone since an earlier error; reconnect", t->peer);
	atomic_store(&t->cancelled, 0);
	t->reqs = reqs;
	t->count = count;
	t->started = lv_now(t->ctx);
	t->deadline = deadline;
	t->ready_valid = false;
	t->answers_due = 0;
	if (t->foreign)
		lv_reqs_clear(reqs, count);
	/* before the first byte leaves: a cancel that comes now must not get lost */
	atomic_store(&t->running, 1);
	rc = t->ops.submit(t->self, reqs, count);
	if (rc < 0) {
		atomic_store(&t->running, 0);
		t->reqs = NULL;
		t->count = 0;
		if (t->foreign)
			lv_fail(&t->err, rc, LIBVHOST_EK_SYSTEM, "%s: submit: %s", t->peer, lv_errno_name(-rc));
	}
	return rc;
}

static int advance(struct libvhost_transport *t)
{
	int rc;

	if (t->broken)
		return lv_fail(&t->err, -ENOTCONN, LIBVHOST_EK_DISCONNECTED,
			       "%s: the connection is gone since an earlier error; reconnect", t->peer);
	rc = t->ops.progress(t->self);
	t->ready_valid = false;
	if (rc < 0) {
		t->broken = true;
		if (t->foreign)
			lv_fail(&t->err, rc, LIBVHOST_EK_DISCONNECTED, "%s: %s", t->peer, lv_errno_name(-rc));
		finish(t);
		return rc;
	}
	if (!atomic_load(&t->running)) {
		atomic_store(&t->cancelled, 0); /* came too late; the next wait clears the eventfd */
		return 1;
	}
	if (rc)
		return judge(t);
	if (atomic_load(&t->cancelled)) {
		lv_eventfd_drain(t->cancel_fd);
		return give_up(t, -ECANCELED);
	}
	return lv_now(t->ctx) >= t->deadline ? give_up(t, -ETIMEDOUT) : 0;
}

uint32_t lv_transport_pollfds(struct libvhost_transport *t, struct pollfd *fds, uint32_t cap)
{
	struct libvhost_pollfd theirs[LV_TRANSPORT_POLLFDS - 1];
	uint32_t n = t->ops.pollfds(t->self, theirs, LV_TRANSPORT_POLLFDS - 1);

	if (n > LV_TRANSPORT_POLLFDS - 1)
		n = LV_TRANSPORT_POLLFDS - 1;
	if (n >= cap)
		n = cap ? cap - 1 : 0;
	for (uint32_t i = 0; i < n; i++)
		fds[i] = (struct pollfd){.fd = theirs[i].fd, .events = (short)theirs[i].events};
	if (cap)
		fds[n++] = (struct pollfd){.fd = t->cancel_fd, .events = POLLIN};
	return n;
}

/* A cancel that found no program to end must not make later waits spin. */
static void drop_stale_cancel(struct libvhost_transport *t)
{
	if (t->nready && t->ready[t->nready - 1].revents && !atomic_load(&t->cancelled))
		lv_eventfd_drain(t->cancel_fd);
}

#define GATHER_FROM    4u    /* fewer answers than this are not worth a sleep */
#define GATHER_EACH    3000u /* nanoseconds a quick peer takes for one */
#define GATHER_AT_MOST 200000u

void lv_transport_gather(uint32_t answers_due)
{
	uint64_t ns = (uint64_t)answers_due * GATHER_EACH;

	if (answers_due < GATHER_FROM)
		return;
	nanosleep(&(struct timespec){.tv_nsec = (long)(ns < GATHER_AT_MOST ? ns : GATHER_AT_MOST)}, NULL);
}

static int wait_ready(struct libvhost_transport *t, int ms)
{
	int n;

	t->nready = lv_transport_pollfds(t, t->ready, LV_TRANSPORT_POLLFDS);
	n = poll(t->ready, t->nready, ms);
	if (n < 0) {
		t->nready = 0;
		n = errno == EINTR ? 0 : -errno;
	}
	if (n <= 0)
		for (uint32_t i = 0; i < t->nready; i++)
			t->ready[i].revents = 0;
	drop_stale_cancel(t);
	t->ready_valid = true;
	return n < 0 ? n : 0;
}

void lv_transport_polled(struct libvhost_transport *t, const struct pollfd *fds, uint32_t count)
{
	t->nready = count < LV_TRANSPORT_POLLFDS ? count : LV_TRANSPORT_POLLFDS;
	memcpy(t->ready, fds, t->nready * sizeof(*fds));
	drop_stale_cancel(t);
	t->ready_valid = true;
}

short lv_transport_revents(struct libvhost_transport *t, int fd)
{
	if (!t->ready_valid)
		wait_ready(t, 0);
	for (uint32_t i = 0; i < t->nready; i++)
		if (t->ready[i].fd == fd)
			return t->ready[i].revents;
	return 0;
}

int lv_transport_submit(struct libvhost_transport *t, struct libvhost_req *reqs, uint32_t count, uint64_t deadline)
{
	int rc = lv_transport_enter(t);

	if (!rc) {
		rc = begin(t, reqs, count, deadline);
		lv_transport_leave(t);
	}
	if (rc < 0)
		drop_taken_fds(reqs, count);
	return rc;
}

int lv_transport_progress(struct libvhost_transport *t)
{
	int rc = lv_transport_enter(t);

	if (rc < 0)
		return rc;
	rc = advance(t);
	lv_transport_leave(t);
	return rc;
}

static bool plausible(const struct libvhost_transport *t, const struct libvhost_req *reqs, uint32_t count, uint32_t ms)
{
	return t && (reqs || !count) && count <= LV_PROGRAM_MAX && ms <= LV_TIMEOUT_MAX_MS;
}

int libvhost_transport_submit(struct libvhost_transport *t, struct libvhost_req *reqs, uint32_t count,
			      uint32_t timeout_ms)
{
	if (!plausible(t, reqs, count, timeout_ms))
		return -EINVAL;
	return lv_transport_submit(t, reqs, count, lv_deadline(t->ctx, timeout_ms));
}

int libvhost_transport_progress(struct libvhost_transport *t)
{
	return t ? lv_transport_progress(t) : -EINVAL;
}

/* Waits and advances until the program that has begun is over. */
static int run(struct libvhost_transport *t)
{
	int rc;

	do {
		lv_transport_gather(t->answers_due);
		rc = wait_ready(t, t->count ? lv_left_ms(t->ctx, t->deadline) : 0);
		if (rc < 0) {
			lv_transport_abandon(t);
			return lv_fail_sys(&t->err, -rc, "%s: poll: %s", t->peer, lv_errno_name(-rc));
		}
		rc = advance(t);
	} while (!rc);
	return rc < 0 ? rc : 0;
}

int libvhost_transport_exec(struct libvhost_transport *t, struct libvhost_req *reqs, uint32_t count,
			    uint32_t timeout_ms, uint32_t *done)
{
	uint32_t n = 0;
	int rc;

	if (!plausible(t, reqs, count, timeout_ms))
		return -EINVAL;
	rc = lv_transport_enter(t);
	if (!rc) {
		rc = begin(t, reqs, count, lv_deadline(t->ctx, timeout_ms));
		if (rc < 0)
			lv_transport_leave(t);
	}
	if (rc < 0) {
		drop_taken_fds(reqs, count);
		return rc;
	}
	rc = run(t);
	lv_transport_leave(t);
	for (uint32_t i = 0; i < count; i++)
		n += reqs[i].state == LIBVHOST_REQ_DONE;
	if (done)
		*done = n;
	return rc;
}

int libvhost_transport_cancel(struct libvhost_transport *t)
{
	if (!t)
		return -EINVAL;
	if (!atomic_load(&t->running))
		return 0;
	atomic_store(&t->cancelled, 1);
	lv_eventfd_signal(t->cancel_fd);
	return 0;
}
