/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * See pool.h.
 */
#include "fuzz/pool.h"

#include <assert.h>
#include <linux/falloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "btree/btree.h"
#include "dax/priv.h"
#include "lib/testunit.h"
#include "media/ag.h"
#include "media/journal.h"
#include "space/space.h"
#include "txn/txn.h"

#define FILE_BYTES ((uint64_t)256 << 10)
#define PIECES 200u /* of a file with holes: more than one leaf */
#define NAMES 60u   /* in a directory with inner nodes */
#define LINKS 40u   /* of one file: parents with inner nodes */
#define XATTRS 30u
#define ORPHANS 20u
#define PAGES (FUZZ_POOL_BYTES / BLOCK_SIZE)

struct fuzz_unit fuzz_units[FUZZ_UNITS_MAX];
unsigned fuzz_unit_count;
uint64_t fuzz_inos[FUZZ_FILES];
const char *const fuzz_names[FUZZ_FILES] = {
	[FUZZ_ROOT] = "x",   [FUZZ_FILE] = "file",   [FUZZ_CLONE] = "clone",         [FUZZ_PIECES] = "pieces",
	[FUZZ_Q] = "q",      [FUZZ_SMALL] = "small", [FUZZ_UNWRITTEN] = "unwritten", [FUZZ_ATTRS] = "attrs",
	[FUZZ_DIR] = "dir",  [FUZZ_LINKS] = "links", [FUZZ_LINKED] = "linked",       [FUZZ_P] = "p",
	[FUZZ_LINK] = "link"
};

static uint8_t *bytes, *base;
static uint64_t touched[PAGES / 64];

void fuzz_stop(const char *what, int64_t rc, const char *why)
{
	fprintf(stderr, "fuzz: %s: %s%s%s\n", what, rc < 0 ? strerror((int)-rc) : "", *why ? ": " : "", why);
	abort();
}

#define MUST(call)                                     \
	do {                                           \
		int64_t must_rc = (call);              \
		if (must_rc < 0)                       \
			fuzz_stop(#call, must_rc, ""); \
	} while (0)

/* ---- content ---- */

static uint64_t make(struct testfs *t, uint64_t dir, enum fuzz_file file, uint32_t mode)
{
	return fuzz_inos[file] = testfs_node(t, dir, fuzz_names[file], mode);
}

static void fill(struct testfs *t, uint64_t ino, uint64_t off, size_t len)
{
	uint8_t *data = malloc(len);
	uint64_t random = ino * 1000 + off;

	for (size_t i = 0; i < len; i++)
		data[i] = (uint8_t)testfs_random(&random);
	MUST(fs_write(t->fs, &testfs_root, ino, data, len, off, 0));
	free(data);
}

void fuzz_long_name(char name[256], unsigned i)
{
	memset(name, 'n', 230);
	snprintf(name + 230, 20, "%u", i);
}

static void trees_make(struct testfs *t)
{
	uint64_t pieces = make(t, INODE_ROOT, FUZZ_PIECES, S_IFREG | 0644), ino, dir;
	struct inode_attr a;
	char name[256];

	fill(t, pieces, 0, 2 * PIECES * BLOCK_SIZE);
	for (unsigned i = 0; i < PIECES; i++)
		MUST(fs_fallocate(t->fs, &testfs_root, pieces, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
				  (2 * i + 1) * BLOCK_SIZE, BLOCK_SIZE));
	dir = make(t, INODE_ROOT, FUZZ_DIR, S_IFDIR | 0755);
	for (unsigned i = 0; i < NAMES; i++) {
		fuzz_long_name(name, i);
		testfs_node(t, dir, name, S_IFREG | 0600);
	}
	ino = make(t, INODE_ROOT, FUZZ_LINKED, S_IFREG | 0644);
	dir = make(t, INODE_ROOT, FUZZ_LINKS, S_IFDIR | 0755);
	for (unsigned i = 0; i < LINKS; i++) {
		fuzz_long_name(name, i);
		MUST(testfs_link(t, ino, dir, name));
	}
	ino = make(t, INODE_ROOT, FUZZ_ATTRS, S_IFREG | 0644);
	for (unsigned i = 0; i < XATTRS; i++) {
		snprintf(name, sizeof(name), "user.attr%u", i);
		MUST(fs_setxattr(t->fs, ino, name, name, sizeof(name), 0, false));
	}
	for (unsigned i = 0; i < ORPHANS; i++) { /* stay referenced, so they stay orphans */
		MUST(fs_tmpfile(t->fs, &testfs_root, INODE_ROOT, 0600, &a));
		if (i < 3)
			fill(t, a.ino, 0, 10000);
	}
}

static void files_make(struct testfs *t)
{
	uint64_t file = make(t, INODE_ROOT, FUZZ_FILE, S_IFREG | 0640), clone, p;
	static uint8_t value[10000];
	char target[1000];
	struct inode_attr a;

	fuzz_inos[FUZZ_ROOT] = INODE_ROOT;
	fill(t, file, 0, FILE_BYTES);
	clone = make(t, INODE_ROOT, FUZZ_CLONE, S_IFREG | 0644);
	MUST(fs_clone(t->fs, &testfs_root, file, 0, clone, 0, FILE_BYTES / 2, 0, NULL));
	for (unsigned i = 0; i < 15; i++)
		fill(t, clone, i * 9000, 10);
	memset(value, 3, sizeof(value));
	MUST(fs_setxattr(t->fs, file, "user.big", value, sizeof(value), 0, false));
	fill(t, make(t, INODE_ROOT, FUZZ_SMALL, S_IFREG | 0600), 0, 100);
	MUST(fs_symlink(t->fs, &testfs_root, INODE_ROOT, "link", 4, "file", 4, &a));
	fuzz_inos[FUZZ_LINK] = a.ino;
	memset(target, 't', sizeof(target));
	p = make(t, INODE_ROOT, FUZZ_P, S_IFDIR | 0750);
	MUST(fs_symlink(t->fs, &testfs_root, p, "long", 4, target, sizeof(target), &a));
	fill(t, testfs_node(t, make(t, p, FUZZ_Q, S_IFDIR | 0755), "deep", S_IFREG | 0644), 0, 5000);
	testfs_node(t, p, "fifo", S_IFIFO | 0644);
	MUST(fs_fallocate(t->fs, &testfs_root, make(t, p, FUZZ_UNWRITTEN, S_IFREG | 0644), 0, 0, 20000));
}

static void intent_put(struct m_intents *intents, unsigned slot, uint32_t type, const struct m_inode *inode,
		       uint64_t arg0, uint64_t arg1)
{
	intents->in_slots[slot] = (struct m_intent){
		.it_type = le32_of(type),
		.it_seq = inode->di_gen,
		.it_ino = inode->di_hdr.uh_owner,
		.it_gen = inode->di_gen,
		.it_args = { le64_of(arg0), le64_of(arg1) },
	};
}

/* What no call leaves behind: records of losses, and operations that are half done. */
static void half_make(struct testfs *t)
{
	/* Nobody frees loss records yet: a file that drive.c has no name for. */
	uint64_t lossy = testfs_node(t, fuzz_inos[FUZZ_P], "lossy", S_IFREG | 0644);
	uint64_t file = fuzz_inos[FUZZ_FILE];
	struct txn *tx = txn_begin(t->pool, TXN_FREEING);
	_Alignas(64) struct m_inode inode;
	_Alignas(64) struct m_intents intents;
	uint64_t laddr = pool_ag_unit(t->pool, 0, AG_UNIT_INTENTS);
	struct btree bt;

	MUST(space_ag_tree(tx, pool_laddr_ag(t->pool, lossy << INODE_SHIFT), AG_LOSSES, &bt));
	for (uint64_t i = 0; i < 3; i++)
		MUST(bt_insert(&bt, &(struct m_loss){ le64_of(lossy), le64_of(i), le64_of(1), le64_of(1) },
			       sizeof(struct m_loss)));
	MUST(txn_commit(tx));
	testunit_load(t, lossy << INODE_SHIFT, &inode, sizeof(inode));
	inode.di_flags = le32_of(le32_get(inode.di_flags) | INODE_LOST);
	testunit_store(t, lossy << INODE_SHIFT, &inode, sizeof(inode), TESTUNIT_BOTH);
	testunit_load(t, file << INODE_SHIFT, &inode, sizeof(inode));
	testunit_load(t, laddr, &intents, sizeof(intents));
	intent_put(&intents, 2, INTENT_TRUNCATE, &inode, FILE_BYTES, 0);
	intent_put(&intents, 3, INTENT_FREE_RANGE, &inode, FILE_BYTES / BLOCK_SIZE + 10,
		   FILE_BYTES / BLOCK_SIZE + 20);
	intent_put(&intents, 4, INTENT_CLONE, &inode, 0, 0);
	testunit_store(t, laddr, &intents, sizeof(intents), TESTUNIT_BOTH);
}

/* ---- a transaction that was cut ---- */

struct cut {
	struct testfs *t;
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

		if (le32_get(r->rc_magic) == MAGIC_RECORD && le32_get(r->rc_entry_count) > 1) {
			memcpy(base, dax_ptr(cut->t->dax, 0), FUZZ_POOL_BYTES);
			cut->done = true;
			return;
		}
	}
}

/* ---- where the units are ---- */

static void unit_add(enum fuzz_unit_kind kind, uint64_t laddr, const uint64_t off[2], uint32_t size_bytes)
{
	assert(fuzz_unit_count < FUZZ_UNITS_MAX);
	fuzz_units[fuzz_unit_count++] = (struct fuzz_unit){ laddr, { off[0], off[1] }, size_bytes, kind };
}

/* A unit in use: what it is can be read from it. */
static void unit_look(struct pool *pool, uint64_t laddr)
{
	uint64_t off[2];

	MUST(pool_place(pool, laddr, 0, &off[0]));
	MUST(pool_place(pool, laddr, 1, &off[1]));
	if (unit_size(unit_magic(base + off[0])) == BLOCK_SIZE) {
		unit_add(FUZZ_UNIT, laddr, off, BLOCK_SIZE);
		return;
	}
	for (unsigned i = 0; i < BLOCK_SIZE / INODE_SIZE; i++) {
		if (unit_magic(base + off[0]) == MAGIC_INODE)
			unit_add(FUZZ_UNIT, laddr, off, INODE_SIZE);
		laddr += INODE_SIZE;
		off[0] += INODE_SIZE;
		off[1] += INODE_SIZE;
	}
}

static void units_find(struct pool *pool, unsigned lane)
{
	const struct super *s = pool_super(pool);
	uint64_t chunks = s->ag_size_blk / CHUNK_BLOCKS;
	uint64_t super_off[2] = { 0, (s->size_blk - 1) * BLOCK_SIZE };
	uint64_t lane_off[2] = { s->lanes[lane].primary_blk * BLOCK_SIZE,
				 s->lanes[lane].mirror_blk * BLOCK_SIZE };

	unit_add(FUZZ_SUPER, OWNER_SUPER, super_off, BLOCK_SIZE);
	unit_add(FUZZ_RECORD, 0, lane_off, BLOCK_SIZE);
	for (uint32_t agno = 0; agno < s->ag_count; agno++) {
		uint64_t off;

		MUST(pool_place(pool, pool_ag_unit(pool, agno, AG_UNIT_TABLE), 0, &off));
		for (uint64_t slot = 0; slot < chunks; slot++) {
			const struct m_chunk *c =
				&((const struct m_chunks *)(const void *)(base + off))->ct_chunks[slot];

			for (unsigned i = 0; le32_get(c->ck_primary) && i < CHUNK_BLOCKS; i++) {
				if (c->ck_used[i / 8] & 1u << i % 8)
					unit_look(pool, (agno * chunks + slot) * CHUNK_SIZE +
								(uint64_t)i * BLOCK_SIZE);
			}
		}
	}
}

/* ---- the pool ---- */

static uint8_t *memory_map(void)
{
	/* Nothing before and behind it: who leaves the pool is seen. */
	size_t gap = CHUNK_SIZE;
	uint8_t *all = mmap(NULL, FUZZ_POOL_BYTES + 2 * gap, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (all == MAP_FAILED || mprotect(all + gap, FUZZ_POOL_BYTES, PROT_READ | PROT_WRITE))
		fuzz_stop("mmap", 0, "no memory");
	return all + gap;
}

void fuzz_pool_make(void)
{
	struct testfs t;
	struct cut cut = { .t = &t };
	const struct dax_trace trace = { cut_store, cut_zero, cut_fence, &cut };
	const struct testfs_opts opts = {
		.size_bytes = FUZZ_POOL_BYTES,
		.format = { .ag_size_bytes = FUZZ_AG_BYTES },
		.fs = { .noatime = true },
		.trace = &trace,
	};

	bytes = memory_map();
	base = memory_map();
	testfs_make(&t, &opts);
	files_make(&t);
	trees_make(&t);
	half_make(&t);
	cut.wanted = true;
	testfs_node(&t, fuzz_inos[FUZZ_P], "journaled", S_IFREG | 0644);
	if (!cut.done)
		fuzz_stop("no record in the journal", 0, "");
	units_find(t.pool, cut.lane);
	testfs_free(&t);
	memcpy(bytes, base, FUZZ_POOL_BYTES);
}

uint8_t *fuzz_pool_bytes(void)
{
	return bytes;
}

const uint8_t *fuzz_pool_base(void)
{
	return base;
}

void fuzz_pool_touch(uint64_t off, size_t len_bytes)
{
	for (uint64_t page = off / BLOCK_SIZE; len_bytes && page <= (off + len_bytes - 1) / BLOCK_SIZE;
	     page++)
		touched[page / 64] |= 1ull << page % 64;
}

bool fuzz_pool_is_touched(uint64_t page)
{
	return touched[page / 64] & 1ull << page % 64;
}

void fuzz_pool_restore(void)
{
	for (uint64_t page = 0; page < PAGES; page++) {
		if (fuzz_pool_is_touched(page))
			memcpy(bytes + page * BLOCK_SIZE, base + page * BLOCK_SIZE, BLOCK_SIZE);
	}
	memset(touched, 0, sizeof(touched));
}

static void touch_store(void *ctx, uint64_t off, const void *src, size_t len)
{
	(void)ctx, (void)src;
	fuzz_pool_touch(off, len);
}

static void touch_zero(void *ctx, uint64_t off, size_t len)
{
	(void)ctx;
	fuzz_pool_touch(off, len);
}

static void touch_fence(void *ctx)
{
	(void)ctx;
}

struct dax *fuzz_dax_open(bool readonly)
{
	static const struct dax_trace trace = { touch_store, touch_zero, touch_fence, NULL };
	struct dax *dax;

	MUST(dax_open_memory(bytes, FUZZ_POOL_BYTES, &trace, &dax));
	dax->readonly = readonly;
	return dax;
}
