/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What comes from command lines: sizes, and the options of the daemon.
 *
 * Input: text, cut into arguments at each newline.
 */
#include <assert.h>
#include <getopt.h>
#include <stdio.h>

#include "../../tools/args.h"
#include "daemon/options.h"
#include "fuzz/input.h"
#include "fuzz/target.h"

#define ARGS_MAX 100

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	(void)argc, (void)argv;
	return 0;
}

static void size_try(const char *arg)
{
	char text[ARGS_SIZE_TEXT];
	uint64_t bytes = 0, again;

	if (!args_size(arg, &bytes))
		return;
	assert(strlen(args_size_text(bytes, text, sizeof(text))) < sizeof(text) - 1);
	snprintf(text, sizeof(text), "%llu", (unsigned long long)bytes);
	assert(args_size(text, &again) && again == bytes);
}

static void options_try(int argc, char **argv)
{
	struct daemon_opts opts;
	char why[200] = "";
	int rc;

	optind = 0; /* getopt starts anew */
	rc = options_parse(argc, argv, &opts, why, sizeof(why));
	assert(rc == 0 || *why);
	if (rc == 0 && !opts.help && !opts.version)
		assert(opts.pool && opts.dir);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *argv[ARGS_MAX + 1] = { strdup("umbrafs") };
	int argc = 1;
	size_t from = 0;

	for (size_t at = 0; at <= size && argc < ARGS_MAX; at++) {
		if (at < size && data[at] != '\n')
			continue;
		argv[argc] = strndup((const char *)data + from, at - from);
		size_try(argv[argc++]);
		from = at + 1;
	}
	char *all[ARGS_MAX + 1]; /* getopt changes the order */

	memcpy(all, argv, sizeof(all));
	options_try(argc, argv);
	for (int i = 0; i < argc; i++)
		free(all[i]);
	return 0;
}
