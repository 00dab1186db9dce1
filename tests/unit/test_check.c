/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The consistency walk has to be able to object: a sound pool gives no finding, and each kind of damage gives its own.
 */
#include <dirent.h>
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
#include "lib/testunit.h"
#include "media/ag.h"
#include "media/node.h"
#include "repair/check.h"
#include "space/space.h"
#include "txn/txn.h"

#define POOL_BYTES ((uint64_t)16 << 20)
#define FILE_BYTES ((uint64_t)1 << 20)

struct env {
	struct testfs t;
	uint64_t file, clone, dir, link, p, q, orphan;
};

static uint64_t make(struct env *e, uint64_t dir, const char *name, uint32_t mode)
{
	struct inode_attr a;

	assert_int_equal(testfs_mknod(&e->t, dir, name, mode, &a), 0);
	return a.ino;
}

static void env_make(struct env *e)
{
	struct testfs_opts opts = { .size_bytes = POOL_BYTES };
	uint8_t *bytes = malloc(FILE_BYTES);
	struct inode_attr a;
	char name[300];

	memset(bytes, 7, FILE_BYTES);
	testfs_make(&e->t, &opts);
	e->file = make(e, INODE_ROOT, "file", S_IFREG | 0644);
	e->clone = make(e, INODE_ROOT, "clone", S_IFREG | 0644);
	e->dir = make(e, INODE_ROOT, "dir", S_IFDIR | 0755);
	e->p = make(e, INODE_ROOT, "p", S_IFDIR | 0755);
	e->q = make(e, e->p, "q", S_IFDIR | 0755);
	assert_int_equal(fs_write(e->t.fs, &testfs_root, e->file, bytes, FILE_BYTES, 0, 0), FILE_BYTES);
	assert_int_equal(fs_clone(e->t.fs, &testfs_root, e->file, 0, e->clone, 0, FILE_BYTES / 2, 0, NULL),
			 FILE_BYTES / 2);
	assert_int_equal(fs_symlink(e->t.fs, &testfs_root, INODE_ROOT, "link", 4, "file", 4, &a), 0);
	e->link = a.ino;
	assert_int_equal(fs_tmpfile(e->t.fs, &testfs_root, INODE_ROOT, 0600, &a), 0);
	e->orphan = a.ino;
	assert_int_equal(fs_setxattr(e->t.fs, e->file, "user.big", bytes, 10000, 0, false), 0);
	memset(name, 'n', sizeof(name));
	for (unsigned i = 0; i < 100; i++) {
		snprintf(name + 200, sizeof(name) - 200, "%u", i);
		make(e, e->dir, name, S_IFREG | 0644);
	}
	free(bytes);
}

static void line(void *arg, enum check_kind kind, const char *text)
{
	(void)arg;
	print_message("# %s: %s\n", check_kind_name(kind), text);
}

static struct check_report check(struct env *e, bool loud)
{
	struct check_opts opts = { .found = loud ? line : NULL, .limit = 5 };
	struct check_report report;

	assert_int_equal(check_pool(e->t.pool, &opts, &report), 0);
	return report;
}

/* ---- ways to do damage ---- */

static uint64_t inode_at(uint64_t ino)
{
	return ino << INODE_SHIFT;
}

#define CHANGE(e, type, laddr, copies, u, how)                         \
	do {                                                           \
		_Alignas(64) type u;                                   \
		testunit_load(&(e)->t, laddr, &u, sizeof(u));          \
		how;                                                   \
		testunit_store(&(e)->t, laddr, &u, sizeof(u), copies); \
	} while (0)

#define INODE(e, ino, u, how) CHANGE(e, struct m_inode, inode_at(ino), TESTUNIT_BOTH, u, how)
#define FIXED(e, type, unit, u, how) \
	CHANGE(e, type, pool_ag_unit((e)->t.pool, 0, unit), TESTUNIT_BOTH, u, how)

/* A tree of group 0, or of an inode, in a transaction. */
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

/* The first record at or after a key, copied out. */
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

static void insert(struct edit *edit, const void *rec, size_t size)
{
	assert_int_equal(bt_insert(&edit->bt, rec, size), 0);
}

/* The entry of a directory that leads to an inode. */
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

static void rec_delete(struct edit *edit, uint64_t key)
{
	assert_int_equal(bt_delete(&edit->bt, &(struct bt_key){ { key } }), 0);
}

/* ---- damage ---- */

static void bad_super(struct env *e)
{
	assert_int_equal(dax_zero(e->t.dax, 0, 64), 0);
}

static void bad_unit_lost(struct env *e)
{
	testunit_junk(&e->t, inode_at(e->file), TESTUNIT_BOTH);
}

static void bad_unit_copy(struct env *e)
{
	testunit_junk(&e->t, inode_at(e->file), TESTUNIT_MIRROR);
}

static void bad_unit_differs(struct env *e)
{
	CHANGE(e, struct m_inode, inode_at(e->file), TESTUNIT_MIRROR, u, u.di_uid = le32_of(5));
}

/* The first node of a directory's tree. */
static uint64_t dir_node(struct env *e)
{
	_Alignas(64) struct m_inode m;
	const struct m_node_body *body = (const void *)m.di_data;

	testunit_load(&e->t, inode_at(e->dir), &m, sizeof(m));
	assert_true(body->nb_level > 0);
	return le64_get(((const le64 *)(const void *)body->nb_space)[1]);
}

static void bad_unit_owner(struct env *e)
{
	CHANGE(e, struct m_node, dir_node(e), TESTUNIT_BOTH, u, u.nd_hdr.uh_owner = le64_of(e->file));
}

static void bad_unit_seq(struct env *e)
{
	INODE(e, e->file, u, u.di_hdr.uh_seq = le64_of(1ull << 60));
}

/* The list of units in the record of the large xattr. */
static le64 *big_list(struct m_inode *m)
{
	struct m_node_body *body = (void *)m->di_attr;

	for (unsigned i = 0; i < node_count(body); i++) {
		size_t off = le16_get(((le16 *)(void *)body->nb_space)[i]);
		struct m_attr *a = (void *)(m->di_attr + off);

		if (a->at_flags & ATTR_LARGE)
			return (void *)(a->at_data + u64_align_up(a->at_namelen, 8));
	}
	fail_msg("there is no large xattr");
	return NULL;
}

static void bad_unit_twice(struct env *e)
{
	INODE(e, e->file, u, big_list(&u)[1] = big_list(&u)[0]);
}

static void bad_xattr(struct env *e)
{
	_Alignas(64) struct m_inode m;

	testunit_load(&e->t, inode_at(e->file), &m, sizeof(m));
	CHANGE(e, struct m_xval, le64_get(big_list(&m)[0]), TESTUNIT_BOTH, u, u.xv_len_bytes = le32_of(17));
}

static void used_map_change(struct env *e, bool set)
{
	FIXED(e, struct m_chunks, AG_UNIT_TABLE, u, {
		struct m_chunk *c = &u.ct_chunks[0];
		unsigned unit = set ? CHUNK_BLOCKS - 1 : AG_UNIT_HEADER;

		c->ck_used[unit / 8] ^= (uint8_t)(1u << unit % 8);
		c->ck_used_count = le32_of(le32_get(c->ck_used_count) + (set ? 1u : -1u));
	});
}

static void bad_unit_leaked(struct env *e)
{
	used_map_change(e, true);
}

static void bad_unit_unmarked(struct env *e)
{
	used_map_change(e, false);
}

static void bad_tree(struct env *e)
{
	INODE(e, e->dir, u, {
		struct m_node_body *body = (void *)u.di_data;
		le64 *second = (le64 *)(void *)body->nb_space + 2;

		*second = le64_of(1);
	});
}

static void bad_group(struct env *e)
{
	FIXED(e, struct m_ag, AG_UNIT_HEADER, u, u.ag_index = le32_of(3));
}

static void bad_counter(struct env *e)
{
	FIXED(e, struct m_ag, AG_UNIT_HEADER, u, u.ag_free_blk = le64_of(le64_get(u.ag_free_blk) - 1));
}

static void bad_chunk(struct env *e)
{
	FIXED(e, struct m_chunks, AG_UNIT_TABLE, u, u.ct_chunks[0].ck_mirror = le32_of(0));
}

static void bad_remap(struct env *e)
{
	FIXED(e, struct m_remaps, AG_UNIT_REMAP, u, {
		u.rl_count = le32_of(1);
		u.rl_entries[0].rp_laddr = le64_of(17);
	});
}

static uint64_t file_blk(struct env *e)
{
	struct fs_extent x;

	assert_int_equal(fs_map(e->t.fs, e->file, 0, &x, 1), 1);
	return x.dev_off / BLOCK_SIZE;
}

static void bitmap_flip(struct env *e, uint64_t blk)
{
	FIXED(e, struct m_bitmap, AG_UNIT_TABLE + 1, u,
	      u.bm_bits[blk / CHUNK_BLOCKS][blk % CHUNK_BLOCKS / 8] ^= (uint8_t)(1u << blk % 8));
}

static void bad_bitmap_set(struct env *e)
{
	bitmap_flip(e, POOL_BYTES / BLOCK_SIZE / 2 + 100);
}

static void bad_bitmap_clear(struct env *e)
{
	bitmap_flip(e, file_blk(e));
}

static void rmap_add(struct env *e, uint64_t blk, uint64_t owner, uint64_t offset, uint64_t count)
{
	struct m_rmap m;
	struct edit edit;

	edit_group(e, AG_RMAP, &edit);
	rmap_encode(&m, &(struct rmap){ blk, owner, offset, count, 0 });
	insert(&edit, &m, sizeof(m));
	edit_done(&edit);
}

static void bad_rmap_missing(struct env *e)
{
	uint64_t blk = file_blk(e);
	struct edit edit;

	edit_group(e, AG_RMAP, &edit);
	assert_int_equal(bt_delete(&edit.bt, &(struct bt_key){ { blk, e->file, 0 } }), 0);
	edit_done(&edit);
}

static void bad_rmap_extra(struct env *e)
{
	rmap_add(e, file_blk(e), e->link, 0, 1);
}

static void bad_rmap_twice(struct env *e)
{
	rmap_add(e, file_blk(e) + 1, e->file, 1, 1);
}

static void bad_rmap_special(struct env *e)
{
	rmap_add(e, 3, e->file, 1000, 1);
}

static void bad_refcount(struct env *e)
{
	struct m_refcount m;
	struct edit edit;

	edit_group(e, AG_REFCOUNT, &edit);
	record_at(&edit, 0, &m);
	m.rc_refs = le32_of(3);
	assert_int_equal(bt_update(&edit.bt, &m, sizeof(m)), 0);
	edit_done(&edit);
}

static void bad_refcount_gone(struct env *e)
{
	struct m_refcount m;
	struct edit edit;

	edit_group(e, AG_REFCOUNT, &edit);
	record_at(&edit, 0, &m);
	rec_delete(&edit, le64_get(m.rc_start_blk));
	edit_done(&edit);
}

static void bad_shared_flag(struct env *e)
{
	INODE(e, e->file, u, u.di_flags = le32_of(le32_get(u.di_flags) & ~INODE_SHARED));
}

static void bad_inode_tree(struct env *e)
{
	struct m_inode_cluster m;
	struct edit edit;

	edit_group(e, AG_INODES, &edit);
	record_at(&edit, 0, &m);
	m.ic_free_mask = le64_of(le64_get(m.ic_free_mask) | 2);
	assert_int_equal(bt_update(&edit.bt, &m, sizeof(m)), 0);
	edit_done(&edit);
}

static void bad_inode(struct env *e)
{
	INODE(e, e->file, u, u.di_gen = le64_of(0));
}

static void bad_inode_blocks(struct env *e)
{
	INODE(e, e->file, u, u.di_blocks = le64_of(1));
}

static void bad_extent(struct env *e)
{
	INODE(e, e->file, u, ((struct m_extent *)(void *)(u.di_data + 8))->ex_dev_blk = le64_of(1ull << 40));
}

static void bad_symlink(struct env *e)
{
	INODE(e, e->link, u, u.di_size = le64_of(0));
}

static void entry_move(struct env *e, uint64_t key_up, bool keep)
{
	uint8_t buf[NODE_REC_MAX];
	struct m_dirent *m = (void *)buf;
	struct edit edit;
	size_t size;

	edit_inode(e, INODE_ROOT, NODE_DIR, &edit);
	size = dirent_of(&edit, e->file, buf);
	if (!keep)
		rec_delete(&edit, le64_get(m->de_key));
	m->de_key = le64_of(le64_get(m->de_key) + key_up);
	insert(&edit, buf, size);
	edit_done(&edit);
}

static void bad_hash_chain(struct env *e)
{
	entry_move(e, 1, false);
}

static void bad_name_twice(struct env *e)
{
	entry_move(e, 1, true);
}

static void bad_dir_size(struct env *e)
{
	INODE(e, INODE_ROOT, u, u.di_size = le64_of(99));
}

static void entry_change(struct env *e, uint64_t ino, uint8_t type)
{
	uint8_t buf[NODE_REC_MAX];
	struct m_dirent *m = (void *)buf;
	struct edit edit;
	size_t size;

	edit_inode(e, INODE_ROOT, NODE_DIR, &edit);
	size = dirent_of(&edit, e->file, buf);
	m->de_ino = le64_of(ino);
	m->de_type = type;
	assert_int_equal(bt_update(&edit.bt, buf, size), 0);
	edit_done(&edit);
}

static void bad_dirent_nowhere(struct env *e)
{
	entry_change(e, 1000, DT_REG);
}

static void bad_dirent_type(struct env *e)
{
	entry_change(e, e->file, DT_FIFO);
}

static void bad_dir_links(struct env *e)
{
	entry_change(e, e->dir, DT_DIR);
}

static void bad_parent_missing(struct env *e)
{
	uint8_t buf[NODE_REC_MAX];
	struct edit edit;

	edit_inode(e, e->clone, NODE_ATTR, &edit);
	record_at(&edit, ATTR_KEY_PARENT, buf);
	rec_delete(&edit, le64_get(((struct m_attr *)(void *)buf)->at_key));
	edit_done(&edit);
}

static void bad_parent_extra(struct env *e)
{
	uint8_t buf[NODE_REC_MAX];
	struct edit edit;

	edit_inode(e, INODE_ROOT, NODE_DIR, &edit);
	dirent_of(&edit, e->clone, buf);
	rec_delete(&edit, le64_get(((struct m_dirent *)(void *)buf)->de_key));
	edit_done(&edit);
}

static void bad_links(struct env *e)
{
	INODE(e, e->file, u, u.di_nlink = le32_of(2));
}

static void bad_links_dir(struct env *e)
{
	INODE(e, e->p, u, u.di_nlink = le32_of(2));
}

static void bad_orphan_missing(struct env *e)
{
	struct edit edit;

	edit_group(e, AG_ORPHANS, &edit);
	rec_delete(&edit, e->orphan);
	edit_done(&edit);
}

static void bad_orphan_extra(struct env *e)
{
	struct m_orphan m = { .or_ino = le64_of(e->file) };
	_Alignas(64) struct m_inode inode;
	struct edit edit;

	testunit_load(&e->t, inode_at(e->file), &inode, sizeof(inode));
	m.or_gen = inode.di_gen;
	edit_group(e, AG_ORPHANS, &edit);
	insert(&edit, &m, sizeof(m));
	edit_done(&edit);
}

static void bad_dir_loop(struct env *e)
{
	uint8_t buf[NODE_REC_MAX];
	struct edit edit;
	size_t size;

	edit_inode(e, INODE_ROOT, NODE_DIR, &edit);
	size = dirent_of(&edit, e->p, buf);
	rec_delete(&edit, le64_get(((struct m_dirent *)(void *)buf)->de_key));
	edit_done(&edit);
	edit_inode(e, e->q, NODE_DIR, &edit);
	insert(&edit, buf, size);
	edit_done(&edit);
}

static void bad_intent(struct env *e)
{
	FIXED(e, struct m_intents, AG_UNIT_INTENTS, u, {
		u.in_slots[3].it_type = le32_of(INTENT_TRUNCATE);
		u.in_slots[3].it_ino = le64_of(1000);
	});
}

static void bad_forward(struct env *e)
{
	struct m_forward m = { le64_of(5), le64_of(1ull << 40), le64_of(0), le32_of(1), le32_of(0) };
	struct edit edit;

	edit_group(e, AG_FORWARDS, &edit);
	insert(&edit, &m, sizeof(m));
	edit_done(&edit);
}

static void bad_loss(struct env *e)
{
	struct m_loss m = { le64_of(e->file), le64_of(0), le64_of(1), le64_of(0) };
	struct edit edit;

	edit_group(e, AG_LOSSES, &edit);
	insert(&edit, &m, sizeof(m));
	edit_done(&edit);
}

static const struct damage {
	void (*fn)(struct env *e);
	enum check_kind kind;
} damages[] = { { bad_super, CHECK_SUPER },
		{ bad_unit_lost, CHECK_UNIT_LOST },
		{ bad_unit_copy, CHECK_UNIT_COPY },
		{ bad_unit_differs, CHECK_UNIT_DIFFERS },
		{ bad_unit_owner, CHECK_UNIT_OWNER },
		{ bad_unit_seq, CHECK_UNIT_SEQ },
		{ bad_unit_twice, CHECK_UNIT_TWICE },
		{ bad_unit_leaked, CHECK_UNIT_LEAKED },
		{ bad_unit_unmarked, CHECK_UNIT_UNMARKED },
		{ bad_tree, CHECK_TREE },
		{ bad_group, CHECK_GROUP },
		{ bad_counter, CHECK_COUNTER },
		{ bad_chunk, CHECK_CHUNK },
		{ bad_remap, CHECK_REMAP },
		{ bad_bitmap_set, CHECK_BITMAP_SET },
		{ bad_bitmap_clear, CHECK_BITMAP_CLEAR },
		{ bad_rmap_missing, CHECK_RMAP_MISSING },
		{ bad_rmap_extra, CHECK_RMAP_EXTRA },
		{ bad_rmap_twice, CHECK_RMAP_TWICE },
		{ bad_rmap_special, CHECK_RMAP_SPECIAL },
		{ bad_refcount, CHECK_REFCOUNT },
		{ bad_refcount_gone, CHECK_REFCOUNT },
		{ bad_shared_flag, CHECK_SHARED_FLAG },
		{ bad_inode_tree, CHECK_INODE_TREE },
		{ bad_inode, CHECK_INODE },
		{ bad_inode_blocks, CHECK_INODE_BLOCKS },
		{ bad_extent, CHECK_EXTENT },
		{ bad_symlink, CHECK_SYMLINK },
		{ bad_xattr, CHECK_XATTR },
		{ bad_hash_chain, CHECK_HASH_CHAIN },
		{ bad_name_twice, CHECK_NAME_TWICE },
		{ bad_dir_size, CHECK_DIR_SIZE },
		{ bad_dirent_nowhere, CHECK_DIRENT },
		{ bad_dirent_type, CHECK_DIRENT },
		{ bad_dir_links, CHECK_DIR_LINKS },
		{ bad_parent_missing, CHECK_PARENT_MISSING },
		{ bad_parent_extra, CHECK_PARENT_EXTRA },
		{ bad_links, CHECK_LINKS },
		{ bad_links_dir, CHECK_LINKS },
		{ bad_orphan_missing, CHECK_ORPHAN_MISSING },
		{ bad_orphan_extra, CHECK_ORPHAN_EXTRA },
		{ bad_dir_loop, CHECK_DIR_LOOP },
		{ bad_intent, CHECK_INTENT },
		{ bad_forward, CHECK_FORWARD },
		{ bad_loss, CHECK_LOSS } };

/* On the damaged pool the floors above txn must not run again. */
static void env_drop(struct env *e)
{
	pool_fail(e->t.pool, "damaged on purpose");
	testfs_free(&e->t);
}

static void test_sound(void **state)
{
	struct env e;

	(void)state;
	env_make(&e);
	assert_int_equal(check(&e, true).findings, 0);
	testfs_free(&e.t);
}

static void test_each_damage(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(damages); i++) {
		const struct damage *d = &damages[i];
		struct check_report report;
		struct env e;

		env_make(&e);
		assert_int_equal(check(&e, true).findings, 0);
		d->fn(&e);
		report = check(&e, false);
		if (report.by_kind[d->kind] == 0) {
			check(&e, true);
			fail_msg("damage %zu: no finding '%s'", i, check_kind_name(d->kind));
		}
		env_drop(&e);
	}
}

static void test_all_kinds_are_seen(void **state)
{
	bool seen[CHECK_KINDS] = { false };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(damages); i++)
		seen[damages[i].kind] = true;
	for (size_t i = 0; i < CHECK_KINDS; i++)
		assert_true(seen[i]);
}

/* Few bits of hash: chains of names that wrap around the end of the key space, with tombstones in them. */
static void test_crowded_keys(void **state)
{
	struct testfs_opts opts = { .size_bytes = POOL_BYTES, .format = { .dir_hash_bits = 8 } };
	struct env e = { 0 };
	uint64_t dir;
	char name[20];

	(void)state;
	testfs_make(&e.t, &opts);
	dir = make(&e, INODE_ROOT, "dir", S_IFDIR | 0755);
	for (unsigned i = 0; i < 200; i++) {
		snprintf(name, sizeof(name), "n%u", i);
		make(&e, dir, name, S_IFREG | 0644);
		assert_int_equal(check(&e, true).findings, 0);
	}
	for (unsigned i = 0; i < 200; i += 3) {
		snprintf(name, sizeof(name), "n%u", i);
		assert_int_equal(testfs_unlink(&e.t, dir, name), 0);
		assert_int_equal(check(&e, true).findings, 0);
	}
	testfs_free(&e.t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_sound),
		cmocka_unit_test(test_each_damage),
		cmocka_unit_test(test_all_kinds_are_seen),
		cmocka_unit_test(test_crowded_keys),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
