/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What fsck.umbrafs says: lines for people while it works, or one JSON object at the end; a progress bar on a terminal.
 */
#ifndef UMBRA_TOOLS_FSCK_REPORT_H
#define UMBRA_TOOLS_FSCK_REPORT_H

#include <json-c/json.h>
#include <stdbool.h>

#include "repair/repair.h"

/* Exit status, as fsck(8) has it. */
#define FSCK_CORRECTED 1
#define FSCK_LEFT 4
#define FSCK_ERROR 8
#define FSCK_USAGE 16
#define FSCK_CANCELLED 32

struct report {
	const char *path;
	bool verbose; /* all lines, else the first ones of each kind */
	bool bar;     /* draw progress on standard error */
	bool bar_shown;
	unsigned bar_percent;
	struct json_object *root; /* NULL: for people */
	struct json_object *findings, *acts[REPAIR_ACTS];
	uint64_t shown[CHECK_KINDS]; /* lines of each kind */
};

/* json: one object at the end instead of lines. */
void report_init(struct report *r, const char *path, bool json, bool verbose, bool bar);

/* For check_opts: a finding. */
void report_found(void *arg, enum check_kind kind, const char *text);
/* What could not be shown because there is too much of it. */
void report_found_end(struct report *r, const struct check_report *found);

void report_told(struct report *r, enum repair_act act, const char *text);
/* A remark for people, left out of JSON. */
void report_note(struct report *r, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void report_progress(struct report *r, const char *step, uint64_t done, uint64_t total);

void report_counts(struct report *r, const struct check_report *counts, const struct super *super);
void report_left(struct report *r, const struct check_report *left);
/* Prints the object if there is one; the status to exit with: status, or FSCK_ERROR if that could not be written. */
int report_end(struct report *r, int status, const char *error);

#endif
