/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * mount.umbrafs: what mount(8) runs for `mount -t umbrafs` and fstab. Turns the helper's command line into one of umbrafs and becomes it.
 */
#include <errno.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define STATUS_USAGE 1
#define STATUS_SYSTEM 2

static const char help[] =
	"usage: mount.umbrafs POOL DIR [-sfnrvw] [-o OPTION[,...]] [-t TYPE] [-N NAMESPACE]\n"
	"The helper of mount(8) for umbrafs: mounts POOL on DIR by running umbrafs(8), which has the options.\n"
	"\n"
	"  -f  do nothing but check the command line     -s  ignore unknown mount options\n"
	"  -r  read-only, as -o ro                       -w  read and write, as -o rw\n"
	"  -v  say more                                  -n, -t, -N  taken and ignored\n"
	"  --help, --version\n"
	"\n"
	"Exit status: 0 mounted, 1 usage, 2 system error, 32 mount failed.\n";

static int fail(const char *what, const char *why)
{
	fprintf(stderr, "mount.umbrafs: %s%s%s (try --help)\n", what, *why ? ": " : "", why);
	return STATUS_USAGE;
}

/* umbrafs from our own folder, else from where programs are. */
static int become_umbrafs(char **argv)
{
	static const char *const folders[] = { "/usr/sbin", "/usr/local/sbin", "/sbin" };
	char path[PATH_MAX + 16], *slash;
	ssize_t n = readlink("/proc/self/exe", path, PATH_MAX - 1);

	if (n > 0) {
		path[n] = '\0';
		slash = strrchr(path, '/');
		strcpy(slash + 1, "umbrafs");
		execv(path, argv);
	}
	for (size_t i = 0; i < sizeof(folders) / sizeof(folders[0]); i++) {
		snprintf(path, sizeof(path), "%s/umbrafs", folders[i]);
		execv(path, argv);
	}
	execvp("umbrafs", argv);
	fprintf(stderr, "mount.umbrafs: umbrafs: %s\n", strerror(errno));
	return STATUS_SYSTEM;
}

int main(int argc, char **argv)
{
	const char *names[2] = { NULL, NULL };
	char *args[64] = { (char *)"umbrafs" };
	unsigned names_count = 0, count = 1;
	bool fake = false;

	for (int i = 1; i < argc; i++) {
		const char *arg = argv[i];

		if (strcmp(arg, "--help") == 0 || strcmp(arg, "-h") == 0) {
			fputs(help, stdout);
			return 0;
		}
		if (strcmp(arg, "--version") == 0 || strcmp(arg, "-V") == 0) {
			puts("mount.umbrafs " UMBRA_VERSION);
			return 0;
		}
		if (arg[0] != '-' || !arg[1]) {
			if (names_count == 2)
				return fail("one argument too many", arg);
			names[names_count++] = arg;
			continue;
		}
		for (const char *c = arg + 1; *c; c++) {
			if (count + 4 > sizeof(args) / sizeof(args[0]))
				return fail("too many options", "");
			if (strchr("otN", *c)) {
				char *value = c[1] ? argv[i] + (c + 1 - arg) : argv[++i];

				if (!value)
					return fail("an option needs a value", arg);
				if (*c == 'o') {
					args[count++] = (char *)"-o";
					args[count++] = value;
				}
				break;
			}
			switch (*c) {
			case 'f':
				fake = true;
				break;
			case 'n':
				break;
			case 's':
				args[count++] = (char *)"-s";
				break;
			case 'v':
				args[count++] = (char *)"-v";
				break;
			case 'r':
				args[count++] = (char *)"-oro";
				break;
			case 'w':
				args[count++] = (char *)"-orw";
				break;
			default:
				return fail("unknown option", arg);
			}
		}
	}
	if (names_count < 2)
		return fail(names_count ? "missing DIR" : "missing POOL and DIR", "");
	if (fake)
		return 0;
	args[count++] = (char *)"--";
	args[count++] = (char *)names[0];
	args[count++] = (char *)names[1];
	args[count] = NULL;
	return become_umbrafs(args);
}
