/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What the kernel is told to drop. See ops.h.
 */
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

int session_drop(struct session *session, uint64_t ino, off_t off, off_t len)
{
	int rc;

	/* Attributes alone: this waits for nothing, and workers do it too, who have to answer. */
	if (off < 0)
		return fuse_lowlevel_notify_inval_inode(session->se, ino, off, len);
	telling_begin(session);
	rc = fuse_lowlevel_notify_inval_inode(session->se, ino, off, len);
	atomic_fetch_sub(&session->tellings, 1);
	return rc;
}

int session_drop_name(struct session *session, uint64_t dir, const char *name, size_t len)
{
	int rc;

	telling_begin(session);
	rc = fuse_lowlevel_notify_inval_entry(session->se, dir, name, len);
	atomic_fetch_sub(&session->tellings, 1);
	return rc;
}

void tellings_end(struct session *session)
{
	const struct timespec a_moment = { 0, STEP_NS };

	atomic_store(&session->is_quiet, true);
	/* The workers answer meanwhile, so this ends; or the kernel has closed the connection. */
	while (atomic_load(&session->tellings) > 0)
		nanosleep(&a_moment, NULL);
}
