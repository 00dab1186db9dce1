/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Names: hash chains, entries against inodes and parent items, link counts, orphans, reachability.
 */
#include <dirent.h>
#include <inttypes.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "repair/priv.h"

#define KEY_FIRST 16u /* lowest key of a name */

/* ---- keys ---- */

static uint64_t key_mask(const struct check *ck)
{
	return (1ull << ck->super->dir_hash_bits) - 1;
}

static uint64_t key_fit(const struct check *ck, uint64_t hash)
{
	uint64_t key = hash & key_mask(ck);

	return key < KEY_FIRST ? key + KEY_FIRST : key;
}

static uint64_t hash_seed(const struct check *ck, unsigned index)
{
	le64 raw;

	memcpy(&raw, ck->super->hash_seed + index * sizeof(raw), sizeof(raw));
	return le64_get(raw);
}

uint64_t name_key(const struct check *ck, const void *name, size_t len)
{
	return key_fit(ck, XXH3_64bits_withSeed(name, len, hash_seed(ck, 0)));
}

uint64_t parent_key(const struct check *ck, uint64_t dir, uint64_t key)
{
	le64 words[2] = { le64_of(dir), le64_of(key) };

	return ATTR_KEY_PARENT | key_fit(ck, XXH3_64bits_withSeed(words, sizeof(words), hash_seed(ck, 1)));
}

uint64_t name_hash(const void *name, size_t len)
{
	return XXH3_64bits(name, len);
}

/* ---- chains ---- */

void hash_chain_init(struct hash_chain *chain, struct check *ck, uint64_t ino, const char *what,
		     uint64_t space)
{
	*chain = (struct hash_chain){
		.ck = ck,
		.ino = ino,
		.what = what,
		.first = space | KEY_FIRST,
		.last = space | key_mask(ck),
		.wrap_hash = UINT64_MAX,
	};
}

static void chain_lies(struct hash_chain *chain, enum check_kind kind, uint64_t key, const char *why)
{
	chain->lies = true;
	check_found(chain->ck, kind, "%s %" PRIu64 ", key 0x%" PRIx64 ": %s", chain->what, chain->ino, key,
		    why);
}

static int hash128_compare(const void *a, const void *b)
{
	return memcmp(a, b, sizeof(XXH128_hash_t));
}

static void names_twice(struct hash_chain *chain, struct rows *rows)
{
	const XXH128_hash_t *all = rows->data;

	if (rows->count < 2)
		return;
	rows_sort(rows, sizeof(*all), hash128_compare);
	for (size_t i = 1; i < rows->count; i++) {
		if (memcmp(&all[i - 1], &all[i], sizeof(*all)) == 0)
			chain_lies(chain, CHECK_NAME_TWICE, chain->run_first, "the same one twice");
	}
}

static void run_end(struct hash_chain *chain)
{
	if (!chain->any)
		return;
	if (chain->is_tomb && !(chain->run_last == chain->last && chain->first_used))
		chain_lies(chain, CHECK_HASH_CHAIN, chain->run_last,
			   "a tombstone that holds nothing together");
	names_twice(chain, &chain->run);
	chain->run.count = 0;
}

static void key_next(struct hash_chain *chain, uint64_t key, bool is_tomb)
{
	if (key < chain->first || key > chain->last)
		chain_lies(chain, CHECK_HASH_CHAIN, key, "not a key that a name can have");
	if (!chain->any || key != chain->run_last + 1) {
		run_end(chain);
		chain->run_first = key;
	}
	chain->any = true;
	chain->is_tomb = is_tomb;
	chain->run_last = key;
	chain->first_used |= key == chain->first;
}

void hash_chain_tomb(struct hash_chain *chain, uint64_t key)
{
	key_next(chain, key, true);
}

void hash_chain_name(struct hash_chain *chain, uint64_t key, uint64_t hash, const void *name, size_t len)
{
	struct rows *rows = &chain->run;
	XXH128_hash_t *row;

	key_next(chain, key, false);
	if (chain->ck->super->ro_compat & FEATURE_RO_COMPAT_NAMES_HIDDEN)
		hash = key;
	if (hash > key) { /* it was put behind the end of the key space */
		rows = &chain->wrapped;
		chain->wrap_hash = u64_min(chain->wrap_hash, hash);
		if (chain->run_first != chain->first)
			chain_lies(chain, CHECK_HASH_CHAIN, key, "looking it up does not find it");
	} else if (hash < chain->run_first) {
		chain_lies(chain, CHECK_HASH_CHAIN, key, "looking it up does not find it");
	}
	row = rows_add(chain->ck, rows, sizeof(*row));
	if (row)
		*row = XXH3_128bits(name, len);
}

void hash_chain_end(struct hash_chain *chain)
{
	if (chain->wrap_hash != UINT64_MAX &&
	    (chain->run_last != chain->last || chain->run_first > chain->wrap_hash))
		chain_lies(chain, CHECK_HASH_CHAIN, chain->wrap_hash,
			   "a name behind the end that looking it up does not find");
	for (size_t i = 0; i < chain->wrapped.count; i++) {
		XXH128_hash_t *row = rows_add(chain->ck, &chain->run, sizeof(*row));

		if (row)
			*row = ((const XXH128_hash_t *)chain->wrapped.data)[i];
	}
	run_end(chain);
	rows_free(&chain->run);
	rows_free(&chain->wrapped);
}

/* ---- entries against inodes ---- */

static uint16_t type_fmt(uint64_t type)
{
	return (uint16_t)DTTOIF(type);
}

static void entry_check(struct check *ck, const struct seen_name *name, struct seen_inode *child)
{
	struct seen_inode *dir;

	if (!child) {
		check_found(ck, CHECK_DIRENT,
			    "directory %" PRIu64 ", key 0x%" PRIx64 ": leads to %" PRIu64
			    ", which is no inode",
			    name->dir, name->key, name->child);
		return;
	}
	child->names++;
	if (child->mode_fmt != 0 && child->mode_fmt != type_fmt(name->type))
		check_found(ck, CHECK_DIRENT,
			    "directory %" PRIu64 ", key 0x%" PRIx64 ": inode %" PRIu64 " is of another type",
			    name->dir, name->key, name->child);
	if (name->type != DT_DIR)
		return;
	dir = seen_inode_find(ck, name->dir);
	if (dir)
		dir->subdirs++;
	if (child->parent != 0 || child->ino == INODE_ROOT)
		check_found(ck, CHECK_DIR_LINKS,
			    "directory %" PRIu64 " has another name in directory %" PRIu64, name->child,
			    name->dir);
	else
		child->parent = name->dir;
}

/* ---- parents ---- */

int seen_name_compare(const void *a, const void *b)
{
	const struct seen_name *x = a, *y = b;

	if (x->child != y->child)
		return x->child < y->child ? -1 : 1;
	if (x->dir != y->dir)
		return x->dir < y->dir ? -1 : 1;
	if (x->key != y->key)
		return x->key < y->key ? -1 : 1;
	return x->name_hash < y->name_hash ? -1 : x->name_hash > y->name_hash;
}

uint64_t seen_name_sum(uint64_t sum, const struct seen_name *name)
{
	const uint64_t words[3] = { name->dir, name->key, name->name_hash };

	return sum + XXH3_64bits(words, sizeof(words));
}

/* Of one inode; both are sorted. */
static void parents_differ(struct check *ck, const struct seen_name *entry, size_t entry_count,
			   const struct seen_name *item, size_t item_count)
{
	while (entry_count > 0 || item_count > 0) {
		int order = entry_count == 0 ? 1 : item_count == 0 ? -1 : seen_name_compare(entry, item);

		if (order < 0)
			check_found(ck, CHECK_PARENT_MISSING,
				    "inode %" PRIu64 " does not know its name in directory %" PRIu64
				    ", key 0x%" PRIx64,
				    entry->child, entry->dir, entry->key);
		if (order > 0)
			check_found(ck, CHECK_PARENT_EXTRA,
				    "inode %" PRIu64 " has no such name in directory %" PRIu64
				    ", key 0x%" PRIx64,
				    item->child, item->dir, item->key);
		if (order <= 0) {
			entry++;
			entry_count--;
		}
		if (order >= 0) {
			item++;
			item_count--;
		}
	}
}

/* The parent items of an inode, sorted. Where rows of them were not kept they are read again into scratch, which is made for the first. */
static const struct seen_name *parents_of(struct check *ck, struct check *scratch, uint64_t ino,
					  size_t *count)
{
	*count = 0;
	if (ck->keep)
		return rows_find(&ck->parents, sizeof(struct seen_name), offsetof(struct seen_name, child),
				 ino, count);
	if (!scratch->reached)
		ck->error = check_scratch_make(scratch, ck);
	if (ck->error)
		return NULL;
	scratch->parents.count = 0;
	check_parents_read(scratch, ino);
	ck->error = scratch->error;
	rows_sort(&scratch->parents, sizeof(struct seen_name), seen_name_compare);
	*count = scratch->parents.count;
	return scratch->parents.data;
}

/* Entries and inodes are sorted. Nearly always the sums are equal. */
static void parents_match(struct check *ck)
{
	const struct seen_inode *inodes = ck->inodes.data;
	const struct seen_name *entry = ck->names.data, *items;
	const struct seen_name *end = entry ? entry + ck->names.count : NULL;
	struct check scratch = { 0 };

	for (size_t i = 0; i < ck->inodes.count && !ck->error; i++) {
		const struct seen_name *first;
		uint64_t sum = 0;
		size_t count;

		while (entry < end && entry->child < inodes[i].ino)
			entry++;
		for (first = entry; entry < end && entry->child == inodes[i].ino; entry++)
			sum = seen_name_sum(sum, entry);
		if (sum == inodes[i].parents)
			continue;
		items = parents_of(ck, &scratch, inodes[i].ino, &count);
		parents_differ(ck, first, (size_t)(entry - first), items, count);
	}
	check_scratch_free(&scratch);
}

/* ---- links, orphans ---- */

static void links_check(struct check *ck, struct seen_inode *in)
{
	bool is_dir = in->mode_fmt == S_IFDIR;
	uint32_t should = in->names;

	if (in->mode_fmt == 0)
		return; /* lost */
	if (is_dir && (in->names != 0 || in->ino == INODE_ROOT))
		should = 2 + in->subdirs;
	if (in->nlink != should || (in->nlink == 0 && !(in->flags & SEEN_ORPHAN)))
		in->mend |= MEND_COUNTS;
	if (in->nlink != should)
		check_found(ck, CHECK_LINKS, "inode %" PRIu64 ": link count %u, should be %u", in->ino,
			    in->nlink, should);
	if (in->nlink == 0 && !(in->flags & SEEN_ORPHAN))
		check_found(ck, CHECK_ORPHAN_MISSING, "inode %" PRIu64 " has no name and is no orphan",
			    in->ino);
	if ((in->nlink != 0 || in->names != 0) && in->flags & SEEN_ORPHAN)
		check_found(ck, CHECK_ORPHAN_EXTRA, "inode %" PRIu64 " has names and is an orphan", in->ino);
}

/* ---- loops ---- */

enum { WALK_NEW, WALK_NOW, WALK_REACHED, WALK_LOST };

/* Walks up until the root or a directory that is known, then marks the way. */
static void reach_check(struct check *ck, struct seen_inode *start)
{
	struct seen_inode *dir = start, *next;
	uint8_t state;

	while (dir->walk == WALK_NEW && dir->ino != INODE_ROOT && dir->parent != 0) {
		dir->walk = WALK_NOW;
		next = seen_inode_find(ck, dir->parent);
		if (!next)
			break;
		dir = next;
	}
	if (dir->ino == INODE_ROOT)
		state = WALK_REACHED;
	else
		state = dir->walk == WALK_REACHED ? WALK_REACHED : WALK_LOST;
	/* An orphan has no name; what it holds would be lost with it, but an unlinked directory is empty. */
	if (state == WALK_LOST && start->walk != WALK_LOST && start->names != 0)
		check_found(ck, CHECK_DIR_LOOP, "directory %" PRIu64 " cannot be reached from the root",
			    start->ino);
	for (dir = start; dir && dir->walk != state;
	     dir = dir->parent ? seen_inode_find(ck, dir->parent) : NULL)
		dir->walk = state;
}

/* Both are sorted by inode. */
static void entries_check(struct check *ck)
{
	struct seen_inode *inodes = ck->inodes.data;
	const struct seen_name *names = ck->names.data;
	size_t at = 0;

	for (size_t i = 0; i < ck->names.count; i++) {
		while (at < ck->inodes.count && inodes[at].ino < names[i].child)
			at++;
		entry_check(ck, &names[i],
			    at < ck->inodes.count && inodes[at].ino == names[i].child ? &inodes[at] : NULL);
	}
}

void check_names(struct check *ck)
{
	struct seen_inode *inodes = ck->inodes.data;

	entries_check(ck);
	parents_match(ck);
	if (!seen_inode_find(ck, INODE_ROOT))
		check_found(ck, CHECK_INODE_TREE, "there is no root directory");
	for (size_t i = 0; i < ck->inodes.count; i++) {
		links_check(ck, &inodes[i]);
		if (inodes[i].mode_fmt == S_IFDIR)
			reach_check(ck, &inodes[i]);
	}
}
