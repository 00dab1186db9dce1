/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What the parts of registry/ share.
 *
 * One mutex, registry->lock, covers all that changes; fields marked (l) are under it. It is held for moments: long lists are gone through in steps of
 * STEP_SHADOWS. No call of the file system or of session_ops is made under it. held(), keep() and registry_is_stored() read without it, under RCU.
 *
 * Files, holdings and sessions go after a grace period from where readers may meet them.
 */
#ifndef UMBRA_REGISTRY_PRIV_H
#define UMBRA_REGISTRY_PRIV_H

#include <pthread.h>
#include <stdatomic.h>
#include <urcu/urcu-memb.h>
#include <urcu/rculfhash.h>
#include <urcu/list.h>

#include "fs/core.h"
#include "registry/ranges.h"
#include "registry/registry.h"
#include "space/space.h"

/* Of the space floor. */
void space_release(struct pool *pool, uint64_t blk, uint64_t count_blk);

#define STEP_SHADOWS 256u
#define GRANT_WAIT_MS 10000u /* for whoever changes the file */

/* The tag of a shadow. Its value is its first device block. */
#define SHADOW_WRITE 0x1u
#define SHADOW_HOLE 0x2u /* no device blocks, no master; the value is 0 */

/* A master: tag is how many of its shadows may be stored to, value how many there are. */

struct registry {
	struct fs *fs;
	struct registry_opts opts;
	struct fs_holders holders;
	struct cds_lfht *files; /* of struct mapped_file, by number */

	pthread_mutex_t lock;
	pthread_mutex_t reap_lock;     /* whoever reaps; taken first */
	pthread_cond_t idle;           /* (l) a call of session_ops->lost has returned */
	struct cds_list_head sessions; /* (l) by id */
	struct cds_list_head users;    /* (l) of sessions */
	uint64_t session_next, revoke_next;
	struct ranges *_Atomic masters; /* (l) for changes */
	struct ranges *quarantine;      /* (l) */
	uint64_t quarantine_blk;        /* (l) */
	unsigned removing;              /* (l) holdings that are in no list, with masters still */
	bool is_stale; /* (l) for want of memory masters have too many shadows, or quarantine too many blocks */
	struct registry_stats
		stats; /* (l) sessions, orphans, holdings, shadows, revokes, late; bytes of shadows */
};

/* A file that somebody has, or that changes. */
struct mapped_file {
	struct cds_lfht_node node;
	uint64_t ino;
	_Atomic(struct holding *) first;
	unsigned users;       /* (l) holdings, changes, and who waits */
	unsigned changing;    /* (l) changes that have begun: nothing is granted */
	pthread_cond_t moved; /* (l) less is held, or less changes */
	_Atomic bool dead;
	struct rcu_head rcu;
};

/* What one session has of one file. */
struct holding {
	struct session *session;
	struct mapped_file *file;
	_Atomic(struct holding *) next;
	_Atomic(struct holding *) *link; /* (l) what points here */
	struct ranges *shadows;          /* (l) for changes */
	_Atomic uint64_t stored;         /* shadows that may be stored to */
	_Atomic bool
		displaced; /* the file changed beside shadows that may be stored to, of a session that did not answer: where their blocks are now is not known */
	uint32_t handle;
	uint64_t ino;      /* when it has been unlinked */
	unsigned attached; /* (l) */
	bool write;        /* (l) */
	struct rcu_head rcu;
};

/* Whose sessions there are, and what they have together. All (l). */
struct user {
	struct cds_list_head link;
	uid_t uid;
	unsigned sessions;
	uint64_t shadows, holdings;
	struct timespec late_until; /* one of them has not answered in time, not long ago */
};
#define LATE_MS 60000u      /* so long it is remembered */
#define LATE_REVOKE_MS 500u /* and nobody waits longer for the others of that user */
/* (l) */
bool user_is_late(const struct user *user);
/* It has let others wait for all of the time: so has its user, unless its process is on its way out. (l), which is given up meanwhile. */
void session_late(struct session *s);
/* Of those without sessions. */
void users_free(struct registry *r);

struct session {
	struct registry *registry;
	struct user *user;
	uint64_t id;
	struct session_who who;
	const struct session_ops *ops;
	void *arg;
	pthread_mutex_t order; /* of messages */
	struct cds_list_head link;
	struct cds_list_head revokes; /* (l) without an answer: struct pending */
	struct holding **handles;     /* (l) handles[handle - 1], or NULL */
	uint32_t handle_room;         /* (l) */
	uint32_t holdings;            /* (l) */
	uint64_t shadows;             /* (l) */
	unsigned refs;                /* (l) 1 until it is gone, and one for each who sends it something */
	unsigned calls;               /* (l) of ops without order, under way */
	_Atomic bool lost;            /* nobody waits for it */
	_Atomic bool grants_end;      /* it gets nothing more: session_grants_end() */
	_Atomic bool ended;           /* no more calls of ops; set under order and (l) */
	struct timespec
		gone_by; /* (l) it has ended without a word: its process is most likely dying, and gone until then */
	struct rcu_head rcu;
};

/* A revoke without an answer. There is none that is older than the changes of its file that have begun. */
struct pending {
	struct cds_list_head link;
	struct holding *holding;
	struct revoke revoke;
};

/* ---- list.c: ranges in order, side by side ones in one ---- */

struct range_list {
	struct range *at;
	uint32_t count, room;
	struct range few[8];
};
void list_init(struct range_list *l);
void list_free(struct range_list *l);
must_check int list_add(struct range_list *l, const struct range *range);
/* Those that follow each other on the file and on the device become one; values of masters are counts, and have to be equal. */
must_check int list_add_shadow(struct range_list *l, const struct range *shadow);
must_check int list_add_master(struct range_list *l, const struct range *master);
/* The part of a shadow in [lo, hi). */
struct range shadow_part(const struct range *shadow, uint64_t lo, uint64_t hi);

/* ---- masters.c ---- */

/* One more shadow of the range, or one less. (l) -ENOMEM: nothing has changed. Holes have none. */
must_check int masters_add(struct registry *r, const struct range *shadow);
must_check int masters_drop(struct registry *r, const struct range *shadow);
/* Shadows that went: their masters, then those of their blocks that nobody has any more and that are free. masters_forget() is under (l). */
void masters_forget(struct registry *r, const struct range *shadow);
void quarantine_settle(struct registry *r, const struct range *shadows, uint32_t count);
uint64_t masters_keep(void *arg, uint64_t blk, uint64_t count_blk, bool *held);
/* Counts anew what could not be counted for want of memory. */
void masters_mend(struct registry *r);

/* ---- holding.c ---- */

struct mapped_file *file_find(struct registry *r, uint64_t ino);                      /* under RCU */
must_check int file_get(struct registry *r, uint64_t ino, struct mapped_file **file); /* (l) one more user */
void file_put(struct registry *r, struct mapped_file *file);                          /* (l) */
struct holding *holding_find(struct session *s, uint32_t handle);                     /* (l) */
/* Whether there is something in [lo, hi), that may be stored to. Under RCU or (l). */
bool holding_has(const struct holding *h, uint64_t lo, uint64_t hi, bool write_only);
/* entries in the place of what it has in [lo, hi); what was there is added to old, cut at lo and hi. (l) */
must_check int holding_put(struct holding *h, uint64_t lo, uint64_t hi, const struct range *entries,
			   uint32_t count, struct range_list *old);
/* It has let go of [lo, hi), or of the right to store there. Takes (l), in steps. */
must_check int holding_release(struct session *s, uint32_t handle, uint64_t lo, uint64_t hi, bool write_only);
must_check int holding_new(struct session *s, uint64_t ino, bool write, struct holding **out); /* (l) */
/*
 * It goes, whatever it holds: nobody finds it any more (l), then its masters go and it too. The second takes (l), in steps; the session may be gone by then.
 */
void holding_unlink(struct holding *h);
void holding_clear(struct registry *r, struct holding *h);

/* ---- session.c ---- */

void session_put(struct session *s); /* (l) */
/* It has so many more, or less. (l) */
void session_account(struct session *s, int64_t holdings, int64_t shadows);
/* Whether it may have so many more, and its user. (l) */
bool session_has_room(const struct session *s, uint32_t holdings, uint32_t shadows);
/* All that it has goes, and it too. */
void session_remove(struct session *s);
/* Around a call of its ops: without (l), and it does not end meanwhile. */
void session_call(struct session *s);
void session_called(struct session *s);
/* It does not answer. (l), which is given up meanwhile. */
void session_lose(struct session *s);

/* ---- revoke.c ---- */

int change_begin(void *arg, uint64_t ino, uint64_t lo, uint64_t hi, enum fs_change change);
void change_end(void *arg, uint64_t ino, uint64_t lo, uint64_t hi, enum fs_change change);
bool change_held(void *arg, uint64_t ino, uint64_t lo, uint64_t hi, enum fs_change change);
void pending_free(struct pending *p); /* (l) */

/* ---- registry.c ---- */

struct timespec clock_after(unsigned ms);
must_check int cond_new(pthread_cond_t *cond); /* of the monotonic clock */

#endif
