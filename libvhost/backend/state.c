/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/*
 * The device's own state on its way to or from another host. It is one piece for the device: saved before the first
 * byte leaves, loaded when all have come and the front-end asks whether it went well, so that a transfer that breaks
 * off changes nothing. In between it goes through a pipe of the front-end's, a piece per dispatch, never waiting.
 */
#include <errno.h>
#include <stdlib.h>

#include "backend/device.h"

#define TURN_BYTES  (1u << 20) /* moved per turn, for the messages' sake */
#define FIRST_ROOM  65536u
#define SAVE	    0u /* vhost-user spec, "Device state transfer parameters" */
#define NO_FD_COMES 0x100u

void lv_state_init(struct lv_state *st)
{
	*st = (struct lv_state){.end = LV_STREAM_NONE};
}

static void close_end(struct lv_session *s)
{
	if (s->state.end.fd < 0)
		return;
	lv_backend_unwatch(s->b, LV_W_STATE);
	lv_stream_close(&s->state.end);
}

void lv_state_drop(struct lv_session *s)
{
	close_end(s);
	free(s->state.buf);
	lv_state_init(&s->state);
}

static void give_up(struct lv_session *s, int err, const char *why)
{
	struct lv_state *st = &s->state;

	close_end(s);
	free(st->buf);
	st->buf = NULL;
	st->err = lv_fail(&s->b->err, err, err == -ETIMEDOUT ? LIBVHOST_EK_TIMEOUT : LIBVHOST_EK_PROTOCOL,
			  "back-end: %s device state: %s after %llu bytes", st->save ? "saving" : "loading", why,
			  (unsigned long long)(st->save ? st->off : st->len));
}

/* Room for one byte more than there may be, which shows who sends too much. */
static int grow(struct lv_session *s)
{
	const uint64_t most = (uint64_t)s->b->opts.state_max + 1;
	struct lv_state *st = &s->state;
	uint64_t cap = st->cap ? st->cap * 2 : FIRST_ROOM;
	uint8_t *buf;

	if (st->len < st->cap)
		return 0;
	cap = cap < most ? cap : most;
	buf = realloc(st->buf, cap);
	if (!buf)
		return -ENOMEM;
	st->buf = buf;
	st->cap = cap;
	return 0;
}

/* Bytes moved; 0 = the transfer ended; -EAGAIN; another error: the transfer failed. */
static ssize_t move(struct lv_session *s)
{
	struct lv_state *st = &s->state;
	ssize_t n = st->save ? 0 : grow(s);

	if (n < 0)
		return n;
	if (st->save) {
		n = st->off < st->len ? lv_stream_move(&st->end, st->buf + st->off, st->len - st->off) : 0;
		st->off += n > 0 ? (uint64_t)n : 0;
		return n;
	}
	n = lv_stream_move(&st->end, st->buf + st->len, st->cap - st->len);
	st->len += n > 0 ? (uint64_t)n : 0;
	return st->len > s->b->opts.state_max ? -EFBIG : n;
}

void lv_state_turn(struct lv_session *s)
{
	struct lv_state *st = &s->state;
	uint64_t moved = 0;
	ssize_t n = 1;

	while (st->end.fd >= 0 && n > 0 && moved < TURN_BYTES) {
		n = move(s);
		moved += n > 0 ? (uint64_t)n : 0;
	}
	if (st->end.fd < 0)
		return;
	if (moved)
		st->since = lv_now(s->b->ctx);
	if (n == 0)
		close_end(s);
	else if (n == -EFBIG)
		give_up(s, -EFBIG, "it is larger than libvhost_backend_opts.state_max");
	else if (n < 0 && n != -EAGAIN)
		give_up(s, (int)n, lv_errno_name((int)-n));
	else if (lv_state_deadline(s) && lv_now(s->b->ctx) >= lv_state_deadline(s))
		give_up(s, -ETIMEDOUT, "nobody reads it");
}

/* Only a reader has to hurry: who writes may wait for another host, and costs nothing meanwhile. */
uint64_t lv_state_deadline(const struct lv_session *s)
{
	return s->state.end.fd >= 0 && s->state.save ? s->state.since + s->b->opts.timeout_ms * LV_NS_PER_MS : 0;
}

/* vhost-user spec, "Suspended device state": its state holds still while no ring runs. */
static int check_suspended(struct lv_session *s)
{
	for (uint32_t q = 0; q < s->b->opts.num_queues; q++)
		if (s->rings[q].vq)
			return lv_fail(&s->b->err, -EBUSY, LIBVHOST_EK_STATE,
				       "back-end: device state while queue %u runs: stop all queues first", q);
	return 0;
}

/* The pipe's end for us. */
static int take_end(struct lv_session *s, int fd, bool save, struct lv_stream *end)
{
	const int rc = lv_stream_take(end, fd, save);

	return rc == -EINVAL ? lv_fail(&s->b->err, rc, LIBVHOST_EK_PROTOCOL,
				       "back-end: SET_DEVICE_STATE_FD: the descriptor is not the %s end of a pipe",
				       save ? "writing" : "reading")
			     : rc;
}

static int save(struct lv_session *s, uint8_t **buf, uint64_t *len)
{
	struct libvhost_backend *b = s->b;
	int64_t n;

	*buf = malloc(b->opts.state_max);
	if (!*buf)
		return -ENOMEM;
	n = b->ops.save_state(b->opts.arg, *buf, b->opts.state_max);
	if (n >= 0 && n <= b->opts.state_max) {
		*len = (uint64_t)n;
		return 0;
	}
	free(*buf);
	*buf = NULL;
	return n < -4095 || n >= 0 ? -EIO : (int)n;
}

/* A transfer that is under way is given up for the new one. */
int lv_state_begin(struct lv_session *s, struct libvhost_req *req)
{
	struct lv_state st = {.end = LV_STREAM_NONE, .pending = true, .save = req->arg.transfer.direction == SAVE};
	int rc = check_suspended(s);

	if (rc == 0)
		rc = take_end(s, req->fd, st.save, &st.end);
	if (rc == 0 && st.save)
		rc = save(s, &st.buf, &st.len);
	if (rc < 0) {
		lv_stream_close(&st.end);
		return rc;
	}
	lv_state_drop(s);
	st.since = lv_now(s->b->ctx);
	s->state = st;
	lv_state_turn(s);
	req->result[0] = NO_FD_COMES;
	return 0;
}

static int end(struct lv_session *s)
{
	struct libvhost_backend *b = s->b;
	const struct lv_state *st = &s->state;
	int rc = st->err;

	if (!st->pending)
		return lv_fail(&b->err, -EINVAL, LIBVHOST_EK_STATE,
			       "back-end: CHECK_DEVICE_STATE without SET_DEVICE_STATE_FD before");
	if (rc < 0)
		return rc; /* said when it happened */
	if (st->end.fd >= 0)
		return lv_fail(&b->err, -EBUSY, LIBVHOST_EK_STATE,
			       "back-end: CHECK_DEVICE_STATE in the middle of the transfer: %s first",
			       st->save ? "read to the end" : "close the pipe");
	if (st->save)
		return 0;
	rc = check_suspended(s);
	if (rc == 0)
		rc = b->ops.load_state(b->opts.arg, st->buf, st->len);
	return rc > 0 ? -EIO : rc;
}

/* Whatever it says, the transfer is over. */
int lv_state_check(struct lv_session *s, struct libvhost_req *req)
{
	uint64_t before;
	int rc;

	do { /* what was written before the question counts, and it is no more than state_max */
		before = s->state.len + s->state.off;
		lv_state_turn(s);
	} while (s->state.end.fd >= 0 && s->state.len + s->state.off != before);
	rc = end(s);
	lv_state_drop(s);
	req->result[0] = 0;
	return rc;
}
