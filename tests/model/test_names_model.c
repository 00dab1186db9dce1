/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Random operations on names against a model in plain memory: each result, then the whole tree. Hashes of few bits make names collide
 * all the time, wrap around and leave tombstones.
 */
#include <dirent.h>
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "lib/testfs.h"
#include "lib/testtree.h"

#define NAMES 13 /* in a directory; the key space of 5 bits has 16 */
#define NODES 64
#define NONE (-1)
#define LINKS_MAX 10

struct node {
	bool used;
	uint64_t ino;
	uint32_t type;
	uint32_t nlink;
	bool open;
	int parent; /* of a directory that has a name */
	int children[NAMES];
};

struct model {
	struct testfs t;
	uint64_t random;
	unsigned step;
	struct node nodes[NODES]; /* 0 is the root */
};

static char name_buf[2][260];

/* Names of all lengths, and always the same for one number. */
static const char *name_of(int n, unsigned buf)
{
	static const int lengths[NAMES] = { 1, 2, 5, 8, 13, 60, 77, 78, 79, 120, 200, 254, 255 };

	memset(name_buf[buf], 'a' + n, (size_t)lengths[n]);
	name_buf[buf][lengths[n]] = 0;
	return name_buf[buf];
}

static int name_number(const char *name)
{
	return name[0] - 'a';
}

static bool is_dir(const struct node *n)
{
	return n->type == S_IFDIR;
}

static unsigned child_count(const struct node *n)
{
	unsigned count = 0;

	for (int i = 0; i < NAMES; i++)
		count += n->children[i] != NONE;
	return count;
}

static int pick(struct model *m)
{
	for (;;) {
		int i = (int)testfs_below(&m->random, NODES);

		if (m->nodes[i].used)
			return i;
	}
}

/* Mostly a directory. */
static int pick_dir(struct model *m)
{
	for (unsigned tries = 0;; tries++) {
		int i = pick(m);

		if (is_dir(&m->nodes[i]) || tries > 20)
			return i;
	}
}

static int pick_name(struct model *m)
{
	return (int)testfs_below(&m->random, NAMES);
}

static int node_free_slot(struct model *m)
{
	for (int i = 1; i < NODES; i++) {
		if (!m->nodes[i].used)
			return i;
	}
	return NONE;
}

static int node_add(struct model *m, uint64_t ino, uint32_t type, int parent)
{
	int i = node_free_slot(m);
	struct node *n = &m->nodes[i];

	*n = (struct node){
		.used = true, .ino = ino, .type = type, .nlink = type == S_IFDIR ? 2 : 1, .parent = parent
	};
	for (int k = 0; k < NAMES; k++)
		n->children[k] = NONE;
	return i;
}

static void node_gone(struct model *m, struct node *n)
{
	struct inode_attr attr;

	n->used = false;
	if (!m->t.opts.fs.background)
		assert_int_equal(fs_getattr(m->t.fs, n->ino, &attr), -ESTALE);
}

static void node_drop(struct model *m, int i)
{
	struct node *n = &m->nodes[i];

	n->nlink -= is_dir(n) ? 2 : 1;
	if (n->nlink == 0 && !n->open)
		node_gone(m, n);
}

static void expect(struct model *m, const char *what, int got, int want)
{
	if (got == want)
		return;
	fprintf(stderr, "step %u: %s gives %d, not %d\n", m->step, what, got, want);
	fail();
}

/* ---- operations ---- */

static void do_make(struct model *m)
{
	static const uint32_t types[] = { S_IFREG, S_IFREG, S_IFDIR, S_IFDIR, S_IFDIR, S_IFIFO, S_IFLNK };
	uint32_t type = types[testfs_below(&m->random, ARRAY_SIZE(types))];
	int d = pick_dir(m), n = pick_name(m), want = 0, rc;
	struct node *dir = &m->nodes[d];
	const char *name = name_of(n, 0);
	struct inode_attr attr;

	if (node_free_slot(m) == NONE)
		return;
	if (!is_dir(dir))
		want = -ENOTDIR;
	else if (dir->nlink == 0)
		want = -ENOENT;
	else if (dir->children[n] != NONE)
		want = -EEXIST;
	if (type == S_IFLNK)
		rc = fs_symlink(m->t.fs, &testfs_root, dir->ino, name, strlen(name), name, strlen(name),
				&attr);
	else
		rc = fs_mknod(m->t.fs, &testfs_root, dir->ino, name, strlen(name), type | 0700, 0, &attr);
	expect(m, "make", rc, want);
	if (rc)
		return;
	fs_forget(m->t.fs, attr.ino, 1);
	dir->children[n] = node_add(m, attr.ino, type, d);
	dir->nlink += type == S_IFDIR;
}

static void do_remove(struct model *m)
{
	bool rmdir = testfs_below(&m->random, 2);
	int d = pick_dir(m), n = pick_name(m), want = 0, rc, c;
	struct node *dir = &m->nodes[d];

	c = dir->children[n];
	if (!is_dir(dir))
		want = -ENOTDIR;
	else if (c == NONE)
		want = -ENOENT;
	else if (rmdir && !is_dir(&m->nodes[c]))
		want = -ENOTDIR;
	else if (rmdir && child_count(&m->nodes[c]))
		want = -ENOTEMPTY;
	else if (!rmdir && is_dir(&m->nodes[c]))
		want = -EISDIR;
	rc = rmdir ? testfs_rmdir(&m->t, dir->ino, name_of(n, 0)) :
		     testfs_unlink(&m->t, dir->ino, name_of(n, 0));
	expect(m, rmdir ? "rmdir" : "unlink", rc, want);
	if (rc)
		return;
	dir->children[n] = NONE;
	dir->nlink -= rmdir;
	node_drop(m, c);
}

static void do_link(struct model *m)
{
	int i = pick(m), d = pick_dir(m), n = pick_name(m), want = 0, rc;
	struct node *node = &m->nodes[i], *dir = &m->nodes[d];

	if (node->nlink >= LINKS_MAX)
		return;
	if (!is_dir(dir))
		want = -ENOTDIR;
	else if (dir->nlink == 0)
		want = -ENOENT;
	else if (is_dir(node))
		want = -EPERM;
	else if (dir->children[n] != NONE)
		want = -EEXIST;
	rc = testfs_link(&m->t, node->ino, dir->ino, name_of(n, 0));
	expect(m, "link", rc, want);
	if (rc)
		return;
	dir->children[n] = i;
	node->nlink++;
}

static bool is_above(const struct model *m, int above, int d)
{
	for (;; d = m->nodes[d].parent) {
		if (d == above)
			return true;
		if (d == 0)
			return false;
	}
}

static int rename_want(const struct model *m, int d1, int c1, int d2, int c2, unsigned flags)
{
	bool exchange = flags & RENAME_EXCHANGE;
	bool dir1, dir2;

	if (!is_dir(&m->nodes[d1]) || !is_dir(&m->nodes[d2]))
		return -ENOTDIR;
	if (c1 == NONE || (exchange && c2 == NONE))
		return -ENOENT;
	if (c2 != NONE && flags & RENAME_NOREPLACE)
		return -EEXIST;
	if (c1 == c2)
		return 0;
	dir1 = is_dir(&m->nodes[c1]);
	dir2 = c2 != NONE && is_dir(&m->nodes[c2]);
	if (m->nodes[d2].nlink == 0)
		return -ENOENT;
	if (d1 != d2 && dir1 && is_above(m, c1, d2))
		return -EINVAL;
	if (d1 != d2 && dir2 && (dir1 || exchange) && is_above(m, c2, d1))
		return exchange ? -EINVAL : -ENOTEMPTY;
	if (exchange || c2 == NONE)
		return 0;
	if (dir1 != dir2)
		return dir2 ? -EISDIR : -ENOTDIR;
	return dir2 && child_count(&m->nodes[c2]) ? -ENOTEMPTY : 0;
}

static void moved(struct model *m, int c, int from, int to)
{
	if (!is_dir(&m->nodes[c]))
		return;
	m->nodes[c].parent = to;
	m->nodes[from].nlink--;
	m->nodes[to].nlink++;
}

static void do_rename(struct model *m)
{
	static const unsigned all_flags[] = { 0, 0, 0, RENAME_NOREPLACE, RENAME_EXCHANGE, RENAME_WHITEOUT };
	unsigned flags = all_flags[testfs_below(&m->random, ARRAY_SIZE(all_flags))];
	int d1 = pick_dir(m), d2 = testfs_below(&m->random, 3) ? pick_dir(m) : d1, n1 = pick_name(m),
	    n2 = pick_name(m);
	struct node *dir1 = &m->nodes[d1], *dir2 = &m->nodes[d2];
	int c1 = dir1->children[n1], c2 = dir2->children[n2], rc;
	struct inode_attr attr;

	if (flags & RENAME_WHITEOUT && node_free_slot(m) == NONE)
		return;
	rc = testfs_rename(&m->t, dir1->ino, name_of(n1, 0), dir2->ino, name_of(n2, 1), flags);
	expect(m, "rename", rc, rename_want(m, d1, c1, d2, c2, flags));
	if (rc || c1 == c2)
		return;
	dir1->children[n1] = NONE;
	if (flags & RENAME_EXCHANGE) {
		dir1->children[n1] = c2;
		moved(m, c2, d2, d1);
	} else if (c2 != NONE) {
		dir2->nlink -= is_dir(&m->nodes[c2]);
		node_drop(m, c2);
	}
	dir2->children[n2] = c1;
	moved(m, c1, d1, d2);
	if (flags & RENAME_WHITEOUT) {
		assert_int_equal(testfs_lookup(&m->t, dir1->ino, name_of(n1, 0), &attr), 0);
		fs_forget(m->t.fs, attr.ino, 1);
		dir1->children[n1] = node_add(m, attr.ino, S_IFCHR, d1);
	}
}

static void do_open(struct model *m)
{
	int i = pick(m);
	struct node *n = &m->nodes[i];

	if (i == 0)
		return;
	if (!n->open) {
		expect(m, "open", fs_opened(m->t.fs, n->ino, 0, &testfs_root), 0);
		n->open = true;
		return;
	}
	fs_closed(m->t.fs, n->ino, 0);
	n->open = false;
	if (n->nlink == 0)
		node_gone(m, n);
}

static void do_tmpfile(struct model *m)
{
	int d = pick(m), i, want = 0, rc;
	struct node *dir = &m->nodes[d];
	struct inode_attr attr;

	if (node_free_slot(m) == NONE)
		return;
	if (!is_dir(dir))
		want = -ENOTDIR;
	else if (dir->nlink == 0)
		want = -ENOENT;
	rc = fs_tmpfile(m->t.fs, &testfs_root, dir->ino, 0600, &attr);
	expect(m, "tmpfile", rc, want);
	if (rc)
		return;
	i = node_add(m, attr.ino, S_IFREG, NONE);
	m->nodes[i].nlink = 0;
	m->nodes[i].open = true;
	assert_int_equal(fs_opened(m->t.fs, attr.ino, FS_OPEN_WRITE, &testfs_root), 0);
	fs_forget(m->t.fs, attr.ino, 1);
}

static void do_lookup(struct model *m)
{
	int d = pick(m), n = pick_name(m), c, rc;
	struct node *dir = &m->nodes[d];
	struct inode_attr attr;

	c = dir->children[n];
	rc = testfs_lookup(&m->t, dir->ino, name_of(n, 0), &attr);
	expect(m, "lookup", rc, !is_dir(dir) ? -ENOTDIR : c == NONE ? -ENOENT : 0);
	if (rc)
		return;
	assert_int_equal(attr.ino, m->nodes[c].ino);
	assert_int_equal(attr.nlink, m->nodes[c].nlink);
	fs_forget(m->t.fs, attr.ino, 1);
}

/* ---- the whole ---- */

struct compare {
	struct model *m;
	unsigned entries;
};

static void entry_compare(void *arg, uint64_t dir, const struct fs_dirent *e)
{
	struct compare *c = arg;
	const struct model *m = c->m;
	int n = name_number(e->name);

	c->entries++;
	for (int d = 0; d < NODES; d++) {
		const struct node *node = &m->nodes[d];

		if (!node->used || node->ino != dir)
			continue;
		assert_true(node->children[n] != NONE);
		assert_int_equal(m->nodes[node->children[n]].ino, e->ino);
		return;
	}
	fail();
}

static void compare(struct model *m)
{
	struct compare c = { m, 0 };
	unsigned want = 0;

	testtree_walk(&m->t, entry_compare, &c);
	for (int i = 0; i < NODES; i++) {
		const struct node *n = &m->nodes[i];
		struct inode_attr attr;

		if (!n->used)
			continue;
		want += child_count(n);
		assert_int_equal(fs_getattr(m->t.fs, n->ino, &attr), 0);
		assert_int_equal(attr.mode & S_IFMT, n->type);
		assert_int_equal(attr.nlink, n->nlink);
	}
	assert_int_equal(c.entries, want);
}

/* Opens are gone with the mount, and what lived by them. */
static void reopened(struct model *m)
{
	fs_work(m->t.fs);
	for (int i = 1; i < NODES; i++) {
		struct node *n = &m->nodes[i];

		if (n->used && n->nlink == 0)
			node_gone(m, n);
		n->open = false;
	}
}

static void run(const struct testfs_opts *opts, unsigned steps)
{
	struct model *m = calloc(1, sizeof(*m));

	m->random = testfs_seed();
	testfs_make(&m->t, opts);
	m->nodes[0] = (struct node){ .used = true, .ino = INODE_ROOT, .type = S_IFDIR, .nlink = 2 };
	for (int k = 0; k < NAMES; k++)
		m->nodes[0].children[k] = NONE;
	for (m->step = 0; m->step < steps; m->step++) {
		bool shrink = m->step / 150 % 2;

		switch (testfs_below(&m->random, 20)) {
		case 0 ... 4:
			(shrink ? do_remove : do_make)(m);
			break;
		case 5 ... 7:
			do_remove(m);
			break;
		case 8:
			do_link(m);
			break;
		case 9 ... 10:
			do_make(m);
			break;
		case 11 ... 15:
			do_rename(m);
			break;
		case 16:
			do_open(m);
			break;
		case 17:
			do_tmpfile(m);
			break;
		default:
			do_lookup(m);
		}
		if (m->step % 1000 == 999) {
			if (m->step % 3000 == 2999) {
				testfs_crash(&m->t);
				reopened(m);
			} else if (m->step % 3000 == 1999) {
				testfs_remount(&m->t);
				reopened(m);
			}
			compare(m);
		}
	}
	testfs_free(&m->t);
	free(m);
}

static void test_collisions(void **state)
{
	(void)state;
	run(&(struct testfs_opts){ .format = { .dir_hash_bits = 5 } }, 30000);
}

static void test_some_collisions(void **state)
{
	(void)state;
	run(&(struct testfs_opts){ .format = { .dir_hash_bits = 8 } }, 20000);
}

static void test_full_hash(void **state)
{
	(void)state;
	run(&(struct testfs_opts){ .fs = { .background = true } }, 20000);
}

static void test_groups(void **state)
{
	(void)state;
	run(&(struct testfs_opts){ .size_bytes = (uint64_t)128 << 20,
				   .format = { .ag_size_bytes = (uint64_t)16 << 20, .dir_hash_bits = 6 } },
	    20000);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_collisions),
		cmocka_unit_test(test_some_collisions),
		cmocka_unit_test(test_full_hash),
		cmocka_unit_test(test_groups),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
