/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Names, counts and records of inodes: each kind of damage is mended by transactions, and what was there is there again.
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

#include "btree/btree.h"
#include "lib/testlist.h"
#include "lib/testunit.h"
#include "media/ag.h"
#include "media/node.h"
#include "repair/base.h"
#include "space/space.h"

#define POOL_BYTES ((uint64_t)16 << 20)
#define FILE_BYTES ((uint64_t)256 << 10)

struct env {
	struct testfs t;
	uint64_t file, clone, dir, p, q, r, link, longlink, orphan, prealloc;
	char *before, *after; /* listings */
	char told[8192];
	unsigned lost, left;
};

static char target[1001];

static uint64_t make(struct env *e, uint64_t dir, const char *name, uint32_t mode)
{
	struct inode_attr a;

	assert_int_equal(testfs_mknod(&e->t, dir, name, mode, &a), 0);
	fs_forget(e->t.fs, a.ino, 1);
	return a.ino;
}

static uint64_t symlink_make(struct env *e, const char *name, size_t len)
{
	struct inode_attr a;

	assert_int_equal(fs_symlink(e->t.fs, &testfs_root, INODE_ROOT, name, strlen(name), target, len, &a),
			 0);
	fs_forget(e->t.fs, a.ino, 1);
	return a.ino;
}

/* ---- a pool with something of everything ---- */

static void env_make(struct env *e)
{
	struct testfs_opts opts = { .size_bytes = POOL_BYTES };
	uint8_t *bytes = malloc(FILE_BYTES);
	struct inode_attr a;
	char name[300];

	*e = (struct env){ 0 };
	memset(bytes, 7, FILE_BYTES);
	memset(target, 't', sizeof(target) - 1);
	testfs_make(&e->t, &opts);
	e->file = make(e, INODE_ROOT, "file", S_IFREG | 0644);
	e->clone = make(e, INODE_ROOT, "clone", S_IFREG | 0644);
	e->prealloc = make(e, INODE_ROOT, "prealloc", S_IFREG | 0644);
	e->dir = make(e, INODE_ROOT, "dir", S_IFDIR | 0755);
	e->p = make(e, INODE_ROOT, "p", S_IFDIR | 0755);
	e->q = make(e, e->p, "q", S_IFDIR | 0755);
	e->r = make(e, e->q, "r", S_IFDIR | 0755);
	make(e, e->r, "deep", S_IFREG | 0644);
	assert_int_equal(testfs_link(&e->t, e->file, e->q, "second"), 0);
	assert_int_equal(fs_write(e->t.fs, &testfs_root, e->file, bytes, FILE_BYTES, 0, 0), FILE_BYTES);
	assert_int_equal(fs_clone(e->t.fs, &testfs_root, e->file, 0, e->clone, 0, FILE_BYTES / 2, 0, NULL),
			 FILE_BYTES / 2);
	assert_int_equal(fs_fallocate(e->t.fs, &testfs_root, e->prealloc, 0, 0, 65536), 0);
	e->link = symlink_make(e, "link", 10);
	e->longlink = symlink_make(e, "longlink", 1000);
	assert_int_equal(fs_tmpfile(e->t.fs, &testfs_root, INODE_ROOT, 0600, &a), 0);
	e->orphan = a.ino;
	assert_int_equal(fs_setxattr(e->t.fs, e->file, "user.big", bytes, 10000, 0, false), 0);
	assert_int_equal(fs_setxattr(e->t.fs, e->file, "user.small", bytes, 10, 0, false), 0);
	memset(name, 'n', sizeof(name));
	for (unsigned i = 0; i < 60; i++) {
		snprintf(name + 200, sizeof(name) - 200, "%u", i);
		make(e, e->dir, name, S_IFREG | 0644);
	}
	free(bytes);
}

static void env_free(struct env *e)
{
	free(e->before);
	free(e->after);
	testfs_free(&e->t);
}

/* ---- damage, as in test_check ---- */

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
#define INODE(e, ino, u, how) CHANGE(e, struct m_inode, inode_at(ino), u, how)

struct edit {
	struct txn *tx;
	struct btree bt;
};

static void edit_group(struct env *e, enum ag_tree which, struct edit *edit)
{
	edit->tx = txn_begin(e->t.pool, TXN_FREEING);
	assert_int_equal(space_ag_tree(edit->tx, 0, which, &edit->bt), 0);
}

static void edit_inode(struct env *e, uint64_t ino, enum node_kind kind, struct edit *edit)
{
	bool attr = kind == NODE_ATTR;

	edit->tx = txn_begin(e->t.pool, TXN_FREEING);
	edit->bt = (struct btree){
		.tx = edit->tx,
		.kind = kind,
		.root_laddr = inode_at(ino),
		.root_magic = MAGIC_INODE,
		.root_off = attr ? offsetof(struct m_inode, di_attr) : offsetof(struct m_inode, di_data),
		.root_size_bytes = attr ? INODE_ATTR_SIZE : INODE_DATA_SIZE,
		.owner = ino,
		.alloc = &space_bt_alloc,
	};
}

static void edit_done(struct edit *edit)
{
	assert_int_equal(txn_commit(edit->tx), 0);
}

static size_t record_at(struct edit *edit, uint64_t key, void *buf)
{
	struct bt_cursor cur;
	const void *rec;
	size_t size;

	assert_int_equal(bt_seek(&edit->bt, &cur, &(struct bt_key){ { key } }, BT_GE), 0);
	assert_int_equal(bt_get(&cur, &rec, &size), 0);
	memcpy(buf, rec, size);
	return size;
}

static size_t dirent_of(struct edit *edit, uint64_t ino, void *buf)
{
	struct m_dirent *m = buf;
	uint64_t key = 0;
	size_t size;

	do {
		size = record_at(edit, key, buf);
		key = le64_get(m->de_key) + 1;
	} while (le64_get(m->de_ino) != ino);
	return size;
}

static void insert(struct edit *edit, const void *rec, size_t size)
{
	assert_int_equal(bt_insert(&edit->bt, rec, size), 0);
}

static void rec_delete(struct edit *edit, uint64_t key)
{
	assert_int_equal(bt_delete(&edit->bt, &(struct bt_key){ { key } }), 0);
}

/* The entry for a child moves to another key, or directory. */
static void entry_move(struct env *e, uint64_t dir, uint64_t child, uint64_t to, uint64_t key_up, bool keep)
{
	uint8_t buf[NODE_REC_MAX];
	struct m_dirent *m = (void *)buf;
	struct edit edit;
	size_t size;

	edit_inode(e, dir, NODE_DIR, &edit);
	size = dirent_of(&edit, child, buf);
	if (!keep)
		rec_delete(&edit, le64_get(m->de_key));
	edit_done(&edit);
	if (!to)
		return;
	edit_inode(e, to, NODE_DIR, &edit);
	m->de_key = le64_of(le64_get(m->de_key) + key_up);
	insert(&edit, buf, size);
	edit_done(&edit);
}

static void entry_change(struct env *e, uint64_t child, uint64_t ino, uint8_t type)
{
	uint8_t buf[NODE_REC_MAX];
	struct m_dirent *m = (void *)buf;
	struct edit edit;
	size_t size;

	edit_inode(e, INODE_ROOT, NODE_DIR, &edit);
	size = dirent_of(&edit, child, buf);
	m->de_ino = le64_of(ino);
	m->de_type = type;
	assert_int_equal(bt_update(&edit.bt, buf, size), 0);
	edit_done(&edit);
}

static void item_change(struct env *e, uint64_t ino, bool drop, uint64_t dir)
{
	uint8_t buf[NODE_REC_MAX];
	struct m_attr *m = (void *)buf;
	struct edit edit;
	size_t size;

	edit_inode(e, ino, NODE_ATTR, &edit);
	size = record_at(&edit, ATTR_KEY_PARENT, buf);
	if (drop)
		rec_delete(&edit, le64_get(m->at_key));
	m->at_key = le64_of(le64_get(m->at_key) + 1);
	if (dir)
		*(le64 *)(void *)m->at_data = le64_of(dir);
	if (dir || !drop)
		insert(&edit, buf, size);
	edit_done(&edit);
}

static void bad_chain(struct env *e)
{
	entry_move(e, INODE_ROOT, e->file, INODE_ROOT, 1, false);
}

static void bad_key(struct env *e)
{
	uint8_t buf[NODE_REC_MAX];
	struct m_dirent *m = (void *)buf;
	struct edit edit;
	size_t size;

	edit_inode(e, INODE_ROOT, NODE_DIR, &edit);
	size = dirent_of(&edit, e->dir, buf);
	rec_delete(&edit, le64_get(m->de_key));
	m->de_key = le64_of(5);
	insert(&edit, buf, size);
	edit_done(&edit);
}

static void bad_tombs(struct env *e)
{
	struct m_dirent tomb = { .de_key = le64_of(1000), .de_len_bytes = le16_of(sizeof(tomb)) };
	struct edit edit;

	edit_inode(e, INODE_ROOT, NODE_DIR, &edit);
	insert(&edit, &tomb, sizeof(tomb));
	tomb.de_key = le64_of(1001);
	insert(&edit, &tomb, sizeof(tomb));
	tomb.de_key = le64_of(3);
	insert(&edit, &tomb, sizeof(tomb));
	edit_done(&edit);
}

static void bad_name_twice(struct env *e)
{
	entry_move(e, INODE_ROOT, e->file, INODE_ROOT, 1, true);
}

/* Another inode under the same name. */
static void bad_name_of_two(struct env *e)
{
	uint8_t buf[NODE_REC_MAX];
	struct m_dirent *m = (void *)buf;
	struct edit edit;
	size_t size;

	edit_inode(e, INODE_ROOT, NODE_DIR, &edit);
	dirent_of(&edit, e->clone, buf);
	rec_delete(&edit, le64_get(m->de_key));
	size = dirent_of(&edit, e->file, buf);
	m->de_key = le64_of(le64_get(m->de_key) + 1);
	m->de_ino = le64_of(e->clone);
	insert(&edit, buf, size);
	edit_done(&edit);
}

static void bad_dots(struct env *e)
{
	union {
		uint8_t bytes[32];
		struct m_dirent m;
	} u = { .bytes = { 0 } };
	struct edit edit;

	u.m.de_key = le64_of(777);
	u.m.de_len_bytes = le16_of(sizeof(u));
	u.m.de_type = DT_REG;
	u.m.de_namelen = 2;
	u.m.de_ino = le64_of(e->clone);
	memcpy(u.bytes + sizeof(u.m), "..", 2);
	edit_inode(e, INODE_ROOT, NODE_DIR, &edit);
	insert(&edit, &u, sizeof(u));
	edit_done(&edit);
}

static void bad_dir_size(struct env *e)
{
	INODE(e, INODE_ROOT, u, u.di_size = le64_of(99));
}

static void bad_nowhere(struct env *e)
{
	entry_change(e, e->clone, 1000, DT_REG);
}

static void bad_type(struct env *e)
{
	entry_change(e, e->file, e->file, DT_FIFO);
}

static void bad_type_dir(struct env *e)
{
	entry_change(e, e->p, e->p, DT_REG);
}

static void bad_dir_links(struct env *e)
{
	entry_move(e, e->p, e->q, e->dir, 0, true);
}

static void bad_root_named(struct env *e)
{
	entry_change(e, e->clone, INODE_ROOT, DT_DIR);
}

static void bad_item_missing(struct env *e)
{
	item_change(e, e->clone, true, 0);
}

static void bad_item_extra(struct env *e)
{
	item_change(e, e->clone, false, e->p);
}

static void bad_item_key(struct env *e)
{
	item_change(e, e->clone, true, INODE_ROOT);
}

static void bad_item_nowhere(struct env *e)
{
	item_change(e, e->clone, false, 12345);
}

static void bad_entry_gone(struct env *e)
{
	entry_move(e, INODE_ROOT, e->clone, 0, 0, false);
}

static void bad_dir_entry_gone(struct env *e)
{
	entry_move(e, INODE_ROOT, e->p, 0, 0, false);
	entry_move(e, e->p, e->q, 0, 0, false);
	entry_move(e, e->q, e->r, 0, 0, false);
}

static void bad_hard_link_gone(struct env *e)
{
	entry_move(e, e->q, e->file, 0, 0, false);
}

static void bad_both_gone(struct env *e)
{
	entry_move(e, INODE_ROOT, e->clone, 0, 0, false);
	item_change(e, e->clone, true, 0);
}

static void bad_dir_both_gone(struct env *e)
{
	entry_move(e, INODE_ROOT, e->p, 0, 0, false);
	item_change(e, e->p, true, 0);
}

static void bad_loop(struct env *e)
{
	entry_move(e, INODE_ROOT, e->p, e->r, 0, false);
}

static void bad_loop_known(struct env *e)
{
	bad_loop(e);
	item_change(e, e->p, true, e->r);
}

static void bad_links(struct env *e)
{
	INODE(e, e->clone, u, u.di_nlink = le32_of(7));
	INODE(e, e->p, u, u.di_nlink = le32_of(9));
}

static void bad_links_none(struct env *e)
{
	INODE(e, e->clone, u, u.di_nlink = le32_of(0));
}

static void bad_orphan_missing(struct env *e)
{
	struct edit edit;

	edit_group(e, AG_ORPHANS, &edit);
	rec_delete(&edit, e->orphan);
	edit_done(&edit);
}

static void orphan_add_rec(struct env *e, uint64_t ino, uint64_t gen)
{
	struct m_orphan m = { le64_of(ino), le64_of(gen) };
	struct edit edit;

	edit_group(e, AG_ORPHANS, &edit);
	insert(&edit, &m, sizeof(m));
	edit_done(&edit);
}

static void bad_orphan_extra(struct env *e)
{
	orphan_add_rec(e, e->clone, 3);
	orphan_add_rec(e, 1000, 5);
}

static void bad_orphan_gen(struct env *e)
{
	bad_orphan_missing(e);
	orphan_add_rec(e, e->orphan, 3);
}

static void bad_blocks(struct env *e)
{
	INODE(e, e->file, u, u.di_blocks = le64_of(1));
}

static void bad_gen(struct env *e)
{
	INODE(e, e->file, u, u.di_gen = le64_of(0));
}

static void bad_tail(struct env *e)
{
	INODE(e, e->link, u, u.di_data[100] = 1);
}

static void bad_shared_flag(struct env *e)
{
	INODE(e, e->file, u, u.di_flags = le32_of(le32_get(u.di_flags) & ~INODE_SHARED));
}

static void bad_unwritten_flag(struct env *e)
{
	INODE(e, e->prealloc, u, u.di_flags = le32_of(0));
}

static void bad_symlink_size(struct env *e)
{
	INODE(e, e->link, u, u.di_size = le64_of(0));
	INODE(e, e->longlink, u, u.di_size = le64_of(0));
}

static void bad_symlink_lost(struct env *e)
{
	INODE(e, e->link, u, {
		u.di_size = le64_of(0);
		memset(u.di_data, 0, sizeof(u.di_data));
	});
}

static void bad_xattr_chain(struct env *e)
{
	uint8_t buf[NODE_REC_MAX];
	struct m_attr *m = (void *)buf;
	struct edit edit;
	size_t size;

	edit_inode(e, e->file, NODE_ATTR, &edit);
	size = record_at(&edit, 0, buf);
	rec_delete(&edit, le64_get(m->at_key));
	m->at_key = le64_of(le64_get(m->at_key) + 1);
	insert(&edit, buf, size);
	edit_done(&edit);
}

static void bad_item_chain(struct env *e)
{
	item_change(e, e->clone, true, INODE_ROOT);
}

static void bad_item_twice(struct env *e)
{
	item_change(e, e->clone, false, INODE_ROOT);
}

static void bad_loss(struct env *e)
{
	struct m_loss m = { le64_of(1000), le64_of(0), le64_of(1), le64_of(0) };
	struct edit edit;

	edit_group(e, AG_LOSSES, &edit);
	insert(&edit, &m, sizeof(m));
	edit_done(&edit);
}

static void bad_forward(struct env *e)
{
	struct m_forward m = { le64_of(5), le64_of(1ull << 40), le64_of(0), le32_of(1), le32_of(0) };
	struct edit edit;

	edit_group(e, AG_FORWARDS, &edit);
	insert(&edit, &m, sizeof(m));
	edit_done(&edit);
}

/* ---- repair ---- */

static void told(void *arg, enum repair_act act, const char *text)
{
	struct env *e = arg;
	size_t used = strlen(e->told);

	e->lost += act == REPAIR_LOST;
	e->left += act == REPAIR_LEFT;
	snprintf(e->told + used, sizeof(e->told) - used, "%s\n", text);
}

static void found(void *arg, enum check_kind kind, const char *text)
{
	(void)arg;
	print_message("# %s: %s\n", check_kind_name(kind), text);
}

static uint64_t findings(struct env *e, bool loud)
{
	struct check_opts opts = { .found = loud ? found : NULL };
	struct check_report report;

	assert_int_equal(check_pool(e->t.pool, &opts, &report), 0);
	return report.findings;
}

static void repair(struct env *e)
{
	struct repair_opts opts = { .told = told, .arg = e };
	struct repair_report report = { 0 };
	struct repair rp = {
		.dax = e->t.dax,
		.pool = e->t.pool,
		.super = pool_super(e->t.pool),
		.opts = &opts,
		.report = &report,
	};

	e->told[0] = 0;
	e->lost = e->left = 0;
	assert_int_equal(repair_names(&rp, e->t.fs), 0);
	repair_facts_drop(&rp);
}

enum outcome {
	SAME,  /* nothing is different afterwards */
	OTHER, /* something is, and it is told how */
};

static const struct damage {
	const char *name;
	void (*fn)(struct env *e);
	enum outcome outcome;
	unsigned lost;    /* lines about what was lost */
	const char *told; /* something of what is told; NULL: anything */
} damages[] = {
	{ "chain", bad_chain, SAME, 0, "/file: could not be found" },
	{ "key", bad_key, SAME, 0, "/dir: could not be found" },
	{ "tombs", bad_tombs, SAME, 0, NULL },
	{ "name twice", bad_name_twice, SAME, 0, "/file: was there twice" },
	{ "name of two", bad_name_of_two, OTHER, 0, "/file: name in use twice, now file~1" },
	{ "dots", bad_dots, OTHER, 0, "now ..~1" },
	{ "directory size", bad_dir_size, SAME, 0, NULL },
	{ "nowhere", bad_nowhere, SAME, 1, "/clone: there is no such inode" },
	{ "type", bad_type, SAME, 0, "/file: type" },
	{ "type of a directory", bad_type_dir, SAME, 0, "/p: type" },
	{ "two names of a directory", bad_dir_links, SAME, 0, "has another name" },
	{ "name for the root", bad_root_named, SAME, 1, "/clone: a name for the root" },
	{ "item missing", bad_item_missing, SAME, 0, "knows its name" },
	{ "item extra", bad_item_extra, SAME, 0, "/clone: forgot a name" },
	{ "item at a wrong key", bad_item_key, SAME, 0, NULL },
	{ "item of nothing", bad_item_nowhere, SAME, 0, NULL },
	{ "entry gone", bad_entry_gone, SAME, 0, "/clone: put back" },
	{ "entries of directories gone", bad_dir_entry_gone, SAME, 0, "/p/q/r: put back" },
	{ "hard link gone", bad_hard_link_gone, SAME, 0, "/p/q/second: put back" },
	{ "entry and item gone", bad_both_gone, OTHER, 0, "/lost+found/#" },
	{ "entry and item of a directory gone", bad_dir_both_gone, OTHER, 0, "/lost+found/#" },
	{ "loop", bad_loop, SAME, 0, "inside itself" },
	{ "loop that both sides know of", bad_loop_known, OTHER, 0, "/lost+found/#" },
	{ "links", bad_links, SAME, 0, "/p: link count 3, was 9" },
	{ "no links", bad_links_none, SAME, 0, "/clone: link count 1, was 0" },
	{ "orphan missing", bad_orphan_missing, SAME, 0, "added to the tree" },
	{ "orphan extra", bad_orphan_extra, SAME, 0, NULL },
	{ "orphan of another generation", bad_orphan_gen, SAME, 0, "corrected" },
	{ "blocks", bad_blocks, SAME, 0, ": 64 blocks, was 1" },
	{ "generation", bad_gen, SAME, 0, "generation" },
	{ "bytes behind the end", bad_tail, SAME, 0, NULL },
	{ "shared flag", bad_shared_flag, SAME, 0, NULL },
	{ "unwritten flag", bad_unwritten_flag, SAME, 0, NULL },
	{ "symlink size", bad_symlink_size, SAME, 0, "/longlink: length" },
	{ "symlink lost", bad_symlink_lost, OTHER, 1, "/link: target of the symlink lost" },
	{ "order of attributes", bad_xattr_chain, SAME, 0, NULL },
	{ "order of items", bad_item_chain, SAME, 0, NULL },
	{ "item twice", bad_item_twice, SAME, 0, NULL },
	{ "loss", bad_loss, SAME, 0, NULL },
	{ "forward", bad_forward, SAME, 0, NULL },
};

static void check_mended(struct env *e, const struct damage *d)
{
	if (findings(e, true) ||
	    (testlist_diff(e->before, e->after, d->outcome == SAME) != 0) != d->outcome ||
	    e->lost != d->lost || e->left || (d->told && !strstr(e->told, d->told)))
		fail_msg("%s: %u lost\n%s", d->name, e->lost, e->told);
	repair(e);
	assert_string_equal(e->told, "");
}

static void test_each_damage(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(damages); i++) {
		struct env e;
		uint8_t value[10000];

		env_make(&e);
		assert_int_equal(findings(&e, true), 0);
		e.before = testlist_make(&e.t);
		damages[i].fn(&e);
		if (findings(&e, false) == 0)
			fail_msg("%s: no damage", damages[i].name);
		testfs_crash(&e.t);
		repair(&e);
		e.after = testlist_make(&e.t);
		check_mended(&e, &damages[i]);
		assert_int_equal(fs_getxattr(e.t.fs, e.file, "user.big", value, sizeof(value)), 10000);
		assert_int_equal(fs_getxattr(e.t.fs, e.file, "user.small", value, sizeof(value)), 10);
		env_free(&e);
	}
}

/* Few bits of hash: chains that run into each other and wrap around the end of the key space, with tombstones in them. */
static void test_crowded_keys(void **state)
{
	uint64_t random = testfs_seed();

	(void)state;
	for (unsigned round = 0; round < 20; round++) {
		struct testfs_opts opts = { .size_bytes = POOL_BYTES, .format = { .dir_hash_bits = 8 } };
		struct env e = { 0 };
		uint8_t buf[NODE_REC_MAX];
		struct m_dirent *m = (void *)buf;
		struct edit edit;
		char name[20];

		testfs_make(&e.t, &opts);
		e.dir = make(&e, INODE_ROOT, "dir", S_IFDIR | 0755);
		for (unsigned i = 0; i < 140; i++) {
			snprintf(name, sizeof(name), "n%u", i);
			make(&e, e.dir, name, S_IFREG | 0644);
		}
		for (unsigned i = 0; i < 140; i += 3) {
			snprintf(name, sizeof(name), "n%u", i);
			assert_int_equal(testfs_unlink(&e.t, e.dir, name), 0);
		}
		e.before = testlist_make(&e.t);
		edit_inode(&e, e.dir, NODE_DIR, &edit);
		for (unsigned i = 0; i < 30; i++) {
			size_t size = record_at(&edit, testfs_below(&random, 100), buf);

			rec_delete(&edit, le64_get(m->de_key));
			do {
				m->de_key = le64_of(testfs_below(&random, 300));
			} while (bt_insert(&edit.bt, buf, size) != 0);
		}
		edit_done(&edit);
		testfs_crash(&e.t);
		repair(&e);
		e.after = testlist_make(&e.t);
		assert_int_equal(findings(&e, true), 0);
		assert_int_equal(testlist_diff(e.before, e.after, true), 0);
		env_free(&e);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_each_damage),
		cmocka_unit_test(test_crowded_keys),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
