/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * See direct_stored.h. A hash of inodes under one lock, which is not held around calls of the file system.
 */
#include "daemon/direct_stored.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <time.h>

#include "util/log.h"
#include "util/sabotage.h"

#define BUCKETS 1024u

struct stored_ino {
	uint64_t ino;
	bool is_ready;
	uint32_t granting, stopping; /* grants that have begun; who waits for their end */
	uint64_t stops;
	struct stored_file *files;
	struct stored_ino *next;
};

struct stored {
	struct fs *fs;
	_Atomic uint32_t count; /* of inodes; also read without the lock */
	pthread_mutex_t lock;   /* of all that follows */
	pthread_cond_t granted;
	struct stored_ino *buckets[BUCKETS];
};

int stored_new(struct fs *fs, struct stored **out)
{
	struct stored *stored = calloc(1, sizeof(*stored));

	if (!stored)
		return -ENOMEM;
	stored->fs = fs;
	pthread_mutex_init(&stored->lock, NULL);
	pthread_cond_init(&stored->granted, NULL);
	*out = stored;
	return 0;
}

void stored_free(struct stored *stored)
{
	if (!stored)
		return;
	pthread_cond_destroy(&stored->granted);
	pthread_mutex_destroy(&stored->lock);
	free(stored);
}

/* Where it is, or would be. Under the lock. */
static struct stored_ino **ino_find(struct stored *stored, uint64_t ino)
{
	struct stored_ino **at = &stored->buckets[ino % BUCKETS];

	while (*at && (*at)->ino != ino)
		at = &(*at)->next;
	return at;
}

int stored_add(struct stored *stored, uint64_t ino, struct stored_file *file, struct stored_begun *begun)
{
	struct stored_ino **at, *fresh = calloc(1, sizeof(*fresh));

	if (!fresh)
		return -ENOMEM;
	pthread_mutex_lock(&stored->lock);
	at = ino_find(stored, ino);
	if (!*at) {
		fresh->ino = ino;
		*at = fresh;
		fresh = NULL;
		atomic_fetch_add(&stored->count, 1);
	}
	*begun = (struct stored_begun){ (*at)->is_ready, !file->of, (*at)->stops };
	(*at)->granting += begun->is_ready;
	if (!file->of) {
		file->of = *at;
		file->next = (*at)->files;
		(*at)->files = file;
	}
	pthread_mutex_unlock(&stored->lock);
	free(fresh);
	return 0;
}

bool stored_ready(struct stored *stored, struct stored_file *file, const struct stored_begun *begun)
{
	bool ready;

	pthread_mutex_lock(&stored->lock);
	ready = file->of && file->of->stops == begun->stops;
	if (ready) {
		file->of->is_ready = true;
		file->of->granting++;
	}
	pthread_mutex_unlock(&stored->lock);
	return ready;
}

/* It, to be freed, if nobody needs it any more. Under the lock. */
static struct stored_ino *ino_unused(struct stored *stored, struct stored_ino *ino)
{
	struct stored_ino **at;

	if (ino->files || ino->granting > 0 || ino->stopping > 0)
		return NULL;
	at = ino_find(stored, ino->ino);
	*at = ino->next;
	atomic_fetch_sub(&stored->count, 1);
	return ino;
}

/* What is to be freed, or NULL. Under the lock. */
static struct stored_ino *file_unlink(struct stored *stored, struct stored_file *file)
{
	struct stored_ino *of = file->of;
	struct stored_file **link;

	for (link = &of->files; *link != file; link = &(*link)->next)
		;
	*link = file->next;
	file->of = NULL;
	return ino_unused(stored, of);
}

void stored_granted(struct stored *stored, uint64_t ino)
{
	struct stored_ino *of;

	pthread_mutex_lock(&stored->lock);
	of = *ino_find(stored, ino);
	if (--of->granting == 0)
		pthread_cond_broadcast(&stored->granted);
	of = ino_unused(stored, of);
	pthread_mutex_unlock(&stored->lock);
	free(of);
}

bool stored_stop(struct stored *stored, uint64_t ino, const struct stored_file *only)
{
	struct stored_ino *of;
	bool stops;

	if (atomic_load(&stored->count) == 0)
		return false;
	pthread_mutex_lock(&stored->lock);
	of = *ino_find(stored, ino);
	stops = of && (!only || (of->files == only && !only->next));
	if (stops) {
		of->is_ready = false;
		of->stops++;
		of->stopping++;
		while (of->granting > 0 && !sabotage_point("stored-granting"))
			pthread_cond_wait(&stored->granted, &stored->lock);
		of->stopping--;
		of = ino_unused(stored, of);
	}
	pthread_mutex_unlock(&stored->lock);
	if (stops)
		free(of);
	return stops;
}

void stored_unready(struct stored *stored, uint64_t ino)
{
	struct stored_ino *of;

	if (atomic_load(&stored->count) == 0)
		return;
	pthread_mutex_lock(&stored->lock);
	of = *ino_find(stored, ino);
	if (of && !sabotage_point("stores-forbid")) {
		of->is_ready = false;
		of->stops++;
	}
	pthread_mutex_unlock(&stored->lock);
}

void stored_refused(struct stored *stored, struct stored_file *file, const struct stored_begun *begun)
{
	struct stored_ino *empty = NULL;

	pthread_mutex_lock(&stored->lock);
	if (begun->is_new && file->of && !file->of->is_ready)
		empty = file_unlink(stored, file);
	pthread_mutex_unlock(&stored->lock);
	free(empty);
}

bool stored_has(struct stored *stored, uint64_t ino)
{
	bool found;

	if (atomic_load(&stored->count) == 0)
		return false;
	pthread_mutex_lock(&stored->lock);
	found = *ino_find(stored, ino) != NULL;
	pthread_mutex_unlock(&stored->lock);
	return found;
}

bool stored_is_any(struct stored *stored)
{
	return atomic_load(&stored->count) > 0;
}

/* ---- times ---- */

enum { MARK_STORED = 1, MARK_BY_USER = 2 };
/* In a slot: the times are about to be moved. If we end before they are the process says it again to the next daemon. */
#define SLOT_TAKEN 2u

static unsigned mark_take(struct stored_file *file)
{
	/* The slot is the process's too: nothing in it is believed but that it is not zero. */
	if (__atomic_load_n(&file->slot->stored, __ATOMIC_RELAXED) == 0 ||
	    __atomic_exchange_n(&file->slot->stored, SLOT_TAKEN, __ATOMIC_ACQ_REL) == 0)
		return 0;
	return file->is_root ? MARK_STORED : MARK_STORED | MARK_BY_USER;
}

/* They have been moved; what has been stored since is marked anew. */
static void marks_done(struct stored *stored, uint64_t ino)
{
	struct stored_ino *found;

	pthread_mutex_lock(&stored->lock);
	found = *ino_find(stored, ino);
	for (struct stored_file *file = found ? found->files : NULL; file; file = file->next) {
		__u64 taken = SLOT_TAKEN;

		(void)__atomic_compare_exchange_n(&file->slot->stored, &taken, 0, false, __ATOMIC_ACQ_REL,
						  __ATOMIC_RELAXED);
	}
	pthread_mutex_unlock(&stored->lock);
}

/* As a write does it. */
static void times_move(struct stored *stored, uint64_t ino, unsigned marks)
{
	struct fs_cred cred = { .kill_priv_exempt = !(marks & MARK_BY_USER) };
	struct fs_set set = { .what = FS_SET_MTIME };
	struct inode_attr attr;
	struct timespec now;
	int rc;

	if (!(marks & MARK_STORED))
		return;
	if (marks & MARK_BY_USER)
		set.what |= FS_SET_KILLPRIV;
	clock_gettime(CLOCK_REALTIME, &now);
	set.mtime = (struct inode_time){ .s = now.tv_sec, .ns = (uint32_t)now.tv_nsec };
	rc = fs_setattr(stored->fs, &cred, ino, &set, &attr);
	if (rc == 0)
		rc = fs_removexattr(stored->fs, ino, "security.capability");
	if (rc && rc != -ENODATA && rc != -ESTALE)
		log_debug("times of inode %llu: error %d", (unsigned long long)ino, -rc);
}

void stored_look(struct stored *stored, uint64_t ino)
{
	struct stored_ino *found;
	unsigned marks = 0;

	if (atomic_load(&stored->count) == 0)
		return;
	pthread_mutex_lock(&stored->lock);
	found = *ino_find(stored, ino);
	for (struct stored_file *file = found ? found->files : NULL; file; file = file->next)
		marks |= mark_take(file);
	pthread_mutex_unlock(&stored->lock);
	times_move(stored, ino, marks);
	if (marks)
		marks_done(stored, ino);
}

/* One to be moved. */
struct mark {
	uint64_t ino;
	unsigned what;
};

/* Takes all marks there are. */
static size_t marks_take(struct stored *stored, struct mark *marks, size_t max)
{
	size_t count = 0;

	pthread_mutex_lock(&stored->lock);
	for (unsigned b = 0; b < BUCKETS && count < max; b++) {
		for (struct stored_ino *i = stored->buckets[b]; i && count < max; i = i->next) {
			marks[count] = (struct mark){ .ino = i->ino };
			for (struct stored_file *file = i->files; file; file = file->next)
				marks[count].what |= mark_take(file);
			count += marks[count].what != 0;
		}
	}
	pthread_mutex_unlock(&stored->lock);
	return count;
}

void stored_look_all(struct stored *stored)
{
	size_t max = atomic_load(&stored->count), count = 0;
	struct mark *marks = max ? calloc(max, sizeof(*marks)) : NULL;

	if (marks)
		count = marks_take(stored, marks, max);
	for (size_t i = 0; i < count; i++) {
		times_move(stored, marks[i].ino, marks[i].what);
		marks_done(stored, marks[i].ino);
	}
	free(marks);
}

void stored_remove(struct stored *stored, uint64_t ino, struct stored_file *file)
{
	struct stored_ino *empty = NULL;

	/* While the kernel still keeps no attributes. */
	stored_look(stored, ino);
	pthread_mutex_lock(&stored->lock);
	if (file->of)
		empty = file_unlink(stored, file);
	pthread_mutex_unlock(&stored->lock);
	free(empty);
}
