/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The registry with many at work: clients that ask, release, come and go, others that answer for them, and changes of the same files.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include <cmocka.h>

#include "registry/priv.h"
#include "registry_world.h"

enum { CLIENTS = 6, CHANGERS = 2, STEPS = 1500, BLOCKS = 24, FILES = 3 };

struct run {
	struct world w;
	pthread_mutex_t lock;
	pthread_cond_t told;
	unsigned asked; /* messages that the answering thread has not looked for */
	bool stop;
	_Atomic unsigned wrong, unexpected;
};
struct actor {
	struct run *run;
	struct client *c; /* NULL: changes files */
	uint64_t rng;
	unsigned done;
};

static uint64_t pick(struct actor *a, uint64_t below)
{
	a->rng = a->rng * 6364136223846793005ull + 1442695040888963407ull;
	return (a->rng >> 33) % below;
}

static void told(void *arg, struct client *c)
{
	struct run *run = arg;

	(void)c;
	pthread_mutex_lock(&run->lock);
	run->asked++;
	pthread_cond_signal(&run->told);
	pthread_mutex_unlock(&run->lock);
}

static void *answer_run(void *arg)
{
	struct run *run = arg;

	pthread_mutex_lock(&run->lock);
	while (!run->stop) {
		if (run->asked == 0) {
			pthread_cond_wait(&run->told, &run->lock);
			continue;
		}
		run->asked = 0;
		pthread_mutex_unlock(&run->lock);
		for (unsigned i = 0; i < CLIENTS; i++)
			client_answer(&run->w.clients[i]);
		pthread_mutex_lock(&run->lock);
	}
	pthread_mutex_unlock(&run->lock);
	return NULL;
}

/* Its own callback comes later than what others see of it. */
static bool is_lost(const struct client *c)
{
	return c->lost || (!c->ended && atomic_load(&c->s->lost));
}

/* Nobody who answers has anything there. */
static void nobody_has(void *arg, uint64_t ino, uint64_t lo, uint64_t hi, enum fs_change change)
{
	struct run *run = arg;

	for (unsigned i = 0; i < CLIENTS; i++) {
		struct client *c = &run->w.clients[i];

		if (is_lost(c))
			continue;
		pthread_mutex_lock(&c->lock);
		for (uint64_t b = lo; b < hi && b < FAKE_FILE_BLK; b++) {
			const struct page *page = &c->pages[ino][b];

			if (page->have && (page->write || !fs_change_leaves_reads(change)))
				run->wrong++;
		}
		pthread_mutex_unlock(&c->lock);
	}
}

static void client_step(struct actor *a)
{
	uint64_t ino = 1 + pick(a, FILES), lo = pick(a, BLOCKS), hi = lo + 1 + pick(a, BLOCKS);
	unsigned what = (unsigned)pick(a, 8);
	bool write = pick(a, 2), release = pick(a, 2);
	int rc;

	if (!a->c->handles[ino])
		rc = client_attach(a->c, ino, true);
	else if (what == 0)
		rc = client_release(a->c, ino, lo, hi);
	else
		rc = client_grant(a->c, ino, lo, hi, write, release);
	if (rc && rc != -ENOSPC && !(rc == -ENOTCONN && is_lost(a->c)) && !(rc == -EBUSY && write))
		a->run->unexpected++;
}

static void file_step(struct actor *a)
{
	uint64_t ino = 1 + pick(a, FILES), to = 1 + pick(a, FILES), lo = pick(a, BLOCKS),
		 hi = lo + 1 + pick(a, BLOCKS);
	unsigned what = (unsigned)pick(a, 7);
	bool fill = pick(a, 2);
	int rc = 0;

	registry_is_stored(a->run->w.r, ino);
	if (what == 0)
		rc = registry_invalidate(a->run->w.r, ino, lo, hi);
	else if (what == 1)
		rc = fake_lend(a->run->w.fs, ino, lo, hi, fill);
	else if (what < 4 && to != ino)
		rc = fake_share(a->run->w.fs, ino, to, lo, hi);
	else
		rc = fake_move(a->run->w.fs, ino, lo, hi, fill);
	/* Both files of a share are asked one after the other: what the first has been asked for may come back meanwhile. */
	if (rc && rc != -ENOSPC && rc != -EBUSY)
		a->run->unexpected++;
}

static void *actor_run(void *arg)
{
	struct actor *a = arg;

	for (; a->done < STEPS; a->done++) {
		if (a->c)
			client_step(a);
		else
			file_step(a);
	}
	return NULL;
}

static void run_all(unsigned revoke_ms, enum manner last)
{
	static const enum manner manners[] = { CLIENT_PROMPT, CLIENT_LATER, CLIENT_LATER };
	struct run run = { .lock = PTHREAD_MUTEX_INITIALIZER, .told = PTHREAD_COND_INITIALIZER };
	struct actor actors[CLIENTS + CHANGERS] = { 0 };
	pthread_t threads[CLIENTS + CHANGERS], answering;

	world_open(&run.w, CLIENTS, revoke_ms);
	run.w.told = told;
	run.w.told_arg = &run;
	run.w.fake->changes = nobody_has;
	run.w.fake->changes_arg = &run;
	for (uint64_t ino = 1; ino <= FILES; ino++)
		world_fill(&run.w, ino, BLOCKS);
	for (unsigned i = 0; i < CLIENTS; i++)
		client_start(&run.w.clients[i], i + 1 == CLIENTS ? last : manners[i % ARRAY_SIZE(manners)],
			     true);
	assert_int_equal(pthread_create(&answering, NULL, answer_run, &run), 0);
	for (unsigned i = 0; i < CLIENTS + CHANGERS; i++) {
		actors[i] = (struct actor){ .run = &run,
					    .c = i < CLIENTS ? &run.w.clients[i] : NULL,
					    .rng = i * 77 + 1 };
		assert_int_equal(pthread_create(&threads[i], NULL, actor_run, &actors[i]), 0);
	}
	for (unsigned i = 0; i < CLIENTS + CHANGERS; i++)
		pthread_join(threads[i], NULL);
	pthread_mutex_lock(&run.lock);
	run.stop = true;
	pthread_cond_signal(&run.told);
	pthread_mutex_unlock(&run.lock);
	pthread_join(answering, NULL);
	assert_int_equal(run.wrong, 0);
	assert_int_equal(run.unexpected, 0);
	world_check(&run.w);
	world_close(&run.w);
}

static void test_all_answer(void **unused)
{
	(void)unused;
	run_all(60000, CLIENT_LATER);
}

static void test_one_dead(void **unused)
{
	(void)unused;
	run_all(5000, CLIENT_REFUSING);
}

/* Two changes of one file overlap: the second does not ask again, and waits too. */
struct overlap {
	struct world w;
	pthread_mutex_t lock;
	pthread_cond_t moved;
	unsigned asked, done;
};

static void overlap_told(void *arg, struct client *c)
{
	struct overlap *o = arg;

	(void)c;
	pthread_mutex_lock(&o->lock);
	o->asked++;
	pthread_cond_broadcast(&o->moved);
	pthread_mutex_unlock(&o->lock);
}

static void *overlap_change(void *arg)
{
	struct overlap *o = arg;
	int rc = registry_invalidate(o->w.r, 1, 2, 8);

	pthread_mutex_lock(&o->lock);
	o->done += rc == 0;
	pthread_cond_broadcast(&o->moved);
	pthread_mutex_unlock(&o->lock);
	return NULL;
}

static unsigned changing(struct world *w)
{
	struct mapped_file *file;
	unsigned count = 0;

	pthread_mutex_lock(&w->r->lock);
	if (!file_get(w->r, 1, &file)) {
		count = file->changing;
		file_put(w->r, file);
	}
	pthread_mutex_unlock(&w->r->lock);
	return count;
}

static void test_overlap(void **unused)
{
	struct overlap o = { .lock = PTHREAD_MUTEX_INITIALIZER, .moved = PTHREAD_COND_INITIALIZER };
	const struct timespec moment = { .tv_nsec = 1000000 };
	pthread_t threads[2];

	(void)unused;
	world_open(&o.w, 1, 60000);
	o.w.told = overlap_told;
	o.w.told_arg = &o;
	world_fill(&o.w, 1, 10);
	client_start(&o.w.clients[0], CLIENT_LATER, true);
	assert_int_equal(client_attach(&o.w.clients[0], 1, true), 0);
	assert_int_equal(client_grant(&o.w.clients[0], 1, 0, 10, true, false), 0);
	for (unsigned i = 0; i < 2; i++) {
		assert_int_equal(pthread_create(&threads[i], NULL, overlap_change, &o), 0);
		while (changing(&o.w) != i + 1)
			nanosleep(&moment, NULL);
	}
	pthread_mutex_lock(&o.lock);
	while (o.asked == 0)
		pthread_cond_wait(&o.moved, &o.lock);
	assert_int_equal(o.done, 0);
	pthread_mutex_unlock(&o.lock);
	/* Its shadows are gone, its answer has not come: they wait for that. */
	assert_int_equal(client_release(&o.w.clients[0], 1, 2, 8), 0);
	assert_int_equal(changing(&o.w), 2);
	assert_int_equal(client_answer(&o.w.clients[0]), 1);
	for (unsigned i = 0; i < 2; i++)
		pthread_join(threads[i], NULL);
	assert_int_equal(o.done, 2);
	assert_int_equal(o.w.clients[0].revokes, 1);
	world_check(&o.w);
	world_close(&o.w);
}

/* What another thread does the moment that this one gives back a lock; once. */
static __thread void (*after_unlock)(void);

int __real_pthread_mutex_unlock(pthread_mutex_t *lock);
int __wrap_pthread_mutex_unlock(pthread_mutex_t *lock);

int __wrap_pthread_mutex_unlock(pthread_mutex_t *lock)
{
	void (*fn)(void) = after_unlock;
	int rc = __real_pthread_mutex_unlock(lock);

	after_unlock = NULL;
	if (fn)
		fn();
	return rc;
}

static struct client *attacher;

static void attach_now(void)
{
	assert_int_equal(client_attach(attacher, 1, true), 0);
}

/* A file is detached while it is attached once more: what has been attached stays. */
static void test_attach_in_detach(void **unused)
{
	struct world w;
	uint32_t handle;

	(void)unused;
	world_open(&w, 1, 60000);
	world_fill(&w, 1, BLOCKS);
	attacher = &w.clients[0];
	client_start(attacher, CLIENT_PROMPT, true);
	assert_int_equal(client_attach(attacher, 1, true), 0);
	handle = attacher->handles[1];
	after_unlock = attach_now;
	assert_int_equal(session_detach(attacher->s, handle), 0);
	assert_null(after_unlock);
	assert_int_equal(client_grant(attacher, 1, 0, 4, true, false), 0);
	world_check(&w);
	client_detach(attacher, 1);
	world_close(&w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_all_answer),
		cmocka_unit_test(test_one_dead),
		cmocka_unit_test(test_overlap),
		cmocka_unit_test(test_attach_in_detach),
	};
	const char *only = getenv("UMBRA_TEST_ONLY");

	if (only && only[0] == '!')
		cmocka_set_skip_filter(only + 1);
	else
		cmocka_set_test_filter(only);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
