/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * See fsck_report.h.
 */
#include "fsck_report.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "args.h"

#define LINES_OF_A_KIND 20u
#define TEXTS_OF_A_KIND 1000u /* in JSON */
#define TEXTS_ALL 100000u     /* in JSON with --verbose: memory has an end */
#define BAR_WIDTH 40u

static const struct {
	const char *name; /* in JSON */
	const char *head; /* of a line */
} acts[REPAIR_ACTS] = {
	[REPAIR_MENDED] = { "actions", "  mended: " },
	[REPAIR_LOST] = { "losses", "  LOST: " },
	[REPAIR_LEFT] = { "not_mended", "  not mended: " },
};

void report_init(struct report *r, const char *path, bool json, bool verbose, bool bar)
{
	*r = (struct report){ .path = path, .verbose = verbose, .bar = bar };
	if (!json)
		return;
	r->root = json_object_new_object();
	r->findings = json_object_new_object();
	json_object_object_add(r->root, "pool", json_object_new_string(path));
	json_object_object_add(r->root, "findings", r->findings);
	for (unsigned act = 0; act < REPAIR_ACTS; act++) {
		r->acts[act] = json_object_new_array();
		json_object_object_add(r->root, acts[act].name, r->acts[act]);
	}
}

/* ---- lines ---- */

static void bar_clear(struct report *r)
{
	if (r->bar_shown)
		fputs("\r\033[K", stderr);
	r->bar_shown = false;
}

static void line(struct report *r, const char *head, const char *text)
{
	bar_clear(r);
	fputs(head, stdout);
	for (const char *c = text; *c; c++)
		putchar((unsigned char)*c < 0x20 || *c == 0x7f ? '?' : *c);
	putchar('\n');
	if (r->bar)
		fflush(stdout);
}

/* Text of a name on media may be anything; JSON is UTF-8. */
static struct json_object *json_text(const char *text)
{
	size_t len = strlen(text), out = 0;
	char clean[1024];

	for (size_t i = 0; i < len && out + 5 < sizeof(clean);) {
		unsigned char c = (unsigned char)text[i];
		unsigned more = c < 0x80              ? 0 :
				c >= 0xc2 && c < 0xe0 ? 1 :
				c >= 0xe0 && c < 0xf0 ? 2 :
				c >= 0xf0 && c < 0xf5 ? 3 :
							9;
		bool sound = more != 9;

		for (unsigned k = 1; sound && k <= more; k++)
			sound = i + k < len && ((unsigned char)text[i + k] & 0xc0) == 0x80;
		if (!sound) {
			clean[out++] = '?';
			i++;
			continue;
		}
		memcpy(clean + out, text + i, more + 1u);
		out += more + 1u;
		i += more + 1u;
	}
	return json_object_new_string_len(clean, (int)out);
}

void report_note(struct report *r, const char *fmt, ...)
{
	char text[512];
	va_list args;

	if (r->root)
		return;
	va_start(args, fmt);
	vsnprintf(text, sizeof(text), fmt, args);
	va_end(args);
	bar_clear(r);
	printf("%s: ", r->path);
	line(r, "", text);
}

/* ---- findings ---- */

static struct json_object *kind_object(struct report *r, enum check_kind kind)
{
	struct json_object *of_kind;

	if (json_object_object_get_ex(r->findings, check_kind_name(kind), &of_kind))
		return of_kind;
	of_kind = json_object_new_object();
	json_object_object_add(of_kind, "count", json_object_new_int64(0));
	json_object_object_add(of_kind, "texts", json_object_new_array());
	json_object_object_add(r->findings, check_kind_name(kind), of_kind);
	return of_kind;
}

void report_found(void *arg, enum check_kind kind, const char *text)
{
	struct report *r = arg;
	uint64_t limit = r->root ? (r->verbose ? TEXTS_ALL : TEXTS_OF_A_KIND) : LINES_OF_A_KIND;
	char head[64];

	if (r->shown[kind] == limit && !(r->verbose && !r->root))
		return;
	r->shown[kind]++;
	if (r->root) {
		json_object_array_add(json_object_object_get(kind_object(r, kind), "texts"), json_text(text));
		return;
	}
	snprintf(head, sizeof(head), "  %s: ", check_kind_name(kind));
	line(r, head, text);
}

void report_found_end(struct report *r, const struct check_report *found)
{
	char head[64], text[64];

	for (unsigned kind = 0; kind < CHECK_KINDS; kind++) {
		if (found->by_kind[kind] == 0)
			continue;
		if (r->root) {
			json_object_object_add(kind_object(r, kind), "count",
					       json_object_new_int64((int64_t)found->by_kind[kind]));
		} else if (found->by_kind[kind] > r->shown[kind]) {
			snprintf(head, sizeof(head), "  %s: ", check_kind_name(kind));
			snprintf(text, sizeof(text), "... and %" PRIu64 " more (--verbose shows all)",
				 found->by_kind[kind] - r->shown[kind]);
			line(r, head, text);
		}
	}
	memset(r->shown, 0, sizeof(r->shown));
}

void report_told(struct report *r, enum repair_act act, const char *text)
{
	if (!r->root)
		line(r, acts[act].head, text);
	else if (json_object_array_length(r->acts[act]) < TEXTS_ALL)
		json_object_array_add(r->acts[act], json_text(text));
}

/* ---- progress ---- */

void report_progress(struct report *r, const char *step, uint64_t done, uint64_t total)
{
	unsigned percent = total ? (unsigned)(done >= total ? 100 : done * 100 / total) : 100;
	unsigned filled = percent * BAR_WIDTH / 100;

	if (!r->bar || (r->bar_shown && percent == r->bar_percent))
		return;
	r->bar_percent = percent;
	r->bar_shown = true;
	fprintf(stderr, "\r\033[K%-10.10s |%.*s%*s| %3u%%", step, (int)filled,
		"========================================", (int)(BAR_WIDTH - filled), "", percent);
	fflush(stderr);
}

/* ---- end ---- */

static void count(struct json_object *to, const char *name, uint64_t value)
{
	json_object_object_add(to, name, json_object_new_int64((int64_t)value));
}

void report_counts(struct report *r, const struct check_report *c, const struct super *super)
{
	char used[ARGS_SIZE_TEXT], size[ARGS_SIZE_TEXT];
	struct json_object *counts;

	if (!r->root) {
		args_size_text((super->size_blk - c->free_blk) * BLOCK_SIZE, used, sizeof(used));
		args_size_text(super->size_blk * BLOCK_SIZE, size, sizeof(size));
		report_note(r,
			    "%" PRIu64 " inodes (%" PRIu64 " directories, %" PRIu64
			    " without a name), %" PRIu64 " names, %" PRIu64 " extents, %s of %s in use",
			    c->inodes, c->directories, c->orphans, c->names, c->extents, used, size);
		return;
	}
	counts = json_object_new_object();
	count(counts, "inodes", c->inodes);
	count(counts, "directories", c->directories);
	count(counts, "names", c->names);
	count(counts, "orphans", c->orphans);
	count(counts, "intents", c->intents);
	count(counts, "extents", c->extents);
	count(counts, "nodes", c->nodes);
	count(counts, "metadata_units", c->meta_units);
	count(counts, "data_blocks", c->data_blk);
	count(counts, "shared_blocks", c->shared_blk);
	count(counts, "free_blocks", c->free_blk);
	count(counts, "blocks", super->size_blk);
	json_object_object_add(r->root, "counts", counts);
}

void report_left(struct report *r, const struct check_report *left)
{
	struct json_object *kinds;

	if (!r->root)
		return;
	kinds = json_object_new_object();
	for (unsigned kind = 0; kind < CHECK_KINDS; kind++) {
		if (left->by_kind[kind] != 0)
			count(kinds, check_kind_name(kind), left->by_kind[kind]);
	}
	json_object_object_add(r->root, "left", kinds);
}

static const char *verdict(int status)
{
	if (status & (FSCK_ERROR | FSCK_USAGE))
		return "error";
	if (status & FSCK_CANCELLED)
		return "cancelled";
	if (status & FSCK_LEFT)
		return "uncorrected";
	return status & FSCK_CORRECTED ? "corrected" : "clean";
}

int report_end(struct report *r, int status, const char *error)
{
	bar_clear(r);
	if (r->root) {
		json_object_object_add(r->root, "verdict", json_object_new_string(verdict(status)));
		json_object_object_add(r->root, "status", json_object_new_int(status));
		if (error)
			json_object_object_add(r->root, "error", json_text(error));
		puts(json_object_to_json_string_ext(r->root, JSON_C_TO_STRING_PRETTY |
								     JSON_C_TO_STRING_NOSLASHESCAPE));
		json_object_put(r->root);
		r->root = NULL;
	}
	if (args_stdout_failed())
		return status | FSCK_ERROR;
	return status;
}
