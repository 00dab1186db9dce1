/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * See process.h. All of it is proc(5).
 */
#include "daemon/process.h"

#include <dirent.h>
#include <stdio.h>
#include <string.h>

#define LINE_MAX_BYTES 256

/* The state of a thread: R, S, D, Z...; '?': there is none. */
static char thread_state(pid_t pid, const char *tid)
{
	char path[64], line[LINE_MAX_BYTES] = "";
	const char *name_end;
	FILE *stat;

	snprintf(path, sizeof(path), "/proc/%d/task/%.16s/stat", (int)pid, tid);
	stat = fopen(path, "re");
	if (!stat)
		return '?';
	if (!fgets(line, sizeof(line), stat))
		line[0] = '\0';
	fclose(stat);
	name_end = strrchr(line, ')');
	return name_end && name_end[1] == ' ' ? name_end[2] : '?';
}

static bool is_dumping(pid_t pid)
{
	char path[64], line[LINE_MAX_BYTES];
	int dumping = 0;
	FILE *status;

	snprintf(path, sizeof(path), "/proc/%d/status", (int)pid);
	status = fopen(path, "re");
	if (!status)
		return false;
	while (fgets(line, sizeof(line), status) && sscanf(line, "CoreDumping: %d", &dumping) != 1)
		;
	fclose(status);
	return dumping;
}

bool process_is_over(pid_t pid)
{
	char tid[16];

	snprintf(tid, sizeof(tid), "%d", (int)pid);
	return thread_state(pid, tid) == 'Z' || is_dumping(pid);
}

bool process_is_stuck(pid_t pid)
{
	const struct dirent *entry;
	unsigned stuck_count = 0, others_count = 0;
	char path[64];
	DIR *threads;

	snprintf(path, sizeof(path), "/proc/%d/task", (int)pid);
	threads = opendir(path);
	while (threads && (entry = readdir(threads))) {
		char state = *entry->d_name == '.' ? '?' : thread_state(pid, entry->d_name);

		stuck_count += state == 'D';
		others_count += !strchr("DIZX?", state); /* I: waits for the core to be written */
	}
	if (threads)
		closedir(threads);
	return stuck_count > 0 && others_count == 0;
}
