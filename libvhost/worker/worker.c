/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* Making and ending the thread. */
#include "worker/worker.h"

#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "core/opts.h"
#include "core/wire.h"
#include "vring/vring.h"
#include "worker/extra.h"
#include "worker/loop.h"

#define STACK_BYTES   (512u << 10)
#define POLL_US	      50u /* by then a driver has been woken and has made its next request */
#define POLL_US_MAX   1000000u
#define DEFAULT_BURST 256u

static void *thread_main(void *arg)
{
	struct libvhost_worker *w = arg;
	bool ok;

	prctl(PR_SET_NAME, w->opts.name[0] ? w->opts.name : "vhost-worker");
	atomic_store(&w->tid, gettid());
	ok = lv_sandbox_enter(&w->sandbox, &w->sandbox_result);
	atomic_store(&w->started, ok ? 1 : -1);
	lv_eventfd_signal(w->done_fd);
	if (ok)
		lv_loop_run(w);
	atomic_store(&w->started, -1);
	lv_eventfd_signal(w->done_fd);
	return NULL;
}

static const char *wrong_files(const struct libvhost_worker_opts *o)
{
	if (o->num_files > LV_IO_FILES)
		return "num_files is above 64";
	if (o->num_files && !o->files)
		return "num_files without files";
	if (o->num_files && o->role != LIBVHOST_ROLE_BLOCK)
		return "files need LIBVHOST_ROLE_BLOCK";
	return o->io_depth > LV_IO_DEPTH_MAX ? "io_depth is above 4096" : NULL;
}

/* What is wrong with one of the options by itself, NULL = nothing. */
static const char *out_of_range(const struct libvhost_worker_opts *o)
{
	if (o->flags & ~(LIBVHOST_WORKER_HAS_CPU | LIBVHOST_WORKER_BUSY | LIBVHOST_WORKER_IO_URING))
		return "flags has unknown bits";
	if (o->flags & LIBVHOST_WORKER_BUSY && o->poll_us)
		return "LIBVHOST_WORKER_BUSY with poll_us";
	if (o->role >= LV_ROLES)
		return "role is not known";
	if (o->sandbox > LIBVHOST_SANDBOX_OFF || o->action > LIBVHOST_SANDBOX_LOG || o->caps > LIBVHOST_CAPS_KEEP)
		return "sandbox, action or caps is not known";
	if (o->poll_us > POLL_US_MAX && o->poll_us != LIBVHOST_WORKER_NO_WINDOW)
		return "poll_us is above a second";
	if (memchr(o->name, 0, sizeof(o->name)) == NULL)
		return "name has no end within 16 bytes";
	if (o->flags & LIBVHOST_WORKER_HAS_CPU && (o->cpu < 0 || o->cpu >= CPU_SETSIZE))
		return "cpu is no processor's number";
	return wrong_files(o);
}

static int check_opts(struct libvhost_ctx *ctx, struct libvhost_worker_opts *o, const struct libvhost_worker_opts *opts)
{
	int rc = lv_opts_read(&ctx->err, o, sizeof(*o), sizeof(*o), opts, "libvhost_worker_opts");
	const char *wrong = rc < 0 ? NULL : out_of_range(o);

	if (rc < 0)
		return rc;
	if (wrong)
		return lv_fail(&ctx->err, -EINVAL, LIBVHOST_EK_ARGUMENT,
			       "worker: %s (flags %#x, role %u, sandbox %u, action %u, caps %u, poll_us %u, cpu %d, "
			       "%u files, io_depth %u)",
			       wrong, o->flags, o->role, o->sandbox, o->action, o->caps, o->poll_us, o->cpu,
			       o->num_files, o->io_depth);
	return lv_extra_check(&ctx->err, o);
}

static uint64_t window_ns(const struct libvhost_worker_opts *o)
{
	if (o->flags & LIBVHOST_WORKER_BUSY || o->poll_us == LIBVHOST_WORKER_NO_WINDOW)
		return 0;
	return (o->poll_us ? o->poll_us : POLL_US) * 1000ull;
}

static int open_fds(struct libvhost_worker *w)
{
	struct epoll_event ev = {.events = EPOLLIN | EPOLLET, .data.u32 = LV_LOOP_CONTROL};

	w->control_fd = lv_eventfd();
	w->done_fd = lv_eventfd();
	w->report_fd = lv_eventfd();
	w->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	if (w->control_fd < 0 || w->done_fd < 0 || w->report_fd < 0 || w->epoll_fd < 0)
		return -EMFILE;
	if (epoll_ctl(w->epoll_fd, EPOLL_CTL_ADD, w->control_fd, &ev) < 0)
		return -errno;
	ev.data.u32 = LV_LOOP_RING;
	return w->io.ring.fd >= 0 && epoll_ctl(w->epoll_fd, EPOLL_CTL_ADD, w->io.ring.fd, &ev) < 0 ? -errno : 0;
}

static void destroy(struct libvhost_worker *w)
{
	lv_fd_close(w->control_fd);
	lv_fd_close(w->done_fd);
	lv_fd_close(w->report_fd);
	lv_fd_close(w->epoll_fd);
	lv_io_destroy(&w->io);
	lv_sandbox_clear(&w->sandbox);
	pthread_mutex_destroy(&w->host_lock);
	lv_errslot_destroy(&w->err);
	libvhost_ctx_free(w->ctx);
	free(w);
}

/* All signals are blocked before the thread exists, so none of the host's can ever be delivered on it. A fault while
 * its signal is blocked ends the process, so SIGBUS is let in where it can be mended. */
static int create_thread(struct libvhost_worker *w)
{
	pthread_attr_t attr;
	sigset_t all, old;
	cpu_set_t cpus;
	int rc;

	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, STACK_BYTES);
	if (w->opts.flags & LIBVHOST_WORKER_HAS_CPU) {
		CPU_ZERO(&cpus);
		CPU_SET((unsigned)w->opts.cpu, &cpus);
		pthread_attr_setaffinity_np(&attr, sizeof(cpus), &cpus);
	}
	sigfillset(&all);
	if (lv_ctx_guards(w->ctx))
		sigdelset(&all, SIGBUS);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	rc = pthread_create(&w->thread, &attr, thread_main, w);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	pthread_attr_destroy(&attr);
	if (rc)
		return lv_fail(&w->ctx->err, -rc, LIBVHOST_EK_SYSTEM, "worker: no thread%s: %s",
			       rc == EINVAL ? " (is the processor online?)" : "", lv_errno_name(rc));
	return 0;
}

static int start(struct libvhost_worker *w)
{
	bool confirmed;
	int rc = create_thread(w);

	if (rc < 0)
		return rc;
	confirmed = lv_worker_await(w, &w->started, 0, lv_deadline(w->ctx, 0));
	if (confirmed && atomic_load(&w->started) > 0)
		return 0;
	atomic_store(&w->stop, 1);
	pthread_join(w->thread, NULL);
	if (!confirmed)
		return lv_fail(&w->ctx->err, -ETIMEDOUT, LIBVHOST_EK_TIMEOUT, "worker: the thread did not get to run");
	return lv_fail(&w->ctx->err, -EPERM, LIBVHOST_EK_SANDBOX,
		       "worker: the sandbox is required but %s (%s); allow it in the host's own policy, or use mode "
		       "best-effort",
		       w->sandbox_result.part, lv_errno_name(w->sandbox_result.sys_errno));
}

int libvhost_worker_new(struct libvhost_ctx *ctx, const struct libvhost_worker_opts *opts, struct libvhost_worker **ret)
{
	struct libvhost_worker_opts o;
	struct libvhost_worker *w;
	int rc;

	if (!ctx || !ret)
		return -EINVAL;
	rc = check_opts(ctx, &o, opts);
	if (rc < 0)
		return rc;
	w = calloc(1, sizeof(*w));
	if (!w)
		return lv_fail(&ctx->err, -ENOMEM, LIBVHOST_EK_NOMEM, "worker: no memory");
	w->ctx = lv_ctx_ref(ctx);
	w->opts = o;
	w->opts.files = NULL; /* duplicated below; the caller's may be gone */
	w->opts.syscalls = NULL;
	w->pid = getpid();
	w->loop.poll_max_ns = w->loop.poll_ns = window_ns(&o);
	w->loop.burst = o.burst ? o.burst : DEFAULT_BURST;
	w->loop.busy = o.flags & LIBVHOST_WORKER_BUSY;
	lv_errslot_init(&w->err);
	pthread_mutex_init(&w->host_lock, NULL);
	w->control_fd = w->done_fd = w->report_fd = w->epoll_fd = -1;
	rc = lv_io_init(&w->io, &o, &ctx->err);
	if (rc == 0 && (rc = open_fds(w)) < 0)
		lv_fail_sys(&ctx->err, -rc, "worker: no descriptors for its eventfds and epoll set");
	if (rc == 0)
		rc = lv_sandbox_prepare(&w->sandbox, &o, w->io.ring.fd, lv_ctx_guards(ctx), &ctx->err);
	if (rc == 0)
		rc = start(w);
	if (rc < 0) {
		destroy(w);
		return rc;
	}
	*ret = w;
	return 0;
}

int lv_worker_is_gone(struct libvhost_worker *w)
{
	return lv_fail(&w->err, -ESRCH, LIBVHOST_EK_STATE,
		       "worker: it has ended, or stayed in the parent of this process; make a new one");
}

int lv_worker_lock(struct libvhost_worker *w)
{
	if (lv_worker_is_self(w))
		return lv_fail(&w->err, -EBUSY, LIBVHOST_EK_BUSY,
			       "worker: called from a handler of its own; leave it to a thread of the host");
	pthread_mutex_lock(&w->host_lock);
	return 0;
}

static void ask_to_end(struct libvhost_worker *w)
{
	atomic_store(&w->stop, 1);
	lv_eventfd_signal(w->control_fd);
}

static int stop(struct libvhost_worker *w, uint32_t timeout_ms)
{
	if (w->joined || !lv_worker_is_ours(w))
		return 0;
	ask_to_end(w);
	if (!lv_worker_await(w, &w->started, 1, lv_deadline(w->ctx, timeout_ms)))
		return lv_fail(&w->err, -ETIMEDOUT, LIBVHOST_EK_TIMEOUT,
			       "worker: it did not end in time; a handler does not return");
	pthread_join(w->thread, NULL);
	w->joined = true;
	return 0;
}

int libvhost_worker_stop(struct libvhost_worker *w, uint32_t timeout_ms)
{
	int rc;

	if (!w || timeout_ms > LV_TIMEOUT_MAX_MS)
		return -EINVAL;
	rc = lv_worker_lock(w);
	if (rc < 0)
		return rc;
	rc = stop(w, timeout_ms);
	pthread_mutex_unlock(&w->host_lock);
	return rc;
}

void libvhost_worker_free(struct libvhost_worker *w)
{
	if (!w || lv_worker_is_self(w)) /* a thread cannot wait for its own end */
		return;
	while (stop(w, LV_TIMEOUT_MAX_MS) < 0)
		;
	for (uint32_t i = 0; i < LV_WORKER_QUEUES; i++)
		if (w->posts[i].vq)
			w->posts[i].vq->worker = NULL;
	destroy(w);
}

int libvhost_worker_error(struct libvhost_worker *w, struct libvhost_error *err)
{
	return w ? lv_errslot_read(&w->err, err) : -EINVAL;
}
