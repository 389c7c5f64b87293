/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/*
 * Noticing a socket that comes late. While nobody answers, an inotify descriptor on the socket's folder is among the
 * transport's descriptors. It mostly says "look": what counts is whether the file is another one than at the last
 * attempt. A file that is new and refuses is between bind and listen and is tried again soon, for a bounded time. Where
 * the folder cannot be watched (missing, inotify used up, network file systems) the caller's pauses are what is left.
 */
#include "transport/user.h"

#include <errno.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define LOOK_NS		 10000000u /* least time between two looks in a busy folder */
#define QUICK_FIRST_NS	 50000u	   /* between bind and listen */
#define QUICK_LONGEST_NS 10000000u
#define QUICK_TIME_NS	 1000000000u /* so long may a peer take from bind to listen */
#define NEVER		 UINT64_MAX

#define FOLDER_EVENTS (IN_CREATE | IN_MOVED_TO | IN_ATTRIB | IN_ONLYDIR)
#define FOLDER_GONE   (IN_IGNORED | IN_UNMOUNT | IN_MOVE_SELF)

void lv_user_watch_init(struct lv_user_watch *w)
{
	*w = (struct lv_user_watch){.fd = -1, .quiet = true, .quick_at = NEVER};
}

void lv_user_watch_close(struct lv_user *u)
{
	lv_user_close_fd(u, &u->watch.fd);
	u->watch.quiet = true;
	u->watch.refused = false;
	u->watch.quick_at = u->t->look_at = NEVER;
}

static struct lv_user_file file_at(const char *path)
{
	struct lv_user_file f = {0};
	struct stat st;

	if (!stat(path, &st))
		f = (struct lv_user_file){st.st_dev, st.st_ino, st.st_ctim.tv_sec, st.st_ctim.tv_nsec};
	return f;
}

static bool same_file(const struct lv_user_file *a, const struct lv_user_file *b)
{
	return a->dev == b->dev && a->ino == b->ino && a->seconds == b->seconds && a->ns == b->ns;
}

/* The folder of the socket, watched. -1: it cannot be. */
static int watch_folder(const char *path)
{
	const char *slash = strrchr(path, '/');
	char folder[LV_USER_PATH] = ".";
	int fd;

	if (slash) {
		memcpy(folder, path, (size_t)(slash - path) + 1);
		folder[slash - path + 1] = 0;
	}
	fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
	if (fd >= 0 && inotify_add_watch(fd, folder, FOLDER_EVENTS | IN_MOVE_SELF) < 0) {
		lv_fd_close(fd);
		fd = -1;
	}
	return fd;
}

static void arm(struct lv_user *u)
{
	struct lv_user_watch *w = &u->watch;

	if (w->fd >= 0 || w->refused || u->listens)
		return;
	w->fd = watch_folder(u->path);
	w->refused = w->fd < 0; /* asked again after the next attempt */
}

static const char *name_in_folder(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash ? slash + 1 : path;
}

/* Empties the descriptor, as far as one read goes. False: the folder is not what it was. */
static bool drain(struct lv_user *u)
{
	struct lv_user_watch *w = &u->watch;
	_Alignas(struct inotify_event) char buf[8192];
	const struct inotify_event *e;
	ssize_t n;

	do
		n = read(w->fd, buf, sizeof(buf));
	while (n < 0 && errno == EINTR);
	w->quiet = n <= 0;
	for (ssize_t at = 0; at < n; at += (ssize_t)(sizeof(*e) + e->len)) {
		e = (const void *)(buf + at);
		if (e->mask & FOLDER_GONE)
			return false;
		/* made anew within one tick of the clock that stamps files, it may even have the same number */
		if (e->mask & IN_Q_OVERFLOW ||
		    (e->mask & (IN_CREATE | IN_MOVED_TO) && e->len && !strcmp(e->name, name_in_folder(u->path))))
			w->tried = (struct lv_user_file){0};
	}
	return true;
}

void lv_user_watch_before(struct lv_user *u)
{
	u->watch.now = file_at(u->path);
}

void lv_user_watch_reached(struct lv_user *u)
{
	u->watch.tried = u->watch.now;
	lv_user_watch_close(u);
}

/* Whether a socket that refuses is between bind and listen, and when to ask it again. */
static void ask_soon(struct lv_user_watch *w, bool another, uint64_t now)
{
	w->quick_at = NEVER;
	if (another) {
		if (now >= w->quick_until)
			w->quick_ns = QUICK_FIRST_NS;
		w->quick_until = now + QUICK_TIME_NS;
	}
	if (now >= w->quick_until)
		return;
	w->quick_at = now + w->quick_ns;
	w->quick_ns = w->quick_ns * 2 < QUICK_LONGEST_NS ? w->quick_ns * 2 : QUICK_LONGEST_NS;
}

void lv_user_watch_missed(struct lv_user *u, int rc)
{
	struct lv_user_watch *w = &u->watch;
	const bool another = w->now.ino && !same_file(&w->now, &w->tried);
	const uint64_t now = lv_now(u->t->ctx);

	w->tried = w->now;
	w->refused = false;
	w->quick_at = NEVER;
	if (rc == -ECONNREFUSED)
		ask_soon(w, another, now);
	u->t->look_at = w->fd >= 0 || u->listens ? w->quick_at : now; /* whoever goes on waiting arms it */
}

bool lv_user_watch_news(struct lv_user *u)
{
	struct lv_user_watch *w = &u->watch;
	const uint64_t now = lv_now(u->t->ctx);
	struct lv_user_file file;

	arm(u);
	if (!w->quiet && now < w->looked + LOOK_NS) {
		u->t->look_at = w->looked + LOOK_NS; /* the folder is busy: not more often */
		return false;
	}
	w->looked = now;
	if (w->fd >= 0 && !drain(u)) {
		lv_user_watch_close(u);
		arm(u);
	}
	u->t->look_at = w->quiet ? NEVER : now + LOOK_NS;
	file = file_at(u->path);
	if (file.ino && (!same_file(&file, &w->tried) || now >= w->quick_at))
		return true;
	if (file.ino && w->quick_at < u->t->look_at)
		u->t->look_at = w->quick_at;
	return false;
}

bool lv_user_watch_polls(const struct lv_user *u)
{
	return u->watch.fd >= 0 && (u->watch.quiet || lv_now(u->t->ctx) >= u->watch.looked + LOOK_NS);
}

void lv_user_watch_wait(struct lv_user *u, uint64_t until)
{
	struct pollfd p = {.fd = u->listens		  ? u->listener
				 : lv_user_watch_polls(u) ? u->watch.fd
							  : -1,
			   .events = POLLIN};
	const uint64_t now = lv_now(u->t->ctx), end = u->t->look_at < until ? u->t->look_at : until;
	const uint64_t left = end > now ? end - now : 0;

	ppoll(&p, 1, &(struct timespec){.tv_sec = (time_t)(left / 1000000000u), .tv_nsec = (long)(left % 1000000000u)},
	      NULL);
}
