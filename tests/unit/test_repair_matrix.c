/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Each kind of metadata unit x each damage x primary, mirror, both: what repair makes of it (docs/REPAIR.md).
 *
 *	UMBRA_SEED=N             that run again
 *	UMBRA_MATRIX_ONLY=TEXT   cells with this in their name ("bitmap, zeroed, both"), and all that repair says
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "repair_scene.h"

static const char *const copies_names[] = { "", "primary", "mirror", "both" };

static uint64_t seed;

static bool cell_run(const struct scene *s, const struct scene_unit *u, enum scene_damage how,
		     unsigned copies, struct scene_image *im)
{
	const char *only = getenv("UMBRA_MATRIX_ONLY");
	uint64_t random = seed;
	struct scene_run run;
	char name[128], why[512] = "";
	bool fine;

	snprintf(name, sizeof(name), "%s, %s, %s", u->name, scene_damage_names[how], copies_names[copies]);
	if (only && !strstr(name, only))
		return true;
	scene_image_reset(s, im);
	if (!scene_damage(s, im, u, how, copies, &random))
		return true;
	if (only)
		print_message("# %s\n", name);
	scene_repair(&run, im, NULL, only != NULL);
	if (run.rc || run.report.after.findings || run.report.acts[REPAIR_LEFT]) {
		fine = false;
		snprintf(why, sizeof(why), "rc %d, %llu findings left, %s", run.rc,
			 (unsigned long long)run.report.after.findings, run.why);
	} else if (copies != 3 && run.report.acts[REPAIR_LOST]) {
		fine = false;
		snprintf(why, sizeof(why), "one copy is damaged, and lost: %s", run.lost);
	} else {
		fine = scene_is_mended(s, im, u, how, copies, &run, why, sizeof(why));
	}
	if (!fine)
		print_message("# %s: %s\n", name, why);
	scene_run_free(&run);
	return fine;
}

static void matrix_run(bool live, unsigned copies_from, unsigned copies_to)
{
	struct scene_image im;
	unsigned bad = 0, cells = 0;
	struct scene s;

	scene_make(&s, live);
	scene_image_make(&s, &im);
	for (unsigned i = 0; i < s.unit_count; i++) {
		for (unsigned how = 0; how < SCENE_DAMAGES; how++) {
			for (unsigned copies = copies_from; copies <= copies_to; copies++) {
				cells++;
				bad += !cell_run(&s, &s.units[i], how, copies, &im);
			}
		}
	}
	if (bad)
		print_message("# %u of %u cells failed\n", bad, cells);
	assert_int_equal(bad, 0);
	scene_image_free(&im);
	scene_free(&s);
}

/* Nothing is lost, ever: the file system reads as before, to the last byte and second. */
static void test_one_copy(void **state)
{
	(void)state;
	matrix_run(false, 1, 2);
}

static void test_both_copies(void **state)
{
	(void)state;
	matrix_run(false, 3, 3);
}

/* A record that was not applied: one copy of it will do. */
static void test_journal(void **state)
{
	(void)state;
	matrix_run(true, 1, 3);
}

/* Repair of a pool that was not unmounted, and has nothing else. */
static void test_sound(void **state)
{
	struct scene s;
	struct scene_image im;
	struct scene_run run;

	(void)state;
	scene_make(&s, false);
	scene_image_make(&s, &im);
	scene_repair(&run, &im, NULL, true);
	assert_int_equal(run.rc, 0);
	assert_int_equal(run.report.before.findings, 0);
	assert_int_equal(run.report.after.findings, 0);
	scene_run_free(&run);
	scene_image_free(&im);
	scene_free(&s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_sound),
		cmocka_unit_test(test_one_copy),
		cmocka_unit_test(test_both_copies),
		cmocka_unit_test(test_journal),
	};

	seed = testfs_seed();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
