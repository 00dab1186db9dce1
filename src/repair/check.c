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
	ck->opts->found(ck->opts->arg, kind, text);
}

void *rows_add(struct check *ck, struct rows *rows, size_t row_size)
{
	if (rows->count == rows->room) {
		size_t room = rows->room ? rows->room * 2 : 64;
		void *data = realloc(rows->data, room * row_size);

		if (!data) {
			ck->error = -ENOMEM;
			return NULL;
		}
		rows->data = data;
		rows->room = room;
	}
	return (uint8_t *)rows->data + rows->count++ * row_size;
}

void rows_free(struct rows *rows)
{
	free(rows->data);
	*rows = (struct rows){ 0 };
}

static int inode_compare(const void *a, const void *b)
{
	const struct seen_inode *x = a, *y = b;

	return x->ino < y->ino ? -1 : x->ino > y->ino;
}

static void walk(struct check *ck)
{
	uint32_t count = ck->super->ag_count;

	check_super(ck);
	for (uint32_t agno = 0; agno < count; agno++)
		check_group_units(ck, agno);
	for (uint32_t agno = 0; agno < count; agno++)
		check_group_inodes(ck, agno);
	if (ck->inodes.count)
		qsort(ck->inodes.data, ck->inodes.count, sizeof(struct seen_inode), inode_compare);
	for (size_t i = 0; i < ck->inodes.count && !ck->error; i++)
		check_inode(ck, i);
	for (uint32_t agno = 0; agno < count; agno++)
		check_group_rest(ck, agno);
	check_intents(ck);
	check_names(ck);
	rows_free(&ck->names);
	rows_free(&ck->parents);
	check_owners_begin(ck);
	for (uint32_t agno = 0; agno < count && !ck->error; agno++)
		check_group_owners(ck, agno);
	check_used_maps(ck);
}

static void check_free(struct check *ck)
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
}

int check_pool(struct pool *pool, const struct check_opts *opts, struct check_report *report)
{
	const struct super *super = pool_super(pool);
	struct check ck = {
		.pool = pool,
		.dax = pool_dax(pool),
		.super = super,
		.opts = opts,
		.report = report,
		.ag_chunks = (uint32_t)(super->ag_size_blk / CHUNK_BLOCKS),
		.seq_end = super->seq_limit + 1,
	};
	size_t chunks = (size_t)super->ag_count * ck.ag_chunks;

	*report = (struct check_report){ 0 };
	ck.ags = calloc(super->ag_count, sizeof(*ck.ags));
	ck.used = calloc(chunks, sizeof(*ck.used));
	ck.reached = calloc(chunks, sizeof(*ck.reached));
	if (ck.ags && ck.used && ck.reached)
		walk(&ck);
	else
		ck.error = -ENOMEM;
	check_free(&ck);
	return ck.error;
}
