/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What a process still has open when it tells the daemon that it has a file no more: a line in UMBRA_DETACH_LOG for each such message, with how many descriptors of files below
 * UMBRA_DETACH_DIR there are. To be loaded after what is looked at.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <umbra/direct.h>

static unsigned open_now(void)
{
	const char *below = getenv("UMBRA_DETACH_DIR");
	DIR *dir = opendir("/proc/self/fd");
	struct dirent *entry;
	char link[4096];
	unsigned count = 0;
	ssize_t n;

	while (dir && below && (entry = readdir(dir))) {
		n = readlinkat(dirfd(dir), entry->d_name, link, sizeof(link) - 1);
		link[n > 0 ? n : 0] = '\0';
		count += strncmp(link, below, strlen(below)) == 0;
	}
	if (dir)
		closedir(dir);
	return count;
}

ssize_t send(int sock, const void *buf, size_t len, int flags)
{
	ssize_t (*next)(int, const void *, size_t, int);
	const char *log = getenv("UMBRA_DETACH_LOG");
	struct umbra_msg msg = { 0 };

	if (len == sizeof(struct umbra_msg_detach))
		memcpy(&msg, buf, sizeof(msg));
	if (log && msg.size == len && msg.type == UMBRA_MSG_DETACH) {
		unsigned count = open_now();
		FILE *file = fopen(log, "ae");

		if (file) {
			fprintf(file, "%u\n", count);
			fclose(file);
		}
	}
	*(void **)&next = dlsym(RTLD_NEXT, "send");
	return next(sock, buf, len, flags);
}
