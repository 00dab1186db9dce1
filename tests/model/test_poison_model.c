/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Bad memory under metadata while files change: each unit of a pool with something of everything, its primary and its mirror, goes bad in the middle of
 * random operations (data_world.h) and stays bad. Nothing is lost, nothing is wrong, the unit has left that memory in the end, and the pool
 * looks as it did before.
 *
 * UMBRA_SEED replays a run, UMBRA_MODEL_OPS makes each part longer, UMBRA_MODEL_UNITS=N takes N units by chance besides.
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

#include "fs/poison.h"
#include "lib/testlist.h"
#include "lib/testpoison.h"
#include "model/data_world.h"
#include "unit/repair_scene.h"

#define OPS 120u /* for each unit and copy */

/* What has been there before the world, and is there after it. */
static struct scene scene;
static char *want;

static unsigned runs, met; /* met: by those who worked on the files */

struct unit {
	const char *name;
	uint64_t laddr, off;
	unsigned copy;
};

static void on_poison(void *arg, const struct fs_poison *event)
{
	const struct unit *u = arg;

	if (event->kind == FS_POISON_DATA)
		fail_msg("%s, copy %u: somebody has lost data", u->name, u->copy);
}

static unsigned wanted(const char *name, unsigned usual)
{
	const char *given = getenv(name);

	return given ? (unsigned)strtoul(given, NULL, 0) : usual;
}

static uint64_t page_of(uint64_t off)
{
	return u64_align_down(off, BLOCK_SIZE);
}

static uint64_t place_of(struct testfs *t, uint64_t laddr, unsigned copy)
{
	uint64_t off;

	assert_int_equal(pool_place(t->pool, laddr, copy, &off), 0);
	return off;
}

static void list_check(struct testfs *t, const struct unit *u)
{
	char *got = testlist_make(t);

	if (testlist_diff(want, got, true) != 0)
		fail_msg("%s, copy %u: what was there has changed", u->name, u->copy);
	free(got);
}

/* It is seen to, met or not; without the files of the world there is room for it. */
static void unit_leaves(struct testfs *t, const struct unit *u)
{
	fs_work(t->fs);
	if (place_of(t, u->laddr, u->copy) != u->off)
		met++;
	else
		assert_int_equal(poison_handle(t->fs, u->off), 0);
	assert_true(place_of(t, u->laddr, u->copy) != u->off);
}

static void work(struct world *w, struct unit *u, struct testpoison *poison)
{
	unsigned count = wanted("UMBRA_MODEL_OPS", OPS),
		 bad_at = (unsigned)testfs_below(&w->random, count / 2);

	for (unsigned i = 0; i < count; i++) {
		fs_on_poison(w->t.fs, on_poison, u); /* a new one, after a remount */
		if (i == bad_at)
			testpoison_page(poison, page_of(u->off));
		world_step(w);
	}
	fs_on_poison(w->t.fs, on_poison, u);
	world_compare(w);
}

static void one_unit(struct unit *u, uint64_t seed)
{
	const struct testfs_opts opts = { .size_bytes = SCENE_BYTES };
	struct world *w = calloc(1, sizeof(*w));
	struct testpoison *poison;

	testfs_open_image(&w->t, scene.image, &opts);
	poison = testpoison_open(w->t.dax);
	assert_non_null(poison);
	u->off = place_of(&w->t, u->laddr, u->copy);
	w->no_crash = true; /* the memory is bad in this mapping alone */
	world_make(w, testfs_node(&w->t, INODE_ROOT, "world", S_IFDIR | 0755), seed);
	work(w, u, poison);
	world_empty(w);
	assert_int_equal(testfs_rmdir(&w->t, INODE_ROOT, "world"), 0);
	unit_leaves(&w->t, u);
	list_check(&w->t, u);
	testfs_check(&w->t);
	testfs_remount(&w->t);
	assert_true(place_of(&w->t, u->laddr, u->copy) != u->off);
	list_check(&w->t, u);
	testfs_check(&w->t);
	assert_null(pool_failed(w->t.pool));
	testpoison_close(poison);
	testfs_free(&w->t);
	world_free(w);
	free(w);
	runs++;
}

static unsigned chunks_find(struct testfs *t, uint64_t *chunks, unsigned max)
{
	unsigned count = 0;
	uint64_t off;

	for (uint64_t slot = 0; slot < SCENE_BYTES / CHUNK_SIZE && count < max; slot++)
		if (pool_place(t->pool, slot << CHUNK_SHIFT, 0, &off) == 0)
			chunks[count++] = slot << CHUNK_SHIFT;
	return count;
}

/* The chunks with units, and what there is to be seen. */
static unsigned scene_open(uint64_t *chunks, unsigned max)
{
	const struct testfs_opts opts = { .size_bytes = SCENE_BYTES };
	struct testpoison *poison;
	struct testfs t;
	unsigned count;

	scene_make(&scene, false);
	testfs_open_image(&t, scene.image, &opts);
	poison = testpoison_open(t.dax);
	if (!poison) {
		testfs_free(&t);
		skip();
	}
	want = testlist_make(&t);
	count = chunks_find(&t, chunks, max);
	testpoison_close(poison);
	testfs_free(&t);
	return count;
}

static void test_units(void **state)
{
	uint64_t seed = testfs_seed(), random = seed, chunks[SCENE_BYTES / CHUNK_SIZE];
	unsigned more = wanted("UMBRA_MODEL_UNITS", 0), chunk_count = scene_open(chunks, ARRAY_SIZE(chunks));
	struct m_unit_hdr hdr;

	(void)state;
	for (unsigned i = 1; i < scene.unit_count; i++) {
		memcpy(&hdr, scene.image + scene.units[i].off[0], sizeof(hdr));
		for (unsigned copy = 0; copy < 2; copy++) {
			struct unit u = { scene.units[i].name, le64_get(hdr.uh_laddr), 0, copy };

			one_unit(&u, seed * 64 + i * 2 + copy);
		}
	}
	print_message("# %u units and copies, %u of them met at work\n", runs, met);
	assert_true(met * 2 > runs);
	for (unsigned i = 0; i < more; i++) {
		uint64_t chunk = chunks[testfs_below(&random, chunk_count)];
		uint64_t unit = testfs_below(&random, CHUNK_BLOCKS);
		struct unit u = { "by chance", chunk + unit * BLOCK_SIZE, 0, i % 2 };

		one_unit(&u, testfs_random(&random));
	}
	free(want);
	scene_free(&scene);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_units),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
