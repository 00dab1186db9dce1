/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A session gets pieces of a file.
 */
#include <assert.h>
#include <errno.h>
#include <string.h>

#include "registry/priv.h"
#include "util/sabotage.h"

/* One grant on its way. */
struct granting {
	struct session *s;
	const struct grant *grant;
	struct range_list old; /* shadows in whose place it was put */
	struct fs_piece pieces[FS_GRANT_PIECES];
	unsigned count;
	uint64_t size_bytes;
	unsigned tails; /* so often it was zeroed */
};

#define TAILS_MAX 3u

static bool is_over(const struct session *s)
{
	return s->lost || s->ended || (s->grants_end && !sabotage_point("registry-leaving"));
}

/* A range holds so many blocks: what is behind them is not granted. */
static void pieces_keep(struct granting *g, const struct fs_piece *pieces, unsigned count)
{
	g->count = 0;
	for (unsigned i = 0; i < count && i < FS_GRANT_PIECES; i++) {
		g->pieces[g->count++] = pieces[i];
		if (pieces[i].count_blk > UINT32_MAX) {
			g->pieces[i].count_blk = UINT32_MAX;
			return;
		}
	}
}

static uint32_t shadows_of(const struct granting *g, struct range *shadows)
{
	uint32_t count = 0;

	for (unsigned i = 0; i < g->count; i++) {
		const struct fs_piece *p = &g->pieces[i];
		bool hole = p->flags & FS_PIECE_HOLE;

		if (p->flags & FS_PIECE_LOST || p->count_blk == 0)
			continue;
		shadows[count++] = (struct range){ .blk = p->file_blk,
						   .count_blk = (uint32_t)p->count_blk,
						   .tag = (p->flags & FS_PIECE_WRITE ? SHADOW_WRITE : 0) |
							  (hole ? SHADOW_HOLE : 0),
						   .value = hole ? 0 : p->dev_blk };
	}
	return count;
}

/*
 * The shadows with the rights that the session has there already: until it hears of the answer it may store as before. Where it does, the block is the
 * same, since whoever changes that asks first. (l)
 */
static int with_rights(const struct holding *h, const struct range *shadows, uint32_t count,
		       struct range_list *list)
{
	int rc = 0;

	for (uint32_t i = 0; i < count && !rc; i++) {
		uint64_t end = shadows[i].blk + shadows[i].count_blk;
		struct range old, part;

		for (uint64_t blk = shadows[i].blk; blk < end && !rc; blk = part.blk + part.count_blk) {
			bool found = ranges_find(h->shadows, blk, &old) && old.blk < end;
			bool inside = found && old.blk <= blk;
			uint64_t to = inside ? old.blk + old.count_blk : found ? old.blk : end;

			part = shadow_part(&shadows[i], blk, to);
			if (inside && old.tag & SHADOW_WRITE &&
			    shadow_part(&old, blk, to).value == part.value)
				part.tag |= SHADOW_WRITE;
			rc = list_add_shadow(list, &part);
		}
	}
	return rc;
}

/* Under the lock of the inode. It may be called again: the last one counts. */
static int take(void *arg, const struct fs_piece *pieces, unsigned count, uint64_t size_bytes)
{
	struct granting *g = arg;
	struct session *s = g->s;
	struct registry *r = s->registry;
	struct range shadows[FS_GRANT_PIECES];
	const struct fs_piece *last;
	struct range_list list;
	uint32_t shadow_count;
	struct holding *h;
	int rc = 0;

	pieces_keep(g, pieces, count);
	g->size_bytes = size_bytes;
	shadow_count = shadows_of(g, shadows);
	list_init(&list);
	pthread_mutex_lock(&r->lock);
	h = holding_find(s, g->grant->handle);
	if (is_over(s))
		rc = -ENOTCONN;
	else if (!h)
		rc = -EBADF;
	else if (h->file->changing > 0)
		rc = -EAGAIN;
	else if (!session_has_room(s, 0, shadow_count))
		rc = -EMFILE;
	if (!rc)
		rc = with_rights(h, shadows, shadow_count, &list);
	if (!rc && g->count > 0) {
		last = &g->pieces[g->count - 1];
		rc = holding_put(h, g->pieces[0].file_blk, last->file_blk + last->count_blk, list.at,
				 list.count, &g->old);
	}
	pthread_mutex_unlock(&r->lock);
	list_free(&list);
	return rc;
}

/* The file and, by errors, whether the session may have of it what it asks for. */
static int may_have(struct session *s, const struct grant *grant, uint64_t *ino)
{
	struct registry *r = s->registry;
	struct holding *h;
	int rc = 0;

	pthread_mutex_lock(&r->lock);
	h = holding_find(s, grant->handle);
	if (is_over(s))
		rc = -ENOTCONN;
	else if (!h)
		rc = -EBADF;
	else if (grant->write && (!h->write || !s->who.write))
		rc = -EACCES;
	else
		*ino = h->file->ino;
	pthread_mutex_unlock(&r->lock);
	return rc;
}

/* Until nobody changes the file. */
static int wait_for_changes(struct session *s, uint32_t handle, const struct timespec *limit)
{
	struct registry *r = s->registry;
	struct holding *h;
	int rc = 0;

	pthread_mutex_lock(&r->lock);
	while (!rc && (h = holding_find(s, handle)) && !is_over(s) && h->file->changing > 0) {
		struct mapped_file *file = h->file;

		file->users++;
		if (pthread_cond_timedwait(&file->moved, &r->lock, limit))
			rc = file->changing > 0 ? -EAGAIN : 0;
		file_put(r, file);
	}
	pthread_mutex_unlock(&r->lock);
	return rc;
}

/* Grants and answers. -EAGAIN: somebody changes the file. */
static int grant_once(struct granting *g, uint64_t ino, uint64_t hi)
{
	struct session *s = g->s;
	struct registry *r = s->registry;
	const struct fs_grant ask = { .ino = ino,
				      .lo_blk = g->grant->lo_blk,
				      .hi_blk = hi,
				      .write = g->grant->write,
				      .whole = g->grant->whole,
				      .any_tail = g->tails == TAILS_MAX,
				      .take = take,
				      .arg = g };
	bool unreached = false;
	int rc;

	g->count = 0;
	pthread_mutex_lock(&s->order);
	rc = is_over(s) ? -ENOTCONN : fs_grant(r->fs, &ask);
	if (!rc)
		unreached = g->grant->answer(g->grant->arg, g->pieces, g->count, g->size_bytes) != 0;
	pthread_mutex_unlock(&s->order);
	if (unreached) {
		pthread_mutex_lock(&r->lock);
		session_lose(s);
		pthread_mutex_unlock(&r->lock);
		rc = -ENOTCONN;
	}
	quarantine_settle(r, g->old.at, g->old.count);
	list_free(&g->old);
	return rc;
}

/* -EAGAIN: once more. Those who store past the end of the file all the time, as nobody should, see of each other what they like. */
static int tail_zero(struct granting *g, uint64_t ino)
{
	int rc = fs_zero_tail(g->s->registry->fs, ino);

	g->tails++;
	/* The kernel zeroes the page that it gives out. */
	return rc == 0 ? -EAGAIN : rc == -EROFS || rc == -ENOSPC ? -EBUSY : rc;
}

int session_grant(struct session *s, const struct grant *grant)
{
	struct registry *r = s->registry;
	struct timespec limit = clock_after(GRANT_WAIT_MS);
	struct granting g = { .s = s, .grant = grant };
	uint64_t ino, hi;
	int rc = 0;

	if (grant->lo_blk >= grant->hi_blk)
		return -EINVAL;
	thread_register();
	list_init(&g.old);
	if (grant->release) /* it has, whatever comes of the rest */
		rc = holding_release(s, grant->handle, grant->lo_blk, grant->hi_blk, false);
	if (!rc)
		rc = may_have(s, grant, &ino);
	if (rc)
		return rc;
	do {
		rc = 0;
		hi = grant->hi_blk;
		if (grant->whole) {
			rc = fs_make_whole(r->fs, grant->cred, ino, grant->lo_blk, grant->write);
		} else if (grant->write) {
			uint64_t done = hi;

			rc = fs_make_storable(r->fs, grant->cred, ino, grant->lo_blk, hi, &done);
			hi = u64_min(hi, done);
		}
		if (!rc)
			rc = wait_for_changes(s, grant->handle, &limit);
		if (rc)
			break;
		rc = grant_once(&g, ino, hi);
		if (rc == -EDOM)
			rc = tail_zero(&g, ino);
	} while (rc == -EAGAIN);
	return rc;
}
