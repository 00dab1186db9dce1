/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The life of sessions, and the files that they have.
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include "registry/priv.h"
#include "util/sabotage.h"

bool user_is_late(const struct user *user)
{
	struct timespec now = clock_after(0);

	return user->late_until.tv_sec > now.tv_sec;
}

/* (l) */
static void user_free(struct user *user)
{
	cds_list_del(&user->link);
	free(user);
}

/* With one session more; fresh becomes NULL if it is used. NULL: not now. (l) */
static struct user *user_get(struct registry *r, uid_t uid, struct user **fresh)
{
	struct user *user, *next, *found = NULL;

	cds_list_for_each_entry_safe(user, next, &r->users, link) {
		if (user->uid == uid)
			found = user;
		else if (user->sessions == 0 && !user_is_late(user))
			user_free(user);
	}
	if (found && user_is_late(found))
		return NULL;
	if (found) {
		found->sessions++;
		return found;
	}
	user = *fresh;
	*fresh = NULL;
	*user = (struct user){ .uid = uid, .sessions = 1 };
	cds_list_add(&user->link, &r->users);
	return user;
}

/* (l) */
static void user_put(struct user *user)
{
	if (--user->sessions > 0)
		return;
	assert(user->holdings == 0 && user->shadows == 0);
	if (!user_is_late(user))
		user_free(user);
}

void users_free(struct registry *r)
{
	struct user *user, *next;

	cds_list_for_each_entry_safe(user, next, &r->users, link)
		user_free(user);
}

void session_account(struct session *s, int64_t holdings, int64_t shadows)
{
	struct registry_stats *stats = &s->registry->stats;

	s->holdings += (uint32_t)holdings;
	s->shadows += (uint64_t)shadows;
	s->user->holdings += (uint64_t)holdings;
	s->user->shadows += (uint64_t)shadows;
	stats->holdings += (uint64_t)holdings;
	stats->shadows += (uint64_t)shadows;
}

bool session_has_room(const struct session *s, uint32_t holdings, uint32_t shadows)
{
	const struct registry_opts *o = &s->registry->opts;

	return s->holdings + (uint64_t)holdings <= o->holdings_max &&
	       s->shadows + shadows <= o->shadows_max &&
	       (s->who.uid == 0 ||
		(s->user->holdings + holdings <= (uint64_t)o->user_times * o->holdings_max &&
		 s->user->shadows + shadows <= o->user_times * o->shadows_max));
}

int session_new(struct registry *r, const struct session_who *who, const struct session_ops *ops, void *arg,
		struct session **out)
{
	struct session *s = calloc(1, sizeof(*s));
	struct user *user = malloc(sizeof(*user));
	int rc;

	rc = s && user ? -pthread_mutex_init(&s->order, NULL) : -ENOMEM;
	if (rc) {
		free(user);
		free(s);
		return rc;
	}
	thread_register();
	s->registry = r;
	s->who = *who;
	s->ops = ops;
	s->arg = arg;
	s->refs = 1;
	CDS_INIT_LIST_HEAD(&s->revokes);
	pthread_mutex_lock(&r->lock);
	s->user = user_get(r, who->uid, &user);
	if (!s->user) {
		pthread_mutex_unlock(&r->lock);
		pthread_mutex_destroy(&s->order);
		free(user);
		free(s);
		return -EBUSY;
	}
	s->id = ++r->session_next;
	cds_list_add_tail(&s->link, &r->sessions);
	r->stats.sessions++;
	pthread_mutex_unlock(&r->lock);
	free(user);
	*out = s;
	return 0;
}

uint64_t session_id(const struct session *s)
{
	return s->id;
}

static void session_free(struct rcu_head *head)
{
	struct session *s = container_of(head, struct session, rcu);

	(void)atomic_load(&s->ended); /* in order after who gave it up */
	pthread_mutex_destroy(&s->order);
	free(s->handles);
	free(s);
}

void session_put(struct session *s)
{
	if (--s->refs > 0)
		return;
	assert(s->ended && s->holdings == 0 && cds_list_empty(&s->revokes));
	atomic_store(&s->ended, true);
	urcu_memb_call_rcu(&s->rcu, session_free);
}

/* Nobody waits for what it has been asked. (l) */
static unsigned revokes_forget(struct session *s)
{
	struct pending *p, *next;
	unsigned count = 0;

	cds_list_for_each_entry_safe(p, next, &s->revokes, link) {
		pthread_cond_broadcast(&p->holding->file->moved);
		pending_free(p);
		count++;
	}
	return count;
}

/* Whoever waits with a grant or a change looks at it again. (l) */
static void session_wake(struct session *s)
{
	for (uint32_t i = 0; i < s->handle_room; i++) {
		if (s->handles[i])
			pthread_cond_broadcast(&s->handles[i]->file->moved);
	}
}

void session_call(struct session *s)
{
	s->calls++;
	pthread_mutex_unlock(&s->registry->lock);
}

void session_called(struct session *s)
{
	pthread_mutex_lock(&s->registry->lock);
	s->calls--;
	pthread_cond_broadcast(&s->registry->idle);
}

void session_lose(struct session *s)
{
	struct registry *r = s->registry;

	if (s->lost || s->ended)
		return;
	s->lost = true;
	r->stats.late += revokes_forget(s);
	r->stats.orphans++;
	session_wake(s);
	session_call(s);
	s->ops->lost(s->arg);
	session_called(s);
}

void session_late(struct session *s)
{
	bool gone = false;

	if (s->who.uid == 0 || sabotage_point("registry-late"))
		return;
	session_call(s);
	if (s->ops->gone)
		gone = s->ops->gone(s->arg);
	session_called(s);
	if (!gone)
		s->user->late_until = clock_after(LATE_MS);
}

void session_remove(struct session *s)
{
	struct registry *r = s->registry;
	struct holding *h;

	for (uint32_t handle = 1; handle <= s->handle_room; handle++) {
		pthread_mutex_lock(&r->lock);
		h = holding_find(s, handle);
		if (h)
			holding_unlink(h);
		pthread_mutex_unlock(&r->lock);
		if (h)
			holding_clear(r, h);
	}
	pthread_mutex_lock(&r->lock);
	cds_list_del(&s->link);
	r->stats.sessions--;
	r->stats.orphans -= s->lost;
	user_put(s->user);
	session_put(s);
	pthread_mutex_unlock(&r->lock);
}

void session_grants_end(struct session *s)
{
	thread_register();
	pthread_mutex_lock(&s->registry->lock);
	atomic_store(&s->grants_end, true);
	session_wake(s);
	pthread_mutex_unlock(&s->registry->lock);
}

void session_end(struct session *s, bool clean)
{
	struct registry *r = s->registry;

	thread_register();
	pthread_mutex_lock(&s->order);
	pthread_mutex_lock(&r->lock);
	s->ended = true;
	pthread_mutex_unlock(&r->lock);
	pthread_mutex_unlock(&s->order);
	pthread_mutex_lock(&r->lock);
	while (s->calls > 0)
		pthread_cond_wait(&r->idle, &r->lock);
	revokes_forget(s);
	if (!clean && !s->lost) {
		s->lost = true;
		s->gone_by = clock_after(r->opts.revoke_ms);
		r->stats.orphans++;
		session_wake(s);
	}
	pthread_mutex_unlock(&r->lock);
	if (clean)
		session_remove(s);
}

/* The first orphan whose number is id or more. (l) */
static struct session *orphan_from(struct registry *r, uint64_t id)
{
	struct session *s;

	cds_list_for_each_entry(s, &r->sessions, link) {
		if (s->ended && s->lost && s->id >= id)
			return s;
	}
	return NULL;
}

/* The files that it could store to are named. Nothing changes of an orphan while we are the one who reaps. */
static void orphan_name_stored(struct session *s, void (*stored)(void *arg, uint64_t ino), void *arg)
{
	for (uint32_t i = 0; i < s->handle_room; i++)
		if (s->handles[i] && atomic_load(&s->handles[i]->stored) > 0)
			stored(arg, s->handles[i]->file->ino);
}

unsigned registry_reap(struct registry *r, bool (*gone)(void *arg, pid_t pid),
		       void (*stored)(void *arg, uint64_t ino), void *arg)
{
	struct session *s;
	uint64_t id = 0;
	unsigned left = 0;

	thread_register();
	pthread_mutex_lock(&r->reap_lock);
	do {
		/* Orphans go here alone, so that it stays without (l). */
		pthread_mutex_lock(&r->lock);
		s = orphan_from(r, id);
		pthread_mutex_unlock(&r->lock);
		if (!s)
			break;
		id = s->id + 1;
		if (!gone(arg, s->who.pid)) {
			left++;
			continue;
		}
		if (stored)
			orphan_name_stored(s, stored, arg);
		session_remove(s);
	} while (true);
	masters_mend(r);
	pthread_mutex_unlock(&r->reap_lock);
	return left;
}

/* ---- files ---- */

/* The holding of the file, if it has one. (l) */
static struct holding *holding_of(struct session *s, uint64_t ino)
{
	struct mapped_file *file;
	struct holding *h;

	urcu_memb_read_lock();
	file = file_find(s->registry, ino);
	urcu_memb_read_unlock();
	for (h = file ? file->first : NULL; h; h = h->next) {
		if (h->session == s)
			return h;
	}
	return NULL;
}

int session_attach(struct session *s, uint64_t ino, bool write, uint32_t *handle)
{
	struct registry *r = s->registry;
	struct holding *h = NULL;
	bool held = true; /* a hold of ours is left over */
	int rc;

	thread_register();
	rc = fs_hold(r->fs, ino);
	if (rc)
		return rc;
	pthread_mutex_lock(&r->lock);
	h = holding_of(s, ino);
	if (s->lost || s->ended) {
		rc = -ENOTCONN;
	} else if (h) {
		h->attached++;
		h->write |= write;
	} else if (!session_has_room(s, 1, 0)) {
		rc = -EMFILE;
	} else {
		rc = holding_new(s, ino, write, &h);
		held = rc != 0;
	}
	if (!rc)
		*handle = h->handle;
	pthread_mutex_unlock(&r->lock);
	if (held)
		fs_unhold(r->fs, ino);
	return rc;
}

int session_detach(struct session *s, uint32_t handle)
{
	struct registry *r = s->registry;
	struct holding *h;
	bool last;

	thread_register();
	pthread_mutex_lock(&r->lock);
	h = holding_find(s, handle);
	last = h && --h->attached == 0;
	if (last) /* before anybody attaches it again */
		holding_unlink(h);
	pthread_mutex_unlock(&r->lock);
	if (last)
		holding_clear(r, h);
	return h ? 0 : -EBADF;
}

int session_release(struct session *s, uint32_t handle, uint64_t lo_blk, uint64_t hi_blk)
{
	thread_register();
	return holding_release(s, handle, lo_blk, hi_blk, false);
}
