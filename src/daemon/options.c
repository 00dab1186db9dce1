/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Options. See options.h. Later ones win, as with mount(8).
 */
#include "daemon/options.h"

#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <unistd.h>

#include "util/cli.h"

#define THREADS_MAX 256

const char options_help[] =
	"usage: umbrafs [options] POOL DIR\n"
	"Mounts the umbrafs pool POOL (a device-DAX node or a plain file) on DIR.\n"
	"\n"
	"  -f, --foreground   stay in the foreground, messages to standard error\n"
	"  -o OPTION[,...]    mount options:\n"
	"     ro, rw               read-only, read and write\n"
	"     durability=HOW       auto, flush, msync or process: when a write counts as durable\n"
	"     dax=WHICH            inode, always or never: which files bypass the kernel's page cache\n"
	"     threads=N            threads that answer requests\n"
	"     placement=WHERE      caller (on the core of who asks) or spread\n"
	"     transport=HOW        auto, uring (over io_uring) or dev: how requests come from the kernel\n"
	"     direct=HOW           off, ro, rw, ro:LIST or rw:LIST: who may map pages of the device directly\n"
	"     direct_unit=SIZE     4K or 2M: they map in multiples of it (2M: by large pages only)\n"
	"     socket=PATH          where they ask for it\n"
	"     keeper               a daemon that ends badly, or is replaced, is followed by another one\n"
	"     on_event=PROGRAM     run PROGRAM for each event of bad memory, also --on-event PROGRAM\n"
	"     allow_other          other users may use the mount (always so if root mounts)\n"
	"     noatime, relatime, strictatime   when reading changes access times\n"
	"     suid, dev, exec, sync ... and what else mount(8) and fstab(5) know\n"
	"  -s                 ignore unknown mount options\n"
	"  -v, --verbose      say more\n"
	"  -h, --help         this text\n"
	"  -V, --version      version\n"
	"\n"
	"Unmount with `umount DIR`, or `fusermount3 -u DIR` if you are not root.\n"
	"Exit status: 0 mounted, 1 usage, 2 system error, 32 mount failed.\n";

/* Options without a value that set or clear a flag of mount(2). */
static const struct {
	const char *name;
	unsigned long set, clear;
} flag_options[] = {
	{ "rw", 0, MS_RDONLY },
	{ "ro", MS_RDONLY, 0 },
	{ "suid", 0, MS_NOSUID },
	{ "nosuid", MS_NOSUID, 0 },
	{ "dev", 0, MS_NODEV },
	{ "nodev", MS_NODEV, 0 },
	{ "exec", 0, MS_NOEXEC },
	{ "noexec", MS_NOEXEC, 0 },
	{ "async", 0, MS_SYNCHRONOUS },
	{ "sync", MS_SYNCHRONOUS, 0 },
	{ "dirsync", MS_DIRSYNC, 0 },
	{ "atime", 0, MS_NOATIME },
	{ "noatime", MS_NOATIME, MS_STRICTATIME | MS_RELATIME },
	{ "relatime", MS_RELATIME, MS_NOATIME | MS_STRICTATIME },
	{ "norelatime", 0, MS_RELATIME },
	{ "strictatime", MS_STRICTATIME, MS_NOATIME | MS_RELATIME },
	{ "nostrictatime", 0, MS_STRICTATIME },
	{ "diratime", 0, MS_NODIRATIME },
	{ "nodiratime", MS_NODIRATIME, 0 },
	{ "symfollow", 0, 256 },
	{ "nosymfollow", 256, 0 }, /* MS_NOSYMFOLLOW, newer than some headers */
	{ "silent", MS_SILENT, 0 },
	{ "loud", 0, MS_SILENT },
	/* who may mount: for mount(8), which has checked it */
	{ "user", MS_NOSUID | MS_NODEV | MS_NOEXEC, 0 },
	{ "users", MS_NOSUID | MS_NODEV | MS_NOEXEC, 0 },
	{ "owner", MS_NOSUID | MS_NODEV, 0 },
	{ "group", MS_NOSUID | MS_NODEV, 0 },
};

/* Of no meaning here: for mount(8), or true anyway. A name ending in '=' takes a value, one ending in '*' goes on. */
static const char *const ignored_options[] = {
	"defaults",
	"auto",
	"noauto",
	"nouser",
	"nousers",
	"noowner",
	"nogroup",
	"_netdev",
	"nofail",
	"nomand",
	"mand",
	"lazytime",
	"nolazytime",
	"iversion",
	"noiversion",
	"default_permissions",
	"comment=",
	"user=",
	"uhelper=",
	"helper=",
	"x-*",
	"X-*",
	/* what the kernel says of a mount, passed back for a remount */
	"user_id=",
	"group_id=",
	"rootmode=",
	"max_read=",
	"blksize=",
	"subtype=",
};

static bool option_is_ignored(const char *name)
{
	for (size_t i = 0; i < ARRAY_SIZE(ignored_options); i++) {
		const char *known = ignored_options[i];
		size_t len = strlen(known);

		if (known[len - 1] == '*' && strncmp(name, known, len - 1) == 0)
			return true;
		if (known[len - 1] == '=' ? strncmp(name, known, len) == 0 : strcmp(name, known) == 0)
			return true;
	}
	return false;
}

/* The index of value in names, -1: none of them. */
static int choice(const char *value, const char *const *names, int count)
{
	for (int i = 0; i < count; i++)
		if (strcmp(value, names[i]) == 0)
			return i;
	return -1;
}

static int set_durability(struct daemon_opts *opts, const char *value, char *why, size_t why_size)
{
	static const char *const names[] = { "auto", "flush", "msync", "process" };
	static const enum dax_durability values[] = { DAX_AUTO, DAX_FLUSH, DAX_MSYNC, DAX_PROCESS };
	int i = choice(value, names, ARRAY_SIZE(names));

	if (i < 0) {
		snprintf(why, why_size, "durability=%s: must be auto, flush, msync or process", value);
		return -EINVAL;
	}
	opts->durability = values[i];
	return 0;
}

static int set_dax(struct daemon_opts *opts, const char *value, char *why, size_t why_size)
{
	static const char *const names[] = { "inode", "always", "never" };
	static const enum session_dax values[] = { SESSION_DAX_INODE, SESSION_DAX_ALWAYS, SESSION_DAX_NEVER };
	int i = choice(value, names, ARRAY_SIZE(names));

	if (i < 0) {
		snprintf(why, why_size, "dax=%s: must be inode, always or never", value);
		return -EINVAL;
	}
	opts->dax = values[i];
	return 0;
}

static int set_placement(struct daemon_opts *opts, const char *value, char *why, size_t why_size)
{
	static const char *const names[] = { "caller", "spread" };
	static const enum session_placement values[] = { SESSION_PLACE_CALLER, SESSION_PLACE_SPREAD };
	int i = choice(value, names, ARRAY_SIZE(names));

	if (i < 0) {
		snprintf(why, why_size, "placement=%s: must be caller or spread", value);
		return -EINVAL;
	}
	opts->placement = values[i];
	return 0;
}

static int set_transport(struct daemon_opts *opts, const char *value, char *why, size_t why_size)
{
	static const char *const names[] = { "auto", "uring", "dev" };
	static const enum session_transport values[] = { SESSION_TRANSPORT_AUTO, SESSION_TRANSPORT_URING,
							 SESSION_TRANSPORT_DEV };
	int i = choice(value, names, ARRAY_SIZE(names));

	if (i < 0) {
		snprintf(why, why_size, "transport=%s: must be auto, uring or dev", value);
		return -EINVAL;
	}
	opts->transport = values[i];
	return 0;
}

static int set_threads(struct daemon_opts *opts, const char *value, char *why, size_t why_size)
{
	char *end;
	unsigned long n = strtoul(value, &end, 10);

	if (*value < '0' || *value > '9' || *end || n < 1 || n > THREADS_MAX) {
		snprintf(why, why_size, "threads=%s: must be a number from 1 to %d", value, THREADS_MAX);
		return -EINVAL;
	}
	opts->threads = (unsigned)n;
	return 0;
}

static int set_on_event(struct daemon_opts *opts, const char *value, char *why, size_t why_size)
{
	if (*value != '/') {
		snprintf(why, why_size, "on_event=%s: must be an absolute path", value);
		return -EINVAL;
	}
	opts->on_event = value;
	return 0;
}

static int set_socket(struct daemon_opts *opts, const char *value, char *why, size_t why_size)
{
	if (*value != '/') {
		snprintf(why, why_size, "socket=%s: must be an absolute path", value);
		return -EINVAL;
	}
	opts->socket = value;
	return 0;
}

static int set_direct_unit(struct daemon_opts *opts, const char *value, char *why, size_t why_size)
{
	if (strcmp(value, "4K") == 0) {
		opts->direct_unit = 4096;
	} else if (strcmp(value, "2M") == 0) {
		opts->direct_unit = 2u << 20;
	} else {
		snprintf(why, why_size, "direct_unit=%s: must be 4K or 2M", value);
		return -EINVAL;
	}
	return 0;
}

/* Options that a mount has from its start to its end. */
static const char *const fixed_options[] = { "durability=", "dax=",      "placement=", "transport=",
					     "threads=",    "on_event=", "direct=",    "direct_unit=",
					     "socket=",     "keeper" };

static int option_take(struct daemon_opts *opts, const char *option, char *why, size_t why_size)
{
	for (size_t i = 0; i < ARRAY_SIZE(fixed_options); i++)
		if (strncmp(option, fixed_options[i], strlen(fixed_options[i])) == 0)
			opts->fixed = fixed_options[i];
	if (strncmp(option, "durability=", 11) == 0)
		return set_durability(opts, option + 11, why, why_size);
	if (strncmp(option, "dax=", 4) == 0)
		return set_dax(opts, option + 4, why, why_size);
	if (strncmp(option, "placement=", 10) == 0)
		return set_placement(opts, option + 10, why, why_size);
	if (strncmp(option, "transport=", 10) == 0)
		return set_transport(opts, option + 10, why, why_size);
	if (strncmp(option, "threads=", 8) == 0)
		return set_threads(opts, option + 8, why, why_size);
	if (strncmp(option, "on_event=", 9) == 0)
		return set_on_event(opts, option + 9, why, why_size);
	if (strncmp(option, "direct=", 7) == 0) {
		opts->direct_given = true;
		return direct_rights_parse(option + 7, &opts->direct, why, why_size);
	}
	if (strncmp(option, "direct_unit=", 12) == 0)
		return set_direct_unit(opts, option + 12, why, why_size);
	if (strncmp(option, "socket=", 7) == 0)
		return set_socket(opts, option + 7, why, why_size);
	if (strcmp(option, "allow_other") == 0) {
		opts->allow_other = true;
		return 0;
	}
	if (strcmp(option, "keeper") == 0) {
		opts->keeper = true;
		return 0;
	}
	if (strcmp(option, "remount") == 0) {
		opts->remount = true;
		return 0;
	}
	for (size_t i = 0; i < ARRAY_SIZE(flag_options); i++) {
		if (strcmp(option, flag_options[i].name) == 0) {
			opts->mount_flags &= ~flag_options[i].clear;
			opts->mount_flags |= flag_options[i].set;
			return 0;
		}
	}
	if (opts->sloppy || option_is_ignored(option))
		return 0;
	snprintf(why, why_size, "unknown mount option '%s'", option);
	return -EINVAL;
}

/* Cuts list, in which a backslash takes the meaning from a comma. */
static int options_take(struct daemon_opts *opts, char *list, char *why, size_t why_size)
{
	char *from = list, *to = list, *option = list;
	int rc = 0;

	while (rc == 0) {
		char c = *from++;

		if (c == '\\' && *from) {
			*to++ = *from++;
		} else if (c == ',' || c == '\0') {
			*to++ = '\0';
			if (*option)
				rc = option_take(opts, option, why, why_size);
			option = to;
			if (c == '\0')
				break;
		} else {
			*to++ = c;
		}
	}
	return rc;
}

static int positionals_take(struct daemon_opts *opts, int argc, char **argv, char *why, size_t why_size)
{
	if (argc < 1)
		snprintf(why, why_size, "missing POOL and DIR (try --help)");
	else if (argc < 2)
		snprintf(why, why_size, "missing DIR after '%s' (try --help)", argv[0]);
	else if (argc > 2)
		snprintf(why, why_size, "one argument too many: '%s' (try --help)", argv[2]);
	else if (!*argv[0] || !*argv[1])
		snprintf(why, why_size, "POOL and DIR cannot be empty");
	else {
		opts->pool = argv[0];
		opts->dir = argv[1];
		return 0;
	}
	return -EINVAL;
}

/* What a daemon that takes over could not go on with. */
static int keeper_check(struct daemon_opts *opts, char *why, size_t why_size)
{
	if (!opts->keeper)
		return 0;
	if (opts->transport == SESSION_TRANSPORT_URING) {
		snprintf(why, why_size, "keeper: not with transport=uring: what was under way would be lost");
		return -EINVAL;
	}
	if (opts->direct_given && (opts->direct.owners || opts->direct.count)) {
		snprintf(why, why_size,
			 "keeper: not with direct=: nobody maps pages directly in such a mount");
		return -EINVAL;
	}
	opts->direct = (struct direct_rights){ 0 };
	return 0;
}

int options_parse(int argc, char **argv, struct daemon_opts *opts, char *why, size_t why_size)
{
	static const struct option longs[] = {
		{ "foreground", no_argument, NULL, 'f' },
		{ "help", no_argument, NULL, 'h' },
		{ "version", no_argument, NULL, 'V' },
		{ "verbose", no_argument, NULL, 'v' },
		{ "options", required_argument, NULL, 'o' },
		{ "on-event", required_argument, NULL, 'e' },
		{ NULL, 0, NULL, 0 },
	};
	static const char letters[] = ":fo:svhV";
	const char *on_event = NULL;
	char *lists[64];
	unsigned count = 0;
	int c, rc = 0;

	*opts = (struct daemon_opts){ .durability = DAX_AUTO,
				      .dax = SESSION_DAX_INODE,
				      .transport = SESSION_TRANSPORT_AUTO,
				      .direct = DIRECT_RIGHTS_DEFAULT };
	opterr = 0;
	while ((c = getopt_long(argc, argv, letters, longs, NULL)) != -1) {
		switch (c) {
		case 'f':
			opts->foreground = true;
			break;
		case 's':
			opts->sloppy = true;
			break;
		case 'v':
			opts->verbose = true;
			break;
		case 'h':
			opts->help = true;
			return 0;
		case 'V':
			opts->version = true;
			return 0;
		case 'o':
			if (count == ARRAY_SIZE(lists)) {
				snprintf(why, why_size, "too many -o");
				return -EINVAL;
			}
			lists[count++] = optarg;
			break;
		case 'e':
			on_event = optarg;
			break;
		case ':':
			snprintf(why, why_size, "option '%s' needs a value", argv[optind - 1]);
			return -EINVAL;
		default:
			snprintf(why, why_size, "unknown option '%s' (try --help)",
				 cli_refused(argv, letters));
			return -EINVAL;
		}
	}
	for (unsigned i = 0; i < count && rc == 0; i++)
		rc = options_take(opts, lists[i], why, why_size);
	if (on_event && rc == 0)
		rc = set_on_event(opts, on_event, why, why_size);
	if (rc || (rc = keeper_check(opts, why, why_size)))
		return rc;
	if (geteuid() == 0)
		opts->allow_other = true;
	else
		opts->mount_flags |= MS_NOSUID | MS_NODEV; /* fusermount3 grants nothing else */
	opts->noatime = opts->mount_flags & MS_NOATIME;
	opts->strictatime = opts->mount_flags & MS_STRICTATIME;
	return positionals_take(opts, argc - optind, argv + optind, why, why_size);
}
