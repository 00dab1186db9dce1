/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A pool with edited metadata is opened as a mount would do it, used, closed, opened again, and checked. It may refuse or be wrong;
 * it may not stop the program.
 */
#include <stdlib.h>

#include "fuzz/drive.h"
#include "fuzz/edit.h"
#include "fuzz/pool.h"
#include "fuzz/target.h"
#include "repair/check.h"

#define STEPS_MAX 40u

static void found(void *arg, enum check_kind kind, const char *text)
{
	(void)arg, (void)kind, (void)text;
}

static void check(struct dax *dax, bool readonly)
{
	const struct pool_opts opts = { .readonly = readonly, .no_replay = readonly };
	const struct check_opts check_opts = { .found = found, .threads = 1 };
	struct check_report report;
	struct pool *pool;
	char why[256];

	if (pool_open(dax, &opts, &pool, why, sizeof(why)) != 0)
		return;
	(void)!check_pool(pool, &check_opts, &report);
	pool_close(pool, false);
}

static void use(struct dax *dax, const struct edit_head *head)
{
	const bool readonly = head->flags & EDIT_FLAG_READONLY;
	const struct pool_opts pool_opts = { .readonly = readonly };
	const struct fs_opts fs_opts = { .readonly = readonly, .strictatime = head->seed & 1 };
	struct pool *pool;
	struct fs *fs;
	char why[256];
	const char *first;

	if (pool_open(dax, &pool_opts, &pool, why, sizeof(why)) != 0)
		return;
	if (fs_open(pool, &fs_opts, &fs) == 0) {
		drive_walk(fs, &first);
		if (!readonly)
			drive_change(fs, head->seed, head->steps % STEPS_MAX);
		fs_close(fs);
	}
	pool_close(pool, head->flags & EDIT_FLAG_CLEAN);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	(void)argc, (void)argv;
	fuzz_pool_make();
	return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct edit_head head;
	struct dax *dax;

	edit_apply(data, size, &head);
	dax = fuzz_dax_open(head.flags & EDIT_FLAG_READONLY);
	use(dax, &head);
	check(dax, head.flags & EDIT_FLAG_READONLY);
	dax_close(dax);
	fuzz_pool_restore();
	return 0;
}
