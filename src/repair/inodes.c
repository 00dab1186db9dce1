/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Inodes: trees that are damaged, and records that are lost, are made anew from what is left (salvage.h). The record is written last, so an
 * inode has either its old trees or all of the new ones.
 *
 * Link counts, hash chains and names that do not agree are left to repair_names().
 */
#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "repair/salvage.h"

#define CLAIM_ROUNDS 4u
#define LOST_ROUNDS 16u

/* ---- sources ---- */

static bool wants_rmap(const struct check *ck, uint64_t owner)
{
	const struct seen_inode *in = seen_inode_find((struct check *)(uintptr_t)ck, owner);

	return !in || in->mode_fmt == 0 || in->mend & SALVAGE_EXTENTS;
}

static bool rmap_collect(void *arg, const struct rmap *r)
{
	struct salvage *s = arg;
	struct rmap *row;

	if (r->owner & OWNER_SPECIAL || !wants_rmap(s->ck, r->owner))
		return true;
	row = rows_add(s->ck, &s->rmap, sizeof(*row));
	if (row)
		*row = *r;
	return row != NULL;
}

static int rmap_compare(const void *a, const void *b)
{
	const struct rmap *x = a, *y = b;

	if (x->owner != y->owner)
		return x->owner < y->owner ? -1 : 1;
	return x->offset_blk < y->offset_blk ? -1 : x->offset_blk > y->offset_blk;
}

static bool stray_collect(void *arg, uint64_t laddr, const void *unit)
{
	struct salvage *s = arg;
	const struct m_unit_hdr *h = unit;
	const struct m_node_body *body = (const void *)((const struct m_node *)unit)->nd_body;
	bool is_node = unit_magic(unit) == MAGIC_NODE;
	struct stray *row;

	s->unreadable--;
	if (unit_owner(unit) & OWNER_SPECIAL)
		return true;
	row = rows_add(s->ck, &s->strays, sizeof(*row));
	if (row)
		*row = (struct stray){
			.owner = unit_owner(unit),
			.laddr = laddr,
			.seq = le64_get(h->uh_seq),
			.kind = is_node ? body->nb_kind : 0,
			.level = is_node ? body->nb_level : 0,
		};
	return row != NULL;
}

static int stray_compare(const void *a, const void *b)
{
	const struct stray *x = a, *y = b;

	if (x->owner != y->owner)
		return x->owner < y->owner ? -1 : 1;
	return x->laddr < y->laddr ? -1 : x->laddr > y->laddr;
}

static int dir_compare(const void *a, const void *b)
{
	const struct seen_name *x = a, *y = b;

	if (x->dir != y->dir)
		return x->dir < y->dir ? -1 : 1;
	return x->child < y->child ? -1 : x->child > y->child;
}

/* Units in use that nothing leads to. */
static uint64_t strays_count(const struct salvage *s)
{
	const struct check *ck = s->ck;
	uint64_t count = 0;

	for (uint64_t lchunk = 0; lchunk < (uint64_t)ck->super->ag_count * ck->ag_chunks; lchunk++) {
		for (unsigned w = 0; w < CHUNK_UNIT_WORDS; w++)
			count += (uint64_t)__builtin_popcountll(
				ck->used[lchunk][w] & ~ck->reached[lchunk][w] & ~s->rp->taken[lchunk][w]);
	}
	return count;
}

static void sources_free(struct salvage *s)
{
	rows_free(&s->strays);
	rows_free(&s->rmap);
	rows_free(&s->items_by_dir);
	s->collected = false;
}

/* What the walk did not keep by itself; once, when there is need. */
static int sources_collect(struct salvage *s)
{
	const struct seen_name *items = s->ck->parents.data;

	if (s->collected)
		return 0;
	s->unreadable = strays_count(s);
	for (uint32_t agno = 0; agno < s->ck->super->ag_count; agno++)
		repair_stray_each(s->rp, agno, 0, stray_collect, s);
	repair_rmap_each(s->rp, rmap_collect, s);
	for (size_t i = 0; i < s->ck->parents.count; i++) {
		struct seen_name *row = rows_add(s->ck, &s->items_by_dir, sizeof(*row));

		if (!row)
			break;
		*row = items[i];
	}
	rows_sort(&s->strays, sizeof(struct stray), stray_compare);
	rows_sort(&s->rmap, sizeof(struct rmap), rmap_compare);
	rows_sort(&s->items_by_dir, sizeof(struct seen_name), dir_compare);
	s->collected = true;
	return s->ck->error ? s->ck->error : s->rp->error;
}

/* ---- one inode ---- */

static int trees_make(struct salvage *s, struct patient *p)
{
	int rc = 0;

	if (p->trees & SALVAGE_EXTENTS)
		rc = salvage_extents(s, p);
	if (!rc && p->trees & SALVAGE_DIR)
		rc = salvage_dir(s, p);
	if (!rc && p->trees & SALVAGE_ATTR)
		rc = salvage_attr(s, p);
	return rc;
}

static const char *trees_text(uint16_t trees)
{
	switch (trees & SALVAGE_TREES) {
	case SALVAGE_EXTENTS:
		return "its extents";
	case SALVAGE_DIR:
		return "its entries";
	case SALVAGE_ATTR:
		return "its attributes";
	case SALVAGE_EXTENTS | SALVAGE_ATTR:
		return "its extents and attributes";
	default:
		return "its entries and attributes";
	}
}

/* The record goes out with the roots of its new trees. 0 too if it had to be left. */
static int patient_write(struct salvage *s, struct patient *p)
{
	uint64_t ino = p->attr.ino;
	int rc = trees_make(s, p);

	if (!rc) {
		inode_attr_encode(p->m, &p->attr);
		rc = repair_unit_write(s->rp, ino << INODE_SHIFT, MAGIC_INODE, p->m);
	}
	if (!rc) {
		s->wrote++;
		return 0;
	}
	if (rc == -ENOMEM || rc == -EROFS || rc == -ECANCELED)
		return rc;
	s->rp->inodes_are_left = true;
	repair_told(s->rp, REPAIR_LEFT, "%s: cannot be made anew: %s", salvage_path(s, ino), strerror(-rc));
	return 0;
}

static int inode_mend(struct salvage *s, struct seen_inode *seen)
{
	_Alignas(64) struct m_inode m;
	struct patient p = { .seen = seen, .m = &m, .trees = seen->mend & SALVAGE_TREES };
	uint64_t wrote = s->wrote;
	int rc = sources_collect(s);

	if (rc || !repair_unit_read(s->rp, seen->ino << INODE_SHIFT, MAGIC_INODE, seen->ino, &m))
		return rc;
	inode_attr_decode(&p.attr, &m);
	rc = patient_write(s, &p);
	if (!rc && s->wrote != wrote)
		repair_told(s->rp, REPAIR_MENDED, "%s: %s put together again", salvage_path(s, seen->ino),
			    trees_text(p.trees));
	return rc;
}

/* ---- lost records ---- */

/* What others say about an inode whose record cannot be read. */
struct evidence {
	size_t entries, children, strays, extents;
	uint8_t type;     /* of an entry; DT_UNKNOWN: none */
	bool dir, target; /* it is a directory; its only block could be a symlink's */
	uint64_t target_blk;
};

static void evidence_take(struct salvage *s, uint64_t ino, struct evidence *ev)
{
	const struct seen_name *entries = salvage_rows(&s->ck->names, ino, &ev->entries);
	const struct stray *strays = salvage_strays(s, ino, &ev->strays);
	const struct rmap *r;
	size_t count;

	salvage_items(s, ino, &ev->children);
	ev->type = ev->entries ? (uint8_t)entries[0].type : DT_UNKNOWN;
	ev->dir = ev->children != 0 || ev->type == DT_DIR || ino == INODE_ROOT;
	for (size_t i = 0; i < ev->strays; i++)
		ev->dir |= strays[i].kind == NODE_DIR;
	r = salvage_rmap(s, ino, &count);
	for (size_t i = 0; i < count; i++) {
		ev->extents++;
		ev->target = ev->extents == 1 && r[i].offset_blk == 0 && r[i].count_blk == 1;
		ev->target_blk = r[i].start_blk;
	}
}

/* The length of a target in the only block of what was a symlink; 0: it is none. */
static uint64_t target_len(struct salvage *s, const struct evidence *ev)
{
	uint8_t target[BLOCK_SIZE];
	const uint8_t *end;

	if (ev->type != DT_LNK || !ev->target || ev->target_blk >= s->ck->super->size_blk ||
	    dax_load(s->rp->dax, target, ev->target_blk << BLOCK_SHIFT, BLOCK_SIZE, NULL) != 0)
		return 0;
	end = memchr(target, 0, sizeof(target));
	return end ? (uint64_t)(end - target) : 0;
}

static int record_make(struct salvage *s, struct seen_inode *seen, const struct evidence *ev)
{
	_Alignas(64) struct m_inode m = { .di_hdr.uh_owner = le64_of(seen->ino) };
	struct patient p = { .seen = seen, .m = &m, .was_lost = true, .trees = SALVAGE_ATTR };
	uint64_t target = ev->dir ? 0 : target_len(s, ev), wrote = s->wrote;
	struct timespec now;
	int rc = pool_repair_seq(s->rp->pool, &p.attr.gen);

	if (rc)
		return rc;
	clock_gettime(CLOCK_REALTIME, &now);
	p.attr.ino = seen->ino;
	if (seen->ino == INODE_ROOT)
		p.attr.gen = 1;
	p.attr.atime = (struct inode_time){ now.tv_sec, (uint32_t)now.tv_nsec };
	p.attr.mtime = p.attr.ctime = p.attr.btime = p.attr.atime;
	p.attr.change = 1;
	p.attr.nlink = ev->dir ? 2 : ev->entries ? (uint32_t)u64_min(ev->entries, UINT32_MAX) : 1;
	if (ev->dir) {
		p.attr.mode = seen->ino == INODE_ROOT ? S_IFDIR | 0755 : S_IFDIR | 0700;
		p.attr.data_format = DATA_DIR;
		p.trees |= SALVAGE_DIR;
	} else if ((ev->type == DT_FIFO || ev->type == DT_SOCK) && ev->extents == 0) {
		p.attr.mode = DTTOIF(ev->type) | 0600;
	} else {
		p.attr.mode = target ? S_IFLNK | 0777 : S_IFREG | 0600;
		p.attr.data_format = DATA_EXTENTS;
		p.trees |= SALVAGE_EXTENTS;
	}
	m.di_data_format = (uint8_t)p.attr.data_format;
	rc = trees_make(s, &p);
	p.trees = 0;
	if (target)
		p.attr.size = target;
	if (!rc)
		rc = patient_write(s, &p);
	if (rc)
		return rc;
	if (s->wrote != wrote)
		repair_told(s->rp, REPAIR_LOST, "%s: owner, mode, times%s lost: made anew",
			    salvage_path(s, seen->ino),
			    ev->dir || target ? " and attributes" :
			    ev->extents       ? ", size and attributes" :
						", size, attributes and content");
	repair_inode_claim(s->rp, seen->ino, true);
	return 0;
}

/* A number in use without a record. dirs: only if it is known to be a directory. */
static int record_mend(struct salvage *s, struct seen_inode *seen, bool dirs)
{
	struct evidence ev = { 0 };
	int rc = sources_collect(s);

	if (rc)
		return rc;
	evidence_take(s, seen->ino, &ev);
	if (dirs && !ev.dir)
		return 0;
	if (seen->ino != INODE_ROOT && ev.entries == 0 && ev.children == 0 &&
	    (seen->flags & SEEN_ORPHAN || (ev.strays == 0 && ev.extents == 0))) {
		repair_told(s->rp, REPAIR_LOST, "inode %" PRIu64 ": lost, and nothing %s", seen->ino,
			    seen->flags & SEEN_ORPHAN ? "needed it any more" : "tells of it");
		repair_inode_claim(s->rp, seen->ino, false);
		s->wrote++;
		return 0;
	}
	return record_make(s, seen, &ev);
}

/* ---- numbers that are not in use and should be ---- */

/* Whether the units of its cluster can be inodes. */
static bool cluster_is_free(const struct check *ck, uint64_t ino)
{
	uint64_t laddr = (ino - ino % CLUSTER_INODES) << INODE_SHIFT, lchunk = laddr >> CHUNK_SHIFT;
	unsigned unit = (unsigned)(laddr >> BLOCK_SHIFT) % CHUNK_BLOCKS;
	const struct seen_cluster *all = ck->clusters.data;
	size_t lo = 0, hi = ck->clusters.count;

	if (lchunk >= (uint64_t)ck->super->ag_count * ck->ag_chunks)
		return false;
	while (lo < hi) {
		size_t mid = (lo + hi) / 2;

		if (all[mid].first_ino <= ino - ino % CLUSTER_INODES)
			lo = mid + 1;
		else
			hi = mid;
	}
	if (lo > 0 && all[lo - 1].first_ino == ino - ino % CLUSTER_INODES)
		return true;
	return !(ck->reached[lchunk][unit / 64] >> unit % 64 & 0xff);
}

struct item_look {
	const struct seen_name *entry;
	bool found;
};

static void item_seen(void *arg, const void *rec, size_t size_bytes, uint64_t seq)
{
	struct item_look *l = arg;
	const struct m_attr *m = rec;
	const le64 *words = (const void *)m->at_data;

	(void)size_bytes, (void)seq;
	l->found |= m->at_type == ATTR_PARENT && le64_get(words[0]) == l->entry->dir &&
		    le64_get(words[1]) == l->entry->key;
}

/* The record of a number that is said to be free is sound, has links, and knows the entry that leads to it. */
static bool is_named_by(struct salvage *s, const struct seen_name *entry)
{
	_Alignas(64) struct m_inode m;
	struct patient p = { .m = &m, .attr = { .ino = entry->child } };
	struct item_look look = { entry, false };

	if (!cluster_is_free(s->ck, entry->child) ||
	    !repair_unit_read(s->rp, entry->child << INODE_SHIFT, MAGIC_INODE, entry->child, &m) ||
	    le32_get(m.di_nlink) == 0)
		return false;
	salvage_leaves(s, &p, NODE_ATTR, item_seen, &look);
	return look.found;
}

static bool is_directory(struct salvage *s, uint64_t ino)
{
	_Alignas(64) struct m_inode m;

	return cluster_is_free(s->ck, ino) &&
	       repair_unit_read(s->rp, ino << INODE_SHIFT, MAGIC_INODE, ino, &m) &&
	       le32_get(m.di_nlink) != 0 && S_ISDIR(le32_get(m.di_mode));
}

static void claim(struct salvage *s, uint64_t ino, uint64_t *count)
{
	repair_told(s->rp, REPAIR_MENDED, "%s: was marked as free", salvage_path(s, ino));
	repair_inode_claim(s->rp, ino, true);
	*count += 1;
}

/* Entries and parent items that lead to numbers that are not in use. */
static int claims_make(struct salvage *s, uint64_t *count)
{
	const struct seen_name *entries = s->ck->names.data, *items;
	uint64_t last = 0;

	*count = 0;
	if (!seen_inode_find(s->ck, INODE_ROOT)) {
		struct seen_inode root = { .ino = INODE_ROOT };

		if (!is_directory(s, INODE_ROOT))
			return record_mend(s, &root, false);
		claim(s, INODE_ROOT, count);
	}
	for (size_t i = 0; i < s->ck->names.count; i++) {
		if (entries[i].child == last || seen_inode_find(s->ck, entries[i].child) ||
		    !is_named_by(s, &entries[i]))
			continue;
		last = entries[i].child;
		claim(s, last, count);
	}
	items = s->ck->parents.data;
	for (size_t i = 0; i < s->ck->parents.count; i++) {
		uint64_t dir = items[i].dir;

		if (dir == last || seen_inode_find(s->ck, dir) || !is_directory(s, dir))
			continue;
		last = dir;
		claim(s, dir, count);
	}
	return 0;
}

/* ---- intents ---- */

/* Those that cannot be finished go; what only their trees map comes free with the groups. */
static int intents_mend(struct salvage *s)
{
	const struct seen_intent *all = s->ck->intents.data;
	_Alignas(64) struct m_intents m;

	for (size_t i = 0; i < s->ck->intents.count; i++) {
		uint64_t laddr = pool_ag_unit(s->rp->pool, all[i].agno, AG_UNIT_INTENTS);
		int rc;

		if (!all[i].lies || !repair_unit_read(s->rp, laddr, MAGIC_INTENTS, OWNER_AG, &m))
			continue;
		memset(&m.in_slots[all[i].slot], 0, sizeof(m.in_slots[0]));
		rc = repair_unit_write(s->rp, laddr, MAGIC_INTENTS, &m);
		if (rc)
			return rc;
		repair_told(s->rp, REPAIR_MENDED,
			    "intent %u of group %u (inode %" PRIu64 ") makes no sense: removed", all[i].slot,
			    all[i].agno, le64_get(all[i].intent.it_ino));
	}
	return 0;
}

/* ---- all of them ---- */

enum pass { PASS_DIRS, PASS_OTHERS, PASS_LOST_DIRS, PASS_LOST };

static int pass_one(struct salvage *s, struct seen_inode *in, enum pass pass)
{
	if (in->mode_fmt == 0)
		return pass < PASS_LOST_DIRS ? 0 : record_mend(s, in, pass == PASS_LOST_DIRS);
	if (pass >= PASS_LOST_DIRS || !(in->mend & SALVAGE_TREES) ||
	    (in->mode_fmt == S_IFDIR) != (pass == PASS_DIRS))
		return 0;
	return inode_mend(s, in);
}

/* One pass; where it wrote something the facts are taken anew. */
static int pass_run(struct salvage *s, enum pass pass)
{
	struct seen_inode *all = s->ck->inodes.data;
	uint64_t wrote = s->wrote;
	int rc = 0;

	for (size_t i = 0; i < s->ck->inodes.count && !rc; i++) {
		if (i % 1024 == 0 && !repair_step(s->rp, "inodes", i, s->ck->inodes.count))
			return s->rp->error;
		rc = pass_one(s, &all[i], pass);
	}
	if (rc || s->wrote == wrote)
		return rc;
	sources_free(s);
	rc = repair_facts(s->rp, NULL);
	s->ck = s->rp->facts;
	return rc;
}

/* Directories first: names of other things are looked up in them. Lost ones may lie in each other, and are found step by step. */
static int inodes_mend(struct salvage *s)
{
	int rc = pass_run(s, PASS_DIRS);

	if (!rc)
		rc = pass_run(s, PASS_OTHERS);
	for (unsigned round = 0; round < LOST_ROUNDS && !rc; round++) {
		uint64_t wrote = s->wrote;

		rc = pass_run(s, PASS_LOST_DIRS);
		if (s->wrote == wrote)
			break;
	}
	return rc ? rc : pass_run(s, PASS_LOST);
}

bool repair_inodes_needed(const struct repair *rp)
{
	struct check *ck = rp->facts;
	const struct seen_inode *inodes = ck->inodes.data;
	const struct seen_intent *intents = ck->intents.data;
	const struct seen_name *entries = ck->names.data, *items = ck->parents.data;
	bool needed = !seen_inode_find(ck, INODE_ROOT);

	for (size_t i = 0; i < ck->inodes.count && !needed; i++)
		needed = inodes[i].mode_fmt == 0 || inodes[i].mend & SALVAGE_TREES;
	for (size_t i = 0; i < ck->intents.count && !needed; i++)
		needed = intents[i].lies;
	for (size_t i = 0; i < ck->names.count && !needed; i++)
		needed = !seen_inode_find(ck, entries[i].child);
	for (size_t i = 0; i < ck->parents.count && !needed; i++)
		needed = !seen_inode_find(ck, items[i].dir);
	return needed;
}

int repair_inodes(struct repair *rp)
{
	struct salvage *s = calloc(1, sizeof(*s));
	uint64_t claims = 0;
	int rc = 0;

	if (!s)
		return -ENOMEM;
	s->rp = rp;
	for (unsigned round = 0; round < CLAIM_ROUNDS && !rc; round++) {
		s->ck = rp->facts;
		rc = claims_make(s, &claims);
		sources_free(s);
		if (rc || claims == 0)
			break;
		rc = repair_facts(rp, NULL);
	}
	s->ck = rp->facts;
	if (!rc)
		rc = inodes_mend(s);
	if (!rc)
		rc = intents_mend(s);
	sources_free(s);
	free(s);
	return rc;
}
