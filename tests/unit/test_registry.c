/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The registry of direct mappings over files that stand in: each answer that a client can give or not give, at random against tables, many sessions, a million
 * shadows. UMBRA_SEED replays a run.
 */
#include <errno.h>
#include <malloc.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "registry/priv.h"
#include "registry_world.h"

#define LONG_MS 60000u /* nobody waits for that long */

static bool is_pid(void *arg, pid_t pid)
{
	return pid == *(const pid_t *)arg;
}

static struct registry_stats stats_of(struct world *w)
{
	struct registry_stats stats;

	registry_get_stats(w->r, &stats);
	return stats;
}

static void start(struct client *c, enum manner manner, uint64_t ino)
{
	client_start(c, manner, true);
	assert_int_equal(client_attach(c, ino, true), 0);
}

/* ---- one thing at a time ---- */

static void test_grant(void **unused)
{
	struct world w;
	struct client *c;
	uint32_t handle;

	(void)unused;
	world_open(&w, 2, LONG_MS);
	c = &w.clients[0];
	world_fill(&w, 1, 10);
	start(c, CLIENT_PROMPT, 1);
	assert_int_equal(client_grant(c, 1, 0, 20, false, false), 0);
	assert_true(c->pages[1][9].have && c->pages[1][9].dev_blk == w.fake->files[1].map[9] &&
		    !c->pages[1][9].write);
	assert_true(c->pages[1][10].have && c->pages[1][10].dev_blk == 0);
	assert_false(registry_is_stored(w.r, 1));
	world_check(&w);
	/* To be stored to: the hole is filled, for which it lets go first. */
	assert_int_equal(client_grant(c, 1, 8, 12, true, true), 0);
	assert_true(c->pages[1][10].write && c->pages[1][10].dev_blk != 0);
	assert_true(registry_is_stored(w.r, 1));
	assert_int_equal(c->revokes, 0);
	world_check(&w);
	/* Without letting go it is asked to, as others are. */
	assert_int_equal(client_grant(c, 1, 12, 13, true, false), 0);
	assert_int_equal(c->revokes, 1);
	world_check(&w);
	/* Asked for to be read it may be stored to still, until it lets go. */
	assert_int_equal(client_grant(c, 1, 0, 20, false, false), 0);
	assert_true(registry_is_stored(w.r, 1));
	world_check(&w);
	assert_int_equal(client_release(c, 1, 5, 11), 0);
	world_check(&w);
	assert_int_equal(session_attach(c->s, 1, false, &handle), 0);
	assert_int_equal(handle, c->handles[1]);
	assert_int_equal(session_detach(c->s, handle), 0);
	world_check(&w);
	client_detach(c, 1);
	world_check(&w);
	assert_int_equal(stats_of(&w).shadows + stats_of(&w).masters + w.fake->files[1].holds, 0);
	world_close(&w);
}

static void test_grant_errors(void **unused)
{
	struct world w;
	struct client *c;
	uint32_t handle;

	(void)unused;
	world_open(&w, 2, LONG_MS);
	c = &w.clients[0];
	world_fill(&w, 1, 10);
	client_start(c, CLIENT_PROMPT, false);
	assert_int_equal(session_attach(c->s, FAKE_FILES + 1, false, &handle), -ESTALE);
	assert_int_equal(client_grant(c, 1, 0, 1, false, false), -EBADF);
	assert_int_equal(session_release(c->s, 7, 0, 1), -EBADF);
	assert_int_equal(session_detach(c->s, 7), -EBADF);
	assert_int_equal(client_attach(c, 1, true), 0);
	assert_int_equal(client_grant(c, 1, 0, 1, true, false), -EACCES);
	assert_int_equal(client_grant(c, 1, 1, 1, false, false), -EINVAL);
	assert_int_equal(c->answers, 0);
	start(&w.clients[1], CLIENT_PROMPT, 1);
	w.fake->storable_rc = -ENOSPC;
	assert_int_equal(client_grant(&w.clients[1], 1, 0, 1, true, false), -ENOSPC);
	w.fake->storable_rc = 0;
	w.r->opts.shadows_max = 1;
	world_fill(&w, 2, 1);
	assert_int_equal(client_attach(&w.clients[1], 2, true), 0);
	assert_int_equal(client_grant(&w.clients[1], 2, 0, 2, false, false), -EMFILE);
	w.r->opts.holdings_max = 2;
	assert_int_equal(client_attach(&w.clients[1], 3, true), -EMFILE);
	world_check(&w);
	/* An answer that does not arrive. */
	w.r->opts.shadows_max = 100;
	w.clients[1].deaf = true;
	assert_int_equal(client_grant(&w.clients[1], 2, 0, 1, true, false), -ENOTCONN);
	assert_int_equal(w.clients[1].lost, 1);
	assert_int_equal(client_grant(&w.clients[1], 2, 0, 1, true, false), -ENOTCONN);
	assert_int_equal(client_attach(&w.clients[1], 4, true), -ENOTCONN);
	world_close(&w);
}

/* What sessions of one user have together is limited, but root's. */
static void test_user(void **unused)
{
	struct world w;
	struct client *a, *b;

	(void)unused;
	world_open(&w, 2, LONG_MS);
	a = &w.clients[0];
	b = &w.clients[1];
	world_fill(&w, 1, 4);
	world_fill(&w, 2, 4);
	a->uid = b->uid = 1;
	start(a, CLIENT_PROMPT, 1);
	start(b, CLIENT_PROMPT, 1);
	w.r->opts.user_times = 1;
	w.r->opts.shadows_max = 2;
	assert_int_equal(client_grant(a, 1, 0, 1, false, false), 0);
	assert_int_equal(client_grant(a, 1, 2, 3, false, false), 0);
	assert_int_equal(client_grant(b, 1, 0, 1, false, false), -EMFILE);
	assert_int_equal(client_release(a, 1, 0, 1), 0);
	assert_int_equal(client_grant(b, 1, 0, 1, false, false), 0);
	w.r->opts.shadows_max = 100;
	w.r->opts.holdings_max = 2;
	assert_int_equal(client_attach(b, 2, true), -EMFILE);
	client_end(a, true);
	assert_int_equal(client_attach(b, 2, true), 0);
	client_start(a, CLIENT_PROMPT, true);
	assert_int_equal(client_attach(a, 1, true), -EMFILE);
	a->s->who.uid = 0;
	assert_int_equal(client_attach(a, 1, true), 0);
	world_check(&w);
	world_close(&w);
}

static void test_move(void **unused)
{
	struct world w;
	struct client *a, *b;

	(void)unused;
	world_open(&w, 2, LONG_MS);
	a = &w.clients[0];
	b = &w.clients[1];
	world_fill(&w, 1, 30);
	start(a, CLIENT_PROMPT, 1);
	start(b, CLIENT_PROMPT, 1);
	assert_int_equal(client_grant(a, 1, 0, 40, true, false), 0);
	assert_int_equal(client_grant(b, 1, 10, 20, false, false), 0);
	a->revokes = 0; /* of the hole that it had filled */
	assert_int_equal(fake_move(w.fs, 1, 0, 5, false), 0);
	assert_int_equal(a->revokes, 1);
	assert_int_equal(b->revokes, 0);
	world_check(&w);
	/* A hole is held too; who holds nothing is not asked. */
	assert_int_equal(client_grant(b, 1, 0, 5, false, false), 0);
	assert_int_equal(fake_move(w.fs, 1, 2, 4, true), 0);
	assert_int_equal(a->revokes, 1);
	assert_int_equal(b->revokes, 1);
	assert_true(b->pages[1][1].have && !b->pages[1][2].have && b->pages[1][4].have);
	world_check(&w);
	/* One message for many pieces. */
	assert_int_equal(registry_invalidate(w.r, 1, 0, UINT64_MAX), 0);
	assert_int_equal(a->revokes, 2);
	assert_int_equal(b->revokes, 2);
	assert_int_equal(stats_of(&w).shadows, 0);
	world_check(&w);
	world_close(&w);
}

static void test_share(void **unused)
{
	struct world w;
	struct client *a, *b;

	(void)unused;
	world_open(&w, 2, LONG_MS);
	a = &w.clients[0];
	b = &w.clients[1];
	world_fill(&w, 1, 30);
	start(a, CLIENT_PROMPT, 1);
	start(b, CLIENT_PROMPT, 1);
	assert_int_equal(client_grant(a, 1, 0, 30, true, false), 0);
	assert_int_equal(client_grant(b, 1, 0, 30, false, false), 0);
	assert_int_equal(fake_share(w.fs, 1, 2, 5, 10), 0);
	assert_int_equal(b->revokes, 0);
	assert_int_equal(a->revokes, 1);
	assert_true(a->pages[1][5].have && !a->pages[1][5].write && a->pages[1][4].write &&
		    a->pages[1][10].write);
	world_check(&w);
	/* Again: nobody may store there any more, so nobody is asked. */
	assert_int_equal(fake_share(w.fs, 1, 3, 5, 10), 0);
	assert_int_equal(a->revokes, 1);
	world_check(&w);
	/* A store: it lets go of its own, the file gets blocks of its own, the other lets go too. */
	assert_int_equal(client_grant(a, 1, 5, 7, true, true), 0);
	assert_true(a->pages[1][5].write && !b->pages[1][5].have && b->pages[1][7].have);
	world_check(&w);
	world_close(&w);
}

/* The kernel gets pages: nobody stores beside them, others go on; who does not answer keeps nobody from reading. */
static void test_lend(void **unused)
{
	struct world w;
	struct client *a, *b, *c;

	(void)unused;
	world_open(&w, 3, 20);
	a = &w.clients[0];
	b = &w.clients[1];
	c = &w.clients[2];
	world_fill(&w, 1, 30);
	start(a, CLIENT_PROMPT, 1);
	start(b, CLIENT_PROMPT, 1);
	start(c, CLIENT_DEAD, 1);
	assert_int_equal(client_grant(a, 1, 0, 10, true, false), 0);
	assert_int_equal(client_grant(b, 1, 0, 30, false, false), 0);
	assert_int_equal(client_grant(c, 1, 10, 30, true, false), 0);
	assert_int_equal(fake_lend(w.fs, 1, 5, 10, false), 0);
	assert_int_equal(a->revokes, 1);
	assert_int_equal(b->revokes, 0);
	assert_true(a->pages[1][5].have && !a->pages[1][5].write && a->pages[1][4].write);
	world_check(&w);
	assert_int_equal(fake_lend(w.fs, 1, 5, 10, false), 0);
	assert_int_equal(a->revokes, 1);
	assert_int_equal(fake_lend(w.fs, 1, 8, 12, true), 0);
	assert_true(!a->pages[1][8].have && a->pages[1][7].have && !b->pages[1][11].have);
	assert_int_equal(c->lost, 1);
	assert_int_equal(fake_lend(w.fs, 1, 8, 20, false), 0);
	assert_int_equal(fake_lend(w.fs, 1, 8, 20, true), 0);
	assert_int_equal(c->revokes, 1);
	/* What it has lies where it did: only that cannot be shared. */
	assert_int_equal(fake_share(w.fs, 1, 2, 12, 14), -EBUSY);
	assert_int_equal(fake_share(w.fs, 1, 2, 2, 4), 0);
	world_check(&w);
	world_close(&w);
}

struct sharing {
	struct world *w;
	int rc;
	_Atomic bool done;
};

static void *share_run(void *arg)
{
	struct sharing *s = arg;

	s->rc = fake_share(s->w->fs, 1, 2, 3, 6);
	atomic_store(&s->done, true);
	return NULL;
}

static bool is_changing(struct world *w)
{
	struct mapped_file *file;
	bool is = false;

	pthread_mutex_lock(&w->r->lock);
	if (!file_get(w->r, 1, &file)) {
		is = file->changing > 0;
		file_put(w->r, file);
	}
	pthread_mutex_unlock(&w->r->lock);
	return is;
}

/* A process ends: what it could store to can be shared as soon as it is gone, and whoever wants that waits. */
static void test_dying(void **unused)
{
	const struct timespec moment = { .tv_nsec = 1000000 };
	struct sharing sharing = { 0 };
	pthread_t thread;
	struct world w;
	pid_t pid;

	(void)unused;
	world_open(&w, 1, 60000);
	sharing.w = &w;
	world_fill(&w, 1, 30);
	start(&w.clients[0], CLIENT_PROMPT, 1);
	pid = w.clients[0].pid;
	assert_int_equal(client_grant(&w.clients[0], 1, 0, 20, true, false), 0);
	client_end(&w.clients[0], false);
	assert_int_equal(pthread_create(&thread, NULL, share_run, &sharing), 0);
	while (!is_changing(&w) && !atomic_load(&sharing.done))
		nanosleep(&moment, NULL);
	assert_int_equal(registry_reap(w.r, is_pid, NULL, &pid), 0);
	pthread_join(thread, NULL);
	assert_int_equal(sharing.rc, 0);
	world_close(&w);
}

static void test_dead(void **unused)
{
	struct world w;
	struct client *a, *b;
	uint64_t old;
	pid_t pid;

	(void)unused;
	world_open(&w, 3, 20);
	a = &w.clients[0];
	b = &w.clients[1];
	world_fill(&w, 1, 30);
	start(a, CLIENT_DEAD, 1);
	start(b, CLIENT_PROMPT, 1);
	assert_int_equal(client_grant(a, 1, 0, 20, true, false), 0);
	assert_int_equal(client_grant(b, 1, 0, 20, false, false), 0);
	old = w.fake->files[1].map[3];
	/* What cannot be made safe is refused. */
	assert_int_equal(fake_share(w.fs, 1, 2, 3, 6), -EBUSY);
	assert_int_equal(a->lost, 1);
	assert_int_equal(a->revokes, 1);
	world_check(&w);
	/* It is not asked again; what it has is kept. */
	assert_int_equal(fake_move(w.fs, 1, 3, 6, true), 0);
	assert_int_equal(a->lost, 1);
	assert_int_equal(a->revokes, 1);
	assert_int_equal(w.fake->use[old], FAKE_KEPT);
	assert_int_equal(stats_of(&w).quarantine_blk, 3);
	world_check(&w);
	assert_int_equal(fake_share(w.fs, 1, 2, 3, 6), -EBUSY);
	assert_int_equal(client_grant(a, 1, 0, 1, false, false), -ENOTCONN);
	/* Beside its range too, since the file changed there. */
	assert_int_equal(fake_share(w.fs, 1, 2, 25, 26), -EBUSY);
	/* A late answer changes nothing. */
	session_ack(a->s, 1);
	session_ack(a->s, 77);
	world_check(&w);
	assert_int_equal(stats_of(&w).late, 1);
	assert_int_equal(stats_of(&w).orphans, 1);
	client_end(a, false);
	pid = 1;
	assert_int_equal(registry_reap(w.r, is_pid, NULL, &pid), 1);
	assert_int_equal(w.fake->use[old], FAKE_KEPT);
	world_check(&w);
	pid = a->pid;
	assert_int_equal(registry_reap(w.r, is_pid, NULL, &pid), 0);
	assert_int_equal(w.fake->use[old], FAKE_FREE);
	memset(a->pages, 0, sizeof(a->pages));
	assert_int_equal(fake_share(w.fs, 1, 2, 3, 6), 0);
	world_check(&w);
	world_close(&w);
}

/* A user who has let others wait does so once: then he gets no sessions for a while, and nobody waits long for those that he has. Root does not count. */
static void test_late(void **unused)
{
	const struct session_who who = { .pid = 77, .uid = 5 }, other = { .pid = 78, .uid = 6 };
	const struct session_ops none = { 0 };
	struct world w;
	struct session *s;

	(void)unused;
	world_open(&w, 3, 20);
	world_fill(&w, 1, 30);
	world_fill(&w, 2, 30);
	w.clients[0].uid = w.clients[1].uid = 5;
	start(&w.clients[0], CLIENT_DEAD, 1);
	start(&w.clients[1], CLIENT_DEAD, 2);
	start(&w.clients[2], CLIENT_DEAD, 1);
	for (unsigned i = 0; i < 2; i++)
		assert_int_equal(client_grant(&w.clients[i], i + 1, 0, 20, false, false), 0);
	/* Who dies lets nobody wait on purpose. */
	w.clients[0].gone = true;
	assert_int_equal(fake_move(w.fs, 1, 3, 6, true), 0);
	assert_int_equal(w.clients[0].lost, 1);
	assert_int_equal(session_new(w.r, &who, &none, NULL, &s), 0);
	session_end(s, true);
	client_end(&w.clients[0], false);
	assert_int_equal(registry_reap(w.r, is_pid, NULL, &w.clients[0].pid), 0);
	w.clients[0].gone = false;
	start(&w.clients[0], CLIENT_DEAD, 1);
	assert_int_equal(client_grant(&w.clients[0], 1, 0, 20, false, false), 0);
	assert_int_equal(fake_move(w.fs, 1, 3, 6, true), 0);
	assert_int_equal(w.clients[0].lost, 1);
	assert_int_equal(session_new(w.r, &who, &none, NULL, &s), -EBUSY);
	/* As if for ever: it comes to its end all the same. */
	w.r->opts.revoke_ms = 1000000;
	assert_int_equal(fake_move(w.fs, 2, 3, 6, true), 0);
	assert_int_equal(w.clients[1].lost, 1);
	world_check(&w);
	for (unsigned i = 0; i < 2; i++) {
		client_end(&w.clients[i], false);
		assert_int_equal(registry_reap(w.r, is_pid, NULL, &w.clients[i].pid), 0);
	}
	/* Also when none of his is left. */
	assert_int_equal(session_new(w.r, &who, &none, NULL, &s), -EBUSY);
	assert_int_equal(session_new(w.r, &other, &none, NULL, &s), 0);
	session_end(s, true);
	w.r->opts.revoke_ms = 20;
	assert_int_equal(client_grant(&w.clients[2], 1, 0, 20, false, false), 0);
	assert_int_equal(fake_move(w.fs, 1, 3, 6, true), 0);
	assert_int_equal(w.clients[2].lost, 1);
	client_end(&w.clients[2], false);
	client_start(&w.clients[2], CLIENT_PROMPT, true);
	world_close(&w);
}

/* Two have a block that is free: the first of them that goes does not give it back. */
static void test_quarantine(void **unused)
{
	struct world w;
	uint64_t blk;

	(void)unused;
	world_open(&w, 2, 20);
	world_fill(&w, 1, 10);
	for (unsigned i = 0; i < 2; i++) {
		start(&w.clients[i], CLIENT_DEAD, 1);
		assert_int_equal(client_grant(&w.clients[i], 1, i * 2, 6 + i * 2, false, false), 0);
	}
	blk = w.fake->files[1].map[4];
	assert_int_equal(fake_move(w.fs, 1, 0, 10, false), 0);
	assert_int_equal(w.fake->kept_blk, 8);
	world_check(&w);
	client_end(&w.clients[0], true);
	assert_int_equal(w.fake->use[blk], FAKE_KEPT);
	assert_int_equal(w.fake->kept_blk, 6);
	world_check(&w);
	client_end(&w.clients[1], true);
	assert_int_equal(w.fake->kept_blk, 0);
	world_check(&w);
	world_close(&w);
}

static void test_refusing(void **unused)
{
	struct world w;

	(void)unused;
	world_open(&w, 2, LONG_MS);
	world_fill(&w, 1, 10);
	start(&w.clients[0], CLIENT_REFUSING, 1);
	start(&w.clients[1], CLIENT_PROMPT, 1);
	for (unsigned i = 0; i < 2; i++)
		assert_int_equal(client_grant(&w.clients[i], 1, 0, 10, true, false), 0);
	assert_int_equal(fake_move(w.fs, 1, 0, 10, false), 0);
	assert_int_equal(w.clients[0].lost, 1);
	assert_int_equal(w.clients[1].lost, 0);
	assert_int_equal(w.fake->kept_blk, 10);
	world_check(&w);
	world_close(&w);
}

/* A change begins between the look at the file and the pieces that are taken: the grant waits, and begins again. */
struct crossing {
	struct world *w;
	pthread_t thread;
	unsigned rounds;
};

/* When the grant waits for it: a user of the file beside the holding and the change. */
static void *end_change(void *arg)
{
	const struct timespec moment = { .tv_nsec = 1000000 };
	struct world *w = arg;
	struct mapped_file *file;
	unsigned users = 0;

	thread_register();
	while (users != 3) {
		nanosleep(&moment, NULL);
		pthread_mutex_lock(&w->r->lock);
		if (!file_get(w->r, 1, &file)) {
			users = file->users - 1;
			file_put(w->r, file);
		}
		pthread_mutex_unlock(&w->r->lock);
	}
	change_end(w->r, 1, 0, 1, FS_CHANGE_MOVE);
	return NULL;
}

static void begin_change(void *arg)
{
	struct crossing *x = arg;

	if (x->rounds++ > 0)
		return;
	assert_int_equal(change_begin(x->w->r, 1, 0, 1, FS_CHANGE_MOVE), 0);
	assert_int_equal(pthread_create(&x->thread, NULL, end_change, x->w), 0);
}

static void test_crossing(void **unused)
{
	struct world w;
	struct crossing x = { .w = &w };

	(void)unused;
	world_open(&w, 1, LONG_MS);
	world_fill(&w, 1, 10);
	start(&w.clients[0], CLIENT_PROMPT, 1);
	w.fake->between = begin_change;
	w.fake->between_arg = &x;
	assert_int_equal(client_grant(&w.clients[0], 1, 0, 10, false, false), 0);
	pthread_join(x.thread, NULL);
	assert_int_equal(x.rounds, 2);
	assert_int_equal(w.clients[0].answers, 1);
	world_check(&w);
	world_close(&w);
}

/* ---- many ---- */

static void test_thousand(void **unused)
{
	enum { SESSIONS = 1000 };
	struct world w;
	unsigned revokes = 0;

	(void)unused;
	world_open(&w, SESSIONS, LONG_MS);
	world_fill(&w, 1, 20);
	for (unsigned i = 0; i < SESSIONS; i++) {
		start(&w.clients[i], CLIENT_PROMPT, 1);
		assert_int_equal(client_grant(&w.clients[i], 1, i % 5, 20 - i % 7, i % 3 == 0, false), 0);
	}
	assert_int_equal(fake_share(w.fs, 1, 2, 0, 20), 0);
	for (unsigned i = 0; i < SESSIONS; i++)
		revokes += w.clients[i].revokes;
	assert_int_equal(revokes, (SESSIONS + 2) / 3);
	assert_int_equal(fake_move(w.fs, 1, 0, 10, true), 0);
	for (unsigned i = 0; i < SESSIONS; i += 111)
		assert_true(!w.clients[i].pages[1][9].have && w.clients[i].pages[1][10].have);
	for (unsigned i = 0; i < SESSIONS; i++)
		client_end(&w.clients[i], true);
	world_check(&w);
	world_close(&w);
}

static double seconds(void)
{
	struct timespec t;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* Every second page of a large file, one by one: shadows that do not touch, each with its master. */
static void test_million(void **unused)
{
	enum { COUNT = 1000000, LOOKUPS = 300000 };
	struct mallinfo2 before, after;
	struct registry_stats stats;
	uint64_t blk = 12345, found = 0;
	struct world w;
	double begin;
	bool held;

	(void)unused;
	world_open(&w, 1, LONG_MS);
	w.fake->big_blk = 2 * COUNT + 2;
	start(&w.clients[0], CLIENT_PROMPT, 1);
	urcu_memb_barrier();
	before = mallinfo2();
	for (uint64_t i = 0; i < COUNT; i++)
		assert_int_equal(client_grant(&w.clients[0], 1, i * 7919 % COUNT * 2,
					      i * 7919 % COUNT * 2 + 1, false, false),
				 0);
	urcu_memb_barrier();
	after = mallinfo2();
	stats = stats_of(&w);
	printf("# %.1f bytes a shadow, by the allocator %.1f\n", (double)stats.bytes / COUNT,
	       (double)(after.uordblks - before.uordblks) / COUNT);
	assert_int_equal(stats.shadows, COUNT);
	assert_int_equal(stats.masters, COUNT);
	assert_true(stats.bytes <= 100ull * COUNT);
	assert_true(after.uordblks - before.uordblks <= 100ull * COUNT);
	begin = seconds();
	for (unsigned i = 0; i < LOOKUPS; i++) {
		blk = (blk * 6364136223846793005ull + 1442695040888963407ull) >> 1;
		found += change_held(w.r, 1, blk % (2 * COUNT), blk % (2 * COUNT) + 1, FS_CHANGE_MOVE);
	}
	printf("# held: %.0f ns\n", (seconds() - begin) * 1e9 / LOOKUPS);
	assert_true(found > 0 && found < LOOKUPS);
	begin = seconds();
	for (unsigned i = 0; i < LOOKUPS; i++) {
		blk = (blk * 6364136223846793005ull + 1442695040888963407ull) >> 1;
		/* Odd pages are nobody's, and are one block behind in the device. */
		assert_int_equal(masters_keep(w.r, blk % COUNT * 2 + 2, 1, &held), 1);
		assert_false(held);
	}
	printf("# keep: %.0f ns\n", (seconds() - begin) * 1e9 / LOOKUPS);
	client_end(&w.clients[0], true);
	assert_int_equal(stats_of(&w).shadows + stats_of(&w).masters, 0);
	world_close(&w);
}

/* ---- at random ---- */

enum { CLIENTS = 6, STEPS = 4000 };

static uint64_t rng;

static uint64_t pick(uint64_t below)
{
	uint64_t x = rng += 0x9e3779b97f4a7c15ull;

	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9ull;
	x = (x ^ x >> 27) * 0x94d049bb133111ebull;
	return (x ^ x >> 31) % below;
}

/* Starts it where it has ended and been reaped. */
static void maybe_start(struct client *c)
{
	static const enum manner manners[] = { CLIENT_PROMPT, CLIENT_PROMPT, CLIENT_PROMPT,
					       CLIENT_PROMPT, CLIENT_DEAD,   CLIENT_REFUSING };
	pid_t pid = c->pid;

	registry_reap(c->w->r, is_pid, NULL, &pid);
	client_start(c, manners[pick(ARRAY_SIZE(manners))], pick(4) != 0);
}

static void expect(int rc, const int *allowed, unsigned count)
{
	for (unsigned i = 0; i < count; i++) {
		if (rc == allowed[i])
			return;
	}
	assert_int_equal(rc, 0);
}

static void client_step(struct client *c)
{
	static const int grant_errors[] = { -EACCES, -ENOSPC, -EBUSY, -ENOTCONN };
	static const int attach_errors[] = { -ENOTCONN };
	uint64_t ino = 1 + pick(FAKE_FILES), lo = pick(FAKE_FILE_BLK), hi = lo + 1 + pick(FAKE_FILE_BLK / 2);
	bool write = pick(2), release = pick(2);
	int rc;

	if (c->ended) {
		maybe_start(c);
		return;
	}
	if (!c->handles[ino]) {
		rc = client_attach(c, ino, write);
		expect(rc, attach_errors, ARRAY_SIZE(attach_errors));
		return;
	}
	switch (pick(12)) {
	case 0:
		if (c->lost == 0)
			client_detach(c, ino);
		break;
	case 1:
		if (c->lost == 0)
			assert_int_equal(client_release(c, ino, lo, hi), 0);
		break;
	case 2:
		if (pick(3) == 0)
			client_end(c, c->lost == 0 && pick(3));
		break;
	default:
		if (c->lost)
			break;
		rc = client_grant(c, ino, lo, hi, write, release);
		expect(rc, grant_errors, ARRAY_SIZE(grant_errors));
	}
}

static void file_step(struct world *w)
{
	static const int move_errors[] = { -ENOSPC };
	static const int share_errors[] = { -EBUSY };
	uint64_t ino = 1 + pick(FAKE_FILES), to = 1 + pick(FAKE_FILES), lo = pick(FAKE_FILE_BLK);
	uint64_t hi = lo + 1 + pick(FAKE_FILE_BLK / 2);
	bool fill = pick(3) != 0;
	int rc;

	switch (pick(4)) {
	case 0:
		if (to == ino)
			break;
		rc = fake_share(w->fs, ino, to, lo, hi);
		expect(rc, share_errors, ARRAY_SIZE(share_errors));
		break;
	case 1:
		assert_int_equal(registry_invalidate(w->r, ino, lo, hi), 0);
		break;
	default:
		rc = fake_move(w->fs, ino, lo, hi, fill);
		expect(rc, move_errors, ARRAY_SIZE(move_errors));
	}
}

static void test_random(void **unused)
{
	const char *given = getenv("UMBRA_SEED");
	struct world w;

	(void)unused;
	rng = given ? strtoull(given, NULL, 0) : (uint64_t)time(NULL) * 2654435761u;
	printf("# UMBRA_SEED=%llu\n", (unsigned long long)rng);
	world_open(&w, CLIENTS, 1);
	for (unsigned i = 0; i < STEPS; i++) {
		if (pick(3))
			client_step(&w.clients[pick(CLIENTS)]);
		else
			file_step(&w);
		world_check(&w);
	}
	world_close(&w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_grant),      cmocka_unit_test(test_grant_errors),
		cmocka_unit_test(test_user),       cmocka_unit_test(test_move),
		cmocka_unit_test(test_share),      cmocka_unit_test(test_dead),
		cmocka_unit_test(test_dying),      cmocka_unit_test(test_late),
		cmocka_unit_test(test_quarantine), cmocka_unit_test(test_refusing),
		cmocka_unit_test(test_crossing),   cmocka_unit_test(test_thousand),
		cmocka_unit_test(test_random),     cmocka_unit_test(test_million),
		cmocka_unit_test(test_lend),
	};
	const char *only = getenv("UMBRA_TEST_ONLY");

	if (only && only[0] == '!')
		cmocka_set_skip_filter(only + 1);
	else
		cmocka_set_test_filter(only);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
