/* SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "registry/priv.h"
#include "registry_world.h"

void world_open(struct world *w, unsigned clients, unsigned revoke_ms)
{
	const struct registry_opts opts = { .revoke_ms = revoke_ms };

	memset(w, 0, sizeof(*w));
	w->fs = fake_fs_new();
	w->fake = fake_of(w->fs);
	assert_int_equal(registry_open(w->fs, &opts, &w->r), 0);
	w->clients = calloc(clients, sizeof(*w->clients));
	assert_non_null(w->clients);
	w->count = clients;
	for (unsigned i = 0; i < clients; i++) {
		w->clients[i].w = w;
		w->clients[i].ended = true;
		w->clients[i].pid = (pid_t)(1000 + i);
		pthread_mutex_init(&w->clients[i].lock, NULL);
	}
}

static bool is_gone(void *arg, pid_t pid)
{
	(void)arg;
	(void)pid;
	return true;
}

void world_close(struct world *w)
{
	struct registry_stats stats;

	for (unsigned i = 0; i < w->count; i++) {
		if (!w->clients[i].ended)
			client_end(&w->clients[i], w->clients[i].lost == 0);
	}
	assert_int_equal(registry_reap(w->r, is_gone, NULL, NULL), 0);
	registry_get_stats(w->r, &stats);
	assert_int_equal(stats.sessions + stats.orphans + stats.holdings + stats.shadows, 0);
	assert_int_equal(stats.masters + stats.quarantine_blk, 0);
	assert_true(w->leaks || w->fake->kept_blk == 0);
	registry_close(w->r);
	for (unsigned i = 0; i < w->count; i++)
		pthread_mutex_destroy(&w->clients[i].lock);
	free(w->clients);
	fake_fs_free(w->fs);
}

/* ---- clients ---- */

static void drop(struct client *c, uint64_t ino, uint64_t lo, uint64_t hi, bool write_only)
{
	for (uint64_t b = lo; ino > 0 && b < hi && b < FAKE_FILE_BLK; b++) {
		c->pages[ino][b].write = false;
		if (!write_only)
			c->pages[ino][b].have = false;
	}
}

static uint64_t ino_of(const struct client *c, uint32_t handle)
{
	for (uint64_t ino = 1; ino <= FAKE_FILES; ino++) {
		if (c->handles[ino] == handle)
			return ino;
	}
	return 0;
}

static int client_revoke(void *arg, const struct revoke *revoke)
{
	struct client *c = arg;

	c->revokes++;
	if (c->manner == CLIENT_REFUSING)
		return -EPIPE;
	if (c->manner == CLIENT_DEAD)
		return 0;
	pthread_mutex_lock(&c->lock);
	assert_true(c->asked_count < ARRAY_SIZE(c->asked));
	c->asked[c->asked_count++] = *revoke;
	pthread_mutex_unlock(&c->lock);
	if (c->manner == CLIENT_PROMPT)
		client_answer(c);
	else if (c->w->told)
		c->w->told(c->w->told_arg, c);
	return 0;
}

unsigned client_answer(struct client *c)
{
	struct revoke asked[ARRAY_SIZE(c->asked)];
	unsigned count;

	pthread_mutex_lock(&c->lock);
	count = c->asked_count;
	memcpy(asked, c->asked, count * sizeof(*asked));
	c->asked_count = 0;
	for (unsigned i = 0; i < count; i++)
		drop(c, ino_of(c, asked[i].handle), asked[i].lo_blk, asked[i].hi_blk, asked[i].write_only);
	pthread_mutex_unlock(&c->lock);
	for (unsigned i = 0; i < count; i++)
		session_ack(c->s, asked[i].id);
	return count;
}

static void client_lost(void *arg)
{
	((struct client *)arg)->lost++;
}

static bool client_gone(void *arg)
{
	return ((struct client *)arg)->gone;
}

static const struct session_ops ops = { .gone = client_gone, .revoke = client_revoke, .lost = client_lost };

void client_start(struct client *c, enum manner manner, bool write)
{
	const struct session_who who = { .pid = c->pid, .uid = c->uid, .write = write };

	assert_true(c->ended);
	c->manner = manner;
	c->lost = c->revokes = c->answers = 0;
	c->asked_count = 0;
	c->deaf = c->ended = false;
	memset(c->handles, 0, sizeof(c->handles));
	memset(c->pages, 0, sizeof(c->pages));
	assert_int_equal(session_new(c->w->r, &who, &ops, c, &c->s), 0);
}

void client_end(struct client *c, bool clean)
{
	if (clean)
		memset(c->pages, 0, sizeof(c->pages));
	session_end(c->s, clean);
	c->ended = true;
}

int client_attach(struct client *c, uint64_t ino, bool write)
{
	uint32_t handle;
	int rc = session_attach(c->s, ino, write, &handle);

	if (!rc) {
		pthread_mutex_lock(&c->lock);
		c->handles[ino] = handle;
		pthread_mutex_unlock(&c->lock);
	}
	return rc;
}

struct answer {
	struct client *c;
	uint64_t ino;
};

static int client_answered(void *arg, const struct fs_piece *pieces, unsigned count, uint64_t size_bytes)
{
	struct answer *a = arg;

	(void)size_bytes;
	a->c->answers++;
	if (a->c->deaf)
		return -EPIPE;
	pthread_mutex_lock(&a->c->lock);
	for (unsigned i = 0; i < count; i++) {
		for (uint64_t b = 0; b < pieces[i].count_blk && pieces[i].file_blk + b < FAKE_FILE_BLK; b++) {
			struct page *page = &a->c->pages[a->ino][pieces[i].file_blk + b];
			uint64_t dev = pieces[i].dev_blk ? pieces[i].dev_blk + b : 0;
			bool may = page->have && page->write && page->dev_blk == dev;

			*page = (struct page){ .dev_blk = dev,
					       .have = true,
					       .write = may || pieces[i].flags & FS_PIECE_WRITE };
		}
	}
	pthread_mutex_unlock(&a->c->lock);
	return 0;
}

int client_grant(struct client *c, uint64_t ino, uint64_t lo, uint64_t hi, bool write, bool release)
{
	struct answer a = { .c = c, .ino = ino };
	const struct grant grant = { .handle = c->handles[ino],
				     .lo_blk = lo,
				     .hi_blk = hi,
				     .write = write,
				     .release = release,
				     .answer = client_answered,
				     .arg = &a };

	if (release) {
		pthread_mutex_lock(&c->lock);
		drop(c, ino, lo, hi, false);
		pthread_mutex_unlock(&c->lock);
	}
	return session_grant(c->s, &grant);
}

int client_release(struct client *c, uint64_t ino, uint64_t lo, uint64_t hi)
{
	pthread_mutex_lock(&c->lock);
	drop(c, ino, lo, hi, false);
	pthread_mutex_unlock(&c->lock);
	return session_release(c->s, c->handles[ino], lo, hi);
}

void client_detach(struct client *c, uint64_t ino)
{
	uint32_t handle = c->handles[ino];

	pthread_mutex_lock(&c->lock);
	drop(c, ino, 0, FAKE_FILE_BLK, false);
	c->handles[ino] = 0;
	pthread_mutex_unlock(&c->lock);
	assert_int_equal(session_detach(c->s, handle), 0);
}

void world_fill(struct world *w, uint64_t ino, uint64_t blocks)
{
	assert_int_equal(fake_move(w->fs, ino, 0, blocks, true), 0);
}

/* ---- what must hold ---- */

struct counts {
	uint32_t all[FAKE_DEV_BLK], stored[FAKE_DEV_BLK];
	struct page pages[FAKE_FILES + 1][FAKE_FILE_BLK];
};

/* What the registry says that a client has, or all. */
static void count_shadows(struct world *w, const struct client *c, struct counts *counts)
{
	const struct shadow_filter filter = { .pid = c ? c->pid : 0 };
	struct shadow_info infos[7];
	struct shadow_pos pos = { 0 };
	unsigned count;

	memset(counts, 0, sizeof(*counts));
	do {
		assert_int_equal(registry_list(w->r, &filter, &pos, infos, ARRAY_SIZE(infos), &count), 0);
		for (unsigned i = 0; i < count; i++) {
			const struct shadow_info *info = &infos[i];

			for (uint64_t b = 0; b < info->count_blk; b++) {
				uint64_t dev = info->dev_blk ? info->dev_blk + b : 0;

				counts->pages[info->ino][info->file_blk + b] =
					(struct page){ .dev_blk = dev, .have = true, .write = info->write };
				counts->all[dev] += dev != 0;
				counts->stored[dev] += dev != 0 && info->write;
			}
		}
	} while (count == ARRAY_SIZE(infos));
}

static void check_client(struct world *w, struct client *c, struct counts *counts)
{
	bool alive = !c->ended && c->lost == 0;

	if (alive)
		count_shadows(w, c, counts);
	for (uint64_t ino = 1; ino <= FAKE_FILES; ino++) {
		for (uint64_t b = 0; b < FAKE_FILE_BLK; b++) {
			const struct page *page = &c->pages[ino][b], *noted = &counts->pages[ino][b];
			bool there = page->dev_blk == w->fake->files[ino].map[b];

			if (alive &&
			    (page->have != noted->have || (page->have && (page->write != noted->write ||
									  page->dev_blk != noted->dev_blk))))
				fail_msg("client %d, file %d, block %d: it has another page than is noted",
					 c->pid, (int)ino, (int)b);
			if (!page->have || page->dev_blk == 0) {
				assert_true(!page->have || !alive || there);
				continue;
			}
			assert_true(w->fake->use[page->dev_blk] != FAKE_FREE);
			assert_true(there || !alive);
			if (page->write)
				assert_true(w->fake->use[page->dev_blk] == FAKE_KEPT ||
					    (there && w->fake->refs[page->dev_blk] == 1));
		}
	}
}

void world_check(struct world *w)
{
	struct counts *counts = malloc(sizeof(*counts));
	struct range m, q;

	assert_non_null(counts);
	assert_int_equal(w->fake->bad_release, 0);
	assert_int_equal(w->fake->still_held, 0);
	for (unsigned i = 0; i < w->count; i++)
		check_client(w, &w->clients[i], counts);
	count_shadows(w, NULL, counts);
	for (uint64_t b = 1; b < FAKE_DEV_BLK; b++) {
		bool has = ranges_find(w->r->masters, b, &m) && m.blk <= b;
		bool kept = ranges_find(w->r->quarantine, b, &q) && q.blk <= b;

		assert_int_equal(has ? m.value : 0, counts->all[b]);
		assert_int_equal(has ? m.tag : 0, counts->stored[b]);
		assert_true(kept == (w->fake->use[b] == FAKE_KEPT) || (w->leaks && !kept));
		assert_true(!kept || has);
		assert_true(!has || w->fake->use[b] != FAKE_FREE);
	}
	assert_true(w->leaks || w->r->quarantine_blk == w->fake->kept_blk);
	free(counts);
}
