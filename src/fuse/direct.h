/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Direct mappings as this floor sees them: whoever serves them is above, is asked about files, and has the kernel's page cache put out of the way.
 *
 * While pages of a file may be stored to directly the kernel keeps neither pages nor attributes of it: opens bypass the page cache. Those that
 * were there before count (fs_cached_opens()), so that who is above can refuse. The kernel has pages of an open that bypasses the page cache too, once it is mapped: while somebody stores to
 * the file it counts from its first page on. What keeps pages and stores apart is the file system (fs/lend.c); to count is to have peace between those who want the one and the other.
 */
#ifndef UMBRA_FUSE_DIRECT_H
#define UMBRA_FUSE_DIRECT_H

#include <stdbool.h>
#include <stdint.h>

#include <umbra/direct.h>

#include "fs/fs.h"
#include "fuse/token.h"
#include "util/util.h"

struct session;

struct session_direct {
	void *arg;
	/* Whether the file may be stored to now. Often asked: takes no lock unless some file is. */
	bool (*is_stored)(void *arg, uint64_t ino);
	/* From here on an open of the file counts that did not before: who stores to it has to ask again. Waits for nobody. */
	void (*unready)(void *arg, uint64_t ino);
	/* Attributes of the file are about to be given: its times move if it has been stored to. */
	void (*look)(void *arg, uint64_t ino);
	/* What this user may have (about->rights), and where. */
	void (*about)(void *arg, const struct fs_cred *cred, struct umbra_direct *about);
	/* One page: page->count is 0 on entry. */
	int (*shadows)(void *arg, struct umbra_shadows *page);
	void (*count)(void *arg, struct umbra_stats *stats);
};

/* Before session_run(). It has to live until session_close(). */
void session_set_direct(struct session *session, const struct session_direct *direct);

/* The file that a process has named. -EACCES: no such token, or another process's. -ESTALE: the file is gone. Uses the token up. */
must_check int session_take_token(struct session *session, const struct umbra_token *token, pid_t pid,
				  struct token_file *file);
/*
 * The open that token_file.open names does not count in session_cached_opens() as long as somebody has the file attached by it. False: it is closed.
 */
bool session_excuse_open(struct session *session, uint64_t open);
/* True: it counts again, and may read pages into the cache that nobody keeps up to date. */
bool session_accuse_open(struct session *session, uint64_t open);
/* How many have the file open through the page cache, but for those that are excused. */
uint32_t session_cached_opens(struct session *session, uint64_t ino);
/* How many of those write: beside them no pages are dropped for a grant. */
uint32_t session_through_opens(struct session *session, uint64_t ino);

/*
 * The kernel drops what it keeps of the file: pages, which it writes before if they are dirty, and attributes; fs_grant() knows of it. Waits for it; with no lock held, and not on a
 * thread that answers requests. -ESHUTDOWN.
 */
must_check int session_drop_pages(struct session *session, uint64_t ino);

/* ---- for the handlers of this floor ---- */

bool direct_is_stored(const struct session *session, uint64_t ino);
void direct_look(const struct session *session, uint64_t ino);
/* Pages of the file are about to be read for an open that bypasses the page cache. */
void direct_paged(const struct session *session, uint64_t ino, uint64_t fh);
/* An open is about to be closed. Whether it counts though it bypasses the page cache. */
bool direct_closed(const struct session *session, uint64_t fh);

#endif
