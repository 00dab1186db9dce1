/* SPDX-License-Identifier: BSD-3-Clause */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <urcu/urcu-memb.h>

#include "fake_fs.h"

/* Of floors that this stands in for. */
void thread_register(void);
void space_release(struct pool *pool, uint64_t blk, uint64_t count_blk);

static pthread_key_t thread_key;
static pthread_once_t thread_once = PTHREAD_ONCE_INIT;
static _Thread_local bool thread_known;

static void thread_leave(void *unused)
{
	(void)unused;
	urcu_memb_unregister_thread();
}

static void thread_key_make(void)
{
	int rc = pthread_key_create(&thread_key, thread_leave);

	assert(rc == 0);
	(void)rc;
}

void thread_register(void)
{
	if (thread_known)
		return;
	pthread_once(&thread_once, thread_key_make);
	pthread_setspecific(thread_key, &thread_known);
	urcu_memb_register_thread();
	thread_known = true;
}

struct fake_fs *fake_of(struct fs *fs)
{
	return (struct fake_fs *)(void *)fs;
}

struct fs *fake_fs_new(void)
{
	struct fake_fs *f = calloc(1, sizeof(*f));

	assert(f);
	pthread_mutex_init(&f->lock, NULL);
	for (unsigned i = 0; i <= FAKE_FILES; i++)
		pthread_rwlock_init(&f->files[i].lock, NULL);
	f->next = 1;
	f->use[0] = FAKE_USED; /* no file has it: 0 is a hole */
	return (struct fs *)(void *)f;
}

void fake_fs_free(struct fs *fs)
{
	struct fake_fs *f = fake_of(fs);

	for (unsigned i = 0; i <= FAKE_FILES; i++) {
		assert(f->files[i].holds == 0);
		pthread_rwlock_destroy(&f->files[i].lock);
	}
	pthread_mutex_destroy(&f->lock);
	free(f);
}

struct pool *fs_pool(const struct fs *fs)
{
	return (struct pool *)(void *)(uintptr_t)fs;
}

void fs_set_holders(struct fs *fs, const struct fs_holders *holders)
{
	fake_of(fs)->holders = holders;
}

int fs_hold(struct fs *fs, uint64_t ino)
{
	if (ino == 0 || ino > FAKE_FILES)
		return -ESTALE;
	fake_of(fs)->files[ino].holds++;
	return 0;
}

void fs_unhold(struct fs *fs, uint64_t ino)
{
	assert(fake_of(fs)->files[ino].holds > 0);
	fake_of(fs)->files[ino].holds--;
}

/* ---- blocks ---- */

void space_release(struct pool *pool, uint64_t blk, uint64_t count_blk)
{
	struct fake_fs *f = (struct fake_fs *)(void *)pool;

	pthread_mutex_lock(&f->lock);
	for (uint64_t b = blk; b < blk + count_blk; b++) {
		if (f->use[b] != FAKE_KEPT)
			f->bad_release++;
		f->use[b] = FAKE_FREE;
		f->kept_blk--;
	}
	pthread_mutex_unlock(&f->lock);
}

/* 0: there is none. */
static uint64_t block_take(struct fake_fs *f)
{
	uint64_t blk = 0;

	pthread_mutex_lock(&f->lock);
	for (unsigned i = 0; i < FAKE_DEV_BLK && !blk; i++) {
		f->next = f->next % (FAKE_DEV_BLK - 1) + 1;
		if (f->use[f->next] == FAKE_FREE)
			blk = f->next;
	}
	if (blk) {
		f->use[blk] = FAKE_USED;
		f->refs[blk] = 1;
	}
	pthread_mutex_unlock(&f->lock);
	return blk;
}

static void block_share(struct fake_fs *f, uint64_t blk)
{
	pthread_mutex_lock(&f->lock);
	f->refs[blk]++;
	pthread_mutex_unlock(&f->lock);
}

static void block_drop(struct fake_fs *f, uint64_t blk)
{
	bool held = false;

	if (!blk)
		return;
	pthread_mutex_lock(&f->lock);
	if (--f->refs[blk] == 0) {
		if (f->holders)
			f->holders->keep(f->holders->arg, blk, 1, &held);
		f->use[blk] = held ? FAKE_KEPT : FAKE_FREE;
		f->kept_blk += held;
	}
	pthread_mutex_unlock(&f->lock);
}

static bool is_shared(struct fake_fs *f, uint64_t blk)
{
	bool shared;

	pthread_mutex_lock(&f->lock);
	shared = f->refs[blk] > 1;
	pthread_mutex_unlock(&f->lock);
	return shared;
}

/* ---- operations ---- */

struct asked {
	uint64_t ino, lo, hi;
	enum fs_change change;
	bool begun;
};

/* With the locks of the files of both, and nobody who holds what is asked for; second may be NULL. */
static int change_start(struct fake_fs *f, struct asked *first, struct asked *second)
{
	struct asked *both[2] = { first, second };

	if (second && second->ino < first->ino) {
		both[0] = second;
		both[1] = first;
	}
	for (;;) {
		struct asked *ask = NULL;
		int rc;

		for (unsigned i = 0; i < 2 && both[i]; i++)
			pthread_rwlock_wrlock(&f->files[both[i]->ino].lock);
		for (unsigned i = 0; i < 2 && both[i] && f->holders && !ask; i++) {
			if (f->files[both[i]->ino].holds > 0 &&
			    f->holders->held(f->holders->arg, both[i]->ino, both[i]->lo, both[i]->hi,
					     both[i]->change))
				ask = both[i];
		}
		for (unsigned i = 0; i < 2 && both[i] && !ask && f->changes; i++)
			f->changes(f->changes_arg, both[i]->ino, both[i]->lo, both[i]->hi, both[i]->change);
		if (!ask)
			return 0;
		for (unsigned i = 0; i < 2 && both[i]; i++)
			pthread_rwlock_unlock(&f->files[both[i]->ino].lock);
		if (ask->begun)
			f->still_held++;
		rc = ask->begun ? -EDEADLK :
				  f->holders->begin(f->holders->arg, ask->ino, ask->lo, ask->hi, ask->change);
		if (!rc) {
			ask->begun = true;
			continue;
		}
		for (unsigned i = 0; i < 2 && both[i]; i++) {
			if (both[i]->begun)
				f->holders->end(f->holders->arg, both[i]->ino, both[i]->lo, both[i]->hi,
						both[i]->change);
		}
		return rc;
	}
}

static void change_finish(struct fake_fs *f, const struct asked *first, const struct asked *second)
{
	const struct asked *both[2] = { first, second };

	for (unsigned i = 0; i < 2 && both[i]; i++)
		pthread_rwlock_unlock(&f->files[both[i]->ino].lock);
	for (unsigned i = 0; i < 2 && both[i]; i++) {
		if (both[i]->begun)
			f->holders->end(f->holders->arg, both[i]->ino, both[i]->lo, both[i]->hi,
					both[i]->change);
	}
}

int fake_move(struct fs *fs, uint64_t ino, uint64_t lo, uint64_t hi, bool fill)
{
	struct fake_fs *f = fake_of(fs);
	struct asked ask = { .ino = ino, .lo = lo, .hi = hi, .change = FS_CHANGE_MOVE };
	int rc = change_start(f, &ask, NULL);

	if (rc)
		return rc;
	for (uint64_t b = lo; b < hi && b < FAKE_FILE_BLK; b++) {
		block_drop(f, f->files[ino].map[b]);
		f->files[ino].map[b] = fill ? block_take(f) : 0;
		if (fill && !f->files[ino].map[b])
			rc = -ENOSPC;
	}
	change_finish(f, &ask, NULL);
	return rc;
}

int fake_lend(struct fs *fs, uint64_t ino, uint64_t lo, uint64_t hi, bool store)
{
	struct fake_fs *f = fake_of(fs);
	struct asked ask = {
		.ino = ino, .lo = lo, .hi = hi, .change = store ? FS_CHANGE_LEND_STORE : FS_CHANGE_LEND
	};
	int rc = change_start(f, &ask, NULL);

	if (!rc)
		change_finish(f, &ask, NULL);
	return rc;
}

int fake_share(struct fs *fs, uint64_t from, uint64_t to, uint64_t lo, uint64_t hi)
{
	struct fake_fs *f = fake_of(fs);
	struct asked share = { .ino = from, .lo = lo, .hi = hi, .change = FS_CHANGE_SHARE };
	struct asked move = { .ino = to, .lo = lo, .hi = hi, .change = FS_CHANGE_MOVE };
	int rc = change_start(f, &share, &move);

	if (rc)
		return rc;
	for (uint64_t b = lo; b < hi && b < FAKE_FILE_BLK; b++) {
		uint64_t blk = f->files[from].map[b];

		if (blk == f->files[to].map[b])
			continue;
		block_drop(f, f->files[to].map[b]);
		f->files[to].map[b] = blk;
		if (blk)
			block_share(f, blk);
	}
	change_finish(f, &share, &move);
	return 0;
}

int fs_zero_tail(struct fs *fs, uint64_t ino)
{
	(void)fs;
	(void)ino;
	return 0;
}

int fs_make_storable(struct fs *fs, const struct fs_cred *cred, uint64_t ino, uint64_t lo_blk,
		     uint64_t hi_blk, uint64_t *done_blk)
{
	struct fake_fs *f = fake_of(fs);
	uint64_t hi = u64_min(hi_blk, FAKE_FILE_BLK);
	int rc = 0;

	(void)cred;
	if (f->storable_rc)
		return f->storable_rc;
	if (!f->big_blk) {
		for (uint64_t b = lo_blk; b < hi && !rc; b++) {
			uint64_t blk;

			pthread_rwlock_rdlock(&f->files[ino].lock);
			blk = f->files[ino].map[b];
			pthread_rwlock_unlock(&f->files[ino].lock);
			if (!blk || is_shared(f, blk))
				rc = fake_move(fs, ino, b, b + 1, true);
		}
	}
	*done_blk = hi_blk;
	return rc;
}

/* Nobody looks where its blocks lie here. */
int fs_make_whole(struct fs *fs, const struct fs_cred *cred, uint64_t ino, uint64_t lo_blk, bool store)
{
	uint64_t done_blk;

	return store ? fs_make_storable(fs, cred, ino, lo_blk, lo_blk + CHUNK_BLOCKS, &done_blk) : 0;
}

static unsigned pieces_of(struct fake_fs *f, const struct fs_grant *grant, struct fs_piece *pieces)
{
	unsigned count = 0;

	for (uint64_t b = grant->lo_blk; b < u64_min(grant->hi_blk, FAKE_FILE_BLK) && count < FS_GRANT_PIECES;
	     b++) {
		uint64_t blk = f->files[grant->ino].map[b];
		bool shared = blk && is_shared(f, blk);
		struct fs_piece *last = count > 0 ? &pieces[count - 1] : NULL;
		uint32_t flags = !blk         ? FS_PIECE_HOLE :
				 shared       ? FS_PIECE_SHARED :
				 grant->write ? FS_PIECE_WRITE :
						0;

		if (last && last->flags == flags && (!blk || last->dev_blk + last->count_blk == blk))
			last->count_blk++;
		else
			pieces[count++] = (struct fs_piece){
				.file_blk = b, .dev_blk = blk, .count_blk = 1, .flags = flags
			};
	}
	return count;
}

int fs_grant(struct fs *fs, const struct fs_grant *grant)
{
	struct fake_fs *f = fake_of(fs);
	struct fs_piece pieces[FS_GRANT_PIECES];
	unsigned count = 0;
	int rc;

	pthread_rwlock_rdlock(&f->files[grant->ino].lock);
	if (f->big_blk && grant->lo_blk < f->big_blk)
		pieces[count++] =
			(struct fs_piece){ .file_blk = grant->lo_blk,
					   .dev_blk = 1 + grant->lo_blk,
					   .count_blk = u64_min(grant->hi_blk, f->big_blk) - grant->lo_blk,
					   .flags = grant->write ? FS_PIECE_WRITE : 0 };
	else if (!f->big_blk)
		count = pieces_of(f, grant, pieces);
	if (f->between)
		f->between(f->between_arg);
	rc = grant->take(grant->arg, pieces, count, FAKE_FILE_BLK * 4096);
	pthread_rwlock_unlock(&f->files[grant->ino].lock);
	return rc;
}
