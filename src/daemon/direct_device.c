/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * See direct_device.h.
 */
#include "daemon/direct_device.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <time.h>
#include <unistd.h>

#include "dax/dax.h"

#define STEP_MS 10
#define NAMED_MAX 8u /* processes in one line */

/* ---- who it is, for the message ---- */

/*
 * Of a descriptor of another process, which may be on any file system: what the kernel knows without asking a server, who may not answer, or wait for
 * this mount.
 */
static bool descriptor_is(int fds, const char *name, const struct stat *st)
{
	struct statx other;

	return statx(fds, name, AT_STATX_DONT_SYNC, STATX_INO, &other) == 0 && other.stx_ino == st->st_ino &&
	       makedev(other.stx_dev_major, other.stx_dev_minor) == st->st_dev;
}

/* Whether a process maps the file, or has it open. */
static bool process_has(const char *pid, const struct stat *st)
{
	char path[64], line[512], place[96];
	bool found = false;
	FILE *maps;
	DIR *fds;
	struct dirent *entry;

	snprintf(path, sizeof(path), "/proc/%.16s/maps", pid);
	snprintf(place, sizeof(place), " %02x:%02x %ju ", major(st->st_dev), minor(st->st_dev),
		 (uintmax_t)st->st_ino);
	maps = fopen(path, "re");
	while (maps && !found && fgets(line, sizeof(line), maps))
		found = strstr(line, place) != NULL;
	if (maps)
		fclose(maps);
	snprintf(path, sizeof(path), "/proc/%.16s/fd", pid);
	fds = found ? NULL : opendir(path);
	while (fds && !found && (entry = readdir(fds)))
		found = descriptor_is(dirfd(fds), entry->d_name, st);
	if (fds)
		closedir(fds);
	return found;
}

static void process_name(const char *pid, char *name, size_t name_size)
{
	char path[64];
	FILE *comm;

	name[0] = '\0';
	snprintf(path, sizeof(path), "/proc/%.16s/comm", pid);
	comm = fopen(path, "re");
	if (!comm)
		return;
	if (fgets(name, (int)name_size, comm))
		name[strcspn(name, "\n")] = '\0';
	fclose(comm);
}

/* " 12 (cat) 34 (dog)"; "" if nobody is found. */
static void processes_name(int pool_fd, char *text, size_t text_size)
{
	unsigned count = 0;
	struct dirent *entry;
	struct stat st;
	DIR *proc;

	text[0] = '\0';
	proc = fstat(pool_fd, &st) ? NULL : opendir("/proc");
	while (proc && count < NAMED_MAX && (entry = readdir(proc))) {
		char name[64];
		size_t len = strlen(text);

		if (!isdigit((unsigned char)entry->d_name[0]) || atoi(entry->d_name) == (int)getpid() ||
		    !process_has(entry->d_name, &st))
			continue;
		process_name(entry->d_name, name, sizeof(name));
		snprintf(text + len, text_size - len, " %.16s (%s)", entry->d_name, name);
		count++;
	}
	if (proc)
		closedir(proc);
}

int direct_device_wait(int pool_fd, int wait_ms, char *why, size_t why_size)
{
	const struct timespec step = { .tv_nsec = STEP_MS * 1000000L };
	char names[512];

	for (int waited_ms = 0; dax_is_any_lent(pool_fd); waited_ms += STEP_MS) {
		if (waited_ms >= wait_ms) {
			processes_name(pool_fd, names, sizeof(names));
			snprintf(why, why_size,
				 "processes of an earlier mount still have its memory mapped: end them%s%s",
				 names[0] ? ", or have them let go:" :
					    " (none of them can be seen from here)",
				 names);
			return -EBUSY;
		}
		nanosleep(&step, NULL);
	}
	return 0;
}
