/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The consistency walk: its order, findings, rows.
 */
#include "repair/check.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "repair/priv.h"

#define PART_INODES 1024u

static const char *const kind_names[CHECK_KINDS] = {
	[CHECK_SUPER] = "super",
	[CHECK_UNIT_LOST] = "unit-lost",
	[CHECK_UNIT_COPY] = "unit-copy",
	[CHECK_UNIT_DIFFERS] = "unit-differs",
	[CHECK_UNIT_OWNER] = "unit-owner",
	[CHECK_UNIT_SEQ] = "unit-seq",
	[CHECK_UNIT_TWICE] = "unit-twice",
	[CHECK_UNIT_LEAKED] = "unit-leaked",
	[CHECK_UNIT_UNMARKED] = "unit-unmarked",
	[CHECK_TREE] = "tree",
	[CHECK_GROUP] = "group",
	[CHECK_COUNTER] = "counter",
	[CHECK_CHUNK] = "chunk",
	[CHECK_REMAP] = "remap",
	[CHECK_BITMAP_SET] = "bitmap-set",
	[CHECK_BITMAP_CLEAR] = "bitmap-clear",
	[CHECK_RMAP_MISSING] = "rmap-missing",
	[CHECK_RMAP_EXTRA] = "rmap-extra",
	[CHECK_RMAP_TWICE] = "rmap-twice",
	[CHECK_RMAP_SPECIAL] = "rmap-special",
	[CHECK_REFCOUNT] = "refcount",
	[CHECK_SHARED_FLAG] = "shared-flag",
	[CHECK_INODE_TREE] = "inode-tree",
	[CHECK_INODE] = "inode",
	[CHECK_INODE_BLOCKS] = "inode-blocks",
	[CHECK_EXTENT] = "extent",
	[CHECK_SYMLINK] = "symlink",
	[CHECK_XATTR] = "xattr",
	[CHECK_HASH_CHAIN] = "hash-chain",
	[CHECK_NAME_TWICE] = "name-twice",
	[CHECK_DIR_SIZE] = "dir-size",
	[CHECK_DIRENT] = "dirent",
	[CHECK_PARENT_MISSING] = "parent-missing",
	[CHECK_PARENT_EXTRA] = "parent-extra",
	[CHECK_LINKS] = "links",
	[CHECK_DIR_LINKS] = "dir-links",
	[CHECK_ORPHAN_MISSING] = "orphan-missing",
	[CHECK_ORPHAN_EXTRA] = "orphan-extra",
	[CHECK_DIR_LOOP] = "dir-loop",
	[CHECK_INTENT] = "intent",
	[CHECK_FORWARD] = "forward",
	[CHECK_LOSS] = "loss",
};

const char *check_kind_name(enum check_kind kind)
{
	return kind < CHECK_KINDS ? kind_names[kind] : "unknown";
}

void check_found(struct check *ck, enum check_kind kind, const char *fmt, ...)
{
	uint64_t count = ++ck->report->by_kind[kind];
	char text[256];
	va_list args;

	ck->report->findings++;
	if (!ck->opts->found || (ck->opts->limit != 0 && count > ck->opts->limit))
		return;
	va_start(args, fmt);
	vsnprintf(text, sizeof(text), fmt, args);
	va_end(args);
	if (ck->stage)
		part_text(ck, kind, text);
	else
		ck->opts->found(ck->opts->arg, kind, text);
}

static int inode_compare(const void *a, const void *b)
{
	const struct seen_inode *x = a, *y = b;

	return x->ino < y->ino ? -1 : x->ino > y->ino;
}

bool check_step(struct check *ck, const char *what, uint64_t done, uint64_t total)
{
	if (!ck->error && ck->opts->step && !ck->opts->step(ck->opts->arg, what, done, total))
		ck->error = -ECANCELED;
	return !ck->error;
}

static void inodes_part(struct check *part, uint32_t index)
{
	size_t first = (size_t)index * PART_INODES;

	for (size_t i = first; i < part->inodes.count && i < first + PART_INODES && !part->error; i++)
		check_inode(part, i);
}

static void sort_part(struct check *part, uint32_t index)
{
	if (index == 0)
		rows_sort(&part->names, sizeof(struct seen_name), seen_name_compare);
	else if (index == 1)
		rows_sort(&part->owners, sizeof(struct rmap), check_owner_compare);
	else
		rows_sort(&part->parents, sizeof(struct seen_name), seen_name_compare);
}

static void last_part(struct check *part, uint32_t index)
{
	if (index == 0)
		check_names(part);
	else
		check_group_owners(part, index - 1);
}

/* Most inodes have one name and one extent: rows that need not grow are not copied. */
static void rows_expect(struct rows *rows, size_t row_size, size_t count)
{
	void *data = rows->data ? NULL : malloc(count * row_size);

	if (data)
		*rows = (struct rows){ data, 0, count };
}

/* Parts before the inodes are few units; the rest is as long as the file system is large. */
static void walk(struct check *ck)
{
	uint32_t count = ck->super->ag_count;

	check_super(ck);
	for (uint32_t agno = 0; agno < count; agno++)
		check_group_units(ck, agno);
	check_header_supers(ck);
	for (uint32_t agno = 0; agno < count; agno++) {
		check_group_inodes(ck, agno);
		if (ck->more)
			ck->more(ck->more_arg, ck, agno);
	}
	rows_sort(&ck->inodes, sizeof(struct seen_inode), inode_compare);
	rows_expect(&ck->names, sizeof(struct seen_name), ck->inodes.count);
	if (ck->keep)
		rows_expect(&ck->parents, sizeof(struct seen_name), ck->inodes.count);
	rows_expect(&ck->owners, sizeof(struct rmap), ck->inodes.count + ck->inodes.count / 8);
	check_parts(ck, "inodes", false, (uint32_t)u64_div_up(ck->inodes.count, PART_INODES), inodes_part);
	for (uint32_t agno = 0; agno < count; agno++)
		check_group_rest(ck, agno);
	check_intents(ck);
	check_parts(ck, "sorting", true, ck->keep ? 3 : 2, sort_part);
	check_owners_divide(ck);
	check_parts(ck, "space", true, count + 1, last_part);
	if (ck->error)
		return;
	if (!ck->keep) {
		rows_free(&ck->names);
		rows_free(&ck->parents);
		rows_free(&ck->owners);
	}
	check_unaware(ck);
	check_used_maps(ck);
	check_bad_in_use(ck);
}

uint64_t check_bad_count(const struct check *ck)
{
	return ck->report->findings - ck->report->by_kind[CHECK_UNIT_COPY] -
	       ck->report->by_kind[CHECK_UNIT_DIFFERS];
}

void check_free(struct check *ck)
{
	for (uint32_t agno = 0; ck->ags && agno < ck->super->ag_count; agno++)
		free(ck->ags[agno].header);
	free(ck->ags);
	free(ck->used);
	free(ck->reached);
	rows_free(&ck->inodes);
	rows_free(&ck->owners);
	rows_free(&ck->names);
	rows_free(&ck->parents);
	rows_free(&ck->intents);
	rows_free(&ck->forwards);
	rows_free(&ck->lost);
	rows_free(&ck->clusters);
	rows_free(&ck->ag_nodes);
}

int check_scratch_make(struct check *scratch, const struct check *ck)
{
	static const struct check_opts silent;

	*scratch = *ck;
	scratch->opts = &silent;
	scratch->report = calloc(1, sizeof(*scratch->report));
	scratch->reached = calloc((size_t)ck->super->ag_count * ck->ag_chunks, sizeof(*scratch->reached));
	scratch->parents = (struct rows){ 0 };
	scratch->lost = (struct rows){ 0 };
	scratch->texts = (struct rows){ 0 };
	scratch->keep = false;
	scratch->stage = NULL;
	if (scratch->report && scratch->reached)
		return 0;
	check_scratch_free(scratch);
	return -ENOMEM;
}

void check_scratch_free(struct check *scratch)
{
	free(scratch->report);
	free(scratch->reached);
	rows_free(&scratch->parents);
}

int check_make(struct check *ck, struct pool *pool, const struct check_opts *opts,
	       struct check_report *report)
{
	const struct super *super = pool_super(pool);
	size_t chunks;

	*ck = (struct check){
		.pool = pool,
		.dax = pool_dax(pool),
		.super = super,
		.opts = opts,
		.report = report,
		.ag_chunks = (uint32_t)(super->ag_size_blk / CHUNK_BLOCKS),
		.seq_end = super->seq_limit + 1,
	};
	*report = (struct check_report){ 0 };
	chunks = (size_t)super->ag_count * ck->ag_chunks;
	ck->ags = calloc(super->ag_count, sizeof(*ck->ags));
	ck->used = calloc(chunks, sizeof(*ck->used));
	ck->reached = calloc(chunks, sizeof(*ck->reached));
	return ck->ags && ck->used && ck->reached ? 0 : -ENOMEM;
}

int check_walk(struct check *ck)
{
	walk(ck);
	return ck->error;
}

int check_pool(struct pool *pool, const struct check_opts *opts, struct check_report *report)
{
	struct check ck;
	int rc = check_make(&ck, pool, opts, report);

	if (!rc)
		rc = check_walk(&ck);
	check_free(&ck);
	return rc;
}
