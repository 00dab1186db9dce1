/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * See cli.h.
 */
#include "util/cli.h"

#include <getopt.h>
#include <string.h>

const char *cli_refused(char *const *argv, const char *letters)
{
	static char text[] = "-?";

	/* A letter that is not known may be one of several behind one dash, which getopt is not done with. */
	if (optopt == 0 || strchr(letters, optopt))
		return argv[optind - 1];
	text[1] = (char)optopt;
	return text;
}
