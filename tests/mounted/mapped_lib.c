/* SPDX-License-Identifier: BSD-3-Clause */
#define _GNU_SOURCE
#include "mapped.h"

#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int mapped_file(const char *name, int flags)
{
	unsigned char *bytes = buffer_make(BYTES);

	for (size_t i = 0; i < BYTES; i++)
		bytes[i] = (unsigned char)(i / PAGE);
	file_make(name, bytes, BYTES);
	free(bytes);
	return file_open(name, flags);
}

unsigned char *mapped_make(void *hint, size_t size, int prot, int flags, int fd, off_t at)
{
	unsigned char *map = mmap(hint, size, prot, flags, fd, at);

	MUST(map == MAP_FAILED ? -1 : 0);
	return map;
}

void mapped_is_direct(const void *at, bool direct)
{
	const char *want = getenv("MAPPED_DIRECT");
	unsigned long lo, hi;
	bool found = false, named = false;
	char line[512];
	FILE *maps;

	if (!want || strcmp(want, "1") != 0)
		return;
	maps = fopen("/proc/self/maps", "re");
	MUST(maps ? 0 : -1);
	while (fgets(line, sizeof(line), maps)) {
		if (sscanf(line, "%lx-%lx", &lo, &hi) != 2 || (uintptr_t)at < lo || (uintptr_t)at >= hi)
			continue;
		found = true;
		named = strstr(line, "/f\n") || strstr(line, "/g\n");
	}
	fclose(maps);
	TRUE(found);
	EQ(direct, !named);
}

unsigned char mapped_read(const char *name, off_t off)
{
	int fd = file_open(name, O_RDONLY);
	unsigned char byte = 0xee;

	EQ(1, pread(fd, &byte, 1, off));
	close(fd);
	return byte;
}

static sigjmp_buf touch_out;
static volatile sig_atomic_t touch_sig;

static void touch_handler(int sig)
{
	touch_sig = sig;
	siglongjmp(touch_out, 1);
}

int mapped_touch(volatile unsigned char *at, bool store)
{
	struct sigaction action = { .sa_handler = touch_handler }, segv, bus;

	touch_sig = 0;
	MUST(sigaction(SIGSEGV, &action, &segv));
	MUST(sigaction(SIGBUS, &action, &bus));
	if (sigsetjmp(touch_out, 1) == 0) {
		if (store)
			*at = 0x11;
		else
			(void)*at;
	}
	MUST(sigaction(SIGSEGV, &segv, NULL));
	MUST(sigaction(SIGBUS, &bus, NULL));
	return touch_sig;
}
