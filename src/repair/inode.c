/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Inodes with their trees, and intents.
 */
#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>

#include "repair/priv.h"

#define FILE_SIZE_MAX ((1ull << 63) - BLOCK_SIZE)
#define SYMLINK_MAX 4095u

struct seen_inode *seen_inode_find(struct check *ck, uint64_t ino)
{
	struct seen_inode *all = ck->inodes.data;
	size_t lo = 0, hi = ck->inodes.count;

	while (lo < hi) {
		size_t mid = (lo + hi) / 2;

		if (all[mid].ino < ino)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo < ck->inodes.count && all[lo].ino == ino ? &all[lo] : NULL;
}

static void inode_lies(struct check *ck, struct seen_inode *seen, const char *why)
{
	seen->mend |= MEND_RECORD;
	check_found(ck, CHECK_INODE, "inode %" PRIu64 ": %s", seen->ino, why);
}

/* ---- extents ---- */

struct extent_walk {
	struct check *ck;
	uint64_t ino;
	uint64_t end_blk; /* of the last one, in the file */
	uint64_t blocks;
	bool any_unwritten;
	bool damaged;
};

static void extent_seen(void *arg, const void *rec, size_t size_bytes)
{
	struct extent_walk *w = arg;
	struct check *ck = w->ck;
	struct extent e;

	(void)size_bytes;
	extent_decode(&e, rec);
	ck->report->extents++;
	w->damaged |= e.file_blk < w->end_blk;
	if (e.file_blk < w->end_blk)
		check_found(ck, CHECK_EXTENT, "inode %" PRIu64 ": extents overlap in file block %" PRIu64,
			    w->ino, e.file_blk);
	w->end_blk = u64_max(w->end_blk, e.file_blk + e.count_blk);
	w->blocks += e.count_blk;
	w->any_unwritten |= (e.flags & EXTENT_UNWRITTEN) != 0;
	if (e.dev_blk >= ck->super->size_blk || e.count_blk > ck->super->size_blk - e.dev_blk) {
		w->damaged = true;
		check_found(ck, CHECK_EXTENT,
			    "inode %" PRIu64 ": file block %" PRIu64 " lies outside of the device", w->ino,
			    e.file_blk);
		return;
	}
	check_owner_add(ck, e.dev_blk, e.count_blk, w->ino, e.file_blk);
}

static void check_extents(struct extent_walk *w, const void *root)
{
	struct check_tree tree = {
		.ck = w->ck,
		.kind = NODE_EXTENT,
		.owner = w->ino,
		.name = "extent tree of inode",
		.id = w->ino,
		.damaged = &w->damaged,
		.fn = extent_seen,
		.arg = w,
	};

	check_tree(&tree, root, INODE_DATA_SIZE);
}

static void check_symlink(struct check *ck, struct seen_inode *seen, const struct inode_attr *a,
			  const struct extent_walk *w)
{
	bool is_whole = a->data_format == DATA_INLINE ||
			(w->blocks == 1 && w->end_blk == 1 && !w->any_unwritten);

	if (a->size != 0 && a->size <= SYMLINK_MAX && is_whole)
		return;
	seen->mend |= MEND_SYMLINK;
	check_found(ck, CHECK_SYMLINK, "inode %" PRIu64 ": a symlink of %" PRIu64 " bytes without its target",
		    a->ino, a->size);
}

static bool is_zero(const uint8_t *bytes, size_t len_bytes)
{
	for (size_t i = 0; i < len_bytes; i++) {
		if (bytes[i])
			return false;
	}
	return true;
}

static void check_data(struct check *ck, struct seen_inode *seen, const struct m_inode *m,
		       const struct inode_attr *a)
{
	struct extent_walk w = { .ck = ck, .ino = a->ino };

	if (a->data_format == DATA_EXTENTS)
		check_extents(&w, m->di_data);
	else if (a->data_format != DATA_DIR &&
		 !is_zero(m->di_data + (a->data_format == DATA_INLINE ? a->size : 0),
			  INODE_DATA_SIZE - (a->data_format == DATA_INLINE ? a->size : 0)))
		inode_lies(ck, seen, "bytes behind the end of inline data");
	if (w.any_unwritten && !(a->flags & INODE_UNWRITTEN))
		inode_lies(ck, seen, "has unwritten extents and does not know it");
	if (w.damaged)
		seen->mend |= SALVAGE_EXTENTS;
	if (a->blocks != w.blocks) {
		seen->mend |= MEND_COUNTS;
		check_found(ck, CHECK_INODE_BLOCKS,
			    "inode %" PRIu64 ": %" PRIu64 " blocks in its record, %" PRIu64 " found", a->ino,
			    a->blocks, w.blocks);
	}
	if (S_ISLNK(a->mode))
		check_symlink(ck, seen, a, &w);
	if (S_ISREG(a->mode) && a->size > FILE_SIZE_MAX)
		inode_lies(ck, seen, "longer than a file can be");
	ck->report->data_blk += w.blocks;
}

/* ---- directory ---- */

struct dir_walk {
	struct check *ck;
	uint64_t ino;
	uint64_t names;
	bool damaged, dots;
	struct hash_chain chain;
};

static void name_seen(struct check *ck, struct rows *rows, const struct seen_name *name)
{
	struct seen_name *row = rows_add(ck, rows, sizeof(*row));

	if (row)
		*row = *name;
	part_rows_added(ck);
}

static void dirent_seen(void *arg, const void *rec, size_t size_bytes)
{
	struct dir_walk *w = arg;
	const struct m_dirent *m = rec;
	uint64_t key = le64_get(m->de_key);

	(void)size_bytes;
	if (m->de_namelen == 0) {
		hash_chain_tomb(&w->chain, key);
		return;
	}
	w->names++;
	hash_chain_name(&w->chain, key, name_key(w->ck, m->de_name, m->de_namelen), m->de_name,
			m->de_namelen);
	if (m->de_name[0] == '.' && (m->de_namelen == 1 || (m->de_namelen == 2 && m->de_name[1] == '.'))) {
		w->dots = true;
		check_found(w->ck, CHECK_DIRENT, "directory %" PRIu64 ": an entry for '.' or '..'", w->ino);
	}
	name_seen(w->ck, &w->ck->names,
		  &(struct seen_name){ le64_get(m->de_ino), w->ino, key,
				       (uint32_t)name_hash(m->de_name, m->de_namelen), m->de_type });
}

static void check_dir(struct check *ck, struct seen_inode *seen, const struct m_inode *m,
		      const struct inode_attr *a)
{
	struct dir_walk w = { .ck = ck, .ino = a->ino };
	struct check_tree tree = {
		.ck = ck,
		.kind = NODE_DIR,
		.owner = a->ino,
		.name = "entries of directory",
		.id = a->ino,
		.damaged = &w.damaged,
		.fn = dirent_seen,
		.arg = &w,
	};

	hash_chain_init(&w.chain, ck, a->ino, "name in directory", 0);
	check_tree(&tree, m->di_data, INODE_DATA_SIZE);
	hash_chain_end(&w.chain);
	seen->mend |= (uint16_t)((w.damaged ? SALVAGE_DIR : 0) | (w.chain.lies || w.dots ? MEND_CHAIN : 0) |
				 (a->size != w.names || a->blocks != 0 ? MEND_COUNTS : 0));
	ck->report->directories++;
	ck->report->names += w.names;
	if (a->size != w.names)
		check_found(ck, CHECK_DIR_SIZE,
			    "directory %" PRIu64 ": %" PRIu64 " names in its record, %" PRIu64 " found",
			    a->ino, a->size, w.names);
	if (a->blocks != 0)
		check_found(ck, CHECK_INODE_BLOCKS, "directory %" PRIu64 ": it has data blocks", a->ino);
}

/* ---- attributes and parents ---- */

struct attr_walk {
	struct check *ck;
	uint64_t ino;
	uint64_t sum; /* of its parent items */
	struct hash_chain xattrs, parents;
	bool damaged;
};

/* False: a part of it is lost. */
static bool check_large_value(struct check *ck, uint64_t ino, const struct m_attr *m)
{
	bool whole = true;
	size_t at = u64_align_up(sizeof(*m) + m->at_namelen, sizeof(le64));
	const le64 *laddrs = (const void *)((const uint8_t *)m + at);
	uint64_t left = le32_get(m->at_value_len);
	_Alignas(64) struct m_xval x;

	for (unsigned i = 0; left != 0; i++) {
		uint64_t part = u64_min(left, XVAL_DATA_SIZE), laddr = le64_get(laddrs[i]);

		left -= part;
		if (check_lead(ck, laddr, MAGIC_XVAL, ino, "xattr value", &x) != LED_THERE) {
			whole = false;
			continue;
		}
		if (le32_get(x.xv_len_bytes) != part) {
			whole = false;
			check_found(ck, CHECK_XATTR,
				    "inode %" PRIu64
				    ": a piece of an xattr value is %u bytes long, not %" PRIu64,
				    ino, le32_get(x.xv_len_bytes), part);
		}
	}
	return whole;
}

static struct seen_name parent_name(const struct m_attr *m, uint64_t ino)
{
	const le64 *dir_and_key = (const void *)m->at_data;

	return (struct seen_name){ ino, le64_get(dir_and_key[0]), le64_get(dir_and_key[1]),
				   (uint32_t)name_hash(m->at_data + 2 * sizeof(le64), m->at_namelen), 0 };
}

static void parent_seen(struct attr_walk *w, const struct m_attr *m)
{
	struct seen_name name = parent_name(m, w->ino);

	hash_chain_name(&w->parents, le64_get(m->at_key), parent_key(w->ck, name.dir, name.key), m->at_data,
			2 * sizeof(le64));
	w->sum = seen_name_sum(w->sum, &name);
	if (w->ck->keep)
		name_seen(w->ck, &w->ck->parents, &name);
}

static void attr_seen(void *arg, const void *rec, size_t size_bytes)
{
	struct attr_walk *w = arg;
	const struct m_attr *m = rec;
	uint64_t key = le64_get(m->at_key);

	(void)size_bytes;
	if (m->at_type == ATTR_TOMB) {
		hash_chain_tomb(key & ATTR_KEY_PARENT ? &w->parents : &w->xattrs, key);
	} else if (m->at_type == ATTR_PARENT) {
		parent_seen(w, m);
	} else {
		hash_chain_name(&w->xattrs, key, name_key(w->ck, m->at_data, m->at_namelen), m->at_data,
				m->at_namelen);
		if (m->at_flags & ATTR_LARGE && !check_large_value(w->ck, w->ino, m))
			w->damaged = true;
	}
}

static void check_attrs(struct check *ck, struct seen_inode *seen, const struct m_inode *m)
{
	uint64_t ino = seen->ino;
	struct attr_walk w = { .ck = ck, .ino = ino };
	struct check_tree tree = {
		.ck = ck,
		.kind = NODE_ATTR,
		.owner = ino,
		.name = "attributes of inode",
		.id = ino,
		.damaged = &w.damaged,
		.fn = attr_seen,
		.arg = &w,
	};

	hash_chain_init(&w.xattrs, ck, ino, "xattr of inode", 0);
	hash_chain_init(&w.parents, ck, ino, "parent item of inode", ATTR_KEY_PARENT);
	check_tree(&tree, m->di_attr, INODE_ATTR_SIZE);
	hash_chain_end(&w.xattrs);
	hash_chain_end(&w.parents);
	seen->parents = w.sum;
	seen->mend |= (uint16_t)((w.damaged ? SALVAGE_ATTR : 0) |
				 (w.xattrs.lies || w.parents.lies ? MEND_CHAIN_ATTR : 0));
}

void check_inode(struct check *ck, size_t index)
{
	struct seen_inode *seen = &((struct seen_inode *)ck->inodes.data)[index];
	_Alignas(64) struct m_inode m;
	struct inode_attr a;

	ck->report->inodes++;
	if (!check_unit(ck, seen->ino << INODE_SHIFT, MAGIC_INODE, seen->ino, &m)) {
		seen->mend = SALVAGE_RECORD;
		return;
	}
	inode_attr_decode(&a, &m);
	seen->gen = a.gen;
	seen->nlink = a.nlink;
	seen->mode_fmt = (uint16_t)(a.mode & S_IFMT);
	seen->flags = (uint8_t)((a.flags & INODE_SHARED ? SEEN_SHARED : 0) |
				(a.flags & INODE_LOST ? SEEN_LOST : 0));
	if (a.gen == 0 || a.gen >= ck->seq_end) {
		seen->mend |= MEND_RECORD;
		check_found(ck, CHECK_INODE, "inode %" PRIu64 ": generation %" PRIu64 " has not been yet",
			    a.ino, a.gen);
	}
	if (S_ISDIR(a.mode))
		check_dir(ck, seen, &m, &a);
	else
		check_data(ck, seen, &m, &a);
	check_attrs(ck, seen, &m);
}

/* ---- parent items, read again ---- */

static void parent_again(void *arg, const void *rec, size_t size_bytes)
{
	struct attr_walk *w = arg;
	struct seen_name name;

	(void)size_bytes;
	if (((const struct m_attr *)rec)->at_type != ATTR_PARENT)
		return;
	name = parent_name(rec, w->ino);
	name_seen(w->ck, &w->ck->parents, &name);
}

void check_parents_read(struct check *scratch, uint64_t ino)
{
	struct attr_walk w = { .ck = scratch, .ino = ino };
	struct check_tree tree = {
		.ck = scratch,
		.kind = NODE_ATTR,
		.owner = ino,
		.name = "",
		.fn = parent_again,
		.arg = &w,
	};
	_Alignas(64) struct m_inode m;

	if (check_unit(scratch, ino << INODE_SHIFT, MAGIC_INODE, ino, &m))
		check_tree(&tree, m.di_attr, INODE_ATTR_SIZE);
}

/* ---- intents ---- */

static bool lane_args_lie(const struct super *s, const struct m_intent *it)
{
	uint64_t len_blk = s->lane_size_bytes / BLOCK_SIZE, at[2];

	at[0] = le64_get(it->it_args[2]);
	at[1] = le64_get(it->it_args[3]);
	for (unsigned i = 0; i < 2; i++) {
		if (at[i] == 0 || at[i] >= s->size_blk || len_blk > s->size_blk - at[i])
			return true;
	}
	return le64_get(it->it_args[0]) >= s->lane_count || le64_get(it->it_args[1]) > 1 ||
	       le64_get(it->it_args[4]) > le64_get(it->it_args[5]);
}

bool check_lane_intent(const struct check *ck, uint64_t blk, uint64_t end_blk)
{
	uint64_t len_blk = ck->super->lane_size_bytes / BLOCK_SIZE;
	const struct seen_intent *all = ck->intents.data;

	for (size_t i = 0; i < ck->intents.count; i++) {
		const struct m_intent *it = &all[i].intent;

		if (le32_get(it->it_type) != INTENT_LANE || lane_args_lie(ck->super, it))
			continue;
		for (unsigned k = 2; k <= 3; k++) {
			uint64_t at = le64_get(it->it_args[k]);

			if (at < end_blk && at + len_blk > blk)
				return true;
		}
	}
	return false;
}

static const char *intent_args_lie(const struct check *ck, const struct m_intent *it, uint32_t type)
{
	uint64_t a = le64_get(it->it_args[0]), b = le64_get(it->it_args[1]), c = le64_get(it->it_args[2]);
	uint64_t size_blk = ck->super->size_blk, old = le64_get(it->it_args[3]);

	switch (type) {
	case INTENT_TRUNCATE:
		return a > 1ull << 52 ? "block past the longest file" : NULL;
	case INTENT_FREE_RANGE:
		return a > b || b > 1ull << 52 ? "range makes no sense" : NULL;
	case INTENT_RELOCATE:
		return a % BLOCK_SIZE != 0 ||
				       a >> CHUNK_SHIFT >= (uint64_t)ck->super->ag_count * ck->ag_chunks ||
				       b > 1 || c == 0 || c >= size_blk || old >= size_blk ?
			       "unit or blocks make no sense" :
			       NULL;
	case INTENT_LANE:
		return lane_args_lie(ck->super, it) ? "lane or blocks make no sense" : NULL;
	default:
		return NULL;
	}
}

/* Until it has been cleared, one block more is owned than the superblock's list tells of: the new one, or the one before. */
static void relocate_owner_add(struct check *ck, const struct m_intent *it)
{
	uint64_t laddr = le64_get(it->it_args[0]), copy = le64_get(it->it_args[1]);
	uint64_t blk = le64_get(it->it_args[2]);

	for (uint32_t i = 0; i < ck->super->remap_count; i++) {
		const struct remap *r = &ck->super->remaps[i];

		if (r->laddr == laddr && r->copy == copy && r->place_blk == blk) {
			blk = le64_get(it->it_args[3]);
			break;
		}
	}
	if (blk != 0)
		check_owner_add(ck, blk, 1, OWNER_REMAP, laddr / BLOCK_SIZE * 2 + copy);
}

static void check_intent(struct check *ck, struct seen_intent *in)
{
	uint32_t type = le32_get(in->intent.it_type);
	uint64_t ino = le64_get(in->intent.it_ino), gen = le64_get(in->intent.it_gen);
	const struct seen_inode *seen = seen_inode_find(ck, ino);
	struct extent_walk w = { .ck = ck, .ino = ino };
	const char *why = intent_args_lie(ck, &in->intent, type);

	ck->report->intents++;
	if (!why && type != INTENT_RELOCATE && type != INTENT_LANE &&
	    (!seen || (seen->mode_fmt != 0 && seen->gen != gen)))
		why = "its inode is not there";
	if (!why && le64_get(in->intent.it_seq) >= ck->seq_end)
		why = "of a transaction that has not been yet";
	if (why)
		check_found(ck, CHECK_INTENT, "intent %u of group %u (type %u, inode %" PRIu64 "): %s",
			    in->slot, in->agno, type, ino, why);
	in->lies = why != NULL;
	if (!why && type == INTENT_RELOCATE)
		relocate_owner_add(ck, &in->intent);
	if (type != INTENT_CLONE && type != INTENT_DROP)
		return;
	check_extents(&w, in->intent.it_body);
	ck->unattached |= w.blocks != 0;
	in->lies |= w.damaged;
}

void check_intents(struct check *ck)
{
	struct seen_intent *all = ck->intents.data;

	for (size_t i = 0; i < ck->intents.count; i++)
		check_intent(ck, &all[i]);
}
