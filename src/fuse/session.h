/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A file system mounted through FUSE: mount it, answer the kernel's requests, unmount it.
 *
 * Threads: `threads` workers that each read one request from the kernel, carry it out and answer it, and a few helpers for what
 * has to talk to the kernel itself (defer.h). No lock of this floor is ever held across a call of the file system or of the kernel.
 * SIGUSR1 is the session's; signals that end the program are the caller's, blocked in all threads but one.
 */
#ifndef UMBRA_FUSE_SESSION_H
#define UMBRA_FUSE_SESSION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "fs/fs.h"
#include "util/util.h"

struct kept;
struct session;

/* Which opens bypass the kernel's page cache. */
enum session_dax {
	SESSION_DAX_INODE,  /* those of files marked so */
	SESSION_DAX_ALWAYS, /* all */
	SESSION_DAX_NEVER,  /* none */
};

/* Where requests are answered (place.h). */
enum session_placement {
	SESSION_PLACE_CALLER, /* on the caller's core */
	SESSION_PLACE_SPREAD, /* wherever the scheduler puts a worker */
};

/* How requests come from the kernel. */
enum session_transport {
	SESSION_TRANSPORT_AUTO,  /* over io_uring, if the kernel lets us */
	SESSION_TRANSPORT_URING, /* or not at all */
	SESSION_TRANSPORT_DEV,   /* over /dev/fuse */
};

struct session_opts {
	const char *source;        /* the pool as the user named it: what mount(8) and df(1) show */
	const char *mountpoint;    /* absolute */
	unsigned long mount_flags; /* MS_* of <sys/mount.h> */
	bool allow_other;
	unsigned threads; /* at least 1 */
	enum session_dax dax;
	enum session_placement placement;
	enum session_transport transport;
	struct kept *kept; /* what a daemon that takes over has to know (kept.h); NULL: nobody will */
	bool (*keeper_is_there)(void *arg); /* with a kept: who starts the next daemon */
	void *keeper_arg;
	int connection_fd; /* with a kept of a daemon before this one: that to the kernel, which it has mounted. Taken, also on errors */
};

/*
 * Mounts. From here on the kernel sends requests, which wait until session_run(). opts and its strings must outlive the session.
 * On error -errno and one line in why; nothing is left mounted.
 */
must_check int session_open(struct fs *fs, const struct session_opts *opts, struct session **out, char *why,
			    size_t why_size);

/* What has become of opts->placement. */
enum session_placement session_placement(const struct session *session);

/* After session_run(): whether requests come over io_uring; if not, and it was to be tried, why has a line. */
bool session_is_uring(const struct session *session, const char **why);

/* The minor number of the mount's device: no other mount has it. */
unsigned session_dev_minor(const struct session *session);

/* To the kernel: whoever else has it keeps the mount from ending with this process. */
int session_connection(const struct session *session);

/*
 * Starts the workers. Of a mount that is taken over, first what the daemon before had not answered is carried out. After an error: session_stop(),
 * session_wait(), session_close(); but of a mount that is taken over, which stays for whoever tries next: the process ends. -EOPNOTSUPP with a kept: the
 * kernel cannot send requests again.
 */
must_check int session_run(struct session *session);

/*
 * For a mount that another daemon is about to take over (path: its program): session_wait() returns, and the mount stays. NULL from session_leaving(): it
 * is not so.
 */
void session_leave(struct session *session, const char *path);
const char *session_leaving(const struct session *session);
/* Nobody can, as it turns out: it is so no longer, and session_wait() waits again. By who waits there. */
void session_stay(struct session *session);
/* Then: waits for what is told to the kernel. No more requests are begun; those that are, 100 ms are waited for. The process ends now. */
void session_quiet(struct session *session);

/* Waits until the kernel has closed the connection (umount) or session_stop() has been called. */
void session_wait(struct session *session);

/* Flushes dirty pages as far as the kernel lets go of them, detaches the mount and makes session_wait() return. Any thread. */
void session_stop(struct session *session);

/* Ends the threads and frees everything; the mount is gone afterwards. Not under session_wait(). */
void session_close(struct session *session);

/* Whether a call on a mount failed so because its daemon has just died: its requests are ended so, and a moment later there is ENOTCONN. */
bool session_is_dying(int error);
/*
 * What is at a path: 0 and its mode (may be NULL), -errno of stat(2), or of a mount whose daemon is dead; -ETIMEDOUT: nobody answers, for ten seconds. Such a
 * mount is named by session_in_the_way(): where it is mounted, as far as the path itself says so, or ''.
 */
must_check int session_look(const char *path, mode_t *mode);
void session_in_the_way(const char *path, char *mountpoint, size_t size);
/* Detaches a mount whose daemon is dead from dir ("Transport endpoint is not connected"). 0: done, -ENOENT: there is none. */
must_check int session_detach_dead(const char *dir);
/* The same for a mount of that pool, by a caller who has the pool's lock: the daemon that served it is dead, or about to be. */
must_check int session_detach_former(const char *dir, const char *source);

#endif
