/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What befalls metadata units while the file system is in use, for the log, with the path of the file that it belongs to. Noted where it
 * happens, with locks held; written by the background thread, which can look for paths.
 */
#include <stdlib.h>
#include <string.h>

#include "fs/core.h"
#include "util/log.h"

#define PATH_BYTES 4096u
#define EVENTS_MAX 64u /* more at once are told without a path */

struct fs_event {
	struct cds_list_head link;
	uint64_t laddr, owner;
	bool lost;
	char what[256];
};

static void event_note(void *arg, const struct pool_event *event)
{
	struct fs *fs = arg;
	struct fs_event *e = NULL;

	pthread_mutex_lock(&fs->work_lock);
	if (fs->worker_runs && fs->event_count < EVENTS_MAX && event->owner != 0 &&
	    !(event->owner & OWNER_SPECIAL))
		e = malloc(sizeof(*e));
	if (e) {
		e->laddr = event->laddr;
		e->owner = event->owner;
		e->lost = event->lost;
		strncpy(e->what, event->what, sizeof(e->what) - 1);
		e->what[sizeof(e->what) - 1] = '\0';
		cds_list_add_tail(&e->link, &fs->events);
		fs->event_count++;
		work_wake(fs);
	}
	pthread_mutex_unlock(&fs->work_lock);
	if (!e)
		pool_event_log(event, NULL);
}

void events_open(struct fs *fs)
{
	CDS_INIT_LIST_HEAD(&fs->events);
	pool_on_event(fs->pool, event_note, fs);
}

void events_close(struct fs *fs)
{
	pool_on_event(fs->pool, NULL, NULL);
	events_tell(fs);
}

static struct fs_event *event_take(struct fs *fs)
{
	struct fs_event *e = NULL;

	pthread_mutex_lock(&fs->work_lock);
	if (!cds_list_empty(&fs->events)) {
		e = cds_list_first_entry(&fs->events, struct fs_event, link);
		cds_list_del(&e->link);
		fs->event_count--;
	}
	pthread_mutex_unlock(&fs->work_lock);
	return e;
}

void events_tell(struct fs *fs)
{
	char path[PATH_BYTES];
	struct fs_event *e;

	while ((e = event_take(fs))) {
		struct pool_event event = { e->laddr, e->owner, e->lost, e->what };

		pool_event_log(&event, fs_path(fs, e->owner, path, sizeof(path)) ? NULL : path);
		free(e);
	}
}
