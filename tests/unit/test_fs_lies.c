/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The file system on media that lie: units with wrong content and a good CRC. It may refuse, or give wrong answers, but it
 * goes on; asserts are not for the media. UMBRA_SEED replays a run.
 */
#include <errno.h>
#include <linux/falloc.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "fs/owners.h"
#include "lib/testunit.h"
#include "media/ag.h"
#include "txn/txn.h"

#define POOL_BYTES ((uint64_t)16 << 20)
#define FILE_BYTES ((uint64_t)1 << 20)
#define ROUNDS 150
#define UNITS 80u         /* of slot 0: all that is in use */
#define ROUND_LIMIT_S 60u /* an operation that never ends is killed */
#define FILES 3u
#define NAMES 40u

static uint8_t bytes[FILE_BYTES];

/* A sound pool with files of some kinds, and where its units are. */
struct base {
	struct testfs t;
	uint64_t inos[FILES]; /* a file, a clone of its first half, a directory */
	uint8_t *image;
};

static void base_make(struct base *b)
{
	struct testfs_opts opts = { .size_bytes = POOL_BYTES };
	static const char *const names[FILES] = { "file", "clone", "dir" };
	struct inode_attr attr;
	char name[200];

	testfs_make(&b->t, &opts);
	for (unsigned i = 0; i < FILES; i++) {
		assert_int_equal(testfs_mknod(&b->t, INODE_ROOT, names[i],
					      i == 2 ? S_IFDIR | 0755 : S_IFREG | 0644, &attr),
				 0);
		b->inos[i] = attr.ino;
	}
	assert_int_equal(fs_write(b->t.fs, &testfs_root, b->inos[0], bytes, FILE_BYTES, 0, 0), FILE_BYTES);
	assert_int_equal(fs_clone(b->t.fs, &testfs_root, b->inos[0], 0, b->inos[1], 0, FILE_BYTES / 2, 0,
				  NULL),
			 FILE_BYTES / 2);
	for (unsigned i = 0; i < 40; i++)
		assert_int_equal(fs_write(b->t.fs, &testfs_root, b->inos[1], bytes, 100, i * 10000, 0), 100);
	assert_int_equal(fs_symlink(b->t.fs, &testfs_root, INODE_ROOT, "link", 4, "file", 4, &attr), 0);
	assert_int_equal(fs_setxattr(b->t.fs, b->inos[0], "user.big", bytes, 10000, 0, false), 0);
	memset(name, 'n', sizeof(name));
	for (unsigned i = 0; i < NAMES; i++) {
		snprintf(name + 150, sizeof(name) - 150, "%u", i);
		assert_int_equal(testfs_mknod(&b->t, b->inos[2], name, S_IFREG | 0600, NULL), 0);
	}
	testfs_remount(&b->t);
	b->image = malloc(POOL_BYTES);
	assert_non_null(b->image);
}

static uint64_t lie(uint64_t *random)
{
	static const uint64_t numbers[] = { 0,          1,          2,          511,        512,       4096,
					    1ull << 20, 1ull << 31, 1ull << 55, 1ull << 63, UINT64_MAX };

	switch (testfs_below(random, 4)) {
	case 0:
		return numbers[testfs_below(random, ARRAY_SIZE(numbers))];
	case 1:
		return testfs_below(random, UNITS) * BLOCK_SIZE;
	case 2:
		return testfs_below(random, POOL_BYTES / BLOCK_SIZE);
	default:
		return testfs_random(random);
	}
}

/* One unit of the image says something else, in both copies. */
static void image_lies(struct base *b, uint64_t *random)
{
	_Alignas(64) uint8_t unit[BLOCK_SIZE];
	uint64_t laddr, off;
	size_t size;

	memcpy(b->image, dax_ptr(b->t.dax, 0), POOL_BYTES);
	do {
		laddr = testfs_below(random, UNITS) * BLOCK_SIZE;
		size = BLOCK_SIZE;
		if (laddr < AG_UNIT_HEADER * BLOCK_SIZE) {
			laddr = (1 + testfs_below(random, 12)) << INODE_SHIFT;
			size = INODE_SIZE;
		}
		testunit_load(&b->t, laddr, unit, size);
	} while (unit_size(unit_magic(unit)) != size);
	for (uint64_t i = 1 + testfs_below(random, 3); i > 0; i--) {
		size_t width = (size_t)1 << testfs_below(random, 4);
		size_t room = testfs_below(random, 2) ? size : 512;
		size_t at = 40 + testfs_below(random, (room - 48) / width) * width;
		uint64_t value = lie(random);

		if (at < sizeof(struct m_unit_hdr))
			at += 8;
		memcpy(unit + (at < size - width ? at : size - width), &value, width);
	}
	unit_seal(unit, size, 5);
	for (unsigned copy = 0; copy < 2; copy++) {
		assert_int_equal(pool_place(b->t.pool, laddr, copy, &off), 0);
		memcpy(b->image + off, unit, size);
	}
}

static int see_entry(void *arg, const struct fs_dirent *entry)
{
	unsigned *left = arg;

	(void)entry;
	return --*left == 0;
}

/* What comes back does not matter: it has to come back. */
#define TRY(call) (void)!(call)

static void use_names(struct fs *fs, const uint64_t inos[FILES], uint64_t *random)
{
	struct inode_attr attr;
	char path[4096], name[16];
	unsigned left = 1000;

	TRY(fs_readdir(fs, INODE_ROOT, 0, false, see_entry, &left));
	left = 1000;
	TRY(fs_readdir(fs, inos[2], 0, false, see_entry, &left));
	for (unsigned i = 0; i < FILES; i++) {
		TRY(fs_getattr(fs, inos[i], &attr));
		TRY(fs_path(fs, inos[i], path, sizeof(path)));
	}
	if (fs_lookup(fs, INODE_ROOT, "link", 4, &attr) == 0) {
		TRY(fs_readlink(fs, attr.ino, path));
		fs_forget(fs, attr.ino, 1);
	}
	for (unsigned i = 0; i < 8; i++) {
		uint64_t dir = i % 2 ? INODE_ROOT : inos[2];
		int len = snprintf(name, sizeof(name), "new%u", i);

		if (fs_mknod(fs, &testfs_root, dir, name, (size_t)len, S_IFREG | 0600, 0, &attr) == 0)
			fs_forget(fs, attr.ino, 1);
	}
	TRY(fs_rename(fs, &testfs_root, INODE_ROOT, "new1", 4, inos[2], "new0", 4, 0));
	TRY(fs_unlink(fs, inos[2], "new2", 4));
	TRY(fs_link(fs, inos[0], inos[2], "hard", 4, &attr));
	if (testfs_below(random, 2))
		TRY(fs_unlink(fs, INODE_ROOT, "link", 4));
	else
		TRY(fs_unlink(fs, INODE_ROOT, "clone", 5));
}

static void use_data(struct fs *fs, const uint64_t inos[FILES], uint64_t *random)
{
	static const int modes[] = { 0,
				     FALLOC_FL_KEEP_SIZE,
				     FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
				     FALLOC_FL_COLLAPSE_RANGE,
				     FALLOC_FL_INSERT_RANGE,
				     FALLOC_FL_ZERO_RANGE };
	static uint8_t buf[FILE_BYTES];
	struct fs_extent extents[100];
	uint64_t at = 0;
	bool same;

	for (unsigned i = 0; i < 2; i++) {
		TRY(fs_read(fs, inos[i], buf, sizeof(buf), 0));
		TRY(fs_map(fs, inos[i], 0, extents, ARRAY_SIZE(extents)));
		TRY(fs_seek(fs, inos[i], 0, SEEK_HOLE, &at));
	}
	TRY(fs_dedupe(fs, inos[0], 0, inos[1], 0, 4 * BLOCK_SIZE, &same));
	for (unsigned i = 0; i < 20; i++) {
		uint64_t ino = inos[testfs_below(random, 2)], off = testfs_below(random, FILE_BYTES);
		uint64_t len = 1 + testfs_below(random, 100000);

		TRY(fs_write(fs, &testfs_root, ino, bytes, len, off, 0));
		off = u64_align_down(off, BLOCK_SIZE);
		TRY(fs_fallocate(fs, &testfs_root, ino, modes[testfs_below(random, ARRAY_SIZE(modes))], off,
				 u64_align_up(len, BLOCK_SIZE)));
		TRY(fs_clone(fs, &testfs_root, inos[i % 2], off, inos[1 - i % 2], 0, len, 0, NULL));
	}
	TRY(fs_setattr(fs, &testfs_root, inos[0], &(struct fs_set){ .what = FS_SET_SIZE, .size = 5000 },
		       &(struct inode_attr){ 0 }));
}

static void use_rest(struct fs *fs, const uint64_t inos[FILES])
{
	static uint8_t value[FS_XATTR_VALUE_MAX];
	struct fs_owners_pos pos = { 0 };
	struct fs_owner owners[50];
	struct fs_statfs st;
	char list[4096];
	unsigned count;

	TRY(fs_getxattr(fs, inos[0], "user.big", value, sizeof(value)));
	TRY(fs_listxattr(fs, inos[0], list, sizeof(list)));
	TRY(fs_setxattr(fs, inos[0], "user.big", bytes, 5000, 0, false));
	TRY(fs_setxattr(fs, inos[1], "user.small", bytes, 50, 0, false));
	TRY(fs_removexattr(fs, inos[0], "user.big"));
	TRY(fs_owners(fs, 0, POOL_BYTES, &pos, owners, ARRAY_SIZE(owners), &count));
	TRY(fs_statfs(fs, &st));
	TRY(fs_unlink(fs, INODE_ROOT, "file", 4));
	fs_work(fs);
}

static bool image_use(const uint8_t *image, const uint64_t inos[FILES], uint64_t *random)
{
	char why[256] = "";
	struct pool *pool;
	struct dax *dax;
	struct fs *fs;
	bool opened = false;

	assert_int_equal(dax_open_ram(POOL_BYTES, image, NULL, &dax), 0);
	if (pool_open(dax, &(struct pool_opts){ 0 }, &pool, why, sizeof(why)) == 0) {
		if (fs_open(pool, &(struct fs_opts){ 0 }, &fs) == 0) {
			opened = true;
			use_names(fs, inos, random);
			use_data(fs, inos, random);
			use_rest(fs, inos);
			fs_close(fs);
		}
		pool_close(pool, true);
	}
	dax_close(dax);
	return opened;
}

static void test_lies_are_survived(void **state)
{
	const char *text = getenv("UMBRA_SEED");
	uint64_t seed = testfs_seed();
	unsigned opened = 0;
	struct base b;

	(void)state;
	base_make(&b);
	for (unsigned i = 0; i < ROUNDS; i++) {
		uint64_t random = seed + (text ? 0 : i);

		/* Seen last if the program dies. */
		print_message("# UMBRA_SEED=%llu\n", (unsigned long long)random);
		alarm(ROUND_LIMIT_S);
		image_lies(&b, &random);
		opened += image_use(b.image, b.inos, &random);
		alarm(0);
		if (text)
			break;
	}
	assert_true(text || opened > ROUNDS / 2);
	free(b.image);
	testfs_free(&b.t);
}

/* A group that cannot be loaded: who asks for its units hears so, again and again, and does not wait for itself. */
static void test_lost_chunk_table_is_refused(void **state)
{
	const struct testfs_opts opts = { .size_bytes = 2 * POOL_BYTES,
					  .format = { .ag_size_bytes = POOL_BYTES } };
	const struct pool_opts pool_opts = { .readonly = true };
	char why[256];
	const void *unit;
	struct testfs t;
	struct pool *pool;
	struct txn *tx;

	(void)state;
	testfs_make(&t, &opts);
	testunit_junk(&t, pool_ag_unit(t.pool, 1, AG_UNIT_TABLE), TESTUNIT_BOTH);
	assert_int_equal(pool_open(t.dax, &pool_opts, &pool, why, sizeof(why)), 0);
	alarm(ROUND_LIMIT_S);
	tx = txn_begin(pool, TXN_READ);
	for (unsigned i = 0; i < 2; i++)
		assert_int_equal(txn_get(tx, POOL_BYTES + CHUNK_SIZE, MAGIC_NODE, &unit), -EUCLEAN);
	txn_abort(tx);
	alarm(0);
	pool_close(pool, false);
	testfs_free(&t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_lies_are_survived),
		cmocka_unit_test(test_lost_chunk_table_is_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
