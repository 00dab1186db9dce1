/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Units with wrong content and a good CRC, by chance: the walk says the same whatever the number of its threads; repair comes
 * to its end, and leaves nothing for a second run.
 *
 *	UMBRA_SEED=N             that run again
 *	UMBRA_LIES=N             so many images
 *	UMBRA_LIES_AT=N          that one of them alone, and all that repair says
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "media/unit.h"
#include "repair_scene.h"

#define IMAGES 40u

/* A number that may be taken for something. */
static uint64_t lie(uint64_t *random)
{
	static const uint64_t numbers[] = { 0,          1,          2,          511,        512,       4096,
					    1ull << 20, 1ull << 31, 1ull << 55, 1ull << 63, UINT64_MAX };

	switch (testfs_below(random, 4)) {
	case 0:
		return numbers[testfs_below(random, ARRAY_SIZE(numbers))];
	case 1:
		return testfs_below(random, 2 * CHUNK_BLOCKS) * BLOCK_SIZE; /* a unit */
	case 2:
		return testfs_below(random, SCENE_BYTES / BLOCK_SIZE);
	default:
		return testfs_random(random);
	}
}

/* Both copies, with a good CRC. What the unit itself cannot be is a lost unit then. */
static void unit_lies(struct scene_image *im, const struct scene_unit *u, uint64_t *random)
{
	_Alignas(64) uint8_t unit[BLOCK_SIZE];

	memcpy(unit, im->bytes + u->off[0], u->size);
	for (uint64_t i = 1 + testfs_below(random, 3); i > 0; i--) {
		size_t width = (size_t)1 << testfs_below(random, 4);
		size_t room = testfs_below(random, 2) ? u->size :
							256; /* most of what matters lies in front */
		size_t at = 48 + testfs_below(random, (room - 48) / width) * width;
		uint64_t value = lie(random);

		memcpy(unit + (at < u->size - width ? at : u->size - width), &value, width);
	}
	unit_seal(unit, u->size, le64_get(((struct m_unit_hdr *)(void *)unit)->uh_seq));
	for (unsigned copy = 0; copy < 2; copy++) {
		scene_image_mark(im, u->off[copy], u->size);
		memcpy(im->bytes + u->off[copy], unit, u->size);
	}
}

/* ---- the walk ---- */

struct texts {
	char *bytes;
	size_t used, size;
};

static void text_add(void *arg, enum check_kind kind, const char *text)
{
	struct texts *t = arg;
	size_t room = strlen(text) + 32;

	if (t->size - t->used < room) {
		t->size = (t->size + room) * 2;
		t->bytes = realloc(t->bytes, t->size);
		assert_non_null(t->bytes);
	}
	t->used += (size_t)snprintf(t->bytes + t->used, room, "%s: %s\n", check_kind_name(kind), text);
}

static bool walk(uint8_t *image, unsigned threads, struct texts *texts)
{
	const struct pool_opts pool_opts = { .readonly = true, .no_replay = true };
	const struct check_opts opts = { .found = text_add, .arg = texts, .limit = 50, .threads = threads };
	struct check_report report;
	struct pool *pool;
	struct dax *dax;
	char why[256];
	int rc;

	assert_int_equal(dax_open_memory(image, SCENE_BYTES, NULL, &dax), 0);
	rc = pool_open(dax, &pool_opts, &pool, why, sizeof(why));
	if (rc == 0) {
		assert_int_equal(check_pool(pool, &opts, &report), 0);
		pool_close(pool, false);
	}
	dax_close(dax);
	return rc == 0;
}

static void walk_is_the_same(uint8_t *image)
{
	struct texts one = { 0 }, three = { 0 };

	if (walk(image, 1, &one) && walk(image, 3, &three)) {
		assert_int_equal(one.used, three.used);
		if (one.used)
			assert_memory_equal(one.bytes, three.bytes, one.used);
	}
	free(one.bytes);
	free(three.bytes);
}

/* ---- repair ---- */

static bool image_run(struct scene_image *im, unsigned number, const char *what, unsigned *found)
{
	bool loud = getenv("UMBRA_LIES_AT") != NULL;
	struct scene_run run, again;
	bool fine;

	scene_repair(&run, im, NULL, loud);
	fine = run.rc == 0 && run.report.after.findings == 0;
	scene_repair(&again, im, NULL, loud);
	fine = fine && again.rc == 0 && again.report.before.findings == 0;
	*found += run.report.before.findings != 0;
	if (!fine)
		print_message("# image %u, %s: rc %d, %llu findings left, %s; again: rc %d, %llu findings\n",
			      number, what, run.rc, (unsigned long long)run.report.after.findings, run.why,
			      again.rc, (unsigned long long)again.report.before.findings);
	scene_run_free(&run);
	scene_run_free(&again);
	return fine;
}

static void test_lies(void **state)
{
	const char *given = getenv("UMBRA_LIES"), *at = getenv("UMBRA_LIES_AT");
	unsigned images = given ? (unsigned)strtoul(given, NULL, 0) : IMAGES, bad = 0, found = 0;
	uint64_t random = testfs_seed();
	struct scene_image im;
	struct scene s;

	(void)state;
	scene_make(&s, false);
	scene_image_make(&s, &im);
	for (unsigned i = 0; i < images; i++) {
		char what[300] = "";
		size_t len = 0;

		scene_image_reset(&s, &im);
		for (uint64_t k = 1 + testfs_below(&random, 4); k > 0; k--) {
			/* The superblock is believed: whoever makes one with a good CRC owns the pool. */
			const struct scene_unit *u = &s.units[1 + testfs_below(&random, s.unit_count - 1)];

			unit_lies(&im, u, &random);
			len += (size_t)snprintf(what + len, sizeof(what) - len, "%s%s", len ? ", " : "",
						u->name);
		}
		if (at && i != strtoul(at, NULL, 0))
			continue;
		walk_is_the_same(im.bytes);
		bad += !image_run(&im, i, what, &found);
	}
	assert_int_equal(bad, 0);
	assert_true(at || found > images / 3);
	scene_image_free(&im);
	scene_free(&s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_lies),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
