/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What the kernel is told to drop. See ops.h.
 */
#include <pthread.h>
#include <stdatomic.h>
#include <time.h>
#include <unistd.h>

#include "fuse/ops.h"
#include "fuse/session.h"

#define STEP_NS 1000000

/*
 * A thread in the kernel that waits there for an answer does not end when its process does, and nobody takes over from a process that has not ended. So
 * before one that makes room for another stops answering, all such threads are out. Those that come then are of requests that are asked again.
 */
static void telling_begin(struct session *session)
{
	atomic_fetch_add(&session->tellings, 1);
	if (!atomic_load(&session->is_quiet))
		return;
	atomic_fetch_sub(&session->tellings, 1);
	for (;;)
		pause();
}

struct notice {
	struct defer_work work;
	struct session *session;
	uint64_t ino; /* of the folder, if there is a name */
	const char *name;
	off_t off, len;
	int rc;
	pthread_mutex_t lock;
	pthread_cond_t over;
	bool is_over; /* (lock) */
};

static int tell(const struct notice *t)
{
	if (t->name)
		return fuse_lowlevel_notify_inval_entry(t->session->se, t->ino, t->name, (size_t)t->len);
	return fuse_lowlevel_notify_inval_inode(t->session->se, t->ino, t->off, t->len);
}

static void tell_deferred(struct defer_work *work)
{
	struct notice *t = container_of(work, struct notice, work);

	t->rc = tell(t);
	pthread_mutex_lock(&t->lock);
	t->is_over = true;
	pthread_cond_signal(&t->over);
	pthread_mutex_unlock(&t->lock);
}

/*
 * If the process is killed meanwhile that thread stays, and with it all descriptors that it has: processes would not hear of the end of their sockets, and the next one would find the pool locked.
 */
static void tell_by_other(struct notice *t)
{
	pthread_mutex_init(&t->lock, NULL);
	pthread_cond_init(&t->over, NULL);
	if (defer_add(t->session->tellers, &t->work)) {
		pthread_mutex_lock(&t->lock);
		while (!t->is_over)
			pthread_cond_wait(&t->over, &t->lock);
		pthread_mutex_unlock(&t->lock);
	} else {
		t->rc = tell(t);
	}
	pthread_cond_destroy(&t->over);
	pthread_mutex_destroy(&t->lock);
}

static int notice_give(struct notice *t)
{
	telling_begin(t->session);
	if (t->session->tellers)
		tell_by_other(t);
	else
		t->rc = tell(t);
	atomic_fetch_sub(&t->session->tellings, 1);
	return t->rc;
}

int session_drop(struct session *session, uint64_t ino, off_t off, off_t len)
{
	struct notice t = {
		.work = { .fn = tell_deferred }, .session = session, .ino = ino, .off = off, .len = len
	};

	/* Attributes alone: this waits for nothing, and workers do it too, who have to answer. */
	return off < 0 ? tell(&t) : notice_give(&t);
}

int session_drop_name(struct session *session, uint64_t dir, const char *name, size_t len)
{
	struct notice t = { .work = { .fn = tell_deferred },
			    .session = session,
			    .ino = dir,
			    .name = name,
			    .len = (off_t)len };

	return notice_give(&t);
}

void tellings_end(struct session *session)
{
	const struct timespec a_moment = { 0, STEP_NS };

	atomic_store(&session->is_quiet, true);
	/* The workers answer meanwhile, so this ends; or the kernel has closed the connection. */
	while (atomic_load(&session->tellings) > 0)
		nanosleep(&a_moment, NULL);
}
