/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A file that is attached, and what this process has of it: its view. A view does not change; data calls find it in a section (section.h) and lock nothing. All
 * else is under client_lock.
 */
#ifndef UMBRA_CLIENT_FILE_H
#define UMBRA_CLIENT_FILE_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>

#include <umbra/direct.h>
#include <umbra/umbra.h>

#include "client/pieces.h"
#include "client/window.h"
#include "util/util.h"

struct home;
struct session;

struct view {
	uint8_t *base, *read_base; /* of the device */
	struct umbra_slot *slot;
	struct pieces *pieces;
	uint64_t size_bytes; /* of the file: so much there is for certain */
	bool size_open;      /* there may be more: to be asked */
	bool store;          /* the session may store */
	/* When it has been replaced */
	struct view *next;
	enum { VIEW_KEEPS_PIECES, VIEW_RETIRES_PIECES, VIEW_FREES_PIECES } end;
};

/* What this process has of one file, however often it is attached. */
struct holding {
	_Atomic(struct view *) view; /* NULL: nobody has attached it now */
	_Atomic int64_t retry_ns[2]; /* not before that: to read, to store */
	/* Storing has been refused since others have the file open through the page cache; who sees to those of this process (fds_others.c), and when again */
	atomic_bool refused;
	_Atomic int64_t look_ns, look_again_ns;
	/* Calls past the end that do not ask for it, and how many those are when it is asked in vain again */
	_Atomic uint32_t end_skip, end_skip_next;
	uint64_t dev, ino; /* stat(2) */
	/* Of who has attached it first: what the file is known by when its daemon has ended. NULL: it is not */
	const struct home *home;
	uint64_t generation;
	_Atomic int64_t away_ns;      /* since when its daemon is gone, 0: it is not known to be */
	_Atomic int64_t back_ns;      /* when it was attached again after that */
	struct umbra_file *files;     /* under client_lock, as all below */
	struct mapping *mappings;     /* mapping.h */
	struct holding *next, **prev; /* of all */
	struct session *session;      /* NULL: not attached now */
	uint32_t handle, slot;
	const struct session *ended; /* the last one; NULL: what was stored in it is known */
	uint32_t ended_slot;
	bool untold;    /* it was stored to, and no daemon may know it */
	bool by_kernel; /* holding_leave() */
	bool leaving;   /* its mappings become the kernel's just now */
	bool busy;      /* somebody asks for pieces of it, attaches or detaches it: one at a time */
	unsigned users;
	/* What was last made storable of holes and of what is shared. */
	uint64_t grown_end, grown_bytes;
	struct window_past window_past;
};

struct umbra_file {
	int fd;
	atomic_int own_fd;                 /* of a later mount (reopen.h), -1: none */
	bool can_read, can_write, appends; /* as fd was opened */
	atomic_int away_rc;                /* what came of looking for it on the next mount */
	atomic_bool attached;              /* in the session of its holding */
	atomic_bool closed; /* fd is not ours any more, though the file has not been detached */
	struct holding *holding;
	struct umbra_file *next; /* of the holding */
	/* Between file_detach_begin() and file_detach_end(): who is to hear of it. */
	struct session *told;
	uint32_t told_handle;
};

/* fstat(2) for what of a file never changes (type, number, device), without a question to whoever serves it. -1: errno. */
must_check int fd_about(int fd, struct stat *st);
/* How long the kernel takes the file for, without a question too. -1: errno. */
must_check int fd_size(int fd, uint64_t *size_bytes);

/* Everything that is not a data call. Before it: connect_lock (session.h). Never held around a message, a wait for sections, or a call of the kernel's that the daemon answers. */
extern pthread_mutex_t client_lock;
extern pthread_cond_t client_changed;
extern struct holding *client_holdings;

/* One at a time for each holding; takes client_lock for itself. */
void holding_begin(struct holding *h);
void holding_end(struct holding *h);
/*
 * Attaches it if it is not, and in a new session all others of its holding too: the daemon counts who has the file open without. Between holding_begin() and
 * holding_end(). wait: as session_get(). 0, or an error: not now.
 */
must_check int file_ready(struct umbra_file *f, bool wait);

/*
 * umbra_detach() in two steps: nobody uses it any more after the first, and then the daemon hears of it. A descriptor of the file, which has
 * been excused until then, ends in between if it can: one that stays holds up all others who store.
 */
void file_detach_begin(struct umbra_file *f);
void file_detach_end(struct umbra_file *f);

/*
 * What the functions below have replaced goes to *old. After client_lock has been given back: views_retire().
 * Nobody waits for sections under the lock.
 */
void views_retire(struct view *old);
/* -EPROTO: the file has another handle already. */
must_check int file_attached(struct umbra_file *f, struct session *s, const struct umbra_msg_attached *answer,
			     struct view **old);
/* Pieces for [lo, hi), of which nothing was known. -EPROTO: they are nonsense. */
must_check int holding_pieces(struct holding *h, uint64_t lo, uint64_t hi,
			      const struct umbra_msg_pieces *answer, struct view **old);
/* Lets go of [lo, hi), or only of storing there. Never fails: it may let go of more. */
void holding_drop(struct holding *h, uint64_t lo, uint64_t hi, struct view **old);
/* The same for the daemon: the end of the file may be another one then. */
void holding_revoke(struct holding *h, uint64_t lo, uint64_t hi, bool write_only, struct view **old);
/*
 * The kernel is about to map it: from here on nothing of it is attached, nor will be as long as anybody has it, so that all goes by the kernel. Waits for the
 * daemon: no lock is held.
 */
void holding_leave(struct holding *h);
/* It has been stored to in a session that has ended: the next one says so to the daemon. */
void holding_stored(struct holding *h);
/* Its session has ended. */
void holding_void(struct holding *h, struct view **old);
/* It may be larger than the view says. Takes client_lock for itself. */
void holding_size_open(struct holding *h);

#endif
