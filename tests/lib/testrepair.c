/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Files of which a test knows the content, and a repair of the pool that they are on.
 */
#include "lib/testrepair.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "lib/testtree.h"
#include "media/node.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

#define FILES TESTREPAIR_FILES
#define PIECES 12u

static void piece(uint8_t *buf, unsigned file, unsigned i)
{
	memset(buf, (int)(file * 7 + i), BLOCK_SIZE);
	memcpy(buf, &file, sizeof(file));
}

static uint64_t content_hash(struct testrepair *e, uint64_t ino)
{
	static uint8_t buf[(2 * PIECES + 1) * BLOCK_SIZE];
	ssize_t n = fs_read(e->t.fs, ino, buf, sizeof(buf), 0), len;
	uint64_t hash;

	assert_true(n >= 0);
	hash = XXH3_64bits(buf, (size_t)n);
	len = fs_getxattr(e->t.fs, ino, "user.big", buf, sizeof(buf));
	return len > 0 ? hash ^ XXH3_64bits(buf, (size_t)len) : hash;
}

void testrepair_make(struct testrepair *e, uint64_t size_bytes, bool with_xattrs)
{
	testrepair_make_with(e, &(struct testfs_opts){ .size_bytes = size_bytes }, with_xattrs);
}

void testrepair_make_with(struct testrepair *e, const struct testfs_opts *opts, bool with_xattrs)
{
	static uint8_t value[60000];
	uint8_t buf[BLOCK_SIZE];
	struct inode_attr a;
	char name[32];

	memset(value, 3, sizeof(value));
	memset(e, 0, sizeof(*e));
	testfs_make(&e->t, opts);
	for (unsigned i = 0; i < FILES; i++) {
		snprintf(name, sizeof(name), "file%u", i);
		assert_int_equal(testfs_mknod(&e->t, INODE_ROOT, name, S_IFREG | 0600, &a), 0);
		e->inos[i] = a.ino;
		memcpy(value, &i, sizeof(i));
		if (with_xattrs)
			assert_int_equal(
				fs_setxattr(e->t.fs, a.ino, "user.big", value, sizeof(value), 0, false), 0);
	}
	/* In turns, with holes: many extents, all over the place. */
	for (unsigned k = 0; k < PIECES; k++) {
		for (unsigned i = 0; i < FILES; i++) {
			piece(buf, i, k);
			assert_int_equal(fs_write(e->t.fs, &testfs_root, e->inos[i], buf, sizeof(buf),
						  2 * k * BLOCK_SIZE, 0),
					 sizeof(buf));
		}
	}
	for (unsigned i = 0; i < 20; i++)
		assert_int_equal(fs_clone(e->t.fs, &testfs_root, e->inos[i], 0, e->inos[FILES - 1 - i], 0,
					  4 * BLOCK_SIZE, 0, NULL),
				 4 * BLOCK_SIZE);
	for (unsigned i = 100; i < 120; i++) {
		snprintf(name, sizeof(name), "file%u", i);
		assert_int_equal(testfs_unlink(&e->t, INODE_ROOT, name), 0);
		fs_forget(e->t.fs, e->inos[i], 1);
		e->inos[i] = 0;
	}
	fs_work(e->t.fs);
	for (unsigned i = 0; i < FILES; i++)
		e->hashes[i] = e->inos[i] ? content_hash(e, e->inos[i]) : 0;
	testfs_check(&e->t);
}

static void told(void *arg, enum repair_act act, const char *text)
{
	unsigned *acts = arg;

	acts[act]++;
	print_message("# %s: %s\n",
		      act == REPAIR_MENDED ? "mended" :
		      act == REPAIR_LOST   ? "lost" :
					     "left",
		      text);
}

static void found(void *arg, enum check_kind kind, const char *text)
{
	(void)arg;
	print_message("# %s: %s\n", check_kind_name(kind), text);
}

/* The damage is done; repairs what is there, twice, and opens it again. */
void testrepair_mend(struct testrepair *e, unsigned lost_max)
{
	unsigned acts[REPAIR_ACTS] = { 0 };
	struct repair_opts opts = { .told = told, .arg = acts, .force = true };
	struct testfs_opts fs_opts = e->t.opts;
	struct repair_report report;
	struct dax *dax = e->t.dax;
	char why[256];
	int rc;

	rc = repair_pool(dax, &opts, &report, why, sizeof(why));
	if (rc)
		print_message("# %s\n", why);
	assert_int_equal(rc, 0);
	assert_true(report.before.findings + acts[REPAIR_MENDED] + acts[REPAIR_LOST] != 0);
	if (report.after.findings) {
		opts.found = found;
		opts.limit = 5;
		(void)!repair_pool(dax, &opts, &report, why, sizeof(why));
		fail_msg("findings are left");
	}
	assert_true(acts[REPAIR_LOST] <= lost_max);
	assert_int_equal(acts[REPAIR_LEFT], 0);
	assert_int_equal(repair_pool(dax, &opts, &report, why, sizeof(why)), 0);
	assert_int_equal(report.before.findings, 0);
	assert_false(report.changed);
	testfs_open_image(&e->t, dax_ptr(dax, 0), &fs_opts);
	dax_close(dax);
}

void testrepair_verify(struct testrepair *e)
{
	struct inode_attr a;

	for (unsigned i = 0; i < FILES; i++) {
		char name[32];

		snprintf(name, sizeof(name), "file%u", i);
		assert_int_equal(testfs_lookup(&e->t, INODE_ROOT, name, &a), e->inos[i] ? 0 : -ENOENT);
		if (e->inos[i]) {
			assert_int_equal(a.ino, e->inos[i]);
			if (e->hashes[i])
				assert_int_equal(content_hash(e, a.ino), e->hashes[i]);
			fs_forget(e->t.fs, a.ino, 1);
		}
	}
	/* It works: space and numbers are handed out. */
	for (unsigned i = 0; i < 100; i++) {
		uint8_t buf[BLOCK_SIZE] = { 1 };
		char name[32];

		snprintf(name, sizeof(name), "new%u", i);
		assert_int_equal(testfs_mknod(&e->t, INODE_ROOT, name, S_IFREG | 0600, &a), 0);
		assert_int_equal(fs_write(e->t.fs, &testfs_root, a.ino, buf, sizeof(buf), 0, 0), sizeof(buf));
		fs_forget(e->t.fs, a.ino, 1);
	}
	for (unsigned i = 0; i < FILES; i++) {
		if (e->inos[i] && e->hashes[i])
			assert_int_equal(content_hash(e, e->inos[i]), e->hashes[i]);
	}
	testfs_check(&e->t);
}

/* Nodes of a tree of a group, in order; level 0 only, or all. */
static size_t nodes_of(struct testrepair *e, const struct m_node_body *body, bool leaves, uint64_t *laddrs)
{
	const struct node_ops *ops = node_ops(body->nb_kind);
	size_t n = 0;

	for (unsigned i = 0; node_level(body) > 0 && i < node_count(body); i++) {
		const le64 *w = (const le64 *)(const void *)body->nb_space +
				(size_t)i * (ops->key_words + 1u + ops->is_range);
		uint64_t child = le64_get(w[ops->key_words]);
		_Alignas(64) struct m_node node;

		if (!leaves || node_level(body) == 1)
			laddrs[n++] = child;
		testunit_load(&e->t, child, &node, sizeof(node));
		n += nodes_of(e, (const void *)node.nd_body, leaves, laddrs + n);
	}
	return n;
}

size_t testrepair_nodes(struct testrepair *e, uint32_t agno, enum ag_tree which, bool leaves,
			uint64_t *laddrs)
{
	_Alignas(64) struct m_ag m;

	testunit_load(&e->t, pool_ag_unit(e->t.pool, agno, AG_UNIT_HEADER), &m, sizeof(m));
	return nodes_of(e, (const void *)m.ag_roots[which], leaves, laddrs);
}
