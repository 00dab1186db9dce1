/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What command lines have in common.
 */
#ifndef UMBRA_UTIL_CLI_H
#define UMBRA_UTIL_CLI_H

/* The option that getopt_long(3) has just refused, as it was given; letters: those that it knows. Static text or of argv. */
const char *cli_refused(char *const *argv, const char *letters);

#endif
