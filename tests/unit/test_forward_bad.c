/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Shared blocks on their way out of a range when power is lost, and before the next mount memory goes bad that they were copied to, or from: the other copies are
 * good, so nothing is lost, whoever had been switched already, and what is bad is out of use in the end. Power may be lost again while that is put right.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "crash/cut.h"
#include "fs/core.h"
#include "fs/owners.h"
#include "lib/testfs.h"
#include "lib/testlist.h"
#include "lib/testpoison.h"

#define MIB ((uint64_t)1 << 20)
#define POOL_BYTES (24 * MIB)
#define FILE_BLOCKS 9u
#define OWNERS 46u
#define TARGETS_MAX 64u

static uint8_t bytes[FILE_BLOCKS * BLOCK_SIZE];
static struct testfs t;

struct crash {
	char *want;
	uint64_t off, len;
	bool mark_bad;
	bool source;      /* what they are copied from goes bad */
	uint64_t bad_blk; /* of the second crash: what is bad already */
	unsigned images, taken_back, again;
};

/* ---- a mount of an image in which memory is bad ---- */

/* Places that others are on their way to, or from; by the rmap, without a mount that would go on with it. */
static unsigned targets_find(const uint8_t *image, bool source, uint64_t blks[TARGETS_MAX])
{
	const struct testfs_opts opts = { .size_bytes = POOL_BYTES, .fs.readonly = true };
	struct fs_owners_pos pos = { 0 };
	unsigned found_count = 0, count;
	struct fs_owner o;
	struct testfs u;

	testfs_open_image(&u, image, &opts);
	do {
		assert_int_equal(fs_owners(u.fs, 0, POOL_BYTES, &pos, &o, 1, &count), 0);
		for (uint64_t off = 0; count == 1 && o.owner == OWNER_FORWARD && off < o.len;
		     off += BLOCK_SIZE)
			if (found_count < TARGETS_MAX)
				blks[found_count++] =
					(source ? o.file_off : o.dev_off / BLOCK_SIZE) + off / BLOCK_SIZE;
		pos = o.after;
	} while (count == 1);
	testfs_free(&u);
	return found_count;
}

/* As testfs_open_image(), but the block is bad from the first moment on. */
static struct testpoison *open_bad(struct testfs *u, const uint8_t *image, const struct dax_trace *trace,
				   uint64_t blk)
{
	const struct pool_opts opts = { 0 };
	struct testpoison *poison;
	char why[256];

	*u = (struct testfs){ .opts.size_bytes = POOL_BYTES };
	assert_int_equal(dax_open_ram(POOL_BYTES, image, trace, &u->dax), 0);
	poison = testpoison_open(u->dax);
	assert_non_null(poison);
	testpoison_page(poison, blk * BLOCK_SIZE);
	assert_int_equal(pool_open(u->dax, &opts, &u->pool, why, sizeof(why)), 0);
	assert_int_equal(fs_open(u->pool, &u->opts.fs, &u->fs), 0);
	return poison;
}

static uint64_t bytes_of(struct testfs *u, uint64_t off, uint64_t len, uint64_t owner)
{
	struct fs_owners_pos pos = { 0 };
	uint64_t sum = 0;
	struct fs_owner o;
	unsigned count;

	while (fs_owners(u->fs, off, len, &pos, &o, 1, &count) == 0 && count == 1) {
		sum += o.owner == owner ? o.len : 0;
		pos = o.after;
	}
	return sum;
}

static void mount_check(struct crash *c, struct testfs *u, uint64_t blk)
{
	struct fs_evacuation e = { .dev_off = c->off, .len = c->len, .mark_bad = c->mark_bad };
	uint64_t all = POOL_BYTES;
	int rc;
	char *got;

	got = testlist_make(u);
	if (testlist_diff(c->want, got, true) != 0)
		fail_msg("block %llu: content", (unsigned long long)blk);
	free(got);
	/* Out of use, and nobody is on his way any more. */
	assert_int_equal(bytes_of(u, blk * BLOCK_SIZE, BLOCK_SIZE, OWNER_BAD), BLOCK_SIZE);
	assert_int_equal(bytes_of(u, 0, all, OWNER_FORWARD), 0);
	if (!c->mark_bad)
		assert_int_equal(bytes_of(u, 0, all, OWNER_BAD), BLOCK_SIZE);
	testfs_check(u);
	/* The same again comes to its end. */
	assert_int_equal(fs_evacuate(u->fs, &e), 0);
	do {
		rc = fs_evacuate_step(u->fs, e.id, MIB, &e);
	} while (rc == 1);
	assert_int_equal(rc, 0);
	assert_int_equal(e.left_bytes, 0);
	got = testlist_make(u);
	assert_int_equal(testlist_diff(c->want, got, true), 0);
	free(got);
	testfs_check(u);
}

/* The mount that has taken blocks back, or was about to, was cut short. */
static void again_check(void *arg, const uint8_t *image)
{
	struct crash *c = arg;
	struct testpoison *poison;
	struct testfs u;

	if (c->again++ % 8)
		return;
	testfs_check_image(image, POOL_BYTES);
	poison = open_bad(&u, image, NULL, c->bad_blk);
	mount_check(c, &u, c->bad_blk);
	testpoison_close(poison);
	testfs_free(&u);
}

static void image_check(void *arg, const uint8_t *image)
{
	uint64_t blks[TARGETS_MAX], blk;
	struct crash *c = arg;
	struct testpoison *poison;
	unsigned count = targets_find(image, c->source, blks);
	struct testfs u;
	struct cut cut;

	c->images++;
	if (count == 0)
		return;
	/* The first, the last, any. */
	blk = blks[c->images % 3 == 0 ? 0 : c->images % 3 == 1 ? count - 1 : c->images % count];
	c->taken_back++;
	poison = open_bad(&u, image, NULL, blk);
	mount_check(c, &u, blk);
	testpoison_close(poison);
	testfs_free(&u);
	if (c->images % 16 != 1)
		return;
	c->bad_blk = blk;
	cut_begin(&cut, image, POOL_BYTES, blk * BLOCK_SIZE);
	poison = open_bad(&u, image, &cut_trace, blk);
	cut_end();
	testpoison_close(poison);
	testfs_free(&u);
	cut_images(&cut, again_check, c);
}

/* ---- what is cut short first ---- */

static void files_make(void)
{
	struct inode_attr attr;
	struct fs_clone_item items[OWNERS - 1];
	char names[OWNERS - 1][12];
	unsigned done;
	uint64_t ino = testfs_node(&t, INODE_ROOT, "shared", S_IFREG | 0644);
	uint64_t dir = testfs_node(&t, INODE_ROOT, "d", S_IFDIR | 0755);

	for (size_t i = 0; i < sizeof(bytes); i++)
		bytes[i] = (uint8_t)(i * 31 + i / 251 + 1);
	assert_int_equal(fs_write(t.fs, &testfs_root, ino, bytes, sizeof(bytes), 0, 0), sizeof(bytes));
	for (unsigned i = 0; i < OWNERS - 1; i++) {
		snprintf(names[i], sizeof(names[i]), "c%u", i);
		items[i] = (struct fs_clone_item){ .src = ino, .name = names[i] };
		items[i].name_len = strlen(names[i]);
	}
	assert_int_equal(fs_clone_files(t.fs, &testfs_root, dir, items, OWNERS - 1, &done), 0);
	for (unsigned i = 0; i < OWNERS - 1; i++) {
		assert_int_equal(testfs_lookup(&t, dir, names[i], &attr), 0);
		fs_forget(t.fs, attr.ino, 1);
	}
}

static void forward_bad(bool mark_bad, bool source)
{
	const struct testfs_opts opts = { .size_bytes = POOL_BYTES, .trace = &cut_trace };
	struct crash c = { .mark_bad = mark_bad, .source = source };
	struct testpoison *poison;
	struct fs_evacuation e;
	struct inode_attr attr;
	struct fs_extent x;
	struct cut cut;
	int rc;

	testfs_make(&t, &opts);
	poison = testpoison_open(t.dax);
	if (!poison) {
		testfs_free(&t);
		skip();
	}
	testpoison_close(poison);
	files_make();
	assert_int_equal(testfs_lookup(&t, INODE_ROOT, "shared", &attr), 0);
	fs_forget(t.fs, attr.ino, 1);
	assert_int_equal(fs_map(t.fs, attr.ino, 0, &x, 1), 1);
	assert_int_equal(x.len, sizeof(bytes));
	c.off = x.dev_off;
	c.len = x.len;
	fs_work(t.fs);
	c.want = testlist_make(&t);
	e = (struct fs_evacuation){ .dev_off = c.off, .len = c.len, .mark_bad = mark_bad };
	cut_begin(&cut, dax_ptr(t.dax, 0), POOL_BYTES, CUT_NO_PAGE);
	assert_int_equal(fs_evacuate(t.fs, &e), 0);
	do {
		rc = fs_evacuate_step(t.fs, e.id, MIB, &e);
	} while (rc == 1);
	assert_int_equal(rc, 0);
	cut_end();
	cut_images(&cut, image_check, &c);
	print_message("# %u images, in %u a block was bad; %u of mounts that saw to it\n", c.images,
		      c.taken_back, c.again);
	assert_true(c.taken_back > 8 && c.again > 8);
	free(c.want);
	testfs_free(&t);
}

static void test_good(void **state)
{
	(void)state;
	forward_bad(false, false);
}

static void test_marked(void **state)
{
	(void)state;
	forward_bad(true, false);
}

static void test_source(void **state)
{
	(void)state;
	forward_bad(false, true);
}

static void test_source_marked(void **state)
{
	(void)state;
	forward_bad(true, true);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_good),
		cmocka_unit_test(test_marked),
		cmocka_unit_test(test_source),
		cmocka_unit_test(test_source_marked),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
