/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/*
 * Noticing a socket that comes late. While nobody answers, the context's inotify descriptor (core/folders.h) is among
 * the transport's descriptors. It mostly says "look": what counts is whether the file is another one than at the last
 * attempt. A file that is new and refuses is between bind and listen and is tried again soon, for a bounded time. Where
 * the folder cannot be watched (missing, inotify used up, network file systems) the caller's pauses are what is left.
 */
#include "transport/user.h"

#include <errno.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define QUICK_FIRST_NS	 50000u /* between bind and listen */
#define QUICK_LONGEST_NS 10000000u
#define QUICK_TIME_NS	 1000000000u /* so long may a peer take from bind to listen */
#define NEVER		 UINT64_MAX

void lv_user_watch_init(struct lv_user_watch *w)
{
	*w = (struct lv_user_watch){.folder = {.fd = -1}, .quick_at = NEVER};
}

void lv_user_watch_close(struct lv_user *u)
{
	if (u->watch.folder.fd >= 0) {
		lv_transport_unwatch(u->t, u->watch.folder.fd);
		lv_folder_leave(&u->t->ctx->folders, &u->watch.folder);
	}
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

/* Whether it was not armed before. */
static bool arm(struct lv_user *u)
{
	struct lv_user_watch *w = &u->watch;

	if (w->folder.fd >= 0 || w->refused || u->listens)
		return false;
	if (lv_folder_join(&u->t->ctx->folders, &w->folder, u->path, u->t->cancel_fd)) {
		w->folder.fd = -1;
		w->refused = true; /* asked again after the next attempt */
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
	u->t->look_at = w->folder.fd >= 0 || u->listens ? w->quick_at : now; /* whoever goes on waiting arms it */
}

/* What is known of the folder since the last time; *next: when to ask again. */
static uint32_t ask_folder(struct lv_user *u, uint64_t now, uint64_t *next)
{
	uint32_t news;

	if (u->watch.folder.fd < 0)
		return 0;
	news = lv_folder_ask(&u->t->ctx->folders, &u->watch.folder, now, next);
	if (news & LV_FOLDER_GONE) {
		lv_user_watch_close(u);
		arm(u);
		*next = NEVER;
	}
	return news;
}

bool lv_user_watch_news(struct lv_user *u)
{
	struct lv_user_watch *w = &u->watch;
	const uint64_t now = lv_now(u->t->ctx);
	const bool fresh = arm(u);
	struct lv_user_file file;
	uint64_t next = NEVER;
	uint32_t news = ask_folder(u, now, &next);
	const bool soon = now >= w->quick_at;

	u->t->look_at = next < w->quick_at ? next : w->quick_at;
	if (next != NEVER && !news && !fresh && !soon)
		return false; /* folders are busy, with other files */
	/* made anew within one tick of the clock that stamps files, it may even have the same number */
	if (news & LV_FOLDER_MADE)
		w->tried = (struct lv_user_file){0};
	file = file_at(u->path);
	if (file.ino && (soon || !same_file(&file, &w->tried)))
		return true;
	if (!file.ino)
		u->t->look_at = next;
	return false;
}

int lv_user_watch_fd(const struct lv_user *u)
{
	const struct lv_user_watch *w = &u->watch;

	return lv_folder_polls(&w->folder, lv_now(u->t->ctx)) ? w->folder.fd : -1;
}

void lv_user_watch_wait(struct lv_user *u, uint64_t until)
{
	struct pollfd p[] = {{.fd = u->listens ? u->listener : lv_user_watch_fd(u), .events = POLLIN},
			     {.fd = u->t->cancel_fd, .events = POLLIN}};
	const uint64_t now = lv_now(u->t->ctx), end = u->t->look_at < until ? u->t->look_at : until;
	const uint64_t left = end > now ? end - now : 0;

	ppoll(p, 2, &(struct timespec){.tv_sec = (time_t)(left / 1000000000u), .tv_nsec = (long)(left % 1000000000u)},
	      NULL);
	if (p[1].revents)
		lv_eventfd_drain(u->t->cancel_fd); /* no program runs that could be cancelled */
}
