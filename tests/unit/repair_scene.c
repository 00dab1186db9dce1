/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * See repair_scene.h.
 */
#include "repair_scene.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <linux/falloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "btree/btree.h"
#include "lib/testunit.h"
#include "media/ag.h"
#include "media/journal.h"
#include "space/space.h"
#include "txn/txn.h"

#define GROUP_BYTES ((uint64_t)16 << 20)
#define FILE_BYTES ((uint64_t)1 << 20)
#define PIECES 1300u /* of a file with holes */
#define NAMES 330u   /* in a directory with inner nodes */
#define CROWD 1100u  /* inodes, more than the root of their tree holds */

const char *const scene_damage_names[SCENE_DAMAGES] = { "zeroed", "random", "one bit", "older", "other" };

/* Tests of this file have one thread and go on to the end or not at all. */
#define MUST(call)                                                                    \
	do {                                                                          \
		int64_t must_rc = (call);                                             \
		if (must_rc < 0) {                                                    \
			fprintf(stderr, "%s:%d: %s: %s\n", __func__, __LINE__, #call, \
				strerror((int)-must_rc));                             \
			abort();                                                      \
		}                                                                     \
	} while (0)

/* ---- content ---- */

static uint64_t make(struct testfs *t, uint64_t dir, const char *name, uint32_t mode)
{
	struct inode_attr a;

	MUST(testfs_mknod(t, dir, name, mode, &a));
	fs_forget(t->fs, a.ino, 1);
	return a.ino;
}

static uint64_t look(struct testfs *t, uint64_t dir, const char *name)
{
	struct inode_attr a;

	MUST(testfs_lookup(t, dir, name, &a));
	fs_forget(t->fs, a.ino, 1);
	return a.ino;
}

static void fill(struct testfs *t, uint64_t ino, uint64_t off, size_t len)
{
	uint8_t *bytes = malloc(len);
	uint64_t random = ino * 1000 + off;

	for (size_t i = 0; i < len; i++)
		bytes[i] = (uint8_t)testfs_random(&random);
	MUST(fs_write(t->fs, &testfs_root, ino, bytes, len, off, 0));
	free(bytes);
}

static void long_name(char *name, unsigned i)
{
	memset(name, 'n', 230);
	snprintf(name + 230, 20, "%u", i);
}

static void content_trees(struct testfs *t)
{
	uint64_t pieces = make(t, INODE_ROOT, "pieces", S_IFREG | 0644), dir, file, attrs;
	char name[256];

	fill(t, pieces, 0, 2 * PIECES * BLOCK_SIZE);
	for (unsigned i = 0; i < PIECES; i++)
		MUST(fs_fallocate(t->fs, &testfs_root, pieces, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
				  (2 * i + 1) * BLOCK_SIZE, BLOCK_SIZE));
	dir = make(t, INODE_ROOT, "dir", S_IFDIR | 0755);
	for (unsigned i = 0; i < NAMES; i++) {
		long_name(name, i);
		make(t, dir, name, S_IFREG | 0600);
	}
	file = make(t, INODE_ROOT, "linked", S_IFREG | 0644);
	fill(t, file, 0, 10000);
	dir = make(t, INODE_ROOT, "links", S_IFDIR | 0755);
	for (unsigned i = 0; i < 150; i++) {
		long_name(name, i);
		MUST(testfs_link(t, file, dir, name));
	}
	attrs = make(t, INODE_ROOT, "attrs", S_IFREG | 0644);
	for (unsigned i = 0; i < 100; i++) {
		snprintf(name, sizeof(name), "user.attr%u", i);
		MUST(fs_setxattr(t->fs, attrs, name, name, sizeof(name), 0, false));
	}
	dir = make(t, INODE_ROOT, "crowd", S_IFDIR | 0755);
	for (unsigned i = 0; i < CROWD; i++) {
		snprintf(name, sizeof(name), "f%u", i);
		make(t, dir, name, S_IFREG | 0600);
	}
}

static void content_make(struct testfs *t)
{
	uint64_t file = make(t, INODE_ROOT, "file", S_IFREG | 0640), clone, p, q;
	uint8_t value[10000];
	struct inode_attr a;

	fill(t, file, 0, FILE_BYTES);
	clone = make(t, INODE_ROOT, "clone", S_IFREG | 0644);
	MUST(fs_clone(t->fs, &testfs_root, file, 0, clone, 0, FILE_BYTES / 2, 0, NULL));
	memset(value, 3, sizeof(value));
	MUST(fs_setxattr(t->fs, file, "user.big", value, sizeof(value), 0, false));
	fill(t, make(t, INODE_ROOT, "small", S_IFREG | 0600), 0, 100);
	MUST(fs_symlink(t->fs, &testfs_root, INODE_ROOT, "link", 4, "file", 4, &a));
	fs_forget(t->fs, a.ino, 1);
	p = make(t, INODE_ROOT, "p", S_IFDIR | 0750);
	q = make(t, p, "q", S_IFDIR | 0755);
	fill(t, make(t, q, "deep", S_IFREG | 0644), 0, 5000);
	make(t, p, "fifo", S_IFIFO | 0644);
	MUST(fs_fallocate(t->fs, &testfs_root, make(t, p, "unwritten", S_IFREG | 0644), 0, 0, 20000));
	make(t, p, "lossy", S_IFREG | 0644);
	for (unsigned i = 0; i < 20; i++) /* stay referenced, so they stay orphans */
		MUST(fs_tmpfile(t->fs, &testfs_root, INODE_ROOT, 0600, &a));
	content_trees(t);
}

/* So that every unit has an older version. */
static void content_change(struct testfs *t)
{
	uint64_t file = look(t, INODE_ROOT, "file"), pieces = look(t, INODE_ROOT, "pieces"),
		 dir = look(t, INODE_ROOT, "dir"), links = look(t, INODE_ROOT, "links"),
		 crowd = look(t, INODE_ROOT, "crowd"), attrs = look(t, INODE_ROOT, "attrs"),
		 copy = make(t, INODE_ROOT, "copy", S_IFREG | 0644);
	uint8_t value[10000];
	struct inode_attr a;
	char name[256];

	MUST(fs_clone(t->fs, &testfs_root, pieces, 0, copy, 0, PIECES / 2 * BLOCK_SIZE, 0, NULL));
	for (unsigned i = 0; i < 2 * PIECES; i += 32)
		fill(t, pieces, i * BLOCK_SIZE, 100);
	fill(t, file, 3 * BLOCK_SIZE, FILE_BYTES / 4);
	memset(value, 4, sizeof(value));
	MUST(fs_setxattr(t->fs, file, "user.big", value, sizeof(value), 0, false));
	for (unsigned i = 0; i < NAMES; i += 3) {
		long_name(name, i);
		MUST(testfs_unlink(t, dir, name));
		make(t, dir, name, S_IFREG | 0644);
	}
	for (unsigned i = 0; i < 150; i += 4) {
		long_name(name, i);
		MUST(testfs_unlink(t, links, name));
	}
	for (unsigned i = 0; i < CROWD; i += 20) {
		snprintf(name, sizeof(name), "f%u", i);
		MUST(testfs_unlink(t, crowd, name));
	}
	for (unsigned i = 0; i < 100; i += 3) {
		snprintf(name, sizeof(name), "user.attr%u", i);
		MUST(fs_setxattr(t->fs, attrs, name, name, 99, 0, false));
	}
	for (unsigned i = 0; i < 3; i++)
		MUST(fs_tmpfile(t->fs, &testfs_root, INODE_ROOT, 0600, &a));
	fill(t, look(t, INODE_ROOT, "small"), 20, 50);
}

/* What no call makes: records of losses, and an operation that is half done. */
static void content_by_hand(struct testfs *t)
{
	uint64_t lossy = look(t, look(t, INODE_ROOT, "p"), "lossy"), file = look(t, INODE_ROOT, "file");
	struct txn *tx = txn_begin(t->pool, TXN_FREEING);
	_Alignas(64) struct m_inode inode;
	_Alignas(64) struct m_intents intents;
	struct btree bt;

	MUST(space_ag_tree(tx, pool_laddr_ag(t->pool, lossy << INODE_SHIFT), AG_LOSSES, &bt));
	for (uint64_t i = 0; i < 20; i++)
		MUST(bt_insert(&bt, &(struct m_loss){ le64_of(lossy), le64_of(i), le64_of(1), le64_of(1) },
			       sizeof(struct m_loss)));
	MUST(txn_commit(tx));
	testunit_load(t, lossy << INODE_SHIFT, &inode, sizeof(inode));
	inode.di_flags = le32_of(le32_get(inode.di_flags) | INODE_LOST);
	testunit_store(t, lossy << INODE_SHIFT, &inode, sizeof(inode), TESTUNIT_BOTH);
	testunit_load(t, file << INODE_SHIFT, &inode, sizeof(inode));
	testunit_load(t, pool_ag_unit(t->pool, 0, AG_UNIT_INTENTS), &intents, sizeof(intents));
	intents.in_slots[2] = (struct m_intent){
		.it_type = le32_of(INTENT_TRUNCATE),
		.it_seq = inode.di_gen,
		.it_ino = le64_of(file),
		.it_gen = inode.di_gen,
		.it_args = { le64_of(FILE_BYTES) },
	};
	testunit_store(t, pool_ag_unit(t->pool, 0, AG_UNIT_INTENTS), &intents, sizeof(intents),
		       TESTUNIT_BOTH);
}

/* ---- where the units are ---- */

static struct scene_unit *unit_add(struct scene *s, struct testfs *t, const char *name, uint64_t laddr,
				   size_t size, enum scene_what knows, const char *path)
{
	struct scene_unit *u = &s->units[s->unit_count++];

	assert(s->unit_count <= SCENE_UNITS_MAX);
	*u = (struct scene_unit){ .name = name, .size = size, .knows = knows, .path = path };
	for (unsigned copy = 0; t && copy < 2; copy++)
		MUST(pool_place(t->pool, laddr, copy, &u->off[copy]));
	return u;
}

/* The nodes below a root: the first leaf, and the first node above it that is no root. */
static void nodes_add(struct scene *s, struct testfs *t, enum node_kind kind, const void *root,
		      const char *leaf, const char *inner, enum scene_what knows, const char *path)
{
	_Alignas(64) struct m_node node;
	const struct m_node_body *body = root;
	unsigned level = node_level(body);
	uint64_t laddr;

	if (level == 0) {
		fprintf(stderr, "there is no '%s'\n", leaf);
		abort();
	}
	while (level-- > 0) {
		laddr = le64_get(((const le64 *)(const void *)body->nb_space)[node_ops(kind)->key_words]);
		testunit_load(t, laddr, &node, sizeof(node));
		body = (const void *)node.nd_body;
		assert(node_level(body) == level);
		if (level == 0)
			unit_add(s, t, leaf, laddr, BLOCK_SIZE, knows, path);
		else if (level == 1 && inner)
			unit_add(s, t, inner, laddr, BLOCK_SIZE, SCENE_NOTHING, path);
		if (level == 1)
			inner = NULL;
	}
	if (inner) {
		fprintf(stderr, "there is no '%s'\n", inner);
		abort();
	}
}

static void fixed_add(struct scene *s, struct testfs *t)
{
	static const struct {
		const char *name;
		unsigned index;
	} fixed[] = { { "group header", AG_UNIT_HEADER },
		      { "intents", AG_UNIT_INTENTS },
		      { "remap list", AG_UNIT_REMAP },
		      { "chunk table", AG_UNIT_TABLE },
		      { "bitmap", AG_UNIT_TABLE + 1 } };
	struct scene_unit *u = unit_add(s, NULL, "superblock", 0, BLOCK_SIZE, SCENE_NOTHING, NULL);

	u->off[1] = (pool_super(t->pool)->size_blk - 1) * BLOCK_SIZE;
	for (size_t i = 0; i < ARRAY_SIZE(fixed); i++) {
		for (uint32_t agno = 0; agno < pool_ag_count(t->pool); agno++)
			unit_add(s, t, fixed[i].name, pool_ag_unit(t->pool, agno, fixed[i].index), BLOCK_SIZE,
				 SCENE_NOTHING, NULL);
	}
}

static void group_trees_add(struct scene *s, struct testfs *t)
{
	uint64_t p = look(t, INODE_ROOT, "p"), lossy = look(t, p, "lossy");
	uint64_t crowd = look(t, look(t, INODE_ROOT, "crowd"), "f1");
	_Alignas(64) struct m_ag ag;

	testunit_load(t, pool_ag_unit(t->pool, 0, AG_UNIT_HEADER), &ag, sizeof(ag));
	nodes_add(s, t, NODE_RMAP, ag.ag_roots[AG_RMAP], "rmap leaf", "rmap inner node", SCENE_NOTHING, NULL);
	nodes_add(s, t, NODE_REFCOUNT, ag.ag_roots[AG_REFCOUNT], "refcount leaf", NULL, SCENE_NOTHING, NULL);
	nodes_add(s, t, NODE_ORPHAN, ag.ag_roots[AG_ORPHANS], "orphan leaf", NULL, SCENE_NOTHING, NULL);
	testunit_load(t, pool_ag_unit(t->pool, pool_laddr_ag(t->pool, crowd << INODE_SHIFT), AG_UNIT_HEADER),
		      &ag, sizeof(ag));
	nodes_add(s, t, NODE_INODES, ag.ag_roots[AG_INODES], "inode tree leaf", NULL, SCENE_NOTHING, NULL);
	testunit_load(t, pool_ag_unit(t->pool, pool_laddr_ag(t->pool, lossy << INODE_SHIFT), AG_UNIT_HEADER),
		      &ag, sizeof(ag));
	nodes_add(s, t, NODE_LOSS, ag.ag_roots[AG_LOSSES], "loss leaf", NULL, SCENE_LOSSES, "/p/lossy");
}

static void inode_add(struct scene *s, struct testfs *t, const char *name, uint64_t ino, const char *path)
{
	unit_add(s, t, name, ino << INODE_SHIFT, INODE_SIZE, SCENE_RECORD, path);
}

static void inode_units_add(struct scene *s, struct testfs *t)
{
	uint64_t p = look(t, INODE_ROOT, "p"), dir = look(t, INODE_ROOT, "dir"),
		 attrs = look(t, INODE_ROOT, "attrs"), file = look(t, INODE_ROOT, "file"),
		 pieces = look(t, INODE_ROOT, "pieces"), linked = look(t, INODE_ROOT, "linked");
	const struct m_node_body *body;
	_Alignas(64) struct m_inode m;

	inode_add(s, t, "inode of the root", INODE_ROOT, "/");
	inode_add(s, t, "inode of a directory", dir, "/dir");
	inode_add(s, t, "inode of a small directory", p, "/p");
	inode_add(s, t, "inode of a file", file, "/file");
	inode_add(s, t, "inode of a file in pieces", pieces, "/pieces");
	inode_add(s, t, "inode of an inline file", look(t, INODE_ROOT, "small"), "/small");
	inode_add(s, t, "inode with many names", linked, "/linked");
	inode_add(s, t, "inode of a symlink", look(t, INODE_ROOT, "link"), "/link");
	inode_add(s, t, "inode of a fifo", look(t, p, "fifo"), "/p/fifo");
	inode_add(s, t, "inode of an unwritten file", look(t, p, "unwritten"), "/p/unwritten");
	testunit_load(t, dir << INODE_SHIFT, &m, sizeof(m));
	nodes_add(s, t, NODE_DIR, m.di_data, "directory leaf", "directory inner node", SCENE_NOTHING, "/dir");
	testunit_load(t, pieces << INODE_SHIFT, &m, sizeof(m));
	nodes_add(s, t, NODE_EXTENT, m.di_data, "extent leaf", "extent inner node", SCENE_NOTHING, "/pieces");
	testunit_load(t, linked << INODE_SHIFT, &m, sizeof(m));
	nodes_add(s, t, NODE_ATTR, m.di_attr, "leaf of parents", "inner node of parents", SCENE_NOTHING,
		  "/linked");
	testunit_load(t, attrs << INODE_SHIFT, &m, sizeof(m));
	nodes_add(s, t, NODE_ATTR, m.di_attr, "xattr leaf", NULL, SCENE_XATTRS, "/attrs");
	testunit_load(t, file << INODE_SHIFT, &m, sizeof(m));
	body = (const void *)m.di_attr;
	for (unsigned i = 0; i < node_count(body); i++) {
		size_t off = le16_get(((const le16 *)(const void *)body->nb_space)[i]);
		const struct m_attr *a = (const void *)(m.di_attr + off);

		if (a->at_flags & ATTR_LARGE)
			unit_add(s, t, "xattr value",
				 le64_get(*(const le64 *)(const void *)(a->at_data +
									u64_align_up(a->at_namelen, 8))),
				 BLOCK_SIZE, SCENE_XATTRS, "/file");
	}
}

/* ---- a transaction that was cut ---- */

struct cut {
	struct testfs *t;
	uint8_t *image;
	bool wanted, done;
	unsigned lane;
};

static void cut_store(void *ctx, uint64_t off, const void *src, size_t len)
{
	(void)ctx, (void)off, (void)src, (void)len;
}

static void cut_zero(void *ctx, uint64_t off, size_t len)
{
	(void)ctx, (void)off, (void)len;
}

/* The moment when a record is whole in its lane, and nothing of it at home. */
static void cut_fence(void *ctx)
{
	struct cut *cut = ctx;
	const struct super *super;

	if (!cut->wanted || cut->done)
		return;
	super = pool_super(cut->t->pool);
	for (cut->lane = 0; cut->lane < super->lane_count; cut->lane++) {
		const struct m_record *r =
			dax_ptr(cut->t->dax, super->lanes[cut->lane].primary_blk * BLOCK_SIZE);

		if (le32_get(r->rc_magic) == MAGIC_RECORD && le32_get(r->rc_entry_count) > 3) {
			memcpy(cut->image, dax_ptr(cut->t->dax, 0), SCENE_BYTES);
			cut->done = true;
			return;
		}
	}
}

/* ---- making ---- */

static const struct testfs_opts scene_opts = {
	.size_bytes = SCENE_BYTES,
	.format = { .ag_size_bytes = GROUP_BYTES },
	.fs = { .noatime = true }, /* looking changes nothing */
};

static void live_make(struct scene *s, struct testfs *t, struct cut *cut)
{
	const struct super *super = pool_super(t->pool);
	struct scene_unit *u;

	memcpy(s->older, dax_ptr(t->dax, 0), SCENE_BYTES);
	cut->wanted = true;
	make(t, look(t, INODE_ROOT, "p"), "journaled", S_IFREG | 0644);
	assert(cut->done);
	u = unit_add(s, NULL, "journal record", 0, BLOCK_SIZE, SCENE_RECORD, "/p/journaled");
	u->off[0] = super->lanes[cut->lane].primary_blk * BLOCK_SIZE;
	u->off[1] = super->lanes[cut->lane].mirror_blk * BLOCK_SIZE;
	u->record = true;
}

/* ---- images ---- */

void scene_image_make(const struct scene *s, struct scene_image *im)
{
	im->bytes = aligned_alloc(BLOCK_SIZE, SCENE_BYTES);
	im->written = calloc(SCENE_BYTES / BLOCK_SIZE, 1);
	assert(im->bytes && im->written);
	memcpy(im->bytes, s->image, SCENE_BYTES);
}

void scene_image_reset(const struct scene *s, struct scene_image *im)
{
	for (size_t blk = 0; blk < SCENE_BYTES / BLOCK_SIZE; blk++) {
		if (im->written[blk])
			memcpy(im->bytes + blk * BLOCK_SIZE, s->image + blk * BLOCK_SIZE, BLOCK_SIZE);
	}
	memset(im->written, 0, SCENE_BYTES / BLOCK_SIZE);
}

void scene_image_free(struct scene_image *im)
{
	free(im->bytes);
	free(im->written);
}

void scene_image_mark(struct scene_image *im, uint64_t off, size_t len_bytes)
{
	if (len_bytes)
		memset(im->written + off / BLOCK_SIZE, 1,
		       (off + len_bytes - 1) / BLOCK_SIZE - off / BLOCK_SIZE + 1);
}

/* What is stored is marked, and told on. */
struct marking {
	struct scene_image *im;
	const struct dax_trace *trace; /* may be NULL */
};

static void mark_store(void *ctx, uint64_t off, const void *src, size_t len_bytes)
{
	const struct marking *m = ctx;

	scene_image_mark(m->im, off, len_bytes);
	if (m->trace)
		m->trace->store(m->trace->ctx, off, src, len_bytes);
}

static void mark_zero(void *ctx, uint64_t off, size_t len_bytes)
{
	const struct marking *m = ctx;

	scene_image_mark(m->im, off, len_bytes);
	if (m->trace)
		m->trace->zero(m->trace->ctx, off, len_bytes);
}

static void mark_fence(void *ctx)
{
	const struct marking *m = ctx;

	if (m->trace)
		m->trace->fence(m->trace->ctx);
}

static struct dax *image_open(struct marking *m)
{
	const struct dax_trace trace = { mark_store, mark_zero, mark_fence, m };
	struct dax *dax;

	MUST(dax_open_memory(m->im->bytes, SCENE_BYTES, &trace, &dax));
	return dax;
}

/* As a mount sees it. */
static void image_look(struct scene_image *im, struct snapshot *snap)
{
	const struct pool_opts opts = { 0 };
	struct marking marking = { .im = im };
	struct dax *dax = image_open(&marking);
	struct pool *pool;
	struct fs *fs;
	char why[256];

	MUST(pool_open(dax, &opts, &pool, why, sizeof(why)));
	MUST(fs_open(pool, &scene_opts.fs, &fs));
	snapshot_take(fs, snap);
	fs_close(fs);
	pool_close(pool, false);
	dax_close(dax);
}

static void look_at(const uint8_t *image, struct snapshot *snap)
{
	struct testfs t;

	testfs_open_image(&t, image, &scene_opts);
	snapshot_take(t.fs, snap);
	testfs_free(&t);
}

void scene_make(struct scene *s, bool live)
{
	struct testfs t;
	struct cut cut = { .t = &t };
	const struct dax_trace trace = { cut_store, cut_zero, cut_fence, &cut };
	struct testfs_opts opts = scene_opts;

	*s = (struct scene){ .image = malloc(SCENE_BYTES), .older = malloc(SCENE_BYTES) };
	cut.image = s->image;
	opts.trace = &trace;
	testfs_make(&t, &opts);
	content_make(&t);
	memcpy(s->older, dax_ptr(t.dax, 0), SCENE_BYTES);
	content_change(&t);
	content_by_hand(&t);
	if (live) {
		live_make(s, &t, &cut);
	} else {
		fixed_add(s, &t);
		group_trees_add(s, &t);
		inode_units_add(s, &t);
		memcpy(s->image, dax_ptr(t.dax, 0), SCENE_BYTES);
	}
	testfs_free(&t);
	look_at(s->image, &s->want);
	if (live)
		look_at(s->older, &s->before);
	assert(!s->want.error && !s->before.error);
}

void scene_free(struct scene *s)
{
	snapshot_free(&s->want);
	snapshot_free(&s->before);
	free(s->image);
	free(s->older);
}

/* ---- damage ---- */

bool scene_damage(const struct scene *s, struct scene_image *im, const struct scene_unit *u,
		  enum scene_damage how, unsigned copies, uint64_t *random)
{
	uint64_t bit = testfs_below(random, u->record ? 64 * 8 : u->size * 8);
	const uint8_t *other = s->image + s->units[0].off[0];

	/* An inode that looks like another one is worse than a superblock there. */
	for (unsigned i = 0; i < s->unit_count; i++) {
		if (s->units[i].size == u->size && s->units[i].off[0] != u->off[0])
			other = s->image + s->units[i].off[0];
	}
	for (unsigned copy = 0; copy < 2; copy++) {
		uint8_t *at = im->bytes + u->off[copy];
		const uint8_t *was = s->older + u->off[copy];

		if (!(copies & 1u << copy))
			continue;
		scene_image_mark(im, u->off[copy], u->size);
		switch (how) {
		case SCENE_ZERO:
			memset(at, 0, u->size);
			break;
		case SCENE_RANDOM:
			for (size_t i = 0; i < u->size; i++)
				at[i] = (uint8_t)testfs_random(random);
			break;
		case SCENE_FLIP:
			at[bit / 8] ^= (uint8_t)(1u << bit % 8);
			break;
		case SCENE_OLDER:
			if (u->record || memcmp(at, was, 8) == 0 || memcmp(at, was, 4) != 0 ||
			    memcmp(at + 8, was + 8, 16) != 0)
				return false; /* not changed since, or not the same unit then */
			memcpy(at, was, u->size);
			break;
		default:
			if (u->record)
				return false;
			memcpy(at, other, u->size);
		}
	}
	return true;
}

/* ---- repair ---- */

struct hearing {
	struct scene_run *run;
	size_t lost_size;
	bool loud;
};

static void heard_found(void *arg, enum check_kind kind, const char *text)
{
	if (((struct hearing *)arg)->loud)
		printf("#   %s: %s\n", check_kind_name(kind), text);
}

static void heard_told(void *arg, enum repair_act act, const char *text)
{
	static const char *const heads[REPAIR_ACTS] = { "mended", "LOST", "left" };
	struct hearing *h = arg;
	size_t len = strlen(text);

	if (h->loud)
		printf("#   %s: %s\n", heads[act], text);
	if (act != REPAIR_LOST)
		return;
	h->run->lost = realloc(h->run->lost, h->lost_size + len + 2);
	memcpy(h->run->lost + h->lost_size, text, len);
	memcpy(h->run->lost + h->lost_size + len, "\n", 2);
	h->lost_size += len + 1;
}

void scene_repair(struct scene_run *run, struct scene_image *im, const struct dax_trace *trace, bool loud)
{
	struct hearing h = { .run = run, .loud = loud };
	const struct repair_opts opts = {
		.found = heard_found, .limit = 10, .told = heard_told, .arg = &h, .force = true
	};
	struct marking marking = { im, trace };
	struct dax *dax = image_open(&marking);

	*run = (struct scene_run){ 0 };
	run->rc = repair_pool(dax, &opts, &run->report, run->why, sizeof(run->why));
	dax_close(dax);
}

void scene_run_free(struct scene_run *run)
{
	free(run->lost);
	run->lost = NULL;
}

/* ---- comparing ---- */

static int path_compare(const void *path, const void *entry)
{
	return strcmp(path, ((const struct snapshot_entry *)entry)->path);
}

static const struct snapshot_entry *entry_find(const struct snapshot *snap, const char *path)
{
	return bsearch(path, snap->entries, snap->count, sizeof(*snap->entries), path_compare);
}

static bool time_same(struct inode_time a, struct inode_time b)
{
	return a.s == b.s && a.ns == b.ns;
}

/* What differs, or NULL. Changed times of directories are those of the repair; the root may have got a lost+found. */
static const char *entry_differs(const struct snapshot_entry *seen, const struct snapshot_entry *want)
{
	const struct inode_attr *a = &want->attr, *b;
	bool is_root = strcmp(want->path, "/") == 0;

	if (!seen)
		return "is not there";
	b = &seen->attr;
	if (a->ino != b->ino || a->gen != b->gen)
		return "number or generation";
	if (a->mode != b->mode || a->uid != b->uid || a->gid != b->gid || a->rdev != b->rdev)
		return "mode or owner";
	if (!is_root && (a->size != b->size || a->nlink != b->nlink || a->blocks != b->blocks))
		return "size, links or blocks";
	if (!time_same(a->btime, b->btime) || (!S_ISDIR(a->mode) && !time_same(a->mtime, b->mtime)))
		return "times";
	if (seen->xattrs_size != want->xattrs_size ||
	    (seen->xattrs_size && memcmp(seen->xattrs, want->xattrs, seen->xattrs_size) != 0))
		return "xattrs";
	return want->content && memcmp(seen->content, want->content, a->size) != 0 ? "content" : NULL;
}

/* Extents are known to the rmap too: a file without record has all its data; only a hole at its end is not to be seen in it. */
static bool data_is_there(const struct snapshot_entry *seen, const struct snapshot_entry *want)
{
	uint64_t size = want->attr.size, both = seen ? u64_min(size, seen->attr.size) : 0;

	if (!S_ISREG(want->attr.mode) || want->attr.data_format != DATA_EXTENTS ||
	    want->attr.flags & INODE_UNWRITTEN)
		return true;
	for (uint64_t i = both; i < size; i++) {
		if (want->content[i] != 0)
			return false;
	}
	return seen && seen->attr.size <= u64_align_up(size, BLOCK_SIZE) &&
	       memcmp(seen->content, want->content, both) == 0;
}

/* Those of other leaves are still there. */
static bool most_xattrs_are_there(const struct snapshot_entry *seen, const struct snapshot_entry *want)
{
	return seen && (want->xattrs_size < BLOCK_SIZE * 3 || seen->xattrs_size >= want->xattrs_size / 2) &&
	       seen->attr.size == want->attr.size && seen->attr.mode == want->attr.mode;
}

/*
 * Is it a part of what the damaged unit alone knew? Where the unit is sound but of yesterday nobody can know which of two statements
 * is the later one.
 */
static bool may_differ(const struct scene *s, const struct snapshot_entry *seen,
		       const struct snapshot_entry *e, const struct scene_unit *u, enum scene_damage how)
{
	const struct snapshot_entry *owner = u->path ? entry_find(&s->want, u->path) : NULL;

	if (!owner || owner->attr.ino != e->attr.ino)
		return false;
	if (how == SCENE_OLDER)
		return true;
	if (u->knows == SCENE_XATTRS)
		return data_is_there(seen, e) && most_xattrs_are_there(seen, e);
	return u->knows == SCENE_RECORD && seen && data_is_there(seen, e);
}

/*
 * A loss has to be named. Not what nobody can know: that a sound record is of yesterday.
 * Of several names of a file one will do.
 */
static bool is_named(const struct snapshot_entry *e, enum scene_damage how, const struct scene_run *run)
{
	if (!run || how == SCENE_OLDER || (!S_ISDIR(e->attr.mode) && e->attr.nlink > 1))
		return true;
	return run->lost && strstr(run->lost, e->path);
}

static bool compare(const struct scene *s, const struct snapshot *seen, const struct scene_unit *u,
		    enum scene_damage how, const struct scene_run *run, char *why, size_t why_size)
{
	for (size_t i = 0; i < s->want.count; i++) {
		const struct snapshot_entry *e = &s->want.entries[i];
		const struct snapshot_entry *now = entry_find(seen, e->path);
		const char *what = entry_differs(now, e);

		if (what && !may_differ(s, now, e, u, how)) {
			snprintf(why, why_size, "%.200s: %s", e->path, what);
			return false;
		}
		if (what && !is_named(e, how, run)) {
			snprintf(why, why_size, "%.200s: %s, and no line about a loss names it", e->path,
				 what);
			return false;
		}
	}
	if (u->knows == SCENE_LOSSES && run && how != SCENE_OLDER &&
	    (!run->lost || !strstr(run->lost, u->path))) {
		snprintf(why, why_size, "no line says that losses of %s are not known any more", u->path);
		return false;
	}
	for (size_t i = 0; i < seen->count; i++) {
		const char *path = seen->entries[i].path;

		if (strncmp(path, "/lost+found", 11) != 0 && !entry_find(&s->want, path)) {
			snprintf(why, why_size, "%.200s was not there before", path);
			return false;
		}
	}
	return true;
}

bool scene_is_mended(const struct scene *s, struct scene_image *im, const struct scene_unit *u,
		     enum scene_damage how, unsigned copies, const struct scene_run *run, char *why,
		     size_t why_size)
{
	const struct snapshot_mix none = { 0 };
	struct scene_run again;
	struct snapshot seen;
	bool fine;

	scene_repair(&again, im, NULL, false);
	if (again.rc || again.report.before.findings || again.report.after.findings ||
	    again.report.acts[REPAIR_MENDED] || again.report.acts[REPAIR_LOST] ||
	    again.report.acts[REPAIR_LEFT]) {
		snprintf(why, why_size, "second run: rc %d, %" PRIu64 " findings, %s", again.rc,
			 again.report.before.findings, again.why);
		scene_run_free(&again);
		return false;
	}
	scene_run_free(&again);
	image_look(im, &seen);
	if (seen.error)
		snprintf(why, why_size, "%s", seen.error_at);
	if (seen.error)
		fine = false;
	else if (copies == 3 && u->record)
		fine = snapshot_same(&seen, &s->before, &s->before, &none, false, why, why_size);
	else if (copies == 3)
		fine = compare(s, &seen, u, how, run, why, why_size);
	else
		fine = snapshot_same(&seen, &s->want, &s->want, &none, false, why, why_size);
	snapshot_free(&seen);
	return fine;
}
