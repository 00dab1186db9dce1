/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * umbra-run: runs a program with the library that does for files on umbrafs what the kernel does not pass to it, and data calls without the kernel.
 */
#include <errno.h>
#include <getopt.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "util/cli.h"

/* As env(1). */
#define STATUS_FAILED 125
#define STATUS_CANNOT_RUN 126
#define STATUS_NOT_FOUND 127

static const char help[] =
	"usage: umbra-run [--ioctl-only] [--] PROGRAM [ARGUMENT...]\n"
	"Runs PROGRAM so that cp --reflink=always, xfs_io, filefrag and others work on umbrafs as on file systems of the kernel: the\n"
	"ioctls FICLONE, FICLONERANGE, FIDEDUPERANGE and FIEMAP, and fallocate(2) with COLLAPSE_RANGE, INSERT_RANGE and\n"
	"UNSHARE_RANGE. And so that pread(2), pwrite(2) and their like are done straight in the memory of the device, where the mount\n"
	"lets them. Not for programs that are linked statically, make system calls by themselves, or are set-user-ID.\n"
	"\n"
	"      --ioctl-only  only the ioctls and fallocate(2)\n"
	"  -h, --help\n"
	"  -V, --version\n"
	"\n"
	"Environment: UMBRA_STATS=1 says at the end what was done directly, UMBRA_DIRECT=0 is --ioctl-only, UMBRA_DIRECT=all does without\n"
	"waiting for some calls on a file first. Exit status: that of PROGRAM; 125 umbra-run failed, 126 PROGRAM cannot be run, 127 it was\n"
	"not found.\n";

/* The library beside us where we were built, else where it has been installed. */
static const char *preload_find(char path[PATH_MAX])
{
	static const char built[] = "../src/client/libumbra-preload.so";
	static const char installed[] = UMBRA_PRELOAD_DIR "/libumbra-preload.so";
	ssize_t n = readlink("/proc/self/exe", path, PATH_MAX - sizeof(built) - 1);
	char *slash;

	if (n > 0) {
		path[n] = '\0';
		slash = strrchr(path, '/');
		strcpy(slash + 1, built);
		if (access(path, R_OK) == 0)
			return path;
	}
	return installed;
}

static int preload_set(const char *library)
{
	const char *others = getenv("LD_PRELOAD");
	char *value;
	int rc;

	if (!others || !*others)
		return setenv("LD_PRELOAD", library, 1);
	if (asprintf(&value, "%s:%s", library, others) < 0)
		return -1;
	rc = setenv("LD_PRELOAD", value, 1);
	free(value);
	return rc;
}

int main(int argc, char **argv)
{
	static const struct option longs[] = {
		{ "ioctl-only", no_argument, NULL, 'i' },
		{ "help", no_argument, NULL, 'h' },
		{ "version", no_argument, NULL, 'V' },
		{ NULL, 0, NULL, 0 },
	};
	char path[PATH_MAX];
	const char *library;
	int option;

	opterr = 0;
	while ((option = getopt_long(argc, argv, "+hV", longs, NULL)) != -1) {
		switch (option) {
		case 'i':
			if (setenv("UMBRA_DIRECT", "0", 1)) {
				fprintf(stderr, "umbra-run: %s\n", strerror(errno));
				return STATUS_FAILED;
			}
			break;
		case 'h':
			fputs(help, stdout);
			return 0;
		case 'V':
			puts("umbra-run " UMBRA_VERSION);
			return 0;
		default:
			fprintf(stderr, "umbra-run: unknown option '%s' (try --help)\n",
				cli_refused(argv, "hV"));
			return STATUS_FAILED;
		}
	}
	if (optind == argc) {
		fprintf(stderr, "umbra-run: no program is given (try --help)\n");
		return STATUS_FAILED;
	}
	library = preload_find(path);
	/* The loader would only warn, and the program run without it. */
	if (access(library, R_OK) || preload_set(library)) {
		fprintf(stderr, "umbra-run: %s: %s\n", library, strerror(errno));
		return STATUS_FAILED;
	}
	execvp(argv[optind], argv + optind);
	fprintf(stderr, "umbra-run: %s: %s\n", argv[optind], strerror(errno));
	return errno == ENOENT ? STATUS_NOT_FOUND : STATUS_CANNOT_RUN;
}
