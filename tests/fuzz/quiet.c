/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What the outside gives to the program, for fuzzing: random numbers that are always the same, and a log that nobody reads (but the
 * sanitizers see its arguments). They stand in for those of the library and of libc.
 */
#include <stdarg.h>
#include <stdio.h>
#include <sys/random.h>

#include "util/log.h"

ssize_t getrandom(void *buf, size_t len, unsigned flags)
{
	static uint64_t state = 1;
	uint8_t *bytes = buf;

	(void)flags;
	for (size_t i = 0; i < len; i++) {
		state = state * 6364136223846793005ull + 1442695040888963407ull;
		bytes[i] = (uint8_t)(state >> 56);
	}
	return (ssize_t)len;
}

void log_setup(const char *program, enum log_level max_level, bool to_syslog)
{
	(void)program, (void)max_level, (void)to_syslog;
}

void log_syslog(void)
{
}

void log_line(enum log_level level, const char *fmt, ...)
{
	char text[1024];
	va_list args;

	(void)level;
	va_start(args, fmt);
	vsnprintf(text, sizeof(text), fmt, args);
	va_end(args);
}

bool log_is_first(uint64_t place)
{
	(void)place;
	return true;
}
