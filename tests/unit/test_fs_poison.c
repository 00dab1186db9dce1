/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Bad memory under metadata that is in use: each page of it in turn, of the primary, of the mirror, of both. With one copy left
 * nothing fails; with none what needs it gets an error. Nobody dies, and no lock stays held.
 */
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

#include "lib/testlist.h"
#include "lib/testpoison.h"
#include "media/ag.h"
#include "repair/check.h"
#include "unit/repair_scene.h"

/* Everything is read once for so many bad pages. */
#if defined(__SANITIZE_ADDRESS__)
#define READ_EACH 5
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define READ_EACH 5
#endif
#endif
#ifndef READ_EACH
#define READ_EACH 1
#endif

static struct scene scene;
static struct testfs t;
static struct testpoison *poison;

/* In the test itself: cmocka sets a handler of its own for SIGBUS before each part. */
static void begin(void)
{
	const struct testfs_opts opts = { .size_bytes = SCENE_BYTES };

	scene_make(&scene, false);
	testfs_open_image(&t, scene.image, &opts);
	poison = testpoison_open(t.dax);
	if (poison)
		return;
	testfs_free(&t);
	scene_free(&scene);
	skip();
}

static void end(void)
{
	struct check_opts opts = { .heal = true };
	struct check_report report;

	testpoison_close(poison);
	/* Copies that could not be written are behind until somebody touches the unit. */
	assert_int_equal(check_pool(t.pool, &opts, &report), 0);
	assert_null(pool_failed(t.pool));
	testfs_check(&t);
	testfs_free(&t);
	scene_free(&scene);
}

/* Some of everything; the first error. */
static int changes_make(void)
{
	static const char bytes[20000] = "some";
	struct fs *fs = t.fs;
	struct inode_attr dir, file, twin;
	int64_t n = 0;
	int rc;

	rc = fs_mknod(fs, &testfs_root, INODE_ROOT, "d", 1, S_IFDIR | 0755, 0, &dir);
	if (rc)
		return rc;
	rc = fs_mknod(fs, &testfs_root, dir.ino, "f", 1, S_IFREG | 0644, 0, &file);
	if (!rc) {
		n = fs_write(fs, &testfs_root, file.ino, bytes, sizeof(bytes), 3000, 0);
		rc = n < 0 ? (int)n : fs_setxattr(fs, file.ino, "user.x", bytes, 3000, 0, false);
	}
	if (!rc)
		rc = fs_mknod(fs, &testfs_root, INODE_ROOT, "twin", 4, S_IFREG | 0644, 0, &twin);
	if (!rc) {
		n = fs_clone(fs, &testfs_root, file.ino, 0, twin.ino, 0, 23000, 0, NULL);
		rc = n < 0 ? (int)n : fs_rename(fs, &testfs_root, INODE_ROOT, "twin", 4, dir.ino, "f", 1, 0);
		fs_forget(fs, twin.ino, 1);
	}
	fs_forget(fs, file.ino, 1);
	fs_forget(fs, dir.ino, 1);
	return rc;
}

static int changes_undo(void)
{
	uint64_t dir;
	struct inode_attr attr;
	int rc = testfs_lookup(&t, INODE_ROOT, "d", &attr);

	if (rc)
		return rc;
	dir = attr.ino;
	fs_forget(t.fs, dir, 1);
	rc = testfs_unlink(&t, dir, "f");
	return rc ? rc : testfs_rmdir(&t, INODE_ROOT, "d");
}

static void compare(const char *want, const char *when, const struct scene_unit *u)
{
	char *got = testlist_make(&t);

	if (testlist_diff(want, got, true) != 0)
		fail_msg("%s, bad: %s", when, u ? u->name : "all");
	free(got);
}

static void one_copy(unsigned copy)
{
	char *want;

	begin();
	want = testlist_make(&t);
	for (const struct scene_unit *u = scene.units; u < scene.units + scene.unit_count; u++) {
		testpoison_page(poison, u64_align_down(u->off[copy], BLOCK_SIZE));
		if ((u - scene.units) % READ_EACH == 0)
			compare(want, "reading", u);
		assert_int_equal(changes_make(), 0);
		assert_int_equal(changes_undo(), 0);
		testpoison_heal_all(poison);
	}
	compare(want, "healed", NULL);
	free(want);
	assert_int_equal(pool_stats(t.pool)->bad_reads > 0, copy == 0);
	end();
}

static void test_primary(void **state)
{
	(void)state;
	one_copy(0);
}

static void test_mirror(void **state)
{
	(void)state;
	one_copy(1);
}

/* Where nothing is left, what needs it fails and all else goes on; nothing is written over what can come back. */
static void test_both(void **state)
{
	char *want, *got;
	unsigned differ = 0;

	(void)state;
	begin();
	want = testlist_make(&t);
	for (const struct scene_unit *u = scene.units; u < scene.units + scene.unit_count; u += READ_EACH) {
		testpoison_page(poison, u64_align_down(u->off[0], BLOCK_SIZE));
		testpoison_page(poison, u64_align_down(u->off[1], BLOCK_SIZE));
		got = testlist_make(&t);
		differ += strcmp(got, want) != 0;
		free(got);
		testpoison_heal_all(poison);
	}
	compare(want, "healed", NULL);
	assert_true(differ > scene.unit_count / READ_EACH / 4);
	free(want);
	end();
}

/* All primaries at once. */
static void test_storm(void **state)
{
	char *want;

	(void)state;
	begin();
	want = testlist_make(&t);
	for (const struct scene_unit *u = scene.units; u < scene.units + scene.unit_count; u++)
		testpoison_page(poison, u64_align_down(u->off[0], BLOCK_SIZE));
	compare(want, "reading", NULL);
	assert_int_equal(changes_make(), 0);
	assert_int_equal(changes_undo(), 0);
	compare(want, "after changes", NULL);
	testpoison_heal_all(poison);
	compare(want, "healed", NULL);
	free(want);
	end();
}

/* Units that nobody has read when they are written, nor afterwards. */
static void test_new_units(void **state)
{
	static const char value[3000] = "some";
	uint64_t first, ino;
	unsigned bad = 0;

	(void)state;
	testfs_make(&t, NULL);
	poison = testpoison_open(t.dax);
	if (!poison) {
		testfs_free(&t);
		skip();
	}
	assert_int_equal(pool_place(t.pool, pool_ag_unit(t.pool, 0, 0), 0, &first), 0);
	for (uint64_t off = first; off < first + CHUNK_SIZE; off += BLOCK_SIZE) {
		static const uint8_t zero[BLOCK_SIZE];

		if (memcmp(dax_ptr(t.dax, off), zero, BLOCK_SIZE) != 0)
			continue;
		testpoison_page(poison, off);
		bad++;
	}
	assert_true(bad > CHUNK_BLOCKS / 4);
	ino = testfs_node(&t, INODE_ROOT, "d", S_IFREG | 0644);
	for (unsigned i = 0; i < 8; i++) {
		const char name[] = { 'u', 's', 'e', 'r', '.', (char)('a' + i), '\0' };

		assert_int_equal(fs_setxattr(t.fs, ino, name, value, sizeof(value), 0, false), 0);
	}
	testfs_remount(&t);
	testfs_check(&t);
	testpoison_close(poison);
	testfs_free(&t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_primary), cmocka_unit_test(test_mirror),    cmocka_unit_test(test_both),
		cmocka_unit_test(test_storm),   cmocka_unit_test(test_new_units),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
