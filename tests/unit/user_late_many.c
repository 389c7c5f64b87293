/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* Many who wait for sockets share one inotify instance, of which a user has 128: who reads it wakes the others. */
#include "devrig.h"

#include <pthread.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include "core/folders.h"
#include "core/wire.h"
#include "puppet.h"

#define MANY	  200u
#define FOLDERS	  3u
#define THREADS	  8u
#define MINUTE_MS 60000u

struct one {
	struct puppet p;
	struct libvhost_dev *dev;
	char path[64], uri[80];
};

struct many {
	struct lv_ledger before;
	struct guest g;
	char dir[FOLDERS][40];
	struct one *all;
	struct rlimit limit;
};

static unsigned open_inotifies(void)
{
	char path[64], what[64];
	unsigned count = 0;

	for (int fd = 3; fd < 8192; fd++) {
		ssize_t n;

		snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
		n = readlink(path, what, sizeof(what) - 1);
		count += n > 0 && !strncmp(what, "anon_inode:inotify", 18);
	}
	return count;
}

static void make_one(struct many *m, uint32_t i)
{
	const struct libvhost_reconnect_policy policy = {
		.size = sizeof(policy), .first_ms = MINUTE_MS, .max_ms = MINUTE_MS};
	struct one *o = &m->all[i];
	const struct libvhost_dev_opts opts = {
		.size = sizeof(opts), .num_queues = 1, .mem = m->g.mem, .uri = o->uri, .timeout_ms = 20000};

	snprintf(o->path, sizeof(o->path), "%s/s%u", m->dir[i % FOLDERS], i);
	snprintf(o->uri, sizeof(o->uri), "user:%s", o->path);
	puppet_init(&o->p);
	puppet_listen(&o->p, o->path);
	CHECK_EQ(libvhost_dev_init(m->g.ctx, &opts, &o->dev), 0);
	CHECK_EQ(libvhost_dev_set_reconnect(o->dev, &policy), 0);
	CHECK(libvhost_dev_fd(o->dev) >= 0);
}

static uint32_t state_of(const struct one *o)
{
	struct libvhost_dev_info i = {.size = sizeof(i)};

	CHECK_EQ(libvhost_dev_info(o->dev, &i), 0);
	return i.state;
}

/* MANY devices in the middle of pauses of a minute. */
static void many_wait(struct many *m)
{
	struct rlimit more;

	memset(m, 0, sizeof(*m));
	CHECK_EQ(getrlimit(RLIMIT_NOFILE, &m->limit), 0);
	more = m->limit;
	more.rlim_cur = more.rlim_max < 8192 ? more.rlim_max : 8192;
	CHECK_EQ(setrlimit(RLIMIT_NOFILE, &more), 0);
	m->before = lv_ledger_take();
	m->g = guest_new(0);
	m->all = calloc(MANY, sizeof(*m->all));
	for (uint32_t i = 0; i < FOLDERS; i++) {
		strcpy(m->dir[i], "/tmp/libvhost-many-XXXXXX");
		CHECK(mkdtemp(m->dir[i]));
	}
	for (uint32_t i = 0; i < MANY; i++)
		make_one(m, i);
	CHECK_EQ(open_inotifies(), 0);
	for (uint32_t i = 0; i < MANY; i++) {
		puppet_stop(&m->all[i].p);
		puppet_init(&m->all[i].p);
	}
	for (uint32_t k = 0; k < 4; k++) /* notice, try, wait */
		for (uint32_t i = 0; i < MANY; i++)
			CHECK_EQ(libvhost_dev_dispatch(m->all[i].dev, 0), 0);
	for (uint32_t i = 0; i < MANY; i++)
		CHECK_EQ(state_of(&m->all[i]), LIBVHOST_DEV_RECONNECTING);
}

static void many_end(struct many *m)
{
	for (uint32_t i = 0; i < MANY; i++) {
		libvhost_dev_cleanup(m->all[i].dev);
		puppet_stop(&m->all[i].p);
	}
	CHECK_EQ(open_inotifies(), 0);
	free(m->all);
	guest_free(&m->g);
	for (uint32_t i = 0; i < FOLDERS; i++)
		CHECK_EQ(rmdir(m->dir[i]), 0);
	CHECK_EQ(setrlimit(RLIMIT_NOFILE, &m->limit), 0);
	CHECK_LEDGER(m->before);
}

/* The event loop of devices first, first + step, … */
struct loop {
	pthread_t thread;
	struct many *m;
	uint32_t first, step, back;
	uint64_t end;
};

static void *run_loop(void *arg)
{
	struct pollfd fds[MANY];
	struct one *of[MANY];
	struct loop *l = arg;
	nfds_t n = 0;

	for (uint32_t i = l->first; i < MANY; i += l->step) {
		of[n] = &l->m->all[i];
		fds[n++] = (struct pollfd){.fd = libvhost_dev_fd(l->m->all[i].dev), .events = POLLIN};
	}
	for (l->back = 0; l->back < n && now_ms() < l->end;) {
		poll(fds, n, 100);
		l->back = 0;
		for (nfds_t i = 0; i < n; i++) {
			if (fds[i].revents)
				(void)libvhost_dev_dispatch(of[i]->dev, 0);
			l->back += state_of(of[i]) == LIBVHOST_DEV_NEGOTIATED;
		}
	}
	return NULL;
}

static void all_come_back(uint32_t threads)
{
	struct loop loop[THREADS];
	uint32_t back = 0;
	struct many m;
	uint64_t began;

	many_wait(&m);
	CHECK_EQ(open_inotifies(), 1);
	began = now_ms();
	for (uint32_t i = 0; i < threads; i++) {
		loop[i] = (struct loop){.m = &m, .first = i, .step = threads, .end = began + PATIENCE_MS};
		CHECK_EQ(pthread_create(&loop[i].thread, NULL, run_loop, &loop[i]), 0);
	}
	for (uint32_t i = 0; i < MANY; i++)
		puppet_listen(&m.all[i].p, m.all[i].path);
	for (uint32_t i = 0; i < threads; i++) {
		CHECK_EQ(pthread_join(loop[i].thread, NULL), 0);
		back += loop[i].back;
	}
	printf("# %u devices in %u threads: all back after %u ms\n", MANY, threads, (unsigned)(now_ms() - began));
	CHECK_EQ(back, MANY);
	CHECK_EQ(open_inotifies(), 0);
	many_end(&m);
}

TEST(user_late_many, one_loop)
{
	all_come_back(1);
}

TEST(user_late_many, several_threads)
{
	all_come_back(THREADS);
}

/* Half of them are cleaned up while they wait, by threads of their own; the others do not miss anything. */
static void *clean_up(void *arg)
{
	struct loop *l = arg;

	for (uint32_t i = l->first; i < MANY; i += l->step) {
		libvhost_dev_cleanup(l->m->all[i].dev);
		l->m->all[i].dev = NULL;
	}
	return NULL;
}

TEST(user_late_many, those_who_leave_do_not_disturb_the_others)
{
	struct loop loop[4];
	struct many m;

	many_wait(&m);
	for (uint32_t i = 0; i < 4; i++) {
		loop[i] = (struct loop){.m = &m, .first = i, .step = 4, .end = now_ms() + PATIENCE_MS};
		CHECK_EQ(pthread_create(&loop[i].thread, NULL, i % 2 ? run_loop : clean_up, &loop[i]), 0);
	}
	for (uint32_t i = 1; i < MANY; i += 2)
		puppet_listen(&m.all[i].p, m.all[i].path);
	for (uint32_t i = 0; i < 4; i++)
		CHECK_EQ(pthread_join(loop[i].thread, NULL), 0);
	CHECK_EQ(loop[1].back + loop[3].back, MANY / 2);
	many_end(&m);
}

/* ---- the folders by themselves ---- */

struct waiting {
	struct lv_folders f;
	struct lv_folder_wait a, b, c; /* a and b in one folder */
	int wake[3];
	char dir[2][40], path[3][64];
	uint64_t now, next;
};

static void make_file(const char *path)
{
	close(open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
}

static void waiting_init(struct waiting *w)
{
	memset(w, 0, sizeof(*w));
	w->now = 1000000000;
	lv_folders_init(&w->f);
	for (int i = 0; i < 2; i++) {
		strcpy(w->dir[i], "/tmp/libvhost-fold-XXXXXX");
		CHECK(mkdtemp(w->dir[i]));
	}
	for (int i = 0; i < 3; i++) {
		w->wake[i] = lv_eventfd();
		snprintf(w->path[i], sizeof(w->path[i]), "%s/%d", w->dir[i / 2], i);
	}
	CHECK_EQ(lv_folder_join(&w->f, &w->a, w->path[0], w->wake[0]), 0);
	CHECK_EQ(lv_folder_join(&w->f, &w->b, w->path[1], w->wake[1]), 0);
	CHECK_EQ(lv_folder_join(&w->f, &w->c, w->path[2], w->wake[2]), 0);
	CHECK_EQ(w->a.folder, w->b.folder);
	CHECK(w->a.folder != w->c.folder);
}

static uint32_t ask(struct waiting *w, struct lv_folder_wait *of)
{
	w->now += 1000000000;
	return lv_folder_ask(&w->f, of, w->now, &w->next);
}

static void waiting_end(struct waiting *w)
{
	for (int i = 0; i < 3; i++) {
		unlink(w->path[i]);
		lv_fd_close(w->wake[i]);
	}
	CHECK_EQ(w->f.fd, -1);
	lv_folders_destroy(&w->f);
	CHECK_EQ(rmdir(w->dir[0]), 0);
	CHECK_EQ(rmdir(w->dir[1]), 0);
}

TEST(user_late_many, who_reads_wakes_those_whom_it_concerns)
{
	struct waiting w;

	waiting_init(&w);
	make_file(w.path[1]);
	CHECK_EQ(ask(&w, &w.a), 0);
	CHECK(w.next != UINT64_MAX);
	CHECK(!lv_folder_polls(&w.a, w.now)); /* not more often than once in 10 ms */
	CHECK(lv_folder_polls(&w.a, w.next));
	CHECK(lv_folder_polls(&w.b, w.now)); /* was told nothing else */
	CHECK_EQ(lv_eventfd_drain(w.wake[0]), 0);
	CHECK_EQ(lv_eventfd_drain(w.wake[1]), 1);
	CHECK_EQ(lv_eventfd_drain(w.wake[2]), 0);
	CHECK_EQ(ask(&w, &w.b), LV_FOLDER_MADE);
	CHECK_EQ(w.next, UINT64_MAX);
	CHECK_EQ(ask(&w, &w.b), 0);
	CHECK(lv_folder_polls(&w.b, w.now));
	CHECK(!lv_folder_polls(&w.a, w.now - 2000000000));
	lv_folder_leave(&w.f, &w.a); /* b's folder is still watched */
	CHECK_EQ(chmod(w.path[1], 0700), 0);
	CHECK_EQ(ask(&w, &w.c), 0);
	CHECK_EQ(ask(&w, &w.b), LV_FOLDER_TOUCHED);
	lv_folder_leave(&w.f, &w.b);
	lv_folder_leave(&w.f, &w.c);
	waiting_end(&w);
}

TEST(user_late_many, a_folder_that_goes_concerns_only_those_in_it)
{
	char other[64];
	struct waiting w;

	waiting_init(&w);
	snprintf(other, sizeof(other), "%s-moved", w.dir[0]);
	CHECK_EQ(rename(w.dir[0], other), 0);
	CHECK_EQ(ask(&w, &w.c), 0);
	CHECK_EQ(lv_eventfd_drain(w.wake[0]), 1);
	CHECK_EQ(ask(&w, &w.a), LV_FOLDER_GONE);
	CHECK_EQ(ask(&w, &w.b), LV_FOLDER_GONE);
	lv_folder_leave(&w.f, &w.a);
	CHECK(lv_folder_join(&w.f, &w.a, w.path[0], w.wake[0]) < 0);
	CHECK_EQ(rename(other, w.dir[0]), 0);
	CHECK_EQ(lv_folder_join(&w.f, &w.a, w.path[0], w.wake[0]), 0);
	make_file(w.path[0]);
	make_file(w.path[2]);
	CHECK_EQ(ask(&w, &w.a), LV_FOLDER_MADE);
	CHECK_EQ(ask(&w, &w.b), 0);
	CHECK_EQ(ask(&w, &w.c), LV_FOLDER_MADE);
	lv_folder_leave(&w.f, &w.c);
	unlink(w.path[2]);
	CHECK_EQ(rmdir(w.dir[1]), 0);
	CHECK_EQ(ask(&w, &w.a), 0);
	CHECK_EQ(mkdir(w.dir[1], 0700), 0);
	lv_folder_leave(&w.f, &w.a);
	lv_folder_leave(&w.f, &w.b);
	waiting_end(&w);
}

/* The kernel drops events above max_queued_events (16384): everybody looks. */
TEST(user_late_many, lost_events_are_everybodys)
{
	struct waiting w;
	char path[64];

	waiting_init(&w);
	for (uint32_t i = 0; i < 16500; i++) {
		snprintf(path, sizeof(path), "%s/x%u", w.dir[0], i % 2);
		make_file(path);
		CHECK_EQ(unlink(path), 0);
	}
	make_file(w.path[2]); /* lost */
	while (!(ask(&w, &w.a) & LV_FOLDER_MADE))
		CHECK(w.next != UINT64_MAX);
	CHECK_EQ(ask(&w, &w.b), LV_FOLDER_MADE);
	CHECK_EQ(ask(&w, &w.c), LV_FOLDER_MADE);
	lv_folder_leave(&w.f, &w.a);
	lv_folder_leave(&w.f, &w.b);
	lv_folder_leave(&w.f, &w.c);
	waiting_end(&w);
}
