/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * umbractl: what the subcommands share. Each is one function in a file of its own; it gets what follows its name.
 */
#ifndef UMBRA_TOOLS_CTL_H
#define UMBRA_TOOLS_CTL_H

#include <getopt.h>
#include <json-c/json.h>
#include <stdbool.h>
#include <stdint.h>

#include <umbra/ioctl.h>

#include "../args.h"

#define STATUS_FAILED 1
#define STATUS_USAGE 2
#define STATUS_LOST 3 /* done, and something is recorded as lost */

/* Exit statuses. */
int ctl_info(int argc, char **argv);
int ctl_stats(int argc, char **argv);
int ctl_map(int argc, char **argv);
int ctl_owners(int argc, char **argv);
int ctl_clone(int argc, char **argv);
int ctl_scrub(int argc, char **argv);
int ctl_grow(int argc, char **argv);
int ctl_losses(int argc, char **argv);
int ctl_events(int argc, char **argv);
int ctl_poison(int argc, char **argv);
int ctl_evacuate(int argc, char **argv);
int ctl_repair(int argc, char **argv);
int ctl_shadows(int argc, char **argv);
int ctl_dax(int argc, char **argv);
int ctl_upgrade(int argc, char **argv);

/* ---- options ---- */

struct ctl_args {
	const char *usage;          /* help text of the subcommand, its first line "usage: ..." */
	const char *letters;        /* getopt letters besides h and j */
	const struct option *longs; /* ended by zeros; --json and --help come by themselves */
	int (*take)(void *arg, int letter, const char *value); /* 0, or STATUS_USAGE after a message */
	void *arg;
	int min, max; /* positional arguments */
	bool json;
	char **names; /* the positional arguments */
	int names_count;
};

/* 0; -1: help was printed, status 0; STATUS_USAGE. */
int ctl_parse(struct ctl_args *args, int argc, char **argv);

/* ---- the file system ---- */

/* Opens something on a mounted umbrafs; prints why not and gives -1. */
int ctl_open(const char *path, int flags);
/* "umbractl: WHAT: WHY", what as with ctl_path_text(). Returns STATUS_FAILED. */
int ctl_say(const char *what, const char *why);
/* "umbractl: WHAT: strerror(error)", with the words for ENOTTY. Returns STATUS_FAILED. */
int ctl_fail(const char *what, int error);

/* ---- output ---- */

struct json_object *json_u64(uint64_t value);
/* Prints and frees it. 0 or STATUS_FAILED. */
int ctl_print_json(struct json_object *object);
/* Bytes of a path that may not be UTF-8: as they are if they are text, else with \xHH (and \\). Returns buf. */
const char *ctl_path_text(const char *path, size_t len, char *buf, size_t buf_size);
int ctl_finish(void);

#endif
