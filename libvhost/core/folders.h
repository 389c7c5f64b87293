/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/*
 * Waiting for files to appear. A user has 128 inotify instances or so, so that all who wait in a context share one: its
 * descriptor is in the wait of each of them, whoever comes first reads for all, and wakes those whom it concerns.
 * It exists while somebody waits. At most one read in 10 ms, however busy the folders are.
 */
#ifndef LV_CORE_FOLDERS_H
#define LV_CORE_FOLDERS_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#define LV_FOLDER_NAME 108u

enum {
	LV_FOLDER_TOUCHED = 1, /* something happened to the file */
	LV_FOLDER_MADE = 2,    /* it was made or moved there, or events were lost */
	LV_FOLDER_GONE = 4     /* the folder is not what it was: leave, and join again */
};

/* One who waits. The caller's memory, from join to leave. */
struct lv_folder_wait {
	struct lv_folder_wait *next;
	int fd;	     /* inotify; -1 = does not wait */
	int folder;  /* watch descriptor, -1 = gone */
	int wake_fd; /* eventfd, signalled when another one read what concerns this one */
	uint32_t number, news;
	uint64_t next_at; /* when to ask though fd is not ready; UINT64_MAX = not, and fd is waited for. The waiter's */
	char name[LV_FOLDER_NAME];
};

struct lv_folders {
	pthread_mutex_t lock;
	int fd;
	struct lv_folder_wait *waits;
	uint32_t count, numbers;
	uint64_t read_at; /* the last time, and whether there was nothing */
	bool quiet;
};

void lv_folders_init(struct lv_folders *f);
void lv_folders_destroy(struct lv_folders *f);

/* Waits for the file at path. 0, or why it cannot be waited for: no such folder, no inotify left. */
int lv_folder_join(struct lv_folders *f, struct lv_folder_wait *w, const char *path, int wake_fd);
/* The caller has taken w->fd out of his own epoll sets before. */
void lv_folder_leave(struct lv_folders *f, struct lv_folder_wait *w);
/* LV_FOLDER_* since the last time. *next: when to ask again although w->fd is not ready, UINT64_MAX = not. */
uint32_t lv_folder_ask(struct lv_folders *f, struct lv_folder_wait *w, uint64_t now, uint64_t *next);
/* Whether w->fd belongs into a wait at present. */
bool lv_folder_polls(const struct lv_folder_wait *w, uint64_t now);

#endif
