/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
#include "core/folders.h"

#include <errno.h>
#include <string.h>
#include <sys/inotify.h>
#include <unistd.h>
#include "core/wire.h"

#define LOOK_NS	      10000000u /* least time between two reads of busy folders */
#define LOOKS_SPREAD  20u	/* with many who wait, each looks at its own of so many moments */
#define FOLDER_EVENTS (IN_CREATE | IN_MOVED_TO | IN_ATTRIB | IN_MOVE_SELF | IN_ONLYDIR)
#define FOLDER_GONE   (IN_IGNORED | IN_UNMOUNT | IN_MOVE_SELF)
#define FILE_MADE     (IN_CREATE | IN_MOVED_TO)

void lv_folders_init(struct lv_folders *f)
{
	*f = (struct lv_folders){.fd = -1, .quiet = true};
	pthread_mutex_init(&f->lock, NULL);
}

void lv_folders_destroy(struct lv_folders *f)
{
	pthread_mutex_destroy(&f->lock);
}

static bool others_watch(const struct lv_folders *f, const struct lv_folder_wait *w)
{
	for (const struct lv_folder_wait *o = f->waits; o; o = o->next)
		if (o != w && o->folder == w->folder)
			return true;
	return false;
}

/* Lock held. */
static int watch(struct lv_folders *f, const char *folder)
{
	int wd;

	if (f->fd < 0) {
		f->fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
		f->quiet = true;
		f->read_at = 0;
	}
	if (f->fd < 0)
		return -errno;
	wd = inotify_add_watch(f->fd, folder, FOLDER_EVENTS); /* the same folder has the same number */
	return wd < 0 ? -errno : wd;
}

/* Lock held. */
static void close_unused(struct lv_folders *f)
{
	if (f->waits)
		return;
	lv_fd_close(f->fd);
	f->fd = -1;
}

int lv_folder_join(struct lv_folders *f, struct lv_folder_wait *w, const char *path, int wake_fd)
{
	const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;
	char folder[LV_FOLDER_NAME] = ".";
	int wd;

	if (strlen(path) >= sizeof(folder))
		return -ENAMETOOLONG;
	if (slash) {
		memcpy(folder, path, (size_t)(name - path));
		folder[name - path] = 0;
	}
	pthread_mutex_lock(&f->lock);
	wd = watch(f, folder);
	if (wd >= 0) {
		*w = (struct lv_folder_wait){.next = f->waits, .fd = f->fd, .folder = wd, .wake_fd = wake_fd};
		w->number = f->numbers++;
		w->next_at = UINT64_MAX;
		strcpy(w->name, name);
		f->waits = w;
		f->count++;
	} else {
		close_unused(f);
	}
	pthread_mutex_unlock(&f->lock);
	return wd < 0 ? wd : 0;
}

void lv_folder_leave(struct lv_folders *f, struct lv_folder_wait *w)
{
	struct lv_folder_wait **at = &f->waits;

	pthread_mutex_lock(&f->lock);
	while (*at != w)
		at = &(*at)->next;
	*at = w->next;
	f->count--;
	if (w->folder >= 0 && !others_watch(f, w))
		inotify_rm_watch(f->fd, w->folder);
	close_unused(f);
	pthread_mutex_unlock(&f->lock);
	w->fd = w->folder = -1;
}

static void tell(struct lv_folder_wait *w, uint32_t news, const struct lv_folder_wait *reader)
{
	w->news |= news;
	if (w != reader)
		lv_eventfd_signal(w->wake_fd);
}

static uint32_t news_of(const struct lv_folder_wait *w, const struct inotify_event *e)
{
	if (e->mask & IN_Q_OVERFLOW)
		return LV_FOLDER_MADE;
	if (e->wd != w->folder)
		return 0;
	if (e->mask & FOLDER_GONE)
		return LV_FOLDER_GONE;
	if (!e->len || strcmp(e->name, w->name))
		return 0;
	return e->mask & FILE_MADE ? LV_FOLDER_MADE : LV_FOLDER_TOUCHED;
}

/* A folder that was moved is still watched, under another path. */
static void take_event(struct lv_folders *f, const struct inotify_event *e, const struct lv_folder_wait *reader)
{
	if (e->mask & IN_MOVE_SELF)
		inotify_rm_watch(f->fd, e->wd);
	for (struct lv_folder_wait *w = f->waits; w; w = w->next) {
		const uint32_t news = news_of(w, e);

		if (news)
			tell(w, news, reader);
		if (news & LV_FOLDER_GONE)
			w->folder = -1; /* its number is free for another one */
	}
}

/* Empties the descriptor, as far as one read goes. */
static void read_events(struct lv_folders *f, const struct lv_folder_wait *reader)
{
	_Alignas(struct inotify_event) char buf[8192];
	const struct inotify_event *e;
	ssize_t n;

	do
		n = read(f->fd, buf, sizeof(buf));
	while (n < 0 && errno == EINTR);
	f->quiet = n <= 0;
	for (ssize_t at = 0; at < n; at += (ssize_t)(sizeof(*e) + e->len)) {
		e = (const void *)(buf + at);
		take_event(f, e, reader);
	}
}

/* When it is this one's turn to read in busy folders. */
static uint64_t turn(const struct lv_folders *f, const struct lv_folder_wait *w)
{
	const uint32_t spread = f->count < LOOKS_SPREAD ? f->count : LOOKS_SPREAD;

	return f->read_at + LOOK_NS * (uint64_t)(1 + w->number % spread);
}

uint32_t lv_folder_ask(struct lv_folders *f, struct lv_folder_wait *w, uint64_t now, uint64_t *next)
{
	uint32_t news;

	pthread_mutex_lock(&f->lock);
	if (f->quiet || now >= f->read_at + LOOK_NS) {
		f->read_at = now;
		read_events(f, w);
	}
	news = w->news;
	w->news = 0;
	*next = w->next_at = f->quiet ? UINT64_MAX : turn(f, w);
	pthread_mutex_unlock(&f->lock);
	return news;
}

/* As the waiter was told, not as it is by now: what he has neither in his wait nor a time for would be lost. */
bool lv_folder_polls(const struct lv_folder_wait *w, uint64_t now)
{
	return w->fd >= 0 && (w->next_at == UINT64_MAX || now >= w->next_at);
}
