/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* The front-end's ring messages. A refused one leaves the ring as it was. */
#include <errno.h>
#include <sys/epoll.h>
#include <sys/stat.h>

#include "backend/device.h"
#include "vring/vring.h"

static struct lv_ring *find(struct lv_session *s, const struct libvhost_req *req)
{
	return req->index < s->b->opts.num_queues ? &s->rings[req->index] : NULL;
}

/* Features may come after ring messages: what they decide is checked again when the ring starts. */
static bool may_be_packed(const struct lv_session *s)
{
	return (s->features_set ? s->features : s->b->features) & LV_F_RING_PACKED;
}

/* For messages that a ring in use does not take. A broken one is done with: what comes now is a new beginning. */
static int resting(struct lv_session *s, const struct libvhost_req *req, struct lv_ring **ring)
{
	*ring = find(s, req);
	if (!*ring)
		return -EINVAL;
	if ((*ring)->broken)
		return lv_ring_stop(s, *ring, lv_session_left_ms(s));
	return (*ring)->vq ? -EBUSY : 0;
}

int lv_ring_set_num(struct lv_session *s, struct libvhost_req *req)
{
	struct libvhost_vq_layout l = {.size = sizeof(l)};
	struct lv_ring *ring;
	int rc = resting(s, req, &ring);

	if (rc == 0)
		rc = libvhost_vq_layout(req->arg.num, may_be_packed(s) ? LV_F_RING_PACKED : 0, &l);
	if (rc < 0)
		return rc;
	if (ring->num != req->arg.num)
		ring->has_addr = false; /* the areas were checked for the old size */
	ring->num = req->arg.num;
	return 0;
}

static bool same_areas(const struct libvhost_vring_addr *a, const struct libvhost_vring_addr *b)
{
	return a->desc == b->desc && a->avail == b->avail && a->used == b->used;
}

/* The addresses of a ring in use stay; only the dirty log comes and goes with them. */
static int set_log_only(struct lv_session *s, struct lv_ring *ring, const struct libvhost_vring_addr *addr)
{
	const struct libvhost_vring_addr old = ring->addr;
	int rc;

	ring->addr = *addr;
	rc = lv_ring_check_log(s, ring);
	if (rc == 0)
		rc = lv_ring_pause(s, ring, lv_session_left_ms(s));
	if (rc < 0)
		ring->addr = old;
	else
		lv_ring_apply_log(s, ring);
	lv_ring_go_on(s, ring);
	return rc;
}

int lv_ring_set_addr(struct lv_session *s, struct libvhost_req *req)
{
	const struct libvhost_vring_addr *addr = &req->arg.addr;
	struct lv_ring *ring = find(s, req), old;
	int rc;

	if (ring && ring->vq && !ring->broken && same_areas(addr, &ring->addr))
		return set_log_only(s, ring, addr);
	rc = resting(s, req, &ring);
	if (rc < 0)
		return rc;
	if (!ring->num)
		return -EINVAL;
	old = *ring;
	ring->addr = *addr;
	ring->has_addr = true;
	rc = lv_ring_check_log(s, ring);
	if (rc == 0 && (s->features_set || !may_be_packed(s))) /* else nobody knows how large the areas are */
		rc = lv_ring_locate(s, ring, &(struct libvhost_vq_opts){0});
	if (rc == 0)
		rc = lv_ring_update(s, ring);
	if (rc < 0)
		*ring = old;
	return rc;
}

int lv_ring_set_base(struct lv_session *s, struct libvhost_req *req)
{
	struct lv_ring *ring;
	int rc = resting(s, req, &ring);

	if (rc < 0)
		return rc;
	if (req->arg.num > UINT16_MAX && !may_be_packed(s)) /* split rings count in 16 bits */
		return -EINVAL;
	ring->base = req->arg.num;
	ring->has_base = true;
	return 0;
}

int lv_ring_get_base(struct lv_session *s, struct libvhost_req *req)
{
	struct lv_ring *ring = find(s, req);
	int rc = -EINVAL;

	if (ring)
		rc = lv_ring_drain_and_stop(s, ring, s->until);
	if (rc == 0)
		req->result[0] = ring->base;
	return rc;
}

/*
 * Only what the kernel itself implements: behind other files there may be a program (FUSE, CUSE) that lets a worker
 * wait in read or write for as long as it likes.
 */
static bool may_notify(int fd)
{
	struct stat st;

	return fstat(fd, &st) == 0 && (!(st.st_mode & S_IFMT) || S_ISFIFO(st.st_mode) || S_ISSOCK(st.st_mode));
}

static int take_fd(const struct libvhost_req *req)
{
	if (!(req->flags & LIBVHOST_REQ_HAS_FD))
		return -1;
	return may_notify(req->fd) ? lv_fd_dup(req->fd) : -EINVAL;
}

/* Who pulls writes on a thread of the host, where a pipe without a reader is a SIGPIPE; a worker blocks it. */
static int take_call(const struct lv_session *s, const struct libvhost_req *req)
{
	struct stat st;

	if (lv_pulled(s->b) && req->flags & LIBVHOST_REQ_HAS_FD && (fstat(req->fd, &st) < 0 || st.st_mode & S_IFMT))
		return -EINVAL;
	return take_fd(req);
}

/* Files and devices that epoll cannot wait for are no kick descriptors, whenever the ring will start. */
static int check_kick(struct lv_session *s, int fd)
{
	struct epoll_event ev = {.data.u32 = LV_W_COUNT};

	if (epoll_ctl(s->b->epoll_fd, EPOLL_CTL_ADD, fd, &ev) < 0)
		return errno == EPERM ? -EINVAL : -errno;
	epoll_ctl(s->b->epoll_fd, EPOLL_CTL_DEL, fd, NULL);
	return 0;
}

/* Why a handler cannot be given the descriptor to read from; NULL = it can. */
static const char *unfit(struct libvhost_backend *b, uint32_t queue, int fd)
{
	const int rc = check_kick(&b->session, fd);

	if (rc == -EINVAL)
		return "cannot be waited for; give a tap, socket, pipe, terminal or timer";
	if (rc < 0)
		return rc == -EBADF ? "is not open" : lv_errno_name(-rc);
	for (uint32_t q = 0; q < b->opts.num_queues; q++)
		if (q != queue && b->watched[q] == fd)
			return "belongs to another queue already; duplicate it";
	return lv_fd_blocks(fd) ? "blocks; make it non-blocking (O_NONBLOCK)" : NULL;
}

static int watch_fd(struct libvhost_backend *b, uint32_t queue, int fd)
{
	const struct lv_ring *ring = b->session.rings ? &b->session.rings[queue] : NULL;
	const char *why = fd < 0 ? NULL : unfit(b, queue, fd);
	int rc = lv_backend_check_alive(b);

	if (rc < 0)
		return rc;
	if (lv_pulled(b))
		return lv_fail(&b->err, -EINVAL, LIBVHOST_EK_ARGUMENT,
			       "back-end: no worker to wait for descriptors with LIBVHOST_BACKEND_PULL");
	if (why)
		return lv_fail(&b->err, -EINVAL, LIBVHOST_EK_ARGUMENT, "back-end: descriptor %d for queue %u %s", fd,
			       queue, why);
	if (ring && ring->on_worker)
		return lv_fail(&b->err, -EBUSY, LIBVHOST_EK_STATE, "back-end: queue %u runs; give descriptors before",
			       queue);
	b->watched[queue] = fd;
	return 0;
}

int libvhost_backend_watch_fd(struct libvhost_backend *b, uint32_t queue, int fd)
{
	int rc;

	if (!b || queue >= b->opts.num_queues || fd < -1)
		return -EINVAL;
	rc = lv_backend_lock(b);
	if (rc < 0)
		return rc;
	rc = watch_fd(b, queue, fd);
	lv_backend_unlock(b);
	return rc;
}

int lv_ring_set_kick(struct lv_session *s, struct libvhost_req *req)
{
	struct lv_ring *ring = find(s, req);
	const bool had = ring && ring->has_kick && !ring->broken;
	int rc, old, fd;

	if (!ring)
		return -EINVAL;
	fd = take_fd(req);
	if (fd < -1)
		return fd;
	rc = fd < 0 ? 0 : check_kick(s, fd);
	if (rc == 0)
		rc = ring->broken ? lv_ring_stop(s, ring, lv_session_left_ms(s))
				  : lv_ring_pause(s, ring, lv_session_left_ms(s));
	if (rc < 0) {
		lv_fd_close(fd);
		return rc;
	}
	old = ring->kick_fd;
	ring->kick_fd = fd;
	ring->has_kick = true;
	rc = lv_ring_update(s, ring);
	if (rc < 0) {
		ring->kick_fd = old;
		ring->has_kick = had;
		lv_fd_close(fd);
		lv_ring_go_on(s, ring);
		return rc;
	}
	lv_fd_close(old);
	return 0;
}

/*
 * Front-ends swap the call descriptor under a running ring to mask interrupts. A completion may have gone to the old
 * one unheard, so the new one is signalled once: one interrupt too many is harmless, one too few is a hang.
 */
int lv_ring_set_call(struct lv_session *s, struct libvhost_req *req)
{
	struct lv_ring *ring = find(s, req);
	int fd, rc;

	if (!ring)
		return -EINVAL;
	fd = take_call(s, req);
	rc = fd < -1 ? fd : lv_ring_pause(s, ring, lv_session_left_ms(s));
	if (rc < 0) {
		lv_fd_close(fd);
		return rc;
	}
	lv_fd_close(ring->call_fd);
	ring->call_fd = fd;
	if (ring->vq) {
		lv_vq_set_call(ring->vq, fd);
		lv_ring_signal(fd);
	}
	lv_ring_go_on(s, ring);
	return 0;
}

int lv_ring_set_err(struct lv_session *s, struct libvhost_req *req)
{
	struct lv_ring *ring = find(s, req);
	int fd;

	if (!ring)
		return -EINVAL;
	fd = take_fd(req);
	if (fd < -1)
		return fd;
	lv_fd_close(ring->err_fd);
	ring->err_fd = fd;
	return 0;
}

int lv_ring_enable(struct lv_session *s, struct libvhost_req *req)
{
	struct lv_ring *ring = find(s, req);
	const bool was = ring && ring->enabled;
	int rc;

	if (!ring)
		return -EINVAL;
	ring->enabled = req->arg.num;
	rc = lv_ring_update(s, ring);
	if (rc < 0)
		ring->enabled = was;
	return rc;
}
