/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * umbractl SUBCOMMAND ...: looks into and works on a mounted umbrafs, by the ioctls of <umbra/ioctl.h>.
 */
#include "ctl.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "util/cli.h"
#include "util/text.h"

static const struct {
	const char *name;
	int (*run)(int argc, char **argv);
	const char *what;
} commands[] = {
	{ "info", ctl_info, "what the pool is" },
	{ "stats", ctl_stats, "how full it is and what it has done" },
	{ "map", ctl_map, "where a file lies and what it shares" },
	{ "owners", ctl_owners, "who owns a range of the device" },
	{ "clone", ctl_clone, "clone a file, or with -r a whole tree" },
	{ "scrub", ctl_scrub, "verify both copies of all metadata" },
	{ "grow", ctl_grow, "take in what the device or file has gained" },
	{ "losses", ctl_losses, "what files have lost to bad memory" },
	{ "events", ctl_events, "what bad memory has done since the mount" },
	{ "repair", ctl_repair, "put back what a file has lost, from a backup" },
	{ "poison", ctl_poison, "ranges of the device that are out of use" },
	{ "shadows", ctl_shadows, "who has files mapped directly" },
	{ "dax", ctl_dax, "which files are opened past the page cache" },
	{ "evacuate", ctl_evacuate, "move all out of a range of the device" },
	{ "upgrade", ctl_upgrade, "have another program take over the mount" },
};
#define COMMANDS (sizeof(commands) / sizeof(commands[0]))

static int help(void)
{
	printf("usage: umbractl COMMAND [options] ...\n"
	       "Looks into and works on a mounted umbrafs.\n\n");
	for (size_t i = 0; i < COMMANDS; i++)
		printf("  %-8s %s\n", commands[i].name, commands[i].what);
	printf("\n`umbractl COMMAND --help` tells more; all take --json.\n"
	       "Exit status: 0 done, 1 failed, 2 usage; of info and losses 3: something is lost.\n");
	return ctl_finish();
}

int ctl_parse(struct ctl_args *args, int argc, char **argv)
{
	struct option longs[16] = { { "json", no_argument, NULL, 'j' }, { "help", no_argument, NULL, 'h' } };
	char letters[32];
	int c, n = 2;

	for (const struct option *o = args->longs; o && o->name && n < 15; o++)
		longs[n++] = *o;
	snprintf(letters, sizeof(letters), ":hj%s", args->letters ? args->letters : "");
	opterr = 0;
	while ((c = getopt_long(argc, argv, letters, longs, NULL)) != -1) {
		if (c == 'h') {
			fputs(args->usage, stdout);
			return ctl_finish() ? STATUS_FAILED : -1;
		}
		if (c == 'j') {
			args->json = true;
		} else if (c == ':' || c == '?') {
			fprintf(stderr, "umbractl %s: %s '%s' (try --help)\n", argv[0],
				c == ':' ? "a value is missing after" : "unknown option",
				c == ':' ? argv[optind - 1] : cli_refused(argv, letters));
			return STATUS_USAGE;
		} else if (args->take(args->arg, c, optarg)) {
			return STATUS_USAGE;
		}
	}
	args->names = argv + optind;
	args->names_count = argc - optind;
	if (args->names_count < args->min || args->names_count > args->max) {
		fprintf(stderr, "umbractl %s: %s\n%.*s\n", argv[0],
			args->names_count < args->min ? "an argument is missing" : "one argument too many",
			(int)strcspn(args->usage, "\n"), args->usage);
		return STATUS_USAGE;
	}
	return 0;
}

int ctl_say(const char *what, const char *why)
{
	static char text[4 * 16384];

	fprintf(stderr, "umbractl: %s: %s\n", ctl_path_text(what, strlen(what), text, sizeof(text)), why);
	return STATUS_FAILED;
}

int ctl_fail(const char *what, int error)
{
	const char *why = strerror(error);

	if (error == ENOTTY)
		why = "is not on an umbrafs mount";
	return ctl_say(what, why);
}

int ctl_open(const char *path, int flags)
{
	int fd = open(path, flags | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);

	if (fd < 0)
		ctl_fail(path, errno);
	return fd;
}

struct json_object *json_u64(uint64_t value)
{
	return json_object_new_uint64(value);
}

int ctl_print_json(struct json_object *object)
{
	printf("%s\n", json_object_to_json_string_ext(object, JSON_C_TO_STRING_PRETTY |
								      JSON_C_TO_STRING_NOSLASHESCAPE));
	json_object_put(object);
	return ctl_finish();
}

const char *ctl_path_text(const char *path, size_t len, char *buf, size_t buf_size)
{
	return path_text(path, len, buf, buf_size);
}

int ctl_finish(void)
{
	if (!args_stdout_failed())
		return 0;
	fprintf(stderr, "umbractl: standard output: %s\n", strerror(errno));
	return STATUS_FAILED;
}

int main(int argc, char **argv)
{
	const char *name = argc > 1 ? argv[1] : "";

	if (strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0 || strcmp(name, "help") == 0)
		return help();
	if (strcmp(name, "--version") == 0 || strcmp(name, "-V") == 0) {
		puts("umbractl " UMBRA_VERSION);
		return ctl_finish();
	}
	for (size_t i = 0; i < COMMANDS; i++)
		if (strcmp(name, commands[i].name) == 0)
			return commands[i].run(argc - 1, argv + 1);
	if (*name)
		fprintf(stderr, "umbractl: unknown command '%s' (try --help)\n", name);
	else
		fprintf(stderr, "umbractl: which command? (try --help)\n");
	return STATUS_USAGE;
}
