/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* The object: options, workers, configuration space, events. */
#include "backend/device.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#include "core/opts.h"
#include "core/sanitize.h"
#include "vring/vring.h"
#include "worker/worker.h"

#define F(bit)		    (1ull << (bit))
#define F_PROTOCOL_FEATURES F(30)
/* Bits that promise what this version does not do: IOMMU, notification data. */
#define F_UNSUPPORTED (F(33) | F(36) | F(38) | F(39) | F(40) | F(41))
#define MAX_WORKERS   64u
#define DEFAULT_SLOTS 509u
#define DEFAULT_MS    1000u
#define DEFAULT_STATE (1u << 20)
#define MAX_STATE     (1u << 30)

#define BRIDGE_LOOK_US 200

static int own_callback(struct libvhost_backend *b)
{
	return lv_fail(&b->err, -EBUSY, LIBVHOST_EK_BUSY, "back-end: called from its own callback");
}

/* Whoever holds the lock may be waiting for this thread. */
static int check_thread(struct libvhost_backend *b)
{
	for (uint32_t i = 0; b->workers && i < b->opts.num_workers; i++)
		if (b->workers[i] && lv_worker_is_self(b->workers[i]))
			return lv_fail(&b->err, -EBUSY, LIBVHOST_EK_BUSY,
				       "back-end: called from a handler on worker %u; leave it to a thread of the host",
				       i);
	return 0;
}

int lv_backend_lock_bridge(struct libvhost_backend *b)
{
	int rc = check_thread(b);

	if (rc < 0)
		return rc;
	atomic_fetch_add(&b->waiting, 1);
	rc = pthread_mutex_lock(&b->lock);
	atomic_fetch_sub(&b->waiting, 1);
	return rc ? own_callback(b) : 0;
}

/* on_request runs without the lock, so that somebody else has to remember whose callback it is. */
static int refuse_bridge(struct libvhost_backend *b)
{
	if (!b->bridging || !pthread_equal(b->bridge, pthread_self()))
		return 0;
	lv_backend_unlock(b);
	return own_callback(b);
}

int lv_backend_lock(struct libvhost_backend *b)
{
	const int rc = lv_backend_lock_bridge(b);

	return rc < 0 ? rc : refuse_bridge(b);
}

/* The thread sanitizers of gcc 12 and clang 14 do not know the lock by the monotonic clock. */
#if LV_TSAN
#define LOCK_CLOCK CLOCK_REALTIME
#else
#define LOCK_CLOCK CLOCK_MONOTONIC
#endif

static int lock_until(pthread_mutex_t *lock, const struct timespec *until)
{
#if LV_TSAN
	return pthread_mutex_timedlock(lock, until);
#else
	return pthread_mutex_clocklock(lock, LOCK_CLOCK, until);
#endif
}

static int callback_is_late(struct libvhost_backend *b)
{
	return lv_fail(&b->err, -ETIMEDOUT, LIBVHOST_EK_TIMEOUT,
		       "back-end: a message is being handled and its callback does not return; call again");
}

static int lock_within(struct libvhost_backend *b, uint64_t deadline)
{
	const uint32_t left = lv_backend_left_ms(b, deadline);
	struct timespec until;
	int rc = check_thread(b);

	if (rc < 0)
		return rc;
	clock_gettime(LOCK_CLOCK, &until);
	until.tv_sec += left / 1000;
	until.tv_nsec += left % 1000 * (long)LV_NS_PER_MS;
	if (until.tv_nsec >= 1000000000) {
		until.tv_sec++;
		until.tv_nsec -= 1000000000;
	}
	atomic_fetch_add(&b->waiting, 1);
	rc = lock_until(&b->lock, &until);
	atomic_fetch_sub(&b->waiting, 1);
	if (rc == ETIMEDOUT)
		return callback_is_late(b);
	return rc ? own_callback(b) : refuse_bridge(b);
}

/* Not while on_request runs either: it uses the message, its descriptors and the front-end's channel. */
int lv_backend_lock_within(struct libvhost_backend *b, uint64_t deadline)
{
	int rc;

	while ((rc = lock_within(b, deadline)) == 0 && b->bridging) {
		lv_backend_unlock(b);
		if (!lv_left_ms(b->ctx, deadline))
			return callback_is_late(b);
		nanosleep(&(struct timespec){.tv_nsec = BRIDGE_LOOK_US * 1000}, NULL);
	}
	return rc;
}

void lv_backend_unlock(struct libvhost_backend *b)
{
	pthread_mutex_unlock(&b->lock);
}

uint32_t lv_backend_left_ms(struct libvhost_backend *b, uint64_t deadline)
{
	const int left = lv_left_ms(b->ctx, deadline);

	return left > 0 ? (uint32_t)left : 1;
}

int lv_backend_check_alive(struct libvhost_backend *b)
{
	return b->stopped ? lv_fail(&b->err, -ESHUTDOWN, LIBVHOST_EK_STATE, "back-end: it was stopped") : 0;
}

static void put_event(struct libvhost_backend *b, const struct libvhost_event *event)
{
	struct libvhost_event *e;

	if (b->event_count == LV_BACKEND_EVENTS) { /* and the host knows of the others */
		b->events_dropped++;
		return;
	}
	e = &b->events[(b->event_head + b->event_count++) % LV_BACKEND_EVENTS];
	*e = *event;
	e->dropped = b->events_dropped;
	b->events_dropped = 0;
	lv_control_arm(b);
}

void lv_backend_event(struct libvhost_backend *b, uint32_t type, uint32_t queue, int err, const char *text)
{
	struct libvhost_event e = {.type = type, .queue = queue, .err = err};

	snprintf(e.text, sizeof(e.text), "%.*s", (int)sizeof(e.text) - 1, text);
	put_event(b, &e);
}

void lv_backend_reports(struct libvhost_backend *b)
{
	struct lv_session *s = &b->session;
	struct libvhost_event e;

	lv_pull_reports(b);
	for (uint32_t w = 0; w < b->opts.num_workers; w++)
		while (libvhost_worker_next_event(b->workers[w], &e) == 1) {
			if (e.queue == LIBVHOST_NONE) /* a descriptor of the host's */
				put_event(b, &e);
			for (uint32_t q = 0; s->rings && q < b->opts.num_queues; q++)
				if (s->rings[q].vq && (uintptr_t)s->rings[q].vq == e.value[0])
					lv_ring_failed(s, &s->rings[q], e.err);
		}
}

/* What is wrong with one of the options by itself, NULL = nothing. */
static const char *out_of_range(const struct libvhost_backend_opts *o)
{
	if (o->flags & ~(LIBVHOST_BACKEND_REQUIRE_SEALS | LIBVHOST_BACKEND_CONTROL_WORKER | LIBVHOST_BACKEND_PULL))
		return "flags has unknown bits";
	if (!o->num_queues || o->num_queues > LIBVHOST_MAX_QUEUES)
		return "num_queues must be 1 to 256";
	if (o->max_regions && (o->max_regions < 8 || o->max_regions > LIBVHOST_MAX_REGIONS))
		return "max_regions must be 8 to 512, or 0 for 509";
	if (o->timeout_ms > LV_TIMEOUT_MAX_MS)
		return "timeout_ms is above an hour";
	if (o->num_workers > MAX_WORKERS)
		return "num_workers is above 64";
	if (!o->ops && !(o->flags & LIBVHOST_BACKEND_PULL))
		return "ops is missing";
	if (o->config_len > LV_BACKEND_CONFIG)
		return "config_len is above 256";
	return o->config_len && !o->config ? "config_len without config" : NULL;
}

static int check_opts(struct libvhost_ctx *ctx, const struct libvhost_backend_opts *o)
{
	const char *wrong = out_of_range(o);

	if (wrong)
		return lv_fail(&ctx->err, -EINVAL, LIBVHOST_EK_ARGUMENT,
			       "back-end: %s (flags %#x, %u queues, %u regions, %u ms, %u workers, %u bytes of "
			       "configuration)",
			       wrong, o->flags, o->num_queues, o->max_regions, o->timeout_ms, o->num_workers,
			       o->config_len);
	if (o->state_max > MAX_STATE || o->reserved)
		return lv_fail(&ctx->err, -EINVAL, LIBVHOST_EK_ARGUMENT,
			       "back-end: %u bytes of device state, reserved %u: at most 1 GiB, and 0", o->state_max,
			       o->reserved);
	if (o->features & F_UNSUPPORTED)
		return lv_fail(&ctx->err, -EINVAL, LIBVHOST_EK_UNSUPPORTED,
			       "back-end: features %#llx are not supported by libvhost %s; do not offer them",
			       (unsigned long long)(o->features & F_UNSUPPORTED), libvhost_version_string());
	return 0;
}

static int take_opts(struct libvhost_backend *b, const struct libvhost_backend_opts *opts)
{
	int rc = lv_opts_read(&b->ctx->err, &b->opts, sizeof(b->opts), sizeof(b->opts), opts, "libvhost_backend_opts");

	if (rc == 0)
		rc = check_opts(b->ctx, &b->opts);
	if (rc == 0 && b->opts.ops)
		rc = lv_opts_read(&b->ctx->err, &b->ops, sizeof(b->ops), sizeof(b->ops), b->opts.ops,
				  "libvhost_backend_ops");
	if (rc == 0 && lv_pulled(b))
		rc = lv_pull_check(b, &b->opts);
	if (rc == 0)
		rc = lv_control_check(b);
	if (rc < 0)
		return rc;
	if (!b->ops.serve && !b->ops.on_request && !lv_pulled(b))
		return lv_fail(&b->ctx->err, -EINVAL, LIBVHOST_EK_ARGUMENT, "back-end: ops.serve is missing");
	if (!b->ops.save_state != !b->ops.load_state)
		return lv_fail(&b->ctx->err, -EINVAL, LIBVHOST_EK_ARGUMENT,
			       "back-end: ops.save_state and ops.load_state: give both or none");
	if (b->opts.config_len)
		memcpy(b->config, b->opts.config, b->opts.config_len);
	b->opts.ops = NULL; /* copied; the caller's may be gone */
	b->opts.config = NULL;
	b->opts.max_regions = b->opts.max_regions ? b->opts.max_regions : DEFAULT_SLOTS;
	b->opts.timeout_ms = b->opts.timeout_ms ? b->opts.timeout_ms : DEFAULT_MS;
	b->opts.state_max = b->opts.state_max ? b->opts.state_max : DEFAULT_STATE;
	if (b->ops.on_request || lv_pulled(b))
		b->opts.num_workers = 0; /* a bridge only talks */
	else if (!b->opts.num_workers)
		b->opts.num_workers = 1;
	b->features = b->opts.features | LV_F_VERSION_1 | LV_F_LOG_ALL | F_PROTOCOL_FEATURES;
	b->protocol_features = F(LIBVHOST_PROTOCOL_F_MQ) | F(LIBVHOST_PROTOCOL_F_LOG_SHMFD) |
			       F(LIBVHOST_PROTOCOL_F_REPLY_ACK) | F(LIBVHOST_PROTOCOL_F_RESET_DEVICE) |
			       F(LIBVHOST_PROTOCOL_F_CONFIGURE_MEM_SLOTS) | F(LIBVHOST_PROTOCOL_F_STATUS) |
			       F(LIBVHOST_PROTOCOL_F_INFLIGHT_SHMFD) | F(LIBVHOST_PROTOCOL_F_GET_VRING_BASE_INFLIGHT);
	if (b->opts.config_len || b->ops.get_config)
		b->protocol_features |= F(LIBVHOST_PROTOCOL_F_CONFIG) | F(LIBVHOST_PROTOCOL_F_BACKEND_REQ);
	if (b->ops.save_state)
		b->protocol_features |= F(LIBVHOST_PROTOCOL_F_DEVICE_STATE);
	return 0;
}

static int open_fds(struct libvhost_backend *b)
{
	b->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	b->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
	if (b->epoll_fd < 0 || b->timer_fd < 0)
		return lv_fail_sys(&b->ctx->err, errno, "back-end: epoll set and timer: %s", lv_errno_name(errno));
	return 0;
}

static int start_workers(struct libvhost_backend *b)
{
	const struct libvhost_worker_opts *opts = b->opts.worker;
	int rc = 0;

	b->opts.worker = NULL;
	lv_place_queues(b);
	if (!b->opts.num_workers)
		return 0;
	b->workers = calloc(b->opts.num_workers, sizeof(struct libvhost_worker *));
	if (!b->workers)
		return lv_fail(&b->ctx->err, -ENOMEM, LIBVHOST_EK_NOMEM, "back-end: out of memory");
	for (uint32_t i = 0; i < b->opts.num_workers && rc == 0; i++) {
		struct epoll_event ev = {.events = EPOLLIN, .data.u32 = LV_W_WORKER};

		rc = libvhost_worker_new(b->ctx, opts, &b->workers[i]);
		if (rc == 0 && epoll_ctl(b->epoll_fd, EPOLL_CTL_ADD, libvhost_worker_fd(b->workers[i]), &ev) < 0)
			rc = lv_fail_sys(&b->ctx->err, errno, "back-end: epoll: %s", lv_errno_name(errno));
	}
	return rc < 0 ? rc : lv_control_start(b, opts);
}

static void init_lock(pthread_mutex_t *lock)
{
	pthread_mutexattr_t attr;

	pthread_mutexattr_init(&attr);
	pthread_mutexattr_settype(&attr, PTHREAD_MUTEX_ERRORCHECK);
	pthread_mutex_init(lock, &attr);
	pthread_mutexattr_destroy(&attr);
}

int libvhost_backend_new(struct libvhost_ctx *ctx, const struct libvhost_backend_opts *opts,
			 struct libvhost_backend **ret)
{
	struct libvhost_backend *b;
	int rc;

	if (!ctx || !opts || !ret)
		return -EINVAL;
	b = calloc(1, sizeof(*b));
	if (!b)
		return lv_fail(&ctx->err, -ENOMEM, LIBVHOST_EK_NOMEM, "back-end: out of memory");
	b->ctx = lv_ctx_ref(ctx);
	lv_errslot_init(&b->err);
	init_lock(&b->lock);
	b->pid = getpid();
	b->listener = b->epoll_fd = b->timer_fd = b->host_fd = -1;
	b->session.b = b;
	b->session.channel = -1;
	lv_state_init(&b->session.state);
	lv_conn_init(&b->conn);
	for (uint32_t i = 0; i < LV_W_COUNT; i++)
		b->watch[i].fd = -1;
	for (uint32_t q = 0; q < LIBVHOST_MAX_QUEUES; q++)
		b->watched[q] = -1;
	rc = take_opts(b, opts);
	if (rc == 0)
		rc = open_fds(b);
	if (rc == 0)
		rc = start_workers(b);
	if (rc < 0) {
		libvhost_backend_free(b);
		return rc;
	}
	*ret = b;
	return 0;
}

/* What a forked child has of the parent's is closed and nothing else: not the socket file, which is the parent's, nor
 * entries of an epoll set that both have. Whoever held the lock is not here. */
static void let_go_of_parent(struct libvhost_backend *b)
{
	lv_fd_close(b->epoll_fd);
	b->epoll_fd = -1;
	b->unlinks = false;
	init_lock(&b->lock);
}

void libvhost_backend_free(struct libvhost_backend *b)
{
	if (b && b->pid != getpid())
		let_go_of_parent(b);
	if (!b || lv_backend_lock(b) < 0) /* a callback cannot end what it is called from */
		return;
	lv_backend_unlock(b);
	lv_control_free(b); /* it may be waiting for the lock */
	pthread_mutex_lock(&b->lock);
	lv_conn_close(b, 0, "the back-end ends");
	lv_session_close(&b->session, 1);
	for (uint32_t i = 0; b->workers && i < b->opts.num_workers; i++)
		libvhost_worker_free(b->workers[i]); /* waits for a handler that still runs */
	for (uint32_t q = 0; b->session.rings && q < b->opts.num_queues; q++)
		b->session.rings[q].on_worker = false;
	lv_session_close(&b->session, 1);
	free(b->session.rings);
	free(b->workers);
	lv_listener_close(b);
	lv_fd_close(b->timer_fd);
	lv_fd_close(b->epoll_fd);
	lv_backend_unlock(b);
	pthread_mutex_destroy(&b->lock);
	lv_errslot_destroy(&b->err);
	libvhost_ctx_free(b->ctx);
	free(b);
}

int libvhost_backend_next_event(struct libvhost_backend *b, struct libvhost_event *event)
{
	int rc;

	if (!b || !event)
		return -EINVAL;
	rc = lv_backend_lock_bridge(b);
	if (rc < 0)
		return rc;
	rc = b->event_count > 0;
	if (rc) {
		*event = b->events[b->event_head];
		b->event_head = (b->event_head + 1) % LV_BACKEND_EVENTS;
		b->event_count--;
		lv_control_arm(b);
	}
	lv_backend_unlock(b);
	return rc;
}

int libvhost_backend_set_config(struct libvhost_backend *b, const void *config, uint32_t len)
{
	const uint64_t both = F(LIBVHOST_PROTOCOL_F_CONFIG) | F(LIBVHOST_PROTOCOL_F_BACKEND_REQ);
	struct lv_session *s = b ? &b->session : NULL;
	int rc;

	if (!b || !config)
		return -EINVAL;
	rc = lv_backend_lock(b);
	if (rc < 0)
		return rc;
	rc = lv_backend_check_alive(b);
	if (rc < 0) {
		lv_backend_unlock(b);
		return rc;
	}
	if (!len || len > b->opts.config_len) {
		rc = lv_fail(&b->err, -EINVAL, LIBVHOST_EK_ARGUMENT,
			     "back-end: %u bytes of configuration, the device was made with %u", len,
			     b->opts.config_len);
	} else {
		memcpy(b->config, config, len);
		s->config_changed = s->open && (s->wire.protocol_features & both) == both;
		lv_channel_turn(s);
		if (b->inproc)
			lv_inproc_wake(b->inproc);
	}
	lv_backend_unlock(b);
	return rc;
}

int libvhost_backend_worker_status(struct libvhost_backend *b, uint32_t index, struct libvhost_worker_status *status)
{
	if (!b || !status)
		return -EINVAL;
	if (index == LIBVHOST_BACKEND_CONTROL_INDEX && b->control)
		return libvhost_worker_status(b->control, status);
	if (index >= b->opts.num_workers)
		return lv_fail(&b->err, -ENOENT, LIBVHOST_EK_ARGUMENT, "back-end: no worker %u", index);
	return libvhost_worker_status(b->workers[index], status);
}

int libvhost_backend_error(struct libvhost_backend *b, struct libvhost_error *err)
{
	return b ? lv_errslot_read(&b->err, err) : -EINVAL;
}
