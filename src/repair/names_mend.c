/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Names, mended on an open file system: which entries and parent items go, come or move, and which inodes need a name.
 *
 * Facts are those of a walk. After each phase that changed something the walk runs again and all begins anew, so no phase has to
 * keep up with what another one did:
 *
 *	records, order of names -> entries that cannot be -> parent items -> inodes without a name -> counts, group records
 */
#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "repair/mend.h"

#define ROUNDS_MAX 24u
#define NONE SIZE_MAX

/* States of a directory in the search from the root (seen_inode.walk). */
enum { WAY_NEW, WAY_ROOT, WAY_TOP }; /* reached from the root; from a directory that has no name yet */

/* ---- what the parts share ---- */

int mend_run(struct mend *m, op_fn fn, void *arg, const char *what, uint64_t ino)
{
	int rc = op_run(m->fs, TXN_FREEING, NULL, fn, arg);

	switch (rc) {
	case 0:
		m->changes++;
		return 1;
	case MEND_NOTHING:
	case -ENOENT:
	case -ESTALE:
	case -EEXIST:
		return 0;
	case -ENOMEM:
	case -EROFS:
		return rc;
	default:
		repair_told(m->rp, REPAIR_LEFT, "could not %s %" PRIu64 ": %s", what, ino, strerror(-rc));
		return 0;
	}
}

const char *mend_path(struct mend *m, uint64_t ino)
{
	if (fs_path(m->fs, ino, m->path, MEND_PATH_SIZE) != 0)
		snprintf(m->path, sizeof(m->path), "inode %" PRIu64, ino);
	repair_text_clean(m->path);
	return m->path;
}

const char *mend_entry_path(struct mend *m, uint64_t dir, const struct mend_name *name)
{
	size_t len;

	mend_path(m, dir);
	len = strlen(m->path);
	snprintf(m->path + len, sizeof(m->path) - len, "%s%.*s", len == 1 ? "" : "/", (int)name->len,
		 name->bytes);
	repair_text_clean(m->path);
	return m->path;
}

/* ---- phase 1: inodes by themselves ---- */

static int phase_inodes(struct mend *m)
{
	struct seen_inode *inodes = m->ck->inodes.data;
	int rc = 0;

	for (size_t i = 0; i < m->ck->inodes.count && rc >= 0; i++) {
		struct seen_inode *in = &inodes[i];

		if (in->mode_fmt == 0)
			continue;
		if (in->mend & (MEND_RECORD | MEND_SYMLINK))
			rc = mend_record(m, in);
		if (rc >= 0 && in->mend & MEND_CHAIN_ATTR)
			rc = mend_attr_chain(m, in->ino);
		if (rc >= 0 && in->mend & MEND_CHAIN)
			rc = mend_dir_chain(m, in->ino);
	}
	return rc;
}

/* ---- phase 2: entries ---- */

static bool has_item(const struct mend *m, const struct seen_name *entry)
{
	return m->ck->parents.count &&
	       bsearch(entry, m->ck->parents.data, m->ck->parents.count, sizeof(*entry), seen_name_compare);
}

static int entry_lost(struct mend *m, const struct seen_name *entry, const char *why)
{
	struct mend_name name;
	int rc = mend_entry_drop(m, entry, &name);

	if (rc == 1)
		repair_told(m->rp, REPAIR_LOST, "%s: %s: removed", mend_entry_path(m, entry->dir, &name),
			    why);
	return rc;
}

static int entry_mend(struct mend *m, const struct seen_name *entry)
{
	const struct seen_inode *child = seen_inode_find(m->ck, entry->child);
	struct mend_name name;
	uint8_t type;
	int rc;

	if (!child)
		return entry_lost(m, entry, "there is no such inode");
	if (child->ino == INODE_ROOT)
		return entry_lost(m, entry, "a name for the root directory");
	type = mode_dt(child->mode_fmt);
	if (child->mode_fmt == 0 || type == entry->type)
		return 0;
	rc = mend_entry_retype(m, entry, type, &name);
	if (rc == 1)
		repair_told(m->rp, REPAIR_MENDED, "%s: type in its directory",
			    mend_entry_path(m, entry->dir, &name));
	return rc;
}

static int phase_entries(struct mend *m)
{
	const struct seen_name *entries = m->ck->names.data;
	int rc = 0;

	for (size_t i = 0; i < m->ck->names.count && rc >= 0; i++)
		rc = entry_mend(m, &entries[i]);
	return rc;
}

/* ---- phase 3: one name for each directory, and a way to it from the root ---- */

/* An entry for a directory. */
struct edge {
	uint64_t dir;
	size_t child; /* index of its inode */
	const struct seen_name *entry;
	bool has_item;
};

struct ways {
	struct mend *m;
	struct edge *edges; /* by directory */
	size_t edge_count;
	size_t *keep;  /* for each inode: the edge that leads to it, or NONE */
	size_t *queue; /* of inodes */
	size_t queue_end;
};

static int edge_compare(const void *a, const void *b)
{
	const struct edge *x = a, *y = b;

	if (x->dir != y->dir)
		return x->dir < y->dir ? -1 : 1;
	return x->entry < y->entry ? -1 : x->entry > y->entry;
}

static void ways_free(struct ways *w)
{
	free(w->edges);
	free(w->keep);
	free(w->queue);
}

static int ways_make(struct ways *w)
{
	struct check *ck = w->m->ck;
	struct seen_inode *inodes = ck->inodes.data;
	const struct seen_name *entries = ck->names.data;
	size_t dirs = 0;

	for (size_t i = 0; i < ck->names.count; i++)
		dirs += entries[i].type == DT_DIR;
	w->edges = calloc(dirs + 1, sizeof(*w->edges));
	w->keep = calloc(ck->inodes.count + 1, sizeof(*w->keep));
	w->queue = calloc(ck->inodes.count + 1, sizeof(*w->queue));
	if (!w->edges || !w->keep || !w->queue)
		return -ENOMEM;
	for (size_t i = 0; i < ck->inodes.count; i++) {
		w->keep[i] = NONE;
		inodes[i].walk = WAY_NEW;
	}
	for (size_t i = 0; i < ck->names.count; i++) {
		struct seen_inode *child = seen_inode_find(ck, entries[i].child);
		struct seen_inode *dir = seen_inode_find(ck, entries[i].dir);

		if (dir)
			dir->flags |= SEEN_FULL;
		if (!child || child->mode_fmt != S_IFDIR || entries[i].type != DT_DIR ||
		    child->ino == INODE_ROOT)
			continue;
		w->edges[w->edge_count++] = (struct edge){ entries[i].dir, (size_t)(child - inodes),
							   &entries[i], has_item(w->m, &entries[i]) };
	}
	qsort(w->edges, w->edge_count, sizeof(*w->edges), edge_compare);
	return 0;
}

static size_t edges_from(const struct ways *w, uint64_t dir)
{
	size_t lo = 0, hi = w->edge_count;

	while (lo < hi) {
		size_t mid = (lo + hi) / 2;

		if (w->edges[mid].dir < dir)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

/* Everything below the directories from *from* on in the queue; items: only by entries that the child knows of. */
static void ways_follow(struct ways *w, size_t from, uint8_t state, bool items)
{
	struct seen_inode *inodes = w->m->ck->inodes.data;

	for (; from < w->queue_end; from++) {
		uint64_t dir = inodes[w->queue[from]].ino;

		for (size_t e = edges_from(w, dir); e < w->edge_count && w->edges[e].dir == dir; e++) {
			size_t child = w->edges[e].child;

			if (inodes[child].walk != WAY_NEW || (items && !w->edges[e].has_item))
				continue;
			inodes[child].walk = state;
			w->keep[child] = e;
			w->queue[w->queue_end++] = child;
		}
	}
}

/* From one directory; entries that both sides know of come first. */
static void ways_from(struct ways *w, size_t top, uint8_t state)
{
	struct seen_inode *inodes = w->m->ck->inodes.data;
	size_t start = w->queue_end;

	inodes[top].walk = state;
	w->queue[w->queue_end++] = top;
	ways_follow(w, start, state, true);
	ways_follow(w, start, state, false);
}

/* Whether an entry for this directory is known to both sides. */
static bool is_named_well(const struct mend *m, uint64_t ino)
{
	size_t count;
	const struct seen_name *rows = salvage_rows(&m->ck->names, ino, &count);

	for (size_t i = 0; i < count; i++) {
		if (has_item(m, &rows[i]))
			return true;
	}
	return false;
}

/* Directories that the root does not lead to: first those without any name, then of each loop one, best one with a doubtful name. */
static void ways_find(struct ways *w)
{
	struct check *ck = w->m->ck;
	struct seen_inode *inodes = ck->inodes.data, *root = seen_inode_find(ck, INODE_ROOT);

	if (root)
		ways_from(w, (size_t)(root - inodes), WAY_ROOT);
	for (unsigned pass = 0; pass < 3; pass++) {
		for (size_t i = 0; i < ck->inodes.count; i++) {
			if (inodes[i].mode_fmt != S_IFDIR || inodes[i].walk != WAY_NEW ||
			    (pass == 0 && inodes[i].names != 0) ||
			    (pass == 1 && is_named_well(w->m, inodes[i].ino)))
				continue;
			ways_from(w, i, WAY_TOP);
		}
	}
}

static int ways_mend(struct ways *w)
{
	int rc = 0;

	for (size_t e = 0; e < w->edge_count && rc >= 0; e++) {
		const struct edge *edge = &w->edges[e];
		struct mend_name name;

		if (w->keep[edge->child] == e)
			continue;
		rc = mend_entry_drop(w->m, edge->entry, &name);
		if (rc == 1)
			repair_told(w->m->rp, REPAIR_MENDED, "%s: removed, as directory %" PRIu64 " %s",
				    mend_entry_path(w->m, edge->dir, &name), edge->entry->child,
				    w->keep[edge->child] == NONE ? "would be inside itself" :
								   "has another name");
	}
	return rc;
}

static int phase_ways(struct mend *m)
{
	struct ways w = { .m = m };
	int rc = ways_make(&w);

	if (!rc) {
		ways_find(&w);
		rc = ways_mend(&w);
	}
	ways_free(&w);
	return rc;
}

/* ---- phase 4: parent items ---- */

/* Whether an item without an entry tells of an entry that is lost, and that can be put back. */
static bool is_restorable(struct mend *m, const struct seen_name *item)
{
	const struct seen_inode *child = seen_inode_find(m->ck, item->child);
	const struct seen_inode *dir = seen_inode_find(m->ck, item->dir);

	if (!child || !dir || dir->mode_fmt != S_IFDIR || child->ino == INODE_ROOT)
		return false;
	if (dir->names == 0 && dir->ino != INODE_ROOT && dir->nlink == 0 && !(dir->flags & SEEN_FULL))
		return false; /* about to be freed */
	if (child->mode_fmt == S_IFDIR)
		return child->names == 0 && (child->nlink != 0 || child->flags & SEEN_FULL);
	return child->nlink > child->names;
}

static int item_mend(struct mend *m, const struct seen_name *item)
{
	struct seen_inode *child = seen_inode_find(m->ck, item->child);
	const struct seen_inode *dir = seen_inode_find(m->ck, item->dir);
	struct mend_name name;
	int rc;

	if (is_restorable(m, item)) {
		/* Not before it is known that the directory is not below its new child. */
		if (child->mode_fmt == S_IFDIR && dir->walk != WAY_ROOT)
			return 0;
		rc = mend_entry_restore(m, item, &name);
		if (rc == 1) {
			child->names++;
			repair_told(m->rp, REPAIR_MENDED, "%s: put back into its directory",
				    mend_entry_path(m, item->dir, &name));
		}
		if (rc != 0)
			return rc;
	}
	rc = mend_parent_remove(m, item);
	if (rc == 1)
		repair_told(m->rp, REPAIR_MENDED,
			    "%s: forgot a name that it does not have in directory %" PRIu64,
			    mend_path(m, item->child), item->dir);
	return rc;
}

static int entry_known(struct mend *m, const struct seen_name *entry)
{
	const struct seen_inode *child = seen_inode_find(m->ck, entry->child);
	int rc;

	if (!child || child->mode_fmt == 0)
		return 0;
	rc = mend_parent_add(m, entry);
	if (rc == 1)
		repair_told(m->rp, REPAIR_MENDED, "%s: knows its name in directory %" PRIu64 " again",
			    mend_path(m, entry->child), entry->dir);
	return rc;
}

static int phase_items(struct mend *m)
{
	const struct rows *names = &m->ck->names, *parents = &m->ck->parents;
	const struct seen_name *entries = names->data, *items = parents->data;
	size_t i = 0, k = 0;
	int rc = 0;

	while (rc >= 0 && (i < names->count || k < parents->count)) {
		int order = i == names->count   ? 1 :
			    k == parents->count ? -1 :
						  seen_name_compare(&entries[i], &items[k]);

		/* An entry with the same key takes the place of an item for another name. */
		if (order < 0)
			rc = entry_known(m, &entries[i]);
		else if (order > 0 && !(k > 0 && seen_name_compare(&items[k - 1], &items[k]) == 0))
			rc = item_mend(m, &items[k]);
		i += order <= 0;
		k += order >= 0;
	}
	return rc;
}

/* ---- phase 5: inodes without a name ---- */

static bool needs_name(const struct seen_inode *in)
{
	if (in->mode_fmt == 0 || in->names != 0 || in->ino == INODE_ROOT)
		return false;
	return in->nlink != 0 || (in->mode_fmt == S_IFDIR && in->flags & SEEN_FULL);
}

/* It will get its old name when the directory has one. */
static bool waits_for_dir(struct mend *m, const struct seen_inode *in)
{
	size_t count;
	const struct seen_name *items = salvage_rows(&m->ck->parents, in->ino, &count);

	for (size_t i = 0; i < count; i++) {
		if (is_restorable(m, &items[i]) && items[i].dir != in->ino)
			return true;
	}
	return false;
}

static int phase_unnamed(struct mend *m)
{
	struct seen_inode *inodes = m->ck->inodes.data;
	uint64_t changes = m->changes;
	int rc = 0;

	for (size_t i = 0; i < m->ck->inodes.count && rc >= 0; i++) {
		if (needs_name(&inodes[i]) && !waits_for_dir(m, &inodes[i]))
			rc = mend_reconnect(m, inodes[i].ino);
	}
	/* Directories that wait for each other. */
	for (size_t i = 0; i < m->ck->inodes.count && rc >= 0 && m->changes == changes; i++) {
		if (needs_name(&inodes[i]))
			rc = mend_reconnect(m, inodes[i].ino);
	}
	return rc;
}

/* ---- phase 6: counts ---- */

static int phase_counts(struct mend *m)
{
	const struct seen_inode *inodes = m->ck->inodes.data;
	int rc = 0;

	for (size_t i = 0; i < m->ck->inodes.count && rc >= 0; i++) {
		const struct seen_inode *in = &inodes[i];
		bool is_orphan = in->flags & SEEN_ORPHAN;

		if (in->mode_fmt != 0 && (in->mend & MEND_COUNTS || in->flags & SEEN_TOLD ||
					  (is_orphan && (in->nlink != 0 || in->names != 0))))
			rc = mend_counts(m, in);
	}
	return rc >= 0 ? mend_group_records(m) : rc;
}

/* ---- rounds ---- */

static int round_run(struct mend *m)
{
	static int (*const phases[])(struct mend * m) = { phase_inodes, phase_entries, phase_ways,
							  phase_items,  phase_unnamed, phase_counts };
	uint64_t changes = m->changes;
	int rc = 0;

	for (size_t i = 0; i < ARRAY_SIZE(phases) && rc >= 0 && m->changes == changes; i++)
		rc = phases[i](m);
	return rc < 0 ? rc : 0;
}

int repair_names(struct repair *rp, struct fs *fs)
{
	struct mend *m = calloc(1, sizeof(*m));
	uint64_t changes;
	int rc = 0;

	if (!m)
		return -ENOMEM;
	*m = (struct mend){ .rp = rp, .fs = fs };
	for (unsigned round = 0; round < ROUNDS_MAX && !rc; round++) {
		changes = m->changes;
		rc = repair_facts(rp, &m->report);
		m->ck = rp->facts;
		if (!rc && m->report.findings == 0)
			break;
		if (!rc && !repair_step(rp, "names", round, ROUNDS_MAX))
			rc = rp->error ? rp->error : -ECANCELED;
		if (!rc)
			rc = round_run(m);
		if (m->changes == changes)
			break;
	}
	free(m);
	return rc;
}
