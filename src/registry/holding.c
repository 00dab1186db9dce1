/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Files that somebody has, and what each session has of them.
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include "registry/priv.h"

/* ---- files ---- */

static unsigned long ino_hash(uint64_t ino)
{
	ino ^= ino >> 29;
	ino *= 0xbf58476d1ce4e5b9ull;
	return ino ^ ino >> 32;
}

READS_UNDER_RCU static int node_is_ino(struct cds_lfht_node *node, const void *key)
{
	return container_of(node, struct mapped_file, node)->ino == *(const uint64_t *)key;
}

READS_UNDER_RCU struct mapped_file *file_find(struct registry *r, uint64_t ino)
{
	struct cds_lfht_iter iter;
	struct cds_lfht_node *node;

	cds_lfht_lookup(r->files, ino_hash(ino), node_is_ino, &ino, &iter);
	node = cds_lfht_iter_get_node(&iter);
	return node ? container_of(node, struct mapped_file, node) : NULL;
}

int file_get(struct registry *r, uint64_t ino, struct mapped_file **out)
{
	struct mapped_file *file;
	int rc;

	urcu_memb_read_lock();
	file = file_find(r, ino);
	urcu_memb_read_unlock(); /* (l) keeps it: it goes under it */
	if (!file) {
		file = calloc(1, sizeof(*file));
		if (!file)
			return -ENOMEM;
		file->ino = ino;
		rc = cond_new(&file->moved);
		if (rc) {
			free(file);
			return rc;
		}
		cds_lfht_node_init(&file->node);
		urcu_memb_read_lock();
		cds_lfht_add(r->files, ino_hash(ino), &file->node);
		urcu_memb_read_unlock();
	}
	file->users++;
	*out = file;
	return 0;
}

static void file_free(struct rcu_head *head)
{
	struct mapped_file *file = container_of(head, struct mapped_file, rcu);

	(void)atomic_load(&file->dead); /* in order after who gave it up */
	pthread_cond_destroy(&file->moved);
	free(file);
}

void file_put(struct registry *r, struct mapped_file *file)
{
	if (--file->users > 0)
		return;
	assert(!file->first && file->changing == 0);
	urcu_memb_read_lock();
	cds_lfht_del(r->files, &file->node);
	urcu_memb_read_unlock();
	atomic_store(&file->dead, true);
	urcu_memb_call_rcu(&file->rcu, file_free);
}

/* ---- holdings ---- */

struct holding *holding_find(struct session *s, uint32_t handle)
{
	return handle == 0 || handle > s->handle_room ? NULL : s->handles[handle - 1];
}

READS_UNDER_RCU bool holding_has(const struct holding *h, uint64_t lo, uint64_t hi, bool write_only)
{
	struct range shadow;

	if (write_only && atomic_load(&h->stored) == 0)
		return false;
	while (lo < hi && ranges_find(h->shadows, lo, &shadow) && shadow.blk < hi) {
		if (!write_only || shadow.tag & SHADOW_WRITE)
			return true;
		lo = shadow.blk + shadow.count_blk;
	}
	return false;
}

static uint32_t handle_free(struct session *s)
{
	uint32_t i = 0, room;
	struct holding **handles;

	if (s->holdings < s->handle_room) {
		while (s->handles[i])
			i++;
		return i + 1;
	}
	room = s->handle_room ? s->handle_room * 2 : 4;
	handles = realloc(s->handles, room * sizeof(struct holding *));
	if (!handles)
		return 0;
	s->handles = handles;
	for (i = s->handle_room; i < room; i++)
		handles[i] = NULL;
	i = s->handle_room + 1;
	s->handle_room = room;
	return i;
}

int holding_new(struct session *s, uint64_t ino, bool write, struct holding **out)
{
	struct registry *r = s->registry;
	struct holding *h = calloc(1, sizeof(*h));
	uint32_t handle = handle_free(s);
	int rc = h && handle ? ranges_new(&h->shadows) : -ENOMEM;

	if (!rc)
		rc = file_get(r, ino, &h->file);
	if (rc) {
		if (h)
			ranges_free(h->shadows);
		free(h);
		return rc;
	}
	h->session = s;
	h->handle = handle;
	h->write = write;
	h->attached = 1;
	s->handles[handle - 1] = h;
	session_account(s, 1, 0);
	r->stats.bytes += sizeof(*h) + ranges_bytes(h->shadows);
	h->next = h->file->first;
	h->link = &h->file->first;
	if (h->next)
		h->next->link = &h->next;
	atomic_store(&h->file->first, h);
	*out = h;
	return 0;
}

static void holding_free(struct rcu_head *head)
{
	struct holding *h = container_of(head, struct holding, rcu);

	(void)atomic_load(&h->stored); /* in order after who gave it up */
	ranges_free(h->shadows);
	free(h);
}

void holding_unlink(struct holding *h)
{
	struct session *s = h->session;
	struct registry *r = s->registry;
	struct pending *p, *next;

	cds_list_for_each_entry_safe(p, next, &s->revokes, link) {
		if (p->holding == h)
			pending_free(p);
	}
	s->handles[h->handle - 1] = NULL;
	session_account(s, -1, -(int64_t)ranges_count(h->shadows));
	r->stats.bytes -= sizeof(*h) + ranges_bytes(h->shadows);
	atomic_store(h->link, h->next);
	if (h->next)
		h->next->link = h->link;
	pthread_cond_broadcast(&h->file->moved);
	h->ino = h->file->ino;
	file_put(r, h->file);
	r->removing++;
}

void holding_clear(struct registry *r, struct holding *h)
{
	struct range gone[STEP_SHADOWS];
	uint64_t blk = 0;
	uint32_t count;

	do {
		count = 0;
		pthread_mutex_lock(&r->lock);
		while (count < STEP_SHADOWS && ranges_find(h->shadows, blk, &gone[count])) {
			masters_forget(r, &gone[count]);
			blk = gone[count].blk + gone[count].count_blk;
			count++;
		}
		pthread_mutex_unlock(&r->lock);
		quarantine_settle(r, gone, count);
	} while (count > 0);
	pthread_mutex_lock(&r->lock);
	r->removing--;
	pthread_mutex_unlock(&r->lock);
	fs_unhold(r->fs, h->ino);
	atomic_store(&h->stored, 0);
	urcu_memb_call_rcu(&h->rcu, holding_free);
}

/* ---- shadows ---- */

/* What there is in [lo, hi) to old; and in whole, with what reaches over the borders or touches them, to *from and *to. How many may be stored to. */
static int gather(const struct holding *h, uint64_t *lo, uint64_t *hi, struct range *before,
		  struct range *after, struct range_list *old, uint64_t *stored)
{
	uint64_t from = *lo, to = *hi;
	struct range shadow;
	int rc = 0;

	before->count_blk = 0;
	after->count_blk = 0;
	for (uint64_t blk = from - (from > 0);
	     !rc && ranges_find(h->shadows, blk, &shadow) && shadow.blk <= to;) {
		uint64_t end = shadow.blk + shadow.count_blk;

		*stored += shadow.tag & SHADOW_WRITE;
		if (shadow.blk < from) {
			*before = shadow_part(&shadow, shadow.blk, from);
			*lo = shadow.blk;
		}
		if (end > to) {
			*after = shadow_part(&shadow, to, end);
			*hi = end;
		}
		if (shadow.blk < to && end > from) {
			struct range part = shadow_part(&shadow, from, to);

			rc = list_add(old, &part);
		}
		blk = end;
	}
	return rc;
}

/* entries between what is left and right of them. */
static int assemble(const struct range *before, const struct range *entries, uint32_t count,
		    const struct range *after, struct range_list *list)
{
	int rc = before->count_blk > 0 ? list_add_shadow(list, before) : 0;

	for (uint32_t i = 0; i < count && !rc; i++)
		rc = list_add_shadow(list, &entries[i]);
	return rc || after->count_blk == 0 ? rc : list_add_shadow(list, after);
}

static void holding_account(struct holding *h, uint64_t count_before, uint64_t bytes_before)
{
	struct session *s = h->session;
	uint64_t count = ranges_count(h->shadows), bytes = ranges_bytes(h->shadows);

	session_account(s, 0, (int64_t)(count - count_before));
	s->registry->stats.bytes += bytes - bytes_before;
}

int holding_put(struct holding *h, uint64_t lo, uint64_t hi, const struct range *entries, uint32_t count,
		struct range_list *old)
{
	struct registry *r = h->session->registry;
	uint64_t count_before = ranges_count(h->shadows), bytes_before = ranges_bytes(h->shadows);
	uint64_t stored_before = 0, stored = 0;
	uint32_t added = 0, first = old->count;
	struct range before, after;
	struct range_list list;
	int rc;

	list_init(&list);
	rc = gather(h, &lo, &hi, &before, &after, old, &stored_before);
	if (!rc)
		rc = assemble(&before, entries, count, &after, &list);
	for (uint32_t i = 0; i < list.count; i++)
		stored += list.at[i].tag & SHADOW_WRITE;
	while (!rc && added < count) {
		rc = masters_add(r, &entries[added]);
		added += !rc;
	}
	atomic_fetch_add(&h->stored, stored);
	if (!rc)
		rc = ranges_replace(h->shadows, lo, hi, list.at, list.count);
	if (rc) {
		atomic_fetch_sub(&h->stored, stored);
		for (uint32_t i = 0; i < added; i++)
			masters_forget(r, &entries[i]);
		old->count = first;
	} else {
		atomic_fetch_sub(&h->stored, stored_before);
		for (uint32_t i = first; i < old->count; i++)
			masters_forget(r, &old->at[i]);
		holding_account(h, count_before, bytes_before);
	}
	list_free(&list);
	return rc;
}

/* The first of it, up to *next. (l) */
static int release_some(struct holding *h, uint64_t lo, uint64_t hi, bool write_only, struct range_list *old,
			uint64_t *next)
{
	struct range_list left;
	struct range shadow;
	uint32_t count = 0;
	int rc = 0;

	*next = hi;
	list_init(&left);
	for (uint64_t blk = lo;
	     blk < hi && !rc && ranges_find(h->shadows, blk, &shadow) && shadow.blk < hi;) {
		if (++count > STEP_SHADOWS) {
			*next = blk;
			break;
		}
		shadow = shadow_part(&shadow, lo, hi);
		blk = shadow.blk + shadow.count_blk;
		shadow.tag &= ~SHADOW_WRITE;
		if (write_only)
			rc = list_add(&left, &shadow);
	}
	if (!rc && count > 0)
		rc = holding_put(h, lo, *next, left.at, left.count, old);
	list_free(&left);
	return rc;
}

int holding_release(struct session *s, uint32_t handle, uint64_t lo, uint64_t hi, bool write_only)
{
	struct registry *r = s->registry;
	struct range_list old;
	struct holding *h;
	int rc = 0;

	while (lo < hi && !rc) {
		list_init(&old);
		pthread_mutex_lock(&r->lock);
		h = holding_find(s, handle);
		rc = h ? release_some(h, lo, hi, write_only, &old, &lo) : -EBADF;
		if (h)
			pthread_cond_broadcast(&h->file->moved);
		pthread_mutex_unlock(&r->lock);
		quarantine_settle(r, old.at, old.count);
		list_free(&old);
	}
	return rc;
}
