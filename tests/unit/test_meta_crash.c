/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Power loss at every fence of a unit's way out of bad memory: each image mounts with the memory as bad as before, shows the same files, and can go
 * on. Where the new place counts already, it alone is enough.
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

#include "crash/cut.h"
#include "fs/poison.h"
#include "lib/testlist.h"
#include "lib/testpoison.h"
#include "lib/testunit.h"
#include "media/ag.h"
#include "repair/check.h"

#define POOL_BYTES ((uint64_t)16 << 20)
#define FILES 30u

static struct testfs t;
static char *want;
static uint64_t bad_off; /* of the page that takes no stores */

static const struct testfs_opts opts = { .size_bytes = POOL_BYTES, .trace = &cut_trace };

struct crash {
	const char *name;
	uint64_t laddr;
	unsigned copy;
	unsigned images, moved, alone;
};

static void content_make(void)
{
	static uint8_t bytes[5 * BLOCK_SIZE];
	char name[16];

	memset(bytes, 7, sizeof(bytes));
	for (unsigned i = 0; i < FILES; i++) {
		uint64_t ino;

		snprintf(name, sizeof(name), "f%u", i);
		ino = testfs_node(&t, INODE_ROOT, name, S_IFREG | 0644);
		assert_true(fs_write(t.fs, &testfs_root, ino, bytes, sizeof(bytes) - i, i * 300, 0) > 0);
	}
	fs_work(t.fs);
	want = testlist_make(&t);
}

static uint64_t place_of(struct testfs *u, uint64_t laddr, unsigned copy)
{
	uint64_t off;

	assert_int_equal(pool_place(u->pool, laddr, copy, &off), 0);
	return u64_align_down(off, BLOCK_SIZE);
}

/* ---- images ---- */

/* As after the power came back: the page is as bad as before when the mount begins. */
static struct testpoison *image_open(struct testfs *u, const uint8_t *image)
{
	const struct pool_opts pool_opts = { 0 };
	struct testpoison *bad;
	char why[256];

	*u = (struct testfs){ .opts = { .size_bytes = POOL_BYTES } };
	assert_int_equal(dax_open_ram(POOL_BYTES, image, cut_is_recording() ? &cut_trace : NULL, &u->dax), 0);
	bad = testpoison_open(u->dax);
	assert_non_null(bad);
	testpoison_page(bad, bad_off);
	assert_int_equal(pool_open(u->dax, &pool_opts, &u->pool, why, sizeof(why)), 0);
	assert_int_equal(fs_open(u->pool, &u->opts.fs, &u->fs), 0);
	return bad;
}

static void image_close(struct testfs *u, struct testpoison *bad)
{
	testpoison_close(bad);
	assert_null(pool_failed(u->pool));
	testfs_free(u);
}

static void same(const struct crash *c, struct testfs *u, const char *when)
{
	char *got = testlist_make(u);

	if (testlist_diff(want, got, true) != 0)
		fail_msg("%s %u: %s", c->name, c->copy, when);
	free(got);
}

static void found(void *arg, enum check_kind kind, const char *text)
{
	const struct crash *c = arg;

	if (kind != CHECK_UNIT_COPY)
		fail_msg("%s %u alone: %s: %s", c->name, c->copy, check_kind_name(kind), text);
}

/* The other copy is gone too. */
static void alone_check(struct crash *c, const uint8_t *image, uint64_t other_off)
{
	const struct check_opts check_opts = { .found = found, .arg = c, .heal = true };
	uint8_t *damaged = malloc(POOL_BYTES);
	struct check_report report;
	struct testpoison *bad;
	struct testfs u;

	memcpy(damaged, image, POOL_BYTES);
	memset(damaged + other_off, 0, BLOCK_SIZE);
	bad = image_open(&u, damaged);
	same(c, &u, "alone");
	assert_int_equal(check_pool(u.pool, &check_opts, &report), 0);
	image_close(&u, bad);
	free(damaged);
	c->alone++;
}

static void image_check(void *arg, const uint8_t *image)
{
	struct crash *c = arg;
	struct testfs u;
	struct testpoison *bad = image_open(&u, image);
	bool moved = place_of(&u, c->laddr, c->copy) != bad_off;

	same(c, &u, "after power loss");
	if (moved) {
		testfs_check(&u);
		alone_check(c, image, place_of(&u, c->laddr, 1 - c->copy));
	}
	c->moved += moved;
	assert_int_equal(poison_handle(u.fs, bad_off), 0);
	assert_true(place_of(&u, c->laddr, c->copy) != bad_off);
	testfs_check(&u);
	same(c, &u, "moved");
	image_close(&u, bad);
	c->images++;
}

/* The mount that goes on with it is cut short as well. */
static void image_check_twice(void *arg, const uint8_t *image)
{
	struct crash *c = arg;
	struct testpoison *bad;
	struct testfs u;
	struct cut cut;

	image_check(c, image);
	if (c->images % 64 != 1)
		return;
	cut_begin(&cut, image, POOL_BYTES, bad_off);
	bad = image_open(&u, image);
	cut_end();
	image_close(&u, bad);
	cut_images(&cut, image_check, c);
}

/* ---- what moves ---- */

static uint64_t header_unit(void)
{
	return pool_ag_unit(t.pool, 0, AG_UNIT_HEADER);
}

static uint64_t remap_unit(void)
{
	return pool_ag_unit(t.pool, 0, AG_UNIT_REMAP);
}

static uint64_t table_unit(void)
{
	return pool_ag_unit(t.pool, 0, AG_UNIT_TABLE);
}

static uint64_t bitmap_unit(void)
{
	return pool_ag_unit(t.pool, 0, AG_UNIT_TABLE + 1);
}

static uint64_t intents_unit(void)
{
	return pool_ag_unit(t.pool, 0, AG_UNIT_INTENTS);
}

static uint64_t rmap_leaf(void)
{
	const struct m_node_body *body;
	_Alignas(64) struct m_ag ag;

	testunit_load(&t, header_unit(), &ag, sizeof(ag));
	body = (const void *)ag.ag_roots[AG_RMAP];
	assert_int_equal(node_level(body), 1);
	return le64_get(((const le64 *)(const void *)body->nb_space)[node_ops(NODE_RMAP)->key_words]);
}

static uint64_t inode_unit(void)
{
	struct inode_attr attr;

	assert_int_equal(testfs_lookup(&t, INODE_ROOT, "f7", &attr), 0);
	fs_forget(t.fs, attr.ino, 1);
	return u64_align_down(attr.ino << INODE_SHIFT, BLOCK_SIZE);
}

/* before: so many times it has moved already. */
static void crash_of(const char *name, uint64_t (*unit)(void), unsigned copy, unsigned before)
{
	struct crash c = { .name = name, .copy = copy };
	struct testpoison *poison;
	struct cut cut;

	testfs_make(&t, &opts);
	poison = testpoison_open(t.dax);
	if (!poison) {
		testfs_free(&t);
		skip();
	}
	content_make();
	c.laddr = unit();
	for (unsigned i = 0; i < before; i++)
		assert_int_equal(fs_poison_add(t.fs, place_of(&t, c.laddr, copy)), 0);
	bad_off = place_of(&t, c.laddr, copy);
	cut_begin(&cut, dax_ptr(t.dax, 0), POOL_BYTES, bad_off);
	memset(cut.memory + bad_off, 0xee, BLOCK_SIZE);
	testpoison_page(poison, bad_off);
	assert_int_equal(poison_handle(t.fs, bad_off), 0);
	cut_end();
	assert_true(place_of(&t, c.laddr, copy) != bad_off);
	cut_images(&cut, image_check_twice, &c);
	print_message("# %s %u: %u images, in %u it had moved\n", name, copy, c.images, c.moved);
	assert_true(c.moved > 2 && c.moved < c.images - 2 && c.alone > 2);
	testpoison_close(poison);
	testfs_check(&t);
	testfs_free(&t);
	free(want);
}

static void test_plain(void **state)
{
	(void)state;
	crash_of("bitmap", bitmap_unit, 0, 0);
	crash_of("bitmap", bitmap_unit, 1, 0);
	crash_of("rmap leaf", rmap_leaf, 0, 0);
	crash_of("rmap leaf", rmap_leaf, 1, 0);
	crash_of("inodes", inode_unit, 0, 0);
	crash_of("inodes", inode_unit, 1, 0);
	crash_of("intents", intents_unit, 0, 0);
}

static void test_key(void **state)
{
	(void)state;
	crash_of("group header", header_unit, 0, 0);
	crash_of("group header", header_unit, 1, 0);
	crash_of("remap list", remap_unit, 0, 0);
	crash_of("remap list", remap_unit, 1, 0);
	crash_of("chunk table", table_unit, 0, 0);
	crash_of("chunk table", table_unit, 1, 0);
}

static void test_again(void **state)
{
	(void)state;
	crash_of("bitmap again", bitmap_unit, 0, 2);
	crash_of("rmap leaf again", rmap_leaf, 1, 1);
	crash_of("group header again", header_unit, 0, 2);
	crash_of("remap list again", remap_unit, 1, 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_plain),
		cmocka_unit_test(test_key),
		cmocka_unit_test(test_again),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
