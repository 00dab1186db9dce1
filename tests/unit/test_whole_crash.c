/* SPDX-License-Identifier: BSD-3-Clause */
/* Power loss while 2 MiB of a file become one chunk: each file holds what it held, whatever has moved. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "crash/cut.h"
#include "fs/holders.h"
#include "lib/testfs.h"

#define BYTES ((uint64_t)96 << 20)
#define SIZE ((uint64_t)900 * BLOCK_SIZE / 2 - 77)
#define FILES 2u

static uint8_t want[SIZE];
static uint64_t inos[FILES];
static unsigned images;

static void content_is(struct testfs *u, uint64_t ino)
{
	static uint8_t seen[SIZE + 1];

	assert_int_equal(testfs_attr(u, ino).size, SIZE);
	assert_int_equal(fs_read(u->fs, ino, seen, sizeof(seen), 0), SIZE);
	assert_memory_equal(seen, want, SIZE);
}

static void image_check(void *arg, const uint8_t *image)
{
	const struct testfs_opts opts = { .size_bytes = BYTES };
	struct testfs u;

	(void)arg;
	testfs_open_image(&u, image, &opts);
	for (unsigned i = 0; i < FILES; i++)
		content_is(&u, inos[i]);
	testfs_check(&u);
	testfs_free(&u);
	images++;
}

/* A file in many pieces, with holes, unwritten blocks and, of another file, shared ones. */
static void files_make(struct testfs *t)
{
	uint64_t other = testfs_node(t, INODE_ROOT, "other", S_IFREG | 0644);

	inos[0] = testfs_node(t, INODE_ROOT, "file", S_IFREG | 0644);
	inos[1] = testfs_node(t, INODE_ROOT, "clone", S_IFREG | 0644);
	memset(want, 0, sizeof(want));
	for (uint64_t off = 0, i = 0; off < SIZE; off += 5 * BLOCK_SIZE, i++) {
		uint64_t len = u64_min(5 * BLOCK_SIZE, SIZE - off);

		if (i % 7 == 3)
			continue;
		if (i % 7 == 5) {
			assert_int_equal(fs_fallocate(t->fs, &testfs_root, inos[0], 0, off, len), 0);
			continue;
		}
		memset(want + off, (int)(i % 255) + 1, len);
		assert_int_equal(fs_write(t->fs, &testfs_root, inos[0], want + off, len, off, 0), len);
		assert_int_equal(fs_write(t->fs, &testfs_root, other, want + off, 1, off, 0), 1);
	}
	assert_int_equal(fs_clone(t->fs, &testfs_root, inos[0], 0, inos[1], 0, SIZE, 0, NULL), SIZE);
	assert_int_equal(fs_write(t->fs, &testfs_root, inos[0], want, 70000, 0, 0), 70000);
	for (unsigned i = 0; i < FILES; i++)
		content_is(t, inos[i]);
}

static void test_cut(void **state)
{
	const struct testfs_opts opts = { .size_bytes = BYTES, .trace = &cut_trace };
	struct testfs t;
	struct cut cut;

	(void)state;
	testfs_make(&t, &opts);
	files_make(&t);
	cut_begin(&cut, dax_ptr(t.dax, 0), BYTES, CUT_NO_PAGE);
	assert_int_equal(fs_make_whole(t.fs, &testfs_root, inos[0], 0, true), 0);
	cut_end();
	for (unsigned i = 0; i < FILES; i++)
		content_is(&t, inos[i]);
	cut_images(&cut, image_check, NULL);
	print_message("# %u images\n", images);
	assert_true(images > 20);
	testfs_check(&t);
	testfs_free(&t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_cut),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
