/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * See args.h.
 */
#include "args.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char units[] = "KMGTPE";

bool args_size(const char *text, uint64_t *bytes)
{
	bool hex = text[0] == '0' && (text[1] == 'x' || text[1] == 'X');
	uint64_t whole, scale = 1;
	double fraction = 0;
	char *end;

	if (!isdigit((unsigned char)text[0]))
		return false;
	errno = 0;
	whole = strtoull(text, &end, hex ? 16 : 10);
	if (errno)
		return false;
	if (!hex && *end == '.') {
		const char *dot = end;

		fraction = strtod(dot, &end);
		if (end == dot + 1 || strspn(dot + 1, "0123456789") != (size_t)(end - dot - 1))
			return false;
	}
	if (*end) {
		const char *unit = strchr(units, toupper((unsigned char)*end));

		if (!unit)
			return false;
		scale = (uint64_t)1 << (10 * (unit - units + 1));
		end++;
		if (*end == 'i' && end[1] == 'B')
			end += 2;
	}
	if (*end || (fraction != 0 && scale == 1) || (whole && scale > UINT64_MAX / whole))
		return false;
	whole *= scale;
	*bytes = whole + (uint64_t)(fraction * (double)scale);
	return *bytes >= whole;
}

const char *args_size_text(uint64_t bytes, char *text, size_t text_size)
{
	double n = (double)bytes / 1024;
	unsigned unit = 0;

	if (bytes < 10 * 1024 && bytes % 1024) {
		snprintf(text, text_size, "%llu bytes", (unsigned long long)bytes);
		return text;
	}
	while (n >= 1024 && units[unit + 1]) {
		n /= 1024;
		unit++;
	}
	snprintf(text, text_size, "%.4g %ciB", n, units[unit]);
	return text;
}

bool args_stdout_failed(void)
{
	return fflush(stdout) != 0 || ferror(stdout);
}
