/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Facts: a walk with its rows kept, helped where the tree of inodes of a group is damaged; and what can still be read of trees that the
 * walk could not go through.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "repair/base.h"

/* A node, or a value. */
static bool stray_read(struct repair *rp, uint64_t laddr, uint64_t owner, void *buf)
{
	return repair_unit_read(rp, laddr, MAGIC_NODE, owner, buf) ||
	       repair_unit_read(rp, laddr, MAGIC_XVAL, owner, buf);
}

/* ---- trees of a group, silently ---- */

struct quiet {
	struct repair *rp;
	uint32_t agno;
	enum node_kind kind;
	uint64_t (*seen)[CHUNK_UNIT_WORDS]; /* of this group: no unit is entered twice */
	bool (*fn)(void *arg, const void *rec);
	void *arg;
	struct rows *holes; /* struct repair_hole, NULL: nobody wants them */
	bool ended;
	bool strays; /* there were leaves that nothing leads to */
};

/* Records that begin there cannot be read. */
static void quiet_hole(struct quiet *q, uint64_t start_blk, uint64_t end_blk)
{
	struct repair_hole *row = q->holes ? rows_add(q->rp->facts, q->holes, sizeof(*row)) : NULL;

	if (row)
		*row = (struct repair_hole){ start_blk, end_blk };
}

static void quiet_leaf(struct quiet *q, const struct m_node_body *body)
{
	size_t size = node_ops(q->kind)->rec_size_bytes;

	for (unsigned i = 0; i < node_count(body) && !q->ended; i++)
		q->ended = !q->fn(q->arg, body->nb_space + i * size);
}

static bool quiet_enter(struct quiet *q, uint64_t laddr)
{
	uint32_t ag_chunks = q->rp->facts->ag_chunks;
	uint64_t lchunk = laddr >> CHUNK_SHIFT;
	unsigned unit = (unsigned)(laddr >> BLOCK_SHIFT) % CHUNK_BLOCKS;
	uint64_t *word;

	if (laddr % BLOCK_SIZE || lchunk / ag_chunks != q->agno)
		return false;
	word = &q->seen[lchunk % ag_chunks][unit / 64];
	if (*word >> unit % 64 & 1)
		return false;
	*word |= 1ull << unit % 64;
	return true;
}

static void quiet_body(struct quiet *q, const struct m_node_body *body, uint64_t end_key);

/* False: it cannot be read. */
static bool quiet_child(struct quiet *q, uint64_t laddr, unsigned level, uint64_t end_key)
{
	struct m_node *node = quiet_enter(q, laddr) ? aligned_alloc(64, sizeof(*node)) : NULL;
	const struct m_node_body *body;
	bool sound;

	if (!node)
		return false;
	body = (const void *)node->nd_body;
	sound = repair_unit_read(q->rp, laddr, MAGIC_NODE, OWNER_AG, node) && node_level(body) == level &&
		body->nb_kind == q->kind;
	if (sound)
		quiet_body(q, body, end_key);
	else
		q->rp->incomplete = true;
	free(node);
	return sound;
}

/* Sound by itself. Goes down one level with each step. end_key: no record below begins with a higher first word. */
static void quiet_body(struct quiet *q, const struct m_node_body *body, uint64_t end_key)
{
	const struct node_ops *ops = node_ops(q->kind);
	size_t words = ops->key_words + 1u + ops->is_range;

	if (node_level(body) == 0) {
		quiet_leaf(q, body);
		return;
	}
	for (unsigned i = 0; i < node_count(body) && !q->ended; i++) {
		const le64 *w = (const le64 *)(const void *)body->nb_space + i * words;
		uint64_t end = i + 1u < node_count(body) ? le64_get(w[words]) : end_key;

		if (quiet_child(q, le64_get(w[ops->key_words]), node_level(body) - 1u, end))
			continue;
		/* What begins before the next key may reach further. */
		if (ops->is_range && le64_get(w[ops->key_words + 1u]) < UINT64_MAX)
			end = u64_max(end, le64_get(w[ops->key_words + 1u]) + 1);
		quiet_hole(q, le64_get(w[0]), end);
	}
}

static bool quiet_stray(void *arg, uint64_t laddr, const void *unit)
{
	struct quiet *q = arg;
	const struct m_node *node = unit;
	const struct m_node_body *body = (const void *)node->nd_body;

	if (unit_magic(unit) == MAGIC_NODE && node_level(body) == 0 && body->nb_kind == q->kind &&
	    quiet_enter(q, laddr)) {
		q->strays = true;
		quiet_leaf(q, body);
	}
	return !q->ended;
}

/* Every unit that nothing leads to can be read. */
static bool strays_are_sound(struct repair *rp, uint32_t agno)
{
	const struct check *ck = rp->facts;
	uint64_t first = (uint64_t)agno * ck->ag_chunks;
	_Alignas(64) uint8_t buf[BLOCK_SIZE];

	for (uint64_t unit = first * CHUNK_BLOCKS; unit < (first + ck->ag_chunks) * CHUNK_BLOCKS; unit++) {
		uint64_t lchunk = unit / CHUNK_BLOCKS, word = unit % CHUNK_BLOCKS / 64;
		uint64_t stray = ck->used[lchunk][word] & ~ck->reached[lchunk][word] &
				 ~rp->taken[lchunk][word];

		if (stray >> unit % 64 & 1 && !stray_read(rp, unit << BLOCK_SHIFT, 0, buf))
			return false;
	}
	return true;
}

bool repair_group_look(struct repair *rp, uint32_t agno, enum ag_tree which,
		       bool (*fn)(void *arg, const void *rec), void *arg, struct rows *holes)
{
	const struct check_ag *ag = &rp->facts->ags[agno];
	struct quiet q = {
		.rp = rp,
		.agno = agno,
		.kind = ag_tree_kind(which),
		.fn = fn,
		.arg = arg,
		.holes = holes,
	};

	q.seen = calloc(rp->facts->ag_chunks, sizeof(*q.seen));
	if (!q.seen) {
		rp->error = -ENOMEM;
		return false;
	}
	rp->incomplete |= !ag->header;
	if (ag->header)
		quiet_body(&q, (const void *)ag->header->ag_roots[which], UINT64_MAX);
	if (!q.ended && (!ag->header || ag->damage & GROUP_TREE(which)))
		repair_stray_each(rp, agno, OWNER_AG, quiet_stray, &q);
	/* Where there are leaves its root had no records itself. */
	if (holes && !ag->header && !(q.strays && strays_are_sound(rp, agno)))
		quiet_hole(&q, 0, UINT64_MAX);
	free(q.seen);
	return !q.ended;
}

bool repair_group_each(struct repair *rp, uint32_t agno, enum ag_tree which,
		       bool (*fn)(void *arg, const void *rec), void *arg)
{
	return repair_group_look(rp, agno, which, fn, arg, NULL);
}

struct rmap_each {
	bool (*fn)(void *arg, const struct rmap *r);
	void *arg;
};

static bool rmap_rec(void *arg, const void *rec)
{
	const struct rmap_each *each = arg;
	struct rmap r;

	rmap_decode(&r, rec);
	return each->fn(each->arg, &r);
}

void repair_rmap_each(struct repair *rp, bool (*fn)(void *arg, const struct rmap *r), void *arg)
{
	struct rmap_each each = { fn, arg };

	for (uint32_t agno = 0; agno < rp->super->ag_count; agno++) {
		if (!repair_group_each(rp, agno, AG_RMAP, rmap_rec, &each))
			return;
	}
}

/* ---- strays ---- */

void repair_stray_each(struct repair *rp, uint32_t agno, uint64_t owner,
		       bool (*fn)(void *arg, uint64_t laddr, const void *unit), void *arg)
{
	const struct check *ck = rp->facts;
	uint64_t first = (uint64_t)agno * ck->ag_chunks;
	_Alignas(64) uint8_t buf[BLOCK_SIZE];

	for (uint64_t lchunk = first; lchunk < first + ck->ag_chunks; lchunk++) {
		for (unsigned w = 0; w < CHUNK_UNIT_WORDS; w++) {
			uint64_t stray = ck->used[lchunk][w] & ~ck->reached[lchunk][w] &
					 ~rp->taken[lchunk][w];

			for (; stray; stray &= stray - 1) {
				unsigned unit = w * 64u + (unsigned)__builtin_ctzll(stray);
				uint64_t laddr = (lchunk << CHUNK_SHIFT) + (uint64_t)unit * BLOCK_SIZE;

				if (stray_read(rp, laddr, owner, buf) && !fn(arg, laddr, buf))
					return;
			}
		}
	}
}

/* ---- inodes without their tree ---- */

static uint64_t unit_seq(const void *unit)
{
	return le64_get(((const struct m_unit_hdr *)unit)->uh_seq);
}

/*
 * Eight units that could be a cluster: 0, or *free_mask. A record is in use if it has names; those without were on their way out.
 * An older node or value in the same place may have anything in it, even records: where it is still whole, nobody wrote inodes over it.
 * One that is later than all of the records lies where a cluster has been.
 */
static unsigned cluster_judge(struct repair *rp, uint64_t first_ino, uint64_t *free_mask)
{
	_Alignas(64) uint8_t unit[BLOCK_SIZE];
	_Alignas(64) struct m_inode m;
	uint64_t other_seq = 0, seq = 0;
	unsigned found = 0;

	*free_mask = UINT64_MAX;
	for (unsigned i = 0; i < CLUSTER_INODES; i++) {
		uint64_t ino = first_ino + i, laddr = ino << INODE_SHIFT;

		if (laddr % BLOCK_SIZE == 0 && stray_read(rp, laddr, 0, unit)) {
			other_seq = u64_max(other_seq, unit_seq(unit));
			i += BLOCK_SIZE / INODE_SIZE - 1;
			continue;
		}
		if (ino == 0 || !repair_unit_read(rp, laddr, MAGIC_INODE, ino, &m))
			continue;
		found++;
		seq = u64_max(seq, unit_seq(&m));
		if (le32_get(m.di_nlink) != 0)
			*free_mask &= ~(1ull << i);
	}
	if (other_seq > seq && first_ino != 0) {
		*free_mask = UINT64_MAX;
		return 0;
	}
	if (first_ino == 0)
		*free_mask &= ~3ull;
	return found;
}

static bool run_is_stray(const struct check *ck, uint64_t lchunk, unsigned unit)
{
	uint64_t mask = 0xffull << unit % 64;

	return (ck->used[lchunk][unit / 64] & mask) == mask && !(ck->reached[lchunk][unit / 64] & mask);
}

struct orphan_mark {
	struct check *ck;
	size_t first; /* clusters of this group begin here */
};

/* Orphans have no names, and are inodes nevertheless. */
static bool orphan_mark(void *arg, const void *rec)
{
	const struct orphan_mark *mark = arg;
	uint64_t ino = le64_get(((const struct m_orphan *)rec)->or_ino);
	struct seen_cluster *all = mark->ck->clusters.data;

	for (size_t i = mark->first; i < mark->ck->clusters.count; i++) {
		if (ino - all[i].first_ino < CLUSTER_INODES)
			all[i].free_mask &= ~(1ull << (ino - all[i].first_ino));
	}
	return true;
}

/* Clusters that the damaged tree of a group does not lead to. */
static void clusters_recover(struct repair *rp, struct check *ck, uint32_t agno)
{
	uint64_t group = (uint64_t)agno * ck->ag_chunks;
	struct rows found = { 0 };
	struct orphan_mark mark;

	for (uint64_t lchunk = group; lchunk < group + ck->ag_chunks; lchunk++) {
		for (unsigned unit = 0; unit < CHUNK_BLOCKS; unit += CLUSTER_UNITS) {
			uint64_t first_ino = ((lchunk << CHUNK_SHIFT) + unit * (uint64_t)BLOCK_SIZE) >>
					     INODE_SHIFT;
			bool is_first = lchunk == group && unit == 0;
			struct seen_cluster *row;
			uint64_t free_mask;

			if (!run_is_stray(ck, lchunk, unit) &&
			    !(is_first && !(ck->reached[lchunk][0] & 0xff)))
				continue;
			if (cluster_judge(rp, first_ino, &free_mask) == 0 && !is_first)
				continue;
			if (free_mask == UINT64_MAX && !is_first &&
			    !(ck->ags[agno].damage & GROUP_TREE(AG_INODES)))
				continue;
			row = rows_add(ck, &found, sizeof(*row));
			if (row)
				*row = (struct seen_cluster){ first_ino, free_mask };
		}
	}
	/* Told to the walk once all are known: it takes their units. */
	struct rows before = ck->clusters;

	ck->clusters = found;
	mark = (struct orphan_mark){ ck, 0 };
	repair_group_each(rp, agno, AG_ORPHANS, orphan_mark, &mark);
	found = ck->clusters;
	ck->clusters = before;
	for (size_t i = 0; i < found.count; i++) {
		const struct seen_cluster *c = (const struct seen_cluster *)found.data + i;

		check_cluster_add(ck, agno, c->first_ino, c->free_mask);
		ck->ags[agno].damage |= GROUP_TREE(AG_INODES);
	}
	rows_free(&found);
}

/*
 * Numbers that the tree calls free and that have names: the tree is older than they are. (Whoever frees a number has taken all names from
 * it before.)
 */
static void masks_recover(struct repair *rp, struct check *ck, uint32_t agno)
{
	for (size_t i = 0; i < ck->clusters.count; i++) {
		struct seen_cluster *c = (struct seen_cluster *)ck->clusters.data + i;
		uint64_t free_mask, more;

		if (pool_laddr_ag(rp->pool, c->first_ino << INODE_SHIFT) != agno)
			continue;
		cluster_judge(rp, c->first_ino, &free_mask);
		more = c->free_mask & ~free_mask;
		if (c->first_ino == 0)
			more &= ~1ull;
		for (; more; more &= more - 1) {
			struct seen_inode *row = rows_add(ck, &ck->inodes, sizeof(*row));

			if (row)
				*row = (struct seen_inode){ .ino = c->first_ino +
								   (unsigned)__builtin_ctzll(more) };
			ck->ags[agno].inode_free--;
			ck->ags[agno].damage |= GROUP_TREE(AG_INODES);
		}
		c->free_mask &= free_mask;
	}
}

/* ---- claims ---- */

static int cluster_compare(const void *a, const void *b)
{
	const struct seen_cluster *x = a, *y = b;

	return x->first_ino < y->first_ino ? -1 : x->first_ino > y->first_ino;
}

static int claim_compare(const void *a, const void *b)
{
	const struct repair_claim *x = a, *y = b;

	if (x->ino != y->ino)
		return x->ino < y->ino ? -1 : 1;
	return x->order < y->order ? -1 : x->order > y->order;
}

static int ino_compare(const void *a, const void *b)
{
	const struct seen_inode *x = a, *y = b;

	return x->ino < y->ino ? -1 : x->ino > y->ino;
}

static struct seen_cluster *cluster_find(struct check *ck, uint64_t ino, size_t sorted)
{
	struct seen_cluster key = { .first_ino = ino - ino % CLUSTER_INODES }, *found,
			    *all = ck->clusters.data;

	found = sorted ? bsearch(&key, all, sorted, sizeof(key), cluster_compare) : NULL;
	/* New ones come in order: it can be the last one only. */
	if (!found && ck->clusters.count > sorted && all[ck->clusters.count - 1].first_ino == key.first_ino)
		found = &all[ck->clusters.count - 1];
	return found;
}

static void claim_apply(struct repair *rp, struct check *ck, const struct repair_claim *claim, size_t sorted)
{
	uint32_t agno = pool_laddr_ag(rp->pool, claim->ino << INODE_SHIFT);
	uint64_t bit = 1ull << claim->ino % CLUSTER_INODES;
	struct seen_cluster *c = cluster_find(ck, claim->ino, sorted);
	struct seen_inode *row;

	if (!c && claim->in_use) {
		check_cluster_add(ck, agno, claim->ino - claim->ino % CLUSTER_INODES, UINT64_MAX);
		c = cluster_find(ck, claim->ino, sorted);
	}
	if (!c || !(c->free_mask & bit) == claim->in_use)
		return;
	ck->ags[agno].damage |= GROUP_TREE(AG_INODES);
	c->free_mask ^= bit;
	if (!claim->in_use) {
		ck->ags[agno].inode_free++;
		row = seen_inode_find(ck, claim->ino);
		if (row)
			row->walk = UINT8_MAX; /* taken out below */
		return;
	}
	ck->ags[agno].inode_free--;
	row = rows_add(ck, &rp->claimed, sizeof(*row));
	if (row)
		*row = (struct seen_inode){ .ino = claim->ino };
}

static void claims_apply(struct repair *rp, struct check *ck)
{
	const struct repair_claim *claims = rp->claims.data;
	struct seen_inode *inodes;
	size_t out = 0, sorted = ck->clusters.count;

	if (rp->claims.count == 0)
		return;
	qsort(rp->claims.data, rp->claims.count, sizeof(*claims), claim_compare);
	if (ck->inodes.count)
		qsort(ck->inodes.data, ck->inodes.count, sizeof(*inodes), ino_compare);
	rp->claimed.count = 0;
	for (size_t i = 0; i < rp->claims.count; i++) {
		/* The last word about a number holds. */
		if (i + 1 == rp->claims.count || claims[i + 1].ino != claims[i].ino)
			claim_apply(rp, ck, &claims[i], sorted);
	}
	inodes = ck->inodes.data;
	for (size_t i = 0; i < ck->inodes.count; i++) {
		if (inodes[i].walk != UINT8_MAX)
			inodes[out++] = inodes[i];
	}
	ck->inodes.count = out;
	for (size_t i = 0; i < rp->claimed.count; i++) {
		struct seen_inode *row = rows_add(ck, &ck->inodes, sizeof(*row));

		if (row)
			*row = ((const struct seen_inode *)rp->claimed.data)[i];
	}
}

void repair_inode_claim(struct repair *rp, uint64_t ino, bool in_use)
{
	size_t order = rp->claims.count;
	struct repair_claim *row;

	if (ino == 0 ||
	    ino >> (CHUNK_SHIFT - INODE_SHIFT) >= (uint64_t)rp->super->ag_count * rp->facts->ag_chunks)
		return;
	row = rows_add(rp->facts, &rp->claims, sizeof(*row));
	if (row)
		*row = (struct repair_claim){ ino, order, in_use };
}

/* ---- the walk ---- */

static void group_more(void *arg, struct check *ck, uint32_t agno)
{
	struct repair *rp = arg;

	if (ck->ags[agno].damage & GROUP_TREE(AG_INODES) || (rp->suspects && rp->suspects[agno])) {
		masks_recover(rp, ck, agno);
		clusters_recover(rp, ck, agno);
	}
	if (agno + 1 < ck->super->ag_count)
		return;
	if (ck->clusters.count)
		qsort(ck->clusters.data, ck->clusters.count, sizeof(struct seen_cluster), cluster_compare);
	claims_apply(rp, ck);
	if (ck->clusters.count)
		qsort(ck->clusters.data, ck->clusters.count, sizeof(struct seen_cluster), cluster_compare);
}

void repair_facts_drop(struct repair *rp)
{
	if (rp->facts)
		check_free(rp->facts);
	free(rp->facts);
	free(rp->taken);
	free(rp->busy);
	free(rp->cursors);
	free(rp->redo);
	rp->facts = NULL;
	rp->taken = NULL;
	rp->busy = NULL;
	rp->cursors = NULL;
	rp->redo = NULL;
}

static int walk(struct repair *rp, const struct check_opts *opts, struct check_report *report, bool keep)
{
	size_t chunks = (size_t)rp->super->ag_count * (rp->super->ag_size_blk / CHUNK_BLOCKS);
	int rc;

	repair_facts_drop(rp);
	rp->taken = calloc(chunks, sizeof(*rp->taken));
	rp->cursors = calloc(rp->super->ag_count, sizeof(*rp->cursors));
	rp->redo = calloc(rp->super->ag_count, sizeof(*rp->redo));
	rp->facts = calloc(1, sizeof(*rp->facts));
	if (!rp->taken || !rp->facts || !rp->cursors || !rp->redo)
		return -ENOMEM;
	rc = check_make(rp->facts, rp->pool, opts, report);
	rp->facts->keep = keep;
	rp->facts->more = group_more;
	rp->facts->more_arg = rp;
	if (!rc)
		rc = check_walk(rp->facts);
	/* The report may be the caller's, and gone before the facts are. */
	rp->walked = *report;
	rp->facts->report = &rp->walked;
	rp->facts->opts = &rp->silent;
	return rc ? rc : rp->error;
}

int repair_walk(struct repair *rp, const struct check_opts *opts, struct check_report *report)
{
	return walk(rp, opts, report, true);
}

int repair_look(struct repair *rp, const struct check_opts *opts, struct check_report *report)
{
	rp->silent = (struct check_opts){ .arg = rp->opts->arg, .step = rp->opts->step };
	return walk(rp, opts ? opts : &rp->silent, report, false);
}

int repair_facts(struct repair *rp, struct check_report *report)
{
	struct check_report own;

	rp->silent = (struct check_opts){ .arg = rp->opts->arg, .step = rp->opts->step };
	return repair_walk(rp, &rp->silent, report ? report : &own);
}
