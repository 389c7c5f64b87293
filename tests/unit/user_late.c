/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* Sockets that come late: noticed at once, without turning in circles, and found without inotify too. */
#include "devrig.h"

#include <sys/inotify.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include "core/wire.h"
#include "puppet.h"

/* A device whose pauses are far longer than any test, at a socket in a folder of its own. */
struct late {
	struct devrig r;
	struct puppet p;
	char dir[40], path[64], uri[80];
};

/* A user has 128 inotify descriptors or so, which other tests of this machine may have taken for the moment. */
static void await_inotify(void)
{
	int fd;

	for (int i = 0; (fd = inotify_init1(IN_CLOEXEC)) < 0 && i < PATIENCE_MS / 10; i++)
		usleep(10000);
	CHECK(fd >= 0);
	close(fd);
}

static void late_init(struct late *l)
{
	await_inotify();
	memset(l, 0, sizeof(*l));
	devrig_init(&l->r);
	puppet_init(&l->p);
	strcpy(l->dir, "/tmp/libvhost-late-XXXXXX");
	CHECK(mkdtemp(l->dir));
	snprintf(l->path, sizeof(l->path), "%s/s", l->dir);
	snprintf(l->uri, sizeof(l->uri), "user:%s", l->path);
	l->r.opts.uri = l->uri;
}

static void set_pauses(struct late *l, uint32_t first_ms, uint32_t jitter)
{
	const struct libvhost_reconnect_policy policy = {
		.size = sizeof(policy), .first_ms = first_ms, .max_ms = 600000, .jitter_percent = jitter};

	CHECK_EQ(libvhost_dev_set_reconnect(l->r.dev, &policy), 0);
}

/* Running, with a policy whose pauses are first_ms and more. */
static void late_run(struct late *l, uint32_t first_ms, uint32_t jitter)
{
	late_init(l);
	puppet_listen(&l->p, l->path);
	CHECK_EQ(devrig_open(&l->r), 0);
	devrig_queues(&l->r, DEVRIG_QUEUES);
	CHECK_EQ(libvhost_dev_start(l->r.dev, NULL), 0);
	set_pauses(l, first_ms, jitter);
}

static void late_close(struct late *l)
{
	libvhost_dev_cleanup(l->r.dev);
	puppet_stop(&l->p);
	guest_free(&l->r.g);
	CHECK_EQ(rmdir(l->dir), 0);
	CHECK_LEDGER(l->r.before);
}

/* The back-end goes and takes its socket with it. */
static void lose(struct late *l)
{
	puppet_stop(&l->p);
	puppet_init(&l->p);
	CHECK(devrig_await(&l->r, LIBVHOST_EVENT_DISCONNECTED, PATIENCE_MS, NULL));
	for (int i = 0; i < 5; i++) /* it has tried and waits */
		CHECK_EQ(libvhost_dev_dispatch(l->r.dev, 2), 0);
	CHECK_EQ(devrig_state(&l->r), LIBVHOST_DEV_RECONNECTING);
}

static bool comes_back(struct late *l, unsigned ms)
{
	struct libvhost_event e;

	if (!devrig_await(&l->r, LIBVHOST_EVENT_RECONNECTED, ms, &e))
		return false;
	CHECK(e.value[2] <= e.value[1]);
	CHECK_EQ(devrig_state(&l->r), LIBVHOST_DEV_RUNNING);
	return true;
}

static unsigned open_inotifies(void)
{
	char path[64], what[64];
	unsigned count = 0;

	for (int fd = 3; fd < 256; fd++) {
		ssize_t n;

		snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
		n = readlink(path, what, sizeof(what) - 1);
		count += n > 0 && !strncmp(what, "anon_inode:inotify", 18);
	}
	return count;
}

TEST(user_late, a_new_socket_ends_a_pause_of_a_minute)
{
	struct late l;

	late_run(&l, 60000, 0);
	CHECK_EQ(open_inotifies(), 0);
	lose(&l);
	CHECK_EQ(open_inotifies(), 1);
	puppet_listen(&l.p, l.path);
	CHECK(comes_back(&l, PATIENCE_MS));
	CHECK_EQ(open_inotifies(), 0); /* nothing is watched while there is a peer */
	late_close(&l);
}

/* The event loop of a VMM sees it on the device's descriptor. */
TEST(user_late, the_descriptor_for_event_loops_becomes_readable)
{
	struct pollfd p = {.events = POLLIN};
	struct late l;
	uint64_t end;

	late_run(&l, 60000, 0);
	p.fd = libvhost_dev_fd(l.r.dev);
	CHECK(p.fd >= 0);
	lose(&l);
	while (poll(&p, 1, 0) == 1)
		CHECK_EQ(libvhost_dev_dispatch(l.r.dev, 0), 0);
	puppet_listen(&l.p, l.path);
	for (end = now_ms() + PATIENCE_MS; devrig_state(&l.r) != LIBVHOST_DEV_RUNNING && now_ms() < end;)
		if (poll(&p, 1, 100) == 1)
			CHECK_EQ(libvhost_dev_dispatch(l.r.dev, 0), 0);
	CHECK_EQ(devrig_state(&l.r), LIBVHOST_DEV_RUNNING);
	late_close(&l);
}

/* A killed peer leaves its socket file; the next one replaces it. */
TEST(user_late, a_stale_socket_is_not_asked_again_and_its_replacement_is)
{
	struct late l;
	int stale;

	late_run(&l, 60000, 0);
	lose(&l);
	stale = lv_wire_listen(l.path, 1);
	close(stale);
	CHECK(!comes_back(&l, 50));
	puppet_listen(&l.p, l.path); /* unlinks, binds, listens */
	CHECK(comes_back(&l, PATIENCE_MS));
	late_close(&l);
}

static int bind_only(const char *path)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	memcpy(a.sun_path, path, strlen(path) + 1);
	CHECK_EQ(bind(fd, (struct sockaddr *)&a, sizeof(a)), 0);
	return fd;
}

TEST(user_late, a_peer_between_bind_and_listen_is_asked_again_soon)
{
	struct late l;
	uint64_t began;

	late_run(&l, 60000, 0);
	lose(&l);
	l.p.listener = bind_only(l.path);
	CHECK(!comes_back(&l, 60));
	CHECK_EQ(listen(l.p.listener, 4), 0);
	began = now_ms();
	snprintf(l.p.path, sizeof(l.p.path), "%s", l.path);
	puppet_run(&l.p);
	CHECK(comes_back(&l, PATIENCE_MS));
	CHECK(now_ms() - began < 30000); /* half of its pause */
	late_close(&l);
}

/* Renamed into place, as careful daemons do. */
TEST(user_late, a_socket_that_is_moved_there_is_noticed)
{
	struct late l;
	char other[72];

	late_run(&l, 60000, 0);
	lose(&l);
	snprintf(other, sizeof(other), "%s.new", l.path);
	puppet_listen(&l.p, other);
	CHECK(!comes_back(&l, 30));
	CHECK_EQ(rename(other, l.path), 0);
	CHECK(comes_back(&l, PATIENCE_MS));
	unlink(l.path);
	late_close(&l);
}

static atomic_bool busy;

static void *crowd(void *arg)
{
	const char *dir = arg;
	char path[80];

	for (unsigned i = 0; atomic_load(&busy); i++) {
		snprintf(path, sizeof(path), "%s/other-%u", dir, i % 50);
		close(open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
		unlink(path);
	}
	return NULL;
}

static double own_cpu_seconds(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

/* Half a second beside somebody who keeps the folder busy, which goes on. */
static void wait_beside(struct late *l, pthread_t *thread, void *(*somebody)(void *), char *arg, uint32_t max_wakes)
{
	uint32_t wakes = 0;
	uint64_t began;
	double cpu;

	late_run(l, 60000, 0);
	lose(l);
	atomic_store(&busy, true);
	CHECK_EQ(pthread_create(thread, NULL, somebody, arg), 0);
	cpu = own_cpu_seconds();
	for (began = now_ms(); now_ms() - began < 500; wakes++)
		CHECK_EQ(libvhost_dev_dispatch(l->r.dev, 100), 0);
	CHECK(own_cpu_seconds() - cpu < 0.1);
	CHECK(wakes <= max_wakes);
}

static void end_busy(pthread_t thread)
{
	atomic_store(&busy, false);
	pthread_join(thread, NULL);
}

/* Somebody makes and removes files as fast as the kernel can: at most one look in 10 ms, and the socket is still seen.
 */
TEST(user_late, a_busy_folder_costs_little)
{
	pthread_t thread;
	struct late l;

	wait_beside(&l, &thread, crowd, l.dir, 2 * 500 / 10);
	puppet_listen(&l.p, l.path);
	CHECK(comes_back(&l, PATIENCE_MS));
	end_busy(thread);
	late_close(&l);
}

static void *churn(void *arg)
{
	const char *path = arg;

	while (atomic_load(&busy)) {
		close(bind_only(path));
		unlink(path);
	}
	return NULL;
}

/* The socket itself comes and goes without ever listening. */
TEST(user_late, a_socket_that_comes_and_goes_costs_little)
{
	pthread_t thread;
	struct late l;

	wait_beside(&l, &thread, churn, l.path, 4 * 500 / 10);
	end_busy(thread);
	puppet_listen(&l.p, l.path);
	CHECK(comes_back(&l, PATIENCE_MS));
	late_close(&l);
}

/* Another kind of file, which no attempt can connect to: its replacement is noticed all the same. */
TEST(user_late, a_file_that_is_no_socket_is_replaced_by_one)
{
	struct late l;

	late_run(&l, 60000, 0);
	lose(&l);
	close(open(l.path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
	CHECK(!comes_back(&l, 30));
	CHECK_EQ(unlink(l.path), 0);
	puppet_listen(&l.p, l.path);
	CHECK(comes_back(&l, PATIENCE_MS));
	late_close(&l);
}

/* No folder, nothing to watch: the pauses find it. Then the folder is replaced while it is watched. */
TEST(user_late, a_folder_that_is_missing_or_replaced)
{
	struct late l;

	late_run(&l, 20, 0);
	puppet_stop(&l.p);
	puppet_init(&l.p);
	CHECK_EQ(rmdir(l.dir), 0);
	CHECK(!comes_back(&l, 50));
	CHECK_EQ(mkdir(l.dir, 0700), 0);
	puppet_listen(&l.p, l.path);
	CHECK(comes_back(&l, PATIENCE_MS));
	lose(&l);
	set_pauses(&l, 60000, 0);
	CHECK_EQ(rmdir(l.dir), 0);
	CHECK_EQ(mkdir(l.dir, 0700), 0);
	for (int i = 0; i < 5; i++)
		CHECK_EQ(libvhost_dev_dispatch(l.r.dev, 5), 0);
	puppet_listen(&l.p, l.path);
	CHECK(comes_back(&l, PATIENCE_MS));
	late_close(&l);
}

struct opener {
	struct late *l;
	int rc;
	uint64_t ended;
};

static void *open_blocking(void *arg)
{
	struct opener *o = arg;

	o->l->r.opts.flags = LIBVHOST_DEV_WAIT;
	o->l->r.opts.timeout_ms = PATIENCE_MS;
	o->rc = devrig_open(&o->l->r);
	o->ended = now_ms();
	return NULL;
}

/* How long a blocking open that is in its long pauses takes to see a new socket. */
static uint64_t open_notices(void)
{
	struct opener o = {0};
	pthread_t thread;
	struct late l;
	uint64_t began;

	late_init(&l);
	o.l = &l;
	CHECK_EQ(pthread_create(&thread, NULL, open_blocking, &o), 0);
	for (int i = 0; i < PATIENCE_MS && !open_inotifies(); i++)
		usleep(1000);
	CHECK_EQ(open_inotifies(), 1);
	usleep(100000); /* it is in its long pauses */
	began = now_ms();
	puppet_listen(&l.p, l.path);
	pthread_join(thread, NULL);
	CHECK_EQ(o.rc, 0);
	CHECK_EQ(open_inotifies(), 0);
	late_close(&l);
	return o.ended - began;
}

/*
 * The pauses are 500 ms. Who sees it by their end only is quick now and then, who sees it at once is late now and then
 * on a busy machine: it has to be quick three times more often than not.
 */
TEST(user_late, a_blocking_open_notices_too)
{
	int lead = 0;

	for (int i = 0; i < 40 && lead < 3; i++)
		lead += open_notices() < 100 ? 1 : -1;
	CHECK_EQ(lead, 3);
}

TEST(user_late, an_explicit_reconnect_and_its_cancellation)
{
	const struct libvhost_call_opts async = {
		.size = sizeof(async), .flags = LIBVHOST_CALL_ASYNC, .timeout_ms = 60000};
	struct libvhost_event e;
	struct late l;
	uint64_t began;

	late_run(&l, 60000, 0);
	lose(&l);
	CHECK_EQ(libvhost_dev_reconnect(l.r.dev, &async), -EINPROGRESS);
	CHECK_EQ(libvhost_dev_dispatch(l.r.dev, 20), 0);
	CHECK_EQ(open_inotifies(), 1);
	began = now_ms();
	CHECK_EQ(libvhost_dev_cancel(l.r.dev), 0);
	CHECK(devrig_await(&l.r, LIBVHOST_EVENT_DONE, PATIENCE_MS, &e));
	CHECK_EQ(e.err, -ECANCELED);
	CHECK(now_ms() - began < 30000);
	CHECK_EQ(open_inotifies(), 0);
	puppet_listen(&l.p, l.path);
	CHECK_EQ(libvhost_dev_reconnect(l.r.dev, NULL), 0);
	late_close(&l);
}
