/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Inodes whose trees or records are lost in both copies: put together again from leaves and from other structures; what cannot be had
 * back is named.
 */
#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>
#include <linux/falloc.h>

#include "btree/btree.h"
#include "lib/testlist.h"
#include "lib/testunit.h"
#include "media/ag.h"
#include "media/node.h"
#include "repair/repair.h"
#include "space/space.h"

#define POOL_BYTES ((uint64_t)64 << 20)
#define PIECES 3000u /* extents: enough for two levels of nodes */
#define NAMES 300u
#define XATTRS 60u
#define LINKS 200u /* of one file: several leaves of parent items */
#define RICH_LINES (2 * (LINKS + 1))

struct env {
	struct testfs t;
	uint64_t file, other, dir, sub, rich, link, fifo, orphan, prealloc, small, clone;
	char told[65536];
	unsigned lost, left;
};

static struct env *base; /* made once; cases work on copies of its image */
static uint8_t *base_image;
static char *base_list;

static uint64_t make(struct env *e, uint64_t dir, const char *name, uint32_t mode)
{
	struct inode_attr a;

	assert_int_equal(testfs_mknod(&e->t, dir, name, mode, &a), 0);
	fs_forget(e->t.fs, a.ino, 1);
	return a.ino;
}

static void write_at(struct env *e, uint64_t ino, uint64_t off, size_t len, uint8_t seed)
{
	uint8_t bytes[BLOCK_SIZE];

	for (size_t i = 0; i < len; i++)
		bytes[i] = (uint8_t)(seed + i * 7);
	assert_int_equal(fs_write(e->t.fs, &testfs_root, ino, bytes, len, off, 0), len);
}

/* Two files that take blocks by turns, so that neither has two blocks side by side. */
static void make_pieces(struct env *e)
{
	e->file = make(e, e->sub, "file", S_IFREG | 0640);
	e->other = make(e, e->sub, "other", S_IFREG | 0640);
	for (uint64_t i = 0; i < PIECES; i++) {
		write_at(e, e->file, i * 2 * BLOCK_SIZE, BLOCK_SIZE, (uint8_t)i);
		write_at(e, e->other, i * 3 * BLOCK_SIZE, BLOCK_SIZE, (uint8_t)(i + 100));
	}
}

static void make_names(struct env *e)
{
	char name[250];

	e->dir = make(e, INODE_ROOT, "dir", S_IFDIR | 0755);
	memset(name, 'n', sizeof(name));
	for (unsigned i = 0; i < NAMES; i++) {
		snprintf(name + 180, sizeof(name) - 180, "%u", i);
		make(e, e->dir, name, (i % 10 ? S_IFREG : S_IFDIR) | 0700);
	}
	assert_int_equal(testfs_link(&e->t, e->file, e->dir, "second"), 0);
}

static void make_rich(struct env *e)
{
	char name[200];
	uint8_t value[20000];

	memset(value, 9, sizeof(value));
	memset(name, 'x', sizeof(name));
	memcpy(name, "user.", 5);
	e->rich = make(e, INODE_ROOT, "rich", S_IFREG | 0604);
	for (unsigned i = 0; i < XATTRS; i++) {
		snprintf(name + 150, sizeof(name) - 150, "%u", i);
		assert_int_equal(fs_setxattr(e->t.fs, e->rich, name, value, 100, 0, false), 0);
	}
	assert_int_equal(fs_setxattr(e->t.fs, e->rich, "user.large", value, sizeof(value), 0, false), 0);
	for (unsigned i = 0; i < LINKS; i++) {
		snprintf(name, sizeof(name), "link%u", i);
		assert_int_equal(testfs_link(&e->t, e->rich, e->sub, name), 0);
	}
}

static void base_make(void)
{
	struct testfs_opts opts = { .size_bytes = POOL_BYTES };
	struct env *e = calloc(1, sizeof(*e));
	struct inode_attr a;
	char target[1000];

	memset(target, 't', sizeof(target));
	testfs_make(&e->t, &opts);
	e->sub = make(e, INODE_ROOT, "sub", S_IFDIR | 0755);
	make_pieces(e);
	make_names(e);
	make_rich(e);
	e->small = make(e, INODE_ROOT, "small", S_IFREG | 0644);
	write_at(e, e->small, 0, 100, 1);
	e->prealloc = make(e, INODE_ROOT, "prealloc", S_IFREG | 0644);
	for (uint64_t i = 0; i < 40; i++)
		assert_int_equal(fs_fallocate(e->t.fs, &testfs_root, e->prealloc, 0, i * 2 * BLOCK_SIZE,
					      BLOCK_SIZE),
				 0);
	e->clone = make(e, INODE_ROOT, "clone", S_IFREG | 0644);
	assert_true(fs_clone(e->t.fs, &testfs_root, e->file, 0, e->clone, 0, 4000 * BLOCK_SIZE, 0, NULL) > 0);
	assert_int_equal(fs_symlink(e->t.fs, &testfs_root, INODE_ROOT, "link", 4, target, 999, &a), 0);
	fs_forget(e->t.fs, a.ino, 1);
	e->link = a.ino;
	e->fifo = make(e, INODE_ROOT, "fifo", S_IFIFO | 0600);
	assert_int_equal(fs_tmpfile(e->t.fs, &testfs_root, INODE_ROOT, 0600, &a), 0);
	e->orphan = a.ino;
	base = e;
	base_list = testlist_make(&e->t);
	base_image = malloc(POOL_BYTES);
	memcpy(base_image, dax_ptr(e->t.dax, 0), POOL_BYTES);
}

static void base_free(void)
{
	testfs_free(&base->t);
	free(base);
	free(base_image);
	free(base_list);
}

/* ---- damage ---- */

static uint64_t inode_at(uint64_t ino)
{
	return ino << INODE_SHIFT;
}

#define CHANGE(e, type, laddr, u, how)                                        \
	do {                                                                  \
		_Alignas(64) type u;                                          \
		testunit_load(&(e)->t, laddr, &u, sizeof(u));                 \
		how;                                                          \
		testunit_store(&(e)->t, laddr, &u, sizeof(u), TESTUNIT_BOTH); \
	} while (0)

/* The child that entry index of the body leads to. */
static uint64_t child_of(const void *body_raw, unsigned index)
{
	const struct m_node_body *body = body_raw;

	assert_true(node_level(body) > 0);
	if (index >= node_count(body))
		index = node_count(body) - 1;
	return le64_get(((const le64 *)(const void *)body->nb_space)[2 * index + 1]);
}

static uint64_t data_node(struct env *e, uint64_t ino, unsigned index)
{
	_Alignas(64) struct m_inode m;

	testunit_load(&e->t, inode_at(ino), &m, sizeof(m));
	return child_of(m.di_data, index);
}

/* A leaf of a tree that is not all in its root: the last one, or one near the start. */
static uint64_t leaf_of(struct env *e, const void *body, bool last)
{
	_Alignas(64) struct m_node node;
	uint64_t laddr;

	do {
		laddr = child_of(body, last ? 1000 : 0);
		testunit_load(&e->t, laddr, &node, sizeof(node));
		body = node.nd_body;
	} while (node_level(body) > 0);
	return laddr;
}

static uint64_t attr_leaf(struct env *e, uint64_t ino, bool last)
{
	_Alignas(64) struct m_inode m;

	testunit_load(&e->t, inode_at(ino), &m, sizeof(m));
	return leaf_of(e, m.di_attr, last);
}

static uint64_t dir_leaf(struct env *e, uint64_t ino, bool last)
{
	_Alignas(64) struct m_inode m;

	testunit_load(&e->t, inode_at(ino), &m, sizeof(m));
	return leaf_of(e, m.di_data, last);
}

/* The nth leaf below the first node of a tree with two levels of nodes. */
static uint64_t data_leaf(struct env *e, uint64_t ino, unsigned index)
{
	_Alignas(64) struct m_node node;

	testunit_load(&e->t, data_node(e, ino, 0), &node, sizeof(node));
	return child_of(node.nd_body, index);
}

static void lose(struct env *e, uint64_t laddr)
{
	testunit_junk(&e->t, laddr, TESTUNIT_BOTH);
}

static void bad_extent_inner(struct env *e)
{
	lose(e, data_node(e, e->file, 0));
}

static void bad_extent_leaf(struct env *e)
{
	lose(e, data_leaf(e, e->file, 1));
	lose(e, data_leaf(e, e->file, 3));
}

static void bad_extent_all(struct env *e)
{
	_Alignas(64) struct m_node node;
	uint64_t laddr = data_node(e, e->file, 0);

	testunit_load(&e->t, laddr, &node, sizeof(node));
	for (unsigned i = 0; i < node_count(node.nd_body); i++)
		lose(e, child_of(node.nd_body, i));
	lose(e, laddr);
}

static void bad_extent_clone(struct env *e)
{
	lose(e, data_node(e, e->clone, 0));
}

static void bad_extent_place(struct env *e)
{
	CHANGE(e, struct m_node, data_leaf(e, e->file, 2), u,
	       ((struct m_extent *)(void *)(u.nd_body + 8))[5].ex_dev_blk = le64_of(1ull << 40));
}

static void bad_extent_unwritten(struct env *e)
{
	lose(e, data_node(e, e->prealloc, 0));
}

static void bad_dir_leaf(struct env *e)
{
	uint64_t first = dir_leaf(e, e->dir, false);

	lose(e, dir_leaf(e, e->dir, true));
	lose(e, first);
}

static void bad_dir_inner(struct env *e)
{
	lose(e, data_node(e, e->dir, 0));
}

static void lose_below(struct env *e, const void *body)
{
	for (unsigned i = 0; node_level(body) > 0 && i < node_count(body); i++) {
		_Alignas(64) struct m_node node;
		uint64_t laddr = child_of(body, i);

		testunit_load(&e->t, laddr, &node, sizeof(node));
		lose_below(e, node.nd_body);
		lose(e, laddr);
	}
}

static void bad_dir_all(struct env *e)
{
	_Alignas(64) struct m_inode m;

	testunit_load(&e->t, inode_at(e->dir), &m, sizeof(m));
	lose_below(e, m.di_data);
}

static void bad_dir_owner(struct env *e)
{
	CHANGE(e, struct m_node, data_node(e, e->dir, 1), u, u.nd_hdr.uh_owner = le64_of(e->file));
}

static void bad_attr_leaf(struct env *e)
{
	lose(e, attr_leaf(e, e->rich, false));
}

/* The leaf with most of the parent items. */
static void bad_attr_parents(struct env *e)
{
	lose(e, attr_leaf(e, e->rich, true));
}

/* The second unit of the large value. */
static uint64_t value_unit(struct env *e)
{
	struct txn *tx = txn_begin(e->t.pool, TXN_READ);
	struct btree bt = {
		.tx = tx,
		.kind = NODE_ATTR,
		.root_laddr = inode_at(e->rich),
		.root_magic = MAGIC_INODE,
		.root_off = offsetof(struct m_inode, di_attr),
		.root_size_bytes = INODE_ATTR_SIZE,
		.owner = e->rich,
	};
	struct bt_cursor cur;
	uint64_t laddr = 0;
	int rc;

	for (rc = bt_seek(&bt, &cur, &(struct bt_key){ { 0 } }, BT_GE); !rc && !laddr; rc = bt_next(&cur)) {
		const struct m_attr *a;
		const void *rec;
		size_t size;

		assert_int_equal(bt_get(&cur, &rec, &size), 0);
		a = rec;
		if (a->at_flags & ATTR_LARGE)
			laddr = le64_get(((const le64 *)(const void *)(a->at_data +
								       u64_align_up(a->at_namelen, 8)))[1]);
	}
	txn_abort(tx);
	assert_true(laddr != 0);
	return laddr;
}

static void bad_attr_inner(struct env *e)
{
	_Alignas(64) struct m_inode m;

	testunit_load(&e->t, inode_at(e->rich), &m, sizeof(m));
	assert_true(node_level(m.di_attr) > 1);
	lose(e, child_of(m.di_attr, 0));
}

static void bad_value(struct env *e)
{
	lose(e, value_unit(e));
}

static void bad_record_file(struct env *e)
{
	lose(e, inode_at(e->file));
}

static void bad_record_small(struct env *e)
{
	lose(e, inode_at(e->small));
}

static void bad_record_dir(struct env *e)
{
	lose(e, inode_at(e->dir));
}

static void bad_record_sub(struct env *e)
{
	lose(e, inode_at(e->sub));
}

static void bad_record_rich(struct env *e)
{
	lose(e, inode_at(e->rich));
}

static void bad_record_root(struct env *e)
{
	lose(e, inode_at(INODE_ROOT));
}

static void bad_record_link(struct env *e)
{
	lose(e, inode_at(e->link));
}

static void bad_record_fifo(struct env *e)
{
	lose(e, inode_at(e->fifo));
}

static void bad_record_orphan(struct env *e)
{
	lose(e, inode_at(e->orphan));
}

/* A whole cluster: all that is in it. */
static void bad_cluster(struct env *e)
{
	uint64_t first = e->dir - e->dir % CLUSTER_INODES;

	for (unsigned i = 0; i < CLUSTER_INODES; i++) {
		if (first + i > INODE_ROOT)
			lose(e, inode_at(first + i));
	}
}

static void mark_free(struct env *e, uint64_t ino)
{
	struct m_inode_cluster m;
	struct bt_cursor cur;
	struct btree bt;
	size_t size;
	const void *rec;
	struct txn *tx = txn_begin(e->t.pool, TXN_FREEING);

	assert_int_equal(space_ag_tree(tx, pool_laddr_ag(e->t.pool, inode_at(ino)), AG_INODES, &bt), 0);
	assert_int_equal(bt_seek(&bt, &cur, &(struct bt_key){ { ino } }, BT_LE), 0);
	assert_int_equal(bt_get(&cur, &rec, &size), 0);
	memcpy(&m, rec, size);
	m.ic_free_mask = le64_of(le64_get(m.ic_free_mask) | 1ull << ino % CLUSTER_INODES);
	assert_int_equal(bt_update(&bt, &m, sizeof(m)), 0);
	assert_int_equal(txn_commit(tx), 0);
}

static void bad_free_file(struct env *e)
{
	mark_free(e, e->file);
}

static void bad_free_dir(struct env *e)
{
	mark_free(e, e->dir);
}

static void bad_free_root(struct env *e)
{
	mark_free(e, INODE_ROOT);
}

static void bad_intent(struct env *e)
{
	CHANGE(e, struct m_intents, pool_ag_unit(e->t.pool, 0, AG_UNIT_INTENTS), u, {
		u.in_slots[3].it_type = le32_of(INTENT_FREE_RANGE);
		u.in_slots[3].it_ino = le64_of(1000000);
		u.in_slots[5].it_type = le32_of(INTENT_FREE_RANGE);
		u.in_slots[5].it_ino = le64_of(e->file);
		u.in_slots[5].it_gen = le64_of(77);
	});
}

static void bad_many(struct env *e)
{
	bad_extent_leaf(e);
	bad_dir_leaf(e);
	bad_record_small(e);
	bad_value(e);
}

/* ---- repair ---- */

static void told(void *arg, enum repair_act act, const char *text)
{
	struct env *e = arg;
	size_t used = strlen(e->told);

	e->lost += act == REPAIR_LOST;
	e->left += act == REPAIR_LEFT;
	snprintf(e->told + used, sizeof(e->told) - used, "%u %s\n", (unsigned)act, text);
}

static void found(void *arg, enum check_kind kind, const char *text)
{
	(void)arg;
	print_message("# %s: %s\n", check_kind_name(kind), text);
}

static const struct damage {
	const char *name;
	void (*fn)(struct env *e);
	unsigned differ; /* lines of the listing: twice each that is different, once each that came or went */
	unsigned lost;   /* lines about what was lost */
	const char *told;
} damages[] = {
	{ "extents: inner node", bad_extent_inner, 0, 0, "/sub/file: its extents put together again" },
	{ "extents: leaves", bad_extent_leaf, 0, 0, "/sub/file: its extents put together again" },
	{ "extents: all nodes", bad_extent_all, 0, 0, "/sub/file: its extents put together again" },
	{ "extents of a clone", bad_extent_clone, 0, 0, "/clone: its extents" },
	{ "extents: outside of the device", bad_extent_place, 0, 0, "/sub/file: its extents" },
	{ "extents: unwritten ones", bad_extent_unwritten, 0, 9, "/prealloc: blocks 0 to 0 may never" },
	{ "directory: inner node", bad_dir_inner, 0, 0, "/dir: its entries put together again" },
	{ "directory: leaves", bad_dir_leaf, 0, 0, "/dir: its entries put together again" },
	{ "directory: all nodes", bad_dir_all, 0, 0, "/dir: its entries put together again" },
	{ "directory: owner of a leaf", bad_dir_owner, 0, 0, "/dir: its entries" },
	{ "attributes: inner node", bad_attr_inner, 0, 0, "/rich: its attributes put together again" },
	{ "attributes: leaf", bad_attr_leaf, RICH_LINES, 1, "/rich: attributes, if there were some" },
	{ "attributes: leaf with parent items", bad_attr_parents, 0, 1, "/rich: attributes, if there were" },
	{ "attributes: piece of a value", bad_value, RICH_LINES, 1, "/rich: attribute user.large: a part" },
	{ "record of a file", bad_record_file, 4, 1, "file: owner, mode, times, size and attributes lost" },
	{ "record of a small file", bad_record_small, 2, 1,
	  "/small: owner, mode, times, size, attributes and content" },
	{ "record of a large directory", bad_record_dir, 2, 1,
	  "/dir: owner, mode, times and attributes lost" },
	{ "record of a directory", bad_record_sub, 2, 1, "/sub: owner, mode, times and attributes lost" },
	{ "record with attributes", bad_record_rich, RICH_LINES, 1,
	  "owner, mode, times, size, attributes and content" },
	{ "record of the root", bad_record_root, 0, 1, "/: owner, mode, times and attributes lost" },
	{ "record of a symlink", bad_record_link, 0, 1, "/link: owner, mode, times and attributes lost" },
	{ "record of a FIFO", bad_record_fifo, 0, 1, "/fifo: owner, mode, times" },
	{ "record of an orphan", bad_record_orphan, 0, 1, "nothing needed it" },
	{ "a cluster", bad_cluster, ~0u, ~0u, "/dir: owner" },
	{ "file marked as free", bad_free_file, 0, 0, "tree of inodes" },
	{ "directory marked as free", bad_free_dir, 0, 0, "tree of inodes" },
	{ "root marked as free", bad_free_root, 0, 0, "tree of inodes" },
	{ "intents", bad_intent, 0, 0, "intent 5 of group 0" },
	{ "many things", bad_many, ~0u, 2, "/dir: its entries" },
};

/* ---- lies ---- */

#define LIES_ROUNDS 20u

/* Bytes of a sound unit change, and its CRC fits again: whatever it says now has to be survived, and mended. */
static bool unit_lie(struct env *e, uint64_t laddr, uint64_t *random)
{
	_Alignas(64) uint8_t unit[BLOCK_SIZE];
	struct m_unit_hdr *h = (void *)unit;
	size_t size = INODE_SIZE;

	testunit_load(&e->t, laddr, unit, sizeof(*h));
	if (le64_get(h->uh_laddr) != laddr || !unit_size(unit_magic(unit)))
		return false;
	size = unit_size(unit_magic(unit));
	testunit_load(&e->t, laddr, unit, size);
	for (uint64_t n = 1 + testfs_below(random, 4); n > 0; n--) {
		size_t at =
			sizeof(*h) + testfs_below(random, testfs_below(random, 2) ? 64 : size - sizeof(*h));
		uint64_t how = testfs_below(random, 3);

		unit[at] = how == 0 ? 0xff :
			   how == 1 ? (uint8_t)(unit[at] + 1) :
				      (uint8_t)testfs_random(random);
	}
	if (testfs_below(random, 8) == 0)
		h->uh_owner = le64_of(1 + testfs_below(random, 4000));
	testunit_store(&e->t, laddr, unit, size, TESTUNIT_BOTH);
	return true;
}

static void lies_tell(struct env *e, uint64_t *random)
{
	uint64_t chunks = POOL_BYTES / CHUNK_SIZE, off;

	for (unsigned n = 1 + (unsigned)testfs_below(random, 4); n > 0;) {
		uint64_t laddr = testfs_below(random, 6 * CHUNK_SIZE / INODE_SIZE) * INODE_SIZE;

		if (laddr >> CHUNK_SHIFT < chunks && pool_place(e->t.pool, laddr, 0, &off) == 0)
			n -= unit_lie(e, laddr, random);
	}
}

static int repair_image(struct env *e, struct dax *dax, struct repair_report *report)
{
	struct repair_opts opts = { .told = told, .arg = e, .force = true };
	char why[256] = "";

	e->told[0] = 0;
	return repair_pool(dax, &opts, report, why, sizeof(why));
}

static void test_lies(void **state)
{
	uint64_t random = testfs_seed();

	(void)state;
	base_make();
	for (unsigned round = 0; round < LIES_ROUNDS; round++) {
		struct env *e = malloc(sizeof(*e));
		struct repair_report report;
		uint64_t seed = random;
		struct dax *dax;
		int rc;

		*e = *base;
		testfs_open_image(&e->t, base_image, &base->t.opts);
		lies_tell(e, &random);
		assert_int_equal(dax_open_ram(POOL_BYTES, dax_ptr(e->t.dax, 0), NULL, &dax), 0);
		pool_fail(e->t.pool, "damaged on purpose");
		testfs_free(&e->t);
		rc = repair_image(e, dax, &report);
		if (!rc && report.after.findings)
			rc = repair_image(e, dax, &report);
		if (rc || report.after.findings)
			fail_msg("UMBRA_SEED=%" PRIu64 ": %d, %" PRIu64 " findings left\n%.3000s", seed, rc,
				 report.after.findings, e->told);
		dax_close(dax);
		free(e);
	}
	base_free();
}

static void run(struct env *e, const struct damage *d)
{
	struct repair_opts opts = { .told = told, .arg = e, .force = true };
	struct check_opts look = { .found = found, .limit = 3 };
	struct repair_report report;
	struct check_report after;
	char why[256] = "", *list;
	unsigned differ;
	struct dax *dax;
	int rc;

	testfs_open_image(&e->t, base_image, &base->t.opts);
	d->fn(e);
	assert_int_equal(dax_open_ram(POOL_BYTES, dax_ptr(e->t.dax, 0), NULL, &dax), 0);
	pool_fail(e->t.pool, "damaged on purpose");
	testfs_free(&e->t);
	rc = repair_pool(dax, &opts, &report, why, sizeof(why));
	if (rc || report.after.findings || e->left)
		fail_msg("%s: %d %s: %" PRIu64 " findings left\n%s", d->name, rc, why, report.after.findings,
			 e->told);
	assert_true(report.before.findings != 0);
	testfs_open_image(&e->t, dax_ptr(dax, 0), &base->t.opts);
	dax_close(dax);
	assert_int_equal(check_pool(e->t.pool, &look, &after), 0);
	assert_int_equal(after.findings, 0);
	list = testlist_make(&e->t);
	differ = testlist_diff(base_list, list, false);
	/* Nothing is left to be put in order name by name. */
	if ((differ != d->differ && d->differ != ~0u) || (e->lost != d->lost && d->lost != ~0u) ||
	    !strstr(e->told, d->told) || strstr(e->told, "knows its name") || strstr(e->told, "put back")) {
		testlist_diff(base_list, list, true);
		fail_msg("%s: %u lines differ, %u lost\n%.4000s", d->name, differ, e->lost, e->told);
	}
	free(list);
	testfs_free(&e->t);
}

static void test_each_damage(void **state)
{
	const char *only = getenv("UMBRA_ONLY");

	(void)state;
	base_make();
	for (size_t i = 0; i < ARRAY_SIZE(damages); i++) {
		struct env *e;

		if (only && !strstr(damages[i].name, only))
			continue;
		e = malloc(sizeof(*e));
		*e = *base;
		run(e, &damages[i]);
		free(e);
	}
	base_free();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_each_damage),
		cmocka_unit_test(test_lies),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
