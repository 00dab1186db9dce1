/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The registry of direct mappings: which session has which pieces of which file (shadows), how many have which blocks of the device (masters), and how they
 * are asked to let go. See the decision *direct mappings*. It stands between the file system, which asks (fs/holders.h), and whoever talks to the processes.
 *
 *	shadow		(session, inode, file range) -> device range or hole, rights. Ordered by file block in each holding
 *	master		device range -> how many shadows are on it. Ordered by device block
 *	holding		what one session has of one file: its shadows; never overlapping
 *	quarantine	blocks that are free on media, but have a master still
 *
 * Locks: session->order (taken first; held from a grant until its answer is on the way, and around a revoke, so that messages of a session keep the order of what
 * happened), then the inode's lock inside fs_grant(), then the registry's own, which are held for moments and never around a call of anybody else.
 */
#ifndef UMBRA_REGISTRY_REGISTRY_H
#define UMBRA_REGISTRY_REGISTRY_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include <time.h>

#include "fs/holders.h"
#include "util/util.h"

struct registry;
struct session;
struct holding;

struct registry_opts {
	unsigned revoke_ms;    /* how long one waits for an answer; 0: REGISTRY_REVOKE_MS */
	uint64_t shadows_max;  /* of one session; 0: REGISTRY_SHADOWS_MAX */
	uint32_t holdings_max; /* of one session; 0: REGISTRY_HOLDINGS_MAX */
	/* Of all sessions of one user, but of root's: so many times as much. 0: REGISTRY_USER_TIMES */
	unsigned user_times;
};
#define REGISTRY_REVOKE_MS 5000u
#define REGISTRY_SHADOWS_MAX (1ull << 20)
#define REGISTRY_HOLDINGS_MAX 65536u
#define REGISTRY_USER_TIMES 8u /* half a GB of memory */

/* Sets itself as the holders of fs. */
must_check int registry_open(struct fs *fs, const struct registry_opts *opts, struct registry **out);
/* All sessions have ended, none is waited for. */
void registry_close(struct registry *r);

/* ---- sessions ---- */

/* A message that the session is to let go of [lo_blk, hi_blk) of a file, and answer with registry_ack(id). */
struct revoke {
	uint64_t id;
	uint32_t handle;
	uint64_t lo_blk, hi_blk;
	bool write_only; /* it may go on reading what it has */
};
struct session_ops {
	/* Sends it without waiting; under the session's order lock. An error: it cannot be reached, which is as no answer. */
	int (*revoke)(void *arg, const struct revoke *revoke);
	/*
	 * Both or none may be NULL. Between them nobody but the caller reads what it sends; false: somebody else is at it. hear() takes answers until that to the revoke of this id has come, until the
	 * time is over, or something else comes, which it leaves for whoever reads otherwise. No lock held.
	 */
	bool (*listen)(void *arg);
	void (*hear)(void *arg, uint64_t id, const struct timespec *until);
	/* Whether it has sent something that nobody has read yet. No lock held. May be NULL. */
	bool (*unread)(void *arg);
	/* Whether its process has come to its end, or is about to. No lock held. May be NULL. */
	bool (*gone)(void *arg);
	/* It did not answer in time, or could not be reached: nobody waits for it any more, nothing is granted to it. Once. No lock held. Ends no session. */
	void (*lost)(void *arg);
};
struct session_who {
	pid_t pid;
	uid_t uid;
	bool write; /* may have pieces to store to */
};
/*
 * -ENOMEM. -EBUSY: a session of this user has let others wait for revoke_ms within the last minute (never root's); until then nobody waits long for those that he has either.
 */
must_check int session_new(struct registry *r, const struct session_who *who, const struct session_ops *ops,
			   void *arg, struct session **out);
/*
 * Nobody is there any more who would answer, or use what it is granted: a grant that waits for a change, which waits for just that answer, ends. session_end() follows when no call for it is
 * under way.
 */
void session_grants_end(struct session *s);
/*
 * It has ended; no other call for it is under way, ops are not called any more once this returns. clean: it has no mapping left (it said so): its shadows go. Otherwise they stay, orphans, until
 * registry_reap() finds its process gone.
 */
void session_end(struct session *s, bool clean);
uint64_t session_id(const struct session *s);
/*
 * Orphans whose process is gone: gone(arg, pid) says so. stored(arg, ino): one of them could store to the file until now; registry_is_stored() is still true of it. May be
 * NULL. Returns how many sessions are left of them.
 */
unsigned registry_reap(struct registry *r, bool (*gone)(void *arg, pid_t pid),
		       void (*stored)(void *arg, uint64_t ino), void *arg);

/* ---- what a session asks for ---- */

/*
 * It may have the file from here on, under a handle (from 1 on). write: its descriptor is open for writing. A file that it has already: the same handle, which
 * may store from then on if either may, and is to be detached as often. -EMFILE, -ESTALE, -ENOTCONN, -ENOMEM.
 */
must_check int session_attach(struct session *s, uint64_t ino, bool write, uint32_t *handle);
/* And its shadows there go. -EBADF. */
must_check int session_detach(struct session *s, uint32_t handle);

struct grant {
	uint32_t handle;
	uint64_t lo_blk, hi_blk;
	bool write;   /* to be stored to: made storable first (copied, filled) */
	bool release; /* the session has already let go of what it had in the range */
	bool whole;   /* a chunk of the file, which is to be one of the device first: fs_make_whole() */
	const struct fs_cred *cred;
	/* The answer, under the session's order lock: sent without waiting. An error: it cannot be reached. */
	int (*answer)(void *arg, const struct fs_piece *pieces, unsigned count, uint64_t size_bytes);
	void *arg;
};
/*
 * Pieces of the file for the session. They take the place of what it had there; where it could store it still may (it does until it has read the answer),
 * unless it releases. Waits while somebody changes the file. Errors (answer was not called, but for the last one):
 * -EBADF no such handle; -EACCES write without the right to; -EINVAL no blocks (fs_grant()); -EMFILE too many shadows; -ENOSPC and others of
 * fs_make_storable() and fs_make_whole(); -ERESTART once the kernel has dropped its pages (fs_grant()); -EAGAIN the file has been changing for ten seconds; -ENOTCONN it is lost, or the answer could not be sent.
 */
must_check int session_grant(struct session *s, const struct grant *grant);
/*
 * It has let go of a range by itself. It releases (here, by a grant, by detaching) nothing of a range that it has asked for before it has read the answer:
 * it would map what is noted as gone. Revokes it answers at any time.
 */
must_check int session_release(struct session *s, uint32_t handle, uint64_t lo_blk, uint64_t hi_blk);
/* It has let go of what it was asked to. An id that is not known is passed over. */
void session_ack(struct session *s, uint64_t id);

/* ---- for all ---- */

/* Whoever has the file's pages lets go of them (bad memory, by hand): asks and waits, as before a change. */
must_check int registry_invalidate(struct registry *r, uint64_t ino, uint64_t lo_blk, uint64_t hi_blk);
/* Whether somebody may store to pages of the file now. Locks nothing. */
bool registry_is_stored(struct registry *r, uint64_t ino);

struct shadow_info {
	uint64_t session;
	pid_t pid;
	uint64_t ino, file_blk, dev_blk, count_blk; /* dev_blk 0: a hole */
	bool write;
	bool orphan; /* its session has ended without a word, or does not answer */
};
/* A snapshot per holding; from a position on (zeroes: the first), at most max. pid, ino 0: any; blocks [dev_lo, dev_hi) (0, 0: any). */
struct shadow_pos {
	uint64_t session;
	uint32_t handle;
	uint64_t file_blk;
};
struct shadow_filter {
	pid_t pid;
	uint64_t ino, dev_lo, dev_hi;
};
must_check int registry_list(struct registry *r, const struct shadow_filter *filter, struct shadow_pos *pos,
			     struct shadow_info *infos, unsigned max, unsigned *count);

struct registry_stats {
	uint64_t sessions, orphans, holdings, shadows, masters, quarantine_blk;
	uint64_t revokes, late; /* asked; of them without an answer in time */
	uint64_t bytes;         /* of memory for shadows and masters */
};
void registry_get_stats(struct registry *r, struct registry_stats *stats);

#endif
