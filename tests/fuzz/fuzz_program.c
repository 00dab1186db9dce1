/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * fsck.umbrafs as a program, from its command line to its exit status, on a pool file with edited metadata. For AFL++ (see afl), which
 * has no use for what fuzz_fsck knows about the pool; libFuzzer can run it too.
 */
#include <fcntl.h>
#include <sys/mman.h>

#define main fsck_main
int fsck_main(int argc, char **argv);
#include "../../tools/fsck.c"
#undef main

#include "fuzz/edit.h"
#include "fuzz/pool.h"
#include "fuzz/target.h"

#define PAGES (FUZZ_POOL_BYTES / BLOCK_SIZE)
#define FLAG_JSON 0x10u
#define FLAG_VERBOSE 0x20u

static char path[64];
static int file;
static uint8_t *view; /* of the file */

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	(void)argc, (void)argv;
	fuzz_pool_make();
	file = memfd_create("pool", 0); /* nobody has to remove it */
	if (file < 0 || ftruncate(file, (off_t)FUZZ_POOL_BYTES))
		fuzz_stop("memfd_create", -errno, "");
	view = mmap(NULL, FUZZ_POOL_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
	if (view == MAP_FAILED)
		fuzz_stop("mmap", -errno, "");
	memcpy(view, fuzz_pool_base(), FUZZ_POOL_BYTES);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", file);
	if (!freopen("/dev/null", "w", stdout))
		fuzz_stop("freopen", -errno, "");
	return 0;
}

static int fsck(const char *mode, uint8_t flags)
{
	char program[] = "fsck.umbrafs", how[8], force[] = "-f", json[] = "--json", verbose[] = "-v";
	char *argv[] = { program, how, force, NULL, NULL, NULL, NULL };
	int argc = 3;

	snprintf(how, sizeof(how), "%s", mode);
	if (flags & FLAG_JSON)
		argv[argc++] = json;
	if (flags & FLAG_VERBOSE)
		argv[argc++] = verbose;
	argv[argc++] = path;
	optind = 0; /* getopt starts anew */
	return fsck_main(argc, argv);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct edit_head head;
	int status;

	edit_apply(data, size, &head);
	for (uint64_t page = 0; page < PAGES; page++)
		if (fuzz_pool_is_touched(page))
			memcpy(view + page * BLOCK_SIZE, fuzz_pool_bytes() + page * BLOCK_SIZE, BLOCK_SIZE);
	fuzz_pool_restore();
	(void)fsck("-n", head.flags);
	if (head.flags & EDIT_FLAG_PREEN)
		(void)fsck("-p", head.flags);
	status = fsck("-y", head.flags);
	if (status & ~(FSCK_CORRECTED | FSCK_LEFT | FSCK_ERROR))
		fuzz_stop("exit status of fsck -y", status, "");
	if ((status == 0 || status == FSCK_CORRECTED) && fsck("-n", head.flags) != 0)
		fuzz_stop("fsck -n finds something after fsck -y", 0, "");
	for (uint64_t page = 0; page < PAGES; page++)
		if (memcmp(view + page * BLOCK_SIZE, fuzz_pool_base() + page * BLOCK_SIZE, BLOCK_SIZE) != 0)
			memcpy(view + page * BLOCK_SIZE, fuzz_pool_base() + page * BLOCK_SIZE, BLOCK_SIZE);
	return 0;
}
