/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Bad memory under metadata that stays bad: each unit of a pool with something of everything, its primary and its mirror, leaves it for good. What the
 * file system shows stays the same, before and after a remount, and a walk finds nothing wrong.
 */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include <cmocka.h>

#include "fs/owners.h"
#include "fs/poison.h"
#include "lib/testlist.h"
#include "lib/testpoison.h"
#include "lib/testunit.h"
#include "media/ag.h"
#include "repair/check.h"
#include "space/space.h"
#include "unit/repair_scene.h"

/* Only some units, where each costs a lot. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__) || defined(UMBRA_SABOTAGE)
#define UNITS_EACH 5
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define UNITS_EACH 5
#endif
#endif
#ifndef UNITS_EACH
#define UNITS_EACH 1
#endif

static struct scene scene;
static struct testfs t;
static struct testpoison *poison;
static char *want; /* what is in the file system */

static struct {
	unsigned count, moved;
	uint64_t ino;
} told;

static void on_poison(void *arg, const struct fs_poison *event)
{
	(void)arg;
	if (event->kind != FS_POISON_META)
		return;
	told.count++;
	told.moved += event->moved;
	told.ino = event->ino;
}

static void listen(void)
{
	memset(&told, 0, sizeof(told));
	fs_on_poison(t.fs, on_poison, NULL);
}

/* In the test itself: cmocka sets a handler of its own for SIGBUS before each part. */
static void open_image(const struct fs_opts *fs_opts)
{
	struct testfs_opts opts = { .size_bytes = SCENE_BYTES };

	if (fs_opts)
		opts.fs = *fs_opts;
	if (!scene.image)
		scene_make(&scene, false);
	testfs_open_image(&t, scene.image, &opts);
	poison = testpoison_open(t.dax);
	if (!poison) {
		testfs_free(&t);
		skip();
	}
	want = testlist_make(&t);
	listen();
}

static void close_image(void)
{
	testpoison_close(poison);
	assert_null(pool_failed(t.pool));
	testfs_free(&t);
	free(want);
}

static void compare(const char *when, const char *name)
{
	char *got = testlist_make(&t);

	if (testlist_diff(want, got, true) != 0)
		fail_msg("%s, bad: %s", when, name);
	free(got);
}

/* Some of everything, and away with it. */
static void changes(void)
{
	static const char bytes[20000] = "some";
	struct fs *fs = t.fs;
	struct inode_attr attr;
	uint64_t dir, file;

	dir = testfs_node(&t, INODE_ROOT, "d", S_IFDIR | 0755);
	file = testfs_node(&t, dir, "f", S_IFREG | 0644);
	assert_int_equal(fs_write(fs, &testfs_root, file, bytes, sizeof(bytes), 3000, 0), sizeof(bytes));
	assert_int_equal(fs_setxattr(fs, file, "user.x", bytes, 3000, 0, false), 0);
	assert_int_equal(testfs_mknod(&t, INODE_ROOT, "twin", S_IFREG | 0644, &attr), 0);
	assert_int_equal(fs_clone(fs, &testfs_root, file, 0, attr.ino, 0, 23000, 0, NULL), 23000);
	fs_forget(fs, attr.ino, 1);
	assert_int_equal(testfs_rename(&t, INODE_ROOT, "twin", dir, "f", 0), 0);
	assert_int_equal(testfs_unlink(&t, dir, "f"), 0);
	assert_int_equal(testfs_rmdir(&t, INODE_ROOT, "d"), 0);
}

static uint64_t laddr_of(const struct scene_unit *u)
{
	struct m_unit_hdr hdr;

	memcpy(&hdr, scene.image + u->off[0], sizeof(hdr));
	return le64_get(hdr.uh_laddr);
}

static uint64_t page_of(uint64_t off)
{
	return u64_align_down(off, BLOCK_SIZE);
}

static uint64_t place_of(uint64_t laddr, unsigned copy)
{
	uint64_t off;

	assert_int_equal(pool_place(t.pool, laddr, copy, &off), 0);
	return off;
}

static bool has_moved(const struct scene_unit *u, unsigned copy)
{
	return place_of(laddr_of(u), copy) != u->off[copy];
}

/* Both copies can be read, and are the same. */
static void copies_check(const struct scene_unit *u)
{
	_Alignas(64) uint8_t copies[2][BLOCK_SIZE];

	for (unsigned copy = 0; copy < 2; copy++) {
		assert_int_equal(dax_load(t.dax, copies[copy], place_of(laddr_of(u), copy), u->size, NULL),
				 0);
		if (unit_check_header(copies[copy], u->size, 0, laddr_of(u), &pool_super(t.pool)->uuid))
			fail_msg("%s: copy %u is not sound", u->name, copy);
	}
	assert_memory_equal(copies[0], copies[1], u->size);
}

static void found(void *arg, enum check_kind kind, const char *text)
{
	(void)arg;
	print_message("# fsck: %s: %s\n", check_kind_name(kind), text);
}

/* fsck -n has nothing to say. The pool is open again then. */
static void fsck_check(void)
{
	const struct repair_opts opts = { .force = true, .found = found };
	struct pool_opts pool_opts = { 0 };
	struct repair_report report;
	char why[256];

	fs_close(t.fs);
	pool_close(t.pool, true);
	assert_int_equal(repair_pool(t.dax, &opts, &report, why, sizeof(why)), 0);
	assert_true(report.walked);
	assert_int_equal(report.before.findings, 0);
	assert_int_equal(pool_open(t.dax, &pool_opts, &t.pool, why, sizeof(why)), 0);
	assert_int_equal(fs_open(t.pool, &t.opts.fs, &t.fs), 0);
	listen();
}

static void remount(void)
{
	testfs_remount(&t);
	listen();
}

/* ---- one at a time ---- */

static void one_unit(const struct scene_unit *u, unsigned copy, unsigned *asked)
{
	open_image(NULL);
	testpoison_page(poison, page_of(u->off[copy]));
	compare("reading", u->name);
	changes();
	compare("after changes", u->name);
	fs_work(t.fs);
	if (!has_moved(u, copy)) {
		/* Nobody touched it. */
		assert_int_equal(poison_handle(t.fs, u->off[copy]), 0);
		*asked += 1;
	}
	assert_true(has_moved(u, copy));
	assert_int_equal(told.count, 1);
	assert_int_equal(told.moved, 1);
	copies_check(u);
	compare("moved", u->name);
	testfs_check(&t);
	changes();
	testfs_check(&t);
	remount();
	assert_true(has_moved(u, copy));
	compare("remounted", u->name);
	changes();
	fs_work(t.fs);
	testfs_check(&t);
	copies_check(u);
	assert_int_equal(told.count, 0); /* nobody met it again */
	fsck_check();
	compare("after fsck", u->name);
	close_image();
}

static void test_each(void **state)
{
	unsigned asked[2] = { 0 }, tested = 0;

	(void)state;
	open_image(NULL);
	close_image();
	for (unsigned i = 1; i < scene.unit_count; i += UNITS_EACH, tested++) {
		one_unit(&scene.units[i], 0, &asked[0]);
		one_unit(&scene.units[i], 1, &asked[1]);
	}
	print_message("# %u units; never met: %u primaries, %u mirrors\n", tested, asked[0], asked[1]);
	assert_true(asked[0] < tested && asked[1] < tested);
}

/* What moves edits itself: both copies are the same when the transaction is over, without anybody touching them. */
static void test_edits_itself(void **state)
{
	static const char *const names[] = { "group header", "bitmap",      "remap list",
					     "rmap leaf",    "chunk table", "intents" };

	(void)state;
	for (unsigned k = 0; k < ARRAY_SIZE(names) * 2; k++) {
		open_image(NULL);
		for (unsigned i = 1; i < scene.unit_count; i++) {
			const struct scene_unit *u = &scene.units[i];

			if (strcmp(u->name, names[k / 2]) != 0)
				continue;
			testpoison_page(poison, u->off[k % 2]);
			assert_int_equal(poison_handle(t.fs, u->off[k % 2]), 0);
			assert_true(has_moved(u, k % 2));
			copies_check(u);
		}
		testfs_check(&t);
		close_image();
	}
}

/* ---- many ---- */

/* pick: which copies of the unit go bad, a bit for each. */
static void storm(unsigned (*pick)(unsigned i))
{
	open_image(NULL);
	for (unsigned i = 1; i < scene.unit_count; i++) {
		for (unsigned copy = 0; copy < 2; copy++)
			if (pick(i) >> copy & 1)
				testpoison_page(poison, page_of(scene.units[i].off[copy]));
	}
	compare("storm", "many");
	changes();
	for (unsigned round = 0; round < 4; round++) {
		fs_work(t.fs);
		compare("in work", "many");
	}
	for (unsigned i = 1; i < scene.unit_count; i++) {
		for (unsigned copy = 0; copy < 2; copy++)
			if (pick(i) >> copy & 1 && !has_moved(&scene.units[i], copy))
				assert_int_equal(poison_handle(t.fs, scene.units[i].off[copy]), 0);
		copies_check(&scene.units[i]);
	}
	testfs_check(&t);
	remount();
	compare("remounted", "many");
	changes();
	testfs_check(&t);
	fsck_check();
	close_image();
}

static unsigned pick_primary(unsigned i)
{
	(void)i;
	return 1;
}

/* Units that share a block lose the same copy. */
static unsigned pick_either(unsigned i)
{
	return page_of(scene.units[i].off[0]) / BLOCK_SIZE % 2 ? 1 : 2;
}

static void test_storm(void **state)
{
	(void)state;
	storm(pick_primary);
	storm(pick_either);
}

/* ---- both copies ---- */

/*
 * Of both some lines are lost, and not the same ones: nothing is. What the way out itself needs (the group's header, its rmap) stays where it is, with
 * all that can be had of it.
 */
static void test_lines(void **state)
{
	unsigned moved = 0, stayed = 0;

	(void)state;
	for (unsigned i = 1; i < scene.unit_count; i++) {
		const struct scene_unit *u = &scene.units[i];
		int rc;

		open_image(NULL);
		testpoison_lines(poison, page_of(u->off[0]), 0x00ff00ff0000ff01);
		testpoison_lines(poison, page_of(u->off[1]), 0x1000ff0000f00080);
		rc = poison_handle(t.fs, u->off[0]);
		if (!rc) {
			assert_int_equal(poison_handle(t.fs, u->off[1]), 0);
			assert_true(has_moved(u, 0) && has_moved(u, 1));
			copies_check(u);
		} else {
			assert_int_equal(rc, -EIO);
			assert_false(has_moved(u, 0) || has_moved(u, 1));
			print_message("# stays: %s\n", u->name);
			testpoison_heal_all(poison);
		}
		moved += rc == 0;
		stayed += rc != 0;
		compare("merged", u->name);
		testfs_check(&t);
		close_image();
	}
	assert_true(moved > 2 * stayed);
}

/* A line of both: what there is stays where it is, for the day on which it can be read again. */
static void test_lost(void **state)
{
	const struct scene_unit *u = NULL;

	(void)state;
	open_image(NULL);
	for (unsigned i = 1; i < scene.unit_count; i++)
		if (strcmp(scene.units[i].name, "extent leaf") == 0)
			u = &scene.units[i];
	assert_non_null(u);
	testpoison_lines(poison, u->off[0], 0xff);
	testpoison_lines(poison, u->off[1], 0x80);
	assert_int_equal(poison_handle(t.fs, u->off[0]), -EIO);
	assert_int_equal(poison_handle(t.fs, u->off[1]), -EIO);
	assert_false(has_moved(u, 0) || has_moved(u, 1));
	fs_work(t.fs);
	testpoison_heal_all(poison);
	compare("healed", u->name);
	testfs_check(&t);
	close_image();
}

/* ---- again and again ---- */

static uint64_t block_owner(uint64_t off)
{
	static const struct fs_owners_pos start;
	struct fs_owner owner;
	unsigned count;

	assert_int_equal(fs_owners(t.fs, off, BLOCK_SIZE, &start, &owner, 1, &count), 0);
	return count ? owner.owner : 0;
}

/* What a unit has moved to goes bad as well. */
static void test_again(void **state)
{
	static const char *const names[] = { "group header", "bitmap", "remap list", "rmap leaf",
					     "inode of a file" };

	(void)state;
	for (unsigned k = 0; k < ARRAY_SIZE(names) * 2; k++) {
		const struct scene_unit *u = scene.units;
		uint64_t offs[4];

		open_image(NULL);
		while (strcmp(u->name, names[k / 2]) != 0)
			u++;
		for (unsigned i = 0; i < ARRAY_SIZE(offs); i++) {
			offs[i] = page_of(place_of(laddr_of(u), k % 2));
			testpoison_page(poison, offs[i]);
			assert_int_equal(poison_handle(t.fs, offs[i]), 0);
			assert_true(page_of(place_of(laddr_of(u), k % 2)) != offs[i]);
			copies_check(u);
			testfs_check(&t);
		}
		for (unsigned i = 1; i < ARRAY_SIZE(offs); i++)
			assert_true(block_owner(offs[i]) == OWNER_BAD);
		assert_true(block_owner(place_of(laddr_of(u), k % 2)) == OWNER_REMAP);
		assert_int_equal(told.moved, ARRAY_SIZE(offs));
		remount();
		compare("remounted", u->name);
		testfs_check(&t);
		/* Nothing lies there any more. */
		assert_int_equal(poison_handle(t.fs, offs[0]), 0);
		assert_int_equal(told.count, 0);
		fsck_check();
		close_image();
	}
}

/* Free blocks that are bad as well, which nobody has met yet. */
static void test_bad_targets(void **state)
{
	const struct scene_unit *u = &scene.units[1];
	uint64_t first, size = SCENE_BYTES;
	unsigned bad = 0;

	(void)state;
	open_image(NULL);
	testpoison_page(poison, u->off[0]);
	assert_int_equal(poison_handle(t.fs, u->off[0]), 0);
	first = place_of(laddr_of(u), 0);
	close_image();
	open_image(NULL);
	for (uint64_t off = first; off < size && bad < 5; off += BLOCK_SIZE) {
		if (block_owner(off) == 0) {
			testpoison_page(poison, off);
			bad++;
		}
	}
	testpoison_page(poison, u->off[0]);
	assert_int_equal(poison_handle(t.fs, u->off[0]), 0);
	assert_true(has_moved(u, 0));
	assert_true(block_owner(first) == OWNER_BAD);
	testfs_check(&t);
	close_image();
}

/* ---- healed where it is ---- */

static struct {
	uint64_t off;
	unsigned lines;
} healing;

/* Salvage finds nothing, twice; then the memory takes stores again, and holds what it held. */
static bool line_lost(void *ctx, uint64_t off, void *line)
{
	(void)ctx;
	(void)line;
	if (off - healing.off < BLOCK_SIZE && ++healing.lines == 2 * BLOCK_SIZE / LINE_SIZE)
		testpoison_heal(poison, healing.off);
	return false;
}

static void test_in_place(void **state)
{
	(void)state;
	for (unsigned i = 1; i < scene.unit_count; i += 2) {
		const struct scene_unit *u = &scene.units[i];
		unsigned copy = i / 2 % 2;

		open_image(NULL);
		healing.off = page_of(u->off[copy]);
		healing.lines = 0;
		testpoison_page(poison, healing.off);
		dax_on_salvage(t.dax, line_lost, NULL);
		assert_int_equal(poison_handle(t.fs, u->off[copy]), 0);
		assert_int_equal(told.count, 1);
		assert_int_equal(told.moved, 0);
		assert_false(has_moved(u, copy));
		copies_check(u);
		compare("healed", u->name);
		testfs_check(&t);
		close_image();
	}
}

/* ---- no room ---- */

static void test_full(void **state)
{
	static const uint8_t bytes[BLOCK_SIZE] = { 1 };
	const struct scene_unit *u = scene.units;
	uint64_t fill;
	unsigned tries;

	(void)state;
	open_image(NULL);
	while (strcmp(u->name, "inode of a file") != 0)
		u++;
	fill = testfs_node(&t, INODE_ROOT, "fill", S_IFREG | 0644);
	for (unsigned i = 0; fs_write(t.fs, &testfs_root, fill, bytes, BLOCK_SIZE, i * BLOCK_SIZE, 0) > 0;)
		i++;
	testpoison_page(poison, page_of(u->off[0]));
	assert_true(testfs_attr(&t, laddr_of(u) >> INODE_SHIFT).size > 0);
	/* Chunks that are kept for metadata may serve: no more than there are. */
	for (tries = 0; tries < 3; tries++)
		fs_work(t.fs);
	assert_int_equal(testfs_unlink(&t, INODE_ROOT, "fill"), 0);
	assert_true(testfs_attr(&t, laddr_of(u) >> INODE_SHIFT).size > 0);
	fs_work(t.fs);
	compare("room again", u->name);
	fs_work(t.fs);
	assert_true(has_moved(u, 0));
	testfs_check(&t);
	close_image();
}

/* The list of a group is full: the other copy goes on serving. */
static void test_list_full(void **state)
{
	uint64_t chunk, moved = 0, fixed = ag_fixed_units(SCENE_BYTES / 2 / CHUNK_SIZE);

	(void)state;
	open_image(NULL);
	chunk = pool_ag_unit(t.pool, 0, 0);
	for (unsigned unit = 0; unit < CHUNK_BLOCKS; unit++) {
		uint64_t laddr = chunk + unit * BLOCK_SIZE, off = place_of(laddr, unit % 2);
		int rc;

		if (unit >= AG_UNIT_HEADER && unit < fixed)
			continue;
		rc = fs_poison_add(t.fs, off);
		if (moved == REMAPS_PER_UNIT) {
			assert_int_equal(rc, -ENOSPC);
			assert_true(place_of(laddr, unit % 2) == off);
			if (moved + 20 < unit)
				break;
			continue;
		}
		assert_int_equal(rc, 0);
		assert_true(place_of(laddr, unit % 2) != off);
		moved++;
	}
	assert_int_equal(moved, REMAPS_PER_UNIT);
	compare("list full", "many");
	changes();
	testfs_check(&t);
	/* One that has an entry can move again. */
	assert_int_equal(fs_poison_add(t.fs, place_of(chunk, 0)), 0);
	testfs_check(&t);
	remount();
	compare("remounted", "many");
	testfs_check(&t);
	fsck_check();
	close_image();
}

/* That of the superblock. */
static void test_super_full(void **state)
{
	const struct testfs_opts opts = { .size_bytes = (uint64_t)160 << 20,
					  .format = { .ag_size_bytes = (uint64_t)16 << 20 } };
	unsigned moved = 0, refused = 0;

	(void)state;
	testfs_make(&t, &opts);
	want = testlist_make(&t);
	for (uint32_t agno = 0; agno < pool_ag_count(t.pool); agno++) {
		for (unsigned unit = AG_UNIT_HEADER; unit <= AG_UNIT_TABLE; unit += 2) {
			uint64_t laddr = pool_ag_unit(t.pool, agno, unit), off = place_of(laddr, agno % 2);
			int rc = fs_poison_add(t.fs, off);

			assert_int_equal(rc, moved < SUPER_REMAPS_MAX ? 0 : -ENOSPC);
			assert_int_equal(place_of(laddr, agno % 2) != off, rc == 0);
			moved += rc == 0;
			refused += rc != 0;
		}
	}
	assert_int_equal(moved, SUPER_REMAPS_MAX);
	assert_true(refused > 0);
	changes();
	testfs_check(&t);
	testfs_remount(&t);
	compare("remounted", "many");
	changes();
	testfs_check(&t);
	assert_null(pool_failed(t.pool));
	testfs_free(&t);
	free(want);
}

/* ---- with others ---- */

/* The mirror of slot 0 of the last group goes elsewhere, but for what has left it. */
static void test_grown(void **state)
{
	const struct pool_opts pool_opts = { 0 };
	uint8_t *image = calloc(2, SCENE_BYTES);
	uint32_t last;
	char why[256];

	(void)state;
	open_image(NULL);
	close_image();
	memcpy(image, scene.image, SCENE_BYTES);
	for (unsigned copy = 0; copy < 2; copy++) {
		t = (struct testfs){ .opts = { .size_bytes = SCENE_BYTES } };
		assert_int_equal(dax_open_ram_room(SCENE_BYTES, 2 * SCENE_BYTES, image, NULL, &t.dax), 0);
		assert_int_equal(pool_open(t.dax, &pool_opts, &t.pool, why, sizeof(why)), 0);
		assert_int_equal(fs_open(t.pool, &t.opts.fs, &t.fs), 0);
		poison = testpoison_open(t.dax);
		want = testlist_make(&t);
		last = pool_ag_count(t.pool) - 1;
		for (unsigned unit = 0; unit < 20; unit++) {
			uint64_t off = place_of(pool_ag_unit(t.pool, last, unit), copy);

			testpoison_page(poison, off);
			assert_int_equal(poison_handle(t.fs, off), 0);
		}
		assert_int_equal(space_grow(t.pool, 2 * SCENE_BYTES), 0);
		assert_true(pool_ag_count(t.pool) > last + 1);
		compare("grown", "slot 0");
		changes();
		testfs_check(&t);
		remount();
		compare("remounted", "slot 0");
		fsck_check();
		close_image();
	}
	free(image);
}

static uint64_t meta_chunks(void)
{
	struct space_totals totals;

	assert_int_equal(space_totals(t.pool, &totals), 0);
	return totals.meta_chunks;
}

/* A chunk with a unit that lies elsewhere stays; others are given back all the same. */
static void test_trim(void **state)
{
	const struct testfs_opts opts = { .size_bytes = (uint64_t)128 << 20,
					  .format = { .ag_size_bytes = (uint64_t)128 << 20 } };
	uint64_t before, most, last = 0, off;
	char name[16];

	(void)state;
	testfs_make(&t, &opts);
	before = meta_chunks();
	for (unsigned i = 0; meta_chunks() < before + 4; i++) {
		snprintf(name, sizeof(name), "f%u", i);
		assert_int_equal(testfs_mknod(&t, INODE_ROOT, name, S_IFREG | 0600, NULL), 0);
	}
	most = meta_chunks();
	for (uint64_t slot = 1; slot < 64; slot++)
		if (pool_place(t.pool, slot << CHUNK_SHIFT, 0, &off) == 0)
			last = slot;
	assert_int_equal(fs_poison_add(t.fs, place_of((last << CHUNK_SHIFT) + 9 * BLOCK_SIZE, 0)), 0);
	for (unsigned i = 0;
	     testfs_unlink(&t, INODE_ROOT, (snprintf(name, sizeof(name), "f%u", i), name)) == 0;)
		i++;
	fs_work(t.fs);
	assert_true(space_trim(t.pool) >= 0);
	assert_true(meta_chunks() < most && pool_place(t.pool, last << CHUNK_SHIFT, 0, &off) == 0);
	testfs_check(&t);
	assert_null(pool_failed(t.pool));
	testfs_free(&t);
}

/* ---- in the background ---- */

static void test_background(void **state)
{
	const struct fs_opts opts = { .background = true };
	const struct timespec a_moment = { .tv_nsec = 1000000 };
	const struct scene_unit *u = scene.units;

	(void)state;
	open_image(&opts);
	while (strcmp(u->name, "inode of a file") != 0)
		u++;
	testpoison_page(poison, page_of(u->off[0]));
	assert_true(testfs_attr(&t, laddr_of(u) >> INODE_SHIFT).size > 0);
	/* If it never does, the limit of the suite ends it. */
	while (!has_moved(u, 0)) {
		changes();
		nanosleep(&a_moment, NULL);
	}
	compare("moved", u->name);
	testfs_check(&t);
	close_image();
}

struct worker {
	pthread_t thread;
	unsigned id;
};

/* In a directory of its own. */
static void *worker_run(void *arg)
{
	const struct worker *w = arg;
	static const char bytes[9000] = "some";
	struct inode_attr dir, file;
	uint8_t block[BLOCK_SIZE];
	char name[16];

	snprintf(name, sizeof(name), "w%u", w->id);
	for (unsigned i = 0; i < 40; i++) {
		if (testfs_mknod(&t, INODE_ROOT, name, S_IFDIR | 0755, &dir) != 0 ||
		    testfs_mknod(&t, dir.ino, "f", S_IFREG | 0644, &file) != 0 ||
		    fs_write(t.fs, &testfs_root, file.ino, bytes, sizeof(bytes), i * 1000, 0) !=
			    sizeof(bytes) ||
		    fs_setxattr(t.fs, file.ino, "user.x", bytes, 5000, 0, false) != 0)
			return arg;
		fs_forget(t.fs, file.ino, 1);
		fs_forget(t.fs, dir.ino, 1);
		if (testfs_unlink(&t, dir.ino, "f") != 0 || testfs_rmdir(&t, INODE_ROOT, name) != 0)
			return arg;
		if (testfs_lookup(&t, INODE_ROOT, "file", &file) != 0)
			return arg;
		for (uint64_t off = 0; off < file.size; off += sizeof(block))
			if (fs_read(t.fs, file.ino, block, sizeof(block), off) <= 0)
				return arg;
		fs_forget(t.fs, file.ino, 1);
	}
	return NULL;
}

/* Everybody works on while units move away under them. */
static void test_threads(void **state)
{
	const struct fs_opts opts = { .background = true };
	struct worker workers[4];
	void *failed;

	(void)state;
	open_image(&opts);
	for (unsigned i = 1; i < scene.unit_count; i++) {
		unsigned copy = pick_either(i) / 2;

		testpoison_page(poison, page_of(scene.units[i].off[copy]));
	}
	for (unsigned i = 0; i < ARRAY_SIZE(workers); i++) {
		workers[i].id = i;
		assert_int_equal(pthread_create(&workers[i].thread, NULL, worker_run, &workers[i]), 0);
	}
	for (unsigned i = 0; i < ARRAY_SIZE(workers); i++) {
		pthread_join(workers[i].thread, &failed);
		assert_null(failed);
	}
	for (unsigned i = 1; i < scene.unit_count; i++) {
		unsigned copy = pick_either(i) / 2;

		assert_int_equal(poison_handle(t.fs, scene.units[i].off[copy]), 0);
		assert_true(has_moved(&scene.units[i], copy));
	}
	compare("moved", "many");
	testfs_check(&t);
	remount();
	compare("remounted", "many");
	close_image();
}

static void test_end(void **state)
{
	(void)state;
	if (scene.image)
		scene_free(&scene);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_each),        cmocka_unit_test(test_edits_itself),
		cmocka_unit_test(test_storm),       cmocka_unit_test(test_lines),
		cmocka_unit_test(test_lost),        cmocka_unit_test(test_again),
		cmocka_unit_test(test_bad_targets), cmocka_unit_test(test_in_place),
		cmocka_unit_test(test_full),        cmocka_unit_test(test_list_full),
		cmocka_unit_test(test_super_full),  cmocka_unit_test(test_grown),
		cmocka_unit_test(test_trim),        cmocka_unit_test(test_background),
		cmocka_unit_test(test_threads),     cmocka_unit_test(test_end),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
