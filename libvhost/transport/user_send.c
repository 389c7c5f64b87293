/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* Sending: as much as barriers and the socket allow, in as few system calls as possible. */
#include "transport/user.h"

#include <errno.h>

struct lv_user_step *lv_user_awaited(struct lv_user *u)
{
	struct lv_user_program *p = &u->prog;

	while (p->tail < p->next && !p->steps[p->tail].reply)
		p->tail++;
	return p->tail < p->next ? &p->steps[p->tail] : NULL;
}

/* The first step behind those that may go now. A step that went in part goes on in any case. */
static uint32_t sendable_end(struct lv_user *u)
{
	const struct lv_user_program *p = &u->prog;
	uint32_t end = p->next;

	if (end < p->count && (p->off || !p->steps[end].barrier || !lv_user_awaited(u)))
		end++;
	else
		return end;
	while (end < p->count && !p->steps[end].barrier)
		end++;
	return end;
}

static void note_sent(struct lv_user *u, uint32_t step)
{
	struct lv_user_program *p = &u->prog;
	struct libvhost_req *req;

	if (p->steps[step].req == LV_USER_FENCE)
		return;
	req = &p->reqs[p->steps[step].req];
	if (req->state != LIBVHOST_REQ_NOT_SENT)
		return;
	req->state = LIBVHOST_REQ_UNKNOWN;
	if (req->op != LIBVHOST_OP_SET_BACKEND_REQ_FD || u->kept_end < 0)
		return;
	/* the peer may use it from now on; its end lives in the socket queue */
	(void)lv_user_channel_open(u, u->kept_end);
	lv_fd_close(u->offered_end);
	u->kept_end = u->offered_end = -1;
}

/*
 * The kernel counts descriptors in flight per user against RLIMIT_NOFILE. Let the peer take those that are on their
 * way: no more until it confirmed. 1 = try again, 0 = wait.
 */
static int hold_descriptors(struct lv_user *u)
{
	struct lv_user_program *p = &u->prog;

	if (p->next == p->confirmed)
		return lv_user_lost(u, -ETOOMANYREFS, "too many descriptors on their way (RLIMIT_NOFILE)");
	p->steps[p->next].barrier = true;
	if (p->steps[p->next - 1].reply)
		return 0;
	if (lv_user_insert_fence(p, p->next))
		return lv_user_lost(u, -ENOMEM, "out of memory");
	return 1;
}

/* 1 = go on sending, 0 = wait, negative = gone. */
static int send_some(struct lv_user *u)
{
	struct lv_user_program *p = &u->prog;
	const uint32_t end = sendable_end(u);
	ssize_t n;

	if (end == p->next)
		return 0;
	n = lv_wire_send(u->sock, p->msgs + p->next, end - p->next, &p->off);
	if (n == -ETOOMANYREFS)
		return hold_descriptors(u);
	if (n < 0) {
		/* what the peer said before it went is still to be read; the receiver ends the session */
		p->dead = (int)n;
		return lv_user_awaited(u) ? 0 : lv_user_receive(u);
	}
	for (ssize_t i = 0; i < n; i++)
		note_sent(u, p->next + (uint32_t)i);
	p->next += (uint32_t)n;
	if (p->off)
		note_sent(u, p->next);
	p->full = p->next < end;
	return !p->full;
}

int lv_user_flush(struct lv_user *u)
{
	int rc = 1;

	while (rc > 0 && u->prog.active && !u->prog.dead && !u->nowed && u->sock >= 0)
		rc = send_some(u);
	return rc < 0 ? rc : 0;
}

void lv_user_stop_sending(struct lv_user *u)
{
	struct lv_user_program *p = &u->prog;

	if (p->failed)
		return;
	p->failed = true;
	p->count = p->next + (p->off ? 1 : 0);
	/* what went out behind the refused request is still executed: learn how far it came */
	if (p->count > p->confirmed && !p->steps[p->count - 1].reply && lv_user_insert_fence(p, p->count))
		p->dead = -ENOMEM;
}
