/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Before and after a change of a file: whoever has pages of it is asked to let go.
 *
 * While a change of a file has begun nothing of the file is granted, so that what is held there only becomes less. A change waits until nobody has
 * anything in its range, and no revoke there is without an answer: a later answer would otherwise take what is granted after the change.
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include "registry/priv.h"
#include "util/sabotage.h"

#define HEAR_MS 2u

struct asked {
	struct session *session; /* a reference */
	struct revoke revoke;
	bool is_called; /* around all that is asked of it: it does not end meanwhile */
	bool listens;
};
struct change {
	struct registry *r;
	struct mapped_file *file;
	uint64_t lo, hi;
	enum fs_change change;
	bool write_only;
	struct asked *asked; /* to be sent */
	uint32_t count;
};

void pending_free(struct pending *p)
{
	cds_list_del(&p->link);
	free(p);
}

/* Of those who do not answer: shadows that may be stored to, in the range or nobody knows where. (l) or RCU */
READS_UNDER_RCU static bool cannot_share(const struct holding *h, uint64_t lo, uint64_t hi)
{
	return atomic_load(&h->displaced) || holding_has(h, lo, hi, true);
}

READS_UNDER_RCU bool change_held(void *arg, uint64_t ino, uint64_t lo, uint64_t hi, enum fs_change change)
{
	bool write_only = fs_change_leaves_reads(change), found = false;
	struct mapped_file *file;
	struct holding *h;

	if (write_only && sabotage_point("registry-write-only"))
		return false;
	thread_register();
	urcu_memb_read_lock();
	file = file_find(arg, ino);
	for (h = file ? atomic_load(&file->first) : NULL; h && !found; h = atomic_load(&h->next)) {
		if (!atomic_load(&h->session->lost))
			found = holding_has(h, lo, hi, write_only);
		else if (change == FS_CHANGE_SHARE)
			found = cannot_share(h, lo, hi);
	}
	urcu_memb_read_unlock();
	return found;
}

READS_UNDER_RCU bool registry_is_stored(struct registry *r, uint64_t ino)
{
	struct mapped_file *file;
	struct holding *h;
	bool found = false;

	thread_register();
	urcu_memb_read_lock();
	file = file_find(r, ino);
	for (h = file ? atomic_load(&file->first) : NULL; h && !found; h = atomic_load(&h->next))
		found = atomic_load(&h->stored) > 0;
	urcu_memb_read_unlock();
	return found;
}

/* ---- asking ---- */

/* Whether it has been asked for all of that already; with any: for some of it. (l) */
static bool is_asked(const struct change *c, const struct holding *h, bool any)
{
	const struct pending *p;

	cds_list_for_each_entry(p, &h->session->revokes, link) {
		const struct revoke *v = &p->revoke;

		if (p->holding != h)
			continue;
		if (any ? v->lo_blk < c->hi && c->lo < v->hi_blk :
			  v->lo_blk <= c->lo && c->hi <= v->hi_blk && (c->write_only || !v->write_only))
			return true;
	}
	return false;
}

/* Of those who do not answer one that has something that must not be beside this change. (l) */
static const struct session *stuck_by(const struct change *c)
{
	for (struct holding *h = c->file->first; h && c->change == FS_CHANGE_SHARE; h = h->next) {
		if (h->session->lost && cannot_share(h, c->lo, c->hi))
			return h->session;
	}
	return NULL;
}

/* -EBUSY: it stays so. A process that dies closes its socket a moment before it lets go of its memory, and that is seen a moment later. (l) */
static int stuck_wait(struct change *c)
{
	const struct session *s;
	int rc = 0;

	while (!rc && (s = stuck_by(c))) {
		const struct timespec limit = s->gone_by;

		if (!s->ended || sabotage_point("registry-dying"))
			rc = -EBUSY;
		else if (pthread_cond_timedwait(&c->file->moved, &c->r->lock, &limit) == ETIMEDOUT &&
			 stuck_by(c) == s)
			rc = -EBUSY;
	}
	return rc;
}

/* Notes a revoke that is to be sent. (l) */
static int ask(struct change *c, struct holding *h)
{
	struct session *s = h->session;
	struct pending *p = malloc(sizeof(*p));

	if (!p)
		return -ENOMEM;
	p->holding = h;
	p->revoke = (struct revoke){ .id = ++c->r->revoke_next,
				     .handle = h->handle,
				     .lo_blk = c->lo,
				     .hi_blk = c->hi,
				     .write_only = c->write_only };
	cds_list_add_tail(&p->link, &s->revokes);
	s->refs++;
	c->asked[c->count++] = (struct asked){ .session = s, .revoke = p->revoke };
	return 0;
}

/* The revoke of this number, if it has no answer yet. (l) */
static struct pending *pending_find(struct session *s, uint64_t id)
{
	struct pending *p;

	cds_list_for_each_entry(p, &s->revokes, link) {
		if (p->revoke.id == id)
			return p;
	}
	return NULL;
}

/* Notes all that are to be sent, or none. (l) */
static int ask_all(struct change *c)
{
	uint32_t count = 0;
	int rc = 0;

	for (struct holding *h = c->file->first; h; h = h->next)
		count++;
	c->asked = count > 0 ? malloc(count * sizeof(*c->asked)) : NULL;
	if (count > 0 && !c->asked)
		return -ENOMEM;
	for (struct holding *h = c->file->first; h && !rc; h = h->next) {
		if (!h->session->lost && !h->session->ended && holding_has(h, c->lo, c->hi, c->write_only) &&
		    !is_asked(c, h, false))
			rc = ask(c, h);
	}
	for (uint32_t i = 0; i < c->count; i++) {
		if (!rc)
			continue;
		pending_free(pending_find(c->asked[i].session, c->asked[i].revoke.id));
		session_put(c->asked[i].session);
	}
	if (rc)
		c->count = 0;
	c->r->stats.revokes += c->count;
	return rc;
}

/* Before it is asked: who waits for the answer reads it. Through another thread it would take two more wake-ups. */
static void listen_to(struct asked *a)
{
	struct session *s = a->session;

	pthread_mutex_lock(&s->registry->lock);
	a->is_called = s->ops->listen && !s->ended && !s->lost && !sabotage_point("revoke-listen");
	if (a->is_called)
		session_call(s);
	else
		pthread_mutex_unlock(&s->registry->lock);
	a->listens = a->is_called && s->ops->listen(s->arg);
}

/* The time is one for all, so that nobody's other messages wait long for who does not answer. */
static void hear_all(struct change *c)
{
	struct timespec until = clock_after(HEAR_MS);

	for (uint32_t i = 0; i < c->count; i++) {
		struct asked *a = &c->asked[i];
		struct session *s = a->session;

		if (a->listens)
			s->ops->hear(s->arg, a->revoke.id, &until);
		if (a->is_called)
			session_called(s);
		else
			pthread_mutex_lock(&c->r->lock);
		session_put(s);
		pthread_mutex_unlock(&c->r->lock);
	}
}

static void send_all(struct change *c)
{
	for (uint32_t i = 0; i < c->count; i++)
		listen_to(&c->asked[i]);
	for (uint32_t i = 0; i < c->count; i++) {
		struct session *s = c->asked[i].session;
		int rc = 0;

		pthread_mutex_lock(&s->order);
		if (!s->ended && !s->lost)
			rc = s->ops->revoke(s->arg, &c->asked[i].revoke);
		pthread_mutex_unlock(&s->order);
		if (!rc)
			continue;
		pthread_mutex_lock(&c->r->lock);
		session_lose(s);
		pthread_mutex_unlock(&c->r->lock);
	}
	hear_all(c);
}

/* ---- waiting ---- */

/* The first holding with something in the range still, or without an answer about it. (l) */
static struct holding *waits_for(const struct change *c)
{
	for (struct holding *h = c->file->first; h; h = h->next) {
		if (!h->session->lost &&
		    (holding_has(h, c->lo, c->hi, c->write_only) || is_asked(c, h, true)))
			return h;
	}
	return NULL;
}

/* It has said something, perhaps in time: it is we who are late. (l), which is given up meanwhile. */
static bool is_unread(struct session *s)
{
	bool unread = false;

	session_call(s);
	if (s->ops->unread && !sabotage_point("registry-unread"))
		unread = s->ops->unread(s->arg);
	session_called(s);
	return unread;
}

/* By when they have to have answered: all have been asked together. */
struct limits {
	struct timespec usual, late; /* where the user has let others wait lately */
};

static struct limits limits_from_now(const struct registry *r)
{
	unsigned ms = r->opts.revoke_ms;

	return (struct limits){ clock_after(ms), clock_after(ms < LATE_REVOKE_MS ? ms : LATE_REVOKE_MS) };
}

/* Until nobody is waited for, or the time of the first one is over: that one. (l) */
static struct holding *wait_for_some(struct change *c, const struct limits *limits)
{
	struct holding *h;

	while ((h = waits_for(c))) {
		const struct timespec *limit = user_is_late(h->session->user) ? &limits->late :
										&limits->usual;
		int rc = pthread_cond_timedwait(&c->file->moved, &c->r->lock, limit);

		if (rc == ETIMEDOUT && waits_for(c) == h)
			break;
	}
	return h;
}

/* Until nobody holds anything there, or is lost. (l) */
static void wait_for_all(struct change *c)
{
	struct limits limits = limits_from_now(c->r);
	bool again = true;
	struct holding *h;

	if (sabotage_point("registry-ack"))
		return;
	while ((h = wait_for_some(c, &limits))) {
		/* One that ends just now is on its way out, and its shadows with it. */
		if (h->session->ended) {
			pthread_cond_wait(&c->file->moved, &c->r->lock);
		} else if (again && is_unread(h->session)) {
			again = false;
			limits = limits_from_now(c->r);
		} else {
			struct session *s = h->session;

			session_late(s);
			session_lose(s);
		}
	}
	for (h = c->file->first; h && c->change == FS_CHANGE_MOVE; h = h->next) {
		if (h->session->lost && holding_has(h, c->lo, c->hi, true))
			atomic_store(&h->displaced, true);
	}
}

static void change_leave(struct registry *r, struct mapped_file *file)
{
	assert(file->changing > 0);
	if (--file->changing == 0)
		pthread_cond_broadcast(&file->moved);
	file_put(r, file);
}

int change_begin(void *arg, uint64_t ino, uint64_t lo, uint64_t hi, enum fs_change change)
{
	struct registry *r = arg;
	struct change c = {
		.r = r, .lo = lo, .hi = hi, .change = change, .write_only = fs_change_leaves_reads(change)
	};
	int rc;

	thread_register();
	pthread_mutex_lock(&r->lock);
	rc = file_get(r, ino, &c.file);
	if (!rc) {
		c.file->changing++;
		rc = stuck_wait(&c);
		if (!rc)
			rc = ask_all(&c);
		if (!rc) {
			pthread_mutex_unlock(&r->lock);
			send_all(&c);
			pthread_mutex_lock(&r->lock);
			wait_for_all(&c);
			rc = stuck_wait(&c);
		}
		if (rc)
			change_leave(r, c.file);
	}
	pthread_mutex_unlock(&r->lock);
	free(c.asked);
	return rc;
}

void change_end(void *arg, uint64_t ino, uint64_t lo, uint64_t hi, enum fs_change change)
{
	struct registry *r = arg;
	struct mapped_file *file;

	(void)lo;
	(void)hi;
	(void)change;
	thread_register();
	pthread_mutex_lock(&r->lock);
	urcu_memb_read_lock();
	file = file_find(r, ino);
	urcu_memb_read_unlock();
	assert(file);
	change_leave(r, file);
	pthread_mutex_unlock(&r->lock);
}

int registry_invalidate(struct registry *r, uint64_t ino, uint64_t lo_blk, uint64_t hi_blk)
{
	int rc = change_begin(r, ino, lo_blk, hi_blk, FS_CHANGE_MOVE);

	if (!rc)
		change_end(r, ino, lo_blk, hi_blk, FS_CHANGE_MOVE);
	return rc;
}

/* ---- answers ---- */

void session_ack(struct session *s, uint64_t id)
{
	struct registry *r = s->registry;
	struct pending *p;
	struct revoke v;
	int rc;

	thread_register();
	pthread_mutex_lock(&r->lock);
	p = pending_find(s, id);
	if (p)
		v = p->revoke;
	pthread_mutex_unlock(&r->lock);
	if (!p)
		return;
	/* The revoke goes last: until then nothing is granted there. */
	rc = holding_release(s, v.handle, v.lo_blk, v.hi_blk, v.write_only);
	pthread_mutex_lock(&r->lock);
	p = pending_find(s, id);
	if (p && rc == -ENOMEM) {
		/* What cannot be noted has not been said. */
		session_lose(s);
	} else if (p) {
		pthread_cond_broadcast(&p->holding->file->moved);
		pending_free(p);
	}
	pthread_mutex_unlock(&r->lock);
}
